/* SPDX-License-Identifier: MIT */
/* A mutex on a futex word: pthread's could be interposed, or be held by who called malloc. */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

bool mpl_pre_try(struct mpl_pre_lock *lock)
{
    uint32_t expected = 0;

    return atomic_compare_exchange_strong_explicit(&lock->word, &expected, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Once somebody has waited, nobody knows whether others still do: the word becomes 2. */
void mpl_pre_enter(struct mpl_pre_lock *lock)
{
    int saved = errno;

    if (!mpl_pre_try(lock))
        while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
            syscall(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    errno = saved;
}

void mpl_pre_leave(struct mpl_pre_lock *lock)
{
    int saved = errno;

    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2)
        syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    errno = saved;
}
