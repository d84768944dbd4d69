/* SPDX-License-Identifier: MIT */
/*
 * Huge pages on the move: free ones of a block that goes offline are withheld first, and dissolved
 * when nothing can fail any more, so that an offline that fails has nothing to repair; free ones
 * of a span that is vacated are claimed meanwhile; used ones get targets.
 */
#include "huge_ops.h"

/* --- pages come to the pool and leave it; huge_lock is held ----------------------------------- */

/* A page that is POOLED, but not counted as free, leaves for good, and with it a surplus that its
 * node has. */
void mpl_huge_leave(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    int node = mpl_huge_node_of(pool, pfn);

    MPL_ASSERT((mpl_page_at(pool, pfn)->huge_flags & MPL_HUGE_LENT) == 0);
    mpl_huge_count(pool, node, size, -1, mpl_huge_has_surplus(pool, node, size) ? -1 : 0);
    mpl_free_pooled(pool, pfn, mpl_huge_pages(pool, size));
}

void mpl_huge_dissolve(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    mpl_huge_count_free(pool, pfn, size, false);
    mpl_huge_leave(pool, pfn, size);
}

void mpl_huge_drop(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    if ((mpl_page_at(pool, pfn)->huge_flags & MPL_HUGE_LENT) != 0)
        mpl_huge_set_excess(pool, pfn, size, true);
    else
        mpl_huge_dissolve(pool, pfn, size);
}

void mpl_huge_freed(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    mpl_huge_count_free(pool, pfn, size, true);
    if (mpl_huge_has_surplus(pool, mpl_huge_node_of(pool, pfn), size))
        mpl_huge_drop(pool, pfn, size);
}

/* --- offline ---------------------------------------------------------------------------------- */

int mpl_huge_withhold(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    bool done;

    if (mpl_frames_untouched(pool, block))
        return 0; /* and isolated: no huge page has a frame in it, or gets one */
    mpl_huge_lock(pool);
    done = mpl_huge_set_withheld(pool, block, true);
    mpl_huge_unlock(pool);
    if (done)
        return 0;
    op->reason->block = (int64_t)mpl_block_id(pool, block);
    op->reason->node = block->node;
    return mpl_fail(op, -MPL_EBUSY, "free huge pages of this block are promised",
                    "make the pool of huge pages larger, or take promises back");
}

void mpl_huge_withhold_undo(struct memplug *pool, struct mpl_block *block)
{
    if (!block->withholds)
        return;
    mpl_huge_lock(pool);
    MPL_ASSERT(mpl_huge_set_withheld(pool, block, false));
    mpl_huge_unlock(pool);
}

/* Frames that such a page has in other blocks are free there now. */
int mpl_huge_dissolve_block(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;

    if (!block->withholds)
        return 0;
    mpl_huge_lock(pool);
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE; size++) {
        memplug_pfn_t pfn = mpl_pfn(0);

        while (mpl_huge_next(pool, block, (enum memplug_huge)size, &pfn))
            mpl_huge_dissolve(pool, pfn, (enum memplug_huge)size);
    }
    MPL_ASSERT(mpl_huge_set_withheld(pool, block, false));
    mpl_huge_unlock(pool);
    mpl_hvo_forget_block(pool, block);
    return 0;
}

/* --- move ------------------------------------------------------------------------------------- */

/* A free one that nobody was promised, else fresh frames. */
int mpl_huge_target(struct memplug *pool, int node, const struct mpl_page *source,
                    memplug_pfn_t *pfn)
{
    enum memplug_huge size = mpl_huge_size_of(source);
    struct mpl_huge_want want = {.node = node, .movable = true};
    bool found;
    int error;

    mpl_huge_lock(pool);
    found = mpl_huge_available(pool, size) != 0 && mpl_huge_find(pool, size, &want, pfn);
    if (found) {
        mpl_huge_count_free(pool, *pfn, size, false);
        mpl_page_unpool(mpl_page_at(pool, *pfn), MPL_PAGE_TARGET, source->mover,
                        atomic_load_explicit(&source->cookie, memory_order_relaxed), false);
    }
    mpl_huge_unlock(pool);
    if (found)
        return 0;
    error = mpl_alloc_target(pool, node, source, pfn);
    if (error == 0)
        MPL_PUT(mpl_page_at(pool, *pfn)->huge, source->huge);
    return error;
}

/* From any of the two states, since the owner may have freed it. */
static void pool_page(struct memplug *pool, memplug_pfn_t pfn, enum mpl_page_state from)
{
    struct mpl_page *page = mpl_page_at(pool, pfn);

    if (!mpl_page_pool(page, from))
        MPL_ASSERT(mpl_page_pool(page, MPL_PAGE_DYING));
}

void mpl_huge_drop_target(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_page *page = mpl_page_at(pool, pfn);
    enum memplug_huge size = mpl_huge_size_of(page);
    bool from_pool = (page->huge_flags & MPL_HUGE_FROM_POOL) != 0;

    mpl_huge_lock(pool);
    pool_page(pool, pfn, MPL_PAGE_TARGET);
    if (from_pool)
        mpl_huge_count_free(pool, pfn, size, true);
    else
        mpl_free_pooled(pool, pfn, mpl_huge_pages(pool, size));
    mpl_huge_unlock(pool);
}

/* A target of the pool's leaves the source there in its place: it is withheld, and goes with its
 * block. Fresh frames take the source's place, which is theirs no more. */
void mpl_huge_moved(struct memplug *pool, memplug_pfn_t from, memplug_pfn_t to)
{
    struct mpl_page *target = mpl_page_at(pool, to);
    enum memplug_huge size = mpl_huge_size_of(target);
    bool from_pool = (target->huge_flags & MPL_HUGE_FROM_POOL) != 0;
    int node = mpl_huge_node_of(pool, from);

    mpl_huge_lock(pool);
    mpl_huge_flag(target, 0, MPL_HUGE_FROM_POOL);
    pool_page(pool, from, MPL_PAGE_MOVING);
    if (from_pool) {
        mpl_huge_count_free(pool, from, size, true);
    } else {
        int nr_surplus = mpl_huge_has_surplus(pool, node, size);

        mpl_huge_count(pool, mpl_huge_node_of(pool, to), size, 1, nr_surplus);
        mpl_huge_count(pool, node, size, -1, -nr_surplus);
        mpl_free_pooled(pool, from, mpl_huge_pages(pool, size));
    }
    if (!mpl_page_change(target, MPL_PAGE_TARGET, MPL_PAGE_USED)) {
        MPL_ASSERT(mpl_page_pool(target, MPL_PAGE_DYING));
        mpl_huge_freed(pool, to, size);
    }
    mpl_huge_unlock(pool);
}

void mpl_huge_end(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_page *page = mpl_page_at(pool, pfn);

    mpl_huge_lock(pool);
    MPL_ASSERT(mpl_page_pool(page, MPL_PAGE_DYING));
    mpl_huge_freed(pool, pfn, mpl_huge_size_of(page));
    mpl_huge_unlock(pool);
}

void mpl_huge_lost(struct memplug *pool, memplug_pfn_t pfn)
{
    enum memplug_huge size = mpl_huge_size_of(mpl_page_at(pool, pfn));

    mpl_huge_lock(pool);
    pool_page(pool, pfn, MPL_PAGE_MOVING);
    mpl_huge_leave(pool, pfn, size);
    mpl_huge_unlock(pool);
}

/* --- vacate ----------------------------------------------------------------------------------- */

/* The first huge page at or behind *pfn that is in this state and has a frame in the span. */
static bool next_in(const struct memplug *pool, const struct mpl_span *span,
                    enum memplug_huge size, enum mpl_page_state state, memplug_pfn_t *pfn)
{
    uint64_t nr_pages = mpl_huge_pages(pool, size);
    uint64_t start = mpl_block_start(pool, span->block).nr + span->index;
    uint64_t at = start & ~(nr_pages - 1);

    if (at < pfn->nr)
        at = mpl_round_up(pfn->nr, nr_pages);
    for (; at < start + span->nr_pages; at += nr_pages) {
        const struct mpl_page *page = mpl_huge_at(pool, mpl_pfn(at), size);

        if (page == NULL || mpl_page_state(page) != state)
            continue;
        *pfn = mpl_pfn(at);
        return true;
    }
    return false;
}

/* huge_lock is held. A claimed one is a TARGET of nobody's, and not counted as free. */
static bool claim_next(struct memplug *pool, const struct mpl_span *span, enum memplug_huge size,
                       bool *refused)
{
    memplug_pfn_t pfn = mpl_pfn(0);

    if (!next_in(pool, span, size, MPL_PAGE_POOLED, &pfn))
        return false;
    *refused = !mpl_huge_is_excess(pool, pfn) && mpl_huge_available(pool, size) == 0;
    if (*refused)
        return false;
    mpl_huge_count_free(pool, pfn, size, false);
    mpl_page_unpool(mpl_page_at(pool, pfn), MPL_PAGE_TARGET, 0, 0, false);
    return true;
}

int mpl_huge_claim(struct mpl_op *op, const struct mpl_span *span, bool *used)
{
    struct memplug *pool = op->pool;
    bool refused = false;

    *used = false;
    mpl_huge_lock(pool);
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE && !refused; size++) {
        memplug_pfn_t pfn = mpl_pfn(0);

        while (claim_next(pool, span, (enum memplug_huge)size, &refused))
            continue;
        *used |= next_in(pool, span, (enum memplug_huge)size, MPL_PAGE_USED, &pfn);
    }
    mpl_huge_unlock(pool);
    if (!refused)
        return 0;
    op->reason->block = (int64_t)mpl_block_id(pool, span->block);
    op->reason->node = span->block->node;
    op->reason->pfn = mpl_pfn_add(mpl_block_start(pool, span->block), span->index);
    return mpl_fail(op, -MPL_EBUSY, "a free huge page with this frame is promised",
                    "make the pool of huge pages larger, or take promises back");
}

void mpl_huge_unclaim(struct memplug *pool, const struct mpl_span *span, bool dissolve)
{
    mpl_huge_lock(pool);
    for (unsigned i = 0; i < MEMPLUG_NR_HUGE; i++) {
        enum memplug_huge size = (enum memplug_huge)i;
        memplug_pfn_t pfn = mpl_pfn(0);

        while (next_in(pool, span, size, MPL_PAGE_TARGET, &pfn)) {
            pool_page(pool, pfn, MPL_PAGE_TARGET);
            if (dissolve)
                mpl_huge_leave(pool, pfn, size);
            else
                mpl_huge_count_free(pool, pfn, size, true);
        }
    }
    mpl_huge_unlock(pool);
}
