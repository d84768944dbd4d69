/* SPDX-License-Identifier: MIT */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

static void host_path(const struct machine *machine, const char *path, struct buffer *to)
{
    buffer_print(to, "%s%s", machine->guest_root, path);
}

enum guest_kind guest_kind(const struct machine *machine, const char *path)
{
    struct buffer name = {0};
    struct stat status;
    int error;

    if (!machine->guest_root)
        return GUEST_NONE;
    host_path(machine, path, &name);
    error = stat(buffer_of(&name), &status);
    buffer_free(&name);
    if (error)
        return GUEST_NONE;
    if (S_ISDIR(status.st_mode))
        return GUEST_DIRECTORY;
    return S_ISREG(status.st_mode) ? GUEST_FILE : GUEST_NONE;
}

int guest_read(const struct machine *machine, const char *path, struct buffer *text)
{
    struct buffer name = {0};
    char part[4096];
    size_t count;
    FILE *file;
    int error = 0;

    host_path(machine, path, &name);
    file = fopen(buffer_of(&name), "r");
    if (!file)
        error = -errno;
    buffer_free(&name);
    if (error)
        return error;
    while ((count = fread(part, 1, sizeof(part), file)) != 0)
        buffer_add(text, part, count);
    if (ferror(file))
        error = -EIO;
    fclose(file);
    return error;
}
