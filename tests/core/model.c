/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_open(struct model *model, const struct memplug_geometry *geometry)
{
    memset(model, 0, sizeof(*model));
    model->geometry = *geometry;
    model->page_bytes = (uint64_t)1 << geometry->page_shift;
    model->pageblock_pages = (uint64_t)1 << geometry->pageblock_order;
    model->block_pages = (uint64_t)1 << (geometry->block_shift - geometry->page_shift);
    model->nr_frames = MODEL_BLOCKS * model->block_pages;
    model->owners = malloc(model->nr_frames * sizeof(*model->owners));
    if (model->owners == NULL)
        abort();
    for (uint64_t i = 0; i < model->nr_frames; i++)
        model->owners[i] = MODEL_GONE;
}

void model_close(struct model *model)
{
    free(model->owners);
}

/* --- add and remove --------------------------------------------------------------------------- */

static bool is_own(enum memplug_memmap memmap)
{
    return memmap == MEMPLUG_MEMMAP_BLOCK || memmap == MEMPLUG_MEMMAP_RANGE;
}

static bool whole_pages(const struct model *model, uint64_t nr_blocks)
{
    uint64_t size = nr_blocks * model->block_pages * model->geometry.page_struct_bytes;

    return size % model->page_bytes == 0;
}

int model_may_add(const struct model *model, const struct model_request *request)
{
    uint64_t unit = request->memmap == MEMPLUG_MEMMAP_RANGE ? request->nr_blocks : 1;

    for (uint64_t i = 0; i < request->nr_blocks; i++)
        if (model->blocks[request->first + i].state != MEMPLUG_BLOCK_ABSENT)
            return -EEXIST;
    if (!whole_pages(model, unit) || !whole_pages(model, request->first))
        return -EINVAL;
    for (uint64_t id = 1; id < MODEL_BLOCKS; id++)
        if (model->blocks[id].state != MEMPLUG_BLOCK_ABSENT &&
            model->blocks[id].from - request->from < request->nr_blocks)
            return -EEXIST;
    return 0;
}

static uint64_t memmap_pages(const struct model *model, uint64_t unit, bool pad)
{
    uint64_t nr_memmap =
        unit * model->block_pages * model->geometry.page_struct_bytes / model->page_bytes;

    if (pad)
        nr_memmap = (nr_memmap + model->pageblock_pages - 1) / model->pageblock_pages *
                    model->pageblock_pages;
    return nr_memmap;
}

/* The hint, as by the default policy: no memmap shares a pageblock with data. */
static enum memplug_memmap hinted(const struct model *model, bool pad)
{
    uint64_t nr_memmap = memmap_pages(model, 1, pad);

    return nr_memmap % model->pageblock_pages == 0 && nr_memmap < model->block_pages
               ? MEMPLUG_MEMMAP_BLOCK
               : MEMPLUG_MEMMAP_HOST;
}

void model_add(struct model *model, const struct model_request *request)
{
    enum memplug_memmap memmap = request->memmap == MEMPLUG_MEMMAP_AUTO
                                     ? hinted(model, request->pad)
                                     : request->memmap;
    uint64_t unit = memmap == MEMPLUG_MEMMAP_RANGE ? request->nr_blocks : 1;
    uint64_t nr_memmap = is_own(memmap) ? memmap_pages(model, unit, request->pad) : 0;

    for (uint64_t i = 0; i < request->nr_blocks; i++) {
        struct model_block *block = &model->blocks[request->first + i];
        uint64_t below = i % unit * model->block_pages;

        *block = (struct model_block){.state = MEMPLUG_BLOCK_OFFLINE, .zone = MEMPLUG_NR_ZONES,
                                      .node = request->node, .memmap = memmap,
                                      .unit_first = request->first + i - i % unit,
                                      .unit_nr_blocks = unit, .from = request->from + i};
        if (nr_memmap > below)
            block->nr_memmap = nr_memmap - below;
        if (block->nr_memmap > model->block_pages)
            block->nr_memmap = model->block_pages;
    }
}

int model_may_remove(const struct model *model, uint64_t first, uint64_t nr_blocks)
{
    uint64_t end = first + nr_blocks;

    for (uint64_t id = first; id < end; id++) {
        const struct model_block *block = &model->blocks[id];

        if (block->state == MEMPLUG_BLOCK_ABSENT)
            return -ENODEV;
        if (is_own(block->memmap) != is_own(model->blocks[first].memmap))
            return -EINVAL;
        if (block->unit_first < first || block->unit_first + block->unit_nr_blocks > end)
            return -EINVAL;
    }
    for (uint64_t id = first; id < end; id++)
        if (model->blocks[id].state == MEMPLUG_BLOCK_ONLINE)
            return -EBUSY;
    return 0;
}

void model_remove(struct model *model, uint64_t first, uint64_t nr_blocks)
{
    memset(&model->blocks[first], 0, nr_blocks * sizeof(model->blocks[0]));
}

/* --- online and offline ----------------------------------------------------------------------- */

static int expect_state(const struct model *model, uint64_t first, uint64_t nr_blocks,
                        enum memplug_block_state state)
{
    for (uint64_t id = first; id < first + nr_blocks; id++) {
        if (model->blocks[id].state == MEMPLUG_BLOCK_ABSENT)
            return -ENODEV;
        if (model->blocks[id].state != state)
            return -EINVAL;
    }
    return 0;
}

int model_may_online(const struct model *model, uint64_t first, uint64_t nr_blocks)
{
    return expect_state(model, first, nr_blocks, MEMPLUG_BLOCK_OFFLINE);
}

/* The first and the end block of a zone's span; equal if it spans nothing. */
static void span(const struct model *model, int node, enum memplug_zone zone, uint64_t *first,
                 uint64_t *end)
{
    *first = *end = 0;
    for (uint64_t id = 1; id < MODEL_BLOCKS; id++) {
        const struct model_block *block = &model->blocks[id];

        if (block->state != MEMPLUG_BLOCK_ONLINE || block->node != node || block->zone != zone)
            continue;
        if (*end == 0)
            *first = id;
        *end = id + 1;
    }
}

static bool in_span(const struct model *model, uint64_t id, enum memplug_zone zone)
{
    uint64_t first, end;

    span(model, model->blocks[id].node, zone, &first, &end);
    return id >= first && id < end;
}

static enum memplug_zone zone_for(const struct model *model, uint64_t id,
                                  enum memplug_online_type type)
{
    if (type == MEMPLUG_ONLINE_MOVABLE)
        return MEMPLUG_ZONE_MOVABLE;
    if (type == MEMPLUG_ONLINE_DEFAULT && in_span(model, id, MEMPLUG_ZONE_MOVABLE) &&
        !in_span(model, id, MEMPLUG_ZONE_NORMAL))
        return MEMPLUG_ZONE_MOVABLE;
    return MEMPLUG_ZONE_NORMAL;
}

/* Some pageblocks as a whole, and the upper halves of others. */
bool model_keeps(const struct model *model, uint64_t pfn)
{
    uint64_t pageblock = pfn / model->pageblock_pages;

    if (pageblock % 5 == 1)
        return true;
    return pageblock % 5 == 3 && pfn % model->pageblock_pages >= model->pageblock_pages / 2;
}

void model_online(struct model *model, uint64_t first, uint64_t nr_blocks,
                  enum memplug_online_type type)
{
    for (uint64_t id = first; id < first + nr_blocks; id++) {
        struct model_block *block = &model->blocks[id];

        block->zone = zone_for(model, id, type);
        block->state = MEMPLUG_BLOCK_ONLINE;
        for (uint64_t i = 0; i < model->block_pages; i++) {
            uint64_t pfn = id * model->block_pages + i;
            bool keep = model->hook && model_keeps(model, pfn);

            model->owners[pfn] = i < block->nr_memmap ? MODEL_MEMMAP
                                 : keep               ? MODEL_KEPT
                                                      : MODEL_FREE;
        }
    }
}

static void survey_frame(const struct model *model, uint64_t pfn, bool inside,
                         struct model_survey *survey)
{
    int owner = model->owners[pfn];

    if (!inside) {
        survey->nr_free_elsewhere += owner == MODEL_FREE;
    } else if (owner == MODEL_KEPT) {
        survey->kept = true;
    } else if (owner >= 0) {
        const struct model_slot *slot = &model->slots[owner];

        survey->nr_used++;
        survey->pinned = survey->pinned || slot->nr_pins != 0;
        if (slot->nr_pages > survey->largest)
            survey->largest = slot->nr_pages;
        if (!slot->movable)
            survey->error = -EBUSY;
    }
}

void model_survey(const struct model *model, uint64_t first, uint64_t nr_blocks,
                  struct model_survey *survey)
{
    uint64_t begin = first * model->block_pages, end = begin + nr_blocks * model->block_pages;

    *survey = (struct model_survey){
        .error = expect_state(model, first, nr_blocks, MEMPLUG_BLOCK_ONLINE)};
    if (survey->error != 0)
        return;
    for (uint64_t pfn = 0; pfn < model->nr_frames; pfn++)
        survey_frame(model, pfn, pfn >= begin && pfn < end, survey);
}

void model_offline(struct model *model, uint64_t first, uint64_t nr_blocks)
{
    for (uint64_t id = first; id < first + nr_blocks; id++) {
        model->blocks[id].state = MEMPLUG_BLOCK_OFFLINE;
        model->blocks[id].zone = MEMPLUG_NR_ZONES;
        for (uint64_t i = 0; i < model->block_pages; i++)
            model->owners[id * model->block_pages + i] = MODEL_GONE;
    }
}

/* --- allocations ------------------------------------------------------------------------------ */

int model_may_take(const struct model *model, uint64_t pfn, uint32_t nr_pages, bool movable)
{
    const struct model_block *block;

    if (pfn >= model->nr_frames || model->owners[pfn] == MODEL_GONE)
        return -ENODEV;
    block = &model->blocks[pfn / model->block_pages];
    if (pfn % model->block_pages + nr_pages > model->block_pages ||
        model->owners[pfn] == MODEL_MEMMAP || (!movable && block->zone == MEMPLUG_ZONE_MOVABLE))
        return -EINVAL;
    for (uint32_t i = 0; i < nr_pages; i++)
        if (model->owners[pfn + i] != MODEL_FREE)
            return -EBUSY;
    return 0;
}

int model_may_free(const struct model *model, uint64_t pfn, uint32_t nr_pages)
{
    const struct model_slot *slot;

    if (nr_pages == 0)
        return -EINVAL;
    if (pfn >= model->nr_frames || model->owners[pfn] == MODEL_GONE)
        return -ENODEV;
    if (model->owners[pfn] < 0)
        return -EINVAL;
    slot = &model->slots[model->owners[pfn]];
    if (slot->pfn != pfn || slot->nr_pages != nr_pages)
        return -EINVAL;
    return slot->nr_pins != 0 ? -EBUSY : 0;
}

void model_take(struct model *model, unsigned slot, uint64_t pfn, uint32_t nr_pages)
{
    model->slots[slot].pfn = pfn;
    model->slots[slot].nr_pages = nr_pages;
    for (uint32_t i = 0; i < nr_pages; i++)
        model->owners[pfn + i] = (int)slot;
}

void model_free(struct model *model, unsigned slot)
{
    for (uint32_t i = 0; i < model->slots[slot].nr_pages; i++)
        model->owners[model->slots[slot].pfn + i] = MODEL_FREE;
    model->slots[slot].nr_pages = 0;
}

static bool fits(const struct model *model, uint64_t pfn, uint32_t nr_pages, int node,
                 enum memplug_zone zone)
{
    for (uint32_t i = 0; i < nr_pages; i++) {
        const struct model_block *block;

        if (pfn + i >= model->nr_frames || model->owners[pfn + i] != MODEL_FREE)
            return false;
        block = &model->blocks[(pfn + i) / model->block_pages];
        if (block->node != node || block->zone != zone)
            return false;
    }
    return true;
}

static bool find_in(const struct model *model, const struct memplug_alloc *request, int node,
                    enum memplug_zone zone, uint64_t *pfn)
{
    uint32_t nr_pages = request->nr_pages;
    uint64_t align = nr_pages;

    if ((nr_pages & (nr_pages - 1)) != 0 || nr_pages > 512)
        align = model->pageblock_pages;
    if (request->align_pages > align)
        align = request->align_pages;
    for (uint64_t at = 0; at < model->nr_frames; at += align)
        if (fits(model, at, nr_pages, node, zone)) {
            *pfn = at;
            return true;
        }
    return false;
}

bool model_find(const struct model *model, const struct memplug_alloc *request, uint64_t *pfn)
{
    int first = request->node == MEMPLUG_ANY_NODE ? 0 : request->node;

    for (int i = 0; i < MODEL_NODES; i++) {
        int node = i == 0 ? first : i <= first ? i - 1 : i;

        if (i != 0 && request->this_node)
            return false;
        if (request->mover != 0 &&
            find_in(model, request, node, MEMPLUG_ZONE_MOVABLE, pfn))
            return true;
        if (find_in(model, request, node, MEMPLUG_ZONE_NORMAL, pfn))
            return true;
    }
    return false;
}

/* --- compare ---------------------------------------------------------------------------------- */

static char difference[256];

#define DIFFERS(...) (snprintf(difference, sizeof(difference), __VA_ARGS__), difference)

static uint64_t count(const struct model *model, uint64_t id, int owner)
{
    uint64_t nr = 0;

    for (uint64_t i = 0; i < model->block_pages; i++)
        nr += model->owners[id * model->block_pages + i] == owner;
    return nr;
}

static const char *compare_block(const struct model *model, struct memplug *pool, uint64_t id,
                                 bool frames)
{
    const struct model_block *block = &model->blocks[id];
    struct memplug_block_info info;
    uint64_t nr_data = model->block_pages - block->nr_memmap;
    bool is_online = block->state == MEMPLUG_BLOCK_ONLINE;
    int error = memplug_block_info(pool, id, &info);

    if (block->state == MEMPLUG_BLOCK_ABSENT)
        return error == -ENODEV ? NULL : DIFFERS("block %" PRIu64 " should not be there", id);
    if (error != 0 || info.state != block->state || info.zone != block->zone)
        return DIFFERS("block %" PRIu64 ": error %d, state %d not %d, zone %d not %d", id, error,
                       info.state, block->state, info.zone, block->zone);
    if (info.node != block->node || info.memmap != block->memmap ||
        info.unit_first != block->unit_first || info.unit_nr_blocks != block->unit_nr_blocks ||
        info.nr_memmap_pages != block->nr_memmap || info.nr_isolated_pageblocks != 0)
        return DIFFERS("block %" PRIu64 ": node, memmap, unit or isolation", id);
    if (info.nr_managed_pages != (is_online ? nr_data - count(model, id, MODEL_KEPT) : 0))
        return DIFFERS("block %" PRIu64 ": managed %" PRIu64, id, info.nr_managed_pages);
    if (frames && info.nr_free_pages != count(model, id, MODEL_FREE))
        return DIFFERS("block %" PRIu64 ": free %" PRIu64 " not %" PRIu64, id, info.nr_free_pages,
                       count(model, id, MODEL_FREE));
    return NULL;
}

static const char *compare_zone(const struct model *model, struct memplug *pool, int node,
                                enum memplug_zone zone, bool frames)
{
    struct memplug_zone_info is, should = {0};
    uint64_t first, end;

    span(model, node, zone, &first, &end);
    should.start.nr = first * model->block_pages;
    should.nr_spanned_pages = (end - first) * model->block_pages;
    for (uint64_t id = first; id < end; id++) {
        if (model->blocks[id].state != MEMPLUG_BLOCK_ONLINE || model->blocks[id].node != node ||
            model->blocks[id].zone != zone)
            continue;
        should.nr_present_pages += model->block_pages;
        should.nr_managed_pages += model->block_pages - model->blocks[id].nr_memmap -
                                   count(model, id, MODEL_KEPT);
        should.nr_free_pages += count(model, id, MODEL_FREE);
    }
    if (memplug_zone_info(pool, node, zone, &is) != 0)
        return DIFFERS("there is no zone %d %d", node, zone);
    if (!frames)
        is.nr_free_pages = should.nr_free_pages;
    if (memcmp(&is, &should, sizeof(is)) != 0)
        return DIFFERS("zone %d %d: start %" PRIu64 " spanned %" PRIu64 " present %" PRIu64
                       " managed %" PRIu64 " free %" PRIu64 " isolated %" PRIu64, node, zone,
                       is.start.nr, is.nr_spanned_pages, is.nr_present_pages,
                       is.nr_managed_pages, is.nr_free_pages, is.nr_isolated_pageblocks);
    return NULL;
}

/* The dump's lines: which frame is whose. */
struct reader {
    const struct model *model;
    uint64_t block;
    char line[512];
    size_t length;
    uint64_t nr_seen;
    bool differs;
};

static bool run_is(const struct reader *reader, uint64_t index, uint64_t nr_pages, const char *what)
{
    const struct model *model = reader->model;
    uint64_t pfn = reader->block * model->block_pages + index;
    int owner = model->owners[pfn];
    const struct model_slot *slot = owner >= 0 ? &model->slots[owner] : NULL;
    uint64_t size = 0, cookie = 0, left = model->block_pages - index; /* in this block */
    unsigned pins = 0;
    const char *at;

    for (uint64_t i = 1; i < nr_pages && slot == NULL; i++)
        if (model->owners[pfn + i] != owner && strncmp(what, "kept", 4) != 0)
            return false;
    if (strncmp(what, "free", 4) == 0)
        return owner == MODEL_FREE;
    if (strncmp(what, "memmap", 6) == 0)
        return owner == MODEL_MEMMAP;
    if (strncmp(what, "kept", 4) == 0)
        return owner == MODEL_KEPT;
    if (strncmp(what, "tail", 4) == 0)
        return slot != NULL && slot->pfn < pfn;
    if (strncmp(what, "raw pages", 9) == 0)
        return slot != NULL && !slot->movable && slot->pfn == pfn &&
               (slot->nr_pages < left ? slot->nr_pages : left) == strtoull(what + 10, NULL, 10);
    at = strstr(what, "cookie 0x");
    if (strncmp(what, "used pages", 10) != 0 || at == NULL)
        return false;
    size = strtoull(what + 11, NULL, 10);
    cookie = strtoull(at + 9, NULL, 16);
    at = strstr(what, " pins ");
    pins = at != NULL ? (unsigned)strtoul(at + 6, NULL, 10) : 99;
    return slot != NULL && slot->movable && cookie == (uint64_t)owner && slot->pfn == pfn &&
           slot->nr_pages == size && slot->nr_pins == pins;
}

static void read_line(struct reader *reader)
{
    uint64_t index, nr_pages;
    char what[256];

    if (sscanf(reader->line, "block %" SCNu64 " ", &index) == 1)
        reader->block = index;
    if (reader->differs ||
        sscanf(reader->line, " %" SCNu64 "+%" SCNu64 " %255[^\n]", &index, &nr_pages, what) != 3)
        return;
    reader->nr_seen += nr_pages;
    if (!run_is(reader, index, nr_pages, what)) {
        reader->differs = true;
        (void)DIFFERS("block %" PRIu64 ": %.200s", reader->block, reader->line);
    }
}

static void read_text(void *context, const char *text, size_t length)
{
    struct reader *reader = context;

    for (size_t i = 0; i < length; i++) {
        if (text[i] != '\n' && reader->length < sizeof(reader->line) - 1) {
            reader->line[reader->length++] = text[i];
            continue;
        }
        reader->line[reader->length] = '\0';
        read_line(reader);
        reader->length = 0;
    }
}

static const char *compare_frames(const struct model *model, struct memplug *pool)
{
    struct reader reader = {.model = model};
    uint64_t nr_online = 0;
    int error = memplug_dump(pool, read_text, &reader);

    for (uint64_t id = 1; id < MODEL_BLOCKS; id++)
        nr_online += model->blocks[id].state == MEMPLUG_BLOCK_ONLINE;
    if (error != 0)
        return DIFFERS("dump: %d", error);
    if (reader.differs)
        return difference;
    if (reader.nr_seen != nr_online * model->block_pages)
        return DIFFERS("the dump has %" PRIu64 " frames", reader.nr_seen);
    return NULL;
}

const char *model_compare(const struct model *model, struct memplug *pool, bool frames)
{
    const char *text = frames ? compare_frames(model, pool) : NULL;

    for (uint64_t id = 1; id < MODEL_BLOCKS && text == NULL; id++)
        text = compare_block(model, pool, id, frames);
    for (int node = 0; node < MODEL_NODES && text == NULL; node++)
        for (unsigned zone = 0; zone < MEMPLUG_NR_ZONES && text == NULL; zone++)
            text = compare_zone(model, pool, node, (enum memplug_zone)zone, frames);
    return text;
}
