/* SPDX-License-Identifier: MIT */
#include "steps.h"

#include "hog.h"
#include "virtio_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct counter {
    const struct machine *machine;
    json_t *counts;
};

static void count(void *context, uint64_t block, uint64_t nr_pages)
{
    struct counter *counter = context;
    char name[24];

    record_block_name(counter->machine, block, name, sizeof(name));
    json_put(counter->counts, name, json_integer((json_int_t)nr_pages));
}

static void put_where(struct machine *machine, const char *name, json_t *record)
{
    struct counter counter = {.machine = machine, .counts = must_json(json_object())};

    if (hog_where(machine, name, count, &counter))
        json_put(record, "msg", json_string("there is no such process"));
    json_put(record, "pages_by_block", counter.counts);
}

static int step_hog(struct machine *machine, const struct step *step, json_t *record)
{
    uint64_t nr_mib = strtoull(step->words[3], NULL, 10);
    int error = hog_start(machine, step->words[1], step->words[2], nr_mib);

    json_put(record, "msg",
             json_sprintf("%s errno=%d", error ? "failed" : "ready", error ? -error : 0));
    if (!error)
        put_where(machine, step->words[1], record);
    return 0;
}

static int step_where(struct machine *machine, const struct step *step, json_t *record)
{
    put_where(machine, step->words[1], record);
    return 0;
}

static int step_unhog(struct machine *machine, const struct step *step, json_t *record)
{
    int error = hog_end(machine, step->words[1]);

    if (error)
        json_put(record, "msg", json_string("there is no such process"));
    else
        json_put(record, "killed", json_integer(1));
    return 0;
}

static int step_kpf(struct machine *machine, const struct step *step, json_t *record)
{
    uint64_t nr_pages = machine_block_bytes(machine) >> LAYOUT_PAGE_SHIFT, block = 0, offset = 0;
    uint64_t count_of = nr_pages;
    bool in_window = false;

    if (!parse_block(step->words[1], &in_window, &block))
        return 0;
    if (step->nr_words == 4) {
        offset = strtoull(step->words[2], NULL, 10);
        count_of = strtoull(step->words[3], NULL, 10);
    }
    block += in_window ? machine->layout.base_block : 0;
    json_put(record, "kpf", record_frames(machine, block * nr_pages + offset, count_of));
    return 0;
}

/* The notices of each step are in its record; a trace has nothing to add to them. */
static int step_trace(struct machine *machine, const struct step *step, json_t *record)
{
    (void)machine;
    if (strcmp(step->words[1], "dump") == 0)
        json_put(record, "trace", json_array());
    return 0;
}

static int step_sleep(struct machine *machine, const struct step *step, json_t *record)
{
    (void)record;
    sh_pass(machine, (uint64_t)(strtod(step->words[1], NULL) * 1e9));
    return 0;
}

static int step_nothing(struct machine *machine, const struct step *step, json_t *record)
{
    (void)machine;
    (void)step;
    (void)record;
    return 0;
}

static const struct {
    int (*take)(struct machine *machine, const struct step *step, json_t *record);
    bool verify; /* afterwards, and before: is the content of all hogs there? */
} table[NR_OPS] = {
    [OP_BOOT] = {step_nothing, false},   [OP_ADD] = {step_add, false},
    [OP_DEL] = {step_del, true},         [OP_VADD] = {step_vadd, false},
    [OP_VREQ] = {step_vreq, true},       [OP_ONLINE] = {step_online, false},
    [OP_STATE] = {step_state, false},    [OP_WRITE] = {step_write, false},
    [OP_READ] = {step_read, false},      [OP_WSIG] = {step_wsig, true},
    [OP_KPF] = {step_kpf, false},        [OP_HOG] = {step_hog, true},
    [OP_WHERE] = {step_where, true},     [OP_UNHOG] = {step_unhog, true},
    [OP_SH] = {step_sh, false},          [OP_LSMEM] = {step_lsmem, false},
    [OP_TRACE] = {step_trace, false},    [OP_SLEEP] = {step_sleep, false},
    [OP_SETTLE] = {step_nothing, false}, [OP_NOTE] = {step_nothing, false},
};

int step_take(struct machine *machine, const struct step *step, json_t *record, char *error,
              size_t size_bytes)
{
    bool verify = table[step->op].verify;

    sh_pass(machine, 0);
    if (verify && hogs_verify(machine, error, size_bytes))
        return -1;
    if (table[step->op].take(machine, step, record)) {
        snprintf(error, size_bytes, "this step cannot be taken");
        return -1;
    }
    virtio_work(machine);
    return verify ? hogs_verify(machine, error, size_bytes) : 0;
}
