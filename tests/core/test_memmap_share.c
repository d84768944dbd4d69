/* SPDX-License-Identifier: MIT */
/*
 * Large units of the memmap window in which the memmaps of several blocks lie. Blocks of 256 MiB
 * with 56 bytes a page have memmaps of 3.5 units of 1 MiB: an even block and the next one meet in
 * the middle of a unit. With 16 KiB pages 64 blocks lie in one unit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fake/fake.h"
#include "state/state.h"
#include "steps.h"
#include "toy_host.h"

#define MIB (UINT64_C(1) << 20)
#define HOST MEMPLUG_MEMMAP_HOST

static struct memplug_geometry shape(enum fake_shape which, unsigned struct_bytes)
{
    struct memplug_geometry g = fake_geometry(which);

    g.page_struct_bytes = (uint8_t)struct_bytes;
    return g;
}

static int add(struct toy_host *toy, uint64_t first, uint64_t nr_blocks,
               enum memplug_memmap memmap)
{
    toy->nr_calls = 0;
    return toy_add(toy, first, nr_blocks, memmap, 0);
}

static void remove_blocks(struct toy_host *toy, uint64_t first, uint64_t nr_blocks)
{
    toy->nr_calls = 0;
    assert_int_equal(memplug_remove(toy->pool, first << toy->host.geometry.block_shift,
                                    nr_blocks << toy->host.geometry.block_shift, NULL, NULL),
                     0);
}

static void check(struct toy_host *toy)
{
    struct memplug_reason reason;

    if (memplug_check(toy->pool, &reason) != 0)
        fail_msg("block %d: %s", (int)reason.block, reason.why);
}

/* How often the window was provided, or unmapped, at this offset in this unit. */
static unsigned nr_mapped(const struct toy_host *toy, enum toy_operation operation,
                          uint64_t offset, uint64_t unit_bytes)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < toy->nr_calls; i++)
        nr += toy->calls[i].operation == operation && toy->calls[i].unit_bytes == unit_bytes &&
              offset - toy->calls[i].offset < toy->calls[i].size_bytes;
    return nr;
}

static uint64_t memmap_bytes(const struct toy_host *toy)
{
    uint64_t nr_blocks = 0;

    for (uint64_t id = 0; id < toy->pool->nr_blocks_max; id++)
        nr_blocks += toy->pool->blocks[id].bitmaps_from_host;
    return toy->pool->host_bytes - nr_blocks * toy->pool->layout.bytes;
}

/* --- two blocks ------------------------------------------------------------------------------- */

static void test_blocks_of_one_add_share(void **state)
{
    struct memplug_geometry g = shape(FAKE_S390X, 56);
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(add(&toy, 2, 2, HOST), 0);
    assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 10 * MIB, MIB), 1);
    for (uint64_t at = 7 * MIB; at < 14 * MIB; at += 4096)
        assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, at, MIB), 1);
    assert_int_equal(memmap_bytes(&toy), 7 * MIB);
    assert_true(!toy.pool->blocks[2].shares[MPL_END_HEAD]);
    assert_true(toy.pool->blocks[2].shares[MPL_END_TAIL]);
    assert_true(toy.pool->blocks[3].shares[MPL_END_HEAD]);
    assert_true(!toy.pool->blocks[3].shares[MPL_END_TAIL]);
    check(&toy);
    /* The first to go leaves it, the last gives it back; in whichever order. */
    for (uint64_t first = 2; first <= 3; first++) {
        remove_blocks(&toy, first, 1);
        assert_int_equal(nr_mapped(&toy, TOY_UNMAP, 10 * MIB, MIB), 0);
        assert_int_equal(memmap_bytes(&toy), 4 * MIB);
        check(&toy);
        remove_blocks(&toy, 5 - first, 1);
        assert_int_equal(nr_mapped(&toy, TOY_UNMAP, 10 * MIB, MIB), 1);
        assert_int_equal(memmap_bytes(&toy), 0);
        assert_int_equal(add(&toy, 2, 2, HOST), 0);
    }
    remove_blocks(&toy, 2, 2);
    assert_int_equal(nr_mapped(&toy, TOY_UNMAP, 10 * MIB, MIB), 1);
    toy_close(&toy);
}

static void test_who_comes_back_joins(void **state)
{
    struct memplug_geometry g = shape(FAKE_S390X, 56);
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (uint64_t gone = 2; gone <= 3; gone++) {
        assert_int_equal(add(&toy, 2, 2, HOST), 0);
        remove_blocks(&toy, gone, 1);
        assert_int_equal(add(&toy, gone, 1, HOST), 0);
        assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 10 * MIB, MIB), 0);
        assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 10 * MIB, 4096), 0);
        assert_int_equal(memmap_bytes(&toy), 7 * MIB);
        check(&toy);
        remove_blocks(&toy, 2, 2);
        assert_int_equal(nr_mapped(&toy, TOY_UNMAP, 10 * MIB, MIB), 1);
    }
    toy_close(&toy);
}

/* One after the other, they must be able to be anything: base pages, and nothing over a block that
 * is not there. */
static void test_blocks_of_two_adds_do_not_share(void **state)
{
    struct memplug_geometry g = shape(FAKE_S390X, 56);
    struct toy_host toy;

    (void)state;
    for (unsigned order = 0; order < 2; order++) {
        toy_open(&toy, &g, 1, NULL);
        assert_int_equal(add(&toy, 2 + order, 1, HOST), 0);
        assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 10 * MIB, MIB), 0);
        assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, order == 0 ? 10 * MIB : 11 * MIB - 1, 4096),
                         1);
        assert_int_equal(memmap_bytes(&toy), 7 * MIB / 2);
        assert_int_equal(add(&toy, 3 - order, 1, MEMPLUG_MEMMAP_BLOCK), 0);
        check(&toy);
        remove_blocks(&toy, 3 - order, 1);
        assert_int_equal(add(&toy, 3 - order, 1, HOST), 0);
        assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 10 * MIB, MIB), 0);
        assert_true(!toy.pool->blocks[2].shares[MPL_END_TAIL]);
        assert_int_equal(memmap_bytes(&toy), 7 * MIB);
        check(&toy);
        toy_empty(&toy);
    }
}

/* --- a hole ----------------------------------------------------------------------------------- */

static void test_a_demand_in_a_hole_is_refused(void **state)
{
    struct memplug_geometry g = shape(FAKE_S390X, 56);
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(add(&toy, 2, 2, HOST), 0);
    remove_blocks(&toy, 3, 1);
    for (unsigned range = 0; range < 2; range++) {
        struct memplug_add request = {
            .address = UINT64_C(3) << 28,
            .size_bytes = UINT64_C(2) << 28,
            .memmap = range != 0 ? MEMPLUG_MEMMAP_RANGE : MEMPLUG_MEMMAP_BLOCK,
            .backing = &toy,
        };
        struct memplug_reason reason;

        toy.nr_calls = 0;
        assert_int_equal(memplug_add(toy.pool, &request, NULL, &reason), -MPL_EBUSY);
        assert_string_equal(reason.why,
                            "the memmap would lie in a large unit that neighbours share");
        assert_int_equal(reason.block, 2);
        assert_int_equal(toy.nr_calls, 0);
        /* Elsewhere it may be; so "anywhere" passes over the hole. */
        request.address = MEMPLUG_ANY_ADDRESS;
        assert_int_equal(memplug_add(toy.pool, &request, NULL, &reason), 0);
        assert_int_equal(request.address, UINT64_C(4) << 28);
        remove_blocks(&toy, 4, 2);
    }
    /* Once the neighbour has gone, anything can be there. */
    remove_blocks(&toy, 2, 1);
    assert_int_equal(add(&toy, 3, 1, MEMPLUG_MEMMAP_BLOCK), 0);
    toy_empty(&toy);
}

static void test_a_hint_in_a_hole_joins(void **state)
{
    struct memplug_geometry g = shape(FAKE_S390X, 56);
    struct memplug_add request = {
        .address = UINT64_C(3) << 28,
        .size_bytes = UINT64_C(1) << 28,
        .memmap = MEMPLUG_MEMMAP_AUTO,
        .pad_memmap = true, /* else it would be a memmap of the host's anywhere */
    };
    struct memplug_reason reason;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(add(&toy, 2, 2, HOST), 0);
    remove_blocks(&toy, 3, 1);
    assert_int_equal(memplug_add(toy.pool, &request, NULL, &reason), 0);
    assert_int_equal(request.memmap, HOST);
    assert_int_equal(reason.error, 0);
    assert_true(toy.pool->blocks[3].shares[MPL_END_HEAD]);
    check(&toy);
    /* Where there is room it remains what it is a hint for. */
    request.address = MEMPLUG_ANY_ADDRESS;
    request.memmap = MEMPLUG_MEMMAP_AUTO;
    assert_int_equal(memplug_add(toy.pool, &request, NULL, &reason), 0);
    assert_int_equal(request.memmap, MEMPLUG_MEMMAP_BLOCK);
    toy_empty(&toy);
}

/* All addresses but those in the hole are taken. */
static void test_a_hint_anywhere_takes_the_last_hole(void **state)
{
    struct memplug_geometry g = shape(FAKE_S390X, 56);
    struct memplug_add request = {
        .address = MEMPLUG_ANY_ADDRESS,
        .size_bytes = UINT64_C(1) << 28,
        .memmap = MEMPLUG_MEMMAP_BLOCK,
    };
    struct memplug_reason reason;
    struct toy_host toy;

    (void)state;
    g.address_limit = UINT64_C(6) << 28;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(add(&toy, 1, 5, HOST), 0);
    remove_blocks(&toy, 4, 1);
    assert_int_equal(memplug_add(toy.pool, &request, NULL, &reason), -MPL_E2BIG);
    request.memmap = MEMPLUG_MEMMAP_AUTO;
    request.pad_memmap = true;
    assert_int_equal(memplug_add(toy.pool, &request, NULL, &reason), 0);
    assert_int_equal(request.memmap, HOST);
    assert_int_equal(request.address, UINT64_C(4) << 28);
    check(&toy);
    toy_empty(&toy);
}

/* --- many blocks in a unit -------------------------------------------------------------------- */

static void test_blocks_inside_one_unit(void **state)
{
    struct memplug_geometry g = shape(FAKE_ARM64_16K, 64);
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    /* 63 of the 64 are not enough; nor are they when the last one follows. */
    assert_int_equal(add(&toy, 65, 63, HOST), 0);
    assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 33 * MIB, 32 * MIB), 0);
    assert_int_equal(add(&toy, 64, 1, HOST), 0);
    assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 32 * MIB, 16384), 1);
    remove_blocks(&toy, 64, 64);
    assert_int_equal(add(&toy, 64, 64, HOST), 0);
    assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 32 * MIB, 32 * MIB), 1);
    assert_int_equal(memmap_bytes(&toy), 32 * MIB);
    check(&toy);
    remove_blocks(&toy, 64, 30);
    remove_blocks(&toy, 95, 33);
    assert_int_equal(memmap_bytes(&toy), 32 * MIB);
    assert_int_equal(add(&toy, 80, 1, MEMPLUG_MEMMAP_BLOCK), -MPL_EBUSY);
    assert_int_equal(add(&toy, 80, 2, HOST), 0);
    assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, 40 * MIB, 32 * MIB), 0);
    check(&toy);
    remove_blocks(&toy, 94, 1);
    remove_blocks(&toy, 80, 1);
    assert_int_equal(nr_mapped(&toy, TOY_UNMAP, 40 * MIB, 32 * MIB), 0);
    remove_blocks(&toy, 81, 1);
    assert_int_equal(nr_mapped(&toy, TOY_UNMAP, 40 * MIB, 32 * MIB), 1);
    assert_int_equal(memmap_bytes(&toy), 0);
    toy_close(&toy);
}

/* Block 0 can never be added, and behind the last block there is no window: pages there. */
static void test_no_unit_beyond_the_window(void **state)
{
    struct memplug_geometry g = shape(FAKE_ARM64_16K, 64);
    struct toy_host toy;

    (void)state;
    g.address_limit = UINT64_C(100) << 27;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(add(&toy, 1, 99, HOST), 0);
    for (uint64_t at = MIB; at < 50 * MIB; at += MIB)
        assert_int_equal(nr_mapped(&toy, TOY_PROVIDE, at, 16384), 1);
    check(&toy);
    remove_blocks(&toy, 1, 99);
    toy_close(&toy);
}

/* 64 KiB pages: a table maps 512 MiB. Not even where all that it describes comes at once. */
static void test_no_unit_of_512_mib(void **state)
{
    static const enum memplug_memmap modes[] = {MEMPLUG_MEMMAP_RANGE, HOST};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct memplug_geometry g = shape(FAKE_ARM64_64K, 64);
        struct toy_host toy;

        g.section_shift = g.block_shift = 36;
        g.address_limit = UINT64_C(32) << 36;
        toy_open(&toy, &g, 1, NULL);
        assert_int_equal(add(&toy, 8, 16, modes[i]), 0);
        for (unsigned k = 0; k < toy.nr_calls; k++)
            if (toy.calls[k].operation == TOY_ALIAS || toy.calls[k].operation == TOY_PROVIDE)
                assert_int_equal(toy.calls[k].unit_bytes, 65536);
        toy_empty(&toy);
    }
}

/* --- any machine ------------------------------------------------------------------------------ */

/* Whatever is added next to what, whatever a large unit maps is mapped by nobody else: so nobody's
 * memmap goes when a neighbour does. */
static void check_neighbours(unsigned struct_bytes, enum memplug_memmap memmap)
{
    struct memplug_geometry g = shape(FAKE_X86, struct_bytes);
    uint64_t covered[32] = {0}, large_bytes = UINT64_C(1) << g.large_shift;
    struct toy_host toy;

    g.address_limit = UINT64_C(16) << 27;
    toy_open(&toy, &g, 1, NULL);
    for (uint64_t first = 1; first < 14; first += 1 + first % 2) {
        assert_int_equal(add(&toy, first, 1 + first % 2, memmap), 0);
        for (unsigned i = 0; i < toy.nr_calls; i++) {
            const struct toy_call *call = &toy.calls[i];

            if (call->operation != TOY_ALIAS && call->operation != TOY_PROVIDE)
                continue;
            /* A large unit is covered once by a large mapping, or by pages: count its bytes. */
            for (uint64_t at = call->offset; at < call->offset + call->size_bytes; at += 4096) {
                assert_true(at / large_bytes < 32);
                if (call->unit_bytes == large_bytes)
                    assert_true(covered[at / large_bytes] == at % large_bytes);
                covered[at / large_bytes] += 4096;
                assert_true(covered[at / large_bytes] <= large_bytes);
            }
        }
    }
    toy_empty(&toy);
}

static void test_no_large_unit_is_mapped_twice(void **state)
{
    static const enum memplug_memmap modes[] = {MEMPLUG_MEMMAP_BLOCK, MEMPLUG_MEMMAP_RANGE, HOST};

    (void)state;
    for (unsigned struct_bytes = 32; struct_bytes <= 128; struct_bytes += 8)
        for (unsigned mode = 0; mode < 3; mode++)
            check_neighbours(struct_bytes, modes[mode]);
}

/* A memmap that is not whole pages: on which machine, of how many blocks? The reason says how many
 * bytes it would have. */
static void test_a_memmap_of_half_pages_is_refused_everywhere(void **state)
{
    unsigned nr_refused = 0;

    (void)state;
    for (unsigned which = FAKE_X86; which <= FAKE_PPC64; which++)
        for (unsigned struct_bytes = 32; struct_bytes <= 128; struct_bytes += 8)
            for (uint64_t nr_blocks = 1; nr_blocks <= 4; nr_blocks++) {
                struct memplug_geometry g = shape((enum fake_shape)which, struct_bytes);
                uint64_t page_bytes = UINT64_C(1) << g.page_shift;
                uint64_t size_bytes = (nr_blocks << g.block_shift) / page_bytes * struct_bytes;
                struct memplug_reason reason;
                struct toy_host toy;
                int error;

                g.address_limit = UINT64_C(16) << g.block_shift;
                toy_open(&toy, &g, 1, NULL);
                error = memplug_memmap_supported(toy.pool, nr_blocks << g.block_shift,
                                                 MEMPLUG_MEMMAP_RANGE, &toy, &reason);
                if (size_bytes % page_bytes != 0) {
                    assert_int_equal(error, -MPL_EINVAL);
                    assert_string_equal(reason.why, "the memmap is not whole pages");
                    assert_int_equal(reason.size_bytes, size_bytes);
                    assert_int_equal(reason.unit_bytes, page_bytes);
                    nr_refused++;
                } else {
                    assert_int_equal(error, 0);
                }
                assert_int_equal(add(&toy, 4, nr_blocks, MEMPLUG_MEMMAP_RANGE), error);
                toy_empty(&toy);
            }
    assert_true(nr_refused > 20);
}

/* --- failures and damage ---------------------------------------------------------------------- */

/* Each call of an add fails, of blocks that share with each other and with block 2: what it had
 * provided is given back, what block 2 holds stays. */
static void test_a_failing_add_gives_back_what_nobody_uses(void **state)
{
    struct memplug_geometry g = shape(FAKE_S390X, 72);
    bool done = false;

    (void)state;
    for (unsigned k = 1; !done; k++) {
        uint64_t bytes_before;
        struct toy_host toy;

        toy_open(&toy, &g, 1, NULL);
        assert_int_equal(add(&toy, 2, 2, HOST), 0);
        remove_blocks(&toy, 3, 1);
        bytes_before = toy.pool->host_bytes;
        toy.fail_at = k;
        done = add(&toy, 3, 3, HOST) == 0;
        toy.fail_at = 0;
        if (!done) {
            unsigned nr_down = 0, nr_up = 0;

            for (unsigned i = 0; i < toy.nr_calls; i++) {
                nr_down += toy.calls[i].operation == TOY_PROVIDE;
                nr_up += toy.calls[i].operation == TOY_UNMAP;
            }
            assert_true(nr_up == nr_down || nr_up + 1 == nr_down);
            assert_int_equal(nr_mapped(&toy, TOY_UNMAP, 13 * MIB, MIB), 0);
            assert_int_equal(toy.pool->host_bytes, bytes_before);
            assert_true(toy.pool->blocks[2].shares[MPL_END_TAIL]);
            assert_true(!toy.pool->blocks[3].shares[MPL_END_HEAD]);
        } else {
            assert_true(k > 8);
        }
        check(&toy);
        toy_empty(&toy);
    }
}

static void wrong(struct toy_host *toy, const char *why)
{
    struct memplug_reason reason;

    assert_int_equal(memplug_check(toy->pool, &reason), -MPL_EUCLEAN);
    assert_string_equal(reason.why, why);
}

static void test_check_sees_what_does_not_agree(void **state)
{
    struct memplug_geometry g = shape(FAKE_S390X, 56);
    struct mpl_block *blocks;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(add(&toy, 2, 4, HOST), 0);
    assert_int_equal(add(&toy, 6, 2, MEMPLUG_MEMMAP_BLOCK), 0);
    blocks = toy.pool->blocks;
    check(&toy);
    blocks[2].shares[MPL_END_TAIL] = false;
    wrong(&toy, "the block does not share the large unit that lies over its memmap");
    blocks[2].shares[MPL_END_TAIL] = true;
    blocks[3].shares[MPL_END_HEAD] = false;
    wrong(&toy, "the block does not share the large unit that lies over its memmap");
    blocks[3].shares[MPL_END_HEAD] = true;
    blocks[2].shares[MPL_END_HEAD] = true;
    wrong(&toy, "a large unit is shared where none can be");
    blocks[2].shares[MPL_END_HEAD] = false;
    blocks[6].shares[MPL_END_TAIL] = true;
    wrong(&toy, "a memmap of its own shares a large unit");
    blocks[6].shares[MPL_END_TAIL] = false;
    toy.pool->host_bytes += MIB; /* as if the unit were counted for each of its blocks */
    wrong(&toy, "host_bytes is not what the units took from the host");
    toy.pool->host_bytes -= MIB;
    blocks[1].shares[MPL_END_TAIL] = true;
    wrong(&toy, "an absent block has left something behind");
    blocks[1].shares[MPL_END_TAIL] = false;
    check(&toy);
    toy_empty(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_of_one_add_share),
        cmocka_unit_test(test_who_comes_back_joins),
        cmocka_unit_test(test_blocks_of_two_adds_do_not_share),
        cmocka_unit_test(test_a_demand_in_a_hole_is_refused),
        cmocka_unit_test(test_a_hint_in_a_hole_joins),
        cmocka_unit_test(test_a_hint_anywhere_takes_the_last_hole),
        cmocka_unit_test(test_blocks_inside_one_unit),
        cmocka_unit_test(test_no_unit_beyond_the_window),
        cmocka_unit_test(test_no_unit_of_512_mib),
        cmocka_unit_test(test_no_large_unit_is_mapped_twice),
        cmocka_unit_test(test_a_memmap_of_half_pages_is_refused_everywhere),
        cmocka_unit_test(test_a_failing_add_gives_back_what_nobody_uses),
        cmocka_unit_test(test_check_sees_what_does_not_agree),
    };

    return cmocka_run_group_tests_name("memmap share", tests, NULL, NULL);
}
