/* SPDX-License-Identifier: MIT */
/*
 * Where memmaps stand. What the host was asked for is compared, page of the window by page, with a
 * rule that is stated for one page at a time: a page of the window belongs to a large unit if that
 * whole unit describes this unit of blocks alone (with a memmap of the host's: blocks of this add
 * alone) and, for a memmap in the range's own frames, these are aligned as the unit is; else it is
 * mapped alone. Ranges next to each other are in test_memmap_share.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fake/fake.h"
#include "state/state.h"
#include "steps.h"
#include "toy_host.h"

#define LARGE_SHIFT 21
#define LARGE_BYTES (UINT64_C(1) << LARGE_SHIFT)

/* A request: nr_blocks from first on; what it asks of the memmap. */
struct placement {
    uint64_t first, nr_blocks;
    enum memplug_memmap memmap;
    bool pad;
};

/* One unit of it, and what the window must look like. */
struct unit {
    uint64_t first, nr_blocks;
    uint64_t begin, end; /* window offsets */
    uint64_t address;
    bool own;
};

static const enum memplug_memmap modes[] = {
    MEMPLUG_MEMMAP_BLOCK,
    MEMPLUG_MEMMAP_RANGE,
    MEMPLUG_MEMMAP_HOST,
};

static struct memplug_geometry geometry_of(unsigned page_shift, unsigned block_shift,
                                           unsigned struct_bytes, bool large)
{
    return (struct memplug_geometry){
        .page_shift = (uint8_t)page_shift,
        .pageblock_order = page_shift == 12 ? 9 : 11,
        .section_shift = 27,
        .block_shift = (uint8_t)block_shift,
        .large_shift = (uint8_t)(large ? LARGE_SHIFT : page_shift),
        .page_struct_bytes = (uint8_t)struct_bytes,
        .address_limit = UINT64_C(16) << block_shift,
    };
}

/* --- the rule --------------------------------------------------------------------------------- */

static struct unit unit_of(const struct memplug_geometry *g, const struct placement *placement,
                           uint64_t first)
{
    bool whole = placement->memmap == MEMPLUG_MEMMAP_RANGE;
    struct unit unit = {
        .first = first,
        .nr_blocks = whole ? placement->nr_blocks : 1,
        .address = first << g->block_shift,
        .own = placement->memmap != MEMPLUG_MEMMAP_HOST,
    };

    unit.begin = (unit.address >> g->page_shift) * g->page_struct_bytes;
    unit.end = unit.begin + (unit.nr_blocks << (g->block_shift - g->page_shift)) *
                                g->page_struct_bytes;
    return unit;
}

static uint64_t naive_unit_bytes(const struct memplug_geometry *g, const struct unit *unit,
                                 uint64_t offset)
{
    uint64_t large_bytes = UINT64_C(1) << g->large_shift;
    uint64_t chunk = offset / large_bytes * large_bytes;
    bool alone = chunk >= unit->begin && chunk + large_bytes <= unit->end;
    bool aligned = (unit->address + chunk - unit->begin) % large_bytes == 0;

    return alone && (aligned || !unit->own) ? large_bytes : UINT64_C(1) << g->page_shift;
}

/* Is the placement to be refused, and why? Null: it is not. */
static const char *naive_refusal(const struct memplug_geometry *g,
                                 const struct placement *placement, uint64_t alignment,
                                 uint64_t *unit_bytes)
{
    struct unit unit = unit_of(g, placement, placement->first);
    uint64_t page_bytes = UINT64_C(1) << g->page_shift, size_bytes = unit.end - unit.begin;

    *unit_bytes = page_bytes;
    if (size_bytes % page_bytes != 0)
        return "the memmap is not whole pages";
    if (unit.own)
        *unit_bytes = alignment;
    if (size_bytes % *unit_bytes != 0)
        return "the memmap cannot be mapped at the alignment of the backing";
    if (unit.begin % *unit_bytes != 0)
        return "the memmap would not begin at a part that can be mapped";
    return NULL;
}

/* --- what the host was asked for -------------------------------------------------------------- */

static unsigned count_calls(const struct toy_host *toy, enum toy_operation operation)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < toy->nr_calls; i++)
        nr += toy->calls[i].operation == operation;
    return nr;
}

/* One mapping, page by page; returns how many pages of the window it covers. */
static uint64_t check_mapping(const struct memplug_geometry *g, const struct unit *unit,
                              const struct toy_call *call)
{
    uint64_t page_bytes = UINT64_C(1) << g->page_shift;

    assert_int_equal(call->operation, unit->own ? TOY_ALIAS : TOY_PROVIDE);
    assert_int_equal(call->offset % call->unit_bytes, 0);
    assert_int_equal(call->size_bytes % call->unit_bytes, 0);
    assert_int_not_equal(call->size_bytes, 0);
    assert_true(call->offset >= unit->begin && call->offset + call->size_bytes <= unit->end);
    if (unit->own) {
        assert_int_equal(call->address % call->unit_bytes, 0);
        assert_int_equal(call->address - unit->address, call->offset - unit->begin);
    }
    for (uint64_t done = 0; done < call->size_bytes; done += page_bytes)
        if (naive_unit_bytes(g, unit, call->offset + done) != call->unit_bytes)
            fail_msg("offset %llx is mapped in units of %llx",
                     (unsigned long long)(call->offset + done),
                     (unsigned long long)call->unit_bytes);
    return call->size_bytes / page_bytes;
}

/* All mappings of a unit follow each other without a gap, in at most three runs a block: so each
 * page of the window, and each frame, is used exactly once. */
static void check_unit_mapped(const struct toy_host *toy, const struct unit *unit)
{
    const struct memplug_geometry *g = &toy->host.geometry;
    uint64_t next = unit->begin, nr_pages = 0;
    unsigned nr_runs = 0;

    for (unsigned i = 0; i < toy->nr_calls; i++) {
        const struct toy_call *call = &toy->calls[i];

        if ((call->operation != TOY_ALIAS && call->operation != TOY_PROVIDE) ||
            call->offset < unit->begin || call->offset >= unit->end)
            continue;
        assert_int_equal(call->offset, next);
        nr_pages += check_mapping(g, unit, call);
        next += call->size_bytes;
        nr_runs++;
    }
    assert_int_equal(next, unit->end);
    assert_in_range(nr_runs, 1, unit->own ? 3 : 3 * unit->nr_blocks);
    assert_int_equal(nr_pages, (unit->end - unit->begin) >> g->page_shift);
}

static void check_altmap(const struct toy_host *toy, const struct unit *unit, bool pad)
{
    const struct memplug_geometry *g = &toy->host.geometry;
    const struct mpl_altmap *altmap = &toy->pool->blocks[unit->first].altmap;
    uint64_t nr_frames = (unit->end - unit->begin) >> g->page_shift;
    uint64_t pageblock = UINT64_C(1) << g->pageblock_order;
    uint64_t nr_head = pad ? (nr_frames + pageblock - 1) / pageblock * pageblock : nr_frames;
    uint64_t block_pages = mpl_block_pages(g);

    if (!unit->own)
        nr_head = nr_frames = 0;
    assert_int_equal(altmap->alloc, nr_frames);
    assert_int_equal(altmap->align, 0);
    assert_int_equal(altmap->reserve, 0);
    assert_int_equal(altmap->free, nr_head);
    for (uint64_t i = 0; i < unit->nr_blocks; i++) {
        const struct mpl_block *block = &toy->pool->blocks[unit->first + i];
        uint64_t nr_here = nr_head < block_pages ? nr_head : block_pages;

        assert_int_equal(block->nr_memmap_pages, nr_here);
        nr_head -= nr_here;
    }
    assert_int_equal(nr_head, 0);
}

/* Bitmaps lie in the struct pages of the memmap's own frames, which nobody reads, or are got. */
static bool check_bitmaps(const struct toy_host *toy, const struct unit *unit)
{
    const struct mpl_block *head = &toy->pool->blocks[unit->first];
    uint64_t size_bytes = toy->pool->layout.bytes;
    uint64_t room_bytes = head->altmap.alloc * toy->host.geometry.page_struct_bytes;
    bool fit = unit->own && size_bytes * unit->nr_blocks <= room_bytes;

    for (uint64_t i = 0; i < unit->nr_blocks; i++) {
        assert_int_equal(head[i].bitmaps_from_host, !fit);
        assert_int_equal((uintptr_t)head[i].own_bitmaps % sizeof(uint64_t), 0);
        if (fit)
            assert_ptr_equal(head[i].own_bitmaps, toy->host.memmap + unit->begin + i * size_bytes);
        else
            assert_ptr_equal(head[i].own_bitmaps, head->own_bitmaps + i * size_bytes);
    }
    return fit;
}

/* The way back: the same calls upwards, with the same sizes and units. */
static void check_mirrored(const struct toy_host *toy, unsigned nr_down)
{
    static const enum toy_operation back[] = {
        [TOY_ATTACH] = TOY_DETACH,
        [TOY_ALIAS] = TOY_UNMAP,
        [TOY_PROVIDE] = TOY_UNMAP,
        [TOY_GET] = TOY_PUT,
    };

    for (unsigned i = 0; i < nr_down; i++) {
        const struct toy_call *down = &toy->calls[i];
        unsigned nr_found = 0;

        for (unsigned k = nr_down; k < toy->nr_calls; k++) {
            const struct toy_call *up = &toy->calls[k];

            nr_found += up->operation == back[down->operation] && up->offset == down->offset &&
                        up->size_bytes == down->size_bytes && up->unit_bytes == down->unit_bytes &&
                        (up->operation != TOY_DETACH || up->address == down->address);
            if (up->operation == TOY_DETACH)
                assert_int_equal(up->altmap_alloc, 0);
        }
        if (down->operation != TOY_GET)
            assert_int_equal(nr_found, 1);
    }
    assert_int_equal(count_calls(toy, TOY_PUT), count_calls(toy, TOY_GET));
}

static void check_all_gone(const struct toy_host *toy)
{
    const struct mpl_block absent = {.state = MEMPLUG_BLOCK_ABSENT};

    for (unsigned id = 0; id < toy->pool->nr_blocks_max; id++)
        assert_memory_equal(&toy->pool->blocks[id], &absent, sizeof(absent));
    assert_int_equal(toy->pool->host_bytes, 0);
    assert_int_equal(toy->memory_bytes, 0);
}

/* --- one placement ---------------------------------------------------------------------------- */

/* How often each thing was seen: a loop that never sees it would prove nothing. */
struct seen {
    unsigned nr_placed, nr_refused[3], nr_large, nr_mixed, nr_fit, nr_got, nr_unit_blocks;
};

static int add(struct toy_host *toy, const struct placement *placement,
               struct memplug_reason *reason)
{
    struct memplug_add request = {
        .address = placement->first << toy->host.geometry.block_shift,
        .size_bytes = placement->nr_blocks << toy->host.geometry.block_shift,
        .memmap = placement->memmap,
        .pad_memmap = placement->pad,
        .backing = toy->backing,
    };

    toy->nr_calls = 0;
    return memplug_add(toy->pool, &request, NULL, reason);
}

static int remove_all(struct toy_host *toy, const struct placement *placement)
{
    return memplug_remove(toy->pool, placement->first << toy->host.geometry.block_shift,
                          placement->nr_blocks << toy->host.geometry.block_shift, NULL, NULL);
}

static void note_seen(const struct toy_host *toy, struct seen *seen)
{
    bool large = false, small = false;

    for (unsigned i = 0; i < toy->nr_calls; i++)
        if (toy->calls[i].operation == TOY_ALIAS || toy->calls[i].operation == TOY_PROVIDE) {
            large |= toy->calls[i].unit_bytes == LARGE_BYTES;
            small |= toy->calls[i].unit_bytes != LARGE_BYTES;
        }
    seen->nr_placed++;
    seen->nr_large += large;
    seen->nr_mixed += large && small;
}

/* What must be mapped as one: a memmap of its own; all blocks of an add with the host's. */
static void check_mapped(const struct toy_host *toy, const struct placement *placement)
{
    const struct memplug_geometry *g = &toy->host.geometry;
    struct unit unit = unit_of(g, placement, placement->first);
    struct unit last = unit_of(g, placement, placement->first + placement->nr_blocks - 1);

    if (!unit.own) {
        unit.nr_blocks = placement->nr_blocks;
        unit.end = last.end;
        check_unit_mapped(toy, &unit);
        return;
    }
    for (uint64_t first = placement->first; first < placement->first + placement->nr_blocks;
         first += unit.nr_blocks) {
        unit = unit_of(g, placement, first);
        check_unit_mapped(toy, &unit);
    }
}

static void check_placed(struct toy_host *toy, const struct placement *placement,
                         struct seen *seen)
{
    const struct memplug_geometry *g = &toy->host.geometry;
    unsigned nr_down = toy->nr_calls, nr_units = 0, nr_got = 0;

    note_seen(toy, seen);
    check_mapped(toy, placement);
    for (uint64_t first = placement->first; first < placement->first + placement->nr_blocks;) {
        struct unit unit = unit_of(g, placement, first);

        check_altmap(toy, &unit, placement->pad);
        if (check_bitmaps(toy, &unit))
            seen->nr_fit++;
        else
            nr_got++;
        nr_units++;
        first += unit.nr_blocks;
    }
    seen->nr_got += nr_got;
    assert_int_equal(count_calls(toy, TOY_ATTACH), nr_units);
    assert_int_equal(count_calls(toy, TOY_GET), nr_got);
    assert_int_equal(remove_all(toy, placement), 0);
    check_mirrored(toy, nr_down);
    check_all_gone(toy);
}

static void check_placement(struct toy_host *toy, const struct placement *placement,
                            struct seen *seen)
{
    struct memplug_reason reason;
    uint64_t unit_bytes;
    const char *refusal = naive_refusal(&toy->host.geometry, placement, toy->alignment_bytes,
                                        &unit_bytes);
    int error = add(toy, placement, &reason);

    if (refusal == NULL) {
        assert_int_equal(error, 0);
        check_placed(toy, placement, seen);
        return;
    }
    assert_int_equal(error, -MPL_EINVAL);
    assert_string_equal(reason.why, refusal);
    assert_int_equal(reason.unit_bytes, unit_bytes);
    assert_int_equal(toy->nr_calls, 0);
    seen->nr_refused[strstr(refusal, "whole") != NULL      ? 0
                     : strstr(refusal, "alignment") != NULL ? 1
                                                            : 2]++;
}

static void check_geometry(const struct memplug_geometry *g, struct seen *seen)
{
    struct toy_host toy;

    toy_open(&toy, g, 1, NULL);
    for (unsigned huge = 0; huge < 2; huge++) {
        toy.alignment_bytes = huge != 0 ? LARGE_BYTES : UINT64_C(1) << g->page_shift;
        for (unsigned mode = 0; mode < 3; mode++)
            for (uint64_t first = 1; first <= 5; first++)
                for (uint64_t nr_blocks = 1; nr_blocks <= 4; nr_blocks += 1 + (nr_blocks == 2)) {
                    struct placement placement = {first, nr_blocks, modes[mode], false};

                    check_placement(&toy, &placement, seen);
                }
    }
    toy_close(&toy);
}

static void check_page_size(unsigned page_shift, bool large, struct seen *seen)
{
    memset(seen, 0, sizeof(*seen));
    for (unsigned block_shift = 27; block_shift <= 29; block_shift++)
        for (unsigned struct_bytes = 32; struct_bytes <= 128; struct_bytes += 8) {
            struct memplug_geometry g = geometry_of(page_shift, block_shift, struct_bytes, large);

            check_geometry(&g, seen);
        }
    assert_true(seen->nr_placed > 500);
    assert_true(seen->nr_refused[1] > 0);
}

static void test_4k_pages_with_a_large_unit(void **state)
{
    struct seen seen;

    (void)state;
    check_page_size(12, true, &seen);
    assert_true(seen.nr_large > 100 && seen.nr_mixed > 100);
    assert_true(seen.nr_fit > 100 && seen.nr_got > 100);
    assert_true(seen.nr_refused[2] > 0);
}

static void test_4k_pages_with_one_unit_only(void **state)
{
    struct seen seen;

    (void)state;
    check_page_size(12, false, &seen);
    assert_int_equal(seen.nr_large, 0);
}

static void test_16k_pages(void **state)
{
    struct seen seen;

    (void)state;
    check_page_size(14, true, &seen);
    assert_true(seen.nr_large > 0);
    check_page_size(14, false, &seen);
    assert_int_equal(seen.nr_large, 0);
}

static void test_64k_pages(void **state)
{
    struct seen seen;

    (void)state;
    check_page_size(16, true, &seen);
    assert_true(seen.nr_refused[0] > 0);
    check_page_size(16, false, &seen);
    assert_int_equal(seen.nr_large, 0);
}

/* 56 blocks of 1 MiB, 128 bytes a page: the memmap takes the first block and most of the second. */
static void test_a_memmap_longer_than_a_block(void **state)
{
    struct placement placement = {1, 56, MEMPLUG_MEMMAP_RANGE, false};
    struct memplug_geometry g = toy_geometry();
    struct seen seen = {0};
    struct toy_host toy;

    (void)state;
    g.page_struct_bytes = 128;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(add(&toy, &placement, NULL), 0);
    assert_int_equal(toy.pool->blocks[1].nr_memmap_pages, 256);
    assert_int_equal(toy.pool->blocks[2].nr_memmap_pages, 192);
    check_placed(&toy, &placement, &seen);
    toy_close(&toy);
}

/* --- padding and failures --------------------------------------------------------------------- */

static void test_padding_rounds_up_to_the_pageblock(void **state)
{
    (void)state;
    for (unsigned struct_bytes = 32; struct_bytes <= 128; struct_bytes += 8)
        for (unsigned mode = 0; mode < 3; mode++) {
            struct memplug_geometry g = geometry_of(12, 27, struct_bytes, true);
            struct placement placement = {2, 2, modes[mode], true};
            struct memplug_reason reason;
            struct seen seen = {0};
            struct toy_host toy;

            toy_open(&toy, &g, 1, NULL);
            assert_int_equal(add(&toy, &placement, &reason), 0);
            assert_int_equal(toy.pool->blocks[2].nr_memmap_pages % 512, 0);
            assert_int_equal(toy.calls[0].unit_bytes,
                             toy.pool->blocks[2].nr_memmap_pages * 4096);
            check_placed(&toy, &placement, &seen);
            toy_close(&toy);
        }
}

/* Each call in turn fails, and everything before it is taken back. */
static void test_a_host_that_fails_leaves_nothing_behind(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 3; mode++)
        for (unsigned struct_bytes = 32; struct_bytes <= 128; struct_bytes += 24)
            for (unsigned k = 1;; k++) {
                struct memplug_geometry g = geometry_of(12, 27, struct_bytes, true);
                struct placement placement = {3, 2, modes[mode], false};
                struct memplug_reason reason;
                struct toy_host toy;
                int error;

                toy_open(&toy, &g, 1, NULL);
                toy.fail_at = k;
                error = add(&toy, &placement, &reason);
                if (error == 0) {
                    assert_true(k > 2);
                    toy.fail_at = 0;
                    toy_empty(&toy);
                    break;
                }
                assert_int_equal(error, -MPL_ENOMEM);
                assert_int_equal(count_calls(&toy, TOY_ATTACH) + count_calls(&toy, TOY_ALIAS) +
                                     count_calls(&toy, TOY_PROVIDE) + count_calls(&toy, TOY_GET),
                                 k);
                assert_int_equal(toy.nr_calls, 2 * k - 1);
                check_all_gone(&toy);
                toy_close(&toy);
            }
}

/* --- on a machine ----------------------------------------------------------------------------- */

static void check_machine(struct fake_machine *machine)
{
    char text[256];

    if (fake_check(machine, text, sizeof(text)) != 0)
        fail_msg("%s", text);
}

/* The same through page tables: an alias is an alias. */
static void check_on_machine(const struct memplug_geometry *g, const struct placement *placement)
{
    struct fake_config config = {.geometry = *g, .fill_bytes = 1, .seed = 7};
    struct fake_backing_spec spec = {.size_bytes = placement->nr_blocks << g->block_shift};
    struct seen seen = {0};
    struct fake_machine *machine;
    struct toy_host toy;
    char text[256] = "";

    assert_int_equal(fake_open(&config, &machine), 0);
    toy_open(&toy, g, 1, fake_host(machine));
    toy.backing = fake_backing_open(machine, &spec);
    assert_non_null(toy.backing);
    assert_int_equal(add(&toy, placement, NULL), 0);
    check_machine(machine);
    assert_int_equal(memplug_online(toy.pool, placement->first, placement->nr_blocks,
                                    MEMPLUG_ONLINE_KERNEL, NULL, NULL),
                     0);
    check_machine(machine);
    assert_int_equal(memplug_check(toy.pool, NULL), 0);
    assert_int_equal(memplug_offline(toy.pool, placement->first, placement->nr_blocks, NULL, NULL),
                     0);
    check_placed(&toy, placement, &seen);
    check_machine(machine);
    toy_close(&toy);
    if (fake_close(machine, text, sizeof(text)) != 0)
        fail_msg("%s", text);
}

static void test_the_machine_agrees(void **state)
{
    const unsigned struct_bytes[] = {56, 64, 128};

    (void)state;
    for (unsigned large = 0; large < 2; large++)
        for (unsigned i = 0; i < sizeof(struct_bytes) / sizeof(struct_bytes[0]); i++) {
            struct memplug_geometry g = geometry_of(12, 27, struct_bytes[i], large != 0);
            struct placement own = {3, 2, modes[(i + large) % 2], i % 2 != 0};
            struct placement hosts = {3, 2, MEMPLUG_MEMMAP_HOST, false};

            check_on_machine(&g, &own);
            if (i == 0)
                check_on_machine(&g, &hosts);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_4k_pages_with_a_large_unit),
        cmocka_unit_test(test_4k_pages_with_one_unit_only),
        cmocka_unit_test(test_16k_pages),
        cmocka_unit_test(test_64k_pages),
        cmocka_unit_test(test_a_memmap_longer_than_a_block),
        cmocka_unit_test(test_padding_rounds_up_to_the_pageblock),
        cmocka_unit_test(test_a_host_that_fails_leaves_nothing_behind),
        cmocka_unit_test(test_the_machine_agrees),
    };

    return cmocka_run_group_tests_name("memmap", tests, NULL, NULL);
}
