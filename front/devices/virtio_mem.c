/* SPDX-License-Identifier: MIT */
#include "virtio_mem.h"

#include <memplug/policy.h>

#include <errno.h>

/* What a block is to the driver; the pool knows it, and nobody keeps a second record. */
enum block_kind {
    ABSENT,
    OFFLINE,
    OFFLINE_PARTIAL,
    KERNEL,
    KERNEL_PARTIAL,
    MOVABLE,
    MOVABLE_PARTIAL,
    OTHER, /* not this device's, or on its way */
};

static uint64_t block_bytes(const struct virtio_mem *device)
{
    return (uint64_t)1 << device->driver->geometry.block_shift;
}

static uint64_t block_address(const struct virtio_mem *device, uint64_t block)
{
    return (device->first_block + block) * block_bytes(device);
}

static uint8_t *plugged_of(const struct virtio_mem *device, uint64_t block)
{
    return device->plugged + block * device->sub_blocks;
}

static uint64_t count_plugged(const struct virtio_mem *device, uint64_t block)
{
    const uint8_t *plugged = plugged_of(device, block);
    uint64_t count = 0;

    for (uint64_t i = 0; i < device->sub_blocks; i++)
        count += plugged[i];
    return count;
}

static enum block_kind kind_of(const struct virtio_mem *device, uint64_t block)
{
    bool partial = count_plugged(device, block) != device->sub_blocks;
    struct memplug_block_info info;

    if (memplug_block_info(device->driver->pool, device->first_block + block, &info) != 0)
        return ABSENT;
    if (info.group != device->group)
        return OTHER;
    if (info.state == MEMPLUG_BLOCK_OFFLINE)
        return partial ? OFFLINE_PARTIAL : OFFLINE;
    if (info.state != MEMPLUG_BLOCK_ONLINE)
        return OTHER;
    if (info.zone == MEMPLUG_ZONE_MOVABLE)
        return partial ? MOVABLE_PARTIAL : MOVABLE;
    return partial ? KERNEL_PARTIAL : KERNEL;
}

static bool is_online(enum block_kind kind)
{
    return kind == KERNEL || kind == KERNEL_PARTIAL || kind == MOVABLE || kind == MOVABLE_PARTIAL;
}

static memplug_pfn_t pfn_of(const struct virtio_mem *device, uint64_t block, uint64_t sub_block)
{
    uint64_t address = block_address(device, block) + sub_block * device->sub_block_bytes;

    return (memplug_pfn_t){address >> device->driver->geometry.page_shift};
}

static uint64_t pages_of(const struct virtio_mem *device, uint64_t nr_sub_blocks)
{
    return nr_sub_blocks * (device->sub_block_bytes >> device->driver->geometry.page_shift);
}

static int refuse(struct memplug_reason *reason, int error, const char *why, const char *remedy)
{
    if (reason != NULL)
        *reason = (struct memplug_reason){.error = error, .operation = "virtio_mem",
                                          .step = "request", .why = why, .remedy = remedy,
                                          .address = MEMPLUG_ANY_ADDRESS, .block = -1, .node = -1,
                                          .pfn = {UINT64_MAX}};
    return error;
}

/* --- what the pool calls ---------------------------------------------------------------------- */

/* The device that has this frame, and where it is there. */
static struct virtio_mem *device_at(const struct virtio_mem_driver *driver, memplug_pfn_t pfn,
                                    uint64_t *block, uint64_t *sub_block)
{
    uint64_t address = pfn.nr << driver->geometry.page_shift;
    uint64_t id = address >> driver->geometry.block_shift;

    for (struct virtio_mem *device = driver->devices; device != NULL; device = device->next) {
        if (id < device->first_block || id - device->first_block >= device->nr_blocks)
            continue;
        *block = id - device->first_block;
        *sub_block = (address - block_address(device, *block)) / device->sub_block_bytes;
        return device;
    }
    return NULL;
}

/* A chunk is at most a pageblock, and so lies in one sub-block. */
static void online_pages(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    struct virtio_mem_driver *driver = context;
    uint64_t block, sub_block;
    struct virtio_mem *device = device_at(driver, start, &block, &sub_block);
    int error = 0;

    if (device == NULL || plugged_of(device, block)[sub_block] != 0)
        error = memplug_release_pages(driver->pool, start, nr_pages);
    if (error != 0)
        driver->error = error;
}

/* The first frame of pageblock number i, in a sub-block that is not plugged in. */
static bool is_kept(const struct virtio_mem *device, uint64_t block, uint64_t i, memplug_pfn_t *pfn)
{
    const struct memplug_geometry *geometry = &device->driver->geometry;
    uint64_t pages = i << geometry->pageblock_order;

    *pfn = (memplug_pfn_t){pfn_of(device, block, 0).nr + pages};
    return plugged_of(device, block)[pages / pages_of(device, 1)] == 0;
}

/* Drop, or take, the references to the first `count` pageblocks' kept chunks. */
static int change_references(struct virtio_mem *device, uint64_t block, uint64_t count, bool take,
                             uint64_t *nr_done)
{
    struct memplug *pool = device->driver->pool;
    memplug_pfn_t pfn;
    int error = 0;

    for (*nr_done = 0; *nr_done < count; ++*nr_done) {
        if (is_kept(device, block, *nr_done, &pfn))
            error = take ? memplug_pin(pool, pfn) : memplug_unpin(pool, pfn);
        if (error != 0)
            break;
    }
    return error;
}

static int going_offline(struct virtio_mem *device, uint64_t block)
{
    uint64_t nr_done, nr_undone;
    int error = change_references(device, block,
                                  pages_of(device, device->sub_blocks) >>
                                      device->driver->geometry.pageblock_order,
                                  false, &nr_done);

    device->let_go[block] = error == 0;
    if (error != 0)
        device->driver->error = change_references(device, block, nr_done, true, &nr_undone);
    return error;
}

static int notify(void *context, const struct memplug_notice *notice)
{
    struct virtio_mem_driver *driver = context;
    uint64_t block, sub_block, nr_done;
    struct virtio_mem *device = device_at(driver, notice->start, &block, &sub_block);
    int error = 0;

    if (device == NULL)
        return 0;
    if (notice->event == MEMPLUG_GOING_OFFLINE)
        return going_offline(device, block);
    if (notice->event == MEMPLUG_CANCEL_OFFLINE && device->let_go[block] != 0)
        error = change_references(device, block,
                                  pages_of(device, device->sub_blocks) >>
                                      driver->geometry.pageblock_order,
                                  true, &nr_done);
    if (notice->event == MEMPLUG_CANCEL_OFFLINE || notice->event == MEMPLUG_OFFLINE)
        device->let_go[block] = 0;
    if (error != 0)
        driver->error = error;
    return 0;
}

int virtio_mem_driver_open(struct virtio_mem_driver *driver, struct memplug *pool,
                           const struct memplug_geometry *geometry)
{
    const struct memplug_online_hook hook = {.online_pages = online_pages, .context = driver};
    int error;

    *driver = (struct virtio_mem_driver){
        .pool = pool,
        .geometry = *geometry,
        .subscriber = {.name = "virtio_mem", .notify = notify, .context = driver},
    };
    error = memplug_subscribe(pool, &driver->subscriber);
    if (error != 0)
        return error;
    error = memplug_set_online_hook(pool, &hook);
    if (error != 0 && memplug_unsubscribe(pool, &driver->subscriber) != 0)
        return -EBUSY;
    return error;
}

int virtio_mem_driver_close(struct virtio_mem_driver *driver)
{
    int error;

    if (driver->devices != NULL)
        return -EBUSY;
    error = memplug_set_online_hook(driver->pool, NULL);
    return error != 0 ? error : memplug_unsubscribe(driver->pool, &driver->subscriber);
}

/* --- open and close --------------------------------------------------------------------------- */

/* Fills what follows from the geometry; false if such a device cannot be. */
static bool lay_out(const struct memplug_geometry *geometry,
                    const struct virtio_mem_config *config, struct virtio_mem *device)
{
    uint64_t block = (uint64_t)1 << geometry->block_shift;
    uint64_t pageblock = (uint64_t)1 << (geometry->page_shift + geometry->pageblock_order);
    uint64_t unit = config->device_block_bytes, end = config->address + config->size_bytes;

    if (unit == 0 || (unit & (unit - 1)) != 0 || unit > block || config->address % unit != 0 ||
        config->size_bytes % unit != 0 || end < config->address)
        return false;
    device->sub_block_bytes = unit > pageblock ? unit : pageblock;
    device->sub_blocks = block / device->sub_block_bytes;
    device->first_block = (config->address + block - 1) / block;
    device->nr_blocks = end / block > device->first_block ? end / block - device->first_block : 0;
    return device->nr_blocks != 0;
}

size_t virtio_mem_state_bytes(const struct memplug_geometry *geometry,
                              const struct virtio_mem_config *config)
{
    struct virtio_mem device = {.group = 0};

    if (!lay_out(geometry, config, &device))
        return 0;
    return (size_t)(device.nr_blocks * (device.sub_blocks + 1));
}

int virtio_mem_open(struct virtio_mem_driver *driver, struct virtio_mem *device,
                    const struct virtio_mem_config *config, void *state,
                    struct memplug_reason *reason)
{
    struct memplug_group group = {.node = config->node, .dynamic = true};

    *device = (struct virtio_mem){.config = *config, .driver = driver, .next = driver->devices};
    if (!lay_out(&driver->geometry, config, device))
        return refuse(reason, -EINVAL, "the region holds no whole block, or its block is none",
                      "give it a multiple of the device's block that holds a memory block");
    if (device->config.threshold_bytes == 0)
        device->config.threshold_bytes = VIRTIO_MEM_THRESHOLD;
    if (device->config.threshold_bytes < 2 * block_bytes(device))
        device->config.threshold_bytes = 2 * block_bytes(device);
    device->plugged = state;
    device->let_go = device->plugged + device->nr_blocks * device->sub_blocks;
    group.nr_pages = pages_of(device, device->sub_blocks);
    device->group = memplug_group_register(driver->pool, &group);
    if (device->group < 0)
        return refuse(reason, device->group, "there is no memory group for the device", NULL);
    driver->devices = device;
    return 0;
}

int virtio_mem_close(struct virtio_mem *device, struct memplug_reason *reason)
{
    struct virtio_mem **link = &device->driver->devices;
    int error;

    if (device->plugged_bytes != 0)
        return refuse(reason, -EBUSY, "memory is still plugged in", "request nothing first");
    error = memplug_group_unregister(device->driver->pool, device->group);
    if (error != 0)
        return refuse(reason, error, "a block without memory would not go", "request nothing");
    while (*link != device)
        link = &(*link)->next;
    *link = device->next;
    return 0;
}

/* --- sub-blocks ------------------------------------------------------------------------------- */

struct work {
    struct virtio_mem *device;
    const struct memplug_limit *limit;
    struct memplug_reason *reason;
    struct memplug_reason blocked; /* the first that would not be vacated */
    uint64_t left;                 /* sub-blocks that are still wanted, or still to go */
};

static void mark(struct virtio_mem *device, uint64_t block, uint64_t sub_block, uint64_t count,
                 bool plugged)
{
    for (uint64_t i = 0; i < count; i++)
        plugged_of(device, block)[sub_block + i] = plugged;
    if (plugged)
        device->plugged_bytes += count * device->sub_block_bytes;
    else
        device->plugged_bytes -= count * device->sub_block_bytes;
}

static int plug(struct work *work, uint64_t block, uint64_t sub_block, uint64_t count)
{
    struct virtio_mem *device = work->device;
    int error = 0;

    if (device->config.plug != NULL)
        error = device->config.plug(device->config.context, block_address(device, block) +
                                    sub_block * device->sub_block_bytes,
                                    count * device->sub_block_bytes);
    if (error != 0)
        return refuse(work->reason, error, "the device refuses to plug memory in", NULL);
    mark(device, block, sub_block, count, true);
    return 0;
}

static void unplug(struct virtio_mem *device, uint64_t block, uint64_t sub_block, uint64_t count)
{
    mark(device, block, sub_block, count, false);
    if (device->config.unplug != NULL)
        device->config.unplug(device->config.context, block_address(device, block) +
                              sub_block * device->sub_block_bytes,
                              count * device->sub_block_bytes);
}

/* --- grow ------------------------------------------------------------------------------------- */

/* To the allocator, pageblock by pageblock. */
static int release(struct work *work, uint64_t block, uint64_t sub_block)
{
    struct virtio_mem *device = work->device;
    const struct memplug_geometry *geometry = &device->driver->geometry;
    uint64_t first = pfn_of(device, block, sub_block).nr, end = first + pages_of(device, 1);

    for (uint64_t pfn = first; pfn < end; pfn += (uint64_t)1 << geometry->pageblock_order) {
        int error = memplug_release_pages(device->driver->pool, (memplug_pfn_t){pfn},
                                          (uint32_t)1 << geometry->pageblock_order);

        if (error != 0)
            return refuse(work->reason, error, "a kept chunk is not there", NULL);
    }
    return 0;
}

/* What is missing in a block that is there, from its start on. */
static int fill(struct work *work, uint64_t block, bool online)
{
    struct virtio_mem *device = work->device;
    int error = 0;

    for (uint64_t i = 0; i < device->sub_blocks && work->left != 0 && error == 0; i++) {
        if (plugged_of(device, block)[i] != 0)
            continue;
        error = plug(work, block, i, 1);
        if (error == 0 && online)
            error = release(work, block, i);
        work->left -= error == 0;
    }
    return error;
}

static bool may_add(const struct virtio_mem *device, uint64_t size_bytes)
{
    uint64_t offline_bytes = 0;

    for (uint64_t block = 0; block < device->nr_blocks; block++) {
        enum block_kind kind = kind_of(device, block);

        if (kind == OFFLINE || kind == OFFLINE_PARTIAL)
            offline_bytes += block_bytes(device);
    }
    return offline_bytes + size_bytes <= device->config.threshold_bytes;
}

static int add(struct work *work, uint64_t block)
{
    struct virtio_mem *device = work->device;
    uint64_t count = work->left < device->sub_blocks ? work->left : device->sub_blocks;
    struct memplug_add request = {
        .address = block_address(device, block),
        .size_bytes = block_bytes(device),
        .memmap = MEMPLUG_MEMMAP_HOST,
        .node = MEMPLUG_ANY_NODE,
        .group = device->group,
        .backing = device->config.backing,
        .offset_bytes = device->config.offset_bytes + block_address(device, block) -
                        device->config.address,
    };
    int error = plug(work, block, 0, count);

    if (error != 0)
        return error;
    error = memplug_add(device->driver->pool, &request, work->limit, work->reason);
    if (error != 0)
        unplug(device, block, 0, count);
    else
        work->left -= count;
    return error;
}

static int grow(struct work *work)
{
    static const enum block_kind order[] = {KERNEL_PARTIAL, MOVABLE_PARTIAL, OFFLINE_PARTIAL};
    struct virtio_mem *device = work->device;
    int error = 0;

    for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        for (uint64_t block = 0; block < device->nr_blocks && error == 0; block++)
            if (work->left != 0 && kind_of(device, block) == order[i])
                error = fill(work, block, is_online(order[i]));
    for (uint64_t block = 0; block < device->nr_blocks && error == 0; block++) {
        if (work->left == 0 || kind_of(device, block) != ABSENT)
            continue;
        device->waiting = !may_add(device, block_bytes(device));
        if (device->waiting)
            return 0;
        error = add(work, block);
    }
    return error;
}

/* --- shrink ----------------------------------------------------------------------------------- */

/* A block that has nothing left. If it does not go now, a later request tries again. */
static void remove_empty(struct work *work, uint64_t block)
{
    struct virtio_mem *device = work->device;
    struct memplug_reason reason;

    if (memplug_offline_and_remove(device->driver->pool, block_address(device, block),
                                   block_bytes(device), work->limit, &reason) != 0 &&
        work->blocked.error == 0)
        work->blocked = reason;
}

/* Online sub-blocks become the driver's and go. -EBUSY: somebody stays there. */
static int vacate(struct work *work, uint64_t block, uint64_t sub_block, uint64_t count)
{
    struct virtio_mem *device = work->device;
    struct memplug_reason reason = {.error = 0};
    int error = memplug_keep_pages(device->driver->pool, pfn_of(device, block, sub_block),
                                   pages_of(device, count), work->limit, &reason);

    if (error == 0) {
        unplug(device, block, sub_block, count);
        work->left -= count;
        return 0;
    }
    if (error == -ETIMEDOUT)
        error = -EBUSY;
    if (work->blocked.error == 0 || error != -EBUSY)
        work->blocked = reason;
    return error;
}

static int shrink_online(struct work *work, uint64_t block)
{
    struct virtio_mem *device = work->device;
    int error = -EBUSY;

    if (work->left >= device->sub_blocks && count_plugged(device, block) == device->sub_blocks)
        error = vacate(work, block, 0, device->sub_blocks);
    for (uint64_t i = device->sub_blocks; error == -EBUSY && i != 0 && work->left != 0; i--) {
        if (plugged_of(device, block)[i - 1] == 0)
            continue;
        error = vacate(work, block, i - 1, 1);
        if (error == 0)
            error = -EBUSY; /* go on */
    }
    return error == -EBUSY ? 0 : error;
}

static void shrink_offline(struct work *work, uint64_t block)
{
    struct virtio_mem *device = work->device;

    for (uint64_t i = device->sub_blocks; i != 0 && work->left != 0; i--) {
        if (plugged_of(device, block)[i - 1] == 0)
            continue;
        unplug(device, block, i - 1, 1);
        work->left--;
    }
}

static int shrink(struct work *work)
{
    static const enum block_kind order[] = {OFFLINE_PARTIAL, OFFLINE, MOVABLE_PARTIAL,
                                            KERNEL_PARTIAL, MOVABLE, KERNEL};
    struct virtio_mem *device = work->device;
    int error = 0;

    for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        for (uint64_t block = device->nr_blocks; block != 0; block--) {
            if (work->left == 0 || kind_of(device, block - 1) != order[i])
                continue;
            if (is_online(order[i]))
                error = shrink_online(work, block - 1);
            else
                shrink_offline(work, block - 1);
            if (count_plugged(device, block - 1) == 0)
                remove_empty(work, block - 1);
            if (error != 0)
                return error;
        }
    return work->left != 0 ? -EBUSY : 0;
}

/* --- requests --------------------------------------------------------------------------------- */

/* Blocks that would not go when their last sub-block did. */
static void clean_up(struct work *work)
{
    for (uint64_t block = 0; block < work->device->nr_blocks; block++) {
        enum block_kind kind = kind_of(work->device, block);

        if (kind != ABSENT && kind != OTHER && count_plugged(work->device, block) == 0)
            remove_empty(work, block);
    }
}

static int adjust(struct virtio_mem *device, const struct memplug_limit *limit,
                  struct memplug_reason *reason)
{
    struct work work = {.device = device, .limit = limit, .reason = reason};
    uint64_t plugged = device->plugged_bytes, wanted = device->requested_bytes;
    int error;

    if (device->driver->error != 0)
        return refuse(reason, -EUCLEAN, "the pool has lost a chunk that is logically offline",
                      NULL);
    device->waiting = false;
    clean_up(&work);
    work.left = (wanted > plugged ? wanted - plugged : plugged - wanted) / device->sub_block_bytes;
    if (wanted >= plugged)
        return grow(&work);
    error = shrink(&work);
    if (error != 0 && work.blocked.error == 0)
        return refuse(reason, error, "blocks are on their way, or are not this device's",
                      "try again");
    if (error != 0 && reason != NULL) {
        *reason = work.blocked;
        reason->error = error;
    }
    return error;
}

int virtio_mem_request(struct virtio_mem *device, uint64_t size_bytes,
                       const struct memplug_limit *limit, struct memplug_reason *reason)
{
    if (size_bytes > device->config.size_bytes ||
        size_bytes % device->config.device_block_bytes != 0)
        return refuse(reason, -EINVAL, "the request is not a multiple of the device's block, or "
                      "more than the region", NULL);
    device->requested_bytes = size_bytes;
    return adjust(device, limit, reason);
}

int virtio_mem_work(struct virtio_mem_driver *driver, const struct memplug_limit *limit,
                    struct memplug_reason *reason)
{
    int result = 0;

    for (struct virtio_mem *device = driver->devices; device != NULL; device = device->next) {
        struct memplug_reason own;
        int error;

        if (!device->waiting || !may_add(device, device->config.threshold_bytes / 2))
            continue;
        error = adjust(device, limit, &own);
        if (error == 0 || result != 0)
            continue;
        result = error;
        if (reason != NULL)
            *reason = own;
    }
    return result;
}
