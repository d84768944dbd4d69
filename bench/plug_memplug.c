/* SPDX-License-Identifier: MIT */
/*
 * Adding and removing memory. "core": the core's own work, on memory that is mapped and warm.
 * "linux": with system calls, from memfd_create on; the memory is never touched. Arguments: how,
 * where the memmap lies ("block", "host"), MiB.
 */
#define _GNU_SOURCE
#include "pool.h"
#include "worker.h"

#include <stdlib.h>
#include <string.h>

#define CYCLES 24u

static bool is_linux;
static struct memplug *pool;

/* One range in and out again; the way in and the way out are timed. */
static void cycle(enum memplug_memmap memmap, uint64_t size_bytes, struct worker_median *in,
                  struct worker_median *out)
{
    struct memplug_reason reason;
    uint64_t start = worker_wall_ns();
    uint64_t address = bench_pool_plug(pool, memmap, size_bytes);
    uint64_t block = memplug_block_of(pool, address);

    worker_add(in, (double)(worker_wall_ns() - start));
    start = worker_wall_ns();
    bench_must(memplug_offline(pool, block, size_bytes / BENCH_BLOCK_BYTES, NULL, &reason),
               &reason);
    bench_must(memplug_remove(pool, address, size_bytes, NULL, &reason), &reason);
    worker_add(out, (double)(worker_wall_ns() - start));
    bench_pool_forget();
}

static void costs(enum memplug_memmap memmap, uint64_t size_bytes)
{
    uint64_t address = bench_pool_plug(pool, memmap, size_bytes);
    struct memplug_reason reason;
    struct memplug_stat stat;

    memplug_stat(pool, &stat);
    worker_say("preexisting", (double)stat.preexisting_bytes /
                                  (double)(size_bytes / BENCH_BLOCK_BYTES));
    bench_must(memplug_offline_and_remove(pool, address, size_bytes, NULL, &reason), &reason);
    bench_pool_forget();
}

static void run_command(int nr_words, char **words)
{
    static struct worker_median in, out;
    enum memplug_memmap memmap = MEMPLUG_MEMMAP_BLOCK;
    uint64_t size_bytes;

    if (nr_words != 3) {
        worker_die("bytes|plug block|host MiB");
    }
    if (strcmp(words[1], "host") == 0) {
        memmap = MEMPLUG_MEMMAP_HOST;
    }
    size_bytes = strtoull(words[2], NULL, 0) << 20;
    if (strcmp(words[0], "bytes") == 0) {
        costs(memmap, size_bytes);
        return;
    }
    for (unsigned i = 0; i < CYCLES; i++) {
        cycle(memmap, size_bytes, &in, &out);
    }
    worker_say("in", worker_median(&in));
    worker_say("out", worker_median(&out));
}

int main(int argc, char **argv)
{
    uint64_t size_bytes = 8ull << 30;

    is_linux = argc > 1 && strcmp(argv[1], "linux") == 0;
    worker_pin(0);
    pool = is_linux ? bench_pool_linux(size_bytes, true)
                    : bench_pool_warm(size_bytes / BENCH_BLOCK_BYTES, false, NULL);
    return worker_loop(run_command);
}
