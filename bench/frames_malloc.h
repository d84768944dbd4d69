/* SPDX-License-Identifier: MIT */
/*
 * A malloc, by names of its own where it has them, so that the rest of the program keeps glibc's.
 * Included behind MALLOC(size), MALLOC_ALIGNED(size), aligned to itself, FREE(memory), DRAIN(), and
 * MAX_BULK, the most frames that it can be asked to hold at once; 0: any number.
 */
#include "frames.h"

static const struct frames_peer peer = {.max_bulk = MAX_BULK};

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
    if (order == 0)
        return (uint64_t)MALLOC((size_t)1 << FRAME_SHIFT);
    return (uint64_t)MALLOC_ALIGNED((size_t)1 << (FRAME_SHIFT + HUGE_ORDER));
}

static inline void peer_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    (void)order;
    FREE((void *)frame);
}

static uint64_t peer_address(uint64_t frame)
{
    return frame;
}

static void peer_drain(void)
{
    DRAIN();
}

static void peer_extra(void)
{
}

#include "one_by_one.h"
#include "workloads.h"
