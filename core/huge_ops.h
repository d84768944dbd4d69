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

/* Under huge_lock: a free page leaves for good; one that its owner freed is POOLED now. */
void mpl_huge_dissolve(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size);
void mpl_huge_freed(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size);

#endif
