/* SPDX-License-Identifier: MIT */
/* memplug: what the kernel has no file for. A line is a record, words are divided by blanks. */
#include "tree.h"

#include <errno.h>

/* --- ranges ----------------------------------------------------------------------------------- */

/* The blocks next to this one that are there and were made by the same add. */
int mpl_attr_range(const struct memplug_attr *attr, uint64_t block, struct mpl_attr_range *range)
{
    struct memplug_block_info own, other;
    uint64_t end = block + 1;

    if (mpl_attr_block(attr, block, &own) != 0)
        return -ENOENT;
    range->first = block;
    range->info = own;
    while (range->first > 0 && mpl_attr_block(attr, range->first - 1, &other) == 0 &&
           other.serial == own.serial) {
        range->first--;
        range->info = other;
    }
    while (end < memplug_nr_blocks_max(attr->pool) && mpl_attr_block(attr, end, &other) == 0 &&
           other.serial == own.serial)
        end++;
    range->nr_blocks = end - range->first;
    return 0;
}

static void put_hex(struct mpl_attr_text *text, uint64_t number)
{
    mpl_attr_put(text, "0x");
    mpl_attr_put_number(text, number, 16, 0, ' ');
}

static void put_word(struct mpl_attr_text *text, const char *name, uint64_t number)
{
    mpl_attr_put(text, " ");
    mpl_attr_put(text, name);
    mpl_attr_put(text, " ");
    mpl_attr_put_number(text, number, 10, 0, ' ');
}

static const char *const memmap_names[] = {
    [MEMPLUG_MEMMAP_AUTO] = "auto",
    [MEMPLUG_MEMMAP_BLOCK] = "block",
    [MEMPLUG_MEMMAP_RANGE] = "range",
    [MEMPLUG_MEMMAP_HOST] = "host",
};

static int show_ranges(struct mpl_attr_call *call)
{
    struct mpl_attr_range range = {.nr_blocks = 0};
    uint64_t block = 0;

    while (block < memplug_nr_blocks_max(call->attr->pool)) {
        uint64_t end;

        if (mpl_attr_range(call->attr, block++, &range) != 0)
            continue;
        end = range.first + range.nr_blocks;
        put_hex(call->text, range.info.address);
        mpl_attr_put(call->text, "-");
        put_hex(call->text, range.info.address + range.nr_blocks * range.info.size_bytes - 1);
        put_word(call->text, "first", range.first);
        put_word(call->text, "blocks", range.nr_blocks);
        put_word(call->text, "node", (uint64_t)range.info.node);
        mpl_attr_put(call->text, " memmap ");
        mpl_attr_put(call->text, memmap_names[range.info.memmap]);
        put_word(call->text, "group", (uint64_t)range.info.group);
        put_word(call->text, "boot", range.info.early);
        mpl_attr_put(call->text, "\n");
        block = end > block ? end : block;
    }
    return 0;
}

/* --- groups ----------------------------------------------------------------------------------- */

#define NR_GROUPS_MAX 1024

static int show_groups(struct mpl_attr_call *call)
{
    for (int group = 1; group <= NR_GROUPS_MAX; group++) {
        struct memplug_group_info info;

        if (memplug_group_info(call->attr->pool, group, &info) != 0)
            continue;
        mpl_attr_put_number(call->text, (uint64_t)group, 10, 0, ' ');
        mpl_attr_put(call->text, info.group.dynamic ? " dynamic" : " static");
        put_word(call->text, "node", (uint64_t)info.group.node);
        put_word(call->text, "pages", info.group.nr_pages);
        put_word(call->text, "blocks", info.nr_blocks);
        put_word(call->text, "kernel", info.nr_present_kernel_pages);
        put_word(call->text, "movable", info.nr_present_movable_pages);
        mpl_attr_put(call->text, "\n");
    }
    return 0;
}

/* --- what is going on ------------------------------------------------------------------------- */

static int show_events(struct mpl_attr_call *call)
{
    mpl_attr_put_events(call->attr, call->text);
    return 0;
}

static int show_progress(struct mpl_attr_call *call)
{
    mpl_attr_put_runs(call->attr, call->text);
    return 0;
}

static int store_cancel(struct mpl_attr_call *call)
{
    bool value;
    int error = mpl_attr_bool(call->word, &value);

    if (error != 0)
        return mpl_attr_refuse(call, error, "not a boolean", "write 1 to end what is running");
    if (value && mpl_attr_cancel_runs(call->attr, call->limit->stop) == 0)
        return mpl_attr_refuse(call, -ESRCH, "no write is running that could be ended", NULL);
    return 0;
}

static int show_movable_node(struct mpl_attr_call *call)
{
    struct memplug_policy policy;

    memplug_policy_get(call->attr->pool, &policy);
    return mpl_attr_put_bool(call, policy.movable_node);
}

static int store_movable_node(struct mpl_attr_call *call)
{
    struct memplug_policy policy = {.online = MEMPLUG_POLICY_CONTIG_ZONES};
    int error = mpl_attr_get_bool(call, &policy.movable_node);

    return error != 0 ? error : mpl_attr_policy(call, &policy, MEMPLUG_POLICY_MOVABLE_NODE);
}

/* --- figures ---------------------------------------------------------------------------------- */

static int show_stat(struct mpl_attr_call *call)
{
    struct memplug_stat stat;

    memplug_stat(call->attr->pool, &stat);
    mpl_attr_put_pair(call->text, "nr_blocks", stat.nr_blocks);
    mpl_attr_put_pair(call->text, "nr_online_blocks", stat.nr_online_blocks);
    mpl_attr_put_pair(call->text, "nr_present_pages", stat.nr_present_pages);
    mpl_attr_put_pair(call->text, "nr_managed_pages", stat.nr_managed_pages);
    mpl_attr_put_pair(call->text, "nr_free_pages", stat.nr_free_pages);
    mpl_attr_put_pair(call->text, "nr_memmap_pages", stat.nr_memmap_pages);
    mpl_attr_put_pair(call->text, "block_bytes", stat.block_bytes);
    mpl_attr_put_pair(call->text, "host_bytes", stat.host_bytes);
    mpl_attr_put_pair(call->text, "preexisting_bytes", stat.preexisting_bytes);
    mpl_attr_put_pair(call->text, "nr_moved_pages", stat.nr_moved_pages);
    mpl_attr_put_pair(call->text, "nr_poisoned_pages", stat.nr_poisoned_pages);
    return 0;
}

/* --- a block ---------------------------------------------------------------------------------- */

static int show_block_stat(struct mpl_attr_call *call)
{
    struct memplug_block_info info;
    int error = mpl_attr_info(call, &info);

    if (error != 0)
        return error;
    mpl_attr_put(call->text, "zone ");
    mpl_attr_put(call->text,
                 info.zone < MEMPLUG_NR_ZONES ? mpl_attr_zone_names[info.zone] : "none");
    mpl_attr_put(call->text, "\nmemmap ");
    mpl_attr_put(call->text, memmap_names[info.memmap]);
    mpl_attr_put(call->text, "\naddress ");
    put_hex(call->text, info.address);
    mpl_attr_put(call->text, "\n");
    mpl_attr_put_pair(call->text, "unit_first", info.unit_first);
    mpl_attr_put_pair(call->text, "unit_nr_blocks", info.unit_nr_blocks);
    mpl_attr_put_pair(call->text, "nr_memmap_pages", info.nr_memmap_pages);
    mpl_attr_put_pair(call->text, "nr_managed_pages", info.nr_managed_pages);
    mpl_attr_put_pair(call->text, "nr_free_pages", info.nr_free_pages);
    mpl_attr_put_pair(call->text, "nr_isolated_pageblocks", info.nr_isolated_pageblocks);
    mpl_attr_put_pair(call->text, "nr_absent_pages", info.nr_absent_pages);
    mpl_attr_put_pair(call->text, "nr_poisoned_pages", info.nr_poisoned_pages);
    mpl_attr_put_pair(call->text, "group", (uint64_t)info.group);
    mpl_attr_put_pair(call->text, "boot", info.early);
    return 0;
}

static const struct mpl_attr_entry in_block[] = {
    {.name = "frames", .mode = 0444, .show = mpl_attr_show_frames},
    {.name = "reason", .mode = 0444, .show = mpl_attr_show_reason},
    {.name = "stat", .mode = 0444, .show = show_block_stat},
    {.name = "why", .mode = 0444, .show = mpl_attr_show_why},
};
static const struct mpl_attr_dir block_dir = {
    .entries = in_block,
    .nr_entries = MPL_ATTR_COUNT(in_block),
};
static const struct mpl_attr_family of_blocks[] = {
    {.prefix = "",
     .suffix = "",
     .dir = &block_dir,
     .find = mpl_attr_find_block,
     .next = mpl_attr_next_block},
};
static const struct mpl_attr_dir blocks_dir = {
    .families = of_blocks,
    .nr_families = MPL_ATTR_COUNT(of_blocks),
};

/* --- zones ------------------------------------------------------------------------------------ */

static int put_zone(struct mpl_attr_call *call,
                    uint64_t (*figure)(const struct memplug_zone_info *info))
{
    struct memplug_zone_info info;
    int error = memplug_zone_info(call->attr->pool, call->place->node,
                                  (enum memplug_zone)call->place->index, &info);

    if (error != 0)
        return error;
    mpl_attr_put_number(call->text, figure(&info), 10, 0, ' ');
    mpl_attr_put(call->text, "\n");
    return 0;
}

static uint64_t start_of(const struct memplug_zone_info *info)
{
    return info->start.nr;
}

static uint64_t spanned_of(const struct memplug_zone_info *info)
{
    return info->nr_spanned_pages;
}

static uint64_t present_of(const struct memplug_zone_info *info)
{
    return info->nr_present_pages;
}

static uint64_t managed_of(const struct memplug_zone_info *info)
{
    return info->nr_managed_pages;
}

static uint64_t free_of(const struct memplug_zone_info *info)
{
    return info->nr_free_pages;
}

static int show_start(struct mpl_attr_call *call)
{
    return put_zone(call, start_of);
}

static int show_spanned(struct mpl_attr_call *call)
{
    return put_zone(call, spanned_of);
}

static int show_present(struct mpl_attr_call *call)
{
    return put_zone(call, present_of);
}

static int show_managed(struct mpl_attr_call *call)
{
    return put_zone(call, managed_of);
}

static int show_free(struct mpl_attr_call *call)
{
    return put_zone(call, free_of);
}

static const struct mpl_attr_entry in_zone[] = {
    {.name = "free", .mode = 0444, .show = show_free},
    {.name = "managed", .mode = 0444, .show = show_managed},
    {.name = "present", .mode = 0444, .show = show_present},
    {.name = "spanned", .mode = 0444, .show = show_spanned},
    {.name = "start_pfn", .mode = 0444, .show = show_start},
};
static const struct mpl_attr_dir zone_dir = {
    .entries = in_zone,
    .nr_entries = MPL_ATTR_COUNT(in_zone),
};
static const struct mpl_attr_entry in_node_zones[] = {
    {.name = "DMA", .mode = 0755, .index = MEMPLUG_ZONE_DMA, .dir = &zone_dir},
    {.name = "DMA32", .mode = 0755, .index = MEMPLUG_ZONE_DMA32, .dir = &zone_dir},
    {.name = "Movable", .mode = 0755, .index = MEMPLUG_ZONE_MOVABLE, .dir = &zone_dir},
    {.name = "Normal", .mode = 0755, .index = MEMPLUG_ZONE_NORMAL, .dir = &zone_dir},
};
static const struct mpl_attr_dir node_zones_dir = {
    .entries = in_node_zones,
    .nr_entries = MPL_ATTR_COUNT(in_node_zones),
};

/* A possible node has its zones, empty ones too. */
static int find_node(const struct memplug_attr *attr, uint64_t node,
                     struct memplug_attr_place *place)
{
    place->node = (int)node;
    return node < attr->nr_nodes ? 0 : -ENOENT;
}

static uint64_t next_node(const struct memplug_attr *attr, const struct memplug_attr_place *place,
                          uint64_t node)
{
    (void)place;
    return node < attr->nr_nodes ? node : MPL_ATTR_NONE;
}

static const struct mpl_attr_family of_zones[] = {
    {.prefix = "", .suffix = "", .dir = &node_zones_dir, .find = find_node, .next = next_node},
};
static const struct mpl_attr_dir zones_dir = {
    .families = of_zones,
    .nr_families = MPL_ATTR_COUNT(of_zones),
};

static const struct mpl_attr_entry in_own[] = {
    {.name = "blocks", .mode = 0755, .dir = &blocks_dir},
    {.name = "cancel", .mode = 0200, .store = store_cancel},
    {.name = "events", .mode = 0444, .show = show_events},
    {.name = "groups", .mode = 0444, .show = show_groups},
    {.name = "host", .mode = 0755, .dir = &mpl_attr_host_dir},
    {.name = "movable_node",
     .mode = 0644,
     .show = show_movable_node,
     .store = store_movable_node},
    {.name = "offline", .mode = 0200, .store = mpl_attr_store_offline},
    {.name = "online", .mode = 0200, .store = mpl_attr_store_online},
    {.name = "progress", .mode = 0444, .show = show_progress},
    {.name = "ranges", .mode = 0444, .show = show_ranges},
    {.name = "remove", .mode = 0200, .store = mpl_attr_store_remove},
    {.name = "stat", .mode = 0444, .show = show_stat},
    {.name = "zones", .mode = 0755, .dir = &zones_dir},
};
const struct mpl_attr_dir mpl_attr_own_dir = {
    .entries = in_own,
    .nr_entries = MPL_ATTR_COUNT(in_own),
};
