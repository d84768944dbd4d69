/* SPDX-License-Identifier: MIT */
/* devices/system/memory (linux semantics, 3). */
#include "tree.h"

#include <errno.h>

/* --- words ------------------------------------------------------------------------------------ */

static const char *const online_words[] = {
    [MEMPLUG_AUTO_OFFLINE] = "offline",
    [MEMPLUG_AUTO_ONLINE] = "online",
    [MEMPLUG_AUTO_KERNEL] = "online_kernel",
    [MEMPLUG_AUTO_MOVABLE] = "online_movable",
};

static int parse_online(struct mpl_attr_call *call)
{
    int word = mpl_attr_choice(call->word, online_words, MPL_ATTR_COUNT(online_words));

    if (word < 0)
        return mpl_attr_refuse(call, word, "not a word that this file takes",
                               "write online, online_kernel, online_movable or offline");
    return word;
}

/* --- a block ---------------------------------------------------------------------------------- */

static int show_state(struct mpl_attr_call *call)
{
    struct memplug_block_info info;
    int error = mpl_attr_info(call, &info);

    if (error != 0)
        return error;
    mpl_attr_put(call->text, info.state == MEMPLUG_BLOCK_ONLINE          ? "online\n"
                             : info.state == MEMPLUG_BLOCK_GOING_OFFLINE ? "going-offline\n"
                                                                         : "offline\n");
    return 0;
}

static int change(struct mpl_attr_call *call, enum memplug_auto_online word)
{
    static const enum memplug_online_type types[] = {
        [MEMPLUG_AUTO_ONLINE] = MEMPLUG_ONLINE_DEFAULT,
        [MEMPLUG_AUTO_KERNEL] = MEMPLUG_ONLINE_KERNEL,
        [MEMPLUG_AUTO_MOVABLE] = MEMPLUG_ONLINE_MOVABLE,
    };
    struct memplug *pool = call->attr->pool;

    if (word == MEMPLUG_AUTO_OFFLINE)
        return memplug_offline(pool, call->place->block, 1, call->limit, call->reason);
    return memplug_online(pool, call->place->block, 1, types[word], call->limit, call->reason);
}

static int store_state(struct mpl_attr_call *call)
{
    int word = parse_online(call);

    return word < 0 ? word : change(call, (enum memplug_auto_online)word);
}

static bool is_online(const struct memplug_block_info *info)
{
    return info->state == MEMPLUG_BLOCK_ONLINE || info->state == MEMPLUG_BLOCK_GOING_OFFLINE;
}

static int show_online(struct mpl_attr_call *call)
{
    struct memplug_block_info info;
    int error = mpl_attr_info(call, &info);

    if (error == 0)
        mpl_attr_put(call->text, is_online(&info) ? "1\n" : "0\n");
    return error;
}

/* The present value is a success, also if somebody else has made it so while this one waited. */
static int store_online(struct mpl_attr_call *call)
{
    enum memplug_block_state wanted;
    struct memplug_block_info info;
    bool value;
    int error = mpl_attr_bool(call->word, &value);

    if (error != 0)
        return mpl_attr_refuse(call, error, "not a boolean", "write 1 or 0");
    wanted = value ? MEMPLUG_BLOCK_ONLINE : MEMPLUG_BLOCK_OFFLINE;
    error = change(call, value ? MEMPLUG_AUTO_ONLINE : MEMPLUG_AUTO_OFFLINE);
    if (error == -EINVAL && mpl_attr_info(call, &info) == 0 && info.state == wanted)
        return 0;
    return error;
}

static int show_valid_zones(struct mpl_attr_call *call)
{
    enum memplug_zone zones[2];
    int nr = memplug_block_zones(call->attr->pool, call->place->block, zones);

    if (nr < 0)
        return nr;
    for (int i = 0; i < nr; i++) {
        mpl_attr_put(call->text, i > 0 ? " " : "");
        mpl_attr_put(call->text, mpl_attr_zone_names[zones[i]]);
    }
    mpl_attr_put(call->text, nr > 0 ? "\n" : "none\n");
    return 0;
}

/* Whether it can go is what memplug/blocks/N/why says; this one says that blocks can. */
static int show_removable(struct mpl_attr_call *call)
{
    mpl_attr_put(call->text, "1\n");
    return 0;
}

static int show_phys_device(struct mpl_attr_call *call)
{
    mpl_attr_put(call->text, "0\n");
    return 0;
}

static int show_phys_index(struct mpl_attr_call *call)
{
    mpl_attr_put_number(call->text, call->place->block, 16, 8, '0');
    mpl_attr_put(call->text, "\n");
    return 0;
}

static int find_node_of(const struct memplug_attr *attr, uint64_t node,
                        struct memplug_attr_place *place)
{
    struct memplug_block_info info;

    if (mpl_attr_block(attr, place->block, &info) != 0 || (uint64_t)info.node != node)
        return -ENOENT;
    return mpl_attr_find_node(attr, node, place);
}

static uint64_t next_node_of(const struct memplug_attr *attr,
                             const struct memplug_attr_place *place, uint64_t node)
{
    struct memplug_block_info info;

    if (mpl_attr_block(attr, place->block, &info) != 0 || (uint64_t)info.node < node)
        return MPL_ATTR_NONE;
    return (uint64_t)info.node;
}

static const struct mpl_attr_entry in_memory_n[] = {
    {.name = "online", .mode = 0644, .show = show_online, .store = store_online},
    {.name = "phys_device", .mode = 0444, .show = show_phys_device},
    {.name = "phys_index", .mode = 0444, .show = show_phys_index},
    {.name = "removable", .mode = 0444, .show = show_removable},
    {.name = "state", .mode = 0644, .show = show_state, .store = store_state},
    {.name = "uevent",
     .mode = 0644,
     .show = mpl_attr_show_nothing,
     .store = mpl_attr_store_uevent},
    {.name = "valid_zones", .mode = 0444, .show = show_valid_zones},
};

static const struct mpl_attr_family of_memory_n[] = {
    {.prefix = "node",
     .suffix = "",
     .link = "../../node/",
     .dir = &mpl_attr_node_n_dir,
     .find = find_node_of,
     .next = next_node_of},
};

const struct mpl_attr_dir mpl_attr_memory_n_dir = {
    .entries = in_memory_n,
    .nr_entries = MPL_ATTR_COUNT(in_memory_n),
    .families = of_memory_n,
    .nr_families = MPL_ATTR_COUNT(of_memory_n),
};

/* --- all blocks ------------------------------------------------------------------------------- */

static int show_block_size(struct mpl_attr_call *call)
{
    mpl_attr_put_number(call->text, (uint64_t)1 << call->attr->host.geometry.block_shift, 16, 0,
                        ' ');
    mpl_attr_put(call->text, "\n");
    return 0;
}

static int show_auto_online(struct mpl_attr_call *call)
{
    struct memplug_policy policy;

    memplug_policy_get(call->attr->pool, &policy);
    mpl_attr_put(call->text, online_words[policy.auto_online]);
    mpl_attr_put(call->text, "\n");
    return 0;
}

static int store_auto_online(struct mpl_attr_call *call)
{
    int word = parse_online(call);
    struct memplug_policy policy = {.auto_online = (enum memplug_auto_online)word};

    if (word < 0)
        return word;
    return mpl_attr_policy(call, &policy, MEMPLUG_POLICY_AUTO_ONLINE);
}

/* An address, and only the page that it lies in counts. Whatever is wrong with it is -EINVAL. */
static int parse_page(struct mpl_attr_call *call, memplug_pfn_t *pfn)
{
    uint64_t address;

    if (mpl_attr_number(call->word, 0, UINT64_MAX, &address) != 0)
        return mpl_attr_refuse(call, -EINVAL, "not an address", "write it as 0x180000000");
    pfn->nr = address >> call->attr->host.geometry.page_shift;
    return 0;
}

static int store_soft_offline(struct mpl_attr_call *call)
{
    memplug_pfn_t pfn;
    int error = parse_page(call, &pfn);

    return error != 0 ? error
                      : memplug_soft_offline(call->attr->pool, pfn, call->limit, call->reason);
}

static int store_hard_offline(struct mpl_attr_call *call)
{
    memplug_pfn_t pfn;
    int error = parse_page(call, &pfn);

    return error != 0 ? error
                      : memplug_hard_offline(call->attr->pool, pfn, call->limit, call->reason);
}

static const struct mpl_attr_entry in_memory[] = {
    {.name = "auto_online_blocks",
     .mode = 0644,
     .show = show_auto_online,
     .store = store_auto_online},
    {.name = "block_size_bytes", .mode = 0444, .show = show_block_size},
    {.name = "hard_offline_page", .mode = 0200, .store = store_hard_offline},
    {.name = "soft_offline_page", .mode = 0200, .store = store_soft_offline},
    {.name = "uevent",
     .mode = 0644,
     .show = mpl_attr_show_nothing,
     .store = mpl_attr_store_uevent},
};

static const struct mpl_attr_family of_memory[] = {
    {.prefix = "memory",
     .suffix = "",
     .dir = &mpl_attr_memory_n_dir,
     .find = mpl_attr_find_block,
     .next = mpl_attr_next_block},
};

const struct mpl_attr_dir mpl_attr_memory_dir = {
    .entries = in_memory,
    .nr_entries = MPL_ATTR_COUNT(in_memory),
    .families = of_memory,
    .nr_families = MPL_ATTR_COUNT(of_memory),
};
