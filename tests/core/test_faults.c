/* SPDX-License-Identifier: MIT */
/*
 * Every call that may fail, of every operation, fails once and for ever; every check of a limit
 * cancels it and ends its time. Afterwards the whole state is what it was, byte for byte, but that
 * offline may have moved pages. The points reached are printed; one that never was is a failure.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/policy.h>

#include "world.h"

enum operation {
    ADD,
    ONLINE,
    ONLINE_KERNEL,
    ONLINE_MOVABLE,
    OFFLINE_EMPTY,
    OFFLINE_KERNEL,
    OFFLINE_USED,
    OFFLINE_REMOVE, /* of blocks in several zones, one of them offline */
    REMOVE,
    ONLINE_RUNS, /* of blocks that are no neighbours, as those below */
    OFFLINE_RUNS,
    OFFLINE_REMOVE_RUNS,
    NR_OPERATIONS
};

static const char *const operation_names[NR_OPERATIONS] = {
    "add", "online", "online_kernel", "online_movable",
    "offline empty", "offline kernel", "offline used",
    "offline and remove", "remove",
    "online runs", "offline runs", "offline and remove runs",
};

enum way { ONCE, FOREVER, CANCEL, DEADLINE, NR_WAYS };

/* A and B lie apart: A is what the operation works on, B is where pages go. */
#define A 2u
#define B 10u
#define NR WORLD_RANGE_BLOCKS

struct setup {
    const char *name;
    struct world_config world;
    enum memplug_memmap memmap;
    uint32_t add_kinds; /* points that add has to reach */
};

#define KIND(kind) (1u << (kind))
#define SELF (KIND(FAULT_LOCK) | KIND(FAULT_ATTACH) | KIND(FAULT_ALIAS))
#define HOST (KIND(FAULT_LOCK) | KIND(FAULT_ATTACH) | KIND(FAULT_PROVIDE) | KIND(FAULT_MEMORY_GET))

static uint32_t kinds_to_reach(const struct setup *setup, enum operation operation)
{
    switch (operation) {
    case ADD:
        return setup->add_kinds;
    case REMOVE:
        return KIND(FAULT_LOCK);
    case OFFLINE_USED:
    case OFFLINE_REMOVE:
    case OFFLINE_RUNS:
    case OFFLINE_REMOVE_RUNS:
        return KIND(FAULT_LOCK) | KIND(FAULT_GOING) | KIND(FAULT_MOVE);
    default:
        return KIND(FAULT_LOCK) | KIND(FAULT_GOING);
    }
}

static bool is_going(enum operation operation)
{
    return operation >= OFFLINE_EMPTY && operation != REMOVE && operation != ONLINE_RUNS;
}

static void prepare(struct world *world, const struct setup *setup, enum operation operation)
{
    enum memplug_online_type type =
        operation == OFFLINE_KERNEL ? MEMPLUG_ONLINE_KERNEL : MEMPLUG_ONLINE_MOVABLE;

    const struct memplug_policy force = {.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_FORCE};

    world_open(world, &setup->world);
    must(memplug_policy_set(world->pool, &force, MEMPLUG_POLICY_MEMMAP_ON_MEMORY)); /* for auto */
    must(world_add(world, world->backing_b, B, setup->memmap, NULL, NULL));
    must(memplug_online(world->pool, B, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    world_fill(world, B, NR, 10);
    if (operation == ADD)
        return;
    must(world_add(world, world->backing_a, A, setup->memmap, NULL, NULL));
    if (!is_going(operation))
        return;
    if (operation == OFFLINE_REMOVE) {
        must(memplug_online(world->pool, A, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        must(memplug_online(world->pool, A + 1, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
        must(memplug_online(world->pool, A + 3, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        world_fill(world, A, 1, 50);
        world_fill(world, A + 3, 1, 50);
        return;
    }
    must(memplug_online(world->pool, A, NR, type, NULL, NULL));
    if (operation == OFFLINE_USED || operation >= OFFLINE_RUNS)
        world_fill(world, A, NR, 50);
}

/* A page of the block between them may be moved to, and is not to be touched else. A range that was
 * added as one goes as one. */
static int run_runs(struct world *world, const struct setup *setup, enum operation operation,
                    const struct memplug_limit *limit, struct memplug_reason *reason)
{
    static const struct memplug_blocks apart[] = {{A, 1}, {A + 2, 2}}, whole[] = {{A, NR}};
    bool one = operation == OFFLINE_REMOVE_RUNS && setup->memmap == MEMPLUG_MEMMAP_RANGE;
    const struct memplug_blocks *runs = one ? whole : apart;
    unsigned nr_runs = one ? 1 : 2;

    if (operation == ONLINE_RUNS)
        return memplug_online_blocks(world->pool, runs, nr_runs, MEMPLUG_ONLINE_MOVABLE, limit,
                                     reason);
    if (operation == OFFLINE_RUNS)
        return memplug_offline_blocks(world->pool, runs, nr_runs, limit, reason);
    return memplug_remove_blocks(world->pool, runs, nr_runs, true, limit, reason);
}

static int run(struct world *world, const struct setup *setup, enum operation operation,
               const struct memplug_limit *limit, struct memplug_reason *reason)
{
    if (operation >= ONLINE_RUNS)
        return run_runs(world, setup, operation, limit, reason);
    switch (operation) {
    case ADD:
        return world_add(world, world->backing_a, A, setup->memmap, limit, reason);
    case ONLINE:
        return memplug_online(world->pool, A, NR, MEMPLUG_ONLINE_DEFAULT, limit, reason);
    case ONLINE_KERNEL:
        return memplug_online(world->pool, A, NR, MEMPLUG_ONLINE_KERNEL, limit, reason);
    case ONLINE_MOVABLE:
        return memplug_online(world->pool, A, NR, MEMPLUG_ONLINE_MOVABLE, limit, reason);
    case OFFLINE_REMOVE:
        return memplug_offline_and_remove(world->pool, A * world->block_bytes,
                                          NR * world->block_bytes, limit, reason);
    case REMOVE:
        return memplug_remove(world->pool, A * world->block_bytes, NR * world->block_bytes, limit,
                              reason);
    default:
        return memplug_offline(world->pool, A, NR, limit, reason);
    }
}

/* What a failure leaves: the same text, and a reason that names the operation and the step. */
static void compare(struct world *world, const char *before, const char *before_moved,
                    bool moved, const char *title)
{
    char *after = world_text(world, moved);

    if (strcmp(moved ? before_moved : before, after) != 0) {
        print_message("%s\n--- before\n%s--- after\n%s", title, moved ? before_moved : before,
                      after);
        fail_msg("%s: the state is not what it was", title);
    }
    free(after);
    world_check(world);
}

static uint64_t moved_pages(struct world *world)
{
    struct memplug_stat stat;

    memplug_stat(world->pool, &stat);
    return stat.nr_moved_pages;
}

static uint64_t free_pages(struct world *world)
{
    struct memplug_stat stat;

    memplug_stat(world->pool, &stat);
    return stat.nr_free_pages;
}

/* One run with the k-th point or check struck. Returns false if there was no such point. */
static bool strike(const struct setup *setup, enum operation operation, enum way way, uint64_t k)
{
    enum fault_limit_kind kind = way == CANCEL ? FAULT_LIMIT_STOP : FAULT_LIMIT_DEADLINE;
    struct memplug_reason reason;
    struct fault_limit limit;
    struct world world;
    char *before, *before_moved, title[128];
    uint64_t nr_moved, nr_free;
    bool struck;
    int error;

    prepare(&world, setup, operation);
    before = world_text(&world, false);
    before_moved = world_text(&world, true);
    nr_moved = moved_pages(&world);
    nr_free = free_pages(&world);
    fault_limit_init(&limit, way >= CANCEL ? kind : FAULT_LIMIT_COUNT, k, world.fault);
    fault_arm(world.fault, way >= CANCEL ? 0 : k, way == FOREVER, 0);
    error = run(&world, setup, operation, &limit.limit, &reason);
    fault_disarm(world.fault);
    struck = way >= CANCEL ? limit.nr_checks >= k : fault_fired(world.fault) != 0;
    snprintf(title, sizeof(title), "%s: %s, way %d, point %llu, error %d", setup->name,
             operation_names[operation], way, (unsigned long long)k, error);
    if (error != 0) {
        bool moved = moved_pages(&world) != nr_moved;

        assert_true(struck);
        assert_true(!moved || is_going(operation));
        assert_true(reason.error == error && reason.operation != NULL && reason.why != NULL);
        compare(&world, before, before_moved, moved, title);
        assert_int_equal(free_pages(&world), nr_free);
        /* The way is free again: nothing that was claimed is left claimed. */
        must(run(&world, setup, operation, NULL, NULL));
    } else if (struck) {
        /* A page that did not move is tried again. */
        assert_true(is_going(operation));
    }
    world_check(&world);
    free(before);
    free(before_moved);
    world_close(&world);
    return struck;
}

static void note(void *context, const char *text, size_t length)
{
    (void)context;
    print_message("%.*s", (int)length, text);
}

/* Which points there are, without a fault. */
static void survey(const struct setup *setup, enum operation operation)
{
    uint32_t reached = 0, needed = kinds_to_reach(setup, operation);
    struct world world;
    char title[64];

    prepare(&world, setup, operation);
    fault_arm(world.fault, 0, false, 0);
    must(run(&world, setup, operation, NULL, NULL));
    snprintf(title, sizeof(title), "%s: %s", setup->name, operation_names[operation]);
    fault_report(world.fault, title, note, NULL);
    for (unsigned kind = 0; kind < FAULT_NR_KINDS; kind++)
        if (fault_calls_of(world.fault, (enum fault_kind)kind) != 0)
            reached |= KIND(kind);
    if ((reached & needed) != needed)
        fail_msg("%s: points 0x%x were not reached", title, (unsigned)(needed & ~reached));
    fault_disarm(world.fault);
    world_check(&world);
    world_close(&world);
}

static void enumerate(const struct setup *setup)
{
    uint64_t nr_runs = 0;

    /* Which blocks an operation leaves out is not a question of their size. */
    unsigned nr_operations = setup->world.shape == FAKE_SMALL ? NR_OPERATIONS : ONLINE_RUNS;

    for (unsigned operation = 0; operation < nr_operations; operation++) {
        survey(setup, (enum operation)operation);
        for (unsigned way = 0; way < NR_WAYS; way++) {
            uint64_t k = 1;

            while (strike(setup, (enum operation)operation, (enum way)way, k))
                k++;
            assert_true(k > 1);
            nr_runs += k;
        }
    }
    print_message("%s: %llu runs\n", setup->name, (unsigned long long)nr_runs);
}

static void test_faults_small_block(void **state)
{
    static const struct setup setup = {
        .name = "4 KiB pages, block",
        .world = {.shape = FAKE_SMALL, .seed = 1},
        .memmap = MEMPLUG_MEMMAP_BLOCK,
        .add_kinds = SELF,
    };

    (void)state;
    enumerate(&setup);
}

static void test_faults_small_auto(void **state)
{
    static const struct setup setup = {
        .name = "4 KiB pages, auto, stale content, attached one by one",
        .world = {.shape = FAKE_SMALL, .content = FAKE_CONTENT_KEEP, .seed = 2,
                  .refuses_rows = true},
        .memmap = MEMPLUG_MEMMAP_AUTO,
        .add_kinds = SELF,
    };

    (void)state;
    enumerate(&setup);
}

static void test_faults_small_range(void **state)
{
    static const struct setup setup = {
        .name = "4 KiB pages, range",
        .world = {.shape = FAKE_SMALL, .content = FAKE_CONTENT_BYTE, .seed = 3},
        .memmap = MEMPLUG_MEMMAP_RANGE,
        .add_kinds = SELF,
    };

    (void)state;
    enumerate(&setup);
}

static void test_faults_small_host(void **state)
{
    static const struct setup setup = {
        .name = "4 KiB pages, host",
        .world = {.shape = FAKE_SMALL, .seed = 4},
        .memmap = MEMPLUG_MEMMAP_HOST,
        .add_kinds = HOST,
    };

    (void)state;
    enumerate(&setup);
}

static void test_faults_x86_block(void **state)
{
    static const struct setup setup = {
        .name = "128 MiB blocks, block",
        .world = {.shape = FAKE_X86, .content = FAKE_CONTENT_KEEP, .seed = 5},
        .memmap = MEMPLUG_MEMMAP_BLOCK,
        .add_kinds = SELF,
    };

    (void)state;
    enumerate(&setup);
}

/* 40 bytes a page: the bitmaps do not fit into the memmap's own entries. */
static void test_faults_x86_odd_struct_page(void **state)
{
    static const struct setup setup = {
        .name = "128 MiB blocks, 40-byte struct page",
        .world = {.shape = FAKE_X86,
                  .page_struct_bytes = 40,
                  .content = FAKE_CONTENT_ZERO,
                  .seed = 6},
        .memmap = MEMPLUG_MEMMAP_BLOCK,
        .add_kinds = SELF,
    };

    (void)state;
    enumerate(&setup);
}

static void test_faults_64k_range(void **state)
{
    static const struct setup setup = {
        .name = "64 KiB pages, range",
        .world = {.shape = FAKE_64K, .seed = 7},
        .memmap = MEMPLUG_MEMMAP_RANGE,
        .add_kinds = SELF,
    };

    (void)state;
    enumerate(&setup);
}

static void test_faults_16k_host(void **state)
{
    static const struct setup setup = {
        .name = "16 KiB pages, host",
        .world = {.shape = FAKE_16K, .seed = 8},
        .memmap = MEMPLUG_MEMMAP_HOST,
        .add_kinds = HOST,
    };

    (void)state;
    enumerate(&setup);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults_small_block), cmocka_unit_test(test_faults_small_auto),
        cmocka_unit_test(test_faults_small_range), cmocka_unit_test(test_faults_small_host),
        cmocka_unit_test(test_faults_x86_block), cmocka_unit_test(test_faults_64k_range),
        cmocka_unit_test(test_faults_16k_host),  cmocka_unit_test(test_faults_x86_odd_struct_page),
    };

    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
