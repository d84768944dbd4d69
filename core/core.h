/* SPDX-License-Identifier: MIT */
/*
 * What a pool is made of. Everything hangs off struct memplug, which lies at the start of the
 * metadata; there are no globals.
 *
 * Locks, outermost first: the host's control lock (add, online, offline, remove) - a slot - the
 * huge pages' - a zone - nothing. Two zones are never locked together, nor two slots.
 *
 * A block's bitmaps may be looked at by the operation that has the control lock, and by whoever
 * holds a slot's or the zone's lock and has then seen the block in a zone and GOING_ONLINE, ONLINE
 * or GOING_OFFLINE (mpl_frames_block). So mpl_frames_reset comes before block->zone is set, and
 * whatever takes a block out of its zone does so under the zone's lock and then passes every
 * slot's lock once, so that no reader is left when the bitmaps go or are reset. A block that has
 * none of its own (fresh.c) waits with that until it is removed.
 *
 * Fields say who writes them:
 *   [C] under the control lock, read anywhere (atomic)
 *   [Z] under the zone's lock
 *   [H] under huge_lock
 *   [O] at open only
 */
#ifndef MPL_CORE_H
#define MPL_CORE_H

#include <stdatomic.h>

#include <memplug/boot.h>
#include <memplug/huge.h>
#include <memplug/memplug.h>
#include <memplug/policy.h>

#include "block.h"
#include "compiler.h"
#include "errors.h"
#include "op.h"
#include "page.h"
#include "slot.h"
#include "state/pfn.h"

#define MPL_MAX_BLOCKS 4096u
#define MPL_MAX_NODES 64u
#define MPL_MAX_MOVERS 16u /* number 0 is nobody */
#define MPL_MAX_SUBSCRIBERS 16u
#define MPL_MAX_LISTENERS 16u
#define MPL_MAX_GROUPS 1024u
#define MPL_MAX_BATCH 1024u
#define MPL_WORD_PAGES 64u /* frames that one word of a bitmap describes */
#define MPL_NO_PFN UINT64_MAX
#define MPL_SPINS_TO_SLEEP 1000u /* for relax(): sleep now */

/* --- zones and nodes -------------------------------------------------------------------------- */

struct mpl_zone {
    struct mpl_spin lock;      /* in a line of its own: whoever waits looks at it all the time */
    uint8_t kind MPL_ALIGNED(MPL_CACHE_LINE); /* [O] enum memplug_zone */
    int16_t node;              /* [O] */
    memplug_pfn_t start;       /* [Z] 0 if nothing is spanned */
    uint64_t nr_spanned;       /* [Z] pages, as are those that follow */
    uint64_t nr_present;       /* [Z] */
    uint64_t nr_early;         /* [Z] of these, boot memory */
    uint64_t nr_managed;       /* [Z] */
    uint64_t nr_free;          /* [Z] in state free (not held), isolated or not */
    uint64_t nr_isolated;      /* [Z] pageblocks */
    uint64_t fixed_start, fixed_end; /* [Z] pfns that boot memory spans for ever; end 0: none */
    uint64_t has_free[MPL_MAX_BLOCKS / 64];  /* [Z] bit per block: its summary is not empty */
    uint64_t has_whole[MPL_MAX_BLOCKS / 64]; /* [Z] bit per block: so is nr_whole */
} MPL_ALIGNED(MPL_CACHE_LINE);

struct mpl_node {
    uint64_t nr_blocks; /* [C] present ones */
    struct mpl_zone zones[MEMPLUG_NR_ZONES];
};

/* A memory group. Its pages count from the moment its block enters a zone until it leaves it. */
struct mpl_group {
    bool used;             /* [C] else the rest is 0 */
    bool dynamic;          /* [C] */
    int16_t node;          /* [C] */
    uint32_t nr_blocks;    /* [C] */
    uint64_t nr_pages;     /* [C] of the device; dynamic: of a unit */
    uint64_t nr_kernel;    /* [C] pages in kernel zones */
    uint64_t nr_movable;   /* [C] pages in Movable */
};

/* --- boot memory ------------------------------------------------------------------------------ */

/* As memplug_boot() was given it. */
struct mpl_boot {
    struct memplug_boot_memory *memory; /* [C] of the host; null: there was no boot */
    unsigned nr_memory;
    uint64_t dma_limit, dma32_limit;
};

/* --- huge pages ------------------------------------------------------------------------------- */

struct mpl_huge_count {
    uint64_t nr;       /* free and used */
    uint64_t nr_free;  /* POOLED */
    uint64_t nr_surplus;
    uint64_t nr_excess; /* free ones that are EXCESS; never more than nr_surplus */
    uint64_t nr_lent;  /* whose memmap is lent */
};

/* The pool of one size. Always nr_free >= nr_excess + nr_withheld + nr_reserved: a promise is
 * kept. */
struct mpl_huge {
    struct mpl_huge_count all, nodes[MPL_MAX_NODES];
    uint64_t nr_reserved;
    uint64_t nr_withheld; /* free ones, not EXCESS, that leave with a block going offline */
};

/* --- the pool --------------------------------------------------------------------------------- */

struct memplug {
    const struct memplug_host *host;   /* [O] */
    struct memplug_geometry geometry;  /* [O] */
    struct mpl_layout layout;          /* [O] */
    struct mpl_pattern patterns[MPL_NR_PATTERNS]; /* [O] */
    enum memplug_hvo hvo;              /* [O] */
    struct mpl_block *blocks;          /* [O] nr_blocks_max of them */
    struct mpl_node *nodes;            /* [O] nr_nodes */
    struct mpl_slot *slots;            /* [O] nr_slots, one per CPU of the host, and then
                                          MEMPLUG_MAX_SLOTS of callers' own */
    atomic_uint nr_own_slots;          /* no more of these were ever open at once */
    struct memplug_move *batch;        /* [O] MPL_MAX_BATCH; used under the control lock */
    struct mpl_group *groups;          /* [O] MPL_MAX_GROUPS of them; number 1 is the first */
    unsigned nr_groups_touched;        /* [C] no higher number was ever given */
    struct memplug_policy policy;      /* [C] */
    unsigned nr_blocks_max, nr_nodes, nr_slots;
    atomic_uint nr_movers;             /* including nobody */
    struct memplug_mover movers[MPL_MAX_MOVERS];
    unsigned nr_subscribers;           /* [C] by priority, highest first */
    const struct memplug_subscriber *subscribers[MPL_MAX_SUBSCRIBERS];
    unsigned nr_listeners;             /* [C] in order of listening */
    const struct memplug_listener *listeners[MPL_MAX_LISTENERS];
    struct memplug_online_hook hook;   /* [C] */
    struct mpl_boot boot;              /* [C] */
    uint64_t cpu_nodes;                /* [O] a bit per node with a CPU */
    uint64_t serial;                   /* [C] adds that have succeeded */
    struct mpl_spin huge_lock;
    struct mpl_huge huge[MEMPLUG_NR_HUGE]; /* [H] */
    _Atomic uint64_t host_bytes;       /* [C] */
    _Atomic uint64_t nr_moved_pages;   /* [C] */
};

/* --- small helpers ---------------------------------------------------------------------------- */
static inline struct mpl_block *mpl_block_at(const struct memplug *pool, uint64_t block)
{
    MPL_ASSERT(block < pool->nr_blocks_max);
    return &pool->blocks[block];
}

static inline enum memplug_block_state mpl_block_state(const struct mpl_block *block)
{
    return (enum memplug_block_state)atomic_load_explicit(&block->state, memory_order_acquire);
}

static inline uint64_t mpl_block_id(const struct memplug *pool, const struct mpl_block *block)
{
    return (uint64_t)(block - pool->blocks);
}

static inline memplug_pfn_t mpl_block_start(const struct memplug *pool,
                                            const struct mpl_block *block)
{
    return mpl_pfn_of_block(&pool->geometry, mpl_block_id(pool, block));
}

static inline struct mpl_block *mpl_unit_head(const struct memplug *pool,
                                              const struct mpl_block *block)
{
    return mpl_block_at(pool, block->unit_first);
}

static inline struct mpl_zone *mpl_zone_at(const struct memplug *pool, int node, unsigned kind)
{
    MPL_ASSERT(node >= 0 && (unsigned)node < pool->nr_nodes && kind < MEMPLUG_NR_ZONES);
    return &pool->nodes[node].zones[kind];
}

static inline struct mpl_zone *mpl_zone_of(const struct memplug *pool,
                                           const struct mpl_block *block)
{
    return mpl_zone_at(pool, block->node, block->zone);
}

/* The struct page of a frame, whatever it holds. */
static inline struct mpl_page *mpl_page_at(const struct memplug *pool, memplug_pfn_t pfn)
{
    return (struct mpl_page *)(void *)(pool->host->memmap +
                                       mpl_memmap_bytes(&pool->geometry, pfn.nr));
}

/* Under huge_lock; read anywhere. */
static inline void mpl_huge_flag(struct mpl_page *page, unsigned set, unsigned clear)
{
    MPL_PUT(page->huge_flags, (uint8_t)((page->huge_flags & ~clear) | set));
}

/* By a span of frames; the zone's lock is held, or it is a hint. */
static inline bool mpl_span_isolated(const struct memplug *pool, const struct mpl_block *block,
                                     uint64_t index)
{
    uint64_t pageblock = index >> pool->geometry.pageblock_order;
    const char *words = mpl_bitmaps(block) + pool->layout.isolated;

    return (__atomic_load_n((const uint64_t *)(const void *)words + pageblock / 64,
                            __ATOMIC_ACQUIRE) >> (pageblock % 64) & 1) != 0;
}

/* Read by slots without the zone's lock, hence atomic: a slot that misses a new isolation is found
 * by the pass that follows it. One that sees that it ended sees what was done meanwhile. */
static inline bool mpl_isolated(const struct memplug *pool, const struct mpl_block *block,
                                uint64_t index)
{
    return __atomic_load_n(&block->isolated, __ATOMIC_ACQUIRE) ||
           mpl_span_isolated(pool, block, index);
}

/* From now on whoever frees a single page of this block looks at its struct page. */
static inline void mpl_frames_mark(struct mpl_block *block)
{
    if (!__atomic_load_n(&block->marked, __ATOMIC_SEQ_CST))
        __atomic_store_n(&block->marked, true, __ATOMIC_SEQ_CST);
}

/* Every slot, in order; nothing is known of those that are opened meanwhile. */
static inline struct mpl_slot *mpl_slot_at(const struct memplug *pool, unsigned index)
{
    unsigned nr_own = atomic_load_explicit(&pool->nr_own_slots, memory_order_acquire);

    return index < pool->nr_slots + nr_own ? &pool->slots[index] : NULL;
}

#endif
