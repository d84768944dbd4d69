/* SPDX-License-Identifier: MIT */
/* What happens by itself: the doors of the policy and of memory groups. */
#include "door.h"
#include "state/state.h"

/* --- the policy ------------------------------------------------------------------------------- */

void memplug_policy_get(const struct memplug *pool, struct memplug_policy *policy)
{
    *policy = mpl_policy_read(pool);
}

/* Members that are not set may hold anything. */
static bool is_policy(const struct memplug_policy *policy, unsigned fields)
{
    if ((fields & ~(unsigned)MEMPLUG_POLICY_ALL) != 0)
        return false;
    if ((fields & MEMPLUG_POLICY_ONLINE) != 0 &&
        (unsigned)policy->online > MEMPLUG_POLICY_AUTO_MOVABLE)
        return false;
    if ((fields & MEMPLUG_POLICY_AUTO_ONLINE) != 0 &&
        (unsigned)policy->auto_online > MEMPLUG_AUTO_MOVABLE)
        return false;
    return (fields & MEMPLUG_POLICY_MEMMAP_ON_MEMORY) == 0 ||
           (unsigned)policy->memmap_on_memory <= MEMPLUG_MEMMAP_ON_MEMORY_FORCE;
}

#define SET(field, member)                                                                         \
    do {                                                                                           \
        if ((fields & (field)) != 0)                                                               \
            MPL_PUT(pool->policy.member, policy->member);                                          \
    } while (0)

int memplug_policy_set(struct memplug *pool, const struct memplug_policy *policy, unsigned fields)
{
    struct mpl_door door;
    int error;

    if (!is_policy(policy, fields))
        return -MPL_EINVAL;
    mpl_door_open(&door, pool, "policy", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    SET(MEMPLUG_POLICY_ONLINE, online);
    SET(MEMPLUG_POLICY_AUTO_ONLINE, auto_online);
    SET(MEMPLUG_POLICY_MEMMAP_ON_MEMORY, memmap_on_memory);
    SET(MEMPLUG_POLICY_RATIO, auto_movable_ratio);
    SET(MEMPLUG_POLICY_NUMA_AWARE, auto_movable_numa_aware);
    SET(MEMPLUG_POLICY_MOVABLE_NODE, movable_node);
    return mpl_door_unlock(&door.op, 0);
}

/* --- memory groups ---------------------------------------------------------------------------- */

static bool is_group(const struct memplug *pool, const struct memplug_group *group)
{
    uint64_t nr_pages = group->nr_pages;

    if (!mpl_node_valid(pool, group->node) || nr_pages == 0)
        return false;
    return !group->dynamic || ((nr_pages & (nr_pages - 1)) == 0 &&
                               nr_pages >= mpl_block_pages(&pool->geometry));
}

int memplug_group_register(struct memplug *pool, const struct memplug_group *group)
{
    struct mpl_door door;
    int error;

    if (!is_group(pool, group))
        return -MPL_EINVAL;
    mpl_door_open(&door, pool, "group", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    return mpl_door_unlock(&door.op, mpl_group_new(pool, group));
}

int memplug_group_unregister(struct memplug *pool, int group)
{
    const struct mpl_group *at;
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "group", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    at = mpl_group_at(pool, group);
    if (at == NULL)
        return mpl_door_unlock(&door.op, -MPL_EINVAL);
    if (at->nr_blocks != 0)
        return mpl_door_unlock(&door.op, -MPL_EBUSY);
    mpl_group_drop(pool, group);
    return mpl_door_unlock(&door.op, 0);
}

int memplug_group_info(const struct memplug *pool, int group, struct memplug_group_info *info)
{
    const struct mpl_group *at = mpl_group_at(pool, group);

    if (at == NULL)
        return -MPL_EINVAL;
    *info = (struct memplug_group_info){
        .group.node = __atomic_load_n(&at->node, __ATOMIC_RELAXED),
        .group.dynamic = __atomic_load_n(&at->dynamic, __ATOMIC_RELAXED),
        .group.nr_pages = __atomic_load_n(&at->nr_pages, __ATOMIC_RELAXED),
        .nr_blocks = __atomic_load_n(&at->nr_blocks, __ATOMIC_RELAXED),
        .nr_present_kernel_pages = __atomic_load_n(&at->nr_kernel, __ATOMIC_RELAXED),
        .nr_present_movable_pages = __atomic_load_n(&at->nr_movable, __ATOMIC_RELAXED),
    };
    return 0;
}
