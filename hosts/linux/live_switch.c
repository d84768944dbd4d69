/* SPDX-License-Identifier: MIT */
/*
 * Fence, proof, switch, wake: what the program feels of a move.
 *
 * A unit that is several mappings (protections differ) is switched in several calls. The first may
 * be refused, at the limit of mappings, and then the unit stays. The others must not be: the first
 * is in use by then. Each replaces one mapping by one, so it needs none that was not there; should
 * other threads have taken all meanwhile, spare ones are let go, and at last it waits.
 */
#define _GNU_SOURCE
#include "live.h"

#include "sys.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#define PROOF_NS 5000000u
#define PAUSE_NS 1000000

/* --- fence ------------------------------------------------------------------------------------ */

/* The next run of mapped pages of a unit, whatever their attributes. */
static bool next_range(const struct memplug_space *space, const struct mpl_live_unit *unit,
                       struct mpl_piece *piece, struct mpl_pins_map *range)
{
    if (!mpl_piece_next(space, unit->unit, mpl_live_flags(space, unit), piece))
        return false;
    *range = (struct mpl_pins_map){
        .va = unit->va + piece->first * space->page_bytes,
        .len = piece->nr * space->page_bytes,
    };
    return true;
}

/* What is to be fenced, in as few ranges as can be: one of many pages is cheaper than many. */
static void list_fences(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    struct mpl_pins_map range, *last = NULL;

    live->nr_fences = 0;
    for (unsigned i = 0; i < live->nr; i++) {
        struct mpl_piece piece = {0};

        while (next_range(space, &live->units[i], &piece, &range)) {
            if (last && (char *)last->va + last->len == (char *)range.va) {
                last->len += range.len;
                continue;
            }
            last = &live->fences[live->nr_fences++];
            *last = range;
        }
    }
}

/* Writers of units that stay have waited too, and for nothing. */
static void note_refused(struct memplug_space *space)
{
    const struct mpl_live *live = space->live;
    uint64_t pause_ns = mpl_now_ns() - live->raised_ns;

    for (unsigned i = 0; i < live->nr; i++)
        if (!live->units[i].switched)
            mpl_pause_add(&space->refused, pause_ns);
}

/* All of them, or none. */
static int raise_all(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    list_fences(space);
    for (unsigned i = 0; i < live->nr_fences && !space->no_fence; i++) {
        int error = mpl_fence_raise(&space->fence, live->fences[i].va, live->fences[i].len);

        if (error == 0)
            continue;
        while (i-- > 0)
            mpl_fence_lower(&space->fence, live->fences[i].va, live->fences[i].len);
        return error;
    }
    return 0;
}

int mpl_live_raise(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    int error;

    mpl_hurry(&live->hurry);
    live->raised_ns = mpl_now_ns();
    error = raise_all(space);
    if (error == 0)
        return 0;
    note_refused(space);
    mpl_calm(&live->hurry);
    if (live->nr > 1)
        return -EAGAIN;
    live->why = error == -ENOMEM ? "the kernel has no mapping left to fence it with"
                                 : "its writers cannot be held up: another userfaultfd, or the "
                                   "program has closed ours";
    mpl_count(error == -ENOMEM ? &space->counters.nr_refused_vmas
                               : &space->counters.nr_refused_other, 1);
    return error == -ENOMEM ? -ENOMEM : -EBUSY;
}

/* Ranges that are partly switched are lowered unit by unit. */
void mpl_live_lower(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    struct mpl_pins_map range;
    bool any = false;

    for (unsigned i = 0; i < live->nr; i++)
        any = any || live->units[i].switched;
    for (unsigned i = 0; i < live->nr_fences && !any && !space->no_fence; i++)
        mpl_fence_lower(&space->fence, live->fences[i].va, live->fences[i].len);
    for (unsigned i = 0; i < live->nr && any && !space->no_fence; i++) {
        struct mpl_piece piece = {0};

        while (!live->units[i].switched && next_range(space, &live->units[i], &piece, &range))
            mpl_fence_lower(&space->fence, range.va, range.len);
    }
    note_refused(space);
    mpl_calm(&live->hurry);
}

/* --- proof ------------------------------------------------------------------------------------ */

/* Every mapping of the extent: of units that move and of those that do not, and the direct map. */
static unsigned list_maps(struct memplug_space *space, uint64_t first_pfn)
{
    struct mpl_live *live = space->live;
    unsigned nr = 0;

    for (uint64_t pfn = first_pfn; pfn < first_pfn + MPL_PINS_PAGES; pfn += space->unit_pages) {
        uint64_t unit_and_1 = mpl_owners_get(space, pfn);

        if (unit_and_1 != 0)
            live->maps[nr++] = (struct mpl_pins_map){
                .va = mpl_unit_va(space, unit_and_1 - 1),
                .len = space->unit_bytes,
            };
    }
    live->maps[nr++] = (struct mpl_pins_map){
        .va = mpl_frame_va(space, first_pfn),
        .len = MPL_PINS_EXTENT,
    };
    return nr;
}

static unsigned span_end(const struct memplug_space *space, unsigned *first)
{
    const struct mpl_live *live = space->live;
    unsigned end = 0;

    *first = MPL_PINS_PAGES;
    for (unsigned i = 0; i < live->nr; i++) {
        const struct mpl_live_unit *unit = &live->units[i];

        *first = unit->first < *first ? unit->first : *first;
        end = unit->first + (unsigned)space->unit_pages > end
                  ? unit->first + (unsigned)space->unit_pages : end;
    }
    return end;
}

static const char why_locked[] =
    "a mapping would be locked (mlockall), and RLIMIT_MEMLOCK forbids it";

static const char *why_not_proved(int error)
{
    switch (error) {
    case -EBUSY:
        return mpl_why_held;
    case -ENOMEM:
        return "the pin proof found no free huge page";
    case -ENOLCK:
        return why_locked;
    default:
        return "the pin proof does not work on this memory";
    }
}

/* Holes that were filled for a forked child, too, the proof knows by their zeros. */
static void note_lent(struct mpl_live *live)
{
    uint64_t any = 0;

    for (unsigned i = 0; i < MPL_PINS_PAGES / 64; i++)
        any |= live->lent[i];
    if (any == 0)
        return;
    for (unsigned i = 0; i < MPL_PINS_PAGES / 64; i++)
        live->extent.before[i] = ~live->lent[i] & (live->extent.filled ? live->extent.before[i]
                                                                       : UINT64_MAX);
    live->extent.filled = true;
}

/* Before the fence: what is to be proved, and what makes the proof short. That a page is held just
 * now is no reason to give up: behind the fence it drains. */
int mpl_live_extent(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    const struct mpl_live_unit *unit = &live->units[0];
    uint64_t first_pfn = unit->move->from.nr / MPL_PINS_PAGES * MPL_PINS_PAGES;
    unsigned first, end = span_end(space, &first);

    live->extent = (struct mpl_pins_unit){.nr = 0};
    if (space->pins_wanted == MEMPLUG_PINS_TRUSTED || space->no_fence)
        return 0;
    live->extent = (struct mpl_pins_unit){
        .fd = unit->from.fd,
        .extent = unit->from.file_offset - unit->first * space->page_bytes,
        .first = first,
        .nr = end - first,
        .maps = live->maps,
        .nr_maps = list_maps(space, first_pfn),
        .limit_ns = PROOF_NS,
    };
    mpl_pins_prepare(&space->pins, &live->extent);
    note_lent(live);
    return 0;
}

/* Holes were filled, and no proof has come to that. They can be told, and emptied, behind a fence
 * only, and if nobody holds them: of what is held they stay filled. */
void mpl_live_unextent(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    if (!live->extent.filled || live->held)
        return;
    mpl_hurry(&live->hurry);
    live->raised_ns = mpl_now_ns();
    if (raise_all(space) != 0) {
        mpl_calm(&live->hurry);
        return;
    }
    if (mpl_pins_prove(&space->pins, &live->extent, &live->proof) == 0)
        mpl_live_unprove(space);
    mpl_live_lower(space);
}

int mpl_live_prove(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    int error;

    if (live->extent.nr == 0)
        return 0;
    error = mpl_pins_prove(&space->pins, &live->extent, &live->proof);
    if (error == 0)
        return 0;
    live->why = why_not_proved(error);
    live->held = error == -EBUSY;
    mpl_count(error == -EBUSY ? &space->counters.nr_refused_pins
                              : &space->counters.nr_refused_proof, live->nr);
    return error == -ENOMEM ? -ENOMEM : -EBUSY;
}

/* A collapse has filled holes; of what stays they become holes again. */
void mpl_live_unprove(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    live->extent.filled = false;
    for (unsigned i = 0; i < live->nr && live->extent.nr != 0; i++) {
        struct mpl_pins_unit part = live->extent;

        part.first = live->units[i].first;
        part.nr = (unsigned)space->unit_pages;
        if (!live->units[i].switched && live->units[i].from.kind == MEMPLUG_BACKING_MEMFD)
            mpl_pins_unfill(&part, &live->proof);
    }
}

/* --- switch ----------------------------------------------------------------------------------- */

/* One mapping that is replaced by one. */
struct change {
    char *va;
    uint64_t size_bytes, file_offset;
    int fd;
    uint32_t attr;
    bool full;
};

static int replace(struct memplug_space *space, const struct change *change, bool must)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int flags = MAP_SHARED | MAP_FIXED | (change->full ? MAP_POPULATE : 0);

    /* Nobody will want these pages again. So the kernel does not put each at the head of its list
     * as one that is in use, when it takes the old mapping apart: half of the time that takes. */
    mpl_sys_madvise(change->va, change->size_bytes, MADV_RANDOM);
    while (mpl_sys_mmap(change->va, change->size_bytes, (int)(change->attr & MPL_ATTR_PROTECTION),
                        flags, change->fd, change->file_offset) == MAP_FAILED) {
        if (!must) {
            int error = errno == EAGAIN ? -ENOLCK : -ENOMEM;

            mpl_sys_madvise(change->va, change->size_bytes, MADV_NORMAL);
            mpl_count(&space->counters.nr_attributes_lost,
                      mpl_attrs_apply(space, change->va, change->size_bytes,
                                      change->attr & (MPL_ATTR_SEQUENTIAL | MPL_ATTR_RANDOM),
                                      change->full));
            return error;
        }
        if (!mpl_spare_release(&space->host->spare))
            syscall(SYS_nanosleep, &pause, NULL);
    }
    mpl_count(&space->counters.nr_attributes_lost,
              mpl_attrs_apply(space, change->va, change->size_bytes, change->attr, change->full));
    return 0;
}

static struct change change_of(const struct memplug_space *space, const struct mpl_live_unit *unit,
                               const struct mpl_piece *piece)
{
    uint64_t at = piece->first * space->page_bytes;

    return (struct change){
        .va = unit->va + at,
        .size_bytes = piece->nr * space->page_bytes,
        .fd = unit->to.fd,
        .file_offset = unit->to.file_offset + at,
        .attr = piece->attr,
        .full = mpl_live_full(space, unit),
    };
}

/* A unit that is one mapping from end to end. */
static bool is_whole(const struct memplug_space *space, const struct mpl_live_unit *unit,
                     struct change *change)
{
    struct mpl_piece piece = {0};

    if (!mpl_piece_next(space, unit->unit, mpl_live_flags(space, unit), &piece) ||
        piece.nr != space->unit_pages)
        return false;
    *change = change_of(space, unit, &piece);
    return true;
}

/* Units from this one on that become one mapping: neighbours in the program and in the target. */
static unsigned gather(const struct memplug_space *space, unsigned first, struct change *all)
{
    const struct mpl_live *live = space->live;
    struct change next;
    unsigned nr = 1;

    while (first + nr < live->nr && is_whole(space, &live->units[first + nr], &next) &&
           next.va == all->va + all->size_bytes && next.fd == all->fd &&
           next.file_offset == all->file_offset + all->size_bytes && next.attr == all->attr &&
           next.full == all->full) {
        all->size_bytes += next.size_bytes;
        nr++;
    }
    return nr;
}

/* A unit of several mappings. */
static int switch_pieces(struct memplug_space *space, const struct mpl_live_unit *unit)
{
    struct mpl_piece piece = {0};
    bool begun = false;
    int error;

    while (mpl_piece_next(space, unit->unit, mpl_live_flags(space, unit), &piece)) {
        struct change change = change_of(space, unit, &piece);

        error = replace(space, &change, begun);
        if (error != 0)
            return error;
        begun = true;
    }
    return 0;
}

/* Some units from first on; how many, or a negative errno and none. */
static int switch_some(struct memplug_space *space, unsigned first)
{
    struct mpl_live_unit *units = &space->live->units[first];
    struct change change;
    unsigned nr = 1;
    int error;

    if (is_whole(space, units, &change)) {
        nr = gather(space, first, &change);
        error = replace(space, &change, false);
    } else {
        error = switch_pieces(space, units);
    }
    for (unsigned i = 0; i < nr && error == 0; i++)
        units[i].switched = true;
    return error != 0 ? error : (int)nr;
}

int mpl_live_switch(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    unsigned done = 0;
    int nr = 0;

    while (done < live->nr && (nr = switch_some(space, done)) > 0)
        done += (unsigned)nr;
    mpl_live_wake(space);
    for (unsigned i = done; i < live->nr && !space->no_fence; i++)
        mpl_count(&space->counters.nr_refused_vmas, 1);
    live->why = nr == -ENOLCK ? why_locked
                              : "the kernel has no mapping left (vm.max_map_count)";
    return nr == -ENOLCK ? -EBUSY : nr < 0 ? nr : 0;
}

void mpl_live_wake(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    uint64_t pause_ns;

    for (unsigned i = 0; i < live->nr_fences && !space->no_fence; i++)
        mpl_fence_wake(&space->fence, live->fences[i].va, live->fences[i].len);
    pause_ns = mpl_now_ns() - live->raised_ns;
    for (unsigned i = 0; i < live->nr; i++)
        if (live->units[i].switched)
            mpl_pause_add(&space->pause, pause_ns);
    mpl_calm(&live->hurry);
    sched_yield();
}
