/* SPDX-License-Identifier: MIT */
/*
 * A span of frames becomes free, and stays so: its pageblocks are isolated, what slots hold of
 * them comes back, and what is used is moved away.
 */
#include "state/early.h"
#include "steps.h"

static int fail_frame(struct mpl_op *op, const struct mpl_span *span, uint64_t index,
                      const char *why, const char *remedy)
{
    op->reason->block = (int64_t)mpl_block_id(op->pool, span->block);
    op->reason->node = span->block->node;
    op->reason->pfn = mpl_pfn_add(mpl_block_start(op->pool, span->block), index);
    op->reason->nr_pages = 1;
    return mpl_fail(op, -MPL_EBUSY, why, remedy);
}

/* Logically offline frames are their driver's, whether it has a reference or not. None comes while
 * the control lock is held; so what is none now will be none. */
static int check_kept(struct mpl_op *op, const struct mpl_span *span)
{
    uint64_t index;

    if (!mpl_kept_find(op->pool, span, &index))
        return 0;
    return fail_frame(op, span, index, "a driver keeps logically offline pages",
                      "let the driver release them");
}

static void set_isolated(struct memplug *pool, const struct mpl_span *span, bool isolated)
{
    struct mpl_zone *zone = mpl_zone_of(pool, span->block);

    mpl_spin_lock(pool, &zone->lock);
    if (isolated)
        mpl_isolate_span(pool, span->block, span->index, span->nr_pages);
    else
        mpl_unisolate_span(pool, span->block, span->index, span->nr_pages);
    mpl_spin_unlock(&zone->lock);
}

/* What is used moves. The memmaps of huge pages come back first: that vacates frames of memmaps, in
 * which there are no huge pages, so this ends. Free huge pages are dissolved when nothing can fail
 * any more; one that was promised may be taken before it is claimed, and then it moves too. */
static int move_away(struct mpl_op *op, const struct mpl_span *span)
{
    bool used = true;
    int error = mpl_hvo_return_span(op, span);

    while (error == 0 && used) {
        error = mpl_migrate(op, span);
        if (error == 0)
            error = mpl_huge_claim(op, span, &used);
    }
    mpl_huge_unclaim(op->pool, span, error == 0);
    if (error != 0)
        mpl_hvo_lend_span(op->pool, span);
    return error;
}

/* After that no slot holds a frame of the span, and every page that was being allocated in it
 * is complete. */
static int clear(struct mpl_op *op, const struct mpl_span *span)
{
    int error;

    op->progress.step = "drain";
    mpl_percpu_pass(op->pool);
    error = check_kept(op, span);
    if (error == 0)
        error = mpl_migrate_check(op, span);
    if (error == 0) {
        op->progress.step = "migrate";
        error = mpl_op_check(op);
    }
    return error != 0 ? error : move_away(op, span);
}

int mpl_vacate(struct mpl_op *op, struct mpl_block *block, uint64_t index, uint64_t nr_pages)
{
    const struct mpl_span span = {block, index, nr_pages};
    uint64_t bad;
    int error;

    op->progress.step = "isolate";
    if (!mpl_frames_are_data(op->pool, block, index, nr_pages))
        return fail_frame(op, &span, index, "a frame holds the memmap", NULL);
    if (mpl_early_has_hole(op->pool, block, index, nr_pages))
        return fail_frame(op, &span, index, "a frame is a memory hole", "choose other frames");
    bad = mpl_poisoned_next(op->pool, block, index);
    if (bad < index + nr_pages)
        return fail_frame(op, &span, bad, "a frame is poisoned", "choose other frames");
    error = mpl_op_check(op);
    if (error != 0)
        return error;
    set_isolated(op->pool, &span, true);
    error = clear(op, &span);
    if (error != 0)
        mpl_vacate_undo(op->pool, block, index, nr_pages);
    return error;
}

void mpl_vacate_undo(struct memplug *pool, struct mpl_block *block, uint64_t index,
                     uint64_t nr_pages)
{
    const struct mpl_span span = {block, index, nr_pages};

    set_isolated(pool, &span, false);
}
