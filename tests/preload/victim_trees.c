/* SPDX-License-Identifier: MIT */
/*
 * Trees of processes that share a heap: each has what its parent had when it was forked, whatever
 * its parent, its children and their threads write, discard, protect and move afterwards; some are
 * stopped, some killed, some become another program. victim_trees SEED [bare]: children discard by
 * system calls of their own, and that must be seen.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR_SLOTS 48u
#define SLOT_BYTES (24u * (size_t)PAGE)
#define NR_CHILDREN 4u
#define DEPTH 3u

/* A slot holds one word all over; what that is stands in memory that is no heap. */
static uint64_t *slots[NR_SLOTS];
static uint64_t words[NR_SLOTS];
static pthread_mutex_t slot_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned depth, seed;
static atomic_bool stop;
static bool bare;

static unsigned draw(unsigned *from, unsigned limit)
{
    return (unsigned)rand_r(from) % limit;
}

static void look(unsigned slot)
{
    for (size_t i = 0; i < SLOT_BYTES / 8; i++)
        CHECK(slots[slot][i] == words[slot]);
}

static void fill(unsigned slot, uint64_t word)
{
    for (size_t i = 0; i < SLOT_BYTES / 8; i++)
        slots[slot][i] = word;
    words[slot] = word;
}

/* Also by the call that takes a process: of oneself, where the kernel lets one (Linux 6.13). */
static void discard(unsigned slot, bool by_process)
{
    const struct iovec part = {.iov_base = slots[slot], .iov_len = SLOT_BYTES};
    int self = by_process && depth > 0 ? (int)syscall(SYS_pidfd_open, getpid(), 0) : -1;

    if (self >= 0 && process_madvise(self, &part, 0, MADV_DONTNEED, 0) == 0)
        CHECK(process_madvise(self, &part, 1, MADV_DONTNEED, 0) == (ssize_t)SLOT_BYTES);
    else if (bare && depth > 0)
        CHECK(syscall(SYS_madvise, slots[slot], SLOT_BYTES, MADV_DONTNEED) == 0);
    else
        CHECK(madvise(slots[slot], SLOT_BYTES, MADV_DONTNEED) == 0);
    if (self >= 0)
        close(self);
    words[slot] = 0;
}

static void change(unsigned slot, unsigned *from)
{
    void *moved;

    look(slot);
    switch (draw(from, 6)) {
    case 0:
        discard(slot, draw(from, 2) == 0);
        break;
    case 1:
        CHECK(mprotect(slots[slot], SLOT_BYTES, PROT_READ) == 0);
        look(slot);
        CHECK(mprotect(slots[slot], SLOT_BYTES, PROT_READ | PROT_WRITE) == 0);
        break;
    case 2: /* what is left of the heap there is nobody's any more */
        moved = depth == 0 ? slots[slot] : mremap(slots[slot], SLOT_BYTES, SLOT_BYTES + 8 * PAGE,
                                                  MREMAP_MAYMOVE);
        CHECK(moved != MAP_FAILED);
        slots[slot] = moved;
        break;
    default:
        fill(slot, ((uint64_t)getpid() << 32) | (unsigned)rand_r(from));
        break;
    }
    look(slot);
}

static void *change_on(void *argument)
{
    unsigned own = seed + 77;

    while (!atomic_load(&stop)) {
        pthread_mutex_lock(&slot_lock);
        change(draw(&own, NR_SLOTS), &own);
        pthread_mutex_unlock(&slot_lock);
    }
    return argument;
}

static void live(void);

static pid_t make_child(void)
{
    unsigned next = (unsigned)rand_r(&seed);
    pid_t pid;

    pthread_mutex_lock(&slot_lock);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        depth++;
        seed = next;
        pthread_mutex_unlock(&slot_lock);
        live();
        _exit(0);
    }
    pthread_mutex_unlock(&slot_lock);
    CHECK(pid > 0);
    return pid;
}

/* Stopped for a moment while its parent goes on, or killed. */
static void end_child(pid_t pid)
{
    bool killed = draw(&seed, 4) == 0;
    int status;

    if (draw(&seed, 2) == 0) {
        kill(pid, SIGSTOP);
        usleep(draw(&seed, 3000));
        kill(pid, SIGCONT);
    }
    if (killed)
        kill(pid, SIGKILL);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(status == 0 || (killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
}

static void live_once(void)
{
    pid_t pids[NR_CHILDREN];
    unsigned nr = depth < DEPTH ? 1 + draw(&seed, NR_CHILDREN - depth) : 0;

    for (unsigned i = 0; i < nr; i++) {
        pids[i] = make_child();
        pthread_mutex_lock(&slot_lock);
        for (unsigned j = 0; j < 6; j++)
            change(draw(&seed, NR_SLOTS), &seed);
        pthread_mutex_unlock(&slot_lock);
    }
    for (unsigned i = 0; i < nr; i++)
        end_child(pids[i]);
}

static void live(void)
{
    bool threads = draw(&seed, 2) == 0;
    pthread_t thread;

    if (depth > 0 && draw(&seed, 8) == 0)
        execl("/bin/true", "true", NULL);
    atomic_store(&stop, false);
    CHECK(!threads || pthread_create(&thread, NULL, change_on, NULL) == 0);
    for (unsigned i = 0; i < 2; i++)
        live_once();
    atomic_store(&stop, true);
    CHECK(!threads || pthread_join(thread, NULL) == 0);
    for (unsigned slot = 0; slot < NR_SLOTS; slot++)
        look(slot);
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
    bare = argc > 2;
    for (unsigned i = 0; i < NR_SLOTS; i++) {
        CHECK(posix_memalign((void **)&slots[i], PAGE, SLOT_BYTES) == 0);
        fill(i, i);
    }
    for (unsigned round = 0; round < 3 || !moved_enough(); round++)
        live();
    return 0;
}
