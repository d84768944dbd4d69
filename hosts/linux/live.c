/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "live.h"

#include "first_write.h"
#include "holes.h"
#include "locks.h"
#include "sys.h"
#include "waiters.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/vfs.h>

#define TMPFS_MAGIC_NUMBER 0x01021994

#define HELPED_BYTES ((uint64_t)8 << 20) /* to move, for a helper to be worth its start */

/* --- may it move? ----------------------------------------------------------------------------- */

bool mpl_live_is_shmem(const struct mpl_location *location)
{
    struct statfs filesystem;

    if (location->kind == MEMPLUG_BACKING_MEMFD)
        return true;
    return location->kind == MEMPLUG_BACKING_FILE && fstatfs(location->fd, &filesystem) == 0 &&
           (uint32_t)filesystem.f_type == TMPFS_MAGIC_NUMBER;
}

static int check_fence(const struct memplug_space *space, const struct mpl_location *from,
                       bool shmem, const char **why, const char **remedy)
{
    *remedy = "give the process an open /dev/userfaultfd, or set vm.unprivileged_userfaultfd to 1";
    *why = space->fence_error == -EOPNOTSUPP || space->fence_error == -ENOSYS
               ? "no full userfaultfd: this kernel cannot write-protect shared memory"
               : "no full userfaultfd: neither its device nor its system call is permitted";
    if (space->fence_error != 0 && !space->no_fence)
        return -EBUSY;
    *why = "writers of this kind of file cannot be held up";
    *remedy = "use memory of a memfd, of tmpfs or of huge pages";
    if (!shmem && (from->flags & MPL_LOCATION_HUGETLB) == 0 && !space->no_fence)
        return -EBUSY;
    return 0;
}

int mpl_live_check(const struct memplug_space *space, const struct mpl_location *from,
                   const char **why, const char **remedy)
{
    bool shmem = mpl_live_is_shmem(from);
    int result = check_fence(space, from, shmem, why, remedy);

    if (result != 0 || space->pins_wanted == MEMPLUG_PINS_TRUSTED)
        return result;
    if (from->kind == MEMPLUG_BACKING_HUGETLB) { /* its block is sealed */
        *why = "this kernel fails the program's own I/O into huge pages that are being sealed";
        *remedy = "use Linux 6.7 or later, or pins=trusted if there is no direct I/O into it";
        return space->fence.insists ? -EBUSY : 0;
    }
    *why = "no proof that this memory is free of pins";
    *remedy = "open with pins=trusted if there is no direct I/O into it";
    if (!shmem || (from->flags & MPL_LOCATION_HUGETLB) != 0 ||
        (space->pins.collapse != 0 && space->pins.split != 0))
        return -EBUSY;
    *why = "its place in the file is not aligned for the pin proof";
    *remedy = "add ranges at offsets that are multiples of 2 MiB";
    return (from->file_offset & (space->unit_bytes - 1)) != 0 ? -EBUSY : 0;
}

static uint64_t unit_of_cookie(uint64_t cookie)
{
    return cookie & UINT32_MAX;
}

int mpl_live_lock(const struct memplug_space *space, uint64_t pfn, uint64_t cookie)
{
    struct mpl_unit *record = mpl_unit_at(space, unit_of_cookie(cookie));

    mpl_lock_enter(&record->lock);
    if (record->pfn == pfn && record->generation == cookie >> 32)
        return 0;
    mpl_lock_leave(&record->lock);
    return -ENOENT;
}

void mpl_live_note_held(struct mpl_unit *record, bool held)
{
    if (!held)
        record->held_ns = 0;
    else if (record->held_ns == 0)
        record->held_ns = mpl_now_ns();
}

/* --- one unit --------------------------------------------------------------------------------- */

static int refuse(struct memplug_space *space, struct memplug_move *move, int error,
                  const char *why)
{
    if (error != -ENOENT)
        mpl_count(&space->counters.nr_refused_other, 1);
    move->result = error;
    move->why = why;
    return error;
}

/* Is all of the unit one mapping? Then it can be of huge pages as well as of small ones. */
static bool is_uniform(const struct memplug_space *space, uint64_t unit)
{
    struct mpl_piece piece = {0};

    return mpl_piece_next(space, unit, 0, &piece) && piece.nr == space->unit_pages;
}

static int check_unit(const struct memplug_space *space, const struct mpl_live_unit *unit,
                      const char **why)
{
    const char *remedy;
    int result = mpl_live_check(space, &unit->from, why, &remedy);

    if (result != 0)
        return result;
    *why = "its target is in a sealed block";
    if ((unit->to.flags & MPL_LOCATION_SPENT) != 0)
        return -EBUSY;
    *why = "its target is of huge pages, and small mappings lie in it";
    if (unit->to.align_bytes > space->page_bytes && unit->record->flags == 0 &&
        (unit->to.align_bytes > space->unit_bytes || !is_uniform(space, unit->unit)))
        return -EBUSY;
    return 0;
}

/* Before a child gets its copy of them. */
static void note_holes(const struct memplug_space *space, const struct mpl_live_unit *unit)
{
    unsigned end = unit->first + (unsigned)space->unit_pages;
    uint64_t data[MPL_PINS_PAGES / 64] = {0};

    if ((unit->record->flags & MPL_UNIT_SHARED) == 0 || unit->from.kind != MEMPLUG_BACKING_MEMFD ||
        mpl_holes_read(unit->from.fd, unit->from.file_offset - unit->first * space->page_bytes,
                       MPL_PINS_PAGES, data) != 0)
        return;
    for (unsigned page = unit->first; page < end; page++)
        if (!mpl_live_bit(data, page))
            space->live->lent[page / 64] |= (uint64_t)1 << (page % 64);
}

int mpl_live_claim(struct memplug_space *space, struct memplug_move *move,
                   struct mpl_live_unit *unit)
{
    uint64_t index = unit_of_cookie(move->cookie);
    const char *why = "its owner has freed it";
    int result = mpl_live_lock(space, move->from.nr, move->cookie);

    if (result != 0)
        return refuse(space, move, result, why);
    *unit = (struct mpl_live_unit){
        .move = move,
        .record = mpl_unit_at(space, index),
        .unit = index,
        .va = mpl_unit_va(space, index),
        .src = mpl_frame_va(space, move->from.nr),
        .dst = mpl_frame_va(space, move->to.nr),
        .first = (unsigned)(move->from.nr % MPL_PINS_PAGES),
    };
    if (mpl_space_locate(space, move->from.nr, &unit->from, &why) != 0 ||
        mpl_space_locate(space, move->to.nr, &unit->to, &why) != 0)
        result = -EBUSY;
    if (result == 0) {
        note_holes(space, unit);
        result = mpl_first_settle_unit(space, index);
        why = result != 0 ? "a forked child has it, and cannot be given a copy" : why;
    }
    if (result == 0)
        result = check_unit(space, unit, &why);
    if (result == 0 && mpl_owners_grow(space, move->to.nr) != 0) {
        result = -ENOMEM;
        why = "no memory for the table of frames";
    }
    if (result == 0)
        return 0;
    mpl_live_note_held(unit->record, false);
    mpl_lock_leave(&unit->record->lock);
    return refuse(space, move, result, why);
}

void mpl_live_release(struct mpl_live_unit *unit)
{
    mpl_lock_leave(&unit->record->lock);
}

/* What was mapped along with huge pages and belongs to nobody. */
static void unmap_gaps(struct memplug_space *space, uint64_t unit)
{
    struct mpl_piece piece = {0};
    uint64_t page = 0;

    while (page < space->unit_pages) {
        bool more = mpl_piece_next(space, unit, 0, &piece);
        uint64_t end = more ? piece.first : space->unit_pages;

        if (end > page)
            mpl_window_unmap(&space->window, unit * space->unit_bytes + page * space->page_bytes,
                             (end - page) * space->page_bytes);
        page = more ? piece.first + piece.nr : end;
    }
}

void mpl_live_settle(struct memplug_space *space, struct mpl_live_unit *unit)
{
    bool huge = unit->to.align_bytes > space->page_bytes;

    mpl_owners_set(space, unit->move->from.nr, 0);
    mpl_owners_set(space, unit->move->to.nr, unit->unit + 1);
    if (unit->record->flags != 0 && !huge)
        unmap_gaps(space, unit->unit);
    unit->record->pfn = unit->move->to.nr;
    unit->record->flags = huge ? MPL_UNIT_HUGE : 0;
    unit->record->held_ns = 0;
    unit->move->result = 0;
    mpl_count(&space->counters.nr_moves, 1);
}

/* --- a group ---------------------------------------------------------------------------------- */

/* The way to move a group: all of it until a row fails, then the way back for what was not
 * switched. What was switched is on its way with the wake. */
static const struct row {
    int (*act)(struct memplug_space *space);
    void (*undo)(struct memplug_space *space);
} rows[] = {
    {mpl_live_unlock, mpl_live_relock},
    {mpl_live_prepare, mpl_live_unprepare}, /* sees holes, which the next row may fill */
    {mpl_live_extent, mpl_live_unextent},
    {mpl_live_waiters, NULL},
    {mpl_live_raise, mpl_live_lower},
    {mpl_live_prove, mpl_live_unprove},
    {mpl_live_copy, NULL},
    {mpl_live_switch, NULL},
};

#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

static int run_rows(struct memplug_space *space)
{
    unsigned row = 0;
    int error = 0;

    while (row < NR_ROWS && (error = rows[row].act(space)) == 0)
        row++;
    while (row-- > 0)
        if (rows[row].undo)
            rows[row].undo(space);
    return error;
}

/* By address in the program; they are nearly in order. */
static void sort_units(struct mpl_live *live)
{
    for (unsigned i = 1; i < live->nr; i++) {
        struct mpl_live_unit unit = live->units[i];
        unsigned at = i;

        for (; at > 0 && live->units[at - 1].unit > unit.unit; at--)
            live->units[at] = live->units[at - 1];
        live->units[at] = unit;
    }
}

/* Sources are empty now. Memory in a row goes back in one go: it may be one huge page. */
static void scrub_sources(struct memplug_space *space, const struct memplug_move *moves,
                          unsigned nr_moves, const struct mpl_location *location)
{
    for (unsigned i = 0; i < nr_moves; i++) {
        unsigned first = i;

        if (moves[i].result != 0)
            continue;
        while (i + 1 < nr_moves && moves[i + 1].result == 0 &&
               moves[i + 1].from.nr == moves[i].from.nr + space->unit_pages)
            i++;
        mpl_live_scrub(space, moves[first].from.nr, (i - first + 1) * space->unit_pages, location);
    }
}

static void settle_group(struct memplug_space *space, struct memplug_move *moves,
                         unsigned nr_moves, int error)
{
    struct mpl_live *live = space->live;

    for (unsigned i = 0; i < live->nr; i++) {
        struct mpl_live_unit *unit = &live->units[i];

        if (unit->switched) {
            mpl_live_settle(space, unit);
        } else {
            unit->move->result = error;
            unit->move->why = live->why;
            mpl_live_note_held(unit->record, live->held);
        }
    }
    if (live->waiters.any)
        mpl_waiters_wake(space, moves, nr_moves, false);
    scrub_sources(space, moves, nr_moves, &live->units[0].from);
    for (unsigned i = 0; i < live->nr; i++)
        mpl_live_release(&live->units[i]);
}

/* -EAGAIN: nothing has moved, try them one by one. */
static int move_group(struct memplug_space *space, struct memplug_move *moves, unsigned nr_moves)
{
    struct mpl_live *live = space->live;
    int error;

    live->nr = 0;
    live->why = NULL;
    live->held = false;
    memset(live->lent, 0, sizeof(live->lent));
    for (unsigned i = 0; i < nr_moves; i++)
        if (mpl_live_claim(space, &moves[i], &live->units[live->nr]) == 0)
            live->nr++;
    if (live->nr == 0)
        return 0;
    sort_units(live);
    error = run_rows(space);
    settle_group(space, moves, nr_moves, error);
    return error == -EAGAIN && nr_moves > 1 ? -EAGAIN : 0;
}

static void move_group_or_each(struct memplug_space *space, struct memplug_move *moves,
                               unsigned nr_moves)
{
    if (move_group(space, moves, nr_moves) != -EAGAIN)
        return;
    for (unsigned i = 0; i < nr_moves; i++)
        if (moves[i].result == -EAGAIN)
            move_group(space, &moves[i], 1);
}

/* --- a batch ---------------------------------------------------------------------------------- */

/* Who moves memory must not have its stack, its errno or its list there: it would wait for
 * itself. */
static bool stands_in(const struct memplug_space *space, const struct memplug_move *moves)
{
    char here = 0;

    return memplug_space_has(space, &here) || memplug_space_has(space, &errno) ||
           memplug_space_has(space, moves);
}

/* Moves from the first one on whose sources lie in the same piece of the pool. */
static unsigned nr_together(const struct memplug_move *moves, unsigned nr_moves, uint64_t nr_pages)
{
    unsigned nr = 1;

    while (nr < nr_moves && moves[nr].from.nr / nr_pages == moves[0].from.nr / nr_pages)
        nr++;
    return nr;
}

static unsigned move_some(struct memplug_space *space, struct memplug_move *moves,
                          unsigned nr_moves)
{
    uint64_t block_pages = space->host->block_bytes / space->page_bytes;
    struct mpl_location from;
    const char *why;
    bool sealable = mpl_space_locate(space, moves[0].from.nr, &from, &why) == 0 &&
                    from.kind == MEMPLUG_BACKING_HUGETLB;
    unsigned nr = nr_together(moves, nr_moves, sealable ? block_pages : MPL_PINS_PAGES);

    if (sealable && space->pins_wanted == MEMPLUG_PINS_PROVED && !space->no_fence) {
        mpl_live_huge(space, moves, nr);
        return nr;
    }
    nr = nr_together(moves, nr_moves, MPL_PINS_PAGES);
    move_group_or_each(space, moves, nr);
    return nr;
}

/* What was made for a unit that stays, and was perhaps not even locked. */
static void scrub_targets(struct memplug_space *space, const struct memplug_move *moves,
                          unsigned nr_moves)
{
    struct mpl_location to;
    const char *why;

    for (unsigned i = 0; i < nr_moves; i++)
        if (moves[i].result != 0 && mpl_space_locate(space, moves[i].to.nr, &to, &why) == 0 &&
            to.kind == MEMPLUG_BACKING_MEMFD)
            mpl_space_scrub(space, moves[i].to.nr, space->unit_pages, &to);
}

static void move_all(struct memplug_space *space, struct memplug_move *moves, unsigned nr_moves)
{
    for (unsigned i = 0; i < nr_moves;) {
        unsigned first = i, end = i + mpl_live_ahead(space, moves + i, nr_moves - i);

        while (i < end)
            i += move_some(space, moves + i, nr_moves - i);
        scrub_targets(space, moves + first, i - first);
    }
    mpl_live_scrub_end(space);
}

void mpl_live_move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    struct memplug_space *space = context;
    int saved = errno;

    if (stands_in(space, moves)) {
        for (unsigned i = 0; i < nr_moves; i++)
            refuse(space, &moves[i], -EBUSY,
                   "the stack of the thread that calls offline is in movable memory");
        return;
    }
    mpl_lock_enter(&space->moving);
    if (nr_moves * space->unit_bytes >= HELPED_BYTES)
        mpl_aside_start(&space->live->aside);
    move_all(space, moves, nr_moves);
    mpl_aside_stop(&space->live->aside);
    mpl_waiters_wake(space, moves, nr_moves, true);
    mpl_lock_leave(&space->moving);
    errno = saved;
}
