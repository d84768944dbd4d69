/* SPDX-License-Identifier: MIT */
/* What follows from the ranges that boot memory came in. */
#ifndef MPL_EARLY_H
#define MPL_EARLY_H

#include "state.h"

/* The next frames that are there at or behind *pfn, and before end; false: none. */
bool mpl_early_run(const struct memplug *pool, uint64_t *pfn, uint64_t end, uint64_t *nr_pages);
/* Of the block: how many frames are there, in all and within a zone's limits; whose they are
 * (MEMPLUG_ANY_NODE: there are none); its zone (MEMPLUG_NR_ZONES: several). */
uint64_t mpl_early_pages(const struct memplug *pool, uint64_t id);
uint64_t mpl_early_pages_in(const struct memplug *pool, uint64_t id, unsigned kind);
int mpl_early_node(const struct memplug *pool, uint64_t id);
unsigned mpl_early_zone(const struct memplug *pool, uint64_t id);
/* What the zone spans at boot; false: nothing. */
bool mpl_early_span(const struct memplug *pool, int node, unsigned kind, memplug_pfn_t *start,
                    uint64_t *nr_pages);
/* The part of that which does not depend on blocks that can go; end 0: there is none. */
void mpl_early_fixed(const struct memplug *pool, int node, unsigned kind, uint64_t *start,
                     uint64_t *end);
/* Of a block in the pool: the frames of a word that are holes; is this frame one? */
uint64_t mpl_early_holes(const struct memplug *pool, const struct mpl_block *block, uint64_t word);
bool mpl_early_is_hole(const struct memplug *pool, const struct mpl_block *block, uint64_t index);
bool mpl_early_has_hole(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t index, uint64_t nr_pages);
/* Does it have no zone of its own? Why can it not go offline; null: it can. */
bool mpl_early_several(const struct memplug *pool, const struct mpl_block *block);
const char *mpl_early_obstacle(const struct memplug *pool, const struct mpl_block *block);

#endif
