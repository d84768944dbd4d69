/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "hurry.h"

#include "sys.h"

#include <sched.h>
#include <sys/resource.h>

#define HURRY_NICE (-19)

static bool set(const struct mpl_schedule *schedule)
{
    return syscall(SYS_sched_setattr, 0, schedule, 0) == 0;
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
    struct mpl_schedule *before = &hurry->before, fast;

    hurry->hurried = false;
    if (syscall(SYS_sched_getattr, 0, before, sizeof(*before), 0) != 0 ||
        (before->policy != SCHED_OTHER && before->policy != SCHED_BATCH &&
         before->policy != SCHED_IDLE))
        return;
    fast = (struct mpl_schedule){
        .size = sizeof(fast),
        .policy = SCHED_FIFO,
        .flags = before->flags,
        .priority = 1,
    };
    hurry->hurried = may_be_real_time() && set(&fast);
    if (hurry->hurried || before->nice <= HURRY_NICE)
        return;
    fast = *before;
    fast.nice = HURRY_NICE;
    hurry->hurried = set(&fast);
}

void mpl_calm(struct mpl_hurry *hurry)
{
    if (hurry->hurried)
        set(&hurry->before);
    hurry->hurried = false;
}
