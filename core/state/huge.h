/* SPDX-License-Identifier: MIT */
/* Pools of huge pages; pool->huge_lock is held. A part of state.h, which includes it. */
#ifndef MPL_HUGE_H
#define MPL_HUGE_H

#include "../core.h"

uint64_t mpl_huge_pages(const struct memplug *pool, enum memplug_huge size);

/* Free ones that are not withheld, excess or promised. */
uint64_t mpl_huge_available(const struct memplug *pool, enum memplug_huge size);

/* The first free one at or behind *pfn that has a frame in the block; begin with *pfn = 0. */
bool mpl_huge_next(const struct memplug *pool, const struct mpl_block *block,
                   enum memplug_huge size, memplug_pfn_t *pfn);

/* The struct page of the huge page, of whatever state, that begins there; null: none does. The
 * control lock or a slot's is held. */
struct mpl_page *mpl_huge_at(const struct memplug *pool, memplug_pfn_t pfn,
                             enum memplug_huge size);

struct mpl_huge_want {
    int node; /* preferred; MEMPLUG_ANY_NODE */
    bool this_node;
    bool movable;  /* may it lie in Movable? */
    bool isolated; /* may it be isolated? A promise is kept as long as it is not withheld. */
};

/* The free one to hand out: node by node, Movable first, lowest address first; never one that is
 * withheld. */
bool mpl_huge_find(const struct memplug *pool, enum memplug_huge size,
                   const struct mpl_huge_want *want, memplug_pfn_t *pfn);
/* The last one of the node that could be handed out: it came last. */
bool mpl_huge_find_last(const struct memplug *pool, enum memplug_huge size, int node,
                        memplug_pfn_t *pfn);

/* A page that became POOLED is free, or one that was POOLED is not any more. */
void mpl_huge_count_free(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size,
                         bool is_free);
/* A free page is excess, or not any more. */
bool mpl_huge_is_excess(const struct memplug *pool, memplug_pfn_t pfn);
void mpl_huge_set_excess(struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size,
                         bool excess);
/* No free page of the node has this flag, EXCESS or STUCK, any more. */
void mpl_huge_unpark(struct memplug *pool, enum memplug_huge size, int node, uint8_t flag);
/* The memmap of a page of this node is lent, or not any more. */
void mpl_huge_count_lent(struct memplug *pool, int node, enum memplug_huge size, bool lent);
/* Pages of a node, and those of them that are surplus. */
void mpl_huge_count(struct memplug *pool, int node, enum memplug_huge size, int nr,
                    int nr_surplus);

/* Free pages with a frame in the block that are neither withheld nor excess. */
uint64_t mpl_huge_open(const struct memplug *pool, const struct mpl_block *block,
                       enum memplug_huge size);
/* Free pages with a frame in the block are withheld, or not any more. False: the rest would not
 * cover what is promised, and nothing has changed. */
bool mpl_huge_set_withheld(struct memplug *pool, struct mpl_block *block, bool withheld);

/* Frames of [index, index + nr_pages) that free huge pages have. */
uint64_t mpl_huge_pooled_frames(const struct memplug *pool, const struct mpl_block *block,
                                uint64_t index, uint64_t nr_pages);

#endif
