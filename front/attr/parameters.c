/* SPDX-License-Identifier: MIT */
/* module/memory_hotplug/parameters (linux semantics, 3 and 6). */
#include "tree.h"

#include <errno.h>

int mpl_attr_policy(struct mpl_attr_call *call, const struct memplug_policy *policy,
                    unsigned fields)
{
    int error = memplug_policy_set(call->attr->pool, policy, fields);

    return error != 0 ? mpl_attr_refuse(call, error, "the policy could not be changed", NULL) : 0;
}

int mpl_attr_put_bool(struct mpl_attr_call *call, bool value)
{
    mpl_attr_put(call->text, value ? "Y\n" : "N\n");
    return 0;
}

int mpl_attr_get_bool(struct mpl_attr_call *call, bool *value)
{
    int error = mpl_attr_bool(call->word, value);

    return error != 0 ? mpl_attr_refuse(call, error, "not a boolean", "write Y or N") : 0;
}

static struct memplug_policy policy_of(const struct mpl_attr_call *call)
{
    struct memplug_policy policy;

    memplug_policy_get(call->attr->pool, &policy);
    return policy;
}

static int show_memmap_on_memory(struct mpl_attr_call *call)
{
    static const char *const names[] = {
        [MEMPLUG_MEMMAP_ON_MEMORY_NO] = "N\n",
        [MEMPLUG_MEMMAP_ON_MEMORY_YES] = "Y\n",
        [MEMPLUG_MEMMAP_ON_MEMORY_FORCE] = "force\n",
    };

    mpl_attr_put(call->text, names[policy_of(call).memmap_on_memory]);
    return 0;
}

static const char *const policy_words[] = {
    [MEMPLUG_POLICY_CONTIG_ZONES] = "contig-zones",
    [MEMPLUG_POLICY_AUTO_MOVABLE] = "auto-movable",
};

static int show_online_policy(struct mpl_attr_call *call)
{
    mpl_attr_put(call->text, policy_words[policy_of(call).online]);
    mpl_attr_put(call->text, "\n");
    return 0;
}

static int store_online_policy(struct mpl_attr_call *call)
{
    int word = mpl_attr_choice(call->word, policy_words, MPL_ATTR_COUNT(policy_words));
    struct memplug_policy policy = {.online = (enum memplug_online_policy)word};

    if (word < 0)
        return mpl_attr_refuse(call, word, "not a policy", "write contig-zones or auto-movable");
    return mpl_attr_policy(call, &policy, MEMPLUG_POLICY_ONLINE);
}

static int show_ratio(struct mpl_attr_call *call)
{
    mpl_attr_put_number(call->text, policy_of(call).auto_movable_ratio, 10, 0, ' ');
    mpl_attr_put(call->text, "\n");
    return 0;
}

static int store_ratio(struct mpl_attr_call *call)
{
    struct memplug_policy policy = {.online = MEMPLUG_POLICY_CONTIG_ZONES};
    uint64_t ratio;
    int error = mpl_attr_number(call->word, 0, UINT32_MAX, &ratio);

    if (error != 0)
        return mpl_attr_refuse(call, error, "not a number of 32 bits", "write it in percent");
    policy.auto_movable_ratio = (uint32_t)ratio;
    return mpl_attr_policy(call, &policy, MEMPLUG_POLICY_RATIO);
}

static int show_numa_aware(struct mpl_attr_call *call)
{
    return mpl_attr_put_bool(call, policy_of(call).auto_movable_numa_aware);
}

static int store_numa_aware(struct mpl_attr_call *call)
{
    struct memplug_policy policy = {.online = MEMPLUG_POLICY_CONTIG_ZONES};
    int error = mpl_attr_get_bool(call, &policy.auto_movable_numa_aware);

    return error != 0 ? error : mpl_attr_policy(call, &policy, MEMPLUG_POLICY_NUMA_AWARE);
}

static const struct mpl_attr_entry in_parameters[] = {
    {.name = "auto_movable_numa_aware",
     .mode = 0644,
     .show = show_numa_aware,
     .store = store_numa_aware},
    {.name = "auto_movable_ratio", .mode = 0644, .show = show_ratio, .store = store_ratio},
    {.name = "memmap_on_memory", .mode = 0444, .show = show_memmap_on_memory},
    {.name = "online_policy",
     .mode = 0644,
     .show = show_online_policy,
     .store = store_online_policy},
};

const struct mpl_attr_dir mpl_attr_parameters_dir = {
    .entries = in_parameters,
    .nr_entries = MPL_ATTR_COUNT(in_parameters),
};
