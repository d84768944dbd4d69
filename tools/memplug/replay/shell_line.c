/* SPDX-License-Identifier: MIT */
/* Tools that match lines: grep, and the plainest of sed and awk. */
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
                       const char *name, unsigned long number)
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
            print(shell, "%s:", name);
        if (grep->options.has['n'])
            print(shell, "%lu:", number);
        print_line(shell, &part);
        if (!only)
            return;
    }
}

static void grep_text(struct shell *shell, struct grep *grep, const struct text *text,
                      const char *name)
{
    const struct options *options = &grep->options;
    unsigned long number = 0, count = 0;
    int64_t most = INT64_MAX;
    struct line line;
    regmatch_t match;

    if (options->has['m'] && !number_parse(options->value['m'], &most))
        shell_unknown(shell, "grep -m");
    for (size_t at = 0; (int64_t)count < most && line_next(text, &at, &line); ) {
        number++;
        line.bytes = shell_copy(shell, line.bytes, line.length);
        if (grep_find(grep, line.bytes, 0, &match) == options->has['v'])
            continue;
        count++;
        grep->found = true;
        if (options->has['q'] || options->has['l'])
            break;
        if (!options->has['c'])
            grep_print(shell, grep, &line, name, number);
    }
    if (options->has['q'])
        return;
    if (options->has['l'] && count != 0)
        print(shell, "%s\n", name);
    else if (options->has['c'] && !options->has['l'])
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

    if (grep->options.has['r'] && host_kind(shell, name) == SHELL_DIRECTORY && depth < 32 &&
        shell->host->list != NULL) {
        struct list names = {.count = 0};

        error = shell->host->list(shell->host->context, path_of(shell, name), take_name,
                                  (void *[]){shell, &names});
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
    grep.named = (nr_files > 1 || options->has['r'] || options->has['H']) && !options->has['h'];
    if (nr_files == 0)
        grep_file(shell, &grep, options->has['r'] ? "." : "-", 0);
    for (; *names != NULL; names++)
        grep_file(shell, &grep, *names, 0);
    if (grep.found && (options->has['q'] || !grep.failed))
        return 0;
    return grep.failed ? 2 : 1;
}

/* --- sed -------------------------------------------------------------------------------------- */

#define SED_COMMANDS 16

struct sed_address {
    enum { SED_NONE, SED_LINE, SED_LAST, SED_MATCH } kind;
    unsigned long number;
    const char *pattern;
};

struct sed_command {
    struct sed_address from, to;
    char letter; /* p d q s */
    const char *pattern, *replacement;
    bool global, print, inside; /* inside: between from and to now */
};

struct sed {
    struct sed_command commands[SED_COMMANDS];
    size_t count;
};

/* Text up to a delimiter; null if there is none. */
static const char *sed_piece(struct shell *shell, const char **at, char delimiter)
{
    struct text text = {.length = 0};

    text_add(shell, &text, "", 0);
    for (; **at != delimiter; ++*at) {
        if (**at == '\0')
            return NULL;
        if (**at == '\\' && (*at)[1] == delimiter && delimiter != '\\')
            ++*at;
        else if (**at == '\\' && (*at)[1] != '\0')
            text_add(shell, &text, (*at)++, 1);
        text_add(shell, &text, *at, 1);
    }
    ++*at;
    return text.bytes;
}

static bool sed_parse_address(struct shell *shell, const char **at, struct sed_address *address)
{
    if (isdigit((unsigned char)**at)) {
        char *end;

        address->kind = SED_LINE;
        address->number = strtoul(*at, &end, 10);
        *at = end;
    } else if (**at == '$') {
        address->kind = SED_LAST;
        ++*at;
    } else if (**at == '/') {
        ++*at;
        address->kind = SED_MATCH;
        address->pattern = sed_piece(shell, at, '/');
        return address->pattern != NULL;
    }
    return true;
}

static bool sed_parse_one(struct shell *shell, const char **at, struct sed_command *command)
{
    char delimiter;

    if (!sed_parse_address(shell, at, &command->from))
        return false;
    if (**at == ',') {
        ++*at;
        if (!sed_parse_address(shell, at, &command->to) || command->to.kind == SED_NONE)
            return false;
    }
    command->letter = **at;
    if (command->letter == '\0' || strchr("pdqs", command->letter) == NULL)
        return false;
    ++*at;
    if (command->letter != 's')
        return true;
    delimiter = **at;
    if (delimiter == '\0' || delimiter == '\\' || delimiter == '\n')
        return false;
    ++*at;
    command->pattern = sed_piece(shell, at, delimiter);
    command->replacement = command->pattern != NULL ? sed_piece(shell, at, delimiter) : NULL;
    for (; **at == 'g' || **at == 'p'; ++*at) {
        command->global = command->global || **at == 'g';
        command->print = command->print || **at == 'p';
    }
    return command->replacement != NULL;
}

static bool sed_parse(struct shell *shell, const char *script, struct sed *sed)
{
    sed->count = 0;
    for (;;) {
        script += strspn(script, " \t;\n");
        if (*script == '\0')
            return sed->count != 0;
        if (sed->count == SED_COMMANDS)
            return false;
        sed->commands[sed->count] = (struct sed_command){.letter = '\0'};
        if (!sed_parse_one(shell, &script, &sed->commands[sed->count++]))
            return false;
        script += strspn(script, " \t");
        if (*script != '\0' && strchr(";\n", *script) == NULL)
            return false;
    }
}

static bool sed_at(struct shell *shell, const struct sed_address *address, const char *text,
                   unsigned long number, bool last, int flags)
{
    regmatch_t match;

    if (address->kind == SED_LINE)
        return address->number == number;
    if (address->kind == SED_LAST)
        return last;
    return matches(regex_get(shell, address->pattern, flags), text, 0, &match, 1);
}

static bool sed_applies(struct shell *shell, struct sed_command *command, const char *text,
                        unsigned long number, bool last, int flags)
{
    if (command->from.kind == SED_NONE)
        return true;
    if (command->inside) {
        command->inside = !sed_at(shell, &command->to, text, number, last, flags) &&
                          !(command->to.kind == SED_LINE && number >= command->to.number);
        return command->to.kind != SED_LINE || number <= command->to.number;
    }
    if (!sed_at(shell, &command->from, text, number, last, flags))
        return false;
    command->inside = command->to.kind != SED_NONE &&
                      !(command->to.kind == SED_LINE && number >= command->to.number);
    return true;
}

static void sed_replace(struct shell *shell, struct text *to, const char *text,
                        const char *replacement, const regmatch_t *match)
{
    for (; *replacement != '\0'; replacement++) {
        int group = -1;

        if (*replacement == '&')
            group = 0;
        else if (*replacement == '\\' && isdigit((unsigned char)replacement[1]))
            group = *++replacement - '0';
        else if (*replacement == '\\' && replacement[1] != '\0')
            replacement++;
        if (group < 0)
            text_add(shell, to, replacement[-1] == '\\' && *replacement == 'n' ? "\n" : replacement,
                     1);
        else if (match[group].rm_so >= 0)
            text_add(shell, to, text + match[group].rm_so,
                     (size_t)(match[group].rm_eo - match[group].rm_so));
    }
}

/* Returns whether anything was replaced. */
static bool sed_substitute(struct shell *shell, const struct sed_command *command, int flags,
                           const char **text)
{
    struct text to = {.length = 0};
    regmatch_t match[10];
    size_t at = 0, length = strlen(*text);
    const regex_t *regex = regex_get(shell, command->pattern, flags);
    bool found = false;

    while (at <= length && matches(regex, *text, at, match, 10)) {
        size_t end = (size_t)match[0].rm_eo;

        found = true;
        text_add(shell, &to, *text + at, (size_t)match[0].rm_so - at);
        sed_replace(shell, &to, *text, command->replacement, match);
        if (match[0].rm_eo == match[0].rm_so && end < length)
            text_add(shell, &to, *text + end++, 1);
        else if (match[0].rm_eo == match[0].rm_so)
            end++;
        at = end;
        if (!command->global)
            break;
    }
    if (at < length)
        text_add(shell, &to, *text + at, length - at);
    text_add(shell, &to, "", 0);
    if (found)
        *text = to.bytes;
    return found;
}

/* Returns false if it is the last line. */
static bool sed_line(struct shell *shell, struct sed *sed, const struct line *source,
                     unsigned long number, bool last, const struct options *options)
{
    struct line line = *source;
    int flags = options->has['E'] || options->has['r'] ? REG_EXTENDED : 0;
    bool quit = false, delete = false;

    line.bytes = shell_copy(shell, line.bytes, line.length);
    for (size_t i = 0; i < sed->count && !delete && !quit; i++) {
        struct sed_command *command = &sed->commands[i];
        bool print = command->letter == 'p';

        if (!sed_applies(shell, command, line.bytes, number, last, flags))
            continue;
        if (command->letter == 's') {
            print = sed_substitute(shell, command, flags, &line.bytes) && command->print;
            line.length = strlen(line.bytes);
        }
        delete = command->letter == 'd';
        quit = command->letter == 'q';
        if (print)
            print_line(shell, &line);
    }
    if (!delete && !options->has['n'])
        print_line(shell, &line);
    return !quit;
}

static int run_sed(struct shell *shell, int argc, char **argv)
{
    struct options options;
    struct text text = {.length = 0};
    int nr_operands = tool_options(shell, argc, argv, &options), status = 0, error = 0;
    const char *script = options.value['e'];
    char **names = argv;
    unsigned long number = 0;
    struct line line;
    struct sed sed;

    if (script == NULL)
        script = nr_operands != 0 ? *names++ : "";
    if (!sed_parse(shell, script, &sed))
        shell_unknown(shell, shell_format(shell, "sed %s", script));
    if (*names == NULL)
        error = input_all(shell, "-", &text);
    for (; *names != NULL; names++) {
        error = input_all(shell, *names, &text);
        if (error != 0) {
            complain(shell, "%s: %s", *names, strerror(-error));
            status = 1;
        }
    }
    for (size_t at = 0; line_next(&text, &at, &line); )
        if (!sed_line(shell, &sed, &line, ++number, at >= text.length, &options))
            break;
    return status;
}

bool sed_understood(struct shell *shell, const char *script)
{
    struct sed sed;

    return sed_parse(shell, script, &sed);
}

const struct tool shell_line_tools[] = {
    {"grep", "inqvclhHoEFwxsrRe:m:", 0, run_grep},
    {"egrep", "inqvclhHowxsre:m:", 0, run_grep},
    {"fgrep", "inqvclhHowxsre:m:", 0, run_grep},
    {"sed", "nrEe:", 0, run_sed},
    {"awk", "F:", 0, run_awk},
    {NULL, NULL, 0, NULL},
};
