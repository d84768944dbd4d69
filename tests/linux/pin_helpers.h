/* SPDX-License-Identifier: MIT */
/*
 * A small program whose memory moves while it runs, for the tests of the movers.
 *
 * A torture is a window of slots (the program's view), backed by two memfds of frames, each
 * with a direct map. Workers write into random slots and check what they find; one mover puts
 * random slots onto random free frames and poisons the frame that it left. Each worker has an
 * area of its own in every slot, so whatever it finds changed was lost by the mover.
 */
#ifndef PIN_HELPERS_H
#define PIN_HELPERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../hosts/linux/fence.h"
#include "../../hosts/linux/pins.h"

/* madvise() and memfd_create() of the kernel; older headers lack them. */
#define ADVICE_COLLAPSE 25
#define MEMFD_HUGETLB 4u

enum kind { KIND_4K, KIND_64K, KIND_2M, KIND_THP, KIND_HUGETLB, KIND_COUNT };

enum worker_bits {
    W_USER = 1,    /* stores with a shadow word for each */
    W_ATOMIC = 2,  /* two threads add to shared words */
    W_PREADV = 4,  /* the kernel writes: preadv */
    W_RECVMSG = 8, /* the kernel writes: recvmsg */
    W_ODIRECT = 16, /* the device writes: O_DIRECT pread */
    W_URING = 32,  /* the device writes: io_uring registered buffers */
};

#define W_SYSCALLS (W_USER | W_ATOMIC | W_PREADV | W_RECVMSG)
#define W_PINS (W_ODIRECT | W_URING)

#define AREAS 8 /* a slot is cut into so many; area i belongs to the worker of bit i */
#define WORDS_MAX 1024u /* words of an area that the storing workers use */
#define FILES 2
#define THREADS_MAX 8

struct torture {
    /* what the test asks for */
    enum kind kind;
    unsigned workers;
    bool fenced, proved;  /* the two protections; a control leaves one out */
    bool prepared;        /* the extent is made huge before the fence */
    bool until_loss;      /* a control: stop at the first loss */
    double seconds;       /* at most; 20 more while there are fewer than moves_wanted */
    unsigned long moves_wanted;
    unsigned ring_pause_us; /* how long W_URING holds nothing; 0: 1 ms */
    int dev_fd;           /* not 0: a descriptor of /dev/userfaultfd that was handed in */
    int (*step)(struct torture *t); /* one move; NULL: torture_move */
    void *user;

    /* what came of it */
    unsigned long moves, refused, failed;
    double fence_s; /* from fence to proved or refused, summed */
    atomic_ulong ops, io, lost;
    int worker_error; /* -errno of a worker that could not work at all */

    /* the machinery */
    size_t unit;
    unsigned slots, frames; /* frames of each file */
    char *window, *direct[FILES], *scratch;
    int fd[FILES];
    struct { unsigned file, frame; } at[512]; /* by slot */
    bool used[FILES][2048];
    struct mpl_fence fence;
    struct mpl_pins pins;
    atomic_bool stop;
    atomic_ulong *adds; /* by word: how much the adders added in all */
    int io_fd;
    uint64_t seed;
};

const char *kind_name(enum kind kind);

/* Build, run until the time is over (or a loss is seen), take down. 0, or -errno and what it was
 * that did not work. */
int torture_run(struct torture *t, const char **why);

/* The mover's ordinary step: fence, prove, copy, swap, wake. 0: moved, -EBUSY: refused. */
int torture_move(struct torture *t);

/* A file of the torture with its direct map, for movers that spend files. */
int torture_build_file(struct torture *t, unsigned file);
void torture_drop_file(struct torture *t, unsigned file);

/* A file with the pattern of io_word(), opened O_DIRECT in a directory that can do it, already
 * unlinked. -errno. */
#define IO_FILE_BYTES ((size_t)8 << 20)
int io_file_open(void);
uint64_t io_word(uint64_t offset);

/* A registered buffer of an io_uring. */
struct ring_pin {
    void *ring;
};
int ring_pin_take(struct ring_pin *pin, void *va, size_t len); /* -errno */
int ring_pin_read(struct ring_pin *pin, int fd, void *va, size_t len, uint64_t off);
void ring_pin_drop(struct ring_pin *pin); /* the kernel lets go some time later */

/* Memory of 2 MiB alignment that nobody uses (PROT_NONE). Free with munmap(base, len). */
char *reserve_aligned(size_t len);

/*
 * Allow so many hugetlb pages of 2 MiB to be made on demand (nr_overcommit_hugepages: unlike
 * nr_hugepages it leaves the pool that others may be using alone, and nothing stays behind), and
 * have a guardian process put the number back when this process ends in whatever way. One
 * process at a time. NULL or the reason why not.
 */
const char *hugepages_borrow(unsigned pages);
void hugepages_return(void); /* to be called once in any case; never borrowed is fine */

/* Run it in a child; its exit status, 128 if it died. */
int in_child(int (*run)(void *), void *arg);

/* Run it in a thread that is cancelled at the first point of cancellation: does it meet none? */
bool runs_to_its_end(void (*run)(void *), void *arg);

double now_s(void);
uint64_t next_random(uint64_t *seed);

#endif
