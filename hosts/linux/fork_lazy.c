/* SPDX-License-Identifier: MIT */
/* Whether forks are lazy, and whether this one can be. */
#define _GNU_SOURCE
#include "fork.h"

#include "children.h"
#include "first_write.h"
#include "holders.h"
#include "sys.h"

#include <errno.h>
#include <linux/capability.h>

#define OPERATION "fork"

int memplug_space_fork_lazily(struct memplug_space *space, void (*ended)(int pid),
                              struct memplug_reason *reason)
{
    struct mpl_fork *fork = &space->fork;
    const char *why = "no full userfaultfd, by which first writes are seen";
    int saved = errno;
    int result = 0;

    if (atomic_exchange(&fork->asked, 1) != 0) {
        result = fork->first ? 0 : -EALREADY;
    } else if (space->fence_error != 0 || fork->uffd < 0) {
        result = -EPERM;
    } else if (space->fence.insists) {
        /* Linux 6.1 answers EFAULT where it would pin a page for long that waits for its first
         * write: io_uring's buffers. */
        result = -EOPNOTSUPP;
        why = "before Linux 6.7 buffers that share a page with a child cannot be registered";
    } else {
        result = mpl_first_open(space, ended, &why);
    }
    if (result == -EALREADY)
        why = "it was asked for, and does not work, or not yet";
    fork->copied_why = result != 0 ? why : NULL;
    errno = saved;
    return mpl_explain(reason, result, OPERATION, result != 0 ? why : NULL, NULL);
}

bool mpl_fork_traces_all(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    return syscall(SYS_capget, &header, data) == 0 &&
           (data[0].effective >> CAP_SYS_PTRACE & 1) != 0;
}

const char *mpl_fork_why_copied(struct memplug_space *space)
{
    if (!space->fork.first)
        return "lazy forks were not asked for, or do not work here";
    if (space->fork.alone)
        return "nobody else is held up";
    space->fork.nr_children = mpl_first_children(space);
    if (space->fork.nr_children == MPL_NR_CHILDREN)
        return "too many forked children live";
    if (mpl_holders_registered(space))
        return "an io_uring has registered buffers, which are written without a fault";
    return NULL;
}
