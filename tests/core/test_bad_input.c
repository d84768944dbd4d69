/* SPDX-License-Identifier: MIT */
/*
 * Whatever is wrong with a request to add, online, offline or remove: the error is the documented
 * one, the sentence names what is wrong, and the whole state is what it was, byte for byte.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

#define NR WORLD_RANGE_BLOCKS
#define KIND_BLOCK MEMPLUG_MEMMAP_BLOCK
#define KIND_RANGE MEMPLUG_MEMMAP_RANGE
#define KIND_HOST MEMPLUG_MEMMAP_HOST

static struct world world;
static struct memplug_reason reason;

#define REFUSED(error, word, call) \
    WORLD_REFUSES(&world, &reason, error, word, call, false)

static void open_small(void)
{
    world_open(&world, &(struct world_config){.shape = FAKE_SMALL, .nr_nodes = 2, .seed = 7});
}

static uint64_t bytes(uint64_t nr_blocks)
{
    return nr_blocks * world.block_bytes;
}

/* Blocks [at, at + nr_blocks), with the backing's bytes from block `from` on. */
static int plug(struct fake_backing *backing, uint64_t from, uint64_t at, uint64_t nr_blocks,
                enum memplug_memmap memmap)
{
    struct memplug_add add = {
        .address = at == MEMPLUG_ANY_ADDRESS ? at : bytes(at),
        .size_bytes = bytes(nr_blocks),
        .memmap = memmap,
        .backing = backing,
        .offset_bytes = bytes(from),
    };
    struct memplug_add asked = add;
    int error = memplug_add(world.pool, &add, NULL, &reason);

    if (error != 0)
        assert_memory_equal(&add, &asked, sizeof(add));
    return error;
}

static int add_raw(uint64_t address, uint64_t size_bytes)
{
    struct memplug_add add = {.address = address, .size_bytes = size_bytes,
                              .backing = world.backing_a};

    return memplug_add(world.pool, &add, NULL, &reason);
}

static int pull(uint64_t at, uint64_t nr_blocks)
{
    return memplug_remove(world.pool, bytes(at), bytes(nr_blocks), NULL, &reason);
}

static int online(uint64_t first, uint64_t nr_blocks)
{
    return memplug_online(world.pool, first, nr_blocks, MEMPLUG_ONLINE_MOVABLE, NULL, &reason);
}

static int offline(uint64_t first, uint64_t nr_blocks)
{
    return memplug_offline(world.pool, first, nr_blocks, NULL, &reason);
}

static bool overlap(uint64_t a, uint64_t nr_a, uint64_t b, uint64_t nr_b)
{
    for (uint64_t id = a; id < a + nr_a; id++)
        if (id >= b && id < b + nr_b)
            return true;
    return false;
}

/* --- add -------------------------------------------------------------------------------------- */

static void place_beside(uint64_t at, uint64_t nr_a, enum memplug_memmap memmap)
{
    for (uint64_t nr_b = 1; nr_b <= NR; nr_b++)
        for (uint64_t b = at - nr_b - 1; b <= at + nr_a + 1; b++) {
            if (overlap(at, nr_a, b, nr_b)) {
                REFUSED(EEXIST, "overlaps", plug(world.backing_b, 0, b, nr_b, memmap));
                assert_in_range(reason.block, b > at ? b : at, b > at ? b : at);
            } else {
                must(plug(world.backing_b, 0, b, nr_b, memmap));
                must(pull(b, nr_b));
            }
        }
}

static void overlap_in_every_position(void **state)
{
    (void)state;
    open_small();
    for (uint64_t nr_a = 1; nr_a <= NR; nr_a++) {
        must(plug(world.backing_a, 0, 8, nr_a, nr_a % 2 != 0 ? KIND_BLOCK : KIND_RANGE));
        place_beside(8, nr_a, nr_a < 3 ? KIND_HOST : KIND_BLOCK);
        must(pull(8, nr_a));
    }
    /* An overlap is one in every state of the block. */
    must(plug(world.backing_a, 0, 8, 1, KIND_BLOCK));
    must(online(8, 1));
    REFUSED(EEXIST, "block 8", plug(world.backing_b, 0, 6, 4, KIND_RANGE));
    world_close(&world);
}

static void same_bytes_twice(void **state)
{
    struct fake_backing *other_name;

    (void)state;
    open_small();
    other_name = fake_backing_open(world.machine,
                                   &(struct fake_backing_spec){.size_bytes = bytes(3),
                                                               .same_as = world.backing_a,
                                                               .same_offset = bytes(1)});
    assert_non_null(other_name);
    must(plug(world.backing_a, 1, 20, 2, KIND_BLOCK)); /* bytes of blocks 1 and 2 */
    for (uint64_t nr = 1; nr <= NR; nr++)
        for (uint64_t from = 0; from + nr <= NR; from++)
            for (unsigned kind = KIND_BLOCK; kind <= KIND_HOST; kind++) {
                if (overlap(1, 2, from, nr)) {
                    REFUSED(EEXIST, "these bytes of the backing",
                            plug(world.backing_a, from, 40, nr, kind));
                } else {
                    must(plug(world.backing_a, from, 40, nr, kind));
                    must(pull(40, nr));
                }
            }
    REFUSED(EEXIST, "these bytes of the backing", plug(other_name, 1, 40, 2, KIND_BLOCK));
    must(plug(other_name, 2, 40, 1, KIND_BLOCK));
    REFUSED(EEXIST, "these bytes of the backing", plug(world.backing_a, 3, 41, 1, KIND_BLOCK));
    must(pull(40, 1));
    must(pull(20, 2));
    fake_backing_close(other_name);
    world_close(&world);
}

static void busy_short_unmappable(void **state)
{
    (void)state;
    open_small();
    must(plug(world.backing_b, 0, 30, 1, KIND_BLOCK));
    for (unsigned kind = MEMPLUG_MEMMAP_AUTO; kind <= KIND_HOST; kind++) {
        fake_backing_set_busy(world.backing_a, true);
        REFUSED(EBUSY, "another process", plug(world.backing_a, 0, 8, NR, kind));
        fake_backing_set_busy(world.backing_a, false);
        fake_backing_set_unmappable(world.backing_a, true);
        REFUSED(ENODEV, "cannot map the backing", plug(world.backing_a, 0, 8, NR, kind));
        fake_backing_set_unmappable(world.backing_a, false);
        /* Too short by the last block, by all of them, and far away. */
        REFUSED(ENXIO, "too short", plug(world.backing_a, 1, 8, NR, kind));
        REFUSED(ENXIO, "too short", plug(world.backing_a, NR, 8, 1, kind));
        REFUSED(ENXIO, "too short", plug(world.backing_a, (uint64_t)1 << 40, 8, 1, kind));
    }
    must(plug(world.backing_a, 0, 8, NR, KIND_BLOCK));
    world_close(&world);
}

/* Whoever reads "not a multiple" wants to know which value was meant: both stand there. */
static void odd_value(uint64_t address, uint64_t size_bytes)
{
    char word[96];

    snprintf(word, sizeof(word), "address 0x%" PRIx64 " and size 0x%" PRIx64, address, size_bytes);
    REFUSED(EINVAL, word, add_raw(address, size_bytes));
    assert_non_null(strstr(reason.why, "multiple of the block"));
    assert_int_equal(reason.unit_bytes, world.block_bytes);
    REFUSED(EINVAL, word, memplug_remove(world.pool, address, size_bytes, NULL, &reason));
}

static void not_whole_blocks(void **state)
{
    uint64_t block;

    (void)state;
    open_small();
    block = world.block_bytes;
    must(plug(world.backing_b, 0, 8, 2, KIND_BLOCK));
    odd_value(0, block);
    odd_value(0, 0);
    odd_value(8 * block, 0);
    for (uint64_t off = 1; off < block; off *= 2) {
        odd_value(8 * block + off, block);
        odd_value(8 * block, off);
        odd_value(8 * block - off, 2 * block);
        odd_value(8 * block, 2 * block - off);
        odd_value(8 * block + off, 2 * block + off);
    }
    odd_value(block, UINT64_MAX);
    odd_value(UINT64_MAX - 1, block);
    REFUSED(EINVAL, "size 0x1", add_raw(MEMPLUG_ANY_ADDRESS, 1));
    REFUSED(EINVAL, "size", add_raw(MEMPLUG_ANY_ADDRESS, UINT64_MAX));
    REFUSED(EINVAL, "no address", memplug_remove(world.pool, MEMPLUG_ANY_ADDRESS, block, NULL,
                                                 &reason));
    REFUSED(EINVAL, "multiple of the block",
            memplug_memmap_supported(world.pool, block + 4096, KIND_HOST, world.backing_a,
                                     &reason));
    REFUSED(EINVAL, "multiple of the block",
            memplug_memmap_supported(world.pool, 0, KIND_HOST, world.backing_a, &reason));
    world_close(&world);
}

static void beyond_the_limit(void **state)
{
    uint64_t limit, block;

    (void)state;
    open_small();
    limit = world.geometry.address_limit;
    block = world.block_bytes;
    for (uint64_t nr_there = 0; nr_there < 3; nr_there++) {
        const uint64_t requests[][2] = {
            {limit, block}, {limit - block, 2 * block}, {block, limit},
            /* sums that wrap round, to something small or to nothing */
            {0 - block, block}, {0 - block, 2 * block}, {block, 0 - block},
            {2 * block, 0 - block}, {(uint64_t)1 << 63, (uint64_t)1 << 63},
        };

        if (nr_there != 0)
            must(plug(world.backing_b, 0, 64 - nr_there, nr_there, KIND_BLOCK));
        for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
            REFUSED(E2BIG, "beyond the address limit", add_raw(requests[i][0], requests[i][1]));
            REFUSED(E2BIG, "beyond the address limit",
                    memplug_remove(world.pool, requests[i][0], requests[i][1], NULL, &reason));
        }
        if (nr_there != 0)
            must(pull(64 - nr_there, nr_there));
    }
    REFUSED(E2BIG, "no free addresses", add_raw(MEMPLUG_ANY_ADDRESS, 0 - block));
    REFUSED(E2BIG, "no free addresses", add_raw(MEMPLUG_ANY_ADDRESS, limit));
    world_close(&world);
}

/* Block 0 is never given: 63 of 64 fill the window. */
static void window_is_full(void **state)
{
    struct fake_backing *big;
    uint64_t nr_max;

    (void)state;
    open_small();
    nr_max = memplug_nr_blocks_max(world.pool) - 1;
    big = fake_backing_open(world.machine,
                            &(struct fake_backing_spec){.size_bytes = bytes(nr_max)});
    assert_non_null(big);
    REFUSED(E2BIG, "no free addresses", plug(big, 0, MEMPLUG_ANY_ADDRESS, nr_max + 1, KIND_BLOCK));
    must(plug(big, 0, MEMPLUG_ANY_ADDRESS, nr_max, KIND_BLOCK));
    REFUSED(E2BIG, "no free addresses", plug(world.backing_a, 0, MEMPLUG_ANY_ADDRESS, 1,
                                             KIND_BLOCK));
    for (uint64_t id = 1; id <= nr_max; id += 2)
        must(pull(id, 1));
    REFUSED(E2BIG, "no free addresses", plug(world.backing_a, 0, MEMPLUG_ANY_ADDRESS, 2,
                                             KIND_RANGE));
    must(pull(20, 1));
    must(plug(world.backing_a, 0, MEMPLUG_ANY_ADDRESS, 3, KIND_RANGE));
    REFUSED(EEXIST, "block 21", plug(world.backing_b, 0, 21, 2, KIND_HOST));
    must(pull(19, 3));
    for (uint64_t id = 1; id <= nr_max; id++)
        if (id % 2 == 0 && id != 20)
            must(pull(id, 1));
    fake_backing_close(big);
    world_close(&world);
}

static void unknown_node_offset_placement(void **state)
{
    static const int nodes[] = {-1, 2, 63, 64, 65536, 65537, INT_MAX, INT_MIN};

    (void)state;
    open_small();
    for (unsigned i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
        struct memplug_add add = {.address = bytes(4), .size_bytes = bytes(1),
                                  .backing = world.backing_a, .node = nodes[i]};

        REFUSED(EINVAL, "no such node", memplug_add(world.pool, &add, NULL, &reason));
        assert_int_equal(reason.node, nodes[i]);
    }
    for (unsigned kind = KIND_HOST + 1; kind != 0; kind *= 2)
        REFUSED(EINVAL, "no such placement", plug(world.backing_a, 0, 4, 1, kind));
    for (uint64_t nr = 1; nr < 3; nr++) {
        struct memplug_add add = {.address = bytes(4), .size_bytes = bytes(nr),
                                  .backing = world.backing_a,
                                  .offset_bytes = 0 - bytes(2)};

        if (nr == 1)
            REFUSED(ENXIO, "too short", memplug_add(world.pool, &add, NULL, &reason));
        else
            REFUSED(EINVAL, "offset", memplug_add(world.pool, &add, NULL, &reason));
    }
    world_close(&world);
}

/* --- a memmap that cannot be ------------------------------------------------------------------ */

static void supported_is_what_add_says(struct fake_backing *backing, uint64_t nr_blocks)
{
    for (unsigned kind = KIND_BLOCK; kind <= KIND_HOST; kind++) {
        const char *why;

        if (memplug_memmap_supported(world.pool, bytes(nr_blocks), kind, backing, &reason) == 0) {
            must(plug(backing, 0, 4, nr_blocks, kind));
            must(pull(4, nr_blocks));
            continue;
        }
        why = reason.why;
        REFUSED(EINVAL, why, plug(backing, 0, 4, nr_blocks, kind));
        assert_true(reason.unit_bytes != 0 && reason.size_bytes != 0);
    }
}

/* Blocks of 256 pages: 40, 56 and 72 bytes a page are no whole pages, 2 blocks are. */
static void memmap_of_odd_size(void **state)
{
    static const uint8_t sizes[] = {32, 40, 48, 56, 64, 72, 80, 104, 128};

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes); i++) {
        bool whole = sizes[i] % 16 == 0;

        world_open(&world, &(struct world_config){.shape = FAKE_SMALL,
                                                  .page_struct_bytes = sizes[i]});
        for (uint64_t nr = 1; nr <= NR; nr++)
            supported_is_what_add_says(world.backing_a, nr);
        if (whole) {
            must(plug(world.backing_a, 0, 4, 1, KIND_BLOCK));
            must(pull(4, 1));
        } else {
            REFUSED(EINVAL, "not whole pages", plug(world.backing_a, 0, 4, 2, KIND_BLOCK));
            REFUSED(EINVAL, "not whole pages", plug(world.backing_a, 0, 4, 2, KIND_HOST));
            REFUSED(EINVAL, "not whole pages", plug(world.backing_a, 0, 4, 3, KIND_RANGE));
            REFUSED(EINVAL, "not whole pages", plug(world.backing_a, 0, 4, 2,
                                                    MEMPLUG_MEMMAP_AUTO));
            REFUSED(EINVAL, "would not begin", plug(world.backing_a, 0, 5, 2, KIND_RANGE));
            must(plug(world.backing_a, 0, 4, 2, KIND_RANGE));
            must(pull(4, 2));
        }
        world_close(&world);
    }
}

/* A backing of huge pages under a small memmap: a demand fails, a hint falls back and says so. */
static void a_hint_falls_back(void **state)
{
    struct memplug_add add = {.memmap = MEMPLUG_MEMMAP_AUTO};
    struct memplug_block_info info;
    struct fake_backing *huge;

    (void)state;
    open_small();
    huge = fake_backing_open(world.machine, &(struct fake_backing_spec){
                                                .size_bytes = bytes(NR), .alignment = 1u << 16});
    assert_non_null(huge);
    REFUSED(EINVAL, "alignment of the backing", plug(huge, 0, 4, 1, KIND_BLOCK));
    REFUSED(EINVAL, "alignment of the backing", plug(huge, 0, 4, 3, KIND_RANGE));
    REFUSED(EINVAL, "would not begin", plug(huge, 0, 5, 4, KIND_RANGE));
    supported_is_what_add_says(huge, 4);
    add.address = bytes(4);
    add.size_bytes = bytes(2);
    add.backing = huge;
    must(memplug_add(world.pool, &add, NULL, &reason));
    assert_int_equal(add.memmap, KIND_HOST);
    must(memplug_block_info(world.pool, 5, &info));
    assert_true(info.memmap == KIND_HOST && info.nr_memmap_pages == 0);
    assert_int_equal(info.unit_nr_blocks, 1);
    must(pull(4, 2));
    /* A memmap of 4 pages shares a pageblock with data: only a padded one is taken unasked. */
    add.backing = world.backing_a;
    add.memmap = MEMPLUG_MEMMAP_AUTO;
    must(memplug_add(world.pool, &add, NULL, &reason));
    assert_int_equal(add.memmap, KIND_HOST);
    must(pull(4, 2));
    add.memmap = MEMPLUG_MEMMAP_AUTO;
    add.pad_memmap = true;
    must(memplug_add(world.pool, &add, NULL, &reason));
    assert_int_equal(add.memmap, KIND_BLOCK);
    must(pull(4, 2));
    fake_backing_close(huge);
    world_close(&world);
}

/* --- online and offline ----------------------------------------------------------------------- */

static void no_such_block(void **state)
{
    struct memplug_block_info info;
    uint64_t absent[] = {0, 3, 8, 0, 0x100000000, UINT64_MAX, UINT64_MAX - 1};

    (void)state;
    open_small();
    absent[3] = memplug_nr_blocks_max(world.pool);
    must(plug(world.backing_a, 0, 4, NR, KIND_BLOCK)); /* 4 to 7 */
    for (unsigned i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        REFUSED(ENODEV, "no such block", online(absent[i], 1));
        assert_true(reason.block == (absent[i] <= INT64_MAX ? (int64_t)absent[i] : -1));
        REFUSED(ENODEV, "no such block", offline(absent[i], 1));
        REFUSED(ENODEV, "no such block", memplug_why(world.pool, absent[i], &reason));
        assert_int_equal(memplug_block_info(world.pool, absent[i], &info), -ENODEV);
    }
    REFUSED(ENODEV, "block 8: ", online(4, 5));
    REFUSED(ENODEV, "block 3: ", online(3, 2));
    REFUSED(ENODEV, "no such block", online(4, UINT64_MAX));
    REFUSED(ENODEV, "no such block", online(UINT64_MAX, 2)); /* not block 0 */
    REFUSED(EINVAL, "no block", online(4, 0));
    REFUSED(EINVAL, "no block", offline(4, 0));
    must(online(4, NR));
    REFUSED(ENODEV, "block 8: ", offline(5, 4));
    REFUSED(ENODEV, "block 3: ", offline(3, 4));
    REFUSED(ENODEV, "block 8: ", offline(4, UINT64_MAX));
    world_close(&world);
}

/* Linux: any online word on an online block, offline on an offline one. */
static void not_in_that_state(void **state)
{
    (void)state;
    open_small();
    must(plug(world.backing_a, 0, 4, NR, KIND_BLOCK));
    REFUSED(EINVAL, "block 4: the block is not online", offline(4, NR));
    REFUSED(EINVAL, "not online", memplug_why(world.pool, 4, &reason));
    for (unsigned type = MEMPLUG_ONLINE_MOVABLE + 1; type != 0; type *= 2)
        REFUSED(EINVAL, "no such online type",
                memplug_online(world.pool, 4, 1, type, NULL, &reason));
    must(online(6, 1));
    world_fill(&world, 6, 1, 30);
    for (unsigned type = MEMPLUG_ONLINE_DEFAULT; type <= MEMPLUG_ONLINE_MOVABLE; type++) {
        REFUSED(EINVAL, "block 6: the block is not offline",
                memplug_online(world.pool, 6, 1, type, NULL, &reason));
        REFUSED(EINVAL, "block 6: the block is not offline",
                memplug_online(world.pool, 4, NR, type, NULL, &reason));
    }
    REFUSED(EINVAL, "block 7: the block is not online", offline(6, 2));
    REFUSED(EINVAL, "block 5: the block is not online", offline(5, 2));
    world_close(&world);
}

/* --- remove and close ------------------------------------------------------------------------- */

static void remove_online(enum memplug_memmap memmap)
{
    open_small();
    must(plug(world.backing_a, 0, 4, NR, memmap));
    for (uint64_t id = 4; id < 4 + NR; id++) {
        must(online(id, 1));
        REFUSED(EBUSY, "a block is online", pull(4, NR));
        assert_int_equal(reason.block, id);
        REFUSED(EBUSY, "block 4: ", memplug_close(world.pool, &reason));
        must(offline(id, 1));
    }
    REFUSED(EBUSY, "block 4: ", memplug_close(world.pool, &reason));
    must(pull(4, NR));
    REFUSED(ENODEV, "there is no such block", pull(4, NR));
    assert_int_equal(reason.block, 4);
    world_close(&world);
}

static void remove_while_online(void **state)
{
    (void)state;
    remove_online(KIND_BLOCK);
    remove_online(KIND_RANGE);
    remove_online(KIND_HOST);
}

/* By runs of blocks, which name no address. */
static void remove_block_0(void **state)
{
    const struct memplug_blocks run = {.first = 0, .nr_blocks = 1};

    (void)state;
    open_small();
    REFUSED(EINVAL, "block 0", memplug_remove_blocks(world.pool, &run, 1, true, NULL, &reason));
    world_close(&world);
}

static void remove_what_is_not_there(void **state)
{
    (void)state;
    open_small();
    must(plug(world.backing_a, 0, 4, NR, KIND_BLOCK));
    REFUSED(ENODEV, "block 3: ", pull(3, 1 + NR));
    REFUSED(ENODEV, "block 8: ", pull(4, NR + 1));
    REFUSED(ENODEV, "block 8: ", pull(7, 57));
    must(pull(5, 1));
    REFUSED(ENODEV, "block 5: ", pull(4, NR));
    REFUSED(ENODEV, "block 0: ", online(0, 1));
    world_close(&world);
}

/* The walk looks at all blocks of the range, whatever the first one is. */
static void remove_in_another_granularity(void **state)
{
    static const struct {
        enum memplug_memmap first, second;
    } mixed[] = {{KIND_HOST, KIND_BLOCK}, {KIND_BLOCK, KIND_HOST},
                 {KIND_HOST, KIND_RANGE}, {KIND_RANGE, KIND_HOST}};

    (void)state;
    open_small();
    for (unsigned i = 0; i < sizeof(mixed) / sizeof(mixed[0]); i++) {
        must(plug(world.backing_a, 0, 4, 2, mixed[i].first));
        must(plug(world.backing_b, 0, 6, 2, mixed[i].second));
        REFUSED(EINVAL, "the range has blocks with and without", pull(4, 4));
        assert_int_equal(reason.block, 6);
        REFUSED(EINVAL, "the range", pull(5, 2));
        REFUSED(EINVAL, "the range", pull(4, 3));
        REFUSED(EINVAL, "the range", pull(5, 3));
        must(pull(4, 2));
        must(pull(6, 2));
    }
    world_close(&world);
}

static void remove_a_part_of_a_range(void **state)
{
    (void)state;
    open_small();
    must(plug(world.backing_a, 0, 4, NR, KIND_RANGE));
    must(plug(world.backing_b, 0, 8, 2, KIND_BLOCK));
    for (uint64_t at = 4; at < 4 + NR; at++)
        for (uint64_t nr = 1; at + nr <= 4 + NR; nr++)
            if (nr != NR)
                REFUSED(EINVAL, "added as one with a larger one", pull(at, nr));
    REFUSED(EINVAL, "added as one", pull(7, 2));
    REFUSED(EINVAL, "added as one", pull(5, 5));
    must(online(5, 1)); /* what is cut is said before what is online */
    REFUSED(EINVAL, "added as one", pull(5, 1));
    REFUSED(EBUSY, "block 5: ", pull(4, NR));
    must(offline(5, 1));
    /* Two neighbours with memmaps of their own go together; each block goes alone. */
    must(pull(9, 1));
    must(pull(4, NR + 1));
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlap_in_every_position),
        cmocka_unit_test(same_bytes_twice),
        cmocka_unit_test(busy_short_unmappable),
        cmocka_unit_test(not_whole_blocks),
        cmocka_unit_test(beyond_the_limit),
        cmocka_unit_test(window_is_full),
        cmocka_unit_test(unknown_node_offset_placement),
        cmocka_unit_test(memmap_of_odd_size),
        cmocka_unit_test(a_hint_falls_back),
        cmocka_unit_test(no_such_block),
        cmocka_unit_test(not_in_that_state),
        cmocka_unit_test(remove_while_online),
        cmocka_unit_test(remove_block_0),
        cmocka_unit_test(remove_what_is_not_there),
        cmocka_unit_test(remove_in_another_granularity),
        cmocka_unit_test(remove_a_part_of_a_range),
    };

    return cmocka_run_group_tests_name("bad input", tests, NULL, NULL);
}
