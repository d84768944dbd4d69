/* SPDX-License-Identifier: MIT */
/*
 * Is what schedules.c leaves out really nothing new? Small random programs are played in every
 * schedule there is, and in those that it finds necessary: both must see the same outcomes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "schedules.h"

#include <cmocka.h>

#define NR_PROGRAMS 200u
#define NR_OPERATIONS 3u
#define MAX_OUTCOMES 20000u

enum operation { LOAD, LOAD_BOTH, STORE, ADD, COMPARE, LOCKED_ADD, AWAIT, NR_KINDS };

struct outcomes {
    uint64_t seen[MAX_OUTCOMES];
    unsigned nr;
    uint64_t nr_schedules;
};

static struct outcomes all, found, *into;
static enum operation program[SCHEDULES_FIBRES][NR_OPERATIONS];
static unsigned nr_operations[SCHEDULES_FIBRES], of[SCHEDULES_FIBRES][NR_OPERATIONS];
static uint64_t reads[SCHEDULES_FIBRES];

/* Two variables in a word that is also read as a whole. */
static union {
    uint32_t part[2];
    uint64_t both;
} memory;
static uint32_t ticket, serving, flag, counter;

static uint64_t mix(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * UINT64_C(0x100000001b3);
}

static void add_locked(void)
{
    uint32_t mine = __atomic_fetch_add(&ticket, 1, __ATOMIC_SEQ_CST);

    while (__atomic_load_n(&serving, __ATOMIC_SEQ_CST) != mine)
        schedules_wait();
    counter++;
    __atomic_store_n(&serving, mine + 1, __ATOMIC_SEQ_CST);
}

static uint64_t operate(unsigned who, unsigned i)
{
    uint32_t *part = &memory.part[of[who][i]], none = 0;

    switch (program[who][i]) {
    case LOAD:
        return __atomic_load_n(part, __ATOMIC_SEQ_CST);
    case LOAD_BOTH:
        return __atomic_load_n(&memory.both, __ATOMIC_SEQ_CST);
    case STORE:
        __atomic_store_n(part, who * NR_OPERATIONS + i + 1, __ATOMIC_SEQ_CST);
        return 0;
    case ADD:
        return __atomic_fetch_add(part, 1, __ATOMIC_SEQ_CST);
    case COMPARE:
        return __atomic_compare_exchange_n(part, &none, who + 100, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    case LOCKED_ADD:
        add_locked();
        return 0;
    default: /* the last fibre sets the flag */
        while (__atomic_load_n(&flag, __ATOMIC_SEQ_CST) == 0)
            schedules_wait();
        return 0;
    }
}

static void run(unsigned who)
{
    for (unsigned i = 0; i < nr_operations[who]; i++)
        reads[who] = mix(reads[who], operate(who, i));
    if (who == SCHEDULES_FIBRES - 1)
        __atomic_store_n(&flag, 1, __ATOMIC_SEQ_CST);
}

static void run_0(void)
{
    run(0);
}

static void run_1(void)
{
    run(1);
}

static void run_2(void)
{
    run(2);
}

static void begin(void)
{
    memory.both = 0;
    ticket = serving = flag = counter = 0;
    memset(reads, 0, sizeof(reads));
}

static void end(void)
{
    uint64_t outcome = mix(mix(memory.part[0], memory.part[1]), counter);

    assert_int_equal(counter, ticket);
    for (unsigned i = 0; i < SCHEDULES_FIBRES; i++)
        outcome = mix(outcome, reads[i]);
    for (unsigned i = 0; i < into->nr; i++)
        if (into->seen[i] == outcome)
            return;
    assert_true(into->nr < MAX_OUTCOMES);
    into->seen[into->nr++] = outcome;
}

static int compare(const void *one, const void *other)
{
    uint64_t left = *(const uint64_t *)one, right = *(const uint64_t *)other;

    return left < right ? -1 : left > right;
}

static void play(struct outcomes *outcomes, bool every)
{
    const struct schedules_case scenario = {
        "random program", SCHEDULES_FIBRES, begin, {run_0, run_1, run_2}, end};

    into = outcomes;
    outcomes->nr = 0;
    outcomes->nr_schedules = every ? schedules_run_every(&scenario) : schedules_run(&scenario);
    qsort(outcomes->seen, outcomes->nr, sizeof(outcomes->seen[0]), compare);
}

/* A lock or a wait takes several steps: such a program is shorter, or it would take for ever. */
static void write_program(unsigned *random)
{
    unsigned nr_long = 0;

    for (unsigned who = 0; who < SCHEDULES_FIBRES; who++) {
        nr_operations[who] = NR_OPERATIONS - (who == SCHEDULES_FIBRES - 1);
        for (unsigned i = 0; i < nr_operations[who]; i++) {
            enum operation kind = (enum operation)((unsigned)rand_r(random) % NR_KINDS);

            if ((kind == AWAIT && who == SCHEDULES_FIBRES - 1) ||
                (kind >= LOCKED_ADD && nr_long++ >= 2))
                kind = LOAD;
            program[who][i] = kind;
            of[who][i] = (unsigned)rand_r(random) % 2;
        }
    }
}

static void nothing_new_is_left_out(void **context)
{
    unsigned random = 7;
    uint64_t nr_all = 0, nr_found = 0, nr_outcomes = 0;

    (void)context;
    for (unsigned i = 0; i < NR_PROGRAMS; i++) {
        write_program(&random);
        play(&all, true);
        play(&found, false);
        if (all.nr != found.nr)
            print_error("program %u: %u outcomes, %u found\n", i, all.nr, found.nr);
        assert_int_equal(all.nr, found.nr);
        assert_memory_equal(all.seen, found.seen, all.nr * sizeof(all.seen[0]));
        nr_all += all.nr_schedules;
        nr_found += found.nr_schedules;
        nr_outcomes += all.nr;
    }
    print_message("%lu schedules, %lu of them necessary, %lu outcomes\n", (unsigned long)nr_all,
                  (unsigned long)nr_found, (unsigned long)nr_outcomes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_new_is_left_out)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
