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

void mpl_slot_stop(const struct memplug *pool, struct mpl_slot *slot)
{
    const struct memplug_host *host = pool->host;
    unsigned nr_spins = 0;

    mpl_spin_lock(pool, &slot->lock);
    if (slot < pool->slots + pool->nr_slots)
        return; /* a CPU's: the lock is all */
    atomic_exchange_explicit(&slot->stop, 1, memory_order_seq_cst);
    if (host->ops->fence != NULL)
        host->ops->fence(host->context);
    while (atomic_load_explicit(&slot->busy, memory_order_seq_cst) != 0)
        host->ops->relax(host->context, nr_spins++);
}

void mpl_slot_start(struct mpl_slot *slot)
{
    atomic_store_explicit(&slot->stop, 0, memory_order_release);
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

void mpl_slot_drain(struct memplug *pool, struct mpl_slot *slot)
{
    mpl_slot_stop(pool, slot);
    for (unsigned kind = 0; kind < MPL_NR_HELD; kind++)
        if (slot->held[kind].mask != 0)
            give_back(pool, &slot->held[kind]);
    mpl_slot_start(slot);
}

void mpl_percpu_drain(struct memplug *pool)
{
    struct mpl_slot *slot;

    for (unsigned i = 0; (slot = mpl_slot_at(pool, i)) != NULL; i++)
        mpl_slot_drain(pool, slot);
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

#define SPINS_TO_GIVE_UP 2000u /* 100 ms and more: whoever steps back does so at once */

/* The page is NONE by this caller's doing, so the frame is his: what keeps him can only be another
 * free of it at the same time, which steps back when it sees the page. False: it does not look,
 * since it has seen neither the block's mark nor the isolation, which are new; then it has it. */
static bool hold_described(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    for (unsigned nr_spins = 0; !mpl_frame_give_held(pool, block, index); nr_spins++) {
        if (nr_spins == SPINS_TO_GIVE_UP)
            return false;
        pool->host->ops->relax(pool->host->context, nr_spins);
    }
    return true;
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

/* Its page may be pinned, moving, or a driver's: whoever changes its state has the frame. */
static int claim_page(struct memplug *pool, struct mpl_block *block, uint64_t index, bool *later)
{
    int error = mpl_page_end(page_of(pool, block, index), later);

    if (error == 0 && !*later && !hold_described(pool, block, index))
        return -MPL_EINVAL;
    return error;
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

/* The way back of a frame that an owner, or the core, gives up. */
static inline int end_frame(struct memplug *pool, struct mpl_block *block, uint64_t index,
                            bool owned, bool isolated, bool *later)
{
    bool single = is_single(pool, block, index, isolated);

    *later = false;
    if (owned)
        return single ? claim(pool, block, index, isolated, later) : -MPL_EINVAL;
    MPL_ASSERT(single);
    if (is_described(pool, block, index)) {
        MPL_ASSERT(mpl_page_state(page_of(pool, block, index)) == MPL_PAGE_NONE);
        MPL_ASSERT(hold_described(pool, block, index));
    } else {
        MPL_ASSERT(mpl_frame_give_held(pool, block, index));
    }
    return 0;
}

/* In an isolated pageblock frames change under the zone's lock only, as offline looks at them. */
static int free_isolated(struct memplug *pool, struct mpl_block *block, uint64_t index,
                         bool owned, struct mpl_held *one)
{
    struct mpl_zone *zone = mpl_frames_lock_zone(pool, block);
    bool later;
    int error;

    if (zone == NULL)
        return -MPL_ENODEV;
    error = end_frame(pool, block, index, owned, true, &later);
    if (error == 0 && !later)
        mpl_frames_unhold(pool, block, one);
    mpl_spin_unlock(&zone->lock);
    return error;
}

static int free_frame(struct memplug *pool, struct mpl_slot *slot, memplug_pfn_t pfn, bool owned)
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
        return free_isolated(pool, block, index, owned, &one);
    error = end_frame(pool, block, index, owned, false, &later);
    if (error == 0 && !later)
        keep_freed(pool, slot, one);
    return error;
}

int mpl_percpu_free(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn)
{
    struct mpl_slot *slot = enter(pool, own);
    int error = free_frame(pool, slot, pfn, true);

    leave(slot, own);
    return error;
}

void mpl_percpu_free_frame(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_slot *slot = mpl_percpu_lock(pool);

    MPL_ASSERT(free_frame(pool, slot, pfn, false) == 0);
    mpl_percpu_unlock(slot);
}
