/* SPDX-License-Identifier: MIT */
/* Where a PC of this size (QEMU's q35) has its memory, and where more of it can be plugged in. */
#ifndef REPLAY_LAYOUT_H
#define REPLAY_LAYOUT_H

#include <memplug/boot.h>

#define LAYOUT_PAGE_SHIFT 12
#define LAYOUT_SECTION_SHIFT 27
#define LAYOUT_DMA_LIMIT ((uint64_t)16 << 20)
#define LAYOUT_DMA32_LIMIT ((uint64_t)4 << 30)

struct layout {
    uint64_t low_end;    /* memory below the hole ends here; the last 128 KiB are the firmware's */
    uint64_t high_end;   /* memory above 4 GiB ends here; 4 GiB if there is none */
    uint64_t window, window_end; /* addresses of plugged memory */
    unsigned block_shift;
    uint64_t base_block; /* the window's first block: @0 */
    struct memplug_boot_memory memory[3]; /* what is usable */
    unsigned nr_memory;
};

void layout_make(struct layout *layout, uint64_t mem_bytes, uint64_t maxmem_bytes,
                 unsigned nr_slots);

/* What a kernel on this machine has for itself once it is up, besides the blocks that are in no
 * zone of their own: the memmap, and 12 MiB and a bit. */
uint64_t layout_kernel_bytes(uint64_t mem_bytes);

#endif
