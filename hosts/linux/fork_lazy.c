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
#include <sys/prctl.h>

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

/* A child is as its parent is: undumpable, or of mixed identities, it could not be reached. */
static bool can_reach_its_like(void)
{
    uid_t uid, euid, suid;
    gid_t gid, egid, sgid;

    return syscall(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0) == 1 &&
           syscall(SYS_getresuid, &uid, &euid, &suid) == 0 && uid == euid && uid == suid &&
           syscall(SYS_getresgid, &gid, &egid, &sgid) == 0 && gid == egid && gid == sgid;
}

const char *mpl_fork_why_copied(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;

    if (!fork->first)
        return "lazy forks were not asked for, or do not work here";
    if (fork->alone)
        return "nobody else is held up";
    fork->nr_children = mpl_first_children(space);
    if (fork->nr_children == MPL_NR_CHILDREN)
        return "too many forked children live";
    if (!fork->traces_all && !can_reach_its_like())
        return "a child would be out of its parent's reach: not dumpable, or of other identities";
    if (atomic_load(&fork->nr_changing) != 0)
        return "another thread changes what this process may do";
    if (fork->serial < fork->copies_until)
        return "a child of before could not be reached by its parent";
    return mpl_holders_registered(space, false);
}

/* --- who loses the right to trace ------------------------------------------------------------- */

static int settle_all(struct memplug_space *space)
{
    uint64_t unit = 0;
    int result = 0;

    while (result == 0) {
        mpl_lock_enter(&space->area.lock);
        unit = mpl_area_next(&space->area, unit);
        mpl_lock_leave(&space->area.lock);
        if (unit >= space->area.nr_usable)
            break;
        mpl_lock_enter(&mpl_unit_at(space, unit)->lock);
        result = mpl_first_settle_unit(space, unit);
        mpl_lock_leave(&mpl_unit_at(space, unit)->lock);
        unit++;
    }
    return result;
}

/* Or is it a child by vfork(), which changes itself alone? */
static bool is_ours(const struct memplug_space *space)
{
    return syscall(SYS_getpid) == space->fork.parent;
}

/* Who changes raises nr_changing and then reads under_way; who forks raises under_way and then
 * reads nr_changing. In the one order of all four one sees the other: the fork copies, or it
 * is waited for. And under_way is lowered after its child was counted. */
int memplug_space_change_begin(struct memplug_space *space)
{
    struct mpl_fork *fork = &space->fork;
    int saved = errno;
    int result = 0;

    if (!is_ours(space))
        return 0;
    atomic_fetch_add(&fork->nr_changing, 1);
    if (fork->first && (atomic_load(&fork->under_way) ||
                        (mpl_first_has_children(space) && mpl_first_children(space) > 0))) {
        mpl_lock_enter(&space->moving); /* the fork has its child then */
        if (mpl_first_children(space) > 0)
            result = settle_all(space);
        mpl_lock_leave(&space->moving);
    }
    errno = saved;
    return result;
}

void memplug_space_change_end(struct memplug_space *space)
{
    if (!is_ours(space))
        return;
    space->fork.copies_until = 0;
    atomic_fetch_sub(&space->fork.nr_changing, 1);
}
