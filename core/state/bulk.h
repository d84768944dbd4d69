/* SPDX-License-Identifier: MIT */
/* Single pages, many at once, through one slot. */
#ifndef MPL_BULK_H
#define MPL_BULK_H

#include "state.h"

/* As many as are asked for at most while a slot is held: whoever stops it waits for no more. */
#define MPL_BULK_PAGES 64u

/* own: a slot of the caller's own; null: this CPU's. Both are inside it once, for nr of at most
 * MPL_BULK_PAGES. Returns how many it took; cookies: one each, or null, and they count up. */
unsigned mpl_bulk_alloc(struct memplug *pool, struct mpl_slot *own,
                        const struct memplug_alloc *request, const uint64_t *cookies,
                        memplug_pfn_t *pfns, unsigned nr);
/* Returns how many are not their owners' any more; errors: nr of them, or null. */
unsigned mpl_bulk_free(struct memplug *pool, struct mpl_slot *own, const memplug_pfn_t *pfns,
                       unsigned nr, int *errors);

#endif
