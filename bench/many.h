/* SPDX-License-Identifier: MIT */
/*
 * Many frames: in bulk calls of CHUNK frames where the worker is built for them (BULK=1), and else
 * one after the other. A part of workloads.h, which includes it.
 */
#ifndef BENCH_MANY_H
#define BENCH_MANY_H

#define CHUNK 64u

static inline uint64_t must_alloc(unsigned thread, unsigned order)
{
    uint64_t frame = peer_alloc(thread, order);

    if (frame == 0) {
        worker_die("a frame of the workload is not there");
    }
    return frame;
}

static inline unsigned chunk_of(uint64_t nr)
{
    return nr < CHUNK ? (unsigned)nr : CHUNK;
}

static inline void alloc_many(unsigned thread, uint64_t *to, uint64_t nr, unsigned order)
{
    for (uint64_t i = 0; BULK != 0 && i < nr; i += CHUNK) {
        peer_alloc_many(thread, to + i, chunk_of(nr - i));
    }
    for (uint64_t i = 0; BULK == 0 && i < nr; i++) {
        to[i] = must_alloc(thread, order);
    }
}

static inline void free_many(unsigned thread, const uint64_t *from, uint64_t nr, unsigned order)
{
    for (uint64_t i = 0; BULK != 0 && i < nr; i += CHUNK) {
        peer_free_many(thread, from + i, chunk_of(nr - i));
    }
    for (uint64_t i = 0; BULK == 0 && i < nr; i++) {
        peer_free(thread, from[i], order);
    }
}

#endif
