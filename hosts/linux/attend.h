/* SPDX-License-Identifier: MIT */
/*
 * Who attends while a thread forks. All mappings are fenced then, for everybody; but the C library
 * makes a few writes to the heap in the forking thread itself, behind the last handler (it locks
 * what it knows of users and hosts). The attendant, a process with our memory, lets this one thread
 * through and writes down which pages it did so on. It also reads the events of mappings that move.
 */
#ifndef MPL_LINUX_ATTEND_H
#define MPL_LINUX_ATTEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* It makes a handful. Should there be more than this, it sleeps with the others. */
#define MPL_ATTEND_PAGES 50000u

struct mpl_attend {
    int uffd;          /* with mpl_attend_features */
    pid_t pid, forker; /* of the attendant; the thread that it lets through */
    pid_t process;     /* of that thread */
    int pidfd;
    uint64_t page_bytes;
    volatile unsigned nr_pages;
    volatile uint64_t pages[MPL_ATTEND_PAGES];
};

/* The features of its userfaultfd, mpl_fence_descriptor(). */
extern const uint64_t mpl_attend_features;

/* The record alone, in memory of its own: for a thread that attends by let_through(). -ENOMEM. */
int mpl_attend_open(int uffd, uint64_t page_bytes, struct mpl_attend **attend);
struct uffd_msg;
void mpl_attend_let_through(struct mpl_attend *attend, const struct uffd_msg *msg);

/* False: the next process that this thread makes is the first of a new pid namespace, which would
 * end with the attendant. */
bool mpl_attend_can(void);
/* And a process that attends. -ENOMEM, -EAGAIN, -EPERM: the kernel makes no process. */
int mpl_attend_start(int uffd, uint64_t page_bytes, struct mpl_attend **attend);
/* The process, if there is one, has ended: pages can be read, until mpl_attend_end(). */
void mpl_attend_stop(struct mpl_attend *attend);
void mpl_attend_end(struct mpl_attend *attend);

/* Whoever touches a page that is not there, or writes to one that is, sleeps. -errno. */
int mpl_attend_fence(int uffd, void *va, uint64_t size_bytes);
/* The same again for one page that somebody was let through on. */
void mpl_attend_fence_page(int uffd, void *va, uint64_t page_bytes);
void mpl_attend_wake(int uffd, void *va, uint64_t size_bytes);

#endif
