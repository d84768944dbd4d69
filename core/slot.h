/* SPDX-License-Identifier: MIT */
/* What a CPU, or a caller, keeps at hand. A part of core.h, which includes it. */
#ifndef MPL_SLOT_H
#define MPL_SLOT_H

#include <stdatomic.h>

#include <memplug/slot.h>

#include "compiler.h"

/* A spin lock. Held for a bounded time, never over a call to a host that may sleep, to a mover,
 * a subscriber or a hook. */
struct mpl_spin {
    atomic_uint next, serving; /* a ticket lock: no CPU waits for ever */
};

struct memplug;
struct mpl_bits;
void mpl_spin_wait(const struct memplug *pool, struct mpl_spin *spin, unsigned ticket);

MPL_LOCK_INLINE void mpl_spin_lock(const struct memplug *pool, struct mpl_spin *spin)
{
    unsigned ticket = atomic_fetch_add_explicit(&spin->next, 1, memory_order_relaxed);

    if (MPL_UNLIKELY(atomic_load_explicit(&spin->serving, memory_order_acquire) != ticket))
        mpl_spin_wait(pool, spin, ticket);
}

MPL_LOCK_INLINE void mpl_spin_unlock(struct mpl_spin *spin)
{
    unsigned ticket = atomic_load_explicit(&spin->serving, memory_order_relaxed);

    MPL_ASSERT(ticket != atomic_load_explicit(&spin->next, memory_order_relaxed));
    atomic_store_explicit(&spin->serving, ticket + 1, memory_order_release);
}

/* Frames of one word in state held. As long as there is one, the block stays in its zone. */
struct mpl_held {
    uint64_t mask; /* 0: none, and the rest means nothing */
    uint32_t block;
    uint32_t word;
    uint64_t first; /* pfn of the word's first frame */
    struct mpl_bits *bits;
};

enum mpl_held_kind { MPL_HELD_KERNEL, MPL_HELD_MOVABLE, MPL_HELD_FREED, MPL_NR_KINDS };

/* Of each kind one word is at hand, and some more wait, so that the zone's lock is taken once for a
 * word's worth of frames also where few of a word are free. */
#define MPL_NR_WAITING 15u
/* And a pageblock that was freed as a whole, for each kind of user: its first frame is held, and
 * the others are that one's tails, as in the allocation. */
#define MPL_HELD_WHOLE (MPL_NR_KINDS * (1 + MPL_NR_WAITING))
#define MPL_NR_HELD (MPL_HELD_WHOLE + 2)

struct mpl_queue {
    uint8_t next, end;  /* in mpl_slot.held, from MPL_NR_KINDS + kind * MPL_NR_WAITING on */
    uint16_t nr_frames; /* of those that wait to be given back */
};

/*
 * Whoever is inside a slot has its lock, or is the owner of a slot of the caller's own and has set
 * busy while stop was 0. Others count themselves in stop, take the lock and wait until busy is 0.
 * So either the owner sees stop, and takes the lock too, or the other one sees busy; what orders
 * the store of each before its load is a sequentially consistent step on both sides, or the host's
 * fence between the others' two, and then the owner's side costs two plain stores.
 */
struct mpl_slot {
    struct mpl_spin lock;
    atomic_uint busy, stop;
    struct mpl_held held[MPL_NR_HELD]; /* one at hand for each kind, those that wait, and wholes */
    struct mpl_queue queue[MPL_NR_KINDS];
    struct memplug *pool; /* of a slot of the caller's own that is open; else null. Written under
                             the first slot's lock */
    bool fenced;          /* the host has a fence */
    bool inside;          /* its owner is inside without the lock */
} MPL_ALIGNED(MPL_CACHE_LINE);

#endif
