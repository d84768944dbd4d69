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

/* Frames of one word in state held. */
struct mpl_held {
    uint64_t mask; /* 0: none, and the rest means nothing */
    uint32_t block;
    uint32_t word;
};

enum mpl_held_kind { MPL_HELD_KERNEL, MPL_HELD_MOVABLE, MPL_HELD_FREED, MPL_NR_HELD };

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
    struct mpl_held held[MPL_NR_HELD];
    struct memplug *pool; /* of a slot of the caller's own that is open; else null. Written under
                             the first slot's lock */
    bool fenced;          /* the host has a fence */
    bool inside;          /* its owner is inside without the lock */
} MPL_ALIGNED(MPL_CACHE_LINE);

#endif
