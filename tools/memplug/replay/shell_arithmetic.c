/* SPDX-License-Identifier: MIT */
/* $((...)), in 64 bits that wrap around. */
#include "shell_private.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct shell *shell;
    const char *at;
    unsigned skipped; /* in what && || ?: do not evaluate */
    unsigned depth;
};

static int64_t read_assignment(struct reader *reader);

_Noreturn static void wrong(struct reader *reader)
{
    shell_abort(reader->shell, "arithmetic syntax error");
}

bool number_parse(const char *text, int64_t *number)
{
    char *end;

    if (*text == SHELL_FOREIGN_MARK)
        text++;
    while (isspace((unsigned char)*text))
        text++;
    errno = 0;
    *number = (int64_t)strtoull(text, &end, 0);
    if (end == text || errno != 0)
        return false;
    while (isspace((unsigned char)*end))
        end++;
    return *end == '\0';
}

static void skip_blanks(struct reader *reader)
{
    while (isspace((unsigned char)*reader->at) || *reader->at == SHELL_FOREIGN_MARK)
        reader->at++;
}

/* Takes the operator if it is next, and is not the beginning of a longer one. */
static bool take(struct reader *reader, const char *text)
{
    static const char *const longer[] = {"<<=", ">>=", "<<", ">>", "<=", ">=", "==", "!=", "&&",
                                         "||",  "++",  "--", "+=", "-=", "*=", "/=", "%=", "&=",
                                         "|=",  "^="};
    size_t length = strlen(text);

    skip_blanks(reader);
    if (strncmp(reader->at, text, length) != 0)
        return false;
    for (size_t i = 0; i < sizeof(longer) / sizeof(longer[0]); i++)
        if (strlen(longer[i]) > length &&
            strncmp(reader->at, longer[i], strlen(longer[i])) == 0)
            return false;
    reader->at += length;
    return true;
}

static const char *take_name(struct reader *reader)
{
    const char *start;

    skip_blanks(reader);
    start = reader->at;
    if (*start != '_' && !isalpha((unsigned char)*start))
        return NULL;
    while (*reader->at == '_' || isalnum((unsigned char)*reader->at))
        reader->at++;
    return shell_copy(reader->shell, start, (size_t)(reader->at - start));
}

static int64_t value_of(struct reader *reader, const char *name)
{
    const char *text = variable_value(reader->shell, name);
    struct reader inner = {.shell = reader->shell, .at = text, .skipped = reader->skipped,
                           .depth = reader->depth + 1};
    int64_t value;

    if (text == NULL || *text == '\0')
        return 0;
    if (inner.depth > 60)
        wrong(reader);
    value = read_assignment(&inner);
    skip_blanks(&inner);
    if (*inner.at != '\0')
        wrong(reader);
    return value;
}

static void store(struct reader *reader, const char *name, int64_t value)
{
    if (reader->skipped == 0)
        variable_set(reader->shell, name,
                     shell_format(reader->shell, "%lld", (long long)value));
}

static int64_t add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

static int64_t apply(struct reader *reader, const char *operation, int64_t a, int64_t b)
{
    switch (operation[0]) {
    case '+':
        return add(a, b);
    case '-':
        return (int64_t)((uint64_t)a - (uint64_t)b);
    case '*':
        return (int64_t)((uint64_t)a * (uint64_t)b);
    case '/':
    case '%':
        if (reader->skipped != 0)
            return 0;
        if (b == 0)
            shell_abort(reader->shell, "divide by zero");
        if (b == -1)
            return operation[0] == '/' ? (int64_t)(0 - (uint64_t)a) : 0;
        return operation[0] == '/' ? a / b : a % b;
    case '&':
        return operation[1] == '&' ? a && b : a & b;
    case '|':
        return operation[1] == '|' ? a || b : a | b;
    case '^':
        return a ^ b;
    case '=':
        return a == b;
    case '!':
        return a != b;
    case '<':
        if (operation[1] == '<')
            return (int64_t)((uint64_t)a << (b & 63));
        return operation[1] == '=' ? a <= b : a < b;
    default:
        if (operation[1] == '>')
            return a >= 0 ? a >> (b & 63) : ~(~a >> (b & 63));
        return operation[1] == '=' ? a >= b : a > b;
    }
}

static int64_t read_name(struct reader *reader, const char *name, int change)
{
    int64_t value = value_of(reader, name);

    if (change != 0) {
        store(reader, name, add(value, change));
        return add(value, change);
    }
    if (take(reader, "++"))
        store(reader, name, add(value, 1));
    else if (take(reader, "--"))
        store(reader, name, add(value, -1));
    return value;
}

static int64_t read_number(struct reader *reader)
{
    char *end;
    uint64_t value;

    skip_blanks(reader);
    if (!isdigit((unsigned char)*reader->at))
        wrong(reader);
    value = strtoull(reader->at, &end, 0);
    if (isalnum((unsigned char)*end) || *end == '_')
        wrong(reader);
    reader->at = end;
    return (int64_t)value;
}

static int64_t read_unary(struct reader *reader)
{
    const char *name;
    int64_t value;

    if (++reader->depth > 60)
        wrong(reader);
    if (take(reader, "++") || take(reader, "--")) {
        int change = reader->at[-1] == '+' ? 1 : -1;

        name = take_name(reader);
        if (name == NULL)
            wrong(reader);
        value = read_name(reader, name, change);
    } else if (take(reader, "!")) {
        value = !read_unary(reader);
    } else if (take(reader, "~")) {
        value = ~read_unary(reader);
    } else if (take(reader, "-")) {
        value = (int64_t)(0 - (uint64_t)read_unary(reader));
    } else if (take(reader, "+")) {
        value = read_unary(reader);
    } else if (take(reader, "(")) {
        value = read_assignment(reader);
        if (!take(reader, ")"))
            wrong(reader);
    } else {
        name = take_name(reader);
        value = name != NULL ? read_name(reader, name, 0) : read_number(reader);
    }
    reader->depth--;
    return value;
}

static const char *const levels[][5] = {
    {"||"}, {"&&"}, {"|"}, {"^"}, {"&"}, {"==", "!="}, {"<=", ">=", "<", ">"}, {"<<", ">>"},
    {"+", "-"}, {"*", "/", "%"},
};
#define NR_LEVELS (sizeof(levels) / sizeof(levels[0]))

static int64_t read_binary(struct reader *reader, size_t level)
{
    int64_t value;

    if (level == NR_LEVELS)
        return read_unary(reader);
    value = read_binary(reader, level + 1);
    for (;;) {
        const char *operation = NULL;
        unsigned skip;
        int64_t right;

        for (size_t i = 0; levels[level][i] != NULL && operation == NULL; i++)
            if (take(reader, levels[level][i]))
                operation = levels[level][i];
        if (operation == NULL)
            return value;
        skip = level < 2 && (value != 0) == (level == 0);
        reader->skipped += skip;
        right = read_binary(reader, level + 1);
        reader->skipped -= skip;
        value = apply(reader, operation, value, right);
    }
}

static int64_t read_choice(struct reader *reader)
{
    int64_t value = read_binary(reader, 0), yes, no;

    if (!take(reader, "?"))
        return value;
    reader->skipped += value == 0;
    yes = read_assignment(reader);
    reader->skipped -= value == 0;
    if (!take(reader, ":"))
        wrong(reader);
    reader->skipped += value != 0;
    no = read_assignment(reader);
    reader->skipped -= value != 0;
    return value != 0 ? yes : no;
}

static int64_t read_assignment(struct reader *reader)
{
    static const char *const operations[] = {"=",  "+=", "-=", "*=",  "/=",  "%=",
                                             "&=", "|=", "^=", "<<=", ">>="};
    const char *start = reader->at, *name;
    int64_t value;

    if (++reader->depth > 60)
        wrong(reader);
    name = take_name(reader);
    for (size_t i = 0; name != NULL && i < sizeof(operations) / sizeof(operations[0]); i++) {
        if (!take(reader, operations[i]))
            continue;
        value = read_assignment(reader);
        if (i != 0)
            value = apply(reader, operations[i][1] == '=' ?
                          shell_copy(reader->shell, operations[i], 1) : operations[i],
                          value_of(reader, name), value);
        store(reader, name, value);
        reader->depth--;
        return value;
    }
    reader->at = start;
    value = read_choice(reader);
    reader->depth--;
    return value;
}

int64_t arithmetic(struct shell *shell, const char *expression)
{
    struct reader reader = {.shell = shell, .at = expression};
    int64_t value = 0;

    skip_blanks(&reader);
    if (*reader.at == '\0')
        return 0;
    do
        value = read_assignment(&reader);
    while (take(&reader, ","));
    skip_blanks(&reader);
    if (*reader.at != '\0')
        wrong(&reader);
    return value;
}
