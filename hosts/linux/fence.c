/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "fence.h"

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

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
    int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

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

static int open_as(struct mpl_fence *f, int dev_fd)
{
    int fd = mpl_fence_descriptor(dev_fd, UFFD_FEATURE_WP_HUGETLBFS_SHMEM);

    f->fd = fd < 0 ? -1 : fd;
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

int mpl_fence_raise(struct mpl_fence *f, void *va, size_t len)
{
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
    if (ioctl(f->fd, UFFDIO_WRITEPROTECT, &wp) < 0) {
        int err = -errno;

        unregister(f, va, len); /* also clears what was protected before it failed */
        return err;
    }
    return 0;
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
