/* SPDX-License-Identifier: MIT */
/*
 * A pool whose memmaps are lent, with owners in lent frames: every call that may fail fails once
 * and for ever, every check of a limit strikes; what has failed has changed nothing, and lends what
 * it lent. Then random sequences of everything, with every promise checked after each step.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/poison.h>

#include "fake/sched.h"
#include "world.h"

#define A 2u
#define B 10u
#define NR WORLD_RANGE_BLOCKS
#define PMD MEMPLUG_HUGE_PMD
#define PUD MEMPLUG_HUGE_PUD

#define MEDIUM(which)                                                                              \
    {                                                                                              \
        .shape = FAKE_SMALL, .block_shift = 23, .pageblock_order = 9, .hvo = which                 \
    }
#define LARGE(which)                                                                               \
    {                                                                                              \
        .shape = FAKE_SMALL, .block_shift = 26, .hvo = which                                       \
    }

static struct world world;
static struct memplug_reason reason;

enum operation { SHRINK, GROW, OFFLINE, OFFLINE_TAIL, SOFT, HARD, NR_OPERATIONS };
enum way { ONCE, FOREVER, CANCEL, DEADLINE, NR_WAYS };

static const char *const operation_names[NR_OPERATIONS] = {"shrink", "grow", "offline",
                                                           "offline tail", "soft", "hard"};

struct setup {
    const char *name;
    struct world_config world;
    enum memplug_memmap memmap;
    enum memplug_huge size;
    unsigned nr_pool, nr_used;
    bool restores; /* the memmap is the host's: its coming back may fail */
};

static int resize(enum memplug_huge size, uint64_t nr, const struct memplug_limit *limit)
{
    return memplug_huge_resize(world.pool, size, nr, MEMPLUG_ANY_NODE, limit, &reason);
}

static struct memplug_huge_info info_of(enum memplug_huge size)
{
    struct memplug_huge_info info;

    must(memplug_huge_info(world.pool, size, MEMPLUG_ANY_NODE, &info));
    return info;
}

static uint64_t block_pages(void)
{
    return world.block_bytes >> world.geometry.page_shift;
}

/* Owners in lent frames, if there are any, and beside them. */
static void fill(void)
{
    for (unsigned i = 0; i < 20; i++)
        must(owner_alloc(world.owner, i % 5 == 0 ? 2 : 1, NULL));
}

static void prepare(const struct setup *setup)
{
    world_open(&world, &setup->world);
    must(world_add(&world, world.backing_a, A, setup->memmap, NULL, NULL));
    must(memplug_online(world.pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(world_add(&world, world.backing_b, B, setup->memmap, NULL, NULL));
    must(memplug_online(world.pool, B, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(resize(setup->size, setup->nr_pool, NULL));
    assert_true(info_of(setup->size).nr_optimized != 0);
    for (unsigned i = 0; i < setup->nr_used; i++)
        must(owner_alloc_huge(world.owner, setup->size, MEMPLUG_ANY_NODE, false, NULL));
    fill();
    world_check(&world);
}

/* The last frame of the first huge page. */
static memplug_pfn_t huge_frame(const struct setup *setup)
{
    memplug_pfn_t pfn = {0};

    must(owner_where(world.owner, 0, &pfn, NULL));
    pfn.nr += memplug_huge_pages(world.pool, setup->size) - 1;
    return pfn;
}

static int run(const struct setup *setup, enum operation operation,
               const struct memplug_limit *limit)
{
    switch (operation) {
    case SHRINK:
        return resize(setup->size, 0, limit);
    case GROW:
        return resize(setup->size, setup->nr_pool + 1, limit);
    case OFFLINE:
        return memplug_offline(world.pool, A, NR, limit, &reason);
    case OFFLINE_TAIL:
        return memplug_offline(world.pool, A + NR - 1, 1, limit, &reason);
    case SOFT:
        return memplug_soft_offline(world.pool, huge_frame(setup), limit, &reason);
    default:
        return memplug_hard_offline(world.pool, huge_frame(setup), limit, &reason);
    }
}

static struct memplug_stat stat_of(void)
{
    struct memplug_stat stat;

    memplug_stat(world.pool, &stat);
    return stat;
}

static void finish(void)
{
    must(owner_free_all(world.owner));
    must(resize(PMD, 0, NULL));
    must(resize(PUD, 0, NULL));
    assert_int_equal(info_of(PMD).nr_huge + info_of(PUD).nr_huge, 0);
    world_check(&world);
    world_close(&world);
}

/* A resize stops where it is, and goes on from there. Others leave everything as it was. */
static bool strike(const struct setup *setup, enum operation operation, enum way way, uint64_t k,
                   uint32_t *kinds)
{
    enum fault_limit_kind kind = way == CANCEL ? FAULT_LIMIT_STOP : FAULT_LIMIT_DEADLINE;
    struct fault_limit limit;
    char *before, *before_moved;
    struct memplug_stat stat;
    uint64_t nr_optimized;
    bool struck;
    int error;

    prepare(setup);
    before = world_text(&world, false);
    before_moved = world_text(&world, true);
    nr_optimized = info_of(setup->size).nr_optimized;
    stat = stat_of();
    fault_limit_init(&limit, way >= CANCEL ? kind : FAULT_LIMIT_COUNT, k, world.fault);
    fault_arm(world.fault, way >= CANCEL ? 0 : k, way == FOREVER, 0);
    error = run(setup, operation, &limit.limit);
    fault_disarm(world.fault);
    struck = way >= CANCEL ? limit.nr_checks >= k : fault_fired(world.fault) != 0;
    for (unsigned i = 0; i < FAULT_NR_KINDS; i++)
        if (fault_calls_of(world.fault, (enum fault_kind)i) != 0)
            *kinds |= 1u << i;
    if (error != 0 && operation > GROW) {
        bool moved = stat_of().nr_moved_pages != 0;

        assert_int_equal(info_of(setup->size).nr_optimized, nr_optimized);
        assert_int_equal(stat_of().nr_managed_pages, stat.nr_managed_pages);
        assert_int_equal(stat_of().host_bytes, stat.host_bytes);

        assert_true(struck && reason.error == error && reason.why != NULL);
        world_same(&world, moved ? before_moved : before, moved);
        free(moved ? before : before_moved);
    } else {
        free(before);
        free(before_moved);
    }
    world_check(&world);
    if (error != 0)
        must(run(setup, operation, NULL));
    world_check(&world);
    finish();
    return struck;
}

static void enumerate(const struct setup *setup)
{
    for (unsigned operation = 0; operation < NR_OPERATIONS; operation++) {
        uint64_t nr_runs = 0;
        uint32_t kinds = 0;

        for (unsigned way = 0; way < NR_WAYS; way++) {
            uint64_t k = 1;

            while (strike(setup, (enum operation)operation, (enum way)way, k, &kinds))
                k++;
            assert_true(k > 1 || operation <= GROW);
            nr_runs += k;
        }
        print_message("%s: %s: %" PRIu64 " runs, points 0x%x\n", setup->name,
                      operation_names[operation], nr_runs, (unsigned)kinds);
        if (setup->restores && operation == OFFLINE)
            assert_true((kinds & 1u << FAULT_RESTORE) != 0);
    }
}

static void test_faults_block(void **state)
{
    static const struct setup setup = {"block", MEDIUM(MEMPLUG_HVO_ALL), MEMPLUG_MEMMAP_BLOCK,
                                       PMD, 13, 3, false};

    (void)state;
    enumerate(&setup);
}

static void test_faults_range(void **state)
{
    static const struct setup setup = {"range", MEDIUM(MEMPLUG_HVO_ALL), MEMPLUG_MEMMAP_RANGE,
                                       PMD, 15, 2, false};

    (void)state;
    enumerate(&setup);
}

static void test_faults_host(void **state)
{
    static const struct setup setup = {"host", MEDIUM(MEMPLUG_HVO_HOST), MEMPLUG_MEMMAP_HOST, PMD,
                                       17, 2, true};

    (void)state;
    enumerate(&setup);
}

static void test_faults_several_blocks(void **state)
{
    static const struct setup range = {"several blocks, range", LARGE(MEMPLUG_HVO_ALL),
                                       MEMPLUG_MEMMAP_RANGE, PUD, 1, 1, false};
    static const struct setup host = {"several blocks, host", LARGE(MEMPLUG_HVO_ALL),
                                      MEMPLUG_MEMMAP_HOST, PUD, 2, 1, true};

    (void)state;
    enumerate(&range);
    enumerate(&host);
}

/* --- without memory for a memmap -------------------------------------------------------------- */

/* The host has no memory to restore a memmap with: refused before anything is done for good. */
static void test_no_memory_to_restore_with(void **state)
{
    static const struct setup setup = {"", MEDIUM(MEMPLUG_HVO_HOST), MEMPLUG_MEMMAP_HOST, PMD, 17,
                                       2, true};

    (void)state;
    prepare(&setup);
    fake_set_boot_budget(world.machine, 10); /* for one, and a part of the next */
    WORLD_REFUSES(&world, &reason, ENOMEM, "memmap of a huge page",
                  memplug_offline(world.pool, A, 1, NULL, &reason), false);
    must(resize(PMD, 0, NULL));
    assert_int_equal(reason.error, 0);
    assert_non_null(reason.why);
    assert_int_equal(info_of(PMD).nr_huge, 16);
    world_check(&world);
    fake_set_boot_budget(world.machine, UINT64_MAX);
    must(memplug_offline(world.pool, A, 1, NULL, &reason));
    finish();
}

/* --- x86-64 ----------------------------------------------------------------------------------- */

/* A block of 128 MiB with its own memmap has 63 pages of 2 MiB, and then 441 of the memmap's 512
 * frames are memory. */
static void test_x86(void **state)
{
    struct world_config config = {.shape = FAKE_X86, .hvo = MEMPLUG_HVO_ALL, .seed = 9};
    struct memplug_block_info info;

    (void)state;
    world_open(&world, &config);
    must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
    must(memplug_online(world.pool, A, 2, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(resize(PMD, 63, NULL)); /* all of the first block */
    must(memplug_block_info(world.pool, A, &info));
    assert_int_equal(info.nr_managed_pages, 32256 + 63 * 7);
    assert_int_equal(info.nr_free_pages, 63 * 7);
    for (unsigned i = 0; i < 5; i++)
        must(owner_alloc_huge(world.owner, PMD, MEMPLUG_ANY_NODE, false, NULL));
    fill();
    world_check(&world);
    must(memplug_offline(world.pool, A, 1, NULL, &reason));
    world_check(&world);
    assert_int_equal(info_of(PMD).nr_huge, 5);
    assert_int_equal(info_of(PMD).nr_optimized, 5);
    finish();
}

/* --- random sequences ------------------------------------------------------------------------- */

#define NR_PINS 8u

struct play {
    uint64_t random;
    memplug_pfn_t pins[NR_PINS];
    unsigned slots[NR_PINS], nr_pins;
    bool used[64];
    unsigned nr_lent_used;
};

static void toggle(struct play *play, uint64_t id, uint64_t nr_blocks)
{
    struct memplug_limit limit = {.tries = 1};
    struct memplug_block_info info;
    int error;

    must(memplug_block_info(world.pool, id, &info));
    if (info.state == MEMPLUG_BLOCK_OFFLINE) {
        error = memplug_online(world.pool, id, nr_blocks,
                               fake_random(&play->random) % 5 == 0 ? MEMPLUG_ONLINE_KERNEL
                                                                   : MEMPLUG_ONLINE_MOVABLE,
                               NULL, &reason);
        assert_true(error == 0 || nr_blocks > 1 || error == -EHWPOISON);
        return;
    }
    {
        char *before = world_text(&world, true);

        error = memplug_offline(world.pool, id, nr_blocks, &limit, &reason);
        assert_true(error == 0 || error == -EBUSY || error == -ENOMEM || nr_blocks > 1);
        if (error != 0)
            world_same(&world, before, true);
        else
            free(before);
    }
}

static void pin(struct play *play, unsigned slot)
{
    memplug_pfn_t pfn;

    if (play->nr_pins == NR_PINS || owner_where(world.owner, slot, &pfn, NULL) != 0)
        return;
    must(memplug_pin(world.pool, pfn));
    play->pins[play->nr_pins++] = pfn;
}

static void unpin_all(struct play *play)
{
    while (play->nr_pins != 0)
        must(memplug_unpin(world.pool, play->pins[--play->nr_pins]));
}

/* One act; nothing that is pinned is freed. */
static void act(struct play *play)
{
    uint64_t choice = fake_random(&play->random);
    unsigned slot = (unsigned)((choice >> 32) % 64);
    int error;

    switch (choice % 12) {
    case 0:
    case 1:
        must(resize(PMD, (choice >> 8) % 14, NULL));
        break;
    case 2:
    case 3:
        error = owner_alloc_huge(world.owner, PMD, MEMPLUG_ANY_NODE, false, NULL);
        assert_true(error == 0 || error == -ENOMEM);
        break;
    case 4:
    case 5:
        unpin_all(play);
        error = owner_free(world.owner, slot);
        assert_true(error == 0 || error == -ENOENT);
        break;
    case 6:
        pin(play, slot);
        break;
    case 7:
        toggle(play, A + (choice >> 8) % NR, 1);
        break;
    case 8:
        toggle(play, choice >> 9 & 1 ? A : A + 1, 2);
        break;
    case 9:
        error = memplug_soft_offline(
            world.pool, (memplug_pfn_t){(A + (choice >> 8) % NR) * block_pages() + 700}, NULL,
            &reason);
        assert_true(error == 0 || error == -EIO || error == -EBUSY || error == -ENOMEM);
        break;
    default:
        error = owner_alloc(world.owner, 1u << (choice >> 8) % 4, NULL);
        assert_true(error == 0 || error == -ENOMEM || error == -ENOSPC);
    }
}

static void test_random_sequences(void **state)
{
    static const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_BLOCK, MEMPLUG_MEMMAP_RANGE,
                                                  MEMPLUG_MEMMAP_HOST};
    unsigned first = world_setting("MEMPLUG_SIM_FIRST", 1);
    unsigned nr_seeds = world_setting("MEMPLUG_SIM_SEEDS", 24);
    uint64_t nr_moved = 0, nr_lent = 0;

    (void)state;
    for (unsigned seed = first; seed < first + nr_seeds; seed++) {
        struct world_config config = MEDIUM(MEMPLUG_HVO_ALL);
        struct play play = {.random = seed};

        config.seed = seed;
        if (seed % 5 == 0)
            config.large_shift = 15; /* not used where memmaps may be lent */
        if (seed % 7 == 0)
            config.page_struct_bytes = 72; /* 9 pages for a huge page */
        world_open(&world, &config);
        must(world_add(&world, world.backing_a, A, memmaps[seed % 3], NULL, NULL));
        must(world_add(&world, world.backing_b, B, memmaps[seed / 3 % 3], NULL, NULL));
        must(memplug_online(world.pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        must(memplug_online(world.pool, B, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        for (unsigned step = 0; step < 120; step++) {
            act(&play);
            world_check(&world);
            nr_lent += info_of(PMD).nr_lent_pages;
        }
        unpin_all(&play);
        nr_moved += stat_of().nr_moved_pages;
        finish();
    }
    print_message("%u seeds, %" PRIu64 " pages moved, %" PRIu64 " lent on average\n", nr_seeds,
                  nr_moved, nr_lent / nr_seeds / 120);
    assert_true(nr_moved != 0 && nr_lent != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory_to_restore_with),
        cmocka_unit_test(test_x86),
        cmocka_unit_test(test_random_sequences),
        cmocka_unit_test(test_faults_block),
        cmocka_unit_test(test_faults_range),
        cmocka_unit_test(test_faults_host),
        cmocka_unit_test(test_faults_several_blocks),
    };

    return cmocka_run_group_tests_name("hvo faults", tests, NULL, NULL);
}
