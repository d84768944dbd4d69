/* SPDX-License-Identifier: MIT */
/*
 * memplug_close() with boot memory: it gives back what nobody uses, or says who does and changes
 * nothing. And memplug_check(), which finds what is wrong with boot memory.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/core.h"
#include "boot_world.h"
#include "state/state.h"

/* Blocks of 256 pages: 1 is in two zones, 2 has a hole, 3 to 6 are whole. */
static const struct memplug_boot_memory memory[] = {
    {.address = 0x100000, .size_bytes = 0x180000},
    {.address = 0x290000, .size_bytes = 0x470000},
};
#define DMA_LIMIT 0x180000u

static struct boot_world world;
static uint8_t mover;

static void move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++)
        moves[i].result = -EBUSY;
}

static void open_world(void)
{
    const struct memplug_mover test = {.name = "test", .move = move};
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);

    boot_world_open(&world, &geometry, 0x700000, 1);
    mover = (uint8_t)memplug_register_mover(world.pool, &test);
    assert_int_equal(boot_world_boot(&world, memory, 2, DMA_LIMIT, 0, NULL), 0);
    boot_world_check(&world);
}

static void take(uint64_t pfn, uint32_t nr_pages, uint8_t by)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .mover = by};

    assert_int_equal(memplug_alloc_exact(world.pool, (memplug_pfn_t){pfn}, &request), 0);
}

static void expect_busy(uint64_t pfn)
{
    char *before = boot_world_text(&world), *after;

    assert_int_equal(memplug_close(world.pool, &world.reason), -EBUSY);
    assert_int_equal(world.reason.block, pfn / 256);
    assert_int_equal(world.reason.pfn.nr, pfn);
    after = boot_world_text(&world);
    assert_string_equal(before, after);
    boot_world_check(&world);
    free(before);
    free(after);
}

static void end(void)
{
    assert_int_equal(memplug_close(world.pool, NULL), 0);
    boot_world_check(&world);
    boot_world_end(&world);
}

static void whoever_uses_a_frame_is_named(void **state)
{
    (void)state;
    for (uint8_t by = 0; by < 2; by++) {
        static const uint64_t places[] = {0x210, 0x27f, 0x290, 0x2ff, 0x300, 0x6ff};

        open_world();
        for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
            take(places[i], 1, by != 0 ? mover : 0);
            expect_busy(places[i]);
            assert_int_equal(memplug_free(world.pool, (memplug_pfn_t){places[i]}, 1), 0);
        }
        end();
    }
}

/* Over the border of two blocks: its first frame is the one that is named. */
static void an_allocation_over_blocks_is_named_once(void **state)
{
    struct memplug_alloc request = {.nr_pages = 320};
    memplug_pfn_t pfn;

    (void)state;
    open_world();
    take(0x300, 64, 0);
    assert_int_equal(memplug_alloc(world.pool, &request, &pfn), 0);
    assert_int_equal(pfn.nr, 0x340);
    assert_int_equal(memplug_free(world.pool, (memplug_pfn_t){0x300}, 64), 0);
    expect_busy(0x340);
    assert_int_equal(memplug_free(world.pool, pfn, 320), 0);
    end();
}

static void what_a_cpu_has_at_hand_is_not_used(void **state)
{
    struct memplug_alloc request = {.nr_pages = 1};
    memplug_pfn_t pfn;

    (void)state;
    open_world();
    assert_int_equal(memplug_alloc(world.pool, &request, &pfn), 0);
    assert_int_equal(memplug_free(world.pool, pfn, 1), 0);
    end();
}

/* In whatever state, and wherever, a block of boot memory is. */
static void blocks_that_went_elsewhere(void **state)
{
    (void)state;
    open_world();
    assert_int_equal(memplug_offline(world.pool, 3, 4, NULL, NULL), 0);
    assert_int_equal(memplug_online(world.pool, 4, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    assert_int_equal(memplug_online(world.pool, 5, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    assert_int_equal(memplug_remove(world.pool, 0x600000, 0x100000, NULL, NULL), 0);
    boot_world_check(&world);
    take(0x410, 1, mover);
    expect_busy(0x410);
    assert_int_equal(memplug_free(world.pool, (memplug_pfn_t){0x410}, 1), 0);
    end();
}

static void keep(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    if (start.nr != 0x400)
        assert_int_equal(memplug_release_pages(context, start, nr_pages), 0);
}

static void what_a_driver_keeps_is_used(void **state)
{
    struct memplug_online_hook hook = {.online_pages = keep};

    (void)state;
    open_world();
    hook.context = world.pool;
    assert_int_equal(memplug_offline(world.pool, 4, 1, NULL, NULL), 0);
    assert_int_equal(memplug_set_online_hook(world.pool, &hook), 0);
    assert_int_equal(memplug_online(world.pool, 4, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL), 0);
    expect_busy(0x400);
    assert_int_equal(memplug_unpin(world.pool, (memplug_pfn_t){0x400}), 0);
    end();
}

/* --- check ------------------------------------------------------------------------------------ */

#define ROW(words, damage)                                                                         \
    if (n-- == 0) {                                                                                \
        damage;                                                                                    \
        return words;                                                                              \
    }

static struct mpl_block *at(uint64_t id)
{
    return mpl_block_at(world.pool, id);
}

static struct mpl_bits *bits(uint64_t id, uint64_t index)
{
    mpl_frames_own(world.pool, at(id));
    return mpl_bits_at(at(id), index / 64);
}

static const char *damage(unsigned n)
{
    const struct mpl_layout *layout = &world.pool->layout;
    struct mpl_zone *dma = mpl_zone_at(world.pool, 0, MEMPLUG_ZONE_DMA);
    struct mpl_zone *normal = mpl_zone_at(world.pool, 0, MEMPLUG_ZONE_NORMAL);
    const char *absent = "nr_absent of the block is not what the boot memory lacks";
    const char *fixed = "what is fixed of the span is not what boot memory says";
    const char *early = "nr_early of the zone is not that of its boot memory";
    const char *present = "nr_present of the zone is not that of its online blocks";
    const char *span = "the span is not from the first to the last online block of the zone";

    ROW("an online block is in no zone", at(3)->zone = MEMPLUG_NR_ZONES)
    ROW("a block of several zones is in one", at(1)->zone = MEMPLUG_ZONE_DMA)
    ROW("boot memory is where there was none, or on another node",
        world.pool->boot.memory[1].node = 1)
    ROW("boot memory has a memmap of its own", at(3)->memmap = MEMPLUG_MEMMAP_BLOCK)
    ROW(absent, at(2)->nr_absent++)
    ROW(absent, at(3)->nr_absent = 1)
    ROW(absent, at(2)->early = false)
    ROW("a block that cannot go offline is offline",
        at(2)->state = MEMPLUG_BLOCK_OFFLINE; at(2)->zone = MEMPLUG_NR_ZONES)
    ROW("a frame that is not there was released", bits(2, 0x8f)->head ^= 1 << 15)
    ROW("a frame of a block in several zones was released", bits(1, 0)->head ^= 1)
    ROW("a block in several zones counts frames", at(1)->nr_managed = 1)
    ROW("a frame is held and no slot has it", bits(2, 0x90)->head |= 1 << 16;
        --*(uint16_t *)(void *)(at(2)->bitmaps + layout->nr_free + 4); at(2)->nr_free--)
    ROW("a slot holds frames of a block that is not online",
        world.pool->slots[0].held[0] = ((struct mpl_held){.mask = 1, .block = 1}))
    ROW(fixed, normal->fixed_end--)
    ROW(fixed, dma->fixed_start = 0)
    ROW(early, normal->nr_early--)
    ROW(early, at(4)->early = false)
    ROW(present, dma->nr_present--)
    ROW(span, normal->start.nr--)
    ROW(span, dma->nr_spanned++)
    ROW("host_bytes is not what the units took from the host", world.pool->host_bytes -= 24)
    return NULL;
}

static void damage_is_found(void **state)
{
    const char *why;
    unsigned n = 0;

    (void)state;
    do {
        open_world();
        why = damage(n++);
        if (why != NULL) {
            assert_int_equal(memplug_check(world.pool, &world.reason), -EUCLEAN);
            assert_string_equal(world.reason.why, why);
        }
        boot_world_abandon(&world);
    } while (why != NULL);
    assert_true(n > 20);
}

/* --- the dump --------------------------------------------------------------------------------- */

static void the_dump_says_it(void **state)
{
    static const char *const lines[] = {
        "boot dma 0x180000 dma32 0x0\n memory 0x100000+0x180000 node 0\n"
        " memory 0x290000+0x470000 node 0\n",
        "zone 0 DMA start 0x100 spanned 128 present 128 managed 0 free 0 isolated 0 early 128 "
        "fixed 0x100-0x180 has_free\n",
        "zone 0 Normal start 0x180 spanned 1408 present 1392 managed 1264 free 1264 isolated 0 "
        "early 1392 fixed 0x180-0x300 has_free 2-6\n",
        "bitmaps host early\n altmap 0x0-0x0 reserve 0 free 0 align 0 alloc 0 offset 0x100000\n"
        " 0+256 unmanaged\nblock 2 online Normal ",
        "bitmaps host early absent 16\n altmap 0x0-0x0 reserve 0 free 0 align 0 alloc 0 offset "
        "0x200000\n 0+128 free\n 128+16 hole\n 144+112 free\n",
    };
    char *text;

    (void)state;
    open_world();
    text = boot_world_text(&world);
    for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (strstr(text, lines[i]) == NULL)
            fail_msg("no\n%sin\n%s", lines[i], text);
    free(text);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whoever_uses_a_frame_is_named),
        cmocka_unit_test(an_allocation_over_blocks_is_named_once),
        cmocka_unit_test(what_a_cpu_has_at_hand_is_not_used),
        cmocka_unit_test(blocks_that_went_elsewhere),
        cmocka_unit_test(what_a_driver_keeps_is_used),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(the_dump_says_it),
    };

    return cmocka_run_group_tests_name("boot_close", tests, NULL, NULL);
}
