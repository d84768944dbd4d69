/* SPDX-License-Identifier: MIT */
/* The pool of the process, with its ranges and policies. memplug run opens one too, to look whether
 * that will do. */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCK_BYTES (128ull << 20)
#define WINDOW_BYTES (512ull << 30) /* 4,096 blocks */

struct mpl_preload mpl_preload;

/* --- ranges ----------------------------------------------------------------------------------- */

static bool say_no(const char *what, const char *path, int error, const char *why)
{
    struct memplug_reason reason = MPL_NO_REASON;
    struct mpl_line line = {.length = 0};

    reason.error = error;
    reason.why = why;
    mpl_line_add(&line, what);
    mpl_line_add(&line, path);
    line.text[line.length] = 0;
    mpl_say_reason(line.text, &reason);
    return false;
}

static bool open_backing(const struct mpl_spec *spec, void **backing, uint64_t *size_bytes)
{
    bool file = spec->kind == MEMPLUG_BACKING_FILE || spec->kind == MEMPLUG_BACKING_DAX;
    struct memplug_backing_spec wanted = {.kind = spec->kind, .fd = -1};
    struct memplug_reason reason = MPL_NO_REASON;
    int result;

    if (file) {
        wanted.fd = (int)syscall(SYS_openat, AT_FDCWD, spec->path, O_RDWR | O_CLOEXEC, 0);
        if (wanted.fd < 0)
            return say_no("a range cannot be opened: ", spec->path, -errno, "open");
    }
    if (file && spec->size_bytes == 0) {
        off_t end = lseek(wanted.fd, 0, SEEK_END);
        uint64_t all = end > 0 ? (uint64_t)end : 0;

        *size_bytes = all > spec->offset_bytes ? all - spec->offset_bytes : 0;
    } else {
        *size_bytes = spec->size_bytes;
    }
    *size_bytes -= *size_bytes % mpl_preload.block_bytes;
    wanted.size_bytes = file ? spec->offset_bytes + *size_bytes : *size_bytes;
    result = memplug_linux_backing_open(mpl_preload.host, &wanted, backing, &reason);
    if (wanted.fd >= 0)
        syscall(SYS_close, wanted.fd);
    if (result != 0)
        mpl_say_reason("a range cannot be opened", &reason);
    return result == 0;
}

/* Blocks that a policy has put online already stay where they are. */
static int put_online(const struct memplug_add *range, enum memplug_online_type type,
                      struct memplug_reason *reason)
{
    uint64_t first = memplug_block_of(mpl_preload.pool, range->address);
    uint64_t nr = range->size_bytes / mpl_preload.block_bytes;
    struct memplug_block_info info;
    int result = 0;

    for (uint64_t block = first; block < first + nr && result == 0; block++)
        if (memplug_block_info(mpl_preload.pool, block, &info) == 0 &&
            info.state == MEMPLUG_BLOCK_OFFLINE)
            result = memplug_online(mpl_preload.pool, block, 1, type, NULL, reason);
    return result;
}

static bool plug(const struct mpl_spec *spec)
{
    struct memplug_add range = {
        .address = MEMPLUG_ANY_ADDRESS,
        .node = spec->node,
        .memmap = spec->memmap,
        .offset_bytes = spec->offset_bytes,
    };
    struct memplug_reason reason;
    int result;

    if (!open_backing(spec, &range.backing, &range.size_bytes))
        return false;
    result = memplug_add(mpl_preload.pool, &range, NULL, &reason);
    if (result == 0) {
        result = put_online(&range, spec->online, &reason);
        if (result != 0)
            memplug_offline_and_remove(mpl_preload.pool, range.address, range.size_bytes, NULL,
                                       NULL);
    }
    memplug_linux_backing_close(mpl_preload.host, range.backing);
    if (result != 0)
        mpl_say_reason("a range cannot be plugged in", &reason);
    return result == 0;
}

static bool plug_all(const struct mpl_pre_config *config)
{
    struct mpl_text rest = config->text, value;
    struct mpl_spec spec;
    const char *why;

    while (mpl_pre_config_next(&rest, "range", &value))
        if (!mpl_spec_parse(value, &spec, &why) || !plug(&spec))
            return false;
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
    struct mpl_text rest = config->text, value;
    uint64_t bytes = config->nr_ranges == 0 ? config->limit_bytes : 0;
    struct mpl_spec spec;
    const char *why;

    while (config->nr_ranges > 0 && mpl_pre_config_next(&rest, "range", &value))
        if (mpl_spec_parse(value, &spec, &why))
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

static bool open_pool(const struct mpl_pre_config *config, struct memplug_reason *reason)
{
    struct memplug_config pool = {.nr_nodes = (unsigned)config->nr_nodes};
    struct memplug_attr_config attr = {.pool_config = &pool};
    struct memplug_linux_config window;
    uint64_t metadata_bytes;
    void *metadata;

    choose_window(config, &window);
    if (memplug_linux_open(&window, &mpl_preload.host, reason) != 0)
        return false;
    pool.host = memplug_linux_host(mpl_preload.host);
    mpl_preload.block_bytes = 1ull << pool.host->geometry.block_shift;
    mpl_preload.page_bytes = 1ull << pool.host->geometry.page_shift;
    metadata_bytes = memplug_metadata_bytes(&pool);
    reason->why = "no memory for the pool's metadata";
    reason->error = memplug_linux_metadata(mpl_preload.host, metadata_bytes, &metadata);
    if (reason->error != 0 ||
        memplug_open(&pool, metadata, metadata_bytes, &mpl_preload.pool, reason) != 0)
        return false;
    attr.pool = mpl_preload.pool;
    return memplug_attr_init(&mpl_preload.attr, &attr) == 0;
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
    if (reason->why && !config->checked)
        mpl_say_reason("memory of this program cannot be moved", reason);
    return true;
}

/* What can be seen of a range without taking it. */
static bool look_at_all(const struct mpl_pre_config *config)
{
    struct mpl_text rest = config->text, value;
    struct mpl_spec spec;
    uint64_t size_bytes;
    const char *why;
    void *backing;

    while (mpl_pre_config_next(&rest, "range", &value)) {
        if (!mpl_spec_parse(value, &spec, &why) || !open_backing(&spec, &backing, &size_bytes))
            return false;
        memplug_linux_backing_close(mpl_preload.host, backing);
        if (size_bytes == 0 || spec.offset_bytes % mpl_preload.page_bytes != 0)
            return say_no("a range is smaller than a block, or begins within a page: ", spec.path,
                          -EINVAL, "it must hold whole blocks of 128 MiB");
    }
    return true;
}

bool mpl_pre_open(struct mpl_pre_config *config, bool take)
{
    struct memplug_reason reason = MPL_NO_REASON;
    bool opened;

    if (config->limit_bytes == 0)
        config->limit_bytes = mpl_pre_memory_bytes();
    opened = open_pool(config, &reason) && open_space(config, &reason);
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
