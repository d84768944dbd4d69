/* SPDX-License-Identifier: MIT */
#include "state.h"

static memplug_pfn_t zone_end(const struct mpl_zone *zone)
{
    return mpl_pfn_add(zone->start, zone->nr_spanned);
}

bool mpl_zone_spans(const struct memplug *pool, const struct mpl_zone *zone, memplug_pfn_t start,
                    uint64_t nr_pages)
{
    struct mpl_spin *lock = &mpl_zone_at(pool, zone->node, zone->kind)->lock;
    bool spans;

    mpl_spin_lock(pool, lock);
    spans = mpl_range_overlaps(start.nr, nr_pages, zone->start.nr, zone->nr_spanned);
    mpl_spin_unlock(lock);
    return spans;
}

void mpl_zone_grow(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t start,
                   uint64_t nr_pages)
{
    memplug_pfn_t end = mpl_pfn_add(start, nr_pages);

    (void)pool;
    if (nr_pages == 0)
        return;
    if (zone->nr_spanned != 0) {
        if (zone->start.nr < start.nr)
            start = zone->start;
        if (zone_end(zone).nr > end.nr)
            end = zone_end(zone);
    }
    zone->start = start;
    zone->nr_spanned = mpl_pfn_distance(start, end);
}

/* The block that leaves is not in the zone any more when the span shrinks. One with holes does not
 * count as a whole: its part is fixed. */
static bool block_in_zone(const struct memplug *pool, const struct mpl_zone *zone, uint64_t id)
{
    uint64_t section = id * mpl_sections_per_block(&pool->geometry);

    return mpl_section_online_in(pool, section, zone) && pool->blocks[id].nr_absent == 0;
}

/* An end that boot memory left behind lasts as long as there is something to span. */
static void set_span(struct mpl_zone *zone, uint64_t start, uint64_t end)
{
    if (start == end)
        start = end = zone->fixed_start = zone->fixed_end = 0;
    zone->start = mpl_pfn(start);
    zone->nr_spanned = end - start;
}

static void shrink_start(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t from)
{
    uint64_t end = zone_end(zone).nr, start = end;
    uint64_t id = mpl_block_of_pfn(&pool->geometry, from);

    for (; start == end && mpl_pfn_of_block(&pool->geometry, id).nr < end; id++)
        if (block_in_zone(pool, zone, id))
            start = mpl_pfn_of_block(&pool->geometry, id).nr;
    if (zone->fixed_end != 0 && zone->fixed_start < start)
        start = zone->fixed_start;
    set_span(zone, start, end);
}

static void shrink_end(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t to)
{
    uint64_t start = zone->start.nr, end = start;
    uint64_t to_nr = mpl_round_up(to.nr, mpl_block_pages(&pool->geometry));
    uint64_t id = mpl_block_of_pfn(&pool->geometry, mpl_pfn(to_nr));

    for (; end == start && mpl_pfn_of_block(&pool->geometry, id).nr > start; id--)
        if (block_in_zone(pool, zone, id - 1))
            end = mpl_pfn_of_block(&pool->geometry, id).nr;
    if (zone->fixed_end > end)
        end = zone->fixed_end;
    set_span(zone, start, end);
}

void mpl_zone_shrink(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t start,
                     uint64_t nr_pages)
{
    memplug_pfn_t end = mpl_pfn_add(start, nr_pages);

    if (nr_pages == 0 || zone->nr_spanned == 0)
        return;
    if (zone->start.nr == start.nr)
        shrink_start(pool, zone, end);
    if (zone->nr_spanned != 0 && zone_end(zone).nr == end.nr)
        shrink_end(pool, zone, start);
}

void mpl_zone_count(struct memplug *pool, struct mpl_block *block, bool present)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    uint64_t nr_pages = mpl_block_present_pages(pool, block);

    MPL_ASSERT(present || zone->nr_present >= nr_pages);
    zone->nr_present = present ? zone->nr_present + nr_pages : zone->nr_present - nr_pages;
    if (!block->early)
        return;
    MPL_ASSERT(present || zone->nr_early >= nr_pages);
    zone->nr_early = present ? zone->nr_early + nr_pages : zone->nr_early - nr_pages;
}

void mpl_zone_note_free(struct memplug *pool, struct mpl_block *block)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    uint64_t id = mpl_block_id(pool, block);
    uint64_t bit = (uint64_t)1 << (id % 64);

    if (block->nr_free != 0 && !block->isolated)
        zone->has_free[id / 64] |= bit;
    else
        zone->has_free[id / 64] &= ~bit;
    if (block->nr_whole != 0 && !block->isolated)
        zone->has_whole[id / 64] |= bit;
    else
        zone->has_whole[id / 64] &= ~bit;
}
