/* SPDX-License-Identifier: MIT */
/* What a child has that shares its parent's memory until somebody writes. */
#define _GNU_SOURCE
#include "fork_test.h"

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>

/* --- tests ------------------------------------------------------------------------------------ */

/* Whatever the parent does, also to a child that is stopped, or has read all of it before. */
static void a_child_keeps_what_it_had(void **state)
{
    struct job *job = open_lazy(NULL);

    (void)state;
    for (unsigned i = 0; i < 3 * NR_ACTS; i++) {
        struct kid kid;

        fill_words(job->memory, SIZE, SEED);
        kid = fork_kid(job, SEED);
        if (i % 3 == 1)
            assert_int_equal(kill(kid.pid, SIGSTOP), 0);
        if (i % 3 == 2)
            assert_int_equal(ask(&kid, IS_AS_FORKED), 0);
        acts[i / 3](job);
        if (i % 3 == 1)
            assert_int_equal(kill(kid.pid, SIGCONT), 0);
        assert_int_equal(ask(&kid, IS_AS_FORKED), 0);
        assert_int_equal(ask(&kid, WRITE_ALL), 0);
        write_one(job);
        assert_int_equal(ask(&kid, IS_OWN), 0);
        assert_int_equal(end_kid(&kid), 0);
    }
    assert_int_equal(stat_of(&job->machine).nr_forks_lazy, 3 * NR_ACTS);
    assert_int_equal(stat_of(&job->machine).nr_forks_copied, 0);
    assert_int_equal(stat_of(&job->machine).nr_children_ended, 0);
    assert_true(stat_of(&job->machine).nr_first_writes > 0);
    close_job(job);
}

/* What shows that the test sees it. */
static void without_settling_it_does_not(void **state)
{
    const struct memplug_space_config config = {
        .node = MEMPLUG_ANY_NODE, .unsafe_no_fence = true, .pins = MEMPLUG_PINS_TRUSTED};
    struct job *job = open_lazy(&config);

    (void)state;
    for (unsigned i = 0; i < NR_ACTS; i++) {
        struct kid kid;

        fill_words(job->memory, SIZE, SEED);
        kid = fork_kid(job, SEED);
        acts[i](job);
        write_one(job);
        assert_int_equal(ask(&kid, IS_AS_FORKED), 1);
        assert_int_equal(end_kid(&kid), 0);
    }
    close_job(job);
}

static void several_children_of_several_moments(void **state)
{
    struct job *job = open_lazy(NULL);
    struct kid kids[5];

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        fill_words(job->memory, SIZE - i * MIB, 100 + i);
        fill_words(job->memory, SIZE, 100 + i);
        kids[i] = fork_kid(job, 100 + i);
    }
    move(job);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(ask(&kids[i], IS_AS_FORKED), 0);
    assert_int_equal(end_kid(&kids[1]), 0);
    write_all(job);
    kids[1] = fork_kid(job, 9);
    discard(job);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(ask(&kids[i], IS_AS_FORKED), 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(end_kid(&kids[i]), 0);
    close_job(job);
}

#define MEMMAP_KIB 256 /* what two blocks' memmaps and bitmaps may grow by */

/* Memory of the pool in use, KiB. */
static long used_kib(const struct job *job)
{
    struct stat status;

    assert_int_equal(fstat(job->machine.fd, &status), 0);
    return (long)status.st_blocks / 2;
}

/* A child gets copies of holes, too, which fills them; what moves has them again. */
static void move_sparse(enum memplug_pins pins)
{
    const struct memplug_space_config config = {.node = MEMPLUG_ANY_NODE, .pins = pins};
    struct job *job = open_lazy(&config);
    struct kid kid;
    long before;

    assert_int_equal(memplug_discard(job->machine.space, job->memory, SIZE), 0);
    for (uint64_t at = 0; at < SIZE; at += 16 * PAGE)
        job->memory[at] = 7;
    before = used_kib(job);
    kid = fork_kid(job, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(machine_offline(&job->machine, i % 2, 5), 0);
        assert_int_equal(machine_online(&job->machine, i % 2), 0);
    }
    assert_in_range(used_kib(job), 0, before + MEMMAP_KIB);
    assert_true(is_sparse(job->memory, SIZE));
    write_one(job);
    assert_int_equal(ask(&kid, IS_SPARSE), 0);
    assert_int_equal(end_kid(&kid), 0);
    close_job(job);
}

static void what_moves_beside_a_child_stays_sparse(void **state)
{
    (void)state;
    move_sparse(MEMPLUG_PINS_PROVED);
    move_sparse(MEMPLUG_PINS_TRUSTED);
}

static atomic_bool stop;

static void *write_on(void *argument)
{
    struct job *job = argument;

    for (uint64_t n = 1; !atomic_load(&stop); n++)
        *(volatile uint64_t *)(void *)(job->memory + n * 40503 % (SIZE / 8) * 8) = n;
    return NULL;
}

/* None sees a write after its fork, also of those that come while the next one forks. */
static void children_beside_a_writer(void **state)
{
    struct job *job = open_lazy(NULL);
    struct kid kids[4];
    pthread_t thread;

    (void)state;
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, write_on, job), 0);
    for (unsigned i = 0; i < 80; i++) {
        struct kid *kid = &kids[i % 4];

        for (unsigned j = i < 4 ? 4 : 0; j < 4; j++)
            assert_int_equal(ask(&kids[j], IS_THE_SAME), 0);
        if (i >= 4)
            assert_int_equal(end_kid(kid), 0);
        *kid = fork_kid(job, 0);
        assert_int_equal(ask(kid, IS_THE_SAME), 0);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    for (unsigned j = 0; j < 4; j++) {
        assert_int_equal(ask(&kids[j], IS_THE_SAME), 0);
        assert_int_equal(end_kid(&kids[j]), 0);
    }
    /* One that waits for seconds, on a machine that is short of CPUs, makes its copies itself. */
    assert_in_range(stat_of(&job->machine).nr_forks_copied, 0, 40);
    close_job(job);
}

/* Holes are a child's own, but not while an older child has them of the file. */
static void holes_of_several_children(void **state)
{
    struct job *job = open_lazy(NULL);
    struct kid kids[2];

    (void)state;
    assert_int_equal(memplug_discard(job->machine.space, job->memory, SIZE), 0);
    for (uint64_t at = 0; at < SIZE; at += UNIT)
        *(volatile char *)(job->memory + at) = 0; /* all holes but for a page */
    kids[0] = fork_kid(job, 0);
    for (uint64_t at = 0; at < SIZE; at += UNIT)
        assert_int_equal(memplug_discard(job->machine.space, job->memory + at, PAGE), 0);
    kids[1] = fork_kid(job, 0);
    write_all(job);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ask(&kids[i], IS_ZERO), 0);
        assert_int_equal(end_kid(&kids[i]), 0);
    }
    close_job(job);
}

/* Between before() and the fork for both, behind the fork for the parent alone. */
static void fork_and_write(struct job *job)
{
    struct memplug_space *space = job->machine.space;
    char *at[4] = {job->memory + 5, job->memory + 3 * MIB, job->memory + SIZE - 9,
                   job->memory + SIZE - 3 * MIB};
    int status;
    pid_t pid;

    assert_int_equal(memplug_discard(space, job->memory, SIZE), 0);
    fill_words(job->memory, 4 * MIB, SEED);
    memset(at[2] - 2 * PAGE, 1, PAGE);
    assert_int_equal(memplug_space_fork_before(space, false, NULL), 0);
    for (unsigned i = 0; i < 4; i += 2)
        *at[i] = 33;
    pid = fork();
    if (pid == 0) {
        if (memplug_space_fork_child(space) != 0)
            _exit(125);
        usleep(20000); /* until the parent has written */
        _exit(*at[0] == 33 && *at[2] == 33 && *at[1] != 44 && *at[3] == 0 ? 0 : 1);
    }
    for (unsigned i = 1; i < 4; i += 2)
        *at[i] = 44;
    assert_int_equal(memplug_space_fork_parent(space), 0);
    *at[1] = *at[0] = 44;
    assert_true(*at[2] == 33 && *at[3] == 44 && *(at[2] - 2 * PAGE) == 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void what_the_forking_thread_writes(void **state)
{
    struct job *job = open_lazy(NULL);
    struct iovec buffer = {.iov_base = job->memory + 8 * MIB, .iov_len = MIB};
    struct io_uring ring;

    (void)state;
    fork_and_write(job);
    if (io_uring_queue_init(4, &ring, 0) == 0 &&
        io_uring_register_buffers(&ring, &buffer, 1) == 0) {
        fork_and_write(job); /* with copies, although first writes are heard of */
        assert_int_equal(stat_of(&job->machine).nr_forks_copied, 1);
        io_uring_queue_exit(&ring);
    }
    assert_int_equal(stat_of(&job->machine).nr_forks_lazy, 1);
    close_job(job);
}

/* Of other sizes of units, and of memory in tmpfs. */
static void other_units_and_files(void **state)
{
    static const uint64_t units[] = {4096, 65536};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        const struct memplug_space_config config = {.node = MEMPLUG_ANY_NODE,
                                                    .unit_bytes = i < 2 ? units[i] : 0};
        char path[] = "/dev/shm/memplug-test-XXXXXX";
        int fd = i < 2 ? -1 : mkstemp(path);
        struct kid kid;
        struct job *job;

        if (i == 2)
            assert_true(fd >= 0 && unlink(path) == 0 && ftruncate(fd, (off_t)(2 * BLOCK)) == 0);
        job = open_config(i < 2 ? MEMPLUG_BACKING_MEMFD : MEMPLUG_BACKING_FILE, fd, &config);
        assert_int_equal(memplug_space_fork_lazily(job->machine.space, NULL, NULL), 0);
        for (unsigned act = 0; act < NR_ACTS; act++) {
            fill_words(job->memory, SIZE, SEED);
            kid = fork_kid(job, SEED);
            acts[act](job);
            assert_int_equal(ask(&kid, IS_AS_FORKED), 0);
            assert_int_equal(end_kid(&kid), 0);
        }
        assert_int_equal(stat_of(&job->machine).nr_forks_copied, 0);
        close_job(job);
        if (fd >= 0)
            close(fd);
    }
}

/* A child that has ended, or is another program, costs nothing any more. */
static void who_is_gone_gets_nothing(void **state)
{
    struct job *job = open_lazy(NULL);
    struct kid kid = fork_kid(job, SEED);
    uint64_t settled;

    (void)state;
    assert_int_equal(end_kid(&kid), 0);
    settled = stat_of(&job->machine).nr_settled_pages;
    write_all(job);
    assert_int_equal(stat_of(&job->machine).nr_settled_pages, settled);
    kid = fork_kid(job, 9);
    put(&kid, EXEC);
    for (char gone; read(kid.socket, &gone, 1) != 0;)
        ; /* its end is close-on-exec */
    settled = stat_of(&job->machine).nr_settled_pages;
    discard(job);
    assert_int_equal(stat_of(&job->machine).nr_settled_pages, settled);
    assert_int_equal(kill(kid.pid, SIGKILL), 0);
    assert_int_equal(end_kid(&kid), 1000 + SIGKILL);
    assert_int_equal(stat_of(&job->machine).nr_children_ended, 0);
    close_job(job);
}

static void *kill_soon(void *argument)
{
    const struct kid *kid = argument;

    usleep((useconds_t)(kid->pid % 7) * 700);
    kill(kid->pid, SIGKILL);
    return NULL;
}

static void killed_in_the_middle(void **state)
{
    struct job *job = open_lazy(NULL);

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        struct kid kid = fork_kid(job, SEED);
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, kill_soon, &kid), 0);
        acts[i % NR_ACTS](job);
        pthread_join(thread, NULL);
        assert_int_equal(end_kid(&kid), 1000 + SIGKILL);
    }
    assert_int_equal(stat_of(&job->machine).nr_children_ended, 0);
    close_job(job);
}

/* A parent that is gone writes no more; one that goes before its child is adopted neither. */
static int orphan(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    const int *pipe = argument;
    pid_t parent = getpid();

    CHECK(memplug_space_fork_before(space, false, NULL) == 0);
    if (fork() == 0) {
        char result = memplug_space_fork_child(space) == 0;

        while (getppid() == parent)
            usleep(1000);
        result = result && words_hold(job->memory, SIZE, SEED);
        _exit(write(pipe[1], &result, 1) != 1);
    }
    if (pipe[2] != 0)
        _exit(0);
    CHECK(memplug_space_fork_parent(space) == 0);
    for (uint64_t at = 0; at < SIZE; at += 3 * PAGE)
        job->memory[at] = 1;
    _exit(0);
}

static void an_orphan_has_all(void **state)
{
    int ends[3] = {0};
    char result = 0;

    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    for (ends[2] = 0; ends[2] < 2; ends[2]++) {
        assert_int_equal(in_child(orphan, ends), 0);
        assert_int_equal(read(ends[0], &result, 1), 1);
        assert_int_equal(result, 1);
    }
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_keeps_what_it_had),
        cmocka_unit_test(without_settling_it_does_not),
        cmocka_unit_test(several_children_of_several_moments),
        cmocka_unit_test(what_moves_beside_a_child_stays_sparse),
        cmocka_unit_test(children_beside_a_writer),
        cmocka_unit_test(holes_of_several_children),
        cmocka_unit_test(what_the_forking_thread_writes),
        cmocka_unit_test(other_units_and_files),
        cmocka_unit_test(who_is_gone_gets_nothing),
        cmocka_unit_test(killed_in_the_middle),
        cmocka_unit_test(an_orphan_has_all),
    };

    return can_be_lazy() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
