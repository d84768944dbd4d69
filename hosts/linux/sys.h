/* SPDX-License-Identifier: MIT */
/*
 * System calls without the C library in between. A program on pluggable memory interposes mmap
 * and its kind, and must not see the host's own; open, close, read and their kind are points
 * where pthread_cancel would end a thread that holds our lock.
 */
#ifndef MPL_LINUX_SYS_H
#define MPL_LINUX_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Newer than the headers of some distributions. */
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static inline void *mpl_sys_mmap(void *start, uint64_t size_bytes, int protection, int flags,
                                 int fd, uint64_t offset)
{
    return (void *)syscall(SYS_mmap, start, size_bytes, protection, flags, fd, offset);
}

static inline int mpl_sys_munmap(void *start, uint64_t size_bytes)
{
    return (int)syscall(SYS_munmap, start, size_bytes);
}

static inline bool mpl_sys_membarrier(int command)
{
    return syscall(SYS_membarrier, command, 0, 0) == 0;
}

static inline int mpl_sys_madvise(void *start, uint64_t size_bytes, int advice)
{
    return (int)syscall(SYS_madvise, start, size_bytes, advice);
}

/* A program may forbid huge pages to itself, as ruby does, and redis where they are usual: then
 * none is made, and none is seen. They are allowed for as long as we need them. True: they were
 * forbidden. If the program changes its mind in that very moment, this is undone; and what it
 * executes in that moment does not inherit what it has forbidden. For one mover at a time: another
 * one's may be forbidden while it still moves, and then refuses. */
static inline bool mpl_sys_huge_allow(void)
{
    return syscall(SYS_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1 &&
           syscall(SYS_prctl, PR_SET_THP_DISABLE, 0, 0, 0, 0) == 0;
}

static inline void mpl_sys_huge_forbid(bool again)
{
    if (again)
        syscall(SYS_prctl, PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static inline int mpl_sys_mprotect(void *start, uint64_t size_bytes, int protection)
{
    return (int)syscall(SYS_mprotect, start, size_bytes, protection);
}

static inline int mpl_sys_munlock(void *start, uint64_t size_bytes)
{
    return (int)syscall(SYS_munlock, start, size_bytes);
}

static inline int mpl_sys_open(const char *path, int flags)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0);
}

/* A child that sends no signal has ended, and is gone. */
static inline void mpl_sys_reap(pid_t pid)
{
    while (syscall(SYS_wait4, pid, NULL, __WALL, NULL) < 0 && errno == EINTR)
        ;
}

static inline void mpl_sys_close(int fd)
{
    syscall(SYS_close, fd);
}

static inline long mpl_sys_read(int fd, void *bytes, uint64_t size_bytes)
{
    return syscall(SYS_read, fd, bytes, size_bytes);
}

static inline long mpl_sys_pread(int fd, void *bytes, uint64_t size_bytes, uint64_t offset)
{
    return syscall(SYS_pread64, fd, bytes, size_bytes, offset);
}

static inline int mpl_sys_fallocate(int fd, int mode, uint64_t offset, uint64_t size_bytes)
{
    return (int)syscall(SYS_fallocate, fd, mode, offset, size_bytes);
}

#endif
