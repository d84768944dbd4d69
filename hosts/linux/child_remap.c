/* SPDX-License-Identifier: MIT */
/*
 * mremap(2) of memory that a forked child may share with its parent. The kernel would move or
 * enlarge the mapping of the file: so what moves becomes memory of the child's own, by a copy, and
 * what is added in place is a mapping of no file. All else is the kernel's.
 */
#define _GNU_SOURCE
#include "attrs.h"
#include "fork_child.h"
#include "sys.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#define MOVES (MREMAP_FIXED | MREMAP_DONTUNMAP)
/* What makes it several mappings. */
#define ADVICE (MPL_ATTR_SEQUENTIAL | MPL_ATTR_RANDOM | MPL_ATTR_HUGEPAGE | MPL_ATTR_NO_HUGEPAGE)
#define OF_CHILD (MPL_ATTR_STAYS | MPL_ATTR_MERGEABLE)
#define SPLITS (MPL_ATTR_PROTECTION | MPL_ATTR_NO_DUMP | OF_CHILD | ADVICE)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

struct remap {
    char *old;
    uint64_t old_bytes, new_bytes;
    int flags;
    char *target; /* of FIXED; then the result */
    char *made;   /* where it is copied to first; null: to a mapping of its own */
    uint32_t attr;
    bool ours;    /* some of it is shared, or it is of several pieces */
    bool put;     /* it is at its new place */
};

static int protection_of(const struct remap *remap)
{
    return (int)(remap->attr & MPL_ATTR_PROTECTION);
}

/* What the kernel looks at first. */
static int check(const struct memplug_space *space, const struct remap *remap)
{
    uint64_t mask = space->page_bytes - 1;
    int flags = remap->flags;

    if ((flags & ~(MREMAP_MAYMOVE | MOVES)) != 0 || ((uintptr_t)remap->old & mask) != 0 ||
        remap->new_bytes == 0 || remap->old_bytes == 0)
        return -EINVAL;
    if ((flags & MOVES) != 0 && (flags & MREMAP_MAYMOVE) == 0)
        return -EINVAL;
    if ((flags & MREMAP_DONTUNMAP) != 0 && remap->old_bytes != remap->new_bytes)
        return -EINVAL;
    if ((flags & MREMAP_FIXED) != 0 &&
        (((uintptr_t)remap->target & mask) != 0 ||
         (remap->old + remap->old_bytes > remap->target &&
          remap->target + remap->new_bytes > remap->old)))
        return -EINVAL;
    return 0;
}

static uint64_t kept_bytes(const struct remap *remap)
{
    return remap->old_bytes < remap->new_bytes ? remap->old_bytes : remap->new_bytes;
}

/* What is kept is one mapping for the program: all of it known, and alike. */
static int look(const struct memplug_space *space, struct remap *remap)
{
    struct mpl_span span = {.va = remap->old};
    unsigned nr_known = 0;
    int result = 0;

    while (mpl_child_next(space, &span, remap->old + kept_bytes(remap))) {
        uint32_t attr = span.known ? space->fork.pieces[span.piece].attr : 0;

        if (span.known && nr_known++ == 0)
            remap->attr = attr;
        remap->ours |= span.shared || nr_known > 1;
        if (!span.known || ((attr ^ remap->attr) & SPLITS) != 0)
            result = -EFAULT;
    }
    return result;
}

/* --- in place --------------------------------------------------------------------------------- */

static int unmap(struct memplug_space *space, char *va, uint64_t size_bytes)
{
    if (mpl_sys_munmap(va, size_bytes) != 0)
        return -errno;
    mpl_child_forget(space, va, size_bytes);
    return 0;
}

/* Known afterwards as a piece of its own, so that all of it can be remapped again. */
static bool grow(struct memplug_space *space, const struct remap *remap)
{
    char *va = remap->old + remap->old_bytes;
    uint64_t size_bytes = remap->new_bytes - remap->old_bytes;
    char *got = mpl_sys_mmap(va, size_bytes, protection_of(remap),
                             ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (got == MAP_FAILED)
        return false;
    mpl_child_apply(space, va, size_bytes, remap->attr);
    if (mpl_child_locked(remap->old, remap->old_bytes))
        syscall(SYS_mlock, va, size_bytes);
    mpl_child_add(space, va, size_bytes, remap->attr);
    return true;
}

/* --- elsewhere -------------------------------------------------------------------------------- */

/* By a call that fails where a guard stands, which goes along. */
static void copy_pages(const struct memplug_space *space, char *to, char *from, uint64_t size_bytes)
{
    long self = syscall(SYS_getpid);

    for (uint64_t at = 0; at < size_bytes;) {
        struct iovec into = {.iov_base = to + at, .iov_len = size_bytes - at};
        struct iovec of = {.iov_base = from + at, .iov_len = size_bytes - at};
        long nr = syscall(SYS_process_vm_readv, self, &into, 1L, &of, 1L, 0L);

        if (nr > 0) {
            at += (uint64_t)nr;
        } else if (errno == EFAULT) {
            mpl_sys_madvise(to + at, space->page_bytes, MADV_GUARD_INSTALL);
            at += space->page_bytes;
        } else { /* not allowed here */
            memcpy(to + at, from + at, size_bytes - at);
            return;
        }
    }
}

/* Page by page: they need not be alike where several mappings move. Not MLOCK_ONFAULT: a later
 * mlock() of a part would split them. */
static void copy_locks(const struct memplug_space *space, const struct remap *remap, char *to)
{
    uint64_t page_bytes = space->page_bytes, kept = kept_bytes(remap);
    bool last = false;

    if (!mpl_child_locked(remap->old, kept))
        return;
    for (uint64_t at = 0; at < kept; at += page_bytes) {
        last = mpl_child_locked(remap->old + at, page_bytes);
        if (last)
            syscall(SYS_mlock, to + at, page_bytes);
    }
    if (last && kept < remap->new_bytes)
        syscall(SYS_mlock, to + kept, remap->new_bytes - kept);
}

/* Nobody writes to it while it is copied, and who may not read it is not in the way. */
static int copy(struct memplug_space *space, const struct remap *remap, char *to)
{
    if (mpl_sys_mprotect(remap->old, kept_bytes(remap), PROT_READ) != 0)
        return -ENOMEM;
    copy_pages(space, to, remap->old, kept_bytes(remap));
    mpl_child_apply(space, to, remap->new_bytes, remap->attr);
    copy_locks(space, remap, to);
    return mpl_sys_mprotect(to, remap->new_bytes, protection_of(remap)) != 0 ? -ENOMEM : 0;
}

static int put_at(struct memplug_space *space, struct remap *remap, char *made)
{
    if ((remap->flags & MREMAP_FIXED) != 0) {
        if (syscall(SYS_mremap, made, remap->new_bytes, remap->new_bytes,
                    MREMAP_MAYMOVE | MREMAP_FIXED, remap->target) == -1)
            return -errno;
        mpl_child_forget(space, remap->target, remap->new_bytes);
    } else {
        remap->target = made;
    }
    remap->put = true;
    return 0;
}

static int empty_old(struct memplug_space *space, const struct remap *remap)
{
    if (mpl_sys_mmap(remap->old, remap->old_bytes, protection_of(remap), ANONYMOUS | MAP_FIXED, -1,
                     0) == MAP_FAILED)
        return -errno;
    mpl_child_apply(space, remap->old, remap->old_bytes, remap->attr);
    mpl_child_emptied(space, remap->old, remap->old_bytes);
    return 0;
}

/* Where the old place cannot be had any more, at the limit of mappings, all is as it was; or, if
 * something stood at the new one, that is gone, and the old one stays. */
static int move(struct memplug_space *space, struct remap *remap)
{
    char *made = remap->made;
    int result;

    if ((remap->flags & MREMAP_MAYMOVE) == 0)
        return -ENOMEM;
    if (!made)
        made = mpl_sys_mmap(NULL, remap->new_bytes, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return -ENOMEM;
    result = copy(space, remap, made);
    if (result == 0)
        result = put_at(space, remap, made);
    if (result == 0)
        result = (remap->flags & MREMAP_DONTUNMAP) != 0
                     ? empty_old(space, remap) : unmap(space, remap->old, remap->old_bytes);
    if (result != 0) {
        mpl_sys_munmap(remap->put ? remap->target : made, remap->new_bytes);
        mpl_sys_mprotect(remap->old, kept_bytes(remap), protection_of(remap));
    }
    return result;
}

/* --- mremap ----------------------------------------------------------------------------------- */

static int remap_shared(struct memplug_space *space, struct remap *remap)
{
    if ((remap->flags & MOVES) != 0)
        return move(space, remap);
    if (!grow(space, remap))
        return move(space, remap);
    remap->target = remap->old;
    return 0;
}

static int remap_other(struct memplug_space *space, struct remap *remap)
{
    char *result = (char *)syscall(SYS_mremap, remap->old, remap->old_bytes, remap->new_bytes,
                                   remap->flags, remap->target);

    if (result == MAP_FAILED)
        return -errno;
    if (result != remap->old && (remap->flags & MREMAP_DONTUNMAP) == 0)
        mpl_child_forget(space, remap->old, remap->old_bytes);
    if (result == remap->old && remap->new_bytes < remap->old_bytes)
        mpl_child_forget(space, remap->old + remap->new_bytes,
                         remap->old_bytes - remap->new_bytes);
    if ((remap->flags & MREMAP_FIXED) != 0)
        mpl_child_forget(space, result, remap->new_bytes);
    remap->target = result;
    return 0;
}

/* Since Linux 6.17 several mappings can be moved at once, if to a place that is given. */
static bool may_be_several(const struct remap *remap)
{
    return (remap->flags & MREMAP_FIXED) != 0 && remap->old_bytes == remap->new_bytes;
}

static struct remap part_of(const struct remap *remap, const struct mpl_span *span)
{
    struct remap part = *remap;

    part.old = span->va;
    part.target = remap->target + (span->va - remap->old);
    part.old_bytes = part.new_bytes = span->size_bytes;
    return part;
}

/* All by way of one mapping: the kernel makes one again of parts that are alike later only if they
 * were one before. */
static int move_run(struct memplug_space *space, const struct remap *run)
{
    struct mpl_span span = {.va = run->old};
    char *end = run->old + run->old_bytes;
    char *made = mpl_sys_mmap(NULL, run->old_bytes, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0);
    int result = made == MAP_FAILED ? -ENOMEM : 0;

    while (result == 0 && mpl_child_next(space, &span, end)) {
        struct remap part = part_of(run, &span);
        char *rest = part.made = made + (span.va - run->old);

        part.attr = space->fork.pieces[span.piece].attr;
        result = mpl_child_room(space);
        if (result == 0) {
            rest += span.size_bytes;
            result = move(space, &part);
        }
        if (result != 0)
            mpl_sys_munmap(rest, (uint64_t)(made + run->old_bytes - rest));
    }
    return result;
}

/* To where what is known ends, or begins. Is any of it shared? */
static bool extend(const struct memplug_space *space, struct mpl_span *span, const char *end)
{
    struct mpl_span next = *span;

    while (mpl_child_next(space, &next, end) && next.known == span->known) {
        span->size_bytes += next.size_bytes;
        span->shared |= next.shared;
    }
    return span->shared;
}

static int move_each(struct memplug_space *space, const struct remap *remap)
{
    struct mpl_span span = {.va = remap->old};
    char *end = remap->old + remap->old_bytes;
    int result = 0;

    while (result == 0 && mpl_child_next(space, &span, end)) {
        bool shared = extend(space, &span, end);
        struct remap run = part_of(remap, &span);

        result = mpl_child_room(space);
        if (result == 0)
            result = shared ? move_run(space, &run) : remap_other(space, &run);
    }
    return result;
}

static int remap_known(struct memplug_space *space, struct remap *remap)
{
    int result = mpl_child_room(space);

    if (result != 0)
        return result;
    result = look(space, remap);
    /* What becomes smaller stays where it is. */
    if (!remap->ours || ((remap->flags & MOVES) == 0 && remap->new_bytes <= remap->old_bytes))
        return remap_other(space, remap);
    if (check(space, remap) != 0)
        return -EINVAL;
    if (result != 0)
        return may_be_several(remap) ? move_each(space, remap) : result;
    return remap_shared(space, remap);
}

int memplug_space_child_remap(struct memplug_space *space, void *old, uint64_t old_bytes,
                              uint64_t new_bytes, int flags, void **address)
{
    uint64_t mask = space->page_bytes - 1;
    struct remap remap = {
        .old = old,
        .old_bytes = (old_bytes + mask) & ~mask,
        .new_bytes = (new_bytes + mask) & ~mask,
        .flags = flags,
        .target = *address,
    };
    int saved = errno;
    int result = 0;

    if (mpl_child_enter(space, old, old_bytes) ||
        ((flags & MREMAP_FIXED) != 0 && mpl_child_enter(space, *address, new_bytes))) {
        result = remap_known(space, &remap);
        *address = remap.target;
        mpl_child_leave(space);
    } else {
        *address = (void *)syscall(SYS_mremap, old, old_bytes, new_bytes, flags, *address);
        result = *address == MAP_FAILED ? -errno : 0;
    }
    errno = saved;
    return result;
}
