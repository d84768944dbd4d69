/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "waiters.h"

#include "live.h"
#include "sys.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>

/* Newer than the headers of some distributions. */
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SYS_futex_wait
#define SYS_futex_wait 455
#endif
#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif
#define WAITV_PRIVATE 128u
#define WAITV_MAX 128u

/* Two hundred thousand threads; but a look that is cut short proves nothing. */
#define LOOK_NS 2000000000u

/* What futex_waitv(2) takes. */
struct waitv {
    uint64_t value, address;
    uint32_t flags, reserved;
};

/* --- who waits -------------------------------------------------------------------------------- */

static bool waits_in_futex(const struct mpl_proc_call *call, mpl_waiter_act *act, void *context)
{
    struct mpl_waiter waiter = {.tid = call->tid, .address = call->args[0]};
    unsigned command = (unsigned)call->args[1] & FUTEX_CMD_MASK;

    if ((call->args[1] & FUTEX_PRIVATE_FLAG) != 0)
        return true;
    switch (command) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
        return act(context, &waiter);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
        waiter.inherits = true;
        return act(context, &waiter);
    case FUTEX_WAIT_REQUEUE_PI:
        waiter.inherits = true;
        if (!act(context, &waiter))
            return false;
        waiter.address = call->args[4];
        return act(context, &waiter);
    default:
        return true;
    }
}

static bool waits_for_several(const struct mpl_proc_call *call, mpl_waiter_act *act,
                              void *context)
{
    struct mpl_waiter waiter = {.tid = call->tid};
    struct waitv one;

    for (uint64_t i = 0; i < call->args[1] && i < WAITV_MAX; i++) {
        if (!mpl_proc_peek(call->args[0] + i * sizeof(one), &one, sizeof(one)))
            return true;
        waiter.address = one.address;
        if ((one.flags & WAITV_PRIVATE) == 0 && !act(context, &waiter))
            return false;
    }
    return true;
}

/* A wait with a time that went on after a stop: the registers are those of the first call. Of other
 * calls they may look like it, which costs a wake for nobody. */
static bool waits_again(const struct mpl_proc_call *call, mpl_waiter_act *act, void *context)
{
    unsigned command = (unsigned)call->args[1] & FUTEX_CMD_MASK;

    if (command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET)
        return true;
    return waits_in_futex(call, act, context);
}

bool mpl_waiters_of(const struct mpl_proc_call *call, mpl_waiter_act *act, void *context)
{
    struct mpl_waiter waiter = {.tid = call->tid, .address = call->args[0]};

    switch (call->nr) {
    case SYS_futex:
        return waits_in_futex(call, act, context);
    case SYS_restart_syscall:
        return waits_again(call, act, context);
    case SYS_futex_waitv:
        return waits_for_several(call, act, context);
    case SYS_futex_wait:
        return (call->args[3] & WAITV_PRIVATE) != 0 || act(context, &waiter);
    default:
        return true;
    }
}

struct each {
    mpl_waiter_act *act;
    void *context;
};

static bool each_of_call(void *context, const struct mpl_proc_call *call)
{
    struct each *each = context;

    return mpl_waiters_of(call, each->act, each->context);
}

static bool each_waiter(mpl_waiter_act *act, void *context)
{
    struct each each = {act, context};

    return mpl_proc_calls(mpl_now_ns() + LOOK_NS, each_of_call, &each);
}

/* --- before the fence ------------------------------------------------------------------------- */

static bool note_waiter(void *context, const struct mpl_waiter *waiter)
{
    const struct memplug_space *space = context;
    struct mpl_live_waiters *waiters = &space->live->waiters;

    if (!mpl_in_window(space, waiter->address))
        return true;
    waiters->any = true;
    if (!waiter->inherits)
        return true;
    if (waiters->nr_inheriting == MPL_NR_INHERITING)
        return false;
    waiters->inheriting[waiters->nr_inheriting++] = mpl_unit_of(space, waiter->address);
    return true;
}

static void look(struct memplug_space *space)
{
    struct mpl_live_waiters *waiters = &space->live->waiters;
    uint64_t start_ns = mpl_now_ns();

    if (start_ns - waiters->looked_ns < waiters->took_ns)
        return;
    waiters->any = false;
    waiters->nr_inheriting = 0;
    waiters->blind = !each_waiter(note_waiter, space);
    waiters->looked_ns = mpl_now_ns();
    waiters->took_ns = waiters->looked_ns - start_ns;
}

const char *mpl_waiters_stay(struct memplug_space *space)
{
    const struct mpl_live *live = space->live;

    look(space);
    if (live->waiters.blind)
        return mpl_why_blind;
    for (unsigned i = 0; i < live->waiters.nr_inheriting; i++)
        for (unsigned unit = 0; unit < live->nr; unit++)
            if (live->units[unit].unit == live->waiters.inheriting[i])
                return mpl_why_waiter;
    return NULL;
}

int mpl_live_waiters(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    live->why = mpl_waiters_stay(space);
    if (!live->why)
        return 0;
    if (live->nr > 1)
        return -EAGAIN;
    mpl_count(&space->counters.nr_refused_other, 1);
    return -EBUSY;
}

/* --- after the switch ------------------------------------------------------------------------- */

struct wake {
    struct memplug_space *space;
    const struct memplug_move *moves;
    unsigned nr_moves;
    bool late;
};

/* Late, a block of huge pages has been renewed: the old place is no more. */
static void wake_at(struct memplug_space *space, uint64_t pfn, uint64_t offset, bool late)
{
    struct mpl_location from;
    const char *why;
    long nr;

    if (mpl_space_locate(space, pfn, &from, &why) != 0 ||
        (late && from.kind == MEMPLUG_BACKING_HUGETLB))
        return;
    nr = syscall(SYS_futex, mpl_frame_va(space, pfn) + offset, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    if (nr > 0)
        mpl_count(&space->counters.nr_waiters_woken, (uint64_t)nr);
    if (from.kind == MEMPLUG_BACKING_MEMFD)
        mpl_space_scrub(space, pfn, space->unit_pages, &from);
}

static bool wake_waiter(void *context, const struct mpl_waiter *waiter)
{
    const struct wake *wake = context;
    struct memplug_space *space = wake->space;

    if (!mpl_in_window(space, waiter->address))
        return true;
    for (unsigned i = 0; i < wake->nr_moves; i++)
        if (wake->moves[i].result == 0 &&
            (wake->moves[i].cookie & UINT32_MAX) == mpl_unit_of(space, waiter->address))
            wake_at(space, wake->moves[i].from.nr,
                    (waiter->address - (uintptr_t)space->window.base) % space->unit_bytes,
                    wake->late);
    return true;
}

void mpl_waiters_wake(struct memplug_space *space, const struct memplug_move *moves,
                      unsigned nr_moves, bool late)
{
    struct wake wake = {space, moves, nr_moves, late};

    each_waiter(wake_waiter, &wake);
}
