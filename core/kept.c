/* SPDX-License-Identifier: MIT */
/*
 * Logically offline pages: chunks that a driver keeps out of the allocator while their block is
 * online. It gives them to the allocator and takes them back, frame by frame.
 */
#include "door.h"
#include "state/early.h"
#include "steps.h"

/* --- release ---------------------------------------------------------------------------------- */

/* Before the frames become a chunk: no head lacks its page. */
static void describe(struct memplug *pool, struct mpl_block *block, uint64_t index, uint64_t end,
                     uint32_t nr_pins)
{
    mpl_frames_mark(block);
    mpl_page_keep(mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), index)),
                  (uint32_t)(end - index), nr_pins);
    mpl_frame_set_described(pool, block, index, true);
}

static void keep(struct memplug *pool, struct mpl_block *block, uint64_t index, uint64_t end,
                 uint32_t nr_pins)
{
    describe(pool, block, index, end, nr_pins);
    mpl_frames_keep(pool, block, index, end - index);
}

/* Free [index, end) of its chunk; what is before and behind becomes a chunk each. */
static void cut(struct memplug *pool, struct mpl_block *block, uint64_t index, uint64_t end)
{
    uint64_t head, chunk_end;
    uint32_t nr_pins;

    MPL_ASSERT(mpl_frames_kept_at(pool, block, index, &head, &chunk_end) && end <= chunk_end);
    MPL_ASSERT(mpl_page_unkeep(
        mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), head)), &nr_pins));
    if (end < chunk_end)
        keep(pool, block, end, chunk_end, nr_pins);
    if (head < index)
        keep(pool, block, head, index, nr_pins);
    mpl_frames_put(pool, block, index, end - index);
    block->nr_managed += end - index;
    mpl_zone_of(pool, block)->nr_managed += end - index;
}

static int release(struct memplug *pool, struct mpl_block *block, uint64_t index, uint64_t end)
{
    uint64_t head, chunk_end;

    for (uint64_t i = index; i < end; i = chunk_end)
        if (!mpl_frames_kept_at(pool, block, i, &head, &chunk_end))
            return -MPL_EINVAL;
    for (uint64_t i = index; i < end; i = chunk_end) {
        MPL_ASSERT(mpl_frames_kept_at(pool, block, i, &head, &chunk_end));
        cut(pool, block, i, chunk_end < end ? chunk_end : end);
    }
    return 0;
}

int memplug_release_pages(struct memplug *pool, memplug_pfn_t start, uint32_t nr_pages)
{
    struct mpl_slot *slot = mpl_percpu_lock(pool);
    uint64_t index, pageblock_pages = mpl_pageblock_pages(&pool->geometry);
    struct mpl_block *block = mpl_frames_block(pool, start, &index);
    int error = block == NULL ? -MPL_ENODEV : -MPL_EINVAL;

    if (block != NULL && nr_pages != 0 &&
        nr_pages <= pageblock_pages - (index & (pageblock_pages - 1))) {
        struct mpl_zone *zone = mpl_frames_lock_zone(pool, block);

        error = zone == NULL ? -MPL_ENODEV : release(pool, block, index, index + nr_pages);
        if (zone != NULL)
            mpl_spin_unlock(&zone->lock);
    }
    mpl_percpu_unlock(slot);
    return error;
}

/* --- keep ------------------------------------------------------------------------------------- */

/* The first one's chunk may begin before the span. */
bool mpl_kept_find(struct memplug *pool, const struct mpl_span *span, uint64_t *index)
{
    struct mpl_zone *zone = mpl_zone_of(pool, span->block);
    uint64_t head, chunk_end, end = span->index + span->nr_pages;
    bool kept;

    mpl_spin_lock(pool, &zone->lock);
    *index = span->index;
    kept = mpl_frames_kept_at(pool, span->block, *index, &head, &chunk_end);
    while (!kept && mpl_frames_next_head(pool, span->block, index) && *index < end) {
        kept = mpl_frames_kept_at(pool, span->block, *index, &head, &chunk_end);
        *index += !kept;
    }
    mpl_spin_unlock(&zone->lock);
    return kept;
}

static int check_span(struct mpl_op *op, memplug_pfn_t start, uint64_t nr_pages,
                      struct mpl_span *span)
{
    struct memplug *pool = op->pool;
    uint64_t id = mpl_block_of_pfn(&pool->geometry, start), kept;

    op->reason->pfn = start;
    if (id >= pool->nr_blocks_max ||
        mpl_block_state(mpl_block_at(pool, id)) == MEMPLUG_BLOCK_ABSENT)
        return mpl_fail(op, -MPL_ENODEV, "there is no such block", NULL);
    span->block = mpl_block_at(pool, id);
    span->index = mpl_pfn_distance(mpl_block_start(pool, span->block), start);
    span->nr_pages = nr_pages;
    op->reason->block = (int64_t)id;
    if (mpl_block_state(span->block) != MEMPLUG_BLOCK_ONLINE)
        return mpl_fail(op, -MPL_EINVAL, "the block is not online", NULL);
    if (nr_pages == 0 || nr_pages > pool->layout.nr_pages - span->index)
        return mpl_fail(op, -MPL_EINVAL, "the frames are none, or not of one block", NULL);
    if (span->index < span->block->nr_memmap_pages) /* also while they are lent */
        return mpl_fail(op, -MPL_EINVAL, "a frame holds the memmap", NULL);
    if (mpl_early_several(pool, span->block))
        return mpl_fail(op, -MPL_EINVAL, "the frames are of a block of several zones", NULL);
    if (mpl_early_has_hole(pool, span->block, span->index, nr_pages))
        return mpl_fail(op, -MPL_EINVAL, "a frame is a memory hole", NULL);
    if (mpl_kept_find(pool, span, &kept)) {
        op->reason->pfn = mpl_pfn_add(mpl_block_start(pool, span->block), kept);
        return mpl_fail(op, -MPL_EINVAL, "a frame is logically offline already", NULL);
    }
    mpl_reason_reset(op->reason);
    return 0;
}

/* Vacated frames become chunks of their driver. */
static void keep_vacated(struct memplug *pool, const struct mpl_span *span)
{
    struct mpl_block *block = span->block;
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    uint64_t pageblock_pages = mpl_pageblock_pages(&pool->geometry);
    uint64_t end = span->index + span->nr_pages, next;

    mpl_spin_lock(pool, &zone->lock);
    for (uint64_t index = span->index; index < end; index = next) {
        next = mpl_round_up(index + 1, pageblock_pages);
        if (next > end)
            next = end;
        describe(pool, block, index, next, 1);
        mpl_frames_take_isolated(pool, block, index, next - index, true);
    }
    block->nr_managed -= span->nr_pages;
    zone->nr_managed -= span->nr_pages;
    mpl_spin_unlock(&zone->lock);
}

int memplug_keep_pages(struct memplug *pool, memplug_pfn_t start, uint64_t nr_pages,
                       const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct mpl_door door;
    struct mpl_span span;
    int error;

    mpl_door_open(&door, pool, "keep", limit, reason);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    error = check_span(&door.op, start, nr_pages, &span);
    if (error == 0)
        error = mpl_vacate(&door.op, span.block, span.index, span.nr_pages);
    if (error == 0) {
        keep_vacated(pool, &span);
        mpl_vacate_undo(pool, span.block, span.index, span.nr_pages);
    }
    mpl_hvo_lend_moved(&door.op);
    return mpl_door_unlock(&door.op, error);
}
