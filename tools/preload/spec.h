/* SPDX-License-Identifier: MIT */
/*
 * How memory for a program is described in text: on the command line of memplug run, and from
 * there to the preload library. Nothing here allocates or uses stdio.
 */
#ifndef SPEC_H
#define SPEC_H

#include <memplug/linux.h>

#define MPL_SPEC_PATH_MAX 1024u

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

struct mpl_spec {
    enum memplug_backing_kind kind;
    uint64_t size_bytes, offset_bytes; /* size 0: all of a file that is behind the offset */
    char path[MPL_SPEC_PATH_MAX];      /* of a file or a device */
    int node;
    enum memplug_online_type online;   /* movable, unless told otherwise */
    enum memplug_memmap memmap;
};

/*
 * memfd:SIZE, hugetlb:SIZE, file:PATH, dax:PATH; then, each behind a comma, size=SIZE and
 * offset=SIZE (of file and dax), node=N, zone=movable|kernel|auto, memmap=block|range|host|auto.
 * A path with a comma cannot be said. False: why is a static text.
 */
bool mpl_spec_parse(struct mpl_text text, struct mpl_spec *spec, const char **why);

#endif
