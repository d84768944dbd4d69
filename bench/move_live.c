/* SPDX-License-Identifier: MIT */
/*
 * A block goes offline while a program's mappings lie in half of it. Arguments: what the memory is
 * of ("small", "thp" or "hugetlb" pages), and "trusted" or "proved" pins. Beside it, in the same
 * round, memcpy of as many bytes between two shared mappings. Both ways the target's pages exist
 * already ("touched" of a command), or are made on the way ("fresh").
 */
#define _GNU_SOURCE
#include "pool.h"
#include "worker.h"

#include <memplug/space.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define UNIT_BYTES (2ull << 20)
#define MAPPED_BYTES (31 * UNIT_BYTES)
#define COLLAPSE 25 /* MADV_COLLAPSE */
#define CYCLES 5u

static struct memplug *pool;
static struct memplug_space *space;
static uint64_t first_block;
static char *memory, *copy_from, *copy_to;
static bool is_thp, is_small;

static void *shared(void)
{
    void *address = mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (address == MAP_FAILED) {
        worker_die("no memory");
    }
    memset(address, 1, MAPPED_BYTES);
    return address;
}

static void touch_block(uint64_t block)
{
    uint64_t nr_pages = BENCH_BLOCK_BYTES >> 12, first = block * nr_pages;

    for (uint64_t i = nr_pages / 64; i < nr_pages; i++) { /* not its memmap */
        *(volatile char *)memplug_page_address(pool, (memplug_pfn_t){first + i}) = 1;
    }
}

static void set(uint64_t block, bool on)
{
    struct memplug_reason reason;

    bench_must(on ? memplug_online(pool, block, 1, MEMPLUG_ONLINE_MOVABLE, NULL, &reason)
                  : memplug_offline(pool, block, 1, NULL, &reason), &reason);
}

/* The pages of the mapping are in this block now. Written, so that none is a hole. A move makes
 * small pages huge: those that are to be small are made anew. */
static void prepare(void)
{
    if (is_small) {
        bench_must(memplug_advise(space, memory, MAPPED_BYTES, MADV_DONTNEED), NULL);
    }
    memset(memory, 2, MAPPED_BYTES);
    if (is_thp) {
        bench_must(memplug_advise(space, memory, MAPPED_BYTES, COLLAPSE), NULL);
    }
}

static void run_command(int nr_words, char **words)
{
    static struct worker_median offline, copy;
    bool touched = nr_words > 1 && strcmp(words[1], "touched") == 0;
    struct memplug_space_stat stat;

    for (unsigned i = 0; i < CYCLES * 2; i++) {
        uint64_t from = first_block + i % 2, to = first_block + 1 - i % 2, start;

        prepare();
        set(to, true);
        if (touched) {
            touch_block(to);
        }
        start = worker_wall_ns();
        memcpy(copy_to, copy_from, MAPPED_BYTES);
        worker_add(&copy, (double)(worker_wall_ns() - start));
        start = worker_wall_ns();
        set(from, false);
        worker_add(&offline, (double)(worker_wall_ns() - start));
    }
    memplug_space_stat(space, &stat);
    worker_say("offline", worker_median(&offline));
    worker_say("memcpy", worker_median(&copy));
    worker_say("pause-p99", (double)memplug_pause_ns(&stat.pause, 990));
    worker_say("pause-p50", (double)memplug_pause_ns(&stat.pause, 500));
}

static void open_space(bool trusted)
{
    struct memplug_space_config config = {
        .pins = trusted ? MEMPLUG_PINS_TRUSTED : MEMPLUG_PINS_PROVED,
        .node = MEMPLUG_ANY_NODE,
    };
    struct memplug_mapping populate = {.populate = true};
    struct memplug_reason reason;
    void *address;

    bench_must(memplug_space_open(bench_pool_linux_host(), pool, &config, &space, &reason),
               &reason);
    bench_must(memplug_space_movable(space, &reason), &reason);
    bench_must(memplug_map(space, MAPPED_BYTES, &populate, &address, &reason), &reason);
    memory = address;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        worker_die("live-memplug small|thp|hugetlb trusted|proved");
    }
    is_thp = strcmp(argv[1], "thp") == 0;
    is_small = strcmp(argv[1], "small") == 0;
    copy_from = shared();
    copy_to = shared();
    pool = bench_pool_linux(2 * BENCH_BLOCK_BYTES, true);
    bench_pool_huge(strcmp(argv[1], "hugetlb") == 0);
    first_block = memplug_block_of(pool, bench_pool_plug(pool, MEMPLUG_MEMMAP_BLOCK,
                                                         2 * BENCH_BLOCK_BYTES));
    set(first_block + 1, false);
    open_space(strcmp(argv[2], "trusted") == 0);
    return worker_loop(run_command);
}
