/* SPDX-License-Identifier: MIT */
/*
 * From words to arguments. A field is gathered as a pattern: what was quoted and would mean
 * something in a pattern stands behind a backslash. At its end it becomes the paths that it stands
 * for, or loses the backslashes.
 */
#include "shell_private.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

enum mode { MODE_FIELDS, MODE_STRING };

struct expander {
    struct shell *shell;
    struct list *fields;
    struct text field;
    enum mode mode;
    bool have;      /* there is a field, perhaps an empty one */
    bool no_fields; /* "$@" without arguments */
    bool foreign;   /* in what comes from a line that is marked */
    bool after_blank; /* a field has just been ended by a blank */
};

static void expand_parts(struct expander *expander, const struct part *part);

/* --- variables -------------------------------------------------------------------------------- */

static struct variable *find(const struct shell *shell, const char *name)
{
    for (size_t i = 0; i < shell->own.nr_variables; i++)
        if (strcmp(shell->own.variables[i].name, name) == 0)
            return &shell->own.variables[i];
    return NULL;
}

const char *variable_get(const struct shell *shell, const char *name)
{
    const struct variable *variable = find(shell, name);

    return variable != NULL ? variable->value : NULL;
}

void variable_set(struct shell *shell, const char *name, const char *value)
{
    struct environment *own = &shell->own;
    struct variable *variable = find(shell, name);

    if (variable == NULL) {
        if (own->nr_variables == own->nr_variables_max) {
            size_t size = 2 * own->nr_variables_max + 8;
            struct variable *grown = shell_alloc(shell, size * sizeof(*grown));

            if (own->nr_variables != 0)
                memcpy(grown, own->variables, own->nr_variables * sizeof(*grown));
            own->variables = grown;
            own->nr_variables_max = size;
        }
        variable = &own->variables[own->nr_variables++];
        variable->name = shell_copy(shell, name, strlen(name));
        variable->exported = false;
    }
    variable->value = shell_copy(shell, value, strlen(value));
}

bool variable_exported(const struct shell *shell, const char *name)
{
    const struct variable *variable = find(shell, name);

    return variable != NULL && variable->exported;
}

void variable_export(struct shell *shell, const char *name, bool exported)
{
    struct variable *variable = find(shell, name);

    if (variable != NULL)
        variable->exported = exported;
}

void variable_unset(struct shell *shell, const char *name)
{
    struct variable *variable = find(shell, name);

    if (variable != NULL)
        *variable = shell->own.variables[--shell->own.nr_variables];
}

const char *shell_separators(const struct shell *shell)
{
    const char *separators = variable_get(shell, "IFS");

    return separators != NULL ? separators : " \t\n";
}

static const char *special(struct shell *shell, const char *name)
{
    const struct environment *own = &shell->own;
    struct text text = {.length = 0};
    size_t number;

    switch (name[0]) {
    case '?':
        return shell_format(shell, "%d", shell->status);
    case '#':
        return shell_format(shell, "%zu", own->nr_arguments);
    case '$':
        return "100";
    case '!':
        return shell->nr_jobs != 0 ? shell_format(shell, "%u", SHELL_FIRST_JOB + shell->nr_jobs)
                                   : "";
    case '-':
        return "";
    case '@':
    case '*':
        for (size_t i = 0; i < own->nr_arguments; i++) {
            if (i != 0)
                text_add(shell, &text, name[0] == '@' ? " " : shell_separators(shell),
                         name[0] == '@' || *shell_separators(shell) != '\0');
            text_string(shell, &text, own->arguments[i]);
        }
        return own->nr_arguments != 0 ? text.bytes : NULL;
    default:
        number = strtoul(name, NULL, 10);
        if (number == 0)
            return own->name;
        return number <= own->nr_arguments ? own->arguments[number - 1] : NULL;
    }
}

/* Always the same numbers; what a real shell would have drawn only it knows. */
static const char *draw(struct shell *shell)
{
    shell->random = shell->random * 6364136223846793005u + 1442695040888963407u;
    shell->foreign = true;
    return shell_format(shell, "%u", (unsigned)(shell->random >> 49));
}

const char *variable_value(struct shell *shell, const char *name)
{
    const char *value;

    if (*name != '_' && !isalpha((unsigned char)*name))
        return special(shell, name);
    value = variable_get(shell, name);
    if (value != NULL)
        return value;
    if (strcmp(name, "RANDOM") == 0)
        return draw(shell);
    if (strcmp(name, "FUNCNAME") == 0)
        return shell->own.function_name;
    if (strcmp(name, "UID") == 0 || strcmp(name, "EUID") == 0)
        return shell->own.bash ? "0" : NULL;
    return NULL;
}

/* ${name%pattern} and its three sisters. */
static const char *cut(struct shell *shell, const char *value, const struct part *part)
{
    const char *pattern = expand_pattern(shell, part->operand);
    size_t length = strlen(value);
    bool from_end = part->operation[0] == '%', longest = part->operation[1] != '\0';

    for (size_t i = 0; i <= length; i++) {
        size_t cut_length = longest ? length - i : i;
        const char *piece = from_end ? value + length - cut_length
                                     : shell_copy(shell, value, cut_length);

        if (fnmatch(pattern, piece, 0) != 0)
            continue;
        return from_end ? shell_copy(shell, value, length - cut_length) : value + cut_length;
    }
    return value;
}

/* ${name:offset:length} */
static const char *slice(struct shell *shell, const char *value, const struct part *part)
{
    char *from = expand_string(shell, part->operand), *length_text = strchr(from, ':');
    int64_t all = (int64_t)strlen(value), offset, length = all;

    if (length_text != NULL) {
        *length_text = '\0';
        length = arithmetic(shell, length_text + 1);
    }
    offset = arithmetic(shell, from);
    if (offset < 0)
        offset += all;
    if (offset < 0 || offset > all)
        return "";
    if (length < 0)
        length += all - offset;
    if (length > all - offset)
        length = all - offset;
    return length > 0 ? shell_copy(shell, value + offset, (size_t)length) : "";
}

/* ${name/pattern/text}, and // for all of them: the longest match at the first place. */
static const char *replace(struct shell *shell, const char *value, const struct part *part)
{
    const char *pattern = expand_pattern(shell, part->operand);
    const char *with = part->second != NULL ? expand_string(shell, part->second) : "";
    struct text text = {.length = 0};
    size_t length;

    text_add(shell, &text, "", 0);
    while (*value != '\0') {
        for (length = strlen(value); length != 0; length--)
            if (fnmatch(pattern, shell_copy(shell, value, length), 0) == 0)
                break;
        text_add(shell, &text, value, length == 0);
        text_string(shell, &text, length != 0 ? with : "");
        value += length + (length == 0);
        if (length != 0 && part->operation[1] == '\0')
            break;
    }
    text_string(shell, &text, value);
    return text.bytes;
}

/* The value of ${name...}; null if its operand was put in its place. */
static const char *value_of_part(struct expander *expander, const struct part *part)
{
    struct shell *shell = expander->shell;
    const char *value = variable_value(shell, part->text);
    bool present = value != NULL && (part->operation[1] != ':' || *value != '\0');

    if (value == NULL && shell->own.needs_set && strchr("@*", part->text[0]) == NULL &&
        (part->operation[0] == '\0' || strchr("-+=?", part->operation[0]) == NULL))
        shell_abort(shell, "%s: parameter not set", part->text);
    switch (part->operation[0]) {
    case 'l':
        return shell_format(shell, "%zu", value != NULL ? strlen(value) : 0);
    case '%':
    case '#':
        return value != NULL ? cut(shell, value, part) : "";
    case ':':
        return value != NULL ? slice(shell, value, part) : "";
    case '/':
        return value != NULL ? replace(shell, value, part) : "";
    case '-':
    case '=':
        if (present)
            return value;
        if (part->operation[0] == '=') {
            variable_set(shell, part->text, expand_string(shell, part->operand));
            return variable_get(shell, part->text);
        }
        expand_parts(expander, part->operand->parts);
        return NULL;
    case '+':
        if (present)
            expand_parts(expander, part->operand->parts);
        return NULL;
    case '?':
        if (!present)
            shell_abort(shell, "%s: %s", part->text, expand_string(shell, part->operand));
        return value;
    default:
        return value != NULL ? value : "";
    }
}

/* --- fields ----------------------------------------------------------------------------------- */

static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++) {
        if (*from == '\\' && from[1] != '\0')
            from++;
        *to++ = *from;
    }
    *to = '\0';
}

static bool is_pattern(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\\' && text[1] != '\0')
            text++;
        else if (strchr("*?[", *text) != NULL)
            return true;
    }
    return false;
}

static void end_field(struct expander *expander)
{
    struct shell *shell = expander->shell;

    if (!expander->have)
        return;
    text_add(shell, &expander->field, "", 0);
    if (!is_pattern(expander->field.bytes) ||
        !glob_add(shell, expander->field.bytes, expander->fields)) {
        unescape(expander->field.bytes);
        list_add(shell, expander->fields, expander->field.bytes);
    }
    expander->field = (struct text){.length = 0};
    expander->have = false;
}

static void add_quoted(struct expander *expander, const char *text)
{
    expander->have = true;
    for (; *text != '\0'; text++) {
        if (strchr("*?[]\\-!^", *text) != NULL)
            text_add(expander->shell, &expander->field, "\\", 1);
        text_add(expander->shell, &expander->field, text, 1);
    }
}

/* At a separator that is no blank a field ends even if it is empty; blanks before it are the
 * separator's. */
static void add_separator(struct expander *expander, char separator)
{
    bool blank = strchr(" \t\n", separator) != NULL;

    expander->foreign = expander->foreign && separator != '\n';
    if (!blank && !expander->have && !expander->after_blank)
        expander->have = true;
    expander->after_blank = blank && (expander->have || expander->after_blank);
    end_field(expander);
}

/* What was not quoted is split at separators, and its stars and question marks count. */
static void add_value(struct expander *expander, const char *text)
{
    const char mark = SHELL_FOREIGN_MARK;
    const char *separators = shell_separators(expander->shell);

    expander->foreign = expander->after_blank = false;
    for (; *text != '\0'; text++) {
        if (expander->mode == MODE_FIELDS && strchr(separators, *text) != NULL) {
            add_separator(expander, *text);
            continue;
        }
        expander->after_blank = false;
        if (*text == mark)
            expander->foreign = true;
        else if (expander->foreign && !expander->have)
            text_add(expander->shell, &expander->field, &mark, 1);
        if (*text == '\\')
            text_add(expander->shell, &expander->field, "\\", 1);
        text_add(expander->shell, &expander->field, text, 1);
        expander->have = true;
    }
}

static void add_arguments(struct expander *expander, bool quoted)
{
    const struct environment *own = &expander->shell->own;

    for (size_t i = 0; i < own->nr_arguments; i++) {
        if (i != 0)
            end_field(expander);
        if (quoted)
            add_quoted(expander, own->arguments[i]);
        else
            add_value(expander, own->arguments[i]);
    }
    if (own->nr_arguments == 0)
        expander->no_fields = true;
}

static const char *substitute(struct shell *shell, const struct node *program)
{
    struct text text = {.length = 0};
    size_t length = 0;

    run_capture(shell, program, &text);
    shell->substituted = shell->status;
    for (size_t i = 0; i < text.length; i++)
        if (text.bytes[i] != '\0')
            text.bytes[length++] = text.bytes[i];
    while (length != 0 && text.bytes[length - 1] == '\n')
        length--;
    return shell_copy(shell, text.bytes, length);
}

static void expand_part(struct expander *expander, const struct part *part)
{
    struct shell *shell = expander->shell;
    const char *value;

    switch (part->kind) {
    case PART_TEXT:
        if (part->quoted) {
            add_quoted(expander, part->text);
        } else {
            text_string(shell, &expander->field, part->text);
            expander->have = true;
        }
        return;
    case PART_VARIABLE:
        if (expander->mode == MODE_FIELDS && part->operation[0] == '\0' &&
            (part->text[0] == '@' || (part->text[0] == '*' && !part->quoted))) {
            add_arguments(expander, part->quoted);
            return;
        }
        value = value_of_part(expander, part);
        break;
    case PART_COMMAND:
        value = substitute(shell, part->program);
        break;
    default:
        value = shell_format(shell, "%lld",
                             (long long)arithmetic(shell, expand_string(shell, part->operand)));
    }
    if (value != NULL && part->quoted)
        add_quoted(expander, value);
    else if (value != NULL)
        add_value(expander, value);
}

static void expand_parts(struct expander *expander, const struct part *part)
{
    for (; part != NULL; part = part->next)
        expand_part(expander, part);
}

void expand_words(struct shell *shell, const struct word *words, struct list *fields)
{
    for (; words != NULL; words = words->next) {
        struct expander expander = {.shell = shell, .fields = fields, .mode = MODE_FIELDS};

        expand_parts(&expander, words->parts);
        if (expander.no_fields && expander.field.length == 0)
            continue;
        end_field(&expander);
    }
}

char *expand_pattern(struct shell *shell, const struct word *word)
{
    struct expander expander = {.shell = shell, .mode = MODE_STRING};

    expand_parts(&expander, word->parts);
    text_add(shell, &expander.field, "", 0);
    return expander.field.bytes;
}

char *expand_string(struct shell *shell, const struct word *word)
{
    char *text = expand_pattern(shell, word);

    unescape(text);
    return text;
}

/* --- patterns --------------------------------------------------------------------------------- */

struct listing {
    struct shell *shell;
    struct list *names;
};

static void take_name(void *to, const char *name)
{
    struct listing *listing = to;

    list_add(listing->shell, listing->names, shell_copy(listing->shell, name, strlen(name)));
}

/* The paths that begin with `done` and go on as `rest` says. */
static void glob_walk(struct shell *shell, const char *done, const char *rest, struct list *found)
{
    size_t length = strcspn(rest, "/"), slashes = strspn(rest + length, "/");
    char *piece = shell_copy(shell, rest, length);
    struct list names = {.count = 0};
    struct listing listing = {shell, &names};
    const size_t nr_before = found->count;
    const bool foreign = shell->foreign;

    if (*rest == '\0') {
        if (host_kind(shell, done) >= 0)
            list_add(shell, found, shell_copy(shell, done, strlen(done)));
        return;
    }
    if (!is_pattern(piece)) {
        unescape(piece);
        glob_walk(shell, shell_format(shell, "%s%s%.*s", done, piece, (int)slashes, rest + length),
                  rest + length + slashes, found);
        return;
    }
    if (host_list(shell, *done != '\0' ? done : ".", take_name, &listing) != 0)
        return;
    list_sort(&names);
    for (size_t i = 0; i < names.count; i++)
        if (fnmatch(piece, names.items[i], FNM_PERIOD) == 0)
            glob_walk(shell,
                      shell_format(shell, "%s%s%.*s", done, names.items[i], (int)slashes,
                                   rest + length),
                      rest + length + slashes, found);
    if (found->count == nr_before)
        shell->foreign = foreign; /* "[" is a pattern too */
}

bool glob_add(struct shell *shell, const char *pattern, struct list *fields)
{
    size_t slashes = strspn(pattern, "/");
    size_t count = fields->count;

    glob_walk(shell, shell_copy(shell, pattern, slashes), pattern + slashes, fields);
    return fields->count != count;
}
