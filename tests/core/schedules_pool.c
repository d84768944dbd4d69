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

void end_two_frees(void)
{
    assert_int_equal(results[0] + results[1], -MPL_EINVAL);
    assert_true(results[0] == 0 || results[1] == 0);
    close_pool();
}

/* Both may be refused; both cannot have what they want, and nothing is left of a refusal. */
void end_free_and_pin(void)
{
    assert_true(results[0] == 0 || results[0] == -MPL_EBUSY);
    assert_true(results[1] == 0 || results[1] == -MPL_EINVAL);
    assert_false(results[0] == 0 && results[1] == 0);
    if (results[1] == 0)
        assert_int_equal(memplug_unpin(&mini->pool, frame), 0);
    if (results[0] != 0)
        assert_int_equal(memplug_free(&mini->pool, frame, nr_pages), 0);
    close_pool();
}

void mark_2(void)
{
    results[2] = memplug_pin(&mini->pool, frame);
    if (results[2] == 0)
        results[2] = memplug_unpin(&mini->pool, frame);
}

static void isolate(bool isolated)
{
    mini_set_isolated(mini, frame.nr >> block_order, isolated);
}

void isolate_2(void)
{
    isolate(true);
}

void isolate_for_a_while_2(void)
{
    isolate(true);
    isolate(false);
}

/* One has it, or it was pinned when each of them looked. */
void end_looking_frees(void)
{
    assert_false(results[0] == 0 && results[1] == 0);
    for (unsigned i = 0; i < 2; i++)
        assert_true(results[i] == 0 || results[i] == -MPL_EINVAL ||
                    (results[i] == -MPL_EBUSY && results[2] == 0));
    isolate(false);
    if (results[0] != 0 && results[1] != 0) {
        assert_int_equal(results[2], 0);
        assert_int_equal(memplug_free(&mini->pool, frame, nr_pages), 0);
    }
    close_pool();
}

/* Offline's steps: when every slot was passed, nobody holds anything of the block. */
int pass_block_2(void)
{
    struct mpl_block *block = mpl_block_at(&mini->pool, 2);
    struct mpl_zone *zone = mpl_zone_of(&mini->pool, block);
    int nr_held;

    mini_set_isolated(mini, 2, true);
    mpl_percpu_pass(&mini->pool);
    mpl_spin_lock(&mini->pool, &zone->lock);
    nr_held = (int)mpl_frames_count(&mini->pool, block, MPL_FRAME_HELD);
    mpl_spin_unlock(&zone->lock);
    return nr_held;
}

/* --- all of them ------------------------------------------------------------------------------ */

static const struct schedules_case *all;
static unsigned nr_all, nr_fenced;

static void explore(unsigned nr, bool fenced)
{
    with_fence = fenced;
    for (unsigned i = 0; i < nr; i++)
        print_message("%s: %lu schedules\n", all[i].name, (unsigned long)schedules_run(&all[i]));
}

static void with_exchange(void **context)
{
    (void)context;
    explore(nr_all, false);
}

static void with_a_fence(void **context)
{
    (void)context;
    explore(nr_fenced, true);
}

int explore_all(const struct schedules_case *cases, unsigned nr_cases, unsigned nr_with_fence)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_exchange),
        cmocka_unit_test(with_a_fence),
    };

    all = cases;
    nr_all = nr_cases;
    nr_fenced = nr_with_fence;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
