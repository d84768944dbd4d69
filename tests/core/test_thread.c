/* SPDX-License-Identifier: MIT */
/*
 * Points of the review thread (docs/thread-map.md) that only a whole pool on a whole machine can
 * show: what an add costs, where the memmap is, what goes online, how it goes away again.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

#define NR WORLD_RANGE_BLOCKS

static struct world world;
static struct memplug_reason reason;

static void open_as(enum fake_shape shape, uint8_t page_struct_bytes)
{
    world_open(&world, &(struct world_config){.shape = shape, .nr_nodes = 2, .seed = 21,
                                              .page_struct_bytes = page_struct_bytes});
}

static uint64_t block_pages(void)
{
    return world.block_bytes >> world.geometry.page_shift;
}

static uint64_t pageblock_pages(void)
{
    return (uint64_t)1 << world.geometry.pageblock_order;
}

static struct fake_backing *backing_of(uint64_t nr_blocks)
{
    struct fake_backing *backing = fake_backing_open(
        world.machine, &(struct fake_backing_spec){.size_bytes = nr_blocks * world.block_bytes,
                                                   .content = FAKE_CONTENT_KEEP});

    assert_non_null(backing);
    return backing;
}

static int add(struct fake_backing *backing, uint64_t first, uint64_t nr_blocks,
               enum memplug_memmap memmap, int node)
{
    struct memplug_add request = {.address = first * world.block_bytes,
                                  .size_bytes = nr_blocks * world.block_bytes,
                                  .memmap = memmap, .node = node, .backing = backing};

    return memplug_add(world.pool, &request, NULL, &reason);
}

static int pull(uint64_t first, uint64_t nr_blocks)
{
    return memplug_remove(world.pool, first * world.block_bytes, nr_blocks * world.block_bytes,
                          NULL, &reason);
}

static int online(uint64_t first, uint64_t nr_blocks, enum memplug_online_type type)
{
    return memplug_online(world.pool, first, nr_blocks, type, NULL, &reason);
}

static int offline(uint64_t first, uint64_t nr_blocks)
{
    return memplug_offline(world.pool, first, nr_blocks, NULL, &reason);
}

static struct memplug_block_info info_of(uint64_t block)
{
    struct memplug_block_info info;

    must(memplug_block_info(world.pool, block, &info));
    return info;
}

static struct memplug_zone_info zone_of(int node, enum memplug_zone zone)
{
    struct memplug_zone_info info;

    must(memplug_zone_info(world.pool, node, zone, &info));
    return info;
}

/* --- why -------------------------------------------------------------------------------------- */

/* W1, W2: adding self-hosted memory takes nothing of what was there but descriptors, also if there
 * is no memory at all, and the host's page tables, which are its own. */
static void an_add_costs_no_existing_memory(void **state)
{
    static const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_BLOCK, MEMPLUG_MEMMAP_RANGE};

    (void)state;
    open_as(FAKE_X86, 0);
    for (unsigned i = 0; i < 2; i++) {
        struct fake_stat before, after;
        struct memplug_stat stat;

        fake_stat(world.machine, &before);
        must(add(world.backing_a, 8, NR, memmaps[i], 1));
        must(online(8, NR, MEMPLUG_ONLINE_MOVABLE)); /* a node of movable memory only */
        memplug_stat(world.pool, &stat);
        assert_true(stat.block_bytes <= 256);
        assert_int_equal(stat.preexisting_bytes, NR * stat.block_bytes);
        assert_int_equal(stat.host_bytes, 0);
        assert_int_equal(stat.nr_memmap_pages, NR * 512);
        fake_stat(world.machine, &after);
        assert_int_equal(after.nr_provided_pages, before.nr_provided_pages);
        assert_int_equal(after.nr_memory_pages, before.nr_memory_pages);
        assert_int_equal(before.nr_free_boot_pages - after.nr_free_boot_pages,
                         after.nr_table_pages - before.nr_table_pages);
        must(offline(8, NR));
        must(pull(8, NR));
        fake_stat(world.machine, &after);
        assert_int_equal(after.nr_free_boot_pages, before.nr_free_boot_pages);
    }
    must(add(world.backing_a, 8, NR, MEMPLUG_MEMMAP_HOST, 1)); /* the other way costs it all */
    {
        struct memplug_stat stat;

        memplug_stat(world.pool, &stat);
        assert_true(stat.preexisting_bytes >= NR * (stat.block_bytes + 512 * 4096));
    }
    world_close(&world);
}

/* No more boot memory than page tables take: self-hosted adds work, others do not. */
static void an_add_without_memory(void **state)
{
    struct fake_stat before, after;

    (void)state;
    open_as(FAKE_SMALL, 0);
    fake_stat(world.machine, &before);
    must(add(world.backing_a, 9, NR, MEMPLUG_MEMMAP_BLOCK, 0));
    fake_stat(world.machine, &after);
    must(pull(9, NR));
    fake_set_boot_budget(world.machine, after.nr_table_pages - before.nr_table_pages);
    assert_int_equal(add(world.backing_a, 9, NR, MEMPLUG_MEMMAP_HOST, 0), -ENOMEM);
    for (unsigned i = 0; i < 3; i++) {
        must(add(world.backing_a, 9, NR, i == 1 ? MEMPLUG_MEMMAP_RANGE : MEMPLUG_MEMMAP_BLOCK, 0));
        must(online(9, NR, MEMPLUG_ONLINE_KERNEL));
        world_check(&world);
        must(offline(9, NR));
        must(pull(9, NR));
    }
    fake_set_boot_budget(world.machine, UINT64_MAX);
    world_close(&world);
}

/* --- where the memmap is ---------------------------------------------------------------------- */

/* W2, W4: the struct page of frame i of a unit is at byte i * sizeof of the unit itself: written
 * through the window, read through the direct map and in the backing. */
static void struct_pages_lie_in(uint64_t unit_first, uint64_t nr_blocks, uint64_t backing_block)
{
    uint64_t start = unit_first * block_pages();
    uint64_t nr_memmap = 0;

    for (uint64_t id = unit_first; id < unit_first + nr_blocks; id++)
        nr_memmap += info_of(id).nr_memmap_pages;
    for (uint64_t i = nr_memmap; i < nr_blocks * block_pages(); i += 1 + i / 7) {
        uint64_t mine = i * UINT64_C(0x9e3779b97f4a7c15), there = 0;
        uint64_t offset = i * world.geometry.page_struct_bytes + 32;
        const char *head;

        if (world.geometry.page_struct_bytes == 32)
            return;
        head = memplug_page_address(world.pool, (memplug_pfn_t){start});
        memcpy(memplug_page_private(world.pool, (memplug_pfn_t){start + i}), &mine, sizeof(mine));
        memcpy(&there, head + offset, sizeof(there));
        assert_int_equal(there, mine);
        fake_backing_read(world.backing_a, backing_block * world.block_bytes + offset, &there,
                          sizeof(there));
        assert_int_equal(there, mine);
    }
}

static void memmap_is_in_its_own_memory(void **state)
{
    static const struct {
        enum fake_shape shape;
        uint8_t page_struct_bytes;
    } machines[] = {{FAKE_SMALL, 64}, {FAKE_SMALL, 56}, {FAKE_SMALL, 72}, {FAKE_16K, 48},
                    {FAKE_64K, 128},  {FAKE_X86, 64},   {FAKE_X86, 56}};

    (void)state;
    for (unsigned i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
        open_as(machines[i].shape, machines[i].page_struct_bytes);
        must(add(world.backing_a, 4, NR, MEMPLUG_MEMMAP_RANGE, 0));
        must(online(4, NR, MEMPLUG_ONLINE_MOVABLE));
        struct_pages_lie_in(4, NR, 0);
        must(offline(4, NR));
        must(pull(4, NR));
        if (memplug_memmap_supported(world.pool, world.block_bytes, MEMPLUG_MEMMAP_BLOCK,
                                     world.backing_a, &reason) == 0) {
            must(add(world.backing_a, 4, NR, MEMPLUG_MEMMAP_BLOCK, 0));
            must(online(4, NR, MEMPLUG_ONLINE_MOVABLE));
            for (uint64_t k = 0; k < NR; k++)
                struct_pages_lie_in(4 + k, 1, k);
        }
        world_close(&world);
    }
}

/* --- online ----------------------------------------------------------------------------------- */

static struct {
    uint64_t next, end; /* frames that the hook has to see next, and their end */
    unsigned nr_chunks;
    uint32_t largest;
} hook;

/* H5: aligned to their size, no larger than a pageblock, and no smaller than they must be. */
static void hook_online(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    uint64_t twice = 2 * (uint64_t)nr_pages;

    (void)context;
    assert_int_equal(start.nr, hook.next);
    assert_true(nr_pages != 0 && start.nr % nr_pages == 0 && nr_pages <= pageblock_pages());
    assert_true(twice > pageblock_pages() || start.nr % twice != 0 || start.nr + twice > hook.end);
    must(memplug_release_pages(world.pool, start, nr_pages));
    hook.next += nr_pages;
    hook.nr_chunks++;
    if (nr_pages > hook.largest)
        hook.largest = nr_pages;
}

/* H3, H5, H6, R2, R3: a block of 256 pages, data starts exactly behind the 14 memmap frames. */
static void data_starts_behind_the_memmap(void **state)
{
    static const struct memplug_online_hook driver = {.online_pages = hook_online};
    struct memplug_zone_info zone;

    (void)state;
    open_as(FAKE_SMALL, 56);
    must(add(world.backing_a, 4, NR, MEMPLUG_MEMMAP_RANGE, 0));
    must(memplug_set_online_hook(world.pool, &driver));
    for (uint64_t id = 4; id < 4 + NR; id++) {
        struct memplug_block_info info;

        hook.next = id * block_pages() + (id == 4 ? 14 : 0);
        hook.end = (id + 1) * block_pages();
        hook.nr_chunks = 0;
        must(online(id, 1, MEMPLUG_ONLINE_MOVABLE));
        assert_int_equal(hook.next, hook.end);
        /* 14+2, 16+16, 32+32, and three pageblocks; or four of them. */
        assert_int_equal(hook.nr_chunks, id == 4 ? 6 : 4);
        info = info_of(id);
        assert_int_equal(info.nr_memmap_pages, id == 4 ? 14 : 0);
        assert_int_equal(info.nr_managed_pages, block_pages() - info.nr_memmap_pages);
        assert_int_equal(info.nr_free_pages, info.nr_managed_pages);
        assert_int_equal(info.nr_isolated_pageblocks, 0);
    }
    zone = zone_of(0, MEMPLUG_ZONE_MOVABLE);
    assert_int_equal(zone.start.nr, 4 * block_pages());
    assert_int_equal(zone.nr_spanned_pages, NR * block_pages());
    assert_int_equal(zone.nr_present_pages, NR * block_pages());
    assert_int_equal(zone.nr_managed_pages, NR * block_pages() - 14);
    world_check(&world);
    must(memplug_set_online_hook(world.pool, NULL));
    world_close(&world);
}

static int count_isolated(void *context, const struct memplug_notice *notice)
{
    uint64_t *nr_isolated = context;
    struct memplug_block_info info = info_of(notice->start.nr / block_pages());

    if (notice->event == MEMPLUG_GOING_ONLINE || notice->event == MEMPLUG_GOING_OFFLINE)
        *nr_isolated = info.nr_isolated_pageblocks;
    return 0;
}

/* H4, H6: isolated while they come and go are the pageblocks that have data, no others: with a
 * memmap that ends within a pageblock, that one too; with a padded one, not. */
static void what_is_isolated(void **state)
{
    static const struct {
        bool pad;
        uint64_t nr_memmap, nr_isolated;
    } cases[] = {{false, 14, 4}, {true, 64, 3}};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t nr_isolated = 0;
        const struct memplug_subscriber subscriber = {.name = "count", .notify = count_isolated,
                                                      .context = &nr_isolated};
        struct memplug_add request = {.address = 0, .memmap = MEMPLUG_MEMMAP_RANGE,
                                      .pad_memmap = cases[i].pad};

        open_as(FAKE_SMALL, 56);
        request.address = 4 * world.block_bytes;
        request.size_bytes = NR * world.block_bytes;
        request.backing = world.backing_a;
        must(memplug_add(world.pool, &request, NULL, &reason));
        must(memplug_subscribe(world.pool, &subscriber));
        assert_int_equal(info_of(4).nr_memmap_pages, cases[i].nr_memmap);
        for (uint64_t id = 4; id < 4 + NR; id++) {
            must(online(id, 1, MEMPLUG_ONLINE_MOVABLE));
            assert_int_equal(nr_isolated, id == 4 ? cases[i].nr_isolated : 4);
            nr_isolated = 0;
            assert_int_equal(zone_of(0, MEMPLUG_ZONE_MOVABLE).nr_isolated_pageblocks, 0);
        }
        for (uint64_t id = 4; id < 4 + NR; id++) {
            must(offline(id, 1));
            assert_int_equal(nr_isolated, id == 4 ? cases[i].nr_isolated : 4);
        }
        must(memplug_unsubscribe(world.pool, &subscriber));
        world_close(&world);
    }
}

/* --- offline and remove ----------------------------------------------------------------------- */

/* H7: the memmap's frames cannot move, and are in ZONE_MOVABLE: they go with what they describe. */
static void a_memmap_in_movable_does_not_hinder(void **state)
{
    (void)state;
    for (unsigned kind = MEMPLUG_MEMMAP_BLOCK; kind <= MEMPLUG_MEMMAP_RANGE; kind++) {
        open_as(FAKE_SMALL, 0);
        must(add(world.backing_a, 4, NR, (enum memplug_memmap)kind, 0));
        must(add(world.backing_b, 16, NR, (enum memplug_memmap)kind, 0));
        must(online(4, NR, MEMPLUG_ONLINE_MOVABLE));
        must(online(16, NR, MEMPLUG_ONLINE_MOVABLE));
        world_fill(&world, 4, NR, 40);
        for (uint64_t id = 4; id < 4 + NR; id++) {
            must(memplug_why(world.pool, id, &reason));
            must(offline(id, 1));
            world_check(&world); /* the rest of a range still has its memmap */
        }
        must(pull(4, NR));
        world_check(&world);
        world_close(&world);
    }
}

/* R8, H11, H12: a mixed range in either order, seen from its first block and from any other. */
static void the_walk_goes_to_the_end(void **state)
{
    (void)state;
    open_as(FAKE_SMALL, 0);
    for (unsigned mask = 0; mask < 1u << NR; mask++) { /* which of the blocks are self-hosted */
        struct fake_backing *backing = backing_of(NR);
        char *before;

        for (uint64_t i = 0; i < NR; i++) {
            struct memplug_add request = {
                .address = (4 + i) * world.block_bytes, .size_bytes = world.block_bytes,
                .memmap = mask >> i & 1 ? MEMPLUG_MEMMAP_BLOCK : MEMPLUG_MEMMAP_HOST,
                .backing = backing, .offset_bytes = i * world.block_bytes};

            must(memplug_add(world.pool, &request, NULL, &reason));
        }
        before = world_text(&world, false);
        if (mask == 0 || mask == (1u << NR) - 1) {
            must(pull(4, NR));
            free(before);
        } else {
            assert_int_equal(pull(4, NR), -EINVAL);
            world_blames(&reason, EINVAL, "with and without a memmap of their own");
            /* It names the first block that is not as the first of all. */
            assert_int_equal(reason.block, 4 + __builtin_ctz(mask & 1 ? ~mask : mask));
            world_same(&world, before, false);
            for (uint64_t i = 0; i < NR; i++)
                must(pull(4 + i, 1));
        }
        world_check(&world);
        fake_backing_close(backing);
    }
    world_close(&world);
}

/* A range whose memmap is larger than a block: 40 blocks of 256 pages, 320 frames of memmap. */
static void blocks_that_are_all_memmap(void **state)
{
    enum { NR_LONG = 40, FIRST = 8 };
    struct fake_backing *backing;
    struct memplug_stat stat;
    char *before;

    (void)state;
    open_as(FAKE_SMALL, 128);
    backing = backing_of(NR_LONG);
    before = world_text(&world, false);
    must(add(backing, FIRST, NR_LONG, MEMPLUG_MEMMAP_RANGE, 0));
    assert_int_equal(info_of(FIRST).nr_memmap_pages, 256);
    assert_int_equal(info_of(FIRST + 1).nr_memmap_pages, 64);
    assert_int_equal(info_of(FIRST + 2).nr_memmap_pages, 0);
    must(online(FIRST, NR_LONG, MEMPLUG_ONLINE_MOVABLE));
    world_check(&world);
    memplug_stat(world.pool, &stat);
    assert_int_equal(stat.nr_present_pages, NR_LONG * 256);
    assert_int_equal(stat.nr_managed_pages, NR_LONG * 256 - 320);
    assert_int_equal(stat.nr_memmap_pages, 320);
    assert_int_equal(info_of(FIRST).nr_managed_pages, 0);
    world_fill(&world, FIRST + 1, 3, 50);
    must(memplug_why(world.pool, FIRST, &reason));
    must(offline(FIRST, 1)); /* alone, and the others go on living */
    world_check(&world);
    must(offline(FIRST + 1, 1));
    must(online(FIRST, 2, MEMPLUG_ONLINE_KERNEL));
    world_check(&world);
    assert_int_equal(pull(FIRST, 1), -EINVAL);
    assert_int_equal(pull(FIRST, NR_LONG), -EBUSY);
    owner_free_all(world.owner);
    must(offline(FIRST, NR_LONG));
    must(pull(FIRST, NR_LONG));
    world_same(&world, before, false);
    fake_backing_close(backing);
    world_close(&world);
}

/* R3, R4: what is removed beside a neighbour, with struct pages whose memmaps share a large unit of
 * the window, takes nothing from it. */
static void removing_a_neighbour(void **state)
{
    uint64_t nr_memmap, tag = 0x1234567890abcdef, there = 0;
    memplug_pfn_t last;

    (void)state;
    open_as(FAKE_X86, 56); /* 448 frames of memmap a block: 1.75 MiB, the large unit is 2 MiB */
    must(add(world.backing_a, 4, NR, MEMPLUG_MEMMAP_BLOCK, 0));
    nr_memmap = info_of(5).nr_memmap_pages;
    assert_int_equal(nr_memmap, 448);
    must(online(5, 1, MEMPLUG_ONLINE_KERNEL));
    last = (memplug_pfn_t){6 * block_pages() - 1};
    memcpy(memplug_page_private(world.pool, last), &tag, sizeof(tag));
    must(pull(4, 1));
    must(pull(6, 1));
    world_check(&world);
    memcpy(&there, memplug_page_private(world.pool, last), sizeof(there));
    assert_int_equal(there, tag);
    must(offline(5, 1));
    must(pull(5, 1));
    world_check(&world);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_add_costs_no_existing_memory),
        cmocka_unit_test(an_add_without_memory),
        cmocka_unit_test(memmap_is_in_its_own_memory),
        cmocka_unit_test(data_starts_behind_the_memmap),
        cmocka_unit_test(what_is_isolated),
        cmocka_unit_test(a_memmap_in_movable_does_not_hinder),
        cmocka_unit_test(the_walk_goes_to_the_end),
        cmocka_unit_test(blocks_that_are_all_memmap),
        cmocka_unit_test(removing_a_neighbour),
    };

    return cmocka_run_group_tests_name("thread", tests, NULL, NULL);
}
