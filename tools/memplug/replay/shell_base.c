/* SPDX-License-Identifier: MIT */
/* A line's memory, the ways out of it, and the way in. */
#include "shell_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALLOCATED_MAX ((size_t)192 << 20)
#define CHUNK_BYTES ((size_t)64 << 10)

struct chunk {
    struct chunk *next;
    size_t used, size;
    max_align_t bytes[];
};

_Noreturn void shell_leave(struct shell *shell, enum shell_verdict verdict)
{
    shell->result->verdict = verdict;
    longjmp(*shell->leave, 1);
}

_Noreturn void shell_unknown(struct shell *shell, const char *culprit)
{
    snprintf(shell->result->culprit, sizeof(shell->result->culprit), "%s", culprit);
    if (shell->result->ran)
        shell->result->changes = shell->changes;
    shell_leave(shell, SHELL_UNKNOWN);
}

_Noreturn void shell_abort(struct shell *shell, const char *format, ...)
{
    char text[256];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    shell->name = "sh";
    complain(shell, "%s", text);
    shell->status = 2;
    if (shell->escape != NULL)
        longjmp(shell->escape->buffer, 1);
    shell_leave(shell, SHELL_UNDERSTOOD);
}

static struct chunk *new_chunk(struct shell *shell, size_t size_bytes)
{
    size_t size = size_bytes > CHUNK_BYTES ? size_bytes : CHUNK_BYTES;
    struct chunk *chunk = NULL;

    if (size_bytes < ALLOCATED_MAX && shell->allocated_bytes + size < ALLOCATED_MAX)
        chunk = calloc(1, sizeof(*chunk) + size);
    if (chunk == NULL)
        shell_leave(shell, SHELL_ENDLESS);
    chunk->size = size;
    chunk->next = shell->chunks;
    shell->chunks = chunk;
    shell->allocated_bytes += size;
    return chunk;
}

void *shell_alloc(struct shell *shell, size_t size_bytes)
{
    struct chunk *chunk = shell->chunks;
    size_t unit = sizeof(max_align_t);
    char *bytes;

    if (size_bytes > ALLOCATED_MAX)
        shell_leave(shell, SHELL_ENDLESS);
    size_bytes = (size_bytes + unit - 1) / unit * unit;
    if (chunk == NULL || chunk->size - chunk->used < size_bytes)
        chunk = new_chunk(shell, size_bytes);
    bytes = (char *)chunk->bytes + chunk->used;
    chunk->used += size_bytes;
    return bytes;
}

char *shell_copy(struct shell *shell, const char *bytes, size_t length)
{
    char *copy = shell_alloc(shell, length + 1);

    if (length != 0)
        memcpy(copy, bytes, length);
    return copy;
}

char *shell_format(struct shell *shell, const char *format, ...)
{
    va_list list;
    int length;
    char *text;

    va_start(list, format);
    length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    text = shell_alloc(shell, (size_t)length + 1);
    va_start(list, format);
    vsnprintf(text, (size_t)length + 1, format, list);
    va_end(list);
    return text;
}

void text_add(struct shell *shell, struct text *text, const char *bytes, size_t length)
{
    if (text->size - text->length <= length) {
        size_t size = 2 * text->size + length + 64;
        char *grown = shell_alloc(shell, size);

        if (text->length != 0)
            memcpy(grown, text->bytes, text->length);
        text->bytes = grown;
        text->size = size;
    }
    if (length != 0)
        memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

void text_string(struct shell *shell, struct text *text, const char *string)
{
    text_add(shell, text, string, strlen(string));
}

void list_add(struct shell *shell, struct list *list, char *item)
{
    if (list->count + 1 >= list->size) {
        size_t size = 2 * list->size + 8;
        char **grown = shell_alloc(shell, size * sizeof(*grown));

        if (list->count != 0)
            memcpy(grown, list->items, list->count * sizeof(*grown));
        list->items = grown;
        list->size = size;
    }
    list->items[list->count++] = item;
    list->items[list->count] = NULL;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void list_sort(struct list *list)
{
    if (list->count > 1)
        qsort(list->items, list->count, sizeof(*list->items), compare_strings);
}

struct regex {
    struct regex *next;
    const char *pattern;
    int flags;
    regex_t compiled;
};

const regex_t *regex_get(struct shell *shell, const char *pattern, int flags)
{
    struct regex *regex = shell->regexes;

    while (regex != NULL && (regex->flags != flags || strcmp(regex->pattern, pattern) != 0))
        regex = regex->next;
    if (regex != NULL)
        return &regex->compiled;
    regex = shell_alloc(shell, sizeof(*regex));
    regex->pattern = shell_copy(shell, pattern, strlen(pattern));
    regex->flags = flags;
    if (regcomp(&regex->compiled, pattern, flags) != 0)
        shell_unknown(shell, shell_format(shell, "pattern %s", pattern));
    regex->next = shell->regexes;
    shell->regexes = regex;
    return &regex->compiled;
}

/* --- a line ----------------------------------------------------------------------------------- */

static void set_up(struct shell *shell, const char *const *variables)
{
    static struct text nothing;
    struct file *file = file_text(shell, &shell->output, false);

    shell->own.directory = "/";
    shell->own.name = "sh";
    shell->own.files[0] = file_text(shell, &nothing, true);
    shell->own.files[1] = shell->own.files[2] = file;
    file->nr_references = 2;
    for (; variables != NULL && *variables != NULL; variables++) {
        const char *value = strchr(*variables, '=');

        if (value != NULL) {
            const char *name = shell_copy(shell, *variables, (size_t)(value - *variables));

            variable_set(shell, name, value + 1);
            variable_export(shell, name, true);
        }
    }
}

void shell_free(struct shell *shell)
{
    jobs_end(shell);
    files_end(shell);
    for (struct regex *regex = shell->regexes; regex != NULL; regex = regex->next)
        regfree(&regex->compiled);
    while (shell->chunks != NULL) {
        struct chunk *next = shell->chunks->next;

        free(shell->chunks);
        shell->chunks = next;
    }
    free(shell);
}

/* The marks of foreign lines do not come out. */
static int take_text(struct shell *shell)
{
    struct shell_result *result = shell->result;
    const struct text *output = &shell->output;

    result->text = malloc(output->length + 1);
    if (result->text == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < output->length; i++) {
        if (output->bytes[i] == SHELL_FOREIGN_MARK)
            shell->foreign = true;
        else
            result->text[result->length++] = output->bytes[i];
    }
    result->text[result->length] = '\0';
    result->exit = shell->status;
    if (shell->foreign && result->verdict == SHELL_UNDERSTOOD)
        result->verdict = SHELL_FOREIGN_TEXT;
    return 0;
}

static int run_line(struct shell *shell, void *context)
{
    return run_node(shell, context);
}

/* What still sleeps goes on later, if there is somebody to do that, or else now. */
static void run_whole(struct shell *shell, const char *const *variables, const char *line,
                      bool parks)
{
    struct node *node;
    int status;

    set_up(shell, variables);
    node = parse_line(shell, line);
    check_line(shell, node);
    shell->result->ran = true;
    status = run_apart(shell, &(struct apart){.body = run_line, .context = node});
    if (!parks)
        jobs_run(shell, UINT64_MAX);
    shell->status = status;
}

int shell_run(const struct shell_host *host, const char *const *variables, const char *line,
              struct shell **parked, struct shell_result *result)
{
    struct shell *shell = calloc(1, sizeof(*shell));
    jmp_buf leave;
    int error;

    *result = (struct shell_result){.changes = false};
    if (shell == NULL)
        return -ENOMEM;
    shell->own_host = *host;
    shell->host = &shell->own_host;
    shell->result = result;
    shell->leave = &leave;
    shell->name = "sh";
    if (setjmp(leave) == 0)
        run_whole(shell, variables, line, parked != NULL);
    error = take_text(shell);
    if (error != 0 || parked == NULL || result->verdict > SHELL_FOREIGN_TEXT ||
        !jobs_are_left(shell)) {
        shell_free(shell);
        return error;
    }
    shell->result = &shell->parked_result;
    shell->next_parked = *parked;
    *parked = shell;
    return 0;
}

void shell_result_free(struct shell_result *result)
{
    free(result->text);
    result->text = NULL;
}
