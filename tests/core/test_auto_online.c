/* SPDX-License-Identifier: MIT */
/*
 * Blocks that go online by being added: in the zone that the policy names, each alone. What fails
 * there is told and undoes nothing else; what fails before leaves nothing.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/policy.h>

#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u
#define GOING (1u << FAULT_GOING)

static struct world world;
static struct memplug_reason reason;

static void set_auto_online(enum memplug_auto_online auto_online)
{
    struct memplug_policy policy = {.auto_online = auto_online};

    must(memplug_policy_set(world.pool, &policy, MEMPLUG_POLICY_AUTO_ONLINE));
}

static void open_small(enum memplug_auto_online auto_online)
{
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .seed = 5});
    set_auto_online(auto_online);
}

static int add(enum memplug_memmap memmap, const struct memplug_limit *limit)
{
    memset(&reason, 0xee, sizeof(reason));
    return world_add(&world, world.backing_a, A, memmap, limit, &reason);
}

/* Blocks of A that are online, a bit for each; all of them in this zone. */
static unsigned online_in(enum memplug_zone zone)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < NR; i++) {
        struct memplug_block_info info;

        must(memplug_block_info(world.pool, A + i, &info));
        if (info.state == MEMPLUG_BLOCK_ONLINE) {
            assert_int_equal(info.zone, zone);
            bits |= 1u << i;
        } else {
            assert_int_equal(info.state, MEMPLUG_BLOCK_OFFLINE);
        }
    }
    return bits;
}

static void nothing_to_say(void)
{
    assert_int_equal(reason.error, 0);
    assert_null(reason.why);
    assert_int_equal(reason.block, -1);
}

static void each_type_has_its_zone(void **state)
{
    static const enum memplug_zone zones[] = {
        [MEMPLUG_AUTO_ONLINE] = MEMPLUG_ZONE_NORMAL,
        [MEMPLUG_AUTO_KERNEL] = MEMPLUG_ZONE_NORMAL,
        [MEMPLUG_AUTO_MOVABLE] = MEMPLUG_ZONE_MOVABLE,
    };
    const enum memplug_memmap memmaps[] = {
        MEMPLUG_MEMMAP_BLOCK,
        MEMPLUG_MEMMAP_RANGE,
        MEMPLUG_MEMMAP_HOST,
    };

    (void)state;
    for (unsigned type = 0; type <= MEMPLUG_AUTO_MOVABLE; type++)
        for (unsigned i = 0; i < 3; i++) {
            open_small((enum memplug_auto_online)type);
            must(add(memmaps[i], NULL));
            nothing_to_say();
            assert_int_equal(online_in(zones[type]), type == MEMPLUG_AUTO_OFFLINE ? 0 : 0xf);
            world_check(&world);
            world_close(&world);
        }
}

/* What is there already is left alone. */
static void later_adds_only(void **state)
{
    (void)state;
    open_small(MEMPLUG_AUTO_OFFLINE);
    must(add(MEMPLUG_MEMMAP_BLOCK, NULL));
    set_auto_online(MEMPLUG_AUTO_MOVABLE);
    assert_int_equal(online_in(MEMPLUG_NR_ZONES), 0);
    must(memplug_offline_and_remove(world.pool, A * world.block_bytes, NR * world.block_bytes, NULL,
                                    NULL));
    must(add(MEMPLUG_MEMMAP_BLOCK, NULL));
    set_auto_online(MEMPLUG_AUTO_OFFLINE);
    assert_int_equal(online_in(MEMPLUG_ZONE_MOVABLE), 0xf);
    world_close(&world);
}

/* The state is what it is if all but these blocks had been put online by hand. */
static void expect_by_hand(unsigned bits)
{
    char *after = world_text(&world, false), *by_hand;

    world_check(&world);
    world_close(&world);
    open_small(MEMPLUG_AUTO_OFFLINE);
    must(add(MEMPLUG_MEMMAP_BLOCK, NULL));
    for (unsigned i = 0; i < NR; i++)
        if ((bits >> i & 1) != 0)
            must(memplug_online(world.pool, A + i, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    set_auto_online(MEMPLUG_AUTO_MOVABLE);
    by_hand = world_text(&world, false);
    assert_string_equal(after, by_hand);
    free(after);
    free(by_hand);
    world_close(&world);
}

static void a_block_that_is_refused_stays_offline(void **state)
{
    char text[256], expected[256];

    (void)state;
    for (unsigned forever = 0; forever < 2; forever++)
        for (unsigned point = 0; point < 2 * NR; point++) {
            unsigned k = point / 2; /* each block is asked for twice: PREPARE, GOING */
            unsigned bits = forever != 0 ? (1u << k) - 1 : 0xfu & ~(1u << k);

            open_small(MEMPLUG_AUTO_MOVABLE);
            fault_select(world.fault, GOING);
            fault_arm(world.fault, point + 1, forever != 0, 0);
            must(add(MEMPLUG_MEMMAP_BLOCK, NULL));
            fault_disarm(world.fault);
            assert_int_equal(online_in(MEMPLUG_ZONE_MOVABLE), bits);
            assert_int_equal(reason.error, 0);
            assert_int_equal(reason.block, A + k);
            assert_string_equal(reason.why, "a subscriber refused");
            memplug_reason_text(&reason, text, sizeof(text));
            snprintf(expected, sizeof(expected),
                     "add: %s: block %u: a subscriber refused (subscriber \"subscriber\").",
                     point % 2 == 0 ? "prepare" : "ask", A + k);
            assert_string_equal(text, expected);
            expect_by_hand(bits);
        }
}

/* A limit that ends when the range is there ends the rest: the blocks before it are online. */
static void a_limit_leaves_the_rest_offline(void **state)
{
    bool was_partly = false;
    unsigned bits = 0;

    (void)state;
    for (uint64_t k = 1; bits != 0xf; k++) {
        struct fault_limit limit;
        char *before;
        int error;

        open_small(MEMPLUG_AUTO_MOVABLE);
        before = world_text(&world, false);
        fault_limit_init(&limit, FAULT_LIMIT_STOP, k, world.fault);
        error = add(MEMPLUG_MEMMAP_BLOCK, &limit.limit);
        if (error != 0) {
            assert_int_equal(error, -EINTR);
            world_same(&world, before, false);
            world_close(&world);
            continue;
        }
        free(before);
        bits = online_in(MEMPLUG_ZONE_MOVABLE);
        was_partly |= bits == 0x3;
        if (bits == 0xf) {
            nothing_to_say();
        } else {
            assert_string_equal(reason.why, "it was cancelled");
            assert_int_equal(1u << (reason.block - A), bits + 1);
        }
        expect_by_hand(bits);
    }
    assert_true(was_partly);
}

/* Whatever fails before the blocks are there leaves nothing, as without the policy. */
static void an_add_that_fails_leaves_nothing(void **state)
{
    uint64_t nr_refused = 0;
    bool fired = true;

    (void)state;
    for (uint64_t k = 1; fired; k++) {
        char *before;
        int error;

        open_small(MEMPLUG_AUTO_MOVABLE);
        before = world_text(&world, false);
        fault_select(world.fault, ~GOING);
        fault_arm(world.fault, k, false, 0);
        error = add(MEMPLUG_MEMMAP_BLOCK, NULL);
        fault_disarm(world.fault);
        fired = fault_fired(world.fault) != 0;
        assert_int_equal(error != 0, fired);
        if (fired) {
            assert_int_equal(reason.error, error);
            world_same(&world, before, false);
            nr_refused++;
        } else {
            free(before);
        }
        world_close(&world);
    }
    assert_true(nr_refused >= 2 + NR); /* the lock, attach; alias of each block */
}

static struct memplug_uevent watched[16];
static unsigned nr_watched;

static void watch(void *context, const struct memplug_uevent *event)
{
    (void)context;
    assert_true(nr_watched < 16);
    watched[nr_watched++] = *event;
}

/* Block 1 is refused once: of it nothing is heard but that it was added. */
static void listeners_hear_of_adds_first(void **state)
{
    struct memplug_listener listener = {.hear = watch};
    const unsigned blocks[] = {A, A + 1, A + 2, A + 3, A, A + 2, A + 3};

    (void)state;
    open_small(MEMPLUG_AUTO_KERNEL);
    must(memplug_listen(world.pool, &listener));
    fault_select(world.fault, GOING);
    fault_arm(world.fault, 3, false, 0);
    must(add(MEMPLUG_MEMMAP_BLOCK, NULL));
    fault_disarm(world.fault);
    assert_int_equal(nr_watched, 7);
    for (unsigned i = 0; i < 7; i++) {
        assert_int_equal(watched[i].block, blocks[i]);
        assert_int_equal(watched[i].action, i < 4 ? MEMPLUG_ACTION_ADD : MEMPLUG_ACTION_ONLINE);
    }
    must(memplug_unlisten(world.pool, &listener));
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type_has_its_zone),
        cmocka_unit_test(later_adds_only),
        cmocka_unit_test(a_block_that_is_refused_stays_offline),
        cmocka_unit_test(a_limit_leaves_the_rest_offline),
        cmocka_unit_test(listeners_hear_of_adds_first),
        cmocka_unit_test(an_add_that_fails_leaves_nothing),
    };

    return cmocka_run_group_tests_name("auto-online", tests, NULL, NULL);
}
