/* SPDX-License-Identifier: MIT */
/*
 * A forked child's calls on memory that it may share with its parent: each means what it means on
 * private memory that is no file's. The kernel's error is the answer, and what it would refuse has
 * not been changed before.
 */
#define _GNU_SOURCE
#include "attrs.h"
#include "fork_child.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

static int error_of(long result)
{
    return result < 0 ? -errno : 0;
}

/* --- munmap, mmap ----------------------------------------------------------------------------- */

int memplug_space_child_unmap(struct memplug_space *space, void *address, uint64_t size_bytes)
{
    uint64_t mask = space->page_bytes - 1;
    int saved = errno;
    int result;

    if (!mpl_child_enter(space, address, size_bytes)) {
        result = error_of(mpl_sys_munmap(address, size_bytes));
    } else {
        result = mpl_child_room(space);
        if (result == 0)
            result = error_of(mpl_sys_munmap(address, size_bytes));
        if (result == 0)
            mpl_child_forget(space, address, (size_bytes + mask) & ~mask);
        mpl_child_leave(space);
    }
    errno = saved;
    return result;
}

/* Of a call that has failed the kernel may have unmapped what was there. */
static void note_map(struct memplug_space *space, char *va, uint64_t size_bytes, int protection,
                     int flags, bool mapped)
{
    const int plain = MAP_PRIVATE | MAP_ANONYMOUS;
    uint64_t mask = space->page_bytes - 1;

    size_bytes = (size_bytes + mask) & ~mask;
    if (((uintptr_t)va & mask) != 0 || (!mapped && mpl_child_mapped(va, size_bytes)))
        return;
    mpl_child_forget(space, va, size_bytes);
    if (mapped && (flags & plain) == plain)
        mpl_child_add(space, va, size_bytes, (uint32_t)protection & MPL_ATTR_PROTECTION);
}

int memplug_space_child_map(struct memplug_space *space, void *address, uint64_t size_bytes,
                            int protection, int flags, int fd, uint64_t offset)
{
    int saved = errno;
    bool entered = mpl_child_enter(space, address, size_bytes);
    int result = entered ? mpl_child_room(space) : 0;

    if (result == 0) {
        bool mapped = mpl_sys_mmap(address, size_bytes, protection, flags | MAP_FIXED, fd,
                                   offset) != MAP_FAILED;

        result = mapped ? 0 : -errno;
        if (entered && (flags & MAP_FIXED_NOREPLACE) == 0)
            note_map(space, address, size_bytes, protection, flags, mapped);
    }
    if (entered)
        mpl_child_leave(space);
    errno = saved;
    return result;
}

/* --- mprotect --------------------------------------------------------------------------------- */

/* The kernel stops where nothing is mapped, and what stands before that is protected. */
static void note_protect(struct memplug_space *space, char *va, uint64_t size_bytes, int protection,
                         int result)
{
    uint64_t mask = space->page_bytes - 1, done = (size_bytes + mask) & ~mask;

    if (result != 0 && (result != -ENOMEM || mpl_child_mapped(va, size_bytes)))
        return;
    if (result != 0)
        for (done = 0; mpl_child_mapped(va + done, space->page_bytes);)
            done += space->page_bytes;
    mpl_child_mark(space, va, done, MPL_ATTR_PROTECTION,
                   (uint32_t)protection & MPL_ATTR_PROTECTION);
}

/* What cannot be written cannot be given to it later. */
int memplug_space_child_protect(struct memplug_space *space, void *address, uint64_t size_bytes,
                                int protection)
{
    int saved = errno;
    bool entered = mpl_child_enter(space, address, size_bytes);
    int result = entered ? mpl_child_room(space) : 0;

    if (result == 0 && entered && (protection & PROT_WRITE) == 0)
        result = mpl_child_own(space, address, size_bytes);
    if (result == 0) {
        result = error_of(mpl_sys_mprotect(address, size_bytes, protection));
        if (entered)
            note_protect(space, address, size_bytes, protection, result);
    }
    if (entered)
        mpl_child_leave(space);
    errno = saved;
    return result;
}

/* --- madvise: giving back --------------------------------------------------------------------- */

/* A mapping of no file in place of one, with its attributes. */
static int replace(struct memplug_space *space, const struct mpl_span *span)
{
    uint32_t attr = space->fork.pieces[span->piece].attr;

    if (mpl_sys_mmap(span->va, span->size_bytes, (int)(attr & MPL_ATTR_PROTECTION),
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return -errno;
    mpl_child_apply(space, span->va, span->size_bytes, attr);
    return 0;
}

/* Where no mapping is to be had, or it is locked, and so stays: zeros are written. */
static int zero(struct memplug_space *space, const struct mpl_span *span)
{
    int protection = (int)(space->fork.pieces[span->piece].attr & MPL_ATTR_PROTECTION);
    int result = mpl_sys_madvise(span->va, span->size_bytes, MADV_POPULATE_WRITE);

    if (result != 0) {
        if (mpl_sys_mprotect(span->va, span->size_bytes, PROT_READ | PROT_WRITE) != 0)
            return -errno;
        result = mpl_sys_madvise(span->va, span->size_bytes, MADV_POPULATE_WRITE) != 0 ? -errno : 0;
    }
    if (result == 0)
        memset(span->va, 0, span->size_bytes);
    mpl_sys_mprotect(span->va, span->size_bytes, protection);
    return result;
}

/* By the call that the program makes, and those of any allocator: in a sandbox no others may be
 * allowed. It does so where all is mapped and nothing locked. */
static bool drop(struct memplug_space *space, const struct mpl_span *span, int advice)
{
    if ((advice != MADV_DONTNEED && advice != MADV_FREE) || mpl_child_room(space) != 0 ||
        mpl_sys_madvise(span->va, span->size_bytes, MADV_DONTNEED) != 0 ||
        replace(space, span) != 0)
        return false;
    mpl_child_emptied(space, span->va, span->size_bytes);
    return true;
}

static int give_back(struct memplug_space *space, struct mpl_span *span, int advice)
{
    bool locked = mpl_child_locked(span->va, span->size_bytes);
    int result;

    if (advice == MADV_REMOVE)
        return -EINVAL; /* as of memory that is no file's */
    if (locked && span->size_bytes > space->page_bytes) {
        span->size_bytes = space->page_bytes; /* not all of it need be */
        locked = mpl_child_locked(span->va, span->size_bytes);
    }
    if (locked && advice == MADV_DONTNEED_LOCKED)
        return zero(space, span);
    if (locked)
        return -EINVAL;
    result = mpl_child_room(space);
    if (result == 0)
        result = replace(space, span);
    if (result == 0) {
        mpl_child_emptied(space, span->va, span->size_bytes);
        return error_of(mpl_sys_madvise(span->va, span->size_bytes, advice));
    }
    return advice == MADV_GUARD_INSTALL ? result : zero(space, span);
}

/* In order, as the kernel does; it goes on behind what is not mapped, and says so at the end. */
static int give_back_all(struct memplug_space *space, char *va, uint64_t size_bytes, int advice)
{
    struct mpl_span span = {.va = va};
    int result = error_of(mpl_sys_madvise(va, 0, advice)), missing = 0; /* known here? */

    while (result == 0 && mpl_child_next(space, &span, va + size_bytes)) {
        if (span.shared && drop(space, &span, advice))
            continue;
        if (span.shared && mpl_child_mapped(span.va, span.size_bytes))
            result = give_back(space, &span, advice);
        else
            result = error_of(mpl_sys_madvise(span.va, span.size_bytes, advice));
        if (result == -ENOMEM && !mpl_child_mapped(span.va, span.size_bytes)) {
            missing = result;
            result = 0;
        }
    }
    return result != 0 ? result : missing;
}

/* --- madvise ---------------------------------------------------------------------------------- */

static void attrs_of_advice(int advice, uint32_t *clear, uint32_t *set)
{
    mpl_attrs_of_advice(advice, clear, set);
    if (advice == MADV_DONTFORK)
        *set = MPL_ATTR_STAYS;
    if (advice == MADV_MERGEABLE)
        *set = MPL_ATTR_MERGEABLE;
    if (advice == MADV_UNMERGEABLE)
        *clear = MPL_ATTR_MERGEABLE;
}

static int advise(struct memplug_space *space, char *va, uint64_t size_bytes, int advice)
{
    uint32_t clear, set;
    int result = 0;

    switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_GUARD_INSTALL:
        return give_back_all(space, va, size_bytes, advice);
    case MADV_DOFORK:
        mpl_child_mark(space, va, size_bytes, MPL_ATTR_STAYS, 0);
        result = mpl_child_own(space, va, size_bytes);
        break;
    default:
        break;
    }
    attrs_of_advice(advice, &clear, &set);
    if (result == 0)
        result = error_of(mpl_sys_madvise(va, size_bytes, advice));
    /* The kernel goes on behind what is not mapped. */
    if (result == 0 || (result == -ENOMEM && !mpl_child_mapped(va, size_bytes)))
        mpl_child_mark(space, va, size_bytes, clear, set);
    return result;
}

int memplug_space_child_advise(struct memplug_space *space, void *address, uint64_t size_bytes,
                               int advice)
{
    uint64_t mask = space->page_bytes - 1;
    int saved = errno;
    int result;

    if (((uintptr_t)address & mask) != 0 || !mpl_child_enter(space, address, size_bytes)) {
        result = error_of(mpl_sys_madvise(address, size_bytes, advice));
    } else {
        result = mpl_child_room(space);
        if (result == 0)
            result = advise(space, address, (size_bytes + mask) & ~mask, advice);
        mpl_child_leave(space);
    }
    errno = saved;
    return result;
}
