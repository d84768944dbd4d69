/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "children.h"

#include "host.h"
#include "proc.h"
#include "raw.h"
#include "sys.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define PART 512u     /* pages at once */
#define TRIES 100u    /* a millisecond apart: memory may be short */
#define ADOPT_TRIES 16u
#define LOOK_NS 1000000000u
#define PAGEMAP_FILE (UINT64_C(1) << 61)
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_MARKED (UINT64_C(3) << 57) /* by a userfaultfd, or as a guard */
#define PAGEMAP_THERE (UINT64_C(3) << 62) /* present or swapped */

static void nap(void)
{
    const struct timespec pause = {.tv_nsec = 1000000};

    syscall(SYS_nanosleep, &pause, NULL);
}

/* --- /proc ------------------------------------------------------------------------------------ */

static int open_of(const struct mpl_children *children, pid_t pid, const char *name)
{
    char path[MPL_PROC_PATH_MAX];

    mpl_proc_path(path, "", pid, name);
    return (int)syscall(SYS_openat, children->proc, path, O_RDONLY | O_CLOEXEC, 0);
}

/* False: that memory is no more. */
static bool look(const struct mpl_children *children, const struct mpl_child *child, uint64_t va,
                 unsigned nr, uint64_t *entries)
{
    memset(entries, 0, nr * sizeof(*entries));
    return syscall(SYS_pread64, child->pagemap, entries, nr * sizeof(*entries),
                   va / children->page_bytes * sizeof(*entries)) > 0;
}

/* What the child has marked where nothing is, for a userfaultfd of its own or as a guard, looks as
 * if it were swapped. */
static bool is_own(uint64_t entry)
{
    return (entry & PAGEMAP_THERE) != 0 && (entry & PAGEMAP_FILE) == 0 &&
           ((entry & PAGEMAP_PRESENT) != 0 || (entry & PAGEMAP_MARKED) == 0);
}

static unsigned count_foreign(const uint64_t *entries, unsigned nr)
{
    unsigned nr_foreign = 0;

    for (unsigned i = 0; i < nr; i++)
        nr_foreign += !is_own(entries[i]);
    return nr_foreign;
}

/* --- one part --------------------------------------------------------------------------------- */

struct take {
    const struct mpl_children *children;
    uint64_t va, size_bytes;
    int error;
};

static bool take_by(void *context, int pid)
{
    struct take *take = context;
    struct iovec from = {.iov_base = (void *)(uintptr_t)take->children->nothing, .iov_len = 1};
    struct iovec to = {.iov_base = (void *)(uintptr_t)take->va, .iov_len = take->size_bytes};

    take->error = syscall(SYS_process_vm_writev, (long)pid, &from, 1L, &to, 1L, 0L) < 0 ? errno : 0;
    return take->error == ESRCH; /* then by another thread */
}

/* Pages become the child's. Whether they did is seen afterwards; errno of why they may not. */
static int take(const struct mpl_children *children, pid_t pid, uint64_t va, uint64_t size_bytes)
{
    struct take take = {.children = children, .va = va, .size_bytes = size_bytes};

    mpl_overdue_begin(children->overdue, pid);
    if (take_by(&take, pid)) {
        int tasks = open_of(children, pid, "/task");

        mpl_proc_each_of(tasks, mpl_now_ns() + LOOK_NS, take_by, &take);
        if (tasks >= 0)
            mpl_sys_close(tasks);
    }
    mpl_overdue_end(children->overdue);
    return take.error;
}

/* --- one page, wherever the child has it ------------------------------------------------------ */

struct search {
    const struct mpl_children *children;
    const struct mpl_child *child;
    const struct mpl_child_range *range;
    uint64_t file_offset;
    bool shared;
};

/* "7f0012000000-7f0012200000 rw-p 00400000 00:01 1033 /memfd:memplug (deleted)" */
static bool search_line(void *context, const char *line)
{
    struct search *search = context;
    const struct mpl_children *children = search->children;
    uint64_t start = mpl_proc_hex(&line), end, offset, dev, at, entry;

    line++;
    end = mpl_proc_hex(&line);
    line += 6;
    offset = mpl_proc_hex(&line);
    line++;
    dev = mpl_proc_hex(&line) << 20;
    line++;
    dev |= mpl_proc_hex(&line);
    line++;
    if (dev != search->range->dev || mpl_proc_value(&line) != search->range->ino ||
        search->file_offset - offset >= end - start)
        return true;
    at = start + (search->file_offset - offset);
    take(children, search->child->pid, at, children->page_bytes);
    if (look(children, search->child, at, 1, &entry) && !is_own(entry))
        search->shared = true;
    return true;
}

/* Where pages are not to be had at their place: it has unmapped them, moved them, or may not write
 * them. 0: it has this page of the file nowhere. */
static int settle_page(const struct mpl_children *children, const struct mpl_child *child,
                       const struct mpl_child_range *range, uint64_t va)
{
    struct search search = {
        .children = children,
        .child = child,
        .range = range,
        .file_offset = range->file_offset + (va - range->va),
    };
    uint64_t entry;

    for (unsigned i = 0; i < TRIES; i++) {
        int error = take(children, child->pid, va, children->page_bytes);
        bool all = false;
        int maps;

        if (!look(children, child, va, 1, &entry) || is_own(entry))
            return 0;
        maps = open_of(children, child->pid, "/maps");
        search.shared = false;
        if (maps >= 0) {
            all = mpl_proc_lines_of(maps, mpl_now_ns() + LOOK_NS, search_line, &search);
            mpl_sys_close(maps);
        }
        if (!look(children, child, va, 1, &entry) || (all && !search.shared))
            return 0;
        if (error == EPERM)
            return -EPERM;
        nap();
    }
    return -EBUSY;
}

static int settle_part(const struct mpl_children *children, const struct mpl_child *child,
                       const struct mpl_child_range *range, uint64_t va, unsigned nr)
{
    uint64_t entries[PART];
    unsigned nr_foreign;
    int result = 0;

    if (!look(children, child, va, nr, entries))
        return 0;
    nr_foreign = count_foreign(entries, nr);
    if (nr_foreign == 0)
        return 0;
    atomic_fetch_add_explicit(children->nr_settled_pages, nr_foreign, memory_order_relaxed);
    take(children, child->pid, va, nr * children->page_bytes);
    if (!look(children, child, va, nr, entries))
        return 0;
    for (unsigned i = 0; i < nr && result == 0; i++)
        if (!is_own(entries[i]))
            result = settle_page(children, child, range, va + i * children->page_bytes);
    return result;
}

/* The first range that ends behind this address; they are in order. */
static uint64_t find_range(const struct mpl_child *child, uint64_t va)
{
    uint64_t low = 0, high = child->nr_ranges;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (child->ranges[middle].va + child->ranges[middle].size_bytes > va)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int settle_child(const struct mpl_children *children, const struct mpl_child *child,
                        uint64_t va, uint64_t size_bytes)
{
    uint64_t end = va + size_bytes;
    int result = 0;

    for (uint64_t i = find_range(child, va);
         i < child->nr_ranges && child->ranges[i].va < end && result == 0; i++) {
        const struct mpl_child_range *range = &child->ranges[i];
        uint64_t from = va > range->va ? va : range->va;
        uint64_t to = end < range->va + range->size_bytes ? end : range->va + range->size_bytes;

        while (from < to && result == 0) {
            uint64_t nr = (to - from) / children->page_bytes;

            nr = nr < PART ? nr : PART;
            result = settle_part(children, child, range, from, (unsigned)nr);
            from += nr * children->page_bytes;
        }
    }
    return result;
}

int mpl_children_settle(struct mpl_children *children, const char *va, uint64_t size_bytes,
                        unsigned *which)
{
    unsigned nr = atomic_load_explicit(&children->nr, memory_order_relaxed);
    int result = 0;

    for (*which = 0; *which < nr; ++*which) {
        result = settle_child(children, &children->child[*which], (uintptr_t)va, size_bytes);
        if (result != 0)
            break;
    }
    return result;
}

/* --- ranges ----------------------------------------------------------------------------------- */

/* Without a lock of the host's, unlike mpl_own_map(): who has it may wait for this thread. */
static struct mpl_child_range *make_ranges(struct memplug_linux *host, uint64_t nr_ranges)
{
    uint64_t size_bytes = nr_ranges * sizeof(struct mpl_child_range);
    void *memory = size_bytes == 0 ? MAP_FAILED
                                   : mpl_sys_mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return NULL;
    atomic_fetch_add_explicit(&host->mapped_bytes, size_bytes, memory_order_relaxed);
    return memory;
}

int mpl_children_list(struct memplug_linux *host, const struct mpl_fork *fork,
                      struct mpl_child_range **ranges, uint64_t *nr_ranges)
{
    struct mpl_child_range *range;
    uint64_t nr = 0;

    for (uint64_t i = 0; i < fork->nr; i++)
        nr += fork->pieces[i].kind == MPL_FORK_SHARE;
    range = make_ranges(host, nr);
    if (!range && nr > 0)
        return -ENOMEM;
    *ranges = range;
    *nr_ranges = nr;
    for (uint64_t i = 0; i < fork->nr; i++) {
        const struct mpl_fork_piece *piece = &fork->pieces[i];
        struct stat status;

        if (piece->kind != MPL_FORK_SHARE)
            continue;
        if (fstat(piece->fd, &status) != 0) {
            mpl_children_unlist(host, *ranges, nr);
            return -EBADF;
        }
        *range++ = (struct mpl_child_range){
            .va = (uintptr_t)piece->va,
            .size_bytes = piece->size_bytes,
            .dev = (uint64_t)major(status.st_dev) << 20 | minor(status.st_dev),
            .ino = status.st_ino,
            .file_offset = piece->file_offset,
        };
    }
    return 0;
}

void mpl_children_unlist(struct memplug_linux *host, struct mpl_child_range *ranges,
                         uint64_t nr_ranges)
{
    uint64_t size_bytes = nr_ranges * sizeof(*ranges);

    if (nr_ranges == 0)
        return;
    mpl_sys_munmap(ranges, size_bytes);
    atomic_fetch_sub_explicit(&host->mapped_bytes, size_bytes, memory_order_relaxed);
}

/* --- the end of a child ----------------------------------------------------------------------- */

static void drop(struct mpl_children *children, unsigned which)
{
    struct mpl_child *child = &children->child[which];
    unsigned last = atomic_load_explicit(&children->nr, memory_order_relaxed) - 1;

    mpl_sys_close(child->pagemap);
    mpl_children_unlist(children->host, child->ranges, child->nr_ranges);
    *child = children->child[last];
    atomic_store_explicit(&children->nr, last, memory_order_relaxed);
    mpl_overdue_watch(children->overdue, last > 0);
}

bool mpl_children_any(struct mpl_children *children)
{
    uint64_t entry;

    for (unsigned i = 0; i < atomic_load_explicit(&children->nr, memory_order_relaxed);)
        if (look(children, &children->child[i], 0, 1, &entry))
            i++;
        else
            drop(children, i);
    return atomic_load_explicit(&children->nr, memory_order_relaxed) > 0;
}

pid_t mpl_children_end(struct mpl_children *children, unsigned which)
{
    struct mpl_child *child = &children->child[which];
    int pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    uint64_t entry;
    pid_t ended = look(children, child, 0, 1, &entry) ? -1 : 0;

    if (ended < 0 && pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0)
        ended = child->pid;
    if (pidfd >= 0)
        mpl_sys_close(pidfd);
    for (unsigned i = 0; i < TRIES && ended > 0 && look(children, child, 0, 1, &entry); i++)
        nap();
    if (ended >= 0)
        drop(children, which);
    return ended;
}

/* --- a new child ------------------------------------------------------------------------------ */

/* The last one in the list of the thread's children. */
static pid_t last_child(const struct mpl_children *children, pid_t thread)
{
    char path[MPL_PROC_PATH_MAX], text[256];
    pid_t pid = 0, number = 0;
    long length;
    int fd;

    mpl_proc_path(path, "self/task/", thread, "/children");
    fd = (int)syscall(SYS_openat, children->proc, path, O_RDONLY | O_CLOEXEC, 0);
    while (fd >= 0 && (length = mpl_sys_read(fd, text, sizeof(text))) > 0)
        for (long i = 0; i < length; i++) {
            pid = text[i] == ' ' ? number : pid;
            number = text[i] == ' ' ? 0 : number * 10 + (text[i] - '0');
        }
    if (fd >= 0)
        mpl_sys_close(fd);
    return pid;
}

static bool has_serial(const struct mpl_children *children, pid_t pid, const uint64_t *serial)
{
    int memory = open_of(children, pid, "/mem");
    uint64_t seen = 0;
    bool same;

    if (memory < 0)
        return false;
    same = syscall(SYS_pread64, memory, &seen, sizeof(seen), serial) == (long)sizeof(seen) &&
           seen == *serial;
    mpl_sys_close(memory);
    return same;
}

int mpl_children_adopt(struct mpl_children *children, pid_t thread, const uint64_t *serial,
                       struct mpl_child_range *ranges, uint64_t nr_ranges)
{
    unsigned nr = atomic_load_explicit(&children->nr, memory_order_relaxed);
    struct mpl_child child = {.nr_ranges = nr_ranges, .ranges = ranges};
    bool found = false;

    /* The list may leave one out while another child goes. */
    for (unsigned i = 0; i < ADOPT_TRIES && !found; i++) {
        child.pid = last_child(children, thread);
        found = child.pid != 0 && has_serial(children, child.pid, serial);
    }
    if (!found)
        return -ECHILD;
    child.pagemap = open_of(children, child.pid, "/pagemap");
    if (child.pagemap < 0)
        return -errno;
    children->child[nr] = child;
    atomic_store_explicit(&children->nr, nr + 1, memory_order_relaxed);
    mpl_overdue_watch(children->overdue, true);
    return 0;
}

/* --- does it work here? ----------------------------------------------------------------------- */

/* Two pages of a file, one that the child has in its page table and one that it has not. */
struct trial {
    uint64_t serial;
    pid_t pid;
    int fd;
    char *at;
};

__attribute__((no_sanitize("address", "undefined", "thread"))) static pid_t make_child(void)
{
    pid_t pid = (pid_t)mpl_raw5(SYS_clone, 0, 0, 0, 0, 0);

    if (pid != 0)
        return pid;
    mpl_raw5(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    for (;;)
        mpl_raw5(SYS_ppoll, 0, 0, 0, 0, 0);
}

static bool keeps_content(const struct mpl_children *children, const struct trial *trial)
{
    int memory = open_of(children, trial->pid, "/mem");
    char seen = 0, changed = 'c';
    bool keeps = memory >= 0;

    for (unsigned page = 0; page < 2 && keeps; page++) {
        uint64_t at = page * children->page_bytes;

        keeps = syscall(SYS_pwrite64, trial->fd, &changed, 1L, at) == 1 &&
                syscall(SYS_pread64, memory, &seen, 1L, trial->at + at) == 1 && seen == 'a';
    }
    if (memory >= 0)
        mpl_sys_close(memory);
    return keeps;
}

static int try_child(struct mpl_children *children, struct trial *trial, const char **why)
{
    struct mpl_child_range *range = make_ranges(children->host, 1);
    unsigned which;
    int error;

    *why = "no memory";
    if (!range)
        return -ENOMEM;
    *range = (struct mpl_child_range){.va = (uintptr_t)trial->at,
                                      .size_bytes = 2 * children->page_bytes};
    *why = "a child of this process cannot be reached by /proc (ptrace_scope, hidepid)";
    error = mpl_children_adopt(children, (pid_t)syscall(SYS_gettid), &trial->serial, range, 1);
    if (error != 0) {
        mpl_children_unlist(children->host, range, 1);
        return error;
    }
    *why = "process_vm_writev() does not give a child its own pages";
    error = mpl_children_settle(children, trial->at, 2 * children->page_bytes, &which);
    if (error == 0 && !keeps_content(children, trial))
        error = -EOPNOTSUPP;
    drop(children, 0);
    return error;
}

static int try_here(struct mpl_children *children, const char **why)
{
    struct trial trial = {.serial = (uintptr_t)children ^ mpl_now_ns()};
    uint64_t size_bytes = 2 * children->page_bytes;
    int error;

    *why = "no memfd";
    trial.fd = mpl_fd_memfd("memplug-fork", size_bytes, 0, 0);
    if (trial.fd < 0)
        return trial.fd;
    trial.at = mpl_sys_mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, trial.fd, 0);
    error = trial.at == MAP_FAILED ? -ENOMEM : 0;
    for (unsigned page = 0; page < 2 && error == 0; page++)
        if (syscall(SYS_pwrite64, trial.fd, "a", 1L, page * children->page_bytes) != 1)
            error = -ENOMEM;
    if (error == 0) {
        mpl_sys_madvise(trial.at, children->page_bytes, MADV_POPULATE_READ);
        trial.pid = make_child();
        *why = "no process can be made";
        error = trial.pid < 0 ? -errno : try_child(children, &trial, why);
    }
    if (trial.pid > 0) {
        syscall(SYS_kill, trial.pid, SIGKILL);
        mpl_sys_reap(trial.pid);
    }
    if (trial.at != MAP_FAILED)
        mpl_sys_munmap(trial.at, size_bytes);
    mpl_sys_close(trial.fd);
    return error;
}

int mpl_children_open(struct mpl_children *children, const char **why)
{
    void *nothing = mpl_sys_mmap(NULL, children->page_bytes, PROT_NONE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int error;

    children->nothing = nothing == MAP_FAILED ? NULL : nothing;
    children->proc = mpl_sys_open("/proc", O_PATH | O_DIRECTORY);
    *why = "there is no /proc";
    error = children->proc < 0 ? -errno : children->nothing ? try_here(children, why) : -ENOMEM;
    if (error != 0)
        mpl_children_close(children);
    return error;
}

void mpl_children_close(struct mpl_children *children)
{
    while (atomic_load_explicit(&children->nr, memory_order_relaxed) > 0)
        drop(children, 0);
    if (children->proc >= 0)
        mpl_sys_close(children->proc);
    if (children->nothing)
        mpl_sys_munmap((void *)(uintptr_t)children->nothing, children->page_bytes);
    children->proc = -1;
    children->nothing = NULL;
}
