/* SPDX-License-Identifier: MIT */
/*
 * Bad frames leave the allocator for good. Soft: what is in the frame moves away first. Hard: its
 * owner is told that it is lost, and has it no more. The memory that remembers them is fetched
 * before anything is done that cannot be taken back.
 */
#include <memplug/poison.h>

#include "door.h"
#include "state/early.h"
#include "steps.h"

/* --- what is remembered ----------------------------------------------------------------------- */

/* Memory for the block's bitmap; null if it has one. */
static int fetch(struct mpl_op *op, const struct mpl_block *block, void **memory)
{
    const struct memplug_host *host = op->pool->host;
    int error;

    *memory = NULL;
    if (block->poisoned != NULL)
        return 0;
    op->progress.step = "memory";
    error = mpl_op_check(op);
    if (error != 0)
        return error;
    error = host->ops->memory_get(host->context, mpl_poison_bytes(op->pool), memory);
    if (error != 0)
        return mpl_fail(op, error, "the host has no memory to remember it", NULL);
    MPL_FILL(*memory, 0, mpl_poison_bytes(op->pool));
    return 0;
}

static void give_back(struct memplug *pool, void *memory)
{
    if (memory != NULL)
        pool->host->ops->memory_put(pool->host->context, memory, mpl_poison_bytes(pool));
}

/* The span is one vacated frame. */
static void commit(struct memplug *pool, const struct mpl_span *span, void *memory)
{
    struct mpl_block *block = span->block;
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    if (memory != NULL) {
        MPL_PUT(block->poisoned, (uint64_t *)memory);
        pool->host_bytes += mpl_poison_bytes(pool);
    }
    mpl_poison_set(pool, block, span->index);
    mpl_spin_unlock(&zone->lock);
}

void mpl_poison_forget(struct memplug *pool, struct mpl_block *unit)
{
    for (uint64_t i = 0; i < unit->unit_nr_blocks; i++) {
        if (unit[i].poisoned == NULL)
            continue;
        give_back(pool, unit[i].poisoned);
        pool->host_bytes -= mpl_poison_bytes(pool);
        MPL_PUT(unit[i].poisoned, NULL);
        MPL_PUT(unit[i].nr_poisoned, 0);
    }
}

int mpl_poison_check(struct mpl_op *op, uint64_t first, uint64_t nr_blocks)
{
    for (uint64_t id = first; id < first + nr_blocks; id++) {
        const struct mpl_block *block = mpl_block_at(op->pool, id);

        if (block->nr_poisoned == 0)
            continue;
        op->reason->block = (int64_t)id;
        op->reason->nr_pages = block->nr_poisoned;
        op->reason->pfn = mpl_pfn_add(mpl_block_start(op->pool, block),
                                      mpl_poisoned_next(op->pool, block, 0));
        return mpl_fail(op, -MPL_EHWPOISON, "the block has poisoned frames",
                        "remove its range, and add sound memory");
    }
    return 0;
}

/* --- hard: take a frame from its owner -------------------------------------------------------- */

/* What has the frame; nr_pages is 0 if nothing has. */
struct victim {
    memplug_pfn_t pfn;
    uint32_t nr_pages;
    bool pinned;
    const struct memplug_mover *mover;
    uint64_t cookie;
};

static int fail_victim(struct mpl_op *op, const struct victim *victim, int error,
                       const char *why, const char *remedy)
{
    op->reason->block = (int64_t)mpl_block_of_pfn(&op->pool->geometry, victim->pfn);
    op->reason->pfn = victim->pfn;
    op->reason->nr_pages = 1;
    op->reason->owner = victim->mover != NULL ? victim->mover->name : NULL;
    op->reason->owner_cookie = victim->cookie;
    return mpl_fail(op, error, why, remedy);
}

/* The zone's lock is held. Marked as if it were to move, unless it is pinned: so it cannot be
 * pinned, and if its owner frees it, that is remembered. */
static int mark(struct mpl_op *op, const struct mpl_span *span, struct victim *victim)
{
    struct memplug *pool = op->pool;
    const struct mpl_block *block;
    struct mpl_page *page;

    *victim = (struct victim){.nr_pages = 0};
    if (mpl_frame_get(pool, span->block, span->index) == MPL_FRAME_FREE)
        return 0;
    victim->pfn = mpl_migrate_head(pool, span->block, span->index);
    block = mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, victim->pfn));
    page = mpl_page_at(pool, victim->pfn);
    if (!mpl_frame_described(pool, block,
                             mpl_pfn_distance(mpl_block_start(pool, block), victim->pfn)))
        return fail_victim(op, victim, -MPL_EBUSY,
                           "the frame is used and nobody can be told that it is lost", "free it");
    if (mpl_page_state(page) == MPL_PAGE_KEPT)
        return fail_victim(op, victim, -MPL_EBUSY, "a driver keeps logically offline pages",
                           "let the driver release them");
    if (page->huge != 0 && mpl_page_state(page) == MPL_PAGE_TARGET)
        return 0; /* claimed: as good as free */
    victim->pinned = mpl_page_state(page) == MPL_PAGE_POOLED;
    if (victim->pinned) { /* freed just now: it is claimed next time */
        victim->nr_pages = page->nr_pages;
        return 0;
    }
    victim->mover = &pool->movers[page->mover];
    victim->nr_pages = page->nr_pages;
    victim->cookie = atomic_load_explicit(&page->cookie, memory_order_relaxed);
    if (victim->mover->lost == NULL)
        return fail_victim(op, victim, -MPL_EBUSY, "its mover cannot be told that it is lost",
                           "free it");
    victim->pinned = !mpl_page_change(page, MPL_PAGE_USED, MPL_PAGE_MOVING);
    /* From here on the owner cannot give it a new one. */
    victim->cookie = atomic_load_explicit(&page->cookie, memory_order_relaxed);
    return 0;
}

/* 0: it is its owner's no more, and its frames are free. */
static int tell(struct memplug *pool, const struct victim *victim)
{
    struct mpl_page *page = mpl_page_at(pool, victim->pfn);
    int error = victim->mover->lost(victim->mover->context, victim->pfn, victim->nr_pages,
                                    victim->cookie);

    if (error != 0 && mpl_page_change(page, MPL_PAGE_MOVING, MPL_PAGE_USED))
        return error;
    if (page->huge != 0) {
        mpl_huge_lost(pool, victim->pfn);
        return 0;
    }
    if (!mpl_page_change(page, MPL_PAGE_MOVING, MPL_PAGE_NONE))
        MPL_ASSERT(mpl_page_change(page, MPL_PAGE_DYING, MPL_PAGE_NONE));
    mpl_free_frames(pool, victim->pfn, victim->nr_pages);
    return 0;
}

/* Tries count as in an offline: what its owner is about to free is awaited until the deadline. */
static int take(struct mpl_op *op, const struct mpl_span *span)
{
    const struct memplug_host *host = op->pool->host;
    struct mpl_zone *zone = mpl_zone_of(op->pool, span->block);
    uint32_t nr_tries = 0;

    for (;;) {
        struct victim victim;
        bool used;
        int error = mpl_huge_claim(op, span, &used);

        if (error != 0)
            return error;
        mpl_spin_lock(op->pool, &op->pool->huge_lock);
        mpl_spin_lock(op->pool, &zone->lock);
        error = mark(op, span, &victim);
        mpl_spin_unlock(&zone->lock);
        mpl_spin_unlock(&op->pool->huge_lock);
        if (error != 0 || victim.nr_pages == 0)
            return error;
        error = victim.pinned ? -MPL_EBUSY : tell(op->pool, &victim);
        if (error == 0)
            return 0;
        nr_tries = error == -MPL_ENOENT ? 0 : nr_tries + 1;
        if (nr_tries >= op->tries)
            return fail_victim(op, &victim, -MPL_EBUSY,
                               victim.pinned ? "a page is pinned" : "its mover keeps it",
                               "end what pins it, or wait longer");
        host->ops->relax(host->context, MPL_SPINS_TO_SLEEP);
        error = mpl_op_check(op);
        if (error != 0)
            return fail_victim(op, &victim, error, op->reason->why, op->reason->remedy);
    }
}

/* The span is free and isolated afterwards, as mpl_vacate() leaves it. */
static int expel_hard(struct mpl_op *op, const struct mpl_span *span)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone = mpl_zone_of(pool, span->block);
    int error;

    op->progress.step = "isolate";
    error = mpl_op_check(op);
    if (error != 0)
        return error;
    mpl_spin_lock(pool, &zone->lock);
    mpl_isolate_span(pool, span->block, span->index, span->nr_pages);
    mpl_spin_unlock(&zone->lock);
    mpl_percpu_pass(pool);
    op->progress.step = "lost";
    error = mpl_op_check(op);
    if (error == 0)
        error = mpl_hvo_return_span(op, span);
    if (error == 0)
        error = take(op, span);
    mpl_huge_unclaim(pool, span, error == 0);
    if (error != 0)
        mpl_hvo_lend_span(pool, span);
    if (error != 0)
        mpl_vacate_undo(pool, span->block, span->index, span->nr_pages);
    return error;
}

static int expel_soft(struct mpl_op *op, const struct mpl_span *span)
{
    return mpl_vacate(op, span->block, span->index, span->nr_pages);
}

/* --- doors ------------------------------------------------------------------------------------ */

static int find(struct mpl_op *op, memplug_pfn_t pfn, int offline_error, struct mpl_span *span)
{
    struct memplug *pool = op->pool;
    uint64_t id = mpl_block_of_pfn(&pool->geometry, pfn);

    op->reason->pfn = pfn;
    if (id >= pool->nr_blocks_max ||
        mpl_block_state(mpl_block_at(pool, id)) == MEMPLUG_BLOCK_ABSENT)
        return mpl_fail(op, -MPL_ENXIO, "no block holds such a frame", NULL);
    op->reason->block = (int64_t)id;
    span->block = mpl_block_at(pool, id);
    span->index = mpl_pfn_distance(mpl_block_start(pool, span->block), pfn);
    span->nr_pages = 1;
    if (mpl_block_state(span->block) != MEMPLUG_BLOCK_ONLINE)
        return mpl_fail(op, offline_error, "the frame's block is not online", NULL);
    if (mpl_early_is_hole(pool, span->block, span->index))
        return mpl_fail(op, -MPL_ENXIO, "the frame is a memory hole", NULL);
    if (mpl_early_several(pool, span->block))
        return mpl_fail(op, -MPL_EBUSY, "the frame is of a block of several zones", NULL);
    if (span->index < span->block->nr_memmap_pages) /* also while it is lent */
        return mpl_fail(op, -MPL_EBUSY, "a frame holds the memmap", NULL);
    mpl_reason_reset(op->reason);
    return 0;
}

static int poison(struct mpl_op *op, const struct mpl_span *span,
                  int (*expel)(struct mpl_op *op, const struct mpl_span *span))
{
    struct memplug *pool = op->pool;
    void *memory;
    int error = fetch(op, span->block, &memory);

    if (error != 0)
        return error;
    error = expel(op, span);
    if (error != 0) {
        give_back(pool, memory);
        return error;
    }
    commit(pool, span, memory);
    mpl_vacate_undo(pool, span->block, span->index, span->nr_pages);
    return 0;
}

int memplug_soft_offline(struct memplug *pool, memplug_pfn_t pfn,
                         const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct mpl_door door;
    struct mpl_span span;
    int error;

    mpl_door_open(&door, pool, "soft offline", limit, reason);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    error = find(&door.op, pfn, -MPL_EIO, &span);
    if (error == 0 && !mpl_poisoned(span.block, span.index))
        error = poison(&door.op, &span, expel_soft);
    mpl_hvo_lend_moved(&door.op);
    return mpl_door_unlock(&door.op, error);
}

int memplug_hard_offline(struct memplug *pool, memplug_pfn_t pfn,
                         const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct mpl_door door;
    struct mpl_span span;
    int error;

    mpl_door_open(&door, pool, "hard offline", limit, reason);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    error = find(&door.op, pfn, -MPL_ENXIO, &span);
    if (error == 0 && mpl_poisoned(span.block, span.index)) {
        door.op.reason->pfn = pfn;
        error = mpl_fail(&door.op, -MPL_EHWPOISON, "the frame is poisoned already", NULL);
    }
    if (error == 0)
        error = poison(&door.op, &span, expel_hard);
    mpl_hvo_lend_moved(&door.op);
    return mpl_door_unlock(&door.op, error);
}
