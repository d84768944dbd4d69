/* SPDX-License-Identifier: MIT */
/*
 * Pieces of text, on the command line of memplug run and from there to the preload library. Nothing
 * here allocates or uses stdio.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Text that belongs to somebody else and has no terminator. */
struct mpl_text {
    const char *start;
    size_t length;
};

struct mpl_text mpl_text_of(const char *string);
bool mpl_text_is(struct mpl_text text, const char *string);

/* What stands before the first separator; text becomes what is behind it. False: text is empty. */
bool mpl_text_cut(struct mpl_text *text, char separator, struct mpl_text *part);

/* "name=value" in two; false: there is no '='. */
bool mpl_text_pair(struct mpl_text text, struct mpl_text *name, struct mpl_text *value);

/* Decimal, or 0x and hexadecimal; of a size with K, M, G or T behind it (powers of 1,024; "MiB" and
 * "MB" mean the same). False: it is none, or too large. */
bool mpl_text_number(struct mpl_text text, uint64_t *number);
bool mpl_text_size(struct mpl_text text, uint64_t *bytes);

#endif
