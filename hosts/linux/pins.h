/* SPDX-License-Identifier: MIT */
/*
 * The pin proof: does the kernel hold a page of this unit for I/O (O_DIRECT, io_uring, AIO)?
 * Such a page is written by the device without looking at any page table, so no fence stops it,
 * and whoever copies the page loses what arrives later (measured: 184 of 291 moves).
 *
 * There is no query for it. The proof lets the kernel make its own reference check: to merge
 * 512 small pages into a huge one (MADV_COLLAPSE), or to split a huge one (MADV_COLD of a part),
 * it must find exactly the references that the page cache holds, and it takes the pages from
 * everyone while it looks. So a transition that is seen to happen proves that at that moment
 * nobody held a page. It is asked through a fresh alias that no userfaultfd watches.
 *
 * What makes it hold. The caller sees to these, and they are all needed:
 *  - The pages in question are fenced (fence.h) before the call and stay so until the move is
 *    over. Behind the fence no new pin for writing can arise; so no pin now is no pin until then.
 *  - The fenced mappings and a quiet direct map are the only mappings of these pages in any
 *    process. (Small pages shared with a forked child are "proved" although the child writes.)
 *
 * Granularity. The kernel decides per 2 MiB extent of the file, aligned in the file. A smaller
 * unit is proved through the whole extent that contains it. Only the unit that moves need be
 * fenced: a transition says that no page of the extent was held, and for the fenced ones that
 * stays true. Pins on the rest of the extent can only refuse. Whoever clears an extent fences
 * all of its units, proves once, and then moves them all.
 *
 * Holes. A collapse fills them (it allocates 2 MiB before it gives 2 MiB back) and then the file
 * has no holes any more that SEEK_DATA could see. So the proof writes down which pages there
 * were before; copy those only. An empty unit is proved by being empty.
 *
 * The split, above all, is behaviour and not contract. mpl_pins_selftest() pins a page of its
 * own and looks whether this kernel refuses; without it mpl_pins_prove() proves nothing.
 *
 * Units: bytes unless named otherwise; pages of 4 KiB; time in nanoseconds.
 * No function here allocates from the C library, takes a lock of it or touches a FILE.
 */
#ifndef MPL_LINUX_PINS_H
#define MPL_LINUX_PINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fence.h"

#define MPL_PINS_EXTENT ((size_t)2 << 20)
#define MPL_PINS_PAGE ((size_t)4096)
#define MPL_PINS_PAGES (MPL_PINS_EXTENT / MPL_PINS_PAGE)

/* What the self-test pinned its page with. */
enum mpl_pins_by {
    MPL_PINS_BY_NONE,
    MPL_PINS_BY_IO_URING, /* a registered buffer: a long-term pin for writing */
    MPL_PINS_BY_VMSPLICE, /* where io_uring is forbidden: a plain reference from a pipe */
};

/* One mover's prover. Owned by the caller, used by one thread at a time. */
struct mpl_pins {
    int pagemap;   /* /proc/thread-self/pagemap of this process; a forked child opens its own */
    char *scratch; /* MPL_PINS_EXTENT of address space, so aligned, reserved by the caller as a
                    * mapping of its own */
    bool by_text;  /* the kernel is asked by smaps.h; cheap if scratch is low */
    int collapse;  /* 0: this proof is trusted; else -errno, why it is not */
    int split;
    enum mpl_pins_by by;
};

struct mpl_pins_map {
    void *va;
    size_t len;
};

/* What is to be proved. */
struct mpl_pins_unit {
    int fd;          /* memfd or tmpfs file; its file position is moved about */
    uint64_t extent; /* offset in the file, multiple of MPL_PINS_EXTENT; the file is that long */
    unsigned first;  /* the fenced pages, relative to the extent */
    unsigned nr;     /* 1..512 */
    /* Every mapping of the extent in this process (fenced or not, and the direct map). Their
     * page table entries are dropped, which costs the next touch a fault and loses nothing.
     * May be empty; then a split may be refused although nothing is pinned. */
    const struct mpl_pins_map *maps;
    unsigned nr_maps;
    uint64_t limit_ns; /* how long to wait for I/O in flight; 0: a single look */

    /* Holes were filled, by mpl_pins_prepare() or others; these pages held data before. */
    bool filled;
    uint64_t before[MPL_PINS_PAGES / 64];
};

enum mpl_pins_kind {
    MPL_PINS_EMPTY,    /* the fenced pages are holes */
    MPL_PINS_COLLAPSE, /* the extent was small pages and is now a huge one */
    MPL_PINS_SPLIT,    /* it was a huge page and is now small ones */
};

struct mpl_pins_proof {
    enum mpl_pins_kind kind;
    unsigned looks;                    /* how often the kernel was asked */
    int last;                          /* what it said last, -errno */
    /* Bit = page of the extent that held data before. Of a fenced page that was a hole when the
     * unit was prepared: one that is not all zeros. */
    uint64_t data[MPL_PINS_PAGES / 64];
};

/*
 * Prepare a prover. Nothing is trusted before the self-test has run.
 *   -ENOENT, -EACCES  no /proc, or not for this process
 *   -EOPNOTSUPP       the kernel does not tell how a page is mapped, or pages are not 4 KiB
 */
int mpl_pins_open(struct mpl_pins *p, void *scratch);
void mpl_pins_close(struct mpl_pins *p); /* the reservation remains the caller's */

/*
 * Prove that no fenced page of the unit is held. Looks every 50 us until limit_ns have passed:
 * behind the fence I/O in flight drains; registered buffers stay.
 *   0            proved, and it stays so while the fence is up
 *   -EBUSY       held during all looks (or, rarely, in use by unrelated work of the kernel)
 *   -EOPNOTSUPP  no such proof here: not trusted, hugetlb, a kernel without huge pages
 *   -ENOMEM      no free 2 MiB to collapse into, or no room for the alias
 *   -ENOLCK      the alias would be locked (mlockall), and RLIMIT_MEMLOCK forbids it
 *   others       from lseek, mmap, madvise: a wrong descriptor, a poisoned page
 * In every case the content of the file and of all mappings is what it was. The frames may be
 * others (that is what the kernel's transitions do) and an extent may be huge that was small.
 * Sleeps.
 */
int mpl_pins_prove(struct mpl_pins *p, const struct mpl_pins_unit *u, struct mpl_pins_proof *out);

/*
 * Before the fence: make an extent of small pages huge, so that the proof behind the fence is a
 * split. It makes the fence short: a collapse drains queues on every CPU and waits for each (0.5 ms
 * on a quiet machine, 10 to 140 ms on a full one; a split 0.3 to 0.5 ms). Holes are filled, and
 * that is written down in u: a later proof knows them by that they are still all zeros.
 * Optional, and proves nothing. Does nothing where it cannot help (no page of the unit has data, no
 * trusted split, huge already).
 *   0       prepared, or nothing to do
 *   -EBUSY  held at this moment: a hint that a fence would be raised in vain
 *   -ENOMEM and others as for the proof; it may be tried all the same
 * Where u->filled is set and no proof follows, the holes stay filled.
 */
int mpl_pins_prepare(struct mpl_pins *p, struct mpl_pins_unit *u);

/* After a proof whose move failed later, with the fence still up: give back the memory that a
 * collapse put into holes of the fenced pages. Pages that were allocated in advance (fallocate)
 * and never touched count as holes: a caller that wants those back must not call it. */
void mpl_pins_unfill(const struct mpl_pins_unit *u, const struct mpl_pins_proof *proof);

/* Behind a fence: of the fenced pages, those that were holes (u->before) and are all zeros are so
 * still, in all but name; they lose their bits in data. */
void mpl_pins_forget_zeros(const struct mpl_pins_unit *u, uint64_t *data);

/* Is every page of [va, va + len) mapped at this moment? No, where nobody can say. */
bool mpl_pins_mapped(const struct mpl_pins *p, const void *va, size_t len);

/* Is page nr (relative to the extent) one that held data before the proof? */
static inline bool mpl_pins_had_data(const struct mpl_pins_proof *proof, unsigned nr)
{
    return proof->data[nr / 64] >> (nr % 64) & 1;
}

/*
 * Pin a page of a scratch unit on purpose, and see that either proof refuses; unpin it, and see
 * that either now succeeds and that the content is whole. Sets p->collapse, p->split and p->by.
 * fence may be NULL (then the scratch unit is not fenced). Takes some ms, up to 1 s.
 *   0        it ran; the verdicts are in p:  0 trusted,
 *              -EKEYREJECTED  said "proved" of a pinned page: never trust this kernel
 *              -EBUSY         refuses although nothing is pinned any more: useless here
 *              others         why the transition is not to be had
 *   -EPERM   nothing could be pinned, so nothing can be trusted
 *   others   no memory, no descriptors
 */
int mpl_pins_selftest(struct mpl_pins *p, struct mpl_fence *fence);

#endif
