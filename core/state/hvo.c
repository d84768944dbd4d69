/* SPDX-License-Identifier: MIT */
#include "hvo.h"

#include "state.h"

uint64_t mpl_hvo_lent_pages(const struct memplug *pool, enum memplug_huge size)
{
    uint64_t size_bytes = mpl_memmap_bytes(&pool->geometry, mpl_huge_pages(pool, size));

    if (!mpl_is_multiple(size_bytes, mpl_page_bytes(&pool->geometry)))
        return 0;
    return mpl_pages_of_bytes(&pool->geometry, size_bytes) - 1;
}

/* The blocks of the page: one unit with a memmap of its own, or all with the host's. */
static bool is_in_one_place(const struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    uint64_t first = mpl_block_of_pfn(&pool->geometry, pfn);
    uint64_t last = mpl_block_of_pfn(&pool->geometry, mpl_pfn(pfn.nr + nr_pages - 1));
    const struct mpl_block *head = mpl_block_at(pool, first);
    bool own = head->memmap != MEMPLUG_MEMMAP_HOST;

    for (uint64_t id = first + 1; id <= last; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);

        if (own ? block->unit_first != head->unit_first : block->memmap != MEMPLUG_MEMMAP_HOST)
            return false;
    }
    return own ? pool->hvo == MEMPLUG_HVO_ALL : pool->hvo != MEMPLUG_HVO_OFF;
}

bool mpl_hvo_group(const struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size,
                   struct mpl_hvo_group *group)
{
    const struct memplug_geometry *geometry = &pool->geometry;
    struct mpl_block *block = mpl_block_at(pool, mpl_block_of_pfn(geometry, pfn));
    uint64_t begin = mpl_memmap_bytes(geometry, pfn.nr);
    uint64_t page_bytes = mpl_page_bytes(geometry);

    *group = (struct mpl_hvo_group){
        .offset = begin + page_bytes,
        .nr_pages = mpl_hvo_lent_pages(pool, size),
    };
    if (group->nr_pages == 0 || !mpl_is_multiple(begin, page_bytes) ||
        !is_in_one_place(pool, pfn, mpl_huge_pages(pool, size)))
        return false;
    if (block->memmap == MEMPLUG_MEMMAP_HOST)
        return true;
    group->unit = mpl_unit_head(pool, block);
    begin -= mpl_memmap_bytes(geometry, mpl_block_start(pool, group->unit).nr);
    group->frame = group->unit->altmap.reserve + mpl_pages_of_bytes(geometry, begin) + 1;
    return true;
}

bool mpl_hvo_piece(const struct memplug *pool, const struct mpl_hvo_group *group, unsigned at,
                   struct mpl_block **block, uint64_t *index, uint64_t *nr_pages)
{
    uint64_t block_pages = pool->layout.nr_pages;
    uint64_t first = group->frame / block_pages + at;
    uint64_t begin = first * block_pages, end = group->frame + group->nr_pages;

    if (group->unit == NULL || begin >= end)
        return false;
    if (begin < group->frame)
        begin = group->frame;
    if (end > (first + 1) * block_pages)
        end = (first + 1) * block_pages;
    *block = group->unit + first;
    *index = begin - first * block_pages;
    *nr_pages = end - begin;
    return true;
}

bool mpl_hvo_may_lend(const struct memplug *pool, const struct mpl_hvo_group *group)
{
    struct mpl_block *block;
    uint64_t index, nr_pages;

    for (unsigned at = 0; mpl_hvo_piece(pool, group, at, &block, &index, &nr_pages); at++)
        if (mpl_block_state(block) != MEMPLUG_BLOCK_ONLINE ||
            block->zone != MEMPLUG_ZONE_MOVABLE)
            return false;
    return true;
}

void mpl_hvo_described_by(const struct memplug *pool, const struct mpl_block *block,
                          memplug_pfn_t *start, memplug_pfn_t *end)
{
    const struct memplug_geometry *geometry = &pool->geometry;
    const struct mpl_block *unit = mpl_unit_head(pool, block);
    uint64_t unit_start = mpl_block_start(pool, unit).nr;
    uint64_t nr_unit = unit->unit_nr_blocks * pool->layout.nr_pages;
    uint64_t first = (uint64_t)(block - unit) * pool->layout.nr_pages;
    uint64_t page_bytes = mpl_page_bytes(geometry);
    uint64_t low, high;

    *start = *end = mpl_pfn(unit_start);
    if (block->memmap == MEMPLUG_MEMMAP_HOST || block->nr_memmap_pages == 0)
        return;
    first = first > unit->altmap.reserve ? first - unit->altmap.reserve : 0;
    low = first * page_bytes / geometry->page_struct_bytes;
    high = ((first + block->nr_memmap_pages) * page_bytes) / geometry->page_struct_bytes + 1;
    *start = mpl_pfn(unit_start + (low < nr_unit ? low : nr_unit));
    *end = mpl_pfn(unit_start + (high < nr_unit ? high : nr_unit));
}
