/* SPDX-License-Identifier: MIT */
/*
 * What else a real machine has: names that stand in its directories, and have no text here. The
 * directories that the tree of attributes or the texts of pseudo.h have are theirs; this says what
 * is in them besides.
 */
#ifndef REPLAY_FOREIGN_H
#define REPLAY_FOREIGN_H

#include "machine.h"

/* FOREIGN_ANY: more than anybody lists stands in this directory. */
enum foreign_kind { FOREIGN_NONE, FOREIGN_FILE, FOREIGN_DIRECTORY, FOREIGN_LINK, FOREIGN_ANY };

/* exists() asks for the directory that a name stands in: what a block or a node has besides is
 * there with it. link: where a link leads, if that is known; else untouched. */
#define FOREIGN_MORE "\1" /* a name in a list: there are more */
typedef bool foreign_exists_t(struct machine *machine, const char *directory);
enum foreign_kind foreign_kind(struct machine *machine, const char *path,
                               foreign_exists_t *exists, const char **link);
void foreign_list(struct machine *machine, const char *path,
                  void (*each)(void *to, const char *name), void *to);

/* Does a path begin as a pattern does, in which "#" stands for a number? Returns what is left of
 * the pattern, or null. */
const char *path_fit(const char *pattern, const char *path, uint64_t *number);

#endif
