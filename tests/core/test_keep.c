/* SPDX-License-Identifier: MIT */
/*
 * A driver takes frames of an online block out of the allocator and gives them back. Whoever uses
 * them moves; the frames become chunks of a pageblock at most, each with the driver's reference.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/state/state.h"
#include "two_ranges.h"

static int keep(uint64_t id, uint64_t index, uint64_t nr_pages)
{
    return memplug_keep_pages(world.pool, frame(id, index), nr_pages, NULL, &reason);
}

/* Each pageblock's part of the span is one chunk with one pin. */
static void is_kept(uint64_t id, uint64_t index, uint64_t nr_pages)
{
    const struct mpl_block *block = mpl_block_at(world.pool, id);
    uint64_t end = index + nr_pages;

    for (uint64_t i = index; i < end; i++) {
        uint64_t first = i & ~(pageblock_pages() - 1), last = first + pageblock_pages();
        uint64_t chunk_first, chunk_end;

        assert_true(mpl_frames_kept_at(world.pool, block, i, &chunk_first, &chunk_end));
        assert_int_equal(memplug_frame_kind(world.pool, frame(id, i)), MEMPLUG_FRAME_KEPT);
        assert_int_equal(chunk_first, first < index ? index : first);
        assert_int_equal(chunk_end, last > end ? end : last);
        assert_int_equal(mpl_page_pins(mpl_page_at(world.pool, frame(id, chunk_first))), 1);
    }
}

static void release(uint64_t id, uint64_t index, uint64_t nr_pages)
{
    uint64_t end = index + nr_pages, next;

    for (; index < end; index = next) {
        next = (index & ~(pageblock_pages() - 1)) + pageblock_pages();
        next = next > end ? end : next;
        must(memplug_release_pages(world.pool, frame(id, index), (uint32_t)(next - index)));
    }
}

static void there_and_back(uint64_t id, uint64_t index, uint64_t nr_pages)
{
    struct memplug_alloc one = {.nr_pages = 1, .mover = (uint8_t)world.mover};
    char *before = world_text(&world, true);
    uint64_t nr_managed = stat_of().nr_managed_pages, nr_of_block = info_of(id).nr_managed_pages;

    must(keep(id, index, nr_pages));
    is_kept(id, index, nr_pages);
    world_check(&world);
    assert_int_equal(stat_of().nr_managed_pages, nr_managed - nr_pages);
    assert_int_equal(info_of(id).nr_managed_pages, nr_of_block - nr_pages);
    assert_int_equal(info_of(id).nr_isolated_pageblocks, 0);
    assert_int_equal(memplug_alloc_exact(world.pool, frame(id, index), &one), -EBUSY);
    assert_int_equal(memplug_free(world.pool, frame(id, index), 1), -EINVAL);
    release(id, index, nr_pages);
    must(memplug_alloc_exact(world.pool, frame(id, index), &one));
    must(memplug_free(world.pool, frame(id, index), 1));
    world_same(&world, before, true);
}

/* --- there and back --------------------------------------------------------------------------- */

static void spans_of(enum fake_shape shape, enum memplug_memmap memmap)
{
    uint64_t middle, end;

    open_world(shape, memmap, MEMPLUG_ONLINE_MOVABLE);
    middle = pageblock_pages();
    end = block_pages();
    for (uint64_t id = A; id < A + NR; id++) {
        uint64_t nr_memmap = info_of(id).nr_memmap_pages;

        if (nr_memmap >= middle)
            continue; /* of a range: nearly all memmap */
        owner_free_all(world.owner);
        world_fill(&world, A, NR, 60);
        there_and_back(id, nr_memmap, 1);
        there_and_back(id, middle - 3, 7);
        there_and_back(id, middle, middle);
        there_and_back(id, middle / 2, end - middle);
        there_and_back(id, nr_memmap, end - nr_memmap);
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
    spans_of(FAKE_64K, MEMPLUG_MEMMAP_HOST);
    spans_of(FAKE_X86, MEMPLUG_MEMMAP_HOST);
}

/* Every start and length around the border of two pageblocks. */
static void around_a_border(void **state)
{
    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, 1, 60);
    for (uint64_t index = 62; index < 67; index++)
        for (uint64_t nr_pages = 1; nr_pages < 6; nr_pages++) {
            there_and_back(A, index, nr_pages);
            world_fill(&world, A, 1, 60);
        }
    world_close(&world);
}

/* Kept in pieces, given back in others. */
static void pieces(void **state)
{
    char *before;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    before = world_text(&world, false);
    must(keep(A, 64, 10));
    must(keep(A, 74, 10));
    must(keep(A, 84, 44));
    must(memplug_release_pages(world.pool, frame(A, 70), 30));
    must(keep(A, 80, 10));
    is_kept(A, 80, 10);
    release(A, 64, 6);
    release(A, 100, 28);
    release(A, 80, 10);
    world_same(&world, before, false);
    world_close(&world);
}

/* The block cannot go while the driver has its reference; then it can, as after a hook. */
static void offline_with_kept_pages(void **state)
{
    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, 1, 30);
    must(keep(A, 60, 70));
    WORLD_REFUSES(&world, &reason, EBUSY, "logically offline",
                  memplug_offline(world.pool, A, 1, NULL, &reason), true);
    assert_int_equal(reason.pfn.nr, frame(A, 60).nr);
    must(memplug_unpin(world.pool, frame(A, 60)));
    must(memplug_unpin(world.pool, frame(A, 64)));
    must(memplug_unpin(world.pool, frame(A, 128)));
    must(memplug_offline(world.pool, A, 1, NULL, NULL));
    world_check(&world);
    world_close(&world);
}

/* --- refusals --------------------------------------------------------------------------------- */

#define REFUSED(error, word, call) WORLD_REFUSES(&world, &reason, error, word, call, false)

static void refusals(void **state)
{
    struct memplug_alloc raw = {.nr_pages = 4, .node = MEMPLUG_ANY_NODE};
    uint64_t end;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_KERNEL);
    end = block_pages();
    must(keep(A, 200, 8));
    must(memplug_offline(world.pool, A + 1, 1, NULL, NULL));
    must(memplug_alloc_exact(world.pool, frame(A, 100), &raw));
    REFUSED(ENODEV, "no such block", keep(1, 0, 1));
    REFUSED(ENODEV, "no such block", keep(UINT64_MAX / end, 0, 1));
    REFUSED(EINVAL, "not online", keep(A + 1, 10, 1));
    REFUSED(EINVAL, "not of one block", keep(A, 10, 0));
    REFUSED(EINVAL, "not of one block", keep(A, end - 1, 2));
    REFUSED(EINVAL, "not of one block", keep(A, 10, UINT64_MAX));
    REFUSED(EINVAL, "memmap", keep(A, 0, 10));
    REFUSED(EINVAL, "memmap", keep(A, info_of(A).nr_memmap_pages - 1, 1));
    for (uint64_t index = 199; index < 208; index++) {
        REFUSED(EINVAL, "logically offline already", keep(A, index, 2));
        assert_int_equal(reason.pfn.nr, frame(A, index < 200 ? 200 : index).nr);
    }
    REFUSED(EBUSY, "nobody can move", keep(A, 103, 20));
    assert_int_equal(reason.pfn.nr, frame(A, 100).nr);
    must(memplug_free(world.pool, frame(A, 100), 4));
    there_and_back(A, 103, 20);
    release(A, 200, 8);
    world_close(&world);
}

static void no_room(void **state)
{
    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    assert_true(owner_fill(world.owner) > 6 * 200);
    REFUSED(ENOMEM, "no room", keep(A, 100, 3));
    world_close(&world);
}

static int from_inside(void *context, const struct memplug_notice *notice)
{
    (void)notice;
    *(int *)context = memplug_keep_pages(world.pool, frame(A, 100), 3, NULL, NULL);
    return 0;
}

static void not_from_inside(void **state)
{
    int answer = 0;
    struct memplug_subscriber subscriber = {.name = "inside", .notify = from_inside,
                                            .context = &answer};

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    must(memplug_subscribe(world.pool, &subscriber));
    must(memplug_offline(world.pool, A + 1, 1, NULL, NULL));
    assert_int_equal(answer, -EDEADLK);
    must(memplug_unsubscribe(world.pool, &subscriber));
    world_close(&world);
}

/* --- limits and faults ------------------------------------------------------------------------ */

static bool strike(enum fault_limit_kind kind, bool forever, uint64_t k)
{
    struct fault_limit limit;
    char *before;
    bool struck;
    int error;

    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_RANGE, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, NR, 60);
    before = world_text(&world, true);
    fault_limit_init(&limit, kind, k, world.fault);
    fault_arm(world.fault, kind == FAULT_LIMIT_COUNT ? k : 0, forever, 0);
    error = memplug_keep_pages(world.pool, frame(A + 1, 3), 150, &limit.limit, &reason);
    fault_disarm(world.fault);
    struck = kind == FAULT_LIMIT_COUNT ? fault_fired(world.fault) != 0 : limit.nr_checks >= k;
    if (error != 0) {
        assert_true(struck && reason.error == error && reason.why != NULL);
        world_same(&world, before, true);
        must(keep(A + 1, 3, 150));
    } else {
        assert_true(!struck || kind == FAULT_LIMIT_COUNT);
        is_kept(A + 1, 3, 150);
        free(before);
    }
    release(A + 1, 3, 150);
    world_check(&world);
    world_close(&world);
    return struck;
}

static void every_point(void **state)
{
    static const enum fault_limit_kind kinds[] = {FAULT_LIMIT_COUNT, FAULT_LIMIT_COUNT,
                                                  FAULT_LIMIT_STOP, FAULT_LIMIT_DEADLINE};

    (void)state;
    for (unsigned way = 0; way < 4; way++) {
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
        cmocka_unit_test(spans),           cmocka_unit_test(around_a_border),
        cmocka_unit_test(pieces),          cmocka_unit_test(offline_with_kept_pages),
        cmocka_unit_test(refusals),        cmocka_unit_test(no_room),
        cmocka_unit_test(not_from_inside), cmocka_unit_test(every_point),
    };

    return cmocka_run_group_tests_name("keep", tests, NULL, NULL);
}
