/* SPDX-License-Identifier: MIT */
/* What subscribers hear: order, vetoes and their cancels, ranges, and whose memory it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "door.h"
#include "steps.h"
#include "toy_host.h"

#define NR_LISTENERS 4u
#define BLOCK_PAGES 256u
#define MEMMAP_PAGES 4u
#define REFUSED (-1) /* -EPERM: an errno that the core has no name for goes through as it is */

struct heard {
    unsigned listener;
    struct memplug_notice notice;
    /* The block's state and its zone at that time. */
    struct memplug_block_info info;
    uint64_t nr_spanned;
};

struct stage;

struct listener {
    struct stage *stage;
    unsigned number;
    unsigned refuse;         /* the event that it refuses; 0: none */
    memplug_pfn_t refuse_at; /* at this start */
    int answer;
    struct memplug_subscriber subscriber;
};

struct stage {
    struct toy_host toy;
    struct listener listeners[NR_LISTENERS];
    struct heard heard[256];
    unsigned nr_heard;
};

static int hear(void *context, const struct memplug_notice *notice)
{
    struct listener *listener = context;
    struct stage *stage = listener->stage;
    struct heard *heard = &stage->heard[stage->nr_heard];
    struct memplug_zone_info zone = {.nr_spanned_pages = 0};
    uint64_t id = notice->start.nr / BLOCK_PAGES;

    if (notice->event == MEMPLUG_PREPARE_ONLINE || notice->event == MEMPLUG_FINISH_OFFLINE)
        return 0; /* test_prepare.c */
    stage->nr_heard++;
    assert_true(stage->nr_heard < 256);
    heard->listener = listener->number;
    heard->notice = *notice;
    assert_int_equal(memplug_block_info(stage->toy.pool, id, &heard->info), 0);
    if (heard->info.zone != MEMPLUG_NR_ZONES)
        assert_int_equal(memplug_zone_info(stage->toy.pool, heard->info.node, heard->info.zone,
                                           &zone),
                         0);
    heard->nr_spanned = zone.nr_spanned_pages;
    if ((unsigned)notice->event == listener->refuse && notice->start.nr == listener->refuse_at.nr)
        return listener->answer;
    /* What is returned from the others does not matter. */
    return notice->event == MEMPLUG_GOING_ONLINE || notice->event == MEMPLUG_GOING_OFFLINE
               ? 0
               : REFUSED;
}

static void open_stage(struct stage *stage, unsigned nr_nodes, unsigned nr_listeners)
{
    struct memplug_geometry g = toy_geometry();

    memset(stage, 0, sizeof(*stage));
    toy_open(&stage->toy, &g, nr_nodes, NULL);
    for (unsigned i = 0; i < NR_LISTENERS; i++) {
        struct listener *listener = &stage->listeners[i];

        listener->stage = stage;
        listener->number = i;
        listener->answer = REFUSED;
        listener->subscriber = (struct memplug_subscriber){
            .name = "listener",
            .priority = 100 - (int)i,
            .notify = hear,
            .context = listener,
        };
        if (i < nr_listeners)
            assert_int_equal(memplug_subscribe(stage->toy.pool, &listener->subscriber), 0);
    }
}

static void close_stage(struct stage *stage)
{
    toy_empty(&stage->toy);
}

static void expect(const struct stage *stage, unsigned at, enum memplug_event event, uint64_t block,
                   int node_normal, int node_any)
{
    const struct memplug_notice *notice = &stage->heard[at].notice;

    assert_true(at < stage->nr_heard);
    assert_int_equal(notice->event, event);
    assert_int_equal(notice->start.nr / BLOCK_PAGES, block);
    assert_int_equal(notice->node_normal, node_normal);
    assert_int_equal(notice->node_any, node_any);
}

static int online(struct stage *stage, uint64_t first, uint64_t nr_blocks,
                  enum memplug_online_type type)
{
    stage->nr_heard = 0;
    return memplug_online(stage->toy.pool, first, nr_blocks, type, NULL, NULL);
}

static int offline(struct stage *stage, uint64_t first, uint64_t nr_blocks)
{
    stage->nr_heard = 0;
    return memplug_offline(stage->toy.pool, first, nr_blocks, NULL, NULL);
}

/* --- order ------------------------------------------------------------------------------------ */

/* Every order of subscribing; equal priorities keep the order in which they came. */
static void check_order(const unsigned order[NR_LISTENERS])
{
    const int priorities[NR_LISTENERS] = {0, 10, 10, -5};
    unsigned expected[NR_LISTENERS], nr_expected = 0;
    struct stage stage;

    open_stage(&stage, 1, 0);
    for (unsigned i = 0; i < NR_LISTENERS; i++) {
        struct listener *listener = &stage.listeners[order[i]];

        listener->subscriber.priority = priorities[order[i]];
        assert_int_equal(memplug_subscribe(stage.toy.pool, &listener->subscriber), 0);
    }
    for (int priority = 10; priority >= -5; priority -= 5)
        for (unsigned i = 0; i < NR_LISTENERS; i++)
            if (priorities[order[i]] == priority)
                expected[nr_expected++] = order[i];
    assert_int_equal(toy_add(&stage.toy, 1, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
    assert_int_equal(online(&stage, 1, 1, MEMPLUG_ONLINE_KERNEL), 0);
    assert_int_equal(stage.nr_heard, 2 * NR_LISTENERS);
    for (unsigned i = 0; i < 2 * NR_LISTENERS; i++) {
        assert_int_equal(stage.heard[i].listener, expected[i % NR_LISTENERS]);
        assert_int_equal(stage.heard[i].notice.event,
                         i < NR_LISTENERS ? MEMPLUG_GOING_ONLINE : MEMPLUG_ONLINE);
    }
    close_stage(&stage);
}

static void test_the_highest_priority_hears_first(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 4 * 4 * 4 * 4; code++) {
        unsigned order[NR_LISTENERS], seen = 0;

        for (unsigned i = 0; i < NR_LISTENERS; i++) {
            order[i] = code >> (2 * i) & 3;
            seen |= 1u << order[i];
        }
        if (seen == 15)
            check_order(order);
    }
}

static void test_who_unsubscribed_hears_nothing(void **state)
{
    (void)state;
    for (unsigned gone = 0; gone < NR_LISTENERS; gone++) {
        struct stage stage;
        unsigned at = 0;

        open_stage(&stage, 1, NR_LISTENERS);
        assert_int_equal(memplug_unsubscribe(stage.toy.pool, &stage.listeners[gone].subscriber), 0);
        assert_int_not_equal(
            memplug_unsubscribe(stage.toy.pool, &stage.listeners[gone].subscriber), 0);
        assert_int_equal(toy_add(&stage.toy, 1, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
        assert_int_equal(online(&stage, 1, 1, MEMPLUG_ONLINE_KERNEL), 0);
        assert_int_equal(stage.nr_heard, 2 * (NR_LISTENERS - 1));
        for (unsigned i = 0; i < NR_LISTENERS; i++)
            if (i != gone)
                assert_int_equal(stage.heard[at++].listener, i);
        close_stage(&stage);
    }
}

static void test_there_is_room_for_sixteen(void **state)
{
    struct memplug_subscriber many[MPL_MAX_SUBSCRIBERS + 1];
    struct stage stage;

    (void)state;
    open_stage(&stage, 1, 0);
    for (unsigned i = 0; i <= MPL_MAX_SUBSCRIBERS; i++) {
        many[i] = stage.listeners[0].subscriber;
        assert_int_equal(memplug_subscribe(stage.toy.pool, &many[i]),
                         i < MPL_MAX_SUBSCRIBERS ? 0 : -MPL_ENOSPC);
    }
    assert_int_equal(memplug_unsubscribe(stage.toy.pool, &many[7]), 0);
    assert_int_equal(memplug_subscribe(stage.toy.pool, &many[16]), 0);
    for (unsigned i = 0; i <= MPL_MAX_SUBSCRIBERS; i++)
        if (i != 7)
            assert_int_equal(memplug_unsubscribe(stage.toy.pool, &many[i]), 0);
    close_stage(&stage);
}

static int call_back(void *context, const struct memplug_notice *notice)
{
    struct stage *stage = context;
    struct memplug *pool = stage->toy.pool;

    (void)notice;
    assert_int_equal(memplug_online(pool, 2, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), -MPL_EDEADLK);
    assert_int_equal(memplug_offline(pool, 2, 1, NULL, NULL), -MPL_EDEADLK);
    assert_int_equal(toy_add(&stage->toy, 5, 1, MEMPLUG_MEMMAP_HOST, 0), -MPL_EDEADLK);
    assert_int_equal(memplug_remove(pool, 2 << 20, 1 << 20, NULL, NULL), -MPL_EDEADLK);
    assert_int_equal(memplug_subscribe(pool, &stage->listeners[0].subscriber), -MPL_EDEADLK);
    assert_int_equal(memplug_unsubscribe(pool, &stage->listeners[0].subscriber), -MPL_EDEADLK);
    stage->nr_heard++;
    return 0;
}

static void test_a_subscriber_must_not_call_back(void **state)
{
    struct memplug_subscriber subscriber = {.name = "deadlock", .notify = call_back};
    struct stage stage;

    (void)state;
    open_stage(&stage, 1, 0);
    subscriber.context = &stage;
    assert_int_equal(toy_add(&stage.toy, 1, 2, MEMPLUG_MEMMAP_HOST, 0), 0);
    assert_int_equal(memplug_subscribe(stage.toy.pool, &subscriber), 0);
    assert_int_equal(online(&stage, 1, 1, MEMPLUG_ONLINE_KERNEL), 0);
    assert_int_equal(stage.nr_heard, 3);
    assert_int_equal(offline(&stage, 1, 1), 0);
    assert_int_equal(stage.nr_heard, 3);
    close_stage(&stage);
}

/* --- one block -------------------------------------------------------------------------------- */

static void test_the_range_is_the_data_without_the_memmap(void **state)
{
    struct stage stage;

    (void)state;
    open_stage(&stage, 1, 1);
    assert_int_equal(toy_add(&stage.toy, 3, 1, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    assert_int_equal(toy_add(&stage.toy, 5, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
    for (unsigned own = 0; own < 2; own++) {
        uint64_t id = own != 0 ? 3 : 5, nr_memmap = own != 0 ? MEMMAP_PAGES : 0;

        for (unsigned pass = 0; pass < 2; pass++) {
            assert_int_equal(pass == 0 ? online(&stage, id, 1, MEMPLUG_ONLINE_KERNEL)
                                       : offline(&stage, id, 1),
                             0);
            assert_int_equal(stage.nr_heard, 2);
            for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(stage.heard[i].notice.start.nr, id * BLOCK_PAGES + nr_memmap);
                assert_int_equal(stage.heard[i].notice.nr_pages, BLOCK_PAGES - nr_memmap);
            }
        }
    }
    close_stage(&stage);
}

static void test_what_is_true_when_an_event_is_heard(void **state)
{
    struct stage stage;

    (void)state;
    open_stage(&stage, 1, 1);
    assert_int_equal(toy_add(&stage.toy, 3, 1, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    assert_int_equal(online(&stage, 3, 1, MEMPLUG_ONLINE_MOVABLE), 0);
    expect(&stage, 0, MEMPLUG_GOING_ONLINE, 3, -1, 0);
    assert_int_equal(stage.heard[0].info.state, MEMPLUG_BLOCK_GOING_ONLINE);
    assert_int_equal(stage.heard[0].info.nr_managed_pages, 0);
    expect(&stage, 1, MEMPLUG_ONLINE, 3, -1, 0);
    assert_int_equal(stage.heard[1].info.state, MEMPLUG_BLOCK_ONLINE);
    assert_int_equal(stage.heard[1].info.nr_free_pages, BLOCK_PAGES - MEMMAP_PAGES);
    assert_int_equal(stage.heard[1].info.nr_isolated_pageblocks, 0);
    assert_int_equal(offline(&stage, 3, 1), 0);
    expect(&stage, 0, MEMPLUG_GOING_OFFLINE, 3, -1, 0);
    assert_int_equal(stage.heard[0].info.state, MEMPLUG_BLOCK_GOING_OFFLINE);
    assert_int_not_equal(stage.heard[0].info.nr_isolated_pageblocks, 0);
    assert_int_equal(stage.heard[0].info.nr_managed_pages, BLOCK_PAGES - MEMMAP_PAGES);
    /* Offline is said before the range leaves its zone, and after its frames did. */
    expect(&stage, 1, MEMPLUG_OFFLINE, 3, -1, 0);
    assert_int_equal(stage.heard[1].info.zone, MEMPLUG_ZONE_MOVABLE);
    assert_int_equal(stage.heard[1].nr_spanned, BLOCK_PAGES);
    assert_int_equal(stage.heard[1].info.nr_managed_pages, 0);
    close_stage(&stage);
}

/* --- vetoes ----------------------------------------------------------------------------------- */

static void refuse(struct stage *stage, unsigned listener, enum memplug_event event,
                   uint64_t block, int answer)
{
    stage->listeners[listener].refuse = event;
    stage->listeners[listener].refuse_at = mpl_pfn(block * BLOCK_PAGES);
    stage->listeners[listener].answer = answer;
}

static void test_a_veto_is_answered_and_all_hear_the_cancel(void **state)
{
    (void)state;
    for (unsigned going_online = 0; going_online < 2; going_online++)
        for (unsigned who = 0; who < NR_LISTENERS; who++) {
            enum memplug_event going =
                going_online != 0 ? MEMPLUG_GOING_ONLINE : MEMPLUG_GOING_OFFLINE;
            enum memplug_event cancel =
                going_online != 0 ? MEMPLUG_CANCEL_ONLINE : MEMPLUG_CANCEL_OFFLINE;
            struct memplug_reason reason;
            struct stage stage;
            int error;

            open_stage(&stage, 1, NR_LISTENERS);
            assert_int_equal(toy_add(&stage.toy, 2, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
            if (going_online == 0)
                assert_int_equal(online(&stage, 2, 1, MEMPLUG_ONLINE_KERNEL), 0);
            refuse(&stage, who, going, 2, REFUSED);
            stage.listeners[who].subscriber.name = "the one that refuses";
            stage.nr_heard = 0;
            error = going_online != 0 ? memplug_online(stage.toy.pool, 2, 1, MEMPLUG_ONLINE_KERNEL,
                                                       NULL, &reason)
                                      : memplug_offline(stage.toy.pool, 2, 1, NULL, &reason);
            assert_int_equal(error, REFUSED);
            assert_int_equal(reason.error, REFUSED);
            assert_int_equal(reason.block, 2);
            assert_string_equal(reason.owner, "the one that refuses");
            assert_string_equal(reason.step, "ask");
            assert_int_equal(stage.nr_heard, who + 1 + NR_LISTENERS);
            for (unsigned i = 0; i < stage.nr_heard; i++) {
                expect(&stage, i, i <= who ? going : cancel, 2, 0, 0);
                assert_int_equal(stage.heard[i].listener, i <= who ? i : i - who - 1);
            }
            /* Isolation is undone before the cancel of an offline. */
            if (going_online == 0)
                assert_int_equal(stage.heard[who + 1].info.nr_isolated_pageblocks, 0);
            stage.listeners[who].refuse = 0;
            close_stage(&stage);
        }
}

static void test_a_veto_that_is_no_errno_is_busy(void **state)
{
    struct stage stage;

    (void)state;
    open_stage(&stage, 1, 1);
    assert_int_equal(toy_add(&stage.toy, 2, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
    refuse(&stage, 0, MEMPLUG_GOING_ONLINE, 2, 7);
    assert_int_equal(online(&stage, 2, 1, MEMPLUG_ONLINE_KERNEL), -MPL_EBUSY);
    assert_int_equal(stage.nr_heard, 2);
    expect(&stage, 1, MEMPLUG_CANCEL_ONLINE, 2, 0, 0);
    close_stage(&stage);
}

static void test_what_fails_before_the_question_is_not_announced(void **state)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE};
    struct stage stage;
    memplug_pfn_t pfn;

    (void)state;
    open_stage(&stage, 1, 1);
    assert_int_equal(toy_add(&stage.toy, 2, 1, MEMPLUG_MEMMAP_HOST, 0), 0);
    assert_int_equal(online(&stage, 2, 1, MEMPLUG_ONLINE_KERNEL), 0);
    assert_int_equal(memplug_alloc(stage.toy.pool, &request, &pfn), 0);
    assert_int_equal(offline(&stage, 2, 1), -MPL_EBUSY);
    assert_int_equal(stage.nr_heard, 0);
    assert_int_equal(memplug_free(stage.toy.pool, pfn, 1), 0);
    close_stage(&stage);
}

/* --- several blocks --------------------------------------------------------------------------- */

static void test_several_blocks_ask_for_all_before_they_tell(void **state)
{
    struct stage stage;

    (void)state;
    open_stage(&stage, 1, 1);
    assert_int_equal(toy_add(&stage.toy, 2, 3, MEMPLUG_MEMMAP_BLOCK, 0), 0);
    assert_int_equal(online(&stage, 2, 3, MEMPLUG_ONLINE_KERNEL), 0);
    assert_int_equal(stage.nr_heard, 6);
    for (unsigned i = 0; i < 3; i++) {
        expect(&stage, i, MEMPLUG_GOING_ONLINE, 2 + i, i == 0 ? 0 : -1, i == 0 ? 0 : -1);
        expect(&stage, 3 + i, MEMPLUG_ONLINE, 2 + i, i == 0 ? 0 : -1, i == 0 ? 0 : -1);
    }
    assert_int_equal(offline(&stage, 2, 3), 0);
    assert_int_equal(stage.nr_heard, 6);
    for (unsigned i = 0; i < 3; i++) {
        expect(&stage, i, MEMPLUG_GOING_OFFLINE, 2 + i, i == 2 ? 0 : -1, i == 2 ? 0 : -1);
        expect(&stage, 3 + i, MEMPLUG_OFFLINE, 2 + i, i == 2 ? 0 : -1, i == 2 ? 0 : -1);
    }
    close_stage(&stage);
}

/* A veto at block k: blocks up to k were asked and hear the cancel, last first; the others hear
 * nothing at all. */
static void test_a_veto_in_the_middle_cancels_what_was_asked(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 4; k++)
        for (unsigned going_online = 0; going_online < 2; going_online++) {
            struct stage stage;
            int error;

            open_stage(&stage, 1, 1);
            assert_int_equal(toy_add(&stage.toy, 2, 4, MEMPLUG_MEMMAP_HOST, 0), 0);
            if (going_online == 0)
                assert_int_equal(online(&stage, 2, 4, MEMPLUG_ONLINE_KERNEL), 0);
            refuse(&stage, 0,
                   going_online != 0 ? MEMPLUG_GOING_ONLINE : MEMPLUG_GOING_OFFLINE, 2 + k,
                   REFUSED);
            error = going_online != 0 ? online(&stage, 2, 4, MEMPLUG_ONLINE_KERNEL)
                                      : offline(&stage, 2, 4);
            assert_int_equal(error, REFUSED);
            assert_int_equal(stage.nr_heard, 2 * (k + 1));
            for (unsigned i = 0; i <= k; i++) {
                const struct heard *asked = &stage.heard[i];
                const struct heard *cancelled = &stage.heard[2 * k + 1 - i];

                assert_int_equal(asked->notice.start.nr, (2 + i) * BLOCK_PAGES);
                assert_int_equal(cancelled->notice.start.nr, (2 + i) * BLOCK_PAGES);
                assert_int_equal(cancelled->notice.event, going_online != 0
                                                              ? MEMPLUG_CANCEL_ONLINE
                                                              : MEMPLUG_CANCEL_OFFLINE);
                assert_int_equal(cancelled->notice.node_any, asked->notice.node_any);
                assert_int_equal(cancelled->notice.node_normal, asked->notice.node_normal);
            }
            stage.listeners[0].refuse = 0;
            close_stage(&stage);
        }
}

/* --- first and last memory of a node ---------------------------------------------------------- */

/* Four blocks on two nodes; each is absent, kernel or movable: the ids of one more that comes
 * and goes, from who is there already. */
static void check_node_ids(unsigned situation, int node, bool movable)
{
    bool any[2] = {false, false}, normal[2] = {false, false};
    enum memplug_online_type type = movable ? MEMPLUG_ONLINE_MOVABLE : MEMPLUG_ONLINE_KERNEL;
    struct stage stage;

    open_stage(&stage, 2, 1);
    for (unsigned i = 0; i < 4; i++, situation /= 3) {
        int other = (int)i / 2;

        assert_int_equal(toy_add(&stage.toy, 1 + i, 1, MEMPLUG_MEMMAP_BLOCK, other), 0);
        if (situation % 3 == 0)
            continue;
        any[other] = true;
        normal[other] |= situation % 3 == 1;
        assert_int_equal(online(&stage, 1 + i, 1,
                                situation % 3 == 1 ? MEMPLUG_ONLINE_KERNEL
                                                   : MEMPLUG_ONLINE_MOVABLE),
                         0);
    }
    assert_int_equal(toy_add(&stage.toy, 7, 1, MEMPLUG_MEMMAP_BLOCK, node), 0);
    for (unsigned pass = 0; pass < 2; pass++) {
        int node_any = any[node] ? -1 : node;
        int node_normal = normal[node] || movable ? -1 : node;

        assert_int_equal(pass == 0 ? online(&stage, 7, 1, type) : offline(&stage, 7, 1), 0);
        assert_int_equal(stage.nr_heard, 2);
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(stage.heard[i].notice.node_any, node_any);
            assert_int_equal(stage.heard[i].notice.node_normal, node_normal);
        }
    }
    close_stage(&stage);
}

static void test_first_and_last_memory_of_a_node(void **state)
{
    (void)state;
    for (unsigned situation = 0; situation < 3 * 3 * 3 * 3; situation++)
        for (int node = 0; node < 2; node++)
            for (unsigned movable = 0; movable < 2; movable++)
                check_node_ids(situation, node, movable != 0);
}

/* Blocks of both nodes in one operation: each node has a first and a last of its own. */
static void test_first_and_last_of_two_nodes_in_one_operation(void **state)
{
    const int nodes[4] = {0, 1, 0, 1};
    struct stage stage;

    (void)state;
    open_stage(&stage, 2, 1);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(toy_add(&stage.toy, 1 + i, 1, MEMPLUG_MEMMAP_HOST, nodes[i]), 0);
    assert_int_equal(online(&stage, 1, 4, MEMPLUG_ONLINE_KERNEL), 0);
    for (unsigned i = 0; i < 4; i++)
        expect(&stage, i, MEMPLUG_GOING_ONLINE, 1 + i, i < 2 ? nodes[i] : -1,
               i < 2 ? nodes[i] : -1);
    assert_int_equal(offline(&stage, 1, 4), 0);
    for (unsigned i = 0; i < 4; i++)
        expect(&stage, i, MEMPLUG_GOING_OFFLINE, 1 + i, i >= 2 ? nodes[i] : -1,
               i >= 2 ? nodes[i] : -1);
    close_stage(&stage);
}

/* --- a block that is all memmap --------------------------------------------------------------- */

/* 56 of 64 blocks as one range, at 128 bytes a page: 8 pages a block, 448 in all; the first
 * block is all memmap, most of the second one too. */
static void open_headed_range(struct stage *stage)
{
    struct memplug_geometry g = toy_geometry();

    open_stage(stage, 1, 0);
    toy_abandon(&stage->toy);
    g.page_struct_bytes = 128;
    toy_open(&stage->toy, &g, 1, NULL);
    assert_int_equal(memplug_subscribe(stage->toy.pool, &stage->listeners[0].subscriber), 0);
    assert_int_equal(toy_add(&stage->toy, 1, 56, MEMPLUG_MEMMAP_RANGE, 0), 0);
}

static void test_a_block_that_is_all_memmap_comes_and_goes_in_silence(void **state)
{
    struct memplug_block_info info;
    struct stage stage;

    (void)state;
    open_headed_range(&stage);
    assert_int_equal(memplug_block_info(stage.toy.pool, 1, &info), 0);
    assert_int_equal(info.nr_memmap_pages, BLOCK_PAGES);
    assert_int_equal(online(&stage, 1, 1, MEMPLUG_ONLINE_KERNEL), 0);
    assert_int_equal(stage.nr_heard, 0);
    assert_int_equal(offline(&stage, 1, 1), 0);
    assert_int_equal(stage.nr_heard, 0);
    assert_int_equal(online(&stage, 1, 2, MEMPLUG_ONLINE_KERNEL), 0);
    assert_int_equal(stage.nr_heard, 2);
    assert_int_equal(stage.heard[0].notice.start.nr, BLOCK_PAGES + 448);
    assert_int_equal(stage.heard[0].notice.nr_pages, 2 * BLOCK_PAGES - 448);
    close_stage(&stage);
}

/* Memory that nobody can use is nobody's first or last: the ids go to blocks with data. */
static void test_a_block_that_is_all_memmap_is_not_a_nodes_first_memory(void **state)
{
    struct stage stage;

    (void)state;
    open_headed_range(&stage);
    assert_int_equal(online(&stage, 1, 3, MEMPLUG_ONLINE_KERNEL), 0);
    assert_int_equal(stage.nr_heard, 4);
    expect(&stage, 0, MEMPLUG_GOING_ONLINE, 2, 0, 0);
    expect(&stage, 1, MEMPLUG_GOING_ONLINE, 3, -1, -1);
    assert_int_equal(offline(&stage, 2, 2), 0);
    assert_int_equal(stage.nr_heard, 4);
    expect(&stage, 0, MEMPLUG_GOING_OFFLINE, 2, -1, -1);
    expect(&stage, 1, MEMPLUG_GOING_OFFLINE, 3, 0, 0);
    assert_int_equal(online(&stage, 2, 1, MEMPLUG_ONLINE_MOVABLE), 0);
    expect(&stage, 0, MEMPLUG_GOING_ONLINE, 2, -1, 0);
    close_stage(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_highest_priority_hears_first),
        cmocka_unit_test(test_who_unsubscribed_hears_nothing),
        cmocka_unit_test(test_there_is_room_for_sixteen),
        cmocka_unit_test(test_a_subscriber_must_not_call_back),
        cmocka_unit_test(test_the_range_is_the_data_without_the_memmap),
        cmocka_unit_test(test_what_is_true_when_an_event_is_heard),
        cmocka_unit_test(test_a_veto_is_answered_and_all_hear_the_cancel),
        cmocka_unit_test(test_a_veto_that_is_no_errno_is_busy),
        cmocka_unit_test(test_what_fails_before_the_question_is_not_announced),
        cmocka_unit_test(test_several_blocks_ask_for_all_before_they_tell),
        cmocka_unit_test(test_a_veto_in_the_middle_cancels_what_was_asked),
        cmocka_unit_test(test_first_and_last_memory_of_a_node),
        cmocka_unit_test(test_first_and_last_of_two_nodes_in_one_operation),
        cmocka_unit_test(test_a_block_that_is_all_memmap_comes_and_goes_in_silence),
        cmocka_unit_test(test_a_block_that_is_all_memmap_is_not_a_nodes_first_memory),
    };

    return cmocka_run_group_tests_name("notify", tests, NULL, NULL);
}
