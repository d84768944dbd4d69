/* SPDX-License-Identifier: MIT */
/*
 * A slot holds up to a word of frames of each kind, and a word of freed ones. With the slot's lock
 * a frame of these changes hands by one atomic step on its bitmap; the zone's lock is taken once a
 * word. What a slot holds never lies in a pageblock that was isolated before the last drain.
 */
#include "state.h"

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

static void give_back(struct memplug *pool, struct mpl_held *held)
{
    struct mpl_block *block = mpl_block_at(pool, held->block);
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_frames_unhold(pool, block, held);
    mpl_spin_unlock(&zone->lock);
}

void mpl_percpu_drain(struct memplug *pool)
{
    for (unsigned i = 0; i < pool->nr_slots; i++) {
        struct mpl_slot *slot = &pool->slots[i];

        mpl_spin_lock(pool, &slot->lock);
        for (unsigned kind = 0; kind < MPL_NR_HELD; kind++)
            if (slot->held[kind].mask != 0)
                give_back(pool, &slot->held[kind]);
        mpl_spin_unlock(&slot->lock);
    }
}

/* --- allocate --------------------------------------------------------------------------------- */

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
            MPL_ASSERT(mpl_frames_hold(pool, block, held));
        mpl_spin_unlock(&zones[i]->lock);
    }
    return held->mask != 0;
}

static memplug_pfn_t take_held(struct memplug *pool, struct mpl_held *held,
                               const struct memplug_alloc *request, enum mpl_page_state as)
{
    struct mpl_block *block = mpl_block_at(pool, held->block);
    uint64_t index = (uint64_t)held->word * MPL_WORD_PAGES + MPL_CTZ64(held->mask);

    mpl_frame_describe(pool, block, index, as, request);
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

int mpl_percpu_alloc(struct memplug *pool, const struct memplug_alloc *request,
                     enum mpl_page_state as, memplug_pfn_t *pfn)
{
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        struct mpl_slot *slot;
        bool done;

        if (attempt != 0) /* what is free may be held by other slots */
            mpl_percpu_drain(pool);
        slot = mpl_percpu_lock(pool);
        done = take(pool, slot, request, as, pfn);
        mpl_percpu_unlock(slot);
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

/* The page is NONE by this caller's doing, so the frame is his: what keeps him can only be a
 * second free that saw the frame before it was described, and steps back. */
static void hold_described(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    for (unsigned nr_spins = 0; !mpl_frame_give_held(pool, block, index); nr_spins++)
        pool->host->ops->relax(pool->host->context, nr_spins);
    mpl_frame_set_described(pool, block, index, false);
}

/* Is the frame an allocation of its own? Without the zone's lock the two bits of its neighbour may
 * be seen at two moments, and look like a tail: a no is asked again under the lock. */
static bool is_single(struct memplug *pool, struct mpl_block *block, uint64_t index, bool locked)
{
    struct mpl_zone *zone;
    bool single = mpl_frames_are_allocation(pool, block, index, 1);

    if (MPL_LIKELY(single) || locked)
        return single;
    zone = mpl_frames_lock_zone(pool, block);
    if (zone == NULL)
        return false;
    single = mpl_frames_are_allocation(pool, block, index, 1);
    mpl_spin_unlock(&zone->lock);
    return single;
}

/* A used frame becomes held by the caller. If it is freed by two at once, a described one goes to
 * whoever changes the page's state, another one to whoever changes the bit. */
static int claim(struct memplug *pool, struct mpl_block *block, uint64_t index, bool *later)
{
    struct mpl_page *page = mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), index));
    int error;

    if (mpl_frame_described(pool, block, index)) {
        error = mpl_page_end(page, later);
        if (error == 0 && !*later)
            hold_described(pool, block, index);
        return error;
    }
    if (!mpl_frame_give_held(pool, block, index))
        return -MPL_EINVAL;
    if (MPL_LIKELY(!mpl_frame_described(pool, block, index)))
        return 0;
    /* It was freed and allocated anew between the two looks: now it is a described one. */
    error = mpl_page_end(page, later);
    if (error != 0 || *later)
        mpl_frame_use_held(pool, block, index);
    else
        mpl_frame_set_described(pool, block, index, false);
    return error;
}

/* The way back of a frame that an owner, or the core, gives up. */
static int end_frame(struct memplug *pool, struct mpl_block *block, uint64_t index, bool owned,
                     bool locked, bool *later)
{
    bool single = is_single(pool, block, index, locked);

    *later = false;
    if (owned)
        return single ? claim(pool, block, index, later) : -MPL_EINVAL;
    MPL_ASSERT(single);
    if (mpl_frame_described(pool, block, index)) {
        MPL_ASSERT(mpl_page_state(mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block),
                                                                 index))) == MPL_PAGE_NONE);
        hold_described(pool, block, index);
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
    struct mpl_block *block = mpl_frames_block(pool, pfn, &index);
    struct mpl_held one;
    bool later;
    int error;

    if (MPL_UNLIKELY(block == NULL))
        return -MPL_ENODEV;
    one = (struct mpl_held){
        .mask = (uint64_t)1 << (index % MPL_WORD_PAGES),
        .block = (uint32_t)mpl_block_id(pool, block),
        .word = (uint32_t)(index / MPL_WORD_PAGES),
    };
    if (MPL_UNLIKELY(mpl_isolated(pool, block, index)))
        return free_isolated(pool, block, index, owned, &one);
    error = end_frame(pool, block, index, owned, false, &later);
    if (error == 0 && !later)
        keep_freed(pool, slot, one);
    return error;
}

int mpl_percpu_free(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_slot *slot = mpl_percpu_lock(pool);
    int error = free_frame(pool, slot, pfn, true);

    mpl_percpu_unlock(slot);
    return error;
}

void mpl_percpu_free_frame(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_slot *slot = mpl_percpu_lock(pool);

    MPL_ASSERT(free_frame(pool, slot, pfn, false) == 0);
    mpl_percpu_unlock(slot);
}
