/* SPDX-License-Identifier: MIT */
#include "memmap_model.h"

#include <errno.h>
#include <string.h>

void memmap_model_open(struct memmap_model *model, const struct memplug_geometry *geometry,
                       uint64_t alignment)
{
    memset(model, 0, sizeof(*model));
    model->geometry = *geometry;
    model->nr_blocks = geometry->address_limit >> geometry->block_shift;
    model->page_bytes = UINT64_C(1) << geometry->page_shift;
    model->block_bytes = UINT64_C(1) << geometry->block_shift;
    model->memmap_bytes = model->block_bytes / model->page_bytes * geometry->page_struct_bytes;
    model->large_bytes = UINT64_C(1) << geometry->large_shift;
    if (model->large_bytes > UINT64_C(32) << 20) /* a table of 64 KiB pages maps 512 MiB */
        model->large_bytes = model->page_bytes;
    model->window_bytes = model->nr_blocks * model->memmap_bytes;
    model->alignment = alignment;
}

/* Does the block's memmap have a byte in the large unit? */
static bool reaches(const struct memmap_model *model, uint64_t block, uint64_t large)
{
    return block * model->memmap_bytes < (large + 1) * model->large_bytes &&
           (block + 1) * model->memmap_bytes > large * model->large_bytes;
}

uint64_t memmap_model_units(const struct memmap_model *model)
{
    if (model->large_bytes == model->page_bytes)
        return 0;
    return (model->window_bytes + model->large_bytes - 1) / model->large_bytes;
}

/* Is every byte of this unit one of these blocks'? (Those behind the last block are nobody's.) */
static bool wholly_of(const struct memmap_model *model, uint64_t large, uint64_t first,
                      uint64_t nr_blocks)
{
    return large * model->large_bytes >= first * model->memmap_bytes &&
           (large + 1) * model->large_bytes <= (first + nr_blocks) * model->memmap_bytes;
}

/* --- what an add answers ---------------------------------------------------------------------- */

static bool supported(const struct memmap_model *model, uint64_t nr_blocks,
                      enum memplug_memmap memmap, bool pad)
{
    uint64_t size_bytes = nr_blocks * model->memmap_bytes;
    uint64_t nr_pages = size_bytes / model->page_bytes;
    uint64_t nr_block_pages = model->block_bytes / model->page_bytes;
    uint64_t pageblock = UINT64_C(1) << model->geometry.pageblock_order;

    if (size_bytes % model->page_bytes != 0)
        return false;
    if (memmap == MEMPLUG_MEMMAP_HOST)
        return true;
    while (pad && nr_pages % pageblock != 0)
        nr_pages++;
    return size_bytes % model->alignment == 0 && nr_pages < nr_blocks * nr_block_pages;
}

bool memmap_model_shared(const struct memmap_model *model, uint64_t block)
{
    for (uint64_t large = 0; large < memmap_model_units(model); large++)
        if (model->provided[large] && reaches(model, block, large) &&
            !wholly_of(model, large, block, 1))
            return true;
    return false;
}

static int expect_at(const struct memmap_model *model, uint64_t first, uint64_t nr_blocks, bool own)
{
    int error = 0;

    if (first == 0 || first + nr_blocks > model->nr_blocks)
        return -E2BIG;
    for (uint64_t id = first; id < first + nr_blocks; id++) {
        if (model->blocks[id].present)
            return -EEXIST;
        if (own && memmap_model_shared(model, id))
            error = -EBUSY;
    }
    if (first * model->memmap_bytes % (own ? model->alignment : model->page_bytes) != 0)
        return -EINVAL;
    return error;
}

static int expect_with(const struct memmap_model *model, struct memmap_request *request)
{
    bool own = request->memmap != MEMPLUG_MEMMAP_HOST;

    if (!request->anywhere)
        return expect_at(model, request->first, request->nr_blocks, own);
    for (uint64_t id = 1; id < model->nr_blocks; id++)
        if (expect_at(model, id, request->nr_blocks, own) == 0) {
            request->first = id;
            return 0;
        }
    return -E2BIG;
}

int memmap_model_expect(const struct memmap_model *model, struct memmap_request *request)
{
    bool hint = request->memmap == MEMPLUG_MEMMAP_AUTO;
    bool range = request->memmap == MEMPLUG_MEMMAP_RANGE;
    int error;

    if (!request->anywhere)
        for (uint64_t id = request->first; id < request->first + request->nr_blocks; id++)
            if (model->blocks[id].present)
                return -EEXIST;
    if (hint) /* as Linux, a block's memmap of its own is whole pageblocks, or padded */
        request->memmap = supported(model, 1, MEMPLUG_MEMMAP_BLOCK, request->pad) &&
                                  (request->pad ||
                                   model->memmap_bytes / model->page_bytes %
                                           (UINT64_C(1) << model->geometry.pageblock_order) ==
                                       0)
                              ? MEMPLUG_MEMMAP_BLOCK
                              : MEMPLUG_MEMMAP_HOST;
    if (!supported(model, range ? request->nr_blocks : 1, request->memmap, request->pad))
        return -EINVAL;
    error = expect_with(model, request);
    if (error == 0 || !hint || request->memmap == MEMPLUG_MEMMAP_HOST)
        return error;
    request->memmap = MEMPLUG_MEMMAP_HOST;
    return expect_with(model, request);
}

/* --- what it does ----------------------------------------------------------------------------- */

void memmap_model_add(struct memmap_model *model, const struct memmap_request *request,
                      uint32_t stamp)
{
    bool range = request->memmap == MEMPLUG_MEMMAP_RANGE;
    uint64_t nr_head = (range ? request->nr_blocks : 1) * model->memmap_bytes / model->page_bytes;
    uint64_t pageblock = UINT64_C(1) << model->geometry.pageblock_order;

    while (request->pad && nr_head % pageblock != 0)
        nr_head++;
    for (uint64_t id = request->first; id < request->first + request->nr_blocks; id++)
        model->blocks[id] = (struct memmap_model_block){
            .present = true,
            .own = request->memmap != MEMPLUG_MEMMAP_HOST,
            .first = range ? request->first : id,
            .nr_blocks = range ? request->nr_blocks : 1,
            .nr_head = request->memmap != MEMPLUG_MEMMAP_HOST ? nr_head : 0,
            .stamp = stamp,
        };
    if (request->memmap != MEMPLUG_MEMMAP_HOST)
        return;
    for (uint64_t large = 0; large < memmap_model_units(model); large++)
        if (wholly_of(model, large, request->first, request->nr_blocks))
            model->provided[large] = true;
}

void memmap_model_remove(struct memmap_model *model, uint64_t first, uint64_t nr_blocks)
{
    for (uint64_t id = first; id < first + nr_blocks; id++)
        memset(&model->blocks[id], 0, sizeof(model->blocks[id]));
    for (uint64_t large = 0; large < memmap_model_units(model); large++) {
        bool used = false;

        for (uint64_t id = 0; model->provided[large] && id < model->nr_blocks; id++)
            used |= model->blocks[id].present && reaches(model, id, large);
        model->provided[large] &= used;
    }
}

bool memmap_model_page(const struct memmap_model *model, uint64_t offset,
                       struct memmap_model_page *page)
{
    const struct memmap_model_block *block = &model->blocks[offset / model->memmap_bytes];
    uint64_t large = offset / model->large_bytes;
    uint64_t begin = block->first * model->memmap_bytes;
    uint64_t address = block->first * model->block_bytes;
    bool whole = model->large_bytes != model->page_bytes &&
                 wholly_of(model, large, block->first, block->nr_blocks) &&
                 (address + large * model->large_bytes - begin) % model->large_bytes == 0;

    if (large < memmap_model_units(model) && model->provided[large]) {
        *page = (struct memmap_model_page){.unit_bytes = model->large_bytes};
        return true;
    }
    if (!block->present)
        return false;
    *page = (struct memmap_model_page){.unit_bytes = model->page_bytes, .own = block->own};
    if (block->own && whole)
        page->unit_bytes = model->large_bytes;
    page->address = block->own ? address + (offset - begin) : 0;
    return true;
}
