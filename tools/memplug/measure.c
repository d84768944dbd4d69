/* SPDX-License-Identifier: MIT */
/* Figures that the pool has no part in. */
#include "demo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

uint64_t demo_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The line "key: N kB" of a file of /proc, in bytes; 0 if there is none. */
static uint64_t kilobytes(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    char line[256];
    uint64_t value = 0;

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':')
            value = strtoull(line + strlen(key) + 1, NULL, 10) * 1024;
    fclose(file);
    return value;
}

void demo_measure(struct demo_machine *machine)
{
    machine->page_table_bytes = kilobytes("/proc/self/status", "VmPTE");
    machine->rss_shmem_bytes = kilobytes("/proc/self/status", "RssShmem");
    machine->slab_bytes = kilobytes("/proc/meminfo", "Slab");
}

double demo_memcpy_gb_s(uint64_t size_bytes)
{
    uint64_t half = size_bytes < ((uint64_t)256 << 20) ? size_bytes : (uint64_t)256 << 20;
    char *memory = mmap(NULL, 2 * half, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    uint64_t begin_ns, spent_ns = 0, done = 0;

    if (memory == MAP_FAILED)
        return 0;
    memset(memory, 1, 2 * half);
    while (done < size_bytes) {
        begin_ns = demo_now_ns();
        for (uint64_t at = 0; at + DEMO_UNIT_BYTES <= half; at += DEMO_UNIT_BYTES)
            memcpy(memory + half + at, memory + at, DEMO_UNIT_BYTES);
        spent_ns += demo_now_ns() - begin_ns;
        done += half;
    }
    munmap(memory, 2 * half);
    return spent_ns != 0 ? (double)done / (double)spent_ns : 0;
}
