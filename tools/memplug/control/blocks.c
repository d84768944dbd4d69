/* SPDX-License-Identifier: MIT */
/* The blocks of a pool, and those that an argument means. */
#include "control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MORE 64u

/* --- reading ---------------------------------------------------------------------------------- */

static void trim(char *word)
{
    word[strcspn(word, "\n")] = '\0';
}

/* One more at the list's end. */
static int read_block(struct memplug_client *client, struct control_blocks *blocks,
                      uint64_t number, int node)
{
    struct control_block *block;
    char *stat = NULL, *state = NULL;
    int error = control_try(client, &stat, "memplug/blocks/%" PRIu64 "/stat", number);

    if (error >= 0)
        error = control_try(client, &state, "devices/system/memory/memory%" PRIu64 "/state",
                            number);
    if (error < 0) {
        free(stat);
        return error;
    }
    /* Room as answers come, and not as the program says, which may be another user's. */
    if (blocks->nr % MORE == 0)
        blocks->list = reallocarray(blocks->list, blocks->nr + MORE, sizeof(*blocks->list));
    if (blocks->list == NULL)
        abort();
    block = &blocks->list[blocks->nr];
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
    return 0;
}

/* A line of memplug/ranges: "0x..-0x.. first 8 blocks 4 node 0 memmap block ...". */
static int read_range(struct memplug_client *client, struct control_blocks *blocks,
                      const char *line)
{
    unsigned long long first = 0, nr = 0;
    int node = 0;

    if (sscanf(line, "%*s first %llu blocks %llu node %d", &first, &nr, &node) != 3)
        return -EPROTO;
    for (unsigned long long i = 0; i < nr; i++) {
        int error = read_block(client, blocks, first + i, node);

        if (error != 0 && error != -ENOENT && error != -ENODEV) /* these have gone meanwhile */
            return error;
    }
    return 0;
}

int control_read_blocks(struct memplug_client *client, struct control_blocks *blocks)
{
    char *size = control_get(client, "devices/system/memory/block_size_bytes");
    char *ranges = size != NULL ? control_get(client, "memplug/ranges") : NULL;
    int error = 0;

    *blocks = (struct control_blocks){.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE)};
    if (ranges == NULL) {
        free(size);
        return -EIO;
    }
    blocks->block_bytes = strtoull(size, NULL, 16);
    if (blocks->block_bytes < blocks->page_bytes)
        error = -EPROTO;
    for (char *line = strtok(ranges, "\n"); line != NULL && error == 0; line = strtok(NULL, "\n"))
        error = read_range(client, blocks, line);
    free(size);
    free(ranges);
    if (error != 0) {
        control_say("blocks", error, NULL);
        control_free_blocks(blocks);
    }
    return error;
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
    if (blocks->some || (nr > 0 && nr - 1 == last - first))
        return 0;
    fprintf(stderr, "memplug: %s: not all of these blocks are there\n", argument);
    return CONTROL_NONE;
}

/* A number at the head of the text, which becomes what is behind it. */
static bool take_number(const char **at, int base, uint64_t *number)
{
    char *end;

    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    *number = strtoull(*at, &end, base);
    *at = end;
    return errno == 0;
}

/* "8-11,14", each alone. */
static int choose_numbers(struct control_blocks *blocks, const char *argument)
{
    const char *at = argument;
    int status = 0;

    do {
        uint64_t first, last;

        if (!take_number(&at, 10, &first))
            return wrong(argument);
        last = first;
        if (*at == '-' && (at++, !take_number(&at, 10, &last)))
            return wrong(argument);
        if ((*at != ',' && *at != '\0') || last < first)
            return wrong(argument);
        status = choose_span(blocks, first, last, argument);
    } while (status == 0 && *at++ == ',');
    return status;
}

/* Whole blocks only: what an address cuts off is no block. */
static int choose_addresses(struct control_blocks *blocks, const char *argument)
{
    const char *at = argument;
    uint64_t first, last;

    if (!take_number(&at, 16, &first) || strncmp(at, "-0x", 3) != 0)
        return wrong(argument);
    at++;
    if (!take_number(&at, 16, &last) || *at != '\0' || last < first)
        return wrong(argument);
    if (first % blocks->block_bytes != 0 || (last + 1) % blocks->block_bytes != 0) {
        fprintf(stderr, "memplug: %s: not whole blocks of 0x%llx bytes\n", argument,
                (unsigned long long)blocks->block_bytes);
        return CONTROL_USAGE;
    }
    return choose_span(blocks, first / blocks->block_bytes, last / blocks->block_bytes, argument);
}

bool control_read_number(const char *argument, uint64_t *number)
{
    return take_number(&argument, 10, number) && *argument == '\0';
}

bool control_read_size(const char *argument, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    const char *unit;

    if (!take_number(&argument, 10, bytes) || *argument == '\0')
        return false;
    unit = strchr(units, *argument++ & ~0x20);
    if (unit == NULL || *unit == '\0' ||
        (*argument != '\0' && strcmp(argument, "iB") != 0 && strcmp(argument, "B") != 0))
        return false;
    return !__builtin_mul_overflow(*bytes, (uint64_t)1 << 10 * (unit - units + 1), bytes);
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
        if (blocks->nr > 0 || blocks->some)
            return 0;
        fputs("memplug: the pool has no blocks\n", stderr);
        return CONTROL_NONE;
    }
    if (strncmp(argument, "0x", 2) == 0)
        return choose_addresses(blocks, argument);
    if (state != NULL && control_read_size(argument, &bytes))
        return choose_size(blocks, bytes, argument, state, from_back, best_effort);
    return choose_numbers(blocks, argument);
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
