/* SPDX-License-Identifier: MIT */
/*
 * The first write to a page that a forked child shares. The parent's pages are write-protected; a
 * thread of ours hears of the fault, sees to it that all children have their own copies of some
 * pages around, lifts the protection of these, and the writer runs on, whether it wrote by itself
 * or the kernel for it.
 *
 * All that concerns children is done by this one thread: so there is no lock that a writer could
 * hold while it waits for its fault. Who needs something of it asks by touching a page that is not
 * there, which is a fault like the others: no descriptor that the program could close. Its own
 * descriptors are in a table of its own (as front/socket's are), where the program cannot reach
 * the userfaultfd either: should that go, protections would fall in silence.
 *
 * The thread takes no lock of the space. It leaves alone what a fork has under way (attend.h) and
 * what moves: a unit is settled as a whole and taken off its userfaultfd before it is fenced.
 */
#ifndef MPL_LINUX_FIRST_WRITE_H
#define MPL_LINUX_FIRST_WRITE_H

#include "space.h"

struct mpl_attend;

/* -errno and why: forks copy. Makes a thread, so not beneath malloc. */
int mpl_first_open(struct memplug_space *space, void (*ended)(int pid), const char **why);
void mpl_first_close(struct memplug_space *space);

/* Before content changes in a unit whose record is locked: each child has these pages for itself.
 * Waits for as long as it takes. Costs nothing where nothing is shared. */
void mpl_first_settle_part(struct memplug_space *space, const struct mpl_part *part);

/* The same for a whole unit, which nobody shares afterwards. -EBUSY: a child has it and can neither
 * be given a copy nor be ended. */
int mpl_first_settle_unit(struct memplug_space *space, uint64_t unit);

/* --- for forks -------------------------------------------------------------------------------- */

/* Pages that children may share, whatever the unit says. */
void mpl_first_settle(struct memplug_space *space, const char *va, uint64_t size_bytes);

/* False: none lives of those that were adopted. Asks nobody, and learns late that the last one has
 * ended. */
bool mpl_first_has_children(const struct memplug_space *space);
/* How many live: at most MPL_NR_CHILDREN can be adopted. */
unsigned mpl_first_children(struct memplug_space *space);
/* From now on the thread attends this fork, and lets others' faults wait; null: no more. */
void mpl_first_attend(struct memplug_space *space, struct mpl_attend *attend);

/* Before the fork: where the child will have what it shares; its gate is shut. -ENOMEM, -EBADF. */
int mpl_first_expect(struct memplug_space *space);
/* After it: the child, if there is one, is known, and its gate opened. -errno: it is not. */
int mpl_first_adopt(struct memplug_space *space);

#endif
