/* SPDX-License-Identifier: MIT */
/*
 * Huge pages and offline: free ones leave with their block, used ones move and stay huge, promises
 * are kept, and what fails has changed nothing in the pool.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

#define A 2u
#define B 10u
#define NR WORLD_RANGE_BLOCKS
#define BLOCK_PAGES 256u
#define PER_BLOCK 4u /* PMD pages of a block whose memmap is the host's */
#define PMD MEMPLUG_HUGE_PMD
#define PUD MEMPLUG_HUGE_PUD

static struct memplug_huge_info info_of(struct world *world, enum memplug_huge size)
{
    struct memplug_huge_info info;

    must(memplug_huge_info(world->pool, size, MEMPLUG_ANY_NODE, &info));
    return info;
}

static void expect_info(struct world *world, enum memplug_huge size, uint64_t nr, uint64_t nr_free)
{
    struct memplug_huge_info info = info_of(world, size);

    assert_int_equal(info.nr_huge, nr);
    assert_int_equal(info.nr_free, nr_free);
}

static int resize(struct world *world, enum memplug_huge size, uint64_t nr)
{
    return memplug_huge_resize(world->pool, size, nr, MEMPLUG_ANY_NODE, NULL, NULL);
}

static unsigned alloc_huge(struct world *world, enum memplug_huge size, bool reserved)
{
    unsigned slot = 0;

    must(owner_alloc_huge(world->owner, size, MEMPLUG_ANY_NODE, reserved, &slot));
    return slot;
}

static uint64_t block_of(struct world *world, unsigned slot)
{
    uint64_t block_pages = world->block_bytes >> world->geometry.page_shift;
    memplug_pfn_t pfn;

    must(owner_where(world->owner, slot, &pfn, NULL));
    return pfn.nr / block_pages;
}

/* A in Movable; if both, B in Normal: huge pages come from A first, and move to B. */
static void open_world(struct world *world, const struct world_config *config,
                       enum memplug_memmap memmap, bool both)
{
    world_open(world, config);
    must(world_add(world, world->backing_a, A, memmap, NULL, NULL));
    must(memplug_online(world->pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(world_add(world, world->backing_b, B, memmap, NULL, NULL));
    if (both)
        must(memplug_online(world->pool, B, NR, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
}

static const struct world_config small = {.shape = FAKE_SMALL, .seed = 1};

/* What the kernel did (linux semantics, 9): free ones are dissolved, 40 -> 0; used ones move, and
 * the pool stays as large as it was. */
static void test_free_ones_leave_and_used_ones_move(void **state)
{
    struct world world;
    unsigned slots[PER_BLOCK];
    memplug_pfn_t pfn;

    (void)state;
    open_world(&world, &small, MEMPLUG_MEMMAP_HOST, true);
    must(memplug_offline(world.pool, A + 1, NR - 1, NULL, NULL));
    must(resize(&world, PMD, PER_BLOCK));
    must(memplug_offline(world.pool, A, 1, NULL, NULL));
    expect_info(&world, PMD, 0, 0);
    must(memplug_online(world.pool, A, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(resize(&world, PMD, PER_BLOCK));
    for (unsigned i = 0; i < PER_BLOCK; i++)
        slots[i] = alloc_huge(&world, PMD, false);
    must(memplug_why(world.pool, A, NULL));
    must(memplug_offline(world.pool, A, 1, NULL, NULL));
    expect_info(&world, PMD, PER_BLOCK, 0);
    world_check(&world);
    for (unsigned i = 0; i < PER_BLOCK; i++)
        assert_in_range(block_of(&world, slots[i]), B, B + NR - 1);
    /* Still huge: it can only be freed as such, and goes back to the pool. */
    must(owner_where(world.owner, slots[0], &pfn, NULL));
    assert_int_equal(memplug_free(world.pool, pfn, 64), -EINVAL);
    must(owner_free_all(world.owner));
    expect_info(&world, PMD, PER_BLOCK, PER_BLOCK);
    must(resize(&world, PMD, 0));
    world_close(&world);
}

/* A free page elsewhere is the target before fresh frames are, unless it is promised. */
static void test_targets_come_from_the_pool_first(void **state)
{
    for (unsigned reserve = 0; reserve < 2; reserve++) {
        struct world world;
        unsigned slot;
        memplug_pfn_t pfn;

        (void)state;
        open_world(&world, &small, MEMPLUG_MEMMAP_HOST, true);
        must(resize(&world, PMD, NR * PER_BLOCK + 1)); /* all of A, one in B */
        slot = alloc_huge(&world, PMD, false);
        assert_int_equal(block_of(&world, slot), A);
        must(memplug_huge_reserve(world.pool, PMD, reserve));
        must(memplug_offline(world.pool, A, NR, NULL, NULL));
        must(owner_where(world.owner, slot, &pfn, NULL));
        assert_int_equal(pfn.nr, (B * BLOCK_PAGES) + reserve * 64);
        expect_info(&world, PMD, 1 + reserve, reserve);
        world_check(&world);
        must(memplug_huge_unreserve(world.pool, PMD, reserve));
        must(owner_free_all(world.owner));
        must(resize(&world, PMD, 0));
        world_close(&world);
    }
}

/* Several blocks count as one set; the refusal comes after GOING_OFFLINE and changes nothing. */
static void test_promises_are_kept(void **state)
{
    struct memplug_reason reason;
    struct world world;
    unsigned slot;

    (void)state;
    open_world(&world, &small, MEMPLUG_MEMMAP_HOST, true);
    world_fill(&world, A, 1, 20);
    must(resize(&world, PMD, NR * PER_BLOCK)); /* two short, for what is used in A: they lie in B */
    slot = alloc_huge(&world, PMD, false);
    must(memplug_huge_reserve(world.pool, PMD, 5));
    WORLD_REFUSES(&world, &reason, EBUSY, "promised",
                  memplug_offline(world.pool, A, NR, NULL, &reason), false);
    assert_int_equal(memplug_why(world.pool, A, &reason), 0); /* one alone may go */
    must(memplug_huge_reserve(world.pool, PMD, 8));
    assert_int_equal(memplug_why(world.pool, A + 1, &reason), -EBUSY);
    WORLD_REFUSES(&world, &reason, EBUSY, "promised",
                  memplug_offline(world.pool, A + 1, 1, NULL, &reason), false);
    must(memplug_huge_unreserve(world.pool, PMD, 8));
    must(memplug_offline(world.pool, A + 1, 1, NULL, &reason));
    expect_info(&world, PMD, NR * PER_BLOCK - PER_BLOCK, NR * PER_BLOCK - PER_BLOCK - 1);
    world_check(&world);
    /* What was promised can be had. */
    for (unsigned i = 0; i < 5; i++)
        alloc_huge(&world, PMD, true);
    assert_int_equal(block_of(&world, slot), A);
    must(owner_free_all(world.owner));
    must(resize(&world, PMD, 0));
    world_close(&world);
}

/* No huge page and no frames for one: bounded, and the pool is as it was. */
static void test_no_target_is_no_memory(void **state)
{
    struct memplug_reason reason;
    struct world world;

    (void)state;
    open_world(&world, &small, MEMPLUG_MEMMAP_HOST, true);
    must(memplug_offline(world.pool, A + 1, NR - 1, NULL, NULL));
    must(memplug_offline(world.pool, B + 1, NR - 1, NULL, NULL));
    world_fill(&world, B, 1, 25);
    must(resize(&world, PMD, 99));
    while (owner_alloc_huge(world.owner, PMD, 0, false, NULL) == 0)
        ;
    expect_info(&world, PMD, info_of(&world, PMD).nr_huge, 0);
    assert_int_equal(memplug_why(world.pool, A, &reason), -ENOMEM);
    WORLD_REFUSES(&world, &reason, ENOMEM, "no room",
                  memplug_offline(world.pool, A, 1, NULL, &reason), true);
    must(owner_free_all(world.owner));
    must(resize(&world, PMD, 0));
    world_close(&world);
}

/* A pinned page stops it after others have moved to pool pages: the pool counts what it did. */
static void test_what_moved_stays_and_counts_do_too(void **state)
{
    struct memplug_reason reason;
    struct world world;
    unsigned slots[PER_BLOCK];
    memplug_pfn_t pfn;

    (void)state;
    open_world(&world, &small, MEMPLUG_MEMMAP_HOST, true);
    must(memplug_offline(world.pool, A + 1, NR - 1, NULL, NULL));
    must(resize(&world, PMD, PER_BLOCK + 2));
    for (unsigned i = 0; i < PER_BLOCK; i++)
        slots[i] = alloc_huge(&world, PMD, false);
    must(owner_where(world.owner, slots[PER_BLOCK - 1], &pfn, NULL));
    must(memplug_pin(world.pool, pfn));
    WORLD_REFUSES(&world, &reason, EBUSY, "pinned",
                  memplug_offline(world.pool, A, 1, NULL, &reason), true);
    assert_int_equal(reason.pfn.nr, pfn.nr);
    expect_info(&world, PMD, PER_BLOCK + 2, 2); /* two targets from the pool, two sources in it */
    assert_in_range(block_of(&world, slots[0]), B, B + NR - 1);
    must(memplug_unpin(world.pool, pfn));
    must(memplug_offline(world.pool, A, 1, NULL, &reason));
    world_check(&world);
    expect_info(&world, PMD, PER_BLOCK, 0);
    must(owner_free_all(world.owner));
    must(resize(&world, PMD, 0));
    world_close(&world);
}

/* --- freed while it moves --------------------------------------------------------------------- */

/* A mover whose page is freed in the middle: before the switch (it answers -ENOENT), or after it,
 * when the target is the page. */
struct spoiler {
    struct world *world;
    bool switched;
    memplug_pfn_t pfn;
    unsigned nr_moves;
};

static void spoil(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    struct spoiler *spoiler = context;

    for (unsigned i = 0; i < nr_moves; i++) {
        memplug_pfn_t mine = spoiler->switched ? moves[i].to : moves[i].from;

        assert_int_equal(moves[i].from.nr, spoiler->pfn.nr);
        spoiler->nr_moves++;
        must(memplug_huge_free(spoiler->world->pool, mine));
        assert_int_equal(memplug_huge_free(spoiler->world->pool, mine), -EINVAL);
        moves[i].result = spoiler->switched ? 0 : -ENOENT;
    }
}

static void test_freed_while_it_moves(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 8; way++) {
        bool surplus = (way & 4) != 0, from_pool = (way & 2) != 0;
        struct world world;
        struct spoiler spoiler = {.world = &world, .switched = (way & 1) != 0};
        struct memplug_mover mover = {.name = "spoiler", .move = spoil, .context = &spoiler};
        struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};
        unsigned nr = 1;

        open_world(&world, &small, MEMPLUG_MEMMAP_HOST, true);
        request.mover = (uint8_t)memplug_register_mover(world.pool, &mover);
        must(resize(&world, PMD, from_pool ? NR * PER_BLOCK + 1 : 1));
        must(memplug_huge_alloc(world.pool, PMD, &request, false, &spoiler.pfn));
        if (from_pool) { /* only the one in B stays free */
            must(memplug_offline(world.pool, A + 1, NR - 1, NULL, NULL));
            nr = 1 + PER_BLOCK;
        }
        if (surplus) {
            must(memplug_huge_reserve(world.pool, PMD, 0));
            must(resize(&world, PMD, 0));
            assert_int_equal(info_of(&world, PMD).nr_surplus, 1);
            nr = 1;
            from_pool = false;
        }
        assert_int_equal(info_of(&world, PMD).nr_huge, nr);
        must(memplug_offline(world.pool, A, 1, NULL, NULL));
        assert_int_equal(spoiler.nr_moves, 1);
        world_check(&world);
        expect_info(&world, PMD, from_pool || (!surplus && spoiler.switched),
                    from_pool || (!surplus && spoiler.switched));
        assert_int_equal(info_of(&world, PMD).nr_surplus, 0);
        must(resize(&world, PMD, 0));
        world_close(&world);
    }
}

/* --- several blocks --------------------------------------------------------------------------- */

/* A free page that reaches into the block: all of it leaves, its other frames are free. */
static void test_pud_pages_leave_as_a_whole(void **state)
{
    static const struct world_config large = {.shape = FAKE_SMALL, .block_shift = 26, .seed = 7};
    struct memplug_reason reason;

    (void)state;
    for (unsigned block = 0; block < 2; block++) {
        struct memplug_block_info info;
        struct world world;
        unsigned slot;

        open_world(&world, &large, MEMPLUG_MEMMAP_HOST, false);
        must(resize(&world, PUD, 2)); /* of two blocks each */
        expect_info(&world, PUD, 2, 2);
        must(memplug_huge_reserve(world.pool, PUD, 2));
        WORLD_REFUSES(&world, &reason, EBUSY, "promised",
                      memplug_offline(world.pool, A + block, 1, NULL, &reason), false);
        must(memplug_huge_unreserve(world.pool, PUD, 1));
        WORLD_REFUSES(&world, &reason, EBUSY, "promised",
                      memplug_offline(world.pool, A + block, 3, NULL, &reason), false);
        must(memplug_offline(world.pool, A + block, 1, NULL, &reason));
        expect_info(&world, PUD, 1, 1);
        world_check(&world);
        must(memplug_block_info(world.pool, A + 1 - block, &info));
        assert_int_equal(info.nr_free_pages, info.nr_managed_pages);
        must(memplug_online(world.pool, A + block, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        /* A used one moves to a free one, whichever of its blocks goes. */
        must(resize(&world, PUD, 2));
        slot = alloc_huge(&world, PUD, true);
        assert_int_equal(block_of(&world, slot), A);
        must(memplug_why(world.pool, A + block, &reason));
        must(memplug_offline(world.pool, A + block, 1, NULL, &reason));
        assert_int_equal(block_of(&world, slot), A + 2);
        expect_info(&world, PUD, 1, 0);
        world_check(&world);
        WORLD_REFUSES(&world, &reason, ENOMEM, "no room",
                      memplug_offline(world.pool, A + 3, 1, NULL, &reason), true);
        must(owner_free_all(world.owner));
        must(resize(&world, PUD, 0));
        world_close(&world);
    }
}

/* --- faults ----------------------------------------------------------------------------------- */

enum way { ONCE, FOREVER, CANCEL, DEADLINE, NR_WAYS };

struct fault_case {
    const char *name;
    struct world_config world;
    enum memplug_memmap memmap;
    enum memplug_huge size;
    unsigned nr_pool, nr_used, nr_reserved;
};

static void prepare(struct world *world, const struct fault_case *fault)
{
    open_world(world, &fault->world, fault->memmap, true);
    must(resize(world, fault->size, fault->nr_pool));
    must(memplug_huge_reserve(world->pool, fault->size, fault->nr_reserved));
    for (unsigned i = 0; i < fault->nr_used; i++)
        alloc_huge(world, fault->size, false);
    world_fill(world, A, NR, 10);
}

static uint64_t moved_pages(struct world *world)
{
    struct memplug_stat stat;

    memplug_stat(world->pool, &stat);
    return stat.nr_moved_pages;
}

/* False: there was no such point. */
static bool strike(const struct fault_case *fault, enum way way, uint64_t k)
{
    enum fault_limit_kind kind = way == CANCEL ? FAULT_LIMIT_STOP : FAULT_LIMIT_DEADLINE;
    struct memplug_reason reason;
    struct fault_limit limit;
    struct world world;
    char *before, *before_moved;
    bool struck;
    int error;

    prepare(&world, fault);
    before = world_text(&world, false);
    before_moved = world_text(&world, true);
    fault_limit_init(&limit, way >= CANCEL ? kind : FAULT_LIMIT_COUNT, k, world.fault);
    fault_arm(world.fault, way >= CANCEL ? 0 : k, way == FOREVER, 0);
    error = memplug_offline(world.pool, A, NR, &limit.limit, &reason);
    fault_disarm(world.fault);
    struck = way >= CANCEL ? limit.nr_checks >= k : fault_fired(world.fault) != 0;
    if (error != 0) {
        bool moved = moved_pages(&world) != 0;

        assert_true(struck && reason.error == error && reason.why != NULL);
        world_same(&world, moved ? before_moved : before, moved);
        free(moved ? before : before_moved);
        must(memplug_offline(world.pool, A, NR, NULL, NULL));
    } else {
        free(before);
        free(before_moved);
    }
    world_check(&world);
    assert_in_range(info_of(&world, fault->size).nr_huge,
                    fault->nr_used + fault->nr_reserved, fault->nr_pool);
    must(memplug_huge_unreserve(world.pool, fault->size, fault->nr_reserved));
    must(owner_free_all(world.owner));
    must(resize(&world, fault->size, 0));
    world_close(&world);
    return struck;
}

static void test_faults(void **state)
{
    static const struct fault_case cases[] = {
        {"fresh targets", {.shape = FAKE_SMALL, .seed = 2}, MEMPLUG_MEMMAP_BLOCK, PMD, 9, 5, 0},
        {"promised", {.shape = FAKE_SMALL, .seed = 3}, MEMPLUG_MEMMAP_HOST, PMD, 20, 6, 3},
        {"range", {.shape = FAKE_SMALL, .seed = 4}, MEMPLUG_MEMMAP_RANGE, PMD, 18, 3, 1},
        {"several blocks", {.shape = FAKE_SMALL, .block_shift = 26, .seed = 5},
         MEMPLUG_MEMMAP_RANGE, PUD, 2, 1, 0},
        {"several blocks, promised", {.shape = FAKE_SMALL, .block_shift = 26, .seed = 6},
         MEMPLUG_MEMMAP_HOST, PUD, 3, 1, 1},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t nr_runs = 0;

        for (unsigned way = 0; way < NR_WAYS; way++) {
            uint64_t k = 1;

            while (strike(&cases[i], (enum way)way, k))
                k++;
            assert_true(k > 1);
            nr_runs += k;
        }
        print_message("%s: %llu runs\n", cases[i].name, (unsigned long long)nr_runs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_ones_leave_and_used_ones_move),
        cmocka_unit_test(test_targets_come_from_the_pool_first),
        cmocka_unit_test(test_promises_are_kept),
        cmocka_unit_test(test_no_target_is_no_memory),
        cmocka_unit_test(test_what_moved_stays_and_counts_do_too),
        cmocka_unit_test(test_freed_while_it_moves),
        cmocka_unit_test(test_pud_pages_leave_as_a_whole),
        cmocka_unit_test(test_faults),
    };

    return cmocka_run_group_tests_name("huge_offline", tests, NULL, NULL);
}
