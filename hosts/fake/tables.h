/* SPDX-License-Identifier: MIT */
/*
 * The fake machine's page tables: one radix tree for each window. A table is a boot page, an entry
 * eight bytes; the levels have as many bits as a page has entries, but for one that is cut short
 * so that the large unit is a level of its own.
 */
#ifndef FAKE_TABLES_H
#define FAKE_TABLES_H

#include <stdbool.h>
#include <stdint.h>

struct fake_machine;

#define FAKE_LEVELS_MAX 10

#define FAKE_ENTRY_PRESENT 1u
#define FAKE_ENTRY_LEAF 2u
#define FAKE_ENTRY_SHIFT 8 /* above it: the frame's number in the array */

struct fake_tables {
    struct fake_machine *machine;
    const char *name;
    uint64_t root; /* frame */
    uint64_t nr_tables;
    unsigned nr_levels;
    uint8_t shift[FAKE_LEVELS_MAX + 1]; /* bytes that an entry of this level covers, as a shift */
};

/* -ENOMEM: no boot page for the root. */
int fake_tables_open(struct fake_tables *tables, struct fake_machine *machine, const char *name,
                     uint64_t window_bytes);
void fake_tables_close(struct fake_tables *tables);

/* One unit. -ENOMEM, and no table is left over. Panics if something is mapped there. */
int fake_tables_map(struct fake_tables *tables, uint64_t where, uint64_t unit_bytes,
                    uint64_t frame);

/* The way back, freeing tables that become empty. Panics unless exactly this unit with exactly
 * this frame is mapped there. */
void fake_tables_unmap(struct fake_tables *tables, uint64_t where, uint64_t unit_bytes,
                       uint64_t frame);

/* One unit that is mapped there with the old frame is mapped with the new one: only the entry
 * changes. Panics as unmap. */
void fake_tables_replace(struct fake_tables *tables, uint64_t where, uint64_t unit_bytes,
                         uint64_t old, uint64_t new);

struct fake_tables_visitor {
    bool (*table)(void *context, unsigned level, uint64_t frame, unsigned nr_used);
    bool (*leaf)(void *context, uint64_t where, uint64_t unit_bytes, uint64_t frame);
    void *context;
};

/* In order of addresses, a table before what is in it; false as soon as a visit says false. */
bool fake_tables_walk(const struct fake_tables *tables, const struct fake_tables_visitor *visitor);

#endif
