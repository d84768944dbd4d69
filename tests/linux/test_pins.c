/* SPDX-License-Identifier: MIT */
/* The pin proof: says no while the kernel holds a page, says yes when not, and harms nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pins_bench.h"
#include "smaps.h"
#include "sys.h"

static int ask_by_text(void **state)
{
    (void)state;
    by_text = true;
    return 0;
}

static int ask_by_scan(void **state)
{
    (void)state;
    by_text = false;
    return 0;
}

static void test_selftest(void **state)
{
    struct bench b;

    (void)state;
    BENCH(&b);
    print_message("pinned by %s: collapse %d, split %d\n",
                  b.pins.by == MPL_PINS_BY_IO_URING ? "io_uring" : "vmsplice", b.pins.collapse,
                  b.pins.split);
    assert_int_not_equal(b.pins.collapse, -EKEYREJECTED);
    assert_int_not_equal(b.pins.split, -EKEYREJECTED);
    bench_drop(&b);
}

static void test_clean(void **state)
{
    struct bench b;

    (void)state;
    BENCH(&b);
    if (b.pins.collapse || b.pins.split)
        SKIP("this kernel's transitions are not to be trusted");
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        fill_page(b.app, nr);
    for (int i = 0; i < 6; i++) { /* each transition leaves what the other one begins with */
        assert_int_equal(prove(&b), 0);
        assert_int_equal(b.proof.kind, i % 2 ? MPL_PINS_SPLIT : MPL_PINS_COLLAPSE);
        for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
            assert_true(page_is(b.app, nr, true) && mpl_pins_had_data(&b.proof, nr));
        lower(&b);
        b.app[0] = b.app[0]; /* writers run again */
    }
    bench_drop(&b);
}

static bool in_sparse(unsigned nr)
{
    return nr == 3 || nr == 4 || nr == 63 || nr == 64 || nr == 300 || nr == 511;
}

/* Its holes are filled before the fence, and known behind it, whatever was written meanwhile. */
static void test_prepare_sparse(void **state)
{
    struct bench b;

    (void)state;
    BENCH(&b);
    if (b.pins.collapse || b.pins.split)
        SKIP("this kernel's transitions are not to be trusted");
    assert_int_equal(mpl_pins_prepare(&b.pins, &b.unit), 0); /* empty: left as it is */
    assert_int_equal(blocks(b.fd), 0);
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        if (in_sparse(nr))
            fill_page(b.app, nr);
    long before = blocks(b.fd);

    while (mpl_pins_prepare(&b.pins, &b.unit) == -EBUSY)
        usleep(1000);
    assert_int_equal(blocks(b.fd), EXTENT / 512);
    fill_page(b.app, 200);
    b.app[(200 + 1) * 4096] = 0;
    assert_int_equal(prove(&b), 0);
    assert_int_equal(b.proof.kind, MPL_PINS_SPLIT);
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        assert_int_equal(mpl_pins_had_data(&b.proof, nr), in_sparse(nr) || nr == 200);
    mpl_pins_unfill(&b.unit, &b.proof);
    assert_int_equal(blocks(b.fd), before + 8);
    lower(&b);
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        assert_true(page_is(b.app, nr, in_sparse(nr) || nr == 200));
    bench_drop(&b);
}

static void test_prepare(void **state)
{
    struct bench b;
    struct ring_pin pin;

    (void)state;
    BENCH(&b);
    if (b.pins.collapse || b.pins.split)
        SKIP("this kernel's transitions are not to be trusted");
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        fill_page(b.app, nr);
    if (ring_pin_take(&pin, b.app, 4096) == 0) {
        assert_int_equal(mpl_pins_prepare(&b.pins, &b.unit), -EBUSY);
        ring_pin_drop(&pin);
        while (mpl_pins_prepare(&b.pins, &b.unit) == -EBUSY)
            usleep(1000); /* the kernel lets go some time later */
    }
    assert_int_equal(mpl_pins_prepare(&b.pins, &b.unit), 0);
    assert_int_equal(prove(&b), 0);
    assert_int_equal(b.proof.kind, MPL_PINS_SPLIT);
    lower(&b);
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        assert_true(page_is(b.app, nr, true));
    bench_drop(&b);
}

static void refuse(struct bench *b, unsigned pinned, enum mpl_pins_kind kind)
{
    struct ring_pin pin;

    if (ring_pin_take(&pin, b->app + pinned * 4096, 4096) != 0)
        SKIP("no io_uring here to pin a page with");
    b->unit.limit_ns = 3 * MS;
    assert_int_equal(prove(b), -EBUSY);
    assert_int_equal(b->proof.kind, kind);
    lower(b);
    ring_pin_drop(&pin);
    b->unit.limit_ns = 1000 * MS;
    assert_int_equal(prove(b), 0);
    assert_int_equal(b->proof.kind, kind);
    lower(b);
}

static void test_pinned(void **state)
{
    static const unsigned which[] = { 0, 1, 255, 511 };
    struct bench b;

    (void)state;
    BENCH(&b);
    if (b.pins.collapse || b.pins.split)
        SKIP("this kernel's transitions are not to be trusted");
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        fill_page(b.app, nr);
    for (unsigned i = 0; i < 4; i++) {
        refuse(&b, which[i], MPL_PINS_COLLAPSE);
        refuse(&b, which[i], MPL_PINS_SPLIT);
    }
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        assert_true(page_is(b.app, nr, true));
    bench_drop(&b);
}

/* A thread that shall end does not end here: nobody would lower the fence. */
static void prove_pinned_and_not(void *argument)
{
    struct bench *b = argument;
    struct ring_pin pin;

    if (ring_pin_take(&pin, b->app + 4096, 4096) == 0) {
        prove(b);
        lower(b);
        ring_pin_drop(&pin);
    }
    prove(b);
    mpl_pins_unfill(&b->unit, &b->proof);
    lower(b);
}

static void test_no_end_behind_the_fence(void **state)
{
    struct bench b;

    (void)state;
    BENCH(&b);
    fill_page(b.app, 1);
    b.unit.limit_ns = 3 * MS;
    assert_true(runs_to_its_end(prove_pinned_and_not, &b));
    fill_page(b.app, 2);
    bench_drop(&b);
}

static void test_sparse(void **state)
{
    struct bench b;

    (void)state;
    BENCH(&b);
    if (b.pins.collapse)
        SKIP("collapse is not to be trusted here");
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        if (in_sparse(nr))
            fill_page(b.app, nr);
    long before = blocks(b.fd);
    struct ring_pin pin;

    /* Refused, it fills no hole. */
    if (ring_pin_take(&pin, b.app + 300 * 4096, 4096) == 0) {
        b.unit.limit_ns = 3 * MS;
        assert_int_equal(prove(&b), -EBUSY);
        assert_int_equal(blocks(b.fd), before);
        lower(&b);
        ring_pin_drop(&pin);
        b.unit.limit_ns = 1000 * MS;
    }
    assert_int_equal(prove(&b), 0);
    assert_int_equal(b.proof.kind, MPL_PINS_COLLAPSE);
    assert_int_equal(blocks(b.fd), EXTENT / 512);
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        assert_int_equal(mpl_pins_had_data(&b.proof, nr), in_sparse(nr));
    mpl_pins_unfill(&b.unit, &b.proof);
    assert_int_equal(blocks(b.fd), before);
    lower(&b);
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        assert_true(page_is(b.app, nr, in_sparse(nr)));
    bench_drop(&b);
}

static void test_empty(void **state)
{
    struct bench b;

    (void)state;
    BENCH(&b);
    assert_int_equal(prove(&b), 0);
    assert_int_equal(b.proof.kind, MPL_PINS_EMPTY);
    lower(&b);
    /* A unit of holes beside pinned data is empty all the same. */
    struct ring_pin pin;

    fill_page(b.app, 9);
    bool pinned = ring_pin_take(&pin, b.app + 9 * 4096, 4096) == 0;

    b.unit.first = 16;
    b.unit.nr = 16;
    assert_int_equal(prove(&b), 0);
    assert_int_equal(b.proof.kind, MPL_PINS_EMPTY);
    assert_int_equal(b.proof.looks, 0);
    assert_int_equal(blocks(b.fd), 8);
    lower(&b);
    if (pinned)
        ring_pin_drop(&pin);
    bench_drop(&b);
}

/* A small unit is proved through its extent: any pin there refuses. Only it is fenced. */
static void test_small_unit(void **state)
{
    struct bench b;
    struct ring_pin pin;

    (void)state;
    BENCH(&b);
    if (b.pins.collapse || b.pins.split)
        SKIP("this kernel's transitions are not to be trusted");
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        fill_page(b.app, nr);
    b.unit.first = 32;
    b.unit.nr = 16;
    for (unsigned pinned = 20; pinned <= 36; pinned += 16) {
        if (ring_pin_take(&pin, b.app + pinned * 4096, 4096) != 0)
            SKIP("no io_uring here to pin a page with");
        b.unit.limit_ns = 3 * MS;
        assert_int_equal(mpl_fence_raise(&b.fence, b.app + 32 * 4096, 16 * 4096), 0);
        assert_int_equal(mpl_pins_prove(&b.pins, &b.unit, &b.proof), -EBUSY);
        b.app[0] = b.app[0]; /* outside the fence */
        ring_pin_drop(&pin);
        b.unit.limit_ns = 1000 * MS;
        assert_int_equal(mpl_pins_prove(&b.pins, &b.unit, &b.proof), 0);
        mpl_fence_lower(&b.fence, b.app + 32 * 4096, 16 * 4096);
    }
    bench_drop(&b);
}

static void test_no_proof(void **state)
{
    struct bench b;
    struct mpl_pins fresh;

    (void)state;
    BENCH(&b);
    fill_page(b.app, 0);
    assert_int_equal(mpl_pins_open(&fresh, b.scratch), 0);
    assert_int_equal(mpl_pins_prove(&fresh, &b.unit, &b.proof), -EOPNOTSUPP); /* not tested */
    mpl_pins_close(&fresh);
    assert_int_equal(mpl_pins_open(&fresh, b.scratch + 4096), -EINVAL);
    b.unit.extent = 4096;
    assert_int_equal(mpl_pins_prove(&b.pins, &b.unit, &b.proof), -EINVAL);
    b.unit.extent = 0;
    b.unit.first = 1;
    assert_int_equal(mpl_pins_prove(&b.pins, &b.unit, &b.proof), -EINVAL);
    b.unit.first = 0;
    b.unit.fd = -1;
    assert_int_equal(mpl_pins_prove(&b.pins, &b.unit, &b.proof), -EBADF);
    bench_drop(&b);
}

static void test_hugetlb_has_none(void **state)
{
    const char *why = hugepages_borrow(1);
    struct bench b;

    (void)state;
    if (why)
        SKIP(why);
    BENCH(&b);
    b.unit.fd = memfd_create("huge", MFD_CLOEXEC | MEMFD_HUGETLB);
    assert_int_equal(ftruncate(b.unit.fd, EXTENT), 0);
    char *va = mmap(NULL, EXTENT, PROT_READ | PROT_WRITE, MAP_SHARED, b.unit.fd, 0);

    assert_ptr_not_equal(va, MAP_FAILED);
    *va = 1;
    assert_int_equal(mpl_pins_prove(&b.pins, &b.unit, &b.proof), -EOPNOTSUPP);
    munmap(va, EXTENT);
    close(b.unit.fd);
    bench_drop(&b);
}

/* What smaps says of an absent, a small and a huge page; and that it finds the right mapping. */
static void test_both_ways_agree(void **state)
{
    struct bench b;
    char *absent = reserve_aligned(EXTENT);

    (void)state;
    BENCH(&b);
    assert_int_equal(mpl_smaps_huge(absent), -EAGAIN);
    assert_int_equal(mpl_smaps_huge(b.app + EXTENT / 2), -EAGAIN);
    b.app[4096] = 1;
    assert_int_equal(mpl_smaps_huge(b.app), 0);
    assert_int_equal(mpl_smaps_huge(b.app + EXTENT / 2), 0);
    if (madvise(b.app, EXTENT, MADV_COLLAPSE) == 0) {
        assert_int_equal(mpl_smaps_huge(b.app), 1);
        assert_int_equal(mpl_smaps_huge(absent), -EAGAIN);
    }
    munmap(b.app, EXTENT);
    assert_int_equal(mpl_smaps_huge(b.app), -ENOENT);
    munmap(absent, EXTENT);
    bench_drop(&b);
}

static int give_back(void **state)
{
    (void)state;
    hugepages_return();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selftest),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_prepare_sparse),
        cmocka_unit_test(test_prepare),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_no_end_behind_the_fence),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_small_unit),
        cmocka_unit_test(test_no_proof),
        cmocka_unit_test_teardown(test_hugetlb_has_none, give_back),
        cmocka_unit_test(test_both_ways_agree),
        cmocka_unit_test_setup_teardown(test_selftest, ask_by_text, ask_by_scan),
        cmocka_unit_test_setup_teardown(test_clean, ask_by_text, ask_by_scan),
        cmocka_unit_test_setup_teardown(test_pinned, ask_by_text, ask_by_scan),
        cmocka_unit_test_setup_teardown(test_sparse, ask_by_text, ask_by_scan),
        cmocka_unit_test_setup_teardown(test_empty, ask_by_text, ask_by_scan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
