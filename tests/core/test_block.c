/* SPDX-License-Identifier: MIT */
/* The states of a block: which may follow which, and that nothing else can happen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "state/state.h"
#include "toy_host.h"

#define NR_STATES (MEMPLUG_BLOCK_GOING_OFFLINE + 1u)

/* The life of a block and all its ways back, written down a second time on purpose. */
static const struct {
    enum memplug_block_state from, to;
} legal[] = {
    {MEMPLUG_BLOCK_ABSENT, MEMPLUG_BLOCK_ADDING},
    {MEMPLUG_BLOCK_ADDING, MEMPLUG_BLOCK_OFFLINE},
    {MEMPLUG_BLOCK_ADDING, MEMPLUG_BLOCK_ABSENT},
    {MEMPLUG_BLOCK_OFFLINE, MEMPLUG_BLOCK_GOING_ONLINE},
    {MEMPLUG_BLOCK_OFFLINE, MEMPLUG_BLOCK_ADDING},
    {MEMPLUG_BLOCK_GOING_ONLINE, MEMPLUG_BLOCK_ONLINE},
    {MEMPLUG_BLOCK_GOING_ONLINE, MEMPLUG_BLOCK_OFFLINE},
    {MEMPLUG_BLOCK_ONLINE, MEMPLUG_BLOCK_GOING_OFFLINE},
    {MEMPLUG_BLOCK_GOING_OFFLINE, MEMPLUG_BLOCK_ONLINE},
    {MEMPLUG_BLOCK_GOING_OFFLINE, MEMPLUG_BLOCK_OFFLINE},
};

static bool is_legal(unsigned from, unsigned to)
{
    for (unsigned i = 0; i < sizeof(legal) / sizeof(legal[0]); i++)
        if (legal[i].from == from && legal[i].to == to)
            return true;
    return false;
}

static void test_exactly_the_legal_transitions_are_allowed(void **state)
{
    (void)state;
    for (unsigned from = 0; from < NR_STATES + 2; from++)
        for (unsigned to = 0; to < NR_STATES + 2; to++)
            assert_int_equal(mpl_block_may_become((enum memplug_block_state)from,
                                                  (enum memplug_block_state)to),
                             is_legal(from, to));
}

struct change {
    struct mpl_block block;
    enum memplug_block_state to;
};

static void make_change(void *context)
{
    struct change *change = context;

    mpl_block_set_state(&change->block, change->to);
}

static void test_illegal_transitions_trap(void **state)
{
    unsigned nr_traps = 0;

    (void)state;
    for (unsigned from = 0; from < NR_STATES; from++)
        for (unsigned to = 0; to < NR_STATES; to++) {
            struct change change = {
                .block = {.state = (uint8_t)from},
                .to = (enum memplug_block_state)to,
            };

            assert_int_equal(toy_traps(make_change, &change), !is_legal(from, to));
            nr_traps += !is_legal(from, to);
        }
    assert_int_equal(nr_traps, NR_STATES * NR_STATES - sizeof(legal) / sizeof(legal[0]));
}

static void test_a_legal_transition_is_made_and_changes_nothing_else(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(legal) / sizeof(legal[0]); i++) {
        struct mpl_block block, before;

        memset(&block, 0x5a, sizeof(block));
        memcpy(&before, &block, sizeof(block));
        block.state = (uint8_t)legal[i].from;
        mpl_block_set_state(&block, legal[i].to);
        assert_int_equal(mpl_block_state(&block), legal[i].to);
        block.state = 0x5a;
        assert_memory_equal(&block, &before, sizeof(block));
    }
}

static void test_data_begins_exactly_behind_the_memmap(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (uint64_t nr_memmap = 0; nr_memmap <= 256; nr_memmap++) {
        struct mpl_block *block = &toy.pool->blocks[5];

        block->nr_memmap_pages = nr_memmap;
        assert_int_equal(mpl_block_data_start(toy.pool, block).nr, 5 * 256 + nr_memmap);
        assert_int_equal(mpl_block_data_pages(toy.pool, block), 256 - nr_memmap);
    }
    toy_abandon(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exactly_the_legal_transitions_are_allowed),
        cmocka_unit_test(test_illegal_transitions_trap),
        cmocka_unit_test(test_a_legal_transition_is_made_and_changes_nothing_else),
        cmocka_unit_test(test_data_begins_exactly_behind_the_memmap),
    };

    return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
