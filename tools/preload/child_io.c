/* SPDX-License-Identifier: MIT */
/*
 * A forked child whose memory is read after the call has returned, or by a device: by way of a pipe
 * (vmsplice), of direct I/O, of a socket without copies. The kernel holds the frames for that,
 * which the parent may write to once the child has its own copy. So such memory is made the child's
 * before: what is spliced, and all of it where it makes a descriptor of the other two kinds. (Of
 * those that it was born with memplug_space_fork_child() knows.)
 */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* open and open64 are both to be defined */
#include "preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* False, with errno: there is no memory for it. */
static bool own(struct memplug_space *space, void *address, size_t size_bytes)
{
    int error = space ? memplug_space_child_own(space, address, size_bytes) : 0;

    if (error != 0)
        errno = -error;
    return error == 0;
}

static bool own_all(void)
{
    return own(mpl_pre_child(), NULL, SIZE_MAX);
}

MPL_PRE_EXPORT ssize_t vmsplice(int fd, const struct iovec *parts, size_t nr, unsigned flags)
{
    struct memplug_space *space = mpl_pre_child();

    for (size_t i = 0; i < nr && space; i++)
        if (!own(space, parts[i].iov_base, parts[i].iov_len))
            return -1;
    return syscall(SYS_vmsplice, fd, parts, nr, flags);
}

MPL_PRE_EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    if (level == SOL_SOCKET && name == SO_ZEROCOPY && !own_all())
        return -1;
    return (int)syscall(SYS_setsockopt, fd, level, name, value, size);
}

/* By the C library's own, where a thread can be cancelled. Looked up at the start, alone: later
 * that would wait for whoever loads a library. */
enum { OPEN, OPEN64, OPENAT, OPENAT64, FCNTL, NR_CALLS };
static _Atomic(void *) calls[NR_CALLS];

static void *real(unsigned which)
{
    static const char *const names[] = {"open", "open64", "openat", "openat64", "fcntl64"};
    void *found = atomic_load_explicit(&calls[which], memory_order_acquire);

    if (!found) {
        found = dlsym(RTLD_NEXT, names[which]);
        atomic_store_explicit(&calls[which], found, memory_order_release);
    }
    return found;
}

__attribute__((constructor)) static void look_up(void)
{
    for (unsigned i = 0; i < NR_CALLS; i++)
        real(i);
}

static int open_by(unsigned which, const char *path, int flags, unsigned mode)
{
    union {
        void *found;
        int (*call)(const char *path, int flags, ...);
    } open_real = {.found = real(which)};

    return (flags & O_DIRECT) != 0 && !own_all() ? -1 : open_real.call(path, flags, mode);
}

static int openat_by(unsigned which, int folder, const char *path, int flags, unsigned mode)
{
    union {
        void *found;
        int (*call)(int folder, const char *path, int flags, ...);
    } open_real = {.found = real(which)};

    return (flags & O_DIRECT) != 0 && !own_all() ? -1
                                                 : open_real.call(folder, path, flags, mode);
}

static unsigned mode_of(int flags, va_list arguments)
{
    return (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(arguments, unsigned) : 0;
}

#define MODE(mode)                                                                                \
    va_list arguments;                                                                            \
    unsigned mode;                                                                                \
                                                                                                  \
    va_start(arguments, flags);                                                                   \
    mode = mode_of(flags, arguments);                                                             \
    va_end(arguments)

MPL_PRE_EXPORT int open(const char *path, int flags, ...)
{
    MODE(mode);
    return open_by(OPEN, path, flags, mode);
}

MPL_PRE_EXPORT int open64(const char *path, int flags, ...)
{
    MODE(mode);
    return open_by(OPEN64, path, flags, mode);
}

MPL_PRE_EXPORT int openat(int folder, const char *path, int flags, ...)
{
    MODE(mode);
    return openat_by(OPENAT, folder, path, flags, mode);
}

MPL_PRE_EXPORT int openat64(int folder, const char *path, int flags, ...)
{
    MODE(mode);
    return openat_by(OPENAT64, folder, path, flags, mode);
}

/* What a fortified program calls. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int folder, const char *path, int flags);
int __openat64_2(int folder, const char *path, int flags);

MPL_PRE_EXPORT int __open_2(const char *path, int flags)
{
    return open_by(OPEN, path, flags, 0);
}

MPL_PRE_EXPORT int __open64_2(const char *path, int flags)
{
    return open_by(OPEN64, path, flags, 0);
}

MPL_PRE_EXPORT int __openat_2(int folder, const char *path, int flags)
{
    return openat_by(OPENAT, folder, path, flags, 0);
}

MPL_PRE_EXPORT int __openat64_2(int folder, const char *path, int flags)
{
    return openat_by(OPENAT64, folder, path, flags, 0);
}

/* What is more than the system call goes to the C library: not what our own calls are, which may
 * come before anything can be looked up. */
static int control(int fd, int command, void *argument)
{
    if (command == F_SETLKW || command == F_OFD_SETLKW || command == F_GETOWN) {
        union {
            void *found;
            int (*call)(int fd, int command, ...);
        } fcntl_real = {.found = real(FCNTL)};

        return fcntl_real.call(fd, command, argument);
    }
    if (command == F_SETFL && ((uintptr_t)argument & O_DIRECT) != 0 && !own_all())
        return -1;
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

#define ARGUMENT(argument)                                                                        \
    va_list arguments;                                                                            \
    void *argument;                                                                               \
                                                                                                  \
    va_start(arguments, command);                                                                 \
    argument = va_arg(arguments, void *);                                                         \
    va_end(arguments)

MPL_PRE_EXPORT int fcntl(int fd, int command, ...)
{
    ARGUMENT(argument);
    return control(fd, command, argument);
}

MPL_PRE_EXPORT int fcntl64(int fd, int command, ...)
{
    ARGUMENT(argument);
    return control(fd, command, argument);
}
