/* SPDX-License-Identifier: MIT */
/*
 * Could this block go offline now? The walk of offline without its hands: it takes the zone's lock
 * for a few frames at a time, never the control lock, and asks movers without any lock. So the
 * answer is one of a moment; it can be old when it is read.
 */
#include "../door.h"
#include "../state/early.h"
#include "../state/fast.h"
#include "../state/hvo.h"
#include "look.h"

#define MAX_ENTRIES 32u
#define MAX_WALK 16384u /* frames looked at under one lock */

/* One allocation. */
struct entry {
    memplug_pfn_t pfn;
    bool described;
    struct mpl_look_page page; /* if described */
};

/* Allocations that stay, the first one by name. */
struct found {
    uint64_t nr;
    struct entry first;
    const char *why, *remedy;
};

struct survey {
    struct memplug *pool;
    const struct mpl_block *block;
    const struct mpl_block *at; /* where the walk stands, and how far it goes there */
    uint64_t index, end;
    uint64_t nr_pages; /* to be moved */
    uint64_t nr_frames; /* that are needed elsewhere for that */
    uint64_t nr_targets[MEMPLUG_NR_HUGE]; /* free huge pages elsewhere that may be targets */
    bool promised;     /* huge pages that are free here */
    uint64_t largest;  /* allocation among them, in pages */
    uint32_t looked;   /* movers that have looked, a bit each */
    memplug_obstacle_t *tell; /* of memplug_why_each(); may be null */
    void *context;
    unsigned nr_entries;
    struct entry entries[MAX_ENTRIES];
    struct found unmovable, blocking;
};

/* Lock the zone of a block that is online; null if it is not. */
static struct mpl_zone *lock_zone(const struct memplug *pool, const struct mpl_block *block)
{
    while (mpl_block_state(block) == MEMPLUG_BLOCK_ONLINE) {
        unsigned kind = __atomic_load_n(&block->zone, __ATOMIC_RELAXED);
        int node = __atomic_load_n(&block->node, __ATOMIC_RELAXED);
        struct mpl_zone *zone;

        if (kind >= MEMPLUG_NR_ZONES || !mpl_node_valid(pool, node))
            return NULL;
        zone = mpl_zone_at(pool, node, kind);
        mpl_spin_lock(pool, &zone->lock);
        if (mpl_block_state(block) == MEMPLUG_BLOCK_ONLINE && mpl_zone_of(pool, block) == zone)
            return zone;
        mpl_spin_unlock(&zone->lock);
    }
    return NULL;
}

/* --- what is there ---------------------------------------------------------------------------- */

/* False: it was freed meanwhile. Its page means nothing then, though its bit says *described*. */
static bool look_at(const struct memplug *pool, const struct mpl_block *block, uint64_t index,
                    struct entry *entry)
{
    entry->pfn = mpl_pfn_add(mpl_block_start(pool, block), index);
    entry->described = mpl_frame_described(pool, block, index);
    if (entry->described)
        entry->page = mpl_look_page(pool, entry->pfn);
    return mpl_frame_get(pool, block, index) == MPL_FRAME_HEAD;
}

/* The allocation that the block's first frame goes on with, if there is one: it has to be moved
 * as a whole. It is in this zone, as the lock is. */
static bool look_before(const struct survey *survey, const struct mpl_zone *zone,
                        struct entry *entry)
{
    const struct memplug *pool = survey->pool;
    const struct mpl_block *block = survey->at;
    uint64_t head;

    while (!mpl_is_memmap(pool, block, 0) && mpl_frame_get(pool, block, 0) == MPL_FRAME_TAIL &&
           mpl_block_id(pool, block) > 0) {
        block--;
        if (mpl_block_state(block) != MEMPLUG_BLOCK_ONLINE || mpl_zone_of(pool, block) != zone)
            return false;
        if (mpl_frames_head_of(pool, block, pool->layout.nr_pages - 1, &head))
            return look_at(pool, block, head, entry);
    }
    return false;
}

/* The next allocations. False: the block is not online any more. */
static bool gather(struct survey *survey)
{
    const struct memplug *pool = survey->pool;
    struct mpl_zone *zone = lock_zone(pool, survey->at);
    uint64_t end;

    if (!zone)
        return false;
    survey->nr_entries = 0;
    if (survey->index == 0 && look_before(survey, zone, &survey->entries[0]))
        survey->nr_entries++;
    end = survey->end - survey->index < MAX_WALK ? survey->end : survey->index + MAX_WALK;
    while (survey->nr_entries < MAX_ENTRIES) {
        survey->index = mpl_look_for(survey->at, survey->index, end, MPL_LOOK_HEAD);
        if (survey->index == end)
            break;
        if (mpl_is_memmap(pool, survey->at, survey->index)) {
            survey->index++;
            continue;
        }
        survey->nr_entries +=
            look_at(pool, survey->at, survey->index++, &survey->entries[survey->nr_entries]);
    }
    mpl_spin_unlock(&zone->lock);
    return true;
}

/* A second look: between the looks at its two bits a frame can have been freed and taken anew. */
static bool is_unmovable(const struct survey *survey, const struct entry *entry)
{
    const struct memplug *pool = survey->pool;
    const struct mpl_block *block =
        mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, entry->pfn));
    uint64_t index = mpl_pfn_distance(mpl_block_start(pool, block), entry->pfn);
    struct mpl_zone *zone = lock_zone(pool, block);
    bool raw;

    if (!zone)
        return false;
    raw = !mpl_frame_described(pool, block, index) &&
          mpl_frame_get(pool, block, index) == MPL_FRAME_HEAD && !mpl_poisoned(block, index);
    mpl_spin_unlock(&zone->lock);
    return raw;
}

/* Huge pages: a used one has a page also if it has no mover. They change hands under huge_lock, so
 * the second look is under it. */
static bool is_unmovable_huge(const struct survey *survey, const struct entry *entry)
{
    struct memplug *pool = survey->pool;
    const struct mpl_block *block =
        mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, entry->pfn));
    struct mpl_look_page page = {.mover = 1};
    struct mpl_zone *zone;

    mpl_spin_lock(pool, &pool->huge_lock);
    zone = lock_zone(pool, block);
    if (zone && mpl_frame_described(
                    pool, block, mpl_pfn_distance(mpl_block_start(pool, block), entry->pfn)))
        page = mpl_look_page(pool, entry->pfn);
    if (zone)
        mpl_spin_unlock(&zone->lock);
    mpl_spin_unlock(&pool->huge_lock);
    return page.huge != 0 && page.state == MPL_PAGE_USED && page.mover == 0;
}

/* What the pools of huge pages say to it. */
static void look_at_pools(struct survey *survey)
{
    struct memplug *pool = survey->pool;

    mpl_spin_lock(pool, &pool->huge_lock);
    for (unsigned i = 0; i < MEMPLUG_NR_HUGE; i++) {
        enum memplug_huge size = (enum memplug_huge)i;
        uint64_t nr_open = mpl_huge_open(pool, survey->block, size);
        uint64_t nr_available = mpl_huge_available(pool, size);

        survey->promised |= nr_open > nr_available;
        survey->nr_targets[i] = nr_open < nr_available ? nr_available - nr_open : 0;
    }
    mpl_spin_unlock(&pool->huge_lock);
}

/* --- who is in the way ------------------------------------------------------------------------ */

/* What a mover looks at may be large: once an answer, and only if it has a page here. */
static void look_once(struct survey *survey, unsigned number)
{
    const struct memplug_mover *mover = mpl_look_mover(survey->pool, number);

    if (!mover || !mover->look || (survey->looked >> number & 1) != 0)
        return;
    survey->looked |= (uint32_t)1 << number;
    mover->look(mover->context);
}

/* Name an allocation, and let its owner speak. error, why and remedy are there already. */
static void name(struct survey *survey, const struct entry *entry, struct memplug_reason *reason)
{
    const struct memplug_mover *mover =
        entry->described ? mpl_look_mover(survey->pool, entry->page.mover) : NULL;

    reason->pfn = entry->pfn;
    if (!mover)
        return;
    reason->owner = mover->name;
    reason->owner_cookie = entry->page.cookie;
    look_once(survey, entry->page.mover);
    mpl_describe(mover, entry->pfn, entry->page.cookie, reason);
}

static void tell(struct survey *survey, const struct found *found, const struct entry *entry,
                 const char *why, const char *remedy)
{
    struct memplug_reason reason;

    mpl_reason_reset(&reason);
    reason.error = -MPL_EBUSY;
    reason.operation = "offline";
    reason.step = found == &survey->unmovable ? "drain" : "migrate";
    reason.why = why;
    reason.remedy = remedy;
    reason.block = (int64_t)mpl_block_id(survey->pool, survey->block);
    reason.nr_pages = entry->described ? entry->page.nr_pages : 0;
    name(survey, entry, &reason);
    survey->tell(survey->context, &reason);
}

static void note(struct survey *survey, struct found *found, const struct entry *entry,
                 const char *why, const char *remedy)
{
    if (survey->tell)
        tell(survey, found, entry, why, remedy);
    if (found->nr++ != 0)
        return;
    found->first = *entry;
    found->why = why;
    found->remedy = remedy;
}

/* For a huge page a free one elsewhere will do. */
static void need_room(struct survey *survey, const struct entry *entry)
{
    unsigned huge = entry->page.huge;

    survey->nr_pages += entry->page.nr_pages;
    if (huge != 0 && huge <= MEMPLUG_NR_HUGE && survey->nr_targets[huge - 1] != 0) {
        survey->nr_targets[huge - 1]--;
        return;
    }
    survey->nr_frames += entry->page.nr_pages;
    if (entry->page.nr_pages > survey->largest)
        survey->largest = entry->page.nr_pages;
}

static void ask(struct survey *survey, const struct memplug_mover *mover,
                const struct entry *entry)
{
    struct memplug_reason reason;
    int error = 0;

    look_once(survey, entry->page.mover);
    mpl_reason_reset(&reason);
    if (mover->ask)
        error = mover->ask(mover->context, entry->pfn, entry->page.cookie, &reason);
    if (error == -MPL_ENOENT)
        return;
    need_room(survey, entry);
    if (error != 0)
        note(survey, &survey->blocking, entry,
             reason.why ? reason.why : "its mover cannot move it now",
             reason.remedy ? reason.remedy : "end what uses it, or wait");
}

static void judge(struct survey *survey, const struct entry *entry)
{
    const struct memplug_mover *mover =
        entry->described ? mpl_look_mover(survey->pool, entry->page.mover) : NULL;

    if (!entry->described) {
        if (is_unmovable(survey, entry))
            note(survey, &survey->unmovable, entry, "a frame is used and nobody can move it",
                 "free it, or allocate it as movable");
        return;
    }
    switch (entry->page.state) {
    case MPL_PAGE_KEPT:
        if (entry->page.pins != 0)
            note(survey, &survey->blocking, entry, "a driver keeps logically offline pages",
                 "let the driver release them or let them go");
        break;
    case MPL_PAGE_USED:
        if (entry->page.pins != 0)
            note(survey, &survey->blocking, entry, "a page is pinned", "end what pins it, or wait");
        else if (mover)
            ask(survey, mover, entry);
        else if (is_unmovable_huge(survey, entry))
            note(survey, &survey->unmovable, entry, "a frame is used and nobody can move it",
                 "free it, or allocate it as movable");
        break;
    case MPL_PAGE_MOVING:
    case MPL_PAGE_TARGET:
        survey->nr_pages += entry->page.nr_pages;
        survey->nr_frames += entry->page.nr_pages;
        break;
    case MPL_PAGE_POOLED: /* see look_at_pools() */
    case MPL_PAGE_NONE:
    case MPL_PAGE_DYING:
        break; /* as good as free */
    }
}

/* --- room elsewhere --------------------------------------------------------------------------- */

struct room {
    uint64_t nr_free;
    uint64_t nr_full;  /* free pageblocks one behind the other, up to where the search is */
    uint64_t nr_held;
    bool has_place;    /* for the largest allocation */
    uint8_t kinds[MPL_MAX_NODES]; /* the zones that count, a bit per kind */
};

static void choose_zones(struct survey *survey, struct room *room)
{
    struct mpl_zone *zones[MPL_MAX_NODES * MEMPLUG_NR_ZONES];
    const struct memplug_alloc request = {.node = survey->block->node, .mover = 1};
    unsigned nr_zones = mpl_policy_zonelist(survey->pool, &request, zones);

    for (unsigned i = 0; i < nr_zones; i++)
        room->kinds[zones[i]->node] |= (uint8_t)(1u << zones[i]->kind);
}

/* Pageblocks that are free as a whole, also over the ends of blocks. */
static void look_for_pageblocks(const struct survey *survey, const struct mpl_block *block,
                                struct room *room)
{
    const struct memplug *pool = survey->pool;
    uint64_t nr_pages = mpl_pageblock_pages(&pool->geometry);

    for (uint64_t i = 0; i < pool->layout.nr_pageblocks && !room->has_place; i++) {
        bool full = mpl_look_nr_free(pool, block, i) == nr_pages &&
                    !mpl_isolated(pool, block, i * nr_pages);

        room->nr_full = full ? room->nr_full + 1 : 0;
        room->has_place = room->nr_full >= survey->largest / nr_pages;
    }
}

static void look_for_room(const struct survey *survey, const struct mpl_block *block,
                          struct room *room)
{
    const struct memplug *pool = survey->pool;
    struct mpl_zone *zone = block != survey->block ? lock_zone(pool, block) : NULL;
    uint64_t nr_search = 1, index;

    while (nr_search < survey->largest)
        nr_search *= 2; /* as the search for a target does */
    if (zone && (room->kinds[zone->node] >> zone->kind & 1) != 0) {
        room->nr_free += mpl_block_nr_free(block);
        if (nr_search > mpl_pageblock_pages(&pool->geometry))
            look_for_pageblocks(survey, block, room);
        else if (!room->has_place)
            room->has_place = mpl_frames_find(pool, block, nr_search, &index);
    } else {
        room->nr_full = 0;
    }
    if (zone)
        mpl_spin_unlock(&zone->lock);
}

/* What CPUs keep at hand comes back when offline drains the slots. */
static void count_held(const struct survey *survey, struct room *room)
{
    const struct memplug *pool = survey->pool;
    uint64_t id = mpl_block_id(pool, survey->block);
    uint64_t nr_whole = mpl_pageblock_pages(&pool->geometry);
    struct mpl_slot *slot;

    for (unsigned i = 0; (slot = mpl_slot_at(pool, i)) != NULL; i++) {
        mpl_slot_stop(pool, slot);
        for (unsigned kind = 0; kind < MPL_NR_HELD; kind++)
            if (slot->held[kind].block != id)
                room->nr_held += MPL_POPCOUNT64(slot->held[kind].mask) *
                                 (kind < MPL_HELD_WHOLE ? 1 : nr_whole);
        mpl_slot_start(slot);
    }
}

/* False only if it is certain: a place that held frames might make up is not looked for. */
static bool has_room(struct survey *survey)
{
    struct memplug *pool = survey->pool;
    struct room room = {.has_place = survey->largest <= 1};

    if (survey->nr_frames == 0)
        return true;
    choose_zones(survey, &room);
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
        look_for_room(survey, mpl_block_at(pool, id), &room);
    count_held(survey, &room);
    return room.nr_free + room.nr_held >= survey->nr_frames && (room.has_place || room.nr_held > 0);
}

/* --- the answer ------------------------------------------------------------------------------- */

static int fail_found(struct mpl_op *op, struct survey *survey, const struct found *found)
{
    int error = mpl_fail(op, -MPL_EBUSY, found->why, found->remedy);

    op->reason->nr_pages = found->nr;
    name(survey, &found->first, op->reason);
    return error;
}

static int fail_state(struct mpl_op *op, const struct mpl_block *block)
{
    if (mpl_block_state(block) == MEMPLUG_BLOCK_ABSENT)
        return mpl_fail(op, -MPL_ENODEV, "there is no such block", NULL);
    return mpl_fail(op, -MPL_EINVAL, "the block is not online", NULL);
}

static int answer(struct mpl_op *op, struct survey *survey)
{
    op->progress.step = "drain";
    if (survey->unmovable.nr != 0)
        return fail_found(op, survey, &survey->unmovable);
    op->progress.step = "withhold";
    if (survey->promised)
        return mpl_fail(op, -MPL_EBUSY, "free huge pages of this block are promised",
                        "make the pool of huge pages larger, or take promises back");
    op->progress.step = "migrate";
    if (survey->blocking.nr != 0)
        return fail_found(op, survey, &survey->blocking);
    op->reason->nr_pages = survey->nr_pages;
    if (!has_room(survey))
        return mpl_fail(op, -MPL_ENOMEM, "there is no room to move its used frames to",
                        "plug memory in, or free some");
    return 0;
}

/* All allocations that begin in these frames, and the one that goes on in the first frame of a
 * block. False: the block is not online any more. */
static bool walk(struct survey *survey, const struct mpl_block *block, uint64_t index,
                 uint64_t nr_pages)
{
    survey->at = block;
    survey->index = index;
    survey->end = index + nr_pages;
    while (survey->index < survey->end) {
        if (!gather(survey))
            return false;
        for (unsigned i = 0; i < survey->nr_entries; i++)
            judge(survey, &survey->entries[i]);
    }
    return true;
}

/* The next huge page at or behind *pfn with a frame before end, whose memmap is lent. */
static bool next_lent(struct memplug *pool, memplug_pfn_t end, enum memplug_huge size,
                      memplug_pfn_t *pfn, struct mpl_hvo_group *group)
{
    uint64_t nr_pages = mpl_huge_pages(pool, size);
    struct mpl_slot *slot = mpl_percpu_lock(pool);
    bool found = false;

    mpl_spin_lock(pool, &pool->huge_lock);
    for (uint64_t at = mpl_round_up(pfn->nr, nr_pages); at < end.nr && !found; at += nr_pages) {
        const struct mpl_page *page = mpl_huge_at(pool, mpl_pfn(at), size);

        found = page && (page->huge_flags & MPL_HUGE_LENT) != 0 &&
                mpl_hvo_group(pool, mpl_pfn(at), size, group);
        *pfn = mpl_pfn(at);
    }
    mpl_spin_unlock(&pool->huge_lock);
    mpl_percpu_unlock(slot);
    return found;
}

/* The group's frames in other blocks; held: only if some lie in this one too. */
static void walk_group(struct survey *survey, const struct mpl_hvo_group *group, bool held)
{
    struct mpl_block *block;
    uint64_t index, nr_pages;
    bool here = !held;

    for (unsigned at = 0; mpl_hvo_piece(survey->pool, group, at, &block, &index, &nr_pages); at++)
        here |= block == survey->block;
    for (unsigned at = 0;
         here && mpl_hvo_piece(survey->pool, group, at, &block, &index, &nr_pages); at++)
        if (block != survey->block && !walk(survey, block, index, nr_pages))
            return; /* it has gone meanwhile, and what was lent in it with it */
}

/* Frames in other blocks have to come back too: those lent by huge pages of this one, and those
 * lent together with some of this one. */
static void walk_lent(struct survey *survey)
{
    struct memplug *pool = survey->pool;
    memplug_pfn_t start[2], end[2];

    start[0] = mpl_block_start(pool, survey->block);
    end[0] = mpl_pfn_add(start[0], pool->layout.nr_pages);
    mpl_hvo_described_by(pool, survey->block, &start[1], &end[1]);
    for (unsigned i = 0; i < 2 * MEMPLUG_NR_HUGE; i++) {
        enum memplug_huge size = (enum memplug_huge)(i / 2);
        memplug_pfn_t pfn = mpl_pfn(start[i % 2].nr & ~(mpl_huge_pages(pool, size) - 1));
        struct mpl_hvo_group group;

        for (; next_lent(pool, end[i % 2], size, &pfn, &group); pfn.nr++)
            if (i % 2 == 0 || pfn.nr >= end[0].nr ||
                pfn.nr + mpl_huge_pages(pool, size) <= start[0].nr) /* else it was the first time */
                walk_group(survey, &group, i % 2 != 0);
    }
}

int memplug_why_each(struct memplug *pool, uint64_t id, memplug_obstacle_t *each, void *context,
                     struct memplug_reason *reason)
{
    struct survey survey = {.pool = pool, .largest = 1, .tell = each, .context = context};
    struct mpl_door door;
    const char *obstacle = NULL;

    mpl_door_open(&door, pool, "offline", NULL, reason);
    door.op.reason->operation = "offline";
    door.op.reason->block = id <= INT64_MAX ? (int64_t)id : -1;
    if (id >= pool->nr_blocks_max)
        return mpl_fail(&door.op, -MPL_ENODEV, "there is no such block", NULL);
    survey.block = mpl_block_at(pool, id);
    if (mpl_block_state(survey.block) == MEMPLUG_BLOCK_ONLINE)
        obstacle = mpl_early_obstacle(pool, survey.block);
    if (obstacle != NULL)
        return mpl_fail(&door.op, -MPL_EINVAL, obstacle, NULL);
    look_at_pools(&survey);
    if (!walk(&survey, survey.block, 0, pool->layout.nr_pages))
        return fail_state(&door.op, survey.block);
    if (pool->hvo != MEMPLUG_HVO_OFF)
        walk_lent(&survey);
    return answer(&door.op, &survey);
}

int memplug_why(struct memplug *pool, uint64_t id, struct memplug_reason *reason)
{
    return memplug_why_each(pool, id, NULL, NULL, reason);
}
