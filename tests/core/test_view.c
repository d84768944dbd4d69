/* SPDX-License-Identifier: MIT */
/* What looks on: figures, the dump, and whether memplug_why() answers what offline then does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/view/look.h"
#include "../../hosts/fake/fake.h"

#define BLOCK_PAGES 256u

struct world {
    struct fake_machine *machine;
    struct memplug *pool;
    struct fake_backing *backing;
    int answer; /* of the mover, to move() and to ask() */
    const char *why;
    unsigned nr_asked;
};

/* --- a pool ----------------------------------------------------------------------------------- */

static void move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    struct world *world = context;

    for (unsigned i = 0; i < nr_moves; i++)
        moves[i].result = world->answer;
}

static int ask(void *context, memplug_pfn_t pfn, uint64_t cookie, struct memplug_reason *reason)
{
    struct world *world = context;

    assert_true(pfn.nr >= BLOCK_PAGES);
    assert_int_equal(cookie, 7);
    assert_null(reason->why);
    reason->why = world->why;
    world->nr_asked++;
    return world->answer;
}

static void open_world(struct world *world)
{
    struct fake_config machine = {.geometry = fake_geometry(FAKE_SMALL), .nr_cpus = 4};
    struct fake_backing_spec spec = {.size_bytes = UINT64_C(16) << 20};
    struct memplug_mover mover = {.name = "test", .move = move, .ask = ask, .context = world};
    struct memplug_config config = {.nr_nodes = 2};
    uint64_t metadata_bytes;

    *world = (struct world){0};
    assert_int_equal(fake_open(&machine, &world->machine), 0);
    world->backing = fake_backing_open(world->machine, &spec);
    config.host = fake_host(world->machine);
    metadata_bytes = memplug_metadata_bytes(&config);
    assert_int_equal(memplug_open(&config, fake_metadata(world->machine, metadata_bytes),
                                  metadata_bytes, &world->pool, NULL), 0);
    assert_int_equal(memplug_register_mover(world->pool, &mover), 1);
}

static void close_world(struct world *world)
{
    (void)fake_close(world->machine, NULL, 0);
}

static void add(struct world *world, uint64_t first, uint64_t nr_blocks,
                enum memplug_memmap memmap)
{
    struct memplug_add request = {
        .address = first << 20,
        .size_bytes = nr_blocks << 20,
        .memmap = memmap,
        .backing = world->backing,
        .offset_bytes = (first - 1) << 20,
    };

    assert_int_equal(memplug_add(world->pool, &request, NULL, NULL), 0);
}

static void online(struct world *world, uint64_t first, uint64_t nr_blocks,
                   enum memplug_online_type type)
{
    assert_int_equal(memplug_online(world->pool, first, nr_blocks, type, NULL, NULL), 0);
}

static memplug_pfn_t alloc(struct world *world, uint32_t nr_pages, uint8_t mover)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .mover = mover, .cookie = 7};
    memplug_pfn_t pfn;

    assert_int_equal(memplug_alloc(world->pool, &request, &pfn), 0);
    return pfn;
}

static void alloc_at(struct world *world, uint64_t pfn, uint32_t nr_pages, uint8_t mover)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .mover = mover, .cookie = 7};

    assert_int_equal(memplug_alloc_exact(world->pool, mpl_pfn(pfn), &request), 0);
}

/* --- the dump --------------------------------------------------------------------------------- */

struct text {
    char bytes[1 << 16];
    size_t length;
};

static void append(void *context, const char *bytes, size_t length)
{
    struct text *text = context;

    assert_true(text->length + length < sizeof(text->bytes));
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

static char *dump(struct world *world)
{
    struct text *text = calloc(1, sizeof(*text));

    assert_int_equal(memplug_dump(world->pool, append, text), 0);
    return (char *)text; /* bytes come first */
}

static void expect_line(const char *text, const char *line)
{
    if (strstr(text, line) == NULL)
        fail_msg("no line\n%sin\n%s", line, text);
}

static void dump_says_everything(void **state)
{
    struct world world;
    memplug_pfn_t pinned;
    char *text;

    (void)state;
    open_world(&world);
    add(&world, 1, 3, MEMPLUG_MEMMAP_BLOCK);
    online(&world, 1, 1, MEMPLUG_ONLINE_KERNEL);
    online(&world, 3, 1, MEMPLUG_ONLINE_MOVABLE);
    (void)alloc(&world, 4, 0);
    (void)alloc(&world, 4, 0);
    (void)alloc(&world, 8, 0);
    pinned = alloc(&world, 2, 1);
    assert_int_equal(memplug_pin(world.pool, pinned), 0);
    text = dump(&world);
    expect_line(text, " nodes 2 cpu_nodes 0x1 slots 4 host_bytes 0 hook default\npolicy online "
                      "contig-zones auto_online offline memmap_on_memory yes auto_movable_ratio "
                      "301 numa_aware 1 movable_node 0\nmover 1 \"test\" batch_max 0 "
                      "ask\nnode 0 blocks 3\nzone 0 "
                      "Normal start 0x100 spanned 256 present 256 managed 252 free 236 "
                      "isolated 0 has_free 1\nzone 0 Movable start 0x300 spanned 256 present 256 "
                      "managed 252 free 250 isolated 0 has_free 3\nblock 1 online Normal ");
    expect_line(text, "block 1 online Normal node 0 memmap block unit 1+1 memmap_pages 4 managed "
                      "252 free 236 isolated 0 bitmaps memmap\n altmap 0x100-0x200 reserve 0 "
                      "free 4 align 0 alloc 4 offset 0x0\n 0+4 memmap\n 4+8 raw pages 4\n "
                      "12+4 free\n 16+8 raw pages 8\n 24+232 free\nblock 2 offline - node 0 ");
    expect_line(text, "alloc 4 offset 0x100000\nblock 3 online Movable ");
    expect_line(text, "offset 0x200000\n 0+4 memmap\n 4+2 used pages 2 mover 1 \"test\" cookie 0x7 "
                      "pins 1 align_order 0\n 6+250 free\n");
    assert_true(strlen(text) < 2000);
    free(text);
    close_world(&world);
}

static void dump_of_policy_and_groups(void **state)
{
    struct memplug_policy policy = {
        .online = MEMPLUG_POLICY_AUTO_MOVABLE,
        .auto_online = MEMPLUG_AUTO_KERNEL,
        .memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_FORCE,
        .auto_movable_ratio = 25,
        .movable_node = true,
    };
    struct memplug_add request = {.address = 4 << 20, .size_bytes = 1 << 20};
    struct world world;
    char *text;

    (void)state;
    open_world(&world);
    assert_int_equal(memplug_group_register(world.pool,
                                            &(struct memplug_group){.nr_pages = 700}), 1);
    assert_int_equal(memplug_group_register(world.pool, &(struct memplug_group){
                                                            .dynamic = true, .nr_pages = 512}),
                     2);
    request.backing = world.backing;
    request.group = 1;
    request.memmap = MEMPLUG_MEMMAP_BLOCK;
    assert_int_equal(memplug_add(world.pool, &request, NULL, NULL), 0);
    online(&world, 4, 1, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(memplug_policy_set(world.pool, &policy, MEMPLUG_POLICY_ALL), 0);
    text = dump(&world);
    expect_line(text, "\npolicy online auto-movable auto_online online_kernel memmap_on_memory "
                      "force auto_movable_ratio 25 numa_aware 0 movable_node 1\ngroup 1 static "
                      "node 0 pages 700 blocks 1 kernel 0 movable 256\ngroup 2 dynamic node 0 "
                      "pages 512 blocks 0 kernel 0 movable 0\n");
    expect_line(text, " unit 4+1 group 1 memmap_pages 4 ");
    free(text);
    close_world(&world);
}

/* What a slot holds, and how often something was allocated and freed, is not state. */
static void dump_is_canonical(void **state)
{
    struct world world;
    memplug_pfn_t pages[70];
    char *before, *after;

    (void)state;
    open_world(&world);
    add(&world, 1, 2, MEMPLUG_MEMMAP_BLOCK);
    online(&world, 1, 2, MEMPLUG_ONLINE_MOVABLE);
    (void)alloc(&world, 1, 1);
    before = dump(&world);
    for (unsigned i = 0; i < 70; i++)
        pages[i] = alloc(&world, 1, 1);
    for (unsigned i = 0; i < 70; i++)
        assert_int_equal(memplug_free(world.pool, pages[i], 1), 0);
    after = dump(&world);
    assert_string_equal(before, after);
    free(after);
    assert_int_equal(memplug_alloc_exact(world.pool, mpl_pfn(300),
                                         &(struct memplug_alloc){.nr_pages = 3, .mover = 1}), 0);
    after = dump(&world);
    assert_string_not_equal(before, after);
    free(before);
    free(after);
    close_world(&world);
}

/* --- figures ---------------------------------------------------------------------------------- */

static void figures(void **state)
{
    struct memplug_block_info block;
    struct memplug_zone_info zone;
    struct memplug_stat stat;
    struct world world;

    (void)state;
    open_world(&world);
    add(&world, 1, 2, MEMPLUG_MEMMAP_BLOCK);
    add(&world, 3, 3, MEMPLUG_MEMMAP_RANGE);
    online(&world, 4, 1, MEMPLUG_ONLINE_MOVABLE);
    (void)alloc(&world, 8, 1);
    assert_int_equal(memplug_block_info(world.pool, 4, &block), 0);
    assert_int_equal(block.state, MEMPLUG_BLOCK_ONLINE);
    assert_int_equal(block.zone, MEMPLUG_ZONE_MOVABLE);
    assert_int_equal(block.memmap, MEMPLUG_MEMMAP_RANGE);
    assert_int_equal(block.address, 4 << 20);
    assert_int_equal(block.size_bytes, 1 << 20);
    assert_int_equal(block.unit_first, 3);
    assert_int_equal(block.unit_nr_blocks, 3);
    assert_int_equal(block.nr_memmap_pages, 0);
    assert_int_equal(block.nr_managed_pages, 256);
    assert_int_equal(block.nr_free_pages, 248);
    assert_int_equal(memplug_block_info(world.pool, 3, &block), 0);
    assert_int_equal(block.state, MEMPLUG_BLOCK_OFFLINE);
    assert_int_equal(block.zone, MEMPLUG_NR_ZONES);
    assert_int_equal(block.nr_memmap_pages, 12);
    assert_int_equal(block.nr_managed_pages | block.nr_free_pages, 0);
    assert_int_equal(memplug_zone_info(world.pool, 0, MEMPLUG_ZONE_MOVABLE, &zone), 0);
    assert_int_equal(zone.start.nr, 4 * BLOCK_PAGES);
    assert_int_equal(zone.nr_free_pages, 248);
    memplug_stat(world.pool, &stat);
    assert_int_equal(stat.nr_blocks, 5);
    assert_int_equal(stat.nr_online_blocks, 1);
    assert_int_equal(stat.nr_present_pages, 256);
    assert_int_equal(stat.nr_managed_pages, 256);
    assert_int_equal(stat.nr_free_pages, 248);
    assert_int_equal(stat.nr_memmap_pages, 20);
    assert_int_equal(stat.host_bytes, 0);
    assert_int_equal(stat.preexisting_bytes, 5 * sizeof(struct mpl_block));
    close_world(&world);
}

static void figures_of_nothing(void **state)
{
    struct memplug_block_info block;
    struct memplug_zone_info zone;
    struct memplug_stat stat;
    struct world world;

    (void)state;
    open_world(&world);
    assert_int_equal(memplug_nr_blocks_max(world.pool), 64);
    assert_int_equal(memplug_block_of(world.pool, (UINT64_C(5) << 20) + 4095), 5);
    assert_int_equal(memplug_block_info(world.pool, 1, &block), -MPL_ENODEV);
    assert_int_equal(memplug_block_info(world.pool, 64, &block), -MPL_ENODEV);
    assert_int_equal(memplug_block_info(world.pool, UINT64_MAX, &block), -MPL_ENODEV);
    assert_int_equal(memplug_block_info(world.pool, 1, NULL), -MPL_EINVAL);
    assert_int_equal(memplug_zone_info(world.pool, 2, MEMPLUG_ZONE_DMA, &zone), -MPL_EINVAL);
    assert_int_equal(memplug_zone_info(world.pool, -1, MEMPLUG_ZONE_DMA, &zone), -MPL_EINVAL);
    assert_int_equal(memplug_zone_info(world.pool, 0, MEMPLUG_NR_ZONES, &zone), -MPL_EINVAL);
    assert_int_equal(memplug_zone_info(world.pool, 0, MEMPLUG_ZONE_DMA, NULL), -MPL_EINVAL);
    assert_int_equal(memplug_zone_info(world.pool, 1, MEMPLUG_ZONE_DMA, &zone), 0);
    assert_int_equal(zone.nr_spanned_pages, 0);
    memplug_stat(world.pool, &stat);
    assert_int_equal(stat.nr_blocks | stat.nr_free_pages | stat.preexisting_bytes, 0);
    assert_true(stat.block_bytes <= 256);
    close_world(&world);
}

/* Called with the control lock held: neither waits for it. */
static int look_on(void *context, const struct memplug_notice *notice)
{
    struct memplug_block_info block;
    struct memplug_reason reason;
    struct memplug_stat stat;
    struct world *world = context;

    assert_int_equal(memplug_block_info(world->pool, 1, &block), 0);
    if (notice->event == MEMPLUG_GOING_ONLINE) {
        assert_int_equal(block.state, MEMPLUG_BLOCK_GOING_ONLINE);
        assert_int_equal(memplug_why(world->pool, 1, &reason), -MPL_EINVAL);
    }
    memplug_stat(world->pool, &stat);
    assert_int_equal(stat.nr_blocks, 1);
    world->nr_asked++;
    return 0;
}

static void no_control_lock(void **state)
{
    struct world world;
    struct memplug_subscriber subscriber = {.name = "x", .notify = look_on, .context = &world};

    (void)state;
    open_world(&world);
    assert_int_equal(memplug_subscribe(world.pool, &subscriber), 0);
    add(&world, 1, 1, MEMPLUG_MEMMAP_BLOCK);
    online(&world, 1, 1, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(world.nr_asked, 3);
    close_world(&world);
}

/* --- why -------------------------------------------------------------------------------------- */

/* What why says, and that offline then says the same; the pool is as before. */
static struct memplug_reason expect_why(struct world *world, uint64_t block, int error)
{
    const struct memplug_limit once = {.tries = 1};
    struct memplug_reason why, reason;
    char *before = dump(world), *after;

    assert_int_equal(memplug_why(world->pool, block, NULL), error);
    assert_int_equal(memplug_why(world->pool, block, &why), error);
    assert_int_equal(why.error, error);
    assert_string_equal(why.operation, "offline");
    assert_int_equal(why.block, block);
    assert_int_equal(memplug_check(world->pool, NULL), 0);
    after = dump(world);
    assert_string_equal(before, after);
    free(before);
    free(after);
    if (error == 0)
        return why;
    assert_int_equal(memplug_offline(world->pool, block, 1, &once, &reason), error);
    if (why.pfn.nr != MPL_NO_PFN) {
        assert_string_equal(why.step, reason.step);
        assert_string_equal(why.why, reason.why);
        assert_int_equal(why.pfn.nr, reason.pfn.nr);
        assert_int_equal(why.nr_pages, reason.nr_pages);
        assert_int_equal(why.owner_cookie, reason.owner_cookie);
    }
    return why;
}

static void why_no_block(void **state)
{
    struct memplug_reason reason;
    struct world world;

    (void)state;
    open_world(&world);
    add(&world, 1, 1, MEMPLUG_MEMMAP_BLOCK);
    (void)expect_why(&world, 1, -MPL_EINVAL);
    (void)expect_why(&world, 2, -MPL_ENODEV);
    (void)expect_why(&world, 64, -MPL_ENODEV);
    assert_int_equal(memplug_why(world.pool, UINT64_MAX, &reason), -MPL_ENODEV);
    assert_int_equal(reason.block, -1);
    online(&world, 1, 1, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(expect_why(&world, 1, 0).nr_pages, 0);
    close_world(&world);
}

static void why_unmovable(void **state)
{
    struct memplug_reason reason;
    struct world world;

    (void)state;
    open_world(&world);
    add(&world, 1, 2, MEMPLUG_MEMMAP_BLOCK);
    online(&world, 1, 2, MEMPLUG_ONLINE_KERNEL);
    alloc_at(&world, 270, 3, 1);
    for (unsigned i = 0; i < 40; i++)
        alloc_at(&world, 300 + 2 * i, 1, 0);
    reason = expect_why(&world, 1, -MPL_EBUSY);
    assert_int_equal(reason.pfn.nr, 300);
    assert_int_equal(reason.nr_pages, 40);
    assert_null(reason.owner);
    assert_non_null(reason.remedy);
    assert_int_equal(expect_why(&world, 2, 0).nr_pages, 0);
    close_world(&world);
}

static void why_pinned_or_refused(void **state)
{
    struct memplug_reason reason;
    struct world world;

    (void)state;
    open_world(&world);
    add(&world, 1, 2, MEMPLUG_MEMMAP_BLOCK);
    online(&world, 1, 2, MEMPLUG_ONLINE_MOVABLE);
    alloc_at(&world, 270, 3, 1);
    alloc_at(&world, 280, 2, 1);
    reason = expect_why(&world, 1, 0);
    assert_int_equal(reason.nr_pages, 5);
    assert_int_equal(world.nr_asked, 4);
    assert_int_equal(memplug_pin(world.pool, mpl_pfn(280)), 0);
    reason = expect_why(&world, 1, -MPL_EBUSY);
    assert_int_equal(reason.pfn.nr, 280);
    assert_string_equal(reason.owner, "test");
    assert_int_equal(memplug_unpin(world.pool, mpl_pfn(280)), 0);
    world.answer = -MPL_EBUSY;
    assert_int_equal(memplug_why(world.pool, 1, &reason), -MPL_EBUSY);
    assert_int_equal(reason.nr_pages, 1); /* the other one has moved: that is not undone */
    assert_string_equal(reason.why, "its mover cannot move it now");
    world.why = "it is on fire";
    assert_int_equal(memplug_why(world.pool, 1, &reason), -MPL_EBUSY);
    assert_string_equal(reason.why, "it is on fire");
    world.answer = -MPL_ENOENT;
    assert_int_equal(memplug_why(world.pool, 1, &reason), 0);
    assert_int_equal(reason.nr_pages, 0);
    close_world(&world);
}

static void keep(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    (void)context;
    (void)start;
    (void)nr_pages;
}

static void why_kept(void **state)
{
    struct memplug_online_hook hook = {.online_pages = keep};
    struct world world;

    (void)state;
    open_world(&world);
    add(&world, 1, 1, MEMPLUG_MEMMAP_HOST);
    assert_int_equal(memplug_set_online_hook(world.pool, &hook), 0);
    online(&world, 1, 1, MEMPLUG_ONLINE_KERNEL);
    assert_int_equal(expect_why(&world, 1, -MPL_EBUSY).nr_pages, 4);
    for (uint64_t pfn = 256; pfn < 512; pfn += 64)
        assert_int_equal(memplug_unpin(world.pool, mpl_pfn(pfn)), 0);
    assert_int_equal(expect_why(&world, 1, 0).nr_pages, 0);
    close_world(&world);
}

/* An allocation over the end of a block stands in the way of both, by the name of its head. */
static void why_over_the_end(void **state)
{
    struct world world;
    memplug_pfn_t pfn;

    (void)state;
    open_world(&world);
    add(&world, 1, 4, MEMPLUG_MEMMAP_RANGE);
    online(&world, 1, 4, MEMPLUG_ONLINE_MOVABLE);
    pfn = alloc(&world, 576, 1);
    assert_int_equal(pfn.nr, 256 + 64);
    assert_int_equal(memplug_pin(world.pool, pfn), 0);
    for (uint64_t block = 1; block <= 3; block++)
        assert_int_equal(expect_why(&world, block, -MPL_EBUSY).pfn.nr, pfn.nr);
    assert_int_equal(expect_why(&world, 4, 0).nr_pages, 0);
    assert_int_equal(memplug_unpin(world.pool, pfn), 0);
    assert_int_equal(expect_why(&world, 2, -MPL_ENOMEM).nr_pages, 576);
    close_world(&world);
}

static void why_no_room(void **state)
{
    struct world world;

    (void)state;
    open_world(&world);
    add(&world, 1, 2, MEMPLUG_MEMMAP_BLOCK);
    online(&world, 1, 1, MEMPLUG_ONLINE_MOVABLE);
    alloc_at(&world, 288, 32, 1);
    alloc_at(&world, 400, 1, 1);
    assert_int_equal(expect_why(&world, 1, -MPL_ENOMEM).nr_pages, 33);
    online(&world, 2, 1, MEMPLUG_ONLINE_KERNEL);
    assert_int_equal(expect_why(&world, 1, 0).nr_pages, 33);
    for (uint64_t pfn = 516; pfn < 768; pfn += 16)
        alloc_at(&world, pfn, 1, 1);
    assert_int_equal(expect_why(&world, 1, -MPL_ENOMEM).nr_pages, 33);
    assert_int_equal(memplug_free(world.pool, mpl_pfn(548), 1), 0);
    assert_int_equal(memplug_free(world.pool, mpl_pfn(564), 1), 0);
    mpl_percpu_drain(world.pool);
    assert_int_equal(expect_why(&world, 1, 0).nr_pages, 32);
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dump_says_everything),
        cmocka_unit_test(dump_of_policy_and_groups),
        cmocka_unit_test(dump_is_canonical),
        cmocka_unit_test(figures),
        cmocka_unit_test(figures_of_nothing),
        cmocka_unit_test(no_control_lock),
        cmocka_unit_test(why_no_block),
        cmocka_unit_test(why_unmovable),
        cmocka_unit_test(why_pinned_or_refused),
        cmocka_unit_test(why_kept),
        cmocka_unit_test(why_over_the_end),
        cmocka_unit_test(why_no_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
