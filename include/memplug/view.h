/* SPDX-License-Identifier: MIT */
/*
 * What looks on: blocks, zones, nodes, figures, why a block cannot go, dump and check. A part of
 * memplug.h, which includes it.
 */
#ifndef MEMPLUG_VIEW_H
#define MEMPLUG_VIEW_H

#include <memplug/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug;

enum memplug_block_state {
    MEMPLUG_BLOCK_ABSENT,
    MEMPLUG_BLOCK_ADDING, /* also: being removed */
    MEMPLUG_BLOCK_OFFLINE,
    MEMPLUG_BLOCK_GOING_ONLINE,
    MEMPLUG_BLOCK_ONLINE,
    MEMPLUG_BLOCK_GOING_OFFLINE,
};

/* nr_free_pages is what the zones have: not what slots hold (slot.h), which comes when memory runs
 * short, as MemFree leaves out what the kernel's CPUs have at hand. */
struct memplug_block_info {
    enum memplug_block_state state;
    enum memplug_zone zone; /* MEMPLUG_NR_ZONES unless in a zone: online, or going */
    int node;
    enum memplug_memmap memmap;
    uint64_t address, size_bytes;
    uint64_t unit_first, unit_nr_blocks; /* what can only be removed as one */
    uint64_t nr_memmap_pages, nr_managed_pages, nr_free_pages, nr_isolated_pageblocks;
    uint64_t nr_absent_pages;   /* holes of a boot block */
    uint64_t nr_poisoned_pages; /* poison.h */
    uint64_t serial;            /* of the add that made it: never the same again in this pool */
    int group;                  /* 0: none */
    bool early;                 /* it is boot memory */
};


struct memplug_zone_info {
    memplug_pfn_t start;
    uint64_t nr_spanned_pages, nr_present_pages, nr_managed_pages, nr_free_pages;
    uint64_t nr_isolated_pageblocks;
    uint64_t nr_early_pages; /* present ones that are boot memory */
};

struct memplug_node_info {
    bool online;            /* it has a block, in whatever state, or a CPU */
    bool has_memory;        /* a zone of it has present pages */
    bool has_normal_memory; /* a zone below Movable has */
    uint64_t nr_blocks;
};

struct memplug_stat {
    uint64_t nr_blocks, nr_online_blocks;
    uint64_t nr_present_pages, nr_managed_pages, nr_free_pages, nr_memmap_pages;
    uint64_t block_bytes;        /* one block's descriptor */
    uint64_t host_bytes;         /* taken from the host now, for memmaps and bitmaps */
    uint64_t preexisting_bytes;  /* what the blocks in the pool cost of what was there before */
    uint64_t nr_moved_pages;     /* since open */
    uint64_t nr_poisoned_pages;
};

/* Snapshots; never wait for the control lock. -ENODEV for an absent block, -EINVAL. */
int memplug_block_info(const struct memplug *pool, uint64_t block, struct memplug_block_info *info);
int memplug_zone_info(const struct memplug *pool, int node, enum memplug_zone zone,
                      struct memplug_zone_info *info);
int memplug_node_info(const struct memplug *pool, int node, struct memplug_node_info *info);
void memplug_stat(const struct memplug *pool, struct memplug_stat *stat);

/* Which block holds this address, and how many there can be. */
uint64_t memplug_block_of(const struct memplug *pool, uint64_t address);
uint64_t memplug_nr_blocks_max(const struct memplug *pool);

/* The zones that a block is in or may go to, best first, as Linux's valid_zones: of an online block
 * its zone, none if it lies in several; of another one the zone that MEMPLUG_ONLINE_DEFAULT would
 * choose now, and the other possible one. Returns how many, or -ENODEV, also while a block comes or
 * goes. Does not wait for the control lock. */
int memplug_block_zones(const struct memplug *pool, uint64_t block, enum memplug_zone zones[2]);

/* What a frame is, as Linux's kpageflags would say it. */
enum memplug_frame_kind {
    MEMPLUG_FRAME_ABSENT,  /* not online, or a hole */
    MEMPLUG_FRAME_MEMMAP,  /* holds struct pages of its own unit */
    MEMPLUG_FRAME_FREE,    /* also: kept at hand by a CPU */
    MEMPLUG_FRAME_USED,    /* by an owner that nobody can move */
    MEMPLUG_FRAME_MOVABLE, /* used, its owner has a mover */
    MEMPLUG_FRAME_KEPT,    /* logically offline */
    MEMPLUG_FRAME_HUGE,    /* of a huge page, free or used */
    MEMPLUG_FRAME_POISONED,
};
enum memplug_frame_kind memplug_frame_kind(const struct memplug *pool, memplug_pfn_t pfn);

/* Could this block go offline now? 0, or the error that offline would give, with everything in the
 * reason; changes nothing. -ENODEV, -EINVAL as offline. Movers are asked. */
int memplug_why(struct memplug *pool, uint64_t block, struct memplug_reason *reason);

/* The same, and each allocation in the way by itself as it is found: a reason of its own, nr_pages
 * its pages (0: not known). tell may be null; it runs without a lock and may take its time. */
typedef void memplug_obstacle_t(void *context, const struct memplug_reason *reason);
int memplug_why_each(struct memplug *pool, uint64_t block, memplug_obstacle_t *tell, void *context,
                     struct memplug_reason *reason);

/* A sentence in English, cut to size_bytes and terminated; returns its full length. */
size_t memplug_reason_text(const struct memplug_reason *reason, char *text, size_t size_bytes);

/* The whole state as text, to the last frame; equal states give equal texts. Takes the control
 * lock; exact while nobody allocates or frees. */
typedef void memplug_write_t(void *context, const char *text, size_t length);
int memplug_dump(struct memplug *pool, memplug_write_t *write, void *context);

/* Walk everything; 0, or -EUCLEAN with the first broken invariant in the reason. As dump. */
int memplug_check(struct memplug *pool, struct memplug_reason *reason);

#ifdef __cplusplus
}
#endif
#endif
