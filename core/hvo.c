/* SPDX-License-Identifier: MIT */
/*
 * The memmap of a huge page, less the page that holds its head, is lent while the huge page exists:
 * the window shows the head's page in place of the others. What was the host's memory goes back to
 * the host; what was self-hosted become frames of the block that holds them. It comes back before
 * the huge page is dissolved or moves, and before a block that holds a part of either goes offline.
 *
 * A page is marked as lent under huge_lock before it is: from then on nobody but the holder of the
 * control lock can dissolve it. Lending cannot fail, and is the undo of returning.
 */
#include "huge_ops.h"

static struct mpl_hvo_group group_of(const struct memplug *pool, memplug_pfn_t pfn,
                                     enum memplug_huge size)
{
    struct mpl_hvo_group group;

    MPL_ASSERT(mpl_hvo_group(pool, pfn, size, &group));
    return group;
}

static uint64_t bytes_of(const struct memplug *pool, const struct mpl_hvo_group *group)
{
    return mpl_bytes_of_pages(&pool->geometry, group->nr_pages);
}

/* --- lend ------------------------------------------------------------------------------------- */

static void lend(struct memplug *pool, const struct mpl_hvo_group *group)
{
    const struct memplug_host *host = pool->host;
    struct mpl_block *block;
    uint64_t index, nr_pages;

    host->ops->memmap_lend(host->context, group->offset, bytes_of(pool, group));
    if (group->unit == NULL)
        pool->host_bytes -= bytes_of(pool, group);
    for (unsigned at = 0; mpl_hvo_piece(pool, group, at, &block, &index, &nr_pages); at++) {
        struct mpl_zone *zone = mpl_zone_of(pool, block);

        mpl_spin_lock(pool, &zone->lock);
        mpl_lent_put(pool, block, index, nr_pages);
        mpl_spin_unlock(&zone->lock);
    }
}

/* Marks the page, if it is free or used and has none of these flags. */
static bool mark(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    struct mpl_page *page;
    bool may;

    mpl_huge_lock(pool);
    page = mpl_huge_at(pool, pfn, size);
    may = page != NULL && (page->huge_flags & (MPL_HUGE_LENT | MPL_HUGE_RETURNED)) == 0 &&
          (mpl_page_state(page) == MPL_PAGE_USED || mpl_page_state(page) == MPL_PAGE_POOLED);
    if (may) {
        mpl_huge_flag(page, MPL_HUGE_LENT, 0);
        mpl_huge_count_lent(pool, mpl_huge_node_of(pool, pfn), size, true);
    }
    mpl_huge_unlock(pool);
    return may;
}

static void lend_block(struct memplug *pool, const struct mpl_block *block,
                       enum memplug_huge size)
{
    uint64_t nr_pages = mpl_huge_pages(pool, size);
    uint64_t start = mpl_block_start(pool, block).nr, end = start + pool->layout.nr_pages;

    for (uint64_t at = mpl_round_up(start, nr_pages); at < end; at += nr_pages) {
        struct mpl_hvo_group group;

        if (mpl_huge_at(pool, mpl_pfn(at), size) != NULL &&
            mpl_hvo_group(pool, mpl_pfn(at), size, &group) && mpl_hvo_may_lend(pool, &group) &&
            mark(pool, mpl_pfn(at), size))
            lend(pool, &group);
    }
}

/* Whoever still looks at a struct page that is a tail's now has gone when the slots were
 * passed. */
void mpl_hvo_lend_all(struct memplug *pool)
{
    if (pool->hvo == MEMPLUG_HVO_OFF)
        return;
    for (unsigned i = 0; i < MEMPLUG_NR_HUGE; i++) {
        enum memplug_huge size = (enum memplug_huge)i;
        struct mpl_huge_count all;

        mpl_huge_lock(pool);
        all = pool->huge[size].all;
        mpl_huge_unlock(pool);
        if (all.nr_lent == all.nr || mpl_hvo_lent_pages(pool, size) == 0)
            continue;
        mpl_percpu_pass(pool);
        for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
            if (mpl_block_state(mpl_block_at(pool, id)) == MEMPLUG_BLOCK_ONLINE)
                lend_block(pool, mpl_block_at(pool, id), size);
    }
}

/* What moved stays moved, also if the operation has failed: so it is lent at its new place. */
void mpl_hvo_lend_moved(struct mpl_op *op)
{
    if (op->moved_huge)
        mpl_hvo_lend_all(op->pool);
}

/* --- return ----------------------------------------------------------------------------------- */

static int restore(struct mpl_op *op, const struct mpl_hvo_group *group)
{
    struct memplug *pool = op->pool;
    const struct memplug_host *host = pool->host;
    int error = host->ops->memmap_restore(host->context, group->offset, bytes_of(pool, group));

    if (error != 0)
        return mpl_fail(op, error, "the host has no memory for the memmap of a huge page", NULL);
    pool->host_bytes += bytes_of(pool, group);
    return 0;
}

static void unvacate(struct memplug *pool, const struct mpl_hvo_group *group, unsigned nr_pieces)
{
    struct mpl_block *block;
    uint64_t index, nr_pages;

    while (nr_pieces-- > 0)
        if (mpl_hvo_piece(pool, group, nr_pieces, &block, &index, &nr_pages))
            mpl_vacate_undo(pool, block, index, nr_pages);
}

/* Whoever has the frames is moved away; then they are the memmap's again. What they hold does not
 * matter: nobody believes a struct page that is not described. */
static int take_back(struct mpl_op *op, const struct mpl_hvo_group *group)
{
    struct memplug *pool = op->pool;
    const struct memplug_host *host = pool->host;
    struct mpl_block *block;
    uint64_t index, nr_pages;
    unsigned nr_pieces = 0;

    for (; mpl_hvo_piece(pool, group, nr_pieces, &block, &index, &nr_pages); nr_pieces++) {
        int error = mpl_vacate(op, block, index, nr_pages);

        if (error != 0) {
            unvacate(pool, group, nr_pieces);
            return error;
        }
    }
    for (unsigned at = 0; mpl_hvo_piece(pool, group, at, &block, &index, &nr_pages); at++) {
        struct mpl_zone *zone = mpl_zone_of(pool, block);

        mpl_spin_lock(pool, &zone->lock);
        mpl_lent_take(pool, block, index, nr_pages);
        mpl_spin_unlock(&zone->lock);
    }
    host->ops->memmap_return(host->context, group->offset, bytes_of(pool, group));
    unvacate(pool, group, nr_pieces);
    return 0;
}

static int give_back(struct mpl_op *op, memplug_pfn_t pfn, enum memplug_huge size, uint8_t flag)
{
    struct memplug *pool = op->pool;
    struct mpl_hvo_group group = group_of(pool, pfn, size);
    struct mpl_page *page = mpl_page_at(pool, pfn);
    const char *step = op->progress.step;
    int error = group.unit == NULL ? restore(op, &group) : take_back(op, &group);

    op->progress.step = step;
    if (error != 0)
        return error;
    mpl_huge_lock(pool);
    mpl_huge_flag(page, flag, MPL_HUGE_LENT);
    mpl_huge_count_lent(pool, mpl_huge_node_of(pool, pfn), size, false);
    mpl_huge_unlock(pool);
    return 0;
}

int mpl_hvo_return(struct mpl_op *op, memplug_pfn_t pfn, enum memplug_huge size)
{
    return give_back(op, pfn, size, 0);
}

/* --- all huge pages of a span, or of a block -------------------------------------------------- */

/* Pages from start to end, and which of those that touch them. */
struct walk {
    memplug_pfn_t start, end;
    const struct mpl_block *holder; /* those whose lent frames lie here; null: all */
    uint8_t flag;                   /* those that have it */
};

static bool is_held_by(const struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size,
                       const struct mpl_block *holder)
{
    struct mpl_hvo_group group;
    struct mpl_block *block;
    uint64_t index, nr_pages;

    if (!mpl_hvo_group(pool, pfn, size, &group))
        return false;
    for (unsigned at = 0; mpl_hvo_piece(pool, &group, at, &block, &index, &nr_pages); at++)
        if (block == holder)
            return true;
    return false;
}

/* The next one at or behind *pfn. */
static bool next(struct memplug *pool, const struct walk *walk, enum memplug_huge size,
                 memplug_pfn_t *pfn)
{
    uint64_t nr_pages = mpl_huge_pages(pool, size);
    uint64_t at = walk->start.nr & ~(nr_pages - 1);
    bool found = false;

    if (at < pfn->nr)
        at = mpl_round_up(pfn->nr, nr_pages);
    mpl_huge_lock(pool);
    for (; at < walk->end.nr && !found; at += nr_pages) {
        const struct mpl_page *page = mpl_huge_at(pool, mpl_pfn(at), size);

        found = page != NULL && (page->huge_flags & walk->flag) != 0 &&
                (walk->holder == NULL || is_held_by(pool, mpl_pfn(at), size, walk->holder));
        if (found)
            *pfn = mpl_pfn(at);
    }
    mpl_huge_unlock(pool);
    return found;
}

/* Lent again is what this operation has returned: the mark says so. */
static void lend_again(struct memplug *pool, struct walk walk)
{
    walk.flag = MPL_HUGE_RETURNED;
    for (unsigned i = 0; i < MEMPLUG_NR_HUGE; i++) {
        enum memplug_huge size = (enum memplug_huge)i;
        memplug_pfn_t pfn = mpl_pfn(0);

        for (; next(pool, &walk, size, &pfn); pfn.nr++) {
            struct mpl_hvo_group group = group_of(pool, pfn, size);
            bool still;

            mpl_huge_lock(pool); /* its owner may have freed it meanwhile, and it may be gone */
            still = mpl_huge_at(pool, pfn, size) != NULL;
            if (still)
                mpl_huge_flag(mpl_page_at(pool, pfn), 0, MPL_HUGE_RETURNED);
            mpl_huge_unlock(pool);
            if (still && mark(pool, pfn, size))
                lend(pool, &group);
        }
    }
}

/* huge_lock is held. What its owner freed while its memmap came back need not wait any more. */
static void forget_page(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    struct mpl_page *page = mpl_huge_at(pool, pfn, size);

    if (page == NULL)
        return;
    mpl_huge_flag(page, 0, MPL_HUGE_RETURNED);
    if (mpl_huge_is_excess(pool, pfn)) {
        mpl_huge_set_excess(pool, pfn, size, false);
        mpl_huge_dissolve(pool, pfn, size);
    }
}

static void forget(struct memplug *pool, struct walk walk)
{
    walk.flag = MPL_HUGE_RETURNED;
    for (unsigned i = 0; i < MEMPLUG_NR_HUGE; i++) {
        memplug_pfn_t pfn = mpl_pfn(0);

        for (; next(pool, &walk, (enum memplug_huge)i, &pfn); pfn.nr++) {
            mpl_huge_lock(pool);
            forget_page(pool, pfn, (enum memplug_huge)i);
            mpl_huge_unlock(pool);
        }
    }
}

static int return_all(struct mpl_op *op, struct walk walk)
{
    walk.flag = MPL_HUGE_LENT;
    for (unsigned i = 0; i < MEMPLUG_NR_HUGE; i++) {
        memplug_pfn_t pfn = mpl_pfn(0);

        for (; next(op->pool, &walk, (enum memplug_huge)i, &pfn); pfn.nr++) {
            int error = give_back(op, pfn, (enum memplug_huge)i, MPL_HUGE_RETURNED);

            if (error != 0)
                return error;
        }
    }
    return 0;
}

static struct walk walk_of_span(const struct memplug *pool, const struct mpl_span *span)
{
    memplug_pfn_t start = mpl_pfn_add(mpl_block_start(pool, span->block), span->index);

    return (struct walk){.start = start, .end = mpl_pfn_add(start, span->nr_pages)};
}

int mpl_hvo_return_span(struct mpl_op *op, const struct mpl_span *span)
{
    int error;

    if (op->pool->hvo == MEMPLUG_HVO_OFF)
        return 0;
    error = return_all(op, walk_of_span(op->pool, span));
    if (error != 0)
        mpl_hvo_lend_span(op->pool, span);
    return error;
}

void mpl_hvo_lend_span(struct memplug *pool, const struct mpl_span *span)
{
    if (pool->hvo != MEMPLUG_HVO_OFF)
        lend_again(pool, walk_of_span(pool, span));
}

/* Huge pages with a frame in the block, and those whose lent frames it holds. */
static struct walk walk_of_block(const struct memplug *pool, struct mpl_block *block)
{
    struct mpl_span span = {block, 0, pool->layout.nr_pages};

    return walk_of_span(pool, &span);
}

static struct walk walk_of_holder(const struct memplug *pool, const struct mpl_block *block)
{
    struct walk walk = {.holder = block};

    mpl_hvo_described_by(pool, block, &walk.start, &walk.end);
    return walk;
}

int mpl_hvo_return_block(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    int error;

    if (pool->hvo == MEMPLUG_HVO_OFF)
        return 0;
    error = return_all(op, walk_of_block(pool, block));
    if (error == 0)
        error = return_all(op, walk_of_holder(pool, block));
    if (error != 0)
        mpl_hvo_return_block_undo(pool, block);
    return error;
}

void mpl_hvo_return_block_undo(struct memplug *pool, struct mpl_block *block)
{
    if (pool->hvo == MEMPLUG_HVO_OFF)
        return;
    lend_again(pool, walk_of_block(pool, block));
    lend_again(pool, walk_of_holder(pool, block));
}

void mpl_hvo_forget_block(struct memplug *pool, struct mpl_block *block)
{
    if (pool->hvo == MEMPLUG_HVO_OFF)
        return;
    forget(pool, walk_of_block(pool, block));
    forget(pool, walk_of_holder(pool, block));
}
