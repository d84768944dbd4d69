/* SPDX-License-Identifier: MIT */
/* A process that forks: the child has movable mappings as they were, the parent has them back. */
#define _GNU_SOURCE
#include "space_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define SIZE (9 * MIB)

/* --- the child -------------------------------------------------------------------------------- */

struct job {
    struct machine machine;
    char *memory;
    bool alone;
};

/* All tests are run twice: with copies, and with memory that is shared until somebody writes. */
static bool lazy;

static struct job *open_job(const struct memplug_space_config *config)
{
    static struct job job;

    job = (struct job){.alone = false};
    assert_int_equal(machine_open(&job.machine, MEMPLUG_BACKING_MEMFD, 2, -1, config), 0);
    assert_int_equal(memplug_map(job.machine.space, SIZE, NULL, (void **)&job.memory, NULL), 0);
    fill_words(job.memory, SIZE, 4);
    if (lazy)
        assert_int_equal(memplug_space_fork_lazily(job.machine.space, NULL, NULL), 0);
    return &job;
}

static void close_job(struct job *job)
{
    assert_int_equal(memplug_unmap(job->machine.space, job->memory, SIZE), 0);
    assert_int_equal(machine_close(&job->machine), 0);
}

/* Forks; the child's answer, or less than 0 if it may not have the memory. */
static int fork_job(struct job *job, int (*child)(struct job *job))
{
    struct memplug_space *space = job->machine.space;
    pid_t pid;

    if (memplug_space_fork_before(space, job->alone, &job->machine.reason) != 0)
        return job->machine.reason.error;
    pid = fork();
    if (pid == 0) {
        _exit(memplug_space_fork_child(space) == 0 ? child(job) : 125);
    }
    assert_int_equal(memplug_space_fork_parent(space), 0);
    return status_of(pid);
}

static bool can_hold_up(struct job *job, const char *name)
{
    char text[512];

    if (memplug_space_fork_check(job->machine.space, false, &job->machine.reason) == 0)
        return true;
    memplug_reason_text(&job->machine.reason, text, sizeof(text));
    printf("SKIP %s: %s\n", name, text);
    return false;
}

/* --- tests ------------------------------------------------------------------------------------ */

static int child_has_all(struct job *job)
{
    if (!words_hold(job->memory, SIZE, 4))
        return 1;
    memset(job->memory, 0, SIZE); /* not its parent's */
    return munmap(job->memory, MIB) == 0 ? 0 : 2;
}

/* Alone, nobody has to be held up: it needs no rights. */
static void a_child_has_a_copy(void **state)
{
    struct job *job = open_job(NULL);

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        job->alone = i % 2 == 0;
        if (!job->alone && memplug_space_fork_check(job->machine.space, false, NULL) != 0)
            continue;
        assert_int_equal(fork_job(job, child_has_all), 0);
        assert_true(words_hold(job->memory, SIZE, 4));
        assert_int_equal(memplug_check(job->machine.pool, &job->machine.reason), 0);
    }
    /* It is the pool's memory again: what is given back comes back as zeros. */
    assert_int_equal(memplug_discard(job->machine.space, job->memory, SIZE), 0);
    assert_true(all_zero(job->memory, SIZE));
    fill_words(job->memory, SIZE, 5);
    if (memplug_space_movable(job->machine.space, NULL) == 0)
        assert_int_equal(machine_offline(&job->machine, 0, 5), 0);
    assert_true(words_hold(job->memory, SIZE, 5));
    close_job(job);
}

static int child_sees_shapes(struct job *job)
{
    char *at = job->memory;

    return at[0] == 1 && at[5 * PAGE] == 2 && all_zero(at + 2 * MIB, 2 * MIB) &&
                   at[4 * MIB] == 3 && at[SIZE - 1] == 4 ? 0 : 1;
}

/* Holes, pages that can only be read, pages without access, and units in part. */
static void shapes_are_kept(void **state)
{
    struct job *job = open_job(NULL);
    struct memplug_space *space = job->machine.space;
    char *small;

    (void)state;
    job->alone = memplug_space_fork_check(space, false, NULL) != 0;
    memset(job->memory, 0, SIZE);
    assert_int_equal(memplug_discard(space, job->memory, SIZE), 0);
    uint64_t empty = blocks_of(job->machine.fd);
    job->memory[0] = 1;
    job->memory[5 * PAGE] = 2;
    job->memory[4 * MIB] = 3;
    job->memory[SIZE - 1] = 4;
    assert_int_equal(memplug_protect(space, job->memory + 5 * PAGE, PAGE, PROT_READ), 0);
    assert_int_equal(memplug_protect(space, job->memory + 7 * PAGE, PAGE, PROT_NONE), 0);
    assert_int_equal(memplug_map(space, 3 * PAGE, NULL, (void **)&small, NULL), 0);
    memset(small, 7, 3 * PAGE);
    assert_int_equal(memplug_unmap(space, small + PAGE, PAGE), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(fork_job(job, child_sees_shapes), 0);
    assert_true(small[0] == 7 && small[2 * PAGE] == 7);
    assert_true(blocks_of(job->machine.fd) - empty <= 8 * PAGE); /* no hole was filled */
    assert_int_equal(memplug_unmap(space, small, PAGE), 0);
    assert_int_equal(memplug_unmap(space, small + 2 * PAGE, PAGE), 0);
    close_job(job);
}

/* --- others write meanwhile ------------------------------------------------------------------- */

static struct job *counted;
static atomic_bool stop;

static _Atomic uint64_t nr_written;

#define NR_WORDS ((uint64_t)1 << 20)

/* The word that number n is written to: neighbours in number are a MiB apart. */
static _Atomic uint64_t *word_of(struct job *job, uint64_t n)
{
    uint64_t at = n % NR_WORDS;

    return (_Atomic uint64_t *)(void *)(job->memory + at % 8 * MIB + at / 8 * 8);
}

/* Number after number, round and round. A write that is lost is missed for a whole round. */
static void *count(void *argument)
{
    for (uint64_t n = 1; !atomic_load(&stop); n++) {
        atomic_store_explicit(word_of(counted, n), n, memory_order_release);
        atomic_store_explicit(&nr_written, n, memory_order_relaxed);
    }
    return argument;
}

/* All numbers up to the last one are there, but for those that have been written over. */
static int child_sees_a_moment(struct job *job)
{
    uint64_t last = 0;

    for (uint64_t at = 0; at < NR_WORDS; at++) {
        uint64_t n = atomic_load_explicit(word_of(job, at), memory_order_relaxed);

        last = n > last ? n : last;
    }
    for (uint64_t at = 0; at < NR_WORDS; at++)
        if (atomic_load_explicit(word_of(job, at), memory_order_relaxed) !=
            (last < at ? 0 : last - (last - at) % NR_WORDS))
            return 1;
    return 0;
}

/* The writer has the last CPU and the caller the others, so that the one writes while the other
 * copies. Returns what the caller had. */
static cpu_set_t part_from(pthread_t writer)
{
    cpu_set_t all, last;
    int cpu = CPU_SETSIZE - 1;

    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    while (!CPU_ISSET(cpu, &all))
        cpu--;
    CPU_ZERO(&last);
    CPU_SET(cpu, &last);
    if (CPU_COUNT(&all) > 1) {
        cpu_set_t others = all;

        CPU_CLR(cpu, &others);
        assert_int_equal(sched_setaffinity(0, sizeof(others), &others), 0);
        assert_int_equal(pthread_setaffinity_np(writer, sizeof(last), &last), 0);
    }
    return all;
}

/* Returns how many children saw memory of more than one moment. */
static unsigned fork_beside_a_writer(bool alone)
{
    struct job *job = open_job(NULL);
    unsigned nr_torn = 0;
    pthread_t thread;
    cpu_set_t all;

    counted = job;
    job->alone = alone;
    atomic_store(&stop, false);
    atomic_store(&nr_written, 0);
    memset(job->memory, 0, 8 * MIB);
    assert_int_equal(pthread_create(&thread, NULL, count, NULL), 0);
    all = part_from(thread);
    while (atomic_load(&nr_written) == 0)
        sched_yield();
    for (unsigned i = 0; i < 25; i++) {
        uint64_t before = atomic_load(&nr_written);

        nr_torn += fork_job(job, child_sees_a_moment) != 0;
        while (!alone && atomic_load(&nr_written) == before)
            sched_yield(); /* the writer has been woken */
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
    close_job(job);
    return nr_torn;
}

static void a_child_sees_one_moment(void **state)
{
    struct job *job = open_job(NULL);
    bool able = can_hold_up(job, "a_child_sees_one_moment");
    unsigned nr_torn = 0;

    (void)state;
    close_job(job);
    if (!able)
        skip();
    assert_int_equal(fork_beside_a_writer(false), 0);
    for (unsigned i = 0; i < 20 && nr_torn == 0; i++) /* chance: seldom more than once */
        nr_torn = fork_beside_a_writer(true);
    assert_true(nr_torn > 0); /* what shows that the test sees it */
}

/* --- refused ---------------------------------------------------------------------------------- */

static void *fork_from_there(void *argument)
{
    int *result = argument;

    *result = memplug_space_fork_before(counted->machine.space, true, NULL);
    return NULL;
}

static void a_stack_in_movable_memory_is_refused(void **state)
{
    struct job *job = open_job(NULL);
    pthread_attr_t attr;
    pthread_t thread;
    int result = 0;

    (void)state;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, job->memory, 2 * MIB), 0);
    counted = job;
    assert_int_equal(pthread_create(&thread, &attr, fork_from_there, &result), 0);
    pthread_join(thread, NULL);
    assert_int_equal(result, -EBUSY);
    pthread_attr_destroy(&attr);
    close_job(job);
}

/* No room for the copy: all is as it was, and the next one works. */
static int no_room(void *argument)
{
    struct rlimit before, less;
    struct job *job = open_job(NULL);
    void *more;

    (void)argument;
    job->alone = memplug_space_fork_check(job->machine.space, false, NULL) != 0;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    less = (struct rlimit){
        .rlim_cur = (rlim_t)number_in("/proc/self/status", "VmSize:") * 1024 + 2 * MIB,
        .rlim_max = before.rlim_max,
    };
    CHECK(setrlimit(RLIMIT_AS, &less) == 0);
    CHECK(fork_job(job, child_has_all) == -ENOMEM);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(words_hold(job->memory, SIZE, 4));
    CHECK(memplug_map(job->machine.space, MIB, NULL, &more, NULL) == 0);
    CHECK(memplug_unmap(job->machine.space, more, MIB) == 0);
    CHECK(fork_job(job, child_has_all) == 0);
    CHECK(words_hold(job->memory, SIZE, 4));
    close_job(job);
    return 0;
}

static void without_room_nothing_changes(void **state)
{
    (void)state;
    if (strcmp(SANITIZER, "none") != 0)
        SKIP("a sanitizer needs addresses itself");
    assert_int_equal(in_child(no_room, NULL), 0);
}

/* Nothing of the library stays open in a child. */
static int child_has_no_descriptor(struct job *job)
{
    for (int fd = 3; fd < 1024; fd++) {
        char path[64], target[256];
        ssize_t length;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        length = readlink(path, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = 0;
        if (fd != job->machine.fd &&
            (strstr(target, "memfd:memplug") || strstr(target, "userfaultfd"))) {
            fprintf(stderr, "%d %s\n", fd, target);
            return 1;
        }
    }
    return 0;
}

static void a_child_has_no_descriptors(void **state)
{
    struct job *job = open_job(NULL);

    (void)state;
    job->alone = memplug_space_fork_check(job->machine.space, false, NULL) != 0;
    assert_true(memplug_space_descriptor(job->machine.space, 0) >= 0);
    assert_int_equal(fork_job(job, child_has_no_descriptor), 0);
    close_job(job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_has_a_copy),
        cmocka_unit_test(shapes_are_kept),
        cmocka_unit_test(a_child_sees_one_moment),
        cmocka_unit_test(a_stack_in_movable_memory_is_refused),
        cmocka_unit_test(without_room_nothing_changes),
        cmocka_unit_test(a_child_has_no_descriptors),
    };

    int failed = cmocka_run_group_tests_name("copies", tests, NULL, NULL);

    if (!can_be_lazy())
        return failed;
    lazy = true;
    return failed | cmocka_run_group_tests_name("lazy", tests, NULL, NULL);
}
