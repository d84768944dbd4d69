/* SPDX-License-Identifier: MIT */
/*
 * System calls that answer a negative errno. Not the library's functions: those are points of
 * cancellation, and a program on pluggable memory interposes some of them. That errno is written is
 * harmless: the threads have their own, and in the caller's it is kept.
 */
#ifndef SOCKET_SYS_H
#define SOCKET_SYS_H

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline long mpl_answer_of(long result)
{
    return result < 0 ? -errno : result;
}

#define MPL_SYS(...) mpl_answer_of(syscall(__VA_ARGS__))

static inline void mpl_close(int fd)
{
    syscall(SYS_close, fd);
}

static inline uint64_t mpl_serve_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
