/* SPDX-License-Identifier: MIT */
/*
 * Pools of huge pages: their doors. What offline and the mover do with them stands in huge_move.c.
 */
#include "door.h"
#include "huge_ops.h"

static bool is_size(enum memplug_huge size)
{
    return (unsigned)size < MEMPLUG_NR_HUGE;
}

uint64_t memplug_huge_pages(const struct memplug *pool, enum memplug_huge size)
{
    return is_size(size) ? mpl_huge_pages(pool, size) : 0;
}

/* --- resize ----------------------------------------------------------------------------------- */

struct resize {
    struct mpl_op *op;
    struct memplug *pool;
    struct mpl_huge *huge;
    enum memplug_huge size;
    int node;           /* the only one that changes; MEMPLUG_ANY_NODE */
    uint64_t target;    /* of the pages that are not surplus, on all nodes */
    uint64_t full;      /* nodes without room, or without a page that can go; a bit each */
    bool stuck;         /* a memmap could not be returned */
};

static uint64_t nr_persistent(const struct resize *resize)
{
    return resize->huge->all.nr - resize->huge->all.nr_surplus;
}

static bool may_change(const struct resize *resize, int node)
{
    return resize->node == MEMPLUG_ANY_NODE || resize->node == node;
}

/* Surplus pages become ordinary ones as long as the pool is too small, or the reverse. */
static void adjust_surplus(struct resize *resize, bool more)
{
    for (int node = 0; node < (int)resize->pool->nr_nodes; node++) {
        const struct mpl_huge_count *count = &resize->huge->nodes[node];

        while (may_change(resize, node) &&
               (more ? nr_persistent(resize) > resize->target && count->nr_surplus < count->nr
                     : nr_persistent(resize) < resize->target && count->nr_surplus != 0))
            mpl_huge_count(resize->pool, node, resize->size, 0, more ? 1 : -1);
    }
}

/* The node with the fewest pages that may have room: as if its turn came after each page. */
static int node_to_grow(const struct resize *resize)
{
    int best = -1;

    for (int node = 0; node < (int)resize->pool->nr_nodes; node++)
        if (may_change(resize, node) && (resize->full >> node & 1) == 0 &&
            (best < 0 || resize->huge->nodes[node].nr < resize->huge->nodes[best].nr))
            best = node;
    return best;
}

/* What waits for its memmap counts again. huge_lock is held. */
static void unpark_excess(struct resize *resize)
{
    const struct mpl_huge *huge = resize->huge;

    if ((resize->node == MEMPLUG_ANY_NODE ? huge->all : huge->nodes[resize->node]).nr_excess != 0)
        mpl_huge_unpark(resize->pool, resize->size, resize->node, MPL_HUGE_EXCESS);
}

/* One page more. False: enough, or no room. */
static bool grow(struct resize *resize)
{
    struct memplug *pool = resize->pool;
    memplug_pfn_t pfn;
    bool enough;
    int node;

    mpl_huge_lock(pool);
    unpark_excess(resize);
    adjust_surplus(resize, false);
    enough = nr_persistent(resize) >= resize->target;
    node = node_to_grow(resize);
    mpl_huge_unlock(pool);
    if (enough || node < 0)
        return false;
    if (mpl_alloc_huge(pool, resize->size, node, &pfn) != 0) {
        resize->full |= (uint64_t)1 << node;
        return true;
    }
    mpl_huge_lock(pool);
    MPL_ASSERT(mpl_page_pool(mpl_page_at(pool, pfn), MPL_PAGE_TARGET));
    mpl_huge_count(pool, mpl_huge_node_of(pool, pfn), resize->size, 1, 0);
    mpl_huge_count_free(pool, pfn, resize->size, true);
    mpl_huge_unlock(pool);
    return true;
}

/* A node with a free page that may go: surplus first, then where most are free. */
static int node_to_shrink(const struct resize *resize)
{
    bool shrink = nr_persistent(resize) > resize->target;
    int best = -1;

    if (mpl_huge_available(resize->pool, resize->size) == 0)
        return -1;
    for (int node = 0; node < (int)resize->pool->nr_nodes; node++) {
        const struct mpl_huge_count *count = &resize->huge->nodes[node];

        if (!may_change(resize, node) || count->nr_free == 0 || (resize->full >> node & 1) != 0)
            continue;
        if (count->nr_surplus != 0)
            return node;
        if (shrink && (best < 0 || count->nr_free > resize->huge->nodes[best].nr_free))
            best = node;
    }
    return best;
}

/* A claimed page whose memmap is lent leaves when that has come back. */
static int dissolve_lent(struct resize *resize, memplug_pfn_t pfn)
{
    struct memplug *pool = resize->pool;
    struct mpl_page *page = mpl_page_at(pool, pfn);
    int error = mpl_hvo_return(resize->op, pfn, resize->size);

    mpl_huge_lock(pool);
    if (!mpl_page_pool(page, MPL_PAGE_TARGET)) /* freed by somebody who does not own it */
        MPL_ASSERT(mpl_page_pool(page, MPL_PAGE_DYING));
    if (error == 0) {
        mpl_huge_leave(pool, pfn, resize->size);
    } else {
        mpl_huge_flag(page, MPL_HUGE_STUCK, 0);
        mpl_huge_count_free(pool, pfn, resize->size, true);
    }
    mpl_huge_unlock(pool);
    return error;
}

/* One free page less. *more: perhaps there is another one to go. */
static int shrink(struct resize *resize, bool *more)
{
    struct memplug *pool = resize->pool;
    bool lent = false;
    memplug_pfn_t pfn;
    int node, error;

    mpl_huge_lock(pool);
    unpark_excess(resize);
    node = node_to_shrink(resize);
    *more = node >= 0;
    if (*more && !mpl_huge_find_last(pool, resize->size, node, &pfn)) {
        resize->full |= (uint64_t)1 << node; /* those that are left are stuck */
    } else if (*more) {
        struct mpl_page *page = mpl_page_at(pool, pfn);

        lent = (page->huge_flags & MPL_HUGE_LENT) != 0;
        if (lent) { /* nobody gets it meanwhile */
            mpl_huge_count_free(pool, pfn, resize->size, false);
            mpl_page_unpool(page, MPL_PAGE_TARGET, 0, 0, false);
        } else {
            mpl_huge_dissolve(pool, pfn, resize->size);
        }
    }
    mpl_huge_unlock(pool);
    if (!lent)
        return 0;
    error = dissolve_lent(resize, pfn);
    resize->stuck |= error != 0;
    return error == -MPL_ETIMEDOUT || error == -MPL_EINTR ? error : 0;
}

/* What was in the way of an operation that did what it could. */
static void explain(struct resize *resize)
{
    struct mpl_op *op = resize->op;

    if (nr_persistent(resize) < resize->target) {
        mpl_fail(op, 0, "there are not so many huge pages' frames free in one piece",
                 "plug memory in, or free some");
        op->reason->nr_pages = resize->target - nr_persistent(resize);
    } else if (resize->stuck && nr_persistent(resize) > resize->target) {
        op->reason->error = 0; /* the rest says who has lent frames */
    } else {
        mpl_reason_reset(op->reason);
    }
}

/* A free page that is surplus leaves; one whose memmap is lent waits, for nobody. */
static bool drop_one_surplus(struct memplug *pool, enum memplug_huge size)
{
    bool dropped = false;

    mpl_huge_lock(pool);
    for (int node = 0; node < (int)pool->nr_nodes && !dropped; node++) {
        memplug_pfn_t pfn;

        dropped = mpl_huge_has_surplus(pool, node, size) && mpl_huge_available(pool, size) != 0 &&
                  mpl_huge_find_last(pool, size, node, &pfn);
        if (dropped)
            mpl_huge_drop(pool, pfn, size);
    }
    mpl_huge_unlock(pool);
    return dropped;
}

static int resize_locked(struct resize *resize)
{
    struct mpl_op *op = resize->op;
    bool more = true;
    int error = 0;

    op->progress.step = "grow";
    while (error == 0 && grow(resize))
        error = mpl_op_check(op);
    op->progress.step = "shrink";
    resize->full = 0;
    while (error == 0 && more) {
        error = shrink(resize, &more);
        if (error == 0 && more)
            error = mpl_op_check(op);
    }
    mpl_huge_lock(resize->pool);
    if (resize->stuck)
        mpl_huge_unpark(resize->pool, resize->size, resize->node, MPL_HUGE_STUCK);
    if (error == 0) {
        explain(resize);
        adjust_surplus(resize, true);
    }
    mpl_huge_unlock(resize->pool);
    while (drop_one_surplus(resize->pool, resize->size))
        ;
    mpl_hvo_lend_all(resize->pool);
    return error;
}

/* What one node shall have, as what all shall have. */
static uint64_t target_of(struct resize *resize, uint64_t nr)
{
    uint64_t nr_others = 0;

    mpl_huge_lock(resize->pool);
    if (resize->node != MEMPLUG_ANY_NODE) {
        const struct mpl_huge_count *count = &resize->huge->nodes[resize->node];

        nr_others = nr_persistent(resize) - (count->nr - count->nr_surplus);
    }
    mpl_huge_unlock(resize->pool);
    return nr > UINT64_MAX - nr_others ? UINT64_MAX : nr + nr_others;
}

int memplug_huge_resize(struct memplug *pool, enum memplug_huge size, uint64_t nr, int node,
                        const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct resize resize = {.pool = pool, .size = size, .node = node};
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "huge resize", limit, reason);
    if (!is_size(size))
        return mpl_fail(&door.op, -MPL_EINVAL, "there is no such size of huge pages", NULL);
    if (node != MEMPLUG_ANY_NODE && !mpl_node_valid(pool, node)) {
        door.op.reason->node = node;
        return mpl_fail(&door.op, -MPL_EINVAL, "there is no such node", NULL);
    }
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    resize.op = &door.op;
    resize.huge = &pool->huge[size];
    resize.target = target_of(&resize, nr);
    return mpl_door_unlock(&door.op, resize_locked(&resize));
}

/* --- reserve ---------------------------------------------------------------------------------- */

int memplug_huge_reserve(struct memplug *pool, enum memplug_huge size, uint64_t nr)
{
    int error = 0;

    if (!is_size(size))
        return -MPL_EINVAL;
    mpl_huge_lock(pool);
    if (nr > mpl_huge_available(pool, size))
        error = -MPL_ENOMEM;
    else
        pool->huge[size].nr_reserved += nr;
    mpl_huge_unlock(pool);
    return error;
}

/* The lock is held for one page at a time: nobody waits for as many as were promised. */
int memplug_huge_unreserve(struct memplug *pool, enum memplug_huge size, uint64_t nr)
{
    int error = 0;

    if (!is_size(size))
        return -MPL_EINVAL;
    mpl_huge_lock(pool);
    if (nr > pool->huge[size].nr_reserved)
        error = -MPL_EINVAL;
    else
        pool->huge[size].nr_reserved -= nr;
    mpl_huge_unlock(pool);
    while (error == 0 && nr-- != 0 && drop_one_surplus(pool, size))
        ;
    return error;
}

/* --- allocate and free ------------------------------------------------------------------------ */

static int take(struct memplug *pool, enum memplug_huge size, const struct memplug_alloc *request,
                bool reserved, memplug_pfn_t *pfn)
{
    struct mpl_huge_want want = {
        .node = request->node,
        .this_node = request->this_node,
        .movable = request->mover != 0,
    };
    bool found;

    if (reserved && pool->huge[size].nr_reserved == 0)
        return -MPL_EINVAL;
    if (!reserved && mpl_huge_available(pool, size) == 0)
        return -MPL_ENOMEM;
    found = mpl_huge_find(pool, size, &want, pfn);
    if (!found && reserved) { /* a promise is kept as long as the page is not withheld */
        want.isolated = true;
        found = mpl_huge_find(pool, size, &want, pfn);
        MPL_ASSERT(found);
    }
    if (!found)
        return -MPL_ENOMEM;
    mpl_huge_count_free(pool, *pfn, size, false);
    pool->huge[size].nr_reserved -= reserved;
    mpl_page_unpool(mpl_page_at(pool, *pfn), MPL_PAGE_USED, request->mover,
                    request->mover != 0 ? request->cookie : 0,
                    request->mover != 0 && request->pinned);
    return 0;
}

/* With a slot's lock: who sees a block that is not isolated yet is waited for (drain). */
int memplug_huge_alloc(struct memplug *pool, enum memplug_huge size,
                       const struct memplug_alloc *request, bool reserved, memplug_pfn_t *pfn)
{
    struct mpl_slot *slot;
    int error;

    if (!is_size(size) || !mpl_may_request(pool, request) ||
        (reserved && (request->mover == 0 || request->this_node)) || /* nobody promised that */
        (request->node != MEMPLUG_ANY_NODE && !mpl_node_valid(pool, request->node)))
        return -MPL_EINVAL;
    slot = mpl_percpu_lock(pool);
    mpl_huge_lock(pool);
    error = take(pool, size, request, reserved, pfn);
    mpl_huge_unlock(pool);
    mpl_percpu_unlock(slot);
    return error;
}

/* Huge pages change owners under huge_lock, so that what is seen here stays so. */
static int free_huge(struct memplug *pool, memplug_pfn_t pfn)
{
    uint64_t index;
    const struct mpl_block *block = mpl_frames_block(pool, pfn, &index);
    struct mpl_page *page;
    bool later;
    int error;

    if (block == NULL)
        return -MPL_ENODEV;
    page = mpl_page_at(pool, pfn);
    if (mpl_is_memmap(pool, block, index) || mpl_frame_get(pool, block, index) != MPL_FRAME_HEAD ||
        !mpl_frame_described(pool, block, index) ||
        __atomic_load_n(&page->huge, __ATOMIC_RELAXED) == 0)
        return -MPL_EINVAL;
    error = mpl_page_end_huge(page, &later);
    if (error == 0 && !later)
        mpl_huge_freed(pool, pfn, mpl_huge_size_of(page));
    return error;
}

int memplug_huge_free(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_slot *slot = mpl_percpu_lock(pool);
    int error;

    mpl_huge_lock(pool);
    error = free_huge(pool, pfn);
    mpl_huge_unlock(pool);
    mpl_percpu_unlock(slot);
    return error;
}

int memplug_huge_info(const struct memplug *pool, enum memplug_huge size, int node,
                      struct memplug_huge_info *info)
{
    const struct mpl_huge *huge;
    const struct mpl_huge_count *count;
    struct mpl_spin *spin = &((struct memplug *)pool)->huge_lock;

    if (!info || !is_size(size) || (node != MEMPLUG_ANY_NODE && !mpl_node_valid(pool, node)))
        return -MPL_EINVAL;
    huge = &pool->huge[size];
    count = node == MEMPLUG_ANY_NODE ? &huge->all : &huge->nodes[node];
    mpl_spin_lock(pool, spin);
    *info = (struct memplug_huge_info){
        .nr_huge = count->nr,
        .nr_free = count->nr_free,
        .nr_reserved = node == MEMPLUG_ANY_NODE ? huge->nr_reserved : 0,
        .nr_surplus = count->nr_surplus,
        .nr_optimized = count->nr_lent,
        .nr_lent_pages = count->nr_lent * mpl_hvo_lent_pages(pool, size),
    };
    mpl_spin_unlock(spin);
    return 0;
}
