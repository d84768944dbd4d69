/* SPDX-License-Identifier: MIT */
/* Tools that count, and some that turn lines around. */
#include "shell_private.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- expr ------------------------------------------------------------------------------------- */

struct expr {
    struct shell *shell;
    int at, argc;
    char **argv;
};

static const char *expr_level(struct expr *expr, unsigned level);

static int64_t expr_number(struct expr *expr, const char *text)
{
    char *end;
    int64_t number = strtoll(text, &end, 10);

    if (end == text || *end != '\0')
        shell_unknown(expr->shell, "expr of no number");
    return number;
}

static bool is_number(const char *text)
{
    text += *text == '-';
    return *text != '\0' && strspn(text, "0123456789") == strlen(text);
}

static const char *expr_text(struct expr *expr, int64_t number)
{
    return shell_format(expr->shell, "%lld", (long long)number);
}

static const char *expr_primary(struct expr *expr)
{
    const char *text;

    if (expr->at == expr->argc)
        shell_unknown(expr->shell, "expr");
    text = expr->argv[expr->at++];
    if (strcmp(text, "length") == 0 && expr->at < expr->argc)
        return expr_text(expr, (int64_t)strlen(expr->argv[expr->at++]));
    if (strcmp(text, "substr") == 0 || strcmp(text, "index") == 0 || strcmp(text, "match") == 0)
        shell_unknown(expr->shell, shell_format(expr->shell, "expr %s", text));
    if (strcmp(text, "(") != 0)
        return text;
    text = expr_level(expr, 0);
    if (expr->at == expr->argc || strcmp(expr->argv[expr->at++], ")") != 0)
        shell_unknown(expr->shell, "expr (");
    return text;
}

/* STRING : REGEX */
static const char *expr_match(struct expr *expr, const char *text, const char *pattern)
{
    const regex_t *regex = regex_get(expr->shell, shell_format(expr->shell, "^%s", pattern), 0);
    regmatch_t match[2] = {{-1, -1}, {-1, -1}};
    bool found = regexec(regex, text, 2, match, 0) == 0;

    if (regex->re_nsub == 0)
        return expr_text(expr, found ? match[0].rm_eo : 0);
    if (!found || match[1].rm_so < 0)
        return "";
    return shell_copy(expr->shell, text + match[1].rm_so,
                      (size_t)(match[1].rm_eo - match[1].rm_so));
}

static int64_t expr_compute(struct expr *expr, const char *a, char operation, const char *b)
{
    int64_t x = expr_number(expr, a), y = expr_number(expr, b), value = 0;

    if (strchr("/%", operation) != NULL && (y == 0 || y == -1)) {
        if (y == 0)
            shell_unknown(expr->shell, "expr by zero");
        return operation == '/' ? (int64_t)(0 - (uint64_t)x) : 0;
    }
    if (operation == '/')
        return x / y;
    if (operation == '%')
        return x % y;
    if (operation == '*' ? __builtin_mul_overflow(x, y, &value)
        : operation == '+' ? __builtin_add_overflow(x, y, &value)
                           : __builtin_sub_overflow(x, y, &value))
        shell_unknown(expr->shell, "expr of such numbers");
    return value;
}

static bool expr_compare(struct expr *expr, const char *a, const char *operation, const char *b)
{
    int64_t order = strcmp(a, b);

    if (is_number(a) && is_number(b)) {
        int64_t x = expr_number(expr, a), y = expr_number(expr, b);

        order = (x > y) - (x < y);
    }
    if (operation[0] == '<')
        return operation[1] == '=' ? order <= 0 : order < 0;
    if (operation[0] == '>')
        return operation[1] == '=' ? order >= 0 : order > 0;
    return (order == 0) == (operation[0] == '=');
}

static const char *expr_apply(struct expr *expr, unsigned level, const char *a,
                              const char *operation, const char *b)
{
    bool has_a = *a != '\0' && strcmp(a, "0") != 0, has_b = *b != '\0' && strcmp(b, "0") != 0;

    switch (level) {
    case 0:
        return has_a ? a : b;
    case 1:
        return has_a && has_b ? a : "0";
    case 2:
        return expr_compare(expr, a, operation, b) ? "1" : "0";
    case 5:
        return expr_match(expr, a, b);
    default:
        return expr_text(expr, expr_compute(expr, a, operation[0], b));
    }
}

static const char *expr_level(struct expr *expr, unsigned level)
{
    static const char *const operations[6][7] = {
        {"|"}, {"&"}, {"=", "==", "!=", "<", "<=", ">", ">="}, {"+", "-"}, {"*", "/", "%"}, {":"},
    };
    const char *value;

    if (level == 6)
        return expr_primary(expr);
    value = expr_level(expr, level + 1);
    for (;;) {
        const char *operation = NULL;

        for (size_t i = 0; i < 7 && operations[level][i] != NULL && expr->at < expr->argc; i++)
            if (strcmp(expr->argv[expr->at], operations[level][i]) == 0)
                operation = operations[level][i];
        if (operation == NULL)
            return value;
        expr->at++;
        value = expr_apply(expr, level, value, operation, expr_level(expr, level + 1));
    }
}

static int run_expr(struct shell *shell, int argc, char **argv)
{
    struct expr expr = {.shell = shell, .at = 1, .argc = argc, .argv = argv};
    const char *value = expr_level(&expr, 0);

    if (expr.at != argc)
        shell_unknown(shell, "expr");
    print(shell, "%s\n", value);
    return *value == '\0' || strcmp(value, "0") == 0;
}

/* --- bc --------------------------------------------------------------------------------------- */

/* Whole numbers only: assignments, expressions, and if (CONDITION) THIS [else THAT]. What the
 * shell's arithmetic would read otherwise is not understood. */
static void bc_statement(struct shell *shell, const char *text)
{
    const char *name;

    text += strspn(text, " \t");
    name = text + strspn(text, "abcdefghijklmnopqrstuvwxyz_0123456789");
    name += strspn(name, " \t");
    if (*text == '\0')
        return;
    if (strncmp(text, "if", 2) == 0 && strchr(" (", text[2]) != NULL) {
        const char *open = text + 2 + strspn(text + 2, " \t"), *at = open, *other;
        unsigned depth = 0;

        for (; *at != '\0'; at++) {
            depth += *at == '(';
            depth -= *at == ')';
            if (*at == ')' && depth == 0)
                break;
        }
        if (*open != '(' || *at == '\0')
            shell_unknown(shell, "bc if");
        other = strstr(at, "else");
        if (arithmetic(shell, shell_copy(shell, open, (size_t)(at + 1 - open))) != 0)
            bc_statement(shell, shell_copy(shell, at + 1, other != NULL
                                                              ? (size_t)(other - at - 1)
                                                              : strlen(at + 1)));
        else if (other != NULL)
            bc_statement(shell, other + 4);
        return;
    }
    if (strspn(text, "abcdefghijklmnopqrstuvwxyz_0123456789+-*/%()=<>! \t") != strlen(text) ||
        strstr(text, "scale") != NULL || strstr(text, "**") != NULL)
        shell_unknown(shell, shell_format(shell, "bc of %s", text));
    if (*name == '=' && name[1] != '=' && !isdigit((unsigned char)*text))
        arithmetic(shell, text);
    else
        print(shell, "%lld\n", (long long)arithmetic(shell, text));
}

static int run_bc_body(struct shell *shell, void *context)
{
    char *rest = NULL;

    for (char *text = strtok_r(context, ";\n", &rest); text != NULL;
         text = strtok_r(NULL, ";\n", &rest))
        bc_statement(shell, text);
    print_flush(shell);
    return 0;
}

/* Its variables are no variables of the shell's. */
static int run_bc(struct shell *shell, int argc, char **argv)
{
    struct text text = {.length = 0};
    struct options options;

    if (tool_options(shell, argc, argv, &options) != 0)
        shell_unknown(shell, "bc of a file");
    text_add(shell, &text, "", 0);
    if (input_all(shell, "-", &text) != 0)
        return 1;
    return run_apart(shell, &(struct apart){.body = run_bc_body, .context = text.bytes});
}

/* --- lines ------------------------------------------------------------------------------------ */

static int read_lines(struct shell *shell, int argc, char **argv, struct text *text)
{
    struct options options;
    int nr_files = tool_options(shell, argc, argv, &options), status = 0;
    char *standard[] = {(char[]){"-"}, NULL};

    for (char **name = nr_files != 0 ? argv : standard; *name != NULL; name++) {
        int error = input_all(shell, *name, text);

        if (error == 0)
            continue;
        complain(shell, "%s: %s", *name, strerror(-error));
        status = 1;
    }
    return status;
}

static void tac_lines(struct shell *shell, const struct text *text, size_t at)
{
    size_t nr_lines = 0;
    struct line *lines;
    struct line line;

    for (size_t from = at; line_next(text, &from, &line);)
        nr_lines++;
    lines = shell_alloc(shell, (nr_lines + 1) * sizeof(*lines));
    for (size_t i = 0; line_next(text, &at, &lines[i]);)
        i++;
    while (nr_lines-- != 0)
        print_line(shell, &lines[nr_lines]);
}

static int run_tac(struct shell *shell, int argc, char **argv)
{
    struct text text = {.length = 0};
    int status = read_lines(shell, argc, argv, &text);

    tac_lines(shell, &text, 0);
    return status;
}

static int run_rev(struct shell *shell, int argc, char **argv)
{
    struct text text = {.length = 0};
    int status = read_lines(shell, argc, argv, &text);
    struct line line;

    for (size_t at = 0; line_next(&text, &at, &line);) {
        char *turned = shell_copy(shell, line.bytes, line.length);

        for (size_t i = 0; i < line.length; i++)
            turned[i] = line.bytes[line.length - 1 - i];
        line.bytes = turned;
        print_line(shell, &line);
    }
    return status;
}

/* Empty lines have no number. */
static int run_nl(struct shell *shell, int argc, char **argv)
{
    struct text text = {.length = 0};
    int status = read_lines(shell, argc, argv, &text);
    unsigned number = 0;
    struct line line;

    for (size_t at = 0; line_next(&text, &at, &line);) {
        const char *numbered = line.length != 0
                                   ? shell_format(shell, "%6u\t%.*s", ++number, (int)line.length,
                                                  line.bytes)
                                   : "       ";

        line.bytes = numbered;
        line.length = strlen(numbered);
        print_line(shell, &line);
    }
    return status;
}

/* -s: all lines of a file in one. */
static int run_paste(struct shell *shell, int argc, char **argv)
{
    struct options options;
    struct text text = {.length = 0}, joined = {.length = 0};
    int nr_files = tool_options(shell, argc, argv, &options);
    const char *delimiter = options.value['d'] != NULL ? options.value['d'] : "\t";
    struct line line, all = {.mark = false};

    if (!options.has['s'] || nr_files > 1 || strlen(delimiter) != 1 || *delimiter == '\\')
        shell_unknown(shell, "paste");
    if (input_all(shell, nr_files != 0 ? argv[0] : "-", &text) != 0)
        return 1;
    text_add(shell, &joined, "", 0);
    for (size_t at = 0; line_next(&text, &at, &line);) {
        if (joined.length != 0)
            text_string(shell, &joined, delimiter);
        text_add(shell, &joined, line.bytes, line.length);
        all.mark = all.mark || line.mark;
    }
    all.bytes = joined.bytes;
    all.length = joined.length;
    print_line(shell, &all);
    return 0;
}

const struct tool shell_count_tools[] = {
    {"expr", NULL, 0, run_expr}, {"bc", "", 0, run_bc},         {"tac", "", 0, run_tac},
    {"rev", "", 0, run_rev},     {"nl", "", 0, run_nl},         {"paste", "sd:", 0, run_paste},
    {NULL, NULL, 0, NULL},
};
