/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "fence.h"

#include "proc.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

/* Of an entry of pagemap; also where no page is, which a marker stands for. */
#define PROTECTED ((uint64_t)1 << 57)
#define NR_ENTRIES 512u
#define PAGE_BYTES 4096u
#define TRIES 64u

static int handshake(int fd, uint64_t features)
{
    struct uffdio_api api = { .api = UFFD_API, .features = features };

    if (ioctl(fd, UFFDIO_API, &api) == 0)
        return fd;
    int err = errno == EINVAL ? -EOPNOTSUPP : -errno;

    mpl_sys_close(fd);
    return err;
}

static int from_node(int dev_fd, uint64_t features)
{
    int fd = ioctl(dev_fd, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);

    return fd < 0 ? -errno : handshake(fd, features);
}

int mpl_fence_descriptor(int dev_fd, uint64_t features)
{
    if (dev_fd >= 0)
        return from_node(dev_fd, features);
    int dev = mpl_sys_open("/dev/userfaultfd", O_RDWR);

    if (dev >= 0) {
        int fd = from_node(dev, features);

        mpl_sys_close(dev);
        /* A node that is no userfaultfd at all says ENOTTY: the system call may still do. */
        if (fd != -ENOTTY)
            return fd;
    }
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    return fd < 0 ? -errno : handshake(fd, features);
}

static bool is_old_kernel(void)
{
    struct utsname name;
    const char *at = name.release;
    uint64_t major = 0, minor = 0;

    if (uname(&name) == 0) {
        major = mpl_proc_value(&at);
        minor = *at == '.' ? (at++, mpl_proc_value(&at)) : 0;
    }
    return major < 6 || (major == 6 && minor < 7);
}

static int open_as(struct mpl_fence *f, int dev_fd)
{
    int fd = mpl_fence_descriptor(dev_fd, UFFD_FEATURE_WP_HUGETLBFS_SHMEM);

    f->fd = fd < 0 ? -1 : fd;
    f->insists = is_old_kernel();
    return fd < 0 ? fd : 0;
}

int mpl_fence_open(struct mpl_fence *f)
{
    return open_as(f, -1);
}

int mpl_fence_open_from(struct mpl_fence *f, int dev_fd)
{
    f->fd = -1;
    return dev_fd < 0 ? -EBADF : open_as(f, dev_fd);
}

void mpl_fence_close(struct mpl_fence *f)
{
    if (f->fd >= 0)
        mpl_sys_close(f->fd);
    f->fd = -1;
}

static void unregister(struct mpl_fence *f, void *va, size_t len)
{
    struct uffdio_range range = { .start = (uintptr_t)va, .len = len };

    ioctl(f->fd, UFFDIO_UNREGISTER, &range);
    mpl_fence_wake(f, va, len);
}

static bool are_protected(const uint64_t *entries, size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        if ((entries[i] & PROTECTED) == 0)
            return false;
    return true;
}

/* 0; -EAGAIN: some page is not; or why nobody says. */
static int look_at_protection(int pagemap, uintptr_t va, size_t len)
{
    uint64_t entries[NR_ENTRIES];

    while (len > 0) {
        size_t nr = len / PAGE_BYTES < NR_ENTRIES ? len / PAGE_BYTES : NR_ENTRIES;
        long got = mpl_sys_pread(pagemap, entries, nr * sizeof(*entries),
                                 va / PAGE_BYTES * sizeof(*entries));

        if (got != (long)(nr * sizeof(*entries)))
            return got < 0 ? -errno : -EIO;
        if (!are_protected(entries, nr))
            return -EAGAIN;
        va += nr * PAGE_BYTES;
        len -= nr * PAGE_BYTES;
    }
    return 0;
}

/* Again until every page is protected. A page that is touched all the time can win for long. */
static int insist(const struct mpl_fence *f, struct uffdio_writeprotect *wp)
{
    int pagemap = mpl_sys_open("/proc/thread-self/pagemap", O_RDONLY);
    int err = pagemap < 0 ? -errno : -EAGAIN;

    for (unsigned i = 0; i < TRIES && err == -EAGAIN; i++) {
        if (i > 0 && ioctl(f->fd, UFFDIO_WRITEPROTECT, wp) < 0)
            err = -errno;
        else
            err = look_at_protection(pagemap, wp->range.start, wp->range.len);
    }
    if (pagemap >= 0)
        mpl_sys_close(pagemap);
    return err == -EAGAIN ? -EBUSY : err;
}

int mpl_fence_raise(struct mpl_fence *f, void *va, size_t len)
{
    int err;
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)va, .len = len },
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    struct uffdio_writeprotect wp = {
        .range = reg.range,
        .mode = UFFDIO_WRITEPROTECT_MODE_WP,
    };

    if (ioctl(f->fd, UFFDIO_REGISTER, &reg) < 0)
        return -errno;
    err = ioctl(f->fd, UFFDIO_WRITEPROTECT, &wp) < 0 ? -errno : f->insists ? insist(f, &wp) : 0;
    if (err)
        unregister(f, va, len); /* also clears what was protected before it failed */
    return err;
}

void mpl_fence_lower(struct mpl_fence *f, void *va, size_t len)
{
    struct uffdio_writeprotect wp = { .range = { .start = (uintptr_t)va, .len = len } };

    /* First the protection: writers must run even if the kernel cannot unregister a part of a
     * mapping for lack of memory. */
    ioctl(f->fd, UFFDIO_WRITEPROTECT, &wp);
    unregister(f, va, len);
}

void mpl_fence_wake(struct mpl_fence *f, void *va, size_t len)
{
    struct uffdio_range range = { .start = (uintptr_t)va, .len = len };

    ioctl(f->fd, UFFDIO_WAKE, &range);
}
