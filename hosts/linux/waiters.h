/* SPDX-License-Identifier: MIT */
/*
 * Threads that sleep on a futex which the kernel does not know as private: process-shared mutexes,
 * semaphores and condition variables, and pthread_join(), which waits in the stack of the thread
 * that it waits for.
 *
 * The kernel finds the sleepers of a private futex by its address, which stays, and those of a
 * shared one by the place in the file, which a move changes: whoever wakes them afterwards finds
 * nobody (measured, Linux 6.18). So after a move all that sleep at the old place are woken there,
 * through the direct map. To be woken for nothing is part of futex(2)'s contract; each looks at its
 * word again, and sleeps at the new place if it has to.
 *
 * A waiter with priority inheritance cannot be woken so: the kernel keeps its state. Its unit stays
 * until it has gone.
 *
 * What is left. Behind the fence nobody can look up the old place any more, since the kernel does
 * that as a writer (but for a word in memory that may only be read). A thread that was preempted
 * inside the kernel between the look-up and its sleep, from before the fence until the last look of
 * its batch, is missed; and so is who sleeps there by way of an io_uring, was requeued there from
 * another word, or is a process that shares this memory without being a thread.
 */
#ifndef MPL_LINUX_WAITERS_H
#define MPL_LINUX_WAITERS_H

#include "proc.h"
#include "space.h"

struct mpl_waiter {
    int tid;
    uint64_t address; /* of the word */
    bool inherits;    /* with priority inheritance */
};

/* The words of shared futexes that a call sleeps on. False: act has said so. */
typedef bool mpl_waiter_act(void *context, const struct mpl_waiter *waiter);
bool mpl_waiters_of(const struct mpl_proc_call *call, mpl_waiter_act *act, void *context);

/* Why the group (live.h) has to stay: a unit has one that cannot be woken, or there is no way or no
 * time to find out. Else null. Takes note whether others sleep in the space. */
const char *mpl_waiters_stay(struct memplug_space *space);

/* Wake whoever sleeps at the old place of a unit that has moved: result 0, and the source is still
 * ours. What that brings into an empty source goes again. late: at the end of a batch, for who was
 * on the way to sleep. */
void mpl_waiters_wake(struct memplug_space *space, const struct memplug_move *moves,
                      unsigned nr_moves, bool late);

#endif
