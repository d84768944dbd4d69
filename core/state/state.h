/* SPDX-License-Identifier: MIT */
/*
 * state/ is data and its rules: it never calls a step, a mover, a subscriber or the host, but for
 * relax() in a spin lock and cpu(). One group per file.
 */
#ifndef MPL_STATE_H
#define MPL_STATE_H

#include "../core.h"
#include "frames.h"
#include "huge.h"
#include "policy.h"

/* --- range.c: spans of addresses and of blocks ------------------------------------------------ */

/* Is [address, address + size_bytes) non-empty, whole blocks and below the limit? 0, -EINVAL or
 * -E2BIG with the reason. Address 0 is refused as Linux's hotplug ranges never start there. */
int mpl_range_check(struct mpl_op *op, uint64_t address, uint64_t size_bytes);

/* Do [a, a + a_size) and [b, b + b_size) share anything? Empty ones share nothing. */
bool mpl_range_overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size);

/* The lowest first block, from 1 on, of nr_blocks absent ones whose memmap begins at a multiple of
 * alignment in the window; 0 if there is none. own: nor does a shared unit lie over it. */
uint64_t mpl_range_find(const struct memplug *pool, uint64_t nr_blocks, uint64_t alignment,
                        bool own);

/* --- section.c: the unit in which memory is described ----------------------------------------- */

uint64_t mpl_sections_per_block(const struct memplug_geometry *geometry);
uint64_t mpl_section_of(const struct memplug_geometry *geometry, memplug_pfn_t pfn);
memplug_pfn_t mpl_section_start(const struct memplug_geometry *geometry, uint64_t section);

/* Is the section online, in this zone of this node? */
bool mpl_section_online_in(const struct memplug *pool, uint64_t section,
                           const struct mpl_zone *zone);

/* --- share.c: large units of the memmap window that several blocks share ---------------------- */

/* The large unit as memmaps use it; the page if they use none. */
uint64_t mpl_share_unit_bytes(const struct memplug_geometry *geometry);

/* Does this end of the block's memmap lie in a large unit that describes other blocks too, and no
 * other than there can be? offset: that unit's. */
bool mpl_share_at(const struct memplug *pool, uint64_t block, enum mpl_end at, uint64_t *offset);

/* The first block whose memmap is mapped through the shared unit at this offset; null: none is. */
const struct mpl_block *mpl_share_holder(const struct memplug *pool, uint64_t offset);

/* Are all blocks that it describes being added, with a memmap of the host's? */
bool mpl_share_may_provide(const struct memplug *pool, uint64_t offset);

/* A block that holds a shared unit which also lies over this block's struct pages; null: none. */
const struct mpl_block *mpl_share_over(const struct memplug *pool, uint64_t block);

/* --- altmap.c --------------------------------------------------------------------------------- */

/* Of the nr_pages of a unit that begins at base, nr_free behind the first nr_reserve may be handed
 * out. -EINVAL: there are not so many; nothing is changed. */
int mpl_altmap_set(struct mpl_altmap *altmap, memplug_pfn_t base, uint64_t nr_pages,
                   uint64_t nr_reserve, uint64_t nr_free);

/* Frames at the unit's head that are the memmap's: its data begins behind them. */
uint64_t mpl_altmap_offset(const struct mpl_altmap *altmap);

/* nr_pages frames, aligned to the lowest set bit of nr_pages; MPL_NO_PFN if they do not fit. */
memplug_pfn_t mpl_altmap_take(struct mpl_altmap *altmap, uint64_t nr_pages);
void mpl_altmap_give_back(struct mpl_altmap *altmap, uint64_t nr_pages); /* only counts */
uint64_t mpl_altmap_available(const struct mpl_altmap *altmap);

/* --- block.c: the only writer of mpl_block.state ---------------------------------------------- */

bool mpl_block_may_become(enum memplug_block_state from, enum memplug_block_state to);
void mpl_block_set_state(struct mpl_block *block, enum memplug_block_state state);

/* The frames that the allocator may get: behind the memmap. */
memplug_pfn_t mpl_block_data_start(const struct memplug *pool, const struct mpl_block *block);
uint64_t mpl_block_data_pages(const struct memplug *pool, const struct mpl_block *block);

/* Without holes. */
uint64_t mpl_block_present_pages(const struct memplug *pool, const struct mpl_block *block);

/* --- page.c: the only writer of mpl_page.state ------------------------------------------------ */

enum mpl_page_state mpl_page_state(const struct mpl_page *page);
uint32_t mpl_page_pins(const struct mpl_page *page);
bool mpl_page_may_become(enum mpl_page_state from, enum mpl_page_state to);

/* Write a whole struct page of an allocation: USED or TARGET, perhaps with a pin from the start, so
 * that nobody sees it without. For KEPT see mpl_page_keep(). */
void mpl_page_describe(struct mpl_page *page, enum mpl_page_state state, uint32_t nr_pages,
                       uint8_t mover, uint64_t cookie, bool pinned);

/* KEPT with these pins; and the way back, KEPT -> NONE, which hands them out. */
void mpl_page_keep(struct mpl_page *page, uint32_t nr_pages, uint32_t nr_pins);
bool mpl_page_unkeep(struct mpl_page *page, uint32_t *nr_pins);

/* If the page is in state from and, unless to is KEPT, has no pins: make it to and return true. */
bool mpl_page_change(struct mpl_page *page, enum mpl_page_state from, enum mpl_page_state to);

/* The owner frees it. USED -> NONE: returns true, the caller frees the frames. MOVING or TARGET ->
 * DYING: *later = true. False with neither: pinned. */
bool mpl_page_free(struct mpl_page *page, bool *later);
/* The same as an answer for the owner: 0, -EBUSY pinned, -EINVAL not his to free. */
int mpl_page_end(struct mpl_page *page, bool *later);
/* The same of a huge page, which becomes POOLED in place of NONE. */
int mpl_page_end_huge(struct mpl_page *page, bool *later);
/* If the huge page is in state from and has no pins, it is POOLED and nobody's. */
bool mpl_page_pool(struct mpl_page *page, enum mpl_page_state from);
/* POOLED -> NONE; or USED or TARGET, with an owner. Nobody else may change the page meanwhile. */
void mpl_page_unpool(struct mpl_page *page, enum mpl_page_state to, uint8_t mover,
                     uint64_t cookie, bool pinned);
int mpl_page_pin(struct mpl_page *page);   /* -EAGAIN moving, -EINVAL */
int mpl_page_unpin(struct mpl_page *page); /* -EINVAL not pinned */

/* --- poison.c: frames that are never handed out again ----------------------------------------- */

/* One that is poisoned in an online block has the state of a used frame of nobody's: it is no
 * allocation and no obstacle. Written under the control lock and the zone's. */
bool mpl_poisoned(const struct mpl_block *block, uint64_t index);
uint64_t mpl_poisoned_mask(const struct mpl_block *block, uint64_t word);
/* The first one at or behind index; the block's pages if there is none. */
uint64_t mpl_poisoned_next(const struct memplug *pool, const struct mpl_block *block,
                           uint64_t index);
/* A vacated frame becomes one; the block has its bitmap. */
void mpl_poison_set(struct memplug *pool, struct mpl_block *block, uint64_t index);
uint64_t mpl_poison_bytes(const struct memplug *pool); /* of a block's bitmap */

/* --- percpu.c: slots; what they do most is in fast.h ------------------------------------------ */

/* Any slot: nobody else is inside until it is started again. */
void mpl_slot_stop(const struct memplug *pool, struct mpl_slot *slot);
void mpl_slot_start(struct mpl_slot *slot);

/* own: a slot of the caller's own; null: this CPU's. One frame from a slot; refills it. -ENOMEM.
 * With a mover it is described, as USED or TARGET. */
int mpl_percpu_alloc(struct memplug *pool, struct mpl_slot *own,
                     const struct memplug_alloc *request, enum mpl_page_state as,
                     memplug_pfn_t *pfn);
/* One undescribed or USED frame back; the caller has not looked at anything yet. */
int mpl_percpu_free(struct memplug *pool, struct mpl_slot *own, memplug_pfn_t pfn);
/* One used frame whose page the caller has made NONE; and those of a word in a pageblock
 * that was isolated before the last pass. */
void mpl_percpu_free_ended(struct memplug *pool, memplug_pfn_t pfn);
void mpl_percpu_free_word(struct memplug *pool, struct mpl_block *block, uint64_t word,
                          uint64_t mask);

/* Every slot is left once, and gives back what it holds of isolated pageblocks. After that nobody
 * who looked at a block before the call still does: readers of bitmaps are inside a slot or hold
 * the zone's lock. drain: it gives back all that it holds. */
void mpl_percpu_pass(struct memplug *pool);
void mpl_percpu_drain(struct memplug *pool);
void mpl_slot_drain(struct memplug *pool, struct mpl_slot *slot);
void mpl_slot_put_whole(struct memplug *pool, struct mpl_held *held); /* from inside its slot */

/* --- zone.c, node.c --------------------------------------------------------------------------- */

/* Does the zone span any of these pages? Takes its lock. */
bool mpl_zone_spans(const struct memplug *pool, const struct mpl_zone *zone, memplug_pfn_t start,
                    uint64_t nr_pages);
void mpl_zone_grow(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t start,
                   uint64_t nr_pages);
/* [start, start + nr_pages) is no longer online in zone: the span shrinks to what is. */
void mpl_zone_shrink(struct memplug *pool, struct mpl_zone *zone, memplug_pfn_t start,
                     uint64_t nr_pages);
/* The block's pages become present in its zone, or stop being it. */
void mpl_zone_count(struct memplug *pool, struct mpl_block *block, bool present);
/* A block's summary became empty or not: keep has_free. */
void mpl_zone_note_free(struct memplug *pool, struct mpl_block *block);

bool mpl_node_valid(const struct memplug *pool, int node);
/* A unit's blocks came to their node, or go. */
void mpl_node_count(struct memplug *pool, const struct mpl_block *unit, bool present);
/* Nodes with a CPU or a block, a bit each. */
uint64_t mpl_nodes_online(const struct memplug *pool);

#endif
