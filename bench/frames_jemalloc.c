/* SPDX-License-Identifier: MIT */
/* Blocks of 4 KiB are aligned to themselves in jemalloc. */
#define _GNU_SOURCE
#include "frames.h"

#include <jemalloc/jemalloc.h>

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
        return (uint64_t)mallocx((size_t)1 << FRAME_SHIFT, 0);
    }
    return (uint64_t)mallocx((size_t)1 << (FRAME_SHIFT + HUGE_ORDER),
                             MALLOCX_LG_ALIGN(FRAME_SHIFT + HUGE_ORDER));
}

static inline void peer_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    (void)order;
    dallocx((void *)frame, 0);
}

static uint64_t peer_address(uint64_t frame)
{
    return frame;
}

static void peer_drain(void)
{
    mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
}

static void peer_extra(void)
{
}

#include "workloads.h"
