/* SPDX-License-Identifier: MIT */
/* awk without functions of one's own, getline, system(), and output to anywhere else. */
#include "shell_awk.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 100u

static struct awk_node *expression(struct awk_parser *parser);
static struct awk_node *statement(struct awk_parser *parser);

static struct awk_node *node(struct awk_parser *parser, enum awk_kind kind, struct awk_node *a,
                             struct awk_node *b)
{
    struct awk_node *made = shell_alloc(parser->shell, sizeof(*made));

    made->kind = kind;
    made->a = a;
    made->b = b;
    made->text = "";
    return made;
}

/* --- expressions ------------------------------------------------------------------------------ */

/* Up to a closing bracket, which it takes. */
static struct awk_node *arguments(struct awk_parser *parser)
{
    struct awk_node *first = NULL, **last = &first;

    awk_skip_newlines(parser);
    while (!awk_is(parser, ")") && !parser->failed) {
        *last = expression(parser);
        last = &(*last)->next;
        awk_skip_newlines(parser);
        if (!awk_take(parser, ",") && !awk_is(parser, ")"))
            awk_fail(parser);
        awk_skip_newlines(parser);
    }
    awk_need(parser, ")");
    return first;
}

static struct awk_node *named(struct awk_parser *parser)
{
    struct awk_node *made = node(parser, AWK_NAME, NULL, NULL);
    static const char *const words[] = {"BEGIN", "END", "function", "func", "getline", "system",
                                        "close", "fflush", "rand", "srand", "sin", "cos", "exp",
                                        "log", "sqrt", "atan2", "strtonum", "gensub", "ENVIRON",
                                        "RS", "print", "printf", "if", "else", "while", "for",
                                        "do", "next", "exit", "delete", "in", "return", "systime",
                                        "strftime", "and", "or", "xor", "asort", "nextfile"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(words[i], parser->text) == 0)
            awk_fail(parser);
    if (parser->glued)
        awk_fail(parser);
    made->text = parser->text;
    awk_next(parser);
    if (awk_take(parser, "[")) {
        made->kind = AWK_ELEMENT;
        made->a = expression(parser);
        if (awk_is(parser, ","))
            awk_fail(parser); /* more than one subscript */
        awk_need(parser, "]");
    }
    return made;
}

static struct awk_node *grouped(struct awk_parser *parser)
{
    bool no_in = parser->no_in, no_greater = parser->no_greater;
    struct awk_node *made;

    parser->no_in = parser->no_greater = false;
    made = node(parser, AWK_GROUP, expression(parser), NULL);
    parser->no_in = no_in;
    parser->no_greater = no_greater;
    if (awk_is(parser, ",")) { /* print (a, b): the list is the group's */
        awk_next(parser);
        made->a->next = arguments(parser);
        return made;
    }
    awk_need(parser, ")");
    return made;
}

static struct awk_node *called(struct awk_parser *parser)
{
    struct awk_node *made = node(parser, AWK_CALL, NULL, NULL);

    made->text = parser->text;
    awk_next(parser);
    if (awk_take(parser, "("))
        made->a = arguments(parser);
    else if (strcmp(made->text, "length") != 0)
        awk_fail(parser);
    return made;
}

static struct awk_node *primary(struct awk_parser *parser)
{
    struct awk_node *made;

    switch (parser->token) {
    case TA_NUMBER:
        made = node(parser, AWK_NUMBER, NULL, NULL);
        made->number = parser->number;
        awk_next(parser);
        return made;
    case TA_STRING:
        made = node(parser, AWK_STRING, NULL, NULL);
        made->text = parser->text;
        awk_next(parser);
        return made;
    case TA_NAME:
        return named(parser);
    case TA_FUNCTION:
        return called(parser);
    default:
        if (awk_is(parser, "/") || awk_is(parser, "/=")) {
            made = node(parser, AWK_REGEX, NULL, NULL);
            parser->at -= parser->sign[1] == '=';
            made->text = awk_quoted(parser, '/');
            awk_next(parser);
            return made;
        }
        if (awk_take(parser, "("))
            return grouped(parser);
        awk_fail(parser);
        return node(parser, AWK_NUMBER, NULL, NULL);
    }
}

static struct awk_node *stepped(struct awk_parser *parser)
{
    struct awk_node *made;
    double number = awk_is(parser, "++") ? 1 : -1;

    if (awk_is(parser, "++") || awk_is(parser, "--")) {
        awk_next(parser);
        made = node(parser, AWK_STEP, stepped(parser), NULL);
        made->number = number;
        return made;
    }
    if (awk_take(parser, "$")) {
        made = node(parser, AWK_FIELD, NULL, NULL);
        made->a = awk_is(parser, "++") || awk_is(parser, "--") ? stepped(parser)
                                                                 : primary(parser);
    } else {
        made = primary(parser);
    }
    if ((awk_is(parser, "++") || awk_is(parser, "--")) &&
        (made->kind == AWK_NAME || made->kind == AWK_ELEMENT || made->kind == AWK_FIELD)) {
        made = node(parser, AWK_STEP, made, NULL);
        made->number = awk_is(parser, "++") ? 1 : -1;
        made->text = "a";
        awk_next(parser);
    }
    return made;
}

static struct awk_node *unary(struct awk_parser *parser)
{
    struct awk_node *made;

    if (++parser->depth > DEPTH_MAX)
        awk_fail(parser);
    if (awk_take(parser, "!")) {
        made = node(parser, AWK_NOT, unary(parser), NULL);
    } else if (awk_take(parser, "-")) {
        made = node(parser, AWK_MINUS, unary(parser), NULL);
    } else if (awk_take(parser, "+")) {
        made = node(parser, AWK_COMPUTE, unary(parser), node(parser, AWK_NUMBER, NULL, NULL));
        made->text = "+";
    } else {
        made = stepped(parser);
        if (awk_is(parser, "^"))
            awk_fail(parser); /* nor does the guest's busybox know it */
    }
    parser->depth--;
    return made;
}

static bool begins_value(const struct awk_parser *parser)
{
    if (parser->token == TA_SIGN)
        return strchr("$!(+-", parser->sign[0]) != NULL && strcmp(parser->sign, "!=") != 0 &&
               strcmp(parser->sign, "!~") != 0 && strcmp(parser->sign, "+=") != 0 &&
               strcmp(parser->sign, "-=") != 0;
    return parser->token == TA_NUMBER || parser->token == TA_STRING ||
           parser->token == TA_FUNCTION ||
           (parser->token == TA_NAME && strcmp(parser->text, "in") != 0);
}

/* Signs of a level that group to the left; the last is in concatenation's place. */
static const struct level {
    enum awk_kind kind;
    const char *signs[7];
} levels[] = {
    {AWK_OR, {"||"}},
    {AWK_AND, {"&&"}},
    {AWK_IN, {"in"}},
    {AWK_MATCH, {"~", "!~"}},
    {AWK_COMPARE, {"==", "!=", "<", "<=", ">", ">="}},
    {AWK_CONCAT, {NULL}},
    {AWK_COMPUTE, {"+", "-"}},
    {AWK_COMPUTE, {"*", "/", "%"}},
};
#define NR_LEVELS (sizeof(levels) / sizeof(levels[0]))

static const char *sign_of(const struct awk_parser *parser, const struct level *level)
{
    if (level->kind == AWK_IN)
        return awk_is_word(parser, "in") && !parser->no_in ? "in" : NULL;
    if (level->kind == AWK_CONCAT)
        return begins_value(parser) && !awk_is(parser, "+") && !awk_is(parser, "-") ? "" : NULL;
    if (parser->no_greater && awk_is(parser, ">"))
        return NULL;
    for (size_t i = 0; level->signs[i] != NULL; i++)
        if (awk_is(parser, level->signs[i]))
            return level->signs[i];
    return NULL;
}

static struct awk_node *binary(struct awk_parser *parser, size_t number)
{
    struct awk_node *made;
    const char *sign;

    if (number == NR_LEVELS)
        return unary(parser);
    made = binary(parser, number + 1);
    while (!parser->failed && (sign = sign_of(parser, &levels[number])) != NULL) {
        enum awk_kind kind = levels[number].kind;

        if (kind != AWK_CONCAT)
            awk_next(parser);
        if (kind == AWK_OR || kind == AWK_AND)
            awk_skip_newlines(parser);
        made = node(parser, strcmp(sign, "!~") == 0 ? AWK_NO_MATCH : kind, made,
                    binary(parser, number + 1));
        made->text = sign;
        if (kind == AWK_IN && made->b->kind != AWK_NAME)
            awk_fail(parser);
    }
    return made;
}

static struct awk_node *expression(struct awk_parser *parser)
{
    struct awk_node *made;
    static const char *const assigns[] = {"=", "+=", "-=", "*=", "/=", "%="};

    if (++parser->depth > DEPTH_MAX)
        awk_fail(parser);
    made = binary(parser, 0);
    if (awk_take(parser, "?")) {
        made = node(parser, AWK_TERNARY, made, expression(parser));
        awk_need(parser, ":");
        made->c = expression(parser);
    }
    for (size_t i = 0; i < sizeof(assigns) / sizeof(assigns[0]); i++)
        if (awk_take(parser, assigns[i])) {
            if (made->kind != AWK_NAME && made->kind != AWK_ELEMENT && made->kind != AWK_FIELD)
                awk_fail(parser);
            made = node(parser, AWK_ASSIGN, made, expression(parser));
            made->text = shell_copy(parser->shell, assigns[i], strlen(assigns[i]) - 1);
            break;
        }
    parser->depth--;
    return made;
}

/* --- statements ------------------------------------------------------------------------------- */

static bool ends_statement(const struct awk_parser *parser)
{
    return parser->token == TA_END || parser->token == TA_NEWLINE || awk_is(parser, ";") ||
           awk_is(parser, "}");
}

static struct awk_node *printed(struct awk_parser *parser, enum awk_kind kind)
{
    struct awk_node *made = node(parser, kind, NULL, NULL), **last = &made->a;

    parser->no_greater = true;
    while (!ends_statement(parser) && !parser->failed) {
        *last = expression(parser);
        last = &(*last)->next;
        if (!awk_take(parser, ",") && !ends_statement(parser))
            awk_fail(parser);
    }
    parser->no_greater = false;
    if (made->a != NULL && made->a->kind == AWK_GROUP && made->a->next == NULL)
        made->a = made->a->a;
    if (kind == AWK_PRINTF && made->a == NULL)
        awk_fail(parser);
    return made;
}

static struct awk_node *simple(struct awk_parser *parser)
{
    struct awk_node *made;

    if (awk_is_word(parser, "print") || awk_is_word(parser, "printf")) {
        enum awk_kind kind = awk_is_word(parser, "print") ? AWK_PRINT : AWK_PRINTF;

        awk_next(parser);
        return printed(parser, kind);
    }
    if (awk_is_word(parser, "delete")) {
        awk_next(parser);
        made = parser->token == TA_NAME ? named(parser) : node(parser, AWK_NUMBER, NULL, NULL);
        if (made->kind != AWK_ELEMENT && made->kind != AWK_NAME)
            awk_fail(parser);
        return node(parser, AWK_DELETE, made, NULL);
    }
    return node(parser, AWK_EXPRESSION, expression(parser), NULL);
}

static void end_statement(struct awk_parser *parser)
{
    if (parser->token == TA_NEWLINE || awk_is(parser, ";"))
        awk_next(parser);
    else if (!ends_statement(parser))
        awk_fail(parser);
}

static struct awk_node *body(struct awk_parser *parser)
{
    awk_skip_newlines(parser);
    if (awk_is(parser, ";")) {
        awk_next(parser);
        return node(parser, AWK_BLOCK, NULL, NULL);
    }
    return statement(parser);
}

static struct awk_node *loop_for(struct awk_parser *parser)
{
    struct awk_node *made = node(parser, AWK_FOR, NULL, NULL);

    awk_need(parser, "(");
    parser->no_in = true;
    if (!awk_is(parser, ";"))
        made->a = simple(parser);
    parser->no_in = false;
    if (awk_is_word(parser, "in") && made->a != NULL && made->a->kind == AWK_EXPRESSION &&
        made->a->a->kind == AWK_NAME) {
        made->kind = AWK_FOR_IN;
        made->text = made->a->a->text;
        awk_next(parser);
        made->a = parser->token == TA_NAME ? named(parser) : NULL;
        if (made->a == NULL || made->a->kind != AWK_NAME)
            awk_fail(parser);
    } else {
        awk_need(parser, ";");
        if (!awk_is(parser, ";"))
            made->b = expression(parser);
        awk_need(parser, ";");
        if (!awk_is(parser, ")"))
            made->c = simple(parser);
    }
    awk_need(parser, ")");
    made->d = body(parser);
    return made;
}

static struct awk_node *conditional(struct awk_parser *parser, enum awk_kind kind)
{
    struct awk_node *made = node(parser, kind, NULL, NULL);
    struct awk_parser before;

    awk_need(parser, "(");
    made->a = expression(parser);
    awk_need(parser, ")");
    made->b = body(parser);
    before = *parser;
    while (kind == AWK_IF && (parser->token == TA_NEWLINE || awk_is(parser, ";")))
        awk_next(parser);
    if (kind == AWK_IF && awk_is_word(parser, "else")) {
        awk_next(parser);
        made->c = body(parser);
    } else if (!parser->failed) {
        *parser = before;
    }
    return made;
}

static struct awk_node *block(struct awk_parser *parser)
{
    struct awk_node *made = node(parser, AWK_BLOCK, NULL, NULL), **last = &made->a;

    for (;;) {
        while (parser->token == TA_NEWLINE || awk_is(parser, ";"))
            awk_next(parser);
        if (awk_take(parser, "}") || parser->failed)
            return made;
        if (parser->token == TA_END)
            awk_fail(parser);
        *last = statement(parser);
        last = &(*last)->next;
    }
}

static struct awk_node *statement(struct awk_parser *parser)
{
    static const struct {
        const char *word;
        enum awk_kind kind;
    } words[] = {{"next", AWK_NEXT}, {"break", AWK_BREAK}, {"continue", AWK_CONTINUE}};
    struct awk_node *made = NULL;

    if (++parser->depth > DEPTH_MAX)
        awk_fail(parser);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (made == NULL && awk_is_word(parser, words[i].word)) {
            awk_next(parser);
            made = node(parser, words[i].kind, NULL, NULL);
        }
    if (made == NULL && awk_is_word(parser, "exit")) {
        awk_next(parser);
        made = node(parser, AWK_EXIT, NULL, NULL);
        if (!ends_statement(parser))
            made->a = expression(parser);
    }
    if (made == NULL && (awk_is_word(parser, "if") || awk_is_word(parser, "while"))) {
        enum awk_kind kind = awk_is_word(parser, "if") ? AWK_IF : AWK_WHILE;

        awk_next(parser);
        made = conditional(parser, kind);
    } else if (made == NULL && awk_is_word(parser, "for")) {
        awk_next(parser);
        made = loop_for(parser);
    } else if (made == NULL && awk_take(parser, "{")) {
        made = block(parser);
    } else {
        if (made == NULL)
            made = simple(parser);
        end_statement(parser);
    }
    parser->depth--;
    return made;
}

static void rule(struct awk_parser *parser, struct awk_rule *made)
{
    if (awk_is_word(parser, "BEGIN") || awk_is_word(parser, "END")) {
        made->when = awk_is_word(parser, "BEGIN") ? AWK_BEGIN : AWK_END;
        awk_next(parser);
    } else if (!awk_is(parser, "{")) {
        made->when = AWK_WHERE;
        made->from = expression(parser);
        if (awk_take(parser, ",")) {
            made->when = AWK_RANGE;
            made->to = expression(parser);
        }
    }
    if (awk_take(parser, "{"))
        made->action = block(parser);
    else if (made->when == AWK_BEGIN || made->when == AWK_END)
        awk_fail(parser);
}

struct awk_rule *awk_parse(struct shell *shell, const char *script)
{
    struct awk_parser parser = {.shell = shell, .at = script};
    struct awk_rule *first = NULL, **last = &first;

    awk_next(&parser);
    for (;;) {
        while (parser.token == TA_NEWLINE || awk_is(&parser, ";"))
            awk_next(&parser);
        if (parser.token == TA_END)
            break;
        *last = shell_alloc(shell, sizeof(**last));
        rule(&parser, *last);
        last = &(*last)->next;
    }
    return parser.failed ? NULL : first;
}
