/* SPDX-License-Identifier: MIT */
/* The pool of the process, with its ranges and policies. memplug run opens one too, to look whether
 * that will do. */
#define _GNU_SOURCE
#include "preload.h"

#include <sys/resource.h>

#define BLOCK_BYTES (128ull << 20)
#define WINDOW_BYTES (512ull << 30) /* 4,096 blocks */

struct mpl_preload mpl_preload;

/* --- ranges ----------------------------------------------------------------------------------- */

static bool next_range(struct mpl_text *rest, struct memplug_range_spec *spec)
{
    struct memplug_reason reason = MPL_NO_REASON;
    struct mpl_text value;

    return mpl_pre_config_next(rest, "range", &value) &&
           memplug_range_parse(value.start, value.length, spec, &reason) == 0;
}

static bool say_no(const struct memplug_range_spec *spec, const struct memplug_reason *reason)
{
    struct mpl_line line = {.length = 0};

    mpl_line_add(&line, "no such memory for this program: ");
    mpl_line_add(&line, spec->path);
    line.text[line.length] = 0;
    mpl_say_reason(line.text, reason);
    return false;
}

static bool plug_all(const struct mpl_pre_config *config)
{
    struct mpl_text rest = config->text;
    struct memplug_range_spec spec;
    struct memplug_add add;

    while (next_range(&rest, &spec)) {
        struct memplug_reason reason = MPL_NO_REASON;

        if (memplug_range_plug(mpl_preload.host, mpl_preload.pool, &spec, &add, NULL, &reason) != 0)
            return say_no(&spec, &reason);
    }
    return true;
}

/* Opened and closed again: nothing is taken yet. */
static bool look_at_all(const struct mpl_pre_config *config)
{
    struct mpl_text rest = config->text;
    struct memplug_range_spec spec;
    struct memplug_add add;

    while (next_range(&rest, &spec)) {
        struct memplug_reason reason = MPL_NO_REASON;

        if (memplug_range_open(mpl_preload.host, &spec, &add, &reason) != 0)
            return say_no(&spec, &reason);
        memplug_linux_backing_close(mpl_preload.host, add.backing);
    }
    return true;
}

/* --- policies --------------------------------------------------------------------------------- */

/* memmap_on_memory and its kind, auto_online_blocks, movable_node. */
static bool set_policy(struct mpl_text name, struct mpl_text value, struct memplug_reason *reason)
{
    static const char *const folders[] = {"module/memory_hotplug/parameters/",
                                          "devices/system/memory/", "memplug/"};

    for (unsigned i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        struct memplug_attr_item item;
        struct mpl_line path = {.length = 0};

        mpl_line_add(&path, folders[i]);
        mpl_line_add_text(&path, name);
        path.text[path.length] = 0;
        if (memplug_attr_stat(&mpl_preload.attr, path.text, &item) == 0)
            return memplug_attr_set(&mpl_preload.attr, path.text, value.start, value.length, NULL,
                                    reason) >= 0;
    }
    reason->why = "there is no such parameter";
    return false;
}

static bool set_policies(const struct mpl_pre_config *config)
{
    struct mpl_text rest = config->text, pair, name, value;

    while (mpl_pre_config_next(&rest, "policy", &pair)) {
        struct memplug_reason reason = MPL_NO_REASON;
        struct mpl_line line = {.length = 0};

        if (mpl_text_pair(pair, &name, &value) && set_policy(name, value, &reason))
            continue;
        mpl_line_add(&line, "the policy ");
        mpl_line_add_text(&line, pair);
        mpl_line_add(&line, " was refused: ");
        mpl_line_add(&line, reason.why ? reason.why : "it does not take this value");
        mpl_say(&line);
        return false;
    }
    return true;
}

/* --- open ------------------------------------------------------------------------------------- */

static uint64_t wanted_bytes(const struct mpl_pre_config *config)
{
    uint64_t bytes = config->nr_ranges == 0 ? config->limit_bytes : 0;
    struct mpl_text rest = config->text;
    struct memplug_range_spec spec;

    while (config->nr_ranges > 0 && next_range(&rest, &spec))
        bytes += spec.size_bytes;
    return bytes;
}

/* Room for as much again, so that all of it can be replaced. Blocks are of 128 MiB as long as
 * 4,096 of them do, and the host finds what RLIMIT_AS leaves. */
static void choose_window(const struct mpl_pre_config *config, struct memplug_linux_config *window)
{
    struct rlimit limit;
    uint64_t bytes = WINDOW_BYTES;

    *window = (struct memplug_linux_config){.block_bytes = BLOCK_BYTES};
    while (bytes < 4 * wanted_bytes(config) && bytes < WINDOW_BYTES << 6)
        bytes *= 2;
    if (bytes > WINDOW_BYTES && getrlimit(RLIMIT_AS, &limit) == 0 &&
        limit.rlim_cur == RLIM_INFINITY)
        *window = (struct memplug_linux_config){.window_bytes = bytes};
}

static bool open_pool(const struct mpl_pre_config *config, struct memplug_config *pool,
                      struct memplug_reason *reason)
{
    struct memplug_linux_config window;
    uint64_t metadata_bytes;
    void *metadata;

    choose_window(config, &window);
    if (memplug_linux_open(&window, &mpl_preload.host, reason) != 0)
        return false;
    pool->nr_nodes = (unsigned)config->nr_nodes;
    pool->host = memplug_linux_host(mpl_preload.host);
    mpl_preload.block_bytes = 1ull << pool->host->geometry.block_shift;
    mpl_preload.page_bytes = 1ull << pool->host->geometry.page_shift;
    metadata_bytes = memplug_metadata_bytes(pool);
    reason->why = "no memory for the pool's metadata";
    reason->error = memplug_linux_metadata(mpl_preload.host, metadata_bytes, &metadata);
    return reason->error == 0 &&
           memplug_open(pool, metadata, metadata_bytes, &mpl_preload.pool, reason) == 0;
}

static bool open_space(const struct mpl_pre_config *config, struct memplug_reason *reason)
{
    const struct memplug_space_config wanted = {
        .node = MEMPLUG_ANY_NODE,
        .pins = config->pins,
        .uffd_device_fd = config->uffd,
    };

    if (memplug_space_open(mpl_preload.host, mpl_preload.pool, &wanted, &mpl_preload.space,
                           reason) != 0)
        return false;
    mpl_preload.lazy = config->lazy;
    if (reason->why && !config->checked)
        mpl_say_reason("memory of this program cannot be moved", reason);
    return true;
}

static bool open_tree(const struct memplug_config *pool, struct memplug_reason *reason)
{
    const struct memplug_attr_config attr = {
        .pool = mpl_preload.pool,
        .pool_config = pool,
        .files = mpl_preload.files.files,
        .nr_files = MEMPLUG_RANGE_NR_FILES,
    };

    memplug_range_files(&mpl_preload.files, mpl_preload.host, mpl_preload.pool,
                        mpl_preload.space);
    reason->why = "no attribute tree";
    reason->error = memplug_attr_init(&mpl_preload.attr, &attr);
    return reason->error == 0;
}

bool mpl_pre_open(struct mpl_pre_config *config, bool take)
{
    struct memplug_reason reason = MPL_NO_REASON;
    struct memplug_config pool = {.nr_nodes = 1};
    bool opened;

    if (config->limit_bytes == 0)
        config->limit_bytes = mpl_pre_memory_bytes();
    opened = open_pool(config, &pool, &reason) && open_space(config, &reason) &&
             open_tree(&pool, &reason);
    if (opened && config->nr_ranges == 0)
        opened = mpl_pre_grow_open(config->limit_bytes, &reason) == 0;
    if (!opened) {
        mpl_say_reason("no pool for this program", &reason);
        return false;
    }
    if (!set_policies(config))
        return false;
    return config->nr_ranges == 0 || (take ? plug_all(config) : look_at_all(config));
}
