/* SPDX-License-Identifier: MIT */
/* kernel/mm/hugepages, and a node's. The names are the sizes that the geometry has. */
#include "tree.h"

#include <errno.h>

static uint64_t kib_of(const struct memplug_attr *attr, unsigned size)
{
    return memplug_huge_pages(attr->pool, (enum memplug_huge)size)
           << (attr->host.geometry.page_shift - 10u);
}

/* --- files ------------------------------------------------------------------------------------ */

static int info_of(const struct mpl_attr_call *call, struct memplug_huge_info *info)
{
    return memplug_huge_info(call->attr->pool, (enum memplug_huge)call->place->index,
                             call->place->node, info);
}

static int put_count(struct mpl_attr_call *call, int error, uint64_t number)
{
    if (error != 0)
        return error;
    mpl_attr_put_number(call->text, number, 10, 0, ' ');
    mpl_attr_put(call->text, "\n");
    return 0;
}

static int show_nr(struct mpl_attr_call *call)
{
    struct memplug_huge_info info = {.nr_huge = 0};
    int error = info_of(call, &info);

    return put_count(call, error, info.nr_huge);
}

static int show_free(struct mpl_attr_call *call)
{
    struct memplug_huge_info info = {.nr_free = 0};
    int error = info_of(call, &info);

    return put_count(call, error, info.nr_free);
}

static int show_reserved(struct mpl_attr_call *call)
{
    struct memplug_huge_info info = {.nr_reserved = 0};
    int error = info_of(call, &info);

    return put_count(call, error, info.nr_reserved);
}

static int show_surplus(struct mpl_attr_call *call)
{
    struct memplug_huge_info info = {.nr_surplus = 0};
    int error = info_of(call, &info);

    return put_count(call, error, info.nr_surplus);
}

/* As far as it goes, like the kernel: a pool that fell short is a success, and reading tells. */
static int store_nr(struct mpl_attr_call *call)
{
    uint64_t nr;
    int error = mpl_attr_number(call->word, 10, UINT64_MAX, &nr);

    if (error != 0)
        return mpl_attr_refuse(call, error, "not a decimal number of 64 bits", NULL);
    return memplug_huge_resize(call->attr->pool, (enum memplug_huge)call->place->index, nr,
                               call->place->node, call->limit, call->reason);
}

static const struct mpl_attr_entry in_size[] = {
    {.name = "free_hugepages", .mode = 0444, .show = show_free},
    {.name = "nr_hugepages", .mode = 0644, .show = show_nr, .store = store_nr},
    {.name = "resv_hugepages", .mode = 0444, .show = show_reserved},
    {.name = "surplus_hugepages", .mode = 0444, .show = show_surplus},
};
static const struct mpl_attr_dir size_dir = {
    .entries = in_size,
    .nr_entries = MPL_ATTR_COUNT(in_size),
};

/* What is promised is promised of no node. */
static const struct mpl_attr_entry in_node_size[] = {
    {.name = "free_hugepages", .mode = 0444, .show = show_free},
    {.name = "nr_hugepages", .mode = 0644, .show = show_nr, .store = store_nr},
    {.name = "surplus_hugepages", .mode = 0444, .show = show_surplus},
};
static const struct mpl_attr_dir node_size_dir = {
    .entries = in_node_size,
    .nr_entries = MPL_ATTR_COUNT(in_node_size),
};

/* --- sizes ------------------------------------------------------------------------------------ */

static int find_size(const struct memplug_attr *attr, uint64_t kib,
                     struct memplug_attr_place *place)
{
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE; size++)
        if (kib != 0 && kib_of(attr, size) == kib) {
            place->index = size;
            return 0;
        }
    return -ENOENT;
}

static uint64_t next_size(const struct memplug_attr *attr, const struct memplug_attr_place *place,
                          uint64_t kib)
{
    uint64_t next = MPL_ATTR_NONE;

    (void)place;
    for (unsigned size = 0; size < MEMPLUG_NR_HUGE; size++)
        if (kib_of(attr, size) != 0 && kib_of(attr, size) >= kib && kib_of(attr, size) < next)
            next = kib_of(attr, size);
    return next;
}

static const struct mpl_attr_family of_hugepages[] = {
    {.prefix = "hugepages-",
     .suffix = "kB",
     .dir = &size_dir,
     .find = find_size,
     .next = next_size},
};
const struct mpl_attr_dir mpl_attr_hugepages_dir = {
    .families = of_hugepages,
    .nr_families = MPL_ATTR_COUNT(of_hugepages),
};

static const struct mpl_attr_family of_node_hugepages[] = {
    {.prefix = "hugepages-",
     .suffix = "kB",
     .dir = &node_size_dir,
     .find = find_size,
     .next = next_size},
};
const struct mpl_attr_dir mpl_attr_node_hugepages_dir = {
    .families = of_node_hugepages,
    .nr_families = MPL_ATTR_COUNT(of_node_hugepages),
};
