/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "first_write.h"

#include "attend.h"
#include "children.h"
#include "fork_gate.h"
#include "hurry.h"
#include "sys.h"

#include <errno.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>

#define STACK_BYTES ((uint64_t)384 << 10)
#define GUARD_BYTES ((uint64_t)64 << 10)
#define WATCH_BYTES ((uint64_t)128 << 10) /* of that stack, the other thread's */
#define RUN_BYTES ((uint64_t)64 << 10) /* settled around a first write: see bench/fork.c */
#define RETRY_NS 1000000
#define IDLE_S 1                       /* between two looks whether children have ended */

enum errand { LOOK, SETTLE, SETTLE_UNIT, ATTEND, ADOPT, STOP };

struct mpl_first {
    struct memplug_space *space;
    pthread_t thread;
    int uffd;
    char *bell;              /* the page that is touched */
    char *stack;             /* behind its guard */
    struct mpl_lock asking;
    _Atomic uint32_t turn;   /* 1: the thread has something to do */
    _Atomic uint32_t go;     /* it may read */
    enum errand errand;
    const char *va;
    uint64_t size_bytes;
    pid_t forker;
    struct mpl_attend *attend, *attended; /* asked for; of the fork that is under way */
    int result;

    void (*ended)(int pid);  /* is told who was ended; may be null */
    pid_t stuck;             /* a child that can neither have its copy nor be ended */
    uint64_t late_ns;        /* somebody's fault could not be dealt with yet; 0: nobody's */
    const char *why;         /* it does not work here */
    struct mpl_child_range *ranges; /* of the child that is to come */
    uint64_t nr_ranges;
    struct mpl_children children;
    struct mpl_overdue overdue;
};

/* --- the thread: pages ------------------------------------------------------------------------ */

static void wake(const struct mpl_first *first, uint64_t va, uint64_t size_bytes)
{
    struct uffdio_range range = {.start = va, .len = size_bytes};

    ioctl(first->uffd, UFFDIO_WAKE, &range);
}

static int unprotect(const struct mpl_first *first, uint64_t va, uint64_t size_bytes)
{
    struct uffdio_writeprotect wp = {.range = {.start = va, .len = size_bytes}};

    return ioctl(first->uffd, UFFDIO_WRITEPROTECT, &wp) < 0 ? -errno : 0;
}

/* Once: whoever waits for this child waits for long. */
static void say_stuck(struct mpl_first *first, unsigned which)
{
    pid_t pid = first->children.child[which].pid;

    if (pid != first->stuck && first->ended)
        first->ended(-pid);
    first->stuck = pid;
}

/* All children that live have these for themselves. A child that cannot be given its copy is ended:
 * nobody shares in silence. */
static int settle(struct mpl_first *first, uint64_t va, uint64_t size_bytes)
{
    struct mpl_children *children = &first->children;
    unsigned which;
    int error;

    if (first->space->no_fence)
        return 0; /* for tests that must see losses */
    while ((error = mpl_children_settle(children, (const char *)va, size_bytes, &which)) != 0) {
        int pid = mpl_children_end(children, which);

        if (pid < 0) {
            say_stuck(first, which);
            return error;
        }
        mpl_count(&first->space->counters.nr_children_ended, pid != 0);
        if (pid != 0 && first->ended)
            first->ended(pid);
    }
    return 0;
}

/* The run of pages around this one, within its unit; all of it where no child is left. */
static struct uffdio_range run_of(const struct mpl_first *first, uint64_t page, bool any)
{
    uint64_t bytes = first->space->unit_bytes;
    uint64_t start = (uintptr_t)first->space->window.base;

    if (any && bytes > RUN_BYTES)
        bytes = RUN_BYTES;
    start += (page - start) / bytes * bytes;
    return (struct uffdio_range){.start = start, .len = bytes};
}

/* Of a mapping whose place was to be a fault, where a fork could not be (fork_share.c). */
static bool fill(const struct mpl_first *first, uint64_t page, bool minor)
{
    struct uffdio_range range = {.start = page, .len = first->space->page_bytes};
    struct uffdio_continue here = {.range = range};
    struct uffdio_zeropage zero = {.range = range};
    int done = minor ? ioctl(first->uffd, UFFDIO_CONTINUE, &here)
                     : ioctl(first->uffd, UFFDIO_ZEROPAGE, &zero);

    return done == 0 || errno == EEXIST;
}

static void put_off(struct mpl_first *first)
{
    if (first->late_ns == 0)
        first->late_ns = mpl_now_ns();
}

static void first_write(struct mpl_first *first, uint64_t page, uint64_t flags)
{
    bool any = mpl_children_any(&first->children);
    struct uffdio_range run = run_of(first, page, any);

    if ((flags & UFFD_PAGEFAULT_FLAG_WP) == 0) {
        run = (struct uffdio_range){.start = page, .len = first->space->page_bytes};
        if (settle(first, run.start, run.len) != 0 ||
            !fill(first, page, (flags & UFFD_PAGEFAULT_FLAG_MINOR) != 0))
            put_off(first);
        return;
    }
    mpl_count(&first->space->counters.nr_first_writes, 1);
    if (any && settle(first, run.start, run.len) != 0) {
        put_off(first);
        return;
    }
    /* Not all of a unit need be of this kind. */
    if (unprotect(first, run.start, run.len) != 0 &&
        unprotect(first, page, first->space->page_bytes) == -EAGAIN)
        put_off(first);
    else
        wake(first, run.start, run.len);
}

/* --- the thread: what it is asked ------------------------------------------------------------- */

static int settle_unit(struct mpl_first *first)
{
    struct uffdio_range range = {.start = (uintptr_t)first->va, .len = first->size_bytes};
    int error = mpl_children_any(&first->children) ? settle(first, range.start, range.len) : 0;

    if (error != 0)
        return -EBUSY;
    unprotect(first, range.start, range.len);
    ioctl(first->uffd, UFFDIO_UNREGISTER, &range);
    wake(first, range.start, range.len);
    return 0;
}

static int run_errand(struct mpl_first *first)
{
    int error;

    switch (first->errand) {
    case LOOK:
        /* Not of the thread that asks: capabilities are a thread's own. */
        first->space->fork.traces_all = mpl_fork_traces_all();
        mpl_children_any(&first->children);
        return (int)atomic_load_explicit(&first->children.nr, memory_order_relaxed);
    case SETTLE:
        return mpl_children_any(&first->children)
                   ? settle(first, (uintptr_t)first->va, first->size_bytes) : 0;
    case SETTLE_UNIT:
        return settle_unit(first);
    case ATTEND:
        first->attended = first->attend;
        return 0;
    case ADOPT:
        error = mpl_children_adopt(&first->children, first->forker, &first->space->fork.serial,
                                   first->ranges, first->nr_ranges);
        if (error != 0)
            mpl_children_unlist(first->children.host, first->ranges, first->nr_ranges);
        first->nr_ranges = 0;
        return error;
    default:
        return 0;
    }
}

/* Once; should the answer be lost, since a mapping is just moving, the page is touched again. */
static void answer(struct mpl_first *first)
{
    struct uffdio_zeropage zero = {
        .range = {.start = (uintptr_t)first->bell, .len = first->space->page_bytes}};

    if (atomic_load_explicit(&first->turn, memory_order_acquire) != 0) {
        first->result = run_errand(first);
        atomic_store_explicit(&first->turn, 0, memory_order_release);
    }
    if (ioctl(first->uffd, UFFDIO_ZEROPAGE, &zero) < 0)
        wake(first, zero.range.start, zero.range.len);
}

static void hear(struct mpl_first *first, const struct uffd_msg *msg)
{
    uint64_t page = msg->arg.pagefault.address & ~(first->space->page_bytes - 1);

    if (msg->event != UFFD_EVENT_PAGEFAULT)
        return;
    if (page == (uintptr_t)first->bell)
        answer(first);
    else if (!first->attended)
        first_write(first, page, msg->arg.pagefault.flags);
    else if ((pid_t)msg->arg.pagefault.feat.ptid == first->attended->forker)
        mpl_attend_let_through(first->attended, msg);
}

/* --- the thread: its life --------------------------------------------------------------------- */

/* A table of descriptors with nothing in it but the userfaultfd. */
static int own_table(const struct mpl_first *first)
{
    unsigned uffd = (unsigned)first->uffd;

    if (syscall(SYS_close_range, uffd + 1, UINT32_MAX, CLOSE_RANGE_UNSHARE) != 0)
        return -errno;
    return uffd == 0 || syscall(SYS_close_range, 0, uffd - 1, 0) == 0 ? 0 : -errno;
}

static int settle_in(struct mpl_first *first)
{
    int error = own_table(first);

    first->why = "no table of descriptors of its own (close_range)";
    return error != 0 ? error : mpl_children_open(&first->children, &first->why);
}

/* Who was put off touches its page again. By the clock, and not when nothing else happens: others'
 * first writes may never pause. */
static void wake_late(struct mpl_first *first)
{
    if (first->late_ns == 0 || mpl_now_ns() - first->late_ns < RETRY_NS)
        return;
    first->late_ns = 0;
    wake(first, (uintptr_t)first->space->window.base, first->space->window.size_bytes);
}

/* Until there is something to hear, or to do without being asked. */
static void wait_for_faults(struct mpl_first *first)
{
    struct pollfd poll = {.fd = first->uffd, .events = POLLIN};
    bool any = atomic_load_explicit(&first->children.nr, memory_order_relaxed) > 0;
    const struct timespec limit = {.tv_sec = first->late_ns != 0 ? 0 : IDLE_S,
                                   .tv_nsec = first->late_ns != 0 ? RETRY_NS : 0};

    if (syscall(SYS_ppoll, &poll, 1, any || first->late_ns != 0 ? &limit : NULL, NULL, 0) == 0)
        mpl_children_any(&first->children);
}

static void *life(void *argument)
{
    struct mpl_first *first = argument;
    bool stopping = false;
    struct uffd_msg msg;

    /* Writers wait for it: where it may, it goes first. */
    syscall(SYS_setpriority, PRIO_PROCESS, 0, MPL_HURRY_NICE);
    first->result = settle_in(first);
    stopping = first->result != 0;
    atomic_store_explicit(&first->turn, 0, memory_order_release);
    syscall(SYS_futex, &first->turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    while (!stopping && atomic_load_explicit(&first->go, memory_order_acquire) == 0)
        syscall(SYS_futex, &first->go, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    while (!stopping) {
        wait_for_faults(first);
        wake_late(first);
        while (!stopping && mpl_sys_read(first->uffd, &msg, sizeof(msg)) == (long)sizeof(msg)) {
            hear(first, &msg);
            wake_late(first);
            stopping = first->errand == STOP &&
                       atomic_load_explicit(&first->turn, memory_order_relaxed) == 0;
        }
    }
    mpl_children_close(&first->children);
    return NULL;
}

/* --- who asks --------------------------------------------------------------------------------- */

static int ask(struct mpl_first *first, enum errand errand, const char *va, uint64_t size_bytes)
{
    uint64_t page_bytes = first->space->page_bytes;
    int result;

    mpl_lock_enter(&first->asking);
    first->errand = errand;
    first->va = va;
    first->size_bytes = size_bytes;
    first->forker = (pid_t)syscall(SYS_gettid);
    atomic_store_explicit(&first->turn, 1, memory_order_release);
    /* Locked, by mlockall(), it would be there. */
    while (atomic_load_explicit(&first->turn, memory_order_acquire) != 0) {
        if (mpl_sys_madvise(first->bell, page_bytes, MADV_DONTNEED) != 0)
            syscall(SYS_munlock, first->bell, page_bytes);
        else
            (void)*(volatile char *)first->bell;
    }
    result = first->result;
    mpl_lock_leave(&first->asking);
    return result;
}

static void settle_for_good(struct mpl_first *first, const char *va, uint64_t size_bytes)
{
    const struct timespec pause = {.tv_nsec = RETRY_NS};

    while (ask(first, SETTLE, va, size_bytes) != 0)
        syscall(SYS_nanosleep, &pause, NULL); /* no place where a thread is cancelled */
}

void mpl_first_settle(struct memplug_space *space, const char *va, uint64_t size_bytes)
{
    settle_for_good(space->fork.first, va, size_bytes);
}

bool mpl_first_has_children(const struct memplug_space *space)
{
    const struct mpl_first *first = space->fork.first;

    return first && atomic_load_explicit(&first->children.nr, memory_order_relaxed) > 0;
}

void mpl_first_settle_part(struct memplug_space *space, const struct mpl_part *part)
{
    if ((mpl_unit_at(space, part->unit)->flags & MPL_UNIT_SHARED) != 0 &&
        mpl_first_has_children(space))
        settle_for_good(space->fork.first,
                        mpl_unit_va(space, part->unit) + part->first * space->page_bytes,
                        part->nr * space->page_bytes);
}

int mpl_first_settle_unit(struct memplug_space *space, uint64_t unit)
{
    struct mpl_unit *record = mpl_unit_at(space, unit);
    int error;

    if ((record->flags & MPL_UNIT_SHARED) == 0)
        return 0;
    error = ask(space->fork.first, SETTLE_UNIT, mpl_unit_va(space, unit), space->unit_bytes);
    if (error == 0)
        record->flags &= ~MPL_UNIT_SHARED;
    return error;
}

/* --- forks ------------------------------------------------------------------------------------ */

unsigned mpl_first_children(struct memplug_space *space)
{
    return (unsigned)ask(space->fork.first, LOOK, NULL, 0);
}

void mpl_first_attend(struct memplug_space *space, struct mpl_attend *attend)
{
    space->fork.first->attend = attend;
    ask(space->fork.first, ATTEND, NULL, 0);
}

int mpl_first_expect(struct memplug_space *space)
{
    struct mpl_first *first = space->fork.first;

    mpl_gate_shut(&space->fork);
    return mpl_children_list(space->host, &space->fork, &first->ranges, &first->nr_ranges);
}

int mpl_first_adopt(struct memplug_space *space)
{
    int error = ask(space->fork.first, ADOPT, NULL, 0);

    if (error == 0)
        mpl_gate_open(&space->fork);
    return error;
}

/* --- open and close --------------------------------------------------------------------------- */

static void unmap(struct memplug_linux *host, struct mpl_first *first)
{
    if (first->bell != MAP_FAILED)
        mpl_sys_munmap(first->bell, host->page_bytes);
    if (first->stack != MAP_FAILED)
        mpl_sys_munmap(first->stack, GUARD_BYTES + STACK_BYTES);
    mpl_gates_close(&first->space->fork, host);
    mpl_own_unmap(host, first, sizeof(*first));
}

/* A child has no bell: nobody would answer. */
static int enroll_bell(const struct mpl_first *first)
{
    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)first->bell, .len = first->space->page_bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };

    if (mpl_sys_madvise(first->bell, reg.range.len, MADV_DONTFORK) != 0 ||
        ioctl(first->uffd, UFFDIO_REGISTER, &reg) < 0)
        return -errno;
    return 0;
}

static bool map(struct mpl_first *first)
{
    const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    uint64_t page_bytes = first->space->page_bytes;

    first->bell = mpl_sys_mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, anonymous, -1, 0);
    first->stack = mpl_sys_mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE, anonymous,
                                -1, 0);
    return first->bell != MAP_FAILED && first->stack != MAP_FAILED &&
           mpl_sys_mprotect(first->stack, GUARD_BYTES, PROT_NONE) == 0;
}

/* Born with all signals blocked; by the C library, whose setuid() reaches all threads that it has
 * made. */
static int start(struct mpl_first *first)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);

    if (error == 0)
        error = pthread_attr_setstack(&attributes, first->stack + GUARD_BYTES + WATCH_BYTES,
                                      STACK_BYTES - WATCH_BYTES);
    atomic_store_explicit(&first->turn, 1, memory_order_release);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (error == 0)
        error = -mpl_overdue_open(&first->overdue, first->stack + GUARD_BYTES, WATCH_BYTES);
    if (error == 0) {
        error = pthread_create(&first->thread, &attributes, life, first);
        if (error != 0)
            mpl_overdue_close(&first->overdue);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        return -error;
    while (atomic_load_explicit(&first->turn, memory_order_acquire) != 0)
        syscall(SYS_futex, &first->turn, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
    if (first->result != 0) {
        pthread_join(first->thread, NULL);
        mpl_overdue_close(&first->overdue);
    }
    return first->result;
}

/* A fork that is under way has its own reader of the userfaultfd; the next one will have this. */
static void begin(struct mpl_first *first)
{
    mpl_lock_enter(&first->space->moving);
    first->space->fork.first = first;
    atomic_store_explicit(&first->go, 1, memory_order_release);
    syscall(SYS_futex, &first->go, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    mpl_lock_leave(&first->space->moving);
}

int mpl_first_open(struct memplug_space *space, void (*ended)(int pid), const char **why)
{
    struct memplug_linux *host = space->host;
    struct mpl_first *first;
    void *memory;
    int error;

    *why = "no memory";
    if (mpl_own_map(host, sizeof(*first), &memory) != 0)
        return -ENOMEM;
    first = memory;
    first->space = space;
    first->uffd = space->fork.uffd;
    first->ended = ended;
    first->why = "no thread can be made";
    first->children = (struct mpl_children){.host = host, .page_bytes = space->page_bytes,
                                            .nr_settled_pages = &space->counters.nr_settled_pages,
                                            .overdue = &first->overdue,
                                            .proc = -1};
    first->overdue = (struct mpl_overdue){
        .ended = ended, .nr_ended = &space->counters.nr_children_ended};
    error = map(first) ? enroll_bell(first) : -ENOMEM;
    if (error == 0)
        error = mpl_gates_open(&space->fork);
    if (error == 0) {
        error = start(first);
        *why = first->why;
    }
    if (error != 0)
        unmap(host, first);
    else
        begin(first);
    return error;
}

void mpl_first_close(struct memplug_space *space)
{
    struct mpl_first *first = space->fork.first;

    if (!first)
        return;
    ask(first, STOP, NULL, 0);
    pthread_join(first->thread, NULL);
    mpl_overdue_close(&first->overdue);
    unmap(space->host, first);
    space->fork.first = NULL;
}
