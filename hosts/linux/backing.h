/* SPDX-License-Identifier: MIT */
/*
 * Backings: where the bytes of a range come from. Two tables of the host: its backings, and for
 * each block of the window which bytes of which descriptor stand there.
 *
 * A block of MEMFD, FILE and DAX lies in its backing's one descriptor, so that neighbours merge
 * into one mapping. HUGETLB is different: each block's data is a memfd of its own (it can be
 * sealed alone, which is the proof that nobody has pinned it), while the memmaps lie together in
 * the backing's descriptor.
 */
#ifndef MPL_LINUX_BACKING_H
#define MPL_LINUX_BACKING_H

#include <memplug/linux.h>

#include <stdatomic.h>

#define MPL_NR_BACKINGS 64u
#define MPL_BACKING_NAME_MAX 48u

/* --- for the mover ---------------------------------------------------------------------------- */

#define MPL_LOCATION_SPENT 1u   /* this file is sealed: no writable mapping of it can be made */
#define MPL_LOCATION_HUGETLB 2u /* made of huge pages: HUGETLB, or a FILE on hugetlbfs */
#define MPL_LOCATION_MEMMAP 4u  /* a HUGETLB block's own memmap, in the descriptor of memmaps */

struct mpl_location {
    int fd;                /* the host's, until detach. Its file position is nobody's */
    uint32_t flags;        /* MPL_LOCATION_* */
    enum memplug_backing_kind kind;
    uint64_t file_offset;  /* of this very address */
    uint64_t run_bytes;    /* from this address on that lie in the same file, within the block */
    uint64_t align_bytes;  /* at which parts of the file can be mapped */
};

/*
 * Which descriptor and offset stand behind an address of the pool. -ENODEV: nothing is attached
 * there. Takes no lock, makes no system call. A thread that owns a frame of the block may rely on
 * the answer for as long as it owns the frame (the block cannot be detached before), except that
 * mpl_backing_renew() replaces the descriptor: whoever calls that owns all of the block.
 */
int mpl_backing_locate(const struct memplug_linux *host, uint64_t address,
                       struct mpl_location *location);

/*
 * Is what locate said still true? The program may have closed or overwritten any descriptor, and
 * anybody may have truncated a file. 0; -ENODEV nothing attached, or the data's descriptor is
 * another file now: do not use it; -ENXIO the file is shorter than when the block was added: an
 * access may be SIGBUS. One fstat; to be asked before each mapping or hole made through locate.
 */
int mpl_backing_intact(const struct memplug_linux *host, uint64_t address);

/* The data memfd of the HUGETLB block at this address has been sealed. From now on locate says
 * SPENT. -ENODEV, -EINVAL not HUGETLB. */
int mpl_backing_spent(struct memplug_linux *host, uint64_t address);

/*
 * Give the HUGETLB block at this address a new data memfd: allocated, zeroed, mapped in the direct
 * map; the old one is closed. The caller owns all frames of the block, nobody has them mapped
 * elsewhere, and the content is lost. -ENODEV, -EINVAL as above; -ENOMEM, -EMFILE: the block stays
 * as it was, except that a spent one may have lost its memory (old pages are given back if there
 * are not enough for both). So keep a spent block offline, and call this before it goes online.
 */
int mpl_backing_renew(struct memplug_linux *host, uint64_t address);

/* --- for the host ----------------------------------------------------------------------------- */

struct mpl_backing {
    bool in_use, closed;
    bool huge;              /* made of huge pages */
    bool keep_content;      /* FILE, DAX: do not scrub when a block goes */
    bool shared;            /* FILE, DAX: others can have it open, so its bytes are locked */
    enum memplug_backing_kind kind;
    int fd;                 /* its own descriptor; of HUGETLB: for memmaps */
    uint64_t dev, ino;      /* which file that is: a program may close any descriptor */
    uint64_t key[2];        /* the same for two backings of the same bytes */
    uint64_t size_bytes, align_bytes;
    uint64_t nr_attached;   /* extents */
    uint64_t low, high;     /* all attached offsets lie between these */
    char name[MPL_BACKING_NAME_MAX];
};

/* What stands in one block of the direct map. Written under the control lock. */
struct mpl_linux_block {
    _Atomic uint32_t state;   /* MPL_BLOCK_*; 0: nothing attached */
    _Atomic int32_t fd;       /* of the data; -1: there is none */
    struct mpl_backing *backing;
    uint64_t backing_offset;  /* of the block */
    uint64_t file_offset;     /* of the data in fd */
    uint64_t head_bytes;      /* at the block's start, which lie in backing->fd */
    uint64_t ino;             /* of fd, if HUGETLB */
    uint64_t unused[2];
};

#define MPL_BLOCK_ATTACHED 1u
#define MPL_BLOCK_SPENT 2u

/* Null: not a backing of this host, or ended. */
struct mpl_backing *mpl_backing_check(struct memplug_linux *host, const void *backing);

/* So many extents more, -ENODEV if it was closed; and less, which ends a closed one at 0. */
int mpl_backing_hold(struct memplug_linux *host, struct mpl_backing *backing, uint64_t nr);
void mpl_backing_drop(struct memplug_linux *host, struct mpl_backing *backing, uint64_t nr);

/* For memfd_create. */
unsigned mpl_backing_huge_flags(const struct memplug_linux *host);

/* Operations of the host, as host.h describes them: attach_row, which is attach too, and detach. */
int mpl_backing_attach(struct memplug_linux *host, const struct memplug_extent *first, uint64_t nr);
void mpl_backing_detach(struct memplug_linux *host, const struct memplug_extent *extent);

#endif
