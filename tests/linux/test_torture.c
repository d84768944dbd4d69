/* SPDX-License-Identifier: MIT */
/*
 * A program that writes, adds, reads from files and sockets, directly and by io_uring, into movable
 * mappings, while the blocks under it go offline and online: not one update may be lost. And the
 * controls: without the fence, and without the pin proof, some must be, or the test sees nothing.
 *
 * The workers are those of the proofs' own tests. They stand in a file that has its own mover; here
 * it is only asked for the workers, so it is included and not linked.
 */
#define _GNU_SOURCE
#include "space_test.h"

#include "pin_torture.c"

#define LONGEST 20.0 /* seconds that a control may take */

struct trial {
    enum kind kind;
    unsigned workers;
    double seconds;
    bool no_fence, trusted;
    /* what came of it */
    unsigned long offlines, refusals, moves, lost, ops;
    struct memplug_space_stat stat;
};

static const unsigned nr_slots[KIND_COUNT] = {
    [KIND_4K] = 512, [KIND_64K] = 64, [KIND_2M] = 6, [KIND_THP] = 6, [KIND_HUGETLB] = 6,
};

static bool is_control(const struct trial *trial)
{
    return trial->no_fence || (trial->trusted && trial->kind != KIND_HUGETLB);
}

/* What the last owner of these frames leaves behind. */
static void poison(struct machine *machine, uint64_t block)
{
    char *start = memplug_linux_host(machine->host)->direct_map +
                  (machine->first + block) * BLOCK;

    memset(start + MEMMAP, POISON, 8 * UNIT);
}

static void make_huge(const struct torture *t)
{
    for (unsigned slot = 0; slot < t->slots && t->kind == KIND_THP; slot++)
        madvise(t->window + slot * t->unit, t->unit, ADVICE_COLLAPSE);
}

static void run_blocks(struct trial *trial, struct machine *machine, struct torture *t)
{
    double end = now_s() + trial->seconds;

    for (uint64_t block = 0; now_s() < end && !t->worker_error; block = !block) {
        if (is_control(trial) && atomic_load(&t->lost) != 0)
            break;
        make_huge(t);
        int result = machine_offline(machine, block, 3);

        assert_true(result == 0 || result == -EBUSY || result == -ENOMEM);
        if (result != 0) {
            trial->refusals++;
            usleep(1000);
            continue;
        }
        if (trial->offlines++ % 4 == 0)
            poison(machine, block);
        assert_int_equal(machine_online(machine, block), 0);
    }
}

static int torture_space(struct trial *trial, struct machine *machine)
{
    struct torture t = {
        .kind = trial->kind,
        .workers = trial->workers,
        .unit = kinds[trial->kind].unit,
        .slots = nr_slots[trial->kind],
        .seed = 1,
        .io_fd = trial->workers & W_PINS ? io_file_open() : -1,
    };
    struct worker workers[THREADS_MAX];

    if (trial->workers & W_PINS && t.io_fd < 0)
        return t.io_fd;
    t.adds = calloc((size_t)t.slots * words_of(&t), sizeof(*t.adds));
    assert_int_equal(memplug_map(machine->space, t.slots * t.unit, NULL, (void **)&t.window,
                                 NULL), 0);
    unsigned n = start_workers(&t, workers);
    run_blocks(trial, machine, &t);
    atomic_store(&t.stop, true);
    for (unsigned i = 0; i < n; i++)
        pthread_join(workers[i].thread, NULL);
    check_adds(&t);
    memplug_space_stat(machine->space, &trial->stat);
    trial->moves = trial->stat.nr_moves;
    trial->lost = atomic_load(&t.lost);
    trial->ops = atomic_load(&t.ops) + atomic_load(&t.io);
    assert_int_equal(memplug_unmap(machine->space, t.window, t.slots * t.unit), 0);
    free(t.adds);
    if (t.io_fd >= 0)
        close(t.io_fd);
    return t.worker_error;
}

static void tell(const struct trial *trial)
{
    const struct memplug_pause *pause = &trial->stat.pause;

    print_message("%s: %lu blocks offline, %lu times not, %lu units moved (%lu MiB), "
                  "%lu updates, %lu lost; pins held %lu moves; writers waited %lu us, "
                  "p99 %lu us, at most %lu us\n",
                  kind_name(trial->kind), trial->offlines, trial->refusals, trial->moves,
                  (unsigned long)(trial->stat.moved_bytes >> 20), trial->ops, trial->lost,
                  (unsigned long)trial->stat.nr_refused_pins,
                  (unsigned long)memplug_pause_ns(pause, 500) / 1000,
                  (unsigned long)memplug_pause_ns(pause, 990) / 1000,
                  (unsigned long)pause->max_ns / 1000);
}

static void run(struct trial *trial)
{
    const struct memplug_space_config config = {
        .unit_bytes = kinds[trial->kind].unit,
        .node = MEMPLUG_ANY_NODE,
        .pins = trial->trusted ? MEMPLUG_PINS_TRUSTED : MEMPLUG_PINS_PROVED,
        .unsafe_no_fence = trial->no_fence,
    };
    bool huge = trial->kind == KIND_HUGETLB;
    const char *why = huge ? hugepages_borrow(300) : NULL;
    struct machine machine;
    int result = 0;

    if (!why && machine_open(&machine, huge ? MEMPLUG_BACKING_HUGETLB : MEMPLUG_BACKING_MEMFD, 2,
                             -1, &config) != 0)
        why = "no two blocks of memory";
    if (!why && memplug_space_movable(machine.space, &machine.reason) != 0)
        why = machine.reason.why;
    if (!why) {
        result = torture_space(trial, &machine);
        assert_int_equal(machine_close(&machine), 0);
    }
    if (huge)
        hugepages_return();
    if (result != 0)
        why = strerror(-result);
    if (why)
        SKIP("%s", why);
    tell(trial);
    if (is_control(trial)) {
        assert_true(trial->lost > 0);
        return;
    }
    assert_int_equal(trial->lost, 0);
    assert_true(trial->moves > 0 && trial->offlines > 0);
}

static void run_kind(enum kind kind, unsigned workers, double seconds)
{
    struct trial trial = {.kind = kind, .workers = workers, .seconds = seconds};

    run(&trial);
}

static void units_4k(void **state)
{
    (void)state;
    run_kind(KIND_4K, W_SYSCALLS, 5);
}

static void units_4k_pins(void **state)
{
    (void)state;
    run_kind(KIND_4K, W_USER | W_ODIRECT, 4);
}

static void units_64k(void **state)
{
    (void)state;
    run_kind(KIND_64K, W_SYSCALLS, 5);
}

static void units_64k_pins(void **state)
{
    (void)state;
    run_kind(KIND_64K, W_USER | W_PINS, 5);
}

static void units_2m(void **state)
{
    (void)state;
    run_kind(KIND_2M, W_SYSCALLS, 6);
}

static void units_2m_pins(void **state)
{
    (void)state;
    run_kind(KIND_2M, W_USER | W_ATOMIC | W_PINS, 6);
}

static void huge_shmem(void **state)
{
    (void)state;
    run_kind(KIND_THP, W_SYSCALLS, 5);
}

static void huge_shmem_pins(void **state)
{
    (void)state;
    run_kind(KIND_THP, W_USER | W_PINS, 5);
}

static void hugetlb(void **state)
{
    (void)state;
    run_kind(KIND_HUGETLB, W_SYSCALLS, 4);
}

static void hugetlb_pins(void **state)
{
    (void)state;
    run_kind(KIND_HUGETLB, W_USER | W_PINS, 4);
}

static void hugetlb_trusted(void **state)
{
    struct trial trial = {
        .kind = KIND_HUGETLB, .workers = W_SYSCALLS, .seconds = 3, .trusted = true,
    };

    (void)state;
    run(&trial);
}

static void without_fence(void **state)
{
    struct trial trial = {
        .kind = KIND_2M, .workers = W_SYSCALLS, .seconds = LONGEST, .no_fence = true,
    };

    (void)state;
    run(&trial);
}

static void without_proof(void **state)
{
    struct trial trial = {
        .kind = KIND_2M, .workers = W_USER | W_ODIRECT, .seconds = LONGEST, .trusted = true,
    };

    (void)state;
    run(&trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_fence),
        cmocka_unit_test(without_proof),
        cmocka_unit_test(units_4k),
        cmocka_unit_test(units_4k_pins),
        cmocka_unit_test(units_64k),
        cmocka_unit_test(units_64k_pins),
        cmocka_unit_test(units_2m),
        cmocka_unit_test(units_2m_pins),
        cmocka_unit_test(huge_shmem),
        cmocka_unit_test(huge_shmem_pins),
        cmocka_unit_test(hugetlb),
        cmocka_unit_test(hugetlb_pins),
        cmocka_unit_test(hugetlb_trusted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
