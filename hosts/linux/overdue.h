/* SPDX-License-Identifier: MIT */
/*
 * A child that can keep its parent waiting: it has a userfaultfd of its own on memory that it
 * shares, and nobody answers there. Who gives it its copy sleeps in the kernel then, where only the
 * child's end wakes it. So another thread looks every now and then, and ends the child.
 */
#ifndef MPL_LINUX_OVERDUE_H
#define MPL_LINUX_OVERDUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mpl_overdue {
    pthread_t thread;
    _Atomic uint32_t work;     /* is there any child? or is it to stop? */
    _Atomic uint64_t since_ns; /* a child is being given its copy; 0: none is */
    _Atomic int pid;           /* of that child */
    void (*ended)(int pid);    /* is told, in this thread; may be null */
    _Atomic uint64_t *nr_ended;
};

/* In memory of ours, with all signals blocked. -errno of pthread_create(3). */
int mpl_overdue_open(struct mpl_overdue *overdue, void *stack, uint64_t stack_bytes);
void mpl_overdue_close(struct mpl_overdue *overdue);

/* It sleeps while no child lives. */
void mpl_overdue_watch(struct mpl_overdue *overdue, bool any);

void mpl_overdue_begin(struct mpl_overdue *overdue, pid_t pid);
void mpl_overdue_end(struct mpl_overdue *overdue);

#endif
