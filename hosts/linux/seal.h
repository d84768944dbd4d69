/* SPDX-License-Identifier: MIT */
/*
 * The proof of a whole memfd, for memory that has no proof per unit (hugetlb; pins.h has the
 * others), and the move of all of its mappings that stands on it.
 *
 * F_ADD_SEALS F_SEAL_WRITE succeeds only when no writable mapping of the file exists and no page
 * of it has a reference that is not the kernel's own: nobody can write it any more, now or
 * later. It is spent by it: a sealed memfd can be read, truncated and closed, but not written
 * again. So a hugetlb block is a memfd of its own.
 *
 * The stop. A page that I/O still writes must be read where the I/O writes it; so readers
 * cannot be sent to a copy before the seal is set, and must wait as well as writers. (Leaving
 * them on a fenced copy is shorter and wrong: a read(2) with O_DIRECT that ends meanwhile shows
 * its caller the old content.) The new mappings are made beforehand, watched by a userfaultfd
 * that answers nothing, and moved over the old ones with mremap, which is atomic for each. Then
 * the seal, and then unit after unit is copied and let go, first the one that somebody waits
 * for. When the seal is refused the old file is mapped back and everyone runs on in it.
 *
 * The helper. The kernel waits up to 160 ms for references to go away and listens to nothing
 * but a fatal signal. So a child process that shares memory and descriptors does the mremaps
 * and the seal and is killed when the time is up; whether the seal is set is read afterwards.
 * It raises no SIGCHLD; a program that waits for any child with __WALL may see it.
 *
 * Units: bytes, nanoseconds. Nothing here allocates from the C library, takes a lock of it or
 * touches a FILE. Everything sleeps. One move of a file at a time.
 */
#ifndef MPL_LINUX_SEAL_H
#define MPL_LINUX_SEAL_H

#include <stddef.h>
#include <stdint.h>

/*
 * Seal fd against writing, waiting at most limit_ns for references to go away.
 *   0            sealed: nobody writes this file any more
 *   -EBUSY       a page is held, or a writable mapping exists; not sealed, nothing has changed
 *   -EPERM       seals are not allowed on this file (made without MFD_ALLOW_SEALING)
 *   -EOPNOTSUPP  it is no memfd
 *   -EAGAIN, -ENOMEM  no room for the helper
 */
int mpl_seal_prove(int fd, uint64_t limit_ns);

/* One mapping of the program that is to move. The ranges do not overlap. */
struct mpl_seal_unit {
    void *va;         /* where the program has it: exactly this range of exactly this file */
    size_t len;       /* multiple of the page size of both files */
    uint64_t src_off;
    int dst_fd;       /* not the source */
    uint64_t dst_off;
    void *to;         /* another, writable mapping of the destination. Where the source has
                       * holes it reads as zeros. On refusal its content is undefined. */
    int prot;         /* of the mapping at va, before and after */
    void *parked;     /* ours, during the call */
};

/* A writable mapping of the source that no thread uses meanwhile: the direct map. It is made
 * read-only, in place, and writable again if the move is refused. */
struct mpl_seal_drop {
    void *va;
    size_t len;
    uint64_t src_off;
};

struct mpl_seal_move {
    int src_fd;
    size_t src_len;
    struct mpl_seal_unit *units;
    unsigned nr_units;
    /* All other writable mappings of the source, in any process. What counts as writable is a
     * shared mapping of a descriptor that may write, even one of PROT_READ or PROT_NONE. */
    const struct mpl_seal_drop *drops;
    unsigned nr_drops;
    uint64_t limit_ns; /* for the seal; what was in flight drains meanwhile */
    int dev_fd;        /* of /dev/userfaultfd, or -1: open it ourselves */

    /* NULL, or: give the new mapping at `at`, which will stand at `home`, what it must have
     * (MADV_DONTFORK, MADV_DONTDUMP, a name, mlock2 with MLOCK_ONFAULT). Called before the
     * program can reach it. Must not touch its pages. */
    void (*dress)(void *ctx, void *at, size_t len, void *home);
    void *ctx;

    uint64_t stop_ns; /* out: from the first mapping taken to the last one let go */
};

/*
 * Move all units. The program may run; nothing but this call changes the ranges meanwhile.
 *   0       moved; the source is sealed, its drops are read-only, no unit maps it
 *   -EBUSY  a page of the source was held for the whole time, or it is mapped writable elsewhere
 *   others  as mpl_seal_prove and mpl_fence_open; -ENOMEM: no room for the mappings;
 *           -ENOENT: no /proc; -EINTR: someone killed the helper
 * On failure every mapping maps what it did and nothing is lost. The way back needs mappings
 * that were there before; spare ones are held for it. Should the process be unable to map
 * anything at all even so, the way back waits for it, since there is no other right answer.
 */
int mpl_seal_move(struct mpl_seal_move *m);

#endif
