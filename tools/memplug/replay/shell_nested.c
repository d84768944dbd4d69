/* SPDX-License-Identifier: MIT */
/* Shells in the shell, and commands that run others. */
#include "shell_private.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S 1e9

/* --- sh, bash, scripts ------------------------------------------------------------------------ */

struct script {
    const char *text, *name; /* name: $0 */
    char **arguments;
    size_t nr_arguments;
    bool bash, exits_on_error, needs_set;
};

/* What is not exported stays behind. */
static void keep_exported(struct shell *shell)
{
    struct environment *own = &shell->own;
    size_t kept = 0;

    for (size_t i = 0; i < own->nr_variables; i++)
        if (own->variables[i].exported)
            own->variables[kept++] = own->variables[i];
    own->nr_variables = kept;
}

static int run_script_body(struct shell *shell, void *context)
{
    const struct script *script = context;
    struct environment *own = &shell->own;

    keep_exported(shell);
    own->functions = NULL;
    own->locals = NULL;
    own->function_name = NULL;
    own->option_at = 0;
    own->pipe_fails = false;
    own->name = script->name;
    own->arguments = script->arguments;
    own->nr_arguments = script->nr_arguments;
    own->bash = script->bash;
    own->exits_on_error = script->exits_on_error;
    own->needs_set = script->needs_set;
    shell->tested = 0;
    shell->name = "sh";
    return run_text(shell, script->text);
}

/* 0, or the exit status of a shell that could not read its script. */
static int read_script(struct shell *shell, const char *name, bool is_program, struct text *text)
{
    int error;
    struct file *file = file_open(shell, name, SHELL_READ, &error);
    bool is_here = file != NULL && file->kind == FILE_HOST;

    text_add(shell, text, "", 0);
    file_put(shell, file);
    if (file != NULL && !is_here)
        shell_unknown(shell, shell_format(shell, "%s, which is not here,", name));
    if (error == 0)
        error = input_all(shell, name, text);
    if (error == 0)
        return 0;
    shell->name = "sh";
    if (is_program)
        complain(shell, "%s: %s", name, error == -ENOENT ? "not found" : strerror(-error));
    else
        complain(shell, "can't open '%s': %s", name, strerror(-error));
    return is_program ? error == -ENOENT ? 127 : 126 : 2;
}

/* Who is to run a script that was called by its path. */
static void read_first_line(struct shell *shell, struct script *script)
{
    const char *text = script->text, *name;
    size_t length;

    if (strncmp(text, "#!", 2) != 0)
        return;
    length = strcspn(text, " \t\n");
    name = text + length;
    while (name > text && name[-1] != '/' && name[-1] != '!')
        name--;
    length -= (size_t)(name - text);
    script->bash = length == 4 && strncmp(name, "bash", 4) == 0;
    if (!script->bash && !(length == 2 && strncmp(name, "sh", 2) == 0) &&
        !(length == 3 && strncmp(name, "ash", 3) == 0))
        shell_unknown(shell, shell_copy(shell, text, strcspn(text, "\n")));
}

/* Options of a shell; where its operands begin. *command: -c. */
static int shell_options(struct shell *shell, int argc, char **argv, struct script *script,
                         bool *command)
{
    int at = 1;

    for (; at < argc && argv[at][0] == '-' && argv[at][1] != '\0'; at++) {
        if (strcmp(argv[at], "--") == 0)
            return at + 1;
        for (const char *letter = argv[at] + 1; *letter != '\0'; letter++) {
            *command = *command || *letter == 'c';
            script->exits_on_error = script->exits_on_error || *letter == 'e';
            script->needs_set = script->needs_set || *letter == 'u';
            shell->foreign = shell->foreign || *letter == 'x';
            if (strchr("ceux", *letter) == NULL)
                shell_unknown(shell, shell_format(shell, "sh %s", argv[at]));
        }
    }
    return at;
}

/* argv[0] may be a path of a shell; "sh" and then a path that is not one of a tool is that script,
 * called as a program: run_program() does that. */
int run_shell(struct shell *shell, int argc, char **argv)
{
    struct script script = {.bash = strstr(argv[0], "bash") != NULL};
    struct text text = {.length = 0};
    bool command = false;
    int at = shell_options(shell, argc, argv, &script, &command), status = 0;
    bool is_program = argc > 1 && argv[0][0] == '\0';

    script.name = at < argc ? argv[at] : argv[0];
    if (command) {
        if (at == argc)
            shell_unknown(shell, "sh -c");
        text_string(shell, &text, argv[at]);
        script.name = at + 1 < argc ? argv[at + 1] : "sh";
        at++;
    } else if (at < argc) {
        status = read_script(shell, argv[at], is_program, &text);
    } else if (input_all(shell, "-", &text) != 0) {
        status = 2;
    }
    if (status != 0)
        return status;
    text_add(shell, &text, "", 0);
    script.text = text.bytes;
    if (is_program)
        read_first_line(shell, &script);
    script.arguments = argv + (at < argc ? at + 1 : at);
    script.nr_arguments = (size_t)(argc - (at < argc ? at + 1 : at));
    return run_apart(shell, &(struct apart){.body = run_script_body, .context = &script});
}

/* --- commands that run others ----------------------------------------------------------------- */

struct program {
    int argc;
    char **argv;
};

static int run_program_body(struct shell *shell, void *context)
{
    const struct program *program = context;

    return run_program(shell, program->argc, program->argv);
}

static int signal_number(struct shell *shell, const char *name)
{
    if (strncmp(name, "SIG", 3) == 0)
        name += 3;
    if (strcmp(name, "KILL") == 0 || strcmp(name, "9") == 0)
        return SIGKILL;
    if (strcmp(name, "TERM") == 0 || strcmp(name, "15") == 0)
        return SIGTERM;
    shell_unknown(shell, shell_format(shell, "timeout -s %s", name));
}

/* Of a time limit only what the machine does counts: commands take no time. */
static int run_timeout(struct shell *shell, int argc, char **argv)
{
    int at = 1, number = SIGTERM, status;
    struct program program;
    struct apart apart;
    double seconds;
    char *end;

    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (strcmp(argv[at], "-s") == 0)
            number = signal_number(shell, argv[at + 1]);
        else if (strcmp(argv[at], "-k") != 0)
            shell_unknown(shell, shell_format(shell, "timeout %s", argv[at]));
    }
    seconds = at < argc ? strtod(argv[at], &end) : -1;
    if (at + 1 >= argc || !(seconds >= 0 && seconds < 1e9) || (*end != '\0' && *end != 's'))
        shell_unknown(shell, "timeout");
    if (shell->host->clock == NULL || shell->host->deadline == NULL)
        shell_unknown(shell, "timeout");
    program = (struct program){argc - at - 1, argv + at + 1};
    apart = (struct apart){.body = run_program_body, .context = &program};
    if (seconds > 0)
        apart.deadline_ns = shell->host->clock(shell->host->context) +
                            (uint64_t)(seconds * NS_PER_S);
    status = run_apart(shell, &apart);
    if (!apart.expired)
        return status;
    file_write(shell, shell->own.files[2], number == SIGTERM ? "Terminated\n" : "Killed\n",
               number == SIGTERM ? 11 : 7);
    return 128 + number;
}

static bool is_setting(const char *text)
{
    size_t length = 0;

    while (text[length] == '_' || isalnum((unsigned char)text[length]))
        length++;
    return length != 0 && text[length] == '=';
}

static int run_env_body(struct shell *shell, void *context)
{
    struct program *program = context;

    keep_exported(shell);
    for (; program->argc != 0 && is_setting(*program->argv); program->argc--, program->argv++) {
        const char *value = strchr(*program->argv, '=') + 1;
        const char *name = shell_copy(shell, *program->argv,
                                      (size_t)(value - 1 - *program->argv));

        variable_set(shell, name, value);
        variable_export(shell, name, true);
    }
    if (program->argc == 0) {
        shell->foreign = true; /* all that the guest's shell was given */
        return 0;
    }
    return run_program(shell, program->argc, program->argv);
}

static int run_env(struct shell *shell, int argc, char **argv)
{
    struct program program = {argc - 1, argv + 1};

    if (argc > 1 && argv[1][0] == '-')
        shell_unknown(shell, shell_format(shell, "env %s", argv[1]));
    return run_apart(shell, &(struct apart){.body = run_env_body, .context = &program});
}

static int run_time(struct shell *shell, int argc, char **argv)
{
    int at = 1, status = 0;

    at += argc > 1 && strcmp(argv[1], "-p") == 0;
    if (at < argc)
        status = run_program(shell, argc - at, argv + at);
    if (shell->own.files[2] != NULL && shell->own.files[2]->kind != FILE_NULL)
        shell->foreign = true;
    return status;
}

/* busybox, command, nice, nohup, setsid: nothing of what they change can be seen here. */
static int run_plain(struct shell *shell, int argc, char **argv)
{
    int at = 1;

    if (strcmp(argv[0], "nice") == 0 && argc > 2 && strcmp(argv[1], "-n") == 0)
        at = 3;
    if (at >= argc || (argv[at][0] == '-' && strcmp(argv[at], "-v") != 0))
        shell_unknown(shell, argv[0]);
    if (strcmp(argv[at], "-v") != 0)
        return run_program(shell, argc - at, argv + at);
    shell->foreign = true; /* where it lies */
    for (at++; at < argc; at++)
        if (function_find(shell->own.functions, argv[at]) == NULL && tool_find(argv[at]) == NULL)
            shell_unknown(shell, argv[at]);
    return 0;
}

static int run_which(struct shell *shell, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (function_find(shell->own.functions, argv[i]) == NULL && tool_find(argv[i]) == NULL)
            shell_unknown(shell, argv[i]);
    shell->foreign = shell->own.files[1] == NULL || shell->own.files[1]->kind != FILE_NULL;
    return 0;
}

/* --- xargs ------------------------------------------------------------------------------------ */

struct xargs {
    struct list words; /* of the input */
    const char *mark;  /* -I */
    size_t at_once;
    bool each_line, none_if_empty;
};

static void take_words(struct shell *shell, struct xargs *xargs, const struct text *text)
{
    const char *blanks = xargs->each_line ? "\n" : " \t\n";

    for (const char *at = text->bytes; *(at += strspn(at, blanks)) != '\0';) {
        size_t length = strcspn(at, blanks);
        const char *word = at + (xargs->each_line ? strspn(at, " \t") : 0);

        if (memchr(at, '\'', length) != NULL || memchr(at, '"', length) != NULL ||
            memchr(at, '\\', length) != NULL)
            shell_unknown(shell, "xargs of quotes");
        list_add(shell, &xargs->words, shell_copy(shell, word, length - (size_t)(word - at)));
        at += length;
    }
}

static char *put_word(struct shell *shell, const char *argument, const char *mark,
                      const char *word)
{
    struct text text = {.length = 0};

    text_add(shell, &text, "", 0);
    for (const char *found; (found = strstr(argument, mark)) != NULL;
         argument = found + strlen(mark)) {
        text_add(shell, &text, argument, (size_t)(found - argument));
        text_string(shell, &text, word);
    }
    text_string(shell, &text, argument);
    return text.bytes;
}

/* One call; returns where the next one's words begin. */
static size_t xargs_call(struct shell *shell, const struct xargs *xargs, size_t at,
                         const struct program *program, int *status)
{
    struct list line = {.count = 0};
    size_t end = xargs->at_once != 0 && at + xargs->at_once < xargs->words.count
                     ? at + xargs->at_once
                     : xargs->words.count;
    int called;

    for (int i = 0; i < program->argc; i++)
        list_add(shell, &line, xargs->mark != NULL
                                   ? put_word(shell, program->argv[i], xargs->mark,
                                              xargs->words.items[at])
                                   : program->argv[i]);
    for (size_t i = at; i < end && xargs->mark == NULL; i++)
        list_add(shell, &line, xargs->words.items[i]);
    called = run_apart(shell, &(struct apart){.body = run_program_body,
                                              .context = &(struct program){(int)line.count,
                                                                           line.items}});
    if (called != 0)
        *status = called < 126 ? 123 : called;
    return end;
}

static int run_xargs(struct shell *shell, int argc, char **argv)
{
    static char echo[] = "echo";
    struct program program = {1, (char *[]){echo, NULL}};
    struct xargs xargs = {.at_once = 0};
    struct text text = {.length = 0};
    int at = 1, status = 0;
    int64_t number = 0;

    for (; at < argc && argv[at][0] == '-'; at++) {
        const char *value = argv[at][1] != '\0' && argv[at][2] != '\0' ? argv[at] + 2 : NULL;

        xargs.none_if_empty = xargs.none_if_empty || strcmp(argv[at], "-r") == 0;
        if (strcmp(argv[at], "-r") == 0)
            continue;
        if (strchr("nIL", argv[at][1]) == NULL || (value == NULL && ++at == argc))
            shell_unknown(shell, "xargs");
        value = value != NULL ? value : argv[at];
        xargs.mark = argv[at - (value == argv[at])][1] == 'I' ? value : xargs.mark;
        if (xargs.mark != value && (!number_parse(value, &number) || number < 1))
            shell_unknown(shell, "xargs");
        xargs.at_once = xargs.mark == value ? 1 : (size_t)number;
    }
    xargs.each_line = xargs.mark != NULL;
    if (at < argc)
        program = (struct program){argc - at, argv + at};
    text_add(shell, &text, "", 0);
    if (input_all(shell, "-", &text) != 0)
        return 1;
    take_words(shell, &xargs, &text);
    if (xargs.words.count == 0 && !xargs.none_if_empty && xargs.mark == NULL)
        xargs_call(shell, &xargs, 0, &program, &status);
    for (size_t next = 0; next < xargs.words.count;)
        next = xargs_call(shell, &xargs, next, &program, &status);
    return status;
}

/* --- before they run -------------------------------------------------------------------------- */

/* Options whose value is the next word. */
static const struct wrapper {
    const char *name, *valued;
    unsigned nr_before; /* operands before the command */
} wrappers[] = {
    {"timeout", "sk", 1}, {"time", "", 0},   {"env", "", 0},   {"xargs", "nIL", 0},
    {"nice", "n", 0},     {"nohup", "", 0},  {"setsid", "", 0}, {"busybox", "", 0},
    {"command", "", 0},   {"exec", "", 0},
};

const struct word *nested_command(struct shell *shell, const struct word *words)
{
    const char *text = word_constant(shell, words);
    const struct wrapper *wrapper = NULL;
    unsigned nr_before;

    for (size_t i = 0; text != NULL && i < sizeof(wrappers) / sizeof(wrappers[0]); i++)
        if (strcmp(wrappers[i].name, text) == 0)
            wrapper = &wrappers[i];
    if (wrapper == NULL)
        return NULL;
    nr_before = wrapper->nr_before;
    for (words = words->next; words != NULL; words = words->next) {
        text = word_constant(shell, words);
        if (text != NULL && strcmp(text, "-v") == 0)
            return NULL;
        if (text != NULL && text[0] == '-' && text[1] != '\0') {
            if (text[2] == '\0' && strchr(wrapper->valued, text[1]) != NULL && words->next != NULL)
                words = words->next;
        } else if (!(text != NULL && strcmp(wrapper->name, "env") == 0 && is_setting(text)) &&
                   nr_before-- == 0) {
            return words;
        }
    }
    return NULL;
}

static bool is_shell(const char *name)
{
    const char *slash = strrchr(name, '/');

    name = slash != NULL ? slash + 1 : name;
    return strcmp(name, "sh") == 0 || strcmp(name, "ash") == 0 || strcmp(name, "bash") == 0;
}

const char *nested_text(struct shell *shell, const struct word *words, bool *is_dynamic)
{
    const char *name = word_constant(shell, words), *text;
    struct text joined = {.length = 0};

    *is_dynamic = false;
    if (name == NULL)
        return NULL;
    *is_dynamic = is_shell(name) || strcmp(name, ".") == 0 || strcmp(name, "source") == 0 ||
                  strcmp(name, "eval") == 0 || strcmp(name, "trap") == 0;
    if (is_shell(name)) {
        for (words = words->next; words != NULL; words = words->next) {
            text = word_constant(shell, words);
            if (text == NULL || text[0] != '-')
                return NULL;
            if (strchr(text, 'c') != NULL && words->next != NULL) {
                text = word_constant(shell, words->next);
                *is_dynamic = text == NULL;
                return text;
            }
        }
        return NULL;
    }
    if (strcmp(name, "eval") != 0 && strcmp(name, "trap") != 0)
        return NULL;
    text_add(shell, &joined, "", 0);
    for (words = words->next; words != NULL; words = words->next) {
        text = word_constant(shell, words);
        if (text == NULL)
            return NULL;
        text_string(shell, &joined, strcmp(text, "-") != 0 ? text : "");
        text_string(shell, &joined, " ");
        if (strcmp(name, "trap") == 0)
            break;
    }
    *is_dynamic = false;
    return joined.bytes;
}

const struct tool shell_nested_tools[] = {
    {"sh", NULL, 0, run_shell},
    {"ash", NULL, 0, run_shell},
    {"bash", NULL, 0, run_shell},
    {"timeout", NULL, 0, run_timeout},
    {"time", NULL, 0, run_time},
    {"env", NULL, 0, run_env},
    {"xargs", NULL, 0, run_xargs},
    {"busybox", NULL, 0, run_plain},
    {"command", NULL, TOOL_BUILTIN, run_plain},
    {"nice", NULL, 0, run_plain},
    {"nohup", NULL, 0, run_plain},
    {"setsid", NULL, 0, run_plain},
    {"which", NULL, 0, run_which},
    {"type", NULL, TOOL_BUILTIN, run_which},
    {NULL, NULL, 0, NULL},
};
