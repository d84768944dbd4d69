/* SPDX-License-Identifier: MIT */
/* Transcript 36 on the attribute tree: boot blocks, those with holes, those in several zones. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/attr.h>

#include "boot_world.h"

#define M "devices/system/memory/"

struct machine {
    struct boot_world world;
    struct memplug_attr tree;
};

/* A PC with 1 GiB. */
static void open_machine(struct machine *machine)
{
    static const struct memplug_boot_memory memory[] = {
        {.address = 0x1000, .size_bytes = 0x9e000},
        {.address = MIB, .size_bytes = GIB - MIB - 0x20000},
    };
    struct memplug_geometry geometry = fake_geometry(FAKE_X86);
    struct memplug_config pool_config = {.nr_nodes = 1};

    boot_world_open(&machine->world, &geometry, GIB, 1);
    assert_int_equal(boot_world_boot(&machine->world, memory, 2, 16 * MIB, 4 * GIB, NULL), 0);
    pool_config.host = fault_host(machine->world.fault);
    assert_int_equal(memplug_attr_init(&machine->tree,
                                       &(struct memplug_attr_config){
                                           .pool = machine->world.pool,
                                           .pool_config = &pool_config,
                                       }),
                     0);
}

static void close_machine(struct machine *machine)
{
    boot_world_check(&machine->world);
    assert_int_equal(memplug_attr_fini(&machine->tree), 0);
    assert_int_equal(memplug_close(machine->world.pool, NULL), 0);
    boot_world_end(&machine->world);
}

static void get(struct machine *machine, const char *path, const char *expected)
{
    char text[1024];

    assert_true(memplug_attr_get(&machine->tree, path, text, sizeof(text)) >= 0);
    if (strcmp(text, expected) != 0)
        fail_msg("%s: \"%s\", not \"%s\"", path, text, expected);
}

/* Without the times behind them. */
static void events(struct machine *machine, const char *expected)
{
    char text[1024], bare[1024] = "";

    assert_true(memplug_attr_get(&machine->tree, "memplug/events", text, sizeof(text)) >= 0);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        *strrchr(line, ' ') = '\0';
        strcat(strcat(bare, line), "\n");
    }
    assert_string_equal(bare, expected);
}

static void set(struct machine *machine, unsigned block, const char *word, int expected)
{
    char path[64];
    int got;

    snprintf(path, sizeof(path), M "memory%u/state", block);
    got = memplug_attr_set(&machine->tree, path, word, strlen(word), NULL, NULL);
    if (got != expected)
        fail_msg("%s <- %s: %d, not %d", path, word, got, expected);
}

static void zones(struct machine *machine, unsigned block, const char *expected)
{
    char path[64];

    snprintf(path, sizeof(path), M "memory%u/valid_zones", block);
    get(machine, path, expected);
}

static void test_boot_blocks(void **state)
{
    struct machine machine;

    (void)state;
    open_machine(&machine);
    zones(&machine, 0, "none\n");
    set(&machine, 0, "offline", -EINVAL);
    for (unsigned block = 1; block < 8; block++) {
        zones(&machine, block, "DMA32\n");
        set(&machine, block, "offline", block < 7 ? 7 : -EINVAL);
    }
    for (unsigned block = 1; block < 7; block++)
        zones(&machine, block, "DMA32 Movable\n");
    set(&machine, 0, "offline", -EINVAL);
    set(&machine, 5, "offline", -EINVAL);
    set(&machine, 6, "offline", -EINVAL);
    set(&machine, 6, "online_movable", 14);
    set(&machine, 6, "online", -EINVAL);
    set(&machine, 5, "online", 6);
    zones(&machine, 5, "DMA32\n");
    zones(&machine, 6, "Movable\n");
    get(&machine, "devices/system/node/has_memory", "0\n");
    get(&machine, "devices/system/node/has_normal_memory", "0\n");
    events(&machine,
        "0 offline memory1\n1 offline memory2\n2 offline memory3\n3 offline memory4\n"
        "4 offline memory5\n5 offline memory6\n6 online memory6\n7 online memory5\n");
    close_machine(&machine);
}

static void count(void *context, const struct memplug_attr_item *item)
{
    (void)item;
    ++*(unsigned *)context;
}

/* The tree tells a boot block's zone and holes, and says nothing of where these are. */
static void test_boot_blocks_are_told_apart(void **state)
{
    struct machine machine;
    unsigned nr_ranges = 0;

    (void)state;
    open_machine(&machine);
    get(&machine, "memplug/ranges",
        "0x0-0x3fffffff first 0 blocks 8 node 0 memmap host group 0 boot 1\n");
    assert_int_equal(memplug_attr_list(&machine.tree, "firmware/memmap", count, &nr_ranges), 0);
    assert_int_equal(nr_ranges, 0);
    get(&machine, "firmware/memory/memory3/memmap_on_memory", "0\n");
    get(&machine, "memplug/zones/0/DMA/start_pfn", "1\n");
    get(&machine, "memplug/zones/0/DMA/spanned", "4095\n");
    get(&machine, "memplug/zones/0/DMA/present", "3998\n");
    get(&machine, "memplug/zones/0/DMA32/start_pfn", "4096\n");
    get(&machine, "memplug/blocks/0/stat",
        "zone none\nmemmap host\naddress 0x0\nunit_first 0\nunit_nr_blocks 1\n"
        "nr_memmap_pages 0\nnr_managed_pages 0\nnr_free_pages 0\nnr_isolated_pageblocks 0\n"
        "nr_absent_pages 98\nnr_poisoned_pages 0\ngroup 0\nboot 1\n");
    close_machine(&machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_boot_blocks),
        cmocka_unit_test(test_boot_blocks_are_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
