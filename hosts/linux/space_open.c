/* SPDX-License-Identifier: MIT */
/* Open and close a space; and whether it can do what it is for. */
#define _GNU_SOURCE
#include "space.h"

#include "attend.h"
#include "first_write.h"
#include "holders.h"
#include "live.h"
#include "sys.h"

#include <errno.h>
#include <sys/resource.h>

#define OPERATION "space"
#define LEAST_UNITS 64u

/* --- may mappings move? ----------------------------------------------------------------------- */

int memplug_space_movable(const struct memplug_space *space, struct memplug_reason *reason)
{
    const struct mpl_location memfd = {.kind = MEMPLUG_BACKING_MEMFD};
    const char *why, *remedy;
    int result = mpl_live_check(space, &memfd, &why, &remedy);

    return mpl_explain(reason, result, OPERATION, result != 0 ? why : NULL,
                       result != 0 ? remedy : NULL);
}

static void open_fence(struct memplug_space *space, const struct memplug_space_config *config)
{
    space->uffd_device = -1;
    if (config->uffd_device_fd > 0) {
        space->uffd_device = fcntl(config->uffd_device_fd, F_DUPFD_CLOEXEC, 3);
        space->uffd_device = space->uffd_device < 0 ? -1 : mpl_fd_adopt(space->uffd_device);
    }
    space->fence_error = space->uffd_device >= 0
                             ? mpl_fence_open_from(&space->fence, space->uffd_device)
                             : mpl_fence_open(&space->fence);
    if (space->fence_error != 0)
        return;
    space->fence.fd = mpl_fd_adopt(space->fence.fd);
    space->fork.uffd = mpl_fence_descriptor(space->uffd_device, mpl_attend_features);
    if (space->fork.uffd >= 0)
        space->fork.uffd = mpl_fd_adopt(space->fork.uffd);
}

/* Room for the prover, at a multiple of its size. Below all other mappings if it can be: there an
 * old kernel's answer is quick (smaps.h). */
static int reserve_pins_room(struct memplug_space *space)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *room = mpl_sys_mmap((void *)MPL_PINS_EXTENT, MPL_PINS_EXTENT, PROT_NONE,
                              flags | MAP_FIXED_NOREPLACE, -1, 0);
    uint64_t above;

    if (room != (char *)MPL_PINS_EXTENT) {
        if (room != MAP_FAILED)
            mpl_sys_munmap(room, MPL_PINS_EXTENT);
        room = mpl_sys_mmap(NULL, 2 * MPL_PINS_EXTENT, PROT_NONE, flags, -1, 0);
        if (room == MAP_FAILED)
            return -ENOMEM;
        above = (uintptr_t)room & (MPL_PINS_EXTENT - 1);
        mpl_sys_munmap(room + 2 * MPL_PINS_EXTENT - above, above);
        room += MPL_PINS_EXTENT - above;
        mpl_sys_munmap(room - (MPL_PINS_EXTENT - above), MPL_PINS_EXTENT - above);
    }
    space->pins_room = room;
    return 0;
}

/* The self-test pins a page of its own; if it finds no proof to trust, there is none. */
static int open_pins(struct memplug_space *space)
{
    if (reserve_pins_room(space) != 0)
        return -ENOMEM;
    if (mpl_pins_open(&space->pins, space->pins_room) != 0)
        return 0;
    space->pins.pagemap = mpl_fd_adopt(space->pins.pagemap);
    if (space->pins_wanted == MEMPLUG_PINS_PROVED)
        mpl_pins_selftest(&space->pins, space->fence_error == 0 ? &space->fence : NULL);
    return 0;
}

/* --- open ------------------------------------------------------------------------------------- */

static bool limited_addresses(void)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

static int open_window(struct memplug_space *space, uint64_t window_bytes)
{
    uint64_t nr_units = window_bytes / space->unit_bytes;
    int result = mpl_window_open(&space->window, &space->host->spare, window_bytes,
                                 MPL_PINS_EXTENT);

    if (result != 0)
        return result;
    result = mpl_area_open(&space->area, space->host, space->unit_pages, nr_units,
                           sizeof(struct mpl_unit));
    if (result != 0)
        mpl_window_close(&space->window);
    return result;
}

/* As large as asked for, or the largest that there is. Under RLIMIT_AS the program keeps half. */
static int open_addresses(struct memplug_space *space, uint64_t wanted_bytes)
{
    uint64_t window_bytes = wanted_bytes;
    int result = -ENOMEM;

    if (window_bytes == 0)
        window_bytes = space->host->direct.size_bytes / (limited_addresses() ? 2 : 1);
    while (result != 0 && window_bytes / space->unit_bytes >= LEAST_UNITS) {
        result = open_window(space, window_bytes);
        if (wanted_bytes != 0)
            break;
        window_bytes /= 2;
    }
    if (result != 0)
        return result;
    return mpl_table_open(&space->owners, space->host->direct.size_bytes / space->unit_bytes *
                                              sizeof(uint32_t));
}

static int check_config(const struct memplug_space *space,
                        const struct memplug_space_config *config, const char **why)
{
    uint64_t unit = space->unit_bytes;

    *why = "a unit is 4 KiB, 64 KiB or 2 MiB, and at least a page";
    if ((unit != 4096 && unit != 65536 && unit != MPL_PINS_EXTENT) || unit < space->page_bytes)
        return -EINVAL;
    *why = "the window is not whole units, or too small";
    if (config->window_bytes % unit != 0 ||
        (config->window_bytes != 0 && config->window_bytes / unit < LEAST_UNITS) ||
        config->window_bytes / unit > UINT32_MAX)
        return -EINVAL;
    *why = "pins";
    return config->pins != MEMPLUG_PINS_PROVED && config->pins != MEMPLUG_PINS_TRUSTED ? -EINVAL
                                                                                       : 0;
}

static int register_mover(struct memplug_space *space)
{
    const struct memplug_mover mover = {
        .name = "mapping",
        .move = mpl_live_move,
        .ask = mpl_live_ask,
        .look = mpl_live_look,
        .describe = mpl_live_describe,
        .context = space,
    };
    int number = memplug_register_mover(space->pool, &mover);

    if (number < 0)
        return number;
    space->mover = (uint8_t)number;
    return 0;
}

static void close_all(struct memplug_space *space)
{
    struct memplug_linux *host = space->host;

    mpl_first_close(space);
    mpl_pins_close(&space->pins);
    mpl_fence_close(&space->fence);
    if (space->uffd_device >= 0)
        mpl_sys_close(space->uffd_device);
    if (space->fork.uffd >= 0)
        mpl_sys_close(space->fork.uffd);
    if (space->fork.nr_max > 0)
        mpl_own_unmap(host, space->fork.pieces,
                      space->fork.nr_max * sizeof(*space->fork.pieces));
    if (space->pins_room)
        mpl_spare_munmap(&host->spare, space->pins_room, MPL_PINS_EXTENT);
    mpl_table_close(&space->owners, host);
    if (space->area.host)
        mpl_area_close(&space->area);
    mpl_window_close(&space->window);
    if (space->live)
        mpl_own_unmap(host, space->live, sizeof(*space->live));
    if (space->holders)
        mpl_own_unmap(host, space->holders, 2 * sizeof(*space->holders));
    mpl_own_unmap(host, space, sizeof(*space));
}

static int open_all(struct memplug_space *space, const struct memplug_space_config *config,
                    const char **why)
{
    void *live = NULL, *holders = NULL;
    int result = check_config(space, config, why);

    if (result != 0)
        return result;
    *why = "no memory for the space itself";
    result = mpl_own_map(space->host, sizeof(*space->live), &live);
    space->live = live;
    if (result == 0)
        result = mpl_own_map(space->host, 2 * sizeof(*space->holders), &holders);
    space->holders = holders;
    space->fork.holders = space->holders ? space->holders + 1 : NULL;
    if (result != 0)
        return result;
    *why = "no such window fits into the address space or RLIMIT_AS";
    result = open_addresses(space, config->window_bytes);
    if (result != 0)
        return result;
    open_fence(space, config);
    *why = "no addresses for the pin proof";
    result = open_pins(space);
    if (result != 0)
        return result;
    *why = "the pool has 15 movers already";
    return register_mover(space);
}

int memplug_space_open(struct memplug_linux *host, struct memplug *pool,
                       const struct memplug_space_config *config, struct memplug_space **opened,
                       struct memplug_reason *reason)
{
    static const struct memplug_space_config defaults = {.node = MEMPLUG_ANY_NODE};
    struct memplug_space *space;
    void *memory = NULL;
    const char *why;
    int saved = errno;
    int result = mpl_own_map(host, sizeof(*space), &memory);

    if (result != 0)
        return mpl_explain(reason, result, OPERATION, "no memory for the space itself", NULL);
    config = config ? config : &defaults;
    space = memory;
    space->host = host;
    space->pool = pool;
    space->page_bytes = host->page_bytes;
    space->unit_bytes = config->unit_bytes ? config->unit_bytes : MPL_PINS_EXTENT;
    space->unit_pages = space->unit_bytes / space->page_bytes;
    space->pins_wanted = config->pins;
    space->node = config->node;
    space->no_fence = config->unsafe_no_fence;
    space->fork.parent = (int)syscall(SYS_getpid);
    space->fence.fd = space->pins.pagemap = space->uffd_device = space->fork.uffd = -1;
    result = open_all(space, config, &why);
    if (result != 0) {
        close_all(space);
        errno = saved;
        return mpl_explain(reason, result, OPERATION, why, NULL);
    }
    *opened = space;
    memplug_space_movable(space, reason);
    if (reason)
        reason->error = 0;
    errno = saved;
    return 0;
}

int memplug_space_close(struct memplug_space *space, struct memplug_reason *reason)
{
    if (atomic_load_explicit(&space->counters.nr_units, memory_order_relaxed) != 0)
        return mpl_explain(reason, -EBUSY, OPERATION, "something is mapped", "unmap it");
    close_all(space);
    return mpl_explain(reason, 0, OPERATION, NULL, NULL);
}

/* --- descriptors ------------------------------------------------------------------------------ */

static void take_lower(int fd, int from, int *lowest)
{
    if (fd >= from && (*lowest < 0 || fd < *lowest))
        *lowest = fd;
}

int memplug_space_descriptor(const struct memplug_space *space, int from)
{
    const struct memplug_linux *host = space->host;
    bool huge = false; /* blocks of huge pages have descriptors of their own */
    int lowest = -1;

    take_lower(space->fence.fd, from, &lowest);
    take_lower(space->fork.uffd, from, &lowest);
    take_lower(space->pins.pagemap, from, &lowest);
    take_lower(space->uffd_device, from, &lowest);
    for (unsigned i = 0; i < MPL_NR_BACKINGS; i++)
        if (host->backings[i].in_use) {
            take_lower(host->backings[i].fd, from, &lowest);
            huge = huge || host->backings[i].kind == MEMPLUG_BACKING_HUGETLB;
        }
    for (uint64_t i = 0; i < host->nr_blocks && huge; i++)
        if (atomic_load_explicit(&host->blocks[i].state, memory_order_acquire) != 0)
            take_lower(atomic_load_explicit(&host->blocks[i].fd, memory_order_relaxed), from,
                       &lowest);
    return lowest;
}
