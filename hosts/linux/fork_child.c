/* SPDX-License-Identifier: MIT */
/*
 * What a forked child has. Of a lazy fork it has private mappings of its parent's frames, and that
 * shows in three places: giving memory back would bring the frames' content and not zeros; a child
 * of its own would be nobody's, since the parent does not know it; and what it may not write
 * cannot be given to it. So it keeps the table of these mappings, and these calls go by it.
 */
#define _GNU_SOURCE
#include "fork_child.h"

#include "attend.h"
#include "attrs.h"
#include "fork_gate.h"
#include "holders.h"
#include "proc.h"
#include "sys.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

/* Another file may stand at the number of ours. */
static void close_uffd(int fd)
{
    struct uffdio_range none = {.start = 0, .len = 0};

    if (fd >= 0 && ioctl(fd, UFFDIO_WAKE, &none) < 0 && errno == EINVAL)
        mpl_sys_close(fd);
}

/* Else a child keeps the locks on files, and the memory of what its parent removes. */
static void close_all(struct memplug_space *space)
{
    struct memplug_linux *host = space->host;

    if (space->fork.attend && space->fork.attend->pid != 0)
        mpl_sys_close(space->fork.attend->pidfd);
    close_uffd(space->fence.fd);
    close_uffd(space->fork.uffd);
    for (uint64_t i = 0; i < host->nr_blocks; i++) {
        struct mpl_linux_block *block = &host->blocks[i];

        if (block->state != 0 && block->backing->kind == MEMPLUG_BACKING_HUGETLB)
            mpl_fd_close(block->fd, block->backing->dev, block->ino);
    }
    for (unsigned i = 0; i < MPL_NR_BACKINGS; i++)
        if (host->backings[i].in_use)
            mpl_fd_close(host->backings[i].fd, host->backings[i].dev, host->backings[i].ino);
}

static bool reads_at_once(void *context, int fd)
{
    (void)context;
    return !mpl_holders_reads_later(fd);
}

/* What it lends to the kernel must not be its parent's, who may write there once the child has its
 * copies. What cannot be looked at may be one of these. */
static int own_for_descriptors(struct memplug_space *space)
{
    if (mpl_proc_each("/proc/thread-self/fd", mpl_now_ns() + MPL_HOLDERS_NS, reads_at_once, NULL))
        return 0;
    return memplug_space_child_own(space, space->window.base, space->window.size_bytes);
}

int memplug_space_fork_child(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int saved = errno;
    int result = 0;

    mpl_spare_share(&space->host->spare);
    close_all(space);
    /* A grandchild would be nobody's: memplug_space_child_own() comes first, or it has none. */
    for (uint64_t i = 0; i < fork->nr && fork->lazy; i++)
        if (fork->pieces[i].kind == MPL_FORK_SHARE)
            mpl_sys_madvise(fork->pieces[i].va, fork->pieces[i].size_bytes, MADV_DONTFORK);
    if (fork->lazy)
        result = mpl_gate_wait(space);
    fork->first = NULL;
    if (fork->lazy && result == 0)
        result = own_for_descriptors(space);
    errno = saved;
    return result;
}

/* --- the table -------------------------------------------------------------------------------- */

static void block(uint64_t *before)
{
    const uint64_t all = UINT64_MAX;

    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, before, sizeof(all));
}

static void enter(struct mpl_fork *fork)
{
    uint64_t before;

    block(&before);
    mpl_lock_enter(&fork->changing);
    fork->unblocked = before;
}

void mpl_child_leave(struct memplug_space *space)
{
    uint64_t before = space->fork.unblocked;

    mpl_lock_leave(&space->fork.changing);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
}

bool mpl_child_enter(struct memplug_space *space, const void *address, uint64_t size_bytes)
{
    uintptr_t start = (uintptr_t)space->window.base, at = (uintptr_t)address;
    bool there = at < start + space->window.size_bytes &&
                 (at >= start || size_bytes > start - at);

    if (!space->fork.lazy || !there)
        return false;
    enter(&space->fork);
    return true;
}

/* The piece that has this address; else the first behind it, if there is one. */
static bool find(const struct mpl_fork *fork, const char *at, uint64_t *found)
{
    const char *nearest = NULL;

    for (uint64_t i = 0; i < fork->nr; i++) {
        const struct mpl_fork_piece *piece = &fork->pieces[i];

        if (piece->va + piece->size_bytes <= at || (nearest && piece->va >= nearest))
            continue;
        nearest = piece->va;
        *found = i;
    }
    return nearest != NULL;
}

bool mpl_child_next(const struct memplug_space *space, struct mpl_span *span, const char *end)
{
    const struct mpl_fork *fork = &space->fork;
    char *at = span->va + span->size_bytes;
    const char *to = end;

    if (at >= end)
        return false;
    *span = (struct mpl_span){.va = at};
    if (find(fork, at, &span->piece)) {
        const struct mpl_fork_piece *piece = &fork->pieces[span->piece];

        span->known = piece->va <= at;
        span->shared = span->known && piece->kind == MPL_FORK_SHARE;
        to = span->known ? piece->va + piece->size_bytes : piece->va;
    }
    span->size_bytes = (uint64_t)((to < end ? to : end) - at);
    return true;
}

/* Of a change in the middle of a piece two more can come. */
int mpl_child_room(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    uint64_t nr_max = 2 * fork->nr_max + 64;
    void *pieces;

    if (fork->nr + 2 <= fork->nr_max)
        return 0;
    pieces = mpl_sys_mmap(NULL, nr_max * sizeof(*fork->pieces), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pieces == MAP_FAILED)
        return -ENOMEM;
    if (fork->nr_max > 0) {
        memcpy(pieces, fork->pieces, fork->nr * sizeof(*fork->pieces));
        mpl_sys_munmap(fork->pieces, fork->nr_max * sizeof(*fork->pieces));
    }
    fork->pieces = pieces;
    fork->nr_max = nr_max;
    return 0;
}

static void add(struct mpl_fork *fork, const struct mpl_fork_piece *piece)
{
    if (piece->size_bytes > 0)
        fork->pieces[fork->nr++] = *piece;
}

/* What stands before and behind it goes on as pieces of their own. */
static struct mpl_fork_piece take_out(struct mpl_fork *fork, const struct mpl_span *span)
{
    struct mpl_fork_piece piece = fork->pieces[span->piece], head = piece, tail = piece;

    fork->pieces[span->piece] = fork->pieces[--fork->nr];
    head.size_bytes = (uint64_t)(span->va - piece.va);
    tail.va = span->va + span->size_bytes;
    tail.size_bytes = (uint64_t)(piece.va + piece.size_bytes - tail.va);
    add(fork, &head);
    add(fork, &tail);
    piece.va = span->va;
    piece.size_bytes = span->size_bytes;
    return piece;
}

void mpl_child_forget(struct memplug_space *space, char *va, uint64_t size_bytes)
{
    struct mpl_span span = {.va = va};

    while (mpl_child_next(space, &span, va + size_bytes))
        if (span.known)
            take_out(&space->fork, &span);
}

void mpl_child_add(struct memplug_space *space, char *va, uint64_t size_bytes, uint32_t attr)
{
    const struct mpl_fork_piece piece = {
        .va = va, .size_bytes = size_bytes, .attr = attr, .kind = MPL_FORK_EMPTY};

    add(&space->fork, &piece);
}

void mpl_child_mark(struct memplug_space *space, char *va, uint64_t size_bytes, uint32_t clear,
                    uint32_t set)
{
    struct mpl_fork *fork = &space->fork;
    struct mpl_span span = {.va = va};

    while (mpl_child_next(space, &span, va + size_bytes)) {
        struct mpl_fork_piece piece;

        if (!span.known || ((fork->pieces[span.piece].attr & ~clear) | set) ==
                               fork->pieces[span.piece].attr)
            continue;
        piece = take_out(fork, &span);
        piece.attr = (piece.attr & ~clear) | set;
        add(fork, &piece);
    }
}

void mpl_child_emptied(struct memplug_space *space, char *va, uint64_t size_bytes)
{
    struct mpl_span span = {.va = va};

    while (mpl_child_next(space, &span, va + size_bytes))
        if (span.shared) {
            struct mpl_fork_piece piece = take_out(&space->fork, &span);

            piece.kind = MPL_FORK_EMPTY;
            add(&space->fork, &piece);
        }
}

void mpl_child_apply(const struct memplug_space *space, char *va, uint64_t size_bytes,
                     uint32_t attr)
{
    mpl_attrs_apply(space, va, size_bytes, attr & ~(MPL_ATTR_MAPPED | MPL_ATTR_LOCKED), false);
    if ((attr & MPL_ATTR_STAYS) != 0)
        mpl_sys_madvise(va, size_bytes, MADV_DONTFORK);
    if ((attr & MPL_ATTR_MERGEABLE) != 0)
        mpl_sys_madvise(va, size_bytes, MADV_MERGEABLE);
}

/* --- its own ---------------------------------------------------------------------------------- */

bool mpl_child_mapped(const char *va, uint64_t size_bytes)
{
    return syscall(SYS_msync, va, size_bytes, MS_ASYNC) == 0;
}

/* An advice that does nothing but refuse what is locked. */
bool mpl_child_locked(char *va, uint64_t size_bytes)
{
    return mpl_sys_madvise(va, size_bytes, MADV_COLD) != 0 && errno == EINVAL;
}

static int inherit(char *va, uint64_t size_bytes, uint32_t attr)
{
    if ((attr & MPL_ATTR_STAYS) != 0 || mpl_sys_madvise(va, size_bytes, MADV_DOFORK) == 0)
        return 0;
    return -errno;
}

/* Behind our back it was unmapped, or cannot be written any more; or the kernel has no memory. */
static int own_page(const struct memplug_space *space, char *va, uint32_t attr)
{
    if (mpl_sys_madvise(va, space->page_bytes, MADV_POPULATE_WRITE) == 0)
        return inherit(va, space->page_bytes, attr);
    if (errno == EINVAL || errno == EFAULT || errno == EHWPOISON)
        return 0;
    return errno == ENOMEM && !mpl_child_mapped(va, space->page_bytes) ? 0 : -errno;
}

static int own(const struct memplug_space *space, uint32_t attr, char *va, uint64_t size_bytes)
{
    int result = 0;

    if ((attr & PROT_WRITE) == 0)
        return 0; /* since it was made so */
    if (mpl_sys_madvise(va, size_bytes, MADV_POPULATE_WRITE) == 0)
        return inherit(va, size_bytes, attr);
    for (uint64_t at = 0; at < size_bytes && result == 0; at += space->page_bytes)
        result = own_page(space, va + at, attr);
    return result;
}

/* By the table and not by the address: a heap in thousands of pieces is owned as a whole. */
int mpl_child_own(struct memplug_space *space, char *va, uint64_t size_bytes)
{
    const struct mpl_fork *fork = &space->fork;
    uintptr_t mask = space->page_bytes - 1;
    char *start = va - ((uintptr_t)va & mask), *end = space->window.base + space->window.size_bytes;
    int result = 0;

    if (size_bytes < (uintptr_t)end - (uintptr_t)va)
        end = (char *)(((uintptr_t)va + size_bytes + mask) & ~mask);
    for (uint64_t i = 0; i < fork->nr && result == 0; i++) {
        const struct mpl_fork_piece *piece = &fork->pieces[i];
        char *from = piece->va > start ? piece->va : start;
        char *to = piece->va + piece->size_bytes < end ? piece->va + piece->size_bytes : end;

        if (piece->kind == MPL_FORK_SHARE && from < to)
            result = own(space, piece->attr, from, (uint64_t)(to - from));
    }
    return result;
}

static int own_all(struct memplug_space *space)
{
    return mpl_child_own(space, space->window.base, space->window.size_bytes);
}

int memplug_space_child_own(struct memplug_space *space, void *address, uint64_t size_bytes)
{
    int saved = errno;
    int result;

    if (!mpl_child_enter(space, address, size_bytes))
        return 0;
    result = mpl_child_own(space, address, size_bytes);
    mpl_child_leave(space);
    errno = saved;
    return result;
}

void memplug_space_child_hides(struct memplug_space *space)
{
    int saved = errno;

    if (!space->fork.lazy || space->fork.traces_all)
        return;
    enter(&space->fork);
    own_all(space);
    mpl_child_leave(space);
    errno = saved;
}

int memplug_space_child_forks(struct memplug_space *space)
{
    int saved = errno;
    int result;

    if (!space->fork.lazy)
        return 0;
    enter(&space->fork);
    result = own_all(space);
    if (result != 0)
        mpl_child_leave(space);
    errno = saved;
    return result;
}

void memplug_space_child_forked(struct memplug_space *space)
{
    int saved = errno;

    if (space->fork.lazy)
        mpl_child_leave(space);
    errno = saved;
}
