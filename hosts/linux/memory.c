/* SPDX-License-Identifier: MIT */
/*
 * Memory for the core and the host itself, straight from mmap. What is small is carved out of
 * chunks: a block's bitmaps (12.4 KiB) would cost four pages and a system call each otherwise.
 * The first chunk comes and goes with the host, so that the first blocks in cost no system call.
 * All under the control lock, except mpl_own_map() and mpl_own_unmap().
 */
#define _GNU_SOURCE
#include "host.h"
#include "sys.h"

#include <errno.h>

#define CHUNK_BYTES MPL_CHUNK_BYTES
#define UNIT_BYTES 64u
#define NR_UNITS (CHUNK_BYTES / UNIT_BYTES)
/* Larger pieces are mapped by themselves: a chunk holds at least four. */
#define CARVE_MAX_BYTES (CHUNK_BYTES / 4)

struct mpl_chunk {
    struct mpl_chunk *next;
    uint32_t nr_used;            /* units, this header's included */
    uint64_t used[NR_UNITS / 64];
};

#define HEADER_UNITS ((sizeof(struct mpl_chunk) + UNIT_BYTES - 1) / UNIT_BYTES)

static uint64_t whole_pages(const struct memplug_linux *host, uint64_t size_bytes)
{
    return (size_bytes + host->page_bytes - 1) & ~(host->page_bytes - 1);
}

int mpl_own_map(struct memplug_linux *host, uint64_t size_bytes, void **memory)
{
    uint64_t mapped_bytes = whole_pages(host, size_bytes);

    if (mapped_bytes < size_bytes) {
        return -ENOMEM;
    }
    void *start = mpl_sys_mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        return -ENOMEM;
    }
    atomic_fetch_add_explicit(&host->mapped_bytes, mapped_bytes, memory_order_relaxed);
    *memory = start;
    return 0;
}

void mpl_own_unmap(struct memplug_linux *host, void *memory, uint64_t size_bytes)
{
    uint64_t mapped_bytes = whole_pages(host, size_bytes);

    mpl_spare_munmap(&host->spare, memory, mapped_bytes);
    atomic_fetch_sub_explicit(&host->mapped_bytes, mapped_bytes, memory_order_relaxed);
}

static bool unit_used(const struct mpl_chunk *chunk, uint32_t unit)
{
    return chunk->used[unit / 64] >> (unit % 64) & 1;
}

static void mark(struct mpl_chunk *chunk, uint32_t first, uint32_t nr, bool used)
{
    for (uint32_t unit = first; unit < first + nr; unit++) {
        uint64_t bit = 1ull << (unit % 64);

        if (used) {
            chunk->used[unit / 64] |= bit;
        } else {
            chunk->used[unit / 64] &= ~bit;
        }
    }
    chunk->nr_used = used ? chunk->nr_used + nr : chunk->nr_used - nr;
}

/* First fit; NR_UNITS if there is none. */
static uint32_t find_run(const struct mpl_chunk *chunk, uint32_t nr)
{
    uint32_t run = 0;

    if (NR_UNITS - chunk->nr_used < nr) {
        return NR_UNITS;
    }
    for (uint32_t unit = 0; unit < NR_UNITS; unit++) {
        if (unit % 64 == 0 && chunk->used[unit / 64] == UINT64_MAX) {
            run = 0;
            unit += 63;
            continue;
        }
        run = unit_used(chunk, unit) ? 0 : run + 1;
        if (run == nr) {
            return unit + 1 - nr;
        }
    }
    return NR_UNITS;
}

static struct mpl_chunk *add_chunk(struct memplug_linux *host, void *zeroed)
{
    struct mpl_chunk *chunk = zeroed;

    mark(chunk, 0, HEADER_UNITS, true);
    chunk->next = host->chunks;
    host->chunks = chunk;
    return chunk;
}

static int new_chunk(struct memplug_linux *host, struct mpl_chunk **chunk)
{
    void *memory;
    int result = mpl_own_map(host, CHUNK_BYTES, &memory);

    if (result != 0) {
        return result;
    }
    *chunk = add_chunk(host, memory);
    return 0;
}

void mpl_memory_begin(struct memplug_linux *host, void *memory)
{
    host->first_chunk = add_chunk(host, memory);
}

int mpl_memory_get(struct memplug_linux *host, uint64_t size_bytes, void **memory)
{
    uint32_t nr = (uint32_t)((size_bytes + UNIT_BYTES - 1) / UNIT_BYTES);
    uint32_t first = NR_UNITS;
    struct mpl_chunk *chunk;

    if (size_bytes > CARVE_MAX_BYTES) {
        return mpl_own_map(host, size_bytes, memory);
    }
    for (chunk = host->chunks; chunk; chunk = chunk->next) {
        first = find_run(chunk, nr);
        if (first < NR_UNITS) {
            break;
        }
    }
    if (!chunk) {
        int result = new_chunk(host, &chunk);

        if (result != 0) {
            return result;
        }
        first = HEADER_UNITS;
    }
    mark(chunk, first, nr, true);
    *memory = (char *)chunk + (uint64_t)first * UNIT_BYTES;
    return 0;
}

void mpl_memory_put(struct memplug_linux *host, void *memory, uint64_t size_bytes)
{
    uint32_t nr = (uint32_t)((size_bytes + UNIT_BYTES - 1) / UNIT_BYTES);
    struct mpl_chunk **link = &host->chunks;

    if (size_bytes > CARVE_MAX_BYTES) {
        mpl_own_unmap(host, memory, size_bytes);
        return;
    }
    while (*link && (uintptr_t)memory - (uintptr_t)*link >= CHUNK_BYTES) {
        link = &(*link)->next;
    }
    struct mpl_chunk *chunk = *link;
    if (!chunk) {
        return;
    }
    mark(chunk, (uint32_t)(((uintptr_t)memory - (uintptr_t)chunk) / UNIT_BYTES), nr, false);
    if (chunk->nr_used == HEADER_UNITS && chunk != host->first_chunk) {
        *link = chunk->next;
        mpl_own_unmap(host, chunk, CHUNK_BYTES);
    }
}

void mpl_memory_end(struct memplug_linux *host)
{
    while (host->chunks) {
        struct mpl_chunk *chunk = host->chunks;

        host->chunks = chunk->next;
        if (chunk != host->first_chunk) {
            mpl_own_unmap(host, chunk, CHUNK_BYTES);
        }
    }
}
