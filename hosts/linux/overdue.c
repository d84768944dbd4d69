/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "overdue.h"

#include "lock.h"
#include "sys.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <time.h>

/* No copy of 2 MiB takes as long, on a machine that works at all. Looks are counted, since the
 * clock goes on while all threads are stopped. */
#define LIMIT_LOOKS 20u
#define LOOK_NS 500000000

enum { NOTHING, CHILDREN, STOP };

static void set_work(struct mpl_overdue *overdue, uint32_t work)
{
    if (atomic_exchange(&overdue->work, work) != work)
        syscall(SYS_futex, &overdue->work, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* By a descriptor, and looked at once more: the number may be another's by now. */
static void end_child(struct mpl_overdue *overdue, uint64_t since_ns)
{
    int pid = atomic_load(&overdue->pid);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool ended = pidfd >= 0 && atomic_load(&overdue->since_ns) == since_ns &&
                 syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0;

    if (pidfd >= 0)
        mpl_sys_close(pidfd);
    if (!ended)
        return;
    atomic_fetch_add_explicit(overdue->nr_ended, 1, memory_order_relaxed);
    if (overdue->ended)
        overdue->ended(pid);
}

static void *life(void *argument)
{
    const struct timespec pause = {.tv_nsec = LOOK_NS};
    struct mpl_overdue *overdue = argument;
    uint64_t seen_ns = 0;
    unsigned nr_looks = 0;
    uint32_t work;

    while ((work = atomic_load(&overdue->work)) != STOP) {
        uint64_t since_ns = atomic_load(&overdue->since_ns);

        nr_looks = since_ns != 0 && since_ns == seen_ns ? nr_looks + 1 : 0;
        seen_ns = since_ns;
        if (nr_looks == LIMIT_LOOKS)
            end_child(overdue, since_ns);
        syscall(SYS_futex, &overdue->work, FUTEX_WAIT_PRIVATE, work,
                work == CHILDREN ? &pause : NULL, NULL, 0);
    }
    return NULL;
}

int mpl_overdue_open(struct mpl_overdue *overdue, void *stack, uint64_t stack_bytes)
{
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);

    if (error == 0)
        error = pthread_attr_setstack(&attributes, stack, stack_bytes);
    if (error == 0)
        error = pthread_create(&overdue->thread, &attributes, life, overdue);
    pthread_attr_destroy(&attributes);
    return -error;
}

void mpl_overdue_close(struct mpl_overdue *overdue)
{
    set_work(overdue, STOP);
    pthread_join(overdue->thread, NULL);
}

void mpl_overdue_watch(struct mpl_overdue *overdue, bool any)
{
    set_work(overdue, any ? CHILDREN : NOTHING);
}

void mpl_overdue_begin(struct mpl_overdue *overdue, pid_t pid)
{
    atomic_store_explicit(&overdue->pid, pid, memory_order_relaxed);
    atomic_store_explicit(&overdue->since_ns, mpl_now_ns(), memory_order_release);
}

void mpl_overdue_end(struct mpl_overdue *overdue)
{
    atomic_store_explicit(&overdue->since_ns, 0, memory_order_release);
}
