/* SPDX-License-Identifier: MIT */
/*
 * What one frame is. The slot's lock keeps the block's bitmaps, the zone's lock keeps everything
 * in them but frames that slots hand out and take back: such a frame is what it is at some moment
 * of the call.
 */
#include "../state/early.h"
#include "../state/fast.h"
#include "look.h"

/* Of an allocation whose first frame is in this block. */
static enum memplug_frame_kind kind_of_head(const struct memplug *pool,
                                            const struct mpl_block *block, uint64_t head)
{
    struct mpl_look_page page;

    if (!mpl_frame_described(pool, block, head))
        return mpl_frame_get(pool, block, head) == MPL_FRAME_HEAD ? MEMPLUG_FRAME_USED
                                                                  : MEMPLUG_FRAME_FREE;
    page = mpl_look_page(pool, mpl_pfn_add(mpl_block_start(pool, block), head));
    switch (page.state) {
    case MPL_PAGE_KEPT:
        return MEMPLUG_FRAME_KEPT;
    case MPL_PAGE_NONE:
        return MEMPLUG_FRAME_FREE; /* or so in a moment */
    case MPL_PAGE_POOLED:
    case MPL_PAGE_USED:
    case MPL_PAGE_MOVING:
    case MPL_PAGE_TARGET:
    case MPL_PAGE_DYING:
        break;
    }
    return page.huge != 0 ? MEMPLUG_FRAME_HUGE : MEMPLUG_FRAME_MOVABLE;
}

/* What the first frame of a block goes on with is in its zone, so the lock covers it too. */
static enum memplug_frame_kind kind_of(const struct memplug *pool, const struct mpl_block *block,
                                       uint64_t index, const struct mpl_zone *zone)
{
    uint64_t head = pool->layout.nr_pages;

    if (mpl_is_memmap(pool, block, index))
        return MEMPLUG_FRAME_MEMMAP;
    if (mpl_early_is_hole(pool, block, index))
        return MEMPLUG_FRAME_ABSENT;
    if (mpl_poisoned(block, index))
        return MEMPLUG_FRAME_POISONED;
    if ((mpl_frame_get(pool, block, index) & MPL_FRAME_FREE) != 0)
        return MEMPLUG_FRAME_FREE;
    while (!mpl_frames_head_of(pool, block, index, &head)) {
        memplug_pfn_t start = mpl_block_start(pool, block);

        if (start.nr == 0 || head != pool->layout.nr_pages) /* a slot's, with its tails */
            return MEMPLUG_FRAME_FREE;
        block = mpl_frames_block(pool, mpl_pfn(start.nr - 1), &index);
        if (block == NULL || !mpl_frames_in_zone(block, zone))
            return MEMPLUG_FRAME_FREE;
    }
    return kind_of_head(pool, block, head);
}

/* Nothing of such a block is managed; it stays until the pool is closed. */
static enum memplug_frame_kind kind_of_several(const struct memplug *pool, memplug_pfn_t pfn)
{
    uint64_t id = mpl_block_of_pfn(&pool->geometry, pfn);
    const struct mpl_block *block;

    if (id >= pool->nr_blocks_max)
        return MEMPLUG_FRAME_ABSENT;
    block = mpl_block_at(pool, id);
    if (mpl_block_state(block) != MEMPLUG_BLOCK_ONLINE || !mpl_early_several(pool, block) ||
        mpl_early_is_hole(pool, block, mpl_pfn_distance(mpl_block_start(pool, block), pfn)))
        return MEMPLUG_FRAME_ABSENT;
    return MEMPLUG_FRAME_USED;
}

enum memplug_frame_kind memplug_frame_kind(const struct memplug *pool, memplug_pfn_t pfn)
{
    struct memplug *locks = (struct memplug *)pool;
    enum memplug_frame_kind kind = MEMPLUG_FRAME_ABSENT;
    struct mpl_slot *slot = mpl_percpu_lock(locks);
    struct mpl_zone *zone = NULL;
    uint64_t index;
    const struct mpl_block *block = mpl_frames_block(pool, pfn, &index);

    if (block == NULL)
        kind = kind_of_several(pool, pfn);
    else if (mpl_block_state(block) != MEMPLUG_BLOCK_GOING_ONLINE)
        zone = mpl_frames_lock_zone(locks, block);
    if (zone != NULL) {
        kind = kind_of(pool, block, index, zone);
        mpl_spin_unlock(&zone->lock);
    }
    mpl_percpu_unlock(slot);
    return kind;
}
