/* SPDX-License-Identifier: MIT */
/*
 * What listeners hear, and what a node is. Events are written as a word each: +1 block 1 was added,
 * ^1 went online, v1 went offline, -1 was removed; +n1, -n1 node 1 came, went.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "door.h"
#include "steps.h"
#include "toy_host.h"

#define REFUSED (-1)

struct stage {
    struct toy_host toy;
    struct memplug_listener listener;
    char heard[256];
    int nodes[64]; /* of blocks */
};

static void hear(void *context, const struct memplug_uevent *event)
{
    struct stage *stage = context;
    struct memplug *pool = stage->toy.pool;
    struct memplug_node_info info;
    size_t length = strlen(stage->heard);
    bool block = event->block != -1;
    bool gone = event->action == MEMPLUG_ACTION_REMOVE;

    assert_true(length + 8 < sizeof(stage->heard));
    snprintf(stage->heard + length, 8, "%s%c%s%d", length != 0 ? " " : "",
             "+^v-"[event->action], block ? "" : "n", block ? (int)event->block : event->node);
    if (block) {
        struct memplug_block_info now;

        assert_int_equal(memplug_block_info(pool, (uint64_t)event->block, &now),
                         gone ? -MPL_ENODEV : 0);
        assert_int_equal(event->node, stage->nodes[event->block]);
    } else {
        assert_int_equal(memplug_node_info(pool, event->node, &info), 0);
        assert_int_equal(info.online, !gone);
        assert_int_equal(info.nr_blocks == 0, gone);
    }
    assert_int_equal(memplug_listen(pool, &stage->listener), -MPL_EDEADLK);
    assert_int_equal(memplug_unlisten(pool, &stage->listener), -MPL_EDEADLK);
    assert_int_equal(memplug_online(pool, 1, 1, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), -MPL_EDEADLK);
}

static void open_stage(struct stage *stage, unsigned nr_nodes)
{
    struct memplug_geometry g = toy_geometry();

    memset(stage, 0, sizeof(*stage));
    toy_open(&stage->toy, &g, nr_nodes, NULL);
    stage->listener = (struct memplug_listener){.hear = hear, .context = stage};
    assert_int_equal(memplug_listen(stage->toy.pool, &stage->listener), 0);
}

static void expect(struct stage *stage, const char *heard)
{
    assert_string_equal(stage->heard, heard);
    stage->heard[0] = '\0';
    assert_int_equal(memplug_check(stage->toy.pool, NULL), 0);
}

static int add(struct stage *stage, uint64_t first, uint64_t nr_blocks,
               enum memplug_memmap memmap, int node)
{
    for (uint64_t id = first; id < first + nr_blocks; id++)
        stage->nodes[id] = node;
    return toy_add(&stage->toy, first, nr_blocks, memmap, node);
}

static int take_out(struct stage *stage, uint64_t first, uint64_t nr_blocks)
{
    return memplug_remove(stage->toy.pool, first << 20, nr_blocks << 20, NULL, NULL);
}

static int online(struct stage *stage, uint64_t first, uint64_t nr_blocks)
{
    return memplug_online(stage->toy.pool, first, nr_blocks, MEMPLUG_ONLINE_KERNEL, NULL, NULL);
}

static int offline(struct stage *stage, uint64_t first, uint64_t nr_blocks)
{
    return memplug_offline(stage->toy.pool, first, nr_blocks, NULL, NULL);
}

static void test_a_life(void **state)
{
    struct stage stage;

    (void)state;
    open_stage(&stage, 1);
    assert_int_equal(add(&stage, 2, 3, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    expect(&stage, "+2 +3 +4");
    assert_int_equal(online(&stage, 2, 3), 0);
    expect(&stage, "^2 ^3 ^4");
    assert_int_equal(offline(&stage, 3, 2), 0);
    expect(&stage, "v3 v4");
    assert_int_equal(take_out(&stage, 3, 2), 0);
    expect(&stage, "-3 -4");
    assert_int_equal(add(&stage, 7, 2, MEMPLUG_MEMMAP_RANGE, 0), 0);
    expect(&stage, "+7 +8");
    assert_int_equal(take_out(&stage, 7, 2), 0);
    expect(&stage, "-7 -8");
    toy_empty(&stage.toy);
}

/* Node 0 has the CPU: it is online without memory. */
static void test_a_node_comes_behind_its_blocks(void **state)
{
    struct stage stage;

    (void)state;
    open_stage(&stage, 3);
    assert_int_equal(add(&stage, 2, 2, MEMPLUG_MEMMAP_BLOCK, 2), 0);
    expect(&stage, "+2 +3 +n2");
    assert_int_equal(add(&stage, 4, 1, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    expect(&stage, "+4");
    assert_int_equal(add(&stage, 5, 1, MEMPLUG_MEMMAP_BLOCK, 2), 0);
    expect(&stage, "+5");
    assert_int_equal(add(&stage, 6, 1, MEMPLUG_MEMMAP_BLOCK, 1), 0);
    expect(&stage, "+6 +n1");
    assert_int_equal(take_out(&stage, 2, 1), 0);
    expect(&stage, "-2");
    assert_int_equal(take_out(&stage, 3, 4), 0); /* of three nodes */
    expect(&stage, "-3 -4 -5 -6 -n1 -n2");
    toy_empty(&stage.toy);
}

static int refuse(void *context, const struct memplug_notice *notice)
{
    (void)context;
    return notice->event == MEMPLUG_GOING_ONLINE || notice->event == MEMPLUG_GOING_OFFLINE
               ? REFUSED
               : 0;
}

static void test_what_fails_is_not_heard(void **state)
{
    struct memplug_subscriber veto = {.name = "veto", .notify = refuse};
    struct stage stage;

    (void)state;
    open_stage(&stage, 2);
    stage.toy.fail_at = stage.toy.nr_calls + 3;
    assert_int_not_equal(add(&stage, 2, 2, MEMPLUG_MEMMAP_BLOCK, 1), 0);
    expect(&stage, "");
    stage.toy.fail_at = 0;
    assert_int_equal(add(&stage, 2, 2, MEMPLUG_MEMMAP_BLOCK, 1), 0);
    expect(&stage, "+2 +3 +n1");
    assert_int_equal(memplug_subscribe(stage.toy.pool, &veto), 0);
    assert_int_equal(online(&stage, 2, 2), REFUSED);
    assert_int_equal(memplug_unsubscribe(stage.toy.pool, &veto), 0);
    assert_int_equal(online(&stage, 2, 2), 0);
    expect(&stage, "^2 ^3");
    assert_int_equal(memplug_subscribe(stage.toy.pool, &veto), 0);
    assert_int_equal(offline(&stage, 2, 1), REFUSED);
    assert_int_equal(memplug_unsubscribe(stage.toy.pool, &veto), 0);
    assert_int_equal(take_out(&stage, 2, 2), -MPL_EBUSY);
    expect(&stage, "");
    toy_empty(&stage.toy);
}

static void test_there_is_room_for_sixteen(void **state)
{
    struct memplug_listener many[MPL_MAX_LISTENERS], deaf = {.hear = NULL};
    struct stage stage;

    (void)state;
    open_stage(&stage, 1);
    assert_int_equal(memplug_listen(stage.toy.pool, &stage.listener), -MPL_EEXIST);
    assert_int_equal(memplug_listen(stage.toy.pool, &deaf), -MPL_EINVAL);
    assert_int_equal(memplug_unlisten(stage.toy.pool, &deaf), -MPL_ENOENT);
    for (unsigned i = 0; i < MPL_MAX_LISTENERS; i++) {
        many[i] = stage.listener;
        assert_int_equal(memplug_listen(stage.toy.pool, &many[i]),
                         i + 1 < MPL_MAX_LISTENERS ? 0 : -MPL_ENOSPC);
    }
    assert_int_equal(memplug_unlisten(stage.toy.pool, &stage.listener), 0);
    for (unsigned i = 2; i + 1 < MPL_MAX_LISTENERS; i++)
        assert_int_equal(memplug_unlisten(stage.toy.pool, &many[i]), 0);
    assert_int_equal(add(&stage, 1, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
    expect(&stage, "+1 +1"); /* of the two that are left */
    toy_empty(&stage.toy);
}

/* --- nodes and serials ------------------------------------------------------------------------ */

static void expect_node(struct stage *stage, int node, uint64_t nr_blocks, bool has_memory,
                        bool has_normal_memory)
{
    struct memplug_node_info info;

    assert_int_equal(memplug_node_info(stage->toy.pool, node, &info), 0);
    assert_int_equal(info.online, node == 0 || nr_blocks != 0);
    assert_int_equal(info.nr_blocks, nr_blocks);
    assert_int_equal(info.has_memory, has_memory);
    assert_int_equal(info.has_normal_memory, has_normal_memory);
}

static void test_what_a_node_has(void **state)
{
    struct memplug_node_info info;
    struct stage stage;

    (void)state;
    open_stage(&stage, 2);
    assert_int_equal(memplug_node_info(stage.toy.pool, 2, &info), -MPL_EINVAL);
    assert_int_equal(memplug_node_info(stage.toy.pool, -1, &info), -MPL_EINVAL);
    assert_int_equal(memplug_node_info(stage.toy.pool, 0, NULL), -MPL_EINVAL);
    expect_node(&stage, 0, 0, false, false);
    assert_int_equal(add(&stage, 1, 3, MEMPLUG_MEMMAP_BLOCK, 1), 0);
    expect_node(&stage, 0, 0, false, false);
    expect_node(&stage, 1, 3, false, false);
    assert_int_equal(memplug_online(stage.toy.pool, 2, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    expect_node(&stage, 1, 3, true, false);
    assert_int_equal(online(&stage, 1, 1), 0);
    expect_node(&stage, 1, 3, true, true);
    assert_int_equal(offline(&stage, 1, 2), 0);
    expect_node(&stage, 1, 3, false, false);
    toy_empty(&stage.toy);
}

static void test_which_nodes_have_a_cpu(void **state)
{
    const struct {
        uint64_t cpu_nodes, online;
        bool valid;
    } cases[] = {
        {0, 1, true}, {1, 1, true}, {2, 2, true}, {6, 6, true}, {7, 7, true}, {8, 0, false},
        {UINT64_MAX, 0, false},
    };
    struct stage stage;

    (void)state;
    open_stage(&stage, 1);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct memplug_config config = {
            .host = &stage.toy.host, .nr_nodes = 3, .cpu_nodes = cases[i].cpu_nodes};
        uint64_t size_bytes = memplug_metadata_bytes(&config);
        struct memplug *pool;
        char *memory;

        assert_int_equal(size_bytes != 0, cases[i].valid);
        if (!cases[i].valid)
            continue;
        memory = test_calloc(1, size_bytes + 64);
        assert_int_equal(memplug_open(&config, (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63),
                                      size_bytes, &pool, NULL),
                         0);
        for (int node = 0; node < 3; node++) {
            struct memplug_node_info info;

            assert_int_equal(memplug_node_info(pool, node, &info), 0);
            assert_int_equal(info.online, cases[i].online >> node & 1);
        }
        assert_int_equal(memplug_close(pool, NULL), 0);
        test_free(memory);
    }
    toy_empty(&stage.toy);
}

static uint64_t serial(struct stage *stage, uint64_t id)
{
    struct memplug_block_info info;

    assert_int_equal(memplug_block_info(stage->toy.pool, id, &info), 0);
    return info.serial;
}

static void test_a_block_that_comes_again_is_another_one(void **state)
{
    struct stage stage;
    uint64_t first, second;

    (void)state;
    open_stage(&stage, 1);
    assert_int_equal(add(&stage, 1, 2, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    first = serial(&stage, 1);
    assert_int_not_equal(first, 0);
    assert_int_equal(serial(&stage, 2), first);
    assert_int_equal(online(&stage, 1, 1), 0);
    assert_int_equal(offline(&stage, 1, 1), 0);
    assert_int_equal(serial(&stage, 1), first);
    assert_int_equal(take_out(&stage, 1, 1), 0);
    stage.toy.fail_at = stage.toy.nr_calls + 1;
    assert_int_not_equal(add(&stage, 1, 1, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    stage.toy.fail_at = 0;
    assert_int_equal(add(&stage, 1, 1, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    second = serial(&stage, 1);
    assert_true(second > first);
    assert_int_equal(serial(&stage, 2), first);
    assert_int_equal(take_out(&stage, 1, 1), 0);
    assert_int_equal(add(&stage, 3, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
    assert_true(serial(&stage, 3) > second);
    toy_empty(&stage.toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_life),
        cmocka_unit_test(test_a_node_comes_behind_its_blocks),
        cmocka_unit_test(test_what_fails_is_not_heard),
        cmocka_unit_test(test_there_is_room_for_sixteen),
        cmocka_unit_test(test_what_a_node_has),
        cmocka_unit_test(test_which_nodes_have_a_cpu),
        cmocka_unit_test(test_a_block_that_comes_again_is_another_one),
    };

    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
