/* SPDX-License-Identifier: MIT */
#include "dump.h"

static void put_name(struct mpl_text *text, const char *member, const char *const names[],
                     unsigned nr_names, unsigned value)
{
    mpl_text_string(text, " ");
    mpl_text_string(text, member);
    mpl_text_string(text, " ");
    mpl_text_string(text, value < nr_names ? names[value] : "?");
}

static void dump_group(const struct mpl_group *group, unsigned number, struct mpl_text *text)
{
    if (!group->used)
        return;
    mpl_text_string(text, "group ");
    mpl_text_decimal(text, number);
    mpl_text_string(text, group->dynamic ? " dynamic" : " static");
    mpl_text_string(text, " node ");
    mpl_text_signed(text, group->node);
    mpl_text_field(text, "pages", group->nr_pages);
    mpl_text_field(text, "blocks", group->nr_blocks);
    mpl_text_field(text, "kernel", group->nr_kernel);
    mpl_text_field(text, "movable", group->nr_movable);
    mpl_text_string(text, "\n");
}

void mpl_dump_policy(const struct memplug *pool, struct mpl_text *text)
{
    static const char *const online[] = {"contig-zones", "auto-movable"};
    static const char *const auto_online[] = {"offline", "online", "online_kernel",
                                              "online_movable"};
    static const char *const on_memory[] = {"no", "yes", "force"};
    struct memplug_policy policy = mpl_policy_read(pool);

    mpl_text_string(text, "policy");
    put_name(text, "online", online, 2, (unsigned)policy.online);
    put_name(text, "auto_online", auto_online, 4, (unsigned)policy.auto_online);
    put_name(text, "memmap_on_memory", on_memory, 3, (unsigned)policy.memmap_on_memory);
    mpl_text_field(text, "auto_movable_ratio", policy.auto_movable_ratio);
    mpl_text_field(text, "numa_aware", policy.auto_movable_numa_aware);
    mpl_text_field(text, "movable_node", policy.movable_node);
    mpl_text_string(text, "\n");
    for (unsigned number = 1; number <= pool->nr_groups_touched; number++)
        dump_group(&pool->groups[number - 1], number, text);
}
