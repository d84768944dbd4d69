/* SPDX-License-Identifier: MIT */
/* The table of backings, and where an address lies. What attach and detach do is in attach.c. */
#define _GNU_SOURCE
#include "host.h"
#include "sys.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define OPERATION "backing"

/* --- open and close --------------------------------------------------------------------------- */

static struct mpl_backing *take_free(struct memplug_linux *host)
{
    struct mpl_backing *found = NULL;

    mpl_lock_enter(&host->tables);
    for (unsigned i = 0; i < MPL_NR_BACKINGS && !found; i++) {
        if (!host->backings[i].in_use) {
            found = &host->backings[i];
            *found = (struct mpl_backing){.in_use = true, .closed = true, .fd = -1};
        }
    }
    mpl_lock_leave(&host->tables);
    return found;
}

static void end(struct mpl_backing *backing)
{
    mpl_fd_close(backing->fd, backing->dev, backing->ino);
    *backing = (struct mpl_backing){.in_use = false};
}

struct mpl_backing *mpl_backing_check(struct memplug_linux *host, const void *backing)
{
    uintptr_t offset = (uintptr_t)backing - (uintptr_t)host->backings;

    if (offset >= sizeof(host->backings) || offset % sizeof(host->backings[0]) != 0) {
        return NULL;
    }
    struct mpl_backing *found = &host->backings[offset / sizeof(host->backings[0])];
    return found->in_use ? found : NULL;
}

/* Counts extents that are about to be attached: the backing stays until the drop. */
int mpl_backing_hold(struct memplug_linux *host, struct mpl_backing *backing, uint64_t nr)
{
    int result = -ENODEV;

    mpl_lock_enter(&host->tables);
    if (backing->in_use && !backing->closed) {
        backing->nr_attached += nr;
        result = 0;
    }
    mpl_lock_leave(&host->tables);
    return result;
}

void mpl_backing_drop(struct memplug_linux *host, struct mpl_backing *backing, uint64_t nr)
{
    mpl_lock_enter(&host->tables);
    backing->nr_attached -= nr;
    if (backing->nr_attached == 0) {
        backing->low = UINT64_MAX;
        backing->high = 0;
        if (backing->closed) {
            end(backing);
        }
    }
    mpl_lock_leave(&host->tables);
}

static void set_name(struct mpl_backing *backing, const char *name)
{
    unsigned at = 0;

    for (name = name ? name : "memplug"; name[at] && at + 1 < MPL_BACKING_NAME_MAX; at++) {
        backing->name[at] = name[at];
    }
    backing->name[at] = 0;
}

unsigned mpl_backing_huge_flags(const struct memplug_linux *host)
{
    return MFD_HUGETLB | (unsigned)__builtin_ctzll(host->large_bytes) << MFD_HUGE_SHIFT;
}

static int open_memory(struct memplug_linux *host, const struct memplug_backing_spec *spec,
                       struct mpl_backing *backing, struct memplug_reason *reason)
{
    unsigned flags = backing->huge ? mpl_backing_huge_flags(host) : 0;

    if (spec->size_bytes == 0 || spec->size_bytes % host->block_bytes != 0) {
        return mpl_explain(reason, -EINVAL, OPERATION, "the size is not whole blocks", NULL);
    }
    backing->align_bytes = backing->huge ? host->large_bytes : host->page_bytes;
    backing->size_bytes = spec->size_bytes;
    /* Nobody who is handed the descriptor can truncate it, or seal it against our writes. */
    backing->fd = mpl_fd_memfd(backing->name, spec->size_bytes, flags,
                               F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    if (backing->fd >= 0) {
        return 0;
    }
    if (backing->huge && (backing->fd == -EINVAL || backing->fd == -ENODEV)) {
        return mpl_explain(reason, -ENODEV, OPERATION, "the kernel has no huge pages of this size",
                           NULL);
    }
    return mpl_explain(reason, backing->fd, OPERATION, "memfd_create was refused",
                       "look at RLIMIT_NOFILE and vm.memfd_noexec");
}

static int measure_file(const struct memplug_backing_spec *spec, struct mpl_backing *backing,
                        const struct stat *status, struct memplug_reason *reason)
{
    struct statfs filesystem;
    uint64_t mask;

    if (!S_ISREG(status->st_mode)) {
        return mpl_explain(reason, -ENODEV, OPERATION, "not a regular file", NULL);
    }
    if (fstatfs(spec->fd, &filesystem) != 0) {
        return mpl_explain(reason, -errno, OPERATION, "fstatfs was refused", NULL);
    }
    if ((uint32_t)filesystem.f_type == HUGETLBFS_MAGIC) {
        backing->huge = true;
        backing->align_bytes = (uint64_t)status->st_blksize;
    }
    mask = backing->align_bytes - 1;
    backing->size_bytes = (uint64_t)status->st_size & ~mask;
    return 0;
}

static int measure_dax(struct mpl_backing *backing, const struct stat *status,
                       struct memplug_reason *reason)
{
    if (!S_ISCHR(status->st_mode) ||
        mpl_dax_probe("/sys", status->st_rdev, &backing->size_bytes, &backing->align_bytes) != 0) {
        return mpl_explain(reason, -ENODEV, OPERATION, "not a device-dax character device", NULL);
    }
    /* Two nodes of one device are the same bytes. */
    backing->key[0] = UINT64_MAX;
    backing->key[1] = status->st_rdev;
    return 0;
}

/* With a file description of its own a lock also holds against whoever inherited the caller's. */
static int own_descriptor(struct mpl_backing *backing, int fd, struct memplug_reason *reason)
{
    backing->fd = mpl_fd_reopen(fd);
    if (backing->fd >= 0) {
        return 0;
    }
    if (backing->fd != -EMFILE && backing->fd != -ENFILE) {
        backing->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (backing->fd >= 0) {
            backing->fd = mpl_fd_adopt(backing->fd);
            mpl_explain(reason, 0, OPERATION,
                        "the file could not be opened anew, the caller's descriptor is shared",
                        "mount /proc, or give this user the right to open the file");
            return 0;
        }
        backing->fd = -errno;
    }
    return mpl_explain(reason, backing->fd, OPERATION, "no descriptor left", NULL);
}

static int try_mapping(struct memplug_linux *host, const struct mpl_backing *backing,
                       struct memplug_reason *reason)
{
    void *mapped = mpl_sys_mmap(NULL, backing->align_bytes, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_NORESERVE, backing->fd, 0);

    if (mapped == MAP_FAILED) {
        int error = errno == ENOMEM ? -ENOMEM : -ENODEV;

        return mpl_explain(reason, error, OPERATION, "it cannot be mapped for writing", NULL);
    }
    mpl_spare_munmap(&host->spare, mapped, backing->align_bytes);
    return 0;
}

static int open_shared(struct memplug_linux *host, const struct memplug_backing_spec *spec,
                       struct mpl_backing *backing, struct memplug_reason *reason)
{
    int flags = fcntl(spec->fd, F_GETFL);
    struct stat status;
    int result;

    if (flags < 0 || fstat(spec->fd, &status) != 0) {
        return mpl_explain(reason, -EBADF, OPERATION, "not an open descriptor", NULL);
    }
    backing->align_bytes = host->page_bytes;
    backing->key[0] = status.st_dev;
    backing->key[1] = status.st_ino;
    result = backing->kind == MEMPLUG_BACKING_DAX ? measure_dax(backing, &status, reason)
                                                  : measure_file(spec, backing, &status, reason);
    if (result != 0) {
        return result;
    }
    if ((flags & (O_ACCMODE | O_PATH)) != O_RDWR) {
        return mpl_explain(reason, -EACCES, OPERATION, "not open for reading and writing", NULL);
    }
    if (backing->size_bytes < spec->size_bytes) {
        result = mpl_explain(reason, -ENXIO, OPERATION, "shorter than it has to be",
                             "make it longer");
        if (reason) {
            reason->size_bytes = backing->size_bytes;
            reason->unit_bytes = spec->size_bytes;
        }
        return result;
    }
    backing->size_bytes = spec->size_bytes ? spec->size_bytes : backing->size_bytes;
    result = own_descriptor(backing, spec->fd, reason);
    return result != 0 ? result : try_mapping(host, backing, reason);
}

int memplug_linux_backing_open(struct memplug_linux *host, const struct memplug_backing_spec *spec,
                               void **backing, struct memplug_reason *reason)
{
    struct mpl_backing *new = take_free(host);
    struct stat status;
    int result;

    if (!new) {
        return mpl_explain(reason, -ENOSPC, OPERATION, "there are 64 backings already", NULL);
    }
    mpl_explain(reason, 0, OPERATION, NULL, NULL);
    new->kind = spec->kind;
    new->low = UINT64_MAX;
    set_name(new, spec->name);
    if (spec->kind == MEMPLUG_BACKING_MEMFD || spec->kind == MEMPLUG_BACKING_HUGETLB) {
        new->huge = spec->kind == MEMPLUG_BACKING_HUGETLB;
        result = open_memory(host, spec, new, reason);
    } else if (spec->kind == MEMPLUG_BACKING_FILE || spec->kind == MEMPLUG_BACKING_DAX) {
        new->shared = true;
        new->keep_content = spec->keep_content;
        result = open_shared(host, spec, new, reason);
    } else {
        result = mpl_explain(reason, -EINVAL, OPERATION, "no such kind of backing", NULL);
    }
    if (new->fd >= 0 && fstat(new->fd, &status) == 0) {
        new->dev = status.st_dev;
        new->ino = status.st_ino;
    }
    if (!new->shared) {
        new->key[0] = new->dev;
        new->key[1] = new->ino;
    }
    mpl_lock_enter(&host->tables);
    new->closed = false;
    if (result != 0) {
        end(new);
    } else {
        *backing = new;
    }
    mpl_lock_leave(&host->tables);
    return result;
}

void memplug_linux_backing_close(struct memplug_linux *host, void *backing)
{
    mpl_lock_enter(&host->tables);
    struct mpl_backing *found = mpl_backing_check(host, backing);
    if (found && !found->closed) {
        found->closed = true;
        if (found->nr_attached == 0) {
            end(found);
        }
    }
    mpl_lock_leave(&host->tables);
}

int memplug_linux_backing_dup(struct memplug_linux *host, void *backing)
{
    int result = -ENODEV;

    mpl_lock_enter(&host->tables);
    struct mpl_backing *found = mpl_backing_check(host, backing);
    if (found && found->kind != MEMPLUG_BACKING_HUGETLB &&
        mpl_fd_is(found->fd, found->dev, found->ino)) {
        /* A shared description would let its owner drop our lock on a file. */
        result = found->shared ? mpl_fd_reopen(found->fd) : fcntl(found->fd, F_DUPFD_CLOEXEC, 0);
        result = result == -1 ? -errno : result;
    }
    mpl_lock_leave(&host->tables);
    return result;
}

/* --- where an address lies -------------------------------------------------------------------- */

static struct mpl_linux_block *block_at(const struct memplug_linux *host, uint64_t address)
{
    uint64_t block = address / host->block_bytes;

    if (block >= host->nr_blocks ||
        atomic_load_explicit(&host->blocks[block].state, memory_order_acquire) == 0) {
        return NULL;
    }
    return &host->blocks[block];
}

int mpl_backing_locate(const struct memplug_linux *host, uint64_t address,
                       struct mpl_location *location)
{
    const struct mpl_linux_block *block = block_at(host, address);

    if (!block) {
        return -ENODEV;
    }
    uint64_t at = address % host->block_bytes;
    uint32_t state = atomic_load_explicit(&block->state, memory_order_acquire);
    location->kind = block->backing->kind;
    location->align_bytes = block->backing->align_bytes;
    location->flags = block->backing->huge ? MPL_LOCATION_HUGETLB : 0;
    if (at < block->head_bytes) {
        location->flags |= MPL_LOCATION_MEMMAP;
        location->fd = block->backing->fd;
        location->file_offset = block->backing_offset + at;
        location->run_bytes = block->head_bytes - at;
        return 0;
    }
    location->flags |= state & MPL_BLOCK_SPENT ? MPL_LOCATION_SPENT : 0;
    location->fd = atomic_load_explicit(&block->fd, memory_order_acquire);
    location->file_offset = block->file_offset + (at - block->head_bytes);
    location->run_bytes = host->block_bytes - at;
    return 0;
}

int mpl_backing_intact(const struct memplug_linux *host, uint64_t address)
{
    const struct mpl_linux_block *block = block_at(host, address);
    struct stat status;

    if (!block) {
        return -ENODEV;
    }
    const struct mpl_backing *backing = block->backing;
    uint64_t ino = backing->kind == MEMPLUG_BACKING_HUGETLB ? block->ino : backing->ino;
    int fd = atomic_load_explicit(&block->fd, memory_order_acquire);
    if (fd < 0) {
        return 0; /* all memmap: there is no data */
    }
    if (fstat(fd, &status) != 0 || status.st_dev != backing->dev || status.st_ino != ino) {
        return -ENODEV;
    }
    uint64_t end_bytes = block->backing_offset + host->block_bytes;
    bool cut = backing->kind == MEMPLUG_BACKING_FILE && (uint64_t)status.st_size < end_bytes;
    return cut ? -ENXIO : 0;
}

int mpl_backing_spent(struct memplug_linux *host, uint64_t address)
{
    struct mpl_linux_block *block = block_at(host, address);

    if (!block) {
        return -ENODEV;
    }
    if (block->backing->kind != MEMPLUG_BACKING_HUGETLB || block->head_bytes == host->block_bytes) {
        return -EINVAL;
    }
    atomic_fetch_or_explicit(&block->state, MPL_BLOCK_SPENT, memory_order_release);
    return 0;
}
