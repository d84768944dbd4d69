/* SPDX-License-Identifier: MIT */
/*
 * Memory is given back on another CPU. A mover that has emptied a source need not wait until the
 * kernel has freed it page by page; a second process that shares memory and descriptors does it
 * meanwhile. What it has not begun when somebody waits for it, the waiting thread does itself.
 * Without it (one CPU, no process to be had) each call is made where it is posted.
 *
 * The helper makes holes by descriptor, and nothing else. All that goes by address takes the lock
 * of the process's mappings, and on a full machine a helper can be given that lock while it waits
 * for a CPU; whoever has raised a fence would wait with it.
 *
 * One thread posts and waits. Nothing here allocates from the C library or takes a lock of it. It
 * raises no SIGCHLD; a program that waits for any child with __WALL may see it.
 */
#ifndef MPL_LINUX_ASIDE_H
#define MPL_LINUX_ASIDE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MPL_ASIDE_CALLS 64u

/* A part of a file; which file that is, since the program may close or overwrite any descriptor. */
struct mpl_aside_hole {
    int fd;
    uint64_t dev, ino;
    uint64_t offset, size_bytes;
};

struct mpl_aside_call {
    _Atomic uint32_t state;
    int result; /* 0 or -errno */
    struct mpl_aside_hole hole;
};

struct mpl_aside {
    struct mpl_aside_call calls[MPL_ASIDE_CALLS];
    unsigned next;              /* where to look for a free one */
    _Atomic uint32_t nr_posted; /* the helper sleeps on it */
    atomic_bool quit;
    bool running;
    pid_t pid, owner;
    char *stack;
};

/* Start and end the helper; aside is all zero before the first start. Every call was waited for
 * when it ends. */
void mpl_aside_start(struct mpl_aside *aside);
void mpl_aside_stop(struct mpl_aside *aside);

/* The call, which its owner gives back by waiting for it; NULL: as many as can be are under way. */
struct mpl_aside_call *mpl_aside_post(struct mpl_aside *aside, const struct mpl_aside_hole *hole);
/* 0; -ENODEV: the descriptor is another file; what fallocate says. */
int mpl_aside_wait(struct mpl_aside *aside, struct mpl_aside_call *call);

#endif
