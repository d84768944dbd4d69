/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "hurry.h"

#include "sys.h"

#include <sched.h>
#include <sys/resource.h>

/* Leaves the nice value alone, and the slice, of which sched_setattr(2) would make one of the
 * thread's own. */
static bool set_policy(int policy, int priority)
{
    const struct sched_param param = {.sched_priority = priority};

    return syscall(SYS_sched_setscheduler, 0, policy, &param) == 0;
}

static bool set_nice(int nice)
{
    return syscall(SYS_setpriority, PRIO_PROCESS, 0, nice) == 0;
}

/* A limit of real time is a signal that ends the program, and what passed under fences adds up. */
static bool may_be_real_time(void)
{
    struct rlimit limit;

    return syscall(SYS_prlimit64, 0, RLIMIT_RTTIME, NULL, &limit) == 0 &&
           limit.rlim_cur == RLIM_INFINITY;
}

void mpl_hurry(struct mpl_hurry *hurry)
{
    int policy = (int)syscall(SYS_sched_getscheduler, 0), reset = policy & SCHED_RESET_ON_FORK;

    *hurry = (struct mpl_hurry){.policy = policy};
    if (policy != (SCHED_OTHER | reset) && policy != (SCHED_BATCH | reset) &&
        policy != (SCHED_IDLE | reset))
        return; /* its own, or none is told */
    hurry->real_time = may_be_real_time() && set_policy(SCHED_FIFO | reset, 1);
    hurry->nice = 20 - (int)syscall(SYS_getpriority, PRIO_PROCESS, 0);
    hurry->nicer = !hurry->real_time && hurry->nice > MPL_HURRY_NICE && set_nice(MPL_HURRY_NICE);
}

void mpl_calm(struct mpl_hurry *hurry)
{
    if (hurry->real_time)
        set_policy(hurry->policy, 0);
    if (hurry->nicer)
        set_nice(hurry->nice);
    hurry->real_time = hurry->nicer = false;
}
