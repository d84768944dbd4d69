/* SPDX-License-Identifier: MIT */
/* Pageblocks that are one allocation. */
#ifndef MPL_WHOLE_H
#define MPL_WHOLE_H

#include "state.h"

/* --- in a slot -------------------------------------------------------------------------------- */

/* What the slot holds is the caller's. False: it has none that would do. */
bool mpl_whole_use(struct memplug *pool, struct mpl_slot *slot,
                   const struct memplug_alloc *request, memplug_pfn_t *pfn);
/* What is an allocation of a whole pageblock becomes held. MPL_LONG_WAY: it is none, or has to be
 * looked at more closely; nothing was done. */
int mpl_whole_give(struct memplug *pool, struct mpl_slot *slot, memplug_pfn_t pfn);

/* --- the zone's lock is held ------------------------------------------------------------------ */

/* The zone's first pageblock that is free as a whole. */
bool mpl_whole_take(struct memplug *pool, struct mpl_zone *zone,
                    const struct memplug_alloc *request, enum mpl_page_state as,
                    memplug_pfn_t *pfn);
/* Surely an allocation of exactly this pageblock? Look more closely if not. */
bool mpl_whole_is(const struct memplug *pool, const struct mpl_block *block, uint64_t index);
/* Its first frame is held. */
void mpl_whole_put(struct memplug *pool, struct mpl_block *block, uint64_t index);
void mpl_whole_unhold(struct memplug *pool, struct mpl_block *block, struct mpl_held *held);

/* Of frames.c: the words of a pageblock from first on have something to allocate, or nothing. */
void mpl_frames_note_words(struct memplug *pool, struct mpl_block *block, uint64_t first,
                           bool some);

#endif
