/* SPDX-License-Identifier: MIT */
#include "steps.h"

static bool is_kernel_zone(const struct mpl_block *block)
{
    return block->zone != MEMPLUG_ZONE_MOVABLE;
}

/* Does this other block have memory that its node had before the event of `block`, or keeps after
 * it? Blocks of the same operation come and go one after the other. */
static bool has_memory(const struct memplug *pool, const struct mpl_block *other,
                       const struct mpl_block *block, enum memplug_event event)
{
    switch (mpl_block_state(other)) {
    case MEMPLUG_BLOCK_ONLINE:
        break;
    case MEMPLUG_BLOCK_GOING_ONLINE:
        if (event != MEMPLUG_GOING_ONLINE || other >= block)
            return false;
        break;
    case MEMPLUG_BLOCK_GOING_OFFLINE:
        if (event != MEMPLUG_GOING_OFFLINE || other <= block)
            return false;
        break;
    default:
        return false;
    }
    return other->node == block->node && mpl_block_data_pages(pool, other) != 0;
}

/* Does the node get its first, or lose its last, memory (of kernel zones only) with this block?
 * Another one is usually found at once, so this is a long walk for the first and last only. */
static bool changes_node(const struct memplug *pool, const struct mpl_block *block,
                         enum memplug_event event, bool kernel_zones_only)
{
    if (kernel_zones_only && !is_kernel_zone(block))
        return false;
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        const struct mpl_block *other = mpl_block_at(pool, id);

        if (has_memory(pool, other, block, event) && (!kernel_zones_only || is_kernel_zone(other)))
            return false;
    }
    return true;
}

static struct memplug_notice notice_of(const struct memplug *pool, const struct mpl_block *block,
                                       enum memplug_event event)
{
    return (struct memplug_notice){
        .event = event,
        .start = mpl_block_data_start(pool, block),
        .nr_pages = mpl_block_data_pages(pool, block),
        .node_normal = block->gains_normal,
        .node_any = block->gains_any,
    };
}

/* Whoever refuses ends it: those behind him are not asked. */
static int ask_all(struct mpl_op *op, const struct mpl_block *block,
                   const struct memplug_notice *notice)
{
    const struct memplug *pool = op->pool;

    for (unsigned i = 0; i < pool->nr_subscribers; i++) {
        const struct memplug_subscriber *subscriber = pool->subscribers[i];
        int error = subscriber->notify(subscriber->context, notice);

        op->waited = true;
        if (error == 0)
            continue;
        op->reason->block = (int64_t)mpl_block_id(pool, block);
        op->reason->owner = subscriber->name;
        return mpl_fail(op, error < 0 ? error : -MPL_EBUSY, "a subscriber refused", NULL);
    }
    return 0;
}

static void tell_all(const struct memplug *pool, const struct memplug_notice *notice)
{
    for (unsigned i = 0; i < pool->nr_subscribers; i++)
        pool->subscribers[i]->notify(pool->subscribers[i]->context, notice);
}

int mpl_notify_going(struct mpl_op *op, struct mpl_block *block, enum memplug_event event)
{
    struct memplug *pool = op->pool;
    struct memplug_notice notice;

    if (pool->nr_subscribers == 0 || mpl_block_data_pages(pool, block) == 0)
        return 0; /* nobody to ask; or all memmap: nothing that anybody could use comes or goes */
    block->gains_normal = changes_node(pool, block, event, true) ? block->node : -1;
    block->gains_any = changes_node(pool, block, event, false) ? block->node : -1;
    block->announced = true;
    notice = notice_of(pool, block, event);
    return ask_all(op, block, &notice);
}

void mpl_notify_end(struct memplug *pool, struct mpl_block *block, enum memplug_event event)
{
    struct memplug_notice notice;

    if (!block->announced)
        return;
    notice = notice_of(pool, block, event);
    tell_all(pool, &notice);
    block->announced = false;
    block->gains_normal = block->gains_any = 0;
}

/* About the memory itself, whoever gains it; a block that is all memmap has some too. */
static struct memplug_notice notice_of_memory(const struct memplug *pool,
                                              const struct mpl_block *block,
                                              enum memplug_event event)
{
    return (struct memplug_notice){
        .event = event,
        .start = mpl_block_data_start(pool, block),
        .nr_pages = mpl_block_data_pages(pool, block),
        .node_normal = -1,
        .node_any = -1,
        .memmap_start = mpl_block_start(pool, block),
        .nr_memmap_pages = block->nr_memmap_pages,
    };
}

int mpl_notify_prepare(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug_notice notice;

    if (op->pool->nr_subscribers == 0)
        return 0;
    notice = notice_of_memory(op->pool, block, MEMPLUG_PREPARE_ONLINE);
    return ask_all(op, block, &notice);
}

void mpl_notify_finish(struct memplug *pool, struct mpl_block *block)
{
    struct memplug_notice notice;

    if (pool->nr_subscribers == 0)
        return;
    notice = notice_of_memory(pool, block, MEMPLUG_FINISH_OFFLINE);
    tell_all(pool, &notice);
}
