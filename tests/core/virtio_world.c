/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "virtio_world.h"

struct world world;
struct virtio_mem_driver driver;
struct virtio_mem device;
struct memplug_reason reason;
void *device_state;
uint64_t seed;
static struct fake_backing *backing;

uint64_t unit(void)
{
    return device.sub_block_bytes;
}

uint64_t sub_pages(void)
{
    return device.sub_block_bytes >> world.geometry.page_shift;
}

struct virtio_mem_config region(uint64_t threshold_blocks)
{
    uint64_t pageblock = (uint64_t)1
                         << (world.geometry.page_shift + world.geometry.pageblock_order);

    return (struct virtio_mem_config){
        .name = "v",
        .address = FIRST * world.block_bytes + pageblock,
        .size_bytes = (NR_BLOCKS + 1) * world.block_bytes,
        .device_block_bytes = pageblock,
        .threshold_bytes = threshold_blocks * world.block_bytes,
        .backing = backing,
    };
}

void open_device(enum fake_shape shape, uint64_t threshold_blocks)
{
    struct virtio_mem_config config;

    world_open(&world, &(struct world_config){.shape = shape, .seed = seed + 1,
                                              .content = FAKE_CONTENT_KEEP});
    must(world_add(&world, world.backing_b, ROOM, MEMPLUG_MEMMAP_HOST, NULL, &reason));
    must(memplug_online(world.pool, ROOM, WORLD_RANGE_BLOCKS, MEMPLUG_ONLINE_MOVABLE, NULL,
                        &reason));
    backing = fake_backing_open(world.machine, &(struct fake_backing_spec){
                                                   .size_bytes = (NR_BLOCKS + 1) *
                                                                 world.block_bytes,
                                                   .content = FAKE_CONTENT_KEEP});
    assert_non_null(backing);
    config = region(threshold_blocks);
    device_state = calloc(1, virtio_mem_state_bytes(&world.geometry, &config));
    must(virtio_mem_driver_open(&driver, world.pool, &world.geometry));
    must(virtio_mem_open(&driver, &device, &config, device_state, &reason));
    assert_int_equal(device.first_block, FIRST + 1);
    assert_int_equal(device.nr_blocks, NR_BLOCKS);
}

void close_device(void)
{
    must(virtio_mem_request(&device, 0, NULL, &reason));
    assert_int_equal(device.plugged_bytes, 0);
    for (uint64_t block = 0; block < NR_BLOCKS; block++) {
        struct memplug_block_info info;

        assert_int_equal(memplug_block_info(world.pool, device.first_block + block, &info),
                         -ENODEV);
    }
    must(virtio_mem_close(&device, &reason));
    must(virtio_mem_driver_close(&driver));
    fake_backing_close(backing);
    free(device_state);
    world_close(&world);
}

/* --- what must hold --------------------------------------------------------------------------- */

static void check_sub_block(uint64_t block, uint64_t sub_block, bool online)
{
    uint64_t first = ((device.first_block + block) * device.sub_blocks + sub_block) * sub_pages();
    bool plugged = device.plugged[block * device.sub_blocks + sub_block] != 0;

    for (unsigned i = 0; i < 2; i++) {
        memplug_pfn_t pfn = {first + (i != 0 ? sub_pages() - 1 : 0)};
        enum memplug_frame_kind kind = memplug_frame_kind(world.pool, pfn);
        bool right = !online ? kind == MEMPLUG_FRAME_ABSENT
                     : plugged ? kind == MEMPLUG_FRAME_FREE || kind == MEMPLUG_FRAME_MOVABLE
                               : kind == MEMPLUG_FRAME_KEPT;

        if (!right)
            fail_msg("seed %llu: block %llu, sub-block %llu: kind %d", (unsigned long long)seed,
                     (unsigned long long)block, (unsigned long long)sub_block, kind);
    }
}

void check_device(void)
{
    uint64_t plugged_bytes = 0;

    for (uint64_t block = 0; block < NR_BLOCKS; block++) {
        struct memplug_block_info info;
        uint64_t nr_plugged = 0;
        bool there = memplug_block_info(world.pool, device.first_block + block, &info) == 0;
        bool online = there && info.state == MEMPLUG_BLOCK_ONLINE;

        for (uint64_t i = 0; i < device.sub_blocks; i++) {
            nr_plugged += device.plugged[block * device.sub_blocks + i];
            check_sub_block(block, i, online);
        }
        plugged_bytes += nr_plugged * unit();
        assert_int_equal(device.let_go[block], 0);
        if (!there)
            assert_int_equal(nr_plugged, 0);
        else
            assert_int_equal(info.nr_managed_pages, online ? nr_plugged * sub_pages() : 0);
    }
    assert_int_equal(plugged_bytes, device.plugged_bytes);
    assert_int_equal(driver.error, 0);
    world_check(&world);
}

void request(uint64_t nr_sub_blocks)
{
    must(virtio_mem_request(&device, nr_sub_blocks * unit(), NULL, &reason));
}

void online(uint64_t block, enum memplug_online_type type)
{
    must(memplug_online(world.pool, device.first_block + block, 1, type, NULL, &reason));
}
