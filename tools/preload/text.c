/* SPDX-License-Identifier: MIT */
#include "text.h"

#include <string.h>

struct mpl_text mpl_text_of(const char *string)
{
    return (struct mpl_text){.start = string, .length = strlen(string)};
}

bool mpl_text_is(struct mpl_text text, const char *string)
{
    return strlen(string) == text.length && memcmp(text.start, string, text.length) == 0;
}

bool mpl_text_cut(struct mpl_text *text, char separator, struct mpl_text *part)
{
    const char *found;

    if (text->length == 0)
        return false;
    found = memchr(text->start, separator, text->length);
    *part = *text;
    if (found)
        part->length = (size_t)(found - text->start);
    text->start += part->length + (found ? 1 : 0);
    text->length -= part->length + (found ? 1 : 0);
    return true;
}

bool mpl_text_pair(struct mpl_text text, struct mpl_text *name, struct mpl_text *value)
{
    const char *found = text.length > 0 ? memchr(text.start, '=', text.length) : NULL;

    if (!found)
        return false;
    *name = (struct mpl_text){.start = text.start, .length = (size_t)(found - text.start)};
    *value = (struct mpl_text){.start = found + 1, .length = text.length - name->length - 1};
    return true;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/* Digits at the start of text, which becomes the rest. */
static bool cut_number(struct mpl_text *text, uint64_t *number)
{
    unsigned base = 10;
    bool any = false;

    if (text->length > 2 && text->start[0] == '0' && (text->start[1] | 0x20) == 'x') {
        base = 16;
        text->start += 2;
        text->length -= 2;
    }
    for (*number = 0; text->length > 0 && digit_of(*text->start) < (int)base; any = true) {
        if (__builtin_mul_overflow(*number, base, number) ||
            __builtin_add_overflow(*number, (uint64_t)digit_of(*text->start), number))
            return false;
        text->start++;
        text->length--;
    }
    return any;
}

bool mpl_text_number(struct mpl_text text, uint64_t *number)
{
    return cut_number(&text, number) && text.length == 0;
}

bool mpl_text_size(struct mpl_text text, uint64_t *bytes)
{
    static const char units[] = "kmgt";
    const char *unit;
    uint64_t factor;

    if (!cut_number(&text, bytes))
        return false;
    if (text.length == 0)
        return true;
    unit = memchr(units, *text.start | 0x20, sizeof(units) - 1);
    if (!unit)
        return false;
    factor = (uint64_t)1 << (10 * (unit - units + 1));
    text.start++;
    text.length--;
    if (text.length != 0 && !mpl_text_is(text, "iB") && !mpl_text_is(text, "B"))
        return false;
    return !__builtin_mul_overflow(*bytes, factor, bytes);
}
