/* SPDX-License-Identifier: MIT */
/*
 * Units on huge pages: nothing proves one of them free of pins, but sealing proves all of a memfd.
 * So all of a block's units move at once (seal.h), and then the block gets a memfd that is not
 * sealed; its frames are the core's by then, isolated, and nobody has them.
 */
#define _GNU_SOURCE
#include "live.h"

#include "seal.h"
#include "sys.h"
#include "waiters.h"

#include <errno.h>

/* All users of the block stop for this long if a page is held; what is in flight drains. */
#define SEAL_NS 20000000u

static void refuse_all(struct memplug_space *space, struct memplug_move *moves, unsigned nr_moves,
                       int error, const char *why)
{
    for (unsigned i = 0; i < nr_moves; i++) {
        if (moves[i].result == -ENOENT)
            continue;
        moves[i].result = error;
        moves[i].why = why;
    }
    mpl_count(&space->counters.nr_refused_other, nr_moves);
}

static void release_all(struct mpl_live *live)
{
    while (live->nr > 0)
        mpl_live_release(&live->units[--live->nr]);
}

/* Lock all units; 0, or the error of one that must stay: then all have to. */
static int claim_all(struct memplug_space *space, struct memplug_move *moves, unsigned nr_moves,
                     const char **why)
{
    struct mpl_live *live = space->live;
    int result = 0;

    live->nr = 0;
    for (unsigned i = 0; i < nr_moves && result == 0; i++) {
        int error = mpl_live_claim(space, &moves[i], &live->units[live->nr]);

        if (error == 0) {
            live->nr++;
        } else if (error != -ENOENT) {
            *why = moves[i].why;
            result = error;
        }
    }
    if (result != 0)
        release_all(live);
    return result;
}

/* Is a page of the block somebody's that is not in the batch? The seal would make it read-only in
 * the direct map. The block is isolated: nothing is allocated there, so a look is enough. */
static bool others_in_block(struct memplug_space *space, const struct memplug_move *moves,
                            unsigned nr_moves)
{
    uint64_t nr_pages = space->host->block_bytes / space->page_bytes;
    memplug_pfn_t pfn = {.nr = moves[0].from.nr / nr_pages * nr_pages};
    uint64_t end = pfn.nr + nr_pages;
    unsigned next = 0;

    while (pfn.nr < end) {
        int result;

        if (next < nr_moves && pfn.nr == moves[next].from.nr) {
            pfn.nr += moves[next++].nr_pages;
            continue;
        }
        result = memplug_pin(space->pool, pfn);
        if (result == 0)
            memplug_unpin(space->pool, pfn);
        if (result == 0 || result == -EAGAIN)
            return true;
        pfn.nr++;
    }
    return false;
}

/* What a mapping that takes another's place must have. Of the direct map's, what windows have. */
static void dress(void *context, void *at, size_t size_bytes, void *home)
{
    const struct memplug_space *space = context;
    struct mpl_piece piece = {0};
    uint32_t attr = MPL_ATTR_MAPPED | MPL_ATTR_NO_DUMP;

    if (memplug_space_has(space, home)) {
        uint64_t unit = (uint64_t)((char *)home - space->window.base) / space->unit_bytes;

        if (mpl_piece_next(space, unit, MPL_UNIT_HUGE, &piece))
            attr = piece.attr;
    }
    mpl_attrs_apply(space, at, size_bytes, attr, false);
}

static int fill_units(struct memplug_space *space)
{
    struct mpl_live *live = space->live;

    for (unsigned i = 0; i < live->nr; i++) {
        struct mpl_live_unit *unit = &live->units[i];
        struct mpl_piece piece = {0};

        if (mpl_sys_madvise(unit->dst, space->unit_bytes, MADV_POPULATE_WRITE) != 0 &&
            errno != EINVAL)
            return -ENOMEM;
        mpl_piece_next(space, unit->unit, MPL_UNIT_HUGE, &piece);
        live->seals[i] = (struct mpl_seal_unit){
            .va = unit->va,
            .len = space->unit_bytes,
            .src_off = unit->from.file_offset,
            .dst_fd = unit->to.fd,
            .dst_off = unit->to.file_offset,
            .to = unit->dst,
            .prot = (int)(piece.attr & MPL_ATTR_PROTECTION),
        };
    }
    return 0;
}

static int seal_block(struct memplug_space *space, uint64_t *stop_ns)
{
    struct mpl_live *live = space->live;
    const struct mpl_live_unit *unit = &live->units[0];
    uint64_t address = unit->move->from.nr * space->page_bytes;
    struct mpl_seal_drop drop = {
        .va = space->host->direct.base + address - unit->from.file_offset,
        .len = unit->from.file_offset + unit->from.run_bytes,
    };
    struct mpl_seal_move move = {
        .src_fd = unit->from.fd,
        .src_len = drop.len,
        .units = live->seals,
        .nr_units = live->nr,
        .drops = &drop,
        .nr_drops = 1,
        .limit_ns = SEAL_NS,
        .dev_fd = space->uffd_device,
        .dress = dress,
        .ctx = space,
    };
    int error = mpl_seal_move(&move);

    *stop_ns = move.stop_ns;
    return error;
}

static void settle_all(struct memplug_space *space, const struct memplug_move *moves,
                       unsigned nr_moves, uint64_t stop_ns)
{
    struct mpl_live *live = space->live;
    uint64_t address = live->units[0].move->from.nr * space->page_bytes;

    mpl_backing_spent(space->host, address);
    for (unsigned i = 0; i < live->nr; i++) {
        mpl_live_settle(space, &live->units[i]);
        mpl_pause_add(&space->pause, stop_ns);
    }
    mpl_count(&space->counters.copied_bytes, live->nr * space->unit_bytes);
    if (live->waiters.any)
        mpl_waiters_wake(space, moves, nr_moves, false);
    release_all(live);
    mpl_backing_renew(space->host, address);
}

static void fail_all(struct memplug_space *space, struct memplug_move *moves, unsigned nr_moves,
                     int error, uint64_t stop_ns)
{
    struct mpl_live *live = space->live;
    const char *why = error == -EBUSY ? mpl_why_held_huge
                                      : "its block of huge pages cannot be sealed";

    mpl_live_unprepare(space);
    refuse_all(space, moves, nr_moves, error == -ENOMEM ? -ENOMEM : -EBUSY, why);
    if (error == -EBUSY)
        mpl_count(&space->counters.nr_refused_pins, live->nr);
    for (unsigned i = 0; i < live->nr; i++) {
        mpl_live_note_held(live->units[i].record, error == -EBUSY);
        if (stop_ns != 0)
            mpl_pause_add(&space->refused, stop_ns);
    }
    release_all(live);
}

void mpl_live_huge(struct memplug_space *space, struct memplug_move *moves, unsigned nr_moves)
{
    const char *why = "more units in a block of huge pages than can be moved at once";
    int error = nr_moves > MPL_LIVE_UNITS ? -EBUSY : 0;
    uint64_t stop_ns = 0;

    if (error == 0)
        error = claim_all(space, moves, nr_moves, &why);
    if (error != 0) {
        refuse_all(space, moves, nr_moves, error, why);
        return;
    }
    if (space->live->nr == 0)
        return;
    if (others_in_block(space, moves, nr_moves)) {
        refuse_all(space, moves, nr_moves, -EBUSY,
                   "its block of huge pages has pages of others, so it cannot be sealed");
        release_all(space->live);
        return;
    }
    why = mpl_waiters_stay(space);
    if (why) {
        refuse_all(space, moves, nr_moves, -EBUSY, why);
        release_all(space->live);
        return;
    }
    error = fill_units(space);
    if (error == 0)
        error = seal_block(space, &stop_ns);
    if (error != 0)
        fail_all(space, moves, nr_moves, error, stop_ns);
    else
        settle_all(space, moves, nr_moves, stop_ns);
}
