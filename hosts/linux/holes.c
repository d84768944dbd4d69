/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "holes.h"

#include "sys.h"

#include <errno.h>

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

/* Pages of the file that exist in a row of pages, swapped ones included. SEEK_HOLE would tell as
 * well, but it walks on to the end of all data: 70 ns a page, 18 ms a GiB (measured). */
static int count_pages(int fd, uint64_t offset, uint64_t nr_pages, uint64_t *nr)
{
    struct {
        uint64_t offset, size_bytes;
    } range = {offset, nr_pages * MPL_HOLES_PAGE};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } counts = {0};

    if (syscall(SYS_cachestat, fd, &range, &counts, 0) != 0)
        return -errno;
    *nr = counts.cached + counts.evicted;
    return 0;
}

static unsigned run_to_hole(int fd, uint64_t offset, unsigned nr_max)
{
    off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);
    uint64_t nr = hole < 0 ? nr_max : ((uint64_t)hole - offset) / MPL_HOLES_PAGE;

    return nr < nr_max ? (unsigned)nr : nr_max;
}

/* How many pages in a row exist from here on; at least one does. */
static unsigned run_of_pages(int fd, uint64_t offset, unsigned nr_max)
{
    uint64_t nr = 1, step = nr_max, found = 0;

    while (nr < nr_max && step > 0) {
        step = step < nr_max - nr ? step : nr_max - nr;
        if (count_pages(fd, offset + nr * MPL_HOLES_PAGE, step, &found) != 0)
            return run_to_hole(fd, offset, nr_max); /* before Linux 6.5 */
        if (found == step)
            nr += step;
        else
            step = found < step / 2 ? found : step / 2;
    }
    return (unsigned)nr;
}

int mpl_holes_read(int fd, uint64_t offset, unsigned nr_pages, uint64_t *bits)
{
    uint64_t end = offset + nr_pages * MPL_HOLES_PAGE, found = 0;

    /* Nearly always all or nothing. Without lseek(), which waits for whoever punches a hole. */
    if (count_pages(fd, offset, nr_pages, &found) == 0 && (found == 0 || found == nr_pages)) {
        for (unsigned page = 0; page < found; page++)
            bits[page / 64] |= (uint64_t)1 << (page % 64);
        return 0;
    }
    for (uint64_t at = offset; at < end;) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        unsigned first, nr;

        if (data < 0)
            return errno == ENXIO ? 0 : -errno;
        if ((uint64_t)data >= end)
            return 0;
        first = (unsigned)(((uint64_t)data - offset) / MPL_HOLES_PAGE);
        nr = run_of_pages(fd, offset + first * MPL_HOLES_PAGE, nr_pages - first);
        for (unsigned page = first; page < first + nr; page++)
            bits[page / 64] |= (uint64_t)1 << (page % 64);
        at = offset + (first + nr) * MPL_HOLES_PAGE;
    }
    return 0;
}

bool mpl_holes_none(int fd, uint64_t offset, unsigned nr_pages)
{
    uint64_t nr = 0;

    return count_pages(fd, offset, nr_pages, &nr) == 0 && nr == nr_pages;
}

bool mpl_holes_all(int fd, uint64_t offset, uint64_t nr_pages)
{
    uint64_t nr = 0;

    return count_pages(fd, offset, nr_pages, &nr) == 0 && nr == 0;
}
