/* SPDX-License-Identifier: MIT */
/*
 * A block enters a zone and its frames the allocator. Nothing of its memmap is touched: what the
 * allocator believes stands in the bitmaps.
 */
#include "steps.h"

static int claim(struct mpl_op *op, struct mpl_block *block)
{
    (void)op;
    mpl_block_set_state(block, MEMPLUG_BLOCK_GOING_ONLINE);
    return 0;
}

static void claim_undo(struct memplug *pool, struct mpl_block *block)
{
    (void)pool;
    mpl_block_set_state(block, MEMPLUG_BLOCK_OFFLINE);
}

/* The block is spanned by its zone from here on; its pageblocks are isolated until "release". */
static int enter_zone(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    enum memplug_zone kind = mpl_policy_zone(pool, block, op->type);
    struct mpl_zone *zone = mpl_zone_at(pool, block->node, kind);

    mpl_spin_lock(pool, &zone->lock);
    mpl_frames_reset(pool, block);
    MPL_PUT(block->zone, (uint8_t)kind);
    mpl_group_enter(pool, block);
    mpl_zone_grow(pool, zone, mpl_block_start(pool, block), mpl_block_pages(&pool->geometry));
    mpl_isolate_block(pool, block);
    mpl_spin_unlock(&zone->lock);
    return 0;
}

/* Whoever looked at the bitmaps meanwhile has gone when the slots were passed. */
static void enter_zone_undo(struct memplug *pool, struct mpl_block *block)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_unisolate_block(pool, block);
    mpl_group_leave(pool, block);
    MPL_PUT(block->zone, MEMPLUG_NR_ZONES);
    mpl_zone_shrink(pool, zone, mpl_block_start(pool, block), mpl_block_pages(&pool->geometry));
    mpl_spin_unlock(&zone->lock);
    mpl_percpu_pass(pool);
}

/* If GOING_ONLINE is refused, everybody hears CANCEL_ONLINE, also those not asked: so its row
 * stands before the one that asks. */
static void cancel_undo(struct memplug *pool, struct mpl_block *block)
{
    mpl_notify_end(pool, block, MEMPLUG_CANCEL_ONLINE);
}

static int ask(struct mpl_op *op, struct mpl_block *block)
{
    return mpl_notify_going(op, block, MEMPLUG_GOING_ONLINE);
}

/* A driver's hook gets the frames as logically offline chunks and releases what it likes. */
static void run_hook(struct memplug *pool, const struct mpl_block *block)
{
    uint64_t pfn = mpl_block_data_start(pool, block).nr;
    uint64_t end = pfn + mpl_block_data_pages(pool, block);
    uint64_t chunk_max = mpl_pageblock_pages(&pool->geometry);

    while (pfn < end) {
        uint64_t nr_pages = pfn & (~pfn + 1);

        if (nr_pages == 0 || nr_pages > chunk_max)
            nr_pages = chunk_max;
        while (nr_pages > end - pfn)
            nr_pages /= 2;
        mpl_keep_frames(pool, mpl_pfn(pfn), nr_pages);
        pool->hook.online_pages(pool->hook.context, mpl_pfn(pfn), (uint32_t)nr_pages);
        pfn += nr_pages;
    }
}

static int release(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;

    if (pool->hook.online_pages != NULL)
        run_hook(pool, block);
    else
        mpl_release_frames(pool, mpl_block_data_start(pool, block),
                           mpl_block_data_pages(pool, block));
    return 0;
}

int mpl_publish_online(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_zone_count(pool, block, true);
    mpl_block_set_state(block, MEMPLUG_BLOCK_ONLINE);
    mpl_unisolate_block(pool, block);
    mpl_spin_unlock(&zone->lock);
    return 0;
}

static int tell(struct mpl_op *op, struct mpl_block *block)
{
    mpl_notify_end(op->pool, block, MEMPLUG_ONLINE);
    return 0;
}

static const struct mpl_step online_table[] = {
    {"claim", claim, claim_undo, false, NULL},
    {"prepare", mpl_notify_prepare, mpl_notify_finish, false, NULL},
    {"zone", enter_zone, enter_zone_undo, false, NULL},
    {"cancel", NULL, cancel_undo, false, NULL},
    {"ask", ask, NULL, false, NULL},
    {"release", release, NULL, true, NULL},
    {"publish", mpl_publish_online, NULL, true, NULL},
    {"tell", tell, NULL, true, NULL},
};

int mpl_online(struct mpl_op *op, uint64_t first, uint64_t nr_blocks, const uint64_t *only)
{
    struct mpl_objects blocks = {
        .first = first,
        .nr_blocks = nr_blocks,
        .stride = 1,
        .only = only,
    };
    int error = 0;

    for (uint64_t id = first; id < first + nr_blocks && error == 0; id++)
        if (mpl_is_object(&blocks, id))
            error = mpl_poison_check(op, id, 1);
    if (error == 0)
        error = mpl_steps_run(op, online_table, sizeof(online_table) / sizeof(online_table[0]),
                              &blocks);
    if (error == 0)
        mpl_hvo_lend_all(op->pool); /* these blocks may hold the memmap of others' huge pages */
    for (uint64_t id = first; error == 0 && id < first + nr_blocks; id++)
        if (mpl_is_object(&blocks, id))
            mpl_watch_blocks(op->pool, MEMPLUG_ACTION_ONLINE, id, 1);
    return error;
}
