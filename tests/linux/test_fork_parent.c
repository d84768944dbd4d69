/* SPDX-License-Identifier: MIT */
/* Lazy forks: a parent that cannot reach its child, is stopped, or is not alone in changing things
 * while it forks. */
#define _GNU_SOURCE
#include "fork_test.h"

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

/* --- who is not adopted ----------------------------------------------------------------------- */

enum fate { RUNS, IS_GONE, IS_STOPPED, IS_NOT_BORN, SEEMS_NOT_BORN };

/* The child of a fork whose parent cannot open anything. */
static int out_of_reach(struct job *job, enum fate fate, struct kid *kid)
{
    struct memplug_space *space = job->machine.space;
    struct rlimit before, none;
    int pair[2], result;

    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    errno = 0;
    CHECK(memplug_space_fork_before(space, false, NULL) == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    kid->pid = fate == IS_NOT_BORN ? -1 : fork();
    errno = fate >= IS_NOT_BORN ? ENOMEM : 0;
    if (kid->pid == 0) {
        if (fate == IS_GONE)
            _exit(0);
        if (fate == IS_STOPPED)
            raise(SIGSTOP);
        if (memplug_space_fork_child(space) != 0)
            _exit(125);
        live(job, pair[1], SEED);
    }
    result = memplug_space_fork_parent(space);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    close(pair[1]);
    kid->socket = pair[0];
    return result;
}

static int make_their_own(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct kid kid;
    int status;

    (void)argument;
    alarm(40);
    uint64_t start = mpl_now_ns();
    CHECK(out_of_reach(job, IS_NOT_BORN, &kid) == -EAGAIN);
    CHECK(mpl_now_ns() - start < 1000000000); /* nobody was waited for */
    CHECK(out_of_reach(job, SEEMS_NOT_BORN, &kid) == -EAGAIN);
    CHECK(waitpid(kid.pid, &status, 0) == kid.pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 125);
    CHECK(out_of_reach(job, IS_GONE, &kid) == -EAGAIN);
    CHECK(waitpid(kid.pid, &status, 0) == kid.pid);
    CHECK(out_of_reach(job, IS_STOPPED, &kid) == -EAGAIN);
    CHECK(kill(kid.pid, SIGCONT) == 0 && waitpid(kid.pid, &status, 0) == kid.pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 125);
    CHECK(stat_of(&job->machine).nr_forks_copied == 0);

    uint64_t nr_lazy = stat_of(&job->machine).nr_forks_lazy;
    CHECK(out_of_reach(job, RUNS, &kid) == 0);
    CHECK(copied_for(&job->machine, "reached"));
    CHECK(stat_of(&job->machine).nr_forks_lazy == nr_lazy);
    CHECK(stat_of(&job->machine).nr_forks_copied == 1);
    write_all(job);
    CHECK(ask(&kid, IS_AS_FORKED) == 0);
    CHECK(ask(&kid, FORK) == 0 && end_kid(&kid) == 0);

    kid = fork_kid(job, 9); /* the next ones copy at once, for a while */
    CHECK(copied_for(&job->machine, "of before"));
    discard(job);
    CHECK(ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0);
    for (unsigned i = 0; i < 70; i++) {
        kid = fork_kid(job, SEED);
        end_kid(&kid);
    }
    CHECK(stat_of(&job->machine).nr_forks_lazy > nr_lazy);
    close_job(job);
    return 0;
}

static void who_is_not_adopted_makes_all_its_own(void **state)
{
    (void)state;
    assert_int_equal(within(40, make_their_own, NULL), 0);
}

/* Its parent stops before it has adopted it, */
static int left_alone(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    struct kid kid;
    int pair[2];

    (void)argument;
    alarm(20);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(memplug_space_fork_before(space, false, NULL) == 0);
    kid.pid = fork();
    if (kid.pid == 0) {
        if (memplug_space_fork_child(space) != 0)
            _exit(125);
        live(job, pair[1], SEED);
    }
    kid.socket = pair[0];
    CHECK(ask(&kid, IS_AS_FORKED) == 0);
    CHECK(memplug_space_fork_parent(space) == 0);
    write_all(job);
    CHECK(ask(&kid, IS_AS_FORKED) == 0);
    CHECK(ask(&kid, WRITE_ALL) == 0);
    CHECK(words_hold(job->memory, SIZE, 9));
    CHECK(end_kid(&kid) == 0);
    close(pair[1]);
    close_job(job);
    return 0;
}

/* or becomes another program. */
static int becomes_another(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    const int *pipe = argument;

    CHECK(memplug_space_fork_before(space, false, NULL) == 0);
    if (fork() == 0) {
        alarm(20);
        char result = memplug_space_fork_child(space) == 0 && words_hold(job->memory, SIZE, SEED);

        _exit(write(pipe[1], &result, 1) != 1);
    }
    execl("/bin/sleep", "sleep", "3", NULL);
    return 1;
}

static void who_is_left_alone_helps_itself(void **state)
{
    struct timeval limit = {.tv_sec = 1};
    char result = 0;
    int ends[2];

    (void)state;
    assert_int_equal(within(20, left_alone, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_int_equal(in_child(becomes_another, ends), 0);
    assert_int_equal(read(ends[0], &result, 1), 1);
    assert_int_equal(result, 1);
    close(ends[0]);
    close(ends[1]);
}

/* --- others, meanwhile ------------------------------------------------------------------------ */

static void *ask_for_it(void *argument)
{
    struct job *job = argument;

    memplug_space_fork_lazily(job->machine.space, NULL, NULL);
    return NULL;
}

/* Whatever a forking thread writes is heard of by one, and carried over. */
static int first_forks(void *argument)
{
    struct job *job = open_config(MEMPLUG_BACKING_MEMFD, -1, NULL);
    struct memplug_space *space = job->machine.space;
    pthread_t thread;
    int status;

    alarm(20);
    CHECK(pthread_create(&thread, NULL, ask_for_it, job) == 0);
    usleep(*(const useconds_t *)argument);
    for (unsigned i = 0; i < 8; i++) {
        pid_t pid;

        CHECK(memplug_space_fork_before(space, false, NULL) == 0);
        for (uint64_t at = i * PAGE; at < SIZE; at += MIB)
            job->memory[at] = 55;
        pid = fork();
        if (pid == 0)
            _exit(memplug_space_fork_child(space) != 0 || job->memory[i * PAGE] != 55);
        CHECK(memplug_space_fork_parent(space) == 0);
        for (uint64_t at = i * PAGE; at < SIZE; at += MIB)
            CHECK(job->memory[at] == 55);
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
    pthread_join(thread, NULL);
    close_job(job);
    return 0;
}

static void two_first_forks(void **state)
{
    (void)state;
    for (useconds_t us = 0; us < 3000; us += 50)
        assert_int_equal(within(20, first_forks, &us), 0);
}

#define NR_EXTENTS (SIZE / UNIT)

static atomic_uint rounds, written;

/* A byte in each extent, all holes before, and behind each how far it has come. */
static void *fill_holes(void *argument)
{
    struct job *job = argument;

    for (unsigned seen = 0, now; (now = atomic_load(&rounds)) != UINT32_MAX;)
        if (now != seen) {
            seen = now;
            for (uint64_t i = 1; i < NR_EXTENTS; i++) {
                job->memory[i * UNIT + 8] = 1;
                atomic_store((_Atomic uint64_t *)(void *)job->memory, i);
            }
            atomic_store(&written, now);
        }
    return NULL;
}

/* A hole that is written after the fork has looked at it, and before its mapping is away. */
static void holes_that_are_written_just_then(void **state)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, fill_holes, job) == 0, 1);
    for (unsigned i = 1; i <= 400; i++) {
        pid_t pid;

        assert_int_equal(memplug_discard(space, job->memory + UNIT, SIZE - UNIT), 0);
        atomic_store((_Atomic uint64_t *)(void *)job->memory, 0);
        atomic_store(&rounds, i);
        for (volatile unsigned j = 0; j < i * 37 % 4000; j++)
            ;
        pid = fork_job(job);
        if (pid == 0) {
            for (uint64_t at = *(volatile uint64_t *)(void *)job->memory; at > 0; at--)
                if (job->memory[at * UNIT + 8] != 1)
                    _exit(1);
            _exit(0);
        }
        assert_int_equal(status_of(pid), 0);
        while (atomic_load(&written) != i)
            sched_yield();
    }
    atomic_store(&rounds, UINT32_MAX);
    pthread_join(thread, NULL);
    close_job(job);
}

/* Pages of the job's memory that this process has for itself. */
static long own_pages(struct job *job)
{
    static uint64_t entries[SIZE / PAGE];
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    long nr = 0;

    if (pread(fd, entries, sizeof(entries), (off_t)((uintptr_t)job->memory / PAGE * 8)) !=
        (ssize_t)sizeof(entries))
        return -1;
    close(fd);
    for (uint64_t i = 0; i < SIZE / PAGE; i++)
        nr += (entries[i] >> 63) != 0 && (entries[i] >> 61 & 1) == 0;
    return nr;
}

static int locked(void *argument)
{
    struct job *job = open_lazy(NULL);
    pid_t pid;

    (void)argument;
    CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    pid = fork_job(job);
    if (pid == 0)
        _exit(own_pages(job) != 0);
    CHECK(status_of(pid) == 0);
    close_job(job);
    return 0;
}

/* Else its stand-ins are filled before the fork, with what was there then. */
static void a_program_that_locks_all_shares_too(void **state)
{
    (void)state;
    if (strcmp(SANITIZER, "none") != 0 || getuid() != 0)
        SKIP("it locks too much");
    assert_int_equal(in_child(locked, NULL), 0);
}

static atomic_bool stop;

/* Registers a buffer and has the kernel write to it, again and again. */
static void *write_by_ring(void *argument)
{
    struct job *job = argument;
    struct iovec buffer = {.iov_base = job->memory + MIB, .iov_len = 16 * PAGE};
    int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    struct io_uring ring;

    assert_int_equal(io_uring_queue_init(4, &ring, 0), 0);
    while (!atomic_load(&stop)) {
        if (io_uring_register_buffers(&ring, &buffer, 1) != 0)
            continue;
        for (unsigned i = 0; i < 1000 && !atomic_load(&stop); i++) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
            struct io_uring_cqe *cqe;

            io_uring_prep_read_fixed(sqe, random, buffer.iov_base, PAGE, 0, 0);
            io_uring_submit(&ring);
            if (io_uring_wait_cqe(&ring, &cqe) == 0)
                io_uring_cqe_seen(&ring, cqe);
        }
        io_uring_unregister_buffers(&ring);
        usleep(2000);
    }
    io_uring_queue_exit(&ring);
    close(random);
    return NULL;
}

/* Registered after the fork has looked for such, and before its memory is away. */
static void buffers_that_are_registered_just_then(void **state)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    struct io_uring ring;
    unsigned nr_torn = 0;
    pthread_t thread;

    (void)state;
    if (io_uring_queue_init(4, &ring, 0) != 0) {
        close_job(job);
        SKIP("no io_uring");
    }
    io_uring_queue_exit(&ring);
    for (uint64_t at = 0; at < SIZE; at += MIB / 8) /* many pieces: it takes longer */
        assert_int_equal(memplug_advise(space, job->memory + at, MIB / 16, MADV_SEQUENTIAL), 0);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, write_by_ring, job), 0);
    for (unsigned i = 0; i < 100; i++) {
        pid_t pid = fork_job(job);

        if (pid == 0) {
            static char seen[PAGE];

            memcpy(seen, job->memory + MIB, PAGE);
            usleep(500);
            _exit(memcmp(seen, job->memory + MIB, PAGE) != 0);
        }
        nr_torn += status_of(pid) != 0;
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    printf("   %llu lazy, %llu copied\n",
           (unsigned long long)stat_of(&job->machine).nr_forks_lazy,
           (unsigned long long)stat_of(&job->machine).nr_forks_copied);
    assert_int_equal(nr_torn, 0);
    close_job(job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_not_adopted_makes_all_its_own),
        cmocka_unit_test(who_is_left_alone_helps_itself),
        cmocka_unit_test(two_first_forks),
        cmocka_unit_test(holes_that_are_written_just_then),
        cmocka_unit_test(a_program_that_locks_all_shares_too),
        cmocka_unit_test(buffers_that_are_registered_just_then),
    };

    return can_be_lazy() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
