/* SPDX-License-Identifier: MIT */
/*
 * What a pool should be, as flat as can be: an owner per frame, a state and a zone per block, no
 * counter, no bitmap, no list. Written from the public headers; knows nothing of the core.
 */
#ifndef MODEL_H
#define MODEL_H

#include <memplug/memplug.h>

#define MODEL_BLOCKS 13u /* block 0 is never there */
#define MODEL_SLOTS 192u
#define MODEL_NODES 2

/* Instead of a slot's number. */
enum { MODEL_FREE = -1, MODEL_MEMMAP = -2, MODEL_KEPT = -3, MODEL_GONE = -4 };

struct model_block {
    enum memplug_block_state state; /* ABSENT, OFFLINE or ONLINE */
    enum memplug_zone zone;
    int node;
    enum memplug_memmap memmap;
    uint64_t unit_first, unit_nr_blocks, nr_memmap;
    uint64_t from; /* which block of the backing */
};

struct model_slot {
    uint64_t pfn;
    uint32_t nr_pages; /* 0: empty */
    uint32_t align;
    bool movable;
    unsigned nr_pins;
    uint64_t tag; /* of the content */
};

struct model {
    struct memplug_geometry geometry;
    uint64_t block_pages, pageblock_pages, page_bytes, nr_frames;
    struct model_block blocks[MODEL_BLOCKS];
    struct model_slot slots[MODEL_SLOTS];
    int *owners; /* of the frames */
    bool hook;   /* blocks that go online keep what model_keeps() says */
};

struct model_request {
    uint64_t first, nr_blocks, from;
    enum memplug_memmap memmap;
    bool pad;
    int node;
};

void model_open(struct model *model, const struct memplug_geometry *geometry);
void model_close(struct model *model);

/* The error that the call should give, 0 for none; and what the call does then. */
int model_may_add(const struct model *model, const struct model_request *request);
void model_add(struct model *model, const struct model_request *request);
int model_may_online(const struct model *model, uint64_t first, uint64_t nr_blocks);
void model_online(struct model *model, uint64_t first, uint64_t nr_blocks,
                  enum memplug_online_type type);
int model_may_remove(const struct model *model, uint64_t first, uint64_t nr_blocks);
void model_remove(struct model *model, uint64_t first, uint64_t nr_blocks);
int model_may_take(const struct model *model, uint64_t pfn, uint32_t nr_pages, bool movable);
int model_may_free(const struct model *model, uint64_t pfn, uint32_t nr_pages);
void model_take(struct model *model, unsigned slot, uint64_t pfn, uint32_t nr_pages);
void model_free(struct model *model, unsigned slot);

/* What is in the way of an offline. */
struct model_survey {
    int error;            /* -ENODEV, -EINVAL: a block's state; -EBUSY: what nobody can move */
    bool pinned, kept;    /* is there such a page? */
    uint64_t nr_used;     /* pages to move */
    uint32_t largest;     /* of the allocations */
    uint64_t nr_free_elsewhere;
};
void model_survey(const struct model *model, uint64_t first, uint64_t nr_blocks,
                  struct model_survey *survey);
void model_offline(struct model *model, uint64_t first, uint64_t nr_blocks);

/* Does the hook keep this frame? */
bool model_keeps(const struct model *model, uint64_t pfn);

/* Where the lowest place for this request is, zone by zone as documented; false: none. */
bool model_find(const struct model *model, const struct memplug_alloc *request, uint64_t *pfn);

/* Blocks and zones; frames and free counts too (drained: they are exact). Null: equal, else what
 * differs, as a static text. */
const char *model_compare(const struct model *model, struct memplug *pool, bool frames);

#endif
