/* SPDX-License-Identifier: MIT */
/* Many single pages by one call: what it takes, and what it says of each frame. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "mini_pool.h"

#include <cmocka.h>

#define BLOCK_PAGES 256u
#define NR_BLOCKS 6u
#define NR_PAGES (NR_BLOCKS * BLOCK_PAGES)

static const struct mini_shape shape = {6, 8, NR_BLOCKS, 2, 2, 64};

static struct mini *mini;
static struct memplug *pool;
static struct memplug_slot *slot, *other;
static uint8_t mover;
static memplug_pfn_t pfns[NR_PAGES];
static int errors[NR_PAGES];

static int setup(void **context)
{
    (void)context;
    mini = mini_open(&shape);
    pool = &mini->pool;
    mover = mini_mover(mini);
    assert_int_equal(memplug_slot_open(pool, &slot), 0);
    assert_int_equal(memplug_slot_open(pool, &other), 0);
    memset(pfns, 0xee, sizeof(pfns));
    memset(errors, 0xee, sizeof(errors));
    return 0;
}

/* All that tests took is given back. */
static int teardown(void **context)
{
    uint64_t nr_data = 0;

    (void)context;
    memplug_slot_close(slot);
    memplug_slot_close(other);
    mpl_percpu_drain(pool);
    mini_check(mini);
    for (unsigned i = 0; i < NR_BLOCKS; i++)
        if (pool->blocks[i].zone < MEMPLUG_NR_ZONES)
            nr_data += mpl_block_data_pages(pool, &pool->blocks[i]);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), nr_data);
    mini_close(mini);
    return 0;
}

static struct memplug_alloc want(uint8_t owner)
{
    return (struct memplug_alloc){.nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = owner};
}

static int take(uint8_t owner, uint32_t nr)
{
    struct memplug_alloc request = want(owner);

    return memplug_slot_alloc_bulk(slot, &request, NULL, pfns, nr);
}

static uint64_t cookie_of(memplug_pfn_t pfn)
{
    return atomic_load(&mpl_page_at(pool, pfn)->cookie);
}

static void give(memplug_pfn_t *of, uint32_t nr)
{
    assert_int_equal(memplug_slot_free_bulk(slot, of, nr, NULL), nr);
}

/* --- allocate --------------------------------------------------------------------------------- */

static void lowest_first(void **context)
{
    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 3);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    assert_int_equal(take(0, 200), 200);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(pfns[i].nr, BLOCK_PAGES + 3 + i);
        assert_int_equal(mpl_frame_get(pool, mpl_block_at(pool, 1), 3 + i), MPL_FRAME_HEAD);
    }
    assert_true(pfns[200].nr > NR_PAGES);
    mpl_percpu_drain(pool);
    mini_check(mini);
    give(pfns, 200);
    assert_int_equal(take(mover, 0), 0);
    assert_int_equal(memplug_slot_free_bulk(slot, pfns, 0, errors), 0);
}

/* As long as there are any; also those that other slots have at hand. */
static void as_many_as_there_are(void **context)
{
    struct memplug_alloc request = want(0);
    memplug_pfn_t one;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(memplug_slot_alloc(other, &request, &one), 0);
    assert_int_equal(memplug_alloc_bulk(pool, &request, NULL, pfns, 10), 10);
    assert_int_equal(mini_count(mini, MPL_FRAME_HELD), 128 - 11);
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns + 10, 300), 245);
    assert_true(pfns[255].nr > NR_PAGES); /* what was not there was not written */
    assert_int_equal(take(0, 5), 0);
    assert_int_equal(take(mover, 5), 0);
    assert_int_equal(memplug_free_bulk(pool, pfns, 255, NULL), 255);
    assert_int_equal(memplug_free(pool, one, 1), 0);
}

static void cookies_count_up_or_are_told(void **context)
{
    struct memplug_alloc request = want(mover);
    uint64_t cookies[150];

    (void)context;
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    request.cookie = 1000;
    for (unsigned i = 0; i < 150; i++)
        cookies[i] = i * i;
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns, 150), 150);
    for (unsigned i = 0; i < 150; i++)
        assert_int_equal(cookie_of(pfns[i]), 1000 + i);
    give(pfns, 150);
    request.pinned = true;
    assert_int_equal(memplug_alloc_bulk(pool, &request, cookies, pfns, 150), 150);
    for (unsigned i = 0; i < 150; i++) {
        const struct mpl_page *page = mpl_page_at(pool, pfns[i]);

        assert_int_equal(cookie_of(pfns[i]), i * i);
        assert_int_equal(page->mover, mover);
        assert_int_equal(page->nr_pages, 1);
        assert_int_equal(mpl_page_state(page), MPL_PAGE_USED);
        assert_int_equal(mpl_page_pins(page), 1);
        assert_int_equal(memplug_free(pool, pfns[i], 1), -MPL_EBUSY);
        assert_int_equal(memplug_unpin(pool, pfns[i]), 0);
    }
    give(pfns, 150);
}

/* Where a word has few, each gives what it has. */
static void takes_from_many_words(void **context)
{
    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(take(mover, 512), 512);
    for (unsigned i = 0; i < 512; i += 5)
        assert_int_equal(memplug_slot_free(slot, pfns[i], 1), 0);
    memplug_slot_close(slot);
    assert_int_equal(memplug_slot_open(pool, &slot), 0);
    mini_check(mini);
    assert_int_equal(memplug_slot_free_bulk(slot, pfns, 512, errors), 512 - 103);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(errors[i], i % 5 == 0 ? -MPL_EINVAL : 0);
    assert_int_equal(take(0, 512), 512);
    for (unsigned i = 0; i < 103; i++)
        pfns[i] = mpl_pfn(BLOCK_PAGES + 5 * i);
    give(pfns, 103);
    assert_int_equal(take(mover, 101), 101);
    for (unsigned i = 0; i < 101; i++)
        assert_int_equal(pfns[i].nr, BLOCK_PAGES + 5 * i);
    for (unsigned i = 0; i < 512; i++)
        pfns[i] = mpl_pfn(BLOCK_PAGES + i);
    assert_int_equal(memplug_slot_free_bulk(slot, pfns, 512, NULL), 510);
}

/* The node that is asked for first; no other if no other will do. */
static void keeps_to_the_node(void **context)
{
    struct memplug_alloc request = want(0);

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 1, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(take(0, 1), 1); /* and 63 of node 0 are at hand */
    assert_int_equal(pfns[0].nr, BLOCK_PAGES);
    request.node = 1;
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns + 1, 100), 100);
    for (unsigned i = 1; i <= 100; i++)
        assert_int_equal(pfns[i].nr / BLOCK_PAGES, 2);
    request.this_node = true;
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns + 101, 200), 156);
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns + 257, 1), 0);
    request.node = 0;
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns + 257, 1), 1);
    request.node = 1;
    request.this_node = false;
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns + 258, 300), 254);
    give(pfns, 512);
}

static void refuses_what_cannot_be(void **context)
{
    struct memplug_alloc request = want(9);

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(memplug_alloc_bulk(pool, &request, NULL, pfns, 3), -MPL_EINVAL);
    request = (struct memplug_alloc){.nr_pages = 1, .node = 7};
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns, 3), -MPL_EINVAL);
    request = (struct memplug_alloc){.nr_pages = 2};
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns, 3), -MPL_EINVAL);
    request = (struct memplug_alloc){.nr_pages = 1, .align_pages = 2};
    assert_int_equal(memplug_slot_alloc_bulk(slot, &request, NULL, pfns, 3), -MPL_EINVAL);
    request = want(0);
    assert_int_equal(memplug_alloc_bulk(pool, &request, NULL, pfns, UINT32_MAX), -MPL_EINVAL);
    assert_true(pfns[0].nr > NR_PAGES);
}

/* --- free ------------------------------------------------------------------------------------- */

/* A pair, a pinned page, one that moves; memmap, and what is free: in one word, and at its ends. */
struct wrong {
    memplug_pfn_t pair, pinned, moving;
};

static void be_wrong(struct wrong *wrong)
{
    struct memplug_alloc request = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE, .mover = mover};

    assert_int_equal(memplug_alloc(pool, &request, &wrong->pair), 0);
    wrong->pinned = pfns[40];
    wrong->moving = pfns[41];
    assert_int_equal(memplug_pin(pool, wrong->pinned), 0);
    assert_true(mpl_page_change(mpl_page_at(pool, wrong->moving), MPL_PAGE_USED,
                                MPL_PAGE_MOVING));
}

static void make_right(struct wrong *wrong)
{
    assert_int_equal(memplug_free(pool, wrong->pair, 2), 0);
    assert_int_equal(memplug_unpin(pool, wrong->pinned), 0);
    assert_int_equal(memplug_free(pool, wrong->pinned, 1), 0);
    assert_true(mpl_page_change(mpl_page_at(pool, wrong->moving), MPL_PAGE_DYING,
                                MPL_PAGE_NONE));
    mpl_percpu_free_ended(pool, wrong->moving);
}

static void all_others_are_freed(void **context)
{
    memplug_pfn_t given[140];
    struct wrong wrong;
    unsigned nr = 0;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 3);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    assert_int_equal(take(mover, 100), 100);
    be_wrong(&wrong);
    memcpy(given, pfns, sizeof(given[0]) * 100);
    given[100] = wrong.pair;
    given[101] = mpl_pfn(wrong.pair.nr + 1);
    given[102] = given[7];
    given[103] = mpl_pfn(BLOCK_PAGES);          /* memmap */
    given[104] = mpl_pfn(BLOCK_PAGES + 1);
    given[105] = mpl_pfn(2 * BLOCK_PAGES - 1);  /* free */
    given[106] = mpl_pfn(3 * BLOCK_PAGES);      /* not online */
    given[107] = mpl_pfn(UINT64_MAX);
    given[108] = given[99];
    assert_int_equal(memplug_slot_free_bulk(slot, given, 109, errors), 99);
    for (unsigned i = 0; i < 109; i++) {
        int expected = i == 40 ? -MPL_EBUSY : i < 100 ? 0 : i == 106 || i == 107 ? -MPL_ENODEV
                                                                                 : -MPL_EINVAL;

        if (errors[i] != expected)
            print_error("frame %u: %d\n", i, errors[i]);
        nr += errors[i] == expected;
    }
    assert_int_equal(nr, 109);
    assert_int_equal(mpl_page_state(mpl_page_at(pool, wrong.moving)), MPL_PAGE_DYING);
    make_right(&wrong);
}

/* The same with the block unmarked, frame beside frame, so that all but one of a word are plain. */
static void one_of_a_word_is_wrong(void **context)
{
    struct memplug_alloc pair = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t two, given[66];

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(take(0, 62), 62);
    mpl_percpu_drain(pool);
    assert_int_equal(memplug_alloc(pool, &pair, &two), 0);
    assert_int_equal(two.nr % 64, 62);
    for (unsigned i = 0; i < 66; i++)
        given[i] = mpl_pfn(BLOCK_PAGES + (i < 64 ? i : 127 - i));
    assert_int_equal(memplug_slot_free_bulk(slot, given, 66, errors), 62);
    for (unsigned i = 0; i < 66; i++)
        assert_int_equal(errors[i], i < 62 ? 0 : -MPL_EINVAL);
    assert_int_equal(mpl_frame_get(pool, mpl_block_at(pool, 1), 62), MPL_FRAME_HEAD);
    assert_int_equal(memplug_free(pool, two, 2), 0);
    assert_false(mpl_block_at(pool, 1)->marked);
}

/* A pair that begins with a word's last frame, and one single page there. */
static void looks_over_the_end_of_a_word(void **context)
{
    struct memplug_alloc two = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t given[2], last = mpl_pfn(BLOCK_PAGES + 63), end = mpl_pfn(2 * BLOCK_PAGES - 1);

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(memplug_alloc_exact(pool, last, &two), 0);
    two.nr_pages = 1;
    assert_int_equal(memplug_alloc_exact(pool, end, &two), 0);
    given[0] = last;
    given[1] = end;
    assert_int_equal(memplug_free_bulk(pool, given, 2, errors), 1);
    assert_int_equal(errors[0], -MPL_EINVAL);
    assert_int_equal(errors[1], 0);
    assert_int_equal(memplug_free(pool, last, 2), 0);
    assert_int_equal(memplug_alloc_exact(pool, last, &two), 0);
    assert_int_equal(memplug_free_bulk(pool, given, 1, errors), 1);
}

static void bad_frames_stay(void **context)
{
    uint64_t bad[4] = {0};

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(take(0, 64), 64);
    mpl_block_at(pool, 1)->poisoned = bad;
    bad[0] = 1u << 5;
    assert_int_equal(memplug_slot_free_bulk(slot, pfns, 64, errors), 63);
    assert_int_equal(errors[5], -MPL_EINVAL);
    mpl_block_at(pool, 1)->poisoned = NULL;
    assert_int_equal(memplug_free(pool, pfns[5], 1), 0);
}

/* One frame of memmap looks like an allocation of a page. */
static void memmaps_stay(void **context)
{
    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 1);
    pfns[0] = mpl_pfn(BLOCK_PAGES);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(memplug_slot_free_bulk(slot, pfns, 1, errors), 0);
        assert_int_equal(errors[0], -MPL_EINVAL);
        assert_int_equal(memplug_slot_alloc(slot, &(struct memplug_alloc){.nr_pages = 1}, pfns + 1),
                         0);
        assert_int_equal(pfns[1].nr, BLOCK_PAGES + 1);
        give(pfns + 1, 1);
    }
}

/* Nobody has frames of a block whose bitmaps are a pattern, nor of one that is not there. */
static void fresh_blocks_stay(void **context)
{
    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 4);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    for (unsigned i = 0; i < NR_PAGES; i++)
        pfns[i] = mpl_pfn(i);
    assert_int_equal(memplug_slot_free_bulk(slot, pfns, NR_PAGES, errors), 0);
    for (unsigned i = 0; i < NR_PAGES; i++)
        assert_int_equal(errors[i], i / BLOCK_PAGES == 1 || i / BLOCK_PAGES == 2 ? -MPL_EINVAL
                                                                                 : -MPL_ENODEV);
    assert_true(mpl_pattern_intact(pool));
}

/* In an isolated pageblock frames go to the zone at once, and a page is looked at. */
static void frees_what_is_isolated(void **context)
{
    struct mpl_block *block;

    (void)context;
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    block = mpl_block_at(pool, 2);
    assert_int_equal(take(mover, 192), 192);
    mpl_isolate_span(pool, block, 64, 64);
    mpl_percpu_pass(pool);
    assert_true(mpl_page_change(mpl_page_at(pool, pfns[70]), MPL_PAGE_USED, MPL_PAGE_NONE));
    assert_int_equal(memplug_slot_free_bulk(slot, pfns, 192, errors), 191);
    assert_int_equal(errors[70], -MPL_EINVAL);
    assert_int_equal(mpl_frames_free_near(pool, block, 64), 63);
    mpl_percpu_free_ended(pool, pfns[70]);
    mpl_unisolate_span(pool, block, 64, 64);
}

/* A slot keeps a word's worth of what is freed, however it is asked. */
static void keeps_a_words_worth(void **context)
{
    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(take(0, 512), 512);
    for (unsigned step = 1; step < 512; step += 30) {
        for (unsigned i = 0; i < 512; i += step)
            assert_int_equal(memplug_slot_free_bulk(slot, pfns + i, 512 - i < step ? 512 - i : step,
                                                    NULL), 512 - i < step ? 512 - i : step);
        assert_true(mini_count(mini, MPL_FRAME_HELD) < 128);
        mini_check(mini);
        assert_int_equal(take(0, 512), 512);
    }
    give(pfns, 512);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(lowest_first),
        TEST(as_many_as_there_are),
        TEST(cookies_count_up_or_are_told),
        TEST(takes_from_many_words),
        TEST(keeps_to_the_node),
        TEST(refuses_what_cannot_be),
        TEST(all_others_are_freed),
        TEST(one_of_a_word_is_wrong),
        TEST(looks_over_the_end_of_a_word),
        TEST(bad_frames_stay),
        TEST(memmaps_stay),
        TEST(fresh_blocks_stay),
        TEST(frees_what_is_isolated),
        TEST(keeps_a_words_worth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
