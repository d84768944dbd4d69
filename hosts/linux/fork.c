/* SPDX-License-Identifier: MIT */
/*
 * A process that forks. Memory of a pool is shared memory: a child that had it would see what its
 * parent writes later. So mappings stay at home (MADV_DONTFORK), and while a process forks private
 * copies stand in their place, which a child inherits as it does all private memory.
 *
 * The copies come and go under fences: first the one of moves, raised over the program's mappings;
 * then the copies' own, which they bring along when they are moved into place. So nobody writes to
 * a copy in the parent, but for the forking thread: attend.h. What it has written is carried over.
 *
 * All units are locked from the first step to the last, then the area, so that nothing is mapped,
 * unmapped or given back meanwhile.
 */
#define _GNU_SOURCE
#include "fork.h"

#include "attend.h"
#include "attrs.h"
#include "holes.h"
#include "sys.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#define OPERATION "fork"
#define EXTENT MPL_PINS_EXTENT
#define EXTENT_WORDS (MPL_PINS_PAGES / 64)
#define PAUSE_NS 1000000
/* In mpl_unit.flags while it is locked for a fork. */
#define UNIT_HELD 4u

/* --- lock everything -------------------------------------------------------------------------- */

static bool is_held(const struct memplug_space *space, uint64_t unit)
{
    return (mpl_unit_at(space, unit)->flags & UNIT_HELD) != 0;
}

/* The next taken unit that is not ours yet; the area is locked. */
static uint64_t next_unheld(const struct memplug_space *space, uint64_t unit)
{
    while (unit < space->area.nr_usable && is_held(space, unit))
        unit = mpl_area_next(&space->area, unit + 1);
    return unit;
}

static void hold_all(struct memplug_space *space)
{
    uint64_t unit;

    mpl_lock_enter(&space->moving);
    for (;;) {
        mpl_lock_enter(&space->area.lock);
        unit = next_unheld(space, mpl_area_next(&space->area, 0));
        if (unit >= space->area.nr_usable)
            return; /* with the area locked */
        mpl_lock_leave(&space->area.lock);
        mpl_lock_enter(&mpl_unit_at(space, unit)->lock);
        mpl_unit_at(space, unit)->flags |= UNIT_HELD;
    }
}

static void release_all(struct memplug_space *space)
{
    uint64_t nr = space->area.nr_usable;

    mpl_lock_leave(&space->area.lock);
    for (uint64_t unit = 0; unit < nr; unit++) {
        if (!is_held(space, unit))
            continue;
        mpl_unit_at(space, unit)->flags &= ~UNIT_HELD;
        mpl_lock_leave(&mpl_unit_at(space, unit)->lock);
    }
    mpl_lock_leave(&space->moving);
}

/* --- what is mapped --------------------------------------------------------------------------- */

static bool continues(const struct mpl_fork_piece *last, const struct mpl_fork_piece *next)
{
    return last->va + last->size_bytes == next->va && last->attr == next->attr &&
           last->fd == next->fd && last->file_offset + last->size_bytes == next->file_offset &&
           last->frames + last->size_bytes == next->frames;
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

static int add_piece(struct memplug_space *space, const struct mpl_fork_piece *piece)
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

        *why = "no memory for the table of mappings";
        result = add_piece(space, &mapped);
    }
    return result;
}

static int list_all(struct memplug_space *space, const char **why)
{
    int result = 0;

    space->fork.nr = 0;
    for (uint64_t unit = mpl_area_next(&space->area, 0);
         unit < space->area.nr_usable && result == 0;
         unit = mpl_area_next(&space->area, unit + 1))
        if (mpl_unit_at(space, unit)->pfn != 0)
            result = list_unit(space, unit, why);
    return result;
}

/* --- copies ----------------------------------------------------------------------------------- */

/* Where the copies will be made: at the same place of a huge page as the originals, and nothing of
 * the reservation left over, since after the move somebody else may map there. */
static int place_copies(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];
        uint64_t room_bytes = piece->size_bytes + EXTENT, skip;
        char *room = mpl_sys_mmap(NULL, room_bytes, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (room == MAP_FAILED)
            return -ENOMEM;
        skip = ((uintptr_t)piece->va - (uintptr_t)room) & (EXTENT - 1);
        piece->copy = room + skip;
        if (skip > 0)
            mpl_sys_munmap(room, skip);
        mpl_sys_munmap(piece->copy + piece->size_bytes, room_bytes - skip - piece->size_bytes);
    }
    return 0;
}

/* Through the program's own mapping if it can be read: its page table stands. */
static int copy_run(const struct mpl_fork_piece *piece, uint64_t at, uint64_t size_bytes)
{
    const char *from = piece->va + at;

    if (mpl_sys_madvise(piece->copy + at, size_bytes, MADV_POPULATE_WRITE) != 0 &&
        errno != EINVAL)
        return -ENOMEM;
    if ((piece->attr & PROT_READ) == 0) {
        from = piece->frames + at;
        mpl_sys_madvise(piece->frames + at, size_bytes, MADV_POPULATE_READ);
    }
    memcpy(piece->copy + at, from, size_bytes);
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

static int copy_piece(const struct memplug_space *space, struct mpl_fork_piece *piece)
{
    int result;

    piece->full = true;
    mpl_sys_madvise(piece->copy, piece->size_bytes, MADV_HUGEPAGE);
    result = copy_some(space, piece, true);
    mpl_sys_madvise(piece->copy, piece->size_bytes, MADV_NOHUGEPAGE);
    return result != 0 ? result : copy_some(space, piece, false);
}

/* --- fences and places ------------------------------------------------------------------------ */

static void lower(struct memplug_space *space, uint64_t nr)
{
    for (uint64_t i = 0; i < nr && !space->fork.alone; i++)
        if (!space->fork.pieces[i].in_place)
            mpl_fence_lower(&space->fence, space->fork.pieces[i].va,
                            space->fork.pieces[i].size_bytes);
}

static int raise_all(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr && !fork->alone; i++) {
        int error = mpl_fence_raise(&space->fence, fork->pieces[i].va,
                                    fork->pieces[i].size_bytes);

        if (error != 0) {
            lower(space, i);
            return error == -EINVAL ? -EPERM : error; /* a file of a filesystem */
        }
    }
    return 0;
}

static int copy_all(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int result = 0;

    for (uint64_t i = 0; i < fork->nr && result == 0; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];

        result = copy_piece(space, piece);
        /* A name that cannot be given, or an advice, is no reason to fail. */
        mpl_attrs_apply(space, piece->copy, piece->size_bytes,
                        piece->attr & ~(MPL_ATTR_MAPPED | MPL_ATTR_LOCKED), false);
        if (result == 0 && !fork->alone)
            result = mpl_attend_fence(fork->uffd, piece->copy, piece->size_bytes);
        if (result == 0 && mpl_sys_mprotect(piece->copy, piece->size_bytes,
                                            (int)(piece->attr & MPL_ATTR_PROTECTION)) != 0)
            result = -ENOMEM;
    }
    return result;
}

static int move_in(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];

        if (syscall(SYS_mremap, piece->copy, piece->size_bytes, piece->size_bytes,
                    MREMAP_MAYMOVE | MREMAP_FIXED, piece->va) == -1)
            return -errno;
        piece->in_place = true;
        piece->copy = NULL;
    }
    return 0;
}

/* The program's mapping again, in place of the copy: one for one, so it needs no mapping that was
 * not there; should others have taken all, spare ones are let go, and at last it waits. */
static void map_back(struct memplug_space *space, struct mpl_fork_piece *piece)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int flags = MAP_SHARED | MAP_FIXED | (piece->full ? MAP_POPULATE : 0);

    while (mpl_sys_mmap(piece->va, piece->size_bytes, (int)(piece->attr & MPL_ATTR_PROTECTION),
                        flags, piece->fd, piece->file_offset) == MAP_FAILED)
        if (!mpl_spare_release(&space->host->spare))
            nanosleep(&pause, NULL);
    mpl_count(&space->counters.nr_attributes_lost,
              mpl_attrs_apply(space, piece->va, piece->size_bytes, piece->attr, piece->full));
    piece->in_place = false;
}

static void wake_all(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr && !fork->alone; i++) {
        mpl_fence_wake(&space->fence, fork->pieces[i].va, fork->pieces[i].size_bytes);
        mpl_attend_wake(fork->uffd, fork->pieces[i].va, fork->pieces[i].size_bytes);
    }
    mpl_spare_fill(&space->host->spare);
}

/* --- what the forking thread has written meanwhile -------------------------------------------- */

static void carry(const struct memplug_space *space, struct mpl_fork_piece *piece, uint64_t at,
                  uint64_t size_bytes)
{
    mpl_attend_fence_page(space->fork.uffd, piece->va + at, size_bytes);
    memcpy(piece->frames + at, piece->va + at, size_bytes);
    piece->full = false;
}

static void carry_page(struct memplug_space *space, uint64_t address)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];
        uint64_t at = address - (uintptr_t)piece->va;

        if (piece->in_place && at < piece->size_bytes)
            carry(space, piece, at, space->page_bytes);
    }
}

static void carry_all(struct memplug_space *space)
{
    struct mpl_attend *attend = space->fork.attend;

    if (!attend)
        return;
    mpl_attend_stop(attend);
    for (unsigned i = 0; i < attend->nr_pages; i++)
        carry_page(space, attend->pages[i]);
    mpl_attend_end(attend);
    space->fork.attend = NULL;
}

/* --- the three calls -------------------------------------------------------------------------- */

static void put_back(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    carry_all(space);
    for (uint64_t i = 0; i < fork->nr; i++)
        if (fork->pieces[i].in_place)
            map_back(space, &fork->pieces[i]);
        else if (fork->pieces[i].copy)
            mpl_spare_munmap(&space->host->spare, fork->pieces[i].copy,
                             fork->pieces[i].size_bytes);
    wake_all(space);
}

static int check(const struct memplug_space *space, bool alone, const char **why)
{
    char here = 0;

    *why = "the stack of the thread that forks is in movable memory";
    if (memplug_space_has(space, &here) || memplug_space_has(space, &errno))
        return -EBUSY;
    *why = "no full userfaultfd, by which other threads are held up meanwhile";
    if (!alone && (space->fence_error != 0 || space->fork.uffd < 0))
        return -EPERM;
    return 0;
}

int memplug_space_fork_check(const struct memplug_space *space, bool alone,
                             struct memplug_reason *reason)
{
    const char *why;
    int result = check(space, alone, &why);

    return mpl_explain(reason, result, OPERATION, result != 0 ? why : NULL, NULL);
}

static int stand_in(struct memplug_space *space, const char **why)
{
    struct mpl_fork *fork = &space->fork;
    int result;

    *why = "no process can be made to attend it";
    result = fork->alone ? 0
                         : mpl_attend_start(fork->uffd, space->page_bytes, &fork->attend);
    if (result != 0)
        return result;
    *why = "the machine has no memory for the copy, or the kernel no mapping";
    result = copy_all(space);
    return result != 0 ? result : move_in(space);
}

int memplug_space_fork_before(struct memplug_space *space, bool alone,
                              struct memplug_reason *reason)
{
    struct mpl_fork *fork = &space->fork;
    const char *why;
    int saved = errno;
    int result = check(space, alone, &why);

    if (result != 0)
        return mpl_explain(reason, result, OPERATION, why, NULL);
    hold_all(space);
    fork->alone = alone;
    result = list_all(space, &why);
    if (result == 0) {
        why = "the machine has no addresses for the copy";
        result = place_copies(space);
    }
    if (result == 0) {
        why = "writers cannot be held up";
        result = raise_all(space);
        if (result == 0) {
            result = stand_in(space, &why);
            if (result != 0)
                lower(space, fork->nr);
        }
    }
    if (result != 0) {
        put_back(space);
        release_all(space);
    }
    errno = saved;
    return mpl_explain(reason, result, OPERATION, result != 0 ? why : NULL, NULL);
}

void memplug_space_fork_parent(struct memplug_space *space)
{
    int saved = errno;

    put_back(space);
    release_all(space);
    errno = saved;
}

/* Another file may stand at the number of ours. */
static void close_uffd(int fd)
{
    struct uffdio_range none = {.start = 0, .len = 0};

    if (fd >= 0 && ioctl(fd, UFFDIO_WAKE, &none) < 0 && errno == EINVAL)
        mpl_sys_close(fd);
}

/* Else a child keeps the locks on files, and the memory of what its parent removes. */
void memplug_space_fork_child(struct memplug_space *space)
{
    struct memplug_linux *host = space->host;
    int saved = errno;

    if (space->fork.attend)
        mpl_sys_close(space->fork.attend->pidfd);
    close_uffd(space->fence.fd);
    close_uffd(space->fork.uffd);
    for (uint64_t i = 0; i < host->nr_blocks; i++) {
        struct mpl_linux_block *block = &host->blocks[i];

        if (block->state != 0 && block->backing->kind == MEMPLUG_BACKING_HUGETLB)
            mpl_fd_close(block->fd, block->backing->dev, block->ino);
    }
    for (unsigned i = 0; i < MPL_NR_BACKINGS; i++)
        if (host->backings[i].in_use)
            mpl_fd_close(host->backings[i].fd, host->backings[i].dev, host->backings[i].ino);
    errno = saved;
}
