/* SPDX-License-Identifier: MIT */
/*
 * Huge pages under storm: two allocate, promise, write, verify and free them, one resizes the pool
 * and takes blocks off and on. What was promised can be had at any moment, no content is lost, and
 * the pool counts right at the end. In fibres for many seeds, with the core that switches at its
 * branches; and in threads. MEMPLUG_SIM_SEEDS, MEMPLUG_SIM_FIRST, MEMPLUG_STRESS_SECONDS.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "fake/sched.h"
#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u  /* Movable, comes and goes */
#define B 12u /* stays: one block Normal, the others Movable */
#define NR_WORKERS 2u
#define NR_RAW 3u
#define PMD MEMPLUG_HUGE_PMD

static struct run {
    struct world world;
    struct owner *owners[NR_WORKERS], *pinners[NR_WORKERS];
    atomic_uint nr_running, stop, nr_errors;
    _Atomic uint64_t nr_offline, nr_busy, nr_promised, nr_taken, nr_optimized;
    bool threads, is_open;
} run;

static void expect(bool holds, const char *what, int error)
{
    if (!holds && atomic_fetch_add(&run.nr_errors, 1) < 10)
        fprintf(stderr, "%s: %d\n", what, error);
}

/* --- who uses them ---------------------------------------------------------------------------- */

static void promise(struct owner *owner, uint64_t *random)
{
    struct memplug *pool = run.world.pool;
    uint64_t nr = 1 + fake_random(random) % 2;
    int error = memplug_huge_reserve(pool, PMD, nr);

    expect(error == 0 || error == -ENOMEM, "reserve", error);
    if (error != 0)
        return;
    fake_sched_point();
    atomic_fetch_add(&run.nr_promised, 1);
    if (fake_random(random) % 4 != 0) {
        error = owner_alloc_huge(owner, PMD, MEMPLUG_ANY_NODE, true, NULL);
        expect(error == 0 || error == -ENOSPC, "a promise was broken", error);
        nr -= error == 0;
        fake_sched_point();
    }
    error = memplug_huge_unreserve(pool, PMD, nr);
    expect(error == 0, "unreserve", error);
}

/* Huge pages without a mover, pinned ones, and small ones between them. */
static void odd(memplug_pfn_t raw[NR_RAW], bool used[NR_RAW], uint64_t *random)
{
    struct memplug *pool = run.world.pool;
    unsigned i = (unsigned)(fake_random(random) % NR_RAW);
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};
    int error;

    if (used[i]) {
        error = memplug_huge_free(pool, raw[i]);
        expect(error == 0, "free raw", error);
        used[i] = false;
        return;
    }
    error = memplug_huge_alloc(pool, PMD, &request, false, &raw[i]);
    expect(error == 0 || error == -ENOMEM, "alloc raw", error);
    used[i] = error == 0;
}

/* One page that is pinned for a while, often in what a huge page has lent: it fills up first. */
static void pin(struct owner *pinner, bool *holds)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE, .pinned = true};
    memplug_pfn_t pfn;
    int error;

    if (*holds) {
        expect(owner_where(pinner, 0, &pfn, NULL) == 0, "where is the pinned", 0);
        error = memplug_unpin(run.world.pool, pfn);
        expect(error == 0, "unpin", error);
        fake_sched_point();
        error = owner_free(pinner, 0);
        expect(error == 0, "free pinned", error);
        *holds = false;
        return;
    }
    error = owner_alloc_request(pinner, &request, NULL, NULL);
    expect(error == 0 || error == -ENOMEM, "alloc pinned", error);
    *holds = error == 0;
}

static void work(unsigned number, uint64_t seed)
{
    struct owner *owner = run.owners[number];
    uint64_t random = seed * NR_WORKERS + number;
    memplug_pfn_t raw[NR_RAW];
    bool used[NR_RAW] = {false}, pinned = false;

    for (unsigned step = 0; run.threads ? !atomic_load(&run.stop) : step < 150; step++) {
        uint64_t choice = fake_random(&random);
        unsigned slot = (unsigned)((choice >> 16) % 12);
        int error;

        if (choice % 8 < 2) {
            error = owner_alloc_huge(owner, PMD, MEMPLUG_ANY_NODE, false, NULL);
            expect(error == 0 || error == -ENOMEM || error == -ENOSPC, "alloc", error);
            atomic_fetch_add(&run.nr_taken, error == 0);
        } else if (choice % 8 < 4) {
            error = owner_free(owner, slot);
            expect(error == 0 || error == -ENOENT, "free", error);
        } else if (choice % 8 < 5) {
            promise(owner, &random);
        } else if (choice % 64 == 7) {
            odd(raw, used, &random);
        } else if (choice % 16 == 15) {
            pin(run.pinners[number], &pinned);
        } else {
            error = owner_step(owner, &random, 2);
            expect(error == 0 || error == -ENOMEM || error == -ENOSPC, "step", error);
        }
    }
    if (pinned)
        pin(run.pinners[number], &pinned);
    for (unsigned i = 0; i < NR_RAW; i++)
        if (used[i])
            expect(memplug_huge_free(run.world.pool, raw[i]) == 0, "last", (int)i);
    atomic_fetch_sub(&run.nr_running, 1);
}

/* --- who takes the memory away ---------------------------------------------------------------- */

static void toggle(uint64_t id, uint64_t nr_blocks)
{
    struct memplug_limit limit = {.tries = 2};
    struct memplug_block_info info;
    int error = memplug_block_info(run.world.pool, id, &info);

    expect(error == 0, "info", error);
    if (info.state == MEMPLUG_BLOCK_OFFLINE) {
        error = memplug_online(run.world.pool, id, nr_blocks, MEMPLUG_ONLINE_MOVABLE, NULL, NULL);
        expect(error == 0 || (nr_blocks > 1 && error == -EINVAL), "online", error);
        return;
    }
    error = memplug_offline(run.world.pool, id, nr_blocks, &limit, NULL);
    expect(error == 0 || error == -EBUSY || error == -ENOMEM ||
               (nr_blocks > 1 && error == -EINVAL), "offline", error);
    atomic_fetch_add(error == 0 ? &run.nr_offline : &run.nr_busy, 1);
}

static void operate(uint64_t seed)
{
    uint64_t random = seed;

    while (atomic_load(&run.nr_running) != 0) {
        uint64_t choice = fake_random(&random);
        int error;

        if (choice % 4 == 0) {
            error = memplug_huge_resize(run.world.pool, PMD, (choice >> 8) % 20, MEMPLUG_ANY_NODE,
                                        NULL, NULL);
            expect(error == 0, "resize", error);
        } else if (choice % 4 == 1) {
            toggle(A, NR);
        } else {
            toggle(A + (choice >> 8) % NR, 1);
        }
        if (choice % 16 == 2)
            memplug_why(run.world.pool, A, NULL);
        fake_sched_yield();
    }
}

/* --- a run ------------------------------------------------------------------------------------ */

static void open_run(uint64_t seed)
{
    static const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_BLOCK, MEMPLUG_MEMMAP_RANGE,
                                                  MEMPLUG_MEMMAP_HOST};
    struct world *world = &run.world;

    struct world_config made_of = {
        .shape = FAKE_SMALL, .nr_cpus = 3, .seed = seed, .content = FAKE_CONTENT_KEEP};

    if (seed % 2 != 0) { /* memmaps are lent: a huge page's is 8 pages */
        made_of.block_shift = 23;
        made_of.pageblock_order = 9;
        made_of.hvo = seed % 4 == 1 ? MEMPLUG_HVO_ALL : MEMPLUG_HVO_HOST;
    }
    world_open(world, &made_of);
    must(world_add(world, world->backing_a, A, memmaps[seed % 3], NULL, NULL));
    must(world_add(world, world->backing_b, B, memmaps[seed / 3 % 3], NULL, NULL));
    must(memplug_online(world->pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(memplug_online(world->pool, B, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
    must(memplug_online(world->pool, B + 1, NR - 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    for (unsigned i = 0; i < NR_WORKERS; i++) {
        struct owner_config config = {.nr_slots = 12, .seed = seed + i, .batch_max = i + 2,
                                      .page_bytes = (uint64_t)1 << world->geometry.page_shift,
                                      .sparse = true};

        must(owner_open(&config, &run.owners[i]));
        must(owner_register(run.owners[i], world->pool));
        config.nr_slots = 1;
        must(owner_open(&config, &run.pinners[i]));
        must(owner_register(run.pinners[i], world->pool));
    }
    run.is_open = true;
    must(memplug_huge_resize(world->pool, PMD, 12, MEMPLUG_ANY_NODE, NULL, NULL));
    atomic_store(&run.nr_running, NR_WORKERS);
    atomic_store(&run.stop, 0);
}

static uint64_t close_run(void)
{
    struct memplug_huge_info info;
    struct memplug_stat stat;

    for (unsigned i = 0; i < NR_WORKERS; i++)
        must(owner_verify_all(run.owners[i], NULL));
    world_check(&run.world);
    for (unsigned i = 0; i < NR_WORKERS; i++) {
        must(owner_free_all(run.owners[i]));
        owner_close(run.owners[i]);
        owner_close(run.pinners[i]);
    }
    must(memplug_huge_info(run.world.pool, PMD, MEMPLUG_ANY_NODE, &info));
    run.nr_optimized += info.nr_optimized;
    assert_int_equal(info.nr_free, info.nr_huge);
    assert_int_equal(info.nr_reserved, 0);
    must(memplug_huge_resize(run.world.pool, PMD, 0, MEMPLUG_ANY_NODE, NULL, NULL));
    must(memplug_huge_info(run.world.pool, PMD, MEMPLUG_ANY_NODE, &info));
    assert_int_equal(info.nr_huge, 0);
    free(world_text(&run.world, false)); /* what CPUs keep at hand comes back */
    memplug_stat(run.world.pool, &stat);
    assert_int_equal(stat.nr_free_pages, stat.nr_managed_pages);
    world_check(&run.world);
    world_close(&run.world);
    run.is_open = false;
    return stat.nr_moved_pages;
}

/* What a test that failed has left is not lost sight of: a leak report would hide the failure. */
static void clear_run(bool threads)
{
    if (run.is_open)
        fail_msg("the test before has failed");
    memset(&run, 0, sizeof(run));
    run.threads = threads;
}

static void print_run(const char *what, uint64_t nr, uint64_t nr_moved)
{
    print_message("%" PRIu64 " %s: %" PRIu64 " pages moved, %" PRIu64 " offline, %" PRIu64
                  " not, %" PRIu64 " promised, %" PRIu64 " taken, %" PRIu64 " lent at the end\n",
                  nr, what, nr_moved, run.nr_offline, run.nr_busy, run.nr_promised, run.nr_taken,
                  run.nr_optimized);
    assert_true(nr_moved != 0 && run.nr_offline != 0 && run.nr_promised != 0 && run.nr_taken != 0);
}

struct part {
    unsigned number;
    uint64_t seed;
};

static void work_part(void *context)
{
    const struct part *part = context;

    work(part->number, part->seed);
}

static void operate_part(void *context)
{
    const struct part *part = context;

    operate(part->seed);
}

static void test_many_seeds(void **state)
{
    unsigned first = world_setting("MEMPLUG_SIM_FIRST", 1);
    unsigned nr_seeds = world_setting("MEMPLUG_SIM_SEEDS", 60);
    uint64_t nr_moved = 0;

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    clear_run(false);
    for (unsigned seed = first; seed < first + nr_seeds; seed++) {
        struct part parts[] = {{0, seed}, {1, seed}, {2, seed}};
        const struct fake_fibre fibres[] = {{"worker 0", work_part, &parts[0], 0},
                                            {"worker 1", work_part, &parts[1], 1},
                                            {"operator", operate_part, &parts[2], 2}};
        struct fake_sched_report report;
        int error;

        open_run(seed);
        error = fake_sched_run(run.world.machine, seed, fibres, 3, &report);
        if (error != 0 || atomic_load(&run.nr_errors) != 0)
            fail_msg("seed %u: %d %s", seed, error, report.text);
        nr_moved += close_run();
    }
    print_run("seeds", nr_seeds, nr_moved);
}

static void *thread_of(void *context)
{
    const struct part *part = context;

    fake_set_cpu(part->number);
    if (part->number < NR_WORKERS)
        work(part->number, part->seed);
    else
        operate(part->seed);
    return NULL;
}

static void test_threads(void **state)
{
    unsigned ms = 1000 * world_setting("MEMPLUG_STRESS_SECONDS", 0);

    (void)state;
    ms = ms != 0 ? ms : 1500;
    clear_run(true);
    for (unsigned memmap = 0; memmap < 4; memmap++) {
        struct part parts[] = {{0, memmap}, {1, memmap}, {2, memmap}};
        pthread_t threads[3];

        open_run(memmap);
        for (unsigned i = 0; i < 3; i++)
            must(pthread_create(&threads[i], NULL, thread_of, &parts[i]));
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
        atomic_store(&run.stop, 1);
        for (unsigned i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(atomic_load(&run.nr_errors), 0);
        print_run("memmap", memmap, close_run());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_seeds),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests_name("huge storm", tests, NULL, NULL);
}
