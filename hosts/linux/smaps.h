/* SPDX-License-Identifier: MIT */
/*
 * How memory of this process is mapped, by the text of /proc/thread-self/smaps: for kernels that
 * cannot be asked by PAGEMAP_SCAN (before Linux 6.7). The kernel writes it from the lowest address
 * upwards, walking page tables: quick for a mapping that comes first.
 */
#ifndef MPL_LINUX_SMAPS_H
#define MPL_LINUX_SMAPS_H

#include <stdint.h>

/* Of the mapping that this address lies in. 1: it has a huge page of shared memory, 0: small ones
 * only, -EAGAIN: no page, -ENOENT: there is no such mapping, or nobody says. No malloc. */
int mpl_smaps_huge(const void *va);

#endif
