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

/* The block that leaves is not in the zone any more when the span shrinks. */
static bool block_in_zone(const struct memplug *pool, const struct mpl_zone *zone, uint64_t id)
{
    uint64_t section = id * mpl_sections_per_block(&pool->geometry);

    return mpl_section_online_in(pool, section, zone);
}

static void shrink_start(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t from)
{
    memplug_pfn_t end = zone_end(zone);
    uint64_t id = mpl_block_of_pfn(&pool->geometry, from);

    for (; mpl_pfn_of_block(&pool->geometry, id).nr < end.nr; id++)
        if (block_in_zone(pool, zone, id)) {
            zone->start = mpl_pfn_of_block(&pool->geometry, id);
            zone->nr_spanned = mpl_pfn_distance(zone->start, end);
            return;
        }
    zone->start = mpl_pfn(0);
    zone->nr_spanned = 0;
}

static void shrink_end(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t to)
{
    uint64_t id = mpl_block_of_pfn(&pool->geometry, to);

    for (; mpl_pfn_of_block(&pool->geometry, id + 1).nr > zone->start.nr; id--) {
        if (block_in_zone(pool, zone, id)) {
            memplug_pfn_t end = mpl_pfn_of_block(&pool->geometry, id + 1);

            zone->nr_spanned = mpl_pfn_distance(zone->start, end);
            return;
        }
        if (id == 0)
            break;
    }
    zone->start = mpl_pfn(0);
    zone->nr_spanned = 0;
}

void mpl_zone_shrink(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t start,
                     uint64_t nr_pages)
{
    memplug_pfn_t end = mpl_pfn_add(start, nr_pages);

    if (nr_pages == 0 || zone->nr_spanned == 0)
        return;
    if (zone->start.nr == start.nr)
        shrink_start(pool, zone, end);
    else if (zone_end(zone).nr == end.nr)
        shrink_end(pool, zone, mpl_pfn(start.nr - 1));
}

void mpl_zone_note_free(struct memplug *pool, struct mpl_block *block)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    uint64_t id = mpl_block_id(pool, block);
    uint64_t bit = (uint64_t)1 << (id % 64);

    if (block->nr_free != 0)
        zone->has_free[id / 64] |= bit;
    else
        zone->has_free[id / 64] &= ~bit;
}
