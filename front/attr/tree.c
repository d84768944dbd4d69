/* SPDX-License-Identifier: MIT */
/* The walk from a path to an entry, and the directories that only hold others. */
#include "tree.h"

#include "walk.h"

#include <errno.h>
#include <string.h>

/* --- the upper directories -------------------------------------------------------------------- */

#define DIR_OF(list)                                                                               \
    {                                                                                              \
        .entries = (list), .nr_entries = MPL_ATTR_COUNT(list)                                      \
    }

static const struct mpl_attr_entry in_system[] = {
    {.name = "memory", .mode = 0755, .dir = &mpl_attr_memory_dir},
    {.name = "node", .mode = 0755, .dir = &mpl_attr_node_dir},
};
static const struct mpl_attr_dir system_dir = DIR_OF(in_system);
static const struct mpl_attr_entry in_devices[] = {
    {.name = "system", .mode = 0755, .dir = &system_dir},
};
static const struct mpl_attr_dir devices_dir = DIR_OF(in_devices);
static const struct mpl_attr_entry in_mm[] = {
    {.name = "hugepages", .mode = 0755, .dir = &mpl_attr_hugepages_dir},
};
static const struct mpl_attr_dir mm_dir = DIR_OF(in_mm);
static const struct mpl_attr_entry in_kernel[] = {
    {.name = "mm", .mode = 0755, .dir = &mm_dir},
};
static const struct mpl_attr_dir kernel_dir = DIR_OF(in_kernel);
static const struct mpl_attr_entry in_memory_hotplug[] = {
    {.name = "parameters", .mode = 0755, .dir = &mpl_attr_parameters_dir},
};
static const struct mpl_attr_dir memory_hotplug_dir = DIR_OF(in_memory_hotplug);
static const struct mpl_attr_entry in_module[] = {
    {.name = "memory_hotplug", .mode = 0755, .dir = &memory_hotplug_dir},
};
static const struct mpl_attr_dir module_dir = DIR_OF(in_module);
static const struct mpl_attr_entry in_root[] = {
    {.name = "devices", .mode = 0755, .dir = &devices_dir},
    {.name = "firmware", .mode = 0755, .dir = &mpl_attr_firmware_dir},
    {.name = "kernel", .mode = 0755, .dir = &kernel_dir},
    {.name = "memplug", .mode = 0755, .dir = &mpl_attr_own_dir},
    {.name = "module", .mode = 0755, .dir = &module_dir},
};
static const struct mpl_attr_dir root_dir = DIR_OF(in_root);

/* --- the walk --------------------------------------------------------------------------------- */

/* A part of a path: not terminated. */
struct part {
    const char *text;
    size_t length;
};

static struct part next_part(const char **path)
{
    struct part part;

    while (**path == '/')
        ++*path;
    part = (struct part){.text = *path, .length = strcspn(*path, "/")};
    *path += part.length;
    return part;
}

static bool is_name(struct part part, const char *name)
{
    return strlen(name) == part.length && memcmp(part.text, name, part.length) == 0;
}

/* The number between prefix and suffix, decimal without leading zeros; else MPL_ATTR_NONE. */
static uint64_t number_of(struct part part, const struct mpl_attr_family *family)
{
    size_t before = strlen(family->prefix), behind = strlen(family->suffix);
    struct mpl_attr_word word;
    uint64_t number;

    if (part.length <= before + behind || memcmp(part.text, family->prefix, before) != 0 ||
        memcmp(part.text + part.length - behind, family->suffix, behind) != 0)
        return MPL_ATTR_NONE;
    word.text = part.text + before;
    word.length = part.length - before - behind;
    if (word.text[0] < '0' || word.text[0] > '9' || (word.text[0] == '0' && word.length > 1) ||
        word.text[word.length - 1] == '\n' ||
        mpl_attr_number(word, 10, MPL_ATTR_NONE - 1, &number) != 0)
        return MPL_ATTR_NONE;
    return number;
}

/* A file of the embedder's. */
static int enter_host(const struct memplug_attr *attr, struct part part,
                      struct mpl_attr_found *found)
{
    for (unsigned i = 0; i < attr->nr_files; i++)
        if (is_name(part, attr->files[i].name)) {
            found->file = &mpl_attr_host_file;
            found->mode = attr->files[i].mode;
            found->dir = NULL;
            found->place.index = i;
            return 0;
        }
    return -ENOENT;
}

static int enter(const struct memplug_attr *attr, struct part part, struct mpl_attr_found *found)
{
    const struct mpl_attr_dir *dir = found->dir;

    found->link = NULL;
    if (dir == &mpl_attr_host_dir)
        return enter_host(attr, part, found);
    for (unsigned i = 0; i < dir->nr_entries; i++) {
        const struct mpl_attr_entry *entry = &dir->entries[i];

        if (!is_name(part, entry->name))
            continue;
        found->file = entry->dir == NULL ? entry : NULL;
        found->mode = entry->mode;
        found->dir = entry->dir;
        if (entry->index != 0)
            found->place.index = entry->index;
        return 0;
    }
    for (unsigned i = 0; i < dir->nr_families; i++) {
        const struct mpl_attr_family *family = &dir->families[i];
        uint64_t number = number_of(part, family);

        if (number == MPL_ATTR_NONE || family->find(attr, number, &found->place) != 0)
            continue;
        found->dir = family->dir;
        found->link = family->link != NULL ? family : NULL;
        found->number = number;
        return 0;
    }
    return -ENOENT;
}

int mpl_attr_walk(const struct memplug_attr *attr, const char *path, struct mpl_attr_found *found)
{
    *found = (struct mpl_attr_found){
        .dir = &root_dir,
        .place = {.block = MPL_ATTR_NONE, .node = MEMPLUG_ANY_NODE},
    };
    for (;;) {
        struct part part = next_part(&path);
        int error;

        if (part.length == 0) {
            found->link = NULL; /* "node0/" is where it leads */
            return 0;
        }
        error = enter(attr, part, found);
        if (error != 0)
            return error;
        if (found->file != NULL && *path != '\0')
            return -ENOTDIR;
        if (*path == '\0')
            return 0;
    }
}

void mpl_attr_put_name(struct mpl_attr_text *text, const struct mpl_attr_family *family,
                       uint64_t number)
{
    mpl_attr_put(text, family->prefix);
    mpl_attr_put_number(text, number, 10, 0, ' ');
    mpl_attr_put(text, family->suffix);
}

/* --- shared by the branches ------------------------------------------------------------------- */

const char *const mpl_attr_zone_names[MEMPLUG_NR_ZONES] = {"DMA", "DMA32", "Normal", "Movable"};

int mpl_attr_refuse(struct mpl_attr_call *call, int error, const char *why, const char *remedy)
{
    call->reason->error = error;
    call->reason->why = why;
    call->reason->remedy = remedy;
    return error;
}

int mpl_attr_block(const struct memplug_attr *attr, uint64_t block, struct memplug_block_info *info)
{
    if (memplug_block_info(attr->pool, block, info) != 0 ||
        info->state == MEMPLUG_BLOCK_ABSENT || info->state == MEMPLUG_BLOCK_ADDING)
        return -ENOENT;
    return 0;
}

int mpl_attr_find_block(const struct memplug_attr *attr, uint64_t block,
                        struct memplug_attr_place *place)
{
    struct memplug_block_info info;

    if (mpl_attr_block(attr, block, &info) != 0)
        return -ENOENT;
    *place = (struct memplug_attr_place){
        .block = block,
        .serial = info.serial,
        .node = MEMPLUG_ANY_NODE,
    };
    return 0;
}

uint64_t mpl_attr_next_block(const struct memplug_attr *attr,
                             const struct memplug_attr_place *place, uint64_t block)
{
    struct memplug_block_info info;

    (void)place;
    for (; block < memplug_nr_blocks_max(attr->pool); block++)
        if (mpl_attr_block(attr, block, &info) == 0)
            return block;
    return MPL_ATTR_NONE;
}

int mpl_attr_find_node(const struct memplug_attr *attr, uint64_t node,
                       struct memplug_attr_place *place)
{
    struct memplug_node_info info;

    if (node >= attr->nr_nodes || memplug_node_info(attr->pool, (int)node, &info) != 0 ||
        !info.online)
        return -ENOENT;
    *place = (struct memplug_attr_place){
        .block = MPL_ATTR_NONE,
        .node = (int)node,
        .node_online = true,
    };
    return 0;
}

int mpl_attr_info(const struct mpl_attr_call *call, struct memplug_block_info *info)
{
    if (mpl_attr_block(call->attr, call->place->block, info) != 0 ||
        info->serial != call->place->serial)
        return -ENODEV;
    return 0;
}
