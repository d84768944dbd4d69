/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "worker.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

_Noreturn void worker_die(const char *message)
{
    fprintf(stderr, "bench: %s\n", message);
    exit(1);
}

/* --- commands --------------------------------------------------------------------------------- */

int worker_loop(void (*command)(int nr_words, char **words))
{
    char line[256], *words[8], *rest;

    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        int nr_words = 0;

        for (char *word = strtok_r(line, " \n", &rest); word != NULL && nr_words < 8;
             word = strtok_r(NULL, " \n", &rest)) {
            words[nr_words++] = word;
        }
        if (nr_words > 0) {
            command(nr_words, words);
        }
        puts(".");
        fflush(stdout);
    }
    return 0;
}

void worker_say(const char *name, double value)
{
    printf("%s %.4f\n", name, value);
}

void worker_absent(const char *name, const char *why)
{
    printf("%s absent %s\n", name, why);
}

void worker_add(struct worker_median *median, double value)
{
    if (median->nr == sizeof(median->values) / sizeof(median->values[0])) {
        worker_die("too many figures in one round");
    }
    median->values[median->nr++] = value;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

double worker_median(struct worker_median *median)
{
    double value;

    if (median->nr == 0) {
        worker_die("no figures in this round");
    }
    qsort(median->values, median->nr, sizeof(median->values[0]), compare);
    value = (median->values[(median->nr - 1) / 2] + median->values[median->nr / 2]) / 2;
    median->nr = 0;
    return value;
}

/* --- clocks and threads ----------------------------------------------------------------------- */

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t worker_cpu_ns(void)
{
    return now_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t worker_wall_ns(void)
{
    return now_ns(CLOCK_MONOTONIC);
}

void worker_pin(unsigned cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) {
        worker_die("cannot be pinned to a CPU");
    }
}

static pthread_barrier_t begin, end;
static void (*entered)(unsigned thread);
static void (*running)(unsigned thread);
static unsigned nr_running;
static uint64_t spent_ns[WORKER_THREADS];

static void run_phase(unsigned thread)
{
    uint64_t start;

    pthread_barrier_wait(&begin);
    start = worker_cpu_ns();
    if (thread < nr_running) {
        running(thread);
    }
    spent_ns[thread] = thread < nr_running ? worker_cpu_ns() - start : 0;
    pthread_barrier_wait(&end);
}

static void *thread_main(void *argument)
{
    unsigned thread = (unsigned)(uintptr_t)argument;

    worker_pin(thread);
    entered(thread);
    for (;;) {
        run_phase(thread);
    }
    return NULL;
}

void worker_threads(void (*enter)(unsigned thread))
{
    pthread_t thread;

    pthread_barrier_init(&begin, NULL, WORKER_THREADS);
    pthread_barrier_init(&end, NULL, WORKER_THREADS);
    entered = enter;
    worker_pin(0);
    enter(0);
    for (unsigned i = 1; i < WORKER_THREADS; i++) {
        if (pthread_create(&thread, NULL, thread_main, (void *)(uintptr_t)i) != 0) {
            worker_die("cannot make a thread");
        }
    }
}

uint64_t worker_phase(unsigned nr_threads, void (*body)(unsigned thread))
{
    uint64_t sum_ns = 0;

    running = body;
    nr_running = nr_threads;
    run_phase(0);
    for (unsigned i = 0; i < nr_threads; i++) {
        sum_ns += spent_ns[i];
    }
    return sum_ns;
}
