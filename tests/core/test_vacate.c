/* SPDX-License-Identifier: MIT */
/*
 * A span of frames is made free and kept from the allocator: whatever overlaps it moves as a
 * whole, what is beside it stays, and a failure leaves what was there before.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/door.h"
#include "../../core/steps.h"
#include "two_ranges.h"

/* --- the primitive behind a door -------------------------------------------------------------- */

static int vacate_within(uint64_t id, uint64_t index, uint64_t nr_pages,
                         const struct memplug_limit *limit)
{
    struct mpl_door door;
    int error;

    mpl_door_open(&door, world.pool, "vacate", limit, &reason);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    error = mpl_vacate(&door.op, mpl_block_at(world.pool, id), index, nr_pages);
    return mpl_door_unlock(&door.op, error);
}

static int vacate(uint64_t id, uint64_t index, uint64_t nr_pages)
{
    return vacate_within(id, index, nr_pages, NULL);
}

static void undo(uint64_t id, uint64_t index, uint64_t nr_pages)
{
    mpl_vacate_undo(world.pool, mpl_block_at(world.pool, id), index, nr_pages);
}

/* All of the span is free, its pageblocks are isolated, and nobody gets a frame of it. */
static void is_vacated(uint64_t id, uint64_t index, uint64_t nr_pages)
{
    struct memplug_alloc one = {.nr_pages = 1, .mover = (uint8_t)world.mover};
    struct mpl_block *block = mpl_block_at(world.pool, id);

    for (uint64_t i = index; i < index + nr_pages; i++) {
        assert_int_equal(mpl_frame_get(world.pool, block, i), MPL_FRAME_FREE);
        assert_true(mpl_isolated(world.pool, block, i));
    }
    assert_int_equal(memplug_alloc_exact(world.pool, frame(id, index), &one), -EBUSY);
    assert_int_equal(owner_verify_all(world.owner, NULL), 0);
}

/* Vacated and given back, nothing but the places of pages has changed. */
static void there_and_back(uint64_t id, uint64_t index, uint64_t nr_pages)
{
    char *before = world_text(&world, true);

    must(vacate(id, index, nr_pages));
    is_vacated(id, index, nr_pages);
    undo(id, index, nr_pages);
    world_same(&world, before, true);
}

/* --- spans ------------------------------------------------------------------------------------ */

static void spans_of(enum fake_shape shape, enum memplug_memmap memmap)
{
    uint64_t pageblock, first, end, nr_moved;

    open_world(shape, memmap, MEMPLUG_ONLINE_MOVABLE);
    pageblock = UINT64_C(1) << world.geometry.pageblock_order;
    end = block_pages();
    for (uint64_t id = A; id < A + NR; id++) {
        const uint64_t spans[][2] = {
            {info_of(id).nr_memmap_pages, 1},
            {info_of(id).nr_memmap_pages + 1, 5},
            {info_of(id).nr_memmap_pages + 3, 64},
            {end / 2, 1},
            {end / 2 - 1, 2},
            {end / 2 - pageblock / 2, pageblock},
            {end - pageblock, pageblock},
            {end - 1, 1},
            {info_of(id).nr_memmap_pages, end - info_of(id).nr_memmap_pages},
        };

        first = info_of(id).nr_memmap_pages;
        for (unsigned i = 0; i < sizeof(spans) / sizeof(spans[0]) && first < end; i++) {
            owner_free_all(world.owner);
            world_fill(&world, A, NR, 60);
            nr_moved = stat_of().nr_moved_pages;
            there_and_back(id, spans[i][0], spans[i][1]);
            if (spans[i][0] == first)
                assert_true(stat_of().nr_moved_pages > nr_moved);
        }
    }
    world_close(&world);
}

static void spans(void **state)
{
    (void)state;
    spans_of(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK);
    spans_of(FAKE_SMALL, MEMPLUG_MEMMAP_RANGE);
    spans_of(FAKE_SMALL, MEMPLUG_MEMMAP_HOST);
    spans_of(FAKE_16K, MEMPLUG_MEMMAP_BLOCK);
    spans_of(FAKE_64K, MEMPLUG_MEMMAP_RANGE);
    spans_of(FAKE_X86, MEMPLUG_MEMMAP_BLOCK);
}

/* Frames that are free stay where they are, to the last bit. */
static void free_stays_free(void **state)
{
    char *before;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, 1, 20);
    before = world_text(&world, false);
    must(vacate(A, 180, 70));
    is_vacated(A, 180, 70);
    undo(A, 180, 70);
    world_same(&world, before, false);
    world_close(&world);
}

/* Exactly the allocations that overlap move: 16 pages at `at` and their neighbours. */
static void overlap(uint64_t at, uint64_t nr_pages, uint64_t index, uint64_t nr_span)
{
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};
    unsigned slots[3];
    memplug_pfn_t pfn, before = frame(A, at - 1), own = frame(A, at),
                       behind = frame(A, at + nr_pages);
    bool overlaps = index < at + nr_pages && index + nr_span > at;

    request.nr_pages = 1;
    must(owner_alloc_request(world.owner, &request, &before, &slots[0]));
    request.nr_pages = (uint32_t)nr_pages;
    must(owner_alloc_request(world.owner, &request, &own, &slots[1]));
    request.nr_pages = 1;
    must(owner_alloc_request(world.owner, &request, &behind, &slots[2]));
    there_and_back(A, index, nr_span);
    must(owner_where(world.owner, slots[0], &pfn, NULL));
    assert_int_equal(pfn.nr != before.nr, before.nr - frame(A, 0).nr >= index &&
                                              before.nr - frame(A, 0).nr < index + nr_span);
    must(owner_where(world.owner, slots[1], &pfn, NULL));
    assert_int_equal(pfn.nr != own.nr, overlaps);
    must(owner_where(world.owner, slots[2], &pfn, NULL));
    assert_int_equal(pfn.nr != behind.nr, behind.nr - frame(A, 0).nr >= index &&
                                              behind.nr - frame(A, 0).nr < index + nr_span);
    must(owner_free_all(world.owner));
}

static void what_overlaps_moves(void **state)
{
    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    for (uint64_t index = 54; index < 84; index++)
        for (uint64_t nr_span = 1; nr_span < 32; nr_span += 5)
            overlap(60, 16, index, nr_span); /* over the end of a pageblock */
    world_close(&world);
}

/* An allocation of several blocks moves when one frame of it is in the way. */
static void begins_in_an_earlier_block(void **state)
{
    struct memplug_alloc request = {.nr_pages = 640, .node = MEMPLUG_ANY_NODE};
    static const uint64_t at[][2] = {{A, 200}, {A + 1, 0}, {A + 1, 255}, {A + 2, 0}, {A + 2, 127}};
    memplug_pfn_t pfn;
    unsigned slot;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_HOST, MEMPLUG_ONLINE_MOVABLE);
    for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        must(owner_alloc_request(world.owner, &request, NULL, &slot));
        must(owner_where(world.owner, slot, &pfn, NULL));
        assert_int_equal(pfn.nr, frame(A, 0).nr);
        there_and_back(at[i][0], at[i][1], 1);
        must(owner_where(world.owner, slot, &pfn, NULL));
        assert_true(pfn.nr >= frame(B, 0).nr);
        must(owner_free(world.owner, slot));
    }
    world_close(&world);
}

/* What slots hold of the span comes back. */
static void slots_are_drained(void **state)
{
    unsigned slot;
    memplug_pfn_t pfn;
    uint64_t index;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    must(owner_alloc(world.owner, 1, &slot));
    must(owner_where(world.owner, slot, &pfn, NULL));
    index = pfn.nr - frame(A, 0).nr;
    assert_int_equal(mpl_frame_get(world.pool, mpl_block_at(world.pool, A), index + 5),
                     MPL_FRAME_HELD);
    must(vacate(A, index + 5, 3));
    is_vacated(A, index + 5, 3);
    undo(A, index + 5, 3);
    must(vacate(A, index, 2));
    is_vacated(A, index, 2);
    must(owner_where(world.owner, slot, &pfn, NULL));
    assert_true(pfn.nr > frame(A, index).nr + 1);
    undo(A, index, 2);
    world_check(&world);
    world_close(&world);
}

/* --- spans that meet -------------------------------------------------------------------------- */

/* Three spans in one pageblock end in any order; the pageblock is isolated until the last. */
static void isolations_nest(void **state)
{
    static const unsigned orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                         {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    static const uint64_t at[] = {70, 71, 100};

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, 1, 50);
    for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        struct memplug_block_info info;
        char *before = world_text(&world, true);

        for (unsigned j = 0; j < 3; j++)
            must(vacate(A, at[j], 1));
        for (unsigned j = 0; j < 3; j++) {
            must(memplug_block_info(world.pool, A, &info));
            assert_int_equal(info.nr_isolated_pageblocks, 1);
            for (unsigned k = j; k < 3; k++)
                is_vacated(A, at[orders[i][k]], 1);
            undo(A, at[orders[i][j]], 1);
        }
        world_same(&world, before, true);
    }
    world_close(&world);
}

/* --- what cannot be vacated ------------------------------------------------------------------- */

#define REFUSED(error, word, id, index, nr_pages)                                                  \
    WORLD_REFUSES(&world, &reason, error, word, vacate(id, index, nr_pages), false)

static void in_the_way(uint64_t id, uint64_t index)
{
    assert_int_equal(reason.pfn.nr, frame(id, index).nr);
    assert_int_equal(reason.block, id);
}

static void unmovable(void **state)
{
    struct memplug_alloc raw = {.nr_pages = 4, .node = MEMPLUG_ANY_NODE};

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_KERNEL);
    must(memplug_alloc_exact(world.pool, frame(A, 62), &raw));
    for (uint64_t index = 62; index < 66; index++) {
        REFUSED(EBUSY, "nobody can move", A, index, 1);
        in_the_way(A, 62);
    }
    REFUSED(EBUSY, "nobody can move", A, 4, 200);
    there_and_back(A, 61, 1);
    there_and_back(A, 66, 10);
    REFUSED(EBUSY, "holds the memmap", A, 0, 1);
    in_the_way(A, 0);
    REFUSED(EBUSY, "holds the memmap", A, info_of(A).nr_memmap_pages - 1, 2);
    must(memplug_free(world.pool, frame(A, 62), 4));
    world_close(&world);
}

static void pinned_and_held(void **state)
{
    struct memplug_alloc request = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn = frame(A, 80);
    unsigned slot;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    must(owner_alloc_request(world.owner, &request, &pfn, &slot));
    must(memplug_pin(world.pool, pfn));
    REFUSED(EBUSY, "pinned", A, 81, 1);
    in_the_way(A, 80);
    must(memplug_unpin(world.pool, pfn));
    must(owner_hold(world.owner, slot, true));
    REFUSED(EBUSY, "cannot move it now", A, 81, 1);
    in_the_way(A, 80);
    assert_string_equal(reason.owner, "owner");
    must(owner_hold(world.owner, slot, false));
    there_and_back(A, 81, 1);
    world_close(&world);
}

static void no_room(void **state)
{
    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    assert_true(owner_fill(world.owner) > 6 * 200);
    WORLD_REFUSES(&world, &reason, ENOMEM, "no room", vacate(A, 100, 3), false);
    in_the_way(A, 100);
    world_close(&world);
}

/* --- limits and faults ------------------------------------------------------------------------ */

static bool strike(enum fault_limit_kind kind, bool forever, uint64_t k)
{
    struct fault_limit limit;
    uint64_t nr_moved;
    char *before, *before_moved;
    bool struck;
    int error;

    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_RANGE, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, NR, 60);
    before = world_text(&world, false);
    before_moved = world_text(&world, true);
    nr_moved = stat_of().nr_moved_pages;
    fault_limit_init(&limit, kind, k, world.fault);
    fault_arm(world.fault, kind == FAULT_LIMIT_COUNT ? k : 0, forever, 0);
    error = vacate_within(A + 1, 3, 150, &limit.limit);
    fault_disarm(world.fault);
    struck = kind == FAULT_LIMIT_COUNT ? fault_fired(world.fault) != 0 : limit.nr_checks >= k;
    if (error != 0) {
        assert_true(struck);
        assert_int_equal(reason.error, error);
        assert_non_null(reason.why);
        if (stat_of().nr_moved_pages == nr_moved)
            world_same(&world, before, false);
        else
            free(before);
        world_same(&world, before_moved, true);
        there_and_back(A + 1, 3, 150);
    } else {
        assert_true(!struck || kind == FAULT_LIMIT_COUNT); /* a page is tried again */
        undo(A + 1, 3, 150);
        free(before);
        world_same(&world, before_moved, true);
    }
    world_close(&world);
    return struck;
}

static void every_point(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 4; way++) {
        static const enum fault_limit_kind kinds[] = {FAULT_LIMIT_COUNT, FAULT_LIMIT_COUNT,
                                                      FAULT_LIMIT_STOP, FAULT_LIMIT_DEADLINE};
        uint64_t k = 1;

        while (strike(kinds[way], way == 1, k))
            k++;
        assert_true(k > 3);
        print_message("way %u: %u points\n", way, (unsigned)k - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans),           cmocka_unit_test(free_stays_free),
        cmocka_unit_test(what_overlaps_moves), cmocka_unit_test(begins_in_an_earlier_block),
        cmocka_unit_test(slots_are_drained), cmocka_unit_test(isolations_nest),
        cmocka_unit_test(unmovable),       cmocka_unit_test(pinned_and_held),
        cmocka_unit_test(no_room),         cmocka_unit_test(every_point),
    };

    return cmocka_run_group_tests_name("vacate", tests, NULL, NULL);
}
