/* SPDX-License-Identifier: MIT */
/* The fake host in time: clock, CPUs, the lock, threads, and the seeded scheduler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fake_setup.h"

/* --- clock, CPUs, lock ------------------------------------------------------------------------ */

static void test_clock_and_cpu(void **state)
{
    struct fake_config config = {.geometry = fake_geometry(FAKE_SMALL), .nr_cpus = 4,
                                 .clock_step_ns = 5};
    struct fake_machine *machine;
    const struct memplug_host *host;
    unsigned i, seen = 0;

    (void)state;
    assert_int_equal(fake_open(&config, &machine), 0);
    host = fake_host(machine);
    assert_int_equal(host->ops->now_ns(host->context), 5);
    fake_clock_advance(machine, 100);
    assert_int_equal(host->ops->now_ns(host->context), 110);
    assert_int_equal(fake_clock(machine), 110);
    fake_set_cpu(3);
    assert_int_equal(host->ops->cpu(host->context), 3);
    close_clean(machine);
    config.random_cpu = config.real_clock = true;
    assert_int_equal(fake_open(&config, &machine), 0);
    host = fake_host(machine);
    for (i = 0; i < 200; i++)
        seen |= 1u << host->ops->cpu(host->context);
    assert_int_equal(seen, 15);
    assert_true(host->ops->now_ns(host->context) <= host->ops->now_ns(host->context));
    fake_set_cpu(0);
    close_clean(machine);
}

struct locker {
    const struct memplug_host *host;
    struct memplug_limit limit;
    int error;
};

static void *lock_thread(void *context)
{
    struct locker *locker = context;

    locker->error = locker->host->ops->lock(locker->host->context, &locker->limit);
    if (!locker->error)
        locker->host->ops->unlock(locker->host->context);
    return NULL;
}

static int lock_elsewhere(const struct memplug_host *host, const struct memplug_limit *limit)
{
    struct locker locker = {.host = host, .limit = *limit};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, lock_thread, &locker), 0);
    pthread_join(thread, NULL);
    return locker.error;
}

static void test_lock(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct fake_machine *machine = open_shape(&geometry);
    const struct memplug_host *host = fake_host(machine);
    struct memplug_limit limit = {.timeout_ns = 5000000};
    struct locker locker = {.host = host};
    uint32_t stop = 1;
    pthread_t thread;

    (void)state;
    assert_int_equal(host->ops->lock(host->context, NULL), 0);
    assert_int_equal(host->ops->lock(host->context, &limit), -EDEADLK);
    assert_int_equal(lock_elsewhere(host, &limit), -ETIMEDOUT);
    limit.stop = &stop;
    assert_int_equal(lock_elsewhere(host, &limit), -EINTR);
    assert_int_equal(pthread_create(&thread, NULL, lock_thread, &locker), 0);
    host->ops->unlock(host->context);
    pthread_join(thread, NULL);
    assert_int_equal(locker.error, 0);
    assert_int_equal(lock_elsewhere(host, &limit), 0); /* a free lock asks no limit */
    close_clean(machine);
}

static void test_mutex_owner(void **state)
{
    struct fake_mutex mutex;

    (void)state;
    fake_mutex_open(&mutex, "mine");
    assert_int_equal(fake_mutex_unlock(&mutex), -EPERM);
    assert_int_equal(fake_mutex_lock(&mutex, NULL, NULL), 0);
    assert_true(fake_mutex_is_mine(&mutex));
    assert_int_equal(fake_mutex_lock(&mutex, NULL, NULL), -EDEADLK);
    mutex.owner = &mutex; /* somebody else */
    assert_false(fake_mutex_is_mine(&mutex));
    assert_int_equal(fake_mutex_unlock(&mutex), -EPERM);
    assert_true(fake_mutex_is_held(&mutex));
    fake_mutex_close(&mutex);
}

#define NR_RACERS 4

struct racer {
    const struct memplug_host *host;
    unsigned *inside, *nr;
};

static void *race_thread(void *context)
{
    struct racer *racer = context;
    unsigned i;

    for (i = 0; i < 500; i++) {
        void *memory;

        if (racer->host->ops->lock(racer->host->context, NULL))
            return context;
        *racer->inside += 1;
        if (*racer->inside != 1 || racer->host->ops->memory_get(racer->host->context, 64, &memory))
            return context;
        racer->host->ops->memory_put(racer->host->context, memory, 64);
        *racer->nr += 1;
        *racer->inside -= 1;
        racer->host->ops->unlock(racer->host->context);
        racer->host->ops->relax(racer->host->context, 0);
        racer->host->ops->now_ns(racer->host->context);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct fake_machine *machine = open_shape(&geometry);
    unsigned inside = 0, nr = 0, i;
    struct racer racer = {fake_host(machine), &inside, &nr};
    pthread_t threads[NR_RACERS];

    (void)state;
    for (i = 0; i < NR_RACERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, race_thread, &racer), 0);
    for (i = 0; i < NR_RACERS; i++) {
        void *result;

        pthread_join(threads[i], &result);
        assert_null(result);
    }
    assert_int_equal(nr, NR_RACERS * 500);
    close_clean(machine);
}

/* --- the scheduler ---------------------------------------------------------------------------- */

/* A fibre that takes the lock, works with the host in it, and writes down who it is. */
struct worker {
    const struct memplug_host *host;
    char *log;
    unsigned *inside;
    char name;
    bool bad;
};

static void work(void *context)
{
    struct worker *worker = context;
    const struct memplug_host *host = worker->host;
    unsigned i;

    for (i = 0; i < 20; i++) {
        void *memory;
        int error = host->ops->lock(host->context, NULL);

        *worker->inside += 1;
        worker->bad |= error || *worker->inside != 1;
        worker->bad |= host->ops->memory_get(host->context, 64, &memory) != 0;
        worker->log[strlen(worker->log)] = worker->name;
        host->ops->memory_put(host->context, memory, 64);
        worker->bad |= host->ops->cpu(host->context) != (unsigned)(worker->name - 'a');
        *worker->inside -= 1;
        host->ops->unlock(host->context);
    }
}

#define NR_WORKERS 3

static struct fake_sched_report run_workers(uint64_t seed, char *log)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct fake_machine *machine = open_shape(&geometry);
    struct fake_fibre fibres[NR_WORKERS];
    struct worker workers[NR_WORKERS];
    struct fake_sched_report report;
    unsigned inside = 0, i;

    memset(log, 0, NR_WORKERS * 20 + 1);
    for (i = 0; i < NR_WORKERS; i++) {
        workers[i] = (struct worker){fake_host(machine), log, &inside, (char)('a' + i), false};
        fibres[i] = (struct fake_fibre){"worker", work, &workers[i], i};
    }
    assert_int_equal(fake_sched_run(machine, seed, fibres, NR_WORKERS, &report), 0);
    for (i = 0; i < NR_WORKERS; i++)
        assert_false(workers[i].bad);
    assert_int_equal(strlen(log), NR_WORKERS * 20);
    check(machine);
    close_clean(machine);
    return report;
}

static void test_same_seed_same_run(void **state)
{
    char log[NR_WORKERS * 20 + 1], again[NR_WORKERS * 20 + 1], last[NR_WORKERS * 20 + 1] = "";
    unsigned seed, nr_differ = 0;

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    for (seed = 0; seed < 50; seed++) {
        struct fake_sched_report first = run_workers(seed, log);
        struct fake_sched_report second = run_workers(seed, again);

        assert_int_equal(first.trace, second.trace);
        assert_int_equal(first.nr_switches, second.nr_switches);
        assert_string_equal(log, again);
        nr_differ += strcmp(log, last) != 0;
        strcpy(last, log);
    }
    assert_int_equal(nr_differ, 50);
}

struct lover {
    struct fake_mutex *first, *second;
    struct fake_machine *machine;
    const struct memplug_limit *limit;
    int error;
};

static void embrace(void *context)
{
    struct lover *lover = context;

    fake_mutex_lock(lover->first, NULL, NULL);
    fake_sched_yield();
    lover->error = fake_mutex_lock(lover->second, lover->machine, lover->limit);
    if (!lover->error)
        fake_mutex_unlock(lover->second);
    fake_mutex_unlock(lover->first);
}

static void test_deadlock(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct memplug_limit limit = {.timeout_ns = 1000};
    struct fake_mutex left, right;
    struct fake_sched_report report;
    unsigned seed, nr_locked = 0, nr_late = 0, with_limit;

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    for (seed = 0; seed < 40; seed++) {
        for (with_limit = 0; with_limit < 2; with_limit++) {
            struct fake_machine *machine = open_shape(&geometry);
            struct lover a = {&left, &right, machine, with_limit ? &limit : NULL, 0};
            struct lover b = {&right, &left, machine, NULL, 0};
            struct fake_fibre fibres[] = {{"ann", embrace, &a, 0}, {"bob", embrace, &b, 1}};
            int error;

            fake_mutex_open(&left, "left");
            fake_mutex_open(&right, "right");
            error = fake_sched_run(machine, seed, fibres, 2, &report);
            if (with_limit) {
                assert_int_equal(error, 0);
                nr_late += a.error == -ETIMEDOUT;
            } else if (error) {
                nr_locked++;
                assert_int_equal(error, -EDEADLK);
                assert_string_equal(report.text, "ann waits for right, which bob holds\n"
                                                 "bob waits for left, which ann holds\n");
            }
            fake_mutex_close(&left);
            fake_mutex_close(&right);
            close_clean(machine);
        }
    }
    assert_true(nr_locked > 0 && nr_locked < 40);
    assert_int_equal(nr_late, nr_locked); /* the same seeds, saved by their limit */
}

struct stopper {
    const struct memplug_host *host;
    struct memplug_limit limit;
    uint32_t stop;
    int error;
};

static void hold_and_stop(void *context)
{
    struct stopper *stopper = context;
    unsigned i;

    stopper->host->ops->lock(stopper->host->context, NULL);
    for (i = 0; i < 100; i++)
        stopper->host->ops->relax(stopper->host->context, i);
    stopper->stop = 1;
    for (i = 0; i < 100; i++)
        stopper->host->ops->relax(stopper->host->context, i);
    stopper->host->ops->unlock(stopper->host->context);
}

static void wait_for_lock(void *context)
{
    struct stopper *stopper = context;

    fake_sched_yield();
    fake_sched_yield();
    stopper->error = stopper->host->ops->lock(stopper->host->context, &stopper->limit);
    if (!stopper->error)
        stopper->host->ops->unlock(stopper->host->context);
}

static void test_stop(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    unsigned seed, nr_stopped = 0;

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    for (seed = 0; seed < 20; seed++) {
        struct fake_machine *machine = open_shape(&geometry);
        struct stopper stopper = {.host = fake_host(machine)};
        struct fake_fibre fibres[] = {{"holder", hold_and_stop, &stopper, 0},
                                      {"waiter", wait_for_lock, &stopper, 1}};

        stopper.limit.stop = &stopper.stop;
        assert_int_equal(fake_sched_run(machine, seed, fibres, 2, NULL), 0);
        nr_stopped += stopper.error == -EINTR;
        close_clean(machine);
    }
    assert_true(nr_stopped > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock_and_cpu),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_mutex_owner),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_same_seed_same_run),
        cmocka_unit_test(test_deadlock),
        cmocka_unit_test(test_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
