/* SPDX-License-Identifier: MIT */
/*
 * The live mover: replaces the frames of units while the program runs on them.
 *
 * Units are moved in groups, those of one 2 MiB extent of the source at a time, since that is what
 * the pin proof decides on: a group of 2 MiB units is one unit. A group runs down a table of rows,
 * and up again where it fails (live.c). Between the fence and the wake nothing is done but copying
 * and system calls on mappings: no lock, no allocation. Huge pages have a way of their own, a
 * whole block at a time (live_huge.c).
 */
#ifndef MPL_LINUX_LIVE_H
#define MPL_LINUX_LIVE_H

#include "aside.h"
#include "attrs.h"
#include "hurry.h"
#include "seal.h"
#include "space.h"

#define MPL_LIVE_UNITS MPL_PINS_PAGES
#define MPL_NR_INHERITING 256u
#define MPL_NR_AHEAD 16u                              /* extents */
#define MPL_NR_WINDOW (MPL_NR_AHEAD * MPL_PINS_PAGES) /* moves */

/* Known by their addresses: why.c says more where one of them is the reason. */
extern const char mpl_why_held[], mpl_why_held_huge[], mpl_why_waiter[], mpl_why_blind[];

/* One unit under way, its record locked. */
struct mpl_live_unit {
    struct memplug_move *move;
    struct mpl_unit *record;
    uint64_t unit;
    struct mpl_location from, to;
    char *va, *src, *dst; /* the program's mapping, and both frames in the direct map */
    unsigned first;       /* page of the extent at which its frame begins */
    bool switched;        /* it has the new frame */
};

/* waiters.h: what was seen last. Good for as long as the look took: it is never more than half of
 * the work, however many threads there are. */
struct mpl_live_waiters {
    uint64_t looked_ns, took_ns;
    bool blind;             /* not all threads could be looked at */
    bool any;               /* some sleep in this space */
    unsigned nr_inheriting; /* with priority inheritance; more than there is place for: blind */
    uint64_t inheriting[MPL_NR_INHERITING]; /* where, as units */
};

/* A source that is being given back. */
struct mpl_live_scrub {
    uint64_t pfn, nr_pages;
    struct mpl_location location;
    struct mpl_aside_call *call;
};

struct mpl_live {
    struct mpl_live_unit units[MPL_LIVE_UNITS];
    unsigned nr;          /* by address in the program, once they are all there */
    const char *why;      /* of the row that failed */

    struct mpl_pins_map fences[MPL_LIVE_UNITS]; /* fenced ranges; neighbours are one */
    unsigned nr_fences;
    uint64_t raised_ns;
    bool held;            /* the proof has failed: a page is held for I/O */
    struct mpl_live_waiters waiters;
    struct mpl_hurry hurry;

    struct mpl_pins_map maps[MPL_LIVE_UNITS + 1]; /* all mappings of the extent, for the proof */
    struct mpl_pins_unit extent; /* nr 0: no proof is wanted */
    struct mpl_pins_proof proof;

    struct mpl_seal_unit seals[MPL_LIVE_UNITS]; /* live_huge.c */

    /* Bits by page of the extent. */
    uint64_t data[MPL_PINS_PAGES / 64];   /* it has content */
    uint64_t made[MPL_PINS_PAGES / 64]; /* the target has memory for it */
    uint64_t lent[MPL_PINS_PAGES / 64]; /* was a hole, which giving a child its copy has filled */

    const struct memplug_move *window;    /* what was looked at ahead, from this move on */
    uint64_t window_full[MPL_NR_WINDOW / 64]; /* bits by move: its unit had no hole */

    struct mpl_aside aside;
    struct mpl_live_scrub scrubs[MPL_ASIDE_CALLS]; /* under way */
    unsigned nr_scrubs;
};

/* For memplug_register_mover(); context is the space. */
void mpl_live_move(void *context, struct memplug_move *moves, unsigned nr_moves);

/* The same, in why.c. */
int mpl_live_ask(void *context, memplug_pfn_t pfn, uint64_t cookie,
                 struct memplug_reason *reason);
void mpl_live_look(void *context);
void mpl_live_describe(void *context, memplug_pfn_t pfn, uint64_t cookie,
                       struct memplug_reason *reason);

/* Lock the unit that has this frame, or -ENOENT. */
int mpl_live_lock(const struct memplug_space *space, uint64_t pfn, uint64_t cookie);

/* Does it lie in a memfd or in tmpfs? */
bool mpl_live_is_shmem(const struct mpl_location *location);

/* Write down of a unit that stays whether it does for a page that is held; its record is locked. */
void mpl_live_note_held(struct mpl_unit *record, bool held);

/* May memory that lies there be moved, as far as can be said beforehand? 0, or -EBUSY and why. */
int mpl_live_check(const struct memplug_space *space, const struct mpl_location *from,
                   const char **why, const char **remedy);

/* waiters.c: a row of the table, before the fence: -EBUSY a unit has a waiter that cannot be woken,
 * -EAGAIN one of several has. */
int mpl_live_waiters(struct memplug_space *space);

/* Lock a move's unit and fill in what is known of it. Not 0: it stays, the move says why, and it
 * is not locked. */
int mpl_live_claim(struct memplug_space *space, struct memplug_move *move,
                   struct mpl_live_unit *unit);
void mpl_live_release(struct mpl_live_unit *unit);

/* The unit has its new frame: write it down. Under no fence. */
void mpl_live_settle(struct memplug_space *space, struct mpl_live_unit *unit);

/* live_ahead.c: huge pages for the moves to come; how many moves that covers. */
unsigned mpl_live_ahead(struct memplug_space *space, const struct memplug_move *moves,
                        unsigned nr_moves);

/* The same: sources that are empty now are given back, at the latest by the end. */
void mpl_live_scrub(struct memplug_space *space, uint64_t pfn, uint64_t nr_pages,
                    const struct mpl_location *location);
void mpl_live_scrub_end(struct memplug_space *space);

/* live_copy.c: rows of the table. */
int mpl_live_prepare(struct memplug_space *space);
void mpl_live_unprepare(struct memplug_space *space);
int mpl_live_copy(struct memplug_space *space);

/* live_switch.c: rows of the table. */
int mpl_live_extent(struct memplug_space *space);
void mpl_live_unextent(struct memplug_space *space);
int mpl_live_raise(struct memplug_space *space);
void mpl_live_lower(struct memplug_space *space);
int mpl_live_prove(struct memplug_space *space);
void mpl_live_unprove(struct memplug_space *space);
int mpl_live_switch(struct memplug_space *space);
void mpl_live_wake(struct memplug_space *space);

/* live_huge.c: moves of frames that all lie in one hugetlb block. */
void mpl_live_huge(struct memplug_space *space, struct memplug_move *moves, unsigned nr_moves);

/* Does the unit have the whole mapping replaced at once? */
static inline uint32_t mpl_live_flags(const struct memplug_space *space,
                                      const struct mpl_live_unit *unit)
{
    return unit->record->flags |
           (unit->to.align_bytes > space->page_bytes ? MPL_UNIT_HUGE : 0);
}

static inline bool mpl_live_bit(const uint64_t *bits, unsigned page)
{
    return bits[page / 64] >> (page % 64) & 1;
}

/* All pages of this unit have content. */
static inline bool mpl_live_full(const struct memplug_space *space,
                                 const struct mpl_live_unit *unit)
{
    for (unsigned page = unit->first; page < unit->first + space->unit_pages; page++)
        if (!mpl_live_bit(space->live->data, page))
            return false;
    return true;
}

#endif
