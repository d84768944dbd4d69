/* SPDX-License-Identifier: MIT */
#include "machine.h"

#include "dimm.h"
#include "hog.h"
#include "kernel_options.h"
#include "tmpfs.h"
#include "vfs.h"
#include "virtio_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((uint64_t)1 << 20)
#define CLOCK_STEP_NS 1000u
#define WRITE_TIMEOUT_NS (60 * NS_PER_S)
#define FILL_BYTES (1 * MIB) /* of each block that is plugged in, so much is junk */
#define MEMMAP_FILL_BYTES 64 /* and of each unit of a memmap that the host provides */
#define HOST_BYTES (256 * MIB) /* page tables, bitmaps */

uint64_t machine_block_bytes(const struct machine *machine)
{
    return (uint64_t)1 << machine->layout.block_shift;
}

uint64_t machine_clock(const struct machine *machine)
{
    return fake_clock(machine->fake);
}

void machine_sleep(struct machine *machine, uint64_t ns)
{
    fake_clock_advance(machine->fake, ns);
}

/* --- the host --------------------------------------------------------------------------------- */

static uint64_t address_limit(const struct layout *layout)
{
    uint64_t block = (uint64_t)1 << layout->block_shift;

    return (layout->window_end + block - 1) & ~(block - 1);
}

static int open_host(struct machine *machine)
{
    const struct layout *layout = &machine->layout;
    struct fake_config config = {.geometry = fake_geometry(FAKE_X86),
                                 .nr_cpus = machine->options.nr_cpus,
                                 .seed = 1,
                                 .fill_bytes = FILL_BYTES,
                                 .memmap_fill_bytes = MEMMAP_FILL_BYTES,
                                 .lends = true,
                                 .clock_step_ns = CLOCK_STEP_NS};
    struct fake_backing_spec boot = {.content = FAKE_CONTENT_KEEP};
    int error;

    config.geometry.section_shift = LAYOUT_SECTION_SHIFT;
    config.geometry.block_shift = (uint8_t)layout->block_shift;
    config.geometry.address_limit = address_limit(layout);
    config.boot_bytes = HOST_BYTES + layout->high_end / 32;
    error = fake_open(&config, &machine->fake);
    if (error)
        return error;
    boot.size_bytes = (layout->high_end + machine_block_bytes(machine) - 1) &
                      ~(machine_block_bytes(machine) - 1);
    machine->boot_backing = fake_backing_open(machine->fake, &boot);
    if (!machine->boot_backing)
        return -ENOMEM;
    machine->lend = lend_open(machine->fake);
    return 0;
}

/* --- the pool --------------------------------------------------------------------------------- */

static int open_pool(struct machine *machine, struct memplug_reason *reason)
{
    uint64_t size_bytes;
    void *metadata;

    machine->config = (struct memplug_config){.host = lend_host(machine->lend),
                                              .nr_nodes = machine->options.nr_nodes};
    size_bytes = memplug_metadata_bytes(&machine->config);
    metadata = size_bytes ? fake_metadata(machine->fake, size_bytes) : NULL;
    if (!metadata)
        return size_bytes ? -ENOMEM : -EINVAL;
    return memplug_open(&machine->config, metadata, size_bytes, &machine->pool, reason);
}

static int boot_pool(struct machine *machine, struct memplug_reason *reason)
{
    const struct memplug_boot boot = {.memory = machine->layout.memory,
                                      .nr_memory = machine->layout.nr_memory,
                                      .dma_limit = LAYOUT_DMA_LIMIT,
                                      .dma32_limit = LAYOUT_DMA32_LIMIT,
                                      .backing = machine->boot_backing};
    int error = memplug_boot(machine->pool, &boot, NULL, reason);

    if (!error)
        lend_from(machine->lend, machine->pool);
    return error;
}

/* What a kernel has for itself, in the block below the hole: that never goes. If this is also the
 * block that is in several zones, nobody gets a frame of it anyway. */
static int hold_kernel(struct machine *machine)
{
    uint64_t nr_pages = layout_kernel_bytes(machine->options.mem_bytes) >> LAYOUT_PAGE_SHIFT;
    uint64_t end = machine->layout.memory[1].address + machine->layout.memory[1].size_bytes;
    uint64_t first = (end - 1) & ~(machine_block_bytes(machine) - 1);

    if (!first)
        return 0;
    end >>= LAYOUT_PAGE_SHIFT;
    first >>= LAYOUT_PAGE_SHIFT;
    if (nr_pages > end - first)
        nr_pages = end - first;
    return store_take_exact(machine->store, &machine->kernel, (memplug_pfn_t){end - nr_pages},
                            (uint32_t)nr_pages);
}

/* --- who listens ------------------------------------------------------------------------------ */

static void hear(void *context, const struct memplug_uevent *event)
{
    struct happened *happened = &((struct machine *)context)->happened;

    happened->uevents = must_grow(happened->uevents, happened->nr_uevents + 1, sizeof(*event));
    happened->uevents[happened->nr_uevents++] = *event;
}

static int record_notice(void *context, const struct memplug_notice *notice)
{
    struct happened *happened = &((struct machine *)context)->happened;

    happened->notices = must_grow(happened->notices, happened->nr_notices + 1, sizeof(*notice));
    happened->notices[happened->nr_notices++] = *notice;
    return 0;
}

static int inject(void *context, const struct memplug_notice *notice)
{
    const struct machine *machine = context;

    if (notice->event == MEMPLUG_GOING_ONLINE)
        return machine->inject_online;
    return notice->event == MEMPLUG_GOING_OFFLINE ? machine->inject_offline : 0;
}

void machine_forget(struct happened *happened)
{
    free(happened->uevents);
    free(happened->notices);
    *happened = (struct happened){0};
}

int machine_load_injector(struct machine *machine)
{
    int error;

    if (machine->has_injector)
        return 0;
    error = memplug_subscribe(machine->pool, &machine->injector);
    machine->has_injector = !error;
    return error;
}

int machine_unload_injector(struct machine *machine)
{
    int error = machine->has_injector ? memplug_unsubscribe(machine->pool, &machine->injector)
                                      : -ENOENT;

    if (!error) {
        machine->has_injector = false;
        machine->inject_online = machine->inject_offline = 0;
    }
    return error;
}

static int start_listening(struct machine *machine)
{
    int error;

    machine->listener = (struct memplug_listener){.hear = hear, .context = machine};
    machine->recorder = (struct memplug_subscriber){
        .name = "record", .priority = 1000, .notify = record_notice, .context = machine};
    machine->injector = (struct memplug_subscriber){
        .name = "notifier-error-inject", .notify = inject, .context = machine};
    error = memplug_listen(machine->pool, &machine->listener);
    return error ? error : memplug_subscribe(machine->pool, &machine->recorder);
}

static int open_attr(struct machine *machine)
{
    struct memplug_attr_config config = {.pool = machine->pool, .pool_config = &machine->config,
                                         .limit = &machine->limit};
    int error;

    machine->limit = (struct memplug_limit){.timeout_ns = WRITE_TIMEOUT_NS};
    error = memplug_attr_init(&machine->attr, &config);
    machine->has_attr = !error;
    return error;
}

/* --- the firmware's map ----------------------------------------------------------------------- */

static void firmware_entry(struct machine *machine, uint64_t start, uint64_t end,
                           const char *type, bool plugged)
{
    struct firmware_entry entry = {.number = machine->next_firmware++, .start = start,
                                   .end = end - 1, .type = type, .plugged = plugged};

    machine->firmware = must_grow(machine->firmware, machine->nr_firmware + 1, sizeof(entry));
    machine->firmware[machine->nr_firmware++] = entry;
}

/* As QEMU's firmware reports a q35 machine. */
static void open_firmware(struct machine *machine)
{
    const struct layout *layout = &machine->layout;
    uint64_t usable_end = layout->memory[1].address + layout->memory[1].size_bytes;

    firmware_entry(machine, 0, 0x9fc00, "System RAM", false);
    firmware_entry(machine, 0x9fc00, MIB, "Reserved", false);
    firmware_entry(machine, MIB, usable_end, "System RAM", false);
    firmware_entry(machine, usable_end, layout->low_end, "Reserved", false);
    firmware_entry(machine, 0xb0000000, 0xc0000000, "Reserved", false);
    firmware_entry(machine, 0xfed1c000, 0xfed20000, "Reserved", false);
    firmware_entry(machine, 0xfffc0000, LAYOUT_DMA32_LIMIT, "Reserved", false);
    if (layout->high_end > LAYOUT_DMA32_LIMIT)
        firmware_entry(machine, LAYOUT_DMA32_LIMIT, layout->high_end, "System RAM", false);
    firmware_entry(machine, 0xfd00000000, 0x10000000000, "Reserved", false);
}

void machine_firmware_add(struct machine *machine, uint64_t start, uint64_t size_bytes)
{
    firmware_entry(machine, start, start + size_bytes, "System RAM", true);
}

void machine_firmware_remove(struct machine *machine, uint64_t start)
{
    size_t kept = 0;

    for (size_t i = 0; i < machine->nr_firmware; i++)
        if (!machine->firmware[i].plugged || machine->firmware[i].start != start)
            machine->firmware[kept++] = machine->firmware[i];
    machine->nr_firmware = kept;
}

/* --- open, check, close ----------------------------------------------------------------------- */

static int open_all(struct machine *machine, const char **what, struct memplug_reason *reason)
{
    int error;

    *what = "the host";
    error = open_host(machine);
    if (error)
        return error;
    *what = "the pool";
    error = open_pool(machine, reason);
    if (error)
        return error;
    *what = "the boot memory";
    error = boot_pool(machine, reason);
    if (error)
        return error;
    *what = "the owners of pages";
    error = store_open(machine->pool, (uint64_t)1 << LAYOUT_PAGE_SHIFT, &machine->store);
    if (!error)
        error = hold_kernel(machine);
    if (error)
        return error;
    *what = "the attributes";
    error = open_attr(machine);
    if (!error)
        error = start_listening(machine);
    return error;
}

int machine_open(struct machine *machine, const struct boot_options *options, char *error,
                 size_t size_bytes)
{
    struct memplug_reason reason = {0};
    const char *what = NULL;
    char text[512];
    int result;

    *machine = (struct machine){.options = *options};
    layout_make(&machine->layout, options->mem_bytes, options->maxmem_bytes, options->nr_slots);
    result = open_all(machine, &what, &reason);
    if (result) {
        memplug_reason_text(&reason, text, sizeof(text));
        snprintf(error, size_bytes, "the machine cannot be built: %s: %s%s%s", what,
                 strerror(-result), reason.error ? ": " : "", reason.error ? text : "");
        machine_close(machine);
        return -1;
    }
    machine->hogs = hogs_open();
    machine->tmpfs = tmpfs_open(machine->store);
    open_firmware(machine);
    kernel_options_apply(machine);
    machine_forget(&machine->happened);
    return 0;
}

int machine_check(struct machine *machine, char *error, size_t size_bytes)
{
    struct memplug_reason reason = {0};
    char text[512];

    if (hogs_verify(machine, error, size_bytes))
        return -1;
    if (memplug_check(machine->pool, &reason)) {
        memplug_reason_text(&reason, text, sizeof(text));
        snprintf(error, size_bytes, "the pool is broken: %s", text);
        return -1;
    }
    if (fake_check(machine->fake, text, sizeof(text))) {
        snprintf(error, size_bytes, "the machine's page tables are broken: %s", text);
        return -1;
    }
    return 0;
}

void machine_close(struct machine *machine)
{
    vfs_closeall(machine);
    if (machine->tmpfs)
        tmpfs_close(machine->tmpfs);
    if (machine->hogs)
        hogs_close(machine);
    virtio_close(machine);
    dimms_close(machine);
    if (machine->lend)
        lend_close(machine->lend);
    if (machine->store)
        store_close(machine->store);
    free(machine->kernel.units);
    if (machine->fake)
        fake_close(machine->fake, NULL, 0);
    machine_forget(&machine->happened);
    free(machine->firmware);
    buffer_free(&machine->cmdline);
}

/* --- words of the language -------------------------------------------------------------------- */

static bool is_word(char sign)
{
    return (sign >= 'a' && sign <= 'z') || (sign >= 'A' && sign <= 'Z') ||
           (sign >= '0' && sign <= '9') || sign == '_';
}

void machine_expand(const struct machine *machine, const char *from, struct buffer *to)
{
    while (*from) {
        if (from[0] == '$' && (from[1] == 'M' || from[1] == 'P') && !is_word(from[2])) {
            buffer_print(to, "%s", from[1] == 'M' ? "/sys/devices/system/memory"
                                                : "/sys/module/memory_hotplug/parameters");
            from += 2;
        } else if (from[0] == '@' && from[1] >= '0' && from[1] <= '9') {
            char *end;
            unsigned long long number = strtoull(from + 1, &end, 10);

            buffer_print(to, "%llu", machine->layout.base_block + number);
            from = end;
        } else {
            buffer_add(to, from++, 1);
        }
    }
}
