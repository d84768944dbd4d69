/* SPDX-License-Identifier: MIT */
/*
 * What a host must give. A host is a machine as the core sees it: a direct map, a window for the
 * memmap, a little memory, a lock and a clock. hosts/linux is a process, hosts/fake is an array,
 * hosts/bare is a real machine.
 *
 * Contract. Pointers are never null, but for a backing: a host that needs one answers -ENODEV.
 * Sizes are multiples of the page size and never zero. Operations are of two kinds. Those that
 * *may fail* return 0 or a negative errno, and then have changed nothing. Those that *must not
 * fail* return nothing useful: the core calls them on its way back, when there is nothing left to
 * try. A host that needs resources for them (page tables, mappings) sets these aside beforehand.
 * Only lock() may sleep for long; attach(), the memmap operations and the memory operations may
 * sleep for a while. Calls to these are serialised by lock(). alignment(), now_ns(), cpu() and
 * relax() come from any thread at any time; of these only relax() may sleep, for a moment.
 */
#ifndef MEMPLUG_HOST_H
#define MEMPLUG_HOST_H

#include <memplug/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A part of a backing, to be mapped at an address. */
struct memplug_extent {
    uint64_t address;       /* in the pool; a multiple of the block */
    uint64_t size_bytes;    /* a multiple of the block */
    void *backing;          /* the host's own word for where the memory comes from */
    uint64_t offset_bytes;  /* of this extent in the backing */
    uint64_t memmap_bytes;  /* at its head, for its own memmap; 0 if the memmap lies elsewhere */
    int node;
};

struct memplug_host_ops {
    /* --- may fail ------------------------------------------------------------------------- */

    /* The lock of add, online, offline and remove. May sleep until limit ends: -ETIMEDOUT,
     * -EINTR; -EDEADLK if this thread holds it. timeout_ns counts from the call. limit may be
     * null: no end. A lock that is free is taken, whatever limit says. */
    int (*lock)(void *host, const struct memplug_limit *limit);

    /* Make the extent's bytes readable and writable at direct_map + address, so that using them
     * cannot fail later. The bytes may hold anything. -EEXIST if another extent of this host has
     * the same bytes, -EBUSY if another process has them, -ENXIO if the backing is shorter,
     * -ENODEV if it cannot be mapped, -ENOMEM. */
    int (*attach)(void *host, const struct memplug_extent *extent);

    /* The same for nr extents that are as large as the first and follow each other, in the pool and
     * in the backing: all of them or none. Each is detached by itself. -EOPNOTSUPP, or a null
     * pointer here: attach is called for each, and limits are looked at in between. */
    int (*attach_row)(void *host, const struct memplug_extent *first, uint64_t nr);

    /* Make size_bytes at memmap + offset the same memory as the bytes at address, which are
     * attached. Everything is a multiple of unit_bytes, which is the page or the large unit. */
    int (*memmap_alias)(void *host, uint64_t offset, uint64_t address, uint64_t size_bytes,
                        uint64_t unit_bytes);

    /* Make size_bytes at memmap + offset usable with memory of the host's own. */
    int (*memmap_provide)(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes);

    /* The way back of memmap_lend for memory of the host's own: each page has memory of its own
     * again, of any content. -ENOMEM. Null where memmap_lend is. */
    int (*memmap_restore)(void *host, uint64_t offset, uint64_t size_bytes);

    /* Memory for the core, aligned to 64 bytes, of any content; size_bytes need not be whole
     * pages. */
    int (*memory_get)(void *host, uint64_t size_bytes, void **memory);

    /* --- must not fail -------------------------------------------------------------------- */

    void (*unlock)(void *host);

    /* The way back of attach: the same extent, after its memmap was unmapped. Nobody will read or
     * write it again; the host gives the bytes back to whoever owns the backing. */
    void (*detach)(void *host, const struct memplug_extent *extent);

    /* The way back of memmap_alias and memmap_provide: the same offset, size and unit. */
    void (*memmap_unmap)(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes);

    /* Show the page before offset in place of each of these pages, which are parts of mappings in
     * units of a page: nothing but page-sized entries changes. Nobody writes to what is shown
     * through them. Of an alias the frames behind them are the core's from now on; memory of the
     * host's own goes back to it. Null: the host has no page tables of its own; then no pool can
     * have memplug_config.hvo. */
    void (*memmap_lend)(void *host, uint64_t offset, uint64_t size_bytes);

    /* The way back of memmap_lend for an alias: each page shows its own frame again. All that was
     * lent comes back before memmap_unmap. Null where memmap_lend is. */
    void (*memmap_return)(void *host, uint64_t offset, uint64_t size_bytes);

    /* The way back of memory_get. */
    void (*memory_put)(void *host, void *memory, uint64_t size_bytes);

    /* The alignment at which parts of this backing can be mapped: a page, or a huge page; of what
     * is no backing: a page. */
    uint64_t (*alignment)(void *host, const void *backing);

    uint64_t (*now_ns)(void *host); /* monotonic */

    /* Which CPU this is, below nr_cpus. A hint: a wrong one costs time and nothing else. */
    unsigned (*cpu)(void *host);

    /* Called in a loop that waits for another CPU or for a page to become movable; nr_spins counts
     * from 0. A host that schedules should let others run soon, and sleep for some 50 us once
     * nr_spins is large: the CPU that is waited for may have a lower priority. */
    void (*relax)(void *host, unsigned nr_spins);

    /* Why the last operation that may fail did fail: a static text, or null. May be null. Called
     * under the lock, right after the failure. */
    const char *(*why)(void *host);

    /* Every other thread or CPU has passed a full memory barrier when it returns. From any thread;
     * may not sleep for long. May be null: then a caller's own slots (slot.h) pay a step. */
    void (*fence)(void *host);
};

struct memplug_host {
    const struct memplug_host_ops *ops;
    void *context;    /* first argument of every operation */
    struct memplug_geometry geometry;
    char *direct_map; /* where address 0 is, or would be; aligned to the large unit, as is */
    char *memmap;     /* where the struct page of pfn 0 is, or would be */
    unsigned nr_cpus; /* at least 1 */
};

#ifdef __cplusplus
}
#endif
#endif
