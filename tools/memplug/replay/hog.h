/* SPDX-License-Identifier: MIT */
/* Hogs: processes that hold memory of some kind, and look whether it is still theirs. */
#ifndef REPLAY_HOG_H
#define REPLAY_HOG_H

#include "machine.h"

struct hogs *hogs_open(void);
void hogs_close(struct machine *machine);

/* The kinds in one line, for messages. */
bool hog_kind_exists(const char *kind);
const char *hog_kinds(void);

/* 0; -EINVAL no such kind, -EEXIST there is a hog of this name; -ENOMEM: it has ended again. */
int hog_start(struct machine *machine, const char *name, const char *kind, uint64_t nr_mib);
/* -ESRCH: there is none of this name. */
int hog_end(struct machine *machine, const char *name);

/* How many of its pages lie in each block: calls count() for blocks that have some, ascending.
 * -ESRCH. */
int hog_where(struct machine *machine, const char *name,
              void (*count)(void *context, uint64_t block, uint64_t nr_pages), void *context);

/* What processes hold in transparent huge pages. */
uint64_t hogs_thp_bytes(const struct machine *machine);

/* Are the bytes of all hogs what they wrote? 0, or -1 and a sentence. */
int hogs_verify(struct machine *machine, char *error, size_t size_bytes);

#endif
