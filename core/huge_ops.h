/* SPDX-License-Identifier: MIT */
/* What huge.c and huge_move.c share. */
#ifndef MPL_HUGE_OPS_H
#define MPL_HUGE_OPS_H

#include "steps.h"

static inline void mpl_huge_lock(struct memplug *pool)
{
    mpl_spin_lock(pool, &pool->huge_lock);
}

static inline void mpl_huge_unlock(struct memplug *pool)
{
    mpl_spin_unlock(&pool->huge_lock);
}

static inline enum memplug_huge mpl_huge_size_of(const struct mpl_page *page)
{
    MPL_ASSERT(page->huge != 0 && page->huge <= MEMPLUG_NR_HUGE);
    return (enum memplug_huge)(page->huge - 1);
}

static inline int mpl_huge_node_of(const struct memplug *pool, memplug_pfn_t pfn)
{
    return mpl_block_at(pool, mpl_block_of_pfn(&pool->geometry, pfn))->node;
}

/* Surplus pages of the node that are not waiting to be dissolved already. */
static inline bool mpl_huge_has_surplus(const struct memplug *pool, int node,
                                        enum memplug_huge size)
{
    const struct mpl_huge_count *count = &pool->huge[size].nodes[node];

    return count->nr_surplus > count->nr_excess;
}

/* Under huge_lock. A page that is POOLED, and not counted as free, leaves for good. */
void mpl_huge_leave(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size);
/* A free one leaves; drop: as soon as its memmap is not lent. */
void mpl_huge_dissolve(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size);
void mpl_huge_drop(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size);
/* Its owner has freed it, and it is POOLED now. */
void mpl_huge_freed(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size);

#endif
