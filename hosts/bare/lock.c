/* SPDX-License-Identifier: MIT */
#include "bare.h"

#include "io.h"

#define WAIT_NS 1000000u /* a waiter looks again so often, should it miss the call */

void bare_spin_lock(struct bare_spin *spin)
{
    uint32_t mine = __atomic_fetch_add(&spin->next, 1, __ATOMIC_RELAXED);

    while (__atomic_load_n(&spin->now, __ATOMIC_ACQUIRE) != mine)
        cpu_pause();
}

void bare_spin_unlock(struct bare_spin *spin)
{
    __atomic_store_n(&spin->now, spin->now + 1, __ATOMIC_RELEASE);
}

static bool take(struct bare_lock *lock, uint32_t me)
{
    uint32_t none = 0;

    return __atomic_compare_exchange_n(&lock->holder, &none, me, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

static int wait(struct bare_lock *lock, uint32_t me, const struct memplug_limit *limit)
{
    uint64_t start = bare_now();

    while (!take(lock, me)) {
        if (limit && limit->stop && __atomic_load_n(limit->stop, __ATOMIC_RELAXED))
            return -BARE_EINTR;
        if (limit && limit->timeout_ns && bare_now() - start >= limit->timeout_ns)
            return -BARE_ETIMEDOUT;
        bare_sleep(WAIT_NS);
    }
    return 0;
}

int bare_lock(struct bare_lock *lock, const struct memplug_limit *limit)
{
    uint32_t me = bare_cpu() + 1;
    int error;

    if (__atomic_load_n(&lock->holder, __ATOMIC_RELAXED) == me)
        return -BARE_EDEADLK;
    if (take(lock, me))
        return 0;
    __atomic_fetch_add(&lock->nr_waiting, 1, __ATOMIC_SEQ_CST);
    error = wait(lock, me, limit);
    __atomic_fetch_sub(&lock->nr_waiting, 1, __ATOMIC_SEQ_CST);
    return error;
}

void bare_unlock(struct bare_lock *lock)
{
    __atomic_store_n(&lock->holder, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&lock->nr_waiting, __ATOMIC_SEQ_CST))
        bare_apic_send_others(BARE_VECTOR_WAKE);
}
