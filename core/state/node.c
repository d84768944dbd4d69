/* SPDX-License-Identifier: MIT */
#include "state.h"

bool mpl_node_valid(const struct memplug *pool, int node)
{
    return node >= 0 && (unsigned)node < pool->nr_nodes;
}

void mpl_node_count(struct memplug *pool, const struct mpl_block *unit, bool present)
{
    struct mpl_node *node = &pool->nodes[unit->node];

    MPL_ASSERT(mpl_node_valid(pool, unit->node));
    MPL_ASSERT(present || node->nr_blocks >= unit->unit_nr_blocks);
    if (present)
        MPL_PUT(node->nr_blocks, node->nr_blocks + unit->unit_nr_blocks);
    else
        MPL_PUT(node->nr_blocks, node->nr_blocks - unit->unit_nr_blocks);
}

uint64_t mpl_nodes_online(const struct memplug *pool)
{
    uint64_t nodes = pool->cpu_nodes;

    for (unsigned i = 0; i < pool->nr_nodes; i++)
        if (__atomic_load_n(&pool->nodes[i].nr_blocks, __ATOMIC_RELAXED) != 0)
            nodes |= (uint64_t)1 << i;
    return nodes;
}
