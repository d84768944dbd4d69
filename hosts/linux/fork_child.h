/* SPDX-License-Identifier: MIT */
/*
 * In a forked child: the table of what it has of its parent's (fork.pieces). fork_child.c keeps it,
 * child_calls.c and child_remap.c are the calls that change it. All under one lock, with signals
 * blocked, since a handler may fork.
 */
#ifndef MPL_LINUX_FORK_CHILD_H
#define MPL_LINUX_FORK_CHILD_H

#include "fork.h"
#include "space.h"

/* A part of a range: of one piece, or what lies between pieces. */
struct mpl_span {
    char *va;
    uint64_t size_bytes;
    bool known;  /* it is of pieces[piece] */
    bool shared; /* which its parent may have too, and which reads as a file */
    uint64_t piece;
};

/* False, and nothing is locked: nothing there is shared, now or later. */
bool mpl_child_enter(struct memplug_space *space, const void *address, uint64_t size_bytes);
void mpl_child_leave(struct memplug_space *space);

/* The next part behind this one (so begin with an empty one); false: the end. */
bool mpl_child_next(const struct memplug_space *space, struct mpl_span *span, const char *end);

/* Room for what one change makes of the table. -ENOMEM. */
int mpl_child_room(struct memplug_space *space);
/* It is not there any more, or somebody else's; there is room. */
void mpl_child_forget(struct memplug_space *space, char *va, uint64_t size_bytes);
/* Another mapping of no file, where nothing is known; likewise. */
void mpl_child_add(struct memplug_space *space, char *va, uint64_t size_bytes, uint32_t attr);
/* A mapping of no file is in its place; likewise. */
void mpl_child_emptied(struct memplug_space *space, char *va, uint64_t size_bytes);
/* Its attributes are others now; likewise. */
void mpl_child_mark(struct memplug_space *space, char *va, uint64_t size_bytes, uint32_t clear,
                    uint32_t set);

/* A mapping of no file gets them; its protection it has. */
void mpl_child_apply(const struct memplug_space *space, char *va, uint64_t size_bytes,
                     uint32_t attr);

/* What is shared of it becomes the child's, and is inherited by a child of its own. -ENOMEM, or
 * -errno of madvise(2). What is not mapped any more, or was protected behind our back, is passed
 * over. */
int mpl_child_own(struct memplug_space *space, char *va, uint64_t size_bytes);

bool mpl_child_mapped(const char *va, uint64_t size_bytes);
bool mpl_child_locked(char *va, uint64_t size_bytes);

#endif
