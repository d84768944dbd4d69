/* SPDX-License-Identifier: MIT */
#include "door.h"

#define DEFAULT_TIMEOUT_NS UINT64_C(30000000000)
#define DEFAULT_TRIES 5

void mpl_door_open(struct mpl_door *door, struct memplug *pool, const char *name,
                  const struct memplug_limit *limit, struct memplug_reason *reason)
{
    const struct memplug_host *host = pool->host;
    uint64_t now_ns = host->ops->now_ns(host->context);
    bool timed;

    door->limit = limit != NULL ? *limit : (struct memplug_limit){0};
    timed = door->limit.timeout_ns != 0;
    if (!timed)
        door->limit.timeout_ns = DEFAULT_TIMEOUT_NS;
    if (door->limit.timeout_ns > UINT64_MAX - now_ns)
        door->limit.timeout_ns = UINT64_MAX - now_ns;
    if (door->limit.tries == 0)
        door->limit.tries = DEFAULT_TRIES;
    door->op = (struct mpl_op){
        .pool = pool,
        .name = name,
        .limit = &door->limit,
        .deadline_ns = now_ns + door->limit.timeout_ns,
        .tries = door->limit.tries,
        .timed = timed,
        .reason = reason != NULL ? reason : &door->reason,
        .progress = {.operation = name, .step = "check"},
    };
    mpl_reason_reset(door->op.reason);
}

int mpl_door_lock(struct mpl_op *op)
{
    const struct memplug_host *host = op->pool->host;
    int error = host->ops->lock(host->context, op->limit);

    if (error == 0)
        return 0;
    op->progress.step = "lock";
    return mpl_fail(op, error,
                    error == -MPL_EDEADLK ? "it was called from inside another operation"
                                          : "another operation holds the control lock",
                    NULL);
}

int mpl_door_unlock(struct mpl_op *op, int error)
{
    op->pool->host->ops->unlock(op->pool->host->context);
    return error;
}
