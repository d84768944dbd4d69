/* SPDX-License-Identifier: MIT */
#include "boot_world.h"

#include "buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NR_BLOCKS_MAX UINT64_C(4096) /* of a pool */

void boot_world_open(struct boot_world *world, const struct memplug_geometry *geometry,
                     uint64_t memory_bytes, unsigned nr_nodes)
{
    uint64_t block_bytes = UINT64_C(1) << geometry->block_shift;
    struct fake_config machine = {
        .geometry = *geometry,
        .nr_cpus = 2,
        .boot_bytes = 64 * MIB + memory_bytes / 32, /* a memmap takes a 64th */
        .fill_bytes = 4096,
        .memmap_fill_bytes = 4096,
        .clock_step_ns = 1000,
    };
    struct memplug_config config = {.nr_nodes = nr_nodes};
    uint64_t size_bytes = (memory_bytes + block_bytes - 1) / block_bytes * block_bytes;

    *world = (struct boot_world){
        .block_bytes = block_bytes, .block_pages = block_bytes >> geometry->page_shift};
    if (geometry->address_limit / block_bytes > NR_BLOCKS_MAX)
        machine.geometry.address_limit = NR_BLOCKS_MAX * block_bytes;
    assert_int_equal(fake_open(&machine, &world->machine), 0);
    assert_int_equal(fault_open(fake_host(world->machine), &world->fault), 0);
    world->backing = fake_backing_open(world->machine,
                                       &(struct fake_backing_spec){.size_bytes = size_bytes});
    world->more = fake_backing_open(world->machine,
                                    &(struct fake_backing_spec){.size_bytes = 4 * block_bytes});
    assert_true(world->backing != NULL && world->more != NULL);
    config.host = fault_host(world->fault);
    size_bytes = memplug_metadata_bytes(&config);
    assert_int_equal(memplug_open(&config, fake_metadata(world->machine, size_bytes), size_bytes,
                                  &world->pool, NULL), 0);
}

void boot_world_abandon(struct boot_world *world)
{
    (void)fake_close(world->machine, NULL, 0);
    fault_close(world->fault);
}

void boot_world_end(struct boot_world *world)
{
    char text[256];

    fake_backing_close(world->backing);
    fake_backing_close(world->more);
    if (fake_close(world->machine, text, sizeof(text)) != 0)
        fail_msg("left behind: %s", text);
    fault_close(world->fault);
}

int boot_world_boot(struct boot_world *world, const struct memplug_boot_memory *memory,
                    unsigned nr_memory, uint64_t dma_limit, uint64_t dma32_limit,
                    const struct memplug_limit *limit)
{
    const struct memplug_boot boot = {
        .memory = memory,
        .nr_memory = nr_memory,
        .dma_limit = dma_limit,
        .dma32_limit = dma32_limit,
        .backing = world->backing,
    };

    return memplug_boot(world->pool, &boot, limit, &world->reason);
}

char *boot_world_text(struct boot_world *world)
{
    struct buffer buffer = {0};

    assert_int_equal(memplug_dump(world->pool, buffer_append, &buffer), 0);
    fake_dump(world->machine, buffer_append, &buffer);
    return buffer.text;
}

void boot_world_check(struct boot_world *world)
{
    struct memplug_reason reason;
    char text[512];

    if (memplug_check(world->pool, &reason) != 0) {
        memplug_reason_text(&reason, text, sizeof(text));
        fail_msg("%s", text);
    }
    if (fake_check(world->machine, text, sizeof(text)) != 0)
        fail_msg("%s", text);
}

void boot_world_zone(struct boot_world *world, int node, enum memplug_zone zone, uint64_t start,
                     uint64_t nr_spanned, uint64_t nr_present, uint64_t nr_managed,
                     uint64_t nr_early)
{
    struct memplug_zone_info info;

    assert_int_equal(memplug_zone_info(world->pool, node, zone, &info), 0);
    assert_int_equal(info.start.nr, start);
    assert_int_equal(info.nr_spanned_pages, nr_spanned);
    assert_int_equal(info.nr_present_pages, nr_present);
    assert_int_equal(info.nr_managed_pages, nr_managed);
    assert_int_equal(info.nr_early_pages, nr_early);
}
