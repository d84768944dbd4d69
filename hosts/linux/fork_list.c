/* SPDX-License-Identifier: MIT */
/* What is mapped when a process forks, piece by piece, and how its child is to have it. */
#include "fork.h"

#include "attrs.h"
#include "first_write.h"
#include "holes.h"
#include "live.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

static bool continues(const struct mpl_fork_piece *last, const struct mpl_fork_piece *next)
{
    return last->va + last->size_bytes == next->va && last->attr == next->attr &&
           last->fd == next->fd && last->file_offset + last->size_bytes == next->file_offset &&
           last->frames + last->size_bytes == next->frames && last->kind == next->kind;
}

/* Room for one more; the table doubles. */
static int make_room(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    uint64_t nr_max = fork->nr_max ? 2 * fork->nr_max : 64;
    void *memory;

    if (fork->nr < fork->nr_max)
        return 0;
    if (mpl_own_map(space->host, nr_max * sizeof(*fork->pieces), &memory) != 0)
        return -ENOMEM;
    if (fork->nr > 0)
        memcpy(memory, fork->pieces, fork->nr * sizeof(*fork->pieces));
    if (fork->nr_max > 0)
        mpl_own_unmap(space->host, fork->pieces, fork->nr_max * sizeof(*fork->pieces));
    fork->pieces = memory;
    fork->nr_max = nr_max;
    return 0;
}

int mpl_fork_add(struct memplug_space *space, const struct mpl_fork_piece *piece)
{
    struct mpl_fork *fork = &space->fork;

    if (fork->nr > 0 && continues(&fork->pieces[fork->nr - 1], piece)) {
        fork->pieces[fork->nr - 1].size_bytes += piece->size_bytes;
        return 0;
    }
    if (make_room(space) != 0)
        return -ENOMEM;
    fork->pieces[fork->nr++] = *piece;
    return 0;
}

/* What cannot be written by the child could not be given a copy of its own later. */
static enum mpl_fork_kind kind_of(const struct memplug_space *space,
                                  const struct mpl_location *location,
                                  const struct mpl_fork_piece *piece)
{
    if (!space->fork.lazy || (piece->attr & PROT_WRITE) == 0 || !mpl_live_is_shmem(location))
        return MPL_FORK_COPY;
    if (piece->sparse && piece->size_bytes == MPL_PINS_EXTENT && space->fork.nr_children == 0 &&
        mpl_holes_all(piece->fd, piece->file_offset, MPL_PINS_PAGES))
        return MPL_FORK_EMPTY;
    return MPL_FORK_SHARE;
}

static int list_unit(struct memplug_space *space, uint64_t unit, const char **why)
{
    const struct mpl_unit *record = mpl_unit_at(space, unit);
    struct mpl_location location;
    struct mpl_piece piece = {0};
    int result = mpl_space_locate(space, record->pfn, &location, why);

    while (result == 0 && mpl_piece_next(space, unit, record->flags & MPL_UNIT_HUGE, &piece)) {
        uint64_t at = piece.first * space->page_bytes;
        struct mpl_fork_piece mapped = {
            .va = mpl_unit_va(space, unit) + at,
            .size_bytes = piece.nr * space->page_bytes,
            .frames = mpl_frame_va(space, record->pfn) + at,
            .file_offset = location.file_offset + at,
            .fd = location.fd,
            .attr = piece.attr,
            .sparse = location.kind == MEMPLUG_BACKING_MEMFD,
        };

        mapped.kind = kind_of(space, &location, &mapped);
        *why = "no memory for the table of mappings";
        result = mpl_fork_add(space, &mapped);
    }
    return result;
}

static bool any_shared(const struct memplug_space *space)
{
    for (uint64_t unit = mpl_area_next(&space->area, 0); unit < space->area.nr_usable;
         unit = mpl_area_next(&space->area, unit + 1))
        if ((mpl_unit_at(space, unit)->flags & MPL_UNIT_SHARED) != 0)
            return true;
    return false;
}

int mpl_fork_list(struct memplug_space *space, const char **why)
{
    int result = 0;

    space->fork.nr = 0;
    space->fork.again = any_shared(space);
    for (uint64_t unit = mpl_area_next(&space->area, 0);
         unit < space->area.nr_usable && result == 0;
         unit = mpl_area_next(&space->area, unit + 1))
        if (mpl_unit_at(space, unit)->pfn != 0)
            result = list_unit(space, unit, why);
    return result;
}

int mpl_fork_split(struct memplug_space *space, uint64_t i)
{
    struct mpl_fork *fork = &space->fork;
    struct mpl_fork_piece *piece, rest;
    uint64_t half;

    if (make_room(space) != 0)
        return -ENOMEM;
    piece = &fork->pieces[i];
    half = piece->size_bytes / space->page_bytes / 2 * space->page_bytes;
    if (half == 0)
        return -EFAULT;
    rest = *piece;
    rest.va += half;
    rest.frames += half;
    rest.stand_in += half;
    rest.away += half;
    rest.file_offset += half;
    rest.size_bytes -= half;
    piece->size_bytes = half;
    memmove(piece + 2, piece + 1, (fork->nr - i - 1) * sizeof(*piece));
    piece[1] = rest;
    fork->nr++;
    return 0;
}
