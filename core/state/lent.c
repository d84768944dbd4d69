/* SPDX-License-Identifier: MIT */
/*
 * Lent frames of a memmap. The bit is set behind the frame's becoming free and cleared before its
 * being taken: whoever looks without the zone's lock sees the memmap's frame, and lets it be, or
 * one that is free.
 */
#include "lent.h"

#include "words.h"

void mpl_layout_add_lent(struct mpl_layout *layout)
{
    layout->lent = layout->bytes;
    layout->bytes = mpl_round_up(layout->lent + layout->nr_words * sizeof(uint64_t),
                                 MPL_CACHE_LINE);
}

bool mpl_lent_bit(const struct memplug *pool, const struct mpl_block *block, uint64_t index)
{
    return (load(words_at(block, pool->layout.lent) + index / MPL_WORD_PAGES) & bit_of(index)) != 0;
}

uint64_t mpl_memmap_mask(const struct memplug *pool, const struct mpl_block *block, uint64_t word)
{
    uint64_t mask;

    if (word * MPL_WORD_PAGES >= block->nr_memmap_pages)
        return 0;
    mask = mask_of(word, 0, block->nr_memmap_pages);
    return pool->layout.lent == 0 ? mask : mask & ~load(words_at(block, pool->layout.lent) + word);
}

uint64_t mpl_lent_count(const struct memplug *pool, const struct mpl_block *block)
{
    uint64_t nr_lent = 0;

    for (uint64_t word = 0; pool->layout.lent != 0 && word < pool->layout.nr_words; word++)
        nr_lent += MPL_POPCOUNT64(load(words_at(block, pool->layout.lent) + word));
    return nr_lent;
}

static void set_lent(struct memplug *pool, struct mpl_block *block, uint64_t index,
                     uint64_t nr_pages, bool lent)
{
    uint64_t end = index + nr_pages;

    check_range(pool, index, nr_pages);
    MPL_ASSERT(pool->layout.lent != 0 && end <= block->nr_memmap_pages);
    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++) {
        uint64_t mask = mask_of(word, index, end);

        MPL_ASSERT((load(words_at(block, pool->layout.lent) + word) & mask) == (lent ? 0 : mask));
        if (lent)
            set_bits(words_at(block, pool->layout.lent) + word, mask);
        else
            clear_bits(words_at(block, pool->layout.lent) + word, mask);
    }
}

void mpl_lent_put(struct memplug *pool, struct mpl_block *block, uint64_t index, uint64_t nr_pages)
{
    mpl_frames_put(pool, block, index, nr_pages);
    set_lent(pool, block, index, nr_pages, true);
    block->nr_managed += nr_pages;
    mpl_zone_of(pool, block)->nr_managed += nr_pages;
}

/* Each frame of a memmap that can be lent is a head of its own: what is lent before it and behind
 * it neither goes on in it nor begins with it. */
void mpl_lent_take(struct memplug *pool, struct mpl_block *block, uint64_t index,
                   uint64_t nr_pages)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    set_lent(pool, block, index, nr_pages, false);
    for (uint64_t i = index; i < index + nr_pages; i++)
        mpl_frames_take_isolated(pool, block, i, 1, true);
    MPL_ASSERT(block->nr_managed >= nr_pages && zone->nr_managed >= nr_pages);
    block->nr_managed -= nr_pages;
    zone->nr_managed -= nr_pages;
}
