/* SPDX-License-Identifier: MIT */
/* Which program is meant. */
#include "control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COMM_BYTES 15u /* what the kernel keeps of a name */
#define PATIENCE_MS 2000u /* for each of all that there are */

void control_name(int pid, char *name, size_t size_bytes)
{
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    file = pid > 0 ? fopen(path, "re") : NULL;
    if (file == NULL || fgets(name, (int)size_bytes, file) == NULL)
        snprintf(name, size_bytes, "?");
    name[strcspn(name, "\n")] = '\0';
    if (file != NULL)
        fclose(file);
}

struct search {
    const char *wanted; /* null: any */
    char path[256];
    int pid; /* whose socket that is */
    unsigned nr;
};

static bool is_wanted(const struct search *search, int pid)
{
    char name[64], number[16];

    if (search->wanted == NULL)
        return true;
    control_name(pid, name, sizeof(name));
    snprintf(number, sizeof(number), "%d", pid);
    return strcmp(search->wanted, number) == 0 || strcmp(search->wanted, name) == 0 ||
           (strlen(name) == COMM_BYTES && strncmp(search->wanted, name, COMM_BYTES) == 0);
}

static int look_at(void *context, const char *path)
{
    struct search *search = context;
    struct memplug_client client;

    if (memplug_client_open(&client, path, PATIENCE_MS) != 0)
        return 0;
    if (is_wanted(search, client.pid)) {
        search->nr++;
        search->pid = client.pid;
        snprintf(search->path, sizeof(search->path), "%s", path);
    }
    memplug_client_close(&client);
    return 0;
}

int control_connect(const struct control_options *options, struct memplug_client *client)
{
    struct search search = {.wanted = options->target};
    int error;

    if (options->target != NULL && strchr(options->target, '/') != NULL) {
        snprintf(search.path, sizeof(search.path), "%s", options->target);
        search.nr = 1;
    } else {
        memplug_client_find(getenv(CONTROL_DIRECTORY), look_at, &search);
    }
    if (search.nr == 0)
        fprintf(stderr, "memplug: no program %s%s has a pool that can be controlled from here\n",
                options->target != NULL ? "called " : "that runs",
                options->target != NULL ? options->target : "");
    if (search.nr > 1)
        fprintf(stderr, "memplug: %u programs are meant: say which with --target (memplug list)\n",
                search.nr);
    if (search.nr != 1)
        return -ESRCH;
    error = memplug_client_open(client, search.path, CONTROL_PATIENCE_MS);
    if (error == 0 && search.pid != 0 && client->pid != search.pid) {
        memplug_client_close(client);
        error = -ESRCH; /* another one has come in its place */
    }
    if (error != 0)
        control_say(search.path, error, NULL);
    return error;
}
