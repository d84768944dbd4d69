/* SPDX-License-Identifier: MIT */
/* What ash does itself. */
#include "shell_private.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- echo and printf -------------------------------------------------------------------------- */

/* What stands behind a backslash; *stop at \c. */
static void print_escape(struct shell *shell, const char **at, bool *stop)
{
    static const char names[] = "abefnrtv\\", values[] = "\a\b\033\f\n\r\t\v\\";
    const char *found = **at != '\0' ? strchr(names, **at) : NULL;
    char c = '\\';

    if (found != NULL) {
        c = values[found - names];
        ++*at;
    } else if (**at == 'c') {
        *stop = true;
        return;
    } else if (**at >= '0' && **at <= '7') {
        unsigned value = 0;

        for (unsigned i = 0; i < 3 + (**at == '0') && **at >= '0' && **at <= '7'; i++)
            value = value * 8 + (unsigned)(*(*at)++ - '0');
        c = (char)value;
    } else if (**at == 'x' && isxdigit((unsigned char)(*at)[1])) {
        char digits[3] = {(*at)[1], isxdigit((unsigned char)(*at)[2]) ? (*at)[2] : '\0', '\0'};

        c = (char)strtoul(digits, NULL, 16);
        *at += 1 + strlen(digits);
    }
    print_bytes(shell, &c, 1);
}

/* Returns whether printing may go on. */
static bool print_escaped(struct shell *shell, const char *text)
{
    bool stop = false;

    while (*text != '\0' && !stop) {
        if (*text == '\\') {
            text++;
            print_escape(shell, &text, &stop);
        } else {
            print_bytes(shell, text++, 1);
        }
    }
    return !stop;
}

static int run_echo(struct shell *shell, int argc, char **argv)
{
    bool newline = true, escapes = false;
    int i = 1;

    for (; i < argc && argv[i][0] == '-' && argv[i][1] != '\0' &&
           strspn(argv[i] + 1, "neE") == strlen(argv[i] + 1); i++) {
        newline = newline && strchr(argv[i], 'n') == NULL;
        escapes = escapes || strchr(argv[i], 'e') != NULL;
    }
    for (int first = i; i < argc; i++) {
        if (i != first)
            print(shell, " ");
        if (!escapes)
            print_bytes(shell, argv[i], strlen(argv[i]));
        else if (!print_escaped(shell, argv[i]))
            return 0;
    }
    if (newline)
        print(shell, "\n");
    return 0;
}

/* One conversion; its text is [start, *at), without the letter. */
static int print_conversion(struct shell *shell, const char *start, const char *end,
                            const char *argument)
{
    char format[40];
    int length = (int)(end - start), status = 0;
    int64_t number = 0;

    if (length > 20 || *end == '\0' || strchr("sbcdiuxXofgeE", *end) == NULL)
        shell_unknown(shell, shell_format(shell, "printf %.*s", length + 1, start));
    if (*end == 'b') {
        print_escaped(shell, argument != NULL ? argument : "");
        return 0;
    }
    if (*end == 's' || *end == 'c') {
        snprintf(format, sizeof(format), "%.*ss", length, start);
        if (argument == NULL)
            argument = "";
        print(shell, format, *end == 'c' ? shell_format(shell, "%.1s", argument) : argument);
        return 0;
    }
    if (argument == NULL)
        argument = "";
    if (strchr("fgeE", *end) != NULL) {
        char *rest;
        double real = strtod(argument, &rest);

        if (*rest != '\0' || rest == argument)
            shell_unknown(shell, "printf of no number");
        snprintf(format, sizeof(format), "%.*s%c", length, start, *end);
        print(shell, format, real);
        return 0;
    }
    if (argument[0] == '"' || argument[0] == '\'') {
        number = (unsigned char)argument[1];
    } else if (!number_parse(argument, &number)) {
        complain(shell, "invalid number '%s'", argument);
        number = 0;
        status = 1;
    }
    snprintf(format, sizeof(format), "%.*sll%c", length, start, *end);
    print(shell, format, (long long)number);
    return status;
}

/* The format once; returns how many arguments it took. */
static int print_format(struct shell *shell, const char *at, int argc, char **argv, int *status,
                        bool *stop)
{
    int used = 0;

    while (*at != '\0' && !*stop) {
        const char *start = at;

        if (*at == '\\') {
            at++;
            print_escape(shell, &at, stop);
        } else if (*at == '%' && at[1] == '%') {
            print(shell, "%%");
            at += 2;
        } else if (*at == '%') {
            at++;
            at += strspn(at, "-+ #0");
            at += strspn(at, "0123456789.");
            *status |= print_conversion(shell, start, at, used < argc ? argv[used] : NULL);
            used += used < argc;
            at++;
        } else {
            print_bytes(shell, at++, 1);
        }
    }
    return used;
}

static int run_printf(struct shell *shell, int argc, char **argv)
{
    int at = 1, status = 0;
    bool stop = false;

    if (at < argc && strcmp(argv[at], "--") == 0)
        at++;
    if (at == argc) {
        complain(shell, "usage: printf FORMAT [ARGUMENT...]");
        return 2;
    }
    for (int next = at + 1;;) {
        int used = print_format(shell, argv[at], argc - next, argv + next, &status, &stop);

        next += used;
        if (stop || used == 0 || next >= argc)
            return status;
    }
}

/* --- test ------------------------------------------------------------------------------------- */

struct test {
    struct shell *shell;
    char **argv;
    int at, end;
    bool failed;
    bool condition; /* [[ */
};

static bool test_or(struct test *test);

static bool test_fail(struct test *test, const char *text, const char *what)
{
    if (!test->failed)
        complain(test->shell, "%s: %s", text, what);
    test->failed = true;
    return false;
}

static int64_t test_number(struct test *test, const char *text)
{
    const char *digits = text + (*text == SHELL_FOREIGN_MARK);
    int64_t number;
    char *end;

    number = strtoll(digits, &end, 10); /* 010 is ten here */
    if (end == digits || *end != '\0')
        test_fail(test, text, "bad number");
    return number;
}

static bool is_binary(const char *text)
{
    static const char *const names[] = {"=", "==", "!=", "<", ">", "=~", "-eq", "-ne", "-lt", "-le",
                                        "-gt", "-ge"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i]) == 0)
            return true;
    return false;
}

static bool test_binary(struct test *test, const char *a, const char *operation, const char *b)
{
    int64_t x, y;

    if (strcmp(operation, "=~") == 0)
        return regexec(regex_get(test->shell, b, REG_EXTENDED), a, 0, NULL, 0) == 0;
    if (test->condition && strchr("=!", operation[0]) != NULL)
        return (fnmatch(b, a, 0) == 0) == (operation[0] == '=');
    if (operation[0] != '-') {
        int order = strcmp(a, b);

        return operation[0] == '=' ? order == 0 : operation[0] == '!' ? order != 0
             : operation[0] == '<' ? order < 0 : order > 0;
    }
    x = test_number(test, a);
    y = test_number(test, b);
    if (strcmp(operation, "-eq") == 0)
        return x == y;
    if (strcmp(operation, "-ne") == 0)
        return x != y;
    if (strcmp(operation, "-lt") == 0)
        return x < y;
    if (strcmp(operation, "-le") == 0)
        return x <= y;
    return strcmp(operation, "-gt") == 0 ? x > y : x >= y;
}

/* Files of sysfs say that they have a page, those of proc nothing. */
static bool has_size(struct shell *shell, const char *name)
{
    const char *path = path_of(shell, name);
    struct text text = {.length = 0};
    int kind = host_kind(shell, name);

    if (kind != SHELL_FILE || strncmp(path, "/tmp/", 5) != 0)
        return kind >= 0 && strncmp(path, "/proc/", 6) != 0;
    return input_all(shell, name, &text) == 0 && text.length != 0;
}

static bool test_unary(struct test *test, char operation, const char *text)
{
    int kind;

    char link[1];

    if (operation == 'n' || operation == 'z')
        return (*text != '\0') == (operation == 'n');
    if (operation == 't')
        return false; /* nobody has a terminal */
    if (operation == 's')
        return has_size(test->shell, text);
    if (operation == 'L' || operation == 'h')
        return test->shell->host->link != NULL &&
               test->shell->host->link(test->shell->host->context, path_of(test->shell, text),
                                       link, sizeof(link)) >= 0;
    kind = host_kind(test->shell, text);
    if (kind == SHELL_ELSEWHERE && (operation == 'f' || operation == 'd'))
        test->shell->foreign = true;
    if (operation == 'f')
        return kind == SHELL_FILE || kind == SHELL_ELSEWHERE;
    if (operation == 'd')
        return kind == SHELL_DIRECTORY || kind == SHELL_ELSEWHERE;
    return kind >= 0;
}

static bool test_primary(struct test *test)
{
    char **argv = test->argv + test->at;
    int left = test->end - test->at;
    bool value;

    if (left == 0)
        return false;
    if (left >= 3 && is_binary(argv[1])) {
        test->at += 3;
        return test_binary(test, argv[0], argv[1], argv[2]);
    }
    if (left >= 2 && strcmp(argv[0], "!") == 0) {
        test->at++;
        return !test_primary(test);
    }
    if (left >= 2 && argv[0][0] == '-' && argv[0][1] != '\0' && argv[0][2] == '\0' &&
        strchr("nzfderwxLhst", argv[0][1]) != NULL) {
        test->at += 2;
        return test_unary(test, argv[0][1], argv[1]);
    }
    if (left >= 3 && strcmp(argv[0], "(") == 0) {
        test->at++;
        value = test_or(test);
        if (test->at == test->end || strcmp(test->argv[test->at], ")") != 0)
            return test_fail(test, "closing paren", "expected");
        test->at++;
        return value;
    }
    test->at++;
    return argv[0][0] != '\0';
}

static bool test_takes(struct test *test, const char *word)
{
    if (test->at == test->end || strcmp(test->argv[test->at], word) != 0)
        return false;
    test->at++;
    return true;
}

static bool test_and(struct test *test)
{
    bool value = test_primary(test);

    while (test_takes(test, "-a") || (test->condition && test_takes(test, "&&")))
        value = test_primary(test) && value;
    return value;
}

static bool test_or(struct test *test)
{
    bool value = test_and(test);

    while (test_takes(test, "-o") || (test->condition && test_takes(test, "||")))
        value = test_and(test) || value;
    return value;
}

int run_test(struct shell *shell, int argc, char **argv)
{
    struct test test = {.shell = shell, .argv = argv, .at = 1, .end = argc};
    bool value;

    test.condition = strcmp(argv[0], "[[") == 0;
    if (argv[0][0] == '[' && strcmp(argv[--test.end], test.condition ? "]]" : "]") != 0) {
        complain(shell, test.condition ? "missing ]]" : "missing ]");
        return 2;
    }
    value = test_or(&test);
    if (test.at != test.end)
        test_fail(&test, argv[test.at], "unknown operand");
    return test.failed ? 2 : !value;
}

/* --- the shell itself ------------------------------------------------------------------------- */

static int run_true(struct shell *shell, int argc, char **argv)
{
    (void)shell;
    (void)argc;
    (void)argv;
    return 0;
}

static int run_false(struct shell *shell, int argc, char **argv)
{
    (void)shell;
    (void)argc;
    (void)argv;
    return 1;
}

static int run_cd(struct shell *shell, int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "/";
    int kind = host_kind(shell, name);

    if (kind != SHELL_DIRECTORY && kind != SHELL_ELSEWHERE) {
        complain(shell, "cd: line 0: can't cd to %s: %s", name,
                 strerror(kind < 0 ? -kind : ENOTDIR));
        return 2;
    }
    shell->own.directory = path_of(shell, name);
    return 0;
}

static int run_pwd(struct shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    print(shell, "%s\n", shell->own.directory);
    return 0;
}

/* Letters behind - or +. What -x would print is the shell's own. */
static void set_options(struct shell *shell, const char *letters, const char *name, bool on)
{
    for (; *letters != '\0'; letters++) {
        if (*letters == 'e')
            shell->own.exits_on_error = on;
        else if (*letters == 'u')
            shell->own.needs_set = on;
        else if (*letters == 'x' || *letters == 'v')
            shell->foreign = shell->foreign || on;
        else if (*letters == 'o' && name != NULL && strcmp(name, "pipefail") == 0)
            shell->own.pipe_fails = on;
        else
            shell_unknown(shell, "set");
    }
}

static int run_set(struct shell *shell, int argc, char **argv)
{
    int first = 1;

    if (argc == 1)
        shell_unknown(shell, "set");
    for (; first < argc && strchr("-+", argv[first][0]) != NULL && argv[first][0] != '\0';
         first++) {
        if (strcmp(argv[first], "--") == 0)
            break;
        set_options(shell, argv[first] + 1, first + 1 < argc ? argv[first + 1] : NULL,
                    argv[first][0] == '-');
        first += strchr(argv[first], 'o') != NULL;
    }
    if (first >= argc)
        return 0;
    first += strcmp(argv[first], "--") == 0;
    shell->own.arguments = argv + first;
    shell->own.nr_arguments = (size_t)(argc - first);
    return 0;
}

static int run_shift(struct shell *shell, int argc, char **argv)
{
    int64_t count = 1;

    if (argc > 1 && !number_parse(argv[1], &count))
        shell_abort(shell, "shift: Illegal number: %s", argv[1]);
    if (count < 0 || (uint64_t)count > shell->own.nr_arguments)
        return 1;
    shell->own.arguments += count;
    shell->own.nr_arguments -= (size_t)count;
    return 0;
}

static int run_export(struct shell *shell, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        const char *name = shell_copy(shell, argv[i], strcspn(argv[i], "="));

        if (value != NULL)
            variable_set(shell, name, value + 1);
        variable_export(shell, name, true);
    }
    return 0;
}

static int run_unset(struct shell *shell, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        variable_unset(shell, argv[i]);
    return 0;
}

/* A line of fd 0, byte by byte: what follows is the next one's. */
static bool read_line(struct shell *shell, struct text *text)
{
    struct file *file = shell->own.files[0];
    char c;

    text_add(shell, text, "", 0);
    while (file != NULL && file_read(shell, file, &c, 1) == 1) {
        if (c == '\n')
            return true;
        text_add(shell, text, &c, 1);
    }
    return false;
}

static int run_read(struct shell *shell, int argc, char **argv)
{
    struct options options;
    struct text text = {.length = 0};
    int nr_names = tool_options(shell, argc, argv, &options);
    bool complete = read_line(shell, &text);
    const char *separators = shell_separators(shell);
    char blanks[4] = "", *at = text.bytes;

    for (size_t i = 0, used = 0; i < 3; i++)
        if (strchr(separators, " \t\n"[i]) != NULL)
            blanks[used++] = " \t\n"[i];
    for (int i = 0; i < nr_names; i++) {
        size_t length;

        at += strspn(at, blanks);
        length = i + 1 < nr_names ? strcspn(at, separators) : strlen(at);
        if (i + 1 == nr_names)
            while (length != 0 && strchr(blanks, at[length - 1]) != NULL)
                length--;
        variable_set(shell, argv[i], shell_copy(shell, at, length));
        at += length;
        at += strspn(at, blanks);
        at += *at != '\0' && i + 1 < nr_names && strchr(separators, *at) != NULL;
    }
    return !complete;
}

static int run_exit(struct shell *shell, int argc, char **argv)
{
    int64_t status = shell->status;

    if (argc > 1 && !number_parse(argv[1], &status))
        shell_abort(shell, "exit: Illegal number: %s", argv[1]);
    shell->flow = FLOW_EXIT;
    return (int)(status & 255);
}

static int leave_loop(struct shell *shell, int argc, char **argv, enum flow flow)
{
    int64_t levels = 1;

    if (argc > 1 && (!number_parse(argv[1], &levels) || levels < 1))
        shell_abort(shell, "%s: Illegal number: %s", argv[0], argv[1]);
    if (shell->loops == 0)
        return 0;
    shell->flow = flow;
    shell->flow_levels = levels < (int64_t)shell->loops ? (unsigned)levels : shell->loops;
    return 0;
}

/* Without a command its redirections are all of it. */
static int run_exec(struct shell *shell, int argc, char **argv)
{
    int status;

    if (argc == 1)
        return 0;
    status = run_program(shell, argc - 1, argv + 1);
    shell->flow = FLOW_EXIT;
    return status;
}

static int run_break(struct shell *shell, int argc, char **argv)
{
    return leave_loop(shell, argc, argv, FLOW_BREAK);
}

static int run_continue(struct shell *shell, int argc, char **argv)
{
    return leave_loop(shell, argc, argv, FLOW_CONTINUE);
}

const struct tool shell_builtins[] = {
    {":", NULL, TOOL_BUILTIN, run_true},
    {"true", NULL, TOOL_BUILTIN, run_true},
    {"false", NULL, TOOL_BUILTIN, run_false},
    {"echo", NULL, TOOL_BUILTIN, run_echo},
    {"printf", NULL, TOOL_BUILTIN, run_printf},
    {"test", NULL, TOOL_BUILTIN, run_test},
    {"[", NULL, TOOL_BUILTIN, run_test},
    {"[[", NULL, TOOL_BUILTIN, run_test},
    {"cd", NULL, TOOL_BUILTIN, run_cd},
    {"pwd", "", TOOL_BUILTIN, run_pwd},
    {"set", NULL, TOOL_BUILTIN, run_set},
    {"shift", NULL, TOOL_BUILTIN, run_shift},
    {"export", "", TOOL_BUILTIN, run_export},
    {"unset", "", TOOL_BUILTIN, run_unset},
    {"read", "r", TOOL_BUILTIN, run_read},
    {"exit", NULL, TOOL_BUILTIN, run_exit},
    {"break", NULL, TOOL_BUILTIN, run_break},
    {"continue", NULL, TOOL_BUILTIN, run_continue},
    {"exec", NULL, TOOL_BUILTIN, run_exec},
    {"wait", NULL, TOOL_BUILTIN, run_wait},
    {"kill", NULL, TOOL_BUILTIN, run_kill},
    {NULL, NULL, 0, NULL},
};
