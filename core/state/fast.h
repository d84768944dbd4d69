/* SPDX-License-Identifier: MIT */
/*
 * The short way of single pages, compiled into the calls: a frame of a word that the slot has at
 * hand, whose addresses it remembers. What is not plain there goes the long way, through percpu.c.
 */
#ifndef MPL_FAST_H
#define MPL_FAST_H

#include "state.h"

/* --- the long way ----------------------------------------------------------------------------- */

/* As mpl_percpu_alloc(), USED, and mpl_percpu_free(); the caller is in the slot, and is not
 * afterwards. */
int mpl_percpu_alloc_inside(struct memplug *pool, struct mpl_slot *slot, struct mpl_slot *own,
                            const struct memplug_alloc *request, memplug_pfn_t *pfn);
int mpl_percpu_free_inside(struct memplug *pool, struct mpl_slot *slot, struct mpl_slot *own,
                           memplug_pfn_t pfn);
/* A frame that was just taken from its word's users, and the mark is new: it becomes held, or goes
 * back to its owner. */
int mpl_held_look(struct memplug *pool, struct mpl_held *held, memplug_pfn_t pfn);

/* --- inside a slot ---------------------------------------------------------------------------- */

/* Busy before stop is looked at, as whoever stops it does the reverse: see core/slot.h. */
static inline bool mpl_slot_try(struct mpl_slot *own)
{
    if (MPL_LIKELY(own->fenced)) {
        atomic_store_explicit(&own->busy, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
    } else {
        atomic_exchange_explicit(&own->busy, 1, memory_order_seq_cst);
    }
    if (MPL_LIKELY(atomic_load_explicit(&own->stop, memory_order_seq_cst) == 0))
        return true;
    atomic_store_explicit(&own->busy, 0, memory_order_release);
    return false;
}

/* This CPU's slot, locked. */
static inline struct mpl_slot *mpl_percpu_lock(struct memplug *pool)
{
    unsigned cpu = pool->host->ops->cpu(pool->host->context);
    struct mpl_slot *slot;

    if (MPL_UNLIKELY(cpu >= pool->nr_slots))
        cpu %= pool->nr_slots;
    slot = &pool->slots[cpu];
    mpl_spin_lock(pool, &slot->lock);
    return slot;
}

static inline void mpl_percpu_unlock(struct mpl_slot *slot)
{
    mpl_spin_unlock(&slot->lock);
}

/* A slot of the caller's own; or, if that is null, this CPU's. */
static inline struct mpl_slot *mpl_slot_enter(struct memplug *pool, struct mpl_slot *own)
{
    if (own == NULL)
        return mpl_percpu_lock(pool);
    own->inside = mpl_slot_try(own);
    if (MPL_UNLIKELY(!own->inside))
        mpl_spin_lock(pool, &own->lock);
    return own;
}

static inline void mpl_slot_leave(struct mpl_slot *slot, const struct mpl_slot *own)
{
    if (own != NULL && slot->inside)
        atomic_store_explicit(&slot->busy, 0, memory_order_release);
    else
        mpl_spin_unlock(&slot->lock);
}

/* --- words at hand ---------------------------------------------------------------------------- */

static inline void mpl_held_set(const struct memplug *pool, struct mpl_held *held,
                                const struct mpl_block *block, uint64_t word, uint64_t mask)
{
    held->mask = mask;
    held->block = (uint32_t)mpl_block_id(pool, block);
    held->word = (uint32_t)word;
    held->first = mpl_block_start(pool, block).nr + word * MPL_WORD_PAGES;
    held->bits = mpl_bits_at(block, word);
}

/* One frame of them. Its page first, and then the step that makes it the caller's. */
static inline memplug_pfn_t mpl_held_take(struct memplug *pool, struct mpl_held *held,
                                          const struct memplug_alloc *request,
                                          enum mpl_page_state as)
{
    uint64_t bit = held->mask & -held->mask;
    memplug_pfn_t pfn = mpl_pfn(held->first + MPL_CTZ64(held->mask));
    struct mpl_bits *bits = held->bits;
    bool is_described = (__atomic_load_n(&bits->described, __ATOMIC_RELAXED) & bit) != 0;

    if (request->mover != 0) {
        if (MPL_UNLIKELY(request->pinned || as != MPL_PAGE_USED))
            mpl_frames_mark(&pool->blocks[held->block]);
        mpl_page_write(mpl_page_at(pool, pfn),
                       (uint32_t)as + (request->pinned && as == MPL_PAGE_USED ? MPL_PAGE_PIN : 0),
                       1, request->mover, 0, request->cookie);
    }
    if (MPL_UNLIKELY(is_described != (request->mover != 0))) /* as its last owner left it */
        __atomic_fetch_xor(&bits->described, bit, __ATOMIC_ACQ_REL);
    MPL_ASSERT((__atomic_load_n(&bits->head, __ATOMIC_RELAXED) &
                __atomic_load_n(&bits->free, __ATOMIC_RELAXED) & bit) != 0);
    __atomic_fetch_and(&bits->free, ~bit, __ATOMIC_ACQ_REL);
    held->mask -= bit;
    return pfn;
}

/* --- allocate --------------------------------------------------------------------------------- */

static inline enum mpl_held_kind mpl_kind_of(const struct memplug_alloc *request)
{
    return request->mover != 0 ? MPL_HELD_MOVABLE : MPL_HELD_KERNEL;
}

static inline bool mpl_held_fits(const struct memplug *pool, const struct mpl_held *held,
                                 const struct memplug_alloc *request)
{
    return held->mask != 0 && (request->node == MEMPLUG_ANY_NODE ||
                               pool->blocks[held->block].node == request->node);
}

static inline int mpl_fast_alloc(struct memplug *pool, struct mpl_slot *own,
                                 const struct memplug_alloc *request, memplug_pfn_t *pfn)
{
    struct mpl_slot *slot = own;
    struct mpl_held *held;

    if (own == NULL)
        slot = mpl_percpu_lock(pool);
    else if (MPL_UNLIKELY(!mpl_slot_try(own)))
        return mpl_percpu_alloc(pool, own, request, MPL_PAGE_USED, pfn);
    held = &slot->held[mpl_kind_of(request)];
    if (MPL_UNLIKELY(!mpl_held_fits(pool, held, request)))
        return mpl_percpu_alloc_inside(pool, slot, own, request, pfn);
    *pfn = mpl_held_take(pool, held, request, MPL_PAGE_USED);
    if (own == NULL)
        mpl_percpu_unlock(slot);
    else
        atomic_store_explicit(&own->busy, 0, memory_order_release);
    return 0;
}

/* --- free ------------------------------------------------------------------------------------- */

/* What a free of a single page has to know of its struct page: unless it lies in a marked block,
 * or an isolated pageblock, nothing. Before the page becomes anything but USED without pins. */
static inline bool mpl_is_marked(const struct mpl_block *block)
{
    return __atomic_load_n(&block->marked, __ATOMIC_SEQ_CST);
}

/* Is the frame used, and an allocation of its own? By the bits of its word. True only if it is so;
 * a no may be wrong while its neighbour changes, whose two bits are then seen at two moments, and
 * at the end of a word, where there is no neighbour. */
static inline bool mpl_is_single_in(const struct mpl_block *block, uint64_t free, uint64_t head,
                                    uint64_t bit)
{
    /* The bad frames' bitmap last: it is there before one of them looks used. */
    return (head & ~free & bit) != 0 && ((free | head) & bit << 1) != 0 &&
           __atomic_load_n(&block->poisoned, __ATOMIC_ACQUIRE) == NULL;
}

/* The word at hand that the frame lies in; null: none of the first three. */
static inline struct mpl_held *mpl_held_around(struct mpl_slot *slot, memplug_pfn_t pfn)
{
    for (unsigned kind = MPL_NR_KINDS; kind-- > 0;)
        if (pfn.nr - slot->held[kind].first < MPL_WORD_PAGES && slot->held[kind].mask != 0)
            return &slot->held[kind];
    return NULL;
}

#define MPL_LONG_WAY 1 /* nothing was done */

/*
 * A used frame of a word at hand becomes held with the others. As long as there are others, the
 * block is in its zone; and its pageblock was not isolated when the slot was passed last, so that
 * whoever isolates it now waits for this to end.
 */
static inline int mpl_held_give(struct memplug *pool, struct mpl_held *held, memplug_pfn_t pfn)
{
    const struct mpl_block *block = &pool->blocks[held->block];
    uint64_t nr = pfn.nr - held->first, bit = (uint64_t)1 << nr;
    uint64_t free = __atomic_load_n(&held->bits->free, __ATOMIC_ACQUIRE);
    uint64_t head = __atomic_load_n(&held->bits->head, __ATOMIC_ACQUIRE);

    if (MPL_UNLIKELY((uint64_t)held->word * MPL_WORD_PAGES + nr < block->nr_memmap_pages ||
                     !mpl_is_single_in(block, free, head, bit) || mpl_is_marked(block)))
        return MPL_LONG_WAY;
    /* Before the mark is looked at again: see mpl_frame_is_used(). */
    if (MPL_UNLIKELY((__atomic_fetch_or(&held->bits->free, bit, __ATOMIC_SEQ_CST) & bit) != 0))
        return -MPL_EINVAL;
    if (MPL_UNLIKELY(mpl_is_marked(block)))
        return mpl_held_look(pool, held, pfn);
    held->mask |= bit;
    return 0;
}

static inline int mpl_fast_free(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn)
{
    struct mpl_slot *slot = own;
    struct mpl_held *held;
    int error = MPL_LONG_WAY;

    if (own == NULL)
        slot = mpl_percpu_lock(pool);
    else if (MPL_UNLIKELY(!mpl_slot_try(own)))
        return mpl_percpu_free(pool, own, pfn);
    held = mpl_held_around(slot, pfn);
    if (MPL_LIKELY(held != NULL))
        error = mpl_held_give(pool, held, pfn);
    if (MPL_UNLIKELY(error == MPL_LONG_WAY))
        return mpl_percpu_free_inside(pool, slot, own, pfn);
    if (own == NULL)
        mpl_percpu_unlock(slot);
    else
        atomic_store_explicit(&own->busy, 0, memory_order_release);
    return error;
}

#endif
