/* SPDX-License-Identifier: MIT */
/*
 * Forked children that read this process's frames, and their copies.
 *
 * A child gets its own copy of pages without its help, even if it is stopped: process_vm_writev()
 * from a place that cannot be read makes its pages its own, since it is about to write them, and
 * then fails with nothing written. It does not say so; so what became of each page is read in the
 * child's pagemap: present or swapped, and not a page of a file. That descriptor belongs to the
 * memory and not to the process: when the child has ended, or is another program, it reads as
 * empty. Should somebody else have the child's number by then, its pages become its own sooner,
 * and it notices nothing.
 *
 * Used by one thread (first_write.c), in whose table the descriptors are: nobody else closes them.
 */
#ifndef MPL_LINUX_CHILDREN_H
#define MPL_LINUX_CHILDREN_H

#include "fork.h"
#include "overdue.h"

#include <stdatomic.h>
#include <sys/types.h>

#define MPL_NR_CHILDREN 256u

struct memplug_linux;

/* Addresses of the child that are private mappings of a file of ours. */
struct mpl_child_range {
    uint64_t va, size_bytes;
    uint64_t dev, ino, file_offset;
};

struct mpl_child {
    pid_t pid;
    int pagemap;
    uint64_t nr_ranges;
    struct mpl_child_range *ranges;
};

struct mpl_children {
    struct memplug_linux *host;
    uint64_t page_bytes;
    int proc;             /* the directory */
    const char *nothing;  /* a page that cannot be read */
    atomic_uint nr;       /* others read it */
    _Atomic uint64_t *nr_settled_pages;
    struct mpl_overdue *overdue;
    struct mpl_child child[MPL_NR_CHILDREN];
};

/* 0, or -errno and why it cannot be done on this machine: tried on a child made for it. */
int mpl_children_open(struct mpl_children *children, const char **why);

void mpl_children_close(struct mpl_children *children);

/* Where a child will have the SHARE pieces, before it is born. -ENOMEM, -EBADF. */
int mpl_children_list(struct memplug_linux *host, const struct mpl_fork *fork,
                      struct mpl_child_range **ranges, uint64_t *nr_ranges);
void mpl_children_unlist(struct memplug_linux *host, struct mpl_child_range *ranges,
                         uint64_t nr_ranges);

/* The process that this thread forked last, which is known by the serial in its memory; there is
 * room for it. The ranges become its own. -ECHILD: there is none, or it cannot be reached; -errno
 * of open(2). */
int mpl_children_adopt(struct mpl_children *children, pid_t thread, const uint64_t *serial,
                       struct mpl_child_range *ranges, uint64_t nr_ranges);

/* Forget those that have ended or are another program; is any left? */
bool mpl_children_any(struct mpl_children *children);

/* All children have these pages for themselves. Not 0: the child *which has not. */
int mpl_children_settle(struct mpl_children *children, const char *va, uint64_t size_bytes,
                        unsigned *which);

/* End a child that cannot be given its copy: its pid, 0 if it has ended by itself, or less than 0,
 * and that is not permitted either. */
pid_t mpl_children_end(struct mpl_children *children, unsigned which);

#endif
