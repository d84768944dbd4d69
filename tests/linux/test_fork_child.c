/* SPDX-License-Identifier: MIT */
/* Lazily forked children that fork, that are hard to find, and that keep their parent waiting. */
#define _GNU_SOURCE
#include "fork_test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define FEATURE_WP_SHMEM (1u << 12) /* newer than the headers of some distributions */

/* --- a child that forks ----------------------------------------------------------------------- */

/* Runs act in a lazily forked child. */
static int in_lazy_child(struct job *job, int (*act)(struct job *job))
{
    pid_t pid;

    fill_words(job->memory, SIZE, SEED);
    pid = fork_job(job);
    if (pid == 0)
        _exit(act(job));
    return status_of(pid);
}

static atomic_bool stop;

static void *discard_on(void *argument)
{
    struct job *job = argument;

    for (unsigned i = 0; !atomic_load(&stop); i++)
        memplug_space_child_protect(job->machine.space, job->memory + i % 8 * PAGE, PAGE,
                                    i % 3 == 0 ? PROT_READ : PROT_READ | PROT_WRITE);
    return NULL;
}

static int fork_beside_a_thread(struct job *job)
{
    struct memplug_space *space = job->machine.space;
    pthread_t thread;

    atomic_store(&stop, false);
    CHECK(pthread_create(&thread, NULL, discard_on, job) == 0);
    for (unsigned i = 0; i < 200; i++) {
        int status = 1;
        pid_t pid;

        CHECK(memplug_space_child_forks(space) == 0);
        pid = fork();
        memplug_space_child_forked(space);
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            CHECK(memplug_space_child_advise(space, job->memory + MIB, MIB, MADV_DONTNEED) == 0);
            CHECK(all_zero(job->memory + MIB, MIB));
            _exit(0);
        }
        for (unsigned tries = 0; tries < 5000 && waitpid(pid, &status, WNOHANG) == 0; tries++)
            usleep(1000);
        CHECK(kill(pid, SIGKILL) != 0 && status == 0); /* it has ended by itself */
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    return 0;
}

/* Of the other thread's call a grandchild has neither the lock nor half of the change. */
static void a_child_forks_while_another_thread_calls(void **state)
{
    struct job *job = open_lazy(NULL);

    (void)state;
    assert_int_equal(in_lazy_child(job, fork_beside_a_thread), 0);
    close_job(job);
}

/* From now on the kernel has no memory for this advice. */
static int refuse_advice(int advice, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)advice, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = 6, .filter = filter};

    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
    return 0;
}

static int fork_without_memory(struct job *job)
{
    struct memplug_space *space = job->machine.space;
    sigset_t before, after;

    sigprocmask(SIG_SETMASK, NULL, &before);
    CHECK(refuse_advice(MADV_POPULATE_WRITE, ENOMEM) == 0);
    for (unsigned i = 0; i < 3; i++)
        CHECK(memplug_space_child_forks(space) == -ENOMEM);
    CHECK(memplug_space_child_own(space, job->memory, PAGE) == -ENOMEM);
    CHECK(memplug_space_child_protect(space, job->memory, PAGE, PROT_READ) == -ENOMEM);
    *job->memory = 7; /* it was not protected */
    CHECK(memplug_space_child_unmap(space, job->memory, MIB) == 0); /* no lock is left */
    sigprocmask(SIG_SETMASK, NULL, &after);
    CHECK(memcmp(&before, &after, 8) == 0);
    return 0;
}

static void without_memory_a_child_cannot_fork(void **state)
{
    struct job *job = open_lazy(NULL);

    (void)state;
    assert_int_equal(in_lazy_child(job, fork_without_memory), 0);
    close_job(job);
}

/* --- a sandbox -------------------------------------------------------------------------------- */

#define MAY(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), \
                  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* Only what an allocator may do, as OpenSSH lets its child: two advices, and new memory. All else
 * ends it. */
static int give_back_in_sandbox(struct job *job)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        MAY(mmap), MAY(munmap), MAY(rt_sigprocmask), MAY(futex), MAY(exit_group),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_DONTNEED, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_FREE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};
    struct memplug_space *space = job->machine.space;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
        return 1;
    if (memplug_space_child_advise(space, job->memory, MIB, MADV_DONTNEED) != 0 ||
        memplug_space_child_advise(space, job->memory + MIB, MIB, MADV_FREE) != 0 ||
        memplug_space_child_unmap(space, job->memory + 2 * MIB, MIB) != 0)
        return 2;
    return all_zero(job->memory, 2 * MIB) ? 0 : 3;
}

static void memory_is_given_back_in_a_sandbox(void **state)
{
    struct job *job;

    (void)state;
    if (strcmp(SANITIZER, "none") != 0)
        SKIP("a sanitizer makes system calls of its own");
    job = open_lazy(NULL);
    assert_int_equal(in_lazy_child(job, give_back_in_sandbox), 0);
    close_job(job);
}

/* --- where a child is found ------------------------------------------------------------------- */

struct rest {
    struct job *job;
    int pipe[2];
};

static void *outlive(void *argument)
{
    struct rest *rest = argument;
    char word;

    if (read(rest->pipe[0], &word, 1) != 1)
        _exit(2);
    _exit(words_hold(rest->job->memory, SIZE, SEED) ? 0 : 1);
}

/* The first thread of the child has ended, and the parent has gone where there is no /proc. */
static int settle_from_a_cell(void *argument)
{
    struct rest rest = {.job = open_lazy(NULL)};
    char folder[] = "/tmp/memplug-test-XXXXXX";
    pthread_t thread;
    int status;
    pid_t pid;

    (void)argument;
    CHECK(pipe2(rest.pipe, O_CLOEXEC) == 0 && mkdtemp(folder));
    pid = fork_job(rest.job);
    if (pid == 0) {
        if (pthread_create(&thread, NULL, outlive, &rest) != 0)
            _exit(3);
        syscall(SYS_exit, 0);
    }
    usleep(20000); /* until it has ended */
    CHECK(chroot(folder) == 0 && chdir("/") == 0);
    write_all(rest.job);
    CHECK(write(rest.pipe[1], "x", 1) == 1);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(stat_of(&rest.job->machine).nr_children_ended == 0);
    close_job(rest.job);
    return 0;
}

static void a_child_without_its_first_thread(void **state)
{
    (void)state;
    if (getuid() != 0)
        SKIP("chroot needs root");
    assert_int_equal(in_child(settle_from_a_cell, NULL), 0);
}

/* --- what a child becomes --------------------------------------------------------------------- */

struct fate {
    bool (*become)(void);          /* in the child */
    bool (*befall)(pid_t pid);     /* in the parent; may be null */
    void (*release)(void);         /* likewise */
    bool may_end;                  /* its copy cannot be had */
};

static bool become_strict(void)
{
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0;
}

static bool become_bound(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0;
}

static bool become_small(void)
{
    struct rlimit none = {0, 0};

    return setrlimit(RLIMIT_AS, &none) == 0 && setrlimit(RLIMIT_DATA, &none) == 0;
}

static pid_t tracer;

/* By another process, stopped. */
static bool befall_tracer(pid_t pid)
{
    int ends[2];
    char word;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    tracer = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (tracer == 0) {
        bool traced = ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0 &&
                      ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0 &&
                      waitpid(pid, NULL, __WALL) == pid;

        word = traced ? 'x' : '?';
        if (write(ends[1], &word, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    return read(ends[0], &word, 1) == 1 && word == 'x' && close(ends[0]) == 0 &&
           close(ends[1]) == 0;
}

static void release_tracer(void)
{
    kill(tracer, SIGKILL);
    waitpid(tracer, NULL, 0);
}

#define GROUP "/sys/fs/cgroup/memory/memplug-test"

static bool put_word(const char *path, const char *word)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, word, strlen(word)) == (ssize_t)strlen(word);

    if (fd >= 0)
        close(fd);
    return done;
}

/* All that it may have it has already, and the kernel is not to end it for that. */
static bool become_poor(void)
{
    return put_word(GROUP "/cgroup.procs", "0") && put_word(GROUP "/memory.oom_control", "1") &&
           put_word(GROUP "/memory.limit_in_bytes", "1048576");
}

static void play_fate(const struct fate *fate)
{
    struct job *job = open_lazy(NULL);
    int ready[2], go[2], status;
    bool right, ended;
    char word;
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    pid = fork_job(job);
    if (pid == 0) {
        right = fate->become() && write(ready[1], "x", 1) == 1 && read(go[0], &word, 1) == 1 &&
                words_hold(job->memory, SIZE, SEED);
        syscall(SYS_exit, right ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &word, 1), 1);
    assert_true(!fate->befall || fate->befall(pid));
    write_all(job);
    if (fate->release)
        fate->release();
    assert_int_equal(write(go[1], "x", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    ended = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    assert_true(fate->may_end ? ended : status == 0);
    assert_int_equal(stat_of(&job->machine).nr_children_ended, ended);
    for (unsigned i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
    close_job(job);
}

static void whatever_becomes_of_a_child(void **state)
{
    static const struct fate fates[] = {
        {.become = become_strict},
        {.become = become_bound},
        {.become = become_small},
        {.become = become_bound, .befall = befall_tracer, .release = release_tracer},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(fates) / sizeof(fates[0]); i++)
        play_fate(&fates[i]);
}

static void who_may_not_have_its_copy_ends(void **state)
{
    const struct fate fate = {.become = become_poor, .may_end = true};

    (void)state;
    if (mkdir(GROUP, 0700) != 0)
        SKIP("no control group can be made (of version 1)");
    play_fate(&fate);
    assert_int_equal(rmdir(GROUP), 0);
}

/* --- a userfaultfd of the child's ------------------------------------------------------------- */

/* Nobody answers its faults. Pages that are not there are marked, or a touch is a fault. Less than
 * 0: it cannot be had. */
static int enroll(struct job *job, uint64_t mode)
{
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                                                          FEATURE_WP_SHMEM};
    struct uffdio_register reg = {.range = {.start = (uintptr_t)job->memory, .len = SIZE},
                                  .mode = mode};
    struct uffdio_writeprotect wp = {.range = reg.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};

    bool done = uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0 &&
                ioctl(uffd, UFFDIO_REGISTER, &reg) == 0 &&
                (mode != UFFDIO_REGISTER_MODE_WP || ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) == 0);

    return done ? uffd : -1;
}

/* It is ended, by whom its parent's copy waits for, and not left to see what its parent writes. */
static void who_keeps_its_parent_waiting_ends(void **state)
{
    static const uint64_t modes[] = {UFFDIO_REGISTER_MODE_WP, UFFDIO_REGISTER_MODE_MINOR};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct job *job = open_lazy(NULL);
        int ends[2];
        char word;
        pid_t pid;

        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        pid = fork_job(job);
        if (pid == 0) {
            if (enroll(job, modes[i]) < 0 || write(ends[1], "x", 1) != 1)
                _exit(1);
            for (;;)
                pause();
        }
        assert_int_equal(read(ends[0], &word, 1), 1);
        write_all(job);
        assert_int_equal(status_of(pid), 1000 + SIGKILL);
        assert_int_equal(stat_of(&job->machine).nr_children_ended, 1);
        close(ends[0]);
        close(ends[1]);
        close_job(job);
    }
}

/* Stops its parent for longer than a child may keep it waiting. */
static void stop_parent(void)
{
    pid_t parent = getppid();

    sleep(1);
    kill(parent, SIGSTOP);
    sleep(11);
    kill(parent, SIGCONT);
    _exit(0);
}

/* The child answers after 14 s, 12 of which its parent has been stopped. */
static int stopped_meanwhile(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct kid kid;
    int pair[2];

    (void)argument;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    kid.pid = fork_job(job);
    if (kid.pid == 0) {
        int uffd = enroll(job, UFFDIO_REGISTER_MODE_MINOR);

        if (uffd < 0 || write(pair[1], "x", 1) != 1)
            _exit(1);
        sleep(14);
        close(uffd);
        live(job, pair[1], SEED);
    }
    kid.socket = pair[0];
    close(pair[1]);
    CHECK(read(kid.socket, &(char){0}, 1) == 1);
    if (fork() == 0)
        stop_parent();
    write_all(job);
    CHECK(stat_of(&job->machine).nr_children_ended == 0);
    CHECK(ask(&kid, IS_AS_FORKED) == 0 && end_kid(&kid) == 0);
    close_job(job);
    return 0;
}

static void time_in_which_its_parent_is_stopped_does_not_count(void **state)
{
    (void)state;
    assert_int_equal(in_child(stopped_meanwhile, NULL), 0);
}

/* --- a sibling of its parent's ---------------------------------------------------------------- */

/* Who looks for its child does not find it. */
static int clone_sibling(void *argument)
{
    struct job *job = open_lazy(NULL);
    struct memplug_space *space = job->machine.space;
    struct kid kid;
    int pair[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(memplug_space_fork_before(space, false, NULL) == 0);
    kid.pid = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
    if (kid.pid == 0) {
        close(pair[0]);
        if (memplug_space_fork_child(space) != 0)
            _exit(125);
        live(job, pair[1], SEED);
    }
    *(pid_t *)argument = kid.pid;
    CHECK(memplug_space_fork_parent(space) == 0);
    close(pair[1]);
    kid.socket = pair[0];
    write_all(job);
    CHECK(ask(&kid, IS_AS_FORKED) == 0);
    CHECK(ask(&kid, FORK) == 0);
    put(&kid, LEAVE);
    close_job(job);
    return 0;
}

static void a_sibling_has_all_its_own(void **state)
{
    pid_t *sibling = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;

    (void)state;
    assert_true(sibling != MAP_FAILED);
    assert_int_equal(in_child(clone_sibling, sibling), 0);
    assert_int_equal(waitpid(*sibling, &status, 0), *sibling);
    assert_int_equal(status, 0);
    munmap(sibling, PAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_forks_while_another_thread_calls),
        cmocka_unit_test(without_memory_a_child_cannot_fork),
        cmocka_unit_test(memory_is_given_back_in_a_sandbox),
        cmocka_unit_test(a_child_without_its_first_thread),
        cmocka_unit_test(whatever_becomes_of_a_child),
        cmocka_unit_test(who_may_not_have_its_copy_ends),
        cmocka_unit_test(who_keeps_its_parent_waiting_ends),
        cmocka_unit_test(time_in_which_its_parent_is_stopped_does_not_count),
        cmocka_unit_test(a_sibling_has_all_its_own),
    };

    return can_be_lazy() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
