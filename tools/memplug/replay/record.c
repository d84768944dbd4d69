/* SPDX-License-Identifier: MIT */
#include "record.h"

#include "vfs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const zone_names[MEMPLUG_NR_ZONES] = {"DMA", "DMA32", "Normal", "Movable"};

/* --- jansson ---------------------------------------------------------------------------------- */

json_t *must_json(json_t *value)
{
    if (value)
        return value;
    fputs("memplug replay: this computer has no memory left\n", stderr);
    exit(1);
}

void json_put(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, must_json(value)))
        must_json(NULL);
}

static void append(json_t *array, json_t *value)
{
    if (json_array_append_new(array, must_json(value)))
        must_json(NULL);
}

json_t *json_text(const char *text, size_t length)
{
    json_t *value = json_stringn(text, length);
    char *plain;

    if (value)
        return value;
    plain = must_copy(text, length);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)plain[i] >= 0x80)
            plain[i] = '?';
    value = json_stringn(plain, length);
    free(plain);
    return must_json(value);
}

static void put_number(json_t *object, const char *key, uint64_t number)
{
    json_put(object, key, json_integer((json_int_t)number));
}

const char *record_errno(int error)
{
    const char *name = strerrorname_np(abs(error));

    return name ? name : "?";
}

void record_block_name(const struct machine *machine, uint64_t block, char *name,
                       size_t size_bytes)
{
    uint64_t base = machine->layout.base_block;

    if (block >= base)
        snprintf(name, size_bytes, "@%" PRIu64, block - base);
    else
        snprintf(name, size_bytes, "%" PRIu64, block);
}

/* --- the state -------------------------------------------------------------------------------- */

/* A file's text without its newline; "?" if it cannot be read. */
static json_t *file_text(struct machine *machine, const char *path)
{
    struct buffer text = {0};
    json_t *value;

    if (vfs_get(machine, path, &text)) {
        buffer_clear(&text);
        buffer_print(&text, "?");
    }
    while (text.length && text.bytes[text.length - 1] == '\n')
        text.length--;
    value = json_text(buffer_of(&text), text.length);
    buffer_free(&text);
    return value;
}

static json_t *snap_mem(struct machine *machine)
{
    json_t *mem = must_json(json_object());
    struct memplug_huge_info huge;
    struct memplug_stat stat;

    memplug_stat(machine->pool, &stat);
    put_number(mem, "MemTotal", 4 * stat.nr_managed_pages);
    put_number(mem, "MemFree", 4 * stat.nr_free_pages);
    if (!memplug_huge_info(machine->pool, MEMPLUG_HUGE_PMD, MEMPLUG_ANY_NODE, &huge)) {
        put_number(mem, "HugePages_Total", huge.nr_huge);
        put_number(mem, "HugePages_Free", huge.nr_free);
        put_number(mem, "HugePages_Rsvd", huge.nr_reserved);
        put_number(mem, "HugePages_Surp", huge.nr_surplus);
    }
    put_number(mem, "HardwareCorrupted", 4 * stat.nr_poisoned_pages);
    return mem;
}

static json_t *snap_zone(const struct memplug_zone_info *info)
{
    json_t *zone = must_json(json_object());

    put_number(zone, "start_pfn", info->nr_spanned_pages ? info->start.nr : 0);
    put_number(zone, "spanned", info->nr_spanned_pages);
    put_number(zone, "present", info->nr_present_pages);
    put_number(zone, "managed", info->nr_managed_pages);
    put_number(zone, "free", info->nr_free_pages);
    return zone;
}

/* Nodes without memory below 4 GiB have no zones for it. */
static json_t *snap_zones(const struct machine *machine)
{
    json_t *zones = must_json(json_object());

    for (unsigned node = 0; node < machine->options.nr_nodes; node++) {
        struct memplug_node_info node_info;

        if (memplug_node_info(machine->pool, (int)node, &node_info) || !node_info.online)
            continue;
        for (unsigned zone = 0; zone < MEMPLUG_NR_ZONES; zone++) {
            struct memplug_zone_info info;
            char name[32];

            if (memplug_zone_info(machine->pool, (int)node, (enum memplug_zone)zone, &info) ||
                (zone < MEMPLUG_ZONE_NORMAL && !info.nr_spanned_pages && node))
                continue;
            snprintf(name, sizeof(name), "%u/%s", node, zone_names[zone]);
            json_put(zones, name, snap_zone(&info));
        }
    }
    return zones;
}

static void add_node_link(void *to, const char *name)
{
    if (strncmp(name, "node", 4) == 0)
        append(to, json_string(name));
}

static json_t *snap_block(struct machine *machine, uint64_t id)
{
    static const char *const files[] = {"state", "online", "valid_zones", "removable",
                                        "phys_index", "phys_device"};
    json_t *block = must_json(json_object()), *nodes = must_json(json_array());
    char path[96];

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%" PRIu64 "/%s", id,
                 files[i]);
        json_put(block, files[i], file_text(machine, path));
    }
    snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%" PRIu64, id);
    vfs_list(machine, path, add_node_link, nodes);
    json_put(block, "nodes", nodes);
    return block;
}

static json_t *snap_blocks(struct machine *machine, bool all_blocks)
{
    json_t *blocks = must_json(json_object());
    uint64_t nr_blocks = memplug_nr_blocks_max(machine->pool);

    for (uint64_t id = all_blocks ? 0 : machine->layout.base_block; id < nr_blocks; id++) {
        struct memplug_block_info info;
        char name[24];

        if (memplug_block_info(machine->pool, id, &info))
            continue;
        record_block_name(machine, id, name, sizeof(name));
        json_put(blocks, name, snap_block(machine, id));
    }
    return blocks;
}

static json_t *snap_nodes(struct machine *machine)
{
    static const char *const files[] = {"possible", "online", "has_normal_memory", "has_memory"};
    json_t *nodes = must_json(json_object());
    char path[96];

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "/sys/devices/system/node/%s", files[i]);
        json_put(nodes, files[i], file_text(machine, path));
    }
    return nodes;
}

json_t *record_snap(struct machine *machine, bool all_blocks)
{
    json_t *snap = must_json(json_object());

    json_put(snap, "mem", snap_mem(machine));
    json_put(snap, "zones", snap_zones(machine));
    json_put(snap, "blocks", snap_blocks(machine, all_blocks));
    json_put(snap, "nodes", snap_nodes(machine));
    json_put(snap, "auto_online_blocks",
             file_text(machine, "/sys/devices/system/memory/auto_online_blocks"));
    return snap;
}

static json_int_t mem_change(const json_t *before, const json_t *after, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(after, "mem"), name)) -
           json_integer_value(json_object_get(json_object_get(before, "mem"), name));
}

static json_t *zone_change(const json_t *before, const json_t *after)
{
    static const char *const fields[] = {"start_pfn", "spanned", "present", "managed"};
    json_t *change = must_json(json_object());
    json_int_t free_change = json_integer_value(json_object_get(after, "free")) -
                             json_integer_value(json_object_get(before, "free"));

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        json_int_t from = json_integer_value(json_object_get(before, fields[i]));
        json_int_t to = json_integer_value(json_object_get(after, fields[i]));

        if (from != to)
            json_put(change, fields[i], json_pack("[I,I]", from, to));
    }
    if (free_change)
        json_put(change, "free_delta", json_integer(free_change));
    return change;
}

json_t *record_delta(const json_t *before, const json_t *after)
{
    json_t *delta = must_json(json_object());
    json_t *zone;
    const char *name;

    json_put(delta, "MemTotal_kB", json_integer(mem_change(before, after, "MemTotal")));
    json_put(delta, "MemFree_kB", json_integer(mem_change(before, after, "MemFree")));
    json_object_foreach(json_object_get(after, "zones"), name, zone) {
        json_t *change =
            zone_change(json_object_get(json_object_get(before, "zones"), name), zone);

        if (json_object_size(change))
            json_put(delta, name, change);
        else
            json_decref(change);
    }
    return delta;
}

/* --- events ----------------------------------------------------------------------------------- */

static json_t *uevent_text(const struct memplug_uevent *event)
{
    static const char *const actions[] = {"add", "online", "offline", "remove"};

    if (event->block < 0)
        return json_sprintf("%s node%d", actions[event->action], event->node);
    return json_sprintf("%s memory%" PRId64, actions[event->action], event->block);
}

static const char *event_name(enum memplug_event event)
{
    switch (event) {
    case MEMPLUG_ONLINE: return "ONLINE";
    case MEMPLUG_GOING_OFFLINE: return "GOING_OFFLINE";
    case MEMPLUG_OFFLINE: return "OFFLINE";
    case MEMPLUG_GOING_ONLINE: return "GOING_ONLINE";
    case MEMPLUG_CANCEL_ONLINE: return "CANCEL_ONLINE";
    case MEMPLUG_CANCEL_OFFLINE: return "CANCEL_OFFLINE";
    case MEMPLUG_PREPARE_ONLINE: return "PREPARE_ONLINE";
    case MEMPLUG_FINISH_OFFLINE: return "FINISH_OFFLINE";
    }
    return "?";
}

static json_t *notice_object(const struct memplug_notice *notice)
{
    json_t *object = json_pack("{s:s, s:i, s:i}", "event", event_name(notice->event),
                               "nid_normal", notice->node_normal, "nid", notice->node_any);

    must_json(object);
    put_number(object, "start", notice->start.nr);
    put_number(object, "nr", notice->nr_pages);
    if (!notice->nr_memmap_pages)
        return object;
    put_number(object, "memmap_start", notice->memmap_start.nr);
    put_number(object, "memmap_nr", notice->nr_memmap_pages);
    return object;
}

void record_happened(struct machine *machine, json_t *record)
{
    const struct happened *happened = &machine->happened;
    json_t *uevents = must_json(json_array()), *notices = must_json(json_array());

    for (size_t i = 0; i < happened->nr_uevents; i++)
        append(uevents, uevent_text(&happened->uevents[i]));
    for (size_t i = 0; i < happened->nr_notices; i++)
        append(notices, notice_object(&happened->notices[i]));
    if (happened->nr_uevents)
        json_put(record, "uevents", json_incref(uevents));
    if (happened->nr_notices)
        json_put(record, "notifier", json_incref(notices));
    json_decref(uevents);
    json_decref(notices);
    machine_forget(&machine->happened);
}

/* --- frames ----------------------------------------------------------------------------------- */

enum { MAX_FLAGS = 2, NR_RUNS = 6, HUGE_PAGES = 512 };

/* Names of kpageflags; none at all is a page in a kernel's use that has no flag. */
static const char *const flags_of[][MAX_FLAGS] = {
    [MEMPLUG_FRAME_ABSENT] = {"NOPAGE"},     [MEMPLUG_FRAME_MEMMAP] = {"OWNER_PRIVATE"},
    [MEMPLUG_FRAME_FREE] = {"BUDDY"},        [MEMPLUG_FRAME_USED] = {NULL},
    [MEMPLUG_FRAME_MOVABLE] = {"LRU"},       [MEMPLUG_FRAME_KEPT] = {"OFFLINE"},
    [MEMPLUG_FRAME_HUGE] = {"HUGE"},         [MEMPLUG_FRAME_POISONED] = {"HWPOISON"},
};

static void frame_flags(const struct machine *machine, uint64_t pfn,
                        const char *flags[MAX_FLAGS])
{
    enum memplug_frame_kind kind = memplug_frame_kind(machine->pool, (memplug_pfn_t){pfn});

    flags[0] = flags_of[kind][0];
    flags[1] = flags_of[kind][1];
    if (kind == MEMPLUG_FRAME_HUGE)
        flags[1] = pfn % HUGE_PAGES ? "COMPOUND_TAIL" : "COMPOUND_HEAD";
}

static void count_flag(json_t *counts, const char *flag)
{
    put_number(counts, flag,
               (uint64_t)json_integer_value(json_object_get(counts, flag)) + 1);
}

static void add_run(json_t *runs, uint64_t start, uint64_t nr, const char *const flags[MAX_FLAGS])
{
    if (json_array_size(runs) < NR_RUNS && nr)
        append(runs, json_pack("[I,I,o]", (json_int_t)start, (json_int_t)nr,
                               json_sprintf("%s%s%s", flags[0] ? flags[0] : "none",
                                            flags[1] ? "+" : "", flags[1] ? flags[1] : "")));
}

json_t *record_frames(const struct machine *machine, uint64_t pfn, uint64_t nr_pages)
{
    json_t *counts = must_json(json_object()), *runs = must_json(json_array());
    const char *flags[MAX_FLAGS], *run_flags[MAX_FLAGS] = {NULL};
    uint64_t run = 0, nr_none = 0;

    for (uint64_t i = 0; i < nr_pages; i++) {
        frame_flags(machine, pfn + i, flags);
        if (memcmp(flags, run_flags, sizeof(flags)) != 0) {
            add_run(runs, run, i - run, run_flags);
            memcpy(run_flags, flags, sizeof(flags));
            run = i;
        }
        nr_none += flags[0] == NULL;
        for (unsigned k = 0; k < MAX_FLAGS; k++)
            if (flags[k])
                count_flag(counts, flags[k]);
    }
    add_run(runs, run, nr_pages - run, run_flags);
    put_number(counts, "none", nr_none);
    return must_json(json_pack("{s:I, s:I, s:I, s:o, s:o}", "pfn", (json_int_t)pfn, "n",
                               (json_int_t)nr_pages, "got", (json_int_t)nr_pages,
                               "pages_with_flag", counts, "first_runs", runs));
}
