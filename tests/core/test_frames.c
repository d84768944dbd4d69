/* SPDX-License-Identifier: MIT */
/* The bitmaps of one block against an array with one state per frame. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "mini_pool.h"
#include "state/words.h"

#include <cmocka.h>

#define MAX_PAGES 16384

struct model {
    struct mini *mini;
    struct memplug *pool;
    struct mpl_block *block;
    struct mpl_held held;
    uint64_t nr_pages, nr_memmap, pageblock_pages;
    uint8_t frames[MAX_PAGES];
    bool isolated;
};

static void model_open(struct model *model, unsigned pageblock_order, unsigned block_order,
                       uint64_t nr_memmap)
{
    struct mini_shape shape = {pageblock_order, block_order, 2, 1, 1, 64};

    memset(model, 0, sizeof(*model));
    model->mini = mini_open(&shape);
    model->pool = &model->mini->pool;
    model->block = &model->pool->blocks[1];
    model->nr_pages = (uint64_t)1 << block_order;
    model->pageblock_pages = (uint64_t)1 << pageblock_order;
    model->nr_memmap = nr_memmap;
    mini_online(model->mini, 1, 0, MEMPLUG_ZONE_NORMAL, nr_memmap);
    for (uint64_t i = 0; i < model->nr_pages; i++)
        model->frames[i] = i >= nr_memmap ? MPL_FRAME_FREE :
                           i == 0         ? MPL_FRAME_HEAD :
                                            MPL_FRAME_TAIL;
}

static void model_close(struct model *model)
{
    mini_close(model->mini);
}

static void compare(struct model *model)
{
    uint64_t counts[4] = {0};

    for (uint64_t i = 0; i < model->nr_pages; i++) {
        enum mpl_frame frame = mpl_frame_get(model->pool, model->block, i);

        if (frame != model->frames[i])
            fail_msg("frame %d is %d, not %d", (int)i, (int)frame, model->frames[i]);
        counts[frame]++;
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(counts[i],
                         mpl_frames_count(model->pool, model->block, (enum mpl_frame)i));
    mini_check(model->mini);
}

static bool model_free(const struct model *model, uint64_t index, uint64_t nr_pages)
{
    if (model->isolated || index + nr_pages > model->nr_pages)
        return false;
    for (uint64_t i = index; i < index + nr_pages; i++)
        if (model->frames[i] != MPL_FRAME_FREE)
            return false;
    return true;
}

static void model_use(struct model *model, uint64_t index, uint64_t nr_pages)
{
    memset(model->frames + index, MPL_FRAME_TAIL, nr_pages);
    model->frames[index] = MPL_FRAME_HEAD;
}

/* Pages of the allocation at index; 0 if none begins there. */
static uint64_t model_size(const struct model *model, uint64_t index)
{
    uint64_t end = index + 1;

    if (index < model->nr_memmap || model->frames[index] != MPL_FRAME_HEAD)
        return 0;
    while (end < model->nr_pages && model->frames[end] == MPL_FRAME_TAIL)
        end++;
    return end - index;
}

/* --- operations on both ----------------------------------------------------------------------- */

static bool take(struct model *model, uint64_t nr_pages)
{
    uint64_t expected = 0, index;

    while (expected < model->nr_pages && !model_free(model, expected, nr_pages))
        expected += nr_pages;
    if (!mpl_frames_take(model->pool, model->block, nr_pages, &index)) {
        assert_true(expected >= model->nr_pages);
        return false;
    }
    assert_int_equal(index, expected);
    model_use(model, index, nr_pages);
    return true;
}

static void take_exact(struct model *model, uint64_t index, uint64_t nr_pages)
{
    bool expected = model_free(model, index, nr_pages);

    assert_int_equal(mpl_frames_all_free(model->pool, model->block, index, nr_pages), expected);
    assert_int_equal(mpl_frames_take_exact(model->pool, model->block, index, nr_pages), expected);
    if (expected)
        model_use(model, index, nr_pages);
}

/* Put the first allocation at or behind index. */
static void put(struct model *model, uint64_t index)
{
    uint64_t nr_pages;

    if (!mpl_frames_next_head(model->pool, model->block, &index)) {
        for (; index < model->nr_pages; index++)
            assert_int_equal(model_size(model, index), 0);
        return;
    }
    nr_pages = model_size(model, index);
    assert_int_not_equal(nr_pages, 0);
    assert_true(mpl_frames_are_allocation(model->pool, model->block, index, nr_pages));
    mpl_frames_put(model->pool, model->block, index, nr_pages);
    memset(model->frames + index, MPL_FRAME_FREE, nr_pages);
}

static void hold(struct model *model)
{
    uint64_t word = 0;

    if (model->held.mask != 0)
        return;
    while (word * 64 < model->nr_pages) {
        bool any = false;

        for (uint64_t i = word * 64; i < word * 64 + 64; i++)
            any |= model_free(model, i, 1);
        if (any)
            break;
        word++;
    }
    if (!mpl_frames_hold(model->pool, model->block, false, &model->held)) {
        assert_true(word * 64 >= model->nr_pages);
        return;
    }
    assert_int_equal(model->held.word, word);
    for (uint64_t i = 0; i < 64; i++) {
        assert_int_equal(model->held.mask >> i & 1, model_free(model, word * 64 + i, 1));
        if (model->held.mask >> i & 1)
            model->frames[word * 64 + i] = MPL_FRAME_HELD;
    }
}

static void unhold(struct model *model)
{
    if (model->held.mask == 0)
        return;
    for (uint64_t i = 0; i < 64; i++)
        if (model->held.mask >> i & 1)
            model->frames[model->held.word * 64 + i] = MPL_FRAME_FREE;
    mpl_frames_unhold(model->pool, model->block, &model->held);
}

static void use_held(struct model *model)
{
    uint64_t index = model->held.word * 64ull + (unsigned)MPL_CTZ64(model->held.mask | 1ull << 63);

    if (model->held.mask == 0)
        return;
    mpl_frame_use_held(model->block, index);
    model->held.mask &= model->held.mask - 1;
    model->frames[index] = MPL_FRAME_HEAD;
}

/* A single frame of the held word goes back to its holder. */
static void give_held(struct model *model)
{
    if (model->held.mask == 0)
        return;
    for (uint64_t i = model->held.word * 64ull; i < model->held.word * 64ull + 64; i++)
        if (model_size(model, i) == 1) {
            assert_true(mpl_frame_give_held(model->block, i));
            assert_false(mpl_frame_give_held(model->block, i));
            model->held.mask |= 1ull << (i % 64);
            model->frames[i] = MPL_FRAME_HELD;
            return;
        }
}

static void isolate(struct model *model, bool isolated)
{
    mini_set_isolated(model->mini, 1, isolated);
    model->isolated = isolated;
}

static void act(struct model *model, unsigned action, unsigned random)
{
    switch (action) {
    case 0: take(model, 1u << random % 10); break;
    case 1: hold(model); break;
    case 2: unhold(model); break;
    case 3: use_held(model); break;
    case 4: give_held(model); break;
    case 5: isolate(model, true); break;
    case 6: isolate(model, false); break;
    case 7: put(model, random % model->nr_pages); break;
    default:
        random %= (unsigned)(model->nr_pages - model->nr_memmap);
        take_exact(model, model->nr_memmap + random,
                   1 + (random * 7919ull) % (model->nr_pages - model->nr_memmap - random));
    }
}

/* --- tests ------------------------------------------------------------------------------------ */

/* Every position and size of an allocation in a block of three words and a bit of memmap. */
static void positions_and_sizes(void **context)
{
    struct model model;

    (void)context;
    model_open(&model, 6, 7, 5);
    for (uint64_t i = 5; i < model.nr_pages; i++)
        for (uint64_t nr = 1; nr <= model.nr_pages - i; nr++) {
            uint64_t head;

            take_exact(&model, i, nr);
            for (uint64_t at = i == 5 ? 5 : i - 1; at <= i + 1 && at < model.nr_pages; at++)
                for (uint64_t n = nr == 1 ? 1 : nr - 1; n <= nr + 1; n++)
                    if (n <= model.nr_pages - at)
                        assert_int_equal(mpl_frames_are_allocation(model.pool, model.block, at, n),
                                         at == i && n == nr);
            assert_true(mpl_frames_head_of(model.pool, model.block, i + nr - 1, &head));
            assert_int_equal(head, i);
            if (i + nr < model.nr_pages)
                assert_false(mpl_frames_head_of(model.pool, model.block, i + nr, &head));
            if (nr % 16 == 1 || i + nr == model.nr_pages)
                compare(&model);
            put(&model, 5);
        }
    compare(&model);
    model_close(&model);
}

/* Memmap frames are no allocation, and cannot be taken, whatever their number. */
static void memmap_frames(void **context)
{
    (void)context;
    for (uint64_t nr = 0; nr <= 128; nr++) {
        struct model model;

        model_open(&model, 6, 7, nr);
        compare(&model);
        for (uint64_t i = 0; i < nr; i++) {
            assert_false(mpl_frames_are_allocation(model.pool, model.block, i, nr - i));
            assert_false(mpl_frames_all_free(model.pool, model.block, i, 1));
        }
        isolate(&model, true);
        assert_int_equal(mpl_block_nr_isolated(model.pool, model.block), 2 - nr / 64);
        assert_int_equal(mpl_block_nr_free(model.block), 0);
        compare(&model);
        assert_false(take(&model, 1));
        isolate(&model, false);
        assert_int_equal(model.block->nr_free, 128 - nr);
        while (take(&model, 1))
            ;
        assert_int_equal(model.block->nr_free, 0);
        compare(&model);
        model_close(&model);
    }
}

/* All sequences of four actions out of nine, each on a block that starts half used. */
static void all_orders(void **context)
{
    (void)context;
    for (unsigned sequence = 0; sequence < 9 * 9 * 9 * 9; sequence++) {
        struct model model;
        unsigned rest = sequence;

        model_open(&model, 6, 7, 3);
        take(&model, 32);
        hold(&model);
        use_held(&model);
        for (unsigned i = 0; i < 4; i++, rest /= 9)
            act(&model, rest % 9, rest + i);
        compare(&model);
        unhold(&model);
        isolate(&model, false);
        for (unsigned i = 0; i < 128; i++)
            put(&model, 0);
        assert_int_equal(model.block->nr_free, 125);
        compare(&model);
        model_close(&model);
    }
}

static void random_walks(void **context)
{
    static struct model model;
    static const uint64_t memmaps[] = {0, 1, 63, 64, 65, 448, 512};

    (void)context;
    for (unsigned order = 6; order <= 13; order++)
        for (unsigned m = 0; m < sizeof(memmaps) / sizeof(memmaps[0]); m++) {
            unsigned random = 1 + order * 100 + m;

            model_open(&model, order, order < 10 ? 10 : order, memmaps[m]);
            for (unsigned i = 0; i < 3000; i++) {
                random = random * 1103515245u + 12345;
                act(&model, (random >> 16) % 16 < 8 ? (random >> 16) % 8 : 7 + (random >> 20) % 2,
                    random >> 8);
                if (i % 500 == 499)
                    compare(&model);
            }
            model_close(&model);
        }
}

/* A driver's chunks: any part that is kept anew is one chunk, its neighbours are unharmed. */
static void keep(void **context)
{
    (void)context;
    for (uint64_t i = 3; i < 128; i += 5)
        for (uint64_t nr = 1; nr <= 128 - i; nr++) {
            struct mini_shape shape = {6, 7, 2, 1, 1, 64};
            struct mini *mini = mini_open(&shape);
            struct mpl_block *block = &mini->pool.blocks[1];
            uint64_t index = 0;

            mini_enter(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 3);
            assert_false(mpl_frames_next_head(&mini->pool, block, &index));
            assert_int_equal(mpl_frames_count(&mini->pool, block, MPL_FRAME_HELD), 125);
            mpl_frames_keep(&mini->pool, block, i, nr);
            assert_true(mpl_frames_are_allocation(&mini->pool, block, i, nr));
            assert_int_equal(mpl_frames_count(&mini->pool, block, MPL_FRAME_HELD), 125 - nr);
            mini_check(mini);
            mini_close(mini);
        }
}

static void layout(void **context)
{
    struct memplug_geometry geometry = {
        .page_shift = 12, .pageblock_order = 9, .section_shift = 27, .block_shift = 27,
        .large_shift = 12, .page_struct_bytes = 64, .address_limit = 1ull << 40,
    };
    struct mpl_layout layout;

    (void)context;
    mpl_layout_set(&layout, &geometry);
    assert_int_equal(layout.nr_pages, 32768);
    assert_int_equal(layout.nr_words, 512);
    assert_int_equal(layout.nr_pageblocks, 64);
    assert_true(layout.bytes <= 13 * 1024);
    geometry.page_shift = 16;
    geometry.pageblock_order = 13;
    geometry.section_shift = geometry.block_shift = 29;
    mpl_layout_set(&layout, &geometry);
    assert_int_equal(layout.nr_pageblocks, 1);
    assert_true(layout.nr_free % sizeof(uint16_t) == 0 && layout.isolated % 8 == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_and_sizes), cmocka_unit_test(memmap_frames),
        cmocka_unit_test(all_orders),          cmocka_unit_test(random_walks),
        cmocka_unit_test(keep),                cmocka_unit_test(layout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
