/* SPDX-License-Identifier: MIT */
/*
 * Windows: address space that is reserved (PROT_NONE, costs nothing), into which memory is mapped
 * and out of which it is taken again. Taking out must not fail, yet at the VMA limit
 * (vm.max_map_count) the kernel refuses whatever splits a mapping, munmap included. So a host
 * holds spare VMAs and lets go of some of them just before it would be refused.
 */
#ifndef MPL_LINUX_WINDOW_H
#define MPL_LINUX_WINDOW_H

#include "lock.h"

#define MPL_NR_SPARE_VMAS 64u
/* What must be in hand before anything is mapped, so that it can be unmapped. */
#define MPL_NR_SPARE_VMAS_MIN 16u

struct mpl_spare {
    struct mpl_lock lock;
    _Atomic uintptr_t keeper;  /* the thread that keeps it: mpl_spare_keep(); 0: none */
    char *base;                /* MPL_NR_SPARE_VMAS pages of alternating protection */
    uint64_t page_bytes;
    _Atomic uint32_t nr_vmas;  /* how many VMAs they are just now */
    _Atomic uint32_t nr_stuck; /* pieces that could not be re-reserved: see mpl_window_unmap() */
};

struct mpl_window {
    struct mpl_spare *spare;
    char *base;
    uint64_t size_bytes;
};

/* -ENOMEM. */
int mpl_spare_open(struct mpl_spare *spare, uint64_t page_bytes);
void mpl_spare_close(struct mpl_spare *spare);

/* Let go of some VMAs; false if there are none left. Then do what was refused, then fill up. */
bool mpl_spare_release(struct mpl_spare *spare);

/* Take VMAs again, as far as the kernel lets us; false if fewer than MPL_NR_SPARE_VMAS_MIN. */
bool mpl_spare_fill(struct mpl_spare *spare);

/* Have it to oneself, for several calls: while others may be stopped at any place, and must not be
 * with the lock. For who has all other locks of a space. */
void mpl_spare_keep(struct mpl_spare *spare);
void mpl_spare_share(struct mpl_spare *spare);

/* munmap that does not fail: should the kernel refuse to the end, the memory is given back and
 * the addresses are lost. */
void mpl_spare_munmap(struct mpl_spare *spare, void *start, uint64_t size_bytes);

/* Reserve addresses; align_bytes is a power of two. -ENOMEM. */
int mpl_window_open(struct mpl_window *window, struct mpl_spare *spare, uint64_t size_bytes,
                    uint64_t align_bytes);
void mpl_window_close(struct mpl_window *window);

/* Map a part of a file readable and writable at an offset of the window; fd -1: zeroed memory of
 * this process. Left out of core dumps and of forked children. A negative errno changes nothing. */
int mpl_window_map(const struct mpl_window *window, uint64_t offset, uint64_t size_bytes, int fd,
                   uint64_t file_offset);

/* What that errno means: a static text, null if nothing is to be said. */
const char *mpl_window_why(int error);

/* The same for what had been mapped there a moment ago: lets go of spare VMAs if it has to. */
int mpl_window_map_again(const struct mpl_window *window, uint64_t offset, uint64_t size_bytes,
                         int fd, uint64_t file_offset);

/*
 * The way back, also over parts that are not mapped; does not fail. Should the kernel refuse even
 * with no spare VMA left (more than 30 holes made at the very limit), or because mlockall forbids
 * new mappings, the piece stays mapped, without access if possible, to memory that its owner has
 * given back; counted in nr_stuck; the next map at that place replaces it.
 */
void mpl_window_unmap(const struct mpl_window *window, uint64_t offset, uint64_t size_bytes);

#endif
