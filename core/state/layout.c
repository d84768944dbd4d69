/* SPDX-License-Identifier: MIT */
/* Where the bitmaps and counters of a block stand. */
#include "state.h"

void mpl_layout_set(struct mpl_layout *layout, const struct memplug_geometry *geometry)
{
    uint64_t at = 0;

    layout->nr_pages = mpl_block_pages(geometry);
    layout->nr_words = layout->nr_pages / MPL_WORD_PAGES;
    layout->nr_pageblocks = layout->nr_pages >> geometry->pageblock_order;
    MPL_ASSERT(layout->nr_pageblocks != 0 && mpl_pageblock_pages(geometry) >= MPL_WORD_PAGES);
    layout->bits = at;
    at += layout->nr_words * sizeof(struct mpl_bits);
    layout->summary = at;
    at += mpl_round_up(layout->nr_words, 64) / 8;
    layout->nr_free = at;
    at += layout->nr_pageblocks * sizeof(uint16_t);
    at = mpl_round_up(at, sizeof(uint64_t));
    layout->whole = at;
    at += mpl_round_up(layout->nr_pageblocks, 64) / 8;
    layout->isolated = at; /* read by every free, and so apart from what each writes */
    at += mpl_round_up(layout->nr_pageblocks, 64) / 8;
    layout->nr_isolations = at;
    at += layout->nr_pageblocks * sizeof(uint16_t);
    at = mpl_round_up(at, sizeof(uint64_t));
    layout->lent = 0;
    layout->bytes = mpl_round_up(at, MPL_CACHE_LINE);
}
