/* SPDX-License-Identifier: MIT */
/*
 * Bad frames: taken from whoever has them, never handed out again, no obstacle for offline, and
 * remembered until their range is removed. The counts are the kernel's (linux semantics, 11).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/poison.h>

#include "two_ranges.h"

#define REFUSED(error, word, call) WORLD_REFUSES(&world, &reason, error, word, call, false)

static int soft(uint64_t id, uint64_t index)
{
    return memplug_soft_offline(world.pool, frame(id, index), NULL, &reason);
}

static int hard(uint64_t id, uint64_t index)
{
    return memplug_hard_offline(world.pool, frame(id, index), NULL, &reason);
}

static unsigned own(uint64_t id, uint64_t index, uint32_t nr_pages)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn = frame(id, index);
    unsigned slot;

    must(owner_alloc_request(world.owner, &request, &pfn, &slot));
    return slot;
}

/* Nobody gets the frame, whatever he says of it. */
static void is_out(uint64_t id, uint64_t index)
{
    struct memplug_alloc one = {.nr_pages = 1, .mover = (uint8_t)world.mover};
    memplug_pfn_t pfn = frame(id, index);

    assert_int_equal(memplug_frame_kind(world.pool, pfn), MEMPLUG_FRAME_POISONED);
    assert_int_equal(memplug_alloc_exact(world.pool, pfn, &one), -EBUSY);
    assert_int_equal(memplug_free(world.pool, pfn, 1), -EINVAL);
    assert_int_equal(memplug_free(world.pool, pfn, 2), -EINVAL);
    assert_int_equal(memplug_pin(world.pool, pfn), -EINVAL);
    assert_int_equal(memplug_unpin(world.pool, pfn), -EINVAL);
    assert_int_equal(memplug_set_cookie(world.pool, pfn, 1), -EINVAL);
    assert_int_equal(memplug_release_pages(world.pool, pfn, 1), -EINVAL);
}

static uint64_t nr_events;

static int count_events(void *context, const struct memplug_notice *notice)
{
    (void)context;
    (void)notice;
    nr_events++;
    return 0;
}

/* --- the life of a bad frame ------------------------------------------------------------------ */

/* As the kernel does it: add, online, poison, offline, online is refused, remove, add, online. */
static void life_of(enum fake_shape shape, enum memplug_memmap memmap,
                    int (*poison)(uint64_t id, uint64_t index))
{
    struct memplug_subscriber subscriber = {.name = "counter", .notify = count_events};
    struct memplug_stat fresh, online, poisoned;
    uint64_t index;

    open_world(shape, memmap, MEMPLUG_ONLINE_MOVABLE);
    fresh = online = stat_of();
    index = block_pages() / 2 + 3;
    must(poison(A + 1, index));
    poisoned = stat_of();
    assert_int_equal(poisoned.nr_poisoned_pages, 1);
    assert_int_equal(info_of(A + 1).nr_poisoned_pages, 1);
    assert_int_equal(poisoned.nr_managed_pages, online.nr_managed_pages);
    assert_int_equal(poisoned.nr_present_pages, online.nr_present_pages);
    assert_int_equal(poisoned.host_bytes, online.host_bytes + block_pages() / 8);
    is_out(A + 1, index);
    world_check(&world);
    must(memplug_why(world.pool, A + 1, &reason));
    online = stat_of();
    must(memplug_offline(world.pool, A + 1, 1, NULL, NULL));
    assert_int_equal(stat_of().nr_managed_pages, online.nr_managed_pages - block_pages() +
                                                     info_of(A + 1).nr_memmap_pages);
    assert_int_equal(stat_of().nr_present_pages, online.nr_present_pages - block_pages());
    assert_int_equal(stat_of().nr_poisoned_pages, 1);
    assert_int_equal(info_of(A + 1).nr_poisoned_pages, 1);
    must(memplug_subscribe(world.pool, &subscriber));
    nr_events = 0;
    REFUSED(EHWPOISON, "poisoned", memplug_online(world.pool, A + 1, 1, MEMPLUG_ONLINE_MOVABLE,
                                                  NULL, &reason));
    assert_int_equal(reason.pfn.nr, frame(A + 1, index).nr);
    assert_int_equal(reason.block, A + 1);
    assert_int_equal(nr_events, 0);
    must(memplug_unsubscribe(world.pool, &subscriber));
    must(memplug_offline(world.pool, A, 1, NULL, NULL));
    REFUSED(EHWPOISON, "poisoned", memplug_online(world.pool, A, 2, MEMPLUG_ONLINE_MOVABLE, NULL,
                                                  &reason));
    assert_int_equal(info_of(A).state, MEMPLUG_BLOCK_OFFLINE);
    must(memplug_offline(world.pool, A + 2, 2, NULL, NULL));
    must(memplug_remove(world.pool, A * world.block_bytes, NR * world.block_bytes, NULL, NULL));
    assert_int_equal(stat_of().nr_poisoned_pages, 0);
    must(world_add(&world, world.backing_a, A, memmap, NULL, NULL));
    must(memplug_online(world.pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    assert_int_equal(stat_of().host_bytes, fresh.host_bytes);
    assert_int_equal(stat_of().nr_managed_pages, fresh.nr_managed_pages);
    assert_int_equal(info_of(A + 1).nr_poisoned_pages, 0);
    must(owner_free(world.owner, own(A + 1, index, 1)));
    world_check(&world);
    world_close(&world);
}

static void life(void **state)
{
    (void)state;
    life_of(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, soft);
    life_of(FAKE_SMALL, MEMPLUG_MEMMAP_RANGE, hard);
    life_of(FAKE_SMALL, MEMPLUG_MEMMAP_HOST, soft);
    life_of(FAKE_16K, MEMPLUG_MEMMAP_BLOCK, hard);
    life_of(FAKE_64K, MEMPLUG_MEMMAP_HOST, soft);
    life_of(FAKE_64K, MEMPLUG_MEMMAP_RANGE, hard);
    life_of(FAKE_X86, MEMPLUG_MEMMAP_BLOCK, soft);
    life_of(FAKE_X86, MEMPLUG_MEMMAP_BLOCK, hard);
}

/* The kernel's numbers: 32,768 frames, 512 of them memmap. */
static void as_the_kernel_counts(void **state)
{
    struct memplug_stat before;

    (void)state;
    open_world(FAKE_X86, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    must(hard(A, 0x800));
    before = stat_of();
    must(memplug_offline(world.pool, A, 1, NULL, NULL));
    assert_int_equal(before.nr_managed_pages - stat_of().nr_managed_pages, 32256);
    assert_int_equal(before.nr_present_pages - stat_of().nr_present_pages, 32768);
    REFUSED(ENXIO, "not online", hard(A, 1));
    REFUSED(EIO, "not online", soft(A, 0x900));
    assert_int_equal(stat_of().nr_poisoned_pages, 1);
    world_close(&world);
}

/* --- used frames ------------------------------------------------------------------------------ */

/* Whichever frame of an allocation goes bad, all of it moves, and the others are free. */
static void soft_moves_the_whole(void **state)
{
    (void)state;
    for (uint64_t bad = 0; bad < 16; bad++) {
        uint64_t nr_managed, nr_free;
        memplug_pfn_t pfn;
        unsigned slot;

        open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
        slot = own(A, 56, 16); /* over the border of two pageblocks */
        free(world_text(&world, false));
        nr_free = stat_of().nr_free_pages;
        nr_managed = stat_of().nr_managed_pages;
        must(soft(A, 56 + bad));
        must(owner_where(world.owner, slot, &pfn, NULL));
        assert_true(pfn.nr != frame(A, 56).nr);
        world_check(&world);
        is_out(A, 56 + bad);
        for (uint64_t i = 0; i < 16; i++)
            if (i != bad)
                must(owner_free(world.owner, own(A, 56 + i, 1)));
        free(world_text(&world, false)); /* what CPUs keep at hand comes back */
        assert_int_equal(stat_of().nr_free_pages, nr_free - 1);
        assert_int_equal(stat_of().nr_managed_pages, nr_managed);
        world_close(&world);
    }
}

static void hard_takes_the_whole(void **state)
{
    (void)state;
    for (uint64_t bad = 0; bad < 16; bad++) {
        struct owner_stat owner;
        memplug_pfn_t pfn;
        unsigned slot, other;

        open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
        slot = own(A, 56, 16);
        other = own(A, 72, 4);
        must(hard(A, 56 + bad));
        assert_int_equal(owner_where(world.owner, slot, &pfn, NULL), -ENOENT);
        must(owner_where(world.owner, other, &pfn, NULL));
        assert_int_equal(pfn.nr, frame(A, 72).nr);
        owner_stat(world.owner, &owner);
        assert_int_equal(owner.nr_lost, 1);
        assert_int_equal(owner.nr_moved, 0);
        world_check(&world);
        is_out(A, 56 + bad);
        for (uint64_t i = 0; i < 16; i++)
            if (i != bad)
                must(owner_free(world.owner, own(A, 56 + i, 1)));
        must(owner_free(world.owner, other));
        free(world_text(&world, false));
        assert_int_equal(stat_of().nr_free_pages, stat_of().nr_managed_pages - 1);
        world_close(&world);
    }
}

/* An allocation of several blocks, by a frame in any of them. */
static void over_several_blocks(void **state)
{
    static const uint64_t at[] = {0, 255, 256, 400, 511, 512, 639};

    (void)state;
    for (unsigned i = 0; i < 2 * sizeof(at) / sizeof(at[0]); i++) {
        struct memplug_alloc request = {.nr_pages = 640, .node = MEMPLUG_ANY_NODE};
        bool is_hard = i % 2 != 0;
        memplug_pfn_t pfn;
        unsigned slot;

        open_world(FAKE_SMALL, MEMPLUG_MEMMAP_HOST, MEMPLUG_ONLINE_MOVABLE);
        must(owner_alloc_request(world.owner, &request, NULL, &slot));
        must(owner_where(world.owner, slot, &pfn, NULL));
        assert_int_equal(pfn.nr, frame(A, 0).nr);
        must((is_hard ? hard : soft)(A, at[i / 2]));
        assert_int_equal(owner_where(world.owner, slot, &pfn, NULL), is_hard ? -ENOENT : 0);
        if (!is_hard)
            assert_int_equal(pfn.nr, frame(B, 0).nr);
        is_out(A + at[i / 2] / block_pages(), at[i / 2] % block_pages());
        world_check(&world);
        world_close(&world);
    }
}

/* What a CPU keeps at hand is free. */
static void frames_of_a_slot(void **state)
{
    memplug_pfn_t pfn;
    unsigned slot;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    must(owner_alloc(world.owner, 1, &slot));
    must(owner_where(world.owner, slot, &pfn, NULL));
    must(memplug_hard_offline(world.pool, (memplug_pfn_t){pfn.nr + 3}, NULL, NULL));
    must(owner_alloc(world.owner, 1, NULL));
    must(memplug_soft_offline(world.pool, (memplug_pfn_t){pfn.nr + 4}, NULL, NULL));
    for (unsigned i = 0; i < 200; i++) {
        memplug_pfn_t other;

        must(owner_alloc(world.owner, 1, &slot));
        must(owner_where(world.owner, slot, &other, NULL));
        assert_true(other.nr != pfn.nr + 3 && other.nr != pfn.nr + 4);
    }
    world_check(&world);
    world_close(&world);
}

/* --- many bad frames -------------------------------------------------------------------------- */

static void many(void **state)
{
    uint64_t nr_bad = 0;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_RANGE, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, NR, 40);
    for (uint64_t id = A + 1; id < A + NR; id++)
        for (uint64_t index = id - A; index < block_pages(); index += 1 + index % 7, nr_bad++)
            must((nr_bad % 3 == 0 ? hard : soft)(id, index));
    world_check(&world);
    assert_int_equal(stat_of().nr_poisoned_pages, nr_bad);
    for (uint64_t id = A + 1; id < A + NR; id++) {
        assert_true(info_of(id).nr_poisoned_pages > 50);
        for (uint64_t index = id - A; index < block_pages(); index += 1 + index % 7)
            is_out(id, index);
        must(memplug_why(world.pool, id, NULL));
    }
    owner_free_all(world.owner);
    owner_fill(world.owner); /* all that is left, and nothing bad */
    free(world_text(&world, false));
    assert_int_equal(stat_of().nr_free_pages, 0);
    world_check(&world);
    owner_free_all(world.owner);
    must(memplug_offline(world.pool, A, NR, NULL, NULL));
    world_check(&world);
    assert_int_equal(stat_of().nr_poisoned_pages, nr_bad);
    world_close(&world);
}

/* Bad frames among unmovable ones: only the latter are in the way. */
static void in_a_kernel_zone(void **state)
{
    struct memplug_alloc raw = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE};

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_KERNEL);
    must(memplug_alloc_exact(world.pool, frame(A, 100), &raw));
    must(soft(A, 99));
    must(hard(A, 101));
    REFUSED(EBUSY, "nobody can move", memplug_why(world.pool, A, &reason));
    assert_int_equal(reason.pfn.nr, frame(A, 100).nr);
    assert_int_equal(reason.nr_pages, 1);
    REFUSED(EBUSY, "nobody can move", memplug_offline(world.pool, A, 1, NULL, &reason));
    assert_int_equal(reason.nr_pages, 1);
    must(memplug_free(world.pool, frame(A, 100), 1));
    must(memplug_why(world.pool, A, NULL));
    must(memplug_offline(world.pool, A, 1, NULL, NULL));
    world_close(&world);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void again(void **state)
{
    char *before;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    must(soft(A, 70));
    before = world_text(&world, false);
    must(soft(A, 70));
    world_same(&world, before, false);
    REFUSED(EHWPOISON, "poisoned already", hard(A, 70));
    assert_int_equal(reason.pfn.nr, frame(A, 70).nr);
    REFUSED(EBUSY, "a frame is poisoned",
            memplug_keep_pages(world.pool, frame(A, 60), 20, NULL, &reason));
    assert_int_equal(reason.pfn.nr, frame(A, 70).nr);
    must(memplug_keep_pages(world.pool, frame(A, 71), 20, NULL, NULL));
    REFUSED(EBUSY, "logically offline", soft(A, 80));
    REFUSED(EBUSY, "logically offline", hard(A, 80));
    must(memplug_unpin(world.pool, frame(A, 71))); /* it is the driver's all the same */
    REFUSED(EBUSY, "logically offline", soft(A, 80));
    REFUSED(EBUSY, "logically offline", hard(A, 80));
    must(memplug_release_pages(world.pool, frame(A, 71), 20));
    must(soft(A, 80));
    world_close(&world);
}

static void refusals(void **state)
{
    struct memplug_alloc raw = {.nr_pages = 4, .node = MEMPLUG_ANY_NODE};
    unsigned slot;

    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_KERNEL);
    must(memplug_offline(world.pool, A + 1, 1, NULL, NULL));
    REFUSED(ENXIO, "no block", soft(1, 0));
    REFUSED(ENXIO, "no block", hard(1, 0));
    REFUSED(ENXIO, "no block", soft(UINT64_MAX / block_pages(), 0));
    REFUSED(ENXIO, "no block", hard(UINT64_MAX / block_pages(), 0));
    REFUSED(EIO, "not online", soft(A + 1, 99));
    REFUSED(ENXIO, "not online", hard(A + 1, 99));
    for (uint64_t index = 0; index < info_of(A).nr_memmap_pages; index++) {
        REFUSED(EBUSY, "memmap", soft(A, index));
        REFUSED(EBUSY, "memmap", hard(A, index));
    }
    must(memplug_alloc_exact(world.pool, frame(A, 100), &raw));
    for (uint64_t index = 100; index < 104; index++) {
        REFUSED(EBUSY, "nobody can move", soft(A, index));
        REFUSED(EBUSY, "nobody can be told", hard(A, index));
        assert_int_equal(reason.pfn.nr, frame(A, 100).nr);
    }
    must(memplug_free(world.pool, frame(A, 100), 4));
    slot = own(A, 100, 4);
    must(memplug_pin(world.pool, frame(A, 100)));
    REFUSED(EBUSY, "pinned", soft(A, 103));
    REFUSED(EBUSY, "pinned", hard(A, 103));
    assert_int_equal(reason.pfn.nr, frame(A, 100).nr);
    assert_string_equal(reason.owner, "owner");
    must(memplug_unpin(world.pool, frame(A, 100)));
    must(owner_hold(world.owner, slot, true));
    REFUSED(EBUSY, "cannot move it now", soft(A, 103));
    REFUSED(EBUSY, "keeps it", hard(A, 103));
    must(owner_hold(world.owner, slot, false));
    must(hard(A, 103));
    world_close(&world);
}

static void no_room(void **state)
{
    (void)state;
    open_world(FAKE_SMALL, MEMPLUG_MEMMAP_BLOCK, MEMPLUG_ONLINE_MOVABLE);
    assert_true(owner_fill(world.owner) > 6 * 200);
    REFUSED(ENOMEM, "no room", soft(A, 100));
    must(hard(A, 100)); /* needs none */
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(life),
        cmocka_unit_test(as_the_kernel_counts),
        cmocka_unit_test(soft_moves_the_whole),
        cmocka_unit_test(hard_takes_the_whole),
        cmocka_unit_test(over_several_blocks),
        cmocka_unit_test(frames_of_a_slot),
        cmocka_unit_test(many),
        cmocka_unit_test(in_a_kernel_zone),
        cmocka_unit_test(again),
        cmocka_unit_test(refusals),
        cmocka_unit_test(no_room),
    };

    return cmocka_run_group_tests_name("poison", tests, NULL, NULL);
}
