/* SPDX-License-Identifier: MIT */
/*
 * Large units of the memmap window that several memmaps of the host's lie in. One is provided as a
 * whole if all blocks that it describes come in the same add; then it lives until the last of them
 * has gone, and whoever comes back joins it. What nobody uses of it is known from the blocks'
 * state: so nothing is written to mark it.
 */
#include "state.h"

/* More is too much to ask for in one piece: with 64 KiB pages a table maps 512 MiB. */
#define LARGE_SHIFT_MAX 25

uint64_t mpl_share_unit_bytes(const struct memplug_geometry *geometry)
{
    if (geometry->large_shift > LARGE_SHIFT_MAX)
        return mpl_page_bytes(geometry);
    return (uint64_t)1 << geometry->large_shift;
}

static uint64_t block_memmap_bytes(const struct memplug *pool)
{
    return mpl_memmap_bytes(&pool->geometry, mpl_block_pages(&pool->geometry));
}

bool mpl_share_at(const struct memplug *pool, uint64_t block, enum mpl_end at, uint64_t *offset)
{
    uint64_t unit_bytes = mpl_share_unit_bytes(&pool->geometry);
    uint64_t size_bytes = block_memmap_bytes(pool);
    uint64_t begin = block * size_bytes, end = begin + size_bytes;
    uint64_t head = begin & ~(unit_bytes - 1), tail = (end - 1) & ~(unit_bytes - 1);

    *offset = at == MPL_END_HEAD ? head : tail;
    if (unit_bytes == mpl_page_bytes(&pool->geometry) || (at == MPL_END_TAIL && tail == head))
        return false;
    if (*offset >= begin && *offset + unit_bytes <= end)
        return false;
    return *offset + unit_bytes <= pool->nr_blocks_max * size_bytes;
}

/* Is the block's memmap mapped through the shared unit at this offset? */
static bool holds(const struct memplug *pool, uint64_t block, uint64_t offset)
{
    const bool *shares = mpl_block_at(pool, block)->shares;
    uint64_t at;

    return (shares[MPL_END_HEAD] && mpl_share_at(pool, block, MPL_END_HEAD, &at) &&
            at == offset) ||
           (shares[MPL_END_TAIL] && mpl_share_at(pool, block, MPL_END_TAIL, &at) && at == offset);
}

/* The blocks that the unit at this offset describes, of those that there can be. */
static uint64_t first_block(const struct memplug *pool, uint64_t offset)
{
    return offset / block_memmap_bytes(pool);
}

static uint64_t end_block(const struct memplug *pool, uint64_t offset)
{
    uint64_t last_byte = offset + mpl_share_unit_bytes(&pool->geometry) - 1;
    uint64_t end = last_byte / block_memmap_bytes(pool) + 1;

    return end < pool->nr_blocks_max ? end : pool->nr_blocks_max;
}

const struct mpl_block *mpl_share_holder(const struct memplug *pool, uint64_t offset)
{
    uint64_t end = end_block(pool, offset);

    for (uint64_t id = first_block(pool, offset); id < end; id++)
        if (holds(pool, id, offset))
            return mpl_block_at(pool, id);
    return NULL;
}

bool mpl_share_may_provide(const struct memplug *pool, uint64_t offset)
{
    uint64_t end = end_block(pool, offset);

    for (uint64_t id = first_block(pool, offset); id < end; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);

        if (mpl_block_state(block) != MEMPLUG_BLOCK_ADDING ||
            block->memmap != MEMPLUG_MEMMAP_HOST)
            return false;
    }
    return true;
}

const struct mpl_block *mpl_share_over(const struct memplug *pool, uint64_t block)
{
    const struct mpl_block *holder = NULL;
    uint64_t offset;

    for (unsigned at = 0; at < MPL_NR_ENDS && holder == NULL; at++)
        if (mpl_share_at(pool, block, (enum mpl_end)at, &offset))
            holder = mpl_share_holder(pool, offset);
    return holder;
}
