/* SPDX-License-Identifier: MIT */
/*
 * Frames for the pool's users. One frame goes through a slot; more are looked for zone by zone,
 * lowest address first, and their state changes under the zone's lock.
 */
#include "state/whole_fast.h"
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

static inline bool is_pageblock(const struct memplug *pool, const struct memplug_alloc *request)
{
    return request->nr_pages == mpl_pageblock_pages(&pool->geometry) &&
           (request->align_pages <= 1 || request->align_pages == request->nr_pages);
}

static inline bool use_held(struct memplug *pool, struct mpl_slot *own,
                            const struct memplug_alloc *request, memplug_pfn_t *pfn)
{
    struct mpl_slot *slot = mpl_slot_enter(pool, own);
    bool done = mpl_whole_use(pool, slot, request, pfn);

    mpl_slot_leave(slot, own);
    return done;
}

int mpl_alloc(struct memplug *pool, struct mpl_slot *own, const struct memplug_alloc *request,
              memplug_pfn_t *pfn)
{
    struct shape shape;

    if (!mpl_may_alloc(pool, request))
        return -MPL_EINVAL;
    if (is_pageblock(pool, request) && use_held(pool, own, request, pfn))
        return 0;
    if (!shape_of(pool, request->nr_pages, request->align_pages, &shape))
        return -MPL_EINVAL;
    return alloc_frames(pool, &shape, request, MPL_PAGE_USED, pfn);
}

int memplug_alloc(struct memplug *pool, const struct memplug_alloc *request, memplug_pfn_t *pfn)
{
    if (request->nr_pages != 1)
        return mpl_alloc(pool, NULL, request, pfn);
    if (!mpl_may_alloc_single(pool, request))
        return -MPL_EINVAL;
    return mpl_fast_alloc(pool, NULL, request, pfn);
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

/* Slots take whole pageblocks without the zone's lock, by this bit. One that was in other hands
 * when its page was ended may be of another size by now, and its page be ended by who has that. */
static int put_whole(struct memplug *pool, struct mpl_block *block, uint64_t index, bool ended)
{
    const struct mpl_page *page =
        mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), index));
    int error = -MPL_EINVAL;

    if (ended)
        error = mpl_frame_take_ended(pool, block, index);
    else if (mpl_frame_give_held(block, index))
        error = 0;
    if (error == 0 && ended && page->nr_pages != mpl_pageblock_pages(&pool->geometry)) {
        mpl_frame_use_held(block, index);
        error = -MPL_EINVAL;
    }
    if (error == 0)
        mpl_whole_put(pool, block, index);
    return error;
}

/* The caller is inside a slot, so the bitmaps stay; the zone's lock is held, so the frames do. */
static int free_locked(struct memplug *pool, const struct mpl_zone *zone, struct mpl_block *block,
                       uint64_t index, memplug_pfn_t pfn, uint64_t nr_pages)
{
    bool whole = nr_pages == mpl_pageblock_pages(&pool->geometry) &&
                 mpl_is_multiple(index, nr_pages) && mpl_whole_is(pool, block, index, false);
    bool later = false, described;
    int error;

    if (!whole && !is_allocation(pool, zone, pfn, nr_pages))
        return -MPL_EINVAL;
    described = mpl_frame_described(pool, block, index);
    if (described) {
        if (__atomic_load_n(&mpl_page_at(pool, pfn)->huge, __ATOMIC_RELAXED) != 0)
            return -MPL_EINVAL; /* memplug_huge_free() is for that */
        error = mpl_page_end(mpl_page_at(pool, pfn), &later);
        if (error != 0)
            return error;
    }
    if (later)
        return 0;
    if (whole)
        return put_whole(pool, block, index, described);
    put_pieces(pool, pfn, nr_pages);
    return 0;
}

static int free_many(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages, bool ended)
{
    uint64_t index;
    struct mpl_block *block = mpl_frames_block(pool, pfn, &index);
    struct mpl_zone *zone;
    int error;

    zone = block != NULL ? mpl_frames_lock_zone(pool, block) : NULL;
    if (zone == NULL)
        return -MPL_ENODEV;
    error = ended ? put_whole(pool, block, index, true)
                  : free_locked(pool, zone, block, index, pfn, nr_pages);
    mpl_spin_unlock(&zone->lock);
    return error;
}

static int free_inside(struct memplug *pool, struct mpl_slot *slot, memplug_pfn_t pfn,
                       uint64_t nr_pages)
{
    int error = MPL_LONG_WAY;

    if (nr_pages == mpl_pageblock_pages(&pool->geometry) && mpl_is_multiple(pfn.nr, nr_pages))
        error = mpl_whole_give(pool, slot, pfn);
    return error == MPL_LONG_WAY ? free_many(pool, pfn, nr_pages, false) : error;
}

int mpl_free(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn, uint64_t nr_pages)
{
    struct mpl_slot *slot;
    int error;

    if (nr_pages == 0)
        return -MPL_EINVAL;
    slot = mpl_slot_enter(pool, own);
    error = free_inside(pool, slot, pfn, nr_pages);
    mpl_slot_leave(slot, own);
    if (MPL_LIKELY(error != MPL_IN_OTHER_HANDS))
        return error;
    mpl_percpu_pass(pool); /* whoever frees it too has stepped back by then, or has kept it */
    slot = mpl_slot_enter(pool, own);
    error = free_many(pool, pfn, nr_pages, true);
    mpl_slot_leave(slot, own);
    return error == MPL_IN_OTHER_HANDS ? -MPL_EINVAL : error;
}

int memplug_free(struct memplug *pool, memplug_pfn_t pfn, uint32_t nr_pages)
{
    return MPL_LIKELY(nr_pages == 1) ? mpl_fast_free(pool, NULL, pfn)
                                     : mpl_free(pool, NULL, pfn, nr_pages);
}

/* All of an allocation whose page is NONE by the caller's doing, and was no user's: so its block is
 * marked, and who frees it by mistake has it for a moment at most. */
static void put_ended(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    struct piece head = piece_at(pool, pfn, nr_pages);
    const struct mpl_bits *bits = bits_at(head.block, head.index / MPL_WORD_PAGES);
    unsigned nr_spins = 0;
    int error;

    MPL_ASSERT((load(&bits->head) & bit_of(head.index)) != 0);
    MPL_ASSERT(mpl_page_at(pool, pfn)->nr_pages == nr_pages);
    while ((error = mpl_frame_take_ended(pool, head.block, head.index)) == MPL_IN_OTHER_HANDS)
        while ((load(&bits->free) & bit_of(head.index)) != 0)
            pool->host->ops->relax(pool->host->context, nr_spins++);
    MPL_ASSERT(error == 0);
    put_pieces(pool, pfn, nr_pages);
}

void mpl_free_frames(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    struct mpl_zone *zone;

    if (nr_pages == 1) {
        mpl_percpu_free_ended(pool, pfn);
        return;
    }
    zone = mpl_zone_of(pool, piece_at(pool, pfn, nr_pages).block);
    mpl_spin_lock(pool, &zone->lock);
    put_ended(pool, pfn, nr_pages);
    mpl_spin_unlock(&zone->lock);
}

void mpl_free_pooled(struct memplug *pool, memplug_pfn_t pfn, uint64_t nr_pages)
{
    struct mpl_zone *zone = mpl_zone_of(pool, piece_at(pool, pfn, nr_pages).block);

    mpl_spin_lock(pool, &zone->lock);
    mpl_page_unpool(mpl_page_at(pool, pfn), MPL_PAGE_NONE, 0, 0, false);
    put_ended(pool, pfn, nr_pages);
    mpl_spin_unlock(&zone->lock);
}
