/* SPDX-License-Identifier: MIT */
/* What the kernel asks for it: a memfd of a size, mapped; and back. Argument of a command: MiB. */
#define _GNU_SOURCE
#include "worker.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define CYCLES 24u

static void run_command(int nr_words, char **words)
{
    static struct worker_median create, map, out;
    uint64_t size_bytes;

    if (nr_words != 2) {
        worker_die("plug MiB");
    }
    size_bytes = strtoull(words[1], NULL, 0) << 20;
    for (unsigned i = 0; i < CYCLES; i++) {
        uint64_t start = worker_wall_ns(), created;
        int fd = memfd_create("bare", MFD_CLOEXEC);
        void *memory;

        created = worker_wall_ns();
        if (fd < 0 || ftruncate(fd, (off_t)size_bytes) != 0) {
            worker_die("no memfd");
        }
        memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (memory == MAP_FAILED) {
            worker_die("no mapping");
        }
        worker_add(&create, (double)(worker_wall_ns() - start));
        worker_add(&map, (double)(worker_wall_ns() - created));
        start = worker_wall_ns();
        munmap(memory, size_bytes);
        close(fd);
        worker_add(&out, (double)(worker_wall_ns() - start));
    }
    worker_say("in", worker_median(&create));
    worker_say("in-without-create", worker_median(&map));
    worker_say("out", worker_median(&out));
}

int main(void)
{
    worker_pin(0);
    return worker_loop(run_command);
}
