/* SPDX-License-Identifier: MIT */
/* What memplug_frame_kind() says of every frame, from add to remove. A letter a kind: '-' absent,
 * M memmap, '.' free, U used, V movable, K kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/view/look.h"
#include "../../hosts/fake/fake.h"

#define BLOCK_PAGES 256u

static struct fake_machine *machine;
static struct memplug *pool;

static void move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++)
        moves[i].result = -MPL_EBUSY;
}

static const struct memplug_mover mover = {.name = "test", .move = move};

static void open_pool(uint64_t nr_blocks, enum memplug_memmap memmap)
{
    struct fake_config config = {.geometry = fake_geometry(FAKE_SMALL), .nr_cpus = 2};
    struct fake_backing_spec spec = {.size_bytes = nr_blocks << 20};
    struct memplug_config open = {.nr_nodes = 1};
    struct memplug_add add = {.address = 1 << 20, .size_bytes = nr_blocks << 20, .memmap = memmap};
    uint64_t size_bytes;

    assert_int_equal(fake_open(&config, &machine), 0);
    open.host = fake_host(machine);
    size_bytes = memplug_metadata_bytes(&open);
    assert_int_equal(memplug_open(&open, fake_metadata(machine, size_bytes), size_bytes, &pool,
                                  NULL), 0);
    assert_int_equal(memplug_register_mover(pool, &mover), 1);
    add.backing = fake_backing_open(machine, &spec);
    assert_int_equal(memplug_add(pool, &add, NULL, NULL), 0);
}

static void close_pool(void)
{
    (void)fake_close(machine, NULL, 0);
}

/* Runs as text: "M4 .252". */
static void expect(uint64_t block, const char *runs)
{
    static const char letters[] = "-M.UVKHP";
    char text[512] = "";

    for (uint64_t i = 0, run; i < BLOCK_PAGES; i += run) {
        enum memplug_frame_kind kind =
            memplug_frame_kind(pool, mpl_pfn(block * BLOCK_PAGES + i));

        for (run = 1; i + run < BLOCK_PAGES; run++)
            if (memplug_frame_kind(pool, mpl_pfn(block * BLOCK_PAGES + i + run)) != kind)
                break;
        snprintf(text + strlen(text), 16, "%s%c%u", i != 0 ? " " : "", letters[kind],
                 (unsigned)run);
    }
    assert_string_equal(text, runs);
}

static memplug_pfn_t take(uint64_t pfn, uint32_t nr_pages, uint8_t by)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .mover = by, .cookie = 7};

    assert_int_equal(memplug_alloc_exact(pool, mpl_pfn(pfn), &request), 0);
    return mpl_pfn(pfn);
}

static void online(uint64_t first, uint64_t nr_blocks, enum memplug_online_type type)
{
    assert_int_equal(memplug_online(pool, first, nr_blocks, type, NULL, NULL), 0);
}

static void from_add_to_remove(void **state)
{
    memplug_pfn_t used, movable;

    (void)state;
    open_pool(1, MEMPLUG_MEMMAP_BLOCK);
    expect(0, "-256");
    expect(1, "-256");
    online(1, 1, MEMPLUG_ONLINE_KERNEL);
    expect(1, "M4 .252");
    used = take(256 + 10, 5, 0);
    movable = take(256 + 15, 1, 1);
    expect(1, "M4 .6 U5 V1 .240");
    assert_int_equal(memplug_free(pool, movable, 1), 0);
    expect(1, "M4 .6 U5 .241"); /* a CPU has it at hand */
    assert_int_equal(memplug_free(pool, used, 5), 0);
    expect(1, "M4 .252");
    assert_int_equal(memplug_offline(pool, 1, 1, NULL, NULL), 0);
    expect(1, "-256");
    assert_int_equal(memplug_remove(pool, 1 << 20, 1 << 20, NULL, NULL), 0);
    expect(1, "-256");
    close_pool();
}

static void held_by_a_cpu(void **state)
{
    struct memplug_alloc request = {.nr_pages = 1, .mover = 1};
    memplug_pfn_t pfn;

    (void)state;
    open_pool(1, MEMPLUG_MEMMAP_HOST);
    online(1, 1, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(memplug_alloc(pool, &request, &pfn), 0);
    expect(1, "V1 .255");
    close_pool();
}

/* An allocation over three blocks, asked for in each of them; behind it another one. */
static void over_blocks(void **state)
{
    struct memplug_alloc request = {.nr_pages = 9 * 64, .mover = 1};
    memplug_pfn_t pfn;

    (void)state;
    open_pool(3, MEMPLUG_MEMMAP_HOST);
    online(1, 3, MEMPLUG_ONLINE_KERNEL);
    (void)take(BLOCK_PAGES, 64, 0);
    assert_int_equal(memplug_alloc(pool, &request, &pfn), 0);
    assert_int_equal(pfn.nr, BLOCK_PAGES + 64);
    expect(1, "U64 V192");
    expect(2, "V256");
    expect(3, "V128 .128");
    close_pool();
}

static void keep(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    (void)context;
    if (start.nr % BLOCK_PAGES != 64)
        assert_int_equal(memplug_release_pages(pool, start, nr_pages), 0);
}

static void kept_by_a_driver(void **state)
{
    struct memplug_online_hook hook = {.online_pages = keep};

    (void)state;
    open_pool(1, MEMPLUG_MEMMAP_HOST);
    assert_int_equal(memplug_set_online_hook(pool, &hook), 0);
    online(1, 1, MEMPLUG_ONLINE_MOVABLE);
    expect(1, ".64 K64 .128");
    assert_int_equal(memplug_release_pages(pool, mpl_pfn(BLOCK_PAGES + 64), 8), 0);
    expect(1, ".72 K56 .128");
    close_pool();
}

/* Seen from inside: neither before the block is online, nor after its frames have gone. */
static int look(void *context, const struct memplug_notice *notice)
{
    unsigned *nr_heard = context;

    switch (notice->event) {
    case MEMPLUG_PREPARE_ONLINE:
    case MEMPLUG_GOING_ONLINE:
    case MEMPLUG_FINISH_OFFLINE:
        expect(1, "-256");
        break;
    case MEMPLUG_ONLINE:
    case MEMPLUG_GOING_OFFLINE:
    case MEMPLUG_OFFLINE:
        expect(1, "M4 .252");
        break;
    default:
        fail();
    }
    ++*nr_heard;
    return 0;
}

static void in_between(void **state)
{
    unsigned nr_heard = 0;
    struct memplug_subscriber subscriber = {.name = "x", .notify = look, .context = &nr_heard};

    (void)state;
    open_pool(1, MEMPLUG_MEMMAP_BLOCK);
    assert_int_equal(memplug_subscribe(pool, &subscriber), 0);
    online(1, 1, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(memplug_offline(pool, 1, 1, NULL, NULL), 0);
    assert_int_equal(nr_heard, 6);
    close_pool();
}

static void no_such_frame(void **state)
{
    (void)state;
    open_pool(1, MEMPLUG_MEMMAP_BLOCK);
    assert_int_equal(memplug_frame_kind(pool, mpl_pfn(64 * BLOCK_PAGES)), MEMPLUG_FRAME_ABSENT);
    assert_int_equal(memplug_frame_kind(pool, mpl_pfn(UINT64_MAX)), MEMPLUG_FRAME_ABSENT);
    close_pool();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_add_to_remove), cmocka_unit_test(held_by_a_cpu),
        cmocka_unit_test(over_blocks),        cmocka_unit_test(kept_by_a_driver),
        cmocka_unit_test(in_between),         cmocka_unit_test(no_such_frame),
    };

    return cmocka_run_group_tests_name("kind", tests, NULL, NULL);
}
