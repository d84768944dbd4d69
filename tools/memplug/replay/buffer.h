/* SPDX-License-Identifier: MIT */
/* Bytes that grow. What cannot be had ends the program: replay has nothing to save. */
#ifndef REPLAY_BUFFER_H
#define REPLAY_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    char *bytes; /* always terminated, null while empty */
    size_t length, room;
};

void buffer_add(struct buffer *text, const void *bytes, size_t length);
void buffer_print(struct buffer *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void buffer_clear(struct buffer *text);
void buffer_free(struct buffer *text);
const char *buffer_of(const struct buffer *text); /* never null */

/* Memory, zeroed; a copy; a larger array. */
void *must_alloc(size_t nr, size_t size_bytes);
char *must_copy(const char *text, size_t length);
void *must_grow(void *array, size_t nr, size_t size_bytes);

#endif
