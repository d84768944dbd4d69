/* SPDX-License-Identifier: MIT */
#include "core.h"

void mpl_spin_lock(const struct memplug *pool, struct mpl_spin *spin)
{
    const struct memplug_host *host = pool->host;
    unsigned ticket = atomic_fetch_add_explicit(&spin->next, 1, memory_order_relaxed);
    unsigned nr_spins = 0;

    while (atomic_load_explicit(&spin->serving, memory_order_acquire) != ticket)
        host->ops->relax(host->context, nr_spins++);
}

void mpl_spin_unlock(struct mpl_spin *spin)
{
    unsigned ticket = atomic_load_explicit(&spin->serving, memory_order_relaxed);

    MPL_ASSERT(ticket != atomic_load_explicit(&spin->next, memory_order_relaxed));
    atomic_store_explicit(&spin->serving, ticket + 1, memory_order_release);
}
