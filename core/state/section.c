/* SPDX-License-Identifier: MIT */
#include "state.h"

uint64_t mpl_sections_per_block(const struct memplug_geometry *geometry)
{
    return (uint64_t)1 << (geometry->block_shift - geometry->section_shift);
}

uint64_t mpl_section_of(const struct memplug_geometry *geometry, memplug_pfn_t pfn)
{
    return pfn.nr >> (geometry->section_shift - geometry->page_shift);
}

memplug_pfn_t mpl_section_start(const struct memplug_geometry *geometry, uint64_t section)
{
    return mpl_pfn(section << (geometry->section_shift - geometry->page_shift));
}

/* A block has all its sections or none, so a section is what its block is. An absent block's other
 * fields mean nothing. */
bool mpl_section_online_in(const struct memplug *pool, uint64_t section,
                           const struct mpl_zone *zone)
{
    uint64_t id = section >> (pool->geometry.block_shift - pool->geometry.section_shift);
    const struct mpl_block *block;

    if (id >= pool->nr_blocks_max)
        return false;
    block = mpl_block_at(pool, id);
    return mpl_block_state(block) >= MEMPLUG_BLOCK_OFFLINE && block->zone == zone->kind &&
           block->node == zone->node;
}
