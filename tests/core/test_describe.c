/* SPDX-License-Identifier: MIT */
/* A page that stays. What its owner says of it, in memplug_why() and in a failed offline: asked for
 * once, after one look, without a change to anything. And how long it is waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/core.h"
#include "../../hosts/fake/fake.h"

struct world {
    struct fake_machine *machine;
    struct memplug *pool;
    struct fake_backing *backing;
    unsigned nr_looks, nr_described;
    struct memplug_host host; /* the machine's, with naps that are counted */
    struct memplug_host_ops ops;
};

static unsigned nr_naps;
static void (*relax)(void *host, unsigned nr_spins);

static void count_nap(void *host, unsigned nr_spins)
{
    nr_naps += nr_spins == MPL_SPINS_TO_SLEEP;
    relax(host, nr_spins);
}

static const char on_fire[] = "it is on fire";

static void move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++) {
        moves[i].result = -MPL_EBUSY;
        moves[i].why = on_fire;
    }
}

static int ask(void *context, memplug_pfn_t pfn, uint64_t cookie, struct memplug_reason *reason)
{
    (void)context;
    (void)pfn;
    assert_int_equal(cookie, 7);
    reason->why = on_fire;
    return -MPL_EBUSY;
}

static void look(void *context)
{
    ((struct world *)context)->nr_looks++;
}

/* More than there is place for. */
static void describe(void *context, memplug_pfn_t pfn, uint64_t cookie,
                     struct memplug_reason *reason)
{
    struct world *world = context;

    assert_int_equal(world->nr_looks, 1); /* before, and once for all */
    assert_int_equal(cookie, 7);
    assert_int_equal(pfn.nr, reason->pfn.nr);
    assert_int_equal(reason->error, -MPL_EBUSY);
    assert_ptr_equal(reason->why, on_fire);
    assert_int_equal(reason->detail[0], 0);
    memset(reason->detail, 'a' + (int)(world->nr_described++ % 26), MEMPLUG_DETAIL_BYTES);
    reason->since_ns = pfn.nr;
}

static void open_world(struct world *world)
{
    struct fake_config machine = {.geometry = fake_geometry(FAKE_SMALL), .nr_cpus = 4};
    struct fake_backing_spec spec = {.size_bytes = UINT64_C(16) << 20};
    struct memplug_mover mover = {.name = "talker", .move = move, .ask = ask, .look = look,
                                  .describe = describe, .context = world};
    struct memplug_config config = {.nr_nodes = 2};
    uint64_t metadata_bytes;

    *world = (struct world){0};
    assert_int_equal(fake_open(&machine, &world->machine), 0);
    world->backing = fake_backing_open(world->machine, &spec);
    world->host = *fake_host(world->machine);
    world->ops = *world->host.ops;
    relax = world->ops.relax;
    world->ops.relax = count_nap;
    world->host.ops = &world->ops;
    config.host = &world->host;
    metadata_bytes = memplug_metadata_bytes(&config);
    assert_int_equal(memplug_open(&config, fake_metadata(world->machine, metadata_bytes),
                                  metadata_bytes, &world->pool, NULL), 0);
    assert_int_equal(memplug_register_mover(world->pool, &mover), 1);
}

/* Blocks 1 and 2, movable. */
static void plug(struct world *world)
{
    struct memplug_add request = {
        .address = 1 << 20,
        .size_bytes = 2 << 20,
        .memmap = MEMPLUG_MEMMAP_BLOCK,
        .backing = world->backing,
    };

    assert_int_equal(memplug_add(world->pool, &request, NULL, NULL), 0);
    assert_int_equal(memplug_online(world->pool, 1, 2, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
}

static void alloc_at(struct world *world, uint64_t pfn, uint32_t nr_pages)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .mover = 1, .cookie = 7};

    assert_int_equal(memplug_alloc_exact(world->pool, mpl_pfn(pfn), &request), 0);
}

static void note_told(void *context, const struct memplug_reason *reason)
{
    uint64_t *told = context;

    assert_int_equal(reason->error, -MPL_EBUSY);
    assert_int_equal(reason->block, 1);
    assert_string_equal(reason->step, "migrate");
    assert_string_equal(reason->owner, "talker");
    assert_int_equal(strlen(reason->detail), MEMPLUG_DETAIL_BYTES - 1);
    assert_int_equal(reason->since_ns, reason->pfn.nr);
    told[0]++;
    told[1] += reason->pfn.nr;
    told[2] += reason->nr_pages;
}

/* What is said is cut to its place. */
static void why_described(void **state)
{
    struct memplug_reason reason;
    uint64_t told[3] = {0};
    struct world world;

    (void)state;
    open_world(&world);
    plug(&world);
    assert_int_equal(memplug_why(world.pool, 1, &reason), 0);
    assert_int_equal(world.nr_looks, 0); /* it has nothing there */
    alloc_at(&world, 270, 3);
    alloc_at(&world, 280, 2);
    assert_int_equal(memplug_why(world.pool, 1, &reason), -MPL_EBUSY);
    assert_int_equal(reason.pfn.nr, 270);
    assert_int_equal(reason.nr_pages, 2);
    assert_int_equal(reason.since_ns, 270);
    assert_int_equal(strlen(reason.detail), MEMPLUG_DETAIL_BYTES - 1);
    assert_int_equal(world.nr_described, 1);
    world.nr_looks = 0;
    assert_int_equal(memplug_why_each(world.pool, 1, note_told, told, &reason), -MPL_EBUSY);
    assert_int_equal(told[0], 2);
    assert_int_equal(told[1], 550);
    assert_int_equal(told[2], 5);
    world.nr_looks = world.nr_described = 0;
    assert_int_equal(memplug_offline(world.pool, 1, 1, NULL, &reason), -MPL_EBUSY);
    assert_int_equal(world.nr_looks, 1);
    assert_int_equal(world.nr_described, 1);
    assert_int_equal(reason.since_ns, 270);
    assert_int_equal(strlen(reason.detail), MEMPLUG_DETAIL_BYTES - 1);
    /* Nobody waits for it who has cancelled; and what is well says nothing. */
    world.nr_looks = world.nr_described = 0;
    assert_int_equal(memplug_offline(world.pool, 1, 1,
                                     &(struct memplug_limit){.stop = &(uint32_t){1}}, &reason),
                     -MPL_EINTR);
    assert_int_equal(world.nr_looks + world.nr_described, 0);
    assert_int_equal(reason.detail[0], 0);
    (void)fake_close(world.machine, NULL, 0);
}

static unsigned naps_of(struct world *world, uint32_t tries)
{
    nr_naps = world->nr_looks = 0;
    assert_int_equal(memplug_offline(world->pool, 1, 1, &(struct memplug_limit){.tries = tries},
                                     NULL), -MPL_EBUSY);
    return nr_naps;
}

/* Each try is followed by a longer pause, but for the last: 2, 4, 8 naps, up to 128. */
static void pauses_grow(void **state)
{
    struct world world;

    (void)state;
    open_world(&world);
    plug(&world);
    alloc_at(&world, 270, 3);
    assert_int_equal(naps_of(&world, 1), 0);
    assert_int_equal(naps_of(&world, 2), 2);
    assert_int_equal(naps_of(&world, 0), 2 + 4 + 8 + 16); /* the default is 5 tries */
    assert_int_equal(naps_of(&world, 10), 254 + 2 * 128);
    (void)fake_close(world.machine, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(why_described),
        cmocka_unit_test(pauses_grow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
