/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "attrs.h"

#include "sys.h"

#include <errno.h>
#include <sys/prctl.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef MADV_REMOVE
#define MADV_REMOVE 9
#endif

#define ACCESS_ADVICE (MPL_ATTR_SEQUENTIAL | MPL_ATTR_RANDOM)
#define HUGE_ADVICE (MPL_ATTR_HUGEPAGE | MPL_ATTR_NO_HUGEPAGE)

static uint32_t attr_of(const struct memplug_space *space, uint64_t unit, uint64_t page)
{
    return atomic_load_explicit(&mpl_unit_attrs(space, unit)[page], memory_order_relaxed);
}

/* --- pieces ----------------------------------------------------------------------------------- */

static bool whole_piece(const struct memplug_space *space, uint64_t unit, struct mpl_piece *piece)
{
    uint32_t attr = 0;

    if (piece->nr > 0)
        return false;
    for (uint64_t page = 0; page < space->unit_pages; page++)
        attr |= attr_of(space, unit, page);
    *piece = (struct mpl_piece){.nr = space->unit_pages, .attr = attr};
    return (attr & MPL_ATTR_MAPPED) != 0;
}

bool mpl_piece_next(const struct memplug_space *space, uint64_t unit, uint32_t flags,
                    struct mpl_piece *piece)
{
    uint64_t page = piece->first + piece->nr;

    if ((flags & MPL_UNIT_HUGE) != 0)
        return whole_piece(space, unit, piece);
    while (page < space->unit_pages && (attr_of(space, unit, page) & MPL_ATTR_MAPPED) == 0)
        page++;
    if (page == space->unit_pages)
        return false;
    *piece = (struct mpl_piece){.first = page, .attr = attr_of(space, unit, page)};
    while (page < space->unit_pages && attr_of(space, unit, page) == piece->attr)
        page++;
    piece->nr = page - piece->first;
    return true;
}

void mpl_attrs_set(const struct memplug_space *space, const struct mpl_part *part, uint32_t clear,
                   uint32_t set)
{
    _Atomic uint32_t *attrs = mpl_unit_attrs(space, part->unit) + part->first;

    for (uint64_t i = 0; i < part->nr; i++) {
        uint32_t attr = atomic_load_explicit(&attrs[i], memory_order_relaxed);

        atomic_store_explicit(&attrs[i], (attr & ~clear) | set, memory_order_relaxed);
    }
}

/* --- applied to a mapping --------------------------------------------------------------------- */

static int set_name(const struct memplug_space *space, void *va, uint64_t size_bytes,
                    uint32_t attr)
{
    uint32_t nr = attr >> MPL_ATTR_NAME_SHIFT;

    if (syscall(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, va, size_bytes,
                nr ? space->names[nr] : NULL) != 0)
        return errno == EBADF ? -EINVAL : -errno;
    return 0;
}

unsigned mpl_attrs_apply(const struct memplug_space *space, void *va, uint64_t size_bytes,
                         uint32_t attr, bool full)
{
    static const struct {
        uint32_t attr;
        int advice;
    } rows[] = {
        {MPL_ATTR_MAPPED, MADV_DONTFORK}, /* all of them */
        {MPL_ATTR_NO_DUMP, MADV_DONTDUMP},
        {MPL_ATTR_HUGEPAGE, MADV_HUGEPAGE},
        {MPL_ATTR_NO_HUGEPAGE, MADV_NOHUGEPAGE},
        {MPL_ATTR_SEQUENTIAL, MADV_SEQUENTIAL},
        {MPL_ATTR_RANDOM, MADV_RANDOM},
    };
    unsigned nr_lost = 0;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if ((attr & rows[i].attr) != 0)
            nr_lost += mpl_sys_madvise(va, size_bytes, rows[i].advice) != 0;
    if ((attr & MPL_ATTR_LOCKED) != 0)
        nr_lost += syscall(SYS_mlock2, va, size_bytes, full ? 0 : MLOCK_ONFAULT) != 0;
    if (attr >> MPL_ATTR_NAME_SHIFT != 0)
        nr_lost += set_name(space, va, size_bytes, attr) != 0;
    return nr_lost;
}

/* --- names ------------------------------------------------------------------------------------ */

static bool same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

int mpl_attrs_name(struct memplug_space *space, const char *name, uint32_t *bits)
{
    unsigned length = 0, nr;
    int result = 0;

    *bits = 0;
    if (!name)
        return 0;
    while (name[length])
        if (++length == MPL_NAME_MAX)
            return -EINVAL;
    mpl_lock_enter(&space->area.lock);
    unsigned nr_names = atomic_load_explicit(&space->nr_names, memory_order_relaxed);
    for (nr = 1; nr <= nr_names && !same(space->names[nr], name); nr++)
        ;
    if (nr == MPL_NR_NAMES) {
        result = -ENOSPC;
    } else if (nr > nr_names) {
        for (unsigned i = 0; i <= length; i++)
            space->names[nr][i] = name[i];
        atomic_store_explicit(&space->nr_names, nr, memory_order_relaxed);
    }
    mpl_lock_leave(&space->area.lock);
    *bits = result == 0 ? nr << MPL_ATTR_NAME_SHIFT : 0;
    return result;
}

/* --- what the program may change -------------------------------------------------------------- */

/* One change: a system call, and what is written down if it was done. */
struct change {
    int (*act)(const struct memplug_space *space, void *va, uint64_t size_bytes, int argument);
    int argument;
    uint32_t clear, set;
};

/* Huge pages are mapped and changed as a whole: the part must be all that is mapped there. */
static bool covers_unit(const struct memplug_space *space, const struct mpl_part *part)
{
    for (uint64_t page = 0; page < space->unit_pages; page++)
        if ((page < part->first || page >= part->first + part->nr) &&
            (attr_of(space, part->unit, page) & MPL_ATTR_MAPPED) != 0)
            return false;
    return true;
}

static int change_part(struct memplug_space *space, const struct mpl_part *part, void *argument)
{
    const struct change *change = argument;
    struct mpl_part place = *part;
    int result;

    if ((mpl_unit_at(space, part->unit)->flags & MPL_UNIT_HUGE) != 0) {
        if (!covers_unit(space, part))
            return -EINVAL;
        place.first = 0;
        place.nr = space->unit_pages;
    }
    result = change->act(space, mpl_unit_va(space, part->unit) + place.first * space->page_bytes,
                         place.nr * space->page_bytes, change->argument);
    if (result == 0)
        mpl_attrs_set(space, part, change->clear, change->set);
    return result;
}

static int act_protect(const struct memplug_space *space, void *va, uint64_t size_bytes,
                       int protection)
{
    (void)space;
    return mpl_sys_mprotect(va, size_bytes, protection) != 0 ? -errno : 0;
}

static int act_lock(const struct memplug_space *space, void *va, uint64_t size_bytes, int lock)
{
    (void)space;
    return syscall(lock ? SYS_mlock : SYS_munlock, va, size_bytes) != 0 ? -errno : 0;
}

static int act_advise(const struct memplug_space *space, void *va, uint64_t size_bytes, int advice)
{
    (void)space;
    return mpl_sys_madvise(va, size_bytes, advice) != 0 ? -errno : 0;
}

static int act_name(const struct memplug_space *space, void *va, uint64_t size_bytes, int bits)
{
    return set_name(space, va, size_bytes, (uint32_t)bits);
}

static int each(struct memplug_space *space, void *address, uint64_t size_bytes,
                struct change *change)
{
    int saved = errno;
    int result = mpl_space_each(space, address, size_bytes, change_part, change);

    errno = saved;
    return result;
}

int memplug_protect(struct memplug_space *space, void *address, uint64_t size_bytes,
                    int protection)
{
    struct change change = {
        .act = act_protect,
        .argument = protection,
        .clear = MPL_ATTR_PROTECTION,
        .set = (uint32_t)protection,
    };

    if ((protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) != 0)
        return -EINVAL;
    return each(space, address, size_bytes, &change);
}

int memplug_lock(struct memplug_space *space, void *address, uint64_t size_bytes, bool lock)
{
    struct change change = {
        .act = act_lock,
        .argument = lock,
        .clear = MPL_ATTR_LOCKED,
        .set = lock ? MPL_ATTR_LOCKED : 0,
    };

    return each(space, address, size_bytes, &change);
}

void mpl_attrs_of_advice(int advice, uint32_t *clear, uint32_t *set)
{
    static const struct {
        int advice;
        uint32_t clear, set;
    } rows[] = {
        {MADV_DONTDUMP, 0, MPL_ATTR_NO_DUMP},
        {MADV_DODUMP, MPL_ATTR_NO_DUMP, 0},
        {MADV_HUGEPAGE, HUGE_ADVICE, MPL_ATTR_HUGEPAGE},
        {MADV_NOHUGEPAGE, HUGE_ADVICE, MPL_ATTR_NO_HUGEPAGE},
        {MADV_SEQUENTIAL, ACCESS_ADVICE, MPL_ATTR_SEQUENTIAL},
        {MADV_RANDOM, ACCESS_ADVICE, MPL_ATTR_RANDOM},
        {MADV_NORMAL, ACCESS_ADVICE, 0},
    };

    *clear = *set = 0;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].advice == advice) {
            *clear = rows[i].clear;
            *set = rows[i].set;
        }
}

int memplug_advise(struct memplug_space *space, void *address, uint64_t size_bytes, int advice)
{
    struct change change = {.act = act_advise, .argument = advice};

    switch (advice) {
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
        return memplug_discard(space, address, size_bytes);
    case MADV_DOFORK:
        return -EINVAL;
    default:
        mpl_attrs_of_advice(advice, &change.clear, &change.set);
        return each(space, address, size_bytes, &change);
    }
}

int memplug_name(struct memplug_space *space, void *address, uint64_t size_bytes,
                 const char *name)
{
    struct change change = {.act = act_name, .clear = (uint32_t)0xff << MPL_ATTR_NAME_SHIFT};
    int result = mpl_attrs_name(space, name, &change.set);

    change.argument = (int)change.set;
    return result != 0 ? result : each(space, address, size_bytes, &change);
}
