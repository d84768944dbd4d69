/* SPDX-License-Identifier: MIT */
#include "pseudo.h"

#include "foreign.h"
#include "kernel_options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INJECT "/sys/kernel/debug/notifier-error-inject/memory/actions/"

#define NR_NUMBERS 4096 /* more nodes, and more entries of the firmware, there never are */

struct pseudo {
    const char *path; /* "#" stands for a number */
    void (*read)(const struct machine *machine, uint64_t number, struct buffer *text);
    int (*write)(struct machine *machine, uint64_t number, const char *word);
    /* Is it there now? Null: always. */
    bool (*exists)(const struct machine *machine, uint64_t number);
};

/* --- huge pages ------------------------------------------------------------------------------- */

static void read_nr(const struct machine *machine, uint64_t number, struct buffer *text)
{
    struct memplug_huge_info info = {0};

    (void)number;
    if (memplug_huge_info(machine->pool, MEMPLUG_HUGE_PMD, MEMPLUG_ANY_NODE, &info))
        info.nr_huge = 0;
    buffer_print(text, "%" PRIu64 "\n", info.nr_huge);
}

static int write_nr(struct machine *machine, uint64_t number, const char *word)
{
    char *end;
    unsigned long long nr = strtoull(word, &end, 0);

    (void)number;
    if (*end || end == word || *word == '-')
        return -EINVAL;
    return memplug_huge_resize(machine->pool, MEMPLUG_HUGE_PMD, nr, MEMPLUG_ANY_NODE,
                               &machine->limit, NULL);
}

static void read_optimize(const struct machine *machine, uint64_t number, struct buffer *text)
{
    (void)number;
    buffer_print(text, "%d\n", kernel_wants_hvo(&machine->options));
}

/* What the boot line asked for. The pool lends no memmap: of self-hosted ones nor does Linux. */
static int write_optimize(struct machine *machine, uint64_t number, const char *word)
{
    int value = kernel_bool(word, strlen(word));

    (void)number;
    if (value < 0)
        return -EINVAL;
    return value == kernel_wants_hvo(&machine->options) ? 0 : -EOPNOTSUPP;
}

/* --- notifiers that fail ---------------------------------------------------------------------- */

static bool injector_exists(const struct machine *machine, uint64_t number)
{
    (void)number;
    return machine->has_injector;
}

/* 0, or an errno's negative; as the module takes it. */
static int parse_errno(const char *word, int *value)
{
    char *end;
    long number = strtol(word, &end, 0);

    if (*end || end == word || number > 0 || number < -4095)
        return -EINVAL;
    *value = (int)number;
    return 0;
}

static void read_inject_online(const struct machine *machine, uint64_t number, struct buffer *text)
{
    (void)number;
    buffer_print(text, "%d\n", machine->inject_online);
}

static int write_inject_online(struct machine *machine, uint64_t number, const char *word)
{
    (void)number;
    return parse_errno(word, &machine->inject_online);
}

static void read_inject_offline(const struct machine *machine, uint64_t number,
                                struct buffer *text)
{
    (void)number;
    buffer_print(text, "%d\n", machine->inject_offline);
}

static int write_inject_offline(struct machine *machine, uint64_t number, const char *word)
{
    (void)number;
    return parse_errno(word, &machine->inject_offline);
}

/* --- memory ----------------------------------------------------------------------------------- */

static void read_meminfo(const struct machine *machine, uint64_t number, struct buffer *text)
{
    (void)number;
    meminfo_read(machine, text);
}

static bool node_exists(const struct machine *machine, uint64_t number)
{
    struct memplug_node_info info;

    return number < machine->options.nr_nodes &&
           !memplug_node_info(machine->pool, (int)number, &info) && info.online;
}

static void read_node_meminfo(const struct machine *machine, uint64_t number,
                              struct buffer *text)
{
    node_meminfo_read(machine, (int)number, text);
}

static void read_iomem(const struct machine *machine, uint64_t number, struct buffer *text)
{
    (void)number;
    iomem_read(machine, text);
}

static void read_cmdline(const struct machine *machine, uint64_t number, struct buffer *text)
{
    (void)number;
    buffer_print(text, "%c%s\n", PSEUDO_FOREIGN_MARK, buffer_of(&machine->cmdline));
}

/* There is no cache to drop, and nothing to compact that does not come together by itself. */
static int write_nothing(struct machine *machine, uint64_t number, const char *word)
{
    (void)machine;
    (void)number;
    return *word ? 0 : -EINVAL;
}

static const struct firmware_entry *firmware_at(const struct machine *machine, uint64_t number)
{
    for (size_t i = 0; i < machine->nr_firmware; i++)
        if (machine->firmware[i].number == number)
            return &machine->firmware[i];
    return NULL;
}

static bool firmware_exists(const struct machine *machine, uint64_t number)
{
    return firmware_at(machine, number) != NULL;
}

static void read_firmware_start(const struct machine *machine, uint64_t number,
                                struct buffer *text)
{
    buffer_print(text, "0x%" PRIx64 "\n", firmware_at(machine, number)->start);
}

static void read_firmware_end(const struct machine *machine, uint64_t number, struct buffer *text)
{
    buffer_print(text, "0x%" PRIx64 "\n", firmware_at(machine, number)->end);
}

static void read_firmware_type(const struct machine *machine, uint64_t number, struct buffer *text)
{
    buffer_print(text, "%s\n", firmware_at(machine, number)->type);
}

/* --- all of them ------------------------------------------------------------------------------ */

static const struct pseudo files[] = {
    {"/proc/cmdline", read_cmdline, NULL, NULL},
    {"/proc/iomem", read_iomem, NULL, NULL},
    {"/proc/meminfo", read_meminfo, NULL, NULL},
    {"/proc/sys/vm/compact_memory", NULL, write_nothing, NULL},
    {"/proc/sys/vm/drop_caches", NULL, write_nothing, NULL},
    {"/proc/sys/vm/hugetlb_optimize_vmemmap", read_optimize, write_optimize, NULL},
    {"/proc/sys/vm/nr_hugepages", read_nr, write_nr, NULL},
    {"/proc/sys/vm/nr_hugepages_mempolicy", read_nr, write_nr, NULL},
    {"/sys/devices/system/node/node#/meminfo", read_node_meminfo, NULL, node_exists},
    {"/sys/firmware/memmap/#/end", read_firmware_end, NULL, firmware_exists},
    {"/sys/firmware/memmap/#/start", read_firmware_start, NULL, firmware_exists},
    {"/sys/firmware/memmap/#/type", read_firmware_type, NULL, firmware_exists},
    {INJECT "MEM_GOING_OFFLINE/error", read_inject_offline, write_inject_offline,
     injector_exists},
    {INJECT "MEM_GOING_ONLINE/error", read_inject_online, write_inject_online, injector_exists},
};
#define NR_FILES (sizeof(files) / sizeof(files[0]))

static bool is_there(const struct machine *machine, const struct pseudo *file, uint64_t number)
{
    return !file->exists || file->exists(machine, number);
}

const struct pseudo *pseudo_find(const struct machine *machine, const char *path,
                                 uint64_t *number)
{
    for (size_t i = 0; i < NR_FILES; i++) {
        const char *rest = path_fit(files[i].path, path, number);

        if (rest && !*rest && is_there(machine, &files[i], *number))
            return &files[i];
    }
    return NULL;
}

/* A directory ends where the pattern goes on with a slash, or at the root. */
static const char *below(const struct pseudo *file, const char *path, uint64_t *number)
{
    const char *rest = path_fit(file->path, strcmp(path, "/") == 0 ? "" : path, number);

    return rest && *rest == '/' ? rest + 1 : NULL;
}

static bool any_exists(const struct machine *machine, const struct pseudo *file,
                       const char *rest, uint64_t number)
{
    return strchr(rest, '#') != NULL || is_there(machine, file, number);
}

bool pseudo_is_directory(const struct machine *machine, const char *path)
{
    for (size_t i = 0; i < NR_FILES; i++) {
        uint64_t number;
        const char *rest = below(&files[i], path, &number);

        if (rest && any_exists(machine, &files[i], rest, number))
            return true;
    }
    return false;
}

static void list_numbers(const struct machine *machine, const struct pseudo *file,
                         const char *rest, void (*each)(void *to, const char *name), void *to)
{
    size_t before = strcspn(rest, "#");
    char name[64];

    for (uint64_t number = 0; number < NR_NUMBERS; number++) {
        if (!file->exists(machine, number))
            continue;
        snprintf(name, sizeof(name), "%.*s%" PRIu64, (int)before, rest, number);
        each(to, name);
    }
}

void pseudo_list(const struct machine *machine, const char *path,
                 void (*each)(void *to, const char *name), void *to)
{
    for (size_t i = 0; i < NR_FILES; i++) {
        uint64_t number;
        const char *rest = below(&files[i], path, &number);
        size_t length = rest ? strcspn(rest, "/") : 0;
        char name[64];

        if (!rest || !any_exists(machine, &files[i], rest, number))
            continue;
        if (memchr(rest, '#', length)) {
            list_numbers(machine, &files[i], rest, each, to);
            continue;
        }
        snprintf(name, sizeof(name), "%.*s", (int)length, rest);
        each(to, name);
    }
}

bool pseudo_can(const struct pseudo *file, bool write)
{
    return write ? file->write != NULL : file->read != NULL;
}

void pseudo_read(const struct pseudo *file, const struct machine *machine, uint64_t number,
                 struct buffer *text)
{
    file->read(machine, number, text);
}

/* The first word of what is written counts, as for most of the kernel's files. */
int64_t pseudo_write(const struct pseudo *file, struct machine *machine, uint64_t number,
                     const char *text, size_t length)
{
    char word[64];
    size_t start = 0, end;
    int error;

    if (!length)
        return 0;
    while (start < length && strchr(" \t\n", text[start]) && text[start])
        start++;
    end = start;
    while (end < length && text[end] && !strchr(" \t\n", text[end]))
        end++;
    if (end - start >= sizeof(word))
        return -EINVAL;
    memcpy(word, text + start, end - start);
    word[end - start] = '\0';
    error = file->write(machine, number, word);
    return error ? error : (int64_t)length;
}
