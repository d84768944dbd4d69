/* SPDX-License-Identifier: MIT */
/*
 * A process that forks. Memory of a pool is shared memory: a child that had it would see what its
 * parent writes later. So mappings stay at home (MADV_DONTFORK), and while a process forks private
 * stand-ins are in their place, which a child inherits as it does all private memory: copies
 * (fork_copy.c), or, once memplug_space_fork_lazily() was called, private mappings of the frames
 * (fork_share.c).
 *
 * Nobody else writes to a stand-in. Copies come and go under fences: first the one of moves, raised
 * over the program's mappings; then the stand-ins' own, which they bring along when they are moved
 * into place. Only the forking thread is let through: attend.h. What it writes is carried over.
 *
 * All units are locked from the first step to the last, then the area, so that nothing is mapped,
 * unmapped or given back meanwhile.
 */
#define _GNU_SOURCE
#include "fork.h"

#include "attend.h"
#include "attrs.h"
#include "first_write.h"
#include "fork_gate.h"
#include "holders.h"
#include "holes.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

#define OPERATION "fork"
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
    atomic_store(&space->fork.under_way, true); /* before it is asked who changes: fork_lazy.c */
    for (;;) {
        mpl_lock_enter(&space->area.lock);
        unit = next_unheld(space, mpl_area_next(&space->area, 0));
        if (unit >= space->area.nr_usable) {
            mpl_spare_keep(&space->host->spare);
            return; /* with the area locked */
        }
        mpl_lock_leave(&space->area.lock);
        mpl_lock_enter(&mpl_unit_at(space, unit)->lock);
        mpl_unit_at(space, unit)->flags |= UNIT_HELD;
    }
}

static void release_all(struct memplug_space *space)
{
    uint64_t nr = space->area.nr_usable;

    atomic_store(&space->fork.under_way, false);
    mpl_spare_share(&space->host->spare);
    mpl_lock_leave(&space->area.lock);
    for (uint64_t unit = 0; unit < nr; unit++) {
        if (!is_held(space, unit))
            continue;
        mpl_unit_at(space, unit)->flags &= ~UNIT_HELD;
        mpl_lock_leave(&mpl_unit_at(space, unit)->lock);
    }
    mpl_lock_leave(&space->moving);
}

/* --- stand-ins -------------------------------------------------------------------------------- */

static uint64_t end_unit(const struct memplug_space *space, const struct mpl_fork_piece *piece)
{
    return mpl_unit_of(space, (uintptr_t)piece->va + piece->size_bytes - 1) + 1;
}

/* What is to be copied must not be a former child's any more. */
static int settle_copied(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int result = 0;

    for (uint64_t i = 0; i < fork->nr && fork->again; i++) {
        const struct mpl_fork_piece *piece = &fork->pieces[i];
        uint64_t unit = mpl_unit_of(space, (uintptr_t)piece->va);

        for (; piece->kind == MPL_FORK_COPY && unit < end_unit(space, piece) && result == 0; unit++)
            result = mpl_first_settle_unit(space, unit);
    }
    return result;
}

static int place_all(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];

        piece->stand_in = mpl_fork_place(piece->va, piece->size_bytes);
        if (piece->stand_in && piece->kind != MPL_FORK_COPY)
            piece->away = mpl_fork_place(piece->va, piece->size_bytes);
        if (!piece->stand_in || (piece->kind != MPL_FORK_COPY && !piece->away))
            return -ENOMEM;
    }
    return 0;
}

static void lower(struct memplug_space *space, uint64_t nr)
{
    for (uint64_t i = 0; i < nr && !space->fork.alone; i++)
        if (space->fork.pieces[i].kind == MPL_FORK_COPY && !space->fork.pieces[i].in_place)
            mpl_fence_lower(&space->fence, space->fork.pieces[i].va,
                            space->fork.pieces[i].size_bytes);
}

static int raise_all(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr && !fork->alone; i++) {
        int error = fork->pieces[i].kind != MPL_FORK_COPY
                        ? 0 : mpl_fence_raise(&space->fence, fork->pieces[i].va,
                                              fork->pieces[i].size_bytes);

        if (error != 0) {
            lower(space, i);
            return error == -EINVAL ? -EPERM : error; /* a file of a filesystem */
        }
    }
    return 0;
}

static int copy_piece(struct memplug_space *space, struct mpl_fork_piece *piece)
{
    struct mpl_fork *fork = &space->fork;
    int result = mpl_fork_copy(space, piece);

    /* A name that cannot be given, or an advice, is no reason to fail. */
    mpl_attrs_apply(space, piece->stand_in, piece->size_bytes,
                    piece->attr & ~(MPL_ATTR_MAPPED | MPL_ATTR_LOCKED), false);
    if (result == 0 && !fork->alone)
        result = mpl_attend_fence(fork->uffd, piece->stand_in, piece->size_bytes);
    if (result == 0 && mpl_sys_mprotect(piece->stand_in, piece->size_bytes,
                                        (int)(piece->attr & MPL_ATTR_PROTECTION)) != 0)
        result = -ENOMEM;
    return result;
}

static int make_all(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int result = 0;

    for (uint64_t i = 0; i < fork->nr && result == 0; i++)
        result = fork->pieces[i].kind == MPL_FORK_COPY
                     ? copy_piece(space, &fork->pieces[i])
                     : mpl_fork_stand_in(space, &fork->pieces[i]);
    return result;
}

static int park_all(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int result = 0;

    for (uint64_t i = 0; i < fork->nr && result == 0;) {
        if (fork->pieces[i].kind != MPL_FORK_COPY)
            result = mpl_fork_park(space, &fork->pieces[i]);
        if (result == -EFAULT)
            result = mpl_fork_split(space, i);
        else
            i++;
    }
    return result;
}

/* A hole that has been written since it was listed is the child's too. Nobody can write now. */
static int look_at_holes(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int result = 0;

    for (uint64_t i = 0; i < fork->nr && result == 0; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];

        if (piece->kind == MPL_FORK_EMPTY &&
            !mpl_holes_all(piece->fd, piece->file_offset, piece->size_bytes / MPL_HOLES_PAGE))
            result = mpl_fork_share(space, piece);
    }
    return result;
}

/* Once everything is away: what has changed since the look before. */
static int look_again(struct memplug_space *space, const char **why)
{
    const char *writer = mpl_holders_registered(space, true);

    if (writer) {
        *why = writer;
        return -EBUSY;
    }
    return look_at_holes(space);
}

static int move_in(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];

        if (syscall(SYS_mremap, piece->stand_in, piece->size_bytes, piece->size_bytes,
                    MREMAP_MAYMOVE | MREMAP_FIXED, piece->va) == -1)
            return -errno;
        piece->in_place = true;
        piece->stand_in = NULL;
    }
    return 0;
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

/* It is the child's as well if it was written before the fork, and not if after: so the child
 * gets what it has now, before the parent's frame does. */
static void carry(struct memplug_space *space, struct mpl_fork_piece *piece, uint64_t at)
{
    char *va = piece->va + at;

    mpl_attend_fence_page(space->fork.uffd, va, space->page_bytes);
    if (piece->kind == MPL_FORK_SHARE)
        mpl_first_settle(space, va, space->page_bytes);
    memcpy(piece->frames + at, va, space->page_bytes);
    piece->full = false;
}

static void carry_page(struct memplug_space *space, uint64_t address)
{
    struct mpl_fork *fork = &space->fork;

    for (uint64_t i = 0; i < fork->nr; i++) {
        struct mpl_fork_piece *piece = &fork->pieces[i];
        uint64_t at = address - (uintptr_t)piece->va;

        if (piece->in_place && at < piece->size_bytes)
            carry(space, piece, at);
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
}

/* --- the three calls -------------------------------------------------------------------------- */

static void put_piece(struct memplug_space *space, struct mpl_fork_piece *piece, bool undo)
{
    struct mpl_spare *spare = &space->host->spare;
    uint64_t unit = mpl_unit_of(space, (uintptr_t)piece->va);
    bool shared = piece->kind == MPL_FORK_SHARE && piece->parked && (!undo || space->fork.again);

    for (; shared && unit < end_unit(space, piece); unit++)
        mpl_unit_at(space, unit)->flags |= MPL_UNIT_SHARED;
    if (piece->parked)
        mpl_fork_unpark(space, piece, undo);
    else if (piece->in_place)
        mpl_fork_map_back(space, piece);
    if (piece->away)
        mpl_spare_munmap(spare, piece->away, piece->size_bytes);
    if (piece->stand_in)
        mpl_spare_munmap(spare, piece->stand_in, piece->size_bytes);
}

static void put_back(struct memplug_space *space, bool undo)
{
    struct mpl_fork *fork = &space->fork;

    carry_all(space);
    /* The last first: what was mapped last can be unmapped although the kernel has no mapping left
     * for parts of what it has become one with. */
    for (uint64_t i = fork->nr; i > 0; i--)
        put_piece(space, &fork->pieces[i - 1], undo);
    if (fork->first && fork->attend)
        mpl_first_attend(space, NULL);
    if (fork->attend)
        mpl_attend_end(fork->attend);
    fork->attend = NULL;
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
    *why = "the next process is the first of a new pid namespace, and cannot attend the fork";
    return alone || space->fork.first || mpl_attend_can() ? 0 : -EPERM;
}

int memplug_space_fork_check(const struct memplug_space *space, bool alone,
                             struct memplug_reason *reason)
{
    const char *why;
    int result = check(space, alone, &why);

    return mpl_explain(reason, result, OPERATION, result != 0 ? why : NULL, NULL);
}

static int attend(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int result;

    if (fork->alone)
        return 0;
    if (!fork->first)
        return mpl_attend_start(fork->uffd, space->page_bytes, &fork->attend);
    /* Who hears of first writes hears of these faults too. */
    result = mpl_attend_open(fork->uffd, space->page_bytes, &fork->attend);
    if (result == 0)
        mpl_first_attend(space, fork->attend);
    return result;
}

static int stand_in(struct memplug_space *space, const char **why)
{
    int result;

    *why = "no process can be made to attend it";
    result = attend(space);
    if (result != 0)
        return result;
    *why = "the machine has no memory for the copy, or the kernel no mapping";
    result = make_all(space);
    if (result == 0)
        result = park_all(space);
    if (result == 0 && space->fork.lazy)
        result = look_again(space, why);
    if (result == 0)
        result = move_in(space);
    return result == 0 && space->fork.lazy ? mpl_first_expect(space) : result;
}

/* 0, or all is as it was. */
static int begin(struct memplug_space *space, const char **why)
{
    int result = mpl_fork_list(space, why);

    if (result == 0) {
        *why = "a child of before cannot be given its copy";
        result = settle_copied(space);
    }
    if (result == 0) {
        *why = "the machine has no addresses for the copy";
        result = place_all(space);
    }
    if (result == 0) {
        *why = "writers cannot be held up";
        result = raise_all(space);
        if (result == 0) {
            result = stand_in(space, why);
            if (result != 0)
                lower(space, space->fork.nr);
        }
    }
    if (result != 0)
        put_back(space, true);
    return result;
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
    fork->saved_errno = saved;
    fork->alone = alone;
    fork->serial++;
    fork->copied_why = mpl_fork_why_copied(space);
    fork->lazy = !fork->copied_why;
    result = begin(space, &why);
    if (result != 0 && fork->lazy) {
        fork->copied_why = why;
        fork->lazy = false;
        result = begin(space, &why);
    }
    mpl_count(fork->lazy ? &space->counters.nr_forks_lazy : &space->counters.nr_forks_copied,
              result == 0);
    if (result != 0)
        release_all(space);
    errno = saved;
    return mpl_explain(reason, result, OPERATION, result != 0 ? why : NULL, NULL);
}

/* Or it makes all its own now, while nothing changes: then it has been a copy after all. */
static int adopt(struct memplug_space *space, bool born)
{
    struct mpl_fork *fork = &space->fork;
    int result;

    if (mpl_first_adopt(space) == 0)
        return 0;
    result = born ? mpl_gate_ask(fork) : mpl_gate_refuse(fork);
    if (result != 0)
        return result;
    fork->copies_until = fork->serial + MPL_FORK_COPIES;
    fork->copied_why = "the child could not be reached by its parent";
    mpl_count(&space->counters.nr_forks_lazy, -1);
    mpl_count(&space->counters.nr_forks_copied, 1);
    return 0;
}

int memplug_space_fork_parent(struct memplug_space *space)
{
    int saved = errno;
    /* Where errno has changed fork() has failed, and nobody needs to be waited for. Or a signal's
     * handler has left it so. */
    int result = space->fork.lazy ? adopt(space, saved == space->fork.saved_errno) : 0;

    put_back(space, false);
    release_all(space);
    errno = saved;
    return result;
}
