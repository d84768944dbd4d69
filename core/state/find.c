/* SPDX-License-Identifier: MIT */
/* Free frames of one block, used ones, and blocks of one zone that have some free. The zone's lock
 * is held. */
#include "lent.h"
#include "words.h"

/* Bits at which nr_pages (a power of two <= 64) free frames begin, aligned to themselves. */
static uint64_t runs_in(uint64_t free, uint64_t nr_pages)
{
    for (uint64_t shift = 1; shift < nr_pages; shift *= 2)
        free &= free >> shift;
    if (nr_pages == MPL_WORD_PAGES)
        return free & 1;
    return free & (WORD_FULL / (((uint64_t)1 << nr_pages) - 1));
}

/* Within a word. The summary leaves out words with nothing, the counters pageblocks with less. */
static bool find_small(const struct memplug *pool, const struct mpl_block *block,
                       uint64_t nr_pages, uint64_t *index)
{
    for (uint64_t i = 0; i * 64 < pool->layout.nr_words; i++) {
        uint64_t summary = load(words_at(block, pool->layout.summary) + i);

        while (summary != 0) {
            uint64_t word = i * 64 + MPL_CTZ64(summary), runs = 0;

            if (*counter_at(pool, block, word / words_per_pageblock(pool)) >= nr_pages)
                runs = runs_in(free_in(block, word), nr_pages);
            if (runs != 0) {
                *index = word * MPL_WORD_PAGES + MPL_CTZ64(runs);
                return true;
            }
            summary &= summary - 1;
        }
    }
    return false;
}

/* Whole words, in a part of a pageblock or in several of them. */
static bool find_large(const struct memplug *pool, const struct mpl_block *block,
                       uint64_t nr_pages, uint64_t *index)
{
    uint64_t pageblock_pages = mpl_pageblock_pages(&pool->geometry);
    uint64_t needed = nr_pages < pageblock_pages ? nr_pages : pageblock_pages;
    uint64_t at = 0;

    while (at + nr_pages <= pool->layout.nr_pages) {
        uint64_t pageblock = pageblock_of(pool, at);

        if (*counter_at(pool, block, pageblock) < needed || mpl_isolated(pool, block, at)) {
            at = mpl_round_up((pageblock + 1) * pageblock_pages, nr_pages);
            continue;
        }
        if (mpl_frames_all_free(pool, block, at, nr_pages)) {
            *index = at;
            return true;
        }
        at += nr_pages;
    }
    return false;
}

bool mpl_frames_whole(const struct memplug *pool, const struct mpl_block *block, uint64_t index)
{
    uint64_t pageblock = pageblock_of(pool, index);
    const uint64_t *whole = words_at(block, pool->layout.whole);

    return (load(whole + pageblock / 64) >> (pageblock % 64) & 1) != 0;
}

/* A pageblock of its own. */
static bool find_whole(const struct memplug *pool, const struct mpl_block *block, uint64_t *index)
{
    for (uint64_t i = 0; i * 64 < pool->layout.nr_pageblocks; i++) {
        uint64_t whole = load(words_at(block, pool->layout.whole) + i);

        if (whole != 0) {
            *index = (i * 64 + MPL_CTZ64(whole)) * mpl_pageblock_pages(&pool->geometry);
            return true;
        }
    }
    return false;
}

static struct mpl_block *next_in(const struct memplug *pool, const uint64_t *bits, uint64_t from)
{
    uint64_t mask = from % 64 == 0 ? WORD_FULL : WORD_FULL << (from % 64);

    for (uint64_t i = from / 64; i * 64 < pool->nr_blocks_max; i++, mask = WORD_FULL)
        if ((bits[i] & mask) != 0)
            return mpl_block_at(pool, i * 64 + MPL_CTZ64(bits[i] & mask));
    return NULL;
}

struct mpl_block *mpl_frames_next_block(const struct memplug *pool, const struct mpl_zone *zone,
                                        uint64_t from)
{
    return next_in(pool, zone->has_free, from);
}

struct mpl_block *mpl_frames_next_whole(const struct memplug *pool, const struct mpl_zone *zone,
                                        uint64_t from)
{
    return next_in(pool, zone->has_whole, from);
}

bool mpl_frames_find(const struct memplug *pool, const struct mpl_block *block,
                     uint64_t nr_pages, uint64_t *index)
{
    MPL_ASSERT(nr_pages != 0 && (nr_pages & (nr_pages - 1)) == 0);
    if (mpl_block_nr_free(block) < nr_pages)
        return false;
    if (nr_pages <= MPL_WORD_PAGES)
        return find_small(pool, block, nr_pages, index);
    if (nr_pages == mpl_pageblock_pages(&pool->geometry))
        return find_whole(pool, block, index);
    return find_large(pool, block, nr_pages, index);
}

uint64_t mpl_frames_first_used(const struct mpl_block *block,
                               uint64_t index, uint64_t end)
{
    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++) {
        uint64_t used = mask_of(word, index, end) & ~free_in(block, word);

        if (used != 0)
            return word * MPL_WORD_PAGES + MPL_CTZ64(used);
    }
    return end;
}

bool mpl_frames_next_head(const struct memplug *pool, const struct mpl_block *block,
                          uint64_t *index)
{
    uint64_t from = *index;

    if (mpl_frames_untouched(pool, block))
        return false;
    if (pool->layout.lent == 0 && from < block->nr_memmap_pages)
        from = block->nr_memmap_pages;

    for (uint64_t word = from / MPL_WORD_PAGES; word < pool->layout.nr_words; word++) {
        uint64_t heads;

        if (word % words_per_pageblock(pool) == 0 && all_free_near(pool, block, word)) {
            word += words_per_pageblock(pool) - 1;
            continue;
        }
        heads = load(&bits_at(block, word)->head) & ~load(&bits_at(block, word)->free) &
                mask_of(word, from, pool->layout.nr_pages);
        heads &= ~mpl_poisoned_mask(block, word) & ~mpl_memmap_mask(pool, block, word);
        if (heads != 0) {
            *index = word * MPL_WORD_PAGES + MPL_CTZ64(heads);
            return true;
        }
    }
    return false;
}
