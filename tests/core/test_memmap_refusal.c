/* SPDX-License-Identifier: MIT */
/* Placements of a memmap that are refused, that fall back, and that need the right address. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "toy_host.h"

struct placement {
    uint64_t first, nr_blocks;
    enum memplug_memmap memmap;
    bool pad;
};

static const enum memplug_memmap modes[] = {
    MEMPLUG_MEMMAP_BLOCK,
    MEMPLUG_MEMMAP_RANGE,
    MEMPLUG_MEMMAP_HOST,
};

static struct memplug_geometry geometry_of(unsigned page_shift, unsigned pageblock_order,
                                           unsigned struct_bytes)
{
    return (struct memplug_geometry){
        .page_shift = (uint8_t)page_shift,
        .pageblock_order = (uint8_t)pageblock_order,
        .section_shift = 27,
        .block_shift = 27,
        .large_shift = page_shift == 12 ? 21 : (uint8_t)page_shift,
        .page_struct_bytes = (uint8_t)struct_bytes,
        .address_limit = UINT64_C(16) << 27,
    };
}

static int add(struct toy_host *toy, const struct placement *placement,
               struct memplug_reason *reason)
{
    struct memplug_add request = {
        .address = placement->first << toy->host.geometry.block_shift,
        .size_bytes = placement->nr_blocks << toy->host.geometry.block_shift,
        .memmap = placement->memmap,
        .pad_memmap = placement->pad,
        .backing = toy->backing,
    };

    toy->nr_calls = 0;
    return memplug_add(toy->pool, &request, NULL, reason);
}

static int remove_all(struct toy_host *toy, const struct placement *placement)
{
    return memplug_remove(toy->pool, placement->first << toy->host.geometry.block_shift,
                          placement->nr_blocks << toy->host.geometry.block_shift, NULL, NULL);
}

/* 64 KiB pages, pageblocks as large as the block: padded, the memmap would be all of it. */
static void test_padding_that_leaves_no_room_is_refused(void **state)
{
    struct memplug_geometry g = geometry_of(16, 11, 64);
    struct placement block = {1, 1, MEMPLUG_MEMMAP_BLOCK, true};
    struct placement range = {1, 2, MEMPLUG_MEMMAP_RANGE, true};
    struct placement hint = {1, 1, MEMPLUG_MEMMAP_AUTO, true};
    struct memplug_reason reason;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(add(&toy, &block, &reason), -MPL_EINVAL);
    assert_string_equal(reason.why, "the memmap leaves no room for data");
    assert_int_equal(toy.nr_calls, 0);
    assert_int_equal(add(&toy, &range, &reason), 0);
    assert_int_equal(toy.pool->blocks[1].nr_memmap_pages, mpl_block_pages(&g));
    assert_int_equal(toy.pool->blocks[2].nr_memmap_pages, 0);
    assert_int_equal(remove_all(&toy, &range), 0);
    assert_int_equal(add(&toy, &hint, &reason), 0);
    assert_int_equal(toy.pool->blocks[1].memmap, MEMPLUG_MEMMAP_HOST);
    toy_empty(&toy);
}

/* What the pool says beforehand is what an add says, with the same reason. */
static void test_the_predicate_agrees_with_add(void **state)
{
    (void)state;
    for (unsigned struct_bytes = 32; struct_bytes <= 128; struct_bytes += 8) {
        struct memplug_geometry g = geometry_of(16, 11, struct_bytes);
        struct toy_host toy;

        toy_open(&toy, &g, 1, NULL);
        for (unsigned mode = 0; mode < 3; mode++)
            for (uint64_t nr_blocks = 1; nr_blocks <= 4; nr_blocks++) {
                struct placement placement = {8, nr_blocks, modes[mode], false};
                struct memplug_reason asked, answered;
                int error = memplug_memmap_supported(toy.pool, nr_blocks << 27, modes[mode],
                                                     toy.backing, &asked);

                assert_int_equal(add(&toy, &placement, &answered), error);
                if (error == 0) {
                    assert_int_equal(remove_all(&toy, &placement), 0);
                    continue;
                }
                assert_int_equal(error, -MPL_EINVAL);
                assert_string_equal(asked.why, answered.why);
                assert_int_equal(asked.size_bytes, answered.size_bytes);
                assert_int_equal(asked.unit_bytes, answered.unit_bytes);
            }
        toy_close(&toy);
    }
}

/* Where the hint puts the memmap of a block of 128 MiB, and why not in the block. */
static const char *why_not_in_the_block(enum memplug_memmap_on_memory policy, bool pad,
                                        unsigned struct_bytes, uint64_t alignment)
{
    uint64_t nr_memmap = 8 * struct_bytes; /* frames, of 32,768 */

    if (policy == MEMPLUG_MEMMAP_ON_MEMORY_NO)
        return "by policy memmaps are the host's memory";
    if (nr_memmap * 4096 % alignment != 0)
        return "the memmap cannot be mapped at the alignment of the backing";
    if (nr_memmap % 512 != 0 && !pad && policy != MEMPLUG_MEMMAP_ON_MEMORY_FORCE)
        return "the memmap is not whole pageblocks";
    return NULL;
}

static void check_hint(struct toy_host *toy, enum memplug_memmap_on_memory policy, bool pad)
{
    unsigned struct_bytes = toy->host.geometry.page_struct_bytes;
    const char *why_not =
        why_not_in_the_block(policy, pad, struct_bytes, toy->alignment_bytes);
    struct memplug_add request = {
        .address = UINT64_C(1) << 27,
        .size_bytes = UINT64_C(1) << 28,
        .memmap = MEMPLUG_MEMMAP_AUTO,
        .pad_memmap = pad,
        .backing = toy,
    };
    uint64_t nr_memmap = 8 * struct_bytes;
    struct memplug_reason reason;

    if (pad || policy == MEMPLUG_MEMMAP_ON_MEMORY_FORCE)
        nr_memmap = (nr_memmap + 511) / 512 * 512;
    if (!pad) { /* the predicate knows no request */
        assert_int_equal(memplug_memmap_supported(toy->pool, request.size_bytes, request.memmap,
                                                  request.backing, &reason),
                         0);
        assert_int_equal(reason.error, 0);
        assert_true((reason.why == NULL) == (why_not == NULL));
        if (why_not != NULL)
            assert_string_equal(reason.why, why_not);
    }
    assert_int_equal(memplug_add(toy->pool, &request, NULL, &reason), 0);
    assert_true(reason.error == 0 && reason.why == NULL);
    assert_int_equal(request.memmap, why_not != NULL ? MEMPLUG_MEMMAP_HOST : MEMPLUG_MEMMAP_BLOCK);
    assert_int_equal(request.pad_memmap, pad);
    assert_int_equal(toy->pool->blocks[2].nr_memmap_pages, why_not != NULL ? 0 : nr_memmap);
    assert_int_equal(memplug_remove(toy->pool, request.address, request.size_bytes, NULL, NULL), 0);
    toy->nr_calls = 0;
}

/* What the policy, the struct page, the backing and the request's padding make of a hint. */
static void test_a_hint_falls_back_and_says_so(void **state)
{
    (void)state;
    for (unsigned struct_bytes = 32; struct_bytes <= 128; struct_bytes += 8) {
        struct memplug_geometry g = geometry_of(12, 9, struct_bytes);
        struct toy_host toy;

        toy_open(&toy, &g, 1, NULL);
        for (unsigned i = 0; i < 12; i++) {
            struct memplug_policy policy = {
                .memmap_on_memory = (enum memplug_memmap_on_memory)(i % 3)};

            toy.alignment_bytes = i < 6 ? 4096 : UINT64_C(2) << 20;
            assert_int_equal(memplug_policy_set(toy.pool, &policy,
                                                MEMPLUG_POLICY_MEMMAP_ON_MEMORY),
                             0);
            check_hint(&toy, policy.memmap_on_memory, i / 3 % 2 != 0);
        }
        toy_close(&toy);
    }
}

/* 64 KiB pages, 56 bytes a page: only ranges of four blocks have whole pages of memmap, and only
 * at every fourth block. "Choose one" must choose one of these. */
static void test_an_address_is_chosen_where_the_memmap_can_begin(void **state)
{
    struct memplug_geometry g = geometry_of(16, 11, 56);
    struct memplug_add request = {
        .address = MEMPLUG_ANY_ADDRESS,
        .size_bytes = UINT64_C(4) << 27,
        .memmap = MEMPLUG_MEMMAP_RANGE,
    };
    struct memplug_reason reason;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(memplug_add(toy.pool, &request, NULL, &reason), 0);
    assert_int_equal(request.address, UINT64_C(4) << 27);
    toy_empty(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_padding_that_leaves_no_room_is_refused),
        cmocka_unit_test(test_the_predicate_agrees_with_add),
        cmocka_unit_test(test_a_hint_falls_back_and_says_so),
        cmocka_unit_test(test_an_address_is_chosen_where_the_memmap_can_begin),
    };

    return cmocka_run_group_tests_name("memmap refusal", tests, NULL, NULL);
}
