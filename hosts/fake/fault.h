/* SPDX-License-Identifier: MIT */
/*
 * Faults into everything that may fail: wraps any host, mover and subscriber, counts the calls
 * that may fail ("points") and makes the k-th fail. A test runs an operation with k = 1, 2, 3, ...
 * until fault_fired() says that there was no k-th point any more.
 *
 * A call that is made to fail does not reach what is wrapped. Counting is safe from any thread;
 * which thread meets the k-th point is then a matter of chance.
 */
#ifndef FAULT_H
#define FAULT_H

#include <memplug/memplug.h>

struct fault;

enum fault_kind {
    FAULT_LOCK,       /* natural error: -ETIMEDOUT */
    FAULT_ATTACH,     /* -ENODEV */
    FAULT_ALIAS,      /* -ENOMEM */
    FAULT_PROVIDE,    /* -ENOMEM */
    FAULT_MEMORY_GET, /* -ENOMEM */
    FAULT_RESTORE,    /* -ENOMEM */
    FAULT_MOVE,       /* -EBUSY: one entry of a move() */
    FAULT_GOING,      /* -EPERM: an answer to PREPARE_ONLINE or to GOING_* */
    FAULT_LOST,       /* -EBUSY: a lost() */
    FAULT_NR_KINDS
};

/* -ENOMEM. The wrapped host has the geometry, windows and CPUs of the inner one. */
int fault_open(const struct memplug_host *inner, struct fault **fault);
void fault_close(struct fault *fault);

const struct memplug_host *fault_host(const struct fault *fault);

/* The same mover or subscriber wrapped; the same pointer for the same argument, valid until
 * fault_close(). At most 32 of each, then null. */
const struct memplug_mover *fault_mover(struct fault *fault, const struct memplug_mover *inner);
const struct memplug_subscriber *fault_subscriber(struct fault *fault,
                                                  const struct memplug_subscriber *inner);

/* Count from 0 again; make point number k (from 1) fail, once or it and all after it, with error
 * (a negative errno) or, if that is 0, with the kind's natural one. k = 0: only count. */
void fault_arm(struct fault *fault, uint64_t k, bool forever, int error);
void fault_disarm(struct fault *fault); /* the counts stay readable */

/* From the next fault_arm() on count only these kinds: a bit for each; 0: all. */
void fault_select(struct fault *fault, uint32_t kinds);

/* Since fault_arm(): points met, points made to fail. */
uint64_t fault_calls(const struct fault *fault);
uint64_t fault_calls_of(const struct fault *fault, enum fault_kind kind);
uint64_t fault_fired(const struct fault *fault);

const char *fault_kind_name(enum fault_kind kind);

/* What point number k (from 1) was, for instance "memory_get" or "move mapping"; of the first
 * 4,096 only, then "?". Cut to size_bytes. */
void fault_point_name(const struct fault *fault, uint64_t k, char *text, size_t size_bytes);

/* One line: "add: 9 points, lock 1, attach 4, alias 4". */
void fault_report(const struct fault *fault, const char *title, memplug_write_t *write,
                  void *context);

/* Its attach_row() does not do it for any backing, so that attach() is called for each. */
void fault_refuse_rows(struct fault *fault);

/* Let the wrapped host's clock jump ahead. */
void fault_clock_skip(struct fault *fault, uint64_t ns);

/* --- limits that strike ----------------------------------------------------------------------- */

enum fault_limit_kind {
    FAULT_LIMIT_COUNT,    /* never: only counts the checks */
    FAULT_LIMIT_STOP,     /* raises the stop flag */
    FAULT_LIMIT_DEADLINE, /* lets the clock of the fault's host jump past the deadline */
};

/* Pass &x.limit to an operation; its fields may be changed after init, but for stop, progress and
 * context. Strikes at the k-th check (from 1), that is, in the k-th call of progress(). */
struct fault_limit {
    struct memplug_limit limit;
    enum fault_limit_kind kind;
    struct fault *fault; /* for DEADLINE only, else it may be null */
    uint64_t strike_at;
    uint64_t nr_checks;
    uint32_t stop;
    char step[32];       /* at which it struck */
    struct memplug_progress last; /* what was handed out last; its strings are the core's */
};

void fault_limit_init(struct fault_limit *limit, enum fault_limit_kind kind, uint64_t k,
                      struct fault *fault);

#endif
