/* SPDX-License-Identifier: MIT */
/*
 * What the tests of lazy forks have in common: a child that shares its parent's memory until
 * somebody writes, and waits for questions on a socket, while its parent writes, gives back and
 * moves what both read.
 */
#ifndef FORK_TEST_H
#define FORK_TEST_H

#include "space_test.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define SIZE (16 * MIB)
#define SEED 4

struct job {
    struct machine machine;
    char *memory;
};

static inline struct job *open_config(enum memplug_backing_kind kind, int fd,
                               const struct memplug_space_config *config)
{
    static struct job job;

    assert_int_equal(machine_open(&job.machine, kind, 2, fd, config), 0);
    assert_int_equal(memplug_map(job.machine.space, SIZE, NULL, (void **)&job.memory, NULL), 0);
    fill_words(job.memory, SIZE, SEED);
    return &job;
}

static inline struct job *open_lazy(const struct memplug_space_config *config)
{
    struct job *job = open_config(MEMPLUG_BACKING_MEMFD, -1, config);

    assert_int_equal(memplug_space_fork_lazily(job->machine.space, NULL, &job->machine.reason), 0);
    return job;
}

static inline void close_job(struct job *job)
{
    assert_int_equal(memplug_unmap(job->machine.space, job->memory, SIZE), 0);
    assert_int_equal(machine_close(&job->machine), 0);
}

/* --- a child that answers --------------------------------------------------------------------- */

struct kid {
    pid_t pid;
    int socket;
};

enum { IS_AS_FORKED, IS_OWN, IS_ZERO, IS_SPARSE, IS_THE_SAME, WRITE_ALL, UNMAP_HALF, MOVE_HALF,
       PROTECT, PROTECT_OWN, HIDE, HIDE_OWN, DISCARD, DISCARD_RAW, FORK, FORK_RAW, EXEC, LEAVE };

static inline int fork_and_look(struct job *job, bool raw, uint64_t seed)
{
    int status;
    pid_t pid;

    signal(SIGSEGV, SIG_DFL);
    if (!raw && memplug_space_child_forks(job->machine.space) != 0)
        return 2;
    pid = raw ? (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) : fork();
    if (!raw)
        memplug_space_child_forked(job->machine.space);
    if (pid == 0)
        syscall(SYS_exit, words_hold(job->memory, SIZE, seed) ? 0 : 1);
    status = status_of(pid);
    return raw ? status != 1000 + SIGSEGV : status;
}

static inline uint64_t sum_of(const struct job *job)
{
    const uint64_t *words = (const uint64_t *)(const void *)job->memory;
    uint64_t sum = 1;

    for (uint64_t i = 0; i < SIZE / 8; i++)
        sum = (sum ^ words[i]) * 1099511628211u;
    return sum;
}

/* 0: as it should be. */
static inline int answer(struct job *job, int question, uint64_t seed)
{
    struct memplug_space *space = job->machine.space;
    static char *elsewhere;
    static uint64_t sum;
    uint64_t now;

    switch (question) {
    case IS_AS_FORKED:
    case IS_OWN:
        return words_hold(job->memory, SIZE, question == IS_OWN ? 77 : seed) ? 0 : 1;
    case IS_ZERO:
    case IS_SPARSE:
        return (question == IS_ZERO ? all_zero : is_sparse)(job->memory, SIZE) ? 0 : 1;
    case IS_THE_SAME: /* as it was at the first time */
        now = sum_of(job);
        sum = sum ? sum : now;
        return sum == now ? 0 : 1;
    case WRITE_ALL:
        fill_words(job->memory, SIZE, 77);
        return 0;
    case UNMAP_HALF:
        if (memplug_space_child_unmap(space, job->memory, SIZE / 2) != 0)
            return 1;
        if (mmap(job->memory, MIB, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != job->memory)
            return 2;
        *job->memory = 5; /* which is no memory of the parent's */
        if (memplug_space_child_advise(space, job->memory, MIB, MADV_DONTNEED) != 0)
            return 4;
        return *job->memory == 5 ? 0 : 3;
    case MOVE_HALF: /* behind the library's back; then what is there */
        if (!elsewhere) {
            elsewhere = mmap(NULL, SIZE / 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            return mremap(job->memory, SIZE / 2, SIZE / 2, MREMAP_MAYMOVE | MREMAP_FIXED,
                          elsewhere) == elsewhere ? 0 : 1;
        }
        return words_hold(elsewhere, SIZE / 2, seed) ? 0 : 2;
    case PROTECT_OWN:
        return memplug_space_child_protect(space, job->memory, SIZE / 2, PROT_READ);
    case PROTECT:
        return mprotect(job->memory, SIZE / 2, PROT_READ);
    case HIDE_OWN:
        memplug_space_child_hides(space);
        /* fall through */
    case HIDE:
        return prctl(PR_SET_DUMPABLE, 0);
    case DISCARD:
        return memplug_space_child_advise(space, job->memory + MIB, MIB, MADV_DONTNEED) != 0 ||
               !all_zero(job->memory + MIB, MIB);
    case DISCARD_RAW:
        return madvise(job->memory + MIB, MIB, MADV_DONTNEED) != 0 ||
               !all_zero(job->memory + MIB, MIB);
    case FORK:
    case FORK_RAW:
        return fork_and_look(job, question == FORK_RAW, seed);
    default:
        return 1;
    }
}

static inline void live(struct job *job, int socket, uint64_t seed)
{
    int question, result;

    while (read(socket, &question, sizeof(question)) == (ssize_t)sizeof(question)) {
        if (question == LEAVE)
            break;
        if (question == EXEC)
            execl("/bin/sleep", "sleep", "60", NULL);
        result = answer(job, question, seed);
        if (write(socket, &result, sizeof(result)) != (ssize_t)sizeof(result))
            break;
    }
    _exit(0);
}

/* As a program's fork(): 0 in the child, which has its memory. */
static inline pid_t fork_job(struct job *job)
{
    struct memplug_space *space = job->machine.space;
    pid_t pid;

    fflush(stdout);
    assert_int_equal(memplug_space_fork_before(space, false, &job->machine.reason), 0);
    pid = fork();
    if (pid == 0 && memplug_space_fork_child(space) != 0)
        _exit(125);
    if (pid != 0)
        assert_int_equal(memplug_space_fork_parent(space), 0);
    assert_true(pid >= 0);
    return pid;
}

/* seed: of what it should see. */
static inline struct kid fork_kid(struct job *job, uint64_t seed)
{
    struct kid kid;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    kid.pid = fork_job(job);
    if (kid.pid == 0) {
        close(pair[0]);
        live(job, pair[1], seed);
    }
    close(pair[1]);
    kid.socket = pair[0];
    return kid;
}

static inline void put(const struct kid *kid, int question)
{
    assert_int_equal(write(kid->socket, &question, sizeof(question)), sizeof(question));
}

static inline int ask(const struct kid *kid, int question)
{
    int result = -1;

    put(kid, question);
    return read(kid->socket, &result, sizeof(result)) == (ssize_t)sizeof(result) ? result : -1;
}

static inline int end_kid(struct kid *kid)
{
    int question = LEAVE;

    if (send(kid->socket, &question, sizeof(question), MSG_NOSIGNAL) < 0)
        errno = 0;
    close(kid->socket);
    return status_of(kid->pid);
}

/* --- what the parent does --------------------------------------------------------------------- */

static inline void write_one(struct job *job)
{
    for (uint64_t at = 0; at < SIZE; at += PAGE)
        *(volatile char *)(job->memory + at) = (char)at;
}

static inline void write_all(struct job *job)
{
    fill_words(job->memory, SIZE, 9);
    assert_true(words_hold(job->memory, SIZE, 9));
}

static inline void discard(struct job *job)
{
    assert_int_equal(memplug_discard(job->machine.space, job->memory, SIZE), 0);
    assert_true(all_zero(job->memory, SIZE));
}

static inline void unmap(struct job *job)
{
    assert_int_equal(memplug_unmap(job->machine.space, job->memory, SIZE), 0);
    assert_int_equal(memplug_map(job->machine.space, SIZE, NULL, (void **)&job->memory, NULL), 0);
    fill_words(job->memory, SIZE, 11);
}

/* The kernel writes, in a system call. */
static inline void read_into(struct job *job)
{
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

    assert_int_equal(read(zero, job->memory + 100, SIZE - 200), SIZE - 200);
    close(zero);
    assert_true(all_zero(job->memory + 104, SIZE - 208));
}

static inline void populate(struct job *job)
{
    assert_int_equal(memplug_advise(job->machine.space, job->memory, SIZE, MADV_POPULATE_WRITE), 0);
    write_all(job);
}

static inline void move(struct job *job)
{
    struct machine *machine = &job->machine;
    uint64_t before = stat_of(machine).nr_moves;

    for (unsigned i = 0; i < 4 && memplug_space_movable(machine->space, NULL) == 0; i++) {
        assert_int_equal(machine_offline(machine, i % 2, 5), 0);
        assert_int_equal(machine_online(machine, i % 2), 0);
    }
    assert_true(stat_of(machine).nr_moves > before ||
                memplug_space_movable(machine->space, NULL) != 0);
    fill_words(job->memory, SIZE, 13);
}

static inline void protect(struct job *job)
{
    assert_int_equal(memplug_protect(job->machine.space, job->memory + MIB, MIB, PROT_READ), 0);
    assert_int_equal(memplug_protect(job->machine.space, job->memory + MIB, MIB,
                                     PROT_READ | PROT_WRITE), 0);
    write_all(job);
}

static void (*const acts[])(struct job *job) = {write_one, write_all, discard,  unmap,
                                                read_into, populate,  move,     protect};

#define NR_ACTS (sizeof(acts) / sizeof(acts[0]))

#endif
