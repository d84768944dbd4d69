/* SPDX-License-Identifier: MIT */
/* Text that grows, for functions that write by a callback. */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
    char *text;
    size_t length, size;
};

static inline void buffer_append(void *context, const char *text, size_t length)
{
    struct buffer *buffer = context;

    if (buffer->length + length + 1 > buffer->size) {
        buffer->size = 2 * (buffer->length + length + 1);
        buffer->text = realloc(buffer->text, buffer->size);
        if (buffer->text == NULL)
            abort();
    }
    memcpy(buffer->text + buffer->length, text, length);
    buffer->length += length;
    buffer->text[buffer->length] = '\0';
}

#endif
