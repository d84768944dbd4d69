/* SPDX-License-Identifier: MIT */
/*
 * Ranges of the Linux host in words, as people and scripts give them, and the files of the
 * attribute tree by which they are plugged in and exchanged from outside: memplug/host/add,
 * replace, latency.
 */
#ifndef MEMPLUG_RANGE_H
#define MEMPLUG_RANGE_H

#include <memplug/attr.h>
#include <memplug/space.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MEMPLUG_RANGE_PATH_MAX 1024u

struct memplug_range_spec {
    enum memplug_backing_kind kind;
    uint64_t size_bytes;   /* of a file or device 0: all of it behind the offset */
    uint64_t offset_bytes; /* in a file or device */
    int node;
    enum memplug_online_type online; /* MOVABLE unless told otherwise */
    bool offline;                    /* zone=none: stays offline */
    enum memplug_memmap memmap;
    char path[MEMPLUG_RANGE_PATH_MAX]; /* of a file or device */
};

/*
 * memfd:SIZE, hugetlb:SIZE, file:PATH or dax:PATH; then, each behind a comma, of files and devices
 * size=SIZE and offset=SIZE, and node=N, zone=movable|kernel|auto|none,
 * memmap=block|range|host|auto.
 * SIZE is decimal or 0x, with K, M, G or T behind it; a path has no comma and begins with a slash.
 * length bytes of text are read. -EINVAL with reason->why. reason is not null, and what it does not
 * say of the failure is kept.
 */
int memplug_range_parse(const char *text, size_t length, struct memplug_range_spec *spec,
                        struct memplug_reason *reason);

/*
 * Open what the words name, and no more: a file keeps its content. A size that is no whole number
 * of blocks is -EINVAL but for a whole file's, of which the rest is not used (-ENXIO: it has not
 * one). add is written, for memplug_add(); its backing is the caller's to close. Errors of open(2)
 * and memplug_linux_backing_open().
 */
int memplug_range_open(struct memplug_linux *host, const struct memplug_range_spec *spec,
                       struct memplug_add *add, struct memplug_reason *reason);

/*
 * Open it, add it and put it online: all or nothing. add is written: where it is. Errors of
 * memplug_range_open(), memplug_add() and memplug_online().
 */
int memplug_range_plug(struct memplug_linux *host, struct memplug *pool,
                       const struct memplug_range_spec *spec, struct memplug_add *add,
                       const struct memplug_limit *limit, struct memplug_reason *reason);

/* --- in the attribute tree -------------------------------------------------------------------- */

#define MEMPLUG_RANGE_NR_FILES 3u

/* Owned by the caller, not in movable memory; but for files all is private. Writes come from one
 * thread at a time, or answer -EBUSY. */
struct memplug_range_files {
    struct memplug_attr_file files[MEMPLUG_RANGE_NR_FILES]; /* for memplug_attr_config */
    struct memplug_linux *host;
    struct memplug *pool;
    const struct memplug_space *space; /* null: latency is empty */
    bool busy;
    struct memplug_range_spec spec;
    uint64_t last_address, last_bytes; /* the range that came last */
};

/*
 * add:     takes the words of a range, plugs it in. Reads as "0x..-0x.. first N blocks N": the last
 * replace: "FIRST-LAST WORDS": plugs the range in, takes these blocks offline and out, so that
 *          what they held moves; when that fails, the new range goes again. Reads as add.
 * latency: how long writers were held up by moves, a name and a number a line.
 */
void memplug_range_files(struct memplug_range_files *files, struct memplug_linux *host,
                         struct memplug *pool, const struct memplug_space *space);

#ifdef __cplusplus
}
#endif
#endif
