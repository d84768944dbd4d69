/* SPDX-License-Identifier: MIT */
/*
 * A pageblock is isolated while somebody has isolated it: offline its block, others a span of
 * frames, and these may meet in one pageblock. Of spans each pageblock keeps count; a block has a
 * flag, and its bitmaps, summaries and counters do not know of it.
 */
#include "state.h"

static uint64_t *word_at(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t pageblock)
{
    return (uint64_t *)(void *)(mpl_bitmaps(block) + pool->layout.isolated) + pageblock / 64;
}

static uint16_t *count_at(const struct memplug *pool, const struct mpl_block *block,
                          uint64_t pageblock)
{
    return (uint16_t *)(void *)(mpl_bitmaps(block) + pool->layout.nr_isolations) + pageblock;
}

/* The pageblock's frames count as free in the block, and its words in the summary, or not. */
static void set_isolated(struct memplug *pool, struct mpl_block *block, uint64_t pageblock,
                         bool isolated)
{
    uint64_t bit = (uint64_t)1 << (pageblock % 64);
    uint64_t nr_free = mpl_frames_free_near(pool, block,
                                            pageblock << pool->geometry.pageblock_order);

    if (isolated) {
        __atomic_fetch_or(word_at(pool, block, pageblock), bit, __ATOMIC_RELEASE);
        MPL_ASSERT(block->nr_free >= nr_free);
        block->nr_free -= nr_free;
        block->nr_isolated++;
    } else {
        __atomic_fetch_and(word_at(pool, block, pageblock), ~bit, __ATOMIC_RELEASE);
        block->nr_free += nr_free;
        MPL_ASSERT(block->nr_isolated != 0);
        block->nr_isolated--;
    }
    mpl_frames_note(pool, block, pageblock);
}

static void count(struct memplug *pool, struct mpl_block *block, uint64_t pageblock, bool more)
{
    uint16_t *nr = count_at(pool, block, pageblock);

    MPL_ASSERT(more ? *nr != UINT16_MAX : *nr != 0);
    *nr = (uint16_t)(more ? *nr + 1 : *nr - 1);
    if (*nr == (more ? 1 : 0))
        set_isolated(pool, block, pageblock, more);
}

/* Of the zone; nr_before: what the block counted. */
static void recount(struct memplug *pool, struct mpl_block *block, uint64_t nr_before)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    MPL_ASSERT(zone->nr_isolated >= nr_before);
    zone->nr_isolated += mpl_block_nr_isolated(pool, block) - nr_before;
    mpl_zone_note_free(pool, block);
}

static void set_span(struct memplug *pool, struct mpl_block *block, uint64_t index,
                     uint64_t nr_pages, bool isolated)
{
    unsigned order = pool->geometry.pageblock_order;
    uint64_t nr_before = mpl_block_nr_isolated(pool, block);

    MPL_ASSERT(index <= pool->layout.nr_pages && nr_pages <= pool->layout.nr_pages - index);
    mpl_frames_own(pool, block);
    for (uint64_t pageblock = index >> order; pageblock << order < index + nr_pages; pageblock++)
        count(pool, block, pageblock, isolated);
    recount(pool, block, nr_before);
}

void mpl_isolate_span(struct memplug *pool, struct mpl_block *block, uint64_t index,
                      uint64_t nr_pages)
{
    set_span(pool, block, index, nr_pages, true);
}

void mpl_unisolate_span(struct memplug *pool, struct mpl_block *block, uint64_t index,
                        uint64_t nr_pages)
{
    set_span(pool, block, index, nr_pages, false);
}

/* What is lent in front of the data is the block's too. Spans lie in what the block isolates. */
uint64_t mpl_block_nr_isolated(const struct memplug *pool, const struct mpl_block *block)
{
    uint64_t first = pool->layout.lent != 0 ? 0 : block->nr_memmap_pages;

    return block->isolated ? pool->layout.nr_pageblocks - (first >> pool->geometry.pageblock_order)
                           : block->nr_isolated;
}

static void set_block(struct memplug *pool, struct mpl_block *block, bool isolated)
{
    uint64_t nr_before = mpl_block_nr_isolated(pool, block);

    MPL_ASSERT(block->isolated != isolated);
    mpl_frames_settle(pool, block);
    MPL_PUT(block->isolated, isolated);
    recount(pool, block, nr_before);
}

void mpl_isolate_block(struct memplug *pool, struct mpl_block *block)
{
    set_block(pool, block, true);
}

void mpl_unisolate_block(struct memplug *pool, struct mpl_block *block)
{
    set_block(pool, block, false);
}
