/* SPDX-License-Identifier: MIT */
/* Linux's valid_zones. It never waits for the control lock: the answer is one of a moment. */
#include "look.h"

/* What a plain online would choose, then the other one of the two that are possible. */
static int possible_zones(const struct memplug *pool, const struct mpl_block *block,
                          enum memplug_zone zones[2])
{
    enum memplug_zone kernel = mpl_policy_kernel_zone(pool, block);

    zones[0] = mpl_policy_zone(pool, block, MEMPLUG_ONLINE_DEFAULT);
    zones[1] = zones[0] == MEMPLUG_ZONE_MOVABLE ? kernel : MEMPLUG_ZONE_MOVABLE;
    return 2;
}

/* Tried again only if an operation on this very block went on meanwhile. Its node is valid at any
 * time: that of an absent block is 0. */
int memplug_block_zones(const struct memplug *pool, uint64_t id, enum memplug_zone zones[2])
{
    const struct mpl_block *block;
    enum memplug_block_state state;
    int nr_zones;

    if (id >= pool->nr_blocks_max)
        return -MPL_ENODEV;
    block = mpl_block_at(pool, id);
    do {
        unsigned kind;

        state = mpl_block_state(block);
        if (state < MEMPLUG_BLOCK_OFFLINE)
            return -MPL_ENODEV;
        kind = __atomic_load_n(&block->zone, __ATOMIC_ACQUIRE);
        if (kind < MEMPLUG_NR_ZONES) {
            zones[0] = (enum memplug_zone)kind;
            nr_zones = 1;
        } else if (state == MEMPLUG_BLOCK_ONLINE) {
            nr_zones = 0;
        } else {
            nr_zones = possible_zones(pool, block, zones);
        }
        atomic_thread_fence(memory_order_acquire);
    } while (mpl_block_state(block) != state);
    return nr_zones;
}
