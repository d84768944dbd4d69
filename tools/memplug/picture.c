/* SPDX-License-Identifier: MIT */
/* One cell a block: '.' offline, a digit for how full (in tenths) online, '>' leaving. */
#include "demo.h"

#include <stdio.h>
#include <unistd.h>

static char cell(const struct memplug_block_info *info)
{
    uint64_t nr_used = info->nr_managed_pages - info->nr_free_pages;

    if (info->state == MEMPLUG_BLOCK_OFFLINE)
        return '.';
    if (info->state != MEMPLUG_BLOCK_ONLINE)
        return '>';
    if (info->nr_managed_pages == 0 || nr_used == 0)
        return '0';
    return nr_used == info->nr_managed_pages ? '#'
                                             : (char)('0' + nr_used * 10 / info->nr_managed_pages);
}

void demo_draw(void *context, const struct memplug_progress *progress)
{
    const struct demo *demo = context;
    uint64_t nr_blocks = memplug_nr_blocks_max(demo->pool);

    if (demo->options.json || !isatty(STDERR_FILENO))
        return;
    fputs("\r\033[K  [", stderr);
    for (uint64_t id = 0; id < nr_blocks; id++) {
        struct memplug_block_info info;

        if (memplug_block_info(demo->pool, id, &info) == 0)
            fputc(cell(&info), stderr);
    }
    fprintf(stderr, "] %s: %s", progress->operation, progress->step);
    if (progress->nr_done != 0)
        fprintf(stderr, ", %llu MiB moved", (unsigned long long)(progress->nr_done >> 8));
    fflush(stderr);
}

void demo_draw_end(const struct demo *demo)
{
    if (!demo->options.json && isatty(STDERR_FILENO))
        fputc('\n', stderr);
}
