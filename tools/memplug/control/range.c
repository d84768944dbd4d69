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
static uint64_t memmap_bytes(const struct control_blocks *blocks,
                             const struct memplug_range_spec *spec)
{
    return spec->memmap == MEMPLUG_MEMMAP_HOST
               ? 0
               : spec->size_bytes / blocks->page_bytes * STRUCT_PAGE_BYTES;
}

static int say_add(const struct control_blocks *blocks, const struct memplug_range_spec *spec)
{
    uint64_t nr = spec->size_bytes / blocks->block_bytes, memmap = memmap_bytes(blocks, spec);

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
    return control_set(client, options, "memplug/host/add", words) < 0 ? CONTROL_NONE : CONTROL_ALL;
}

/* --- replace ---------------------------------------------------------------------------------- */

static int dry_replace(const struct control_options *options, struct memplug_client *client,
                       const struct control_blocks *blocks, const struct memplug_range_spec *spec)
{
    struct control_leaving how = {
        .remove = true,
        .offline = true,
        .best_effort = options->best_effort,
        .nr_new_pages = (spec->size_bytes - memmap_bytes(blocks, spec)) / blocks->page_bytes,
    };

    if (say_add(blocks, spec) != CONTROL_ALL)
        return CONTROL_NONE;
    if (spec->size_bytes == 0)
        how.nr_new_pages = UINT64_MAX / 2; /* the file's, which the program opens */
    return control_would_leave(client, blocks, &how);
}

/* What can go goes, block by block, in whatever room there is then. */
static int replace_some(const struct control_options *options, struct memplug_client *client,
                        const struct control_blocks *blocks, const char *words)
{
    size_t nr = 0;

    if (control_set(client, options, "memplug/host/add", words) < 0)
        return CONTROL_NONE;
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
        fputs("memplug: the path is too long, or these are too many runs of blocks\n", stderr);
        return CONTROL_USAGE;
    }
    return control_set(client, options, "memplug/host/replace", text) < 0 ? CONTROL_NONE
                                                                          : CONTROL_ALL;
}

int control_replace(const struct control_options *options, struct memplug_client *client)
{
    char words[2 * PATH_MAX], *runs = NULL;
    struct memplug_range_spec spec;
    struct control_blocks blocks;
    unsigned nr_runs;
    int status;

    if (!complete(options->arguments[1], words, sizeof(words)))
        return CONTROL_NONE;
    if (!understand(words, &spec) || (options->best_effort && options->no_wait))
        return CONTROL_USAGE;
    if (control_read_blocks(client, &blocks) != 0)
        return CONTROL_NONE;
    status = control_choose(&blocks, options->arguments[0], NULL, false, false);
    if (status == 0)
        runs = control_runs(&blocks, &nr_runs);
    if (status == 0)
        status = (options->dry_run       ? dry_replace(options, client, &blocks, &spec)
                  : options->best_effort ? replace_some(options, client, &blocks, words)
                                         : replace_all(options, client, runs, words));
    free(runs);
    control_free_blocks(&blocks);
    return status;
}
