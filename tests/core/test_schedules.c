/* SPDX-License-Identifier: MIT */
/*
 * The lock-free parts of the allocator, in every schedule of two or three fibres at their atomic
 * operations: two frees of one frame, a free and a pin, slots of callers' own and offline's pass,
 * neighbours in a word.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "schedules_pool.h"

#include <cmocka.h>

/* --- two frees of one frame ------------------------------------------------------------------- */

static void begin_raw(void)
{
    open_pool();
    frame = take(slots[2], 0, 1);
}

static void begin_owned(void)
{
    open_pool();
    frame = take(slots[2], mover, 1);
}

/* From the slot that frees it: so its next life begins there at once. */
static void begin_held(void)
{
    open_pool();
    frame = take(slots[0], mover, 1);
}

/* So that the word is at hand when it is freed. */
static void begin_at_hand(void)
{
    begin_held();
    neighbour = take(slots[0], mover, 1);
    assert_int_equal(memplug_slot_free(slots[0], neighbour, 1), 0);
}

static void begin_held_by_1(void)
{
    open_pool();
    frame = take(slots[1], mover, 1);
}

static void begin_marked(void)
{
    begin_owned();
    assert_int_equal(memplug_pin(&mini->pool, frame), 0);
    assert_int_equal(memplug_unpin(&mini->pool, frame), 0);
}

/* --- a free, and a new owner who pins --------------------------------------------------------- */

static void free_and_alloc_pinned_0(void)
{
    struct memplug_alloc request = {
        .nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = mover, .pinned = true};

    results[0] = memplug_slot_free(slots[0], frame, 1);
    if (results[0] == 0)
        results[2] = memplug_slot_alloc(slots[0], &request, &found[0]);
}

static void set_cookie_1(void)
{
    results[1] = memplug_set_cookie(&mini->pool, frame, 7);
}

/* Each pin that was granted is there, and no other. */
static void end_new_owner(unsigned nr_pins)
{
    bool same = results[0] == 0 && found[0].nr == frame.nr;

    assert_true(results[0] == 0 || results[0] == -MPL_EBUSY);
    assert_true(results[0] != 0 || results[2] == 0);
    for (nr_pins += same; nr_pins > 0; nr_pins--)
        assert_int_equal(memplug_unpin(&mini->pool, frame), 0);
    assert_int_not_equal(memplug_unpin(&mini->pool, frame), 0);
    if (results[0] == 0 && !same)
        assert_int_equal(memplug_unpin(&mini->pool, found[0]), 0);
    assert_int_equal(memplug_free(&mini->pool, results[0] == 0 ? found[0] : frame, 1), 0);
    close_pool();
}

static void end_new_owner_and_pin(void)
{
    end_new_owner(results[1] == 0);
}

static void end_new_owner_and_cookie(void)
{
    end_new_owner(0);
}

static void pin_and_unpin_1(void)
{
    results[1] = memplug_pin(&mini->pool, frame);
    if (results[1] == 0)
        results[2] = memplug_unpin(&mini->pool, frame);
}

/* What was pinned can be unpinned, whoever tries to free it meanwhile. */
static void end_free_and_unpin(void)
{
    assert_true(results[1] != 0 || results[2] == 0);
    if (results[0] != 0)
        assert_int_equal(memplug_free(&mini->pool, frame, 1), 0);
    close_pool();
}

/* The new owner's pin holds, whenever the other free comes. */
static void end_frees_and_pinned(void)
{
    assert_true(results[0] == 0 || results[1] == 0);
    assert_true(results[0] == 0 || results[0] == -MPL_EINVAL);
    assert_true(results[1] == 0 || results[1] == -MPL_EINVAL || results[1] == -MPL_EBUSY);
    if (results[0] == 0) {
        assert_int_not_equal(results[1], 0);
        assert_int_equal(memplug_unpin(&mini->pool, found[0]), 0);
        assert_int_equal(memplug_free(&mini->pool, found[0], 1), 0);
    }
    close_pool();
}

static void free_and_alloc_0(void)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = mover};

    results[0] = memplug_slot_free(slots[0], frame, 1);
    if (results[0] == 0)
        assert_int_equal(memplug_slot_alloc(slots[0], &request, &found[0]), 0);
}

static void pin_and_free_1(void)
{
    results[2] = memplug_pin(&mini->pool, frame);
    if (results[2] == 0)
        results[2] = memplug_unpin(&mini->pool, frame);
    results[1] = memplug_slot_free(slots[1], frame, 1);
}

/* As many were freed as were allocated, but for one that a new owner still has. */
static void end_frees_and_alloc(void)
{
    if (results[0] == 0 && results[1] == 0)
        assert_int_equal(found[0].nr, frame.nr);
    if (results[0] == 0 && results[1] != 0)
        assert_int_equal(memplug_free(&mini->pool, found[0], 1), 0);
    if (results[0] != 0 && results[1] != 0)
        assert_int_equal(memplug_free(&mini->pool, frame, 1), 0);
    close_pool();
}

/* As a move that fails: the frame's next life is a target's, which the core ends. */
static void free_and_target_1(void)
{
    struct memplug *pool = &mini->pool;
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = mover};
    struct mpl_page *page;

    results[1] = memplug_slot_free(slots[1], frame, 1);
    assert_int_equal(mpl_percpu_alloc(pool, (struct mpl_slot *)(void *)slots[1], &request,
                                      MPL_PAGE_TARGET, &found[1]), 0);
    page = mpl_page_at(pool, found[1]);
    if (!mpl_page_change(page, MPL_PAGE_TARGET, MPL_PAGE_NONE))
        assert_true(mpl_page_change(page, MPL_PAGE_DYING, MPL_PAGE_NONE));
    mpl_free_frames(pool, found[1], 1);
}

/* One that frees the target is believed, for the core has not ended it yet. */
static void end_free_and_target(void)
{
    assert_true(results[0] == 0 || results[0] == -MPL_EINVAL);
    assert_true(results[1] == 0 || results[0] == 0);
    close_pool();
}

/* --- a pass ----------------------------------------------------------------------------------- */

static void isolate_and_pass_2(void)
{
    results[2] = pass_block_2();
}

static void pass_1(void)
{
    isolate_and_pass_2();
    mini_set_isolated(mini, 2, false);
}

static void alloc_0(void)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = mover};

    results[0] = memplug_slot_alloc(slots[0], &request, &found[0]);
}

static void end_pass(void)
{
    assert_int_equal(results[2], 0);
    assert_int_equal(results[0], 0);
    if (found[0].nr != 0) {
        assert_int_equal(memplug_free(&mini->pool, found[0], 1), 0);
        if (results[1] == 1) /* nobody freed the frame that the scene began with */
            assert_int_equal(memplug_free(&mini->pool, frame, 1), 0);
    }
    close_pool();
}

/* A slot that is opened meanwhile, perhaps just behind the pass's look for open ones. */
static void begin_closed(void)
{
    open_pool();
    memplug_slot_close(slots[0]);
    frame = take(slots[1], mover, 1);
    assert_int_equal(memplug_slot_free(slots[1], frame, 1), 0);
    results[1] = 0;
}

static void open_and_alloc_0(void)
{
    assert_int_equal(memplug_slot_open(&mini->pool, &slots[0]), 0);
    alloc_0();
}

/* The pass comes third, or second where there are only two. */
static void end_free_and_pass(void)
{
    assert_int_equal(results[2], 0);
    assert_int_equal(results[0], 0);
    close_pool();
}

/* One of them through the CPU's slot, and no slot more: they multiply. */
static void begin_one_slot(void)
{
    begin_held();
    memplug_slot_close(slots[1]);
    memplug_slot_close(slots[2]);
}

static void end_two_frees_and_pass(void)
{
    assert_int_equal(results[2], 0);
    mini_set_isolated(mini, 2, false);
    for (unsigned i = 1; i < 3; i++)
        assert_int_equal(memplug_slot_open(&mini->pool, &slots[i]), 0);
    end_two_frees();
}

/* --- the first use of a block ----------------------------------------------------------------- */

/* Block 2 has no bitmaps of its own yet; nobody has this frame, or will. */
static void begin_fresh(void)
{
    open_fresh();
    frame = mpl_pfn(mpl_block_start(&mini->pool, mpl_block_at(&mini->pool, 2)).nr + 63);
}

static void free_never_1(void)
{
    results[1] = memplug_slot_free(slots[1], frame, 1);
}

static void end_first_use(void)
{
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], -MPL_EINVAL);
    assert_int_equal(memplug_free(&mini->pool, found[0], 1), 0);
    assert_true(mpl_pattern_intact(&mini->pool));
    close_pool();
}

/* The frame that the other gets: freed by whoever thinks that he still has it. */
static void begin_fresh_first(void)
{
    const struct mpl_block *block;

    open_fresh();
    block = mpl_block_at(&mini->pool, 2);
    frame = mpl_pfn(mpl_block_start(&mini->pool, block).nr + block->nr_memmap_pages);
}

static void end_late_free(void)
{
    assert_int_equal(results[0], 0);
    assert_int_equal(found[0].nr, frame.nr);
    assert_true(results[1] == 0 || results[1] == -MPL_EINVAL);
    assert_int_equal(memplug_free(&mini->pool, frame, 1), results[1] == 0 ? -MPL_EINVAL : 0);
    mpl_percpu_drain(&mini->pool);
    assert_true(mpl_pattern_intact(&mini->pool));
    close_pool();
}

/* As offline and online do with a block that is not used: no slot is passed. */
static void leave_and_return(void)
{
    struct memplug *pool = &mini->pool;
    struct mpl_block *block = mpl_block_at(pool, 2);
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mini_set_isolated(mini, 2, true);
    assert_true(mpl_frames_untouched(pool, block));
    mpl_spin_lock(pool, &zone->lock);
    mpl_block_set_state(block, MEMPLUG_BLOCK_GOING_OFFLINE);
    mpl_withdraw_frames(pool, block);
    MPL_PUT(block->zone, MEMPLUG_NR_ZONES);
    mpl_zone_shrink(pool, zone, mpl_block_start(pool, block), mpl_block_pages(&pool->geometry));
    mpl_block_set_state(block, MEMPLUG_BLOCK_OFFLINE);
    mpl_spin_unlock(&zone->lock);
    mpl_block_set_state(block, MEMPLUG_BLOCK_GOING_ONLINE);
    mpl_spin_lock(pool, &zone->lock);
    mpl_frames_reset(pool, block);
    MPL_PUT(block->zone, zone->kind);
    mpl_zone_grow(pool, zone, mpl_block_start(pool, block), mpl_block_pages(&pool->geometry));
    mpl_isolate_block(pool, block);
    mpl_spin_unlock(&zone->lock);
    mpl_release_frames(pool, mpl_block_data_start(pool, block), mpl_block_data_pages(pool, block));
    mpl_block_set_state(block, MEMPLUG_BLOCK_ONLINE);
    mini_set_isolated(mini, 2, false);
}

static void return_and_alloc_0(void)
{
    leave_and_return();
    alloc_0();
}

/* Who freed a frame of the block's last life looks into this one, but not while it is away. */
static void end_return(void)
{
    results[1] = results[1] == -MPL_ENODEV ? -MPL_EINVAL : results[1];
    end_first_use();
}

static void end_return_and_late_free(void)
{
    results[1] = results[1] == -MPL_ENODEV ? -MPL_EINVAL : results[1];
    end_late_free();
}

/* Through no slot. */
static void alloc_two_0(void)
{
    struct memplug_alloc request = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE, .mover = mover};

    results[0] = memplug_alloc(&mini->pool, &request, &found[0]);
}

/* Nobody makes bitmaps of a block that is isolated. */
static void isolate_1(void)
{
    struct mpl_block *block = mpl_block_at(&mini->pool, 2);

    mini_set_isolated(mini, 2, true);
    results[1] = __atomic_load_n(&block->copying, __ATOMIC_SEQ_CST);
    mini_set_isolated(mini, 2, false);
}

static void end_first_use_and_isolation(void)
{
    assert_int_equal(results[1], 0);
    assert_int_equal(results[0], 0);
    assert_int_equal(memplug_free(&mini->pool, found[0], 2), 0);
    close_pool();
}

/* --- neighbours ------------------------------------------------------------------------------- */

static void begin_neighbours(void)
{
    open_pool();
    frame = take(slots[2], 0, 1);
    neighbour = take(slots[2], 0, 1);
    memplug_slot_close(slots[2]);
    assert_int_equal(memplug_slot_open(&mini->pool, &slots[2]), 0);
}

/* The frame behind it is freed, and becomes a part of something else. */
static void recycle_1(void)
{
    struct memplug_alloc request = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE};

    results[1] = memplug_slot_free(slots[1], neighbour, 1);
    mpl_slot_drain(&mini->pool, (struct mpl_slot *)(void *)slots[1]);
    if (memplug_slot_alloc(slots[1], &request, &found[1]) == 0)
        results[1] += memplug_slot_free(slots[1], found[1], 2);
}

static void end_neighbours(void)
{
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], 0);
    close_pool();
}

/* --- all -------------------------------------------------------------------------------------- */

static const struct schedules_case cases[] = {
    {"two frees, raw", 2, begin_raw, {free_0, free_1}, end_two_frees},
    {"two frees, owned", 2, begin_owned, {free_0, free_1}, end_two_frees},
    {"two frees, marked", 2, begin_marked, {free_0, free_1}, end_two_frees},
    {"free and pin", 2, begin_owned, {free_0, pin_1}, end_free_and_pin},
    {"free and pin, at hand", 2, begin_at_hand, {free_0, pin_1}, end_free_and_pin},
    {"free and pin, marked", 2, begin_marked, {free_0, pin_1}, end_free_and_pin},
    {"free, alloc pinned, and pin", 2, begin_owned, {free_and_alloc_pinned_0, pin_1},
     end_new_owner_and_pin},
    {"free, alloc pinned, and cookie", 2, begin_owned, {free_and_alloc_pinned_0, set_cookie_1},
     end_new_owner_and_cookie},
    {"two frees and a mark", 3, begin_owned, {free_0, free_1, mark_2}, end_looking_frees},
    {"two frees and an isolation", 3, begin_owned, {free_0, free_1, isolate_2},
     end_looking_frees},
    {"two frees and a short isolation", 3, begin_owned, {free_0, free_1, isolate_for_a_while_2},
     end_looking_frees},
    {"free, alloc pinned, and free", 2, begin_held, {free_and_alloc_pinned_0, free_1},
     end_frees_and_pinned},
    {"free, alloc, and mark and free", 2, begin_held, {free_and_alloc_0, pin_and_free_1},
     end_frees_and_alloc},
    {"free, and a target that is dropped", 2, begin_held_by_1, {free_0, free_and_target_1},
     end_free_and_target},
    {"free, pin and unpin", 2, begin_owned, {free_0, pin_and_unpin_1}, end_free_and_unpin},
    {"alloc and pass", 2, begin_held, {alloc_0, pass_1}, end_pass},
    {"open, alloc and pass", 2, begin_closed, {open_and_alloc_0, pass_1}, end_pass},
    {"free and pass", 2, begin_held, {free_0, pass_1}, end_free_and_pass},
    {"first use and a wrong free", 2, begin_fresh, {alloc_0, free_never_1}, end_first_use},
    {"first use and a late free of that frame", 2, begin_fresh_first, {alloc_0, free_1},
     end_late_free},
    {"first use of a second life, and a wrong free", 2, begin_fresh,
     {return_and_alloc_0, free_never_1}, end_return},
    {"first use of a second life, and a late free of that frame", 2, begin_fresh_first,
     {return_and_alloc_0, free_1}, end_return_and_late_free},
    {"first use and isolation", 2, open_fresh, {alloc_two_0, isolate_1},
     end_first_use_and_isolation},
    {"neighbours", 2, begin_neighbours, {free_0, recycle_1}, end_neighbours},
    {"two frees and pass", 3, begin_one_slot, {free_0, free_by_cpu_1, isolate_and_pass_2},
     end_two_frees_and_pass},
};

int main(void)
{
    return explore_all(cases, sizeof(cases) / sizeof(cases[0]), sizeof(cases) / sizeof(cases[0]));
}
