/* SPDX-License-Identifier: MIT */
#include "../door.h"
#include "../state/early.h"
#include "check.h"

#define NR_ROWS(rules) (sizeof(rules) / sizeof((rules)[0]))

int mpl_check_rules(struct memplug_reason *reason, const struct mpl_where *where,
                    const struct mpl_rule *rules, unsigned nr_rules)
{
    for (unsigned i = 0; i < nr_rules; i++) {
        if (!rules[i].broken)
            continue;
        reason->error = -MPL_EUCLEAN;
        reason->operation = "check";
        reason->step = where->step;
        reason->why = rules[i].why;
        reason->block = where->block;
        reason->node = where->node;
        reason->pfn = mpl_pfn(where->pfn);
        return -MPL_EUCLEAN;
    }
    return 0;
}

static struct mpl_where at_block(const char *step, const struct memplug *pool,
                                 const struct mpl_block *block)
{
    return (struct mpl_where){step, (int64_t)mpl_block_id(pool, block), -1, MPL_NO_PFN};
}

static bool is_zero(const void *memory, size_t size_bytes)
{
    const unsigned char *bytes = memory;

    for (size_t i = 0; i < size_bytes; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

/* --- the pool --------------------------------------------------------------------------------- */

/* A memmap of the host's. A shared unit counts once, with the first block that holds it. */
static uint64_t memmap_bytes_of(const struct memplug *pool, const struct mpl_block *block)
{
    uint64_t unit_bytes = mpl_share_unit_bytes(&pool->geometry);
    uint64_t begin = mpl_memmap_bytes(&pool->geometry, mpl_block_start(pool, block).nr);
    uint64_t size_bytes = mpl_memmap_bytes(&pool->geometry, mpl_block_pages(&pool->geometry));
    uint64_t bytes = size_bytes;

    for (unsigned at = 0; at < MPL_NR_ENDS; at++) {
        uint64_t offset, low, high;

        if (!block->shares[at] ||
            !mpl_share_at(pool, mpl_block_id(pool, block), (enum mpl_end)at, &offset))
            continue;
        low = begin > offset ? begin : offset;
        high = begin + size_bytes < offset + unit_bytes ? begin + size_bytes : offset + unit_bytes;
        bytes -= high - low;
        if (mpl_share_holder(pool, offset) == block)
            bytes += unit_bytes;
    }
    return bytes;
}

/* What the host gave for this unit: its memmap, its bitmaps. */
static uint64_t host_bytes_of(const struct memplug *pool, const struct mpl_block *unit)
{
    uint64_t bytes = 0;

    if (unit->memmap == MEMPLUG_MEMMAP_HOST)
        bytes += memmap_bytes_of(pool, unit);
    if (unit->bitmaps_from_host)
        bytes += unit->unit_nr_blocks * pool->layout.bytes;
    for (uint64_t i = 0; i < unit->unit_nr_blocks; i++)
        bytes += unit[i].poisoned ? mpl_poison_bytes(pool) : 0;
    return bytes;
}

static int check_callees(const struct memplug *pool, struct memplug_reason *reason)
{
    struct mpl_where where = {"pool", -1, -1, MPL_NO_PFN};
    unsigned nr_movers = atomic_load_explicit(&pool->nr_movers, memory_order_acquire);
    const struct mpl_rule numbers[] = {
        {nr_movers < 1 || nr_movers > MPL_MAX_MOVERS, "the number of movers cannot be"},
        {pool->nr_subscribers > MPL_MAX_SUBSCRIBERS, "the number of subscribers cannot be"},
        {pool->nr_listeners > MPL_MAX_LISTENERS, "the number of listeners cannot be"},
        {pool->cpu_nodes == 0 || pool->cpu_nodes > UINT64_MAX >> (MPL_MAX_NODES - pool->nr_nodes),
         "no CPU is on any node, or one is on a node that there is not"},
    };
    int error = mpl_check_rules(reason, &where, numbers, NR_ROWS(numbers));

    for (unsigned i = 1; i < nr_movers && error == 0; i++) {
        const struct mpl_rule rule = {!pool->movers[i].move, "a mover cannot move"};

        error = mpl_check_rules(reason, &where, &rule, 1);
    }
    for (unsigned i = 0; i < pool->nr_subscribers && error == 0; i++) {
        const struct memplug_subscriber *const *subscriber = &pool->subscribers[i];
        bool missing = !subscriber[0] || !subscriber[0]->notify;
        const struct mpl_rule rules[] = {
            {missing, "a subscriber cannot be notified"},
            {!missing && i > 0 && subscriber[-1]->priority < subscriber[0]->priority,
             "the subscribers are not sorted by priority"},
        };

        error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
    }
    for (unsigned i = 0; i < pool->nr_listeners && error == 0; i++) {
        const struct mpl_rule rule = {!pool->listeners[i] || !pool->listeners[i]->hear,
                                      "a listener cannot hear"};

        error = mpl_check_rules(reason, &where, &rule, 1);
    }
    return error;
}

/* After the units: they are what it is made of. */
static int check_host_bytes(const struct memplug *pool, struct memplug_reason *reason)
{
    struct mpl_where where = {"pool", -1, -1, MPL_NO_PFN};
    struct mpl_rule rule = {false, "host_bytes is not what the units took from the host"};
    uint64_t host_bytes = 0, nr_lent = 0;
    int error = mpl_check_lent(pool, &nr_lent, reason);

    if (error != 0)
        return error;
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);

        if (mpl_block_state(block) != MEMPLUG_BLOCK_ABSENT && block->unit_first == id)
            host_bytes += host_bytes_of(pool, block);
    }
    host_bytes += pool->boot.nr_memory * sizeof(*pool->boot.memory);
    host_bytes -= mpl_bytes_of_pages(&pool->geometry, nr_lent);
    rule.broken = pool->host_bytes != host_bytes;
    return mpl_check_rules(reason, &where, &rule, 1);
}

/* --- blocks and units ------------------------------------------------------------------------- */

static int check_absent(const struct memplug *pool, const struct mpl_block *block,
                        struct memplug_reason *reason)
{
    struct mpl_where where = at_block("block", pool, block);
    const struct mpl_rule rule = {!is_zero(block, sizeof(*block)),
                                  "an absent block has left something behind"};

    return mpl_check_rules(reason, &where, &rule, 1);
}

static int check_block(const struct memplug *pool, const struct mpl_block *block,
                       struct memplug_reason *reason)
{
    struct mpl_where where = at_block("block", pool, block);
    enum memplug_block_state state = mpl_block_state(block);
    bool online = state == MEMPLUG_BLOCK_ONLINE;
    uint64_t id = mpl_block_id(pool, block);
    uint64_t unit_end = (uint64_t)block->unit_first + block->unit_nr_blocks;
    bool own = block->memmap == MEMPLUG_MEMMAP_BLOCK || block->memmap == MEMPLUG_MEMMAP_RANGE;
    bool several = mpl_early_several(pool, block);
    const struct mpl_rule rules[] = {
        {!online && state != MEMPLUG_BLOCK_OFFLINE, "the block is between two states"},
        {!mpl_node_valid(pool, block->node), "there is no such node"},
        {!own && block->memmap != MEMPLUG_MEMMAP_HOST, "there is no such kind of memmap"},
        {online && !several && block->zone >= MEMPLUG_NR_ZONES, "an online block is in no zone"},
        {several && block->zone != MEMPLUG_NR_ZONES, "a block of several zones is in one"},
        {block->early && mpl_early_node(pool, id) != block->node,
         "boot memory is where there was none, or on another node"},
        {block->early && own, "boot memory has a memmap of its own"},
        {block->nr_absent !=
             (block->early ? pool->layout.nr_pages - mpl_early_pages(pool, id) : 0),
         "nr_absent of the block is not what the boot memory lacks"},
        {!online && mpl_early_obstacle(pool, block), "a block that cannot go offline is offline"},
        {!online && block->zone != MEMPLUG_NR_ZONES, "an offline block is in a zone"},
        {block->announced, "an event was announced and not ended"},
        {block->gains_normal != 0 || block->gains_any != 0,
         "the nodes of an ended event are still set"},
        {id < block->unit_first || id >= unit_end || unit_end > pool->nr_blocks_max,
         "the block is outside of its unit"},
        {block->memmap != MEMPLUG_MEMMAP_RANGE && block->unit_nr_blocks != 1,
         "a unit of several blocks has no memmap of the range"},
        {!block->own_bitmaps, "the block has no bitmaps"},
        {online && block->bitmaps != block->own_bitmaps && !several &&
             !mpl_is_pattern(pool, block->bitmaps),
         "the bitmaps that are believed are not the block's"},
        {block->serial == 0 || block->serial > pool->serial, "the block's serial cannot be"},
        {mpl_check_nr_poisoned(pool, block) != block->nr_poisoned,
         "nr_poisoned of the block is not what the bits say"},
        {block->poisoned && block->nr_poisoned == 0, "bits are kept for poison that is not there"},
        {!online && (block->nr_free | block->nr_managed | block->nr_isolated) != 0,
         "an offline block counts frames"},
        {block->withholds || (!online && (block->nr_pooled[0] | block->nr_pooled[1]) != 0),
         "a block has huge pages that cannot be"},
    };

    return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
}

/* Whoever reaches into a shared unit is mapped through it, and has a memmap of the host's. */
static int check_shares(const struct memplug *pool, const struct mpl_block *block,
                        struct memplug_reason *reason)
{
    struct mpl_where where = at_block("memmap", pool, block);
    int error = 0;

    for (unsigned at = 0; at < MPL_NR_ENDS && error == 0; at++) {
        uint64_t offset;
        bool can = mpl_share_at(pool, mpl_block_id(pool, block), (enum mpl_end)at, &offset);
        const struct mpl_rule rules[] = {
            {block->shares[at] && block->memmap != MEMPLUG_MEMMAP_HOST,
             "a memmap of its own shares a large unit"},
            {block->shares[at] && !can, "a large unit is shared where none can be"},
            {can && !block->shares[at] && mpl_share_holder(pool, offset) != NULL,
             "the block does not share the large unit that lies over its memmap"},
        };

        error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
    }
    return error;
}

/* Frames of the unit's memmap that stand at the head of its block i. */
static uint64_t memmap_pages(const struct memplug *pool, const struct mpl_block *unit, uint64_t i)
{
    uint64_t block_pages = mpl_block_pages(&pool->geometry);
    uint64_t nr_pages = mpl_altmap_offset(&unit->altmap);

    nr_pages = nr_pages > i * block_pages ? nr_pages - i * block_pages : 0;
    return nr_pages < block_pages ? nr_pages : block_pages;
}

/* A block against the head of its unit, which may be itself. */
static int check_member(const struct memplug *pool, const struct mpl_block *block,
                        struct memplug_reason *reason)
{
    struct mpl_where where = at_block("unit", pool, block);
    const struct mpl_block *unit = mpl_unit_head(pool, block);
    uint64_t i = (uint64_t)(block - unit);
    const struct mpl_altmap *altmap = &block->altmap;
    const struct mpl_rule rules[] = {
        {mpl_block_state(unit) == MEMPLUG_BLOCK_ABSENT, "the head of the unit is absent"},
        {unit->unit_first != block->unit_first, "the head of the unit is in another unit"},
        {unit->unit_nr_blocks != block->unit_nr_blocks, "a block does not know its unit's size"},
        {unit->node != block->node, "the unit is on several nodes"},
        {unit->group != block->group, "the unit is in several groups"},
        {unit->bitmaps_from_host != block->bitmaps_from_host ||
             (uintptr_t)block->own_bitmaps != (uintptr_t)unit->own_bitmaps + i * pool->layout.bytes,
         "the bitmaps of a unit are not in one piece"},
        {block->nr_memmap_pages != memmap_pages(pool, unit, i),
         "the frames at the block's head are not the unit's memmap"},
        {i > 0 && !is_zero(altmap, sizeof(*altmap)), "an altmap is not at its unit's head"},
        {i > 0 && (block->backing || block->offset_bytes != 0),
         "a backing is not at its unit's head"},
    };

    return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
}

static int check_altmap(const struct memplug *pool, const struct mpl_block *unit,
                        struct memplug_reason *reason)
{
    struct mpl_where where = at_block("unit", pool, unit);
    const struct memplug_geometry *geometry = &pool->geometry;
    const struct mpl_altmap *altmap = &unit->altmap;
    uint64_t start = mpl_block_start(pool, unit).nr;
    uint64_t nr_pages = unit->unit_nr_blocks * mpl_block_pages(geometry);
    uint64_t nr_frames = mpl_pages_of_bytes(geometry, mpl_memmap_bytes(geometry, nr_pages));
    uint64_t nr_padded = mpl_round_up(nr_frames, mpl_pageblock_pages(geometry));
    const struct mpl_rule rules[] = {
        {altmap->base_pfn != start || altmap->end_pfn != start + nr_pages,
         "the altmap is not that of the unit"},
        {altmap->reserve > nr_pages || altmap->free > nr_pages - altmap->reserve,
         "the altmap is larger than the unit"},
        {altmap->alloc + altmap->align > altmap->free, "the altmap handed out more than it has"},
        {altmap->alloc != nr_frames, "the altmap did not hand out the whole memmap"},
        {altmap->free != nr_frames + altmap->align && altmap->free != nr_padded,
         "the altmap keeps more than the memmap"},
        {!unit->bitmaps_from_host && pool->layout.lent != 0,
         "the bitmaps lie in struct pages that lent frames need"},
        {!unit->bitmaps_from_host &&
             unit->own_bitmaps != (const char *)mpl_page_at(pool, mpl_pfn(start)),
         "the bitmaps are not in the memmap"},
        {!unit->bitmaps_from_host && pool->layout.bytes * unit->unit_nr_blocks >
                                         mpl_memmap_bytes(geometry, altmap->alloc),
         "the bitmaps reach into struct pages that are read"},
    };

    return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
}

static int check_unit(const struct memplug *pool, const struct mpl_block *unit,
                      struct memplug_reason *reason)
{
    struct mpl_where where = at_block("unit", pool, unit);
    const struct mpl_rule no_altmap[] = {
        {!is_zero(&unit->altmap, sizeof(unit->altmap)), "a memmap of the host has an altmap"},
        {!unit->bitmaps_from_host, "there is no memmap of its own for the bitmaps"},
    };

    for (uint64_t i = 0; i < unit->unit_nr_blocks; i++) {
        const struct mpl_rule rule = {unit[i].unit_first != unit->unit_first ||
                                          mpl_block_state(&unit[i]) == MEMPLUG_BLOCK_ABSENT,
                                      "a block of the unit does not belong to it"};
        int error = mpl_check_rules(reason, &where, &rule, 1);

        if (error != 0)
            return error;
    }
    if (unit->memmap == MEMPLUG_MEMMAP_HOST)
        return mpl_check_rules(reason, &where, no_altmap, NR_ROWS(no_altmap));
    return check_altmap(pool, unit, reason);
}

static int check_blocks(const struct memplug *pool, struct memplug_reason *reason)
{
    int error = 0;

    for (uint64_t id = 0; id < pool->nr_blocks_max && error == 0; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);

        if (mpl_block_state(block) == MEMPLUG_BLOCK_ABSENT) {
            error = check_absent(pool, block, reason);
            continue;
        }
        error = check_block(pool, block, reason);
        if (error == 0 && block->unit_first == id)
            error = check_unit(pool, block, reason);
        if (error == 0)
            error = check_member(pool, block, reason);
        if (error == 0)
            error = check_shares(pool, block, reason);
    }
    return error;
}

static int check_online(struct memplug *pool, struct memplug_reason *reason)
{
    int error = 0;

    for (uint64_t id = 0; id < pool->nr_blocks_max && error == 0; id++)
        if (mpl_block_state(mpl_block_at(pool, id)) == MEMPLUG_BLOCK_ONLINE)
            error = mpl_check_frames(pool, mpl_block_at(pool, id), reason);
    return error;
}

/* --- zones and nodes -------------------------------------------------------------------------- */

/* What this block gives the zone. */
static void recount_block(const struct memplug *pool, const struct mpl_zone *zone,
                          const struct mpl_block *block, struct mpl_zone *sum)
{
    uint64_t id = mpl_block_id(pool, block), nr_pages;

    if (mpl_block_state(block) != MEMPLUG_BLOCK_ONLINE || block->node != zone->node)
        return;
    if (block->zone == MEMPLUG_NR_ZONES)
        nr_pages = mpl_early_pages_in(pool, id, zone->kind);
    else if (block->zone == zone->kind)
        nr_pages = mpl_block_present_pages(pool, block);
    else
        return;
    sum->nr_present += nr_pages;
    sum->nr_early += block->early ? nr_pages : 0;
    if (block->zone == MEMPLUG_NR_ZONES)
        return;
    if (block->nr_absent == 0)
        mpl_zone_grow((struct memplug *)pool, sum, mpl_block_start(pool, block),
                      mpl_block_pages(&pool->geometry));
    sum->nr_managed += block->nr_managed;
    sum->nr_isolated += block->nr_isolated;
    sum->nr_free += mpl_look_count(block, 0, pool->layout.nr_pages, MPL_LOOK_FREE);
    if (mpl_check_has_free(pool, block))
        sum->has_free[id / 64] |= (uint64_t)1 << (id % 64);
    if (block->nr_whole != 0)
        sum->has_whole[id / 64] |= (uint64_t)1 << (id % 64);
}

/* A zone as its blocks make it, and what boot memory spans for ever; the blocks were checked. */
static void recount(const struct memplug *pool, const struct mpl_zone *zone, struct mpl_zone *sum)
{
    uint64_t end;

    MPL_FILL(sum, 0, sizeof(*sum));
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
        recount_block(pool, zone, mpl_block_at(pool, id), sum);
    mpl_early_fixed(pool, zone->node, zone->kind, &sum->fixed_start, &sum->fixed_end);
    if (zone->fixed_end == 0 && sum->fixed_start == sum->fixed_end)
        sum->fixed_start = sum->fixed_end = 0; /* it was a mere end, and the zone empty since */
    if (sum->fixed_end == 0)
        return;
    end = sum->start.nr + sum->nr_spanned;
    if (sum->nr_spanned == 0 || sum->fixed_start < sum->start.nr)
        sum->start = mpl_pfn(sum->fixed_start);
    sum->nr_spanned = (end > sum->fixed_end ? end : sum->fixed_end) - sum->start.nr;
    if (sum->nr_spanned == 0)
        sum->start = mpl_pfn(0);
}

static int check_zone(struct memplug *pool, int node, unsigned kind, struct memplug_reason *reason)
{
    static const char *const steps[] = {"zone DMA", "zone DMA32", "zone Normal", "zone Movable"};
    struct mpl_where where = {steps[kind], -1, node, MPL_NO_PFN};
    struct mpl_zone *zone = mpl_zone_at(pool, node, kind);
    struct mpl_zone sum;

    recount(pool, zone, &sum);
    mpl_spin_lock(pool, &zone->lock);
    {
        const struct mpl_rule rules[] = {
            {zone->kind != kind || zone->node != node, "a zone is not where it belongs"},
            {zone->start.nr != sum.start.nr || zone->nr_spanned != sum.nr_spanned,
             "the span is not from the first to the last online block of the zone"},
            {zone->fixed_start != sum.fixed_start || zone->fixed_end != sum.fixed_end,
             "what is fixed of the span is not what boot memory says"},
            {zone->nr_present != sum.nr_present,
             "nr_present of the zone is not that of its online blocks"},
            {zone->nr_early != sum.nr_early,
             "nr_early of the zone is not that of its boot memory"},
            {zone->nr_managed != sum.nr_managed,
             "nr_managed of the zone is not the sum of its blocks"},
            {zone->nr_free != sum.nr_free, "nr_free of the zone is not the sum of its blocks"},
            {zone->nr_isolated != sum.nr_isolated,
             "nr_isolated of the zone is not the sum of its blocks"},
            {__builtin_memcmp(zone->has_free, sum.has_free, sizeof(sum.has_free)) != 0,
             "has_free of the zone is not what the blocks have"},
            {__builtin_memcmp(zone->has_whole, sum.has_whole, sizeof(sum.has_whole)) != 0,
             "has_whole of the zone is not what the blocks have"},
        };
        int error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));

        mpl_spin_unlock(&zone->lock);
        return error;
    }
}

static int check_node(const struct memplug *pool, int node, struct memplug_reason *reason)
{
    struct mpl_where where = {"node", -1, node, MPL_NO_PFN};
    struct mpl_rule rule = {false, "nr_blocks of the node is not how many it has"};
    uint64_t nr_blocks = 0;

    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);

        nr_blocks += mpl_block_state(block) != MEMPLUG_BLOCK_ABSENT && block->node == node;
    }
    rule.broken = pool->nodes[node].nr_blocks != nr_blocks;
    return mpl_check_rules(reason, &where, &rule, 1);
}

static int check_zones(struct memplug *pool, struct memplug_reason *reason)
{
    int error = 0;

    for (int node = 0; node < (int)pool->nr_nodes && error == 0; node++)
        error = check_node(pool, node, reason);
    for (int node = 0; node < (int)pool->nr_nodes; node++)
        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES && error == 0; kind++)
            error = check_zone(pool, node, kind, reason);
    return error;
}

static int check_patterns(const struct memplug *pool, struct memplug_reason *reason)
{
    struct mpl_where where = {"pool", -1, -1, MPL_NO_PFN};
    const struct mpl_rule rule = {!mpl_pattern_intact(pool), "a pattern of bitmaps has changed"};

    return mpl_check_rules(reason, &where, &rule, 1);
}

static int check_all(struct memplug *pool, struct memplug_reason *reason)
{
    int error = check_callees(pool, reason);

    if (error == 0)
        error = check_blocks(pool, reason);
    if (error == 0)
        error = mpl_check_policy(pool, reason);
    if (error == 0)
        error = check_online(pool, reason);
    if (error == 0)
        error = mpl_check_huge(pool, reason);
    if (error == 0)
        error = check_host_bytes(pool, reason);
    if (error == 0)
        error = mpl_check_slots(pool, reason);
    if (error == 0)
        error = check_patterns(pool, reason);
    return error != 0 ? error : check_zones(pool, reason);
}

int memplug_check(struct memplug *pool, struct memplug_reason *reason)
{
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "check", NULL, reason);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    return mpl_door_unlock(&door.op, check_all(pool, door.op.reason));
}
