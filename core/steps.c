/* SPDX-License-Identifier: MIT */
#include "steps.h"

/* Undo one row on the objects before this block, last first. */
static void undo_row(struct memplug *pool, const struct mpl_step *row,
                     const struct mpl_objects *objects, uint64_t id)
{
    while (row->undo != NULL && id > objects->first) {
        id -= objects->stride;
        if (mpl_is_object(objects, id))
            row->undo(pool, mpl_block_at(pool, id));
    }
}

/* One row on every object; on failure it is undone on those that had it. */
static int run_each(struct mpl_op *op, const struct mpl_step *row,
                   const struct mpl_objects *objects)
{
    uint64_t end = objects->first + objects->nr_blocks;

    for (uint64_t id = objects->first; id < end; id += objects->stride) {
        int error;

        if (!mpl_is_object(objects, id))
            continue;
        error = row->commits ? 0 : mpl_op_check_step(op);
        if (error == 0 && row->take != NULL)
            error = row->take(op, mpl_block_at(op->pool, id));
        if (error == 0)
            continue;
        MPL_ASSERT(!row->commits);
        undo_row(op->pool, row, objects, id);
        return error;
    }
    return 0;
}

static int run_row(struct mpl_op *op, const struct mpl_step *row,
                   const struct mpl_objects *objects)
{
    int error;

    op->progress.step = row->name;
    if (row->take_all == NULL)
        return run_each(op, row, objects);
    error = row->commits ? 0 : mpl_op_check_step(op);
    if (error == 0)
        error = row->take_all(op, objects);
    return error > 0 ? run_each(op, row, objects) : error;
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
    for (unsigned row = nr_rows; row-- > 0;)
        undo_row(pool, &table[row], objects, objects->first + objects->nr_blocks);
}
