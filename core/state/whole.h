/* SPDX-License-Identifier: MIT */
/* Pageblocks that are one allocation. */
#ifndef MPL_WHOLE_H
#define MPL_WHOLE_H

#include "state.h"

/* --- the zone's lock is held ------------------------------------------------------------------ */

/* The zone's first pageblock that is free as a whole. */
bool mpl_whole_take(struct memplug *pool, struct mpl_zone *zone,
                    const struct memplug_alloc *request, enum mpl_page_state as,
                    memplug_pfn_t *pfn);
/* Its first frame is held. */
void mpl_whole_put(struct memplug *pool, struct mpl_block *block, uint64_t index);
void mpl_whole_unhold(struct memplug *pool, struct mpl_block *block, struct mpl_held *held);

/* Of frames.c: the words of a pageblock from first on have something to allocate, or nothing. */
void mpl_frames_note_words(struct memplug *pool, struct mpl_block *block, uint64_t first,
                           bool some);

#endif
