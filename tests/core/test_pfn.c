/* SPDX-License-Identifier: MIT */
/* Arithmetic between bytes, pages, pageblocks and blocks, against divisions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "toy_host.h"

static const struct memplug_geometry geometries[] = {
    {12, 9, 27, 27, 21, 64, UINT64_C(1) << 40},
    {12, 9, 27, 31, 21, 56, UINT64_C(1) << 40},
    {14, 11, 29, 29, 25, 128, UINT64_C(1) << 40},
    {16, 13, 29, 29, 16, 32, UINT64_C(1) << 40},
};
#define NR_GEOMETRIES (sizeof(geometries) / sizeof(geometries[0]))

/* Around every place where something changes: both sides of each power of two. */
static unsigned edges(uint64_t values[3 * 63])
{
    unsigned nr_values = 0;

    for (unsigned shift = 0; shift < 63; shift++) {
        values[nr_values++] = (UINT64_C(1) << shift) - 1;
        values[nr_values++] = UINT64_C(1) << shift;
        values[nr_values++] = (UINT64_C(1) << shift) + 1;
    }
    return nr_values;
}

static void test_sizes_are_the_powers_that_the_geometry_says(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_GEOMETRIES; i++) {
        const struct memplug_geometry *g = &geometries[i];
        uint64_t page_bytes = mpl_page_bytes(g);

        assert_int_equal(page_bytes, UINT64_C(1) << g->page_shift);
        assert_int_equal(mpl_block_bytes(g), UINT64_C(1) << g->block_shift);
        assert_int_equal(mpl_block_pages(g) * page_bytes, mpl_block_bytes(g));
        assert_int_equal(mpl_pageblock_pages(g), UINT64_C(1) << g->pageblock_order);
        assert_int_equal(mpl_memmap_bytes(g, 1), g->page_struct_bytes);
        assert_int_equal(mpl_memmap_bytes(g, mpl_block_pages(g)),
                         mpl_block_bytes(g) / page_bytes * g->page_struct_bytes);
    }
}

static void test_conversions_divide_and_multiply(void **state)
{
    uint64_t values[3 * 63];
    unsigned nr_values = edges(values);

    (void)state;
    for (unsigned i = 0; i < NR_GEOMETRIES; i++) {
        const struct memplug_geometry *g = &geometries[i];
        uint64_t page = mpl_page_bytes(g), block = mpl_block_bytes(g);

        for (unsigned k = 0; k < nr_values; k++) {
            uint64_t bytes = values[k];
            memplug_pfn_t pfn = mpl_pfn_of_address(g, bytes);

            assert_int_equal(pfn.nr, bytes / page);
            assert_int_equal(mpl_address_of_pfn(g, pfn), bytes / page * page);
            assert_int_equal(mpl_bytes_of_pages(g, pfn.nr), bytes / page * page);
            assert_int_equal(mpl_pages_of_bytes(g, bytes), bytes / page + (bytes % page != 0));
            assert_int_equal(mpl_block_of_pfn(g, pfn), bytes / block);
            assert_int_equal(mpl_pfn_of_block(g, bytes / block).nr, bytes / block * block / page);
        }
    }
}

static void test_blocks_begin_and_end_where_they_should(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_GEOMETRIES; i++) {
        const struct memplug_geometry *g = &geometries[i];

        for (uint64_t block = 1; block < 100; block++) {
            memplug_pfn_t start = mpl_pfn_of_block(g, block);
            memplug_pfn_t last = mpl_pfn_add(start, mpl_block_pages(g) - 1);

            assert_int_equal(mpl_block_of_pfn(g, start), block);
            assert_int_equal(mpl_block_of_pfn(g, last), block);
            assert_int_equal(mpl_block_of_pfn(g, mpl_pfn_add(last, 1)), block + 1);
            assert_int_equal(mpl_block_of_pfn(g, mpl_pfn(start.nr - 1)), block - 1);
            assert_int_equal(mpl_pfn_distance(start, last), mpl_block_pages(g) - 1);
        }
    }
}

static void test_pages_of_bytes_does_not_overflow(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_GEOMETRIES; i++) {
        const struct memplug_geometry *g = &geometries[i];

        assert_int_equal(mpl_pages_of_bytes(g, UINT64_MAX), UINT64_C(1) << (64 - g->page_shift));
        assert_int_equal(mpl_pages_of_bytes(g, 0), 0);
    }
}

static void test_rounding_agrees_with_counting(void **state)
{
    (void)state;
    for (uint64_t power = 1; power <= 16; power *= 2)
        for (uint64_t value = 0; value < 70; value++) {
            uint64_t up = value;

            while (up % power != 0)
                up++;
            assert_int_equal(mpl_round_up(value, power), up);
            assert_int_equal(mpl_is_multiple(value, power), value % power == 0);
        }
}

static void add_overflows(void *context)
{
    (void)context;
    (void)mpl_pfn_add(mpl_pfn(UINT64_MAX - 1), 2);
}

static void distance_is_negative(void *context)
{
    (void)context;
    (void)mpl_pfn_distance(mpl_pfn(2), mpl_pfn(1));
}

static void address_overflows(void *context)
{
    (void)mpl_address_of_pfn(context, mpl_pfn(UINT64_C(1) << 52));
}

static void bytes_overflow(void *context)
{
    (void)mpl_bytes_of_pages(context, UINT64_C(1) << 52);
}

static void nothing_overflows(void *context)
{
    const struct memplug_geometry *g = context;

    (void)mpl_pfn_add(mpl_pfn(UINT64_MAX - 1), 1);
    (void)mpl_pfn_distance(mpl_pfn(2), mpl_pfn(2));
    (void)mpl_address_of_pfn(g, mpl_pfn((UINT64_C(1) << 52) - 1));
    (void)mpl_bytes_of_pages(g, (UINT64_C(1) << 52) - 1);
}

static void test_what_does_not_fit_traps(void **state)
{
    struct memplug_geometry g = geometries[0];

    (void)state;
    assert_true(toy_traps(add_overflows, NULL));
    assert_true(toy_traps(distance_is_negative, NULL));
    assert_true(toy_traps(address_overflows, &g));
    assert_true(toy_traps(bytes_overflow, &g));
    assert_false(toy_traps(nothing_overflows, &g));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_are_the_powers_that_the_geometry_says),
        cmocka_unit_test(test_conversions_divide_and_multiply),
        cmocka_unit_test(test_blocks_begin_and_end_where_they_should),
        cmocka_unit_test(test_pages_of_bytes_does_not_overflow),
        cmocka_unit_test(test_rounding_agrees_with_counting),
        cmocka_unit_test(test_what_does_not_fit_traps),
    };

    return cmocka_run_group_tests_name("pfn", tests, NULL, NULL);
}
