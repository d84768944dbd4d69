/* SPDX-License-Identifier: MIT */
/*
 * A block goes offline while half of its frames are used, at random; the mover copies them within
 * warm memory. Beside it, in the same round, memcpy of the same frames to frames of another block.
 * Argument of a command: the order of the allocations.
 */
#define _GNU_SOURCE
#include "pool.h"
#include "worker.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_PAGES (BENCH_BLOCK_BYTES >> 12)
#define CYCLES 5u

static struct memplug *pool;
static uint64_t seed = 7;
static memplug_pfn_t where[BLOCK_PAGES];

static void *bytes_of(memplug_pfn_t pfn)
{
    return bench_pool_warm_memory() + (pfn.nr << 12);
}

/* The owner's list by cookie is what the pages' users go by. */
static void move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++) {
        memcpy(bytes_of(moves[i].to), bytes_of(moves[i].from), (size_t)moves[i].nr_pages << 12);
        where[moves[i].cookie] = moves[i].to;
        moves[i].result = 0;
    }
}

static const struct memplug_mover mover = {.name = "the benchmark", .move = move};

/* Frames of the first block only: it is alone online. Half of them stay. */
static uint64_t fill(uint32_t nr_pages)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .mover = 1};
    uint64_t nr = 0;

    while (memplug_alloc(pool, &request, &where[nr]) == 0) {
        nr++;
    }
    for (uint64_t left = nr / 2; left > 0; left--) {
        uint64_t victim = worker_below(&seed, nr);

        bench_must(memplug_free(pool, where[victim], nr_pages), NULL);
        where[victim] = where[--nr];
    }
    return nr;
}

static int compare(const void *a, const void *b)
{
    uint64_t left = ((const memplug_pfn_t *)a)->nr, right = ((const memplug_pfn_t *)b)->nr;

    return (left > right) - (left < right);
}

/* Cookies cannot be given before it is known who stays. */
static void name_all(uint64_t nr)
{
    qsort(where, nr, sizeof(where[0]), compare);
    for (uint64_t i = 0; i < nr; i++) {
        bench_must(memplug_set_cookie(pool, where[i], i), NULL);
    }
}

static double copy_all(uint64_t nr, uint32_t nr_pages)
{
    char *to = bench_pool_warm_memory() + 2 * BENCH_BLOCK_BYTES + (2u << 20);
    uint64_t start = worker_wall_ns();

    for (uint64_t i = 0; i < nr; i++) {
        memcpy(to + (i * nr_pages << 12), bytes_of(where[i]), (size_t)nr_pages << 12);
    }
    return (double)(worker_wall_ns() - start);
}

static void online(uint64_t block, bool on)
{
    struct memplug_reason reason;

    bench_must(on ? memplug_online(pool, block, 1, MEMPLUG_ONLINE_MOVABLE, NULL, &reason)
                  : memplug_offline(pool, block, 1, NULL, &reason), &reason);
}

static void run_command(int nr_words, char **words)
{
    static struct worker_median offline, copy;
    uint32_t nr_pages = 1u << (nr_words > 1 ? atoi(words[1]) : 0);
    uint64_t nr = 0;

    for (unsigned i = 0; i < CYCLES; i++) {
        uint64_t start;

        nr = fill(nr_pages);
        name_all(nr);
        online(2, true);
        worker_add(&copy, copy_all(nr, nr_pages));
        start = worker_wall_ns();
        online(1, false);
        worker_add(&offline, (double)(worker_wall_ns() - start));
        for (uint64_t j = 0; j < nr; j++) {
            if (where[j].nr < 2 * BLOCK_PAGES) {
                worker_die("a page has not moved");
            }
            bench_must(memplug_free(pool, where[j], nr_pages), NULL);
        }
        online(1, true);
        online(2, false);
    }
    worker_say("pages", (double)nr * nr_pages);
    worker_say("offline", worker_median(&offline));
    worker_say("memcpy", worker_median(&copy));
}

int main(void)
{
    worker_pin(0);
    pool = bench_pool_warm(2, true, &mover);
    bench_pool_plug(pool, MEMPLUG_MEMMAP_BLOCK, 2 * BENCH_BLOCK_BYTES);
    online(2, false);
    return worker_loop(run_command);
}
