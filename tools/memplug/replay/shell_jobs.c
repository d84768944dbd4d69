/* SPDX-License-Identifier: MIT */
/*
 * Background jobs. A job has a stack of its own, runs until it sleeps, and goes on when its time
 * has come and somebody else sleeps or waits; so what runs when is the same each time. One that
 * still sleeps at the end of its line is parked with the line's memory, and goes on between the
 * steps.
 */
#include "shell_private.h"

#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define STACK_BYTES ((size_t)1 << 20)
#define JOBS_MAX 100u /* that sleep at the same time */

struct job {
    struct shell *shell;
    const struct node *node;
    unsigned number;
    enum { JOB_RUNS, JOB_SLEEPS, JOB_DONE } state;
    int status;
    uint64_t wake_ns;
    bool left;         /* what it ran cannot go on, nor can the line */
    struct shell side; /* the shell as the job has it, while it does not run; else as its parent */
    ucontext_t context, home;
    void *stack;
    void *saved, *home_saved; /* the address sanitizer's */
    const void *home_bottom;
    size_t home_bytes;
    struct job *next;
};

/* Sanitizers: that for threads does not follow ucontext at all, that for addresses wants to be
 * told. Null where they are not. */
__attribute__((weak)) extern void __tsan_init(void);
__attribute__((weak)) extern void __sanitizer_start_switch_fiber(void **save, const void *bottom,
                                                                 size_t size_bytes);
__attribute__((weak)) extern void __sanitizer_finish_switch_fiber(void *saved, const void **bottom,
                                                                  size_t *size_bytes);

static void start_switch(void **save, const void *bottom, size_t size_bytes)
{
    if (__sanitizer_start_switch_fiber != NULL)
        __sanitizer_start_switch_fiber(save, bottom, size_bytes);
}

static void finish_switch(void *saved, const void **bottom, size_t *size_bytes)
{
    if (__sanitizer_finish_switch_fiber != NULL)
        __sanitizer_finish_switch_fiber(saved, bottom, size_bytes);
}

static uint64_t now_ns(const struct shell *shell)
{
    return shell->host->clock(shell->host->context);
}

/* What is the line's own, whoever runs. */
static void copy_common(struct shell *to, const struct shell *from)
{
    to->chunks = from->chunks;
    to->allocated_bytes = from->allocated_bytes;
    to->result = from->result;
    to->parked_result = from->parked_result;
    to->next_parked = from->next_parked;
    to->output = from->output;
    to->files = from->files;
    to->regexes = from->regexes;
    to->known = from->known;
    to->random = from->random;
    to->scratch = from->scratch;
    to->nr_commands = from->nr_commands;
    to->nr_jobs = from->nr_jobs;
    to->jobs = from->jobs;
    to->foreign = from->foreign;
    to->changes = from->changes;
}

static void exchange(struct shell *shell, struct shell *side)
{
    const struct shell before = *shell;

    *shell = *side;
    copy_common(shell, &before);
    *side = before;
}

/* From a job to who resumed it. A job that ends needs nothing any more. */
static void go_home(struct job *job)
{
    start_switch(job->state == JOB_DONE ? NULL : &job->saved, job->home_bottom, job->home_bytes);
    swapcontext(&job->context, &job->home);
    finish_switch(job->saved, &job->home_bottom, &job->home_bytes);
}

static void job_main(unsigned high, unsigned low)
{
    struct job *job = (struct job *)(((uintptr_t)high << 32) | low); /* a context takes ints only */
    jmp_buf leave;

    finish_switch(NULL, &job->home_bottom, &job->home_bytes);
    job->shell->leave = &leave;
    if (setjmp(leave) == 0)
        job->status = run_job(job->shell, job->node);
    else
        job->left = true;
    job->state = JOB_DONE;
    go_home(job);
}

/* Until it sleeps or ends. False if the line cannot go on. */
static bool resume(struct job *job)
{
    struct shell *shell = job->shell;

    job->state = JOB_RUNS;
    exchange(shell, &job->side);
    shell->job = job;
    deadline_set(shell);
    start_switch(&job->home_saved, job->stack, STACK_BYTES);
    swapcontext(&job->home, &job->context);
    finish_switch(job->home_saved, NULL, NULL);
    exchange(shell, &job->side);
    deadline_set(shell);
    if (job->state != JOB_DONE)
        return true;
    free(job->stack);
    job->stack = NULL;
    return !job->left;
}

static struct job *first_job(struct shell *shell, uint64_t until_ns)
{
    struct job *first = NULL;

    for (struct job *job = shell->jobs; job != NULL; job = job->next)
        if (job->state == JOB_SLEEPS && job->wake_ns <= until_ns &&
            (first == NULL || job->wake_ns < first->wake_ns))
            first = job;
    return first;
}

/* One that is due by then; the clock goes on to its time. */
static bool run_one(struct shell *shell, struct job *job)
{
    uint64_t now = now_ns(shell);

    if (job->wake_ns > now && shell->host->sleep != NULL)
        shell->host->sleep(shell->host->context, job->wake_ns - now);
    return resume(job);
}

void jobs_run(struct shell *shell, uint64_t until_ns)
{
    struct job *job;

    while (shell->job == NULL && (job = first_job(shell, until_ns)) != NULL)
        if (!run_one(shell, job))
            shell_leave(shell, shell->result->verdict);
}

bool job_start(struct shell *shell, const struct node *node)
{
    struct job *job;
    unsigned nr_sleep = 0;

    if (shell->job != NULL || shell->host->clock == NULL || __tsan_init != NULL)
        return false;
    for (job = shell->jobs; job != NULL; job = job->next)
        nr_sleep += job->state == JOB_SLEEPS;
    if (nr_sleep == JOBS_MAX)
        shell_leave(shell, SHELL_ENDLESS);
    job = shell_alloc(shell, sizeof(*job));
    job->stack = malloc(STACK_BYTES);
    if (job->stack == NULL)
        return false;
    job->shell = shell;
    job->node = node;
    job->number = shell->nr_jobs;
    job->side = *shell;
    job->side.loops = job->side.depth = job->side.tested = 0;
    job->side.escape = NULL;
    job->side.reader = NULL;
    job->side.out = (struct text){.length = 0};
    getcontext(&job->context);
    job->context.uc_stack.ss_sp = job->stack;
    job->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&job->context, (void (*)(void))job_main, 2, (unsigned)((uintptr_t)job >> 32),
                (unsigned)(uintptr_t)job);
    job->next = shell->jobs;
    shell->jobs = job;
    if (!resume(job))
        shell_leave(shell, shell->result->verdict);
    return true;
}

bool job_sleep(struct shell *shell, uint64_t ns)
{
    struct job *job = shell->job;

    if (job == NULL)
        return false;
    job->wake_ns = now_ns(shell) + ns;
    job->state = JOB_SLEEPS;
    go_home(job);
    return true;
}

/* --- wait and kill ---------------------------------------------------------------------------- */

static struct job *find_job(const struct shell *shell, const char *text)
{
    int64_t number;

    if (text[0] == '%' ? !number_parse(text + 1, &number)
                       : !number_parse(text, &number) || (number -= SHELL_FIRST_JOB) < 1)
        return NULL;
    for (struct job *job = shell->jobs; job != NULL; job = job->next)
        if (job->number == (unsigned)number)
            return job;
    return NULL;
}

int run_wait(struct shell *shell, int argc, char **argv)
{
    int status = 0;

    if (argc == 1)
        jobs_run(shell, UINT64_MAX);
    for (int i = 1; i < argc; i++) {
        struct job *job = find_job(shell, argv[i]);

        while (job != NULL && job->state == JOB_SLEEPS)
            jobs_run(shell, job->wake_ns);
        status = job != NULL ? job->status : 127;
    }
    return status;
}

static void end_job(struct job *job, int status)
{
    if (job->state != JOB_SLEEPS)
        return;
    job->state = JOB_DONE;
    job->status = status;
    for (unsigned fd = 0; fd < SHELL_FDS; fd++)
        file_put(job->shell, job->side.own.files[fd]);
    free(job->stack);
    job->stack = NULL;
}

/* A job that sleeps can be ended; nothing else that runs here can be told anything. */
int run_kill(struct shell *shell, int argc, char **argv)
{
    int status = 0, number = 15, at = 1;

    if (argc > 1 && argv[1][0] == '-') {
        const char *name = argv[at++] + 1;

        name += strncmp(name, "SIG", 3) == 0 ? 3 : 0;
        number = strcmp(name, "9") == 0 || strcmp(name, "KILL") == 0 ? 9
                 : strcmp(name, "0") == 0                            ? 0
                                                                     : 15;
        if (number == 15 && strcmp(name, "15") != 0 && strcmp(name, "TERM") != 0)
            shell_unknown(shell, shell_format(shell, "kill -%s", name));
    }
    for (; at < argc; at++) {
        struct job *job = find_job(shell, argv[at]);

        if (job != NULL && job->state == JOB_SLEEPS && number != 0) {
            end_job(job, 128 + number);
        } else if (job == NULL || job->state != JOB_SLEEPS) {
            complain(shell, "can't kill pid %s: No such process", argv[at]);
            status = 1;
        }
    }
    return status;
}

/* --- jobs that outlive their line ------------------------------------------------------------- */

bool jobs_are_left(struct shell *shell)
{
    return first_job(shell, UINT64_MAX) != NULL;
}

void jobs_end(struct shell *shell)
{
    for (struct job *job = shell->jobs; job != NULL; job = job->next)
        end_job(job, 128 + 9);
}

void shell_parked_run(struct shell **parked, uint64_t until_ns)
{
    for (;;) {
        struct shell **owner = NULL;
        struct job *first = NULL;

        for (struct shell **at = parked; *at != NULL; at = &(*at)->next_parked) {
            struct job *job = first_job(*at, until_ns);

            if (job != NULL && (first == NULL || job->wake_ns < first->wake_ns)) {
                first = job;
                owner = at;
            }
        }
        if (first == NULL)
            return;
        if (!run_one(*owner, first) || !jobs_are_left(*owner)) {
            struct shell *done = *owner;

            *owner = done->next_parked;
            shell_free(done);
        }
    }
}

void shell_parked_end(struct shell **parked)
{
    while (*parked != NULL) {
        struct shell *done = *parked;

        *parked = done->next_parked;
        shell_free(done);
    }
}
