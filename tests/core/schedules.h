/* SPDX-License-Identifier: MIT */
/*
 * Every schedule of a few fibres, switched before each atomic operation of the core. The core is
 * compiled with -fsanitize=thread and linked with this in place of that sanitizer's library, so
 * each of its atomic operations is a call of ours. They are sequentially consistent here: what is
 * explored is who comes first, not what a weaker memory would let be seen.
 *
 * Of schedules that differ only in the order of operations that have nothing to do with each other
 * one is played: those on different places, and reads. That is found out while they are played
 * (dynamic partial order reduction with source sets and sleep sets); test_schedules_search.c
 * compares it with all there are. What is not atomic must be ordered by what is: the thread
 * sanitizer's tests see to that.
 */
#ifndef SCHEDULES_H
#define SCHEDULES_H

#include <stdbool.h>
#include <stdint.h>

#define SCHEDULES_FIBRES 3u

struct schedules_case {
    const char *name;
    unsigned nr_fibres;
    void (*begin)(void);
    void (*run[SCHEDULES_FIBRES])(void);
    void (*end)(void); /* fails the test if something is wrong */
};

/* Runs all of them; returns how many there were. */
uint64_t schedules_run(const struct schedules_case *scenario);

/* Also those that differ in nothing that can be seen. */
uint64_t schedules_run_every(const struct schedules_case *scenario);

/* In a loop that waits until one place has changed. Ends the test if nobody can go on. */
void schedules_wait(void);

#endif
