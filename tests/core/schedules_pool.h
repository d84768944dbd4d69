/* SPDX-License-Identifier: MIT */
/* The pool that scenes of the allocator are played in, by up to three slots of callers' own. */
#ifndef SCHEDULES_POOL_H
#define SCHEDULES_POOL_H

#include "mini_pool.h"
#include "schedules.h"

extern unsigned block_order; /* one pageblock of 64 pages, unless the test says otherwise */
extern uint32_t nr_pages;    /* of what the frees below free */
extern struct mini *mini;
extern uint8_t mover;
extern struct memplug_slot *slots[3];
extern memplug_pfn_t frame, neighbour, found[3];
extern int results[3]; /* 1: nothing has been tried */

memplug_pfn_t take(struct memplug_slot *slot, uint8_t owner, uint32_t nr);

/* Block 1 is in Normal, block 2 in Movable. */
void open_fresh(void);
/* With bitmaps that were written before. */
void open_pool(void);
/* All must be free. */
void close_pool(void);

/* By the slot of that number, or the CPU's, or no slot: results[that number]. */
void free_0(void);
void free_1(void);
void free_by_cpu_1(void);
void pin_1(void);

/* Somebody makes them look at the page: of the frame; of its block, without a pass behind it. */
void mark_2(void);
void isolate_2(void);
void isolate_for_a_while_2(void);
/* Isolated, and every slot passed: how many frames are still held? It stays isolated. */
int pass_block_2(void);

void end_two_frees(void);
void end_free_and_pin(void);
void end_looking_frees(void);

/* With an exchange in place of the fence, and the first nr_with_fence with one; as main() does. */
int explore_all(const struct schedules_case *cases, unsigned nr_cases, unsigned nr_with_fence);

#endif
