/* SPDX-License-Identifier: MIT */
/*
 * How the tree is described. A directory is a table of entries with fixed names and of families,
 * whose names hold a number and come and go ("memory48"). Each branch of the tree has a file with
 * its tables and the functions that make and take its texts; tree.c walks them.
 *
 * A place is what the numbers of a path have chosen: a block, a node. Functions of files get it by
 * the call.
 */
#ifndef ATTR_TREE_H
#define ATTR_TREE_H

#include <memplug/attr.h>
#include <memplug/huge.h>
#include <memplug/poison.h>
#include <memplug/policy.h>

#include "text.h"

#define MPL_ATTR_NONE UINT64_MAX /* no block; no such number */
#define MPL_ATTR_COUNT(array) ((unsigned)(sizeof(array) / sizeof((array)[0])))

/* One read or write. */
struct mpl_attr_call {
    struct memplug_attr *attr;
    const struct memplug_attr_place *place;
    struct mpl_attr_text *text;        /* of a read */
    struct mpl_attr_word word;         /* of a write, as are these */
    const struct memplug_limit *limit;
    struct memplug_reason *reason;     /* never null */
};

struct mpl_attr_dir;

/* A file, or a directory if dir is not null. 0, or a negative errno; a store that fails by what
 * was written says so by mpl_attr_refuse(), else the reason is that of the call behind it. */
struct mpl_attr_entry {
    const char *name;
    unsigned mode;
    unsigned index; /* of a directory: becomes the place's, unless it is 0 */
    int (*show)(struct mpl_attr_call *call);
    int (*store)(struct mpl_attr_call *call);
    const struct mpl_attr_dir *dir;
};

/* What is called prefix, number, suffix. */
struct mpl_attr_family {
    const char *prefix, *suffix;
    const char *link; /* null: they are directories; else links, to this and the name */
    const struct mpl_attr_dir *dir;
    /* Is there such a one? 0, and the place goes there; -ENOENT. */
    int (*find)(const struct memplug_attr *attr, uint64_t number,
                struct memplug_attr_place *place);
    /* The first number from this one on that there is, or MPL_ATTR_NONE. */
    uint64_t (*next)(const struct memplug_attr *attr, const struct memplug_attr_place *place,
                     uint64_t number);
};

struct mpl_attr_dir {
    const struct mpl_attr_entry *entries;
    unsigned nr_entries;
    const struct mpl_attr_family *families;
    unsigned nr_families;
};

extern const struct mpl_attr_dir mpl_attr_memory_dir;   /* devices/system/memory */
extern const struct mpl_attr_dir mpl_attr_node_dir;     /* devices/system/node */
extern const struct mpl_attr_dir mpl_attr_node_n_dir;   /* devices/system/node/nodeK */
extern const struct mpl_attr_dir mpl_attr_memory_n_dir; /* devices/system/memory/memoryN */
extern const struct mpl_attr_dir mpl_attr_parameters_dir;
extern const struct mpl_attr_dir mpl_attr_hugepages_dir;      /* kernel/mm/hugepages */
extern const struct mpl_attr_dir mpl_attr_node_hugepages_dir; /* a node's */
extern const struct mpl_attr_dir mpl_attr_firmware_dir;
extern const struct mpl_attr_dir mpl_attr_own_dir; /* memplug */
extern const struct mpl_attr_dir mpl_attr_host_dir; /* memplug/host; its names are the embedder's */
extern const struct mpl_attr_entry mpl_attr_host_file; /* each of them; the place has its index */

/* --- shared by the branches ------------------------------------------------------------------- */

/* What was written cannot be: fills the reason, returns the error. */
int mpl_attr_refuse(struct mpl_attr_call *call, int error, const char *why, const char *remedy);

/* A block that is there for the tree: 0, -ENOENT. */
int mpl_attr_block(const struct memplug_attr *attr, uint64_t block,
                   struct memplug_block_info *info);
/* find and next of families of blocks and of nodes that are online. */
int mpl_attr_find_block(const struct memplug_attr *attr, uint64_t block,
                        struct memplug_attr_place *place);
uint64_t mpl_attr_next_block(const struct memplug_attr *attr,
                             const struct memplug_attr_place *place, uint64_t block);
int mpl_attr_find_node(const struct memplug_attr *attr, uint64_t node,
                       struct memplug_attr_place *place);
/* The place's block, as it is now: 0, or -ENODEV if it is not the one any more. */
int mpl_attr_info(const struct mpl_attr_call *call, struct memplug_block_info *info);

/* What is left in one piece, around this block, of what was added at once. -ENOENT. */
struct mpl_attr_range {
    uint64_t first, nr_blocks;
    struct memplug_block_info info; /* of the first */
};
int mpl_attr_range(const struct memplug_attr *attr, uint64_t block, struct mpl_attr_range *range);

/* memplug_policy_set(), with a reason. */
int mpl_attr_policy(struct mpl_attr_call *call, const struct memplug_policy *policy,
                    unsigned fields);
/* A module parameter's boolean: Y or N. */
int mpl_attr_put_bool(struct mpl_attr_call *call, bool value);
int mpl_attr_get_bool(struct mpl_attr_call *call, bool *value);

extern const char *const mpl_attr_zone_names[MEMPLUG_NR_ZONES];

/* --- running.c: writes that are running, events ----------------------------------------------- */

struct memplug_attr_run {
    struct memplug_attr_run *next, **link;
    uint32_t *stop; /* null: not ours to set */
    const char *name; /* of the file */
    const struct memplug_attr_place *place;
    struct memplug_attr *attr;
    const struct memplug_limit *outer;
    struct memplug_limit limit; /* for the call behind the file */
    const char *operation, *step; /* null before the first progress */
    uint64_t nr_done, nr_total;
};

/* A run is in the list from begin to end. */
void mpl_attr_run_begin(struct memplug_attr_run *run, struct memplug_attr_handle *handle,
                        const struct memplug_limit *limit);
void mpl_attr_run_end(struct memplug_attr_run *run);
/* All that are running, but the one whose stop flag this is. How many. */
unsigned mpl_attr_cancel_runs(struct memplug_attr *attr, const uint32_t *but);
void mpl_attr_put_runs(struct memplug_attr *attr, struct mpl_attr_text *text);

/* A block's, or with no block a node's. action is kept: a static text. */
void mpl_attr_event(struct memplug_attr *attr, const char *action, int64_t block, int node);
void mpl_attr_hear(void *context, const struct memplug_uevent *event);
void mpl_attr_put_events(struct memplug_attr *attr, struct mpl_attr_text *text);

/* A failure is seen now that names a frame: since when is it known to be in the way, for that
 * reason? 0: it names none. */
uint64_t mpl_attr_seen(struct memplug_attr *attr, const struct memplug_reason *reason);

/* --- blocks.c, why.c: files of memplug and of memplug/blocks/N -------------------------------- */

int mpl_attr_store_online(struct mpl_attr_call *call);
int mpl_attr_store_offline(struct mpl_attr_call *call);
int mpl_attr_store_remove(struct mpl_attr_call *call);
int mpl_attr_show_why(struct mpl_attr_call *call);
int mpl_attr_show_reason(struct mpl_attr_call *call);
int mpl_attr_show_frames(struct mpl_attr_call *call);

/* The show and store of every file called uevent. */
int mpl_attr_show_nothing(struct mpl_attr_call *call);
int mpl_attr_store_uevent(struct mpl_attr_call *call);

#endif
