/* SPDX-License-Identifier: MIT */
#include "schedules_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define PAGEBLOCK_ORDER 6u

unsigned block_order = PAGEBLOCK_ORDER;
uint32_t nr_pages = 1;
struct mini *mini;
uint8_t mover;
struct memplug_slot *slots[3];
memplug_pfn_t frame, neighbour, found[3];
int results[3];
static bool with_fence;

static void relax(void *host, unsigned nr_spins)
{
    (void)host;
    (void)nr_spins;
    schedules_wait();
}

static void fence(void *host)
{
    (void)host;
}

memplug_pfn_t take(struct memplug_slot *slot, uint8_t owner, uint32_t nr)
{
    struct memplug_alloc request = {.nr_pages = nr, .node = MEMPLUG_ANY_NODE, .mover = owner};
    memplug_pfn_t pfn = {0};

    assert_int_equal(memplug_slot_alloc(slot, &request, &pfn), 0);
    return pfn;
}

void open_fresh(void)
{
    const struct mini_shape shape = {PAGEBLOCK_ORDER, block_order, 3, 1, 1, 64};

    mini = mini_open(&shape);
    mini->ops.relax = relax;
    mini->ops.fence = with_fence ? fence : NULL;
    mover = mini_mover(mini);
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(memplug_slot_open(&mini->pool, &slots[i]), 0);
        found[i].nr = 0;
        results[i] = 1;
    }
}

void open_pool(void)
{
    open_fresh();
    for (unsigned id = 1; id < 3; id++) {
        mpl_frames_own(&mini->pool, mpl_block_at(&mini->pool, id));
    }
}

void close_pool(void)
{
    for (unsigned i = 0; i < 3; i++)
        memplug_slot_close(slots[i]);
    mpl_percpu_drain(&mini->pool);
    mini_check(mini);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), 2 << block_order);
    mini_close(mini);
}

void free_0(void)
{
    results[0] = memplug_slot_free(slots[0], frame, nr_pages);
}

void free_1(void)
{
    results[1] = memplug_slot_free(slots[1], frame, nr_pages);
}

void pin_1(void)
{
    results[1] = memplug_pin(&mini->pool, frame);
}

void free_by_cpu_1(void)
{
    results[1] = memplug_free(&mini->pool, frame, nr_pages);
}

void explore(const struct schedules_case *cases, unsigned nr_cases, bool fenced)
{
    with_fence = fenced;
    for (unsigned i = 0; i < nr_cases; i++)
        print_message("%s: %lu schedules\n", cases[i].name,
                      (unsigned long)schedules_run(&cases[i]));
}
