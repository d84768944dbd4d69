/* SPDX-License-Identifier: MIT */
/*
 * Units whose mappings are locked in memory, by memplug_lock(), mlock() or mlockall().
 *
 * A move takes the lock away and gives it to the new mapping: the pin proof wants to drop page
 * table entries, which a locked mapping does not let go, and under RLIMIT_MEMLOCK a mapping that
 * replaces a locked one is counted before that one is gone. So for the length of a move, some
 * milliseconds, the memory is not locked; should another thread lock as much meanwhile as the limit
 * leaves, it stays unlocked, and counts as a lost attribute. Whether pages are locked is looked up
 * each time, since a program need not have said it to us; a mapping that is locked in part becomes
 * locked as a whole.
 */
#ifndef MPL_LINUX_LOCKS_H
#define MPL_LINUX_LOCKS_H

#include "space.h"

/* Rows of live.c's table, before anything else; the units' records are locked. */
int mpl_live_unlock(struct memplug_space *space);
void mpl_live_relock(struct memplug_space *space);

#endif
