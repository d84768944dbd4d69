/* SPDX-License-Identifier: MIT */
/* memplug online, offline, remove. */
#include "control.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NR_RUNS_MAX 32u /* in one write */

struct change {
    const char *file;        /* memplug/FILE */
    const char *done;        /* the state that it leads to; null: out of the pool */
    const char *from;        /* and the one that it begins with; null: any */
    char rest[16];           /* behind the blocks */
    bool from_back;
};

static int status_of(size_t nr_done, size_t nr)
{
    return nr_done == nr ? CONTROL_ALL : nr_done > 0 ? CONTROL_PARTLY : CONTROL_NONE;
}

/* Those that are so already are no matter, as for chmem. */
static void leave_out(struct control_blocks *blocks, const struct change *change)
{
    for (size_t i = 0; i < blocks->nr && change->done != NULL; i++) {
        struct control_block *block = &blocks->list[i];

        if (!block->chosen || strcmp(block->state, change->done) != 0)
            continue;
        fprintf(stderr, "memplug: block %llu is %s already\n", (unsigned long long)block->number,
                change->done);
        block->chosen = false;
        blocks->nr_chosen--;
    }
}

/* --- what would be done ----------------------------------------------------------------------- */

/* Of an online what it means for later: that is what one wants to know before. */
static void would_come(const struct control_block *block, const char *rest)
{
    bool movable = strcmp(rest, " movable") == 0;

    printf("block %llu: would go online%s%s\n", (unsigned long long)block->number,
           rest[0] != '\0' ? " in" : " where the policy says", rest);
    if (strcmp(rest, " kernel") == 0)
        printf("    and might not be removed later: what cannot be moved may come to it\n");
    else if (movable)
        printf("    and could be removed later: what comes to it can be moved\n");
}

static int dry_run(const struct control_options *options, struct memplug_client *client,
                   const struct control_blocks *blocks, const struct change *change)
{
    const struct control_leaving how = {
        .remove = change->done == NULL,
        .offline = change->done != NULL || options->offline,
        .best_effort = options->best_effort,
    };

    if (change->done == NULL || strcmp(change->done, "offline") == 0)
        return control_would_leave(client, blocks, &how);
    for (size_t i = 0; i < blocks->nr; i++)
        if (blocks->list[i].chosen)
            would_come(&blocks->list[i], change->rest);
    return CONTROL_ALL;
}

/* --- doing it --------------------------------------------------------------------------------- */

static int all_or_none(const struct control_options *options, struct memplug_client *client,
                       const struct control_blocks *blocks, const struct change *change)
{
    unsigned nr_runs;
    char *runs = control_runs(blocks, &nr_runs), path[64], *text;
    int result = -1;

    snprintf(path, sizeof(path), "memplug/%s", change->file);
    text = malloc(strlen(runs) + sizeof(change->rest));
    if (text == NULL)
        abort();
    sprintf(text, "%s%s", runs, change->rest);
    if (nr_runs > NR_RUNS_MAX || strlen(text) > MEMPLUG_ATTR_WRITE_MAX)
        fprintf(stderr, "memplug: at most %u runs of blocks can go together, and these are %u: ask"
                        " for fewer, or add --best-effort\n",
                NR_RUNS_MAX, nr_runs);
    else
        result = control_set(client, options, path, text);
    free(runs);
    free(text);
    return result >= 0 ? CONTROL_ALL : CONTROL_NONE;
}

/* The blocks that can only go together: how many, and the last of them. */
static uint64_t part_of(const struct control_block *block, const struct change *change,
                        uint64_t *last)
{
    *last = block->number;
    if (change->done != NULL)
        return 1;
    if (block->number != block->unit_first)
        return 0; /* with the first one, or not at all */
    *last += block->unit_nr_blocks - 1;
    return block->unit_nr_blocks;
}

static int part_by_part(const struct control_options *options, struct memplug_client *client,
                        const struct control_blocks *blocks, const struct change *change)
{
    size_t nr = 0;

    for (size_t n = 0; n < blocks->nr; n++) {
        size_t i = change->from_back ? blocks->nr - 1 - n : n;
        const struct control_block *block = &blocks->list[i];
        char path[64], text[64];
        uint64_t last, nr_blocks = block->chosen ? part_of(block, change, &last) : 0;

        if (nr_blocks == 0)
            continue;
        snprintf(path, sizeof(path), "memplug/%s", change->file);
        snprintf(text, sizeof(text), "%" PRIu64 "-%" PRIu64 "%s", block->number, last,
                 change->rest);
        if (control_set(client, options, path, text) >= 0)
            nr += nr_blocks;
    }
    return status_of(nr, blocks->nr_chosen);
}

static int change_blocks(const struct control_options *options, struct memplug_client *client,
                         const struct change *change)
{
    struct control_blocks blocks;
    int status = CONTROL_NONE;

    if (options->no_wait && options->best_effort) {
        fputs("memplug: --no-wait and --best-effort do not go together: many operations have many"
              " numbers\n", stderr);
        return CONTROL_USAGE;
    }
    if (control_read_blocks(client, &blocks) == 0)
        status = control_choose(&blocks, options->arguments[0], change->from, change->from_back,
                                options->best_effort);
    if (status == 0) {
        leave_out(&blocks, change);
        if (blocks.nr_chosen > 0)
            status = (options->dry_run       ? dry_run(options, client, &blocks, change)
                      : options->best_effort ? part_by_part(options, client, &blocks, change)
                                             : all_or_none(options, client, &blocks, change));
    }
    control_free_blocks(&blocks);
    return status;
}

int control_online(const struct control_options *options, struct memplug_client *client)
{
    const char *zone = options->zone != NULL ? options->zone : "movable";
    struct change change = {.file = "online", .done = "online", .from = "offline"};

    if (strcmp(zone, "movable") != 0 && strcmp(zone, "kernel") != 0 &&
        strcmp(zone, "default") != 0) {
        fprintf(stderr, "memplug: %s: --zone is movable, kernel or default\n", zone);
        return CONTROL_USAGE;
    }
    if (strcmp(zone, "default") != 0)
        snprintf(change.rest, sizeof(change.rest), " %s", zone);
    return change_blocks(options, client, &change);
}

int control_offline(const struct control_options *options, struct memplug_client *client)
{
    const struct change change = {
        .file = "offline", .done = "offline", .from = "online", .from_back = true};

    return change_blocks(options, client, &change);
}

int control_remove(const struct control_options *options, struct memplug_client *client)
{
    struct change change = {.file = "remove"};

    if (options->offline)
        snprintf(change.rest, sizeof(change.rest), " offline");
    return change_blocks(options, client, &change);
}
