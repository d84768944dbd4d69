/* SPDX-License-Identifier: MIT */
#include "dimm_memory.h"

#include <memplug/policy.h>

#include <errno.h>

struct eject {
    struct dimm_memory *dimm;
    uint64_t first, nr_blocks, end_ns;
    const struct memplug_limit *limit;
    struct dimm_refusal *refusal;
};

/* --- add -------------------------------------------------------------------------------------- */

/* The group goes with the memory: neither is there without the other. */
static void leave_group(struct dimm_memory *dimm)
{
    if (memplug_group_unregister(dimm->pool, dimm->group) != 0)
        __builtin_trap();
    dimm->group = 0;
}

int dimm_memory_add(struct dimm_memory *dimm, const struct memplug_limit *limit,
                    struct memplug_reason *reason)
{
    struct memplug_group group = {.node = dimm->node};
    struct memplug_add request = {.address = dimm->address,
                                  .size_bytes = dimm->size_bytes,
                                  .memmap = MEMPLUG_MEMMAP_AUTO,
                                  .node = dimm->node,
                                  .backing = dimm->backing,
                                  .offset_bytes = dimm->offset_bytes};
    int error;

    if (dimm->address % dimm->block_bytes != 0 || dimm->size_bytes % dimm->block_bytes != 0)
        return -EINVAL;
    group.nr_pages = dimm->size_bytes / dimm->page_bytes;
    dimm->group = memplug_group_register(dimm->pool, &group);
    if (dimm->group < 0) {
        error = dimm->group;
        dimm->group = 0;
        return error;
    }
    request.group = dimm->group;
    error = memplug_add(dimm->pool, &request, limit, reason);
    if (error != 0)
        leave_group(dimm);
    return error;
}

/* --- eject ------------------------------------------------------------------------------------ */

static int offline_one(struct eject *eject, uint64_t index)
{
    struct dimm_memory *dimm = eject->dimm;
    struct memplug_limit limit = {.timeout_ns = 1};
    uint64_t now = dimm->now_ns(dimm->context);
    struct memplug_block_info info;
    int error = memplug_block_info(dimm->pool, eject->first + index, &info);

    if (error != 0 || info.state == MEMPLUG_BLOCK_OFFLINE)
        return error;
    if (now < eject->end_ns)
        limit.timeout_ns = eject->end_ns - now;
    error = memplug_offline(dimm->pool, eject->first + index, 1, &limit, &eject->refusal->reason);
    if (error == 0)
        dimm->zones[index] = info.zone;
    return error;
}

/* Each in the zone that it was in: a movable block does not come back as a kernel's. One that
 * cannot come back does not hinder the others. */
static void put_back(struct eject *eject)
{
    for (uint64_t i = 0; i < eject->nr_blocks; i++) {
        enum memplug_zone zone = eject->dimm->zones[i];
        enum memplug_online_type type = zone == MEMPLUG_ZONE_MOVABLE ? MEMPLUG_ONLINE_MOVABLE
                                                                     : MEMPLUG_ONLINE_KERNEL;

        if (zone != MEMPLUG_NR_ZONES &&
            memplug_online(eject->dimm->pool, eject->first + i, 1, type, eject->limit,
                           &eject->refusal->restore) != 0)
            eject->refusal->nr_not_restored++;
    }
}

/* In the first pass errors do not count: what one block needs may be in another one. */
static int offline_all(struct eject *eject)
{
    int error = 0;

    for (uint64_t i = 0; i < eject->nr_blocks; i++)
        error = offline_one(eject, i) != 0 ? -EBUSY : error;
    if (error == 0)
        return 0;
    for (uint64_t i = 0; i < eject->nr_blocks; i++) {
        error = offline_one(eject, i);
        if (error != 0)
            return error;
    }
    return 0;
}

int dimm_memory_eject(struct dimm_memory *dimm, uint64_t timeout_ns,
                      const struct memplug_limit *limit, struct dimm_refusal *refusal)
{
    struct eject eject = {.dimm = dimm, .limit = limit, .refusal = refusal};
    int error;

    eject.first = dimm->address / dimm->block_bytes;
    eject.nr_blocks = dimm->size_bytes / dimm->block_bytes;
    eject.end_ns = dimm->now_ns(dimm->context) + timeout_ns;
    for (uint64_t i = 0; i < eject.nr_blocks; i++)
        dimm->zones[i] = MEMPLUG_NR_ZONES;
    error = offline_all(&eject);
    if (error == 0)
        error = memplug_remove(dimm->pool, dimm->address, dimm->size_bytes, limit,
                               &refusal->reason);
    if (error != 0)
        put_back(&eject);
    else
        leave_group(dimm);
    return error;
}

/* --- gone ------------------------------------------------------------------------------------- */

static bool knows_its_frames(const struct dimm_memory *dimm)
{
    uint64_t first = dimm->address / dimm->block_bytes;
    struct memplug_block_info info;

    for (uint64_t i = 0; i < dimm->size_bytes / dimm->block_bytes; i++)
        if (memplug_block_info(dimm->pool, first + i, &info) == 0 &&
            info.state == MEMPLUG_BLOCK_ONLINE && info.memmap != MEMPLUG_MEMMAP_HOST)
            return false;
    return true;
}

int dimm_memory_gone(struct dimm_memory *dimm, const struct memplug_limit *limit,
                     struct memplug_reason *reason)
{
    int error;

    if (!knows_its_frames(dimm)) {
        *reason = (struct memplug_reason){
            .error = -EIO, .operation = "gone", .step = "check",
            .why = "the memmap of a block that is online went with its device",
            .address = dimm->address, .size_bytes = dimm->size_bytes, .block = -1, .node = -1,
            .pfn = {UINT64_MAX}};
        return -EIO;
    }
    error = memplug_offline_and_remove(dimm->pool, dimm->address, dimm->size_bytes, limit, reason);
    if (error == 0)
        leave_group(dimm);
    return error;
}
