/* SPDX-License-Identifier: MIT */
/* Real files into movable memory. */
#include "demo.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

/* The sequence of all data, unit by unit behind the counters: the piece that byte `at` begins. */
static char *piece_at(const struct demo_data *data, uint64_t at, uint64_t *piece_bytes)
{
    uint64_t within = at % DEMO_DATA_BYTES;

    if (*piece_bytes > DEMO_DATA_BYTES - within)
        *piece_bytes = DEMO_DATA_BYTES - within;
    return data->units[at / DEMO_DATA_BYTES] + DEMO_COUNTER_BYTES + within;
}

uint64_t demo_hash_file(const struct demo *demo, const struct demo_file *file)
{
    XXH3_state_t state;

    XXH3_64bits_reset(&state);
    for (uint64_t done = 0, piece_bytes; done < file->size_bytes; done += piece_bytes) {
        const char *piece;

        piece_bytes = file->size_bytes - done;
        piece = piece_at(&demo->data, file->start + done, &piece_bytes);
        XXH3_64bits_update(&state, piece, piece_bytes);
    }
    return XXH3_64bits_digest(&state);
}

static int add_file(struct demo_data *data, const char *path, uint64_t size_bytes)
{
    if (data->nr_files % 1024 == 0) {
        size_t nr_files = data->nr_files + 1024;
        struct demo_file *files = realloc(data->files, nr_files * sizeof(*files));

        if (files == NULL)
            return -ENOMEM;
        data->files = files;
    }
    data->files[data->nr_files] = (struct demo_file){
        .path = strdup(path),
        .start = data->size_bytes,
        .size_bytes = size_bytes,
    };
    if (data->files[data->nr_files].path == NULL)
        return -ENOMEM;
    data->nr_files++;
    data->size_bytes += size_bytes;
    return 0;
}

/* Readable regular files of the tree, until there is enough. */
static int list_files(struct demo *demo)
{
    char *roots[] = {(char *)demo->options.directory, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
    int error = 0;

    if (tree == NULL)
        return -errno;
    while (error == 0 && demo->data.size_bytes < demo->options.data_bytes) {
        FTSENT *entry = fts_read(tree);

        if (entry == NULL)
            break;
        if (entry->fts_info == FTS_F && entry->fts_statp->st_size > 0 &&
            access(entry->fts_path, R_OK) == 0)
            error = add_file(&demo->data, entry->fts_path, (uint64_t)entry->fts_statp->st_size);
    }
    fts_close(tree);
    return error;
}

static int repeat_files(struct demo *demo)
{
    unsigned nr_real = demo->data.nr_files;
    int error = 0;

    for (unsigned i = 0; error == 0 && demo->data.size_bytes < demo->options.data_bytes; i++) {
        const struct demo_file *file = &demo->data.files[i % nr_real];

        error = add_file(&demo->data, file->path, file->size_bytes);
    }
    return error;
}

/* The hash is taken from what read(2) gave, before it goes into movable memory. A file that has
 * become shorter meanwhile ends with zeros; its hash says so too. */
static int load_file(struct demo *demo, struct demo_file *file, char *buffer)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    XXH3_state_t state;

    XXH3_64bits_reset(&state);
    for (uint64_t done = 0, piece_bytes; done < file->size_bytes; done += piece_bytes) {
        ssize_t got = 0;
        char *piece;

        piece_bytes = file->size_bytes - done;
        piece = piece_at(&demo->data, file->start + done, &piece_bytes);
        if (fd >= 0)
            got = pread(fd, buffer, piece_bytes, (off_t)done);
        if (got < 0)
            got = 0;
        memset(buffer + got, 0, piece_bytes - (uint64_t)got);
        memcpy(piece, buffer, piece_bytes);
        XXH3_64bits_update(&state, buffer, piece_bytes);
    }
    file->hash = XXH3_64bits_digest(&state);
    if (fd >= 0)
        close(fd);
    return 0;
}

static int map_units(struct demo *demo)
{
    struct demo_data *data = &demo->data;
    struct memplug_reason reason;
    char text[256];
    int error;

    data->nr_units = (unsigned)((data->size_bytes + DEMO_DATA_BYTES - 1) / DEMO_DATA_BYTES);
    data->mapping_bytes = data->nr_units * DEMO_UNIT_BYTES;
    data->units = calloc(data->nr_units, sizeof(*data->units));
    demo->counted = calloc(data->nr_units, sizeof(*demo->counted));
    if (data->units == NULL || demo->counted == NULL)
        return -ENOMEM;
    error = memplug_map(demo->space, data->mapping_bytes,
                        &(struct memplug_mapping){.name = "memplug demo"}, &data->mapping, &reason);
    if (error != 0) {
        memplug_reason_text(&reason, text, sizeof(text));
        fprintf(stderr, "memplug: %s\n", text);
        return error;
    }
    for (unsigned i = 0; i < data->nr_units; i++)
        data->units[i] = (char *)data->mapping + i * DEMO_UNIT_BYTES;
    return 0;
}

static int say(const struct demo *demo, int error)
{
    if (error != 0)
        fprintf(stderr, "memplug: cannot load %s: %s\n", demo->options.directory,
                strerror(-error));
    return error;
}

int demo_list(struct demo *demo)
{
    int error = list_files(demo);

    if (error == 0 && demo->data.nr_files == 0)
        error = -ENOENT;
    if (error == 0)
        error = repeat_files(demo);
    return say(demo, error);
}

int demo_load(struct demo *demo)
{
    char *buffer = malloc(DEMO_DATA_BYTES);
    int error = buffer != NULL ? map_units(demo) : -ENOMEM;

    for (unsigned i = 0; error == 0 && i < demo->data.nr_files; i++)
        error = load_file(demo, &demo->data.files[i], buffer);
    demo->loaded = error == 0;
    free(buffer);
    return say(demo, error);
}

void demo_unload(struct demo *demo)
{
    struct demo_data *data = &demo->data;

    if (data->mapping != NULL)
        memplug_unmap(demo->space, data->mapping, data->mapping_bytes);
    for (unsigned i = 0; i < data->nr_files; i++)
        free(data->files[i].path);
    free(data->files);
    free(data->units);
    free(demo->counted);
    *data = (struct demo_data){0};
    demo->counted = NULL;
}
