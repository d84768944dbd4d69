/* SPDX-License-Identifier: MIT */
/*
 * Many CPUs on one thread. Each fibre is a CPU; where one gives way to another is decided by a
 * seed, so a run can be repeated to the last instruction. A switch may happen in every call of the
 * fake host and at every fake_sched_point(); if the core is compiled with -fsanitize-coverage=
 * trace-pc and linked with preempt.c, also at every branch of the core.
 *
 * Not under ThreadSanitizer, which does not follow ucontext: fake_sched_supported() says so.
 */
#ifndef FAKE_SCHED_H
#define FAKE_SCHED_H

#include "fake.h"

#include <pthread.h>

struct fake_fibre {
    const char *name;
    void (*run)(void *context);
    void *context;
    unsigned cpu; /* what cpu() answers; fake_set_cpu() in the fibre changes it */
};

struct fake_sched_report {
    uint64_t nr_switches;
    uint64_t trace;  /* a hash of who ran after whom: equal runs have equal traces */
    char text[512];  /* of a deadlock: who waits for whom */
};

#define FAKE_SCHED_SWITCHES_MAX 20000000ull

bool fake_sched_supported(void);

/*
 * Run the fibres to their ends. 0; -EDEADLK if all that are left wait for a lock without a limit
 * of their own; -ETIMEDOUT after FAKE_SCHED_SWITCHES_MAX switches; -ENOMEM; -ENOSYS. After a
 * failure the fibres' stacks are gone, and the machine can only be closed. If all that are left
 * wait and one has a deadline, a virtual clock jumps to it. report may be null.
 */
int fake_sched_run(struct fake_machine *machine, uint64_t seed, const struct fake_fibre *fibres,
                   unsigned nr_fibres, struct fake_sched_report *report);

/* In a fibre: perhaps let another one run; nothing in a thread. */
void fake_sched_point(void);

/* In a fibre: let another one run if one can; in a thread: sched_yield(). */
void fake_sched_yield(void);

/* As point, but switches only once in one_in times. */
void fake_sched_point_rarely(unsigned one_in);

/* A lock that sleeps in threads and parks in fibres, and knows its owner. */
struct fake_mutex {
    pthread_mutex_t guard;
    pthread_cond_t released;
    const void *owner; /* guarded */
    const char *name;
};

void fake_mutex_open(struct fake_mutex *mutex, const char *name);
void fake_mutex_close(struct fake_mutex *mutex);

/* machine gives the time, and may be null if limit is. -EDEADLK, -ETIMEDOUT, -EINTR; no error is
 * possible without a limit, except -EDEADLK. A limit without timeout means 30 s. */
int fake_mutex_lock(struct fake_mutex *mutex, struct fake_machine *machine,
                    const struct memplug_limit *limit);

/* -EPERM: the caller does not hold it. */
int fake_mutex_unlock(struct fake_mutex *mutex);
bool fake_mutex_is_mine(struct fake_mutex *mutex);
bool fake_mutex_is_held(struct fake_mutex *mutex);

/* splitmix64: small, good, and the same everywhere. */
static inline uint64_t fake_random(uint64_t *state)
{
    uint64_t value = *state += 0x9e3779b97f4a7c15ull;

    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

#endif
