/* SPDX-License-Identifier: MIT */
/* Paths, files, and what commands print. */
#include "shell_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZEROS_MAX ((uint64_t)2 << 30) /* of one opened /dev/zero */
#define TEXT_MAX ((size_t)16 << 20)

char *path_of(struct shell *shell, const char *name)
{
    struct text path = {.length = 0};
    const char *sources[] = {name[0] == '/' ? "" : shell->own.directory, name};

    text_add(shell, &path, "", 0);
    for (size_t i = 0; i < 2; i++) {
        for (const char *at = sources[i]; *at != '\0'; ) {
            size_t length = strcspn(at, "/");

            if (length == 2 && strncmp(at, "..", 2) == 0) {
                while (path.length != 0 && path.bytes[--path.length] != '/')
                    continue;
                path.bytes[path.length] = '\0';
            } else if (length != 0 && !(length == 1 && *at == '.')) {
                text_add(shell, &path, "/", 1);
                text_add(shell, &path, at, length);
            }
            at += length;
            at += strspn(at, "/");
        }
    }
    if (path.length == 0)
        text_add(shell, &path, "/", 1);
    return path.bytes;
}

int host_kind(struct shell *shell, const char *name)
{
    const char *path = path_of(shell, name);
    int kind;

    if (strcmp(path, "/dev/null") == 0 || strcmp(path, "/dev/zero") == 0 ||
        strcmp(path, "/dev/full") == 0)
        return SHELL_FILE;
    if (*name == '\0' || shell->host->kind == NULL)
        return -ENOENT;
    kind = shell->host->kind(shell->host->context, path);
    if (kind == SHELL_FILE && name[strlen(name) - 1] == '/')
        return -ENOTDIR;
    return kind;
}

struct filter {
    struct shell *shell;
    void (*each)(void *to, const char *name);
    void *to;
};

static void pass_name(void *to, const char *name)
{
    struct filter *filter = to;

    if (name[0] == SHELL_FOREIGN_MARK)
        filter->shell->foreign = true;
    else
        filter->each(filter->to, name);
}

int host_list(struct shell *shell, const char *name, void (*each)(void *to, const char *name),
              void *to)
{
    struct filter filter = {shell, each, to};

    if (shell->host->list == NULL)
        return -ENOSYS;
    return shell->host->list(shell->host->context, path_of(shell, name), pass_name, &filter);
}

/* --- files ------------------------------------------------------------------------------------ */

static struct file *new_file(struct shell *shell, enum file_kind kind)
{
    struct file *file = shell_alloc(shell, sizeof(*file));

    file->kind = kind;
    file->nr_references = 1;
    file->writer = -1;
    file->next = shell->files;
    shell->files = file;
    return file;
}

struct file *file_text(struct shell *shell, struct text *text, bool readable)
{
    struct file *file = new_file(shell, FILE_TEXT);

    file->text = text;
    file->readable = readable;
    file->writable = !readable;
    return file;
}

static struct file *open_host(struct shell *shell, const char *path, enum shell_open how,
                              int *error)
{
    const struct shell_host *host = shell->host;
    struct file *file;
    int handle = host->open != NULL ? host->open(host->context, path, how) : -ENOSYS;

    if (handle == -ENOSYS) {
        shell->foreign = shell->foreign || how == SHELL_READ;
        return new_file(shell, FILE_NULL);
    }
    if (handle < 0) {
        *error = handle;
        return NULL;
    }
    file = new_file(shell, FILE_HOST);
    file->handle = handle;
    return file;
}

struct file *file_open(struct shell *shell, const char *name, enum shell_open how, int *error)
{
    const char *path = path_of(shell, name);
    struct file *file;

    *error = *name == '\0' ? -ENOENT : 0;
    if (*error != 0)
        return NULL;
    if (strcmp(path, "/dev/null") == 0)
        file = new_file(shell, FILE_NULL);
    else if (strcmp(path, "/dev/zero") == 0)
        file = new_file(shell, FILE_ZERO);
    else if (strcmp(path, "/dev/full") == 0)
        file = new_file(shell, FILE_FULL);
    else
        file = open_host(shell, path, how, error);
    if (file != NULL) {
        file->readable = how == SHELL_READ;
        file->writable = how != SHELL_READ;
    }
    return file;
}

/* The machine has one direction to a handle. */
struct file *file_open_both(struct shell *shell, const char *name, int *error)
{
    struct file *file = file_open(shell, name, SHELL_READ, error);

    if (file == NULL)
        return NULL;
    if (file->kind == FILE_HOST) {
        const char *path = path_of(shell, name);

        if (strncmp(path, "/tmp/", 5) == 0)
            shell_unknown(shell, "<> of a file in memory");
        file->writer = shell->host->open(shell->host->context, path, SHELL_APPEND);
        if (file->writer < 0) {
            *error = file->writer;
            file_put(shell, file);
            return NULL;
        }
    }
    file->writable = true;
    return file;
}

static void close_host(struct shell *shell, const struct file *file)
{
    shell->host->close(shell->host->context, file->handle);
    if (file->writer >= 0)
        shell->host->close(shell->host->context, file->writer);
}

void file_put(struct shell *shell, struct file *file)
{
    if (file != NULL && --file->nr_references == 0 && file->kind == FILE_HOST)
        close_host(shell, file);
}

void files_end(struct shell *shell)
{
    for (struct file *file = shell->files; file != NULL; file = file->next)
        if (file->nr_references != 0 && file->kind == FILE_HOST)
            close_host(shell, file);
}

int64_t file_read(struct shell *shell, struct file *file, void *to, size_t size_bytes)
{
    int64_t count = 0;

    if (!file->readable)
        return -EBADF;
    if (file->kind == FILE_TEXT) {
        size_t left = file->text->length - (size_t)file->offset;

        count = (int64_t)(left < size_bytes ? left : size_bytes);
        if (count != 0)
            memcpy(to, file->text->bytes + file->offset, (size_t)count);
    } else if (file->kind == FILE_ZERO || file->kind == FILE_FULL) {
        if (file->offset > ZEROS_MAX)
            shell_leave(shell, SHELL_ENDLESS);
        memset(to, 0, size_bytes);
        count = (int64_t)size_bytes;
    } else if (file->kind == FILE_HOST) {
        count = shell->host->read != NULL ?
                shell->host->read(shell->host->context, file->handle, file->offset, to,
                                  size_bytes) : -ENOSYS;
    }
    if (count > 0)
        file->offset += (uint64_t)count;
    return count;
}

int file_write(struct shell *shell, struct file *file, const char *bytes, size_t length)
{
    if (file == NULL || !file->writable)
        return -EBADF;
    if (file->kind == FILE_FULL)
        return -ENOSPC;
    if (file->kind == FILE_TEXT) {
        if (file->text->length + length > TEXT_MAX)
            shell_leave(shell, SHELL_ENDLESS);
        text_add(shell, file->text, bytes, length);
    } else if (file->kind == FILE_HOST) {
        do {
            int64_t count = shell->host->write != NULL ?
                            shell->host->write(shell->host->context,
                                               file->writer >= 0 ? file->writer : file->handle,
                                               file->offset, bytes, length) : -ENOSYS;

            deadline_check(shell); /* who was killed does not complain */
            if (count < 0)
                return (int)count;
            if (count == 0)
                break;
            file->offset += (uint64_t)count;
            bytes += count;
            length -= (size_t)count;
        } while (length != 0);
    }
    return 0;
}

struct file *input_open(struct shell *shell, const char *name, int *error)
{
    struct file *file = shell->own.files[0];

    if (strcmp(name, "-") != 0)
        return file_open(shell, name, SHELL_READ, error);
    *error = file == NULL ? -EBADF : 0;
    if (file != NULL)
        file->nr_references++;
    return file;
}

int input_all(struct shell *shell, const char *name, struct text *text)
{
    int error;
    struct file *file = input_open(shell, name, &error);
    int64_t count;

    if (file == NULL)
        return error;
    if (shell->scratch == NULL)
        shell->scratch = shell_alloc(shell, SHELL_CHUNK);
    while ((count = file_read(shell, file, shell->scratch, SHELL_CHUNK)) > 0) {
        if (text->length > TEXT_MAX)
            shell_leave(shell, SHELL_ENDLESS);
        text_add(shell, text, shell->scratch, (size_t)count);
    }
    file_put(shell, file);
    return (int)count;
}

/* --- subshells -------------------------------------------------------------------------------- */

void environment_enter(struct shell *shell, struct environment *saved)
{
    struct environment *own = &shell->own;
    size_t size_bytes = own->nr_variables_max * sizeof(*own->variables);

    *saved = *own;
    own->exit_trap = NULL;
    if (size_bytes != 0) {
        own->variables = shell_alloc(shell, size_bytes);
        memcpy(own->variables, saved->variables, size_bytes);
    }
    for (unsigned fd = 0; fd < SHELL_FDS; fd++)
        if (own->files[fd] != NULL)
            own->files[fd]->nr_references++;
}

void environment_leave(struct shell *shell, struct environment *saved)
{
    for (unsigned fd = 0; fd < SHELL_FDS; fd++)
        file_put(shell, shell->own.files[fd]);
    shell->own = *saved;
}

/* --- output ----------------------------------------------------------------------------------- */

void print_bytes(struct shell *shell, const char *bytes, size_t length)
{
    text_add(shell, &shell->out, bytes, length);
}

void print(struct shell *shell, const char *format, ...)
{
    char small[256];
    va_list list;
    int length;

    va_start(list, format);
    length = vsnprintf(small, sizeof(small), format, list);
    va_end(list);
    if ((size_t)length < sizeof(small)) {
        print_bytes(shell, small, (size_t)length);
    } else {
        char *large = shell_alloc(shell, (size_t)length + 1);

        va_start(list, format);
        vsnprintf(large, (size_t)length + 1, format, list);
        va_end(list);
        print_bytes(shell, large, (size_t)length);
    }
}

int print_flush(struct shell *shell)
{
    int error = 0;

    if (shell->out.length != 0)
        error = file_write(shell, shell->own.files[1], shell->out.bytes, shell->out.length);
    shell->out.length = 0;
    if (error != 0)
        shell->write_error = error;
    return shell->write_error;
}

void complain(struct shell *shell, const char *format, ...)
{
    char text[512];
    struct text all = {.length = 0};
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    shell->write_error = print_flush(shell);
    if (shell->own.bash && strcmp(shell->name, "sh") == 0 && shell->own.files[2] != NULL &&
        shell->own.files[2]->kind != FILE_NULL)
        shell->foreign = true; /* bash has words of its own */
    text_string(shell, &all, shell->name);
    text_string(shell, &all, ": ");
    text_string(shell, &all, text);
    text_string(shell, &all, "\n");
    shell->untold = file_write(shell, shell->own.files[2], all.bytes, all.length);
}

bool line_next(const struct text *text, size_t *at, struct line *line)
{
    const char *start = text->bytes + *at, *end;

    if (*at >= text->length)
        return false;
    end = memchr(start, '\n', text->length - *at);
    line->length = end != NULL ? (size_t)(end - start) : text->length - *at;
    *at += line->length + (end != NULL);
    line->mark = line->length != 0 && *start == SHELL_FOREIGN_MARK;
    line->bytes = start + line->mark;
    line->length -= line->mark;
    return true;
}

void print_line(struct shell *shell, const struct line *line)
{
    const char mark = SHELL_FOREIGN_MARK;

    if (line->mark)
        print_bytes(shell, &mark, 1);
    print_bytes(shell, line->bytes, line->length);
    print_bytes(shell, "\n", 1);
}
