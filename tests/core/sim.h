/* SPDX-License-Identifier: MIT */
/* What test_sim.c is made of: one run of a pool beside its model, and what its owners do. */
#ifndef SIM_H
#define SIM_H

#include "model.h"
#include "world.h"

#define SIM_CHUNKS 4096u

struct sim_geometry {
    const char *name;
    enum fake_shape shape;
    uint8_t page_struct_bytes;
    enum fake_content content;
    unsigned nr_seeds, nr_steps;
};

struct sim_chunk {
    uint64_t start, nr_pages;
};

struct sim {
    const struct sim_geometry *geometry;
    uint64_t seed, random;
    unsigned step;
    const char *doing;
    struct world world;
    struct model model;
    struct fake_backing *backing;
    unsigned mover;
    uint64_t going_first, going_end; /* frames that are being taken offline */
    unsigned nr_refused, nr_inside;
    bool lets_go;
    struct sim_chunk chunks[SIM_CHUNKS];
    unsigned nr_chunks;
    struct fault_limit limit;
    unsigned strike_at; /* check; 0: none */
    uint64_t nr_done, nr_struck;
};

extern struct sim sim;

uint64_t sim_roll(uint64_t nr);

/* Else the test fails, and says with which geometry, seed and step. */
void sim_ensure(bool holds, const char *what, int64_t value);

/* Pool and model agree; with frames, to the last one, and all content is there. The slots are
 * drained by that. */
void sim_compare(bool frames);

/* What owners do: one random act each. */
void sim_alloc(void);
void sim_exact(void);
void sim_free(void);
void sim_wrong_free(void);
void sim_pin(void);

extern const struct memplug_mover sim_mover;

#endif
