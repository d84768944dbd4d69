/* SPDX-License-Identifier: MIT */
/*
 * Mappings that a program holds. A unit gets its frame with its first page and loses it with its
 * last; between the two it keeps it, also when all of it was discarded: then the frame is a hole,
 * which costs nothing but a place in the pool, and the next touch needs nobody's help.
 */
#define _GNU_SOURCE
#include "space.h"

#include "attrs.h"
#include "first_write.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

#define OPERATION "map"

/* --- owners ----------------------------------------------------------------------------------- */

static _Atomic uint32_t *owner_of(const struct memplug_space *space, uint64_t pfn)
{
    return (_Atomic uint32_t *)(void *)space->owners.base + pfn / space->unit_pages;
}

int mpl_owners_grow(struct memplug_space *space, uint64_t pfn)
{
    int result;

    mpl_lock_enter(&space->area.lock);
    result = mpl_table_grow(&space->owners, space->host,
                            (pfn / space->unit_pages + 1) * sizeof(uint32_t));
    mpl_lock_leave(&space->area.lock);
    return result;
}

void mpl_owners_set(struct memplug_space *space, uint64_t pfn, uint64_t unit_and_1)
{
    atomic_store_explicit(owner_of(space, pfn), (uint32_t)unit_and_1, memory_order_relaxed);
}

uint64_t mpl_owners_get(const struct memplug_space *space, uint64_t pfn)
{
    return atomic_load_explicit(owner_of(space, pfn), memory_order_relaxed);
}

/* --- frames ----------------------------------------------------------------------------------- */

int mpl_space_locate(const struct memplug_space *space, uint64_t pfn,
                     struct mpl_location *location, const char **why)
{
    uint64_t address = pfn * space->page_bytes;
    const struct mpl_linux_block *block = &space->host->blocks[address / space->host->block_bytes];
    int result = mpl_backing_locate(space->host, address, location);

    *why = "its block is not attached";
    if (result != 0)
        return result;
    *why = "the program has closed a descriptor of the library";
    if (!mpl_fd_is(location->fd, block->backing->dev,
                   location->kind == MEMPLUG_BACKING_HUGETLB ? block->ino : block->backing->ino))
        return -ENODEV;
    *why = "the file was truncated";
    return mpl_backing_intact(space->host, address);
}

/* Only a memfd of small pages can have a hole: elsewhere the next touch might find no memory. Of
 * a direct map that mlockall() has locked nothing can be given back: zeros. */
void mpl_space_scrub(const struct memplug_space *space, uint64_t pfn, uint64_t nr_pages,
                     const struct mpl_location *location)
{
    char *start = mpl_frame_va(space, pfn);
    uint64_t size_bytes = nr_pages * space->page_bytes;

    if (location->kind == MEMPLUG_BACKING_MEMFD &&
        mpl_sys_madvise(start, size_bytes, MADV_REMOVE) == 0)
        return;
    memset(start, 0, size_bytes);
}

static int fit_frame(struct memplug_space *space, uint64_t pfn, struct mpl_location *location,
                     const char **why)
{
    int result = mpl_space_locate(space, pfn, location, why);

    if (result != 0)
        return result;
    *why = "units smaller than the pages of the memory";
    if (location->align_bytes > space->unit_bytes ||
        (location->file_offset & (location->align_bytes - 1)) != 0)
        return -EINVAL;
    *why = "its block of huge pages was sealed and could not be renewed";
    if ((location->flags & MPL_LOCATION_SPENT) != 0)
        return -ENOMEM;
    *why = "no memory for the table of frames";
    return mpl_owners_grow(space, pfn);
}

/* A frame for a unit that has none. It stays pinned until the caller has mapped it. */
static int take_frame(struct memplug_space *space, uint64_t unit, const char **why)
{
    struct mpl_unit *record = mpl_unit_at(space, unit);
    struct memplug_alloc request = {
        .nr_pages = (uint32_t)space->unit_pages,
        .node = space->node,
        .mover = space->mover,
        .pinned = true,
        .cookie = mpl_unit_cookie(record, unit),
    };
    struct mpl_location location;
    memplug_pfn_t pfn;
    int result = memplug_alloc(space->pool, &request, &pfn);

    *why = "the pool has no free frames of this size";
    if (result != 0)
        return result;
    result = fit_frame(space, pfn.nr, &location, why);
    if (result != 0) {
        memplug_unpin(space->pool, pfn);
        memplug_free(space->pool, pfn, request.nr_pages);
        return result;
    }
    mpl_space_scrub(space, pfn.nr, space->unit_pages, &location);
    record->pfn = pfn.nr;
    record->since_ns = mpl_now_ns();
    record->held_ns = 0;
    record->flags = location.align_bytes > space->page_bytes ? MPL_UNIT_HUGE : 0;
    mpl_owners_set(space, pfn.nr, unit + 1);
    mpl_count(&space->counters.nr_units, 1);
    return 0;
}

/* The frame of a unit without mappings goes back to the pool; its pages were scrubbed. */
static void drop_frame(struct memplug_space *space, uint64_t unit)
{
    struct mpl_unit *record = mpl_unit_at(space, unit);
    memplug_pfn_t pfn = {.nr = record->pfn};

    mpl_owners_set(space, pfn.nr, 0);
    record->pfn = 0;
    record->generation++;
    mpl_count(&space->counters.nr_units, (uint64_t)-1);
    memplug_free(space->pool, pfn, (uint32_t)space->unit_pages);
}

/* --- parts ------------------------------------------------------------------------------------ */

static char *part_va(const struct memplug_space *space, const struct mpl_part *part)
{
    return mpl_unit_va(space, part->unit) + part->first * space->page_bytes;
}

static uint64_t part_offset(const struct memplug_space *space, const struct mpl_part *part)
{
    return part->unit * space->unit_bytes + part->first * space->page_bytes;
}

/* The part of the first unit of a row of pages; the row becomes the rest. */
static struct mpl_part cut_part(const struct memplug_space *space, uint64_t *page, uint64_t *nr)
{
    struct mpl_part part = {
        .unit = *page / space->unit_pages,
        .first = *page % space->unit_pages,
    };

    part.nr = space->unit_pages - part.first;
    part.nr = *nr < part.nr ? *nr : part.nr;
    *page += part.nr;
    *nr -= part.nr;
    return part;
}

static bool part_mapped(const struct memplug_space *space, const struct mpl_part *part)
{
    const _Atomic uint32_t *attrs = mpl_unit_attrs(space, part->unit) + part->first;

    for (uint64_t i = 0; i < part->nr; i++)
        if ((atomic_load_explicit(&attrs[i], memory_order_relaxed) & MPL_ATTR_MAPPED) == 0)
            return false;
    return true;
}

static bool row_mapped(struct memplug_space *space, uint64_t page, uint64_t nr)
{
    mpl_lock_enter(&space->area.lock);
    uint64_t nr_usable = space->area.nr_usable * space->unit_pages;
    mpl_lock_leave(&space->area.lock);
    if (page >= nr_usable || nr > nr_usable - page)
        return false;
    while (nr > 0) {
        struct mpl_part part = cut_part(space, &page, &nr);

        if (!part_mapped(space, &part))
            return false;
    }
    return true;
}

int mpl_space_each(struct memplug_space *space, void *address, uint64_t size_bytes,
                   mpl_part_act *act, void *argument)
{
    uint64_t offset = (uint64_t)((char *)address - space->window.base), page, nr;
    int result = 0;

    if (!memplug_space_has(space, address) || offset % space->page_bytes != 0 ||
        size_bytes == 0 || size_bytes > space->window.size_bytes - offset)
        return -EINVAL;
    page = offset / space->page_bytes;
    nr = (size_bytes + space->page_bytes - 1) / space->page_bytes;
    if (!row_mapped(space, page, nr))
        return -EINVAL;
    while (nr > 0 && result == 0) {
        struct mpl_part part = cut_part(space, &page, &nr);
        struct mpl_unit *record = mpl_unit_at(space, part.unit);

        mpl_lock_enter(&record->lock);
        result = part_mapped(space, &part) ? act(space, &part, argument) : -EINVAL;
        mpl_lock_leave(&record->lock);
    }
    return result;
}

/* --- map -------------------------------------------------------------------------------------- */

/* A first mapping, with what it takes to unmap it again in hand. */
static int map_first(struct memplug_space *space, const struct mpl_part *place, uint32_t attr,
                     const struct mpl_location *location)
{
    char *va = part_va(space, place);
    uint64_t size_bytes = place->nr * space->page_bytes;
    void *mapped = MAP_FAILED;

    if (!mpl_spare_fill(&space->host->spare))
        return -ENOMEM;
    mapped = mpl_sys_mmap(va, size_bytes, (int)(attr & MPL_ATTR_PROTECTION),
                          MAP_SHARED | MAP_FIXED, location->fd,
                          location->file_offset + place->first * space->page_bytes);
    if (mapped == MAP_FAILED)
        return errno == ENOMEM || errno == EAGAIN ? -errno : -ENODEV;
    /* A name that the kernel cannot give, or an advice it does not know, is no reason to fail;
     * to be left to a forked child is one. */
    mpl_attrs_apply(space, va, size_bytes, attr & ~MPL_ATTR_MAPPED, false);
    if (mpl_sys_madvise(va, size_bytes, MADV_DONTFORK) == 0 && mpl_spare_fill(&space->host->spare))
        return 0;
    mpl_window_unmap(&space->window, part_offset(space, place), size_bytes);
    return -ENOMEM;
}

/* A unit of huge pages is mapped as a whole by the first, and gets more rights by the others. */
static int map_huge(struct memplug_space *space, uint64_t unit, uint32_t attr,
                    const struct mpl_location *location)
{
    struct mpl_part place = {.unit = unit, .nr = space->unit_pages};
    struct mpl_piece piece = {0};

    if (!mpl_piece_next(space, unit, MPL_UNIT_HUGE, &piece))
        return map_first(space, &place, attr, location);
    attr |= piece.attr;
    return mpl_sys_mprotect(mpl_unit_va(space, unit), space->unit_bytes,
                            (int)(attr & MPL_ATTR_PROTECTION)) != 0 ? -ENOMEM : 0;
}

struct map_job {
    uint32_t attr;
    const char *why;
};

static int map_frame(struct memplug_space *space, const struct mpl_part *part,
                     struct map_job *job)
{
    const struct mpl_unit *record = mpl_unit_at(space, part->unit);
    struct mpl_location location;
    int result = mpl_space_locate(space, record->pfn, &location, &job->why);

    if (result != 0)
        return result;
    job->why = "the kernel has no mapping left, or RLIMIT_MEMLOCK forbids one (mlockall)";
    if ((record->flags & MPL_UNIT_HUGE) != 0)
        return map_huge(space, part->unit, job->attr, &location);
    return map_first(space, part, job->attr, &location);
}

/* The last page of a unit takes its frame along. */
static void give_pages(struct memplug_space *space, const struct mpl_part *part)
{
    struct mpl_unit *record = mpl_unit_at(space, part->unit);
    struct mpl_location location;
    const char *why;

    if (mpl_area_give(&space->area, part->unit * space->unit_pages + part->first, part->nr) != 0 ||
        record->pfn == 0)
        return;
    if ((record->flags & MPL_UNIT_HUGE) != 0) {
        if (mpl_space_locate(space, record->pfn, &location, &why) != -ENXIO)
            memset(mpl_frame_va(space, record->pfn), 0, space->unit_bytes);
        mpl_window_unmap(&space->window, part->unit * space->unit_bytes, space->unit_bytes);
    }
    drop_frame(space, part->unit);
}

static int map_part(struct memplug_space *space, const struct mpl_part *part, struct map_job *job)
{
    struct mpl_unit *record = mpl_unit_at(space, part->unit);
    bool fresh;
    int result = 0;

    mpl_lock_enter(&record->lock);
    fresh = record->pfn == 0;
    if (fresh)
        result = take_frame(space, part->unit, &job->why);
    if (result == 0) {
        memplug_pfn_t pfn = {.nr = record->pfn};

        result = map_frame(space, part, job);
        if (result == 0)
            mpl_attrs_set(space, part, UINT32_MAX, job->attr);
        if (fresh)
            memplug_unpin(space->pool, pfn);
    }
    if (result == 0)
        mpl_count(&space->counters.mapped_pages, part->nr);
    else
        give_pages(space, part);
    mpl_lock_leave(&record->lock);
    return result;
}

/* Addresses that were taken for a mapping that failed before it came to them. */
static void give_row(struct memplug_space *space, uint64_t page, uint64_t nr)
{
    while (nr > 0) {
        struct mpl_part part = cut_part(space, &page, &nr);
        struct mpl_unit *record = mpl_unit_at(space, part.unit);

        mpl_lock_enter(&record->lock);
        give_pages(space, &part);
        mpl_lock_leave(&record->lock);
    }
}

static int map_row(struct memplug_space *space, uint64_t nr_pages, struct map_job *job,
                   uint64_t *first_page)
{
    uint64_t page, nr = nr_pages;
    int result = mpl_area_take(&space->area, nr_pages, first_page);

    job->why = "the space has no addresses left";
    if (result != 0)
        return result;
    page = *first_page;
    while (nr > 0) {
        struct mpl_part part = cut_part(space, &page, &nr);

        result = map_part(space, &part, job);
        if (result == 0)
            continue;
        uint64_t done = nr_pages - nr - part.nr;
        give_row(space, page, nr);
        if (done > 0)
            memplug_unmap(space, space->window.base + *first_page * space->page_bytes,
                          done * space->page_bytes);
        return result;
    }
    return 0;
}

static int attr_of_options(struct memplug_space *space, const struct memplug_mapping *opts,
                           uint32_t *attr)
{
    int protection = opts->protection != 0 ? opts->protection : PROT_READ | PROT_WRITE;
    uint32_t name;
    int result;

    protection = opts->no_access ? PROT_NONE : protection;
    if ((protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) != 0)
        return -EINVAL;
    result = mpl_attrs_name(space, opts->name, &name);
    *attr = (uint32_t)protection | MPL_ATTR_MAPPED | name |
            (opts->no_dump ? MPL_ATTR_NO_DUMP : 0);
    return result;
}

static int map_populated(struct memplug_space *space, uint64_t nr_pages, struct map_job *job,
                         bool populate, void **address)
{
    uint64_t first_page, size_bytes = nr_pages * space->page_bytes;
    int result = map_row(space, nr_pages, job, &first_page);

    if (result != 0)
        return result;
    void *start = space->window.base + first_page * space->page_bytes;
    if (populate && (job->attr & PROT_WRITE) != 0 &&
        mpl_sys_madvise(start, size_bytes, MADV_POPULATE_WRITE) != 0 && errno != EINVAL) {
        job->why = "the machine has no memory to populate it";
        memplug_unmap(space, start, size_bytes);
        return -ENOMEM;
    }
    *address = start;
    return 0;
}

int memplug_map(struct memplug_space *space, uint64_t size_bytes,
                const struct memplug_mapping *opts, void **address, struct memplug_reason *reason)
{
    static const struct memplug_mapping defaults;
    uint64_t nr_pages = (size_bytes + space->page_bytes - 1) / space->page_bytes;
    struct map_job job = {.why = "size, protection or name"};
    int saved = errno;
    int result;

    opts = opts ? opts : &defaults;
    result = attr_of_options(space, opts, &job.attr);
    if (size_bytes == 0 || size_bytes > space->window.size_bytes)
        result = size_bytes == 0 ? -EINVAL : -ENOMEM;
    if (result == 0)
        result = map_populated(space, nr_pages, &job, opts->populate, address);
    errno = saved;
    if (result != 0) {
        mpl_explain(reason, result, OPERATION, job.why,
                    result == -ENOMEM ? "plug memory in, unmap some, or raise vm.max_map_count"
                                      : NULL);
        if (reason)
            reason->size_bytes = size_bytes;
        return result;
    }
    return mpl_explain(reason, 0, OPERATION, NULL, NULL);
}

/* --- unmap and discard ------------------------------------------------------------------------ */

/* A closed descriptor is no obstacle: memory is given back through the direct map. */
static void scrub_part(struct memplug_space *space, const struct mpl_part *part)
{
    uint64_t pfn = mpl_unit_at(space, part->unit)->pfn + part->first;
    struct mpl_location location;
    const char *why;

    mpl_first_settle_part(space, part);
    if (mpl_space_locate(space, pfn, &location, &why) == -ENXIO)
        return; /* the file was truncated: there is nothing, and touching it is SIGBUS */
    mpl_space_scrub(space, pfn, part->nr, &location);
}

/* Memory first: should the kernel refuse to drop the mapping, it is empty. */
static int unmap_part(struct memplug_space *space, const struct mpl_part *part, void *argument)
{
    (void)argument;
    scrub_part(space, part);
    if ((mpl_unit_at(space, part->unit)->flags & MPL_UNIT_HUGE) == 0)
        mpl_window_unmap(&space->window, part_offset(space, part), part->nr * space->page_bytes);
    mpl_attrs_set(space, part, UINT32_MAX, 0);
    mpl_count(&space->counters.mapped_pages, -part->nr);
    give_pages(space, part);
    return 0;
}

int memplug_unmap(struct memplug_space *space, void *address, uint64_t size_bytes)
{
    int saved = errno;
    int result = mpl_space_each(space, address, size_bytes, unmap_part, NULL);

    errno = saved;
    return result;
}

static int discard_part(struct memplug_space *space, const struct mpl_part *part, void *argument)
{
    (void)argument;
    scrub_part(space, part);
    return 0;
}

int memplug_discard(struct memplug_space *space, void *address, uint64_t size_bytes)
{
    int saved = errno;
    int result = mpl_space_each(space, address, size_bytes, discard_part, NULL);

    errno = saved;
    return result;
}

/* --- look on ---------------------------------------------------------------------------------- */

bool memplug_space_has(const struct memplug_space *space, const void *address)
{
    return (uintptr_t)address - (uintptr_t)space->window.base < space->window.size_bytes;
}

static uint64_t counter(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

void memplug_space_stat(const struct memplug_space *space, struct memplug_space_stat *stat)
{
    const struct mpl_space_counters *counters = &space->counters;

    *stat = (struct memplug_space_stat){
        .unit_bytes = space->unit_bytes,
        .nr_units = counter(&counters->nr_units),
        .mapped_bytes = counter(&counters->mapped_pages) * space->page_bytes,
        .nr_moves = counter(&counters->nr_moves),
        .copied_bytes = counter(&counters->copied_bytes),
        .nr_refused_pins = counter(&counters->nr_refused_pins),
        .nr_refused_proof = counter(&counters->nr_refused_proof),
        .nr_refused_vmas = counter(&counters->nr_refused_vmas),
        .nr_refused_other = counter(&counters->nr_refused_other),
        .nr_attributes_lost = counter(&counters->nr_attributes_lost),
        .nr_waiters_woken = counter(&counters->nr_waiters_woken),
        .nr_forks_lazy = counter(&counters->nr_forks_lazy),
        .nr_forks_copied = counter(&counters->nr_forks_copied),
        .nr_first_writes = counter(&counters->nr_first_writes),
        .nr_settled_pages = counter(&counters->nr_settled_pages),
        .nr_children_ended = counter(&counters->nr_children_ended),
        .fork_copied_why = space->fork.copied_why,
    };
    stat->moved_bytes = stat->nr_moves * space->unit_bytes;
    mpl_pause_read(&space->pause, &stat->pause);
    mpl_pause_read(&space->refused, &stat->refused);
}
