/* SPDX-License-Identifier: MIT */
/*
 * Frames that hold a memmap, and those of them that are lent: they are frames of their block like
 * its data, for movable use, as long as the window shows another page in their place.
 */
#ifndef MPL_STATE_LENT_H
#define MPL_STATE_LENT_H

#include "state.h"

/* The layout of a pool whose self-hosted memmaps may be lent. */
void mpl_layout_add_lent(struct mpl_layout *layout);

/* Of a block that is in a zone; read without a lock too: a frame is lent as long as anybody but
 * the memmap can have it. */
bool mpl_lent_bit(const struct memplug *pool, const struct mpl_block *block, uint64_t index);

/* Does the frame hold struct pages, so that nobody else may have it? */
static inline bool mpl_is_memmap(const struct memplug *pool, const struct mpl_block *block,
                                 uint64_t index)
{
    return MPL_UNLIKELY(index < block->nr_memmap_pages) &&
           (pool->layout.lent == 0 || !mpl_lent_bit(pool, block, index));
}

/* The same of a word. */
uint64_t mpl_memmap_mask(const struct memplug *pool, const struct mpl_block *block, uint64_t word);
/* Frames of the block that are lent. */
uint64_t mpl_lent_count(const struct memplug *pool, const struct mpl_block *block);

/* The zone's lock is held. Frames of the memmap become free and managed; and back, all of them free
 * and isolated: as mpl_vacate() leaves them. */
void mpl_lent_put(struct memplug *pool, struct mpl_block *block, uint64_t index,
                  uint64_t nr_pages);
void mpl_lent_take(struct memplug *pool, struct mpl_block *block, uint64_t index,
                   uint64_t nr_pages);

#endif
