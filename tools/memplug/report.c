/* SPDX-License-Identifier: MIT */
#include "demo.h"

#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One line of the report: its name in JSON (null: it is in an object there), what a person reads,
 * the value, and what it must be. */
struct line {
    const char *key, *text, *unit;
    double value;
    bool is_count;
    const char *must; /* null: nothing */
    bool holds;
};

#define MAX_LINES 40

struct lines {
    struct line line[MAX_LINES];
    unsigned nr;
};

static void add(struct lines *lines, const char *key, const char *text, double value,
                const char *unit)
{
    lines->line[lines->nr++] = (struct line){
        .key = key, .text = text, .value = value, .unit = unit, .is_count = true, .holds = true};
}

static void must(struct lines *lines, const char *what, bool holds)
{
    lines->line[lines->nr - 1].must = what;
    lines->line[lines->nr - 1].holds = holds;
}

static void add_ratio(struct lines *lines, const char *key, const char *text, double value,
                      const char *unit)
{
    add(lines, key, text, value, unit);
    lines->line[lines->nr - 1].is_count = false;
}

static void collect_safety(const struct demo_result *result, struct lines *lines)
{
    add(lines, "lost_updates", "updates lost", (double)result->lost_updates, "");
    must(lines, "0", result->lost_updates == 0);
    add(lines, "bad_files", "files and reads with wrong bytes", (double)result->bad_files, "");
    must(lines, "0", result->bad_files == 0);
    add(lines, "verified_files", "files verified meanwhile", (double)result->nr_verified, "");
    must(lines, "> 0", result->nr_verified != 0);
    add(lines, "counted_updates", "updates made meanwhile", (double)result->nr_counted, "");
    must(lines, "> 0", result->nr_counted != 0);
    add(lines, "reads", "reads into the memory meanwhile", (double)result->nr_read, "");
    must(lines, "> 0", result->nr_read != 0);
    add(lines, "direct_reads", "the same with O_DIRECT", (double)result->nr_direct, "");
}

static void collect_cost(const struct demo_result *result, struct lines *lines)
{
    uint64_t allowed = 256 * result->nr_blocks;

    add(lines, "blocks", "blocks added", (double)result->nr_blocks, "");
    add(lines, "preexisting_bytes", "used of what was there before",
        (double)result->preexisting_bytes, "B");
    must(lines, "<= 256 a block", result->preexisting_bytes <= allowed);
    add(lines, "kernel_bytes", "page tables and slab of the kernel",
        (double)result->kernel_bytes, "B");
    add(lines, "memmap_frames_per_block", "memmap frames in a block",
        (double)result->memmap_frames_per_block, "");
    add(lines, "present_pages", "present", (double)result->present_pages, "pages");
    add(lines, "managed_pages", "managed", (double)result->managed_pages, "pages");
    add(lines, "add_us", "add", (double)result->add_us, "us");
    add(lines, "online_us", "online", (double)result->online_us, "us");
}

static void collect_move(const struct demo_result *result, struct lines *lines)
{
    bool once = (double)result->moved_bytes <= 1.05 * (double)result->used_bytes;
    double ratio = result->memcpy_gb_s != 0 ? result->migrate_gb_s / result->memcpy_gb_s : 0;

    add(lines, "used_bytes", "used in the first range", (double)result->used_bytes, "B");
    add(lines, "moved_bytes", "moved out of it", (double)result->moved_bytes, "B");
    must(lines, "<= 1.05 of used", once);
    add(lines, "offline_us", "offline", (double)result->offline_us, "us");
    add(lines, "offline_tries", "tries of it", result->nr_tries, "");
    add_ratio(lines, "migrate_gb_s", "moved at", result->migrate_gb_s, "GB/s");
    add_ratio(lines, "memcpy_gb_s", "memcpy in the same run", result->memcpy_gb_s, "GB/s");
    add_ratio(lines, "migrate_ratio_to_memcpy", "ratio", ratio, "");
    add(lines, "pin_refusals", "moves put off by I/O in flight", (double)result->pin_refusals,
        "");
    add(lines, NULL, "a writer's pause, median", (double)result->pause_p50_us, "us");
    add(lines, NULL, "p99", (double)result->pause_p99_us, "us");
    add(lines, NULL, "max", (double)result->pause_max_us, "us");
    add(lines, "stall_max_us", "longest write, scheduling included",
        (double)result->stall_max_us, "us");
}

static void collect_return(const struct demo_result *result, struct lines *lines)
{
    add(lines, "remove_us", "remove", (double)result->remove_us, "us");
    add(lines, "held_bytes", "the first range held", (double)result->held_bytes, "B");
    add(lines, "returned_bytes", "given back to the system", (double)result->returned_bytes, "B");
    must(lines, "all of it",
         result->held_bytes != 0 && result->returned_bytes == result->held_bytes);
    add(lines, "rss_shmem_before_bytes", "RssShmem before", (double)result->rss_before_bytes,
        "B");
    add(lines, "rss_shmem_after_bytes", "RssShmem after", (double)result->rss_after_bytes, "B");
}

static void collect(const struct demo_result *result, struct lines *lines)
{
    lines->nr = 0;
    collect_safety(result, lines);
    collect_cost(result, lines);
    collect_move(result, lines);
    collect_return(result, lines);
}

bool demo_holds(const struct demo *demo)
{
    struct lines lines;
    bool holds = true;

    collect(&demo->result, &lines);
    for (unsigned i = 0; i < lines.nr; i++)
        holds = holds && lines.line[i].holds;
    return holds;
}

static int print_json(const struct demo *demo, const struct lines *lines)
{
    json_t *object = json_object(), *pause = json_object();

    for (unsigned i = 0; i < lines->nr; i++) {
        const struct line *line = &lines->line[i];
        json_t *value =
            line->is_count ? json_integer((json_int_t)line->value) : json_real(line->value);

        if (line->key == NULL)
            json_decref(value);
        else
            json_object_set_new(object, line->key, value);
    }
    json_object_set_new(pause, "p50", json_integer((json_int_t)demo->result.pause_p50_us));
    json_object_set_new(pause, "p99", json_integer((json_int_t)demo->result.pause_p99_us));
    json_object_set_new(pause, "max", json_integer((json_int_t)demo->result.pause_max_us));
    json_object_set_new(object, "pause_us", pause);
    json_object_set_new(object, "direct_idle",
                        demo->result.direct_idle != NULL ? json_string(demo->result.direct_idle)
                                                         : json_null());
    json_object_set_new(object, "holds", json_boolean(demo_holds(demo)));
    if (json_dumpf(object, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER) != 0)
        return -1;
    putchar('\n');
    json_decref(object);
    return 0;
}

static int print_table(const struct lines *lines)
{
    struct libscols_table *table = scols_new_table();
    char text[64];

    if (table == NULL)
        return -1;
    scols_table_new_column(table, "WHAT", 0.5, 0);
    scols_table_new_column(table, "VALUE", 0.2, SCOLS_FL_RIGHT);
    scols_table_new_column(table, "UNIT", 0.1, 0);
    scols_table_new_column(table, "MUST BE", 0.2, 0);
    for (unsigned i = 0; i < lines->nr; i++) {
        const struct line *line = &lines->line[i];
        struct libscols_line *row = scols_table_new_line(table, NULL);

        snprintf(text, sizeof(text), line->is_count ? "%.0f" : "%.3f", line->value);
        scols_line_set_data(row, 0, line->text);
        scols_line_set_data(row, 1, text);
        scols_line_set_data(row, 2, line->unit);
        snprintf(text, sizeof(text), "%s%s", line->must != NULL ? line->must : "",
                 line->holds ? "" : "  NOT SO");
        scols_line_set_data(row, 3, text);
    }
    scols_print_table(table);
    scols_unref_table(table);
    return 0;
}

int demo_report(const struct demo *demo)
{
    struct lines lines;

    collect(&demo->result, &lines);
    if (demo->options.json)
        return print_json(demo, &lines);
    if (print_table(&lines) != 0)
        return -1;
    if (demo->result.direct_idle != NULL)
        printf("\nO_DIRECT was not tried: %s.\n", demo->result.direct_idle);
    puts(demo_holds(demo) ? "\nNothing was lost, everything was given back."
                          : "\nNOT everything holds that must.");
    return 0;
}
