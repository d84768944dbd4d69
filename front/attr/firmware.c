/* SPDX-License-Identifier: MIT */
/*
 * firmware/memory: plugged or not, with the names of s390's interface. There it shows standby
 * blocks too; a pool knows those only that are plugged, so config is 1 wherever it can be read, and
 * plugging a range in is the embedder's. firmware/memmap: the ranges that were plugged in.
 */
#include "tree.h"

#include <errno.h>

/* --- memory ----------------------------------------------------------------------------------- */

static int show_config(struct mpl_attr_call *call)
{
    mpl_attr_put(call->text, "1\n");
    return 0;
}

static int store_config(struct mpl_attr_call *call)
{
    struct memplug_block_info info;
    bool value;
    int error = mpl_attr_bool(call->word, &value);

    if (error != 0)
        return mpl_attr_refuse(call, error, "not a boolean", "write 0 to remove the block");
    if (value)
        return 0;
    error = mpl_attr_info(call, &info);
    if (error != 0)
        return mpl_attr_refuse(call, error, "the block is gone", NULL);
    return memplug_remove(call->attr->pool, info.address, info.size_bytes, call->limit,
                          call->reason);
}

static int show_own_memmap(struct mpl_attr_call *call)
{
    struct memplug_block_info info;
    int error = mpl_attr_info(call, &info);

    if (error == 0)
        mpl_attr_put(call->text, info.memmap != MEMPLUG_MEMMAP_HOST ? "1\n" : "0\n");
    return error;
}

static int store_own_memmap(struct mpl_attr_call *call)
{
    bool value;
    int error = mpl_attr_bool(call->word, &value);

    if (error != 0)
        return mpl_attr_refuse(call, error, "not a boolean", NULL);
    return mpl_attr_refuse(call, -EBUSY, "the block is plugged, with the memmap that it has",
                           "remove it and add it anew");
}

static int show_block_size(struct mpl_attr_call *call)
{
    mpl_attr_put_number(call->text, (uint64_t)1 << call->attr->host.geometry.block_shift, 16, 0,
                        ' ');
    mpl_attr_put(call->text, "\n");
    return 0;
}

static const struct mpl_attr_entry in_memory_n[] = {
    {.name = "config", .mode = 0644, .show = show_config, .store = store_config},
    {.name = "memmap_on_memory",
     .mode = 0644,
     .show = show_own_memmap,
     .store = store_own_memmap},
};
static const struct mpl_attr_dir memory_n_dir = {
    .entries = in_memory_n,
    .nr_entries = MPL_ATTR_COUNT(in_memory_n),
};
static const struct mpl_attr_entry in_memory[] = {
    {.name = "block_size_bytes", .mode = 0444, .show = show_block_size},
};
static const struct mpl_attr_family of_memory[] = {
    {.prefix = "memory",
     .suffix = "",
     .dir = &memory_n_dir,
     .find = mpl_attr_find_block,
     .next = mpl_attr_next_block},
};
static const struct mpl_attr_dir memory_dir = {
    .entries = in_memory,
    .nr_entries = MPL_ATTR_COUNT(in_memory),
    .families = of_memory,
    .nr_families = MPL_ATTR_COUNT(of_memory),
};

/* --- memmap ----------------------------------------------------------------------------------- */

/* An entry is what is left in one piece of what was added at once, and is called as its first
 * block. Boot memory is none: of a block with holes nobody tells where they are. */
static bool begins_range(const struct memplug_attr *attr, uint64_t block)
{
    struct mpl_attr_range range;

    return mpl_attr_range(attr, block, &range) == 0 && range.first == block && !range.info.early;
}

static int find_range(const struct memplug_attr *attr, uint64_t block,
                      struct memplug_attr_place *place)
{
    return begins_range(attr, block) ? mpl_attr_find_block(attr, block, place) : -ENOENT;
}

static uint64_t next_range(const struct memplug_attr *attr, const struct memplug_attr_place *place,
                           uint64_t block)
{
    (void)place;
    for (; block < memplug_nr_blocks_max(attr->pool); block++)
        if (begins_range(attr, block))
            return block;
    return MPL_ATTR_NONE;
}

static int put_address(struct mpl_attr_call *call, bool end)
{
    struct mpl_attr_range range;

    if (mpl_attr_range(call->attr, call->place->block, &range) != 0 ||
        range.info.serial != call->place->serial || range.first != call->place->block)
        return -ENODEV;
    mpl_attr_put(call->text, "0x");
    mpl_attr_put_number(call->text,
                        end ? range.info.address + range.nr_blocks * range.info.size_bytes - 1
                            : range.info.address,
                        16, 0, ' ');
    mpl_attr_put(call->text, "\n");
    return 0;
}

static int show_start(struct mpl_attr_call *call)
{
    return put_address(call, false);
}

static int show_end(struct mpl_attr_call *call)
{
    return put_address(call, true);
}

static int show_type(struct mpl_attr_call *call)
{
    mpl_attr_put(call->text, "System RAM\n");
    return 0;
}

static const struct mpl_attr_entry in_range[] = {
    {.name = "end", .mode = 0444, .show = show_end},
    {.name = "start", .mode = 0444, .show = show_start},
    {.name = "type", .mode = 0444, .show = show_type},
};
static const struct mpl_attr_dir range_dir = {
    .entries = in_range,
    .nr_entries = MPL_ATTR_COUNT(in_range),
};
static const struct mpl_attr_family of_memmap[] = {
    {.prefix = "", .suffix = "", .dir = &range_dir, .find = find_range, .next = next_range},
};
static const struct mpl_attr_dir memmap_dir = {
    .families = of_memmap,
    .nr_families = MPL_ATTR_COUNT(of_memmap),
};

static const struct mpl_attr_entry in_firmware[] = {
    {.name = "memmap", .mode = 0755, .dir = &memmap_dir},
    {.name = "memory", .mode = 0755, .dir = &memory_dir},
};
const struct mpl_attr_dir mpl_attr_firmware_dir = {
    .entries = in_firmware,
    .nr_entries = MPL_ATTR_COUNT(in_firmware),
};
