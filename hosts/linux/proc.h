/* SPDX-License-Identifier: MIT */
/*
 * What /proc says of this process, without stdio or malloc: numbered directories, files line by
 * line, and the system calls that threads sleep in. Its descriptors are open during a call only.
 * Everything ends at a deadline, by mpl_now_ns(); what was cut off then says so.
 */
#ifndef MPL_LINUX_PROC_H
#define MPL_LINUX_PROC_H

#include <stdbool.h>
#include <stdint.h>

#define MPL_PROC_PATH_MAX 64u
#define MPL_PROC_LINE_MAX 512u

/* "/proc/thread-self/fdinfo/", 7, "" */
void mpl_proc_path(char path[MPL_PROC_PATH_MAX], const char *before, int number,
                   const char *behind);

/* Act on each entry of a directory whose name is a number, until one says false or the time is
 * over. False: not all of them. */
typedef bool mpl_proc_number(void *context, int number);
bool mpl_proc_each_of(int fd, uint64_t deadline_ns, mpl_proc_number *act, void *context);
bool mpl_proc_each(const char *path, uint64_t deadline_ns, mpl_proc_number *act, void *context);

/* Act on each line, without its end; a long one is cut to its head. As above. */
typedef bool mpl_proc_line(void *context, const char *line);
bool mpl_proc_lines_of(int fd, uint64_t deadline_ns, mpl_proc_line *act, void *context);
bool mpl_proc_lines(const char *path, uint64_t deadline_ns, mpl_proc_line *act, void *context);

/* The number that begins there, decimal or, behind 0x, hexadecimal; *at gets where it ends. */
uint64_t mpl_proc_value(const char **at);
/* Hexadecimal, with nothing before it, as addresses of mappings are. */
uint64_t mpl_proc_hex(const char **at);

/* A thread of this process that sleeps in a system call. */
struct mpl_proc_call {
    int tid;
    long nr;
    uint64_t args[6];
};

/* Each of them. Threads that run, the caller among them, are passed over. About 10 us a thread.
 * False also if a thread could not be looked at: no /proc, a kernel that does not tell, or a
 * process that is not dumpable and not root. */
typedef bool mpl_proc_call_act(void *context, const struct mpl_proc_call *call);
bool mpl_proc_calls(uint64_t deadline_ns, mpl_proc_call_act *act, void *context);

/* Read memory of this process that may be gone by now. */
bool mpl_proc_peek(uint64_t address, void *bytes, uint64_t size_bytes);

#endif
