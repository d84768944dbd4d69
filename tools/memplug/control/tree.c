/* SPDX-License-Identifier: MIT */
/* Reading the tree, writing to it, and following what that takes. */
#include "control.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the way back may take, when the time of an operation is over, before it is given up. */
#define WAY_BACK_MS 30000u
#define USUAL_MS 30000u

void control_say(const char *name, int error, const char *text)
{
    if (text == NULL)
        text = error == -EAGAIN       ? "the program does not answer"
               : error == -ECONNRESET ? "the program has ended"
                                      : strerror(-error);
    fprintf(stderr, "memplug: %s%s%s\n", name != NULL ? name : "", name != NULL ? ": " : "", text);
}

/* --- reading ---------------------------------------------------------------------------------- */

char *control_get(struct memplug_client *client, const char *format, ...)
{
    char path[256], *text = NULL;
    va_list arguments;
    int result;

    va_start(arguments, format);
    vsnprintf(path, sizeof(path), format, arguments);
    va_end(arguments);
    result = memplug_client_get(client, path, &text);
    if (result >= 0)
        return text;
    control_say(path, result, text);
    free(text);
    return NULL;
}

int control_try(struct memplug_client *client, char **text, const char *format, ...)
{
    char path[256];
    va_list arguments;
    int result;

    va_start(arguments, format);
    vsnprintf(path, sizeof(path), format, arguments);
    va_end(arguments);
    result = memplug_client_get(client, path, text);
    if (result < 0) {
        free(*text);
        *text = NULL;
    }
    return result;
}

static const char *find(const char *text, const char *name)
{
    size_t length = strlen(name);

    while (text != NULL && *text != '\0') {
        if (strncmp(text, name, length) == 0 && text[length] == ' ')
            return text + length + 1;
        text = strchr(text, '\n');
        text = text != NULL ? text + 1 : NULL;
    }
    return NULL;
}

uint64_t control_number(const char *text, const char *name, uint64_t alternative)
{
    const char *value = find(text, name);

    return value != NULL ? strtoull(value, NULL, 0) : alternative;
}

void control_word(const char *text, const char *name, char *word, size_t size_bytes)
{
    const char *value = find(text, name);

    snprintf(word, size_bytes, "%.*s", value != NULL ? (int)strcspn(value, "\n") : 0,
             value != NULL ? value : "");
}

void control_size(uint64_t bytes, bool exact, char *text, size_t size_bytes)
{
    static const char units[] = "BKMGTPE";
    unsigned unit = 0;
    double value = (double)bytes;

    if (exact) {
        snprintf(text, size_bytes, "%llu", (unsigned long long)bytes);
        return;
    }
    for (; value >= 1024 && units[unit + 1] != '\0'; unit++)
        value /= 1024;
    snprintf(text, size_bytes, value == (double)(uint64_t)value ? "%.0f%c" : "%.1f%c", value,
             units[unit]);
}

/* --- writing ---------------------------------------------------------------------------------- */

struct follower {
    bool terminal, drawn, leave;
};

static void draw(struct follower *follower, const char *text)
{
    char operation[32], step[32];
    unsigned long long done, total;

    if (!follower->terminal ||
        sscanf(text, "%31s %31s %llu %llu", operation, step, &done, &total) != 4)
        return;
    if (total > 0)
        fprintf(stderr, "\r%s: %s: moved %llu/%llu pages\033[K", operation, step, done, total);
    else
        fprintf(stderr, "\r%s: %s\033[K", operation, step);
    follower->drawn = true;
}

static int hear(void *context, enum memplug_serve_kind kind, int result, const char *text)
{
    struct follower *follower = context;

    if (kind == MEMPLUG_SERVE_NEWS)
        draw(follower, text);
    if (kind != MEMPLUG_SERVE_STARTED || !follower->leave)
        return 0;
    printf("%d\n", result);
    return 1;
}

static int follow(struct memplug_client *client, const struct memplug_client_request *request,
                  bool leave, unsigned patience_ms)
{
    struct memplug_client_request followed = *request;
    unsigned usual_ms = client->timeout_ms;
    struct follower follower = {.terminal = isatty(STDERR_FILENO) == 1 && !leave, .leave = leave};
    char *text = NULL;
    int result;

    followed.flags |= MEMPLUG_SERVE_PROGRESS;
    followed.hear = hear;
    followed.context = &follower;
    client->timeout_ms = patience_ms;
    result = memplug_client_call(client, &followed, &text);
    client->timeout_ms = usual_ms;
    if (follower.drawn)
        fputs("\r\033[K", stderr);
    if (result >= 0 && text != NULL)
        fputs(text, stdout);
    if (result < 0)
        control_say(NULL, result,
                    text == NULL && result == -EAGAIN ? "it has not ended in time" : text);
    free(text);
    return result;
}

int control_follow(struct memplug_client *client, const struct memplug_client_request *request,
                   unsigned patience_ms)
{
    return follow(client, request, false, patience_ms);
}

int control_set(struct memplug_client *client, const struct control_options *options,
                const char *path, const char *text)
{
    struct memplug_client_request request = {
        .verb = MEMPLUG_SERVE_SET,
        .flags = options->no_wait ? MEMPLUG_SERVE_DETACHED : 0,
        .path = path,
        .data = text,
        .length = strlen(text),
    };
    uint64_t now_ms = control_now_ms(), left_ms = USUAL_MS;

    if (options->deadline_ms != 0)
        left_ms = options->deadline_ms > now_ms ? options->deadline_ms - now_ms : 0;
    request.timeout_ms = (uint32_t)left_ms;
    if (left_ms == 0) {
        control_say(NULL, -ETIMEDOUT, "the time is over");
        return -ETIMEDOUT;
    }
    return follow(client, &request, options->no_wait, (unsigned)left_ms + WAY_BACK_MS);
}
