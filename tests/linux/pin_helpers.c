/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "pin_helpers.h"

#include "../../hosts/linux/host.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

uint64_t next_random(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

char *reserve_aligned(size_t len)
{
    size_t align = MPL_PINS_EXTENT;
    char *base = mmap(NULL, len + align, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return NULL;
    size_t head = -(uintptr_t)base & (align - 1);

    if (head)
        munmap(base, head);
    munmap(base + head + len, align - head);
    return base + head;
}

/* ---- a file for direct I/O ---- */

uint64_t io_word(uint64_t offset)
{
    uint64_t seed = offset;

    return next_random(&seed);
}

static int io_file_in(const char *dir)
{
    static _Alignas(4096) uint64_t chunk[65536 / 8];
    char path[4096];

    if (!dir || snprintf(path, sizeof(path), "%s/memplug-io-XXXXXX", dir) >= (int)sizeof(path))
        return -ENOENT;
    int fd = mkostemp(path, O_DIRECT | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    unlink(path);
    for (size_t off = 0; off < IO_FILE_BYTES; off += sizeof(chunk)) {
        for (size_t i = 0; i < sizeof(chunk); i += 8)
            chunk[i / 8] = io_word(off + i);
        if (pwrite(fd, chunk, sizeof(chunk), (off_t)off) != (ssize_t)sizeof(chunk)) {
            close(fd);
            return -EIO;
        }
    }
    return fd;
}

int io_file_open(void)
{
    const char *dirs[] = { getenv("TMPDIR"), "/var/tmp", ".", "/tmp" };
    int fd = -ENOENT;

    for (unsigned i = 0; i < sizeof(dirs) / sizeof(dirs[0]) && fd < 0; i++)
        fd = io_file_in(dirs[i]);
    return fd;
}

/* ---- registered buffers ---- */

int ring_pin_take(struct ring_pin *pin, void *va, size_t len)
{
    struct iovec iov = { va, len };
    struct io_uring *ring = calloc(1, sizeof(*ring));
    int err = ring ? io_uring_queue_init(4, ring, 0) : -ENOMEM;

    if (!err) {
        err = io_uring_register_buffers(ring, &iov, 1);
        if (err)
            io_uring_queue_exit(ring);
    }
    if (err) {
        free(ring);
        return err;
    }
    pin->ring = ring;
    return 0;
}

int ring_pin_read(struct ring_pin *pin, int fd, void *va, size_t len, uint64_t off)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(pin->ring);
    struct io_uring_cqe *cqe;

    io_uring_prep_read_fixed(sqe, fd, va, (unsigned)len, off, 0);
    int err = io_uring_submit_and_wait(pin->ring, 1);

    if (err < 0 || (err = io_uring_wait_cqe(pin->ring, &cqe)) < 0)
        return err;
    err = cqe->res < 0 ? cqe->res : cqe->res == (int)len ? 0 : -EIO;
    io_uring_cqe_seen(pin->ring, cqe);
    return err;
}

void ring_pin_drop(struct ring_pin *pin)
{
    io_uring_unregister_buffers(pin->ring);
    io_uring_queue_exit(pin->ring);
    free(pin->ring);
}

int in_child(int (*run)(void *), void *arg)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(run(arg));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 128;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* ---- huge pages ---- */

#define HUGE_PAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"

static struct {
    int leash; /* write end of the pipe whose end of file frees the guardian */
    pid_t guardian;
} borrowed = { .leash = -1 };

static long allowance_read(int fd)
{
    char text[32] = "";

    return pread(fd, text, sizeof(text) - 1, 0) > 0 ? strtol(text, NULL, 10) : -1;
}

static bool allowance_write(int fd, long n)
{
    char text[32];
    int len = snprintf(text, sizeof(text), "%ld", n);

    return pwrite(fd, text, (size_t)len, 0) == len;
}

static void guard(int end, int fd, long before)
{
    sigset_t all;
    char c;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    setsid();
    while (read(end, &c, 1) > 0)
        ;
    allowance_write(fd, before);
    _exit(0);
}

static bool can_have(unsigned pages)
{
    int fd = memfd_create("try", MFD_CLOEXEC | MEMFD_HUGETLB);
    bool ok = fd >= 0 && mpl_fd_allocate(fd, 0, (uint64_t)pages * (2 << 20)) == 0;

    if (fd >= 0)
        close(fd);
    return ok;
}

const char *hugepages_borrow(unsigned pages)
{
    int fd = open(HUGE_PAGES, O_RDWR | O_CLOEXEC), ends[2];

    if (fd < 0)
        return errno == ENOENT ? "no 2 MiB hugetlb pages on this kernel"
                               : "no permission to allow hugetlb pages";
    for (double start = now_s(); flock(fd, LOCK_EX | LOCK_NB) < 0; usleep(20000)) {
        if (now_s() - start > 60) {
            close(fd);
            return "another test keeps the allowance of hugetlb pages raised";
        }
    }
    long before = allowance_read(fd);

    if (before < 0 || pipe2(ends, O_CLOEXEC) < 0) {
        close(fd);
        return "the allowance of hugetlb pages cannot be read";
    }
    borrowed.guardian = fork(); /* keeps the lock until it has put the number back */
    if (borrowed.guardian == 0) {
        close(ends[1]);
        guard(ends[0], fd, before);
    }
    bool raised = borrowed.guardian > 0 && allowance_write(fd, before + (long)pages);

    close(ends[0]);
    close(fd);
    borrowed.leash = ends[1];
    for (int tries = 0; raised && tries < 20; tries++) { /* others use the pool as well */
        if (can_have(pages))
            return NULL;
        usleep(50000);
    }
    hugepages_return();
    return "the kernel found too few free 2 MiB pages";
}

void hugepages_return(void)
{
    if (borrowed.leash < 0)
        return;
    close(borrowed.leash);
    borrowed.leash = -1;
    if (borrowed.guardian > 0)
        waitpid(borrowed.guardian, NULL, 0);
}

struct ending {
    void (*run)(void *);
    void *arg;
    bool reached;
};

static void *run_and_end(void *argument)
{
    struct ending *ending = argument;

    pthread_cancel(pthread_self());
    ending->run(ending->arg);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    ending->reached = true;
    return NULL;
}

bool runs_to_its_end(void (*run)(void *), void *arg)
{
    struct ending ending = { .run = run, .arg = arg };
    pthread_t thread;

    if (pthread_create(&thread, NULL, run_and_end, &ending) != 0)
        return false;
    pthread_join(thread, NULL);
    return ending.reached;
}
