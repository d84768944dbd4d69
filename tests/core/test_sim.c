/* SPDX-License-Identifier: MIT */
/*
 * Random lives of a pool beside a flat model of it (model.h): after each step they agree, and every
 * so often to the last frame. Faults, cancels, vetoes, pins, movers that refuse, owners that free
 * while their pages move, drivers that keep pages back. A seed makes the run; one that fails is
 * printed and belongs into the table below.
 *
 * MEMPLUG_SIM_SEEDS, MEMPLUG_SIM_STEPS: how many of each; MEMPLUG_SIM_FIRST: the first seed.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim.h"

static const struct sim_geometry geometries[] = {
    {"small", FAKE_SMALL, 64, FAKE_CONTENT_KEEP, 10, 1500},
    {"small, 32", FAKE_SMALL, 32, FAKE_CONTENT_JUNK, 4, 1000},
    {"small, 40", FAKE_SMALL, 40, FAKE_CONTENT_KEEP, 4, 1000},
    {"small, 56", FAKE_SMALL, 56, FAKE_CONTENT_BYTE, 6, 1000},
    {"small, 72", FAKE_SMALL, 72, FAKE_CONTENT_JUNK, 4, 1000},
    {"small, 128", FAKE_SMALL, 128, FAKE_CONTENT_ZERO, 4, 1000},
    {"16 KiB", FAKE_16K, 64, FAKE_CONTENT_KEEP, 4, 800},
    {"64 KiB", FAKE_64K, 128, FAKE_CONTENT_KEEP, 4, 500},
    {"x86", FAKE_X86, 64, FAKE_CONTENT_KEEP, 2, 120},
};
#define NR_GEOMETRIES (sizeof(geometries) / sizeof(geometries[0]))

/* Seeds that once failed: geometry, seed, steps. */
static const unsigned regressions[][3] = {
    {0, 4, 300}, /* an allocation that goes over the end of a block */
};

/* --- a driver that keeps pages back ----------------------------------------------------------- */

static void hook_online(void *context, memplug_pfn_t start, uint32_t nr_pages)
{
    uint32_t nr_released = 0;

    (void)context;
    while (nr_released < nr_pages && !model_keeps(&sim.model, start.nr + nr_released))
        nr_released++;
    if (nr_released != 0)
        sim_ensure(memplug_release_pages(sim.world.pool, start, nr_released) == 0, "release", 0);
    if (nr_released == nr_pages)
        return;
    sim_ensure(sim.nr_chunks < SIM_CHUNKS, "too many chunks", sim.nr_chunks);
    sim.chunks[sim.nr_chunks++] =
        (struct sim_chunk){start.nr + nr_released, nr_pages - nr_released};
}

static const struct memplug_online_hook sim_hook = {.online_pages = hook_online};

static int driver_notify(void *context, const struct memplug_notice *notice)
{
    (void)context;
    for (unsigned i = 0; i < sim.nr_chunks; i++) {
        memplug_pfn_t pfn = {sim.chunks[i].start};

        if (pfn.nr < notice->start.nr || pfn.nr - notice->start.nr >= notice->nr_pages)
            continue;
        if (notice->event == MEMPLUG_GOING_OFFLINE && sim.lets_go)
            sim_ensure(memplug_unpin(sim.world.pool, pfn) == 0, "the driver's unpin", 0);
        else if (notice->event == MEMPLUG_CANCEL_OFFLINE && sim.lets_go)
            sim_ensure(memplug_pin(sim.world.pool, pfn) == 0, "the driver's pin", 0);
        else if (notice->event == MEMPLUG_OFFLINE)
            sim.chunks[i--] = sim.chunks[--sim.nr_chunks];
    }
    return 0;
}

/* Before all others: whoever refuses comes after the driver has let go. */
static const struct memplug_subscriber driver = {.name = "driver", .priority = 100,
                                                 .notify = driver_notify};

static void do_hook(void)
{
    sim.model.hook = !sim.model.hook;
    sim_ensure(memplug_set_online_hook(sim.world.pool, sim.model.hook ? &sim_hook : NULL) == 0,
           "set_online_hook", 0);
}

/* One page out of a chunk leaves two. */
static void do_release(void)
{
    struct sim_chunk *chunk = &sim.chunks[sim.nr_chunks != 0 ? sim_roll(sim.nr_chunks) : 0];
    uint64_t at;

    if (sim.nr_chunks == 0 || sim.nr_chunks == SIM_CHUNKS)
        return;
    at = sim_roll(chunk->nr_pages);
    sim_ensure(memplug_release_pages(sim.world.pool, (memplug_pfn_t){chunk->start + at}, 1) == 0,
           "release of one", (int64_t)at);
    sim.model.owners[chunk->start + at] = MODEL_FREE;
    if (at + 1 < chunk->nr_pages)
        sim.chunks[sim.nr_chunks++] =
            (struct sim_chunk){chunk->start + at + 1, chunk->nr_pages - at - 1};
    chunk->nr_pages = at;
    if (at == 0)
        *chunk = sim.chunks[--sim.nr_chunks];
}

/* --- blocks ----------------------------------------------------------------------------------- */

/* What shall strike the next operation: nothing, a fault, a cancel or the end of its time. */
static const struct memplug_limit *arm(void)
{
    uint64_t how = sim_roll(10);

    sim.strike_at = how >= 8 ? 1 + (unsigned)sim_roll(24) : 0;
    fault_limit_init(&sim.limit, how == 8 ? FAULT_LIMIT_STOP : FAULT_LIMIT_DEADLINE, sim.strike_at,
                     sim.world.fault);
    if (sim.strike_at == 0)
        sim.limit.kind = FAULT_LIMIT_COUNT;
    if (how == 6 || how == 7)
        fault_arm(sim.world.fault, 1 + sim_roll(12), sim_roll(4) == 0, 0);
    sim.nr_refused = sim.nr_inside = 0;
    return &sim.limit.limit;
}

/* Did the operation end as it should? A struck one may fail; what it leaves is compared later. */
static bool ended(int error, int expected)
{
    bool struck = fault_fired(sim.world.fault) != 0 ||
                  (sim.strike_at != 0 && sim.limit.nr_checks >= sim.strike_at);

    fault_arm(sim.world.fault, 0, false, 0);
    fault_disarm(sim.world.fault);
    sim.nr_struck += struck;
    sim.nr_done += error == 0;
    sim_ensure(error == expected || (struck && error != 0), "its end", error);
    return error == 0;
}

static void any_blocks(uint64_t *first, uint64_t *nr_blocks)
{
    *first = 1 + sim_roll(MODEL_BLOCKS - 1);
    *nr_blocks = 1 + (sim_roll(3) == 0 ? sim_roll(4) : 0);
    if (*first + *nr_blocks > MODEL_BLOCKS)
        *nr_blocks = MODEL_BLOCKS - *first;
}

/* Most requests shall be such that can be: a few throws of the dice for one. */
static unsigned nr_throws(void)
{
    return sim_roll(8) == 0 ? 1 : 12;
}

static int throw_add(struct model_request *request)
{
    *request = (struct model_request){.memmap = (enum memplug_memmap)sim_roll(4),
                                      .node = (int)sim_roll(2)};
    any_blocks(&request->first, &request->nr_blocks);
    request->from = request->first;
    if (sim_roll(6) == 0)
        request->from = 1 + sim_roll(MODEL_BLOCKS - request->nr_blocks);
    request->pad = (request->memmap == MEMPLUG_MEMMAP_BLOCK ||
                    request->memmap == MEMPLUG_MEMMAP_RANGE) && sim_roll(4) == 0;
    return model_may_add(&sim.model, request);
}

static void do_add(void)
{
    struct memplug_add add = {.backing = sim.backing};
    struct model_request request;
    int error, expected = -1;

    for (unsigned i = nr_throws(); i > 0 && expected != 0; i--)
        expected = throw_add(&request);
    add.address = request.first * sim.world.block_bytes;
    add.size_bytes = request.nr_blocks * sim.world.block_bytes;
    add.offset_bytes = request.from * sim.world.block_bytes;
    add.memmap = request.memmap;
    add.pad_memmap = request.pad;
    add.node = request.node;
    error = memplug_add(sim.world.pool, &add, arm(), NULL);
    if (ended(error, expected))
        model_add(&sim.model, &request);
}

static void do_remove(void)
{
    uint64_t first, nr_blocks;
    int error, expected = -1;

    for (unsigned i = nr_throws(); i > 0 && expected != 0; i--) {
        any_blocks(&first, &nr_blocks);
        if (sim.model.blocks[first].unit_nr_blocks != 0 && sim_roll(2) == 0) {
            nr_blocks = sim.model.blocks[first].unit_nr_blocks;
            first = sim.model.blocks[first].unit_first;
        }
        expected = model_may_remove(&sim.model, first, nr_blocks);
    }
    error = memplug_remove(sim.world.pool, first * sim.world.block_bytes,
                           nr_blocks * sim.world.block_bytes, arm(), NULL);
    if (ended(error, expected))
        model_remove(&sim.model, first, nr_blocks);
}

static void do_online(void)
{
    enum memplug_online_type type = (enum memplug_online_type)sim_roll(3);
    uint64_t first, nr_blocks;
    int error, expected = -1;

    for (unsigned i = nr_throws(); i > 0 && expected != 0; i--) {
        any_blocks(&first, &nr_blocks);
        expected = model_may_online(&sim.model, first, nr_blocks);
    }
    error = memplug_online(sim.world.pool, first, nr_blocks, type, arm(), NULL);
    if (ended(error, expected))
        model_online(&sim.model, first, nr_blocks, type);
}

/* Which error, given what happened on the way. */
static int offline_expects(const struct model_survey *survey, int error)
{
    bool tight = survey->largest > 1 || survey->nr_free_elsewhere < survey->nr_used ||
                 sim.nr_inside != 0;

    if (survey->error != 0)
        return survey->error;
    if (error == -ENOMEM && survey->nr_used != 0 && tight)
        return -ENOMEM;
    if (survey->pinned || (survey->kept && !sim.lets_go))
        return -EBUSY;
    return error == -EBUSY && sim.nr_refused != 0 ? -EBUSY : 0;
}

static void do_offline(void)
{
    struct model_survey survey;
    uint64_t first, nr_blocks;
    int error;

    survey.error = -1;
    for (unsigned i = nr_throws(); i > 0 && survey.error != 0; i--) {
        any_blocks(&first, &nr_blocks);
        model_survey(&sim.model, first, nr_blocks, &survey);
    }
    sim.lets_go = sim_roll(2) == 0;
    sim.going_first = first * sim.model.block_pages;
    sim.going_end = sim.going_first + nr_blocks * sim.model.block_pages;
    error = memplug_offline(sim.world.pool, first, nr_blocks, arm(), NULL);
    sim.going_first = sim.going_end = 0;
    if (!ended(error, offline_expects(&survey, error)))
        return;
    for (uint64_t i = 0; i < nr_blocks * sim.model.block_pages; i++)
        sim_ensure(sim.model.owners[first * sim.model.block_pages + i] < 0,
                   "this frame was still used", (int64_t)i);
    model_offline(&sim.model, first, nr_blocks);
}

static void unpin_all(struct model_slot *slot)
{
    for (; slot->nr_pins != 0; slot->nr_pins--)
        sim_ensure(memplug_unpin(sim.world.pool, (memplug_pfn_t){slot->pfn}) == 0, "unpin", 0);
}

static void free_slot(unsigned number)
{
    const struct model_slot *slot = &sim.model.slots[number];
    int error = memplug_free(sim.world.pool, (memplug_pfn_t){slot->pfn}, slot->nr_pages);

    sim_ensure(error == 0, "free", error);
    model_free(&sim.model, number);
}

/* Nothing stays in some blocks: else unmovable and pinned pages would keep all of them at last. */
static void do_clear(void)
{
    uint64_t first, nr_blocks;

    any_blocks(&first, &nr_blocks);
    for (uint64_t i = 0; i < nr_blocks * sim.model.block_pages; i++) {
        int owner = sim.model.owners[first * sim.model.block_pages + i];
        struct model_slot *slot = &sim.model.slots[owner >= 0 ? owner : 0];

        if (owner < 0)
            continue;
        unpin_all(slot);
        if (!slot->movable)
            free_slot((unsigned)owner);
    }
}

/* --- a run ------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    void (*act)(void);
    unsigned weight;
} acts[] = {
    {"add", do_add, 12},       {"online", do_online, 14},   {"offline", do_offline, 12},
    {"remove", do_remove, 8},  {"alloc", sim_alloc, 26},     {"alloc_exact", sim_exact, 6},
    {"free", sim_free, 14},     {"wrong free", sim_wrong_free, 3},
    {"pin", sim_pin, 3},        {"hook", do_hook, 1},        {"release", do_release, 1},
    {"clear", do_clear, 8},
};
#define NR_ACTS (sizeof(acts) / sizeof(acts[0]))

static void one_step(void)
{
    uint64_t sum = 0, at;
    unsigned act = 0;

    for (unsigned i = 0; i < NR_ACTS; i++)
        sum += acts[i].weight;
    for (at = sim_roll(sum); at >= acts[act].weight; act++)
        at -= acts[act].weight;
    sim.doing = acts[act].name;
    acts[act].act();
    sim_compare(sim.step % 16 == 15);
}

static void open_sim(const struct sim_geometry *geometry, uint64_t seed)
{
    sim.geometry = geometry;
    sim.seed = sim.random = seed;
    sim.doing = "open";
    sim.nr_chunks = 0;
    sim.nr_done = sim.nr_struck = 0;
    sim.going_first = sim.going_end = 0;
    world_open(&sim.world, &(struct world_config){.shape = geometry->shape,
                                                  .page_struct_bytes = geometry->page_struct_bytes,
                                                  .content = geometry->content, .nr_nodes = 2,
                                                  .seed = seed});
    model_open(&sim.model, &sim.world.geometry);
    sim.backing = fake_backing_open(
        sim.world.machine,
        &(struct fake_backing_spec){.size_bytes = MODEL_BLOCKS * sim.world.block_bytes,
                                    .content = geometry->content, .byte = 0x33});
    assert_non_null(sim.backing);
    assert_int_equal(memplug_subscribe(sim.world.pool, &driver), 0);
    sim.mover = (unsigned)memplug_register_mover(sim.world.pool,
                                                 fault_mover(sim.world.fault, &sim_mover));
}

static void close_sim(void)
{
    sim.doing = "close";
    for (unsigned i = 0; i < MODEL_SLOTS; i++)
        if (sim.model.slots[i].nr_pages != 0) {
            unpin_all(&sim.model.slots[i]);
            free_slot(i);
        }
    sim.lets_go = true;
    sim_compare(true);
    model_close(&sim.model);
    world_close(&sim.world);
}

static uint64_t run(const struct sim_geometry *geometry, uint64_t seed, unsigned nr_steps)
{
    open_sim(geometry, seed);
    for (sim.step = 0; sim.step < nr_steps; sim.step++)
        one_step();
    close_sim();
    return sim.nr_done;
}

static void simulation(void **state)
{
    unsigned first = world_setting("MEMPLUG_SIM_FIRST", 1);

    (void)state;
    for (unsigned i = 0; i < NR_GEOMETRIES; i++) {
        const struct sim_geometry *geometry = &geometries[i];
        unsigned nr_seeds = world_setting("MEMPLUG_SIM_SEEDS", geometry->nr_seeds);
        unsigned nr_steps = world_setting("MEMPLUG_SIM_STEPS", geometry->nr_steps);
        uint64_t nr_done = 0, nr_struck = 0;

        for (unsigned seed = first; seed < first + nr_seeds; seed++) {
            nr_done += run(geometry, seed, nr_steps);
            nr_struck += sim.nr_struck;
        }
        print_message("%s: %u seeds, %" PRIu64 " operations, %" PRIu64 " struck\n",
                      geometry->name, nr_seeds, nr_done, nr_struck);
        assert_true(nr_done > nr_seeds * nr_steps / 20 && nr_struck != 0);
    }
}

static void seeds_that_failed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(regressions) / sizeof(regressions[0]); i++)
        run(&geometries[regressions[i][0]], regressions[i][1], regressions[i][2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_that_failed),
        cmocka_unit_test(simulation),
    };

    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
