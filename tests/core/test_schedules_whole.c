/* SPDX-License-Identifier: MIT */
/*
 * Whole pageblocks that slots take and give without the zone's lock, in every schedule: two frees
 * of one, a free and a pin, offline's pass, a wrong size, a target that is dropped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "schedules_pool.h"

#include <cmocka.h>

#define WHOLE 64u

static void begin_raw(void)
{
    open_pool();
    frame = take(slots[2], 0, WHOLE);
}

static void begin_owned(void)
{
    open_pool();
    frame = take(slots[2], mover, WHOLE);
}

static void begin_marked(void)
{
    begin_owned();
    assert_int_equal(memplug_pin(&mini->pool, frame), 0);
    assert_int_equal(memplug_unpin(&mini->pool, frame), 0);
}

/* The slot that frees next has one already, which makes room. */
static void begin_full(void)
{
    memplug_pfn_t other;

    begin_owned();
    other = take(slots[0], mover, WHOLE);
    assert_int_equal(memplug_slot_free(slots[0], other, WHOLE), 0);
}

/* And it is the next that the slot gives. */
static void begin_held(void)
{
    open_pool();
    frame = take(slots[0], mover, WHOLE);
    assert_int_equal(memplug_slot_free(slots[0], frame, WHOLE), 0);
}

/* Nothing else is free. */
static void begin_last(void)
{
    begin_owned();
    for (unsigned i = 0; i < 2; i++)
        found[i] = take(slots[2], mover, WHOLE);
    neighbour = take(slots[2], mover, WHOLE);
}

static void give(memplug_pfn_t pfn)
{
    assert_int_equal(memplug_free(&mini->pool, pfn, WHOLE), 0);
}

/* --- frees ------------------------------------------------------------------------------------ */

/* Of parts of it none is an allocation, at no moment. */
static void free_parts_1(void)
{
    results[1] = memplug_slot_free(slots[1], frame, 1);
    if (results[1] == -MPL_EINVAL)
        results[1] = memplug_slot_free(slots[1], mpl_pfn_add(frame, 1), 1);
    if (results[1] == -MPL_EINVAL)
        results[1] = memplug_slot_free(slots[1], frame, WHOLE / 2);
}

static void end_free_and_parts(void)
{
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], -MPL_EINVAL);
    close_pool();
}

/* --- the next owner --------------------------------------------------------------------------- */

static void free_and_alloc(bool pinned)
{
    struct memplug_alloc request = {
        .nr_pages = WHOLE, .node = MEMPLUG_ANY_NODE, .mover = mover, .pinned = pinned};

    results[0] = memplug_slot_free(slots[0], frame, WHOLE);
    if (results[0] == 0)
        results[2] = memplug_slot_alloc(slots[0], &request, &found[0]);
}

static void free_and_alloc_pinned_0(void)
{
    free_and_alloc(true);
}

/* Each pin that was granted is there, and no other. */
static void end_new_owner_and_pin(void)
{
    bool same = results[0] == 0 && found[0].nr == frame.nr;
    unsigned nr_pins = (results[1] == 0) + same;

    assert_true(results[0] == 0 || results[0] == -MPL_EBUSY);
    assert_true(results[0] != 0 || results[2] == 0);
    for (; nr_pins > 0; nr_pins--)
        assert_int_equal(memplug_unpin(&mini->pool, frame), 0);
    assert_int_not_equal(memplug_unpin(&mini->pool, frame), 0);
    if (results[0] == 0 && !same)
        assert_int_equal(memplug_unpin(&mini->pool, found[0]), 0);
    give(results[0] == 0 ? found[0] : frame);
    close_pool();
}

/* As a move that fails: the pageblock's next life is a target's, which the core ends. */
static void free_and_target_1(void)
{
    struct memplug *pool = &mini->pool;
    const struct mpl_page source = {.nr_pages = WHOLE, .mover = mover};
    struct mpl_page *page;

    results[1] = memplug_slot_free(slots[1], frame, WHOLE);
    if (results[1] != 0 || mpl_alloc_target(pool, 0, &source, &found[2]) != 0)
        return;
    page = mpl_page_at(pool, found[2]);
    if (!mpl_page_change(page, MPL_PAGE_TARGET, MPL_PAGE_NONE))
        assert_true(mpl_page_change(page, MPL_PAGE_DYING, MPL_PAGE_NONE));
    mpl_free_frames(pool, found[2], WHOLE);
}

/* One that frees the target is believed, for the core has not ended it yet. */
static void end_free_and_target(void)
{
    assert_true(results[0] == 0 || results[0] == -MPL_EINVAL);
    assert_true(results[1] == 0 || results[0] == 0);
    give(found[0]);
    give(found[1]);
    give(neighbour);
    close_pool();
}

/* Its next life has another size. */
static void free_and_halve_1(void)
{
    results[1] = memplug_slot_free(slots[1], frame, WHOLE);
    mpl_slot_drain(&mini->pool, (struct mpl_slot *)(void *)slots[1]);
    if (results[1] == 0)
        found[1] = take(slots[1], mover, WHOLE / 2);
}

static void end_halved(void)
{
    assert_int_equal(results[0] + results[1], -MPL_EINVAL);
    if (results[1] == 0)
        assert_int_equal(memplug_free(&mini->pool, found[1], WHOLE / 2), 0);
    close_pool();
}

/* --- a pass ----------------------------------------------------------------------------------- */

static void pass_1(void)
{
    results[2] = pass_block_2();
    mini_set_isolated(mini, 2, false);
}

static void alloc_0(void)
{
    struct memplug_alloc request = {.nr_pages = WHOLE, .node = MEMPLUG_ANY_NODE, .mover = mover};

    results[0] = memplug_slot_alloc(slots[0], &request, &found[0]);
}

static void end_alloc_and_pass(void)
{
    assert_int_equal(results[2], 0);
    assert_int_equal(results[0], 0);
    give(found[0]);
    close_pool();
}

static void end_free_and_pass(void)
{
    assert_int_equal(results[2], 0);
    assert_int_equal(results[0], 0);
    close_pool();
}

/* --- the frame behind it ---------------------------------------------------------------------- */

/* Its two bits are seen at two moments, and may look like another tail. */
static void begin_neighbours(void)
{
    begin_owned();
    neighbour = take(slots[1], mover, 1);
    assert_int_equal(neighbour.nr, frame.nr + WHOLE);
}

static void recycle_1(void)
{
    results[1] = memplug_slot_free(slots[1], neighbour, 1);
    mpl_slot_drain(&mini->pool, (struct mpl_slot *)(void *)slots[1]);
    neighbour = take(slots[1], mover, 1);
}

static void end_neighbours(void)
{
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], 0);
    assert_int_equal(memplug_free(&mini->pool, neighbour, 1), 0);
    close_pool();
}

static const struct schedules_case cases[] = {
    {"two frees, raw", 2, begin_raw, {free_0, free_1}, end_two_frees},
    {"two frees, owned", 2, begin_owned, {free_0, free_1}, end_two_frees},
    {"two frees, marked", 2, begin_marked, {free_0, free_1}, end_two_frees},
    {"two frees, one with a full slot", 2, begin_full, {free_0, free_1}, end_two_frees},
    {"two frees, one by the CPU's slot", 2, begin_owned, {free_0, free_by_cpu_1}, end_two_frees},
    {"free and pin", 2, begin_owned, {free_0, pin_1}, end_free_and_pin},
    {"free and pin, marked", 2, begin_marked, {free_0, pin_1}, end_free_and_pin},
    {"free and parts of it", 2, begin_owned, {free_0, free_parts_1}, end_free_and_parts},
    {"free, alloc pinned, and pin", 2, begin_owned, {free_and_alloc_pinned_0, pin_1},
     end_new_owner_and_pin},
    {"two frees and a mark", 3, begin_owned, {free_0, free_1, mark_2}, end_looking_frees},
    {"two frees and an isolation", 3, begin_owned, {free_0, free_1, isolate_2},
     end_looking_frees},
    {"two frees and an isolation, raw", 3, begin_raw, {free_0, free_1, isolate_2},
     end_looking_frees},
    {"two frees and a short isolation", 3, begin_owned, {free_0, free_1, isolate_for_a_while_2},
     end_looking_frees},
    {"free, and a target that is dropped", 2, begin_last, {free_0, free_and_target_1},
     end_free_and_target},
    {"free, and a life of another size", 2, begin_owned, {free_0, free_and_halve_1}, end_halved},
    {"alloc and pass", 2, begin_held, {alloc_0, pass_1}, end_alloc_and_pass},
    {"free and pass", 2, begin_owned, {free_0, pass_1}, end_free_and_pass},
    {"neighbours", 2, begin_neighbours, {free_0, recycle_1}, end_neighbours},
};

int main(void)
{
    block_order = 7; /* the last pageblock of a block goes the long way */
    nr_pages = WHOLE;
    return explore_all(cases, sizeof(cases) / sizeof(cases[0]), sizeof(cases) / sizeof(cases[0]));
}
