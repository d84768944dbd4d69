/* SPDX-License-Identifier: MIT */
/* Walks an awk program over the lines of its files. */
#include "shell_awk.h"

#include <ctype.h>
#include <string.h>

static void execute(struct awk *awk, const struct awk_node *node);

/* --- statements ------------------------------------------------------------------------------- */

/* What comes of a line that only a real kernel knows is marked, at the beginning of its own. */
static void put_text(struct awk *awk, const char *text)
{
    const char mark = SHELL_FOREIGN_MARK;

    if (*text == '\0')
        return;
    if ((awk->mark || awk->tainted) && !awk->begun)
        print_bytes(awk->shell, &mark, 1);
    awk->begun = text[strlen(text) - 1] != '\n';
    print_bytes(awk->shell, text, strlen(text));
}

static void print_values(struct awk *awk, const struct awk_node *node)
{
    struct text text = {.length = 0};

    text_add(awk->shell, &text, "", 0);
    if (node == NULL)
        text_string(awk->shell, &text, awk->line);
    for (; node != NULL; node = node->next) {
        struct awk_value value = awk_evaluate(awk, node);

        text_string(awk->shell, &text, awk_text(awk, &value));
        text_string(awk->shell, &text, node->next != NULL ? awk_setting(awk, "OFS") : "");
    }
    text_string(awk->shell, &text, awk_setting(awk, "ORS"));
    put_text(awk, text.bytes);
}

static bool condition(struct awk *awk, const struct awk_node *node)
{
    struct awk_value value = {.kind = VALUE_UNSET};

    if (node == NULL)
        return true;
    value = awk_evaluate(awk, node);
    return awk_true(&value);
}

/* After a body: shall the loop go on? */
static bool goes_on(struct awk *awk)
{
    bool stop = awk->flow == AWK_DO_BREAK;

    if (awk->flow == AWK_DO_BREAK || awk->flow == AWK_DO_CONTINUE)
        awk->flow = AWK_GO;
    return !stop && awk->flow == AWK_GO;
}

static void loop(struct awk *awk, const struct awk_node *node)
{
    const struct awk_node *test = node->kind == AWK_WHILE ? node->a : node->b;

    if (node->kind == AWK_FOR && node->a != NULL)
        execute(awk, node->a);
    while (condition(awk, test)) {
        execute(awk, node->kind == AWK_WHILE ? node->b : node->d);
        if (!goes_on(awk))
            break;
        if (node->kind == AWK_FOR && node->c != NULL)
            execute(awk, node->c);
    }
}

/* The order is that of awk's own table. */
static void loop_in(struct awk *awk, const struct awk_node *node)
{
    struct awk_element *element = awk_cell(awk, node->a->text)->elements;

    if (element != NULL && element->next != NULL && !order_is_lost(awk->shell))
        awk->shell->foreign = true;
    for (; element != NULL; element = element->next) {
        awk_cell(awk, node->text)->value = (struct awk_value){.kind = VALUE_FIELD,
                                                              .text = element->key};
        execute(awk, node->d);
        if (!goes_on(awk))
            break;
    }
}

static void delete(struct awk *awk, const struct awk_node *what)
{
    struct awk_element **at = &awk_cell(awk, what->text)->elements;
    struct awk_value key;

    if (what->kind == AWK_NAME) {
        *at = NULL;
        return;
    }
    key = awk_evaluate(awk, what->a);
    while (*at != NULL && strcmp((*at)->key, awk_text(awk, &key)) != 0)
        at = &(*at)->next;
    if (*at != NULL)
        *at = (*at)->next;
}

static void leave(struct awk *awk, const struct awk_node *node)
{
    struct awk_value value = {.kind = VALUE_UNSET};

    if (node->a != NULL)
        value = awk_evaluate(awk, node->a);
    awk->status = (int)awk_number(&value);
    awk->flow = AWK_DO_EXIT;
}

static void execute(struct awk *awk, const struct awk_node *node)
{
    switch (node->kind) {
    case AWK_PRINT:
        print_values(awk, node->a);
        break;
    case AWK_PRINTF:
        put_text(awk, awk_format(awk, node->a));
        break;
    case AWK_EXPRESSION:
        awk_evaluate(awk, node->a);
        break;
    case AWK_BLOCK:
        for (node = node->a; node != NULL && awk->flow == AWK_GO; node = node->next)
            execute(awk, node);
        break;
    case AWK_IF:
        if (condition(awk, node->a))
            execute(awk, node->b);
        else if (node->c != NULL)
            execute(awk, node->c);
        break;
    case AWK_WHILE:
    case AWK_FOR:
        loop(awk, node);
        break;
    case AWK_FOR_IN:
        loop_in(awk, node);
        break;
    case AWK_DELETE:
        delete(awk, node->a);
        break;
    case AWK_EXIT:
        leave(awk, node);
        break;
    default:
        awk->flow = node->kind == AWK_NEXT    ? AWK_DO_NEXT
                    : node->kind == AWK_BREAK ? AWK_DO_BREAK
                                              : AWK_DO_CONTINUE;
    }
}

/* --- rules ------------------------------------------------------------------------------------ */

static bool applies(struct awk *awk, struct awk_rule *rule)
{
    bool inside;

    if (rule->when == AWK_ALWAYS)
        return true;
    if (rule->when == AWK_WHERE)
        return condition(awk, rule->from);
    if (rule->when != AWK_RANGE)
        return false;
    inside = rule->inside || condition(awk, rule->from);
    rule->inside = inside && !condition(awk, rule->to);
    return inside;
}

static void run_rules(struct awk *awk, enum awk_when when)
{
    awk->flow = AWK_GO;
    for (struct awk_rule *rule = awk->rules; rule != NULL && awk->flow == AWK_GO;
         rule = rule->next) {
        if (when == AWK_ALWAYS ? !applies(awk, rule) : rule->when != when)
            continue;
        if (rule->action != NULL)
            execute(awk, rule->action);
        else
            print_values(awk, NULL);
    }
}

static void run_lines(struct awk *awk, const struct text *text)
{
    struct line line;

    awk->fnr = 0;
    for (size_t at = 0; awk->flow != AWK_DO_EXIT && line_next(text, &at, &line);) {
        awk->nr++;
        awk->fnr++;
        awk->mark = line.mark;
        awk_set_line(awk, shell_copy(awk->shell, line.bytes, line.length));
        run_rules(awk, AWK_ALWAYS);
    }
    awk->mark = false;
}

static void set(struct awk *awk, const char *name, const char *value)
{
    awk_cell(awk, name)->value = (struct awk_value){.kind = VALUE_FIELD, .text = value};
}

/* -v NAME=VALUE, perhaps several, with newlines between. */
static void set_all(struct awk *awk, const char *settings)
{
    struct shell *shell = awk->shell;

    while (settings != NULL && *settings != '\0') {
        size_t length = strcspn(settings, "\n"), name = strcspn(settings, "=");

        if (name >= length)
            shell_unknown(shell, "awk -v");
        set(awk, shell_copy(shell, settings, name),
            shell_copy(shell, settings + name + 1, length - name - 1));
        settings += length + (settings[length] == '\n');
    }
}

static int run_files(struct awk *awk, char **names)
{
    char *standard[] = {(char[]){"-"}, NULL};
    int status = 0;

    for (char **name = *names != NULL ? names : standard; *name != NULL; name++) {
        struct text text = {.length = 0};
        int error;

        if (awk->flow == AWK_DO_EXIT)
            break;
        if (strchr(*name, '=') != NULL)
            shell_unknown(awk->shell, "awk NAME=VALUE");
        set(awk, "FILENAME", *name);
        error = input_all(awk->shell, *name, &text);
        if (error != 0) {
            complain(awk->shell, "%s: %s", *name, strerror(-error));
            status = 1;
            continue;
        }
        run_lines(awk, &text);
    }
    return status;
}

int run_awk(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_operands = tool_options(shell, argc, argv, &options), status = 0;
    struct awk awk = {.shell = shell, .line = ""};
    bool has_lines = false;

    awk.rules = nr_operands != 0 ? awk_parse(shell, argv[0]) : NULL;
    if (awk.rules == NULL)
        shell_unknown(shell, "awk");
    set(&awk, "FS", options.value['F'] != NULL ? options.value['F'] : " ");
    if (strcmp(awk_setting(&awk, "FS"), "t") == 0 || strcmp(awk_setting(&awk, "FS"), "\\t") == 0)
        set(&awk, "FS", "\t");
    set(&awk, "OFS", " ");
    set(&awk, "ORS", "\n");
    set(&awk, "SUBSEP", "\034");
    set_all(&awk, options.value['v']);
    run_rules(&awk, AWK_BEGIN);
    for (const struct awk_rule *rule = awk.rules; rule != NULL; rule = rule->next)
        has_lines = has_lines || rule->when != AWK_BEGIN;
    if (has_lines && awk.flow != AWK_DO_EXIT)
        status = run_files(&awk, argv + 1);
    run_rules(&awk, AWK_END);
    return awk.status != 0 ? awk.status : status;
}

bool awk_understood(struct shell *shell, const char *script)
{
    return awk_parse(shell, script) != NULL;
}
