/* SPDX-License-Identifier: MIT */
/*
 * Pools of huge pages. A free one is an allocation whose page is POOLED; how many begin in a block
 * stands in the block, and they are found there, since they are aligned to themselves. A block
 * that has one, or a part of one, keeps its bitmaps: free huge pages leave before their block does.
 */
#include "state.h"

uint64_t mpl_huge_pages(const struct memplug *pool, enum memplug_huge size)
{
    unsigned table_order = size == MEMPLUG_HUGE_PUD ? pool->geometry.page_shift - 3u : 0;

    return mpl_pageblock_pages(&pool->geometry) << table_order;
}

uint64_t mpl_huge_available(const struct memplug *pool, enum memplug_huge size)
{
    const struct mpl_huge *huge = &pool->huge[size];
    uint64_t nr_gone = huge->all.nr_excess + huge->nr_withheld + huge->nr_reserved;

    MPL_ASSERT(huge->all.nr_free >= nr_gone);
    return huge->all.nr_free - nr_gone;
}

static struct mpl_block *block_of(const struct memplug *pool, memplug_pfn_t pfn)
{
    return mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, pfn));
}

/* Does a free huge page of this size begin there? */
static bool is_pooled(const struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    const struct mpl_block *block = block_of(pool, pfn);
    uint64_t index = mpl_pfn_distance(mpl_block_start(pool, block), pfn);
    const struct mpl_page *page = mpl_page_at(pool, pfn);

    return block->nr_pooled[size] != 0 &&
           mpl_frame_get(pool, block, index) == MPL_FRAME_HEAD &&
           mpl_frame_described(pool, block, index) &&
           mpl_page_state(page) == MPL_PAGE_POOLED &&
           __atomic_load_n(&page->huge, __ATOMIC_RELAXED) == size + 1;
}

bool mpl_huge_next(const struct memplug *pool, const struct mpl_block *block,
                   enum memplug_huge size, memplug_pfn_t *pfn)
{
    uint64_t nr_pages = mpl_huge_pages(pool, size);
    uint64_t start = mpl_block_start(pool, block).nr;
    uint64_t at = start & ~(nr_pages - 1);

    if (at < pfn->nr)
        at = mpl_round_up(pfn->nr, nr_pages);
    while (at < start + pool->layout.nr_pages) {
        uint64_t head_end = mpl_pfn_of_block(&pool->geometry,
                                             mpl_block_of_pfn(&pool->geometry, mpl_pfn(at)) + 1).nr;

        if (is_pooled(pool, mpl_pfn(at), size)) {
            *pfn = mpl_pfn(at);
            return true;
        }
        at = block_of(pool, mpl_pfn(at))->nr_pooled[size] != 0 ? at + nr_pages
                                                               : mpl_round_up(head_end, nr_pages);
    }
    return false;
}

bool mpl_huge_is_excess(const struct memplug *pool, memplug_pfn_t pfn)
{
    return (mpl_page_at(pool, pfn)->huge_flags & MPL_HUGE_EXCESS) != 0;
}

/* --- withheld and isolated -------------------------------------------------------------------- */

static bool is_withheld(const struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    uint64_t nr_pages = mpl_huge_pages(pool, size);
    const struct mpl_block *last = block_of(pool, mpl_pfn(pfn.nr + nr_pages - 1));

    for (const struct mpl_block *block = block_of(pool, pfn); block <= last; block++)
        if (block->withholds)
            return true;
    return false;
}

/* Neither withheld nor excess: it may be handed out, unless it is promised. */
static bool is_open(const struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    return !mpl_huge_is_excess(pool, pfn) && !is_withheld(pool, pfn, size);
}

static bool is_isolated(const struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    uint64_t end = pfn.nr + mpl_huge_pages(pool, size);

    for (; pfn.nr < end; pfn.nr += mpl_pageblock_pages(&pool->geometry)) {
        const struct mpl_block *block = block_of(pool, pfn);

        if (mpl_isolated(pool, block, mpl_pfn_distance(mpl_block_start(pool, block), pfn)))
            return true;
    }
    return false;
}

uint64_t mpl_huge_open(const struct memplug *pool, const struct mpl_block *block,
                       enum memplug_huge size)
{
    memplug_pfn_t pfn = mpl_pfn(0);
    uint64_t nr_open = 0;

    for (; mpl_huge_next(pool, block, size, &pfn); pfn.nr++)
        nr_open += is_open(pool, pfn, size);
    return nr_open;
}

bool mpl_huge_set_withheld(struct memplug *pool, struct mpl_block *block, bool withheld)
{
    uint64_t nr_open[MEMPLUG_NR_HUGE];

    MPL_ASSERT(block->withholds != withheld);
    block->withholds = false;
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE; size++) {
        nr_open[size] = mpl_huge_open(pool, block, (enum memplug_huge)size);
        if (withheld && nr_open[size] > mpl_huge_available(pool, (enum memplug_huge)size))
            return false;
    }
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE; size++)
        pool->huge[size].nr_withheld += withheld ? nr_open[size] : -nr_open[size];
    block->withholds = withheld;
    return true;
}

uint64_t mpl_huge_pooled_frames(const struct memplug *pool, const struct mpl_block *block,
                                uint64_t index, uint64_t nr_pages)
{
    uint64_t start = mpl_block_start(pool, block).nr + index, end = start + nr_pages;
    uint64_t nr_frames = 0;

    for (unsigned size = 0; size < MEMPLUG_NR_HUGE; size++) {
        memplug_pfn_t pfn = mpl_pfn(0);

        for (; mpl_huge_next(pool, block, (enum memplug_huge)size, &pfn); pfn.nr++) {
            uint64_t page_end = pfn.nr + mpl_huge_pages(pool, (enum memplug_huge)size);
            uint64_t low = pfn.nr > start ? pfn.nr : start;
            uint64_t high = page_end < end ? page_end : end;

            nr_frames += low < high ? high - low : 0;
        }
    }
    return nr_frames;
}

/* --- finding ---------------------------------------------------------------------------------- */

static bool find_in_zone(const struct memplug *pool, enum memplug_huge size, int node,
                         bool in_movable, bool isolated, memplug_pfn_t *pfn)
{
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);

        if (block->nr_pooled[size] == 0 || block->node != node ||
            (block->zone == MEMPLUG_ZONE_MOVABLE) != in_movable)
            continue;
        *pfn = mpl_block_start(pool, block);
        for (; mpl_huge_next(pool, block, size, pfn); pfn->nr++)
            if (is_open(pool, *pfn, size) && (isolated || !is_isolated(pool, *pfn, size)))
                return true;
    }
    return false;
}

static bool find_on_node(const struct memplug *pool, enum memplug_huge size, int node,
                         const struct mpl_huge_want *want, memplug_pfn_t *pfn)
{
    if (pool->huge[size].nodes[node].nr_free == 0)
        return false;
    return (want->movable && find_in_zone(pool, size, node, true, want->isolated, pfn)) ||
           find_in_zone(pool, size, node, false, want->isolated, pfn);
}

bool mpl_huge_find(const struct memplug *pool, enum memplug_huge size,
                   const struct mpl_huge_want *want, memplug_pfn_t *pfn)
{
    int preferred = want->node == MEMPLUG_ANY_NODE ? 0 : want->node;

    if (find_on_node(pool, size, preferred, want, pfn))
        return true;
    if (want->this_node && want->node != MEMPLUG_ANY_NODE)
        return false;
    for (int node = 0; node < (int)pool->nr_nodes; node++)
        if (node != preferred && find_on_node(pool, size, node, want, pfn))
            return true;
    return false;
}

static bool is_stuck(const struct memplug *pool, memplug_pfn_t pfn)
{
    return (mpl_page_at(pool, pfn)->huge_flags & MPL_HUGE_STUCK) != 0;
}

/* Movable is filled first, and emptied last. */
bool mpl_huge_find_last(const struct memplug *pool, enum memplug_huge size, int node,
                        memplug_pfn_t *pfn)
{
    bool found = false;

    for (unsigned movable = 0; movable < 2 && !found; movable++)
        for (uint64_t id = pool->nr_blocks_max; id-- > 0 && !found;) {
            const struct mpl_block *block = mpl_block_at(pool, id);
            memplug_pfn_t at = mpl_block_start(pool, block);

            if (block->nr_pooled[size] == 0 || block->node != node ||
                (block->zone == MEMPLUG_ZONE_MOVABLE) != (movable != 0))
                continue;
            for (; mpl_huge_next(pool, block, size, &at); at.nr++)
                if (is_open(pool, at, size) && !is_stuck(pool, at)) {
                    *pfn = at;
                    found = true;
                }
        }
    return found;
}

struct mpl_page *mpl_huge_at(const struct memplug *pool, memplug_pfn_t pfn,
                             enum memplug_huge size)
{
    uint64_t index;
    const struct mpl_block *block = mpl_frames_block(pool, pfn, &index);
    struct mpl_page *page = block != NULL ? mpl_page_at(pool, pfn) : NULL;

    if (block == NULL || mpl_frame_get(pool, block, index) != MPL_FRAME_HEAD ||
        !mpl_frame_described(pool, block, index) ||
        __atomic_load_n(&page->huge, __ATOMIC_RELAXED) != size + 1)
        return NULL;
    return page;
}

/* --- counting --------------------------------------------------------------------------------- */

void mpl_huge_count_free(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size,
                         bool is_free)
{
    struct mpl_block *block = block_of(pool, pfn);
    struct mpl_huge *huge = &pool->huge[size];
    uint64_t nr = is_free ? 1 : UINT64_MAX;

    MPL_ASSERT(is_free || (block->nr_pooled[size] != 0 && huge->all.nr_free != 0 &&
                           huge->nodes[block->node].nr_free != 0));
    block->nr_pooled[size] += (uint32_t)nr;
    huge->all.nr_free += nr;
    huge->nodes[block->node].nr_free += nr;
    if (mpl_huge_is_excess(pool, pfn)) {
        huge->all.nr_excess += nr;
        huge->nodes[block->node].nr_excess += nr;
    } else if (is_withheld(pool, pfn, size)) {
        MPL_ASSERT(is_free || huge->nr_withheld != 0);
        huge->nr_withheld += nr;
    }
}

void mpl_huge_set_excess(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size,
                         bool excess)
{
    struct mpl_page *page = mpl_page_at(pool, pfn);

    mpl_huge_count_free(pool, pfn, size, false);
    if (excess)
        mpl_huge_flag(page, MPL_HUGE_EXCESS, 0);
    else
        mpl_huge_flag(page, 0, MPL_HUGE_EXCESS);
    mpl_huge_count_free(pool, pfn, size, true);
}

void mpl_huge_count_lent(struct memplug *pool, int node, enum memplug_huge size, bool lent)
{
    uint64_t nr = lent ? 1 : UINT64_MAX;

    pool->huge[size].all.nr_lent += nr;
    pool->huge[size].nodes[node].nr_lent += nr;
}

static void add(struct mpl_huge_count *count, int nr, int nr_surplus)
{
    count->nr += (uint64_t)(int64_t)nr;
    count->nr_surplus += (uint64_t)(int64_t)nr_surplus;
    MPL_ASSERT(count->nr <= UINT64_MAX / 2 && count->nr_surplus <= count->nr);
}

void mpl_huge_count(struct memplug *pool, int node, enum memplug_huge size, int nr,
                    int nr_surplus)
{
    add(&pool->huge[size].all, nr, nr_surplus);
    add(&pool->huge[size].nodes[node], nr, nr_surplus);
}

void mpl_huge_unpark(struct memplug *pool, enum memplug_huge size, int node, uint8_t flag)
{
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);
        memplug_pfn_t pfn = mpl_block_start(pool, block);

        if (block->nr_pooled[size] == 0 || (node != MEMPLUG_ANY_NODE && block->node != node))
            continue;
        for (; mpl_huge_next(pool, block, size, &pfn); pfn.nr++) {
            struct mpl_page *page = mpl_page_at(pool, pfn);

            if (flag == MPL_HUGE_EXCESS && mpl_huge_is_excess(pool, pfn))
                mpl_huge_set_excess(pool, pfn, size, false);
            mpl_huge_flag(page, 0, flag);
        }
    }
}
