/* SPDX-License-Identifier: MIT */
/*
 * As much of awk as one line needs: [PATTERN] [{ print LIST }], where the pattern is /RE/, NR==N or
 * $N=="TEXT", and the list is of texts, $N, $NF, NR and NF.
 */
#include "shell_private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define AWK_ITEMS 16

struct awk_item {
    enum { AWK_TEXT, AWK_FIELD, AWK_LAST, AWK_NR, AWK_NF, AWK_COMMA } kind;
    const char *text;
    unsigned long number;
};

struct awk {
    enum { AWK_ALL, AWK_MATCH, AWK_EQUAL } pattern;
    const char *text; /* of the pattern */
    struct awk_item subject;
    struct awk_item items[AWK_ITEMS];
    size_t count;
};

static void skip_blanks(const char **at)
{
    *at += strspn(*at, " \t\n");
}

static const char *awk_quoted(struct shell *shell, const char **at, char delimiter)
{
    struct text text = {.length = 0};

    text_add(shell, &text, "", 0);
    for (++*at; **at != delimiter; ++*at) {
        char c = **at;

        if (c == '\0')
            return NULL;
        if (c == '\\' && delimiter == '/' && (*at)[1] != '/')
            text_add(shell, &text, (*at)++, 1);
        else if (c == '\\')
            ++*at;
        if (**at == '\0')
            return NULL;
        if (c == '\\' && delimiter == '"')
            c = **at == 'n' ? '\n' : **at == 't' ? '\t' : **at;
        else
            c = **at;
        text_add(shell, &text, &c, 1);
    }
    ++*at;
    return text.bytes;
}

static bool awk_item(struct shell *shell, const char **at, struct awk_item *item)
{
    char *end;

    skip_blanks(at);
    if (**at == '"') {
        item->kind = AWK_TEXT;
        item->text = awk_quoted(shell, at, '"');
        return item->text != NULL;
    }
    if (strncmp(*at, "$NF", 3) == 0) {
        item->kind = AWK_LAST;
        *at += 3;
    } else if (**at == '$' && isdigit((unsigned char)(*at)[1])) {
        item->kind = AWK_FIELD;
        item->number = strtoul(*at + 1, &end, 10);
        *at = end;
    } else if (strncmp(*at, "NR", 2) == 0 || strncmp(*at, "NF", 2) == 0) {
        item->kind = (*at)[1] == 'R' ? AWK_NR : AWK_NF;
        *at += 2;
    } else {
        return false;
    }
    return !isalnum((unsigned char)**at) && **at != '_';
}

static bool awk_pattern(struct shell *shell, const char **at, struct awk *awk)
{
    const char *start;

    if (**at == '/') {
        awk->pattern = AWK_MATCH;
        awk->text = awk_quoted(shell, at, '/');
        return awk->text != NULL;
    }
    if (!awk_item(shell, at, &awk->subject) || awk->subject.kind == AWK_TEXT)
        return false;
    skip_blanks(at);
    if (strncmp(*at, "==", 2) != 0)
        return false;
    *at += 2;
    skip_blanks(at);
    awk->pattern = AWK_EQUAL;
    if (**at == '"') {
        awk->text = awk_quoted(shell, at, '"');
        return awk->text != NULL;
    }
    start = *at;
    *at += strspn(*at, "0123456789");
    awk->text = shell_copy(shell, start, (size_t)(*at - start));
    return *at != start;
}

static bool awk_parse(struct shell *shell, const char *at, struct awk *awk)
{
    *awk = (struct awk){.pattern = AWK_ALL};
    skip_blanks(&at);
    if (*at != '{' && !awk_pattern(shell, &at, awk))
        return false;
    skip_blanks(&at);
    if (*at == '\0')
        return true;
    if (*at++ != '{')
        return false;
    skip_blanks(&at);
    if (strncmp(at, "print", 5) != 0 || isalnum((unsigned char)at[5]))
        return false;
    at += 5;
    for (;;) {
        skip_blanks(&at);
        at += *at == ';';
        skip_blanks(&at);
        if (*at == '}' || awk->count == AWK_ITEMS)
            break;
        if (*at == ',') {
            at++;
            awk->items[awk->count++].kind = AWK_COMMA;
        } else if (!awk_item(shell, &at, &awk->items[awk->count++])) {
            return false;
        }
    }
    if (*at++ != '}')
        return false;
    skip_blanks(&at);
    return *at == '\0';
}

bool awk_understood(struct shell *shell, const char *script)
{
    struct awk awk;

    return awk_parse(shell, script, &awk);
}

static void awk_split(struct shell *shell, const char *text, const char *separator,
                      struct list *fields)
{
    bool blanks = separator == NULL || strcmp(separator, " ") == 0;
    const char *set = blanks ? " \t" : separator;

    for (;;) {
        size_t length;

        if (blanks)
            text += strspn(text, set);
        if (*text == '\0' && (blanks || fields->count == 0))
            return;
        length = strcspn(text, set);
        list_add(shell, fields, shell_copy(shell, text, length));
        text += length;
        if (*text == '\0')
            return;
        text++;
    }
}

static const char *awk_value(struct shell *shell, const struct awk_item *item, const char *line,
                             const struct list *fields, unsigned long number)
{
    unsigned long field = item->kind == AWK_LAST ? fields->count : item->number;

    switch (item->kind) {
    case AWK_TEXT:
        return item->text;
    case AWK_COMMA:
        return " ";
    case AWK_NR:
        return shell_format(shell, "%lu", number);
    case AWK_NF:
        return shell_format(shell, "%zu", fields->count);
    default:
        if (field == 0)
            return line;
        return field <= fields->count ? fields->items[field - 1] : "";
    }
}

static bool awk_applies(struct shell *shell, const struct awk *awk, const char *line,
                        const struct list *fields, unsigned long number)
{
    const char *value;

    if (awk->pattern == AWK_ALL)
        return true;
    if (awk->pattern == AWK_EQUAL) {
        value = awk_value(shell, &awk->subject, line, fields, number);
        return strcmp(value, awk->text) == 0;
    }
    return regexec(regex_get(shell, awk->text, REG_EXTENDED), line, 0, NULL, 0) == 0;
}

static void awk_line(struct shell *shell, const struct awk *awk, const struct line *source,
                     const char *separator, unsigned long number)
{
    const char *line = shell_copy(shell, source->bytes, source->length);
    const char mark = SHELL_FOREIGN_MARK;
    struct list fields = {.count = 0};

    awk_split(shell, line, separator, &fields);
    if (!awk_applies(shell, awk, line, &fields, number))
        return;
    if (source->mark)
        print_bytes(shell, &mark, 1);
    if (awk->count == 0)
        print_bytes(shell, line, source->length);
    for (size_t i = 0; i < awk->count; i++) {
        const char *value = awk_value(shell, &awk->items[i], line, &fields, number);

        print_bytes(shell, value, strlen(value));
    }
    print_bytes(shell, "\n", 1);
}

int run_awk(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_operands = tool_options(shell, argc, argv, &options), status = 0;
    struct text text = {.length = 0};
    unsigned long number = 0;
    struct line line;
    struct awk awk;

    if (nr_operands == 0 || !awk_parse(shell, argv[0], &awk))
        shell_unknown(shell, "awk");
    if (nr_operands == 1 && input_all(shell, "-", &text) != 0)
        return 1;
    for (int i = 1; i < nr_operands; i++) {
        int error = input_all(shell, argv[i], &text);

        if (error != 0) {
            complain(shell, "%s: %s", argv[i], strerror(-error));
            status = 1;
        }
    }
    for (size_t at = 0; line_next(&text, &at, &line); )
        awk_line(shell, &awk, &line, options.value['F'], ++number);
    return status;
}
