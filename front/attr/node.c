/* SPDX-License-Identifier: MIT */
/* devices/system/node: the masks, and a directory for each node that is online. */
#include "tree.h"

#include <errno.h>

/* --- masks ------------------------------------------------------------------------------------ */

/* As the kernel prints bitmaps: "0-1,3", and an empty line for none. */
static int put_mask(struct mpl_attr_call *call, uint64_t mask)
{
    const char *before = "";

    for (unsigned node = 0; node < 64; node++) {
        unsigned first = node;

        if ((mask >> node & 1) == 0)
            continue;
        while (node < 63 && (mask >> (node + 1) & 1) != 0)
            node++;
        mpl_attr_put(call->text, before);
        mpl_attr_put_number(call->text, first, 10, 0, ' ');
        if (node > first) {
            mpl_attr_put(call->text, "-");
            mpl_attr_put_number(call->text, node, 10, 0, ' ');
        }
        before = ",";
    }
    mpl_attr_put(call->text, "\n");
    return 0;
}

static uint64_t possible(const struct memplug_attr *attr)
{
    return UINT64_MAX >> (64 - attr->nr_nodes);
}

static bool has_online(const struct memplug_node_info *info)
{
    return info->online;
}

static bool has_memory(const struct memplug_node_info *info)
{
    return info->has_memory;
}

static bool has_normal_memory(const struct memplug_node_info *info)
{
    return info->has_normal_memory;
}

static int put_nodes(struct mpl_attr_call *call, bool (*has)(const struct memplug_node_info *info))
{
    uint64_t mask = 0;

    for (unsigned node = 0; node < call->attr->nr_nodes; node++) {
        struct memplug_node_info info;

        if (memplug_node_info(call->attr->pool, (int)node, &info) == 0 && has(&info))
            mask |= (uint64_t)1 << node;
    }
    return put_mask(call, mask);
}

static int show_possible(struct mpl_attr_call *call)
{
    return put_mask(call, possible(call->attr));
}

static int show_online(struct mpl_attr_call *call)
{
    return put_nodes(call, has_online);
}

static int show_has_memory(struct mpl_attr_call *call)
{
    return put_nodes(call, has_memory);
}

static int show_has_normal_memory(struct mpl_attr_call *call)
{
    return put_nodes(call, has_normal_memory);
}

static int show_has_cpu(struct mpl_attr_call *call)
{
    return put_mask(call, call->attr->cpu_nodes & possible(call->attr));
}

/* --- a node ----------------------------------------------------------------------------------- */

/* name and number stand in columns: the number ends in the same one for all names. */
static void put_line(struct mpl_attr_call *call, const char *name, uint64_t number,
                     unsigned width, const char *unit)
{
    mpl_attr_put(call->text, "Node ");
    mpl_attr_put_number(call->text, (uint64_t)call->place->node, 10, 0, ' ');
    mpl_attr_put(call->text, name);
    mpl_attr_put_number(call->text, number, 10, width, ' ');
    mpl_attr_put(call->text, unit);
}

/* The lines that a pool can answer for: it knows nothing of caches and of who uses what. */
static int show_meminfo(struct mpl_attr_call *call)
{
    unsigned to_kib = call->attr->host.geometry.page_shift - 10u;
    uint64_t nr_managed = 0, nr_free = 0;
    struct memplug_huge_info huge;
    int error;

    for (unsigned zone = 0; zone < MEMPLUG_NR_ZONES; zone++) {
        struct memplug_zone_info info;

        error = memplug_zone_info(call->attr->pool, call->place->node, (enum memplug_zone)zone,
                                  &info);
        if (error != 0)
            return error;
        nr_managed += info.nr_managed_pages;
        nr_free += info.nr_free_pages;
    }
    error = memplug_huge_info(call->attr->pool, MEMPLUG_HUGE_PMD, call->place->node, &huge);
    if (error != 0)
        return error;
    /* Zones are read one after the other while others allocate. */
    nr_free = nr_free < nr_managed ? nr_free : nr_managed;
    put_line(call, " MemTotal:       ", nr_managed << to_kib, 8, " kB\n");
    put_line(call, " MemFree:        ", nr_free << to_kib, 8, " kB\n");
    put_line(call, " MemUsed:        ", (nr_managed - nr_free) << to_kib, 8, " kB\n");
    put_line(call, " HugePages_Total: ", huge.nr_huge, 5, "\n");
    put_line(call, " HugePages_Free:  ", huge.nr_free, 5, "\n");
    put_line(call, " HugePages_Surp:  ", huge.nr_surplus, 5, "\n");
    return 0;
}

static int find_block_of(const struct memplug_attr *attr, uint64_t block,
                         struct memplug_attr_place *place)
{
    struct memplug_block_info info;

    if (mpl_attr_block(attr, block, &info) != 0 || info.node != place->node)
        return -ENOENT;
    return mpl_attr_find_block(attr, block, place);
}

static uint64_t next_block_of(const struct memplug_attr *attr,
                              const struct memplug_attr_place *place, uint64_t block)
{
    struct memplug_block_info info;

    for (; block < memplug_nr_blocks_max(attr->pool); block++)
        if (mpl_attr_block(attr, block, &info) == 0 && info.node == place->node)
            return block;
    return MPL_ATTR_NONE;
}

static const struct mpl_attr_entry in_node_n[] = {
    {.name = "hugepages", .mode = 0755, .dir = &mpl_attr_node_hugepages_dir},
    {.name = "meminfo", .mode = 0444, .show = show_meminfo},
    {.name = "uevent",
     .mode = 0644,
     .show = mpl_attr_show_nothing,
     .store = mpl_attr_store_uevent},
};

static const struct mpl_attr_family of_node_n[] = {
    {.prefix = "memory",
     .suffix = "",
     .link = "../../memory/",
     .dir = &mpl_attr_memory_n_dir,
     .find = find_block_of,
     .next = next_block_of},
};

const struct mpl_attr_dir mpl_attr_node_n_dir = {
    .entries = in_node_n,
    .nr_entries = MPL_ATTR_COUNT(in_node_n),
    .families = of_node_n,
    .nr_families = MPL_ATTR_COUNT(of_node_n),
};

/* --- all nodes -------------------------------------------------------------------------------- */

static uint64_t next_node(const struct memplug_attr *attr, const struct memplug_attr_place *place,
                          uint64_t node)
{
    struct memplug_attr_place found = *place;

    for (; node < attr->nr_nodes; node++)
        if (mpl_attr_find_node(attr, node, &found) == 0)
            return node;
    return MPL_ATTR_NONE;
}

static const struct mpl_attr_entry in_node[] = {
    {.name = "has_cpu", .mode = 0444, .show = show_has_cpu},
    {.name = "has_memory", .mode = 0444, .show = show_has_memory},
    {.name = "has_normal_memory", .mode = 0444, .show = show_has_normal_memory},
    {.name = "online", .mode = 0444, .show = show_online},
    {.name = "possible", .mode = 0444, .show = show_possible},
};

static const struct mpl_attr_family of_node[] = {
    {.prefix = "node",
     .suffix = "",
     .dir = &mpl_attr_node_n_dir,
     .find = mpl_attr_find_node,
     .next = next_node},
};

const struct mpl_attr_dir mpl_attr_node_dir = {
    .entries = in_node,
    .nr_entries = MPL_ATTR_COUNT(in_node),
    .families = of_node,
    .nr_families = MPL_ATTR_COUNT(of_node),
};
