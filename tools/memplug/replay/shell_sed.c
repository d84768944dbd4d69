/* SPDX-License-Identifier: MIT */
/* sed without labels, a hold space, and files of its own. */
#include "shell_private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define SED_COMMANDS 32

struct address {
    enum { ADDRESS_NONE, ADDRESS_LINE, ADDRESS_LAST, ADDRESS_MATCH, ADDRESS_MORE } kind;
    unsigned long number; /* MORE: that many lines behind the first */
    const char *pattern;
};

struct command {
    struct address from, to;
    char letter; /* p d q s y = a i c n N { } */
    const char *pattern, *replacement; /* also the two sets of y; the text of a, i and c */
    unsigned long which; /* s: from this match on */
    bool not, global, print, fold;
    bool inside; /* between from and to now */
    unsigned long until;
    size_t end; /* {: where it is closed */
};

struct sed {
    struct command commands[SED_COMMANDS];
    size_t count;
    int flags; /* of patterns */
    bool silent;

    const struct text *text; /* the lines, from at on */
    size_t at;
    unsigned long number;
    struct line line; /* the pattern space */
    struct text after; /* what a wants to be printed at the end */
};

/* --- parsing ---------------------------------------------------------------------------------- */

/* Text up to a delimiter, or null. A pattern's \n and \t are what they mean. */
static const char *parse_piece(struct shell *shell, const char **at, char delimiter, bool pattern)
{
    struct text text = {.length = 0};

    text_add(shell, &text, "", 0);
    for (; **at != delimiter; ++*at) {
        char pair[2] = {**at, (*at)[0] != '\0' ? (*at)[1] : '\0'};

        if (pair[0] == '\0')
            return NULL;
        if (pair[0] != '\\' || pair[1] == '\0') {
            text_add(shell, &text, pair, 1);
            continue;
        }
        ++*at;
        if (pattern && (pair[1] == 'n' || pair[1] == 't'))
            text_string(shell, &text, pair[1] == 'n' ? "\n" : "\t");
        else if (pair[1] == delimiter)
            text_add(shell, &text, pair + 1, 1);
        else
            text_add(shell, &text, pair, 2);
    }
    ++*at;
    return text.bytes;
}

static bool parse_address(struct shell *shell, const char **at, struct address *address)
{
    char *end;

    if (isdigit((unsigned char)**at) || (**at == '+' && isdigit((unsigned char)(*at)[1]))) {
        address->kind = **at == '+' ? ADDRESS_MORE : ADDRESS_LINE;
        address->number = strtoul(*at, &end, 10);
        *at = end;
    } else if (**at == '$') {
        address->kind = ADDRESS_LAST;
        ++*at;
    } else if (**at == '/') {
        ++*at;
        address->kind = ADDRESS_MATCH;
        address->pattern = parse_piece(shell, at, '/', true);
        return address->pattern != NULL;
    }
    return true;
}

static bool parse_substitution(struct shell *shell, const char **at, struct command *command)
{
    char delimiter = **at, *end;

    if (delimiter == '\0' || delimiter == '\\' || delimiter == '\n')
        return false;
    ++*at;
    command->pattern = parse_piece(shell, at, delimiter, command->letter == 's');
    command->replacement = command->pattern != NULL ? parse_piece(shell, at, delimiter, false)
                                                    : NULL;
    if (command->replacement == NULL || command->letter == 'y')
        return command->replacement != NULL &&
               strlen(command->pattern) == strlen(command->replacement) &&
               strchr(command->pattern, '\\') == NULL && strchr(command->replacement, '\\') == NULL;
    command->which = 1;
    while (**at != '\0' && strchr("gpIi123456789", **at) != NULL) {
        command->global = command->global || **at == 'g';
        command->print = command->print || **at == 'p';
        command->fold = command->fold || **at == 'I' || **at == 'i';
        if (isdigit((unsigned char)**at)) {
            command->which = strtoul(*at, &end, 10);
            *at = end;
        } else {
            ++*at;
        }
    }
    return true;
}

/* a\text, a text; up to the end of the line. */
static void parse_text(struct shell *shell, const char **at, struct command *command)
{
    struct text text = {.length = 0};
    size_t length;

    *at += strspn(*at, " \t");
    if (**at == '\\') {
        ++*at;
        *at += strspn(*at, " \t");
        *at += **at == '\n';
    }
    length = strcspn(*at, "\n");
    text_add(shell, &text, *at, length);
    text_string(shell, &text, "\n");
    command->replacement = text.bytes;
    *at += length;
}

static bool parse_one(struct shell *shell, const char **at, struct command *command)
{
    if (!parse_address(shell, at, &command->from) || command->from.kind == ADDRESS_MORE)
        return false;
    if (**at == ',') {
        ++*at;
        if (!parse_address(shell, at, &command->to) || command->to.kind == ADDRESS_NONE)
            return false;
    }
    *at += strspn(*at, " \t");
    while (**at == '!') {
        command->not = true;
        *at += 1 + strspn(*at + 1, " \t");
    }
    command->letter = **at;
    if (command->letter == '\0' || strchr("pdqsy=aicnN{}", command->letter) == NULL)
        return false;
    ++*at;
    if (command->letter == 's' || command->letter == 'y')
        return parse_substitution(shell, at, command);
    if (strchr("aic", command->letter) != NULL)
        parse_text(shell, at, command);
    return command->letter != '}' || command->from.kind == ADDRESS_NONE;
}

static bool parse(struct shell *shell, const char *script, struct sed *sed)
{
    size_t open[SED_COMMANDS], depth = 0;

    sed->count = 0;
    for (;;) {
        struct command *command = &sed->commands[sed->count];

        script += strspn(script, " \t;\n");
        if (*script == '\0')
            return sed->count != 0 && depth == 0;
        if (sed->count == SED_COMMANDS)
            return false;
        *command = (struct command){.letter = '\0'};
        if (!parse_one(shell, &script, command) || (command->letter == '}' && depth == 0))
            return false;
        if (command->letter == '{')
            open[depth++] = sed->count;
        else if (command->letter == '}')
            sed->commands[open[--depth]].end = sed->count;
        sed->count++;
        script += strspn(script, " \t");
        if (command->letter != '{' && *script != '\0' && strchr(";\n}", *script) == NULL)
            return false;
    }
}

bool sed_understood(struct shell *shell, const char *script)
{
    struct sed sed;

    return parse(shell, script, &sed);
}

/* --- running ---------------------------------------------------------------------------------- */

static bool is_last(const struct sed *sed)
{
    return sed->at >= sed->text->length;
}

static bool matches(struct shell *shell, const struct sed *sed, const char *pattern)
{
    return regexec(regex_get(shell, pattern, sed->flags), sed->line.bytes, 0, NULL, 0) == 0;
}

static bool is_at(struct shell *shell, const struct sed *sed, const struct address *address)
{
    if (address->kind == ADDRESS_LINE)
        return address->number == sed->number;
    if (address->kind == ADDRESS_LAST)
        return is_last(sed);
    return matches(shell, sed, address->pattern);
}

static bool applies(struct shell *shell, const struct sed *sed, struct command *command)
{
    bool by_number = command->to.kind == ADDRESS_LINE || command->to.kind == ADDRESS_MORE;

    if (command->from.kind == ADDRESS_NONE)
        return true;
    if (command->inside) {
        command->inside = by_number ? sed->number < command->until
                                    : !is_at(shell, sed, &command->to);
        return !by_number || sed->number <= command->until;
    }
    if (!is_at(shell, sed, &command->from))
        return false;
    command->until = command->to.number +
                     (command->to.kind == ADDRESS_MORE ? sed->number : 0);
    command->inside = command->to.kind != ADDRESS_NONE &&
                      !(by_number && sed->number >= command->until) &&
                      !(command->to.kind == ADDRESS_LAST && is_last(sed));
    return true;
}

static void put_replacement(struct shell *shell, struct text *to, const char *text,
                            const char *replacement, const regmatch_t *match)
{
    for (; *replacement != '\0'; replacement++) {
        bool escaped = *replacement == '\\' && replacement[1] != '\0';
        int group = -1;

        replacement += escaped;
        if (!escaped && *replacement == '&')
            group = 0;
        else if (escaped && isdigit((unsigned char)*replacement))
            group = *replacement - '0';
        if (group < 0)
            text_add(shell, to, escaped && *replacement == 'n'   ? "\n"
                                : escaped && *replacement == 't' ? "\t"
                                                                 : replacement, 1);
        else if (match[group].rm_so >= 0)
            text_add(shell, to, text + match[group].rm_so,
                     (size_t)(match[group].rm_eo - match[group].rm_so));
    }
}

static void set_space(struct sed *sed, const struct text *text)
{
    sed->line.bytes = text->bytes;
    sed->line.length = text->length;
}

/* Returns whether anything was replaced. */
static bool substitute(struct shell *shell, struct sed *sed, const struct command *command)
{
    const regex_t *regex = regex_get(shell, command->pattern,
                                     sed->flags | (command->fold ? REG_ICASE : 0));
    const char *at = sed->line.bytes, *start = at;
    struct text to = {.length = 0};
    regmatch_t match[10];
    unsigned long count = 0;
    bool found = false;

    text_add(shell, &to, "", 0);
    while (regexec(regex, at, 10, match, at != start ? REG_NOTBOL : 0) == 0) {
        bool takes = ++count == command->which || (count > command->which && command->global);

        text_add(shell, &to, at, (size_t)(takes ? match[0].rm_so : match[0].rm_eo));
        if (takes)
            put_replacement(shell, &to, at, command->replacement, match);
        found = found || takes;
        at += match[0].rm_eo;
        if (match[0].rm_eo == match[0].rm_so) {
            if (*at == '\0')
                break;
            text_add(shell, &to, at++, 1);
        }
        if (*at == '\0' || (takes && !command->global))
            break;
    }
    text_string(shell, &to, at);
    if (found)
        set_space(sed, &to);
    return found;
}

static void transliterate(struct shell *shell, struct sed *sed, const struct command *command)
{
    char *copy = shell_copy(shell, sed->line.bytes, sed->line.length);

    for (size_t i = 0; i < sed->line.length; i++) {
        const char *found = copy[i] != '\0' ? strchr(command->pattern, copy[i]) : NULL;

        if (found != NULL)
            copy[i] = command->replacement[found - command->pattern];
    }
    sed->line.bytes = copy;
}

static bool read_line(struct shell *shell, struct sed *sed)
{
    if (!line_next(sed->text, &sed->at, &sed->line))
        return false;
    sed->number++;
    sed->line.bytes = shell_copy(shell, sed->line.bytes, sed->line.length);
    return true;
}

/* n and N: false if there is no line any more; what is there is printed then. */
static bool read_more(struct shell *shell, struct sed *sed, bool append)
{
    struct line before = sed->line;
    struct text joined = {.length = 0};

    if (is_last(sed))
        return false;
    if (!append && !sed->silent)
        print_line(shell, &before);
    read_line(shell, sed);
    if (!append)
        return true;
    text_add(shell, &joined, before.bytes, before.length);
    text_string(shell, &joined, "\n");
    text_add(shell, &joined, sed->line.bytes, sed->line.length);
    sed->line.mark = sed->line.mark || before.mark;
    set_space(sed, &joined);
    return true;
}

enum outcome { GOES_ON, DELETED, QUITS };

/* One command on the pattern space. */
static enum outcome apply(struct shell *shell, struct sed *sed, const struct command *command)
{
    switch (command->letter) {
    case 'p':
        print_line(shell, &sed->line);
        break;
    case 's':
        if (substitute(shell, sed, command) && command->print)
            print_line(shell, &sed->line);
        break;
    case 'y':
        transliterate(shell, sed, command);
        break;
    case '=':
        print(shell, "%lu\n", sed->number);
        break;
    case 'i':
        print(shell, "%s", command->replacement);
        break;
    case 'a':
        text_string(shell, &sed->after, command->replacement);
        break;
    case 'c':
        if (!command->inside)
            print(shell, "%s", command->replacement);
        return DELETED;
    case 'n':
    case 'N':
        return read_more(shell, sed, command->letter == 'N') ? GOES_ON : QUITS;
    case 'd':
        return DELETED;
    default:
        return command->letter == 'q' ? QUITS : GOES_ON;
    }
    return GOES_ON;
}

/* Returns false if it is the last line. */
static bool run_cycle(struct shell *shell, struct sed *sed)
{
    enum outcome outcome = GOES_ON;

    for (size_t i = 0; i < sed->count && outcome == GOES_ON; i++) {
        struct command *command = &sed->commands[i];

        if (applies(shell, sed, command) != command->not)
            outcome = apply(shell, sed, command);
        else if (command->letter == '{')
            i = command->end;
    }
    if (outcome != DELETED && !sed->silent)
        print_line(shell, &sed->line);
    if (sed->after.length != 0)
        print(shell, "%s", sed->after.bytes);
    sed->after = (struct text){.length = 0};
    return outcome != QUITS;
}

static void run_lines(struct shell *shell, struct sed *sed, const struct text *text)
{
    sed->text = text;
    sed->at = 0;
    sed->number = 0;
    while (read_line(shell, sed))
        if (!run_cycle(shell, sed))
            break;
}

/* -i: what comes out goes into the file. */
static int run_in_place(struct shell *shell, struct sed *sed, const char *name)
{
    struct text text = {.length = 0};
    int error = input_all(shell, name, &text);
    struct file *file = NULL;

    if (error == 0)
        file = file_open(shell, name, SHELL_WRITE, &error);
    if (error != 0) {
        complain(shell, "%s: %s", name, strerror(-error));
        return 1;
    }
    print_flush(shell);
    run_lines(shell, sed, &text);
    error = file_write(shell, file, shell->out.bytes, shell->out.length);
    shell->out.length = 0;
    file_put(shell, file);
    return error != 0;
}

int run_sed(struct shell *shell, int argc, char **argv)
{
    struct options options;
    struct text text = {.length = 0};
    int nr_operands = tool_options(shell, argc, argv, &options), status = 0;
    const char *script = options.value['e'];
    char **names = argv;
    struct sed sed;

    if (script == NULL)
        script = nr_operands != 0 ? *names++ : "";
    memset(&sed, 0, sizeof(sed));
    sed.silent = options.has['n'];
    sed.flags = options.has['E'] || options.has['r'] ? REG_EXTENDED : 0;
    if (!parse(shell, script, &sed))
        shell_unknown(shell, shell_format(shell, "sed %s", script));
    for (; options.has['i'] && *names != NULL; names++)
        status |= run_in_place(shell, &sed, *names);
    if (options.has['i'])
        return status;
    if (*names == NULL && input_all(shell, "-", &text) != 0)
        return 1;
    for (; *names != NULL; names++) {
        int error = input_all(shell, *names, &text);

        if (error == 0)
            continue;
        complain(shell, "%s: %s", *names, strerror(-error));
        status = 1;
    }
    run_lines(shell, &sed, &text);
    return status;
}
