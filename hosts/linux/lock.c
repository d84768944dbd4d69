/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_NS (30ull * 1000 * 1000 * 1000)
/* How often a waiter looks at the stop flag: setting it wakes nobody. */
#define SLICE_NS (5ull * 1000 * 1000)

uint64_t mpl_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Which thread this is. Not gettid(2), which would be the only system call of a free lock; and no
 * thread-local variable, which may come by way of malloc. */
static uintptr_t myself(void)
{
    return (uintptr_t)pthread_self();
}

static bool try_take(struct mpl_lock *lock, uint32_t as)
{
    uint32_t expected = 0;

    return atomic_compare_exchange_strong_explicit(&lock->word, &expected, as,
                                                   memory_order_acquire, memory_order_relaxed);
}

/* Until the word changes, a signal comes or the time is over; the caller looks again anyway. */
static void wait_while_contended(struct mpl_lock *lock, uint64_t timeout_ns)
{
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ns / 1000000000u),
        .tv_nsec = (long)(timeout_ns % 1000000000u),
    };

    syscall(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, 2, &timeout, NULL, 0);
}

static bool stopped(const struct memplug_limit *limit)
{
    return limit && limit->stop && __atomic_load_n(limit->stop, __ATOMIC_ACQUIRE) != 0;
}

/* Once somebody has waited, nobody knows whether others still do: the word becomes 2. */
static int wait_and_take(struct mpl_lock *lock, const struct memplug_limit *limit)
{
    uint64_t timeout_ns = limit && limit->timeout_ns ? limit->timeout_ns : DEFAULT_TIMEOUT_NS;
    uint64_t start_ns = mpl_now_ns();

    while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0) {
        uint64_t passed_ns = mpl_now_ns() - start_ns;

        if (stopped(limit)) {
            return -EINTR;
        }
        if (passed_ns >= timeout_ns) {
            return -ETIMEDOUT;
        }
        uint64_t left_ns = timeout_ns - passed_ns;
        wait_while_contended(lock, left_ns < SLICE_NS ? left_ns : SLICE_NS);
    }
    return 0;
}

int mpl_lock_take(struct mpl_lock *lock, const struct memplug_limit *limit)
{
    uintptr_t me = myself();
    int saved = errno;
    int result = 0;

    if (atomic_load_explicit(&lock->owner, memory_order_relaxed) == me) {
        return -EDEADLK;
    }
    if (stopped(limit)) {
        return -EINTR;
    }
    if (!try_take(lock, 1)) {
        result = wait_and_take(lock, limit);
    }
    if (result == 0) {
        atomic_store_explicit(&lock->owner, me, memory_order_relaxed);
    }
    errno = saved;
    return result;
}

void mpl_lock_enter(struct mpl_lock *lock)
{
    int saved = errno;

    if (!try_take(lock, 1)) {
        while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0) {
            wait_while_contended(lock, SLICE_NS);
        }
    }
    errno = saved;
}

void mpl_lock_leave(struct mpl_lock *lock)
{
    int saved = errno;

    atomic_store_explicit(&lock->owner, 0, memory_order_relaxed);
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2) {
        syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
    errno = saved;
}
