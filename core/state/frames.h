/* SPDX-License-Identifier: MIT */
/* Bitmaps and counters of one block; the zone's lock is held. A part of state.h, which includes
 * it. */
#ifndef MPL_FRAMES_H
#define MPL_FRAMES_H

#include "../core.h"

/* --- layout.c --------------------------------------------------------------------------------- */

void mpl_layout_set(struct mpl_layout *layout, const struct memplug_geometry *geometry);

/* --- fresh.c: blocks that have no bitmaps of their own yet ------------------------------------ */

/* What blocks with so many memmap frames hold at first; in memory that lasts as long as the pool.
 * Nothing if there is one already, or there
 * would be no data, or bytes are 0. */
uint64_t mpl_pattern_bytes(const struct mpl_layout *layout);
void mpl_pattern_make(struct memplug *pool, uint64_t nr_memmap, char *memory);
/* Are these a pattern's? Has nobody written to one? */
bool mpl_is_pattern(const struct memplug *pool, const char *bitmaps);
bool mpl_pattern_intact(const struct memplug *pool);

/* Nothing isolated, no frame free but all data held, the memmap frames headed, nothing described;
 * the block's counters 0. Its own bitmaps may hold anything before; no lock is needed. */
void mpl_frames_reset(struct memplug *pool, struct mpl_block *block);
/* Its own bitmaps from here on. */
void mpl_frames_own(const struct memplug *pool, struct mpl_block *block);
/* The same without the lock, of a block with frames to allocate. True: the zone's lock was let go,
 * and is held again; whatever was found has to be looked for anew. */
bool mpl_frames_prepare(struct memplug *pool, struct mpl_zone *zone, struct mpl_block *block);
/* Nobody does that any more. */
void mpl_frames_settle(const struct memplug *pool, const struct mpl_block *block);
/* Has no frame changed since all data was released at once? */
bool mpl_frames_untouched(const struct memplug *pool, const struct mpl_block *block);
/* All data becomes free if it is all that is put and nothing has changed since the reset; false:
 * nothing is done. has_free of the zone is the caller's. */
bool mpl_frames_put_first(struct memplug *pool, struct mpl_block *block, uint64_t index,
                          uint64_t nr_pages);

/* --- frames.c, find.c ------------------------------------------------------------------------- */

/* The block of a frame, if its bitmaps may be read: see core.h. Null otherwise. */
struct mpl_block *mpl_frames_block(const struct memplug *pool, memplug_pfn_t pfn,
                                   uint64_t *index);
/* Such a block's zone, locked; null if the block has left it meanwhile. */
struct mpl_zone *mpl_frames_lock_zone(struct memplug *pool, const struct mpl_block *block);
bool mpl_frames_in_zone(const struct mpl_block *block, const struct mpl_zone *zone);

enum mpl_frame { MPL_FRAME_TAIL = 0, MPL_FRAME_HEAD = 1, MPL_FRAME_FREE = 2, MPL_FRAME_HELD = 3 };
enum mpl_frame mpl_frame_get(const struct memplug *pool, const struct mpl_block *block,
                             uint64_t index);
bool mpl_frame_described(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index);
void mpl_frame_set_described(struct memplug *pool, struct mpl_block *block, uint64_t index,
                             bool described);
/* Nothing without a mover; pinned if the request says so. Before the frame becomes a head, so that
 * no head lacks its page. */
void mpl_frame_describe(struct memplug *pool, struct mpl_block *block, uint64_t index,
                        enum mpl_page_state as, const struct memplug_alloc *request);
/* Asked behind a mark: no if somebody has freed it, who may not have seen the mark. */
bool mpl_frame_is_used(const struct mpl_block *block, uint64_t index);

/* The head of the frame's allocation, if that is used and its head lies in this block. */
bool mpl_frames_head_of(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t index, uint64_t *head);

/* The logically offline chunk that holds this frame, if one does. */
bool mpl_frames_kept_at(const struct memplug *pool, const struct mpl_block *block,
                        uint64_t index, uint64_t *head, uint64_t *end);

/* Is [index, index + nr_pages) exactly one allocation? One that ends with the block may go on in
 * the next; one of memmap frames is none. */
bool mpl_frames_are_allocation(const struct memplug *pool, const struct mpl_block *block,
                               uint64_t index, uint64_t nr_pages);

/* Is [0, nr_pages) the end of an allocation whose head is in an earlier block? As above. */
bool mpl_frames_are_tail(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t nr_pages);

/* Frames that are not free become free; they are not described any more. Managed stays. */
void mpl_frames_put(struct memplug *pool, struct mpl_block *block, uint64_t index,
                    uint64_t nr_pages);

/* Frames that are neither free nor used, or the middle of a kept chunk, become one chunk. */
void mpl_frames_keep(struct memplug *pool, struct mpl_block *block, uint64_t index,
                     uint64_t nr_pages);

/* Free frames of pageblocks that are not isolated become one allocation. take: the lowest nr_pages
 * (power of two, <= 512) that are free and aligned to themselves; false if there are none. */
bool mpl_frames_find(const struct memplug *pool, const struct mpl_block *block,
                     uint64_t nr_pages, uint64_t *index);
bool mpl_frames_take(struct memplug *pool, struct mpl_block *block, uint64_t nr_pages,
                     uint64_t *index);
bool mpl_frames_take_exact(struct memplug *pool, struct mpl_block *block, uint64_t index,
                           uint64_t nr_pages);
/* Following frames of an allocation whose head is in an earlier block: all of this block. */
bool mpl_frames_take_tail(struct memplug *pool, struct mpl_block *block, uint64_t nr_pages);
bool mpl_frames_all_free(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index, uint64_t nr_pages); /* and none isolated */
/* The same of what mpl_vacate() left free: all of it is isolated. A head is described before. */
void mpl_frames_take_isolated(struct memplug *pool, struct mpl_block *block, uint64_t index,
                              uint64_t nr_pages, bool headed);

/* May somebody other than the block's own memmap have these frames? */
bool mpl_frames_are_data(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index, uint64_t nr_pages);
/* The first frame of [index, end) that is not free, isolated or not; end if all are. */
uint64_t mpl_frames_first_used(const struct mpl_block *block,
                               uint64_t index, uint64_t end);

/* Whole words for the slots: the lowest word with free frames, all of them become held; described
 * already, if so wanted: it means nothing while they are held. unhold: and it does not last. */
bool mpl_frames_hold(struct memplug *pool, struct mpl_block *block, bool describe,
                     struct mpl_held *held);
void mpl_frames_unhold(struct memplug *pool, struct mpl_block *block, struct mpl_held *held);

/* Frames in state free of the index's pageblock, isolated or not. */
uint64_t mpl_frames_free_near(const struct memplug *pool, const struct mpl_block *block,
                              uint64_t index);
/* Is all of the index's pageblock free, and not isolated? */
bool mpl_frames_whole(const struct memplug *pool, const struct mpl_block *block, uint64_t index);
/* The zone's first block from this one on that has frames to allocate; null: none. */
struct mpl_block *mpl_frames_next_block(const struct memplug *pool, const struct mpl_zone *zone,
                                        uint64_t from);
/* Likewise, that has a whole pageblock. */
struct mpl_block *mpl_frames_next_whole(const struct memplug *pool, const struct mpl_zone *zone,
                                        uint64_t from);

/* Whether the pageblock is isolated has changed: bring its summary bits up to date. */
void mpl_frames_note(struct memplug *pool, struct mpl_block *block, uint64_t pageblock);

/* The first used head at or behind index that is not the memmap's nor poisoned; false: none. */
bool mpl_frames_next_head(const struct memplug *pool, const struct mpl_block *block,
                          uint64_t *index);
/* Frames of [index, index + nr_pages) that are neither free nor poisoned; held ones count. */
uint64_t mpl_frames_nr_used(const struct memplug *pool, const struct mpl_block *block,
                            uint64_t index, uint64_t nr_pages);
/* Frames in state free, isolated or not, as the counters say. */
uint64_t mpl_frames_nr_free(const struct memplug *pool, const struct mpl_block *block);
uint64_t mpl_frames_count(const struct memplug *pool, const struct mpl_block *block,
                          enum mpl_frame frame);

/* --- isolate.c: pageblocks that the allocator must not touch ---------------------------------- */

/* The pageblocks that [index, index + nr_pages) touches. Isolations nest: one that is isolated
 * twice is given back twice, in any order; also a block's and a span's of it. */
void mpl_isolate_span(struct memplug *pool, struct mpl_block *block, uint64_t index,
                      uint64_t nr_pages);
void mpl_unisolate_span(struct memplug *pool, struct mpl_block *block, uint64_t index,
                        uint64_t nr_pages);
/* The data pageblocks of the whole block; the pageblock that memmap and data share counts. Not a
 * block that is isolated. */
void mpl_isolate_block(struct memplug *pool, struct mpl_block *block);
void mpl_unisolate_block(struct memplug *pool, struct mpl_block *block);
/* Isolated pageblocks; free frames in others. */
uint64_t mpl_block_nr_isolated(const struct memplug *pool, const struct mpl_block *block);
static inline uint64_t mpl_block_nr_free(const struct mpl_block *block)
{
    return block->isolated ? 0 : block->nr_free;
}

#endif
