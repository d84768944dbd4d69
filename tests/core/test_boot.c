/* SPDX-License-Identifier: MIT */
/*
 * Boot memory: the zones, spans and blocks of the kernel's own machines (linux semantics, 5.3, 6,
 * 9), and what holes are.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "boot_world.h"

#define DMA_LIMIT (16 * MIB)
#define DMA32_LIMIT (4 * GIB)

static struct boot_world world;

/* --- machines --------------------------------------------------------------------------------- */

/* A PC with so much memory below 4 GiB, less 128 KiB at its end, and so much above. */
static void open_pc(uint64_t low_bytes, uint64_t high_bytes)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_X86);
    const struct memplug_boot_memory memory[] = {
        {.address = 0x1000, .size_bytes = 0x9e000},
        {.address = MIB, .size_bytes = low_bytes - MIB - 0x20000},
        {.address = DMA32_LIMIT, .size_bytes = high_bytes},
    };

    boot_world_open(&world, &geometry, high_bytes != 0 ? DMA32_LIMIT + high_bytes : low_bytes, 1);
    assert_int_equal(boot_world_boot(&world, memory, high_bytes != 0 ? 3 : 2, DMA_LIMIT,
                                     DMA32_LIMIT, NULL),
                     0);
    boot_world_check(&world);
}

static void close_world(void)
{
    assert_int_equal(memplug_close(world.pool, &world.reason), 0);
    boot_world_end(&world);
}

static void expect_block(uint64_t id, enum memplug_zone zone, uint64_t nr_absent)
{
    struct memplug_block_info info;

    assert_int_equal(memplug_block_info(world.pool, id, &info), 0);
    assert_int_equal(info.state, MEMPLUG_BLOCK_ONLINE);
    assert_int_equal(info.zone, zone);
    assert_int_equal(info.nr_absent_pages, nr_absent);
    assert_int_equal(info.memmap, MEMPLUG_MEMMAP_HOST);
    assert_int_equal(info.nr_managed_pages,
                     zone == MEMPLUG_NR_ZONES ? 0 : world.block_pages - nr_absent);
    assert_true(info.early);
    assert_int_not_equal(info.serial, 0);
}

static void expect_no_block(uint64_t id)
{
    struct memplug_block_info info;

    assert_int_equal(memplug_block_info(world.pool, id, &info), -ENODEV);
}

static void expect_zone(enum memplug_zone zone, uint64_t start, uint64_t nr_spanned,
                        uint64_t nr_present, uint64_t nr_managed)
{
    boot_world_zone(&world, 0, zone, start, nr_spanned, nr_present, nr_managed, nr_present);
}

static void pc_with_1_gib(void **state)
{
    (void)state;
    open_pc(GIB, 0);
    expect_zone(MEMPLUG_ZONE_DMA, 1, 4095, 3998, 0);
    expect_zone(MEMPLUG_ZONE_DMA32, 4096, 258016, 258016, 7 * 32768 - 32);
    expect_zone(MEMPLUG_ZONE_NORMAL, 0, 0, 0, 0);
    expect_zone(MEMPLUG_ZONE_MOVABLE, 0, 0, 0, 0);
    expect_block(0, MEMPLUG_NR_ZONES, 32768 - 3998 - 28672);
    for (uint64_t id = 1; id < 7; id++)
        expect_block(id, MEMPLUG_ZONE_DMA32, 0);
    expect_block(7, MEMPLUG_ZONE_DMA32, 32);
    expect_no_block(8);
    close_world();
}

static void pc_with_512_mib(void **state)
{
    (void)state;
    open_pc(GIB / 2, 0);
    expect_zone(MEMPLUG_ZONE_DMA, 1, 4095, 3998, 0);
    expect_zone(MEMPLUG_ZONE_DMA32, 4096, 126944, 126944, 3 * 32768 - 32);
    close_world();
}

/* DMA32 spans what its limit and the node's memory have in common, also where there is none. */
static void pc_with_4_gib(void **state)
{
    (void)state;
    open_pc(2 * GIB, 2 * GIB);
    expect_zone(MEMPLUG_ZONE_DMA, 1, 4095, 3998, 0);
    expect_zone(MEMPLUG_ZONE_DMA32, 4096, 1044480, 520160, 15 * 32768 - 32);
    expect_zone(MEMPLUG_ZONE_NORMAL, 1048576, 524288, 524288, 524288);
    expect_block(14, MEMPLUG_ZONE_DMA32, 0);
    expect_block(15, MEMPLUG_ZONE_DMA32, 32);
    expect_no_block(16);
    expect_no_block(31);
    expect_block(32, MEMPLUG_ZONE_NORMAL, 0);
    expect_block(47, MEMPLUG_ZONE_NORMAL, 0);
    expect_no_block(48);
    close_world();
}

/* --- what its blocks answer (scenario 36) ----------------------------------------------------- */

static unsigned nr_heard;

static int count_notice(void *context, const struct memplug_notice *notice)
{
    (void)context;
    (void)notice;
    nr_heard++;
    return 0;
}

static void count_uevent(void *context, const struct memplug_uevent *event)
{
    (void)context;
    (void)event;
    nr_heard++;
}

static void refuse_offline(uint64_t id, const char *why)
{
    char *before = boot_world_text(&world), *after;
    unsigned nr_before = nr_heard;

    assert_int_equal(memplug_why(world.pool, id, &world.reason), -EINVAL);
    assert_non_null(strstr(world.reason.why, why));
    assert_int_equal(memplug_offline(world.pool, id, 1, NULL, &world.reason), -EINVAL);
    assert_non_null(strstr(world.reason.why, why));
    assert_int_equal(world.reason.block, id);
    assert_int_equal(memplug_offline(world.pool, 0, 8, NULL, &world.reason), -EINVAL);
    assert_int_equal(nr_heard, nr_before);
    after = boot_world_text(&world);
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static void must_offline(uint64_t id)
{
    assert_int_equal(memplug_why(world.pool, id, NULL), 0);
    assert_int_equal(memplug_offline(world.pool, id, 1, NULL, NULL), 0);
}

static void boot_blocks_go_and_come(void **state)
{
    const struct memplug_subscriber subscriber = {.name = "x", .notify = count_notice};
    const struct memplug_listener listener = {.hear = count_uevent};

    (void)state;
    open_pc(GIB, 0);
    assert_int_equal(memplug_subscribe(world.pool, &subscriber), 0);
    assert_int_equal(memplug_listen(world.pool, &listener), 0);
    refuse_offline(0, "several zones");
    refuse_offline(7, "memory holes");
    for (uint64_t id = 1; id < 7; id++)
        must_offline(id);
    assert_int_equal(nr_heard, 6 * 4); /* GOING_OFFLINE, OFFLINE, FINISH_OFFLINE; a uevent */
    expect_zone(MEMPLUG_ZONE_DMA32, 4096, 258016, 61408, 32768 - 32);
    assert_int_equal(memplug_online(world.pool, 6, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    expect_zone(MEMPLUG_ZONE_MOVABLE, 196608, 32768, 32768, 32768);
    assert_int_equal(memplug_online(world.pool, 6, 1, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), -EINVAL);
    assert_int_equal(memplug_online(world.pool, 5, 1, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), 0);
    expect_zone(MEMPLUG_ZONE_DMA32, 4096, 258016, 94176, 2 * 32768 - 32);
    expect_block(5, MEMPLUG_ZONE_DMA32, 0);
    expect_block(6, MEMPLUG_ZONE_MOVABLE, 0);
    boot_world_check(&world);
    must_offline(6);
    expect_zone(MEMPLUG_ZONE_MOVABLE, 0, 0, 0, 0);
    close_world();
}

/* --- removal ---------------------------------------------------------------------------------- */

static int take_out(uint64_t id)
{
    return memplug_remove(world.pool, id * world.block_bytes, world.block_bytes, NULL,
                          &world.reason);
}

static void boot_blocks_can_be_removed(void **state)
{
    struct memplug_block_info info;
    struct memplug_add add;

    (void)state;
    open_pc(GIB, 0);
    assert_int_equal(take_out(7), -EBUSY);
    assert_non_null(strstr(world.reason.why, "memory holes"));
    assert_int_equal(take_out(3), -EBUSY);
    must_offline(3);
    must_offline(4);
    assert_int_equal(take_out(3), 0);
    expect_no_block(3);
    boot_world_check(&world);
    add = (struct memplug_add){
        .address = 3 * world.block_bytes, .size_bytes = world.block_bytes, .backing = world.more};
    assert_int_equal(memplug_add(world.pool, &add, NULL, NULL), 0);
    assert_int_equal(memplug_online(world.pool, 3, 1, MEMPLUG_ONLINE_DEFAULT, NULL, NULL), 0);
    assert_int_equal(memplug_block_info(world.pool, 3, &info), 0);
    assert_false(info.early);
    assert_int_equal(info.zone, MEMPLUG_ZONE_DMA32);
    boot_world_zone(&world, 0, MEMPLUG_ZONE_DMA32, 4096, 258016, 258016 - 32768,
                    6 * 32768 - 32 - 512, 258016 - 2 * 32768);
    boot_world_check(&world);
    assert_int_equal(memplug_close(world.pool, &world.reason), -EBUSY);
    assert_int_equal(world.reason.block, 3);
    must_offline(3);
    assert_int_equal(take_out(3), 0);
    close_world();
}

/* --- holes ------------------------------------------------------------------------------------ */

/* Blocks of 256 pages. 1: holes at both ends and inside, within a word, a pageblock and more; 2 is
 * whole; 3 has one page; 4 is not there; 5 to 7 are whole. */
static const struct memplug_boot_memory holes[] = {
    {.address = 0x100000 + 0x3000, .size_bytes = 0x2000},
    {.address = 0x100000 + 0x10000, .size_bytes = 0x60000},
    {.address = 0x100000 + 0x71000, .size_bytes = 0x5000},
    {.address = 0x100000 + 0x80000, .size_bytes = 0x70000},
    {.address = 0x200000, .size_bytes = 0x100000},
    {.address = 0x300000 + 0x42000, .size_bytes = 0x1000},
    {.address = 0x500000, .size_bytes = 0x300000},
};
#define NR_HOLES (sizeof(holes) / sizeof(holes[0]))

static bool is_there(uint64_t pfn)
{
    for (unsigned i = 0; i < NR_HOLES; i++)
        if (pfn >= holes[i].address >> 12 &&
            pfn < (holes[i].address + holes[i].size_bytes) >> 12)
            return true;
    return false;
}

static void open_holes(void)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);

    boot_world_open(&world, &geometry, 0x800000, 1);
    assert_int_equal(boot_world_boot(&world, holes, NR_HOLES, 0, 0, NULL), 0);
    boot_world_check(&world);
}

static uint64_t count_there(uint64_t pfn, uint64_t end)
{
    uint64_t nr_pages = 0;

    for (; pfn < end; pfn++)
        nr_pages += is_there(pfn);
    return nr_pages;
}

static void holes_are_counted(void **state)
{
    struct memplug_stat stat;
    uint64_t nr_pages = count_there(0, 0x800);

    (void)state;
    open_holes();
    expect_zone(MEMPLUG_ZONE_NORMAL, 0x103, 0x800 - 0x103, nr_pages, nr_pages);
    expect_block(1, MEMPLUG_ZONE_NORMAL, 256 - count_there(0x100, 0x200));
    expect_block(2, MEMPLUG_ZONE_NORMAL, 0);
    expect_block(3, MEMPLUG_ZONE_NORMAL, 255);
    expect_no_block(4);
    memplug_stat(world.pool, &stat);
    assert_int_equal(stat.nr_blocks, 6);
    assert_int_equal(stat.nr_present_pages, nr_pages);
    assert_int_equal(stat.nr_free_pages, nr_pages);
    for (uint64_t pfn = 0; pfn < 0x900; pfn++)
        assert_int_equal(memplug_frame_kind(world.pool, (memplug_pfn_t){pfn}),
                         is_there(pfn) ? MEMPLUG_FRAME_FREE : MEMPLUG_FRAME_ABSENT);
    close_world();
}

/* Every frame that is there is handed out once, and no other. */
static void holes_are_never_handed_out(void **state)
{
    static const uint32_t sizes[] = {1, 2, 8, 64, 128};
    struct memplug_alloc request = {.nr_pages = 1};
    memplug_pfn_t pfns[0x800];

    (void)state;
    open_holes();
    for (unsigned i = 0; i < 5; i++) {
        uint8_t seen[0x800] = {0};
        uint64_t nr = 0;

        request.nr_pages = sizes[i];
        while (memplug_alloc(world.pool, &request, &pfns[nr]) == 0) {
            for (uint64_t pfn = pfns[nr].nr; pfn < pfns[nr].nr + sizes[i]; pfn++)
                assert_true(is_there(pfn) && seen[pfn]++ == 0);
            nr++;
        }
        assert_true(sizes[i] != 1 || nr == count_there(0, 0x800));
        boot_world_check(&world);
        while (nr-- > 0)
            assert_int_equal(memplug_free(world.pool, pfns[nr], sizes[i]), 0);
        boot_world_check(&world);
    }
    close_world();
}

static void holes_cannot_be_taken_nor_freed(void **state)
{
    struct memplug_alloc request = {.nr_pages = 1};

    (void)state;
    open_holes();
    for (uint64_t pfn = 0x100; pfn < 0x400; pfn++) {
        memplug_pfn_t at = {pfn};

        if (is_there(pfn)) {
            assert_int_equal(memplug_alloc_exact(world.pool, at, &request), 0);
            assert_int_equal(memplug_free(world.pool, at, 1), 0);
            continue;
        }
        assert_int_equal(memplug_alloc_exact(world.pool, at, &request), -EBUSY);
        assert_int_equal(memplug_free(world.pool, at, 1), -EINVAL);
        assert_int_equal(memplug_free(world.pool, at, 2), -EINVAL);
        assert_int_equal(memplug_pin(world.pool, at), -EINVAL);
    }
    boot_world_check(&world);
    close_world();
}

static int keep(uint64_t pfn, uint64_t nr_pages)
{
    return memplug_keep_pages(world.pool, (memplug_pfn_t){pfn}, nr_pages, NULL, &world.reason);
}

static int soft(uint64_t pfn)
{
    return memplug_soft_offline(world.pool, (memplug_pfn_t){pfn}, NULL, &world.reason);
}

static int hard(uint64_t pfn)
{
    return memplug_hard_offline(world.pool, (memplug_pfn_t){pfn}, NULL, &world.reason);
}

/* Nor kept back, nor poisoned; what lies beside a hole can be. */
static void holes_cannot_be_kept_nor_poisoned(void **state)
{
    (void)state;
    open_holes();
    assert_int_equal(keep(0x102, 3), -EINVAL);
    assert_non_null(strstr(world.reason.why, "hole"));
    assert_int_equal(keep(0x103, 3), -EINVAL);
    assert_int_equal(keep(0x100, 256), -EINVAL);
    assert_int_equal(soft(0x170), -ENXIO);
    assert_int_equal(hard(0x170), -ENXIO);
    assert_int_equal(keep(0x103, 2), 0);
    assert_int_equal(soft(0x171), 0);
    assert_int_equal(hard(0x342), 0);
    boot_world_check(&world);
    assert_int_equal(memplug_frame_kind(world.pool, (memplug_pfn_t){0x342}),
                     MEMPLUG_FRAME_POISONED);
    assert_int_equal(memplug_release_pages(world.pool, (memplug_pfn_t){0x103}, 2), 0);
    boot_world_check(&world);
    close_world();
}

/* Of a block in several zones nothing can be had, and it does not matter where it is asked. */
static void several_zones_are_not_managed(void **state)
{
    const struct memplug_boot_memory memory = {.address = 0x100000, .size_bytes = 0x700000};
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct memplug_alloc request = {.nr_pages = 1};

    (void)state;
    boot_world_open(&world, &geometry, 0x800000, 1);
    assert_int_equal(boot_world_boot(&world, &memory, 1, 0x250000, 0x2c0000, NULL), 0);
    boot_world_check(&world);
    expect_zone(MEMPLUG_ZONE_DMA, 0x100, 0x150, 0x150, 0x100);
    expect_zone(MEMPLUG_ZONE_DMA32, 0x250, 0x70, 0x70, 0);
    expect_zone(MEMPLUG_ZONE_NORMAL, 0x2c0, 0x540, 0x540, 0x500);
    expect_block(2, MEMPLUG_NR_ZONES, 0);
    for (uint64_t pfn = 0x200; pfn < 0x300; pfn++) {
        memplug_pfn_t at = {pfn};

        assert_int_equal(memplug_frame_kind(world.pool, at), MEMPLUG_FRAME_USED);
        assert_int_equal(memplug_alloc_exact(world.pool, at, &request), -ENODEV);
        assert_int_equal(memplug_free(world.pool, at, 1), -ENODEV);
        assert_int_equal(memplug_pin(world.pool, at), -ENODEV);
    }
    assert_int_equal(keep(0x200, 1), -EINVAL);
    assert_int_equal(soft(0x200), -EBUSY);
    assert_int_equal(hard(0x2ff), -EBUSY);
    assert_int_equal(memplug_release_pages(world.pool, (memplug_pfn_t){0x200}, 1), -ENODEV);
    boot_world_check(&world);
    close_world();
}

/* --- spans ------------------------------------------------------------------------------------ */

static void expect_span(uint64_t start, uint64_t end)
{
    struct memplug_zone_info info;

    boot_world_check(&world);
    assert_int_equal(memplug_zone_info(world.pool, 0, MEMPLUG_ZONE_NORMAL, &info), 0);
    assert_int_equal(info.start.nr, start);
    assert_int_equal(info.start.nr + info.nr_spanned_pages, end);
}

static void add_one(uint64_t id, unsigned of)
{
    struct memplug_add add = {.address = id * world.block_bytes, .size_bytes = world.block_bytes,
                              .memmap = MEMPLUG_MEMMAP_BLOCK, .backing = world.more,
                              .offset_bytes = of * world.block_bytes};

    assert_int_equal(memplug_add(world.pool, &add, NULL, NULL), 0);
    assert_int_equal(memplug_online(world.pool, id, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
}

/* Whole blocks move the ends of a span; it never shrinks below what cannot go. */
static void spans_keep_what_cannot_go(void **state)
{
    (void)state;
    open_holes();
    expect_span(0x103, 0x800);
    must_offline(7);
    expect_span(0x103, 0x700);
    must_offline(5);
    expect_span(0x103, 0x700);
    must_offline(6);
    expect_span(0x103, 0x343); /* to the one page of block 3 */
    must_offline(2);
    expect_span(0x103, 0x343);
    add_one(9, 0);
    expect_span(0x103, 0xa00);
    must_offline(9);
    expect_span(0x103, 0x343);
    assert_int_equal(memplug_online(world.pool, 6, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    expect_span(0x103, 0x700);
    assert_int_equal(take_out(9), 0);
    close_world();
}

/* An end of a span that is no block's stays, also when the zone grows past it and shrinks again. */
static void spans_keep_ends_without_memory(void **state)
{
    const struct memplug_boot_memory memory[] = {
        {.address = 0x200000, .size_bytes = 0x200000},
        {.address = 0x900000, .size_bytes = 0x100000},
    };
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);

    (void)state;
    boot_world_open(&world, &geometry, 0xa00000, 1);
    assert_int_equal(boot_world_boot(&world, memory, 2, 0, 0x640000, NULL), 0);
    expect_zone(MEMPLUG_ZONE_DMA32, 0x200, 0x440, 0x200, 0x200);
    expect_span(0x640, 0xa00);
    add_one(8, 0); /* in Normal's span */
    expect_span(0x640, 0xa00);
    must_offline(9);
    expect_span(0x640, 0x900);
    must_offline(8);
    assert_int_equal(take_out(8), 0);
    expect_span(0, 0);
    must_offline(3);
    expect_zone(MEMPLUG_ZONE_DMA32, 0x200, 0x440, 0x100, 0x100);
    assert_int_equal(memplug_online(world.pool, 9, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    expect_span(0x900, 0xa00); /* an empty zone begins anew */
    add_one(6, 1); /* over the end of the span */
    boot_world_zone(&world, 0, MEMPLUG_ZONE_DMA32, 0x200, 0x500, 0x200, 0x1fc, 0x100);
    must_offline(6);
    assert_int_equal(take_out(6), 0);
    expect_zone(MEMPLUG_ZONE_DMA32, 0x200, 0x440, 0x100, 0x100);
    add_one(6, 1);
    must_offline(2);
    boot_world_zone(&world, 0, MEMPLUG_ZONE_DMA32, 0x600, 0x100, 0x100, 0xfc, 0);
    must_offline(6); /* the only one, with the end in its middle */
    boot_world_check(&world);
    expect_zone(MEMPLUG_ZONE_DMA32, 0, 0, 0, 0);
    assert_int_equal(take_out(6), 0);
    close_world();
}

/* A zone that spans something and has no pages is no zone of a block. */
static void a_zone_without_pages_does_not_count(void **state)
{
    const struct memplug_boot_memory memory[] = {
        {.address = 0, .size_bytes = 0x80000},
        {.address = 0x180000, .size_bytes = 0x180000},
    };
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);

    (void)state;
    boot_world_open(&world, &geometry, 0x300000, 1);
    assert_int_equal(boot_world_boot(&world, memory, 2, 0x100000, 0x180000, NULL), 0);
    boot_world_check(&world);
    expect_zone(MEMPLUG_ZONE_DMA, 0, 0x100, 0x80, 0x80);
    expect_zone(MEMPLUG_ZONE_DMA32, 0x100, 0x80, 0, 0);
    expect_zone(MEMPLUG_ZONE_NORMAL, 0x180, 0x180, 0x180, 0x180);
    expect_block(0, MEMPLUG_ZONE_DMA, 0x80);
    expect_block(1, MEMPLUG_ZONE_NORMAL, 0x80);
    close_world();
}

/* A hole of the block may be what lies in the second zone. */
static void a_hole_in_another_zone_counts(void **state)
{
    const struct memplug_boot_memory memory[] = {
        {.address = 0x200000, .size_bytes = 0x40000},
        {.address = 0x500000, .size_bytes = 0x100000},
    };
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);

    (void)state;
    boot_world_open(&world, &geometry, 0x600000, 1);
    assert_int_equal(boot_world_boot(&world, memory, 2, 0, 0x280000, NULL), 0);
    boot_world_check(&world);
    expect_block(2, MEMPLUG_NR_ZONES, 0xc0);
    expect_zone(MEMPLUG_ZONE_DMA32, 0x200, 0x80, 0x40, 0);
    expect_zone(MEMPLUG_ZONE_NORMAL, 0x280, 0x380, 0x100, 0x100);
    assert_int_equal(memplug_frame_kind(world.pool, (memplug_pfn_t){0x23f}), MEMPLUG_FRAME_USED);
    assert_int_equal(memplug_frame_kind(world.pool, (memplug_pfn_t){0x240}), MEMPLUG_FRAME_ABSENT);
    must_offline(5);
    expect_span(0, 0); /* there is nothing behind its start any more */
    close_world();
}

/* --- nodes ------------------------------------------------------------------------------------ */

static void nodes_have_spans_of_their_own(void **state)
{
    const struct memplug_boot_memory memory[] = {
        {.address = 0x100000, .size_bytes = 0x200000, .node = 0},
        {.address = 0x300000, .size_bytes = 0x100000, .node = 1},
        {.address = 0x400000, .size_bytes = 0x100000, .node = 0},
        {.address = 0x500000, .size_bytes = 0x180000, .node = 1},
    };
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct memplug_node_info info;

    (void)state;
    boot_world_open(&world, &geometry, 0x700000, 3);
    assert_int_equal(boot_world_boot(&world, memory, 4, 0, 0x380000, NULL), 0);
    boot_world_check(&world);
    boot_world_zone(&world, 0, MEMPLUG_ZONE_DMA32, 0x100, 0x280, 0x200, 0x200, 0x200);
    boot_world_zone(&world, 0, MEMPLUG_ZONE_NORMAL, 0x380, 0x180, 0x100, 0x100, 0x100);
    boot_world_zone(&world, 1, MEMPLUG_ZONE_DMA32, 0x300, 0x80, 0x80, 0, 0x80);
    boot_world_zone(&world, 1, MEMPLUG_ZONE_NORMAL, 0x380, 0x300, 0x200, 0x180, 0x200);
    expect_block(3, MEMPLUG_NR_ZONES, 0);
    expect_block(6, MEMPLUG_ZONE_NORMAL, 0x80);
    assert_int_equal(memplug_node_info(world.pool, 1, &info), 0);
    assert_true(info.online && info.has_memory && info.has_normal_memory);
    assert_int_equal(info.nr_blocks, 3);
    assert_int_equal(memplug_node_info(world.pool, 2, &info), 0);
    assert_false(info.online);
    must_offline(4);
    boot_world_check(&world);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pc_with_1_gib),
        cmocka_unit_test(pc_with_512_mib),
        cmocka_unit_test(pc_with_4_gib),
        cmocka_unit_test(boot_blocks_go_and_come),
        cmocka_unit_test(boot_blocks_can_be_removed),
        cmocka_unit_test(holes_are_counted),
        cmocka_unit_test(holes_are_never_handed_out),
        cmocka_unit_test(holes_cannot_be_taken_nor_freed),
        cmocka_unit_test(holes_cannot_be_kept_nor_poisoned),
        cmocka_unit_test(several_zones_are_not_managed),
        cmocka_unit_test(spans_keep_what_cannot_go),
        cmocka_unit_test(spans_keep_ends_without_memory),
        cmocka_unit_test(a_zone_without_pages_does_not_count),
        cmocka_unit_test(a_hole_in_another_zone_counts),
        cmocka_unit_test(nodes_have_spans_of_their_own),
    };

    return cmocka_run_group_tests_name("boot", tests, NULL, NULL);
}
