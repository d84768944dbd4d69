/* SPDX-License-Identifier: MIT */
/* Words of a block's bitmaps, for the files that keep them: frames.c, find.c, poison.c. */
#ifndef MPL_WORDS_H
#define MPL_WORDS_H

#include "fast.h"

#define WORD_FULL UINT64_MAX

static inline uint64_t *words_at(const struct mpl_block *block, uint64_t offset)
{
    char *bitmaps = mpl_bitmaps(block);

    MPL_ASSERT(bitmaps != NULL);
    return (uint64_t *)(void *)(bitmaps + offset);
}

static inline struct mpl_bits *bits_at(const struct mpl_block *block, uint64_t word)
{
    struct mpl_bits *bits = mpl_bits_at(block, word);

    MPL_ASSERT(mpl_bitmaps(block) != NULL);
    return bits;
}

static inline uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline uint64_t set_bits(uint64_t *word, uint64_t mask)
{
    return __atomic_fetch_or(word, mask, __ATOMIC_ACQ_REL);
}

static inline uint64_t clear_bits(uint64_t *word, uint64_t mask)
{
    return __atomic_fetch_and(word, ~mask, __ATOMIC_ACQ_REL);
}

/* Of words that only the zone's lock lets change, or of which nobody else has a frame. */
static inline void store(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
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
static inline uint64_t free_in(const struct mpl_block *block, uint64_t word)
{
    const struct mpl_bits *bits = bits_at(block, word);

    return load(&bits->free) & ~load(&bits->head);
}

static inline bool is_described(const struct mpl_block *block, uint64_t index)
{
    return (load(&bits_at(block, index / MPL_WORD_PAGES)->described) & bit_of(index)) != 0;
}

static inline uint8_t zone_kind(const struct mpl_block *block)
{
    return __atomic_load_n(&block->zone, __ATOMIC_ACQUIRE);
}

static inline struct mpl_block *find_block(const struct memplug *pool, memplug_pfn_t pfn,
                                           uint64_t *index)
{
    uint64_t id = mpl_block_of_pfn(&pool->geometry, pfn);
    enum memplug_block_state state;
    struct mpl_block *block;

    if (id >= pool->nr_blocks_max)
        return NULL;
    block = &pool->blocks[id];
    state = mpl_block_state(block);
    if (state != MEMPLUG_BLOCK_GOING_ONLINE && state != MEMPLUG_BLOCK_ONLINE &&
        state != MEMPLUG_BLOCK_GOING_OFFLINE)
        return NULL;
    if (zone_kind(block) >= MEMPLUG_NR_ZONES)
        return NULL;
    *index = mpl_pfn_distance(mpl_pfn_of_block(&pool->geometry, id), pfn);
    return block;
}

static inline bool is_surely_single(const struct mpl_block *block, uint64_t index)
{
    const struct mpl_bits *bits = bits_at(block, index / MPL_WORD_PAGES);
    uint64_t free = load(&bits->free), head = load(&bits->head);

    return index >= block->nr_memmap_pages && mpl_is_single_in(block, free, head, bit_of(index));
}

/* The struct page of a new allocation, and nothing else; nothing without a mover. */
static inline void mpl_frame_write(struct memplug *pool, struct mpl_block *block,
                                   memplug_pfn_t pfn, enum mpl_page_state as,
                                   const struct memplug_alloc *request)
{
    bool pinned = request->pinned && as == MPL_PAGE_USED;

    if (request->mover == 0)
        return;
    if (MPL_UNLIKELY(request->pinned || as != MPL_PAGE_USED))
        mpl_frames_mark(block);
    mpl_page_write(mpl_page_at(pool, pfn), (uint32_t)as + (pinned ? MPL_PAGE_PIN : 0),
                   request->nr_pages, request->mover,
                   request->align_pages != 0 ? (uint8_t)MPL_CTZ64(request->align_pages) : 0,
                   request->cookie);
}

/* Used by the slots without the zone's lock, on frames that they hold, or that are the caller's:
 * atomic on the word. use: held -> head. give: head -> held, false if it was not a head. */
static inline void mpl_frame_use_held(struct mpl_block *block, uint64_t index)
{
    struct mpl_bits *bits = bits_at(block, index / MPL_WORD_PAGES);

    MPL_ASSERT((load(&bits->head) & bit_of(index)) != 0);
    MPL_ASSERT((clear_bits(&bits->free, bit_of(index)) & bit_of(index)) != 0);
}

static inline bool mpl_frame_give_held(struct mpl_block *block, uint64_t index)
{
    struct mpl_bits *bits = bits_at(block, index / MPL_WORD_PAGES);
    uint64_t free = load(&bits->free), bit = bit_of(index);

    if ((load(&bits->head) & ~free & bit) == 0)
        return false;
    /* Before the mark is looked at: see mpl_frame_is_used(). */
    return (__atomic_fetch_or(&bits->free, bit, __ATOMIC_SEQ_CST) & bit) == 0;
}

/* A page was ended, and its frame is in other hands: perhaps of another free that steps back. */
#define MPL_IN_OTHER_HANDS 1
/* The frame becomes held; its page was ended by the caller. */
int mpl_frame_take_ended(struct memplug *pool, struct mpl_block *block, uint64_t index);

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
    return (uint16_t *)(void *)(mpl_bitmaps(block) + pool->layout.nr_free) + pageblock;
}

/* No frame of the word's pageblock is used: there is nothing to look at in it. */
static inline bool all_free_near(const struct memplug *pool, const struct mpl_block *block,
                                 uint64_t word)
{
    return __atomic_load_n(counter_at(pool, block, word / words_per_pageblock(pool)),
                           __ATOMIC_RELAXED) == mpl_pageblock_pages(&pool->geometry);
}

/* Of mpl_frames_unhold(): frames of a word are free; nothing is counted yet. */
static inline void unhold_bits(const struct mpl_held *held)
{
    struct mpl_bits *bits = held->bits;
    uint64_t mask = held->mask, head = __atomic_load_n(&bits->head, __ATOMIC_RELAXED);

    MPL_ASSERT((__atomic_load_n(&bits->free, __ATOMIC_RELAXED) & head & mask) == mask);
    if ((__atomic_load_n(&bits->described, __ATOMIC_RELAXED) & mask) != 0)
        clear_bits(&bits->described, mask);
    store(&bits->head, head & ~mask);
}

/* They are counted, unless that says something new of their pageblock or block: then nothing is
 * done. */
static inline bool count_plainly(const struct memplug *pool, struct mpl_zone *zone,
                                 struct mpl_block *block, uint64_t word, unsigned nr)
{
    const char *bitmaps = mpl_bitmaps(block);
    uint64_t pageblock = pageblock_of(pool, word * MPL_WORD_PAGES);
    uint16_t *counter = (uint16_t *)(void *)(bitmaps + pool->layout.nr_free) + pageblock;
    uint64_t *summary = (uint64_t *)(void *)(bitmaps + pool->layout.summary) + word / 64;
    const uint64_t *isolated = (const uint64_t *)(const void *)(bitmaps + pool->layout.isolated);
    uint64_t bit = (uint64_t)1 << (word % 64), old = *summary;
    unsigned free = *counter + nr;

    if (free >= mpl_pageblock_pages(&pool->geometry) || block->nr_free == 0 ||
        (isolated[pageblock / 64] >> (pageblock % 64) & 1) != 0)
        return false;
    MPL_PUT(*counter, (uint16_t)free);
    zone->nr_free += nr;
    block->nr_free += nr;
    if ((old & bit) == 0)
        store(summary, old | bit);
    return true;
}

/* The other way: all that is free in the word is not any more. */
static inline bool uncount_plainly(const struct memplug *pool, struct mpl_zone *zone,
                                   struct mpl_block *block, uint64_t word, unsigned nr)
{
    uint16_t *counter = counter_at(pool, block, pageblock_of(pool, word * MPL_WORD_PAGES));
    uint64_t *summary = words_at(block, pool->layout.summary) + word / 64;

    if (*counter == mpl_pageblock_pages(&pool->geometry) || block->nr_free <= nr)
        return false;
    MPL_ASSERT(nr != 0 && *counter >= nr && zone->nr_free >= nr);
    MPL_PUT(*counter, (uint16_t)(*counter - nr));
    zone->nr_free -= nr;
    block->nr_free -= nr;
    store(summary, *summary & ~((uint64_t)1 << (word % 64)));
    return true;
}

/* --- percpu.c, for bulk.c: the caller is in the slot ------------------------------------------ */

/* One is at hand, or came to be; false: there are no such frames. It may be of another node. */
bool mpl_percpu_have_word(struct memplug *pool, struct mpl_slot *slot,
                          const struct memplug_alloc *request);
/* In runs of one zone, whose lock is taken once for each. all: or else those that are isolated.
 * False: there were none. */
bool mpl_percpu_give_back(struct memplug *pool, struct mpl_held *held, unsigned nr, bool all);
/* Frames that are nobody's now find their place in the slot. */
void mpl_percpu_keep_freed(struct memplug *pool, struct mpl_slot *slot,
                           const struct mpl_held *frames);

/* One frame back, as mpl_percpu_free(); ended: or as mpl_percpu_free_ended(). */
int mpl_percpu_free_frame(struct memplug *pool, struct mpl_slot *slot, memplug_pfn_t pfn,
                          bool ended);
/* In no slot: what was in other hands. */
int mpl_percpu_free_contested(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn);

#endif
