/* SPDX-License-Identifier: MIT */
/*
 * Pools of huge pages without offline: Linux's rules of nr_hugepages, reserve and surplus against a
 * flat model in every order of calls, where pages come from, and what may not be done with them.
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
#define PMD MEMPLUG_HUGE_PMD
#define PUD MEMPLUG_HUGE_PUD

static struct memplug_huge_info info_of(struct world *world, enum memplug_huge size, int node)
{
    struct memplug_huge_info info;

    must(memplug_huge_info(world->pool, size, node, &info));
    return info;
}

static void expect_info(struct world *world, enum memplug_huge size, uint64_t nr, uint64_t nr_free,
                        uint64_t nr_reserved, uint64_t nr_surplus)
{
    struct memplug_huge_info info = info_of(world, size, MEMPLUG_ANY_NODE);

    if (info.nr_huge != nr || info.nr_free != nr_free || info.nr_reserved != nr_reserved ||
        info.nr_surplus != nr_surplus)
        fail_msg("total %llu free %llu reserved %llu surplus %llu, not %llu %llu %llu %llu",
                 (unsigned long long)info.nr_huge, (unsigned long long)info.nr_free,
                 (unsigned long long)info.nr_reserved, (unsigned long long)info.nr_surplus,
                 (unsigned long long)nr, (unsigned long long)nr_free,
                 (unsigned long long)nr_reserved, (unsigned long long)nr_surplus);
}

static int resize(struct world *world, enum memplug_huge size, uint64_t nr)
{
    return memplug_huge_resize(world->pool, size, nr, MEMPLUG_ANY_NODE, NULL, NULL);
}

static void add_online(struct world *world, struct fake_backing *backing, uint64_t first,
                       enum memplug_memmap memmap, enum memplug_online_type type)
{
    must(world_add(world, backing, first, memmap, NULL, NULL));
    must(memplug_online(world->pool, first, NR, type, NULL, NULL));
}

static void open_small(struct world *world, enum memplug_online_type type)
{
    world_open(world, &(struct world_config){.shape = FAKE_SMALL, .seed = 3});
    add_online(world, world->backing_a, A, MEMPLUG_MEMMAP_HOST, type);
}

/* --- the rules, by enumeration ---------------------------------------------------------------- */

/* What Linux says of one node (linux semantics, 9; Documentation of hugetlb's counters). */
struct model {
    unsigned nr, nr_free, nr_reserved, nr_surplus, nr_max;
};

enum act { GROW0, GROW1, GROW2, GROW9, RESERVE, UNRESERVE, ALLOC, ALLOC_RESERVED, FREE, NR_ACTS };

static int model_resize(struct model *model, unsigned nr)
{
    while (model->nr_surplus > 0 && model->nr - model->nr_surplus < nr)
        model->nr_surplus--;
    while (model->nr - model->nr_surplus < nr && model->nr < model->nr_max) {
        model->nr++;
        model->nr_free++;
    }
    while (model->nr - model->nr_surplus > nr && model->nr_free > model->nr_reserved) {
        model->nr--;
        model->nr_free--;
    }
    while (model->nr - model->nr_surplus > nr)
        model->nr_surplus++;
    return 0;
}

static int model_act(struct model *model, enum act act)
{
    switch (act) {
    case RESERVE:
        if (model->nr_free == model->nr_reserved)
            return -ENOMEM;
        model->nr_reserved++;
        return 0;
    case UNRESERVE:
        if (model->nr_reserved == 0)
            return -EINVAL;
        model->nr_reserved--;
        if (model->nr_surplus > 0) { /* it was kept for the promise only */
            model->nr_surplus--;
            model->nr--;
            model->nr_free--;
        }
        return 0;
    case ALLOC_RESERVED:
        if (model->nr_reserved == 0)
            return -EINVAL;
        model->nr_reserved--;
        model->nr_free--;
        return 0;
    case ALLOC:
        if (model->nr_free == model->nr_reserved)
            return -ENOMEM;
        model->nr_free--;
        return 0;
    case FREE:
        if (model->nr == model->nr_free)
            return -ENOENT;
        model->nr_free++;
        if (model->nr_surplus > 0) {
            model->nr_surplus--;
            model->nr--;
            model->nr_free--;
        }
        return 0;
    default:
        return model_resize(model, (unsigned[]){0, 1, 2, 9}[act]);
    }
}

#define DEPTH_MAX 7u
#define MODEL_MAX 3u /* there is no room for more */

struct play {
    struct world *world;
    unsigned slots[DEPTH_MAX], nr_slots;
};

static int play_act(struct play *play, enum act act)
{
    struct memplug *pool = play->world->pool;
    int error;

    switch (act) {
    case RESERVE:
        return memplug_huge_reserve(pool, PMD, 1);
    case UNRESERVE:
        return memplug_huge_unreserve(pool, PMD, 1);
    case ALLOC:
    case ALLOC_RESERVED:
        error = owner_alloc_huge(play->world->owner, PMD, MEMPLUG_ANY_NODE, act == ALLOC_RESERVED,
                                 &play->slots[play->nr_slots]);
        play->nr_slots += error == 0;
        return error;
    case FREE:
        return play->nr_slots == 0
                   ? -ENOENT
                   : owner_free(play->world->owner, play->slots[--play->nr_slots]);
    default:
        return resize(play->world, PMD, (uint64_t[]){0, 1, 2, 9}[act]);
    }
}

/* All sequences of `depth` acts, each from an empty pool. */
static void test_every_order_of_calls_is_linuxs(void **state)
{
    unsigned depth = world_setting("MEMPLUG_HUGE_DEPTH", 5);
    uint64_t nr_sequences = 1;
    struct world world;
    char *before;

    (void)state;
    open_small(&world, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, NR, 30);
    must(resize(&world, PMD, 99));
    for (uint64_t nr = info_of(&world, PMD, 0).nr_huge; nr > MODEL_MAX; nr--) {
        must(resize(&world, PMD, 0));
        must(owner_alloc(world.owner, 64, NULL));
    }
    must(resize(&world, PMD, 0));
    before = world_text(&world, false);
    for (unsigned i = 0; i < depth; i++)
        nr_sequences *= NR_ACTS;
    for (uint64_t sequence = 0; sequence < nr_sequences; sequence++) {
        struct play play = {.world = &world};
        struct model model = {.nr_max = MODEL_MAX};
        uint64_t acts = sequence;

        for (unsigned i = 0; i < depth; i++, acts /= NR_ACTS) {
            int error = play_act(&play, (enum act)(acts % NR_ACTS));

            if (error != model_act(&model, (enum act)(acts % NR_ACTS)))
                fail_msg("sequence %llu, act %u: %d", (unsigned long long)sequence, i, error);
            expect_info(&world, PMD, model.nr, model.nr_free, model.nr_reserved,
                        model.nr_surplus);
        }
        if (sequence % 64 == 0)
            world_check(&world);
        must(memplug_huge_unreserve(world.pool, PMD, model.nr_reserved));
        while (play.nr_slots != 0)
            must(owner_free(world.owner, play.slots[--play.nr_slots]));
        must(resize(&world, PMD, 0));
    }
    print_message("%llu sequences\n", (unsigned long long)nr_sequences);
    world_same(&world, before, false);
    world_close(&world);
}

/* --- where they come from --------------------------------------------------------------------- */

/* As a movable request would: Movable before Normal, lowest address first. */
static void test_growth_fills_movable_first(void **state)
{
    struct world world;
    unsigned slot;
    memplug_pfn_t pfn;

    (void)state;
    open_small(&world, MEMPLUG_ONLINE_KERNEL);
    add_online(&world, world.backing_b, B, MEMPLUG_MEMMAP_HOST, MEMPLUG_ONLINE_MOVABLE);
    must(resize(&world, PMD, NR * 4 + 2)); /* a block has four */
    expect_info(&world, PMD, NR * 4 + 2, NR * 4 + 2, 0, 0);
    for (unsigned i = 0; i < NR * 4 + 2; i++) {
        must(owner_alloc_huge(world.owner, PMD, MEMPLUG_ANY_NODE, false, &slot));
        must(owner_where(world.owner, slot, &pfn, NULL));
        assert_int_equal(pfn.nr, i < NR * 4 ? B * 256 + i * 64 : A * 256 + (i - NR * 4) * 64);
    }
    world_check(&world);
    must(owner_free_all(world.owner));
    /* Shrinking is growing backwards. */
    must(resize(&world, PMD, 1));
    must(owner_alloc_huge(world.owner, PMD, MEMPLUG_ANY_NODE, false, &slot));
    must(owner_where(world.owner, slot, &pfn, NULL));
    assert_int_equal(pfn.nr, B * 256);
    must(owner_free_all(world.owner));
    must(resize(&world, PMD, 0));
    world_close(&world);
}

/* A page without a mover never lies in Movable, whoever has room. */
static void test_without_a_mover_kernel_zones_only(void **state)
{
    struct memplug_alloc raw = {.node = MEMPLUG_ANY_NODE, .cookie = 9, .pinned = true};
    struct memplug_reason reason;
    struct world world;
    memplug_pfn_t pfn;

    (void)state;
    open_small(&world, MEMPLUG_ONLINE_MOVABLE);
    must(resize(&world, PMD, 2));
    assert_int_equal(memplug_huge_alloc(world.pool, PMD, &raw, false, &pfn), -ENOMEM);
    add_online(&world, world.backing_b, B, MEMPLUG_MEMMAP_HOST, MEMPLUG_ONLINE_KERNEL);
    must(resize(&world, PMD, NR * 4 + 1));
    must(memplug_huge_alloc(world.pool, PMD, &raw, false, &pfn));
    assert_int_equal(pfn.nr, B * 256);
    world_check(&world);
    assert_int_equal(memplug_huge_alloc(world.pool, PMD, &raw, false, &pfn), -ENOMEM);
    WORLD_REFUSES(&world, &reason, EBUSY, "nobody can move it",
                  memplug_offline(world.pool, B, 1, NULL, &reason), false);
    assert_int_equal(memplug_why(world.pool, B, &reason), -EBUSY);
    assert_int_equal(memplug_pin(world.pool, (memplug_pfn_t){B * 256}), -EINVAL);
    must(memplug_huge_free(world.pool, (memplug_pfn_t){B * 256}));
    must(memplug_offline(world.pool, B, 1, NULL, &reason));
    must(resize(&world, PMD, 0));
    world_close(&world);
}

static void test_nodes_grow_and_shrink_in_turn(void **state)
{
    struct world world;
    unsigned slot;
    memplug_pfn_t pfn;

    (void)state;
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .nr_nodes = 3, .seed = 4});
    add_online(&world, world.backing_a, A, MEMPLUG_MEMMAP_HOST, MEMPLUG_ONLINE_MOVABLE);
    must(memplug_add(world.pool,
                     &(struct memplug_add){.address = B * world.block_bytes,
                                           .size_bytes = 2 * world.block_bytes,
                                           .memmap = MEMPLUG_MEMMAP_HOST,
                                           .node = 2,
                                           .backing = world.backing_b},
                     NULL, NULL));
    must(memplug_online(world.pool, B, 2, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(resize(&world, PMD, 6));
    assert_int_equal(info_of(&world, PMD, 0).nr_huge, 3);
    assert_int_equal(info_of(&world, PMD, 1).nr_huge, 0);
    assert_int_equal(info_of(&world, PMD, 2).nr_free, 3);
    /* One node: its own number, as its own nr_hugepages. It cannot have more than it has room. */
    must(memplug_huge_resize(world.pool, PMD, 1, 0, NULL, NULL));
    assert_int_equal(info_of(&world, PMD, 0).nr_huge, 1);
    must(memplug_huge_resize(world.pool, PMD, 99, 2, NULL, NULL));
    assert_int_equal(info_of(&world, PMD, 2).nr_huge, 8);
    assert_int_equal(info_of(&world, PMD, 0).nr_huge, 1);
    /* The preferred node first, then another, unless only this one will do. */
    must(owner_alloc_huge(world.owner, PMD, 0, false, &slot));
    must(owner_where(world.owner, slot, &pfn, NULL));
    assert_int_equal(pfn.nr, A * 256);
    assert_int_equal(memplug_huge_alloc(world.pool, PMD,
                                        &(struct memplug_alloc){.node = 0, .this_node = true,
                                                                .mover = (uint8_t)world.mover},
                                        false, &pfn),
                     -ENOMEM);
    must(owner_alloc_huge(world.owner, PMD, 0, false, &slot));
    must(owner_where(world.owner, slot, &pfn, NULL));
    assert_int_equal(pfn.nr, B * 256);
    /* A surplus is its node's. */
    must(memplug_huge_resize(world.pool, PMD, 0, 2, NULL, NULL));
    assert_int_equal(info_of(&world, PMD, 2).nr_surplus, 1);
    assert_int_equal(info_of(&world, PMD, 2).nr_huge, 1);
    must(memplug_huge_resize(world.pool, PMD, 2, 0, NULL, NULL)); /* and none of another's number */
    assert_int_equal(info_of(&world, PMD, 0).nr_huge, 2);
    must(memplug_huge_resize(world.pool, PMD, 1, 0, NULL, NULL));
    assert_int_equal(info_of(&world, PMD, 0).nr_huge, 1);
    world_check(&world);
    must(owner_free(world.owner, slot));
    assert_int_equal(info_of(&world, PMD, 2).nr_huge, 0);
    must(owner_free_all(world.owner));
    assert_int_equal(info_of(&world, PMD, 0).nr_huge, 1);
    must(resize(&world, PMD, 0));
    world_close(&world);
}

/* --- what may not be done --------------------------------------------------------------------- */

static void test_bad_arguments(void **state)
{
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};
    struct memplug_huge_info info;
    struct memplug_reason reason;
    struct world world;
    memplug_pfn_t pfn;

    (void)state;
    open_small(&world, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(memplug_huge_pages(world.pool, PMD), 64);
    assert_int_equal(memplug_huge_pages(world.pool, PUD), 64 * 512);
    assert_int_equal(memplug_huge_pages(world.pool, MEMPLUG_NR_HUGE), 0);
    WORLD_REFUSES(&world, &reason, EINVAL, "no such size",
                  memplug_huge_resize(world.pool, MEMPLUG_NR_HUGE, 1, 0, NULL, &reason), false);
    WORLD_REFUSES(&world, &reason, EINVAL, "no such node",
                  memplug_huge_resize(world.pool, PMD, 1, 1, NULL, &reason), false);
    assert_int_equal(memplug_huge_reserve(world.pool, MEMPLUG_NR_HUGE, 0), -EINVAL);
    assert_int_equal(memplug_huge_unreserve(world.pool, MEMPLUG_NR_HUGE, 0), -EINVAL);
    assert_int_equal(memplug_huge_reserve(world.pool, PMD, UINT64_MAX), -ENOMEM);
    assert_int_equal(memplug_huge_info(world.pool, MEMPLUG_NR_HUGE, 0, &info), -EINVAL);
    assert_int_equal(memplug_huge_info(world.pool, PMD, 1, &info), -EINVAL);
    assert_int_equal(memplug_huge_info(world.pool, PMD, 0, NULL), -EINVAL);
    must(resize(&world, PMD, 1));
    assert_int_equal(memplug_huge_alloc(world.pool, MEMPLUG_NR_HUGE, &request, false, &pfn),
                     -EINVAL);
    request.mover = (uint8_t)(world.mover + 1);
    assert_int_equal(memplug_huge_alloc(world.pool, PMD, &request, false, &pfn), -EINVAL);
    request.mover = (uint8_t)world.mover;
    request.node = 1;
    assert_int_equal(memplug_huge_alloc(world.pool, PMD, &request, false, &pfn), -EINVAL);
    request.node = 0;
    assert_int_equal(memplug_huge_alloc(world.pool, PMD, &request, true, &pfn), -EINVAL);
    /* A promise is for whoever can have a page of any node in Movable. */
    must(memplug_huge_reserve(world.pool, PMD, 1));
    request.this_node = true;
    assert_int_equal(memplug_huge_alloc(world.pool, PMD, &request, true, &pfn), -EINVAL);
    request.this_node = false;
    request.mover = 0;
    assert_int_equal(memplug_huge_alloc(world.pool, PMD, &request, true, &pfn), -EINVAL);
    must(memplug_huge_unreserve(world.pool, PMD, 1));
    must(resize(&world, PMD, 0));
    world_close(&world);
}

/* Free and used huge pages against every call for other pages. */
static void test_other_calls_leave_them_alone(void **state)
{
    struct memplug_alloc request = {.nr_pages = 64, .node = 0};
    struct world world;
    memplug_pfn_t pfn, free_pfn, odd;
    unsigned slot;
    char *before;

    (void)state;
    open_small(&world, MEMPLUG_ONLINE_MOVABLE);
    must(resize(&world, PMD, 2));
    must(owner_alloc_huge(world.owner, PMD, 0, false, &slot));
    must(owner_where(world.owner, slot, &pfn, NULL));
    free_pfn.nr = pfn.nr + 64;
    odd.nr = pfn.nr + 1;
    request.mover = (uint8_t)world.mover;
    before = world_text(&world, false);
    for (unsigned i = 0; i < 2; i++) {
        memplug_pfn_t at = i == 0 ? pfn : free_pfn;

        assert_int_equal(memplug_free(world.pool, at, 64), -EINVAL);
        assert_int_equal(memplug_free(world.pool, at, 1), -EINVAL);
        assert_int_equal(memplug_alloc_exact(world.pool, at, &request), -EBUSY);
        assert_int_equal(memplug_release_pages(world.pool, at, 64), -EINVAL);
    }
    assert_int_equal(memplug_huge_free(world.pool, free_pfn), -EINVAL);
    assert_int_equal(memplug_huge_free(world.pool, odd), -EINVAL);
    assert_int_equal(memplug_huge_free(world.pool, (memplug_pfn_t){0}), -ENODEV);
    assert_int_equal(memplug_huge_free(world.pool, (memplug_pfn_t){UINT64_MAX}), -ENODEV);
    assert_int_equal(memplug_pin(world.pool, free_pfn), -EINVAL);
    assert_int_equal(memplug_unpin(world.pool, free_pfn), -EINVAL);
    assert_int_equal(memplug_set_cookie(world.pool, free_pfn, 1), -EINVAL);
    must(memplug_pin(world.pool, pfn));
    assert_int_equal(memplug_huge_free(world.pool, pfn), -EBUSY);
    must(memplug_unpin(world.pool, pfn));
    world_same(&world, before, false);
    /* A page of the same size that is not of the pool. */
    must(owner_alloc_request(world.owner, &(struct memplug_alloc){.nr_pages = 64, .node = 0}, NULL,
                             &slot));
    must(owner_where(world.owner, slot, &pfn, NULL));
    assert_int_equal(memplug_huge_free(world.pool, pfn), -EINVAL);
    must(owner_free_all(world.owner));
    must(resize(&world, PMD, 0));
    world_close(&world);
}

/* --- limits ----------------------------------------------------------------------------------- */

/* It stops where it is, and what it says is so. */
static void test_resize_ends_when_it_has_to(void **state)
{
    struct memplug_reason reason;
    struct fault_limit limit;
    struct world world;

    (void)state;
    open_small(&world, MEMPLUG_ONLINE_MOVABLE);
    for (uint64_t k = 1; k <= 9; k++) {
        fault_limit_init(&limit, k % 2 ? FAULT_LIMIT_STOP : FAULT_LIMIT_DEADLINE, k, world.fault);
        assert_int_equal(memplug_huge_resize(world.pool, PMD, 10, 0, &limit.limit, &reason),
                         k % 2 ? -EINTR : -ETIMEDOUT);
        expect_info(&world, PMD, k, k, 0, 0);
        fault_limit_init(&limit, FAULT_LIMIT_STOP, k - 1, world.fault);
        assert_int_equal(memplug_huge_resize(world.pool, PMD, 0, 0, &limit.limit, &reason),
                         k == 1 ? 0 : -EINTR);
        must(resize(&world, PMD, 0));
        world_check(&world);
    }
    must(memplug_huge_resize(world.pool, PMD, 1000, MEMPLUG_ANY_NODE, NULL, &reason));
    assert_int_equal(reason.error, 0);
    assert_non_null(reason.why);
    assert_int_equal(reason.nr_pages, 1000 - NR * 4);
    expect_info(&world, PMD, NR * 4, NR * 4, 0, 0);
    must(memplug_huge_resize(world.pool, PMD, 0, MEMPLUG_ANY_NODE, NULL, &reason));
    assert_null(reason.why);
    world_close(&world);
}

/* --- pages of several blocks ------------------------------------------------------------------ */

static void test_pud_pages_span_blocks(void **state)
{
    static const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_HOST, MEMPLUG_MEMMAP_RANGE,
                                                  MEMPLUG_MEMMAP_BLOCK};
    static const unsigned nr_expected[] = {2, 1, 0}; /* a memmap in the way */

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct world world;
        unsigned slot;
        memplug_pfn_t pfn;
        char *before;

        world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .block_shift = 26,
                                                  .seed = i});
        add_online(&world, world.backing_a, A, memmaps[i], MEMPLUG_ONLINE_MOVABLE);
        before = world_text(&world, false);
        must(resize(&world, PUD, 9));
        expect_info(&world, PUD, nr_expected[i], nr_expected[i], 0, 0);
        must(resize(&world, PMD, 3)); /* the two sizes do not mind each other */
        expect_info(&world, PMD, i == 0 ? 0 : 3, i == 0 ? 0 : 3, 0, 0);
        world_check(&world);
        if (nr_expected[i] != 0) {
            must(owner_alloc_huge(world.owner, PUD, 0, false, &slot));
            must(owner_where(world.owner, slot, &pfn, NULL));
            assert_int_equal(pfn.nr % memplug_huge_pages(world.pool, PUD), 0);
            world_check(&world);
            must(owner_free(world.owner, slot));
        }
        must(resize(&world, PUD, 0));
        must(resize(&world, PMD, 0));
        world_same(&world, before, false);
        world_close(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_order_of_calls_is_linuxs),
        cmocka_unit_test(test_growth_fills_movable_first),
        cmocka_unit_test(test_without_a_mover_kernel_zones_only),
        cmocka_unit_test(test_nodes_grow_and_shrink_in_turn),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_other_calls_leave_them_alone),
        cmocka_unit_test(test_resize_ends_when_it_has_to),
        cmocka_unit_test(test_pud_pages_span_blocks),
    };

    return cmocka_run_group_tests_name("huge", tests, NULL, NULL);
}
