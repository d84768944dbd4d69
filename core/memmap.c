/* SPDX-License-Identifier: MIT */
/*
 * Where the struct pages of a unit are: in frames at its own head, mapped a second time into the
 * memmap window, or in memory of the host. A mapping is cut into at most three runs, so that the
 * window's large unit is used wherever a whole one belongs to this unit alone. Of memmaps of the
 * host's, neighbours may have one large unit together: see state/share.c.
 */
#include "steps.h"

enum run { RUN_HEAD, RUN_LARGE, RUN_TAIL, NR_RUNS };

/* Window offsets of one run: size_bytes is 0 if there is none. */
struct window_run {
    uint64_t offset, size_bytes, unit_bytes;
    bool *share; /* the block's flag, if this is a large unit that it shares; else null */
};

static bool is_own(const struct mpl_block *unit)
{
    return unit->memmap != MEMPLUG_MEMMAP_HOST;
}

/* What may be lent is mapped page by page, so that nothing but entries changes then. */
static bool is_in_pages(const struct memplug *pool, const struct mpl_block *unit)
{
    return pool->hvo == MEMPLUG_HVO_ALL || (pool->hvo != MEMPLUG_HVO_OFF && !is_own(unit));
}

/* Which ends of its memmap a block has in a large unit together with its neighbours. */
static void choose_shares(const struct memplug *pool, const struct mpl_block *unit,
                          bool shares[MPL_NR_ENDS])
{
    uint64_t offset;

    for (unsigned at = 0; at < MPL_NR_ENDS; at++)
        shares[at] = !is_own(unit) && !is_in_pages(pool, unit) &&
                     mpl_share_at(pool, mpl_block_id(pool, unit), (enum mpl_end)at, &offset) &&
                     (mpl_share_holder(pool, offset) != NULL ||
                      mpl_share_may_provide(pool, offset));
}

static struct window_run shared_run(const struct memplug *pool, struct mpl_block *unit,
                                    enum mpl_end at)
{
    uint64_t large_bytes = mpl_share_unit_bytes(&pool->geometry);
    struct window_run run = {0, large_bytes, large_bytes, &unit->shares[at]};

    MPL_ASSERT(mpl_share_at(pool, mpl_block_id(pool, unit), at, &run.offset));
    return run;
}

/* Cut the unit's part of the window at the large unit's boundaries; what is shared is not cut. The
 * unit's frames can stand behind a large unit only if they are aligned as it is. */
static void cut_runs(const struct memplug *pool, struct mpl_block *unit,
                     const bool shares[MPL_NR_ENDS], struct window_run runs[NR_RUNS])
{
    const struct memplug_geometry *geometry = &pool->geometry;
    uint64_t page_bytes = mpl_page_bytes(geometry);
    uint64_t large_bytes = mpl_share_unit_bytes(geometry);
    memplug_pfn_t start = mpl_block_start(pool, unit);
    uint64_t begin = mpl_memmap_bytes(geometry, start.nr);
    uint64_t nr_pages = unit->unit_nr_blocks * mpl_block_pages(geometry);
    uint64_t end = begin + mpl_memmap_bytes(geometry, nr_pages);
    uint64_t large_begin = mpl_round_up(begin, large_bytes);
    uint64_t large_end = end & ~(large_bytes - 1);
    uint64_t address = mpl_address_of_pfn(geometry, start) + (large_begin - begin);
    bool any_large = large_begin < large_end;
    bool meets_shared = (shares[MPL_END_HEAD] || shares[MPL_END_TAIL]) && large_begin > begin &&
                        large_begin < end;

    if ((!any_large && !meets_shared) || is_in_pages(pool, unit) ||
        (is_own(unit) && !mpl_is_multiple(address, large_bytes)))
        large_begin = large_end = end;
    runs[RUN_HEAD] = (struct window_run){begin, large_begin - begin, page_bytes, NULL};
    runs[RUN_LARGE] = (struct window_run){large_begin, large_end - large_begin, large_bytes, NULL};
    runs[RUN_TAIL] = (struct window_run){large_end, end - large_end, page_bytes, NULL};
    if (shares[MPL_END_HEAD])
        runs[RUN_HEAD] = shared_run(pool, unit, MPL_END_HEAD);
    if (shares[MPL_END_TAIL])
        runs[RUN_TAIL] = shared_run(pool, unit, MPL_END_TAIL);
}

static uint64_t run_pages(const struct memplug *pool, const struct window_run *run)
{
    return mpl_pages_of_bytes(&pool->geometry, run->size_bytes);
}

/* The frames of a run, unit by unit; they follow each other. */
static memplug_pfn_t take_frames(struct memplug *pool, struct mpl_altmap *altmap,
                                 const struct window_run *run)
{
    uint64_t unit_pages = mpl_pages_of_bytes(&pool->geometry, run->unit_bytes);
    memplug_pfn_t first = mpl_altmap_take(altmap, unit_pages);

    for (uint64_t done = unit_pages; done < run_pages(pool, run); done += unit_pages) {
        memplug_pfn_t next = mpl_altmap_take(altmap, unit_pages);

        MPL_ASSERT(next.nr == first.nr + done);
    }
    MPL_ASSERT(first.nr != MPL_NO_PFN);
    return first;
}

/* The first block in a shared unit provides it, the others join. */
static int provide_run(struct memplug *pool, const struct window_run *run)
{
    const struct memplug_host *host = pool->host;
    int error;

    if (run->share == NULL || mpl_share_holder(pool, run->offset) == NULL) {
        error = host->ops->memmap_provide(host->context, run->offset, run->size_bytes,
                                          run->unit_bytes);
        if (error != 0)
            return error;
        pool->host_bytes += run->size_bytes;
    }
    if (run->share != NULL)
        *run->share = true;
    return 0;
}

static int map_run(struct memplug *pool, struct mpl_block *unit, const struct window_run *run)
{
    const struct memplug_host *host = pool->host;
    memplug_pfn_t frames;
    int error;

    if (!is_own(unit))
        return provide_run(pool, run);
    frames = take_frames(pool, &unit->altmap, run);
    error = host->ops->memmap_alias(host->context, run->offset,
                                    mpl_address_of_pfn(&pool->geometry, frames),
                                    run->size_bytes, run->unit_bytes);
    if (error != 0)
        mpl_altmap_give_back(&unit->altmap, run_pages(pool, run));
    return error;
}

/* The last block out of a shared unit gives it back. */
static void unmap_run(struct memplug *pool, struct mpl_block *unit, const struct window_run *run)
{
    const struct memplug_host *host = pool->host;

    if (run->share != NULL) {
        *run->share = false;
        if (mpl_share_holder(pool, run->offset) != NULL)
            return;
    }
    host->ops->memmap_unmap(host->context, run->offset, run->size_bytes, run->unit_bytes);
    if (is_own(unit))
        mpl_altmap_give_back(&unit->altmap, run_pages(pool, run));
    else
        pool->host_bytes -= run->size_bytes;
}

static void unmap_runs(struct memplug *pool, struct mpl_block *unit,
                       const struct window_run *runs, unsigned nr_runs)
{
    while (nr_runs-- > 0)
        if (runs[nr_runs].size_bytes != 0)
            unmap_run(pool, unit, &runs[nr_runs]);
}

int mpl_memmap_map(struct mpl_op *op, struct mpl_block *unit)
{
    struct window_run runs[NR_RUNS];
    bool shares[MPL_NR_ENDS];

    op->waited = true;
    choose_shares(op->pool, unit, shares);
    cut_runs(op->pool, unit, shares, runs);
    for (unsigned i = 0; i < NR_RUNS; i++) {
        int error = runs[i].size_bytes != 0 ? map_run(op->pool, unit, &runs[i]) : 0;

        if (error != 0) {
            unmap_runs(op->pool, unit, runs, i);
            return mpl_fail(op, error, "the host cannot map the memmap", NULL);
        }
    }
    return 0;
}

void mpl_memmap_unmap(struct memplug *pool, struct mpl_block *unit)
{
    struct window_run runs[NR_RUNS];
    bool shares[MPL_NR_ENDS] = {unit->shares[MPL_END_HEAD], unit->shares[MPL_END_TAIL]};

    cut_runs(pool, unit, shares, runs);
    unmap_runs(pool, unit, runs, NR_RUNS);
}

uint64_t mpl_memmap_pages(const struct memplug *pool, uint64_t nr_blocks, bool pad)
{
    const struct memplug_geometry *geometry = &pool->geometry;
    uint64_t nr_pages = nr_blocks * mpl_block_pages(geometry);
    uint64_t nr_frames = mpl_pages_of_bytes(geometry, mpl_memmap_bytes(geometry, nr_pages));

    return pad ? mpl_round_up(nr_frames, mpl_pageblock_pages(geometry)) : nr_frames;
}

int mpl_memmap_supported(struct mpl_op *op, uint64_t nr_blocks, enum memplug_memmap memmap,
                         bool pad, uint64_t alignment)
{
    const struct memplug_geometry *geometry = &op->pool->geometry;
    uint64_t nr_pages = nr_blocks * mpl_block_pages(geometry);
    uint64_t size_bytes = mpl_memmap_bytes(geometry, nr_pages);

    op->reason->size_bytes = size_bytes;
    op->reason->unit_bytes = mpl_page_bytes(geometry);
    if (!mpl_is_multiple(size_bytes, mpl_page_bytes(geometry)))
        return mpl_fail(op, -MPL_EINVAL, "the memmap is not whole pages",
                        "use another block or struct page size");
    if (memmap != MEMPLUG_MEMMAP_HOST) {
        op->reason->unit_bytes = alignment;
        if (!mpl_is_multiple(size_bytes, alignment))
            return mpl_fail(op, -MPL_EINVAL,
                            "the memmap cannot be mapped at the alignment of the backing",
                            "use a memmap of the host");
        if (mpl_memmap_pages(op->pool, nr_blocks, pad) >= nr_pages)
            return mpl_fail(op, -MPL_EINVAL, "the memmap leaves no room for data", NULL);
    }
    op->reason->size_bytes = 0;
    op->reason->unit_bytes = 0;
    return 0;
}

/* Linux self-hosts no memmap that shares a pageblock with data, unless it is told to pad it. */
int mpl_memmap_hint_supported(struct mpl_op *op, bool pad, uint64_t alignment)
{
    const struct memplug_geometry *geometry = &op->pool->geometry;
    uint64_t nr_frames = mpl_memmap_pages(op->pool, 1, pad);
    int error = mpl_memmap_supported(op, 1, MEMPLUG_MEMMAP_BLOCK, pad, alignment);

    if (error != 0 || mpl_is_multiple(nr_frames, mpl_pageblock_pages(geometry)))
        return error;
    op->reason->size_bytes = mpl_bytes_of_pages(geometry, nr_frames);
    op->reason->unit_bytes = mpl_bytes_of_pages(geometry, mpl_pageblock_pages(geometry));
    return mpl_fail(op, -MPL_EINVAL, "the memmap is not whole pageblocks",
                    "demand it, or pad it as memmap_on_memory=force does");
}

int mpl_memmap_check_window(struct mpl_op *op, uint64_t first, uint64_t nr_blocks)
{
    for (uint64_t id = first; id < first + nr_blocks; id++) {
        const struct mpl_block *holder = mpl_share_over(op->pool, id);

        if (holder == NULL)
            continue;
        op->reason->block = (int64_t)mpl_block_id(op->pool, holder);
        return mpl_fail(op, -MPL_EBUSY,
                        "the memmap would lie in a large unit that neighbours share",
                        "use a memmap of the host, or remove the neighbours");
    }
    return 0;
}

/* The struct pages that describe the memmap's own frames are never read, unless these are lent. If
 * they are large enough for the bitmaps of the unit's blocks, these lie there. */
static bool bitmaps_fit(const struct memplug *pool, const struct mpl_block *unit)
{
    uint64_t room_bytes = mpl_memmap_bytes(&pool->geometry, unit->altmap.alloc);

    return is_own(unit) && pool->layout.lent == 0 &&
           pool->layout.bytes * unit->unit_nr_blocks <= room_bytes;
}

int mpl_memmap_place_bitmaps(struct mpl_op *op, struct mpl_block *unit)
{
    struct memplug *pool = op->pool;
    const struct memplug_host *host = pool->host;
    uint64_t size_bytes = pool->layout.bytes * unit->unit_nr_blocks;
    bool from_host = !bitmaps_fit(pool, unit);
    void *bitmaps = mpl_page_at(pool, mpl_block_start(pool, unit));

    if (from_host) {
        int error = host->ops->memory_get(host->context, size_bytes, &bitmaps);

        op->waited = true;
        if (error != 0)
            return mpl_fail(op, error, "the host has no memory for the bitmaps", NULL);
        pool->host_bytes += size_bytes;
    }
    for (uint64_t i = 0; i < unit->unit_nr_blocks; i++) {
        unit[i].own_bitmaps = (char *)bitmaps + i * pool->layout.bytes;
        unit[i].bitmaps_from_host = from_host;
    }
    return 0;
}

void mpl_memmap_drop_bitmaps(struct memplug *pool, struct mpl_block *unit)
{
    const struct memplug_host *host = pool->host;
    uint64_t size_bytes = pool->layout.bytes * unit->unit_nr_blocks;
    char *bitmaps = unit->own_bitmaps;
    bool from_host = unit->bitmaps_from_host;

    for (uint64_t i = 0; i < unit->unit_nr_blocks; i++) {
        unit[i].bitmaps = unit[i].own_bitmaps = NULL;
        unit[i].bitmaps_from_host = false;
    }
    if (!from_host)
        return;
    host->ops->memory_put(host->context, bitmaps, size_bytes);
    pool->host_bytes -= size_bytes;
}
