/* SPDX-License-Identifier: MIT */
/* struct page: a part of core.h. */
#ifndef MPL_PAGE_H
#define MPL_PAGE_H

#include <stdatomic.h>
#include <stdint.h>

#include "compiler.h"

/* Every transition is made in page.c, and asserted there. */
enum mpl_page_state {
    MPL_PAGE_NONE,      /* not described */
    MPL_PAGE_USED,      /* its owner has it */
    MPL_PAGE_MOVING,    /* source of a move */
    MPL_PAGE_TARGET,    /* target of a move */
    MPL_PAGE_DYING,     /* freed by its owner while MOVING or TARGET: the core ends it */
    MPL_PAGE_KEPT,      /* logically offline: kept back by the online hook */
    MPL_PAGE_POOLED,    /* a free huge page of its pool */
};

/* mpl_page.huge_flags */
#define MPL_HUGE_FROM_POOL 1u /* a TARGET that was POOLED before */
#define MPL_HUGE_LENT 2u      /* its memmap is lent: hvo.c */
#define MPL_HUGE_RETURNED 4u  /* it was, before the operation that runs */
#define MPL_HUGE_EXCESS 8u    /* surplus and POOLED: dissolved by whoever may return its memmap */
#define MPL_HUGE_STUCK 16u    /* the resize that runs could not return its memmap */

/* Of the word that state and pins share. */
#define MPL_PAGE_STATE_BITS 8u
#define MPL_PAGE_PIN (1u << MPL_PAGE_STATE_BITS)

/* The core's part of a struct page: 32 bytes, the rest is the embedder's. Only the first frame of
 * an allocation has a valid one, and only if its block's *described* bit is set. */
struct mpl_page {
    _Atomic uint32_t state; /* enum mpl_page_state in the low 8 bits, pins above them */
    uint32_t nr_pages;
    union {
        struct {
            uint8_t mover;
            uint8_t align_order; /* what the owner asked for; a target has it too */
            uint8_t huge;        /* 0, or one more than the enum memplug_huge of a huge page */
            uint8_t huge_flags;
            uint8_t reserved[4];
        };
        uint64_t owner; /* these eight bytes, to be written at once */
    };
    _Atomic uint64_t cookie;
    uint64_t reserved_for_lists;
};
_Static_assert(sizeof(struct mpl_page) == 32, "the smallest struct page is 32 bytes");

/* The page may hold anything: nobody believes it unless its frame is a head that is described. What
 * a slot holds is described already, and no head: that comes last. word: state and pins. */
static inline void mpl_page_write(struct mpl_page *page, uint32_t word, uint32_t nr_pages,
                                  uint8_t mover, uint8_t align_order, uint64_t cookie)
{
    MPL_ASSERT(nr_pages != 0);
    MPL_PUT(page->nr_pages, nr_pages);
    MPL_PUT(page->owner, MPL_BYTE_AT(0, mover) | MPL_BYTE_AT(1, align_order));
    page->reserved_for_lists = 0;
    atomic_store_explicit(&page->cookie, cookie, memory_order_relaxed);
    atomic_store_explicit(&page->state, word, memory_order_release);
}

#endif
