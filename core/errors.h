/* SPDX-License-Identifier: MIT */
/* Linux's error numbers: a freestanding build has no errno.h, and hosts may have others. */
#ifndef MPL_ERRORS_H
#define MPL_ERRORS_H

enum mpl_errno {
    MPL_EPERM = 1,
    MPL_ENOENT = 2,
    MPL_ESRCH = 3,
    MPL_EINTR = 4,
    MPL_EIO = 5,
    MPL_ENXIO = 6,
    MPL_E2BIG = 7,
    MPL_EBADF = 9,
    MPL_EAGAIN = 11,
    MPL_ENOMEM = 12,
    MPL_EACCES = 13,
    MPL_EBUSY = 16,
    MPL_EEXIST = 17,
    MPL_ENODEV = 19,
    MPL_ENOTDIR = 20,
    MPL_EISDIR = 21,
    MPL_EINVAL = 22,
    MPL_ENFILE = 23,
    MPL_EMFILE = 24,
    MPL_EFBIG = 27,
    MPL_ENOSPC = 28,
    MPL_EROFS = 30,
    MPL_ERANGE = 34,
    MPL_EDEADLK = 35,
    MPL_EPROTO = 71,
    MPL_EMSGSIZE = 90,
    MPL_EOPNOTSUPP = 95,
    MPL_ETIMEDOUT = 110,
    MPL_EUCLEAN = 117,
    MPL_EHWPOISON = 133,
};

#endif
