/* SPDX-License-Identifier: MIT */
#include "smaps.h"

#include "lock.h"
#include "proc.h"

#include <errno.h>
#include <string.h>

#define PATIENCE_NS 100000000u

struct record {
    uintptr_t va;
    bool found, complete;
    uint64_t resident_kib, huge_kib, hugetlb_kib;
};

/* "7f5c00000000-7f5c00200000 r--s 00000000 00:01 5    /memfd:unit (deleted)"; other lines begin
 * with a capital letter. */
static bool begins_mapping(const char *line, uintptr_t *start, uintptr_t *end)
{
    *start = mpl_proc_hex(&line);
    if (*line++ != '-')
        return false;
    *end = mpl_proc_hex(&line);
    return *line == ' ';
}

/* "Rss:                2048 kB" */
static bool is_field(const char *line, const char *name, uint64_t *kib)
{
    const char *at = line + strlen(name);

    if (strncmp(line, name, strlen(name)) != 0)
        return false;
    while (*at == ' ')
        at++;
    *kib = mpl_proc_value(&at);
    return true;
}

static bool take_line(void *context, const char *line)
{
    struct record *record = context;
    uintptr_t start, end;

    if (begins_mapping(line, &start, &end)) {
        if (record->found)
            return false;
        record->found = start <= record->va && record->va < end;
        return start <= record->va;
    }
    if (!record->found || is_field(line, "Rss:", &record->resident_kib) ||
        is_field(line, "ShmemPmdMapped:", &record->huge_kib))
        return true;
    record->complete = is_field(line, "Shared_Hugetlb:", &record->hugetlb_kib);
    return !record->complete;
}

int mpl_smaps_huge(const void *va)
{
    struct record record = {.va = (uintptr_t)va};

    mpl_proc_lines("/proc/thread-self/smaps", mpl_now_ns() + PATIENCE_NS, take_line, &record);
    if (!record.complete)
        return -ENOENT;
    if (record.huge_kib + record.hugetlb_kib > 0)
        return 1;
    return record.resident_kib > 0 ? 0 : -EAGAIN;
}
