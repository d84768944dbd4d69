/* SPDX-License-Identifier: MIT */
/*
 * The write fence: while it is raised over a mapping, every writer of that mapping sleeps,
 * whether it writes by itself or the kernel writes for it inside a system call. Readers run.
 *
 * It is userfaultfd write protection that nobody answers. Nobody reads the descriptor: a
 * sleeper that was never read is woken by UFFDIO_WAKE all the same (measured, Linux 6.18).
 * For that reason no event is asked for: munmap of a registered mapping would wait for a
 * reader that does not exist.
 *
 * How a piece of memory moves under a running program:
 *
 *     mpl_fence_raise(f, va, len);
 *     copy the old frame to the new one          readers still run on the old one
 *     mmap(va, len, ..., MAP_FIXED, new, off)    this replaces the fenced mapping
 *     mpl_fence_wake(f, va, len); sched_yield()  sleepers retry and land in the new frame
 *
 * or, to give up, mpl_fence_lower(f, va, len): then nothing has happened.
 *
 * A writer that was let in before raise() returned has finished its store, with one exception:
 * pages that the kernel pinned for I/O before the fence may be written at any later time. No
 * new pin for writing can arise behind the fence. See pins.h.
 *
 * Units: len in bytes; va and len are multiples of the page size of the mapping (2 MiB for
 * hugetlb). The mapping is MAP_SHARED of a memfd, tmpfs or hugetlb file.
 * Between raise and wake or lower the caller touches nothing that may sleep on its own fence:
 * its stack, its thread-local storage and its locks are not in movable memory.
 * No function here allocates, takes a lock of the C library or touches a FILE.
 * All may sleep in the kernel (mmap lock, page tables), none waits for the program.
 */
#ifndef MPL_LINUX_FENCE_H
#define MPL_LINUX_FENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Owned by the caller. It belongs to the process that opened it: after fork the child's copy
 * still speaks of the parent's memory, so the child closes it and opens its own. */
struct mpl_fence {
    int fd; /* userfaultfd, close-on-exec, never read; -1 when closed */
    bool insists; /* this kernel forgets pages: see mpl_fence_raise() */
};

/*
 * A full userfaultfd: first from /dev/userfaultfd (the permission on the node decides), then
 * by userfaultfd(2). One that stops at user mode only is refused, since the kernel's own writes
 * then fail with EFAULT instead of waiting.
 *   0            open
 *   -EPERM       neither the node nor the system call is permitted (hand in a descriptor of the
 *                node, give permission on it, or set vm.unprivileged_userfaultfd)
 *   -ENOSYS      the kernel has no userfaultfd
 *   -EOPNOTSUPP  it cannot write-protect shared memory (before Linux 5.19, or not this CPU)
 *   -EMFILE, -ENFILE, -ENOMEM
 * On failure f is closed (fd -1).
 */
int mpl_fence_open(struct mpl_fence *f);

/* The same from an open descriptor of /dev/userfaultfd that someone privileged handed in.
 * It is borrowed for the call only. -ENOTTY, -EBADF: it is something else. */
int mpl_fence_open_from(struct mpl_fence *f, int dev_fd);

/* A bare full userfaultfd with other features, for a stop of another kind (seal.h): from dev_fd,
 * or by the two ways of mpl_fence_open where dev_fd is -1. The descriptor, or -errno as above. */
int mpl_fence_descriptor(int dev_fd, uint64_t features);

/* Undo of open. Fences still raised fall and their sleepers run on. Closed twice is fine. */
void mpl_fence_close(struct mpl_fence *f);

/*
 * Raise the fence over [va, va + len). When it returns 0 no store is on its way any more.
 *
 * Linux 6.1 passes over a huge page that another thread maps again just then, without a word, and
 * writes are lost (measured: 5,356 of a test's; none on 6.12 and 6.18). So before 6.7 every page is
 * looked at in /proc/thread-self/pagemap, and protected again, until all are. A page of hugetlb or
 * of small ones is not passed over.
 *   -EINVAL   not mapped, not shared memory, or not aligned
 *   -EBUSY    the mapping is registered with another userfaultfd; or, before Linux 6.7, one page
 *             was not to be had
 *   -EACCES, -ENOENT  before Linux 6.7: pagemap cannot be read (no /proc; a process that is not
 *             dumpable)
 *   -ENOMEM   no memory for page tables, or the mapping would have to be split at the limit of
 *             vm.max_map_count
 * On failure nothing has changed.
 */
int mpl_fence_raise(struct mpl_fence *f, void *va, size_t len);

/* Undo of raise, of exactly the same range: writers run on, in the same frames. */
void mpl_fence_lower(struct mpl_fence *f, void *va, size_t len);

/* After the fenced mapping was replaced by mmap (which leaves the new one without a fence and
 * the sleepers asleep). A caller that goes on working yields the CPU afterwards: on a full
 * machine it otherwise keeps the woken writer waiting for a whole slice (4 to 8 ms, measured). */
void mpl_fence_wake(struct mpl_fence *f, void *va, size_t len);

#endif
