/* SPDX-License-Identifier: MIT */
/*
 * A slot holds up to a word of frames of each kind, and a word of freed ones. Inside the slot a
 * frame of these changes hands by one atomic step on its bitmap; the zone's lock is taken once a
 * word. What a slot holds never lies in a pageblock that was isolated before the last drain.
 * Frames for movable use are described as long as they are held: that means nothing then, and
 * spares a step on each.
 */
#include "words.h"

/* --- inside a slot ---------------------------------------------------------------------------- */

struct mpl_slot *mpl_percpu_lock(struct memplug *pool)
{
    unsigned cpu = pool->host->ops->cpu(pool->host->context);
    struct mpl_slot *slot = &pool->slots[cpu < pool->nr_slots ? cpu : cpu % pool->nr_slots];

    mpl_spin_lock(pool, &slot->lock);
    return slot;
}

void mpl_percpu_unlock(struct mpl_slot *slot)
{
    mpl_spin_unlock(&slot->lock);
}

/* Busy before stop is looked at, as whoever stops it does the reverse: see core/slot.h. */
static inline void enter_own(struct memplug *pool, struct mpl_slot *slot)
{
    if (MPL_LIKELY(slot->fenced)) {
        atomic_store_explicit(&slot->busy, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
    } else {
        atomic_exchange_explicit(&slot->busy, 1, memory_order_seq_cst);
    }
    slot->inside = atomic_load_explicit(&slot->stop, memory_order_seq_cst) == 0;
    if (MPL_LIKELY(slot->inside))
        return;
    atomic_store_explicit(&slot->busy, 0, memory_order_release);
    mpl_spin_lock(pool, &slot->lock);
}

static inline struct mpl_slot *enter(struct memplug *pool, struct mpl_slot *own)
{
    if (own == NULL)
        return mpl_percpu_lock(pool);
    enter_own(pool, own);
    return own;
}

static inline void leave(struct mpl_slot *slot, const struct mpl_slot *own)
{
    if (own != NULL && slot->inside)
        atomic_store_explicit(&slot->busy, 0, memory_order_release);
    else
        mpl_spin_unlock(&slot->lock);
}

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

static void give_back(struct memplug *pool, struct mpl_held *held)
{
    struct mpl_block *block = mpl_block_at(pool, held->block);
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_frames_unhold(pool, block, held);
    mpl_spin_unlock(&zone->lock);
}

static void empty(struct memplug *pool, struct mpl_slot *slot)
{
    for (unsigned kind = 0; kind < MPL_NR_HELD; kind++)
        if (slot->held[kind].mask != 0)
            give_back(pool, &slot->held[kind]);
}

void mpl_slot_drain(struct memplug *pool, struct mpl_slot *slot)
{
    mpl_slot_stop(pool, slot);
    empty(pool, slot);
    mpl_slot_start(slot);
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
 * was there before the drain. One fence is enough for all. */
void mpl_percpu_drain(struct memplug *pool)
{
    uint64_t stopped;

    for (unsigned i = 0; i < pool->nr_slots; i++)
        mpl_slot_drain(pool, &pool->slots[i]);
    stopped = ask_all_to_stop(pool);
    if (stopped != 0)
        fence(pool);
    for (; stopped != 0; stopped &= stopped - 1) {
        struct mpl_slot *slot = &pool->slots[pool->nr_slots + MPL_CTZ64(stopped)];

        lock_stopped(pool, slot);
        empty(pool, slot);
        mpl_slot_start(slot);
    }
}

/* --- allocate --------------------------------------------------------------------------------- */

#define NR_AHEAD 8u

/* Struct pages that will be written next are on their way while the first one is waited for. */
static void fetch_ahead(const struct memplug *pool, const struct mpl_held *held)
{
    memplug_pfn_t start = mpl_block_start(pool, mpl_block_at(pool, held->block));
    uint64_t mask = held->mask;

    start = mpl_pfn_add(start, (uint64_t)held->word * MPL_WORD_PAGES);
    for (unsigned i = 0; i < NR_AHEAD && mask != 0; i++, mask &= mask - 1)
        MPL_PREFETCH(mpl_page_at(pool, mpl_pfn_add(start, MPL_CTZ64(mask))));
}

static bool refill(struct memplug *pool, struct mpl_held *held,
                   const struct memplug_alloc *request)
{
    struct mpl_zone *zones[MPL_MAX_NODES * MEMPLUG_NR_ZONES];
    unsigned nr_zones = mpl_policy_zonelist(pool, request, zones);

    for (unsigned i = 0; i < nr_zones && held->mask == 0; i++) {
        struct mpl_block *block;

        mpl_spin_lock(pool, &zones[i]->lock);
        block = mpl_frames_next_block(pool, zones[i], 0);
        if (block != NULL)
            MPL_ASSERT(mpl_frames_hold(pool, block, request->mover != 0, held));
        mpl_spin_unlock(&zones[i]->lock);
    }
    if (held->mask != 0 && request->mover != 0)
        fetch_ahead(pool, held);
    return held->mask != 0;
}

static inline memplug_pfn_t take_held(struct memplug *pool, struct mpl_held *held,
                                      const struct memplug_alloc *request,
                                      enum mpl_page_state as)
{
    struct mpl_block *block = mpl_block_at(pool, held->block);
    uint64_t index = (uint64_t)held->word * MPL_WORD_PAGES + MPL_CTZ64(held->mask);

    if (request->mover != 0)
        mpl_frame_describe(pool, block, index, as, request);
    else if (MPL_UNLIKELY(is_described(pool, block, index))) /* it was freed so */
        mpl_frame_set_described(pool, block, index, false);
    mpl_frame_use_held(pool, block, index);
    held->mask &= held->mask - 1;
    return mpl_pfn_add(mpl_block_start(pool, block), index);
}

/* Past the slot: its word is of another node than the one that is asked for. */
static bool take_direct(struct memplug *pool, const struct memplug_alloc *request,
                        enum mpl_page_state as, memplug_pfn_t *pfn)
{
    struct mpl_held held = {.mask = 0};

    if (!refill(pool, &held, request))
        return false;
    *pfn = take_held(pool, &held, request, as);
    if (held.mask != 0)
        give_back(pool, &held);
    return true;
}

static bool take(struct memplug *pool, struct mpl_slot *slot,
                 const struct memplug_alloc *request, enum mpl_page_state as,
                 memplug_pfn_t *pfn)
{
    struct mpl_held *held =
        &slot->held[request->mover != 0 ? MPL_HELD_MOVABLE : MPL_HELD_KERNEL];

    if (held->mask != 0 && request->node != MEMPLUG_ANY_NODE &&
        mpl_block_at(pool, held->block)->node != request->node)
        return take_direct(pool, request, as, pfn);
    if (MPL_UNLIKELY(held->mask == 0) && !refill(pool, held, request))
        return false;
    *pfn = take_held(pool, held, request, as);
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
        slot = enter(pool, own);
        done = take(pool, slot, request, as, pfn);
        leave(slot, own);
        if (MPL_LIKELY(done))
            return 0;
    }
    return -MPL_ENOMEM;
}

/* --- free ------------------------------------------------------------------------------------- */

/* A frame that is nobody's now finds its place in the slot. */
static void keep_freed(struct memplug *pool, struct mpl_slot *slot, struct mpl_held one)
{
    struct mpl_held *freed = &slot->held[MPL_HELD_FREED];

    for (unsigned kind = 0; kind < MPL_NR_HELD; kind++) {
        struct mpl_held *held = &slot->held[kind];

        if (held->mask != 0 && held->block == one.block && held->word == one.word) {
            held->mask |= one.mask;
            return;
        }
    }
    if (freed->mask != 0)
        give_back(pool, freed);
    *freed = one;
}

/* Is the frame an allocation of its own? Without the zone's lock the two bits of its neighbour may
 * be seen at two moments, and look like a tail: a no is asked again under the lock. */
static bool is_single(struct memplug *pool, struct mpl_block *block, uint64_t index, bool locked)
{
    struct mpl_zone *zone;
    bool single;

    if (MPL_LIKELY(is_surely_single(pool, block, index)))
        return true;
    single = mpl_frames_are_allocation(pool, block, index, 1);
    if (single || locked)
        return single;
    zone = mpl_frames_lock_zone(pool, block);
    if (zone == NULL)
        return false;
    single = mpl_frames_are_allocation(pool, block, index, 1);
    mpl_spin_unlock(&zone->lock);
    return single;
}

static struct mpl_page *page_of(struct memplug *pool, const struct mpl_block *block,
                                uint64_t index)
{
    return mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), index));
}

/* A page was ended, and its frame is in other hands: perhaps of another free that steps back. */
#define IN_OTHER_HANDS 1

/*
 * The page is NONE by the caller's doing, so that its frame is nobody else's to take, but for two:
 * who had it a moment before, has seen neither the block's mark nor the isolation, which are new,
 * and keeps it; and who sees them in time, looks at the page, and steps back. Which of the two it
 * is shows when every slot was passed: see free_ended(). Until then the page may come to belong to
 * a new owner, hence the looks at it before and behind the step.
 */
static int take_ended(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    const struct mpl_page *page = page_of(pool, block, index);

    if (!is_described(pool, block, index) || mpl_page_state(page) != MPL_PAGE_NONE)
        return -MPL_EINVAL;
    if (MPL_UNLIKELY(!mpl_frame_give_held(pool, block, index))) {
        mpl_frames_mark(block); /* from now on every free looks at the page */
        return IN_OTHER_HANDS;
    }
    if (MPL_LIKELY(!is_described(pool, block, index) || mpl_page_state(page) == MPL_PAGE_NONE))
        return 0;
    mpl_frame_use_held(pool, block, index);
    return -MPL_EINVAL;
}

/* Its page may be pinned, moving, or a driver's: whoever changes its state has the frame. */
static int claim_page(struct memplug *pool, struct mpl_block *block, uint64_t index, bool *later)
{
    int error = mpl_page_end(page_of(pool, block, index), later);

    return error == 0 && !*later ? take_ended(pool, block, index) : error;
}

/* A used frame becomes held by the caller. If it is freed by two at once it goes to whoever changes
 * the bit; or, where the page has to be looked at, its state. */
static inline int claim(struct memplug *pool, struct mpl_block *block, uint64_t index,
                        bool isolated, bool *later)
{
    int error;

    if (is_described(pool, block, index) && (isolated || is_marked(block)))
        return claim_page(pool, block, index, later);
    if (!mpl_frame_give_held(pool, block, index))
        return -MPL_EINVAL;
    if (MPL_LIKELY(!is_described(pool, block, index) || (!isolated && !is_marked(block))))
        return 0;
    /* The mark is new; or it was freed and allocated anew between the two looks. */
    error = mpl_page_end(page_of(pool, block, index), later);
    if (error != 0 || *later)
        mpl_frame_use_held(pool, block, index);
    return error;
}

/* The way back of a frame. ended: its page is NONE by the caller's doing. */
static inline int end_frame(struct memplug *pool, struct mpl_block *block, uint64_t index,
                            bool ended, bool isolated, bool *later)
{
    *later = false;
    if (ended)
        return take_ended(pool, block, index);
    if (!is_single(pool, block, index, isolated))
        return -MPL_EINVAL;
    return claim(pool, block, index, isolated, later);
}

/* In an isolated pageblock frames change under the zone's lock only, as offline looks at them. */
static int free_isolated(struct memplug *pool, struct mpl_block *block, uint64_t index,
                         bool ended, struct mpl_held *one)
{
    struct mpl_zone *zone = mpl_frames_lock_zone(pool, block);
    bool later;
    int error;

    if (zone == NULL)
        return -MPL_ENODEV;
    error = end_frame(pool, block, index, ended, true, &later);
    if (error == 0 && !later)
        mpl_frames_unhold(pool, block, one);
    mpl_spin_unlock(&zone->lock);
    return error;
}

static int free_frame(struct memplug *pool, struct mpl_slot *slot, memplug_pfn_t pfn, bool ended)
{
    uint64_t index;
    struct mpl_block *block = find_block(pool, pfn, &index);
    struct mpl_held one;
    bool later;
    int error;

    if (MPL_UNLIKELY(block == NULL))
        return -MPL_ENODEV;
    one = (struct mpl_held){
        .mask = (uint64_t)1 << (index % MPL_WORD_PAGES),
        .block = (uint32_t)mpl_block_of_pfn(&pool->geometry, pfn),
        .word = (uint32_t)(index / MPL_WORD_PAGES),
    };
    if (MPL_UNLIKELY(mpl_isolated(pool, block, index)))
        return free_isolated(pool, block, index, ended, &one);
    error = end_frame(pool, block, index, ended, false, &later);
    if (error == 0 && !later)
        keep_freed(pool, slot, one);
    return error;
}

/* Whoever was in the middle of freeing it has stepped back after the drain, or has kept it. */
static int free_ended(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn)
{
    struct mpl_slot *slot;
    int error;

    mpl_percpu_drain(pool);
    slot = enter(pool, own);
    error = free_frame(pool, slot, pfn, true);
    leave(slot, own);
    return error == IN_OTHER_HANDS ? -MPL_EINVAL : error;
}

static int free_with(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn, bool ended)
{
    struct mpl_slot *slot = enter(pool, own);
    int error = free_frame(pool, slot, pfn, ended);

    leave(slot, own);
    return MPL_LIKELY(error != IN_OTHER_HANDS) ? error : free_ended(pool, own, pfn);
}

int mpl_percpu_free(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn)
{
    return free_with(pool, own, pfn, false);
}

/* A program that freed a former life of the frame too may come late, and take it from us: then it
 * is free all the same. */
void mpl_percpu_free_ended(struct memplug *pool, memplug_pfn_t pfn)
{
    int error = free_with(pool, NULL, pfn, true);

    MPL_ASSERT(error == 0 || error == -MPL_EINVAL);
}
