/* SPDX-License-Identifier: MIT */
/*
 * Threads that allocate and free while another one isolates blocks, drains the slots and begins
 * moves that it does not finish. A side table says who owns which frame. Made for ThreadSanitizer.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "mini_pool.h"

#include <cmocka.h>

#define NR_THREADS 4
#define NR_STEPS 15000
#define NR_OWNED 24
#define NR_BLOCKS 7
#define BLOCK_PAGES 256

static const struct mini_shape shape = {6, 8, NR_BLOCKS, 3, 1, 64};

struct owned {
    uint64_t pfn;
    uint32_t nr_pages;
    bool described;
};

struct stress {
    struct mini *mini;
    uint8_t mover;
    atomic_uint owner[NR_BLOCKS * BLOCK_PAGES];
    atomic_uint closed[NR_BLOCKS]; /* odd: nothing may be allocated in this block */
    atomic_uint nr_running, nr_errors, nr_failed, nr_remembered, nr_moving;
};

struct worker {
    struct stress *stress;
    unsigned number, random;
    struct owned owned[NR_OWNED];
};

static unsigned roll(struct worker *worker)
{
    worker->random = worker->random * 1103515245u + 12345;
    return worker->random >> 8;
}

static void expect(struct stress *stress, bool holds)
{
    if (!holds)
        atomic_fetch_add(&stress->nr_errors, 1);
}

static void own(struct worker *worker, const struct owned *owned, unsigned from, unsigned to)
{
    for (uint64_t i = owned->pfn; i < owned->pfn + owned->nr_pages; i++)
        expect(worker->stress, atomic_exchange(&worker->stress->owner[i], to) == from);
}

static void take(struct worker *worker, struct owned *owned)
{
    static const uint32_t sizes[] = {1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 192};
    struct stress *stress = worker->stress;
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};
    unsigned before[NR_BLOCKS];
    memplug_pfn_t pfn;
    uint64_t block;

    request.nr_pages = sizes[roll(worker) % (sizeof(sizes) / sizeof(sizes[0]))];
    request.mover = roll(worker) % 2 != 0 ? stress->mover : 0;
    for (unsigned i = 0; i < NR_BLOCKS; i++)
        before[i] = atomic_load(&stress->closed[i]);
    if (memplug_alloc(&stress->mini->pool, &request, &pfn) != 0) {
        atomic_fetch_add(&stress->nr_failed, 1);
        return;
    }
    block = pfn.nr / BLOCK_PAGES;
    expect(stress, before[block] % 2 == 0 || atomic_load(&stress->closed[block]) != before[block]);
    *owned = (struct owned){pfn.nr, request.nr_pages, request.mover != 0};
    own(worker, owned, 0, worker->number);
}

static void give(struct worker *worker, struct owned *owned)
{
    struct memplug *pool = &worker->stress->mini->pool;

    if (owned->described && roll(worker) % 2 != 0) {
        int error = memplug_pin(pool, mpl_pfn(owned->pfn));

        expect(worker->stress, error == 0 || error == -MPL_EAGAIN);
        if (error == 0) {
            expect(worker->stress,
                   memplug_free(pool, mpl_pfn(owned->pfn), owned->nr_pages) == -MPL_EBUSY);
            expect(worker->stress, memplug_unpin(pool, mpl_pfn(owned->pfn)) == 0);
        }
    }
    if (owned->nr_pages > 1)
        expect(worker->stress, memplug_free(pool, mpl_pfn(owned->pfn), 1) == -MPL_EINVAL);
    own(worker, owned, worker->number, 0);
    expect(worker->stress, memplug_free(pool, mpl_pfn(owned->pfn), owned->nr_pages) == 0);
    owned->nr_pages = 0;
}

static void *work(void *argument)
{
    struct worker *worker = argument;

    for (unsigned step = 0; step < NR_STEPS; step++) {
        struct owned *owned = &worker->owned[roll(worker) % NR_OWNED];

        if (step % 64 == 0)
            mini_cpu = roll(worker) % 3;
        if (owned->nr_pages != 0)
            give(worker, owned);
        else
            take(worker, owned);
    }
    for (unsigned i = 0; i < NR_OWNED; i++)
        if (worker->owned[i].nr_pages != 0)
            give(worker, &worker->owned[i]);
    atomic_fetch_sub(&worker->stress->nr_running, 1);
    return NULL;
}

/* As offline does: mark what can be moved under the zone's lock, and settle it without. */
static unsigned mark(struct stress *stress, struct mpl_block *block, struct memplug_move *moves)
{
    struct memplug *pool = &stress->mini->pool;
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    unsigned nr_moves = 0;

    mpl_spin_lock(pool, &zone->lock);
    for (uint64_t i = 0; mpl_frames_next_head(pool, block, &i); i++) {
        memplug_pfn_t pfn = mpl_pfn_add(mpl_block_start(pool, block), i);
        struct mpl_page *page = mpl_page_at(pool, pfn);

        expect(stress, mpl_frame_get(pool, block, i) == MPL_FRAME_HEAD);
        if (!mpl_frame_described(pool, block, i) ||
            !mpl_page_change(page, MPL_PAGE_USED, MPL_PAGE_MOVING))
            continue;
        expect(stress, page->mover == stress->mover);
        moves[nr_moves++] = (struct memplug_move){.from = pfn, .nr_pages = page->nr_pages};
    }
    expect(stress, mpl_frames_count(pool, block, MPL_FRAME_HELD) == 0);
    mpl_spin_unlock(&zone->lock);
    return nr_moves;
}

static void settle(struct stress *stress, const struct memplug_move *move)
{
    struct memplug *pool = &stress->mini->pool;
    struct mpl_page *page = mpl_page_at(pool, move->from);

    atomic_fetch_add(&stress->nr_moving, 1);
    if (mpl_page_change(page, MPL_PAGE_MOVING, MPL_PAGE_USED))
        return;
    expect(stress, mpl_page_change(page, MPL_PAGE_DYING, MPL_PAGE_NONE));
    mpl_free_frames(pool, move->from, move->nr_pages);
    atomic_fetch_add(&stress->nr_remembered, 1);
}

static void *isolate(void *argument)
{
    static struct memplug_move moves[BLOCK_PAGES];
    struct stress *stress = argument;
    struct memplug *pool = &stress->mini->pool;

    for (unsigned id = 1; atomic_load(&stress->nr_running) != 0; id = id % (NR_BLOCKS - 1) + 1) {
        unsigned nr_moves;

        mini_set_isolated(stress->mini, id, true);
        mpl_percpu_drain(pool);
        atomic_fetch_add(&stress->closed[id], 1);
        nr_moves = mark(stress, mpl_block_at(pool, id), moves);
        for (unsigned i = 0; i < 8; i++)
            sched_yield();
        for (unsigned i = 0; i < nr_moves; i++)
            settle(stress, &moves[i]);
        atomic_fetch_add(&stress->closed[id], 1);
        mini_set_isolated(stress->mini, id, false);
    }
    return NULL;
}

static void alloc_free_isolate(void **context)
{
    static struct stress stress;
    static struct worker workers[NR_THREADS];
    pthread_t threads[NR_THREADS + 1];

    (void)context;
    stress.mini = mini_open(&shape);
    stress.mover = mini_mover(stress.mini);
    for (unsigned id = 1; id < NR_BLOCKS; id++)
        mini_online(stress.mini, id, 0, id < 4 ? MEMPLUG_ZONE_NORMAL : MEMPLUG_ZONE_MOVABLE,
                    id == 2 ? 7 : 0);
    atomic_store(&stress.nr_running, NR_THREADS);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        workers[i] = (struct worker){.stress = &stress, .number = i + 1, .random = i * 77};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    assert_int_equal(pthread_create(&threads[NR_THREADS], NULL, isolate, &stress), 0);
    for (unsigned i = 0; i <= NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    print_message("%u failed, %u moving, %u freed meanwhile\n", atomic_load(&stress.nr_failed),
                  atomic_load(&stress.nr_moving), atomic_load(&stress.nr_remembered));
    assert_int_equal(atomic_load(&stress.nr_errors), 0);
    mpl_percpu_drain(&stress.mini->pool);
    mini_check(stress.mini);
    assert_int_equal(mini_count(stress.mini, MPL_FRAME_FREE), 6 * BLOCK_PAGES - 7);
    mini_close(stress.mini);
}

/* --- two frees of one allocation -------------------------------------------------------------- */

#define NR_ROUNDS 3000

struct twice {
    struct mini *mini;
    memplug_pfn_t pfn;
    uint32_t nr_pages;
    int refusal; /* that a free may have too */
    atomic_uint ready, phase, nr_done, nr_won, disturbed;
};

static void *free_too(void *argument)
{
    struct twice *twice = argument;

    mini_cpu = 1;
    for (unsigned round = 1; round <= NR_ROUNDS; round++) {
        int error;

        atomic_store(&twice->ready, round);
        for (unsigned i = 0; atomic_load(&twice->phase) != round; i++)
            if (i > 20000)
                sched_yield();
        error = memplug_free(&twice->mini->pool, twice->pfn, twice->nr_pages);
        if (error == 0)
            atomic_fetch_add(&twice->nr_won, 1);
        else if (error != -MPL_EINVAL && error != twice->refusal)
            atomic_fetch_add(&twice->nr_won, 100);
        atomic_store(&twice->nr_done, round);
    }
    return NULL;
}

static void one_free_wins(void **context)
{
    static struct twice twice;
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};
    unsigned nr_mine = 0;
    pthread_t thread;
    uint8_t mover;

    (void)context;
    twice.mini = mini_open(&shape);
    twice.refusal = -MPL_EINVAL;
    mover = mini_mover(twice.mini);
    mini_online(twice.mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(pthread_create(&thread, NULL, free_too, &twice), 0);
    for (unsigned round = 1; round <= NR_ROUNDS; round++) {
        int error;

        twice.nr_pages = request.nr_pages = round % 4 < 2 ? 1 : 128;
        request.mover = round % 2 != 0 ? mover : 0;
        mini_set_isolated(twice.mini, 1, false);
        assert_int_equal(memplug_alloc(&twice.mini->pool, &request, &twice.pfn), 0);
        if (round % 3 == 0)
            mini_set_isolated(twice.mini, 1, true);
        atomic_store(&twice.nr_won, 0);
        while (atomic_load(&twice.ready) != round)
            sched_yield();
        atomic_store(&twice.phase, round);
        for (volatile unsigned i = 0; i < round % 2000; i++)
            ;
        error = memplug_free(&twice.mini->pool, twice.pfn, twice.nr_pages);
        while (atomic_load(&twice.nr_done) != round)
            sched_yield();
        assert_int_equal(error == 0 ? 1 : error == -MPL_EINVAL ? 0 : 100,
                         1 - (int)atomic_load(&twice.nr_won));
        nr_mine += error == 0;
    }
    pthread_join(thread, NULL);
    print_message("%u of %u won by the main thread\n", nr_mine, (unsigned)NR_ROUNDS);
    mpl_percpu_drain(&twice.mini->pool);
    mini_set_isolated(twice.mini, 1, false);
    mini_check(twice.mini);
    assert_int_equal(mini_count(twice.mini, MPL_FRAME_FREE), BLOCK_PAGES);
    mini_close(twice.mini);
}

/* --- and somebody who makes them look at the page --------------------------------------------- */

/* In each round the block's mark, and its isolation, are new. */
static void *disturb(void *argument)
{
    struct twice *twice = argument;

    mini_cpu = 0;
    for (unsigned round = 1; round <= NR_ROUNDS; round++) {
        while (atomic_load(&twice->phase) != round)
            sched_yield();
        for (volatile unsigned i = 0; i < round * 7 % 1000; i++)
            ;
        if (round % 2 == 0) {
            mini_set_isolated(twice->mini, 1, true);
            mini_set_isolated(twice->mini, 1, false);
        } else if (memplug_pin(&twice->mini->pool, twice->pfn) == 0 &&
                   memplug_unpin(&twice->mini->pool, twice->pfn) != 0) {
            atomic_fetch_add(&twice->nr_won, 100);
        }
        atomic_store(&twice->disturbed, round);
    }
    return NULL;
}

/* One has it, or none where it was pinned when both looked; and nobody waits for long. */
static unsigned free_beside(struct twice *twice, unsigned round)
{
    int error;

    MPL_PUT(mpl_block_at(&twice->mini->pool, 1)->marked, false);
    atomic_store(&twice->nr_won, 0);
    while (atomic_load(&twice->ready) != round)
        sched_yield();
    atomic_store(&twice->phase, round);
    for (volatile unsigned i = 0; i < round % 1000; i++)
        ;
    error = memplug_free(&twice->mini->pool, twice->pfn, 1);
    while (atomic_load(&twice->nr_done) != round || atomic_load(&twice->disturbed) != round)
        sched_yield();
    if (error == 0)
        return atomic_load(&twice->nr_won) + 1;
    if (atomic_load(&twice->nr_won) != 0)
        return atomic_load(&twice->nr_won);
    return memplug_free(&twice->mini->pool, twice->pfn, 1) == 0 ? 1 : 0;
}

static void one_free_wins_beside(void **context)
{
    static struct twice twice;
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE};
    pthread_t threads[2];

    (void)context;
    twice.mini = mini_open(&shape);
    twice.nr_pages = 1;
    twice.refusal = -MPL_EBUSY;
    request.mover = mini_mover(twice.mini);
    mini_online(twice.mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(pthread_create(&threads[0], NULL, free_too, &twice), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, disturb, &twice), 0);
    for (unsigned round = 1; round <= NR_ROUNDS; round++) {
        assert_int_equal(memplug_alloc(&twice.mini->pool, &request, &twice.pfn), 0);
        assert_int_equal(free_beside(&twice, round), 1);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    mpl_percpu_drain(&twice.mini->pool);
    mini_check(twice.mini);
    assert_int_equal(mini_count(twice.mini, MPL_FRAME_FREE), BLOCK_PAGES);
    mini_close(twice.mini);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alloc_free_isolate),
        cmocka_unit_test(one_free_wins),
        cmocka_unit_test(one_free_wins_beside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
