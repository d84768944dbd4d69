/* SPDX-License-Identifier: MIT */
/*
 * The whole state as text, so that two states can be compared. What is not state is not in it:
 * addresses that the host chose, how many pages have moved and how many adds there were so far,
 * and which free frames a CPU keeps at hand. Frames are written as runs:
 *
 *   block 1 online Movable node 0 memmap block unit 1+1 memmap_pages 512 managed 32256 free 32253
 *    altmap 0x8000-0x10000 reserve 0 free 512 align 0 alloc 512 offset 0x0
 *    poisoned 514
 *    0+512 memmap
 *    512+1 used pages 1 mover 1 "mapping" cookie 0x7 pins 0
 *    513+1 raw 1                                  an allocation without a struct page
 *    514+1 poisoned
 *    515+32253 free
 */
#include "../door.h"
#include "../state/early.h"
#include "dump.h"

static const char *zone_name(unsigned kind)
{
    static const char *const names[] = {"DMA", "DMA32", "Normal", "Movable"};

    return kind < MEMPLUG_NR_ZONES ? names[kind] : "-";
}

static const char *state_name(enum memplug_block_state state)
{
    static const char *const names[] = {"absent", "adding", "offline",
                                        "going-online", "online", "going-offline"};

    return (unsigned)state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

static const char *memmap_name(unsigned memmap)
{
    static const char *const names[] = {"auto", "block", "range", "host"};

    return memmap < sizeof(names) / sizeof(names[0]) ? names[memmap] : "?";
}

static const char *page_name(enum mpl_page_state state)
{
    static const char *const names[] = {"none",  "used", "moving", "target",
                                        "dying", "kept", "pooled"};

    return (unsigned)state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

/* --- the pool --------------------------------------------------------------------------------- */

static void dump_pool(const struct memplug *pool, struct mpl_text *text)
{
    const struct memplug_geometry *geometry = &pool->geometry;

    mpl_text_string(text, "pool");
    mpl_text_field(text, "page_shift", geometry->page_shift);
    mpl_text_field(text, "pageblock_order", geometry->pageblock_order);
    mpl_text_field(text, "section_shift", geometry->section_shift);
    mpl_text_field(text, "block_shift", geometry->block_shift);
    mpl_text_field(text, "large_shift", geometry->large_shift);
    mpl_text_field(text, "page_struct_bytes", geometry->page_struct_bytes);
    mpl_text_hex_field(text, "address_limit", geometry->address_limit);
    mpl_text_field(text, "blocks_max", pool->nr_blocks_max);
    mpl_text_field(text, "nodes", pool->nr_nodes);
    mpl_text_hex_field(text, "cpu_nodes", pool->cpu_nodes);
    mpl_text_field(text, "slots", pool->nr_slots);
    mpl_text_field(text, "host_bytes", pool->host_bytes);
    if (pool->hvo != MEMPLUG_HVO_OFF)
        mpl_text_field(text, "hvo", pool->hvo);
    mpl_text_string(text, pool->hook.online_pages ? " hook set\n" : " hook default\n");
}

static void dump_boot(const struct memplug *pool, struct mpl_text *text)
{
    const struct mpl_boot *boot = &pool->boot;

    if (boot->memory == NULL)
        return;
    mpl_text_string(text, "boot");
    mpl_text_hex_field(text, "dma", boot->dma_limit);
    mpl_text_hex_field(text, "dma32", boot->dma32_limit);
    mpl_text_string(text, "\n");
    for (unsigned i = 0; i < boot->nr_memory; i++) {
        mpl_text_hex_field(text, "memory", boot->memory[i].address);
        mpl_text_string(text, "+");
        mpl_text_hex(text, boot->memory[i].size_bytes);
        mpl_text_string(text, " node ");
        mpl_text_signed(text, boot->memory[i].node);
        mpl_text_string(text, "\n");
    }
}

/* Who is called. */
static void dump_callees(const struct memplug *pool, struct mpl_text *text)
{
    unsigned nr_movers = atomic_load_explicit(&pool->nr_movers, memory_order_acquire);

    for (unsigned i = 1; i < nr_movers && i < MPL_MAX_MOVERS; i++) {
        mpl_text_string(text, "mover ");
        mpl_text_decimal(text, i);
        mpl_text_string(text, " ");
        mpl_text_quoted(text, pool->movers[i].name);
        mpl_text_field(text, "batch_max", pool->movers[i].batch_max);
        mpl_text_string(text, pool->movers[i].ask ? " ask" : "");
        mpl_text_string(text, pool->movers[i].lost ? " lost\n" : "\n");
    }
    for (unsigned i = 0; i < pool->nr_subscribers && i < MPL_MAX_SUBSCRIBERS; i++) {
        mpl_text_string(text, "subscriber ");
        mpl_text_quoted(text, pool->subscribers[i]->name);
        mpl_text_string(text, " priority ");
        mpl_text_signed(text, pool->subscribers[i]->priority);
        mpl_text_string(text, "\n");
    }
    if (pool->nr_listeners != 0) {
        mpl_text_string(text, "listeners ");
        mpl_text_decimal(text, pool->nr_listeners);
        mpl_text_string(text, "\n");
    }
}

/* --- zones ------------------------------------------------------------------------------------ */

/* Bits as runs: " 1-3 7". */
static void dump_bits(struct mpl_text *text, const uint64_t *words, uint64_t nr_bits)
{
    for (uint64_t bit = 0; bit < nr_bits; bit++) {
        uint64_t first = bit;

        while (bit < nr_bits && (words[bit / 64] >> (bit % 64) & 1) != 0)
            bit++;
        if (bit == first)
            continue;
        mpl_text_string(text, " ");
        mpl_text_decimal(text, first);
        if (bit - first == 1)
            continue;
        mpl_text_string(text, "-");
        mpl_text_decimal(text, bit - 1);
    }
}

static void dump_node(const struct memplug *pool, int node, struct mpl_text *text)
{
    if (pool->nodes[node].nr_blocks == 0)
        return;
    mpl_text_string(text, "node ");
    mpl_text_signed(text, node);
    mpl_text_field(text, "blocks", pool->nodes[node].nr_blocks);
    mpl_text_string(text, "\n");
}

static void dump_zone(const struct memplug *pool, int node, unsigned kind, struct mpl_text *text)
{
    struct mpl_zone *zone = mpl_zone_at(pool, node, kind);
    struct memplug_zone_info info;
    uint64_t has_free[MPL_MAX_BLOCKS / 64];
    uint64_t any = 0, fixed_start, fixed_end;

    memplug_zone_info(pool, node, (enum memplug_zone)kind, &info);
    mpl_spin_lock(pool, &zone->lock);
    __builtin_memcpy(has_free, zone->has_free, sizeof(has_free));
    fixed_start = zone->fixed_start;
    fixed_end = zone->fixed_end;
    mpl_spin_unlock(&zone->lock);
    for (unsigned i = 0; i < MPL_MAX_BLOCKS / 64; i++)
        any |= has_free[i];
    any |= info.start.nr | info.nr_spanned_pages | info.nr_present_pages | info.nr_managed_pages |
           info.nr_free_pages | info.nr_isolated_pageblocks | fixed_end;
    if (any == 0)
        return;
    mpl_text_string(text, "zone ");
    mpl_text_signed(text, node);
    mpl_text_string(text, " ");
    mpl_text_string(text, zone_name(kind));
    mpl_text_hex_field(text, "start", info.start.nr);
    mpl_text_field(text, "spanned", info.nr_spanned_pages);
    mpl_text_field(text, "present", info.nr_present_pages);
    mpl_text_field(text, "managed", info.nr_managed_pages);
    mpl_text_field(text, "free", info.nr_free_pages);
    mpl_text_field(text, "isolated", info.nr_isolated_pageblocks);
    if (info.nr_early_pages != 0)
        mpl_text_field(text, "early", info.nr_early_pages);
    if (fixed_end != 0) {
        mpl_text_hex_field(text, "fixed", fixed_start);
        mpl_text_string(text, "-");
        mpl_text_hex(text, fixed_end);
    }
    mpl_text_string(text, " has_free");
    dump_bits(text, has_free, MPL_MAX_BLOCKS);
    mpl_text_string(text, "\n");
}

/* --- huge pages ------------------------------------------------------------------------------- */

static void dump_huge_count(const struct mpl_huge_count *count, struct mpl_text *text)
{
    mpl_text_field(text, "pages", count->nr);
    mpl_text_field(text, "free", count->nr_free);
    mpl_text_field(text, "surplus", count->nr_surplus);
}

static void dump_lent_count(const struct mpl_huge_count *count, struct mpl_text *text)
{
    if (count->nr_excess != 0)
        mpl_text_field(text, "excess", count->nr_excess);
    if (count->nr_lent != 0)
        mpl_text_field(text, "lent", count->nr_lent);
    mpl_text_string(text, "\n");
}

static void dump_huge(const struct memplug *pool, unsigned size, struct mpl_text *text)
{
    struct mpl_spin *spin = &((struct memplug *)pool)->huge_lock;
    struct mpl_huge huge;

    mpl_spin_lock(pool, spin);
    huge = pool->huge[size];
    mpl_spin_unlock(spin);
    if ((huge.all.nr | huge.nr_reserved | huge.nr_withheld) == 0)
        return;
    mpl_text_string(text, size == MEMPLUG_HUGE_PMD ? "huge PMD" : "huge PUD");
    dump_huge_count(&huge.all, text);
    mpl_text_field(text, "reserved", huge.nr_reserved);
    mpl_text_field(text, "withheld", huge.nr_withheld);
    dump_lent_count(&huge.all, text);
    for (unsigned node = 0; node < pool->nr_nodes; node++) {
        if (huge.nodes[node].nr == 0)
            continue;
        mpl_text_string(text, "huge on node ");
        mpl_text_decimal(text, node);
        dump_huge_count(&huge.nodes[node], text);
        dump_lent_count(&huge.nodes[node], text);
    }
}

/* --- frames ----------------------------------------------------------------------------------- */

static void dump_described(const struct memplug *pool, memplug_pfn_t pfn, struct mpl_text *text)
{
    struct mpl_look_page page = mpl_look_page(pool, pfn);
    const struct memplug_mover *mover = mpl_look_mover(pool, page.mover);

    mpl_text_string(text, page_name(page.state));
    mpl_text_field(text, "pages", page.nr_pages);
    mpl_text_field(text, "mover", page.mover);
    mpl_text_string(text, " ");
    mpl_text_quoted(text, mover ? mover->name : NULL);
    mpl_text_hex_field(text, "cookie", page.cookie);
    mpl_text_field(text, "pins", page.pins);
    mpl_text_field(text, "align_order", page.align_order);
    if (page.huge != 0)
        mpl_text_field(text, "huge", page.huge);
    if (page.huge_flags != 0)
        mpl_text_field(text, "huge_flags", page.huge_flags);
}

/* Allocations of nr_pages each without struct pages, one behind the other, are one run. */
static uint64_t raw_run(const struct memplug *pool, const struct mpl_block *block, uint64_t index,
                        uint64_t nr_pages)
{
    uint64_t end = index + nr_pages;

    while (end < pool->layout.nr_pages &&
           mpl_look_for(block, end, end + 1, MPL_LOOK_HEAD) == end &&
           !mpl_look_is_described(block, end) && !mpl_poisoned(block, end) &&
           mpl_look_run(pool, block, end) == nr_pages)
        end += nr_pages;
    return end - index;
}

/* Free frames, or frames of a hole. */
static uint64_t unused_run(const struct memplug *pool, const struct mpl_block *block,
                           uint64_t index)
{
    uint64_t start = mpl_block_start(pool, block).nr;
    uint64_t end = mpl_look_for(block, index, pool->layout.nr_pages, MPL_LOOK_USED);
    uint64_t pfn = start + index, nr_pages;

    if (block->nr_absent == 0)
        return end - index;
    if (!mpl_early_run(pool, &pfn, start + end, &nr_pages))
        return end - index;
    return pfn > start + index ? pfn - start - index : nr_pages;
}

/* Frames of the memmap, lent ones apart. */
static uint64_t memmap_run(const struct memplug *pool, const struct mpl_block *block,
                           uint64_t index)
{
    uint64_t end = index;

    while (end < pool->layout.nr_pages && mpl_is_memmap(pool, block, end))
        end++;
    return end - index;
}

/* Lent frames as runs. */
static void dump_lent(const struct memplug *pool, const struct mpl_block *block,
                      struct mpl_text *text)
{
    const char *bits = mpl_bitmaps(block) + pool->layout.lent;

    if (mpl_lent_count(pool, block) == 0)
        return;
    mpl_text_string(text, " lent");
    dump_bits(text, (const uint64_t *)(const void *)bits, pool->layout.nr_pages);
    mpl_text_string(text, "\n");
}

/* One run from index on; returns its pages. */
static uint64_t dump_run(const struct memplug *pool, const struct mpl_block *block,
                         uint64_t index, struct mpl_text *text)
{
    uint64_t bit = (uint64_t)1 << (index % 64);
    bool used = (mpl_look_mask(block, index / 64, MPL_LOOK_USED) & bit) != 0;
    bool head = (mpl_look_mask(block, index / 64, MPL_LOOK_HEAD) & bit) != 0;
    bool described = head && mpl_look_is_described(block, index);
    bool poisoned = mpl_poisoned(block, index);
    bool memmap = mpl_is_memmap(pool, block, index);
    uint64_t nr_pages = mpl_look_run(pool, block, index);
    uint64_t nr_run = nr_pages;

    if (!used)
        nr_run = unused_run(pool, block, index);
    else if (memmap)
        nr_run = memmap_run(pool, block, index);
    else
        nr_run = head && !described && !poisoned ? raw_run(pool, block, index, nr_pages)
                                                 : nr_pages;
    mpl_text_string(text, " ");
    mpl_text_decimal(text, index);
    mpl_text_string(text, "+");
    mpl_text_decimal(text, nr_run);
    mpl_text_string(text, " ");
    if (!used && mpl_early_is_hole(pool, block, index))
        mpl_text_string(text, "hole");
    else if (!used)
        mpl_text_string(text, block->zone == MEMPLUG_NR_ZONES ? "unmanaged" : "free");
    else if (described)
        dump_described(pool, mpl_pfn_add(mpl_block_start(pool, block), index), text);
    else if (memmap)
        mpl_text_string(text, "memmap");
    else if (poisoned)
        mpl_text_string(text, "poisoned");
    else
        mpl_text_string(text, head ? "raw" : "tail");
    if (head && !described && !poisoned && !memmap)
        mpl_text_field(text, "pages", nr_pages);
    mpl_text_string(text, "\n");
    return nr_run;
}

/* Of a block that is offline too. */
static void dump_poisoned(const struct memplug *pool, const struct mpl_block *block,
                          struct mpl_text *text)
{
    if (!block->poisoned)
        return;
    mpl_text_string(text, " poisoned");
    dump_bits(text, block->poisoned, pool->layout.nr_pages);
    mpl_text_string(text, "\n");
}

static void dump_isolated(const struct memplug *pool, const struct mpl_block *block,
                          struct mpl_text *text)
{
    const char *bits = mpl_bitmaps(block) + pool->layout.isolated;

    if (block->nr_isolated == 0)
        return;
    mpl_text_string(text, " isolated");
    dump_bits(text, (const uint64_t *)(const void *)bits, pool->layout.nr_pageblocks);
    mpl_text_string(text, "\n");
}

/* --- blocks ----------------------------------------------------------------------------------- */

static void dump_unit(const struct memplug *pool, const struct mpl_block *unit,
                      struct mpl_text *text)
{
    const struct mpl_altmap *altmap = &unit->altmap;

    if (unit->unit_first != mpl_block_id(pool, unit))
        return;
    mpl_text_hex_field(text, "altmap", altmap->base_pfn);
    mpl_text_string(text, "-");
    mpl_text_hex(text, altmap->end_pfn);
    mpl_text_field(text, "reserve", altmap->reserve);
    mpl_text_field(text, "free", altmap->free);
    mpl_text_field(text, "align", altmap->align);
    mpl_text_field(text, "alloc", altmap->alloc);
    mpl_text_hex_field(text, "offset", unit->offset_bytes);
    mpl_text_string(text, "\n");
}

static void dump_block(const struct memplug *pool, uint64_t id, struct mpl_text *text)
{
    const struct mpl_block *block = mpl_block_at(pool, id);
    struct memplug_block_info info;

    if (memplug_block_info(pool, id, &info) != 0)
        return;
    mpl_text_string(text, "block ");
    mpl_text_decimal(text, id);
    mpl_text_string(text, " ");
    mpl_text_string(text, state_name(info.state));
    mpl_text_string(text, " ");
    mpl_text_string(text, zone_name(info.zone));
    mpl_text_string(text, " node ");
    mpl_text_signed(text, info.node);
    mpl_text_string(text, " memmap ");
    mpl_text_string(text, memmap_name(info.memmap));
    mpl_text_field(text, "unit", info.unit_first);
    mpl_text_string(text, "+");
    mpl_text_decimal(text, info.unit_nr_blocks);
    if (info.group != 0)
        mpl_text_field(text, "group", (uint64_t)info.group);
    mpl_text_field(text, "memmap_pages", info.nr_memmap_pages);
    mpl_text_field(text, "managed", info.nr_managed_pages);
    mpl_text_field(text, "free", info.nr_free_pages);
    mpl_text_field(text, "isolated", info.nr_isolated_pageblocks);
    mpl_text_string(text, !block->own_bitmaps ? " bitmaps none"
                          : block->bitmaps_from_host ? " bitmaps host" : " bitmaps memmap");
    if (block->shares[MPL_END_HEAD])
        mpl_text_string(text, " shares_head");
    if (block->shares[MPL_END_TAIL])
        mpl_text_string(text, " shares_tail");
    if (info.early)
        mpl_text_string(text, " early");
    if (info.nr_absent_pages != 0)
        mpl_text_field(text, "absent", info.nr_absent_pages);
    mpl_text_string(text, block->announced ? " announced\n" : "\n");
    dump_unit(pool, block, text);
    dump_poisoned(pool, block, text);
    if (info.state != MEMPLUG_BLOCK_ONLINE)
        return; /* what the bitmaps hold means nothing */
    dump_isolated(pool, block, text);
    dump_lent(pool, block, text);
    for (uint64_t index = 0; index < pool->layout.nr_pages;)
        index += dump_run(pool, block, index, text);
}

int memplug_dump(struct memplug *pool, memplug_write_t *write, void *context)
{
    struct mpl_text text;
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "dump", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    mpl_percpu_drain(pool);
    mpl_text_to_callback(&text, write, context);
    dump_pool(pool, &text);
    mpl_dump_policy(pool, &text);
    dump_boot(pool, &text);
    dump_callees(pool, &text);
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE; size++)
        dump_huge(pool, size, &text);
    for (int node = 0; node < (int)pool->nr_nodes; node++) {
        dump_node(pool, node, &text);
        for (unsigned kind = 0; kind < MEMPLUG_NR_ZONES; kind++)
            dump_zone(pool, node, kind, &text);
    }
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
        dump_block(pool, id, &text);
    mpl_text_end(&text);
    return mpl_door_unlock(&door.op, 0);
}
