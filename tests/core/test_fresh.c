/* SPDX-License-Identifier: MIT */
/*
 * Blocks of which no frame was ever used since they went online: their own bitmaps are not written,
 * and they answer as if they were. Threads have no assertions of cmocka: they count what is wrong.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mini_pool.h"
#include "world.h"

#include <memplug/slot.h>
#include <memplug/view.h>

#include <cmocka.h>

#define MARK 0x5a

/* --- patterns --------------------------------------------------------------------------------- */

/* For every size of a memmap: as a block has it that was written frame by frame. */
static void patterns_say_what_frames_say(void **context)
{
    static const struct mini_shape shapes[] = {
        {6, 7, 3, 1, 1, 64}, {7, 9, 3, 1, 1, 64}, {9, 9, 3, 1, 1, 32}};

    (void)context;
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (uint64_t nr = 0; nr < (uint64_t)1 << shapes[i].block_order; nr++) {
            struct mini *mini = mini_open(&shapes[i]);
            struct memplug *pool = &mini->pool;
            struct mpl_block *block = mpl_block_at(pool, 1);
            struct mpl_pattern *pattern = &pool->patterns[0];

            memset(pool->patterns, 0, sizeof(pool->patterns));
            mini_enter(mini, 1, 0, MEMPLUG_ZONE_NORMAL, nr);
            mpl_pattern_make(pool, nr, mini->patterns);
            assert_int_equal(pattern->nr_memmap_pages, nr);
            assert_memory_equal(block->own_bitmaps, pattern->held, pool->layout.bytes);
            mpl_release_frames(pool, mpl_block_data_start(pool, block),
                               mpl_block_data_pages(pool, block));
            assert_memory_equal(block->own_bitmaps, pattern->free, pool->layout.bytes);
            assert_int_equal(block->nr_whole, pattern->nr_whole);
            assert_true(mpl_pattern_intact(pool));
            pattern->free[nr % pool->layout.bytes] ^= 16;
            assert_false(mpl_pattern_intact(pool));
            mini_close(mini);
        }
}

/* A block of 16 GiB writes its own: patterns would be too much of what was there before. */
static void large_blocks_have_none(void **context)
{
    struct mpl_layout layout = {.bytes = (uint64_t)1 << 20};

    (void)context;
    assert_int_equal(mpl_pattern_bytes(&layout), 2 << 20);
    layout.bytes += 64;
    assert_int_equal(mpl_pattern_bytes(&layout), 0);
}

/* --- life of an unused block ------------------------------------------------------------------ */

static struct world world;

static struct mpl_block *at(uint64_t id)
{
    return mpl_block_at(world.pool, id);
}

static bool is_marked(uint64_t id)
{
    for (uint64_t i = 0; i < world.pool->layout.bytes; i++)
        if ((unsigned char)at(id)->own_bitmaps[i] != MARK)
            return false;
    return true;
}

static void open_world(enum memplug_memmap memmap)
{
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .seed = 3});
    assert_int_equal(world_add(&world, world.backing_a, 2, memmap, NULL, NULL), 0);
    for (uint64_t id = 2; id < 6; id++)
        memset(at(id)->own_bitmaps, MARK, world.pool->layout.bytes);
}

static void online(uint64_t first, uint64_t nr_blocks)
{
    assert_int_equal(memplug_online(world.pool, first, nr_blocks, MEMPLUG_ONLINE_KERNEL, NULL,
                                    NULL), 0);
}

static memplug_pfn_t take(uint32_t nr_pages)
{
    const struct memplug_alloc request = {.nr_pages = nr_pages, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn;

    assert_int_equal(memplug_alloc(world.pool, &request, &pfn), 0);
    return pfn;
}

static void coming_and_going_touches_nothing(void **context)
{
    static const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_BLOCK, MEMPLUG_MEMMAP_HOST};

    (void)context;
    for (unsigned i = 0; i < 2; i++) {
        memplug_pfn_t pfn;

        open_world(memmaps[i]);
        for (unsigned round = 0; round < 2; round++) {
            online(2, 4);
            world_check(&world);
            free(world_text(&world, false));
            assert_int_equal(memplug_offline(world.pool, 2, 4, NULL, NULL), 0);
        }
        online(2, 4);
        pfn = take(1);
        assert_int_equal(memplug_block_of(world.pool, pfn.nr << 12), 2);
        assert_false(is_marked(2));
        for (uint64_t id = 3; id < 6; id++)
            assert_true(is_marked(id));
        assert_int_equal(memplug_free(world.pool, pfn, 1), 0);
        world_check(&world);
        /* Used or not, it begins anew when it comes online again. */
        assert_int_equal(memplug_offline(world.pool, 2, 1, NULL, NULL), 0);
        memset(at(2)->own_bitmaps, MARK, world.pool->layout.bytes);
        online(2, 1);
        world_check(&world);
        assert_true(is_marked(2) && mpl_frames_untouched(world.pool, at(2)));
        world_close(&world);
    }
}

/* Of a range's own memmap, the blocks that hold none of it. */
static void blocks_of_a_range(void **context)
{
    (void)context;
    open_world(MEMPLUG_MEMMAP_RANGE);
    online(2, 4);
    world_check(&world);
    assert_false(is_marked(2));
    for (uint64_t id = 3; id < 6; id++)
        assert_true(is_marked(id));
    world_close(&world);
}

/* Whatever is asked for: what lies in several unused blocks, and what is named. */
static void what_is_taken_is_written(void **context)
{
    const struct memplug_alloc one = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn, exact;

    (void)context;
    open_world(MEMPLUG_MEMMAP_HOST);
    online(2, 4);
    pfn = take(512);
    assert_false(is_marked(2) || is_marked(3));
    assert_true(is_marked(4) && is_marked(5));
    exact = mpl_pfn(mpl_block_start(world.pool, at(5)).nr + 77);
    assert_int_equal(memplug_alloc_exact(world.pool, exact, &one), 0);
    assert_true(is_marked(4) && !is_marked(5));
    world_check(&world);
    assert_int_equal(memplug_free(world.pool, pfn, 512), 0);
    assert_int_equal(memplug_free(world.pool, exact, 1), 0);
    world_check(&world);
    world_close(&world);
}

/* --- wrong calls ------------------------------------------------------------------------------ */

static int wrong(unsigned call, struct memplug_slot *slot, memplug_pfn_t pfn)
{
    switch (call) {
    case 0: return memplug_free(world.pool, pfn, 1);
    case 1: return memplug_free(world.pool, pfn, 2);
    case 2: return memplug_free(world.pool, pfn, 64);
    case 3: return memplug_free(world.pool, pfn, 512);
    case 4: return memplug_pin(world.pool, pfn);
    case 5: return memplug_unpin(world.pool, pfn);
    case 6: return memplug_set_cookie(world.pool, pfn, 1);
    case 7: return memplug_huge_free(world.pool, pfn);
    case 8: return memplug_slot_free(slot, pfn, 1);
    default: return 1;
    }
}

/* Refused as in a block that was used, and without a trace. */
static void wrong_calls_are_refused(void **context)
{
    struct memplug_slot *slot;
    memplug_pfn_t used;
    char *before;

    (void)context;
    open_world(MEMPLUG_MEMMAP_BLOCK);
    online(2, 4);
    assert_int_equal(memplug_slot_open(world.pool, &slot), 0);
    used = take(1);
    assert_int_equal(memplug_block_of(world.pool, used.nr << 12), 2);
    mpl_percpu_drain(world.pool);
    before = world_text(&world, false);
    for (uint64_t index = 0; index < 256; index += index < 8 ? 1 : 31) {
        memplug_pfn_t fresh = mpl_pfn(mpl_block_start(world.pool, at(4)).nr + index);
        memplug_pfn_t other = mpl_pfn(mpl_block_start(world.pool, at(2)).nr + index);

        if (other.nr == used.nr)
            continue;
        for (unsigned call = 0; wrong(call, slot, fresh) <= 0; call++) {
            assert_true(wrong(call, slot, fresh) < 0);
            assert_int_equal(wrong(call, slot, fresh), wrong(call, slot, other));
        }
        assert_true(is_marked(4));
    }
    world_same(&world, before, false);
    memplug_slot_close(slot);
    assert_int_equal(memplug_free(world.pool, used, 1), 0);
    world_close(&world);
}

/* --- readers without a lock ------------------------------------------------------------------- */

#define NR_ROUNDS 400u

struct storm {
    atomic_bool stop;
    atomic_uint nr_wrong, nr_calls;
};

/* Of an unused block too readers are waited for before it goes. */
static void *call_wrongly(void *argument)
{
    struct storm *storm = argument;
    struct memplug_slot *slot;
    uint64_t seed = 1;

    atomic_fetch_add(&storm->nr_wrong, memplug_slot_open(world.pool, &slot) != 0);
    while (!atomic_load(&storm->stop)) {
        memplug_pfn_t pfn;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        pfn = mpl_pfn(mpl_block_start(world.pool, at(2)).nr + (seed >> 33) % 1024);
        atomic_fetch_add(&storm->nr_wrong, wrong((seed >> 50) % 9, slot, pfn) >= 0);
        atomic_fetch_add(&storm->nr_calls, 1);
    }
    memplug_slot_close(slot);
    return NULL;
}

static void wrong_calls_beside_adds_and_removes(void **context)
{
    struct storm storm = {false};
    pthread_t thread;

    (void)context;
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .seed = 4, .nr_cpus = 1});
    assert_int_equal(pthread_create(&thread, NULL, call_wrongly, &storm), 0);
    for (unsigned i = 0; i < NR_ROUNDS || atomic_load(&storm.nr_calls) < NR_ROUNDS; i++) {
        enum memplug_memmap memmap = i % 2 != 0 ? MEMPLUG_MEMMAP_HOST : MEMPLUG_MEMMAP_BLOCK;

        assert_int_equal(world_add(&world, world.backing_a, 2, memmap, NULL, NULL), 0);
        online(2, 4);
        if (i % 8 == 7)
            assert_int_equal(memplug_free(world.pool, take(1), 1), 0);
        if (i % 3 == 1) {
            assert_int_equal(memplug_offline(world.pool, 2, 4, NULL, NULL), 0);
            assert_int_equal(memplug_online(world.pool, 2, 4, MEMPLUG_ONLINE_MOVABLE, NULL, NULL),
                             0);
            assert_int_equal(memplug_offline(world.pool, 2, 4, NULL, NULL), 0);
            assert_int_equal(memplug_remove(world.pool, 2 * world.block_bytes,
                                            4 * world.block_bytes, NULL, NULL), 0);
            continue;
        }
        assert_int_equal(memplug_offline_and_remove(world.pool, 2 * world.block_bytes,
                                                    4 * world.block_bytes, NULL, NULL), 0);
    }
    atomic_store(&storm.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(storm.nr_wrong, 0);
    world_close(&world);
}

/* A reader of an unused block holds up its removal, and not its way offline. */
static void *read_slowly(void *argument)
{
    struct storm *storm = argument;
    struct mpl_slot *slot = mpl_percpu_lock(world.pool);

    atomic_store(&storm->nr_calls, 1);
    while (!atomic_load(&storm->stop))
        sched_yield();
    usleep(20000);
    atomic_store(&storm->nr_wrong, mpl_bitmaps(at(2)) == NULL);
    mpl_percpu_unlock(slot);
    return NULL;
}

static void readers_hold_up_removal(void **context)
{
    struct storm storm = {false};
    pthread_t thread;

    (void)context;
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .seed = 5, .nr_cpus = 1});
    assert_int_equal(world_add(&world, world.backing_a, 2, MEMPLUG_MEMMAP_HOST, NULL, NULL), 0);
    online(2, 4);
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, &storm), 0);
    while (atomic_load(&storm.nr_calls) == 0)
        sched_yield();
    assert_int_equal(memplug_offline(world.pool, 2, 4, NULL, NULL), 0);
    atomic_store(&storm.stop, true);
    assert_int_equal(memplug_remove(world.pool, 2 * world.block_bytes, 4 * world.block_bytes, NULL,
                                    NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(storm.nr_wrong, 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_say_what_frames_say),
        cmocka_unit_test(large_blocks_have_none),
        cmocka_unit_test(coming_and_going_touches_nothing),
        cmocka_unit_test(blocks_of_a_range),
        cmocka_unit_test(what_is_taken_is_written),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(wrong_calls_beside_adds_and_removes),
        cmocka_unit_test(readers_hold_up_removal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
