/* SPDX-License-Identifier: MIT */
/*
 * The workloads of frames. A peer's file defines what is declared below and then includes
 * "workloads.h", so that its calls are compiled into the loops, as they would be in a program.
 * A frame is a number; its bytes are never touched.
 */
#ifndef BENCH_FRAMES_H
#define BENCH_FRAMES_H

#include "worker.h"

#define FRAME_SHIFT 12
#define HUGE_ORDER 9u

/* What a peer is. */
struct frames_peer {
    uint64_t max_bulk;    /* frames in one bulk; 0: as many as the workload has */
    const char *no_huge;  /* why there are no frames of order 9; null: there are */
    const char *no_rand;  /* why not the random and fragmentation workloads; null: they are */
    bool is_arena;        /* a region of its own, in which order 9 can run out */
};
static const struct frames_peer peer;

/* A region of nr_frames for all threads. */
static void peer_open(uint64_t nr_frames);
/* Each thread before its first frame. */
static void peer_enter(unsigned thread);
static inline uint64_t peer_alloc(unsigned thread, unsigned order); /* 0: there are none */
static inline void peer_free(unsigned thread, uint64_t frame, unsigned order);
/* Frames of order 0 by one call, if there is one (else: one_by_one.h). All that are asked for, or
 * the worker dies. */
static inline void peer_alloc_many(unsigned thread, uint64_t *to, unsigned nr);
static inline void peer_free_many(unsigned thread, const uint64_t *from, unsigned nr);
/* The frame's address, and what is kept at hand given back: for the fragmentation workload. */
static uint64_t peer_address(uint64_t frame);
static void peer_drain(void);
/* Times of its own that a peer wants to tell; may do nothing. */
static void peer_extra(void);

#endif
