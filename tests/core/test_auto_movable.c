/* SPDX-License-Identifier: MIT */
/*
 * The auto-movable policy: with the numbers of a machine with 4 GiB that were measured, and against
 * the rule written down a second time, with wide numbers, on random machines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "state/state.h"
#include "toy_host.h"

#define NORMAL MEMPLUG_ZONE_NORMAL
#define MOVABLE MEMPLUG_ZONE_MOVABLE
#define PAGES UINT64_C(32768) /* of a block of 128 MiB */

static struct memplug_geometry x86_geometry(void)
{
    return (struct memplug_geometry){
        .page_shift = 12,
        .pageblock_order = 9,
        .section_shift = 27,
        .block_shift = 27,
        .large_shift = 21,
        .page_struct_bytes = 64,
        .address_limit = UINT64_C(128) << 27,
    };
}

static void set_early(struct toy_host *toy, int node, unsigned kind, uint64_t nr_pages)
{
    mpl_zone_at(toy->pool, node, kind)->nr_early = nr_pages;
}

/* Boot memory of 4 GiB: present pages of its zones. */
static void set_boot(struct toy_host *toy, int node)
{
    set_early(toy, node, MEMPLUG_ZONE_DMA, 3998);
    set_early(toy, node, MEMPLUG_ZONE_DMA32, 520160);
    set_early(toy, node, MEMPLUG_ZONE_NORMAL, 524288);
}

static void set_policy(struct toy_host *toy, enum memplug_online_policy online, uint32_t ratio)
{
    struct memplug_policy policy = {.online = online, .auto_movable_ratio = ratio};

    assert_int_equal(memplug_policy_set(toy->pool, &policy,
                                        MEMPLUG_POLICY_ONLINE | MEMPLUG_POLICY_RATIO),
                     0);
}

/* Plug a device in, with a group of its own: a DIMM. */
static int dimm(struct toy_host *toy, uint64_t first, uint64_t nr_blocks, int node)
{
    struct memplug_group group = {.node = node, .nr_pages = nr_blocks * PAGES};
    struct memplug_add add = {
        .address = first << 27,
        .size_bytes = nr_blocks << 27,
        .memmap = MEMPLUG_MEMMAP_BLOCK,
        .node = MEMPLUG_ANY_NODE,
        .backing = toy->backing,
    };

    add.group = memplug_group_register(toy->pool, &group);
    assert_true(add.group > 0);
    assert_int_equal(memplug_add(toy->pool, &add, NULL, NULL), 0);
    assert_int_equal(add.node, node);
    return add.group;
}

static enum memplug_zone first_choice(struct toy_host *toy, uint64_t block)
{
    enum memplug_zone zones[2];

    assert_int_equal(memplug_block_zones(toy->pool, block, zones), 2);
    assert_int_not_equal(zones[0], zones[1]);
    return zones[0];
}

/* What valid_zones says first is what a plain online does. */
static void online(struct toy_host *toy, uint64_t first, uint64_t nr_blocks,
                   enum memplug_zone expected)
{
    assert_int_equal(first_choice(toy, first), expected);
    assert_int_equal(memplug_online(toy->pool, first, nr_blocks, MEMPLUG_ONLINE_DEFAULT, NULL,
                                    NULL),
                     0);
    for (uint64_t id = first; id < first + nr_blocks; id++)
        assert_int_equal(toy->pool->blocks[id].zone, expected);
}

static void offline(struct toy_host *toy, uint64_t block)
{
    assert_int_equal(memplug_offline(toy->pool, block, 1, NULL, NULL), 0);
}

/* Boot memory is not in the blocks of these pools. */
static void end(struct toy_host *toy)
{
    for (int node = 0; node < (int)toy->pool->nr_nodes; node++)
        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++)
            set_early(toy, node, kind, 0);
    assert_int_equal(memplug_check(toy->pool, NULL), 0);
    toy_empty(toy);
}

/* Six DIMMs of a block each at 10 %: three fit, 98,304 of 104,844 pages. */
static void test_as_measured_with_six_dimms(void **state)
{
    struct memplug_geometry g = x86_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    set_boot(&toy, 0);
    set_policy(&toy, MEMPLUG_POLICY_AUTO_MOVABLE, 10);
    for (uint64_t id = 48; id < 54; id++) {
        dimm(&toy, id, 1, 0);
        assert_int_equal(first_choice(&toy, id), MOVABLE);
    }
    for (uint64_t id = 48; id < 54; id++)
        online(&toy, id, 1, id < 51 ? MOVABLE : NORMAL);
    set_policy(&toy, MEMPLUG_POLICY_AUTO_MOVABLE, 301);
    offline(&toy, 53);
    online(&toy, 53, 1, MOVABLE);
    set_policy(&toy, MEMPLUG_POLICY_AUTO_MOVABLE, 0);
    offline(&toy, 48);
    online(&toy, 48, 1, NORMAL);
    set_policy(&toy, MEMPLUG_POLICY_CONTIG_ZONES, 0);
    offline(&toy, 48);
    online(&toy, 48, 1, NORMAL);
    end(&toy);
}

/* At 30 %, 314,533 pages: a device of 1 GiB fits, one of 512 MiB no more, though its first block
 * alone would; and what it adds to Normal does not raise the limit. */
static void test_a_device_goes_to_one_kind_of_zone(void **state)
{
    struct memplug_geometry g = x86_geometry();
    struct memplug_group_info info;
    struct toy_host toy;
    int first, second;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    set_boot(&toy, 0);
    set_policy(&toy, MEMPLUG_POLICY_AUTO_MOVABLE, 30);
    first = dimm(&toy, 48, 8, 0);
    second = dimm(&toy, 56, 4, 0);
    for (uint64_t id = 48; id < 56; id++)
        online(&toy, id, 1, MOVABLE);
    for (uint64_t id = 56; id < 60; id++)
        online(&toy, id, 1, NORMAL);
    assert_int_equal(memplug_group_info(toy.pool, first, &info), 0);
    assert_int_equal(info.nr_present_movable_pages, 8 * PAGES);
    assert_int_equal(info.nr_present_kernel_pages, 0);
    assert_int_equal(memplug_group_info(toy.pool, second, &info), 0);
    assert_int_equal(info.nr_present_kernel_pages, 4 * PAGES);
    dimm(&toy, 60, 1, 0);
    dimm(&toy, 61, 1, 0);
    online(&toy, 60, 1, MOVABLE);
    online(&toy, 61, 1, NORMAL);
    /* A single kernel block makes the rest of its device kernel memory. */
    offline(&toy, 50);
    offline(&toy, 51);
    assert_int_equal(memplug_online(toy.pool, 50, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    online(&toy, 51, 1, NORMAL);
    end(&toy);
}

/* The blocks of one operation see each other: 98,304 pages fit, 131,072 do not. */
static void test_one_operation_over_several_blocks(void **state)
{
    struct memplug_geometry g = x86_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    set_boot(&toy, 0);
    set_policy(&toy, MEMPLUG_POLICY_AUTO_MOVABLE, 10);
    assert_int_equal(toy_add(&toy, 48, 6, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    assert_int_equal(memplug_online(toy.pool, 48, 6, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), 0);
    for (uint64_t id = 48; id < 54; id++)
        assert_int_equal(toy.pool->blocks[id].zone, id < 51 ? MOVABLE : NORMAL);
    end(&toy);
}

static void test_a_node_has_its_own_limit_if_told_so(void **state)
{
    struct memplug_geometry g = x86_geometry();
    struct memplug_policy policy = {.auto_movable_numa_aware = false};
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 2, NULL);
    set_boot(&toy, 0);
    set_policy(&toy, MEMPLUG_POLICY_AUTO_MOVABLE, 10);
    dimm(&toy, 48, 1, 1);
    dimm(&toy, 49, 1, 0);
    assert_int_equal(first_choice(&toy, 48), NORMAL); /* node 1 has no boot memory */
    assert_int_equal(first_choice(&toy, 49), MOVABLE);
    assert_int_equal(memplug_policy_set(toy.pool, &policy, MEMPLUG_POLICY_NUMA_AWARE), 0);
    online(&toy, 48, 1, MOVABLE);
    end(&toy);
}

/* 100 * 2^33 pages at 2^31 %: 2^64 may be movable, which is more than can be counted. */
static void test_large_numbers(void **state)
{
    struct memplug_geometry g = x86_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    set_early(&toy, 0, NORMAL, UINT64_C(100) << 33);
    set_policy(&toy, MEMPLUG_POLICY_AUTO_MOVABLE, UINT32_C(1) << 31);
    dimm(&toy, 48, 1, 0);
    online(&toy, 48, 1, MOVABLE);
    end(&toy);
}

/* --- random machines -------------------------------------------------------------------------- */

#define NR_MACHINES 1500u
#define NR_GROUPS 5u
#define FIRST 8u
#define END 40u

__extension__ typedef unsigned __int128 wide;

static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

struct machine {
    struct toy_host toy;
    struct memplug_group groups[NR_GROUPS + 1]; /* number 0 is none */
    uint64_t block_pages;
    uint32_t ratio;
    bool numa_aware;
};

/* Pages of a group in Movable, or in kernel zones. */
static uint64_t count(const struct machine *machine, int group, bool movable)
{
    uint64_t nr_pages = 0;

    for (uint64_t id = FIRST; id < END; id++) {
        const struct mpl_block *block = &machine->toy.pool->blocks[id];

        if (block->state == MEMPLUG_BLOCK_ONLINE && block->group == group &&
            (block->zone == MOVABLE) == movable)
            nr_pages += machine->block_pages;
    }
    return nr_pages;
}

static bool naive_fits(const struct machine *machine, int group, wide nr_pages, int node)
{
    const struct memplug *pool = machine->toy.pool;
    wide movable = nr_pages, early = 0, needed = 0;

    for (int i = 0; i < (int)pool->nr_nodes; i++)
        for (unsigned kind = 0; kind < MOVABLE && (node < 0 || node == i); kind++)
            early += pool->nodes[i].zones[kind].nr_early;
    for (uint64_t id = FIRST; id < END; id++) {
        const struct mpl_block *block = &pool->blocks[id];

        if (block->state == MEMPLUG_BLOCK_ONLINE && block->zone == MOVABLE &&
            (node < 0 || block->node == node) &&
            (block->group == group || !machine->groups[block->group].dynamic))
            movable += machine->block_pages;
    }
    for (int other = 1; other <= (int)NR_GROUPS; other++) {
        uint64_t kernel = count(machine, other, false);
        uint64_t wanted = (uint64_t)((wide)count(machine, other, true) * 100 / machine->ratio);

        if (other != group && machine->groups[other].dynamic &&
            (node < 0 || machine->groups[other].node == node) && wanted > kernel)
            needed += wanted - kernel;
    }
    early = early > needed ? early - needed : 0;
    if (machine->groups[group].dynamic)
        early += count(machine, group, false);
    return movable <= early * machine->ratio / 100;
}

static enum memplug_zone naive_zone(const struct machine *machine, uint64_t id)
{
    const struct mpl_block *blocks = machine->toy.pool->blocks;
    const struct memplug_group *group = &machine->groups[blocks[id].group];
    uint64_t unit = group->dynamic ? group->nr_pages / machine->block_pages : 1;
    wide nr_pages = machine->block_pages;

    if (machine->ratio == 0)
        return NORMAL;
    if (unit > 1)
        nr_pages = group->nr_pages;
    for (uint64_t other = FIRST; unit > 1 && other < END; other++) {
        if (other / unit != id / unit || blocks[other].state != MEMPLUG_BLOCK_ONLINE)
            continue;
        if (blocks[other].zone != MOVABLE)
            return NORMAL;
        nr_pages -= machine->block_pages;
    }
    if (blocks[id].group != 0 && !group->dynamic) {
        uint64_t there = count(machine, blocks[id].group, true);

        if (count(machine, blocks[id].group, false) != 0)
            return NORMAL;
        if (group->nr_pages > there + machine->block_pages)
            nr_pages = group->nr_pages - there;
    }
    if (!naive_fits(machine, blocks[id].group, nr_pages, -1))
        return NORMAL;
    if (machine->numa_aware && !naive_fits(machine, blocks[id].group, nr_pages, blocks[id].node))
        return NORMAL;
    return MOVABLE;
}

static void register_groups(struct machine *machine)
{
    machine->groups[0] = (struct memplug_group){0};
    for (unsigned i = 1; i <= NR_GROUPS; i++) {
        struct memplug_group *group = &machine->groups[i];
        bool huge = random_below(40) == 0;

        group->node = (int)random_below(2);
        group->dynamic = random_below(2) != 0;
        group->nr_pages = machine->block_pages << random_below(4);
        if (!group->dynamic)
            group->nr_pages += random_below(3000);
        if (huge)
            group->nr_pages = group->dynamic ? UINT64_C(1) << 63 : UINT64_MAX;
        assert_int_equal(memplug_group_register(machine->toy.pool, group), i);
    }
}

static void plug(struct machine *machine, uint64_t id)
{
    unsigned group = (unsigned)random_below(NR_GROUPS + 1);
    struct memplug_add add = {
        .address = id * machine->block_pages << 12,
        .size_bytes = machine->block_pages << 12,
        .memmap = MEMPLUG_MEMMAP_BLOCK,
        .node = group != 0 ? MEMPLUG_ANY_NODE : (int)random_below(2),
        .group = (int)group,
        .backing = machine->toy.backing,
    };
    struct memplug *pool = machine->toy.pool;

    assert_int_equal(memplug_add(pool, &add, NULL, NULL), 0);
    if (random_below(2) != 0)
        assert_int_equal(memplug_online(pool, id, 1,
                                        random_below(3) != 0 ? MEMPLUG_ONLINE_MOVABLE
                                                             : MEMPLUG_ONLINE_KERNEL,
                                        NULL, NULL),
                         0);
}

static void make_machine(struct machine *machine)
{
    static const uint32_t ratios[] = {0, 1, 10, 33, 50, 99, 100, 101, 301, 5000, UINT32_MAX};
    struct memplug_geometry g = toy_geometry();
    struct memplug_policy policy = {.online = MEMPLUG_POLICY_AUTO_MOVABLE};

    toy_open(&machine->toy, &g, 2, NULL);
    machine->block_pages = mpl_block_pages(&g);
    machine->ratio = ratios[random_below(sizeof(ratios) / sizeof(ratios[0]))];
    machine->numa_aware = random_below(2) != 0;
    policy.auto_movable_ratio = machine->ratio;
    policy.auto_movable_numa_aware = machine->numa_aware;
    assert_int_equal(memplug_policy_set(machine->toy.pool, &policy, MEMPLUG_POLICY_ALL), 0);
    register_groups(machine);
    for (uint64_t id = FIRST; id < END; id++)
        plug(machine, id);
}

/* So much boot memory that the ratio decides now one way and now the other. */
static void set_some_boot(struct machine *machine)
{
    uint64_t most = 20 * machine->block_pages;

    if (machine->ratio != 0)
        most = most * 100 / machine->ratio + 2;
    for (int node = 0; node < 2; node++)
        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++)
            set_early(&machine->toy, node, kind, random_below(most));
    if (random_below(20) == 0)
        set_early(&machine->toy, 0, NORMAL, UINT64_C(1) << 46);
}

static void test_random_machines(void **state)
{
    uint64_t nr_movable = 0, nr_normal = 0;

    (void)state;
    random_state = 88172645463325252u;
    for (unsigned i = 0; i < NR_MACHINES; i++) {
        struct machine machine;

        make_machine(&machine);
        for (unsigned boots = 0; boots < 8; boots++) {
            set_some_boot(&machine);
            for (uint64_t id = FIRST; id < END; id++) {
                if (machine.toy.pool->blocks[id].state != MEMPLUG_BLOCK_OFFLINE)
                    continue;
                assert_int_equal(first_choice(&machine.toy, id), naive_zone(&machine, id));
                *(first_choice(&machine.toy, id) == MOVABLE ? &nr_movable : &nr_normal) += 1;
            }
        }
        end(&machine.toy);
    }
    assert_true(nr_movable > 20000 && nr_normal > 20000); /* both answers were asked for */
}

/* An operation over several blocks chooses as one operation for each would. */
static void test_one_operation_is_as_good_as_many(void **state)
{
    uint64_t nr_movable = 0, nr_normal = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct machine machines[2];

        for (unsigned i = 0; i < 2; i++) {
            random_state = seed * 6364136223846793005u;
            make_machine(&machines[i]);
            for (uint64_t id = FIRST + 10; id < END; id++)
                if (machines[i].toy.pool->blocks[id].state == MEMPLUG_BLOCK_ONLINE)
                    offline(&machines[i].toy, id);
            set_some_boot(&machines[i]);
        }
        assert_int_equal(memplug_online(machines[0].toy.pool, FIRST + 10, END - FIRST - 10,
                                        MEMPLUG_ONLINE_DEFAULT, NULL, NULL),
                         0);
        for (uint64_t id = FIRST + 10; id < END; id++) {
            struct mpl_block *blocks = machines[0].toy.pool->blocks;

            assert_int_equal(memplug_online(machines[1].toy.pool, id, 1, MEMPLUG_ONLINE_DEFAULT,
                                            NULL, NULL),
                             0);
            assert_int_equal(machines[1].toy.pool->blocks[id].zone, blocks[id].zone);
            *(blocks[id].zone == MOVABLE ? &nr_movable : &nr_normal) += 1;
        }
        end(&machines[0].toy);
        end(&machines[1].toy);
    }
    assert_true(nr_movable > 1000 && nr_normal > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_measured_with_six_dimms),
        cmocka_unit_test(test_a_device_goes_to_one_kind_of_zone),
        cmocka_unit_test(test_one_operation_over_several_blocks),
        cmocka_unit_test(test_a_node_has_its_own_limit_if_told_so),
        cmocka_unit_test(test_large_numbers),
        cmocka_unit_test(test_random_machines),
        cmocka_unit_test(test_one_operation_is_as_good_as_many),
    };

    return cmocka_run_group_tests_name("auto-movable", tests, NULL, NULL);
}
