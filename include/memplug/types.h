/* SPDX-License-Identifier: MIT */
/*
 * Words shared by the three public headers: units, limits, reasons.
 *
 * Units. An address is a byte offset in the pool's physical address space, from 0. A pfn is an
 * address divided by the page size; it has a type of its own, so that it cannot be mistaken for a
 * count or for bytes. Counts of pages are called nr_*, sizes in bytes *_bytes.
 *
 * Errors. Every call that can fail returns 0 or a negative errno with Linux's number, whatever the
 * host is. A call that fails has changed nothing unless its comment says otherwise.
 */
#ifndef MEMPLUG_TYPES_H
#define MEMPLUG_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct memplug_pfn {
    uint64_t nr;
} memplug_pfn_t;

/* No address, no node, no block: "choose one" in a request, "there is none" in an answer. */
#define MEMPLUG_ANY_ADDRESS UINT64_MAX
#define MEMPLUG_ANY_NODE (-1)

/* The orders that memplug_alloc() serves: 1 to 512 pages. */
#define MEMPLUG_MAX_ORDER 9

struct memplug; /* a pool */

enum memplug_zone {
    MEMPLUG_ZONE_DMA,
    MEMPLUG_ZONE_DMA32,
    MEMPLUG_ZONE_NORMAL,
    MEMPLUG_ZONE_MOVABLE,
    MEMPLUG_NR_ZONES
};

/* Where the memmap of a range lies. */
enum memplug_memmap {
    MEMPLUG_MEMMAP_AUTO,  /* a hint: as BLOCK where that is supported and free, else as HOST */
    MEMPLUG_MEMMAP_BLOCK, /* a demand: each block holds its own memmap and can be removed alone */
    MEMPLUG_MEMMAP_RANGE, /* a demand: the memmap of all stands at the head; removed as one */
    MEMPLUG_MEMMAP_HOST,  /* the memmap is the host's memory; each block can be removed alone */
};

/* What a host is built of. A pool takes it as it is and refuses what cannot work. */
struct memplug_geometry {
    uint8_t page_shift;      /* 12, 14 or 16 */
    uint8_t pageblock_order; /* pages of a pageblock, as an order: 9 for 2 MiB of 4 KiB pages */
    uint8_t section_shift;   /* bytes of a section, as a shift: 27 on x86-64 */
    uint8_t block_shift;     /* bytes of a memory block; >= section_shift */
    uint8_t large_shift;     /* the memmap window's largest unit; page_shift if it has only one */
    uint8_t page_struct_bytes; /* sizeof(struct page): 32 to 128 in steps of 8 */
    uint64_t address_limit;  /* first address that cannot be mapped; a multiple of the block */
};

/* Where an operation stands. Valid during the call that hands it out. */
struct memplug_progress {
    const char *operation; /* "add", "online", "keep", "soft offline", ... */
    const char *step;      /* name of the step that is about to run, or is running */
    uint64_t nr_done;      /* pages that offline has moved */
    uint64_t nr_total;     /* pages that were used in the blocks that it has come to so far */
};

/*
 * How long an operation may take. A null pointer, or a field that is zero, means the default.
 * Limits are looked at before each step and after each batch of pages that was moved; the default
 * time only behind calls of the host and of whoever is called back. When one is hit the
 * operation is rolled back: -ETIMEDOUT for the deadline, -EINTR for the stop flag.
 */
struct memplug_limit {
    uint64_t timeout_ns; /* from the call on; default 30 s */
    uint32_t tries;      /* passes of offline over the pages that would not move, with pauses that
                            grow; default 5. For pages that are pinned for long: many, and a time */
    const uint32_t *stop; /* not 0: cancel. Read atomically; any thread or handler may set it */
    void (*progress)(void *context, const struct memplug_progress *progress);
    void *context;
};

/* Of memplug_reason.detail; what does not fit is cut. */
#define MEMPLUG_DETAIL_BYTES 512u

/*
 * Why a call failed, or would fail. Filled on every failure if the caller gave one; the strings
 * are static, but for the detail, which is the reason's own. memplug_reason_text() makes a sentence
 * of it.
 */
struct memplug_reason {
    int error;             /* the negative errno that the call returned; 0: nothing in the way */
    const char *operation; /* as in memplug_progress */
    const char *step;
    const char *why;       /* "a frame of this block is pinned" */
    const char *remedy;    /* "end the I/O that pins it, or wait"; may be null */
    uint64_t address;      /* the request's start and size, where they are what is wrong; else
                              MEMPLUG_ANY_ADDRESS and 0 */
    uint64_t size_bytes;
    uint64_t unit_bytes;   /* what they should be a multiple of, or stay below; 0 if neither */
    int64_t block;         /* the block in the way; -1 if none */
    int node;              /* -1 if none */
    memplug_pfn_t pfn;     /* the frame in the way; UINT64_MAX if none */
    uint64_t nr_pages;     /* how many allocations stand in the way in this block */
    const char *owner;     /* name of the mover or subscriber; null if nobody is known */
    uint64_t owner_cookie; /* what the owner called the frame */
    uint64_t since_ns;     /* when the owner got it, on the host's clock; 0: it does not say */
    char detail[MEMPLUG_DETAIL_BYTES]; /* what the owner says of the frame, and of who holds it;
                                          empty if nothing */
};

#ifdef __cplusplus
}
#endif
#endif
