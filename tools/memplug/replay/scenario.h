/* SPDX-License-Identifier: MIT */
/*
 * The language of scenarios, memplug-scenario(5): one step a line. What can be wrong with a line
 * by itself is found before anything is run.
 */
#ifndef REPLAY_SCENARIO_H
#define REPLAY_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum op {
    OP_BOOT,
    OP_ADD,
    OP_DEL,
    OP_VADD,
    OP_VREQ,
    OP_ONLINE, /* also online_kernel, online_movable and offline: the word is words[0] */
    OP_STATE,
    OP_WRITE,
    OP_READ,
    OP_WSIG,
    OP_KPF,
    OP_HOG,
    OP_WHERE,
    OP_UNHOG,
    OP_SH,
    OP_LSMEM,
    OP_TRACE,
    OP_SLEEP,
    OP_SETTLE,
    OP_NOTE,
    NR_OPS
};

struct step {
    unsigned line;
    enum op op;
    char *text;   /* the line, as the record repeats it */
    char **words; /* split at blanks; words[0] is the op */
    unsigned nr_words;
};

struct scenario {
    struct step *steps; /* the first one boots, and no other does */
    size_t nr_steps;
};

struct boot_options {
    uint64_t mem_bytes, maxmem_bytes;
    unsigned nr_slots, nr_nodes, nr_cpus;
    const char *mem, *memmap_on_memory, *memhp; /* as they were written; the last two or null */
    const char *append;                         /* kernel options, with commas between; or null */
};

/* A limit of what a machine may have. */
#define REPLAY_MAX_MEM ((uint64_t)256 << 30)

/* 0, or -1 and a sentence that begins with the file's name and the line. */
int scenario_read(const char *path, struct scenario *scenario, char *error, size_t size_bytes);
int scenario_parse(const char *name, const char *text, size_t length, struct scenario *scenario,
                   char *error, size_t size_bytes);
void scenario_free(struct scenario *scenario);

/* Of steps that were parsed, so these always succeed. */
void scenario_boot_options(const struct step *step, struct boot_options *options);
/* "at=" of words[2...]; null if it is not there. */
const char *step_option(const struct step *step, const char *name);
/* The text behind so many words, without the blanks in front. */
const char *step_rest(const struct step *step, unsigned nr_words);

/* "128M", "1G", "4096": false if it is no size. */
bool parse_size(const char *text, uint64_t *bytes);
/* "12": false if it is no number of this size. */
bool parse_number(const char *text, uint64_t max, uint64_t *number);
/* "@12", or "12", which is a block of the machine itself. */
bool parse_block(const char *text, bool *in_window, uint64_t *number);

#endif
