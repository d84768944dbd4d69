/* SPDX-License-Identifier: MIT */
/* Which part of the memmap of a huge page says nothing, and where it is. */
#ifndef MPL_STATE_HVO_H
#define MPL_STATE_HVO_H

#include "huge.h"

/* Pages of the memmap that hold nothing but tails of one huge page, behind the one that holds its
 * head; 0 if its memmap is not whole pages. */
uint64_t mpl_hvo_lent_pages(const struct memplug *pool, enum memplug_huge size);

struct mpl_hvo_group {
    uint64_t offset;        /* of the first of them in the window */
    uint64_t nr_pages;
    struct mpl_block *unit; /* whose own memmap it is; null: it is the host's */
    uint64_t frame;         /* the first of them among the unit's frames */
};

/* False: the memmap of such a page is never lent: by configuration, by size, or since it lies in
 * several places. */
bool mpl_hvo_group(const struct memplug *pool, memplug_pfn_t pfn, enum memplug_huge size,
                   struct mpl_hvo_group *group);

/* May it be lent now? What holds it must be online in Movable, so that it comes back. */
bool mpl_hvo_may_lend(const struct memplug *pool, const struct mpl_hvo_group *group);

/* Of the blocks that the group's frames lie in, number `at`, and the part that lies there; false:
 * there is no such block. */
bool mpl_hvo_piece(const struct memplug *pool, const struct mpl_hvo_group *group, unsigned at,
                   struct mpl_block **block, uint64_t *index, uint64_t *nr_pages);

/* Pages that the memmap in this block describes, of its unit; none: it is the host's. */
void mpl_hvo_described_by(const struct memplug *pool, const struct mpl_block *block,
                          memplug_pfn_t *start, memplug_pfn_t *end);

#endif
