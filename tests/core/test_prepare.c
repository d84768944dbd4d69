/* SPDX-License-Identifier: MIT */
/*
 * PREPARE_ONLINE and FINISH_OFFLINE: the first and the last event of a block, also of an online
 * that fails in between. Events are written as a word: P prepare, G going, O done, C cancel,
 * F finish, each with its block.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "door.h"
#include "steps.h"
#include "toy_host.h"

#define BLOCK_PAGES 256u
#define MEMMAP_PAGES 4u
#define REFUSED (-1)

struct stage {
    struct toy_host toy;
    struct memplug_subscriber subscriber;
    struct memplug_reason reason;
    unsigned refuse;    /* the event, of block refuse_at */
    uint64_t refuse_at;
    uint64_t nr_memmap; /* that the two events should say */
    char heard[256];
};

static char letter(enum memplug_event event)
{
    switch (event) {
    case MEMPLUG_PREPARE_ONLINE:
        return 'P';
    case MEMPLUG_FINISH_OFFLINE:
        return 'F';
    case MEMPLUG_GOING_ONLINE:
    case MEMPLUG_GOING_OFFLINE:
        return 'G';
    case MEMPLUG_CANCEL_ONLINE:
    case MEMPLUG_CANCEL_OFFLINE:
        return 'C';
    case MEMPLUG_ONLINE:
    case MEMPLUG_OFFLINE:
        return 'O';
    }
    return '?';
}

/* No zone has the block while its memory is not prepared. */
static void look(const struct stage *stage, uint64_t id, const struct memplug_notice *notice)
{
    struct memplug_block_info info;
    bool prepare = notice->event == MEMPLUG_PREPARE_ONLINE;
    bool outer = prepare || notice->event == MEMPLUG_FINISH_OFFLINE;

    assert_int_equal(memplug_block_info(stage->toy.pool, id, &info), 0);
    assert_int_equal(info.zone == MEMPLUG_NR_ZONES, outer);
    assert_int_equal(notice->start.nr, id * BLOCK_PAGES + stage->nr_memmap);
    assert_int_equal(notice->nr_pages, BLOCK_PAGES - stage->nr_memmap);
    assert_int_equal(notice->memmap_start.nr, outer ? id * BLOCK_PAGES : 0);
    assert_int_equal(notice->nr_memmap_pages, outer ? stage->nr_memmap : 0);
    if (outer)
        assert_true(notice->node_any == -1 && notice->node_normal == -1);
}

static int hear(void *context, const struct memplug_notice *notice)
{
    struct stage *stage = context;
    uint64_t id = (notice->start.nr - stage->nr_memmap) / BLOCK_PAGES;
    size_t length = strlen(stage->heard);

    look(stage, id, notice);
    assert_true(length + 4 < sizeof(stage->heard));
    snprintf(stage->heard + length, 4, "%c%u", letter(notice->event), (unsigned)id);
    return (unsigned)notice->event == stage->refuse && id == stage->refuse_at ? REFUSED : 0;
}

static void open_stage(struct stage *stage, enum memplug_memmap memmap, uint64_t nr_blocks)
{
    struct memplug_geometry g = toy_geometry();

    memset(stage, 0, sizeof(*stage));
    toy_open(&stage->toy, &g, 1, NULL);
    assert_int_equal(toy_add(&stage->toy, 1, nr_blocks, memmap, 0), 0);
    stage->nr_memmap = memmap == MEMPLUG_MEMMAP_HOST ? 0 : MEMMAP_PAGES;
    stage->subscriber = (struct memplug_subscriber){.name = "x", .notify = hear, .context = stage};
    assert_int_equal(memplug_subscribe(stage->toy.pool, &stage->subscriber), 0);
}

static void close_stage(struct stage *stage)
{
    stage->refuse = 0;
    assert_int_equal(memplug_unsubscribe(stage->toy.pool, &stage->subscriber), 0);
    toy_empty(&stage->toy);
}

static void expect(struct stage *stage, bool is_online, uint64_t nr_blocks, int error,
                   const char *heard)
{
    struct memplug *pool = stage->toy.pool;

    stage->heard[0] = '\0';
    assert_int_equal(is_online ? memplug_online(pool, 1, nr_blocks, MEMPLUG_ONLINE_MOVABLE, NULL,
                                                &stage->reason)
                               : memplug_offline(pool, 1, nr_blocks, NULL, &stage->reason),
                     error);
    assert_string_equal(stage->heard, heard);
    assert_int_equal(memplug_check(pool, NULL), 0);
}

static void test_first_and_last(void **state)
{
    const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_BLOCK, MEMPLUG_MEMMAP_HOST};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct stage stage;

        open_stage(&stage, memmaps[i], 2);
        expect(&stage, true, 1, 0, "P1G1O1");
        expect(&stage, false, 1, 0, "G1O1F1");
        expect(&stage, true, 2, 0, "P1P2G1G2O1O2");
        expect(&stage, false, 2, 0, "G1G2O1O2F1F2");
        close_stage(&stage);
    }
}

static void test_a_refused_prepare_is_not_finished(void **state)
{
    struct stage stage;

    (void)state;
    open_stage(&stage, MEMPLUG_MEMMAP_BLOCK, 3);
    stage.refuse = MEMPLUG_PREPARE_ONLINE;
    stage.refuse_at = 1;
    expect(&stage, true, 3, REFUSED, "P1");
    assert_string_equal(stage.reason.step, "prepare");
    assert_string_equal(stage.reason.owner, "x");
    assert_int_equal(stage.reason.block, 1);
    stage.refuse_at = 3; /* those that were prepared before are finished */
    expect(&stage, true, 3, REFUSED, "P1P2P3F2F1");
    close_stage(&stage);
}

static void test_a_refused_online_is_finished(void **state)
{
    struct stage stage;

    (void)state;
    open_stage(&stage, MEMPLUG_MEMMAP_BLOCK, 3);
    stage.refuse = MEMPLUG_GOING_ONLINE;
    stage.refuse_at = 2;
    expect(&stage, true, 3, REFUSED, "P1P2P3G1G2C2C1F3F2F1");
    close_stage(&stage);
}

static void test_a_refused_offline_was_not_going_to_finish(void **state)
{
    struct memplug_alloc request = {.nr_pages = 1};
    memplug_pfn_t pfn;
    struct stage stage;

    (void)state;
    open_stage(&stage, MEMPLUG_MEMMAP_BLOCK, 2);
    expect(&stage, true, 2, 0, "P1P2G1G2O1O2");
    stage.refuse = MEMPLUG_GOING_OFFLINE;
    stage.refuse_at = 2;
    expect(&stage, false, 2, REFUSED, "G1G2C2C1");
    stage.refuse = 0;
    expect(&stage, false, 2, 0, "G1G2O1O2F1F2");
    stage.heard[0] = '\0'; /* and what cannot be moved is not even asked for */
    assert_int_equal(memplug_online(stage.toy.pool, 1, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    assert_int_equal(memplug_alloc(stage.toy.pool, &request, &pfn), 0);
    expect(&stage, false, 1, -MPL_EBUSY, "");
    assert_int_equal(memplug_free(stage.toy.pool, pfn, 1), 0);
    close_stage(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_and_last),
        cmocka_unit_test(test_a_refused_prepare_is_not_finished),
        cmocka_unit_test(test_a_refused_online_is_finished),
        cmocka_unit_test(test_a_refused_offline_was_not_going_to_finish),
    };

    return cmocka_run_group_tests_name("prepare", tests, NULL, NULL);
}
