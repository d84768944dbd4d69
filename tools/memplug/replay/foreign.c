/* SPDX-License-Identifier: MIT */
#include "foreign.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POWER_NAMES                                                                             \
    "async autosuspend_delay_ms control runtime_active_kids runtime_active_time "               \
    "runtime_enabled runtime_status runtime_suspended_time runtime_usage"
#define MAX_PATH 512

/* Names with blanks between; "/" ends a directory's and "@" a link's. */
static const struct place {
    const char *directory, *names;
} places[] = {
    {"/", "bin/ dev/ etc/ lib/ mod/ proc/ sbin/ selftests/ sys/ usr/"},
    {"/proc", "buddyinfo kpagecount kpageflags loadavg modules mounts pagetypeinfo self/ "
              "slabinfo stat swaps sys/ uptime version vmstat zoneinfo"},
    {"/sys", "bus/ devices/ firmware/ fs/ kernel/ module/"},
    {"/sys/bus", "memory/"},
    {"/sys/bus/memory", "devices/ drivers/ drivers_autoprobe drivers_probe uevent"},
    {"/sys/bus/memory/drivers", ""},
    {"/sys/devices/system/memory", "crash_hotplug power/"},
    {"/sys/devices/system/memory/memory#", "power/ subsystem@"},
    {"/sys/devices/system/memory/memory#/power", POWER_NAMES},
    {"/sys/devices/system/memory/power", POWER_NAMES},
    {"/sys/devices/system/node", "has_cpu has_generic_initiator power/ uevent"},
    {"/sys/devices/system/node/node#", "compact cpulist cpumap distance memory_failure numastat "
                                       "power/ subsystem@ vmstat x86/"},
    {"/sys/devices/system/node/node#/power", POWER_NAMES},
    {"/sys/devices/system/node/power", POWER_NAMES},
    {"/sys/kernel", "debug/ mm/ tracing/"},
    {"/sys/kernel/debug", "tracing/"},
    {"/sys/kernel/debug/tracing", ""},
    {"/sys/kernel/tracing", "available_filter_functions buffer_size_kb current_tracer events/ "
                            "kprobe_events set_event set_ftrace_filter trace trace_marker "
                            "trace_pipe tracing_on"},
};
#define NR_PLACES (sizeof(places) / sizeof(places[0]))

/* Below these there is more than anybody lists: whatever is asked for is there. */
static const char *const trees[] = {
    "/proc/",     "/sys/kernel/tracing/", "/sys/kernel/debug/", "/sys/kernel/mm/",
    "/sys/fs/",   "/sys/module/",         "/mod/",              "/selftests/",
    "/etc/",      "/bin/",                "/sbin/",             "/usr/",
    "/lib/",      "/dev/",                "/sys/bus/acpi",      "/sys/bus/node",
    "/sys/block", "/sys/bus/pci",         "/sys/bus/virtio",    "/sys/class",
    "/sys/power", "/sys/devices/pci",     "/sys/devices/LNX",   "/sys/devices/system/cpu",
};

/* Of these nobody knows all that is in them. */
static const char *const unlisted[] = {
    "/",          "/bin",           "/dev",         "/etc",        "/lib",
    "/mod",       "/proc",          "/sbin",        "/selftests",  "/sys",
    "/sys/bus",   "/sys/devices",   "/sys/devices/system",         "/sys/firmware",
    "/sys/fs",    "/sys/kernel",    "/sys/kernel/debug",           "/sys/kernel/debug/tracing",
    "/sys/kernel/mm",               "/sys/kernel/tracing",         "/sys/module",
    "/usr",
};

/* These are ours, also where they say that there is no such file. */
static const char *const own[] = {
    "/sys/kernel/debug/notifier-error-inject",
    "/sys/kernel/mm/hugepages",
    "/sys/module/memory_hotplug",
};

const char *path_fit(const char *pattern, const char *path, uint64_t *number)
{
    *number = 0;
    while (*path) {
        if (*pattern == '#' && *path >= '0' && *path <= '9') {
            char *end;

            *number = strtoull(path, &end, 10);
            path = end;
            pattern++;
        } else if (*pattern++ != *path++) {
            return NULL;
        }
    }
    return pattern;
}

static bool is_place(const struct place *place, const char *path)
{
    uint64_t number;
    const char *rest = path_fit(place->directory, path, &number);

    return rest && !*rest;
}

/* The next name of a list, without its sign; null at the end. */
static const char *next_name(const char *names, char *name, size_t size_bytes,
                             enum foreign_kind *kind)
{
    size_t length;

    while (*names == ' ')
        names++;
    length = strcspn(names, " ");
    if (!length)
        return NULL;
    *kind = names[length - 1] == '/'   ? FOREIGN_DIRECTORY
            : names[length - 1] == '@' ? FOREIGN_LINK
                                       : FOREIGN_FILE;
    snprintf(name, size_bytes, "%.*s", (int)(length - (*kind != FOREIGN_FILE)), names);
    return names + length;
}

/* --- what depends on the machine -------------------------------------------------------------- */

static void list_blocks(struct machine *machine, void (*each)(void *to, const char *name),
                        void *to)
{
    char name[32];

    for (uint64_t id = 0; id < memplug_nr_blocks_max(machine->pool); id++) {
        struct memplug_block_info info;

        if (memplug_block_info(machine->pool, id, &info))
            continue;
        snprintf(name, sizeof(name), "memory%" PRIu64, id);
        each(to, name);
    }
}

static void list_cpus(const struct machine *machine, void (*each)(void *to, const char *name),
                      void *to)
{
    char name[32];

    for (unsigned cpu = 0; cpu < machine->options.nr_cpus; cpu++) {
        snprintf(name, sizeof(name), "cpu%u", cpu);
        each(to, name);
    }
}

void foreign_list(struct machine *machine, const char *path,
                  void (*each)(void *to, const char *name), void *to)
{
    enum foreign_kind kind;
    char name[64];

    for (size_t i = 0; i < NR_PLACES; i++)
        if (is_place(&places[i], path))
            for (const char *at = places[i].names;
                 (at = next_name(at, name, sizeof(name), &kind));)
                each(to, name);
    for (size_t i = 0; i < sizeof(unlisted) / sizeof(unlisted[0]); i++)
        if (strcmp(unlisted[i], path) == 0)
            each(to, FOREIGN_MORE);
    if (strcmp(path, "/sys/bus/memory/devices") == 0)
        list_blocks(machine, each, to);
    if (strcmp(path, "/sys/devices/system/node/node0") == 0)
        list_cpus(machine, each, to);
}

/* --- one name --------------------------------------------------------------------------------- */

static bool begins_with(const char *path, const char *const *with, size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        if (strncmp(path, with[i], strlen(with[i])) == 0)
            return true;
    return false;
}

static enum foreign_kind kind_in(const char *directory, const char *wanted)
{
    enum foreign_kind kind;
    char name[64];

    for (size_t i = 0; i < NR_PLACES; i++)
        if (is_place(&places[i], directory))
            for (const char *at = places[i].names;
                 (at = next_name(at, name, sizeof(name), &kind));)
                if (strcmp(name, wanted) == 0)
                    return kind;
    return FOREIGN_NONE;
}

enum foreign_kind foreign_kind(struct machine *machine, const char *path,
                               foreign_exists_t *exists, const char **link)
{
    const char *slash = strrchr(path, '/');
    char directory[MAX_PATH];
    enum foreign_kind kind;

    if (!slash || strlen(path) >= sizeof(directory) ||
        begins_with(path, own, sizeof(own) / sizeof(own[0])))
        return FOREIGN_NONE;
    snprintf(directory, sizeof(directory), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    kind = kind_in(directory, slash + 1);
    if (kind != FOREIGN_NONE) {
        if (kind == FOREIGN_LINK)
            *link = "../../../../bus/memory";
        return exists(machine, directory) ? kind : FOREIGN_NONE;
    }
    for (size_t i = 0; i < NR_PLACES; i++)
        if (strcmp(places[i].directory, path) == 0)
            return FOREIGN_DIRECTORY;
    return begins_with(path, trees, sizeof(trees) / sizeof(trees[0])) ? FOREIGN_ANY
                                                                      : FOREIGN_NONE;
}
