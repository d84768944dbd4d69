/* SPDX-License-Identifier: MIT */
#include "state.h"

bool mpl_block_may_become(enum memplug_block_state from, enum memplug_block_state to)
{
    switch (from) {
    case MEMPLUG_BLOCK_ABSENT:
        return to == MEMPLUG_BLOCK_ADDING;
    case MEMPLUG_BLOCK_ADDING:
        return to == MEMPLUG_BLOCK_OFFLINE || to == MEMPLUG_BLOCK_ABSENT;
    case MEMPLUG_BLOCK_OFFLINE:
        return to == MEMPLUG_BLOCK_GOING_ONLINE || to == MEMPLUG_BLOCK_ADDING;
    case MEMPLUG_BLOCK_GOING_ONLINE:
    case MEMPLUG_BLOCK_GOING_OFFLINE:
        return to == MEMPLUG_BLOCK_ONLINE || to == MEMPLUG_BLOCK_OFFLINE;
    case MEMPLUG_BLOCK_ONLINE:
        return to == MEMPLUG_BLOCK_GOING_OFFLINE;
    }
    return false;
}

void mpl_block_set_state(struct mpl_block *block, enum memplug_block_state state)
{
    MPL_ASSERT(mpl_block_may_become(mpl_block_state(block), state));
    atomic_store_explicit(&block->state, (uint8_t)state, memory_order_release);
}

memplug_pfn_t mpl_block_data_start(const struct memplug *pool, const struct mpl_block *block)
{
    return mpl_pfn_add(mpl_block_start(pool, block), block->nr_memmap_pages);
}

uint64_t mpl_block_present_pages(const struct memplug *pool, const struct mpl_block *block)
{
    return mpl_block_pages(&pool->geometry) - block->nr_absent;
}

uint64_t mpl_block_data_pages(const struct memplug *pool, const struct mpl_block *block)
{
    return mpl_block_pages(&pool->geometry) - block->nr_memmap_pages;
}
