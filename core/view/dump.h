/* SPDX-License-Identifier: MIT */
/* Parts of the dump that stand in files of their own. The control lock is held. */
#ifndef MPL_DUMP_H
#define MPL_DUMP_H

#include "look.h"
#include "text.h"

/* The policy, and the memory groups that there are. */
void mpl_dump_policy(const struct memplug *pool, struct mpl_text *text);

#endif
