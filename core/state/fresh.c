/* SPDX-License-Identifier: MIT */
/*
 * A block whose frames are all in their first state needs no bitmaps of its own: it looks into a
 * pattern that all such blocks share. So putting a block online, and taking it offline unused, does
 * not touch the memory of its bitmaps. Whatever changes a frame calls mpl_frames_own() before; it
 * has the zone's lock. Allocations let go of that lock while they copy, since the copy may fault:
 * whoever wants to change a frame, or isolate the block, meanwhile waits for it. Who reads without
 * the lock either has a frame of the block, and then the block has its own bitmaps. Or he has none,
 * and may read the pattern and its own ones by turns: each says of every frame that he could ask
 * for that it is not his. The pattern he may read for longer than the block is in its zone; he is
 * waited for when a block that was used leaves it, or one that was not is removed.
 */
#include "words.h"

/* What a block of 8 GiB has. Larger ones do without: to write theirs is little beside what they
 * are, and patterns come out of the memory that was there before. */
#define PATTERN_MAX_BYTES ((uint64_t)1 << 20)

/* --- patterns --------------------------------------------------------------------------------- */

/* Nothing isolated, described or lent, all data held. */
static void write_held(const struct mpl_layout *layout, char *bitmaps, uint64_t nr_memmap)
{
    struct mpl_bits *bits = (struct mpl_bits *)(void *)bitmaps;

    MPL_FILL(bitmaps, 0, layout->bytes);
    for (uint64_t word = 0; word < layout->nr_words; word++)
        bits[word] = (struct mpl_bits){.free = WORD_FULL, .head = WORD_FULL};
    for (uint64_t word = 0; word * MPL_WORD_PAGES < nr_memmap; word++) {
        uint64_t mask = mask_of(word, 0, nr_memmap);

        if (layout->lent == 0)
            bits[word].head = ~mask | (word == 0);
        bits[word].free = ~mask;
    }
}

/* The same with all data free. Returns how many pageblocks are. */
static uint64_t write_free(const struct memplug *pool, char *bitmaps, uint64_t nr_memmap)
{
    const struct mpl_layout *layout = &pool->layout;
    struct mpl_bits *bits = (struct mpl_bits *)(void *)bitmaps;
    uint64_t *summary = (uint64_t *)(void *)(bitmaps + layout->summary);
    uint64_t *whole = (uint64_t *)(void *)(bitmaps + layout->whole);
    uint16_t *counters = (uint16_t *)(void *)(bitmaps + layout->nr_free);
    uint64_t nr_pages = mpl_pageblock_pages(&pool->geometry), nr_whole = 0;

    write_held(layout, bitmaps, nr_memmap);
    for (uint64_t word = nr_memmap / MPL_WORD_PAGES; word < layout->nr_words; word++) {
        bits[word].head &= ~mask_of(word, nr_memmap, layout->nr_pages);
        summary[word / 64] |= (uint64_t)1 << (word % 64);
    }
    for (uint64_t i = pageblock_of(pool, nr_memmap); i < layout->nr_pageblocks; i++) {
        counters[i] = (uint16_t)(i * nr_pages < nr_memmap ? (i + 1) * nr_pages - nr_memmap
                                                          : nr_pages);
        if (counters[i] != nr_pages)
            continue;
        whole[i / 64] |= (uint64_t)1 << (i % 64);
        nr_whole++;
    }
    return nr_whole;
}

static const struct mpl_pattern *pattern_of(const struct memplug *pool, uint64_t nr_memmap)
{
    for (unsigned i = 0; i < MPL_NR_PATTERNS; i++)
        if (pool->patterns[i].free != NULL && pool->patterns[i].nr_memmap_pages == nr_memmap)
            return &pool->patterns[i];
    return NULL;
}

static uint64_t sum_of(const struct memplug *pool, const struct mpl_pattern *pattern)
{
    const uint64_t *words = (const uint64_t *)(const void *)pattern->held;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < 2 * pool->layout.bytes / sizeof(*words); i++)
        sum = (sum ^ words[i]) * 0x100000001b3u;
    return sum;
}

bool mpl_is_pattern(const struct memplug *pool, const char *bitmaps)
{
    for (unsigned i = 0; i < MPL_NR_PATTERNS && bitmaps != NULL; i++)
        if (pool->patterns[i].free == bitmaps || pool->patterns[i].held == bitmaps)
            return true;
    return false;
}

bool mpl_pattern_intact(const struct memplug *pool)
{
    for (unsigned i = 0; i < MPL_NR_PATTERNS; i++)
        if (pool->patterns[i].free != NULL &&
            sum_of(pool, &pool->patterns[i]) != pool->patterns[i].sum)
            return false;
    return true;
}

uint64_t mpl_pattern_bytes(const struct mpl_layout *layout)
{
    return layout->bytes <= PATTERN_MAX_BYTES ? 2 * layout->bytes : 0;
}

void mpl_pattern_make(struct memplug *pool, uint64_t nr_memmap, char *memory)
{
    unsigned at = 0;

    if (mpl_pattern_bytes(&pool->layout) == 0 || nr_memmap >= pool->layout.nr_pages ||
        pattern_of(pool, nr_memmap) != NULL)
        return;
    while (pool->patterns[at].free != NULL)
        at++;
    MPL_ASSERT(at < MPL_NR_PATTERNS);
    write_held(&pool->layout, memory, nr_memmap);
    pool->patterns[at] = (struct mpl_pattern){
        .nr_memmap_pages = nr_memmap,
        .nr_whole = write_free(pool, memory + pool->layout.bytes, nr_memmap),
        .held = memory,
        .free = memory + pool->layout.bytes,
    };
    pool->patterns[at].sum = sum_of(pool, &pool->patterns[at]);
}

/* --- blocks ----------------------------------------------------------------------------------- */

bool mpl_frames_untouched(const struct memplug *pool, const struct mpl_block *block)
{
    const char *bitmaps = mpl_bitmaps(block);

    for (unsigned i = 0; i < MPL_NR_PATTERNS; i++)
        if (pool->patterns[i].free == bitmaps)
            return bitmaps != NULL;
    return false;
}

void mpl_frames_reset(struct memplug *pool, struct mpl_block *block)
{
    const struct mpl_pattern *pattern = pattern_of(pool, block->nr_memmap_pages);

    MPL_ASSERT(block->own_bitmaps != NULL && block->nr_memmap_pages <= pool->layout.nr_pages);
    if (pattern == NULL)
        write_held(&pool->layout, block->own_bitmaps, block->nr_memmap_pages);
    MPL_PUT(block->bitmaps, pattern != NULL ? pattern->held : block->own_bitmaps);
    block->nr_free = 0;
    block->nr_whole = 0;
    MPL_PUT(block->marked, false);
    block->nr_managed = 0;
    block->nr_isolated = 0;
    MPL_PUT(block->isolated, false);
}

static void copy(const struct memplug *pool, struct mpl_block *block)
{
    __builtin_memcpy(block->own_bitmaps, block->bitmaps, pool->layout.bytes);
    MPL_PUT(block->bitmaps, block->own_bitmaps);
}

void mpl_frames_settle(const struct memplug *pool, const struct mpl_block *block)
{
    unsigned nr_spins = 0;

    while (__atomic_load_n(&block->copying, __ATOMIC_ACQUIRE))
        pool->host->ops->relax(pool->host->context, nr_spins++);
}

void mpl_frames_own(const struct memplug *pool, struct mpl_block *block)
{
    if (MPL_LIKELY(mpl_bitmaps(block) == block->own_bitmaps))
        return;
    mpl_frames_settle(pool, block);
    if (mpl_bitmaps(block) != block->own_bitmaps)
        copy(pool, block);
}

bool mpl_frames_prepare(struct memplug *pool, struct mpl_zone *zone, struct mpl_block *block)
{
    bool mine = !__atomic_load_n(&block->copying, __ATOMIC_ACQUIRE);

    if (MPL_LIKELY(mpl_bitmaps(block) == block->own_bitmaps))
        return false;
    if (mine)
        MPL_PUT(block->copying, true);
    mpl_spin_unlock(&zone->lock);
    if (mine) {
        copy(pool, block);
        MPL_PUT(block->copying, false);
    } else {
        mpl_frames_settle(pool, block);
    }
    mpl_spin_lock(pool, &zone->lock);
    return true;
}

bool mpl_frames_put_first(struct memplug *pool, struct mpl_block *block, uint64_t index,
                          uint64_t nr_pages)
{
    const struct mpl_pattern *pattern = pattern_of(pool, block->nr_memmap_pages);

    if (pattern == NULL || block->bitmaps != pattern->held || index != block->nr_memmap_pages ||
        nr_pages != mpl_block_data_pages(pool, block))
        return false;
    MPL_PUT(block->bitmaps, pattern->free);
    mpl_zone_of(pool, block)->nr_free += nr_pages;
    block->nr_free = nr_pages;
    block->nr_whole = pattern->nr_whole;
    return true;
}
