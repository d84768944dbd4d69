/* SPDX-License-Identifier: MIT */
/*
 * Slots of the caller's own. Single pages come from a slot and go back to one: it holds about a
 * word's worth (64 frames, never twice that) of each kind, so that the zone is asked once for so
 * many. Of whole pageblocks it keeps the one that was freed last, one that had a mover and one that
 * had none, as the kernel's CPUs do with huge pages; who asks next gets that one, whichever zone it
 * is of. memplug_alloc() and memplug_free() use a slot
 * of the CPU, which threads share, and which has a lock. A slot that only one thread uses needs
 * none: where the host can make all threads pass a fence (host.h), entering it takes no atomic
 * step, and the thread may be preempted or change its CPU anywhere.
 *
 * Frames are the same whichever slot they came from, and may be freed through any other, or
 * through none. What a slot holds at hand is given back when a block goes offline or memory runs
 * short: whoever needs it stops the slot for a bounded time, waiting until its owner is outside.
 */
#ifndef MEMPLUG_SLOT_H
#define MEMPLUG_SLOT_H

#include <memplug/memplug.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MEMPLUG_MAX_SLOTS 64u

struct memplug_slot;

/* -ENOSPC: 64 are open. The slot is of no thread in particular, but calls with it may not overlap,
 * also not in a signal handler. Close it before the pool. */
int memplug_slot_open(struct memplug *pool, struct memplug_slot **slot);

/* What it holds goes back to the pool; frames that were allocated through it stay. */
void memplug_slot_close(struct memplug_slot *slot);

/* As memplug_alloc() and memplug_free(). Only single pages and whole pageblocks come through it. */
int memplug_slot_alloc(struct memplug_slot *slot, const struct memplug_alloc *request,
                       memplug_pfn_t *pfn);
int memplug_slot_free(struct memplug_slot *slot, memplug_pfn_t pfn, uint32_t nr_pages);

/* As memplug_alloc_bulk() and memplug_free_bulk(). */
int memplug_slot_alloc_bulk(struct memplug_slot *slot, const struct memplug_alloc *request,
                            const uint64_t *cookies, memplug_pfn_t *pfns, uint32_t nr);
uint32_t memplug_slot_free_bulk(struct memplug_slot *slot, const memplug_pfn_t *pfns, uint32_t nr,
                                int *errors);

#ifdef __cplusplus
}
#endif
#endif
