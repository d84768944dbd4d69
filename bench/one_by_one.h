/* SPDX-License-Identifier: MIT */
/* The bulk calls of a peer that has none. Included behind its definitions. */
#ifndef BENCH_ONE_BY_ONE_H
#define BENCH_ONE_BY_ONE_H

static inline void peer_alloc_many(unsigned thread, uint64_t *to, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        to[i] = peer_alloc(thread, 0);
        if (to[i] == 0) {
            worker_die("a frame of the workload is not there");
        }
    }
}

static inline void peer_free_many(unsigned thread, const uint64_t *from, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        peer_free(thread, from[i], 0);
    }
}

#endif
