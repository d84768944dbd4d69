/* SPDX-License-Identifier: MIT */
/* mimalloc, by its own names, so that the rest of the program keeps glibc's malloc. */
#define _GNU_SOURCE
#include "frames.h"

#include <mimalloc.h>

static const struct frames_peer peer = {.max_bulk = 0};

static void peer_open(uint64_t nr_frames)
{
    (void)nr_frames;
}

static void peer_enter(unsigned thread)
{
    (void)thread;
}

static inline uint64_t peer_alloc(unsigned thread, unsigned order)
{
    (void)thread;
    if (order == 0) {
        return (uint64_t)mi_malloc((size_t)1 << FRAME_SHIFT);
    }
    return (uint64_t)mi_malloc_aligned((size_t)1 << (FRAME_SHIFT + HUGE_ORDER),
                                       (size_t)1 << (FRAME_SHIFT + HUGE_ORDER));
}

static inline void peer_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    (void)order;
    mi_free((void *)frame);
}

static uint64_t peer_address(uint64_t frame)
{
    return frame;
}

static void peer_drain(void)
{
    mi_collect(true);
}

static void peer_extra(void)
{
}

#include "workloads.h"
