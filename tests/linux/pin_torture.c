/* SPDX-License-Identifier: MIT */
/* The torture of pin_helpers.h: the workers, the mover, and what builds and runs them. */
#define _GNU_SOURCE
#include "pin_helpers.h"

#include "../../hosts/linux/host.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define IO_MAX ((size_t)256 << 10)
#define POISON 0xA5

static const struct {
    const char *name;
    size_t unit;
    unsigned slots, frames; /* of each file: more than slots, so that one is always free */
} kinds[KIND_COUNT] = {
    [KIND_4K] = { "4 KiB frames", 4096, 64, 1024 },
    [KIND_64K] = { "64 KiB runs", 65536, 16, 64 },
    [KIND_2M] = { "2 MiB of small pages", 2 << 20, 4, 6 },
    [KIND_THP] = { "2 MiB huge page (shmem)", 2 << 20, 4, 6 },
    [KIND_HUGETLB] = { "2 MiB hugetlb page", 2 << 20, 4, 6 },
};

const char *kind_name(enum kind kind)
{
    return kinds[kind].name;
}

/* ---- workers ---- */

struct worker {
    struct torture *t;
    uint64_t seed;
    unsigned area;
    pthread_t thread;
};

static size_t area_bytes(const struct torture *t)
{
    return t->unit / AREAS;
}

static char *area_of(const struct torture *t, unsigned slot, unsigned area)
{
    return t->window + slot * t->unit + area * area_bytes(t);
}

static char *random_area(struct worker *w)
{
    return area_of(w->t, (unsigned)(next_random(&w->seed) % w->t->slots), w->area);
}

static unsigned words_of(const struct torture *t)
{
    size_t words = area_bytes(t) / 8;

    return words < WORDS_MAX ? (unsigned)words : WORDS_MAX;
}

/* The words lie apart, so that many pages are in play. */
static void *word_at(char *area, const struct torture *t, unsigned word)
{
    return area + word * (area_bytes(t) / words_of(t));
}

static size_t io_bytes(const struct torture *t, size_t most)
{
    return area_bytes(t) < most ? area_bytes(t) : most;
}

/* Let the mover have its turn on a machine of few CPUs. */
static void breathe(uint64_t r)
{
    if (r >> 54 == 0)
        usleep(100);
}

static void lose(struct worker *w)
{
    atomic_fetch_add(&w->t->lost, 1);
}

static void *run_user(void *arg)
{
    struct worker *w = arg;
    struct torture *t = w->t;
    unsigned words = words_of(t);
    uint64_t *shadow = calloc((size_t)t->slots * words, sizeof(*shadow));

    while (!atomic_load_explicit(&t->stop, memory_order_relaxed)) {
        uint64_t r = next_random(&w->seed);
        unsigned slot = (unsigned)(r % t->slots), word = (unsigned)((r >> 32) % words);
        uint64_t *mine = &shadow[slot * words + word];
        volatile uint64_t *there = word_at(area_of(t, slot, w->area), t, word);

        if (*there != *mine)
            lose(w);
        *there = *mine = r;
        breathe(r);
        atomic_fetch_add_explicit(&t->ops, 1, memory_order_relaxed);
    }
    free(shadow);
    return NULL;
}

static void *run_atomic(void *arg)
{
    struct worker *w = arg;
    struct torture *t = w->t;
    unsigned words = words_of(t);

    while (!atomic_load_explicit(&t->stop, memory_order_relaxed)) {
        uint64_t r = next_random(&w->seed);
        unsigned slot = (unsigned)(r % t->slots), word = (unsigned)((r >> 32) % words);
        _Atomic uint64_t *there = word_at(area_of(t, slot, w->area), t, word);

        atomic_fetch_add(there, 1);
        atomic_fetch_add(&t->adds[slot * words + word], 1);
        breathe(r);
        atomic_fetch_add_explicit(&t->ops, 1, memory_order_relaxed);
    }
    return NULL;
}

/* Cut [va, va + len) into 1 to 8 pieces. */
static int cut(struct worker *w, char *va, size_t len, struct iovec *iov)
{
    int pieces = (int)(1 + next_random(&w->seed) % 8);
    size_t each = len / (size_t)pieces;

    for (int i = 0; i < pieces; i++)
        iov[i] = (struct iovec){ va + each * (size_t)i, each };
    iov[pieces - 1].iov_len += len - each * (size_t)pieces;
    return pieces;
}

static void *run_preadv(void *arg)
{
    static uint64_t source[32768 / 8];
    struct worker *w = arg;
    size_t len = io_bytes(w->t, sizeof(source));
    int fd = memfd_create("source", MFD_CLOEXEC);
    struct iovec iov[8];

    while (!atomic_load(&w->t->stop)) {
        char *va = random_area(w);

        for (size_t i = 0; i < len / 8; i++)
            source[i] = next_random(&w->seed);
        if (pwrite(fd, source, len, 0) != (ssize_t)len ||
            preadv(fd, iov, cut(w, va, len, iov), 0) != (ssize_t)len ||
            memcmp(va, source, len) != 0)
            lose(w);
        atomic_fetch_add_explicit(&w->t->ops, 1, memory_order_relaxed);
    }
    close(fd);
    return NULL;
}

static void *run_recvmsg(void *arg)
{
    static uint64_t source[16384 / 8];
    struct worker *w = arg;
    size_t len = io_bytes(w->t, sizeof(source));
    int ends[2];
    struct iovec iov[8];

    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) < 0) {
        w->t->worker_error = -errno;
        return NULL;
    }
    while (!atomic_load(&w->t->stop)) {
        char *va = random_area(w);
        struct msghdr msg = { .msg_iov = iov };

        for (size_t i = 0; i < len / 8; i++)
            source[i] = next_random(&w->seed);
        msg.msg_iovlen = (size_t)cut(w, va, len, iov);
        if (send(ends[0], source, len, 0) != (ssize_t)len ||
            recvmsg(ends[1], &msg, 0) != (ssize_t)len || memcmp(va, source, len) != 0)
            lose(w);
        atomic_fetch_add_explicit(&w->t->ops, 1, memory_order_relaxed);
    }
    close(ends[0]);
    close(ends[1]);
    return NULL;
}

static uint64_t random_offset(struct worker *w, size_t len)
{
    return next_random(&w->seed) % ((IO_FILE_BYTES - len) / 4096) * 4096;
}

static bool holds_file(const char *va, size_t len, uint64_t off)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word;

        memcpy(&word, va + i, 8);
        if (word != io_word(off + i))
            return false;
    }
    return true;
}

static void *run_odirect(void *arg)
{
    struct worker *w = arg;
    size_t len = io_bytes(w->t, IO_MAX);

    while (!atomic_load(&w->t->stop)) {
        char *va = random_area(w);
        uint64_t off = random_offset(w, len);
        ssize_t got = pread(w->t->io_fd, va, len, (off_t)off);

        if (got < 0) {
            w->t->worker_error = -errno;
            break;
        }
        if (got != (ssize_t)len || !holds_file(va, len, off))
            lose(w);
        atomic_fetch_add_explicit(&w->t->io, 1, memory_order_relaxed);
    }
    return NULL;
}

static void *run_uring(void *arg)
{
    struct worker *w = arg;
    struct torture *t = w->t;
    size_t len = io_bytes(t, IO_MAX);

    while (!atomic_load(&t->stop) && !t->worker_error) {
        char *va = random_area(w);
        struct ring_pin pin;
        int err = ring_pin_take(&pin, va, len);

        for (int round = 0; !err && round < 8 && !atomic_load(&t->stop); round++) {
            uint64_t off = random_offset(w, len);

            err = ring_pin_read(&pin, t->io_fd, va, len, off);
            if (!err && !holds_file(va, len, off))
                lose(w);
            atomic_fetch_add_explicit(&t->io, 1, memory_order_relaxed);
        }
        if (err)
            t->worker_error = err;
        else
            ring_pin_drop(&pin);
        usleep(t->ring_pause_us ? t->ring_pause_us : 1000); /* the mover's turn */
    }
    return NULL;
}

/* ---- the mover ---- */

static char *frame_at(const struct torture *t, unsigned file, unsigned frame)
{
    return t->direct[file] + frame * t->unit;
}

/* Make a free frame what its kind demands; after a proof it may have become the other one. */
static void dress_frame(struct torture *t, unsigned file, unsigned frame)
{
    off_t off = (off_t)(frame * t->unit);

    if (t->kind == KIND_2M)
        fallocate(t->fd[file], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, (off_t)t->unit);
    if (t->kind == KIND_2M || t->kind == KIND_THP)
        mpl_fd_allocate(t->fd[file], (uint64_t)off, t->unit);
    if (t->kind == KIND_THP)
        madvise(frame_at(t, file, frame), t->unit, ADVICE_COLLAPSE);
}

static int fence_and_prove(struct torture *t, char *va, unsigned file, unsigned frame)
{
    size_t off = frame * t->unit, extent = off / MPL_PINS_EXTENT * MPL_PINS_EXTENT;
    struct mpl_pins_map maps[] = {
        { va, t->unit },
        { t->direct[file] + extent, MPL_PINS_EXTENT },
    };
    struct mpl_pins_unit u = {
        .fd = t->fd[file],
        .extent = extent,
        .first = (unsigned)((off - extent) / MPL_PINS_PAGE),
        .nr = (unsigned)(t->unit / MPL_PINS_PAGE),
        .maps = maps,
        .nr_maps = 2,
        .limit_ns = 5000000,
    };
    struct mpl_pins_proof proof;

    if (t->prepared && mpl_pins_prepare(&t->pins, &u) == -EBUSY)
        return -EBUSY;
    double start = now_s();
    int err = mpl_fence_raise(&t->fence, va, t->unit);

    if (err)
        return err;
    err = mpl_pins_prove(&t->pins, &u, &proof);
    if (err)
        mpl_fence_lower(&t->fence, va, t->unit);
    t->fence_s += now_s() - start;
    return err;
}

static int swap_frames(struct torture *t, char *va, char *dst, char *src, int fd, off_t off)
{
    memcpy(dst, src, t->unit);
    if (!t->fenced)
        usleep(20); /* what the scheduler may do at any time */
    if (mmap(va, t->unit, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, off) == MAP_FAILED)
        return -errno;
    if (t->fenced)
        mpl_fence_wake(&t->fence, va, t->unit);
    sched_yield();
    return 0;
}

int torture_move(struct torture *t)
{
    uint64_t r = next_random(&t->seed);
    unsigned slot = (unsigned)(r % t->slots), file = r >> 40 & 1;
    unsigned frame = (unsigned)((r >> 20) % t->frames);
    unsigned from = t->at[slot].file, old = t->at[slot].frame;
    char *va = t->window + slot * t->unit;
    int err = 0;

    while (t->used[file][frame])
        frame = (frame + 1) % t->frames;
    dress_frame(t, file, frame);
    char *dst = frame_at(t, file, frame), *src = frame_at(t, from, old);

    memcpy(dst, src, t->unit); /* unfenced: warms both ways */
    if (t->proved)
        err = fence_and_prove(t, va, from, old);
    else if (t->fenced)
        err = mpl_fence_raise(&t->fence, va, t->unit);
    if (err)
        return err;
    err = swap_frames(t, va, dst, src, t->fd[file], (off_t)(frame * t->unit));
    if (err) {
        mpl_fence_lower(&t->fence, va, t->unit);
        return err;
    }
    memset(src, POISON, t->unit);
    t->used[from][old] = false;
    t->used[file][frame] = true;
    t->at[slot].file = file;
    t->at[slot].frame = frame;
    return 0;
}

static void run_mover(struct torture *t)
{
    double end = now_s() + t->seconds;

    while (now_s() < end + (t->moves < t->moves_wanted ? 20 : 0) &&
           !(t->until_loss && atomic_load(&t->lost)) && !t->worker_error) {
        int err = t->step ? t->step(t) : torture_move(t);

        if (!err)
            t->moves++;
        else if (err == -EBUSY)
            t->refused++;
        else
            t->failed++;
        if (err)
            usleep(200);
    }
}

/* ---- building it ---- */

int torture_build_file(struct torture *t, unsigned file)
{
    size_t bytes = t->frames * t->unit;
    bool hugetlb = t->kind == KIND_HUGETLB;

    t->fd[file] = memfd_create("torture", MFD_CLOEXEC | MFD_ALLOW_SEALING |
                                           (hugetlb ? MEMFD_HUGETLB : 0));
    t->direct[file] = reserve_aligned(bytes);
    if (t->fd[file] < 0 || !t->direct[file] || ftruncate(t->fd[file], (off_t)bytes) < 0 ||
        mpl_fd_allocate(t->fd[file], 0, bytes) < 0 ||
        mmap(t->direct[file], bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             t->fd[file], 0) == MAP_FAILED)
        return -errno;
    for (unsigned i = 0; i < t->frames; i++)
        dress_frame(t, file, i);
    return 0;
}

static int build_window(struct torture *t)
{
    t->window = reserve_aligned(t->slots * t->unit);
    t->adds = calloc((size_t)t->slots * words_of(t), sizeof(*t->adds));
    if (!t->window || !t->adds)
        return -ENOMEM;
    for (unsigned slot = 0; slot < t->slots; slot++) {
        char *va = t->window + slot * t->unit;

        if (mmap(va, t->unit, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, t->fd[0],
                 (off_t)(slot * t->unit)) == MAP_FAILED)
            return -errno;
        memset(va, 0, t->unit);
        t->at[slot].file = 0;
        t->at[slot].frame = slot;
        t->used[0][slot] = true;
    }
    return 0;
}

static int build(struct torture *t, const char **why)
{
    *why = "userfaultfd";
    int err = t->dev_fd ? mpl_fence_open_from(&t->fence, t->dev_fd) : mpl_fence_open(&t->fence);

    if (err)
        return err;
    *why = "pagemap";
    t->scratch = reserve_aligned(MPL_PINS_EXTENT);
    err = mpl_pins_open(&t->pins, t->scratch);
    if (err)
        return err;
    *why = "the self-test of the proofs";
    err = t->proved ? mpl_pins_selftest(&t->pins, &t->fence) : 0;
    if (err)
        return err;
    *why = "a file for direct I/O";
    t->io_fd = t->workers & W_PINS ? io_file_open() : -1;
    if (t->workers & W_PINS && t->io_fd < 0)
        return t->io_fd;
    *why = "memory for the frames";
    for (unsigned file = 0; file < FILES && !err; file++)
        err = torture_build_file(t, file);
    return err ? err : build_window(t);
}

void torture_drop_file(struct torture *t, unsigned file)
{
    if (t->direct[file])
        munmap(t->direct[file], t->frames * t->unit);
    if (t->fd[file] >= 0)
        close(t->fd[file]);
    t->direct[file] = NULL;
    t->fd[file] = -1;
}

static void take_down(struct torture *t)
{
    for (unsigned file = 0; file < FILES; file++)
        torture_drop_file(t, file);
    if (t->window)
        munmap(t->window, t->slots * t->unit);
    if (t->scratch)
        munmap(t->scratch, MPL_PINS_EXTENT);
    if (t->io_fd >= 0)
        close(t->io_fd);
    free(t->adds);
    mpl_pins_close(&t->pins);
    mpl_fence_close(&t->fence);
}

static void check_adds(struct torture *t)
{
    unsigned words = words_of(t);

    for (unsigned slot = 0; slot < t->slots; slot++) {
        for (unsigned word = 0; word < words; word++) {
            /* area 1 is the adders' */
            uint64_t there = *(uint64_t *)word_at(area_of(t, slot, 1), t, word);

            if (there != t->adds[slot * words + word])
                atomic_fetch_add(&t->lost, 1);
        }
    }
}

static unsigned start_workers(struct torture *t, struct worker *w)
{
    void *(*const run[])(void *) = {
        run_user, run_atomic, run_preadv, run_recvmsg, run_odirect, run_uring,
    };
    unsigned n = 0;

    for (unsigned bit = 0; bit < 6; bit++) {
        for (unsigned i = 0; i < (bit == 1 ? 2u : 1u) && t->workers >> bit & 1; i++, n++) {
            w[n] = (struct worker){ .t = t, .seed = next_random(&t->seed), .area = bit };
            if (pthread_create(&w[n].thread, NULL, run[bit], &w[n]) != 0) {
                t->worker_error = -EAGAIN;
                return n;
            }
        }
    }
    return n;
}

int torture_run(struct torture *t, const char **why)
{
    struct worker workers[THREADS_MAX];

    t->unit = kinds[t->kind].unit;
    t->slots = kinds[t->kind].slots;
    t->frames = kinds[t->kind].frames;
    t->fd[0] = t->fd[1] = t->io_fd = t->fence.fd = t->pins.pagemap = -1;
    int err = build(t, why);

    if (!err) {
        unsigned n = start_workers(t, workers);

        run_mover(t);
        atomic_store(&t->stop, true);
        for (unsigned i = 0; i < n; i++)
            pthread_join(workers[i].thread, NULL);
        check_adds(t);
        *why = "a worker";
        err = t->worker_error;
    }
    take_down(t);
    return err;
}
