/* SPDX-License-Identifier: MIT */
/*
 * Which frames are bad. The bitmap is there from a block's first one on, and until the block is
 * removed. A bit is set before its frame looks used, and never cleared while its block is online:
 * so who looks without the zone's lock never takes a bad frame for an allocation.
 */
#include "words.h"

static const uint64_t *bitmap_of(const struct mpl_block *block)
{
    return __atomic_load_n(&block->poisoned, __ATOMIC_ACQUIRE);
}

uint64_t mpl_poisoned_mask(const struct mpl_block *block, uint64_t word)
{
    const uint64_t *bitmap = bitmap_of(block);

    return MPL_LIKELY(bitmap == NULL) ? 0 : __atomic_load_n(bitmap + word, __ATOMIC_ACQUIRE);
}

bool mpl_poisoned(const struct mpl_block *block, uint64_t index)
{
    return (mpl_poisoned_mask(block, index / MPL_WORD_PAGES) & bit_of(index)) != 0;
}

uint64_t mpl_poisoned_next(const struct memplug *pool, const struct mpl_block *block,
                           uint64_t index)
{
    uint64_t end = pool->layout.nr_pages;

    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++) {
        uint64_t mask = mpl_poisoned_mask(block, word) & mask_of(word, index, end);

        if (mask != 0)
            return word * MPL_WORD_PAGES + MPL_CTZ64(mask);
    }
    return end;
}

void mpl_poison_set(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    MPL_ASSERT(block->poisoned != NULL && !mpl_poisoned(block, index));
    __atomic_fetch_or(block->poisoned + index / MPL_WORD_PAGES, bit_of(index), __ATOMIC_ACQ_REL);
    MPL_PUT(block->nr_poisoned, block->nr_poisoned + 1);
    mpl_frames_take_isolated(pool, block, index, 1, true);
}

uint64_t mpl_poison_bytes(const struct memplug *pool)
{
    return pool->layout.nr_words * sizeof(uint64_t);
}
