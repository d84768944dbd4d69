/* SPDX-License-Identifier: MIT */
/*
 * Frames for the pool's users. One frame goes through a slot; more are looked for zone by zone,
 * lowest address first, and their state changes under the zone's lock.
 */
#include "state/whole.h"
#include "steps.h"

/* What to look for: nr_pages frames at the start of nr_search free ones, aligned to align. */
struct shape {
    uint64_t nr_pages, nr_search, align;
    bool huge; /* for a huge page: never in lent frames */
};

static bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* False: no request may have this size and alignment. */
static bool shape_of(const struct memplug *pool, uint64_t nr_pages, uint64_t align_pages,
                     struct shape *shape)
{
    uint64_t pageblock_pages = mpl_pageblock_pages(&pool->geometry);
    bool small = is_power_of_two(nr_pages) && nr_pages <= (1u << MEMPLUG_MAX_ORDER);
    bool whole = nr_pages != 0 && mpl_is_multiple(nr_pages, pageblock_pages);
    uint64_t align = small ? nr_pages : pageblock_pages;

    if (!small && !whole)
        return false;
    if (align_pages != 0 && !is_power_of_two(align_pages))
        return false;
    if (align_pages > align) {
        if (!whole)
            return false;
        align = align_pages;
    }
    *shape = (struct shape){.nr_pages = nr_pages, .nr_search = nr_pages, .align = align};
    return true;
}

/* A target may have any size: its source may have been taken by memplug_alloc_exact(). */
static struct shape shape_of_target(const struct memplug *pool, const struct mpl_page *source)
{
    uint64_t align_pages = source->align_order != 0 ? (uint64_t)1 << source->align_order : 0;
    uint64_t nr_search = 1;
    struct shape shape;

    if (shape_of(pool, source->nr_pages, align_pages, &shape))
        return shape;
    if (source->nr_pages > (1u << MEMPLUG_MAX_ORDER))
        nr_search = mpl_round_up(source->nr_pages, mpl_pageblock_pages(&pool->geometry));
    else
        while (nr_search < source->nr_pages)
            nr_search *= 2;
    MPL_ASSERT(shape_of(pool, nr_search, 0, &shape));
    shape.nr_pages = source->nr_pages;
    return shape;
}

/* --- allocate --------------------------------------------------------------------------------- */

/* Wholly free pageblocks in a row, over the borders of blocks. What holds a memmap is not
 * free, and what is lent of it holds no huge page: so it ends the rows of these. */
static bool find_row(const struct memplug *pool, const struct mpl_zone *zone,
                     const struct shape *shape, memplug_pfn_t *pfn)
{
    uint64_t pageblock_pages = mpl_pageblock_pages(&pool->geometry), start = 0, end = 0;
    struct mpl_block *block;

    for (uint64_t id = 0; (block = mpl_frames_next_whole(pool, zone, id)) != NULL;) {
        uint64_t first = mpl_block_start(pool, block).nr;

        id = mpl_block_id(pool, block) + 1;
        for (uint64_t i = 0; i < pool->layout.nr_pages; i += pageblock_pages) {
            if (!mpl_frames_whole(pool, block, i) ||
                (shape->huge && i < block->nr_memmap_pages))
                continue;
            if (end != first + i || start == end)
                start = end = first + i;
            if (start == end && !mpl_is_multiple(start, shape->align))
                continue;
            end = first + i + pageblock_pages;
            if (end - start >= shape->nr_search) {
                *pfn = mpl_pfn(start);
                return true;
            }
        }
    }
    return false;
}

/* Blocks that cannot have what is looked for are left out, as far as the zone's bits tell. */
static struct mpl_block *next_block(const struct memplug *pool, const struct mpl_zone *zone,
                                    const struct shape *shape, uint64_t from)
{
    return shape->nr_search < mpl_pageblock_pages(&pool->geometry)
               ? mpl_frames_next_block(pool, zone, from)
               : mpl_frames_next_whole(pool, zone, from);
}

static bool find(const struct memplug *pool, const struct mpl_zone *zone,
                 const struct shape *shape, memplug_pfn_t *pfn)
{
    struct mpl_block *block;
    uint64_t index;

    if (shape->huge || shape->nr_search > (1u << MEMPLUG_MAX_ORDER) ||
        shape->align > shape->nr_search ||
        shape->nr_search > pool->layout.nr_pages || !is_power_of_two(shape->nr_search))
        return find_row(pool, zone, shape, pfn);
    for (uint64_t id = 0; (block = next_block(pool, zone, shape, id)) != NULL;
         id = mpl_block_id(pool, block) + 1)
        if (mpl_frames_find(pool, block, shape->nr_search, &index)) {
            *pfn = mpl_pfn_add(mpl_block_start(pool, block), index);
            return true;
        }
    return false;
}

/* Frames that lie in one block. */
struct piece {
    struct mpl_block *block;
    uint64_t index, nr_pages;
};

static struct piece piece_at(const struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    struct piece piece = {
        .block = mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, pfn)),
    };

    piece.index = mpl_pfn_distance(mpl_block_start(pool, piece.block), pfn);
    piece.nr_pages = pool->layout.nr_pages - piece.index;
    if (piece.nr_pages > nr_pages)
        piece.nr_pages = nr_pages;
    return piece;
}

static void take_found(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    struct piece piece = piece_at(pool, pfn, nr_pages);

    MPL_ASSERT(mpl_frames_take_exact(pool, piece.block, piece.index, piece.nr_pages));
    for (nr_pages -= piece.nr_pages; nr_pages != 0; nr_pages -= piece.nr_pages) {
        pfn = mpl_pfn_add(pfn, piece.nr_pages);
        piece = piece_at(pool, pfn, nr_pages);
        MPL_ASSERT(mpl_frames_take_tail(pool, piece.block, piece.nr_pages));
    }
}

/* One pageblock, wherever it is. */
static bool is_whole(const struct memplug *pool, const struct shape *shape)
{
    return shape->nr_search == mpl_pageblock_pages(&pool->geometry) &&
           shape->nr_pages == shape->nr_search && shape->align <= shape->nr_pages && !shape->huge;
}

/* In a block that has bitmaps of its own, or gets them, for which the lock is let go. */
static bool find_own(struct memplug *pool, struct mpl_zone *zone, const struct shape *shape,
                     memplug_pfn_t *pfn)
{
    bool found;

    do
        found = find(pool, zone, shape, pfn);
    while (found && mpl_frames_prepare(pool, zone, piece_at(pool, *pfn, 1).block));
    return found;
}

static bool alloc_in(struct memplug *pool, struct mpl_zone *zone, const struct shape *shape,
                     const struct memplug_alloc *request, enum mpl_page_state as,
                     memplug_pfn_t *pfn)
{
    bool found;

    mpl_spin_lock(pool, &zone->lock);
    if (is_whole(pool, shape)) {
        found = mpl_whole_take(pool, zone, request, as, pfn);
    } else if ((found = find_own(pool, zone, shape, pfn))) {
        struct piece head = piece_at(pool, *pfn, 1);

        mpl_frame_describe(pool, head.block, head.index, as, request);
        take_found(pool, *pfn, shape->nr_pages);
    }
    mpl_spin_unlock(&zone->lock);
    return found;
}

static int alloc_frames(struct memplug *pool, const struct shape *shape,
                        const struct memplug_alloc *request, enum mpl_page_state as,
                        memplug_pfn_t *pfn)
{
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        struct mpl_zone *zone;

        if (attempt != 0) /* slots may hold what is missing */
            mpl_percpu_drain(pool);
        for (unsigned i = 0; (zone = mpl_policy_zone_at(pool, request, i)) != NULL; i++)
            if (alloc_in(pool, zone, shape, request, as, pfn))
                return 0;
    }
    return -MPL_ENOMEM;
}

int memplug_alloc(struct memplug *pool, const struct memplug_alloc *request, memplug_pfn_t *pfn)
{
    struct shape shape;

    if (request->nr_pages == 1)
        return mpl_may_alloc_single(pool, request)
                   ? mpl_fast_alloc(pool, NULL, request, pfn)
                   : -MPL_EINVAL;
    if (!mpl_may_alloc(pool, request) ||
        !shape_of(pool, request->nr_pages, request->align_pages, &shape))
        return -MPL_EINVAL;
    return alloc_frames(pool, &shape, request, MPL_PAGE_USED, pfn);
}

int mpl_alloc_target(struct memplug *pool, int from_node, const struct mpl_page *source,
                     memplug_pfn_t *pfn)
{
    struct shape shape;
    struct memplug_alloc request = {
        .nr_pages = source->nr_pages,
        .align_pages = source->align_order != 0 ? (uint32_t)1 << source->align_order : 0,
        .node = from_node,
        .mover = source->mover,
        .cookie = atomic_load_explicit(&source->cookie, memory_order_relaxed),
    };

    MPL_ASSERT(request.mover != 0);
    if (request.nr_pages == 1)
        return mpl_percpu_alloc(pool, NULL, &request, MPL_PAGE_TARGET, pfn);
    shape = shape_of_target(pool, source);
    shape.huge = source->huge != 0;
    return alloc_frames(pool, &shape, &request, MPL_PAGE_TARGET, pfn);
}

/* As a movable request would: which mover it is does not matter, it has none in the pool. */
int mpl_alloc_huge(struct memplug *pool, enum memplug_huge size, int node, memplug_pfn_t *pfn)
{
    uint64_t nr_pages = mpl_huge_pages(pool, size);
    struct memplug_alloc request = {
        .nr_pages = (uint32_t)nr_pages,
        .align_pages = (uint32_t)nr_pages,
        .node = node,
        .this_node = true,
        .mover = 1,
    };
    struct shape shape;
    int error;

    MPL_ASSERT(shape_of(pool, nr_pages, nr_pages, &shape));
    shape.huge = true;
    error = alloc_frames(pool, &shape, &request, MPL_PAGE_TARGET, pfn);
    if (error == 0)
        MPL_PUT(mpl_page_at(pool, *pfn)->huge, (uint8_t)(size + 1));
    return error;
}

static int alloc_exact(struct memplug *pool, memplug_pfn_t pfn,
                       const struct memplug_alloc *request)
{
    uint64_t index;
    struct mpl_block *block = mpl_frames_block(pool, pfn, &index);
    struct mpl_zone *zone;
    int error = -MPL_EBUSY;

    if (block == NULL)
        return -MPL_ENODEV;
    if (request->nr_pages > pool->layout.nr_pages - index)
        return -MPL_EINVAL;
    zone = mpl_frames_lock_zone(pool, block);
    if (zone == NULL)
        return -MPL_ENODEV;
    if (!mpl_frames_are_data(pool, block, index, request->nr_pages))
        error = -MPL_EINVAL;
    else if (request->mover == 0 && zone->kind == MEMPLUG_ZONE_MOVABLE)
        error = -MPL_EINVAL;
    else if (mpl_frames_all_free(pool, block, index, request->nr_pages)) {
        mpl_frame_describe(pool, block, index, MPL_PAGE_USED, request);
        MPL_ASSERT(mpl_frames_take_exact(pool, block, index, request->nr_pages));
        error = 0;
    }
    mpl_spin_unlock(&zone->lock);
    return error;
}

int memplug_alloc_exact(struct memplug *pool, memplug_pfn_t pfn,
                        const struct memplug_alloc *request)
{
    struct memplug_alloc plain = *request;
    int error = -MPL_EBUSY;

    plain.align_pages = 0;
    if (plain.nr_pages == 0 || !mpl_may_request(pool, request))
        return -MPL_EINVAL;
    for (unsigned attempt = 0; attempt < 2 && error == -MPL_EBUSY; attempt++) {
        struct mpl_slot *slot;

        if (attempt != 0)
            mpl_percpu_drain(pool);
        slot = mpl_percpu_lock(pool);
        error = alloc_exact(pool, pfn, &plain);
        mpl_percpu_unlock(slot);
    }
    return error;
}

/* --- free ------------------------------------------------------------------------------------- */

/* Is there a frame at pfn that belongs to an allocation that began before it? */
static bool goes_on(const struct memplug *pool, const struct mpl_zone *zone, memplug_pfn_t pfn)
{
    uint64_t index;
    const struct mpl_block *block = mpl_frames_block(pool, pfn, &index);

    return block != NULL && mpl_frames_in_zone(block, zone) &&
           mpl_frame_get(pool, block, index) == MPL_FRAME_TAIL;
}

/* Exactly one allocation, of blocks of this zone? */
static bool is_allocation(const struct memplug *pool, const struct mpl_zone *zone,
                          memplug_pfn_t pfn, uint64_t nr_pages)
{
    bool first = true;
    uint64_t index;

    do {
        const struct mpl_block *block = mpl_frames_block(pool, pfn, &index);
        struct piece piece;

        if (block == NULL || !mpl_frames_in_zone(block, zone))
            return false;
        piece = piece_at(pool, pfn, nr_pages);
        if (first ? !mpl_frames_are_allocation(pool, block, index, piece.nr_pages)
                  : !mpl_frames_are_tail(pool, block, piece.nr_pages))
            return false;
        first = false;
        nr_pages -= piece.nr_pages;
        pfn = mpl_pfn_add(pfn, piece.nr_pages);
    } while (nr_pages != 0);
    return !mpl_is_multiple(pfn.nr, pool->layout.nr_pages) || !goes_on(pool, zone, pfn);
}

static void put_pieces(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    while (nr_pages != 0) {
        struct piece piece = piece_at(pool, pfn, nr_pages);

        mpl_frames_put(pool, piece.block, piece.index, piece.nr_pages);
        nr_pages -= piece.nr_pages;
        pfn = mpl_pfn_add(pfn, piece.nr_pages);
    }
}

/* A slot's lock is held, so the bitmaps stay; the zone's is, so the frames do. */
static int free_in(struct memplug *pool, const struct mpl_zone *zone, struct mpl_block *block,
                   uint64_t index, memplug_pfn_t pfn, uint64_t nr_pages)
{
    bool whole = nr_pages == mpl_pageblock_pages(&pool->geometry) &&
                 mpl_is_multiple(index, nr_pages) && mpl_whole_is(pool, block, index);
    bool later = false;
    int error;

    if (!whole && !is_allocation(pool, zone, pfn, nr_pages))
        return -MPL_EINVAL;
    if (mpl_frame_described(pool, block, index)) {
        if (__atomic_load_n(&mpl_page_at(pool, pfn)->huge, __ATOMIC_RELAXED) != 0)
            return -MPL_EINVAL; /* memplug_huge_free() is for that */
        error = mpl_page_end(mpl_page_at(pool, pfn), &later);
        if (error != 0)
            return error;
    }
    if (whole && !later)
        mpl_whole_put(pool, block, index);
    else if (!later)
        put_pieces(pool, pfn, nr_pages);
    return 0;
}

static int free_many(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    uint64_t index;
    struct mpl_block *block = mpl_frames_block(pool, pfn, &index);
    struct mpl_zone *zone;
    int error;

    zone = block != NULL ? mpl_frames_lock_zone(pool, block) : NULL;
    if (zone == NULL)
        return -MPL_ENODEV;
    error = free_in(pool, zone, block, index, pfn, nr_pages);
    mpl_spin_unlock(&zone->lock);
    return error;
}

int memplug_free(struct memplug *pool, memplug_pfn_t pfn, uint32_t nr_pages)
{
    struct mpl_slot *slot;
    int error;

    if (MPL_LIKELY(nr_pages == 1))
        return mpl_fast_free(pool, NULL, pfn);
    if (nr_pages == 0)
        return -MPL_EINVAL;
    slot = mpl_percpu_lock(pool);
    error = free_many(pool, pfn, nr_pages);
    mpl_percpu_unlock(slot);
    return error;
}

void mpl_free_frames(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    struct mpl_zone *zone;
    struct piece head;

    if (nr_pages == 1) {
        mpl_percpu_free_ended(pool, pfn);
        return;
    }
    head = piece_at(pool, pfn, nr_pages);
    zone = mpl_zone_of(pool, head.block);
    mpl_spin_lock(pool, &zone->lock);
    MPL_ASSERT(is_allocation(pool, zone, pfn, nr_pages));
    MPL_ASSERT(!mpl_frame_described(pool, head.block, head.index) ||
               mpl_page_state(mpl_page_at(pool, pfn)) == MPL_PAGE_NONE);
    put_pieces(pool, pfn, nr_pages);
    mpl_spin_unlock(&zone->lock);
}

void mpl_free_pooled(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    struct mpl_zone *zone = mpl_zone_of(pool, piece_at(pool, pfn, nr_pages).block);

    mpl_spin_lock(pool, &zone->lock);
    MPL_ASSERT(is_allocation(pool, zone, pfn, nr_pages));
    mpl_page_unpool(mpl_page_at(pool, pfn), MPL_PAGE_NONE, 0, 0, false);
    put_pieces(pool, pfn, nr_pages);
    mpl_spin_unlock(&zone->lock);
}

/* --- what owners do with their pages ---------------------------------------------------------- */

static int pin(struct mpl_page *page, uint64_t cookie)
{
    (void)cookie;
    return mpl_page_pin(page);
}

static int unpin(struct mpl_page *page, uint64_t cookie)
{
    (void)cookie;
    return mpl_page_unpin(page);
}

/* Does an allocation start there? One that is pinned seems held while somebody's free of it is
 * being refused. */
static bool is_head(enum mpl_frame frame, bool pinned)
{
    return frame == MPL_FRAME_HEAD || (pinned && frame == MPL_FRAME_HELD);
}

/* Inside a slot. Null if no page of a mover or driver starts there, or somebody has just freed it.
 * Whoever frees it from here on sees the mark, and looks at the page. */
static struct mpl_page *described_at(struct memplug *pool, memplug_pfn_t pfn, bool pinned,
                                     int *error)
{
    uint64_t index;
    struct mpl_block *block = mpl_frames_block(pool, pfn, &index);

    *error = block == NULL ? -MPL_ENODEV : -MPL_EINVAL;
    if (block == NULL || mpl_is_memmap(pool, block, index) ||
        !is_head(mpl_frame_get(pool, block, index), pinned) ||
        !mpl_frame_described(pool, block, index))
        return NULL;
    mpl_frames_mark(block);
    if (!pinned && !mpl_frame_is_used(block, index))
        return NULL;
    return mpl_page_at(pool, pfn);
}

static int with_page(struct memplug *pool, memplug_pfn_t pfn,
                     int (*act)(struct mpl_page *page, uint64_t cookie), uint64_t cookie)
{
    struct mpl_slot *slot = mpl_percpu_lock(pool);
    int error;
    struct mpl_page *page = described_at(pool, pfn, act == unpin, &error);

    if (page != NULL && (__atomic_load_n(&page->huge, __ATOMIC_RELAXED) == 0 || page->mover != 0))
        error = act(page, cookie); /* a huge page has a struct page without a mover too */
    mpl_percpu_unlock(slot);
    return error;
}

/* Pinned meanwhile, so that no move begins with the old cookie and ends with it. */
static int set_cookie(struct mpl_page *page, uint64_t cookie)
{
    int error = mpl_page_pin(page);

    if (error != 0)
        return error;
    if (mpl_page_state(page) == MPL_PAGE_USED)
        atomic_store_explicit(&page->cookie, cookie, memory_order_relaxed);
    else
        error = -MPL_EINVAL;
    mpl_page_unpin(page); /* if that fails, somebody else has dropped one pin too many */
    return error;
}

int memplug_pin(struct memplug *pool, memplug_pfn_t pfn)
{
    return with_page(pool, pfn, pin, 0);
}

int memplug_unpin(struct memplug *pool, memplug_pfn_t pfn)
{
    return with_page(pool, pfn, unpin, 0);
}

int memplug_set_cookie(struct memplug *pool, memplug_pfn_t pfn, uint64_t cookie)
{
    return with_page(pool, pfn, set_cookie, cookie);
}

void *memplug_page_address(const struct memplug *pool, memplug_pfn_t pfn)
{
    if (mpl_block_of_pfn(&pool->geometry, pfn) >= pool->nr_blocks_max)
        return NULL;
    return pool->host->direct_map + mpl_address_of_pfn(&pool->geometry, pfn);
}

void *memplug_page_private(const struct memplug *pool, memplug_pfn_t pfn)
{
    if (mpl_block_of_pfn(&pool->geometry, pfn) >= pool->nr_blocks_max)
        return NULL;
    return mpl_page_at(pool, pfn) + 1;
}

/* Readers believe movers below nr_movers. Writers need a lock that nobody sleeps with. */
int memplug_register_mover(struct memplug *pool, const struct memplug_mover *mover)
{
    struct mpl_spin *lock = &pool->slots[0].lock;
    unsigned number;

    if (mover->move == NULL)
        return -MPL_EINVAL;
    mpl_spin_lock(pool, lock);
    number = atomic_load_explicit(&pool->nr_movers, memory_order_relaxed);
    if (number < MPL_MAX_MOVERS) {
        pool->movers[number] = *mover;
        atomic_store_explicit(&pool->nr_movers, number + 1, memory_order_release);
    }
    mpl_spin_unlock(lock);
    return number < MPL_MAX_MOVERS ? (int)number : -MPL_ENOSPC;
}
