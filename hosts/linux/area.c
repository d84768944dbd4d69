/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "area.h"

#include "host.h"
#include "sys.h"

#include <errno.h>

#define GROW_UNITS 32768u /* a bit for each is a page */
#define GROW_BYTES 65536u

/* --- tables ----------------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) & ~(unit - 1);
}

int mpl_table_open(struct mpl_table *table, uint64_t reserved_bytes)
{
    uint64_t bytes = round_up(reserved_bytes, GROW_BYTES);
    void *base = mpl_sys_mmap(NULL, bytes, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return -ENOMEM;
    *table = (struct mpl_table){.base = base, .reserved_bytes = bytes};
    return 0;
}

void mpl_table_close(struct mpl_table *table, struct memplug_linux *host)
{
    if (!table->base)
        return;
    mpl_spare_munmap(&host->spare, table->base, table->reserved_bytes);
    atomic_fetch_sub_explicit(&host->mapped_bytes, table->usable_bytes, memory_order_relaxed);
    table->base = NULL;
}

int mpl_table_grow(struct mpl_table *table, struct memplug_linux *host, uint64_t bytes)
{
    uint64_t usable_bytes = round_up(bytes, GROW_BYTES);

    if (usable_bytes <= table->usable_bytes)
        return 0;
    if (usable_bytes > table->reserved_bytes)
        return -ENOMEM;
    if (mpl_sys_mprotect(table->base + table->usable_bytes, usable_bytes - table->usable_bytes,
                         PROT_READ | PROT_WRITE) != 0)
        return -ENOMEM;
    atomic_fetch_add_explicit(&host->mapped_bytes, usable_bytes - table->usable_bytes,
                              memory_order_relaxed);
    table->usable_bytes = usable_bytes;
    return 0;
}

/* Bits that one unit has in each table. */
static uint64_t bits_per_unit(const struct mpl_area *area, unsigned table,
                              uint64_t unit_record_bytes)
{
    switch (table) {
    case MPL_AREA_PAGES:
        return area->unit_pages;
    case MPL_AREA_TAKEN:
    case MPL_AREA_PARTIAL:
        return 1;
    case MPL_AREA_COUNT:
        return 16;
    case MPL_AREA_UNITS:
        return unit_record_bytes * 8;
    default:
        return area->unit_pages * 32;
    }
}

int mpl_area_open(struct mpl_area *area, struct memplug_linux *host, uint64_t unit_pages,
                  uint64_t nr_units, uint64_t unit_record_bytes)
{
    *area = (struct mpl_area){.host = host, .unit_pages = unit_pages, .nr_units = nr_units};
    for (unsigned i = 0; i < MPL_AREA_NR_TABLES; i++) {
        area->step_bytes[i] = GROW_UNITS / 8 * bits_per_unit(area, i, unit_record_bytes);
        if (mpl_table_open(&area->tables[i],
                           round_up(nr_units, GROW_UNITS) / GROW_UNITS * area->step_bytes[i])) {
            mpl_area_close(area);
            return -ENOMEM;
        }
    }
    return 0;
}

void mpl_area_close(struct mpl_area *area)
{
    for (unsigned i = 0; i < MPL_AREA_NR_TABLES; i++)
        mpl_table_close(&area->tables[i], area->host);
}

/* Memory in all tables for units below end. */
static int grow(struct mpl_area *area, uint64_t end)
{
    uint64_t nr_usable = round_up(end, GROW_UNITS);

    if (end <= area->nr_usable)
        return 0;
    for (unsigned i = 0; i < MPL_AREA_NR_TABLES; i++)
        if (mpl_table_grow(&area->tables[i], area->host,
                           nr_usable / GROW_UNITS * area->step_bytes[i]) != 0)
            return -ENOMEM;
    area->nr_usable = nr_usable;
    return 0;
}

/* --- bits ------------------------------------------------------------------------------------- */

static uint64_t *bits_of(const struct mpl_area *area, enum mpl_area_table table)
{
    return (uint64_t *)(void *)area->tables[table].base;
}

static bool get_bit(const uint64_t *bits, uint64_t nr)
{
    return bits[nr / 64] >> (nr % 64) & 1;
}

static void set_bit(uint64_t *bits, uint64_t nr, bool value)
{
    if (value)
        bits[nr / 64] |= (uint64_t)1 << (nr % 64);
    else
        bits[nr / 64] &= ~((uint64_t)1 << (nr % 64));
}

/* The first bit of this value in [from, end), else end. */
static uint64_t find_bit(const uint64_t *bits, uint64_t from, uint64_t end, bool value)
{
    while (from < end) {
        uint64_t word = (value ? bits[from / 64] : ~bits[from / 64]) >> (from % 64);

        if (word != 0) {
            from += (uint64_t)__builtin_ctzll(word);
            return from < end ? from : end;
        }
        from = (from / 64 + 1) * 64;
    }
    return end;
}

/* The first nr_bits clear ones in a row in [from, end), else end. */
static uint64_t find_clear_run(const uint64_t *bits, uint64_t from, uint64_t end, uint64_t nr_bits)
{
    while (from < end) {
        uint64_t start = find_bit(bits, from, end, false);

        if (end - start < nr_bits)
            return end;
        from = find_bit(bits, start, start + nr_bits, true);
        if (from == start + nr_bits)
            return start;
    }
    return end;
}

/* --- take and give ---------------------------------------------------------------------------- */

static void set_count(struct mpl_area *area, uint64_t unit, uint64_t nr_taken)
{
    uint16_t *counts = (uint16_t *)(void *)area->tables[MPL_AREA_COUNT].base;

    counts[unit] = (uint16_t)nr_taken;
    set_bit(bits_of(area, MPL_AREA_TAKEN), unit, nr_taken > 0);
    set_bit(bits_of(area, MPL_AREA_PARTIAL), unit, nr_taken > 0 && nr_taken < area->unit_pages);
    if (nr_taken == 0 && unit < area->first_free)
        area->first_free = unit;
}

static uint64_t count_of(const struct mpl_area *area, uint64_t unit)
{
    return ((const uint16_t *)(const void *)area->tables[MPL_AREA_COUNT].base)[unit];
}

static void mark_unit(struct mpl_area *area, uint64_t first_page, uint64_t nr_pages, bool taken)
{
    uint64_t unit = first_page / area->unit_pages, count = count_of(area, unit);

    for (uint64_t i = 0; i < nr_pages; i++)
        set_bit(bits_of(area, MPL_AREA_PAGES), first_page + i, taken);
    set_count(area, unit, taken ? count + nr_pages : count - nr_pages);
}

static void mark_taken(struct mpl_area *area, uint64_t first_page, uint64_t nr_pages)
{
    while (nr_pages > 0) {
        uint64_t left = area->unit_pages - first_page % area->unit_pages;
        uint64_t nr = nr_pages < left ? nr_pages : left;

        mark_unit(area, first_page, nr, true);
        first_page += nr;
        nr_pages -= nr;
    }
}

/* A place in a unit that is taken in part. */
static bool find_partial(const struct mpl_area *area, uint64_t nr_pages, uint64_t *first_page)
{
    const uint64_t *partial = bits_of(area, MPL_AREA_PARTIAL);
    uint64_t unit = find_bit(partial, 0, area->nr_usable, true);

    while (unit < area->nr_usable) {
        uint64_t first = unit * area->unit_pages, end = first + area->unit_pages;
        uint64_t found = end;

        if (area->unit_pages - count_of(area, unit) >= nr_pages)
            found = find_clear_run(bits_of(area, MPL_AREA_PAGES), first, end, nr_pages);
        if (found < end) {
            *first_page = found;
            return true;
        }
        unit = find_bit(partial, unit + 1, area->nr_usable, true);
    }
    return false;
}

static int find_units(struct mpl_area *area, uint64_t nr_units, uint64_t *first_page)
{
    const uint64_t *taken = bits_of(area, MPL_AREA_TAKEN);
    uint64_t unit;

    area->first_free = find_bit(taken, area->first_free, area->nr_usable, false);
    unit = find_clear_run(taken, area->first_free, area->nr_usable, nr_units);
    if (unit == area->nr_usable) {
        while (unit > area->first_free && !get_bit(taken, unit - 1))
            unit--;
        if (nr_units > area->nr_units || unit > area->nr_units - nr_units ||
            grow(area, unit + nr_units) != 0)
            return -ENOMEM;
    }
    *first_page = unit * area->unit_pages;
    return 0;
}

int mpl_area_take(struct mpl_area *area, uint64_t nr_pages, uint64_t *first_page)
{
    uint64_t nr_units = (nr_pages + area->unit_pages - 1) / area->unit_pages;
    int result = 0;

    mpl_lock_enter(&area->lock);
    if (nr_pages >= area->unit_pages || !find_partial(area, nr_pages, first_page))
        result = find_units(area, nr_units, first_page);
    /* Tables that were rounded up know units beyond the window. */
    if (result == 0 && (*first_page + nr_pages - 1) / area->unit_pages >= area->nr_units)
        result = -ENOMEM;
    if (result == 0)
        mark_taken(area, *first_page, nr_pages);
    mpl_lock_leave(&area->lock);
    return result;
}

uint64_t mpl_area_give(struct mpl_area *area, uint64_t first_page, uint64_t nr_pages)
{
    uint64_t left;

    mpl_lock_enter(&area->lock);
    mark_unit(area, first_page, nr_pages, false);
    left = count_of(area, first_page / area->unit_pages);
    mpl_lock_leave(&area->lock);
    return left;
}

uint64_t mpl_area_next(const struct mpl_area *area, uint64_t unit)
{
    return find_bit(bits_of(area, MPL_AREA_TAKEN), unit, area->nr_usable, true);
}
