/* SPDX-License-Identifier: MIT */
/*
 * The preload library: it stands before a malloc library, answers that library's mmap with movable
 * mappings of a pool, and keeps the pool. It works from the first mmap on, which may be before any
 * constructor, and under malloc's own locks. So nothing here allocates from the C library, uses
 * stdio, takes a lock of the program's or thread-local storage other than errno.
 *
 * One pool a process. The process that memplug run started has it; a program that it starts has
 * one of its own or, without "children", none. A forked child has no pool.
 */
#ifndef PRELOAD_H
#define PRELOAD_H

#include "text.h"

#include <memplug/range.h>

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#define MPL_PRE_EXPORT __attribute__((visibility("default")))

/* The environment variable that memplug run sets: lines of name=value.
 *   pid=N        the process that the ranges are for; others only if children=1
 *   children=1   a program that it starts has a pool that grows by itself
 *   limit=SIZE   of a pool that grows by itself
 *   pins=proved|trusted
 *   fork=lazy|copy
 *   uffd=N       an open descriptor of /dev/userfaultfd
 *   range=SPEC   see range.h; any number
 *   policy=NAME=VALUE   an attribute and what is written to it; any number
 * Without the variable: a pool that grows by itself. */
#define MPL_PRE_VARIABLE "MEMPLUG_RUN"
/* What a program ends with if its pool cannot be opened. */
#define MPL_PRE_EXIT 125

/* --- say.c: lines on standard error ----------------------------------------------------------- */

struct mpl_line {
    char text[768];
    size_t length;
};

void mpl_line_add(struct mpl_line *line, const char *text);
void mpl_line_add_text(struct mpl_line *line, struct mpl_text text);
void mpl_line_add_number(struct mpl_line *line, uint64_t number);

/* Remember which file standard error is now: a program may put another one there. */
void mpl_say_open(void);
/* "memplug: " and the line, if standard error still is that file. */
void mpl_say(const struct mpl_line *line);
/* The same with a reason behind it. */
void mpl_say_reason(const char *what, const struct memplug_reason *reason);

/* A reason that nobody has filled yet. */
#define MPL_NO_REASON                                                                             \
    ((struct memplug_reason){                                                                     \
        .address = MEMPLUG_ANY_ADDRESS, .block = -1, .node = -1, .pfn = {UINT64_MAX}})

/* --- config.c --------------------------------------------------------------------------------- */

struct mpl_pre_config {
    struct mpl_text text; /* the lines; in memory that is there until the pool is open */
    bool checked;         /* memplug run has looked at them, and said what is to be said */
    bool children;
    pid_t pid;            /* 0: whoever reads it */
    uint64_t limit_bytes; /* 0: by default */
    enum memplug_pins pins;
    bool lazy;            /* forks */
    int uffd;             /* -1: none */
    unsigned nr_ranges;
    int nr_nodes;
};

/* False: a line is not understood; it was said which. */
bool mpl_pre_config_read(struct mpl_pre_config *config);
/* The next line of this name; *rest begins as config->text. */
bool mpl_pre_config_next(struct mpl_text *rest, const char *name, struct mpl_text *value);

/* --- lock.c ----------------------------------------------------------------------------------- */

struct mpl_pre_lock {
    _Atomic uint32_t word;
};

void mpl_pre_enter(struct mpl_pre_lock *lock);
bool mpl_pre_try(struct mpl_pre_lock *lock);
void mpl_pre_leave(struct mpl_pre_lock *lock);

/* --- pool.c ----------------------------------------------------------------------------------- */

enum mpl_pre_state {
    MPL_PRE_UNTRIED,
    MPL_PRE_READY,
    MPL_PRE_NONE, /* this process has ordinary memory */
};

struct mpl_preload {
    _Atomic uint32_t state;      /* enum mpl_pre_state */
    struct mpl_pre_lock opening;
    struct memplug_linux *host;
    struct memplug *pool;
    struct memplug_space *space;
    struct memplug_attr attr;
    struct memplug_range_files files;
    uint64_t block_bytes, page_bytes;

    bool lazy; /* forks, from the first one on */
    /* grow.c: one memfd as large as the limit, plugged in block by block. */
    bool grows;
    struct mpl_pre_lock growing;
    void *backing;
    uint64_t limit_bytes;
    uint64_t said_ns;            /* when it was last said that there is no memory */
    _Atomic uint64_t nr_refused; /* mappings */
};

extern struct mpl_preload mpl_preload;

/* first.c: the space, opened by whoever comes first; null: this process has none. */
struct memplug_space *mpl_pre_space(void);
/* The same, but not opened for this. */
struct memplug_space *mpl_pre_space_if_open(void);

/* Open pool, space and ranges; said if that cannot be. Without take a range of the configuration is
 * looked at and left alone. */
bool mpl_pre_open(struct mpl_pre_config *config, bool take);

/* --- grow.c ----------------------------------------------------------------------------------- */

int mpl_pre_grow_open(uint64_t limit_bytes, struct memplug_reason *reason);
/* memplug_map() with blocks plugged in as needed. */
int mpl_pre_map(struct memplug_space *space, uint64_t size_bytes,
                const struct memplug_mapping *opts, void **address);
/* Something was unmapped: unplug what has become empty. */
void mpl_pre_shrink(void);

/* --- clone.c ---------------------------------------------------------------------------------- */

void mpl_pre_clone_open(void);

/* --- leave.c ---------------------------------------------------------------------------------- */

/* This process has a child. */
void mpl_pre_forked(pid_t child);

/* --- libraries.c ------------------------------------------------------------------------------ */

/* The function of this name that is behind ours; looked up once. */
void *mpl_pre_next(_Atomic(void *) *known, const char *name);

/* --- memory.c --------------------------------------------------------------------------------- */

/* Of the machine, or what the process's control groups leave of it. */
uint64_t mpl_pre_memory_bytes(void);
/* What these leave: a list as /proc/self/cgroup, and where they are mounted; UINT64_MAX is all. */
uint64_t mpl_pre_group_bytes(const char *groups, const char *root);

/* --- serve.c ---------------------------------------------------------------------------------- */

/* Of the server, in this process. */
unsigned mpl_pre_serve_threads(void);
/* In a child there is no server. listed: the C library does not know that its threads are gone. */
void mpl_pre_serve_forget(bool listed);

/* --- fork.c ----------------------------------------------------------------------------------- */

/* Before anybody else's handlers. */
void mpl_pre_fork_open(void);
/* Round a process that is made without handlers. begin: false, EAGAIN. end: in the parent, with
 * what the call has returned; what it returns now. */
bool mpl_pre_fork_begin(void);
void mpl_pre_fork_in_child(void);
pid_t mpl_pre_fork_end(pid_t pid);
/* In a forked child: the space of its parent, for memplug_space_child_unmap() and its kind. */
struct memplug_space *mpl_pre_child(void);

/* --- child.c: calls of a forked child, on any address. True: made, with this result ----------- */

bool mpl_pre_child_unmaps(void *address, size_t size_bytes, int *result);
bool mpl_pre_child_maps(void *address, size_t size_bytes, int protection, int flags, int fd,
                        off64_t offset, int *result);
bool mpl_pre_child_protects(void *address, size_t size_bytes, int protection, int *result);
bool mpl_pre_child_advises(void *address, size_t size_bytes, int advice, int *result);
/* *address: where to, then the result, or MAP_FAILED. */
bool mpl_pre_child_remaps(void *old, size_t old_bytes, size_t new_bytes, int flags, void **address);

#endif
