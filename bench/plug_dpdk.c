/* SPDX-License-Identifier: MIT */
/*
 * DPDK's heap: memory that is mapped and touched is added to a heap, which zeroes it, and removed.
 * Arguments of a command: page size in KiB, MiB.
 */
#define _GNU_SOURCE
#include "dpdk.h"
#include "worker.h"

#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HEAP "bench"
#define ALIGN_BYTES (2ull << 20)
#define CYCLES 3u

static void run_command(int nr_words, char **words)
{
    static struct worker_median in, out;
    uint64_t page_bytes, size_bytes;
    char *memory, *start;

    if (nr_words != 3) {
        worker_die("plug KiB MiB");
    }
    page_bytes = strtoull(words[1], NULL, 0) << 10;
    size_bytes = strtoull(words[2], NULL, 0) << 20;
    memory = mmap(NULL, size_bytes + ALIGN_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        worker_die("no memory");
    }
    start = memory + (-(uintptr_t)memory & (ALIGN_BYTES - 1));
    memset(start, 1, size_bytes);
    for (unsigned i = 0; i < CYCLES; i++) {
        uint64_t at = worker_wall_ns();

        if (rte_malloc_heap_memory_add(HEAP, start, size_bytes, NULL,
                                       (unsigned)(size_bytes / page_bytes), page_bytes) != 0) {
            worker_die(rte_strerror(rte_errno));
        }
        worker_add(&in, (double)(worker_wall_ns() - at));
        at = worker_wall_ns();
        if (rte_malloc_heap_memory_remove(HEAP, start, size_bytes) != 0) {
            worker_die(rte_strerror(rte_errno));
        }
        worker_add(&out, (double)(worker_wall_ns() - at));
    }
    munmap(memory, size_bytes + ALIGN_BYTES);
    worker_say("in", worker_median(&in));
    worker_say("out", worker_median(&out));
}

int main(void)
{
    dpdk_open(64);
    worker_pin(0);
    if (rte_malloc_heap_create(HEAP) != 0) {
        worker_die("no heap");
    }
    return worker_loop(run_command);
}
