/* SPDX-License-Identifier: MIT */
/*
 * A block leaves the allocator and its zone. Until "withdraw" everything can be taken back; what
 * moved stays where it is now.
 */
#include "state/early.h"
#include "steps.h"

static int check(struct mpl_op *op, struct mpl_block *block)
{
    const char *why = mpl_early_obstacle(op->pool, block);

    if (why == NULL)
        return 0;
    op->reason->block = (int64_t)mpl_block_id(op->pool, block);
    return mpl_fail(op, -MPL_EINVAL, why, NULL);
}

static int claim(struct mpl_op *op, struct mpl_block *block)
{
    struct mpl_zone *zone = mpl_zone_of(op->pool, block);

    mpl_spin_lock(op->pool, &zone->lock);
    mpl_block_set_state(block, MEMPLUG_BLOCK_GOING_OFFLINE);
    mpl_spin_unlock(&zone->lock);
    return 0;
}

static void claim_undo(struct memplug *pool, struct mpl_block *block)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_block_set_state(block, MEMPLUG_BLOCK_ONLINE);
    mpl_spin_unlock(&zone->lock);
}

static void cancel_undo(struct memplug *pool, struct mpl_block *block)
{
    mpl_notify_end(pool, block, MEMPLUG_CANCEL_OFFLINE);
}

static int isolate(struct mpl_op *op, struct mpl_block *block)
{
    struct mpl_zone *zone = mpl_zone_of(op->pool, block);

    mpl_spin_lock(op->pool, &zone->lock);
    mpl_isolate_block(op->pool, block);
    mpl_spin_unlock(&zone->lock);
    return 0;
}

static void isolate_undo(struct memplug *pool, struct mpl_block *block)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_unisolate_block(pool, block);
    mpl_spin_unlock(&zone->lock);
}

/* What slots held of the block is back in its bitmaps after this, and every page that was being
 * allocated is complete: what is still used and not movable now will not go. Of a block that is
 * isolated and untouched no slot has anything, or will. */
static int drain(struct mpl_op *op, struct mpl_block *block)
{
    struct mpl_span span = mpl_span_of_data(op->pool, block);

    if (mpl_frames_untouched(op->pool, block))
        return 0;
    if (!op->drained)
        mpl_percpu_pass(op->pool);
    op->drained = true;
    return mpl_migrate_check(op, &span);
}

static int ask(struct mpl_op *op, struct mpl_block *block)
{
    return mpl_notify_going(op, block, MEMPLUG_GOING_OFFLINE);
}

/* The frames, all free now, leave the counters. */
static int withdraw(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_withdraw_frames(pool, block);
    mpl_zone_count(pool, block, false);
    mpl_spin_unlock(&zone->lock);
    return 0;
}

static int tell(struct mpl_op *op, struct mpl_block *block)
{
    mpl_notify_end(op->pool, block, MEMPLUG_OFFLINE);
    return 0;
}

static int leave_zone(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_group_leave(pool, block);
    MPL_PUT(block->zone, MEMPLUG_NR_ZONES);
    mpl_zone_shrink(pool, zone, mpl_block_start(pool, block), mpl_block_pages(&pool->geometry));
    mpl_block_set_state(block, MEMPLUG_BLOCK_OFFLINE);
    mpl_spin_unlock(&zone->lock);
    return 0;
}

int mpl_forget_readers(struct mpl_op *op, struct mpl_block *block)
{
    if (mpl_block_id(op->pool, block) == op->first)
        mpl_percpu_pass(op->pool);
    return 0;
}

/* Whoever still looks at blocks that were not used looks at a pattern, which stays, and finds that
 * nothing there is his. He is waited for when they are removed. */
static int forget(struct mpl_op *op, struct mpl_block *block)
{
    return op->drained ? mpl_forget_readers(op, block) : 0;
}

/* Nobody has to do with the block's memory any more. */
static int finish(struct mpl_op *op, struct mpl_block *block)
{
    mpl_notify_finish(op->pool, block);
    return 0;
}

static const struct mpl_step offline_table[] = {
    {"check", check, NULL, false, NULL},
    {"claim", claim, claim_undo, false, NULL},
    {"cancel", NULL, cancel_undo, false, NULL},
    {"isolate", isolate, isolate_undo, false, NULL},
    {"drain", drain, NULL, false, NULL},
    {"ask", ask, NULL, false, NULL},
    {"withhold", mpl_huge_withhold, mpl_huge_withhold_undo, false, NULL},
    {"return", mpl_hvo_return_block, mpl_hvo_return_block_undo, false, NULL},
    {"migrate", mpl_migrate_block, NULL, false, NULL},
    {"dissolve", mpl_huge_dissolve_block, NULL, true, NULL},
    {"withdraw", withdraw, NULL, true, NULL},
    {"tell", tell, NULL, true, NULL},
    {"leave", leave_zone, NULL, true, NULL},
    {"forget", forget, NULL, true, NULL},
    {"finish", finish, NULL, true, NULL},
};

int mpl_offline(struct mpl_op *op, uint64_t first, uint64_t nr_blocks, const uint64_t *only)
{
    struct mpl_objects blocks = {
        .first = first,
        .nr_blocks = nr_blocks,
        .stride = 1,
        .only = only,
    };
    int error = mpl_steps_run(op, offline_table, sizeof(offline_table) / sizeof(offline_table[0]),
                              &blocks);

    mpl_hvo_lend_moved(op);
    for (uint64_t id = first; error == 0 && id < first + nr_blocks; id++)
        if (mpl_is_object(&blocks, id))
            mpl_watch_block(op->pool, MEMPLUG_ACTION_OFFLINE, id, mpl_block_at(op->pool, id)->node);
    return error;
}
