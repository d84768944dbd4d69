/* SPDX-License-Identifier: MIT */
/*
 * What the program asked of its mappings, page by page. A move replaces mappings, and the kernel
 * forgets all of this with the old one; so it is written down here and set again.
 *
 * One word per page: PROT_* in the low three bits, flags, and the number of a name.
 */
#ifndef MPL_LINUX_ATTRS_H
#define MPL_LINUX_ATTRS_H

#include "space.h"

#define MPL_ATTR_PROTECTION 7u
#define MPL_ATTR_MAPPED 8u
#define MPL_ATTR_LOCKED 16u
#define MPL_ATTR_NO_DUMP 32u
#define MPL_ATTR_HUGEPAGE 64u
#define MPL_ATTR_NO_HUGEPAGE 128u
#define MPL_ATTR_SEQUENTIAL 256u
#define MPL_ATTR_RANDOM 512u
/* In a forked child: no child of its own is to have it; and equal pages may be one. */
#define MPL_ATTR_STAYS 1024u
#define MPL_ATTR_MERGEABLE 2048u
#define MPL_ATTR_NAME_SHIFT 24

/* Pages of one unit that are one mapping. */
struct mpl_piece {
    uint64_t first, nr;
    uint32_t attr;
};

/* The next piece from piece->first + piece->nr on (so begin with all zeros); false: no more. A unit
 * of huge pages is one piece with all that any of its pages was given. */
bool mpl_piece_next(const struct memplug_space *space, uint64_t unit, uint32_t flags,
                    struct mpl_piece *piece);

/* Give the mapping at va its attributes; protection and MAPPED it has. full: no page of it is a
 * hole, so locking it allocates nothing. Returns how many were refused. Allocates nothing. */
unsigned mpl_attrs_apply(const struct memplug_space *space, void *va, uint64_t size_bytes,
                         uint32_t attr, bool full);

void mpl_attrs_set(const struct memplug_space *space, const struct mpl_part *part, uint32_t clear,
                   uint32_t set);

/* What an advice changes of a mapping's attributes: nothing, if it is not one of those. */
void mpl_attrs_of_advice(int advice, uint32_t *clear, uint32_t *set);

/* The number of a name, as bits of an attribute. -ENOSPC, -EINVAL too long. */
int mpl_attrs_name(struct memplug_space *space, const char *name, uint32_t *bits);

#endif
