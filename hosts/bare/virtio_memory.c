/* SPDX-License-Identifier: MIT */
/*
 * virtio-mem: what a device wants is read from its configuration when its interrupt says that it
 * has changed, and tried again every second while it could not be done; what the driver in
 * front/devices plugs and unplugs is asked of the device by its queue.
 */
#include "virtio_memory.h"

#include "console.h"
#include "virtio.h"

#include "../../front/devices/virtio_mem.h"

#define DEVICE_ID (BARE_VIRTIO_ID + 24u)
#define MAX_DEVICES 8u
#define STATE_BYTES 65536u
#define FEATURE_NODE 1u
#define FEATURE_INACCESSIBLE 2u /* what is not plugged in may not even be read */
#define SEARCH_NS 50000000u     /* new devices are looked for so often */
#define RETRY_NS 1000000000u
#define VACATE_NS 1000000000u /* for a sub-block that somebody is in */
#define MAX_BLOCKS 0x8000u      /* of a request */

enum { CONFIG_BLOCK = 0, CONFIG_NODE = 8, CONFIG_ADDRESS = 16, CONFIG_SIZE = 24,
       CONFIG_USABLE = 32, CONFIG_PLUGGED = 40, CONFIG_REQUESTED = 48 };
enum { PLUG = 0, UNPLUG = 1, UNPLUG_ALL = 2, STATE = 3 };
enum { REQUEST_BYTES = 24, RESPONSE_BYTES = 10 };

struct device {
    struct bare_virtio virtio;
    struct virtio_mem memory;
    struct bare_backing backing;
    char name[16];
    uint64_t requested; /* that was served last */
    int error;          /* what came of it */
    bool usable;
};

static struct virtio_mem_driver driver;
static struct device devices[MAX_DEVICES];
static unsigned nr_devices;
static struct bare_queue queues[MAX_DEVICES];
static uint8_t states[MAX_DEVICES][STATE_BYTES];
static uint64_t next_search, next_retry;
static uint32_t changed, seen, nr_interrupts;

/* Asking is what takes a line down. A message needs no asking, and answers nothing here. */
void bare_virtio_memory_interrupt(void)
{
    nr_interrupts++;
    for (unsigned i = 0; i < MAX_DEVICES; i++)
        bare_virtio_asks(&devices[i].virtio);
    __atomic_fetch_add(&changed, 1, __ATOMIC_RELEASE);
}

/* --- requests --------------------------------------------------------------------------------- */

static int ask(struct device *device, uint16_t type, uint64_t address, uint64_t nr_blocks)
{
    struct bare_queue *queue = device->virtio.queue;
    uint16_t count = (uint16_t)nr_blocks, answer;
    int error;

    memset(queue->request, 0, sizeof(queue->request));
    memcpy(queue->request, &type, sizeof(type));
    memcpy(queue->request + 8, &address, sizeof(address));
    memcpy(queue->request + 16, &count, sizeof(count));
    error = bare_virtio_request(&device->virtio, REQUEST_BYTES, RESPONSE_BYTES);
    memcpy(&answer, queue->response, sizeof(answer));
    return error ? error : answer ? -BARE_EBUSY : 0;
}

static int plug(void *context, uint64_t address, uint64_t size_bytes)
{
    struct device *device = context;
    uint64_t block = device->memory.config.device_block_bytes;

    for (uint64_t done = 0; done < size_bytes;) {
        uint64_t nr = (size_bytes - done) / block;
        int error;

        nr = nr < MAX_BLOCKS ? nr : MAX_BLOCKS;
        error = ask(device, PLUG, address + done, nr);
        if (error && done && ask(device, UNPLUG, address, done / block))
            bare_panic("%s keeps what it has plugged in", device->name);
        if (error)
            return error;
        done += nr * block;
    }
    return 0;
}

static void unplug(void *context, uint64_t address, uint64_t size_bytes)
{
    struct device *device = context;
    uint64_t block = device->memory.config.device_block_bytes;

    for (uint64_t done = 0; done < size_bytes;) {
        uint64_t nr = (size_bytes - done) / block;

        nr = nr < MAX_BLOCKS ? nr : MAX_BLOCKS;
        if (ask(device, UNPLUG, address + done, nr))
            bare_panic("%s does not take %lx back", device->name, address + done);
        done += nr * block;
    }
}

/* --- devices ---------------------------------------------------------------------------------- */

static int start_memory(struct device *device, unsigned index)
{
    const struct bare_virtio *virtio = &device->virtio;
    struct virtio_mem_config config = {
        .name = device->name,
        .address = bare_virtio_config(virtio, CONFIG_ADDRESS),
        .size_bytes = bare_virtio_config(virtio, CONFIG_SIZE),
        .device_block_bytes = bare_virtio_config(virtio, CONFIG_BLOCK),
        .backing = &device->backing, .plug = plug, .unplug = unplug, .context = device};
    struct memplug_geometry geometry;
    size_t state_bytes;

    if (virtio->features & FEATURE_NODE)
        config.node = (int)(bare_virtio_config(virtio, CONFIG_NODE) & 0xffff);
    device->backing = (struct bare_backing){config.address, config.size_bytes};
    bare_geometry(&geometry);
    state_bytes = virtio_mem_state_bytes(&geometry, &config);
    if (!state_bytes || state_bytes > STATE_BYTES)
        return -BARE_EINVAL;
    if (bare_virtio_config(virtio, CONFIG_PLUGGED) && ask(device, UNPLUG_ALL, 0, 0))
        return -BARE_EIO;
    if (!driver.pool && virtio_mem_driver_open(&driver, bare_pool, &geometry))
        return -BARE_ENOSPC;
    return virtio_mem_open(&driver, &device->memory, &config, states[index], NULL);
}

static void take_function(const struct bare_pci *pci)
{
    struct device *device = &devices[nr_devices];

    if (pci->vendor != BARE_VIRTIO_VENDOR || pci->id != DEVICE_ID || nr_devices == MAX_DEVICES)
        return;
    for (unsigned i = 0; i < nr_devices; i++)
        if (devices[i].virtio.pci.bus == pci->bus && devices[i].virtio.pci.device == pci->device &&
            devices[i].virtio.pci.function == pci->function)
            return;
    bare_format(device->name, sizeof(device->name), "virtio-mem%u", nr_devices);
    device->error = bare_virtio_open(&device->virtio, pci, &queues[nr_devices],
                                     FEATURE_NODE | FEATURE_INACCESSIBLE, BARE_VECTOR_DEVICE);
    if (!device->error)
        device->error = start_memory(device, nr_devices);
    device->usable = !device->error;
    nr_devices++;
    __atomic_fetch_add(&changed, 1, __ATOMIC_RELEASE);
}

static void serve(struct device *device)
{
    static const struct memplug_limit limit = {.timeout_ns = VACATE_NS};
    uint64_t requested;

    if (!device->usable)
        return;
    requested = bare_virtio_config(&device->virtio, CONFIG_REQUESTED);
    if (requested == device->requested && !device->error &&
        device->memory.plugged_bytes == requested)
        return;
    device->error = virtio_mem_request(&device->memory, requested, &limit, NULL);
    __atomic_store_n(&device->requested, requested, __ATOMIC_RELEASE);
}

bool bare_virtio_memory_poll(void)
{
    uint64_t now = bare_now();
    uint32_t count;

    if (now >= next_search) {
        bare_pci_each(take_function);
        next_search = now + SEARCH_NS;
    }
    count = __atomic_load_n(&changed, __ATOMIC_ACQUIRE);
    if (count == seen && now < next_retry)
        return false;
    seen = count;
    next_retry = now + RETRY_NS;
    for (unsigned i = 0; i < nr_devices; i++)
        serve(&devices[i]);
    return false;
}

static int say_devices(char **argument, struct memplug_reason *reason)
{
    (void)argument;
    (void)reason;
    for (unsigned i = 0; i < nr_devices; i++) {
        const struct device *device = &devices[i];

        bare_say("%s bus %u address %lu size %lu block %lu node %d requested %lu plugged %lu "
                 "device_says %lu error %d\n",
                 device->name, device->virtio.pci.bus, device->backing.address,
                 device->backing.size_bytes, device->memory.config.device_block_bytes,
                 device->memory.config.node, device->requested, device->memory.plugged_bytes,
                 device->usable ? bare_virtio_config(&device->virtio, CONFIG_PLUGGED) : 0,
                 -device->error);
    }
    bare_say("interrupts %u\n", nr_interrupts);
    return 0;
}

/* What the device says of a sub-block: 0 plugged in, 1 not, 2 in part. */
static int ask_state(struct device *device, uint64_t address, uint16_t *state)
{
    const struct virtio_mem *memory = &device->memory;
    int error = ask(device, STATE, address,
                    memory->sub_block_bytes / memory->config.device_block_bytes);

    memcpy(state, device->virtio.queue->response + 8, sizeof(*state));
    return error;
}

/* Do the devices say of each sub-block what the driver believes? What they do not. */
static int states_agree(char **argument, struct memplug_reason *reason)
{
    (void)argument;
    (void)reason;
    for (unsigned i = 0; i < nr_devices; i++) {
        struct device *device = &devices[i];
        const struct virtio_mem *memory = &device->memory;
        uint64_t start = memory->first_block * bare_block_bytes(), usable = 0;

        if (device->usable)
            usable = bare_virtio_config(&device->virtio, CONFIG_USABLE);
        for (uint64_t k = 0; device->usable && k < memory->nr_blocks * memory->sub_blocks; k++) {
            uint64_t address = start + k * memory->sub_block_bytes;
            uint16_t state;

            /* Beyond what is usable now the device answers no questions. */
            if (address + memory->sub_block_bytes > device->backing.address + usable &&
                !memory->plugged[k])
                break;
            if (ask_state(device, address, &state))
                bare_say("%s does not answer at %lx\n", device->name, address);
            else if (state != !memory->plugged[k])
                bare_say("%s at %lx: state %u, and %u here\n", device->name, address, state,
                         memory->plugged[k]);
        }
    }
    return 0;
}

const struct bare_word bare_device_words[] = {
    {"devices", 0, say_devices}, {"states", 0, states_agree}, {NULL, 0, NULL}};
