/* SPDX-License-Identifier: MIT */
/*
 * Descriptors. They live in the program's table, where a program may close or overwrite any of
 * them (daemons close all they can count to). So they stand high, and each is compared with the
 * file that it should be before anything is done through it that would harm another file.
 */
#define _GNU_SOURCE
#include "host.h"
#include "sys.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* Above what select() users and shells think theirs, below the usual limit of 1,024. */
#define LOWEST_FD 256
/* Allocation of huge pages may be interrupted by signals: small steps, so that it gets on. */
#define ALLOCATE_STEP_BYTES (16ull << 20)
#define ALLOCATE_TRIES 1000u

int mpl_fd_adopt(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_FD);

    if (high < 0) {
        return fd;
    }
    mpl_sys_close(fd);
    return high;
}

bool mpl_fd_is(int fd, uint64_t dev, uint64_t ino)
{
    struct stat status;

    return fd >= 0 && fstat(fd, &status) == 0 && status.st_dev == dev && status.st_ino == ino;
}

void mpl_fd_close(int fd, uint64_t dev, uint64_t ino)
{
    if (mpl_fd_is(fd, dev, ino)) {
        mpl_sys_close(fd);
    }
}

int mpl_fd_memfd(const char *name, uint64_t size_bytes, unsigned flags, int seals)
{
    int error;
    int fd;

    flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
    fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create(name, flags); /* before Linux 6.3 */
    }
    if (fd < 0) {
        return -errno;
    }
    fd = mpl_fd_adopt(fd);
    if (ftruncate(fd, (off_t)size_bytes) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0) {
        return fd;
    }
    error = -errno;
    mpl_sys_close(fd);
    return error;
}

static void fd_path(char path[40], int fd)
{
    static const char prefix[] = "/proc/thread-self/fd/";
    char digits[12];
    unsigned nr_digits = 0;
    unsigned length = 0;

    for (; prefix[length]; length++) {
        path[length] = prefix[length];
    }
    do {
        digits[nr_digits++] = (char)('0' + fd % 10);
        fd /= 10;
    } while (fd > 0);
    while (nr_digits > 0) {
        path[length++] = digits[--nr_digits];
    }
    path[length] = 0;
}

int mpl_fd_reopen(int fd)
{
    struct stat wanted;
    char path[40];
    int own;

    if (fstat(fd, &wanted) != 0) {
        return -errno;
    }
    fd_path(path, fd);
    own = mpl_sys_open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (own < 0) {
        return -errno;
    }
    if (!mpl_fd_is(own, wanted.st_dev, wanted.st_ino)) {
        mpl_sys_close(own);
        return -ENOENT;
    }
    return mpl_fd_adopt(own);
}

int mpl_fd_allocate(int fd, uint64_t offset, uint64_t size_bytes)
{
    uint64_t end = offset + size_bytes;
    unsigned tries = 0;

    while (offset < end) {
        uint64_t step = end - offset < ALLOCATE_STEP_BYTES ? end - offset : ALLOCATE_STEP_BYTES;

        if (mpl_sys_fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, step) == 0) {
            offset += step;
            tries = 0;
        } else if (errno != EINTR || ++tries == ALLOCATE_TRIES) {
            return -errno;
        }
    }
    return 0;
}

/* For filesystems that cannot make holes. write(2), since a store could meet a truncated file. */
int mpl_fd_fill(int fd, uint64_t offset, uint64_t size_bytes)
{
    static const char zeros[4096];
    struct iovec parts[64];
    uint64_t end = offset + size_bytes;

    while (offset < end) {
        unsigned nr_parts = 0;

        for (uint64_t at = offset; at < end && nr_parts < 64; nr_parts++) {
            uint64_t size = end - at < sizeof(zeros) ? end - at : sizeof(zeros);

            parts[nr_parts] = (struct iovec){.iov_base = (void *)(uintptr_t)zeros, .iov_len = size};
            at += size;
        }
        long written = syscall(SYS_pwritev, fd, parts, (long)nr_parts, offset, 0L);
        if (written > 0) {
            offset += (uint64_t)written;
        } else if (written == 0 || errno != EINTR) {
            return written == 0 ? -EIO : -errno;
        }
    }
    return 0;
}

int mpl_fd_scrub(int fd, uint64_t offset, uint64_t size_bytes)
{
    struct stat status;

    if (fstat(fd, &status) != 0) {
        return -errno;
    }
    if ((uint64_t)status.st_size <= offset) {
        return 0;
    }
    if (size_bytes > (uint64_t)status.st_size - offset) {
        size_bytes = (uint64_t)status.st_size - offset;
    }
    if (mpl_sys_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                          size_bytes) == 0) {
        return 0;
    }
    return mpl_fd_fill(fd, offset, size_bytes);
}

int mpl_fd_lock(int fd, uint64_t offset, uint64_t size_bytes, bool lock)
{
    struct flock bytes = {
        .l_type = lock ? F_WRLCK : F_UNLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)offset,
        .l_len = (off_t)size_bytes,
    };

    if (fcntl(fd, F_OFD_SETLK, &bytes) == 0) {
        return 0;
    }
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}
