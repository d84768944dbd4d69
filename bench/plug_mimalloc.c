/* SPDX-License-Identifier: MIT */
/*
 * mimalloc takes memory over as an arena, which it never gives back; it has room for 64 of them,
 * so this worker lives for a round. The memory is not touched by it, and said to be committed and
 * zero. Argument of a command: MiB.
 */
#define _GNU_SOURCE
#include "worker.h"

#include <mimalloc.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ALIGN_BYTES (64ull << 20) /* of mimalloc's segments, and of a region */
#define CYCLES 12u

static void run_command(int nr_words, char **words)
{
    static struct worker_median in;
    uint64_t size_bytes;

    if (nr_words != 2) {
        worker_die("plug MiB");
    }
    size_bytes = strtoull(words[1], NULL, 0) << 20;
    for (unsigned i = 0; i < CYCLES; i++) {
        char *memory = mmap(NULL, size_bytes + ALIGN_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        uint64_t start;

        if (memory == MAP_FAILED) {
            worker_die("no memory");
        }
        memory += -(uintptr_t)memory & (ALIGN_BYTES - 1);
        start = worker_wall_ns();
        if (!mi_manage_os_memory(memory, size_bytes, true, false, true, -1)) {
            worker_die("mi_manage_os_memory has failed");
        }
        worker_add(&in, (double)(worker_wall_ns() - start));
    }
    worker_say("in", worker_median(&in));
}

int main(void)
{
    worker_pin(0);
    mi_free(mi_malloc(4096));
    return worker_loop(run_command);
}
