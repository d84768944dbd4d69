/* SPDX-License-Identifier: MIT */
#include "server.h"

void mpl_serve_put(struct mpl_words *words, const char *text)
{
    for (; *text != '\0'; text++, words->length++)
        if (words->length < words->size_bytes)
            words->text[words->length] = *text;
}

void mpl_serve_put_decimal(struct mpl_words *words, uint64_t number)
{
    char digits[21];
    unsigned at = sizeof(digits) - 1;

    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    mpl_serve_put(words, digits + at);
}

size_t mpl_serve_put_end(struct mpl_words *words)
{
    if (words->size_bytes > 0)
        words->text[words->length < words->size_bytes ? words->length : words->size_bytes - 1] =
            '\0';
    return words->length;
}

bool mpl_serve_decimal(const char *text, size_t length, uint64_t *number)
{
    if (length > 0 && text[length - 1] == '\n')
        length--;
    *number = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9' || *number > UINT64_MAX / 10 - 1)
            return false;
        *number = *number * 10 + (uint64_t)(text[i] - '0');
    }
    return length > 0;
}

/* FNV-1a. */
uint64_t mpl_serve_hash(const char *text, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
    return hash;
}
