/* SPDX-License-Identifier: MIT */
/*
 * Random boot memory against a model of every frame, then a random life of its blocks and of some
 * that are added: checked after each step, and nothing is left at the end.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "boot_world.h"

#define NR_BLOCKS 16u /* that may be boot memory */
#define BLOCK 256u
#define NR_FRAMES (NR_BLOCKS * BLOCK)
#define NR_NODES 2
#define MAX_RANGES 12u
#define NR_SEEDS 60u
#define NR_STEPS 40u
#define ADDED 18u /* the first of four that are added */

static struct boot_world world;
static uint64_t seed_state;

static uint64_t random_below(uint64_t end)
{
    seed_state ^= seed_state << 13;
    seed_state ^= seed_state >> 7;
    seed_state ^= seed_state << 17;
    return seed_state % end;
}

/* --- what boots ------------------------------------------------------------------------------- */

static struct memplug_boot_memory ranges[MAX_RANGES];
static unsigned nr_ranges;
static uint64_t dma_end, dma32_end; /* frames */
static int8_t owner[NR_FRAMES];     /* the frame's node; -1: it is a hole */

/* Often at the border of a block, where a node may end too. */
static void invent(void)
{
    uint64_t at = random_below(BLOCK);
    int node = 0;

    nr_ranges = 0;
    memset(owner, -1, sizeof(owner));
    while (nr_ranges < MAX_RANGES && at < NR_FRAMES) {
        uint64_t end = at + 1 + random_below(3 * BLOCK);

        if (random_below(2) == 0)
            end = (end + BLOCK - 1) / BLOCK * BLOCK;
        if (end > NR_FRAMES)
            end = NR_FRAMES;
        ranges[nr_ranges++] = (struct memplug_boot_memory){
            .address = at << 12, .size_bytes = (end - at) << 12, .node = node};
        memset(owner + at, node, end - at);
        at = end + (random_below(3) == 0 ? 0 : random_below(BLOCK));
        if (random_below(4) == 0) {
            at = (at + BLOCK - 1) / BLOCK * BLOCK;
            node = 1 - node;
        }
    }
    dma_end = random_below(3) == 0 ? 0 : random_below(NR_FRAMES / 2);
    dma32_end = random_below(3) == 0 ? 0 : dma_end + random_below(NR_FRAMES);
    if (random_below(2) == 0) {
        dma_end = dma_end / BLOCK * BLOCK;
        dma32_end = dma32_end / BLOCK * BLOCK;
    }
}

/* --- the model -------------------------------------------------------------------------------- */

static unsigned kind_of(uint64_t frame)
{
    if (frame < dma_end)
        return MEMPLUG_ZONE_DMA;
    return frame < dma32_end ? MEMPLUG_ZONE_DMA32 : MEMPLUG_ZONE_NORMAL;
}

struct model_zone {
    uint64_t start, end, nr_present;
};

static struct model_zone model_zone(int node, unsigned kind)
{
    struct model_zone zone = {.start = 0};
    uint64_t first = NR_FRAMES, end = 0;

    for (uint64_t frame = 0; frame < NR_FRAMES; frame++) {
        if (owner[frame] != node)
            continue;
        first = first == NR_FRAMES ? frame : first;
        end = frame + 1;
        zone.nr_present += kind_of(frame) == kind;
    }
    for (uint64_t frame = first; frame < end; frame++) {
        if (kind_of(frame) != kind)
            continue;
        zone.start = zone.end == 0 ? frame : zone.start;
        zone.end = frame + 1;
    }
    return zone;
}

static bool model_block(uint64_t id, int *node, uint64_t *nr_absent, unsigned *zone)
{
    bool kinds[MEMPLUG_NR_ZONES] = {false};

    *node = -1;
    *nr_absent = 0;
    for (uint64_t frame = id * BLOCK; frame < (id + 1) * BLOCK; frame++) {
        *node = owner[frame] != -1 ? owner[frame] : *node;
        *nr_absent += owner[frame] == -1;
    }
    if (*node == -1)
        return false;
    for (uint64_t frame = id * BLOCK; frame < (id + 1) * BLOCK; frame++) {
        struct model_zone own = model_zone(*node, kind_of(frame));

        kinds[kind_of(frame)] |=
            frame >= own.start && frame < own.end && own.nr_present != 0;
    }
    *zone = MEMPLUG_NR_ZONES;
    if (kinds[0] + kinds[1] + kinds[2] == 1)
        *zone = kinds[0] ? 0 : kinds[1] ? 1 : 2;
    return true;
}

static void compare_block(uint64_t id)
{
    struct memplug_block_info info;
    uint64_t nr_absent;
    unsigned zone;
    int node;

    if (!model_block(id, &node, &nr_absent, &zone)) {
        assert_int_equal(memplug_block_info(world.pool, id, &info), -ENODEV);
        return;
    }
    assert_int_equal(memplug_block_info(world.pool, id, &info), 0);
    assert_int_equal(info.state, MEMPLUG_BLOCK_ONLINE);
    assert_int_equal(info.node, node);
    assert_int_equal(info.nr_absent_pages, nr_absent);
    assert_int_equal(info.zone, zone);
    for (uint64_t frame = id * BLOCK; frame < (id + 1) * BLOCK; frame++)
        assert_int_equal(memplug_frame_kind(world.pool, (memplug_pfn_t){frame}),
                         owner[frame] == -1           ? MEMPLUG_FRAME_ABSENT
                         : zone == MEMPLUG_NR_ZONES ? MEMPLUG_FRAME_USED
                                                    : MEMPLUG_FRAME_FREE);
}

static void compare(void)
{
    for (int node = 0; node < NR_NODES; node++)
        for (unsigned kind = 0; kind < MEMPLUG_ZONE_MOVABLE; kind++) {
            struct model_zone zone = model_zone(node, kind);
            struct memplug_zone_info info;

            memplug_zone_info(world.pool, node, (enum memplug_zone)kind, &info);
            assert_int_equal(info.start.nr, zone.start);
            assert_int_equal(info.nr_spanned_pages, zone.end - zone.start);
            assert_int_equal(info.nr_present_pages, zone.nr_present);
            assert_int_equal(info.nr_early_pages, zone.nr_present);
        }
    for (uint64_t id = 0; id < NR_BLOCKS; id++)
        compare_block(id);
}

/* --- a life ----------------------------------------------------------------------------------- */

static int veto(void *context, const struct memplug_notice *notice)
{
    (void)context;
    return notice->event == MEMPLUG_GOING_ONLINE || notice->event == MEMPLUG_GOING_OFFLINE
               ? -EPERM
               : 0;
}

/* A failure changes nothing: the spans above all. */
static void refused_is_as_before(uint64_t id, bool is_online)
{
    const struct memplug_subscriber subscriber = {.name = "veto", .notify = veto};
    char *before, *after;

    assert_int_equal(memplug_subscribe(world.pool, &subscriber), 0);
    before = boot_world_text(&world);
    if (is_online)
        assert_int_equal(memplug_offline(world.pool, id, 1, NULL, NULL), -EPERM);
    else
        for (unsigned type = 0; type <= MEMPLUG_ONLINE_MOVABLE; type++)
            assert_int_equal(memplug_online(world.pool, id, 1, (enum memplug_online_type)type,
                                            NULL, NULL), -EPERM);
    after = boot_world_text(&world);
    assert_string_equal(before, after);
    free(before);
    free(after);
    assert_int_equal(memplug_unsubscribe(world.pool, &subscriber), 0);
}

static bool can_go(const struct memplug_block_info *info)
{
    return info->zone != MEMPLUG_NR_ZONES && info->nr_absent_pages == 0;
}

static void add(uint64_t id)
{
    struct memplug_add request = {
        .address = id * world.block_bytes,
        .size_bytes = world.block_bytes,
        .node = (int)random_below(NR_NODES),
        .memmap = random_below(2) == 0 ? MEMPLUG_MEMMAP_BLOCK : MEMPLUG_MEMMAP_HOST,
        .backing = world.more,
        .offset_bytes = id % 4 * world.block_bytes,
    };
    int error = memplug_add(world.pool, &request, NULL, NULL);

    /* The same bytes under another address; a memmap of its own where neighbours share a unit. */
    assert_true(error == 0 || error == -EEXIST ||
                (error == -EBUSY && request.memmap == MEMPLUG_MEMMAP_BLOCK));
}

static void step(void)
{
    uint64_t id = 1 + random_below(ADDED + 3);
    enum memplug_online_type type = (enum memplug_online_type)random_below(3);
    struct memplug_block_info info;

    if (memplug_block_info(world.pool, id, &info) != 0) {
        add(id);
    } else if (info.state == MEMPLUG_BLOCK_ONLINE && !can_go(&info)) {
        assert_int_equal(memplug_offline(world.pool, id, 1, NULL, NULL), -EINVAL);
        assert_int_equal(memplug_why(world.pool, id, NULL), -EINVAL);
    } else if (info.state == MEMPLUG_BLOCK_ONLINE) {
        refused_is_as_before(id, true);
        assert_int_equal(memplug_offline(world.pool, id, 1, NULL, NULL), 0);
    } else if (random_below(3) != 0) {
        refused_is_as_before(id, false);
        assert_int_equal(memplug_online(world.pool, id, 1, type, NULL, NULL), 0);
    } else {
        assert_int_equal(memplug_remove(world.pool, info.address, info.size_bytes, NULL, NULL), 0);
    }
    boot_world_check(&world);
}

/* What was added goes; what was there before is given back by close. */
static void clear(void)
{
    for (uint64_t id = 0; id < ADDED + 4; id++) {
        struct memplug_block_info info;

        if (memplug_block_info(world.pool, id, &info) != 0 || info.early)
            continue;
        if (info.state == MEMPLUG_BLOCK_ONLINE)
            assert_int_equal(memplug_offline(world.pool, id, 1, NULL, NULL), 0);
        assert_int_equal(memplug_remove(world.pool, info.address, info.size_bytes, NULL, NULL), 0);
    }
}

static void random_lives(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);

    (void)state;
    for (unsigned seed = 1; seed <= NR_SEEDS; seed++) {
        geometry.large_shift = seed % 2 == 0 ? 12 : 16; /* 16: four blocks' memmaps */
        seed_state = UINT64_C(0x9e3779b97f4a7c15) * seed;
        invent();
        boot_world_open(&world, &geometry, NR_BLOCKS * MIB, NR_NODES);
        assert_int_equal(boot_world_boot(&world, ranges, nr_ranges, dma_end << 12,
                                         dma32_end << 12, NULL),
                         0);
        boot_world_check(&world);
        compare();
        for (unsigned i = 0; i < NR_STEPS; i++)
            step();
        clear();
        assert_int_equal(memplug_close(world.pool, NULL), 0);
        boot_world_check(&world);
        boot_world_end(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lives),
    };

    return cmocka_run_group_tests_name("boot_random", tests, NULL, NULL);
}
