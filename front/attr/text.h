/* SPDX-License-Identifier: MIT */
/* Text into a buffer of any size; text out of a write, with the kernel's rules of parsing. */
#ifndef ATTR_TEXT_H
#define ATTR_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- out -------------------------------------------------------------------------------------- */

/* Counts all that is put, keeps what fits. */
struct mpl_attr_text {
    char *buffer;
    size_t size_bytes, length;
};

void mpl_attr_put(struct mpl_attr_text *text, const char *string);
/* At least width characters, filled up in front. base: 10 or 16. */
void mpl_attr_put_number(struct mpl_attr_text *text, uint64_t number, unsigned base, unsigned width,
                         char fill);
/* "name 12\n" */
void mpl_attr_put_pair(struct mpl_attr_text *text, const char *name, uint64_t number);
/* Terminates; the full length. */
int mpl_attr_end(struct mpl_attr_text *text);

/* --- in --------------------------------------------------------------------------------------- */

/* What was written, up to its first zero byte; the text itself is not terminated. */
struct mpl_attr_word {
    const char *text;
    size_t length;
};

struct mpl_attr_word mpl_attr_word(const char *text, size_t length);

/* The word exactly, or with one newline behind it. */
bool mpl_attr_is(struct mpl_attr_word word, const char *name);

/* Which of the names it is, or -EINVAL. */
int mpl_attr_choice(struct mpl_attr_word word, const char *const *names, unsigned nr_names);

/* By the first character, "on" and "off" by two; whatever follows is not looked at. */
int mpl_attr_bool(struct mpl_attr_word word, bool *value);

/* A number, a plus before it and one newline behind it allowed. base: 10, or 0: 0x is hexadecimal
 * and 0 octal. -EINVAL; -ERANGE above max. */
int mpl_attr_number(struct mpl_attr_word word, unsigned base, uint64_t max, uint64_t *value);

#endif
