/* SPDX-License-Identifier: MIT */
/*
 * A mutex on a futex word. Not pthread's: this library may be running underneath the program's
 * malloc, and a lock of libc's can be interposed, or be held by the code that called us.
 */
#ifndef MPL_LINUX_LOCK_H
#define MPL_LINUX_LOCK_H

#include <memplug/types.h>

#include <stdatomic.h>

struct mpl_lock {              /* all zero: free */
    _Atomic uint32_t word;     /* 0 free, 1 held, 2 held and somebody may be waiting */
    _Atomic uintptr_t owner; /* 0: nobody */
};

/* Wait until the limit ends: -ETIMEDOUT, -EINTR (stop flag); -EDEADLK: this thread holds it. */
int mpl_lock_take(struct mpl_lock *lock, const struct memplug_limit *limit);

/* Wait for as long as it takes. For sections that last microseconds and call nobody. */
void mpl_lock_enter(struct mpl_lock *lock);

/* The way back of both. */
void mpl_lock_leave(struct mpl_lock *lock);

uint64_t mpl_now_ns(void);

#endif
