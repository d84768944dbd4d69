/* SPDX-License-Identifier: MIT */
#include "state.h"

bool mpl_node_valid(const struct memplug *pool, int node)
{
    return node >= 0 && (unsigned)node < pool->nr_nodes;
}
