/* SPDX-License-Identifier: MIT */
/*
 * memplug on the Linux host. OWNER is 0 for raw frames, which nobody can move, and 1 for owned
 * movable ones, whose owner is recorded in their struct page. OWN_SLOT is 0 for the slots of the
 * CPUs, and 1 for a slot of each thread's own.
 */
#define _GNU_SOURCE
#include "frames.h"

#include "pool.h"

#include <memplug/slot.h>

static const struct frames_peer peer = {.is_arena = true};

static struct memplug *pool;
static struct memplug_slot *slots[WORKER_THREADS];

static void peer_open(uint64_t nr_frames)
{
    /* Exactly the region, and so a memmap elsewhere; or enough for the bulks, self-hosted. */
    bool exact = nr_frames <= 262144;
    uint64_t size_bytes = (nr_frames << FRAME_SHIFT) + (exact ? 0 : BENCH_BLOCK_BYTES);

    pool = bench_pool_linux(size_bytes, OWNER != 0);
    bench_pool_plug(pool, exact ? MEMPLUG_MEMMAP_HOST : MEMPLUG_MEMMAP_BLOCK, size_bytes);
}

static void peer_enter(unsigned thread)
{
    if (OWN_SLOT != 0) {
        bench_must(memplug_slot_open(pool, &slots[thread]), NULL);
    }
}

static inline uint64_t peer_alloc(unsigned thread, unsigned order)
{
    const struct memplug_alloc request = {.nr_pages = 1u << order, .mover = OWNER};
    memplug_pfn_t pfn;

    if (OWN_SLOT != 0) {
        return memplug_slot_alloc(slots[thread], &request, &pfn) == 0 ? pfn.nr : 0;
    }
    return memplug_alloc(pool, &request, &pfn) == 0 ? pfn.nr : 0;
}

static inline void peer_free(unsigned thread, uint64_t frame, unsigned order)
{
    int error = OWN_SLOT != 0
                    ? memplug_slot_free(slots[thread], (memplug_pfn_t){frame}, 1u << order)
                    : memplug_free(pool, (memplug_pfn_t){frame}, 1u << order);

    if (error != 0) {
        worker_die("a frame could not be freed");
    }
}

static inline void peer_alloc_many(unsigned thread, uint64_t *to, unsigned nr)
{
    const struct memplug_alloc request = {.nr_pages = 1, .mover = OWNER};
    memplug_pfn_t *pfns = (memplug_pfn_t *)to;
    int got = OWN_SLOT != 0
                  ? memplug_slot_alloc_bulk(slots[thread], &request, NULL, pfns, nr)
                  : memplug_alloc_bulk(pool, &request, NULL, pfns, nr);

    if (got != (int)nr) {
        worker_die("a frame of the workload is not there");
    }
}

static inline void peer_free_many(unsigned thread, const uint64_t *from, unsigned nr)
{
    const memplug_pfn_t *pfns = (const memplug_pfn_t *)from;
    uint32_t nr_freed = OWN_SLOT != 0
                            ? memplug_slot_free_bulk(slots[thread], pfns, nr, NULL)
                            : memplug_free_bulk(pool, pfns, nr, NULL);

    if (nr_freed != nr) {
        worker_die("a frame could not be freed");
    }
}

static uint64_t peer_address(uint64_t frame)
{
    return frame << FRAME_SHIFT;
}

static void peer_drain(void)
{
}

/* What is wrong is refused: freed twice, of another order, no frame of this pool. */
static void peer_extra(void)
{
    const unsigned nr = 100000;
    uint64_t frame = peer_alloc(0, 0), huge = peer_alloc(0, HUGE_ORDER), start;
    unsigned refused = 0;

    peer_free(0, frame, 0);
    start = worker_cpu_ns();
    for (unsigned i = 0; i < nr; i++) {
        refused += memplug_free(pool, (memplug_pfn_t){frame}, 1) != 0;
    }
    worker_say("double", (double)(worker_cpu_ns() - start) / nr);
    start = worker_cpu_ns();
    for (unsigned i = 0; i < nr; i++) {
        refused += memplug_free(pool, (memplug_pfn_t){huge}, 1) != 0;
    }
    worker_say("order", (double)(worker_cpu_ns() - start) / nr);
    start = worker_cpu_ns();
    for (unsigned i = 0; i < nr; i++) {
        refused += memplug_free(pool, (memplug_pfn_t){1u << 30}, 1) != 0;
    }
    worker_say("foreign", (double)(worker_cpu_ns() - start) / nr);
    if (refused != 3 * nr) {
        worker_die("something wrong was not refused");
    }
    peer_free(0, huge, HUGE_ORDER);
}

#include "workloads.h"
