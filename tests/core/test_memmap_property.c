/* SPDX-License-Identifier: MIT */
/*
 * Random geometries, random adds and removes of all placements side by side, against the rule of
 * memmap_model.h. After each step the page tables of the memmap window are walked: what backs each
 * page is the range's own head or boot memory, as the model says and in the units that it says; the
 * struct pages of everything that is there still hold what was written when it came;
 * memplug_check() and fake_check() agree. At the end nothing is left.
 *
 * MEMPLUG_MEMMAP_SEEDS, MEMPLUG_MEMMAP_STEPS: how many of each; MEMPLUG_MEMMAP_FIRST: the first
 * seed. A seed makes the run; one that fails is printed.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake/machine.h"
#include "memmap_model.h"
#include "world.h"

#define BOOT_BYTES (UINT64_C(256) << 20)

/* What was seen over all seeds: a run that never shares a unit would prove nothing. */
struct seen {
    unsigned nr_added, nr_removed, nr_joined, nr_in_hole, nr_fell_back, nr_refused;
    unsigned nr_shared, nr_own_large, nr_left_over;
};

static struct {
    const char *name;
    uint64_t seed, random;
    unsigned step;
    struct memmap_model model;
    struct fake_machine *machine;
    struct fake_backing *backing;
    struct memplug *pool;
    uint64_t walked_bytes;
    uint32_t nr_stamps;
    struct seen seen;
} run;

/* --- where it failed -------------------------------------------------------------------------- */

static void where(char *text, size_t size_bytes)
{
    const struct memplug_geometry *g = &run.model.geometry;

    snprintf(text, size_bytes,
             "%s, seed %" PRIu64 ", step %u (page %u, pageblock %u, section %u, block %u, large %u,"
             " struct page %u, %" PRIu64 " blocks)",
             run.name, run.seed, run.step, g->page_shift, g->pageblock_order, g->section_shift,
             g->block_shift, g->large_shift, g->page_struct_bytes, run.model.nr_blocks);
}

#define ENSURE(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            char where_[256], what_[256];                                                          \
                                                                                                   \
            where(where_, sizeof(where_));                                                         \
            snprintf(what_, sizeof(what_), __VA_ARGS__);                                           \
            fail_msg("%s: %s", where_, what_);                                                     \
        }                                                                                          \
    } while (0)

static void on_panic(void *context, const char *text)
{
    (void)context;
    ENSURE(false, "%s", text);
}

/* A trap of the core: say the seed, then end as it would have. */
static void on_trap(int number)
{
    char text[256];

    where(text, sizeof(text));
    fprintf(stderr, "%s: trapped\n", text);
    signal(number, SIG_DFL);
    raise(number);
}

/* --- dice ------------------------------------------------------------------------------------- */

static uint64_t roll(uint64_t below)
{
    return fake_random(&run.random) % below;
}

static uint64_t largest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t smallest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static struct memplug_geometry any_geometry(void)
{
    static const uint8_t page_shifts[] = {12, 14, 16};
    struct memplug_geometry g = {.page_struct_bytes = (uint8_t)(32 + 8 * roll(13))};
    unsigned whole = 0, memmap_shift;

    g.page_shift = page_shifts[roll(3)];
    g.pageblock_order = (uint8_t)(6 + roll(2));
    /* Most blocks shall have whole pages of memmap. */
    while (g.page_struct_bytes % (2u << whole) == 0)
        whole++;
    whole = g.page_shift - whole;
    g.section_shift = (uint8_t)(g.page_shift + largest(g.pageblock_order, whole - roll(8) / 7) +
                                roll(2));
    g.block_shift = (uint8_t)(g.section_shift + roll(3));
    memmap_shift = g.block_shift - g.page_shift + 6;
    g.large_shift = (uint8_t)smallest(largest(g.page_shift, memmap_shift - 4 + roll(8)), 23);
    if (roll(8) == 0)
        g.large_shift = g.page_shift == 16 ? 29 : g.page_shift;
    g.address_limit = (10 + roll(40)) << g.block_shift;
    return g;
}

/* --- the pool --------------------------------------------------------------------------------- */

static void open_run(const char *name, const struct memplug_geometry *geometry, uint64_t alignment)
{
    struct fake_config config = {
        .geometry = *geometry,
        .nr_cpus = 1,
        .boot_bytes = BOOT_BYTES,
        .seed = run.seed,
        .fill_bytes = 1,
    };
    struct memplug_config pool_config = {.nr_nodes = 1};
    uint64_t size_bytes;

    run.name = name;
    run.step = 0;
    memmap_model_open(&run.model, geometry, alignment);
    ENSURE(run.model.nr_blocks <= MEMMAP_MODEL_BLOCKS &&
               memmap_model_units(&run.model) <= MEMMAP_MODEL_UNITS,
           "too large for the model");
    ENSURE(fake_open(&config, &run.machine) == 0, "no machine");
    fake_set_panic_hook(run.machine, on_panic, NULL);
    run.backing = fake_backing_open(
        run.machine, &(struct fake_backing_spec){.size_bytes = geometry->address_limit,
                                                 .alignment = alignment,
                                                 .content = FAKE_CONTENT_KEEP});
    ENSURE(run.backing != NULL, "no backing");
    pool_config.host = fake_host(run.machine);
    size_bytes = memplug_metadata_bytes(&pool_config);
    ENSURE(memplug_open(&pool_config, fake_metadata(run.machine, size_bytes), size_bytes, &run.pool,
                        NULL) == 0,
           "no pool");
}

/* --- what is written in struct pages ---------------------------------------------------------- */

/* One page of a unit's memmap: its first and last eight bytes. The bitmaps may be in the struct
 * pages of the memmap's own frames; those are not ours. */
static void each_stamp(uint64_t first, void (*each)(uint64_t *at, uint64_t stamp))
{
    const struct memmap_model *model = &run.model;
    const struct memmap_model_block *unit = &model->blocks[first];
    uint64_t begin = first * model->memmap_bytes;
    uint64_t end = begin + unit->nr_blocks * model->memmap_bytes;
    uint64_t kept = unit->nr_head * model->geometry.page_struct_bytes;
    char *window = fake_host(run.machine)->memmap;

    begin += (kept + model->page_bytes - 1) / model->page_bytes * model->page_bytes;
    for (uint64_t at = begin; at < end; at += model->page_bytes) {
        uint64_t stamp = (uint64_t)unit->stamp << 40 | at;

        each((uint64_t *)(void *)(window + at), stamp);
        each((uint64_t *)(void *)(window + at + model->page_bytes - 8), ~stamp);
    }
}

static void write_stamp(uint64_t *at, uint64_t stamp)
{
    *at = stamp;
}

static void read_stamp(uint64_t *at, uint64_t stamp)
{
    ENSURE(*at == stamp, "the struct page at 0x%" PRIx64 " was overwritten",
           (uint64_t)((char *)at - fake_host(run.machine)->memmap));
}

/* --- who backs what --------------------------------------------------------------------------- */

static bool any_table(void *context, unsigned level, uint64_t frame, unsigned nr_used)
{
    (void)context, (void)level, (void)frame, (void)nr_used;
    return true;
}

static bool check_leaf(void *context, uint64_t offset, uint64_t unit_bytes, uint64_t frame)
{
    uint64_t array = frame * run.model.page_bytes;
    bool boot = frame < run.machine->nr_boot_pages;

    (void)context;
    for (uint64_t done = 0; done < unit_bytes; done += run.model.page_bytes) {
        struct memmap_model_page page;

        ENSURE(memmap_model_page(&run.model, offset + done, &page),
               "0x%" PRIx64 " is mapped, and nobody's", offset + done);
        ENSURE(page.unit_bytes == unit_bytes, "0x%" PRIx64 " is mapped in units of 0x%" PRIx64,
               offset + done, unit_bytes);
        ENSURE(page.own != boot, "0x%" PRIx64 " is in %s memory", offset + done,
               boot ? "boot" : "added");
        ENSURE(boot || array + done == run.backing->array + page.address,
               "0x%" PRIx64 " is in another frame of added memory", offset + done);
        run.seen.nr_own_large += !boot && unit_bytes != run.model.page_bytes;
    }
    run.walked_bytes += unit_bytes;
    return true;
}

static void check_window(void)
{
    const struct fake_tables_visitor visitor = {any_table, check_leaf, NULL};
    const struct memmap_model *model = &run.model;
    uint64_t expected_bytes = 0;

    run.walked_bytes = 0;
    fake_tables_walk(&run.machine->memmap_tables, &visitor);
    for (uint64_t at = 0; at < model->window_bytes; at += model->page_bytes) {
        struct memmap_model_page page;

        if (memmap_model_page(model, at, &page))
            expected_bytes += model->page_bytes;
    }
    ENSURE(run.walked_bytes == expected_bytes,
           "0x%" PRIx64 " bytes of the window are mapped, not 0x%" PRIx64, run.walked_bytes,
           expected_bytes);
}

static void check_all(void)
{
    struct memplug_reason reason;
    struct memplug_stat stat;
    struct fake_stat host;
    char text[512];

    if (memplug_check(run.pool, &reason) != 0) {
        memplug_reason_text(&reason, text, sizeof(text));
        ENSURE(false, "%.200s", text);
    }
    ENSURE(fake_check(run.machine, text, sizeof(text)) == 0, "%.200s", text);
    check_window();
    memplug_stat(run.pool, &stat);
    fake_stat(run.machine, &host);
    ENSURE(stat.host_bytes == host.provided_bytes + host.memory_bytes,
           "host_bytes is %" PRIu64 ", not %" PRIu64, stat.host_bytes,
           host.provided_bytes + host.memory_bytes);
    for (uint64_t id = 0; id < run.model.nr_blocks; id++)
        if (run.model.blocks[id].present && run.model.blocks[id].first == id)
            each_stamp(id, read_stamp);
}

/* --- steps ------------------------------------------------------------------------------------ */

/* An absent block in the hole that sharers left; 0: there is none. */
static uint64_t any_hole(void)
{
    uint64_t id = roll(run.model.nr_blocks);

    for (uint64_t i = 0; i < run.model.nr_blocks; i++, id++)
        if (!run.model.blocks[id % run.model.nr_blocks].present &&
            memmap_model_shared(&run.model, id % run.model.nr_blocks))
            return id % run.model.nr_blocks;
    return 0;
}

/* Anything; but often all blocks of some large units, so that these can be shared, and what has
 * left such a unit. */
static struct memmap_request any_request(void)
{
    static const enum memplug_memmap kinds[] = {
        MEMPLUG_MEMMAP_HOST,  MEMPLUG_MEMMAP_HOST, MEMPLUG_MEMMAP_HOST, MEMPLUG_MEMMAP_BLOCK,
        MEMPLUG_MEMMAP_RANGE, MEMPLUG_MEMMAP_AUTO,
    };
    const struct memmap_model *model = &run.model;
    uint64_t per_large = largest(1, model->large_bytes / model->memmap_bytes);
    struct memmap_request request = {
        .anywhere = roll(8) == 0,
        .first = 1 + roll(model->nr_blocks - 1),
        .nr_blocks = 1 + roll(roll(3) != 0 ? 2 : 6),
        .memmap = kinds[roll(6)],
        .pad = roll(6) == 0,
    };

    if (roll(2) == 0 && any_hole() != 0) {
        request.first = any_hole();
        request.nr_blocks = 1 + roll(2);
    } else if (roll(2) == 0) {
        request.first = (request.first + per_large - 1) / per_large * per_large;
        request.nr_blocks = smallest(per_large * (1 + roll(2)) + roll(2), model->nr_blocks / 2);
    }
    if (request.first + request.nr_blocks > model->nr_blocks)
        request.first = model->nr_blocks - request.nr_blocks;
    return request;
}

static void note_added(const struct memmap_request *asked, const struct memmap_request *done)
{
    const struct memmap_model *model = &run.model;
    bool joins = false;

    for (uint64_t id = done->first; id < done->first + done->nr_blocks; id++)
        joins |= memmap_model_shared(model, id);
    run.seen.nr_added++;
    run.seen.nr_joined += joins;
    run.seen.nr_fell_back += joins && asked->memmap == MEMPLUG_MEMMAP_AUTO;
}

static void do_add(void)
{
    struct memmap_request asked = any_request(), done = asked;
    int expected = memmap_model_expect(&run.model, &done);
    struct memplug_reason reason;
    struct memplug_add add;
    int error;

    for (unsigned i = 0; i < 8 && expected == -EEXIST; i++) {
        asked = done = any_request();
        expected = memmap_model_expect(&run.model, &done);
    }
    add = (struct memplug_add){
        .address = asked.anywhere ? MEMPLUG_ANY_ADDRESS : asked.first * run.model.block_bytes,
        .size_bytes = asked.nr_blocks * run.model.block_bytes,
        .memmap = asked.memmap,
        .pad_memmap = asked.pad,
        .backing = run.backing,
        .offset_bytes = done.first * run.model.block_bytes,
    };
    error = memplug_add(run.pool, &add, NULL, &reason);
    ENSURE(error == expected, "add of %" PRIu64 " + %" PRIu64 " as %d: %d, not %d", asked.first,
           asked.nr_blocks, asked.memmap, error, expected);
    ENSURE(error == 0 || reason.why != NULL, "no reason");
    run.seen.nr_in_hole += error == -EBUSY;
    run.seen.nr_refused += error == -EINVAL;
    if (error != 0)
        return;
    ENSURE(add.memmap == done.memmap, "the hint became %d", add.memmap);
    ENSURE(add.address == done.first * run.model.block_bytes, "address 0x%" PRIx64, add.address);
    note_added(&asked, &done);
    memmap_model_add(&run.model, &done, ++run.nr_stamps);
    for (uint64_t id = done.first; id < done.first + done.nr_blocks; id++)
        if (run.model.blocks[id].first == id)
            each_stamp(id, write_stamp);
}

/* The first block of a unit that is there; 0: none. */
static uint64_t any_unit(void)
{
    uint64_t id = roll(run.model.nr_blocks);

    for (uint64_t i = 0; i < run.model.nr_blocks; i++) {
        const struct memmap_model_block *block =
            &run.model.blocks[(id + i) % run.model.nr_blocks];

        if (block->present)
            return block->first;
    }
    return 0;
}

static void set_online(uint64_t first, uint64_t nr_blocks, bool online)
{
    for (uint64_t id = first; id < first + nr_blocks; id++) {
        int error = 0;

        if (run.model.blocks[id].online == online)
            continue;
        error = online ? memplug_online(run.pool, id, 1, MEMPLUG_ONLINE_MOVABLE, NULL, NULL)
                       : memplug_offline(run.pool, id, 1, NULL, NULL);
        ENSURE(error == 0, "block %" PRIu64 " is not %s: %d", id, online ? "online" : "offline",
               error);
        run.model.blocks[id].online = online;
    }
}

static void remove_units(uint64_t first, uint64_t nr_blocks)
{
    const struct memmap_model *model = &run.model;
    int error;

    set_online(first, nr_blocks, false);
    error = memplug_remove(run.pool, first * model->block_bytes, nr_blocks * model->block_bytes,
                           NULL, NULL);
    ENSURE(error == 0, "remove of %" PRIu64 " + %" PRIu64 ": %d", first, nr_blocks, error);
    memmap_model_remove(&run.model, first, nr_blocks);
    run.seen.nr_removed++;
    for (uint64_t id = first; id < first + nr_blocks; id++)
        run.seen.nr_left_over += memmap_model_shared(model, id);
}

/* A unit, more often one that shares; or it and those that follow and are like it. */
static void do_remove(void)
{
    const struct memmap_model_block *blocks = run.model.blocks;
    uint64_t first = any_unit(), end;

    if (first == 0)
        return;
    for (unsigned i = 0; i < 3 && !memmap_model_shared(&run.model, first); i++)
        first = any_unit();
    end = first + blocks[first].nr_blocks;
    while (end < run.model.nr_blocks && blocks[end].present && run.step % 2 == 0 &&
           blocks[end].own == blocks[first].own && roll(2) == 0)
        end += blocks[end].nr_blocks;
    remove_units(first, end - first);
}

static void do_step(void)
{
    uint64_t dice = roll(10), unit;

    if (dice < 5) {
        do_add();
    } else if (dice < 9) {
        do_remove();
    } else {
        unit = any_unit();
        if (unit != 0)
            set_online(unit, run.model.blocks[unit].nr_blocks, roll(2) == 0);
    }
    for (uint64_t i = 0; i < run.model.nr_blocks; i++)
        run.seen.nr_shared += memmap_model_shared(&run.model, i);
}

static void close_run(void)
{
    char text[256] = "";
    uint64_t unit;

    while ((unit = any_unit()) != 0)
        remove_units(unit, run.model.blocks[unit].nr_blocks);
    check_all();
    ENSURE(memplug_close(run.pool, NULL) == 0, "the pool is not empty");
    ENSURE(fake_close(run.machine, text, sizeof(text)) == 0, "left behind: %s", text);
}

static void run_seed(const char *name, const struct memplug_geometry *geometry, uint64_t alignment,
                     unsigned nr_steps)
{
    open_run(name, geometry, alignment);
    for (run.step = 1; run.step <= nr_steps; run.step++) {
        do_step();
        check_all();
    }
    close_run();
}

/* --- tests ------------------------------------------------------------------------------------ */

static void begin(void)
{
    run.seen = (struct seen){0};
    signal(SIGILL, on_trap);
    signal(SIGTRAP, on_trap);
    signal(SIGSEGV, on_trap);
    signal(SIGBUS, on_trap);
}

static void report(unsigned nr_seeds)
{
    print_message("%u seeds: added %u, removed %u, joined %u, left over %u, in a hole %u, fell back"
                  " %u, refused %u, shared %u, own large %u\n",
                  nr_seeds, run.seen.nr_added, run.seen.nr_removed, run.seen.nr_joined,
                  run.seen.nr_left_over, run.seen.nr_in_hole, run.seen.nr_fell_back,
                  run.seen.nr_refused, run.seen.nr_shared, run.seen.nr_own_large);
}

static void test_random_geometries(void **state)
{
    unsigned first = world_setting("MEMPLUG_MEMMAP_FIRST", 1);
    unsigned nr_seeds = world_setting("MEMPLUG_MEMMAP_SEEDS", 60);
    unsigned nr_steps = world_setting("MEMPLUG_MEMMAP_STEPS", 60);

    (void)state;
    begin();
    for (unsigned seed = first; seed < first + nr_seeds; seed++) {
        struct memplug_geometry geometry;
        uint64_t alignment;

        run.seed = run.random = seed;
        geometry = any_geometry();
        alignment = UINT64_C(1) << (geometry.page_shift + (roll(4) == 0 ? roll(4) : 0));
        run_seed("random", &geometry, alignment, nr_steps);
    }
    report(nr_seeds);
    if (nr_seeds < 20)
        return;
    assert_true(run.seen.nr_added > nr_seeds && run.seen.nr_removed > nr_seeds);
    assert_true(run.seen.nr_joined > nr_seeds && run.seen.nr_left_over > nr_seeds);
    assert_true(run.seen.nr_in_hole != 0 && run.seen.nr_fell_back != 0);
    assert_true(run.seen.nr_refused != 0 && run.seen.nr_own_large != 0);
}

/* The machines that have such memmaps. */
static void test_real_geometries(void **state)
{
    static const struct {
        const char *name;
        enum fake_shape shape;
        bool shares; /* with a struct page of 56, 64, 72 bytes, one of them at least */
    } shapes[] = {
        {"s390x", FAKE_S390X, true},
        {"arm64, 16 KiB", FAKE_ARM64_16K, true},
        {"arm64, 64 KiB", FAKE_ARM64_64K, false},
        {"ppc64", FAKE_PPC64, true},
    };
    unsigned first = world_setting("MEMPLUG_MEMMAP_FIRST", 1);
    unsigned nr_seeds = world_setting("MEMPLUG_MEMMAP_SEEDS", 60) / 15;
    unsigned nr_steps = world_setting("MEMPLUG_MEMMAP_STEPS", 24);

    (void)state;
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        begin();
        for (unsigned k = 0; k < 3 * nr_seeds; k++) {
            struct memplug_geometry geometry = fake_geometry(shapes[i].shape);

            run.seed = run.random = first + k / 3;
            geometry.page_struct_bytes = (uint8_t)(56 + 8 * (k % 3));
            geometry.address_limit = smallest(geometry.address_limit >> geometry.block_shift, 140)
                                     << geometry.block_shift;
            run_seed(shapes[i].name, &geometry, UINT64_C(1) << geometry.page_shift, nr_steps);
        }
        print_message("%s: ", shapes[i].name);
        report(3 * nr_seeds);
        assert_true(nr_seeds < 4 ||
                    (shapes[i].shares ? run.seen.nr_joined != 0 : run.seen.nr_shared == 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_geometries),
        cmocka_unit_test(test_real_geometries),
    };

    return cmocka_run_group_tests_name("memmap property", tests, NULL, NULL);
}
