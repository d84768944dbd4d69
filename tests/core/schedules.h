/* SPDX-License-Identifier: MIT */
/*
 * Every schedule of a few fibres, switched before each atomic operation of the core. The core is
 * compiled with -fsanitize=thread and linked with this in place of that sanitizer's library, so
 * each of its atomic operations is a call of ours. They are sequentially consistent here: what is
 * explored is who comes first, not what a weaker memory would let be seen.
 */
#ifndef SCHEDULES_H
#define SCHEDULES_H

#include <stdbool.h>
#include <stdint.h>

#define SCHEDULES_FIBRES 3u

struct schedules_case {
    const char *name;
    unsigned nr_fibres;
    unsigned nr_preemptions; /* at most so many switches that nothing forces */
    void (*begin)(void);
    void (*run[SCHEDULES_FIBRES])(void);
    void (*end)(void); /* fails the test if something is wrong */
};

/* Runs all of them; returns how many there were. */
uint64_t schedules_run(const struct schedules_case *scenario);

/* In begin(): nobody writes there in this scene, so that nothing is decided by when it is read. A
 * store ends the test. */
void schedules_still(const void *address);

/* In a loop that waits: somebody else must go on. Fails the test if nobody can. */
void schedules_wait(void);

#endif
