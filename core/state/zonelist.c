/* SPDX-License-Identifier: MIT */
#include "state.h"

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
