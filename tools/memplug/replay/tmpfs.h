/* SPDX-License-Identifier: MIT */
/*
 * Files in memory, below /tmp. A file's bytes lie in pages of the pool that can be moved; what the
 * kernel needs for the files and directories themselves lies in pages that cannot.
 */
#ifndef REPLAY_TMPFS_H
#define REPLAY_TMPFS_H

#include "store.h"

struct tmpfs;
struct inode;

struct tmpfs *tmpfs_open(struct store *store);
/* Forgets it; the pages stay taken. */
void tmpfs_close(struct tmpfs *tmpfs);

/* Null: there is none. A path is "/tmp" or begins with "/tmp/". */
struct inode *tmpfs_find(struct tmpfs *tmpfs, const char *path);
bool inode_is_directory(const struct inode *inode);

/* 0 or a negative errno, as the system calls. */
int tmpfs_create(struct tmpfs *tmpfs, const char *path, struct inode **inode);
int tmpfs_mkdir(struct tmpfs *tmpfs, const char *path);
int tmpfs_rmdir(struct tmpfs *tmpfs, const char *path);
int tmpfs_unlink(struct tmpfs *tmpfs, const char *path);
/* An empty file system on a directory, and away with it and all that is in it. */
int tmpfs_mount(struct tmpfs *tmpfs, const char *path);
int tmpfs_unmount(struct tmpfs *tmpfs, const char *path);
void tmpfs_list(struct tmpfs *tmpfs, const struct inode *directory,
                void (*each)(void *to, const char *name), void *to);

/* An open file stays until it is let go, also if it is unlinked. */
void inode_hold(struct inode *inode);
void inode_release(struct tmpfs *tmpfs, struct inode *inode);

uint64_t inode_size(const struct inode *inode);
int64_t inode_read(struct tmpfs *tmpfs, struct inode *inode, uint64_t offset, void *to,
                   size_t size_bytes);
/* -ENOSPC: what has been written before stays. */
int64_t inode_write(struct tmpfs *tmpfs, struct inode *inode, uint64_t offset, const void *from,
                    size_t size_bytes);
void inode_truncate(struct tmpfs *tmpfs, struct inode *inode);

#endif
