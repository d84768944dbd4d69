/* SPDX-License-Identifier: MIT */
/*
 * In a forked child, which may share memory with its parent until one of the two writes (a lazy
 * fork). It has no pool; but some calls on that memory mean something else than on memory of its
 * own, and its parent must be able to reach it. All else goes to the kernel as it came.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* True, and the answer; false: this is no child, and the call is the caller's. */
static bool answer(const struct memplug_space *space, int error, int *result)
{
    if (space && error != 0)
        errno = -error;
    *result = error != 0 ? -1 : 0;
    return space != NULL;
}

bool mpl_pre_child_unmaps(void *address, size_t size_bytes, int *result)
{
    struct memplug_space *space = mpl_pre_child();

    return answer(space, space ? memplug_space_child_unmap(space, address, size_bytes) : 0, result);
}

bool mpl_pre_child_maps(void *address, size_t size_bytes, int protection, int flags, int fd,
                        off64_t offset, int *result)
{
    struct memplug_space *space = mpl_pre_child();

    return answer(space, space ? memplug_space_child_map(space, address, size_bytes, protection,
                                                         flags, fd, (uint64_t)offset) : 0, result);
}

bool mpl_pre_child_protects(void *address, size_t size_bytes, int protection, int *result)
{
    struct memplug_space *space = mpl_pre_child();

    return answer(space, space ? memplug_space_child_protect(space, address, size_bytes,
                                                             protection) : 0, result);
}

bool mpl_pre_child_advises(void *address, size_t size_bytes, int advice, int *result)
{
    struct memplug_space *space = mpl_pre_child();

    return answer(space, space ? memplug_space_child_advise(space, address, size_bytes,
                                                            advice) : 0, result);
}

bool mpl_pre_child_remaps(void *old, size_t old_bytes, size_t new_bytes, int flags, void **address)
{
    struct memplug_space *space = mpl_pre_child();
    int result;

    if (!answer(space, space ? memplug_space_child_remap(space, old, old_bytes, new_bytes, flags,
                                                         address) : 0, &result))
        return false;
    if (result != 0)
        *address = MAP_FAILED;
    return true;
}

/* --- by a descriptor of oneself --------------------------------------------------------------- */

#define SELF_THREAD (-10000) /* PIDFD_SELF_THREAD, newer than the headers */
#define SELF_PROCESS (-10001)
#define ADVICE_COLLAPSE 25 /* likewise */

/* By the inode, which each process has of its own since Linux 6.9. */
static bool is_self(int process)
{
    struct stat there, here;
    int self;
    bool same;

    if (process == SELF_THREAD || process == SELF_PROCESS)
        return true;
    self = (int)syscall(SYS_pidfd_open, syscall(SYS_getpid), 0);
    same = self >= 0 && fstat(self, &here) == 0 && fstat(process, &there) == 0 &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
    if (self >= 0)
        syscall(SYS_close, self);
    return same;
}

/* What the kernel lets one do to others as well leaves content alone. */
static bool is_of_others(int advice)
{
    return advice == MADV_COLD || advice == MADV_PAGEOUT || advice == MADV_WILLNEED ||
           advice == ADVICE_COLLAPSE;
}

MPL_PRE_EXPORT ssize_t process_madvise(int process, const struct iovec *parts, size_t nr,
                                       int advice, unsigned flags)
{
    struct memplug_space *space = is_of_others(advice) ? NULL : mpl_pre_child();
    ssize_t done = 0;

    /* Without parts it says whether it would do it. */
    if (!space || !is_self(process) ||
        syscall(SYS_process_madvise, process, parts, 0L, advice, flags) != 0)
        return syscall(SYS_process_madvise, process, parts, nr, advice, flags);
    for (size_t i = 0; i < nr; i++) {
        int error = memplug_space_child_advise(space, parts[i].iov_base, parts[i].iov_len, advice);

        if (error != 0 && done == 0)
            errno = -error;
        if (error != 0)
            return done > 0 ? done : -1;
        done += (ssize_t)parts[i].iov_len;
    }
    return done;
}

/* --- what its parent may not trace, and a parent that may not any more ------------------------ */

static void hide(void)
{
    struct memplug_space *space = mpl_pre_child();

    if (space)
        memplug_space_child_hides(space);
}

typedef int change_t(unsigned a, unsigned b, unsigned c);

/* The C library's own, since it changes all threads (but setfsuid(), which leaves the process not
 * dumpable); arguments that it has not do no harm. A parent gives its children their copies while
 * it can. (capset(2) is of one thread, and not of the library's; and who becomes undumpable can
 * trace whom he could.) */
static int change(const char *name, _Atomic(void *) *known, unsigned a, unsigned b, unsigned c)
{
    union {
        void *found;
        change_t *call;
    } real = {.found = mpl_pre_next(known, name)};
    struct memplug_space *space = mpl_pre_space_if_open();
    int result;

    hide();
    if (space)
        memplug_space_change_begin(space);
    result = real.call(a, b, c);
    if (space)
        memplug_space_change_end(space);
    return result;
}

#define CHANGE(name, arguments, ...)                     \
    MPL_PRE_EXPORT int name arguments                    \
    {                                                    \
        static _Atomic(void *) known;                    \
                                                         \
        return change(#name, &known, __VA_ARGS__);       \
    }

CHANGE(setuid, (uid_t a), a, 0, 0)
CHANGE(setgid, (gid_t a), a, 0, 0)
CHANGE(seteuid, (uid_t a), a, 0, 0)
CHANGE(setegid, (gid_t a), a, 0, 0)
CHANGE(setreuid, (uid_t a, uid_t b), a, b, 0)
CHANGE(setregid, (gid_t a, gid_t b), a, b, 0)
CHANGE(setfsuid, (uid_t a), a, 0, 0)
CHANGE(setfsgid, (gid_t a), a, 0, 0)
CHANGE(setresuid, (uid_t a, uid_t b, uid_t c), a, b, c)
CHANGE(setresgid, (gid_t a, gid_t b, gid_t c), a, b, c)

MPL_PRE_EXPORT int prctl(int option, ...)
{
    unsigned long words[4];
    va_list arguments;

    va_start(arguments, option);
    for (unsigned i = 0; i < 4; i++)
        words[i] = va_arg(arguments, unsigned long);
    va_end(arguments);
    if (option == PR_SET_DUMPABLE)
        hide();
    return (int)syscall(SYS_prctl, option, words[0], words[1], words[2], words[3]);
}
