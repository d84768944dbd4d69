/* SPDX-License-Identifier: MIT */
/* Files below /proc and /sys that are not the tree's: texts that are made when they are read. */
#ifndef REPLAY_PSEUDO_H
#define REPLAY_PSEUDO_H

#include "machine.h"

/* What stands behind this byte, to the end of the line, only a real kernel knows. */
#define PSEUDO_FOREIGN_MARK '\1'

struct pseudo;

/* Null: there is no such file here. A file may be one of many: number says which. */
const struct pseudo *pseudo_find(const struct machine *machine, const char *path,
                                 uint64_t *number);
bool pseudo_is_directory(const struct machine *machine, const char *path);
/* Names in a directory; one may come several times. */
void pseudo_list(const struct machine *machine, const char *path,
                 void (*each)(void *to, const char *name), void *to);

bool pseudo_can(const struct pseudo *file, bool write);
void pseudo_read(const struct pseudo *file, const struct machine *machine, uint64_t number,
                 struct buffer *text);
/* The number of bytes that were taken, or a negative errno. */
int64_t pseudo_write(const struct pseudo *file, struct machine *machine, uint64_t number,
                     const char *text, size_t length);

/* meminfo.c, iomem.c */
void meminfo_read(const struct machine *machine, struct buffer *text);
void node_meminfo_read(const struct machine *machine, int node, struct buffer *text);
void iomem_read(const struct machine *machine, struct buffer *text);

#endif
