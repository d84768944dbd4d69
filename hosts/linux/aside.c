/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "aside.h"

#include "raw.h"
#include "sys.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define NR_CPUS 8192
#define STACK_BYTES ((uint64_t)64 << 10)
#define LOOK_NS 20000000 /* how often a waiting thread sees whether the helper lives */

enum { FREE, READY, TAKEN, DONE };

/* --- the helper: nothing of the C library ----------------------------------------------------- */

#define NO_SANITIZER __attribute__((no_sanitize("address", "undefined", "thread")))

NO_SANITIZER static bool take(struct mpl_aside_call *call)
{
    uint32_t ready = READY;

    return atomic_load_explicit(&call->state, memory_order_relaxed) == READY &&
           atomic_compare_exchange_strong(&call->state, &ready, TAKEN);
}

NO_SANITIZER static int make_hole(const struct mpl_aside_hole *hole)
{
    struct stat status;
    long error = mpl_raw5(SYS_fstat, hole->fd, (long)&status, 0, 0, 0);

    if (error != 0 || status.st_dev != hole->dev || status.st_ino != hole->ino)
        return -ENODEV;
    return (int)mpl_raw5(SYS_fallocate, hole->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         (long)hole->offset, (long)hole->size_bytes, 0);
}

NO_SANITIZER static void carry_out(struct mpl_aside_call *call)
{
    call->result = make_hole(&call->hole);
    atomic_store(&call->state, DONE);
    mpl_raw5(SYS_futex, (long)&call->state, FUTEX_WAKE_PRIVATE, 1, 0, 0);
}

NO_SANITIZER static bool do_one(struct mpl_aside *aside)
{
    for (unsigned i = 0; i < MPL_ASIDE_CALLS; i++)
        if (take(&aside->calls[i])) {
            carry_out(&aside->calls[i]);
            return true;
        }
    return false;
}

NO_SANITIZER static int helper_main(void *argument)
{
    struct mpl_aside *aside = argument;

    mpl_raw5(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (mpl_raw5(SYS_getppid, 0, 0, 0, 0, 0) != aside->owner)
        return 0;
    while (!atomic_load(&aside->quit)) {
        uint32_t seen = atomic_load(&aside->nr_posted);

        if (!do_one(aside) && !atomic_load(&aside->quit))
            mpl_raw5(SYS_futex, (long)&aside->nr_posted, FUTEX_WAIT_PRIVATE, seen, 0, 0);
    }
    return 0;
}

/* --- start and stop --------------------------------------------------------------------------- */

static bool other_cpu(void)
{
    uint64_t cpus[NR_CPUS / 64] = {0};
    int nr = 0;

    if (syscall(SYS_sched_getaffinity, 0, sizeof(cpus), cpus) < 0)
        return false;
    for (unsigned i = 0; i < NR_CPUS / 64; i++)
        nr += __builtin_popcountll(cpus[i]);
    return nr > 1;
}

void mpl_aside_start(struct mpl_aside *aside)
{
    sigset_t all, before;

    if (!other_cpu())
        return;
    aside->stack = mpl_sys_mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (aside->stack == MAP_FAILED)
        return;
    aside->owner = (pid_t)syscall(SYS_getpid);
    atomic_store(&aside->quit, false);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    aside->pid = clone(helper_main, aside->stack + STACK_BYTES, CLONE_VM | CLONE_FS | CLONE_FILES,
                       aside);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    aside->running = aside->pid > 0;
    if (!aside->running)
        mpl_sys_munmap(aside->stack, STACK_BYTES);
}

static void reap(struct mpl_aside *aside)
{
    mpl_sys_reap(aside->pid);
    mpl_sys_munmap(aside->stack, STACK_BYTES);
    aside->running = false;
}

static void wake_helper(struct mpl_aside *aside)
{
    atomic_fetch_add(&aside->nr_posted, 1);
    syscall(SYS_futex, &aside->nr_posted, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void mpl_aside_stop(struct mpl_aside *aside)
{
    if (!aside->running)
        return;
    atomic_store(&aside->quit, true);
    wake_helper(aside);
    reap(aside);
}

/* --- calls ------------------------------------------------------------------------------------ */

struct mpl_aside_call *mpl_aside_post(struct mpl_aside *aside, const struct mpl_aside_hole *hole)
{
    for (unsigned i = 0; i < MPL_ASIDE_CALLS; i++) {
        struct mpl_aside_call *call = &aside->calls[aside->next++ % MPL_ASIDE_CALLS];

        if (atomic_load(&call->state) != FREE)
            continue;
        call->hole = *hole;
        atomic_store(&call->state, aside->running ? READY : TAKEN);
        if (aside->running)
            wake_helper(aside);
        else
            carry_out(call);
        return call;
    }
    return NULL;
}

/* It can be killed; a call that it was in is made once more, which does no harm. */
static bool is_dead(struct mpl_aside *aside)
{
    long ended = syscall(SYS_wait4, aside->pid, NULL, __WALL | WNOHANG, NULL);

    return ended == aside->pid || (ended < 0 && errno == ECHILD);
}

static void sleep_until_done(struct mpl_aside *aside, struct mpl_aside_call *call)
{
    const struct timespec look = {.tv_nsec = LOOK_NS};

    if (syscall(SYS_futex, &call->state, FUTEX_WAIT_PRIVATE, TAKEN, &look, NULL, 0) == 0 ||
        errno != ETIMEDOUT || !is_dead(aside) || atomic_load(&call->state) == DONE)
        return;
    reap(aside);
    carry_out(call);
}

int mpl_aside_wait(struct mpl_aside *aside, struct mpl_aside_call *call)
{
    while (atomic_load(&call->state) != DONE)
        if (!do_one(aside))
            sleep_until_done(aside, call);
    atomic_store(&call->state, FREE);
    return call->result;
}
