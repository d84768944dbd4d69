/* SPDX-License-Identifier: MIT */
/* memplug/online, offline, remove: many blocks in one write; why, and since when; host files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attr_stage.h"

#include <errno.h>

#define M "devices/system/memory/"

static void states(struct attr_stage *stage, const char *expected)
{
    char path[64], text[64], all[128] = "";

    for (unsigned block = 2; block < 10; block++) {
        snprintf(path, sizeof(path), M "memory%u/valid_zones", block);
        if (memplug_attr_get(&stage->tree, path, text, sizeof(text)) < 0) {
            strcat(all, "-");
            continue;
        }
        snprintf(path, sizeof(path), M "memory%u/online", block);
        strcat(all, text[0] == 'M' ? "M" : "N");
        memplug_attr_get(&stage->tree, path, text, sizeof(text));
        if (text[0] == '0')
            all[strlen(all) - 1] = '.';
    }
    assert_string_equal(all, expected);
}

/* Blocks 2 to 5 and 7 to 9, of two adds. */
static void open_two(struct attr_stage *stage)
{
    stage_open(stage, FAKE_SMALL, 1);
    stage_add(stage, stage->world.backing_a, 0, 2, 4, 0);
    stage_add(stage, stage->world.backing_b, 0, 7, 3, 0);
}

static void many_go_online_and_offline(void **state)
{
    struct attr_stage stage;

    (void)state;
    open_two(&stage);
    states(&stage, "....-...");
    stage_set(&stage, "memplug/online", "2-3,5,8 movable\n", 16);
    states(&stage, "MM.M-.M.");
    stage_set(&stage, "memplug/online", "9 kernel", 8);
    stage_set(&stage, "memplug/offline", "2,5\n", 4);
    states(&stage, ".M..-.MN");
    stage_set(&stage, "memplug/offline", "3,8-9", 5);
    stage_set(&stage, "memplug/remove", "7-9", 3);
    states(&stage, "....----");
    stage_set(&stage, "memplug/online", "2-5 movable", 11);
    stage_set(&stage, "memplug/remove", "2-3", -EBUSY);
    stage_set(&stage, "memplug/remove", "2-3 offline", 11);
    states(&stage, "--MM----");
    stage_set(&stage, "memplug/remove", "4-5 offline\n", 12);
    stage_close(&stage);
}

static void what_is_no_list_changes_nothing(void **state)
{
    static const struct {
        const char *file, *text;
        int error;
    } bad[] = {
        {"online", "x", -EINVAL},        {"online", "2-", -EINVAL},
        {"online", "-3", -EINVAL},       {"online", "3-2", -EINVAL},
        {"online", "2,2", -EINVAL},      {"online", "4,2", -EINVAL},
        {"online", "2,", -EINVAL},       {"online", "2 up", -EINVAL},
        {"online", "2movable", -EINVAL}, {"online", "2-4097", -EINVAL},
        {"online", "2-6", -ENODEV},      {"online", "2,3,4,5,6", -ENODEV},
        {"offline", "2", -EINVAL},       {"offline", "2 x", -EINVAL},
        {"remove", "4,2", -EINVAL},      {"remove", "2 online", -EINVAL},
        {"remove", "6", -ENODEV},        {"remove", "2,4,6 offline", -ENODEV},
    };
    struct attr_stage stage;
    char path[64];

    (void)state;
    open_two(&stage);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(path, sizeof(path), "memplug/%s", bad[i].file);
        stage_set(&stage, path, bad[i].text, bad[i].error);
        states(&stage, "....-...");
    }
    stage_set(&stage, "memplug/online",
              "2,3,4,5,7,8,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41,43,45,47,49,51,53,"
              "55,57,59,61", -E2BIG);
    states(&stage, "....-...");
    stage_close(&stage);
}

static int64_t vetoed;

static int veto(void *context, const struct memplug_notice *notice)
{
    struct attr_stage *stage = context;

    if (notice->event != MEMPLUG_GOING_ONLINE && notice->event != MEMPLUG_GOING_OFFLINE)
        return 0;
    return (int64_t)memplug_block_of(stage->world.pool,
                                     notice->start.nr << stage->world.geometry.page_shift) == vetoed
               ? -EPERM
               : 0;
}

/* The last run fails: the first ones are as they were, in their zones. */
static void all_or_none(void **state)
{
    struct attr_stage stage;
    struct memplug_subscriber subscriber = {.name = "veto", .notify = veto, .context = &stage};

    (void)state;
    open_two(&stage);
    assert_int_equal(memplug_subscribe(stage.world.pool, &subscriber), 0);
    vetoed = 9;
    stage_set(&stage, "memplug/online", "2-3,5,7,9 movable", -EPERM);
    states(&stage, "....-...");
    vetoed = -1;
    stage_set(&stage, "memplug/online", "2,9 kernel", 10);
    stage_set(&stage, "memplug/online", "3,7 movable", 11);
    vetoed = 9;
    stage_set(&stage, "memplug/offline", "2-3,7,9", -EPERM);
    states(&stage, "NM..-M.N");
    vetoed = -1;
    vetoed = 9;
    stage_set(&stage, "memplug/remove", "2-3,7,9 offline", -EPERM);
    states(&stage, "NM..-M.N");
    stage_set(&stage, "memplug/remove", "3-4,8", -EBUSY);
    vetoed = -1;
    stage_set(&stage, "memplug/offline", "2-3,7,9", 7);
    states(&stage, "....-...");
    stage_set(&stage, "memplug/online", "2,7 movable", 11);
    stage_set(&stage, "memplug/remove", "2-3,7-8 offline", 15);
    states(&stage, "--..---.");
    assert_int_equal(memplug_unsubscribe(stage.world.pool, &subscriber), 0);
    stage_close(&stage);
}

/* --- why -------------------------------------------------------------------------------------- */

static uint64_t value_of(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    while (at != NULL && at != text && at[-1] != '\n')
        at = strstr(at + 1, name);
    assert_non_null(at);
    return strtoull(at + strlen(name) + 1, NULL, 10);
}

/* A clock that only the tree sees. */
static uint64_t tree_ns;

static uint64_t tree_now_ns(void *context)
{
    (void)context;
    return tree_ns;
}

static void why_and_since_when(void **state)
{
    struct memplug_alloc request = {.nr_pages = 1, .node = MEMPLUG_ANY_NODE};
    struct attr_stage stage;
    char text[2048];
    memplug_pfn_t pfn;
    struct memplug_host_ops ops;

    (void)state;
    open_two(&stage);
    ops = *stage.tree.host.ops;
    ops.now_ns = tree_now_ns;
    stage.tree.host.ops = &ops;
    tree_ns = 1000000000000u;
    stage_set(&stage, "memplug/online", "2 kernel", 8);
    assert_int_equal(memplug_alloc(stage.world.pool, &request, &pfn), 0);
    assert_true(memplug_attr_get(&stage.tree, "memplug/blocks/2/reason", text, sizeof(text)) > 0);
    assert_non_null(strstr(text, "error -16\n"));
    assert_int_equal(value_of(text, "pfn"), pfn.nr);
    assert_int_equal(value_of(text, "seen_for_s"), 0);
    tree_ns += 7000000000u;
    assert_true(memplug_attr_get(&stage.tree, "memplug/blocks/2/reason", text, sizeof(text)) > 0);
    assert_int_equal(value_of(text, "seen_for_s"), 7);
    stage_set(&stage, "memplug/offline", "2", -EBUSY);
    assert_true(memplug_attr_get(&stage.tree, "memplug/blocks/2/why", text, sizeof(text)) > 0);
    assert_non_null(strstr(text, "for at least 7 s."));
    tree_ns += 61000000000u; /* who knows what was meanwhile */
    assert_true(memplug_attr_get(&stage.tree, "memplug/blocks/2/reason", text, sizeof(text)) > 0);
    assert_int_equal(value_of(text, "seen_for_s"), 0);
    assert_int_equal(memplug_free(stage.world.pool, pfn, 1), 0);
    assert_true(memplug_attr_get(&stage.tree, "memplug/blocks/2/reason", text, sizeof(text)) > 0);
    assert_non_null(strstr(text, "error 0\n"));
    assert_null(strstr(text, "seen_for_s"));
    stage_close(&stage);
}

static void frames_add_up(void **state)
{
    static const char *const names[] = {"absent", "memmap", "free", "unmovable",
                                        "movable", "kept", "huge", "poisoned"};
    struct memplug_block_info info;
    struct attr_stage stage;
    uint64_t sum = 0;
    char text[512];

    (void)state;
    open_two(&stage);
    stage_set(&stage, "memplug/online", "2-3 movable", 11);
    world_fill(&stage.world, 2, 1, 40);
    assert_true(memplug_attr_get(&stage.tree, "memplug/blocks/2/frames", text, sizeof(text)) > 0);
    assert_int_equal(memplug_block_info(stage.world.pool, 2, &info), 0);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        sum += value_of(text, names[i]);
    assert_int_equal(sum, info.size_bytes >> stage.world.geometry.page_shift);
    assert_int_equal(value_of(text, "memmap"), info.nr_memmap_pages);
    assert_int_equal(value_of(text, "free"), info.nr_free_pages);
    assert_true(value_of(text, "movable") > 0);
    stage_close(&stage);
}

/* --- files of the embedder's ------------------------------------------------------------------ */

static char kept[32] = "first\n";

static int show_kept(void *context, char *text, size_t size_bytes)
{
    (void)context;
    return snprintf(text, size_bytes, "%s", kept);
}

static int store_kept(void *context, const char *text, size_t length,
                      const struct memplug_limit *limit, struct memplug_reason *reason)
{
    assert_ptr_equal(context, kept);
    assert_non_null(limit->stop);
    if (length >= sizeof(kept)) {
        reason->error = -E2BIG;
        reason->why = "too long";
        return -E2BIG;
    }
    memcpy(kept, text, length);
    kept[length] = '\0';
    return 0;
}

static void host_files(void **state)
{
    static const struct memplug_attr_file files[] = {
        {.name = "kept", .mode = 0644, .show = show_kept, .store = store_kept, .context = kept},
        {.name = "told", .mode = 0444, .show = show_kept},
        {.name = "taken", .mode = 0200, .store = store_kept, .context = kept},
    };
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_SMALL, 1);
    stage_names(&stage, "memplug/host", "");
    stage.tree.files = files;
    stage.tree.nr_files = 3;
    stage_names(&stage, "memplug/host", "kept told taken");
    stage_get(&stage, "memplug/host/kept", "first\n");
    stage_set(&stage, "memplug/host/kept", "second", 6);
    stage_get(&stage, "memplug/host/told", "second");
    stage_set(&stage, "memplug/host/taken", "a text that is longer than what fits", -E2BIG);
    assert_int_equal(stage_opens(&stage, "memplug/host/told", MEMPLUG_ATTR_WRITE), -EACCES);
    assert_int_equal(stage_opens(&stage, "memplug/host/taken", MEMPLUG_ATTR_READ), -EACCES);
    assert_int_equal(stage_opens(&stage, "memplug/host/none", MEMPLUG_ATTR_READ), -ENOENT);
    assert_int_equal(stage_opens(&stage, "memplug/host/kept/x", MEMPLUG_ATTR_READ), -ENOTDIR);
    stage.tree.nr_files = 0;
    stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_go_online_and_offline),
        cmocka_unit_test(what_is_no_list_changes_nothing),
        cmocka_unit_test(all_or_none),
        cmocka_unit_test(why_and_since_when),
        cmocka_unit_test(frames_add_up),
        cmocka_unit_test(host_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
