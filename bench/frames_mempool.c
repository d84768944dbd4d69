/* SPDX-License-Identifier: MIT */
/*
 * DPDK's rte_mempool: objects of 4 KiB behind a ring, with a cache a thread. It can give no other
 * size, join nothing, and give nothing back.
 */
#define _GNU_SOURCE
#include "frames.h"

#include "dpdk.h"

#include <rte_lcore.h>
#include <rte_mempool.h>

static const struct frames_peer peer = {
    .no_huge = "a mempool has objects of one size",
    .is_arena = true,
};

static struct rte_mempool *pool;

static void peer_open(uint64_t nr_frames)
{
    dpdk_open(nr_frames * 4400 / 1048576 + 256);
    pool = rte_mempool_create("frames", (unsigned)nr_frames, 1u << FRAME_SHIFT,
                              RTE_MEMPOOL_CACHE_MAX_SIZE, 0, NULL, NULL, NULL, NULL, 0, 0);
    if (pool == NULL) {
        worker_die("rte_mempool_create has failed");
    }
}

static void peer_enter(unsigned thread)
{
    if (thread != 0 && rte_thread_register() != 0) {
        worker_die("rte_thread_register has failed");
    }
}

static inline uint64_t peer_alloc(unsigned thread, unsigned order)
{
    void *frame = NULL;

    (void)thread;
    (void)order;
    return rte_mempool_get(pool, &frame) == 0 ? (uint64_t)frame : 0;
}

static inline void peer_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    (void)order;
    rte_mempool_put(pool, (void *)frame);
}

static inline void peer_alloc_many(unsigned thread, uint64_t *to, unsigned nr)
{
    (void)thread;
    if (rte_mempool_get_bulk(pool, (void **)to, nr) != 0) {
        worker_die("a frame of the workload is not there");
    }
}

static inline void peer_free_many(unsigned thread, const uint64_t *from, unsigned nr)
{
    (void)thread;
    rte_mempool_put_bulk(pool, (void *const *)from, nr);
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
