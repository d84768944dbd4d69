/* SPDX-License-Identifier: MIT */
/*
 * The two windows: extents in the direct map, mappings in the memmap window. Each is three things
 * that are made and unmade together: entries in the machine's page tables, a mapping of this
 * process, and a record to check the way back against.
 */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* --- mappings of this process ----------------------------------------------------------------- */

int fake_process_map(struct fake_machine *machine, char *at, uint64_t size_bytes, uint64_t array)
{
    void *mapped = mmap(at, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                        machine->array_fd, (off_t)array);

    return mapped == MAP_FAILED ? -ENOMEM : 0;
}

static void process_unmap(struct fake_machine *machine, char *at, uint64_t size_bytes)
{
    if (mmap(at, size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
             -1, 0) == MAP_FAILED)
        fake_panic(machine, "this process cannot unmap: %s", strerror(errno));
}

/* --- the direct map --------------------------------------------------------------------------- */

uint64_t fake_direct_unit(const struct fake_machine *machine, uint64_t address, uint64_t end)
{
    if (fake_multiple(address, machine->large_bytes) && end - address >= machine->large_bytes)
        return machine->large_bytes;
    return machine->page_bytes;
}

uint64_t fake_address_array(const struct fake_machine *machine, uint64_t address)
{
    size_t i;

    for (i = 0; i < machine->nr_extents; i++) {
        const struct fake_extent *extent = &machine->extents[i];

        if (address >= extent->is.address && address - extent->is.address < extent->is.size_bytes)
            return extent->array + (address - extent->is.address);
    }
    return UINT64_MAX;
}

static void direct_tables_unmap(struct fake_machine *machine, const struct fake_extent *extent,
                                uint64_t end)
{
    uint64_t address = extent->is.address;

    while (address < end) {
        uint64_t unit = fake_direct_unit(machine, address, end);
        uint64_t array = extent->array + (address - extent->is.address);

        fake_tables_unmap(&machine->direct_tables, address, unit, array / machine->page_bytes);
        address += unit;
    }
}

static int direct_tables_map(struct fake_machine *machine, const struct fake_extent *extent)
{
    uint64_t address = extent->is.address;
    uint64_t end = address + extent->is.size_bytes;

    while (address < end) {
        uint64_t unit = fake_direct_unit(machine, address, end);
        uint64_t array = extent->array + (address - extent->is.address);
        int error = fake_tables_map(&machine->direct_tables, address, unit,
                                    array / machine->page_bytes);

        if (error) {
            direct_tables_unmap(machine, extent, address);
            return error;
        }
        address += unit;
    }
    return 0;
}

static void check_extent(struct fake_machine *machine, const struct memplug_extent *extent)
{
    if (!extent->size_bytes || !fake_multiple(extent->size_bytes, machine->block_bytes) ||
        !fake_multiple(extent->address, machine->block_bytes))
        fake_panic(machine, "attach: 0x%" PRIx64 " + 0x%" PRIx64 " is not whole blocks",
                   extent->address, extent->size_bytes);
    if (extent->address >= machine->host.geometry.address_limit ||
        extent->size_bytes > machine->host.geometry.address_limit - extent->address)
        fake_panic(machine, "attach: 0x%" PRIx64 " is beyond the address limit", extent->address);
    if (extent->memmap_bytes > extent->size_bytes ||
        !fake_multiple(extent->memmap_bytes, machine->page_bytes))
        fake_panic(machine, "attach: a memmap of 0x%" PRIx64 " bytes", extent->memmap_bytes);
}

/* What the host is asked to find out, in contrast to what the core must know itself. */
static int claim(struct fake_machine *machine, const struct memplug_extent *extent,
                 const struct fake_backing *backing)
{
    uint64_t array = backing->array + extent->offset_bytes;
    size_t i;

    if (backing->unmappable || !fake_multiple(extent->offset_bytes, backing->alignment))
        return -ENODEV;
    if (extent->offset_bytes > backing->size_bytes ||
        extent->size_bytes > backing->size_bytes - extent->offset_bytes)
        return -ENXIO;
    for (i = 0; i < machine->nr_extents; i++)
        if (fake_overlap(array, extent->size_bytes, machine->extents[i].array,
                         machine->extents[i].is.size_bytes))
            return -EEXIST;
    return backing->busy ? -EBUSY : 0;
}

static size_t extent_slot(struct fake_machine *machine, const struct memplug_extent *extent)
{
    size_t at = 0;

    while (at < machine->nr_extents && machine->extents[at].is.address < extent->address)
        at++;
    if ((at < machine->nr_extents && machine->extents[at].is.address - extent->address <
                                         extent->size_bytes) ||
        (at > 0 && extent->address - machine->extents[at - 1].is.address <
                       machine->extents[at - 1].is.size_bytes))
        fake_panic(machine, "attach: 0x%" PRIx64 " is attached already", extent->address);
    return at;
}

int fake_attach(void *host, const struct memplug_extent *extent)
{
    struct fake_machine *machine = fake_enter(host, FAKE_ATTACH, true);
    struct fake_extent new = {.is = *extent}, *extents;
    struct fake_backing *backing;
    size_t at;
    int error;

    if (!extent->backing)
        return -ENODEV;
    backing = fake_backing_find(machine, extent->backing);
    new.array = backing->array + extent->offset_bytes;
    check_extent(machine, extent);
    at = extent_slot(machine, extent);
    error = claim(machine, extent, backing);
    if (error)
        return error;
    extents = realloc(machine->extents, (machine->nr_extents + 1) * sizeof(*extents));
    if (!extents)
        return -ENOMEM;
    machine->extents = extents;
    error = direct_tables_map(machine, &new);
    if (error)
        return error;
    error = fake_process_map(machine, machine->host.direct_map + extent->address,
                             extent->size_bytes, new.array);
    if (error) {
        direct_tables_unmap(machine, &new, extent->address + extent->size_bytes);
        return error;
    }
    memmove(extents + at + 1, extents + at, (machine->nr_extents - at) * sizeof(*extents));
    extents[at] = new;
    machine->nr_extents++;
    fake_extent_fill(machine, &new);
    return 0;
}

static void check_no_alias(struct fake_machine *machine, const struct memplug_extent *extent)
{
    size_t i;

    for (i = 0; i < machine->nr_mappings; i++) {
        const struct fake_mapping *mapping = &machine->mappings[i];

        if (mapping->alias && fake_overlap(mapping->address, mapping->size_bytes, extent->address,
                                           extent->size_bytes))
            fake_panic(machine, "detach: 0x%" PRIx64 " is still in the memmap at 0x%" PRIx64,
                       extent->address, mapping->offset);
    }
}

void fake_detach(void *host, const struct memplug_extent *extent)
{
    struct fake_machine *machine = fake_enter(host, FAKE_DETACH, true);
    struct fake_extent *extents = machine->extents;
    struct fake_extent old;
    size_t at = 0;

    while (at < machine->nr_extents && extents[at].is.address != extent->address)
        at++;
    if (at == machine->nr_extents)
        fake_panic(machine, "detach: no extent begins at 0x%" PRIx64, extent->address);
    old = extents[at];
    if (old.is.size_bytes != extent->size_bytes || old.is.backing != extent->backing ||
        old.is.offset_bytes != extent->offset_bytes ||
        old.is.memmap_bytes != extent->memmap_bytes || old.is.node != extent->node)
        fake_panic(machine, "detach: not the extent that was attached at 0x%" PRIx64,
                   extent->address);
    check_no_alias(machine, extent);
    fake_extent_poison(machine, &old);
    process_unmap(machine, machine->host.direct_map + extent->address, extent->size_bytes);
    direct_tables_unmap(machine, &old, extent->address + extent->size_bytes);
    machine->nr_extents--;
    memmove(extents + at, extents + at + 1, (machine->nr_extents - at) * sizeof(*extents));
}

int fake_attach_row(void *host, const struct memplug_extent *first, uint64_t nr)
{
    struct memplug_extent extent = *first;
    int error = 0;

    for (uint64_t i = 0; i < nr && error == 0; i++) {
        error = fake_attach(host, &extent);
        while (error != 0 && i-- > 0) {
            extent.address -= first->size_bytes;
            extent.offset_bytes -= first->size_bytes;
            fake_detach(host, &extent);
        }
        extent.address += first->size_bytes;
        extent.offset_bytes += first->size_bytes;
    }
    return error;
}

/* --- the memmap window ------------------------------------------------------------------------ */

uint64_t fake_mapping_array(const struct fake_machine *machine,
                            const struct fake_mapping *mapping, uint64_t unit)
{
    if (fake_is_lent(mapping, unit))
        return mapping->shown[unit] * machine->page_bytes;
    if (mapping->alias)
        return fake_address_array(machine, mapping->address + unit * mapping->unit_bytes);
    return mapping->frames[unit] * machine->page_bytes;
}

static uint64_t nr_units(const struct fake_mapping *mapping)
{
    return mapping->size_bytes / mapping->unit_bytes;
}

static void memmap_tables_unmap(struct fake_machine *machine, const struct fake_mapping *mapping,
                                uint64_t nr)
{
    uint64_t i;

    for (i = 0; i < nr; i++)
        fake_tables_unmap(&machine->memmap_tables, mapping->offset + i * mapping->unit_bytes,
                          mapping->unit_bytes,
                          fake_mapping_array(machine, mapping, i) / machine->page_bytes);
}

static int memmap_tables_map(struct fake_machine *machine, const struct fake_mapping *mapping)
{
    uint64_t i;

    for (i = 0; i < nr_units(mapping); i++) {
        int error = fake_tables_map(&machine->memmap_tables,
                                    mapping->offset + i * mapping->unit_bytes, mapping->unit_bytes,
                                    fake_mapping_array(machine, mapping, i) / machine->page_bytes);

        if (error) {
            memmap_tables_unmap(machine, mapping, i);
            return error;
        }
    }
    return 0;
}

/* In as few pieces as the frames allow. */
static int memmap_process_map(struct fake_machine *machine, const struct fake_mapping *mapping)
{
    char *start = machine->host.memmap + mapping->offset;
    uint64_t unit = mapping->unit_bytes;
    uint64_t i = 0;

    while (i < nr_units(mapping)) {
        uint64_t array = fake_mapping_array(machine, mapping, i);
        uint64_t n = 1;

        while (i + n < nr_units(mapping) &&
               fake_mapping_array(machine, mapping, i + n) == array + n * unit)
            n++;
        if (fake_process_map(machine, start + i * unit, n * unit, array)) {
            process_unmap(machine, start, mapping->size_bytes);
            return -ENOMEM;
        }
        i += n;
    }
    return 0;
}

static void check_mapping(struct fake_machine *machine, const char *operation,
                          const struct fake_mapping *new)
{
    if (new->unit_bytes != machine->page_bytes && new->unit_bytes != machine->large_bytes)
        fake_panic(machine, "%s: a unit of 0x%" PRIx64 " bytes", operation, new->unit_bytes);
    if (!new->size_bytes || !fake_multiple(new->offset | new->size_bytes | new->address,
                                           new->unit_bytes))
        fake_panic(machine, "%s: 0x%" PRIx64 " + 0x%" PRIx64 " is not whole units", operation,
                   new->offset, new->size_bytes);
    if (new->offset >= machine->memmap_bytes ||
        new->size_bytes > machine->memmap_bytes - new->offset)
        fake_panic(machine, "%s: 0x%" PRIx64 " is beyond the memmap window", operation,
                   new->offset);
}

/* All of an alias lies in memmap heads of attached extents, at the backing's alignment, and no
 * unit is cut by the end of an extent. */
static void check_alias(struct fake_machine *machine, const struct fake_mapping *new)
{
    uint64_t address = new->address;
    uint64_t end = address + new->size_bytes;
    size_t i;

    if (end < address)
        fake_panic(machine, "memmap_alias: 0x%" PRIx64 " is not an address", address);
    for (i = 0; i < machine->nr_extents && address < end; i++) {
        const struct memplug_extent *extent = &machine->extents[i].is;
        const struct fake_backing *backing = extent->backing;
        uint64_t can_hold = machine->config.lends ? extent->size_bytes : extent->memmap_bytes;
        uint64_t piece;

        if (address < extent->address || address - extent->address >= can_hold)
            continue;
        piece = extent->address + can_hold - address;
        piece = piece < end - address ? piece : end - address;
        if (!fake_multiple((address - extent->address) | piece, backing->alignment))
            fake_panic(machine, "memmap_alias: 0x%" PRIx64 " is not aligned to its backing",
                       address);
        if (!fake_multiple(piece, new->unit_bytes))
            fake_panic(machine, "memmap_alias: a unit is cut at 0x%" PRIx64, address + piece);
        address += piece;
    }
    if (address < end)
        fake_panic(machine, "memmap_alias: 0x%" PRIx64 " is not in an extent's memmap", address);
}

/* Where the new mapping's record goes, with room for it; -ENOMEM. */
static int mapping_slot(struct fake_machine *machine, const char *operation,
                        const struct fake_mapping *new, size_t *slot)
{
    struct fake_mapping *mappings;
    size_t at = 0;
    size_t i;

    for (i = 0; i < machine->nr_mappings; i++) {
        const struct fake_mapping *mapping = &machine->mappings[i];

        if (fake_overlap(mapping->offset, mapping->size_bytes, new->offset, new->size_bytes))
            fake_panic(machine, "%s: the memmap at 0x%" PRIx64 " is mapped already", operation,
                       new->offset);
        at += mapping->offset < new->offset;
    }
    mappings = realloc(machine->mappings, (machine->nr_mappings + 1) * sizeof(*mappings));
    if (!mappings)
        return -ENOMEM;
    machine->mappings = mappings;
    *slot = at;
    return 0;
}

static int mapping_make(struct fake_machine *machine, const struct fake_mapping *new, size_t slot)
{
    struct fake_mapping *mappings = machine->mappings;
    int error = memmap_tables_map(machine, new);

    if (error)
        return error;
    error = memmap_process_map(machine, new);
    if (error) {
        memmap_tables_unmap(machine, new, nr_units(new));
        return error;
    }
    memmove(mappings + slot + 1, mappings + slot,
            (machine->nr_mappings - slot) * sizeof(*mappings));
    mappings[slot] = *new;
    machine->nr_mappings++;
    return 0;
}

int fake_memmap_alias(void *host, uint64_t offset, uint64_t address, uint64_t size_bytes,
                      uint64_t unit_bytes)
{
    struct fake_machine *machine = fake_enter(host, FAKE_ALIAS, true);
    struct fake_mapping new = {.offset = offset, .size_bytes = size_bytes,
                               .unit_bytes = unit_bytes, .alias = true, .address = address};
    size_t slot;
    int error;

    check_mapping(machine, "memmap_alias", &new);
    check_alias(machine, &new);
    error = mapping_slot(machine, "memmap_alias", &new, &slot);
    return error ? error : mapping_make(machine, &new, slot);
}

/* How much of a unit is worth filling. */
static uint64_t provide_fill_bytes(const struct fake_machine *machine, uint64_t unit_bytes)
{
    uint64_t size_bytes = machine->config.memmap_fill_bytes;

    return size_bytes != 0 && size_bytes < unit_bytes ? size_bytes & ~(uint64_t)7 : unit_bytes;
}

static void frames_give(struct fake_machine *machine, const struct fake_mapping *mapping,
                        uint64_t nr)
{
    uint64_t i;

    for (i = 0; i < nr; i++)
        fake_boot_give(machine, mapping->frames[i], mapping->unit_bytes / machine->page_bytes,
                       FAKE_BOOT_MEMMAP);
    free(mapping->frames);
}

static int frames_take(struct fake_machine *machine, struct fake_mapping *mapping)
{
    uint64_t unit_pages = mapping->unit_bytes / machine->page_bytes;
    uint64_t i;

    mapping->frames = calloc(nr_units(mapping), sizeof(*mapping->frames));
    if (!mapping->frames)
        return -ENOMEM;
    for (i = 0; i < nr_units(mapping); i++) {
        int error = fake_boot_take(machine, unit_pages, unit_pages, FAKE_BOOT_MEMMAP,
                                   &mapping->frames[i]);

        if (error) {
            frames_give(machine, mapping, i);
            return error;
        }
    }
    return 0;
}

int fake_memmap_provide(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    struct fake_machine *machine = fake_enter(host, FAKE_PROVIDE, true);
    struct fake_mapping new = {.offset = offset, .size_bytes = size_bytes,
                               .unit_bytes = unit_bytes};
    size_t slot;
    int error;

    check_mapping(machine, "memmap_provide", &new);
    error = mapping_slot(machine, "memmap_provide", &new, &slot);
    if (error)
        return error;
    error = frames_take(machine, &new);
    if (error)
        return error;
    error = mapping_make(machine, &new, slot);
    if (error) {
        frames_give(machine, &new, nr_units(&new));
        return error;
    }
    for (uint64_t at = 0; at < size_bytes; at += unit_bytes)
        fake_fill(machine, machine->host.memmap + offset + at,
                  provide_fill_bytes(machine, unit_bytes));
    return 0;
}

void fake_memmap_unmap(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    struct fake_machine *machine = fake_enter(host, FAKE_UNMAP, true);
    struct fake_mapping *mappings = machine->mappings;
    struct fake_mapping old;
    size_t at = 0;

    while (at < machine->nr_mappings && mappings[at].offset != offset)
        at++;
    if (at == machine->nr_mappings)
        fake_panic(machine, "memmap_unmap: nothing was mapped at 0x%" PRIx64, offset);
    old = mappings[at];
    if (old.size_bytes != size_bytes || old.unit_bytes != unit_bytes)
        fake_panic(machine,
                   "memmap_unmap: 0x%" PRIx64 " bytes in units of 0x%" PRIx64 " were mapped at 0x%"
                   PRIx64 ", not 0x%" PRIx64 " in 0x%" PRIx64,
                   old.size_bytes, old.unit_bytes, offset, size_bytes, unit_bytes);
    if (fake_nr_lent(&old))
        fake_panic(machine, "memmap_unmap: %" PRIu64 " pages at 0x%" PRIx64 " are still lent",
                   fake_nr_lent(&old), offset);
    free(old.shown);
    process_unmap(machine, machine->host.memmap + offset, size_bytes);
    memmap_tables_unmap(machine, &old, nr_units(&old));
    if (!old.alias)
        frames_give(machine, &old, nr_units(&old));
    machine->nr_mappings--;
    memmove(mappings + at, mappings + at + 1, (machine->nr_mappings - at) * sizeof(*mappings));
}
