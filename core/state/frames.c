/* SPDX-License-Identifier: MIT */
/*
 * Bitmaps and counters of one block. Two bits of different words make a frame's state, so the
 * order of changes matters to those who look without the zone's lock:
 *  - head changes under the zone's lock only; so do all changes of free from 1 to 0 where head is
 *    0. Hence free & ~head is stable under that lock, whatever slots do meanwhile;
 *  - slots only turn head frames into held ones (free 0 -> 1) and back, one atomic step each;
 *  - a change of both bits passes through held (1 1), which everybody leaves alone.
 */
#include "lent.h"
#include "whole.h"
#include "words.h"

/* --- counters --------------------------------------------------------------------------------- */

static void set_summary(struct mpl_block *block, uint64_t offset, uint64_t bit, bool set)
{
    uint64_t *word = words_at(block, offset) + bit / 64;
    uint64_t mask = (uint64_t)1 << (bit % 64), old = load(word);
    uint64_t new = set ? old | mask : old & ~mask;

    if (new != old)
        store(word, new);
}

/* Is the pageblock wholly free, and isolated by no span? */
static void note_whole(struct memplug *pool, struct mpl_block *block, uint64_t pageblock,
                       bool isolated)
{
    uint64_t offset = pool->layout.whole;
    bool was = (load(words_at(block, offset) + pageblock / 64) >> (pageblock % 64) & 1) != 0;
    bool is = !isolated &&
              *counter_at(pool, block, pageblock) == mpl_pageblock_pages(&pool->geometry);

    if (is == was)
        return;
    set_summary(block, offset, pageblock, is);
    block->nr_whole = is ? block->nr_whole + 1 : block->nr_whole - 1;
}

/* The words of a pageblock at once, which have something to allocate or not; false: they are more
 * than one word of bits. */
static bool set_summaries(struct memplug *pool, struct mpl_block *block, uint64_t first, bool set)
{
    uint64_t *summary = words_at(block, pool->layout.summary) + first / 64;
    uint64_t nr_words = words_per_pageblock(pool), mask;

    if (nr_words >= 64)
        return false;
    mask = (((uint64_t)1 << nr_words) - 1) << (first % 64);
    store(summary, set ? load(summary) | mask : load(summary) & ~mask);
    return true;
}

void mpl_frames_note_words(struct memplug *pool, struct mpl_block *block, uint64_t first, bool some)
{
    if (set_summaries(pool, block, first, some))
        return;
    for (uint64_t i = 0; i < words_per_pageblock(pool); i++)
        set_summary(block, pool->layout.summary, first + i, some);
}

/* A span isolates the pageblock now, or none does any more. */
void mpl_frames_note(struct memplug *pool, struct mpl_block *block, uint64_t pageblock)
{
    uint64_t nr_words = words_per_pageblock(pool), first = pageblock * nr_words;
    bool isolated = mpl_span_isolated(pool, block, first * MPL_WORD_PAGES);
    uint16_t nr_free = *counter_at(pool, block, pageblock);
    bool none = isolated || nr_free == 0;

    note_whole(pool, block, pageblock, isolated);
    if ((none || nr_free == mpl_pageblock_pages(&pool->geometry)) &&
        set_summaries(pool, block, first, !none))
        return;
    for (uint64_t word = first; word < first + nr_words; word++)
        set_summary(block, pool->layout.summary, word,
                    !none && free_in(block, word) != 0);
}

/* In these words of one pageblock nr frames more are free, or less. */
static inline void count(struct memplug *pool, struct mpl_block *block, uint64_t first,
                         uint64_t end, unsigned nr, bool more)
{
    uint64_t pageblock = first / words_per_pageblock(pool);
    uint64_t all = mpl_pageblock_pages(&pool->geometry);
    uint16_t *counter = counter_at(pool, block, pageblock), old = *counter;
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    bool isolated = mpl_span_isolated(pool, block, first * MPL_WORD_PAGES);

    MPL_ASSERT(more ? old + nr <= all
                    : old >= nr && zone->nr_free >= nr && (isolated || block->nr_free >= nr));
    MPL_PUT(*counter, (uint16_t)(more ? old + nr : old - nr));
    zone->nr_free = more ? zone->nr_free + nr : zone->nr_free - nr;
    if (isolated)
        return; /* not in the summaries */
    block->nr_free = more ? block->nr_free + nr : block->nr_free - nr;
    if (old == all || *counter == all)
        note_whole(pool, block, pageblock, false);
    if (nr != all || !set_summaries(pool, block, first, more))
        for (uint64_t word = first; word < end; word++)
            set_summary(block, pool->layout.summary, word,
                        more || free_in(block, word) != 0);
    if (old == all || *counter == all || block->nr_free == (more ? nr : 0))
        mpl_zone_note_free(pool, block);
}

static uint64_t end_of_pageblock(const struct memplug *pool, uint64_t word)
{
    return (word / words_per_pageblock(pool) + 1) * words_per_pageblock(pool);
}

/* --- blocks and zones ------------------------------------------------------------------------- */

struct mpl_block *mpl_frames_block(const struct memplug *pool, memplug_pfn_t pfn, uint64_t *index)
{
    return find_block(pool, pfn, index);
}

bool mpl_frames_in_zone(const struct mpl_block *block, const struct mpl_zone *zone)
{
    return zone_kind(block) == zone->kind && block->node == zone->node;
}

struct mpl_zone *mpl_frames_lock_zone(struct memplug *pool, const struct mpl_block *block)
{
    uint8_t kind = zone_kind(block);
    struct mpl_zone *zone;

    if (kind >= MEMPLUG_NR_ZONES)
        return NULL;
    zone = mpl_zone_at(pool, block->node, kind);
    mpl_spin_lock(pool, &zone->lock);
    if (mpl_frames_in_zone(block, zone))
        return zone;
    mpl_spin_unlock(&zone->lock);
    return NULL;
}

/* --- looking ---------------------------------------------------------------------------------- */

enum mpl_frame mpl_frame_get(const struct memplug *pool, const struct mpl_block *block,
                             uint64_t index)
{
    const struct mpl_bits *bits = bits_at(block, index / MPL_WORD_PAGES);
    uint64_t bit = bit_of(index);
    unsigned free, head;

    check_range(pool, index, 1);
    free = (load(&bits->free) & bit) != 0;
    head = (load(&bits->head) & bit) != 0;
    return (enum mpl_frame)(free * 2 + head);
}

bool mpl_frame_described(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index)
{
    check_range(pool, index, 1);
    return is_described(block, index);
}

bool mpl_frame_is_used(const struct mpl_block *block, uint64_t index)
{
    const struct mpl_bits *bits = bits_at(block, index / MPL_WORD_PAGES);

    return (__atomic_load_n(&bits->free, __ATOMIC_SEQ_CST) & bit_of(index)) == 0;
}

void mpl_frame_set_described(struct memplug *pool, struct mpl_block *block, uint64_t index,
                             bool described)
{
    check_range(pool, index, 1);
    mpl_frames_own(pool, block);
    if (described)
        set_bits(&bits_at(block, index / MPL_WORD_PAGES)->described, bit_of(index));
    else
        clear_bits(&bits_at(block, index / MPL_WORD_PAGES)->described, bit_of(index));
}

void mpl_frame_describe(struct memplug *pool, struct mpl_block *block, uint64_t index,
                        enum mpl_page_state as, const struct memplug_alloc *request)
{
    mpl_frame_write(pool, block, mpl_pfn_add(mpl_block_start(pool, block), index), as, request);
    if (request->mover != 0)
        mpl_frame_set_described(pool, block, index, true);
}

uint64_t mpl_frames_free_near(const struct memplug *pool, const struct mpl_block *block,
                              uint64_t index)
{
    check_range(pool, index, 1);
    return *counter_at(pool, block, pageblock_of(pool, index));
}

bool mpl_frames_head_of(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t index, uint64_t *head)
{
    uint64_t word = index / MPL_WORD_PAGES;
    uint64_t below = mask_of(word, 0, index + 1);

    check_range(pool, index, 1);
    for (;;) {
        uint64_t free = load(&bits_at(block, word)->free) & below;
        uint64_t heads = load(&bits_at(block, word)->head) & below;

        if ((free | heads) != 0) {
            uint64_t last = (uint64_t)1 << (63 - MPL_CLZ64(free | heads));

            *head = word * MPL_WORD_PAGES + MPL_CTZ64(last);
            return (free & last) == 0;
        }
        if (word-- == 0)
            return false;
        below = WORD_FULL;
    }
}

bool mpl_frames_kept_at(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t index, uint64_t *head, uint64_t *end)
{
    const struct mpl_page *page;

    if (!mpl_frames_head_of(pool, block, index, head) || mpl_is_memmap(pool, block, *head) ||
        !mpl_frame_described(pool, block, *head))
        return false;
    page = mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), *head));
    if (mpl_page_state(page) != MPL_PAGE_KEPT)
        return false;
    *end = *head + page->nr_pages;
    return true;
}

/* Not 0: one of the frames [index, end) is no tail, or else not free. */
static uint64_t any_but(const struct mpl_block *block, uint64_t index,
                        uint64_t end, bool tails)
{
    const struct mpl_bits *bits = bits_at(block, 0);
    uint64_t word = index / MPL_WORD_PAGES, last = (end - 1) / MPL_WORD_PAGES, found = 0;
    uint64_t mask = mask_of(word, index, end);

    for (; word <= last; mask = ++word == last ? mask_of(word, index, end) : WORD_FULL) {
        uint64_t is_free = load(&bits[word].free), is_head = load(&bits[word].head);

        found |= (tails ? is_free | is_head : ~is_free | is_head) & mask;
    }
    return found;
}

static bool all_tails(const struct mpl_block *block, uint64_t index,
                      uint64_t end)
{
    return any_but(block, index, end, true) == 0;
}

bool mpl_frames_are_allocation(const struct memplug *pool, const struct mpl_block *block,
                               uint64_t index, uint64_t nr_pages)
{
    uint64_t end = index + nr_pages;

    check_range(pool, index, nr_pages);
    return !mpl_is_memmap(pool, block, index) &&
           mpl_frame_get(pool, block, index) == MPL_FRAME_HEAD && !mpl_poisoned(block, index) &&
           (nr_pages == 1 || all_tails(block, index + 1, end)) &&
           (end == pool->layout.nr_pages || mpl_frame_get(pool, block, end) != MPL_FRAME_TAIL);
}

bool mpl_frames_are_tail(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t nr_pages)
{
    check_range(pool, 0, nr_pages);
    return all_tails(block, 0, nr_pages) &&
           (nr_pages == pool->layout.nr_pages ||
            mpl_frame_get(pool, block, nr_pages) != MPL_FRAME_TAIL);
}

bool mpl_frames_all_free(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index, uint64_t nr_pages)
{
    uint64_t end = index + nr_pages, step = mpl_pageblock_pages(&pool->geometry);

    check_range(pool, index, nr_pages);
    for (uint64_t at = index & ~(step - 1); at < end; at += step)
        if (mpl_isolated(pool, block, at))
            return false;
    return any_but(block, index, end, false) == 0;
}

bool mpl_frames_are_data(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index, uint64_t nr_pages)
{
    check_range(pool, index, nr_pages);
    for (; index < block->nr_memmap_pages && nr_pages != 0; index++, nr_pages--)
        if (mpl_is_memmap(pool, block, index))
            return false;
    return true;
}

uint64_t mpl_frames_nr_used(const struct memplug *pool, const struct mpl_block *block,
                            uint64_t index, uint64_t nr_pages)
{
    uint64_t nr_used = 0, end = index + nr_pages;

    if (mpl_frames_untouched(pool, block) && index >= block->nr_memmap_pages)
        return 0;
    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++) {
        if (word % words_per_pageblock(pool) == 0 && all_free_near(pool, block, word)) {
            word += words_per_pageblock(pool) - 1;
            continue;
        }
        nr_used += MPL_POPCOUNT64(mask_of(word, index, end) & ~free_in(block, word) &
                                  ~mpl_poisoned_mask(block, word));
    }
    return nr_used;
}

uint64_t mpl_frames_nr_free(const struct memplug *pool, const struct mpl_block *block)
{
    uint64_t nr_free = 0;

    if (mpl_frames_untouched(pool, block))
        return mpl_block_data_pages(pool, block);
    for (uint64_t pageblock = 0; pageblock < pool->layout.nr_pageblocks; pageblock++)
        nr_free += *counter_at(pool, block, pageblock);
    return nr_free;
}

uint64_t mpl_frames_count(const struct memplug *pool, const struct mpl_block *block,
                          enum mpl_frame frame)
{
    uint64_t count = 0;

    for (uint64_t word = 0; word < pool->layout.nr_words; word++) {
        uint64_t free = load(&bits_at(block, word)->free);
        uint64_t head = load(&bits_at(block, word)->head);

        if ((frame & MPL_FRAME_FREE) == 0)
            free = ~free;
        if ((frame & MPL_FRAME_HEAD) == 0)
            head = ~head;
        count += MPL_POPCOUNT64(free & head);
    }
    return count;
}

/* --- changing --------------------------------------------------------------------------------- */

static void put_part(struct mpl_block *block, uint64_t word, uint64_t mask)
{
    struct mpl_bits *bits = bits_at(block, word);
    uint64_t head = load(&bits->head);

    MPL_ASSERT((load(&bits->free) & ~head & mask) == 0);
    set_bits(&bits->free, mask);
    if ((load(&bits->described) & mask) != 0)
        clear_bits(&bits->described, mask);
    store(&bits->head, head & ~mask);
}

/* Nobody else has a frame of words that are given back as a whole, so nobody changes them. */
static void put_words(struct mpl_block *block, uint64_t word, uint64_t end)
{
    uint64_t was_free = 0;

    for (struct mpl_bits *bits = bits_at(block, word); word < end; word++, bits++) {
        uint64_t free = __atomic_load_n(&bits->free, __ATOMIC_RELAXED);

        was_free |= free & ~__atomic_load_n(&bits->head, __ATOMIC_RELAXED);
        if (free != WORD_FULL)
            store(&bits->free, WORD_FULL);
        if (__atomic_load_n(&bits->described, __ATOMIC_RELAXED) != 0)
            store(&bits->described, 0);
        store(&bits->head, 0);
    }
    MPL_ASSERT(was_free == 0);
}

void mpl_frames_put(struct memplug *pool, struct mpl_block *block, uint64_t index,
                    uint64_t nr_pages)
{
    uint64_t end = index + nr_pages, word = index / MPL_WORD_PAGES;

    check_range(pool, index, nr_pages);
    MPL_ASSERT(index >= block->nr_memmap_pages || pool->layout.lent != 0);
    if (mpl_frames_put_first(pool, block, index, nr_pages))
        word = end;
    else
        mpl_frames_own(pool, block);
    while (word * MPL_WORD_PAGES < end) {
        uint64_t first = word, border = end_of_pageblock(pool, word);
        unsigned nr = 0;

        if (index <= first * MPL_WORD_PAGES && end >= border * MPL_WORD_PAGES) {
            word = border;
            put_words(block, first, border);
            nr = (unsigned)((border - first) * MPL_WORD_PAGES);
        }
        for (; word < border && word * MPL_WORD_PAGES < end; word++) {
            uint64_t mask = mask_of(word, index, end);

            put_part(block, word, mask);
            nr += MPL_POPCOUNT64(mask);
        }
        count(pool, block, first, word, nr, true);
    }
}

/* All of a pageblock, which was free: nobody else changes its words. */
static void use_words(struct mpl_block *block, uint64_t first, uint64_t end, bool headed)
{
    if (headed)
        store(&bits_at(block, first)->head, 1);
    while (end > first)
        store(&bits_at(block, --end)->free, 0);
}

static void use_word(struct mpl_block *block, uint64_t word, uint64_t mask, uint64_t head_bit)
{
    struct mpl_bits *bits = bits_at(block, word);

    if (head_bit != 0)
        store(&bits->head, load(&bits->head) | head_bit);
    if (mask == WORD_FULL)
        store(&bits->free, 0);
    else
        clear_bits(&bits->free, mask);
}

/* Free frames become tails, and the first a head unless it is a tail too. Last word first, so that
 * nobody sees a head without its tails. */
static void use(struct memplug *pool, struct mpl_block *block, uint64_t index, uint64_t nr_pages,
                bool headed)
{
    uint64_t end = index + nr_pages, first = index / MPL_WORD_PAGES;
    uint64_t word = (end - 1) / MPL_WORD_PAGES + 1;

    mpl_frames_own(pool, block);
    while (word > first) {
        uint64_t last = word, border = end_of_pageblock(pool, word - 1) - words_per_pageblock(pool);
        unsigned nr = 0;

        if (index <= border * MPL_WORD_PAGES &&
            end >= (border + words_per_pageblock(pool)) * MPL_WORD_PAGES) {
            word = border;
            nr = (unsigned)mpl_pageblock_pages(&pool->geometry);
            use_words(block, word, last, headed && word == first);
        }
        while (word > first && word > border) {
            uint64_t mask = mask_of(--word, index, end);

            use_word(block, word, mask, headed && word == first ? bit_of(index) : 0);
            nr += MPL_POPCOUNT64(mask);
        }
        count(pool, block, word, last, nr, false);
    }
}

bool mpl_frames_take(struct memplug *pool, struct mpl_block *block, uint64_t nr_pages,
                     uint64_t *index)
{
    if (!mpl_frames_find(pool, block, nr_pages, index))
        return false;
    use(pool, block, *index, nr_pages, true);
    return true;
}

bool mpl_frames_take_exact(struct memplug *pool, struct mpl_block *block, uint64_t index,
                           uint64_t nr_pages)
{
    if (!mpl_frames_all_free(pool, block, index, nr_pages))
        return false;
    use(pool, block, index, nr_pages, true);
    return true;
}

bool mpl_frames_take_tail(struct memplug *pool, struct mpl_block *block, uint64_t nr_pages)
{
    if (!mpl_frames_all_free(pool, block, 0, nr_pages))
        return false;
    use(pool, block, 0, nr_pages, false);
    return true;
}

void mpl_frames_take_isolated(struct memplug *pool, struct mpl_block *block, uint64_t index,
                              uint64_t nr_pages, bool headed)
{
    uint64_t end = index + nr_pages;

    check_range(pool, index, nr_pages);
    MPL_ASSERT(mpl_frames_first_used(block, index, end) == end);
    for (uint64_t at = index; at < end; at += MPL_WORD_PAGES)
        MPL_ASSERT(mpl_isolated(pool, block, at));
    MPL_ASSERT(mpl_isolated(pool, block, end - 1));
    use(pool, block, index, nr_pages, headed);
}

void mpl_frames_keep(struct memplug *pool, struct mpl_block *block, uint64_t index,
                     uint64_t nr_pages)
{
    uint64_t end = index + nr_pages;
    uint64_t word = (end - 1) / MPL_WORD_PAGES + 1;

    check_range(pool, index, nr_pages);
    mpl_frames_mark(block);
    mpl_frames_own(pool, block);
    MPL_ASSERT(index >= block->nr_memmap_pages || pool->layout.lent != 0);
    while (word-- > index / MPL_WORD_PAGES) {
        uint64_t mask = mask_of(word, index, end);
        uint64_t head = word == index / MPL_WORD_PAGES ? bit_of(index) : 0;
        struct mpl_bits *bits = bits_at(block, word);

        MPL_ASSERT((free_in(block, word) & mask) == 0);
        store(&bits->head, (load(&bits->head) & ~mask) | head);
        clear_bits(&bits->free, mask);
    }
}

/* --- slots ------------------------------------------------------------------------------------ */

bool mpl_frames_hold(struct memplug *pool, struct mpl_block *block, bool describe,
                     struct mpl_held *held)
{
    uint64_t index, word, mask;
    struct mpl_bits *bits;

    if (mpl_block_nr_free(block) == 0)
        return false;
    MPL_ASSERT(mpl_frames_find(pool, block, 1, &index));
    mpl_frames_own(pool, block);
    word = index / MPL_WORD_PAGES;
    bits = bits_at(block, word);
    mask = free_in(block, word);
    store(&bits->head, load(&bits->head) | mask);
    if (describe)
        set_bits(&bits->described, mask);
    count(pool, block, word, word + 1, MPL_POPCOUNT64(mask), false);
    mpl_held_set(pool, held, block, word, mask);
    return true;
}

void mpl_frames_unhold(struct memplug *pool, struct mpl_block *block, struct mpl_held *held)
{
    unsigned nr = MPL_POPCOUNT64(held->mask);

    MPL_ASSERT(held->block == mpl_block_id(pool, block) && held->word < pool->layout.nr_words);
    unhold_bits(held);
    if (!count_plainly(pool, mpl_zone_of(pool, block), block, held->word, nr))
        count(pool, block, held->word, held->word + 1, nr, true);
    held->mask = 0;
}
