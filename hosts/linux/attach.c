/* SPDX-License-Identifier: MIT */
/*
 * Attach and detach: an extent's bytes into the direct map and out again. Detach gives memory back
 * before it drops the mapping, and through the mapping rather than the descriptor: that also works
 * when the mapping cannot be dropped, or when the program has closed the descriptor.
 */
#define _GNU_SOURCE
#include "holes.h"
#include "host.h"
#include "sys.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

static struct mpl_linux_block *block_of(struct memplug_linux *host, uint64_t address)
{
    return &host->blocks[address / host->block_bytes];
}

static int refuse(struct memplug_linux *host, int error, const char *why)
{
    host->why = why;
    return error;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- check ------------------------------------------------------------------------------------ */

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* Is any of these bytes in this host already, through whichever backing? Adding in order is cheap:
 * the block table is searched only if the span of what is attached says that there may be. */
static bool bytes_in_use(const struct memplug_linux *host, const struct mpl_backing *mine,
                         uint64_t offset, uint64_t size_bytes)
{
    for (unsigned i = 0; i < MPL_NR_BACKINGS; i++) {
        const struct mpl_backing *other = &host->backings[i];

        if (!other->in_use || other->key[0] != mine->key[0] || other->key[1] != mine->key[1] ||
            other->low >= offset + size_bytes || other->high <= offset) {
            continue;
        }
        for (uint64_t block = 0; block < host->nr_blocks; block++) {
            const struct mpl_linux_block *at = &host->blocks[block];

            if (at->state != 0 && at->backing == other &&
                overlap(at->backing_offset, host->block_bytes, offset, size_bytes)) {
                return true;
            }
        }
    }
    return false;
}

static int check_extent(struct memplug_linux *host, const struct mpl_backing *backing,
                        const struct memplug_extent *extent)
{
    uint64_t size_bytes = backing->size_bytes;
    uint64_t mask = backing->align_bytes - 1;
    struct stat status;

    if (((extent->offset_bytes | extent->address | extent->size_bytes) & mask) != 0 ||
        (backing->kind == MEMPLUG_BACKING_HUGETLB && (extent->memmap_bytes & mask) != 0) ||
        extent->memmap_bytes > extent->size_bytes) {
        return refuse(host, -EINVAL, "not a multiple of what this backing can be mapped at");
    }
    if (fstat(backing->fd, &status) != 0 || status.st_dev != backing->dev ||
        status.st_ino != backing->ino) {
        return refuse(host, -ENODEV, "the program has closed the host's descriptor");
    }
    if (backing->kind == MEMPLUG_BACKING_FILE) {
        size_bytes = smaller(size_bytes, (uint64_t)status.st_size);
    }
    if (extent->offset_bytes > size_bytes ||
        extent->size_bytes > size_bytes - extent->offset_bytes) {
        return refuse(host, -ENXIO, "the backing is shorter than this");
    }
    mpl_lock_enter(&host->tables);
    bool in_use = bytes_in_use(host, backing, extent->offset_bytes, extent->size_bytes);
    mpl_lock_leave(&host->tables);
    if (in_use) {
        return refuse(host, -EEXIST, "these bytes are plugged in already");
    }
    return 0;
}

/* --- one descriptor for the whole extent: MEMFD, FILE, DAX ------------------------------------ */

static int map_direct(struct memplug_linux *host, uint64_t address, uint64_t size_bytes, int fd,
                      uint64_t file_offset)
{
    int result = mpl_window_map(&host->direct, address, size_bytes, fd, file_offset);

    if (result == -EACCES || result == -EPERM || result == -EINVAL) {
        return refuse(host, -ENODEV, "it cannot be mapped for writing");
    }
    return result != 0 ? refuse(host, result, mpl_window_why(result)) : 0;
}

/* Holes of a memfd that somebody handed in are as good as ours: no filesystem's size limits it. */
static bool has_no_limit(const struct mpl_backing *backing)
{
    struct statfs filesystem;

    return !backing->huge && fstatfs(backing->fd, &filesystem) == 0 &&
           filesystem.f_type == TMPFS_MAGIC && filesystem.f_blocks == 0;
}

/* A hole would be filled at the first touch, and be SIGBUS on a full filesystem. */
static int fill_holes(struct memplug_linux *host, const struct memplug_extent *extent)
{
    const struct mpl_backing *backing = extent->backing;
    struct stat status;

    if (has_no_limit(backing)) {
        return 0;
    }
    int result = mpl_fd_allocate(backing->fd, extent->offset_bytes, extent->size_bytes);
    if (result == -EOPNOTSUPP || result == -ENOSYS) {
        bool dense = fstat(backing->fd, &status) == 0 &&
                     status.st_blocks >= status.st_size / 512;

        result = dense ? 0 : mpl_fd_fill(backing->fd, extent->offset_bytes, extent->size_bytes);
    }
    if (result == -ENOSPC && backing->huge) {
        result = -ENOMEM;
    }
    return result != 0 ? refuse(host, result, "the filesystem cannot fill the file's holes") : 0;
}

static int lock_bytes(struct memplug_linux *host, const struct memplug_extent *extent)
{
    const struct mpl_backing *backing = extent->backing;
    int result = mpl_fd_lock(backing->fd, extent->offset_bytes, extent->size_bytes, true);

    if (result == -EBUSY) {
        return refuse(host, result, "another process has these bytes");
    }
    return result != 0 ? refuse(host, result, "the filesystem cannot lock bytes") : 0;
}

/* To look whether there is anything is half of what it costs to make a hole of nothing. A program
 * that closes the descriptor and has another file there must not do so between the two looks: the
 * file is looked at last. MADV_REMOVE is refused on locked memory (mlockall) and by some
 * filesystems. */
static void give_back(struct memplug_linux *host, const struct mpl_backing *backing,
                      uint64_t address, uint64_t offset, uint64_t size_bytes)
{
    if (backing->kind == MEMPLUG_BACKING_MEMFD && host->page_bytes == MPL_HOLES_PAGE &&
        mpl_holes_all(backing->fd, offset, size_bytes / MPL_HOLES_PAGE) &&
        mpl_fd_is(backing->fd, backing->dev, backing->ino)) {
        return;
    }
    if (mpl_sys_madvise(host->direct.base + address, size_bytes, MADV_REMOVE) != 0 &&
        mpl_fd_is(backing->fd, backing->dev, backing->ino)) {
        mpl_fd_scrub(backing->fd, offset, size_bytes);
    }
}

static void unmap_whole(struct memplug_linux *host, const struct memplug_extent *extent)
{
    struct mpl_backing *backing = extent->backing;

    if (!backing->keep_content && backing->kind == MEMPLUG_BACKING_DAX) {
        memset(host->direct.base + extent->address, 0, extent->size_bytes);
    } else if (!backing->keep_content) {
        give_back(host, backing, extent->address, extent->offset_bytes, extent->size_bytes);
    }
    mpl_window_unmap(&host->direct, extent->address, extent->size_bytes);
    if (backing->shared && mpl_fd_is(backing->fd, backing->dev, backing->ino)) {
        mpl_fd_lock(backing->fd, extent->offset_bytes, extent->size_bytes, false);
    }
}

static int map_whole(struct memplug_linux *host, const struct memplug_extent *extent)
{
    struct mpl_backing *backing = extent->backing;
    int result = backing->shared ? lock_bytes(host, extent) : 0;

    if (result != 0) {
        return result;
    }
    result = map_direct(host, extent->address, extent->size_bytes, backing->fd,
                        extent->offset_bytes);
    if (result == 0 && backing->kind == MEMPLUG_BACKING_FILE) {
        result = fill_holes(host, extent);
        if (result != 0) {
            mpl_window_unmap(&host->direct, extent->address, extent->size_bytes);
        }
    }
    if (result != 0) {
        if (backing->shared) {
            mpl_fd_lock(backing->fd, extent->offset_bytes, extent->size_bytes, false);
        }
        return result;
    }
    for (uint64_t at = 0; at < extent->size_bytes; at += host->block_bytes) {
        struct mpl_linux_block *block = block_of(host, extent->address + at);

        block->backing = backing;
        block->backing_offset = block->file_offset = extent->offset_bytes + at;
        block->head_bytes = 0;
        block->fd = backing->fd;
    }
    return 0;
}

/* --- a descriptor for each block: HUGETLB ----------------------------------------------------- */

static int new_data_file(struct memplug_linux *host, const struct mpl_backing *backing,
                         uint64_t size_bytes, uint64_t *ino)
{
    /* Can be truncated and sealed: the one is how memory is given back, the other the pin proof. */
    int fd = mpl_fd_memfd(backing->name, size_bytes, mpl_backing_huge_flags(host), F_SEAL_GROW);
    struct stat status;

    if (fd >= 0 && fstat(fd, &status) == 0) {
        *ino = status.st_ino;
    }
    return fd;
}

static int allocate_huge(struct memplug_linux *host, int fd, uint64_t offset, uint64_t size_bytes)
{
    int result = mpl_fd_allocate(fd, offset, size_bytes);

    if (result == -ENOSPC || result == -ENOMEM) {
        return refuse(host, -ENOMEM, "not enough free huge pages: see vm.nr_hugepages");
    }
    return result;
}

static void unmap_block(struct memplug_linux *host, uint64_t address)
{
    struct mpl_linux_block *block = block_of(host, address);
    uint64_t data = address + block->head_bytes;
    uint64_t data_bytes = host->block_bytes - block->head_bytes;

    if (block->head_bytes > 0) {
        give_back(host, block->backing, address, block->backing_offset, block->head_bytes);
    }
    if (block->fd >= 0) {
        bool ours = mpl_fd_is(block->fd, block->backing->dev, block->ino);

        if (!ours || ftruncate(block->fd, 0) != 0) {
            mpl_sys_madvise(host->direct.base + data, data_bytes, MADV_REMOVE);
        }
    }
    mpl_window_unmap(&host->direct, address, host->block_bytes);
    mpl_fd_close(block->fd, block->backing->dev, block->ino);
    block->fd = -1;
}

static int map_head(struct memplug_linux *host, struct mpl_linux_block *block, uint64_t address)
{
    int fd = block->backing->fd;
    int result = map_direct(host, address, block->head_bytes, fd, block->backing_offset);

    return result != 0 ? result : allocate_huge(host, fd, block->backing_offset, block->head_bytes);
}

static int map_data(struct memplug_linux *host, struct mpl_linux_block *block, uint64_t address)
{
    uint64_t data_bytes = host->block_bytes - block->head_bytes;
    int fd = new_data_file(host, block->backing, data_bytes, &block->ino);
    int result;

    if (fd < 0) {
        return refuse(host, fd, "no descriptor for the block: see RLIMIT_NOFILE");
    }
    block->fd = fd;
    result = allocate_huge(host, fd, 0, data_bytes);
    if (result != 0) {
        return result;
    }
    return map_direct(host, address + block->head_bytes, data_bytes, fd, 0);
}

static int map_block(struct memplug_linux *host, const struct memplug_extent *extent, uint64_t at)
{
    struct mpl_linux_block *block = block_of(host, extent->address + at);
    uint64_t memmap_left = extent->memmap_bytes > at ? extent->memmap_bytes - at : 0;
    int result = 0;

    block->backing = extent->backing;
    block->backing_offset = extent->offset_bytes + at;
    block->file_offset = 0;
    block->head_bytes = smaller(memmap_left, host->block_bytes);
    block->fd = -1;
    if (block->head_bytes > 0) {
        result = map_head(host, block, extent->address + at);
    }
    if (result == 0 && block->head_bytes < host->block_bytes) {
        result = map_data(host, block, extent->address + at);
    }
    if (result != 0) {
        unmap_block(host, extent->address + at);
    }
    return result;
}

static int map_blocks(struct memplug_linux *host, const struct memplug_extent *extent)
{
    for (uint64_t at = 0; at < extent->size_bytes; at += host->block_bytes) {
        int result = map_block(host, extent, at);

        if (result != 0) {
            while (at > 0) {
                at -= host->block_bytes;
                unmap_block(host, extent->address + at);
            }
            return result;
        }
    }
    return 0;
}

int mpl_backing_renew(struct memplug_linux *host, uint64_t address)
{
    uint64_t start = address & ~(host->block_bytes - 1);
    struct mpl_linux_block *block = start < host->nr_blocks * host->block_bytes
                                        ? block_of(host, start) : NULL;
    uint64_t ino = 0;

    if (!block || block->state == 0) {
        return -ENODEV;
    }
    if (block->backing->kind != MEMPLUG_BACKING_HUGETLB || block->fd < 0) {
        return -EINVAL;
    }
    uint64_t data_bytes = host->block_bytes - block->head_bytes;
    int fd = new_data_file(host, block->backing, data_bytes, &ino);
    if (fd < 0) {
        return fd;
    }
    int result = allocate_huge(host, fd, 0, data_bytes);
    if (result == -ENOMEM && (block->state & MPL_BLOCK_SPENT) != 0 &&
        mpl_fd_is(block->fd, block->backing->dev, block->ino) && ftruncate(block->fd, 0) == 0) {
        result = allocate_huge(host, fd, 0, data_bytes);
    }
    if (result == 0) {
        result = mpl_window_map_again(&host->direct, start + block->head_bytes, data_bytes, fd, 0);
    }
    if (result != 0) {
        mpl_sys_close(fd);
        return result;
    }
    mpl_fd_close(block->fd, block->backing->dev, block->ino);
    block->ino = ino;
    atomic_store_explicit(&block->fd, fd, memory_order_release);
    atomic_fetch_and_explicit(&block->state, ~MPL_BLOCK_SPENT, memory_order_release);
    return 0;
}

/* --- attach and detach ------------------------------------------------------------------------ */

static void publish(struct memplug_linux *host, const struct memplug_extent *extent, uint32_t state)
{
    for (uint64_t at = 0; at < extent->size_bytes; at += host->block_bytes) {
        atomic_store_explicit(&block_of(host, extent->address + at)->state, state,
                              memory_order_release);
    }
}

int mpl_backing_attach(struct memplug_linux *host, const struct memplug_extent *first, uint64_t nr)
{
    struct mpl_backing *backing = mpl_backing_check(host, first->backing);
    struct memplug_extent all = *first;
    int result;

    host->why = NULL;
    all.size_bytes *= nr;
    if (!backing || first->address % host->block_bytes != 0 ||
        first->size_bytes % host->block_bytes != 0) {
        return -EINVAL;
    }
    if (first->address > host->direct.size_bytes ||
        all.size_bytes > host->direct.size_bytes - first->address) {
        return refuse(host, -E2BIG, "beyond the window");
    }
    if (nr > 1 && backing->kind != MEMPLUG_BACKING_MEMFD) {
        return -EOPNOTSUPP; /* huge pages and holes of files are filled, which takes its time */
    }
    result = mpl_backing_hold(host, backing, nr);
    if (result != 0) {
        return result;
    }
    result = check_extent(host, backing, &all);
    if (result == 0) {
        result = backing->kind == MEMPLUG_BACKING_HUGETLB ? map_blocks(host, first)
                                                          : map_whole(host, &all);
    }
    if (result != 0) {
        mpl_backing_drop(host, backing, nr);
        return result;
    }
    backing->low = smaller(backing->low, all.offset_bytes);
    if (backing->high < all.offset_bytes + all.size_bytes) {
        backing->high = all.offset_bytes + all.size_bytes;
    }
    publish(host, &all, MPL_BLOCK_ATTACHED);
    return 0;
}

void mpl_backing_detach(struct memplug_linux *host, const struct memplug_extent *extent)
{
    struct mpl_backing *backing = extent->backing;

    if (backing->kind == MEMPLUG_BACKING_HUGETLB) {
        for (uint64_t at = 0; at < extent->size_bytes; at += host->block_bytes) {
            unmap_block(host, extent->address + at);
        }
    } else {
        unmap_whole(host, extent);
    }
    publish(host, extent, 0);
    mpl_backing_drop(host, backing, 1);
}
