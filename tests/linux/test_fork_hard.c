/* SPDX-License-Identifier: MIT */
/* Lazy forks: children that do what makes it hard, and programs that leave no room. */
#define _GNU_SOURCE
#include "fork_test.h"

#include "space.h"

#include <liburing.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

/* --- what a child does ------------------------------------------------------------------------ */

/* A child of a child, which the parent does not know. */
static void grandchildren(void **state)
{
    struct job *job = open_lazy(NULL);
    struct kid kid = fork_kid(job, SEED);

    (void)state;
    assert_int_equal(ask(&kid, FORK_RAW), 0); /* has no heap */
    write_all(job);
    assert_int_equal(ask(&kid, FORK), 0);
    assert_int_equal(end_kid(&kid), 0);
    close_job(job);
}

/* What a child does to its own memory. */
static void a_child_changes_its_memory(void **state)
{
    struct job *job = open_lazy(NULL);
    struct kid kid = fork_kid(job, SEED);

    (void)state;
    assert_int_equal(ask(&kid, UNMAP_HALF), 0);
    write_all(job);
    assert_int_equal(end_kid(&kid), 0);

    kid = fork_kid(job, 9);
    assert_int_equal(ask(&kid, MOVE_HALF), 0);
    discard(job);
    assert_int_equal(ask(&kid, MOVE_HALF), 0);
    assert_int_equal(end_kid(&kid), 0);

    fill_words(job->memory, SIZE, SEED);
    kid = fork_kid(job, SEED);
    assert_int_equal(ask(&kid, PROTECT_OWN), 0);
    write_all(job);
    assert_int_equal(ask(&kid, IS_AS_FORKED), 0);
    assert_int_equal(end_kid(&kid), 0);

    kid = fork_kid(job, 9);
    assert_int_equal(ask(&kid, DISCARD), 0);
    assert_int_equal(ask(&kid, DISCARD), 0);
    write_one(job);
    assert_int_equal(ask(&kid, DISCARD), 0);
    assert_int_equal(end_kid(&kid), 0);

    kid = fork_kid(job, 9);
    assert_int_equal(ask(&kid, DISCARD_RAW), 1); /* why there is a function for it */
    assert_int_equal(end_kid(&kid), 0);
    assert_int_equal(stat_of(&job->machine).nr_children_ended, 0);
    close_job(job);
}

/* It cannot be given its copy, and is not left to share. */
static void who_cannot_be_settled_ends(void **state)
{
    struct job *job = open_lazy(NULL);
    struct kid kid = fork_kid(job, SEED);

    (void)state;
    assert_int_equal(ask(&kid, PROTECT), 0);
    write_all(job);
    assert_int_equal(end_kid(&kid), 1000 + SIGKILL);
    assert_int_equal(stat_of(&job->machine).nr_children_ended, 1);
    close_job(job);
}

static int drop_trace(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1u << CAP_SYS_PTRACE);
    data[0].permitted &= ~(1u << CAP_SYS_PTRACE);
    return syscall(SYS_capset, &header, data) == 0 ? 0 : 1;
}

static int hide(void *argument)
{
    const int *question = argument;
    struct job *job;
    struct kid kid;

    CHECK(drop_trace() == 0);
    job = open_lazy(NULL);
    kid = fork_kid(job, SEED);
    CHECK(ask(&kid, *question) == 0);
    write_all(job);
    if (*question == HIDE) {
        CHECK(end_kid(&kid) == 1000 + SIGKILL);
        CHECK(stat_of(&job->machine).nr_children_ended == 1);
    } else {
        CHECK(ask(&kid, IS_AS_FORKED) == 0);
        CHECK(end_kid(&kid) == 0);
    }
    CHECK(words_hold(job->memory, SIZE, 9));
    close_job(job);
    return 0;
}

static void who_hides_owns_first_or_ends(void **state)
{
    int question = HIDE;

    (void)state;
    assert_int_equal(in_child(hide, &question), 0);
    question = HIDE_OWN;
    assert_int_equal(in_child(hide, &question), 0);
}

/* --- what the parent does --------------------------------------------------------------------- */

static atomic_bool stop;

/* Deeper and deeper, on pages that are shared; and gives back memory of the unit that it is in. */
static int use_stack(struct job *job, unsigned depth)
{
    volatile char page[3 * PAGE];

    page[depth % sizeof(page)] = (char)depth;
    if (depth < 40)
        return use_stack(job, depth + 1) + page[depth % sizeof(page)];
    return memplug_discard(job->machine.space, job->memory + MIB, MIB / 2);
}

static void *live_there(void *argument)
{
    struct job *job = argument;

    while (!atomic_load(&stop))
        use_stack(job, 0);
    return NULL;
}

/* Whoever waits for a first write holds the lock of the unit. */
static void a_stack_that_is_shared(void **state)
{
    struct job *job = open_lazy(NULL);
    pthread_attr_t attr;
    pthread_t thread;

    (void)state;
    atomic_store(&stop, false);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, job->memory, MIB), 0);
    assert_int_equal(pthread_create(&thread, &attr, live_there, job), 0);
    for (unsigned i = 0; i < 50; i++) {
        struct kid kids[2] = {fork_kid(job, SEED), fork_kid(job, SEED)};

        assert_int_equal(memplug_discard(job->machine.space, job->memory + MIB, MIB / 4), 0);
        usleep(1000);
        assert_int_equal(end_kid(&kids[0]), 0);
        assert_int_equal(end_kid(&kids[1]), 0);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    assert_true(stat_of(&job->machine).nr_first_writes > 0);
    close_job(job);
}

static void *use_spares(void *argument)
{
    struct job *job = argument;

    while (!atomic_load(&stop)) {
        mpl_spare_release(&job->machine.host->spare);
        mpl_spare_fill(&job->machine.host->spare);
    }
    return NULL;
}

/* Put to sleep on its stack, it must not have what who forks waits for. */
static int stack_with_lock(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    pthread_attr_t attr;
    pthread_t thread;

    (void)argument;
    alarm(30);
    atomic_store(&stop, false);
    CHECK(pthread_attr_init(&attr) == 0);
    CHECK(pthread_attr_setstack(&attr, job->memory, MIB) == 0);
    CHECK(pthread_create(&thread, &attr, use_spares, job) == 0);
    for (unsigned i = 0; i < 8; i++) {
        CHECK(memplug_space_fork_before(space, false, NULL) == 0);
        mpl_spare_release(&space->host->spare); /* as it does at the limit of mappings */
        errno = ENOMEM; /* there was no fork */
        CHECK(memplug_space_fork_parent(space) == -EAGAIN);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    close_job(job);
    return 0;
}

static void a_stack_whose_thread_has_a_lock(void **state)
{
    (void)state;
    assert_int_equal(in_child(stack_with_lock, NULL), 0);
}

/* The way back of a fork that was given up, beside a child of before, when the program has closed
 * the userfaultfd. */
static int closed_behind(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    struct kid kid = fork_kid(job, SEED);

    (void)argument;
    alarm(20);
    CHECK(memplug_space_fork_before(space, false, NULL) == 0);
    CHECK(syscall(SYS_close, space->fork.uffd) == 0);
    for (uint64_t i = space->fork.nr; i > 0; i--)
        mpl_fork_unpark(space, &space->fork.pieces[i - 1], true);
    errno = ENOMEM; /* there was no fork */
    CHECK(memplug_space_fork_parent(space) == -EAGAIN);
    write_all(job);
    CHECK(ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0);
    return 0;
}

static void without_userfaultfd_children_are_settled(void **state)
{
    (void)state;
    assert_int_equal(in_child(closed_behind, NULL), 0);
}

/* --- no room ---------------------------------------------------------------------------------- */

/* What the kernel says of the window's mappings: their places, files and flags. */
static uint64_t maps_of(struct job *job)
{
    uintptr_t start = (uintptr_t)job->memory, from = 0, to;
    FILE *file = fopen("/proc/self/smaps", "re");
    uint64_t hash = 14695981039346656037u;
    bool inside = false;
    char line[512];

    while (file && fgets(line, sizeof(line), file) && from < start + SIZE) {
        bool head = sscanf(line, "%lx-%lx ", &from, &to) == 2;

        if (head)
            inside = from < start + SIZE && to > start;
        for (char *at = line; inside && (head || strncmp(line, "VmFlags", 7) == 0) && *at; at++)
            hash = (hash ^ (unsigned char)*at) * 1099511628211u;
    }
    fclose(file);
    return hash;
}

/* At the limit of mappings, less and less short of what it takes: each step of it fails once. */
static int no_mappings(void *argument)
{
    long limit = number_in("/proc/sys/vm/max_map_count", "");
    char *many = mmap(NULL, ((uint64_t)limit + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    unsigned nr_refused = 0, nr_copied = 0, nr_lazy = 0;
    const bool *beside_a_child = argument;
    struct kid kid = {0};

    CHECK(limit > 0 && many != MAP_FAILED);
    for (uint64_t at = 0; at < SIZE; at += MIB / 8) /* more pieces than there are spare mappings */
        CHECK(memplug_advise(space, job->memory + at, MIB / 16, MADV_SEQUENTIAL) == 0);
    if (*beside_a_child)
        kid = fork_kid(job, SEED);
    for (long i = 1; i < limit && mprotect(many + i * (long)PAGE, PAGE, PROT_READ) == 0; i += 2)
        ;
    for (unsigned i = 0; i < 2000 && nr_lazy == 0; i++) {
        uint64_t maps = maps_of(job);
        long kib = number_in("/proc/self/status", "VmSize:");
        struct memplug_space_stat before = stat_of(&job->machine);
        int result = memplug_space_fork_before(space, false, &job->machine.reason);

        if (result == 0) {
            nr_copied += stat_of(&job->machine).nr_forks_copied - before.nr_forks_copied;
            nr_lazy += stat_of(&job->machine).nr_forks_lazy - before.nr_forks_lazy;
            memplug_space_fork_parent(space);
        } else {
            CHECK(result == -ENOMEM);
            nr_refused++;
        }
        CHECK(words_hold(job->memory, SIZE, SEED));
        CHECK(maps_of(job) == maps || nr_lazy > 0 || *beside_a_child);
        CHECK(number_in("/proc/self/status", "VmSize:") == kib || i < 2); /* a table has grown */
        CHECK(job->machine.host->spare.nr_stuck == 0);
        for (unsigned j = 16 * i; j < 16 * i + 16; j += 2) /* sixteen less */
            CHECK(mprotect(many + (j + 1) * PAGE, PAGE, PROT_NONE) == 0);
    }
    printf("   %u refused, %u copied, %u lazy\n", nr_refused, nr_copied, nr_lazy);
    fflush(stdout);
    CHECK(nr_refused > 10 && nr_lazy == 1);
    CHECK(munmap(many, ((uint64_t)limit + 2) * PAGE) == 0);
    write_all(job);
    CHECK(!*beside_a_child || (ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0));
    CHECK(memplug_check(job->machine.pool, &job->machine.reason) == 0);
    close_job(job);
    return 0;
}

static void without_mappings_nothing_changes(void **state)
{
    (void)state;
    if (strcmp(SANITIZER, "none") != 0)
        SKIP("a sanitizer needs mappings itself");
    for (unsigned i = 0; i < 2; i++) {
        bool beside_a_child = i != 0;

        assert_int_equal(in_child(no_mappings, &beside_a_child), 0);
    }
}

/* The program has advised the kernel behind the library's back: mappings differ that look alike. */
static void a_mapping_in_parts(void **state)
{
    struct job *job = open_lazy(NULL);
    struct kid kid;

    (void)state;
    assert_int_equal(madvise(job->memory + 3 * PAGE, 5 * PAGE, MADV_RANDOM), 0);
    assert_int_equal(madvise(job->memory + 5 * MIB, MIB, MADV_SEQUENTIAL), 0);
    kid = fork_kid(job, SEED);
    write_all(job);
    assert_int_equal(ask(&kid, IS_AS_FORKED), 0);
    assert_int_equal(end_kid(&kid), 0);
    assert_int_equal(stat_of(&job->machine).nr_forks_lazy, 1);
    close_job(job);
}

static int locked(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct kid kid;

    (void)argument;
    CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    for (unsigned i = 0; i < NR_ACTS; i++) {
        if (acts[i] == move)
            continue; /* locked memory may stay: test_locked */
        fill_words(job->memory, SIZE, SEED);
        kid = fork_kid(job, SEED);
        acts[i](job);
        CHECK(ask(&kid, IS_AS_FORKED) == 0);
        CHECK(end_kid(&kid) == 0);
    }
    CHECK(munlockall() == 0);
    close_job(job);
    return 0;
}

static void a_program_that_locks_its_memory(void **state)
{
    struct rlimit limit;

    (void)state;
    if (getuid() != 0 && (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur < 4 * GIB))
        SKIP("RLIMIT_MEMLOCK is too small");
    if (strcmp(SANITIZER, "none") != 0)
        SKIP("a sanitizer has too much memory to lock");
    assert_int_equal(in_child(locked, NULL), 0);
}

/* --- what is not lazy ------------------------------------------------------------------------- */

static void registered_buffers_are_copied(void **state)
{
    struct job *job = open_lazy(NULL);
    struct iovec buffer = {.iov_base = job->memory + MIB, .iov_len = MIB};
    struct io_uring ring;
    struct kid kid;

    (void)state;
    if (io_uring_queue_init(4, &ring, 0) != 0) {
        close_job(job);
        SKIP("no io_uring");
    }
    kid = fork_kid(job, SEED);
    assert_int_equal(io_uring_register_buffers(&ring, &buffer, 1), 0);
    assert_int_equal(end_kid(&kid), 0);
    kid = fork_kid(job, SEED);
    assert_int_equal(stat_of(&job->machine).nr_forks_lazy, 1);
    assert_int_equal(stat_of(&job->machine).nr_forks_copied, 1);
    assert_non_null(strstr(stat_of(&job->machine).fork_copied_why, "io_uring"));
    write_all(job);
    assert_int_equal(ask(&kid, IS_AS_FORKED), 0);
    assert_int_equal(end_kid(&kid), 0);
    io_uring_queue_exit(&ring);
    close_job(job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grandchildren),
        cmocka_unit_test(a_child_changes_its_memory),
        cmocka_unit_test(who_cannot_be_settled_ends),
        cmocka_unit_test(who_hides_owns_first_or_ends),
        cmocka_unit_test(a_stack_that_is_shared),
        cmocka_unit_test(a_stack_whose_thread_has_a_lock),
        cmocka_unit_test(without_userfaultfd_children_are_settled),
        cmocka_unit_test(without_mappings_nothing_changes),
        cmocka_unit_test(a_mapping_in_parts),
        cmocka_unit_test(a_program_that_locks_its_memory),
        cmocka_unit_test(registered_buffers_are_copied),
    };

    return can_be_lazy() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
