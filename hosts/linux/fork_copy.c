/* SPDX-License-Identifier: MIT */
/* A child's memory that is copied before it is born. */
#define _GNU_SOURCE
#include "fork.h"

#include "attrs.h"
#include "holes.h"
#include "sys.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define EXTENT MPL_PINS_EXTENT
#define EXTENT_WORDS (MPL_PINS_PAGES / 64)
#define PAUSE_NS 1000000

char *mpl_fork_place(const char *va, uint64_t size_bytes)
{
    uint64_t room_bytes = size_bytes + EXTENT, skip, rest;
    char *room = mpl_sys_mmap(NULL, room_bytes, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (room == MAP_FAILED)
        return NULL;
    mpl_sys_munlock(room, room_bytes); /* or, by mlockall(), it is filled once it can be */
    skip = ((uintptr_t)va - (uintptr_t)room) & (EXTENT - 1);
    rest = room_bytes - skip - size_bytes;
    if (rest == 0 || mpl_sys_munmap(room + skip + size_bytes, rest) == 0) {
        if (skip == 0 || mpl_sys_munmap(room, skip) == 0)
            return room + skip;
        room_bytes -= rest;
    }
    mpl_sys_munmap(room, room_bytes);
    return NULL;
}

/* Through the program's own mapping if it can be read: its page table stands. */
static int copy_run(const struct mpl_fork_piece *piece, uint64_t at, uint64_t size_bytes)
{
    const char *from = piece->va + at;

    if (mpl_sys_madvise(piece->stand_in + at, size_bytes, MADV_POPULATE_WRITE) != 0 &&
        errno != EINVAL)
        return -ENOMEM;
    if ((piece->attr & PROT_READ) == 0) {
        from = piece->frames + at;
        mpl_sys_madvise(piece->frames + at, size_bytes, MADV_POPULATE_READ);
    }
    memcpy(piece->stand_in + at, from, size_bytes);
    return 0;
}

/* The pages of one huge page that have content; their number. */
static uint64_t read_extent(const struct mpl_fork_piece *piece, uint64_t at, uint64_t nr_pages,
                            uint64_t bits[EXTENT_WORDS])
{
    uint64_t nr_data = 0;

    memset(bits, 0, EXTENT_WORDS * sizeof(*bits));
    if (!piece->sparse || mpl_holes_read(piece->fd, piece->file_offset + at, (unsigned)nr_pages,
                                         bits) != 0)
        return nr_pages;
    for (unsigned i = 0; i < EXTENT_WORDS; i++)
        nr_data += (uint64_t)__builtin_popcountll(bits[i]);
    return nr_data;
}

static bool has_data(const uint64_t *bits, uint64_t page)
{
    return (bits[page / 64] >> (page % 64) & 1) != 0;
}

static int copy_extent(const struct memplug_space *space, const struct mpl_fork_piece *piece,
                       uint64_t at, uint64_t nr_pages, const uint64_t *bits)
{
    uint64_t page = 0, end;
    int result = 0;

    while (page < nr_pages && result == 0) {
        if (!has_data(bits, page)) {
            page++;
            continue;
        }
        for (end = page; end < nr_pages && has_data(bits, end); end++)
            ;
        result = copy_run(piece, at + page * space->page_bytes,
                          (end - page) * space->page_bytes);
        page = end;
    }
    return result;
}

/* Extents that are mostly there as huge pages, which takes a tenth of the time; others so that
 * holes stay holes. The advice is for all of the piece, or it would become several mappings. */
static int copy_some(const struct memplug_space *space, struct mpl_fork_piece *piece, bool dense)
{
    uint64_t bits[EXTENT_WORDS], left;
    int result = 0;

    for (uint64_t at = 0; at < piece->size_bytes && result == 0; at += left) {
        uint64_t nr_data, nr_pages;

        left = EXTENT - ((uintptr_t)(piece->va + at) & (EXTENT - 1));
        left = left < piece->size_bytes - at ? left : piece->size_bytes - at;
        nr_pages = left / space->page_bytes;
        nr_data = read_extent(piece, at, nr_pages, bits);
        if ((nr_data > MPL_PINS_PAGES / 2) != dense)
            continue;
        piece->full = piece->full && nr_data == nr_pages;
        result = nr_data == nr_pages ? copy_run(piece, at, left)
                                     : copy_extent(space, piece, at, nr_pages, bits);
    }
    return result;
}

int mpl_fork_copy(const struct memplug_space *space, struct mpl_fork_piece *piece)
{
    int result;

    if (mpl_sys_mprotect(piece->stand_in, piece->size_bytes, PROT_READ | PROT_WRITE) != 0)
        return -ENOMEM;
    piece->full = true;
    mpl_sys_madvise(piece->stand_in, piece->size_bytes, MADV_HUGEPAGE);
    result = copy_some(space, piece, true);
    mpl_sys_madvise(piece->stand_in, piece->size_bytes, MADV_NOHUGEPAGE);
    return result != 0 ? result : copy_some(space, piece, false);
}

/* The program's mapping again, in place of the copy: one for one, so it needs no mapping that was
 * not there; should others have taken all, spare ones are let go, and at last it waits. */
void mpl_fork_map_back(struct memplug_space *space, struct mpl_fork_piece *piece)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int flags = MAP_SHARED | MAP_FIXED | (piece->full ? MAP_POPULATE : 0);

    while (mpl_sys_mmap(piece->va, piece->size_bytes, (int)(piece->attr & MPL_ATTR_PROTECTION),
                        flags, piece->fd, piece->file_offset) == MAP_FAILED)
        if (!mpl_spare_release(&space->host->spare))
            syscall(SYS_nanosleep, &pause, NULL);
    mpl_count(&space->counters.nr_attributes_lost,
              mpl_attrs_apply(space, piece->va, piece->size_bytes, piece->attr, piece->full));
    piece->in_place = false;
}
