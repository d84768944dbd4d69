/* SPDX-License-Identifier: MIT */
/* Pageblocks that are one allocation; the zone's lock is held. */
#ifndef MPL_WHOLE_H
#define MPL_WHOLE_H

#include "state.h"

/* The zone's first pageblock that is free as a whole. */
bool mpl_whole_take(struct memplug *pool, struct mpl_zone *zone,
                    const struct memplug_alloc *request, enum mpl_page_state as,
                    memplug_pfn_t *pfn);
/* Surely an allocation of exactly this pageblock? Look more closely if not. */
bool mpl_whole_is(const struct memplug *pool, const struct mpl_block *block, uint64_t index);
void mpl_whole_put(struct memplug *pool, struct mpl_block *block, uint64_t index);

/* Of frames.c: the words of a pageblock from first on have something to allocate, or nothing. */
void mpl_frames_note_words(struct memplug *pool, struct mpl_block *block, uint64_t first,
                           bool some);

#endif
