/* SPDX-License-Identifier: MIT */
/* 64 GiB of boot memory, in small blocks and in large ones: quick, since nobody touches it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "boot_world.h"

#define DMA_LIMIT (16 * MIB)
#define DMA32_LIMIT (4 * GIB)

static struct boot_world world;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void large_machines_boot_quickly(void **state)
{
    static const uint8_t block_shifts[] = {27, 31};
    const struct memplug_boot_memory memory[] = {
        {.address = 0x1000, .size_bytes = 0x9e000},
        {.address = MIB, .size_bytes = 2 * GIB - MIB - 0x20000},
        {.address = 4 * GIB, .size_bytes = 62 * GIB},
    };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct memplug_geometry geometry = fake_geometry(FAKE_X86);
        struct memplug_stat stat;
        double start = now(), booted;

        geometry.block_shift = block_shifts[i];
        boot_world_open(&world, &geometry, 66 * GIB, 1);
        assert_int_equal(boot_world_boot(&world, memory, 3, DMA_LIMIT, DMA32_LIMIT, NULL), 0);
        booted = now();
        memplug_stat(world.pool, &stat);
        assert_int_equal(stat.nr_present_pages, 3998 + (2 * GIB - DMA_LIMIT - 0x20000) / 4096 +
                                                    62 * GIB / 4096);
        boot_world_zone(&world, 0, MEMPLUG_ZONE_NORMAL, 1 << 20, 62 * GIB / 4096,
                        62 * GIB / 4096, 62 * GIB / 4096, 62 * GIB / 4096);
        assert_int_equal(memplug_offline(world.pool, 64 * GIB >> block_shifts[i], 1, NULL, NULL),
                         0);
        assert_int_equal(memplug_close(world.pool, NULL), 0);
        boot_world_end(&world);
        print_message("%u blocks: %.3f s to boot, %.3f s to close\n", (unsigned)stat.nr_blocks,
                      booted - start, now() - booted);
        assert_true(now() - start < 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_machines_boot_quickly),
    };

    return cmocka_run_group_tests_name("boot_large", tests, NULL, NULL);
}
