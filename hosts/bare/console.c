/* SPDX-License-Identifier: MIT */
/*
 * The console: a line in, an answer out. An answer is "= N", a newline, N bytes and a newline; or
 * "! ERRNO TEXT". Words of the tree are get, set and list; the others are the kernel's own.
 */
#include "console.h"

#include "io.h"

#include <stdarg.h>

#define LINE_BYTES 4096u
#define ANSWER_BYTES 131072u
#define MAX_ARGUMENTS 6u

static char line[LINE_BYTES];
static size_t line_length;
static char answer[ANSWER_BYTES];
static size_t answer_length;

/* --- answers ---------------------------------------------------------------------------------- */

void bare_say(const char *format, ...)
{
    size_t room = ANSWER_BYTES - answer_length;
    va_list list;

    va_start(list, format);
    answer_length += bare_format_list(answer + answer_length, room, format, &list);
    va_end(list);
    if (answer_length >= ANSWER_BYTES)
        answer_length = ANSWER_BYTES - 1;
}

static void answer_error(int error, const struct memplug_reason *reason)
{
    char text[400] = "";

    if (reason->error)
        memplug_reason_text(reason, text, sizeof(text));
    bare_print("! %d %s\n", -error, text);
}

/* --- lines ------------------------------------------------------------------------------------ */

/* The last argument is the rest of the line. */
static unsigned split(char *at, char **argument, unsigned wanted)
{
    unsigned nr = 0;

    while (*at && nr < wanted) {
        argument[nr++] = at;
        if (nr == wanted)
            break;
        at += strcspn(at, " ");
        if (*at)
            *at++ = '\0';
    }
    return nr;
}

static const struct bare_word *find_word(const char *text, size_t length)
{
    static const struct bare_word *const tables[] = {bare_tree_words, bare_look_words,
                                                     bare_task_words, bare_device_words,
                                                     bare_dimm_words, bare_inject_words};

    for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        for (const struct bare_word *word = tables[i]; word->name; word++)
            if (strlen(word->name) == length && !strncmp(word->name, text, length))
                return word;
    return NULL;
}

static void take_line(void)
{
    struct memplug_reason reason = {.error = 0};
    size_t length = strcspn(line, " ");
    const struct bare_word *word = find_word(line, length);
    char *argument[MAX_ARGUMENTS] = {NULL};
    unsigned nr = 0;
    int error;

    answer_length = 0;
    if (word)
        nr = split(line + length + (line[length] == ' '), argument, word->nr_arguments);
    if (!word || nr != word->nr_arguments) {
        bare_print("! %u no such word, or not its arguments\n", BARE_EINVAL);
        return;
    }
    error = word->run(argument, &reason);
    if (error) {
        answer_error(error, &reason);
        return;
    }
    bare_print("= %lu\n", answer_length);
    bare_write(answer, answer_length);
    bare_write("\n", 1);
}

bool bare_console_poll(void)
{
    int byte;

    while ((byte = bare_read_byte()) >= 0) {
        if (byte == '\r')
            continue;
        if (byte != '\n') {
            if (line_length < LINE_BYTES - 1)
                line[line_length++] = (char)byte;
            continue;
        }
        line[line_length] = '\0';
        line_length = 0;
        take_line();
        return true;
    }
    return false;
}
