/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "attend.h"

#include "raw.h"
#include "sys.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

#define ROOM_BYTES ((uint64_t)512 << 10) /* the record, and behind it the attendant's stack */

const uint64_t mpl_attend_features = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_THREAD_ID |
                                     UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                                     UFFD_FEATURE_WP_HUGETLBFS_SHMEM;

/* --- the attendant: nothing of the C library -------------------------------------------------- */

#define NO_SANITIZER __attribute__((no_sanitize("address", "undefined", "thread")))

NO_SANITIZER void mpl_attend_let_through(struct mpl_attend *attend, const struct uffd_msg *msg)
{
    uint64_t page = msg->arg.pagefault.address & ~(attend->page_bytes - 1);
    unsigned nr = attend->nr_pages;

    if (nr == MPL_ATTEND_PAGES)
        return;
    attend->pages[nr] = page;
    attend->nr_pages = nr + 1;
    if ((msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0) {
        struct uffdio_writeprotect open = {.range = {.start = page, .len = attend->page_bytes}};

        mpl_raw5(SYS_ioctl, attend->uffd, (long)UFFDIO_WRITEPROTECT, (long)&open, 0, 0);
    } else if ((msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR) != 0) {
        struct uffdio_continue here = {.range = {.start = page, .len = attend->page_bytes}};

        mpl_raw5(SYS_ioctl, attend->uffd, (long)UFFDIO_CONTINUE, (long)&here, 0, 0);
    } else {
        struct uffdio_zeropage zero = {.range = {.start = page, .len = attend->page_bytes}};

        mpl_raw5(SYS_ioctl, attend->uffd, (long)UFFDIO_ZEROPAGE, (long)&zero, 0, 0);
    }
}

NO_SANITIZER static int attend_main(void *argument)
{
    struct mpl_attend *attend = argument;
    struct pollfd poll = {.fd = attend->uffd, .events = POLLIN};
    struct uffd_msg msg;

    /* Or it would stay, and all memory with it, if the program is killed just now. */
    mpl_raw5(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (mpl_raw5(SYS_getppid, 0, 0, 0, 0, 0) != attend->process)
        return 0;
    for (;;) {
        mpl_raw5(SYS_ppoll, (long)&poll, 1, 0, 0, 0);
        while (mpl_raw5(SYS_read, attend->uffd, (long)&msg, sizeof(msg), 0, 0) ==
               (long)sizeof(msg))
            if (msg.event == UFFD_EVENT_PAGEFAULT &&
                (pid_t)msg.arg.pagefault.feat.ptid == attend->forker)
                mpl_attend_let_through(attend, &msg);
    }
    return 0;
}

/* --- start and stop --------------------------------------------------------------------------- */

int mpl_attend_open(int uffd, uint64_t page_bytes, struct mpl_attend **opened)
{
    struct mpl_attend *attend = mpl_sys_mmap(NULL, ROOM_BYTES, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (attend == MAP_FAILED)
        return -ENOMEM;
    attend->uffd = uffd;
    attend->page_bytes = page_bytes;
    attend->forker = (pid_t)syscall(SYS_gettid);
    attend->process = (pid_t)syscall(SYS_getpid);
    *opened = attend;
    return 0;
}

/* Of such a namespace there is no link before it has a process. Without /proc nobody knows. */
bool mpl_attend_can(void)
{
    struct stat ours, childs;

    if (fstatat(AT_FDCWD, "/proc/thread-self/ns/pid", &ours, 0) != 0)
        return true;
    return fstatat(AT_FDCWD, "/proc/thread-self/ns/pid_for_children", &childs, 0) == 0 &&
           ours.st_ino == childs.st_ino;
}

int mpl_attend_start(int uffd, uint64_t page_bytes, struct mpl_attend **started)
{
    struct mpl_attend *attend;
    sigset_t all, before;
    int error = mpl_attend_open(uffd, page_bytes, &attend);

    if (error != 0)
        return error;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    attend->pid = clone(attend_main, (char *)attend + ROOM_BYTES,
                        CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_PIDFD, attend, &attend->pidfd);
    error = attend->pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        mpl_sys_munmap(attend, ROOM_BYTES);
        return error;
    }
    *started = attend;
    return 0;
}

void mpl_attend_stop(struct mpl_attend *attend)
{
    if (attend->pid == 0)
        return;
    syscall(SYS_pidfd_send_signal, attend->pidfd, SIGKILL, NULL, 0);
    mpl_sys_reap(attend->pid);
    mpl_sys_close(attend->pidfd);
}

void mpl_attend_end(struct mpl_attend *attend)
{
    mpl_sys_munmap(attend, ROOM_BYTES);
}

/* --- fences ----------------------------------------------------------------------------------- */

int mpl_attend_fence(int uffd, void *va, uint64_t size_bytes)
{
    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)va, .len = size_bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
    };
    struct uffdio_writeprotect wp = {.range = reg.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};

    if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 || ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) < 0)
        return -errno;
    return 0;
}

void mpl_attend_fence_page(int uffd, void *va, uint64_t page_bytes)
{
    struct uffdio_writeprotect wp = {
        .range = {.start = (uintptr_t)va, .len = page_bytes},
        .mode = UFFDIO_WRITEPROTECT_MODE_WP,
    };

    ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
}

void mpl_attend_wake(int uffd, void *va, uint64_t size_bytes)
{
    struct uffdio_range range = {.start = (uintptr_t)va, .len = size_bytes};

    ioctl(uffd, UFFDIO_WAKE, &range);
}
