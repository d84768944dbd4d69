/* SPDX-License-Identifier: MIT */
/* Lazy forks: a parent that changes what it may do, and with it whether it reaches its children. */
#define _GNU_SOURCE
#include "fork_test.h"

#include "space.h"

#include <dirent.h>
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdatomic.h>

#define NOBODY 65534

static int drop(unsigned capabilities)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~capabilities;
    data[0].permitted &= ~capabilities;
    return syscall(SYS_capset, &header, data) == 0 ? 0 : 1;
}

/* --- privileges ------------------------------------------------------------------------------- */

static atomic_int told;

static void note(int pid)
{
    atomic_store(&told, pid);
}

/* It is another user, and its child is not: nothing is shared any more, and forks copy. */
static int another_user(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    struct kid kid = fork_kid(job, SEED);

    (void)argument;
    alarm(20);
    CHECK(memplug_space_change_begin(space) == 0);
    struct kid meanwhile = fork_kid(job, SEED);
    CHECK(copied_for(&job->machine, "changes"));
    CHECK(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0);
    CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
    memplug_space_change_end(space);
    write_all(job);
    discard(job);
    CHECK(ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0);
    CHECK(ask(&meanwhile, IS_AS_FORKED) == 0 && end_kid(&meanwhile) == 0);
    fill_words(job->memory, SIZE, 9);
    kid = fork_kid(job, 9);
    CHECK(copied_for(&job->machine, "reach")); /* by the change it is not dumpable */
    write_one(job);
    CHECK(ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
    kid = fork_kid(job, 9);
    CHECK(stat_of(&job->machine).nr_forks_lazy == 2 && stat_of(&job->machine).nr_forks_copied == 2);
    CHECK(end_kid(&kid) == 0 && stat_of(&job->machine).nr_children_ended == 0);
    return 0;
}

static void who_becomes_another_user(void **state)
{
    (void)state;
    if (getuid() != 0)
        SKIP("needs root");
    assert_int_equal(within(20, another_user, NULL), 0);
}

static void *write_there(void *argument)
{
    write_one(argument);
    return NULL;
}

/* What is not announced: the writer waits for the child, and it is said for whom. */
static int unannounced(void *argument)
{
    struct job *job = open_config(MEMPLUG_BACKING_MEMFD, -1, NULL);
    pthread_t thread;
    struct kid kid;

    (void)argument;
    alarm(20);
    CHECK(memplug_space_fork_lazily(job->machine.space, note, NULL) == 0);
    kid = fork_kid(job, SEED);
    CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
    CHECK(pthread_create(&thread, NULL, write_there, job) == 0);
    while (atomic_load(&told) == 0)
        usleep(1000);
    CHECK(atomic_exchange(&told, 0) == -kid.pid);
    usleep(100000);
    CHECK(pthread_tryjoin_np(thread, NULL) == EBUSY);
    CHECK(ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0);
    CHECK(pthread_join(thread, NULL) == 0 && atomic_load(&told) == 0);
    return 0;
}

static void a_child_that_can_neither_be_copied_nor_ended(void **state)
{
    (void)state;
    if (getuid() != 0)
        SKIP("needs root");
    assert_int_equal(within(20, unannounced, NULL), 0);
}

/* Capabilities are a thread's own, and so the library's thread has still its own; and what it takes
 * to be traced is the child's. */
static int what_needs_no_word(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct kid kid = fork_kid(job, SEED);

    (void)argument;
    alarm(20);
    CHECK(drop(UINT32_MAX) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0);
    write_all(job);
    CHECK(ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0);
    CHECK(stat_of(&job->machine).nr_children_ended == 0);
    return 0;
}

static void capabilities_and_dumpability_of_the_parent(void **state)
{
    (void)state;
    assert_int_equal(within(20, what_needs_no_word, NULL), 0);
}

static int undumpable(void *argument)
{
    struct job *job;
    struct kid kid;

    (void)argument;
    alarm(30);
    CHECK(drop(1u << CAP_SYS_PTRACE) == 0);
    job = open_lazy(NULL);
    CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
    for (unsigned i = 0; i < 2; i++) {
        kid = fork_kid(job, SEED);
        CHECK(copied_for(&job->machine, "reach"));
        write_all(job);
        CHECK(ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0);
        fill_words(job->memory, SIZE, SEED);
    }
    CHECK(stat_of(&job->machine).nr_forks_copied == 2 && stat_of(&job->machine).nr_forks_lazy == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
    kid = fork_kid(job, SEED);
    CHECK(stat_of(&job->machine).nr_forks_lazy == 1 && end_kid(&kid) == 0);
    return 0;
}

static void who_is_not_dumpable_copies(void **state)
{
    (void)state;
    assert_int_equal(within(30, undumpable, NULL), 0);
}

static atomic_bool stop;

/* --- who need not wait ------------------------------------------------------------------------ */

/* How often this process's other threads have gone to sleep: who is asked something wakes. */
static long nr_sleeps(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    long nr = 0;

    assert_non_null(tasks);
    while ((task = readdir(tasks)) != NULL) {
        char path[300];

        snprintf(path, sizeof(path), "/proc/self/task/%s/status", task->d_name);
        if (task->d_name[0] != '.' && atoi(task->d_name) != gettid())
            nr += number_in(path, "\nvoluntary_ctxt_switches:");
    }
    closedir(tasks);
    return nr;
}

/* The lock that a mover has is ours meanwhile: who waited for it would not come back. */
static void without_children_changes_wait_for_no_move(void **state)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    struct kid kid = fork_kid(job, SEED);
    long before;

    (void)state;
    alarm(30);
    assert_int_equal(end_kid(&kid), 0);
    mpl_lock_enter(&space->moving);
    assert_int_equal(memplug_space_change_begin(space), 0); /* which learns that it has ended */
    memplug_space_change_end(space);
    before = nr_sleeps();
    for (unsigned i = 0; i < 10000; i++) {
        assert_int_equal(memplug_space_change_begin(space), 0);
        memplug_space_change_end(space);
    }
    assert_true(nr_sleeps() - before < 1000); /* nobody was asked */
    mpl_lock_leave(&space->moving);
    alarm(0);
    close_job(job);
}


static void *move_on(void *argument)
{
    struct job *job = argument;

    while (!atomic_load(&stop))
        move(job);
    return NULL;
}

/* What a server pays that changes its user with every request. */
static void changes_while_all_moves(void **state)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    uint64_t start = mpl_now_ns(), longest = 0, nr = 0;
    pthread_t thread;

    (void)state;
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, move_on, job), 0);
    for (uint64_t now = start; now - start < 1000000000 || stat_of(&job->machine).nr_moves < 100;
         nr++) {
        uint64_t passed;

        assert_int_equal(memplug_space_change_begin(space), 0);
        passed = mpl_now_ns() - now;
        longest = passed > longest ? passed : longest;
        assert_int_equal(seteuid(geteuid()), 0);
        memplug_space_change_end(space);
        now = mpl_now_ns();
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    printf("   %llu changes during %llu moves, the longest wait %llu us\n", (unsigned long long)nr,
           (unsigned long long)stat_of(&job->machine).nr_moves,
           (unsigned long long)longest / 1000);
    close_job(job);
}

/* --- forks meanwhile -------------------------------------------------------------------------- */

static void *begin_change(void *argument)
{
    struct job *job = argument;

    assert_int_equal(memplug_space_change_begin(job->machine.space), 0);
    return NULL;
}

/* Begun before the change, it has a child that shares, which nobody knows yet. */
static void a_change_sees_the_fork_that_is_under_way(void **state)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    uint64_t nr_settled;
    pthread_t thread;
    pid_t pid;

    (void)state;
    assert_int_equal(memplug_space_fork_before(space, false, NULL), 0);
    pid = fork();
    if (pid == 0) {
        if (memplug_space_fork_child(space) != 0)
            _exit(125);
        alarm(20);
        pause();
    }
    assert_int_equal(pthread_create(&thread, NULL, begin_change, job), 0);
    while (atomic_load(&space->fork.nr_changing) == 0)
        sched_yield();
    usleep(20000);
    assert_int_equal(pthread_tryjoin_np(thread, NULL), EBUSY);
    assert_int_equal(memplug_space_fork_parent(space), 0);
    pthread_join(thread, NULL);
    nr_settled = stat_of(&job->machine).nr_settled_pages;
    assert_true(nr_settled > 0);
    write_all(job);
    assert_int_equal(stat_of(&job->machine).nr_settled_pages, nr_settled);
    memplug_space_change_end(space);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(status_of(pid), 1000 + SIGKILL);
    close_job(job);
}

/* Each way out of a fork lowers the mark. */
static void a_fork_that_was_given_up_is_not_waited_for(void **state)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    struct rlimit before, none;
    int result;

    (void)state;
    assert_int_equal(memplug_space_fork_before(space, false, NULL), 0);
    errno = ENOMEM; /* there is no child */
    assert_int_equal(memplug_space_fork_parent(space), -EAGAIN);
    assert_false(atomic_load(&space->fork.under_way));

    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
    result = memplug_space_fork_before(space, false, NULL);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(result, -ENOMEM);
    assert_false(atomic_load(&space->fork.under_way));
    close_job(job);
}

/* Another user for a moment, who can reach no child of root's; and it writes. */
static void *change_on(void *argument)
{
    struct job *job = argument;
    struct memplug_space *space = job->machine.space;

    for (unsigned seed = 1; !atomic_load(&stop);) {
        assert_int_equal(memplug_space_change_begin(space), 0);
        assert_int_equal(seteuid(NOBODY), 0);
        write_one(job);
        assert_int_equal(seteuid(0), 0);
        memplug_space_change_end(space);
        usleep((useconds_t)rand_r(&seed) % 3000);
    }
    return NULL;
}

static int fork_meanwhile(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space_stat stat;
    pthread_t thread;

    (void)argument;
    alarm(60);
    CHECK(pthread_create(&thread, NULL, change_on, job) == 0);
    for (unsigned i = 0; i < 500; i++) {
        pid_t pid = fork_job(job);

        for (unsigned j = 0; j < 3 && pid == 0; j++)
            if (answer(job, IS_THE_SAME, 0) != 0)
                _exit(1);
        if (pid == 0)
            _exit(0);
        if (i % 4 == 0)
            usleep(i % 16 * 100);
        CHECK(status_of(pid) == 0);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    stat = stat_of(&job->machine);
    printf("   %llu lazy, %llu copied\n", (unsigned long long)stat.nr_forks_lazy,
           (unsigned long long)stat.nr_forks_copied);
    fflush(stdout);
    CHECK(stat.nr_forks_lazy > 0 && stat.nr_children_ended == 0);
    close_job(job);
    return 0;
}

/* A child that shared while its parent is another user would be ended at the first write. */
static void forks_and_changes_at_once(void **state)
{
    (void)state;
    if (getuid() != 0)
        SKIP("needs root");
    atomic_store(&stop, false);
    assert_int_equal(within(60, fork_meanwhile, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_becomes_another_user),
        cmocka_unit_test(a_child_that_can_neither_be_copied_nor_ended),
        cmocka_unit_test(capabilities_and_dumpability_of_the_parent),
        cmocka_unit_test(who_is_not_dumpable_copies),
        cmocka_unit_test(without_children_changes_wait_for_no_move),
        cmocka_unit_test(changes_while_all_moves),
        cmocka_unit_test(a_change_sees_the_fork_that_is_under_way),
        cmocka_unit_test(a_fork_that_was_given_up_is_not_waited_for),
        cmocka_unit_test(forks_and_changes_at_once),
    };

    return can_be_lazy() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
