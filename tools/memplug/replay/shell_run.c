/* SPDX-License-Identifier: MIT */
/* Walks the tree. */
#include "shell_private.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#define COMMANDS_MAX 200000u
#define DEPTH_MAX 300u

/* --- redirections ----------------------------------------------------------------------------- */

static void set_file(struct shell *shell, int fd, struct file *file)
{
    file_put(shell, shell->own.files[fd]);
    shell->own.files[fd] = file;
}

static int redirect_failed(struct shell *shell, const char *target, bool in, int error)
{
    const char *text = strerror(-error);

    if (error == -ENOENT || error == -ENOTDIR)
        text = in ? "no such file" : "nonexistent directory";
    shell->name = "sh";
    complain(shell, "can't %s %s: %s", in ? "open" : "create", target, text);
    return 1;
}

static int redirect_fd(struct shell *shell, int fd, const char *target)
{
    struct file *file;

    if (strcmp(target, "-") == 0) {
        set_file(shell, fd, NULL);
        return 0;
    }
    if (!isdigit((unsigned char)target[0]) || target[1] != '\0')
        shell_abort(shell, "syntax error: bad fd number");
    file = shell->own.files[target[0] - '0'];
    if (file == NULL) {
        shell->name = "sh";
        complain(shell, "%s: Bad file descriptor", target);
        return 1;
    }
    file->nr_references++;
    set_file(shell, fd, file);
    return 0;
}

static int redirect_one(struct shell *shell, const struct redirect *redirect)
{
    const char *target = expand_string(shell, redirect->target);
    bool in = redirect->kind == REDIRECT_IN;
    struct file *file;
    int error;

    if (redirect->kind == REDIRECT_HERE) {
        struct text *text = shell_alloc(shell, sizeof(*text));

        text_string(shell, text, target);
        set_file(shell, redirect->fd, file_text(shell, text, true));
        return 0;
    }
    if (redirect->kind == REDIRECT_DUP)
        return redirect_fd(shell, redirect->fd, target);
    if (redirect->kind == REDIRECT_READWRITE)
        file = file_open_both(shell, target, &error);
    else
        file = file_open(shell, target,
                         in ? SHELL_READ : redirect->kind == REDIRECT_APPEND ? SHELL_APPEND
                                                                             : SHELL_WRITE,
                         &error);
    if (file == NULL)
        return redirect_failed(shell, target, in, error);
    set_file(shell, redirect->kind == REDIRECT_BOTH ? 1 : redirect->fd, file);
    if (redirect->kind == REDIRECT_BOTH) {
        file->nr_references++;
        set_file(shell, 2, file);
    }
    return 0;
}

static int redirect_all(struct shell *shell, const struct redirect *redirect)
{
    int status = 0;

    for (; redirect != NULL && status == 0; redirect = redirect->next)
        status = redirect_one(shell, redirect);
    return status;
}

static void files_save(struct shell *shell, struct file **saved)
{
    memcpy(saved, shell->own.files, sizeof(shell->own.files));
    for (unsigned fd = 0; fd < SHELL_FDS; fd++)
        if (saved[fd] != NULL)
            saved[fd]->nr_references++;
}

static void files_restore(struct shell *shell, struct file **saved)
{
    for (int fd = 0; fd < SHELL_FDS; fd++)
        set_file(shell, fd, saved[fd]);
}

/* --- simple commands -------------------------------------------------------------------------- */

/* Each assignment is "name=value" in one word. */
static void assign(struct shell *shell, const struct word *words)
{
    for (; words != NULL; words = words->next) {
        const char *text = expand_string(shell, words);
        const char *value = strchr(text, '=');

        variable_set(shell, shell_copy(shell, text, (size_t)(value - text)), value + 1);
    }
}

static int call(struct shell *shell, const struct tool *tool, int argc, char **argv)
{
    int status;

    shell->name = (tool->flags & TOOL_BUILTIN) != 0 ? "sh" : tool->name;
    shell->write_error = 0;
    if ((tool->flags & TOOL_FOREIGN) != 0 && shell->own.files[1] != NULL &&
        shell->own.files[1]->kind != FILE_NULL)
        shell->foreign = true;
    status = tool->run(shell, argc, argv);
    if (print_flush(shell) == 0)
        return status;
    if ((tool->flags & TOOL_BUILTIN) == 0 || strcmp(tool->name, "echo") == 0) {
        const char *text = strerror(-shell->write_error);

        shell->name = (tool->flags & TOOL_BUILTIN) != 0 ? "sh" : tool->name;
        complain(shell, "write error: %s", text);
    }
    shell->write_error = 0;
    return status != 0 ? status : 1;
}

int run_program(struct shell *shell, int argc, char **argv)
{
    const struct tool *tool = tool_find(argv[0]);
    struct list script = {.count = 0};

    deadline_check(shell);
    if (tool != NULL)
        return call(shell, tool, argc, argv);
    if (strchr(argv[0], '/') == NULL)
        shell_unknown(shell, argv[0]);
    list_add(shell, &script, (char[]){""});
    for (int i = 0; i < argc; i++)
        list_add(shell, &script, argv[i]);
    return run_shell(shell, argc + 1, script.items);
}

static int run_words(struct shell *shell, const struct node *node, struct list *fields)
{
    struct file *saved[SHELL_FDS];
    const struct function *function = function_find(shell->own.functions, fields->items[0]);
    bool keep = strcmp(fields->items[0], "exec") == 0 && fields->count == 1;
    int status;

    files_save(shell, saved);
    status = redirect_all(shell, node->redirects);
    if (status == 0 && function != NULL)
        status = function_call(shell, function, (int)fields->count, fields->items);
    else if (status == 0)
        status = run_program(shell, (int)fields->count, fields->items);
    else if (keep)
        shell->flow = FLOW_EXIT;
    if (!keep || status != 0) {
        files_restore(shell, saved);
        return status;
    }
    for (unsigned fd = 0; fd < SHELL_FDS; fd++)
        file_put(shell, saved[fd]);
    return status;
}

/* What is assigned before a command is the command's alone, and exported to it. */
static int run_assigned(struct shell *shell, const struct node *node, struct list *fields)
{
    struct list names = {.count = 0}, values = {.count = 0};
    bool exported[SHELL_ASSIGNS] = {false};
    int status;

    for (const struct word *word = node->assigns; word != NULL; word = word->next) {
        const char *text = word->parts->text;
        char *name = shell_copy(shell, text, strcspn(text, "="));

        if (names.count == SHELL_ASSIGNS)
            shell_unknown(shell, "many assignments");
        exported[names.count] = variable_exported(shell, name);
        list_add(shell, &names, name);
        list_add(shell, &values, (char *)variable_get(shell, name));
    }
    assign(shell, node->assigns);
    for (size_t i = 0; i < names.count; i++)
        variable_export(shell, names.items[i], true);
    status = run_words(shell, node, fields);
    for (size_t i = 0; i < names.count; i++) {
        if (values.items[i] != NULL)
            variable_set(shell, names.items[i], values.items[i]);
        else
            variable_unset(shell, names.items[i]);
        variable_export(shell, names.items[i], exported[i]);
    }
    return status;
}

/* Between [[ and ]] what stands behind = or != is a pattern; bash, other than ash, splits
 * nothing. */
static void expand_condition(struct shell *shell, const struct word *word, struct list *fields)
{
    bool pattern = false;

    for (; word != NULL; word = word->next) {
        const char *literal = word_literal(word);

        if (pattern)
            list_add(shell, fields, expand_pattern(shell, word));
        else if (shell->own.bash)
            list_add(shell, fields, expand_string(shell, word));
        else
            expand_words(shell, &(struct word){.parts = word->parts}, fields);
        pattern = literal != NULL && (strcmp(literal, "=") == 0 || strcmp(literal, "==") == 0 ||
                                      strcmp(literal, "!=") == 0);
    }
}

static int run_command(struct shell *shell, const struct node *node)
{
    struct list fields = {.count = 0};
    struct file *saved[SHELL_FDS];
    int status;

    shell->substituted = 0;
    if (node->words != NULL && word_literal(node->words) != NULL &&
        strcmp(word_literal(node->words), "[[") == 0)
        expand_condition(shell, node->words, &fields);
    else
        expand_words(shell, node->words, &fields);
    if (fields.count != 0)
        return node->assigns != NULL ? run_assigned(shell, node, &fields)
                                     : run_words(shell, node, &fields);
    assign(shell, node->assigns);
    files_save(shell, saved);
    status = redirect_all(shell, node->redirects);
    files_restore(shell, saved);
    return status != 0 ? status : shell->substituted;
}

/* --- compound commands ------------------------------------------------------------------------ */

static int run_list(struct shell *shell, const struct node *node)
{
    int status = 0;

    for (node = node->first; node != NULL && shell->flow == FLOW_ON; node = node->next)
        status = run_node(shell, node);
    return status;
}

static int run_body(struct shell *shell, void *context)
{
    return run_node(shell, context);
}

static int run_subshell(struct shell *shell, const struct node *node, struct file *in,
                        struct file *out)
{
    struct apart apart = {.in = in, .out = out, .body = run_body, .context = (void *)node};

    return run_apart(shell, &apart);
}

void run_capture(struct shell *shell, const struct node *node, struct text *text)
{
    shell->reader = NULL;
    shell->status = run_subshell(shell, node, NULL, file_text(shell, text, false));
}

static int run_pipe(struct shell *shell, const struct node *node)
{
    struct text *text = NULL;
    int status = 0, failed = 0;

    for (node = node->first; node != NULL; node = node->next) {
        struct file *in = text != NULL ? file_text(shell, text, true) : NULL;
        struct file *out = NULL;

        if (node->next != NULL) {
            text = shell_alloc(shell, sizeof(*text));
            out = file_text(shell, text, false);
        }
        shell->reader = node->next;
        status = run_subshell(shell, node, in, out);
        shell->reader = NULL;
        failed = status != 0 ? status : failed;
    }
    return shell->own.pipe_fails ? failed : status;
}

/* A status that is looked at: set -e does not mind it. */
static int run_tested(struct shell *shell, const struct node *node)
{
    int status;

    shell->tested++;
    status = run_node(shell, node);
    shell->tested--;
    return status;
}

/* Shall the loop go on? */
static bool after_body(struct shell *shell)
{
    bool goes_on = shell->flow == FLOW_ON;

    if ((shell->flow == FLOW_BREAK || shell->flow == FLOW_CONTINUE) && --shell->flow_levels == 0) {
        goes_on = shell->flow == FLOW_CONTINUE;
        shell->flow = FLOW_ON;
    }
    return goes_on;
}

static int run_while(struct shell *shell, const struct node *node)
{
    int status = 0;

    shell->loops++;
    for (;;) {
        int condition = run_tested(shell, node->first);

        if (shell->flow != FLOW_ON) {
            if (!after_body(shell))
                break;
            continue;
        }
        if ((condition == 0) != (node->kind == NODE_WHILE))
            break;
        status = run_node(shell, node->second);
        if (!after_body(shell))
            break;
    }
    shell->loops--;
    return status;
}

static int run_for(struct shell *shell, const struct node *node)
{
    struct list fields = {.count = 0};
    int status = 0;

    if (node->in)
        expand_words(shell, node->words, &fields);
    else
        for (size_t i = 0; i < shell->own.nr_arguments; i++)
            list_add(shell, &fields, shell->own.arguments[i]);
    shell->loops++;
    for (size_t i = 0; i < fields.count; i++) {
        variable_set(shell, node->name, fields.items[i]);
        status = run_node(shell, node->second);
        if (!after_body(shell))
            break;
    }
    shell->loops--;
    return status;
}

static int run_case(struct shell *shell, const struct node *node)
{
    const char *subject = expand_string(shell, node->words);

    for (const struct node *item = node->first; item != NULL; item = item->next)
        for (const struct word *word = item->words; word != NULL; word = word->next)
            if (fnmatch(expand_pattern(shell, word), subject, 0) == 0)
                return run_node(shell, item->second);
    return 0;
}

static int run_if(struct shell *shell, const struct node *node)
{
    int condition = run_tested(shell, node->first);

    if (shell->flow != FLOW_ON)
        return condition;
    if (condition == 0)
        return run_node(shell, node->second);
    return node->third != NULL ? run_node(shell, node->third) : 0;
}

int run_job(struct shell *shell, const struct node *node)
{
    static struct text nothing;

    shell->status = run_subshell(shell, node, file_text(shell, &nothing, true), NULL);
    return shell->status;
}

static void define(struct shell *shell, const struct node *node)
{
    struct function *function = shell_alloc(shell, sizeof(*function));

    function->name = node->name;
    function->body = node->first;
    function->next = shell->own.functions;
    shell->own.functions = function;
}

static int run_kind(struct shell *shell, const struct node *node)
{
    int status;

    switch (node->kind) {
    case NODE_COMMAND:
        return run_command(shell, node);
    case NODE_LIST:
        return run_list(shell, node);
    case NODE_PIPE:
        return run_pipe(shell, node);
    case NODE_AND:
    case NODE_OR:
        status = run_tested(shell, node->first);
        if (shell->flow != FLOW_ON || (status == 0) != (node->kind == NODE_AND))
            return status;
        return run_node(shell, node->second);
    case NODE_NOT:
        return run_tested(shell, node->first) == 0;
    case NODE_BACKGROUND: /* its status is nobody's */
        shell->nr_jobs++;
        if (!job_start(shell, node->first))
            run_job(shell, node->first);
        return 0;
    case NODE_SUBSHELL:
        return run_subshell(shell, node->first, NULL, NULL);
    case NODE_GROUP:
        return run_node(shell, node->first);
    case NODE_IF:
        return run_if(shell, node);
    case NODE_WHILE:
    case NODE_UNTIL:
        return run_while(shell, node);
    case NODE_FOR:
        return run_for(shell, node);
    case NODE_FUNCTION:
        define(shell, node);
        return 0;
    default:
        return run_case(shell, node);
    }
}

int run_node(struct shell *shell, const struct node *node)
{
    struct file *saved[SHELL_FDS];
    bool redirected = node->kind != NODE_COMMAND && node->redirects != NULL;
    int status = 0;

    if (++shell->depth > DEPTH_MAX || ++shell->nr_commands > COMMANDS_MAX)
        shell_leave(shell, SHELL_ENDLESS);
    if (redirected) {
        files_save(shell, saved);
        status = redirect_all(shell, node->redirects);
    }
    if (status == 0)
        status = run_kind(shell, node);
    if (redirected)
        files_restore(shell, saved);
    shell->status = status;
    shell->depth--;
    if (status != 0 && shell->own.exits_on_error && shell->tested == 0 &&
        shell->flow == FLOW_ON &&
        (node->kind == NODE_COMMAND || node->kind == NODE_PIPE || node->kind == NODE_SUBSHELL))
        shell->flow = FLOW_EXIT;
    return status;
}
