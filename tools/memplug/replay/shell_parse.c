/* SPDX-License-Identifier: MIT */
/* From tokens to a tree. */
#include "shell_private.h"

#include <ctype.h>
#include <string.h>

static struct node *parse_command(struct lexer *lexer);

const char *word_literal(const struct word *word)
{
    const struct part *part = word->parts;

    if (part == NULL || part->next != NULL || part->kind != PART_TEXT || part->quoted)
        return NULL;
    return part->text;
}

const char *word_constant(struct shell *shell, const struct word *word)
{
    struct text text = {.length = 0};

    for (const struct part *part = word->parts; part != NULL; part = part->next) {
        if (part->kind != PART_TEXT)
            return NULL;
        text_string(shell, &text, part->text);
    }
    text_add(shell, &text, "", 0);
    return text.bytes;
}

static const char *reserved(const struct lexer *lexer)
{
    static const char *const words[] = {"if", "then", "elif", "else", "fi", "while", "until",
                                        "for", "do", "done", "case", "esac", "{", "}", "!",
                                        "function"};
    const char *text = lexer->token == TOKEN_WORD ? word_literal(lexer->word) : NULL;

    for (size_t i = 0; text != NULL && i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(text, words[i]) == 0)
            return words[i];
    return NULL;
}

static bool is_reserved(const struct lexer *lexer, const char *word)
{
    const char *found = reserved(lexer);

    return found != NULL && strcmp(found, word) == 0;
}

_Noreturn void lexer_unexpected(struct lexer *lexer, const char *expected)
{
    static const char *const names[] = {
        "end of file", "word", "newline", "\";\"", "\";;\"", "\"&\"",
        "\"&&\"", "\"||\"", "\"|\"", "\"(\"", "\")\"", "redirection",
    };
    const char *name = names[lexer->token];

    if (lexer->shell->own.bash)
        shell_unknown(lexer->shell, "bash's syntax");
    if (reserved(lexer) != NULL)
        name = shell_format(lexer->shell, "\"%s\"", reserved(lexer));
    if (expected != NULL)
        shell_abort(lexer->shell, "syntax error: unexpected %s (expecting \"%s\")", name, expected);
    shell_abort(lexer->shell, "syntax error: unexpected %s", name);
}

static struct node *new_node(struct lexer *lexer, enum node_kind kind, struct node *first)
{
    struct node *node = shell_alloc(lexer->shell, sizeof(*node));

    node->kind = kind;
    node->first = first;
    return node;
}

static void skip_newlines(struct lexer *lexer)
{
    while (lexer->token == TOKEN_NEWLINE)
        lexer_next(lexer);
}

static void expect(struct lexer *lexer, const char *word)
{
    if (!is_reserved(lexer, word))
        lexer_unexpected(lexer, word);
    lexer_next(lexer);
}

/* --- simple commands -------------------------------------------------------------------------- */

/* <<< is a line. */
static void add_newline(struct lexer *lexer, struct word *word)
{
    struct part **last = &word->parts;

    while (*last != NULL)
        last = &(*last)->next;
    *last = shell_alloc(lexer->shell, sizeof(**last));
    (*last)->text = "\n";
    (*last)->quoted = true;
}

static struct redirect *parse_redirect(struct lexer *lexer)
{
    struct redirect *redirect = lexer->redirect;

    lexer_next(lexer);
    if (lexer->token != TOKEN_WORD)
        lexer_unexpected(lexer, NULL);
    redirect->target = lexer->word;
    if (lexer->is_here)
        lexer_here(lexer, redirect);
    else if (redirect->kind == REDIRECT_HERE)
        add_newline(lexer, redirect->target);
    lexer_next(lexer);
    return redirect;
}

static void parse_redirects(struct lexer *lexer, struct node *node)
{
    struct redirect **last = &node->redirects;

    while (*last != NULL)
        last = &(*last)->next;
    for (; lexer->token == TOKEN_REDIRECT; last = &(*last)->next)
        *last = parse_redirect(lexer);
}

static bool is_assignment(const struct word *word)
{
    const char *at;

    if (word->parts == NULL || word->parts->kind != PART_TEXT || word->parts->quoted)
        return false;
    at = word->parts->text;
    if (*at != '_' && !isalpha((unsigned char)*at))
        return false;
    while (*at == '_' || isalnum((unsigned char)*at))
        at++;
    return *at == '=';
}

static struct node *parse_one(struct lexer *lexer);

/* The body behind name(), or behind "function name". */
static struct node *parse_function(struct lexer *lexer, const char *name)
{
    struct node *node = new_node(lexer, NODE_FUNCTION, NULL);

    if (name == NULL)
        shell_abort(lexer->shell, "syntax error: bad function name");
    node->name = name;
    if (lexer->token == TOKEN_OPEN) {
        lexer_next(lexer);
        if (lexer->token != TOKEN_CLOSE)
            lexer_unexpected(lexer, ")");
        lexer_next(lexer);
    }
    skip_newlines(lexer);
    node->first = parse_one(lexer);
    return node;
}

/* Between [[ and ]] the operators are words. */
static bool takes_operator(struct lexer *lexer, const struct node *node)
{
    static const char *const texts[] = {[TOKEN_AND] = "&&", [TOKEN_OR] = "||", [TOKEN_OPEN] = "(",
                                        [TOKEN_CLOSE] = ")"};
    const char *first = node->words != NULL ? word_literal(node->words) : NULL, *last = NULL;
    struct part *part;

    if (first == NULL || strcmp(first, "[[") != 0)
        return false;
    for (const struct word *word = node->words; word != NULL; word = word->next)
        last = word_literal(word);
    if ((last != NULL && strcmp(last, "]]") == 0) || lexer->token < TOKEN_AND ||
        lexer->token > TOKEN_CLOSE || texts[lexer->token] == NULL)
        return false;
    lexer->word = shell_alloc(lexer->shell, sizeof(*lexer->word));
    lexer->word->parts = part = shell_alloc(lexer->shell, sizeof(*part));
    part->text = texts[lexer->token];
    lexer->token = TOKEN_WORD;
    return true;
}

static struct node *parse_simple(struct lexer *lexer)
{
    struct node *node = new_node(lexer, NODE_COMMAND, NULL);
    struct word **words = &node->words, **assigns = &node->assigns;

    for (;;) {
        if (lexer->token == TOKEN_REDIRECT) {
            parse_redirects(lexer, node);
            continue;
        }
        if (lexer->token != TOKEN_WORD && !takes_operator(lexer, node))
            break;
        if (node->words == NULL && is_assignment(lexer->word)) {
            *assigns = lexer->word;
            assigns = &lexer->word->next;
        } else {
            *words = lexer->word;
            words = &lexer->word->next;
        }
        lexer_next(lexer);
    }
    if (node->words != NULL && node->words->next == NULL && node->redirects == NULL &&
        node->assigns == NULL && lexer->token == TOKEN_OPEN)
        return parse_function(lexer, word_literal(node->words));
    if (node->words == NULL && node->assigns == NULL && node->redirects == NULL)
        lexer_unexpected(lexer, NULL);
    return node;
}

/* --- compound commands ------------------------------------------------------------------------ */

/* A list that ends before one of these words; it is not empty. */
static struct node *parse_body(struct lexer *lexer, const char *const *ends)
{
    struct node *list = new_node(lexer, NODE_LIST, NULL), **last = &list->first;

    skip_newlines(lexer);
    for (;;) {
        for (const char *const *end = ends; list->first != NULL && *end != NULL; end++)
            if (is_reserved(lexer, *end))
                return list;
        if (lexer->token == TOKEN_END)
            lexer_unexpected(lexer, ends[0]);
        *last = parse_command(lexer);
        last = &(*last)->next;
        skip_newlines(lexer);
    }
}

static struct node *parse_if(struct lexer *lexer)
{
    struct node *node = new_node(lexer, NODE_IF, NULL);

    lexer_next(lexer);
    node->first = parse_body(lexer, (const char *const[]){"then", NULL});
    lexer_next(lexer);
    node->second = parse_body(lexer, (const char *const[]){"fi", "elif", "else", NULL});
    if (is_reserved(lexer, "elif")) {
        node->third = parse_if(lexer); /* takes the fi */
        return node;
    }
    if (is_reserved(lexer, "else")) {
        lexer_next(lexer);
        node->third = parse_body(lexer, (const char *const[]){"fi", NULL});
    }
    expect(lexer, "fi");
    return node;
}

static struct node *parse_do(struct lexer *lexer)
{
    struct node *body;

    skip_newlines(lexer);
    expect(lexer, "do");
    body = parse_body(lexer, (const char *const[]){"done", NULL});
    lexer_next(lexer);
    return body;
}

static struct node *parse_while(struct lexer *lexer, enum node_kind kind)
{
    struct node *node = new_node(lexer, kind, NULL);

    lexer_next(lexer);
    node->first = parse_body(lexer, (const char *const[]){"do", NULL});
    node->second = parse_do(lexer);
    return node;
}

static struct node *parse_for(struct lexer *lexer)
{
    struct node *node = new_node(lexer, NODE_FOR, NULL);
    struct word **last = &node->words;

    lexer_next(lexer);
    node->name = lexer->token == TOKEN_WORD ? word_literal(lexer->word) : NULL;
    if (node->name == NULL && lexer->shell->own.bash)
        shell_unknown(lexer->shell, "bash's syntax");
    if (node->name == NULL)
        shell_abort(lexer->shell, "syntax error: bad for loop variable");
    lexer_next(lexer);
    skip_newlines(lexer);
    if (lexer->token == TOKEN_WORD && word_literal(lexer->word) != NULL &&
        strcmp(word_literal(lexer->word), "in") == 0) {
        node->in = true;
        for (lexer_next(lexer); lexer->token == TOKEN_WORD; lexer_next(lexer)) {
            *last = lexer->word;
            last = &lexer->word->next;
        }
        if (lexer->token != TOKEN_SEMICOLON && lexer->token != TOKEN_NEWLINE)
            lexer_unexpected(lexer, NULL);
    }
    if (lexer->token == TOKEN_SEMICOLON)
        lexer_next(lexer);
    node->second = parse_do(lexer);
    return node;
}

static struct node *parse_item(struct lexer *lexer)
{
    struct node *item = new_node(lexer, NODE_ITEM, NULL), **last;
    struct word **pattern = &item->words;

    if (lexer->token == TOKEN_OPEN)
        lexer_next(lexer);
    for (;;) {
        if (lexer->token != TOKEN_WORD)
            lexer_unexpected(lexer, NULL);
        *pattern = lexer->word;
        pattern = &lexer->word->next;
        lexer_next(lexer);
        if (lexer->token != TOKEN_PIPE)
            break;
        lexer_next(lexer);
    }
    if (lexer->token != TOKEN_CLOSE)
        lexer_unexpected(lexer, ")");
    lexer_next(lexer);
    item->second = new_node(lexer, NODE_LIST, NULL);
    last = &item->second->first;
    for (skip_newlines(lexer);
         lexer->token != TOKEN_DOUBLE_SEMICOLON && !is_reserved(lexer, "esac");
         skip_newlines(lexer)) {
        if (lexer->token == TOKEN_END)
            lexer_unexpected(lexer, ";;");
        *last = parse_command(lexer);
        last = &(*last)->next;
    }
    if (lexer->token == TOKEN_DOUBLE_SEMICOLON)
        lexer_next(lexer);
    skip_newlines(lexer);
    return item;
}

static struct node *parse_case(struct lexer *lexer)
{
    struct node *node = new_node(lexer, NODE_CASE, NULL), **last = &node->first;

    lexer_next(lexer);
    if (lexer->token != TOKEN_WORD)
        lexer_unexpected(lexer, NULL);
    node->words = lexer->word;
    lexer_next(lexer);
    skip_newlines(lexer);
    if (lexer->token != TOKEN_WORD || word_literal(lexer->word) == NULL ||
        strcmp(word_literal(lexer->word), "in") != 0)
        lexer_unexpected(lexer, "in");
    lexer_next(lexer);
    for (skip_newlines(lexer); !is_reserved(lexer, "esac"); last = &(*last)->next)
        *last = parse_item(lexer);
    lexer_next(lexer);
    return node;
}

static struct node *parse_group(struct lexer *lexer)
{
    struct node *node;

    if (lexer->token == TOKEN_OPEN) {
        lexer_next(lexer);
        node = new_node(lexer, NODE_SUBSHELL, parse_list(lexer, TOKEN_CLOSE));
        if (node->first->first == NULL)
            lexer_unexpected(lexer, NULL);
    } else {
        lexer_next(lexer);
        node = new_node(lexer, NODE_GROUP, parse_body(lexer, (const char *const[]){"}", NULL}));
    }
    lexer_next(lexer);
    return node;
}

static struct node *parse_compound(struct lexer *lexer)
{
    if (lexer->token == TOKEN_OPEN || is_reserved(lexer, "{"))
        return parse_group(lexer);
    if (is_reserved(lexer, "if"))
        return parse_if(lexer);
    if (is_reserved(lexer, "while"))
        return parse_while(lexer, NODE_WHILE);
    if (is_reserved(lexer, "until"))
        return parse_while(lexer, NODE_UNTIL);
    if (is_reserved(lexer, "for"))
        return parse_for(lexer);
    if (is_reserved(lexer, "case"))
        return parse_case(lexer);
    if (is_reserved(lexer, "function")) {
        const char *name;

        lexer_next(lexer);
        name = lexer->token == TOKEN_WORD ? word_literal(lexer->word) : NULL;
        lexer_next(lexer);
        return parse_function(lexer, name);
    }
    if (reserved(lexer) != NULL)
        lexer_unexpected(lexer, NULL);
    return NULL;
}

static struct node *parse_one(struct lexer *lexer)
{
    struct node *node;

    if (++lexer->shell->depth > 60)
        shell_unknown(lexer->shell, "deep nesting");
    node = parse_compound(lexer);
    if (node == NULL)
        node = parse_simple(lexer);
    else
        parse_redirects(lexer, node);
    lexer->shell->depth--;
    return node;
}

/* --- pipelines and lists ---------------------------------------------------------------------- */

static struct node *parse_pipe(struct lexer *lexer)
{
    bool not = false;
    struct node *node, **last;

    for (; is_reserved(lexer, "!"); lexer_next(lexer))
        not = !not;
    node = parse_one(lexer);
    if (lexer->token == TOKEN_PIPE) {
        last = &node->next;
        node = new_node(lexer, NODE_PIPE, node);
        while (lexer->token == TOKEN_PIPE) {
            lexer_next(lexer);
            skip_newlines(lexer);
            *last = parse_one(lexer);
            last = &(*last)->next;
        }
    }
    return not ? new_node(lexer, NODE_NOT, node) : node;
}

static bool ends_list(const struct lexer *lexer)
{
    const char *word = reserved(lexer);

    if (lexer->token == TOKEN_END || lexer->token == TOKEN_CLOSE ||
        lexer->token == TOKEN_DOUBLE_SEMICOLON)
        return true;
    return word != NULL && strchr("{!", word[0]) == NULL && strcmp(word, "if") != 0 &&
           strcmp(word, "while") != 0 && strcmp(word, "until") != 0 && strcmp(word, "for") != 0 &&
           strcmp(word, "case") != 0 && strcmp(word, "function") != 0;
}

/* An and-or list with what ends it. */
static struct node *parse_command(struct lexer *lexer)
{
    struct node *node = parse_pipe(lexer);

    while (lexer->token == TOKEN_AND || lexer->token == TOKEN_OR) {
        node = new_node(lexer, lexer->token == TOKEN_AND ? NODE_AND : NODE_OR, node);
        lexer_next(lexer);
        skip_newlines(lexer);
        node->second = parse_pipe(lexer);
    }
    if (lexer->token == TOKEN_AMPERSAND)
        node = new_node(lexer, NODE_BACKGROUND, node);
    if (lexer->token == TOKEN_AMPERSAND || lexer->token == TOKEN_SEMICOLON ||
        lexer->token == TOKEN_NEWLINE)
        lexer_next(lexer);
    else if (!ends_list(lexer))
        lexer_unexpected(lexer, NULL);
    return node;
}

struct node *parse_list(struct lexer *lexer, enum token until)
{
    struct node *list = new_node(lexer, NODE_LIST, NULL), **last = &list->first;

    for (skip_newlines(lexer); lexer->token != until; skip_newlines(lexer)) {
        if (lexer->token == TOKEN_END)
            lexer_unexpected(lexer, ")");
        *last = parse_command(lexer);
        last = &(*last)->next;
    }
    return list;
}

struct node *parse_line(struct shell *shell, const char *line)
{
    struct lexer lexer = {.shell = shell, .at = line};
    unsigned depth = shell->depth;
    struct node *node;

    shell->depth = 0;
    lexer_next(&lexer);
    node = parse_list(&lexer, TOKEN_END);
    shell->depth = depth;
    return node;
}
