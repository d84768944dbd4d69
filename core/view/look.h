/* SPDX-License-Identifier: MIT */
/*
 * How the views look at what others may be changing: word by word and atomically. An index is a
 * page in its block. Whoever calls keeps the block: it holds the control lock, or the lock of the
 * zone and has seen the block online under it.
 */
#ifndef MPL_LOOK_H
#define MPL_LOOK_H

#include "../state/lent.h"
#include "../state/state.h"

static inline uint64_t mpl_look_word(const struct mpl_block *block, uint64_t bitmap, uint64_t word)
{
    const uint64_t *words = (const uint64_t *)(const void *)(mpl_bitmaps(block) + bitmap);

    return __atomic_load_n(&words[word], __ATOMIC_ACQUIRE);
}

static inline bool mpl_look_bit(const struct mpl_block *block, uint64_t bitmap, uint64_t index)
{
    return mpl_look_word(block, bitmap, index / 64) >> (index % 64) & 1;
}

/* The frames of one word that are described, as a mask; and one. */
static inline uint64_t mpl_look_described(const struct mpl_block *block, uint64_t word)
{
    return __atomic_load_n(&mpl_bits_at(block, word)->described, __ATOMIC_ACQUIRE);
}

static inline bool mpl_look_is_described(const struct mpl_block *block, uint64_t index)
{
    return mpl_look_described(block, index / 64) >> (index % 64) & 1;
}

static inline uint16_t mpl_look_nr_free(const struct memplug *pool, const struct mpl_block *block,
                                        uint64_t pageblock)
{
    const char *counters = mpl_bitmaps(block) + pool->layout.nr_free;

    return __atomic_load_n(&((const uint16_t *)(const void *)counters)[pageblock],
                           __ATOMIC_RELAXED);
}

enum mpl_look {
    MPL_LOOK_USED,  /* head or tail */
    MPL_LOOK_HEAD,  /* first frame of an allocation, or of the memmap */
    MPL_LOOK_BEGIN, /* anything but a tail: where an allocation ends */
    MPL_LOOK_FREE,  /* and not held */
    MPL_LOOK_HELD,
};

/* The frames of one word that are such, as a mask. */
uint64_t mpl_look_mask(const struct mpl_block *block, uint64_t word,
                       enum mpl_look what);

/* The first such frame at or behind index and before end; end if there is none. */
uint64_t mpl_look_for(const struct mpl_block *block, uint64_t index,
                      uint64_t end, enum mpl_look what);

uint64_t mpl_look_count(const struct mpl_block *block, uint64_t index,
                        uint64_t end, enum mpl_look what);

/* Pages from a head to the end of what it heads, or of its block. */
uint64_t mpl_look_run(const struct memplug *pool, const struct mpl_block *block, uint64_t index);

/* Frames of the data of the next block that go on with an allocation of this one; 0 if that block
 * cannot be looked at, or begins with something else. */
uint64_t mpl_look_run_on(const struct memplug *pool, const struct mpl_block *next);

/* A copy of the struct page of a described head. */
struct mpl_look_page {
    enum mpl_page_state state;
    uint32_t pins, nr_pages;
    uint8_t mover, align_order, huge, huge_flags;
    uint64_t cookie;
};

struct mpl_look_page mpl_look_page(const struct memplug *pool, memplug_pfn_t pfn);

/* The mover's number if it is one, else null. */
const struct memplug_mover *mpl_look_mover(const struct memplug *pool, unsigned number);

#endif
