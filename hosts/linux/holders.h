/* SPDX-License-Identifier: MIT */
/*
 * Who may hold pages of a space for I/O, as far as the kernel tells. It has no query for a page;
 * but an io_uring says in its fdinfo which buffers are registered with it, and a thread that sleeps
 * in read(2) says so in its syscall file. Those are *told*: descriptor, address and length. Of the
 * others only the descriptors are seen: what requests an io_uring or an AIO context has in flight,
 * who has direct I/O under way, what lies in a pipe. They are candidates.
 *
 * A look takes about 1 us a descriptor, 10 us a thread, and ends after a time (MPL_HOLDERS_NS). The
 * record is of the whole space: look once, then ask of many pages.
 */
#ifndef MPL_LINUX_HOLDERS_H
#define MPL_LINUX_HOLDERS_H

#include "space.h"

#define MPL_HOLDERS_NS 200000000u
#define MPL_NR_TOLD 256u

struct mpl_holders {
    struct mpl_lock lock;
    bool blind;         /* what threads do cannot be seen */
    bool cut;           /* there was no time or no place for all */
    unsigned nr_told;
    struct memplug_holder told[MPL_NR_TOLD];                  /* in the space's window */
    uint64_t nr_of[MEMPLUG_NR_HOLDERS];                       /* candidates of each kind */
    struct memplug_holder first_of[MEMPLUG_NR_HOLDERS];       /* of nr_of */
    uint64_t asked_first, asked_nr; /* why.c: frames that it has asked about last, since the look */
    bool asked_buffer;              /* and the answer */
};

/* Look anew. Takes the lock; under no fence. */
void mpl_holders_look(struct memplug_space *space);

/* Null, or who may have registered memory of the space for writes without a fault: an io_uring, a
 * device. Also where it is not told. again: a moment ago there was nobody, so only descriptors are
 * looked at. For who forks: into a record of its own, and without a lock, which somebody may hold
 * who sleeps at a stand-in. */
const char *mpl_holders_registered(struct memplug_space *space, bool again);

/* Direct I/O, or a socket without copies: by it memory is read after the call, or by a device. */
bool mpl_holders_reads_later(int fd);

/* The next one that is told and has a page in these frames, from *at on; null: no more. With the
 * lock. futex: such as wait there, instead of such as hold it. */
const struct memplug_holder *mpl_holders_next(const struct memplug_space *space, uint64_t first_pfn,
                                              uint64_t nr_pages, bool futex, unsigned *at);

#endif
