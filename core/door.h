/* SPDX-License-Identifier: MIT */
/* What every door of the library does first and last. */
#ifndef MPL_DOOR_H
#define MPL_DOOR_H

#include "core.h"

/* An operation from its door to its end: what the caller may leave out is filled in. */
struct mpl_door {
    struct mpl_op op;
    struct memplug_limit limit;
    struct memplug_reason reason; /* if the caller wants none */
};

/* Begin an operation: limit and reason may be null. */
void mpl_door_open(struct mpl_door *door, struct memplug *pool, const char *name,
                   const struct memplug_limit *limit, struct memplug_reason *reason);

/* Take the control lock within the operation's limit, or say why not. unlock returns error. */
int mpl_door_lock(struct mpl_op *op);
int mpl_door_unlock(struct mpl_op *op, int error);

#endif
