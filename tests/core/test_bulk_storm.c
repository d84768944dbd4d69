/* SPDX-License-Identifier: MIT */
/*
 * Threads that allocate and free by bulk calls, through slots of their own and of CPUs, pages that
 * can move and pages that cannot, while blocks go offline and online. Each page has its owner's
 * word in it. MEMPLUG_STRESS_SECONDS makes it longer.
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

#include <memplug/slot.h>

#include "fake/sched.h"
#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u  /* blocks that come and go, movable */
#define B 12u /* blocks that stay: half of them Normal, half Movable */
#define NR_WORKERS 3u
#define NR_PAGES 192u /* of a worker that can move, and then as many that cannot */
#define MAX_BATCH 150u

struct worker {
    unsigned number;
    uint8_t mover;
    uint64_t random, nr_steps, nr_moved;
    pthread_mutex_t lock; /* of the pages that can move */
    struct memplug_slot *slot;
    memplug_pfn_t pages[2 * NR_PAGES]; /* 0: none */
};

static struct world world;
static struct worker workers[NR_WORKERS];
static atomic_uint stop, nr_errors, nr_offlines;

/* Threads have no assertions of cmocka: the first complaints are printed, all are counted. */
static void expect(bool holds, const char *what, int error)
{
    if (!holds && atomic_fetch_add(&nr_errors, 1) < 10)
        fprintf(stderr, "%s: %d\n", what, error);
}

static _Atomic uint64_t *word_at(memplug_pfn_t pfn)
{
    return memplug_page_address(world.pool, pfn);
}

static uint64_t word_of(const struct worker *worker, unsigned page)
{
    return (uint64_t)(worker->number + 1) << 32 | page;
}

/* --- pages ------------------------------------------------------------------------------------ */

static void move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    struct worker *worker = context;

    pthread_mutex_lock(&worker->lock);
    for (unsigned i = 0; i < nr_moves; i++) {
        memplug_pfn_t *page = &worker->pages[moves[i].cookie];

        moves[i].result = page->nr == moves[i].from.nr ? 0 : -ENOENT;
        if (moves[i].result != 0)
            continue;
        atomic_store(word_at(moves[i].to), atomic_load(word_at(moves[i].from)));
        *page = moves[i].to;
        worker->nr_moved++;
    }
    pthread_mutex_unlock(&worker->lock);
}

/* Up to nr pages, from one on, that there are, or that are not. */
static unsigned choose(struct worker *worker, bool raw, bool there, unsigned nr, uint64_t *chosen)
{
    unsigned at = (unsigned)(fake_random(&worker->random) % NR_PAGES), nr_chosen = 0;
    unsigned step = fake_random(&worker->random) % 2 != 0 ? 1 : 89;

    for (unsigned i = 0; i < NR_PAGES && nr_chosen < nr; i++) {
        unsigned page = raw * NR_PAGES + (at + i * step) % NR_PAGES;

        if ((worker->pages[page].nr != 0) == there)
            chosen[nr_chosen++] = page;
    }
    return nr_chosen;
}

static void take(struct worker *worker, bool raw, bool own)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE,
                                    .mover = raw ? 0 : worker->mover};
    memplug_pfn_t pfns[MAX_BATCH];
    uint64_t chosen[MAX_BATCH];
    uint32_t nr = choose(worker, raw, false, 1 + fake_random(&worker->random) % MAX_BATCH, chosen);
    int got = own ? memplug_slot_alloc_bulk(worker->slot, &request, chosen, pfns, nr)
                  : memplug_alloc_bulk(world.pool, &request, chosen, pfns, nr);

    expect(got >= 0 && got <= (int)nr, "alloc", got);
    for (int i = 0; i < got; i++) {
        atomic_store(word_at(pfns[i]), word_of(worker, (unsigned)chosen[i]));
        worker->pages[chosen[i]] = pfns[i];
    }
}

static void give(struct worker *worker, bool raw, bool own, unsigned max)
{
    memplug_pfn_t pfns[2 * NR_PAGES];
    uint64_t chosen[2 * NR_PAGES];
    int errors[2 * NR_PAGES];
    uint32_t nr = choose(worker, raw, true, max, chosen), nr_freed;

    for (unsigned i = 0; i < nr; i++) {
        pfns[i] = worker->pages[chosen[i]];
        worker->pages[chosen[i]].nr = 0;
        expect(atomic_load(word_at(pfns[i])) == word_of(worker, (unsigned)chosen[i]),
               "somebody else has written to this page", (int)i);
    }
    nr_freed = own ? memplug_slot_free_bulk(worker->slot, pfns, nr, errors)
                   : memplug_free_bulk(world.pool, pfns, nr, errors);
    expect(nr_freed == nr, "free", (int)(nr - nr_freed));
    for (unsigned i = 0; i < nr; i++)
        expect(errors[i] == 0, "free of a page", errors[i]);
}

static void *work(void *context)
{
    struct worker *worker = context;

    while (atomic_load(&stop) == 0) {
        bool raw = fake_random(&worker->random) % 3 == 0;
        bool own = fake_random(&worker->random) % 3 != 0;

        if (worker->nr_steps++ % 32 == 0)
            fake_set_cpu((unsigned)(fake_random(&worker->random) % 4));
        pthread_mutex_lock(&worker->lock);
        if (fake_random(&worker->random) % 2 == 0)
            take(worker, raw, own);
        else
            give(worker, raw, own, 1 + (unsigned)(fake_random(&worker->random) % MAX_BATCH));
        pthread_mutex_unlock(&worker->lock);
        if (worker->nr_steps % 8 == 0)
            sched_yield(); /* or whoever moves pages never gets the lock */
    }
    return NULL;
}

/* --- the operator ----------------------------------------------------------------------------- */

static void *operate(void *context)
{
    uint64_t random = 77;

    (void)context;
    fake_set_cpu(3);
    while (atomic_load(&stop) == 0) {
        uint64_t id = A + fake_random(&random) % NR;
        struct memplug_limit limit = {.tries = 1 + (uint32_t)(fake_random(&random) % 3)};
        struct memplug_block_info info;
        int error = memplug_block_info(world.pool, id, &info);

        expect(error == 0, "block_info", error);
        if (info.state == MEMPLUG_BLOCK_OFFLINE) {
            error = memplug_online(world.pool, id, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL);
            expect(error == 0, "online", error);
        } else {
            error = memplug_offline(world.pool, id, 1, &limit, NULL);
            expect(error == 0 || error == -EBUSY || error == -ENOMEM, "offline", error);
            atomic_fetch_add(&nr_offlines, error == 0);
        }
    }
    return NULL;
}

/* --- all of them ------------------------------------------------------------------------------ */

static void open_storm(enum memplug_memmap memmap)
{
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .nr_cpus = 4, .seed = 3,
                                              .content = FAKE_CONTENT_KEEP});
    must(world_add(&world, world.backing_a, A, memmap, NULL, NULL));
    must(world_add(&world, world.backing_b, B, memmap, NULL, NULL));
    must(memplug_online(world.pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(memplug_online(world.pool, B, 2, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
    must(memplug_online(world.pool, B + 2, NR - 2, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    atomic_store(&stop, 0);
    atomic_store(&nr_errors, 0);
    atomic_store(&nr_offlines, 0);
    for (unsigned i = 0; i < NR_WORKERS; i++) {
        struct memplug_mover mover = {.name = "worker", .move = move, .context = &workers[i]};
        int number = memplug_register_mover(world.pool, &mover);

        assert_true(number > 0);
        workers[i] = (struct worker){.number = i, .mover = (uint8_t)number, .random = 5 + i};
        must(pthread_mutex_init(&workers[i].lock, NULL));
        must(memplug_slot_open(world.pool, &workers[i].slot));
    }
}

static void close_storm(void)
{
    struct memplug_stat stat;

    for (unsigned i = 0; i < NR_WORKERS; i++) {
        print_message("worker %u: %llu steps, %llu moved\n", i,
                      (unsigned long long)workers[i].nr_steps,
                      (unsigned long long)workers[i].nr_moved);
        give(&workers[i], false, true, 2 * NR_PAGES);
        give(&workers[i], true, false, 2 * NR_PAGES);
        memplug_slot_close(workers[i].slot);
        pthread_mutex_destroy(&workers[i].lock);
    }
    free(world_text(&world, true)); /* what CPUs keep at hand comes back */
    memplug_stat(world.pool, &stat);
    assert_int_equal(stat.nr_free_pages, stat.nr_managed_pages);
    assert_int_equal(atomic_load(&nr_errors), 0);
    world_check(&world);
    world_close(&world);
}

static uint64_t run_ms(uint64_t default_ms)
{
    const char *seconds = getenv("MEMPLUG_STRESS_SECONDS");

    return seconds != NULL ? strtoull(seconds, NULL, 10) * 1000 : default_ms;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void storm(enum memplug_memmap memmap)
{
    uint64_t end = now_ms() + run_ms(2000);
    pthread_t threads[NR_WORKERS + 1];

    open_storm(memmap);
    for (unsigned i = 0; i < NR_WORKERS; i++)
        must(pthread_create(&threads[i], NULL, work, &workers[i]));
    must(pthread_create(&threads[NR_WORKERS], NULL, operate, NULL));
    while (now_ms() < end && atomic_load(&nr_errors) == 0)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    atomic_store(&stop, 1);
    for (unsigned i = 0; i <= NR_WORKERS; i++)
        pthread_join(threads[i], NULL);
    print_message("%u offlines\n", atomic_load(&nr_offlines));
    assert_true(atomic_load(&nr_offlines) > 0);
    close_storm();
}

static void with_own_memmaps(void **state)
{
    (void)state;
    storm(MEMPLUG_MEMMAP_BLOCK);
}

static void with_the_hosts_memmap(void **state)
{
    (void)state;
    storm(MEMPLUG_MEMMAP_HOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_own_memmaps),
        cmocka_unit_test(with_the_hosts_memmap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
