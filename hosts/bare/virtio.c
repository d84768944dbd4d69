/* SPDX-License-Identifier: MIT */
#include "virtio.h"

#include "io.h"

#define VENDOR_CAPABILITY 0x09u
#define VERSION_1 ((uint64_t)1 << 32)
#define ANSWER_NS 5000000000u
#define NO_INTERRUPT 1u
#define DESCRIPTOR_NEXT 1u
#define DESCRIPTOR_WRITE 2u

enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_INTERRUPT = 3, CAP_CONFIG = 4 };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { FEATURE_SELECT = 0, FEATURE = 4, DRIVER_SELECT = 8, DRIVER_FEATURE = 12, CONFIG_VECTOR = 16,
       STATUS = 20, GENERATION = 21, QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_VECTOR = 26,
       QUEUE_ENABLE = 28, QUEUE_NOTIFY = 30, QUEUE_DESCRIPTORS = 32, QUEUE_AVAILABLE = 40,
       QUEUE_USED = 48, COMMON_BYTES = 56, CONFIG_BYTES = 64 };

static uint8_t read8(const volatile uint8_t *at)
{
    return *at;
}

static uint16_t read16(const volatile uint8_t *at)
{
    return *(const volatile uint16_t *)at;
}

static uint32_t read32(const volatile uint8_t *at)
{
    return *(const volatile uint32_t *)at;
}

static void write16(volatile uint8_t *at, uint16_t value)
{
    *(volatile uint16_t *)at = value;
}

static void write32(volatile uint8_t *at, uint32_t value)
{
    *(volatile uint32_t *)at = value;
}

static void write64(volatile uint8_t *at, uint64_t value)
{
    write32(at, (uint32_t)value);
    write32(at + 4, (uint32_t)(value >> 32));
}

/* --- where its registers are ------------------------------------------------------------------ */

/* Registers of a kind, from an offset on. Null: there are none, or there is no room. */
static volatile uint8_t *find(const struct bare_pci *pci, unsigned kind, uint32_t offset,
                              uint32_t size_bytes)
{
    for (unsigned at = 0; (at = bare_pci_capability(pci, VENDOR_CAPABILITY, at));)
        if (bare_pci_read(pci, at + 3, 1) == kind)
            return bare_pci_map(pci, bare_pci_read(pci, at + 4, 1),
                                bare_pci_read(pci, at + 8, 4) + offset, size_bytes);
    return NULL;
}

/* How far apart the queues' registers are for notifying. */
static uint32_t notify_stride(const struct bare_pci *pci)
{
    for (unsigned at = 0; (at = bare_pci_capability(pci, VENDOR_CAPABILITY, at));)
        if (bare_pci_read(pci, at + 3, 1) == CAP_NOTIFY)
            return bare_pci_read(pci, at + 16, 4);
    return 0;
}

static int find_registers(struct bare_virtio *device)
{
    const struct bare_pci *pci = &device->pci;
    volatile uint8_t *interrupt = find(pci, CAP_INTERRUPT, 0, 1);
    uint32_t offset;

    device->common = find(pci, CAP_COMMON, 0, COMMON_BYTES);
    device->config = find(pci, CAP_CONFIG, 0, CONFIG_BYTES);
    if (!device->common || !device->config || !interrupt)
        return -BARE_ENODEV;
    write16(device->common + QUEUE_SELECT, 0);
    offset = read16(device->common + QUEUE_NOTIFY) * notify_stride(pci);
    device->notify = find(pci, CAP_NOTIFY, offset, sizeof(uint32_t));
    __atomic_store_n(&device->interrupt, interrupt, __ATOMIC_RELEASE);
    return device->notify ? 0 : -BARE_ENODEV;
}

static uint64_t offered(const struct bare_virtio *device)
{
    uint64_t features;

    write32(device->common + FEATURE_SELECT, 0);
    features = read32(device->common + FEATURE);
    write32(device->common + FEATURE_SELECT, 1);
    return features | (uint64_t)read32(device->common + FEATURE) << 32;
}

static int negotiate(struct bare_virtio *device, uint64_t known)
{
    volatile uint8_t *common = device->common;

    common[STATUS] = 0;
    while (read8(common + STATUS))
        cpu_pause();
    common[STATUS] = ACKNOWLEDGE | DRIVER;
    device->features = offered(device) & (known | VERSION_1);
    if (!(device->features & VERSION_1))
        return -BARE_ENODEV;
    write32(common + DRIVER_SELECT, 0);
    write32(common + DRIVER_FEATURE, (uint32_t)device->features);
    write32(common + DRIVER_SELECT, 1);
    write32(common + DRIVER_FEATURE, (uint32_t)(device->features >> 32));
    common[STATUS] = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    return read8(common + STATUS) & FEATURES_OK ? 0 : -BARE_EIO;
}

static void open_queue(struct bare_virtio *device)
{
    volatile uint8_t *common = device->common;

    write16(common + CONFIG_VECTOR, 0);
    write16(common + QUEUE_SELECT, 0);
    write16(common + QUEUE_SIZE, BARE_QUEUE);
    write16(common + QUEUE_VECTOR, 0xffff);
    write64(common + QUEUE_DESCRIPTORS, (uintptr_t)device->queue->descriptors);
    write64(common + QUEUE_AVAILABLE, (uintptr_t)&device->queue->available);
    write64(common + QUEUE_USED, (uintptr_t)&device->queue->used);
    write16(common + QUEUE_ENABLE, 1);
}

int bare_virtio_open(struct bare_virtio *device, const struct bare_pci *pci,
                     struct bare_queue *queue, uint64_t features, unsigned vector)
{
    int error;

    *device = (struct bare_virtio){.pci = *pci, .queue = queue};
    error = bare_pci_enable(pci, vector);
    if (!error)
        error = find_registers(device);
    if (!error)
        error = negotiate(device, features);
    if (error)
        return error;
    open_queue(device);
    device->common[STATUS] = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    return 0;
}

bool bare_virtio_asks(struct bare_virtio *device)
{
    volatile uint8_t *interrupt = __atomic_load_n(&device->interrupt, __ATOMIC_ACQUIRE);

    return interrupt && read8(interrupt);
}

/* --- use -------------------------------------------------------------------------------------- */

uint64_t bare_virtio_config(const struct bare_virtio *device, unsigned at)
{
    uint8_t before;
    uint64_t value;

    do {
        before = read8(device->common + GENERATION);
        value = read32(device->config + at) | (uint64_t)read32(device->config + at + 4) << 32;
    } while (read8(device->common + GENERATION) != before);
    return value;
}

int bare_virtio_request(struct bare_virtio *device, uint32_t request_bytes,
                        uint32_t response_bytes)
{
    struct bare_queue *queue = device->queue;
    uint16_t index = queue->available.index;
    uint64_t end = bare_now() + ANSWER_NS;

    queue->descriptors[0].address = (uintptr_t)queue->request;
    queue->descriptors[0].length = request_bytes;
    queue->descriptors[0].flags = DESCRIPTOR_NEXT;
    queue->descriptors[0].next = 1;
    queue->descriptors[1].address = (uintptr_t)queue->response;
    queue->descriptors[1].length = response_bytes;
    queue->descriptors[1].flags = DESCRIPTOR_WRITE;
    queue->available.flags = NO_INTERRUPT; /* the answer is waited for */
    queue->available.ring[index % BARE_QUEUE] = 0;
    __atomic_store_n(&queue->available.index, index + 1, __ATOMIC_SEQ_CST);
    write16(device->notify, 0);
    while (__atomic_load_n(&queue->used.index, __ATOMIC_ACQUIRE) != (uint16_t)(index + 1)) {
        if (bare_now() > end)
            return -BARE_ETIMEDOUT;
        cpu_pause();
    }
    return 0;
}
