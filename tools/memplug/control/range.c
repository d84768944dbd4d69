/* SPDX-License-Identifier: MIT */
/* memplug add, replace. */
#include "control.h"

#include <memplug/range.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define STRUCT_PAGE_BYTES 64u /* what the Linux host takes unless told otherwise */

/* With the path from the root on: the program may be elsewhere. False: says why not. */
static bool complete(const char *words, char *full, size_t size_bytes)
{
    const char *colon = strchr(words, ':');
    char path[PATH_MAX], whole[PATH_MAX];

    if (strncmp(words, "file:", 5) != 0 && strncmp(words, "dax:", 4) != 0) {
        snprintf(full, size_bytes, "%s", words);
        return true;
    }
    snprintf(path, sizeof(path), "%.*s", (int)strcspn(colon + 1, ","), colon + 1);
    if (realpath(path, whole) == NULL) {
        fprintf(stderr, "memplug: %s: there is no such file\n", path);
        return false;
    }
    snprintf(full, size_bytes, "%.*s:%s%s", (int)(colon - words), words, whole,
             colon + 1 + strlen(path));
    return true;
}

static bool understand(const char *words, struct memplug_range_spec *spec)
{
    struct memplug_reason reason = {.why = NULL};

    if (memplug_range_parse(words, strlen(words), spec, &reason) == 0)
        return true;
    fprintf(stderr, "memplug: %s: %s\n", words, reason.why);
    return false;
}

/* What the memmap takes of it is what one does not see in a size. */
static int say_add(const struct control_blocks *blocks, const struct memplug_range_spec *spec)
{
    uint64_t nr = spec->size_bytes / blocks->block_bytes;
    uint64_t memmap = spec->memmap == MEMPLUG_MEMMAP_HOST
                          ? 0
                          : spec->size_bytes / blocks->page_bytes * STRUCT_PAGE_BYTES;

    if (spec->size_bytes % blocks->block_bytes != 0) {
        printf("would be refused: not whole blocks of 0x%llx bytes; %llu bytes are too many\n",
               (unsigned long long)blocks->block_bytes,
               (unsigned long long)(spec->size_bytes % blocks->block_bytes));
        return CONTROL_NONE;
    }
    if (nr == 0)
        printf("would add the whole file, as far as it is whole blocks\n");
    else
        printf("would add %llu blocks of %llu bytes: %llu bytes, of which their memmap takes"
               " %llu\n",
               (unsigned long long)nr, (unsigned long long)blocks->block_bytes,
               (unsigned long long)spec->size_bytes, (unsigned long long)memmap);
    return CONTROL_ALL;
}

static void say_where(struct memplug_client *client)
{
    char *last = control_get(client, "memplug/host/add");

    if (last != NULL)
        fputs(last, stdout);
    free(last);
}

int control_add(const struct control_options *options, struct memplug_client *client)
{
    char words[2 * PATH_MAX];
    struct memplug_range_spec spec;
    struct control_blocks blocks;
    int status;

    if (!complete(options->arguments[0], words, sizeof(words)))
        return CONTROL_NONE;
    if (!understand(words, &spec))
        return CONTROL_USAGE;
    if (options->dry_run) {
        if (control_read_blocks(client, &blocks) != 0)
            return CONTROL_NONE;
        status = say_add(&blocks, &spec);
        control_free_blocks(&blocks);
        return status;
    }
    if (control_set(client, options, "memplug/host/add", words) < 0)
        return CONTROL_NONE;
    if (!options->no_wait)
        say_where(client);
    return CONTROL_ALL;
}

/* --- replace ---------------------------------------------------------------------------------- */

/* The chosen ones are one run, as one operation needs them. */
static bool is_one_run(const struct control_blocks *blocks, char *runs, size_t size_bytes)
{
    unsigned nr_runs;
    char *text = control_runs(blocks, &nr_runs);

    snprintf(runs, size_bytes, "%s", text);
    free(text);
    return nr_runs == 1;
}

static int dry_replace(const struct control_blocks *blocks, const struct memplug_range_spec *spec,
                       const char *runs)
{
    uint64_t nr_used = 0, room = 0;

    for (size_t i = 0; i < blocks->nr; i++)
        if (blocks->list[i].chosen && control_is_online(&blocks->list[i]))
            nr_used += blocks->list[i].nr_managed - blocks->list[i].nr_free;
        else if (control_is_online(&blocks->list[i]))
            room += blocks->list[i].nr_free;
    printf("%s: %llu pages would move\n", runs, (unsigned long long)nr_used);
    if (say_add(blocks, spec) != CONTROL_ALL)
        return CONTROL_NONE;
    room += spec->size_bytes / blocks->page_bytes -
            spec->size_bytes / blocks->page_bytes * STRUCT_PAGE_BYTES / blocks->page_bytes;
    if (spec->size_bytes == 0 || room >= nr_used)
        return CONTROL_ALL;
    printf("there would be no room: %llu pages are free elsewhere and in the new range\n",
           (unsigned long long)room);
    return CONTROL_NONE;
}

/* What can go goes, block by block, in whatever room there is then. */
static int replace_some(const struct control_options *options, struct memplug_client *client,
                        const struct control_blocks *blocks, const char *words)
{
    size_t nr = 0;

    if (control_set(client, options, "memplug/host/add", words) < 0)
        return CONTROL_NONE;
    say_where(client);
    for (size_t i = 0; i < blocks->nr; i++) {
        const struct control_block *block = &blocks->list[i];
        char text[64];

        if (!block->chosen || block->unit_first != block->number)
            continue;
        snprintf(text, sizeof(text), "%llu-%llu offline", (unsigned long long)block->number,
                 (unsigned long long)(block->number + block->unit_nr_blocks - 1));
        if (control_set(client, options, "memplug/remove", text) >= 0)
            nr += block->unit_nr_blocks;
    }
    return nr >= blocks->nr_chosen ? CONTROL_ALL : CONTROL_PARTLY; /* the new range is there */
}

static int replace_all(const struct control_options *options, struct memplug_client *client,
                       const char *runs, const char *words)
{
    char text[MEMPLUG_ATTR_WRITE_MAX + 64];

    if ((size_t)snprintf(text, sizeof(text), "%s %s", runs, words) > MEMPLUG_ATTR_WRITE_MAX) {
        fputs("memplug: the path is too long\n", stderr);
        return CONTROL_USAGE;
    }
    if (control_set(client, options, "memplug/host/replace", text) < 0)
        return CONTROL_NONE;
    if (!options->no_wait)
        say_where(client);
    return CONTROL_ALL;
}

int control_replace(const struct control_options *options, struct memplug_client *client)
{
    char words[2 * PATH_MAX], runs[64];
    struct memplug_range_spec spec;
    struct control_blocks blocks;
    int status;

    if (!complete(options->arguments[1], words, sizeof(words)))
        return CONTROL_NONE;
    if (!understand(words, &spec) || (options->best_effort && options->no_wait))
        return CONTROL_USAGE;
    if (control_read_blocks(client, &blocks) != 0)
        return CONTROL_NONE;
    status = control_choose(&blocks, options->arguments[0], NULL, false, false);
    if (status == 0 && !is_one_run(&blocks, runs, sizeof(runs)) && !options->best_effort) {
        fputs("memplug: these blocks are not neighbours: replace one run after another, or add"
              " --best-effort\n", stderr);
        status = CONTROL_USAGE;
    }
    if (status == 0)
        status = (options->dry_run       ? dry_replace(&blocks, &spec, runs)
                  : options->best_effort ? replace_some(options, client, &blocks, words)
                                         : replace_all(options, client, runs, words));
    control_free_blocks(&blocks);
    return status;
}
