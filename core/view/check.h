/* SPDX-License-Identifier: MIT */
/*
 * Invariants as tables: a row is broken if its condition is true. Whoever walks gives up at the
 * first broken row, so later tables may rely on earlier ones. The control lock is held and nobody
 * allocates or frees.
 */
#ifndef MPL_CHECK_H
#define MPL_CHECK_H

#include "../state/huge.h"
#include "../state/hvo.h"
#include "look.h"

struct mpl_rule {
    bool broken;
    const char *why;
};

/* Where the rows are about: -1 and MPL_NO_PFN if it is no block and no frame. */
struct mpl_where {
    const char *step; /* "pool", "block", "unit", "group", "frames", "slots", "zone", "node" */
    int64_t block;
    int node;
    uint64_t pfn;
};

/* 0, or -EUCLEAN and the first broken row in the reason. */
int mpl_check_rules(struct memplug_reason *reason, const struct mpl_where *where,
                    const struct mpl_rule *rules, unsigned nr_rules);

/* The policy, and memory groups against the blocks, which were checked. */
int mpl_check_policy(const struct memplug *pool, struct memplug_reason *reason);

/* Bitmaps, counters and struct pages of an online block. */
int mpl_check_frames(struct memplug *pool, const struct mpl_block *block,
                     struct memplug_reason *reason);

/* The huge page, if it is one, at a described head; then the pools of them. */
int mpl_check_huge_page(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t index, struct memplug_reason *reason);
int mpl_check_huge(struct memplug *pool, struct memplug_reason *reason);
/* What is lent is what huge pages lend. nr_host: pages of the host's memmaps that are. */
int mpl_check_lent(const struct memplug *pool, uint64_t *nr_host, struct memplug_reason *reason);

/* What slots hold is what the bitmaps call held. */
int mpl_check_slots(struct memplug *pool, struct memplug_reason *reason);

/* Bits of the block's poisoned frames. */
uint64_t mpl_check_nr_poisoned(const struct memplug *pool, const struct mpl_block *block);

/* The summary of the block has a bit. */
bool mpl_check_has_free(const struct memplug *pool, const struct mpl_block *block);

#endif
