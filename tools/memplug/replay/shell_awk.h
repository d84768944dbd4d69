/* SPDX-License-Identifier: MIT */
/*
 * awk: shell_awk_token.c and shell_awk_parse.c make a tree of a program, shell_awk_run.c walks it
 * over the lines, shell_awk.c evaluates its expressions.
 */
#ifndef SHELL_AWK_H
#define SHELL_AWK_H

#include "shell_private.h"

enum awk_kind {
    /* expressions; a, b, c are operands */
    AWK_NUMBER, AWK_STRING, AWK_REGEX, /* number; text */
    AWK_NAME, AWK_ELEMENT,             /* text; text, a: subscript */
    AWK_FIELD,                         /* a */
    AWK_ASSIGN,                        /* a, text: operator before =, b */
    AWK_STEP,                          /* a, number: +1 or -1, text: "a" if afterwards */
    AWK_TERNARY, AWK_OR, AWK_AND, AWK_IN, AWK_MATCH, AWK_NO_MATCH, AWK_COMPARE, /* text: operator */
    AWK_CONCAT, AWK_COMPUTE, AWK_NOT, AWK_MINUS, AWK_CALL, /* text: name, a: arguments by next */
    AWK_GROUP,                         /* a, in brackets */
    /* statements, one after the other by next */
    AWK_PRINT, AWK_PRINTF,             /* a: expressions by next */
    AWK_EXPRESSION, AWK_BLOCK,         /* a */
    AWK_IF, AWK_WHILE, AWK_DO,         /* a: condition, b, c */
    AWK_FOR,                           /* a, b, c: the brackets; d: body */
    AWK_FOR_IN,                        /* text: variable, a: name of the array; d: body */
    AWK_NEXT, AWK_EXIT, AWK_BREAK, AWK_CONTINUE, AWK_DELETE, /* a */
};

struct awk_node {
    enum awk_kind kind;
    struct awk_node *a, *b, *c, *d, *next;
    const char *text;
    double number;
};

enum awk_when { AWK_ALWAYS, AWK_BEGIN, AWK_END, AWK_WHERE, AWK_RANGE };

struct awk_rule {
    enum awk_when when;
    struct awk_node *from, *to; /* patterns */
    struct awk_node *action;    /* null: print the line */
    bool inside;                /* between from and to now */
    struct awk_rule *next;
};

/* --- tokens ----------------------------------------------------------------------------------- */

/* TA: token of awk. */
enum awk_token { TA_END, TA_NUMBER, TA_STRING, TA_NAME, TA_FUNCTION, TA_SIGN, TA_NEWLINE };

struct awk_parser {
    struct shell *shell;
    const char *at;
    enum awk_token token;
    char sign[3];
    const char *text; /* of TA_STRING, TA_NAME, TA_FUNCTION */
    double number;
    bool after_value; /* a slash divides */
    bool glued;       /* TA_NAME: a bracket follows at once */
    bool no_in, no_greater;
    bool failed;
    unsigned depth;
};

void awk_next(struct awk_parser *parser);
void awk_fail(struct awk_parser *parser);
/* What stands behind the first delimiter; a regex keeps its backslashes. */
const char *awk_quoted(struct awk_parser *parser, char delimiter);
bool awk_is(const struct awk_parser *parser, const char *sign);
bool awk_is_word(const struct awk_parser *parser, const char *word);
bool awk_take(struct awk_parser *parser, const char *sign);
void awk_need(struct awk_parser *parser, const char *sign);
void awk_skip_newlines(struct awk_parser *parser);

/* Null: something in it is not understood. */
struct awk_rule *awk_parse(struct shell *shell, const char *script);

/* --- running ---------------------------------------------------------------------------------- */

struct awk_value {
    enum { VALUE_UNSET, VALUE_NUMBER, VALUE_TEXT, VALUE_FIELD } kind; /* FIELD: whatever it looks */
    const char *text;
    double number;
};

struct awk_element {
    const char *key;
    struct awk_value value;
    struct awk_element *next; /* in the order in which they came */
};

struct awk_cell {
    const char *name;
    struct awk_value value;
    struct awk_element *elements;
    struct awk_cell *next;
};

struct awk {
    struct shell *shell;
    struct awk_rule *rules;
    struct awk_cell *cells;
    struct list fields; /* without $0 */
    const char *line;
    double nr, fnr;
    bool mark;    /* of the line */
    bool tainted; /* something was kept of a line that was marked */
    bool begun;   /* a printed line has its mark already */
    enum { AWK_GO, AWK_DO_NEXT, AWK_DO_EXIT, AWK_DO_BREAK, AWK_DO_CONTINUE } flow;
    int status;
    unsigned nr_steps;
};

struct awk_value awk_evaluate(struct awk *awk, const struct awk_node *node);
const char *awk_text(struct awk *awk, const struct awk_value *value);
double awk_number(const struct awk_value *value);
bool awk_true(const struct awk_value *value);
struct awk_cell *awk_cell(struct awk *awk, const char *name);
const char *awk_setting(struct awk *awk, const char *name);
void awk_set_line(struct awk *awk, const char *line);
const char *awk_format(struct awk *awk, const struct awk_node *arguments);

#endif
