/* SPDX-License-Identifier: MIT */
/*
 * In a forked child, which may share memory with its parent until one of the two writes (a lazy
 * fork). It has no pool; but some calls on that memory mean something else than on memory of its
 * own, and its parent must be able to reach it. All else goes to the kernel as it came.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct memplug_space *child_with(const void *address)
{
    struct memplug_space *space = mpl_pre_child();

    return space && memplug_space_has(space, address) ? space : NULL;
}

void mpl_pre_child_unmaps(const void *address, size_t size_bytes)
{
    struct memplug_space *space = child_with(address);

    if (space)
        memplug_space_child_unmapped(space, address, size_bytes);
}

/* What cannot be written cannot be given to it later. */
void mpl_pre_child_protects(const void *address, size_t size_bytes, int protection)
{
    struct memplug_space *space = child_with(address);

    if (space && (protection & PROT_WRITE) == 0)
        memplug_space_child_own(space, address, size_bytes);
}

/* Memory that is given back reads as zeros, and not as what the parent has. */
void mpl_pre_child_advises(void *address, size_t size_bytes, int advice)
{
    struct memplug_space *space = child_with(address);

    if (!space)
        return;
    if (advice == MADV_DONTNEED || advice == MADV_FREE)
        memplug_space_child_discard(space, address, size_bytes);
    else if (advice == MADV_DOFORK)
        memplug_space_child_own(space, address, size_bytes);
}

/* A mapping of a file would grow into the file. */
bool mpl_pre_child_remaps(void *old, size_t old_bytes, size_t new_bytes, int flags, void **result)
{
    struct memplug_space *space = child_with(old);
    void *larger;

    if (!space)
        return false;
    memplug_space_child_own(space, old, old_bytes);
    if (new_bytes <= old_bytes && flags == MREMAP_MAYMOVE)
        return false;
    *result = MAP_FAILED;
    if ((flags & ~MREMAP_MAYMOVE) != 0 || flags == 0) {
        errno = flags == 0 ? ENOMEM : EINVAL;
        return true;
    }
    larger = (void *)syscall(SYS_mmap, NULL, new_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (larger != MAP_FAILED) {
        memcpy(larger, old, old_bytes);
        memplug_space_child_unmapped(space, old, old_bytes);
        syscall(SYS_munmap, old, old_bytes);
    }
    *result = larger;
    return true;
}

/* --- what its parent may not trace ------------------------------------------------------------ */

static void hide(void)
{
    struct memplug_space *space = mpl_pre_child();

    if (space)
        memplug_space_child_hides(space);
}

typedef int change_t(unsigned a, unsigned b, unsigned c);

/* The C library's own, since it changes all threads; arguments that it has not do no harm. */
static int change(const char *name, _Atomic(void *) *known, unsigned a, unsigned b, unsigned c)
{
    union {
        void *found;
        change_t *call;
    } real = {.found = mpl_pre_next(known, name)};

    hide();
    return real.call(a, b, c);
}

#define CHANGE(name, arguments, ...)                     \
    MPL_PRE_EXPORT int name arguments                    \
    {                                                    \
        static _Atomic(void *) known;                    \
                                                         \
        return change(#name, &known, __VA_ARGS__);       \
    }

CHANGE(setuid, (uid_t a), a, 0, 0)
CHANGE(setgid, (gid_t a), a, 0, 0)
CHANGE(seteuid, (uid_t a), a, 0, 0)
CHANGE(setegid, (gid_t a), a, 0, 0)
CHANGE(setreuid, (uid_t a, uid_t b), a, b, 0)
CHANGE(setregid, (gid_t a, gid_t b), a, b, 0)
CHANGE(setresuid, (uid_t a, uid_t b, uid_t c), a, b, c)
CHANGE(setresgid, (gid_t a, gid_t b, gid_t c), a, b, c)

MPL_PRE_EXPORT int prctl(int option, ...)
{
    unsigned long words[4];
    va_list arguments;

    va_start(arguments, option);
    for (unsigned i = 0; i < 4; i++)
        words[i] = va_arg(arguments, unsigned long);
    va_end(arguments);
    if (option == PR_SET_DUMPABLE)
        hide();
    return (int)syscall(SYS_prctl, option, words[0], words[1], words[2], words[3]);
}
