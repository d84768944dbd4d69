/* SPDX-License-Identifier: MIT */
/* The values of awk's expressions. */
#include "shell_awk.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 20000000u
#define LARGEST_WHOLE 9e18

/* --- values ----------------------------------------------------------------------------------- */

static struct awk_value of_number(double number)
{
    return (struct awk_value){.kind = VALUE_NUMBER, .number = number};
}

static struct awk_value of_text(const char *text)
{
    return (struct awk_value){.kind = VALUE_TEXT, .text = text};
}

static const char *number_text(struct awk *awk, double number)
{
    if (number == floor(number) && fabs(number) < LARGEST_WHOLE)
        return shell_format(awk->shell, "%lld", (long long)number);
    return shell_format(awk->shell, "%.6g", number);
}

const char *awk_text(struct awk *awk, const struct awk_value *value)
{
    if (value->kind == VALUE_UNSET)
        return "";
    return value->kind == VALUE_NUMBER ? number_text(awk, value->number) : value->text;
}

/* As busybox has it: hexadecimal and octal count, names of numbers that are none do not. */
static double text_number(const char *text, bool *whole)
{
    const char *at = text + strspn(text, " \t\n");
    size_t length = strspn(at, "0123456789.eE+-");
    char copy[64], *end;
    double number;

    if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X' || isdigit((unsigned char)at[1]))) {
        number = (double)strtoull(at, &end, 0);
        *whole = end[strspn(end, " \t\n")] == '\0';
        return number;
    }
    if (length >= sizeof(copy))
        length = sizeof(copy) - 1;
    memcpy(copy, at, length);
    copy[length] = '\0';
    number = strtod(copy, &end);
    at += end - copy;
    *whole = end != copy && at[strspn(at, " \t\n")] == '\0';
    return end != copy ? number : 0;
}

double awk_number(const struct awk_value *value)
{
    bool whole;

    if (value->kind == VALUE_UNSET)
        return 0;
    return value->kind == VALUE_NUMBER ? value->number : text_number(value->text, &whole);
}

static bool is_numeric(const struct awk_value *value)
{
    bool whole = value->kind != VALUE_TEXT;

    if (value->kind == VALUE_FIELD)
        text_number(value->text, &whole);
    return whole;
}

bool awk_true(const struct awk_value *value)
{
    if (value->kind == VALUE_UNSET)
        return false;
    if (value->kind == VALUE_TEXT || !is_numeric(value))
        return value->text[0] != '\0';
    return awk_number(value) != 0;
}

/* --- names ------------------------------------------------------------------------------------ */

struct awk_cell *awk_cell(struct awk *awk, const char *name)
{
    struct awk_cell *cell = awk->cells;

    while (cell != NULL && strcmp(cell->name, name) != 0)
        cell = cell->next;
    if (cell != NULL)
        return cell;
    cell = shell_alloc(awk->shell, sizeof(*cell));
    cell->name = name;
    cell->next = awk->cells;
    awk->cells = cell;
    return cell;
}

static struct awk_element *element_of(struct awk *awk, const char *name, const char *key, bool make)
{
    struct awk_element **at = &awk_cell(awk, name)->elements;

    while (*at != NULL && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    if (*at == NULL && make) {
        *at = shell_alloc(awk->shell, sizeof(**at));
        (*at)->key = key;
    }
    return *at;
}

const char *awk_setting(struct awk *awk, const char *name)
{
    return awk_text(awk, &awk_cell(awk, name)->value);
}

static struct awk_value get_name(struct awk *awk, const char *name)
{
    if (strcmp(name, "NR") == 0)
        return of_number(awk->nr);
    if (strcmp(name, "FNR") == 0)
        return of_number(awk->fnr);
    if (strcmp(name, "NF") == 0)
        return of_number((double)awk->fields.count);
    return awk_cell(awk, name)->value;
}

/* --- fields ----------------------------------------------------------------------------------- */

static void split(struct awk *awk, const char *text, const char *separator, struct list *fields)
{
    struct shell *shell = awk->shell;
    bool blanks = strcmp(separator, " ") == 0;
    const regex_t *regex = NULL;
    regmatch_t match = {0, 0};

    if (!blanks && (separator[1] != '\0' || separator[0] == '\\'))
        regex = regex_get(shell, separator, REG_EXTENDED);
    for (;;) {
        size_t length;

        if (blanks)
            text += strspn(text, " \t\n");
        if (*text == '\0' && (blanks || fields->count == 0))
            return;
        if (regex != NULL && regexec(regex, text, 1, &match, 0) == 0 && match.rm_eo != 0)
            length = (size_t)match.rm_so;
        else
            length = regex != NULL ? strlen(text) : strcspn(text, blanks ? " \t\n" : separator);
        list_add(shell, fields, shell_copy(shell, text, length));
        if (text[length] == '\0')
            return;
        text += regex != NULL ? (size_t)match.rm_eo : length + 1;
    }
}

void awk_set_line(struct awk *awk, const char *line)
{
    awk->line = line;
    awk->fields = (struct list){.count = 0};
    split(awk, line, awk_setting(awk, "FS"), &awk->fields);
}

static struct awk_value get_field(struct awk *awk, double number)
{
    struct awk_value value = {.kind = VALUE_FIELD, .text = awk->line};

    if (number < 0 || number > 10000)
        shell_unknown(awk->shell, "awk field");
    if (number >= 1)
        value.text = number <= (double)awk->fields.count ? awk->fields.items[(size_t)number - 1]
                                                         : "";
    return value;
}

static void join_fields(struct awk *awk)
{
    struct text text = {.length = 0};

    text_add(awk->shell, &text, "", 0);
    for (size_t i = 0; i < awk->fields.count; i++) {
        text_string(awk->shell, &text, i != 0 ? awk_setting(awk, "OFS") : "");
        text_string(awk->shell, &text, awk->fields.items[i]);
    }
    awk->line = text.bytes;
}

static void set_field(struct awk *awk, double number, const char *text)
{
    if (number < 0 || number > 10000)
        shell_unknown(awk->shell, "awk field");
    if (number < 1) {
        awk_set_line(awk, text);
        return;
    }
    while ((double)awk->fields.count < floor(number))
        list_add(awk->shell, &awk->fields, (char *)"");
    awk->fields.items[(size_t)number - 1] = (char *)text;
    join_fields(awk);
}

/* --- expressions ------------------------------------------------------------------------------ */

static void put(struct awk *awk, const struct awk_node *to, struct awk_value value)
{
    struct awk_value key;

    awk->tainted = awk->tainted || awk->mark;
    if (to->kind == AWK_FIELD) {
        key = awk_evaluate(awk, to->a);
        set_field(awk, awk_number(&key), awk_text(awk, &value));
    } else if (to->kind == AWK_ELEMENT) {
        key = awk_evaluate(awk, to->a);
        element_of(awk, to->text, awk_text(awk, &key), true)->value = value;
    } else {
        if (strcmp(to->text, "NF") == 0 || strcmp(to->text, "NR") == 0 ||
            strcmp(to->text, "FNR") == 0)
            shell_unknown(awk->shell, shell_format(awk->shell, "awk %s=", to->text));
        awk_cell(awk, to->text)->value = value;
    }
}

static double compute(struct awk *awk, char operation, double a, double b)
{
    if ((operation == '/' || operation == '%') && b == 0)
        shell_unknown(awk->shell, "awk by zero");
    switch (operation) {
    case '+':
        return a + b;
    case '-':
        return a - b;
    case '*':
        return a * b;
    case '/':
        return a / b;
    default:
        return fmod(a, b);
    }
}

static bool matches(struct awk *awk, const struct awk_node *pattern, const char *text)
{
    const char *expression = pattern->text;

    if (pattern->kind != AWK_REGEX) {
        struct awk_value value = awk_evaluate(awk, pattern);

        expression = awk_text(awk, &value);
    }
    return regexec(regex_get(awk->shell, expression, REG_EXTENDED), text, 0, NULL, 0) == 0;
}

static bool compare(struct awk *awk, const struct awk_node *node)
{
    struct awk_value a = awk_evaluate(awk, node->a), b = awk_evaluate(awk, node->b);
    double order;

    if (is_numeric(&a) && is_numeric(&b)) {
        double x = awk_number(&a), y = awk_number(&b);

        order = (x > y) - (x < y);
    } else {
        order = strcmp(awk_text(awk, &a), awk_text(awk, &b));
    }
    switch (node->text[0]) {
    case '<':
        return node->text[1] == '=' ? order <= 0 : order < 0;
    case '>':
        return node->text[1] == '=' ? order >= 0 : order > 0;
    default:
        return (order == 0) == (node->text[0] == '=');
    }
}

static struct awk_value assign(struct awk *awk, const struct awk_node *node)
{
    struct awk_value value = awk_evaluate(awk, node->b), old;

    if (node->text[0] != '\0') {
        old = awk_evaluate(awk, node->a);
        value = of_number(compute(awk, node->text[0], awk_number(&old), awk_number(&value)));
    }
    put(awk, node->a, value);
    return value;
}

static struct awk_value step(struct awk *awk, const struct awk_node *node)
{
    struct awk_value value = awk_evaluate(awk, node->a);
    double before = awk_number(&value);

    put(awk, node->a, of_number(before + node->number));
    return of_number(node->text[0] != '\0' ? before : before + node->number);
}

static struct awk_value logic(struct awk *awk, const struct awk_node *node)
{
    struct awk_value a = awk_evaluate(awk, node->a), b;
    bool first = awk_true(&a);

    if (node->kind == AWK_TERNARY)
        return awk_evaluate(awk, first ? node->b : node->c);
    if (first == (node->kind == AWK_OR))
        return of_number(first);
    b = awk_evaluate(awk, node->b);
    return of_number(awk_true(&b));
}

static struct awk_value operate(struct awk *awk, const struct awk_node *node)
{
    struct awk_value a = awk_evaluate(awk, node->a), b;

    if (node->kind == AWK_IN)
        return of_number(element_of(awk, node->b->text, awk_text(awk, &a), false) != NULL);
    if (node->kind == AWK_MATCH || node->kind == AWK_NO_MATCH)
        return of_number(matches(awk, node->b, awk_text(awk, &a)) == (node->kind == AWK_MATCH));
    if (node->kind == AWK_NOT)
        return of_number(!awk_true(&a));
    if (node->kind == AWK_MINUS)
        return of_number(-awk_number(&a));
    b = awk_evaluate(awk, node->b);
    if (node->kind == AWK_CONCAT)
        return of_text(shell_format(awk->shell, "%s%s", awk_text(awk, &a), awk_text(awk, &b)));
    return of_number(compute(awk, node->text[0], awk_number(&a), awk_number(&b)));
}

/* --- functions -------------------------------------------------------------------------------- */

/* Busybox's printf has 32 bits, and what a processor makes of more. */
static int to_int(double number)
{
    return number > INT_MIN && number <= INT_MAX ? (int)number : INT_MIN;
}

/* One conversion of printf, from start to its letter. */
static void convert(struct awk *awk, struct text *to, const char *start, size_t length,
                    const struct awk_value *value)
{
    struct shell *shell = awk->shell;
    char letter = start[length - 1];
    const char *format = shell_format(shell, "%.*s", (int)length - 1, start);

    if (length > 20 || strchr("*hlL", letter) != NULL || strchr("dicuxXosfgGeE", letter) == NULL)
        shell_unknown(shell, shell_format(shell, "awk %.*s", (int)length, start));
    if (letter == 's')
        text_string(shell, to, shell_format(shell, shell_format(shell, "%ss", format),
                                            awk_text(awk, value)));
    else if (letter == 'c')
        text_add(shell, to, value->kind == VALUE_NUMBER ? (char[]){(char)value->number}
                                                        : awk_text(awk, value), 1);
    else if (strchr("fgGeE", letter) != NULL)
        text_string(shell, to, shell_format(shell, shell_format(shell, "%s%c", format, letter),
                                            awk_number(value)));
    else
        text_string(shell, to, shell_format(shell, shell_format(shell, "%s%c", format, letter),
                                            to_int(awk_number(value))));
}

const char *awk_format(struct awk *awk, const struct awk_node *arguments)
{
    struct awk_value value = awk_evaluate(awk, arguments);
    const char *at = awk_text(awk, &value);
    struct text text = {.length = 0};

    text_add(awk->shell, &text, "", 0);
    arguments = arguments->next;
    while (*at != '\0') {
        size_t length = strcspn(at, "%");

        text_add(awk->shell, &text, at, length);
        at += length;
        if (*at == '\0')
            break;
        length = 1 + strspn(at + 1, "-+ #0123456789.");
        if (at[length] == '\0')
            break;
        if (at[length] == '%') {
            text_add(awk->shell, &text, "%", 1);
        } else {
            value = (struct awk_value){.text = ""};
            if (arguments != NULL)
                value = awk_evaluate(awk, arguments);
            arguments = arguments != NULL ? arguments->next : NULL;
            convert(awk, &text, at, length + 1, &value);
        }
        at += length + 1;
    }
    return text.bytes;
}

/* sub and gsub: how many were replaced. */
static double substitute(struct awk *awk, const struct awk_node *node, bool all)
{
    static const struct awk_node zero = {.kind = AWK_NUMBER};
    static const struct awk_node whole = {.kind = AWK_FIELD, .a = (struct awk_node *)&zero};
    const struct awk_node *target = node->a->next->next != NULL ? node->a->next->next : &whole;
    struct awk_value value = awk_evaluate(awk, target), pattern;
    struct awk_value with = awk_evaluate(awk, node->a->next);
    const char *text = awk_text(awk, &value), *replacement = awk_text(awk, &with);
    const regex_t *regex;
    struct text out = {.length = 0};
    regmatch_t match;
    double count = 0;

    pattern = node->a->kind == AWK_REGEX ? of_text(node->a->text) : awk_evaluate(awk, node->a);
    regex = regex_get(awk->shell, awk_text(awk, &pattern), REG_EXTENDED);
    text_add(awk->shell, &out, "", 0);
    while ((count == 0 || all) &&
           regexec(regex, text, 1, &match, count != 0 ? REG_NOTBOL : 0) == 0) {
        text_add(awk->shell, &out, text, (size_t)match.rm_so);
        for (const char *at = replacement; *at != '\0'; at++) {
            at += *at == '\\' && at[1] == '&';
            if (*at == '&' && (at == replacement || at[-1] != '\\'))
                text_add(awk->shell, &out, text + match.rm_so,
                         (size_t)(match.rm_eo - match.rm_so));
            else
                text_add(awk->shell, &out, at, 1);
        }
        count++;
        text += match.rm_eo;
        if (match.rm_eo == match.rm_so && *text != '\0')
            text_add(awk->shell, &out, text++, 1);
        if (*text == '\0')
            break;
    }
    text_string(awk->shell, &out, text);
    if (count != 0)
        put(awk, target, of_text(out.bytes));
    return count;
}

static double split_into(struct awk *awk, const struct awk_node *node)
{
    struct awk_value value = awk_evaluate(awk, node->a), separator;
    struct list fields = {.count = 0};
    const char *between = awk_setting(awk, "FS");

    if (node->a->next == NULL || node->a->next->kind != AWK_NAME)
        shell_unknown(awk->shell, "awk split");
    if (node->a->next->next != NULL) {
        separator = node->a->next->next->kind == AWK_REGEX ? of_text(node->a->next->next->text)
                                                           : awk_evaluate(awk, node->a->next->next);
        between = awk_text(awk, &separator);
    }
    awk->tainted = awk->tainted || awk->mark;
    split(awk, awk_text(awk, &value), between, &fields);
    awk_cell(awk, node->a->next->text)->elements = NULL;
    for (size_t i = 0; i < fields.count; i++)
        element_of(awk, node->a->next->text, shell_format(awk->shell, "%zu", i + 1), true)->value =
            (struct awk_value){.kind = VALUE_FIELD, .text = fields.items[i]};
    return (double)fields.count;
}

static struct awk_value piece_of(struct awk *awk, const char *text, const struct awk_node *from)
{
    struct awk_value value = awk_evaluate(awk, from);
    double first = fmax(rint(awk_number(&value)), 1), last = (double)strlen(text) + 1;

    if (from->next != NULL) {
        value = awk_evaluate(awk, from->next);
        last = fmin(last, first + rint(awk_number(&value)));
    }
    if (!(first < last))
        return of_text("");
    return of_text(shell_copy(awk->shell, text + (size_t)first - 1, (size_t)(last - first)));
}

static struct awk_value change_case(struct awk *awk, const char *text, bool up)
{
    char *copy = shell_copy(awk->shell, text, strlen(text));

    for (char *at = copy; *at != '\0'; at++)
        *at = (char)(up ? toupper((unsigned char)*at) : tolower((unsigned char)*at));
    return of_text(copy);
}

static double length_of(struct awk *awk, const struct awk_node *argument)
{
    double count = 0;
    struct awk_value value;

    if (argument == NULL)
        return (double)strlen(awk->line);
    if (argument->kind == AWK_NAME && awk_cell(awk, argument->text)->elements != NULL) {
        for (struct awk_element *at = awk_cell(awk, argument->text)->elements; at != NULL;
             at = at->next)
            count++;
        return count;
    }
    value = awk_evaluate(awk, argument);
    return (double)strlen(awk_text(awk, &value));
}

static struct awk_value call(struct awk *awk, const struct awk_node *node)
{
    const char *name = node->text, *text, *found;
    struct awk_value first, second;

    if (strcmp(name, "length") == 0)
        return of_number(length_of(awk, node->a));
    if (node->a == NULL)
        shell_unknown(awk->shell, shell_format(awk->shell, "awk %s", name));
    if (strcmp(name, "sprintf") == 0)
        return of_text(awk_format(awk, node->a));
    if (strcmp(name, "split") == 0)
        return of_number(split_into(awk, node));
    if (strstr(name, "sub") == NULL || strcmp(name, "substr") == 0) {
        first = awk_evaluate(awk, node->a);
        text = awk_text(awk, &first);
        if (strcmp(name, "int") == 0)
            return of_number(trunc(awk_number(&first)));
        if (strcmp(name, "toupper") == 0 || strcmp(name, "tolower") == 0)
            return change_case(awk, text, name[2] == 'u');
        if (node->a->next != NULL && strcmp(name, "substr") == 0)
            return piece_of(awk, text, node->a->next);
        if (node->a->next != NULL && strcmp(name, "index") == 0) {
            second = awk_evaluate(awk, node->a->next);
            found = strstr(text, awk_text(awk, &second));
            return of_number(found != NULL ? (double)(found - text) + 1 : 0);
        }
    } else if (node->a->next != NULL) {
        return of_number(substitute(awk, node, name[0] == 'g'));
    }
    shell_unknown(awk->shell, shell_format(awk->shell, "awk %s", name));
}

struct awk_value awk_evaluate(struct awk *awk, const struct awk_node *node)
{
    struct awk_value value;

    if (++awk->nr_steps > STEPS_MAX)
        shell_leave(awk->shell, SHELL_ENDLESS);
    switch (node->kind) {
    case AWK_NUMBER:
        return of_number(node->number);
    case AWK_STRING:
        return of_text(node->text);
    case AWK_REGEX:
        return of_number(matches(awk, node, awk->line));
    case AWK_NAME:
        return get_name(awk, node->text);
    case AWK_ELEMENT:
        value = awk_evaluate(awk, node->a);
        return element_of(awk, node->text, awk_text(awk, &value), true)->value;
    case AWK_FIELD:
        value = awk_evaluate(awk, node->a);
        return get_field(awk, awk_number(&value));
    case AWK_GROUP:
        return awk_evaluate(awk, node->a);
    case AWK_ASSIGN:
        return assign(awk, node);
    case AWK_STEP:
        return step(awk, node);
    case AWK_TERNARY:
    case AWK_OR:
    case AWK_AND:
        return logic(awk, node);
    case AWK_COMPARE:
        return of_number(compare(awk, node));
    case AWK_CALL:
        return call(awk, node);
    default:
        return operate(awk, node);
    }
}
