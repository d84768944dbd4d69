/* SPDX-License-Identifier: MIT */
/*
 * The mover: fence, copy, switch. An entry that is cleared stops every CPU at its next access, once
 * all have forgotten it; what they had written before is in the page by then. The handler of the
 * fault sleeps a little and lets them try again until the entry is back.
 */
#include "task.h"

#include <memplug/huge.h>

#define FENCED_NS 50000u

uint8_t bare_mover;
bool bare_fence = true;
struct bare_backing bare_gone;

extern char bare_access[], bare_access_end[], bare_access_failed[];

static struct bare_task *task_of(uint64_t cookie, uint64_t *unit)
{
    struct bare_task *task = &bare_tasks[cookie >> 32 & (BARE_MAX_TASKS - 1)];

    *unit = cookie & UINT32_MAX;
    return task->name[0] && *unit < task->nr_units ? task : NULL;
}

/* Is it there, at these frames, and nobody else's just now? */
static bool is_at(const struct bare_task *task, uint64_t unit, memplug_pfn_t pfn)
{
    uint64_t entry = *bare_task_entry(task, unit, 0);

    return (entry & BARE_PRESENT) && (entry & BARE_FRAME) == pfn.nr * BARE_PAGE;
}

static bool is_gone(memplug_pfn_t pfn)
{
    return pfn.nr * BARE_PAGE - bare_gone.address < bare_gone.size_bytes;
}

static void mark_lost(struct bare_task *task, uint64_t unit)
{
    for (uint64_t i = 0; i < task->unit_bytes; i += task->entry_bytes) {
        volatile uint64_t *entry = bare_task_entry(task, unit, i);

        *entry = (*entry & BARE_IS_LARGE) | BARE_LOST;
    }
    task->nr_lost++;
}

static void fence_one(struct memplug_move *move)
{
    uint64_t unit;
    struct bare_task *task = task_of(move->cookie, &unit);

    move->result = -BARE_ENOENT;
    if (!task)
        return;
    bare_spin_lock(&task->spin);
    if (is_at(task, unit, move->from) && is_gone(move->from)) {
        move->result = -BARE_EIO;
        mark_lost(task, unit);
    } else if (is_at(task, unit, move->from)) {
        move->result = 0;
        for (uint64_t i = 0; bare_fence && i < task->unit_bytes; i += task->entry_bytes) {
            volatile uint64_t *entry = bare_task_entry(task, unit, i);

            *entry = (*entry & ~(uint64_t)BARE_PRESENT) | BARE_MOVING;
        }
    }
    bare_spin_unlock(&task->spin);
}

static void switch_one(struct memplug_move *move)
{
    uint64_t unit, keep = BARE_WRITE | BARE_NX | BARE_IS_LARGE | BARE_PRESENT;
    struct bare_task *task = task_of(move->cookie, &unit);

    memcpy(bare_direct(move->to.nr * BARE_PAGE), bare_direct(move->from.nr * BARE_PAGE),
           task->unit_bytes);
    bare_spin_lock(&task->spin);
    for (uint64_t i = 0; i < task->unit_bytes; i += task->entry_bytes) {
        volatile uint64_t *entry = bare_task_entry(task, unit, i);

        *entry = (*entry & keep) | BARE_PRESENT | (move->to.nr * BARE_PAGE + i);
    }
    bare_spin_unlock(&task->spin);
}

/* Nobody sees it any more: its owner gives it back, which the core remembers until this is over. */
static void free_lost(struct memplug_move *move)
{
    uint64_t unit;
    const struct bare_task *task = task_of(move->cookie, &unit);
    bool huge = task->kind == BARE_HUGE || task->kind == BARE_GIGANTIC;
    int error = huge ? memplug_huge_free(bare_pool, move->from)
                     : memplug_free(bare_pool, move->from, move->nr_pages);

    if (error)
        bare_panic("%s: a lost page at pfn %lx cannot be given back: error %d", task->name,
                   move->from.nr, -error);
    move->result = -BARE_ENOENT;
}

/* One shootdown for all that are fenced. The switch needs none: no CPU remembers what is absent. */
static void move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++)
        fence_one(&moves[i]);
    bare_flush();
    for (unsigned i = 0; i < nr_moves; i++) {
        if (!moves[i].result)
            switch_one(&moves[i]);
        else if (moves[i].result == -BARE_EIO)
            free_lost(&moves[i]);
    }
    if (!bare_fence)
        bare_flush();
}

/* The frames' content is gone: whoever touches it is told. */
static int lost(void *context, memplug_pfn_t pfn, uint32_t nr_pages, uint64_t cookie)
{
    uint64_t unit;
    struct bare_task *task = task_of(cookie, &unit);
    bool found;

    (void)context;
    (void)nr_pages;
    if (!task)
        return -BARE_ENOENT;
    bare_spin_lock(&task->spin);
    found = is_at(task, unit, pfn);
    if (found)
        mark_lost(task, unit);
    bare_spin_unlock(&task->spin);
    if (found)
        bare_flush();
    return found ? 0 : -BARE_ENOENT;
}

bool bare_task_fault(struct bare_cpu *cpu, uint64_t address, uint64_t *rip)
{
    const struct bare_task *task = cpu->task;
    uint64_t unit, entry;

    if (!task || address < BARE_TASK || address - BARE_TASK >= task->nr_units * task->unit_bytes)
        return false;
    unit = (address - BARE_TASK) / task->unit_bytes;
    entry = *bare_task_entry(task, unit, (address - BARE_TASK) % task->unit_bytes);
    if ((entry & BARE_LOST) && !(entry & BARE_PRESENT) && *rip >= (uintptr_t)bare_access &&
        *rip < (uintptr_t)bare_access_end) {
        *rip = (uintptr_t)bare_access_failed;
        return true;
    }
    if (entry & BARE_MOVING)
        bare_sleep(FENCED_NS);
    return entry & (BARE_PRESENT | BARE_MOVING);
}

void bare_tasks_start(void)
{
    static const struct memplug_mover mover = {
        .name = "task", .move = move, .lost = lost};
    int number = memplug_register_mover(bare_pool, &mover);

    if (number < 0)
        bare_panic("the mover is refused: error %d", -number);
    bare_mover = (uint8_t)number;
}
