/* SPDX-License-Identifier: MIT */
/*
 * Resizing a pool whose memmaps are lent: pages that cannot go for now, that wait for theirs, that
 * are taken and freed in the middle, and a resize that ends early.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

#define A 2u
#define B 10u
#define NR WORLD_RANGE_BLOCKS
#define PMD MEMPLUG_HUGE_PMD
#define BLOCK_PAGES 2048u
#define FIRST_LENT (A * BLOCK_PAGES + 9) /* of the first huge page of block A */

static struct world world;
static struct memplug_reason reason;

static int resize(uint64_t nr, int node)
{
    return memplug_huge_resize(world.pool, PMD, nr, node, NULL, &reason);
}

static struct memplug_huge_info info(void)
{
    struct memplug_huge_info of_all;

    must(memplug_huge_info(world.pool, PMD, MEMPLUG_ANY_NODE, &of_all));
    return of_all;
}

static void add(struct fake_backing *backing, uint64_t first, int node, unsigned nr_online)
{
    struct memplug_add range = {
        .address = first * world.block_bytes,
        .size_bytes = NR * world.block_bytes,
        .memmap = MEMPLUG_MEMMAP_BLOCK,
        .backing = backing,
        .node = node,
    };

    must(memplug_add(world.pool, &range, NULL, &reason));
    must(memplug_online(world.pool, first, nr_online, MEMPLUG_ONLINE_MOVABLE, NULL, &reason));
}

static void open_world(unsigned nr_nodes, unsigned nr_online)
{
    world_open(&world, &(struct world_config){
                           .shape = FAKE_SMALL,
                           .block_shift = 23,
                           .pageblock_order = 9,
                           .hvo = MEMPLUG_HVO_ALL,
                           .nr_nodes = nr_nodes,
                           .seed = 1,
                       });
    add(world.backing_a, A, 0, nr_online);
}

static void close_world(void)
{
    must(owner_free_all(world.owner));
    must(resize(0, MEMPLUG_ANY_NODE));
    assert_int_equal(info().nr_huge, 0);
    world_check(&world);
    world_close(&world);
}

static unsigned alloc_huge(int node)
{
    unsigned slot = 0;

    must(owner_alloc_huge(world.owner, PMD, node, false, &slot));
    return slot;
}

static void nobody_gets_one(void)
{
    unsigned slot;

    assert_int_equal(owner_alloc_huge(world.owner, PMD, MEMPLUG_ANY_NODE, false, &slot), -ENOMEM);
    assert_int_equal(memplug_huge_reserve(world.pool, PMD, 1), -ENOMEM);
}

static unsigned pin_lent(memplug_pfn_t pfn)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE};
    unsigned slot = 0;

    must(owner_alloc_request(world.owner, &request, &pfn, &slot));
    must(memplug_pin(world.pool, pfn));
    return slot;
}

/* --- in the middle of a resize ---------------------------------------------------------------- */

static struct {
    unsigned slots[2], nr;
} taken;

static void take_all(void *context, const struct memplug_progress *progress)
{
    (void)context;
    if (strcmp(progress->step, "shrink") != 0)
        return;
    while (taken.nr < 2 && owner_alloc_huge(world.owner, PMD, MEMPLUG_ANY_NODE, false,
                                            &taken.slots[taken.nr]) == 0)
        taken.nr++;
}

/* What a resize could not free, and somebody took meanwhile, is freed by the next one. */
static void test_a_stuck_page_that_is_taken(void **state)
{
    memplug_pfn_t lent = {FIRST_LENT + 8};
    struct memplug_limit limit = {.progress = take_all};
    unsigned slot;

    (void)state;
    open_world(1, 1);
    must(resize(2, MEMPLUG_ANY_NODE));
    slot = pin_lent(lent);
    taken.nr = 0;
    must(memplug_huge_resize(world.pool, PMD, 0, MEMPLUG_ANY_NODE, &limit, &reason));
    assert_true(taken.nr > 0);
    must(memplug_unpin(world.pool, lent));
    must(owner_free(world.owner, slot));
    while (taken.nr > 0)
        must(owner_free(world.owner, taken.slots[--taken.nr]));
    world_check(&world);
    must(resize(0, MEMPLUG_ANY_NODE));
    assert_int_equal(info().nr_huge, 0);
    close_world();
}

static struct {
    memplug_pfn_t pfn;
    int result;
} freed;

static void free_foreign(void *context, const struct memplug_progress *progress)
{
    (void)context;
    if (strcmp(progress->step, "shrink") != 0)
        freed.result = memplug_huge_free(world.pool, freed.pfn);
}

/* A free page that is leaving is freed once more: that is a fault of somebody's, not of ours. */
static void test_a_page_that_leaves_is_freed(void **state)
{
    struct memplug_limit limit = {.progress = free_foreign};
    unsigned slot;

    (void)state;
    open_world(1, 1);
    must(resize(1, MEMPLUG_ANY_NODE));
    slot = alloc_huge(MEMPLUG_ANY_NODE);
    must(owner_where(world.owner, slot, &freed.pfn, NULL));
    must(owner_free(world.owner, slot));
    assert_int_equal(memplug_huge_free(world.pool, freed.pfn), -EINVAL);
    must(memplug_huge_resize(world.pool, PMD, 0, MEMPLUG_ANY_NODE, &limit, &reason));
    assert_int_equal(info().nr_huge, 0);
    close_world();
}

/* --- who waits for its memmap, waits for nobody ----------------------------------------------- */

static void leave_one_waiting(int node)
{
    unsigned slot;

    must(resize(1, node));
    slot = alloc_huge(node);
    must(resize(0, node));
    must(owner_free(world.owner, slot));
    nobody_gets_one();
}

static void test_a_resize_of_another_node(void **state)
{
    unsigned slot;

    (void)state;
    open_world(2, NR);
    add(world.backing_b, B, 1, NR);
    leave_one_waiting(0);
    must(resize(1, 1));
    slot = alloc_huge(1);
    nobody_gets_one();
    must(owner_free(world.owner, slot));
    close_world();
}

static void test_a_resize_that_ends_early(void **state)
{
    struct fault_limit limit;

    (void)state;
    open_world(1, NR);
    leave_one_waiting(MEMPLUG_ANY_NODE);
    fault_limit_init(&limit, FAULT_LIMIT_STOP, 1, world.fault);
    assert_int_equal(memplug_huge_resize(world.pool, PMD, 0, MEMPLUG_ANY_NODE, &limit.limit,
                                         &reason),
                     -EINTR);
    nobody_gets_one();
    must(resize(0, MEMPLUG_ANY_NODE));
    fault_limit_init(&limit, FAULT_LIMIT_STOP, 5, world.fault);
    assert_int_equal(memplug_huge_resize(world.pool, PMD, 10, MEMPLUG_ANY_NODE, &limit.limit,
                                         &reason),
                     -EINTR);
    assert_true(info().nr_huge > 0);
    assert_int_equal(info().nr_optimized, info().nr_huge);
    close_world();
}

static void test_a_page_that_cannot_go(void **state)
{
    memplug_pfn_t lent = {FIRST_LENT};

    (void)state;
    open_world(1, 1);
    must(resize(1, MEMPLUG_ANY_NODE));
    pin_lent(lent);
    must(resize(0, MEMPLUG_ANY_NODE));
    assert_int_equal(info().nr_huge, 1);
    assert_int_equal(info().nr_surplus, 1);
    assert_non_null(reason.why);
    nobody_gets_one();
    must(memplug_unpin(world.pool, lent));
    close_world();
}

/* There is nowhere for what its lent frames hold, though the page itself would be room enough. */
static void test_no_frame_is_free(void **state)
{
    (void)state;
    open_world(1, 1);
    must(resize(3, MEMPLUG_ANY_NODE));
    owner_fill(world.owner);
    must(resize(0, MEMPLUG_ANY_NODE));
    assert_int_equal(info().nr_huge, 3);
    assert_non_null(reason.why);
    world_check(&world);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stuck_page_that_is_taken),
        cmocka_unit_test(test_a_page_that_leaves_is_freed),
        cmocka_unit_test(test_a_resize_of_another_node),
        cmocka_unit_test(test_a_resize_that_ends_early),
        cmocka_unit_test(test_a_page_that_cannot_go),
        cmocka_unit_test(test_no_frame_is_free),
    };

    return cmocka_run_group_tests_name("hvo resize", tests, NULL, NULL);
}
