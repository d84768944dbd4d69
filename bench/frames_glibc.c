/* SPDX-License-Identifier: MIT */
/* glibc's malloc; aligned, as frames are. Its free is linear in what is held: a smaller bulk. */
#define _GNU_SOURCE
#include "frames.h"

#include <stdlib.h>

static const struct frames_peer peer = {.max_bulk = 16384};

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
    return (uint64_t)aligned_alloc((size_t)1 << (FRAME_SHIFT + order),
                                   (size_t)1 << (FRAME_SHIFT + order));
}

static inline void peer_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    (void)order;
    free((void *)frame);
}

static uint64_t peer_address(uint64_t frame)
{
    return frame;
}

static void peer_drain(void)
{

}

static void peer_extra(void)
{
}

#include "workloads.h"
