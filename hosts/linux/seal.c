/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "seal.h"

#include "raw.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fence.h"
#include "proc.h"

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#define F_SEAL_SEAL 0x0001
#define F_SEAL_WRITE 0x0008
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

#define STOP_FEATURES                                                                        \
    (UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS |     \
     UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS)

#define HELPER_BYTES ((size_t)64 << 10)
#define SPARE_PAGES 5 /* alternating protections: so many mappings */
#define PAGE ((size_t)4096)

/* Stands at the low end of the helper's stack. */
struct helper {
    const struct mpl_seal_unit *units;
    unsigned nr_units;
    int src_fd;
    pid_t pid;
    int pidfd;
    volatile unsigned swapped; /* units whose mremap returned */
    volatile int err;          /* of the mremap that failed */
};

/* A move under way. */
struct stop {
    struct mpl_seal_move *m;
    int uffd, ro_fd;
    char *view;  /* the source, read-only */
    char *spare;
    unsigned parked, dropped;
    struct helper *h;
    uint64_t began;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the helper process ---- */

__attribute__((no_sanitize("address", "undefined", "thread"))) static int helper_main(void *arg)
{
    struct helper *h = arg;

    for (unsigned i = 0; i < h->nr_units; i++) {
        const struct mpl_seal_unit *u = &h->units[i];
        long at = mpl_raw5(SYS_mremap, (long)u->parked, (long)u->len, (long)u->len,
                       MREMAP_MAYMOVE | MREMAP_FIXED, (long)u->va);

        if (at != (long)u->va) {
            h->err = (int)at;
            return 0;
        }
        h->swapped = i + 1;
    }
    mpl_raw5(SYS_fcntl, h->src_fd, F_ADD_SEALS, F_SEAL_WRITE, 0, 0);
    return 0;
}

static struct helper *helper_make(const struct mpl_seal_unit *units, unsigned nr, int src_fd)
{
    struct helper *h = mpl_sys_mmap(NULL, HELPER_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (h == MAP_FAILED)
        return NULL;
    *h = (struct helper){ .units = units, .nr_units = nr, .src_fd = src_fd, .pidfd = -1 };
    return h;
}

static int helper_start(struct helper *h)
{
    sigset_t all, before;

    /* Or it would run the program's handlers, on this little stack. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    h->pid = clone(helper_main, (char *)h + HELPER_BYTES,
                   CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_PIDFD, h, &h->pidfd);
    int err = h->pid < 0 ? -errno : 0;

    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

static void helper_reap(struct helper *h, bool kill_it)
{
    if (kill_it)
        syscall(SYS_pidfd_send_signal, h->pidfd, SIGKILL, NULL, 0);
    mpl_sys_reap(h->pid);
    mpl_sys_close(h->pidfd);
    h->pidfd = -1;
}

/* How many of the moved mappings has it announced? They are announced one by one, and it waits
 * for us to read. Faults are read along the way; their threads stay asleep. */
static unsigned read_remaps(int uffd)
{
    struct uffd_msg msg;
    unsigned n = 0;

    while (mpl_sys_read(uffd, &msg, sizeof(msg)) == (ssize_t)sizeof(msg))
        n += msg.event == UFFD_EVENT_REMAP;
    return n;
}

/* Until it has ended by itself, or limit_ns after the last mapping was moved. */
static void helper_attend(struct helper *h, int uffd, uint64_t limit_ns)
{
    struct pollfd fds[2] = {
        { .fd = h->pidfd, .events = POLLIN },
        { .fd = uffd, .events = POLLIN },
    };
    unsigned moved = 0;
    uint64_t sealing = now_ns();
    bool in_time = true;

    while (in_time) {
        uint64_t gone = now_ns() - sealing, left = gone < limit_ns ? limit_ns - gone : 0;
        struct timespec t = { (time_t)(left / 1000000000u), (long)(left % 1000000000u) };
        int n = (int)syscall(SYS_ppoll, fds, 2, moved < h->nr_units ? NULL : &t, NULL, 0);

        if (n > 0 && fds[0].revents)
            break;
        if (n > 0 && moved < h->nr_units) {
            moved += read_remaps(uffd);
            sealing = now_ns();
        }
        /* From here on only faults could come, and nobody answers them. */
        if (moved == h->nr_units)
            fds[1].fd = -1;
        in_time = moved < h->nr_units || now_ns() - sealing < limit_ns;
    }
    helper_reap(h, !in_time);
}

static int sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0)
        return errno == EINVAL ? -EOPNOTSUPP : -errno;
    return seals & F_SEAL_WRITE ? 1 : 0;
}

static int can_be_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0)
        return errno == EINVAL ? -EOPNOTSUPP : -errno;
    return seals & F_SEAL_SEAL ? -EPERM : 0;
}

int mpl_seal_prove(int fd, uint64_t limit_ns)
{
    int err = can_be_sealed(fd);

    if (err)
        return err;
    struct helper *h = helper_make(NULL, 0, fd);

    if (!h)
        return -ENOMEM;
    err = helper_start(h);
    if (!err) {
        helper_attend(h, -1, limit_ns);
        err = sealed(fd);
        err = err > 0 ? 0 : err == 0 ? -EBUSY : err;
    }
    mpl_sys_munmap(h, HELPER_BYTES);
    return err;
}

/* ---- the move: what is opened and prepared ---- */

static void undo_open(struct stop *s)
{
    if (s->uffd >= 0)
        mpl_sys_close(s->uffd);
    if (s->ro_fd >= 0)
        mpl_sys_close(s->ro_fd);
    if (s->view)
        mpl_sys_munmap(s->view, s->m->src_len);
    if (s->spare)
        mpl_sys_munmap(s->spare, SPARE_PAGES * PAGE);
    if (s->h)
        mpl_sys_munmap(s->h, HELPER_BYTES);
}

/* Mappings to spare, so that the way back cannot fail for want of one. */
static char *hold_spares(void)
{
    char *va = mpl_sys_mmap(NULL, SPARE_PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                            0);

    if (va == MAP_FAILED)
        return NULL;
    for (unsigned i = 1; i < SPARE_PAGES; i += 2) {
        if (mpl_sys_mprotect(va + i * PAGE, PAGE, PROT_READ) < 0) {
            mpl_sys_munmap(va, SPARE_PAGES * PAGE);
            return NULL;
        }
    }
    return va;
}

/* A descriptor of the same file that cannot write: its mappings do not count as writable. */
static int reopen_read_only(int fd)
{
    char path[MPL_PROC_PATH_MAX];

    mpl_proc_path(path, "/proc/thread-self/fd/", fd, "");
    int ro = mpl_sys_open(path, O_RDONLY);

    return ro < 0 ? -errno : ro;
}

static int open_all(struct stop *s)
{
    struct mpl_seal_move *m = s->m;

    s->uffd = mpl_fence_descriptor(m->dev_fd, STOP_FEATURES);
    if (s->uffd < 0)
        return s->uffd;
    s->ro_fd = reopen_read_only(m->src_fd);
    if (s->ro_fd < 0)
        return s->ro_fd;
    void *view = mpl_sys_mmap(NULL, m->src_len, PROT_READ, MAP_SHARED, s->ro_fd, 0);

    s->view = view == MAP_FAILED ? NULL : view;
    s->h = helper_make(m->units, m->nr_units, m->src_fd);
    s->spare = hold_spares();
    return s->view && s->h && s->spare ? 0 : -ENOMEM;
}

static int do_open(struct stop *s)
{
    int err = open_all(s);

    if (err)
        undo_open(s);
    return err;
}

static void undo_park(struct stop *s)
{
    while (s->parked > 0) {
        struct mpl_seal_unit *u = &s->m->units[--s->parked];

        if (u->parked)
            mpl_sys_munmap(u->parked, u->len);
        u->parked = NULL;
    }
}

/* The mapping that will take the program's place: watched, and empty, so that the very first
 * touch stops. (A process with mlockall(MCL_FUTURE) got it populated.) */
static int park(struct stop *s, struct mpl_seal_unit *u)
{
    void *va = mpl_sys_mmap(NULL, u->len, u->prot, MAP_SHARED, u->dst_fd, (off_t)u->dst_off);
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)va, .len = u->len },
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
    };

    if (va == MAP_FAILED)
        return -errno;
    mpl_sys_munlock(va, u->len);
    if (mpl_sys_madvise(va, u->len, MADV_DONTNEED) < 0 ||
        ioctl(s->uffd, UFFDIO_REGISTER, &reg) < 0) {
        int err = -errno;

        mpl_sys_munmap(va, u->len);
        return err;
    }
    if (s->m->dress)
        s->m->dress(s->m->ctx, va, u->len, u->va);
    u->parked = va;
    return 0;
}

static int do_park(struct stop *s)
{
    for (; s->parked < s->m->nr_units; s->parked++) {
        int err = park(s, &s->m->units[s->parked]);

        if (err) {
            undo_park(s);
            return err;
        }
    }
    return 0;
}

static void copy_unit(struct stop *s, const struct mpl_seal_unit *u)
{
    uint64_t pos = u->src_off, end = u->src_off + u->len;

    /* Reading a hole would allocate it. */
    while (pos < end) {
        off_t data = lseek(s->ro_fd, (off_t)pos, SEEK_DATA);

        if (data < 0 && errno == ENXIO)
            return;
        off_t hole = data < 0 ? (off_t)end : lseek(s->ro_fd, data, SEEK_HOLE);
        uint64_t from = data < 0 ? pos : (uint64_t)data;

        if (from >= end)
            return;
        pos = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
        memcpy((char *)u->to + (from - u->src_off), s->view + from, pos - from);
    }
}

/* A copy that is thrown away: it warms both ways, and the one that counts is then short. */
static int do_warm(struct stop *s)
{
    for (unsigned i = 0; i < s->m->nr_units; i++)
        copy_unit(s, &s->m->units[i]);
    return 0;
}

/* ---- taking the mappings away, and back ---- */

static void must_map(struct stop *s, void *va, size_t len, int prot, uint64_t off)
{
    const struct timespec pause = { .tv_nsec = 1000000 };

    while (mpl_sys_mmap(va, len, prot, MAP_SHARED | MAP_FIXED, s->m->src_fd, (uint64_t)off) ==
           MAP_FAILED) {
        if (s->spare)
            mpl_sys_munmap(s->spare, SPARE_PAGES * PAGE);
        else
            syscall(SYS_nanosleep, &pause, NULL);
        s->spare = NULL;
    }
    if (s->m->dress)
        s->m->dress(s->m->ctx, va, len, va);
}

static void undo_drop(struct stop *s)
{
    while (s->dropped > 0) {
        const struct mpl_seal_drop *d = &s->m->drops[--s->dropped];

        must_map(s, d->va, d->len, PROT_READ | PROT_WRITE, d->src_off);
    }
}

static int do_drop(struct stop *s)
{
    for (; s->dropped < s->m->nr_drops; s->dropped++) {
        const struct mpl_seal_drop *d = &s->m->drops[s->dropped];

        if (mpl_sys_mmap(d->va, d->len, PROT_READ, MAP_SHARED | MAP_FIXED, s->ro_fd,
                 (off_t)d->src_off) == MAP_FAILED) {
            int err = -errno;

            undo_drop(s);
            return err;
        }
        if (s->m->dress)
            s->m->dress(s->m->ctx, d->va, d->len, d->va);
    }
    return 0;
}

static void wake(struct stop *s, const struct mpl_seal_unit *u)
{
    struct uffdio_range range = { .start = (uintptr_t)u->va, .len = u->len };

    ioctl(s->uffd, UFFDIO_WAKE, &range);
}

/*
 * The unit at which the helper stopped may have lost its mapping (mremap first unmaps what is in
 * the way, and can fail then) or not: mapping it back is right in either case. Where it was
 * parked may be anybody's if the helper died in the middle: then that place is left alone.
 */
static void undo_swap(struct stop *s, bool died)
{
    unsigned n = s->h->swapped, nr = s->m->nr_units;

    for (unsigned i = 0; i < nr && i <= n; i++) {
        struct mpl_seal_unit *u = &s->m->units[i];

        must_map(s, u->va, u->len, u->prot, u->src_off);
        wake(s, u);
        if (i < n || died)
            u->parked = NULL;
    }
}

static int do_swap(struct stop *s)
{
    s->began = now_ns();
    int err = helper_start(s->h);

    if (err)
        return err;
    helper_attend(s->h, s->uffd, s->m->limit_ns);
    err = sealed(s->m->src_fd);
    if (err > 0)
        return 0;
    bool died = !s->h->err && s->h->swapped < s->m->nr_units;

    undo_swap(s, died);
    s->m->stop_ns = now_ns() - s->began;
    if (s->h->err)
        return s->h->err;
    return died ? -EINTR : err ? err : -EBUSY;
}

/* ---- letting go ---- */

/* The unit that a sleeper waits for, if its fault was not read before; else the next one. */
static struct mpl_seal_unit *next_unit(struct stop *s, unsigned *in_order)
{
    struct uffd_msg msg;

    while (mpl_sys_read(s->uffd, &msg, sizeof(msg)) == (ssize_t)sizeof(msg)) {
        if (msg.event != UFFD_EVENT_PAGEFAULT)
            continue;
        for (unsigned i = *in_order; i < s->m->nr_units; i++) {
            struct mpl_seal_unit *u = &s->m->units[i];

            if (u->parked && msg.arg.pagefault.address - (uintptr_t)u->va < u->len)
                return u;
        }
    }
    while (*in_order < s->m->nr_units && !s->m->units[*in_order].parked)
        ++*in_order;
    return *in_order < s->m->nr_units ? &s->m->units[*in_order] : NULL;
}

static void let_go(struct stop *s)
{
    struct mpl_seal_unit *u;
    unsigned in_order = 0;

    while ((u = next_unit(s, &in_order))) {
        struct uffdio_range range = { .start = (uintptr_t)u->va, .len = u->len };

        copy_unit(s, u);
        ioctl(s->uffd, UFFDIO_UNREGISTER, &range);
        wake(s, u);
        u->parked = NULL;
        sched_yield();
    }
    s->m->stop_ns = now_ns() - s->began;
}

static const struct row {
    const char *name;
    int (*act)(struct stop *s);
    void (*undo)(struct stop *s);
} rows[] = {
    { "open", do_open, undo_open },
    { "park", do_park, undo_park },
    { "warm", do_warm, NULL },
    { "drop", do_drop, undo_drop },
    { "swap", do_swap, NULL }, /* the last that can fail; it takes back its own */
};

#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

int mpl_seal_move(struct mpl_seal_move *m)
{
    struct stop s = { .m = m, .uffd = -1, .ro_fd = -1 };
    unsigned row = 0;
    int err = can_be_sealed(m->src_fd);

    m->stop_ns = 0;
    for (unsigned i = 0; i < m->nr_units; i++)
        m->units[i].parked = NULL;
    if (err)
        return err;
    while (row < NR_ROWS && (err = rows[row].act(&s)) == 0)
        row++;
    if (row == NR_ROWS) {
        let_go(&s);
        undo_open(&s);
        return 0;
    }
    while (row-- > 0) {
        if (rows[row].undo)
            rows[row].undo(&s);
    }
    return err;
}
