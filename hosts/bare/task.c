/* SPDX-License-Identifier: MIT */
/* Tasks: what they have, and the words of the console by which they come and go. */
#include "task.h"

#include "console.h"

#include <memplug/huge.h>

#define MIB ((uint64_t)1 << 20)
#define MAX_BLOCKS 4096u /* of a pool */
#define PIPE_PAGES 16u /* so many a pipe holds: the others of a vmsplice are plain memory */

struct bare_task bare_tasks[BARE_MAX_TASKS];

static const struct {
    const char *name; /* what a kind's name begins with */
    enum bare_kind kind;
    uint64_t unit_bytes;
    bool whole_pipe; /* only what fits into a pipe is pinned */
} kinds[] = {
    {"hugetlb", BARE_HUGE, BARE_LARGE, false},   {"gigantic", BARE_GIGANTIC, BARE_GIB, false},
    {"thp", BARE_MOVABLE, BARE_LARGE, false},    {"vmsplice", BARE_PINNED, BARE_PAGE, true},
    {"pinned", BARE_PINNED, BARE_PAGE, false},   {"kernel", BARE_KERNEL, BARE_PAGE, false},
    {"slab", BARE_KERNEL, BARE_PAGE, false},     {"ramfs", BARE_KERNEL, BARE_PAGE, false},
    {"anon", BARE_MOVABLE, BARE_PAGE, false},    {"mlock", BARE_MOVABLE, BARE_PAGE, false},
    {"tmpfs", BARE_MOVABLE, BARE_PAGE, false},
};

static struct bare_task *find_task(const char *name)
{
    for (unsigned i = 0; i < BARE_MAX_TASKS; i++)
        if (!strcmp(bare_tasks[i].name, name))
            return &bare_tasks[i];
    return NULL;
}

volatile uint64_t *bare_task_entry(const struct bare_task *task, uint64_t unit, uint64_t offset)
{
    uint64_t found;

    return bare_entry(task->root, bare_task_address(task, unit) + offset, &found);
}

static enum memplug_huge huge_size(const struct bare_task *task)
{
    return task->kind == BARE_GIGANTIC ? MEMPLUG_HUGE_PUD : MEMPLUG_HUGE_PMD;
}

static bool is_huge(const struct bare_task *task)
{
    return task->kind == BARE_HUGE || task->kind == BARE_GIGANTIC;
}

/* --- a unit ----------------------------------------------------------------------------------- */

/* Born pinned: it is moved only when its entry says where it is. */
static int take(struct bare_task *task, uint64_t unit, memplug_pfn_t *pfn)
{
    struct memplug_alloc request = {
        .nr_pages = (uint32_t)(task->unit_bytes / BARE_PAGE), .node = MEMPLUG_ANY_NODE,
        .mover = bare_mover, .pinned = true,
        .cookie = (uint64_t)(task - bare_tasks) << 32 | unit};
    int error;

    if (is_huge(task)) {
        error = memplug_huge_alloc(bare_pool, huge_size(task), &request, task->nr_reserved, pfn);
        task->nr_reserved -= !error && task->nr_reserved;
        return error;
    }
    if (task->kind == BARE_KERNEL) {
        request.mover = 0;
        request.pinned = false;
    }
    return memplug_alloc(bare_pool, &request, pfn);
}

static void give_back(struct bare_task *task, uint64_t unit, memplug_pfn_t pfn)
{
    uint32_t nr_pages = (uint32_t)(task->unit_bytes / BARE_PAGE);
    int error = unit < task->nr_pinned ? memplug_unpin(bare_pool, pfn) : 0;

    if (!error)
        error = is_huge(task) ? memplug_huge_free(bare_pool, pfn)
                              : memplug_free(bare_pool, pfn, nr_pages);
    if (error)
        bare_panic("%s: unit %lu at pfn %lx is not its own: error %d", task->name, unit, pfn.nr,
                   -error);
}

uint64_t bare_unit_word(const struct bare_task *task, uint64_t unit, uint64_t round, unsigned word)
{
    uint64_t x = task->seed + unit * 0x9e3779b97f4a7c15u + round * 0xbf58476d1ce4e5b9u + word;

    x ^= x >> 31;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 29;
}

static uint64_t round_of(const struct bare_task *task, uint64_t unit)
{
    return unit < task->at || !task->round ? task->round : task->round - 1;
}

/* Write what a unit holds in its round, or look whether it does: through the direct map. */
static bool stamp(struct bare_task *task, uint64_t unit, bool write)
{
    uint64_t frame = *bare_task_entry(task, unit, 0) & BARE_FRAME, round = round_of(task, unit);
    bool good = true;

    for (unsigned word = 0; word < BARE_WORDS; word++) {
        uint64_t value = bare_unit_word(task, unit, round, word);

        for (uint64_t page = 0; page < task->unit_bytes; page += BARE_PAGE) {
            uint64_t *at = bare_direct(frame + page + word * (BARE_PAGE / BARE_WORDS));

            if (write)
                *at = value ^ page;
            else
                good &= *at == (value ^ page);
        }
    }
    return good;
}

void bare_unit_stamp(struct bare_task *task, uint64_t unit)
{
    stamp(task, unit, true);
}

bool bare_unit_verify(struct bare_task *task, uint64_t unit)
{
    return (*bare_task_entry(task, unit, 0) & BARE_LOST) || stamp(task, unit, false);
}

int bare_unit_new(struct bare_task *task, uint64_t unit)
{
    memplug_pfn_t pfn;
    int error = take(task, unit, &pfn);
    bool pinned = unit < task->nr_pinned || task->kind == BARE_KERNEL;

    if (error)
        return error;
    error = bare_map(task->root, bare_task_address(task, unit), pfn.nr * BARE_PAGE,
                     task->unit_bytes, task->entry_bytes, BARE_WRITE | BARE_NX);
    if (!error)
        bare_unit_stamp(task, unit);
    if (!pinned && memplug_unpin(bare_pool, pfn))
        bare_panic("a page that was born pinned is not");
    if (error)
        give_back(task, unit, pfn);
    return error;
}

/* What the mover has just now is waited for. */
static uint64_t take_entry(struct bare_task *task, uint64_t unit)
{
    volatile uint64_t *entry = bare_task_entry(task, unit, 0);
    uint64_t was;

    for (;;) {
        bare_spin_lock(&task->spin);
        was = *entry;
        if (!(was & BARE_MOVING))
            break;
        bare_spin_unlock(&task->spin);
        __builtin_ia32_pause();
    }
    for (uint64_t i = 0; i < task->unit_bytes; i += task->entry_bytes)
        *bare_task_entry(task, unit, i) &= ~(uint64_t)BARE_PRESENT;
    bare_spin_unlock(&task->spin);
    return was;
}

void bare_unit_free(struct bare_task *task, uint64_t unit)
{
    uint64_t was = take_entry(task, unit);

    bare_unmap(task->root, bare_task_address(task, unit), task->unit_bytes);
    if (was & BARE_PRESENT)
        give_back(task, unit, (memplug_pfn_t){(was & BARE_FRAME) / BARE_PAGE});
}

/* --- a task ----------------------------------------------------------------------------------- */

/* One shootdown for all of it: the mover leaves alone what is not present. */
static void end_task(struct bare_task *task)
{
    for (uint64_t unit = 0; unit < task->nr_units; unit++)
        take_entry(task, unit);
    bare_flush();
    for (uint64_t unit = 0; unit < task->nr_units; unit++) {
        uint64_t was = *bare_task_entry(task, unit, 0);

        if (!(was & BARE_LOST))
            give_back(task, unit, (memplug_pfn_t){(was & BARE_FRAME) / BARE_PAGE});
    }
    bare_unmap(task->root, BARE_TASK, task->nr_units * task->unit_bytes);
    if (task->nr_reserved &&
        memplug_huge_unreserve(bare_pool, huge_size(task), task->nr_reserved))
        bare_panic("the pool has lost a promise of huge pages");
    bare_space_free(task->root);
    *task = (struct bare_task){.kind = BARE_MOVABLE};
}

/* A mapping of huge pages promises all of them first, as mmap does. */
static int fill_task(struct bare_task *task, uint64_t nr_units)
{
    int error = 0;

    if (is_huge(task)) {
        error = memplug_huge_reserve(bare_pool, huge_size(task), nr_units);
        task->nr_reserved = error ? 0 : nr_units;
    }
    for (uint64_t i = 0; i < nr_units && !error; i++) {
        task->nr_units = i + 1;
        error = bare_unit_new(task, i);
        if (error)
            task->nr_units = i;
    }
    return error;
}

/* "16" is MiB, "64K" is KiB. */
static bool read_size(char *text, uint64_t *size_bytes)
{
    size_t length = strlen(text);
    bool small = length && text[length - 1] == 'K';

    if (small)
        text[length - 1] = '\0';
    if (!bare_number(text, size_bytes) || *size_bytes >= MIB)
        return false;
    *size_bytes *= small ? 1024 : MIB;
    return true;
}

static int hog(char **argument, struct memplug_reason *reason)
{
    static uint64_t nr_tasks;
    struct bare_task *task = find_task("");
    uint64_t wanted_bytes, size_bytes;
    unsigned kind = 0, nr_kinds = sizeof(kinds) / sizeof(kinds[0]);
    int error;

    (void)reason;
    while (kind < nr_kinds && strncmp(argument[1], kinds[kind].name, strlen(kinds[kind].name)))
        kind++;
    if (kind == nr_kinds || !read_size(argument[2], &wanted_bytes) ||
        strlen(argument[0]) >= BARE_NAME_BYTES)
        return -BARE_EINVAL;
    if (find_task(argument[0]))
        return -BARE_EEXIST;
    if (!task)
        return -BARE_ENOSPC;
    size_bytes = kinds[kind].unit_bytes;
    *task = (struct bare_task){
        .kind = kinds[kind].kind, .unit_bytes = size_bytes,
        .entry_bytes = size_bytes == BARE_PAGE ? BARE_PAGE : BARE_LARGE,
        .nr_pinned = kinds[kind].kind != BARE_PINNED ? 0
                     : kinds[kind].whole_pipe        ? PIPE_PAGES
                                                     : UINT64_MAX,
        .seed = ++nr_tasks * 0x2545f4914f6cdd1du};
    error = bare_space_new(&task->root);
    if (error)
        return error;
    bare_format(task->name, BARE_NAME_BYTES, "%s", argument[0]);
    error = fill_task(task, (wanted_bytes + size_bytes - 1) / size_bytes);
    if (error)
        end_task(task);
    return error;
}

static int unhog(char **argument, struct memplug_reason *reason)
{
    struct bare_task *task = find_task(argument[0]);

    (void)reason;
    if (!task || !argument[0][0])
        return -BARE_ESRCH;
    if (__atomic_load_n(&task->running, __ATOMIC_ACQUIRE))
        return -BARE_EBUSY;
    end_task(task);
    return 0;
}

/* In which blocks its pages are. */
static int where(char **argument, struct memplug_reason *reason)
{
    static uint64_t counts[MAX_BLOCKS];
    const struct bare_task *task = find_task(argument[0]);
    uint64_t nr_blocks = memplug_nr_blocks_max(bare_pool), unit;

    (void)reason;
    if (!task || !argument[0][0])
        return -BARE_ESRCH;
    memset(counts, 0, sizeof(counts));
    for (uint64_t at = 0; at < task->nr_units * task->unit_bytes; at += task->entry_bytes) {
        uint64_t entry = *bare_entry(task->root, BARE_TASK + at, &unit);

        if (entry & (BARE_PRESENT | BARE_MOVING))
            counts[(entry & BARE_FRAME) / bare_block_bytes()] += task->entry_bytes / BARE_PAGE;
    }
    for (uint64_t block = 0; block < nr_blocks && block < MAX_BLOCKS; block++)
        if (counts[block])
            bare_say("%lu %lu\n", block, counts[block]);
    return 0;
}

/* Is everything that all tasks wrote where their tables say? Of those that do not run. */
static int verify(char **argument, struct memplug_reason *reason)
{
    (void)argument;
    (void)reason;
    for (unsigned i = 0; i < BARE_MAX_TASKS; i++) {
        struct bare_task *task = &bare_tasks[i];

        for (uint64_t unit = 0; unit < task->nr_units && !task->running; unit++)
            if (!bare_unit_verify(task, unit))
                bare_say("%s %lu at pfn %lx\n", task->name, unit,
                         (*bare_task_entry(task, unit, 0) & BARE_FRAME) / BARE_PAGE);
    }
    return 0;
}

/* --- running ---------------------------------------------------------------------------------- */

static int run(char **argument, struct memplug_reason *reason)
{
    struct bare_task *task = find_task(argument[0]);
    uint64_t cpu;

    (void)reason;
    if (!task || !argument[0][0])
        return -BARE_ESRCH;
    if (!bare_number(argument[1], &cpu) || !cpu || cpu >= bare_nr_cpus)
        return -BARE_EINVAL;
    if (task->running || __atomic_load_n(&bare_cpus[cpu].task, __ATOMIC_ACQUIRE))
        return -BARE_EBUSY;
    task->churn = !strcmp(argument[2], "churn") && task->kind == BARE_MOVABLE;
    task->stop = 0;
    __atomic_store_n(&task->running, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&bare_cpus[cpu].task, task, __ATOMIC_RELEASE);
    bare_apic_send(bare_cpus[cpu].apic_id, BARE_VECTOR_WAKE);
    return 0;
}

static int stop(char **argument, struct memplug_reason *reason)
{
    struct bare_task *task = find_task(argument[0]);

    (void)reason;
    if (!task || !argument[0][0])
        return -BARE_ESRCH;
    __atomic_store_n(&task->stop, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&task->running, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
    return 0;
}

static int tasks(char **argument, struct memplug_reason *reason)
{
    (void)argument;
    (void)reason;
    for (unsigned i = 0; i < BARE_MAX_TASKS; i++) {
        const struct bare_task *task = &bare_tasks[i];

        if (!task->name[0])
            continue;
        bare_say("%s units %lu running %u round %lu wrong %lu lost %lu replaced %lu\n",
                 task->name, task->nr_units, task->running, task->round, task->nr_wrong,
                 task->nr_lost, task->nr_replaced);
        if (task->nr_wrong)
            bare_say("%s first wrong: unit %lu word %lu found %lx wanted %lx\n", task->name,
                     task->wrong_unit, task->wrong_word, task->wrong_found, task->wrong_wanted);
    }
    return 0;
}

/* Another CPU takes this block offline and online until it is told to stop. */
static int toggle(char **argument, struct memplug_reason *reason)
{
    uint64_t block, cpu;

    (void)reason;
    if (!bare_number(argument[0], &block) || !bare_number(argument[1], &cpu) || !cpu ||
        cpu >= bare_nr_cpus)
        return -BARE_EINVAL;
    if (bare_toggles[cpu].running || bare_cpus[cpu].task)
        return -BARE_EBUSY;
    bare_toggles[cpu] = (struct bare_toggle){.block = block};
    __atomic_store_n(&bare_toggles[cpu].running, 1, __ATOMIC_RELEASE);
    bare_apic_send(bare_cpus[cpu].apic_id, BARE_VECTOR_WAKE);
    return 0;
}

static int untoggle(char **argument, struct memplug_reason *reason)
{
    struct bare_toggle *toggle;
    uint64_t cpu;

    (void)reason;
    if (!bare_number(argument[0], &cpu) || cpu >= bare_nr_cpus)
        return -BARE_EINVAL;
    toggle = &bare_toggles[cpu];
    __atomic_store_n(&toggle->stop, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&toggle->running, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
    bare_say("offline %lu\nonline %lu\nfailed %lu\nerror %d\n", toggle->nr_offline,
             toggle->nr_online, toggle->nr_failed, -toggle->error);
    return 0;
}

/* What keeps content: "fence" and "flush", "on" or "off". Off shows that the tests can see it. */
static int protection(char **argument, struct memplug_reason *reason)
{
    bool *what = !strcmp(argument[0], "fence")   ? &bare_fence
                 : !strcmp(argument[0], "flush") ? &bare_flush_others
                                                 : NULL;

    (void)reason;
    if (!what || (strcmp(argument[1], "on") && strcmp(argument[1], "off")))
        return -BARE_EINVAL;
    *what = argument[1][1] == 'n';
    return 0;
}

const struct bare_word bare_task_words[] = {
    {"hog", 3, hog},       {"unhog", 1, unhog}, {"where", 1, where},
    {"verify", 0, verify}, {"run", 3, run},     {"stop", 1, stop},
    {"tasks", 0, tasks},   {"toggle", 2, toggle}, {"untoggle", 1, untoggle},
    {"protection", 2, protection}, {NULL, 0, NULL}};
