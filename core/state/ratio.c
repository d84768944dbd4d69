/* SPDX-License-Identifier: MIT */
/*
 * The auto-movable policy: Movable may grow up to a percentage of the kernel memory that was there
 * at boot. What was plugged into kernel zones does not count: it can be unplugged again. Devices
 * are seen as a whole, so that one that can be removed is not held fast by a single kernel block.
 */
#include "state.h"

#define READ(member) __atomic_load_n(&(member), __ATOMIC_ACQUIRE)

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* nr_pages * ratio / 100, or the largest number if that is larger. */
static uint64_t percent_of(uint64_t nr_pages, uint32_t ratio)
{
    uint64_t whole = nr_pages / 100, rest = nr_pages % 100 * ratio / 100;

    if (whole > (UINT64_MAX - rest) / ratio)
        return UINT64_MAX;
    return whole * ratio + rest;
}

/* --- how many pages there are ----------------------------------------------------------------- */

struct census {
    uint64_t nr_movable; /* present in Movable */
    uint64_t nr_early;   /* boot memory in kernel zones */
};

static void count_node(const struct memplug *pool, int node, struct census *census)
{
    for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++) {
        struct mpl_zone *zone = mpl_zone_at(pool, node, kind);

        mpl_spin_lock(pool, &zone->lock);
        if (kind == MEMPLUG_ZONE_MOVABLE)
            census->nr_movable += zone->nr_present;
        else
            census->nr_early += zone->nr_early;
        mpl_spin_unlock(&zone->lock);
    }
}

/* Blocks of an operation that has chosen their zones already are not present yet, and count: what
 * one operation puts online is what several would have. */
static void count_entering(const struct memplug *pool, int node, struct census *census)
{
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);

        if (mpl_block_state(block) == MEMPLUG_BLOCK_GOING_ONLINE &&
            READ(block->zone) == MEMPLUG_ZONE_MOVABLE &&
            (node == MEMPLUG_ANY_NODE || READ(block->node) == node))
            census->nr_movable += mpl_block_pages(&pool->geometry);
    }
}

static struct census take_census(const struct memplug *pool, int node)
{
    struct census census = {0, 0};

    for (int i = 0; i < (int)pool->nr_nodes; i++)
        if (node == MEMPLUG_ANY_NODE || node == i)
            count_node(pool, i, &census);
    count_entering(pool, node, &census);
    return census;
}

/* --- does it fit ------------------------------------------------------------------------------ */

/* What is to become Movable, and for whom. */
struct wish {
    int node, group;
    bool dynamic;
    uint64_t nr_pages;
};

/* On one node or on all. Other dynamic groups are left out of the sum, with what boot memory they
 * need for themselves; a dynamic group's own kernel pages are as good as boot memory for it. */
static bool fits(const struct memplug *pool, const struct wish *wish, int node, uint32_t ratio)
{
    struct census census = take_census(pool, node);
    struct mpl_group_needs others = mpl_group_needs(pool, node, wish->group, ratio);
    const struct mpl_group *group = mpl_group_at(pool, wish->group);
    uint64_t nr_movable = less(census.nr_movable, others.nr_movable);
    uint64_t nr_kernel = less(census.nr_early, others.nr_kernel);
    uint64_t limit;

    if (group != NULL && wish->dynamic)
        nr_kernel += READ(group->nr_kernel);
    limit = percent_of(nr_kernel, ratio);
    return nr_movable <= limit && wish->nr_pages <= limit - nr_movable;
}

/* --- what is asked for ------------------------------------------------------------------------ */

/* The rest of the device must fit too; at least this block. False: it has kernel memory. */
static bool wish_device(const struct memplug *pool, const struct mpl_group *group,
                        struct wish *wish)
{
    uint64_t nr_left = less(READ(group->nr_pages), READ(group->nr_movable));

    if (nr_left > mpl_block_pages(&pool->geometry))
        wish->nr_pages = nr_left;
    return READ(group->nr_kernel) == 0;
}

/* The rest of the device's unit that the block lies in must fit too. False: a part of it is in a
 * kernel zone. */
static bool wish_unit(const struct memplug *pool, const struct mpl_group *group,
                      const struct mpl_block *block, struct wish *wish)
{
    uint64_t block_pages = mpl_block_pages(&pool->geometry);
    uint64_t unit_pages = READ(group->nr_pages);
    uint64_t nr_blocks = unit_pages / block_pages;
    uint64_t first, nr_movable = 0;

    if (nr_blocks <= 1)
        return true;
    first = mpl_block_id(pool, block) & ~(nr_blocks - 1);
    for (uint64_t id = first; id < pool->nr_blocks_max && id - first < nr_blocks; id++) {
        const struct mpl_block *other = mpl_block_at(pool, id);
        unsigned kind = READ(other->zone);

        if (mpl_block_state(other) <= MEMPLUG_BLOCK_OFFLINE || kind >= MEMPLUG_NR_ZONES)
            continue;
        if (kind != MEMPLUG_ZONE_MOVABLE)
            return false;
        nr_movable += block_pages;
    }
    wish->nr_pages = unit_pages - nr_movable;
    return true;
}

bool mpl_ratio_allows_movable(const struct memplug *pool, const struct mpl_block *block,
                              const struct memplug_policy *policy)
{
    struct wish wish = {
        .node = READ(block->node),
        .group = READ(block->group),
        .nr_pages = mpl_block_pages(&pool->geometry),
    };
    const struct mpl_group *group = mpl_group_at(pool, wish.group);

    if (policy->auto_movable_ratio == 0)
        return false;
    if (group != NULL) {
        wish.dynamic = READ(group->dynamic);
        if (!(wish.dynamic ? wish_unit(pool, group, block, &wish)
                           : wish_device(pool, group, &wish)))
            return false;
    }
    return fits(pool, &wish, MEMPLUG_ANY_NODE, policy->auto_movable_ratio) &&
           (!policy->auto_movable_numa_aware ||
            fits(pool, &wish, wish.node, policy->auto_movable_ratio));
}
