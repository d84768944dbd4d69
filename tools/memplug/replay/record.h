/* SPDX-License-Identifier: MIT */
/* A transcript's fields: the state of the machine, and what has happened to it. */
#ifndef REPLAY_RECORD_H
#define REPLAY_RECORD_H

#include "machine.h"

#include <jansson.h>

/* The state, with all blocks or with those of the window only. A new reference, as all of these. */
json_t *record_snap(struct machine *machine, bool all_blocks);
/* What is different between two of them. */
json_t *record_delta(const json_t *before, const json_t *after);

/* "uevents" and "notifier", if there were any; they are forgotten. */
void record_happened(struct machine *machine, json_t *record);

/* What the frames from pfn on are, as Linux's kpageflags. */
json_t *record_frames(const struct machine *machine, uint64_t pfn, uint64_t nr_pages);

/* "@3", or "3" for a block of the machine's own. */
void record_block_name(const struct machine *machine, uint64_t block, char *name,
                       size_t size_bytes);
/* "EINVAL"; "0" for 0. */
const char *record_errno(int error);

/* Ends the program if jansson has no memory. */
json_t *must_json(json_t *value);
void json_put(json_t *object, const char *key, json_t *value);
/* Text of any bytes: what is not UTF-8 becomes "?". */
json_t *json_text(const char *text, size_t length);

#endif
