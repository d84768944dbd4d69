/* SPDX-License-Identifier: MIT */
/*
 * vmem_altmap: the kernel's arithmetic (next = base + reserve + alloc + align, pad to the lowest
 * set bit of the request, free only counts), against a model that looks for frames one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "state/state.h"
#include "toy_host.h"

/* Frames [next, end) are left; every one before it was handed out or lost. */
struct model {
    uint64_t next, end, nr_handed, nr_lost;
};

static uint64_t lowest_bit(uint64_t nr_pages)
{
    uint64_t bit = 1;

    while (nr_pages % (2 * bit) == 0)
        bit *= 2;
    return bit;
}

static uint64_t model_take(struct model *model, uint64_t nr_pages)
{
    uint64_t first = model->next;

    while (first % lowest_bit(nr_pages) != 0)
        first++;
    if (first + nr_pages > model->end)
        return MPL_NO_PFN;
    model->nr_lost += first - model->next;
    model->nr_handed += nr_pages;
    model->next = first + nr_pages;
    return first;
}

static void compare(const struct mpl_altmap *altmap, const struct model *model)
{
    assert_int_equal(altmap->alloc, model->nr_handed);
    assert_int_equal(altmap->align, model->nr_lost);
    assert_int_equal(mpl_altmap_available(altmap), model->end - model->next);
}

/* All sequences of takes, to a depth. */
static void take_all_ways(const struct mpl_altmap *altmap, const struct model *model,
                          unsigned depth)
{
    compare(altmap, model);
    for (uint64_t nr_pages = 1; depth != 0 && nr_pages <= 9; nr_pages++) {
        struct mpl_altmap next_altmap = *altmap;
        struct model next_model = *model;

        assert_int_equal(mpl_altmap_take(&next_altmap, nr_pages).nr,
                         model_take(&next_model, nr_pages));
        take_all_ways(&next_altmap, &next_model, depth - 1);
    }
}

static void test_take_agrees_with_looking_frame_by_frame(void **state)
{
    (void)state;
    for (uint64_t base = 8; base < 16; base++)
        for (uint64_t reserve = 0; reserve < 4; reserve++)
            for (uint64_t nr_free = 0; nr_free <= 13; nr_free++) {
                struct model model = {.next = base + reserve, .end = base + reserve + nr_free};
                struct mpl_altmap altmap;

                assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(base), 32, reserve, nr_free), 0);
                take_all_ways(&altmap, &model, 3);
            }
}

/* What is reserved and what may be handed out is the offset of the data: it is in the range. */
static void test_the_offset_is_within_the_range(void **state)
{
    const struct mpl_altmap empty = {0};

    (void)state;
    for (uint64_t nr_pages = 0; nr_pages <= 9; nr_pages++)
        for (uint64_t reserve = 0; reserve <= 11; reserve++)
            for (uint64_t nr_free = 0; nr_free <= 11; nr_free++) {
                struct mpl_altmap altmap = {0};
                int error = mpl_altmap_set(&altmap, mpl_pfn(40), nr_pages, reserve, nr_free);

                if (reserve + nr_free > nr_pages) {
                    assert_int_equal(error, -MPL_EINVAL);
                    assert_memory_equal(&altmap, &empty, sizeof(altmap));
                    continue;
                }
                assert_int_equal(error, 0);
                assert_int_equal(mpl_altmap_offset(&altmap), reserve + nr_free);
                assert_int_equal(mpl_altmap_available(&altmap), nr_free);
                assert_int_equal(altmap.end_pfn - altmap.base_pfn, nr_pages);
            }
}

static void test_sums_that_wrap_are_refused(void **state)
{
    struct mpl_altmap altmap = {0};

    (void)state;
    for (uint64_t few = 0; few < 8; few++) {
        assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(8), 16, UINT64_MAX - few, 2 * few + 1),
                         -MPL_EINVAL);
        assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(8), 16, 2 * few + 1, UINT64_MAX - few),
                         -MPL_EINVAL);
    }
    assert_int_equal(altmap.end_pfn, 0);
}

/* Whatever is taken and given back, in all orders: never a frame outside of [base + reserve, base +
 * offset). */
static void take_and_give(const struct mpl_altmap *altmap, uint64_t low, uint64_t high,
                          unsigned depth)
{
    assert_true(altmap->alloc + altmap->align <= altmap->free);
    for (uint64_t nr_pages = 1; depth != 0 && nr_pages <= 6; nr_pages++) {
        struct mpl_altmap next = *altmap;
        memplug_pfn_t first = mpl_altmap_take(&next, nr_pages);

        if (first.nr == MPL_NO_PFN)
            continue;
        assert_int_equal(first.nr % lowest_bit(nr_pages), 0);
        assert_true(first.nr >= low && first.nr + nr_pages <= high);
        assert_int_equal(first.nr + nr_pages - low, next.alloc + next.align);
        take_and_give(&next, low, high, depth - 1);
        mpl_altmap_give_back(&next, nr_pages);
        assert_int_equal(next.alloc, altmap->alloc);
        take_and_give(&next, low, high, depth - 1);
    }
}

static void test_nothing_outside_of_the_reserve_and_the_offset(void **state)
{
    (void)state;
    for (uint64_t base = 16; base < 24; base++)
        for (uint64_t reserve = 0; reserve < 3; reserve++) {
            struct mpl_altmap altmap;

            assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(base), 32, reserve, 12), 0);
            take_and_give(&altmap, base + reserve, base + reserve + 12, 4);
        }
}

static void test_a_refused_take_changes_nothing(void **state)
{
    struct mpl_altmap altmap, before;

    (void)state;
    assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(64), 64, 0, 16), 0);
    assert_int_equal(mpl_altmap_take(&altmap, 3).nr, 64);
    before = altmap;
    for (uint64_t nr_pages = 14; nr_pages < 200; nr_pages++) {
        assert_int_equal(mpl_altmap_take(&altmap, nr_pages).nr, MPL_NO_PFN);
        assert_memory_equal(&altmap, &before, sizeof(altmap));
    }
    /* Fits by its size, but not with the padding that its alignment costs. */
    assert_int_equal(mpl_altmap_take(&altmap, 12).nr, 68);
    assert_int_equal(altmap.align, 1);
    assert_int_equal(mpl_altmap_available(&altmap), 0);
}

static void test_huge_requests_do_not_wrap(void **state)
{
    struct mpl_altmap altmap;

    (void)state;
    assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(65), 64, 0, 16), 0);
    for (unsigned shift = 0; shift < 64; shift++) {
        assert_int_equal(mpl_altmap_take(&altmap, UINT64_MAX << shift).nr, MPL_NO_PFN);
        if (shift > 4)
            assert_int_equal(mpl_altmap_take(&altmap, UINT64_C(1) << shift).nr, MPL_NO_PFN);
    }
    assert_int_equal(altmap.alloc + altmap.align, 0);
}

static void test_giving_back_only_counts(void **state)
{
    struct mpl_altmap altmap;

    (void)state;
    assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(1), 64, 0, 32), 0);
    assert_int_equal(mpl_altmap_take(&altmap, 8).nr, 8);
    assert_int_equal(mpl_altmap_take(&altmap, 4).nr, 16);
    assert_int_equal(altmap.align, 7);
    for (uint64_t nr_left = 12; nr_left-- > 0;) {
        mpl_altmap_give_back(&altmap, 1);
        assert_int_equal(altmap.alloc, nr_left);
        assert_int_equal(altmap.align, 7);
        assert_int_equal(altmap.free, 32);
        assert_int_equal(altmap.reserve, 0);
        assert_int_equal(altmap.base_pfn, 1);
        assert_int_equal(altmap.end_pfn, 65);
        assert_int_equal(mpl_altmap_available(&altmap), 32 - 7 - nr_left);
    }
}

/* 128 MiB of 4 KiB pages at 6 GiB: one PMD, then nothing is left. */
static void test_the_kernels_own_case(void **state)
{
    struct mpl_altmap altmap;

    (void)state;
    assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(0x180000), 32768, 0, 512), 0);
    assert_int_equal(mpl_altmap_offset(&altmap), 512);
    assert_int_equal(altmap.base_pfn, 0x180000);
    assert_int_equal(altmap.end_pfn, 0x188000);
    assert_int_equal(mpl_altmap_take(&altmap, 512).nr, 0x180000);
    assert_int_equal(altmap.alloc, 512);
    assert_int_equal(altmap.align, 0);
    assert_int_equal(mpl_altmap_available(&altmap), 0);
    assert_int_equal(mpl_altmap_take(&altmap, 1).nr, MPL_NO_PFN);
}

static void give_back_too_much(void *context)
{
    mpl_altmap_give_back(context, 6);
}

static void give_back_all(void *context)
{
    mpl_altmap_give_back(context, 5);
}

static void take_nothing(void *context)
{
    (void)mpl_altmap_take(context, 0);
}

static void range_that_wraps(void *context)
{
    (void)mpl_altmap_set(context, mpl_pfn(UINT64_MAX - 8), 16, 0, 4);
}

static void test_what_cannot_be_traps(void **state)
{
    struct mpl_altmap altmap;

    (void)state;
    assert_int_equal(mpl_altmap_set(&altmap, mpl_pfn(8), 16, 0, 16), 0);
    assert_int_equal(mpl_altmap_take(&altmap, 5).nr, 8);
    assert_true(toy_traps(give_back_too_much, &altmap));
    assert_false(toy_traps(give_back_all, &altmap));
    assert_true(toy_traps(take_nothing, &altmap));
    assert_true(toy_traps(range_that_wraps, &altmap));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_agrees_with_looking_frame_by_frame),
        cmocka_unit_test(test_the_offset_is_within_the_range),
        cmocka_unit_test(test_sums_that_wrap_are_refused),
        cmocka_unit_test(test_nothing_outside_of_the_reserve_and_the_offset),
        cmocka_unit_test(test_a_refused_take_changes_nothing),
        cmocka_unit_test(test_huge_requests_do_not_wrap),
        cmocka_unit_test(test_giving_back_only_counts),
        cmocka_unit_test(test_the_kernels_own_case),
        cmocka_unit_test(test_what_cannot_be_traps),
    };

    return cmocka_run_group_tests_name("altmap", tests, NULL, NULL);
}
