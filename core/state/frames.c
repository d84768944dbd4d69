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
#include "words.h"

/* --- counters --------------------------------------------------------------------------------- */

static void note_word(struct memplug *pool, struct mpl_block *block, uint64_t word)
{
    uint64_t mask = (uint64_t)1 << (word % 64);

    if (free_in(pool, block, word) != 0 && !mpl_isolated(pool, block, word * MPL_WORD_PAGES))
        set_bits(block, pool->layout.summary, word / 64, mask);
    else
        clear_bits(block, pool->layout.summary, word / 64, mask);
}

/* Isolation of the pageblock changed. */
void mpl_frames_note(struct memplug *pool, struct mpl_block *block, uint64_t pageblock)
{
    uint64_t nr_words = mpl_pageblock_pages(&pool->geometry) / MPL_WORD_PAGES;

    for (uint64_t word = pageblock * nr_words; word < (pageblock + 1) * nr_words; word++)
        note_word(pool, block, word);
}

static void count_put(struct memplug *pool, struct mpl_block *block, uint64_t word, unsigned nr)
{
    uint64_t index = word * MPL_WORD_PAGES;
    uint16_t *counter = counter_at(pool, block, pageblock_of(pool, index));

    MPL_ASSERT(*counter + nr <= mpl_pageblock_pages(&pool->geometry));
    *counter = (uint16_t)(*counter + nr);
    if (!mpl_isolated(pool, block, index))
        block->nr_free += nr;
    mpl_zone_of(pool, block)->nr_free += nr;
    note_word(pool, block, word);
}

static void count_take(struct memplug *pool, struct mpl_block *block, uint64_t word, unsigned nr)
{
    uint64_t index = word * MPL_WORD_PAGES;
    uint16_t *counter = counter_at(pool, block, pageblock_of(pool, index));
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    MPL_ASSERT(*counter >= nr && zone->nr_free >= nr);
    *counter = (uint16_t)(*counter - nr);
    if (!mpl_isolated(pool, block, index)) {
        MPL_ASSERT(block->nr_free >= nr);
        block->nr_free -= nr;
    }
    zone->nr_free -= nr;
    note_word(pool, block, word);
}

/* --- layout ----------------------------------------------------------------------------------- */

void mpl_layout_set(struct mpl_layout *layout, const struct memplug_geometry *geometry)
{
    uint64_t at = 0;

    layout->nr_pages = mpl_block_pages(geometry);
    layout->nr_words = layout->nr_pages / MPL_WORD_PAGES;
    layout->nr_pageblocks = layout->nr_pages >> geometry->pageblock_order;
    MPL_ASSERT(layout->nr_pageblocks != 0 && mpl_pageblock_pages(geometry) >= MPL_WORD_PAGES);
    layout->free = at;
    at += layout->nr_words * sizeof(uint64_t);
    layout->head = at;
    at += layout->nr_words * sizeof(uint64_t);
    layout->described = at;
    at += layout->nr_words * sizeof(uint64_t);
    layout->summary = at;
    at += mpl_round_up(layout->nr_words, 64) / 8;
    layout->isolated = at;
    at += mpl_round_up(layout->nr_pageblocks, 64) / 8;
    layout->nr_free = at;
    at += layout->nr_pageblocks * sizeof(uint16_t);
    layout->nr_isolations = at;
    at += layout->nr_pageblocks * sizeof(uint16_t);
    layout->lent = 0;
    layout->bytes = mpl_round_up(at, MPL_CACHE_LINE);
}

void mpl_frames_reset(struct memplug *pool, struct mpl_block *block)
{
    const struct mpl_layout *layout = &pool->layout;
    uint64_t nr_memmap = block->nr_memmap_pages;

    MPL_ASSERT(block->bitmaps != NULL && nr_memmap <= layout->nr_pages);
    MPL_FILL(block->bitmaps, 0xff, layout->described);
    MPL_FILL(block->bitmaps + layout->described, 0, layout->bytes - layout->described);
    for (uint64_t word = 0; word * MPL_WORD_PAGES < nr_memmap; word++) {
        uint64_t mask = mask_of(word, 0, nr_memmap);

        if (layout->lent == 0)
            clear_bits(block, layout->head, word, word == 0 ? mask & ~(uint64_t)1 : mask);
        clear_bits(block, layout->free, word, mask);
    }
    block->nr_free = 0;
    block->nr_managed = 0;
    block->nr_isolated = 0;
}

static uint8_t zone_kind(const struct mpl_block *block)
{
    return __atomic_load_n(&block->zone, __ATOMIC_ACQUIRE);
}

struct mpl_block *mpl_frames_block(const struct memplug *pool, memplug_pfn_t pfn, uint64_t *index)
{
    uint64_t id = mpl_block_of_pfn(&pool->geometry, pfn);
    struct mpl_block *block;
    enum memplug_block_state state;

    if (id >= pool->nr_blocks_max)
        return NULL;
    block = mpl_block_at(pool, id);
    state = mpl_block_state(block);
    if (state != MEMPLUG_BLOCK_GOING_ONLINE && state != MEMPLUG_BLOCK_ONLINE &&
        state != MEMPLUG_BLOCK_GOING_OFFLINE)
        return NULL;
    if (zone_kind(block) >= MEMPLUG_NR_ZONES)
        return NULL;
    *index = mpl_pfn_distance(mpl_block_start(pool, block), pfn);
    return block;
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
    uint64_t word = index / MPL_WORD_PAGES, bit = bit_of(index);
    unsigned free, head;

    check_range(pool, index, 1);
    free = (load(block, pool->layout.free, word) & bit) != 0;
    head = (load(block, pool->layout.head, word) & bit) != 0;
    return (enum mpl_frame)(free * 2 + head);
}

bool mpl_frame_described(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index)
{
    check_range(pool, index, 1);
    return (load(block, pool->layout.described, index / MPL_WORD_PAGES) & bit_of(index)) != 0;
}

void mpl_frame_set_described(struct memplug *pool, struct mpl_block *block, uint64_t index,
                             bool described)
{
    check_range(pool, index, 1);
    if (described)
        set_bits(block, pool->layout.described, index / MPL_WORD_PAGES, bit_of(index));
    else
        clear_bits(block, pool->layout.described, index / MPL_WORD_PAGES, bit_of(index));
}

void mpl_frame_describe(struct memplug *pool, struct mpl_block *block, uint64_t index,
                        enum mpl_page_state as, const struct memplug_alloc *request)
{
    struct mpl_page *page;

    if (request->mover == 0)
        return;
    page = mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), index));
    mpl_page_describe(page, as, request->nr_pages, request->mover, request->cookie);
    if (request->align_pages != 0)
        MPL_PUT(page->align_order, (uint8_t)MPL_CTZ64(request->align_pages));
    if (request->pinned && as == MPL_PAGE_USED)
        MPL_ASSERT(mpl_page_pin(page) == 0);
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
        uint64_t free = load(block, pool->layout.free, word) & below;
        uint64_t heads = load(block, pool->layout.head, word) & below;

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

static bool all_tails(const struct memplug *pool, const struct mpl_block *block, uint64_t index,
                      uint64_t end)
{
    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++) {
        uint64_t free = load(block, pool->layout.free, word);
        uint64_t head = load(block, pool->layout.head, word);

        if (((free | head) & mask_of(word, index, end)) != 0)
            return false;
    }
    return true;
}

bool mpl_frames_are_allocation(const struct memplug *pool, const struct mpl_block *block,
                               uint64_t index, uint64_t nr_pages)
{
    uint64_t end = index + nr_pages;

    check_range(pool, index, nr_pages);
    return !mpl_is_memmap(pool, block, index) &&
           mpl_frame_get(pool, block, index) == MPL_FRAME_HEAD && !mpl_poisoned(block, index) &&
           (nr_pages == 1 || all_tails(pool, block, index + 1, end)) &&
           (end == pool->layout.nr_pages || mpl_frame_get(pool, block, end) != MPL_FRAME_TAIL);
}

bool mpl_frames_are_tail(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t nr_pages)
{
    check_range(pool, 0, nr_pages);
    return all_tails(pool, block, 0, nr_pages) &&
           (nr_pages == pool->layout.nr_pages ||
            mpl_frame_get(pool, block, nr_pages) != MPL_FRAME_TAIL);
}

bool mpl_frames_all_free(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index, uint64_t nr_pages)
{
    uint64_t end = index + nr_pages;

    check_range(pool, index, nr_pages);
    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++)
        if ((mask_of(word, index, end) & ~free_in(pool, block, word)) != 0 ||
            mpl_isolated(pool, block, word * MPL_WORD_PAGES))
            return false;
    return true;
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

uint64_t mpl_frames_first_used(const struct memplug *pool, const struct mpl_block *block,
                               uint64_t index, uint64_t end)
{
    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++) {
        uint64_t used = mask_of(word, index, end) & ~free_in(pool, block, word);

        if (used != 0)
            return word * MPL_WORD_PAGES + MPL_CTZ64(used);
    }
    return end;
}

bool mpl_frames_next_head(const struct memplug *pool, const struct mpl_block *block,
                          uint64_t *index)
{
    uint64_t from = *index;

    if (pool->layout.lent == 0 && from < block->nr_memmap_pages)
        from = block->nr_memmap_pages;

    for (uint64_t word = from / MPL_WORD_PAGES; word < pool->layout.nr_words; word++) {
        uint64_t heads = load(block, pool->layout.head, word);

        heads &= ~load(block, pool->layout.free, word) & mask_of(word, from, pool->layout.nr_pages);
        heads &= ~mpl_poisoned_mask(block, word) & ~mpl_memmap_mask(pool, block, word);
        if (heads != 0) {
            *index = word * MPL_WORD_PAGES + MPL_CTZ64(heads);
            return true;
        }
    }
    return false;
}

uint64_t mpl_frames_nr_used(const struct memplug *pool, const struct mpl_block *block,
                            uint64_t index, uint64_t nr_pages)
{
    uint64_t nr_used = 0, end = index + nr_pages;

    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++)
        nr_used += MPL_POPCOUNT64(mask_of(word, index, end) & ~free_in(pool, block, word) &
                                  ~mpl_poisoned_mask(block, word));
    return nr_used;
}

uint64_t mpl_frames_count(const struct memplug *pool, const struct mpl_block *block,
                          enum mpl_frame frame)
{
    uint64_t count = 0;

    for (uint64_t word = 0; word < pool->layout.nr_words; word++) {
        uint64_t free = load(block, pool->layout.free, word);
        uint64_t head = load(block, pool->layout.head, word);

        if ((frame & MPL_FRAME_FREE) == 0)
            free = ~free;
        if ((frame & MPL_FRAME_HEAD) == 0)
            head = ~head;
        count += MPL_POPCOUNT64(free & head);
    }
    return count;
}

/* --- changing --------------------------------------------------------------------------------- */

void mpl_frames_put(struct memplug *pool, struct mpl_block *block, uint64_t index,
                    uint64_t nr_pages)
{
    uint64_t end = index + nr_pages;

    check_range(pool, index, nr_pages);
    MPL_ASSERT(index >= block->nr_memmap_pages || pool->layout.lent != 0);
    for (uint64_t word = index / MPL_WORD_PAGES; word * MPL_WORD_PAGES < end; word++) {
        uint64_t mask = mask_of(word, index, end);

        MPL_ASSERT((free_in(pool, block, word) & mask) == 0);
        set_bits(block, pool->layout.free, word, mask);
        clear_bits(block, pool->layout.described, word, mask);
        clear_bits(block, pool->layout.head, word, mask);
        count_put(pool, block, word, MPL_POPCOUNT64(mask));
    }
    mpl_zone_note_free(pool, block);
}

/* Free frames become tails, and the first a head unless it is a tail too. Last word first, so that
 * nobody sees a head without its tails. */
static void use(struct memplug *pool, struct mpl_block *block, uint64_t index, uint64_t nr_pages,
                bool headed)
{
    uint64_t end = index + nr_pages;
    uint64_t word = (end - 1) / MPL_WORD_PAGES + 1;

    while (word-- > index / MPL_WORD_PAGES) {
        uint64_t mask = mask_of(word, index, end);

        if (headed && word == index / MPL_WORD_PAGES)
            set_bits(block, pool->layout.head, word, bit_of(index));
        clear_bits(block, pool->layout.free, word, mask);
        count_take(pool, block, word, MPL_POPCOUNT64(mask));
    }
    mpl_zone_note_free(pool, block);
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
    MPL_ASSERT(mpl_frames_first_used(pool, block, index, end) == end);
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
    MPL_ASSERT(index >= block->nr_memmap_pages || pool->layout.lent != 0);
    while (word-- > index / MPL_WORD_PAGES) {
        uint64_t mask = mask_of(word, index, end);
        uint64_t head = word == index / MPL_WORD_PAGES ? bit_of(index) : 0;

        MPL_ASSERT((free_in(pool, block, word) & mask) == 0);
        set_bits(block, pool->layout.head, word, head);
        clear_bits(block, pool->layout.head, word, mask & ~head);
        clear_bits(block, pool->layout.free, word, mask);
    }
}

/* --- slots ------------------------------------------------------------------------------------ */

bool mpl_frames_hold(struct memplug *pool, struct mpl_block *block, struct mpl_held *held)
{
    uint64_t index, word, mask;

    if (block->nr_free == 0)
        return false;
    MPL_ASSERT(mpl_frames_find(pool, block, 1, &index));
    word = index / MPL_WORD_PAGES;
    mask = free_in(pool, block, word);
    set_bits(block, pool->layout.head, word, mask);
    count_take(pool, block, word, MPL_POPCOUNT64(mask));
    mpl_zone_note_free(pool, block);
    *held = (struct mpl_held){
        .mask = mask,
        .block = (uint32_t)mpl_block_id(pool, block),
        .word = (uint32_t)word,
    };
    return true;
}

void mpl_frames_unhold(struct memplug *pool, struct mpl_block *block, struct mpl_held *held)
{
    const struct mpl_layout *layout = &pool->layout;

    MPL_ASSERT(held->block == mpl_block_id(pool, block) && held->word < layout->nr_words);
    MPL_ASSERT((load(block, layout->free, held->word) & load(block, layout->head, held->word) &
                held->mask) == held->mask);
    clear_bits(block, layout->head, held->word, held->mask);
    count_put(pool, block, held->word, MPL_POPCOUNT64(held->mask));
    mpl_zone_note_free(pool, block);
    held->mask = 0;
}

void mpl_frame_use_held(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    uint64_t word = index / MPL_WORD_PAGES;

    MPL_ASSERT((load(block, pool->layout.head, word) & bit_of(index)) != 0);
    MPL_ASSERT((clear_bits(block, pool->layout.free, word, bit_of(index)) & bit_of(index)) != 0);
}

bool mpl_frame_give_held(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    uint64_t word = index / MPL_WORD_PAGES;

    if (mpl_frame_get(pool, block, index) != MPL_FRAME_HEAD)
        return false;
    return (set_bits(block, pool->layout.free, word, bit_of(index)) & bit_of(index)) == 0;
}
