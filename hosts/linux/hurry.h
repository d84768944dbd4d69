/* SPDX-License-Identifier: MIT */
/*
 * While a fence is up the mover goes first, if it may: a mover that waits for a CPU is what makes
 * most long pauses on a full machine. Real time is best: a nice value only gives a larger share of
 * time, and others have theirs in slices of some milliseconds all the same.
 */
#ifndef MPL_LINUX_HURRY_H
#define MPL_LINUX_HURRY_H

#include <stdbool.h>

#define MPL_HURRY_NICE (-19)

struct mpl_hurry {
    bool real_time, nicer;
    int policy, nice; /* as they were */
};

/* Of the calling thread, which undoes it. A thread with a policy of its own keeps it. */
void mpl_hurry(struct mpl_hurry *hurry);
void mpl_calm(struct mpl_hurry *hurry);

#endif
