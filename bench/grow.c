/* SPDX-License-Identifier: MIT */
/*
 * How cost grows, and how even it is. Commands:
 *   plug GIB      add, online, offline, remove so much address space (a sparse memfd, memmaps of
 *                 the host's: nothing is touched but bitmaps); ns for each 128 MiB
 *   pool GIB      alloc and free in random order in a pool of so much; ns a frame
 *   maps N        the same of 1 GiB beside N mappings of the process
 *   quiet, storm  one pair at a time for a while, alone or while another thread onlines and
 *                 offlines a block without pause; ns: p50, p99, p99.9, p99.99
 *   slot          what it costs to be inside: a CPU's lock, an own slot, rseq; ns
 */
#define _GNU_SOURCE
#include "pool.h"
#include "worker.h"

#include <memplug/slot.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "rseq.h"

#define NR_FRAMES 262144u
#define NR_SAMPLES 2000000u
#define PAGES_PER_BLOCK (BENCH_BLOCK_BYTES >> 12)

static struct memplug *pool;
static memplug_pfn_t frames[NR_FRAMES];
static uint64_t seed = 11;

/* --- plug ------------------------------------------------------------------------------------- */

static void plug(uint64_t gib, const char *in_name, const char *out_name)
{
    static struct worker_median in, out;
    uint64_t size_bytes = gib << 30, nr_parts = size_bytes / BENCH_BLOCK_BYTES;
    struct memplug_reason reason;

    for (unsigned i = 0; i < (gib < 512 ? 3 : 1); i++) {
        uint64_t start = worker_wall_ns();
        uint64_t address = bench_pool_plug(pool, MEMPLUG_MEMMAP_HOST, size_bytes);

        worker_add(&in, (double)(worker_wall_ns() - start) / (double)nr_parts);
        start = worker_wall_ns();
        bench_must(memplug_offline_and_remove(pool, address, size_bytes, NULL, &reason), &reason);
        worker_add(&out, (double)(worker_wall_ns() - start) / (double)nr_parts);
        bench_pool_forget();
    }
    worker_say(in_name, worker_median(&in));
    worker_say(out_name, worker_median(&out));
}

static void plug_beside(uint64_t nr_maps)
{
    /* Every second page has another protection: two mappings a step. */
    char *memory = mmap(NULL, (nr_maps + 2) * 4096, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    for (uint64_t i = 0; i < nr_maps / 2; i++) {
        if (mprotect(memory + i * 2 * 4096, 4096, PROT_READ) != 0) {
            worker_die("there are no more mappings");
        }
    }
    plug(1, "in", "out");
    munmap(memory, (nr_maps + 2) * 4096);
}

/* --- frames ----------------------------------------------------------------------------------- */

static memplug_pfn_t take(struct memplug_slot *slot)
{
    const struct memplug_alloc request = {.nr_pages = 1, .mover = 0};
    memplug_pfn_t pfn;
    int error = slot != NULL ? memplug_slot_alloc(slot, &request, &pfn)
                             : memplug_alloc(pool, &request, &pfn);

    bench_must(error, NULL);
    return pfn;
}

/* All but the last block is one allocation a pageblock, so that the lowest free frame is far up. */
static void fill_below(uint64_t nr_blocks)
{
    const struct memplug_alloc request = {.nr_pages = 512};
    memplug_pfn_t pfn;

    for (uint64_t i = 0; i < (nr_blocks - 1) * (bench_pool_block_bytes() >> 21); i++) {
        bench_must(memplug_alloc(pool, &request, &pfn), NULL);
    }
}

static void pool_of(uint64_t gib)
{
    static struct worker_median pairs;
    uint64_t size_bytes = gib << 30, start;

    bench_pool_plug(pool, MEMPLUG_MEMMAP_HOST, size_bytes);
    fill_below(size_bytes / bench_pool_block_bytes());
    for (unsigned round = 0; round < 5; round++) {
        start = worker_cpu_ns();
        for (unsigned i = 0; i < 16384; i++) {
            frames[i] = take(NULL);
        }
        for (unsigned i = 0; i < 16384; i++) {
            bench_must(memplug_free(pool, frames[i * 7919u % 16384], 1), NULL);
        }
        worker_add(&pairs, (double)(worker_cpu_ns() - start) / 16384);
    }
    worker_say("pair", worker_median(&pairs));
}

/* --- evenness --------------------------------------------------------------------------------- */

static atomic_bool stop;
static uint64_t nr_cycles, other_block;

static void *onlines(void *unused)
{
    struct memplug_reason reason;

    worker_pin(1);
    for (nr_cycles = 0; !atomic_load(&stop); nr_cycles++) {
        bench_must(memplug_offline(pool, other_block, 1, NULL, &reason), &reason);
        bench_must(memplug_online(pool, other_block, 1, MEMPLUG_ONLINE_KERNEL, NULL, &reason),
                   &reason);
    }
    return unused;
}

static int compare(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

static void evenness(bool stormy, bool own)
{
    static uint32_t samples[NR_SAMPLES];
    struct memplug_slot *slot = NULL;
    pthread_t thread;
    uint64_t last;

    if (own) {
        bench_must(memplug_slot_open(pool, &slot), NULL);
    }
    atomic_store(&stop, false);
    if (stormy && pthread_create(&thread, NULL, onlines, NULL) != 0) {
        worker_die("cannot make a thread");
    }
    for (unsigned i = 0; i < NR_SAMPLES; i++) {
        memplug_pfn_t *frame = &frames[worker_below(&seed, 4096)];

        last = worker_wall_ns();
        if (frame->nr != 0) {
            bench_must(own ? memplug_slot_free(slot, *frame, 1) : memplug_free(pool, *frame, 1),
                       NULL);
        }
        *frame = take(slot);
        samples[i] = (uint32_t)(worker_wall_ns() - last);
    }
    atomic_store(&stop, true);
    if (stormy) {
        pthread_join(thread, NULL);
        worker_say("cycles", (double)nr_cycles);
    }
    qsort(samples, NR_SAMPLES, sizeof(samples[0]), compare);
    worker_say("p50", samples[NR_SAMPLES / 2]);
    worker_say("p99", samples[NR_SAMPLES / 100 * 99]);
    worker_say("p99.9", samples[NR_SAMPLES / 1000 * 999]);
    worker_say("p99.99", samples[NR_SAMPLES / 10000 * 9999]);
    for (unsigned i = 0; i < 4096; i++) {
        if (frames[i].nr != 0) {
            bench_must(memplug_free(pool, frames[i], 1), NULL);
        }
        frames[i].nr = 0;
    }
    if (own) {
        memplug_slot_close(slot);
    }
}

/* --- the program ------------------------------------------------------------------------------ */

static void open_two_blocks(void)
{
    uint64_t address = bench_pool_plug(pool, MEMPLUG_MEMMAP_BLOCK, 2 * BENCH_BLOCK_BYTES);

    other_block = memplug_block_of(pool, address) + 1;
}

static void run_command(int nr_words, char **words)
{
    uint64_t number = nr_words > 1 ? strtoull(words[1], NULL, 0) : 0;

    if (strcmp(words[0], "plug") == 0) {
        plug(number, "in", "out");
    } else if (strcmp(words[0], "maps") == 0) {
        plug_beside(number);
    } else if (strcmp(words[0], "pool") == 0) {
        pool_of(number);
    } else if (strcmp(words[0], "slot") == 0) {
        rseq_costs();
    } else {
        evenness(strcmp(words[0], "storm") == 0, nr_words > 1);
    }
}

int main(int argc, char **argv)
{
    uint64_t gib = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;

    worker_pin(0);
    pool = bench_pool_linux(gib << 30, false);
    if (argc > 2) {
        open_two_blocks();
    }
    return worker_loop(run_command);
}
