/* SPDX-License-Identifier: MIT */
/*
 * A space: a window of addresses in units, each unit with a frame (an allocation of the pool) and
 * a lock of its own.
 *
 * Locks, outermost first: moving (one mover at a time) - a unit - the area's. A thread of the
 * program holds one unit at a time, and holds it for system calls only. The mover may hold many,
 * and takes none while a fence is up: a thread that holds a unit may be asleep at that fence, if
 * its stack is movable. So a caller waits at most for the moves of the units that its unit moves
 * together with. Beneath a unit: fork.first's asking, held while the thread of first_write.h
 * works, which takes none of these.
 *
 * A unit's record, its pages' attributes and its mappings are changed under its lock. The frame is
 * born pinned and unpinned when all three are complete.
 */
#ifndef MPL_LINUX_SPACE_H
#define MPL_LINUX_SPACE_H

#include "area.h"
#include "fence.h"
#include "fork.h"
#include "host.h"
#include "pause.h"
#include "pins.h"

#include <memplug/space.h>

#define MPL_NR_NAMES 256u /* number 0 is no name */
#define MPL_NAME_MAX 80u  /* the kernel's limit, terminated */

/* This unit's frame is of huge pages: it is mapped as a whole, whatever is taken of it. */
#define MPL_UNIT_HUGE 1u
/* A forked child may read its frame: first_write.h before its content changes. */
#define MPL_UNIT_SHARED 2u

struct mpl_unit {
    struct mpl_lock lock;
    uint64_t pfn;        /* 0: no frame */
    uint32_t generation; /* of the frame; the high half of its cookie */
    uint32_t flags;
    uint64_t since_ns;   /* it has had a mapping, without a break */
    uint64_t held_ns;    /* since when moves find a page of it held for I/O; 0: the last did not */
};

/* A row of pages of one unit. */
struct mpl_part {
    uint64_t unit;
    uint64_t first, nr; /* pages; first counts from the unit's start */
};

struct mpl_space_counters {
    _Atomic uint64_t nr_units, mapped_pages;
    _Atomic uint64_t nr_moves, copied_bytes;
    _Atomic uint64_t nr_refused_pins, nr_refused_proof, nr_refused_vmas, nr_refused_other;
    _Atomic uint64_t nr_attributes_lost;
    _Atomic uint64_t nr_waiters_woken;
    _Atomic uint64_t nr_forks_lazy, nr_forks_copied;
    _Atomic uint64_t nr_first_writes, nr_settled_pages, nr_children_ended;
};

struct mpl_live;
struct mpl_holders;

struct memplug_space {
    struct memplug_linux *host;
    struct memplug *pool;
    uint64_t page_bytes, unit_bytes, unit_pages;
    enum memplug_pins pins_wanted;
    int node;
    bool no_fence;              /* for tests that must see losses */
    uint8_t mover;
    struct mpl_window window;
    struct mpl_area area;
    struct mpl_table owners;    /* uint32_t per frame of the pool: unit + 1; under area.lock */
    struct mpl_fence fence;
    int fence_error, pins_error; /* why there is none; 0: there is */
    int uffd_device;            /* ours, or -1: for seal.h */
    struct mpl_pins pins;
    char *pins_room;            /* an extent of addresses, the prover's */
    struct mpl_lock moving;
    struct mpl_live *live;      /* the mover's workspace; under moving */
    struct mpl_holders *holders; /* holders.h: what was seen last; has a lock of its own */
    atomic_uint nr_names;
    char names[MPL_NR_NAMES][MPL_NAME_MAX];
    struct mpl_space_counters counters;
    struct mpl_pause pause, refused;
    struct mpl_fork fork;
};

static inline struct mpl_unit *mpl_unit_at(const struct memplug_space *space, uint64_t unit)
{
    return &((struct mpl_unit *)(void *)space->area.tables[MPL_AREA_UNITS].base)[unit];
}

static inline char *mpl_unit_va(const struct memplug_space *space, uint64_t unit)
{
    return space->window.base + unit * space->unit_bytes;
}

/* The attributes of a unit's pages: attrs.h. */
static inline _Atomic uint32_t *mpl_unit_attrs(const struct memplug_space *space, uint64_t unit)
{
    return (_Atomic uint32_t *)(void *)space->area.tables[MPL_AREA_ATTRS].base +
           unit * space->unit_pages;
}

/* A frame of the pool through the direct map. */
static inline char *mpl_frame_va(const struct memplug_space *space, uint64_t pfn)
{
    return space->host->direct.base + pfn * space->page_bytes;
}

/* Which unit this address of the window lies in. */
static inline uint64_t mpl_unit_of(const struct memplug_space *space, uint64_t address)
{
    return (address - (uintptr_t)space->window.base) / space->unit_bytes;
}

static inline bool mpl_in_window(const struct memplug_space *space, uint64_t address)
{
    return address - (uintptr_t)space->window.base < space->window.size_bytes;
}

static inline uint64_t mpl_unit_cookie(const struct mpl_unit *record, uint64_t unit)
{
    return (uint64_t)record->generation << 32 | unit;
}

/* Run act on each unit's part of [address, address + size_bytes), with the unit locked, until one
 * says other than 0. -EINVAL, before anything: not pages, or a page that is not mapped. */
typedef int mpl_part_act(struct memplug_space *space, const struct mpl_part *part, void *argument);
int mpl_space_each(struct memplug_space *space, void *address, uint64_t size_bytes,
                   mpl_part_act *act, void *argument);

/* Where a frame lies, if the descriptor is still ours: -ENODEV, and why. */
int mpl_space_locate(const struct memplug_space *space, uint64_t pfn,
                     struct mpl_location *location, const char **why);

/* Make memory of the pool read as zeros; given back to the system where that can be had again. */
void mpl_space_scrub(const struct memplug_space *space, uint64_t pfn, uint64_t nr_pages,
                     const struct mpl_location *location);

/* Which unit has this frame: unit + 1, or 0. The table must have been grown for the frame. */
int mpl_owners_grow(struct memplug_space *space, uint64_t pfn);
void mpl_owners_set(struct memplug_space *space, uint64_t pfn, uint64_t unit_and_1);
uint64_t mpl_owners_get(const struct memplug_space *space, uint64_t pfn);

static inline void mpl_count(_Atomic uint64_t *counter, uint64_t nr)
{
    atomic_fetch_add_explicit(counter, nr, memory_order_relaxed);
}

#endif
