/* SPDX-License-Identifier: MIT */
/*
 * Where memmaps must lie, stated as naively as can be: a flag for each block of the pool and one
 * for each large unit of the memmap window. Nothing here is the core's.
 */
#ifndef MEMMAP_MODEL_H
#define MEMMAP_MODEL_H

#include <memplug/memplug.h>

#define MEMMAP_MODEL_BLOCKS 256u
#define MEMMAP_MODEL_UNITS 4096u

struct memmap_model_block {
    bool present, own, online;
    uint64_t first, nr_blocks; /* of its unit: what goes as one */
    uint64_t nr_head;          /* of the unit's first block: frames of the memmap, with padding */
    uint32_t stamp;            /* another in each life */
};

struct memmap_model {
    struct memplug_geometry geometry;
    uint64_t nr_blocks;
    uint64_t page_bytes, block_bytes;
    uint64_t memmap_bytes;  /* of one block */
    uint64_t large_bytes;   /* the page if no large unit is used */
    uint64_t window_bytes;
    uint64_t alignment;     /* of the backing */
    struct memmap_model_block blocks[MEMMAP_MODEL_BLOCKS];
    bool provided[MEMMAP_MODEL_UNITS]; /* as a whole, for memmaps of the host's */
};

struct memmap_request {
    bool anywhere;
    uint64_t first, nr_blocks;
    enum memplug_memmap memmap;
    bool pad;
};

void memmap_model_open(struct memmap_model *model, const struct memplug_geometry *geometry,
                       uint64_t alignment);

/* Large units of the window; 0 if it has none but pages. */
uint64_t memmap_model_units(const struct memmap_model *model);

/* Does a provided unit that describes other blocks too lie over this block's struct pages? Over an
 * absent one's it is a hole that sharers have left. */
bool memmap_model_shared(const struct memmap_model *model, uint64_t block);

/* What an add must answer. 0: first and memmap of the request are what it must choose. */
int memmap_model_expect(const struct memmap_model *model, struct memmap_request *request);

/* It was done; or these blocks, whole units, were removed. */
void memmap_model_add(struct memmap_model *model, const struct memmap_request *request,
                      uint32_t stamp);
void memmap_model_remove(struct memmap_model *model, uint64_t first, uint64_t nr_blocks);

/* A page of the window: in which unit is it mapped, by whom? False: it is not mapped. */
struct memmap_model_page {
    uint64_t unit_bytes;
    bool own;
    uint64_t address; /* of its frame, if own */
};
bool memmap_model_page(const struct memmap_model *model, uint64_t offset,
                       struct memmap_model_page *page);

#endif
