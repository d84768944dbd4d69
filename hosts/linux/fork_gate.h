/* SPDX-License-Identifier: MIT */
/*
 * Where the child of a lazy fork waits until its parent has adopted it: a word that both see. No
 * frame changes before that. So a child that cannot be reached need not be turned away: its parent
 * asks it to make all its own by itself, and waits. And one that has waited for long, or is not
 * its child (CLONE_PARENT), does so unasked: its parent may be stopped, or be another program.
 */
#ifndef MPL_LINUX_FORK_GATE_H
#define MPL_LINUX_FORK_GATE_H

#include "space.h"

struct mpl_gate;

/* -ENOMEM. */
int mpl_gates_open(struct mpl_fork *fork);
void mpl_gates_close(struct mpl_fork *fork, struct memplug_linux *host);

/* Before the fork. */
void mpl_gate_shut(struct mpl_fork *fork);

/* Behind it: the child is adopted and may go. */
void mpl_gate_open(struct mpl_fork *fork);
/* Or it is not: it takes its own. -EAGAIN: there is no child, or it could not, and ends. */
int mpl_gate_ask(struct mpl_fork *fork);

/* Or there is none, it seems: should there be one, it ends. -EAGAIN; 0: it has taken its own. */
int mpl_gate_refuse(struct mpl_fork *fork);

/* In the child. -EAGAIN: it must end. */
int mpl_gate_wait(struct memplug_space *space);

#endif
