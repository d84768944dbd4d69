/* SPDX-License-Identifier: MIT */
/* A space whose process forks: fork.c. */
#ifndef MPL_LINUX_FORK_H
#define MPL_LINUX_FORK_H

#include <stdbool.h>
#include <stdint.h>

struct mpl_attend;

/* One mapping of the program, and what stands in its place while the process forks. */
struct mpl_fork_piece {
    char *va;
    uint64_t size_bytes;
    char *frames;         /* in the direct map */
    uint64_t file_offset;
    int fd;
    uint32_t attr;
    bool sparse;          /* it may have holes */
    bool full;            /* it has none */
    bool in_place;        /* the copy stands at va */
    char *copy;           /* null: there is none, or it is in place */
};

struct mpl_fork {
    int uffd;             /* attend.h; -1: there is none */
    bool alone;           /* nobody to hold up */
    struct mpl_attend *attend;
    struct mpl_fork_piece *pieces;
    uint64_t nr, nr_max;
};

#endif
