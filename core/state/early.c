/* SPDX-License-Identifier: MIT */
/*
 * Boot memory as it came: ranges that never change, whatever happens to their blocks. What follows
 * from them is worked out whenever it is asked for: holes, the zones of a block, which part of a
 * zone can never go.
 */
#include "early.h"

struct span {
    uint64_t start, end; /* pfns */
};

static struct span intersect(struct span a, struct span b)
{
    if (b.start > a.start)
        a.start = b.start;
    if (b.end < a.end)
        a.end = b.end;
    if (a.end < a.start)
        a.end = a.start;
    return a;
}

static struct span range_at(const struct memplug *pool, unsigned i)
{
    const struct memplug_boot_memory *memory = &pool->boot.memory[i];
    uint64_t start = mpl_pfn_of_address(&pool->geometry, memory->address).nr;

    return (struct span){start, start + mpl_pages_of_bytes(&pool->geometry, memory->size_bytes)};
}

static struct span block_at(const struct memplug *pool, uint64_t id)
{
    uint64_t start = mpl_pfn_of_block(&pool->geometry, id).nr;

    return (struct span){start, start + mpl_block_pages(&pool->geometry)};
}

/* Of all nodes. */
static struct span limits_of(const struct memplug *pool, unsigned kind)
{
    uint64_t dma = mpl_pfn_of_address(&pool->geometry, pool->boot.dma_limit).nr;
    uint64_t dma32 = mpl_pfn_of_address(&pool->geometry, pool->boot.dma32_limit).nr;

    if (dma32 < dma)
        dma32 = dma;
    switch (kind) {
    case MEMPLUG_ZONE_DMA:
        return (struct span){0, dma};
    case MEMPLUG_ZONE_DMA32:
        return (struct span){dma, dma32};
    case MEMPLUG_ZONE_NORMAL:
        return (struct span){dma32, UINT64_MAX};
    default:
        return (struct span){0, 0};
    }
}

bool mpl_early_run(const struct memplug *pool, uint64_t *pfn, uint64_t end, uint64_t *nr_pages)
{
    for (unsigned i = 0; i < pool->boot.nr_memory; i++) {
        struct span run = intersect(range_at(pool, i), (struct span){*pfn, end});

        if (run.start == run.end)
            continue;
        *pfn = run.start;
        *nr_pages = run.end - run.start;
        return true;
    }
    return false;
}

uint64_t mpl_early_pages(const struct memplug *pool, uint64_t id)
{
    struct span block = block_at(pool, id);
    uint64_t nr_pages = 0;

    for (unsigned i = 0; i < pool->boot.nr_memory; i++) {
        struct span piece = intersect(range_at(pool, i), block);

        nr_pages += piece.end - piece.start;
    }
    return nr_pages;
}

int mpl_early_node(const struct memplug *pool, uint64_t id)
{
    struct span block = block_at(pool, id);

    for (unsigned i = 0; i < pool->boot.nr_memory; i++) {
        struct span piece = intersect(range_at(pool, i), block);

        if (piece.start != piece.end)
            return pool->boot.memory[i].node;
    }
    return MEMPLUG_ANY_NODE;
}

/* The node's memory from first to last, cut at the zone's limits. */
static struct span zone_span(const struct memplug *pool, int node, unsigned kind)
{
    struct span span = {0, 0};

    for (unsigned i = 0; i < pool->boot.nr_memory; i++) {
        struct span range = range_at(pool, i);

        if (pool->boot.memory[i].node != node)
            continue;
        span.start = span.end == 0 ? range.start : span.start;
        span.end = range.end;
    }
    return intersect(span, limits_of(pool, kind));
}

bool mpl_early_span(const struct memplug *pool, int node, unsigned kind, memplug_pfn_t *start,
                    uint64_t *nr_pages)
{
    struct span span = zone_span(pool, node, kind);

    *start = mpl_pfn(span.start);
    *nr_pages = span.end - span.start;
    return *nr_pages != 0;
}

/* The node's memory in a part of the zone: from first to last, and how much it is. */
static struct span pieces(const struct memplug *pool, int node, unsigned kind, struct span part,
                          uint64_t *nr_pages)
{
    struct span all = {0, 0};

    *nr_pages = 0;
    part = intersect(part, limits_of(pool, kind));
    for (unsigned i = 0; i < pool->boot.nr_memory; i++) {
        struct span piece = intersect(range_at(pool, i), part);

        if (pool->boot.memory[i].node != node || piece.start == piece.end)
            continue;
        all.start = *nr_pages == 0 ? piece.start : all.start;
        all.end = piece.end;
        *nr_pages += piece.end - piece.start;
    }
    return all;
}

uint64_t mpl_early_pages_in(const struct memplug *pool, uint64_t id, unsigned kind)
{
    uint64_t nr_pages;

    pieces(pool, mpl_early_node(pool, id), kind, block_at(pool, id), &nr_pages);
    return nr_pages;
}

/* As Linux does it, by the spans of zones that have pages: a hole of the block may be what lies in
 * the second one. */
unsigned mpl_early_zone(const struct memplug *pool, uint64_t id)
{
    int node = mpl_early_node(pool, id);
    unsigned found = MEMPLUG_NR_ZONES;

    for (unsigned kind = 0; kind < MEMPLUG_ZONE_MOVABLE; kind++) {
        struct span span = zone_span(pool, node, kind);
        struct span part = intersect(span, block_at(pool, id));
        uint64_t nr_pages;

        pieces(pool, node, kind, span, &nr_pages);
        if (part.start == part.end || nr_pages == 0)
            continue;
        if (found != MEMPLUG_NR_ZONES)
            return MEMPLUG_NR_ZONES;
        found = kind;
    }
    return found;
}

static bool is_whole(const struct memplug *pool, uint64_t id, int node, unsigned kind)
{
    return mpl_early_pages(pool, id) == mpl_block_pages(&pool->geometry) &&
           mpl_early_node(pool, id) == node && mpl_early_zone(pool, id) == kind;
}

static void extend(struct span *span, struct span by)
{
    if (span->end == 0 || by.start < span->start)
        span->start = by.start;
    if (by.end > span->end)
        span->end = by.end;
}

void mpl_early_fixed(const struct memplug *pool, int node, unsigned kind, uint64_t *start,
                     uint64_t *end)
{
    uint64_t block_pages = mpl_block_pages(&pool->geometry);
    struct span zone = zone_span(pool, node, kind), fixed = {0, 0};
    uint64_t first = mpl_block_of_pfn(&pool->geometry, mpl_pfn(zone.start));

    *start = *end = 0;
    if (zone.start == zone.end)
        return;
    for (uint64_t id = first; block_at(pool, id).start < zone.end; id++) {
        struct span block = block_at(pool, id), piece;
        uint64_t nr_pages;

        if (is_whole(pool, id, node, kind))
            continue;
        piece = pieces(pool, node, kind, block, &nr_pages);
        if (nr_pages != 0)
            extend(&fixed, piece);
    }
    if (!mpl_is_multiple(zone.end, block_pages) ||
        !is_whole(pool, zone.end / block_pages - 1, node, kind))
        extend(&fixed, (struct span){zone.end, zone.end});
    if (!mpl_is_multiple(zone.start, block_pages) || !is_whole(pool, first, node, kind))
        extend(&fixed, (struct span){zone.start, zone.start});
    *start = fixed.start;
    *end = fixed.end;
}

/* Read by whoever looks at a block without the control lock. */
static uint64_t nr_absent(const struct mpl_block *block)
{
    return __atomic_load_n(&block->nr_absent, __ATOMIC_ACQUIRE);
}

uint64_t mpl_early_holes(const struct memplug *pool, const struct mpl_block *block, uint64_t word)
{
    uint64_t first = mpl_block_start(pool, block).nr + word * MPL_WORD_PAGES;
    uint64_t holes = UINT64_MAX;

    if (nr_absent(block) == 0)
        return 0;
    for (unsigned i = 0; i < pool->boot.nr_memory; i++) {
        struct span piece =
            intersect(range_at(pool, i), (struct span){first, first + MPL_WORD_PAGES});

        if (piece.start != piece.end)
            holes &= ~(UINT64_MAX >> (MPL_WORD_PAGES - (piece.end - piece.start))
                                         << (piece.start - first));
    }
    return holes;
}

bool mpl_early_is_hole(const struct memplug *pool, const struct mpl_block *block, uint64_t index)
{
    return (mpl_early_holes(pool, block, index / MPL_WORD_PAGES) >> (index % MPL_WORD_PAGES) & 1) !=
           0;
}

bool mpl_early_has_hole(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t index, uint64_t nr_pages)
{
    uint64_t end = index + nr_pages;

    if (nr_absent(block) == 0)
        return false;
    while (index < end && !mpl_early_is_hole(pool, block, index))
        index++;
    return index < end;
}

bool mpl_early_several(const struct memplug *pool, const struct mpl_block *block)
{
    return __atomic_load_n(&block->early, __ATOMIC_ACQUIRE) &&
           mpl_early_zone(pool, mpl_block_id(pool, block)) == MEMPLUG_NR_ZONES;
}

const char *mpl_early_obstacle(const struct memplug *pool, const struct mpl_block *block)
{
    if (mpl_early_several(pool, block))
        return "the block is boot memory that spans several zones";
    return nr_absent(block) != 0 ? "the block has memory holes" : NULL;
}
