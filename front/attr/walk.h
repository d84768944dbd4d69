/* SPDX-License-Identifier: MIT */
/* From a path to what stands there. */
#ifndef ATTR_WALK_H
#define ATTR_WALK_H

#include "tree.h"

struct mpl_attr_found {
    const struct mpl_attr_entry *file; /* null: it is a directory */
    unsigned mode;                     /* of a file */
    const struct mpl_attr_dir *dir;
    const struct mpl_attr_family *link; /* not null: the last part was a link, to dir and place */
    uint64_t number;                    /* of the link's name */
    struct memplug_attr_place place;
};

/* 0, -ENOENT, -ENOTDIR. */
int mpl_attr_walk(const struct memplug_attr *attr, const char *path, struct mpl_attr_found *found);

void mpl_attr_put_name(struct mpl_attr_text *text, const struct mpl_attr_family *family,
                       uint64_t number);

#endif
