/* SPDX-License-Identifier: MIT */
#include "hog.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((uint64_t)1 << 20)
#define HUGE_BYTES (2 * MIB)
#define PIPE_PAGES 16 /* so many a pipe holds: the others of a vmsplice are plain memory */

struct kind {
    const char *name; /* what a kind's name holds; the first row that fits counts */
    enum store_kind store;
    uint64_t unit_bytes;
    bool whole_pipe;   /* only what fits into a pipe is pinned */
    bool only_reserve; /* promised, and never taken */
};

static const struct kind kinds[] = {
    {"hugetlb-res", STORE_HUGE, HUGE_BYTES, false, true},
    {"hugetlb_res", STORE_HUGE, HUGE_BYTES, false, true},
    {"hugetlbres", STORE_HUGE, HUGE_BYTES, false, true},
    {"huge-res", STORE_HUGE, HUGE_BYTES, false, true},
    {"huge_res", STORE_HUGE, HUGE_BYTES, false, true},
    {"hugeres", STORE_HUGE, HUGE_BYTES, false, true},
    {"huge", STORE_HUGE, HUGE_BYTES, false, false},
    {"thp", STORE_MOVABLE, HUGE_BYTES, false, false},
    {"vmsplice", STORE_PINNED, 4096, true, false},
    {"pin", STORE_PINNED, 4096, false, false},
    {"slab", STORE_KERNEL, 4096, false, false},
    {"kernel", STORE_KERNEL, 4096, false, false},
    {"ramfs", STORE_KERNEL, 4096, false, false},
    {"anon", STORE_MOVABLE, 4096, false, false},
    {"mlock", STORE_MOVABLE, 4096, false, false},
    {"tmpfs", STORE_MOVABLE, 4096, false, false},
    {"shm", STORE_MOVABLE, 4096, false, false},
    {"memfd", STORE_MOVABLE, 4096, false, false},
    {"file", STORE_MOVABLE, 4096, false, false},
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

struct hog {
    struct hog *next;
    char *name;
    const struct kind *kind;
    struct holding holding;
    uint64_t nr_reserved; /* huge pages that are promised to it */
};

struct hogs {
    struct hog *first;
};

struct hogs *hogs_open(void)
{
    return must_alloc(1, sizeof(struct hogs));
}

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; i < NR_KINDS; i++)
        if (strstr(name, kinds[i].name))
            return &kinds[i];
    return NULL;
}

bool hog_kind_exists(const char *kind)
{
    return find_kind(kind) != NULL;
}

const char *hog_kinds(void)
{
    return "anon, mlock, tmpfs, shm, memfd, file, thp, vmsplice, pinned, slab, kernel, ramfs, "
           "hugetlb, hugetlb-reserve";
}

static struct hog **find_hog(struct machine *machine, const char *name)
{
    struct hog **link = &machine->hogs->first;

    while (*link && strcmp((*link)->name, name) != 0)
        link = &(*link)->next;
    return link;
}

/* --- what it holds ---------------------------------------------------------------------------- */

static int grow_one(struct machine *machine, struct hog *hog)
{
    const struct kind *kind = hog->kind;
    struct store_want want = {.kind = kind->store,
                              .nr_pages = (uint32_t)(kind->unit_bytes >> LAYOUT_PAGE_SHIFT),
                              .node = MEMPLUG_ANY_NODE,
                              .reserved = hog->nr_reserved != 0};
    size_t unit = hog->holding.nr_units;
    int error;

    if (kind->whole_pipe && unit >= PIPE_PAGES)
        want.kind = STORE_MOVABLE;
    error = store_grow(machine->store, &hog->holding, &want);
    if (error)
        return error;
    hog->nr_reserved -= want.reserved;
    store_stamp(machine->store, &hog->holding, unit);
    return 0;
}

static void let_go(struct machine *machine, struct hog *hog)
{
    store_shrink(machine->store, &hog->holding, 0);
    if (hog->nr_reserved &&
        memplug_huge_unreserve(machine->pool, MEMPLUG_HUGE_PMD, hog->nr_reserved))
        fake_panic(machine->fake, "the pool has lost a promise of huge pages");
    hog->nr_reserved = 0;
}

/* A mapping of huge pages promises all of them first, as mmap does. */
static int grow_all(struct machine *machine, struct hog *hog, uint64_t nr_units)
{
    int error = 0;

    if (hog->kind->store == STORE_HUGE && nr_units) {
        error = memplug_huge_reserve(machine->pool, MEMPLUG_HUGE_PMD, nr_units);
        if (error)
            return error;
        hog->nr_reserved = nr_units;
    }
    if (hog->kind->only_reserve)
        return 0;
    for (uint64_t i = 0; i < nr_units && !error; i++)
        error = grow_one(machine, hog);
    return error;
}

int hog_start(struct machine *machine, const char *name, const char *kind, uint64_t nr_mib)
{
    struct hog **link = find_hog(machine, name), *hog;
    int error;

    if (!find_kind(kind))
        return -EINVAL;
    if (*link)
        return -EEXIST;
    hog = must_alloc(1, sizeof(*hog));
    hog->kind = find_kind(kind);
    error = grow_all(machine, hog,
                     (nr_mib * MIB + hog->kind->unit_bytes - 1) / hog->kind->unit_bytes);
    if (error) {
        let_go(machine, hog);
        free(hog);
        return error;
    }
    hog->name = must_copy(name, strlen(name));
    *link = hog;
    return 0;
}

int hog_end(struct machine *machine, const char *name)
{
    struct hog **link = find_hog(machine, name), *hog = *link;

    if (!hog)
        return -ESRCH;
    *link = hog->next;
    let_go(machine, hog);
    free(hog->name);
    free(hog);
    return 0;
}

void hogs_close(struct machine *machine)
{
    while (machine->hogs->first) {
        struct hog *hog = machine->hogs->first;

        machine->hogs->first = hog->next;
        free(hog->holding.units);
        free(hog->name);
        free(hog);
    }
    free(machine->hogs);
}

/* --- look on ---------------------------------------------------------------------------------- */

int hog_where(struct machine *machine, const char *name,
              void (*count)(void *context, uint64_t block, uint64_t nr_pages), void *context)
{
    const struct hog *hog = *find_hog(machine, name);
    uint64_t nr_blocks = memplug_nr_blocks_max(machine->pool);
    unsigned shift = machine->layout.block_shift - LAYOUT_PAGE_SHIFT;
    uint64_t *counts;

    if (!hog)
        return -ESRCH;
    counts = must_alloc(nr_blocks, sizeof(*counts));
    for (size_t i = 0; i < hog->holding.nr_units; i++) {
        uint64_t first = store_pfn(machine->store, &hog->holding, i).nr;

        if (store_lost(machine->store, &hog->holding, i))
            continue;
        for (uint32_t k = 0; k < store_nr_pages(machine->store, &hog->holding, i); k++)
            counts[(first + k) >> shift]++;
    }
    for (uint64_t i = 0; i < nr_blocks; i++)
        if (counts[i])
            count(context, i, counts[i]);
    free(counts);
    return 0;
}

uint64_t hogs_thp_bytes(const struct machine *machine)
{
    uint64_t size_bytes = 0;

    for (const struct hog *hog = machine->hogs->first; hog; hog = hog->next)
        if (hog->kind->store == STORE_MOVABLE && hog->kind->unit_bytes == HUGE_BYTES)
            size_bytes += hog->holding.nr_units * HUGE_BYTES;
    return size_bytes;
}

int hogs_verify(struct machine *machine, char *error, size_t size_bytes)
{
    for (const struct hog *hog = machine->hogs->first; hog; hog = hog->next)
        for (size_t i = 0; i < hog->holding.nr_units; i++) {
            if (store_verify(machine->store, &hog->holding, i))
                continue;
            snprintf(error, size_bytes,
                     "the memory of hog %s is not what it wrote: unit %zu, at pfn 0x%" PRIx64,
                     hog->name, i, store_pfn(machine->store, &hog->holding, i).nr);
            return -1;
        }
    return 0;
}
