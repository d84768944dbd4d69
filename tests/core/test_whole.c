/* SPDX-License-Identifier: MIT */
/* Pageblocks that are allocated and freed as a whole, and stay in slots in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <memplug/view.h>

#include "mini_pool.h"

#include <cmocka.h>

#define WHOLE 128u /* two words */
#define BLOCK_PAGES 512u

static const struct mini_shape shape = {7, 9, 6, 2, 2, 64};

static struct mini *mini;
static struct memplug_slot *slot;
static uint8_t mover;

/* Block 1 in Normal, block 2 in Movable; both of node 0. */
static int open_pool(void **context)
{
    (void)context;
    mini = mini_open(&shape);
    mover = mini_mover(mini);
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    return memplug_slot_open(&mini->pool, &slot);
}

static int close_pool(void **context)
{
    (void)context;
    memplug_slot_close(slot);
    mpl_percpu_drain(&mini->pool);
    mini_check(mini);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), 2 * BLOCK_PAGES);
    mini_close(mini);
    return 0;
}

static int try_take(uint8_t owner, int node, uint32_t nr_pages, uint64_t *nr)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .node = node, .mover = owner};
    memplug_pfn_t pfn = {0};
    int error = memplug_slot_alloc(slot, &request, &pfn);

    *nr = pfn.nr;
    return error;
}

static uint64_t take(uint8_t owner)
{
    uint64_t nr;

    assert_int_equal(try_take(owner, MEMPLUG_ANY_NODE, WHOLE, &nr), 0);
    return nr;
}

static int give(uint64_t nr, uint32_t nr_pages)
{
    return memplug_slot_free(slot, mpl_pfn(nr), nr_pages);
}

static uint64_t nr_held(void)
{
    return mini_count(mini, MPL_FRAME_HELD);
}

/* The lowest would be another by then. */
static void comes_back_first(void **context)
{
    uint64_t first = take(mover), second = take(mover);

    (void)context;
    assert_int_equal(first, 2 * BLOCK_PAGES);
    assert_int_equal(give(second, WHOLE), 0);
    assert_int_equal(nr_held(), 1);
    assert_int_equal(give(first, WHOLE), 0); /* the other one made room */
    assert_int_equal(nr_held(), 1);
    assert_int_equal(take(mover), first);
    assert_int_equal(give(first, WHOLE), 0);
}

/* Nobody frees it a second time, or a part of it, or takes it, while the slot has it. */
static void is_nobodys(void **context)
{
    struct memplug_alloc exact = {.nr_pages = 1, .mover = mover};
    uint64_t pfn = take(mover);

    (void)context;
    assert_int_equal(give(pfn, WHOLE / 2), -MPL_EINVAL);
    assert_int_equal(give(pfn, 2 * WHOLE), -MPL_EINVAL);
    assert_int_equal(give(pfn, 1), -MPL_EINVAL);
    assert_int_equal(give(pfn, WHOLE), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(give(pfn + i, WHOLE), -MPL_EINVAL);
        assert_int_equal(give(pfn + i, WHOLE / 2), -MPL_EINVAL);
        assert_int_equal(give(pfn + i, 1), -MPL_EINVAL);
        assert_int_equal(memplug_free(&mini->pool, mpl_pfn(pfn + i), 1), -MPL_EINVAL);
        assert_int_equal(memplug_pin(&mini->pool, mpl_pfn(pfn + i)), -MPL_EINVAL);
    }
    assert_int_equal(memplug_free(&mini->pool, mpl_pfn(pfn), WHOLE), -MPL_EINVAL);
    /* Who wants just these frames makes the slot give them back. */
    assert_int_equal(memplug_alloc_exact(&mini->pool, mpl_pfn(pfn + 5), &exact), 0);
    assert_int_equal(nr_held(), 0);
    assert_int_equal(give(pfn + 5, 1), 0);
}

/* Its tails are nobody's either, and not of what is in front of their block. */
static void is_free_to_look_at(void **context)
{
    struct memplug_alloc exact = {.nr_pages = 1, .mover = mover};
    uint64_t first = 3 * BLOCK_PAGES;

    (void)context;
    mini_online(mini, 3, 0, MEMPLUG_ZONE_MOVABLE, 0);
    assert_int_equal(memplug_alloc_exact(&mini->pool, mpl_pfn(first - 1), &exact), 0);
    exact.nr_pages = WHOLE;
    assert_int_equal(memplug_alloc_exact(&mini->pool, mpl_pfn(first), &exact), 0);
    assert_int_equal(memplug_frame_kind(&mini->pool, mpl_pfn(first + 1)), MEMPLUG_FRAME_MOVABLE);
    assert_int_equal(give(first, WHOLE), 0);
    assert_int_equal(nr_held(), 1);
    for (unsigned i = 0; i < WHOLE; i++)
        assert_int_equal(memplug_frame_kind(&mini->pool, mpl_pfn(first + i)), MEMPLUG_FRAME_FREE);
    assert_int_equal(give(first - 1, 1), 0);
    exact.nr_pages = BLOCK_PAGES;
    assert_int_equal(memplug_alloc_exact(&mini->pool, mpl_pfn(first), &exact), 0);
}

/* Of what is smaller, or larger, no pageblock is freed. */
static void has_one_size(void **context)
{
    uint64_t halves[2], two;

    (void)context;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(try_take(mover, MEMPLUG_ANY_NODE, WHOLE / 2, &halves[i]), 0);
    assert_int_equal(halves[1], halves[0] + WHOLE / 2);
    assert_int_equal(give(halves[0], WHOLE), -MPL_EINVAL);
    assert_int_equal(try_take(mover, MEMPLUG_ANY_NODE, 2 * WHOLE, &two), 0);
    assert_int_equal(give(two, WHOLE), -MPL_EINVAL);
    assert_int_equal(give(two + WHOLE, WHOLE), -MPL_EINVAL);
    assert_int_equal(give(two, 2 * WHOLE), 0);
    assert_int_equal(nr_held(), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(give(halves[i], WHOLE / 2), 0);
}

/* What had a mover may lie in Movable, where what has none may not. */
static void is_for_its_kind(void **context)
{
    uint64_t movable = take(mover), raw = take(0);

    (void)context;
    assert_int_equal(movable, 2 * BLOCK_PAGES);
    assert_int_equal(raw, BLOCK_PAGES);
    assert_int_equal(give(movable, WHOLE), 0);
    assert_int_not_equal(take(0), movable);
    assert_int_equal(give(raw, WHOLE), 0);
    assert_int_equal(nr_held(), 2);
    assert_int_equal(take(mover), movable);
    assert_int_equal(take(0), raw);
    assert_int_equal(nr_held(), 0);
    assert_int_equal(give(raw, WHOLE), 0);
    assert_int_equal(give(raw + WHOLE, WHOLE), 0);
    assert_int_equal(give(movable, WHOLE), 0);
}

/* Of another node nobody wants it, and what it describes is the new owner's. */
static void is_what_was_asked_for(void **context)
{
    struct memplug_alloc request = {
        .nr_pages = WHOLE, .align_pages = WHOLE, .mover = mover, .cookie = 11, .pinned = true};
    const struct mpl_page *page;
    memplug_pfn_t pfn;
    uint64_t first = take(mover);

    (void)context;
    mini_online(mini, 3, 1, MEMPLUG_ZONE_MOVABLE, 0);
    assert_int_equal(give(first, WHOLE), 0);
    assert_int_equal(try_take(mover, 1, WHOLE, &pfn.nr), 0);
    assert_int_equal(pfn.nr, 3 * BLOCK_PAGES);
    assert_int_equal(give(pfn.nr, WHOLE), 0);
    assert_int_equal(try_take(mover, 1, WHOLE, &pfn.nr), 0);
    assert_int_equal(give(pfn.nr, WHOLE), 0);
    assert_int_equal(try_take(mover, 0, WHOLE, &first), 0); /* the slot has that of node 1 */
    assert_int_equal(give(first, WHOLE), 0);
    assert_int_equal(memplug_slot_alloc(slot, &request, &pfn), 0);
    assert_int_equal(pfn.nr, first);
    page = mpl_page_at(&mini->pool, pfn);
    assert_int_equal(page->cookie, 11);
    assert_int_equal(page->nr_pages, WHOLE);
    assert_int_equal(page->align_order, 7);
    assert_int_equal(give(first, WHOLE), -MPL_EBUSY);
    assert_int_equal(memplug_unpin(&mini->pool, pfn), 0);
    assert_int_equal(give(first, WHOLE), 0); /* its block is marked: not into the slot */
    assert_int_equal(nr_held(), 0);
    mini_set_isolated(mini, 3, true);
    mpl_percpu_pass(&mini->pool);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), 3 * BLOCK_PAGES);
    mini_set_isolated(mini, 3, false);
    request = (struct memplug_alloc){.nr_pages = BLOCK_PAGES, .node = 1, .mover = mover};
    assert_int_equal(memplug_slot_alloc(slot, &request, &pfn), 0); /* close_pool() counts two */
}

/* Offline passes the slots for what is isolated, and leaves the rest. */
static void goes_when_it_is_isolated(void **context)
{
    uint64_t movable = take(mover), raw = take(0);

    (void)context;
    assert_int_equal(give(movable, WHOLE), 0);
    assert_int_equal(give(raw, WHOLE), 0);
    mini_set_isolated(mini, 2, true);
    mpl_percpu_pass(&mini->pool);
    assert_int_equal(nr_held(), 1);
    mini_set_isolated(mini, 2, false);
    assert_int_equal(take(mover), movable);
    mini_set_isolated(mini, 2, true);
    assert_int_equal(give(movable, WHOLE), 0); /* to the zone at once */
    assert_int_equal(nr_held(), 1);
    mini_set_isolated(mini, 2, false);
}

/* Memory that only slots have is there for whoever runs short, in any size. */
static void is_there_for_others(void **context)
{
    uint64_t taken[BLOCK_PAGES / WHOLE], single;
    struct memplug_alloc request = {.nr_pages = BLOCK_PAGES, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn;

    (void)context;
    for (unsigned i = 0; i < BLOCK_PAGES / WHOLE; i++)
        taken[i] = take(0);
    assert_int_equal(try_take(0, MEMPLUG_ANY_NODE, WHOLE, &single), -MPL_ENOMEM);
    for (unsigned i = 0; i < BLOCK_PAGES / WHOLE; i++)
        assert_int_equal(give(taken[i], WHOLE), 0);
    assert_int_equal(nr_held(), 1);
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn), 0);
    assert_int_equal(pfn.nr, BLOCK_PAGES);
    assert_int_equal(memplug_free(&mini->pool, pfn, BLOCK_PAGES), 0);
    assert_int_equal(give(take(0), WHOLE), 0);
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        assert_int_equal(try_take(0, MEMPLUG_ANY_NODE, 1, &single), 0);
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        assert_int_equal(give(BLOCK_PAGES + i, 1), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_pool, close_pool)
    const struct CMUnitTest tests[] = {
        TEST(comes_back_first),
        TEST(is_nobodys),
        TEST(is_free_to_look_at),
        TEST(has_one_size),
        TEST(is_for_its_kind),
        TEST(is_what_was_asked_for),
        TEST(goes_when_it_is_isolated),
        TEST(is_there_for_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
