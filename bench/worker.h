/* SPDX-License-Identifier: MIT */
/*
 * What all programs of the benchmark share: each is a worker that reads a command a line, runs one
 * round of it, and answers with lines "name value", the last one ".". So `bench/run` can have all
 * of them in memory and take rounds in turn.
 */
#ifndef BENCH_WORKER_H
#define BENCH_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#define WORKER_THREADS 2u

/* Prints the message and ends the process: a benchmark that went wrong has no figure. */
_Noreturn void worker_die(const char *message);

/* Says "ready", then runs `command` for each line until the end of input. */
int worker_loop(void (*command)(int nr_words, char **words));

/* One figure of the answer; one that this program cannot give, and why. */
void worker_say(const char *name, double value);
void worker_absent(const char *name, const char *why);

/* Figures of one name in one round; answers their median, and forgets them. */
struct worker_median {
    unsigned nr;
    double values[512];
};
void worker_add(struct worker_median *median, double value);
double worker_median(struct worker_median *median);

uint64_t worker_cpu_ns(void);  /* of this thread */
uint64_t worker_wall_ns(void); /* monotonic */

/* Pins the calling thread to a CPU. */
void worker_pin(unsigned cpu);

/* The calling thread is thread 0; each thread, pinned to the CPU of its number, first calls enter.
 * Runs body(thread) on the first nr_threads threads at once; returns their CPU time together. */
void worker_threads(void (*enter)(unsigned thread));
uint64_t worker_phase(unsigned nr_threads, void (*body)(unsigned thread));

/* xorshift64, and a number below a limit by multiply and shift. */
static inline uint64_t worker_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static inline uint64_t worker_below(uint64_t *state, uint64_t limit)
{
    return (uint64_t)((unsigned __int128)worker_random(state) * limit >> 64);
}

#endif
