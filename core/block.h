/* SPDX-License-Identifier: MIT */
/* A memory block, and where what is known of its frames lies. A part of core.h, which includes it;
 * there it says who writes to fields. */
#ifndef MPL_BLOCK_H
#define MPL_BLOCK_H

#include <memplug/huge.h>

/* vmem_altmap: which frames at the head of a unit hold its memmap. In pages; never reused: freeing
 * only counts. */
struct mpl_altmap {
    uint64_t base_pfn, end_pfn; /* of the unit */
    uint64_t reserve;           /* frames before the first that may be handed out */
    uint64_t free;              /* frames that may be handed out */
    uint64_t align;             /* of these, lost to alignment */
    uint64_t alloc;             /* of these, handed out */
};

/* A word of each bitmap that has a bit per frame. Side by side: three bitmaps of 4 KiB would have
 * it at the same place of three pages, and a load there waits for stores to any such place. */
struct mpl_bits {
    uint64_t free, head, described;
};

/* Where the bitmaps and counters of one block stand, from mpl_block.bitmaps on. The same for every
 * block of a pool. Bits are numbered by page in the block. */
struct mpl_layout {
    uint64_t nr_pages, nr_words, nr_pageblocks;
    uint64_t bits;      /* struct mpl_bits[nr_words]; they come first, at 0 */
    uint64_t summary;   /* bit per word: it has a frame to allocate */
    uint64_t isolated;  /* bit per pageblock: a span of it is; a whole block has its own flag */
    uint64_t nr_free;   /* uint16_t[nr_pageblocks]: frames in state free, isolated or not */
    uint64_t whole;     /* bit per pageblock: it is wholly free, and not isolated */
    uint64_t nr_isolations; /* uint16_t[nr_pageblocks]: spans that did; 0: the bit is not set */
    uint64_t lent;          /* bit per frame: it holds a memmap, and is lent; 0: no such bitmap */
    uint64_t bytes;
};

/*
 * What the bitmaps of a block say at first: all data held, when it enters a zone, and all data
 * free, when it was released as a whole. They are the same for all blocks with so many memmap
 * frames, and such a block looks into these until a frame of it changes (fresh.c). Nobody ever
 * writes to them.
 */
struct mpl_pattern {
    uint64_t nr_memmap_pages;
    uint64_t nr_whole;   /* pageblocks that are all data */
    char *held, *free;   /* null: there is no such pattern */
    uint64_t sum;        /* of all its words: see mpl_pattern_intact() */
};
#define MPL_NR_PATTERNS 3u /* the host's memmap; a block's own; the same, padded */

/* Where a memmap meets its neighbours' in the window. One that lies in a single large unit, and
 * does not fill it, has a head and no tail. */
enum mpl_end { MPL_END_HEAD, MPL_END_TAIL, MPL_NR_ENDS };

/*
 * The state of a frame of an online block, in two bits (free, head):
 *   1 0  free
 *   1 1  free, and held by a slot, with all of its pageblock as tails or without; or data that
 *        online has neither released nor kept yet; or a hole of boot memory
 *   0 1  first frame of an allocation; or of the block's own memmap frames, each of which is one
 *        where they can be lent
 *   0 0  another frame of what the nearest 0 1 before it heads, or such a 1 1
 */
struct mpl_block {
    _Atomic uint8_t state;      /* [C] enum memplug_block_state; written in block.c only */
    uint8_t zone;               /* [C] enum memplug_zone; MEMPLUG_NR_ZONES unless in a zone */
    uint8_t memmap;             /* [C] enum memplug_memmap, never AUTO */
    bool bitmaps_from_host;     /* [C] */
    bool copying;               /* somebody makes its own bitmaps: set under the zone's lock,
                                   cleared without; nobody else changes them meanwhile */
    bool isolated;              /* [Z] all of its data is, since it comes or goes; read anywhere */
    bool shares[MPL_NR_ENDS];   /* [C] that end of its memmap is in a shared unit: share.c */
    bool early;                 /* [C] it is boot memory */
    bool marked;                /* a single page here may have pins, or not be USED; written by
                                   whoever makes it so, read anywhere */
    bool announced;             /* [C] GOING_OFFLINE or GOING_ONLINE was sent and not ended */
    int16_t node;               /* [C] */
    uint16_t group;             /* [C] a memory group; 0: none */
    int16_t gains_normal;       /* [C] memplug_notice.node_normal and node_any of the pair of */
    int16_t gains_any;          /* events that was begun */
    uint32_t unit_first;        /* [C] the unit: what is added and removed as one */
    uint32_t unit_nr_blocks;    /* [C] */
    uint64_t nr_memmap_pages;   /* [C] frames at this block's head that hold the unit's memmap */
    char *bitmaps;              /* [Z] its own, or a pattern's: mpl_bitmaps(); read anywhere */
    char *own_bitmaps;          /* [C] null unless the block is present; anything until used */
    uint64_t *poisoned;         /* [C] a bit per page, from the host; null while there is none */
    /* So far what a free reads, and in a line of its own what it writes. */
    uint64_t nr_free;           /* [Z] frames in state free, not held. This and nr_whole leave */
    uint64_t nr_whole;          /* [Z] pageblocks that are wholly free. out what spans isolate */
    uint64_t nr_isolated;       /* [Z] pageblocks that spans isolate; `isolated` does not count */
    uint64_t nr_managed;        /* [Z] released to the allocator */
    uint64_t nr_absent;         /* [C] frames of boot memory's holes: they are held for ever */
    uint64_t serial;            /* [C] memplug_block_info.serial: not 0 if the block is present */
    uint32_t nr_poisoned;       /* [C] of data frames, online or not */
    uint32_t nr_pooled[MEMPLUG_NR_HUGE]; /* [H] free huge pages that begin here */
    bool withholds;             /* [H] free huge pages with a frame here are not handed out */
    struct mpl_altmap altmap;   /* [C] head of a unit with a memmap of its own */
    void *backing;              /* [C] head of a unit */
    uint64_t offset_bytes;      /* [C] head of a unit */
};
_Static_assert(sizeof(struct mpl_block) <= 256, "an add costs at most 256 bytes a block");

/* Where the bitmaps are now. Whoever has a frame of the block, or the zone's lock, sees the block's
 * own ones from the first change on; others may see the pattern for a while, that is, a free frame
 * where there is none any more. */
static inline char *mpl_bitmaps(const struct mpl_block *block)
{
    return __atomic_load_n(&block->bitmaps, __ATOMIC_ACQUIRE);
}

static inline struct mpl_bits *mpl_bits_at(const struct mpl_block *block, uint64_t word)
{
    return (struct mpl_bits *)(void *)mpl_bitmaps(block) + word;
}

#endif
