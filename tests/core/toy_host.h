/* SPDX-License-Identifier: MIT */
/*
 * A host that only writes down what it is asked for. It has no memory behind its direct map, so a
 * pool of any size can be placed; the memmap window is a reservation that may be written. With an
 * inner host it passes every call on, so that what is written down has really been done.
 *
 * Used by the tests of single core files; what needs a whole machine uses hosts/fake.
 */
#ifndef TOY_HOST_H
#define TOY_HOST_H

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memplug/memplug.h>

#include "core.h"

enum toy_operation { TOY_ATTACH, TOY_ALIAS, TOY_PROVIDE, TOY_GET, TOY_DETACH, TOY_UNMAP, TOY_PUT };

struct toy_call {
    enum toy_operation operation;
    uint64_t offset;     /* in the memmap window */
    uint64_t address;    /* of frames */
    uint64_t size_bytes;
    uint64_t unit_bytes; /* of a mapping; of attach: its memmap_bytes */
    uint64_t altmap_alloc; /* of attach and detach: the unit's counter at that time */
};

#define TOY_CALLS_MAX 512u

struct toy_host {
    struct memplug_host host; /* the one that the pool uses */
    const struct memplug_host *inner;
    void *backing;            /* of what toy_add() adds; the toy itself at first */
    uint64_t alignment_bytes; /* of every backing; the page at first */
    uint64_t now_ns, clock_step_ns;
    unsigned fail_at; /* this one of the calls written down fails, from 1; 0: none */
    struct toy_call calls[TOY_CALLS_MAX];
    unsigned nr_calls;
    uint64_t memory_bytes; /* out with the core */
    bool locked;
    struct memplug *pool;
    void *metadata;
    void *window;
    uint64_t window_bytes;
};

/* 4 KiB pages, pageblocks of 64 pages, 1 MiB blocks, 64 of them; small enough to enumerate. */
struct memplug_geometry toy_geometry(void);

/* Open a pool with so many nodes on the toy. inner may be null. Fails the test if it cannot. */
void toy_open(struct toy_host *toy, const struct memplug_geometry *geometry, unsigned nr_nodes,
              const struct memplug_host *inner);

/* The pool is empty by now; fails the test if it has left anything. */
void toy_close(struct toy_host *toy);

/* Take every block offline, remove it, and close. */
void toy_empty(struct toy_host *toy);

/* The pool ends whatever a test has written into it; it must not have memory of the host. */
void toy_abandon(struct toy_host *toy);

/* Add nr_blocks from block first on, on a node. */
int toy_add(struct toy_host *toy, uint64_t first, uint64_t nr_blocks, enum memplug_memmap memmap,
            int node);

/* An operation that has begun, with the defaults of a limit. */
struct toy_op {
    struct mpl_op op;
    struct memplug_limit limit;
    struct memplug_reason reason;
};

void toy_op_begin(struct toy_op *toy_op, struct toy_host *toy, const char *name);

/* Does this end in the core's trap? In a process of its own. */
static inline bool toy_traps(void (*run)(void *context), void *context)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        struct rlimit no_core = {0, 0};

        /* The test framework catches these signals. */
        signal(SIGILL, SIG_DFL);
        signal(SIGTRAP, SIG_DFL);
        setrlimit(RLIMIT_CORE, &no_core);
        run(context);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return false;
    return WIFSIGNALED(status) && (WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGTRAP);
}

#endif
