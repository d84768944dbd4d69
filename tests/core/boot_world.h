/* SPDX-License-Identifier: MIT */
/* A fake machine behind the fault host, and a pool that is about to boot, or has. */
#ifndef BOOT_WORLD_H
#define BOOT_WORLD_H

#include <memplug/boot.h>
#include <memplug/poison.h>

#include "fake/fake.h"
#include "fake/fault.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

struct boot_world {
    struct fake_machine *machine;
    struct fault *fault;
    struct memplug *pool;
    struct fake_backing *backing; /* of the addresses up to memory_bytes */
    struct fake_backing *more;    /* four blocks, to be added */
    uint64_t block_bytes, block_pages;
    struct memplug_reason reason;
};

/* memory_bytes: where the last memory ends. Nothing has booted. */
void boot_world_open(struct boot_world *world, const struct memplug_geometry *geometry,
                     uint64_t memory_bytes, unsigned nr_nodes);

/* The pool is closed by now; nothing may be left behind. */
void boot_world_end(struct boot_world *world);
/* The same without a look at what is left. */
void boot_world_abandon(struct boot_world *world);

/* 0 or what memplug_boot() says. */
int boot_world_boot(struct boot_world *world, const struct memplug_boot_memory *memory,
                    unsigned nr_memory, uint64_t dma_limit, uint64_t dma32_limit,
                    const struct memplug_limit *limit);

/* The pool's dump and the machine's as one text; free() it. */
char *boot_world_text(struct boot_world *world);

/* memplug_check() and fake_check(). */
void boot_world_check(struct boot_world *world);

/* The zone's figures: start, spanned, present, managed, early. */
void boot_world_zone(struct boot_world *world, int node, enum memplug_zone zone, uint64_t start,
                     uint64_t nr_spanned, uint64_t nr_present, uint64_t nr_managed,
                     uint64_t nr_early);

#endif
