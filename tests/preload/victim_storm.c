/* SPDX-License-Identifier: MIT */
/* Programs that change who they are while their children live; and one that does all at once. */
#define _GNU_SOURCE
#include "victim.h"

#include <dirent.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define NOBODY 65534
#define NR_THREADS 3u
#define NR_BUFFERS 48u
#define NR_KIDS 4u
#define NR_FORKS 20u /* of each thread, at least */

/* --- another user ----------------------------------------------------------------------------- */

static pid_t fork_looking(int ends[2])
{
    pid_t pid;
    char word;

    CHECK(pipe(ends) == 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(ends[1]);
        check_objects();
        CHECK(read(ends[0], &word, 1) == 0); /* the parent has written */
        check_objects();
        _exit(0);
    }
    close(ends[0]);
    return pid;
}

static unsigned count_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    unsigned nr = 0;

    CHECK(tasks);
    while (readdir(tasks))
        nr++;
    closedir(tasks);
    return nr;
}

/* May be called where no thread can be made. */
static void fork_raw(void)
{
    unsigned before = count_threads();
    pid_t pid = _Fork();
    int status;

    if (pid == 0) {
        check_objects();
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(count_threads() == before);
}

/* Whose child stays what it was, and out of its reach. */
int test_drops(void)
{
    int ends[2][2], status;
    pid_t pids[2];

    make_objects();
    while (!moved_enough())
        check_objects();
    fork_raw();
    if (getuid() != 0)
        return 0;
    for (unsigned i = 0; i < 2; i++) {
        pids[i] = fork_looking(ends[i]);
        if (i == 0)
            CHECK(setresuid(NOBODY, NOBODY, 0) == 0); /* the mover's report is root's */
        for (unsigned j = 0; j < NR_OBJECTS; j++)
            memset(objects[j], 0xdd, OBJECT_BYTES);
        close(ends[i][1]);
        CHECK(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
        for (unsigned j = 0; j < NR_OBJECTS; j++)
            memset(objects[j], (int)j + 1, OBJECT_BYTES);
    }
    CHECK(setresuid(0, 0, 0) == 0);
    return 0;
}

/* --- all at once ------------------------------------------------------------------------------ */

struct buffer {
    uint64_t *words;
    size_t nr;
    uint64_t seed;
};

struct worker {
    unsigned number, seed, nr_forks;
    struct buffer buffers[NR_BUFFERS];
    pid_t kids[NR_KIDS];
};

static atomic_bool stop;

static unsigned draw(struct worker *worker, unsigned below)
{
    return (unsigned)rand_r(&worker->seed) % below;
}

static void write_buffer(struct buffer *buffer, uint64_t seed)
{
    buffer->seed = seed;
    for (size_t i = 0; i < buffer->nr; i++)
        buffer->words[i] = seed + i;
}

static void check_buffer(const struct buffer *buffer)
{
    for (size_t i = 0; i < buffer->nr; i++)
        CHECK(buffer->words[i] == buffer->seed + i);
}

static void check_buffers(const struct worker *worker)
{
    for (unsigned i = 0; i < NR_BUFFERS; i++)
        check_buffer(&worker->buffers[i]);
}

static void renew(struct worker *worker, struct buffer *buffer)
{
    free(buffer->words);
    buffer->nr = 1 + draw(worker, draw(worker, 4) == 0 ? 100000 : 5000);
    buffer->words = malloc(buffer->nr * sizeof(*buffer->words));
    CHECK(buffer->words);
    write_buffer(buffer, (uint64_t)draw(worker, INT32_MAX) << 20);
}

/* Whole pages of it, which read as zeros then. */
static void discard(struct buffer *buffer)
{
    uintptr_t from = ((uintptr_t)buffer->words + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    uintptr_t to = (uintptr_t)(buffer->words + buffer->nr) & ~(uintptr_t)(PAGE - 1);

    if (from < to) {
        CHECK(madvise((void *)from, to - from, MADV_DONTNEED) == 0);
        for (uint64_t *word = (void *)from; word < (uint64_t *)to; word++)
            CHECK(*word == 0);
    }
    write_buffer(buffer, buffer->seed ^ 0xabcdef);
}

static void reap(pid_t *kid)
{
    int status = 0;

    if (*kid == 0)
        return;
    CHECK(waitpid(*kid, &status, 0) == *kid);
    if (status != 0)
        fprintf(stderr, "child ended with 0x%x\n", (unsigned)status);
    CHECK(status == 0);
    *kid = 0;
}

/* What its thread alone had written is as it was then, and stays so. */
static void live(struct worker *worker)
{
    check_buffers(worker);
    usleep(draw(worker, 20000));
    check_buffers(worker);
    for (unsigned i = 0; i < 5; i++)
        renew(worker, &worker->buffers[draw(worker, NR_BUFFERS)]);
    check_buffers(worker);
    _exit(0);
}

static void fork_one(struct worker *worker)
{
    pid_t *kid = &worker->kids[worker->nr_forks++ % NR_KIDS];

    reap(kid);
    *kid = fork();
    CHECK(*kid >= 0);
    if (*kid == 0)
        live(worker);
}

static void change_who(struct worker *worker)
{
    if (worker->number == 0)
        CHECK(prctl(PR_SET_DUMPABLE, draw(worker, 2)) == 0);
    else
        CHECK(seteuid(geteuid()) == 0);
}

static void *work(void *argument)
{
    struct worker *worker = argument;

    while (!atomic_load(&stop) || worker->nr_forks < NR_FORKS) {
        struct buffer *buffer = &worker->buffers[draw(worker, NR_BUFFERS)];

        check_buffer(buffer);
        switch (draw(worker, 12)) {
        case 0:
            fork_one(worker);
            break;
        case 1:
            change_who(worker);
            break;
        case 2:
        case 3:
            discard(buffer);
            break;
        case 4:
        case 5:
        case 6:
            renew(worker, buffer);
            break;
        default:
            write_buffer(buffer, buffer->seed + 1);
        }
    }
    for (unsigned i = 0; i < NR_KIDS; i++)
        reap(&worker->kids[i]);
    check_buffers(worker);
    return NULL;
}

/* Under the C library's lock of all streams, which fork() takes too. */
static void *open_streams(void *argument)
{
    while (!atomic_load(&stop)) {
        FILE *stream = fopen("/dev/null", "re");

        CHECK(stream && fclose(stream) == 0);
    }
    return argument;
}

/* So that it matters whether it is dumpable. */
static void drop_trace(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1u << CAP_SYS_PTRACE);
    data[0].permitted &= ~(1u << CAP_SYS_PTRACE);
    CHECK(syscall(SYS_capset, &header, data) == 0);
}

/* Threads that fork, discard, free and change who they are, and none waits for another. */
int test_storm(void)
{
    static struct worker workers[NR_THREADS];
    const char *seed = getenv("VICTIM_SEED");
    pthread_t threads[NR_THREADS], opener;
    pid_t first;

    drop_trace();
    first = fork(); /* at which it is seen whether children can be reached */
    if (first == 0)
        _exit(0);
    reap(&first);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        workers[i].number = i;
        workers[i].seed = (seed ? (unsigned)atoi(seed) : (unsigned)getpid()) * 31 + i;
        for (unsigned j = 0; j < NR_BUFFERS; j++)
            renew(&workers[i], &workers[i].buffers[j]);
        CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    CHECK(pthread_create(&opener, NULL, open_streams, NULL) == 0);
    while (!moved_enough())
        usleep(10000);
    atomic_store(&stop, true);
    pthread_join(opener, NULL);
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
