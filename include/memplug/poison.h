/* SPDX-License-Identifier: MIT */
/*
 * Frames whose memory is bad, or is about to be. A poisoned frame is never handed out again. It
 * does not hinder offline, its block does not go online again (-EHWPOISON), and it is counted until
 * its range is removed (linux semantics, 11). Both calls take the control lock.
 */
#ifndef MEMPLUG_POISON_H
#define MEMPLUG_POISON_H

#include <memplug/memplug.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The frame may go bad: what is in it is moved away first, then it is kept out. 0, also if it is
 * poisoned already. -ENXIO no block holds such a frame, -EIO it is not online; -EBUSY nobody can
 * move it, or not now, or it is a memmap; -ENOMEM no room; and as memplug_offline(). On failure
 * nothing has changed.
 */
int memplug_soft_offline(struct memplug *pool, memplug_pfn_t pfn,
                         const struct memplug_limit *limit, struct memplug_reason *reason);

/*
 * The frame is bad: its content is gone. If it is used, its owner is told by the mover's lost(),
 * and all of the allocation is his no more: the other frames are free. A frame that nobody can take
 * from its user is refused: -EBUSY (a memmap, a page without a mover, a mover without lost(),
 * pinned, also in what a huge page has lent, logically offline). On failure nothing has changed.
 * -EHWPOISON it is poisoned already; -ENXIO not online; -ENOMEM, -ETIMEDOUT, -EINTR.
 */
int memplug_hard_offline(struct memplug *pool, memplug_pfn_t pfn,
                         const struct memplug_limit *limit, struct memplug_reason *reason);

#ifdef __cplusplus
}
#endif
#endif
