/* SPDX-License-Identifier: MIT */
/*
 * A child's memory that is shared until somebody writes. The stand-in is a private mapping of the
 * very frames: what the child writes is its own, and what it reads are the frames, which do not
 * change before it has its own copy (first_write.h).
 *
 * The program's mapping is moved away with its page table, which costs the same for any size. Its
 * place stays mapped, empty, and touching it is a fault that nobody answers: so there is no moment
 * in which other threads could write to a stand-in, or find nothing. Away, it is write-protected;
 * the protection comes along when it moves back.
 */
#define _GNU_SOURCE
#include "fork.h"

#include "attrs.h"
#include "first_write.h"
#include "sys.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <time.h>

#define PAUSE_NS 1000000

static int enroll(int uffd, const char *va, uint64_t size_bytes, uint64_t mode)
{
    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)va, .len = size_bytes}, .mode = mode};

    return ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

static void dismiss(int uffd, const char *va, uint64_t size_bytes)
{
    struct uffdio_range range = {.start = (uintptr_t)va, .len = size_bytes};

    ioctl(uffd, UFFDIO_UNREGISTER, &range);
}

int mpl_fork_stand_in(const struct memplug_space *space, struct mpl_fork_piece *piece)
{
    bool shared = piece->kind == MPL_FORK_SHARE;
    int flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED | (shared ? 0 : MAP_ANONYMOUS);

    int error;

    /* mlockall(MCL_FUTURE) would fill it at once: with copies of what is there now, which is too
     * early. */
    if (mpl_sys_mmap(piece->stand_in, piece->size_bytes, PROT_NONE, flags, shared ? piece->fd : -1,
                     shared ? piece->file_offset : 0) == MAP_FAILED ||
        mpl_sys_munlock(piece->stand_in, piece->size_bytes) != 0)
        return -errno;
    /* A name that cannot be given, or an advice, is no reason to fail. */
    mpl_attrs_apply(space, piece->stand_in, piece->size_bytes,
                    piece->attr & ~(MPL_ATTR_MAPPED | MPL_ATTR_LOCKED), false);
    error = enroll(space->fork.uffd, piece->stand_in, piece->size_bytes,
                   UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP |
                       (shared ? UFFDIO_REGISTER_MODE_MINOR : 0));
    if (error == 0 && mpl_sys_mprotect(piece->stand_in, piece->size_bytes,
                                       (int)(piece->attr & MPL_ATTR_PROTECTION)) != 0)
        error = -errno;
    return error;
}

/* Away, nobody touches it: so it may be without protection for a moment. */
static int protect(const struct memplug_space *space, const struct mpl_fork_piece *piece)
{
    struct uffdio_writeprotect wp = {
        .range = {.start = (uintptr_t)piece->away, .len = piece->size_bytes},
        .mode = UFFDIO_WRITEPROTECT_MODE_WP,
    };
    int error;

    dismiss(space->fork.uffd, piece->away, piece->size_bytes); /* its place was to be a fault */
    if (piece->kind == MPL_FORK_EMPTY)
        return 0;
    error = enroll(space->fork.uffd, piece->away, piece->size_bytes, UFFDIO_REGISTER_MODE_WP);
    if (error == 0 && ioctl(space->fork.uffd, UFFDIO_WRITEPROTECT, &wp) < 0)
        error = -errno;
    return error;
}

int mpl_fork_share(const struct memplug_space *space, struct mpl_fork_piece *piece)
{
    int error;

    piece->kind = MPL_FORK_SHARE;
    error = mpl_fork_stand_in(space, piece);
    return error != 0 ? error : protect(space, piece);
}

int mpl_fork_park(const struct memplug_space *space, struct mpl_fork_piece *piece)
{
    uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
                    (space->fork.again ? UFFDIO_REGISTER_MODE_WP : 0);
    int error = enroll(space->fork.uffd, piece->va, piece->size_bytes, mode);

    if (error != 0)
        return error;
    if (syscall(SYS_mremap, piece->va, piece->size_bytes, piece->size_bytes,
                MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, piece->away) == -1) {
        error = -errno;
        /* Where units are shared it stays enrolled, or their protection would go. */
        if (!space->fork.again)
            dismiss(space->fork.uffd, piece->va, piece->size_bytes);
        return error;
    }
    piece->parked = true;
    return protect(space, piece);
}

/* Back from a fork that was given up, to children of before. What cannot be protected for them, the
 * program having closed the userfaultfd, becomes theirs. */
static void protect_again(struct memplug_space *space, const struct mpl_fork_piece *piece)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int error;

    while ((error = protect(space, piece)) == -ENOMEM || error == -EAGAIN)
        if (!mpl_spare_release(&space->host->spare))
            syscall(SYS_nanosleep, &pause, NULL);
    if (error != 0)
        mpl_first_settle(space, piece->va, piece->size_bytes);
}

/* One for one, so it needs no mapping that was not there; should others have taken all, spare ones
 * are let go, and at last it waits. */
void mpl_fork_unpark(struct memplug_space *space, struct mpl_fork_piece *piece, bool undo)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};

    if (undo && space->fork.again)
        protect_again(space, piece);
    else if (undo)
        dismiss(space->fork.uffd, piece->away, piece->size_bytes);
    while (syscall(SYS_mremap, piece->away, piece->size_bytes, piece->size_bytes,
                   MREMAP_MAYMOVE | MREMAP_FIXED, piece->va) == -1)
        if (!mpl_spare_release(&space->host->spare))
            syscall(SYS_nanosleep, &pause, NULL);
    piece->parked = piece->in_place = false;
    piece->away = NULL;
}
