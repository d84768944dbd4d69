/* SPDX-License-Identifier: MIT */
/*
 * DPDK's heap. A free of it zeroes the memory, and an aligned block of 4 KiB takes 8 KiB; its
 * search is linear: a smaller bulk, and no random one.
 */
#define _GNU_SOURCE
#include "frames.h"

#include "dpdk.h"

#include <rte_lcore.h>
#include <rte_malloc.h>

static const struct frames_peer peer = {
    .max_bulk = 4096,
    .no_huge = "its time is quadratic: 20 us a pair",
    .no_rand = "its time is quadratic",
};

static void peer_open(uint64_t nr_frames)
{
    (void)nr_frames;
    dpdk_open(128);
}

static void peer_enter(unsigned thread)
{
    if (thread != 0 && rte_thread_register() != 0) {
        worker_die("rte_thread_register has failed");
    }
}

static inline uint64_t peer_alloc(unsigned thread, unsigned order)
{
    (void)thread;
    return (uint64_t)rte_malloc(NULL, (size_t)1 << (FRAME_SHIFT + order), 1u << FRAME_SHIFT);
}

static inline void peer_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    (void)order;
    rte_free((void *)frame);
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

#include "one_by_one.h"
#include "workloads.h"
