/* SPDX-License-Identifier: MIT */
/*
 * An owner of pages: slots with frames behind them, as a page table has. Each slot's bytes are a
 * pattern made from the owner's seed, the slot's number and its version, so that a lost, mixed up
 * or stale page is seen. The owner is a mover: it copies, and switches the slot, under its lock.
 *
 * Works in one thread, in many, and in fibres of sched.h; with any host.
 */
#ifndef OWNER_H
#define OWNER_H

#include <memplug/huge.h>
#include <memplug/memplug.h>

struct owner;

struct owner_config {
    const char *name;   /* null: "owner" */
    unsigned nr_slots;  /* also the first cookie that is not one */
    uint64_t page_bytes;
    uint64_t seed;
    unsigned batch_max; /* of the mover; 0: no limit */
    bool sparse;        /* only the first and last 64 bytes of each page bear the pattern, and of
                           more than 512 pages only 64 */
};

int owner_open(const struct owner_config *config, struct owner **owner);
/* Frees what its slots still hold if it is bound to a pool. */
void owner_close(struct owner *owner);

/* Register owner_mover(), or a wrapping of it, with the pool and bind the number that this gave. */
const struct memplug_mover *owner_mover(const struct owner *owner);
void owner_bind(struct owner *owner, struct memplug *pool, unsigned mover);
/* Both in one: 0 or a negative errno. */
int owner_register(struct owner *owner, struct memplug *pool);

/* --- one slot --------------------------------------------------------------------------------- */

/* Any free slot, nr_pages of any node; writes the pattern. -ENOMEM no frames, -ENOSPC no slot, or
 * what memplug_alloc() says. slot may be null. */
int owner_alloc(struct owner *owner, uint32_t nr_pages, unsigned *slot);

/* The same with a request of one's own (mover and cookie are filled in), and, if at is not null,
 * with exactly these frames. */
int owner_alloc_request(struct owner *owner, const struct memplug_alloc *request,
                        const memplug_pfn_t *at, unsigned *slot);

/* A huge page, freed as such by owner_free(). What memplug_huge_alloc() says, or -ENOSPC. */
int owner_alloc_huge(struct owner *owner, enum memplug_huge size, int node, bool reserved,
                     unsigned *slot);

/* -ENOENT: the slot is empty; else what memplug_free() says (the slot is empty all the same). */
int owner_free(struct owner *owner, unsigned slot);

/* A new version of the content. -ENOENT. */
int owner_write(struct owner *owner, unsigned slot);

/* 0, -ENOENT, or -EUCLEAN: the bytes are not the pattern. */
int owner_verify(struct owner *owner, unsigned slot);

/* While held, move() and ask() answer -EBUSY for the slot. */
int owner_hold(struct owner *owner, unsigned slot, bool held);

/* Where the slot is now. nr_pages may be null. -ENOENT. */
int owner_where(struct owner *owner, unsigned slot, memplug_pfn_t *pfn, uint32_t *nr_pages);

/* --- all slots -------------------------------------------------------------------------------- */

/* 0, or -EUCLEAN and the first bad slot (which may be null). */
int owner_verify_all(struct owner *owner, unsigned *bad_slot);
int owner_free_all(struct owner *owner);

/* Allocate single pages until the pool says -ENOMEM or the slots are full; returns how many. */
unsigned owner_fill(struct owner *owner);

/* One random act: alloc (up to 2^order_max pages), free, write, verify. State is the caller's own
 * seed, so that each thread has one. 0, -ENOMEM, -ENOSPC, or -EUCLEAN from verify. */
int owner_step(struct owner *owner, uint64_t *random, unsigned order_max);

struct owner_stat {
    uint64_t nr_used_slots, nr_used_pages;
    uint64_t nr_moved, nr_gone, nr_refused; /* entries of move() with 0, -ENOENT, -EBUSY */
    uint64_t nr_lost; /* slots that lost() has emptied */
};

void owner_stat(struct owner *owner, struct owner_stat *stat);

/* Slots with their versions and sizes, and with their frames if frames is set; equal states give
 * equal texts. */
void owner_dump(struct owner *owner, bool frames, memplug_write_t *write, void *context);

#endif
