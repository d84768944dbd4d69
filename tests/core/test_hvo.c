/* SPDX-License-Identifier: MIT */
/*
 * Huge pages whose memmap is lent, also where it is self-hosted: what is gained, what comes back
 * when, and what does not go while somebody holds a lent frame.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memplug/boot.h>
#include <memplug/poison.h>

#include "world.h"

#define A 2u
#define B 10u
#define NR WORLD_RANGE_BLOCKS
#define PMD MEMPLUG_HUGE_PMD
#define PUD MEMPLUG_HUGE_PUD

/*
 * Blocks of 8 MiB: 2,048 pages, 4 pageblocks of 512. A block's memmap is 32 frames; the 8 that
 * describe one huge page are 1 that stays and 7 that are lent.
 */
#define BLOCK_PAGES 2048u
#define MEMMAP_PAGES 32u
#define PER_BLOCK 3u /* the first pageblock has the memmap */

static const struct world_config medium = {
    .shape = FAKE_SMALL,
    .block_shift = 23,
    .pageblock_order = 9,
    .hvo = MEMPLUG_HVO_ALL,
    .seed = 1,
};

static struct world world;
static struct memplug_reason reason;

static void open_world(const struct world_config *config, enum memplug_memmap memmap,
                       unsigned nr_online)
{
    world_open(&world, config);
    must(world_add(&world, world.backing_a, A, memmap, NULL, NULL));
    must(memplug_online(world.pool, A, nr_online, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(world_add(&world, world.backing_b, B, memmap, NULL, NULL));
}

static int resize(enum memplug_huge size, uint64_t nr)
{
    return memplug_huge_resize(world.pool, size, nr, MEMPLUG_ANY_NODE, NULL, &reason);
}

static struct memplug_huge_info info_of(enum memplug_huge size)
{
    struct memplug_huge_info info;

    must(memplug_huge_info(world.pool, size, MEMPLUG_ANY_NODE, &info));
    return info;
}

static void expect_info(uint64_t nr, uint64_t nr_free, uint64_t nr_optimized)
{
    struct memplug_huge_info info = info_of(PMD);

    assert_int_equal(info.nr_huge, nr);
    assert_int_equal(info.nr_free, nr_free);
    assert_int_equal(info.nr_optimized, nr_optimized);
    assert_int_equal(info.nr_lent_pages, 7 * nr_optimized);
}

static struct memplug_stat stat_of(void)
{
    struct memplug_stat stat;

    memplug_stat(world.pool, &stat);
    return stat;
}

static struct memplug_block_info block_info(uint64_t id)
{
    struct memplug_block_info info;

    must(memplug_block_info(world.pool, id, &info));
    return info;
}

static unsigned alloc_huge(enum memplug_huge size)
{
    unsigned slot = 0;

    must(owner_alloc_huge(world.owner, size, MEMPLUG_ANY_NODE, false, &slot));
    return slot;
}

/* A page of the owner's at exactly this frame. */
static unsigned own(uint64_t pfn, uint32_t nr_pages)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t at = {pfn};
    unsigned slot = 0;

    must(owner_alloc_request(world.owner, &request, &at, &slot));
    return slot;
}

static uint64_t pfn_of(unsigned slot)
{
    memplug_pfn_t pfn;

    must(owner_where(world.owner, slot, &pfn, NULL));
    return pfn.nr;
}

static void close_world(void)
{
    must(owner_free_all(world.owner));
    must(resize(PMD, 0));
    must(resize(PUD, 0));
    world_check(&world);
    expect_info(0, 0, 0);
    world_close(&world);
}

/* --- what is lent ----------------------------------------------------------------------------- */

/* Frames of the block that holds them, for movable use; gone when the huge page goes. */
static void test_lent_frames_are_memory_of_their_block(void **state)
{
    struct memplug_block_info before, with;
    memplug_pfn_t raw = {A * BLOCK_PAGES + 9};
    char *text;
    unsigned slot;

    (void)state;
    open_world(&medium, MEMPLUG_MEMMAP_BLOCK, 1);
    text = world_text(&world, false);
    before = block_info(A);
    must(resize(PMD, 2));
    expect_info(2, 2, 2);
    world_check(&world);
    with = block_info(A);
    assert_int_equal(with.nr_managed_pages, before.nr_managed_pages + 14);
    assert_int_equal(with.nr_free_pages, before.nr_free_pages - 2 * 512 + 14);
    assert_int_equal(with.nr_memmap_pages, MEMMAP_PAGES);
    /* The first huge page is the second pageblock: frames 8 to 15 of the memmap describe it. */
    assert_int_equal(memplug_frame_kind(world.pool, (memplug_pfn_t){A * BLOCK_PAGES + 8}),
                     MEMPLUG_FRAME_MEMMAP);
    assert_int_equal(memplug_frame_kind(world.pool, raw), MEMPLUG_FRAME_FREE);
    /* Only whoever can be moved gets one. */
    assert_int_equal(memplug_alloc_exact(world.pool, raw, &(struct memplug_alloc){.nr_pages = 1}),
                     -EINVAL);
    slot = own(raw.nr, 1);
    assert_int_equal(memplug_frame_kind(world.pool, raw), MEMPLUG_FRAME_MOVABLE);
    world_check(&world);
    /* They are a memmap: they are not kept, nor poisoned. */
    WORLD_REFUSES(&world, &reason, EINVAL, "memmap",
                  memplug_keep_pages(world.pool, (memplug_pfn_t){raw.nr + 1}, 1, NULL, &reason),
                  false);
    WORLD_REFUSES(&world, &reason, EBUSY, "memmap",
                  memplug_soft_offline(world.pool, raw, NULL, &reason), false);
    must(resize(PMD, 0));
    assert_true(pfn_of(slot) >= A * BLOCK_PAGES + MEMMAP_PAGES);
    must(owner_free_all(world.owner));
    world_same(&world, text, false);
    close_world();
}

/* A movable allocation of any size may use them; a kernel one never does. */
static void test_lent_frames_fill_up_first(void **state)
{
    (void)state;
    open_world(&medium, MEMPLUG_MEMMAP_BLOCK, 1);
    must(resize(PMD, PER_BLOCK));
    assert_int_equal(stat_of().nr_free_pages, 7 * PER_BLOCK + 512 - MEMMAP_PAGES);
    assert_int_equal(owner_fill(world.owner), 7 * PER_BLOCK + 512 - MEMMAP_PAGES);
    world_check(&world);
    close_world();
}

/* The memmap of the host's goes back to the host, in whatever zone. */
static void test_a_hosts_memmap_goes_back_to_the_host(void **state)
{
    (void)state;
    for (unsigned kernel = 0; kernel < 2; kernel++) {
        struct world_config config = medium;
        struct fake_stat before, with;
        uint64_t host_bytes;
        char *text;

        config.hvo = MEMPLUG_HVO_HOST;
        world_open(&world, &config);
        must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_HOST, NULL, NULL));
        must(world_add(&world, world.backing_b, B, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
        must(memplug_online(world.pool, A, 1,
                            kernel ? MEMPLUG_ONLINE_KERNEL : MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        text = world_text(&world, false);
        fake_stat(world.machine, &before);
        host_bytes = stat_of().host_bytes;
        must(resize(PMD, 3));
        expect_info(3, 3, 3);
        world_check(&world);
        fake_stat(world.machine, &with);
        assert_int_equal(with.nr_free_boot_pages, before.nr_free_boot_pages + 21);
        assert_int_equal(stat_of().host_bytes, host_bytes - 21 * 4096);
        /* Its own memmap is not lent with HVO_HOST. */
        must(memplug_online(world.pool, B, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        must(resize(PMD, 6));
        assert_int_equal(info_of(PMD).nr_optimized, kernel ? 3 : 4);
        must(resize(PMD, 0));
        must(memplug_offline(world.pool, B, 1, NULL, NULL));
        world_same(&world, text, false);
        close_world();
    }
}

/* Boot memory has a memmap of the host's too. */
static void test_boot_memory(void **state)
{
    struct memplug_boot_memory memory = {0, 0, 0};
    struct memplug_boot boot = {.memory = &memory, .nr_memory = 1};
    char *text;

    (void)state;
    world_open(&world, &medium);
    memory.size_bytes = 2 * world.block_bytes + 5 * 4096;
    boot.backing = world.backing_a;
    must(memplug_boot(world.pool, &boot, NULL, &reason));
    text = world_text(&world, false);
    must(resize(PMD, 99));
    expect_info(8, 8, 8);
    must(memplug_offline(world.pool, 0, 1, NULL, &reason));
    expect_info(4, 4, 4);
    must(memplug_online(world.pool, 0, 1, MEMPLUG_ONLINE_KERNEL, NULL, &reason));
    must(resize(PMD, 0));
    world_same(&world, text, false);
    owner_close(world.owner); /* a world knows no boot memory */
    must(memplug_close(world.pool, &reason));
    fault_close(world.fault);
    assert_int_equal(fake_close(world.machine, NULL, 0), 0);
}

/* One in a kernel zone stays as it is: what would use the frames might never leave. */
static void test_kernel_zones_keep_their_memmap(void **state)
{
    (void)state;
    world_open(&world, &medium);
    must(world_add(&world, world.backing_a, A, MEMPLUG_MEMMAP_BLOCK, NULL, NULL));
    must(memplug_online(world.pool, A, 1, MEMPLUG_ONLINE_KERNEL, NULL, NULL));
    must(resize(PMD, 2));
    expect_info(2, 2, 0);
    close_world();
}

/* A host without page tables of its own says so at open. */
static void test_a_host_that_cannot_lend(void **state)
{
    struct memplug_host_ops ops;
    struct memplug_host host;
    struct memplug_config config = {.host = &host, .hvo = MEMPLUG_HVO_HOST};
    struct fake_machine *machine;
    struct memplug *pool;

    (void)state;
    must(fake_open(&(struct fake_config){.geometry = fake_geometry(FAKE_SMALL)}, &machine));
    host = *fake_host(machine);
    ops = *host.ops;
    ops.memmap_lend = NULL;
    host.ops = &ops;
    assert_int_equal(memplug_metadata_bytes(&config), 0);
    assert_int_equal(memplug_open(&config, NULL, 0, &pool, &reason), -EOPNOTSUPP);
    assert_non_null(strstr(reason.why, "cannot lend"));
    config.hvo = (enum memplug_hvo)3;
    assert_int_equal(memplug_open(&config, NULL, 0, &pool, &reason), -EINVAL);
    config.hvo = MEMPLUG_HVO_OFF;
    assert_true(memplug_metadata_bytes(&config) != 0);
    assert_int_equal(fake_close(machine, NULL, 0), 0);
}

/* --- the case that the thread asked about ----------------------------------------------------- */

/*
 * Memory is onlined movable, its memmap comes from its own altmap, huge pages are allocated, and a
 * part of their memmap is freed: frames of the altmap are used like others. Offline then neither
 * skips a frame that is used, nor hangs: whoever has one is moved first.
 */
static void test_r1_offline_with_lent_frames_in_use(void **state)
{
    unsigned slots[8], huge, nr_lent = 0;

    (void)state;
    open_world(&medium, MEMPLUG_MEMMAP_BLOCK, 1);
    must(memplug_online(world.pool, B, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(resize(PMD, 3));
    huge = alloc_huge(PMD);
    for (unsigned i = 0; i < 8; i++) {
        if (i < 4)
            must(owner_alloc(world.owner, 1, &slots[i]));
        else
            slots[i] = own(A * BLOCK_PAGES + (i < 6 ? 9 : 13) + 2 * i, 2);
        nr_lent += pfn_of(slots[i]) < A * BLOCK_PAGES + MEMMAP_PAGES;
    }
    assert_int_equal(nr_lent, 8); /* lowest address first: they are where struct pages were */
    world_check(&world);
    assert_int_equal(memplug_why(world.pool, A, &reason), 0);
    must(memplug_offline(world.pool, A, 1, NULL, &reason));
    world_check(&world); /* their content is what it was */
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(pfn_of(slots[i]) / BLOCK_PAGES, B);
    assert_int_equal(pfn_of(huge) / BLOCK_PAGES, B);
    expect_info(1, 0, 1); /* the target's memmap is lent in its turn */
    must(memplug_remove(world.pool, A * world.block_bytes, world.block_bytes, NULL, &reason));
    world_check(&world);
    must(owner_free_all(world.owner));
    must(resize(PMD, 0));
    must(memplug_offline(world.pool, B, 1, NULL, &reason));
    world_close(&world);
}

/* With a pinned page in a lent frame: refused by name, nothing has changed, and then it works. */
static void test_r1_a_pinned_page_in_a_lent_frame(void **state)
{
    unsigned slot, other;
    memplug_pfn_t pinned;

    (void)state;
    open_world(&medium, MEMPLUG_MEMMAP_BLOCK, 1);
    must(memplug_online(world.pool, B, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(resize(PMD, 3));
    alloc_huge(PMD);
    slot = own(A * BLOCK_PAGES + 26, 2);
    pinned.nr = pfn_of(slot);
    must(memplug_pin(world.pool, pinned));
    WORLD_REFUSES(&world, &reason, EBUSY, "pinned",
                  memplug_offline(world.pool, A, 1, NULL, &reason), false);
    assert_int_equal(reason.pfn.nr, pinned.nr);
    assert_string_equal(reason.owner, "owner");
    assert_int_equal(reason.owner_cookie, slot);
    assert_int_equal(memplug_why(world.pool, A, &reason), -EBUSY);
    assert_int_equal(reason.pfn.nr, pinned.nr);
    /* Others that had to move for it have moved, and nothing else has changed. */
    other = own(A * BLOCK_PAGES + 9, 1);
    WORLD_REFUSES(&world, &reason, EBUSY, "pinned",
                  memplug_offline(world.pool, A, 1, NULL, &reason), true);
    assert_int_equal(pfn_of(other) / BLOCK_PAGES, B);
    expect_info(3, 2, 3);
    /* The same for whatever would end the huge page: the others go, this one stays. */
    must(resize(PMD, 0));
    assert_int_equal(reason.error, 0);
    assert_non_null(reason.why);
    assert_int_equal(reason.pfn.nr, pinned.nr);
    expect_info(2, 1, 2);
    world_check(&world);
    must(memplug_unpin(world.pool, pinned));
    must(memplug_offline(world.pool, A, 1, NULL, &reason));
    world_check(&world);
    close_world();
}

/* --- surplus ---------------------------------------------------------------------------------- */

/* Free does not take the control lock: a surplus page whose memmap is lent waits for who has it. */
static void test_a_surplus_page_waits(void **state)
{
    unsigned slot;

    (void)state;
    open_world(&medium, MEMPLUG_MEMMAP_BLOCK, 1);
    must(resize(PMD, 1));
    slot = alloc_huge(PMD);
    must(resize(PMD, 0));
    assert_int_equal(info_of(PMD).nr_surplus, 1);
    must(owner_free(world.owner, slot));
    expect_info(1, 1, 1);
    assert_int_equal(info_of(PMD).nr_surplus, 1);
    world_check(&world);
    /* It is not handed out, nor promised. */
    assert_int_equal(owner_alloc_huge(world.owner, PMD, 0, false, NULL), -ENOMEM);
    assert_int_equal(memplug_huge_reserve(world.pool, PMD, 1), -ENOMEM);
    must(resize(PMD, 0));
    expect_info(0, 0, 0);
    /* A pool that grows has it back; an offline takes it along. */
    for (unsigned way = 0; way < 2; way++) {
        must(resize(PMD, 1));
        slot = alloc_huge(PMD);
        must(resize(PMD, 0));
        must(owner_free(world.owner, slot));
        if (way == 0) {
            must(resize(PMD, 1));
            expect_info(1, 1, 1);
            assert_int_equal(info_of(PMD).nr_surplus, 0);
            must(resize(PMD, 0));
        } else {
            must(memplug_offline(world.pool, A, 1, NULL, &reason));
            expect_info(0, 0, 0);
            assert_int_equal(info_of(PMD).nr_surplus, 0);
        }
        world_check(&world);
    }
    close_world();
}

/* --- ranges, and pages of several blocks ------------------------------------------------------ */

/* The lent frames lie at the head of the range, the huge pages anywhere in it. */
static void test_ranges(void **state)
{
    unsigned slot, huge[NR * 4], nr_huge = 0;
    uint64_t lent;

    (void)state;
    open_world(&medium, MEMPLUG_MEMMAP_RANGE, NR);
    must(memplug_online(world.pool, B, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    must(resize(PMD, NR * 4 - 1)); /* all of the range but the pageblock with the memmap */
    expect_info(NR * 4 - 1, NR * 4 - 1, NR * 4 - 1);
    world_check(&world);
    while (owner_alloc_huge(world.owner, PMD, 0, false, &huge[nr_huge]) == 0)
        nr_huge++;
    /* Frames that describe the last block, in the first block. */
    lent = A * BLOCK_PAGES + MEMMAP_PAGES * (NR - 1) + 1;
    slot = own(lent, 1);
    must(memplug_pin(world.pool, (memplug_pfn_t){lent}));
    WORLD_REFUSES(&world, &reason, EBUSY, "pinned",
                  memplug_offline(world.pool, A + NR - 1, 1, NULL, &reason), false);
    assert_int_equal(memplug_why(world.pool, A + NR - 1, &reason), -EBUSY);
    WORLD_REFUSES(&world, &reason, EBUSY, "pinned",
                  memplug_offline(world.pool, A, 1, NULL, &reason), false);
    /* That one has nothing to do with it. */
    must(memplug_offline(world.pool, A + 1, 1, NULL, &reason));
    world_check(&world);
    must(memplug_unpin(world.pool, (memplug_pfn_t){lent}));
    /* The head goes: what was lent in it comes back, for huge pages elsewhere too. */
    must(memplug_offline(world.pool, A, 1, NULL, &reason));
    assert_int_equal(pfn_of(slot) / BLOCK_PAGES >= B, 1);
    assert_int_equal(info_of(PMD).nr_huge, NR * 4 - 1);
    assert_int_equal(info_of(PMD).nr_optimized, NR * 4 - 1 - 2 * 4);
    world_check(&world);
    /* And when it comes again they are lent again. */
    must(memplug_online(world.pool, A, 1, MEMPLUG_ONLINE_MOVABLE, NULL, &reason));
    assert_int_equal(info_of(PMD).nr_optimized, NR * 4 - 1);
    world_check(&world);
    close_world();
}

#define BLOCK_64M (UINT64_C(1) << (26 - 12))

/* Blocks of 64 MiB and pageblocks of 64 pages: a PUD page is two blocks, its memmap 512 frames. */
static void test_pud_pages(void **state)
{
    static const struct world_config large = {
        .shape = FAKE_SMALL, .block_shift = 26, .hvo = MEMPLUG_HVO_ALL, .seed = 3};
    static const enum memplug_memmap memmaps[] = {MEMPLUG_MEMMAP_RANGE, MEMPLUG_MEMMAP_HOST};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        unsigned huge, slots[20];

        open_world(&large, memmaps[i], NR);
        must(memplug_online(world.pool, B, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        must(resize(PUD, 1));
        assert_int_equal(info_of(PUD).nr_optimized, 1);
        assert_int_equal(info_of(PUD).nr_lent_pages, 511);
        world_check(&world);
        huge = alloc_huge(PUD);
        for (unsigned k = 0; k < 20; k++)
            must(owner_alloc(world.owner, 1u << k % 7, &slots[k]));
        /* Huge pages never lie in lent frames. */
        must(resize(PMD, 1));
        assert_true(pfn_of(alloc_huge(PMD)) >= A * BLOCK_64M + block_info(A).nr_memmap_pages);
        world_check(&world);
        must(memplug_offline(world.pool, A + 3 - i, 1, NULL, &reason)); /* a part of it, or its
                                                                           neighbour with HOST */
        world_check(&world);
        must(memplug_offline(world.pool, A, 1, NULL, &reason));
        world_check(&world);
        assert_true(pfn_of(huge) / BLOCK_64M >= B);
        assert_int_equal(info_of(PUD).nr_huge, 1);
        assert_int_equal(info_of(PUD).nr_optimized, 1);
        close_world();
    }
}

/*
 * Blocks of one pageblock, 64 pages: a range of 1,024 of them has 16 blocks that are all memmap,
 * and a PUD page lends 511 frames of 8 of these. They are memory then, and blocks that can go.
 */
static void test_lent_frames_of_several_blocks(void **state)
{
    static const struct world_config tiny = {
        .shape = FAKE_SMALL,
        .block_shift = 18,
        .nr_blocks = 2048,
        .hvo = MEMPLUG_HVO_ALL,
        .seed = 5,
    };
    const uint64_t first = 512, nr = 1024, holder = first + 8, huge = first + 512;
    struct memplug_add add = {.memmap = MEMPLUG_MEMMAP_RANGE};
    unsigned slot;

    (void)state;
    world_open(&world, &tiny);
    add.address = first * world.block_bytes;
    add.size_bytes = nr * world.block_bytes;
    add.backing = fake_backing_open(world.machine,
                                    &(struct fake_backing_spec){.size_bytes = add.size_bytes});
    must(memplug_add(world.pool, &add, NULL, NULL));
    must(memplug_online(world.pool, first, nr, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
    assert_int_equal(block_info(holder).nr_memmap_pages, 64);
    must(resize(PUD, 1));
    assert_int_equal(info_of(PUD).nr_lent_pages, 511);
    assert_int_equal(block_info(holder).nr_free_pages, 63);
    assert_int_equal(block_info(holder + 7).nr_free_pages, 64);
    world_check(&world);
    /* An allocation over the border of two blocks, all of it in lent frames. */
    own((holder + 3) * 64, 64);
    slot = own((holder + 6) * 64 + 5, 1);
    must(memplug_pin(world.pool, (memplug_pfn_t){pfn_of(slot)}));
    for (unsigned way = 0; way < 3; way++) {
        uint64_t id = way == 0 ? holder : way == 1 ? holder + 7 : huge + 100;

        assert_int_equal(memplug_why(world.pool, id, &reason), -EBUSY);
        WORLD_REFUSES(&world, &reason, EBUSY, "pinned",
                      memplug_offline(world.pool, id, 1, NULL, &reason), true);
        assert_int_equal(reason.owner_cookie, slot);
    }
    must(memplug_unpin(world.pool, (memplug_pfn_t){pfn_of(slot)}));
    must(memplug_offline(world.pool, holder, 1, NULL, &reason));
    assert_int_equal(info_of(PUD).nr_optimized, 0);
    assert_int_equal(block_info(holder + 7).nr_free_pages, 0);
    world_check(&world);
    must(memplug_online(world.pool, holder, 1, MEMPLUG_ONLINE_MOVABLE, NULL, &reason));
    assert_int_equal(info_of(PUD).nr_optimized, 1);
    must(memplug_offline(world.pool, huge + 100, 1, NULL, &reason));
    assert_int_equal(info_of(PUD).nr_huge, 0);
    close_world();
}

/* --- vacate ----------------------------------------------------------------------------------- */

/* A frame of a huge page goes bad: its memmap comes back, then it moves. */
static void test_a_bad_frame_in_a_huge_page(void **state)
{
    for (unsigned way = 0; way < 4; way++) {
        bool used = (way & 1) != 0, pinned = (way & 2) != 0;
        memplug_pfn_t bad = {A * BLOCK_PAGES + 512 + 3}, lent = {A * BLOCK_PAGES + 9};

        (void)state;
        open_world(&medium, MEMPLUG_MEMMAP_BLOCK, 1);
        must(memplug_online(world.pool, B, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL));
        must(resize(PMD, 1));
        if (used)
            alloc_huge(PMD);
        own(lent.nr, 1);
        if (pinned) {
            must(memplug_pin(world.pool, lent));
            WORLD_REFUSES(&world, &reason, EBUSY, "pinned",
                          memplug_soft_offline(world.pool, bad, NULL, &reason), false);
            if (used)
                WORLD_REFUSES(&world, &reason, EBUSY, "pinned",
                              memplug_hard_offline(world.pool, bad, NULL, &reason), false);
            must(memplug_unpin(world.pool, lent));
        }
        must(memplug_soft_offline(world.pool, bad, NULL, &reason));
        world_check(&world);
        assert_int_equal(info_of(PMD).nr_huge, used);
        close_world();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lent_frames_are_memory_of_their_block),
        cmocka_unit_test(test_lent_frames_fill_up_first),
        cmocka_unit_test(test_a_hosts_memmap_goes_back_to_the_host),
        cmocka_unit_test(test_boot_memory),
        cmocka_unit_test(test_kernel_zones_keep_their_memmap),
        cmocka_unit_test(test_a_host_that_cannot_lend),
        cmocka_unit_test(test_r1_offline_with_lent_frames_in_use),
        cmocka_unit_test(test_r1_a_pinned_page_in_a_lent_frame),
        cmocka_unit_test(test_a_surplus_page_waits),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_pud_pages),
        cmocka_unit_test(test_lent_frames_of_several_blocks),
        cmocka_unit_test(test_a_bad_frame_in_a_huge_page),
    };

    return cmocka_run_group_tests_name("hvo", tests, NULL, NULL);
}
