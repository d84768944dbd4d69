/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "schedules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define STACK_BYTES 65536u
#define MAX_STEPS 8192u
#define NR_CHAINS 4096u
#define MAX_SPINS 1000u
#define NONE UINT32_MAX

struct access {
    const char *at;
    unsigned size;
    bool writes; /* or may write */
    const void *expected; /* of a comparison: it writes if this is found there */
};

struct fibre {
    ucontext_t context;
    struct access next; /* what it does when it is chosen */
    uint32_t clock[SCHEDULES_FIBRES]; /* of each fibre, the steps that came before its next one */
    bool is_over, is_waiting;
};

/* Sets of fibres have a bit for each. */
struct step {
    uint32_t clock[SCHEDULES_FIBRES]; /* with itself */
    uint32_t before, write_before;    /* of the same hash, or NONE */
    struct access access;
    uint8_t fibre;
    uint8_t could;  /* those that could run */
    uint8_t should; /* those that are to be tried here */
    uint8_t tried;  /* of these; the last one is fibre */
    uint8_t asleep; /* those of which it is known that they bring nothing new */
};

static const struct schedules_case *playing;
static struct fibre fibres[SCHEDULES_FIBRES];
static char stacks[SCHEDULES_FIBRES][STACK_BYTES];
static ucontext_t outside;
static unsigned current, nr_started, nr_spins;
static bool every, inside, is_known; /* the rest of this schedule brings nothing new */

static struct step steps[MAX_STEPS];
static uint32_t nr_steps, nr_given; /* steps; those that the schedule prescribes */
static uint32_t chains[NR_CHAINS];  /* the last step at each place, by its hash */

/* --- which order matters ---------------------------------------------------------------------- */

static bool depend(struct access one, struct access other)
{
    return (one.writes || other.writes) && one.at < other.at + other.size &&
           other.at < one.at + one.size;
}

/* Of operations of several sizes on the same eight bytes. */
static uint32_t *chain_of(const char *at)
{
    return &chains[((uintptr_t)at >> 3) * UINT64_C(0x9e3779b97f4a7c15) >> 52];
}

static bool comes_before(uint32_t step, const uint32_t clock[])
{
    return step < clock[steps[step].fibre];
}

static void join(uint32_t clock[], const uint32_t other[])
{
    for (unsigned i = 0; i < SCHEDULES_FIBRES; i++)
        if (clock[i] < other[i])
            clock[i] = other[i];
}

static uint32_t last_of(unsigned who)
{
    uint32_t step = nr_steps;

    while (step > 0 && steps[step - 1].fibre != who)
        step--;
    return step == 0 ? NONE : step - 1;
}

/* Steps that this may depend on, from the last one back. */
static uint32_t last_at(struct access access)
{
    uint32_t step = *chain_of(access.at);

    return step == NONE || access.writes || steps[step].access.writes ? step
                                                                      : steps[step].write_before;
}

static uint32_t before(uint32_t step, struct access access)
{
    return access.writes ? steps[step].before : steps[step].write_before;
}

/* Of what came after a step and not because of it, with somebody's next operation behind that:
 * those who could begin. */
static uint8_t who_begins(uint32_t step, unsigned who, const uint32_t clock[])
{
    struct access access = fibres[who].next;
    uint32_t first[SCHEDULES_FIBRES], its[SCHEDULES_FIBRES];
    uint8_t begin = 0, seen = 0;

    memcpy(its, clock, sizeof(its));
    for (uint32_t i = step + 1; i <= nr_steps; i++) {
        unsigned fibre = i < nr_steps ? steps[i].fibre : who;
        bool is_first = (seen & 1u << fibre) == 0;

        if (i < nr_steps && comes_before(step, steps[i].clock))
            continue;
        for (unsigned other = 0; other < SCHEDULES_FIBRES; other++)
            if ((seen & 1u << other) != 0 &&
                first[other] < (i < nr_steps ? steps[i].clock : its)[other])
                is_first = false;
        if ((seen & 1u << fibre) == 0)
            first[fibre] = i;
        seen |= (uint8_t)(1u << fibre);
        if (is_first)
            begin |= (uint8_t)(1u << fibre);
        if (i < nr_steps && depend(steps[i].access, access))
            join(its, steps[i].clock);
    }
    return begin;
}

/* An operation and a step that comes right before it could have come in the other order: one of
 * those who can begin with that is to be tried. (Source sets: Abdulla and others, POPL 2014.) */
static void swap_later(unsigned who, const uint32_t clock[], uint32_t step)
{
    struct step *at = &steps[step];
    uint8_t begin = who_begins(step, who, clock);

    if ((begin & (at->should | at->asleep)) == 0)
        at->should |= (uint8_t)(begin & -begin);
}

/* What comes before it is known now. */
static void find_races(unsigned who, struct access access)
{
    uint32_t *clock = fibres[who].clock, own[SCHEDULES_FIBRES];

    memcpy(own, clock, sizeof(own));
    for (uint32_t i = last_at(access); i != NONE; i = before(i, access)) {
        if (!depend(steps[i].access, access))
            continue;
        if (!comes_before(i, clock) && !is_known && !every)
            swap_later(who, own, i);
        join(clock, steps[i].clock);
    }
}

/* --- the scheduler ---------------------------------------------------------------------------- */

static void switch_to(unsigned next)
{
    unsigned before = current;

    if (next == before)
        return;
    current = next;
    swapcontext(&fibres[before].context, &fibres[next].context);
}

static void give_up(const char *why)
{
    fprintf(stderr, "%s: %s, at step %u\n", playing->name, why, nr_steps);
    abort();
}

/* Who waits has looked at one place, and looks there again when somebody has written to it. */
static bool is_stirred(unsigned who)
{
    uint32_t looked = last_of(who);

    if (looked == NONE || steps[looked].access.writes ||
        steps[looked].access.at != fibres[who].next.at)
        give_up("a loop that looks at several places");
    for (uint32_t later = looked + 1; later < nr_steps; later++)
        if (depend(steps[later].access, steps[looked].access))
            return true;
    return false;
}

static uint8_t who_can(void)
{
    uint8_t can = 0;

    for (unsigned i = 0; i < playing->nr_fibres; i++) {
        bool stirred = !fibres[i].is_over && fibres[i].is_waiting && is_stirred(i);

        /* The schedule in which he first looks behind that change is tried as well, and all else
         * is the same in it. */
        is_known = is_known || (stirred && !every);
        if (!fibres[i].is_over && (!fibres[i].is_waiting || stirred))
            can |= (uint8_t)(1u << i);
    }
    return can;
}

/* Those that were tried at the step before, and do something that does not depend on it. */
static uint8_t who_sleeps(void)
{
    const struct step *last = &steps[nr_steps - 1];
    uint8_t asleep = 0;

    for (unsigned i = 0; nr_steps > 0 && i < playing->nr_fibres; i++)
        if (i != last->fibre && ((last->asleep | last->tried) & 1u << i) != 0 &&
            !depend(last->access, fibres[i].next))
            asleep |= (uint8_t)(1u << i);
    return asleep;
}

static unsigned first_of(uint8_t set)
{
    return (set & 1u << current) != 0 ? current : (unsigned)__builtin_ctz(set);
}

static void choose_freely(struct step *step)
{
    uint8_t awake;

    step->asleep = every ? 0 : who_sleeps();
    awake = step->could & (uint8_t)~step->asleep;
    is_known = is_known || awake == 0;
    step->fibre = (uint8_t)first_of(awake != 0 ? awake : step->could);
    step->tried = (uint8_t)(1u << step->fibre);
    step->should = every ? step->could : step->tried;
}

static void record(struct step *step)
{
    struct fibre *fibre = &fibres[step->fibre];
    uint32_t *chain = chain_of(fibre->next.at);

    step->access = fibre->next;
    if (step->access.expected)
        step->access.writes = memcmp(step->access.at, step->access.expected,
                                     step->access.size) == 0;
    step->before = *chain;
    step->write_before = last_at((struct access){.at = step->access.at});
    find_races(step->fibre, step->access);
    fibre->clock[step->fibre] = nr_steps + 1;
    memcpy(step->clock, fibre->clock, sizeof(step->clock));
    *chain = nr_steps;
    fibre->is_waiting = false;
    nr_steps++;
}

/* Everybody's next operation is known: whose is it? */
static void choose(void)
{
    struct step *step = &steps[nr_steps];

    if (nr_steps == MAX_STEPS)
        give_up("too many steps");
    step->could = who_can();
    if (step->could == 0)
        give_up("all wait for each other");
    if (nr_steps >= nr_given)
        choose_freely(step);
    record(step);
    switch_to(step->fibre);
}

/* Fibres run to their first operation before anybody is chosen. */
static void arrive(void)
{
    if (nr_started < playing->nr_fibres)
        switch_to(nr_started++);
    else
        choose();
}

/* Before an atomic operation. */
static void point(struct access access)
{
    if (!inside)
        return;
    fibres[current].next = access;
    arrive();
}

static void point_read(const volatile void *at, unsigned size)
{
    point((struct access){.at = (const char *)(uintptr_t)at, .size = size});
}

static void point_write(const volatile void *at, unsigned size)
{
    point((struct access){.at = (const char *)(uintptr_t)at, .size = size, .writes = true});
}

static void point_compare(const volatile void *at, unsigned size, const void *expected)
{
    point((struct access){.at = (const char *)(uintptr_t)at, .size = size, .writes = true,
                          .expected = expected});
}

void schedules_wait(void)
{
    if (!inside)
        return;
    if (++nr_spins > MAX_SPINS)
        give_up("a fibre waits for something that nobody writes");
    fibres[current].is_waiting = true;
}

static void enter(void)
{
    bool all = true;

    playing->run[current]();
    fibres[current].is_over = true;
    for (unsigned i = 0; i < playing->nr_fibres; i++)
        all = all && fibres[i].is_over;
    if (all && nr_started == playing->nr_fibres)
        setcontext(&outside);
    arrive();
    abort();
}

static void play(void)
{
    memset(chains, 0xff, sizeof(chains));
    nr_steps = nr_spins = current = 0;
    nr_started = 1;
    is_known = false;
    for (unsigned i = 0; i < playing->nr_fibres; i++) {
        struct fibre *fibre = &fibres[i];

        memset(fibre->clock, 0, sizeof(fibre->clock));
        fibre->is_over = fibre->is_waiting = false;
        getcontext(&fibre->context);
        fibre->context.uc_stack.ss_sp = stacks[i];
        fibre->context.uc_stack.ss_size = STACK_BYTES;
        fibre->context.uc_link = NULL;
        makecontext(&fibre->context, enter, 0);
    }
    inside = true;
    swapcontext(&outside, &fibres[0].context);
    inside = false;
}

/* The last choice that leaves something to try. */
static bool prescribe_next(void)
{
    for (uint32_t i = nr_steps; i > 0; i--) {
        struct step *step = &steps[i - 1];
        unsigned left = step->should & ~(unsigned)(step->tried | step->asleep);

        if (left == 0)
            continue;
        step->fibre = (uint8_t)__builtin_ctz(left);
        step->tried |= (uint8_t)(1u << step->fibre);
        nr_given = i;
        return true;
    }
    return false;
}

static uint64_t run_all(const struct schedules_case *scenario)
{
    uint64_t nr_schedules = 0;

    playing = scenario;
    nr_given = 0;
    do {
        scenario->begin();
        play();
        scenario->end();
        nr_schedules += !is_known;
    } while (prescribe_next());
    return nr_schedules;
}

uint64_t schedules_run(const struct schedules_case *scenario)
{
    every = false;
    return run_all(scenario);
}

uint64_t schedules_run_every(const struct schedules_case *scenario)
{
    every = true;
    return run_all(scenario);
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
        point_write(at, sizeof(*at));                                                              \
        return __atomic_##name(at, value, __ATOMIC_SEQ_CST);                                       \
    }
#define ATOMICS(bits)                                                                              \
    uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *at, int order);                \
    uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *at, int order)                 \
    {                                                                                              \
        (void)order;                                                                               \
        point_read(at, sizeof(*at));                                                               \
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                              \
    }                                                                                              \
    void __tsan_atomic##bits##_store(uint##bits##_t *at, uint##bits##_t value, int order);         \
    void __tsan_atomic##bits##_store(uint##bits##_t *at, uint##bits##_t value, int order)          \
    {                                                                                              \
        (void)order;                                                                               \
        point_write(at, sizeof(*at));                                                              \
        __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                             \
    }                                                                                              \
    uint##bits##_t __tsan_atomic##bits##_exchange(uint##bits##_t *at, uint##bits##_t value,        \
                                                  int order);                                      \
    uint##bits##_t __tsan_atomic##bits##_exchange(uint##bits##_t *at, uint##bits##_t value,        \
                                                  int order)                                       \
    {                                                                                              \
        (void)order;                                                                               \
        point_write(at, sizeof(*at));                                                              \
        return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                   \
    }                                                                                              \
    bool __tsan_atomic##bits##_compare_exchange_strong(                                            \
        uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int order, int fail);  \
    bool __tsan_atomic##bits##_compare_exchange_strong(                                            \
        uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int order, int fail)   \
    {                                                                                              \
        (void)order;                                                                               \
        (void)fail;                                                                                \
        point_compare(at, sizeof(*at), expected);                                                  \
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
