/* SPDX-License-Identifier: MIT */
/* Steps that read and write files. */
#include "steps.h"

#include "vfs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNLIMITED_TRIES UINT32_MAX
#define BEYOND_NS (3600 * NS_PER_S) /* after the signal: it is the signal that ends a write */

/* A value as it stands in a line: "" is empty, \n and \0 are what they are called. */
static void unescape(const char *from, struct buffer *to)
{
    if (strcmp(from, "\"\"") == 0)
        return;
    while (*from) {
        if (from[0] == '\\' && (from[1] == 'n' || from[1] == '0')) {
            buffer_add(to, from[1] == 'n' ? "\n" : "\0", 1);
            from += 2;
        } else {
            buffer_add(to, from++, 1);
        }
    }
}

/* What a write answered, as the record says it. */
static void put_result(json_t *record, int64_t result, bool opened, bool with_step,
                       const struct memplug_reason *reason)
{
    char text[512];

    json_put(record, "ret", json_integer(result < 0 ? -1 : result));
    json_put(record, "errno", json_string(record_errno(result < 0 ? (int)result : 0)));
    if (with_step)
        json_put(record, "step", json_string(opened ? "write" : "open"));
    if (result >= 0 || !reason->error)
        return;
    memplug_reason_text(reason, text, sizeof(text));
    json_put(record, "reason", json_text(text, strlen(text)));
}

static void write_one(struct machine *machine, const char *path, const char *bytes,
                      size_t length, json_t *record)
{
    struct memplug_reason reason = {0};
    bool opened;
    int64_t result = vfs_put(machine, path, bytes, length, NULL, &reason, &opened);

    put_result(record, result, opened, true, &reason);
}

static uint64_t block_of(const struct machine *machine, const char *word)
{
    bool in_window;
    uint64_t number = 0;

    if (parse_block(word, &in_window, &number) && in_window)
        number += machine->layout.base_block;
    return number;
}

static void write_state(struct machine *machine, const char *block, const struct buffer *value,
                        json_t *record)
{
    char path[96];

    snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%" PRIu64 "/state",
             block_of(machine, block));
    json_put(record, "block", json_string(block));
    write_one(machine, path, buffer_of(value), value->length, record);
}

int step_online(struct machine *machine, const struct step *step, json_t *record)
{
    struct buffer word = {0};
    json_t *results;

    buffer_print(&word, "%s", step->words[0]);
    if (step->nr_words == 2) {
        write_state(machine, step->words[1], &word, record);
        buffer_free(&word);
        return 0;
    }
    results = must_json(json_array());
    for (unsigned i = 1; i < step->nr_words; i++) {
        json_t *result = must_json(json_object());

        write_state(machine, step->words[i], &word, result);
        must_json(json_array_append_new(results, result) ? NULL : results);
    }
    json_put(record, "results", results);
    buffer_free(&word);
    return 0;
}

int step_state(struct machine *machine, const struct step *step, json_t *record)
{
    struct buffer value = {0};

    unescape(step_rest(step, 2), &value);
    write_state(machine, step->words[1], &value, record);
    buffer_free(&value);
    return 0;
}

int step_write(struct machine *machine, const struct step *step, json_t *record)
{
    struct buffer path = {0}, value = {0};

    machine_expand(machine, step->words[1], &path);
    unescape(step_rest(step, 2), &value);
    write_one(machine, buffer_of(&path), buffer_of(&value), value.length, record);
    buffer_free(&path);
    buffer_free(&value);
    return 0;
}

/* What only a real kernel knows is marked for the shell's tools: the mark itself is not read. */
static void without_marks(struct buffer *text)
{
    size_t kept = 0;

    for (size_t i = 0; i < text->length; i++)
        if (text->bytes[i] != '\1')
            text->bytes[kept++] = text->bytes[i];
    text->length = kept;
}

int step_read(struct machine *machine, const struct step *step, json_t *record)
{
    struct buffer path = {0}, value = {0};
    int error;

    machine_expand(machine, step->words[1], &path);
    error = vfs_get(machine, buffer_of(&path), &value);
    json_put(record, "errno", json_string(record_errno(error)));
    without_marks(&value);
    if (!error)
        json_put(record, "value", json_text(buffer_of(&value), value.length));
    buffer_free(&path);
    buffer_free(&value);
    return 0;
}

/* --- a write that a signal ends --------------------------------------------------------------- */

/* Called wherever a limit is looked at: that is where a signal would be seen. */
static void ring(void *context, const struct memplug_progress *progress)
{
    struct alarm *alarm = context;

    (void)progress;
    if (machine_clock(alarm->machine) >= alarm->at_ns)
        alarm->stop = 1;
}

void alarm_set(struct alarm *alarm, const struct machine *machine, uint64_t at_ns)
{
    uint64_t now_ns = machine_clock(machine);

    *alarm = (struct alarm){.machine = machine, .at_ns = at_ns};
    alarm->limit = (struct memplug_limit){
        .timeout_ns = (at_ns > now_ns ? at_ns - now_ns : 0) + BEYOND_NS,
        .tries = UNLIMITED_TRIES, .stop = &alarm->stop, .progress = ring, .context = alarm,
    };
}

int step_wsig(struct machine *machine, const struct step *step, json_t *record)
{
    struct alarm alarm;
    struct memplug_reason reason = {0};
    struct buffer path = {0}, value = {0};
    uint64_t seconds = strtoull(step->words[1], NULL, 10);
    int64_t result;
    bool opened;

    alarm_set(&alarm, machine, machine_clock(machine) + seconds * NS_PER_S);
    machine_expand(machine, step->words[3], &path);
    unescape(step_rest(step, 4), &value);
    result = vfs_put(machine, buffer_of(&path), buffer_of(&value), value.length, &alarm.limit,
                     &reason, &opened);
    put_result(record, result, opened, false, &reason);
    json_put(record, "signal_sent", json_integer(alarm.stop));
    json_put(record, "child_status", json_integer(0));
    buffer_free(&path);
    buffer_free(&value);
    return 0;
}
