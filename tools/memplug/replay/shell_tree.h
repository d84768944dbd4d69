/* SPDX-License-Identifier: MIT */
/* The tree of a shell line, and how it comes to be. */
#ifndef SHELL_TREE_H
#define SHELL_TREE_H

#include "shell.h"

struct shell;

/* --- the tree --------------------------------------------------------------------------------- */

enum part_kind { PART_TEXT, PART_VARIABLE, PART_COMMAND, PART_ARITHMETIC };

struct part {
    enum part_kind kind;
    bool quoted;
    const char *text;    /* the text, or the variable's name */
    char operation[3];   /* of ${name operation operand}; "len" is "l" */
    struct word *operand; /* also the expression of an arithmetic part */
    struct word *second;  /* of ${name/operand/second} */
    struct node *program;
    struct part *next;
};

struct word {
    struct part *parts;
    struct word *next;
};

enum redirect_kind {
    REDIRECT_IN, REDIRECT_OUT, REDIRECT_APPEND, REDIRECT_DUP, REDIRECT_BOTH,
    REDIRECT_HERE,     /* the target is the text */
    REDIRECT_READWRITE,
};

struct redirect {
    enum redirect_kind kind;
    int fd;
    struct word *target;
    struct redirect *next;
};

enum node_kind {
    NODE_COMMAND,    /* assigns, words */
    NODE_LIST,       /* first, and its siblings by next */
    NODE_PIPE,       /* as a list */
    NODE_AND,        /* first, second */
    NODE_OR,
    NODE_NOT,        /* first */
    NODE_BACKGROUND, /* first */
    NODE_SUBSHELL,   /* first */
    NODE_GROUP,      /* first */
    NODE_IF,         /* first: condition, second: then, third: else or null */
    NODE_WHILE,      /* first: condition, second: body */
    NODE_UNTIL,
    NODE_FOR,        /* name, words, second: body; each argument if !in */
    NODE_CASE,       /* words: the subject; first: items */
    NODE_ITEM,       /* words: patterns; second: body */
    NODE_FUNCTION,   /* name; first: body */
};

struct node {
    enum node_kind kind;
    struct node *first, *second, *third, *next;
    struct word *words, *assigns;
    struct redirect *redirects;
    const char *name;
    bool in;
};

/* --- from text to tree (shell_lex.c, shell_parse.c, shell_check.c) ---------------------------- */

enum token {
    TOKEN_END, TOKEN_WORD, TOKEN_NEWLINE, TOKEN_SEMICOLON, TOKEN_DOUBLE_SEMICOLON,
    TOKEN_AMPERSAND, TOKEN_AND, TOKEN_OR, TOKEN_PIPE, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_REDIRECT,
};

/* A here document whose text begins behind the next newline. */
struct here {
    struct redirect *redirect;
    const char *delimiter;
    bool quoted, strips_tabs;
    struct here *next;
};

struct lexer {
    struct shell *shell;
    const char *at;
    enum token token;
    struct word *word;
    struct redirect *redirect;
    bool is_here, strips_tabs; /* the redirect is << or <<- */
    struct here *here;
};

void lexer_next(struct lexer *lexer);
/* The redirect is a here document with the lexer's word as its delimiter. */
void lexer_here(struct lexer *lexer, struct redirect *redirect);
_Noreturn void lexer_unexpected(struct lexer *lexer, const char *expected);
/* The text of a word that is nothing but unquoted text; else null. */
const char *word_literal(const struct word *word);
/* The same, quoted or not; null if anything in it is known only when it runs. */
const char *word_constant(struct shell *shell, const struct word *word);

/* Up to `until`, which is the lexer's token afterwards. */
struct node *parse_list(struct lexer *lexer, enum token until);
struct node *parse_line(struct shell *shell, const char *line);
/* Is everything understood? Else this leaves. */
void check_line(struct shell *shell, const struct node *node);

#endif
