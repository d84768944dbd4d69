/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "pins.h"

#include "holes.h"
#include "smaps.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* linux/fs.h has these since 6.7; names of our own, so that either header will do. */
struct scan_region {
    uint64_t start, end, categories;
};

struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
#define SCAN_PRESENT ((uint64_t)1 << 3)
#define SCAN_HUGE ((uint64_t)1 << 6)

#define LOOK_PAUSE_NS 50000
#define READ_PAGES 4u /* on the stack */

enum look { SMALL = 0, HUGE_PAGE = 1 }; /* else -errno */

/* A proof under way. */
struct ask {
    struct mpl_pins *p;
    const struct mpl_pins_unit *u;
    size_t touch; /* offset of a page with data: touching a hole would fill it */
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The first run of pages of [va, va + len) that are mapped alike. 0: none is; or -errno. */
static int scan(int pagemap, const void *va, size_t len, uint64_t wanted,
                struct scan_region *region)
{
    struct scan_arg arg = {
        .size = sizeof(arg),
        .start = (uintptr_t)va,
        .end = (uintptr_t)va + len,
        .vec = (uintptr_t)region,
        .vec_len = 1,
        .category_mask = SCAN_PRESENT,
        .return_mask = wanted,
    };
    int n = ioctl(pagemap, SCAN_IOCTL, &arg);

    return n < 0 ? -errno : n;
}

/* 1: the page at va is mapped huge, 0: it is mapped small, -EAGAIN: it is not mapped. */
static int scan_huge(int pagemap, const char *va)
{
    struct scan_region region = { 0 };
    int n = scan(pagemap, va, MPL_PINS_PAGE, SCAN_PRESENT | SCAN_HUGE, &region);

    if (n <= 0)
        return n < 0 ? n : -EAGAIN;
    return region.categories & SCAN_HUGE ? HUGE_PAGE : SMALL;
}

static int mapped_huge(const struct mpl_pins *p, const char *va)
{
    return p->by_text ? mpl_smaps_huge(va) : scan_huge(p->pagemap, va);
}

bool mpl_pins_mapped(const struct mpl_pins *p, const void *va, size_t len)
{
    struct scan_region region = { 0 };

    return scan(p->pagemap, va, len, SCAN_PRESENT, &region) == 1 &&
           region.start == (uintptr_t)va && region.end == (uintptr_t)va + len;
}

/* Give the reservation its place back. Where that fails (at the limit of mappings) the alias
 * stays; nobody uses it, and the next look replaces it. */
static void drop_alias(struct mpl_pins *p)
{
    mpl_sys_mmap(p->scratch, MPL_PINS_EXTENT, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    mpl_sys_munlock(p->scratch, MPL_PINS_EXTENT);
}

/*
 * Map the extent afresh. It must be fresh: where a page table already stands below the alias,
 * a huge page would be mapped small, and look split. It begins as PROT_NONE since a process
 * with mlockall(MCL_FUTURE) would populate it at once, holes included, and locked.
 */
static int fresh_alias(struct mpl_pins *p, int fd, uint64_t extent)
{
    void *va = mpl_sys_mmap(p->scratch, MPL_PINS_EXTENT, PROT_NONE, MAP_SHARED | MAP_FIXED, fd,
                            extent);

    if (va == MAP_FAILED)
        return errno == EAGAIN ? -ENOLCK : -errno; /* MCL_FUTURE and RLIMIT_MEMLOCK */
    mpl_sys_munlock(va, MPL_PINS_EXTENT);
    return mpl_sys_mprotect(va, MPL_PINS_EXTENT, PROT_READ) < 0 ? -errno : 0;
}

/* How is the extent backed? Leaves the alias in place. */
static int look(const struct ask *a)
{
    int err = fresh_alias(a->p, a->u->fd, a->u->extent);

    if (err)
        return err;
    char *va = a->p->scratch + a->touch;

    if (mpl_sys_madvise(va, MPL_PINS_PAGE, MADV_POPULATE_READ) < 0)
        return -errno;
    return mapped_huge(a->p, va);
}

static void drop_entries(const struct mpl_pins_unit *u)
{
    /* EINVAL where it is locked: then the transition finds its way through the entries. */
    for (unsigned i = 0; i < u->nr_maps; i++)
        mpl_sys_madvise(u->maps[i].va, u->maps[i].len, MADV_DONTNEED);
}

/* What madvise returns is not enough: 0 for a page that is huge already, and EINVAL, before Linux
 * 6.7 always, when it collapsed the page and then found no page table to take out. */
static int collapse(const struct ask *a)
{
    int err = 0;

    mpl_sys_madvise(a->p->scratch, MPL_PINS_EXTENT, MADV_DONTNEED);
    if (mpl_sys_madvise(a->p->scratch, MPL_PINS_EXTENT, MADV_COLLAPSE) < 0)
        err = errno == EBUSY ? -ENOMEM : -errno; /* EBUSY: no room in the memory cgroup */
    if (err && err != -EINVAL)
        return err;
    int now = look(a);

    return now == HUGE_PAGE ? 0 : now < 0 ? now : err ? err : -EAGAIN;
}

static int split(const struct ask *a)
{
    if (mpl_sys_madvise(a->p->scratch + a->touch, MPL_PINS_PAGE, MADV_COLD) < 0)
        return errno == EINVAL ? -EOPNOTSUPP : -errno; /* EINVAL: hugetlb */
    int now = look(a);

    return now == HUGE_PAGE ? -EAGAIN : now;
}

static int ask_once(const struct ask *a, struct mpl_pins_proof *out)
{
    drop_entries(a->u);
    int state = look(a);

    if (state < 0)
        return state;
    out->kind = state == HUGE_PAGE ? MPL_PINS_SPLIT : MPL_PINS_COLLAPSE;
    if (state == HUGE_PAGE)
        return a->p->split ? -EOPNOTSUPP : split(a);
    return a->p->collapse ? -EOPNOTSUPP : collapse(a);
}

/* EINVAL is what a collapse says when it comes upon something in passing (a page table that is
 * being changed), but also when huge pages cannot be: it counts as the latter if it stays. */
static bool worth_another_look(int err)
{
    return err == -EAGAIN || err == -EINVAL;
}

static int ask_until(const struct ask *a, struct mpl_pins_proof *out)
{
    const struct timespec pause = { .tv_nsec = LOOK_PAUSE_NS };
    uint64_t start = now_ns();

    for (;;) {
        out->last = ask_once(a, out);
        out->looks++;
        if (!worth_another_look(out->last))
            return out->last;
        if (now_ns() - start >= a->u->limit_ns)
            return out->last == -EAGAIN ? -EBUSY : -EOPNOTSUPP;
        syscall(SYS_nanosleep, &pause, NULL);
    }
}

/* Write down which pages hold data; *first gets the first of them, in bytes. */
static int read_data_map(const struct mpl_pins_unit *u, uint64_t *map, size_t *first)
{
    int err = mpl_holes_read(u->fd, u->extent, MPL_PINS_PAGES, map);
    unsigned nr = 0;

    while (nr < MPL_PINS_PAGES && !(map[nr / 64] >> (nr % 64) & 1))
        nr++;
    *first = nr * MPL_PINS_PAGE;
    return err;
}

static bool any_data(const struct mpl_pins_unit *u, const uint64_t *map)
{
    for (unsigned nr = u->first; nr < u->first + u->nr; nr++) {
        if (map[nr / 64] >> (nr % 64) & 1)
            return true;
    }
    return false;
}

static bool is_zero(const uint64_t *words)
{
    uint64_t any = 0;

    for (size_t i = 0; i < MPL_PINS_PAGE / sizeof(*words) && any == 0; i += 8)
        any = words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] |
              words[i + 5] | words[i + 6] | words[i + 7];
    return any == 0;
}

/* What cannot be read is data. Read through the page cache: the alias is small now, and touching it
 * is a fault a page. */
void mpl_pins_forget_zeros(const struct mpl_pins_unit *u, uint64_t *data)
{
    uint64_t words[READ_PAGES * MPL_PINS_PAGE / sizeof(uint64_t)];
    unsigned end = u->first + u->nr;

    for (unsigned first = u->first, stop; first < end; first = stop) {
        stop = first;
        while (stop < end && stop - first < READ_PAGES &&
               (data[stop / 64] & ~u->before[stop / 64]) >> (stop % 64) & 1)
            stop++;
        if (stop == first) {
            stop++;
            continue;
        }
        uint64_t size = (stop - first) * MPL_PINS_PAGE;

        if (mpl_sys_pread(u->fd, words, size, u->extent + first * MPL_PINS_PAGE) != (long)size)
            continue;
        for (unsigned page = first; page < stop; page++)
            if (is_zero(words + (page - first) * (MPL_PINS_PAGE / sizeof(*words))))
                data[page / 64] &= ~((uint64_t)1 << (page % 64));
    }
}

int mpl_pins_prove(struct mpl_pins *p, const struct mpl_pins_unit *u, struct mpl_pins_proof *out)
{
    struct ask a = { .p = p, .u = u };

    memset(out, 0, sizeof(*out));
    if (u->extent % MPL_PINS_EXTENT || !u->nr || u->first >= MPL_PINS_PAGES ||
        u->nr > MPL_PINS_PAGES - u->first)
        return -EINVAL;
    int err = read_data_map(u, out->data, &a.touch);

    if (err)
        return err;
    if (!any_data(u, out->data)) {
        out->kind = MPL_PINS_EMPTY; /* no page, and none can be made for writing: fenced */
        return 0;
    }
    bool forbidden = mpl_sys_huge_allow();

    err = ask_until(&a, out);
    mpl_sys_huge_forbid(forbidden);
    drop_alias(p);
    if (!err && u->filled)
        mpl_pins_forget_zeros(u, out->data); /* what I/O still wrote has come by now */
    return err;
}

static bool is_dense(const uint64_t *map)
{
    uint64_t all = ~(uint64_t)0;

    for (unsigned i = 0; i < MPL_PINS_PAGES / 64; i++)
        all &= map[i];
    return !~all;
}

int mpl_pins_prepare(struct mpl_pins *p, struct mpl_pins_unit *u)
{
    struct ask a = { .p = p, .u = u };

    u->filled = false;
    if (p->split)
        return 0;
    for (unsigned i = 0; i < u->nr_maps; i++)
        if (scan_huge(p->pagemap, u->maps[i].va) == HUGE_PAGE)
            return 0;
    memset(u->before, 0, sizeof(u->before));
    int err = read_data_map(u, u->before, &a.touch);

    if (err || !any_data(u, u->before))
        return err;
    bool forbidden = mpl_sys_huge_allow();
    int state = look(&a);

    err = state == SMALL ? collapse(&a) : state == HUGE_PAGE ? 0 : state;
    mpl_sys_huge_forbid(forbidden);
    drop_alias(p);
    u->filled = !is_dense(u->before); /* of a collapse that failed it does no harm */
    return err == -EAGAIN ? -EBUSY : err;
}

void mpl_pins_unfill(const struct mpl_pins_unit *u, const struct mpl_pins_proof *proof)
{
    unsigned end = u->first + u->nr;

    for (unsigned nr = u->first, stop; nr < end; nr = stop + 1) {
        for (stop = nr; stop < end && !mpl_pins_had_data(proof, stop); stop++)
            ;
        if (stop > nr)
            mpl_sys_fallocate(u->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              u->extent + nr * MPL_PINS_PAGE, (stop - nr) * MPL_PINS_PAGE);
    }
}

int mpl_pins_open(struct mpl_pins *p, void *scratch)
{
    *p = (struct mpl_pins){
        .pagemap = -1, .scratch = scratch, .collapse = -EOPNOTSUPP, .split = -EOPNOTSUPP,
    };
    if ((uintptr_t)scratch % MPL_PINS_EXTENT)
        return -EINVAL;
    if (sysconf(_SC_PAGESIZE) != (long)MPL_PINS_PAGE)
        return -EOPNOTSUPP;
    p->pagemap = mpl_sys_open("/proc/thread-self/pagemap", O_RDONLY);
    if (p->pagemap < 0)
        return -errno;
    int err = scan_huge(p->pagemap, scratch);

    p->by_text = err == -ENOTTY || err == -EINVAL;
    if (p->by_text)
        err = mpl_smaps_huge(scratch);
    if (err == -EAGAIN)
        return 0;
    mpl_pins_close(p);
    return p->by_text ? -EOPNOTSUPP : err;
}

void mpl_pins_close(struct mpl_pins *p)
{
    if (p->pagemap >= 0)
        mpl_sys_close(p->pagemap);
    p->pagemap = -1;
    p->collapse = p->split = -EOPNOTSUPP;
}

/* ---- the self-test ---- */

#define TEST_PAGE 257u /* the one that is pinned: neither the first nor one that is touched */
#define TEST_PINNED_NS 2000000u
#define TEST_CLEAN_NS 300000000u /* io_uring lets go of a buffer some time after it says so */

struct pin {
    enum mpl_pins_by by;
    int fd[2];
};

static int pin_by_io_uring(struct pin *pin, void *page)
{
    struct io_uring_params params = { 0 };
    struct iovec iov = { .iov_base = page, .iov_len = MPL_PINS_PAGE };
    int fd = (int)syscall(SYS_io_uring_setup, 1, &params);

    if (fd < 0)
        return -errno;
    if (syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &iov, 1) < 0) {
        int err = -errno;

        mpl_sys_close(fd);
        return err;
    }
    *pin = (struct pin){ .by = MPL_PINS_BY_IO_URING, .fd = { fd, -1 } };
    return 0;
}

static int pin_by_pipe(struct pin *pin, void *page)
{
    struct iovec iov = { .iov_base = page, .iov_len = MPL_PINS_PAGE };

    if (pipe2(pin->fd, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    if (syscall(SYS_vmsplice, pin->fd[1], &iov, 1, SPLICE_F_NONBLOCK) != (long)MPL_PINS_PAGE) {
        mpl_sys_close(pin->fd[0]);
        mpl_sys_close(pin->fd[1]);
        return -EPERM;
    }
    pin->by = MPL_PINS_BY_VMSPLICE;
    return 0;
}

static int pin_take(struct pin *pin, void *page)
{
    if (pin_by_io_uring(pin, page) == 0 || pin_by_pipe(pin, page) == 0)
        return 0;
    return -EPERM;
}

static void pin_drop(struct pin *pin)
{
    if (pin->by == MPL_PINS_BY_IO_URING)
        syscall(SYS_io_uring_register, pin->fd[0], IORING_UNREGISTER_BUFFERS, NULL, 0);
    else
        mpl_sys_close(pin->fd[1]);
    mpl_sys_close(pin->fd[0]);
}

static void fill(char *va)
{
    for (size_t i = 0; i < MPL_PINS_EXTENT; i += sizeof(uint64_t)) {
        uint64_t word = i * 0x9e3779b97f4a7c15u + 1;

        memcpy(va + i, &word, sizeof(word));
    }
}

static bool is_whole(const char *va)
{
    for (size_t i = 0; i < MPL_PINS_EXTENT; i += sizeof(uint64_t)) {
        uint64_t word = i * 0x9e3779b97f4a7c15u + 1;

        if (memcmp(va + i, &word, sizeof(word)) != 0)
            return false;
    }
    return true;
}

/* The scratch unit is written and small; make it huge if that is what is to be tested. */
static int make_huge(struct mpl_pins *p, int fd)
{
    struct mpl_pins_unit u = { .fd = fd };
    struct ask a = { .p = p, .u = &u };
    int err = fresh_alias(p, fd, 0);

    if (!err)
        err = collapse(&a);
    if (err == -EAGAIN || err == -EINVAL)
        err = -EOPNOTSUPP;
    drop_alias(p);
    return err;
}

/* One verdict: refused while pinned, proved when not, whole afterwards. *pinned says whether a
 * pin was to be had. */
static int verdict(struct mpl_pins *p, struct mpl_fence *fence, int fd, char *va,
                   enum mpl_pins_kind kind)
{
    struct mpl_pins_map map = { .va = va, .len = MPL_PINS_EXTENT };
    struct mpl_pins_unit u = {
        .fd = fd, .nr = MPL_PINS_PAGES, .maps = &map, .nr_maps = 1, .limit_ns = TEST_PINNED_NS,
    };
    struct mpl_pins_proof proof;
    struct pin pin;
    int err = pin_take(&pin, va + TEST_PAGE * MPL_PINS_PAGE);

    if (err)
        return err;
    p->by = pin.by;
    if (fence)
        err = mpl_fence_raise(fence, va, MPL_PINS_EXTENT);
    int pinned = err ? err : mpl_pins_prove(p, &u, &proof);

    pin_drop(&pin);
    if (err)
        return err;
    u.limit_ns = TEST_CLEAN_NS;
    err = pinned == -EBUSY ? mpl_pins_prove(p, &u, &proof) : pinned ? pinned : -EKEYREJECTED;
    if (!err && (proof.kind != kind || !is_whole(va)))
        err = -EKEYREJECTED;
    if (fence)
        mpl_fence_lower(fence, va, MPL_PINS_EXTENT);
    return err;
}

static int test_kind(struct mpl_pins *p, struct mpl_fence *fence, char *va,
                     enum mpl_pins_kind kind)
{
    int fd = memfd_create("memplug-selftest", MFD_CLOEXEC), err = 0;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)MPL_PINS_EXTENT) < 0 ||
        mpl_sys_mmap(va, MPL_PINS_EXTENT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                     0) ==
            MAP_FAILED)
        err = -errno;
    if (!err) {
        fill(va);
        if (kind == MPL_PINS_SPLIT)
            err = make_huge(p, fd);
        if (!err)
            err = verdict(p, fence, fd, va, kind);
    }
    mpl_sys_close(fd);
    return err;
}

int mpl_pins_selftest(struct mpl_pins *p, struct mpl_fence *fence)
{
    const size_t room = 2 * MPL_PINS_EXTENT;
    char *base = mpl_sys_mmap(NULL, room, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return -errno;
    char *va = base + (-(uintptr_t)base & (MPL_PINS_EXTENT - 1));

    p->by = MPL_PINS_BY_NONE;
    p->collapse = p->split = 0; /* trusted for the moment, so that it can be asked */
    bool forbidden = mpl_sys_huge_allow();
    int first = test_kind(p, fence, va, MPL_PINS_COLLAPSE);
    int second = test_kind(p, fence, va, MPL_PINS_SPLIT);

    mpl_sys_huge_forbid(forbidden);
    p->collapse = first;
    p->split = second;
    mpl_sys_munmap(base, room);
    return p->by == MPL_PINS_BY_NONE ? -EPERM : 0;
}
