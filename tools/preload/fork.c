/* SPDX-License-Identifier: MIT */
/*
 * The program forks. Its handlers of pthread_atfork may use the heap: so ours must be the
 * innermost, which are those that were registered first. That is why registering is taken too:
 * whoever comes first has ours go before.
 *
 * A child has no pool. What it has of its parent's it may still share with it (mpl_pre_child());
 * its own fork comes here too, and first makes that its own. Sandboxes make processes by clone: for
 * these clone.c calls our handlers alone.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int register_t_(void (*)(void), void (*)(void), void (*)(void), void *);
typedef pid_t fork_t_(void);

int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void),
                      void *library);

static struct mpl_pre_lock registering;
static register_t_ *real_register;
static fork_t_ *real_fork, *real_raw_fork;

/* Of this thread's fork: handlers of several may run at once. Not looked up by a call, which could
 * allocate. */
#define OF_THREAD static _Thread_local __attribute__((tls_model("initial-exec")))
OF_THREAD int before_error;
OF_THREAD bool begun;
OF_THREAD bool of_child; /* begun, but this process is a forked child */
OF_THREAD bool failed; /* until it knows */
OF_THREAD int errno_before; /* it is 0 meanwhile, so that it shows whether fork() has failed */
static atomic_bool lazy;
#define LAZY_THREADS 2u /* that memplug_space_fork_lazily() has made */
/* In a child: the space of its parent. */
static struct memplug_space *_Atomic inherited;

/* --- is this thread alone? -------------------------------------------------------------------- */

/* The twentieth word of stat, the eighteenth behind the program's name in brackets. */
static unsigned count_threads(void)
{
    char text[512];
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/stat", O_RDONLY | O_CLOEXEC, 0);
    long length = fd >= 0 ? syscall(SYS_read, fd, text, sizeof(text)) : 0;
    struct mpl_text rest, word = {.length = 0};
    const char *bracket;
    uint64_t nr = UINT_MAX;

    if (fd >= 0)
        syscall(SYS_close, fd);
    bracket = length > 0 ? memrchr(text, ')', (size_t)length) : NULL;
    if (!bracket || bracket + 2 >= text + length)
        return UINT_MAX;
    rest = (struct mpl_text){bracket + 2, (size_t)(text + length - bracket - 2)};
    for (unsigned i = 0; i < 18; i++)
        mpl_text_cut(&rest, ' ', &word);
    return mpl_text_number(word, &nr) ? (unsigned)nr : UINT_MAX;
}

/* But for the library's threads, which do not touch the heap. */
static bool is_alone(void)
{
    return __libc_single_threaded ||
           count_threads() == 1 + mpl_pre_serve_threads() + (atomic_load(&lazy) ? LAZY_THREADS : 0);
}

/* --- handlers --------------------------------------------------------------------------------- */

/* With the fences if there are any: also the kernel writes for a thread that is alone. */
static int begin(struct memplug_space *space, struct memplug_reason *reason)
{
    int result = memplug_space_fork_before(space, false, reason);

    if (result == -EPERM && is_alone())
        result = memplug_space_fork_before(space, true, reason);
    return result;
}

/* The fork of a forked child, which first makes all its own. */
static void before_childs_fork(void)
{
    struct memplug_reason reason = MPL_NO_REASON;

    if (!mpl_pre_child())
        return;
    reason.error = memplug_space_child_forks(mpl_pre_child());
    of_child = reason.error == 0;
    failed = !of_child;
    if (failed)
        mpl_say_reason("a child of a forked child cannot have its memory", &reason);
}

/* Of glibc's list of streams. Its fork() takes it after all handlers: who is in fopen() has it then
 * and is held up at its stream, which is in the heap: so it is taken before anybody is held up. It
 * counts, and a child begins anew. */
void _IO_list_lock(void);
void _IO_list_unlock(void);
void _IO_list_resetlock(void);

static void before_fork(void)
{
    struct memplug_space *space = mpl_pre_space_if_open();
    struct memplug_reason reason = MPL_NO_REASON;

    begun = of_child = failed = false;
    before_error = 0;
    errno_before = errno;
    errno = 0;
    if (!space)
        before_childs_fork();
    if (!space)
        return;
    _IO_list_lock();
    before_error = begin(space, &reason);
    begun = before_error == 0;
    failed = !begun;
    if (begun)
        return;
    _IO_list_unlock();
    mpl_say_reason("a child process cannot have this program's memory", &reason);
}

static void restore_errno(void)
{
    if (errno == 0)
        errno = errno_before;
}

static void in_parent(void)
{
    if (begun && memplug_space_fork_parent(mpl_preload.space) != 0)
        failed = true;
    if (begun)
        _IO_list_unlock();
    if (of_child)
        memplug_space_child_forked(mpl_pre_child());
    begun = of_child = false;
    restore_errno();
}

static void end_child(void)
{
    syscall(SYS_exit_group, MPL_PRE_EXIT);
    __builtin_unreachable();
}

static void in_grandchild(void)
{
    if (failed)
        end_child();
    if (of_child)
        memplug_space_child_forked(mpl_pre_child());
    of_child = false;
    restore_errno();
}

static void be_child(bool listed)
{
    struct mpl_line line = {.length = 0};
    int error = before_error;

    if (mpl_pre_child())
        in_grandchild();
    if (atomic_load_explicit(&mpl_preload.state, memory_order_relaxed) != MPL_PRE_READY)
        return;
    _IO_list_resetlock();
    if (error == 0)
        error = memplug_space_fork_child(mpl_preload.space);
    if (error == -ENOMEM && before_error == 0) {
        mpl_line_add(&line, "a forked child ends: it has a descriptor of direct I/O, and no memory"
                            " for a copy of what it shares");
        mpl_say(&line);
    }
    if (error != 0)
        end_child();
    mpl_pre_serve_forget(listed);
    atomic_store(&inherited, mpl_preload.space);
    atomic_store_explicit(&registering.word, 0, memory_order_relaxed); /* who held it is not here */
    atomic_store_explicit(&mpl_preload.state, MPL_PRE_NONE, memory_order_release);
    begun = false;
    restore_errno();
}

static void in_child(void)
{
    be_child(false);
}

/* --- first of all ----------------------------------------------------------------------------- */

/* Looks up what is behind us; the C library has them all. */
static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

void mpl_pre_fork_open(void)
{
    union {
        void *found;
        register_t_ *call;
    } registers;
    union {
        void *found;
        fork_t_ *call;
    } forks, raw_forks;

    mpl_pre_clone_open();
    mpl_pre_enter(&registering);
    if (!real_register) {
        registers.found = next("__register_atfork");
        forks.found = next("fork");
        raw_forks.found = next("_Fork");
        real_register = registers.call;
        real_fork = forks.call;
        real_raw_fork = raw_forks.call;
        if (real_register)
            real_register(before_fork, in_parent, in_child, NULL);
    }
    mpl_pre_leave(&registering);
}

MPL_PRE_EXPORT int __register_atfork(void (*before)(void), void (*parent)(void),
                                     void (*child)(void), void *library)
{
    mpl_pre_fork_open();
    return real_register ? real_register(before, parent, child, library) : ENOMEM;
}

/* --- fork ------------------------------------------------------------------------------------- */

struct memplug_space *mpl_pre_child(void)
{
    return atomic_load_explicit(&inherited, memory_order_acquire);
}

/* In the library's thread. Less than 0: it could not be ended either. */
static void say_ended(int pid)
{
    struct mpl_line line = {.length = 0};

    mpl_line_add(&line, "the forked child ");
    mpl_line_add_number(&line, (uint64_t)(pid < 0 ? -pid : pid));
    mpl_line_add(&line, pid < 0 ? " shares memory that its parent is about to change, and can"
                                  " neither be given a copy nor be ended: this program waits until"
                                  " it ends"
                                : " was ended: it shared memory that its parent was about to"
                                  " change, and could not be given a copy (it may not be traced, or"
                                  " not write it)");
    mpl_say(&line);
}

/* At the first fork: it takes threads, which cannot be made in a handler, nor where _Fork() may be
 * called. Where it does not work forks copy; memplug/host/latency has their number, and memplug
 * doctor says why. */
static void be_lazy(struct memplug_space *space)
{
    if (memplug_space_fork_lazily(space, say_ended, NULL) == 0)
        atomic_store(&lazy, true);
}

/* What can be known beforehand is an error of fork's; the rest the handlers find. */
static bool can_fork(void)
{
    struct memplug_space *space = mpl_pre_space_if_open();
    struct memplug_reason reason = MPL_NO_REASON;

    if (!space || memplug_space_fork_check(space, false, &reason) == 0)
        return true;
    if (reason.error == -EPERM && is_alone())
        return true;
    mpl_say_reason("the program gets EAGAIN from fork", &reason);
    errno = EAGAIN;
    return false;
}

/* The handlers cannot refuse; a child that has no heap ends at once, and is not the program's. */
static pid_t undo_child(pid_t pid)
{
    if (pid > 0 && !failed)
        mpl_pre_forked(pid);
    if (pid <= 0 || !failed)
        return pid;
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    errno = EAGAIN;
    return -1;
}

/* Without the handlers of others, and what else the C library does. */
bool mpl_pre_fork_begin(void)
{
    mpl_pre_fork_open();
    if (!can_fork())
        return false;
    before_fork();
    return true;
}

void mpl_pre_fork_in_child(void)
{
    be_child(true);
}

pid_t mpl_pre_fork_end(pid_t pid)
{
    int error = errno;

    in_parent();
    if (error != 0)
        errno = error;
    return undo_child(pid);
}

MPL_PRE_EXPORT pid_t fork(void)
{
    struct memplug_space *space = mpl_pre_space_if_open();

    mpl_pre_fork_open();
    if (space && mpl_preload.lazy)
        be_lazy(space);
    return can_fork() ? undo_child(real_fork()) : -1;
}

/* The one that runs no handlers. */
MPL_PRE_EXPORT pid_t _Fork(void)
{
    pid_t pid;

    if (!mpl_pre_fork_begin())
        return -1;
    pid = real_raw_fork();
    if (pid != 0)
        return mpl_pre_fork_end(pid);
    mpl_pre_fork_in_child();
    return 0;
}
