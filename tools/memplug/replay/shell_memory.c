/* SPDX-License-Identifier: MIT */
/* util-linux's chmem and lsmem, which know memory by sysfs only. */
#include "shell_memory.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- what sysfs says -------------------------------------------------------------------------- */

static const char *attribute(struct shell *shell, const char *path)
{
    struct text text = {.length = 0};

    if (input_all(shell, path, &text) != 0)
        return NULL;
    text_add(shell, &text, "", 0);
    while (text.length != 0 && text.bytes[text.length - 1] == '\n')
        text.bytes[--text.length] = '\0';
    return text.bytes;
}

static const char *block_attribute(struct shell *shell, uint64_t id, const char *name)
{
    const char *text = attribute(shell, shell_format(shell, MEMORY_DIRECTORY "/memory%llu/%s",
                                                     (unsigned long long)id, name));

    return text != NULL ? text : "";
}

struct ids {
    struct shell *shell;
    struct memory *memory;
    int node;
};

static void take_block(void *to, const char *name)
{
    struct ids *ids = to;
    struct memory *memory = ids->memory;

    if (strncmp(name, "memory", 6) != 0 || !isdigit((unsigned char)name[6]))
        return;
    if (memory->count == memory->size) {
        size_t size = 2 * memory->size + 64;
        struct memory_block *grown = shell_alloc(ids->shell, size * sizeof(*grown));

        if (memory->count != 0)
            memcpy(grown, memory->blocks, memory->count * sizeof(*grown));
        memory->blocks = grown;
        memory->size = size;
    }
    memory->blocks[memory->count++].id = strtoull(name + 6, NULL, 10);
}

static void take_node(void *to, const char *name)
{
    struct ids *ids = to;

    if (strncmp(name, "node", 4) == 0 && isdigit((unsigned char)name[4]))
        ids->node = atoi(name + 4);
}

static int compare_blocks(const void *a, const void *b)
{
    const struct memory_block *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static void read_block(struct shell *shell, struct memory_block *block)
{
    struct ids ids = {.shell = shell, .node = -1};
    const char *path = shell_format(shell, MEMORY_DIRECTORY "/memory%llu",
                                    (unsigned long long)block->id);
    const char *state = block_attribute(shell, block->id, "state");

    block->state = strcmp(state, "online") == 0    ? "online"
                   : strcmp(state, "offline") == 0 ? "offline"
                   : strcmp(state, "going-offline") == 0 ? "on->off" : "?";
    block->online = strcmp(state, "online") == 0;
    block->removable = strcmp(block_attribute(shell, block->id, "removable"), "1") == 0;
    block->zones = block_attribute(shell, block->id, "valid_zones");
    if (shell->host->list(shell->host->context, path, take_node, &ids) == 0)
        block->node = ids.node;
}

bool memory_read(struct shell *shell, struct memory *memory, bool details)
{
    struct ids ids = {.shell = shell, .memory = memory};
    const char *size = attribute(shell, MEMORY_DIRECTORY "/block_size_bytes");

    *memory = (struct memory){.count = 0};
    if (size == NULL || shell->host->list == NULL ||
        shell->host->list(shell->host->context, MEMORY_DIRECTORY, take_block, &ids) != 0)
        return false;
    memory->block_bytes = strtoull(size, NULL, 16);
    if (memory->count == 0 || memory->block_bytes == 0)
        return false;
    qsort(memory->blocks, memory->count, sizeof(*memory->blocks), compare_blocks);
    for (size_t i = 0; details && i < memory->count; i++)
        read_block(shell, &memory->blocks[i]);
    return true;
}

char *memory_size_text(struct shell *shell, uint64_t size_bytes)
{
    static const char letters[] = "BKMGTPE";
    unsigned level = 0;
    uint64_t whole, tenths;

    while (level < 6 && size_bytes >> (10 * (level + 1)) != 0)
        level++;
    whole = size_bytes >> (10 * level);
    tenths = level == 0 ? 0 : (size_bytes >> (10 * (level - 1))) & 1023;
    tenths = (tenths + 50) / 100; /* of 1024 parts, as util-linux rounds them */
    if (tenths == 10) {
        whole++;
        tenths = 0;
    }
    if (tenths == 0)
        return shell_format(shell, "%llu%c", (unsigned long long)whole, letters[level]);
    return shell_format(shell, "%llu.%llu%c", (unsigned long long)whole,
                        (unsigned long long)tenths, letters[level]);
}

/* --- chmem ------------------------------------------------------------------------------------ */

struct chmem {
    struct shell *shell;
    struct memory memory;
    bool enable, verbose;
    const char *zone;
    uint64_t first, last, size_bytes; /* blocks; or a size, if it is not 0 */
};

static const char *block_name(struct chmem *chmem, uint64_t id)
{
    unsigned long long start = id * chmem->memory.block_bytes;

    return shell_format(chmem->shell, "Memory Block %llu (0x%016llx-0x%016llx)",
                        (unsigned long long)id, start, start + chmem->memory.block_bytes - 1);
}

/* Does the block's valid_zones let it go where it shall, or is it in the zone it shall leave? */
static bool zone_fits(const struct chmem *chmem, const char *zones)
{
    if (chmem->zone == NULL)
        return true;
    if (chmem->enable)
        return strcasestr(zones, chmem->zone) != NULL;
    return strncasecmp(zones, chmem->zone, strlen(chmem->zone)) == 0;
}

static const char *word_for(const struct chmem *chmem, const char *zones)
{
    if (!chmem->enable)
        return "offline";
    if (chmem->zone != NULL)
        return strcasecmp(chmem->zone, "Movable") == 0 ? "online_movable" : "online_kernel";
    return strcasestr(zones, "Movable") != NULL ? "online_movable" : "online";
}

enum outcome { OUTCOME_DONE, OUTCOME_ALREADY, OUTCOME_FAILED };

static enum outcome chmem_block(struct chmem *chmem, uint64_t id)
{
    struct shell *shell = chmem->shell;
    const char *verb = chmem->enable ? "enable" : "disable";
    const char *zones = block_attribute(shell, id, "valid_zones");
    bool tell = chmem->verbose || chmem->size_bytes == 0;
    const char *word;
    struct file *file;
    int error;

    if ((strcmp(block_attribute(shell, id, "state"), "online") == 0) == chmem->enable) {
        if (chmem->verbose && chmem->size_bytes == 0)
            print(shell, "%s already %sd\n", block_name(chmem, id), verb);
        return OUTCOME_ALREADY;
    }
    if (!zone_fits(chmem, zones)) {
        if (tell)
            complain(shell, "%s %s failed: Zone mismatch", block_name(chmem, id), verb);
        return OUTCOME_FAILED;
    }
    word = word_for(chmem, zones);
    file = file_open(shell, shell_format(shell, MEMORY_DIRECTORY "/memory%llu/state",
                                         (unsigned long long)id), SHELL_WRITE, &error);
    if (file != NULL) {
        error = file_write(shell, file, word, strlen(word));
        file_put(shell, file);
    }
    if (file == NULL || error != 0) {
        if (tell)
            complain(shell, "%s %s failed: %s", block_name(chmem, id), verb, strerror(-error));
        return OUTCOME_FAILED;
    }
    if (chmem->verbose)
        print(shell, "%s %sd\n", block_name(chmem, id), verb);
    return OUTCOME_DONE;
}

static int chmem_status(uint64_t left, uint64_t all)
{
    return left == 0 ? 0 : left == all ? 1 : 64;
}

/* Enable from the lowest block up, disable from the highest down, until the size is reached. */
static int chmem_size(struct chmem *chmem)
{
    const struct memory *memory = &chmem->memory;
    uint64_t left = chmem->size_bytes / memory->block_bytes;

    for (size_t i = 0; i < memory->count && left != 0; i++) {
        size_t index = chmem->enable ? i : memory->count - 1 - i;

        if (chmem_block(chmem, memory->blocks[index].id) == OUTCOME_DONE)
            left--;
    }
    if (left != 0)
        complain(chmem->shell, "Could only %s %s of memory",
                 chmem->enable ? "enable" : "disable",
                 memory_size_text(chmem->shell,
                                  chmem->size_bytes - left * memory->block_bytes));
    return chmem_status(left, chmem->size_bytes / memory->block_bytes);
}

static int chmem_range(struct chmem *chmem)
{
    const struct memory *memory = &chmem->memory;
    uint64_t all = chmem->last - chmem->first + 1, left = all;

    for (size_t i = 0; i < memory->count; i++) {
        uint64_t id = memory->blocks[i].id;

        if (id >= chmem->first && id <= chmem->last && chmem_block(chmem, id) != OUTCOME_FAILED)
            left--;
    }
    return chmem_status(left, all);
}

static bool chmem_number(struct chmem *chmem, const char *text, int base, const char *complaint,
                         uint64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoull(text, &end, base);
    if (isdigit((unsigned char)text[0]) && *end == '\0' && errno == 0 &&
        (base != 16 || strncasecmp(text, "0x", 2) == 0))
        return true;
    complain(chmem->shell, complaint, text);
    return false;
}

static bool chmem_parse_range(struct chmem *chmem, const char *from, const char *to, bool blocks)
{
    uint64_t block_bytes = chmem->memory.block_bytes;

    if (blocks)
        return chmem_number(chmem, from, 10, "Failed to parse block number: '%s'",
                            &chmem->first) &&
               chmem_number(chmem, to, 10, "Failed to parse block number: '%s'", &chmem->last);
    if (!chmem_number(chmem, from, 16, "Invalid start address format: %s", &chmem->first) ||
        !chmem_number(chmem, to, 16, "Invalid end address format: %s", &chmem->last))
        return false;
    if (chmem->first % block_bytes != 0 || (chmem->last + 1) % block_bytes != 0) {
        complain(chmem->shell, "Start address and (end address + 1) must be aligned to memory "
                 "block size (%s)", memory_size_text(chmem->shell, block_bytes));
        return false;
    }
    chmem->first /= block_bytes;
    chmem->last /= block_bytes;
    return true;
}

static bool chmem_parse_size(struct chmem *chmem, const char *text)
{
    char *end;

    chmem->size_bytes = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || strlen(end) > 1 || strchr("mMgG", *end) == NULL) {
        complain(chmem->shell, "Invalid parameter: %s", text);
        return false;
    }
    chmem->size_bytes <<= *end == 'g' || *end == 'G' ? 30 : 20;
    if (chmem->size_bytes == 0 || chmem->size_bytes % chmem->memory.block_bytes == 0)
        return true;
    complain(chmem->shell, "Size must be aligned to memory block size (%s)",
             memory_size_text(chmem->shell, chmem->memory.block_bytes));
    return false;
}

static bool chmem_parse(struct chmem *chmem, const char *text, bool blocks)
{
    const char *dash = strchr(text, '-');
    const char *from = text, *to = text;

    if (dash == NULL && !blocks)
        return chmem_parse_size(chmem, text);
    if (dash != NULL) {
        from = shell_copy(chmem->shell, text, (size_t)(dash - text));
        to = dash + 1;
    }
    if (!chmem_parse_range(chmem, from, to, blocks))
        return false;
    if (chmem->first <= chmem->last)
        return true;
    complain(chmem->shell, "Invalid range: %s", text);
    return false;
}

static int run_chmem(struct shell *shell, int argc, char **argv)
{
    static const char *const zones[] = {"DMA", "DMA32", "Normal", "Highmem", "Movable", "Device"};
    struct chmem chmem = {.shell = shell};
    struct options options;
    int nr_operands = tool_options(shell, argc, argv, &options);
    bool known = !options.has['z'];

    if (nr_operands != 1 || options.has['e'] == options.has['d'])
        shell_unknown(shell, "chmem without what it needs");
    if (!memory_read(shell, &chmem.memory, false)) {
        complain(shell, "failed to initialize " MEMORY_DIRECTORY " handler: %s", strerror(ENOENT));
        return 1;
    }
    chmem.enable = options.has['e'];
    chmem.verbose = options.has['v'];
    chmem.zone = options.value['z'];
    for (size_t i = 0; !known && i < sizeof(zones) / sizeof(zones[0]); i++)
        known = strcasecmp(zones[i], chmem.zone) == 0;
    if (!known) {
        complain(shell, "unknown memory zone: %s", chmem.zone);
        return 1;
    }
    if (!chmem_parse(&chmem, argv[0], options.has['b']))
        return 1;
    if (strchr(argv[0], '-') == NULL && !options.has['b'])
        return chmem_size(&chmem);
    return chmem_range(&chmem);
}

const struct tool shell_memory_tools[] = {
    {"chmem", "edbvz:", TOOL_CHANGES, run_chmem},
    {"lsmem", NULL, 0, run_lsmem},
    {NULL, NULL, 0, NULL},
};
