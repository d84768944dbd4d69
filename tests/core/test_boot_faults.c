/* SPDX-License-Identifier: MIT */
/* What memplug_boot() refuses, and every failure on its way: afterwards all is as it was, and a
 * boot that is right works. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "boot_world.h"

static struct boot_world world;

/* Three blocks: in two zones, with a hole, whole; of blocks of 1 MiB. */
static const struct memplug_boot_memory good[] = {
    {.address = 0x100000, .size_bytes = 0x180000},
    {.address = 0x290000, .size_bytes = 0x70000},
    {.address = 0x500000, .size_bytes = 0x100000, .node = 1},
};
#define DMA_LIMIT 0x180000u
#define NR_BLOCKS 3u

static void open_world(void)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);

    boot_world_open(&world, &geometry, 0x600000, 2);
}

static void must_boot(void)
{
    struct memplug_stat stat;

    assert_int_equal(boot_world_boot(&world, good, 3, DMA_LIMIT, 0, NULL), 0);
    boot_world_check(&world);
    memplug_stat(world.pool, &stat);
    assert_int_equal(stat.nr_online_blocks, NR_BLOCKS);
}

static void must_close(void)
{
    assert_int_equal(memplug_close(world.pool, NULL), 0);
    boot_world_end(&world);
}

static void same(char *before)
{
    char *after = boot_world_text(&world);

    assert_string_equal(before, after);
    boot_world_check(&world);
    free(before);
    free(after);
}

/* --- refusals --------------------------------------------------------------------------------- */

struct refusal {
    struct memplug_boot_memory memory[2];
    unsigned nr_memory;
    uint64_t dma_limit, dma32_limit;
    int error;
    const char *why;
};

#define ONE {.address = 0x100000, .size_bytes = 0x100000}

static const struct refusal refusals[] = {
    {{{0}}, 0, 0, 0, EINVAL, "no memory"},
    {{{.address = 0x100000}}, 1, 0, 0, EINVAL, "whole pages"},
    {{{.address = 0x100800, .size_bytes = 0x1000}}, 1, 0, 0, EINVAL, "whole pages"},
    {{{.address = 0x100000, .size_bytes = 0x1800}}, 1, 0, 0, EINVAL, "whole pages"},
    {{ONE, ONE}, 2, 0, 0, EINVAL, "ascending"},
    {{ONE, {.address = 0x1ff000, .size_bytes = 0x1000}}, 2, 0, 0, EINVAL, "ascending"},
    {{ONE, {.address = 0x80000, .size_bytes = 0x1000}}, 2, 0, 0, EINVAL, "ascending"},
    {{{.address = 64 * MIB, .size_bytes = 0x1000}}, 1, 0, 0, E2BIG, "limit"},
    {{{.address = 63 * MIB, .size_bytes = 0x101000}}, 1, 0, 0, E2BIG, "limit"},
    {{{.address = 0x1000, .size_bytes = UINT64_MAX - 0xfff}}, 1, 0, 0, E2BIG, "limit"},
    {{{.address = 0x1000, .size_bytes = 0x1000, .node = 2}}, 1, 0, 0, EINVAL, "node"},
    {{{.address = 0x1000, .size_bytes = 0x1000, .node = -1}}, 1, 0, 0, EINVAL, "node"},
    {{{.address = 0x1000, .size_bytes = 0x1000},
      {.address = 0xff000, .size_bytes = 0x1000, .node = 1}}, 2, 0, 0, EINVAL, "two nodes"},
    {{ONE}, 1, 0x800, 0, EINVAL, "limits"},
    {{ONE}, 1, 0, 0x1800, EINVAL, "limits"},
    {{ONE}, 1, 0x2000, 0x1000, EINVAL, "limits"},
    {{{.address = 0x500000, .size_bytes = 0x101000}}, 1, 0, 0, ENXIO, "too short"},
};

static void what_is_refused(void **state)
{
    (void)state;
    open_world();
    for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *refusal = &refusals[i];
        char *before = boot_world_text(&world);

        assert_int_equal(boot_world_boot(&world, refusal->memory, refusal->nr_memory,
                                         refusal->dma_limit, refusal->dma32_limit, NULL),
                         -refusal->error);
        assert_int_equal(world.reason.error, -refusal->error);
        assert_string_equal(world.reason.operation, "boot");
        if (strstr(world.reason.why, refusal->why) == NULL)
            fail_msg("\"%s\" says nothing of %s", world.reason.why, refusal->why);
        same(before);
    }
    must_boot();
    must_close();
}

static void once_and_first_of_all(void **state)
{
    struct memplug_add add = {.address = 0x800000, .size_bytes = 0x100000};
    char *before;

    (void)state;
    open_world();
    add.backing = world.more;
    assert_int_equal(memplug_add(world.pool, &add, NULL, NULL), 0);
    before = boot_world_text(&world);
    assert_int_equal(boot_world_boot(&world, good, 3, DMA_LIMIT, 0, NULL), -EBUSY);
    assert_int_equal(world.reason.block, 8);
    same(before);
    assert_int_equal(memplug_remove(world.pool, 0x800000, 0x100000, NULL, NULL), 0);
    must_boot();
    before = boot_world_text(&world);
    assert_int_equal(boot_world_boot(&world, good, 3, DMA_LIMIT, 0, NULL), -EBUSY);
    same(before);
    must_close();
    open_world(); /* when the last block has gone, it has booted all the same */
    assert_int_equal(boot_world_boot(&world, good + 2, 1, 0, 0, NULL), 0);
    assert_int_equal(memplug_offline(world.pool, 5, 1, NULL, NULL), 0);
    assert_int_equal(memplug_remove(world.pool, 0x500000, 0x100000, NULL, NULL), 0);
    boot_world_check(&world);
    before = boot_world_text(&world);
    assert_int_equal(boot_world_boot(&world, good, 3, DMA_LIMIT, 0, NULL), -EBUSY);
    same(before);
    must_close();
}

/* --- faults ----------------------------------------------------------------------------------- */

static void every_call_fails(void **state)
{
    uint64_t k = 1, nr_struck = 0;

    (void)state;
    for (bool forever = false;; forever = true) {
        for (k = 1;; k++) {
            char *before;
            int error;

            open_world();
            before = boot_world_text(&world);
            fault_arm(world.fault, k, forever, 0);
            error = boot_world_boot(&world, good, 3, DMA_LIMIT, 0, NULL);
            fault_disarm(world.fault);
            if (fault_fired(world.fault) == 0) {
                assert_int_equal(error, 0);
                free(before);
                must_close();
                break;
            }
            assert_int_not_equal(error, 0);
            assert_int_equal(world.reason.error, error);
            assert_non_null(world.reason.why);
            same(before);
            must_boot();
            must_close();
            nr_struck++;
        }
        if (forever)
            break;
    }
    /* lock, ranges; attach, memmap and bitmaps of each block; in two ways */
    assert_int_equal(nr_struck, 2 * (2 + 3 * NR_BLOCKS));
}

static void every_check_of_a_limit_strikes(void **state)
{
    (void)state;
    for (unsigned kind = FAULT_LIMIT_STOP; kind <= FAULT_LIMIT_DEADLINE; kind++)
        for (uint64_t k = 1;; k++) {
            struct fault_limit limit;
            char *before;
            int error;

            open_world();
            before = boot_world_text(&world);
            fault_limit_init(&limit, (enum fault_limit_kind)kind, k, world.fault);
            error = boot_world_boot(&world, good, 3, DMA_LIMIT, 0, &limit.limit);
            if (error == 0) {
                assert_int_equal(limit.nr_checks, 5 * NR_BLOCKS);
                free(before);
                must_close();
                break;
            }
            assert_int_equal(error, kind == FAULT_LIMIT_STOP ? -EINTR : -ETIMEDOUT);
            same(before);
            must_boot();
            must_close();
        }
}

/* --- what is heard ---------------------------------------------------------------------------- */

static int refuse(void *context, const struct memplug_notice *notice)
{
    (void)context;
    (void)notice;
    return -EPERM;
}

static void hear(void *context, const struct memplug_uevent *event)
{
    (void)context;
    (void)event;
    fail();
}

static void never(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    (void)context;
    (void)start;
    (void)nr_pages;
    fail();
}

static void nobody_hears_of_it(void **state)
{
    const struct memplug_subscriber subscriber = {.name = "x", .notify = refuse};
    const struct memplug_listener listener = {.hear = hear};
    const struct memplug_online_hook hook = {.online_pages = never};

    (void)state;
    open_world();
    assert_int_equal(memplug_subscribe(world.pool, &subscriber), 0);
    assert_int_equal(memplug_listen(world.pool, &listener), 0);
    assert_int_equal(memplug_set_online_hook(world.pool, &hook), 0);
    must_boot();
    must_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(once_and_first_of_all),
        cmocka_unit_test(every_call_fails),
        cmocka_unit_test(every_check_of_a_limit_strikes),
        cmocka_unit_test(nobody_hears_of_it),
    };

    return cmocka_run_group_tests_name("boot_faults", tests, NULL, NULL);
}
