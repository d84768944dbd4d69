/* SPDX-License-Identifier: MIT */
/*
 * What of a move is done for many units at once, before their turn or behind it. Ahead: full
 * targets become huge pages, which are made, and mapped for the direct map and for the program, in
 * a fraction of the time that small ones need; and full sources of small pages become huge, which
 * makes their proof a split. Behind: sources are given back, on another CPU (aside.h).
 */
#define _GNU_SOURCE
#include "live.h"

#include "holes.h"
#include "sys.h"

#include <string.h>

/* Of frames that move. A hint, for which no system call sees that the descriptor is still ours. */
static bool is_full(const struct memplug_space *space, uint64_t pfn, unsigned nr_pages)
{
    struct mpl_location at;

    return mpl_backing_locate(space->host, pfn * space->page_bytes, &at) == 0 &&
           (at.kind != MEMPLUG_BACKING_MEMFD || mpl_holes_none(at.fd, at.file_offset, nr_pages));
}

static bool can_be_huge(const struct memplug_space *space, uint64_t pfn)
{
    struct mpl_location at;

    return mpl_backing_locate(space->host, pfn * space->page_bytes, &at) == 0 &&
           at.kind == MEMPLUG_BACKING_MEMFD && at.file_offset % MPL_PINS_EXTENT == 0 &&
           at.run_bytes >= MPL_PINS_EXTENT;
}

/* It waits once a call for every CPU: 0.5 ms on an idle machine, 20 ms on a busy one (measured). So
 * extents in a row are collapsed in one call. */
static void collapse(const struct memplug_space *space, uint64_t first_pfn, uint64_t end_pfn)
{
    if (first_pfn < end_pfn)
        mpl_sys_madvise(mpl_frame_va(space, first_pfn),
                        (end_pfn - first_pfn) * space->page_bytes, MADV_COLLAPSE);
}

/* --- sources ---------------------------------------------------------------------------------- */

/* What does not become huge here mpl_live_extent() tries once more. */
static void collapse_sources(struct memplug_space *space, const struct memplug_move *moves,
                             unsigned nr_moves)
{
    uint64_t first = 0, end = 0, last = UINT64_MAX;

    if (space->pins_wanted == MEMPLUG_PINS_TRUSTED || space->no_fence || space->pins.split != 0)
        return;
    for (unsigned i = 0; i < nr_moves; i++) {
        uint64_t extent = moves[i].from.nr / MPL_PINS_PAGES * MPL_PINS_PAGES;

        if (extent == last)
            continue;
        last = extent;
        if (!can_be_huge(space, extent) || !is_full(space, extent, MPL_PINS_PAGES))
            continue;
        if (extent != end) {
            collapse(space, first, end);
            first = extent;
        }
        end = extent + MPL_PINS_PAGES;
    }
    collapse(space, first, end);
}

/* --- targets ---------------------------------------------------------------------------------- */

/* A collapse wants a page to begin with. What is there already stays as it is: it will do. */
static bool begin_extent(const struct memplug_space *space, uint64_t pfn)
{
    struct mpl_location at;
    const char *why;

    return can_be_huge(space, pfn) &&
           !mpl_pins_mapped(&space->pins, mpl_frame_va(space, pfn), MPL_PINS_EXTENT) &&
           mpl_space_locate(space, pfn, &at, &why) == 0 &&
           mpl_fd_allocate(at.fd, at.file_offset, space->page_bytes) == 0;
}

/* All of these frames will be written. */
static void make_run(struct memplug_space *space, uint64_t first_pfn, uint64_t end_pfn)
{
    uint64_t pfn = (first_pfn + MPL_PINS_PAGES - 1) / MPL_PINS_PAGES * MPL_PINS_PAGES, first = pfn;

    for (; pfn + MPL_PINS_PAGES <= end_pfn; pfn += MPL_PINS_PAGES) {
        if (begin_extent(space, pfn))
            continue;
        collapse(space, first, pfn);
        first = pfn + MPL_PINS_PAGES;
    }
    collapse(space, first, pfn);
}

static void make_targets(struct memplug_space *space, const struct memplug_move *moves,
                         unsigned nr_moves)
{
    struct mpl_live *live = space->live;
    uint64_t first = 0, end = 0;

    live->window = moves;
    memset(live->window_full, 0, sizeof(live->window_full));
    for (unsigned i = 0; i < nr_moves; i++) {
        if (!is_full(space, moves[i].from.nr, (unsigned)space->unit_pages))
            continue;
        live->window_full[i / 64] |= (uint64_t)1 << (i % 64);
        if (moves[i].to.nr != end) {
            make_run(space, first, end);
            first = moves[i].to.nr;
        }
        end = moves[i].to.nr + space->unit_pages;
    }
    make_run(space, first, end);
}

/* --- ahead ------------------------------------------------------------------------------------ */

unsigned mpl_live_ahead(struct memplug_space *space, const struct memplug_move *moves,
                        unsigned nr_moves)
{
    uint64_t last = UINT64_MAX;
    unsigned nr = 0, nr_extents = 0;

    for (; nr < nr_moves; nr++) {
        if (moves[nr].from.nr / MPL_PINS_PAGES == last)
            continue;
        if (nr_extents++ == MPL_NR_AHEAD)
            break;
        last = moves[nr].from.nr / MPL_PINS_PAGES;
    }
    bool forbidden = mpl_sys_huge_allow();

    make_targets(space, moves, nr);
    collapse_sources(space, moves, nr);
    mpl_sys_huge_forbid(forbidden);
    return nr;
}

/* --- behind ----------------------------------------------------------------------------------- */

static struct mpl_aside_call *give_back(struct memplug_space *space, uint64_t pfn,
                                        uint64_t nr_pages)
{
    uint64_t address = pfn * space->page_bytes;
    const struct mpl_backing *backing =
        space->host->blocks[address / space->host->block_bytes].backing;
    struct mpl_aside_hole hole = {
        .dev = backing->dev,
        .ino = backing->ino,
        .size_bytes = nr_pages * space->page_bytes,
    };
    struct mpl_location at;

    if (backing->kind != MEMPLUG_BACKING_MEMFD ||
        mpl_backing_locate(space->host, address, &at) != 0 || at.run_bytes < hole.size_bytes)
        return NULL;
    hole.fd = at.fd;
    hole.offset = at.file_offset;
    return mpl_aside_post(&space->live->aside, &hole);
}

void mpl_live_scrub(struct memplug_space *space, uint64_t pfn, uint64_t nr_pages,
                    const struct mpl_location *location)
{
    struct mpl_live *live = space->live;
    struct mpl_live_scrub scrub = {.pfn = pfn, .nr_pages = nr_pages, .location = *location};

    if (live->nr_scrubs == MPL_ASIDE_CALLS)
        mpl_live_scrub_end(space);
    scrub.call = give_back(space, pfn, nr_pages);
    if (scrub.call)
        live->scrubs[live->nr_scrubs++] = scrub;
    else
        mpl_space_scrub(space, pfn, nr_pages, location);
}

void mpl_live_scrub_end(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    for (; live->nr_scrubs > 0; live->nr_scrubs--) {
        const struct mpl_live_scrub *scrub = &live->scrubs[live->nr_scrubs - 1];

        if (mpl_aside_wait(&live->aside, scrub->call) != 0)
            mpl_space_scrub(space, scrub->pfn, scrub->nr_pages, &scrub->location);
    }
}
