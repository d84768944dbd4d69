/* SPDX-License-Identifier: MIT */
/* Memory blocks as sysfs shows them, for chmem (shell_memory.c) and lsmem (shell_lsmem.c). */
#ifndef SHELL_MEMORY_H
#define SHELL_MEMORY_H

#include "shell_private.h"

#define MEMORY_DIRECTORY "/sys/devices/system/memory"

struct memory_block {
    uint64_t id;
    const char *state, *zones;
    bool online, removable;
    int node; /* -1: none */
};

struct memory {
    uint64_t block_bytes;
    struct memory_block *blocks; /* ascending */
    size_t count, size;
};

/* False if the machine does not show memory blocks. details: more than the ids. */
bool memory_read(struct shell *shell, struct memory *memory, bool details);
/* "128M", "4.1G", "0B". */
char *memory_size_text(struct shell *shell, uint64_t size_bytes);

int run_lsmem(struct shell *shell, int argc, char **argv);
bool lsmem_understood(const char *argument);

#endif
