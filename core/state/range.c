/* SPDX-License-Identifier: MIT */
#include "state.h"

int mpl_range_check(struct mpl_op *op, uint64_t address, uint64_t size_bytes)
{
    const struct memplug_geometry *geometry = &op->pool->geometry;
    uint64_t block_bytes = mpl_block_bytes(geometry);

    op->reason->address = address;
    op->reason->size_bytes = size_bytes;
    op->reason->unit_bytes = block_bytes;
    if (size_bytes == 0 || !mpl_is_multiple(size_bytes, block_bytes))
        return mpl_fail(op, -MPL_EINVAL, "the size is not a non-zero multiple of the block",
                        "use whole memory blocks");
    if (address == MEMPLUG_ANY_ADDRESS) {
        op->reason->unit_bytes = 0;
        return 0;
    }
    if (address == 0 || !mpl_is_multiple(address, block_bytes))
        return mpl_fail(op, -MPL_EINVAL, "the address is not a non-zero multiple of the block",
                        "use whole memory blocks");
    op->reason->unit_bytes = geometry->address_limit;
    if (address >= geometry->address_limit || size_bytes > geometry->address_limit - address)
        return mpl_fail(op, -MPL_E2BIG, "the range ends beyond the address limit",
                        "open the host with a larger window");
    op->reason->unit_bytes = 0;
    return 0;
}

bool mpl_range_overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    if (a_size == 0 || b_size == 0)
        return false;
    return a < b ? b - a < a_size : a - b < b_size;
}

static bool begins_well(const struct memplug *pool, uint64_t first, uint64_t alignment)
{
    memplug_pfn_t start = mpl_pfn_of_block(&pool->geometry, first);

    return mpl_is_multiple(mpl_memmap_bytes(&pool->geometry, start.nr), alignment);
}

uint64_t mpl_range_find(const struct memplug *pool, uint64_t nr_blocks, uint64_t alignment,
                        bool own)
{
    uint64_t nr_usable = 0;

    for (uint64_t id = 1; id < pool->nr_blocks_max; id++) {
        bool usable = mpl_block_state(&pool->blocks[id]) == MEMPLUG_BLOCK_ABSENT &&
                      (!own || mpl_share_over(pool, id) == NULL);

        nr_usable = usable ? nr_usable + 1 : 0;
        if (nr_usable >= nr_blocks && begins_well(pool, id + 1 - nr_blocks, alignment))
            return id + 1 - nr_blocks;
    }
    return 0;
}
