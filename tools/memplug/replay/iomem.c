/* SPDX-License-Identifier: MIT */
/* /proc/iomem of a q35 machine. Its lines count, for whoever numbers them; those of devices are
 * marked as what only the real machine knows. */
#include "pseudo.h"
#include "virtio_device.h"

#include <inttypes.h>
#include <stdlib.h>

#define PCI_WINDOW_BYTES ((uint64_t)32 << 30)

struct resource {
    uint64_t start, end; /* inclusive */
    unsigned depth;
    bool foreign;
    const char *name;
};

/* Between the end of low memory and 4 GiB. */
static const struct resource devices[] = {
    {0xb0000000, 0xbfffffff, 0, true, "PCI MMCONFIG 0000 [bus 00-ff]"},
    {0xb0000000, 0xbfffffff, 1, true, "Reserved"},
    {0xb0000000, 0xbfffffff, 2, true, "pnp 00:04"},
    {0xc0000000, 0xfebfffff, 0, true, "PCI Bus 0000:00"},
    {0xfebff000, 0xfebfffff, 1, true, "0000:00:1f.2"},
    {0xfec00000, 0xfec003ff, 0, true, "IOAPIC 0"},
    {0xfed00000, 0xfed003ff, 0, true, "HPET 0"},
    {0xfed1c000, 0xfed1ffff, 0, true, "Reserved"},
    {0xfee00000, 0xfee00fff, 0, true, "Local APIC"},
    {0xfffc0000, 0xffffffff, 0, true, "Reserved"},
};

static void print(struct buffer *text, const struct resource *resource)
{
    if (resource->foreign)
        buffer_print(text, "%c", PSEUDO_FOREIGN_MARK);
    buffer_print(text, "%*s%08" PRIx64 "-%08" PRIx64 " : %s\n", 2 * (int)resource->depth, "",
               resource->start, resource->end, resource->name);
}

static void print_low(const struct machine *machine, struct buffer *text)
{
    const struct layout *layout = &machine->layout;
    uint64_t usable_end = layout->memory[1].address + layout->memory[1].size_bytes;
    const struct resource low[] = {
        {0, 0xfff, 0, false, "Reserved"},
        {0x1000, 0x9fbff, 0, false, "System RAM"},
        {0x9fc00, 0x9ffff, 0, false, "Reserved"},
        {0xa0000, 0xbffff, 0, true, "PCI Bus 0000:00"},
        {0xf0000, 0xfffff, 0, true, "Reserved"},
        {0xf0000, 0xfffff, 1, true, "System ROM"},
        {0x100000, usable_end - 1, 0, false, "System RAM"},
        {0x1000000, 0x1ffffff, 1, true, "Kernel code"},
        {0x2000000, 0x2b6bfff, 1, true, "Kernel rodata"},
        {0x2c00000, 0x2e708ff, 1, true, "Kernel data"},
        {0x3128000, 0x35fffff, 1, true, "Kernel bss"},
        {usable_end, layout->low_end - 1, 0, false, "Reserved"},
        {layout->low_end, 0xafffffff, 0, true, "PCI Bus 0000:00"},
    };

    for (size_t i = 0; i < sizeof(low) / sizeof(low[0]); i++)
        print(text, &low[i]);
}

static int by_start(const void *a, const void *b)
{
    const struct firmware_entry *const *x = a, *const *y = b;

    return (*x)->start < (*y)->start ? -1 : (*x)->start > (*y)->start;
}

/* Memory above 4 GiB: the machine's own, and what is plugged in. */
static void print_high(const struct machine *machine, struct buffer *text)
{
    const struct firmware_entry **entries =
        must_alloc(machine->nr_firmware, sizeof(*entries));
    size_t nr = 0;

    for (size_t i = 0; i < machine->nr_firmware; i++)
        if (machine->firmware[i].start >= LAYOUT_DMA32_LIMIT &&
            machine->firmware[i].type[0] == 'S')
            entries[nr++] = &machine->firmware[i];
    qsort(entries, nr, sizeof(*entries), by_start);
    for (size_t i = 0; i < nr; i++)
        print(text, &(struct resource){entries[i]->start, entries[i]->end, 0, false,
                                       "System RAM"});
    free(entries);
}

/* What a virtio-mem driver has added, below the device: blocks that follow each other are one. */
static void print_virtio(const struct machine *machine, struct buffer *text)
{
    unsigned shift = machine->layout.block_shift;
    uint64_t address, size_bytes;

    for (size_t i = 0; virtio_region(machine, i, &address, &size_bytes); i++) {
        uint64_t end = (address + size_bytes) >> shift, first = UINT64_MAX;

        print(text, &(struct resource){address, address + size_bytes - 1, 0, true, "virtio"});
        for (uint64_t id = address >> shift; id <= end; id++) {
            struct memplug_block_info info;
            bool present = id < end && !memplug_block_info(machine->pool, id, &info);

            if (present && first == UINT64_MAX)
                first = id;
            if (present || first == UINT64_MAX)
                continue;
            print(text, &(struct resource){first << shift, (id << shift) - 1, 1, false,
                                           "System RAM (virtio_mem)"});
            first = UINT64_MAX;
        }
    }
}

void iomem_read(const struct machine *machine, struct buffer *text)
{
    uint64_t window_end = machine->layout.window_end;

    print_low(machine, text);
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
        print(text, &devices[i]);
    print_high(machine, text);
    print_virtio(machine, text);
    print(text, &(struct resource){window_end, window_end + PCI_WINDOW_BYTES - 1, 0, false,
                                   "PCI Bus 0000:00"});
    print(text, &(struct resource){0xfd00000000, 0xffffffffff, 0, false, "Reserved"});
}
