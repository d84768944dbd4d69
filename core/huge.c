/* SPDX-License-Identifier: MIT */
/*
 * Pools of huge pages: their doors, and what offline and the mover do with them. Free pages of a
 * block that goes offline are withheld first, and dissolved when nothing can fail any more: so an
 * offline that fails has nothing to repair.
 */
#include "door.h"
#include "steps.h"

static void lock(struct memplug *pool)
{
    mpl_spin_lock(pool, &pool->huge_lock);
}

static void unlock(struct memplug *pool)
{
    mpl_spin_unlock(&pool->huge_lock);
}

static enum memplug_huge size_of(const struct mpl_page *page)
{
    MPL_ASSERT(page->huge != 0 && page->huge <= MEMPLUG_NR_HUGE);
    return (enum memplug_huge)(page->huge - 1);
}

static int node_of(const struct memplug *pool, memplug_pfn_t pfn)
{
    return mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, pfn))->node;
}

static bool is_size(enum memplug_huge size)
{
    return (unsigned)size < MEMPLUG_NR_HUGE;
}

uint64_t memplug_huge_pages(const struct memplug *pool, enum memplug_huge size)
{
    return is_size(size) ? mpl_huge_pages(pool, size) : 0;
}

/* --- pages come to the pool and leave it; huge_lock is held ----------------------------------- */

/* A free page leaves for good, and with it a surplus that its node has. */
static void dissolve(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    int node = node_of(pool, pfn);

    mpl_huge_count_free(pool, pfn, size, false);
    mpl_huge_count(pool, node, size, -1, pool->huge[size].nodes[node].nr_surplus != 0 ? -1 : 0);
    mpl_free_pooled(pool, pfn, mpl_huge_pages(pool, size));
}

/* Its owner has freed it, and it is POOLED now. */
static void freed(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size)
{
    mpl_huge_count_free(pool, pfn, size, true);
    if (pool->huge[size].nodes[node_of(pool, pfn)].nr_surplus != 0)
        dissolve(pool, pfn, size);
}

/* --- resize ----------------------------------------------------------------------------------- */

struct resize {
    struct mpl_op *op;
    struct memplug *pool;
    struct mpl_huge *huge;
    enum memplug_huge size;
    int node;           /* the only one that changes; MEMPLUG_ANY_NODE */
    uint64_t target;    /* of the pages that are not surplus, on all nodes */
    uint64_t full;      /* nodes without room, a bit each */
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

/* One page more. False: enough, or no room. */
static bool grow(struct resize *resize)
{
    struct memplug *pool = resize->pool;
    memplug_pfn_t pfn;
    bool enough;
    int node;

    lock(pool);
    adjust_surplus(resize, false);
    enough = nr_persistent(resize) >= resize->target;
    node = node_to_grow(resize);
    unlock(pool);
    if (enough || node < 0)
        return false;
    if (mpl_alloc_huge(pool, resize->size, node, &pfn) != 0) {
        resize->full |= (uint64_t)1 << node;
        return true;
    }
    lock(pool);
    MPL_ASSERT(mpl_page_pool(mpl_page_at(pool, pfn), MPL_PAGE_TARGET));
    mpl_huge_count(pool, node_of(pool, pfn), resize->size, 1, 0);
    mpl_huge_count_free(pool, pfn, resize->size, true);
    unlock(pool);
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

        if (!may_change(resize, node) || count->nr_free == 0)
            continue;
        if (count->nr_surplus != 0)
            return node;
        if (shrink && (best < 0 || count->nr_free > resize->huge->nodes[best].nr_free))
            best = node;
    }
    return best;
}

/* One free page less. False: enough, or none may go. */
static bool shrink(struct resize *resize)
{
    struct memplug *pool = resize->pool;
    memplug_pfn_t pfn;
    int node;

    lock(pool);
    node = node_to_shrink(resize);
    if (node >= 0) {
        MPL_ASSERT(mpl_huge_find_last(pool, resize->size, node, &pfn));
        dissolve(pool, pfn, resize->size);
    }
    unlock(pool);
    return node >= 0;
}

static int resize_locked(struct resize *resize)
{
    struct mpl_op *op = resize->op;
    int error = 0;

    op->progress.step = "grow";
    while (error == 0 && grow(resize))
        error = mpl_op_check(op);
    op->progress.step = "shrink";
    while (error == 0 && shrink(resize))
        error = mpl_op_check(op);
    if (error != 0)
        return error;
    lock(resize->pool);
    adjust_surplus(resize, true);
    if (nr_persistent(resize) < resize->target) {
        mpl_fail(op, 0, "there are not so many huge pages' frames free in one piece",
                 "plug memory in, or free some");
        op->reason->nr_pages = resize->target - nr_persistent(resize);
    }
    unlock(resize->pool);
    return 0;
}

/* What one node shall have, as what all shall have. */
static uint64_t target_of(struct resize *resize, uint64_t nr)
{
    uint64_t nr_others = 0;

    lock(resize->pool);
    if (resize->node != MEMPLUG_ANY_NODE)
        nr_others = resize->huge->all.nr - resize->huge->nodes[resize->node].nr;
    unlock(resize->pool);
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
    lock(pool);
    if (nr > mpl_huge_available(pool, size))
        error = -MPL_ENOMEM;
    else
        pool->huge[size].nr_reserved += nr;
    unlock(pool);
    return error;
}

/* Surplus pages that were kept for promises only leave with these. */
static void drop_surplus(struct memplug *pool, enum memplug_huge size, uint64_t nr)
{
    for (int node = 0; node < (int)pool->nr_nodes; node++) {
        const struct mpl_huge_count *count = &pool->huge[size].nodes[node];
        memplug_pfn_t pfn;

        for (; nr != 0 && count->nr_surplus != 0 && mpl_huge_available(pool, size) != 0 &&
               mpl_huge_find_last(pool, size, node, &pfn); nr--)
            dissolve(pool, pfn, size);
    }
}

int memplug_huge_unreserve(struct memplug *pool, enum memplug_huge size, uint64_t nr)
{
    int error = 0;

    if (!is_size(size))
        return -MPL_EINVAL;
    lock(pool);
    if (nr > pool->huge[size].nr_reserved)
        error = -MPL_EINVAL;
    else
        pool->huge[size].nr_reserved -= nr;
    if (error == 0)
        drop_surplus(pool, size, nr);
    unlock(pool);
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
    lock(pool);
    error = take(pool, size, request, reserved, pfn);
    unlock(pool);
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
    if (index < block->nr_memmap_pages || mpl_frame_get(pool, block, index) != MPL_FRAME_HEAD ||
        !mpl_frame_described(pool, block, index) || page->huge == 0)
        return -MPL_EINVAL;
    error = mpl_page_end_huge(page, &later);
    if (error == 0 && !later)
        freed(pool, pfn, size_of(page));
    return error;
}

int memplug_huge_free(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_slot *slot = mpl_percpu_lock(pool);
    int error;

    lock(pool);
    error = free_huge(pool, pfn);
    unlock(pool);
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
    };
    mpl_spin_unlock(spin);
    return 0;
}

/* --- offline ---------------------------------------------------------------------------------- */

int mpl_huge_withhold(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    bool done;

    lock(pool);
    done = mpl_huge_set_withheld(pool, block, true);
    unlock(pool);
    if (done)
        return 0;
    op->reason->block = (int64_t)mpl_block_id(pool, block);
    op->reason->node = block->node;
    return mpl_fail(op, -MPL_EBUSY, "free huge pages of this block are promised",
                    "make the pool of huge pages larger, or take promises back");
}

void mpl_huge_withhold_undo(struct memplug *pool, struct mpl_block *block)
{
    lock(pool);
    MPL_ASSERT(mpl_huge_set_withheld(pool, block, false));
    unlock(pool);
}

/* Frames that such a page has in other blocks are free there now. */
int mpl_huge_dissolve_block(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;

    lock(pool);
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE; size++) {
        memplug_pfn_t pfn = mpl_pfn(0);

        while (mpl_huge_next(pool, block, (enum memplug_huge)size, &pfn))
            dissolve(pool, pfn, (enum memplug_huge)size);
    }
    MPL_ASSERT(mpl_huge_set_withheld(pool, block, false));
    unlock(pool);
    return 0;
}

/* --- move ------------------------------------------------------------------------------------- */

/* A free one that nobody was promised, else fresh frames. */
int mpl_huge_target(struct memplug *pool, int node, const struct mpl_page *source,
                    memplug_pfn_t *pfn)
{
    enum memplug_huge size = size_of(source);
    struct mpl_huge_want want = {.node = node, .movable = true};
    bool found;
    int error;

    lock(pool);
    found = mpl_huge_available(pool, size) != 0 && mpl_huge_find(pool, size, &want, pfn);
    if (found) {
        mpl_huge_count_free(pool, *pfn, size, false);
        mpl_page_unpool(mpl_page_at(pool, *pfn), MPL_PAGE_TARGET, source->mover,
                        atomic_load_explicit(&source->cookie, memory_order_relaxed), false);
    }
    unlock(pool);
    if (found)
        return 0;
    error = mpl_alloc_target(pool, node, source, pfn);
    if (error == 0)
        MPL_PUT(mpl_page_at(pool, *pfn)->huge, source->huge);
    return error;
}

/* From any of the two states, since the owner may have freed it. */
static void pool_page(struct memplug *pool, memplug_pfn_t pfn, enum mpl_page_state from)
{
    struct mpl_page *page = mpl_page_at(pool, pfn);

    if (!mpl_page_pool(page, from))
        MPL_ASSERT(mpl_page_pool(page, MPL_PAGE_DYING));
}

void mpl_huge_drop_target(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_page *page = mpl_page_at(pool, pfn);
    enum memplug_huge size = size_of(page);
    bool from_pool = (page->huge_flags & MPL_HUGE_FROM_POOL) != 0;

    lock(pool);
    pool_page(pool, pfn, MPL_PAGE_TARGET);
    if (from_pool)
        mpl_huge_count_free(pool, pfn, size, true);
    else
        mpl_free_pooled(pool, pfn, mpl_huge_pages(pool, size));
    unlock(pool);
}

/* A target of the pool's leaves the source there in its place: it is withheld, and goes with its
 * block. Fresh frames take the source's place, which is theirs no more. */
void mpl_huge_moved(struct memplug *pool, memplug_pfn_t from, memplug_pfn_t to)
{
    struct mpl_page *target = mpl_page_at(pool, to);
    enum memplug_huge size = size_of(target);
    bool from_pool = (target->huge_flags & MPL_HUGE_FROM_POOL) != 0;
    int node = node_of(pool, from);

    lock(pool);
    target->huge_flags &= (uint8_t)~MPL_HUGE_FROM_POOL;
    pool_page(pool, from, MPL_PAGE_MOVING);
    if (from_pool) {
        mpl_huge_count_free(pool, from, size, true);
    } else {
        int nr_surplus = pool->huge[size].nodes[node].nr_surplus != 0;

        mpl_huge_count(pool, node_of(pool, to), size, 1, nr_surplus);
        mpl_huge_count(pool, node, size, -1, -nr_surplus);
        mpl_free_pooled(pool, from, mpl_huge_pages(pool, size));
    }
    if (!mpl_page_change(target, MPL_PAGE_TARGET, MPL_PAGE_USED)) {
        MPL_ASSERT(mpl_page_pool(target, MPL_PAGE_DYING));
        freed(pool, to, size);
    }
    unlock(pool);
}

void mpl_huge_end(struct memplug *pool, memplug_pfn_t pfn)
{
    struct mpl_page *page = mpl_page_at(pool, pfn);

    lock(pool);
    MPL_ASSERT(mpl_page_pool(page, MPL_PAGE_DYING));
    freed(pool, pfn, size_of(page));
    unlock(pool);
}
