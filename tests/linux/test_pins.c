/* SPDX-License-Identifier: MIT */
/* The pin proof: says no while the kernel holds a page, says yes when not, and harms nothing. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pin_helpers.h"
#include "smaps.h"
#include "sys.h"

#define EXTENT MPL_PINS_EXTENT
#define MS 1000000u
#define SKIP(reason) do { print_message("SKIP: %s\n", (reason)); skip(); } while (0)

/* A prover that trusts what this kernel earns, and a unit of one extent. */
struct bench {
    struct mpl_fence fence;
    struct mpl_pins pins;
    char *scratch, *app;
    int fd;
    struct mpl_pins_map map;
    struct mpl_pins_unit unit;
    struct mpl_pins_proof proof;
};

/* As before Linux 6.7, by the text of smaps. */
static bool by_text;

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

static const char *bench_make(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    b->fence.fd = b->pins.pagemap = b->fd = -1;
    b->scratch = reserve_aligned(EXTENT);
    b->app = reserve_aligned(EXTENT);
    if (mpl_fence_open(&b->fence))
        return "no full userfaultfd";
    if (mpl_pins_open(&b->pins, b->scratch))
        return "the kernel does not tell how a page is mapped";
    b->pins.by_text |= by_text;
    if (mpl_pins_selftest(&b->pins, &b->fence))
        return "nothing can be pinned here";
    b->fd = memfd_create("unit", MFD_CLOEXEC);
    assert_int_equal(ftruncate(b->fd, EXTENT), 0);
    assert_ptr_equal(mmap(b->app, EXTENT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, b->fd,
                          0), b->app);
    b->map = (struct mpl_pins_map){ b->app, EXTENT };
    b->unit = (struct mpl_pins_unit){
        .fd = b->fd, .nr = MPL_PINS_PAGES, .maps = &b->map, .nr_maps = 1, .limit_ns = 200 * MS,
    };
    return NULL;
}

static void bench_drop(struct bench *b)
{
    mpl_fence_close(&b->fence);
    mpl_pins_close(&b->pins);
    munmap(b->scratch, EXTENT);
    munmap(b->app, EXTENT);
    if (b->fd >= 0)
        close(b->fd);
}

#define BENCH(b)                                                                             \
    do {                                                                                     \
        const char *why_ = bench_make(b);                                                    \
                                                                                             \
        if (why_) {                                                                          \
            bench_drop(b);                                                                   \
            SKIP(why_);                                                                      \
        }                                                                                    \
    } while (0)

static void fill_page(char *va, unsigned nr)
{
    for (size_t i = 0; i < 4096; i += 8)
        *(uint64_t *)(va + nr * 4096 + i) = io_word(nr * 4096 + i);
}

static bool page_is(const char *va, unsigned nr, bool filled)
{
    for (size_t i = 0; i < 4096; i += 8) {
        if (*(const uint64_t *)(va + nr * 4096 + i) != (filled ? io_word(nr * 4096 + i) : 0))
            return false;
    }
    return true;
}

static int prove(struct bench *b)
{
    assert_int_equal(mpl_fence_raise(&b->fence, b->app, EXTENT), 0);
    return mpl_pins_prove(&b->pins, &b->unit, &b->proof);
}

static void lower(struct bench *b)
{
    mpl_fence_lower(&b->fence, b->app, EXTENT);
}

static long blocks(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_blocks;
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

/* Forbid one or two system calls to this process. */
static int forbid(unsigned first, unsigned second)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, first, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static int selftest_without(unsigned first, unsigned second)
{
    struct mpl_pins p;

    if (forbid(first, second) < 0 || mpl_pins_open(&p, reserve_aligned(EXTENT)) < 0)
        return 77;
    int err = mpl_pins_selftest(&p, NULL);

    if (err == -EPERM) /* nothing to pin with: nothing trusted */
        return p.by == MPL_PINS_BY_NONE && p.collapse && p.split ? 1 : 2;
    return !err && p.by == MPL_PINS_BY_VMSPLICE && !p.collapse && !p.split ? 0 : 3;
}

static int without_ring(void *arg)
{
    (void)arg;
    return selftest_without(SYS_io_uring_setup, SYS_io_uring_setup);
}

static int without_any(void *arg)
{
    (void)arg;
    return selftest_without(SYS_io_uring_setup, SYS_vmsplice);
}

static void test_selftest_without_io_uring(void **state)
{
    struct bench b;

    (void)state;
    BENCH(&b);
    bool able = !b.pins.collapse && !b.pins.split;

    bench_drop(&b);
    int fallback = in_child(without_ring, NULL), none = in_child(without_any, NULL);

    if (!able || fallback == 77 || none == 77)
        SKIP("no seccomp filter here, or no proof even with io_uring");
    assert_int_equal(fallback, 0);
    assert_int_equal(none, 1);
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

/* Huge pages forbidden for the process: for the proof they are not; afterwards they are again. */
static int forbids(void *arg)
{
    struct bench b;
    bool before = *(bool *)arg;

    if (before)
        prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    if (bench_make(&b) || b.pins.collapse || b.pins.split)
        return before ? 1 : 77;
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr++)
        fill_page(b.app, nr);
    b.unit.limit_ns = 1000 * MS;
    for (int i = 0; i < 4; i++) {
        if (prove(&b) != 0 || b.proof.kind != (i % 2 ? MPL_PINS_SPLIT : MPL_PINS_COLLAPSE))
            return 2;
        if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) != 1)
            return 3;
        lower(&b);
    }
    mpl_pins_prepare(&b.pins, &b.unit);
    return prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) != 1 || prove(&b) != 0 ||
           b.proof.kind != MPL_PINS_SPLIT ? 4 : 0;
}

/* A process that locks all it maps. */
static int locks(void *arg)
{
    struct bench b;
    struct ring_pin pin;

    (void)arg;
    if (bench_make(&b) || b.pins.collapse || b.pins.split)
        return 77;
    for (unsigned nr = 0; nr < MPL_PINS_PAGES; nr += 2)
        fill_page(b.app, nr);
    long before = blocks(b.fd);

    if (mlockall(MCL_FUTURE) < 0 || ring_pin_take(&pin, b.app, 4096))
        return 77;
    b.unit.limit_ns = 3 * MS;
    if (prove(&b) != -EBUSY || blocks(b.fd) != before)
        return 2;
    ring_pin_drop(&pin);
    b.unit.limit_ns = 1000 * MS;
    for (int i = 0; i < 4; i++) {
        lower(&b);
        if (prove(&b))
            return 3;
    }
    return 0;
}

static void test_odd_processes(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        bool before = i == 1;
        int got = in_child(i < 2 ? forbids : locks, &before);

        if (got == 77)
            SKIP("no proof in a child, or it may not lock memory");
        assert_int_equal(got, 0);
    }
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
        cmocka_unit_test(test_selftest_without_io_uring),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_prepare_sparse),
        cmocka_unit_test(test_prepare),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_no_end_behind_the_fence),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_small_unit),
        cmocka_unit_test(test_no_proof),
        cmocka_unit_test(test_odd_processes),
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
