/* SPDX-License-Identifier: MIT */
/*
 * Memory that was there before the pool: a machine's own. Its blocks are online from the start, in
 * the zones that their addresses give them (linux semantics, 1 and 6), with a memmap of the host's.
 */
#ifndef MEMPLUG_BOOT_H
#define MEMPLUG_BOOT_H

#include <memplug/memplug.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug_boot_memory {
    uint64_t address, size_bytes; /* whole pages */
    int node;
};

struct memplug_boot {
    const struct memplug_boot_memory *memory; /* ascending; neighbours do not overlap */
    unsigned nr_memory;
    uint64_t dma_limit;   /* first address above ZONE_DMA; 0: there is no such zone */
    uint64_t dma32_limit; /* first address above ZONE_DMA32; likewise */
    void *backing;        /* of all of it: an address is an offset in the backing */
};

/*
 * Once, while the pool is empty; all or nothing. A zone spans what its limits and its node's memory
 * have in common. Whole blocks are attached; frames in holes are never used. What such a block may
 * do differs from others':
 *  - one with holes is in its zone but cannot go offline: -EINVAL;
 *  - one in several zones has no zone of its own: its frames are present, not managed (they are the
 *    embedder's: a kernel has its image there), and it cannot go offline: -EINVAL;
 *  - any other is a block like all, and can be removed when it is offline.
 * memplug_close() gives back those that are left, or says -EBUSY if a frame of one is still used.
 * No event is sent; the online-page hook is not called.
 * -EINVAL no memory, not whole pages, not ascending, limits, node, blocks of two nodes' memory;
 * -EBUSY the pool has blocks, or has booted; -E2BIG; and as memplug_add().
 */
int memplug_boot(struct memplug *pool, const struct memplug_boot *boot,
                 const struct memplug_limit *limit, struct memplug_reason *reason);

#ifdef __cplusplus
}
#endif
#endif
