/* SPDX-License-Identifier: MIT */
/* A CPU that runs a task: it reads and writes all pages, round by round, through its own tables. */
#include "task.h"

#include "io.h"

#define IDLE_NS 1000000u
#define TOGGLE_NS ((uint64_t)5000000000) /* for an offline that somebody is in the way of */
#define REST_NS 20000000u /* a CPU without a task is called by an interrupt, and looks too */
#define CHURN 16u /* one page of so many is another in each round */

struct bare_toggle bare_toggles[BARE_MAX_CPUS];

static void wrong(struct bare_task *task, uint64_t unit, unsigned word, uint64_t found,
                  uint64_t wanted)
{
    if (!task->nr_wrong) {
        task->wrong_unit = unit;
        task->wrong_word = word;
        task->wrong_found = found;
        task->wrong_wanted = wanted;
    }
    __atomic_fetch_add(&task->nr_wrong, 1, __ATOMIC_RELAXED);
}

/* Each word holds what the round before wrote, and then what this one writes. */
static void work_on_page(struct bare_task *task, uint64_t unit, uint64_t page)
{
    uint64_t address = bare_task_address(task, unit) + page;

    for (unsigned word = 0; word < BARE_WORDS; word++) {
        uint64_t at = address + word * (BARE_PAGE / BARE_WORDS), found;
        uint64_t wanted = bare_unit_word(task, unit, task->round - 1, word) ^ page;

        if (!bare_load(at, &found))
            return;
        if (found != wanted)
            wrong(task, unit, word, found, wanted);
        if (!bare_store(at, bare_unit_word(task, unit, task->round, word) ^ page))
            return;
    }
}

/* A page that was not touched just now goes, also while it is being moved; another comes. */
static void replace(struct bare_task *task, uint64_t unit)
{
    if (*bare_task_entry(task, unit, 0) & BARE_LOST)
        return;
    bare_unit_free(task, unit);
    while (bare_unit_new(task, unit))
        bare_sleep(IDLE_NS);
    task->nr_replaced++;
}

static bool go_round(struct bare_task *task)
{
    task->at = 0;
    task->round++;
    for (uint64_t unit = 0; unit < task->nr_units; unit++) {
        if (__atomic_load_n(&task->stop, __ATOMIC_ACQUIRE))
            return false;
        for (uint64_t page = 0; page < task->unit_bytes; page += BARE_PAGE)
            work_on_page(task, unit, page);
        task->at = unit + 1;
        if (task->churn && unit % CHURN == task->round % CHURN)
            replace(task, (unit + task->nr_units / 2) % task->nr_units);
    }
    return true;
}

static void toggle(struct bare_toggle *toggle)
{
    static const struct memplug_limit limit = {.timeout_ns = TOGGLE_NS, .tries = UINT32_MAX};

    while (!__atomic_load_n(&toggle->stop, __ATOMIC_ACQUIRE)) {
        int error = memplug_offline(bare_pool, toggle->block, 1, &limit, NULL);

        toggle->nr_offline += !error;
        if (!error) {
            error = memplug_online(bare_pool, toggle->block, 1, MEMPLUG_ONLINE_MOVABLE,
                                   &limit, NULL);
            toggle->nr_online += !error;
        }
        toggle->nr_failed += error != 0;
        toggle->error = error ? error : toggle->error;
    }
    __atomic_store_n(&toggle->running, 0, __ATOMIC_RELEASE);
}

void bare_work(unsigned index)
{
    struct bare_cpu *cpu = &bare_cpus[index];

    for (;;) {
        struct bare_task *task = __atomic_load_n(&cpu->task, __ATOMIC_ACQUIRE);

        if (__atomic_load_n(&bare_toggles[index].running, __ATOMIC_ACQUIRE))
            toggle(&bare_toggles[index]);
        if (!task) {
            bare_sleep(REST_NS);
            continue;
        }
        write_cr3(task->root);
        while (go_round(task))
            continue;
        write_cr3(bare_root);
        __atomic_store_n(&cpu->task, NULL, __ATOMIC_RELEASE);
        __atomic_store_n(&task->running, 0, __ATOMIC_RELEASE);
    }
}
