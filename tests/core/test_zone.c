/* SPDX-License-Identifier: MIT */
/*
 * Spans of zones by enumeration: whatever blocks enter and leave in whatever order, a zone spans
 * from its first block to its last one, holes included, and nothing if it has none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "state/state.h"
#include "toy_host.h"

#define NR_BLOCKS 6u
#define FIRST 3u /* of these blocks */
#define REFUSED (-1) /* what the subscriber of this test answers: -EPERM */

/* The zones that the enumeration uses: two kinds of one node, and a second node. */
#define NR_ZONES 3u
static const struct {
    int node;
    unsigned kind;
} zones[NR_ZONES] = {
    {0, MEMPLUG_ZONE_NORMAL},
    {0, MEMPLUG_ZONE_MOVABLE},
    {1, MEMPLUG_ZONE_NORMAL},
};

static struct mpl_zone *zone_of(struct toy_host *toy, unsigned zone)
{
    return mpl_zone_at(toy->pool, zones[zone].node, zones[zone].kind);
}

/* What each zone has: a bit per block. */
struct model {
    uint32_t has[NR_ZONES];
};

static void expect_spans(struct toy_host *toy, const struct model *model)
{
    uint64_t block_pages = mpl_block_pages(&toy->pool->geometry);

    for (unsigned zone = 0; zone < NR_ZONES; zone++) {
        uint64_t start = 0, end = 0;

        for (unsigned i = NR_BLOCKS; i-- > 0;)
            if ((model->has[zone] >> i & 1) != 0)
                start = (FIRST + i) * block_pages;
        for (unsigned i = 0; i < NR_BLOCKS; i++)
            if ((model->has[zone] >> i & 1) != 0)
                end = (FIRST + i + 1) * block_pages;
        assert_int_equal(zone_of(toy, zone)->start.nr, start);
        assert_int_equal(zone_of(toy, zone)->nr_spanned, end - start);
    }
}

/* As the row "zone" of online, and its undo, which is also how offline lets a block leave. */
static void enter(struct toy_host *toy, struct model *model, unsigned i, unsigned zone,
                  enum memplug_block_state block_state)
{
    struct mpl_block *block = &toy->pool->blocks[FIRST + i];

    block->node = (int16_t)zones[zone].node;
    block->zone = (uint8_t)zones[zone].kind;
    block->state = (uint8_t)block_state;
    model->has[zone] |= UINT32_C(1) << i;
    mpl_zone_grow(toy->pool, zone_of(toy, zone), mpl_block_start(toy->pool, block),
                  mpl_block_pages(&toy->pool->geometry));
}

static void leave(struct toy_host *toy, struct model *model, unsigned i, unsigned zone)
{
    struct mpl_block *block = &toy->pool->blocks[FIRST + i];

    block->zone = MEMPLUG_NR_ZONES;
    model->has[zone] &= ~(UINT32_C(1) << i);
    mpl_zone_shrink(toy->pool, zone_of(toy, zone), mpl_block_start(toy->pool, block),
                    mpl_block_pages(&toy->pool->geometry));
    block->state = MEMPLUG_BLOCK_OFFLINE;
}

static unsigned nr_in(const struct model *model)
{
    unsigned nr = 0;

    for (unsigned zone = 0; zone < NR_ZONES; zone++)
        nr += MPL_POPCOUNT64(model->has[zone]);
    return nr;
}

/* The zone that block i is in, or NR_ZONES. */
static unsigned where(const struct model *model, unsigned i)
{
    unsigned zone = 0;

    while (zone < NR_ZONES && (model->has[zone] >> i & 1) == 0)
        zone++;
    return zone;
}

/* All sequences of blocks that enter a zone or leave theirs. Each step is taken back afterwards,
 * so every way back is seen as well. */
static void all_sequences(struct toy_host *toy, struct model *model, unsigned nr_zones,
                          unsigned depth)
{
    expect_spans(toy, model);
    for (unsigned i = 0; depth != 0 && i < NR_BLOCKS; i++) {
        unsigned zone = where(model, i);

        if (zone != NR_ZONES) {
            leave(toy, model, i, zone);
            all_sequences(toy, model, nr_zones, depth - 1);
            enter(toy, model, i, zone, MEMPLUG_BLOCK_ONLINE);
            expect_spans(toy, model);
            continue;
        }
        for (zone = 0; nr_in(model) < 4 && zone < nr_zones; zone++) {
            enter(toy, model, i, zone, MEMPLUG_BLOCK_ONLINE);
            all_sequences(toy, model, nr_zones, depth - 1);
            leave(toy, model, i, zone);
            expect_spans(toy, model);
        }
    }
}

static void open_pool(struct toy_host *toy)
{
    struct memplug_geometry g = toy_geometry();

    toy_open(toy, &g, 2, NULL);
    for (unsigned id = 0; id < toy->pool->nr_blocks_max; id++) {
        toy->pool->blocks[id].state = MEMPLUG_BLOCK_OFFLINE;
        toy->pool->blocks[id].zone = MEMPLUG_NR_ZONES;
    }
}

static void test_one_zone_spans_from_its_first_to_its_last_block(void **state)
{
    struct model model = {{0}};
    struct toy_host toy;

    (void)state;
    open_pool(&toy);
    all_sequences(&toy, &model, 1, 8);
    toy_abandon(&toy);
}

static void test_zones_that_overlap_do_not_see_each_other(void **state)
{
    struct model model = {{0}};
    struct toy_host toy;

    (void)state;
    open_pool(&toy);
    all_sequences(&toy, &model, NR_ZONES, 5);
    toy_abandon(&toy);
}

/* For every set of blocks that is there: an operation on every other span of blocks enters block
 * by block and is rolled back, last first, from every point. */
static void test_rollback_of_several_blocks_leaves_the_spans_as_they_were(void **state)
{
    struct toy_host toy;

    (void)state;
    open_pool(&toy);
    for (uint32_t present = 0; present < UINT32_C(1) << NR_BLOCKS; present++)
        for (unsigned zone = 0; zone < 2; zone++)
            for (unsigned first = 0; first < NR_BLOCKS; first++) {
                struct model model = {{0}};
                unsigned end = first;

                for (unsigned i = 0; i < NR_BLOCKS; i++)
                    if ((present >> i & 1) != 0)
                        enter(&toy, &model, i, i % 2, MEMPLUG_BLOCK_ONLINE);
                for (; end < NR_BLOCKS && (present >> end & 1) == 0; end++) {
                    enter(&toy, &model, end, zone, MEMPLUG_BLOCK_GOING_ONLINE);
                    expect_spans(&toy, &model);
                }
                while (end-- > first) {
                    leave(&toy, &model, end, zone);
                    expect_spans(&toy, &model);
                }
                for (unsigned i = 0; i < NR_BLOCKS; i++)
                    if ((present >> i & 1) != 0)
                        leave(&toy, &model, i, i % 2);
                expect_spans(&toy, &model);
            }
    toy_abandon(&toy);
}

/* Leaving of several: those that have not left yet are GOING_OFFLINE and still count. */
static void test_blocks_that_leave_together_count_until_they_leave(void **state)
{
    struct toy_host toy;

    (void)state;
    open_pool(&toy);
    for (unsigned first = 0; first < NR_BLOCKS; first++)
        for (unsigned end = first + 1; end <= NR_BLOCKS; end++) {
            struct model model = {{0}};

            for (unsigned i = 0; i < NR_BLOCKS; i++)
                enter(&toy, &model, i, 0,
                      i >= first && i < end ? MEMPLUG_BLOCK_GOING_OFFLINE : MEMPLUG_BLOCK_ONLINE);
            for (unsigned i = first; i < end; i++) {
                leave(&toy, &model, i, 0);
                expect_spans(&toy, &model);
            }
            for (unsigned i = 0; i < NR_BLOCKS; i++)
                if (where(&model, i) == 0)
                    leave(&toy, &model, i, 0);
        }
    toy_abandon(&toy);
}

static void test_nothing_changes_for_no_pages(void **state)
{
    struct model model = {{0}};
    struct toy_host toy;

    (void)state;
    open_pool(&toy);
    mpl_zone_grow(toy.pool, zone_of(&toy, 0), mpl_pfn(512), 0);
    mpl_zone_shrink(toy.pool, zone_of(&toy, 0), mpl_pfn(512), 256);
    expect_spans(&toy, &model);
    enter(&toy, &model, 2, 0, MEMPLUG_BLOCK_ONLINE);
    mpl_zone_shrink(toy.pool, zone_of(&toy, 0), zone_of(&toy, 0)->start, 0);
    expect_spans(&toy, &model);
    toy_abandon(&toy);
}

/* --- through the whole way in and out --------------------------------------------------------- */

static void expect_zone_info(struct toy_host *toy, const struct model *model, unsigned zone)
{
    struct memplug_zone_info info;
    uint64_t block_pages = mpl_block_pages(&toy->pool->geometry);

    assert_int_equal(memplug_zone_info(toy->pool, zones[zone].node,
                                       (enum memplug_zone)zones[zone].kind, &info),
                     0);
    assert_int_equal(info.start.nr, zone_of(toy, zone)->start.nr);
    assert_int_equal(info.nr_spanned_pages, zone_of(toy, zone)->nr_spanned);
    assert_int_equal(info.nr_present_pages, MPL_POPCOUNT64(model->has[zone]) * block_pages);
    assert_int_equal(info.nr_managed_pages, info.nr_present_pages);
    assert_int_equal(info.nr_free_pages, info.nr_present_pages);
    assert_int_equal(info.nr_isolated_pageblocks, 0);
}

static int refuse(void *context, const struct memplug_notice *notice)
{
    const uint64_t *at_pfn = context;

    if (notice->event != MEMPLUG_GOING_ONLINE && notice->event != MEMPLUG_GOING_OFFLINE)
        return 0;
    return notice->start.nr == *at_pfn ? REFUSED : 0;
}

/* Every span of blocks that all can be flipped, refused at its last block and then carried out. */
static void flip(struct toy_host *toy, struct model *model, uint64_t *veto_pfn, unsigned first,
                 unsigned end)
{
    bool in = where(model, first) == 0;
    uint64_t nr_blocks = end - first;

    for (unsigned i = first; i < end; i++)
        if ((where(model, i) == 0) != in)
            return;
    for (unsigned pass = 0; pass < 2; pass++) {
        int error;

        *veto_pfn = pass == 0 ? mpl_block_start(toy->pool, &toy->pool->blocks[FIRST + end - 1]).nr
                              : MPL_NO_PFN;
        error = in ? memplug_offline(toy->pool, FIRST + first, nr_blocks, NULL, NULL)
                   : memplug_online(toy->pool, FIRST + first, nr_blocks, MEMPLUG_ONLINE_KERNEL,
                                    NULL, NULL);
        assert_int_equal(error, pass == 0 ? REFUSED : 0);
        for (unsigned i = first; pass == 1 && i < end; i++)
            model->has[0] ^= UINT32_C(1) << i;
        expect_spans(toy, model);
        expect_zone_info(toy, model, 0);
    }
}

static void test_operations_and_their_rollback_keep_the_spans(void **state)
{
    struct memplug_geometry g = toy_geometry();
    uint64_t veto_pfn = MPL_NO_PFN;
    struct memplug_subscriber subscriber = {.name = "veto", .notify = refuse, .context = &veto_pfn};
    struct model model = {{0}};
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 2, NULL);
    assert_int_equal(toy_add(&toy, FIRST, NR_BLOCKS, MEMPLUG_MEMMAP_HOST, 0), 0);
    assert_int_equal(memplug_subscribe(toy.pool, &subscriber), 0);
    for (unsigned round = 0; round < 40; round++)
        for (unsigned first = 0; first < NR_BLOCKS; first++)
            flip(&toy, &model, &veto_pfn, first, first + 1 + (round + first) % (NR_BLOCKS - first));
    for (unsigned i = 0; i < NR_BLOCKS; i++)
        if (where(&model, i) == 0)
            flip(&toy, &model, &veto_pfn, i, i + 1);
    assert_int_equal(memplug_unsubscribe(toy.pool, &subscriber), 0);
    assert_int_equal(memplug_remove(toy.pool, FIRST * mpl_block_bytes(&g),
                                    NR_BLOCKS * mpl_block_bytes(&g), NULL, NULL),
                     0);
    toy_close(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_zone_spans_from_its_first_to_its_last_block),
        cmocka_unit_test(test_zones_that_overlap_do_not_see_each_other),
        cmocka_unit_test(test_rollback_of_several_blocks_leaves_the_spans_as_they_were),
        cmocka_unit_test(test_blocks_that_leave_together_count_until_they_leave),
        cmocka_unit_test(test_nothing_changes_for_no_pages),
        cmocka_unit_test(test_operations_and_their_rollback_keep_the_spans),
    };

    return cmocka_run_group_tests_name("zone", tests, NULL, NULL);
}
