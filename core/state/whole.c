/* SPDX-License-Identifier: MIT */
/*
 * A pageblock that is one allocation, the commonest of those with several frames. Nobody else has a
 * frame of its words, so each of them is written at once.
 */
#include "whole_fast.h"

static void set_bit(uint64_t *word, uint64_t bit, bool set)
{
    uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);

    __atomic_store_n(word, set ? old | bit : old & ~bit, __ATOMIC_RELEASE);
}

/* The counters and summaries of a pageblock that becomes all free, or all used. */
static void count(struct memplug *pool, struct mpl_block *block, uint64_t index, bool is_free)
{
    uint64_t pageblock = pageblock_of(pool, index), all = mpl_pageblock_pages(&pool->geometry);
    uint16_t *counter = counter_at(pool, block, pageblock);
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    MPL_ASSERT(*counter == (is_free ? 0 : all));
    MPL_PUT(*counter, (uint16_t)(is_free ? all : 0));
    zone->nr_free = is_free ? zone->nr_free + all : zone->nr_free - all;
    if (mpl_span_isolated(pool, block, index))
        return; /* not in the summaries */
    block->nr_free = is_free ? block->nr_free + all : block->nr_free - all;
    block->nr_whole = is_free ? block->nr_whole + 1 : block->nr_whole - 1;
    set_bit(words_at(block, pool->layout.whole) + pageblock / 64, (uint64_t)1 << pageblock % 64,
            is_free);
    mpl_frames_note_words(pool, block, index / MPL_WORD_PAGES, is_free);
    if (block->nr_whole == is_free)
        mpl_zone_note_free(pool, block);
}

bool mpl_whole_take(struct memplug *pool, struct mpl_zone *zone,
                    const struct memplug_alloc *request, enum mpl_page_state as,
                    memplug_pfn_t *pfn)
{
    uint64_t index, free = WORD_FULL, head = 0, nr_words = words_per_pageblock(pool);
    struct mpl_block *block;
    struct mpl_bits *bits;

    do
        block = mpl_frames_next_whole(pool, zone, 0);
    while (block != NULL && mpl_frames_prepare(pool, zone, block));
    if (block == NULL)
        return false;
    MPL_ASSERT(mpl_frames_find(pool, block, mpl_pageblock_pages(&pool->geometry), &index));
    bits = bits_at(block, index / MPL_WORD_PAGES);
    *pfn = mpl_pfn_add(mpl_block_start(pool, block), index);
    mpl_frame_write(pool, block, *pfn, as, request);
    for (uint64_t i = 0; i < nr_words; i++) {
        free &= __atomic_load_n(&bits[i].free, __ATOMIC_RELAXED);
        head |= __atomic_load_n(&bits[i].head, __ATOMIC_RELAXED);
    }
    MPL_ASSERT(free == WORD_FULL && head == 0);
    store(&bits->described, request->mover != 0);
    store(&bits->head, 1);
    for (uint64_t i = nr_words; i-- > 0;) /* nobody sees a head without its tails */
        store(&bits[i].free, 0);
    count(pool, block, index, false);
    return true;
}

void mpl_whole_put(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    struct mpl_bits *bits = bits_at(block, index / MPL_WORD_PAGES);

    for (uint64_t i = 0; i < words_per_pageblock(pool); i++)
        store(&bits[i].free, WORD_FULL);
    store(&bits->described, 0);
    store(&bits->head, 0);
    count(pool, block, index, true);
}

void mpl_whole_unhold(struct memplug *pool, struct mpl_block *block, struct mpl_held *held)
{
    MPL_ASSERT((load(&held->bits->free) & load(&held->bits->head)) == MPL_WHOLE_FIRST);
    mpl_whole_put(pool, block, (uint64_t)held->word * MPL_WORD_PAGES);
    held->mask = 0;
}
