/* SPDX-License-Identifier: MIT */
/* One operation: how long it may go on, where it stands, and why it ended. A part of core.h, which
 * includes it. */
#ifndef MPL_OP_H
#define MPL_OP_H

#include <memplug/memplug.h>

/* What a call carries down: its limit, where it stands, and where the reason goes. */
struct mpl_op {
    struct memplug *pool;
    const char *name;
    const struct memplug_limit *limit; /* never null */
    uint64_t deadline_ns;
    uint32_t tries;
    struct memplug_reason *reason;     /* never null */
    struct memplug_progress progress;
    const struct memplug_add *add;     /* the request of an add, for its first row */
    const struct memplug_boot *boot;   /* likewise */
    enum memplug_online_type type;     /* the request of an online, for its zone */
    uint64_t first;                    /* first block of an online or offline */
    bool timed;                        /* the caller has set a time */
    bool moved_huge;                   /* a huge page has a new place */
    bool drained;                      /* a block that goes was in use, so slots were drained */
    bool waited;                       /* others have had time since the clock was looked at */
};

/* Nothing is wrong, and nothing is named. */
void mpl_reason_reset(struct memplug_reason *reason);

/* Fill the reason of a failure: op->reason gets error, operation and step; the caller adds the
 * rest. Returns error. */
int mpl_fail(struct mpl_op *op, int error, const char *why, const char *remedy);

/* A page is named in the reason: let its mover say what it knows. mover may be null. Under no lock
 * but the control lock. */
void mpl_describe(const struct memplug_mover *mover, memplug_pfn_t pfn, uint64_t cookie,
                  struct memplug_reason *reason);

/* Report where the operation stands; -ETIMEDOUT or -EINTR if it has to end, with the reason. */
int mpl_op_check(struct mpl_op *op);
/* The same between two steps: the clock is not looked at unless the caller has set a time, or a
 * host, a subscriber or a mover was called since (op->waited). */
int mpl_op_check_now(struct mpl_op *op, bool clock);
static inline int mpl_op_check_step(struct mpl_op *op)
{
    bool clock = op->timed || op->waited;

    if (!clock && op->limit->progress == NULL && op->limit->stop == NULL)
        return 0;
    return mpl_op_check_now(op, clock);
}

#endif
