/* SPDX-License-Identifier: MIT */
/*
 * The memory of a DIMM, as a driver of such devices adds and ejects it over memplug's public calls.
 * No allocation: the structure and its zones are the caller's. One call at a time for a device.
 */
#ifndef DIMM_MEMORY_H
#define DIMM_MEMORY_H

#include <memplug/memplug.h>

struct dimm_memory {
    struct memplug *pool;
    uint64_t address, size_bytes;
    uint64_t block_bytes, page_bytes; /* of the pool */
    int node;
    void *backing; /* memplug_add.backing, */
    uint64_t offset_bytes; /* and where the device begins in it */
    enum memplug_zone *zones; /* one for each of its blocks */
    uint64_t (*now_ns)(void *context);
    void *context;
    int group; /* of policy.h, static; 0: its memory is not in the pool */
};

/* Why a device stays, and what came of putting blocks back into their zones. */
struct dimm_refusal {
    struct memplug_reason reason;
    uint64_t nr_not_restored; /* blocks that stay offline, for what restore says of the last one */
    struct memplug_reason restore;
};

/* -EINVAL: not whole blocks; else errors of memplug_group_register() and memplug_add(). */
int dimm_memory_add(struct dimm_memory *dimm, const struct memplug_limit *limit,
                    struct memplug_reason *reason);

/*
 * Every block goes offline, in two passes, since what one of them needs may be in another; then
 * the device's memory leaves the pool. If it cannot, each block comes back into the kind of zone
 * that it was in. All offlines together take timeout_ns at most; limit holds for the rest.
 */
int dimm_memory_eject(struct dimm_memory *dimm, uint64_t timeout_ns,
                      const struct memplug_limit *limit, struct dimm_refusal *refusal);

/*
 * The device is gone without asking. Only such a one can be survived as has nothing online, or its
 * memmap elsewhere; else -EIO: what the pool knew of its frames went with it. Movers are asked to
 * move what is in it and have to answer without reading it: tell its users, free it, -ENOENT.
 * -EBUSY: somebody is in it who cannot be told. On failure the memory is still in the pool.
 */
int dimm_memory_gone(struct dimm_memory *dimm, const struct memplug_limit *limit,
                     struct memplug_reason *reason);

#endif
