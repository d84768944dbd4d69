/* SPDX-License-Identifier: MIT */
/*
 * Two allocate, write, verify and free, pages that can move and pages that cannot. Meanwhile an
 * operator vacates spans, keeps pages and gives them back, takes bad frames out softly and hard,
 * and onlines, offlines and replaces blocks. Once as fibres, for many seeds, with a core that
 * switches at its branches, and once as threads.
 *
 * MEMPLUG_SIM_SEEDS: how many; MEMPLUG_SIM_FIRST: from there.
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

#include <cmocka.h>

#include <memplug/poison.h>

#include "../../core/door.h"
#include "../../core/steps.h"
#include "fake/sched.h"
#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u  /* comes and goes */
#define B 12u /* stays: one block Normal, the others Movable */
#define BLOCK_PAGES UINT64_C(256)
#define PAGEBLOCK_PAGES UINT64_C(64)
#define NR_OWNERS 2u
#define NR_RAW 6u
#define NR_KEPT 6u
#define NR_BAD_MAX 24u /* of a run */

struct span {
    memplug_pfn_t start;
    uint64_t nr_pages; /* 0: none */
};

struct counts {
    uint64_t nr_vacated, nr_kept, nr_soft, nr_hard, nr_lost, nr_refused, nr_online, nr_offline,
        nr_replaced, nr_moved;
};

static struct run {
    uint64_t seed;
    unsigned nr_steps;
    struct world world;
    struct owner *owners[NR_OWNERS];
    atomic_uint nr_running;
    struct span kept[NR_KEPT]; /* the operator's, as is what follows */
    unsigned nr_bad;
    struct counts counts;
    atomic_uint nr_wrong;
    char wrong[128]; /* the first complaint */
} run;

static void expect(bool holds, const char *what, int error)
{
    if (!holds && atomic_fetch_add(&run.nr_wrong, 1) == 0)
        snprintf(run.wrong, sizeof(run.wrong), "%s: %d", what, error);
}

/* --- those who use pages ---------------------------------------------------------------------- */

static void use(void *context)
{
    unsigned number = *(const unsigned *)context;
    uint64_t random = run.seed * NR_OWNERS + number;
    static const uint32_t sizes[] = {1, 1, 2, 64};
    struct span raw[NR_RAW] = {{{0}, 0}};

    for (unsigned step = 0; step < run.nr_steps; step++) {
        struct memplug_alloc request = {.nr_pages = sizes[fake_random(&random) % 4],
                                        .node = MEMPLUG_ANY_NODE};
        struct span *span = &raw[fake_random(&random) % NR_RAW];
        int error = owner_step(run.owners[number], &random, 4);

        expect(error == 0 || error == -ENOMEM || error == -ENOSPC, "step", error);
        if (step % 8 != 0)
            continue;
        if (span->nr_pages == 0) {
            error = memplug_alloc(run.world.pool, &request, &span->start);
            expect(error == 0 || error == -ENOMEM, "alloc", error);
            span->nr_pages = error == 0 ? request.nr_pages : 0;
        } else {
            error = memplug_free(run.world.pool, span->start, (uint32_t)span->nr_pages);
            expect(error == 0, "free", error);
            span->nr_pages = 0;
        }
    }
    for (unsigned i = 0; i < NR_RAW; i++)
        if (raw[i].nr_pages != 0)
            expect(memplug_free(run.world.pool, raw[i].start, (uint32_t)raw[i].nr_pages) == 0,
                   "last", (int)i);
    atomic_fetch_sub(&run.nr_running, 1);
}

/* --- the operator ----------------------------------------------------------------------------- */

static const struct memplug_limit two_tries = {.tries = 2};

static struct span any_span(uint64_t *random)
{
    uint64_t choice = fake_random(random);
    uint64_t block = choice % 2 != 0 ? A : B, index = (choice >> 16) % BLOCK_PAGES;
    uint64_t nr_max = BLOCK_PAGES - index < 80 ? BLOCK_PAGES - index : 80;

    block += (choice >> 8) % NR;
    return (struct span){{block * BLOCK_PAGES + index}, 1 + (choice >> 32) % nr_max};
}

static bool is_refusal(int error)
{
    return error == -EBUSY || error == -ENOMEM || error == -EINVAL || error == -EHWPOISON ||
           error == -EIO || error == -ENXIO;
}

/* With the primitive itself: nobody gets a frame of the span until it is given back. */
static void vacate(uint64_t *random)
{
    struct memplug *pool = run.world.pool;
    struct span span = any_span(random);
    struct mpl_block *block = mpl_block_at(pool, span.start.nr / BLOCK_PAGES);
    uint64_t index = span.start.nr % BLOCK_PAGES;
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "vacate", &two_tries, NULL);
    error = mpl_door_lock(&door.op);
    expect(error == 0, "lock", error);
    if (error != 0)
        return;
    error = mpl_block_state(block) == MEMPLUG_BLOCK_ONLINE
                ? mpl_vacate(&door.op, block, index, span.nr_pages)
                : -EINVAL;
    expect(error == 0 || is_refusal(error), "vacate", error);
    if (error == 0) {
        for (unsigned look = 0; look < 3; look++, fake_sched_yield())
            expect(mpl_frames_first_used(block, index, index + span.nr_pages) ==
                       index + span.nr_pages, "a vacated frame is used", (int)look);
        mpl_vacate_undo(pool, block, index, span.nr_pages);
    }
    mpl_door_unlock(&door.op, 0);
    run.counts.nr_vacated += error == 0;
    run.counts.nr_refused += error != 0;
}

static void release(struct span *span)
{
    uint64_t end = span->start.nr + span->nr_pages, next;

    for (uint64_t at = span->start.nr; at < end; at = next) {
        int error;

        next = (at / PAGEBLOCK_PAGES + 1) * PAGEBLOCK_PAGES;
        next = next < end ? next : end;
        error = memplug_release_pages(run.world.pool, (memplug_pfn_t){at}, (uint32_t)(next - at));
        expect(error == 0, "release", error);
    }
    span->nr_pages = 0;
}

static void keep_or_release(uint64_t *random)
{
    struct span *kept = &run.kept[fake_random(random) % NR_KEPT];
    struct span span = any_span(random);
    int error;

    if (kept->nr_pages != 0) {
        release(kept);
        return;
    }
    error = memplug_keep_pages(run.world.pool, span.start, span.nr_pages, &two_tries, NULL);
    expect(error == 0 || is_refusal(error), "keep", error);
    if (error == 0)
        *kept = span;
    run.counts.nr_kept += error == 0;
    run.counts.nr_refused += error != 0;
}

static void poison(uint64_t *random)
{
    struct span span = any_span(random);
    bool soft = span.nr_pages % 2 != 0;
    int error;

    if (run.nr_bad == NR_BAD_MAX)
        return;
    error = soft ? memplug_soft_offline(run.world.pool, span.start, &two_tries, NULL)
                 : memplug_hard_offline(run.world.pool, span.start, &two_tries, NULL);
    expect(error == 0 || is_refusal(error), "poison", error);
    run.nr_bad += error == 0;
    run.counts.nr_soft += error == 0 && soft;
    run.counts.nr_hard += error == 0 && !soft;
    run.counts.nr_refused += error != 0;
}

/* The whole range is taken out and comes back sound, if all of it can go. */
static void replace(uint64_t *random)
{
    struct world *world = &run.world;
    int error;

    for (unsigned i = 0; i < NR_KEPT; i++)
        if (run.kept[i].nr_pages != 0 && run.kept[i].start.nr / BLOCK_PAGES < A + NR)
            release(&run.kept[i]);
    for (uint64_t id = A; id < A + NR; id++)
        (void)memplug_offline(world->pool, id, 1, &two_tries, NULL);
    error = memplug_remove(world->pool, A * world->block_bytes, NR * world->block_bytes, NULL,
                           NULL);
    expect(error == 0 || error == -EBUSY, "remove", error);
    if (error != 0)
        return;
    error = world_add(world, world->backing_a, A, (enum memplug_memmap)(fake_random(random) % 4),
                      NULL, NULL);
    expect(error == 0, "add", error);
    error = memplug_online(world->pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL);
    expect(error == 0, "online again", error);
    run.counts.nr_replaced++;
}

static void toggle(uint64_t id)
{
    struct memplug_block_info info;
    int error = memplug_block_info(run.world.pool, id, &info);

    expect(error == 0, "block_info", error);
    if (info.state == MEMPLUG_BLOCK_OFFLINE) {
        error = memplug_online(run.world.pool, id, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL);
        expect(error == (info.nr_poisoned_pages != 0 ? -EHWPOISON : 0), "online", error);
        run.counts.nr_online += error == 0;
        return;
    }
    error = memplug_offline(run.world.pool, id, 1, &two_tries, NULL);
    expect(error == 0 || error == -EBUSY || error == -ENOMEM, "offline", error);
    run.counts.nr_offline += error == 0;
}

static void operate(void *context)
{
    uint64_t random = run.seed;

    (void)context;
    while (atomic_load(&run.nr_running) != 0) {
        uint64_t choice = fake_random(&random);

        switch (choice % 8) {
        case 0:
            replace(&random);
            break;
        case 1:
        case 2:
            toggle(A + (choice >> 8) % NR);
            break;
        case 3:
            poison(&random);
            break;
        case 4:
        case 5:
            keep_or_release(&random);
            break;
        default:
            vacate(&random);
        }
        (void)memplug_why(run.world.pool, A + (choice >> 16) % NR, NULL);
        fake_sched_yield();
    }
    for (unsigned i = 0; i < NR_KEPT; i++)
        if (run.kept[i].nr_pages != 0)
            release(&run.kept[i]);
}

/* --- a run ------------------------------------------------------------------------------------ */

static void open_run(uint64_t seed, unsigned nr_steps)
{
    static const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_BLOCK, MEMPLUG_MEMMAP_RANGE,
                                                  MEMPLUG_MEMMAP_HOST};
    struct world *world = &run.world;

    memset(&run, 0, sizeof(run));
    run.seed = seed;
    run.nr_steps = nr_steps;
    world_open(world, &(struct world_config){.shape = FAKE_SMALL, .nr_cpus = 3, .seed = seed,
                                             .content = FAKE_CONTENT_KEEP});
    must(world_add(world, world->backing_a, A, memmaps[seed % 3], NULL, NULL));
    must(world_add(world, world->backing_b, B, memmaps[seed / 3 % 3], NULL, NULL));
    must(memplug_online(world->pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(memplug_online(world->pool, B, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
    must(memplug_online(world->pool, B + 1, NR - 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    for (unsigned i = 0; i < NR_OWNERS; i++) {
        struct owner_config config = {.nr_slots = 120, .seed = seed + i, .batch_max = i + 2,
                                      .page_bytes = (uint64_t)1 << world->geometry.page_shift,
                                      .sparse = true};

        must(owner_open(&config, &run.owners[i]));
        must(owner_register(run.owners[i], world->pool));
    }
    atomic_store(&run.nr_running, NR_OWNERS);
}

static void close_run(struct counts *sum)
{
    struct memplug_stat stat;
    struct memplug_block_info info;
    uint64_t nr_bad_online = 0;

    for (unsigned i = 0; i < NR_OWNERS; i++) {
        struct owner_stat owner;
        unsigned bad;

        must(owner_verify_all(run.owners[i], &bad));
        owner_stat(run.owners[i], &owner);
        run.counts.nr_lost += owner.nr_lost;
    }
    world_check(&run.world);
    for (unsigned i = 0; i < NR_OWNERS; i++) {
        must(owner_free_all(run.owners[i]));
        owner_close(run.owners[i]);
    }
    free(world_text(&run.world, false)); /* what CPUs keep at hand comes back */
    memplug_stat(run.world.pool, &stat);
    for (uint64_t id = 0; id < memplug_nr_blocks_max(run.world.pool); id++)
        if (memplug_block_info(run.world.pool, id, &info) == 0 &&
            info.state == MEMPLUG_BLOCK_ONLINE)
            nr_bad_online += info.nr_poisoned_pages;
    assert_int_equal(stat.nr_free_pages + nr_bad_online, stat.nr_managed_pages);
    world_check(&run.world);
    world_close(&run.world);
    run.counts.nr_moved = stat.nr_moved_pages;
    for (unsigned i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
        ((uint64_t *)sum)[i] += ((const uint64_t *)&run.counts)[i];
}

static void all_happened(const struct counts *sum)
{
    print_message("%" PRIu64 " moved; %" PRIu64 " vacated, %" PRIu64 " kept, %" PRIu64 " soft, "
                  "%" PRIu64 " hard, %" PRIu64 " lost, %" PRIu64 " refused, %" PRIu64 " online, "
                  "%" PRIu64 " offline, %" PRIu64 " replaced\n",
                  sum->nr_moved, sum->nr_vacated, sum->nr_kept, sum->nr_soft, sum->nr_hard,
                  sum->nr_lost, sum->nr_refused, sum->nr_online, sum->nr_offline,
                  sum->nr_replaced);
    for (unsigned i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
        assert_true(((const uint64_t *)sum)[i] != 0);
}

static const unsigned numbers[NR_OWNERS] = {0, 1};

static void fibres(void **state)
{
    const struct fake_fibre all[] = {
        {"owner 0", use, (void *)(uintptr_t)&numbers[0], 0},
        {"owner 1", use, (void *)(uintptr_t)&numbers[1], 1},
        {"operator", operate, NULL, 2},
    };
    unsigned first = world_setting("MEMPLUG_SIM_FIRST", 1);
    unsigned nr_seeds = world_setting("MEMPLUG_SIM_SEEDS", 60);
    struct counts sum = {0};

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    for (unsigned seed = first; seed < first + nr_seeds; seed++) {
        struct fake_sched_report report;
        int error;

        open_run(seed, 1200);
        error = fake_sched_run(run.world.machine, seed, all, 3, &report);
        if (error != 0 || run.wrong[0] != '\0')
            fail_msg("seed %u: %d, %s%s", seed, error, run.wrong, report.text);
        close_run(&sum);
    }
    all_happened(&sum);
}

/* --- freed while it is taken away ------------------------------------------------------------- */

#define NR_ROUNDS 24u

/* Each round the owner has two pages and frees them; the operator takes them away. Whoever comes
 * first, they are freed once. */
static struct duel {
    unsigned round;    /* the owner's pages are there from here on */
    uint64_t nr_freed; /* by the owner; the others were lost */
} duel;

static memplug_pfn_t duel_frame(unsigned round)
{
    return (memplug_pfn_t){A * BLOCK_PAGES + 20 + 4 * round};
}

static void duel_owner(void *context)
{
    struct memplug_alloc request = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE};
    uint64_t random = run.seed;

    (void)context;
    for (unsigned round = 1; round <= NR_ROUNDS; round++) {
        memplug_pfn_t pfn = duel_frame(round);
        unsigned slot;
        int error;

        do /* -EBUSY: the operator still has the pageblock of the last round */
            error = owner_alloc_request(run.owners[0], &request, &pfn, &slot);
        while (error == -EBUSY);
        expect(error == 0, "alloc", error);
        duel.round = round;
        for (uint64_t i = fake_random(&random) % 60; i > 0; i--)
            fake_sched_yield();
        error = owner_free(run.owners[0], slot);
        expect(error == 0 || error == -ENOENT, "free", error);
        duel.nr_freed += error == 0;
    }
}

static void duel_operator(void *context)
{
    (void)context;
    for (unsigned round = 1; round <= NR_ROUNDS; round++) {
        int error;

        while (duel.round < round)
            fake_sched_yield();
        error = memplug_hard_offline(run.world.pool, (memplug_pfn_t){duel_frame(round).nr + 1},
                                     NULL, NULL);
        expect(error == 0, "hard", error);
    }
}

static void freed_while_it_is_taken(void **state)
{
    const struct fake_fibre both[] = {
        {"owner", duel_owner, NULL, 0},
        {"operator", duel_operator, NULL, 1},
    };
    struct counts sum = {0};
    uint64_t nr_freed = 0;

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    for (unsigned seed = 1; seed <= 100; seed++) {
        struct fake_sched_report report;
        int error;

        open_run(seed * 3, 0); /* blocks with a memmap each */
        memset(&duel, 0, sizeof(duel));
        error = fake_sched_run(run.world.machine, seed, both, 2, &report);
        if (error != 0 || run.wrong[0] != '\0')
            fail_msg("seed %u: %d, %s%s", seed, error, run.wrong, report.text);
        close_run(&sum);
        nr_freed += duel.nr_freed;
        assert_int_equal(duel.nr_freed + run.counts.nr_lost, NR_ROUNDS);
    }
    print_message("%" PRIu64 " freed, %" PRIu64 " lost\n", nr_freed, sum.nr_lost);
    assert_true(nr_freed > 0 && sum.nr_lost > 0);
}

/* --- threads ---------------------------------------------------------------------------------- */

static void *use_thread(void *context)
{
    use(context);
    return NULL;
}

static void *operate_thread(void *context)
{
    operate(context);
    return NULL;
}

static void threads(void **state)
{
    struct counts sum = {0};

    (void)state;
    for (unsigned seed = 1; seed <= 12; seed++) {
        pthread_t all[NR_OWNERS + 1];

        open_run(seed, 20000);
        for (unsigned i = 0; i < NR_OWNERS; i++)
            must(pthread_create(&all[i], NULL, use_thread, (void *)(uintptr_t)&numbers[i]));
        must(pthread_create(&all[NR_OWNERS], NULL, operate_thread, NULL));
        for (unsigned i = 0; i < NR_OWNERS + 1; i++)
            must(pthread_join(all[i], NULL));
        if (run.wrong[0] != '\0')
            fail_msg("seed %u: %s", seed, run.wrong);
        close_run(&sum);
    }
    all_happened(&sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fibres),
        cmocka_unit_test(freed_while_it_is_taken),
        cmocka_unit_test(threads),
    };

    return cmocka_run_group_tests_name("vacate storm", tests, NULL, NULL);
}
