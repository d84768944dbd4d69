/* SPDX-License-Identifier: MIT */
/*
 * A program that puts itself into the background forks, and ends: what goes on is a child, which
 * has ordinary memory. Nobody would notice but by an empty list of programs; so it is said.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SETTLE_NS 20000000 /* a child that will execute another program does so soon */

static _Atomic pid_t last_child; /* that this process forked */
static _Atomic pid_t parent;     /* this process */

void mpl_pre_forked(pid_t child)
{
    if (mpl_pre_space_if_open()) {
        atomic_store(&parent, (pid_t)syscall(SYS_getpid));
        atomic_store(&last_child, child);
    }
}

static bool same_program(pid_t child)
{
    struct mpl_line path = {.length = 0};
    struct stat ours, other;

    mpl_line_add(&path, "/proc/");
    mpl_line_add_number(&path, (uint64_t)child);
    mpl_line_add(&path, "/exe");
    path.text[path.length] = 0;
    return fstatat(AT_FDCWD, "/proc/self/exe", &ours, 0) == 0 &&
           fstatat(AT_FDCWD, path.text, &other, 0) == 0 && ours.st_dev == other.st_dev &&
           ours.st_ino == other.st_ino;
}

/* Also what is about to end, and whatever else cannot be known yet. */
static bool goes_on(pid_t child)
{
    siginfo_t info = {.si_pid = 0};

    return syscall(SYS_waitid, P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT, NULL) == 0 &&
           info.si_pid == 0 && same_program(child);
}

/* Not for a child in the middle of vfork, which has our memory. */
static void say_what_is_left(void)
{
    const struct timespec moment = {.tv_nsec = SETTLE_NS};
    struct mpl_line line = {.length = 0};
    pid_t child = atomic_load(&last_child);

    if (child == 0 || !mpl_pre_space_if_open() || atomic_load(&parent) != syscall(SYS_getpid) ||
        !goes_on(child))
        return;
    syscall(SYS_nanosleep, &moment, NULL);
    if (!goes_on(child))
        return;
    atomic_store(&last_child, 0);
    mpl_line_add(&line, "the program ends, and a process that it has forked (");
    mpl_line_add_number(&line, (uint64_t)child);
    mpl_line_add(&line, ") goes on: that has ordinary memory, which cannot be moved. Keep the"
                        " program in the foreground");
    mpl_say(&line);
}

__attribute__((destructor)) static void at_exit(void)
{
    say_what_is_left();
}

/* The kernel's own, as theirs. */
MPL_PRE_EXPORT void _exit(int status)
{
    say_what_is_left();
    syscall(SYS_exit_group, status);
    __builtin_unreachable();
}

MPL_PRE_EXPORT void _Exit(int status)
{
    _exit(status);
}

typedef int daemon_t(int no_chdir, int no_close);

MPL_PRE_EXPORT int daemon(int no_chdir, int no_close)
{
    static _Atomic(void *) known;
    union {
        void *found;
        daemon_t *call;
    } real = {.found = mpl_pre_next(&known, "daemon")};
    struct mpl_line line = {.length = 0};

    if (mpl_pre_space_if_open()) {
        mpl_line_add(&line, "the program puts itself into the background (daemon): there it has"
                            " ordinary memory, which cannot be moved. Keep it in the foreground");
        mpl_say(&line);
    }
    return real.call(no_chdir, no_close);
}
