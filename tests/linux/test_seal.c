/* SPDX-License-Identifier: MIT */
/* The seal: a whole memfd proved free of pins, and its mappings moved on the strength of it. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../hosts/linux/host.h"
#include "../../hosts/linux/seal.h"
#include "pin_helpers.h"

#define UNIT ((size_t)2 << 20)
#define UNITS 4u
#define BYTES (UNITS * UNIT)
#define MS 1000000u

#define SKIP(reason) do { print_message("SKIP: %s\n", (reason)); skip(); } while (0)

/* Two memfds of four units, the first mapped by the program. */
struct pair {
    int fd[2];
    char *direct[2], *app;
    struct mpl_seal_unit units[UNITS];
    struct mpl_seal_drop drop;
    struct mpl_seal_move move;
    unsigned dressed;
};

static void count_dress(void *ctx, void *at, size_t len, void *home)
{
    struct pair *p = ctx;

    (void)home;
    p->dressed++;
    madvise(at, len, MADV_DONTDUMP);
}

static void pair_make(struct pair *p, bool hugetlb)
{
    memset(p, 0, sizeof(*p));
    p->app = reserve_aligned(BYTES);
    for (unsigned i = 0; i < 2; i++) {
        p->fd[i] = memfd_create("pair", MFD_CLOEXEC | MFD_ALLOW_SEALING |
                                            (hugetlb ? MEMFD_HUGETLB : 0));
        assert_true(p->fd[i] >= 0);
        assert_int_equal(ftruncate(p->fd[i], BYTES), 0);
        if (hugetlb)
            assert_int_equal(mpl_fd_allocate(p->fd[i], 0, BYTES), 0);
        p->direct[i] = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd[i], 0);
        assert_ptr_not_equal(p->direct[i], MAP_FAILED);
    }
    for (unsigned i = 0; i < UNITS; i++) {
        /* The last unit comes first, so that no two mappings are merged. */
        size_t off = (UNITS - 1 - i) * UNIT;
        char *va = p->app + i * UNIT;

        assert_ptr_equal(mmap(va, UNIT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                              p->fd[0], (off_t)off), va);
        p->units[i] = (struct mpl_seal_unit){
            .va = va, .len = UNIT, .src_off = off, .dst_fd = p->fd[1], .dst_off = off,
            .to = p->direct[1] + off, .prot = PROT_READ | PROT_WRITE,
        };
    }
    p->drop = (struct mpl_seal_drop){ p->direct[0], BYTES, 0 };
    p->move = (struct mpl_seal_move){
        .src_fd = p->fd[0], .src_len = BYTES, .units = p->units, .nr_units = UNITS,
        .drops = &p->drop, .nr_drops = 1, .limit_ns = 20 * MS, .dev_fd = -1,
        .dress = count_dress, .ctx = p,
    };
}

static void pair_drop(struct pair *p)
{
    munmap(p->app, BYTES);
    for (unsigned i = 0; i < 2; i++) {
        munmap(p->direct[i], BYTES);
        close(p->fd[i]);
    }
}

static bool is_sealed(int fd)
{
    return fcntl(fd, F_GET_SEALS) & F_SEAL_WRITE;
}

static void fill(char *va, size_t len)
{
    for (size_t i = 0; i < len; i += 8)
        *(uint64_t *)(va + i) = io_word(i);
}

static bool is_filled(const char *va, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        if (*(const uint64_t *)(va + i) != io_word(i))
            return false;
    }
    return true;
}

static unsigned count_maps(void)
{
    char line[1024];
    FILE *f = fopen("/proc/self/maps", "re");
    unsigned n = 0;

    while (fgets(line, sizeof(line), f))
        n += strstr(line, "memfd:pair") != NULL;
    fclose(f);
    return n;
}

/* A thread that shall end does not end here, in front of its helper. */
static void prove_once(void *fd)
{
    mpl_seal_prove(*(int *)fd, 5 * MS);
}

static void prove_clean_then_pinned(bool hugetlb)
{
    struct pair p;
    struct ring_pin pin;

    pair_make(&p, hugetlb);
    memset(p.app, 1, BYTES);
    assert_int_equal(mpl_seal_prove(p.fd[0], 20 * MS), -EBUSY); /* mapped writable */
    assert_true(runs_to_its_end(prove_once, &p.fd[0]));
    int err = ring_pin_take(&pin, p.direct[1], 4096);

    if (err) {
        pair_drop(&p);
        SKIP("no io_uring here to pin a page with");
    }
    munmap(p.app, BYTES);
    munmap(p.direct[0], BYTES);
    munmap(p.direct[1], BYTES);
    double start = now_s();

    assert_int_equal(mpl_seal_prove(p.fd[1], 5 * MS), -EBUSY);
    double cut = now_s() - start;

    assert_false(is_sealed(p.fd[1]));
    if (!hugetlb) /* which has no write(2) */
        assert_int_equal(pwrite(p.fd[1], "x", 1, 0), 1);
    start = now_s();
    assert_int_equal(mpl_seal_prove(p.fd[1], 2000 * MS), -EBUSY);
    print_message("pinned: -EBUSY after %.1f ms with a limit of 5, %.1f ms without\n",
                  cut * 1e3, (now_s() - start) * 1e3);
    ring_pin_drop(&pin);
    start = now_s();
    assert_int_equal(mpl_seal_prove(p.fd[0], 20 * MS), 0);
    print_message("clean: %.3f ms\n", (now_s() - start) * 1e3);
    assert_true(is_sealed(p.fd[0]));
    assert_int_equal(mpl_seal_prove(p.fd[1], 2000 * MS), 0);
    close(p.fd[0]);
    close(p.fd[1]);
    munmap(p.app, BYTES);
}

static void test_prove(void **state)
{
    (void)state;
    prove_clean_then_pinned(false);
}

static void test_prove_hugetlb(void **state)
{
    const char *why = hugepages_borrow(2 * UNITS);

    (void)state;
    if (why)
        SKIP(why);
    prove_clean_then_pinned(true);
    hugepages_return();
}

static void test_prove_refuses_what_it_cannot(void **state)
{
    int plain = memfd_create("plain", MFD_CLOEXEC), file = io_file_open();

    (void)state;
    assert_int_equal(mpl_seal_prove(plain, MS), -EPERM);
    if (file >= 0)
        assert_int_equal(mpl_seal_prove(file, MS), -EOPNOTSUPP);
    assert_int_equal(mpl_seal_prove(-1, MS), -EBADF);
    close(plain);
    close(file);
}

static bool can_stop(void)
{
    struct mpl_fence f;
    int err = mpl_fence_open(&f);

    mpl_fence_close(&f);
    return err == 0;
}

/* A program that reads and writes while its block moves. */
struct toucher {
    char *va;
    atomic_bool stop;
    unsigned long rounds, bad;
};

static void *run_toucher(void *arg)
{
    struct toucher *r = arg;

    for (uint64_t i = 1; !atomic_load(&r->stop); i++) {
        volatile uint64_t *word = (uint64_t *)(r->va + i * 4096 % BYTES);

        *word = i;
        r->bad += *word != i;
        r->rounds++;
    }
    return NULL;
}

static void test_move(void **state)
{
    struct pair p;
    struct toucher r = { 0 };
    pthread_t thread;

    (void)state;
    if (!can_stop())
        SKIP("no full userfaultfd here");
    pair_make(&p, false);
    fill(p.app, UNIT);
    p.app[3 * UNIT + 5] = 'x'; /* the rest are holes */
    unsigned maps = count_maps();
    double start = now_s();

    assert_int_equal(mpl_seal_move(&p.move), 0);
    print_message("moved in %.2f ms, stop %.3f ms\n", (now_s() - start) * 1e3,
                  (double)p.move.stop_ns * 1e-6);
    assert_true(is_sealed(p.fd[0]));
    assert_true(is_filled(p.app, UNIT));
    assert_int_equal(p.app[3 * UNIT + 5], 'x');
    /* The holes are still holes. */
    assert_int_equal(lseek(p.fd[1], 0, SEEK_HOLE), 4096);
    assert_int_equal(lseek(p.fd[1], 4096, SEEK_DATA), 3 * UNIT);
    p.app[7] = 'y';
    assert_int_equal(p.direct[1][3 * UNIT + 7], 'y');
    assert_int_not_equal(p.direct[0][3 * UNIT + 7], 'y');
    assert_int_equal(count_maps(), maps);
    assert_int_equal(p.dressed, UNITS + 1);
    assert_int_equal(ftruncate(p.fd[0], 0), 0);

    r.va = p.app;
    pthread_create(&thread, NULL, run_toucher, &r);
    usleep(20000);
    atomic_store(&r.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(r.bad, 0);
    pair_drop(&p);
}

static void refuse_a_pinned_one(bool hugetlb)
{
    struct pair p;
    struct toucher r = { 0 };
    struct ring_pin pin;
    pthread_t thread;
    int io = io_file_open();

    if (!can_stop())
        SKIP("no full userfaultfd here");
    if (io < 0)
        SKIP("no directory for direct I/O");
    pair_make(&p, hugetlb);
    memset(p.app, 1, BYTES);
    if (ring_pin_take(&pin, p.app + UNIT + 8192, 65536) != 0) {
        pair_drop(&p);
        SKIP("no io_uring here to pin a page with");
    }
    unsigned maps = count_maps();

    r.va = p.app;
    pthread_create(&thread, NULL, run_toucher, &r);
    for (int i = 0; i < 5; i++)
        assert_int_equal(mpl_seal_move(&p.move), -EBUSY);
    atomic_store(&r.stop, true);
    pthread_join(thread, NULL);
    print_message("refused, stop %.3f ms, %lu rounds beside it\n",
                  (double)p.move.stop_ns * 1e-6, r.rounds);
    assert_int_equal(r.bad, 0);
    assert_false(is_sealed(p.fd[0]));
    assert_int_equal(count_maps(), maps);
    /* The buffer is still the program's memory, and the direct map is still writable. */
    assert_int_equal(ring_pin_read(&pin, io, p.app + UNIT + 8192, 65536, 0), 0);
    assert_true(is_filled(p.app + UNIT + 8192, 65536));
    p.direct[0][0] = 42;
    assert_int_equal(p.app[3 * UNIT], 42);
    ring_pin_drop(&pin);
    p.move.limit_ns = 2000 * MS; /* the kernel takes its time to let go of the buffer */
    assert_int_equal(mpl_seal_move(&p.move), 0);
    assert_true(is_filled(p.app + UNIT + 8192, 65536));
    assert_int_equal(p.app[3 * UNIT], 42);
    close(io);
    pair_drop(&p);
}

static void test_refused(void **state)
{
    (void)state;
    refuse_a_pinned_one(false);
}

static void test_refused_hugetlb(void **state)
{
    const char *why = hugepages_borrow(2 * UNITS);

    (void)state;
    if (why)
        SKIP(why);
    refuse_a_pinned_one(true);
    hugepages_return();
}

/* ---- under load ---- */

/* All slots of one file move to the other, which is made anew each time. */
static int move_block(struct torture *t)
{
    unsigned from = t->at[0].file, to = 1 - from;
    struct mpl_seal_unit units[16];
    size_t bytes = t->frames * t->unit;
    struct mpl_seal_drop drop = { t->direct[from], bytes, 0 };
    struct mpl_seal_move m = {
        .src_fd = t->fd[from], .src_len = bytes, .units = units, .nr_units = t->slots,
        .drops = &drop, .nr_drops = 1, .limit_ns = 60 * MS, .dev_fd = -1,
    };

    torture_drop_file(t, to);
    int err = torture_build_file(t, to);

    if (err)
        return err;
    for (unsigned i = 0; i < t->slots; i++)
        units[i] = (struct mpl_seal_unit){
            .va = t->window + i * t->unit, .len = t->unit,
            .src_off = t->at[i].frame * t->unit, .dst_fd = t->fd[to],
            .dst_off = i * t->unit, .to = t->direct[to] + i * t->unit,
            .prot = PROT_READ | PROT_WRITE,
        };
    err = mpl_seal_move(&m);
    *(uint64_t *)t->user += m.stop_ns;
    for (unsigned i = 0; i < t->slots && !err; i++) {
        t->at[i].file = to;
        t->at[i].frame = i;
    }
    return err;
}

static void run(enum kind kind, unsigned workers)
{
    struct torture *t = calloc(1, sizeof(*t));
    uint64_t stopped = 0;
    const char *why;

    *t = (struct torture){
        .kind = kind, .workers = workers, .seconds = 5, .step = move_block, .user = &stopped,
        .moves_wanted = 3, .ring_pause_us = 30000, .seed = 7,
    };
    int err = torture_run(t, &why);

    print_message("%s: %lu moved, %lu refused, %lu ops, %lu I/O, %lu lost, mean stop %.2f ms\n",
                  kind_name(kind), t->moves, t->refused, atomic_load(&t->ops),
                  atomic_load(&t->io), atomic_load(&t->lost),
                  (double)stopped * 1e-6 / (double)(t->moves + t->refused + 1));
    if (err) {
        print_message("%s: %s\n", why, strerror(-err));
        free(t);
        skip();
        return;
    }
    assert_int_equal(t->lost, 0);
    assert_int_equal(t->failed, 0);
    assert_true(t->moves > 0);
    free(t);
}

static void test_load_small(void **state)
{
    (void)state;
    run(KIND_2M, W_SYSCALLS | W_PINS);
}

/* And the control: the same program with a mover that fences but asks nobody about pins. */
static void test_load_hugetlb(void **state)
{
    const char *why = hugepages_borrow(16);
    struct torture *t = calloc(1, sizeof(*t));

    (void)state;
    if (why)
        SKIP(why);
    run(KIND_HUGETLB, W_SYSCALLS | W_PINS);
    *t = (struct torture){
        .kind = KIND_HUGETLB, .workers = W_SYSCALLS | W_PINS, .seconds = 20, .fenced = true,
        .until_loss = true, .seed = 7,
    };
    int err = torture_run(t, &why);

    print_message("without the seal: %lu moved, %lu lost\n", t->moves, atomic_load(&t->lost));
    if (!err)
        assert_true(t->lost > 0);
    free(t);
    hugepages_return();
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
        cmocka_unit_test(test_prove),
        cmocka_unit_test_teardown(test_prove_hugetlb, give_back),
        cmocka_unit_test(test_prove_refuses_what_it_cannot),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_refused),
        cmocka_unit_test_teardown(test_refused_hugetlb, give_back),
        cmocka_unit_test(test_load_small),
        cmocka_unit_test_teardown(test_load_hugetlb, give_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
