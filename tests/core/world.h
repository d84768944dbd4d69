/* SPDX-License-Identifier: MIT */
/*
 * A pool with everything around it, on the fake host behind the fault host: two backings, an owner
 * of pages, a subscriber. Equal worlds give equal texts.
 */
#ifndef WORLD_H
#define WORLD_H

#include "fake/fake.h"
#include "fake/fault.h"
#include "fake/owner.h"

#define WORLD_RANGE_BLOCKS 4u

struct world_config {
    enum fake_shape shape;
    uint8_t page_struct_bytes; /* 0: the shape's */
    uint8_t large_shift;       /* 0: the shape's */
    uint8_t block_shift;       /* 0: the shape's; else blocks and sections are so large */
    enum fake_content content;
    uint8_t pageblock_order;   /* 0: the shape's */
    uint16_t nr_blocks;        /* of addresses, with block_shift; 0: the shape's */
    enum memplug_hvo hvo;
    bool refuses_rows;         /* the host attaches extent by extent */
    unsigned nr_nodes;
    unsigned nr_cpus;
    uint64_t seed;
};

struct world {
    struct fake_machine *machine;
    struct fault *fault;
    struct memplug *pool;
    struct owner *owner;
    struct fake_backing *backing_a, *backing_b; /* WORLD_RANGE_BLOCKS blocks each */
    struct memplug_subscriber subscriber;
    struct memplug_geometry geometry;
    uint64_t block_bytes;
    unsigned mover; /* the owner's */
    bool lends;     /* memmaps of huge pages */
};

/* Everything is there and the pool is empty. Fails the running test if it cannot be. */
void world_open(struct world *world, const struct world_config *config);

/* Frees the owner's pages, takes everything offline and out, and ends the world; nothing may be
 * left behind. */
void world_close(struct world *world);

/* A range of WORLD_RANGE_BLOCKS blocks at block `first`; 0 or what memplug_add() says. */
int world_add(struct world *world, struct fake_backing *backing, uint64_t first,
              enum memplug_memmap memmap, const struct memplug_limit *limit,
              struct memplug_reason *reason);

/* Pages of several sizes in the blocks of [first, first + nr_blocks), `percent` of each, but at
 * most 128 a block. */
void world_fill(struct world *world, uint64_t first, uint64_t nr_blocks, unsigned percent);

/* Pool, host and owner as one text; free() it. With moved, what may differ after pages have moved
 * is left out: which frames are used, and how many are free where; and where memmaps are lent. */
char *world_text(struct world *world, bool moved);

/* memplug_check(), fake_check() and the owner's content; fails the running test. */
void world_check(struct world *world);

/* Nothing has changed since before = world_text(world, moved), which is freed; world_check(). */
void world_same(struct world *world, char *before, bool moved);

/* The call fails with this error (positive), says so with this word in its sentence, and changes
 * nothing; with moved, pages may have moved. */
#define WORLD_REFUSES(world, reason, error, word, call, moved)                                     \
    do {                                                                                           \
        char *before_ = world_text(world, moved);                                                  \
                                                                                                   \
        memset(reason, 0xee, sizeof(*(reason)));                                                   \
        assert_int_equal(call, -(error));                                                          \
        world_blames(reason, error, word);                                                         \
        world_same(world, before_, moved);                                                         \
    } while (0)

/* The call returns 0. A macro, so that a failure names the line. */
#define must(call) assert_int_equal(call, 0)

/* A number from the environment, for runs that are longer than usual. */
unsigned world_setting(const char *name, unsigned otherwise);

/* The reason is that of a failure with this error (positive), and its sentence has word in it. */
void world_blames(const struct memplug_reason *reason, int error, const char *word);

#endif
