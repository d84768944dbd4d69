/* SPDX-License-Identifier: MIT */
/* memplug online, offline, remove. */
#include "control.h"

#include <stdlib.h>
#include <string.h>

#define NR_RUNS_MAX 32u /* in one write */

struct change {
    const char *verb, *file; /* memplug/FILE */
    const char *done;        /* the state that it leads to */
    const char *from;        /* and the one that it begins with */
    char rest[16];           /* behind the blocks */
    bool from_back;
};

static int status_of(size_t nr_done, size_t nr)
{
    return nr_done == nr ? CONTROL_ALL : nr_done > 0 ? CONTROL_PARTLY : CONTROL_NONE;
}

/* Those that are so already are no matter, as for chmem. */
static size_t leave_out(struct control_blocks *blocks, const struct change *change)
{
    size_t nr = 0;

    for (size_t i = 0; i < blocks->nr; i++) {
        struct control_block *block = &blocks->list[i];

        if (!block->chosen || strcmp(block->state, change->done) != 0)
            continue;
        fprintf(stderr, "memplug: block %llu is %s already\n", (unsigned long long)block->number,
                change->done);
        block->chosen = false;
        blocks->nr_chosen--;
        nr++;
    }
    return nr;
}

/* --- what would be done ----------------------------------------------------------------------- */

static bool would_go(struct memplug_client *client, const struct control_block *block)
{
    char *reason = control_get(client, "memplug/blocks/%llu/reason",
                               (unsigned long long)block->number);
    char *why = control_get(client, "memplug/blocks/%llu/why", (unsigned long long)block->number);
    char error[16] = "?";

    if (reason != NULL && why != NULL) {
        control_word(reason, "error", error, sizeof(error));
        printf("block %llu: %s", (unsigned long long)block->number, why);
    }
    free(reason);
    free(why);
    return strcmp(error, "0") == 0;
}

/* Of an online what it means for later: that is what one wants to know before. */
static bool would_come(const struct control_block *block, const char *rest)
{
    bool movable = strcmp(rest, " movable") == 0;

    printf("block %llu: would go online%s%s\n", (unsigned long long)block->number,
           rest[0] != '\0' ? " in" : " where the policy says", rest);
    if (strcmp(rest, " kernel") == 0)
        printf("    and might not be removed later: what cannot be moved may come to it\n");
    else if (movable)
        printf("    and could be removed later: what comes to it can be moved\n");
    return true;
}

static int dry_run(struct memplug_client *client, const struct control_blocks *blocks,
                   const struct change *change)
{
    size_t nr = 0;

    for (size_t i = 0; i < blocks->nr; i++)
        if (blocks->list[i].chosen)
            nr += strcmp(change->done, "online") == 0 ? would_come(&blocks->list[i], change->rest)
                                                      : would_go(client, &blocks->list[i]);
    return status_of(nr, blocks->nr_chosen);
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

static int one_by_one(const struct control_options *options, struct memplug_client *client,
                      const struct control_blocks *blocks, const struct change *change)
{
    size_t nr = 0;

    for (size_t n = 0; n < blocks->nr; n++) {
        size_t i = change->from_back ? blocks->nr - 1 - n : n;
        char path[64], text[48];

        if (!blocks->list[i].chosen)
            continue;
        snprintf(path, sizeof(path), "memplug/%s", change->file);
        snprintf(text, sizeof(text), "%llu%s", (unsigned long long)blocks->list[i].number,
                 change->rest);
        nr += control_set(client, options, path, text) >= 0;
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
            status = (options->dry_run       ? dry_run(client, &blocks, change)
                      : options->best_effort ? one_by_one(options, client, &blocks, change)
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

/* --- remove ----------------------------------------------------------------------------------- */

/* A run of blocks; which cannot be brought back, so each run is an operation of its own. Returns
 * how many went. */
static size_t remove_run(const struct control_options *options, struct memplug_client *client,
                         const struct control_blocks *blocks, size_t first, size_t last)
{
    unsigned long long a = blocks->list[first].number, b = blocks->list[last].number;
    char text[64];

    if (options->dry_run) {
        bool offline = true;

        for (size_t i = first; i <= last; i++)
            if (control_is_online(&blocks->list[i]))
                offline &= options->offline && would_go(client, &blocks->list[i]);
        printf("blocks %llu-%llu: %s\n", a, b,
               offline ? "would be removed" : "not all of them are offline or can go");
        return offline ? last - first + 1 : 0;
    }
    snprintf(text, sizeof(text), "%llu-%llu%s", a, b, options->offline ? " offline" : "");
    return control_set(client, options, "memplug/remove", text) >= 0 ? last - first + 1 : 0;
}

int control_remove(const struct control_options *options, struct memplug_client *client)
{
    struct control_blocks blocks;
    int status = CONTROL_NONE;
    size_t nr = 0;

    if (control_read_blocks(client, &blocks) == 0)
        status = control_choose(&blocks, options->arguments[0], NULL, false, false);
    for (size_t i = 0, last; i < blocks.nr && status == 0; i = last + 1) {
        uint64_t unit_end;
        size_t nr_went;

        last = i;
        if (!blocks.list[i].chosen)
            continue;
        unit_end = blocks.list[i].unit_first + blocks.list[i].unit_nr_blocks;
        while (last + 1 < blocks.nr && blocks.list[last + 1].chosen &&
               blocks.list[last + 1].number == blocks.list[last].number + 1 &&
               (!options->best_effort || blocks.list[last + 1].number < unit_end))
            last++;
        nr_went = remove_run(options, client, &blocks, i, last);
        nr += nr_went;
        if (nr_went == 0 && !options->best_effort)
            break;
    }
    if (status == 0)
        status = status_of(nr, blocks.nr_chosen);
    control_free_blocks(&blocks);
    return status;
}
