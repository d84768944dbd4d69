/* SPDX-License-Identifier: MIT */
/*
 * Libraries that a program opens. With RTLD_DEEPBIND one finds the C library's malloc before ours,
 * and frees with it what others got here: PHP opens all its extensions so, and dies. The flag is
 * dropped; the library then finds what the program has first, as it does by default.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <dlfcn.h>

typedef void *dlopen_t(const char *path, int mode);

void *mpl_pre_next(_Atomic(void *) *known, const char *name)
{
    void *found = atomic_load_explicit(known, memory_order_acquire);

    if (!found) {
        found = dlsym(RTLD_NEXT, name);
        atomic_store_explicit(known, found, memory_order_release);
    }
    return found;
}

/* A jump and not a call: the C library looks where it came from for the places to search. */
MPL_PRE_EXPORT void *dlopen(const char *path, int mode)
{
    static _Atomic(void *) known;
    union {
        void *found;
        dlopen_t *call;
    } real = {.found = mpl_pre_next(&known, "dlopen")};

    return real.call(path, mode & ~RTLD_DEEPBIND);
}
