/* SPDX-License-Identifier: MIT */
#include "state.h"

/* The lowest kernel zone of the node that the block reaches into, else ZONE_NORMAL. Zones below
 * ZONE_NORMAL count only where they span something already: memory is not added below them. */
static enum memplug_zone kernel_zone(struct memplug *pool, const struct mpl_block *block)
{
    memplug_pfn_t start = mpl_block_start(pool, block);
    uint64_t nr_pages = mpl_block_pages(&pool->geometry);

    for (unsigned kind = 0; kind < MEMPLUG_ZONE_NORMAL; kind++) {
        const struct mpl_zone *zone = mpl_zone_at(pool, block->node, kind);

        if (mpl_range_overlaps(start.nr, nr_pages, zone->start.nr, zone->nr_spanned))
            return (enum memplug_zone)kind;
    }
    return MEMPLUG_ZONE_NORMAL;
}

/* Linux's contig-zones rule: the only one of the two candidates whose span the block reaches
 * into; if it is none or both, the kernel zone (linux semantics, 6). */
enum memplug_zone mpl_policy_zone(struct memplug *pool, const struct mpl_block *block,
                                  enum memplug_online_type type)
{
    memplug_pfn_t start = mpl_block_start(pool, block);
    uint64_t nr_pages = mpl_block_pages(&pool->geometry);
    enum memplug_zone kernel = kernel_zone(pool, block);
    const struct mpl_zone *in_kernel = mpl_zone_at(pool, block->node, kernel);
    const struct mpl_zone *in_movable = mpl_zone_at(pool, block->node, MEMPLUG_ZONE_MOVABLE);

    if (type == MEMPLUG_ONLINE_MOVABLE)
        return MEMPLUG_ZONE_MOVABLE;
    if (type == MEMPLUG_ONLINE_DEFAULT &&
        mpl_range_overlaps(start.nr, nr_pages, in_movable->start.nr, in_movable->nr_spanned) &&
        !mpl_range_overlaps(start.nr, nr_pages, in_kernel->start.nr, in_kernel->nr_spanned))
        return MEMPLUG_ZONE_MOVABLE;
    return kernel;
}

static unsigned add_node_zones(struct memplug *pool, int node, bool movable,
                               struct mpl_zone *zones[], unsigned nr_zones)
{
    if (movable)
        zones[nr_zones++] = mpl_zone_at(pool, node, MEMPLUG_ZONE_MOVABLE);
    for (unsigned kind = MEMPLUG_ZONE_MOVABLE; kind-- > 0;)
        zones[nr_zones++] = mpl_zone_at(pool, node, kind);
    return nr_zones;
}

/* Node by node, the preferred one first, from the highest zone down: as Linux's node order. */
unsigned mpl_policy_zonelist(struct memplug *pool, const struct memplug_alloc *request,
                             struct mpl_zone *zones[])
{
    bool movable = request->mover != 0;
    int preferred = request->node == MEMPLUG_ANY_NODE ? 0 : request->node;
    unsigned nr_zones = 0;

    MPL_ASSERT(mpl_node_valid(pool, preferred));
    nr_zones = add_node_zones(pool, preferred, movable, zones, nr_zones);
    if (request->this_node && request->node != MEMPLUG_ANY_NODE)
        return nr_zones;
    for (int node = 0; node < (int)pool->nr_nodes; node++)
        if (node != preferred)
            nr_zones = add_node_zones(pool, node, movable, zones, nr_zones);
    return nr_zones;
}
