/* SPDX-License-Identifier: MIT */
/*
 * Three fibres on one pool, for many seeds: two allocate, write, verify and free, one onlines,
 * offlines, adds and removes. Linked with the core that switches at its branches, so that every
 * order of steps can come up; a seed gives the same run each time.
 *
 * MEMPLUG_SIM_SEEDS: how many; MEMPLUG_SIM_FIRST: from there.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake/sched.h"
#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u  /* comes and goes */
#define B 12u /* stays: one block Normal, the others Movable */
#define NR_OWNERS 2u
#define NR_RAW 6u

static struct run {
    uint64_t seed, random;
    struct world world;
    struct owner *owners[NR_OWNERS];
    unsigned nr_running;
    uint64_t nr_online, nr_offline, nr_added, nr_failed;
    char wrong[128]; /* the first complaint */
} run;

static void expect(bool holds, const char *what, int error)
{
    if (!holds && run.wrong[0] == '\0')
        snprintf(run.wrong, sizeof(run.wrong), "%s: %d", what, error);
}

/* --- owners ----------------------------------------------------------------------------------- */

static void owner_run(void *context)
{
    unsigned number = *(const unsigned *)context;
    uint64_t random = run.seed * NR_OWNERS + number;
    static const uint32_t sizes[] = {1, 1, 2, 64};
    struct {
        memplug_pfn_t pfn;
        uint32_t nr_pages;
    } raw[NR_RAW] = {0};

    for (unsigned step = 0; step < 400; step++) {
        struct memplug_alloc request = {.nr_pages = sizes[fake_random(&random) % 4],
                                        .node = MEMPLUG_ANY_NODE};
        unsigned i = (unsigned)(fake_random(&random) % NR_RAW);
        int error = owner_step(run.owners[number], &random, 3);

        expect(error == 0 || error == -ENOMEM || error == -ENOSPC, "step", error);
        if (step % 8 != 0)
            continue;
        if (raw[i].nr_pages == 0) {
            error = memplug_alloc(run.world.pool, &request, &raw[i].pfn);
            expect(error == 0 || error == -ENOMEM, "alloc", error);
            raw[i].nr_pages = error == 0 ? request.nr_pages : 0;
        } else {
            error = memplug_free(run.world.pool, raw[i].pfn, raw[i].nr_pages);
            expect(error == 0, "free", error);
            raw[i].nr_pages = 0;
        }
    }
    for (unsigned i = 0; i < NR_RAW; i++)
        if (raw[i].nr_pages != 0)
            expect(memplug_free(run.world.pool, raw[i].pfn, raw[i].nr_pages) == 0, "last", (int)i);
    run.nr_running--;
}

/* --- the operator ----------------------------------------------------------------------------- */

static void replace(uint64_t *random)
{
    struct world *world = &run.world;
    int error = memplug_remove(world->pool, A * world->block_bytes, NR * world->block_bytes, NULL,
                               NULL);

    expect(error == 0 || error == -EBUSY, "remove", error);
    if (error != 0)
        return;
    error = world_add(world, world->backing_a, A, (enum memplug_memmap)(fake_random(random) % 4),
                      NULL, NULL);
    expect(error == 0, "add", error);
    run.nr_added++;
}

static void toggle(uint64_t id, uint64_t nr_blocks, uint64_t *random)
{
    struct memplug_limit limit = {.tries = 2};
    enum memplug_online_type type =
        fake_random(random) % 5 == 0 ? MEMPLUG_ONLINE_KERNEL : MEMPLUG_ONLINE_MOVABLE;
    struct memplug_block_info info;
    int error = memplug_block_info(run.world.pool, id, &info);

    expect(error == 0, "block_info", error);
    if (info.state == MEMPLUG_BLOCK_OFFLINE) {
        error = memplug_online(run.world.pool, id, nr_blocks, type, NULL, NULL);
        expect(error == 0 || (nr_blocks > 1 && error == -EINVAL), "online", error);
        run.nr_online += error == 0;
        return;
    }
    error = memplug_offline(run.world.pool, id, nr_blocks, &limit, NULL);
    expect(error == 0 || error == -EBUSY || error == -ENOMEM ||
               (nr_blocks > 1 && error == -EINVAL), "offline", error);
    run.nr_offline += error == 0;
    run.nr_failed += error != 0;
}

static void operator_run(void *context)
{
    uint64_t random = run.seed;

    (void)context;
    while (run.nr_running != 0) {
        uint64_t choice = fake_random(&random);

        if (choice % 8 == 0)
            replace(&random);
        else if (choice % 8 == 1)
            toggle(A, NR, &random);
        else
            toggle(A + (choice >> 8) % NR, 1, &random);
        fake_sched_yield();
    }
}

/* --- a run ------------------------------------------------------------------------------------ */

static void open_run(uint64_t seed)
{
    static const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_BLOCK, MEMPLUG_MEMMAP_RANGE,
                                                  MEMPLUG_MEMMAP_HOST};
    struct world *world = &run.world;

    memset(&run, 0, sizeof(run));
    run.seed = seed;
    world_open(world, &(struct world_config){.shape = FAKE_SMALL, .nr_cpus = 3, .seed = seed,
                                             .content = FAKE_CONTENT_KEEP});
    must(world_add(world, world->backing_a, A, memmaps[seed % 3], NULL, NULL));
    must(world_add(world, world->backing_b, B, memmaps[seed / 3 % 3], NULL, NULL));
    must(memplug_online(world->pool, B, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
    must(memplug_online(world->pool, B + 1, NR - 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    for (unsigned i = 0; i < NR_OWNERS; i++) {
        struct owner_config config = {.nr_slots = 40, .seed = seed + i, .batch_max = i + 2,
                                      .page_bytes = (uint64_t)1 << world->geometry.page_shift,
                                      .sparse = true};

        must(owner_open(&config, &run.owners[i]));
        must(owner_register(run.owners[i], world->pool));
    }
    run.nr_running = NR_OWNERS;
}

static uint64_t close_run(void)
{
    struct memplug_stat stat;

    for (unsigned i = 0; i < NR_OWNERS; i++) {
        unsigned bad;

        must(owner_verify_all(run.owners[i], &bad));
    }
    world_check(&run.world);
    for (unsigned i = 0; i < NR_OWNERS; i++) {
        must(owner_free_all(run.owners[i]));
        owner_close(run.owners[i]);
    }
    free(world_text(&run.world, false)); /* what CPUs keep at hand comes back */
    memplug_stat(run.world.pool, &stat);
    assert_int_equal(stat.nr_free_pages, stat.nr_managed_pages);
    world_check(&run.world);
    world_close(&run.world);
    return stat.nr_moved_pages;
}

/* Returns the trace; the text is the state at the end of the fibres. */
static uint64_t run_seed(uint64_t seed, uint64_t *nr_moved, char **text)
{
    static const unsigned numbers[NR_OWNERS] = {0, 1};
    const struct fake_fibre fibres[] = {
        {"owner 0", owner_run, (void *)(uintptr_t)&numbers[0], 0},
        {"owner 1", owner_run, (void *)(uintptr_t)&numbers[1], 1},
        {"operator", operator_run, NULL, 2},
    };
    struct fake_sched_report report;
    int error;

    open_run(seed);
    error = fake_sched_run(run.world.machine, seed, fibres, 3, &report);
    if (error != 0 || run.wrong[0] != '\0')
        fail_msg("seed %" PRIu64 ": %d, %s%s", seed, error, run.wrong, report.text);
    if (text != NULL)
        *text = world_text(&run.world, false);
    *nr_moved += close_run();
    return report.trace;
}

static void many_seeds(void **state)
{
    unsigned first = world_setting("MEMPLUG_SIM_FIRST", 1);
    unsigned nr_seeds = world_setting("MEMPLUG_SIM_SEEDS", 80);
    uint64_t nr_moved = 0, nr_offline = 0, nr_added = 0, nr_failed = 0;

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    for (unsigned seed = first; seed < first + nr_seeds; seed++) {
        run_seed(seed, &nr_moved, NULL);
        nr_offline += run.nr_offline;
        nr_added += run.nr_added;
        nr_failed += run.nr_failed;
    }
    print_message("%u seeds: %" PRIu64 " pages moved, %" PRIu64 " offline, %" PRIu64 " not, "
                  "%" PRIu64 " added again\n", nr_seeds, nr_moved, nr_offline, nr_failed, nr_added);
    assert_true(nr_moved != 0 && nr_offline > nr_seeds && nr_added != 0 && nr_failed != 0);
}

static void a_seed_is_a_run(void **state)
{
    uint64_t nr_moved[2] = {0}, other, trace[2];
    char *texts[2];

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    for (unsigned i = 0; i < 2; i++)
        trace[i] = run_seed(77, &nr_moved[i], &texts[i]);
    assert_int_equal(trace[0], trace[1]);
    assert_int_equal(nr_moved[0], nr_moved[1]);
    assert_string_equal(texts[0], texts[1]);
    other = run_seed(78, &nr_moved[0], NULL);
    assert_true(other != trace[0]);
    free(texts[0]);
    free(texts[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_is_a_run),
        cmocka_unit_test(many_seeds),
    };

    return cmocka_run_group_tests_name("sim fibres", tests, NULL, NULL);
}
