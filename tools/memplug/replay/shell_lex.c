/* SPDX-License-Identifier: MIT */
/* From bytes to tokens; a word is a row of parts, and knows which of them were quoted. */
#include "shell_private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct builder {
    struct part *first, **last;
    struct text text; /* of the part that is being gathered */
    bool open, quoted;
};

static void lex_dollar(struct lexer *lexer, struct builder *builder, bool quoted);
static void lex_backquote(struct lexer *lexer, struct builder *builder, bool quoted);

/* What is wrong in ash's language may be right in bash's. */
_Noreturn static void syntax(struct lexer *lexer, const char *text)
{
    if (lexer->shell->own.bash)
        shell_unknown(lexer->shell, "bash's syntax");
    shell_abort(lexer->shell, "syntax error: %s", text);
}

static struct part *add_part(struct lexer *lexer, struct builder *builder, enum part_kind kind,
                             bool quoted)
{
    struct part *part = shell_alloc(lexer->shell, sizeof(*part));

    part->kind = kind;
    part->quoted = quoted;
    if (builder->last == NULL)
        builder->last = &builder->first;
    *builder->last = part;
    builder->last = &part->next;
    return part;
}

static void close_text(struct lexer *lexer, struct builder *builder)
{
    if (!builder->open)
        return;
    add_part(lexer, builder, PART_TEXT, builder->quoted)->text =
        shell_copy(lexer->shell, builder->text.bytes, builder->text.length);
    builder->open = false;
    builder->text = (struct text){.length = 0};
}

static void add_text(struct lexer *lexer, struct builder *builder, const char *bytes,
                     size_t length, bool quoted)
{
    if (builder->open && builder->quoted != quoted)
        close_text(lexer, builder);
    builder->open = true;
    builder->quoted = quoted;
    text_add(lexer->shell, &builder->text, bytes, length);
}

static struct word *finish(struct lexer *lexer, struct builder *builder)
{
    struct word *word = shell_alloc(lexer->shell, sizeof(*word));

    close_text(lexer, builder);
    word->parts = builder->first;
    return word;
}

static bool is_name(char c, bool first)
{
    return c == '_' || isalpha((unsigned char)c) || (!first && isdigit((unsigned char)c));
}

/* --- quotes ----------------------------------------------------------------------------------- */

static void lex_single(struct lexer *lexer, struct builder *builder)
{
    const char *end = strchr(lexer->at + 1, '\'');

    if (end == NULL)
        syntax(lexer, "unterminated quoted string");
    add_text(lexer, builder, lexer->at + 1, (size_t)(end - lexer->at - 1), true);
    lexer->at = end + 1;
}

static void lex_backslash(struct lexer *lexer, struct builder *builder, const char *special)
{
    char c = lexer->at[1];

    if (c == '\n') {
        lexer->at += 2;
    } else if (c == '\0' || (special != NULL && strchr(special, c) == NULL)) {
        add_text(lexer, builder, lexer->at, 1, true);
        lexer->at++;
    } else {
        add_text(lexer, builder, lexer->at + 1, 1, true);
        lexer->at += 2;
    }
}

/* One character, or what begins with it, inside double quotes or an arithmetic expression. */
static void lex_quoted(struct lexer *lexer, struct builder *builder)
{
    switch (*lexer->at) {
    case '\0':
        syntax(lexer, "unterminated quoted string");
    case '\\':
        lex_backslash(lexer, builder, "$`\"\\");
        break;
    case '$':
        lex_dollar(lexer, builder, true);
        break;
    case '`':
        lex_backquote(lexer, builder, true);
        break;
    default:
        add_text(lexer, builder, lexer->at++, 1, true);
    }
}

static void lex_double(struct lexer *lexer, struct builder *builder)
{
    lexer->at++;
    add_text(lexer, builder, "", 0, true);
    while (*lexer->at != '"')
        lex_quoted(lexer, builder);
    lexer->at++;
}

/* What may stand in a word anywhere; false at a character that is only itself. */
static bool lex_special(struct lexer *lexer, struct builder *builder)
{
    switch (*lexer->at) {
    case '\\':
        lex_backslash(lexer, builder, NULL);
        return true;
    case '\'':
        lex_single(lexer, builder);
        return true;
    case '"':
        lex_double(lexer, builder);
        return true;
    case '$':
        lex_dollar(lexer, builder, false);
        return true;
    case '`':
        lex_backquote(lexer, builder, false);
        return true;
    default:
        return false;
    }
}

/* --- what begins with a dollar ---------------------------------------------------------------- */

static void enter(struct lexer *lexer)
{
    if (++lexer->shell->depth > 60)
        shell_unknown(lexer->shell, "deep nesting");
}

static struct node *lex_program(struct lexer *lexer)
{
    struct lexer saved = *lexer;
    struct node *node;

    enter(lexer);
    lexer->here = NULL;
    lexer_next(lexer);
    node = parse_list(lexer, TOKEN_CLOSE);
    saved.at = lexer->at;
    *lexer = saved;
    lexer->shell->depth--;
    return node;
}

static void lex_backquote(struct lexer *lexer, struct builder *builder, bool quoted)
{
    struct lexer inner = {.shell = lexer->shell};
    struct text text = {.length = 0};
    const char *at = lexer->at + 1;
    struct part *part;

    for (; *at != '`'; at++) {
        if (*at == '\0')
            syntax(lexer, "unterminated quoted string");
        if (*at == '\\' && at[1] != '\0' && strchr(quoted ? "$`\\\"" : "$`\\", at[1]) != NULL)
            at++;
        text_add(lexer->shell, &text, at, 1);
    }
    enter(lexer);
    text_add(lexer->shell, &text, "", 0);
    inner.at = text.bytes;
    close_text(lexer, builder);
    part = add_part(lexer, builder, PART_COMMAND, quoted);
    lexer_next(&inner);
    part->program = parse_list(&inner, TOKEN_END);
    lexer->at = at + 1;
    lexer->shell->depth--;
}

static void lex_arithmetic(struct lexer *lexer, struct builder *builder, bool quoted)
{
    struct builder inner = {.first = NULL};
    struct part *part;

    enter(lexer);
    lexer->at += 3;
    for (unsigned depth = 0; depth != 0 || *lexer->at != ')'; ) {
        if (*lexer->at == '\0')
            syntax(lexer, "missing '))'");
        depth += *lexer->at == '(';
        depth -= *lexer->at == ')';
        lex_quoted(lexer, &inner);
    }
    if (lexer->at[1] != ')')
        syntax(lexer, "missing '))'");
    lexer->at += 2;
    close_text(lexer, builder);
    part = add_part(lexer, builder, PART_ARITHMETIC, quoted);
    part->operand = finish(lexer, &inner);
    lexer->shell->depth--;
}

/* Up to the brace, or to `end`. */
static struct word *lex_operand(struct lexer *lexer, char end)
{
    struct builder inner = {.first = NULL};

    while (*lexer->at != '}' && *lexer->at != end) {
        if (*lexer->at == '\0')
            syntax(lexer, "missing '}'");
        if (!lex_special(lexer, &inner))
            add_text(lexer, &inner, lexer->at++, 1, false);
    }
    return finish(lexer, &inner);
}

static const char *lex_name(struct lexer *lexer)
{
    const char *start = lexer->at;

    if (is_name(*lexer->at, true))
        while (is_name(*lexer->at, false))
            lexer->at++;
    else if (isdigit((unsigned char)*lexer->at) || (*lexer->at != '\0' &&
             strchr("?#@*$!-", *lexer->at) != NULL))
        lexer->at++;
    return shell_copy(lexer->shell, start, (size_t)(lexer->at - start));
}

/* What stands behind ${name. */
static void lex_operation(struct lexer *lexer, struct part *part)
{
    if (*lexer->at == ':' && lexer->at[1] != '\0' && strchr("-+=?", lexer->at[1]) != NULL)
        part->operation[1] = *lexer->at++; /* the operation itself comes first */
    if (strchr("-+=?%#:/", *lexer->at) == NULL)
        shell_unknown(lexer->shell, "${...} of a kind");
    part->operation[0] = *lexer->at++;
    if (strchr("%#/", part->operation[0]) != NULL && *lexer->at == part->operation[0])
        part->operation[1] = *lexer->at++;
    part->operand = lex_operand(lexer, part->operation[0] == '/' ? '/' : '}');
    if (*lexer->at == '/' && part->operation[0] == '/') {
        lexer->at++;
        part->second = lex_operand(lexer, '}');
    }
}

static void lex_braces(struct lexer *lexer, struct builder *builder, bool quoted)
{
    struct part *part;

    enter(lexer);
    close_text(lexer, builder);
    part = add_part(lexer, builder, PART_VARIABLE, quoted);
    lexer->at += 2;
    if (*lexer->at == '#' && lexer->at[1] != '}') {
        part->operation[0] = 'l';
        lexer->at++;
    }
    part->text = lex_name(lexer);
    if (*lexer->at == '\0')
        syntax(lexer, "missing '}'");
    if (part->text[0] == '\0')
        syntax(lexer, "bad substitution");
    if (*lexer->at != '}' && part->operation[0] == '\0')
        lex_operation(lexer, part);
    if (*lexer->at != '}')
        syntax(lexer, "missing '}'");
    lexer->at++;
    lexer->shell->depth--;
}

static void lex_dollar(struct lexer *lexer, struct builder *builder, bool quoted)
{
    if (lexer->at[1] == '(' && lexer->at[2] == '(') {
        lex_arithmetic(lexer, builder, quoted);
    } else if (lexer->at[1] == '(') {
        struct part *part;

        close_text(lexer, builder);
        part = add_part(lexer, builder, PART_COMMAND, quoted);
        lexer->at += 2;
        part->program = lex_program(lexer);
    } else if (lexer->at[1] == '{') {
        lex_braces(lexer, builder, quoted);
    } else if (is_name(lexer->at[1], false) ||
               (lexer->at[1] != '\0' && strchr("?#@*$!-", lexer->at[1]) != NULL)) {
        close_text(lexer, builder);
        lexer->at++;
        add_part(lexer, builder, PART_VARIABLE, quoted)->text = lex_name(lexer);
    } else {
        add_text(lexer, builder, lexer->at++, 1, quoted);
    }
}

/* --- tokens ----------------------------------------------------------------------------------- */

/* {a,b}, {1..3}, $'a' and $"a" are plain text in ash, and something else in bash. */
static bool is_bash_only(const char *at)
{
    size_t length = strcspn(at, " \t\n;&|()<>}");

    if (at[0] == '$' && (at[1] == '\'' || at[1] == '"'))
        return true;
    if (at[0] != '{' || at[length] != '}')
        return false;
    for (size_t i = 1; i < length; i++)
        if (at[i] == ',' || strncmp(at + i, "..", 2) == 0)
            return true;
    return false;
}

static void lex_word(struct lexer *lexer)
{
    struct builder builder = {.first = NULL};

    while (*lexer->at != '\0' && strchr(" \t\n;&|()<>", *lexer->at) == NULL) {
        if (lexer->shell->own.bash && is_bash_only(lexer->at))
            shell_unknown(lexer->shell, "bash's syntax");
        if (!lex_special(lexer, &builder))
            add_text(lexer, &builder, lexer->at++, 1, false);
    }
    lexer->word = finish(lexer, &builder);
    lexer->token = TOKEN_WORD;
}

static void lex_redirect(struct lexer *lexer, int fd)
{
    struct redirect *redirect = shell_alloc(lexer->shell, sizeof(*redirect));
    char c = *lexer->at++;

    redirect->kind = c == '<' ? REDIRECT_IN : REDIRECT_OUT;
    redirect->fd = fd >= 0 ? fd : c != '<';
    lexer->is_here = c == '<' && strncmp(lexer->at, "<<", 2) != 0 && *lexer->at == '<';
    lexer->strips_tabs = lexer->is_here && lexer->at[1] == '-';
    if (lexer->is_here) {
        lexer->at += 1 + lexer->strips_tabs;
        redirect->kind = REDIRECT_HERE;
    } else if (c == '<' && *lexer->at == '<') {
        if (!lexer->shell->own.bash)
            syntax(lexer, "unexpected redirection");
        lexer->at += 2;
        redirect->kind = REDIRECT_HERE;
    } else if (c == '&') {
        lexer->at++;
        redirect->kind = REDIRECT_BOTH;
    } else if (*lexer->at == '&') {
        lexer->at++;
        redirect->kind = REDIRECT_DUP;
    } else if (*lexer->at == '>') {
        lexer->at++;
        redirect->kind = c == '>' ? REDIRECT_APPEND : REDIRECT_READWRITE;
    } else if (*lexer->at == '|' && c == '>') {
        lexer->at++;
    }
    lexer->redirect = redirect;
    lexer->token = TOKEN_REDIRECT;
}

/* --- here documents --------------------------------------------------------------------------- */

void lexer_here(struct lexer *lexer, struct redirect *redirect)
{
    struct here *here = shell_alloc(lexer->shell, sizeof(*here)), **last = &lexer->here;

    here->redirect = redirect;
    here->delimiter = word_constant(lexer->shell, lexer->word);
    here->strips_tabs = lexer->strips_tabs;
    if (here->delimiter == NULL)
        shell_unknown(lexer->shell, "here document");
    for (const struct part *part = lexer->word->parts; part != NULL; part = part->next)
        here->quoted = here->quoted || part->quoted;
    while (*last != NULL)
        last = &(*last)->next;
    *last = here;
}

/* A text that is taken as if it stood in double quotes, in which those mean nothing. */
static struct word *lex_document(struct shell *shell, const char *text)
{
    struct lexer lexer = {.shell = shell, .at = text};
    struct builder builder = {.first = NULL};

    add_text(&lexer, &builder, "", 0, true);
    while (*lexer.at != '\0') {
        if (*lexer.at == '\\')
            lex_backslash(&lexer, &builder, "$`\\");
        else
            lex_quoted(&lexer, &builder);
    }
    return finish(&lexer, &builder);
}

static void lex_here(struct lexer *lexer, const struct here *here)
{
    struct text text = {.length = 0};
    struct builder builder = {.first = NULL};

    text_add(lexer->shell, &text, "", 0);
    while (*lexer->at != '\0') {
        const char *start = lexer->at + (here->strips_tabs ? strspn(lexer->at, "\t") : 0);
        size_t length = strcspn(start, "\n");

        lexer->at = start + length + (start[length] == '\n');
        if (length == strlen(here->delimiter) && strncmp(start, here->delimiter, length) == 0)
            break;
        text_add(lexer->shell, &text, start, length);
        text_add(lexer->shell, &text, "\n", 1);
    }
    if (!here->quoted) {
        here->redirect->target = lex_document(lexer->shell, text.bytes);
        return;
    }
    add_text(lexer, &builder, text.bytes, text.length, true);
    here->redirect->target = finish(lexer, &builder);
}

/* --- tokens ----------------------------------------------------------------------------------- */

static bool lex_operator(struct lexer *lexer)
{
    static const struct {
        const char *text;
        enum token token;
    } operators[] = {
        {"\n", TOKEN_NEWLINE}, {";;", TOKEN_DOUBLE_SEMICOLON}, {";", TOKEN_SEMICOLON},
        {"&&", TOKEN_AND},     {"&", TOKEN_AMPERSAND},         {"||", TOKEN_OR},
        {"|", TOKEN_PIPE},     {"(", TOKEN_OPEN},              {")", TOKEN_CLOSE},
    };

    for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
        size_t length = strlen(operators[i].text);

        if (strncmp(lexer->at, operators[i].text, length) == 0) {
            lexer->at += length;
            lexer->token = operators[i].token;
            for (; lexer->token == TOKEN_NEWLINE && lexer->here != NULL;
                 lexer->here = lexer->here->next)
                lex_here(lexer, lexer->here);
            return true;
        }
    }
    return false;
}

static void skip_blanks(struct lexer *lexer)
{
    for (;;) {
        if (*lexer->at == ' ' || *lexer->at == '\t')
            lexer->at++;
        else if (*lexer->at == '\\' && lexer->at[1] == '\n')
            lexer->at += 2;
        else
            break;
    }
    if (*lexer->at == '#')
        lexer->at += strcspn(lexer->at, "\n");
}

void lexer_next(struct lexer *lexer)
{
    skip_blanks(lexer);
    if (*lexer->at == '\0') {
        lexer->token = TOKEN_END;
    } else if (*lexer->at == '<' || *lexer->at == '>' ||
               (*lexer->at == '&' && lexer->at[1] == '>')) {
        lex_redirect(lexer, -1);
    } else if (isdigit((unsigned char)*lexer->at) && lexer->at[1] != '\0' &&
               strchr("<>", lexer->at[1]) != NULL) {
        lex_redirect(lexer, *lexer->at++ - '0');
    } else if (!lex_operator(lexer)) {
        lex_word(lexer);
    }
}
