/* SPDX-License-Identifier: MIT */
/*
 * Who uses memory: tasks with page tables of their own, whose pages a mover moves while other CPUs
 * read and write them. What a task has is what its tables map: there is no second record. Its pages
 * hold words that follow from the task, the page and the round of writing, so that a single store
 * that is lost is seen.
 */
#ifndef BARE_TASK_H
#define BARE_TASK_H

#include "bare.h"

#define BARE_MAX_TASKS 256u
#define BARE_NAME_BYTES 32u
#define BARE_LOST 0x800u /* of an entry that is not present: the content is gone for ever */

enum bare_kind { BARE_MOVABLE, BARE_PINNED, BARE_KERNEL, BARE_HUGE, BARE_GIGANTIC };

struct bare_task {
    char name[BARE_NAME_BYTES];
    enum bare_kind kind;
    uint64_t root;
    uint64_t nr_units, unit_bytes; /* what is allocated and moved as one */
    uint64_t entry_bytes;          /* what an entry maps: a page or a large page */
    uint64_t nr_pinned;            /* of the first units */
    uint64_t nr_reserved;          /* huge pages that are promised to it */
    uint64_t seed;
    struct bare_spin spin; /* an entry that the mover or the owner changes */

    /* Of the CPU that runs it. Units below `at` are in `round`, the others in the one before. */
    uint64_t round, at;
    uint64_t nr_wrong, nr_lost, nr_replaced;
    uint64_t wrong_unit, wrong_word, wrong_found, wrong_wanted; /* the first */
    bool churn; /* it gives pages back and takes others while it runs */
    uint32_t stop, running;
};

/* A CPU that takes a block offline and puts it online again, in turn, beside the console. */
struct bare_toggle {
    uint64_t block;
    uint64_t nr_offline, nr_online, nr_failed;
    int error; /* the last one */
    uint32_t stop, running;
};

extern struct bare_toggle bare_toggles[BARE_MAX_CPUS];
extern struct bare_task bare_tasks[BARE_MAX_TASKS]; /* unused: no name */
extern uint8_t bare_mover;                          /* its number in the pool */

/* For the tests of the test: the mover leaves the entry as it is while it copies. */
extern bool bare_fence;

/* Memory that is gone: pages there are not copied, their tasks are told that they are lost. */
extern struct bare_backing bare_gone;

void bare_tasks_start(void);

static inline uint64_t bare_task_address(const struct bare_task *task, uint64_t unit)
{
    return BARE_TASK + unit * task->unit_bytes;
}

/* The entry of a unit's first page; there always is one. */
volatile uint64_t *bare_task_entry(const struct bare_task *task, uint64_t unit, uint64_t offset);
/* Take memory for a unit and map it; written in the round that it is in. */
int bare_unit_new(struct bare_task *task, uint64_t unit);
void bare_unit_free(struct bare_task *task, uint64_t unit);
/* Write the words of a unit's round through the direct map, or look at them. */
void bare_unit_stamp(struct bare_task *task, uint64_t unit);
bool bare_unit_verify(struct bare_task *task, uint64_t unit);
uint64_t bare_unit_word(const struct bare_task *task, uint64_t unit, uint64_t round,
                        unsigned word);

/* So many words of each page are written. */
#define BARE_WORDS 16u

/* What CPU other than 0 does: its task's rounds, or sleep. */
void bare_work(unsigned index);

/* A load and a store that may meet a page that is lost: false. In start.S. */
bool bare_load(uint64_t address, uint64_t *value);
bool bare_store(uint64_t address, uint64_t value);

/* A page fault: true if the access is to be tried again; *rip may be another by then. */
bool bare_task_fault(struct bare_cpu *cpu, uint64_t address, uint64_t *rip);

/* For the handler of BARE_VECTOR_FLUSH. */
void bare_flush_here(struct bare_cpu *cpu);

#endif
