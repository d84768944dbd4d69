/* SPDX-License-Identifier: MIT */
/*
 * Adds and removes whose memmaps share large units of the window with neighbours that are there,
 * and with each other: every call that may fail fails once and for ever, every check of a limit
 * cancels and ends the time. Afterwards the whole state is what it was, byte for byte, and the
 * struct pages of the neighbours hold what they held.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

enum way { ONCE, FOREVER, CANCEL, DEADLINE, NR_WAYS };

/* Blocks that come together, those of them that go again, and the request that is made to fail. */
struct setup {
    const char *name;
    struct world_config world;
    uint64_t first, nr_blocks;
    uint64_t gone_first, gone_nr_blocks;
    uint64_t add_first, add_nr_blocks;
    enum memplug_memmap memmap;
    bool provides;         /* it needs memory of the host's for its memmap: */
    uint64_t provided_mib; /* so much */
};

static int plug(struct world *world, struct fake_backing *backing, uint64_t first,
                uint64_t nr_blocks, enum memplug_memmap memmap, const struct memplug_limit *limit,
                struct memplug_reason *reason)
{
    struct memplug_add add = {
        .address = first * world->block_bytes,
        .size_bytes = nr_blocks * world->block_bytes,
        .memmap = memmap,
        .pad_memmap = memmap == MEMPLUG_MEMMAP_AUTO, /* so that it would be BLOCK elsewhere */
        .backing = backing,
    };

    return memplug_add(world->pool, &add, limit, reason);
}

static int pull(struct world *world, uint64_t first, uint64_t nr_blocks,
                const struct memplug_limit *limit, struct memplug_reason *reason)
{
    return memplug_remove(world->pool, first * world->block_bytes, nr_blocks * world->block_bytes,
                          limit, reason);
}

/* The first and the last word of each block's struct pages. */
static uint64_t *word_of(const struct world *world, uint64_t block, bool last)
{
    uint64_t bytes = (world->block_bytes >> world->geometry.page_shift) *
                     world->geometry.page_struct_bytes;

    return (uint64_t *)(void *)(fake_host(world->machine)->memmap + block * bytes +
                                (last ? bytes - 8 : 0));
}

static bool is_left(const struct setup *setup, uint64_t block)
{
    return block >= setup->first && block < setup->first + setup->nr_blocks &&
           (block < setup->gone_first || block >= setup->gone_first + setup->gone_nr_blocks);
}

static void mark(const struct world *world, const struct setup *setup)
{
    for (uint64_t id = setup->first; id < setup->first + setup->nr_blocks; id++) {
        if (!is_left(setup, id))
            continue;
        *word_of(world, id, false) = id * 3;
        *word_of(world, id, true) = id * 5;
    }
}

static void check_marks(const struct world *world, const struct setup *setup)
{
    for (uint64_t id = setup->first; id < setup->first + setup->nr_blocks; id++) {
        if (!is_left(setup, id))
            continue;
        assert_int_equal(*word_of(world, id, false), id * 3);
        assert_int_equal(*word_of(world, id, true), id * 5);
    }
}

static void prepare(struct world *world, const struct setup *setup, bool removes)
{
    world_open(world, &setup->world);
    must(plug(world, world->backing_b, setup->first, setup->nr_blocks, MEMPLUG_MEMMAP_HOST, NULL,
              NULL));
    if (setup->gone_nr_blocks != 0)
        must(pull(world, setup->gone_first, setup->gone_nr_blocks, NULL, NULL));
    if (removes)
        must(plug(world, world->backing_a, setup->add_first, setup->add_nr_blocks, setup->memmap,
                  NULL, NULL));
    mark(world, setup);
}

static int request(struct world *world, const struct setup *setup, bool removes,
                   const struct memplug_limit *limit, struct memplug_reason *reason)
{
    if (removes)
        return pull(world, setup->add_first, setup->add_nr_blocks, limit, reason);
    return plug(world, world->backing_a, setup->add_first, setup->add_nr_blocks, setup->memmap,
                limit, reason);
}

/* The k-th point fails, or the k-th check of the limit strikes; false if there was none. */
static bool strike(const struct setup *setup, bool removes, enum way way, uint64_t k)
{
    enum fault_limit_kind kind = way == CANCEL ? FAULT_LIMIT_STOP : FAULT_LIMIT_DEADLINE;
    struct memplug_reason reason;
    struct fault_limit limit;
    struct world world;
    bool struck;
    char *before;
    int error;

    prepare(&world, setup, removes);
    before = world_text(&world, false);
    fault_limit_init(&limit, way >= CANCEL ? kind : FAULT_LIMIT_COUNT, k, world.fault);
    fault_arm(world.fault, way >= CANCEL ? 0 : k, way == FOREVER, 0);
    error = request(&world, setup, removes, &limit.limit, &reason);
    fault_disarm(world.fault);
    struck = way >= CANCEL ? limit.nr_checks >= k : fault_fired(world.fault) != 0;
    if ((error != 0) != struck)
        fail_msg("%s, way %d, point %llu: error %d", setup->name, way, (unsigned long long)k,
                 error);
    check_marks(&world, setup);
    if (error != 0) {
        assert_true(reason.error == error && reason.step != NULL && reason.why != NULL);
        world_same(&world, before, false);
        must(request(&world, setup, removes, NULL, NULL));
    } else {
        free(before);
    }
    check_marks(&world, setup);
    world_check(&world);
    world_close(&world);
    return struck;
}

/* What the request takes of the host, and that it takes it: a setup that shares nothing would
 * prove nothing. */
static void survey(const struct setup *setup)
{
    struct world world;
    struct fake_stat before, after;
    char *text;

    prepare(&world, setup, false);
    text = world_text(&world, false);
    assert_non_null(strstr(text, " shares_"));
    fake_stat(world.machine, &before);
    fault_arm(world.fault, 0, false, 0);
    must(request(&world, setup, false, NULL, NULL));
    assert_true((fault_calls_of(world.fault, FAULT_PROVIDE) != 0) == setup->provides);
    fault_disarm(world.fault);
    fake_stat(world.machine, &after);
    assert_int_equal((after.provided_bytes - before.provided_bytes) >> 20, setup->provided_mib);
    must(pull(&world, setup->add_first, setup->add_nr_blocks, NULL, NULL));
    world_same(&world, text, false);
    world_close(&world);
}

static void enumerate(const struct setup *setup)
{
    uint64_t nr_runs = 0;

    survey(setup);
    for (unsigned removes = 0; removes < 2; removes++)
        for (unsigned way = 0; way < NR_WAYS; way++) {
            uint64_t k = 1;

            while (strike(setup, removes != 0, (enum way)way, k))
                k++;
            assert_true(k > 1);
            nr_runs += k;
        }
    print_message("%s: %llu runs\n", setup->name, (unsigned long long)nr_runs);
}

/* Memmaps of 3.5 units: 2 and 3 meet in one, as do 4 and 5. Of 2 to 5, 3 and 4 have gone; they
 * come back and join one each: 7 MiB less the two halves. */
static void test_two_that_join_both_neighbours(void **state)
{
    static const struct setup setup = {
        .name = "256 MiB blocks, 56 bytes, both join",
        .world = {.shape = FAKE_S390X, .page_struct_bytes = 56, .seed = 1},
        .first = 2, .nr_blocks = 4,
        .gone_first = 3, .gone_nr_blocks = 2,
        .add_first = 3, .add_nr_blocks = 2,
        .memmap = MEMPLUG_MEMMAP_HOST,
        .provides = true, .provided_mib = 6,
    };

    (void)state;
    enumerate(&setup);
}

/* Memmaps of 4.5 units. Of 2 and 3, 3 has gone. It comes back with 4 and 5: joins 2, and has one
 * unit less; 4 and 5 share a new one. */
static void test_the_first_joins_and_the_others_share(void **state)
{
    static const struct setup setup = {
        .name = "256 MiB blocks, 72 bytes, join and share",
        .world = {.shape = FAKE_S390X, .page_struct_bytes = 72, .seed = 2},
        .first = 2, .nr_blocks = 2,
        .gone_first = 3, .gone_nr_blocks = 1,
        .add_first = 3, .add_nr_blocks = 3,
        .memmap = MEMPLUG_MEMMAP_HOST,
        .provides = true, .provided_mib = 13,
    };

    (void)state;
    enumerate(&setup);
}

/* The hint falls back and joins, with nothing new for the block's half of the unit. */
static void test_a_hint_that_joins(void **state)
{
    static const struct setup setup = {
        .name = "256 MiB blocks, 56 bytes, a hint",
        .world = {.shape = FAKE_S390X, .page_struct_bytes = 56, .content = FAKE_CONTENT_KEEP,
                  .seed = 3},
        .first = 2, .nr_blocks = 2,
        .gone_first = 2, .gone_nr_blocks = 1,
        .add_first = 2, .add_nr_blocks = 1,
        .memmap = MEMPLUG_MEMMAP_AUTO,
        .provides = true, .provided_mib = 3,
    };

    (void)state;
    enumerate(&setup);
}

/* A range with its memmap at its own head beside sharers: 1.75 units a block on x86; what lies in
 * the unit of blocks 8 and 9 is theirs, and 10 begins in base pages. */
static void test_a_range_of_its_own_beside_sharers(void **state)
{
    static const struct setup setup = {
        .name = "128 MiB blocks, 56 bytes, a range beside",
        .world = {.shape = FAKE_X86, .page_struct_bytes = 56, .seed = 4},
        .first = 8, .nr_blocks = 2,
        .add_first = 10, .add_nr_blocks = 4,
        .memmap = MEMPLUG_MEMMAP_RANGE,
    };

    (void)state;
    enumerate(&setup);
}

/* 16 KiB pages, blocks of 256 pages with memmaps of 16 KiB: with units of 64 KiB four blocks lie in
 * one. Of 4 to 7 the middle ones have gone; they come back and need nothing at all. */
static void test_blocks_inside_a_unit(void **state)
{
    static const struct setup setup = {
        .name = "16 KiB pages, inside a unit",
        .world = {.shape = FAKE_16K, .large_shift = 16, .seed = 5},
        .first = 4, .nr_blocks = 4,
        .gone_first = 5, .gone_nr_blocks = 2,
        .add_first = 5, .add_nr_blocks = 2,
        .memmap = MEMPLUG_MEMMAP_HOST,
    };

    (void)state;
    enumerate(&setup);
}

/* The same unit, all four at once beside a unit that is held: the first provides, three join. */
static void test_blocks_that_fill_a_unit(void **state)
{
    static const struct setup setup = {
        .name = "16 KiB pages, fill a unit",
        .world = {.shape = FAKE_16K, .large_shift = 16, .content = FAKE_CONTENT_ZERO, .seed = 6},
        .first = 4, .nr_blocks = 4,
        .add_first = 8, .add_nr_blocks = 4,
        .memmap = MEMPLUG_MEMMAP_HOST,
        .provides = true, /* one unit of 64 KiB */
    };

    (void)state;
    enumerate(&setup);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_that_join_both_neighbours),
        cmocka_unit_test(test_the_first_joins_and_the_others_share),
        cmocka_unit_test(test_a_hint_that_joins),
        cmocka_unit_test(test_a_range_of_its_own_beside_sharers),
        cmocka_unit_test(test_blocks_inside_a_unit),
        cmocka_unit_test(test_blocks_that_fill_a_unit),
    };

    return cmocka_run_group_tests_name("faults memmap", tests, NULL, NULL);
}
