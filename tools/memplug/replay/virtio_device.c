/* SPDX-License-Identifier: MIT */
#include "virtio_device.h"

#include "dimm.h"

#include "../../../front/devices/virtio_mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Linux's driver tries again what was busy, after ever longer times. */
#define RETRY_MIN_NS (50 * NS_PER_S)
#define RETRY_MAX_NS (300 * NS_PER_S)

struct virtio_device {
    struct virtio_device *next; /* in the order of plugging */
    char *name;
    struct virtio_mem device;
    void *state;
    uint64_t retry_ns, retry_at_ns; /* at 0: there is nothing to try again */
};

/* The driver is loaded when the first device comes. */
struct virtio_devices {
    struct virtio_mem_driver driver;
    struct virtio_device *first;
};

static struct virtio_device *find_device(const struct machine *machine, const char *name)
{
    struct virtio_device *device = machine->virtio ? machine->virtio->first : NULL;

    while (device && strcmp(device->name, name) != 0)
        device = device->next;
    return device;
}

static int load_driver(struct machine *machine)
{
    struct virtio_devices *devices;
    int error;

    if (machine->virtio)
        return 0;
    devices = must_alloc(1, sizeof(*devices));
    error = virtio_mem_driver_open(&devices->driver, machine->pool,
                                   &lend_host(machine->lend)->geometry);
    if (error)
        free(devices);
    else
        machine->virtio = devices;
    return error;
}

static int open_device(struct machine *machine, struct virtio_device *device,
                       const struct virtio_mem_config *config, struct memplug_reason *reason)
{
    size_t state_bytes =
        virtio_mem_state_bytes(&lend_host(machine->lend)->geometry, config);
    int error = state_bytes ? load_driver(machine) : -EINVAL;

    if (error)
        return error;
    device->state = must_alloc(state_bytes, 1);
    return virtio_mem_open(&machine->virtio->driver, &device->device, config, device->state,
                           reason);
}

static void append(struct machine *machine, struct virtio_device *device)
{
    struct virtio_device **link = &machine->virtio->first;

    while (*link)
        link = &(*link)->next;
    *link = device;
}

const char *virtio_plug(struct machine *machine, const char *name, uint64_t max_bytes,
                        uint64_t requested_bytes, uint64_t device_block_bytes, unsigned node,
                        int *error, struct memplug_reason *reason)
{
    struct fake_backing_spec spec = {.size_bytes = max_bytes, .content = FAKE_CONTENT_JUNK};
    struct virtio_mem_config config = {.size_bytes = max_bytes,
                                       .device_block_bytes = device_block_bytes,
                                       .node = (int)node};
    struct virtio_device *device;
    const char *refused = NULL;

    if (!device_block_bytes || (device_block_bytes & (device_block_bytes - 1)) || !max_bytes ||
        max_bytes % device_block_bytes || requested_bytes > max_bytes)
        return "a device has whole blocks, of a power of two, and not more than it has at most";
    refused = dimm_reserve(machine, name, max_bytes, device_block_bytes, node, &config.address);
    if (refused)
        return refused;
    device = must_alloc(1, sizeof(*device));
    device->name = must_copy(name, strlen(name));
    device->retry_ns = RETRY_MIN_NS;
    config.name = device->name;
    config.backing = fake_backing_open(machine->fake, &spec);
    *error = config.backing ? open_device(machine, device, &config, reason) : -ENOMEM;
    if (*error) {
        free(device->state);
        free(device->name);
        free(device);
        return NULL;
    }
    append(machine, device);
    *error = virtio_resize(machine, name, requested_bytes, reason);
    return NULL;
}

static int request(struct machine *machine, struct virtio_device *device,
                   uint64_t requested_bytes, struct memplug_reason *reason)
{
    int error = virtio_mem_request(&device->device, requested_bytes, &machine->limit, reason);

    device->retry_at_ns = 0;
    if (error != -EBUSY && error != -ENOMEM) {
        device->retry_ns = RETRY_MIN_NS;
        return error;
    }
    device->retry_at_ns = machine_clock(machine) + device->retry_ns;
    return error;
}

int virtio_resize(struct machine *machine, const char *name, uint64_t requested_bytes,
                  struct memplug_reason *reason)
{
    struct virtio_device *device = find_device(machine, name);

    return device ? request(machine, device, requested_bytes, reason) : -ENODEV;
}

void virtio_work(struct machine *machine)
{
    struct memplug_reason reason = {0};

    if (!machine->virtio)
        return;
    virtio_mem_work(&machine->virtio->driver, &machine->limit, &reason);
    for (struct virtio_device *device = machine->virtio->first; device; device = device->next) {
        if (!device->retry_at_ns || device->retry_at_ns > machine_clock(machine))
            continue;
        device->retry_ns = 2 * device->retry_ns < RETRY_MAX_NS ? 2 * device->retry_ns
                                                               : RETRY_MAX_NS;
        request(machine, device, device->device.requested_bytes, &reason);
    }
}

bool virtio_plugged(const struct machine *machine, const char *name, uint64_t *bytes)
{
    const struct virtio_device *device = find_device(machine, name);

    if (device)
        *bytes = device->device.plugged_bytes;
    return device != NULL;
}

bool virtio_region(const struct machine *machine, size_t index, uint64_t *address,
                   uint64_t *size_bytes)
{
    const struct virtio_device *device = machine->virtio ? machine->virtio->first : NULL;

    for (; device && index; index--)
        device = device->next;
    if (!device)
        return false;
    *address = device->device.config.address;
    *size_bytes = device->device.config.size_bytes;
    return true;
}

/* The pool is about to be forgotten, and the driver with it. */
void virtio_close(struct machine *machine)
{
    if (!machine->virtio)
        return;
    while (machine->virtio->first) {
        struct virtio_device *device = machine->virtio->first;

        machine->virtio->first = device->next;
        free(device->state);
        free(device->name);
        free(device);
    }
    free(machine->virtio);
    machine->virtio = NULL;
}
