/* SPDX-License-Identifier: MIT */
/*
 * memplug: memory that can be plugged into a running program and pulled out again.
 *
 * The calls stand in the order of a page's life: open, add, online, alloc, (migrate,) free,
 * offline, remove, close; then what looks on. Calls are safe from any thread unless they say
 * otherwise. "Control lock" is the host's lock(): add, online, offline and remove hold it, one at
 * a time, and answer -EDEADLK when called from a mover, a subscriber, a hook, a limit's progress or
 * a dump's writer. Whatever takes it answers -ETIMEDOUT after 30 s, or when its limit ends; then
 * nothing has changed. alloc and free never wait for it, and sleep only as the host's relax() does.
 *
 * limit and reason may be null in every call that takes them.
 */
#ifndef MEMPLUG_H
#define MEMPLUG_H

#include <memplug/host.h>
#include <memplug/mover.h>
#include <memplug/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug; /* a pool */

enum memplug_zone {
    MEMPLUG_ZONE_DMA,
    MEMPLUG_ZONE_DMA32,
    MEMPLUG_ZONE_NORMAL,
    MEMPLUG_ZONE_MOVABLE,
    MEMPLUG_NR_ZONES
};

/* --- open and close --------------------------------------------------------------------------- */

struct memplug_config {
    const struct memplug_host *host; /* must outlive the pool */
    unsigned nr_nodes;               /* 1 to 64; 0 means 1 */
};

/* Bytes that memplug_open() needs for this configuration; 0 if open would refuse it. */
uint64_t memplug_metadata_bytes(const struct memplug_config *config);

/*
 * Make an empty pool in the caller's memory: zeroed, aligned to 64 bytes, of at least
 * memplug_metadata_bytes(), kept until memplug_close(). Only what is used of it is touched: at
 * most 256 bytes a block. -EINVAL (geometry, over 64 nodes, alignment), -E2BIG (more than 4,096
 * blocks), -ENOMEM (too small).
 */
int memplug_open(const struct memplug_config *config, void *metadata, uint64_t metadata_bytes,
                 struct memplug **pool, struct memplug_reason *reason);

/* -EBUSY, naming a block, while the pool has ranges. */
int memplug_close(struct memplug *pool, struct memplug_reason *reason);

/* --- add -------------------------------------------------------------------------------------- */

enum memplug_memmap {
    MEMPLUG_MEMMAP_AUTO,  /* a hint: as BLOCK where that is supported, else as HOST */
    MEMPLUG_MEMMAP_BLOCK, /* a demand: each block holds its own memmap and can be removed alone */
    MEMPLUG_MEMMAP_RANGE, /* a demand: the memmap of all stands at the head; removed as one */
    MEMPLUG_MEMMAP_HOST,  /* the memmap is the host's memory; each block can be removed alone */
};

struct memplug_add {
    uint64_t address; /* a non-zero multiple of the block, or MEMPLUG_ANY_ADDRESS; written: where */
    uint64_t size_bytes;
    enum memplug_memmap memmap; /* written: what AUTO became */
    bool pad_memmap;       /* round the memmap's frames up to pageblocks (Linux's "force") */
    int node;
    void *backing;         /* as the host wants it; for the Linux host see linux.h */
    uint64_t offset_bytes; /* of the range in its backing */
};

/*
 * Plug a range in: its blocks are offline afterwards. All or nothing.
 * -EINVAL  address or size not a non-zero multiple of the block; unknown node; a memmap demand
 *          that memmap_supported() refuses
 * -E2BIG   beyond the address limit, or no free address for MEMPLUG_ANY_ADDRESS
 * -EEXIST  overlaps a range of the pool, or the same bytes of the backing are in the pool already
 * -EBUSY   another process has these bytes;  -ENXIO, -ENODEV  the backing is short, or unmappable
 * -ENOMEM, -ETIMEDOUT, -EINTR
 */
int memplug_add(struct memplug *pool, struct memplug_add *request,
                const struct memplug_limit *limit, struct memplug_reason *reason);

/*
 * May the memmap of a range of this size stand there? 0, or -EINVAL with the predicate that
 * failed: the memmap of what can be removed alone is whole pages; a memmap of its own can be
 * mapped at the alignment of the backing and leaves room for data. AUTO is always as good as HOST.
 * Says nothing of an address or of padding, by which an add may still be refused.
 */
int memplug_memmap_supported(const struct memplug *pool, uint64_t size_bytes,
                             enum memplug_memmap memmap, const void *backing,
                             struct memplug_reason *reason);

/* --- online ----------------------------------------------------------------------------------- */

enum memplug_online_type {
    MEMPLUG_ONLINE_DEFAULT, /* Linux's contig-zones rule */
    MEMPLUG_ONLINE_KERNEL,
    MEMPLUG_ONLINE_MOVABLE,
};

/*
 * Put nr_blocks blocks from first on into a zone and hand their frames to the allocator; all or
 * none. -ENODEV no such block; -EINVAL a block is not offline, no block, no such type; what a
 * subscriber refused with; -ETIMEDOUT, -EINTR.
 */
int memplug_online(struct memplug *pool, uint64_t first, uint64_t nr_blocks,
                   enum memplug_online_type type, const struct memplug_limit *limit,
                   struct memplug_reason *reason);

/* --- allocate and free ------------------------------------------------------------------------ */

/* Movers live as long as the pool: at most 15. Returns the mover's number, from 1; -ENOSPC, or
 * -EINVAL if it has no move(). */
int memplug_register_mover(struct memplug *pool, const struct memplug_mover *mover);

struct memplug_alloc {
    uint32_t nr_pages;  /* 1 to 512 and a power of two, aligned to itself; or whole pageblocks,
                           contiguous and aligned to align_pages */
    uint32_t align_pages; /* for whole pageblocks: a power of two; less than one means one */
    int node;           /* the preferred node, or MEMPLUG_ANY_NODE */
    bool this_node;     /* no other node */
    uint8_t mover;      /* who can move these pages; 0: nobody, they come from kernel zones only */
    bool pinned;        /* with a mover: born with one pin, to be dropped by memplug_unpin() when
                           the owner is ready to have them moved. Without it a page may be moved
                           before memplug_alloc() has returned */
    uint64_t cookie;    /* the owner's name for them; given to the mover */
};

/* Lowest address first. -ENOMEM no such frames; -EINVAL a size or mover that cannot be. */
int memplug_alloc(struct memplug *pool, const struct memplug_alloc *request, memplug_pfn_t *pfn);

/* Exactly these frames, any number within one block; node and align are not used. -EBUSY one of
 * them is not free; -ENODEV not online; -EINVAL the frames are a memmap, or the zone is Movable
 * and there is no mover. */
int memplug_alloc_exact(struct memplug *pool, memplug_pfn_t pfn,
                        const struct memplug_alloc *request);

/* -EINVAL: not the start or not the size of an allocation, or free already (nothing changes);
 * -ENODEV: no such page is online; -EBUSY: pinned. */
int memplug_free(struct memplug *pool, memplug_pfn_t pfn, uint32_t nr_pages);

/* An extra reference: the pages cannot move until it is dropped. Only pages that have a mover, by
 * whoever owns them. pin: -EAGAIN they are being moved just now, -EINVAL, -ENODEV. */
int memplug_pin(struct memplug *pool, memplug_pfn_t pfn);
int memplug_unpin(struct memplug *pool, memplug_pfn_t pfn);

/* Give the cookie of pages that have a mover a new value. Owner only; errors as pin. */
int memplug_set_cookie(struct memplug *pool, memplug_pfn_t pfn, uint64_t cookie);

/* The bytes of a frame, and its struct page's part for the embedder: page_struct_bytes - 32 bytes
 * (perhaps none), of any content at first. Valid while the caller owns the frame. Null: no block
 * can hold such a frame. */
void *memplug_page_address(const struct memplug *pool, memplug_pfn_t pfn);
void *memplug_page_private(const struct memplug *pool, memplug_pfn_t pfn);

/* --- offline and remove ----------------------------------------------------------------------- */

/*
 * Take nr_blocks blocks out of use; all or none. All are isolated first, then used pages are moved
 * to other blocks. On failure frames that moved stay moved, and nothing else has changed.
 * -ENODEV no such block; -EINVAL a block is not online; -EBUSY an unmovable or pinned frame (which
 * one is in the reason); -ENOMEM no room to move to; what a subscriber refused with; -ETIMEDOUT,
 * -EINTR.
 */
int memplug_offline(struct memplug *pool, uint64_t first, uint64_t nr_blocks,
                    const struct memplug_limit *limit, struct memplug_reason *reason);

/*
 * Pull a range out. -E2BIG: beyond the address limit. -EINVAL: not non-zero multiples of the block;
 * cuts through a range added as one; holds blocks with and without a memmap of their own. -ENODEV:
 * a block is not there. -EBUSY: a block is not offline.
 */
int memplug_remove(struct memplug *pool, uint64_t address, uint64_t size_bytes,
                   const struct memplug_limit *limit, struct memplug_reason *reason);

/* --- subscribe -------------------------------------------------------------------------------- */

/* The pool keeps the pointer until unsubscribe: at most 16 at a time, -ENOSPC; -EEXIST if it has it
 * already; -EINVAL without a notify(). Both take the control lock: while unsubscribe fails the pool
 * still has the pointer. -ENOENT: it was not subscribed. */
int memplug_subscribe(struct memplug *pool, const struct memplug_subscriber *subscriber);
int memplug_unsubscribe(struct memplug *pool, const struct memplug_subscriber *subscriber);

/* Null: the default again. Used by every later online; takes the control lock. */
int memplug_set_online_hook(struct memplug *pool, const struct memplug_online_hook *hook);

/* For hooks and their drivers: release logically offline pages to the allocator, 1 page or more
 * within one pageblock. -EINVAL if one of them is not logically offline, -ENODEV if no such page
 * is online. A driver that lets its
 * block go offline drops its reference to the rest in GOING_OFFLINE (memplug_unpin of the chunk's
 * first page) and takes it again in CANCEL_OFFLINE (memplug_pin). */
int memplug_release_pages(struct memplug *pool, memplug_pfn_t start, uint32_t nr_pages);

/* --- look on ---------------------------------------------------------------------------------- */

enum memplug_block_state {
    MEMPLUG_BLOCK_ABSENT,
    MEMPLUG_BLOCK_ADDING, /* also: being removed */
    MEMPLUG_BLOCK_OFFLINE,
    MEMPLUG_BLOCK_GOING_ONLINE,
    MEMPLUG_BLOCK_ONLINE,
    MEMPLUG_BLOCK_GOING_OFFLINE,
};

struct memplug_block_info {
    enum memplug_block_state state;
    enum memplug_zone zone; /* MEMPLUG_NR_ZONES unless in a zone: online, or going */
    int node;
    enum memplug_memmap memmap;
    uint64_t address, size_bytes;
    uint64_t unit_first, unit_nr_blocks; /* what can only be removed as one */
    uint64_t nr_memmap_pages, nr_managed_pages, nr_free_pages, nr_isolated_pageblocks;
};

struct memplug_zone_info {
    memplug_pfn_t start;
    uint64_t nr_spanned_pages, nr_present_pages, nr_managed_pages, nr_free_pages;
    uint64_t nr_isolated_pageblocks;
};

struct memplug_stat {
    uint64_t nr_blocks, nr_online_blocks;
    uint64_t nr_present_pages, nr_managed_pages, nr_free_pages, nr_memmap_pages;
    uint64_t block_bytes;        /* one block's descriptor */
    uint64_t host_bytes;         /* taken from the host now, for memmaps and bitmaps */
    uint64_t preexisting_bytes;  /* what the blocks in the pool cost of what was there before */
    uint64_t nr_moved_pages;     /* since open */
};

/* Snapshots; never wait for the control lock. -ENODEV for an absent block, -EINVAL. */
int memplug_block_info(const struct memplug *pool, uint64_t block, struct memplug_block_info *info);
int memplug_zone_info(const struct memplug *pool, int node, enum memplug_zone zone,
                      struct memplug_zone_info *info);
void memplug_stat(const struct memplug *pool, struct memplug_stat *stat);

/* Which block holds this address, and how many there can be. */
uint64_t memplug_block_of(const struct memplug *pool, uint64_t address);
uint64_t memplug_nr_blocks_max(const struct memplug *pool);

/* Could this block go offline now? 0, or the error that offline would give, with everything in the
 * reason; changes nothing. -ENODEV, -EINVAL as offline. Movers are asked. */
int memplug_why(struct memplug *pool, uint64_t block, struct memplug_reason *reason);

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
