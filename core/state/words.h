/* SPDX-License-Identifier: MIT */
/* Words of a block's bitmaps, for the files that keep them: frames.c, find.c, poison.c. */
#ifndef MPL_WORDS_H
#define MPL_WORDS_H

#include "state.h"

#define WORD_FULL UINT64_MAX

static inline uint64_t *words_at(const struct mpl_block *block, uint64_t offset)
{
    MPL_ASSERT(block->bitmaps != NULL);
    return (uint64_t *)(void *)(block->bitmaps + offset);
}

static inline uint64_t load(const struct mpl_block *block, uint64_t offset, uint64_t word)
{
    return __atomic_load_n(words_at(block, offset) + word, __ATOMIC_ACQUIRE);
}

static inline uint64_t set_bits(struct mpl_block *block, uint64_t offset, uint64_t word,
                                uint64_t mask)
{
    return __atomic_fetch_or(words_at(block, offset) + word, mask, __ATOMIC_ACQ_REL);
}

static inline uint64_t clear_bits(struct mpl_block *block, uint64_t offset, uint64_t word,
                                  uint64_t mask)
{
    return __atomic_fetch_and(words_at(block, offset) + word, ~mask, __ATOMIC_ACQ_REL);
}

/* Of words that only the zone's lock lets change, or of which nobody else has a frame. */
static inline void store(struct mpl_block *block, uint64_t offset, uint64_t word, uint64_t value)
{
    __atomic_store_n(words_at(block, offset) + word, value, __ATOMIC_RELEASE);
}

static inline uint64_t bit_of(uint64_t index)
{
    return (uint64_t)1 << (index % MPL_WORD_PAGES);
}

/* The bits of a word that [index, end) covers. */
static inline uint64_t mask_of(uint64_t word, uint64_t index, uint64_t end)
{
    uint64_t first = word * MPL_WORD_PAGES;
    uint64_t mask = WORD_FULL;

    if (index > first)
        mask &= WORD_FULL << (index - first);
    if (end < first + MPL_WORD_PAGES)
        mask &= WORD_FULL >> (first + MPL_WORD_PAGES - end);
    return mask;
}

static inline void check_range(const struct memplug *pool, uint64_t index, uint64_t nr_pages)
{
    MPL_ASSERT(nr_pages != 0 && index < pool->layout.nr_pages &&
               nr_pages <= pool->layout.nr_pages - index);
}

/* Frames of a word in state free. */
static inline uint64_t free_in(const struct memplug *pool, const struct mpl_block *block,
                               uint64_t word)
{
    return load(block, pool->layout.free, word) & ~load(block, pool->layout.head, word);
}

static inline uint64_t pageblock_of(const struct memplug *pool, uint64_t index)
{
    return index >> pool->geometry.pageblock_order;
}

static inline uint64_t words_per_pageblock(const struct memplug *pool)
{
    return mpl_pageblock_pages(&pool->geometry) / MPL_WORD_PAGES;
}

static inline uint16_t *counter_at(const struct memplug *pool, const struct mpl_block *block,
                                   uint64_t pageblock)
{
    return (uint16_t *)(void *)(block->bitmaps + pool->layout.nr_free) + pageblock;
}

/* No frame of the word's pageblock is used: there is nothing to look at in it. */
static inline bool all_free_near(const struct memplug *pool, const struct mpl_block *block,
                                 uint64_t word)
{
    return __atomic_load_n(counter_at(pool, block, word / words_per_pageblock(pool)),
                           __ATOMIC_RELAXED) == mpl_pageblock_pages(&pool->geometry);
}

#endif
