/* SPDX-License-Identifier: MIT */
/* How long writers waited: a log-linear histogram, 8 buckets to each power of two. */
#ifndef MPL_LINUX_PAUSE_H
#define MPL_LINUX_PAUSE_H

#include <memplug/space.h>

#include <stdatomic.h>

struct mpl_pause {
    _Atomic uint64_t nr, total_ns, max_ns;
    _Atomic uint64_t buckets[MEMPLUG_PAUSE_BUCKETS];
};

/* Any thread, any time; takes no lock. */
void mpl_pause_add(struct mpl_pause *pause, uint64_t ns);
void mpl_pause_read(const struct mpl_pause *pause, struct memplug_pause *copy);

#endif
