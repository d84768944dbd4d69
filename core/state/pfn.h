/* SPDX-License-Identifier: MIT */
/* All arithmetic between bytes, pages, pageblocks and blocks. Nowhere else is a unit shifted. */
#ifndef MPL_PFN_H
#define MPL_PFN_H

#include <memplug/types.h>

#include "../compiler.h"

static inline memplug_pfn_t mpl_pfn(uint64_t nr)
{
    return (memplug_pfn_t){nr};
}

static inline memplug_pfn_t mpl_pfn_add(memplug_pfn_t pfn, uint64_t nr_pages)
{
    MPL_ASSERT(pfn.nr + nr_pages >= pfn.nr);
    return mpl_pfn(pfn.nr + nr_pages);
}

/* Pages from low to high. */
static inline uint64_t mpl_pfn_distance(memplug_pfn_t low, memplug_pfn_t high)
{
    MPL_ASSERT(high.nr >= low.nr);
    return high.nr - low.nr;
}

static inline memplug_pfn_t mpl_pfn_of_address(const struct memplug_geometry *geometry,
                                               uint64_t address)
{
    return mpl_pfn(address >> geometry->page_shift);
}

static inline uint64_t mpl_address_of_pfn(const struct memplug_geometry *geometry,
                                          memplug_pfn_t pfn)
{
    MPL_ASSERT(pfn.nr << geometry->page_shift >> geometry->page_shift == pfn.nr);
    return pfn.nr << geometry->page_shift;
}

static inline uint64_t mpl_bytes_of_pages(const struct memplug_geometry *geometry,
                                          uint64_t nr_pages)
{
    MPL_ASSERT(nr_pages << geometry->page_shift >> geometry->page_shift == nr_pages);
    return nr_pages << geometry->page_shift;
}

/* Pages that hold these bytes, the last one perhaps in part. */
static inline uint64_t mpl_pages_of_bytes(const struct memplug_geometry *geometry,
                                          uint64_t size_bytes)
{
    uint64_t page_bytes = (uint64_t)1 << geometry->page_shift;

    return (size_bytes >> geometry->page_shift) + ((size_bytes & (page_bytes - 1)) != 0);
}

static inline uint64_t mpl_page_bytes(const struct memplug_geometry *geometry)
{
    return (uint64_t)1 << geometry->page_shift;
}

static inline uint64_t mpl_block_bytes(const struct memplug_geometry *geometry)
{
    return (uint64_t)1 << geometry->block_shift;
}

static inline uint64_t mpl_block_pages(const struct memplug_geometry *geometry)
{
    return (uint64_t)1 << (geometry->block_shift - geometry->page_shift);
}

static inline uint64_t mpl_pageblock_pages(const struct memplug_geometry *geometry)
{
    return (uint64_t)1 << geometry->pageblock_order;
}

static inline uint64_t mpl_block_of_pfn(const struct memplug_geometry *geometry,
                                        memplug_pfn_t pfn)
{
    return pfn.nr >> (geometry->block_shift - geometry->page_shift);
}

static inline memplug_pfn_t mpl_pfn_of_block(const struct memplug_geometry *geometry,
                                             uint64_t block)
{
    return mpl_pfn(block << (geometry->block_shift - geometry->page_shift));
}

/* Bytes of the struct pages of so many pages. */
static inline uint64_t mpl_memmap_bytes(const struct memplug_geometry *geometry,
                                        uint64_t nr_pages)
{
    return nr_pages * geometry->page_struct_bytes;
}

static inline bool mpl_is_multiple(uint64_t value, uint64_t of_power_of_two)
{
    return (value & (of_power_of_two - 1)) == 0;
}

static inline uint64_t mpl_round_up(uint64_t value, uint64_t to_power_of_two)
{
    return (value + to_power_of_two - 1) & ~(to_power_of_two - 1);
}

#endif
