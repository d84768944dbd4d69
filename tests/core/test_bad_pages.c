/* SPDX-License-Identifier: MIT */
/*
 * What is wrong about pages and about those who are called: an offline that cannot be, vetoes,
 * calls from inside, requests and frees that cannot be, a driver that keeps pages back. After each
 * the state is what it was, but that pages may have moved.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define A 4u  /* blocks 4 to 7 */
#define B 12u /* blocks 12 to 15 */
#define BLOCK_PAGES UINT64_C(256)
#define MEMMAP_PAGES 4u /* of a block with a memmap of its own */

static struct world world;
static struct memplug_reason reason;

#define REFUSED_MOVED(error, word, call, moved) \
    WORLD_REFUSES(&world, &reason, error, word, call, moved)
#define REFUSED(error, word, call) REFUSED_MOVED(error, word, call, false)

/* For calls without a reason. */
#define WRONG(error, call)                                                                         \
    do {                                                                                           \
        char *before_ = world_text(&world, false);                                                 \
                                                                                                   \
        assert_int_equal(call, -(error));                                                          \
        world_same(&world, before_, false);                                                        \
    } while (0)

static memplug_pfn_t frame(uint64_t block, uint64_t index)
{
    return (memplug_pfn_t){block * BLOCK_PAGES + index};
}

static int online(uint64_t first, uint64_t nr_blocks, enum memplug_online_type type)
{
    return memplug_online(world.pool, first, nr_blocks, type, NULL, &reason);
}

static int offline(uint64_t first, uint64_t nr_blocks)
{
    return memplug_offline(world.pool, first, nr_blocks, NULL, &reason);
}

/* A is online as type, B Movable or not there. */
static void open_small(enum memplug_online_type type, bool with_b)
{
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .seed = 11});
    must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
    must(online(A, NR, type));
    if (!with_b)
        return;
    must(world_add(&world, world.backing_b, B, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
    must(online(B, NR, MEMPLUG_ONLINE_MOVABLE));
}

static int take(memplug_pfn_t pfn, uint32_t nr_pages)
{
    struct memplug_alloc request = {.nr_pages = nr_pages};

    return memplug_alloc_exact(world.pool, pfn, &request);
}

static uint64_t moved_pages(void)
{
    struct memplug_stat stat;

    memplug_stat(world.pool, &stat);
    return stat.nr_moved_pages;
}

/* --- offline that cannot be ------------------------------------------------------------------- */

static void unmovable(void **state)
{
    uint64_t nr_moved;

    (void)state;
    open_small(MEMPLUG_ONLINE_KERNEL, true);
    world_fill(&world, A, NR, 20);
    must(take(frame(A + 2, 200), 3));
    must(take(frame(A + 2, 210), 1));
    nr_moved = moved_pages();
    for (uint64_t first = A; first <= A + 2; first++) {
        REFUSED(EBUSY, "nobody can move it (2 such frames)", offline(first, A + NR - first));
        assert_string_equal(reason.step, "drain");
        assert_int_equal(reason.block, A + 2);
        assert_int_equal(reason.pfn.nr, frame(A + 2, 200).nr);
        assert_null(reason.owner);
    }
    REFUSED(EBUSY, "frame 0x6c8", memplug_why(world.pool, A + 2, &reason));
    assert_int_equal(moved_pages(), nr_moved); /* looked at before anything moves */
    must(memplug_free(world.pool, frame(A + 2, 200), 3));
    must(memplug_free(world.pool, frame(A + 2, 210), 1));
    must(offline(A, NR));
    world_check(&world);
    world_close(&world);
}

static void pinned_and_held(void **state)
{
    struct memplug_alloc request = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn = frame(A + 1, 128);
    unsigned slot;

    (void)state;
    open_small(MEMPLUG_ONLINE_MOVABLE, true);
    must(owner_alloc_request(world.owner, &request, &pfn, &slot));
    must(memplug_pin(world.pool, pfn));
    must(memplug_pin(world.pool, pfn));
    for (unsigned nr_pins = 2; nr_pins > 0; nr_pins--) {
        REFUSED(EBUSY, "a page is pinned (1 such frame, owner \"owner\"", offline(A, NR));
        assert_string_equal(reason.step, "migrate");
        assert_int_equal(reason.pfn.nr, pfn.nr);
        assert_int_equal(reason.owner_cookie, slot);
        assert_int_equal(reason.block, A + 1);
        REFUSED(EBUSY, "a page is pinned", memplug_why(world.pool, A + 1, &reason));
        WRONG(EBUSY, memplug_free(world.pool, pfn, 2));
        must(memplug_unpin(world.pool, pfn));
    }
    WRONG(EINVAL, memplug_unpin(world.pool, pfn));
    must(owner_hold(world.owner, slot, true));
    REFUSED(EBUSY, "owner \"owner\"", offline(A + 1, 1));
    assert_int_equal(reason.pfn.nr, pfn.nr);
    REFUSED(EBUSY, "the owner holds the page", memplug_why(world.pool, A + 1, &reason));
    must(owner_hold(world.owner, slot, false));
    must(memplug_why(world.pool, A + 1, &reason));
    must(offline(A, NR));
    world_check(&world);
    world_close(&world);
}

/* A page that is born with a pin is not movable for a moment. */
static void born_pinned(void **state)
{
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE, .pinned = true};
    static const uint32_t sizes[] = {1, 2, 64, 128};

    (void)state;
    open_small(MEMPLUG_ONLINE_MOVABLE, true);
    request.mover = (uint8_t)world.mover;
    request.cookie = 1 << 20;
    for (unsigned i = 0; i < 2 * sizeof(sizes) / sizeof(sizes[0]); i++) {
        memplug_pfn_t pfn = frame(A, 192);

        request.nr_pages = sizes[i / 2];
        if (i % 2 == 0)
            must(memplug_alloc(world.pool, &request, &pfn));
        else if (request.nr_pages <= 64)
            must(memplug_alloc_exact(world.pool, pfn, &request));
        else
            continue;
        REFUSED(EBUSY, "a page is pinned", offline(A, 1));
        assert_int_equal(reason.pfn.nr, pfn.nr);
        WRONG(EBUSY, memplug_free(world.pool, pfn, request.nr_pages));
        must(memplug_unpin(world.pool, pfn));
        WRONG(EINVAL, memplug_unpin(world.pool, pfn));
        must(memplug_free(world.pool, pfn, request.nr_pages));
    }
    request.mover = 0;
    request.nr_pages = 1;
    WRONG(EINVAL, memplug_alloc_exact(world.pool, frame(A, 192), &request));
    world_close(&world);
}

/* The kernel would try for ever. */
static void no_room(void **state)
{
    struct fault_limit limit;
    uint64_t clock, nr_moved;
    unsigned slot;

    (void)state;
    open_small(MEMPLUG_ONLINE_MOVABLE, false);
    assert_int_equal(owner_fill(world.owner), NR * (BLOCK_PAGES - MEMMAP_PAGES));
    fault_limit_init(&limit, FAULT_LIMIT_COUNT, 0, NULL);
    clock = fake_clock(world.machine);
    REFUSED(ENOMEM, "no room to move it to (252 such frames",
            memplug_offline(world.pool, A, 1, &limit.limit, &reason));
    assert_string_equal(reason.step, "migrate");
    assert_in_range(limit.nr_checks, 5, 400);
    assert_in_range(fake_clock(world.machine) - clock, 1, 1000000000);
    REFUSED(ENOMEM, "no room", memplug_why(world.pool, A, &reason));
    nr_moved = moved_pages();
    for (slot = 600; slot < 610; slot++)
        must(owner_free(world.owner, slot));
    REFUSED_MOVED(ENOMEM, "no room to move it to (242 such frames", offline(A, 1), true);
    assert_int_equal(moved_pages(), nr_moved + 10);
    limit.limit.tries = 1;
    REFUSED_MOVED(ENOMEM, "no room", memplug_offline(world.pool, A, 2, &limit.limit, &reason),
                  true);
    while (slot-- > 400)
        (void)owner_free(world.owner, slot);
    for (slot = 610; slot < 800; slot++)
        must(owner_free(world.owner, slot));
    must(offline(A, 1));
    world_check(&world);
    world_close(&world);
}

/* Allocations over the borders of blocks, and a memmap that is no whole pageblock: the limit
 * strikes at each of its checks, until there are no more. */
static void limits_strike(enum fault_limit_kind kind)
{
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};
    struct fault_limit limit;
    uint64_t k = 0;
    int error;

    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .page_struct_bytes = 56});
    must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_RANGE, NULL, NULL));
    must(world_add(&world, world.backing_b, B, MEMPLUG_MEMMAP_RANGE, NULL, NULL));
    must(online(A, NR, MEMPLUG_ONLINE_MOVABLE));
    for (request.nr_pages = 192; request.nr_pages <= 384; request.nr_pages += 192)
        must(owner_alloc_request(world.owner, &request, NULL, NULL));
    world_fill(&world, A, NR, 30);
    must(online(B, NR, MEMPLUG_ONLINE_MOVABLE));
    do {
        char *before = world_text(&world, true);

        fault_limit_init(&limit, kind, ++k, world.fault);
        error = memplug_offline(world.pool, A, NR, &limit.limit, &reason);
        if (error != 0) {
            assert_int_equal(error, kind == FAULT_LIMIT_STOP ? -EINTR : -ETIMEDOUT);
            world_blames(&reason, -error, kind == FAULT_LIMIT_STOP ? "cancelled" : "time is over");
            assert_string_equal(reason.step, limit.step);
            world_same(&world, before, true);
        } else {
            free(before);
        }
    } while (error != 0);
    assert_true(k > 20 && limit.nr_checks < k); /* what has moved needs no check any more */
    assert_true(moved_pages() > 192 + 384);
    world_check(&world);
    world_close(&world);
}

static void limits_strike_at_every_check(void **state)
{
    (void)state;
    limits_strike(FAULT_LIMIT_STOP);
    limits_strike(FAULT_LIMIT_DEADLINE);
}

/* --- vetoes ----------------------------------------------------------------------------------- */

#define NR_VOTERS 5u

struct voter {
    struct memplug_subscriber subscriber;
    uint64_t veto_at; /* the first frame that it refuses */
    unsigned nr_going, nr_cancel, nr_done;
    unsigned *clock, heard; /* when it was asked last */
};

static int vote(void *context, const struct memplug_notice *notice)
{
    struct voter *voter = context;

    assert_int_equal(notice->nr_pages, BLOCK_PAGES - MEMMAP_PAGES);
    assert_int_equal(notice->start.nr % BLOCK_PAGES, MEMMAP_PAGES);
    switch (notice->event) {
    case MEMPLUG_GOING_ONLINE:
    case MEMPLUG_GOING_OFFLINE:
        voter->nr_going++;
        voter->heard = ++*voter->clock;
        return notice->start.nr == voter->veto_at ? -EPERM : 0;
    case MEMPLUG_CANCEL_ONLINE:
    case MEMPLUG_CANCEL_OFFLINE:
        voter->nr_cancel++;
        return -EIO; /* nobody listens */
    case MEMPLUG_PREPARE_ONLINE:
    case MEMPLUG_FINISH_OFFLINE:
        return 0; /* of another pair */
    default:
        voter->nr_done++;
        return -EIO;
    }
}

/* Voter `who` refuses block number `at` of four. Those before it were asked of all blocks up to
 * that one, those behind of one less; all hear the end of every block that anybody was asked of. */
static void veto(struct voter *voters, unsigned who, unsigned at, bool is_online)
{
    for (unsigned i = 0; i < NR_VOTERS; i++)
        voters[i].nr_going = voters[i].nr_cancel = voters[i].nr_done = 0;
    voters[who].veto_at = frame(A + at, MEMMAP_PAGES).nr;
    REFUSED(EPERM, voters[who].subscriber.name,
            is_online ? offline(A, NR) : online(A, NR, MEMPLUG_ONLINE_MOVABLE));
    voters[who].veto_at = 0;
    assert_int_equal(reason.block, A + at);
    assert_string_equal(reason.step, "ask");
    for (unsigned i = 0; i < NR_VOTERS; i++) {
        assert_int_equal(voters[i].nr_going, i <= who ? at + 1 : at);
        assert_int_equal(voters[i].nr_cancel, at + 1);
        assert_int_equal(voters[i].nr_done, 0);
        assert_true(i == 0 || i > who || voters[i].heard > voters[i - 1].heard);
    }
}

static void veto_of_each(void **state)
{
    static const int priorities[NR_VOTERS] = {100, 10, 0, 0, -1};
    static const char *const names[NR_VOTERS] = {"first", "second", "third", "fourth", "last"};
    static const unsigned order[NR_VOTERS] = {2, 0, 4, 3, 1}; /* of subscribing */
    struct voter voters[NR_VOTERS] = {0};
    unsigned clock = 0;

    (void)state;
    open_small(MEMPLUG_ONLINE_MOVABLE, true);
    for (unsigned i = 0; i < NR_VOTERS; i++) {
        struct voter *voter = &voters[order[i]];

        voter->clock = &clock;
        voter->subscriber = (struct memplug_subscriber){
            .name = names[order[i]], .priority = priorities[order[i]], .notify = vote,
            .context = voter};
        must(memplug_subscribe(world.pool, &voter->subscriber));
    }
    world_fill(&world, A, NR, 10);
    for (unsigned who = 0; who < NR_VOTERS; who++)
        for (unsigned at = 0; at < NR; at++)
            veto(voters, who, at, true);
    must(offline(A, NR));
    for (unsigned who = 0; who < NR_VOTERS; who++)
        for (unsigned at = 0; at < NR; at++)
            veto(voters, who, at, false);
    must(online(A, NR, MEMPLUG_ONLINE_MOVABLE));
    assert_int_equal(voters[0].nr_done, NR);
    for (unsigned i = 0; i < NR_VOTERS; i++)
        must(memplug_unsubscribe(world.pool, &voters[i].subscriber));
    WRONG(ENOENT, memplug_unsubscribe(world.pool, &voters[0].subscriber));
    world_close(&world);
}

static int agree(void *context, const struct memplug_notice *notice)
{
    (void)context;
    (void)notice;
    return 0;
}

static void too_many_callees(void **state)
{
    struct memplug_subscriber subscribers[16];
    struct memplug_mover mover = {.name = "nothing"};

    (void)state;
    open_small(MEMPLUG_ONLINE_MOVABLE, false);
    for (unsigned i = 0; i < 16; i++) /* the world has one */
        subscribers[i] = (struct memplug_subscriber){.name = "more", .notify = agree};
    for (unsigned i = 0; i < 15; i++)
        must(memplug_subscribe(world.pool, &subscribers[i]));
    WRONG(ENOSPC, memplug_subscribe(world.pool, &subscribers[15]));
    for (unsigned i = 0; i < 15; i++)
        must(memplug_unsubscribe(world.pool, &subscribers[i]));
    WRONG(EINVAL, memplug_register_mover(world.pool, &mover));
    mover = *owner_mover(world.owner);
    for (unsigned number = world.mover + 1; number < 16; number++)
        assert_int_equal(memplug_register_mover(world.pool, &mover), number);
    WRONG(ENOSPC, memplug_register_mover(world.pool, &mover));
    world_close(&world);
}

/* --- requests and frees that cannot be -------------------------------------------------------- */

static int try_alloc(const struct memplug_alloc *request)
{
    memplug_pfn_t pfn;

    return memplug_alloc(world.pool, request, &pfn);
}

static void impossible_requests(void **state)
{
    static const struct memplug_alloc wrong[] = {
        {.nr_pages = 0}, {.nr_pages = 3}, {.nr_pages = 63}, {.nr_pages = 65}, {.nr_pages = 96},
        {.nr_pages = 513}, {.nr_pages = 1025}, {.nr_pages = UINT32_MAX},
        {.nr_pages = 1, .align_pages = 2}, {.nr_pages = 64, .align_pages = 96},
        {.nr_pages = 192, .align_pages = 3}, {.nr_pages = 32, .align_pages = 64},
        {.nr_pages = 1, .node = 1}, {.nr_pages = 1, .node = -2}, {.nr_pages = 1, .node = 1 << 20},
        {.nr_pages = 1, .mover = 15}, {.nr_pages = 64, .mover = 255},
    };
    static const struct memplug_alloc too_much[] = {
        {.nr_pages = 4096}, {.nr_pages = 1024}, {.nr_pages = UINT32_MAX - 63},
        {.nr_pages = 256}, /* no block without a memmap at its head */
        {.nr_pages = 64, .align_pages = 1u << 31}, {.nr_pages = 192, .align_pages = 256},
    };

    (void)state;
    open_small(MEMPLUG_ONLINE_KERNEL, false);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        WRONG(EINVAL, try_alloc(&wrong[i]));
    for (unsigned i = 0; i < sizeof(too_much) / sizeof(too_much[0]); i++)
        WRONG(ENOMEM, try_alloc(&too_much[i]));
    WRONG(EINVAL, take(frame(A, 100), 0));
    WRONG(EINVAL, take(frame(A, 100), 157)); /* over the end of the block */
    WRONG(EINVAL, take(frame(A, 100), UINT32_MAX));
    WRONG(EINVAL, take(frame(A, 0), 1)); /* memmap */
    WRONG(EINVAL, take(frame(A, 3), 2));
    WRONG(ENODEV, take(frame(A - 1, 9), 1));
    WRONG(ENODEV, take(frame(63, 9), 1));
    WRONG(ENODEV, take((memplug_pfn_t){UINT64_MAX}, 1));
    must(take(frame(A, 100), 10));
    WRONG(EBUSY, take(frame(A, 109), 1));
    WRONG(EBUSY, take(frame(A, 90), 11));
    must(memplug_free(world.pool, frame(A, 100), 10));
    must(offline(A + 1, 1));
    WRONG(ENODEV, take(frame(A + 1, 9), 1));
    must(online(A + 1, 1, MEMPLUG_ONLINE_MOVABLE));
    WRONG(EINVAL, take(frame(A + 1, 9), 1)); /* nobody could move it */
    world_close(&world);
}

/* No part of [at, at + nr) but the whole can be freed, pinned or named. */
static void only_as_a_whole(uint64_t at, uint32_t nr_pages, bool described)
{
    for (uint64_t pfn = at - 1; pfn <= at + nr_pages; pfn++)
        for (uint32_t nr = 0; nr <= 2 * nr_pages + 1; nr += nr < 70 ? 1 : 61)
            if (pfn != at || nr != nr_pages)
                assert_int_equal(memplug_free(world.pool, (memplug_pfn_t){pfn}, nr), -EINVAL);
    for (uint64_t pfn = at - 1; pfn <= at + nr_pages; pfn++) {
        if (pfn == at && described)
            continue;
        assert_int_equal(memplug_pin(world.pool, (memplug_pfn_t){pfn}), -EINVAL);
        assert_int_equal(memplug_unpin(world.pool, (memplug_pfn_t){pfn}), -EINVAL);
        assert_int_equal(memplug_set_cookie(world.pool, (memplug_pfn_t){pfn}, 1), -EINVAL);
        assert_int_equal(memplug_release_pages(world.pool, (memplug_pfn_t){pfn}, 1), -EINVAL);
    }
}

static void wrong_frees(void **state)
{
    static const uint32_t sizes[] = {1, 2, 8, 64, 100, 128};
    struct memplug_alloc request = {.node = MEMPLUG_ANY_NODE};

    (void)state;
    open_small(MEMPLUG_ONLINE_KERNEL, false);
    for (unsigned i = 0; i < 2 * sizeof(sizes) / sizeof(sizes[0]); i++) {
        memplug_pfn_t pfn = frame(A + 1, 66);
        char *before;

        request.nr_pages = sizes[i / 2];
        request.mover = i % 2 == 0 ? 0 : (uint8_t)world.mover;
        request.cookie = UINT64_MAX;
        must(memplug_alloc_exact(world.pool, pfn, &request));
        before = world_text(&world, false);
        only_as_a_whole(pfn.nr, request.nr_pages, request.mover != 0);
        world_same(&world, before, false);
        must(memplug_free(world.pool, pfn, request.nr_pages));
        WRONG(EINVAL, memplug_free(world.pool, pfn, request.nr_pages));
        WRONG(EINVAL, memplug_free(world.pool, pfn, 1));
    }
    for (uint32_t index = 0; index < MEMMAP_PAGES; index++)
        for (uint32_t nr = 1; nr <= BLOCK_PAGES; nr++)
            assert_int_equal(memplug_free(world.pool, frame(A, index), nr), -EINVAL);
    WRONG(ENODEV, memplug_free(world.pool, (memplug_pfn_t){0}, 1));
    WRONG(ENODEV, memplug_free(world.pool, frame(A - 1, 255), 2));
    WRONG(ENODEV, memplug_free(world.pool, frame(64, 0), 64));
    WRONG(ENODEV, memplug_free(world.pool, (memplug_pfn_t){UINT64_MAX}, 1));
    WRONG(ENODEV, memplug_pin(world.pool, (memplug_pfn_t){UINT64_MAX}));
    must(take(frame(A, 9), 1));
    must(memplug_free(world.pool, frame(A, 9), 1));
    must(offline(A, 1));
    WRONG(ENODEV, memplug_free(world.pool, frame(A, 9), 1));
    WRONG(ENODEV, memplug_release_pages(world.pool, frame(A, 9), 1));
    WRONG(ENODEV, memplug_unpin(world.pool, frame(A, 9)));
    world_close(&world);
}

/* A run over three blocks is one allocation too. */
static void wrong_frees_of_runs(void **state)
{
    struct memplug_alloc request = {.nr_pages = 640, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn;
    char *before;

    (void)state;
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL});
    must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_HOST, NULL, NULL));
    must(online(A, NR, MEMPLUG_ONLINE_KERNEL));
    must(take(frame(A, 0), 64));
    for (unsigned i = 0; i < 2; i++) {
        request.mover = i == 0 ? 0 : (uint8_t)world.mover;
        must(memplug_alloc(world.pool, &request, &pfn));
        assert_int_equal(pfn.nr, frame(A, 64).nr);
        before = world_text(&world, false);
        for (uint64_t at = pfn.nr; at < pfn.nr + 641; at += 64)
            for (uint32_t nr = 64; nr <= 960; nr += 64)
                if (at != pfn.nr || nr != 640)
                    assert_int_equal(memplug_free(world.pool, (memplug_pfn_t){at}, nr), -EINVAL);
        assert_int_equal(memplug_free(world.pool, frame(A + 1, 0), 1), -EINVAL);
        assert_int_equal(memplug_free(world.pool, pfn, 192), -EINVAL); /* up to the border */
        world_same(&world, before, false);
        must(memplug_free(world.pool, pfn, 640));
        WRONG(EINVAL, memplug_free(world.pool, pfn, 640));
    }
    must(memplug_free(world.pool, frame(A, 0), 64));
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unmovable),
        cmocka_unit_test(pinned_and_held),
        cmocka_unit_test(born_pinned),
        cmocka_unit_test(no_room),
        cmocka_unit_test(limits_strike_at_every_check),
        cmocka_unit_test(veto_of_each),
        cmocka_unit_test(too_many_callees),
        cmocka_unit_test(impossible_requests),
        cmocka_unit_test(wrong_frees),
        cmocka_unit_test(wrong_frees_of_runs),
    };

    return cmocka_run_group_tests_name("bad pages", tests, NULL, NULL);
}
