/* SPDX-License-Identifier: MIT */
/*
 * The life of a page as tables. A row does one thing and undoes it; undo is the code of the way
 * back, takes the object only and cannot fail. An operation runs its table over all its objects,
 * row by row: row 0 on every object, row 1 on every object, ... If row i fails on object j, row i
 * is undone on the objects before j and the rows before i on all, last first.
 */
#ifndef MPL_STEPS_H
#define MPL_STEPS_H

#include "state/fast.h"
#include "state/huge.h"
#include "state/hvo.h"
#include "state/lent.h"
#include "state/state.h"

struct mpl_objects;

struct mpl_step {
    const char *name;
    int (*take)(struct mpl_op *op, struct mpl_block *object);  /* null: nothing to do */
    void (*undo)(struct memplug *pool, struct mpl_block *object); /* null: nothing to undo */
    bool commits; /* from this row on nothing fails and limits are not looked at */
    /* Null; or take of all objects at once, all of them or none. Positive: do it one by one. */
    int (*take_all)(struct mpl_op *op, const struct mpl_objects *objects);
};

/* Frames of one block. */
struct mpl_span {
    struct mpl_block *block;
    uint64_t index, nr_pages;
};

/* The objects of an operation: every stride-th block from first on. */
struct mpl_objects {
    uint64_t first;
    uint64_t nr_blocks;
    uint64_t stride; /* 1, or the blocks of a unit */
    const uint64_t *only; /* null; or a bit per block of the pool: no others are objects */
};

/* Of those that stride names, is this one? */
static inline bool mpl_is_object(const struct mpl_objects *objects, uint64_t id)
{
    return objects->only == NULL || (objects->only[id / 64] >> (id % 64) & 1) != 0;
}

int mpl_steps_run(struct mpl_op *op, const struct mpl_step *table, unsigned nr_rows,
                  const struct mpl_objects *objects);
void mpl_steps_undo(struct memplug *pool, const struct mpl_step *table, unsigned nr_rows,
                    const struct mpl_objects *objects);

/* --- add.c: the door has checked everything that can be checked ------------------------------- */
int mpl_add(struct mpl_op *op); /* op->add->address and memmap are resolved */
void mpl_remove(struct memplug *pool, uint64_t first, uint64_t nr_blocks);
/* Its rows that do for boot memory too. */
void mpl_unit_claim(struct memplug *pool, struct mpl_block *unit, uint64_t nr_blocks,
                    enum memplug_memmap memmap, int node);
void mpl_unit_unclaim(struct memplug *pool, struct mpl_block *unit);
int mpl_unit_attach(struct mpl_op *op, struct mpl_block *unit);
void mpl_unit_detach(struct memplug *pool, struct mpl_block *unit);
int mpl_unit_publish(struct mpl_op *op, struct mpl_block *unit);
void mpl_unit_unpublish(struct memplug *pool, struct mpl_block *unit);

/* --- boot.c ----------------------------------------------------------------------------------- */
/* The pool has boot memory only: give it back, or -EBUSY and the frame that is used. */
int mpl_boot_close(struct mpl_op *op);

/* --- memmap.c --------------------------------------------------------------------------------- */
/* May units of nr_blocks have their memmap there? 0, or -EINVAL with the predicate that failed. */
int mpl_memmap_supported(struct mpl_op *op, uint64_t nr_blocks, enum memplug_memmap memmap,
                         bool pad, uint64_t alignment);
/* The same for blocks that hold their own, if that was not demanded: also whole pageblocks. */
int mpl_memmap_hint_supported(struct mpl_op *op, bool pad, uint64_t alignment);
/* Frames at the head of a unit of nr_blocks that its own memmap takes, padding included. */
uint64_t mpl_memmap_pages(const struct memplug *pool, uint64_t nr_blocks, bool pad);
/* May nr_blocks blocks from first on map a memmap of their own? -EBUSY: one lies where neighbours
 * share a large unit of the window. */
int mpl_memmap_check_window(struct mpl_op *op, uint64_t first, uint64_t nr_blocks);
int mpl_memmap_map(struct mpl_op *op, struct mpl_block *unit);
void mpl_memmap_unmap(struct memplug *pool, struct mpl_block *unit);
int mpl_memmap_place_bitmaps(struct mpl_op *op, struct mpl_block *unit);
void mpl_memmap_drop_bitmaps(struct memplug *pool, struct mpl_block *unit);

/* --- online.c, offline.c ---------------------------------------------------------------------- */
/* only: see mpl_objects; op->first is the first that goes. */
int mpl_online(struct mpl_op *op, uint64_t first, uint64_t nr_blocks, const uint64_t *only);
/* Rows that do for boot memory too. The block counts in its zone, and its frames are the
 * allocator's; nobody who saw the blocks online looks at their bitmaps any more. */
int mpl_publish_online(struct mpl_op *op, struct mpl_block *block);
int mpl_forget_readers(struct mpl_op *op, struct mpl_block *block);
int mpl_offline(struct mpl_op *op, uint64_t first, uint64_t nr_blocks, const uint64_t *only);

/* --- alloc.c ---------------------------------------------------------------------------------- */
/* A target for a page of that size: never from an isolated pageblock. It is described as TARGET. */
int mpl_alloc_target(struct memplug *pool, int from_node, const struct mpl_page *source,
                     memplug_pfn_t *pfn);
/* Frames for a huge page of the pool, on this node; described as TARGET. */
int mpl_alloc_huge(struct memplug *pool, enum memplug_huge size, int node, memplug_pfn_t *pfn);
/* A POOLED page is NONE, and its frames are free. */
void mpl_free_pooled(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages);
/* May a request have this mover; and this node; and is one of a single page as it may be? */
static inline bool mpl_may_request(const struct memplug *pool, const struct memplug_alloc *request)
{
    return request->mover == 0 ||
           request->mover < atomic_load_explicit(&pool->nr_movers, memory_order_acquire);
}

static inline bool mpl_may_alloc(const struct memplug *pool, const struct memplug_alloc *request)
{
    return mpl_may_request(pool, request) &&
           (request->node == MEMPLUG_ANY_NODE ||
            (request->node >= 0 && (unsigned)request->node < pool->nr_nodes));
}

static inline bool mpl_may_alloc_single(const struct memplug *pool,
                                        const struct memplug_alloc *request)
{
    return mpl_may_alloc(pool, request) && request->align_pages <= 1;
}
/* As memplug_alloc() and memplug_free(), but of single pages; own: null, or a slot of the
 * caller's. */
int mpl_alloc(struct memplug *pool, struct mpl_slot *own, const struct memplug_alloc *request,
              memplug_pfn_t *pfn);
int mpl_free(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn, uint64_t nr_pages);
/* A whole allocation that is its user's no more: its page is NONE by the caller's doing. */
void mpl_free_frames(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages);

/* --- release.c: frames come to the allocator when their block goes online, and leave it ------- */
/* Never released frames of one block become free, and managed. */
void mpl_release_frames(struct memplug *pool, memplug_pfn_t start, uint64_t nr_pages);
/* Never released frames become one logically offline chunk of a driver. */
void mpl_keep_frames(struct memplug *pool, memplug_pfn_t start, uint64_t nr_pages);
/* The zone's lock is held: all frames of the block are free, poisoned or kept without a reference;
 * they are neither free nor kept any more. */
void mpl_withdraw_frames(struct memplug *pool, struct mpl_block *block);

/* --- kept.c: logically offline pages ---------------------------------------------------------- */
/* The first frame of the span that is logically offline. The control lock is held, so none becomes
 * that; its driver may release it. */
bool mpl_kept_find(struct memplug *pool, const struct mpl_span *span, uint64_t *index);

/* --- migrate.c -------------------------------------------------------------------------------- */
/* All but the frames that hold its unit's memmap; perhaps none. */
struct mpl_span mpl_span_of_data(const struct memplug *pool, struct mpl_block *block);

/* The first frame of the allocation that a used frame belongs to; it may be in an earlier block. */
memplug_pfn_t mpl_migrate_head(const struct memplug *pool, const struct mpl_block *block,
                               uint64_t index);
/* -EBUSY, naming the frame, if an isolated and drained span has one that nobody can move. */
int mpl_migrate_check(struct mpl_op *op, const struct mpl_span *span);
/* Move everything that is used out of an isolated span, or out of a block's data. What of it is
 * used afterwards is kept without a reference. */
int mpl_migrate(struct mpl_op *op, const struct mpl_span *span);
int mpl_migrate_block(struct mpl_op *op, struct mpl_block *block);

/* --- vacate.c --------------------------------------------------------------------------------- */
/*
 * Make frames of one block that is online, or going, free and keep them from the allocator: their
 * pageblocks are isolated afterwards, in which others may have isolated them before. Then the
 * caller, under the zone's lock, takes what it wants (mpl_frames_take_isolated) and ends with
 * mpl_vacate_undo, which is the way back too. -EBUSY, naming the frame, if one holds the memmap, is
 * logically offline, poisoned, unmovable or pinned; -ENOMEM; -ETIMEDOUT, -EINTR. What has moved
 * stays moved; nothing else has changed if it fails. The control lock is held, and no other. A
 * block whose frames were withdrawn forgets its isolations: nothing is undone behind that.
 */
int mpl_vacate(struct mpl_op *op, struct mpl_block *block, uint64_t index, uint64_t nr_pages);
void mpl_vacate_undo(struct memplug *pool, struct mpl_block *block, uint64_t index,
                     uint64_t nr_pages);

/* --- poison.c --------------------------------------------------------------------------------- */
/* -EHWPOISON, naming the first frame, if one of these blocks has poisoned frames. */
int mpl_poison_check(struct mpl_op *op, uint64_t first, uint64_t nr_blocks);
/* The unit is removed: what was known of its frames goes. */
void mpl_poison_forget(struct memplug *pool, struct mpl_block *unit);

/* --- huge.c ----------------------------------------------------------------------------------- */
/* Free huge pages with a frame in the block are not handed out any more; -EBUSY if what is left
 * does not cover the promises. And the way back. */
int mpl_huge_withhold(struct mpl_op *op, struct mpl_block *block);
void mpl_huge_withhold_undo(struct memplug *pool, struct mpl_block *block);
/* What is withheld leaves the pool; its frames are free. */
int mpl_huge_dissolve_block(struct mpl_op *op, struct mpl_block *block);
/* A target for a huge page that is MOVING: described as TARGET. -ENOMEM. */
int mpl_huge_target(struct memplug *pool, int node, const struct mpl_page *source,
                    memplug_pfn_t *pfn);
/* The move failed; the move is done; the owner freed a page that did not move (DYING). */
void mpl_huge_drop_target(struct memplug *pool, memplug_pfn_t pfn);
void mpl_huge_moved(struct memplug *pool, memplug_pfn_t from, memplug_pfn_t to);
void mpl_huge_end(struct memplug *pool, memplug_pfn_t pfn);
/* A page that is MOVING, or DYING, is its owner's no more and leaves the pool. */
void mpl_huge_lost(struct memplug *pool, memplug_pfn_t pfn);
/* Free huge pages with a frame in the span are claimed: nobody gets them. -EBUSY if one is
 * promised; those claimed are claimed still. used: there is one that is used. And the way back, or
 * their end: they leave the pool, and all their frames are free. */
int mpl_huge_claim(struct mpl_op *op, const struct mpl_span *span, bool *used);
void mpl_huge_unclaim(struct memplug *pool, const struct mpl_span *span, bool dissolve);

/* --- hvo.c ------------------------------------------------------------------------------------ */
/* The memmap of every huge page that can be lent now is lent. */
void mpl_hvo_lend_all(struct memplug *pool);
/* The same if the operation has moved a huge page; at its end. */
void mpl_hvo_lend_moved(struct mpl_op *op);
/* Return that of one page, which keeps its state; errors as mpl_vacate(), or -ENOMEM. */
int mpl_hvo_return(struct mpl_op *op, memplug_pfn_t pfn, enum memplug_huge size);
/* Return those of all huge pages with a frame in the span, and lend them again. */
int mpl_hvo_return_span(struct mpl_op *op, const struct mpl_span *span);
void mpl_hvo_lend_span(struct memplug *pool, const struct mpl_span *span);
/* The same of a block, and of what is lent in it. forget: they will not be lent again. */
int mpl_hvo_return_block(struct mpl_op *op, struct mpl_block *block);
void mpl_hvo_return_block_undo(struct memplug *pool, struct mpl_block *block);
void mpl_hvo_forget_block(struct memplug *pool, struct mpl_block *block);

/* --- notify.c --------------------------------------------------------------------------------- */
/* GOING_*: 0, or what a subscriber refused with and the reason; the pair of events is begun. */
int mpl_notify_going(struct mpl_op *op, struct mpl_block *block, enum memplug_event event);
/* The other events end the pair; nothing is sent if none was begun. */
void mpl_notify_end(struct memplug *pool, struct mpl_block *block, enum memplug_event event);
/* PREPARE_ONLINE, which may be refused, and FINISH_OFFLINE. */
int mpl_notify_prepare(struct mpl_op *op, struct mpl_block *block);
void mpl_notify_finish(struct memplug *pool, struct mpl_block *block);

/* --- watch.c: uevents, sent when an operation has succeeded ----------------------------------- */
void mpl_watch_block(const struct memplug *pool, enum memplug_action action, uint64_t id,
                     int node);
/* Present ones, ascending. */
void mpl_watch_blocks(const struct memplug *pool, enum memplug_action action, uint64_t first,
                      uint64_t nr_blocks);
/* Nodes came (ADD) or went (REMOVE): those of the mask, ascending. */
void mpl_watch_nodes(const struct memplug *pool, enum memplug_action action, uint64_t nodes);

#endif
