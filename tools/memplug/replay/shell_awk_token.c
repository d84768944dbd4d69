/* SPDX-License-Identifier: MIT */
/* From the bytes of an awk program to its tokens. */
#include "shell_awk.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void awk_fail(struct awk_parser *parser)
{
    parser->failed = true;
    parser->at = "";
    parser->token = TA_END;
    parser->sign[0] = '\0';
}

const char *awk_quoted(struct awk_parser *parser, char delimiter)
{
    static const char names[] = "nt\\\"/ra", values[] = "\n\t\\\"/\r\a";
    struct text text = {.length = 0};

    text_add(parser->shell, &text, "", 0);
    for (; *parser->at != delimiter; parser->at++) {
        const char *found;

        if (*parser->at == '\0') {
            awk_fail(parser);
            return "";
        }
        if (*parser->at == '\\' && parser->at[1] != '\0') {
            parser->at++;
            found = strchr(names, *parser->at);
            if (delimiter == '"' && found != NULL) {
                text_add(parser->shell, &text, &values[found - names], 1);
                continue;
            }
            if (delimiter == '"' || *parser->at != '/')
                text_add(parser->shell, &text, "\\", 1);
        }
        text_add(parser->shell, &text, parser->at, 1);
    }
    parser->at++;
    return text.bytes;
}

static void read_word(struct awk_parser *parser)
{
    static const char *const functions[] = {"length", "substr", "index", "split", "sub", "gsub",
                                            "sprintf", "toupper", "tolower", "int", "match"};
    const char *start = parser->at;

    while (*parser->at == '_' || isalnum((unsigned char)*parser->at))
        parser->at++;
    parser->text = shell_copy(parser->shell, start, (size_t)(parser->at - start));
    parser->token = TA_NAME;
    parser->glued = *parser->at == '(';
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (strcmp(functions[i], parser->text) == 0)
            parser->token = TA_FUNCTION;
}

static void read_sign(struct awk_parser *parser)
{
    static const char *const pairs[] = {"==", "!=", "<=", ">=", "&&", "||", "++", "--", "+=",
                                        "-=", "*=", "/=", "%=", "^=", "!~"};
    size_t length = 1;

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (strncmp(parser->at, pairs[i], 2) == 0)
            length = 2;
    memcpy(parser->sign, parser->at, length);
    parser->sign[length] = '\0';
    parser->at += length;
    parser->token = TA_SIGN;
    if (parser->sign[1] == '\0' && strchr("{}()[];,?:!~<>+-*/%^=$|", parser->sign[0]) == NULL)
        awk_fail(parser);
}

void awk_next(struct awk_parser *parser)
{
    for (;;) {
        if (*parser->at == '\\' && parser->at[1] == '\n')
            parser->at += 2;
        else if (*parser->at == '#')
            parser->at += strcspn(parser->at, "\n");
        else if (*parser->at == ' ' || *parser->at == '\t')
            parser->at++;
        else
            break;
    }
    parser->sign[0] = '\0';
    if (*parser->at == '\0') {
        parser->token = TA_END;
    } else if (*parser->at == '\n') {
        parser->at++;
        parser->token = TA_NEWLINE;
    } else if (*parser->at == '"') {
        parser->at++;
        parser->token = TA_STRING;
        parser->text = awk_quoted(parser, '"');
    } else if (isdigit((unsigned char)*parser->at) ||
               (*parser->at == '.' && isdigit((unsigned char)parser->at[1]))) {
        char *end;

        parser->number = strtod(parser->at, &end);
        parser->at = end;
        parser->token = TA_NUMBER;
    } else if (*parser->at == '_' || isalpha((unsigned char)*parser->at)) {
        read_word(parser);
    } else {
        read_sign(parser);
    }
}

bool awk_is(const struct awk_parser *parser, const char *sign)
{
    return parser->token == TA_SIGN && strcmp(parser->sign, sign) == 0;
}

bool awk_is_word(const struct awk_parser *parser, const char *word)
{
    return parser->token == TA_NAME && strcmp(parser->text, word) == 0;
}

bool awk_take(struct awk_parser *parser, const char *sign)
{
    if (!awk_is(parser, sign))
        return false;
    awk_next(parser);
    return true;
}

void awk_need(struct awk_parser *parser, const char *sign)
{
    if (!awk_take(parser, sign))
        awk_fail(parser);
}

void awk_skip_newlines(struct awk_parser *parser)
{
    while (parser->token == TA_NEWLINE)
        awk_next(parser);
}
