/* SPDX-License-Identifier: MIT */
/* Frames come to the allocator when their block goes online, and leave it before it goes offline.
 * In between, and in a block that is going online or offline, they are held by nobody. */
#include "steps.h"

void mpl_release_frames(struct memplug *pool, memplug_pfn_t start, uint64_t nr_pages)
{
    struct mpl_block *block;
    struct mpl_zone *zone;

    if (nr_pages == 0)
        return; /* the block is all memmap, and start lies behind it */
    block = mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, start));
    zone = mpl_zone_of(pool, block);
    mpl_spin_lock(pool, &zone->lock);
    mpl_frames_put(pool, block, mpl_pfn_distance(mpl_block_start(pool, block), start), nr_pages);
    block->nr_managed += nr_pages;
    zone->nr_managed += nr_pages;
    mpl_spin_unlock(&zone->lock);
}

void mpl_keep_frames(struct memplug *pool, memplug_pfn_t start, uint64_t nr_pages)
{
    struct mpl_block *block = mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, start));
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    uint64_t index = mpl_pfn_distance(mpl_block_start(pool, block), start);

    mpl_spin_lock(pool, &zone->lock);
    mpl_page_keep(mpl_page_at(pool, start), (uint32_t)nr_pages, 1);
    mpl_frame_set_described(pool, block, index, true);
    mpl_frames_keep(pool, block, index, nr_pages);
    mpl_spin_unlock(&zone->lock);
}

/* Every head that is left is a chunk that its driver has let go. */
static uint64_t count_kept(const struct memplug *pool, const struct mpl_block *block)
{
    uint64_t nr_kept = 0;

    for (uint64_t index = 0; mpl_frames_next_head(pool, block, &index); index++) {
        const struct mpl_page *page =
            mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), index));

        MPL_ASSERT(mpl_page_state(page) == MPL_PAGE_KEPT);
        nr_kept += page->nr_pages;
    }
    return nr_kept;
}

void mpl_withdraw_frames(struct memplug *pool, struct mpl_block *block)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    uint64_t nr_free = mpl_frames_nr_free(pool, block);

    MPL_ASSERT(nr_free + block->nr_poisoned == block->nr_managed);
    MPL_ASSERT(block->nr_managed + count_kept(pool, block) ==
               mpl_block_data_pages(pool, block) - block->nr_absent);
    zone->nr_free -= nr_free;
    zone->nr_managed -= block->nr_managed;
    zone->nr_isolated -= mpl_block_nr_isolated(pool, block);
    mpl_frames_reset(pool, block);
    mpl_zone_note_free(pool, block);
}
