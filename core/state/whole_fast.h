/* SPDX-License-Identifier: MIT */
/*
 * The short way of pageblocks that are one allocation, compiled into the calls. One that is freed
 * stays in the slot, for whoever asks for one next: only its first frame's bit changes, as that of
 * a single frame does, and what is said of those in fast.h holds here too. The others stay tails.
 */
#ifndef MPL_WHOLE_FAST_H
#define MPL_WHOLE_FAST_H

#include "lent.h"
#include "whole.h"
#include "words.h"

#define MPL_WHOLE_FIRST ((uint64_t)1) /* the bit of its first frame */

/* Surely exactly this pageblock, an allocation, or one whose first frame is held? A bad frame has
 * no tails. */
static inline bool mpl_whole_is(const struct memplug *pool, const struct mpl_block *block,
                                uint64_t index, bool held)
{
    uint64_t end = index + mpl_pageblock_pages(&pool->geometry), not_tail;
    const struct mpl_bits *bits = bits_at(block, index / MPL_WORD_PAGES);
    const struct mpl_bits *behind = bits + words_per_pageblock(pool);

    if (MPL_UNLIKELY(end == pool->layout.nr_pages || mpl_is_memmap(pool, block, index) ||
                     ((load(&behind->free) | load(&behind->head)) & 1) == 0))
        return false;
    not_tail = (load(&bits->free) ^ (held ? MPL_WHOLE_FIRST : 0)) |
               (load(&bits->head) ^ MPL_WHOLE_FIRST);
    while (++bits != behind)
        not_tail |= load(&bits->free) | load(&bits->head);
    return not_tail == 0;
}

/* Its user had a mover, or none: another one may not have it, since it depends on that which zone
 * it comes from. */
static inline struct mpl_held *mpl_whole_at_hand(struct mpl_slot *slot, bool described)
{
    return &slot->held[MPL_HELD_WHOLE + (described ? MPL_HELD_MOVABLE : MPL_HELD_KERNEL)];
}

/* What the slot holds is the caller's. False: it has none that would do. */
static inline bool mpl_whole_use(struct memplug *pool, struct mpl_slot *slot,
                                 const struct memplug_alloc *request, memplug_pfn_t *pfn)
{
    struct mpl_held *held = mpl_whole_at_hand(slot, request->mover != 0);

    if (!mpl_held_fits(pool, held, request))
        return false;
    *pfn = mpl_pfn(held->first);
    mpl_frame_write(pool, &pool->blocks[held->block], *pfn, MPL_PAGE_USED, request);
    MPL_ASSERT((load(&held->bits->free) & load(&held->bits->head)) == MPL_WHOLE_FIRST);
    clear_bits(&held->bits->free, MPL_WHOLE_FIRST);
    held->mask = 0;
    return true;
}

/* It is the caller's; the one that the slot has makes room. */
static inline void mpl_whole_keep(struct memplug *pool, struct mpl_slot *slot,
                                  const struct mpl_block *block, memplug_pfn_t pfn)
{
    uint64_t index = mpl_pfn_distance(mpl_block_start(pool, block), pfn);
    struct mpl_held *held = mpl_whole_at_hand(slot, is_described(block, index));

    if (MPL_UNLIKELY(held->mask != 0))
        mpl_slot_put_whole(pool, held);
    mpl_held_set(pool, held, block, index / MPL_WORD_PAGES, MPL_WHOLE_FIRST);
}

/* What is an allocation of a whole pageblock becomes held. MPL_LONG_WAY: it is none, or has to be
 * looked at more closely; nothing was done. */
static inline int mpl_whole_give(struct memplug *pool, struct mpl_slot *slot, memplug_pfn_t pfn)
{
    uint64_t index;
    struct mpl_block *block = find_block(pool, pfn, &index);
    uint64_t *free;

    if (block == NULL || mpl_isolated(pool, block, index) || mpl_is_marked(block) ||
        !mpl_whole_is(pool, block, index, false))
        return MPL_LONG_WAY;
    free = &bits_at(block, index / MPL_WORD_PAGES)->free;
    /* Before the mark is looked at again: see mpl_frame_is_used(). */
    if ((__atomic_fetch_or(free, MPL_WHOLE_FIRST, __ATOMIC_SEQ_CST) & MPL_WHOLE_FIRST) != 0)
        return -MPL_EINVAL;
    /* By another free, which came first, it may be of another owner by now, and of another size. */
    if (MPL_UNLIKELY(mpl_is_marked(block) || !mpl_whole_is(pool, block, index, true))) {
        clear_bits(free, MPL_WHOLE_FIRST);
        return MPL_LONG_WAY;
    }
    mpl_whole_keep(pool, slot, block, pfn);
    return 0;
}

#endif
