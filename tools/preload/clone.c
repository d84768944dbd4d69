/* SPDX-License-Identifier: MIT */
/*
 * A process that is made by clone, as sandboxes do, needs what one by fork needs. Not ours are
 * threads and whatever else shares memory, and the odd ones: those that share their descriptors,
 * some of which a child closes, those that are waited for, and those with thread-local storage of
 * their own. An odd one has no heap, and dies at the first touch of it.
 *
 * Our own calls of these two functions come here too: they make nothing but what shares memory.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOT_OURS ((uint64_t)(CLONE_VM | CLONE_FILES | CLONE_VFORK | CLONE_SETTLS))

typedef int main_t(void *);
typedef int clone_t(main_t *function, void *stack, int flags, void *argument, ...);
typedef long syscall_t(long number, ...);

static _Atomic(void *) known_clone, known_syscall;

/* Looked up before they are needed: dlsym() may free something, and we call clone while nobody may
 * touch the heap. */
void mpl_pre_clone_open(void)
{
    mpl_pre_next(&known_clone, "clone");
    mpl_pre_next(&known_syscall, "syscall");
}

/* --- clone ------------------------------------------------------------------------------------ */

struct start {
    main_t *function;
    void *argument;
};

/* On a stack of its own; its parent's is there too. */
static int start_child(void *argument)
{
    const struct start start = *(const struct start *)argument;

    mpl_pre_fork_in_child();
    return start.function(start.argument);
}

MPL_PRE_EXPORT int clone(main_t *function, void *stack, int flags, void *argument, ...)
{
    union {
        void *found;
        clone_t *call;
    } real = {.found = mpl_pre_next(&known_clone, "clone")};
    struct start start = {.function = function, .argument = argument};
    void *words[3];
    va_list arguments;

    va_start(arguments, argument);
    for (unsigned i = 0; i < 3; i++)
        words[i] = va_arg(arguments, void *);
    va_end(arguments);
    if (((unsigned)flags & NOT_OURS) != 0 || !function || !stack)
        return real.call(function, stack, flags, argument, words[0], words[1], words[2]);
    if (!mpl_pre_fork_begin())
        return -1;
    return mpl_pre_fork_end(
        real.call(start_child, stack, flags, &start, words[0], words[1], words[2]));
}

/* --- syscall ---------------------------------------------------------------------------------- */

/* Of clone3(2) the first two members. */
struct clone3_head {
    uint64_t flags, pidfd;
};

/* A stack of its own could not return from here. */
static bool makes_process(long number, const long *words)
{
    if (number == SYS_clone)
        return ((uint64_t)words[0] & NOT_OURS) == 0 && words[1] == 0;
    return number == SYS_clone3 && words[0] != 0 &&
           (size_t)words[1] >= sizeof(struct clone3_head) &&
           (((const struct clone3_head *)words[0])->flags & NOT_OURS) == 0;
}

MPL_PRE_EXPORT long syscall(long number, ...)
{
    union {
        void *found;
        syscall_t *call;
    } real = {.found = mpl_pre_next(&known_syscall, "syscall")};
    long words[6], result;
    va_list arguments;

    va_start(arguments, number);
    for (unsigned i = 0; i < 6; i++)
        words[i] = va_arg(arguments, long);
    va_end(arguments);
    if (!makes_process(number, words))
        return real.call(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (!mpl_pre_fork_begin())
        return -1;
    result = real.call(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (result != 0)
        return mpl_pre_fork_end((pid_t)result);
    mpl_pre_fork_in_child();
    return 0;
}

/* --- unshare ---------------------------------------------------------------------------------- */

/* Not for a process with threads, and the library has some: the program cannot know. */
MPL_PRE_EXPORT int unshare(int flags)
{
    int result = (int)syscall(SYS_unshare, flags), saved = errno;
    struct mpl_line line = {.length = 0};

    if (result != 0 && errno == EINVAL && (flags & CLONE_NEWUSER) != 0 && mpl_pre_space_if_open()) {
        mpl_line_add(&line, "the program gets EINVAL from unshare: a process with threads, such as"
                            " the library's, cannot enter a user namespace. One that it forks can");
        mpl_say(&line);
    }
    errno = saved;
    return result;
}
