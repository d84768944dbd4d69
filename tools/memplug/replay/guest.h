/* SPDX-License-Identifier: MIT */
/*
 * Files that the guest had and that this machine can only be given: scripts that a shell line runs.
 * They lie below a directory of the host, under the paths that they have in the guest, and are only
 * read. Paths are absolute and plain.
 */
#ifndef REPLAY_GUEST_H
#define REPLAY_GUEST_H

#include "machine.h"

enum guest_kind { GUEST_NONE, GUEST_FILE, GUEST_DIRECTORY };

enum guest_kind guest_kind(const struct machine *machine, const char *path);
/* 0, or a negative errno. */
int guest_read(const struct machine *machine, const char *path, struct buffer *text);

#endif
