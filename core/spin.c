/* SPDX-License-Identifier: MIT */
#include "core.h"

/* Where they are not inlined. */
extern inline void mpl_spin_lock(const struct memplug *pool, struct mpl_spin *spin);
extern inline void mpl_spin_unlock(struct mpl_spin *spin);

void mpl_spin_wait(const struct memplug *pool, struct mpl_spin *spin, unsigned ticket)
{
    const struct memplug_host *host = pool->host;
    unsigned nr_spins = 0;

    while (atomic_load_explicit(&spin->serving, memory_order_acquire) != ticket)
        host->ops->relax(host->context, nr_spins++);
}
