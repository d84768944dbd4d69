/* SPDX-License-Identifier: MIT */
/* Which zone a block goes to, and where frames are looked for: against bitmaps of spans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "state/state.h"
#include "toy_host.h"

#define NR_BLOCKS 4u
#define FIRST 2u
#define NR_SPANS (1u + NR_BLOCKS * (NR_BLOCKS + 1) / 2)
#define NODE 1

/* A span of blocks: a bit for each; number 0 is the empty one. */
static uint32_t span_bits(unsigned nr)
{
    unsigned number = 1;

    for (unsigned first = 0; first < NR_BLOCKS; first++)
        for (unsigned end = first + 1; end <= NR_BLOCKS; end++)
            if (number++ == nr)
                return (UINT32_C(1) << end) - (UINT32_C(1) << first);
    return 0;
}

static void set_span(struct toy_host *toy, int node, unsigned kind, uint32_t bits)
{
    struct mpl_zone *zone = mpl_zone_at(toy->pool, node, kind);
    uint64_t block_pages = mpl_block_pages(&toy->pool->geometry);

    zone->start = mpl_pfn(bits == 0 ? 0 : (FIRST + MPL_CTZ64(bits)) * block_pages);
    zone->nr_spanned = MPL_POPCOUNT64(bits) * block_pages;
}

/* The kernel's rule, from the spans as bitmaps. */
static enum memplug_zone naive_zone(const uint32_t spans[MEMPLUG_NR_ZONES], unsigned block,
                                    enum memplug_online_type type, bool movable_node)
{
    enum memplug_zone kernel = MEMPLUG_ZONE_NORMAL;
    bool in_kernel, in_movable = (spans[MEMPLUG_ZONE_MOVABLE] >> block & 1) != 0;

    if ((spans[MEMPLUG_ZONE_DMA32] >> block & 1) != 0)
        kernel = MEMPLUG_ZONE_DMA32;
    if ((spans[MEMPLUG_ZONE_DMA] >> block & 1) != 0)
        kernel = MEMPLUG_ZONE_DMA;
    if (type != MEMPLUG_ONLINE_DEFAULT)
        return type == MEMPLUG_ONLINE_MOVABLE ? MEMPLUG_ZONE_MOVABLE : kernel;
    in_kernel = (spans[kernel] >> block & 1) != 0;
    if (in_kernel != in_movable)
        return in_kernel ? kernel : MEMPLUG_ZONE_MOVABLE;
    return movable_node ? MEMPLUG_ZONE_MOVABLE : kernel;
}

/* valid_zones: what a plain online would choose, then the other one that is possible. */
static void check_zones_of_block(struct toy_host *toy, const uint32_t spans[MEMPLUG_NR_ZONES],
                                 unsigned i, bool movable_node)
{
    enum memplug_zone zones[2];
    enum memplug_zone first = naive_zone(spans, i, MEMPLUG_ONLINE_DEFAULT, movable_node);
    enum memplug_zone kernel = naive_zone(spans, i, MEMPLUG_ONLINE_KERNEL, movable_node);

    assert_int_equal(memplug_block_zones(toy->pool, FIRST + i, zones), 2);
    assert_int_equal(zones[0], first);
    assert_int_equal(zones[1], first == MEMPLUG_ZONE_MOVABLE ? kernel : MEMPLUG_ZONE_MOVABLE);
}

static void check_situation(struct toy_host *toy, const uint32_t spans[MEMPLUG_NR_ZONES],
                            bool movable_node)
{
    const enum memplug_online_type types[] = {
        MEMPLUG_ONLINE_DEFAULT,
        MEMPLUG_ONLINE_KERNEL,
        MEMPLUG_ONLINE_MOVABLE,
    };

    for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++)
        set_span(toy, NODE, kind, spans[kind]);
    for (unsigned i = 0; i < NR_BLOCKS; i++) {
        struct mpl_block *block = &toy->pool->blocks[FIRST + i];

        block->node = NODE;
        block->zone = MEMPLUG_NR_ZONES;
        block->state = MEMPLUG_BLOCK_OFFLINE;
        for (unsigned type = 0; type < 3; type++)
            assert_int_equal(mpl_policy_zone(toy->pool, block, types[type]),
                             naive_zone(spans, i, types[type], movable_node));
        check_zones_of_block(toy, spans, i, movable_node);
    }
}

static void test_the_zone_of_a_block_in_every_situation_of_spans(void **state)
{
    struct memplug_geometry g = toy_geometry();
    unsigned nr_situations = NR_SPANS * NR_SPANS * NR_SPANS * NR_SPANS;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 3, NULL);
    /* What other nodes span must not count. */
    for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++)
        set_span(&toy, 0, kind, span_bits(1 + kind));
    for (unsigned nr = 0; nr < nr_situations; nr++) {
        uint32_t spans[MEMPLUG_NR_ZONES];
        unsigned rest = nr;

        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++) {
            spans[kind] = span_bits(rest % NR_SPANS);
            rest /= NR_SPANS;
        }
        for (unsigned movable_node = 0; movable_node < 2; movable_node++) {
            toy.pool->policy.movable_node = movable_node != 0;
            check_situation(&toy, spans, movable_node != 0);
        }
    }
    toy_abandon(&toy);
}

static void expect_zones(struct toy_host *toy, uint64_t block, int nr, enum memplug_zone first,
                         enum memplug_zone second)
{
    enum memplug_zone zones[2] = {MEMPLUG_NR_ZONES, MEMPLUG_NR_ZONES};

    assert_int_equal(memplug_block_zones(toy->pool, block, zones), nr);
    if (nr > 0)
        assert_int_equal(zones[0], first);
    if (nr > 1)
        assert_int_equal(zones[1], second);
}

static void test_valid_zones_of_blocks(void **state)
{
    enum memplug_zone normal = MEMPLUG_ZONE_NORMAL, movable = MEMPLUG_ZONE_MOVABLE;
    struct memplug_geometry g = toy_geometry();
    struct mpl_block *block;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    block = &toy.pool->blocks[3];
    expect_zones(&toy, 3, -MPL_ENODEV, normal, normal);
    expect_zones(&toy, 64, -MPL_ENODEV, normal, normal);
    expect_zones(&toy, UINT64_MAX, -MPL_ENODEV, normal, normal);
    assert_int_equal(toy_add(&toy, 1, 5, MEMPLUG_MEMMAP_HOST, 0), 0);
    expect_zones(&toy, 3, 2, normal, movable);
    assert_int_equal(memplug_online(toy.pool, 2, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    assert_int_equal(memplug_online(toy.pool, 4, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    expect_zones(&toy, 3, 2, movable, normal);
    expect_zones(&toy, 2, 1, movable, normal);
    assert_int_equal(memplug_online(toy.pool, 3, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    expect_zones(&toy, 3, 1, normal, normal);
    block->state = MEMPLUG_BLOCK_GOING_OFFLINE; /* it is still in its zone */
    expect_zones(&toy, 3, 1, normal, normal);
    block->state = MEMPLUG_BLOCK_ONLINE;
    block->zone = MEMPLUG_NR_ZONES; /* boot memory in several zones */
    expect_zones(&toy, 3, 0, normal, normal);
    block->zone = MEMPLUG_ZONE_NORMAL;
    toy.pool->blocks[5].state = MEMPLUG_BLOCK_ADDING;
    expect_zones(&toy, 5, -MPL_ENODEV, normal, normal);
    toy.pool->blocks[5].state = MEMPLUG_BLOCK_OFFLINE;
    toy_empty(&toy);
}

/* Movable memory at both ends, a hole, and kernel memory that spans the hole too: the steps that
 * were measured in the kernel. */
static void test_a_hole_goes_to_the_zone_that_spans_it(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct memplug_block_info info;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(toy_add(&toy, 1, 8, MEMPLUG_MEMMAP_HOST, 0), 0);
    assert_int_equal(memplug_online(toy.pool, 2, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    assert_int_equal(memplug_online(toy.pool, 6, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    assert_int_equal(memplug_online(toy.pool, 4, 1, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), 0);
    assert_int_equal(memplug_block_info(toy.pool, 4, &info), 0);
    assert_int_equal(info.zone, MEMPLUG_ZONE_MOVABLE);
    assert_int_equal(memplug_online(toy.pool, 1, 1, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), 0);
    assert_int_equal(memplug_block_info(toy.pool, 1, &info), 0);
    assert_int_equal(info.zone, MEMPLUG_ZONE_NORMAL);
    assert_int_equal(memplug_online(toy.pool, 7, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    assert_int_equal(memplug_online(toy.pool, 5, 1, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), 0);
    assert_int_equal(memplug_block_info(toy.pool, 5, &info), 0);
    assert_int_equal(info.zone, MEMPLUG_ZONE_NORMAL);
    toy_empty(&toy);
}

/* Each block of one operation is asked for alone, in its turn: the second finds the first there. */
static void test_blocks_of_one_operation_follow_each_other(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct memplug_block_info info;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(toy_add(&toy, 1, 4, MEMPLUG_MEMMAP_HOST, 0), 0);
    assert_int_equal(memplug_online(toy.pool, 1, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    assert_int_equal(memplug_online(toy.pool, 4, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    assert_int_equal(memplug_online(toy.pool, 2, 2, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), 0);
    for (uint64_t id = 2; id < 4; id++) {
        assert_int_equal(memplug_block_info(toy.pool, id, &info), 0);
        assert_int_equal(info.zone, MEMPLUG_ZONE_MOVABLE);
    }
    toy_empty(&toy);
}

/* --- zonelists -------------------------------------------------------------------------------- */

static unsigned expect_node(struct toy_host *toy, struct mpl_zone *const got[], unsigned at,
                            int node, bool movable)
{
    const unsigned kinds[] = {
        MEMPLUG_ZONE_MOVABLE,
        MEMPLUG_ZONE_NORMAL,
        MEMPLUG_ZONE_DMA32,
        MEMPLUG_ZONE_DMA,
    };

    for (unsigned i = movable ? 0 : 1; i < MEMPLUG_NR_ZONES; i++)
        assert_ptr_equal(got[at++], mpl_zone_at(toy->pool, node, kinds[i]));
    return at;
}

static void check_zonelist(struct toy_host *toy, int nr_nodes, int node, bool this_node,
                           bool movable)
{
    struct memplug_alloc request = {
        .nr_pages = 1,
        .node = node,
        .this_node = this_node,
        .mover = movable ? 3 : 0,
    };
    int preferred = node == MEMPLUG_ANY_NODE ? 0 : node;
    struct mpl_zone *got[MPL_MAX_NODES * MEMPLUG_NR_ZONES] = {NULL};
    unsigned nr_got = mpl_policy_zonelist(toy->pool, &request, got);
    unsigned at = expect_node(toy, got, 0, preferred, movable);

    for (int other = 0; other < nr_nodes; other++)
        if (other != preferred && !(this_node && node != MEMPLUG_ANY_NODE))
            at = expect_node(toy, got, at, other, movable);
    assert_int_equal(nr_got, at);
    for (unsigned i = at; i < MPL_MAX_NODES * MEMPLUG_NR_ZONES; i++)
        assert_null(got[i]);
}

static void test_zonelists_begin_with_the_preferred_node(void **state)
{
    struct memplug_geometry g = toy_geometry();
    const int nr_nodes[] = {1, 2, 3, 5, MPL_MAX_NODES};

    (void)state;
    for (unsigned i = 0; i < sizeof(nr_nodes) / sizeof(nr_nodes[0]); i++) {
        struct toy_host toy;

        toy_open(&toy, &g, (unsigned)nr_nodes[i], NULL);
        for (int node = MEMPLUG_ANY_NODE; node < nr_nodes[i]; node++)
            for (unsigned bits = 0; bits < 4; bits++)
                check_zonelist(&toy, nr_nodes[i], node, (bits & 1) != 0, (bits & 2) != 0);
        toy_close(&toy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_zone_of_a_block_in_every_situation_of_spans),
        cmocka_unit_test(test_valid_zones_of_blocks),
        cmocka_unit_test(test_a_hole_goes_to_the_zone_that_spans_it),
        cmocka_unit_test(test_blocks_of_one_operation_follow_each_other),
        cmocka_unit_test(test_zonelists_begin_with_the_preferred_node),
    };

    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
