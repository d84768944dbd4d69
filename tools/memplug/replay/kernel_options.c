/* SPDX-License-Identifier: MIT */
#include "kernel_options.h"

#include "vfs.h"

#include <stdio.h>
#include <string.h>

/* An option of the line: a name, and what stands behind "=" or null. */
struct option {
    const char *name;
    size_t length;
    char value[128];
    bool has_value;
};

typedef void option_taker_t(struct machine *machine, const struct option *option);

int kernel_bool(const char *text, size_t length)
{
    if (!length)
        return -1;
    if (strchr("yYtT1", text[0]))
        return 1;
    if (strchr("nNfF0", text[0]))
        return 0;
    if (length > 1 && strchr("oO", text[0])) {
        if (strchr("nN", text[1]))
            return 1;
        if (strchr("fF", text[1]))
            return 0;
    }
    return -1;
}

/* The next one of the line, which is separated by blanks; null at its end. */
static const char *next_option(const char *at, struct option *option)
{
    size_t length = strcspn(at, " ");
    const char *value;

    if (!length)
        return NULL;
    value = memchr(at, '=', length);
    *option = (struct option){.name = at, .has_value = value != NULL};
    option->length = value ? (size_t)(value - at) : length;
    if (value)
        snprintf(option->value, sizeof(option->value), "%.*s",
                 (int)(length - option->length - 1), value + 1);
    return at + length + (at[length] == ' ');
}

static bool is_named(const struct option *option, const char *name)
{
    return strlen(name) == option->length && strncmp(option->name, name, option->length) == 0;
}

/* --- what they do ----------------------------------------------------------------------------- */

static void set_policy(struct machine *machine, const struct memplug_policy *policy,
                       unsigned fields)
{
    if (memplug_policy_set(machine->pool, policy, fields))
        fake_panic(machine->fake, "a policy of the command line is refused");
}

/* A value that is none leaves "no". */
static void take_memmap_on_memory(struct machine *machine, const struct option *option)
{
    struct memplug_policy policy = {.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_NO};

    if (!option->has_value || kernel_bool(option->value, strlen(option->value)) == 1)
        policy.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_YES;
    else if (strcmp(option->value, "force") == 0)
        policy.memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_FORCE;
    set_policy(machine, &policy, MEMPLUG_POLICY_MEMMAP_ON_MEMORY);
}

/* A value that is none leaves what was there: the distribution's default. */
static void take_default_state(struct machine *machine, const struct option *option)
{
    static const char *const words[] = {"offline", "online", "online_kernel", "online_movable"};
    struct memplug_policy policy = {0};

    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(option->value, words[i]) != 0)
            continue;
        policy.auto_online = (enum memplug_auto_online)i;
        set_policy(machine, &policy, MEMPLUG_POLICY_AUTO_ONLINE);
    }
}

static void take_movable_node(struct machine *machine, const struct option *option)
{
    struct memplug_policy policy = {.movable_node = true};

    (void)option;
    set_policy(machine, &policy, MEMPLUG_POLICY_MOVABLE_NODE);
}

static void take_hugepages(struct machine *machine, const struct option *option)
{
    uint64_t nr;

    if (parse_number(option->value, 1u << 20, &nr) &&
        memplug_huge_resize(machine->pool, MEMPLUG_HUGE_PMD, nr, MEMPLUG_ANY_NODE, NULL, NULL))
        fake_panic(machine->fake, "hugepages=%s is refused", option->value);
}

/* A parameter of the module is what its file takes. */
static void take_parameter(struct machine *machine, const struct option *option)
{
    char path[160];

    snprintf(path, sizeof(path), "module/memory_hotplug/parameters/%.*s",
             (int)(option->length - strlen("memory_hotplug.")),
             option->name + strlen("memory_hotplug."));
    memplug_attr_set(&machine->attr, path, option->value, strlen(option->value), NULL, NULL);
}

static const struct taker {
    const char *name;
    option_taker_t *take;
} takers[] = {
    {"memory_hotplug.memmap_on_memory", take_memmap_on_memory},
    {"memory_hotplug.online_policy", take_parameter},
    {"memory_hotplug.auto_movable_ratio", take_parameter},
    {"memory_hotplug.auto_movable_numa_aware", take_parameter},
    {"memhp_default_state", take_default_state},
    {"movable_node", take_movable_node},
    {"hugepages", take_hugepages},
};

static const struct taker *taker_of(const struct option *option)
{
    for (size_t i = 0; i < sizeof(takers) / sizeof(takers[0]); i++)
        if (is_named(option, takers[i].name))
            return &takers[i];
    return NULL;
}

bool kernel_wants_hvo(const struct boot_options *options)
{
    struct buffer line = {0};
    struct option option;
    bool wants = false;

    buffer_print(&line, "%s", options->append ? options->append : "");
    for (size_t i = 0; i < line.length; i++)
        if (line.bytes[i] == ',')
            line.bytes[i] = ' ';
    for (const char *at = buffer_of(&line); (at = next_option(at, &option));)
        if (is_named(&option, "hugetlb_free_vmemmap"))
            wants = kernel_bool(option.value, strlen(option.value)) == 1;
    buffer_free(&line);
    return wants;
}

static void make_line(struct machine *machine)
{
    const struct boot_options *options = &machine->options;
    struct buffer *line = &machine->cmdline;
    size_t start;

    buffer_print(line, "memory_hotplug.memmap_on_memory=%s",
               options->memmap_on_memory ? options->memmap_on_memory : "0");
    if (!options->memhp)
        buffer_print(line, " memhp_default_state=offline");
    else if (strcmp(options->memhp, "kernel") != 0)
        buffer_print(line, " memhp_default_state=%s", options->memhp);
    start = line->length;
    if (options->append)
        buffer_print(line, " %s", options->append);
    for (size_t i = start; i < line->length; i++)
        if (line->bytes[i] == ',')
            line->bytes[i] = ' ';
}

void kernel_options_apply(struct machine *machine)
{
    struct memplug_policy policy = {.auto_online = MEMPLUG_AUTO_ONLINE,
                                    .memmap_on_memory = MEMPLUG_MEMMAP_ON_MEMORY_NO};
    struct option option;

    set_policy(machine, &policy, MEMPLUG_POLICY_AUTO_ONLINE | MEMPLUG_POLICY_MEMMAP_ON_MEMORY);
    make_line(machine);
    for (const char *at = buffer_of(&machine->cmdline); (at = next_option(at, &option));) {
        const struct taker *taker = taker_of(&option);

        if (taker)
            taker->take(machine, &option);
    }
}
