/* SPDX-License-Identifier: MIT */
#include "check.h"

#define NR_ROWS(rules) (sizeof(rules) / sizeof((rules)[0]))

/* Is the group registered, and where the block is? */
static int check_member(const struct memplug *pool, const struct mpl_block *block,
                        struct memplug_reason *reason)
{
    struct mpl_where where = {"group", (int64_t)mpl_block_id(pool, block), -1, MPL_NO_PFN};
    const struct mpl_group *group = mpl_group_at(pool, block->group);
    const struct mpl_rule rules[] = {
        {group == NULL, "there is no such group"},
        {group != NULL && group->node != block->node, "the block is not on its group's node"},
    };

    return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
}

static int check_members(const struct memplug *pool, struct memplug_reason *reason)
{
    int error = 0;

    for (uint64_t id = 0; id < pool->nr_blocks_max && error == 0; id++)
        if (mpl_block_at(pool, id)->group != 0)
            error = check_member(pool, mpl_block_at(pool, id), reason);
    return error;
}

/* A group as its blocks make it. */
static struct mpl_group recount(const struct memplug *pool, unsigned number)
{
    struct mpl_group sum = {0};

    for (uint64_t id = 0; id < pool->nr_blocks_max; id++) {
        const struct mpl_block *block = mpl_block_at(pool, id);
        bool online = mpl_block_state(block) == MEMPLUG_BLOCK_ONLINE;
        uint64_t nr_pages = online ? mpl_block_pages(&pool->geometry) : 0;

        if (block->group != number)
            continue;
        sum.nr_blocks++;
        if (block->zone == MEMPLUG_ZONE_MOVABLE)
            sum.nr_movable += nr_pages;
        else
            sum.nr_kernel += nr_pages;
    }
    return sum;
}

static int check_group(const struct memplug *pool, unsigned number, struct memplug_reason *reason)
{
    const struct mpl_group *group = &pool->groups[number - 1];
    struct mpl_group sum = {0};
    uint64_t block_pages = mpl_block_pages(&pool->geometry);
    struct mpl_where where = {"group", -1, -1, MPL_NO_PFN};

    if (group->used)
        sum = recount(pool, number);
    {
        const struct mpl_rule rules[] = {
            {!group->used && (group->dynamic || group->node != 0 || group->nr_pages != 0),
             "an unused group has left something behind"},
            {group->used && !mpl_node_valid(pool, group->node), "a group is on no node"},
            {group->used && group->nr_pages == 0, "a group has no size"},
            {group->dynamic && ((group->nr_pages & (group->nr_pages - 1)) != 0 ||
                                group->nr_pages < block_pages),
             "the unit of a group cannot be"},
            {group->nr_blocks != sum.nr_blocks, "a group does not count its blocks"},
            {group->nr_kernel != sum.nr_kernel || group->nr_movable != sum.nr_movable,
             "the pages of a group are not those of its online blocks"},
        };

        return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
    }
}

int mpl_check_policy(const struct memplug *pool, struct memplug_reason *reason)
{
    const struct memplug_policy *policy = &pool->policy;
    const struct mpl_rule rules[] = {
        {(unsigned)policy->online > MEMPLUG_POLICY_AUTO_MOVABLE ||
             (unsigned)policy->auto_online > MEMPLUG_AUTO_MOVABLE ||
             (unsigned)policy->memmap_on_memory > MEMPLUG_MEMMAP_ON_MEMORY_FORCE,
         "the policy has a value that is none"},
        {pool->nr_groups_touched > MPL_MAX_GROUPS, "the number of groups cannot be"},
    };
    struct mpl_where where = {"pool", -1, -1, MPL_NO_PFN};
    int error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));

    if (error == 0)
        error = check_members(pool, reason);
    for (unsigned number = 1; number <= pool->nr_groups_touched && error == 0; number++)
        error = check_group(pool, number, reason);
    return error;
}
