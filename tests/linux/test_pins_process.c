/* SPDX-License-Identifier: MIT */
/* The pin proof in processes that have not all that it likes. */
#define _GNU_SOURCE
#include "pins_bench.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selftest_without_io_uring),
        cmocka_unit_test(test_odd_processes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
