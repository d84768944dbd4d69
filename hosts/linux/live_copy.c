/* SPDX-License-Identifier: MIT */
/*
 * The content of a group. Memory for the target is made and mapped while the program runs, so that
 * under the fence there is nothing to do but to copy. Holes stay holes.
 *
 * Sources are read with pread(2), where that can be: the kernel finds their pages in the page cache
 * and no page table has to be filled for them, nor emptied when they are given back.
 */
#define _GNU_SOURCE
#include "live.h"

#include "holes.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

#define NR_WORDS (MPL_PINS_PAGES / 64)

static void set_bits(uint64_t *bits, uint64_t first, uint64_t end)
{
    for (uint64_t page = first; page < end; page++)
        bits[page / 64] |= (uint64_t)1 << (page % 64);
}

/* All of the group's units were seen to be full, ahead. A hole that was made since is copied as
 * the zeros that it reads as. */
static bool were_full(const struct memplug_space *space)
{
    const struct mpl_live *live = space->live;

    for (unsigned i = 0; i < live->nr; i++)
        if (!mpl_live_bit(live->window_full, (unsigned)(live->units[i].move - live->window)))
            return false;
    return true;
}

/* Which pages of the group's extent have content. Of files and huge pages all have: they are
 * allocated when they are added. */
static void read_data(const struct memplug_space *space, uint64_t *bits)
{
    const struct mpl_live_unit *unit = &space->live->units[0];
    uint64_t base = unit->from.file_offset - unit->first * space->page_bytes;

    memset(bits, 0, MPL_PINS_PAGES / 8);
    if (unit->from.kind != MEMPLUG_BACKING_MEMFD) {
        set_bits(bits, 0, MPL_PINS_PAGES);
        return;
    }
    if (mpl_holes_read(unit->from.fd, base, MPL_PINS_PAGES, bits) != 0)
        set_bits(bits, 0, MPL_PINS_PAGES); /* then a hole is content */
}

/* The next run of a unit's pages with this bit; from *page on, which becomes its start. */
static unsigned next_run(const uint64_t *bits, unsigned end, unsigned *page)
{
    unsigned at = *page;

    while (at < end && !mpl_live_bit(bits, at))
        at++;
    *page = at;
    while (at < end && mpl_live_bit(bits, at))
        at++;
    return at - *page;
}

static char *at_page(const struct memplug_space *space, const struct mpl_live_unit *unit,
                     char *frame, unsigned page)
{
    return frame + (page - unit->first) * space->page_bytes;
}

static const char why_no_memory[] = "the machine has no memory for the copy";

static int cannot(struct memplug_space *space, const char *why, int error)
{
    space->live->why = why;
    mpl_count(&space->counters.nr_refused_other, space->live->nr);
    return error;
}

/* --- before the fence ------------------------------------------------------------------------- */

static bool make_pages(char *start, uint64_t size_bytes)
{
    return mpl_sys_madvise(start, size_bytes, MADV_POPULATE_WRITE) == 0 || errno == EINVAL;
}

/* Units from this one on whose targets are full, of one kind and one behind the other. */
static unsigned nr_in_row(const struct memplug_space *space, unsigned first)
{
    const struct mpl_live *live = space->live;
    const struct mpl_live_unit *units = &live->units[first];
    unsigned nr = 1;

    while (mpl_live_full(space, &units[nr - 1]) && first + nr < live->nr &&
           units[nr].dst == units[nr - 1].dst + space->unit_bytes &&
           units[nr].to.kind == units[0].to.kind && mpl_live_full(space, &units[nr]))
        nr++;
    return nr;
}

/* Are all pages there, and mapped? Made ahead, or by the last owner: all of it will be written. */
static bool is_made(const struct memplug_space *space, const struct mpl_live_unit *unit,
                    unsigned nr_pages)
{
    uint64_t size_bytes = nr_pages * space->page_bytes;

    return mpl_pins_mapped(&space->pins, unit->dst, size_bytes) ||
           (unit->to.kind == MEMPLUG_BACKING_MEMFD &&
            mpl_holes_none(unit->to.fd, unit->to.file_offset, nr_pages) &&
            make_pages(unit->dst, size_bytes));
}

/* A target may hold what its last owner left. */
static bool make_targets(struct memplug_space *space, unsigned first, unsigned nr_units)
{
    const struct mpl_live *live = space->live;
    const struct mpl_live_unit *unit = &live->units[first];
    unsigned end = unit->first + (unsigned)space->unit_pages, nr;
    bool full = mpl_live_full(space, unit);

    if (full && is_made(space, unit, nr_units * (unsigned)space->unit_pages))
        return true;
    if (unit->to.kind == MEMPLUG_BACKING_MEMFD || !full)
        mpl_space_scrub(space, unit->move->to.nr, nr_units * space->unit_pages, &unit->to);
    if (full)
        return make_pages(unit->dst, nr_units * space->unit_bytes);
    for (unsigned page = unit->first; (nr = next_run(live->data, end, &page)) > 0; page += nr)
        if (!make_pages(at_page(space, unit, unit->dst, page), nr * space->page_bytes))
            return false;
    return true;
}

int mpl_live_prepare(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    if (were_full(space))
        set_bits(live->data, 0, MPL_PINS_PAGES);
    else
        read_data(space, live->data);
    for (unsigned i = 0; i < NR_WORDS; i++)
        live->data[i] &= ~live->lent[i];
    memcpy(live->made, live->data, sizeof(live->made));
    for (unsigned i = 0, nr; i < live->nr; i += nr) {
        nr = nr_in_row(space, i);
        if (make_targets(space, i, nr))
            continue;
        mpl_live_unprepare(space);
        return cannot(space, why_no_memory, -ENOMEM);
    }
    return 0;
}

/* The core may give the target to somebody else. */
void mpl_live_unprepare(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    for (unsigned i = 0; i < live->nr; i++)
        if (!live->units[i].switched)
            mpl_space_scrub(space, live->units[i].move->to.nr, space->unit_pages,
                            &live->units[i].to);
}

/* --- under the fence -------------------------------------------------------------------------- */

/* Pages that came since have no memory yet; a store that finds none is SIGBUS. */
static int make_room(struct memplug_space *space, struct mpl_live_unit *unit, uint64_t *fresh)
{
    unsigned end = unit->first + (unsigned)space->unit_pages, nr;

    for (unsigned page = unit->first; (nr = next_run(fresh, end, &page)) > 0; page += nr)
        if (!make_pages(at_page(space, unit, unit->dst, page), nr * space->page_bytes))
            return -ENOMEM;
    return 0;
}

/* DAX has no read, and one of a huge page is no faster than a copy. */
static int copy_run(struct memplug_space *space, const struct mpl_live_unit *unit, unsigned page,
                    unsigned nr)
{
    char *to = at_page(space, unit, unit->dst, page), *end = to + nr * space->page_bytes;
    uint64_t offset = unit->from.file_offset + (page - unit->first) * space->page_bytes;

    if ((unit->from.flags & MPL_LOCATION_HUGETLB) != 0 || unit->from.kind == MEMPLUG_BACKING_DAX) {
        memcpy(to, at_page(space, unit, unit->src, page), (size_t)(end - to));
        to = end;
    }
    while (to < end) {
        long got = mpl_sys_pread(unit->from.fd, to, (uint64_t)(end - to), offset);

        if (got <= 0)
            return -EIO;
        to += got;
        offset += (uint64_t)got;
    }
    mpl_count(&space->counters.copied_bytes, nr * space->page_bytes);
    return 0;
}

static int copy_runs(struct memplug_space *space, struct mpl_live_unit *unit, uint64_t *stale)
{
    const uint64_t *data = space->live->data;
    unsigned end = unit->first + (unsigned)space->unit_pages, nr;

    for (unsigned page = unit->first; (nr = next_run(data, end, &page)) > 0; page += nr)
        if (copy_run(space, unit, page, nr) != 0)
            return -EIO;
    for (unsigned page = unit->first; (nr = next_run(stale, end, &page)) > 0; page += nr)
        memset(at_page(space, unit, unit->dst, page), 0, nr * space->page_bytes);
    return 0;
}

/* Then nothing can have come since, and what was discarded reads as zeros. */
static bool all_full(const struct memplug_space *space)
{
    const struct mpl_live *live = space->live;
    unsigned nr = 0;

    while (nr < live->nr && mpl_live_full(space, &live->units[nr]))
        nr++;
    return nr == live->nr;
}

/* Without a proof. */
static void read_data_behind(const struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    const struct mpl_live_unit *unit = &live->units[0];
    struct mpl_pins_unit extent = {
        .fd = unit->from.fd,
        .extent = unit->from.file_offset - unit->first * space->page_bytes,
        .nr = MPL_PINS_PAGES,
    };

    read_data(space, live->data);
    for (unsigned i = 0; i < NR_WORDS; i++)
        extent.before[i] = ~live->lent[i];
    mpl_pins_forget_zeros(&extent, live->data);
}

int mpl_live_copy(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    uint64_t fresh[NR_WORDS], stale[NR_WORDS];

    if (live->extent.nr != 0) /* a proof has looked, before it filled the holes */
        memcpy(live->data, live->proof.data, sizeof(live->data));
    else if (!all_full(space))
        read_data_behind(space);
    for (unsigned i = 0; i < NR_WORDS; i++) {
        fresh[i] = live->data[i] & ~live->made[i];
        stale[i] = live->made[i] & ~live->data[i];
    }
    for (unsigned i = 0; i < live->nr; i++)
        if (make_room(space, &live->units[i], fresh) != 0)
            return cannot(space, why_no_memory, -ENOMEM);
    for (unsigned i = 0; i < live->nr; i++)
        if (copy_runs(space, &live->units[i], stale) != 0)
            return cannot(space, "a page of it cannot be read", -EBUSY);
    return 0;
}
