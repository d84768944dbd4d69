/* SPDX-License-Identifier: MIT */
/*
 * A pageblock that is one allocation, the commonest of those with several frames. Nobody else has a
 * frame of its words, so each of them is written at once. One that is freed stays in the slot, for
 * whoever asks for one next: only its first frame's bit changes, as that of a single frame does,
 * and what is said of those in fast.h holds here too. The others remain tails.
 */
#include "whole.h"

#include "lent.h"
#include "words.h"

#define FIRST ((uint64_t)1) /* the bit of its first frame */

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

/* A bad frame has no tails. */
static MPL_ALWAYS_INLINE bool is_whole(const struct memplug *pool, const struct mpl_block *block,
                                       uint64_t index)
{
    uint64_t end = index + mpl_pageblock_pages(&pool->geometry), not_tail;
    const struct mpl_bits *bits = bits_at(block, index / MPL_WORD_PAGES);
    const struct mpl_bits *behind = bits + words_per_pageblock(pool);

    if (MPL_UNLIKELY(end == pool->layout.nr_pages || mpl_is_memmap(pool, block, index) ||
                     ((load(&behind->free) | load(&behind->head)) & 1) == 0))
        return false;
    for (not_tail = load(&bits->free) | (load(&bits->head) ^ FIRST); ++bits != behind;)
        not_tail |= load(&bits->free) | load(&bits->head);
    return not_tail == 0;
}

bool mpl_whole_is(const struct memplug *pool, const struct mpl_block *block, uint64_t index)
{
    return is_whole(pool, block, index);
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
    MPL_ASSERT((load(&held->bits->free) & load(&held->bits->head)) == FIRST);
    mpl_whole_put(pool, block, (uint64_t)held->word * MPL_WORD_PAGES);
    held->mask = 0;
}

/* --- in a slot -------------------------------------------------------------------------------- */

/* Its user had a mover, or none: another one may not have it, since it depends on that which zone
 * it comes from. */
static struct mpl_held *at_hand(struct mpl_slot *slot, bool described)
{
    return &slot->held[MPL_HELD_WHOLE + (described ? MPL_HELD_MOVABLE : MPL_HELD_KERNEL)];
}

bool mpl_whole_use(struct memplug *pool, struct mpl_slot *slot,
                   const struct memplug_alloc *request, memplug_pfn_t *pfn)
{
    struct mpl_held *held = at_hand(slot, request->mover != 0);

    if (!mpl_held_fits(pool, held, request))
        return false;
    *pfn = mpl_pfn(held->first);
    mpl_frame_write(pool, mpl_block_at(pool, held->block), *pfn, MPL_PAGE_USED, request);
    MPL_ASSERT((load(&held->bits->free) & load(&held->bits->head)) == FIRST);
    clear_bits(&held->bits->free, FIRST);
    held->mask = 0;
    return true;
}

static inline void keep(struct memplug *pool, struct mpl_slot *slot, const struct mpl_block *block,
                 uint64_t index)
{
    struct mpl_held *held = at_hand(slot, is_described(block, index));

    if (MPL_UNLIKELY(held->mask != 0))
        mpl_slot_put_whole(pool, held);
    mpl_held_set(pool, held, block, index / MPL_WORD_PAGES, FIRST);
}

/* The mark is new: its page may have to stay as it is. */
static int keep_marked(struct memplug *pool, struct mpl_slot *slot, const struct mpl_block *block,
                       memplug_pfn_t pfn)
{
    struct mpl_held one = {.block = (uint32_t)mpl_block_id(pool, block)};
    int error = mpl_held_look(pool, &one, pfn);

    if (one.mask != 0)
        keep(pool, slot, block, mpl_pfn_distance(mpl_block_start(pool, block), pfn));
    return error;
}

int mpl_whole_give(struct memplug *pool, struct mpl_slot *slot, memplug_pfn_t pfn)
{
    uint64_t index;
    struct mpl_block *block = find_block(pool, pfn, &index);

    if (block == NULL || mpl_isolated(pool, block, index) || mpl_is_marked(block) ||
        !is_whole(pool, block, index))
        return MPL_LONG_WAY;
    /* Before the mark is looked at again: see mpl_frame_is_used(). */
    if ((__atomic_fetch_or(&bits_at(block, index / MPL_WORD_PAGES)->free, FIRST,
                           __ATOMIC_SEQ_CST) & FIRST) != 0)
        return -MPL_EINVAL;
    if (MPL_UNLIKELY(mpl_is_marked(block)))
        return keep_marked(pool, slot, block, pfn);
    keep(pool, slot, block, index);
    return 0;
}
