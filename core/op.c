/* SPDX-License-Identifier: MIT */
/* One operation: how long it may go on, and why it ended. */
#include <stddef.h>

#include "core.h"

void mpl_reason_reset(struct memplug_reason *reason)
{
    /* Of the detail the first byte is enough, and it is long. */
    MPL_FILL(reason, 0, offsetof(struct memplug_reason, detail) + 1);
    reason->address = MEMPLUG_ANY_ADDRESS;
    reason->block = reason->node = -1;
    reason->pfn = mpl_pfn(MPL_NO_PFN);
}

int mpl_fail(struct mpl_op *op, int error, const char *why, const char *remedy)
{
    op->reason->error = error;
    op->reason->operation = op->name;
    op->reason->step = op->progress.step;
    op->reason->why = why;
    op->reason->remedy = remedy;
    return error;
}

void mpl_describe(const struct memplug_mover *mover, memplug_pfn_t pfn, uint64_t cookie,
                  struct memplug_reason *reason)
{
    if (mover == NULL || mover->describe == NULL)
        return;
    mover->describe(mover->context, pfn, cookie, reason);
    reason->detail[MEMPLUG_DETAIL_BYTES - 1] = 0;
}

int mpl_op_check_now(struct mpl_op *op, bool clock)
{
    const struct memplug_limit *limit = op->limit;
    const struct memplug_host *host = op->pool->host;

    if (limit->progress != NULL)
        limit->progress(limit->context, &op->progress);
    if (limit->stop != NULL && __atomic_load_n(limit->stop, __ATOMIC_RELAXED) != 0)
        return mpl_fail(op, -MPL_EINTR, "it was cancelled", NULL);
    if (!clock)
        return 0;
    op->waited = false;
    if (host->ops->now_ns(host->context) >= op->deadline_ns)
        return mpl_fail(op, -MPL_ETIMEDOUT, "its time is over", "give it more time");
    return 0;
}

int mpl_op_check(struct mpl_op *op)
{
    return mpl_op_check_now(op, true);
}
