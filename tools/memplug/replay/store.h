/* SPDX-License-Identifier: MIT */
/*
 * Whoever uses memory on the machine: allocations with content, in order, and a mover for those
 * that can be moved. A hog is a holding whose pages bear a pattern, a file one that bears the
 * file's bytes.
 */
#ifndef REPLAY_STORE_H
#define REPLAY_STORE_H

#include <memplug/huge.h>
#include <memplug/memplug.h>

struct store;

enum store_kind {
    STORE_MOVABLE,
    STORE_PINNED, /* movable, with an extra reference that keeps it where it is */
    STORE_KERNEL, /* nobody can move it */
    STORE_HUGE,   /* from the pool of huge pages; movable */
};

struct store_want {
    enum store_kind kind;
    uint32_t nr_pages; /* of each allocation */
    int node;          /* MEMPLUG_ANY_NODE */
    bool reserved;     /* of STORE_HUGE: it was promised */
};

/* Allocations that belong together. */
struct holding {
    uint32_t *units;
    size_t nr_units, room;
};

/* Null: errors of memplug_register_mover(). */
int store_open(struct memplug *pool, uint64_t page_bytes, struct store **store);
/* Forgets the store; what its units hold stays taken, and the pool must not be asked for it. */
void store_close(struct store *store);

/* One more allocation at the end of a holding; its bytes are zero. -ENOMEM, and as
 * memplug_alloc() and memplug_pin(). */
int store_grow(struct store *store, struct holding *holding, const struct store_want *want);
/* The same with exactly these frames, of the kernel's own; their bytes stay. As
 * memplug_alloc_exact(). */
int store_take_exact(struct store *store, struct holding *holding, memplug_pfn_t pfn,
                     uint32_t nr_pages);
/* Give back the last ones, until nr_units are left. */
void store_shrink(struct store *store, struct holding *holding, size_t nr_units);

/* Of a unit of a holding. Its bytes are null if they were lost to a bad frame. */
char *store_bytes(struct store *store, const struct holding *holding, size_t unit);
memplug_pfn_t store_pfn(const struct store *store, const struct holding *holding, size_t unit);
uint32_t store_nr_pages(const struct store *store, const struct holding *holding, size_t unit);
bool store_lost(const struct store *store, const struct holding *holding, size_t unit);

/* A pattern that no other unit, and no unit before it at the same place, has. false: it is not
 * what was stamped. What is lost counts as good. */
void store_stamp(struct store *store, const struct holding *holding, size_t unit);
bool store_verify(struct store *store, const struct holding *holding, size_t unit);

uint64_t store_nr_moved(const struct store *store);

#endif
