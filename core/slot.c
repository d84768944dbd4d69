/* SPDX-License-Identifier: MIT */
/* Slots of the caller's own. */
#include "steps.h"

/* struct memplug_slot is what callers know of a struct mpl_slot. */
static struct memplug_slot *shown(struct mpl_slot *slot)
{
    return (struct memplug_slot *)(void *)slot;
}

static struct mpl_slot *own(struct memplug_slot *slot)
{
    return (struct mpl_slot *)(void *)slot;
}

/* Under the lock of the first slot: whoever drains them all passes it first, and so sees each slot
 * that may have a reader of what was there before the drain. */
int memplug_slot_open(struct memplug *pool, struct memplug_slot **slot)
{
    struct mpl_slot *first = &pool->slots[pool->nr_slots];
    struct mpl_spin *lock = &pool->slots[0].lock;
    unsigned index = 0;

    mpl_spin_lock(pool, lock);
    while (index < MEMPLUG_MAX_SLOTS && first[index].pool != NULL)
        index++;
    if (index < MEMPLUG_MAX_SLOTS) {
        MPL_PUT(first[index].pool, pool);
        first[index].fenced = pool->host->ops->fence != NULL;
        if (index == atomic_load_explicit(&pool->nr_own_slots, memory_order_relaxed))
            atomic_store_explicit(&pool->nr_own_slots, index + 1, memory_order_release);
        *slot = shown(&first[index]);
    }
    mpl_spin_unlock(lock);
    return index < MEMPLUG_MAX_SLOTS ? 0 : -MPL_ENOSPC;
}

void memplug_slot_close(struct memplug_slot *slot)
{
    struct memplug *pool = own(slot)->pool;
    struct mpl_spin *lock = &pool->slots[0].lock;

    mpl_slot_drain(pool, own(slot));
    mpl_spin_lock(pool, lock);
    MPL_PUT(own(slot)->pool, NULL);
    mpl_spin_unlock(lock);
}

int memplug_slot_alloc(struct memplug_slot *slot, const struct memplug_alloc *request,
                       memplug_pfn_t *pfn)
{
    struct memplug *pool = own(slot)->pool;

    if (MPL_UNLIKELY(request->nr_pages != 1))
        return mpl_alloc(pool, own(slot), request, pfn);
    if (MPL_UNLIKELY(!mpl_may_alloc_single(pool, request)))
        return -MPL_EINVAL;
    return mpl_fast_alloc(pool, own(slot), request, pfn);
}

int memplug_slot_free(struct memplug_slot *slot, memplug_pfn_t pfn, uint32_t nr_pages)
{
    struct memplug *pool = own(slot)->pool;

    if (MPL_UNLIKELY(nr_pages != 1))
        return mpl_free(pool, own(slot), pfn, nr_pages);
    return mpl_fast_free(pool, own(slot), pfn);
}
