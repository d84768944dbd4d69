/* SPDX-License-Identifier: MIT */
/* A world with an attribute tree on its pool; paths and texts are checked in one line each. */
#ifndef ATTR_STAGE_H
#define ATTR_STAGE_H

#include <memplug/attr.h>

#include "world.h"

struct attr_stage {
    struct world world;
    struct memplug_attr tree;
    uint64_t nr_heard; /* events that stage_events() has been shown */
};

void stage_open(struct attr_stage *stage, enum fake_shape shape, unsigned nr_nodes);
void stage_close(struct attr_stage *stage);

/* nr blocks at block `first`, each with a memmap of its own, from the backing at that offset. */
void stage_add(struct attr_stage *stage, struct fake_backing *backing, uint64_t offset_blocks,
               uint64_t first, uint64_t nr_blocks, int node);
void stage_remove(struct attr_stage *stage, uint64_t first, uint64_t nr_blocks);

/* These fail the running test. expected of get: the text; of set: what the call returns. */
void stage_get(struct attr_stage *stage, const char *path, const char *expected);
void stage_set(struct attr_stage *stage, const char *path, const char *text, int expected);
void stage_set_bytes(struct attr_stage *stage, const char *path, const char *text, size_t length,
                     int expected);
int stage_opens(struct attr_stage *stage, const char *path, unsigned access);
/* What has happened since the last call: "add memory48, add node1"; "" for nothing. */
void stage_events(struct attr_stage *stage, const char *expected);
/* The names in a directory, in its order, "a b c"; links with an @ behind them, directories /. */
void stage_names(struct attr_stage *stage, const char *path, const char *expected);

#endif
