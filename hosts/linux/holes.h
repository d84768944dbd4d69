/* SPDX-License-Identifier: MIT */
/* Which pages of a shared-memory file have content, and which are holes. */
#ifndef MPL_LINUX_HOLES_H
#define MPL_LINUX_HOLES_H

#include <stdbool.h>
#include <stdint.h>

#define MPL_HOLES_PAGE UINT64_C(4096)

/*
 * Set a bit for each of the nr_pages pages from offset on (a multiple of the page) that has
 * content; the bits are 0 before. A page that is allocated and was never written may count as
 * either. Swapped pages have content. 0, or -errno of lseek; then the bits mean nothing.
 * Moves the position of fd.
 */
int mpl_holes_read(int fd, uint64_t offset, unsigned nr_pages, uint64_t *bits);

/* Does every one of nr_pages pages exist? Does not move the position. */
bool mpl_holes_none(int fd, uint64_t offset, unsigned nr_pages);
/* Does none? False also where the kernel does not tell. */
bool mpl_holes_all(int fd, uint64_t offset, uint64_t nr_pages);

#endif
