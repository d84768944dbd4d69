/* SPDX-License-Identifier: MIT */
/* struct page: a part of core.h. */
#ifndef MPL_PAGE_H
#define MPL_PAGE_H

#include <stdatomic.h>
#include <stdint.h>

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

/* The core's part of a struct page: 32 bytes, the rest is the embedder's. Only the first frame of
 * an allocation has a valid one, and only if its block's *described* bit is set. */
struct mpl_page {
    _Atomic uint32_t state; /* enum mpl_page_state in the low 8 bits, pins above them */
    uint32_t nr_pages;
    uint8_t mover;
    uint8_t align_order; /* what the owner asked for; a target has it too */
    uint8_t huge;        /* 0, or one more than the enum memplug_huge of a huge page */
    uint8_t huge_flags;
    uint8_t reserved[4];
    _Atomic uint64_t cookie;
    uint64_t reserved_for_lists;
};
_Static_assert(sizeof(struct mpl_page) == 32, "the smallest struct page is 32 bytes");

#endif
