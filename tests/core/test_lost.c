/* SPDX-License-Identifier: MIT */
/*
 * Bad frames, when something is in the way: an owner that is just freeing its page, or keeps it; a
 * host without memory; a limit. On failure nothing has changed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/poison.h>

#include "two_ranges.h"

#define REFUSED(error, word, call) WORLD_REFUSES(&world, &reason, error, word, call, false)

static int hard(uint64_t id, uint64_t index)
{
    return memplug_hard_offline(world.pool, frame(id, index), NULL, &reason);
}

static unsigned own(uint64_t id, uint64_t index, uint32_t nr_pages)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn = frame(id, index);
    unsigned slot;

    must(owner_alloc_request(world.owner, &request, &pfn, &slot));
    return slot;
}

/* Nobody gets the frame, whatever he says of it. */
static void is_out(uint64_t id, uint64_t index)
{
    struct memplug_alloc one = {.nr_pages = 1, .mover = (uint8_t)world.mover};
    memplug_pfn_t pfn = frame(id, index);

    assert_int_equal(memplug_alloc_exact(world.pool, pfn, &one), -EBUSY);
    assert_int_equal(memplug_free(world.pool, pfn, 1), -EINVAL);
    assert_int_equal(memplug_free(world.pool, pfn, 2), -EINVAL);
    assert_int_equal(memplug_pin(world.pool, pfn), -EINVAL);
    assert_int_equal(memplug_unpin(world.pool, pfn), -EINVAL);
    assert_int_equal(memplug_set_cookie(world.pool, pfn, 1), -EINVAL);
    assert_int_equal(memplug_release_pages(world.pool, pfn, 1), -EINVAL);
}

/* --- an owner that is not ready --------------------------------------------------------------- */

static struct {
    int answer;         /* of lost() */
    unsigned nr_calls;
    bool frees;         /* the page, in lost(), */
    unsigned frees_at;  /* when it is called for this time */
    uint64_t cookie;
} shy;

static void shy_move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++)
        moves[i].result = -EBUSY;
}

static int shy_lost(void *context, memplug_pfn_t pfn, uint32_t nr_pages, uint64_t cookie)
{
    (void)context;
    shy.nr_calls++;
    assert_int_equal(cookie, shy.cookie);
    assert_int_equal(nr_pages, 4);
    assert_int_equal(memplug_pin(world.pool, pfn), -EAGAIN); /* it is being taken away */
    assert_int_equal(memplug_set_cookie(world.pool, pfn, 1), -EAGAIN);
    assert_int_equal(memplug_hard_offline(world.pool, pfn, NULL, NULL), -EDEADLK);
    if (shy.frees && shy.nr_calls == shy.frees_at)
        must(memplug_free(world.pool, pfn, nr_pages));
    return shy.answer;
}

static void open_shy(struct memplug_alloc *request, bool with_lost)
{
    static struct memplug_mover mover = {.name = "shy", .move = shy_move};
    int number;

    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    memset(&shy, 0, sizeof(shy));
    mover.lost = with_lost ? shy_lost : NULL;
    number = memplug_register_mover(world.pool, &mover);
    assert_true(number > 0);
    shy.cookie = 0x1234;
    *request = (struct memplug_alloc){.nr_pages = 4, .node = MEMPLUG_ANY_NODE,
                                      .mover = (uint8_t)number, .cookie = shy.cookie};
    must(memplug_alloc_exact(world.pool, frame(A, 100), request));
}

static void a_mover_without_lost(void **state)
{
    struct memplug_alloc request;

    (void)state;
    open_shy(&request, false);
    REFUSED(EBUSY, "cannot be told", hard(A, 102));
    assert_string_equal(reason.owner, "shy");
    assert_int_equal(reason.owner_cookie, shy.cookie);
    must(memplug_free(world.pool, frame(A, 100), 4));
    world_close(&world);
}

/* It does not know the page, for ever: the deadline ends that, and the page is still his. */
static void an_owner_that_is_about_to_free(void **state)
{
    struct memplug_limit limit = {.timeout_ns = 2000000, .tries = 1};
    struct memplug_alloc request;

    (void)state;
    open_shy(&request, true);
    shy.answer = -ENOENT;
    REFUSED(ETIMEDOUT, "time is over",
            memplug_hard_offline(world.pool, frame(A, 102), &limit, &reason));
    assert_int_equal(reason.pfn.nr, frame(A, 100).nr);
    assert_true(shy.nr_calls > 5);
    shy.answer = -EBUSY;
    shy.nr_calls = 0;
    limit.tries = 3;
    REFUSED(EBUSY, "keeps it", memplug_hard_offline(world.pool, frame(A, 102), &limit, &reason));
    assert_int_equal(shy.nr_calls, 3);
    shy.answer = 0;
    must(hard(A, 102));
    assert_int_equal(memplug_free(world.pool, frame(A, 100), 4), -EINVAL);
    world_check(&world);
    world_close(&world);
}

/* It frees the page while it is told, whatever it answers: nothing is freed twice. */
static void an_owner_that_frees_meanwhile(void **state)
{
    static const int answers[] = {0, -ENOENT, -EBUSY};

    (void)state;
    for (unsigned i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        for (unsigned at = 1; at < 4; at++) {
            struct memplug_alloc request;

            open_shy(&request, true);
            shy.answer = answers[i];
            shy.frees = true;
            shy.frees_at = at;
            must(hard(A, 102));
            assert_int_equal(shy.nr_calls, answers[i] == 0 ? 1 : at);
            assert_int_equal(memplug_free(world.pool, frame(A, 100), 4), -EINVAL);
            is_out(A, 102);
            free(world_text(&world, false));
            assert_int_equal(stat_of().nr_free_pages, stat_of().nr_managed_pages - 1);
            world_check(&world);
            world_close(&world);
        }
}

/* --- limits and faults ------------------------------------------------------------------------ */

struct scenario {
    const char *name;
    bool is_hard, used, second;
};

static bool strike(const struct scenario *scenario, unsigned way, uint64_t k)
{
    static const enum fault_limit_kind kinds[] = {FAULT_LIMIT_COUNT, FAULT_LIMIT_COUNT,
                                                  FAULT_LIMIT_STOP, FAULT_LIMIT_DEADLINE};
    int (*call)(struct memplug *, memplug_pfn_t, const struct memplug_limit *,
                struct memplug_reason *) =
        scenario->is_hard ? memplug_hard_offline : memplug_soft_offline;
    struct fault_limit limit;
    uint64_t nr_moved;
    char *before, *before_moved;
    bool struck, moved;
    int error;

    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_RANGE, MEMPLUG_ONLINE_MOVABLE);
    if (scenario->used)
        own(A + 1, 60, 8);
    if (scenario->second)
        must(memplug_soft_offline(world.pool, frame(A + 1, 30), NULL, NULL));
    before = world_text(&world, false);
    before_moved = world_text(&world, true);
    nr_moved = stat_of().nr_moved_pages;
    fault_limit_init(&limit, kinds[way], k, world.fault);
    fault_arm(world.fault, way < 2 ? k : 0, way == 1, 0);
    error = call(world.pool, frame(A + 1, 62), &limit.limit, &reason);
    fault_disarm(world.fault);
    struck = way < 2 ? fault_fired(world.fault) != 0 : limit.nr_checks >= k;
    moved = stat_of().nr_moved_pages != nr_moved;
    if (error != 0) {
        assert_true(struck && reason.error == error && reason.why != NULL);
        assert_true(!moved || !scenario->is_hard);
        if (!moved)
            world_same(&world, before, false);
        else
            free(before);
        world_same(&world, before_moved, true);
        must(call(world.pool, frame(A + 1, 62), NULL, NULL));
    } else {
        assert_true(!struck || way < 2); /* it is asked again */
        free(before);
        free(before_moved);
    }
    assert_int_equal(stat_of().nr_poisoned_pages, 1u + scenario->second);
    is_out(A + 1, 62);
    world_check(&world);
    world_close(&world);
    return struck;
}

static void every_point(void **state)
{
    static const struct scenario scenarios[] = {
        {"soft, free", false, false, false}, {"soft, used", false, true, false},
        {"soft, second", false, true, true}, {"hard, free", true, false, false},
        {"hard, used", true, true, false},   {"hard, second", true, true, true},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
        for (unsigned way = 0; way < 4; way++) {
            uint64_t k = 1;

            while (strike(&scenarios[i], way, k))
                k++;
            assert_true(k > 1);
            print_message("%s, way %u: %u points\n", scenarios[i].name, way, (unsigned)k - 1);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mover_without_lost),
        cmocka_unit_test(an_owner_that_is_about_to_free),
        cmocka_unit_test(an_owner_that_frees_meanwhile),
        cmocka_unit_test(every_point),
    };

    return cmocka_run_group_tests_name("lost", tests, NULL, NULL);
}
