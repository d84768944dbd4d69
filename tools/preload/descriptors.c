/* SPDX-License-Identifier: MIT */
/*
 * A program that closes all descriptors that it can count to must not close the library's: for it
 * they are not open. What goes round the C library finds them all the same; then the library
 * notices that a descriptor is another file, and says so.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sys/syscall.h>
#include <unistd.h>

static int next_own(int from)
{
    struct memplug_space *space = mpl_pre_space_if_open();

    return space ? memplug_space_descriptor(space, from) : -1;
}

static bool is_own(int fd)
{
    return fd >= 0 && next_own(fd) == fd;
}

MPL_PRE_EXPORT int close(int fd)
{
    if (!is_own(fd))
        return (int)syscall(SYS_close, fd);
    errno = EBADF;
    return -1;
}

/* Everything between two of ours. To mark them close-on-exec does no harm: they are. */
MPL_PRE_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    unsigned from = first;
    int own, result = 0;

    if ((flags & (int)CLOSE_RANGE_CLOEXEC) != 0 || first > last || first > INT_MAX ||
        !mpl_pre_space_if_open())
        return (int)syscall(SYS_close_range, first, last, flags);
    while (result == 0 && from <= last && (own = next_own((int)from)) >= 0 &&
           (unsigned)own <= last) {
        if ((unsigned)own > from)
            result = (int)syscall(SYS_close_range, from, (unsigned)own - 1, flags);
        from = (unsigned)own + 1;
    }
    return result == 0 && from <= last ? (int)syscall(SYS_close_range, from, last, flags)
                                       : result;
}

MPL_PRE_EXPORT void closefrom(int first)
{
    close_range(first > 0 ? (unsigned)first : 0, UINT_MAX, 0);
}

MPL_PRE_EXPORT int dup2(int old, int new)
{
    if (!is_own(new))
        return (int)syscall(SYS_dup2, old, new);
    errno = EBUSY;
    return -1;
}

MPL_PRE_EXPORT int dup3(int old, int new, int flags)
{
    if (!is_own(new))
        return (int)syscall(SYS_dup3, old, new, flags);
    errno = EBUSY;
    return -1;
}
