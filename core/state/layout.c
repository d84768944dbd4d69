/* SPDX-License-Identifier: MIT */
/* Where the bitmaps and counters of a block stand, and what is in them at first. */
#include "words.h"

void mpl_layout_set(struct mpl_layout *layout, const struct memplug_geometry *geometry)
{
    uint64_t at = 0;

    layout->nr_pages = mpl_block_pages(geometry);
    layout->nr_words = layout->nr_pages / MPL_WORD_PAGES;
    layout->nr_pageblocks = layout->nr_pages >> geometry->pageblock_order;
    MPL_ASSERT(layout->nr_pageblocks != 0 && mpl_pageblock_pages(geometry) >= MPL_WORD_PAGES);
    layout->free = at; /* fast.h counts from there */
    at += layout->nr_words * sizeof(uint64_t);
    layout->head = at;
    at += layout->nr_words * sizeof(uint64_t);
    layout->described = at;
    at += layout->nr_words * sizeof(uint64_t);
    layout->summary = at;
    at += mpl_round_up(layout->nr_words, 64) / 8;
    layout->isolated = at;
    at += mpl_round_up(layout->nr_pageblocks, 64) / 8;
    layout->nr_free = at;
    at += layout->nr_pageblocks * sizeof(uint16_t);
    layout->nr_isolations = at;
    at += layout->nr_pageblocks * sizeof(uint16_t);
    at = mpl_round_up(at, sizeof(uint64_t));
    layout->whole = at;
    at += mpl_round_up(layout->nr_pageblocks, 64) / 8;
    layout->lent = 0;
    layout->bytes = mpl_round_up(at, MPL_CACHE_LINE);
}

void mpl_frames_reset(struct memplug *pool, struct mpl_block *block)
{
    const struct mpl_layout *layout = &pool->layout;
    uint64_t nr_memmap = block->nr_memmap_pages;

    MPL_ASSERT(block->bitmaps != NULL && nr_memmap <= layout->nr_pages);
    MPL_FILL(block->bitmaps, 0xff, layout->described);
    MPL_FILL(block->bitmaps + layout->described, 0, layout->bytes - layout->described);
    for (uint64_t word = 0; word * MPL_WORD_PAGES < nr_memmap; word++) {
        uint64_t mask = mask_of(word, 0, nr_memmap);

        if (layout->lent == 0)
            store(block, layout->head, word, ~mask | (word == 0));
        store(block, layout->free, word, ~mask);
    }
    block->nr_free = 0;
    block->nr_whole = 0;
    MPL_PUT(block->marked, false);
    block->nr_managed = 0;
    block->nr_isolated = 0;
}
