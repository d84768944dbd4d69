/* SPDX-License-Identifier: MIT */
/*
 * Boot memory comes up with the rows of add, then goes online without a question, since nothing
 * can be refused any more. The way back, at close, leaves the zones without moving anything, then
 * removes.
 */
#include "door.h"
#include "state/early.h"
#include "steps.h"

/* --- up: the rows of add ---------------------------------------------------------------------- */

static int claim(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    uint64_t id = mpl_block_id(pool, block);

    mpl_unit_claim(pool, block, 1, MEMPLUG_MEMMAP_HOST, mpl_early_node(pool, id));
    MPL_PUT(block->early, true);
    MPL_PUT(block->nr_absent, mpl_block_pages(&pool->geometry) - mpl_early_pages(pool, id));
    block->backing = op->boot->backing;
    block->offset_bytes = id << pool->geometry.block_shift;
    return 0;
}

static const struct mpl_step boot_table[] = {
    {"claim", claim, mpl_unit_unclaim, false, NULL},
    {"attach", mpl_unit_attach, mpl_unit_detach, false, NULL},
    {"memmap", mpl_memmap_map, mpl_memmap_unmap, false, NULL},
    {"bitmaps", mpl_memmap_place_bitmaps, mpl_memmap_drop_bitmaps, false, NULL},
    {"poison", NULL, mpl_poison_forget, false, NULL},
    {"publish", mpl_unit_publish, mpl_unit_unpublish, true, NULL},
};

/* --- up: into the zones ----------------------------------------------------------------------- */

/* Pages of a block in several zones come to each, or go. */
static void count_several(struct memplug *pool, const struct mpl_block *block, bool present)
{
    for (unsigned kind = 0; kind < MEMPLUG_ZONE_MOVABLE; kind++) {
        struct mpl_zone *zone = mpl_zone_at(pool, block->node, kind);
        uint64_t nr_pages = mpl_early_pages_in(pool, mpl_block_id(pool, block), kind);

        mpl_spin_lock(pool, &zone->lock);
        MPL_ASSERT(present || (zone->nr_present >= nr_pages && zone->nr_early >= nr_pages));
        zone->nr_present = present ? zone->nr_present + nr_pages : zone->nr_present - nr_pages;
        zone->nr_early = present ? zone->nr_early + nr_pages : zone->nr_early - nr_pages;
        mpl_spin_unlock(&zone->lock);
    }
}

/* The span of a zone is that of its limits, and not that of its blocks. */
static int enter_zone(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    unsigned kind = mpl_early_zone(pool, mpl_block_id(pool, block));
    struct mpl_zone *zone;

    mpl_block_set_state(block, MEMPLUG_BLOCK_GOING_ONLINE);
    mpl_frames_reset(pool, block);
    if (kind == MEMPLUG_NR_ZONES)
        return 0;
    zone = mpl_zone_at(pool, block->node, kind);
    mpl_spin_lock(pool, &zone->lock);
    MPL_PUT(block->zone, (uint8_t)kind);
    mpl_isolate_block(pool, block);
    mpl_spin_unlock(&zone->lock);
    return 0;
}

/* What is not there is held for ever. */
static int release(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    uint64_t pfn = mpl_block_start(pool, block).nr;
    uint64_t end = pfn + mpl_block_pages(&pool->geometry), nr_pages;

    if (block->zone == MEMPLUG_NR_ZONES)
        return 0;
    for (; mpl_early_run(pool, &pfn, end, &nr_pages); pfn += nr_pages)
        mpl_release_frames(pool, mpl_pfn(pfn), nr_pages);
    return 0;
}

static int publish(struct mpl_op *op, struct mpl_block *block)
{
    if (block->zone != MEMPLUG_NR_ZONES)
        return mpl_publish_online(op, block);
    count_several(op->pool, block, true);
    mpl_block_set_state(block, MEMPLUG_BLOCK_ONLINE);
    return 0;
}

static const struct mpl_step up_table[] = {
    {"zone", enter_zone, NULL, true, NULL},
    {"release", release, NULL, true, NULL},
    {"publish", publish, NULL, true, NULL},
};

/* --- down ------------------------------------------------------------------------------------- */

/* Those that are offline, or in several zones, have no frame that could be used. */
static bool is_leaving(const struct mpl_block *block)
{
    return mpl_block_state(block) == MEMPLUG_BLOCK_GOING_OFFLINE;
}

static void set_leaving(struct memplug *pool, struct mpl_block *block, bool leaving)
{
    struct mpl_zone *zone = mpl_zone_of(pool, block);

    mpl_spin_lock(pool, &zone->lock);
    if (leaving) {
        mpl_block_set_state(block, MEMPLUG_BLOCK_GOING_OFFLINE);
        mpl_isolate_block(pool, block);
    } else {
        mpl_unisolate_block(pool, block);
        mpl_block_set_state(block, MEMPLUG_BLOCK_ONLINE);
    }
    mpl_spin_unlock(&zone->lock);
}

static int isolate(struct mpl_op *op, struct mpl_block *block)
{
    if (block->zone != MEMPLUG_NR_ZONES)
        set_leaving(op->pool, block, true);
    return 0;
}

static void isolate_undo(struct memplug *pool, struct mpl_block *block)
{
    if (is_leaving(block))
        set_leaving(pool, block, false);
}

/* The first frame that is used; chunks that their driver has let go are not. */
static bool find_used(const struct memplug *pool, const struct mpl_block *block, uint64_t *index)
{
    for (*index = 0; mpl_frames_next_head(pool, block, index); ++*index) {
        const struct mpl_page *page =
            mpl_page_at(pool, mpl_pfn_add(mpl_block_start(pool, block), *index));

        if (!mpl_frame_described(pool, block, *index) ||
            mpl_page_state(page) != MPL_PAGE_KEPT || mpl_page_pins(page) != 0)
            return true;
    }
    return false;
}

static int drain(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone;
    uint64_t index;
    bool used;

    if (mpl_block_id(pool, block) == op->first)
        mpl_percpu_drain(pool);
    if (!is_leaving(block))
        return 0;
    zone = mpl_zone_of(pool, block);
    mpl_spin_lock(pool, &zone->lock);
    used = find_used(pool, block, &index);
    mpl_spin_unlock(&zone->lock);
    if (!used)
        return 0;
    op->reason->block = (int64_t)mpl_block_id(pool, block);
    op->reason->pfn = mpl_pfn_add(mpl_block_start(pool, block), index);
    return mpl_fail(op, -MPL_EBUSY, "a frame of the boot memory is used", "free it");
}

static int leave_zone(struct mpl_op *op, struct mpl_block *block)
{
    struct memplug *pool = op->pool;
    struct mpl_zone *zone;

    if (mpl_block_state(block) == MEMPLUG_BLOCK_ONLINE) {
        mpl_block_set_state(block, MEMPLUG_BLOCK_GOING_OFFLINE);
        count_several(pool, block, false);
        mpl_block_set_state(block, MEMPLUG_BLOCK_OFFLINE);
    } else if (is_leaving(block)) {
        zone = mpl_zone_of(pool, block);
        mpl_spin_lock(pool, &zone->lock);
        mpl_withdraw_frames(pool, block);
        mpl_zone_count(pool, block, false);
        MPL_PUT(block->zone, MEMPLUG_NR_ZONES);
        mpl_zone_shrink(pool, zone, mpl_block_start(pool, block),
                        mpl_block_pages(&pool->geometry));
        mpl_block_set_state(block, MEMPLUG_BLOCK_OFFLINE);
        mpl_spin_unlock(&zone->lock);
    }
    return 0;
}

static const struct mpl_step down_table[] = {
    {"isolate", isolate, isolate_undo, false, NULL},
    {"drain", drain, NULL, false, NULL},
    {"leave", leave_zone, NULL, true, NULL},
    {"forget", mpl_forget_readers, NULL, true, NULL},
};

/* --- the ranges ------------------------------------------------------------------------------- */

#define NR_ROWS(table) (sizeof(table) / sizeof((table)[0]))

static int keep_ranges(struct mpl_op *op)
{
    struct memplug *pool = op->pool;
    uint64_t size_bytes = op->boot->nr_memory * sizeof(*op->boot->memory);
    void *memory;
    int error = pool->host->ops->memory_get(pool->host->context, size_bytes, &memory);

    op->progress.step = "ranges";
    if (error != 0)
        return mpl_fail(op, error, "the host has no memory for the ranges", NULL);
    __builtin_memcpy(memory, op->boot->memory, size_bytes);
    pool->boot = (struct mpl_boot){
        .memory = memory,
        .nr_memory = op->boot->nr_memory,
        .dma_limit = op->boot->dma_limit,
        .dma32_limit = op->boot->dma32_limit,
    };
    pool->host_bytes += size_bytes;
    return 0;
}

static void drop_ranges(struct memplug *pool)
{
    uint64_t size_bytes = pool->boot.nr_memory * sizeof(*pool->boot.memory);

    pool->host->ops->memory_put(pool->host->context, pool->boot.memory, size_bytes);
    pool->boot = (struct mpl_boot){0};
    pool->host_bytes -= size_bytes;
}

/* What the limits give each zone; without ranges, nothing. */
static void fix_zones(struct memplug *pool, bool fixed)
{
    for (int node = 0; node < (int)pool->nr_nodes; node++)
        for (unsigned kind = 0; kind < MEMPLUG_ZONE_MOVABLE; kind++) {
            struct mpl_zone *zone = mpl_zone_at(pool, node, kind);
            memplug_pfn_t start = {0};
            uint64_t nr_pages = 0, fixed_start = 0, fixed_end = 0;

            if (fixed && mpl_early_span(pool, node, kind, &start, &nr_pages))
                mpl_early_fixed(pool, node, kind, &fixed_start, &fixed_end);
            mpl_spin_lock(pool, &zone->lock);
            zone->start = mpl_pfn(nr_pages != 0 ? start.nr : 0);
            zone->nr_spanned = nr_pages;
            zone->fixed_start = fixed_start;
            zone->fixed_end = fixed_end;
            mpl_spin_unlock(&zone->lock);
        }
}

/* --- the doors -------------------------------------------------------------------------------- */

static uint64_t page_bytes(const struct mpl_op *op)
{
    return mpl_page_bytes(&op->pool->geometry);
}

static int check_range(struct mpl_op *op, const struct memplug_boot_memory *memory,
                       uint64_t end_before)
{
    const struct memplug_geometry *geometry = &op->pool->geometry;

    op->reason->address = memory->address;
    op->reason->size_bytes = memory->size_bytes;
    op->reason->unit_bytes = page_bytes(op);
    if (memory->size_bytes == 0 ||
        !mpl_is_multiple(memory->address | memory->size_bytes, page_bytes(op)))
        return mpl_fail(op, -MPL_EINVAL, "the memory is not whole pages, or none", NULL);
    op->reason->unit_bytes = 0;
    if (memory->address < end_before)
        return mpl_fail(op, -MPL_EINVAL, "the memory is not in ascending order", NULL);
    if (memory->address >= geometry->address_limit ||
        memory->size_bytes > geometry->address_limit - memory->address) {
        op->reason->unit_bytes = geometry->address_limit;
        return mpl_fail(op, -MPL_E2BIG, "the memory ends beyond the address limit", NULL);
    }
    op->reason->node = memory->node;
    if (!mpl_node_valid(op->pool, memory->node))
        return mpl_fail(op, -MPL_EINVAL, "there is no such node", NULL);
    return 0;
}

static int check_memory(struct mpl_op *op, const struct memplug_boot *boot)
{
    const struct memplug_geometry *geometry = &op->pool->geometry;
    uint64_t end = 0;

    if (boot->nr_memory == 0 || boot->memory == NULL)
        return mpl_fail(op, -MPL_EINVAL, "there is no memory", NULL);
    for (unsigned i = 0; i < boot->nr_memory; i++) {
        const struct memplug_boot_memory *memory = &boot->memory[i];
        int error = check_range(op, memory, end);

        if (error == 0 && i > 0 && memory->node != boot->memory[i - 1].node &&
            memory->address >> geometry->block_shift == (end - 1) >> geometry->block_shift)
            error = mpl_fail(op, -MPL_EINVAL, "a block would have memory of two nodes", NULL);
        if (error != 0)
            return error;
        end = memory->address + memory->size_bytes;
    }
    mpl_reason_reset(op->reason);
    if (!mpl_is_multiple(boot->dma_limit | boot->dma32_limit, page_bytes(op)) ||
        (boot->dma32_limit != 0 && boot->dma32_limit < boot->dma_limit))
        return mpl_fail(op, -MPL_EINVAL, "the limits of the zones are not whole pages, or cross",
                        NULL);
    return 0;
}

static int check_pool(struct mpl_op *op, const struct memplug_boot *boot)
{
    const struct memplug *pool = op->pool;
    const struct memplug_host *host = pool->host;

    for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
        if (mpl_block_state(mpl_block_at(pool, id)) != MEMPLUG_BLOCK_ABSENT) {
            op->reason->block = (int64_t)id;
            return mpl_fail(op, -MPL_EBUSY, "the pool has blocks", "boot it before all else");
        }
    if (pool->boot.memory != NULL)
        return mpl_fail(op, -MPL_EBUSY, "the pool has booted already", NULL);
    op->reason->unit_bytes = host->ops->alignment(host->context, boot->backing);
    if (!mpl_is_multiple(mpl_block_bytes(&pool->geometry), op->reason->unit_bytes))
        return mpl_fail(op, -MPL_EINVAL, "the backing cannot be mapped block by block", NULL);
    op->reason->unit_bytes = 0;
    return mpl_memmap_supported(op, 1, MEMPLUG_MEMMAP_HOST, false, page_bytes(op));
}

static int boot_locked(struct mpl_op *op, const struct memplug_boot *boot)
{
    struct memplug *pool = op->pool;
    uint64_t only[MPL_MAX_BLOCKS / 64] = {0};
    const struct mpl_objects blocks = {
        .nr_blocks = pool->nr_blocks_max, .stride = 1, .only = only};
    int error = check_pool(op, boot);

    op->boot = boot;
    if (error == 0)
        error = keep_ranges(op);
    if (error != 0)
        return error;
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
        if (mpl_early_node(pool, id) != MEMPLUG_ANY_NODE)
            only[id / 64] |= (uint64_t)1 << (id % 64);
    error = mpl_steps_run(op, boot_table, NR_ROWS(boot_table), &blocks);
    if (error != 0) {
        drop_ranges(pool);
        return error;
    }
    pool->serial++;
    fix_zones(pool, true);
    return mpl_steps_run(op, up_table, NR_ROWS(up_table), &blocks);
}

int memplug_boot(struct memplug *pool, const struct memplug_boot *boot,
                 const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "boot", limit, reason);
    error = check_memory(&door.op, boot);
    if (error == 0)
        error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    return mpl_door_unlock(&door.op, boot_locked(&door.op, boot));
}

int mpl_boot_close(struct mpl_op *op)
{
    struct memplug *pool = op->pool;
    uint64_t only[MPL_MAX_BLOCKS / 64] = {0};
    const struct mpl_objects blocks = {
        .nr_blocks = pool->nr_blocks_max, .stride = 1, .only = only};
    int error;

    if (pool->boot.memory == NULL)
        return 0;
    for (uint64_t id = pool->nr_blocks_max; id-- > 0;)
        if (mpl_block_at(pool, id)->early) {
            only[id / 64] |= (uint64_t)1 << (id % 64);
            op->first = id;
        }
    error = mpl_steps_run(op, down_table, NR_ROWS(down_table), &blocks);
    if (error != 0)
        return error;
    mpl_steps_undo(pool, boot_table, NR_ROWS(boot_table), &blocks);
    drop_ranges(pool);
    fix_zones(pool, false);
    return 0;
}
