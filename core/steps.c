/* SPDX-License-Identifier: MIT */
#include "steps.h"

int mpl_fail(struct mpl_op *op, int error, const char *why, const char *remedy)
{
    op->reason->error = error;
    op->reason->operation = op->name;
    op->reason->step = op->progress.step;
    op->reason->why = why;
    op->reason->remedy = remedy;
    return error;
}

int mpl_op_check(struct mpl_op *op)
{
    const struct memplug_limit *limit = op->limit;
    const struct memplug_host *host = op->pool->host;

    if (limit->progress != NULL)
        limit->progress(limit->context, &op->progress);
    if (limit->stop != NULL && __atomic_load_n(limit->stop, __ATOMIC_RELAXED) != 0)
        return mpl_fail(op, -MPL_EINTR, "it was cancelled", NULL);
    if (host->ops->now_ns(host->context) >= op->deadline_ns)
        return mpl_fail(op, -MPL_ETIMEDOUT, "its time is over", "give it more time");
    return 0;
}

/* One row on every object; on failure it is undone on those that had it. */
static int run_row(struct mpl_op *op, const struct mpl_step *row,
                   const struct mpl_objects *objects)
{
    uint64_t end = objects->first + objects->nr_blocks;

    op->progress.step = row->name;
    for (uint64_t id = objects->first; id < end; id += objects->stride) {
        int error = row->commits ? 0 : mpl_op_check(op);

        if (error == 0 && row->take != NULL)
            error = row->take(op, mpl_block_at(op->pool, id));
        if (error == 0)
            continue;
        MPL_ASSERT(!row->commits);
        while (id > objects->first) {
            id -= objects->stride;
            if (row->undo != NULL)
                row->undo(op->pool, mpl_block_at(op->pool, id));
        }
        return error;
    }
    return 0;
}

int mpl_steps_run(struct mpl_op *op, const struct mpl_step *table, unsigned nr_rows,
                  const struct mpl_objects *objects)
{
    bool committed = false;

    for (unsigned row = 0; row < nr_rows; row++) {
        int error = run_row(op, &table[row], objects);

        MPL_ASSERT(!committed || table[row].commits);
        committed = table[row].commits;
        if (error != 0) {
            mpl_steps_undo(op->pool, table, row, objects);
            return error;
        }
    }
    return 0;
}

void mpl_steps_undo(struct memplug *pool, const struct mpl_step *table, unsigned nr_rows,
                    const struct mpl_objects *objects)
{
    uint64_t nr_objects = objects->nr_blocks / objects->stride;

    for (unsigned row = nr_rows; row-- > 0;) {
        if (table[row].undo == NULL)
            continue;
        for (uint64_t i = nr_objects; i-- > 0;)
            table[row].undo(pool, mpl_block_at(pool, objects->first + i * objects->stride));
    }
}
