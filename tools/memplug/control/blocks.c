/* SPDX-License-Identifier: MIT */
/* The blocks of a pool, and those that an argument means. */
#include "control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- reading ---------------------------------------------------------------------------------- */

static void trim(char *word)
{
    word[strcspn(word, "\n")] = '\0';
}

/* False: it has gone meanwhile. */
static bool read_block(struct memplug_client *client, struct control_blocks *blocks,
                       uint64_t number, int node)
{
    struct control_block *block = &blocks->list[blocks->nr];
    unsigned long long nr = number;
    char *stat = NULL, *state = NULL;

    if (control_try(client, &stat, "memplug/blocks/%llu/stat", nr) < 0 ||
        control_try(client, &state, "devices/system/memory/memory%llu/state", nr) < 0) {
        free(stat);
        return false;
    }
    *block = (struct control_block){
        .number = number,
        .address = control_number(stat, "address", 0),
        .size_bytes = blocks->block_bytes,
        .node = node,
        .unit_first = control_number(stat, "unit_first", number),
        .unit_nr_blocks = control_number(stat, "unit_nr_blocks", 1),
        .nr_memmap = control_number(stat, "nr_memmap_pages", 0),
        .nr_managed = control_number(stat, "nr_managed_pages", 0),
        .nr_free = control_number(stat, "nr_free_pages", 0),
        .boot = control_number(stat, "boot", 0) != 0,
    };
    control_word(stat, "zone", block->zone, sizeof(block->zone));
    control_word(stat, "memmap", block->memmap, sizeof(block->memmap));
    snprintf(block->state, sizeof(block->state), "%.20s", state);
    trim(block->state);
    blocks->nr++;
    free(stat);
    free(state);
    return true;
}

/* A line of memplug/ranges: "0x..-0x.. first 8 blocks 4 node 0 memmap block ...". */
static void read_range(struct memplug_client *client, struct control_blocks *blocks,
                       const char *line)
{
    unsigned long long first = 0, nr = 0;
    int node = 0;

    if (sscanf(line, "%*s first %llu blocks %llu node %d", &first, &nr, &node) != 3)
        return;
    blocks->list = realloc(blocks->list, (blocks->nr + nr) * sizeof(*blocks->list));
    if (blocks->list == NULL)
        abort();
    for (unsigned long long i = 0; i < nr; i++)
        read_block(client, blocks, first + i, node);
}

int control_read_blocks(struct memplug_client *client, struct control_blocks *blocks)
{
    char *size = control_get(client, "devices/system/memory/block_size_bytes");
    char *ranges = size != NULL ? control_get(client, "memplug/ranges") : NULL;

    *blocks = (struct control_blocks){.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE)};
    if (ranges == NULL) {
        free(size);
        return -EIO;
    }
    blocks->block_bytes = strtoull(size, NULL, 16);
    for (char *line = strtok(ranges, "\n"); line != NULL; line = strtok(NULL, "\n"))
        read_range(client, blocks, line);
    free(size);
    free(ranges);
    return 0;
}

void control_free_blocks(struct control_blocks *blocks)
{
    free(blocks->list);
    blocks->list = NULL;
}

bool control_is_online(const struct control_block *block)
{
    return strcmp(block->state, "offline") != 0;
}

/* --- choosing --------------------------------------------------------------------------------- */

static int wrong(const char *argument)
{
    fprintf(stderr, "memplug: %s: no blocks (8-11,14), addresses (0x..-0x..), size (4G) or all\n",
            argument);
    return CONTROL_USAGE;
}

static int choose_span(struct control_blocks *blocks, uint64_t first, uint64_t last,
                       const char *argument)
{
    uint64_t nr = 0;

    for (size_t i = 0; i < blocks->nr; i++) {
        struct control_block *block = &blocks->list[i];

        if (block->number < first || block->number > last)
            continue;
        nr++;
        blocks->nr_chosen += !block->chosen;
        block->chosen = true;
    }
    if (nr == last - first + 1)
        return 0;
    fprintf(stderr, "memplug: %s: not all of these blocks are there\n", argument);
    return CONTROL_NONE;
}

/* "8-11,14", each alone. */
static int choose_numbers(struct control_blocks *blocks, const char *argument)
{
    const char *at = argument;
    int status = 0;

    while (status == 0 && *at != '\0') {
        char *end;
        uint64_t first = strtoull(at, &end, 10), last = first;

        if (end == at || *at < '0' || *at > '9')
            return wrong(argument);
        if (*end == '-') {
            at = end + 1;
            last = strtoull(at, &end, 10);
            if (end == at || *at < '0' || *at > '9')
                return wrong(argument);
        }
        if ((*end != ',' && *end != '\0') || (*end == ',' && end[1] == '\0') || last < first)
            return wrong(argument);
        at = end + (*end == ',');
        status = choose_span(blocks, first, last, argument);
    }
    return status;
}

/* Whole blocks only: what an address cuts off is no block. */
static int choose_addresses(struct control_blocks *blocks, const char *argument)
{
    char *end;
    uint64_t first = strtoull(argument, &end, 16), last;

    if (*end != '-' || strncmp(end + 1, "0x", 2) != 0)
        return wrong(argument);
    last = strtoull(end + 1, &end, 16);
    if (*end != '\0' || last < first)
        return wrong(argument);
    if (first % blocks->block_bytes != 0 || (last + 1) % blocks->block_bytes != 0) {
        fprintf(stderr, "memplug: %s: not whole blocks of 0x%llx bytes\n", argument,
                (unsigned long long)blocks->block_bytes);
        return CONTROL_USAGE;
    }
    return choose_span(blocks, first / blocks->block_bytes, last / blocks->block_bytes, argument);
}

static bool read_size(const char *argument, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;
    const char *unit;

    *bytes = strtoull(argument, &end, 10);
    if (end == argument || *argument < '0' || *argument > '9' || *end == '\0')
        return false;
    unit = strchr(units, *end & ~0x20);
    if (unit == NULL || *unit == '\0' ||
        (end[1] != '\0' && strcmp(end + 1, "iB") != 0 && strcmp(end + 1, "B") != 0))
        return false;
    *bytes <<= 10 * (unit - units + 1);
    return true;
}

static int choose_size(struct control_blocks *blocks, uint64_t bytes, const char *argument,
                       const char *state, bool from_back, bool best_effort)
{
    uint64_t wanted = bytes / blocks->block_bytes;

    if (wanted == 0 || bytes % blocks->block_bytes != 0) {
        fprintf(stderr, "memplug: %s: not whole blocks of 0x%llx bytes\n", argument,
                (unsigned long long)blocks->block_bytes);
        return CONTROL_USAGE;
    }
    for (size_t n = 0; n < blocks->nr && blocks->nr_chosen < wanted; n++) {
        struct control_block *block = &blocks->list[from_back ? blocks->nr - 1 - n : n];

        if (strcmp(block->state, state) != 0 || block->boot)
            continue;
        block->chosen = true;
        blocks->nr_chosen++;
    }
    if (blocks->nr_chosen == wanted || (best_effort && blocks->nr_chosen > 0))
        return 0;
    fprintf(stderr, "memplug: %s: only %zu blocks are %s\n", argument, blocks->nr_chosen,
            strcmp(state, "online") == 0 ? "online" : "offline");
    return CONTROL_NONE;
}

int control_choose(struct control_blocks *blocks, const char *argument, const char *state,
                   bool from_back, bool best_effort)
{
    uint64_t bytes;

    if (strcmp(argument, "all") == 0) {
        for (size_t i = 0; i < blocks->nr; i++)
            blocks->list[i].chosen = true;
        blocks->nr_chosen = blocks->nr;
        return blocks->nr > 0 ? 0 : CONTROL_NONE;
    }
    if (strncmp(argument, "0x", 2) == 0)
        return choose_addresses(blocks, argument);
    if (state != NULL && read_size(argument, &bytes))
        return choose_size(blocks, bytes, argument, state, from_back, best_effort);
    return *argument != '\0' ? choose_numbers(blocks, argument) : wrong(argument);
}

char *control_runs(const struct control_blocks *blocks, unsigned *nr_runs)
{
    char *text = malloc(blocks->nr * 24 + 1);
    size_t length = 0;

    if (text == NULL)
        abort();
    *nr_runs = 0;
    text[0] = '\0';
    for (size_t i = 0; i < blocks->nr; i++) {
        const struct control_block *first = &blocks->list[i];

        if (!first->chosen)
            continue;
        while (i + 1 < blocks->nr && blocks->list[i + 1].chosen &&
               blocks->list[i + 1].number == blocks->list[i].number + 1)
            i++;
        length += (size_t)sprintf(text + length, "%s%llu", *nr_runs > 0 ? "," : "",
                                  (unsigned long long)first->number);
        if (&blocks->list[i] != first)
            length += (size_t)sprintf(text + length, "-%llu",
                                      (unsigned long long)blocks->list[i].number);
        ++*nr_runs;
    }
    return text;
}
