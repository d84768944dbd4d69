/* SPDX-License-Identifier: MIT */
/* A pool in the caller's memory: what it is made of, and whether the host can carry one. */
#include "door.h"
#include "steps.h"

#define DEFAULT_RATIO 301 /* Linux's: three pages of Movable for each of the kernel's, and a bit */

static const char *geometry_fault(const struct memplug_host *host)
{
    const struct memplug_geometry *geometry = &host->geometry;

    if (geometry->page_shift != 12 && geometry->page_shift != 14 && geometry->page_shift != 16)
        return "the page is not 4, 16 or 64 KiB";
    if (geometry->pageblock_order < 6 || geometry->pageblock_order > 13)
        return "the pageblock's order is not 6 to 13";
    if (geometry->section_shift < geometry->page_shift + geometry->pageblock_order)
        return "the section is smaller than a pageblock";
    if (geometry->block_shift < geometry->section_shift || geometry->block_shift > 46)
        return "the block is smaller than a section, or too large";
    if (geometry->large_shift < geometry->page_shift || geometry->large_shift > 46)
        return "the window's large unit is smaller than a page, or too large";
    if (geometry->page_struct_bytes < 32 || geometry->page_struct_bytes > 128 ||
        geometry->page_struct_bytes % 8 != 0)
        return "the struct page is not 32 to 128 bytes in steps of 8";
    if (geometry->address_limit < mpl_block_bytes(geometry) ||
        !mpl_is_multiple(geometry->address_limit, mpl_block_bytes(geometry)))
        return "the address limit is not whole blocks";
    if (host->nr_cpus == 0 || host->nr_cpus > 4096)
        return "the host has no CPU, or more than 4,096";
    return NULL;
}

/* Where the parts of the metadata lie. */
struct plan {
    unsigned nr_blocks, nr_nodes, nr_slots;
    uint64_t cpu_nodes;
    uint64_t blocks, nodes, slots, batch, groups, patterns, total;
    struct mpl_layout layout;
};

static uint64_t place(uint64_t *total, uint64_t size_bytes)
{
    uint64_t at = *total;

    *total = mpl_round_up(at + size_bytes, MPL_CACHE_LINE);
    return at;
}

static int make_plan(const struct memplug_config *config, struct plan *plan,
                     struct memplug_reason *reason)
{
    const struct memplug_geometry *geometry = &config->host->geometry;
    uint64_t nr_blocks;

    mpl_reason_reset(reason);
    reason->operation = "open";
    reason->step = "check";
    reason->why = geometry_fault(config->host);
    plan->nr_nodes = config->nr_nodes != 0 ? config->nr_nodes : 1;
    plan->cpu_nodes = config->cpu_nodes != 0 ? config->cpu_nodes : 1;
    if (reason->why == NULL && plan->nr_nodes > MPL_MAX_NODES)
        reason->why = "there are more than 64 nodes";
    if (reason->why == NULL && plan->cpu_nodes > UINT64_MAX >> (MPL_MAX_NODES - plan->nr_nodes))
        reason->why = "a CPU is on a node that there is not";
    if (reason->why == NULL && (unsigned)config->hvo > MEMPLUG_HVO_ALL)
        reason->why = "there is no such way to lend memmaps";
    if (reason->why != NULL)
        return reason->error = -MPL_EINVAL;
    if (config->hvo != MEMPLUG_HVO_OFF && config->host->ops->memmap_lend == NULL) {
        reason->why = "the host cannot lend memmaps: it has no page tables of its own";
        reason->remedy = "open the pool without hvo";
        return reason->error = -MPL_EOPNOTSUPP;
    }
    nr_blocks = geometry->address_limit >> geometry->block_shift;
    if (nr_blocks > MPL_MAX_BLOCKS) {
        reason->why = "the window has more than 4,096 blocks";
        reason->remedy = "use larger blocks or a smaller window";
        return reason->error = -MPL_E2BIG;
    }
    mpl_layout_set(&plan->layout, geometry);
    if (config->hvo == MEMPLUG_HVO_ALL)
        mpl_layout_add_lent(&plan->layout);
    plan->nr_blocks = (unsigned)nr_blocks;
    plan->nr_slots = config->host->nr_cpus;
    plan->total = 0;
    place(&plan->total, sizeof(struct memplug));
    plan->nodes = place(&plan->total, plan->nr_nodes * sizeof(struct mpl_node));
    plan->slots = place(&plan->total,
                        (plan->nr_slots + MEMPLUG_MAX_SLOTS) * sizeof(struct mpl_slot));
    plan->batch = place(&plan->total, MPL_MAX_BATCH * sizeof(struct memplug_move));
    plan->groups = place(&plan->total, MPL_MAX_GROUPS * sizeof(struct mpl_group));
    plan->blocks = place(&plan->total, plan->nr_blocks * sizeof(struct mpl_block));
    plan->patterns = place(&plan->total, MPL_NR_PATTERNS * mpl_pattern_bytes(&plan->layout));
    return 0;
}

uint64_t memplug_metadata_bytes(const struct memplug_config *config)
{
    struct memplug_reason reason;
    struct plan plan;

    return make_plan(config, &plan, &reason) == 0 ? plan.total : 0;
}

/* One for each number of frames that memmaps of blocks can have. A range's own differs from block
 * to block: these do without, but for those that have none. */
static void make_patterns(struct memplug *pool, char *memory)
{
    const uint64_t nr_memmap[MPL_NR_PATTERNS] = {
        0,
        mpl_memmap_pages(pool, 1, false),
        mpl_memmap_pages(pool, 1, true),
    };

    for (unsigned i = 0; i < MPL_NR_PATTERNS; i++)
        mpl_pattern_make(pool, nr_memmap[i], memory + i * mpl_pattern_bytes(&pool->layout));
}

static void lay_out(struct memplug *pool, const struct memplug_config *config,
                    const struct plan *plan)
{
    char *base = (char *)pool;

    pool->host = config->host;
    pool->geometry = config->host->geometry;
    pool->hvo = config->hvo;
    pool->layout = plan->layout;
    pool->blocks = (struct mpl_block *)(void *)(base + plan->blocks);
    pool->nodes = (struct mpl_node *)(void *)(base + plan->nodes);
    pool->slots = (struct mpl_slot *)(void *)(base + plan->slots);
    pool->groups = (struct mpl_group *)(void *)(base + plan->groups);
    pool->batch = (struct memplug_move *)(void *)(base + plan->batch);
    pool->nr_blocks_max = plan->nr_blocks;
    pool->nr_nodes = plan->nr_nodes;
    pool->cpu_nodes = plan->cpu_nodes;
    pool->nr_slots = plan->nr_slots;
    pool->policy = (struct memplug_policy){
        .memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_YES,
        .auto_movable_ratio = DEFAULT_RATIO,
        .auto_movable_numa_aware = true,
    };
    atomic_store(&pool->nr_movers, 1);
    for (unsigned node = 0; node < pool->nr_nodes; node++)
        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++) {
            struct mpl_zone *zone = mpl_zone_at(pool, (int)node, kind);

            zone->kind = (uint8_t)kind;
            zone->node = (int16_t)node;
        }
    make_patterns(pool, base + plan->patterns);
}

int memplug_open(const struct memplug_config *config, void *metadata, uint64_t metadata_bytes,
                 struct memplug **pool, struct memplug_reason *reason)
{
    struct memplug_reason own;
    struct plan plan;
    int error;

    if (reason == NULL)
        reason = &own;
    error = make_plan(config, &plan, reason);
    if (error != 0)
        return error;
    if ((uintptr_t)metadata % MPL_CACHE_LINE != 0) {
        reason->why = "the metadata is not aligned to 64 bytes";
        return reason->error = -MPL_EINVAL;
    }
    if (metadata_bytes < plan.total) {
        reason->why = "there is not enough metadata";
        reason->size_bytes = plan.total;
        return reason->error = -MPL_ENOMEM;
    }
    *pool = metadata;
    lay_out(*pool, config, &plan);
    return 0;
}

int memplug_close(struct memplug *pool, struct memplug_reason *reason)
{
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "close", NULL, reason);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    for (uint64_t id = 0; error == 0 && id < pool->nr_blocks_max; id++)
        if (mpl_block_state(mpl_block_at(pool, id)) != MEMPLUG_BLOCK_ABSENT &&
            !mpl_block_at(pool, id)->early) {
            door.op.reason->block = (int64_t)id;
            error = mpl_fail(&door.op, -MPL_EBUSY, "the pool has blocks", "remove its ranges");
        }
    if (error == 0)
        error = mpl_boot_close(&door.op);
    return mpl_door_unlock(&door.op, error);
}
