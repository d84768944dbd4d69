/* SPDX-License-Identifier: MIT */
/*
 * The addresses of a space: which pages of its window are taken. A request of a unit or more gets
 * whole units from the lowest address that has them free in a row; a smaller one shares a unit.
 *
 * The tables of a space are indexed by unit. Their addresses are reserved for the whole window;
 * memory they get as far as units were ever taken. So an index that mpl_area_take() handed out can
 * be used in them without a lock, for as long as the space lives.
 */
#ifndef MPL_LINUX_AREA_H
#define MPL_LINUX_AREA_H

#include "lock.h"
#include "window.h"

struct memplug_linux;

/* Zeroed memory at a fixed address that grows at its end. */
struct mpl_table {
    char *base;
    uint64_t reserved_bytes, usable_bytes;
};

int mpl_table_open(struct mpl_table *table, uint64_t reserved_bytes);
void mpl_table_close(struct mpl_table *table, struct memplug_linux *host);

/* The first bytes of it can be used from now on. -ENOMEM. The caller has a lock. */
int mpl_table_grow(struct mpl_table *table, struct memplug_linux *host, uint64_t bytes);

enum mpl_area_table {
    MPL_AREA_PAGES,   /* bit per page: taken */
    MPL_AREA_TAKEN,   /* bit per unit: it has a taken page */
    MPL_AREA_PARTIAL, /* bit per unit: it has a taken page and one that is not */
    MPL_AREA_COUNT,   /* uint16_t per unit: taken pages */
    MPL_AREA_UNITS,   /* struct mpl_unit per unit: space.c */
    MPL_AREA_ATTRS,   /* uint32_t per page: attrs.c */
    MPL_AREA_NR_TABLES
};

struct mpl_area {
    struct mpl_lock lock;   /* innermost; held for microseconds */
    struct memplug_linux *host;
    uint64_t unit_pages;    /* 1 to 512, a power of two */
    uint64_t nr_units;      /* of the window */
    uint64_t nr_usable;     /* units that the tables have memory for */
    uint64_t first_free;    /* no unit before this one is free */
    struct mpl_table tables[MPL_AREA_NR_TABLES];
    uint64_t step_bytes[MPL_AREA_NR_TABLES]; /* of each, for one step of growth */
};

/* -ENOMEM. */
int mpl_area_open(struct mpl_area *area, struct memplug_linux *host, uint64_t unit_pages,
                  uint64_t nr_units, uint64_t unit_record_bytes);
void mpl_area_close(struct mpl_area *area);

/* Pages in a row; first_page counts from the window's start. -ENOMEM. */
int mpl_area_take(struct mpl_area *area, uint64_t nr_pages, uint64_t *first_page);

/* The first unit from this one on that has a taken page, or nr_usable. The caller has the lock. */
uint64_t mpl_area_next(const struct mpl_area *area, uint64_t unit);

/* The way back, for pages of one unit; returns how many pages of the unit are still taken. */
uint64_t mpl_area_give(struct mpl_area *area, uint64_t first_page, uint64_t nr_pages);

#endif
