/* SPDX-License-Identifier: MIT */
/* Memory that moves while O_DIRECT reads and registered buffers write into it: with the proof
 * nothing is lost, and without it something is. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "pin_helpers.h"

#define SKIP(reason) do { print_message("SKIP: %s\n", (reason)); skip(); } while (0)

static int torture(struct torture *t, bool proved, unsigned workers)
{
    enum kind kind = t->kind;
    int dev = t->dev_fd;
    bool prepared = t->prepared;
    const char *why;

    *t = (struct torture){
        .kind = kind, .workers = workers, .fenced = true, .proved = proved, .dev_fd = dev,
        .until_loss = !proved, .seconds = proved ? 4 : 20, .seed = 11 + kind,
        .prepared = prepared, .moves_wanted = proved ? 10 : 0,
    };
    int err = torture_run(t, &why);

    print_message("%s, %s: %lu moved, %lu refused, %lu ops, %lu I/O, %lu lost", kind_name(kind),
                  prepared ? "prepared and proved" : proved ? "proved" : "control without a proof",
                  t->moves, t->refused, atomic_load(&t->ops), atomic_load(&t->io),
                  atomic_load(&t->lost));
    if (proved)
        print_message(", mean fence to verdict %.2f ms",
                      t->fence_s * 1e3 / (double)(t->moves + t->refused + 1));
    print_message("\n");
    if (err)
        print_message("SKIP: %s: %s\n", why, strerror(-err));
    return err;
}

static void moves(enum kind kind)
{
    static const unsigned controls[] = { W_ODIRECT, W_URING };
    struct torture *t = calloc(1, sizeof(*t));

    for (unsigned i = 0; i < 3; i++) {
        t->kind = kind;
        if (torture(t, i == 2, i == 2 ? W_SYSCALLS | W_PINS : controls[i])) {
            free(t);
            skip();
            return;
        }
        assert_int_equal(t->failed, 0);
        assert_true(t->moves > 0);
        if (i == 2)
            assert_int_equal(t->lost, 0);
        else
            assert_true(t->lost > 0);
    }
    free(t);
}

static void test_moves_4k(void **state)
{
    (void)state;
    moves(KIND_4K);
}

static void test_moves_64k(void **state)
{
    (void)state;
    moves(KIND_64K);
}

static void test_moves_2m(void **state)
{
    (void)state;
    moves(KIND_2M);
}

static void test_moves_2m_prepared(void **state)
{
    struct torture *t = calloc(1, sizeof(*t));

    (void)state;
    t->kind = KIND_2M;
    t->prepared = true;
    if (torture(t, true, W_SYSCALLS | W_PINS)) {
        free(t);
        skip();
        return;
    }
    assert_int_equal(t->failed, 0);
    assert_true(t->moves > 0);
    assert_int_equal(t->lost, 0);
    free(t);
}

static void test_moves_thp(void **state)
{
    (void)state;
    moves(KIND_THP);
}

static int nobody_moves(void *arg)
{
    struct torture *t = calloc(1, sizeof(*t));

    if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0 ||
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
        return 77;
    t->kind = KIND_2M;
    t->dev_fd = *(int *)arg;
    if (torture(t, true, W_SYSCALLS | W_PINS))
        return 77;
    return t->lost || t->failed || !t->moves;
}

static void test_moves_unprivileged(void **state)
{
    int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

    (void)state;
    if (dev < 0 || getuid() != 0)
        SKIP("not root with a /dev/userfaultfd to hand on");
    fflush(NULL);
    int got = in_child(nobody_moves, &dev);

    close(dev);
    if (got == 77)
        SKIP("an unprivileged process cannot run it here");
    assert_int_equal(got, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves_4k),
        cmocka_unit_test(test_moves_64k),
        cmocka_unit_test(test_moves_2m),
        cmocka_unit_test(test_moves_2m_prepared),
        cmocka_unit_test(test_moves_thp),
        cmocka_unit_test(test_moves_unprivileged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
