/* SPDX-License-Identifier: MIT */
/* The allocator's calls on a pool that was laid out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "mini_pool.h"

#include <cmocka.h>

static const struct mini_shape small = {6, 8, 8, 2, 2, 64}; /* blocks of 256 pages */

static struct memplug_alloc want(uint32_t nr_pages, uint8_t mover)
{
    return (struct memplug_alloc){.nr_pages = nr_pages, .node = MEMPLUG_ANY_NODE, .mover = mover};
}

static int take(struct mini *mini, uint32_t nr_pages, uint8_t mover, uint64_t *pfn)
{
    struct memplug_alloc request = want(nr_pages, mover);
    memplug_pfn_t found = {0};
    int error = memplug_alloc(&mini->pool, &request, &found);

    *pfn = found.nr;
    return error;
}

static int give(struct mini *mini, uint64_t pfn, uint32_t nr_pages)
{
    return memplug_free(&mini->pool, mpl_pfn(pfn), nr_pages);
}

static int exact(struct mini *mini, uint64_t pfn, uint32_t nr_pages, uint8_t mover)
{
    struct memplug_alloc request = want(nr_pages, mover);

    return memplug_alloc_exact(&mini->pool, mpl_pfn(pfn), &request);
}

static struct mpl_page *page_of(struct mini *mini, uint64_t pfn)
{
    return mpl_page_at(&mini->pool, mpl_pfn(pfn));
}

/* Everything is free again, in every counter. */
static void close_empty(struct mini *mini, uint64_t nr_free)
{
    mpl_percpu_drain(&mini->pool);
    mini_check(mini);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), nr_free);
    mini_close(mini);
}

/* --- sizes, order, errors --------------------------------------------------------------------- */

static void lowest_first(void **context)
{
    struct mini *mini = mini_open(&small);
    uint64_t pfn, first;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 5);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(take(mini, 4, 0, &first), 0);
    assert_int_equal(first, 256 + 8);
    for (uint64_t i = 5; i < 20; i++) {
        if (i >= 8 && i < 12)
            continue;
        assert_int_equal(take(mini, 1, 0, &pfn), 0);
        assert_int_equal(pfn, 256 + i);
    }
    assert_int_equal(take(mini, 128, 0, &pfn), 0);
    assert_int_equal(pfn, 256 + 128);
    assert_int_equal(give(mini, pfn, 128), 0);
    assert_int_equal(give(mini, first, 4), 0);
    for (uint64_t i = 5; i < 20; i++)
        if (i < 8 || i >= 12)
            assert_int_equal(give(mini, 256 + i, 1), 0);
    close_empty(mini, 512 - 5);
}

static void bad_requests(void **context)
{
    struct mini *mini = mini_open(&small);
    static const uint32_t sizes[] = {0, 3, 5, 63, 65, 96, 129, 513};
    struct memplug_alloc request;
    memplug_pfn_t pfn;
    uint64_t at;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_MOVABLE, 0);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        assert_int_equal(take(mini, sizes[i], 0, &at), -MPL_EINVAL);
    assert_int_equal(take(mini, 1, 1, &at), -MPL_EINVAL); /* no such mover */
    assert_int_equal(take(mini, 1, 0, &at), -MPL_ENOMEM); /* Movable only */
    request = want(1, 0);
    request.node = 2;
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn), -MPL_EINVAL);
    request = want(4, 0);
    request.align_pages = 8;
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn), -MPL_EINVAL);
    request = want(64, 0);
    request.align_pages = 96;
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn), -MPL_EINVAL);
    assert_int_equal(exact(mini, 256, 1, 0), -MPL_EINVAL); /* Movable without a mover */
    assert_int_equal(exact(mini, 0, 1, 0), -MPL_ENODEV);
    assert_int_equal(exact(mini, 1ull << 50, 1, 0), -MPL_ENODEV);
    assert_int_equal(exact(mini, 256, 0, 0), -MPL_EINVAL);
    close_empty(mini, 256);
}

/* Any wrong (pfn, size) is refused, and changes nothing; the right one is taken once. */
static void bad_frees(void **context)
{
    static const uint32_t sizes[] = {1, 2, 3, 8, 64, 100, 192};

    (void)context;
    for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
        for (unsigned moved = 0; moved < 2; moved++) {
            struct mini *mini = mini_open(&small);
            uint8_t mover = moved != 0 ? mini_mover(mini) : 0;
            uint32_t nr = sizes[s];
            uint64_t pfn = 256 + 64;

            mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 3);
            assert_int_equal(exact(mini, pfn - 1, 1, mover), 0);
            assert_int_equal(exact(mini, pfn, nr, mover), 0);
            assert_int_equal(exact(mini, pfn, nr, mover), -MPL_EBUSY);
            for (uint64_t at = 256; at < 512; at++)
                for (uint32_t n = 1; n <= 257; n++)
                    if ((at != pfn || n != nr) && (at != pfn - 1 || n != 1))
                        assert_int_equal(give(mini, at, n), -MPL_EINVAL);
            assert_int_equal(give(mini, pfn, 0), -MPL_EINVAL);
            assert_int_equal(give(mini, 100, 1), -MPL_ENODEV);
            assert_int_equal(give(mini, 600, 4), -MPL_ENODEV);
            assert_int_equal(give(mini, UINT64_MAX, 1), -MPL_ENODEV);
            assert_int_equal(give(mini, UINT64_MAX, 2), -MPL_ENODEV);
            assert_int_equal(give(mini, pfn, nr), 0);
            assert_int_equal(give(mini, pfn, nr), -MPL_EINVAL);
            assert_int_equal(give(mini, pfn - 1, 1), 0);
            close_empty(mini, 253);
        }
}

/* --- whole pageblocks ------------------------------------------------------------------------- */

static void over_blocks(void **context)
{
    struct mini *mini = mini_open(&small);
    uint8_t mover = mini_mover(mini);
    struct memplug_alloc request = want(384, mover);
    memplug_pfn_t pfn;
    uint64_t at;

    (void)context;
    for (uint64_t id = 1; id < 6; id++)
        mini_online(mini, id, 0, MEMPLUG_ZONE_NORMAL, id == 1 ? 70 : id == 4 ? 1 : 0);
    /* 256 + 128 is the first free pageblock; 4's memmap frame cuts 5 off. */
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn), 0);
    assert_int_equal(pfn.nr, 256 + 128);
    mini_check(mini);
    assert_int_equal(give(mini, pfn.nr, 128), -MPL_EINVAL);
    assert_int_equal(give(mini, pfn.nr, 320), -MPL_EINVAL);
    assert_int_equal(give(mini, pfn.nr, 385), -MPL_EINVAL);
    assert_int_equal(give(mini, 512, 256), -MPL_EINVAL);
    assert_int_equal(take(mini, 1024, 0, &at), -MPL_ENOMEM);
    assert_int_equal(give(mini, pfn.nr, 384), 0);
    request.align_pages = 512;
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn), 0);
    assert_int_equal(pfn.nr, 512);
    assert_int_equal(page_of(mini, 512)->align_order, 9);
    assert_int_equal(give(mini, pfn.nr, 384), 0);
    /* An allocation that ends with its block, before one that begins with a tail of another. */
    assert_int_equal(take(mini, 64, 0, &at), 0);
    assert_int_equal(at, 256 + 128);
    assert_int_equal(take(mini, 64, 0, &at), 0);
    request.align_pages = 0;
    request.nr_pages = 512;
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn), 0);
    assert_int_equal(pfn.nr, 512);
    assert_int_equal(give(mini, at, 64), 0);
    assert_int_equal(give(mini, pfn.nr, 256), -MPL_EINVAL);
    assert_int_equal(give(mini, pfn.nr, 512), 0);
    assert_int_equal(give(mini, 256 + 128, 64), 0);
    close_empty(mini, 5 * 256 - 71);
}

static void isolated_never(void **context)
{
    struct mini *mini = mini_open(&small);
    uint64_t pfn, nr = 0, at;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(take(mini, 1, 0, &pfn), 0); /* the slot now holds a word of block 1 */
    mini_set_isolated(mini, 1, true);
    mpl_percpu_drain(&mini->pool);
    assert_int_equal(exact(mini, 300, 1, 0), -MPL_EBUSY);
    while (take(mini, 1, 0, &at) == 0) {
        assert_true(at >= 512);
        nr++;
    }
    assert_int_equal(nr, 256);
    assert_int_equal(give(mini, pfn, 1), 0); /* straight to the bitmap */
    assert_int_equal(mpl_frame_get(&mini->pool, &mini->pool.blocks[1], pfn - 256),
                     MPL_FRAME_FREE);
    assert_int_equal(take(mini, 1, 0, &at), -MPL_ENOMEM);
    mini_check(mini);
    mini_set_isolated(mini, 1, false);
    assert_int_equal(take(mini, 256, 0, &at), 0);
    assert_int_equal(give(mini, 256, 256), 0);
    for (at = 512; at < 768; at++)
        assert_int_equal(give(mini, at, 1), 0);
    close_empty(mini, 512);
}

/* --- slots ------------------------------------------------------------------------------------ */

static void other_slots_give_way(void **context)
{
    struct mini *mini = mini_open(&small);
    uint64_t pfn, last;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    for (unsigned i = 0; i < 256; i++) {
        mini_cpu = i % 2;
        assert_int_equal(take(mini, 1, 0, &last), 0);
    }
    assert_int_equal(take(mini, 1, 0, &pfn), -MPL_ENOMEM);
    for (uint64_t at = 256; at < 512; at++) {
        mini_cpu = at % 2;
        assert_int_equal(give(mini, at, 1), 0);
        mini_cpu = 0;
        assert_int_equal(give(mini, at, 1), -MPL_EINVAL); /* held by a slot */
    }
    assert_int_equal(take(mini, 256, 0, &pfn), 0);
    assert_int_equal(give(mini, pfn, 256), 0);
    /* The last free word is held by CPU 1: CPU 0 gets a frame of it all the same. */
    assert_int_equal(exact(mini, 256, 192, 0), 0);
    mini_cpu = 1;
    assert_int_equal(take(mini, 1, 0, &pfn), 0);
    mini_cpu = 0;
    assert_int_equal(take(mini, 1, 0, &last), 0);
    assert_int_equal(last, pfn + 1);
    assert_int_equal(give(mini, pfn, 1), 0);
    assert_int_equal(give(mini, last, 1), 0);
    assert_int_equal(give(mini, 256, 192), 0);
    mpl_percpu_drain(&mini->pool);
    mini_cpu = 1;
    assert_int_equal(take(mini, 1, 0, &pfn), 0);
    mini_cpu = 0;
    assert_int_equal(exact(mini, pfn + 1, 1, 0), 0); /* held by CPU 1 until then */
    assert_int_equal(give(mini, pfn, 1), 0);
    assert_int_equal(give(mini, pfn + 1, 1), 0);
    close_empty(mini, 256);
}

static void nodes_and_zones(void **context)
{
    struct mini *mini = mini_open(&small);
    uint8_t mover = mini_mover(mini);
    struct memplug_alloc request = want(1, mover);
    memplug_pfn_t pfn[3];

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    mini_online(mini, 3, 1, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn[0]), 0);
    assert_int_equal(pfn[0].nr, 512);
    request.node = 1; /* the slot's word is of node 0 */
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn[1]), 0);
    assert_int_equal(pfn[1].nr, 768);
    request.node = 0;
    request.mover = 0;
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn[2]), 0);
    assert_int_equal(pfn[2].nr, 256);
    assert_false(mpl_frame_described(&mini->pool, &mini->pool.blocks[1], 0));
    assert_int_equal(*(uint32_t *)(void *)page_of(mini, 256), 0xa5a5a5a5); /* untouched */
    request.nr_pages = 256;
    request.node = 1;
    request.this_node = true;
    assert_int_equal(memplug_alloc(&mini->pool, &request, &pfn[0]), -MPL_ENOMEM);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(give(mini, i == 0 ? 512 : pfn[i].nr, 1), 0);
    close_empty(mini, 768);
}

/* --- described pages -------------------------------------------------------------------------- */

static void pins_and_cookies(void **context)
{
    (void)context;
    for (uint32_t nr = 1; nr <= 64; nr *= 8) {
        struct mini *mini = mini_open(&small);
        uint8_t mover = mini_mover(mini);
        struct memplug *pool = &mini->pool;
        memplug_pfn_t pfn, plain;
        uint64_t at;

        mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 2);
        assert_int_equal(take(mini, nr, mover, &at), 0);
        pfn = mpl_pfn(at);
        assert_int_equal(take(mini, 1, 0, &at), 0);
        plain = mpl_pfn(at);
        assert_int_equal(memplug_pin(pool, plain), -MPL_EINVAL);
        assert_int_equal(memplug_pin(pool, mpl_pfn(256)), -MPL_EINVAL);
        assert_int_equal(memplug_pin(pool, mpl_pfn(10)), -MPL_ENODEV);
        assert_int_equal(memplug_unpin(pool, pfn), -MPL_EINVAL);
        assert_int_equal(memplug_set_cookie(pool, pfn, 99), 0);
        assert_int_equal(atomic_load(&page_of(mini, pfn.nr)->cookie), 99);
        assert_int_equal(page_of(mini, pfn.nr)->nr_pages, nr);
        assert_int_equal(memplug_pin(pool, pfn), 0);
        assert_int_equal(give(mini, pfn.nr, nr), -MPL_EBUSY);
        assert_int_equal(memplug_unpin(pool, pfn), 0);
        assert_true(mpl_page_change(page_of(mini, pfn.nr), MPL_PAGE_USED, MPL_PAGE_MOVING));
        assert_int_equal(memplug_pin(pool, pfn), -MPL_EAGAIN);
        assert_int_equal(memplug_set_cookie(pool, pfn, 1), -MPL_EAGAIN);
        assert_int_equal(give(mini, pfn.nr, nr), 0); /* remembered */
        assert_int_equal(give(mini, pfn.nr, nr), -MPL_EINVAL);
        assert_true(mpl_page_change(page_of(mini, pfn.nr), MPL_PAGE_DYING, MPL_PAGE_NONE));
        mpl_free_frames(pool, pfn, nr);
        assert_int_equal(give(mini, pfn.nr, nr), -MPL_EINVAL);
        assert_int_equal(give(mini, plain.nr, 1), 0);
        assert_ptr_equal(memplug_page_private(pool, plain), (char *)page_of(mini, plain.nr) + 32);
        close_empty(mini, 254);
    }
}

/* A target is as large and as aligned as its source, whatever that is, and not isolated. */
static void targets(void **context)
{
    static const uint32_t sizes[] = {1, 3, 64, 65, 100, 192, 256, 384};

    (void)context;
    for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct mini *mini = mini_open(&small);
        struct mpl_page source;
        memplug_pfn_t pfn;

        for (uint64_t id = 1; id < 8; id++)
            mini_online(mini, id, 0, MEMPLUG_ZONE_MOVABLE, 0);
        mini_set_isolated(mini, 1, true);
        mpl_page_describe(&source, MPL_PAGE_USED, sizes[s], mini_mover(mini), 7, false);
        source.align_order = sizes[s] == 384 ? 9 : 0;
        assert_int_equal(mpl_alloc_target(&mini->pool, 0, &source, &pfn), 0);
        assert_int_equal(pfn.nr, 512);
        assert_int_equal(page_of(mini, 512)->nr_pages, sizes[s]);
        assert_int_equal(page_of(mini, 512)->align_order, source.align_order);
        assert_int_equal(mpl_page_state(page_of(mini, 512)), MPL_PAGE_TARGET);
        assert_true(mpl_page_change(page_of(mini, 512), MPL_PAGE_TARGET, MPL_PAGE_USED));
        assert_int_equal(give(mini, 512, sizes[s]), 0);
        close_empty(mini, 7 * 256);
    }
}

/* --- logically offline pages ------------------------------------------------------------------ */

/* Every part of a chunk of 64, then every part of what is left. */
static void release_parts(void **context)
{
    (void)context;
    for (unsigned i = 0; i < 64; i++)
        for (unsigned nr = 1; nr <= 64 - i; nr++) {
            static const struct mini_shape tiny = {6, 7, 2, 1, 1, 64};
            struct mini *mini = mini_open(&tiny);
            struct memplug *pool = &mini->pool;
            struct mpl_block *block = &pool->blocks[1];
            unsigned cut = (i * 31 + nr * 17) % 64, nr_free = nr;

            mini_enter(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
            mpl_keep_frames(pool, mpl_pfn(128 + 64), 64);
            assert_int_equal(memplug_pin(pool, mpl_pfn(128 + 64)), 0);
            assert_int_equal(memplug_release_pages(pool, mpl_pfn(128 + 64), 65), -MPL_EINVAL);
            assert_int_equal(memplug_release_pages(pool, mpl_pfn(128 + 63), 2), -MPL_EINVAL);
            assert_int_equal(memplug_release_pages(pool, mpl_pfn(128 + 64 + i), nr), 0);
            assert_int_equal(memplug_release_pages(pool, mpl_pfn(128 + 64 + i), nr), -MPL_EINVAL);
            assert_int_equal(block->nr_managed, nr);
            mini_check(mini);
            if (i != 0)
                assert_int_equal(mpl_page_pins(page_of(mini, 128 + 64)), 2);
            if (i + nr < 64)
                assert_int_equal(mpl_page_pins(page_of(mini, 128 + 64 + i + nr)), 2);
            if (cut < i || cut >= i + nr)
                nr_free += memplug_release_pages(pool, mpl_pfn(128 + 64 + cut), 1) == 0;
            mini_check(mini);
            assert_int_equal(block->nr_managed, nr_free);
            for (unsigned at = 0; at < 64; at++)
                memplug_release_pages(pool, mpl_pfn(128 + 64 + at), 1);
            assert_int_equal(block->nr_managed, 64);
            assert_int_equal(mini_count(mini, MPL_FRAME_FREE), 64);
            mini_check(mini);
            mini_close(mini);
        }
}

/* One call over several chunks; an owner cannot free a chunk. */
static void release_chunks(void **context)
{
    struct mini *mini = mini_open(&small);
    struct memplug *pool = &mini->pool;

    (void)context;
    mini_enter(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 8);
    mpl_keep_frames(pool, mpl_pfn(256 + 8), 8);
    mpl_keep_frames(pool, mpl_pfn(256 + 16), 16);
    mpl_keep_frames(pool, mpl_pfn(256 + 32), 32);
    assert_int_equal(give(mini, 256 + 8, 8), -MPL_EINVAL);
    assert_int_equal(memplug_set_cookie(pool, mpl_pfn(256 + 8), 1), -MPL_EINVAL);
    assert_int_equal(memplug_release_pages(pool, mpl_pfn(256 + 4), 10), -MPL_EINVAL);
    assert_int_equal(memplug_release_pages(pool, mpl_pfn(256 + 12), 40), 0);
    assert_int_equal(pool->blocks[1].nr_managed, 40);
    assert_int_equal(page_of(mini, 256 + 8)->nr_pages, 4);
    assert_int_equal(page_of(mini, 256 + 52)->nr_pages, 12);
    mini_check(mini);
    mini_close(mini);
}

static void movers(void **context)
{
    struct mini *mini = mini_open(&small);
    struct memplug_mover none = {.name = "none"};

    (void)context;
    assert_int_equal(memplug_register_mover(&mini->pool, &none), -MPL_EINVAL);
    for (unsigned i = 1; i < MPL_MAX_MOVERS; i++)
        assert_int_equal(mini_mover(mini), i);
    none.move = mini->pool.movers[1].move;
    assert_int_equal(memplug_register_mover(&mini->pool, &none), -MPL_ENOSPC);
    mini_close(mini);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_first),     cmocka_unit_test(bad_requests),
        cmocka_unit_test(bad_frees),        cmocka_unit_test(over_blocks),
        cmocka_unit_test(isolated_never),   cmocka_unit_test(other_slots_give_way),
        cmocka_unit_test(nodes_and_zones),  cmocka_unit_test(pins_and_cookies),
        cmocka_unit_test(targets),          cmocka_unit_test(release_parts),
        cmocka_unit_test(release_chunks),   cmocka_unit_test(movers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
