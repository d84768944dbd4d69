/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "locks.h"

#include "live.h"
#include "proc.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

#define LOOK_NS 100000000u

/* Is anything of this process locked? The line is "VmLck:         0 kB". */
static bool look_at_line(void *context, const char *line)
{
    bool *any = context;

    if (strncmp(line, "VmLck:", 6) != 0)
        return true;
    line += 6;
    while (*line == ' ' || *line == '\t')
        line++;
    *any = mpl_proc_value(&line) != 0;
    return false;
}

static bool any_locked(void)
{
    bool any = true;

    mpl_proc_lines("/proc/thread-self/status", mpl_now_ns() + LOOK_NS, look_at_line, &any);
    return any;
}

/* The kernel does not let go of locked pages: EINVAL. Otherwise it has dropped page table entries,
 * which costs the next touch a fault. */
static bool is_locked(void *va, uint64_t size_bytes)
{
    return mpl_sys_madvise(va, size_bytes, MADV_DONTNEED) != 0 && errno == EINVAL;
}

static void unlock_unit(struct memplug_space *space, const struct mpl_live_unit *unit, bool any)
{
    struct mpl_piece piece = {0};

    while (mpl_piece_next(space, unit->unit, unit->record->flags, &piece)) {
        const struct mpl_part part = {.unit = unit->unit, .first = piece.first, .nr = piece.nr};
        char *va = unit->va + piece.first * space->page_bytes;
        bool locked = any && is_locked(va, piece.nr * space->page_bytes);

        if (locked != ((piece.attr & MPL_ATTR_LOCKED) != 0))
            mpl_attrs_set(space, &part, MPL_ATTR_LOCKED, locked ? MPL_ATTR_LOCKED : 0);
        if (locked)
            syscall(SYS_munlock, va, piece.nr * space->page_bytes);
    }
}

int mpl_live_unlock(struct memplug_space *space)
{
    struct mpl_live *live = space->live;
    bool any = any_locked();

    for (unsigned i = 0; i < live->nr; i++)
        if ((live->units[i].from.flags & MPL_LOCATION_HUGETLB) == 0)
            unlock_unit(space, &live->units[i], any);
    return 0;
}

void mpl_live_relock(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    for (unsigned i = 0; i < live->nr; i++) {
        const struct mpl_live_unit *unit = &live->units[i];
        struct mpl_piece piece = {0};

        while (!unit->switched &&
               mpl_piece_next(space, unit->unit, unit->record->flags, &piece))
            if ((piece.attr & MPL_ATTR_LOCKED) != 0 &&
                syscall(SYS_mlock2, unit->va + piece.first * space->page_bytes,
                        piece.nr * space->page_bytes, MLOCK_ONFAULT) != 0)
                mpl_count(&space->counters.nr_attributes_lost, 1);
    }
}
