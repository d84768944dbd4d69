/* SPDX-License-Identifier: MIT */
/* Spans of addresses and blocks: overlap, the checks of a range, the search for free addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "state/state.h"
#include "toy_host.h"

#define SMALL 9u

static uint32_t bits(uint64_t start, uint64_t size)
{
    return ((UINT32_C(1) << size) - 1) << start;
}

/* All pairs of spans within nine units, at both ends of the number line. */
static void test_overlap_agrees_with_a_bitmap(void **state)
{
    const uint64_t bases[] = {0, 1, UINT64_C(1) << 63, UINT64_MAX - SMALL + 1};
    unsigned nr_overlaps = 0;

    (void)state;
    for (unsigned k = 0; k < sizeof(bases) / sizeof(bases[0]); k++)
        for (uint64_t a = 0; a < SMALL; a++)
            for (uint64_t a_size = 0; a + a_size <= SMALL; a_size++)
                for (uint64_t b = 0; b < SMALL; b++)
                    for (uint64_t b_size = 0; b + b_size <= SMALL; b_size++) {
                        bool expected = (bits(a, a_size) & bits(b, b_size)) != 0;

                        assert_int_equal(mpl_range_overlaps(bases[k] + a, a_size, bases[k] + b,
                                                            b_size),
                                         expected);
                        nr_overlaps += expected;
                    }
    assert_true(nr_overlaps > 1000);
}

static void test_overlap_of_spans_far_apart(void **state)
{
    (void)state;
    assert_true(mpl_range_overlaps(0, UINT64_MAX, UINT64_MAX - 1, 1));
    assert_false(mpl_range_overlaps(0, UINT64_MAX, UINT64_MAX, 1));
    assert_false(mpl_range_overlaps(UINT64_MAX, 1, 0, UINT64_MAX));
    assert_false(mpl_range_overlaps(0, 1, UINT64_MAX, 1));
    assert_true(mpl_range_overlaps(5, UINT64_MAX, UINT64_MAX - 3, 2));
}

/* One check, and what its reason names. */
static void check(struct toy_host *toy, uint64_t address, uint64_t size_bytes, int error,
                  uint64_t unit_bytes)
{
    struct toy_op toy_op;

    toy_op_begin(&toy_op, toy, "add");
    assert_int_equal(mpl_range_check(&toy_op.op, address, size_bytes), error);
    assert_int_equal(toy_op.reason.error, error);
    if (error == 0)
        return;
    assert_int_equal(toy_op.reason.address, address);
    assert_int_equal(toy_op.reason.size_bytes, size_bytes);
    assert_int_equal(toy_op.reason.unit_bytes, unit_bytes);
    assert_string_equal(toy_op.reason.operation, "add");
    assert_string_equal(toy_op.reason.step, "check");
    assert_non_null(toy_op.reason.why);
}

static void test_check_names_address_and_size(void **state)
{
    struct memplug_geometry g = toy_geometry();
    uint64_t block = mpl_block_bytes(&g);
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    check(&toy, block, block, 0, 0);
    check(&toy, block, 0, -MPL_EINVAL, block);
    check(&toy, block, block / 2, -MPL_EINVAL, block);
    check(&toy, block, block + 1, -MPL_EINVAL, block);
    check(&toy, block, 3 * block / 2, -MPL_EINVAL, block);
    check(&toy, 0, block, -MPL_EINVAL, block);
    check(&toy, block / 2, block, -MPL_EINVAL, block);
    check(&toy, block + 1, block, -MPL_EINVAL, block);
    check(&toy, MEMPLUG_ANY_ADDRESS, block, 0, 0);
    check(&toy, MEMPLUG_ANY_ADDRESS, 0, -MPL_EINVAL, block);
    check(&toy, MEMPLUG_ANY_ADDRESS, block - 1, -MPL_EINVAL, block);
    toy_close(&toy);
}

static void test_check_at_the_address_limit(void **state)
{
    struct memplug_geometry g = toy_geometry();
    uint64_t block = mpl_block_bytes(&g), limit = g.address_limit;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    check(&toy, limit - block, block, 0, 0);
    check(&toy, block, limit - block, 0, 0);
    check(&toy, limit - block, 2 * block, -MPL_E2BIG, limit);
    check(&toy, block, limit, -MPL_E2BIG, limit);
    check(&toy, limit, block, -MPL_E2BIG, limit);
    check(&toy, limit + block, block, -MPL_E2BIG, limit);
    toy_close(&toy);
}

/* The largest multiples of a block that there are: their sums wrap. */
static void test_check_near_the_largest_number(void **state)
{
    struct memplug_geometry g = toy_geometry();
    uint64_t block = mpl_block_bytes(&g), last = UINT64_MAX - block + 1;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    check(&toy, last, block, -MPL_E2BIG, g.address_limit);
    check(&toy, last, 2 * block, -MPL_E2BIG, g.address_limit);
    check(&toy, block, last, -MPL_E2BIG, g.address_limit);
    check(&toy, 2 * block, last, -MPL_E2BIG, g.address_limit);
    check(&toy, last, last, -MPL_E2BIG, g.address_limit);
    check(&toy, UINT64_MAX - 1, block, -MPL_EINVAL, block);
    check(&toy, block, UINT64_MAX, -MPL_EINVAL, block);
    toy_close(&toy);
}

/* Block 0 is never given out; present is a bit per block. */
static uint64_t naive_find(uint32_t present, unsigned nr_max, uint64_t nr_blocks)
{
    for (uint64_t first = 1; first + nr_blocks <= nr_max; first++)
        if ((present & bits(first, nr_blocks)) == 0)
            return first;
    return 0;
}

static void test_find_agrees_with_trying_each_address(void **state)
{
    struct memplug_geometry g = toy_geometry();
    const unsigned nr_max = 9;
    struct toy_host toy;

    (void)state;
    g.address_limit = nr_max * mpl_block_bytes(&g);
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(toy.pool->nr_blocks_max, nr_max);
    for (uint32_t present = 0; present < UINT32_C(1) << nr_max; present++) {
        for (unsigned id = 0; id < nr_max; id++)
            toy.pool->blocks[id].state =
                (present >> id & 1) != 0 ? MEMPLUG_BLOCK_ADDING : MEMPLUG_BLOCK_ABSENT;
        for (uint64_t nr_blocks = 1; nr_blocks <= nr_max + 2; nr_blocks++)
            assert_int_equal(mpl_range_find(toy.pool, nr_blocks, 1, false),
                             naive_find(present, nr_max, nr_blocks));
    }
    toy_abandon(&toy);
}

static void test_add_finds_an_address_or_says_that_there_is_none(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct memplug_add add = {.memmap = MEMPLUG_MEMMAP_HOST};
    struct memplug_reason reason;
    struct toy_host toy;

    (void)state;
    g.address_limit = 4 * mpl_block_bytes(&g);
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(toy_add(&toy, 1, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
    add.address = MEMPLUG_ANY_ADDRESS;
    add.size_bytes = 2 * mpl_block_bytes(&g);
    assert_int_equal(memplug_add(toy.pool, &add, NULL, &reason), 0);
    assert_int_equal(add.address, 2 * mpl_block_bytes(&g));
    add.address = MEMPLUG_ANY_ADDRESS;
    add.size_bytes = mpl_block_bytes(&g);
    assert_int_equal(memplug_add(toy.pool, &add, NULL, &reason), -MPL_E2BIG);
    assert_int_equal(add.address, MEMPLUG_ANY_ADDRESS);
    assert_int_equal(reason.error, -MPL_E2BIG);
    assert_int_equal(toy_add(&toy, 2, 2, MEMPLUG_MEMMAP_HOST, 0), -MPL_EEXIST);
    assert_int_equal(toy_add(&toy, 3, 1, MEMPLUG_MEMMAP_HOST, 0), -MPL_EEXIST);
    assert_int_equal(memplug_remove(toy.pool, mpl_block_bytes(&g), 3 * mpl_block_bytes(&g), NULL,
                                    NULL),
                     0);
    toy_close(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlap_agrees_with_a_bitmap),
        cmocka_unit_test(test_overlap_of_spans_far_apart),
        cmocka_unit_test(test_check_names_address_and_size),
        cmocka_unit_test(test_check_at_the_address_limit),
        cmocka_unit_test(test_check_near_the_largest_number),
        cmocka_unit_test(test_find_agrees_with_trying_each_address),
        cmocka_unit_test(test_add_finds_an_address_or_says_that_there_is_none),
    };

    return cmocka_run_group_tests_name("range", tests, NULL, NULL);
}
