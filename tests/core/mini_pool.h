/* SPDX-License-Identifier: MIT */
/*
 * A pool without add and online: blocks are put into a zone by hand, with bitmaps and struct pages
 * that hold junk first. For tests of state/ and alloc.c alone.
 */
#ifndef MINI_POOL_H
#define MINI_POOL_H

#include "../../core/steps.h"

struct mini {
    struct memplug pool;
    struct memplug_host host;
    struct memplug_host_ops ops;
    size_t memmap_bytes;
    char *patterns;
};

struct mini_shape {
    unsigned pageblock_order, block_order, nr_blocks, nr_slots, nr_nodes, page_struct_bytes;
};

/* The CPU that this thread says it is on. */
extern _Thread_local unsigned mini_cpu;

struct mini *mini_open(const struct mini_shape *shape);
void mini_close(struct mini *mini);

/* Block id into the zone, isolated, its data held; and from there all the way to online. */
void mini_enter(struct mini *mini, uint64_t id, int node, enum memplug_zone zone,
                uint64_t nr_memmap);
void mini_online(struct mini *mini, uint64_t id, int node, enum memplug_zone zone,
                 uint64_t nr_memmap);
void mini_set_isolated(struct mini *mini, uint64_t id, bool isolated);

/* A mover that cannot move anything; returns its number. */
uint8_t mini_mover(struct mini *mini);

/* Recount every counter, summary and hint from the frames' states. Nobody else is running. */
void mini_check(struct mini *mini);
uint64_t mini_count(struct mini *mini, enum mpl_frame frame); /* data frames, all blocks */

#endif
