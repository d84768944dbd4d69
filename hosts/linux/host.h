/* SPDX-License-Identifier: MIT */
/* A process as a machine: what belongs to one host. Private to hosts/linux. */
#ifndef MPL_LINUX_HOST_H
#define MPL_LINUX_HOST_H

#include "backing.h"
#include "lock.h"
#include "window.h"

#include <memplug/linux.h>

/* Newer than the headers of some distributions. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif
#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif

#define MPL_NR_METADATA 16u
#define MPL_CHUNK_BYTES (256u << 10)
#define MPL_NR_BLOCKS_MAX 4096u

struct mpl_chunk;
struct mpl_space;

struct mpl_metadata {
    void *start;
    uint64_t size_bytes;
};

struct memplug_linux {
    struct memplug_host host;
    struct memplug_host_ops ops; /* of this kernel */
    uint64_t own_bytes;           /* of this object with all that lies behind it */
    uint64_t page_bytes, large_bytes, block_bytes, nr_blocks;

    struct mpl_spare spare;
    struct mpl_window direct, memmap;

    struct mpl_lock control;      /* host.h's lock() */
    const char *why;              /* host.h's why(); under the control lock */
    struct mpl_lock tables;       /* backings, metadata; held for microseconds */
    struct mpl_backing backings[MPL_NR_BACKINGS];
    struct mpl_metadata metadata[MPL_NR_METADATA];
    struct mpl_chunk *chunks;     /* memory.c; under the control lock */
    struct mpl_chunk *first_chunk; /* the host's own, which stays */
    _Atomic uint64_t mapped_bytes; /* from the machine, for own use: see memplug_linux_stat() */

    _Atomic(struct mpl_space *) space; /* space.c: null until the first movable mapping */
    struct mpl_linux_block *blocks;     /* nr_blocks */
};

/* memory.c: the host's own memory, zeroed, in whole pages; counted. -ENOMEM. */
int mpl_own_map(struct memplug_linux *host, uint64_t size_bytes, void **memory);
void mpl_own_unmap(struct memplug_linux *host, void *memory, uint64_t size_bytes);

/* memory.c: memory_get and memory_put of host.h. */
int mpl_memory_get(struct memplug_linux *host, uint64_t size_bytes, void **memory);
void mpl_memory_put(struct memplug_linux *host, void *memory, uint64_t size_bytes);

/* At open: zeroed memory of MPL_CHUNK_BYTES to begin with. At close: what was not put back. */
void mpl_memory_begin(struct memplug_linux *host, void *memory);
void mpl_memory_end(struct memplug_linux *host);

/* For a failed call's caller; reason may be null. Returns error. */
int mpl_explain(struct memplug_reason *reason, int error, const char *operation, const char *why,
                const char *remedy);

/* fd.c: descriptors, which the program may close or overwrite behind our back. */
int mpl_fd_adopt(int fd);                             /* move it out of the program's way */
bool mpl_fd_is(int fd, uint64_t dev, uint64_t ino);
void mpl_fd_close(int fd, uint64_t dev, uint64_t ino); /* only if it still is this file */
int mpl_fd_memfd(const char *name, uint64_t size_bytes, unsigned flags, int seals);
int mpl_fd_reopen(int fd);                            /* a file description of our own */
int mpl_fd_allocate(int fd, uint64_t offset, uint64_t size_bytes);
int mpl_fd_fill(int fd, uint64_t offset, uint64_t size_bytes); /* with zeros, by writing */
int mpl_fd_scrub(int fd, uint64_t offset, uint64_t size_bytes);
int mpl_fd_lock(int fd, uint64_t offset, uint64_t size_bytes, bool lock);

/* range.c: for an operation of several calls: what is left of the time of all. */
uint64_t mpl_limit_start(const struct memplug_linux *host);
struct memplug_limit mpl_limit_rest(const struct memplug_linux *host,
                                    const struct memplug_limit *limit, uint64_t start_ns);

/* dax.c: what sysfs says of a character device; root is "/sys". -ENODEV: not device-dax. */
int mpl_dax_probe(const char *root, uint64_t rdev, uint64_t *size_bytes, uint64_t *align_bytes);

#endif
