/* SPDX-License-Identifier: MIT */
/*
 * memplug: memory that can be plugged into a running program and pulled out again.
 *
 * The calls stand in the order of a page's life: open, add, online, alloc, (migrate,) free,
 * offline, remove, close. Beside them: view.h looks on, boot.h is memory that was there before,
 * policy.h zones, groups and what happens by itself, huge.h huge pages, poison.h bad frames. Calls
 * are safe from any thread unless they say otherwise. "Control lock" is the host's lock(): add,
 * online, offline and remove hold it, one at a time, and answer -EDEADLK when called from a mover,
 * a subscriber, a hook, a listener, a limit's progress or a dump's writer. Whatever takes it
 * answers -ETIMEDOUT after 30 s, or when its limit ends; then nothing has changed. alloc and free
 * never wait for it, and sleep only as the host's relax() does.
 *
 * limit and reason may be null in every call that takes them.
 */
#ifndef MEMPLUG_H
#define MEMPLUG_H

#include <memplug/host.h>
#include <memplug/mover.h>
#include <memplug/types.h>
#include <memplug/view.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- open and close --------------------------------------------------------------------------- */

/* Whose memmap is lent while a huge page exists: nobody's; the host's, as Linux does; also that of
 * blocks in Movable that hold their own. Such blocks map their memmap in pages, and their bitmaps
 * are the host's memory. */
enum memplug_hvo { MEMPLUG_HVO_OFF, MEMPLUG_HVO_HOST, MEMPLUG_HVO_ALL };

struct memplug_config {
    const struct memplug_host *host; /* must outlive the pool */
    unsigned nr_nodes;               /* possible nodes, 1 to 64; 0 means 1 */
    uint64_t cpu_nodes;              /* bit per node that has a CPU: it is online without memory
                                        too; 0: node 0 only */
    enum memplug_hvo hvo;            /* lend the memmap of huge pages: see huge.h */
};

/* Bytes that memplug_open() needs for this configuration; 0 if open would refuse it. */
uint64_t memplug_metadata_bytes(const struct memplug_config *config);

/*
 * Make an empty pool in the caller's memory: zeroed, aligned to 64 bytes, of at least
 * memplug_metadata_bytes(), kept until memplug_close(). Only what is used of it is touched: at
 * most 256 bytes a block. -EINVAL (geometry, nodes, alignment), -E2BIG (more than 4,096 blocks),
 * -ENOMEM (too small), -EOPNOTSUPP (hvo, and the host cannot lend a memmap).
 */
int memplug_open(const struct memplug_config *config, void *metadata, uint64_t metadata_bytes,
                 struct memplug **pool, struct memplug_reason *reason);

/* -EBUSY, naming a block, while the pool has ranges; naming a frame, while boot memory is used. */
int memplug_close(struct memplug *pool, struct memplug_reason *reason);

/* --- add -------------------------------------------------------------------------------------- */

struct memplug_add {
    uint64_t address; /* a non-zero multiple of the block, or MEMPLUG_ANY_ADDRESS; written: where */
    uint64_t size_bytes;
    enum memplug_memmap memmap; /* written: what AUTO became */
    bool pad_memmap;       /* round the memmap's frames up to pageblocks (Linux's "force"); AUTO
                              does so too if memplug_policy.memmap_on_memory says so */
    int node;              /* with a group: its node, or MEMPLUG_ANY_NODE; written: the node */
    int group;             /* memplug_group_register(), policy.h; 0: none */
    void *backing;         /* as the host wants it; for the Linux host see linux.h */
    uint64_t offset_bytes; /* of the range in its backing */
};

/*
 * Plug a range in: its blocks are offline afterwards, or, if memplug_policy.auto_online says so,
 * each is put online like by memplug_online(), and stays offline where that fails: the add is done
 * all the same, reason->block is the first such block and reason->why the cause, else null. Adding
 * itself is all or nothing. AUTO follows memplug_policy.memmap_on_memory.
 * -EINVAL  address or size not a non-zero multiple of the block; unknown node or group; a memmap
 *          demand that memmap_supported() refuses
 * -E2BIG   beyond the address limit, or no free address for MEMPLUG_ANY_ADDRESS
 * -EEXIST  overlaps a range of the pool, or the same bytes of the backing are in the pool already
 * -EBUSY   another process has these bytes; or a demand for a memmap of its own, where neighbours
 *          with memmaps of the host's hold a large unit of the window (reason->block is one of
 *          them): it can be once they have gone. AUTO becomes HOST there
 * -ENXIO, -ENODEV  the backing is short, or unmappable
 * -ENOMEM, -ETIMEDOUT, -EINTR
 */
int memplug_add(struct memplug *pool, struct memplug_add *request,
                const struct memplug_limit *limit, struct memplug_reason *reason);

/*
 * May the memmap of a range of this size stand there? 0, or -EINVAL with the predicate that
 * failed: the memmap of what can be removed alone is whole pages; a memmap of its own can be
 * mapped at the alignment of the backing and leaves room for data. AUTO is as good as HOST; if it
 * would become HOST now, reason->why says why not BLOCK, else it is null: the policy, a predicate
 * of BLOCK, or that BLOCK's memmap, padded if the policy pads, is not whole pageblocks. Says
 * nothing of an address and its neighbours, or of a request's padding, by which an add may still
 * be refused.
 */
int memplug_memmap_supported(const struct memplug *pool, uint64_t size_bytes,
                             enum memplug_memmap memmap, const void *backing,
                             struct memplug_reason *reason);

/* --- online ----------------------------------------------------------------------------------- */

enum memplug_online_type {
    MEMPLUG_ONLINE_DEFAULT, /* as memplug_policy.online says */
    MEMPLUG_ONLINE_KERNEL,
    MEMPLUG_ONLINE_MOVABLE,
};

/*
 * Put nr_blocks blocks from first on into a zone and hand their frames to the allocator; all or
 * none. -ENODEV no such block; -EINVAL a block is not offline, no block, no such type; -EHWPOISON
 * a block has poisoned frames; what a subscriber refused with; -ETIMEDOUT, -EINTR.
 */
int memplug_online(struct memplug *pool, uint64_t first, uint64_t nr_blocks,
                   enum memplug_online_type type, const struct memplug_limit *limit,
                   struct memplug_reason *reason);

/* Blocks that are neighbours. Where a call takes several such runs, they are in order, and it is
 * one operation on all of them, as it were on one run: all or none, and no page moves twice. */
struct memplug_blocks {
    uint64_t first, nr_blocks;
};

/* -EINVAL also: no run, or they are not in order. */
int memplug_online_blocks(struct memplug *pool, const struct memplug_blocks *runs,
                          unsigned nr_runs, enum memplug_online_type type,
                          const struct memplug_limit *limit, struct memplug_reason *reason);

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

/* Lowest address first, but for what a slot has at hand (slot.h). -ENOMEM no such frames; -EINVAL a
 * size or mover that cannot be. */
int memplug_alloc(struct memplug *pool, const struct memplug_alloc *request, memplug_pfn_t *pfn);

/* Exactly these frames, any number within one block; node and align are not used. -EBUSY one of
 * them is not free; -ENODEV not online; -EINVAL the frames are a memmap, or the zone is Movable
 * and there is no mover. */
int memplug_alloc_exact(struct memplug *pool, memplug_pfn_t pfn,
                        const struct memplug_alloc *request);

/* -EINVAL: not the start or not the size of an allocation, or free already (nothing changes);
 * -ENODEV: no such page is online; -EBUSY: pinned. */
int memplug_free(struct memplug *pool, memplug_pfn_t pfn, uint32_t nr_pages);

/*
 * Up to nr single pages (request->nr_pages is 1), each an allocation of its own, as by so many
 * memplug_alloc(). Returns how many there were, 0 to nr: so many of pfns are written, the rest is
 * as it was; fewer than nr means what -ENOMEM means there. Frame i has the cookie cookies[i]; if
 * cookies is null, request->cookie + i. -EINVAL, and nothing is allocated: a request that cannot
 * be, or more than INT32_MAX frames.
 */
int memplug_alloc_bulk(struct memplug *pool, const struct memplug_alloc *request,
                       const uint64_t *cookies, memplug_pfn_t *pfns, uint32_t nr);

/*
 * nr single pages, as by so many memplug_free(): each that can be freed is, whatever becomes of the
 * others, and one that the array has twice is refused the second time. Returns how many were freed.
 * errors: null, or nr of them, all written: 0 or the error of that frame. Fastest if neighbours in
 * memory are neighbours in the array. Neither call is one step for others, who may see a part of it
 * done; each uses 2.5 KiB of stack. A block that goes offline meanwhile waits for 64 of the frames
 * at most.
 */
uint32_t memplug_free_bulk(struct memplug *pool, const memplug_pfn_t *pfns, uint32_t nr,
                           int *errors);

/* An extra reference: the pages cannot move until it is dropped. Only pages that have a mover, by
 * whoever owns them. pin: -EAGAIN they are being moved just now, -EINVAL, -ENODEV. -EINVAL is also
 * the answer in the moment in which somebody's wrong free of them is being refused. */
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
 * to other blocks. On failure frames that moved stay moved, and nothing else has changed. -ENODEV
 * no such block; -EINVAL a block is not online, has holes or lies in several zones (boot.h); -EBUSY
 * an unmovable or pinned frame (which one is in the reason), or huge pages that a reserve needs;
 * -ENOMEM no room to move to; what a subscriber refused with; -ETIMEDOUT, -EINTR.
 */
int memplug_offline(struct memplug *pool, uint64_t first, uint64_t nr_blocks,
                    const struct memplug_limit *limit, struct memplug_reason *reason);

int memplug_offline_blocks(struct memplug *pool, const struct memplug_blocks *runs,
                           unsigned nr_runs, const struct memplug_limit *limit,
                           struct memplug_reason *reason);

/*
 * Pull a range out. -E2BIG: beyond the address limit. -EINVAL: not non-zero multiples of the block;
 * cuts through a range added as one; holds blocks with and without a memmap of their own. -ENODEV:
 * a block is not there. -EBUSY: a block is not offline.
 */
int memplug_remove(struct memplug *pool, uint64_t address, uint64_t size_bytes,
                   const struct memplug_limit *limit, struct memplug_reason *reason);

/*
 * Both in one: blocks of the range that are online go offline, all or none, then the range is
 * removed. On failure every block is in the zone that it was in; errors of both.
 */
int memplug_offline_and_remove(struct memplug *pool, uint64_t address, uint64_t size_bytes,
                               const struct memplug_limit *limit, struct memplug_reason *reason);
/* Either, for runs of blocks. -EINVAL also: they are not in order, or block 0 is among them. */
int memplug_remove_blocks(struct memplug *pool, const struct memplug_blocks *runs,
                          unsigned nr_runs, bool offline, const struct memplug_limit *limit,
                          struct memplug_reason *reason);

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

/* The way back: frames within one block that are online become logically offline chunks, pageblock
 * by pageblock, each with its driver's reference; whoever uses them is moved away first. Frames
 * that are logically offline already, or a memmap, are -EINVAL, poisoned ones -EBUSY; else errors
 * and limits as memplug_offline(). On failure what moved stays moved, and nothing else has changed.
 * Takes the control lock. */
int memplug_keep_pages(struct memplug *pool, memplug_pfn_t start, uint64_t nr_pages,
                       const struct memplug_limit *limit, struct memplug_reason *reason);

/* What has happened to blocks and nodes, in Linux's order of uevents: a failed operation sends
 * none. At most 16 listeners, kept until unlisten; errors as subscribe. hear() is called with the
 * control lock held; it may not call what takes it. */
int memplug_listen(struct memplug *pool, const struct memplug_listener *listener);
int memplug_unlisten(struct memplug *pool, const struct memplug_listener *listener);

#ifdef __cplusplus
}
#endif
#endif
