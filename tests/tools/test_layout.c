/* SPDX-License-Identifier: MIT */
/* Where a PC has its memory: every size is a row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../tools/memplug/replay/layout.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

static void test_rows(void **state)
{
    static const struct {
        uint64_t mem, low_end, high_end, window;
        unsigned block_shift, nr_memory;
        uint64_t base_block;
    } rows[] = {
        {512 * MIB, 512 * MIB, 4 * GIB, 4 * GIB, 27, 2, 32},
        {1 * GIB, 1 * GIB, 4 * GIB, 4 * GIB, 27, 2, 32},
        {2815 * MIB, 2815 * MIB, 4 * GIB, 4 * GIB, 27, 2, 32},
        {2816 * MIB, 2 * GIB, 4 * GIB + 768 * MIB, 5 * GIB, 27, 3, 40},
        {4 * GIB, 2 * GIB, 6 * GIB, 6 * GIB, 27, 3, 48},
        {4 * GIB + 128 * MIB, 2 * GIB, 6 * GIB + 128 * MIB, 7 * GIB, 27, 3, 56},
        /* From 64 GiB on the largest block at which the end is aligned. */
        {61 * GIB, 2 * GIB, 63 * GIB, 63 * GIB, 27, 3, 504},
        {62 * GIB, 2 * GIB, 64 * GIB, 64 * GIB, 31, 3, 32},
        {64 * GIB, 2 * GIB, 66 * GIB, 66 * GIB, 31, 3, 33},
        {65 * GIB, 2 * GIB, 67 * GIB, 67 * GIB, 30, 3, 67},
        {64 * GIB + 256 * MIB, 2 * GIB, 66 * GIB + 256 * MIB, 67 * GIB, 28, 3, 268},
        {64 * GIB + 64 * MIB, 2 * GIB, 66 * GIB + 64 * MIB, 67 * GIB, 27, 3, 536},
    };
    struct layout layout;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        layout_make(&layout, rows[i].mem, 128 * GIB, 16);
        assert_int_equal(layout.low_end, rows[i].low_end);
        assert_int_equal(layout.high_end, rows[i].high_end);
        assert_int_equal(layout.window, rows[i].window);
        assert_int_equal(layout.block_shift, rows[i].block_shift);
        assert_int_equal(layout.nr_memory, rows[i].nr_memory);
        assert_int_equal(layout.base_block, rows[i].base_block);
        assert_int_equal(layout.window_end, rows[i].window + 128 * GIB - rows[i].mem + 16 * GIB);
    }
}

/* As a kernel on such a machine counts them: 4 GiB, and 1 GiB. */
static void test_usable_pages(void **state)
{
    struct layout layout;

    (void)state;
    layout_make(&layout, 4 * GIB, 32 * GIB, 16);
    assert_int_equal(layout.memory[0].address, 4096);
    assert_int_equal(layout.memory[0].size_bytes / 4096, 158);
    assert_int_equal(layout.memory[1].address, MIB);
    assert_int_equal(layout.memory[1].size_bytes / 4096, 3840 + 520160);
    assert_int_equal(layout.memory[2].address, 4 * GIB);
    assert_int_equal(layout.memory[2].size_bytes / 4096, 524288);
    layout_make(&layout, 1 * GIB, 32 * GIB, 16);
    assert_int_equal(layout.memory[1].size_bytes / 4096, 3840 + 258016);
    assert_int_equal(layout.window_end, 4 * GIB + 31 * GIB + 16 * GIB);
}

/* Within 6 MiB of what was measured: free memory after boot, less the first block. */
static void test_what_a_kernel_takes(void **state)
{
    static const struct {
        uint64_t mem, measured_kib;
    } rows[] = {
        {512 * MIB, 3 * 131072 - 128 - 369512},
        {1 * GIB, 7 * 131072 - 128 - 872684},
        {4 * GIB, 31 * 131072 - 128 - 3952996},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t apart = (int64_t)(layout_kernel_bytes(rows[i].mem) >> 10) -
                        (int64_t)rows[i].measured_kib;

        assert_in_range(apart + 6 * 1024, 0, 12 * 1024);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_usable_pages),
        cmocka_unit_test(test_what_a_kernel_takes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
