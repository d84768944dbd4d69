/* SPDX-License-Identifier: MIT */
/*
 * A slot holds about a word's worth of frames of each kind, and of freed ones, in one word or in
 * several. Inside the slot a frame of these changes hands by one atomic step on its bitmap; the
 * zone's lock is taken once a word's worth. What a slot holds never lies in a pageblock that was
 * isolated before the last pass. Frames for movable use are described as long as they are held:
 * that means nothing then, and spares a step on each.
 */
#include "whole.h"
#include "words.h"

/* --- inside a slot ---------------------------------------------------------------------------- */

static void fence(const struct memplug *pool)
{
    if (pool->host->ops->fence != NULL)
        pool->host->ops->fence(pool->host->context);
}

/* Its owner was asked to stop, and a fence was passed: from here on he takes the lock. */
static void lock_stopped(const struct memplug *pool, struct mpl_slot *slot)
{
    unsigned nr_spins = 0;

    mpl_spin_lock(pool, &slot->lock);
    while (atomic_load_explicit(&slot->busy, memory_order_seq_cst) != 0)
        pool->host->ops->relax(pool->host->context, nr_spins++);
}

static void ask_to_stop(struct mpl_slot *slot)
{
    atomic_fetch_add_explicit(&slot->stop, 1, memory_order_seq_cst);
}

void mpl_slot_stop(const struct memplug *pool, struct mpl_slot *slot)
{
    ask_to_stop(slot);
    if (slot >= pool->slots + pool->nr_slots) /* of a CPU's the lock is all */
        fence(pool);
    lock_stopped(pool, slot);
}

void mpl_slot_start(struct mpl_slot *slot)
{
    atomic_fetch_sub_explicit(&slot->stop, 1, memory_order_release);
    mpl_spin_unlock(&slot->lock);
}

static struct mpl_held *waiting(struct mpl_slot *slot, unsigned kind)
{
    return &slot->held[MPL_NR_KINDS + kind * MPL_NR_WAITING];
}

/* In runs of one zone, whose lock is taken once for each. all: or else those that are isolated.
 * False: there were none. */
static inline bool give_back_as(struct memplug *pool, struct mpl_held *held, unsigned nr, bool all,
                                bool whole)
{
    struct mpl_zone *zone = NULL;

    for (; nr != 0; nr--, held++) {
        struct mpl_block *block;

        if (held->mask == 0)
            continue;
        block = mpl_block_at(pool, held->block);
        if (!all && !mpl_isolated(pool, block, (uint64_t)held->word * MPL_WORD_PAGES))
            continue;
        if (zone != mpl_zone_of(pool, block)) {
            if (zone != NULL)
                mpl_spin_unlock(&zone->lock);
            zone = mpl_zone_of(pool, block);
            mpl_spin_lock(pool, &zone->lock);
        }
        if (whole)
            mpl_whole_unhold(pool, block, held);
        else
            mpl_frames_unhold(pool, block, held);
    }
    if (zone != NULL)
        mpl_spin_unlock(&zone->lock);
    return zone != NULL;
}

bool mpl_percpu_give_back(struct memplug *pool, struct mpl_held *held, unsigned nr, bool all)
{
    return give_back_as(pool, held, nr, all, false);
}

void mpl_slot_put_whole(struct memplug *pool, struct mpl_held *held)
{
    give_back_as(pool, held, 1, true, true);
}

/* Words that went have left gaps among those that wait. */
static void close_gaps(struct mpl_slot *slot, unsigned kind)
{
    struct mpl_queue *queue = &slot->queue[kind], left = {0};
    struct mpl_held *words = waiting(slot, kind);

    for (unsigned i = queue->next; i < queue->end; i++) {
        struct mpl_held word = words[i];

        words[i].mask = 0;
        if (word.mask == 0)
            continue;
        words[left.end++] = word;
        if (kind == MPL_HELD_FREED)
            left.nr_frames = (uint16_t)(left.nr_frames + MPL_POPCOUNT64(word.mask));
    }
    *queue = left;
}

static void empty(struct memplug *pool, struct mpl_slot *slot, bool all)
{
    mpl_percpu_give_back(pool, slot->held, MPL_NR_KINDS, all);
    give_back_as(pool, slot->held + MPL_HELD_WHOLE, MPL_NR_HELD - MPL_HELD_WHOLE, all, true);
    for (unsigned kind = 0; kind < MPL_NR_KINDS; kind++) {
        const struct mpl_queue *queue = &slot->queue[kind];

        if (mpl_percpu_give_back(pool, waiting(slot, kind) + queue->next,
                                 queue->end - queue->next, all))
            close_gaps(slot, kind);
    }
}

static void pass_slot(struct memplug *pool, struct mpl_slot *slot, bool drain)
{
    mpl_slot_stop(pool, slot);
    empty(pool, slot, drain);
    mpl_slot_start(slot);
}

void mpl_slot_drain(struct memplug *pool, struct mpl_slot *slot)
{
    pass_slot(pool, slot, true);
}

/* One bit each of the slots of callers' own that are open now, whose owners are asked to stop. */
static uint64_t ask_all_to_stop(struct memplug *pool)
{
    unsigned nr_own = atomic_load_explicit(&pool->nr_own_slots, memory_order_acquire);
    uint64_t stopped = 0;

    for (unsigned i = 0; i < nr_own; i++) {
        struct mpl_slot *slot = &pool->slots[pool->nr_slots + i];

        if (__atomic_load_n(&slot->pool, __ATOMIC_ACQUIRE) == NULL)
            continue;
        ask_to_stop(slot);
        stopped |= (uint64_t)1 << i;
    }
    return stopped;
}

/* The CPUs' come first: whoever opens a slot after the first one's lock was passed sees all that
 * was there before. One fence is enough for all. */
static void pass_slots(struct memplug *pool, bool drain)
{
    uint64_t stopped;

    for (unsigned i = 0; i < pool->nr_slots; i++)
        pass_slot(pool, &pool->slots[i], drain);
    stopped = ask_all_to_stop(pool);
    if (stopped != 0)
        fence(pool);
    for (; stopped != 0; stopped &= stopped - 1) {
        struct mpl_slot *slot = &pool->slots[pool->nr_slots + MPL_CTZ64(stopped)];

        lock_stopped(pool, slot);
        empty(pool, slot, drain);
        mpl_slot_start(slot);
    }
}

void mpl_percpu_pass(struct memplug *pool)
{
    pass_slots(pool, false);
}

void mpl_percpu_drain(struct memplug *pool)
{
    pass_slots(pool, true);
}

/* --- allocate --------------------------------------------------------------------------------- */

#define NR_AHEAD 16u

/* Struct pages that will be written next are on their way while the first one is waited for. */
static unsigned fetch_ahead(const struct memplug *pool, const struct mpl_held *held,
                            unsigned nr_ahead)
{
    uint64_t mask = held->mask;

    for (; nr_ahead != 0 && mask != 0; nr_ahead--, mask &= mask - 1)
        MPL_PREFETCH(mpl_page_at(pool, mpl_pfn(held->first + MPL_CTZ64(mask))));
    return nr_ahead;
}

/* Words of one zone, lowest first: half a word's worth of frames and more, or nr words. */
static unsigned hold_words(struct memplug *pool, struct mpl_zone *zone, bool movable,
                           struct mpl_held *held, unsigned nr)
{
    unsigned nr_frames = 0, nr_held = 0, nr_ahead = movable ? NR_AHEAD : 0;
    struct mpl_block *block;

    mpl_spin_lock(pool, &zone->lock);
    while (nr_frames < MPL_WORD_PAGES / 2 && nr_held < nr &&
           (block = mpl_frames_next_block(pool, zone, 0)) != NULL) {
        if (MPL_UNLIKELY(mpl_frames_prepare(pool, zone, block)))
            continue; /* the lock was let go */
        MPL_ASSERT(mpl_frames_hold(pool, block, movable, &held[nr_held]));
        nr_ahead = fetch_ahead(pool, &held[nr_held], nr_ahead);
        nr_frames += MPL_POPCOUNT64(held[nr_held++].mask);
    }
    mpl_spin_unlock(&zone->lock);
    return nr_held;
}

static unsigned refill(struct memplug *pool, const struct memplug_alloc *request,
                       struct mpl_held *held, unsigned nr)
{
    struct mpl_zone *zone;
    unsigned nr_held = 0;

    for (unsigned i = 0; nr_held == 0 && (zone = mpl_policy_zone_at(pool, request, i)) != NULL; i++)
        nr_held = hold_words(pool, zone, request->mover != 0, held, nr);
    return nr_held;
}

/* Past the slot: its word is of another node than the one that is asked for. */
static bool take_direct(struct memplug *pool, const struct memplug_alloc *request,
                        enum mpl_page_state as, memplug_pfn_t *pfn)
{
    struct mpl_held held;

    if (refill(pool, request, &held, 1) == 0)
        return false;
    *pfn = mpl_held_take(pool, &held, request, as);
    mpl_percpu_give_back(pool, &held, 1, true);
    return true;
}

/* The first of the words that wait is at hand. */
static void next_word(struct mpl_slot *slot, unsigned kind)
{
    struct mpl_held *next = waiting(slot, kind) + slot->queue[kind].next++;

    slot->held[kind] = *next;
    next->mask = 0;
}

/* What is new is the best there is, whichever node it is of. */
bool mpl_percpu_have_word(struct memplug *pool, struct mpl_slot *slot,
                          const struct memplug_alloc *request)
{
    unsigned kind = mpl_kind_of(request);
    struct mpl_queue *queue = &slot->queue[kind];

    if (slot->held[kind].mask != 0)
        return true;
    if (queue->next == queue->end) {
        queue->next = 0;
        queue->end = (uint8_t)refill(pool, request, waiting(slot, kind), MPL_NR_WAITING);
    }
    if (queue->end == 0)
        return false;
    next_word(slot, kind);
    return true;
}

static bool take(struct memplug *pool, struct mpl_slot *slot,
                 const struct memplug_alloc *request, enum mpl_page_state as,
                 memplug_pfn_t *pfn)
{
    unsigned kind = mpl_kind_of(request);
    struct mpl_held *held = &slot->held[kind];
    bool had = held->mask != 0 || slot->queue[kind].next < slot->queue[kind].end;

    if (!mpl_percpu_have_word(pool, slot, request))
        return false;
    if (had && !mpl_held_fits(pool, held, request))
        return take_direct(pool, request, as, pfn);
    *pfn = mpl_held_take(pool, held, request, as);
    return true;
}

int mpl_percpu_alloc(struct memplug *pool, struct mpl_slot *own,
                     const struct memplug_alloc *request, enum mpl_page_state as,
                     memplug_pfn_t *pfn)
{
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        struct mpl_slot *slot;
        bool done;

        if (attempt != 0) /* what is free may be held by other slots */
            mpl_percpu_drain(pool);
        slot = mpl_slot_enter(pool, own);
        done = take(pool, slot, request, as, pfn);
        mpl_slot_leave(slot, own);
        if (MPL_LIKELY(done))
            return 0;
    }
    return -MPL_ENOMEM;
}

int mpl_percpu_alloc_inside(struct memplug *pool, struct mpl_slot *slot, struct mpl_slot *own,
                            const struct memplug_alloc *request, memplug_pfn_t *pfn)
{
    bool done = take(pool, slot, request, MPL_PAGE_USED, pfn);

    slot->inside = true;
    mpl_slot_leave(slot, own);
    return MPL_LIKELY(done) ? 0 : mpl_percpu_alloc(pool, own, request, MPL_PAGE_USED, pfn);
}

/* --- free ------------------------------------------------------------------------------------- */

/* The freed word that is at hand makes room; a word's worth of frames that wait goes back. */
static void put_by(struct memplug *pool, struct mpl_slot *slot)
{
    struct mpl_held *freed = &slot->held[MPL_HELD_FREED], *words = waiting(slot, MPL_HELD_FREED);
    struct mpl_queue *queue = &slot->queue[MPL_HELD_FREED];

    queue->nr_frames = (uint16_t)(queue->nr_frames + MPL_POPCOUNT64(freed->mask));
    words[queue->end++] = *freed;
    freed->mask = 0;
    if (queue->end < MPL_NR_WAITING && queue->nr_frames < MPL_WORD_PAGES)
        return;
    mpl_percpu_give_back(pool, words, queue->end, true);
    *queue = (struct mpl_queue){0};
}

/* A frame that is nobody's now finds its place in the slot. */
static inline void keep_freed(struct memplug *pool, struct mpl_slot *slot,
                              const struct mpl_held *one)
{
    struct mpl_held *held = mpl_held_around(slot, mpl_pfn(one->first));

    if (held != NULL) {
        held->mask |= one->mask;
        return;
    }
    if (slot->held[MPL_HELD_FREED].mask != 0)
        put_by(pool, slot);
    slot->held[MPL_HELD_FREED] = *one;
}

void mpl_percpu_keep_freed(struct memplug *pool, struct mpl_slot *slot,
                           const struct mpl_held *frames)
{
    keep_freed(pool, slot, frames);
}

/* Without the zone's lock the two bits of a frame's neighbour may be seen at two moments, and look
 * like a tail: a no is asked again under the lock. */
static bool is_single_after_all(struct memplug *pool, struct mpl_block *block, uint64_t index,
                                bool locked)
{
    struct mpl_zone *zone;
    bool single = mpl_frames_are_allocation(pool, block, index, 1);

    if (single || locked)
        return single;
    zone = mpl_frames_lock_zone(pool, block);
    if (zone == NULL)
        return false;
    single = mpl_frames_are_allocation(pool, block, index, 1);
    mpl_spin_unlock(&zone->lock);
    return single;
}

/* Is the frame an allocation of its own? */
static inline bool is_single(struct memplug *pool, struct mpl_block *block, uint64_t index,
                             bool locked)
{
    return MPL_LIKELY(is_surely_single(block, index)) ||
           is_single_after_all(pool, block, index, locked);
}

static struct mpl_page *page_of(struct memplug *pool, const struct mpl_block *block,
                                uint64_t index)
{
    return mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), index));
}

/*
 * The page is NONE by the caller's doing, so that its frame is nobody else's to take, but for two:
 * who had it a moment before, has seen neither the block's mark nor the isolation, which are new,
 * and keeps it; and who sees them in time, looks at the page, and steps back. Which of the two it
 * is shows when every slot was passed: see mpl_percpu_free_contested(). Until then the page may
 * come to belong to a new owner, hence the looks at it before and behind the step.
 */
int mpl_frame_take_ended(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    const struct mpl_page *page = page_of(pool, block, index);

    if (!is_described(block, index) || mpl_page_state(page) != MPL_PAGE_NONE)
        return -MPL_EINVAL;
    if (MPL_UNLIKELY(!mpl_frame_give_held(block, index))) {
        mpl_frames_mark(block); /* from now on every free looks at the page */
        return MPL_IN_OTHER_HANDS;
    }
    if (MPL_LIKELY(!is_described(block, index) || mpl_page_state(page) == MPL_PAGE_NONE))
        return 0;
    mpl_frame_use_held(block, index);
    return -MPL_EINVAL;
}

/* Its page may be pinned, moving, or a driver's: whoever changes its state has the frame. */
static int claim_page(struct memplug *pool, struct mpl_block *block, uint64_t index, bool *later)
{
    int error = mpl_page_end(page_of(pool, block, index), later);

    return error == 0 && !*later ? mpl_frame_take_ended(pool, block, index) : error;
}

/* The caller has the frame's bit, and gives it back if he may not have its page. */
static int look_at_held(struct memplug *pool, struct mpl_block *block, uint64_t index,
                        bool *later)
{
    int error = mpl_page_end(page_of(pool, block, index), later);

    if (error != 0 || *later)
        mpl_frame_use_held(block, index);
    return error;
}

/* A used frame becomes held by the caller. If it is freed by two at once it goes to whoever changes
 * the bit; or, where the page has to be looked at, its state. */
static inline int claim(struct memplug *pool, struct mpl_block *block, uint64_t index,
                        bool isolated, bool *later)
{
    if (is_described(block, index) && (isolated || mpl_is_marked(block)))
        return claim_page(pool, block, index, later);
    if (!mpl_frame_give_held(block, index))
        return -MPL_EINVAL;
    if (MPL_LIKELY(!is_described(block, index) || (!isolated && !mpl_is_marked(block))))
        return 0;
    /* The mark is new; or it was freed and allocated anew between the two looks. */
    return look_at_held(pool, block, index, later);
}

int mpl_held_look(struct memplug *pool, struct mpl_held *held, memplug_pfn_t pfn)
{
    struct mpl_block *block = mpl_block_at(pool, held->block);
    uint64_t index = mpl_pfn_distance(mpl_block_start(pool, block), pfn);
    bool later = false;
    int error = 0;

    if (is_described(block, index))
        error = look_at_held(pool, block, index, &later);
    if (error == 0 && !later)
        held->mask |= bit_of(index);
    return error;
}

/* The way back of a frame. ended: its page is NONE by the caller's doing. */
static inline int end_frame(struct memplug *pool, struct mpl_block *block, uint64_t index,
                            bool ended, bool isolated, bool *later)
{
    *later = false;
    if (ended)
        return mpl_frame_take_ended(pool, block, index);
    if (!is_single(pool, block, index, isolated))
        return -MPL_EINVAL;
    return claim(pool, block, index, isolated, later);
}

/* A frame that is the caller's: not before, since a block whose frames nobody has may look into a
 * pattern (fresh.c). */
static inline void held_one(struct memplug *pool, struct mpl_held *one, struct mpl_block *block,
                            uint64_t index)
{
    MPL_ASSERT(mpl_bitmaps(block) == block->own_bitmaps);
    mpl_held_set(pool, one, block, index / MPL_WORD_PAGES, bit_of(index));
}

/* In an isolated pageblock frames change under the zone's lock only, as offline looks at them. */
static int free_isolated(struct memplug *pool, struct mpl_block *block, uint64_t index, bool ended)
{
    struct mpl_zone *zone = mpl_frames_lock_zone(pool, block);
    struct mpl_held one;
    bool later;
    int error;

    if (zone == NULL)
        return -MPL_ENODEV;
    error = end_frame(pool, block, index, ended, true, &later);
    if (error == 0 && !later) {
        held_one(pool, &one, block, index);
        mpl_frames_unhold(pool, block, &one);
    }
    mpl_spin_unlock(&zone->lock);
    return error;
}

int mpl_percpu_free_frame(struct memplug *pool, struct mpl_slot *slot, memplug_pfn_t pfn,
                          bool ended)
{
    uint64_t index;
    struct mpl_block *block = find_block(pool, pfn, &index);
    struct mpl_held one;
    bool later;
    int error;

    if (MPL_UNLIKELY(block == NULL))
        return -MPL_ENODEV;
    if (MPL_UNLIKELY(mpl_isolated(pool, block, index)))
        return free_isolated(pool, block, index, ended);
    error = end_frame(pool, block, index, ended, false, &later);
    if (error == 0 && !later) {
        held_one(pool, &one, block, index);
        keep_freed(pool, slot, &one);
    }
    return error;
}

/* Whoever was in the middle of freeing it has stepped back after the pass, or has kept it. */
int mpl_percpu_free_contested(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn)
{
    struct mpl_slot *slot;
    int error;

    mpl_percpu_pass(pool);
    slot = mpl_slot_enter(pool, own);
    error = mpl_percpu_free_frame(pool, slot, pfn, true);
    mpl_slot_leave(slot, own);
    return error == MPL_IN_OTHER_HANDS ? -MPL_EINVAL : error;
}

static inline int free_with(struct memplug *pool, struct mpl_slot *slot, struct mpl_slot *own,
                            memplug_pfn_t pfn, bool ended)
{
    int error = mpl_percpu_free_frame(pool, slot, pfn, ended);

    mpl_slot_leave(slot, own);
    if (MPL_UNLIKELY(error == MPL_IN_OTHER_HANDS))
        error = mpl_percpu_free_contested(pool, own, pfn);
    return error;
}

int mpl_percpu_free(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn)
{
    return free_with(pool, mpl_slot_enter(pool, own), own, pfn, false);
}

int mpl_percpu_free_inside(struct memplug *pool, struct mpl_slot *slot, struct mpl_slot *own,
                           memplug_pfn_t pfn)
{
    slot->inside = true;
    return free_with(pool, slot, own, pfn, false);
}

/* A program that freed a former life of the frame too may come late, and take it from us: then it
 * is free all the same. */
void mpl_percpu_free_ended(struct memplug *pool, memplug_pfn_t pfn)
{
    int error = free_with(pool, mpl_percpu_lock(pool), NULL, pfn, true);

    MPL_ASSERT(error == 0 || error == -MPL_EINVAL);
}

/* Since the pass behind the isolation every other free of these frames takes the lock, too, and has
 * looked at the page: nobody can have taken one from us. */
void mpl_percpu_free_word(struct memplug *pool, struct mpl_block *block, uint64_t word,
                          uint64_t mask)
{
    uint64_t first = word * MPL_WORD_PAGES;
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    struct mpl_held held;

    mpl_spin_lock(pool, &zone->lock);
    MPL_ASSERT(mpl_isolated(pool, block, first));
    for (uint64_t left = mask; left != 0; left &= left - 1)
        MPL_ASSERT(mpl_frame_take_ended(pool, block, first + MPL_CTZ64(left)) == 0);
    mpl_held_set(pool, &held, block, word, mask);
    mpl_frames_unhold(pool, block, &held);
    mpl_spin_unlock(&zone->lock);
}
