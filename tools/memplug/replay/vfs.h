/* SPDX-License-Identifier: MIT */
/*
 * All files of the machine: the tree of attributes below /sys, texts of the kernel below /proc and
 * /sys, files in memory below /tmp, and those of guest.h. Paths are absolute and plain. Errors are
 * those of the system calls; -ENOSYS: a real machine has this file, and here it has no text.
 */
#ifndef REPLAY_VFS_H
#define REPLAY_VFS_H

#include "machine.h"

enum vfs_open { VFS_READ, VFS_WRITE, VFS_APPEND };
/* VFS_ELSEWHERE: one of the two, on a real machine. */
enum vfs_kind { VFS_FILE, VFS_DIRECTORY, VFS_ELSEWHERE };

/* A handle from 0 on. VFS_WRITE makes a file, or empties it, where files can be made. */
int vfs_open(struct machine *machine, const char *path, enum vfs_open how);
int64_t vfs_read(struct machine *machine, int handle, uint64_t offset, void *to,
                 size_t size_bytes);
/* limit: null is the machine's. */
int64_t vfs_write(struct machine *machine, int handle, uint64_t offset, const void *from,
                  size_t size_bytes, const struct memplug_limit *limit,
                  struct memplug_reason *reason);
void vfs_close(struct machine *machine, int handle);

int vfs_kind(struct machine *machine, const char *path);
/* Each name once, in the order of their bytes. */
int vfs_list(struct machine *machine, const char *path,
             void (*each)(void *to, const char *name), void *to);
int64_t vfs_link(struct machine *machine, const char *path, char *to, size_t size_bytes);
int vfs_mkdir(struct machine *machine, const char *path);
int vfs_rmdir(struct machine *machine, const char *path);
int vfs_unlink(struct machine *machine, const char *path);
int vfs_mount(struct machine *machine, const char *type, const char *path);
int vfs_unmount(struct machine *machine, const char *path);

/* Open, read it all, close. */
int vfs_get(struct machine *machine, const char *path, struct buffer *text);
/* Open, one write, close. opened: it came that far. */
int64_t vfs_put(struct machine *machine, const char *path, const char *bytes, size_t length,
                const struct memplug_limit *limit, struct memplug_reason *reason, bool *opened);

void vfs_closeall(struct machine *machine);

#endif
