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
        {(page.huge_flags & (MPL_HUGE_RETURNED | MPL_HUGE_STUCK)) != 0,
         "a huge page is still marked by an operation"},
        {(page.huge_flags & MPL_HUGE_EXCESS) != 0 &&
             (!pooled || (page.huge_flags & MPL_HUGE_LENT) == 0),
         "a huge page is excess and could be dissolved"},
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
            nodes[block->node].nr_excess += (page.huge_flags & MPL_HUGE_EXCESS) != 0;
            nodes[block->node].nr_lent += (page.huge_flags & MPL_HUGE_LENT) != 0;
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
            {count->nr_excess != nodes[node].nr_excess || count->nr_excess > count->nr_surplus,
             "the excess huge pages of a node are not counted right"},
            {count->nr_lent != nodes[node].nr_lent,
             "the huge pages whose memmap is lent are not counted right"},
        };

        where.node = (int)node;
        error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
        sum.nr += count->nr;
        sum.nr_free += count->nr_free;
        sum.nr_surplus += count->nr_surplus;
        sum.nr_excess += count->nr_excess;
        sum.nr_lent += count->nr_lent;
    }
    if (error == 0) {
        const struct mpl_rule rules[] = {
            {huge->all.nr != sum.nr || huge->all.nr_free != sum.nr_free ||
                 huge->all.nr_surplus != sum.nr_surplus || huge->all.nr_excess != sum.nr_excess ||
                 huge->all.nr_lent != sum.nr_lent,
             "the huge pages are not the sum of the nodes'"},
            {huge->nr_withheld != 0, "huge pages are withheld and nobody takes a block offline"},
            {huge->nr_reserved + huge->all.nr_excess > huge->all.nr_free,
             "more huge pages are promised than are free"},
        };

        where.node = -1;
        error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
    }
    return error;
}

/* --- lent memmaps ----------------------------------------------------------------------------- */

/* All frames of a page's group are lent; *nr_own and *nr_host: pages of it, by whose they are. */
static int check_group(const struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size,
                       uint64_t *nr_own, uint64_t *nr_host, struct memplug_reason *reason)
{
    struct mpl_where where = {"hvo", -1, -1, pfn.nr};
    struct mpl_hvo_group group;
    struct mpl_block *block;
    uint64_t index, nr_pages;
    bool can = mpl_hvo_group(pool, pfn, size, &group), all = true;

    for (unsigned at = 0; can && mpl_hvo_piece(pool, &group, at, &block, &index, &nr_pages); at++)
        for (uint64_t i = index; i < index + nr_pages; i++)
            all &= mpl_block_state(block) == MEMPLUG_BLOCK_ONLINE &&
                   block->zone == MEMPLUG_ZONE_MOVABLE && mpl_lent_bit(pool, block, i);
    *(can && group.unit ? nr_own : nr_host) += can ? group.nr_pages : 0;
    {
        const struct mpl_rule rules[] = {
            {!can, "the memmap of a huge page is lent and cannot be"},
            {!all, "a frame of a memmap is not lent with its huge page"},
        };

        return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
    }
}

static int check_groups(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t *nr_own, uint64_t *nr_host, struct memplug_reason *reason)
{
    uint64_t index = 0;
    int error = 0;

    for (; error == 0 && mpl_frames_next_head(pool, block, &index); index++) {
        memplug_pfn_t pfn = mpl_pfn_add(mpl_block_start(pool, block), index);
        struct mpl_look_page page;

        if (!mpl_frame_described(pool, block, index))
            continue;
        page = mpl_look_page(pool, pfn);
        if (page.huge != 0 && (page.huge_flags & MPL_HUGE_LENT) != 0)
            error = check_group(pool, pfn, (enum memplug_huge)(page.huge - 1), nr_own, nr_host,
                                reason);
    }
    return error;
}

int mpl_check_lent(const struct memplug *pool, uint64_t *nr_host, struct memplug_reason *reason)
{
    struct mpl_where where = {"hvo", -1, -1, MPL_NO_PFN};
    uint64_t nr_own = 0, nr_lent = 0;
    struct mpl_rule rule = {false, "frames are lent that belong to no huge page's memmap"};
    int error = 0;

    *nr_host = 0;
    for (uint64_t id = 0; id < pool->nr_blocks_max && error == 0; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);

        if (mpl_block_state(block) != MEMPLUG_BLOCK_ONLINE)
            continue;
        nr_lent += mpl_lent_count(pool, block);
        error = check_groups(pool, block, &nr_own, nr_host, reason);
    }
    rule.broken = nr_lent != nr_own;
    return error != 0 ? error : mpl_check_rules(reason, &where, &rule, 1);
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
