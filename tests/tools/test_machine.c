/* SPDX-License-Identifier: MIT */
/*
 * The machine of scenarios: that its memory is one memory, that what is lost is seen, and that
 * what fails leaves nothing behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/memplug/replay/dimm.h"
#include "../../tools/memplug/replay/hog.h"
#include "../../tools/memplug/replay/record.h"
#include "../../tools/memplug/replay/tmpfs.h"
#include "../../tools/memplug/replay/vfs.h"
#include "../../tools/memplug/replay/virtio_device.h"

#define MIB ((uint64_t)1 << 20)
#define BLOCK (128 * MIB)

static struct machine *boot(const char *line)
{
    struct machine *machine = must_alloc(1, sizeof(*machine));
    struct boot_options options;
    struct scenario scenario;
    char error[512];

    assert_int_equal(scenario_parse("boot", line, strlen(line), &scenario, error, 512), 0);
    scenario_boot_options(&scenario.steps[0], &options);
    if (machine_open(machine, &options, error, sizeof(error)))
        fail_msg("%s", error);
    scenario_free(&scenario);
    return machine;
}

static void check(struct machine *machine)
{
    char error[512];

    if (machine_check(machine, error, sizeof(error)))
        fail_msg("%s", error);
}

static void end(struct machine *machine)
{
    check(machine);
    machine_close(machine);
    free(machine);
}

static void plug(struct machine *machine, const char *name, uint64_t size_bytes, int64_t at,
                 int error)
{
    struct dimm_plug plug = dimm_plug(machine, name, size_bytes, at, 0);

    assert_null(plug.refused);
    assert_int_equal(plug.error, error);
}

static void refused(struct machine *machine, const char *name, uint64_t size_bytes, int64_t at,
                    unsigned node, const char *says)
{
    struct dimm_plug plug = dimm_plug(machine, name, size_bytes, at, node);

    if (!plug.refused || !strstr(plug.refused, says))
        fail_msg("%s: '%s'", name, plug.refused ? plug.refused : "plugged");
}

static void put(struct machine *machine, const char *path, const char *text, int64_t result)
{
    struct buffer expanded = {0};
    bool opened;

    machine_expand(machine, path, &expanded);
    assert_int_equal(vfs_put(machine, buffer_of(&expanded), text, strlen(text), NULL, NULL,
                             &opened), result);
    buffer_free(&expanded);
}

static char *get(struct machine *machine, const char *path)
{
    struct buffer expanded = {0}, text = {0};

    machine_expand(machine, path, &expanded);
    assert_int_equal(vfs_get(machine, buffer_of(&expanded), &text), 0);
    buffer_free(&expanded);
    buffer_add(&text, "", 0);
    return text.bytes;
}

static void expect(struct machine *machine, const char *path, const char *wanted)
{
    char *text = get(machine, path);

    assert_string_equal(text, wanted);
    free(text);
}

static void add_text(void *context, const char *text, size_t length)
{
    buffer_add(context, text, length);
}

static char *whole_state(struct machine *machine)
{
    struct buffer text = {0};

    assert_int_equal(memplug_dump(machine->pool, add_text, &text), 0);
    return text.bytes;
}

/* --- one memory ------------------------------------------------------------------------------- */

/* The memmap of what is plugged in comes out of the machine's memory, and goes back there. */
static void test_memmaps_are_the_machines_memory(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=0 mem=512M");
    struct memplug_stat before, between, after;
    struct dimm_refusal refusal;

    (void)state;
    memplug_stat(machine->pool, &before);
    plug(machine, "d0", 4 * BLOCK, 0, 0);
    memplug_stat(machine->pool, &between);
    assert_int_equal(before.nr_free_pages - between.nr_free_pages, 4 * 512);
    assert_int_equal(lend_nr_pages(machine->lend), 4 * 512);
    check(machine);
    assert_int_equal(dimm_unplug(machine, "d0", 10, &refusal), DIMM_DELETED);
    memplug_stat(machine->pool, &after);
    assert_int_equal(before.nr_free_pages - after.nr_free_pages, 512); /* the CPU's slot has one */
    assert_int_equal(lend_nr_pages(machine->lend), 0);
    end(machine);
}

/* Where there is none left, the add fails, and the whole state is what it was. The device stays. */
static void test_no_memory_for_a_memmap(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=0 mem=512M");
    struct dimm_refusal refusal;
    char *before, *after;

    (void)state;
    assert_int_equal(hog_start(machine, "h", "anon", 300), 0);
    before = whole_state(machine);
    plug(machine, "d0", 64 * BLOCK, 0, -ENOMEM);
    after = whole_state(machine);
    assert_string_equal(before, after);
    assert_int_equal(lend_nr_pages(machine->lend), 0);
    refused(machine, "d1", BLOCK, 1, 0, "another device");
    assert_int_equal(dimm_unplug(machine, "d0", 10, &refusal), DIMM_DELETED);
    plug(machine, "d1", BLOCK, 1, 0);
    free(before);
    free(after);
    end(machine);
}

/* One that is short in the middle gives back what it had of it. */
static void test_half_a_memmap(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=0 mem=512M");
    const struct memplug_host *host = lend_host(machine->lend);
    uint64_t offset = machine->layout.window / 64, unit = 2 * MIB;
    char *before = whole_state(machine), *after;

    (void)state;
    assert_int_equal(host->ops->lock(host->context, NULL), 0);
    assert_int_equal(host->ops->memmap_provide(host->context, offset, 256 * unit, unit), -ENOMEM);
    host->ops->unlock(host->context);
    assert_int_equal(lend_nr_pages(machine->lend), 0);
    after = whole_state(machine);
    assert_string_equal(before, after);
    free(before);
    free(after);
    end(machine);
}

/* Where no 2 MiB are in a row, single pages do: every other page of a file is there. */
static void test_a_memmap_of_small_pages(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=0 mem=512M");
    struct dimm_refusal refusal;
    struct memplug_stat before, after;
    struct holding odd = {0}, even = {0};
    const struct store_want want = {.kind = STORE_KERNEL, .nr_pages = 1,
                                    .node = MEMPLUG_ANY_NODE};

    (void)state;
    while (store_grow(machine->store, &odd, &want) == 0 &&
           store_grow(machine->store, &even, &want) == 0)
        continue;
    store_shrink(machine->store, &odd, 0);
    free(whole_state(machine)); /* what CPUs have at hand is free too */
    memplug_stat(machine->pool, &before);
    plug(machine, "d0", 2 * BLOCK, 0, 0);
    assert_int_equal(lend_nr_pages(machine->lend), 2 * 512);
    put(machine, "$M/memory@0/state", "online_movable", 14);
    check(machine);
    put(machine, "$M/memory@0/state", "offline", 7);
    assert_int_equal(dimm_unplug(machine, "d0", 10, &refusal), DIMM_DELETED);
    free(whole_state(machine));
    memplug_stat(machine->pool, &after);
    assert_int_equal(after.nr_free_pages, before.nr_free_pages);
    store_shrink(machine->store, &even, 0);
    end(machine);
}

/* Files are the machine's memory too, and are moved with their bytes. */
static void test_files_move(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=1 mem=1G");
    char page[4096], *text;
    int handle;

    (void)state;
    plug(machine, "d0", BLOCK, 0, 0);
    put(machine, "$M/memory@0/state", "online_movable", 14);
    handle = vfs_open(machine, "/tmp/f", VFS_WRITE);
    assert_true(handle >= 0);
    for (unsigned i = 0; i < 1000; i++) {
        memset(page, (int)('a' + i % 26), sizeof(page));
        assert_int_equal(vfs_write(machine, handle, i * 4096ull, page, sizeof(page), NULL, NULL),
                         sizeof(page));
    }
    vfs_close(machine, handle);
    put(machine, "$M/memory@0/state", "offline", 7);
    assert_true(store_nr_moved(machine->store) >= 1000);
    text = get(machine, "/tmp/f");
    assert_int_equal(strlen(text), 1000 * 4096);
    for (unsigned i = 0; i < 1000 * 4096; i++)
        assert_int_equal(text[i], 'a' + i / 4096 % 26);
    free(text);
    assert_int_equal(vfs_unlink(machine, "/tmp/f"), 0);
    assert_int_equal(vfs_kind(machine, "/tmp/f"), -ENOENT);
    end(machine);
}

/* --- what is lost is seen --------------------------------------------------------------------- */

static void count_block(void *context, uint64_t block, uint64_t nr_pages)
{
    *(uint64_t *)context = block;
    assert_int_equal(nr_pages, 16 * 256);
}

static void test_a_lost_byte_is_seen(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=1 mem=1G");
    struct memplug_pfn pfn;
    uint64_t block = 0;
    char error[512], *bytes;

    (void)state;
    plug(machine, "d0", BLOCK, 0, 0);
    put(machine, "$M/memory@0/state", "online_movable", 14);
    assert_int_equal(hog_start(machine, "h", "anon", 16), 0);
    assert_int_equal(hog_where(machine, "h", count_block, &block), 0);
    assert_int_equal(block, machine->layout.base_block);
    assert_int_equal(hogs_verify(machine, error, sizeof(error)), 0);
    pfn.nr = (block << 15) + 512 + 77;
    bytes = memplug_page_address(machine->pool, pfn);
    bytes[4095] ^= 1;
    assert_int_equal(hogs_verify(machine, error, sizeof(error)), -1);
    assert_non_null(strstr(error, "hog h"));
    bytes[4095] ^= 1;
    assert_int_equal(hogs_verify(machine, error, sizeof(error)), 0);
    assert_int_equal(hog_end(machine, "h"), 0);
    assert_int_equal(hog_end(machine, "h"), -ESRCH);
    end(machine);
}

/* --- devices ---------------------------------------------------------------------------------- */

static void test_what_the_machine_refuses(void **state)
{
    struct machine *machine = boot("boot mem=4G maxmem=6G slots=3 nodes=2");

    (void)state;
    refused(machine, "d0", BLOCK, 0, 2, "no such node");
    refused(machine, "d0", 3 * 1024 * MIB, 0, 0, "more memory");
    refused(machine, "d0", BLOCK, 1000, 0, "no room");
    plug(machine, "d0", BLOCK, 0, 0);
    refused(machine, "d0", BLOCK, 4, 0, "of this name");
    refused(machine, "d1", BLOCK, 0, 0, "another device");
    plug(machine, "d1", 64 * MIB, DIMM_ANYWHERE, -EINVAL);
    plug(machine, "d2", BLOCK, 4, 0);
    refused(machine, "d3", BLOCK, 5, 0, "no free slot");
    end(machine);
}

static enum memplug_zone zone_of(struct machine *machine, uint64_t index)
{
    struct memplug_block_info info;

    assert_int_equal(memplug_block_info(machine->pool, machine->layout.base_block + index, &info),
                     0);
    return info.zone;
}

/* An eject that fails: each block is in the zone that it was in, or offline if it was. */
static void test_a_failed_eject(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=1 mem=1G");
    struct dimm_refusal refusal = {.nr_not_restored = 0};

    (void)state;
    plug(machine, "d0", 4 * BLOCK, 0, 0);
    put(machine, "$M/memory@0/state", "online_movable", 14);
    put(machine, "$M/memory@1/state", "online_kernel", 13);
    put(machine, "$M/memory@3/state", "online_movable", 14);
    assert_int_equal(hog_start(machine, "s", "slab", 1), 0);
    assert_int_equal(dimm_unplug(machine, "d0", 10, &refusal), DIMM_REFUSED);
    assert_int_equal(refusal.reason.error, -EBUSY);
    assert_int_equal(refusal.nr_not_restored, 0);
    assert_int_equal(zone_of(machine, 0), MEMPLUG_ZONE_MOVABLE);
    assert_int_equal(zone_of(machine, 1), MEMPLUG_ZONE_NORMAL);
    assert_int_equal(zone_of(machine, 2), MEMPLUG_NR_ZONES);
    assert_int_equal(zone_of(machine, 3), MEMPLUG_ZONE_MOVABLE);

    /* One that cannot come back is counted, and does not hinder the other. */
    assert_int_equal(machine_load_injector(machine), 0);
    machine->inject_online = -ENOMEM;
    assert_int_equal(dimm_unplug(machine, "d0", 10, &refusal), DIMM_REFUSED);
    assert_int_equal(refusal.nr_not_restored, 2);
    assert_int_equal(refusal.restore.error, -ENOMEM);
    machine->inject_online = 0;
    assert_int_equal(hog_end(machine, "s"), 0);
    assert_int_equal(dimm_unplug(machine, "d0", 10, &refusal), DIMM_DELETED);
    assert_int_equal(dimm_unplug(machine, "d0", 10, &refusal), DIMM_NO_DEVICE);
    end(machine);
}

/* What cannot be moved for ever ends, in the machine's time and not in ours. */
static void test_an_eject_ends(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=1 mem=1G");
    struct dimm_refusal refusal = {.nr_not_restored = 0};
    uint64_t start;

    (void)state;
    plug(machine, "d0", BLOCK, 0, 0);
    put(machine, "$M/memory@0/state", "online_movable", 14);
    assert_int_equal(hog_start(machine, "p", "pinned", 1), 0);
    start = machine_clock(machine);
    assert_int_equal(dimm_unplug(machine, "d0", 12, &refusal), DIMM_REFUSED);
    assert_true(machine_clock(machine) - start <= 13 * NS_PER_S);
    expect(machine, "$M/memory@0/state", "online\n");
    assert_int_equal(zone_of(machine, 0), MEMPLUG_ZONE_MOVABLE);
    end(machine);
}

/* A device in parts of a block: what is not plugged in is nobody's, and it goes again. */
static void test_virtio_mem(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=1 mem=4G");
    struct memplug_reason reason = {0};
    uint64_t address, size_bytes, bytes;
    struct memplug_stat before, after;
    int error = -1;
    char *iomem;

    (void)state;
    memplug_stat(machine->pool, &before);
    assert_non_null(virtio_plug(machine, "v", 3 * MIB, 0, 2 * MIB, 0, &error, &reason));
    assert_null(virtio_plug(machine, "v", 8 * BLOCK, 2 * BLOCK + 10 * MIB, 2 * MIB, 0, &error,
                            &reason));
    assert_int_equal(error, 0);
    assert_true(virtio_plugged(machine, "v", &bytes));
    assert_int_equal(bytes, 2 * BLOCK + 10 * MIB);
    assert_true(virtio_region(machine, 0, &address, &size_bytes));
    assert_int_equal(address, machine->layout.window);
    assert_false(virtio_region(machine, 1, &address, &size_bytes));
    refused(machine, "d0", BLOCK, 7, 0, "another device");
    put(machine, "$M/memory@2/state", "online_movable", 14);
    memplug_stat(machine->pool, &after);
    assert_int_equal(after.nr_managed_pages - before.nr_managed_pages, 10 * 256);
    iomem = get(machine, "/proc/iomem");
    assert_non_null(strstr(iomem, "  180000000-197ffffff : System RAM (virtio_mem)\n"));
    free(iomem);
    assert_int_equal(virtio_resize(machine, "w", 0, &reason), -ENODEV);
    assert_int_equal(virtio_resize(machine, "v", 0, &reason), 0);
    assert_true(virtio_plugged(machine, "v", &bytes));
    assert_int_equal(bytes, 0);
    memplug_stat(machine->pool, &after);
    assert_int_equal(after.nr_managed_pages, before.nr_managed_pages);
    assert_int_equal(after.nr_blocks, before.nr_blocks);
    end(machine);
}

/* --- files ------------------------------------------------------------------------------------ */

static void test_the_firmwares_map(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=1 mem=4G");
    struct dimm_refusal refusal;

    (void)state;
    plug(machine, "d0", BLOCK, 0, 0);
    plug(machine, "d1", 2 * BLOCK, 1, 0);
    expect(machine, "/sys/firmware/memmap/9/start", "0x180000000\n");
    expect(machine, "/sys/firmware/memmap/10/end", "0x197ffffff\n");
    expect(machine, "/sys/firmware/memmap/10/type", "System RAM\n");
    assert_int_equal(dimm_unplug(machine, "d0", 10, &refusal), DIMM_DELETED);
    assert_int_equal(vfs_kind(machine, "/sys/firmware/memmap/9"), -ENOENT);
    plug(machine, "d0", BLOCK, 0, 0);
    expect(machine, "/sys/firmware/memmap/11/start", "0x180000000\n");
    end(machine);
}

static void test_files_of_the_kernel(void **state)
{
    struct machine *machine = boot("boot memmap_on_memory=1 mem=1G");

    (void)state;
    expect(machine, "$P/memmap_on_memory", "Y\n");
    expect(machine, "$M/auto_online_blocks", "offline\n");
    put(machine, "$P/memmap_on_memory", "0", -EACCES);
    put(machine, "/proc/iomem", "0", -EACCES);
    put(machine, "/proc/sys/vm/nr_hugepages", "many", -EINVAL);
    put(machine, "/proc/sys/vm/nr_hugepages", "3\n", 2);
    expect(machine, "/proc/sys/vm/nr_hugepages", "3\n");
    put(machine, "/proc/sys/vm/nr_hugepages", "0", 1);
    put(machine, "/sys/kernel/debug/notifier-error-inject/memory/actions/MEM_GOING_ONLINE/error",
        "-12", -ENOENT);
    assert_int_equal(machine_load_injector(machine), 0);
    put(machine, "/sys/kernel/debug/notifier-error-inject/memory/actions/MEM_GOING_ONLINE/error",
        "12", -EINVAL);
    put(machine, "/sys/kernel/debug/notifier-error-inject/memory/actions/MEM_GOING_ONLINE/error",
        "-12\n", 4);
    assert_int_equal(machine->inject_online, -12);
    assert_int_equal(machine_unload_injector(machine), 0);
    assert_int_equal(machine_unload_injector(machine), -ENOENT);
    assert_int_equal(vfs_open(machine, "/proc/zoneinfo", VFS_READ), -ENOSYS);
    assert_int_equal(vfs_open(machine, "/sys/nothing", VFS_READ), -ENOENT);
    assert_int_equal(vfs_mkdir(machine, "/tmp"), -EEXIST);
    assert_int_equal(vfs_mkdir(machine, "/tmp/a/b"), -ENOENT);
    assert_int_equal(vfs_mkdir(machine, "/tmp/a"), 0);
    assert_int_equal(vfs_mkdir(machine, "/tmp/a/b"), 0);
    assert_int_equal(vfs_rmdir(machine, "/tmp/a"), -ENOTEMPTY);
    assert_int_equal(vfs_mount(machine, "ramfs", "/tmp/a"), 0);
    assert_int_equal(vfs_kind(machine, "/tmp/a/b"), -ENOENT);
    assert_int_equal(vfs_unmount(machine, "/tmp/a"), 0);
    assert_int_equal(vfs_kind(machine, "/tmp/a/b"), VFS_DIRECTORY);
    end(machine);
}

static void test_expansion(void **state)
{
    struct machine *machine = boot("boot mem=4G");
    struct buffer text = {0};

    (void)state;
    machine_expand(machine, "$M/memory@3/x $MX $P @ a@b $PATH @12x", &text);
    assert_string_equal(buffer_of(&text),
                        "/sys/devices/system/memory/memory51/x $MX "
                        "/sys/module/memory_hotplug/parameters @ a@b $PATH 60x");
    buffer_free(&text);
    end(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memmaps_are_the_machines_memory),
        cmocka_unit_test(test_no_memory_for_a_memmap),
        cmocka_unit_test(test_half_a_memmap),
        cmocka_unit_test(test_a_memmap_of_small_pages),
        cmocka_unit_test(test_files_move),
        cmocka_unit_test(test_a_lost_byte_is_seen),
        cmocka_unit_test(test_what_the_machine_refuses),
        cmocka_unit_test(test_a_failed_eject),
        cmocka_unit_test(test_an_eject_ends),
        cmocka_unit_test(test_virtio_mem),
        cmocka_unit_test(test_the_firmwares_map),
        cmocka_unit_test(test_files_of_the_kernel),
        cmocka_unit_test(test_expansion),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
