/* SPDX-License-Identifier: MIT */
/* virtio-mem devices of the machine, and the driver that serves them all. */
#ifndef REPLAY_VIRTIO_DEVICE_H
#define REPLAY_VIRTIO_DEVICE_H

#include "machine.h"

/* Null, or why the machine refuses it. The first request is made at once: what came of it is in
 * error, and the reason is filled if that is not 0. */
const char *virtio_plug(struct machine *machine, const char *name, uint64_t max_bytes,
                        uint64_t requested_bytes, uint64_t device_block_bytes, unsigned node,
                        int *error, struct memplug_reason *reason);

/* Errors of virtio_mem_request(); -ENODEV: there is no such device. */
int virtio_resize(struct machine *machine, const char *name, uint64_t requested_bytes,
                  struct memplug_reason *reason);

/* After each step: devices that waited for blocks to go online go on, and those whose memory was
 * busy, when it is time to try again. */
void virtio_work(struct machine *machine);

/* How much is plugged in; false: there is no such device. */
bool virtio_plugged(const struct machine *machine, const char *name, uint64_t *bytes);

/* The region of the nth device, in the order of plugging. */
bool virtio_region(const struct machine *machine, size_t index, uint64_t *address,
                   uint64_t *size_bytes);

void virtio_close(struct machine *machine);

#endif
