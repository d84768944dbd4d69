/* SPDX-License-Identifier: MIT */
/*
 * Writing text without a C library: to a callback through a small buffer, or into a buffer of the
 * caller's, cut to its size. length counts what was written, also what did not fit.
 */
#ifndef MPL_TEXT_H
#define MPL_TEXT_H

#include <memplug/memplug.h>

#define MPL_TEXT_SMALL 256u

struct mpl_text {
    memplug_write_t *write; /* null: into buffer, and no further */
    void *context;
    char *buffer;
    size_t size; /* of buffer */
    size_t used; /* of it */
    size_t length;
    char small[MPL_TEXT_SMALL];
};

/* Begin. The struct must not be copied afterwards: it may point into itself. */
void mpl_text_to_callback(struct mpl_text *text, memplug_write_t *write, void *context);
void mpl_text_to_buffer(struct mpl_text *text, char *buffer, size_t size_bytes);

/* End: the rest goes to the callback, or the buffer gets its 0 (if it has a byte at all). */
size_t mpl_text_end(struct mpl_text *text);

void mpl_text_bytes(struct mpl_text *text, const char *bytes, size_t length);
void mpl_text_string(struct mpl_text *text, const char *string); /* null: nothing */
void mpl_text_quoted(struct mpl_text *text, const char *string); /* "..", on one line; null: - */
void mpl_text_decimal(struct mpl_text *text, uint64_t value);
void mpl_text_signed(struct mpl_text *text, int64_t value);
void mpl_text_hex(struct mpl_text *text, uint64_t value);        /* 0x1f */

/* " name 12" and " name 0x1f" */
void mpl_text_field(struct mpl_text *text, const char *name, uint64_t value);
void mpl_text_hex_field(struct mpl_text *text, const char *name, uint64_t value);

#endif
