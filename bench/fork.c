/* SPDX-License-Identifier: MIT */
/*
 * What a fork costs a program with 256 MiB in movable mappings, of which all is used: shared until
 * somebody writes ("lazy"), copied beforehand ("copied"), and beside it, in the same round, as much
 * of a private mapping of the kernel's ("native"). And what the first write to a page costs while
 * the child lives: to one in each 64 KiB, which waits, and on average, one page after the other.
 */
#define _GNU_SOURCE
#include "pool.h"
#include "worker.h"

#include <memplug/space.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE_BYTES (256ull << 20)
#define PAGE 4096ull
#define STEP (64ull << 10)
#define NR_STEPS (SIZE_BYTES / STEP / 2)

enum way { LAZY, COPIED, NATIVE, NR_WAYS };
static const char *const names[NR_WAYS] = {"lazy", "copied", "native"};

static struct memplug_space *spaces[NR_WAYS];
static char *memory[NR_WAYS];
static struct worker_median forks[NR_WAYS], execs[NR_WAYS], writes[NR_WAYS], discards[NR_WAYS];
static double steps[NR_STEPS];

static pid_t fork_way(enum way way)
{
    struct memplug_reason reason;
    pid_t pid;

    if (spaces[way])
        bench_must(memplug_space_fork_before(spaces[way], false, &reason), &reason);
    pid = fork();
    if (pid < 0)
        worker_die("no fork");
    if (spaces[way] && (pid == 0 ? memplug_space_fork_child(spaces[way])
                                 : memplug_space_fork_parent(spaces[way])) != 0)
        pid == 0 ? _exit(125) : worker_die("a child could not be adopted");
    return pid;
}

static void measure_exec(enum way way)
{
    uint64_t start = worker_wall_ns();
    pid_t pid = fork_way(way);

    if (pid == 0) {
        execl("/bin/true", "true", NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
    worker_add(&execs[way], (double)(worker_wall_ns() - start));
}

static void write_steps(enum way way)
{
    for (uint64_t i = 0; i < NR_STEPS; i++) {
        uint64_t start = worker_wall_ns();

        *(volatile char *)(memory[way] + i * STEP) = 1;
        steps[i] = (double)(worker_wall_ns() - start);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void say(const char *what, enum way way, double value)
{
    char name[64] = "";

    strcat(strcat(strcat(name, what), "-"), names[way]);
    worker_say(name, value);
}

static void measure(enum way way)
{
    const uint64_t half = SIZE_BYTES / 2, quarter = half / 2;
    uint64_t start = worker_wall_ns();
    pid_t pid = fork_way(way);

    if (pid == 0)
        for (;;)
            pause();
    worker_add(&forks[way], (double)(worker_wall_ns() - start));
    write_steps(way);
    start = worker_wall_ns();
    for (uint64_t at = half; at < half + quarter; at += PAGE)
        *(volatile char *)(memory[way] + at) = 1;
    worker_add(&writes[way], (double)(worker_wall_ns() - start) / (double)(quarter / PAGE));
    start = worker_wall_ns();
    if (spaces[way])
        bench_must(memplug_discard(spaces[way], memory[way] + half + quarter, quarter), NULL);
    else
        madvise(memory[way] + half + quarter, quarter, MADV_DONTNEED);
    worker_add(&discards[way], (double)(worker_wall_ns() - start) / (double)(quarter / PAGE));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    memset(memory[way], 3, SIZE_BYTES);
    qsort(steps, NR_STEPS, sizeof(*steps), compare);
    say("write-p50", way, steps[NR_STEPS / 2]);
    say("write-p99", way, steps[NR_STEPS * 99 / 100]);
}

/* Each in turn; of the others' memory a child gets nothing. */
static void run_command(int nr_words, char **words)
{
    (void)nr_words;
    (void)words;
    for (unsigned i = 0; i < NR_WAYS; i++) {
        if (i == NATIVE)
            madvise(memory[i], SIZE_BYTES, MADV_DOFORK);
        for (unsigned round = 0; round < 3; round++)
            measure_exec(i);
        measure(i);
        if (i == NATIVE)
            madvise(memory[i], SIZE_BYTES, MADV_DONTFORK);
        say("fork", i, worker_median(&forks[i]));
        say("exec", i, worker_median(&execs[i]));
        say("write", i, worker_median(&writes[i]));
        say("discard", i, worker_median(&discards[i]));
    }
}

int main(void)
{
    struct memplug *pool = bench_pool_linux(8 * BENCH_BLOCK_BYTES, true);
    struct memplug_reason reason;

    bench_pool_plug(pool, MEMPLUG_MEMMAP_BLOCK, 8 * BENCH_BLOCK_BYTES);
    for (unsigned i = 0; i < NR_WAYS; i++) {
        void *address = MAP_FAILED;

        if (i == NATIVE) {
            address = mmap(NULL, SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                           -1, 0);
            if (address == MAP_FAILED)
                worker_die("no memory");
            madvise(address, SIZE_BYTES, MADV_DONTFORK);
            madvise(address, SIZE_BYTES, MADV_NOHUGEPAGE);
        } else {
            bench_must(memplug_space_open(bench_pool_linux_host(), pool, NULL, &spaces[i], &reason),
                       &reason);
            bench_must(memplug_map(spaces[i], SIZE_BYTES, NULL, &address, &reason), &reason);
        }
        memory[i] = address;
        memset(address, 3, SIZE_BYTES);
    }
    bench_must(memplug_space_fork_lazily(spaces[LAZY], NULL, &reason), &reason);
    return worker_loop(run_command);
}
