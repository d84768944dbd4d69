/* SPDX-License-Identifier: MIT */
/*
 * A pool as a tree of text files, with the kernel's names: what stands in /sys for the machine's
 * memory stands here for a pool's. memplug-attr(7) lists the files. A socket server, a FUSE view
 * and a test are clients of this one tree; it is a client of the other public headers, and knows
 * nothing that they do not say.
 *
 * Paths are those below /sys: "devices/system/memory/memory48/state". Slashes may be doubled;
 * "." and ".." are not understood. Links (memory48/node0) are followed.
 *
 * Nothing is allocated. The tree, its handles and all buffers are the caller's. All calls are safe
 * from any thread, also on one tree, but for init and fini, and not on one handle at a time but for
 * memplug_attr_cancel(). What a file does is what the call behind it does: reads do not wait for
 * the control lock; writes may, and answer -EDEADLK to a mover, a subscriber and the like.
 */
#ifndef MEMPLUG_ATTR_H
#define MEMPLUG_ATTR_H

#include <memplug/memplug.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of what is written at once so many bytes are taken and the others are not, as sysfs does. */
#define MEMPLUG_ATTR_WRITE_MAX 4096u
/* Uevents that memplug/events remembers. */
#define MEMPLUG_ATTR_NR_EVENTS 256u
/* Frames that stood in the way, of which it remembers since when. */
#define MEMPLUG_ATTR_NR_SEEN 64u
/* No name in the tree is longer, with its terminator. */
#define MEMPLUG_ATTR_NAME_BYTES 40u

/* --- the tree --------------------------------------------------------------------------------- */

/*
 * A file of the embedder's, in memplug/host: what only it can do or tell, as to plug a range in.
 * Its mode says which of show and store there are. show: as memplug_attr_read(). store: 0, or
 * -errno with reason filled, which is not null and names the file; the text is not terminated.
 * limit is not null. Both come from any thread.
 */
struct memplug_attr_file {
    const char *name; /* below MEMPLUG_ATTR_NAME_BYTES, no slash */
    unsigned mode;    /* 0444, 0200, 0644 */
    int (*show)(void *context, char *text, size_t size_bytes);
    int (*store)(void *context, const char *text, size_t length, const struct memplug_limit *limit,
                 struct memplug_reason *reason);
    void *context;
};

struct memplug_attr_config {
    struct memplug *pool;                    /* must outlive the tree */
    const struct memplug_config *pool_config; /* with which it was opened; not kept */
    const struct memplug_limit *limit; /* of writes that bring none, or null; must outlive the tree;
                                          without a stop flag */
    const struct memplug_attr_file *files; /* must outlive the tree */
    unsigned nr_files;
};

/* Private from here to the next line: declared so that callers can own it. */
struct memplug_attr_run;
struct memplug_attr_event {
    const char *action;
    int64_t block;
    int node;
    uint64_t at_ns;
};
struct memplug_attr_seen {
    uint64_t serial, pfn, cookie;
    const char *why;
    uint64_t first_ns, last_ns;
};
struct memplug_attr {
    struct memplug *pool;
    struct memplug_host host;
    const struct memplug_limit *limit;
    struct memplug_listener listener;
    const struct memplug_attr_file *files;
    unsigned nr_files;
    unsigned nr_nodes;
    uint64_t cpu_nodes;
    bool lock; /* of what follows; held for moments, over no call but the host's relax() */
    struct memplug_attr_run *runs;
    uint64_t nr_events;
    struct memplug_attr_event events[MEMPLUG_ATTR_NR_EVENTS];
    struct memplug_attr_seen seen[MEMPLUG_ATTR_NR_SEEN];
};

/* Listens to the pool from now on: errors of memplug_listen(); -EINVAL a configuration that is not
 * the pool's, or a limit with a stop flag. */
int memplug_attr_init(struct memplug_attr *attr, const struct memplug_attr_config *config);

/* No handle may be used any more. Errors of memplug_unlisten(): the pool still has the tree. */
int memplug_attr_fini(struct memplug_attr *attr);

/* --- look around ------------------------------------------------------------------------------ */

enum memplug_attr_kind { MEMPLUG_ATTR_DIRECTORY, MEMPLUG_ATTR_FILE, MEMPLUG_ATTR_LINK };

struct memplug_attr_item {
    enum memplug_attr_kind kind;
    unsigned mode; /* permission bits: 0644 */
    const char *name; /* of a directory's entry, during the call that hands it out; else null */
};

/* What stands at path; a link at its end is not followed. -ENOENT, -ENOTDIR. */
int memplug_attr_stat(const struct memplug_attr *attr, const char *path,
                      struct memplug_attr_item *item);

/* A directory's entries, each once, in a fixed order; what comes or goes meanwhile may be missed.
 * "" is the root. -ENOENT, -ENOTDIR. */
typedef void memplug_attr_list_t(void *context, const struct memplug_attr_item *item);
int memplug_attr_list(const struct memplug_attr *attr, const char *path, memplug_attr_list_t *list,
                      void *context);

/* Where a link leads ("../../node/node0"), as memplug_attr_read(). -EINVAL it is no link. */
int memplug_attr_readlink(const struct memplug_attr *attr, const char *path, char *text,
                          size_t size_bytes);

/* --- a file ----------------------------------------------------------------------------------- */

#define MEMPLUG_ATTR_READ 1u
#define MEMPLUG_ATTR_WRITE 2u

/* Owned by the caller, who may forget it whenever no call uses it: there is no close. Its members
 * are private. */
struct memplug_attr_place {
    uint64_t block, serial;
    int node;
    unsigned index;
    bool node_online;
};
struct memplug_attr_handle {
    struct memplug_attr *attr;
    const void *entry;
    struct memplug_attr_place place;
    unsigned access;
    uint32_t stop;
};

/* -ENOENT, -ENOTDIR, -EISDIR; -EACCES the file's mode has no such bit for anybody; -EINVAL access
 * is neither, or more. */
int memplug_attr_open(struct memplug_attr *attr, const char *path, unsigned access,
                      struct memplug_attr_handle *handle);

/* The whole file as it is now, cut to size_bytes and terminated. Returns its full length, which may
 * be more. -ENODEV what it describes is gone, and if something has come to its place since, it is
 * not this; -EBADF not open for reading. */
int memplug_attr_read(struct memplug_attr_handle *handle, char *text, size_t size_bytes);

/*
 * Returns how many bytes were taken: length, or MEMPLUG_ATTR_WRITE_MAX if that is less; 0 does
 * nothing. What follows a zero byte is not looked at. A failure has changed nothing unless the call
 * behind the file says otherwise. -EINVAL a text that the file does not take; -ERANGE a number that
 * is too large; -ENODEV as read; -EBADF not open for writing; and what the call behind it says.
 * limit: null means the tree's. A stop flag in it takes the place of the handle's, and then neither
 * memplug_attr_cancel() nor memplug/cancel can end this write.
 */
int memplug_attr_write(struct memplug_attr_handle *handle, const char *text, size_t length,
                       const struct memplug_limit *limit, struct memplug_reason *reason);

/* The write that is running on this handle, and any later one, answers -EINTR as soon as a limit is
 * looked at. From any thread or signal handler. */
void memplug_attr_cancel(struct memplug_attr_handle *handle);

/* Open and read, open and write: the errors of both. */
int memplug_attr_get(struct memplug_attr *attr, const char *path, char *text, size_t size_bytes);
int memplug_attr_set(struct memplug_attr *attr, const char *path, const char *text, size_t length,
                     const struct memplug_limit *limit, struct memplug_reason *reason);

#ifdef __cplusplus
}
#endif
#endif
