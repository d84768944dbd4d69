/* SPDX-License-Identifier: MIT */
/*
 * Figures. Nothing here waits for the control lock, so a block may come or go meanwhile: what is
 * said of one block or of one zone belongs together, as of one moment; sums over several zones do
 * not. Frames that a CPU keeps at hand count as used.
 */
#include "look.h"

uint64_t memplug_nr_blocks_max(const struct memplug *pool)
{
    return pool->nr_blocks_max;
}

uint64_t memplug_block_of(const struct memplug *pool, uint64_t address)
{
    return mpl_block_of_pfn(&pool->geometry, mpl_pfn_of_address(&pool->geometry, address));
}

/* What is known of a block that is just coming or going: where it is. */
static void info_clear(const struct memplug *pool, uint64_t id, enum memplug_block_state state,
                       struct memplug_block_info *info)
{
    *info = (struct memplug_block_info){
        .state = state,
        .zone = MEMPLUG_NR_ZONES,
        .node = MEMPLUG_ANY_NODE,
        .address = mpl_address_of_pfn(&pool->geometry, mpl_pfn_of_block(&pool->geometry, id)),
        .size_bytes = mpl_block_bytes(&pool->geometry),
        .unit_first = id,
        .unit_nr_blocks = 1,
    };
}

static void info_fixed(const struct mpl_block *block, struct memplug_block_info *info)
{
    info->node = __atomic_load_n(&block->node, __ATOMIC_RELAXED);
    info->group = __atomic_load_n(&block->group, __ATOMIC_RELAXED);
    info->memmap = (enum memplug_memmap)__atomic_load_n(&block->memmap, __ATOMIC_RELAXED);
    info->unit_first = __atomic_load_n(&block->unit_first, __ATOMIC_RELAXED);
    info->unit_nr_blocks = __atomic_load_n(&block->unit_nr_blocks, __ATOMIC_RELAXED);
    info->nr_memmap_pages = __atomic_load_n(&block->nr_memmap_pages, __ATOMIC_RELAXED);
    info->serial = __atomic_load_n(&block->serial, __ATOMIC_RELAXED);
    info->nr_poisoned_pages = __atomic_load_n(&block->nr_poisoned, __ATOMIC_RELAXED);
    info->nr_absent_pages = __atomic_load_n(&block->nr_absent, __ATOMIC_RELAXED);
    info->early = __atomic_load_n(&block->early, __ATOMIC_RELAXED);
}

static enum memplug_zone zone_kind(const struct mpl_block *block)
{
    return (enum memplug_zone)__atomic_load_n(&block->zone, __ATOMIC_RELAXED);
}

/* The counters, if the block is in a zone. False: it changed zones under our eyes. */
static bool info_counters(const struct memplug *pool, const struct mpl_block *block,
                          struct memplug_block_info *info)
{
    struct mpl_zone *zone;
    bool same;

    info->zone = zone_kind(block);
    if (info->zone >= MEMPLUG_NR_ZONES || !mpl_node_valid(pool, info->node)) {
        info->zone = MEMPLUG_NR_ZONES;
        return true;
    }
    zone = mpl_zone_at(pool, info->node, info->zone);
    mpl_spin_lock(pool, &zone->lock);
    same = zone_kind(block) == info->zone;
    if (same) {
        info->nr_managed_pages = block->nr_managed;
        info->nr_free_pages = mpl_block_nr_free(block);
        info->nr_isolated_pageblocks = mpl_block_nr_isolated(pool, block);
    }
    mpl_spin_unlock(&zone->lock);
    return same;
}

/* Tried again only if an operation on this very block went on meanwhile. */
int memplug_block_info(const struct memplug *pool, uint64_t id, struct memplug_block_info *info)
{
    const struct mpl_block *block;
    enum memplug_block_state state;
    bool same = true;

    if (!info)
        return -MPL_EINVAL;
    if (id >= pool->nr_blocks_max)
        return -MPL_ENODEV;
    block = mpl_block_at(pool, id);
    do {
        state = mpl_block_state(block);
        if (state == MEMPLUG_BLOCK_ABSENT)
            return -MPL_ENODEV;
        info_clear(pool, id, state, info);
        if (state == MEMPLUG_BLOCK_ADDING)
            return 0;
        info_fixed(block, info);
        same = info_counters(pool, block, info);
        atomic_thread_fence(memory_order_acquire);
    } while (!same || mpl_block_state(block) != state);
    return 0;
}

int memplug_zone_info(const struct memplug *pool, int node, enum memplug_zone kind,
                      struct memplug_zone_info *info)
{
    struct mpl_zone *zone;

    if (!info || !mpl_node_valid(pool, node) || (unsigned)kind >= MEMPLUG_NR_ZONES)
        return -MPL_EINVAL;
    zone = mpl_zone_at(pool, node, kind);
    mpl_spin_lock(pool, &zone->lock);
    *info = (struct memplug_zone_info){
        .start = zone->start,
        .nr_spanned_pages = zone->nr_spanned,
        .nr_present_pages = zone->nr_present,
        .nr_managed_pages = zone->nr_managed,
        .nr_free_pages = zone->nr_free,
        .nr_isolated_pageblocks = zone->nr_isolated,
        .nr_early_pages = zone->nr_early,
    };
    mpl_spin_unlock(&zone->lock);
    return 0;
}

int memplug_node_info(const struct memplug *pool, int node, struct memplug_node_info *info)
{
    if (!info || !mpl_node_valid(pool, node))
        return -MPL_EINVAL;
    *info = (struct memplug_node_info){
        .online = (mpl_nodes_online(pool) >> node & 1) != 0,
        .nr_blocks = __atomic_load_n(&pool->nodes[node].nr_blocks, __ATOMIC_RELAXED),
    };
    for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++) {
        struct memplug_zone_info zone;

        memplug_zone_info(pool, node, (enum memplug_zone)kind, &zone);
        info->has_memory |= zone.nr_present_pages != 0;
        info->has_normal_memory |= zone.nr_present_pages != 0 && kind != MEMPLUG_ZONE_MOVABLE;
    }
    return 0;
}

static void add_zones(const struct memplug *pool, struct memplug_stat *stat)
{
    for (int node = 0; node < (int)pool->nr_nodes; node++)
        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++) {
            struct memplug_zone_info info;

            memplug_zone_info(pool, node, (enum memplug_zone)kind, &info);
            stat->nr_present_pages += info.nr_present_pages;
            stat->nr_managed_pages += info.nr_managed_pages;
            stat->nr_free_pages += info.nr_free_pages;
        }
}

static void add_block(const struct mpl_block *block, struct memplug_stat *stat)
{
    enum memplug_block_state state = mpl_block_state(block);

    if (state == MEMPLUG_BLOCK_ABSENT)
        return;
    stat->nr_blocks++;
    stat->nr_online_blocks += state == MEMPLUG_BLOCK_ONLINE;
    if (state == MEMPLUG_BLOCK_ADDING)
        return;
    stat->nr_memmap_pages += __atomic_load_n(&block->nr_memmap_pages, __ATOMIC_RELAXED);
    stat->nr_poisoned_pages += __atomic_load_n(&block->nr_poisoned, __ATOMIC_RELAXED);
}

void memplug_stat(const struct memplug *pool, struct memplug_stat *stat)
{
    *stat = (struct memplug_stat){
        .block_bytes = sizeof(struct mpl_block),
        .host_bytes = atomic_load_explicit(&pool->host_bytes, memory_order_relaxed),
        .nr_moved_pages = atomic_load_explicit(&pool->nr_moved_pages, memory_order_relaxed),
    };
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
        add_block(mpl_block_at(pool, id), stat);
    add_zones(pool, stat);
    stat->preexisting_bytes = stat->nr_blocks * stat->block_bytes + stat->host_bytes;
}
