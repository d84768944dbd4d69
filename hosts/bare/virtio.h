/* SPDX-License-Identifier: MIT */
/* A modern virtio device on PCI, with one queue that is used one request at a time. */
#ifndef BARE_VIRTIO_H
#define BARE_VIRTIO_H

#include "pci.h"

#define BARE_VIRTIO_VENDOR 0x1af4u
#define BARE_VIRTIO_ID 0x1040u /* and the device's own number */
#define BARE_QUEUE 8u

/* In the image, so that its address is a physical one, and below 4 GiB. */
struct bare_queue {
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[BARE_QUEUE];
    struct {
        uint16_t flags, index, ring[BARE_QUEUE], event;
    } available;
    struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[BARE_QUEUE];
        uint16_t event;
    } used __attribute__((aligned(4)));
    uint8_t request[32], response[32];
} __attribute__((aligned(4096)));

struct bare_virtio {
    struct bare_pci pci;
    volatile uint8_t *common, *config, *notify, *interrupt;
    struct bare_queue *queue;
    uint64_t features; /* that both have */
};

/* Features are those that the driver knows; VERSION_1 is added. -ENODEV, -ENOMEM, -EIO. */
int bare_virtio_open(struct bare_virtio *device, const struct bare_pci *pci,
                     struct bare_queue *queue, uint64_t features, unsigned vector);
/* Has it asked for attention since the last call? For interrupt handlers too. */
bool bare_virtio_asks(struct bare_virtio *device);
/* A number of the device's configuration, as one of a moment. */
uint64_t bare_virtio_config(const struct bare_virtio *device, unsigned at);
/* queue->request is sent, queue->response received. -ETIMEDOUT: the device is silent. */
int bare_virtio_request(struct bare_virtio *device, uint32_t request_bytes,
                        uint32_t response_bytes);

#endif
