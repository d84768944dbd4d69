/* SPDX-License-Identifier: MIT */
/* The policy as it is set and read, and memory groups: registered, counted, given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "state/state.h"
#include "toy_host.h"

static bool same_policy(const struct memplug_policy *a, const struct memplug_policy *b)
{
    return a->online == b->online && a->auto_online == b->auto_online &&
           a->memmap_on_memory == b->memmap_on_memory &&
           a->auto_movable_ratio == b->auto_movable_ratio &&
           a->auto_movable_numa_aware == b->auto_movable_numa_aware &&
           a->movable_node == b->movable_node;
}

/* The members that a mask names, from one, the others from the other. */
static struct memplug_policy mix(const struct memplug_policy *from, const struct memplug_policy *to,
                                 unsigned fields)
{
    struct memplug_policy mixed = *to;

    if ((fields & MEMPLUG_POLICY_ONLINE) != 0)
        mixed.online = from->online;
    if ((fields & MEMPLUG_POLICY_AUTO_ONLINE) != 0)
        mixed.auto_online = from->auto_online;
    if ((fields & MEMPLUG_POLICY_MEMMAP_ON_MEMORY) != 0)
        mixed.memmap_on_memory = from->memmap_on_memory;
    if ((fields & MEMPLUG_POLICY_RATIO) != 0)
        mixed.auto_movable_ratio = from->auto_movable_ratio;
    if ((fields & MEMPLUG_POLICY_NUMA_AWARE) != 0)
        mixed.auto_movable_numa_aware = from->auto_movable_numa_aware;
    if ((fields & MEMPLUG_POLICY_MOVABLE_NODE) != 0)
        mixed.movable_node = from->movable_node;
    return mixed;
}

static void test_every_mask_sets_its_members(void **state)
{
    const struct memplug_policy defaults = {
        .memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_YES,
        .auto_movable_ratio = 301,
        .auto_movable_numa_aware = true,
    };
    const struct memplug_policy other = {
        .online = MEMPLUG_POLICY_AUTO_MOVABLE,
        .auto_online = MEMPLUG_AUTO_MOVABLE,
        .memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_FORCE,
        .auto_movable_ratio = UINT32_MAX,
        .movable_node = true,
    };
    struct memplug_geometry g = toy_geometry();
    struct memplug_policy policy, expected;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    memplug_policy_get(toy.pool, &policy);
    assert_true(same_policy(&policy, &defaults));
    for (unsigned fields = 0; fields <= MEMPLUG_POLICY_ALL; fields++) {
        expected = mix(&other, &defaults, fields);
        assert_int_equal(memplug_policy_set(toy.pool, &other, fields), 0);
        memplug_policy_get(toy.pool, &policy);
        assert_true(same_policy(&policy, &expected));
        assert_int_equal(memplug_policy_set(toy.pool, &defaults, MEMPLUG_POLICY_ALL), 0);
    }
    toy_close(&toy);
}

static void refuse(struct toy_host *toy, struct memplug_policy policy, unsigned fields)
{
    struct memplug_policy before, after;

    memplug_policy_get(toy->pool, &before);
    assert_int_equal(memplug_policy_set(toy->pool, &policy, fields), -MPL_EINVAL);
    memplug_policy_get(toy->pool, &after);
    assert_true(same_policy(&before, &after));
}

static void test_values_that_are_none_are_refused(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct memplug_policy wrong = {.online = (enum memplug_online_policy)2,
                                   .auto_online = (enum memplug_auto_online)4,
                                   .memmap_on_memory = (enum memplug_memmap_on_memory)3,
                                   .auto_movable_ratio = 7};
    struct memplug_policy policy;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    refuse(&toy, wrong, MEMPLUG_POLICY_ONLINE | MEMPLUG_POLICY_RATIO);
    refuse(&toy, wrong, MEMPLUG_POLICY_AUTO_ONLINE | MEMPLUG_POLICY_RATIO);
    refuse(&toy, wrong, MEMPLUG_POLICY_MEMMAP_ON_MEMORY | MEMPLUG_POLICY_RATIO);
    refuse(&toy, (struct memplug_policy){0}, MEMPLUG_POLICY_ALL + 1);
    refuse(&toy, (struct memplug_policy){0}, UINT32_MAX);
    assert_int_equal(memplug_policy_set(toy.pool, &wrong, MEMPLUG_POLICY_RATIO), 0);
    memplug_policy_get(toy.pool, &policy);
    assert_int_equal(policy.auto_movable_ratio, 7);
    toy.locked = true; /* as from inside an operation */
    assert_int_equal(memplug_policy_set(toy.pool, &policy, MEMPLUG_POLICY_RATIO), -MPL_EDEADLK);
    memplug_policy_get(toy.pool, &policy); /* waits for nobody */
    toy.locked = false;
    toy_close(&toy);
}

/* --- groups ----------------------------------------------------------------------------------- */

static int add(struct toy_host *toy, uint64_t first, uint64_t nr_blocks, int node, int group,
               struct memplug_reason *reason)
{
    struct memplug_add request = {
        .address = first << 20,
        .size_bytes = nr_blocks << 20,
        .memmap = MEMPLUG_MEMMAP_RANGE,
        .node = node,
        .group = group,
        .backing = toy->backing,
    };
    int error = memplug_add(toy->pool, &request, NULL, reason);

    if (error == 0 && group != 0)
        assert_int_equal(request.node, toy->pool->groups[group - 1].node);
    return error;
}

static void test_groups_that_cannot_be(void **state)
{
    struct memplug_geometry g = toy_geometry();
    const struct memplug_group wrong[] = {
        {.node = -1, .nr_pages = 256},
        {.node = 2, .nr_pages = 256},
        {.node = 0, .nr_pages = 0},
        {.node = 0, .dynamic = true, .nr_pages = 0},
        {.node = 0, .dynamic = true, .nr_pages = 128},
        {.node = 0, .dynamic = true, .nr_pages = 768},
        {.node = 0, .dynamic = true, .nr_pages = 257},
    };
    struct memplug_group_info info;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 2, NULL);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(memplug_group_register(toy.pool, &wrong[i]), -MPL_EINVAL);
    for (int group = -1; group < 3; group++) {
        assert_int_equal(memplug_group_unregister(toy.pool, group), -MPL_EINVAL);
        assert_int_equal(memplug_group_info(toy.pool, group, &info), -MPL_EINVAL);
    }
    toy_close(&toy);
}

static void test_as_many_groups_as_there_are_numbers(void **state)
{
    struct memplug_geometry g = toy_geometry();
    const struct memplug_group group = {.nr_pages = 1};
    struct memplug_group_info info;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (int i = 1; i <= 1024; i++)
        assert_int_equal(memplug_group_register(toy.pool, &group), i);
    assert_int_equal(memplug_group_register(toy.pool, &group), -MPL_ENOSPC);
    assert_int_equal(memplug_group_unregister(toy.pool, 1025), -MPL_EINVAL);
    assert_int_equal(memplug_group_unregister(toy.pool, 700), 0);
    assert_int_equal(memplug_group_unregister(toy.pool, 700), -MPL_EINVAL);
    assert_int_equal(memplug_group_info(toy.pool, 700, &info), -MPL_EINVAL);
    assert_int_equal(memplug_check(toy.pool, NULL), 0);
    assert_int_equal(memplug_group_register(toy.pool, &group), 700);
    for (int i = 1; i <= 1024; i++)
        assert_int_equal(memplug_group_unregister(toy.pool, i), 0);
    toy_close(&toy);
}

static void expect(struct toy_host *toy, int group, uint64_t nr_blocks, uint64_t nr_kernel,
                   uint64_t nr_movable)
{
    struct memplug_group_info info;

    assert_int_equal(memplug_group_info(toy->pool, group, &info), 0);
    assert_int_equal(info.nr_blocks, nr_blocks);
    assert_int_equal(info.nr_present_kernel_pages, 256 * nr_kernel);
    assert_int_equal(info.nr_present_movable_pages, 256 * nr_movable);
    assert_int_equal(memplug_check(toy->pool, NULL), 0);
}

/* Memmaps count: a block is 256 pages, whatever its memmap takes. */
static void test_blocks_and_pages_of_a_group(void **state)
{
    struct memplug_geometry g = toy_geometry();
    const struct memplug_group device = {.node = 1, .nr_pages = 1000};
    struct memplug_block_info info;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 2, NULL);
    assert_int_equal(memplug_group_register(toy.pool, &device), 1);
    assert_int_equal(memplug_group_register(toy.pool, &device), 2);
    assert_int_equal(add(&toy, 4, 3, MEMPLUG_ANY_NODE, 2, NULL), 0);
    assert_int_equal(add(&toy, 8, 1, 1, 2, NULL), 0);
    assert_int_equal(add(&toy, 9, 1, 0, 0, NULL), 0);
    expect(&toy, 2, 4, 0, 0);
    expect(&toy, 1, 0, 0, 0);
    assert_int_equal(memplug_block_info(toy.pool, 6, &info), 0);
    assert_true(info.group == 2 && info.node == 1);
    assert_int_equal(memplug_block_info(toy.pool, 9, &info), 0);
    assert_true(info.group == 0 && info.node == 0);
    assert_int_equal(memplug_online(toy.pool, 4, 2, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    assert_int_equal(memplug_online(toy.pool, 8, 2, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    expect(&toy, 2, 4, 1, 2);
    assert_int_equal(memplug_offline(toy.pool, 5, 1, NULL, NULL), 0);
    expect(&toy, 2, 4, 1, 1);
    assert_int_equal(memplug_group_unregister(toy.pool, 2), -MPL_EBUSY);
    assert_int_equal(memplug_offline(toy.pool, 4, 1, NULL, NULL), 0);
    assert_int_equal(memplug_remove(toy.pool, 4 << 20, 3 << 20, NULL, NULL), 0);
    expect(&toy, 2, 1, 1, 0);
    assert_int_equal(memplug_offline(toy.pool, 8, 2, NULL, NULL), 0);
    assert_int_equal(memplug_remove(toy.pool, 8 << 20, 1 << 20, NULL, NULL), 0);
    expect(&toy, 2, 0, 0, 0);
    assert_int_equal(memplug_group_unregister(toy.pool, 2), 0);
    toy_empty(&toy);
}

static void test_adds_to_the_wrong_group(void **state)
{
    struct memplug_geometry g = toy_geometry();
    const struct memplug_group device = {.node = 1, .nr_pages = 256};
    struct memplug_reason reason;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 2, NULL);
    assert_int_equal(memplug_group_register(toy.pool, &device), 1);
    assert_int_equal(add(&toy, 4, 1, 1, 2, &reason), -MPL_EINVAL);
    assert_string_equal(reason.why, "there is no such memory group");
    assert_int_equal(add(&toy, 4, 1, 1, -1, &reason), -MPL_EINVAL);
    assert_int_equal(add(&toy, 4, 1, 1, 65537, &reason), -MPL_EINVAL);
    assert_int_equal(add(&toy, 4, 1, 0, 1, &reason), -MPL_EINVAL);
    assert_string_equal(reason.why, "the memory group is on another node");
    assert_int_equal(add(&toy, 4, 1, MEMPLUG_ANY_NODE, 0, &reason), -MPL_EINVAL);
    expect(&toy, 1, 0, 0, 0);
    toy.fail_at = 1; /* an add that fails on its way leaves the group, too */
    assert_int_equal(add(&toy, 4, 1, 1, 1, &reason), -MPL_ENOMEM);
    expect(&toy, 1, 0, 0, 0);
    toy_close(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_mask_sets_its_members),
        cmocka_unit_test(test_values_that_are_none_are_refused),
        cmocka_unit_test(test_groups_that_cannot_be),
        cmocka_unit_test(test_as_many_groups_as_there_are_numbers),
        cmocka_unit_test(test_blocks_and_pages_of_a_group),
        cmocka_unit_test(test_adds_to_the_wrong_group),
    };

    return cmocka_run_group_tests_name("group", tests, NULL, NULL);
}
