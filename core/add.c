/* SPDX-License-Identifier: MIT */
/*
 * Plug in, and the same table upwards: pull out. The objects are units: the head block stands for
 * all blocks that are added and removed as one.
 */
#include "steps.h"

void mpl_unit_unclaim(struct memplug *pool, struct mpl_block *unit)
{
    uint64_t nr_blocks = unit->unit_nr_blocks;

    MPL_ASSERT(unit->altmap.alloc == 0);
    mpl_node_count(pool, unit, false);
    MPL_ASSERT(!unit->shares[MPL_END_HEAD] && !unit->shares[MPL_END_TAIL]);
    unit->altmap = (struct mpl_altmap){0};
    unit->backing = NULL;
    unit->offset_bytes = 0;
    for (uint64_t i = 0; i < nr_blocks; i++) {
        mpl_group_part(pool, &unit[i]);
        MPL_PUT(unit[i].group, 0);
        MPL_PUT(unit[i].zone, 0);
        MPL_PUT(unit[i].memmap, 0);
        MPL_PUT(unit[i].node, 0);
        MPL_PUT(unit[i].unit_first, 0);
        MPL_PUT(unit[i].unit_nr_blocks, 0);
        MPL_PUT(unit[i].nr_memmap_pages, 0);
        MPL_PUT(unit[i].serial, 0);
        MPL_PUT(unit[i].early, false);
        MPL_PUT(unit[i].nr_absent, 0);
        mpl_block_set_state(&unit[i], MEMPLUG_BLOCK_ABSENT);
    }
}

/* What is the same for every unit. */
void mpl_unit_claim(struct memplug *pool, struct mpl_block *unit, uint64_t nr_blocks,
                    enum memplug_memmap memmap, int node)
{
    for (uint64_t i = 0; i < nr_blocks; i++) {
        mpl_block_set_state(&unit[i], MEMPLUG_BLOCK_ADDING);
        MPL_PUT(unit[i].zone, MEMPLUG_NR_ZONES);
        MPL_PUT(unit[i].memmap, (uint8_t)memmap);
        MPL_PUT(unit[i].node, (int16_t)node);
        MPL_PUT(unit[i].unit_first, (uint32_t)mpl_block_id(pool, unit));
        MPL_PUT(unit[i].unit_nr_blocks, (uint32_t)nr_blocks);
        MPL_PUT(unit[i].serial, pool->serial + 1);
    }
    mpl_node_count(pool, unit, true);
}

static int claim(struct mpl_op *op, struct mpl_block *unit)
{
    struct memplug *pool = op->pool;
    const struct memplug_add *add = op->add;
    uint64_t first = mpl_block_id(pool, unit);
    uint64_t block_pages = mpl_block_pages(&pool->geometry);
    uint64_t add_first = add->address >> pool->geometry.block_shift;
    uint64_t nr_blocks = add->memmap == MEMPLUG_MEMMAP_RANGE
                             ? add->size_bytes >> pool->geometry.block_shift
                             : 1;
    uint64_t nr_memmap = add->memmap == MEMPLUG_MEMMAP_HOST
                             ? 0
                             : mpl_memmap_pages(pool, nr_blocks, add->pad_memmap);

    if (nr_memmap != 0 && mpl_altmap_set(&unit->altmap, mpl_block_start(pool, unit),
                                         nr_blocks * block_pages, 0, nr_memmap) != 0)
        return mpl_fail(op, -MPL_EINVAL, "the memmap leaves no room for data", NULL);
    mpl_unit_claim(pool, unit, nr_blocks, add->memmap, add->node);
    for (uint64_t i = 0; i < nr_blocks; i++) {
        uint64_t nr_below = i * block_pages;
        uint64_t nr_left = nr_memmap > nr_below ? nr_memmap - nr_below : 0;

        MPL_PUT(unit[i].group, (uint16_t)add->group);
        mpl_group_join(pool, &unit[i]);
        MPL_PUT(unit[i].nr_memmap_pages, nr_left < block_pages ? nr_left : block_pages);
    }
    unit->backing = add->backing;
    unit->offset_bytes = add->offset_bytes + ((first - add_first) << pool->geometry.block_shift);
    return 0;
}

static struct memplug_extent extent_of(const struct memplug *pool, const struct mpl_block *unit)
{
    const struct memplug_geometry *geometry = &pool->geometry;

    return (struct memplug_extent){
        .address = mpl_address_of_pfn(geometry, mpl_block_start(pool, unit)),
        .size_bytes = unit->unit_nr_blocks * mpl_block_bytes(geometry),
        .backing = unit->backing,
        .offset_bytes = unit->offset_bytes,
        .memmap_bytes = mpl_bytes_of_pages(geometry, mpl_altmap_offset(&unit->altmap)),
        .node = unit->node,
    };
}

static int attach_failed(struct mpl_op *op, int error, const struct memplug_extent *extent,
                         uint64_t nr)
{
    op->reason->block = (int64_t)(extent->address >> op->pool->geometry.block_shift);
    op->reason->address = extent->address;
    op->reason->size_bytes = nr * extent->size_bytes;
    switch (-error) {
    case MPL_EEXIST:
        return mpl_fail(op, error, "these bytes of the backing are in a pool already",
                        "add other bytes, or remove that range");
    case MPL_EBUSY:
        return mpl_fail(op, error, "another process has these bytes of the backing", NULL);
    case MPL_ENXIO:
        return mpl_fail(op, error, "the backing is too short", "make it longer");
    default:
        return mpl_fail(op, error, "the host cannot map the backing", NULL);
    }
}

int mpl_unit_attach(struct mpl_op *op, struct mpl_block *unit)
{
    const struct memplug_host *host = op->pool->host;
    struct memplug_extent extent = extent_of(op->pool, unit);
    int error = host->ops->attach(host->context, &extent);

    op->waited = true;
    return error == 0 ? 0 : attach_failed(op, error, &extent, 1);
}

/* What comes in one add lies in a row. */
static int attach_all(struct mpl_op *op, const struct mpl_objects *units)
{
    const struct memplug_host *host = op->pool->host;
    struct memplug_extent first;
    uint64_t nr_units;
    int error;

    if (host->ops->attach_row == NULL || units->nr_blocks == units->stride)
        return 1;
    nr_units = units->nr_blocks / units->stride;
    first = extent_of(op->pool, mpl_block_at(op->pool, units->first));
    error = host->ops->attach_row(host->context, &first, nr_units);
    op->waited = true;
    if (error == -MPL_EOPNOTSUPP)
        return 1;
    return error == 0 ? 0 : attach_failed(op, error, &first, nr_units);
}

void mpl_unit_detach(struct memplug *pool, struct mpl_block *unit)
{
    struct memplug_extent extent = extent_of(pool, unit);

    pool->host->ops->detach(pool->host->context, &extent);
}

int mpl_unit_publish(struct mpl_op *op, struct mpl_block *unit)
{
    (void)op;
    for (uint64_t i = 0; i < unit->unit_nr_blocks; i++)
        mpl_block_set_state(&unit[i], MEMPLUG_BLOCK_OFFLINE);
    return 0;
}

void mpl_unit_unpublish(struct memplug *pool, struct mpl_block *unit)
{
    (void)pool;
    for (uint64_t i = 0; i < unit->unit_nr_blocks; i++)
        mpl_block_set_state(&unit[i], MEMPLUG_BLOCK_ADDING);
}

static const struct mpl_step add_table[] = {
    {"claim", claim, mpl_unit_unclaim, false, NULL},
    {"attach", mpl_unit_attach, mpl_unit_detach, false, attach_all},
    {"memmap", mpl_memmap_map, mpl_memmap_unmap, false, NULL},
    {"bitmaps", mpl_memmap_place_bitmaps, mpl_memmap_drop_bitmaps, false, NULL},
    {"poison", NULL, mpl_poison_forget, false, NULL}, /* there is none at first */
    {"publish", mpl_unit_publish, mpl_unit_unpublish, true, NULL},
};
#define NR_ROWS (sizeof(add_table) / sizeof(add_table[0]))

int mpl_add(struct mpl_op *op)
{
    struct memplug *pool = op->pool;
    uint64_t nr_blocks = op->add->size_bytes >> pool->geometry.block_shift;
    uint64_t nodes = mpl_nodes_online(pool);
    struct mpl_objects units = {
        .first = op->add->address >> pool->geometry.block_shift,
        .nr_blocks = nr_blocks,
        .stride = op->add->memmap == MEMPLUG_MEMMAP_RANGE ? nr_blocks : 1,
    };
    int error = mpl_steps_run(op, add_table, NR_ROWS, &units);

    if (error != 0)
        return error;
    pool->serial++; /* the one that the blocks have: a failed add uses none up */
    mpl_watch_blocks(pool, MEMPLUG_ACTION_ADD, units.first, nr_blocks);
    mpl_watch_nodes(pool, MEMPLUG_ACTION_ADD, mpl_nodes_online(pool) & ~nodes);
    return 0;
}

/* Unit by unit, so that each is gone as a whole when it is said. */
void mpl_remove(struct memplug *pool, uint64_t first, uint64_t nr_blocks)
{
    uint64_t nodes = mpl_nodes_online(pool);

    for (uint64_t id = first; id < first + nr_blocks;) {
        const struct mpl_block *head = mpl_block_at(pool, id);
        struct mpl_objects unit = {
            .first = id,
            .nr_blocks = head->unit_nr_blocks,
            .stride = head->unit_nr_blocks,
        };
        int node = head->node;

        mpl_steps_undo(pool, add_table, NR_ROWS, &unit);
        for (uint64_t end = id + unit.nr_blocks; id < end; id++)
            mpl_watch_block(pool, MEMPLUG_ACTION_REMOVE, id, node);
    }
    mpl_watch_nodes(pool, MEMPLUG_ACTION_REMOVE, nodes & ~mpl_nodes_online(pool));
}
