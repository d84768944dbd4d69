/* SPDX-License-Identifier: MIT */
/*
 * Calls from inside an operation are refused, each of them, from each place; and a driver that
 * keeps pages of a block back decides whether the block can go.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/policy.h>

#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u
#define B 12u
#define BLOCK_PAGES UINT64_C(256)
#define PAGEBLOCK_PAGES 64u

static struct world world;
static struct memplug_reason reason;

/* Pages may have moved. */
#define REFUSED(error, word, call) \
    WORLD_REFUSES(&world, &reason, error, word, call, true)

static memplug_pfn_t frame(uint64_t block, uint64_t index)
{
    return (memplug_pfn_t){block * BLOCK_PAGES + index};
}

static int online(uint64_t first, uint64_t nr_blocks)
{
    return memplug_online(world.pool, first, nr_blocks, MEMPLUG_ONLINE_MOVABLE, NULL, &reason);
}

static int offline(uint64_t first, uint64_t nr_blocks)
{
    return memplug_offline(world.pool, first, nr_blocks, NULL, &reason);
}

/* --- calls from inside ------------------------------------------------------------------------ */

static unsigned nr_insides;

static void forget(void *context, const char *text, size_t length)
{
    (void)context;
    (void)text;
    (void)length;
}

static void inside_is_refused(int error, const struct memplug_reason *why)
{
    assert_int_equal(error, -EDEADLK);
    if (why != NULL)
        world_blames(why, EDEADLK, "it was called from inside another operation");
}

/* Everything that needs the control lock, with arguments that would be fine. */
static void call_everything(void)
{
    struct memplug *pool = world.pool;
    struct memplug_add add = {.address = 40 * world.block_bytes, .size_bytes = world.block_bytes,
                              .backing = world.backing_b};
    struct memplug_policy policy;
    struct memplug_reason why;

    memplug_policy_get(pool, &policy);
    inside_is_refused(memplug_add(pool, &add, NULL, &why), &why);
    inside_is_refused(memplug_online(pool, A, 1, MEMPLUG_ONLINE_MOVABLE, NULL, &why), &why);
    inside_is_refused(memplug_offline(pool, A, 1, NULL, &why), &why);
    inside_is_refused(memplug_remove(pool, add.address, add.size_bytes, NULL, &why), &why);
    inside_is_refused(memplug_offline_and_remove(pool, A * world.block_bytes, world.block_bytes,
                                                 NULL, &why), &why);
    inside_is_refused(memplug_policy_set(pool, &policy, 0), NULL);
    inside_is_refused(memplug_group_register(pool, &(struct memplug_group){.nr_pages = 1}), NULL);
    inside_is_refused(memplug_group_unregister(pool, 1), NULL);
    inside_is_refused(memplug_check(pool, &why), &why);
    inside_is_refused(memplug_close(pool, &why), &why);
    inside_is_refused(memplug_dump(pool, forget, NULL), NULL);
    inside_is_refused(memplug_subscribe(pool, &world.subscriber), NULL);
    inside_is_refused(memplug_unsubscribe(pool, &world.subscriber), NULL);
    inside_is_refused(memplug_set_online_hook(pool, NULL), NULL);
    nr_insides++;
}

/* What does not need it works. */
static void use_pages(void)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE, .cookie = 1 << 20};
    struct memplug_block_info info;
    struct memplug_stat stat;
    memplug_pfn_t pfn;

    must(memplug_block_info(world.pool, A, &info));
    memplug_stat(world.pool, &stat);
    assert_int_equal(stat.nr_blocks, 2 * NR);
    must(memplug_alloc(world.pool, &request, &pfn)); /* there is a kernel zone in B */
    must(memplug_free(world.pool, pfn, 1));
    request.nr_pages = 4;
    must(memplug_alloc(world.pool, &request, &pfn));
    must(memplug_free(world.pool, pfn, 4));
}

static void move_from_inside(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    const struct memplug_mover *inner = owner_mover(world.owner);

    (void)context;
    call_everything();
    use_pages();
    inner->move(inner->context, moves, nr_moves);
}

static int notify_from_inside(void *context, const struct memplug_notice *notice)
{
    (void)notice;
    call_everything();
    use_pages();
    return *(const int *)context;
}

static void hook_from_inside(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    (void)context;
    call_everything();
    use_pages();
    must(memplug_release_pages(world.pool, start, nr_pages));
}

static void progress_from_inside(void *context, const struct memplug_progress *progress)
{
    (void)context;
    (void)progress;
    call_everything();
}

static void open_small(void)
{
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .seed = 11});
    must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
    must(world_add(&world, world.backing_b, B, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
    must(memplug_online(world.pool, B, NR, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
}

static void inside(void **state)
{
    const struct memplug_limit limit = {.progress = progress_from_inside};
    const struct memplug_online_hook hook = {.online_pages = hook_from_inside};
    const struct memplug_mover mover = {.name = "inside", .move = move_from_inside};
    int answer = 0;
    const struct memplug_subscriber subscriber = {.name = "inside", .notify = notify_from_inside,
                                                  .context = &answer};

    (void)state;
    open_small();
    must(memplug_subscribe(world.pool, &subscriber));
    must(memplug_set_online_hook(world.pool, &hook));
    owner_bind(world.owner, world.pool, (unsigned)memplug_register_mover(world.pool, &mover));
    answer = -EPERM;
    REFUSED(EPERM, "subscriber \"inside\"", online(A, NR));
    answer = 0;
    nr_insides = 0;
    must(memplug_online(world.pool, A, NR, MEMPLUG_ONLINE_MOVABLE, &limit, &reason));
    assert_true(nr_insides > 2 * NR + NR * (BLOCK_PAGES / PAGEBLOCK_PAGES)); /* events, chunks */
    world_fill(&world, A, NR, 10);
    nr_insides = 0;
    must(memplug_offline(world.pool, A, NR, &limit, &reason));
    assert_true(nr_insides > 3 * NR);
    world_check(&world);
    must(memplug_set_online_hook(world.pool, NULL));
    must(memplug_unsubscribe(world.pool, &subscriber));
    owner_free_all(world.owner);
    world_close(&world);
}

/* --- a driver that keeps pages back ----------------------------------------------------------- */

/* It releases what is not in [from, to) of each pageblock, and knows the chunks that are left. */
struct driver {
    struct memplug_online_hook hook;
    struct memplug_subscriber subscriber;
    uint32_t from, to;
    bool lets_go;
    memplug_pfn_t chunks[64];
    unsigned nr_chunks;
};

static struct driver driver;
static int other_says;

static void driver_online(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    uint32_t at = (uint32_t)(start.nr % PAGEBLOCK_PAGES), end = at + nr_pages;
    uint64_t base = start.nr - at;

    (void)context;
    assert_true(end <= PAGEBLOCK_PAGES);
    if (at < driver.from)
        must(memplug_release_pages(
            world.pool, start, (end < driver.from ? end : driver.from) - at));
    if (end > driver.to) {
        uint32_t first = at > driver.to ? at : driver.to;

        must(memplug_release_pages(world.pool, (memplug_pfn_t){base + first}, end - first));
    }
    if (at < driver.to && end > driver.from)
        driver.chunks[driver.nr_chunks++].nr = base + (at > driver.from ? at : driver.from);
}

static int driver_notify(void *context, const struct memplug_notice *notice)
{
    (void)context;
    if (!driver.lets_go)
        return 0;
    for (unsigned i = 0; i < driver.nr_chunks; i++) {
        if (driver.chunks[i].nr - notice->start.nr >= notice->nr_pages)
            continue;
        if (notice->event == MEMPLUG_GOING_OFFLINE)
            must(memplug_unpin(world.pool, driver.chunks[i]));
        else if (notice->event == MEMPLUG_CANCEL_OFFLINE)
            must(memplug_pin(world.pool, driver.chunks[i]));
    }
    return 0;
}

static int other_notify(void *context, const struct memplug_notice *notice)
{
    uint64_t block = notice->start.nr / BLOCK_PAGES;

    (void)context;
    return notice->event == MEMPLUG_GOING_OFFLINE && block == A + 2 ? other_says : 0;
}

static const struct memplug_subscriber other = {.name = "other", .notify = other_notify};

static void open_driver(uint32_t from, uint32_t to)
{
    open_small();
    driver = (struct driver){
        .hook = {.online_pages = driver_online},
        .subscriber = {.name = "driver", .priority = 10, .notify = driver_notify},
        .from = from,
        .to = to,
    };
    other_says = 0;
    must(memplug_subscribe(world.pool, &driver.subscriber));
    must(memplug_subscribe(world.pool, &other));
    must(memplug_set_online_hook(world.pool, &driver.hook));
    must(online(A, NR));
    world_check(&world);
}

static void close_driver(void)
{
    must(memplug_unsubscribe(world.pool, &driver.subscriber));
    must(memplug_unsubscribe(world.pool, &other));
    must(memplug_set_online_hook(world.pool, NULL));
    world_close(&world);
}

static uint64_t managed(uint64_t block)
{
    struct memplug_block_info info;
    struct memplug_zone_info zone;

    must(memplug_block_info(world.pool, block, &info));
    must(memplug_zone_info(world.pool, 0, info.zone, &zone));
    assert_int_equal(zone.nr_managed_pages, NR * info.nr_managed_pages);
    assert_int_equal(zone.nr_present_pages, NR * BLOCK_PAGES);
    return info.nr_managed_pages;
}

static void driver_decides(uint32_t from, uint32_t to)
{
    /* The memmap is the first four frames of the first pageblock. */
    uint64_t nr_kept = 4 * (to - from) - (from < 4 ? (to < 4 ? to : 4) - from : 0);

    open_driver(from, to);
    assert_int_equal(managed(A), BLOCK_PAGES - 4 - nr_kept);
    world_fill(&world, A, NR, 20);
    REFUSED(EBUSY, "a driver keeps logically offline pages", offline(A, NR));
    assert_int_equal(reason.pfn.nr, driver.chunks[0].nr);
    assert_null(reason.owner);
    REFUSED(EBUSY, "a driver keeps", memplug_why(world.pool, A, &reason));
    driver.lets_go = true;
    world_fill(&world, A, NR, 10);
    other_says = -EPERM; /* at the third block of four */
    REFUSED(EPERM, "subscriber \"other\"", offline(A, NR));
    other_says = 0;
    driver.lets_go = false; /* it has taken its references again */
    REFUSED(EBUSY, "a driver keeps", offline(A + 1, 1));
    driver.lets_go = true;
    must(offline(A, NR));
    world_check(&world);
    driver.nr_chunks = 0;
    must(online(A, NR));
    assert_int_equal(managed(A), BLOCK_PAGES - 4 - nr_kept);
    must(offline(A, NR));
    close_driver();
}

static void a_driver_decides(void **state)
{
    (void)state;
    driver_decides(0, 64);  /* all of it */
    driver_decides(17, 18); /* one page of each pageblock */
    driver_decides(8, 64);
    driver_decides(62, 64);
    driver_decides(3, 40);
}

/* What is released of a chunk leaves a chunk before and one behind, each with the reference. */
static void release_in_pieces(void **state)
{
    memplug_pfn_t base = frame(A, PAGEBLOCK_PAGES);
    struct memplug_alloc request = {.nr_pages = 1};
    uint64_t nr_managed;
    char *before;

    (void)state;
    open_driver(0, 64);
    nr_managed = 0;
    request.mover = (uint8_t)world.mover;
    before = world_text(&world, false);
    assert_int_equal(memplug_release_pages(world.pool, base, 0), -EINVAL);
    assert_int_equal(memplug_release_pages(world.pool, base, 65), -EINVAL);
    assert_int_equal(memplug_release_pages(world.pool, frame(A, 65), 64), -EINVAL);
    assert_int_equal(memplug_release_pages(world.pool, base, UINT32_MAX), -EINVAL);
    assert_int_equal(memplug_release_pages(world.pool, frame(A, 0), 1), -EINVAL); /* memmap */
    assert_int_equal(memplug_release_pages(world.pool, frame(A, 3), 2), -EINVAL);
    assert_int_equal(memplug_free(world.pool, base, 64), -EINVAL);
    assert_int_equal(memplug_set_cookie(world.pool, base, 1), -EINVAL);
    assert_int_equal(memplug_alloc_exact(world.pool, base, &request), -EBUSY);
    world_same(&world, before, false);
    for (unsigned i = 0; i < 8; i++) { /* 1 of 8, then what is between */
        must(memplug_release_pages(world.pool, frame(A, 64 + 8 * i + 3), 1));
        assert_int_equal(memplug_release_pages(world.pool, frame(A, 64 + 8 * i + 3), 1), -EINVAL);
        assert_int_equal(memplug_release_pages(world.pool, frame(A, 64 + 8 * i), 8), -EINVAL);
        world_check(&world);
        nr_managed++;
    }
    must(memplug_alloc_exact(world.pool, frame(A, 67), &request));
    must(memplug_release_pages(world.pool, frame(A, 64), 2));
    must(memplug_release_pages(world.pool, frame(A, 66), 1));
    must(memplug_release_pages(world.pool, frame(A, 68 + 1), 3)); /* the end of one chunk */
    must(memplug_release_pages(world.pool, frame(A, 72), 3));
    must(memplug_release_pages(world.pool, frame(A, 68), 1));
    world_check(&world);
    nr_managed += 10;
    {
        struct memplug_block_info info;

        must(memplug_block_info(world.pool, A, &info));
        assert_int_equal(info.nr_managed_pages, nr_managed);
        assert_int_equal(info.nr_free_pages, nr_managed - 1);
    }
    must(memplug_free(world.pool, frame(A, 67), 1));
    REFUSED(EBUSY, "a driver keeps", offline(A, 1));
    for (unsigned i = 4; i < BLOCK_PAGES; i++) /* every chunk has one reference to drop */
        if (memplug_unpin(world.pool, frame(A, i)) == 0)
            assert_int_equal(memplug_unpin(world.pool, frame(A, i)), -EINVAL);
    must(offline(A, 1));
    for (unsigned block = A + 1; block < A + NR; block++)
        for (unsigned i = 4; i < BLOCK_PAGES; i++)
            (void)memplug_release_pages(world.pool, frame(block, i), 1);
    world_check(&world);
    must(offline(A + 1, NR - 1));
    close_driver();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inside),
        cmocka_unit_test(a_driver_decides),
        cmocka_unit_test(release_in_pieces),
    };

    return cmocka_run_group_tests_name("bad callbacks", tests, NULL, NULL);
}
