/* SPDX-License-Identifier: MIT */
#include "buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *memory)
{
    if (memory)
        return memory;
    fputs("memplug replay: this computer has no memory left\n", stderr);
    exit(1);
}

void *must_alloc(size_t nr, size_t size_bytes)
{
    return must(calloc(nr ? nr : 1, size_bytes));
}

void *must_grow(void *array, size_t nr, size_t size_bytes)
{
    return must(realloc(array, nr * size_bytes));
}

char *must_copy(const char *text, size_t length)
{
    char *copy = must_alloc(length + 1, 1);

    memcpy(copy, text, length);
    return copy;
}

static void make_room(struct buffer *text, size_t more)
{
    size_t room = text->room ? text->room : 256;

    while (room - text->length <= more)
        room *= 2;
    if (room == text->room)
        return;
    text->bytes = must_grow(text->bytes, room, 1);
    text->room = room;
}

void buffer_add(struct buffer *text, const void *bytes, size_t length)
{
    make_room(text, length);
    if (length)
        memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

void buffer_print(struct buffer *text, const char *format, ...)
{
    va_list arguments, again;
    int length;

    va_start(arguments, format);
    va_copy(again, arguments);
    length = vsnprintf(NULL, 0, format, arguments);
    if (length > 0) {
        make_room(text, (size_t)length);
        vsnprintf(text->bytes + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    }
    va_end(again);
    va_end(arguments);
}

void buffer_clear(struct buffer *text)
{
    text->length = 0;
    if (text->bytes)
        text->bytes[0] = '\0';
}

void buffer_free(struct buffer *text)
{
    free(text->bytes);
    *text = (struct buffer){0};
}

const char *buffer_of(const struct buffer *text)
{
    return text->bytes ? text->bytes : "";
}
