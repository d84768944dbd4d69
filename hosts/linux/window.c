/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "window.h"

#include "sys.h"

#include <errno.h>
#include <pthread.h>

#define RESERVED (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
/* Pages whose protection becomes equal in one release. Even: the last one left is readable. */
#define RELEASE_STEP 8u

/* --- spare VMAs ------------------------------------------------------------------------------- */

int mpl_spare_open(struct mpl_spare *spare, uint64_t page_bytes)
{
    uint64_t size_bytes = MPL_NR_SPARE_VMAS * page_bytes;
    void *base = mpl_sys_mmap(NULL, size_bytes, PROT_NONE, RESERVED, -1, 0);

    if (base == MAP_FAILED) {
        return -ENOMEM;
    }
    mpl_sys_madvise(base, size_bytes, MADV_DONTFORK);
    spare->base = base;
    spare->page_bytes = page_bytes;
    spare->nr_vmas = 0;
    if (!mpl_spare_fill(spare)) {
        mpl_spare_close(spare);
        return -ENOMEM;
    }
    return 0;
}

void mpl_spare_close(struct mpl_spare *spare)
{
    mpl_sys_munmap(spare->base, MPL_NR_SPARE_VMAS * spare->page_bytes);
    spare->base = NULL;
    spare->nr_vmas = 0;
}

void mpl_spare_keep(struct mpl_spare *spare)
{
    mpl_lock_enter(&spare->lock);
    atomic_store_explicit(&spare->keeper, (uintptr_t)pthread_self(), memory_order_relaxed);
}

void mpl_spare_share(struct mpl_spare *spare)
{
    atomic_store_explicit(&spare->keeper, 0, memory_order_relaxed);
    mpl_lock_leave(&spare->lock);
}

static bool is_mine(struct mpl_spare *spare)
{
    return atomic_load_explicit(&spare->keeper, memory_order_relaxed) ==
           (uintptr_t)pthread_self();
}

static void enter(struct mpl_spare *spare)
{
    if (!is_mine(spare))
        mpl_lock_enter(&spare->lock);
}

static void leave(struct mpl_spare *spare)
{
    if (!is_mine(spare))
        mpl_lock_leave(&spare->lock);
}

bool mpl_spare_release(struct mpl_spare *spare)
{
    bool released = false;

    enter(spare);
    uint32_t nr_vmas = atomic_load_explicit(&spare->nr_vmas, memory_order_relaxed);
    if (nr_vmas > 0) {
        uint32_t keep = nr_vmas > RELEASE_STEP ? (nr_vmas - RELEASE_STEP) & ~1u : 0;
        char *start = spare->base + keep * spare->page_bytes;

        /* Ends where VMAs end, so it merges and never splits. */
        mpl_sys_mprotect(start, (MPL_NR_SPARE_VMAS - keep) * spare->page_bytes, PROT_NONE);
        atomic_store_explicit(&spare->nr_vmas, keep, memory_order_relaxed);
        released = true;
    }
    leave(spare);
    return released;
}

bool mpl_spare_fill(struct mpl_spare *spare)
{
    if (atomic_load_explicit(&spare->nr_vmas, memory_order_relaxed) == MPL_NR_SPARE_VMAS) {
        return true;
    }
    enter(spare);
    uint32_t nr_vmas = atomic_load_explicit(&spare->nr_vmas, memory_order_relaxed);
    while (nr_vmas < MPL_NR_SPARE_VMAS) {
        char *odd = spare->base + (nr_vmas + 1) * spare->page_bytes;

        if (mpl_sys_mprotect(odd, spare->page_bytes, PROT_READ) != 0) {
            break;
        }
        nr_vmas += 2;
    }
    atomic_store_explicit(&spare->nr_vmas, nr_vmas, memory_order_relaxed);
    leave(spare);
    return nr_vmas >= MPL_NR_SPARE_VMAS_MIN;
}

void mpl_spare_munmap(struct mpl_spare *spare, void *start, uint64_t size_bytes)
{
    while (mpl_sys_munmap(start, size_bytes) != 0) {
        if (!mpl_spare_release(spare)) {
            mpl_sys_madvise(start, size_bytes, MADV_DONTNEED);
            atomic_fetch_add_explicit(&spare->nr_stuck, 1, memory_order_relaxed);
            break;
        }
    }
    mpl_spare_fill(spare);
}

/* --- windows ---------------------------------------------------------------------------------- */

/* A reservation under mlockall(MCL_FUTURE) counts as locked, although there is nothing to lock. */
static void unlock(void *start, uint64_t size_bytes)
{
    syscall(SYS_munlock, start, size_bytes);
}

/* All of a window has this: a child has the addresses to itself, and equal neighbours merge. */
static bool keep_home(void *start, uint64_t size_bytes)
{
    return mpl_sys_madvise(start, size_bytes, MADV_DONTFORK) == 0;
}

/* What is mapped into it besides; what is only reserved has nothing to dump. */
static bool advise(void *start, uint64_t size_bytes)
{
    return mpl_sys_madvise(start, size_bytes, MADV_DONTDUMP) == 0 && keep_home(start, size_bytes);
}

int mpl_window_open(struct mpl_window *window, struct mpl_spare *spare, uint64_t size_bytes,
                    uint64_t align_bytes)
{
    char *start = mpl_sys_mmap(NULL, size_bytes + align_bytes, PROT_NONE, RESERVED, -1, 0);

    if (start == MAP_FAILED) {
        return -ENOMEM;
    }
    uint64_t skip = -(uintptr_t)start & (align_bytes - 1);
    if (skip > 0) {
        mpl_sys_munmap(start, skip);
    }
    mpl_sys_munmap(start + skip + size_bytes, align_bytes - skip);
    window->spare = spare;
    window->base = start + skip;
    window->size_bytes = size_bytes;
    unlock(window->base, size_bytes);
    if (!keep_home(window->base, size_bytes)) {
        mpl_window_close(window);
        return -ENOMEM;
    }
    return 0;
}

void mpl_window_close(struct mpl_window *window)
{
    if (window->base) {
        mpl_spare_munmap(window->spare, window->base, window->size_bytes);
        window->base = NULL;
    }
}

/* 0 or a negative errno, and then all is as before. */
static int map_once(const struct mpl_window *window, uint64_t offset, uint64_t size_bytes, int fd,
                    uint64_t file_offset)
{
    char *start = window->base + offset;
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *mapped = mpl_sys_mmap(start, size_bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd,
                                fd < 0 ? 0 : file_offset);

    if (mapped == MAP_FAILED) {
        int error = -errno;

        /* Before 6.12 a refused MAP_FIXED could leave a hole where something was. */
        mapped = mpl_sys_mmap(start, size_bytes, PROT_NONE, RESERVED | MAP_FIXED_NOREPLACE, -1, 0);
        if (mapped == start) {
            unlock(start, size_bytes);
            keep_home(start, size_bytes);
        }
        return error;
    }
    if (!advise(start, size_bytes)) {
        mpl_window_unmap(window, offset, size_bytes);
        return -ENOMEM;
    }
    return 0;
}

int mpl_window_map(const struct mpl_window *window, uint64_t offset, uint64_t size_bytes, int fd,
                   uint64_t file_offset)
{
    int result;

    if (!mpl_spare_fill(window->spare)) {
        return -ENOMEM;
    }
    result = map_once(window, offset, size_bytes, fd, file_offset);
    if (result == 0 && !mpl_spare_fill(window->spare)) {
        mpl_window_unmap(window, offset, size_bytes);
        return -ENOMEM;
    }
    return result;
}

const char *mpl_window_why(int error)
{
    if (error == -ENOMEM) {
        return "the kernel refused another mapping: vm.max_map_count, RLIMIT_AS or overcommit";
    }
    return error == -EAGAIN ? "the mapping would be locked, and RLIMIT_MEMLOCK forbids it" : NULL;
}

int mpl_window_map_again(const struct mpl_window *window, uint64_t offset, uint64_t size_bytes,
                         int fd, uint64_t file_offset)
{
    int result;

    do {
        result = map_once(window, offset, size_bytes, fd, file_offset);
    } while (result == -ENOMEM && mpl_spare_release(window->spare));
    mpl_spare_fill(window->spare);
    return result;
}

void mpl_window_unmap(const struct mpl_window *window, uint64_t offset, uint64_t size_bytes)
{
    char *start = window->base + offset;
    bool unlocked = false;

    while (mpl_sys_mmap(start, size_bytes, PROT_NONE, RESERVED | MAP_FIXED, -1, 0) == MAP_FAILED) {
        /* EAGAIN: mlockall(MCL_FUTURE) and RLIMIT_MEMLOCK. What goes is locked itself, maybe, and
         * counts as long as it is. */
        if (errno == EAGAIN && !unlocked) {
            unlocked = syscall(SYS_munlock, start, size_bytes) == 0;
            if (unlocked) {
                continue;
            }
        }
        if (errno != ENOMEM || !mpl_spare_release(window->spare)) {
            mpl_sys_madvise(start, size_bytes, MADV_DONTNEED);
            mpl_sys_mprotect(start, size_bytes, PROT_NONE);
            atomic_fetch_add_explicit(&window->spare->nr_stuck, 1, memory_order_relaxed);
            break;
        }
    }
    unlock(start, size_bytes);
    keep_home(start, size_bytes);
    mpl_spare_fill(window->spare);
}
