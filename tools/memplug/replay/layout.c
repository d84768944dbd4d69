/* SPDX-License-Identifier: MIT */
#include "layout.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define SPLIT_AT (2816 * MIB) /* from this size on 2 GiB lie below 4 GiB, and no more */
#define REAL_MODE_START (4096ull)
#define REAL_MODE_END (0x9f000ull)
#define HIGH_START (1 * MIB)
#define FIRMWARE_BYTES (0x20000ull)
#define LARGE_MACHINE (64 * GIB) /* memory that ends below has the smallest blocks */
#define MAX_BLOCK_SHIFT 31

static unsigned block_shift(uint64_t end)
{
    unsigned shift = MAX_BLOCK_SHIFT;

    if (end < LARGE_MACHINE)
        return LAYOUT_SECTION_SHIFT;
    while (shift > LAYOUT_SECTION_SHIFT && end % ((uint64_t)1 << shift))
        shift--;
    return shift;
}

static void memory_add(struct layout *layout, uint64_t start, uint64_t end)
{
    layout->memory[layout->nr_memory++] =
        (struct memplug_boot_memory){.address = start, .size_bytes = end - start, .node = 0};
}

void layout_make(struct layout *layout, uint64_t mem_bytes, uint64_t maxmem_bytes,
                 unsigned nr_slots)
{
    uint64_t low_end = mem_bytes >= SPLIT_AT ? 2 * GIB : mem_bytes;

    *layout = (struct layout){.low_end = low_end, .high_end = 4 * GIB + (mem_bytes - low_end)};
    memory_add(layout, REAL_MODE_START, REAL_MODE_END);
    memory_add(layout, HIGH_START, low_end - FIRMWARE_BYTES);
    if (mem_bytes > low_end)
        memory_add(layout, 4 * GIB, layout->high_end);
    layout->block_shift = block_shift(mem_bytes > low_end ? layout->high_end : low_end);
    layout->window = (layout->high_end + GIB - 1) & ~(GIB - 1);
    /* Each slot may waste up to 1 GiB by alignment. */
    layout->window_end = layout->window + (maxmem_bytes - mem_bytes) + nr_slots * GIB;
    layout->base_block = layout->window >> layout->block_shift;
}

uint64_t layout_kernel_bytes(uint64_t mem_bytes)
{
    uint64_t memmap = mem_bytes / 64;

    return memmap + 12 * MIB + (memmap < 32 * MIB ? memmap : 32 * MIB);
}
