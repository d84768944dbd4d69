/* SPDX-License-Identifier: MIT */
/*
 * Bulk calls in every schedule of two fibres: frees of arrays that overlap, frees beside an
 * isolation and its pass, beside a pin, and beside a single free and the frame's next life.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "schedules_pool.h"

#include <cmocka.h>

#define NR_GIVEN 3u

static memplug_pfn_t given[NR_GIVEN], taken[2];
static int errors[2][2], nr_freed[2];

/* --- arrays that overlap ---------------------------------------------------------------------- */

static void begin_with(uint8_t owner, struct memplug_slot **slot)
{
    memset(taken, 0, sizeof(taken));
    for (unsigned i = 0; i < 2; i++)
        errors[i][0] = errors[i][1] = nr_freed[i] = 1;
    for (unsigned i = 0; i < NR_GIVEN; i++)
        given[i] = take(*slot, owner, 1);
    frame = given[1];
}

static void begin_raw(void)
{
    open_pool();
    begin_with(0, &slots[2]);
}

static void begin_owned(void)
{
    open_pool();
    begin_with(mover, &slots[2]);
}

/* The word is at hand where it is freed. */
static void begin_at_hand(void)
{
    open_pool();
    begin_with(mover, &slots[0]);
}

static void begin_marked(void)
{
    begin_owned();
    assert_int_equal(memplug_pin(&mini->pool, given[1]), 0);
    assert_int_equal(memplug_unpin(&mini->pool, given[1]), 0);
}

/* The first two of them, and the last two the other way round. */
static void bulk_0(void)
{
    nr_freed[0] = (int)memplug_slot_free_bulk(slots[0], given, 2, errors[0]);
}

static void bulk_1(void)
{
    memplug_pfn_t turned[2] = {given[2], given[1]};

    nr_freed[1] = (int)memplug_slot_free_bulk(slots[1], turned, 2, errors[1]);
}

static void bulk_by_cpu_1(void)
{
    memplug_pfn_t turned[2] = {given[2], given[1]};

    nr_freed[1] = (int)memplug_free_bulk(&mini->pool, turned, 2, errors[1]);
}

static void same_1(void)
{
    nr_freed[1] = (int)memplug_slot_free_bulk(slots[1], given, 2, errors[1]);
}

static void check_counts(void)
{
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(nr_freed[i], (errors[i][0] == 0) + (errors[i][1] == 0));
}

/* What both have is freed once, and what one has as well. */
static void end_overlap(void)
{
    assert_int_equal(errors[0][0], 0);
    assert_int_equal(errors[1][0], 0);
    assert_int_equal(errors[0][1] + errors[1][1], -MPL_EINVAL);
    assert_true(errors[0][1] == 0 || errors[1][1] == 0);
    check_counts();
    close_pool();
}

static void end_same(void)
{
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(errors[0][i] + errors[1][i], -MPL_EINVAL);
        assert_true(errors[0][i] == 0 || errors[1][i] == 0);
    }
    check_counts();
    assert_int_equal(memplug_free(&mini->pool, given[2], 1), 0);
    close_pool();
}

/* --- a pass ----------------------------------------------------------------------------------- */

static void isolate_and_pass_1(void)
{
    results[1] = pass_block_2();
}

static void pass_1(void)
{
    isolate_and_pass_1();
    mini_set_isolated(mini, 2, false);
}

static void end_free_and_pass(void)
{
    assert_int_equal(results[1], 0);
    mini_set_isolated(mini, 2, false);
    assert_int_equal(nr_freed[0], 2);
    assert_int_equal(memplug_free(&mini->pool, given[2], 1), 0);
    close_pool();
}

/* As free_bulk(), of both frames, while somebody isolates and does not wait. */
static void isolate_and_free_1(void)
{
    mini_set_isolated(mini, 2, true);
    same_1();
}

static void end_isolated(void)
{
    mini_set_isolated(mini, 2, false);
    end_same();
}

static void bulk_alloc_0(void)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = mover};

    results[0] = memplug_slot_alloc_bulk(slots[0], &request, NULL, taken, 2);
}

static void begin_free(void)
{
    begin_at_hand();
    assert_int_equal(memplug_slot_free_bulk(slots[0], given, NR_GIVEN, NULL), NR_GIVEN);
}

static void end_alloc_and_pass(void)
{
    assert_int_equal(results[1], 0);
    mini_set_isolated(mini, 2, false);
    assert_int_equal(results[0], 2);
    assert_int_not_equal(taken[0].nr, taken[1].nr);
    assert_int_equal(memplug_free_bulk(&mini->pool, taken, 2, NULL), 2);
    close_pool();
}

/* --- a pin, and a next life ------------------------------------------------------------------- */

/* The other frame is freed, whoever has this one. */
static void end_bulk_and_pin(void)
{
    assert_int_equal(errors[0][0], 0);
    assert_true(errors[0][1] == 0 || errors[0][1] == -MPL_EBUSY);
    assert_true(results[1] == 0 || results[1] == -MPL_EINVAL);
    assert_false(errors[0][1] == 0 && results[1] == 0);
    assert_int_equal(nr_freed[0], 1 + (errors[0][1] == 0));
    if (results[1] == 0)
        assert_int_equal(memplug_unpin(&mini->pool, frame), 0);
    if (errors[0][1] != 0)
        assert_int_equal(memplug_free(&mini->pool, frame, 1), 0);
    assert_int_equal(memplug_free(&mini->pool, given[2], 1), 0);
    close_pool();
}

static void begin_pinned(void)
{
    begin_owned();
    assert_int_equal(memplug_pin(&mini->pool, frame), 0);
}

/* A block that is marked: its frames do not seem free while a free is refused. */
static void end_refused(void)
{
    assert_int_equal(errors[0][0], 0);
    assert_int_equal(errors[0][1], -MPL_EBUSY);
    assert_int_equal(results[1], 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(memplug_unpin(&mini->pool, frame), 0);
    assert_int_equal(memplug_free_bulk(&mini->pool, given + 1, 2, NULL), 2);
    close_pool();
}

/* Freed, and allocated pinned, many at once. */
static void free_and_alloc_pinned_0(void)
{
    struct memplug_alloc request = {
        .nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = mover, .pinned = true};

    bulk_0();
    if (nr_freed[0] == 2)
        assert_int_equal(memplug_slot_alloc_bulk(slots[0], &request, NULL, taken, 2), 2);
}

/* A pin that its new owner has holds, however late the last one frees. */
static void end_pinned(void)
{
    assert_int_equal(errors[0][0], 0);
    assert_int_equal(errors[0][1] == 0, taken[0].nr != 0);
    assert_true(errors[0][1] == 0 || errors[0][1] == -MPL_EINVAL);
    assert_true(results[1] == 0 || results[1] == -MPL_EINVAL || results[1] == -MPL_EBUSY);
    assert_int_equal((errors[0][1] == 0) + (results[1] == 0), 1);
    for (unsigned i = 0; i < 2 && taken[0].nr != 0; i++) {
        assert_int_equal(memplug_unpin(&mini->pool, taken[i]), 0);
        assert_int_equal(memplug_free(&mini->pool, taken[i], 1), 0);
    }
    assert_int_equal(memplug_free(&mini->pool, given[2], 1), 0);
    close_pool();
}

/* --- all -------------------------------------------------------------------------------------- */

static const struct schedules_case cases[] = {
    {"bulk frees that overlap, raw", 2, begin_raw, {bulk_0, bulk_1}, end_overlap},
    {"bulk frees that overlap, owned", 2, begin_owned, {bulk_0, bulk_1}, end_overlap},
    {"bulk frees that overlap, at hand", 2, begin_at_hand, {bulk_0, bulk_1}, end_overlap},
    {"bulk frees that overlap, marked", 2, begin_marked, {bulk_0, bulk_1}, end_overlap},
    {"bulk frees that overlap, one by the CPU's slot", 2, begin_owned, {bulk_0, bulk_by_cpu_1},
     end_overlap},
    {"bulk frees of the same, raw", 2, begin_raw, {bulk_0, same_1}, end_same},
    {"bulk frees of the same, owned", 2, begin_owned, {bulk_0, same_1}, end_same},
    {"bulk frees of the same, and an isolation", 2, begin_owned, {bulk_0, isolate_and_free_1},
     end_isolated},
    {"bulk free and pass", 2, begin_owned, {bulk_0, isolate_and_pass_1}, end_free_and_pass},
    {"bulk free and pass, at hand", 2, begin_at_hand, {bulk_0, pass_1}, end_free_and_pass},
    {"bulk alloc and pass", 2, begin_free, {bulk_alloc_0, pass_1}, end_alloc_and_pass},
    {"bulk free and pin", 2, begin_owned, {bulk_0, pin_1}, end_bulk_and_pin},
    {"bulk free and pin, at hand", 2, begin_at_hand, {bulk_0, pin_1}, end_bulk_and_pin},
    {"bulk free of a pinned page, and a pin", 2, begin_pinned, {bulk_0, pin_1}, end_refused},
    {"bulk free, alloc pinned, and free", 2, begin_at_hand, {free_and_alloc_pinned_0, free_1},
     end_pinned},
};

int main(void)
{
    return explore_all(cases, sizeof(cases) / sizeof(cases[0]), sizeof(cases) / sizeof(cases[0]));
}
