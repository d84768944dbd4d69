/* SPDX-License-Identifier: MIT */
/*
 * memplug_check() on a pool with one of everything: content, then damaged in one place at a time.
 * Each row breaks one thing and says what the check has to say of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/view/look.h"
#include "../../hosts/fake/fake.h"

/*
 * Block 1 Normal, 2 offline, 3 and 4 Movable (each with its memmap); 5 to 8 Movable, one range; 9
 * and 10 Movable of node 1, 11 Normal of node 1, with memmaps of the host, are group 1; 11's second
 * and third pageblock are kept back by the hook. Group 2 is dynamic and empty, 3 is gone.
 */
struct world {
    struct fake_machine *machine;
    struct memplug *pool;
    memplug_pfn_t raw;    /* in block 1, 4 pages of nobody */
    memplug_pfn_t used;   /* in block 3, 8 pages */
    memplug_pfn_t row;    /* in blocks 5 and 6, 320 pages */
    struct mpl_held *held; /* what a slot holds */
};

static void move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++)
        moves[i].result = -MPL_EBUSY;
}

static int notify(void *context, const struct memplug_notice *notice)
{
    (void)context;
    (void)notice;
    return 0;
}

static const struct memplug_mover mover = {.name = "test", .move = move};
static const struct memplug_subscriber loud = {.name = "loud", .priority = 5, .notify = notify};
static const struct memplug_subscriber calm = {.name = "calm", .priority = 1, .notify = notify};
static const struct memplug_subscriber deaf = {.name = "deaf", .priority = 1};

static const struct memplug_listener mute = {.hear = NULL};

static void keep_two(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    uint64_t index = start.nr % 256;

    if (index < 64 || index >= 192)
        assert_int_equal(memplug_release_pages(context, start, nr_pages), 0);
}

static void add(struct world *world, struct fake_backing *backing, uint64_t first,
                uint64_t nr_blocks, enum memplug_memmap memmap, int node)
{
    struct memplug_add request = {
        .address = first << 20,
        .size_bytes = nr_blocks << 20,
        .memmap = memmap,
        .node = node,
        .group = node == 1 ? 1 : 0,
        .backing = backing,
        .offset_bytes = (first - 1) << 20,
    };

    assert_int_equal(memplug_add(world->pool, &request, NULL, NULL), 0);
}

static void online(struct world *world, uint64_t first, uint64_t nr_blocks,
                   enum memplug_online_type type)
{
    assert_int_equal(memplug_online(world->pool, first, nr_blocks, type, NULL, NULL), 0);
}

static memplug_pfn_t alloc(struct world *world, uint32_t nr_pages, uint8_t number)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .mover = number, .cookie = 7};
    memplug_pfn_t pfn;

    assert_int_equal(memplug_alloc(world->pool, &request, &pfn), 0);
    return pfn;
}

static void register_groups(struct memplug *pool)
{
    const struct memplug_group device = {.node = 1, .nr_pages = 700};
    const struct memplug_group growing = {.dynamic = true, .nr_pages = 512};

    assert_int_equal(memplug_group_register(pool, &device), 1);
    assert_int_equal(memplug_group_register(pool, &growing), 2);
    assert_int_equal(memplug_group_register(pool, &device), 3);
    assert_int_equal(memplug_group_unregister(pool, 3), 0);
}

static void fill(struct world *world)
{
    struct memplug_online_hook hook = {.online_pages = keep_two, .context = world->pool};
    struct fake_backing_spec spec = {.size_bytes = UINT64_C(16) << 20};
    struct fake_backing *backing = fake_backing_open(world->machine, &spec);

    assert_non_null(backing);
    assert_int_equal(memplug_register_mover(world->pool, &mover), 1);
    assert_int_equal(memplug_subscribe(world->pool, &calm), 0);
    assert_int_equal(memplug_subscribe(world->pool, &loud), 0);
    register_groups(world->pool);
    add(world, backing, 1, 4, MEMPLUG_MEMMAP_BLOCK, 0);
    add(world, backing, 5, 4, MEMPLUG_MEMMAP_RANGE, 0);
    add(world, backing, 9, 3, MEMPLUG_MEMMAP_HOST, 1);
    online(world, 1, 1, MEMPLUG_ONLINE_KERNEL);
    online(world, 3, 8, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(memplug_set_online_hook(world->pool, &hook), 0);
    online(world, 11, 1, MEMPLUG_ONLINE_KERNEL);
    world->raw = alloc(world, 4, 0);
    world->used = alloc(world, 8, 1);
    world->row = alloc(world, 320, 1);
    (void)alloc(world, 1, 1);
}

static uint64_t bad_frames[4]; /* of a block, as the host would give them */

static void open_world(struct world *world)
{
    struct fake_config machine = {.geometry = fake_geometry(FAKE_SMALL), .nr_cpus = 4};
    struct memplug_config config = {.nr_nodes = 2};
    uint64_t metadata_bytes;

    *world = (struct world){0};
    memset(bad_frames, 0, sizeof(bad_frames));
    assert_int_equal(fake_open(&machine, &world->machine), 0);
    config.host = fake_host(world->machine);
    metadata_bytes = memplug_metadata_bytes(&config);
    assert_int_equal(memplug_open(&config, fake_metadata(world->machine, metadata_bytes),
                                  metadata_bytes, &world->pool, NULL), 0);
    fill(world);
    for (unsigned i = 0; i < world->pool->nr_slots; i++)
        if (world->pool->slots[i].held[MPL_HELD_MOVABLE].mask != 0)
            world->held = &world->pool->slots[i].held[MPL_HELD_MOVABLE];
    assert_non_null(world->held);
    assert_int_equal(world->raw.nr / 256, 1);
    assert_int_equal(world->used.nr, 3 * 256 + 8);
    assert_int_equal(world->row.nr, 5 * 256 + 64);
}

/* --- handles on the state --------------------------------------------------------------------- */

static struct mpl_block *at(struct world *world, uint64_t block)
{
    return mpl_block_at(world->pool, block);
}

static void flip(struct world *world, uint64_t block, uint64_t bitmap, uint64_t index)
{
    char *bits;

    mpl_frames_own(world->pool, at(world, block));
    bits = at(world, block)->bitmaps + bitmap;
    ((uint64_t *)(void *)bits)[index / 64] ^= (uint64_t)1 << (index % 64);
}

enum bitmap { FREE, HEAD, DESCRIBED };

static void flip_frame(struct world *world, uint64_t block, uint64_t index, enum bitmap bitmap)
{
    mpl_frames_own(world->pool, at(world, block));
    ((uint64_t *)mpl_bits_at(at(world, block), index / 64))[bitmap] ^= (uint64_t)1 << (index % 64);
}

static uint16_t *counter(struct world *world, uint64_t block, uint64_t pageblock)
{
    mpl_frames_own(world->pool, at(world, block));
    return (uint16_t *)(void *)(at(world, block)->bitmaps + world->pool->layout.nr_free) +
           pageblock;
}

/* A bad frame, whatever its state is. */
static void poison(struct world *world, uint64_t block, uint64_t index)
{
    memset(bad_frames, 0, sizeof(bad_frames));
    bad_frames[index / 64] = (uint64_t)1 << (index % 64);
    at(world, block)->poisoned = bad_frames;
    at(world, block)->nr_poisoned = 1;
    world->pool->host_bytes += sizeof(bad_frames);
}

static struct mpl_page *used_page(struct world *world)
{
    return mpl_page_at(world->pool, world->used);
}

static struct mpl_page *kept_page(struct world *world)
{
    return mpl_page_at(world->pool, mpl_pfn(11 * 256 + 64));
}

/* --- damage: row n of a group is done, and its words returned; null behind the last ----------- */

#define ROW(words, damage)                                                                         \
    if (n-- == 0) {                                                                                \
        damage;                                                                                    \
        return words;                                                                              \
    }

static const char *damage_pool(struct world *w, unsigned n)
{
    const char *policy = "the policy has a value that is none";
    struct memplug *pool = w->pool;

    ROW("the number of movers cannot be", pool->nr_movers = 0)
    ROW("the number of movers cannot be", pool->nr_movers = 17)
    ROW("the number of subscribers cannot be", pool->nr_subscribers = 17)
    ROW("a mover cannot move", pool->movers[1].move = NULL)
    ROW("a mover cannot move", pool->nr_movers = 3)
    ROW("a subscriber cannot be notified", pool->subscribers[0] = NULL)
    ROW("a subscriber cannot be notified", pool->subscribers[1] = &deaf)
    ROW("a subscriber cannot be notified", pool->nr_subscribers = 3)
    ROW("the subscribers are not sorted by priority",
        pool->subscribers[0] = &calm; pool->subscribers[1] = &loud)
    ROW("the number of listeners cannot be", pool->nr_listeners = 17)
    ROW("a listener cannot hear", pool->listeners[0] = NULL; pool->nr_listeners = 1)
    ROW("a listener cannot hear", pool->listeners[0] = &mute; pool->nr_listeners = 1)
    ROW("no CPU is on any node, or one is on a node that there is not", pool->cpu_nodes = 0)
    ROW("no CPU is on any node, or one is on a node that there is not", pool->cpu_nodes = 4)
    ROW(policy, pool->policy.online = (enum memplug_online_policy)2)
    ROW(policy, pool->policy.auto_online = (enum memplug_auto_online)4)
    ROW(policy, pool->policy.memmap_on_memory = (enum memplug_memmap_on_memory)3)
    ROW("the number of groups cannot be", pool->nr_groups_touched = 1025)
    ROW("host_bytes is not what the units took from the host", pool->host_bytes++)
    return NULL;
}

static const char *damage_block(struct world *w, unsigned n)
{
    const char *left = "an absent block has left something behind";
    const char *nodes = "the nodes of an ended event are still set";
    const char *counts = "an offline block counts frames";

    ROW(left, at(w, 0)->unit_first = 1)
    ROW(left, at(w, 63)->offset_bytes = 1)
    ROW(left, at(w, 12)->zone = MEMPLUG_NR_ZONES)
    ROW("the block is between two states", at(w, 1)->state = MEMPLUG_BLOCK_ADDING)
    ROW("the block is between two states", at(w, 2)->state = MEMPLUG_BLOCK_GOING_ONLINE)
    ROW("the block is between two states", at(w, 3)->state = MEMPLUG_BLOCK_GOING_OFFLINE)
    ROW("there is no such node", at(w, 3)->node = 2)
    ROW("there is no such node", at(w, 2)->node = -1)
    ROW("there is no such kind of memmap", at(w, 3)->memmap = MEMPLUG_MEMMAP_AUTO)
    ROW("there is no such kind of memmap", at(w, 3)->memmap = MEMPLUG_MEMMAP_HOST + 1)
    ROW("an online block is in no zone", at(w, 1)->zone = MEMPLUG_NR_ZONES)
    ROW("an online block is in no zone", at(w, 2)->state = MEMPLUG_BLOCK_ONLINE)
    ROW("an offline block is in a zone", at(w, 2)->zone = MEMPLUG_ZONE_NORMAL)
    ROW("an offline block is in a zone", at(w, 1)->state = MEMPLUG_BLOCK_OFFLINE)
    ROW("nr_poisoned of the block is not what the bits say", at(w, 8)->nr_poisoned = 1)
    ROW("nr_poisoned of the block is not what the bits say",
        poison(w, 2, 255); at(w, 2)->nr_poisoned = 2)
    ROW("bits are kept for poison that is not there", at(w, 8)->poisoned = bad_frames)
    ROW("an event was announced and not ended", at(w, 7)->announced = true)
    ROW(nodes, at(w, 2)->gains_normal = -1)
    ROW(nodes, at(w, 9)->gains_any = 1)
    ROW("the block is outside of its unit", at(w, 3)->unit_first = 4)
    ROW("the block is outside of its unit", at(w, 3)->unit_first = 2)
    ROW("the block is outside of its unit", at(w, 3)->unit_nr_blocks = 0)
    ROW("the block is outside of its unit", at(w, 8)->unit_nr_blocks = 60)
    ROW("a unit of several blocks has no memmap of the range", at(w, 3)->unit_nr_blocks = 2)
    ROW("a unit of several blocks has no memmap of the range",
        at(w, 6)->memmap = MEMPLUG_MEMMAP_HOST)
    ROW("the block has no bitmaps", at(w, 2)->own_bitmaps = NULL)
    ROW("the block's serial cannot be", at(w, 2)->serial = 0)
    ROW("the block's serial cannot be", at(w, 2)->serial = w->pool->serial + 1)
    ROW(counts, at(w, 2)->nr_free = 1)
    ROW(counts, at(w, 2)->nr_managed = 1)
    ROW(counts, at(w, 2)->nr_isolated = 1)
    return NULL;
}

static const char *damage_unit(struct world *w, unsigned n)
{
    const char *pieces = "the bitmaps of a unit are not in one piece";
    const char *no_memmap = "the frames at the block's head are not the unit's memmap";
    const char *altmap = "the altmap is not that of the unit";

    ROW("the head of the unit is absent", memset(at(w, 5), 0, sizeof(struct mpl_block)))
    ROW("the head of the unit is in another unit",
        at(w, 10)->memmap = MEMPLUG_MEMMAP_RANGE; at(w, 10)->unit_first = 6;
        at(w, 10)->unit_nr_blocks = 5)
    ROW("a block of the unit does not belong to it", at(w, 7)->unit_first = 7)
    ROW("a block of the unit does not belong to it",
        memset(at(w, 8), 0, sizeof(struct mpl_block)))
    ROW("a block does not know its unit's size", at(w, 7)->unit_nr_blocks = 3)
    ROW("the unit is on several nodes", at(w, 8)->node = 1)
    ROW("the unit is in several groups", at(w, 7)->group = 2)
    ROW(pieces, at(w, 6)->bitmaps = at(w, 6)->own_bitmaps += 64)
    ROW(pieces, at(w, 6)->bitmaps_from_host ^= true)
    ROW(no_memmap, at(w, 3)->nr_memmap_pages++)
    ROW(no_memmap, at(w, 6)->nr_memmap_pages = 1)
    ROW(no_memmap, at(w, 9)->nr_memmap_pages = 4)
    ROW("an altmap is not at its unit's head", at(w, 6)->altmap.align = 1)
    ROW("a backing is not at its unit's head", at(w, 6)->backing = w)
    ROW("a backing is not at its unit's head", at(w, 6)->offset_bytes = 1 << 20)
    ROW("a memmap of the host has an altmap", at(w, 9)->altmap.reserve = 1)
    ROW("there is no memmap of its own for the bitmaps", at(w, 9)->bitmaps_from_host = false)
    ROW(altmap, at(w, 3)->altmap.base_pfn++)
    ROW(altmap, at(w, 3)->altmap.end_pfn--)
    ROW(altmap, at(w, 5)->altmap.end_pfn -= 256)
    ROW("the altmap is larger than the unit", at(w, 3)->altmap.free = 257)
    ROW("the altmap is larger than the unit", at(w, 2)->altmap.reserve = 253)
    ROW("the altmap handed out more than it has", at(w, 3)->altmap.alloc = 5)
    ROW("the altmap handed out more than it has", at(w, 3)->altmap.align = 1)
    ROW("the altmap did not hand out the whole memmap", at(w, 5)->altmap.alloc = 15)
    ROW("the altmap keeps more than the memmap", at(w, 3)->altmap.free = 5)
    ROW("the bitmaps are not in the memmap", at(w, 3)->bitmaps = at(w, 3)->own_bitmaps += 64)
    ROW("the bitmaps reach into struct pages that are read", w->pool->layout.bytes = 300)
    return NULL;
}

static const char *damage_group(struct world *w, unsigned n)
{
    const char *pages = "the pages of a group are not those of its online blocks";
    const char *left = "an unused group has left something behind";
    struct mpl_group *groups = w->pool->groups;

    ROW("there is no such group", at(w, 9)->group = 3)
    ROW("there is no such group", at(w, 2)->group = 4)
    ROW("there is no such group", groups[0].used = false)
    ROW("the block is not on its group's node", at(w, 9)->group = 2)
    ROW("the block is not on its group's node", groups[0].node = 0)
    ROW("a group is on no node", groups[1].node = 2)
    ROW("a group has no size", groups[0].nr_pages = 0)
    ROW("the unit of a group cannot be", groups[1].nr_pages = 768)
    ROW("the unit of a group cannot be", groups[1].nr_pages = 128)
    ROW("a group does not count its blocks", groups[0].nr_blocks++)
    ROW("a group does not count its blocks", at(w, 9)->group = 0)
    ROW("a group does not count its blocks", groups[2].nr_blocks = 1)
    ROW(pages, groups[0].nr_kernel -= 256)
    ROW(pages, groups[0].nr_movable -= 4)
    ROW(left, groups[2].node = 1)
    ROW(left, groups[2].nr_pages = 1)
    ROW(left, groups[2].dynamic = true)
    return NULL;
}

static const char *damage_frames(struct world *w, unsigned n)
{
    const struct mpl_layout *layout = &w->pool->layout;
    const char *stray = "there are bits behind the end of the summary or of the isolated "
                        "pageblocks";

    ROW("a frame of the memmap is free", flip_frame(w, 3, 0, FREE))
    ROW("a frame of the memmap is free", flip_frame(w, 5, 15, FREE))
    ROW("the memmap's frames have no head", flip_frame(w, 3, 0, HEAD))
    ROW("there is a head among the memmap's frames", flip_frame(w, 3, 3, HEAD))
    ROW("the memmap's frames are described", flip_frame(w, 3, 0, DESCRIBED))
    ROW("the memmap's frames reach into the data", flip_frame(w, 4, 4, FREE))
    ROW("the first frames of the block belong to nothing", flip_frame(w, 9, 0, FREE))
    ROW("a frame is described that heads nothing", flip_frame(w, 3, 9, DESCRIBED))
    ROW("a frame is described that heads nothing", flip_frame(w, 3, 100, DESCRIBED))
    ROW("a frame is described that heads nothing", flip_frame(w, 3, 3, DESCRIBED))
    ROW("a summary bit is set and its word has nothing to allocate",
        flip(w, 5, layout->summary, 1))
    ROW("a summary bit is set and its word has nothing to allocate",
        flip(w, 8, layout->isolated, 2))
    ROW("a summary bit is missing", flip(w, 8, layout->summary, 3))
    ROW("pages in a Movable zone are not described", flip_frame(w, 3, 8, DESCRIBED))
    ROW("nr_free of a pageblock is not what its frames say", ++*counter(w, 3, 0))
    ROW("nr_free of a pageblock is not what its frames say", --*counter(w, 11, 3))
    ROW("nr_free of a pageblock is not what its frames say", flip_frame(w, 4, 70, HEAD))
    ROW("a pageblock is isolated and nobody takes its block offline",
        flip(w, 8, layout->isolated, 2); flip(w, 8, layout->summary, 2))
    ROW("a poisoned frame is free, or somebody's", poison(w, 8, 70))
    ROW("a poisoned frame is free, or somebody's", poison(w, 3, 8))
    ROW("a poisoned frame is free, or somebody's", poison(w, 3, 9))
    ROW("an isolation is counted and there is none", flip(w, 8, layout->nr_isolations, 17))
    ROW(stray, flip(w, 3, layout->summary, 4))
    ROW(stray, flip(w, 3, layout->isolated, 63))
    ROW(stray, flip(w, 3, layout->whole, 63))
    ROW("the bit of wholly free pageblocks is not what the frames say",
        flip(w, 8, layout->whole, 2))
    ROW("nr_whole of the block is not what its pageblocks say", at(w, 8)->nr_whole++)
    ROW("nr_isolated of the block is not what the bits say", at(w, 3)->nr_isolated = 1)
    ROW("nr_free of the block is not what its pageblocks say", at(w, 3)->nr_free++)
    ROW("nr_managed of the block is not its data less what the online hook kept",
        at(w, 3)->nr_managed += 4)
    ROW("nr_managed of the block is not its data less what the online hook kept",
        at(w, 11)->nr_managed += 128)
    return NULL;
}

static const char *damage_pages(struct world *w, unsigned n)
{
    const char *size = "a struct page has another size than its allocation";
    const char *moved = "a page is being moved and nobody moves it";

    ROW("a described page is in no state", used_page(w)->state = MPL_PAGE_NONE)
    ROW(moved, used_page(w)->state = MPL_PAGE_MOVING)
    ROW(moved, used_page(w)->state = MPL_PAGE_TARGET)
    ROW("a page was freed while it moved and is still there",
        used_page(w)->state = MPL_PAGE_DYING)
    ROW("the state of a page cannot be", used_page(w)->state = MPL_PAGE_POOLED + 1)
    ROW(size, used_page(w)->nr_pages = 4)
    ROW(size, mpl_page_at(w->pool, w->row)->nr_pages = 192)
    ROW(size, flip_frame(w, 6, 0, HEAD))
    ROW(size, flip_frame(w, 6, 128, FREE))
    ROW(size, flip_frame(w, 3, 10, HEAD))
    ROW("a described page has no mover", used_page(w)->mover = 0)
    ROW("a described page has no mover", used_page(w)->mover = 2)
    ROW("a page kept back by the online hook has a mover", kept_page(w)->mover = 1)
    ROW("a page kept back by the online hook is larger than its pageblock",
        flip_frame(w, 11, 128, HEAD); flip_frame(w, 11, 128, DESCRIBED);
        kept_page(w)->nr_pages = 128)
    return NULL;
}

static struct mpl_held *other_slot(struct world *w)
{
    return &w->pool->slots[w->held == &w->pool->slots[0].held[MPL_HELD_MOVABLE]].held[0];
}

static const char *damage_slots(struct world *w, unsigned n)
{
    uint64_t mask = w->held->mask;

    ROW("a slot holds frames of a block that is not online",
        *other_slot(w) = ((struct mpl_held){.mask = 1, .block = 2}))
    ROW("a slot holds frames of a block that is not online", w->held->block = 64)
    ROW("a slot holds frames behind the end of a block", w->held->word = 4)
    ROW("a slot holds a frame that is not held", w->held->block = 8)
    ROW("a slot holds a frame that is not held", w->held->mask = UINT64_MAX)
    ROW("two slots hold the same frame", *other_slot(w) = *w->held)
    ROW("a frame is held and no slot has it", w->held->mask = 0)
    ROW("a frame is held and no slot has it", w->held->mask = mask & (mask - 1))
    return NULL;
}

static const char *damage_zone(struct world *w, unsigned n)
{
    struct mpl_zone *normal = mpl_zone_at(w->pool, 0, MEMPLUG_ZONE_NORMAL);
    struct mpl_zone *movable = mpl_zone_at(w->pool, 0, MEMPLUG_ZONE_MOVABLE);
    struct mpl_zone *empty = mpl_zone_at(w->pool, 1, MEMPLUG_ZONE_DMA);
    const char *span = "the span is not from the first to the last online block of the zone";
    const char *has_free = "has_free of the zone is not what the blocks have";
    const char *has_whole = "has_whole of the zone is not what the blocks have";

    ROW("a zone is not where it belongs", empty->kind = MEMPLUG_ZONE_DMA32)
    ROW("a zone is not where it belongs", empty->node = 0)
    ROW(span, movable->start.nr -= 256; movable->nr_spanned += 256)
    ROW(span, movable->nr_spanned += 256)
    ROW(span, movable->nr_spanned -= 256)
    ROW(span, empty->start.nr = 256)
    ROW("nr_present of the zone is not that of its online blocks", normal->nr_present -= 4)
    ROW("nr_managed of the zone is not the sum of its blocks", movable->nr_managed++)
    ROW("nr_free of the zone is not the sum of its blocks", movable->nr_free--)
    ROW("nr_free of the zone is not the sum of its blocks", empty->nr_free = 1)
    ROW("nr_isolated of the zone is not the sum of its blocks", normal->nr_isolated = 1)
    ROW(has_free, movable->has_free[0] ^= 1u << 8)
    ROW(has_whole, movable->has_whole[0] ^= 1u << 8)
    ROW(has_free, movable->has_free[0] |= 1u << 2)
    ROW(has_free, normal->has_free[MPL_MAX_BLOCKS / 64 - 1] = 1)
    return NULL;
}

static const char *damage_node(struct world *w, unsigned n)
{
    ROW("nr_blocks of the node is not how many it has", w->pool->nodes[0].nr_blocks++)
    ROW("nr_blocks of the node is not how many it has", w->pool->nodes[1].nr_blocks = 0)
    return NULL;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void run(const char *(*damage)(struct world *world, unsigned n), const char *step)
{
    for (unsigned n = 0;; n++) {
        struct memplug_reason reason;
        struct world world;
        const char *why;
        int error;

        open_world(&world);
        assert_int_equal(memplug_check(world.pool, &reason), 0);
        why = damage(&world, n);
        error = memplug_check(world.pool, &reason);
        (void)fake_close(world.machine, NULL, 0);
        if (!why)
            break;
        assert_int_equal(error, -MPL_EUCLEAN);
        assert_string_equal(reason.why, why);
        assert_non_null(strstr(reason.step, step));
    }
}

static void whole(void **state)
{
    struct memplug_reason reason;
    struct world world;
    char text[200];

    (void)state;
    open_world(&world);
    if (memplug_check(world.pool, &reason) != 0) {
        (void)memplug_reason_text(&reason, text, sizeof(text));
        print_error("%s\n", text);
    }
    assert_int_equal(memplug_check(world.pool, NULL), 0);
    mpl_percpu_drain(world.pool);
    assert_int_equal(memplug_check(world.pool, NULL), 0);
    (void)fake_close(world.machine, NULL, 0);
}

static void where(void **state)
{
    struct memplug_reason reason;
    struct world world;

    (void)state;
    open_world(&world);
    used_page(&world)->mover = 0;
    assert_int_equal(memplug_check(world.pool, &reason), -MPL_EUCLEAN);
    assert_int_equal(reason.error, -MPL_EUCLEAN);
    assert_string_equal(reason.operation, "check");
    assert_int_equal(reason.block, 3);
    assert_int_equal(reason.pfn.nr, world.used.nr);
    (void)fake_close(world.machine, NULL, 0);
}

static void pool(void **state)
{
    (void)state;
    run(damage_pool, "pool");
}

static void block(void **state)
{
    (void)state;
    run(damage_block, "block");
}

static void unit(void **state)
{
    (void)state;
    run(damage_unit, "unit");
}

static void group(void **state)
{
    (void)state;
    run(damage_group, "group");
}

static void frames(void **state)
{
    (void)state;
    run(damage_frames, "frames");
}

static void pages(void **state)
{
    (void)state;
    run(damage_pages, "frames");
}

static void slots(void **state)
{
    (void)state;
    run(damage_slots, "slots");
}

static void zone(void **state)
{
    (void)state;
    run(damage_zone, "zone");
}

static void node(void **state)
{
    (void)state;
    run(damage_node, "node");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole),  cmocka_unit_test(where), cmocka_unit_test(pool),
        cmocka_unit_test(block),  cmocka_unit_test(unit),  cmocka_unit_test(frames),
        cmocka_unit_test(group),
        cmocka_unit_test(pages),  cmocka_unit_test(slots), cmocka_unit_test(zone),
        cmocka_unit_test(node),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
