/* SPDX-License-Identifier: MIT */
/* Fibres as CPUs, switched by a seed; and the lock that works for them and for threads. */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define HAVE_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define HAVE_TSAN 1
#endif

#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(save, bottom, size) ((void)(save))
#define __sanitizer_finish_switch_fiber(save, bottom, size) ((void)(save))
#define __asan_unpoison_memory_region(start, size) ((void)0)
#endif

#define STACK_BYTES (1u << 20) /* sanitizers make large frames; what is not touched costs nothing */
#define SLICE_NS 1000000u      /* how often a thread that waits looks at its limit */
#define DEFAULT_TIMEOUT_NS 30000000000ull

enum fibre_state { FIBRE_READY, FIBRE_WAITING, FIBRE_DONE };

struct fibre {
    ucontext_t context;
    struct sched *sched;
    const struct fake_fibre *what;
    char *stack; /* the guard page below it included */
    enum fibre_state state;
    unsigned cpu;
    /* while waiting: */
    struct fake_mutex *mutex;
    uint64_t deadline; /* UINT64_MAX: none of its own */
    const uint32_t *stop;
    void *asan_stack;
};

struct sched {
    ucontext_t home;
    struct fake_machine *machine;
    uint64_t random;
    struct fibre *fibres;
    unsigned nr_fibres;
    unsigned switch_one_in;
    struct fake_sched_report *report;
    const void *home_bottom;
    size_t home_bytes;
    void *asan_stack;
};

static _Thread_local struct fibre *here; /* null: an ordinary thread */
static _Thread_local unsigned thread_cpu;

static size_t guard_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

bool fake_sched_supported(void)
{
#ifdef HAVE_TSAN
    return false;
#else
    return true;
#endif
}

void fake_set_cpu(unsigned cpu)
{
    *(here ? &here->cpu : &thread_cpu) = cpu;
}

unsigned fake_current_cpu(void)
{
    return here ? here->cpu : thread_cpu;
}

/* Who this is, for locks: the fibre, or something that only this thread has. */
static const void *myself(void)
{
    return here ? (const void *)here : (const void *)&thread_cpu;
}

/* --- switching -------------------------------------------------------------------------------- */

static void go_home(void)
{
    struct fibre *fibre = here;
    struct sched *sched = fibre->sched;

    /* A fibre that ends gives its fake stack back: no place to save it. */
    __sanitizer_start_switch_fiber(fibre->state == FIBRE_DONE ? NULL : &fibre->asan_stack,
                                   sched->home_bottom, sched->home_bytes);
    swapcontext(&fibre->context, &sched->home);
    __sanitizer_finish_switch_fiber(fibre->asan_stack, &sched->home_bottom, &sched->home_bytes);
}

static void fibre_main(void)
{
    struct fibre *fibre = here;

    __sanitizer_finish_switch_fiber(NULL, &fibre->sched->home_bottom, &fibre->sched->home_bytes);
    fibre->what->run(fibre->what->context);
    fibre->state = FIBRE_DONE;
    go_home();
}

static void run_fibre(struct sched *sched, struct fibre *fibre)
{
    fibre->state = FIBRE_READY;
    here = fibre;
    __sanitizer_start_switch_fiber(&sched->asan_stack, fibre->stack + guard_bytes(), STACK_BYTES);
    swapcontext(&sched->home, &fibre->context);
    __sanitizer_finish_switch_fiber(sched->asan_stack, NULL, NULL);
    here = NULL;
}

void fake_sched_point_rarely(unsigned one_in)
{
    if (here && fake_random(&here->sched->random) % one_in == 0)
        go_home();
}

void fake_sched_point(void)
{
    if (here)
        fake_sched_point_rarely(here->sched->switch_one_in);
}

void fake_sched_yield(void)
{
    if (here)
        go_home();
    else
        sched_yield();
}

/* --- the choice of who runs ------------------------------------------------------------------- */

static uint64_t sched_clock(const struct sched *sched)
{
    return sched->machine ? fake_clock(sched->machine) : 0;
}

static bool is_stopped(const uint32_t *stop)
{
    return stop && __atomic_load_n(stop, __ATOMIC_ACQUIRE);
}

static bool can_run(const struct sched *sched, const struct fibre *fibre)
{
    if (fibre->state != FIBRE_WAITING)
        return fibre->state == FIBRE_READY;
    return !fake_mutex_is_held(fibre->mutex) || is_stopped(fibre->stop) ||
           sched_clock(sched) >= fibre->deadline;
}

/* Any of those that can run, each as likely as the other; null: none. */
static struct fibre *choose(struct sched *sched)
{
    struct fibre *chosen = NULL;
    uint64_t nr = 0;
    unsigned i;

    for (i = 0; i < sched->nr_fibres; i++)
        nr += can_run(sched, &sched->fibres[i]);
    if (!nr)
        return NULL;
    nr = fake_random(&sched->random) % nr;
    for (i = 0; !chosen; i++)
        if (can_run(sched, &sched->fibres[i]) && nr-- == 0)
            chosen = &sched->fibres[i];
    return chosen;
}

/* Nobody can run: let time pass up to the first deadline. False: there is none. */
static bool pass_time(struct sched *sched)
{
    uint64_t first = UINT64_MAX;
    unsigned i;

    for (i = 0; i < sched->nr_fibres; i++)
        if (sched->fibres[i].state == FIBRE_WAITING && sched->fibres[i].deadline < first)
            first = sched->fibres[i].deadline;
    if (first == UINT64_MAX || !sched->machine)
        return false;
    if (!sched->machine->config.real_clock)
        fake_clock_advance(sched->machine, first - fake_clock(sched->machine));
    else
        usleep(SLICE_NS / 1000);
    return true;
}

/* The name of who holds what this fibre waits for. */
static const char *holder(const struct sched *sched, const struct fibre *fibre)
{
    unsigned i;

    for (i = 0; i < sched->nr_fibres; i++)
        if (fibre->mutex->owner == &sched->fibres[i])
            return sched->fibres[i].what->name;
    return "somebody else";
}

static void report_deadlock(const struct sched *sched)
{
    struct fake_sched_report *report = sched->report;
    size_t length = 0;
    unsigned i;

    for (i = 0; i < sched->nr_fibres && length < sizeof(report->text); i++) {
        const struct fibre *fibre = &sched->fibres[i];
        int more;

        if (fibre->state != FIBRE_WAITING)
            continue;
        more = snprintf(report->text + length, sizeof(report->text) - length,
                        "%s waits for %s, which %s holds\n", fibre->what->name,
                        fibre->mutex->name, holder(sched, fibre));
        length += more > 0 ? (size_t)more : 0;
    }
}

static int sched_loop(struct sched *sched)
{
    for (;;) {
        struct fibre *fibre = choose(sched);
        bool all_done = true;
        unsigned i;

        if (fibre) {
            if (++sched->report->nr_switches > FAKE_SCHED_SWITCHES_MAX)
                return -ETIMEDOUT;
            sched->report->trace += (uint64_t)(fibre - sched->fibres) + 1;
            sched->report->trace = fake_random(&sched->report->trace);
            run_fibre(sched, fibre);
            continue;
        }
        for (i = 0; i < sched->nr_fibres; i++)
            all_done = all_done && sched->fibres[i].state == FIBRE_DONE;
        if (all_done)
            return 0;
        if (!pass_time(sched)) {
            report_deadlock(sched);
            return -EDEADLK;
        }
    }
}

/* --- a run ------------------------------------------------------------------------------------ */

static int fibre_open(struct sched *sched, struct fibre *fibre, const struct fake_fibre *what)
{
    size_t size = STACK_BYTES + guard_bytes();

    *fibre = (struct fibre){.sched = sched, .what = what, .cpu = what->cpu};
    fibre->stack = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fibre->stack == MAP_FAILED) {
        fibre->stack = NULL;
        return -ENOMEM;
    }
    if (mprotect(fibre->stack, guard_bytes(), PROT_NONE) || getcontext(&fibre->context))
        return -ENOMEM;
    fibre->context.uc_stack.ss_sp = fibre->stack + guard_bytes();
    fibre->context.uc_stack.ss_size = STACK_BYTES;
    fibre->context.uc_link = NULL;
    makecontext(&fibre->context, fibre_main, 0);
    return 0;
}

static void fibre_close(struct fibre *fibre)
{
    if (!fibre->stack)
        return;
    __asan_unpoison_memory_region(fibre->stack + guard_bytes(), STACK_BYTES);
    munmap(fibre->stack, STACK_BYTES + guard_bytes());
}

int fake_sched_run(struct fake_machine *machine, uint64_t seed, const struct fake_fibre *fibres,
                   unsigned nr_fibres, struct fake_sched_report *report)
{
    struct fake_sched_report no_report;
    struct sched sched = {.machine = machine, .random = seed, .nr_fibres = nr_fibres,
                          .switch_one_in = machine ? machine->config.switch_one_in : 3,
                          .report = report ? report : &no_report};
    int error = 0;
    unsigned i;

    *sched.report = (struct fake_sched_report){0};
    if (!fake_sched_supported() || here)
        return -ENOSYS;
    sched.fibres = calloc(nr_fibres + 1, sizeof(*sched.fibres));
    if (!sched.fibres)
        return -ENOMEM;
    for (i = 0; i < nr_fibres && !error; i++)
        error = fibre_open(&sched, &sched.fibres[i], &fibres[i]);
    if (!error)
        error = sched_loop(&sched);
    for (i = 0; i < nr_fibres; i++)
        fibre_close(&sched.fibres[i]);
    free(sched.fibres);
    return error;
}

/* --- locks ------------------------------------------------------------------------------------ */

void fake_mutex_open(struct fake_mutex *mutex, const char *name)
{
    pthread_mutex_init(&mutex->guard, NULL);
    pthread_cond_init(&mutex->released, NULL);
    mutex->owner = NULL;
    mutex->name = name;
}

void fake_mutex_close(struct fake_mutex *mutex)
{
    pthread_cond_destroy(&mutex->released);
    pthread_mutex_destroy(&mutex->guard);
}

static const void *mutex_owner(struct fake_mutex *mutex)
{
    const void *owner;

    pthread_mutex_lock(&mutex->guard);
    owner = mutex->owner;
    pthread_mutex_unlock(&mutex->guard);
    return owner;
}

bool fake_mutex_is_mine(struct fake_mutex *mutex)
{
    return mutex_owner(mutex) == myself();
}

bool fake_mutex_is_held(struct fake_mutex *mutex)
{
    return mutex_owner(mutex) != NULL;
}

static void wait_slice(struct fake_mutex *mutex, struct fake_machine *machine)
{
    struct timespec until;
    int error;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += SLICE_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    error = pthread_cond_timedwait(&mutex->released, &mutex->guard, &until);
    /* Between threads nobody else moves a virtual clock, and a limit has to end some time. */
    if (error == ETIMEDOUT && machine && !machine->config.real_clock)
        fake_clock_advance(machine, SLICE_NS);
}

/* With the guard held, which is released in between. */
static int mutex_wait(struct fake_mutex *mutex, struct fake_machine *machine,
                      const struct memplug_limit *limit, uint64_t deadline)
{
    while (mutex->owner) {
        if (limit && is_stopped(limit->stop))
            return -EINTR;
        if (machine && fake_clock(machine) >= deadline)
            return -ETIMEDOUT;
        if (!here) {
            wait_slice(mutex, machine);
            continue;
        }
        here->mutex = mutex;
        here->stop = limit ? limit->stop : NULL;
        here->deadline = limit && limit->timeout_ns ? deadline : UINT64_MAX;
        here->state = FIBRE_WAITING;
        pthread_mutex_unlock(&mutex->guard);
        go_home();
        pthread_mutex_lock(&mutex->guard);
    }
    return 0;
}

int fake_mutex_lock(struct fake_mutex *mutex, struct fake_machine *machine,
                    const struct memplug_limit *limit)
{
    uint64_t deadline = UINT64_MAX;
    int error = -EDEADLK;

    if (limit && machine) {
        uint64_t timeout = limit->timeout_ns ? limit->timeout_ns : DEFAULT_TIMEOUT_NS;
        uint64_t now = fake_clock(machine);

        deadline = timeout > UINT64_MAX - now ? UINT64_MAX : now + timeout;
    }
    pthread_mutex_lock(&mutex->guard);
    if (mutex->owner != myself())
        error = mutex_wait(mutex, machine, limit, deadline);
    if (!error)
        mutex->owner = myself();
    pthread_mutex_unlock(&mutex->guard);
    return error;
}

int fake_mutex_unlock(struct fake_mutex *mutex)
{
    int error = -EPERM;

    pthread_mutex_lock(&mutex->guard);
    if (mutex->owner == myself()) {
        mutex->owner = NULL;
        pthread_cond_broadcast(&mutex->released);
        error = 0;
    }
    pthread_mutex_unlock(&mutex->guard);
    return error;
}
