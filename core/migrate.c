/* SPDX-License-Identifier: MIT */
/*
 * Everything that is used in an isolated span of frames is moved away by its owners' movers. A
 * page is marked under the zone's lock, gets a target, is moved without any lock, and is settled:
 * what its owner did with it meanwhile decides (mover.h). What begins before the span or ends
 * behind it moves as a whole.
 */
#include "steps.h"

#define MAX_NAPS_SHIFT 7u

/* A mover that copies leaves no struct page in the caches: they are asked for so many ahead. */
#define NR_AHEAD 32u

/* One walk over the span. */
struct pass {
    uint64_t index;         /* where the walk stands */
    uint64_t nr_blocking;   /* allocations that stay */
    uint64_t nr_settled;    /* allocations that went */
    uint64_t nr_leaving;    /* allocations whose owners are about to free them */
    bool no_room;
    memplug_pfn_t pfn;      /* the first one that stays, and who has it */
    uint8_t mover;
    uint64_t cookie;
    const char *why;
};

static void note(struct pass *pass, const struct memplug *pool, memplug_pfn_t pfn,
                 const char *why)
{
    const struct mpl_page *page = mpl_page_at(pool, pfn);

    pass->pfn = pfn;
    pass->mover = page->mover;
    pass->cookie = atomic_load_explicit(&page->cookie, memory_order_relaxed);
    pass->why = why;
}

static void note_blocking(struct pass *pass, const struct memplug *pool, memplug_pfn_t pfn,
                          const char *why)
{
    if (pass->nr_blocking++ == 0)
        note(pass, pool, pfn, why);
}

/* What stands in the way, also if it is the deadline that ends the operation. Whoever cancelled it
 * does not wait for a description. */
static void name_blocking(struct mpl_op *op, const struct mpl_block *block,
                          const struct pass *pass)
{
    const struct memplug_mover *mover = pass->mover != 0 ? &op->pool->movers[pass->mover] : NULL;

    if (pass->nr_blocking + pass->nr_leaving == 0)
        return;
    op->reason->block = (int64_t)mpl_block_id(op->pool, block);
    op->reason->node = block->node;
    op->reason->pfn = pass->pfn;
    op->reason->nr_pages = pass->nr_blocking + pass->nr_leaving;
    op->reason->owner = mover ? mover->name : NULL;
    op->reason->owner_cookie = pass->cookie;
    if (mover == NULL || op->reason->error == -MPL_EINTR)
        return;
    if (mover->look)
        mover->look(mover->context);
    mpl_describe(mover, pass->pfn, pass->cookie, op->reason);
}

memplug_pfn_t mpl_migrate_head(const struct memplug *pool, const struct mpl_block *block,
                               uint64_t index)
{
    uint64_t head;

    while (!mpl_frames_head_of(pool, block, index, &head)) {
        block--;
        index = pool->layout.nr_pages - 1;
    }
    return mpl_pfn_add(mpl_block_start(pool, block), head);
}

/* The next allocation with a frame in the span; its first frame may be before it. */
static bool next_used(const struct memplug *pool, const struct mpl_span *span, struct pass *pass,
                      memplug_pfn_t *pfn)
{
    uint64_t end = span->index + span->nr_pages;

    if (pass->index == end)
        return false;
    if (pass->index == span->index &&
        mpl_frame_get(pool, span->block, span->index) == MPL_FRAME_TAIL) {
        *pfn = mpl_migrate_head(pool, span->block, pass->index++);
        return true;
    }
    if (!mpl_frames_next_head(pool, span->block, &pass->index) || pass->index >= end) {
        pass->index = end;
        return false;
    }
    *pfn = mpl_pfn_add(mpl_block_start(pool, span->block), pass->index++);
    for (unsigned i = 0; i < 2; i++) /* some frames are free, and ask for none */
        MPL_PREFETCH(mpl_page_at(pool, mpl_pfn_add(*pfn, NR_AHEAD + i)));
    return true;
}

static bool is_described(const struct memplug *pool, memplug_pfn_t pfn)
{
    const struct mpl_block *block = mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, pfn));

    return mpl_frame_described(pool, block,
                               mpl_pfn_distance(mpl_block_start(pool, block), pfn));
}

/* A huge page has a struct page also if nobody can move it. It changes hands under huge_lock. */
static bool has_mover(const struct mpl_page *page)
{
    return page->huge == 0 || page->mover != 0 || mpl_page_state(page) != MPL_PAGE_USED;
}

int mpl_migrate_check(struct mpl_op *op, const struct mpl_span *span)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone = mpl_zone_of(pool, span->block);
    struct pass pass = {.index = span->index};
    memplug_pfn_t pfn;

    mpl_spin_lock(pool, &pool->huge_lock);
    mpl_spin_lock(pool, &zone->lock);
    while (next_used(pool, span, &pass, &pfn))
        if (!(is_described(pool, pfn) && has_mover(mpl_page_at(pool, pfn))) &&
            pass.nr_blocking++ == 0) {
            pass.pfn = pfn;
            pass.why = "a frame is used and nobody can move it";
        }
    mpl_spin_unlock(&zone->lock);
    mpl_spin_unlock(&pool->huge_lock);
    if (pass.nr_blocking == 0)
        return 0;
    name_blocking(op, span->block, &pass);
    return mpl_fail(op, -MPL_EBUSY, pass.why, "free it, or allocate it as movable");
}

/* Mark one page for its move. False: it stays, or it needs none; pass says which. */
static bool mark(struct mpl_op *op, struct pass *pass, memplug_pfn_t pfn)
{
    struct mpl_page *page = mpl_page_at(op->pool, pfn);

    if (mpl_page_state(page) == MPL_PAGE_KEPT) {
        if (mpl_page_pins(page) != 0)
            note_blocking(pass, op->pool, pfn, "a driver keeps logically offline pages");
        return false;
    }
    if (mpl_page_state(page) == MPL_PAGE_POOLED)
        return false; /* withheld, or claimed in a moment: it leaves with its block or span */
    if (page->huge != 0 && mpl_page_state(page) == MPL_PAGE_TARGET)
        return false; /* claimed */
    if (!has_mover(page)) {
        note_blocking(pass, op->pool, pfn, "a huge page is used and nobody can move it");
        return false;
    }
    if (mpl_page_change(page, MPL_PAGE_USED, MPL_PAGE_MOVING))
        return true;
    note_blocking(pass, op->pool, pfn, "a page is pinned");
    return false;
}

/* Fill the batch with pages of one mover, all MOVING, without targets yet. */
static unsigned gather(struct mpl_op *op, const struct mpl_span *span, struct pass *pass)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone = mpl_zone_of(pool, span->block);
    unsigned nr_moves = 0, nr_max = MPL_MAX_BATCH;
    uint8_t mover = 0;
    memplug_pfn_t pfn;

    mpl_spin_lock(pool, &pool->huge_lock); /* else a huge page may change hands */
    mpl_spin_lock(pool, &zone->lock);
    while (nr_moves < nr_max && next_used(pool, span, pass, &pfn)) {
        struct mpl_page *page = mpl_page_at(pool, pfn);

        MPL_ASSERT(is_described(pool, pfn));
        if (mover != 0 && page->mover != mover) {
            pass->index--;
            break;
        }
        if (!mark(op, pass, pfn))
            continue;
        mover = page->mover;
        if (pool->movers[mover].batch_max != 0 && pool->movers[mover].batch_max < nr_max)
            nr_max = pool->movers[mover].batch_max;
        pool->batch[nr_moves++] = (struct memplug_move){
            .from = pfn,
            .to = mpl_pfn(MPL_NO_PFN),
            .nr_pages = page->nr_pages,
        };
    }
    mpl_spin_unlock(&zone->lock);
    mpl_spin_unlock(&pool->huge_lock);
    return nr_moves;
}

/* A page that did not move is its owner's again, unless the owner freed it meanwhile. */
static void settle_unmoved(struct memplug *pool, struct pass *pass,
                           const struct memplug_move *move)
{
    struct mpl_page *page = mpl_page_at(pool, move->from);
    bool gone = move->result == -MPL_ENOENT;

    /* While it is MOVING it says whose it is. */
    if (!gone)
        note_blocking(pass, pool, move->from, move->why);
    else if (pass->nr_leaving == 0 && pass->nr_blocking == 0)
        note(pass, pool, move->from, "its mover does not know it, and it is still there");
    if (mpl_page_change(page, MPL_PAGE_MOVING, MPL_PAGE_USED)) {
        pass->nr_leaving += gone;
        return;
    }
    if (page->huge != 0) {
        mpl_huge_end(pool, move->from);
    } else {
        MPL_ASSERT(mpl_page_change(page, MPL_PAGE_DYING, MPL_PAGE_NONE));
        mpl_free_frames(pool, move->from, move->nr_pages);
    }
    pass->nr_settled++;
}

static void clear_page(struct memplug *pool, memplug_pfn_t pfn, enum mpl_page_state state)
{
    struct mpl_page *page = mpl_page_at(pool, pfn);

    if (!mpl_page_change(page, state, MPL_PAGE_NONE))
        MPL_ASSERT(mpl_page_change(page, MPL_PAGE_DYING, MPL_PAGE_NONE));
}

static void end_target(struct memplug *pool, const struct memplug_move *move,
                       enum mpl_page_state state)
{
    clear_page(pool, move->to, state);
    mpl_free_frames(pool, move->to, move->nr_pages);
}

/* Single pages that have moved out of one word of the span. */
struct left {
    struct mpl_block *block;
    uint64_t word, mask;
};

static void free_left(struct memplug *pool, struct left *left)
{
    if (left->mask != 0)
        mpl_percpu_free_word(pool, left->block, left->word, left->mask);
    left->mask = 0;
}

static void end_source(struct memplug *pool, const struct memplug_move *move, struct left *left)
{
    struct mpl_block *block = mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, move->from));
    uint64_t index = mpl_pfn_distance(mpl_block_start(pool, block), move->from);
    uint64_t word = index / MPL_WORD_PAGES;

    clear_page(pool, move->from, MPL_PAGE_MOVING);
    if (move->nr_pages != 1) {
        mpl_free_frames(pool, move->from, move->nr_pages);
        return;
    }
    if (left->block != block || left->word != word)
        free_left(pool, left);
    left->block = block;
    left->word = word;
    left->mask |= (uint64_t)1 << (index % MPL_WORD_PAGES);
}

/* The owner may have freed its page, which is the target now, before it is marked as used. */
static void end_move(struct memplug *pool, const struct memplug_move *move, struct left *left)
{
    if (!mpl_page_change(mpl_page_at(pool, move->to), MPL_PAGE_TARGET, MPL_PAGE_USED))
        end_target(pool, move, MPL_PAGE_DYING);
    end_source(pool, move, left);
}

static void settle(struct mpl_op *op, struct pass *pass, const struct memplug_move *move,
                   struct left *left)
{
    struct memplug *pool = op->pool;
    bool huge = mpl_page_at(pool, move->from)->huge != 0;

    if (move->result != 0) {
        if (huge)
            mpl_huge_drop_target(pool, move->to);
        else
            end_target(pool, move, MPL_PAGE_TARGET);
        settle_unmoved(pool, pass, move);
        return;
    }
    op->moved_huge |= huge;
    if (huge)
        mpl_huge_moved(pool, move->from, move->to);
    else
        end_move(pool, move, left);
    pass->nr_settled++;
    op->progress.nr_done += move->nr_pages;
}

static int find_target(struct memplug *pool, int node, const struct mpl_page *source,
                       memplug_pfn_t *pfn)
{
    return source->huge != 0 ? mpl_huge_target(pool, node, source, pfn)
                             : mpl_alloc_target(pool, node, source, pfn);
}

/* Targets for the batch; those that get none leave it. */
static unsigned find_targets(struct memplug *pool, int node, struct pass *pass, unsigned nr_moves)
{
    unsigned nr_found = 0;

    for (unsigned i = 0; i < nr_moves; i++) {
        struct memplug_move move = pool->batch[i];
        const struct mpl_page *page = mpl_page_at(pool, move.from);

        if (find_target(pool, node, page, &move.to) == 0) {
            move.cookie = atomic_load_explicit(&page->cookie, memory_order_relaxed);
            pool->batch[nr_found++] = move;
            continue;
        }
        move.result = -MPL_ENOMEM;
        move.why = "there is no room to move it to";
        pass->no_room |= pass->nr_blocking == 0; /* what is named decides the error */
        settle_unmoved(pool, pass, &move);
    }
    return nr_found;
}

static void move_batch(struct mpl_op *op, struct mpl_block *block, struct pass *pass,
                       unsigned nr_moves)
{
    struct memplug *pool = op->pool;
    const struct memplug_mover *mover;
    struct left left = {.mask = 0};
    uint64_t nr_before;

    nr_moves = find_targets(pool, block->node, pass, nr_moves);
    if (nr_moves == 0)
        return;
    for (unsigned i = 0; i < nr_moves; i++) {
        pool->batch[i].result = -MPL_EBUSY;
        pool->batch[i].why = "its mover cannot move it now";
    }
    mover = &pool->movers[mpl_page_at(pool, pool->batch[0].from)->mover];
    mover->move(mover->context, pool->batch, nr_moves);
    op->waited = true;
    nr_before = op->progress.nr_done;
    for (unsigned i = 0; i < nr_moves; i++) {
        if (i + NR_AHEAD < nr_moves) {
            MPL_PREFETCH(mpl_page_at(pool, pool->batch[i + NR_AHEAD].to));
            MPL_PREFETCH(mpl_page_at(pool, pool->batch[i + NR_AHEAD].from));
        }
        settle(op, pass, &pool->batch[i], &left);
    }
    free_left(pool, &left);
    pool->nr_moved_pages += op->progress.nr_done - nr_before;
}

static int run_pass(struct mpl_op *op, const struct mpl_span *span, struct pass *pass)
{
    int error = 0;

    *pass = (struct pass){.index = span->index};
    while (error == 0) {
        unsigned nr_moves = gather(op, span, pass);

        if (nr_moves == 0)
            return 0;
        move_batch(op, span->block, pass, nr_moves);
        error = mpl_op_check(op);
    }
    return error;
}

/* Pages that are used when migrate comes to a span: what progress is measured by. */
static void count_work(struct mpl_op *op, const struct mpl_span *span)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone = mpl_zone_of(pool, span->block);

    mpl_spin_lock(pool, &pool->huge_lock);
    mpl_spin_lock(pool, &zone->lock);
    op->progress.nr_total += mpl_frames_nr_used(pool, span->block, span->index, span->nr_pages) -
                             mpl_huge_pooled_frames(pool, span->block, span->index,
                                                    span->nr_pages);
    mpl_spin_unlock(&zone->lock);
    mpl_spin_unlock(&pool->huge_lock);
}

/* What stays holds up its users each time it is tried: so each try is followed by a longer pause,
 * up to 128 naps of the host's (on Linux 10 to 15 ms). */
static void pause_after(const struct memplug_host *host, uint32_t nr_tries)
{
    uint32_t nr_naps = 1u << (nr_tries < MAX_NAPS_SHIFT ? nr_tries : MAX_NAPS_SHIFT);

    for (uint32_t i = 0; i < nr_naps; i++)
        host->ops->relax(host->context, MPL_SPINS_TO_SLEEP);
}

/* A pass that settles nothing counts as a try, unless owners are freeing pages: that ends, or the
 * deadline does it. */
static int run_passes(struct mpl_op *op, const struct mpl_span *span, struct pass *pass)
{
    const struct memplug_host *host = op->pool->host;
    uint32_t nr_tries = 0;

    for (;;) {
        int error = run_pass(op, span, pass);

        if (error != 0)
            return error;
        if (pass->nr_blocking + pass->nr_leaving + pass->nr_settled == 0)
            return 0;
        nr_tries = pass->nr_leaving + pass->nr_settled != 0 ? 0 : nr_tries + 1;
        if (nr_tries >= op->tries)
            break;
        if (pass->nr_settled == 0)
            pause_after(host, nr_tries);
        error = mpl_op_check(op);
        if (error != 0)
            return error;
    }
    if (pass->no_room)
        return mpl_fail(op, -MPL_ENOMEM, pass->why, "plug memory in, or free some");
    return mpl_fail(op, -MPL_EBUSY, pass->why, "end what pins it, or wait longer");
}

int mpl_migrate(struct mpl_op *op, const struct mpl_span *span)
{
    struct pass pass;
    int error;

    count_work(op, span);
    error = run_passes(op, span, &pass);
    if (error != 0)
        name_blocking(op, span->block, &pass);
    return error;
}

struct mpl_span mpl_span_of_data(const struct memplug *pool, struct mpl_block *block)
{
    return (struct mpl_span){
        .block = block,
        .index = block->nr_memmap_pages,
        .nr_pages = mpl_block_data_pages(pool, block),
    };
}

int mpl_migrate_block(struct mpl_op *op, struct mpl_block *block)
{
    struct mpl_span span = mpl_span_of_data(op->pool, block);

    return mpl_frames_untouched(op->pool, block) ? 0 : mpl_migrate(op, &span);
}
