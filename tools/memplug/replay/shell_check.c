/* SPDX-License-Identifier: MIT */
/*
 * Is every command of a line understood, before any of it runs? And if not, could the line have
 * changed the state of the machine's memory, had it run?
 */
#include "shell_memory.h"

#include <string.h>

const struct tool *tool_find(const char *name)
{
    static const struct tool *const tables[] = {
        shell_builtins,   shell_call_tools, shell_nested_tools, shell_text_tools, shell_line_tools,
        shell_file_tools, shell_find_tools, shell_count_tools,  shell_memory_tools,
    };
    static const char *const folders[] = {"/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/"};

    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
        if (strncmp(name, folders[i], strlen(folders[i])) == 0)
            name += strlen(folders[i]);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        for (const struct tool *tool = tables[i]; tool->name != NULL; tool++)
            if (strcmp(tool->name, name) == 0)
                return tool;
    return NULL;
}

/* --- options ---------------------------------------------------------------------------------- */

bool tool_refuses(const struct tool *tool, const char *argument)
{
    if (tool->options == NULL || argument[0] != '-' || argument[1] == '\0' ||
        strcmp(argument, "--") == 0)
        return false;
    if (strchr(tool->options, '0') != NULL && strspn(argument + 1, "0123456789") ==
                                                  strlen(argument + 1))
        return false;
    for (const char *at = argument + 1; *at != '\0'; at++) {
        const char *found = *at != ':' && *at != '0' ? strchr(tool->options, *at) : NULL;

        if (found == NULL)
            return true;
        if (found[1] == ':')
            return false; /* the rest is its value */
    }
    return false;
}

/* Is the next argument the value of this one's last letter? */
static bool tool_wants_value(const struct tool *tool, const char *argument)
{
    if (tool->options == NULL || argument[0] != '-')
        return false;
    for (const char *at = argument + 1; *at != '\0'; at++) {
        const char *found = *at != ':' ? strchr(tool->options, *at) : NULL;

        if (found != NULL && found[1] == ':')
            return at[1] == '\0';
    }
    return false;
}

static void take_options(struct shell *shell, const struct tool *tool, int argc, char **argv,
                         int *i, struct options *options)
{
    for (const char *at = argv[*i] + 1; *at != '\0'; at++) {
        const char **value = &options->value[*at & 127];
        const char *text = at + 1;

        options->has[*at & 127] = true;
        if (strchr(tool->options, *at)[1] != ':')
            continue;
        if (*text == '\0' && *i + 1 == argc)
            shell_unknown(shell, tool->name);
        if (*text == '\0')
            text = argv[++*i];
        *value = *value == NULL ? text : shell_format(shell, "%s\n%s", *value, text);
        return;
    }
}

int tool_options(struct shell *shell, int argc, char **argv, struct options *options)
{
    const struct tool *tool = tool_find(argv[0]);
    int nr_operands = 0;
    bool ended = false;

    *options = (struct options){.has = {false}};
    for (int i = 1; i < argc; i++) {
        if (ended || argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[nr_operands++] = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            ended = true;
        } else if (tool_refuses(tool, argv[i])) {
            shell_unknown(shell, shell_format(shell, "%s %s", tool->name, argv[i]));
        } else if (argv[i][1] >= '0' && argv[i][1] <= '9') {
            options->has['n'] = true;
            options->value['n'] = argv[i] + 1;
        } else {
            take_options(shell, tool, argc, argv, &i, options);
        }
    }
    argv[nr_operands] = NULL;
    return nr_operands;
}

/* --- the walk --------------------------------------------------------------------------------- */

struct check {
    struct shell *shell;
    const char *culprit; /* the first */
    bool changes;
    unsigned depth; /* of texts in texts */
};

static void check_node(struct check *check, const struct node *node);

/* Functions may be called before the place where they are defined. */
static void note_functions(struct shell *shell, const struct node *node)
{
    for (; node != NULL; node = node->next) {
        if (node->kind == NODE_FUNCTION) {
            struct function *function = shell_alloc(shell, sizeof(*function));

            function->name = node->name;
            function->next = shell->known;
            shell->known = function;
        }
        note_functions(shell, node->first);
        note_functions(shell, node->second);
        note_functions(shell, node->third);
    }
}

/* Would it be parsed to its end? */
static bool text_is_whole(struct shell *shell, const char *text)
{
    struct escape escape = {.outer = shell->escape};
    const struct shell_result result = *shell->result;
    const unsigned depth = shell->depth;
    const int status = shell->status;
    struct file *errors = shell->own.files[2];
    bool whole = false;

    shell->escape = &escape;
    shell->own.files[2] = NULL;
    if (setjmp(escape.buffer) == 0) {
        parse_line(shell, text);
        whole = true;
    }
    shell->own.files[2] = errors;
    shell->escape = escape.outer;
    shell->depth = depth;
    *shell->result = result;
    shell->status = status;
    return whole;
}

static void check_words(struct check *check, const struct word *word)
{
    for (; word != NULL; word = word->next)
        for (const struct part *part = word->parts; part != NULL; part = part->next) {
            if (part->program != NULL)
                check_node(check, part->program);
            if (part->operand != NULL)
                check_words(check, part->operand);
            if (part->second != NULL)
                check_words(check, part->second);
        }
}

/* Files that look at memory, or make it look otherwise, without changing its state. */
static bool is_harmless_path(const char *path)
{
    static const char *const parts[] = {"/dev/null", "/dev/full", "tracing", "drop_caches",
                                        "compact_memory", "/dev/kmsg", "/tmp/", "printk"};

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (strstr(path, parts[i]) != NULL)
            return true;
    return false;
}

static void check_redirects(struct check *check, const struct redirect *redirect)
{
    for (; redirect != NULL; redirect = redirect->next) {
        const char *path = word_constant(check->shell, redirect->target);

        check_words(check, redirect->target);
        if (redirect->kind != REDIRECT_IN && redirect->kind != REDIRECT_DUP &&
            redirect->kind != REDIRECT_HERE &&
            (path == NULL || !is_harmless_path(path)))
            check->changes = true;
    }
}

/* Tools that are not understood and only look. */
static bool only_looks(const char *name)
{
    static const char *const names[] = {
        "xxd", "diff", "cmp", "strings", "lspci", "lsmod", "less", "more", "ps", "top", "numactl",
        "numastat", "lscpu", "daxctl", "ndctl", "fold", "column", "join", "comm", "pgrep", "id",
        "whoami", "sha1sum", "sha256sum", "cksum", "page-types", "perf", "vmstat", "slabtop",
        "tree", "numfmt", "pidof", "lsblk", "getconf", "ipcs", "mountpoint", "file",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void blame(struct check *check, const char *culprit)
{
    if (check->culprit == NULL)
        check->culprit = culprit;
}

/* What is a language of its own stands in the first operand. */
static bool script_understood(struct shell *shell, const char *name, const struct word *words)
{
    bool is_sed = strcmp(name, "sed") == 0;
    const char *text = NULL;

    for (; words != NULL; words = words->next) {
        text = word_constant(shell, words);
        if (text == NULL || text[0] != '-')
            break;
        if (strchr(text, is_sed ? 'e' : 'F') == NULL && (is_sed || text[1] != 'v'))
            continue;
        if (is_sed || strlen(text) == 2)
            words = words->next;
        text = is_sed && words != NULL ? word_constant(shell, words) : NULL;
        if (is_sed || words == NULL)
            break;
    }
    if (text == NULL)
        return true; /* it is looked at when it runs */
    return is_sed ? sed_understood(shell, text) : awk_understood(shell, text);
}

/* Commands whose meaning hangs on what stands behind them. */
static void check_special(struct check *check, const char *name, const struct word *words)
{
    const char *first = words != NULL ? word_constant(check->shell, words) : NULL;

    if (strcmp(name, "set") == 0 && (words == NULL || (first != NULL && strcmp(first, "--") != 0 &&
                                                       first[0] != '\0' &&
                                                       strchr("-+", first[0]) != NULL &&
                                                       strspn(first + 1, "euxvo") !=
                                                           strlen(first + 1))))
        blame(check, "set");
    for (const struct word *word = words; strcmp(name, "lsmem") == 0 && word != NULL;
         word = word->next) {
        const char *text = word_constant(check->shell, word);

        if (text != NULL && !lsmem_understood(text))
            blame(check, shell_format(check->shell, "lsmem %s", text));
    }
    for (; strcmp(name, "dd") == 0 && words != NULL; words = words->next) {
        const char *text = words->parts != NULL ? words->parts->text : NULL;

        if (text == NULL || (strncmp(text, "if=", 3) != 0 && strncmp(text, "of=", 3) != 0 &&
                             strncmp(text, "bs=", 3) != 0 && strncmp(text, "count=", 6) != 0 &&
                             strcmp(text, "status=none") != 0 &&
                             strcmp(text, "conv=fsync") != 0))
            blame(check, shell_format(check->shell, "dd %s", text != NULL ? text : ""));
    }
    if ((strcmp(name, "mount") == 0 && words != NULL && check->shell->host->mount == NULL) ||
        (strcmp(name, "umount") == 0 && check->shell->host->unmount == NULL) ||
        (strstr(name, "mod") != NULL && tool_find(name)->run == tool_find("insmod")->run &&
         check->shell->host->module == NULL))
        blame(check, name);
    if ((strcmp(name, "sed") == 0 || strcmp(name, "awk") == 0) &&
        !script_understood(check->shell, name, words))
        blame(check, shell_format(check->shell, "%s script", name));
}

/* What a command runs in its turn. */
static void check_nested(struct check *check, const struct node *node)
{
    const struct word *inner = nested_command(check->shell, node->words);
    bool is_dynamic;
    const char *text = nested_text(check->shell, node->words, &is_dynamic);
    const char *name = word_constant(check->shell, node->words);
    const bool bash = check->shell->own.bash;

    if (inner != NULL)
        check_node(check, &(struct node){.kind = NODE_COMMAND, .words = (struct word *)inner});
    if (is_dynamic)
        check->changes = true; /* nobody knows */
    if (text == NULL)
        return;
    if (++check->depth > 20)
        shell_unknown(check->shell, "deep nesting");
    check->shell->own.bash = bash || strstr(name, "bash") != NULL;
    /* Where it is wrong, that comes out when it runs. */
    if (text_is_whole(check->shell, text)) {
        const struct node *program = parse_line(check->shell, text);

        note_functions(check->shell, program);
        check_node(check, program);
    }
    check->shell->own.bash = bash;
    check->depth--;
}

static void check_command(struct check *check, const struct node *node)
{
    struct shell *shell = check->shell;
    const char *name = node->words != NULL ? word_constant(shell, node->words) : NULL;
    const struct tool *tool = name != NULL ? tool_find(name) : NULL;

    if (node->words == NULL || (name != NULL && function_find(shell->known, name) != NULL))
        return;
    if (tool == NULL && name != NULL && strchr(name, '/') != NULL) {
        check->changes = true; /* a script */
        return;
    }
    if (tool == NULL) {
        blame(check, name != NULL ? name : "a command that is only known when it runs");
        check->changes = check->changes || name == NULL || !only_looks(name);
        return;
    }
    if ((tool->flags & TOOL_CHANGES) != 0)
        check->changes = true;
    for (const struct word *word = node->words->next; word != NULL; word = word->next) {
        const char *argument = word_constant(shell, word);

        if (argument != NULL && strcmp(argument, "--") == 0)
            break;
        if (strcmp(name, "sed") == 0 && (argument == NULL || strncmp(argument, "-i", 2) == 0))
            check->changes = true;
        if (argument != NULL && tool_refuses(tool, argument))
            blame(check, shell_format(shell, "%s %s", name, argument));
        else if (argument != NULL && tool_wants_value(tool, argument) && word->next != NULL)
            word = word->next;
    }
    check_special(check, name, node->words->next);
    check_nested(check, node);
}

static void check_node(struct check *check, const struct node *node)
{
    for (; node != NULL; node = node->next) {
        check_words(check, node->words);
        check_words(check, node->assigns);
        check_redirects(check, node->redirects);
        if (node->kind == NODE_COMMAND)
            check_command(check, node);
        check_node(check, node->first);
        check_node(check, node->second);
        check_node(check, node->third);
    }
}

void check_line(struct shell *shell, const struct node *node)
{
    struct check check = {.shell = shell};

    note_functions(shell, node);
    check_node(&check, node);
    shell->changes = shell->changes || check.changes;
    shell->result->changes = shell->changes;
    if (check.culprit != NULL)
        shell_unknown(shell, check.culprit);
    shell->result->changes = false;
}
