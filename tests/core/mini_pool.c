/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "mini_pool.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

_Thread_local unsigned mini_cpu;

static unsigned cpu(void *host)
{
    (void)host;
    return mini_cpu;
}

static void relax(void *host, unsigned nr_spins)
{
    (void)host;
    if (nr_spins % 16 == 15)
        sched_yield();
}

struct mini *mini_open(const struct mini_shape *shape)
{
    struct mini *mini = aligned_alloc(64, (sizeof(*mini) + 63) / 64 * 64);
    struct memplug *pool = &mini->pool;

    memset(mini, 0, sizeof(*mini));
    mini->ops.cpu = cpu;
    mini->ops.relax = relax;
    mini->host = (struct memplug_host){
        .ops = &mini->ops,
        .geometry = {
            .page_shift = 12,
            .pageblock_order = (uint8_t)shape->pageblock_order,
            .section_shift = (uint8_t)(12 + shape->block_order),
            .block_shift = (uint8_t)(12 + shape->block_order),
            .large_shift = 12,
            .page_struct_bytes = (uint8_t)shape->page_struct_bytes,
            .address_limit = (uint64_t)shape->nr_blocks << (12 + shape->block_order),
        },
        .direct_map = (char *)4096,
        .nr_cpus = shape->nr_slots,
    };
    mini->memmap_bytes = ((size_t)shape->nr_blocks << shape->block_order) *
                         shape->page_struct_bytes;
    mini->host.memmap = mmap(NULL, mini->memmap_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(mini->host.memmap, MAP_FAILED);
    memset(mini->host.memmap, 0xa5, mini->memmap_bytes);
    pool->host = &mini->host;
    pool->geometry = mini->host.geometry;
    mpl_layout_set(&pool->layout, &pool->geometry);
    pool->nr_blocks_max = shape->nr_blocks;
    pool->nr_nodes = shape->nr_nodes;
    pool->nr_slots = shape->nr_slots;
    pool->blocks = calloc(shape->nr_blocks, sizeof(*pool->blocks));
    pool->nodes = aligned_alloc(64, shape->nr_nodes * sizeof(*pool->nodes));
    memset(pool->nodes, 0, shape->nr_nodes * sizeof(*pool->nodes));
    size_t slot_bytes = (shape->nr_slots + MEMPLUG_MAX_SLOTS) * sizeof(*pool->slots);

    pool->slots = aligned_alloc(64, slot_bytes);
    memset(pool->slots, 0, slot_bytes);
    for (unsigned i = 0; i < shape->nr_blocks; i++)
        pool->blocks[i].zone = MEMPLUG_NR_ZONES;
    for (unsigned i = 0; i < shape->nr_nodes * MEMPLUG_NR_ZONES; i++) {
        pool->nodes[i / MEMPLUG_NR_ZONES].zones[i % MEMPLUG_NR_ZONES].node =
            (int16_t)(i / MEMPLUG_NR_ZONES);
        pool->nodes[i / MEMPLUG_NR_ZONES].zones[i % MEMPLUG_NR_ZONES].kind =
            (uint8_t)(i % MEMPLUG_NR_ZONES);
    }
    atomic_store(&pool->nr_movers, 1);
    /* Some blocks begin with a pattern, others with bitmaps of their own. */
    mini->patterns = aligned_alloc(64, MPL_NR_PATTERNS * mpl_pattern_bytes(&pool->layout));
    for (unsigned i = 0; i < MPL_NR_PATTERNS; i++)
        mpl_pattern_make(pool, (uint64_t[MPL_NR_PATTERNS]){0, 3, 4}[i],
                         mini->patterns + i * mpl_pattern_bytes(&pool->layout));
    return mini;
}

void mini_close(struct mini *mini)
{
    struct memplug *pool = &mini->pool;

    for (unsigned i = 0; i < pool->nr_blocks_max; i++)
        free(pool->blocks[i].own_bitmaps);
    free(pool->blocks);
    free(pool->nodes);
    free(pool->slots);
    free(mini->patterns);
    munmap(mini->host.memmap, mini->memmap_bytes);
    free(mini);
}

void mini_enter(struct mini *mini, uint64_t id, int node, enum memplug_zone kind,
                uint64_t nr_memmap)
{
    struct memplug *pool = &mini->pool;
    struct mpl_block *block = mpl_block_at(pool, id);
    struct mpl_zone *zone = mpl_zone_at(pool, node, kind);

    block->node = (int16_t)node;
    block->unit_first = (uint32_t)id;
    block->unit_nr_blocks = 1;
    block->nr_memmap_pages = nr_memmap;
    block->own_bitmaps = aligned_alloc(64, pool->layout.bytes);
    memset(block->own_bitmaps, 0xa5, pool->layout.bytes);
    mpl_block_set_state(block, MEMPLUG_BLOCK_ADDING);
    mpl_block_set_state(block, MEMPLUG_BLOCK_OFFLINE);
    mpl_block_set_state(block, MEMPLUG_BLOCK_GOING_ONLINE);
    mpl_frames_reset(pool, block);
    mpl_spin_lock(pool, &zone->lock);
    MPL_PUT(block->zone, (uint8_t)kind);
    mpl_zone_grow(pool, zone, mpl_block_start(pool, block), mpl_block_pages(&pool->geometry));
    mpl_isolate_block(pool, block);
    mpl_spin_unlock(&zone->lock);
}

void mini_online(struct mini *mini, uint64_t id, int node, enum memplug_zone kind,
                 uint64_t nr_memmap)
{
    struct memplug *pool = &mini->pool;
    struct mpl_block *block = mpl_block_at(pool, id);

    mini_enter(mini, id, node, kind, nr_memmap);
    if (mpl_block_data_pages(pool, block) != 0)
        mpl_release_frames(pool, mpl_block_data_start(pool, block),
                           mpl_block_data_pages(pool, block));
    mpl_block_set_state(block, MEMPLUG_BLOCK_ONLINE);
    mini_set_isolated(mini, id, false);
}

void mini_set_isolated(struct mini *mini, uint64_t id, bool isolated)
{
    struct memplug *pool = &mini->pool;
    struct mpl_block *block = mpl_block_at(pool, id);
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    if (isolated && !block->isolated)
        mpl_isolate_block(pool, block);
    else if (!isolated && block->isolated)
        mpl_unisolate_block(pool, block);
    mpl_spin_unlock(&zone->lock);
}

static void no_move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++)
        moves[i].result = -MPL_EBUSY;
}

uint8_t mini_mover(struct mini *mini)
{
    static const struct memplug_mover mover = {.name = "test", .move = no_move};
    int number = memplug_register_mover(&mini->pool, &mover);

    assert_true(number > 0);
    return (uint8_t)number;
}

/* --- recount ---------------------------------------------------------------------------------- */

static bool bit(const struct mpl_block *block, uint64_t offset, uint64_t nr)
{
    return ((const uint64_t *)(const void *)(block->bitmaps + offset))[nr / 64] >> (nr % 64) & 1;
}

static void check_words(struct memplug *pool, struct mpl_block *block)
{
    for (uint64_t word = 0; word < pool->layout.nr_words; word++) {
        bool any = false;

        for (uint64_t i = word * 64; i < word * 64 + 64; i++) {
            enum mpl_frame frame = mpl_frame_get(pool, block, i);

            any |= frame == MPL_FRAME_FREE;
            if (mpl_frame_described(pool, block, i))
                assert_int_equal(frame, MPL_FRAME_HEAD);
            if (i < block->nr_memmap_pages)
                assert_int_equal(frame, i == 0 ? MPL_FRAME_HEAD : MPL_FRAME_TAIL);
        }
        any &= !mpl_span_isolated(pool, block, word * 64);
        assert_int_equal(any, bit(block, pool->layout.summary, word));
    }
}

static uint16_t nr_isolations(struct memplug *pool, struct mpl_block *block, uint64_t index)
{
    uint16_t *counters = (uint16_t *)(void *)(block->bitmaps + pool->layout.nr_isolations);

    return counters[index / mpl_pageblock_pages(&pool->geometry)];
}

/* Returns the free frames, isolated or not. */
static uint64_t check_block(struct memplug *pool, struct mpl_block *block)
{
    uint64_t pageblock_pages = mpl_pageblock_pages(&pool->geometry);
    uint64_t open = 0, all = 0, isolated = 0, whole = 0;

    check_words(pool, block);
    for (uint64_t i = 0; i < pool->layout.nr_pages; i += pageblock_pages) {
        uint64_t nr_free = 0;

        for (uint64_t at = i; at < i + pageblock_pages; at++)
            nr_free += mpl_frame_get(pool, block, at) == MPL_FRAME_FREE;
        assert_int_equal(nr_free, mpl_frames_free_near(pool, block, i));
        all += nr_free;
        isolated += i + pageblock_pages > block->nr_memmap_pages && mpl_isolated(pool, block, i);
        assert_int_equal(nr_isolations(pool, block, i) != 0, mpl_span_isolated(pool, block, i));
        if (!mpl_isolated(pool, block, i))
            open += nr_free;
        assert_int_equal(mpl_frames_whole(pool, block, i),
                         nr_free == pageblock_pages && !mpl_span_isolated(pool, block, i));
        whole += mpl_frames_whole(pool, block, i);
    }
    assert_int_equal(whole, block->nr_whole);
    assert_int_equal(open, mpl_block_nr_free(block));
    assert_int_equal(isolated, mpl_block_nr_isolated(pool, block));
    return all;
}

void mini_check(struct mini *mini)
{
    struct memplug *pool = &mini->pool;

    for (unsigned z = 0; z < pool->nr_nodes * MEMPLUG_NR_ZONES; z++) {
        struct mpl_zone *zone = mpl_zone_at(pool, (int)(z / MEMPLUG_NR_ZONES),
                                            z % MEMPLUG_NR_ZONES);
        uint64_t nr_free = 0, nr_isolated = 0, nr_managed = 0;

        for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
            struct mpl_block *block = mpl_block_at(pool, id);
            bool hint = zone->has_free[id / 64] >> (id % 64) & 1;
            bool has_whole = zone->has_whole[id / 64] >> (id % 64) & 1;

            if (block->zone != zone->kind || block->node != zone->node) {
                assert_false(hint || has_whole);
                continue;
            }
            nr_free += check_block(pool, block);
            nr_isolated += mpl_block_nr_isolated(pool, block);
            nr_managed += block->nr_managed;
            assert_int_equal(hint, mpl_block_nr_free(block) != 0);
            assert_int_equal(has_whole, block->nr_whole != 0 && !block->isolated);
        }
        assert_int_equal(nr_free, zone->nr_free);
        assert_int_equal(nr_isolated, zone->nr_isolated);
        assert_int_equal(nr_managed, zone->nr_managed);
    }
}

uint64_t mini_count(struct mini *mini, enum mpl_frame frame)
{
    struct memplug *pool = &mini->pool;
    uint64_t count = 0;

    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        struct mpl_block *block = mpl_block_at(pool, id);

        for (uint64_t i = block->nr_memmap_pages;
             block->bitmaps != NULL && i < pool->layout.nr_pages; i++)
            count += mpl_frame_get(pool, block, i) == frame;
    }
    return count;
}
