/* SPDX-License-Identifier: MIT */
/*
 * A world of two ranges: something is done to the first, its pages go to the second. A test program
 * that includes this has one.
 */
#ifndef TWO_RANGES_H
#define TWO_RANGES_H

#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u  /* where something happens */
#define B 12u /* where pages go; movable */

static struct world world;
static struct memplug_reason reason;

static inline void open_world(enum fake_shape shape, enum memplug_memmap memmap,
                              enum memplug_online_type type)
{
    world_open(&world, &(struct world_config){.shape = shape, .seed = 29,
                                              .content = FAKE_CONTENT_KEEP});
    must(world_add(&world, world.backing_b, B, memmap, NULL, NULL));
    must(memplug_online(world.pool, B, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(world_add(&world, world.backing_a, A, memmap, NULL, NULL));
    must(memplug_online(world.pool, A, NR, type, NULL, NULL));
}

static inline uint64_t block_pages(void)
{
    return world.block_bytes >> world.geometry.page_shift;
}

static inline uint64_t pageblock_pages(void)
{
    return UINT64_C(1) << world.geometry.pageblock_order;
}

static inline memplug_pfn_t frame(uint64_t block, uint64_t index)
{
    return (memplug_pfn_t){block * block_pages() + index};
}

static inline struct memplug_block_info info_of(uint64_t id)
{
    struct memplug_block_info info;

    must(memplug_block_info(world.pool, id, &info));
    return info;
}

static inline struct memplug_stat stat_of(void)
{
    struct memplug_stat stat;

    memplug_stat(world.pool, &stat);
    return stat;
}

#endif
