/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "schedules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <cmocka.h>

#define STACK_BYTES 65536u
#define MAX_POINTS 4096u
#define MAX_WAITS 10000u

struct fibre {
    ucontext_t context;
    bool is_over, is_waiting;
};

static const struct schedules_case *playing;
static struct fibre fibres[SCHEDULES_FIBRES];
static char stacks[SCHEDULES_FIBRES][STACK_BYTES];
static ucontext_t outside;
static unsigned current, nr_points, nr_switched, nr_waits;
static bool inside, has_written;

#define MAX_STILL 4u
static const void *still[MAX_STILL];
static unsigned nr_still;

/* What was chosen at each point, of how many: the next schedule is the next number. */
static unsigned char choices[MAX_POINTS], options[MAX_POINTS];
static unsigned nr_known;

/* --- the scheduler ---------------------------------------------------------------------------- */

static void switch_to(unsigned next)
{
    unsigned before = current;

    if (next == before)
        return;
    current = next;
    swapcontext(&fibres[before].context, &fibres[next].context);
}

static unsigned decide(unsigned nr_options)
{
    unsigned point = nr_points++;

    if (nr_options == 1) {
        nr_points--;
        return 0;
    }
    if (point >= MAX_POINTS)
        abort();
    if (point >= nr_known) {
        choices[point] = 0;
        nr_known = point + 1;
    }
    options[point] = (unsigned char)nr_options;
    return choices[point];
}

/* Others that can run, in order; those that wait only if nobody else is left. */
static unsigned others(unsigned found[])
{
    unsigned nr = 0;

    for (unsigned waiting = 0; waiting < 2 && nr == 0; waiting++)
        for (unsigned i = 0; i < playing->nr_fibres; i++)
            if (i != current && !fibres[i].is_over && (waiting != 0 || !fibres[i].is_waiting))
                found[nr++] = i;
    return nr;
}

/* Behind an operation that has written, what others wait for may be there. */
static void wake(void)
{
    for (unsigned i = 0; has_written && i < playing->nr_fibres; i++)
        fibres[i].is_waiting = false;
    has_written = false;
}

void schedules_still(const void *address)
{
    if (nr_still == MAX_STILL)
        abort();
    still[nr_still++] = address;
}

static bool is_still(const void *address)
{
    for (unsigned i = 0; i < nr_still; i++)
        if (still[i] == address)
            return true;
    return false;
}

/* Before an atomic operation. */
static void point(bool writes)
{
    unsigned found[SCHEDULES_FIBRES], nr, choice;

    if (!inside)
        return;
    wake();
    nr = nr_switched < playing->nr_preemptions ? others(found) : 0;
    choice = decide(nr + 1);
    if (choice != 0) {
        nr_switched++;
        switch_to(found[choice - 1]);
    }
    has_written = writes;
}

/* If all wait each looks again in turn: a choice between them would be one without end. */
static unsigned next_in_turn(const unsigned found[], unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        if (found[i] > current)
            return found[i];
    return found[0];
}

void schedules_wait(void)
{
    unsigned found[SCHEDULES_FIBRES], nr;

    if (!inside)
        return;
    wake();
    if (++nr_waits > MAX_WAITS)
        abort();
    fibres[current].is_waiting = true;
    nr = others(found);
    if (nr != 0)
        switch_to(fibres[found[0]].is_waiting ? next_in_turn(found, nr) : found[decide(nr)]);
    fibres[current].is_waiting = false; /* it looks again */
}

static void enter(void)
{
    unsigned found[SCHEDULES_FIBRES], nr;

    playing->run[current]();
    wake();
    fibres[current].is_over = true;
    nr = others(found);
    if (nr == 0)
        setcontext(&outside);
    switch_to(found[decide(nr)]);
    abort();
}

static void play(void)
{
    nr_points = nr_switched = nr_waits = current = 0;
    for (unsigned i = 0; i < playing->nr_fibres; i++) {
        struct fibre *fibre = &fibres[i];

        getcontext(&fibre->context);
        fibre->context.uc_stack.ss_sp = stacks[i];
        fibre->context.uc_stack.ss_size = STACK_BYTES;
        fibre->context.uc_link = NULL;
        fibre->is_over = fibre->is_waiting = false;
        makecontext(&fibre->context, enter, 0);
    }
    inside = true;
    has_written = false;
    swapcontext(&outside, &fibres[0].context);
    inside = false;
}

uint64_t schedules_run(const struct schedules_case *scenario)
{
    uint64_t nr_schedules = 0;

    playing = scenario;
    nr_known = 0;
    for (;;) {
        nr_still = 0;
        scenario->begin();
        play();
        scenario->end();
        nr_schedules++;
        nr_known = nr_points;
        while (nr_known > 0 && choices[nr_known - 1] + 1 == options[nr_known - 1])
            nr_known--;
        if (nr_known == 0)
            return nr_schedules;
        choices[nr_known - 1]++;
    }
}

/* --- what the compiler calls ------------------------------------------------------------------ */

#define PLAIN(name, ...)                                                                           \
    void name(__VA_ARGS__);                                                                        \
    void name(__VA_ARGS__)                                                                         \
    {                                                                                              \
    }
PLAIN(__tsan_init, void)
PLAIN(__tsan_func_entry, void *caller __attribute__((unused)))
PLAIN(__tsan_func_exit, void)
PLAIN(__tsan_read1, void *at __attribute__((unused)))
PLAIN(__tsan_read2, void *at __attribute__((unused)))
PLAIN(__tsan_read4, void *at __attribute__((unused)))
PLAIN(__tsan_read8, void *at __attribute__((unused)))
PLAIN(__tsan_read16, void *at __attribute__((unused)))
PLAIN(__tsan_write1, void *at __attribute__((unused)))
PLAIN(__tsan_write2, void *at __attribute__((unused)))
PLAIN(__tsan_write4, void *at __attribute__((unused)))
PLAIN(__tsan_write8, void *at __attribute__((unused)))
PLAIN(__tsan_write16, void *at __attribute__((unused)))
PLAIN(__tsan_read_range, void *at __attribute__((unused)), long size __attribute__((unused)))
PLAIN(__tsan_write_range, void *at __attribute__((unused)), long size __attribute__((unused)))
PLAIN(__tsan_atomic_signal_fence, int order __attribute__((unused)))

#define MODIFY(bits, name)                                                                         \
    uint##bits##_t __tsan_atomic##bits##_##name(uint##bits##_t *at, uint##bits##_t value,          \
                                                int order);                                        \
    uint##bits##_t __tsan_atomic##bits##_##name(uint##bits##_t *at, uint##bits##_t value,          \
                                                int order)                                         \
    {                                                                                              \
        (void)order;                                                                               \
        point(true);                                                                               \
        return __atomic_##name(at, value, __ATOMIC_SEQ_CST);                                       \
    }
#define ATOMICS(bits)                                                                              \
    uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *at, int order);                \
    uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *at, int order)                 \
    {                                                                                              \
        (void)order;                                                                               \
        if (!is_still(at))                                                                         \
            point(false);                                                                          \
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                              \
    }                                                                                              \
    void __tsan_atomic##bits##_store(uint##bits##_t *at, uint##bits##_t value, int order);         \
    void __tsan_atomic##bits##_store(uint##bits##_t *at, uint##bits##_t value, int order)          \
    {                                                                                              \
        (void)order;                                                                               \
        if (is_still(at) && inside)                                                                \
            abort();                                                                               \
        point(true);                                                                               \
        __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                             \
    }                                                                                              \
    uint##bits##_t __tsan_atomic##bits##_exchange(uint##bits##_t *at, uint##bits##_t value,        \
                                                  int order);                                      \
    uint##bits##_t __tsan_atomic##bits##_exchange(uint##bits##_t *at, uint##bits##_t value,        \
                                                  int order)                                       \
    {                                                                                              \
        (void)order;                                                                               \
        point(true);                                                                               \
        return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                   \
    }                                                                                              \
    bool __tsan_atomic##bits##_compare_exchange_strong(                                            \
        uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int order, int fail);  \
    bool __tsan_atomic##bits##_compare_exchange_strong(                                            \
        uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int order, int fail)   \
    {                                                                                              \
        (void)order;                                                                               \
        (void)fail;                                                                                \
        point(true);                                                                               \
        return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,           \
                                           __ATOMIC_SEQ_CST);                                      \
    }                                                                                              \
    bool __tsan_atomic##bits##_compare_exchange_weak(                                              \
        uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int order, int fail);  \
    bool __tsan_atomic##bits##_compare_exchange_weak(                                              \
        uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int order, int fail)   \
    {                                                                                              \
        return __tsan_atomic##bits##_compare_exchange_strong(at, expected, value, order, fail);    \
    }                                                                                              \
    MODIFY(bits, fetch_add)                                                                        \
    MODIFY(bits, fetch_sub)                                                                        \
    MODIFY(bits, fetch_and)                                                                        \
    MODIFY(bits, fetch_or)                                                                         \
    MODIFY(bits, fetch_xor)
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)
