/* SPDX-License-Identifier: MIT */
/* The write fence: who waits, who runs, and that nothing is lost when memory moves behind it. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pin_helpers.h"

#define LEN ((size_t)2 << 20)
#define SKIP(reason) do { print_message("SKIP: %s\n", (reason)); skip(); } while (0)

static bool open_or_not(struct mpl_fence *f)
{
    int err = mpl_fence_open(f);

    if (err)
        print_message("SKIP: no full userfaultfd: %s\n", strerror(-err));
    return err == 0;
}

struct view {
    int fd;
    char *direct, *app;
};

static void view_make(struct view *v)
{
    v->fd = memfd_create("view", MFD_CLOEXEC);
    assert_true(v->fd >= 0);
    assert_int_equal(ftruncate(v->fd, 2 * LEN), 0);
    v->direct = mmap(NULL, 2 * LEN, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    v->app = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    assert_ptr_not_equal(v->direct, MAP_FAILED);
    assert_ptr_not_equal(v->app, MAP_FAILED);
}

static void view_drop(struct view *v)
{
    munmap(v->direct, 2 * LEN);
    munmap(v->app, LEN);
    close(v->fd);
}

/* One thread that makes one write. */
struct writer {
    char *at;
    int pipe; /* >= 0: by read(2) from there */
    atomic_int done;
    ssize_t got;
    pthread_t thread;
};

static void *run_writer(void *arg)
{
    struct writer *w = arg;

    if (w->pipe >= 0)
        w->got = read(w->pipe, w->at, 1);
    else
        *(volatile char *)w->at = 'w';
    atomic_store(&w->done, 1);
    return NULL;
}

static void writer_start(struct writer *w, char *at, int pipe)
{
    *w = (struct writer){ .at = at, .pipe = pipe };
    assert_int_equal(pthread_create(&w->thread, NULL, run_writer, w), 0);
}

static void test_writers_wait_and_readers_run(void **state)
{
    struct mpl_fence f;
    struct view v;
    struct writer user, kernel;
    int ends[2];

    (void)state;
    if (!open_or_not(&f))
        skip();
    view_make(&v);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "k", 1), 1);
    v.app[0] = 'a'; /* one page is there, the other is a hole */
    assert_int_equal(mpl_fence_raise(&f, v.app, LEN), 0);
    writer_start(&user, v.app, -1);
    writer_start(&kernel, v.app + 8192, ends[0]);
    usleep(100000);
    assert_int_equal(user.done + kernel.done, 0);
    assert_int_equal(v.app[0], 'a');
    assert_int_equal(v.app[8192], 0);

    /* Replaced, they sleep on, and land in the new frames once woken. */
    assert_ptr_equal(mmap(v.app, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, v.fd, LEN),
                     v.app);
    mpl_fence_wake(&f, v.app, LEN);
    pthread_join(user.thread, NULL);
    pthread_join(kernel.thread, NULL);
    assert_int_equal(kernel.got, 1);
    assert_int_equal(v.direct[0], 'a');
    assert_int_equal(v.direct[8192], 0);
    assert_int_equal(v.direct[LEN], 'w');
    assert_int_equal(v.direct[LEN + 8192], 'k');
    close(ends[0]);
    close(ends[1]);
    view_drop(&v);
    mpl_fence_close(&f);
}

static void test_lower_is_as_if_nothing_was(void **state)
{
    struct mpl_fence f;
    struct view v;
    struct writer user;

    (void)state;
    if (!open_or_not(&f))
        skip();
    view_make(&v);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mpl_fence_raise(&f, v.app, LEN), 0);
        writer_start(&user, v.app + 4096, -1);
        usleep(20000);
        assert_int_equal(user.done, 0);
        mpl_fence_lower(&f, v.app, LEN);
        pthread_join(user.thread, NULL);
        assert_int_equal(v.direct[4096], 'w');
    }
    v.app[0] = 'b'; /* and nobody is stopped any more */
    view_drop(&v);
    mpl_fence_close(&f);
    mpl_fence_close(&f);
}

static void test_close_frees_the_sleepers(void **state)
{
    struct mpl_fence f;
    struct view v;
    struct writer user;

    (void)state;
    if (!open_or_not(&f))
        skip();
    view_make(&v);
    assert_int_equal(mpl_fence_raise(&f, v.app, LEN), 0);
    writer_start(&user, v.app, -1);
    usleep(20000);
    assert_int_equal(user.done, 0);
    mpl_fence_close(&f);
    pthread_join(user.thread, NULL);
    view_drop(&v);
}

static void test_failures_change_nothing(void **state)
{
    struct mpl_fence f, other;
    struct view v;

    (void)state;
    if (!open_or_not(&f) || !open_or_not(&other))
        skip();
    view_make(&v);
    char *hole = mmap(NULL, LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    munmap(hole, LEN);
    assert_int_equal(mpl_fence_raise(&f, hole, LEN), -EINVAL);
    assert_int_equal(mpl_fence_raise(&f, v.app + 1, LEN), -EINVAL);
    assert_int_equal(mpl_fence_raise(&other, v.app, LEN), 0);
    assert_int_equal(mpl_fence_raise(&f, v.app, LEN), -EBUSY);
    mpl_fence_lower(&other, v.app, LEN);
    v.app[0] = 'x';
    assert_int_equal(mpl_fence_raise(&f, v.app, LEN), 0);
    mpl_fence_lower(&f, v.app, LEN);
    assert_int_equal(mpl_fence_open_from(&other, v.fd), -ENOTTY);
    assert_int_equal(other.fd, -1);
    assert_int_equal(mpl_fence_open_from(&other, -1), -EBADF);
    view_drop(&v);
    mpl_fence_close(&f);
}

/* What a process without privileges gets: a clear no, or a full fence from what it was handed. */
static int as_nobody(void *arg)
{
    struct mpl_fence f;
    int err, dev = *(int *)arg;

    if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
        return 1;
    err = mpl_fence_open(&f);
    if (err != -EPERM && err != 0) /* 0: this machine gives everyone the node or the call */
        return 2;
    mpl_fence_close(&f);
    if (mpl_fence_open_from(&f, dev) != 0)
        return 3;
    char *va = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
                    memfd_create("nobody", MFD_CLOEXEC), 0);

    /* An empty file has no pages, but its mapping can be fenced; not where that has to be looked
     * at: whoever has changed its user may not read pagemap. */
    err = mpl_fence_raise(&f, va, LEN);
    if (err == 0)
        mpl_fence_lower(&f, va, LEN);
    return err == (f.insists ? -EACCES : 0) ? 0 : 4;
}

static void test_unprivileged(void **state)
{
    int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

    (void)state;
    if (dev < 0 || getuid() != 0)
        SKIP("not root with a /dev/userfaultfd to hand on");
    assert_int_equal(in_child(as_nobody, &dev), 0);
    close(dev);
}

/* ---- moving under load ---- */

static void torture(enum kind kind, bool fenced)
{
    struct torture *t = calloc(1, sizeof(*t));
    const char *why;

    *t = (struct torture){
        .kind = kind, .workers = W_SYSCALLS, .fenced = fenced, .until_loss = !fenced,
        .seconds = fenced ? 2.5 : 20, .seed = 1 + kind,
    };
    int err = torture_run(t, &why);

    print_message("%s, %s: %lu moved, %lu ops, %lu lost\n", kind_name(kind),
                  fenced ? "fenced" : "control without a fence", t->moves,
                  atomic_load(&t->ops), atomic_load(&t->lost));
    if (err) {
        print_message("SKIP: %s: %s\n", why, strerror(-err));
        free(t);
        skip();
        return;
    }
    assert_int_equal(t->failed, 0);
    assert_true(t->moves > 0);
    if (fenced)
        assert_int_equal(t->lost, 0);
    else
        assert_true(t->lost > 0);
    free(t);
}

static void both(enum kind kind)
{
    torture(kind, false);
    torture(kind, true);
}

static void test_moves_4k(void **state)
{
    (void)state;
    both(KIND_4K);
}

static void test_moves_64k(void **state)
{
    (void)state;
    both(KIND_64K);
}

static void test_moves_2m(void **state)
{
    (void)state;
    both(KIND_2M);
}

static void test_moves_thp(void **state)
{
    (void)state;
    both(KIND_THP);
}

static void test_moves_hugetlb(void **state)
{
    const char *why = hugepages_borrow(12);

    (void)state;
    if (why)
        SKIP(why);
    both(KIND_HUGETLB);
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
        cmocka_unit_test(test_writers_wait_and_readers_run),
        cmocka_unit_test(test_lower_is_as_if_nothing_was),
        cmocka_unit_test(test_close_frees_the_sleepers),
        cmocka_unit_test(test_failures_change_nothing),
        cmocka_unit_test(test_unprivileged),
        cmocka_unit_test(test_moves_4k),
        cmocka_unit_test(test_moves_64k),
        cmocka_unit_test(test_moves_2m),
        cmocka_unit_test(test_moves_thp),
        cmocka_unit_test_teardown(test_moves_hugetlb, give_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
