/* SPDX-License-Identifier: MIT */
/*
 * Threads on one pool. Three allocate, write, verify and free, pages that can move and pages that
 * cannot; one onlines, offlines, adds and removes without pause; one looks on. Nothing is lost and
 * the pool is whole at the end. Made for ThreadSanitizer. MEMPLUG_STRESS_SECONDS makes it longer.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
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
#define A 4u  /* blocks that come and go */
#define B 12u /* blocks that stay: half of them Normal, half Movable */
#define BLOCK_PAGES UINT64_C(256)
#define NR_WORKERS 3u
#define NR_OWNER_SLOTS 64u
#define NR_RAW 12u

static struct world world;
static atomic_uint stop, nr_errors;
static atomic_uint raw_is_over; /* whoever has pages that cannot move gives them back */
static atomic_uint nr_done[8]; /* what the operator's calls came to */

/* Threads have no assertions of cmocka: the first complaint is printed, all are counted. */
static void expect(bool holds, const char *what, int error)
{
    if (!holds && atomic_fetch_add(&nr_errors, 1) < 10)
        fprintf(stderr, "%s: %d\n", what, error);
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- those who use pages ---------------------------------------------------------------------- */

struct raw {
    memplug_pfn_t pfn;
    uint32_t nr_pages; /* 0: empty */
    uint64_t tag;
};

struct worker {
    struct owner *owner;
    unsigned number;
    uint64_t random, nr_steps;
    struct raw raw[NR_RAW];
};

static uint64_t *tag_at(const struct raw *raw, uint32_t page)
{
    memplug_pfn_t pfn = {raw->pfn.nr + page};

    return memplug_page_address(world.pool, pfn);
}

static void raw_take(struct worker *worker, struct raw *raw)
{
    static const uint32_t sizes[] = {1, 1, 1, 1, 2, 4, 64, 128};
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};
    int error;

    request.nr_pages = sizes[fake_random(&worker->random) % 8];
    error = memplug_alloc(world.pool, &request, &raw->pfn);
    expect(error == 0 || error == -ENOMEM, "alloc", error);
    if (error != 0)
        return;
    raw->nr_pages = request.nr_pages;
    raw->tag = fake_random(&worker->random);
    for (uint32_t i = 0; i < raw->nr_pages; i++)
        *tag_at(raw, i) = raw->tag + i;
}

static void raw_give(struct raw *raw)
{
    int error;

    for (uint32_t i = 0; i < raw->nr_pages; i++)
        expect(*tag_at(raw, i) == raw->tag + i, "somebody else wrote this page", (int)i);
    if (raw->nr_pages > 1) {
        error = memplug_free(world.pool, raw->pfn, raw->nr_pages / 2);
        expect(error == -EINVAL, "half a free", error);
    }
    error = memplug_free(world.pool, raw->pfn, raw->nr_pages);
    expect(error == 0, "free", error);
    raw->nr_pages = 0;
}

static void raw_give_all(struct worker *worker)
{
    for (unsigned i = 0; i < NR_RAW; i++)
        if (worker->raw[i].nr_pages != 0)
            raw_give(&worker->raw[i]);
}

static void raw_step(struct worker *worker)
{
    struct raw *raw = &worker->raw[fake_random(&worker->random) % NR_RAW];

    if (atomic_load(&raw_is_over) != 0)
        raw_give_all(worker);
    else if (raw->nr_pages != 0)
        raw_give(raw);
    else
        raw_take(worker, raw);
}

static void *work(void *context)
{
    struct worker *worker = context;

    while (atomic_load(&stop) == 0) {
        int error;

        if (worker->nr_steps++ % 32 == 0)
            fake_set_cpu((unsigned)(fake_random(&worker->random) % 4));
        error = owner_step(worker->owner, &worker->random, 3);
        expect(error == 0 || error == -ENOMEM || error == -ENOSPC, "step", error);
        if (worker->nr_steps % 4 == 0)
            raw_step(worker);
    }
    raw_give_all(worker);
    return NULL;
}

/* --- the operator ----------------------------------------------------------------------------- */

static int offline_one(uint64_t id, uint64_t nr_blocks, uint64_t *random)
{
    struct memplug_limit limit = {.tries = 1 + (uint32_t)(fake_random(random) % 3)};

    if (fake_random(random) % 4 == 0)
        limit.timeout_ns = 1 + fake_random(random) % 200000;
    return memplug_offline(world.pool, id, nr_blocks, &limit, NULL);
}

static int add_again(uint64_t *random)
{
    return world_add(&world, world.backing_a, A,
                     (enum memplug_memmap)(fake_random(random) % (MEMPLUG_MEMMAP_HOST + 1)), NULL,
                     NULL);
}

static bool empty_block(uint64_t id, uint64_t *random)
{
    struct memplug_block_info info;

    must(memplug_block_info(world.pool, id, &info));
    if (info.state == MEMPLUG_BLOCK_OFFLINE)
        return true;
    for (unsigned try = 0; try < 200 && atomic_load(&stop) == 0; try++) {
        if (offline_one(id, 1, random) == 0)
            return true;
        sched_yield();
    }
    return false;
}

/* All out, and in again with another memmap. */
static int replace_all(uint64_t *random)
{
    bool empty = true;
    int error;

    atomic_store(&raw_is_over, 1);
    for (uint64_t id = A; id < A + NR && empty; id++)
        empty = empty_block(id, random);
    atomic_store(&raw_is_over, 0);
    error = memplug_remove(world.pool, A * world.block_bytes, NR * world.block_bytes, NULL, NULL);
    expect(error == (empty ? 0 : -EBUSY), "remove", error);
    if (error != 0)
        return 1;
    error = add_again(random);
    expect(error == 0, "add", error);
    return 0;
}

/* Online or offline one or all. Few go to Normal: unmovable pages would keep them there. */
static int operate_once(uint64_t *random)
{
    uint64_t id = A + fake_random(random) % NR, nr = 1;
    enum memplug_online_type type = fake_random(random) % 4 == 0 ? MEMPLUG_ONLINE_KERNEL
                                                                : MEMPLUG_ONLINE_MOVABLE;
    struct memplug_block_info info;
    int error;

    if (fake_random(random) % 4 == 0) {
        id = A;
        nr = NR;
    }
    must(memplug_block_info(world.pool, id, &info));
    expect(info.state == MEMPLUG_BLOCK_ONLINE || info.state == MEMPLUG_BLOCK_OFFLINE,
           "state at rest", (int)info.state);
    if (fake_random(random) % 64 == 0)
        return replace_all(random);
    if (info.state == MEMPLUG_BLOCK_OFFLINE) {
        error = memplug_online(world.pool, id, nr, type, NULL, NULL);
        expect(error == 0 || (error == -EINVAL && nr > 1), "online", error);
        return error == 0 ? 2 : 3;
    }
    error = offline_one(id, nr, random);
    expect(error == 0 || error == -EBUSY || error == -ENOMEM || error == -ETIMEDOUT ||
               (error == -EINVAL && nr > 1), "offline", error);
    return error == 0 ? 4 : error == -EBUSY ? 5 : 6;
}

static void *operate(void *context)
{
    uint64_t random = *(const uint64_t *)context;

    fake_set_cpu(3);
    while (atomic_load(&stop) == 0)
        atomic_fetch_add(&nr_done[operate_once(&random)], 1);
    return NULL;
}

/* --- who looks on ----------------------------------------------------------------------------- */

static void count_bytes(void *context, const char *text, size_t length)
{
    (void)text;
    *(size_t *)context += length;
}

static void look_at(uint64_t id)
{
    struct memplug_block_info info;
    struct memplug_reason reason;
    int error = memplug_block_info(world.pool, id, &info);

    expect(error == 0 || error == -ENODEV, "block_info", error);
    if (error == 0) {
        uint64_t nr_data = BLOCK_PAGES - info.nr_memmap_pages;

        expect(info.state > MEMPLUG_BLOCK_ABSENT && info.state <= MEMPLUG_BLOCK_GOING_OFFLINE,
               "state", (int)info.state);
        expect(info.nr_free_pages <= info.nr_managed_pages && info.nr_managed_pages <= nr_data,
               "counts", (int)info.nr_free_pages);
        expect(info.state != MEMPLUG_BLOCK_ONLINE ||
                   (info.zone < MEMPLUG_NR_ZONES && info.nr_managed_pages == nr_data),
               "an online block without a zone, or its pages", (int)info.zone);
    }
    error = memplug_why(world.pool, id, &reason);
    expect(error == 0 || error == -ENODEV || error == -EINVAL || error == -EBUSY ||
               error == -ENOMEM, "why", error);
    expect(reason.error == error, "why's reason", reason.error);
}

static void *look(void *context)
{
    uint64_t *nr_looks = context;

    fake_set_cpu(1);
    for (; atomic_load(&stop) == 0; ++*nr_looks) {
        struct memplug_zone_info zone;
        struct memplug_stat stat;
        size_t length = 0;

        for (uint64_t id = A - 1; id < B + NR + 1; id++)
            look_at(id);
        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++) {
            int error = memplug_zone_info(world.pool, 0, (enum memplug_zone)kind, &zone);

            expect(error == 0 && zone.nr_free_pages <= zone.nr_managed_pages &&
                       zone.nr_managed_pages <= zone.nr_spanned_pages, "zone", error);
        }
        memplug_stat(world.pool, &stat);
        expect(stat.nr_blocks >= NR && stat.nr_blocks <= 2 * NR, "blocks", (int)stat.nr_blocks);
        if (*nr_looks % 16 == 0) {
            int error = memplug_dump(world.pool, count_bytes, &length);

            expect(error == 0 && length > 1000, "dump", error);
        }
    }
    return NULL;
}

/* --- all of them ------------------------------------------------------------------------------ */

static struct owner *open_owner(uint64_t seed)
{
    struct owner_config config = {.nr_slots = NR_OWNER_SLOTS, .seed = seed, .batch_max = 7,
                                  .page_bytes = (uint64_t)1 << world.geometry.page_shift};
    struct owner *owner;

    must(owner_open(&config, &owner));
    must(owner_register(owner, world.pool));
    return owner;
}

static void open_stress(enum memplug_memmap memmap_b)
{
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .nr_cpus = 4, .seed = 3,
                                              .content = FAKE_CONTENT_KEEP});
    must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
    must(world_add(&world, world.backing_b, B, memmap_b, NULL, NULL));
    must(memplug_online(world.pool, B, 2, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
    must(memplug_online(world.pool, B + 2, NR - 2, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    atomic_store(&stop, 0);
    atomic_store(&nr_errors, 0);
    for (unsigned i = 0; i < 8; i++)
        atomic_store(&nr_done[i], 0);
}

static void close_stress(struct worker *workers)
{
    struct memplug_stat stat;

    for (unsigned i = 0; i < NR_WORKERS; i++) {
        struct owner_stat owned;
        unsigned bad;

        owner_stat(workers[i].owner, &owned);
        print_message("worker %u: %llu steps, %llu moved, %llu gone\n", i,
                      (unsigned long long)workers[i].nr_steps,
                      (unsigned long long)owned.nr_moved, (unsigned long long)owned.nr_gone);
        must(owner_verify_all(workers[i].owner, &bad));
    }
    world_check(&world);
    for (unsigned i = 0; i < NR_WORKERS; i++) {
        must(owner_free_all(workers[i].owner));
        owner_close(workers[i].owner);
    }
    free(world_text(&world, true)); /* what CPUs keep at hand comes back */
    memplug_stat(world.pool, &stat);
    assert_int_equal(stat.nr_free_pages, stat.nr_managed_pages); /* no page was lost */
    world_check(&world);
    world_close(&world);
}

static uint64_t run_ms(uint64_t default_ms)
{
    const char *seconds = getenv("MEMPLUG_STRESS_SECONDS");

    return seconds != NULL ? strtoull(seconds, NULL, 10) * 1000 : default_ms;
}

static void storm(enum memplug_memmap memmap_b, uint64_t seed)
{
    static struct worker workers[NR_WORKERS];
    uint64_t end = now_ms() + run_ms(2500), nr_looks = 0;
    pthread_t threads[NR_WORKERS + 2];

    open_stress(memmap_b);
    for (unsigned i = 0; i < NR_WORKERS; i++) {
        workers[i] = (struct worker){.owner = open_owner(i), .number = i, .random = seed + i};
        must(pthread_create(&threads[i], NULL, work, &workers[i]));
    }
    must(pthread_create(&threads[NR_WORKERS], NULL, operate, &seed));
    must(pthread_create(&threads[NR_WORKERS + 1], NULL, look, &nr_looks));
    while (now_ms() < end && atomic_load(&nr_errors) == 0)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    atomic_store(&stop, 1);
    for (unsigned i = 0; i < NR_WORKERS + 2; i++)
        pthread_join(threads[i], NULL);
    print_message("added again %u, not %u; online %u, not %u; offline %u, busy %u, other %u; "
                  "%llu looks\n", nr_done[0], nr_done[1], nr_done[2], nr_done[3], nr_done[4],
                  nr_done[5], nr_done[6], (unsigned long long)nr_looks);
    assert_int_equal(atomic_load(&nr_errors), 0);
    assert_true(nr_done[0] > 0 && nr_done[2] > 0 && nr_done[4] > 0);
    close_stress(workers);
}

static void storm_with_own_memmaps(void **state)
{
    (void)state;
    storm(MEMPLUG_MEMMAP_BLOCK, 1);
}

static void storm_with_the_hosts_memmap(void **state)
{
    (void)state;
    storm(MEMPLUG_MEMMAP_HOST, 2);
}

/* --- two on one block ------------------------------------------------------------------------- */

enum duel { DUEL_ADD, DUEL_ONLINE, DUEL_OFFLINE, DUEL_REMOVE, NR_DUELS };
static const int loser_says[NR_DUELS] = {-EEXIST, -EINVAL, -EINVAL, -ENODEV};

struct duellist {
    pthread_barrier_t *barrier;
    unsigned number, nr_rounds;
    int (*errors)[2];
};

static int fight(unsigned round)
{
    switch (round % NR_DUELS) {
    case DUEL_ADD:
        return world_add(&world, world.backing_a, A, round / NR_DUELS % 2 != 0
                                                         ? MEMPLUG_MEMMAP_BLOCK
                                                         : MEMPLUG_MEMMAP_RANGE, NULL, NULL);
    case DUEL_ONLINE:
        return memplug_online(world.pool, A, NR, MEMPLUG_ONLINE_KERNEL, NULL, NULL);
    case DUEL_OFFLINE:
        return memplug_offline(world.pool, A, NR, NULL, NULL);
    default:
        return memplug_remove(world.pool, A * world.block_bytes, NR * world.block_bytes, NULL,
                              NULL);
    }
}

static void *duel(void *context)
{
    const struct duellist *duellist = context;

    for (unsigned round = 0; round < duellist->nr_rounds; round++) {
        pthread_barrier_wait(duellist->barrier);
        duellist->errors[round][duellist->number] = fight(round);
    }
    return NULL;
}

static void one_of_two_wins(void **state)
{
    enum { NR_ROUNDS = 200 * NR_DUELS };
    static int errors[NR_ROUNDS][2];
    struct duellist duellists[2];
    pthread_barrier_t barrier;
    pthread_t threads[2];
    unsigned nr_won[2] = {0};

    (void)state;
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .nr_cpus = 2});
    must(pthread_barrier_init(&barrier, NULL, 2));
    for (unsigned i = 0; i < 2; i++) {
        duellists[i] = (struct duellist){&barrier, i, NR_ROUNDS, errors};
        must(pthread_create(&threads[i], NULL, duel, &duellists[i]));
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    for (unsigned round = 0; round < NR_ROUNDS; round++) {
        unsigned winner = errors[round][0] == 0 ? 0 : 1;

        nr_won[winner]++;
        assert_int_equal(errors[round][winner], 0);
        assert_int_equal(errors[round][!winner], loser_says[round % NR_DUELS]);
    }
    print_message("won: %u and %u\n", nr_won[0], nr_won[1]);
    world_check(&world);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storm_with_own_memmaps),
        cmocka_unit_test(storm_with_the_hosts_memmap),
        cmocka_unit_test(one_of_two_wins),
    };

    return cmocka_run_group_tests_name("pool stress", tests, NULL, NULL);
}
