/* SPDX-License-Identifier: MIT */
/* A space whose process forks: fork.c, the sequence; fork_list.c, what is mapped; fork_copy.c and
 * fork_share.c, how a piece is given to the child; fork_lazy.c, which of the two. */
#ifndef MPL_LINUX_FORK_H
#define MPL_LINUX_FORK_H

#include "lock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct memplug_space;
struct mpl_attend;
struct mpl_first;
struct mpl_gate;
struct mpl_holders;

/* That copy before another one is lazy, after one whose child could not be adopted. */
#define MPL_FORK_COPIES 64u

enum mpl_fork_kind {
    MPL_FORK_COPY,  /* its content is copied beforehand */
    MPL_FORK_SHARE, /* the child has the frames, until somebody writes */
    MPL_FORK_EMPTY, /* it is a hole, and the child has a hole of its own */
};

/* One mapping of the program, and what stands in its place while the process forks. */
struct mpl_fork_piece {
    char *va;
    uint64_t size_bytes;
    char *frames;         /* in the direct map */
    uint64_t file_offset;
    int fd;
    uint32_t attr;
    enum mpl_fork_kind kind;
    bool sparse;          /* it may have holes */
    bool full;            /* it has none */
    bool in_place;        /* the stand-in is at va */
    char *stand_in;       /* null: there is none, or it is in place */
    char *away;           /* not COPY: where the program's own mapping goes meanwhile */
    bool parked;          /* it is there */
};

struct mpl_fork {
    int uffd;             /* attend.h; -1: there is none */
    bool alone;           /* nobody to hold up */
    bool lazy;            /* this fork shares what it can */
    bool again;           /* units are marked as shared with children of before */
    unsigned nr_children; /* those that live */
    struct mpl_attend *attend;
    struct mpl_fork_piece *pieces;
    uint64_t nr, nr_max;
    _Atomic uint32_t asked;  /* memplug_space_fork_lazily() was called */
    struct mpl_first *_Atomic first; /* first_write.h; null: forks copy */
    struct mpl_holders *holders; /* as it sees them */
    struct mpl_gate *gates;  /* fork_gate.h; shared with children */
    uint64_t serial;         /* of the fork; a child has that of its own */
    _Atomic uint64_t copies_until; /* serial: the last child that shared could not be adopted */
    atomic_uint nr_changing; /* threads that change what this process may do */
    atomic_bool under_way;   /* this fork's child, if it will have one, is not known yet */
    int parent;              /* the process that forks, from the beginning */
    int saved_errno;         /* as it was before */
    bool traces_all;         /* whatever a child of it becomes */
    const char *_Atomic copied_why; /* why the last one was not lazy; null: it was */
    struct mpl_lock changing; /* in a child: its pieces, which are in no order there */
    uint64_t unblocked;      /* signals, of who has that lock */
};

/* --- fork_list.c ------------------------------------------------------------------------------ */

/* All that is mapped, with all units locked and the area. -errno and why. */
int mpl_fork_list(struct memplug_space *space, const char **why);

/* The kernel has a piece as several mappings: it becomes two. -ENOMEM; -EFAULT: it is a page. */
int mpl_fork_split(struct memplug_space *space, uint64_t i);

/* Another piece; neighbours that are alike become one. May move the table. -ENOMEM. */
int mpl_fork_add(struct memplug_space *space, const struct mpl_fork_piece *piece);

/* --- fork_copy.c ------------------------------------------------------------------------------ */

/* Addresses, without access, at the same place of a huge page as va, and nothing of the
 * reservation left over: after a move somebody else may map there. Null: there are none. */
char *mpl_fork_place(const char *va, uint64_t size_bytes);

/* The content of a COPY piece into its stand-in. -ENOMEM. */
int mpl_fork_copy(const struct memplug_space *space, struct mpl_fork_piece *piece);

/* The program's mapping again, in place of the copy. Does not fail. */
void mpl_fork_map_back(struct memplug_space *space, struct mpl_fork_piece *piece);

/* --- fork_share.c ----------------------------------------------------------------------------- */

/* The stand-in of a SHARE or EMPTY piece, not in place yet. Whoever touches it sleeps. -errno. */
int mpl_fork_stand_in(const struct memplug_space *space, struct mpl_fork_piece *piece);

/* The program's mapping goes away, and whoever touches its place sleeps; what is shared is
 * write-protected. -EFAULT: it is several mappings for the kernel. On failure it is where it was,
 * or parked: see mpl_fork_unpark(). */
int mpl_fork_park(const struct memplug_space *space, struct mpl_fork_piece *piece);

/* An EMPTY piece that is away is one to SHARE after all. -errno. */
int mpl_fork_share(const struct memplug_space *space, struct mpl_fork_piece *piece);

/* It comes back, in place of whatever stands there. Does not fail. undo: no child has it, so it is
 * not protected either. */
void mpl_fork_unpark(struct memplug_space *space, struct mpl_fork_piece *piece, bool undo);

/* --- fork_lazy.c ------------------------------------------------------------------------------ */

/* Null, or why this fork copies. All units are locked. */
const char *mpl_fork_why_copied(struct memplug_space *space);

/* May this process trace every other? */
bool mpl_fork_traces_all(void);

#endif
