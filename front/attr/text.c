/* SPDX-License-Identifier: MIT */
#include "text.h"

#include <errno.h>
#include <string.h>

static void put_char(struct mpl_attr_text *text, char c)
{
    if (text->length + 1 < text->size_bytes)
        text->buffer[text->length] = c;
    text->length++;
}

void mpl_attr_put(struct mpl_attr_text *text, const char *string)
{
    for (; *string != '\0'; string++)
        put_char(text, *string);
}

void mpl_attr_put_number(struct mpl_attr_text *text, uint64_t number, unsigned base, unsigned width,
                         char fill)
{
    char digits[20]; /* of the largest number, decimal */
    unsigned nr = 0;

    do {
        digits[nr++] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number != 0);
    for (; width > nr; width--)
        put_char(text, fill);
    while (nr > 0)
        put_char(text, digits[--nr]);
}

void mpl_attr_put_pair(struct mpl_attr_text *text, const char *name, uint64_t number)
{
    mpl_attr_put(text, name);
    put_char(text, ' ');
    mpl_attr_put_number(text, number, 10, 0, ' ');
    put_char(text, '\n');
}

int mpl_attr_end(struct mpl_attr_text *text)
{
    if (text->size_bytes > 0)
        text->buffer[text->length < text->size_bytes ? text->length : text->size_bytes - 1] = '\0';
    return (int)text->length;
}

struct mpl_attr_word mpl_attr_word(const char *text, size_t length)
{
    const char *end = memchr(text, '\0', length);

    return (struct mpl_attr_word){.text = text,
                                  .length = end != NULL ? (size_t)(end - text) : length};
}

bool mpl_attr_is(struct mpl_attr_word word, const char *name)
{
    size_t length = strlen(name);

    if (word.length == length + 1 && word.text[length] == '\n')
        word.length--;
    return word.length == length && memcmp(word.text, name, length) == 0;
}

int mpl_attr_choice(struct mpl_attr_word word, const char *const *names, unsigned nr_names)
{
    for (unsigned i = 0; i < nr_names; i++)
        if (mpl_attr_is(word, names[i]))
            return (int)i;
    return -EINVAL;
}

static char at(struct mpl_attr_word word, size_t index)
{
    return index < word.length ? word.text[index] : '\0';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

int mpl_attr_bool(struct mpl_attr_word word, bool *value)
{
    char first = lower(at(word, 0)), second = lower(at(word, 1));

    if (first == 'y' || first == 't' || first == '1' || (first == 'o' && second == 'n'))
        *value = true;
    else if (first == 'n' || first == 'f' || first == '0' || (first == 'o' && second == 'f'))
        *value = false;
    else
        return -EINVAL;
    return 0;
}

/* 16 or more: no digit of any base here. */
static unsigned digit(char c)
{
    c = lower(c);
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
}

int mpl_attr_number(struct mpl_attr_word word, unsigned base, uint64_t max, uint64_t *value)
{
    size_t index = at(word, 0) == '+' ? 1 : 0, start;
    uint64_t number = 0;
    bool overflow = false;

    if (base == 0) {
        bool is_hex = at(word, index) == '0' && lower(at(word, index + 1)) == 'x' &&
                      digit(at(word, index + 2)) < 16;

        base = is_hex ? 16 : at(word, index) == '0' ? 8 : 10;
        index += is_hex ? 2 : 0;
    }
    for (start = index; digit(at(word, index)) < base; index++) {
        unsigned next = digit(at(word, index));

        overflow |= number > (UINT64_MAX - next) / base;
        number = number * base + next;
    }
    /* As the kernel: a number that is too large is that, whatever follows it. */
    if (overflow)
        return -ERANGE;
    if (index == start)
        return -EINVAL;
    index += at(word, index) == '\n' ? 1 : 0;
    if (index != word.length)
        return -EINVAL;
    if (number > max)
        return -ERANGE;
    *value = number;
    return 0;
}
