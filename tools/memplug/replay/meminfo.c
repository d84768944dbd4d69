/* SPDX-License-Identifier: MIT */
/* /proc/meminfo: what is this pool's is said as it is; what is a kernel's own use is marked. */
#include "hog.h"
#include "pseudo.h"

#include <inttypes.h>
#include <string.h>

#define HUGE_KB 2048u
#define VALUE_ENDS 24 /* column */

static void line(struct buffer *text, const char *name, uint64_t kb)
{
    buffer_print(text, "%s%*" PRIu64 " kB\n", name, VALUE_ENDS - (int)strlen(name), kb);
}

static void foreign_line(struct buffer *text, const char *name, uint64_t kb)
{
    buffer_print(text, "%c", PSEUDO_FOREIGN_MARK);
    line(text, name, kb);
}

static void huge_lines(const struct machine *machine, struct buffer *text)
{
    struct memplug_huge_info info = {0};

    if (memplug_huge_info(machine->pool, MEMPLUG_HUGE_PMD, MEMPLUG_ANY_NODE, &info))
        return;
    buffer_print(text, "HugePages_Total:%8" PRIu64 "\n", info.nr_huge);
    buffer_print(text, "HugePages_Free: %8" PRIu64 "\n", info.nr_free);
    buffer_print(text, "HugePages_Rsvd: %8" PRIu64 "\n", info.nr_reserved);
    buffer_print(text, "HugePages_Surp: %8" PRIu64 "\n", info.nr_surplus);
    line(text, "Hugepagesize:", HUGE_KB);
    line(text, "Hugetlb:", info.nr_huge * HUGE_KB);
}

void meminfo_read(const struct machine *machine, struct buffer *text)
{
    static const char *const unknown[] = {
        "Buffers:",      "Cached:",        "SwapCached:",   "Active:",       "Inactive:",
        "Active(anon):", "Inactive(anon):", "Active(file):", "Inactive(file):", "Unevictable:",
        "Mlocked:",      "SwapTotal:",     "SwapFree:",     "Zswap:",        "Zswapped:",
        "Dirty:",        "Writeback:",     "AnonPages:",    "Mapped:",       "Shmem:",
        "KReclaimable:", "Slab:",          "SReclaimable:", "SUnreclaim:",   "KernelStack:",
        "PageTables:",   "SecPageTables:", "NFS_Unstable:", "Bounce:",       "WritebackTmp:",
        "CommitLimit:",  "Committed_AS:",  "VmallocTotal:", "VmallocUsed:",  "VmallocChunk:",
        "Percpu:",
    };
    struct memplug_stat stat;

    memplug_stat(machine->pool, &stat);
    foreign_line(text, "MemTotal:", 4 * stat.nr_managed_pages);
    foreign_line(text, "MemFree:", 4 * stat.nr_free_pages);
    foreign_line(text, "MemAvailable:", 4 * stat.nr_free_pages);
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        foreign_line(text, unknown[i], 0);
    line(text, "HardwareCorrupted:", 4 * stat.nr_poisoned_pages);
    line(text, "AnonHugePages:", hogs_thp_bytes(machine) >> 10);
    line(text, "ShmemHugePages:", 0);
    line(text, "ShmemPmdMapped:", 0);
    line(text, "FileHugePages:", 0);
    line(text, "FilePmdMapped:", 0);
    line(text, "Unaccepted:", 0);
    huge_lines(machine, text);
    foreign_line(text, "DirectMap4k:", 0);
    foreign_line(text, "DirectMap2M:", 0);
    foreign_line(text, "DirectMap1G:", 0);
}

/* --- of a node -------------------------------------------------------------------------------- */

struct node_pages {
    uint64_t nr_managed, nr_free;
};

static struct node_pages node_pages(const struct machine *machine, int node)
{
    struct node_pages pages = {0};

    for (unsigned zone = 0; zone < MEMPLUG_NR_ZONES; zone++) {
        struct memplug_zone_info info;

        if (memplug_zone_info(machine->pool, node, (enum memplug_zone)zone, &info))
            continue;
        pages.nr_managed += info.nr_managed_pages;
        pages.nr_free += info.nr_free_pages;
    }
    return pages;
}

/* Of a node that nobody uses everything is known. */
static void node_line(struct buffer *text, int node, bool foreign, const char *name, uint64_t kb)
{
    if (foreign)
        buffer_print(text, "%c", PSEUDO_FOREIGN_MARK);
    buffer_print(text, "Node %d ", node);
    line(text, name, kb);
}

void node_meminfo_read(const struct machine *machine, int node, struct buffer *text)
{
    static const char *const used[] = {
        "SwapCached:",    "Active:",         "Inactive:",      "Active(anon):",
        "Inactive(anon):", "Active(file):",  "Inactive(file):", "Unevictable:",
        "Mlocked:",       "Dirty:",          "Writeback:",     "FilePages:",
        "Mapped:",        "AnonPages:",      "Shmem:",         "KernelStack:",
        "PageTables:",    "SecPageTables:",  "NFS_Unstable:",  "Bounce:",
        "WritebackTmp:",  "KReclaimable:",   "Slab:",          "SReclaimable:",
        "SUnreclaim:",    "AnonHugePages:",  "ShmemHugePages:", "ShmemPmdMapped:",
        "FileHugePages:", "FilePmdMapped:",  "Unaccepted:",
    };
    struct node_pages pages = node_pages(machine, node);
    struct memplug_huge_info huge = {0};
    bool foreign = pages.nr_managed != pages.nr_free;

    node_line(text, node, foreign, "MemTotal:", 4 * pages.nr_managed);
    node_line(text, node, foreign, "MemFree:", 4 * pages.nr_free);
    node_line(text, node, foreign, "MemUsed:", 4 * (pages.nr_managed - pages.nr_free));
    for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
        node_line(text, node, foreign, used[i], 0);
    if (memplug_huge_info(machine->pool, MEMPLUG_HUGE_PMD, node, &huge))
        huge = (struct memplug_huge_info){0};
    buffer_print(text, "Node %d HugePages_Total: %5" PRIu64 "\n", node, huge.nr_huge);
    buffer_print(text, "Node %d HugePages_Free:  %5" PRIu64 "\n", node, huge.nr_free);
    buffer_print(text, "Node %d HugePages_Surp:  %5" PRIu64 "\n", node, huge.nr_surplus);
}
