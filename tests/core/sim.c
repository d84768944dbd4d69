/* SPDX-License-Identifier: MIT */
#include "sim.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake/sched.h"

struct sim sim;

uint64_t sim_roll(uint64_t nr)
{
    return fake_random(&sim.random) % nr;
}

void sim_ensure(bool holds, const char *what, int64_t value)
{
    if (!holds)
        fail_msg("%s, seed %" PRIu64 ", step %u, %s: %s: %" PRId64,
                 sim.geometry->name, sim.seed, sim.step, sim.doing, what, value);
}

/* --- content ---------------------------------------------------------------------------------- */

static uint64_t *word_at(uint64_t pfn, bool last)
{
    char *bytes = memplug_page_address(sim.world.pool, (memplug_pfn_t){pfn});

    return (uint64_t *)(void *)(bytes + (last ? sim.model.page_bytes - sizeof(uint64_t) : 0));
}

static void write_content(struct model_slot *slot)
{
    slot->tag = fake_random(&sim.random);
    for (uint32_t i = 0; i < slot->nr_pages; i++) {
        *word_at(slot->pfn + i, false) = slot->tag + i;
        *word_at(slot->pfn + i, true) = ~slot->tag - i;
    }
}

static void verify_content(const struct model_slot *slot)
{
    for (uint32_t i = 0; i < slot->nr_pages; i++)
        sim_ensure(*word_at(slot->pfn + i, false) == slot->tag + i &&
                   *word_at(slot->pfn + i, true) == ~slot->tag - i,
               "the content is lost of frame", (int64_t)(slot->pfn + i));
}

void sim_compare(bool frames)
{
    const char *text = model_compare(&sim.model, sim.world.pool, frames);

    sim_ensure(text == NULL, text != NULL ? text : "", 0);
    if (!frames)
        return;
    world_check(&sim.world);
    for (unsigned slot = 0; slot < MODEL_SLOTS; slot++)
        verify_content(&sim.model.slots[slot]);
}

/* --- allocate and free ------------------------------------------------------------------------ */

/* A slot that is empty, or one that is used; MODEL_SLOTS: there is none. */
static unsigned pick(bool used)
{
    unsigned from = (unsigned)sim_roll(MODEL_SLOTS);

    for (unsigned i = 0; i < MODEL_SLOTS; i++)
        if ((sim.model.slots[(from + i) % MODEL_SLOTS].nr_pages != 0) == used)
            return (from + i) % MODEL_SLOTS;
    return MODEL_SLOTS;
}

static void took(unsigned slot, uint64_t pfn, const struct memplug_alloc *request)
{
    for (uint32_t i = 0; i < request->nr_pages; i++)
        sim_ensure(pfn + i < sim.model.nr_frames && sim.model.owners[pfn + i] == MODEL_FREE,
               "this frame was not free", (int64_t)(pfn + i));
    sim_ensure(pfn + request->nr_pages <= sim.going_first || pfn >= sim.going_end,
           "this frame is isolated", (int64_t)pfn);
    sim.model.slots[slot] = (struct model_slot){.movable = request->mover != 0,
                                                .align = request->align_pages};
    model_take(&sim.model, slot, pfn, request->nr_pages);
    write_content(&sim.model.slots[slot]);
}

static struct memplug_alloc any_request(void)
{
    static const uint32_t small[] = {1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
    static const uint32_t runs[] = {1, 2, 3, 5, 6};
    struct memplug_alloc request = {.mover = sim_roll(3) != 0 ? (uint8_t)sim.mover : 0,
                                    .node = (int)sim_roll(3) - 1};

    request.nr_pages = small[sim_roll(sizeof(small) / sizeof(small[0]))];
    if (sim_roll(6) == 0) {
        request.nr_pages = runs[sim_roll(5)] * (uint32_t)sim.model.pageblock_pages;
        request.align_pages = sim_roll(3) == 0 ? 2 * (uint32_t)sim.model.pageblock_pages : 0;
    }
    request.this_node = request.node != MEMPLUG_ANY_NODE && sim_roll(4) == 0;
    return request;
}

void sim_alloc(void)
{
    struct memplug_alloc request = any_request();
    unsigned slot = pick(false);
    bool drained = sim_roll(2) == 0, found;
    uint64_t lowest = 0;
    memplug_pfn_t pfn;
    int error;

    if (slot == MODEL_SLOTS)
        return;
    if (drained)
        sim_compare(true); /* the dump takes back what CPUs keep at hand */
    request.cookie = slot;
    found = model_find(&sim.model, &request, &lowest);
    fake_set_cpu((unsigned)sim_roll(2));
    error = memplug_alloc(sim.world.pool, &request, &pfn);
    sim_ensure(error == (found ? 0 : -ENOMEM), found ? "there was room" : "there was none", error);
    if (error != 0)
        return;
    sim_ensure(!drained || pfn.nr == lowest, "not the lowest address", (int64_t)pfn.nr);
    took(slot, pfn.nr, &request);
}

void sim_exact(void)
{
    struct memplug_alloc request = {.nr_pages = 1 + (uint32_t)sim_roll(sim_roll(2) ? 4 : 150),
                                    .mover = sim_roll(3) != 0 ? (uint8_t)sim.mover : 0};
    memplug_pfn_t pfn = {sim_roll(sim.model.nr_frames + 9)};
    unsigned slot = pick(false);
    int error;

    if (slot == MODEL_SLOTS)
        return;
    request.cookie = slot;
    error = memplug_alloc_exact(sim.world.pool, pfn, &request);
    sim_ensure(error == model_may_take(&sim.model, pfn.nr, request.nr_pages, request.mover != 0),
           "alloc_exact", error);
    if (error == 0)
        took(slot, pfn.nr, &request);
}

void sim_free(void)
{
    unsigned slot = pick(true);
    struct model_slot *mine = &sim.model.slots[slot];
    int error;

    if (slot == MODEL_SLOTS)
        return;
    verify_content(mine);
    error = memplug_free(sim.world.pool, (memplug_pfn_t){mine->pfn}, mine->nr_pages);
    sim_ensure(error == (mine->nr_pins != 0 ? -EBUSY : 0), "free", error);
    if (error == 0)
        model_free(&sim.model, slot);
}

void sim_wrong_free(void)
{
    uint64_t pfn = sim_roll(sim.model.nr_frames + 9);
    uint32_t nr_pages = (uint32_t)sim_roll(130);
    int expected, error;

    if (sim_roll(2) == 0 && pick(true) != MODEL_SLOTS) /* near an allocation */
        pfn = sim.model.slots[pick(true)].pfn + sim_roll(2);
    expected = model_may_free(&sim.model, pfn, nr_pages);
    if (expected == 0)
        return;
    error = memplug_free(sim.world.pool, (memplug_pfn_t){pfn}, nr_pages);
    sim_ensure(error == expected, "a wrong free", error);
}

void sim_pin(void)
{
    unsigned slot = pick(true);
    struct model_slot *mine = &sim.model.slots[slot];
    bool unpin = sim_roll(3) != 0;
    int expected, error;

    if (slot == MODEL_SLOTS)
        return;
    expected = mine->movable && (!unpin || mine->nr_pins != 0) ? 0 : -EINVAL;
    error = unpin ? memplug_unpin(sim.world.pool, (memplug_pfn_t){mine->pfn})
                  : memplug_pin(sim.world.pool, (memplug_pfn_t){mine->pfn});
    sim_ensure(error == expected, unpin ? "unpin" : "pin", error);
    if (error == 0)
        mine->nr_pins += unpin ? -1u : 1u;
}

/* --- the mover -------------------------------------------------------------------------------- */

static void alloc_inside(void)
{
    struct memplug_alloc request = {.nr_pages = 1 + (uint32_t)sim_roll(2), .node = MEMPLUG_ANY_NODE,
                                    .mover = sim_roll(2) ? (uint8_t)sim.mover : 0};
    unsigned slot = pick(false);
    memplug_pfn_t pfn;

    request.cookie = slot;
    if (slot != MODEL_SLOTS && memplug_alloc(sim.world.pool, &request, &pfn) == 0)
        took(slot, pfn.nr, &request);
    sim.nr_inside++;
}

static int move_one(const struct memplug_move *move)
{
    struct model_slot *slot = &sim.model.slots[move->cookie % MODEL_SLOTS];
    uint64_t align = move->nr_pages;

    sim_ensure(move->cookie < MODEL_SLOTS && (slot->nr_pages == 0 || slot->movable),
           "a move of a page that cannot", (int64_t)move->cookie);
    if (slot->nr_pages == 0 || slot->pfn != move->from.nr)
        return -ENOENT;
    sim_ensure(slot->nr_pages == move->nr_pages && slot->nr_pins == 0, "move", move->nr_pages);
    if (sim_roll(10) == 0) {
        sim.nr_refused++;
        return -EBUSY;
    }
    if (sim_roll(24) == 0) { /* its owner has no use for it any more */
        sim_ensure(memplug_free(sim.world.pool, move->from, move->nr_pages) == 0, "free inside", 0);
        model_free(&sim.model, (unsigned)move->cookie);
        return -ENOENT;
    }
    verify_content(slot);
    sim_ensure((align & (align - 1)) != 0 || align > 512 || move->to.nr % align == 0,
           "the target is not aligned", (int64_t)move->to.nr);
    sim_ensure(slot->align == 0 || move->to.nr % slot->align == 0, "not as aligned as asked for",
           (int64_t)move->to.nr);
    for (uint32_t i = 0; i < move->nr_pages; i++) {
        *word_at(move->to.nr + i, false) = *word_at(slot->pfn + i, false);
        *word_at(move->to.nr + i, true) = *word_at(slot->pfn + i, true);
        sim_ensure(sim.model.owners[move->to.nr + i] == MODEL_FREE, "the target is not free", i);
        sim_ensure(move->to.nr + i < sim.going_first || move->to.nr + i >= sim.going_end,
               "the target is isolated", (int64_t)move->to.nr);
    }
    for (uint32_t i = 0; i < move->nr_pages; i++)
        sim.model.owners[slot->pfn + i] = MODEL_FREE;
    model_take(&sim.model, (unsigned)move->cookie, move->to.nr, move->nr_pages);
    return 0;
}

static void sim_move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++) {
        moves[i].result = move_one(&moves[i]);
        if (sim_roll(16) == 0)
            alloc_inside();
    }
}

const struct memplug_mover sim_mover = {.name = "sim", .batch_max = 9, .move = sim_move};
