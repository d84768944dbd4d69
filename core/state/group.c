/* SPDX-License-Identifier: MIT */
/* Memory groups. Numbers that were never given are never looked at: their metadata stays untouched.
 * A block comes and goes under the control lock; readers see each member as it is at the moment. */
#include "state.h"

#define READ(member) __atomic_load_n(&(member), __ATOMIC_ACQUIRE)

struct mpl_group *mpl_group_at(const struct memplug *pool, int group)
{
    struct mpl_group *at;

    if (group < 1 || (unsigned)group > READ(pool->nr_groups_touched))
        return NULL;
    at = &pool->groups[group - 1];
    return READ(at->used) ? at : NULL;
}

int mpl_group_new(struct memplug *pool, const struct memplug_group *group)
{
    unsigned index = 0;
    struct mpl_group *new;

    while (index < pool->nr_groups_touched && pool->groups[index].used)
        index++;
    if (index == MPL_MAX_GROUPS)
        return -MPL_ENOSPC;
    new = &pool->groups[index];
    MPL_PUT(new->dynamic, group->dynamic);
    MPL_PUT(new->node, (int16_t)group->node);
    MPL_PUT(new->nr_pages, group->nr_pages);
    MPL_PUT(new->used, true);
    if (index == pool->nr_groups_touched)
        MPL_PUT(pool->nr_groups_touched, index + 1);
    return (int)index + 1;
}

void mpl_group_drop(struct memplug *pool, int group)
{
    struct mpl_group *at = mpl_group_at(pool, group);

    MPL_ASSERT(at != NULL && (at->nr_blocks | at->nr_kernel | at->nr_movable) == 0);
    MPL_PUT(at->used, false);
    MPL_PUT(at->dynamic, false);
    MPL_PUT(at->node, 0);
    MPL_PUT(at->nr_pages, 0);
}

static struct mpl_group *group_of(struct memplug *pool, const struct mpl_block *block)
{
    struct mpl_group *group = mpl_group_at(pool, block->group);

    MPL_ASSERT(group != NULL || block->group == 0);
    return group;
}

void mpl_group_join(struct memplug *pool, const struct mpl_block *block)
{
    struct mpl_group *group = group_of(pool, block);

    if (group != NULL)
        MPL_PUT(group->nr_blocks, group->nr_blocks + 1);
}

void mpl_group_part(struct memplug *pool, const struct mpl_block *block)
{
    struct mpl_group *group = group_of(pool, block);

    if (group != NULL)
        MPL_PUT(group->nr_blocks, group->nr_blocks - 1);
}

/* nr_pages may be "minus so many". */
static void count(struct mpl_group *group, const struct mpl_block *block, uint64_t nr_pages)
{
    if (group == NULL)
        return;
    if (block->zone == MEMPLUG_ZONE_MOVABLE)
        MPL_PUT(group->nr_movable, group->nr_movable + nr_pages);
    else
        MPL_PUT(group->nr_kernel, group->nr_kernel + nr_pages);
}

void mpl_group_enter(struct memplug *pool, const struct mpl_block *block)
{
    count(group_of(pool, block), block, mpl_block_pages(&pool->geometry));
}

void mpl_group_leave(struct memplug *pool, const struct mpl_block *block)
{
    count(group_of(pool, block), block, 0 - mpl_block_pages(&pool->geometry));
}

struct mpl_group_needs mpl_group_needs(const struct memplug *pool, int node, int except,
                                       uint32_t ratio)
{
    struct mpl_group_needs needs = {0, 0};
    unsigned nr_groups = READ(pool->nr_groups_touched);

    MPL_ASSERT(ratio != 0);
    for (int number = 1; number <= (int)nr_groups; number++) {
        const struct mpl_group *group = mpl_group_at(pool, number);
        uint64_t nr_movable, nr_kernel, nr_needed;

        if (group == NULL || number == except || !READ(group->dynamic) ||
            (node != MEMPLUG_ANY_NODE && READ(group->node) != node))
            continue;
        nr_movable = READ(group->nr_movable);
        nr_kernel = READ(group->nr_kernel);
        nr_needed = nr_movable * 100 / ratio; /* pages of a window: far from an overflow */
        needs.nr_movable += nr_movable;
        needs.nr_kernel += nr_needed > nr_kernel ? nr_needed - nr_kernel : 0;
    }
    return needs;
}
