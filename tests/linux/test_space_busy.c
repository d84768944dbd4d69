/* SPDX-License-Identifier: MIT */
/* Movable mappings of a program that does not stand still: threads whose stacks move, and threads
 * that map, protect, discard and unmap while blocks go offline. */
#define _GNU_SOURCE
#include "space_test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "pin_helpers.h"

/* --- stacks ---------------------------------------------------------------------------------- */

struct deep {
    atomic_bool *stop;
    atomic_ulong *bad, *done;
};

/* Fills the stack, lets the kernel write into it, and finds it unchanged. */
static uint64_t dig(unsigned depth, uint64_t seed)
{
    volatile uint64_t words[64];
    uint64_t sum = 0;
    struct timespec now;

    for (unsigned i = 0; i < 64; i++)
        words[i] = seed + i;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    if (depth > 0)
        sum = dig(depth - 1, seed + 1);
    for (unsigned i = 0; i < 64; i++)
        sum += words[i] - seed - i;
    return sum;
}

static void *run_deep(void *argument)
{
    struct deep *deep = argument;

    for (uint64_t seed = 0; !atomic_load(deep->stop); seed++) {
        if (dig(200, seed) != 0)
            atomic_fetch_add(deep->bad, 1);
        raise(SIGUSR1);
        atomic_fetch_add(deep->done, 1);
    }
    return NULL;
}

static void nothing(int signal)
{
    (void)signal;
}

static void stacks_move(void **state)
{
    atomic_bool stop = false;
    atomic_ulong bad = 0, done = 0;
    struct deep deep = {&stop, &bad, &done};
    struct machine machine;
    pthread_t threads[3];
    pthread_attr_t attr;
    char *a;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    signal(SIGUSR1, nothing);
    assert_int_equal(memplug_map(machine.space, 3 * UNIT, NULL, (void **)&a, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        pthread_attr_init(&attr);
        assert_int_equal(pthread_attr_setstack(&attr, a + i * UNIT, UNIT), 0);
        assert_int_equal(pthread_create(&threads[i], &attr, run_deep, &deep), 0);
    }
    for (double end = now_s() + 2, block = 0; now_s() < end; block = !block) {
        assert_int_equal(machine_offline(&machine, (uint64_t)block, 0), 0);
        assert_int_equal(machine_online(&machine, (uint64_t)block), 0);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    print_message("%lu rounds, %lu moves of a stack\n", (unsigned long)done,
                  (unsigned long)stat_of(&machine).nr_moves);
    assert_int_equal(bad, 0);
    assert_true(done > 0);
    assert_int_equal(memplug_unmap(machine.space, a, 3 * UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

/* --- all at once ----------------------------------------------------------------------------- */

struct busy {
    struct machine *machine;
    uint64_t seed;
    atomic_bool *stop;
    atomic_ulong *bad, *done;
};

static bool use_mapping(struct busy *busy, char *a, uint64_t nr_pages)
{
    struct memplug_space *space = busy->machine->space;
    uint64_t seed = next_random(&busy->seed), page = seed % nr_pages;
    bool good = all_zero(a, nr_pages * PAGE);

    fill_words(a, nr_pages * PAGE, seed);
    good = good && memplug_protect(space, a + page * PAGE, PAGE, PROT_READ) == 0;
    good = good && words_hold(a, nr_pages * PAGE, seed);
    good = good && memplug_discard(space, a + page * PAGE, PAGE) == 0;
    good = good && all_zero(a + page * PAGE, PAGE);
    good = good && words_hold(a, page * PAGE, seed);
    if (nr_pages > 1)
        good = good && memplug_unmap(space, a + page * PAGE, PAGE) == 0 &&
               (page == 0 || memplug_unmap(space, a, page * PAGE) == 0) &&
               (page + 1 == nr_pages ||
                memplug_unmap(space, a + (page + 1) * PAGE, (nr_pages - page - 1) * PAGE) == 0);
    else
        good = good && memplug_unmap(space, a, PAGE) == 0;
    return good;
}

static void *be_busy(void *argument)
{
    struct busy *busy = argument;

    while (!atomic_load(busy->stop)) {
        uint64_t r = next_random(&busy->seed), nr_pages = 1 + r % (r >> 60 == 0 ? 1500 : 40);
        char *a;

        if (memplug_map(busy->machine->space, nr_pages * PAGE, NULL, (void **)&a, NULL) != 0)
            continue;
        if (!use_mapping(busy, a, nr_pages))
            atomic_fetch_add(busy->bad, 1);
        atomic_fetch_add(busy->done, 1);
    }
    return NULL;
}

static void busy_with_units(uint64_t unit_bytes, double seconds)
{
    struct memplug_space_config config = {.unit_bytes = unit_bytes, .node = MEMPLUG_ANY_NODE};
    struct machine machine;
    atomic_bool stop = false;
    atomic_ulong bad = 0, done = 0;
    struct busy busy[3];
    pthread_t threads[3];
    unsigned nr_offlines = 0;

    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 3, -1, &config), 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    for (unsigned i = 0; i < 3; i++) {
        busy[i] = (struct busy){&machine, i, &stop, &bad, &done};
        assert_int_equal(pthread_create(&threads[i], NULL, be_busy, &busy[i]), 0);
    }
    for (double end = now_s() + seconds; now_s() < end; nr_offlines++) {
        int result = machine_offline(&machine, nr_offlines % 3, 0);

        if (result != 0)
            machine_say(&machine, "offline", result);
        if (result == 0)
            assert_int_equal(machine_online(&machine, nr_offlines % 3), 0);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    print_message("%lu mappings, %u offlines, %lu moves\n", (unsigned long)done, nr_offlines,
                  (unsigned long)stat_of(&machine).nr_moves);
    assert_int_equal(bad, 0);
    assert_int_equal(stat_of(&machine).nr_units, 0);
    assert_int_equal(machine_close(&machine), 0);
}

static void busy_program(void **state)
{
    (void)state;
    busy_with_units(UNIT, 3);
    busy_with_units(65536, 3);
    busy_with_units(4096, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stacks_move),
        cmocka_unit_test(busy_program),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
