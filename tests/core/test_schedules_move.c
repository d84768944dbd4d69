/* SPDX-License-Identifier: MIT */
/*
 * The sources of a move, which are given back a word at once and in no slot, in every schedule with
 * a late free, a pin, and the next owner.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "schedules_pool.h"

#include <cmocka.h>

#define NR_CASES (sizeof(cases) / sizeof(cases[0]))

static void nothing(void)
{
}

/* Two frames of a word; who moves them is in no slot. */
static void begin_sources(void)
{
    open_pool();
    frame = take(slots[0], mover, 1);
    neighbour = take(slots[0], mover, 1);
    assert_int_equal(neighbour.nr, frame.nr + 1);
}

static void begin_sources_one_slot(void)
{
    begin_sources();
    memplug_slot_close(slots[1]);
    memplug_slot_close(slots[2]);
}

/* As a move from its isolation to its end: results[2] frames moved. */
static void move_2(void)
{
    struct memplug *pool = &mini->pool;
    struct mpl_block *block = mpl_block_at(pool, 2);
    struct mpl_zone *zone = mpl_zone_of(pool, block);
    uint64_t first = mpl_pfn_distance(mpl_block_start(pool, block), frame), mask = 0;

    mini_set_isolated(mini, 2, true);
    mpl_percpu_pass(pool);
    mpl_spin_lock(pool, &zone->lock);
    for (unsigned i = 0; i < 2; i++)
        if (mpl_frame_get(pool, block, first + i) == MPL_FRAME_HEAD &&
            mpl_page_change(mpl_page_at(pool, mpl_pfn_add(frame, i)), MPL_PAGE_USED,
                            MPL_PAGE_MOVING))
            mask |= (uint64_t)1 << (first + i) % 64;
    mpl_spin_unlock(&zone->lock);
    for (unsigned i = 0; i < 2; i++) {
        struct mpl_page *page = mpl_page_at(pool, mpl_pfn_add(frame, i));

        if ((mask >> (first + i) % 64 & 1) != 0 &&
            !mpl_page_change(page, MPL_PAGE_MOVING, MPL_PAGE_NONE))
            assert_true(mpl_page_change(page, MPL_PAGE_DYING, MPL_PAGE_NONE));
    }
    if (mask != 0)
        mpl_percpu_free_word(pool, block, first / 64, mask);
    results[2] = __builtin_popcountll(mask);
}

static void move_and_alloc_pinned_2(void)
{
    struct memplug_alloc request = {
        .nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = mover, .pinned = true};

    move_2();
    mini_set_isolated(mini, 2, false);
    assert_int_equal(memplug_slot_alloc(slots[2], &request, &found[2]), 0);
}

/* Freed before it moved, while it did, or too late. */
static void end_free_and_move(void)
{
    assert_true(results[0] == 0 || results[0] == -MPL_EINVAL);
    assert_true(results[2] == 2 || (results[2] == 1 && results[0] == 0));
    mini_set_isolated(mini, 2, false);
    assert_int_equal(memplug_free(&mini->pool, frame, 1), -MPL_EINVAL);
    close_pool();
}

static void end_two_frees_and_move(void)
{
    assert_true(results[1] == 0 || results[1] == -MPL_EINVAL);
    assert_false(results[0] == 0 && results[1] == 0);
    for (unsigned i = 1; i < 3; i++)
        assert_int_equal(memplug_slot_open(&mini->pool, &slots[i]), 0);
    results[0] = results[0] == 0 ? 0 : results[1];
    end_free_and_move();
}

/* What was pinned in time stays; what moves just now may be asked for again. */
static void end_pin_and_move(void)
{
    assert_true(results[1] == 0 || results[1] == -MPL_EAGAIN || results[1] == -MPL_EINVAL);
    assert_int_equal(results[2], 1 + (results[1] != 0));
    mini_set_isolated(mini, 2, false);
    if (results[1] == 0) {
        assert_int_equal(memplug_unpin(&mini->pool, frame), 0);
        assert_int_equal(memplug_free(&mini->pool, frame, 1), 0);
    }
    close_pool();
}

/* Also the next owner's pin holds, however late the last one frees. */
static void end_free_and_new_owner(void)
{
    assert_true(results[1] == 0 || results[1] == -MPL_EINVAL || results[1] == -MPL_EBUSY);
    assert_int_equal(memplug_unpin(&mini->pool, found[2]), 0);
    assert_int_equal(memplug_free(&mini->pool, found[2], 1), 0);
    close_pool();
}

static const struct schedules_case cases[] = {
    {"free and move", 3, begin_sources, {free_0, nothing, move_2}, end_free_and_move},
    {"pin and move", 3, begin_sources, {nothing, pin_1, move_2}, end_pin_and_move},
    {"free, move, and alloc pinned", 3, begin_sources, {nothing, free_1, move_and_alloc_pinned_2},
     end_free_and_new_owner},
    {"two frees and move", 3, begin_sources_one_slot, {free_0, free_by_cpu_1, move_2},
     end_two_frees_and_move},
};

/* With a fence but for the last one, which takes a minute. */
int main(void)
{
    return explore_all(cases, NR_CASES, NR_CASES - 1);
}
