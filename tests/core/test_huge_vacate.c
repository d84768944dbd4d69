/* SPDX-License-Identifier: MIT */
/*
 * Single frames of huge pages go: kept by a driver, or bad. A free one is dissolved first, unless
 * it is promised; a used one moves, or is lost, as a whole. What fails has changed nothing.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/poison.h>

#include "world.h"

#define A 2u
#define NR WORLD_RANGE_BLOCKS
#define BLOCK_PAGES 256u
#define NR_PMD (NR * 4u) /* in all blocks */
#define PMD MEMPLUG_HUGE_PMD
#define PUD MEMPLUG_HUGE_PUD

enum go { SOFT, HARD, KEEP, NR_GOES };

static struct world world;
static struct memplug_reason reason;

static void open_world(const struct world_config *config, enum memplug_online_type type)
{
    world_open(&world, config);
    must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_HOST, NULL, NULL));
    must(memplug_online(world.pool, A, NR, type, NULL, NULL));
}

static int resize(enum memplug_huge size, uint64_t nr)
{
    return memplug_huge_resize(world.pool, size, nr, MEMPLUG_ANY_NODE, NULL, NULL);
}

static void expect_info(enum memplug_huge size, uint64_t nr, uint64_t nr_free)
{
    struct memplug_huge_info info;

    must(memplug_huge_info(world.pool, size, MEMPLUG_ANY_NODE, &info));
    assert_int_equal(info.nr_huge, nr);
    assert_int_equal(info.nr_free, nr_free);
}

static int go(enum go how, memplug_pfn_t pfn, const struct memplug_limit *limit)
{
    switch (how) {
    case SOFT:
        return memplug_soft_offline(world.pool, pfn, limit, &reason);
    case HARD:
        return memplug_hard_offline(world.pool, pfn, limit, &reason);
    default:
        return memplug_keep_pages(world.pool, pfn, 3, limit, &reason);
    }
}

/* Kept frames come back, poisoned ones do not: the world ends only without the former. */
static void close_world(enum go how, memplug_pfn_t pfn)
{
    for (unsigned i = 0; how == KEEP && i < 3; i++)
        must(memplug_release_pages(world.pool, (memplug_pfn_t){pfn.nr + i}, 1));
    must(owner_free_all(world.owner));
    must(resize(PMD, 0));
    must(resize(PUD, 0));
    world_check(&world);
    world_close(&world);
}

static const struct world_config small = {.shape = FAKE_SMALL, .seed = 1};
static const struct world_config large = {.shape = FAKE_SMALL, .block_shift = 26, .seed = 2};

static void test_a_free_one_is_dissolved(void **state)
{
    (void)state;
    for (unsigned how = 0; how < NR_GOES; how++) {
        memplug_pfn_t pfn = {A * BLOCK_PAGES + 64 + 5};
        struct memplug_stat stat;

        open_world(&small, MEMPLUG_ONLINE_MOVABLE);
        must(resize(PMD, 3));
        must(memplug_huge_reserve(world.pool, PMD, 3));
        WORLD_REFUSES(&world, &reason, EBUSY, "promised", go((enum go)how, pfn, NULL), false);
        must(memplug_huge_unreserve(world.pool, PMD, 1));
        if (how == KEEP) /* one of the two may go, both may not */
            WORLD_REFUSES(&world, &reason, EBUSY, "promised",
                          go(KEEP, (memplug_pfn_t){A * BLOCK_PAGES + 63}, NULL), false);
        must(go((enum go)how, pfn, NULL));
        expect_info(PMD, 2, 2);
        memplug_stat(world.pool, &stat);
        assert_int_equal(stat.nr_free_pages, NR * BLOCK_PAGES - 128 - (how == KEEP ? 3 : 1));
        world_check(&world);
        must(memplug_huge_unreserve(world.pool, PMD, 2));
        close_world((enum go)how, pfn);
    }
}

static void test_a_used_one_moves_or_is_lost(void **state)
{
    (void)state;
    for (unsigned how = 0; how < NR_GOES; how++)
        for (unsigned spare = 0; spare < 2; spare++) { /* a target: from the pool, or fresh */
            memplug_pfn_t pfn, now;
            unsigned slot;

            open_world(&small, MEMPLUG_ONLINE_MOVABLE);
            must(resize(PMD, 1 + spare));
            must(owner_alloc_huge(world.owner, PMD, 0, false, &slot));
            must(owner_where(world.owner, slot, &pfn, NULL));
            pfn.nr += 7;
            must(memplug_pin(world.pool, (memplug_pfn_t){pfn.nr - 7}));
            WORLD_REFUSES(&world, &reason, EBUSY, "pinned", go((enum go)how, pfn, NULL), false);
            must(memplug_unpin(world.pool, (memplug_pfn_t){pfn.nr - 7}));
            must(go((enum go)how, pfn, NULL));
            world_check(&world);
            if (how == HARD) {
                assert_int_equal(owner_where(world.owner, slot, &now, NULL), -ENOENT);
                expect_info(PMD, spare, spare);
            } else {
                must(owner_where(world.owner, slot, &now, NULL));
                assert_true(now.nr != pfn.nr - 7);
                expect_info(PMD, 1, 0); /* the source has left with its frame */
            }
            close_world((enum go)how, pfn);
        }
}

static void test_one_without_a_mover_is_refused(void **state)
{
    struct memplug_alloc raw = {.node = MEMPLUG_ANY_NODE};

    (void)state;
    for (unsigned how = 0; how < NR_GOES; how++) {
        memplug_pfn_t pfn;

        open_world(&small, MEMPLUG_ONLINE_KERNEL);
        must(resize(PMD, 1));
        must(memplug_huge_alloc(world.pool, PMD, &raw, false, &pfn));
        WORLD_REFUSES(&world, &reason, EBUSY, how == HARD ? "told" : "nobody can move it",
                      go((enum go)how, (memplug_pfn_t){pfn.nr + 1}, NULL), false);
        must(memplug_huge_free(world.pool, pfn));
        must(go((enum go)how, pfn, NULL));
        close_world((enum go)how, pfn);
    }
}

/* The frame lies in the second block of the page. */
static void test_pages_of_several_blocks(void **state)
{
    (void)state;
    for (unsigned how = 0; how < NR_GOES; how++)
        for (unsigned used = 0; used < 2; used++) {
            uint64_t block_pages = UINT64_C(1) << (26 - 12);
            memplug_pfn_t pfn = {(A + 1) * block_pages + 9};
            unsigned slot;

            open_world(&large, MEMPLUG_ONLINE_MOVABLE);
            must(resize(PUD, 2));
            if (used != 0)
                must(owner_alloc_huge(world.owner, PUD, 0, false, &slot));
            must(go((enum go)how, pfn, NULL));
            expect_info(PUD, 1, used != 0 && how != HARD ? 0 : 1);
            world_check(&world);
            close_world((enum go)how, pfn);
        }
}

/* --- faults ----------------------------------------------------------------------------------- */

enum way { ONCE, FOREVER, CANCEL, DEADLINE, NR_WAYS };

static bool strike(enum go how, unsigned spare, enum way way, uint64_t k)
{
    enum fault_limit_kind kind = way == CANCEL ? FAULT_LIMIT_STOP : FAULT_LIMIT_DEADLINE;
    struct fault_limit limit;
    memplug_pfn_t pfn = {A * BLOCK_PAGES + 64 - 1}; /* with KEEP in two huge pages */
    char *before, *before_moved;
    bool struck;
    int error;

    open_world(&small, MEMPLUG_ONLINE_MOVABLE);
    must(resize(PMD, 2 + spare));
    must(owner_alloc_huge(world.owner, PMD, 0, false, NULL));
    before = world_text(&world, false);
    before_moved = world_text(&world, true);
    fault_limit_init(&limit, way >= CANCEL ? kind : FAULT_LIMIT_COUNT, k, world.fault);
    fault_arm(world.fault, way >= CANCEL ? 0 : k, way == FOREVER, 0);
    error = go(how, pfn, &limit.limit);
    fault_disarm(world.fault);
    struck = way >= CANCEL ? limit.nr_checks >= k : fault_fired(world.fault) != 0;
    if (error != 0) {
        struct memplug_stat stat;

        memplug_stat(world.pool, &stat);
        assert_true(struck && reason.error == error && reason.why != NULL);
        world_same(&world, stat.nr_moved_pages != 0 ? before_moved : before,
                   stat.nr_moved_pages != 0);
        free(stat.nr_moved_pages != 0 ? before : before_moved);
        must(go(how, pfn, NULL));
    } else {
        free(before);
        free(before_moved);
    }
    close_world(how, pfn);
    return struck;
}

static void test_faults(void **state)
{
    uint64_t nr_runs = 0;

    (void)state;
    for (unsigned how = 0; how < NR_GOES; how++)
        for (unsigned spare = 0; spare < 2; spare++)
            for (unsigned way = 0; way < NR_WAYS; way++) {
                uint64_t k = 1;

                while (strike((enum go)how, spare, (enum way)way, k))
                    k++;
                assert_true(k > 1);
                nr_runs += k;
            }
    print_message("%llu runs\n", (unsigned long long)nr_runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_free_one_is_dissolved),
        cmocka_unit_test(test_a_used_one_moves_or_is_lost),
        cmocka_unit_test(test_one_without_a_mover_is_refused),
        cmocka_unit_test(test_pages_of_several_blocks),
        cmocka_unit_test(test_faults),
    };

    return cmocka_run_group_tests_name("huge vacate", tests, NULL, NULL);
}
