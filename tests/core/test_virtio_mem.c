/* SPDX-License-Identifier: MIT */
/* A virtio-mem device step by step: what comes and goes in which order, who is in the way, who says
 * no, and every call that may fail failing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/policy.h>

#include "virtio_world.h"

/* --- single steps ----------------------------------------------------------------------------- */

static uint64_t nr_in(uint64_t block)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < device.sub_blocks; i++)
        count += device.plugged[block * device.sub_blocks + i];
    return count;
}

static void expect_blocks(const uint64_t *counts)
{
    for (uint64_t block = 0; block < NR_BLOCKS; block++)
        if (nr_in(block) != counts[block])
            fail_msg("block %llu has %llu, not %llu", (unsigned long long)block,
                     (unsigned long long)nr_in(block), (unsigned long long)counts[block]);
    check_device();
}

#define COUNTS(...) ((const uint64_t[NR_BLOCKS]){__VA_ARGS__})

/* Real sizes: 2 MiB of a 128 MiB block, and a block whose last part is missing. */
static void test_partial(void **state)
{
    struct memplug_zone_info zone;
    struct memplug_group_info group;

    (void)state;
    open_device(FAKE_X86, 0);
    assert_int_equal(unit(), 2 << 20);
    request(50);
    expect_blocks(COUNTS(50));
    online(0, MEMPLUG_ONLINE_KERNEL);
    must(memplug_zone_info(world.pool, 0, MEMPLUG_ZONE_NORMAL, &zone));
    assert_int_equal(zone.nr_present_pages, 32768);
    assert_int_equal(zone.nr_managed_pages, 50 * 512);
    request(65);
    expect_blocks(COUNTS(64, 1));
    must(memplug_zone_info(world.pool, 0, MEMPLUG_ZONE_NORMAL, &zone));
    assert_int_equal(zone.nr_managed_pages, 32768);
    must(memplug_group_info(world.pool, device.group, &group));
    assert_int_equal(group.nr_blocks, 2);
    assert_int_equal(group.nr_present_kernel_pages, 32768);
    request(10); /* the offline block goes first, and from the top */
    expect_blocks(COUNTS(10));
    close_device();
}

/* No more than the threshold waits offline; with half of it online it goes on. */
static void test_threshold(void **state)
{
    (void)state;
    open_device(FAKE_SMALL, 4);
    request(8 * device.sub_blocks);
    assert_true(device.waiting);
    expect_blocks(COUNTS(4, 4, 4, 4));
    online(0, MEMPLUG_ONLINE_MOVABLE);
    must(virtio_mem_work(&driver, NULL, &reason));
    expect_blocks(COUNTS(4, 4, 4, 4));
    online(1, MEMPLUG_ONLINE_MOVABLE);
    must(virtio_mem_work(&driver, NULL, &reason));
    expect_blocks(COUNTS(4, 4, 4, 4, 4, 4));
    assert_true(device.waiting);
    for (uint64_t block = 2; block < 6; block++)
        online(block, MEMPLUG_ONLINE_KERNEL);
    must(virtio_mem_work(&driver, NULL, &reason));
    expect_blocks(COUNTS(4, 4, 4, 4, 4, 4, 4, 4));
    assert_false(device.waiting);
    close_device();
}

/* What is plugged in goes online by itself, and so the threshold is never met. */
static void test_auto_online(void **state)
{
    (void)state;
    open_device(FAKE_SMALL, 2);
    must(memplug_policy_set(world.pool,
                            &(struct memplug_policy){.auto_online = MEMPLUG_AUTO_MOVABLE},
                            MEMPLUG_POLICY_AUTO_ONLINE));
    request(30);
    assert_false(device.waiting);
    expect_blocks(COUNTS(4, 4, 4, 4, 4, 4, 4, 2));
    request(32);
    request(3);
    expect_blocks(COUNTS(3));
    close_device();
}

/* Offline parts first, then Movable before kernel zones, what is partial before what is whole. */
static void test_order(void **state)
{
    (void)state;
    open_device(FAKE_SMALL, 8);
    request(28);
    online(0, MEMPLUG_ONLINE_KERNEL);
    online(1, MEMPLUG_ONLINE_MOVABLE);
    online(2, MEMPLUG_ONLINE_KERNEL);
    online(3, MEMPLUG_ONLINE_MOVABLE);
    expect_blocks(COUNTS(4, 4, 4, 4, 4, 4, 4));
    request(15); /* three offline blocks, and the top of the highest Movable one */
    expect_blocks(COUNTS(4, 4, 4, 3));
    request(11);
    expect_blocks(COUNTS(4, 3, 4));
    request(7); /* block 1, and then a kernel one */
    expect_blocks(COUNTS(4, 0, 3));
    request(12); /* the kernel zone's is filled up first, the rest is new */
    expect_blocks(COUNTS(4, 4, 4));
    request(14);
    expect_blocks(COUNTS(4, 4, 4, 2));
    close_device();
}

static void occupy(uint64_t block, uint64_t sub_block, unsigned *slot)
{
    struct memplug_alloc alloc = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn = {((device.first_block + block) * device.sub_blocks + sub_block) *
                             sub_pages() + 3};

    must(owner_alloc_request(world.owner, &alloc, &pfn, slot));
}

/* Pages move out of what is unplugged; what is pinned stays, and another sub-block goes. */
static void test_busy(void **state)
{
    unsigned slots[3];
    memplug_pfn_t pfn;

    (void)state;
    open_device(FAKE_SMALL, 8);
    request(8);
    online(0, MEMPLUG_ONLINE_MOVABLE);
    online(1, MEMPLUG_ONLINE_MOVABLE);
    occupy(1, 3, &slots[0]);
    occupy(1, 2, &slots[1]);
    occupy(0, 0, &slots[2]);
    must(owner_where(world.owner, slots[1], &pfn, NULL));
    must(memplug_pin(world.pool, pfn));
    request(6); /* 3 goes, 2 would not: 1 does */
    expect_blocks(COUNTS(4, 2));
    assert_int_equal(device.plugged[device.sub_blocks + 2], 1);
    assert_int_equal(virtio_mem_request(&device, 0, NULL, &reason), -EBUSY);
    world_blames(&reason, EBUSY, "pinned");
    assert_int_equal(reason.pfn.nr, pfn.nr);
    expect_blocks(COUNTS(0, 1));
    assert_int_equal(virtio_mem_close(&device, &reason), -EBUSY);
    must(memplug_unpin(world.pool, pfn));
    close_device();
}

/* What is missing in blocks that are online comes first: in kernel zones, then in Movable. */
static void test_fill_order(void **state)
{
    unsigned slots[2];
    memplug_pfn_t pfn[2];

    (void)state;
    open_device(FAKE_SMALL, 8);
    request(6);
    online(0, MEMPLUG_ONLINE_MOVABLE);
    online(1, MEMPLUG_ONLINE_KERNEL);
    for (unsigned i = 0; i < 2; i++) {
        occupy(1, i, &slots[i]);
        must(owner_where(world.owner, slots[i], &pfn[i], NULL));
        must(memplug_pin(world.pool, pfn[i]));
    }
    request(5); /* the kernel zone's are pinned */
    expect_blocks(COUNTS(3, 2));
    request(6);
    expect_blocks(COUNTS(3, 3));
    request(8);
    expect_blocks(COUNTS(4, 4));
    for (unsigned i = 0; i < 2; i++)
        must(memplug_unpin(world.pool, pfn[i]));
    close_device();
}

static int veto_error;

static int veto(void *context, const struct memplug_notice *notice)
{
    (void)context;
    return notice->event == MEMPLUG_GOING_OFFLINE ? veto_error : 0;
}

/* References that were dropped are taken again, by whoever was asked and by nobody else. */
static void test_cancel(void **state)
{
    static const struct memplug_subscriber vetoers[] = {
        {.name = "after", .priority = -5, .notify = veto},
        {.name = "before", .priority = 5, .notify = veto},
    };

    (void)state;
    open_device(FAKE_SMALL, 8);
    request(6);
    online(0, MEMPLUG_ONLINE_KERNEL);
    online(1, MEMPLUG_ONLINE_MOVABLE);
    for (unsigned i = 0; i < 2; i++) {
        must(memplug_subscribe(world.pool, &vetoers[i]));
        veto_error = -EPERM;
        WORLD_REFUSES(&world, &reason, EPERM, "refused",
                      memplug_offline(world.pool, device.first_block + 1, 1, NULL, &reason), true);
        check_device();
        /* its last part goes, but the block would not: it does with the next request */
        request(4);
        expect_blocks(COUNTS(4, 0));
        request(6);
        expect_blocks(COUNTS(4, 2));
        request(4);
        veto_error = 0;
        request(4);
        expect_blocks(COUNTS(4));
        must(memplug_unsubscribe(world.pool, &vetoers[i]));
        request(6);
        online(1, MEMPLUG_ONLINE_MOVABLE);
    }
    must(memplug_offline(world.pool, device.first_block + 1, 1, NULL, &reason));
    check_device();
    online(1, MEMPLUG_ONLINE_MOVABLE);
    check_device();
    close_device();
}

static unsigned nr_plug_calls;
static uint64_t device_bytes;

static int plug(void *context, uint64_t address, uint64_t size_bytes)
{
    (void)context;
    (void)address;
    if (nr_plug_calls-- == 0)
        return -EIO;
    device_bytes += size_bytes;
    return 0;
}

static void unplug(void *context, uint64_t address, uint64_t size_bytes)
{
    (void)context;
    (void)address;
    device_bytes -= size_bytes;
}

/* The hypervisor may say no; what the device has is what is plugged in. */
static void test_device_refuses(void **state)
{
    (void)state;
    open_device(FAKE_SMALL, 8);
    device.config.plug = plug;
    device.config.unplug = unplug;
    device_bytes = 0;
    nr_plug_calls = 2;
    assert_int_equal(virtio_mem_request(&device, 10 * unit(), NULL, &reason), -EIO);
    world_blames(&reason, EIO, "device");
    expect_blocks(COUNTS(4, 4));
    assert_int_equal(device_bytes, device.plugged_bytes);
    nr_plug_calls = 100;
    request(10);
    expect_blocks(COUNTS(4, 4, 2));
    assert_int_equal(device_bytes, device.plugged_bytes);
    close_device();
    assert_int_equal(device_bytes, 0);
}

static void test_bad(void **state)
{
    struct virtio_mem_config config;
    struct virtio_mem other;

    (void)state;
    open_device(FAKE_SMALL, 8);
    assert_int_equal(virtio_mem_request(&device, unit() + 1, NULL, &reason), -EINVAL);
    world_blames(&reason, EINVAL, "multiple");
    assert_int_equal(virtio_mem_request(&device, 10 * world.block_bytes, NULL, &reason), -EINVAL);
    config = region(8);
    config.size_bytes = world.block_bytes;
    assert_int_equal(virtio_mem_state_bytes(&world.geometry, &config), 0);
    assert_int_equal(virtio_mem_open(&driver, &other, &config, device_state, &reason), -EINVAL);
    config = region(8);
    config.device_block_bytes = 3 * unit();
    assert_int_equal(virtio_mem_state_bytes(&world.geometry, &config), 0);
    config = region(8);
    config.node = 7;
    assert_int_equal(virtio_mem_open(&driver, &other, &config, device_state, &reason), -EINVAL);
    assert_int_equal(virtio_mem_driver_close(&driver), -EBUSY);
    close_device();
}

/* --- failures --------------------------------------------------------------------------------- */

/* From `from` sub-blocks to `to`, with call k failing: records agree, and the next one works. */
static void fail_each(uint64_t from, uint64_t to, bool movable)
{
    for (uint64_t k = 1, fired = 1; fired != 0; k++) {
        int error;

        open_device(FAKE_SMALL, 8);
        request(from);
        for (uint64_t block = 0; block < 2; block++)
            online(block, movable ? MEMPLUG_ONLINE_MOVABLE : MEMPLUG_ONLINE_KERNEL);
        occupy(0, 0, NULL);
        occupy(1, 0, NULL);
        fault_arm(world.fault, k, false, 0);
        error = virtio_mem_request(&device, to * unit(), NULL, &reason);
        fired = fault_fired(world.fault);
        fault_disarm(world.fault);
        check_device();
        if (error != 0) {
            assert_int_equal(reason.error, error);
            assert_non_null(reason.why);
        }
        if (error == 0 && !device.waiting)
            assert_int_equal(device.plugged_bytes, to * unit());
        request(to);
        assert_int_equal(device.plugged_bytes, to * unit());
        check_device();
        close_device();
    }
}

static void test_faults(void **state)
{
    (void)state;
    fail_each(7, 14, true);
    fail_each(7, 2, true);
    fail_each(8, 1, false);
}

/* A limit that ends before anything is vacated: nothing goes, and it is said that it was time. */
static void test_deadline(void **state)
{
    const struct memplug_limit limit = {.timeout_ns = 1};

    (void)state;
    open_device(FAKE_SMALL, 8);
    request(8);
    online(0, MEMPLUG_ONLINE_MOVABLE);
    online(1, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(virtio_mem_request(&device, 5 * unit(), &limit, &reason), -EBUSY);
    assert_int_equal(reason.error, -EBUSY);
    assert_non_null(reason.why);
    expect_blocks(COUNTS(4, 4));
    request(5);
    expect_blocks(COUNTS(4, 1));
    close_device();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partial), cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_auto_online), cmocka_unit_test(test_order),
        cmocka_unit_test(test_busy),    cmocka_unit_test(test_fill_order),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_device_refuses), cmocka_unit_test(test_bad),
        cmocka_unit_test(test_faults),  cmocka_unit_test(test_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
