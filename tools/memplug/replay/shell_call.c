/* SPDX-License-Identifier: MIT */
/* Functions and what belongs to them; environments of their own, and the ways out of them. */
#include "shell_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- environments of their own ---------------------------------------------------------------- */

static uint64_t clock_now(const struct shell *shell)
{
    return shell->host->clock != NULL ? shell->host->clock(shell->host->context) : 0;
}

/* The machine's writes end with the first deadline of all. */
void deadline_set(struct shell *shell)
{
    uint64_t first_ns = 0;

    for (const struct escape *escape = shell->escape; escape != NULL; escape = escape->outer)
        if (escape->deadline_ns != 0 && (first_ns == 0 || escape->deadline_ns < first_ns))
            first_ns = escape->deadline_ns;
    if (shell->host->deadline != NULL)
        shell->host->deadline(shell->host->context, first_ns);
}

void deadline_check(struct shell *shell)
{
    struct escape *expired = NULL;

    for (struct escape *escape = shell->escape; escape != NULL; escape = escape->outer)
        if (escape->deadline_ns != 0 && escape->deadline_ns <= clock_now(shell))
            expired = escape;
    if (expired == NULL)
        return;
    shell->out.length = 0;
    longjmp(expired->buffer, 2);
}

void shell_sleep(struct shell *shell, uint64_t ns)
{
    uint64_t now_ns = clock_now(shell);

    for (const struct escape *escape = shell->escape; escape != NULL; escape = escape->outer)
        if (escape->deadline_ns != 0 && now_ns + ns > escape->deadline_ns)
            ns = escape->deadline_ns > now_ns ? escape->deadline_ns - now_ns : 0;
    if (!job_sleep(shell, ns)) {
        uint64_t end_ns = now_ns + ns;

        jobs_run(shell, end_ns);
        now_ns = shell->host->clock != NULL ? clock_now(shell) : now_ns;
        if (shell->host->sleep != NULL && end_ns > now_ns)
            shell->host->sleep(shell->host->context, end_ns - now_ns);
    }
    deadline_check(shell);
}

static void run_exit_trap(struct shell *shell)
{
    const char *trap = shell->own.exit_trap;

    if (trap == NULL)
        return;
    shell->own.exit_trap = NULL;
    shell->flow = FLOW_ON;
    run_text(shell, trap);
}

static void redirect_apart(struct shell *shell, const struct apart *apart)
{
    struct file *given[] = {apart->in, apart->out};

    for (int fd = 0; fd < 2; fd++)
        if (given[fd] != NULL) {
            file_put(shell, shell->own.files[fd]);
            shell->own.files[fd] = given[fd];
        }
}

int run_apart(struct shell *shell, struct apart *apart)
{
    const unsigned loops = shell->loops, depth = shell->depth, tested = shell->tested;
    struct escape escape = {.outer = shell->escape, .deadline_ns = apart->deadline_ns};
    struct environment saved;
    int how;

    environment_enter(shell, &saved);
    redirect_apart(shell, apart);
    shell->loops = 0;
    shell->escape = &escape;
    if (apart->deadline_ns != 0)
        deadline_set(shell);
    how = setjmp(escape.buffer);
    if (how == 0) {
        shell->status = apart->body(shell, apart->context);
        how = shell->status;
        run_exit_trap(shell);
        shell->status = how;
    } else {
        apart->expired = how == 2;
    }
    shell->escape = escape.outer;
    if (apart->deadline_ns != 0)
        deadline_set(shell);
    environment_leave(shell, &saved);
    shell->loops = loops;
    shell->depth = depth;
    shell->tested = tested;
    shell->flow = FLOW_ON; /* exit and break end at its end */
    return shell->status;
}

/* --- functions -------------------------------------------------------------------------------- */

const struct function *function_find(const struct function *functions, const char *name)
{
    while (functions != NULL && strcmp(functions->name, name) != 0)
        functions = functions->next;
    return functions;
}

static void give_back(struct shell *shell, const struct local *until)
{
    struct environment *own = &shell->own;

    for (; own->locals != until; own->locals = own->locals->next) {
        const struct local *local = own->locals;

        if (local->value == NULL) {
            variable_unset(shell, local->name);
            continue;
        }
        variable_set(shell, local->name, local->value);
        variable_export(shell, local->name, local->exported);
    }
}

int function_call(struct shell *shell, const struct function *function, int argc, char **argv)
{
    struct environment *own = &shell->own;
    char **arguments = own->arguments;
    size_t nr_arguments = own->nr_arguments;
    const char *name = own->function_name;
    const struct local *locals = own->locals;
    unsigned loops = shell->loops;
    int status;

    own->arguments = argv + 1;
    own->nr_arguments = (size_t)argc - 1;
    own->function_name = function->name;
    shell->loops = 0;
    status = run_node(shell, function->body);
    if (shell->flow == FLOW_RETURN)
        shell->flow = FLOW_ON;
    give_back(shell, locals);
    own->arguments = arguments;
    own->nr_arguments = nr_arguments;
    own->function_name = name;
    shell->loops = loops;
    return status;
}

static int run_local(struct shell *shell, int argc, char **argv)
{
    if (shell->own.function_name == NULL)
        shell_abort(shell, "local: not in a function");
    for (int i = 1; i < argc; i++) {
        struct local *local = shell_alloc(shell, sizeof(*local));
        const char *value = strchr(argv[i], '=');

        local->name = shell_copy(shell, argv[i], strcspn(argv[i], "="));
        local->value = variable_get(shell, local->name);
        local->exported = variable_exported(shell, local->name);
        local->next = shell->own.locals;
        shell->own.locals = local;
        if (value != NULL)
            variable_set(shell, local->name, value + 1);
        else
            variable_unset(shell, local->name);
    }
    return 0;
}

static int run_return(struct shell *shell, int argc, char **argv)
{
    int64_t status = shell->status;

    if (argc > 1 && !number_parse(argv[1], &status))
        shell_abort(shell, "return: Illegal number: %s", argv[1]);
    shell->flow = FLOW_RETURN;
    return (int)(status & 255);
}

/* --- texts that are programs ------------------------------------------------------------------ */

int run_text(struct shell *shell, const char *text)
{
    struct node *node = parse_line(shell, text);

    check_line(shell, node);
    return run_node(shell, node);
}

static int run_eval(struct shell *shell, int argc, char **argv)
{
    struct text text = {.length = 0};

    text_add(shell, &text, "", 0);
    for (int i = 1; i < argc; i++) {
        text_string(shell, &text, argv[i]);
        text_string(shell, &text, " ");
    }
    return run_text(shell, text.bytes);
}

static int run_dot(struct shell *shell, int argc, char **argv)
{
    struct text text = {.length = 0};
    int error, status;

    if (argc < 2)
        shell_unknown(shell, "source");
    text_add(shell, &text, "", 0);
    error = input_all(shell, argv[1], &text);
    if (error != 0)
        shell_abort(shell, ".: line 0: can't open '%s': %s", argv[1], strerror(-error));
    status = run_text(shell, text.bytes);
    if (shell->flow == FLOW_RETURN)
        shell->flow = FLOW_ON;
    return status;
}

/* Signals do not come here: EXIT is the only one that a trap can wait for. */
static int run_trap(struct shell *shell, int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "EXIT") == 0 || strcmp(argv[i], "0") == 0)
            shell->own.exit_trap = strcmp(argv[1], "-") == 0 || argv[1][0] == '\0'
                                       ? NULL
                                       : shell_copy(shell, argv[1], strlen(argv[1]));
    return 0;
}

static int run_let(struct shell *shell, int argc, char **argv)
{
    int64_t value = 0;

    if (argc == 1)
        shell_abort(shell, "let: expression expected");
    for (int i = 1; i < argc; i++)
        value = arithmetic(shell, argv[i]);
    return value == 0;
}

/* --- getopts ---------------------------------------------------------------------------------- */

static void set_number(struct shell *shell, const char *name, int64_t number)
{
    variable_set(shell, name, shell_format(shell, "%lld", (long long)number));
}

/* ash says this without its name. */
static void blame_option(struct shell *shell, const char *text)
{
    file_write(shell, shell->own.files[2], text, strlen(text));
}

/* The option at arguments[*index][*at]; *index and *at go on. */
static int take_option(struct shell *shell, const char *letters, const char *name, char **arguments,
                       size_t count, size_t *index, size_t *at)
{
    const char *argument = arguments[*index];
    char letter[2] = {argument[*at], '\0'};
    const char *found = letter[0] != ':' ? strchr(letters, letter[0]) : NULL;

    variable_unset(shell, "OPTARG");
    ++*at;
    if (found != NULL && found[1] == ':') {
        if (argument[*at] == '\0' && ++*index == count) {
            blame_option(shell, shell_format(shell, "No arg for -%s option\n", letter));
            variable_set(shell, name, "?");
            return 0;
        }
        variable_set(shell, "OPTARG", argument[*at] != '\0' ? argument + *at : arguments[*index]);
        *at = 0;
        ++*index;
    } else if (argument[*at] == '\0') {
        *at = 0;
        ++*index;
    }
    if (found == NULL)
        blame_option(shell, shell_format(shell, "Illegal option -%s\n", letter));
    variable_set(shell, name, found != NULL ? letter : "?");
    return 0;
}

static int run_getopts(struct shell *shell, int argc, char **argv)
{
    const char *text = variable_get(shell, "OPTIND");
    char **arguments = argc > 3 ? argv + 3 : shell->own.arguments;
    size_t count = argc > 3 ? (size_t)argc - 3 : shell->own.nr_arguments;
    size_t index = text != NULL ? (size_t)strtoul(text, NULL, 10) : 1;
    size_t at = shell->own.option_at;
    int status = 1;

    if (argc < 3 || index == 0)
        shell_unknown(shell, "getopts");
    if (--index > count)
        index = at = 0; /* other arguments than before */
    if (at == 0 && index < count && strcmp(arguments[index], "--") == 0)
        index++;
    else if (index < count && (at != 0 || (arguments[index][0] == '-' &&
                                           arguments[index][1] != '\0'))) {
        at += at == 0;
        status = take_option(shell, argv[1], argv[2], arguments, count, &index, &at);
    }
    if (status != 0)
        variable_set(shell, argv[2], "?");
    set_number(shell, "OPTIND", (int64_t)index + 1);
    shell->own.option_at = at;
    return status;
}

const struct tool shell_call_tools[] = {
    {"local", NULL, TOOL_BUILTIN, run_local},
    {"return", NULL, TOOL_BUILTIN, run_return},
    {"eval", NULL, TOOL_BUILTIN, run_eval},
    {".", NULL, TOOL_BUILTIN, run_dot},
    {"source", NULL, TOOL_BUILTIN, run_dot},
    {"trap", NULL, TOOL_BUILTIN, run_trap},
    {"let", NULL, TOOL_BUILTIN, run_let},
    {"getopts", NULL, TOOL_BUILTIN, run_getopts},
    {NULL, NULL, 0, NULL},
};
