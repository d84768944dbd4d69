/* SPDX-License-Identifier: MIT */
#include "text.h"

void mpl_text_to_callback(struct mpl_text *text, memplug_write_t *write, void *context)
{
    text->write = write;
    text->context = context;
    text->buffer = text->small;
    text->size = sizeof(text->small);
    text->used = 0;
    text->length = 0;
}

void mpl_text_to_buffer(struct mpl_text *text, char *buffer, size_t size_bytes)
{
    text->write = NULL;
    text->context = NULL;
    text->buffer = buffer;
    text->size = buffer ? size_bytes : 0;
    text->used = 0;
    text->length = 0;
}

static void flush(struct mpl_text *text)
{
    if (text->used > 0)
        text->write(text->context, text->buffer, text->used);
    text->used = 0;
}

size_t mpl_text_end(struct mpl_text *text)
{
    if (text->write)
        flush(text);
    else if (text->size > 0)
        text->buffer[text->used < text->size ? text->used : text->size - 1] = '\0';
    return text->length;
}

void mpl_text_bytes(struct mpl_text *text, const char *bytes, size_t length)
{
    text->length += length;
    while (length > 0) {
        size_t part = text->size - text->used;

        if (part == 0 && !text->write)
            return;
        if (part == 0) {
            flush(text);
            continue;
        }
        if (part > length)
            part = length;
        __builtin_memcpy(text->buffer + text->used, bytes, part);
        text->used += part;
        bytes += part;
        length -= part;
    }
}

void mpl_text_string(struct mpl_text *text, const char *string)
{
    size_t length = 0;

    if (!string)
        return;
    while (string[length])
        length++;
    mpl_text_bytes(text, string, length);
}

/* Names come from the embedder: whatever they hold, a line stays a line and can be read back. */
void mpl_text_quoted(struct mpl_text *text, const char *string)
{
    static const char digits[16] = "0123456789abcdef";

    if (!string) {
        mpl_text_string(text, "-");
        return;
    }
    mpl_text_string(text, "\"");
    for (; *string; string++) {
        unsigned char byte = (unsigned char)*string;
        char escape[4] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};

        if (byte < ' ' || byte == 127 || byte == '"' || byte == '\\')
            mpl_text_bytes(text, escape, sizeof(escape));
        else
            mpl_text_bytes(text, string, 1);
    }
    mpl_text_string(text, "\"");
}

static void number(struct mpl_text *text, uint64_t value, unsigned base)
{
    char digits[20];
    size_t first = sizeof(digits);

    do {
        unsigned digit = (unsigned)(value % base);

        digits[--first] = (char)(digit < 10 ? '0' + digit : 'a' + digit - 10);
        value /= base;
    } while (value > 0);
    mpl_text_bytes(text, digits + first, sizeof(digits) - first);
}

void mpl_text_decimal(struct mpl_text *text, uint64_t value)
{
    number(text, value, 10);
}

void mpl_text_signed(struct mpl_text *text, int64_t value)
{
    if (value < 0)
        mpl_text_string(text, "-");
    number(text, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10);
}

void mpl_text_hex(struct mpl_text *text, uint64_t value)
{
    mpl_text_string(text, "0x");
    number(text, value, 16);
}

void mpl_text_field(struct mpl_text *text, const char *name, uint64_t value)
{
    mpl_text_string(text, " ");
    mpl_text_string(text, name);
    mpl_text_string(text, " ");
    mpl_text_decimal(text, value);
}

void mpl_text_hex_field(struct mpl_text *text, const char *name, uint64_t value)
{
    mpl_text_string(text, " ");
    mpl_text_string(text, name);
    mpl_text_string(text, " ");
    mpl_text_hex(text, value);
}
