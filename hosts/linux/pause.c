/* SPDX-License-Identifier: MIT */
#include "pause.h"

#define SUB_BITS 3u
#define NR_SUB (1u << SUB_BITS)

/* Values below 8 have a bucket each; from there on 8 to each power of two. */
static unsigned bucket_of(uint64_t ns)
{
    unsigned shift, bucket;

    if (ns < NR_SUB)
        return (unsigned)ns;
    shift = 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS;
    bucket = (shift + 1) * NR_SUB + (unsigned)(ns >> shift & (NR_SUB - 1));
    return bucket < MEMPLUG_PAUSE_BUCKETS ? bucket : MEMPLUG_PAUSE_BUCKETS - 1;
}

/* The largest value of a bucket; the last one has no end. */
static uint64_t bucket_end(unsigned bucket)
{
    unsigned shift;

    if (bucket < NR_SUB)
        return bucket;
    if (bucket == MEMPLUG_PAUSE_BUCKETS - 1)
        return UINT64_MAX;
    shift = bucket / NR_SUB - 1;
    return ((uint64_t)(NR_SUB + bucket % NR_SUB + 1) << shift) - 1;
}

void mpl_pause_add(struct mpl_pause *pause, uint64_t ns)
{
    uint64_t max_ns = atomic_load_explicit(&pause->max_ns, memory_order_relaxed);

    atomic_fetch_add_explicit(&pause->nr, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pause->total_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&pause->buckets[bucket_of(ns)], 1, memory_order_relaxed);
    while (max_ns < ns &&
           !atomic_compare_exchange_weak_explicit(&pause->max_ns, &max_ns, ns,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void mpl_pause_read(const struct mpl_pause *pause, struct memplug_pause *copy)
{
    copy->nr = atomic_load_explicit(&pause->nr, memory_order_relaxed);
    copy->total_ns = atomic_load_explicit(&pause->total_ns, memory_order_relaxed);
    copy->max_ns = atomic_load_explicit(&pause->max_ns, memory_order_relaxed);
    for (unsigned i = 0; i < MEMPLUG_PAUSE_BUCKETS; i++)
        copy->buckets[i] = atomic_load_explicit(&pause->buckets[i], memory_order_relaxed);
}

uint64_t memplug_pause_ns(const struct memplug_pause *pause, unsigned per_mille)
{
    uint64_t nr = 0, below = 0;

    for (unsigned i = 0; i < MEMPLUG_PAUSE_BUCKETS; i++)
        nr += pause->buckets[i];
    for (unsigned i = 0; i < MEMPLUG_PAUSE_BUCKETS; i++) {
        below += pause->buckets[i];
        if (pause->buckets[i] != 0 && below * 1000 >= nr * per_mille) {
            uint64_t end = bucket_end(i);

            return end < pause->max_ns ? end : pause->max_ns;
        }
    }
    return pause->max_ns;
}
