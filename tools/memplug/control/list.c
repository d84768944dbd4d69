/* SPDX-License-Identifier: MIT */
/* memplug list, status: who has a pool, and how it is. */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE_MS 2000u

/* --- list ------------------------------------------------------------------------------------- */

enum { L_PID, L_NAME, L_USER, L_BLOCKS, L_ONLINE, L_SIZE, L_FREE, L_MEMMAP, L_MOVED, L_PATH };
static const struct control_column list_columns[] = {
    [L_PID] = {"PID", CONTROL_COUNT, true},
    [L_NAME] = {"NAME", CONTROL_TEXT, true},
    [L_USER] = {"USER", CONTROL_TEXT, true},
    [L_BLOCKS] = {"BLOCKS", CONTROL_COUNT, true},
    [L_ONLINE] = {"ONLINE", CONTROL_COUNT, true},
    [L_SIZE] = {"SIZE", CONTROL_COUNT, true},
    [L_FREE] = {"FREE", CONTROL_COUNT, true},
    [L_MEMMAP] = {"MEMMAP", CONTROL_COUNT, false},
    [L_MOVED] = {"MOVED", CONTROL_COUNT, true},
    [L_PATH] = {"PATH", CONTROL_TEXT, false},
};
#define NR_COLUMNS(columns) ((unsigned)(sizeof(columns) / sizeof((columns)[0])))

struct listing {
    struct control_table *table;
    unsigned nr_silent;
};

static void put_program(struct listing *listing, const struct memplug_client *client,
                        const char *path, const char *stat, uint64_t block_bytes)
{
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    const struct passwd *user = getpwuid(client->uid);
    char name[64], number[16];

    control_name(client->pid, name, sizeof(name));
    snprintf(number, sizeof(number), "%u", client->uid);
    control_table_row(listing->table);
    control_table_count(listing->table, L_PID, (uint64_t)client->pid);
    control_table_text(listing->table, L_NAME, name);
    control_table_text(listing->table, L_USER, user != NULL ? user->pw_name : number);
    control_table_count(listing->table, L_BLOCKS, control_number(stat, "nr_blocks", 0));
    control_table_count(listing->table, L_ONLINE, control_number(stat, "nr_online_blocks", 0));
    control_table_bytes(listing->table, L_SIZE, control_number(stat, "nr_blocks", 0) * block_bytes);
    control_table_bytes(listing->table, L_FREE,
                        control_number(stat, "nr_free_pages", 0) * page_bytes);
    control_table_bytes(listing->table, L_MEMMAP,
                        control_number(stat, "nr_memmap_pages", 0) * page_bytes);
    control_table_bytes(listing->table, L_MOVED,
                        control_number(stat, "nr_moved_pages", 0) * page_bytes);
    control_table_text(listing->table, L_PATH, path);
}

/* What a program left that died: its name begins with a number, and no process has that. By the
 * directory's descriptor, and only in one's own: another user could put a link in its place. */
static void clean(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    struct stat status;
    char *end, directory[4096];
    long pid = strtol(name, &end, 10);
    int fd;

    if (pid <= 0 || (*end != '\0' && *end != '-') || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
        return;
    snprintf(directory, sizeof(directory), "%.*s", (int)(name - path), path);
    directory[name - path - 1] = '\0'; /* or a link would be followed */
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0 && status.st_uid == geteuid() &&
        fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(status.st_mode))
        unlinkat(fd, name, 0);
    close(fd);
}

static int list_one(void *context, const char *path)
{
    struct listing *listing = context;
    struct memplug_client client;
    char *stat = NULL, *size = NULL;
    int error = memplug_client_open(&client, path, PATIENCE_MS);

    if (error == -ECONNREFUSED)
        clean(path);
    if (error != 0)
        return 0;
    if (control_try(&client, &stat, "memplug/stat") >= 0 &&
        control_try(&client, &size, "devices/system/memory/block_size_bytes") >= 0)
        put_program(listing, &client, path, stat, strtoull(size, NULL, 16));
    else
        listing->nr_silent++;
    free(stat);
    free(size);
    memplug_client_close(&client);
    return 0;
}

int control_list(const struct control_options *options, struct memplug_client *client)
{
    struct listing listing = {
        .table = control_table_new(options, "programs", list_columns, NR_COLUMNS(list_columns))};

    (void)client;
    if (listing.table == NULL)
        return CONTROL_USAGE;
    memplug_client_find(getenv(CONTROL_DIRECTORY), list_one, &listing);
    control_table_end(listing.table);
    if (listing.nr_silent > 0)
        fprintf(stderr, "memplug: %u programs do not answer\n", listing.nr_silent);
    return listing.nr_silent > 0 ? CONTROL_PARTLY : CONTROL_ALL;
}

/* --- status ----------------------------------------------------------------------------------- */

enum { S_RANGE, S_SIZE, S_STATE, S_ZONE, S_NODE, S_BLOCKS, S_USED, S_FREE, S_MEMMAP, S_PLACE,
       S_BOOT };
static const struct control_column status_columns[] = {
    [S_RANGE] = {"RANGE", CONTROL_TEXT, true},     [S_SIZE] = {"SIZE", CONTROL_COUNT, true},
    [S_STATE] = {"STATE", CONTROL_TEXT, true},     [S_ZONE] = {"ZONE", CONTROL_TEXT, true},
    [S_NODE] = {"NODE", CONTROL_COUNT, true},      [S_BLOCKS] = {"BLOCKS", CONTROL_TEXT, true},
    [S_USED] = {"USED", CONTROL_COUNT, true},      [S_FREE] = {"FREE", CONTROL_COUNT, false},
    [S_MEMMAP] = {"MEMMAP", CONTROL_COUNT, false}, [S_PLACE] = {"PLACE", CONTROL_TEXT, false},
    [S_BOOT] = {"BOOT", CONTROL_FLAG, false},
};

static bool is_alike(const struct control_block *a, const struct control_block *b)
{
    return b->chosen && b->number == a->number + 1 && strcmp(a->state, b->state) == 0 &&
           strcmp(a->zone, b->zone) == 0 && strcmp(a->memmap, b->memmap) == 0 &&
           a->node == b->node && a->boot == b->boot;
}

/* Blocks first to last of the list, which are alike. */
static void put_run(struct control_table *table, const struct control_blocks *blocks, size_t first,
                    size_t last)
{
    const struct control_block *block = &blocks->list[first];
    uint64_t nr_free = 0, nr_used = 0, nr_memmap = 0, bytes = (last - first + 1) *
                                                              blocks->block_bytes;
    char text[64];

    for (size_t i = first; i <= last; i++) {
        nr_free += blocks->list[i].nr_free;
        nr_memmap += blocks->list[i].nr_memmap;
        if (control_is_online(&blocks->list[i]))
            nr_used += blocks->list[i].nr_managed - blocks->list[i].nr_free;
    }
    control_table_row(table);
    snprintf(text, sizeof(text), "0x%016llx-0x%016llx", (unsigned long long)block->address,
             (unsigned long long)(block->address + bytes - 1));
    control_table_text(table, S_RANGE, text);
    control_table_bytes(table, S_SIZE, bytes);
    control_table_text(table, S_STATE, block->state);
    control_table_text(table, S_ZONE, block->zone);
    control_table_count(table, S_NODE, (uint64_t)block->node);
    snprintf(text, sizeof(text), first == last ? "%llu" : "%llu-%llu",
             (unsigned long long)block->number, (unsigned long long)blocks->list[last].number);
    control_table_text(table, S_BLOCKS, text);
    control_table_bytes(table, S_USED, nr_used * blocks->page_bytes);
    control_table_bytes(table, S_FREE, nr_free * blocks->page_bytes);
    control_table_bytes(table, S_MEMMAP, nr_memmap * blocks->page_bytes);
    control_table_text(table, S_PLACE, block->memmap);
    control_table_flag(table, S_BOOT, block->boot);
}

static void print_totals(const struct control_options *options,
                         const struct control_blocks *blocks)
{
    uint64_t nr_online = 0;
    char size[32], online[32], offline[32];

    for (size_t i = 0; i < blocks->nr; i++)
        nr_online += control_is_online(&blocks->list[i]);
    control_size(blocks->block_bytes, options->bytes, size, sizeof(size));
    control_size(nr_online * blocks->block_bytes, options->bytes, online, sizeof(online));
    control_size((blocks->nr - nr_online) * blocks->block_bytes, options->bytes, offline,
                 sizeof(offline));
    printf("\nMemory block size:    %8s\nTotal online memory:  %8s\nTotal offline memory: %8s\n",
           size, online, offline);
}

/* What is going on: operations through the socket, and writes by the program itself. */
static void print_running(struct memplug_client *client)
{
    const struct memplug_client_request request = {.verb = MEMPLUG_SERVE_OPERATIONS_GET};
    char *operations = NULL, *progress = NULL;
    bool asked = memplug_client_call(client, &request, &operations) >= 0;

    for (char *line = asked ? strtok(operations, "\n") : NULL; line != NULL;
         line = strtok(NULL, "\n")) {
        if (strstr(line, " queued ") != NULL)
            printf("Waiting: %s\n", line);
        else if (strstr(line, " running ") != NULL)
            printf("Running: %s\n", line);
    }
    free(operations);
    if (control_try(client, &progress, "memplug/progress") > 0)
        printf("Now:     %s", progress);
    free(progress);
}

int control_status(const struct control_options *options, struct memplug_client *client)
{
    struct control_table *table = control_table_new(options, "memory", status_columns,
                                                    NR_COLUMNS(status_columns));
    const char *which = options->nr_arguments > 0 ? options->arguments[0] : "all";
    struct control_blocks blocks;
    int status = CONTROL_NONE;

    if (table == NULL)
        return CONTROL_USAGE;
    if (control_read_blocks(client, &blocks) == 0)
        status = blocks.nr == 0 && options->nr_arguments == 0
                     ? CONTROL_ALL
                     : control_choose(&blocks, which, NULL, false, false);
    for (size_t i = 0, last; i < blocks.nr && status == 0; i = last + 1) {
        last = i;
        if (!blocks.list[i].chosen)
            continue;
        while (!options->all && last + 1 < blocks.nr &&
               is_alike(&blocks.list[last], &blocks.list[last + 1]))
            last++;
        put_run(table, &blocks, i, last);
    }
    if (status == 0) {
        control_table_end(table);
        if (!options->json && !options->raw && !options->no_headings) {
            print_totals(options, &blocks);
            print_running(client);
        }
    }
    control_free_blocks(&blocks);
    return status;
}
