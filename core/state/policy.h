/* SPDX-License-Identifier: MIT */
/* Which zone: for a block that goes online, and for a request. A part of state.h, which includes
 * it. */
#ifndef MPL_POLICY_H
#define MPL_POLICY_H

#include "../core.h"

/* --- group.c: memory groups; read anywhere, written under the control lock -------------------- */

/* The group of that number; null: there is none. */
struct mpl_group *mpl_group_at(const struct memplug *pool, int group);
/* The lowest number that is free, or -ENOSPC. */
int mpl_group_new(struct memplug *pool, const struct memplug_group *group);
void mpl_group_drop(struct memplug *pool, int group);

/* The block belongs to its group; and no longer. Nothing if it has none. */
void mpl_group_join(struct memplug *pool, const struct mpl_block *block);
void mpl_group_part(struct memplug *pool, const struct mpl_block *block);

/* The block is in a zone now: its pages are the group's; and the way back. */
void mpl_group_enter(struct memplug *pool, const struct mpl_block *block);
void mpl_group_leave(struct memplug *pool, const struct mpl_block *block);

/* What the pages of dynamic groups other than this one do to a ratio in percent: how many of them
 * are in Movable, and how many kernel pages these need beyond the group's own. */
struct mpl_group_needs {
    uint64_t nr_movable, nr_kernel;
};
struct mpl_group_needs mpl_group_needs(const struct memplug *pool, int node, int except,
                                       uint32_t ratio);

/* --- policy.c: which zone a block goes to; takes zones' locks --------------------------------- */

enum memplug_zone mpl_policy_zone(const struct memplug *pool, const struct mpl_block *block,
                                  enum memplug_online_type type);
/* The kernel zone that the block may go to. */
enum memplug_zone mpl_policy_kernel_zone(const struct memplug *pool,
                                         const struct mpl_block *block);
/* The policy, member by member as it is now. */
struct memplug_policy mpl_policy_read(const struct memplug *pool);

/* --- ratio.c: the auto-movable policy --------------------------------------------------------- */

bool mpl_ratio_allows_movable(const struct memplug *pool, const struct mpl_block *block,
                              const struct memplug_policy *policy);

/* --- zonelist.c ------------------------------------------------------------------------------- */

/* The i-th of the zones in which to look for frames, best first; null: there are no more. Node by
 * node, the preferred one first, from the highest zone down: as Linux's node order. */
static inline struct mpl_zone *mpl_policy_zone_at(struct memplug *pool,
                                                  const struct memplug_alloc *request, unsigned i)
{
    unsigned nr_kinds = request->mover != 0 ? MEMPLUG_ZONE_MOVABLE + 1 : MEMPLUG_ZONE_MOVABLE;
    unsigned preferred = request->node == MEMPLUG_ANY_NODE ? 0 : (unsigned)request->node;
    unsigned node = preferred;

    if (i >= nr_kinds) {
        node = i / nr_kinds <= preferred ? i / nr_kinds - 1 : i / nr_kinds;
        i %= nr_kinds;
        if (node >= pool->nr_nodes || (request->this_node && request->node != MEMPLUG_ANY_NODE))
            return NULL;
    }
    return mpl_zone_at(pool, (int)node, nr_kinds - 1 - i);
}

/* All of them: fills zones, returns how many. */
unsigned mpl_policy_zonelist(struct memplug *pool, const struct memplug_alloc *request,
                             struct mpl_zone *zones[]);

#endif
