/* SPDX-License-Identifier: MIT */
/*
 * The content of a group. It is copied twice: first while the program runs, which makes memory for
 * the target and warms both direct maps, then under the fence, which counts. Holes stay holes.
 */
#define _GNU_SOURCE
#include "live.h"

#include "holes.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

#define NR_WORDS (MPL_PINS_PAGES / 64)
#define NR_AHEAD 16u /* extents */

static void set_bits(uint64_t *bits, uint64_t first, uint64_t end)
{
    for (uint64_t page = first; page < end; page++)
        bits[page / 64] |= (uint64_t)1 << (page % 64);
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

/* Map what is there of the sources in the direct map, in few calls: also of units in between that
 * do not move, which costs nothing. */
static void map_sources(struct memplug_space *space)
{
    const struct mpl_live *live = space->live;
    const struct mpl_live_unit *unit = &live->units[0];
    char *extent = unit->src - unit->first * space->page_bytes;
    unsigned nr;

    if ((unit->from.flags & MPL_LOCATION_HUGETLB) != 0)
        return;
    for (unsigned page = 0; (nr = next_run(live->data, MPL_PINS_PAGES, &page)) > 0; page += nr)
        mpl_sys_madvise(extent + page * space->page_bytes, nr * space->page_bytes,
                        MADV_POPULATE_READ);
}

/* --- ahead of the batch ----------------------------------------------------------------------- */

static bool is_full_extent(const struct memplug_space *space, uint64_t first_pfn)
{
    struct mpl_location from;
    const char *why;

    return mpl_space_locate(space, first_pfn, &from, &why) == 0 &&
           from.kind == MEMPLUG_BACKING_MEMFD && from.file_offset % MPL_PINS_EXTENT == 0 &&
           mpl_holes_none(from.fd, from.file_offset, MPL_PINS_PAGES);
}

static void collapse(const struct memplug_space *space, uint64_t first_pfn, uint64_t end_pfn)
{
    if (first_pfn != end_pfn)
        mpl_sys_madvise(mpl_frame_va(space, first_pfn),
                        (end_pfn - first_pfn) * space->page_bytes, MADV_COLLAPSE);
}

/* A collapse waits once a call for every CPU: 0.5 ms on an idle machine, 20 ms on a busy one
 * (measured). So full extents in a row become huge in one call, and each proof is a split. What
 * does not become huge here mpl_live_extent() tries once more. */
unsigned mpl_live_ahead(struct memplug_space *space, const struct memplug_move *moves,
                        unsigned nr_moves)
{
    uint64_t first = 0, end = 0, extent_pfn = UINT64_MAX;
    unsigned i = 0, nr_extents = 0;

    if (space->pins_wanted == MEMPLUG_PINS_TRUSTED || space->no_fence || space->pins.split != 0)
        return nr_moves;
    for (; i < nr_moves; i++) {
        if (moves[i].from.nr / MPL_PINS_PAGES * MPL_PINS_PAGES == extent_pfn)
            continue;
        if (nr_extents++ == NR_AHEAD)
            break;
        extent_pfn = moves[i].from.nr / MPL_PINS_PAGES * MPL_PINS_PAGES;
        if (!is_full_extent(space, extent_pfn))
            continue;
        if (extent_pfn != end) {
            collapse(space, first, end);
            first = extent_pfn;
        }
        end = extent_pfn + MPL_PINS_PAGES;
    }
    collapse(space, first, end);
    return i;
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

/* A target may hold what its last owner left. */
static bool make_targets(struct memplug_space *space, unsigned first, unsigned nr_units)
{
    const struct mpl_live *live = space->live;
    const struct mpl_live_unit *unit = &live->units[first];
    unsigned end = unit->first + (unsigned)space->unit_pages, nr;
    bool full = mpl_live_full(space, unit);

    if (unit->to.kind == MEMPLUG_BACKING_MEMFD || !full)
        mpl_space_scrub(space, unit->move->to.nr, nr_units * space->unit_pages, &unit->to);
    if (full)
        return make_pages(unit->dst, nr_units * space->unit_bytes);
    for (unsigned page = unit->first; (nr = next_run(live->data, end, &page)) > 0; page += nr)
        if (!make_pages(at_page(space, unit, unit->dst, page), nr * space->page_bytes))
            return false;
    return true;
}

static void copy_early(struct memplug_space *space, const struct mpl_live_unit *unit)
{
    struct mpl_live *live = space->live;
    unsigned end = unit->first + (unsigned)space->unit_pages, nr;

    for (unsigned page = unit->first; (nr = next_run(live->data, end, &page)) > 0; page += nr) {
        memcpy(at_page(space, unit, unit->dst, page), at_page(space, unit, unit->src, page),
               nr * space->page_bytes);
        set_bits(live->copied, page, page + nr);
    }
}

int mpl_live_prepare(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    read_data(space, live->data);
    memset(live->copied, 0, sizeof(live->copied));
    for (unsigned i = 0, nr; i < live->nr; i += nr) {
        nr = nr_in_row(space, i);
        if (make_targets(space, i, nr))
            continue;
        live->why = "the machine has no memory for the copy";
        mpl_count(&space->counters.nr_refused_other, live->nr);
        mpl_live_unprepare(space);
        return -ENOMEM;
    }
    map_sources(space);
    for (unsigned i = 0; i < live->nr; i++)
        copy_early(space, &live->units[i]);
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

/* Pages that came since the first copy have no memory yet; a store that finds none is SIGBUS. */
static int make_room(struct memplug_space *space, struct mpl_live_unit *unit, uint64_t *fresh)
{
    unsigned end = unit->first + (unsigned)space->unit_pages, nr;

    for (unsigned page = unit->first; (nr = next_run(fresh, end, &page)) > 0; page += nr)
        if (!make_pages(at_page(space, unit, unit->dst, page), nr * space->page_bytes))
            return -ENOMEM;
    return 0;
}

static void copy_runs(struct memplug_space *space, struct mpl_live_unit *unit, uint64_t *stale)
{
    const uint64_t *data = space->live->data;
    unsigned end = unit->first + (unsigned)space->unit_pages, nr;

    for (unsigned page = unit->first; (nr = next_run(data, end, &page)) > 0; page += nr) {
        memcpy(at_page(space, unit, unit->dst, page), at_page(space, unit, unit->src, page),
               nr * space->page_bytes);
        mpl_count(&space->counters.copied_bytes, nr * space->page_bytes);
    }
    for (unsigned page = unit->first; (nr = next_run(stale, end, &page)) > 0; page += nr)
        memset(at_page(space, unit, unit->dst, page), 0, nr * space->page_bytes);
}

int mpl_live_copy(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    uint64_t fresh[NR_WORDS], stale[NR_WORDS];

    if (live->extent.nr != 0) /* a proof has looked, before it filled the holes */
        memcpy(live->data, live->proof.data, sizeof(live->data));
    else
        read_data(space, live->data);
    for (unsigned i = 0; i < NR_WORDS; i++) {
        fresh[i] = live->data[i] & ~live->copied[i];
        stale[i] = live->copied[i] & ~live->data[i];
    }
    for (unsigned i = 0; i < live->nr; i++)
        if (make_room(space, &live->units[i], fresh) != 0) {
            live->why = "the machine has no memory for the copy";
            mpl_count(&space->counters.nr_refused_other, live->nr);
            return -ENOMEM;
        }
    map_sources(space);
    for (unsigned i = 0; i < live->nr; i++)
        copy_runs(space, &live->units[i], stale);
    return 0;
}
