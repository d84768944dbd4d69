/* SPDX-License-Identifier: MIT */
/* Tools that match lines. */
#include "shell_private.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool matches(const regex_t *regex, const char *text, size_t from, regmatch_t *match,
                    size_t nr_matches)
{
    if (regexec(regex, text + from, nr_matches, match, from != 0 ? REG_NOTBOL : 0) != 0)
        return false;
    for (size_t i = 0; i < nr_matches; i++)
        if (match[i].rm_so >= 0) {
            match[i].rm_so += (regoff_t)from;
            match[i].rm_eo += (regoff_t)from;
        }
    return true;
}

/* --- grep ------------------------------------------------------------------------------------- */

struct grep {
    struct options options;
    const regex_t *regex;
    bool named, failed, found;
    unsigned long before, after;   /* how many lines around */
    unsigned long until, printed;  /* up to which line; the last that was */
};

static bool is_word(char c)
{
    return c == '_' || isalnum((unsigned char)c);
}

/* The first match at or behind `from` that the options let pass. */
static bool grep_find(const struct grep *grep, const char *text, size_t from, regmatch_t *match)
{
    size_t length = strlen(text);

    for (; from <= length && matches(grep->regex, text, from, match, 1);
         from = (size_t)match->rm_so + 1) {
        bool whole_line = match->rm_so == 0 && (size_t)match->rm_eo == length;
        bool whole_word = (match->rm_so == 0 || !is_word(text[match->rm_so - 1])) &&
                          !is_word(text[match->rm_eo]);

        if ((!grep->options.has['x'] || whole_line) && (!grep->options.has['w'] || whole_word))
            return true;
    }
    return false;
}

static void grep_print(struct shell *shell, const struct grep *grep, const struct line *line,
                       const char *name, unsigned long number, char sign)
{
    regmatch_t match;
    size_t from = 0;

    for (bool only = grep->options.has['o'];;) {
        struct line part = *line;

        if (only) {
            if (from > line->length || !grep_find(grep, line->bytes, from, &match))
                return;
            from = (size_t)match.rm_eo + (match.rm_eo == match.rm_so);
            part.bytes += match.rm_so;
            part.length = (size_t)(match.rm_eo - match.rm_so);
            if (part.length == 0)
                continue;
        }
        if (grep->named)
            print(shell, "%s%c", name, sign);
        if (grep->options.has['n'])
            print(shell, "%lu%c", number, sign);
        print_line(shell, &part);
        if (!only)
            return;
    }
}

/* A line that matches, and the lines around it that were not printed yet. */
static void grep_around(struct shell *shell, struct grep *grep, const struct text *text,
                        const char *name, unsigned long number)
{
    unsigned long first = number > grep->before ? number - grep->before : 1, here = 0;
    bool gap = grep->printed != 0 && first > grep->printed + 1;
    struct line line;

    if (gap && (grep->before != 0 || grep->after != 0))
        print(shell, "--\n");
    for (size_t at = 0; line_next(text, &at, &line) && ++here <= number;)
        if (here >= first && here > grep->printed)
            grep_print(shell, grep, &line, name, here, here == number ? ':' : '-');
    grep->printed = number;
    grep->until = number + grep->after;
}

static unsigned long grep_lines(struct shell *shell, const struct options *options, char letter)
{
    int64_t count = 0;
    const char *value = options->value[(unsigned char)letter];

    value = value != NULL ? value : options->value['C'];
    if (value != NULL && (!number_parse(value, &count) || count < 0 || options->has['o']))
        shell_unknown(shell, "grep with context");
    return (unsigned long)count;
}

static void grep_text(struct shell *shell, struct grep *grep, const struct text *text,
                      const char *name)
{
    const struct options *options = &grep->options;
    unsigned long number = 0, count = 0;
    int64_t most = INT64_MAX;
    struct line line;
    regmatch_t match;

    grep->before = grep_lines(shell, options, 'B');
    grep->after = grep_lines(shell, options, 'A');
    grep->until = grep->printed = 0;
    if (options->has['m'] && !number_parse(options->value['m'], &most))
        shell_unknown(shell, "grep -m");
    for (size_t at = 0; (int64_t)count < most && line_next(text, &at, &line); ) {
        number++;
        line.bytes = shell_copy(shell, line.bytes, line.length);
        if (grep_find(grep, line.bytes, 0, &match) == options->has['v']) {
            if (number <= grep->until && !options->has['c']) {
                grep_print(shell, grep, &line, name, number, '-');
                grep->printed = number;
            }
            continue;
        }
        count++;
        grep->found = true;
        if (options->has['q'] || options->has['l'] || options->has['L'])
            break;
        if (!options->has['c'] && (grep->before != 0 || grep->after != 0))
            grep_around(shell, grep, text, name, number);
        else if (!options->has['c'])
            grep_print(shell, grep, &line, name, number, ':');
    }
    if (options->has['q'])
        return;
    if ((options->has['l'] && count != 0) || (options->has['L'] && count == 0))
        print(shell, "%s\n", name);
    else if (options->has['c'] && !options->has['l'] && !options->has['L'])
        print(shell, grep->named ? "%s:%lu\n" : "%.0s%lu\n", name, count);
}

static void take_name(void *to, const char *name)
{
    void **context = to;

    list_add(context[0], context[1], shell_copy(context[0], name, strlen(name)));
}

static void grep_file(struct shell *shell, struct grep *grep, const char *name, unsigned depth)
{
    struct text text = {.length = 0};
    int error;

    if (grep->options.has['r'] && host_kind(shell, name) == SHELL_DIRECTORY && depth < 32) {
        struct list names = {.count = 0};

        error = host_list(shell, name, take_name, (void *[]){shell, &names});
        list_sort(&names);
        for (size_t i = 0; error == 0 && i < names.count; i++)
            grep_file(shell, grep, shell_format(shell, "%s/%s", name, names.items[i]), depth + 1);
    } else {
        error = input_all(shell, name, &text);
        if (error == -EISDIR)
            error = 0; /* no lines */
        if (error == 0)
            grep_text(shell, grep, &text, strcmp(name, "-") == 0 ? "(standard input)" : name);
    }
    if (error == 0)
        return;
    grep->failed = true;
    if (!grep->options.has['s'])
        complain(shell, "%s: %s", name, strerror(-error));
}

/* Several patterns, a line each, are alternatives. */
static const char *alternatives(struct shell *shell, const char *pattern, bool extended, bool fixed)
{
    struct text text = {.length = 0};

    text_add(shell, &text, "", 0);
    for (; *pattern != '\0'; pattern++) {
        if (*pattern == '\n') {
            text_string(shell, &text, extended ? "|" : "\\|");
            continue;
        }
        if (fixed && strchr(".[]*^$\\", *pattern) != NULL)
            text_add(shell, &text, "\\", 1);
        text_add(shell, &text, pattern, 1);
    }
    return text.bytes;
}

static int run_grep(struct shell *shell, int argc, char **argv)
{
    struct grep grep = {.named = false};
    const char *tool = argv[0], *pattern;
    int nr_files = tool_options(shell, argc, argv, &grep.options);
    struct options *options = &grep.options;
    char **names = argv;
    bool fixed = options->has['F'] || strcmp(tool, "fgrep") == 0;
    bool extended = (options->has['E'] || strcmp(tool, "egrep") == 0) && !fixed;

    pattern = options->value['e'];
    if (pattern == NULL) {
        if (nr_files == 0)
            shell_unknown(shell, "grep without a pattern");
        pattern = *names++;
        nr_files--;
    }
    grep.regex = regex_get(shell, alternatives(shell, pattern, extended, fixed),
                           (extended ? REG_EXTENDED : 0) | (options->has['i'] ? REG_ICASE : 0));
    grep.named = nr_files > 1 || options->has['H'] ||
                 (options->has['r'] && (nr_files == 0 || host_kind(shell, *names) ==
                                                             SHELL_DIRECTORY));
    grep.named = grep.named && !options->has['h'];
    if (nr_files == 0)
        grep_file(shell, &grep, options->has['r'] ? "." : "-", 0);
    for (; *names != NULL; names++)
        grep_file(shell, &grep, *names, 0);
    if (grep.found && (options->has['q'] || !grep.failed))
        return 0;
    return grep.failed ? 2 : 1;
}

const struct tool shell_line_tools[] = {
    {"grep", "inqvclLhHoEFwxsrRe:m:A:B:C:", 0, run_grep},
    {"egrep", "inqvclLhHowxsre:m:A:B:C:", 0, run_grep},
    {"fgrep", "inqvclLhHowxsre:m:A:B:C:", 0, run_grep},
    {"sed", "nriEe:", 0, run_sed},
    {"awk", "F:v:", 0, run_awk},
    {NULL, NULL, 0, NULL},
};
