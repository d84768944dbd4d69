/* SPDX-License-Identifier: MIT */
#include "tables.h"

#include "machine.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static unsigned log2_up(uint64_t value)
{
    return value <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(value - 1);
}

static uint64_t *table_at(const struct fake_tables *tables, uint64_t frame)
{
    return (uint64_t *)(void *)fake_boot_page(tables->machine, frame);
}

static unsigned table_entries(const struct fake_tables *tables, unsigned level)
{
    return 1u << (tables->shift[level + 1] - tables->shift[level]);
}

static unsigned table_index(const struct fake_tables *tables, unsigned level, uint64_t where)
{
    return (unsigned)(where >> tables->shift[level]) & (table_entries(tables, level) - 1);
}

static int table_new(struct fake_tables *tables, uint64_t *frame)
{
    int error = fake_boot_take(tables->machine, 1, 1, FAKE_BOOT_TABLE, frame);

    if (error)
        return error;
    memset(table_at(tables, *frame), 0, tables->machine->page_bytes);
    tables->machine->table_used[*frame] = 0;
    tables->nr_tables++;
    return 0;
}

static void table_free(struct fake_tables *tables, uint64_t frame)
{
    fake_boot_give(tables->machine, frame, 1, FAKE_BOOT_TABLE);
    tables->nr_tables--;
}

int fake_tables_open(struct fake_tables *tables, struct fake_machine *machine, const char *name,
                     uint64_t window_bytes)
{
    unsigned page_shift = machine->host.geometry.page_shift;
    unsigned large_shift = machine->host.geometry.large_shift;
    unsigned shift = page_shift;
    unsigned level = 0;

    *tables = (struct fake_tables){.machine = machine, .name = name};
    tables->shift[0] = (uint8_t)page_shift;
    while (level == 0 || shift < log2_up(window_bytes)) {
        unsigned next = shift + page_shift - 3;

        if (shift < large_shift && next > large_shift)
            next = large_shift;
        shift = next;
        tables->shift[++level] = (uint8_t)shift;
        if (level == FAKE_LEVELS_MAX)
            break;
    }
    tables->nr_levels = level;
    return table_new(tables, &tables->root);
}

void fake_tables_close(struct fake_tables *tables)
{
    if (tables->nr_tables == 1 && tables->machine->table_used[tables->root] == 0)
        table_free(tables, tables->root);
}

static unsigned leaf_level(const struct fake_tables *tables, uint64_t unit_bytes)
{
    unsigned level;

    for (level = 0; level < tables->nr_levels; level++)
        if (unit_bytes == (uint64_t)1 << tables->shift[level])
            return level;
    fake_panic(tables->machine, "%s: no level has units of 0x%" PRIx64 " bytes", tables->name,
               unit_bytes);
}

/* Go down to the table that holds this address at this level. path[l] is the table at level l.
 * Returns the level that was reached: higher than level if a table is missing there. */
static unsigned descend(const struct fake_tables *tables, uint64_t where, unsigned level,
                        uint64_t path[FAKE_LEVELS_MAX])
{
    unsigned at = tables->nr_levels - 1;

    path[at] = tables->root;
    while (at > level) {
        uint64_t entry = table_at(tables, path[at])[table_index(tables, at, where)];

        if (!(entry & FAKE_ENTRY_PRESENT))
            return at;
        if (entry & FAKE_ENTRY_LEAF)
            fake_panic(tables->machine,
                       "%s: 0x%" PRIx64 " is mapped in a larger unit than asked for",
                       tables->name, where);
        path[--at] = entry >> FAKE_ENTRY_SHIFT;
    }
    return at;
}

static void entry_set(struct fake_tables *tables, uint64_t table, unsigned level, uint64_t where,
                      uint64_t entry)
{
    table_at(tables, table)[table_index(tables, level, where)] = entry;
    tables->machine->table_used[table]++;
}

/* Clear the entry, and free the tables that this leaves empty. */
static void entry_clear(struct fake_tables *tables, const uint64_t path[FAKE_LEVELS_MAX],
                        unsigned level, uint64_t where)
{
    for (;;) {
        table_at(tables, path[level])[table_index(tables, level, where)] = 0;
        if (--tables->machine->table_used[path[level]] || level == tables->nr_levels - 1)
            return;
        table_free(tables, path[level]);
        level++;
    }
}

int fake_tables_map(struct fake_tables *tables, uint64_t where, uint64_t unit_bytes,
                    uint64_t frame)
{
    unsigned level = leaf_level(tables, unit_bytes);
    uint64_t path[FAKE_LEVELS_MAX];
    unsigned found = descend(tables, where, level, path);
    unsigned at;

    for (at = found; at > level; at--) {
        int error = table_new(tables, &path[at - 1]);

        if (error) {
            if (at < found) { /* the table at this level is new, and so empty */
                table_free(tables, path[at]);
                entry_clear(tables, path, at + 1, where);
            }
            return error;
        }
        entry_set(tables, path[at], at, where,
                  path[at - 1] << FAKE_ENTRY_SHIFT | FAKE_ENTRY_PRESENT);
    }
    if (table_at(tables, path[level])[table_index(tables, level, where)])
        fake_panic(tables->machine, "%s: 0x%" PRIx64 " is mapped already", tables->name, where);
    entry_set(tables, path[level], level, where,
              frame << FAKE_ENTRY_SHIFT | FAKE_ENTRY_LEAF | FAKE_ENTRY_PRESENT);
    return 0;
}

/* Go down to the leaf of this unit with this frame. */
static unsigned find_leaf(const struct fake_tables *tables, uint64_t where, uint64_t unit_bytes,
                          uint64_t frame, uint64_t path[FAKE_LEVELS_MAX])
{
    unsigned level = leaf_level(tables, unit_bytes);
    uint64_t entry = 0;

    if (descend(tables, where, level, path) == level)
        entry = table_at(tables, path[level])[table_index(tables, level, where)];
    if (!(entry & FAKE_ENTRY_PRESENT))
        fake_panic(tables->machine, "%s: 0x%" PRIx64 " is not mapped", tables->name, where);
    if (!(entry & FAKE_ENTRY_LEAF))
        fake_panic(tables->machine, "%s: 0x%" PRIx64 " is mapped in smaller units than asked for",
                   tables->name, where);
    if (entry >> FAKE_ENTRY_SHIFT != frame)
        fake_panic(tables->machine,
                   "%s: 0x%" PRIx64 " maps frame 0x%" PRIx64 ", not 0x%" PRIx64, tables->name,
                   where, entry >> FAKE_ENTRY_SHIFT, frame);
    return level;
}

void fake_tables_unmap(struct fake_tables *tables, uint64_t where, uint64_t unit_bytes,
                       uint64_t frame)
{
    uint64_t path[FAKE_LEVELS_MAX];
    unsigned level = find_leaf(tables, where, unit_bytes, frame, path);

    entry_clear(tables, path, level, where);
}

void fake_tables_replace(struct fake_tables *tables, uint64_t where, uint64_t unit_bytes,
                         uint64_t old, uint64_t new)
{
    uint64_t path[FAKE_LEVELS_MAX];
    unsigned level = find_leaf(tables, where, unit_bytes, old, path);

    table_at(tables, path[level])[table_index(tables, level, where)] =
        new << FAKE_ENTRY_SHIFT | FAKE_ENTRY_LEAF | FAKE_ENTRY_PRESENT;
}

static bool walk_table(const struct fake_tables *tables, const struct fake_tables_visitor *visitor,
                       unsigned level, uint64_t frame, uint64_t where)
{
    const uint64_t *table = table_at(tables, frame);
    unsigned nr_entries = table_entries(tables, level);
    unsigned nr_used = 0;
    unsigned i;

    for (i = 0; i < nr_entries; i++)
        nr_used += (table[i] & FAKE_ENTRY_PRESENT) != 0;
    if (!visitor->table(visitor->context, level, frame, nr_used))
        return false;
    for (i = 0; nr_used && i < nr_entries; i++) {
        uint64_t at = where + ((uint64_t)i << tables->shift[level]);
        bool good = true;

        if (!(table[i] & FAKE_ENTRY_PRESENT))
            continue;
        nr_used--;
        if (table[i] & FAKE_ENTRY_LEAF)
            good = visitor->leaf(visitor->context, at, (uint64_t)1 << tables->shift[level],
                                 table[i] >> FAKE_ENTRY_SHIFT);
        else
            good = level > 0 && walk_table(tables, visitor, level - 1,
                                           table[i] >> FAKE_ENTRY_SHIFT, at);
        if (!good)
            return false;
    }
    return true;
}

bool fake_tables_walk(const struct fake_tables *tables, const struct fake_tables_visitor *visitor)
{
    return walk_table(tables, visitor, tables->nr_levels - 1, tables->root, 0);
}
