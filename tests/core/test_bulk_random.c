/* SPDX-License-Identifier: MIT */
/* Bulk calls in a random program, against a model that knows who has which frame. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "mini_pool.h"

#include <cmocka.h>

#define BLOCK_PAGES 256u
#define NR_BLOCKS 6u
#define NR_PAGES (NR_BLOCKS * BLOCK_PAGES)
#define NR_STEPS 6000u
#define MAX_BATCH 200u

static const struct mini_shape shape = {6, 8, NR_BLOCKS, 2, 2, 64};

static struct mini *mini;
static struct memplug *pool;
static struct memplug_slot *slot, *other;
static uint8_t mover;
static memplug_pfn_t pfns[NR_PAGES];
static int errors[NR_PAGES];
static uint8_t owner_of[NR_PAGES]; /* 0: nobody; 1: raw; 2: owned; 3: owned and pinned */
static uint64_t name_of[NR_PAGES], nr_owned, next_name;

static uint64_t cookie_of(memplug_pfn_t pfn)
{
    return atomic_load(&mpl_page_at(pool, pfn)->cookie);
}

static unsigned below(unsigned *random, unsigned limit)
{
    return (unsigned)rand_r(random) % limit;
}

/* What is nobody's; raw ones come from kernel zones. */
static unsigned nr_free_for(const struct memplug_alloc *request)
{
    unsigned end = request->mover != 0 ? MEMPLUG_NR_ZONES : MEMPLUG_ZONE_MOVABLE;
    unsigned nr = 0;

    for (uint64_t i = 0; i < NR_PAGES; i++) {
        const struct mpl_block *block = &pool->blocks[i / BLOCK_PAGES];

        nr += block->zone < end && owner_of[i] == 0 &&
              i % BLOCK_PAGES >= block->nr_memmap_pages &&
              (!request->this_node || request->node < 0 || request->node == block->node);
    }
    return nr;
}

static void take_some(unsigned *random)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = (int)below(random, 3) - 1};
    uint64_t cookies[MAX_BATCH];
    uint32_t nr = below(random, MAX_BATCH);
    bool told = below(random, 2) != 0;
    unsigned nr_there;
    int got;

    request.mover = below(random, 2) != 0 ? mover : 0;
    request.pinned = below(random, 8) == 0;
    request.this_node = below(random, 4) == 0;
    request.cookie = next_name;
    for (unsigned i = 0; i < nr; i++)
        cookies[i] = next_name + 7 * i;
    got = below(random, 2) != 0
              ? memplug_slot_alloc_bulk(below(random, 2) != 0 ? slot : other, &request,
                                        told ? cookies : NULL, pfns, nr)
              : memplug_alloc_bulk(pool, &request, told ? cookies : NULL, pfns, nr);
    nr_there = nr_free_for(&request);
    assert_int_equal(got, nr < nr_there ? nr : nr_there);
    for (int i = 0; i < got; i++) {
        uint64_t at = pfns[i].nr;

        assert_int_equal(owner_of[at], 0);
        owner_of[at] = request.mover == 0 ? 1 : request.pinned ? 3 : 2;
        name_of[at] = next_name + (told ? 7 : 1) * (unsigned)i;
        if (request.mover != 0)
            assert_int_equal(cookie_of(pfns[i]), name_of[at]);
    }
    nr_owned += (unsigned)got;
    next_name += 7 * nr;
}

/* Frames at random, in rows, or of nobody; some of them twice. */
static uint32_t choose(unsigned *random)
{
    uint32_t nr = below(random, MAX_BATCH), nr_chosen = 0;
    uint64_t at = below(random, NR_PAGES);
    unsigned how = below(random, 4);

    while (nr_chosen < nr) {
        at = how != 0 ? (at + how) % NR_PAGES : below(random, NR_PAGES);
        if (owner_of[at] != 0 || below(random, 16) == 0)
            pfns[nr_chosen++] = mpl_pfn(at);
        else if (nr_chosen < nr && below(random, 4) == 0)
            nr--;
        if (nr_chosen != 0 && nr_chosen < nr && below(random, 32) == 0) {
            pfns[nr_chosen] = pfns[below(random, nr_chosen)];
            nr_chosen++;
        }
    }
    return nr;
}

static int model_free(uint64_t at)
{
    const struct mpl_block *block = &pool->blocks[at / BLOCK_PAGES];

    if (block->zone >= MEMPLUG_NR_ZONES)
        return -MPL_ENODEV;
    if (owner_of[at] == 0 || owner_of[at] == 3)
        return owner_of[at] == 0 ? -MPL_EINVAL : -MPL_EBUSY;
    owner_of[at] = 0;
    nr_owned--;
    return 0;
}

static void give_some(unsigned *random)
{
    uint32_t nr = choose(random), nr_freed = 0, got;

    memset(errors, 0xee, sizeof(errors));
    got = below(random, 2) != 0
              ? memplug_slot_free_bulk(below(random, 2) != 0 ? slot : other, pfns, nr, errors)
              : memplug_free_bulk(pool, pfns, nr, errors);
    for (uint32_t i = 0; i < nr; i++) {
        int expected = model_free(pfns[i].nr);

        assert_int_equal(errors[i], expected);
        nr_freed += expected == 0;
    }
    assert_int_equal(got, nr_freed);
}

static void unpin_some(unsigned *random)
{
    for (unsigned i = below(random, 64); i < NR_PAGES; i++)
        if (owner_of[i] == 3 && below(random, 2) == 0) {
            assert_int_equal(memplug_unpin(pool, mpl_pfn(i)), 0);
            owner_of[i] = 2;
        }
}

/* Those who own a frame have it, with their name; nobody else has one. */
static void compare(void)
{
    mpl_percpu_drain(pool);
    mini_check(mini);
    for (uint64_t i = 0; i < NR_PAGES; i++)
        if (owner_of[i] != 0) {
            const struct mpl_block *block = &pool->blocks[i / BLOCK_PAGES];

            assert_int_equal(mpl_frame_get(pool, block, i % BLOCK_PAGES), MPL_FRAME_HEAD);
            assert_int_equal(mpl_frame_described(pool, block, i % BLOCK_PAGES), owner_of[i] != 1);
            if (owner_of[i] != 1)
                assert_int_equal(cookie_of(mpl_pfn(i)), name_of[i]);
        }
    assert_int_equal(mini_count(mini, MPL_FRAME_HEAD), nr_owned);
}

/* Bitmaps and counters of all blocks, and the zones. */
static uint64_t sum_of_state(void)
{
    uint64_t sum = 0;

    mpl_percpu_drain(pool);
    for (unsigned id = 1; id < NR_BLOCKS; id++) {
        struct mpl_block *block = &pool->blocks[id];

        if (block->zone >= MEMPLUG_NR_ZONES)
            continue;
        mpl_frames_own(pool, block);
        for (uint64_t i = 0; i < pool->layout.bytes; i++)
            sum = (sum ^ (uint8_t)block->bitmaps[i]) * UINT64_C(0x100000001b3);
        sum = (sum ^ block->nr_free) * UINT64_C(0x100000001b3);
        sum = (sum ^ mpl_zone_of(pool, block)->nr_free) * UINT64_C(0x100000001b3);
    }
    return sum;
}

static void random_program(void **context)
{
    unsigned random = 11;
    uint64_t before;

    (void)context;
    mini = mini_open(&shape);
    pool = &mini->pool;
    mover = mini_mover(mini);
    assert_int_equal(memplug_slot_open(pool, &slot), 0);
    assert_int_equal(memplug_slot_open(pool, &other), 0);
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 3);
    mini_online(mini, 2, 1, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 3, 0, MEMPLUG_ZONE_MOVABLE, 0);
    mini_online(mini, 5, 1, MEMPLUG_ZONE_MOVABLE, 70);
    before = sum_of_state();
    for (unsigned step = 0; step < NR_STEPS; step++) {
        mini_cpu = below(&random, 2);
        if (below(&random, 20) == 0)
            unpin_some(&random);
        else if (below(&random, 2) == 0)
            take_some(&random);
        else
            give_some(&random);
        if (step % 16 == 0)
            compare();
    }
    for (unsigned i = 0; i < NR_PAGES; i++) {
        if (owner_of[i] == 3)
            assert_int_equal(memplug_unpin(pool, mpl_pfn(i)), 0);
        pfns[i] = mpl_pfn(i);
    }
    assert_int_equal(memplug_free_bulk(pool, pfns, NR_PAGES, NULL), nr_owned);
    assert_int_equal(sum_of_state(), before);
    mini_check(mini);
    mini_close(mini);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_program)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
