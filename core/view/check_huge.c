/* SPDX-License-Identifier: MIT */
/* Pools of huge pages against the pages that are there. */
#include "check.h"

#define NR_ROWS(rules) (sizeof(rules) / sizeof((rules)[0]))

int mpl_check_huge_page(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t index, struct memplug_reason *reason)
{
    memplug_pfn_t pfn = mpl_pfn_add(mpl_block_start(pool, block), index);
    struct mpl_where where = {"huge", (int64_t)mpl_block_id(pool, block), -1, pfn.nr};
    struct mpl_look_page page = mpl_look_page(pool, pfn);
    bool pooled = page.state == MPL_PAGE_POOLED;
    bool known = page.huge <= MEMPLUG_NR_HUGE;
    uint64_t nr_pages = page.huge != 0 && known
                            ? mpl_huge_pages(pool, (enum memplug_huge)(page.huge - 1))
                            : 1;
    const struct mpl_rule rules[] = {
        {!known, "there is no such size of huge pages"},
        {pooled && page.huge == 0, "a page of a pool is not huge"},
        {page.huge == 0 && page.huge_flags != 0, "a page that is not huge is marked as if"},
        {page.huge != 0 && (page.nr_pages != nr_pages || !mpl_is_multiple(pfn.nr, nr_pages)),
         "a huge page has not its size or its alignment"},
        {page.huge != 0 && page.state != MPL_PAGE_USED && !pooled,
         "a huge page is neither used nor free"},
        {pooled && (page.mover != 0 || page.cookie != 0 || page.pins != 0),
         "a free huge page has an owner"},
        {page.huge != 0 && !pooled && page.mover == 0 && block->zone == MEMPLUG_ZONE_MOVABLE,
         "a huge page in a Movable zone has no mover"},
        {(page.huge_flags & MPL_HUGE_FROM_POOL) != 0, "a huge page is still marked as a target"},
    };

    return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
}

/* --- counters --------------------------------------------------------------------------------- */

/* What the blocks have, by node. */
static int recount(const struct memplug *pool, unsigned size, struct mpl_huge_count *nodes,
                   struct memplug_reason *reason)
{
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);
        struct mpl_where where = {"huge", (int64_t)id, -1, MPL_NO_PFN};
        struct mpl_rule rule = {false, "nr_pooled of the block is not what its pages say"};
        uint64_t nr_free = 0, index = 0;

        if (mpl_block_state(block) != MEMPLUG_BLOCK_ONLINE)
            continue;
        for (; mpl_frames_next_head(pool, block, &index); index++) {
            struct mpl_look_page page;

            if (!mpl_frame_described(pool, block, index))
                continue;
            page = mpl_look_page(pool, mpl_pfn_add(mpl_block_start(pool, block), index));
            if (page.huge != size + 1)
                continue;
            nodes[block->node].nr++;
            nr_free += page.state == MPL_PAGE_POOLED;
        }
        nodes[block->node].nr_free += nr_free;
        rule.broken = block->nr_pooled[size] != nr_free;
        if (rule.broken)
            return mpl_check_rules(reason, &where, &rule, 1);
    }
    return 0;
}

static int check_pool(struct memplug *pool, unsigned size, struct memplug_reason *reason)
{
    const struct mpl_huge *huge = &pool->huge[size];
    struct mpl_huge_count nodes[MPL_MAX_NODES], sum = {0};
    struct mpl_where where = {"huge", -1, -1, MPL_NO_PFN};
    int error;

    MPL_FILL(nodes, 0, sizeof(nodes));
    error = recount(pool, size, nodes, reason);
    for (unsigned node = 0; node < pool->nr_nodes && error == 0; node++) {
        const struct mpl_huge_count *count = &huge->nodes[node];
        const struct mpl_rule rules[] = {
            {count->nr != nodes[node].nr, "the huge pages of a node are not counted right"},
            {count->nr_free != nodes[node].nr_free,
             "the free huge pages of a node are not counted right"},
            {count->nr_surplus > count->nr, "a node has more surplus than huge pages"},
        };

        where.node = (int)node;
        error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
        sum.nr += count->nr;
        sum.nr_free += count->nr_free;
        sum.nr_surplus += count->nr_surplus;
    }
    if (error == 0) {
        const struct mpl_rule rules[] = {
            {huge->all.nr != sum.nr || huge->all.nr_free != sum.nr_free ||
                 huge->all.nr_surplus != sum.nr_surplus,
             "the huge pages are not the sum of the nodes'"},
            {huge->nr_withheld != 0, "huge pages are withheld and nobody takes a block offline"},
            {huge->nr_reserved > huge->all.nr_free, "more huge pages are promised than are free"},
        };

        where.node = -1;
        error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
    }
    return error;
}

int mpl_check_huge(struct memplug *pool, struct memplug_reason *reason)
{
    int error = 0;

    mpl_spin_lock(pool, &pool->huge_lock);
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE && error == 0; size++)
        error = check_pool(pool, size, reason);
    mpl_spin_unlock(&pool->huge_lock);
    return error;
}
