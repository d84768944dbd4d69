/* SPDX-License-Identifier: MIT */
/*
 * Become the user that a program is to run as. A program that gives up root by itself is no longer
 * dumpable, and what must be seen before its memory moves cannot be seen; one that is started as
 * its user is, but may not open the userfaultfd's device. So that is opened here, and inherited.
 */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NOT_POSSIBLE 125
#define DEVICE_FD_MIN 200 /* out of the way of scripts that use numbers of their own */

static int refuse(const char *name, const char *why)
{
    fprintf(stderr, "memplug run: --user %s: %s\n", name, why);
    return NOT_POSSIBLE;
}

/* -1: there is none; the program will say what that means. */
static int open_device(void)
{
    int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD, DEVICE_FD_MIN);

    if (fd >= 0)
        close(fd);
    return high;
}

int run_user(const char *name, int *uffd_device)
{
    const struct passwd *user = getpwnam(name);

    if (!user)
        return refuse(name, "there is no such user");
    if (geteuid() != 0)
        return refuse(name, "only root can become another user");
    *uffd_device = open_device();
    if (initgroups(name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
        setuid(user->pw_uid) != 0)
        return refuse(name, strerror(errno));
    /* This tool keeps nothing secret, and looks at itself. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    setenv("HOME", user->pw_dir, 1);
    setenv("USER", name, 1);
    setenv("LOGNAME", name, 1);
    unsetenv("XDG_RUNTIME_DIR"); /* of root's */
    return 0;
}
