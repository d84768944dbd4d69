/* SPDX-License-Identifier: MIT */
#include "state.h"

unsigned mpl_policy_zonelist(struct memplug *pool, const struct memplug_alloc *request,
                             struct mpl_zone *zones[])
{
    struct mpl_zone *zone;
    unsigned nr_zones = 0;

    while ((zone = mpl_policy_zone_at(pool, request, nr_zones)) != NULL)
        zones[nr_zones++] = zone;
    return nr_zones;
}
