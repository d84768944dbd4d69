/* SPDX-License-Identifier: MIT */
/*
 * The Linux host: a process as the machine. Ranges are memfds, huge pages, device-dax or any file;
 * movable mappings are ordinary pointers whose memory can be replaced under them.
 *
 * A host object lies in memory that it maps for itself; nothing here calls malloc or takes a lock
 * of the program's. All calls are safe from any thread.
 */
#ifndef MEMPLUG_LINUX_H
#define MEMPLUG_LINUX_H

#include <memplug/memplug.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug_linux; /* a host */

struct memplug_linux_config {
    uint64_t window_bytes;     /* of the direct map; address space only. 0: 1 TiB, or what
                                  RLIMIT_AS leaves */
    uint64_t block_bytes;      /* 0: 128 MiB, or more if the window would have over 4,096 blocks
                                  (so 256 MiB with 1 TiB); a power of two */
    uint8_t page_struct_bytes; /* 0: 64 */
};

/*
 * Reserve the windows. A null config is all zeros. -EINVAL; -E2BIG more than 4,096 blocks;
 * -ENOMEM address space: reason->why says which limit is in the way. On success reason->error is
 * 0, and reason->why is not null if RLIMIT_AS made the window smaller than 1 TiB: it says so.
 * close: every range must have been removed; backings that are still open are closed.
 */
int memplug_linux_open(const struct memplug_linux_config *config, struct memplug_linux **host,
                       struct memplug_reason *reason);
void memplug_linux_close(struct memplug_linux *host);

/* For memplug_config.host. If membarrier(2) was there at open it must stay allowed: a filter of
 * system calls that forbids it later ends the process at the next offline. */
const struct memplug_host *memplug_linux_host(const struct memplug_linux *host);

/* Memory for the pool's metadata, as memplug_open() wants it: mapped, untouched, given back by
 * memplug_linux_close(). At most 16 times per host, -ENOSPC; -ENOMEM. */
int memplug_linux_metadata(struct memplug_linux *host, uint64_t size_bytes, void **metadata);

/* What the host costs and how it is. Exact while nothing is added or removed. */
struct memplug_linux_stat {
    uint64_t window_bytes;     /* reserved for the direct map */
    uint64_t memmap_bytes;     /* reserved for the memmap */
    uint64_t mapped_bytes;     /* of the machine's memory, at most: the host's own and what it
                                  gave the core by memory_get; not metadata, not the windows */
    uint64_t metadata_bytes;   /* mapped by memplug_linux_metadata() */
    uint32_t nr_attached_blocks;
    uint32_t block_bytes;      /* the host's own record of one, in a table made at open */
    uint32_t nr_spare_vmas;    /* held back for the way back; 64 unless the VMA limit is near */
    uint32_t nr_stuck;         /* pieces of address space the kernel refused to take back */
};
void memplug_linux_stat(const struct memplug_linux *host, struct memplug_linux_stat *stat);

/* --- backings --------------------------------------------------------------------------------- */

enum memplug_backing_kind {
    MEMPLUG_BACKING_MEMFD,   /* anonymous memory in small pages, allocated when it is touched */
    MEMPLUG_BACKING_HUGETLB, /* huge pages (2 MiB), allocated when a block is added, never later.
                                Costs a descriptor a block: mind RLIMIT_NOFILE */
    MEMPLUG_BACKING_FILE,    /* a regular file: shmem, hugetlbfs or a filesystem's */
    MEMPLUG_BACKING_DAX,     /* a device-dax character device; never tried on a real one */
};

struct memplug_backing_spec {
    enum memplug_backing_kind kind;
    uint64_t size_bytes;   /* of MEMFD and HUGETLB: a multiple of the block. Of FILE and DAX: use
                              no more than this, and insist on so much; 0: all there is */
    int fd;                /* of FILE and DAX: open for reading and writing; stays the caller's */
    bool keep_content;     /* of FILE and DAX: do not zero the bytes when they are removed */
    const char *name;      /* shown in /proc/PID/maps; null: "memplug" */
};

/*
 * Where a range comes from: pass it as memplug_add.backing. The backing of MEMFD and HUGETLB lives
 * until its last block is removed and close was called; so does the host's own descriptor of FILE
 * and DAX.
 *
 * FILE and DAX. Adding bytes gives up their content, also if the add fails in the end: they are
 * not zeroed before use, and scrubbed when they are removed (a hole if the filesystem can, else
 * zeros). Blocks of a file are allocated when they are added: -ENOSPC then, not SIGBUS later.
 * The added bytes are locked against other processes and other hosts (an open-file-description
 * lock for writing; it outlives us in a child that was forked without exec), and against a second
 * add of the same device, inode and offset. A lock binds only those who ask for one.
 * Nothing keeps others from truncating a file, and touching what is gone is SIGBUS. add, remove
 * and the mover look at its size first and answer -ENXIO (remove does without the scrub); between
 * two looks there is no protection but the file's own: give a memfd sealed with F_SEAL_SHRINK, or
 * a file that only you can open.
 *
 * -EINVAL size, kind; -EBADF; -ENODEV a pipe, socket, directory or other device, or it cannot be
 * mapped; -EACCES not open for reading and writing; -ENXIO shorter than size_bytes; -ENOSPC too
 * many backings (64); -ENOMEM; -EMFILE. On success reason->error is 0, and reason->why is not
 * null if the descriptor had to be shared with the caller (no /proc): then a lock keeps out only
 * those who did not inherit that descriptor.
 * The program may close any descriptor: add then answers -ENODEV, and remove does without.
 */
int memplug_linux_backing_open(struct memplug_linux *host, const struct memplug_backing_spec *spec,
                               void **backing, struct memplug_reason *reason);
void memplug_linux_backing_close(struct memplug_linux *host, void *backing);

/* A descriptor of the backing's memory that the caller owns (to look at st_blocks from outside the
 * pool). -EMFILE; -ENODEV: HUGETLB has no one file. */
int memplug_linux_backing_dup(struct memplug_linux *host, void *backing);

#ifdef __cplusplus
}
#endif
#endif
