/* SPDX-License-Identifier: MIT */
/* The unit in which memory is described: where sections lie, and which are in a zone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "state/state.h"
#include "toy_host.h"

static void test_sections_divide_blocks_and_pfns(void **state)
{
    (void)state;
    for (uint8_t page_shift = 12; page_shift <= 16; page_shift += 2)
        for (uint8_t extra = 0; extra <= 4; extra++) {
            struct memplug_geometry g = {
                .page_shift = page_shift,
                .section_shift = 27,
                .block_shift = (uint8_t)(27 + extra),
            };
            uint64_t section_pages = (UINT64_C(1) << 27) / mpl_page_bytes(&g);

            assert_int_equal(mpl_sections_per_block(&g) * section_pages, mpl_block_pages(&g));
            for (uint64_t section = 0; section < 40; section++) {
                memplug_pfn_t start = mpl_section_start(&g, section);

                assert_int_equal(start.nr, section * section_pages);
                assert_int_equal(mpl_section_of(&g, start), section);
                assert_int_equal(mpl_section_of(&g, mpl_pfn_add(start, section_pages - 1)),
                                 section);
                assert_int_equal(mpl_section_of(&g, mpl_pfn_add(start, section_pages)),
                                 section + 1);
            }
        }
}

static bool in_a_zone(enum memplug_block_state state)
{
    return state == MEMPLUG_BLOCK_GOING_ONLINE || state == MEMPLUG_BLOCK_ONLINE ||
           state == MEMPLUG_BLOCK_GOING_OFFLINE;
}

/* Every section of every kind of block, asked for in every zone of both nodes. */
static void check_block(struct toy_host *toy, uint64_t id)
{
    const struct mpl_block *block = &toy->pool->blocks[id];
    uint64_t nr_sections = mpl_sections_per_block(&toy->pool->geometry);

    for (int node = 0; node < 2; node++)
        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++)
            for (uint64_t i = 0; i < nr_sections; i++) {
                bool expected = in_a_zone(mpl_block_state(block)) && block->zone == kind &&
                                block->node == node;

                assert_int_equal(mpl_section_online_in(toy->pool, id * nr_sections + i,
                                                       mpl_zone_at(toy->pool, node, kind)),
                                 expected);
            }
}

static void test_a_section_is_in_the_zone_of_its_block(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    g.block_shift = 22;
    toy_open(&toy, &g, 2, NULL);
    for (unsigned s = MEMPLUG_BLOCK_ABSENT; s <= MEMPLUG_BLOCK_GOING_OFFLINE; s++)
        for (unsigned kind = 0; kind <= MEMPLUG_NR_ZONES; kind++)
            for (int16_t node = 0; node < 2; node++) {
                struct mpl_block *block = &toy.pool->blocks[3];

                /* Only a block in one of these states has a zone; before one is there its
                 * fields mean nothing. */
                if (s == MEMPLUG_BLOCK_OFFLINE && kind != MEMPLUG_NR_ZONES)
                    continue;
                block->state = (uint8_t)s;
                block->zone = (uint8_t)kind;
                block->node = node;
                check_block(&toy, 3);
                check_block(&toy, 2);
                check_block(&toy, 4);
            }
    toy_abandon(&toy);
}

static void test_sections_beyond_the_pool_are_in_no_zone(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_false(mpl_section_online_in(toy.pool, 64, mpl_zone_at(toy.pool, 0, 0)));
    assert_false(mpl_section_online_in(toy.pool, UINT64_MAX, mpl_zone_at(toy.pool, 0, 0)));
    toy_close(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections_divide_blocks_and_pfns),
        cmocka_unit_test(test_a_section_is_in_the_zone_of_its_block),
        cmocka_unit_test(test_sections_beyond_the_pool_are_in_no_zone),
    };

    return cmocka_run_group_tests_name("section", tests, NULL, NULL);
}
