/* SPDX-License-Identifier: MIT */
/*
 * Offline and remove in one: what is refused, and in which zones the blocks are then; which blocks
 * are asked for. Faults in every call of it are in test_faults.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u
#define B 12u
#define BLOCK_PAGES UINT64_C(256)

static struct world world;
static struct memplug_reason reason;

static int pull(uint64_t first, uint64_t nr_blocks)
{
    return memplug_offline_and_remove(world.pool, first * world.block_bytes,
                                      nr_blocks * world.block_bytes, NULL, &reason);
}

#define REFUSED(error, word, call, moved) \
    WORLD_REFUSES(&world, &reason, error, word, call, moved)

static void online(uint64_t first, uint64_t nr_blocks, enum memplug_online_type type)
{
    must(memplug_online(world.pool, first, nr_blocks, type, NULL, NULL));
}

/* A in both zones, one block of it offline, with pages in the movable ones; B to move them to. */
static void open_mixed(enum memplug_memmap memmap)
{
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .nr_nodes = 2, .seed = 11});
    must(world_add(&world, world.backing_a, A, memmap, NULL, NULL));
    must(world_add(&world, world.backing_b, B, MEMPLUG_MEMMAP_HOST, NULL, NULL));
    online(B, NR, MEMPLUG_ONLINE_MOVABLE);
    online(A, 1, MEMPLUG_ONLINE_MOVABLE);
    online(A + 1, 1, MEMPLUG_ONLINE_KERNEL);
    online(A + 3, 1, MEMPLUG_ONLINE_MOVABLE);
    world_fill(&world, A, 1, 30);
    world_fill(&world, A + 3, 1, 30);
}

static bool is_there(uint64_t block)
{
    struct memplug_block_info info;

    return memplug_block_info(world.pool, block, &info) == 0;
}

static void it_takes_online_and_offline_blocks(void **state)
{
    const enum memplug_memmap memmaps[] = {
        MEMPLUG_MEMMAP_BLOCK,
        MEMPLUG_MEMMAP_RANGE,
        MEMPLUG_MEMMAP_HOST,
    };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        open_mixed(memmaps[i]);
        must(pull(A, NR));
        assert_int_equal(reason.error, 0);
        for (uint64_t id = A; id < A + NR; id++)
            assert_false(is_there(id));
        world_check(&world);
        must(world_add(&world, world.backing_a, A, memmaps[i], NULL, NULL));
        must(pull(A, NR)); /* nothing is online */
        world_check(&world);
        world_close(&world);
    }
}

static void what_remove_refuses_it_refuses_first(void **state)
{
    const uint64_t block = UINT64_C(1) << 20;

    (void)state;
    open_mixed(MEMPLUG_MEMMAP_RANGE);
    REFUSED(EINVAL, "all of it", pull(A, 2), false);
    REFUSED(EINVAL, "all of it", pull(A + 1, NR - 1), false);
    REFUSED(ENODEV, "block 8: ", pull(A, NR + 1), false);
    REFUSED(ENODEV, "block 3: ", pull(A - 1, NR + 1), false);
    REFUSED(EINVAL, "size", pull(A, 0), false);
    REFUSED(EINVAL, "address", pull(0, 1), false);
    REFUSED(E2BIG, "limit", pull(60, 10), false);
    REFUSED(EINVAL, "no address",
            memplug_offline_and_remove(world.pool, MEMPLUG_ANY_ADDRESS, block, NULL, &reason),
            false);
    REFUSED(EINVAL, "size", memplug_offline_and_remove(world.pool, A * block, block + 4096, NULL,
                                                       &reason), false);
    must(pull(A, NR));
    must(world_add(&world, world.backing_a, B - NR, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
    REFUSED(EINVAL, "with and without a memmap", pull(B - 1, 2), false);
    world_close(&world);
}

static void a_pinned_page_keeps_all_blocks_where_they_are(void **state)
{
    struct memplug_alloc request = {.nr_pages = 1, .mover = 0, .cookie = 5};
    memplug_pfn_t pfn = {(A + 3) * BLOCK_PAGES + 250};

    (void)state;
    open_mixed(MEMPLUG_MEMMAP_BLOCK);
    request.mover = (uint8_t)world.mover;
    request.pinned = true;
    must(memplug_alloc_exact(world.pool, pfn, &request));
    REFUSED(EBUSY, "pinned", pull(A, NR), true);
    assert_int_equal(reason.block, A + 3);
    assert_string_equal(reason.operation, "offline and remove");
    must(memplug_unpin(world.pool, pfn));
    must(memplug_free(world.pool, pfn, 1));
    /* An unmovable one is found before anything is moved. */
    pfn.nr = (A + 1) * BLOCK_PAGES + 250;
    request = (struct memplug_alloc){.nr_pages = 1};
    must(memplug_alloc_exact(world.pool, pfn, &request));
    REFUSED(EBUSY, "nobody can move", pull(A, NR), false);
    must(memplug_free(world.pool, pfn, 1));
    must(pull(A, NR));
    world_close(&world);
}

/* --- who hears of it -------------------------------------------------------------------------- */

static struct {
    uint64_t blocks[64];
    enum memplug_event events[64];
    unsigned nr;
    uint64_t refuse; /* this block may not go */
} heard;

static int hear(void *context, const struct memplug_notice *notice)
{
    uint64_t block = notice->start.nr / BLOCK_PAGES;

    (void)context;
    assert_true(heard.nr < 64);
    heard.blocks[heard.nr] = block;
    heard.events[heard.nr++] = notice->event;
    return notice->event == MEMPLUG_GOING_OFFLINE && block == heard.refuse ? -EPERM : 0;
}

static unsigned nr_heard(uint64_t block, enum memplug_event event)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < heard.nr; i++)
        nr += heard.blocks[i] == block && heard.events[i] == event;
    return nr;
}

static void blocks_that_are_offline_are_not_asked_for(void **state)
{
    struct memplug_subscriber subscriber = {.name = "last", .priority = -5, .notify = hear};

    (void)state;
    open_mixed(MEMPLUG_MEMMAP_BLOCK);
    must(memplug_subscribe(world.pool, &subscriber));
    heard.refuse = A + 3;
    REFUSED(EPERM, "refused", pull(A, NR), true);
    for (uint64_t id = A; id < A + NR; id++) {
        assert_int_equal(nr_heard(id, MEMPLUG_GOING_OFFLINE), id != A + 2);
        assert_int_equal(nr_heard(id, MEMPLUG_CANCEL_OFFLINE), id != A + 2);
        assert_int_equal(nr_heard(id, MEMPLUG_OFFLINE), 0);
    }
    heard.nr = 0;
    heard.refuse = 0;
    must(pull(A, NR));
    for (uint64_t id = A; id < A + NR; id++) {
        assert_int_equal(nr_heard(id, MEMPLUG_GOING_OFFLINE), id != A + 2);
        assert_int_equal(nr_heard(id, MEMPLUG_OFFLINE), id != A + 2);
    }
    must(memplug_unsubscribe(world.pool, &subscriber));
    world_close(&world);
}

static struct {
    struct memplug_uevent events[16];
    unsigned nr;
} watched;

static void watch(void *context, const struct memplug_uevent *event)
{
    (void)context;
    assert_true(watched.nr < 16);
    watched.events[watched.nr++] = *event;
}

/* Only what was online goes offline; all of it is removed, ascending. */
static void listeners_hear_what_happened(void **state)
{
    struct memplug_listener listener = {.hear = watch};
    const unsigned blocks[] = {A, A + 1, A + 3, A, A + 1, A + 2, A + 3};

    (void)state;
    open_mixed(MEMPLUG_MEMMAP_BLOCK);
    must(memplug_listen(world.pool, &listener));
    must(pull(A, NR));
    assert_int_equal(watched.nr, 7);
    for (unsigned i = 0; i < 7; i++) {
        assert_int_equal(watched.events[i].block, blocks[i]);
        assert_int_equal(watched.events[i].action,
                         i < 3 ? MEMPLUG_ACTION_OFFLINE : MEMPLUG_ACTION_REMOVE);
    }
    must(memplug_unlisten(world.pool, &listener));
    world_close(&world);
}

/* Runs: what lies between them is not of the operation. */
static void runs_leave_others_alone(void **state)
{
    static const struct memplug_blocks runs[] = {{A, 1}, {A + 3, 1}}, odd[] = {{A + 3, 1}, {A, 1}};
    const enum memplug_action actions[] = {MEMPLUG_ACTION_OFFLINE, MEMPLUG_ACTION_ONLINE,
                                           MEMPLUG_ACTION_OFFLINE, MEMPLUG_ACTION_REMOVE};
    struct memplug_listener listener = {.hear = watch};

    (void)state;
    open_mixed(MEMPLUG_MEMMAP_BLOCK);
    watched.nr = 0;
    must(memplug_listen(world.pool, &listener));
    REFUSED(EINVAL, "order", memplug_offline_blocks(world.pool, odd, 2, NULL, &reason), false);
    REFUSED(EINVAL, "no block", memplug_offline_blocks(world.pool, odd, 0, NULL, &reason), false);
    REFUSED(EINVAL, "order",
            memplug_remove_blocks(world.pool, odd, 2, true, NULL, &reason), false);
    REFUSED(EBUSY, "online", memplug_remove_blocks(world.pool, runs, 2, false, NULL, &reason),
            false);
    must(memplug_offline_blocks(world.pool, runs, 2, NULL, NULL));
    must(memplug_online_blocks(world.pool, runs, 2, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(memplug_remove_blocks(world.pool, runs, 2, true, NULL, NULL));
    assert_int_equal(watched.nr, 8);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(watched.events[i].block, runs[i % 2].first);
        assert_int_equal(watched.events[i].action, actions[i / 2]);
    }
    assert_true(is_there(A + 1) && is_there(A + 2));
    must(memplug_unlisten(world.pool, &listener));
    world_check(&world);
    world_close(&world);
}

/* When the blocks have left, no limit is looked at: it cannot end between offline and remove. */
static void no_limit_ends_it_halfway(void **state)
{
    uint64_t nr_cancelled = 0;
    int error = -EINTR;

    (void)state;
    for (uint64_t k = 1; error != 0; k++) {
        struct fault_limit limit;
        char *before;

        open_mixed(MEMPLUG_MEMMAP_BLOCK);
        before = world_text(&world, true);
        fault_limit_init(&limit, FAULT_LIMIT_STOP, k, world.fault);
        error = memplug_offline_and_remove(world.pool, A * world.block_bytes,
                                           NR * world.block_bytes, &limit.limit, &reason);
        if (error != 0) {
            assert_int_equal(error, -EINTR);
            world_same(&world, before, true);
            nr_cancelled++;
        } else {
            free(before);
            assert_false(is_there(A));
            assert_int_equal(limit.nr_checks, k - 1);
        }
        world_close(&world);
    }
    assert_true(nr_cancelled > 3 * 4); /* each of three blocks has several steps */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_takes_online_and_offline_blocks),
        cmocka_unit_test(what_remove_refuses_it_refuses_first),
        cmocka_unit_test(a_pinned_page_keeps_all_blocks_where_they_are),
        cmocka_unit_test(blocks_that_are_offline_are_not_asked_for),
        cmocka_unit_test(listeners_hear_what_happened),
        cmocka_unit_test(runs_leave_others_alone),
        cmocka_unit_test(no_limit_ends_it_halfway),
    };

    return cmocka_run_group_tests_name("offline and remove", tests, NULL, NULL);
}
