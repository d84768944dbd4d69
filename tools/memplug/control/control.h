/* SPDX-License-Identifier: MIT */
/*
 * The verbs that look at, and change, a running program's pool through its socket. Each is a row of
 * the table in control.c; a verb gets its options parsed and a target that is connected.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <memplug/client.h>

#include <stdbool.h>
#include <stdio.h>

/* Of the environment: the only directory in which to look for sockets. */
#define CONTROL_DIRECTORY "MEMPLUG_SOCKETS"

#define CONTROL_ALL 0
#define CONTROL_NONE 1
#define CONTROL_USAGE 2
#define CONTROL_PARTLY 64

struct control_options {
    const char *target; /* pid, name or path; null: the only one */
    const char *output; /* -o; null: the usual columns */
    const char *zone;
    bool json, raw, no_headings, bytes, all;
    bool dry_run, best_effort, no_wait, follow, offline;
    unsigned timeout_ms;  /* 0: as the program's */
    uint64_t deadline_ms; /* of the monotonic clock, when that is over; 0: none */
    char **arguments;
    int nr_arguments;
};

struct control_verb {
    const char *name, *arguments, *letters; /* of the options that it takes, besides -h */
    int least, most;                        /* arguments */
    bool everywhere;                        /* it needs no one target */
    int (*run)(const struct control_options *options, struct memplug_client *client);
    const char *help; /* what it does, and examples */
};

/* The exit status of one of these verbs. */
int control_main(int argc, char **argv);
uint64_t control_now_ms(void);

/* --- target.c --------------------------------------------------------------------------------- */

#define CONTROL_PATIENCE_MS 10000u /* with a program whose answer takes moments */

/* "redis-server", of a pid; "?" if it cannot be known. */
void control_name(int pid, char *name, size_t size_bytes);

/* The one that the options mean, connected; else says why not. */
int control_connect(const struct control_options *options, struct memplug_client *client);

/* --- tree.c: what is asked of the tree -------------------------------------------------------- */

/* printf()ed path; the text, or null and says why. To be freed. */
char *control_get(struct memplug_client *client, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same, and nothing is said; its length or the error. */
int control_try(struct memplug_client *client, char **text, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Of "name value" lines: the value behind a name, or the alternative. A word ends with its line. */
uint64_t control_number(const char *text, const char *name, uint64_t alternative);
/* Copied; "" if it is not there. */
void control_word(const char *text, const char *name, char *word, size_t size_bytes);
/* "memplug: NAME: why", of a call that failed; without a text the error's own words. name may be
 * null. */
void control_say(const char *name, int error, const char *text);
/* What is written, followed on a terminal; the tree's answer. Prints what the file says then, if it
 * can be read: where a new range is. Says the reason of a failure. With
 * --no-wait it is started, and its number said. What is left of --timeout is its time. */
int control_set(struct memplug_client *client, const struct control_options *options,
                const char *path, const char *text);
/* The same for what has been started: patience_ms 0 is for good. */
int control_follow(struct memplug_client *client, const struct memplug_client_request *request,
                   unsigned patience_ms);
/* As people read it, "1.5G", or exact. */
void control_size(uint64_t bytes, bool exact, char *text, size_t size_bytes);

/* --- blocks.c --------------------------------------------------------------------------------- */

struct control_block {
    uint64_t number, address, size_bytes;
    char state[24], zone[16], memmap[16];
    int node;
    uint64_t unit_first, unit_nr_blocks;
    uint64_t nr_memmap, nr_managed, nr_free;
    bool boot;
    bool chosen;
};

struct control_blocks {
    struct control_block *list;
    size_t nr, nr_chosen;
    bool some; /* whoever chooses may name blocks that are not there */
    uint64_t block_bytes, page_bytes;
};

/* All blocks of the pool. 0, or says why not. */
int control_read_blocks(struct memplug_client *client, struct control_blocks *blocks);
void control_free_blocks(struct control_blocks *blocks);
/* Choose those that the argument means: "8-11,14", "0x40000000-0x4fffffff", "all", or a size as
 * "4G": then of those in this state, from the front or from the back. 0; CONTROL_USAGE; or
 * CONTROL_NONE: there are not so many, which with best effort is no matter. */
int control_choose(struct control_blocks *blocks, const char *argument, const char *state,
                   bool from_back, bool best_effort);
/* "12"; "4G". */
bool control_read_number(const char *argument, uint64_t *number);
bool control_read_size(const char *argument, uint64_t *bytes);
bool control_is_online(const struct control_block *block);
/* "8-11,14" of the chosen ones; to be freed. How many runs these are. */
char *control_runs(const struct control_blocks *blocks, unsigned *nr_runs);

/* --- dry.c ------------------------------------------------------------------------------------ */

struct control_leaving {
    bool remove, offline; /* from the pool; offline first */
    bool best_effort;
    uint64_t nr_new_pages; /* that come before they go */
};
/* What is in the way of the chosen blocks, said; the exit status. */
int control_would_leave(struct memplug_client *client, const struct control_blocks *blocks,
                        const struct control_leaving *how);

/* --- table.c ---------------------------------------------------------------------------------- */

enum control_kind { CONTROL_TEXT, CONTROL_COUNT, CONTROL_FLAG };

struct control_column {
    const char *name;
    enum control_kind kind;
    bool usual; /* shown without -o */
};

struct control_table;
/* Null: says why not (no such column), and the exit status is CONTROL_USAGE. */
struct control_table *control_table_new(const struct control_options *options, const char *name,
                                        const struct control_column *columns, unsigned nr_columns);
void control_table_row(struct control_table *table);
/* Of the last row. */
void control_table_text(struct control_table *table, unsigned column, const char *text);
void control_table_count(struct control_table *table, unsigned column, uint64_t number);
void control_table_bytes(struct control_table *table, unsigned column, uint64_t bytes);
void control_table_flag(struct control_table *table, unsigned column, bool flag);
/* Prints and frees it. */
void control_table_end(struct control_table *table);

/* --- the verbs -------------------------------------------------------------------------------- */

int control_list(const struct control_options *options, struct memplug_client *client);
int control_status(const struct control_options *options, struct memplug_client *client);
int control_add(const struct control_options *options, struct memplug_client *client);
int control_remove(const struct control_options *options, struct memplug_client *client);
int control_online(const struct control_options *options, struct memplug_client *client);
int control_offline(const struct control_options *options, struct memplug_client *client);
int control_replace(const struct control_options *options, struct memplug_client *client);
int control_why(const struct control_options *options, struct memplug_client *client);
int control_wait(const struct control_options *options, struct memplug_client *client);
int control_cancel(const struct control_options *options, struct memplug_client *client);
int control_events(const struct control_options *options, struct memplug_client *client);
int control_stat(const struct control_options *options, struct memplug_client *client);
int control_doctor(const struct control_options *options, struct memplug_client *client);

#endif
