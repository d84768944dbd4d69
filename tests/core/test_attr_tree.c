/* SPDX-License-Identifier: MIT */
/* The tree itself: paths, modes, listings, handles that outlive what they show. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attr_stage.h"

#define COUNT(array) ((unsigned)(sizeof(array) / sizeof((array)[0])))
#define M "devices/system/memory/"
#define READ MEMPLUG_ATTR_READ
#define WRITE MEMPLUG_ATTR_WRITE

/* --- paths and modes -------------------------------------------------------------------------- */

static const struct {
    const char *path;
    unsigned access;
    int result;
} opens[] = {
    {M "memory2/state", READ, 0},
    {M "memory2/state", READ | WRITE, 0},
    {"/devices//system/memory/memory2///state", READ, 0},
    {M "memory2/state", 0, -EINVAL},
    {M "memory2/state", 8, -EINVAL},
    {M "memory2/valid_zones", READ, 0},
    {M "memory2/valid_zones", WRITE, -EACCES},
    {M "memory2/valid_zones", READ | WRITE, -EACCES},
    {M "soft_offline_page", WRITE, 0},
    {M "soft_offline_page", READ, -EACCES},
    {M "hard_offline_page", READ | WRITE, -EACCES},
    {M "probe", READ, -ENOENT},
    {M "probe", WRITE, -ENOENT},
    {M "memory2", READ, -EISDIR},
    {M "memory2", WRITE, -EISDIR},
    {M "memory2/", READ, -EISDIR},
    {M "memory2/node0", READ, -EISDIR},
    {M "memory2/node0/meminfo", READ, 0},
    {M "memory2/node0/memory2/node0/memory2/state", WRITE, 0},
    {M "memory2/node1/meminfo", READ, -ENOENT},
    {M "memory2/state/", READ, -ENOTDIR},
    {M "memory2/state/x", READ, -ENOTDIR},
    {M "memory02/state", READ, -ENOENT},
    {M "memory+2/state", READ, -ENOENT},
    {M "memory 2/state", READ, -ENOENT},
    {M "memory2x/state", READ, -ENOENT},
    {M "memory2\n/state", READ, -ENOENT},
    {M "memory/state", READ, -ENOENT},
    {M "memory-1/state", READ, -ENOENT},
    {M "Memory2/state", READ, -ENOENT},
    {M "memory1/state", READ, -ENOENT},
    {M "memory9999/state", READ, -ENOENT},
    {M "memory18446744073709551615/state", READ, -ENOENT},
    {M "memory18446744073709551618/state", READ, -ENOENT},
    {M "memory2/stat", READ, -ENOENT},
    {M "memory2/states", READ, -ENOENT},
    {M "memory2/../memory2/state", READ, -ENOENT},
    {"devices/system/node/node0/memory2/state", READ, 0},
    {"devices/system/node/node0/memory1/state", READ, -ENOENT},
    {"devices/system/node/node1/meminfo", READ, -ENOENT},
    {"memplug/zones/1/Movable/free", READ, 0},
    {"memplug/zones/2/Movable/free", READ, -ENOENT},
    {"memplug/zones/1/HighMem/free", READ, -ENOENT},
    {"", READ, -EISDIR},
    {"/", READ, -EISDIR},
    {"memplug/cancel", READ, -EACCES},
    {"memplug/stat", WRITE, -EACCES},
};

static void test_open_answers_as_the_kernel(void **state)
{
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_SMALL, 2);
    stage_add(&stage, stage.world.backing_a, 0, 2, 1, 0);
    for (unsigned i = 0; i < COUNT(opens); i++)
        if (stage_opens(&stage, opens[i].path, opens[i].access) != opens[i].result)
            fail_msg("\"%s\" for %u: %d, not %d", opens[i].path, opens[i].access,
                     stage_opens(&stage, opens[i].path, opens[i].access), opens[i].result);
    stage_close(&stage);
}

static void test_listings(void **state)
{
    struct memplug_attr_item item;
    struct attr_stage stage;
    char text[64];

    (void)state;
    stage_open(&stage, FAKE_SMALL, 1);
    stage_names(&stage, "", "devices/ firmware/ kernel/ memplug/ module/");
    stage_names(&stage, M, "auto_online_blocks block_size_bytes hard_offline_page "
                           "soft_offline_page uevent");
    stage_add(&stage, stage.world.backing_a, 0, 9, 2, 0);
    stage_add(&stage, stage.world.backing_b, 0, 2, 1, 0);
    stage_names(&stage, M, "auto_online_blocks block_size_bytes hard_offline_page "
                           "soft_offline_page uevent memory2/ memory9/ memory10/");
    stage_names(&stage, "module/memory_hotplug/parameters",
                "auto_movable_numa_aware auto_movable_ratio memmap_on_memory online_policy");
    stage_names(&stage, "devices/system/node/node0",
                "hugepages/ meminfo uevent memory2@ memory9@ memory10@");
    stage_names(&stage, "memplug", "blocks/ cancel events groups host/ movable_node offline online "
                                   "progress ranges remove stat zones/");
    assert_int_equal(memplug_attr_stat(&stage.tree, M "memory2/node0", &item), 0);
    assert_int_equal(item.kind, MEMPLUG_ATTR_LINK);
    assert_int_equal(memplug_attr_stat(&stage.tree, M "memory2/node0/", &item), 0);
    assert_int_equal(item.kind, MEMPLUG_ATTR_DIRECTORY);
    assert_int_equal(memplug_attr_readlink(&stage.tree, M "memory2/node0", text, sizeof(text)), 16);
    assert_string_equal(text, "../../node/node0");
    assert_int_equal(memplug_attr_readlink(&stage.tree, "devices/system/node/node0/memory10", text,
                                           sizeof(text)),
                     21);
    assert_string_equal(text, "../../memory/memory10");
    assert_int_equal(memplug_attr_readlink(&stage.tree, M "memory2", text, sizeof(text)), -EINVAL);
    assert_int_equal(memplug_attr_readlink(&stage.tree, M "memory3", text, sizeof(text)), -ENOENT);
    assert_int_equal(memplug_attr_list(&stage.tree, M "memory2/state", NULL, NULL), -ENOTDIR);
    assert_int_equal(memplug_attr_list(&stage.tree, M "memory3", NULL, NULL), -ENOENT);
    stage_close(&stage);
}

/* --- the whole tree --------------------------------------------------------------------------- */

struct walk {
    struct attr_stage *stage;
    const char *manual;
    const char *path;
    unsigned nr_files, nr_links, nr_directories;
};

/* Buffers of every size near the text's: its full length, what fits, not a byte behind. */
static void read_in_all_sizes(struct attr_stage *stage, const char *path)
{
    char full[4096], part[sizeof(full) + 8];
    int length = memplug_attr_get(&stage->tree, path, full, sizeof(full));

    if (length < 0 || (size_t)length >= sizeof(full))
        fail_msg("%s: %d", path, length);
    assert_int_equal(strlen(full), length);
    for (size_t size = 0; size <= (size_t)length + 2; size++) {
        size_t kept = size > (size_t)length ? (size_t)length : size > 0 ? size - 1 : 0;

        memset(part, '#', sizeof(part));
        assert_int_equal(memplug_attr_get(&stage->tree, path, part, size), length);
        assert_memory_equal(part, full, kept);
        assert_int_equal(part[size], '#');
        if (size > 0)
            assert_int_equal(part[kept], '\0');
    }
}

/* A file stands in the manual in bold, perhaps behind its directory. */
static void find_in_manual(const char *manual, const char *name)
{
    char bold[MEMPLUG_ATTR_NAME_BYTES + 1];

    snprintf(bold, sizeof(bold), "%s*", name);
    if (strstr(manual, bold) == NULL)
        fail_msg("%s is not in memplug-attr(7)", name);
}

static char *read_manual(void)
{
    FILE *file = fopen(SOURCE_ROOT "/docs/memplug-attr.7.scd", "r");
    char *manual = calloc(1, 65536);

    assert_non_null(file);
    assert_non_null(manual);
    assert_true(fread(manual, 1, 65535, file) > 1000);
    assert_true(feof(file));
    fclose(file);
    return manual;
}

static void visit(void *context, const struct memplug_attr_item *item)
{
    struct walk *walk = context, below = {.stage = walk->stage, .manual = walk->manual};
    struct memplug_attr_item found;
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", walk->path, item->name);
    below.path = path;
    assert_int_equal(memplug_attr_stat(&walk->stage->tree, path, &found), 0);
    assert_int_equal(found.kind, item->kind);
    assert_int_equal(found.mode, item->mode);
    if (item->kind == MEMPLUG_ATTR_FILE) {
        walk->nr_files++;
        find_in_manual(walk->manual, item->name);
        assert_int_equal(stage_opens(walk->stage, path, READ), item->mode & 0444 ? 0 : -EACCES);
        assert_int_equal(stage_opens(walk->stage, path, WRITE), item->mode & 0222 ? 0 : -EACCES);
        if ((item->mode & 0444) != 0)
            read_in_all_sizes(walk->stage, path);
        else
            assert_int_not_equal(item->mode & 0222, 0);
    } else if (item->kind == MEMPLUG_ATTR_LINK) {
        walk->nr_links++;
        assert_int_equal(stage_opens(walk->stage, path, READ), -EISDIR);
    } else {
        walk->nr_directories++;
        assert_int_equal(memplug_attr_list(&walk->stage->tree, path, visit, &below), 0);
        walk->nr_files += below.nr_files;
        walk->nr_links += below.nr_links;
        walk->nr_directories += below.nr_directories;
    }
}

static void test_everything_listed_is_there_and_in_the_manual(void **state)
{
    char *manual = read_manual();
    struct walk walk = {.path = "", .manual = manual};
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_SMALL, 2);
    stage_add(&stage, stage.world.backing_a, 0, 2, 1, 0);
    stage_add(&stage, stage.world.backing_b, 0, 3, 2, 1);
    stage_set(&stage, M "memory2/state", "online_kernel", 13);
    stage_set(&stage, M "memory3/state", "online_movable", 14);
    world_fill(&stage.world, 3, 1, 50);
    walk.stage = &stage;
    assert_int_equal(memplug_attr_list(&stage.tree, "", visit, &walk), 0);
    assert_int_equal(walk.nr_links, 2 * 3);
    assert_true(walk.nr_files > 100 && walk.nr_directories > 40);
    free(manual);
    stage_close(&stage);
}

/* --- handles ---------------------------------------------------------------------------------- */

static void expect_gone(struct memplug_attr_handle *handle)
{
    struct memplug_reason reason;
    char text[256];

    if ((handle->access & READ) != 0)
        assert_int_equal(memplug_attr_read(handle, text, sizeof(text)), -ENODEV);
    if ((handle->access & WRITE) == 0)
        return;
    assert_int_equal(memplug_attr_write(handle, "online", 6, NULL, &reason), -ENODEV);
    world_blames(&reason, ENODEV, "gone");
    assert_int_equal(memplug_attr_write(handle, "online", 0, NULL, NULL), -ENODEV);
}

/* Linux semantics, 3: a file that was held open answers -ENODEV, also after a re-add. */
static void test_a_handle_does_not_outlive_its_block(void **state)
{
    static const char *const paths[] = {
        M "memory2/state",          M "memory2/online",
        M "memory2/valid_zones",    M "memory2/phys_index",
        M "memory2/removable",      M "memory2/uevent",
        "memplug/blocks/2/why",     "memplug/blocks/2/stat",
        "firmware/memmap/2/end",    "firmware/memory/memory2/config",
        "devices/system/node/node1/memory2/state",
    };
    struct memplug_attr_handle handles[COUNT(paths)], meminfo;
    struct attr_stage stage;
    char text[256];

    (void)state;
    stage_open(&stage, FAKE_SMALL, 2);
    stage_add(&stage, stage.world.backing_a, 0, 2, 1, 1);
    for (unsigned i = 0; i < COUNT(paths); i++)
        assert_int_equal(memplug_attr_open(&stage.tree, paths[i],
                                           stage_opens(&stage, paths[i], WRITE) == 0 ? READ | WRITE
                                                                                     : READ,
                                           &handles[i]),
                         0);
    assert_int_equal(memplug_attr_open(&stage.tree, "devices/system/node/node1/meminfo", READ,
                                       &meminfo),
                     0);
    for (unsigned i = 0; i < COUNT(paths); i++)
        assert_true(memplug_attr_read(&handles[i], text, sizeof(text)) >= 0);
    stage_remove(&stage, 2, 1);
    for (unsigned i = 0; i < COUNT(paths); i++)
        expect_gone(&handles[i]);
    expect_gone(&meminfo);
    stage_add(&stage, stage.world.backing_a, 0, 2, 1, 1);
    for (unsigned i = 0; i < COUNT(paths); i++)
        expect_gone(&handles[i]);
    stage_get(&stage, M "memory2/state", "offline\n");
    stage_close(&stage);
}

static void test_a_handle_does_what_it_was_opened_for(void **state)
{
    struct memplug_attr_handle handle;
    struct memplug_reason reason;
    struct attr_stage stage;
    char text[64];

    (void)state;
    stage_open(&stage, FAKE_SMALL, 1);
    stage_add(&stage, stage.world.backing_a, 0, 2, 1, 0);
    assert_int_equal(memplug_attr_open(&stage.tree, M "memory2/state", READ, &handle), 0);
    assert_int_equal(memplug_attr_write(&handle, "online", 6, NULL, &reason), -EBADF);
    world_blames(&reason, EBADF, "not open for writing");
    assert_int_equal(memplug_attr_read(&handle, text, sizeof(text)), 8);
    assert_int_equal(memplug_attr_open(&stage.tree, M "memory2/state", WRITE, &handle), 0);
    assert_int_equal(memplug_attr_read(&handle, text, sizeof(text)), -EBADF);
    assert_int_equal(memplug_attr_write(&handle, "online", 6, NULL, &reason), 6);
    assert_int_equal(memplug_attr_write(&handle, "offline", 7, NULL, NULL), 7);
    stage_close(&stage);
}

static void test_init_wants_the_pool_s_configuration(void **state)
{
    static const uint32_t stop;
    struct memplug_limit limit = {.stop = &stop};
    struct memplug_config pool_config = {.nr_nodes = 2};
    struct memplug_attr_config config = {.pool_config = &pool_config};
    struct memplug_attr tree;
    struct attr_stage stage;

    (void)state;
    stage_open(&stage, FAKE_SMALL, 2);
    pool_config.host = fault_host(stage.world.fault);
    config.pool = stage.world.pool;
    for (unsigned nr_nodes = 0; nr_nodes < 66; nr_nodes++) {
        pool_config.nr_nodes = nr_nodes;
        if (nr_nodes != 2)
            assert_int_equal(memplug_attr_init(&tree, &config), -EINVAL);
    }
    pool_config.nr_nodes = 2;
    config.limit = &limit;
    assert_int_equal(memplug_attr_init(&tree, &config), -EINVAL);
    config.limit = NULL;
    assert_int_equal(memplug_attr_init(&tree, &config), 0);
    assert_int_equal(memplug_attr_fini(&tree), 0);
    assert_int_equal(memplug_attr_fini(&tree), -ENOENT);
    stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_answers_as_the_kernel),
        cmocka_unit_test(test_listings),
        cmocka_unit_test(test_everything_listed_is_there_and_in_the_manual),
        cmocka_unit_test(test_a_handle_does_not_outlive_its_block),
        cmocka_unit_test(test_a_handle_does_what_it_was_opened_for),
        cmocka_unit_test(test_init_wants_the_pool_s_configuration),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
