/* SPDX-License-Identifier: MIT */
/*
 * What a forked child has. Of a lazy fork it has private mappings of its parent's frames, and that
 * shows in three places: giving memory back would bring the frames' content and not zeros; a child
 * of its own would be nobody's, since the parent does not know it; and what it may not write
 * cannot be given to it. So these go by the functions at the end.
 */
#define _GNU_SOURCE
#include "attend.h"
#include "first_write.h"
#include "space.h"
#include "sys.h"

#include <errno.h>
#include <linux/userfaultfd.h>
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

int memplug_space_fork_child(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int saved = errno;
    int result = 0;

    close_all(space);
    /* A grandchild would be nobody's: memplug_space_child_own() comes first, or it has none. */
    for (uint64_t i = 0; i < fork->nr && fork->lazy; i++)
        if (fork->pieces[i].kind == MPL_FORK_SHARE)
            mpl_sys_madvise(fork->pieces[i].va, fork->pieces[i].size_bytes, MADV_DONTFORK);
    if (fork->lazy)
        result = mpl_first_wait(space);
    fork->first = NULL;
    errno = saved;
    return result;
}

/* --- shared memory of a lazy fork ------------------------------------------------------------- */

typedef void act_t(struct memplug_space *space, struct mpl_fork_piece *piece, char *va,
                   uint64_t size_bytes);

/* Act on the shared parts of a range. */
static void each_shared(struct memplug_space *space, const void *address, uint64_t size_bytes,
                        act_t *act)
{
    struct mpl_fork *fork = &space->fork;
    uintptr_t mask = space->page_bytes - 1, last = (uintptr_t)address + size_bytes;
    int saved = errno;

    if (!fork->lazy)
        return;
    last = last + mask > last ? (last + mask) & ~mask : last;
    mpl_lock_enter(&fork->changing);
    for (uint64_t i = 0, nr = fork->nr; i < nr; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];
        uintptr_t start = (uintptr_t)piece->va, end = start + piece->size_bytes;
        uintptr_t from = (uintptr_t)address > start ? (uintptr_t)address : start;
        uintptr_t to = last < end ? last : end;

        if (piece->kind == MPL_FORK_SHARE && from < to)
            act(space, piece, (char *)from, to - from);
    }
    mpl_lock_leave(&fork->changing);
    errno = saved;
}

/* Whatever of it is still there; what is not to be had stays out of reach of grandchildren. */
static void own(struct memplug_space *space, struct mpl_fork_piece *piece, char *va,
                uint64_t size_bytes)
{
    uint64_t step = mpl_sys_madvise(va, size_bytes, MADV_POPULATE_WRITE) == 0 ? size_bytes
                                                                            : space->page_bytes;

    (void)piece;
    for (uint64_t at = 0; at < size_bytes; at += step)
        if (step == size_bytes || mpl_sys_madvise(va + at, step, MADV_POPULATE_WRITE) == 0)
            mpl_sys_madvise(va + at, step, MADV_DOFORK);
}

void memplug_space_child_own(struct memplug_space *space, const void *address, uint64_t size_bytes)
{
    each_shared(space, address, size_bytes, own);
}

void memplug_space_child_hides(struct memplug_space *space)
{
    if (!space->fork.traces_all)
        memplug_space_child_own(space, NULL, UINTPTR_MAX);
}

static void empty(struct memplug_space *space, struct mpl_fork_piece *piece, char *va,
                  uint64_t size_bytes)
{
    (void)space;
    (void)piece;
    if (mpl_sys_mmap(va, size_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                     0) == MAP_FAILED)
        memset(va, 0, size_bytes); /* no mapping is left */
}

void memplug_space_child_discard(struct memplug_space *space, void *address, uint64_t size_bytes)
{
    each_shared(space, address, size_bytes, empty);
}

/* In the middle of a piece: its tail is a piece of its own, or, without memory for the table, is
 * forgotten too, having become the child's. */
static void forget(struct memplug_space *space, struct mpl_fork_piece *piece, char *va,
                   uint64_t size_bytes)
{
    char *end = piece->va + piece->size_bytes;
    struct mpl_fork_piece tail = *piece;

    tail.va = va + size_bytes;
    tail.size_bytes = (uint64_t)(end - tail.va);
    piece->size_bytes = (uint64_t)(va - piece->va);
    if (tail.size_bytes == 0)
        return;
    if (piece->size_bytes == 0)
        *piece = tail;
    else if (mpl_fork_add(space, &tail) != 0)
        own(space, piece, tail.va, tail.size_bytes);
}

void memplug_space_child_unmapped(struct memplug_space *space, const void *address,
                                  uint64_t size_bytes)
{
    each_shared(space, address, size_bytes, forget);
}
