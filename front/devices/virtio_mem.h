/* SPDX-License-Identifier: MIT */
/*
 * A virtio-mem device and what Linux's driver does with it: memory that a hypervisor plugs and
 * unplugs in sub-blocks of a few megabytes, smaller than the blocks that go online and offline.
 *
 * It is also the example of a driver over memplug's public calls. What such a driver needs, in the
 * order of a sub-block's life:
 *  - memplug_group_register(), dynamic, a block as its unit: policies see a device, not blocks;
 *  - memplug_add() of one block, memmap HOST: what is plugged is the owner's to the last frame, and
 *    a memmap of its own would lie in frames that may have to go;
 *  - an online hook (memplug_set_online_hook): of each chunk it releases what is plugged and keeps
 *    the rest logically offline. One hook a pool: it releases whatever is not its devices';
 *  - memplug_release_pages() when more of a block that is online is plugged in;
 *  - memplug_keep_pages() before some of it is unplugged: it moves whoever is there. The limit says
 *    how long to try; what cannot be vacated is left and another sub-block is tried;
 *  - a subscriber: at GOING_OFFLINE it drops its reference to each kept chunk (memplug_unpin), at
 *    CANCEL_OFFLINE it takes it again (memplug_pin), but only if it had dropped it: CANCEL comes
 *    also to those that were not asked;
 *  - memplug_offline_and_remove() of a block that has nothing left.
 * None of the calls that take the control lock may be made from the hook or the subscriber; so
 * what a notification makes possible is done later, by virtio_mem_work().
 *
 * No allocation: whoever uses it gives the structures and their state's memory. Not thread-safe
 * beside itself: one call at a time for all devices of a driver, onlines and offlines included.
 */
#ifndef VIRTIO_MEM_H
#define VIRTIO_MEM_H

#include <memplug/memplug.h>

/* So much added memory may wait to be put online before no more is added; but two blocks may. */
#define VIRTIO_MEM_THRESHOLD ((uint64_t)1 << 30)

struct virtio_mem_config {
    const char *name;
    uint64_t address;    /* of the region, a multiple of the device's block; blocks that do not lie
                            in it as a whole are not used */
    uint64_t size_bytes; /* what can be plugged in at most */
    uint64_t device_block_bytes; /* what the device plugs at once: a power of two, say 2 MiB */
    uint64_t threshold_bytes;    /* 0: VIRTIO_MEM_THRESHOLD */
    int node;
    void *backing;         /* memplug_add.backing, */
    uint64_t offset_bytes; /* and where the region begins in it */

    /* The device: memory can be used from plug() on, which may fail, and has no content that
     * counts after unplug(). May be null. */
    int (*plug)(void *context, uint64_t address, uint64_t size_bytes);
    void (*unplug)(void *context, uint64_t address, uint64_t size_bytes);
    void *context;
};

struct virtio_mem_driver {
    struct memplug *pool;
    struct memplug_geometry geometry;
    struct memplug_subscriber subscriber;
    struct virtio_mem *devices;
    int error; /* 0, or what a call answered that cannot fail: nothing is done any more */
};

struct virtio_mem {
    struct virtio_mem_config config;
    struct virtio_mem_driver *driver;
    struct virtio_mem *next;
    int group; /* of policy.h; its blocks are this device's */
    uint64_t first_block, nr_blocks;
    uint64_t sub_block_bytes, sub_blocks; /* of a block */
    uint64_t requested_bytes, plugged_bytes;
    uint8_t *plugged; /* a byte a sub-block, of all blocks */
    uint8_t *let_go;  /* a byte a block: its kept chunks' references are dropped */
    bool waiting;     /* too much is offline to add more */
};

/* Registers the hook and the subscriber; errors as these. The driver stays where it is until
 * virtio_mem_driver_close(), which wants it without devices (-EBUSY). */
int virtio_mem_driver_open(struct virtio_mem_driver *driver, struct memplug *pool,
                           const struct memplug_geometry *geometry);
int virtio_mem_driver_close(struct virtio_mem_driver *driver);

/* Memory for a device's state; 0: such a device cannot be. */
size_t virtio_mem_state_bytes(const struct memplug_geometry *geometry,
                              const struct virtio_mem_config *config);

/* An empty device. state: zeroed, virtio_mem_state_bytes() of it, kept until close, as is the
 * device. -EINVAL: a region or block that cannot be; errors of memplug_group_register(). */
int virtio_mem_open(struct virtio_mem_driver *driver, struct virtio_mem *device,
                    const struct virtio_mem_config *config, void *state,
                    struct memplug_reason *reason);

/* -EBUSY: something is still plugged in, or its block would not go. */
int virtio_mem_close(struct virtio_mem *device, struct memplug_reason *reason);

/*
 * The hypervisor wants so much to be plugged in: the driver does what it can. 0 if it is, or if the
 * rest waits until what was added is put online (device->waiting). limit holds for each operation
 * on its own. -EINVAL: not a multiple of the device's block, or more than the region; -EBUSY: less
 * went than was wanted, and the reason names the first page that stays; else what adding a block or
 * the device's plug() failed with. Whatever it returns, plugged_bytes says how far it came, and
 * virtio_mem_work() or the same request again goes on from there.
 */
int virtio_mem_request(struct virtio_mem *device, uint64_t size_bytes,
                       const struct memplug_limit *limit, struct memplug_reason *reason);

/* To be called after blocks have gone online: devices that were waiting go on once at most half of
 * their threshold is offline. Errors as virtio_mem_request(), the first one. */
int virtio_mem_work(struct virtio_mem_driver *driver, const struct memplug_limit *limit,
                    struct memplug_reason *reason);

#endif
