/* SPDX-License-Identifier: MIT */
/* What the tests of the fake host share: a machine with one extent to play with, and no core. */
#ifndef FAKE_SETUP_H
#define FAKE_SETUP_H

#include "fake/machine.h"

struct text {
    char bytes[8192];
    size_t length;
};

/* A memplug_write_t into a struct text. */
void append(void *context, const char *bytes, size_t length);

struct text dump(const struct fake_machine *machine);
struct fake_machine *open_shape(const struct memplug_geometry *geometry);

/* These fail the running test if something is left behind, or wrong. */
void close_clean(struct fake_machine *machine);
void check(struct fake_machine *machine);

/* One extent at the second block, whose memmap is in its own head; the lock is held. */
struct setup {
    struct fake_machine *machine;
    const struct memplug_host *host;
    struct fake_backing *backing;
    struct memplug_extent extent;
    uint64_t block, memmap_offset, unit;
};

struct setup setup_open(const struct memplug_geometry *geometry, uint64_t nr_blocks);
void setup_close(struct setup *setup);

/* The host operations, for the extent and its memmap. */
int attach(struct setup *setup);
int alias(struct setup *setup);
int provide(struct setup *setup);
void unmap(struct setup *setup);
void detach(struct setup *setup);
struct fake_stat stat_of(const struct setup *setup);

#endif
