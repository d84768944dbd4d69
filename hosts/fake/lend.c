/* SPDX-License-Identifier: MIT */
/*
 * Pages of the memmap window that show another page: the leaf in the machine's tables and the
 * mapping in this process are really replaced, and put back.
 */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool fake_is_lent(const struct fake_mapping *mapping, uint64_t unit)
{
    return mapping->shown && mapping->shown[unit] != FAKE_NOT_LENT;
}

uint64_t fake_nr_lent(const struct fake_mapping *mapping)
{
    uint64_t nr = mapping->size_bytes / mapping->unit_bytes;
    uint64_t nr_lent = 0;
    uint64_t i;

    for (i = 0; mapping->shown && i < nr; i++)
        nr_lent += mapping->shown[i] != FAKE_NOT_LENT;
    return nr_lent;
}

/* The mapping that has this page of the window, and the page's number in it. */
static struct fake_mapping *mapping_at(struct fake_machine *machine, const char *operation,
                                       uint64_t offset, uint64_t *unit)
{
    size_t i;

    for (i = 0; i < machine->nr_mappings; i++) {
        struct fake_mapping *mapping = &machine->mappings[i];

        if (offset < mapping->offset || offset - mapping->offset >= mapping->size_bytes)
            continue;
        if (mapping->unit_bytes != machine->page_bytes)
            fake_panic(machine, "%s: 0x%" PRIx64 " is mapped in units of 0x%" PRIx64 " bytes",
                       operation, offset, mapping->unit_bytes);
        *unit = (offset - mapping->offset) / machine->page_bytes;
        return mapping;
    }
    fake_panic(machine, "%s: nothing is mapped at 0x%" PRIx64, operation, offset);
}

static void check_span(struct fake_machine *machine, const char *operation, uint64_t offset,
                       uint64_t size_bytes)
{
    if (!size_bytes || offset < machine->page_bytes ||
        !fake_multiple(offset | size_bytes, machine->page_bytes))
        fake_panic(machine, "%s: 0x%" PRIx64 " + 0x%" PRIx64 " is not whole pages", operation,
                   offset, size_bytes);
}

/* The leaf and the mapping at one page show this byte of the array from now on. */
static void show(struct fake_machine *machine, uint64_t offset, uint64_t old, uint64_t new)
{
    uint64_t page_bytes = machine->page_bytes;

    fake_tables_replace(&machine->memmap_tables, offset, page_bytes, old / page_bytes,
                        new / page_bytes);
    if (fake_process_map(machine, machine->host.memmap + offset, page_bytes, new))
        fake_panic(machine, "this process cannot map 0x%" PRIx64 " anew", offset);
}

static void lend_page(struct fake_machine *machine, uint64_t offset, uint64_t shown)
{
    uint64_t unit, old, i;
    struct fake_mapping *mapping = mapping_at(machine, "memmap_lend", offset, &unit);
    uint64_t nr = mapping->size_bytes / machine->page_bytes;

    if (!mapping->shown) {
        mapping->shown = malloc(nr * sizeof(*mapping->shown));
        if (!mapping->shown)
            fake_panic(machine, "memmap_lend: no memory for the record");
        for (i = 0; i < nr; i++)
            mapping->shown[i] = FAKE_NOT_LENT;
    }
    old = fake_mapping_array(machine, mapping, unit);
    mapping->shown[unit] = shown / machine->page_bytes;
    show(machine, offset, old, shown);
    if (!mapping->alias)
        fake_boot_give(machine, mapping->frames[unit], 1, FAKE_BOOT_MEMMAP);
}

void fake_memmap_lend(void *host, uint64_t offset, uint64_t size_bytes)
{
    struct fake_machine *machine = fake_enter(host, FAKE_LEND, true);
    const struct fake_mapping *mapping;
    uint64_t unit, shown, at;

    check_span(machine, "memmap_lend", offset, size_bytes);
    mapping = mapping_at(machine, "memmap_lend", offset - machine->page_bytes, &unit);
    if (fake_is_lent(mapping, unit))
        fake_panic(machine, "memmap_lend: the page before 0x%" PRIx64 " is lent itself", offset);
    shown = fake_mapping_array(machine, mapping, unit);
    for (at = offset; at < offset + size_bytes; at += machine->page_bytes) {
        mapping = mapping_at(machine, "memmap_lend", at, &unit);
        if (fake_is_lent(mapping, unit))
            fake_panic(machine, "memmap_lend: 0x%" PRIx64 " is lent already", at);
    }
    for (at = offset; at < offset + size_bytes; at += machine->page_bytes)
        lend_page(machine, at, shown);
}

/* All pages are lent, and of mappings of this kind. Nothing is changed before that is certain. */
static void check_lent(struct fake_machine *machine, const char *operation, bool alias,
                       uint64_t offset, uint64_t size_bytes)
{
    uint64_t at, unit;

    check_span(machine, operation, offset, size_bytes);
    for (at = offset; at < offset + size_bytes; at += machine->page_bytes) {
        const struct fake_mapping *mapping = mapping_at(machine, operation, at, &unit);

        if (mapping->alias != alias)
            fake_panic(machine, "%s: 0x%" PRIx64 " is %s", operation, at,
                       alias ? "provided" : "an alias");
        if (!fake_is_lent(mapping, unit))
            fake_panic(machine, "%s: 0x%" PRIx64 " is not lent", operation, at);
    }
}

static void unlend(struct fake_machine *machine, struct fake_mapping *mapping, uint64_t unit,
                   uint64_t offset)
{
    uint64_t old = mapping->shown[unit] * machine->page_bytes;

    mapping->shown[unit] = FAKE_NOT_LENT;
    show(machine, offset, old, fake_mapping_array(machine, mapping, unit));
    if (!fake_nr_lent(mapping)) {
        free(mapping->shown);
        mapping->shown = NULL;
    }
}

void fake_memmap_return(void *host, uint64_t offset, uint64_t size_bytes)
{
    struct fake_machine *machine = fake_enter(host, FAKE_RETURN, true);
    uint64_t unit, at;

    check_lent(machine, "memmap_return", true, offset, size_bytes);
    for (at = offset; at < offset + size_bytes; at += machine->page_bytes) {
        struct fake_mapping *mapping = mapping_at(machine, "memmap_return", at, &unit);

        unlend(machine, mapping, unit, at);
    }
}

/* All frames first: then nothing can fail. */
int fake_memmap_restore(void *host, uint64_t offset, uint64_t size_bytes)
{
    struct fake_machine *machine = fake_enter(host, FAKE_RESTORE, true);
    uint64_t page_bytes = machine->page_bytes;
    uint64_t nr = size_bytes / page_bytes;
    uint64_t *frames;
    uint64_t i, unit;
    int error;

    check_lent(machine, "memmap_restore", false, offset, size_bytes);
    frames = malloc(nr * sizeof(*frames));
    error = frames ? 0 : -ENOMEM;
    for (i = 0; !error && i < nr; i++) {
        error = fake_boot_take(machine, 1, 1, FAKE_BOOT_MEMMAP, &frames[i]);
        if (error)
            while (i > 0)
                fake_boot_give(machine, frames[--i], 1, FAKE_BOOT_MEMMAP);
        if (error)
            break;
    }
    for (i = 0; !error && i < nr; i++) {
        struct fake_mapping *mapping = mapping_at(machine, "memmap_restore",
                                                  offset + i * page_bytes, &unit);

        mapping->frames[unit] = frames[i];
        unlend(machine, mapping, unit, offset + i * page_bytes);
        fake_fill(machine, machine->host.memmap + offset + i * page_bytes, page_bytes);
    }
    free(frames);
    return error;
}
