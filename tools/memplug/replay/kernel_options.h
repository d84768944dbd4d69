/* SPDX-License-Identifier: MIT */
/* What a kernel's command line says of memory. */
#ifndef REPLAY_KERNEL_OPTIONS_H
#define REPLAY_KERNEL_OPTIONS_H

#include "machine.h"

/* hugetlb_free_vmemmap=on: asked before there is a pool. */
bool kernel_wants_hvo(const struct boot_options *options);

/* The rest, once the pool is there, and the line itself for the record. What a kernel refuses has
 * no effect. */
void kernel_options_apply(struct machine *machine);

/* As the kernel reads a boolean: 1 or 0, or -1. */
int kernel_bool(const char *text, size_t length);

#endif
