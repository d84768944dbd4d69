/* SPDX-License-Identifier: MIT */
/* Linux's rules for the zone of a block (linux semantics, 6). */
#include "state.h"

#define READ(member) __atomic_load_n(&pool->policy.member, __ATOMIC_ACQUIRE)

struct memplug_policy mpl_policy_read(const struct memplug *pool)
{
    return (struct memplug_policy){
        .online = READ(online),
        .auto_online = READ(auto_online),
        .memmap_on_memory = READ(memmap_on_memory),
        .auto_movable_ratio = READ(auto_movable_ratio),
        .auto_movable_numa_aware = READ(auto_movable_numa_aware),
        .movable_node = READ(movable_node),
    };
}

static bool spanned_by(const struct memplug *pool, const struct mpl_block *block, unsigned kind)
{
    int node = __atomic_load_n(&block->node, __ATOMIC_RELAXED);

    return mpl_zone_spans(pool, mpl_zone_at(pool, node, kind), mpl_block_start(pool, block),
                          mpl_block_pages(&pool->geometry));
}

/* Zones below ZONE_NORMAL count only where they span something already: memory is not added below
 * them. */
enum memplug_zone mpl_policy_kernel_zone(const struct memplug *pool, const struct mpl_block *block)
{
    for (unsigned kind = 0; kind < MEMPLUG_ZONE_NORMAL; kind++)
        if (spanned_by(pool, block, kind))
            return (enum memplug_zone)kind;
    return MEMPLUG_ZONE_NORMAL;
}

/* The only one of the two candidates whose span the block reaches into; if it is none or both, the
 * kernel zone, or Movable if the policy wants nodes that can be unplugged. */
static enum memplug_zone contiguous_zone(const struct memplug *pool, const struct mpl_block *block,
                                         enum memplug_zone kernel, bool movable_node)
{
    bool in_kernel = spanned_by(pool, block, kernel);
    bool in_movable = spanned_by(pool, block, MEMPLUG_ZONE_MOVABLE);

    if (in_kernel != in_movable)
        return in_kernel ? kernel : MEMPLUG_ZONE_MOVABLE;
    return movable_node ? MEMPLUG_ZONE_MOVABLE : kernel;
}

enum memplug_zone mpl_policy_zone(const struct memplug *pool, const struct mpl_block *block,
                                  enum memplug_online_type type)
{
    struct memplug_policy policy;
    enum memplug_zone kernel;

    if (type == MEMPLUG_ONLINE_MOVABLE)
        return MEMPLUG_ZONE_MOVABLE;
    kernel = mpl_policy_kernel_zone(pool, block);
    if (type == MEMPLUG_ONLINE_KERNEL)
        return kernel;
    policy = mpl_policy_read(pool);
    if (policy.online == MEMPLUG_POLICY_CONTIG_ZONES)
        return contiguous_zone(pool, block, kernel, policy.movable_node);
    return mpl_ratio_allows_movable(pool, block, &policy) ? MEMPLUG_ZONE_MOVABLE : kernel;
}
