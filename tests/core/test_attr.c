/* SPDX-License-Identifier: MIT */
/* What the kernel's transcripts show of reads and writes, step by step, on the attribute tree. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/policy.h>

#include "attr_stage.h"

#define COUNT(array) ((unsigned)(sizeof(array) / sizeof((array)[0])))
#define BYTES(string) (string), sizeof(string) - 1
#define M "devices/system/memory/"
#define B M "memory48/"
#define P "module/memory_hotplug/parameters/"

/* A write, or, with no text, a read of `value`; then the block's state, and what was heard. */
struct step {
    const char *path, *text;
    size_t length;
    int result;
    const char *value;
    const char *state;
    const char *events;
};

#define WRITE(path, text, result, state, events) {path, BYTES(text), result, NULL, state, events}
#define READ(path, value, state) {path, NULL, 0, 0, value, state, ""}

static void run_steps(struct attr_stage *stage, const struct step *steps, unsigned nr_steps)
{
    for (unsigned i = 0; i < nr_steps; i++) {
        const struct step *step = &steps[i];

        if (step->text != NULL)
            stage_set_bytes(stage, step->path, step->text, step->length, step->result);
        else
            stage_get(stage, step->path, step->value);
        if (step->state != NULL)
            stage_get(stage, B "state", step->state);
        stage_events(stage, step->events);
    }
}

#define OFF "offline\n"
#define ON "online\n"
#define WENT_ON "online memory48"
#define WENT_OFF "offline memory48"

/* Transcript 07, all of its writes. */
static const struct step illegal_writes[] = {
    WRITE(B "state", "offline", -EINVAL, OFF, ""),
    WRITE(B "state", "garbage", -EINVAL, OFF, ""),
    WRITE(B "state", "", 0, OFF, ""),
    WRITE(B "state", "Online", -EINVAL, OFF, ""),
    WRITE(B "state", "online_", -EINVAL, OFF, ""),
    WRITE(B "state", "onlin", -EINVAL, OFF, ""),
    WRITE(B "state", "online_kernel_x", -EINVAL, OFF, ""),
    WRITE(B "state", "online online", -EINVAL, OFF, ""),
    WRITE(B "state", "go_away", -EINVAL, OFF, ""),
    WRITE(B "state", " online", -EINVAL, OFF, ""),
    WRITE(B "state", "online", 6, ON, WENT_ON),
    WRITE(B "state", "1", -EINVAL, ON, ""),
    WRITE(B "state", "keep", -EINVAL, ON, ""),
    READ(B "state", ON, ON),
    WRITE(B "online", "0", 1, OFF, WENT_OFF),
    WRITE(B "online", "2", -EINVAL, OFF, ""),
    WRITE(B "online", "x", -EINVAL, OFF, ""),
    WRITE(B "online", "1", 1, ON, WENT_ON),
    READ(B "online", "1\n", ON),
    WRITE(B "online", "1", 1, ON, ""),
    WRITE(B "state", "online", -EINVAL, ON, ""),
    WRITE(B "state", "online_kernel", -EINVAL, ON, ""),
    WRITE(B "state", "online_movable", -EINVAL, ON, ""),
    WRITE(B "state", "garbage", -EINVAL, ON, ""),
    WRITE(B "online", "0", 1, OFF, WENT_OFF),
    WRITE(B "online", "0", 1, OFF, ""),
    READ(B "online", "0\n", OFF),
    WRITE(B "state", "online_movable", 14, ON, WENT_ON),
    WRITE(B "state", "online", -EINVAL, ON, ""),
    WRITE(B "state", "online_kernel", -EINVAL, ON, ""),
    READ(B "valid_zones", "Movable\n", ON),
    WRITE(B "state", "offline", 7, OFF, WENT_OFF),
    WRITE(B "state", "offline", -EINVAL, OFF, ""),
    WRITE(B "online", "y", 1, ON, WENT_ON),
    WRITE(B "online", "N", 1, OFF, WENT_OFF),
    WRITE(B "online", "on", 2, ON, WENT_ON),
    WRITE(B "online", "off", 3, OFF, WENT_OFF),
    WRITE(B "phys_index", "5", -EACCES, OFF, ""),
    WRITE(B "removable", "1", -EACCES, OFF, ""),
    WRITE(B "valid_zones", "Movable", -EACCES, OFF, ""),
    WRITE(B "phys_device", "1", -EACCES, OFF, ""),
    WRITE(M "memory57/state", "online", -ENOENT, OFF, ""),
    WRITE(M "block_size_bytes", "1", -EACCES, OFF, ""),
    WRITE(M "auto_online_blocks", "bogus", -EINVAL, OFF, ""),
    READ(M "auto_online_blocks", OFF, OFF),
    WRITE(M "probe", "0x180000000", -ENOENT, OFF, ""),
    WRITE(M "soft_offline_page", "garbage", -EINVAL, OFF, ""),
    WRITE(M "hard_offline_page", "garbage", -EINVAL, OFF, ""),
    READ(M "uevent", "", OFF),
    READ(B "uevent", "", OFF),
};

static void test_illegal_writes(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 1);
    stage_add(&stage, stage.world.backing_a, 0, 48, 1, 0);
    stage_events(&stage, "add memory48");
    run_steps(&stage, illegal_writes, COUNT(illegal_writes));
    stage_close(&stage);
}

/* What else linux semantics, 3, says of words: ends, zeros, lengths, files that only tell. */
static const struct step words[] = {
    WRITE(B "state", "online\n", 7, ON, WENT_ON),
    WRITE(B "state", "offline\n\n", -EINVAL, ON, ""),
    WRITE(B "state", "offline ", -EINVAL, ON, ""),
    WRITE(B "state", "offline\n", 8, OFF, WENT_OFF),
    WRITE(B "state", "online\0whatever", 15, ON, WENT_ON),
    WRITE(B "state", "\0offline", -EINVAL, ON, ""),
    WRITE(B "state", "offline\n\0\n", 10, OFF, WENT_OFF),
    WRITE(B "state", "online_kernel\n", 14, ON, WENT_ON),
    READ(B "valid_zones", "Normal\n", ON),
    WRITE(B "online", "OFFLINE", 7, OFF, WENT_OFF),
    WRITE(B "online", "oN\n", 3, ON, WENT_ON),
    WRITE(B "online", "of", 2, OFF, WENT_OFF),
    WRITE(B "online", "o", -EINVAL, OFF, ""),
    WRITE(B "online", "", 0, OFF, ""),
    WRITE(B "online", " 1", -EINVAL, OFF, ""),
    WRITE(B "online", "Yes", 3, ON, WENT_ON),
    WRITE(B "online", "no", 2, OFF, WENT_OFF),
    READ(B "phys_index", "00000030\n", OFF),
    READ(B "phys_device", "0\n", OFF),
    READ(B "removable", "1\n", OFF),
    READ(M "block_size_bytes", "8000000\n", OFF),
    WRITE(M "soft_offline_page", "0x", -EINVAL, OFF, ""),
    WRITE(M "soft_offline_page", "-1", -EINVAL, OFF, ""),
    WRITE(M "hard_offline_page", "0x10000000000000000", -EINVAL, OFF, ""),
    WRITE(M "hard_offline_page", "", 0, OFF, ""),
    WRITE(B "uevent", "add\n", 4, OFF, "add memory48"),
    WRITE(B "uevent", "change", 6, OFF, "change memory48"),
    WRITE(B "uevent", "bogus", -EINVAL, OFF, ""),
    WRITE(M "uevent", "add", 3, OFF, "add memory"),
    WRITE("devices/system/node/node0/uevent", "online", 6, OFF, "online node0"),
    WRITE(M, "online", -EISDIR, OFF, ""),
    WRITE(B "state/", "online", -ENOTDIR, OFF, ""),
    WRITE(B "state/x", "online", -ENOTDIR, OFF, ""),
};

static void test_words(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 1);
    stage_add(&stage, stage.world.backing_a, 0, 48, 1, 0);
    stage_events(&stage, "add memory48");
    run_steps(&stage, words, COUNT(words));
    stage_close(&stage);
}

/* A page of text is taken, and no more; what follows a zero byte is not looked at. */
static void test_a_write_takes_a_page_at_most(void **state)
{
    static char text[2 * MEMPLUG_ATTR_WRITE_MAX];
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_SMALL, 1);
    stage_add(&stage, stage.world.backing_a, 0, 2, 1, 0);
    memset(text, 'x', sizeof(text));
    stage_set_bytes(&stage, M "memory2/state", text, sizeof(text), -EINVAL);
    memcpy(text, "online", 7);
    stage_set_bytes(&stage, M "memory2/state", text, sizeof(text), MEMPLUG_ATTR_WRITE_MAX);
    stage_get(&stage, M "memory2/state", ON);
    stage_close(&stage);
}

/* Transcript 11, its writes. */
static const struct step auto_online[] = {
    READ(M "auto_online_blocks", "offline\n", OFF),
    WRITE(M "auto_online_blocks", "online", 6, OFF, ""),
    READ(M "auto_online_blocks", "online\n", OFF),
    WRITE(M "auto_online_blocks", "online_movable", 14, OFF, ""),
    READ(M "auto_online_blocks", "online_movable\n", OFF),
    WRITE(M "auto_online_blocks", "online_kernel\n", 14, OFF, ""),
    READ(M "auto_online_blocks", "online_kernel\n", OFF),
    WRITE(M "auto_online_blocks", "bogus", -EINVAL, OFF, ""),
    READ(M "auto_online_blocks", "online_kernel\n", OFF),
    WRITE(M "auto_online_blocks", "offline", 7, OFF, ""),
    WRITE(M "auto_online_blocks", "bogus", -EINVAL, OFF, ""),
    WRITE(M "auto_online_blocks", "", 0, OFF, ""),
    WRITE(M "auto_online_blocks", "onlin", -EINVAL, OFF, ""),
    WRITE(M "auto_online_blocks", "Online", -EINVAL, OFF, ""),
    READ(M "auto_online_blocks", "offline\n", OFF),
};

/* Transcript 12, likewise, and other spellings of numbers. */
static const struct step parameters[] = {
    READ(P "online_policy", "contig-zones\n", OFF),
    READ(P "auto_movable_ratio", "301\n", OFF),
    READ(P "auto_movable_numa_aware", "Y\n", OFF),
    READ(P "memmap_on_memory", "Y\n", OFF),
    WRITE(P "memmap_on_memory", "0", -EACCES, OFF, ""),
    WRITE(P "online_policy", "bogus", -EINVAL, OFF, ""),
    READ(P "online_policy", "contig-zones\n", OFF),
    WRITE(P "online_policy", "auto-movable", 12, OFF, ""),
    READ(P "online_policy", "auto-movable\n", OFF),
    WRITE(P "auto_movable_ratio", "10", 2, OFF, ""),
    READ(P "auto_movable_ratio", "10\n", OFF),
    WRITE(P "auto_movable_ratio", "0", 1, OFF, ""),
    READ(P "auto_movable_ratio", "0\n", OFF),
    WRITE(P "auto_movable_ratio", "0x12d\n", 6, OFF, ""),
    READ(P "auto_movable_ratio", "301\n", OFF),
    WRITE(P "auto_movable_ratio", "-1", -EINVAL, OFF, ""),
    WRITE(P "auto_movable_ratio", "abc", -EINVAL, OFF, ""),
    WRITE(P "auto_movable_ratio", "4294967296", -ERANGE, OFF, ""),
    WRITE(P "auto_movable_ratio", "", 0, OFF, ""),
    READ(P "auto_movable_ratio", "301\n", OFF),
    WRITE(P "auto_movable_numa_aware", "2", -EINVAL, OFF, ""),
    READ(P "auto_movable_numa_aware", "Y\n", OFF),
    WRITE(P "auto_movable_numa_aware", "N", 1, OFF, ""),
    READ(P "auto_movable_numa_aware", "N\n", OFF),
    WRITE(P "auto_movable_numa_aware", "on\n", 3, OFF, ""),
    READ(P "auto_movable_numa_aware", "Y\n", OFF),
    WRITE(P "online_policy", "contig-zones\n", 13, OFF, ""),
    READ(P "online_policy", "contig-zones\n", OFF),
    WRITE("memplug/movable_node", "y", 1, OFF, ""),
    READ("memplug/movable_node", "Y\n", OFF),
    WRITE("memplug/movable_node", "2", -EINVAL, OFF, ""),
    WRITE("memplug/movable_node", "n", 1, OFF, ""),
    READ("memplug/movable_node", "N\n", OFF),
};

static void test_policy_files(void **state)
{
    struct memplug_policy policy = {.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_FORCE};
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 1);
    stage_add(&stage, stage.world.backing_a, 0, 48, 1, 0);
    stage_events(&stage, "add memory48");
    run_steps(&stage, auto_online, COUNT(auto_online));
    run_steps(&stage, parameters, COUNT(parameters));
    /* Transcript 32. */
    assert_int_equal(memplug_policy_set(stage.world.pool, &policy,
                                        MEMPLUG_POLICY_MEMMAP_ON_MEMORY),
                     0);
    stage_get(&stage, P "memmap_on_memory", "force\n");
    policy.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_NO;
    assert_int_equal(memplug_policy_set(stage.world.pool, &policy,
                                        MEMPLUG_POLICY_MEMMAP_ON_MEMORY),
                     0);
    stage_get(&stage, P "memmap_on_memory", "N\n");
    stage_close(&stage);
}

/* Transcript 11, its adds: the word that stands there when a range is added is the one. */
static void test_later_adds_go_online(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 1);
    stage_add(&stage, stage.world.backing_a, 0, 48, 1, 0);
    stage_set(&stage, M "auto_online_blocks", "online", 6);
    stage_get(&stage, B "state", OFF);
    stage_add(&stage, stage.world.backing_a, 1, 49, 1, 0);
    stage_events(&stage, "add memory48, add memory49, online memory49");
    stage_get(&stage, M "memory49/valid_zones", "Normal\n");
    stage_set(&stage, M "auto_online_blocks", "online_movable", 14);
    stage_add(&stage, stage.world.backing_a, 2, 50, 1, 0);
    stage_get(&stage, M "memory50/valid_zones", "Movable\n");
    stage_set(&stage, M "auto_online_blocks", "online_kernel", 13);
    stage_add(&stage, stage.world.backing_a, 3, 51, 1, 0);
    stage_get(&stage, M "memory51/valid_zones", "Normal\n");
    stage.nr_heard = stage.tree.nr_events;
    stage_set(&stage, M "auto_online_blocks", "online_movable", 14);
    stage_add(&stage, stage.world.backing_b, 0, 56, 2, 0);
    stage_events(&stage, "add memory56, add memory57, online memory56, online memory57");
    stage_set(&stage, M "auto_online_blocks", "offline", 7);
    stage_add(&stage, stage.world.backing_b, 2, 52, 1, 0);
    stage_events(&stage, "add memory52");
    stage_get(&stage, M "memory52/valid_zones", "Movable Normal\n");
    stage_close(&stage);
}

/* --- transcript 27: two nodes ----------------------------------------------------------------- */

#define N "devices/system/node/"

static void masks(struct attr_stage *stage, const char *online, const char *memory,
                  const char *normal)
{
    stage_get(stage, N "possible", "0-1\n");
    stage_get(stage, N "has_cpu", "0\n");
    stage_get(stage, N "online", online);
    stage_get(stage, N "has_memory", memory);
    stage_get(stage, N "has_normal_memory", normal);
}

#define FILES "has_cpu has_memory has_normal_memory online possible"

static void test_two_nodes(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 2);
    masks(&stage, "0\n", "\n", "\n");
    stage_names(&stage, N, FILES " node0/");
    stage_add(&stage, stage.world.backing_a, 0, 48, 1, 1);
    stage_events(&stage, "add memory48, add node1");
    masks(&stage, "0-1\n", "\n", "\n");
    stage_names(&stage, N, FILES " node0/ node1/");
    stage_names(&stage, N "node1", "hugepages/ meminfo uevent memory48@");
    stage_names(&stage, B, "online phys_device phys_index removable state uevent valid_zones "
                           "node1@");
    stage_get(&stage, N "node1/meminfo",
              "Node 1 MemTotal:              0 kB\n"
              "Node 1 MemFree:               0 kB\n"
              "Node 1 MemUsed:               0 kB\n"
              "Node 1 HugePages_Total:     0\n"
              "Node 1 HugePages_Free:      0\n"
              "Node 1 HugePages_Surp:      0\n");
    stage_set(&stage, B "state", "online_movable", 14);
    stage_events(&stage, "online memory48");
    masks(&stage, "0-1\n", "1\n", "\n");
    stage_get(&stage, N "node1/meminfo",
              "Node 1 MemTotal:         129024 kB\n"
              "Node 1 MemFree:          129024 kB\n"
              "Node 1 MemUsed:               0 kB\n"
              "Node 1 HugePages_Total:     0\n"
              "Node 1 HugePages_Free:      0\n"
              "Node 1 HugePages_Surp:      0\n");
    stage_add(&stage, stage.world.backing_a, 1, 49, 1, 1);
    stage_set(&stage, N "node1/memory49/state", "online_kernel", 13);
    stage_add(&stage, stage.world.backing_a, 2, 50, 1, 0);
    stage_set(&stage, M "memory50/state", "online_movable", 14);
    stage_events(&stage, "add memory49, online memory49, add memory50, online memory50");
    masks(&stage, "0-1\n", "0-1\n", "1\n");
    stage_set(&stage, B "state", "offline", 7);
    stage_remove(&stage, 48, 1);
    stage_events(&stage, "offline memory48, remove memory48");
    masks(&stage, "0-1\n", "0-1\n", "1\n");
    stage_set(&stage, M "memory49/state", "offline", 7);
    masks(&stage, "0-1\n", "0\n", "\n");
    stage_remove(&stage, 49, 1);
    stage_events(&stage, "offline memory49, remove memory49, remove node1");
    masks(&stage, "0\n", "0\n", "\n");
    assert_int_equal(stage_opens(&stage, N "node1/meminfo", MEMPLUG_ATTR_READ), -ENOENT);
    stage_close(&stage);
}

static void test_masks_with_gaps(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_SMALL, 64);
    stage_get(&stage, N "possible", "0-63\n");
    stage_add(&stage, stage.world.backing_a, 0, 2, 1, 63);
    stage_add(&stage, stage.world.backing_a, 1, 3, 1, 2);
    stage_add(&stage, stage.world.backing_a, 2, 4, 1, 3);
    stage_add(&stage, stage.world.backing_a, 3, 5, 1, 5);
    stage_get(&stage, N "online", "0,2-3,5,63\n");
    stage_set(&stage, M "memory2/state", "online_kernel", 13);
    stage_set(&stage, M "memory5/state", "online_movable", 14);
    stage_get(&stage, N "has_memory", "5,63\n");
    stage_get(&stage, N "has_normal_memory", "63\n");
    stage_close(&stage);
}

/* --- what the tree has of its own ------------------------------------------------------------- */

static void test_own_files(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 2);
    stage_get(&stage, "memplug/ranges", "");
    stage_add(&stage, stage.world.backing_a, 0, 48, 2, 1);
    stage_add(&stage, stage.world.backing_b, 0, 50, 3, 0);
    stage_get(&stage, "memplug/ranges",
              "0x180000000-0x18fffffff first 48 blocks 2 node 1 memmap block group 0 boot 0\n"
              "0x190000000-0x1a7ffffff first 50 blocks 3 node 0 memmap block group 0 boot 0\n");
    stage_names(&stage, "firmware/memmap", "48/ 50/");
    stage_get(&stage, "firmware/memmap/50/start", "0x190000000\n");
    stage_get(&stage, "firmware/memmap/50/end", "0x1a7ffffff\n");
    stage_get(&stage, "firmware/memmap/50/type", "System RAM\n");
    assert_int_equal(stage_opens(&stage, "firmware/memmap/51/start", MEMPLUG_ATTR_READ), -ENOENT);
    stage_set(&stage, M "memory48/state", "online_movable", 14);
    stage_get(&stage, "memplug/zones/1/Movable/start_pfn", "1572864\n");
    stage_get(&stage, "memplug/zones/1/Movable/spanned", "32768\n");
    stage_get(&stage, "memplug/zones/1/Movable/present", "32768\n");
    stage_get(&stage, "memplug/zones/1/Movable/managed", "32256\n");
    stage_get(&stage, "memplug/zones/1/Movable/free", "32256\n");
    stage_get(&stage, "memplug/zones/1/Normal/present", "0\n");
    stage_get(&stage, "memplug/zones/0/DMA/present", "0\n");
    stage_names(&stage, "memplug/zones", "0/ 1/");
    stage_names(&stage, "memplug/zones/0", "DMA/ DMA32/ Movable/ Normal/");
    stage_get(&stage, "memplug/blocks/48/why", "offline: nothing in the way.\n");
    stage_get(&stage, "memplug/blocks/49/why",
              "offline: check: block 49: the block is not online: Invalid argument (-22).\n");
    stage_get(&stage, "memplug/blocks/48/stat",
              "zone Movable\nmemmap block\naddress 0x180000000\nunit_first 48\n"
              "unit_nr_blocks 1\nnr_memmap_pages 512\nnr_managed_pages 32256\n"
              "nr_free_pages 32256\nnr_isolated_pageblocks 0\nnr_absent_pages 0\n"
              "nr_poisoned_pages 0\ngroup 0\nboot 0\n");
    stage_get(&stage, "memplug/progress", "");
    stage_get(&stage, "memplug/groups", "");
    stage_set(&stage, "memplug/cancel", "1", -ESRCH);
    stage_set(&stage, "memplug/cancel", "0", 1);
    stage_set(&stage, "memplug/cancel", "x", -EINVAL);
    stage_close(&stage);
}

static void test_groups(void **state)
{
    struct memplug_group dimm = {.node = 0, .nr_pages = 2 * 32768};
    struct memplug_group device = {.node = 1, .dynamic = true, .nr_pages = 32768};
    struct attr_stage stage;
    struct memplug_add add = {.memmap = MEMPLUG_MEMMAP_BLOCK};

    (void)state;
    stage_open(&stage, FAKE_X86, 2);
    add.group = memplug_group_register(stage.world.pool, &dimm);
    assert_int_equal(add.group, 1);
    assert_int_equal(memplug_group_register(stage.world.pool, &device), 2);
    add.address = 48 * stage.world.block_bytes;
    add.size_bytes = 2 * stage.world.block_bytes;
    add.backing = stage.world.backing_a;
    assert_int_equal(memplug_add(stage.world.pool, &add, NULL, NULL), 0);
    stage_set(&stage, B "state", "online_movable", 14);
    stage_get(&stage, "memplug/groups",
              "1 static node 0 pages 65536 blocks 2 kernel 0 movable 32768\n"
              "2 dynamic node 1 pages 32768 blocks 0 kernel 0 movable 0\n");
    stage_get(&stage, "memplug/ranges",
              "0x180000000-0x18fffffff first 48 blocks 2 node 0 memmap block group 1 boot 0\n");
    stage_close(&stage);
}

/* config 0 takes an offline block out, and nothing else does; what is left in one piece is a
 * range. */
static void test_firmware_memory(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 1);
    stage_add(&stage, stage.world.backing_a, 0, 48, 3, 0);
    stage_names(&stage, "firmware/memory", "block_size_bytes memory48/ memory49/ memory50/");
    stage_get(&stage, "firmware/memory/block_size_bytes", "8000000\n");
    stage_get(&stage, "firmware/memory/memory49/config", "1\n");
    stage_get(&stage, "firmware/memory/memory49/memmap_on_memory", "1\n");
    stage_set(&stage, "firmware/memory/memory49/config", "1", 1);
    stage_set(&stage, "firmware/memory/memory49/config", "2", -EINVAL);
    stage_set(&stage, "firmware/memory/memory49/memmap_on_memory", "0", -EBUSY);
    stage_set(&stage, "firmware/memory/memory49/memmap_on_memory", "2", -EINVAL);
    stage_set(&stage, M "memory49/online", "1", 1);
    stage_set(&stage, "firmware/memory/memory49/config", "0", -EBUSY);
    stage_set(&stage, M "memory49/online", "0", 1);
    stage_set(&stage, "firmware/memory/memory49/config", "0\n", 2);
    stage_set(&stage, "firmware/memory/memory49/config", "0", -ENOENT);
    stage_names(&stage, "firmware/memmap", "48/ 50/");
    stage_get(&stage, "firmware/memmap/48/end", "0x187ffffff\n");
    assert_int_equal(world_add(&stage.world, stage.world.backing_b, 60, MEMPLUG_MEMMAP_RANGE, NULL,
                               NULL),
                     0);
    stage_set(&stage, "firmware/memory/memory61/config", "0", -EINVAL);
    stage_remove(&stage, 60, WORLD_RANGE_BLOCKS);
    assert_int_equal(world_add(&stage.world, stage.world.backing_b, 60, MEMPLUG_MEMMAP_HOST, NULL,
                               NULL),
                     0);
    stage_get(&stage, "firmware/memory/memory61/memmap_on_memory", "0\n");
    stage_set(&stage, "firmware/memory/memory61/config", "0", 1);
    stage_names(&stage, "firmware/memmap", "48/ 50/ 60/ 62/");
    stage_close(&stage);
}

static void test_hugepages(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 1);
    stage_add(&stage, stage.world.backing_a, 0, 48, 1, 0);
    stage_set(&stage, B "state", "online_movable", 14);
    stage_names(&stage, "kernel/mm/hugepages", "hugepages-2048kB/ hugepages-1048576kB/");
#define H "kernel/mm/hugepages/hugepages-2048kB/"
    stage_names(&stage, H, "free_hugepages nr_hugepages resv_hugepages surplus_hugepages");
    stage_get(&stage, H "nr_hugepages", "0\n");
    stage_set(&stage, H "nr_hugepages", "3\n", 2);
    stage_get(&stage, H "nr_hugepages", "3\n");
    stage_get(&stage, H "free_hugepages", "3\n");
    stage_get(&stage, H "resv_hugepages", "0\n");
    stage_get(&stage, H "surplus_hugepages", "0\n");
    stage_get(&stage, N "node0/hugepages/hugepages-2048kB/nr_hugepages", "3\n");
    stage_get(&stage, "kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
    stage_set(&stage, H "nr_hugepages", "x", -EINVAL);
    stage_set(&stage, H "nr_hugepages", "0x2", -EINVAL);
    stage_set(&stage, H "nr_hugepages", "99999999999999999999", -ERANGE);
    stage_set(&stage, H "free_hugepages", "1", -EACCES);
    stage_get(&stage, H "nr_hugepages", "3\n");
    /* More than there are frames is a success, and reading tells how far it went. */
    stage_set(&stage, H "nr_hugepages", "4096", 4);
    stage_get(&stage, H "nr_hugepages", "63\n");
    stage_set(&stage, H "nr_hugepages", "0", 1);
    stage_get(&stage, H "nr_hugepages", "0\n");
    assert_int_equal(stage_opens(&stage, "kernel/mm/hugepages/hugepages-4kB/nr_hugepages",
                                 MEMPLUG_ATTR_READ),
                     -ENOENT);
    stage_close(&stage);
}

/* Transcript 40: a bad page does not hinder offline, and its block does not come back before it has
 * been removed. */
static const struct step poison[] = {
    WRITE(M "hard_offline_page", "0x180800000", -ENXIO, OFF, ""),
    WRITE(M "soft_offline_page", "0x180800000", -EIO, OFF, ""),
    WRITE(B "state", "online_movable", 14, ON, WENT_ON),
    WRITE(M "hard_offline_page", "0x180000000", -EBUSY, ON, ""),
    WRITE(M "soft_offline_page", "0x180000fff\n", -EBUSY, ON, ""),
    WRITE(M "hard_offline_page", "0x180800000", 11, ON, ""),
    WRITE(M "hard_offline_page", "0x180800fff", -EHWPOISON, ON, ""),
    WRITE(M "soft_offline_page", "6451896320", 10, ON, ""),
    WRITE(M "soft_offline_page", "0x18090000f\n", 12, ON, ""),
    WRITE(M "hard_offline_page", "0xffffffffffffffff", -ENXIO, ON, ""),
    READ("memplug/zones/0/Movable/free", "32253\n", ON),
    WRITE(B "state", "offline", 7, OFF, WENT_OFF),
    WRITE(B "state", "online_movable", -EHWPOISON, OFF, ""),
    WRITE(M "hard_offline_page", "0x180001000", -ENXIO, OFF, ""),
    WRITE(B "state", "offline", -EINVAL, OFF, ""),
    WRITE(B "online", "1", -EHWPOISON, OFF, ""),
};

static void test_poison(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_X86, 1);
    stage_add(&stage, stage.world.backing_a, 0, 48, 1, 0);
    stage_events(&stage, "add memory48");
    run_steps(&stage, poison, COUNT(poison));
    stage_remove(&stage, 48, 1);
    stage_add(&stage, stage.world.backing_a, 0, 48, 1, 0);
    stage_set(&stage, B "state", "online_movable", 14);
    stage_get(&stage, "memplug/zones/0/Movable/free", "32256\n");
    stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_illegal_writes),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_a_write_takes_a_page_at_most),
        cmocka_unit_test(test_policy_files),
        cmocka_unit_test(test_later_adds_go_online),
        cmocka_unit_test(test_two_nodes),
        cmocka_unit_test(test_masks_with_gaps),
        cmocka_unit_test(test_own_files),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_firmware_memory),
        cmocka_unit_test(test_hugepages),
        cmocka_unit_test(test_poison),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
