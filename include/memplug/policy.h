/* SPDX-License-Identifier: MIT */
/*
 * What happens by itself: which zone a plain online chooses, whether an add goes online, where a
 * hinted memmap lies; and memory groups, by which a policy sees devices and not blocks. The names,
 * defaults and rules are those of Linux's memory_hotplug parameters (linux semantics, 3 and 6).
 */
#ifndef MEMPLUG_POLICY_H
#define MEMPLUG_POLICY_H

#include <memplug/memplug.h>

#ifdef __cplusplus
extern "C" {
#endif

enum memplug_online_policy {
    MEMPLUG_POLICY_CONTIG_ZONES, /* the one zone whose span the block lies in; else a kernel zone */
    MEMPLUG_POLICY_AUTO_MOVABLE, /* Movable as long as the ratio to boot memory allows it */
};

enum memplug_auto_online {
    MEMPLUG_AUTO_OFFLINE,
    MEMPLUG_AUTO_ONLINE, /* as MEMPLUG_ONLINE_DEFAULT; then as the names say */
    MEMPLUG_AUTO_KERNEL,
    MEMPLUG_AUTO_MOVABLE,
};

enum memplug_memmap_on_memory {
    MEMPLUG_MEMMAP_ON_MEMORY_NO,    /* AUTO is HOST */
    MEMPLUG_MEMMAP_ON_MEMORY_YES,   /* AUTO is BLOCK where that is supported and its memmap is
                                       whole pageblocks, else HOST */
    MEMPLUG_MEMMAP_ON_MEMORY_FORCE, /* the same, the memmap rounded up to pageblocks */
};

struct memplug_policy {
    enum memplug_online_policy online;               /* contig-zones */
    enum memplug_auto_online auto_online;            /* offline */
    enum memplug_memmap_on_memory memmap_on_memory;  /* yes */
    uint32_t auto_movable_ratio;  /* 301; Movable : early kernel memory, in percent; 0: never */
    bool auto_movable_numa_aware; /* true: the ratio holds on each node too */
    bool movable_node;            /* false; contig-zones: in doubt Movable, not a kernel zone */
};

/* Which members memplug_policy_set() sets: the others stay. */
enum memplug_policy_field {
    MEMPLUG_POLICY_ONLINE = 1 << 0,
    MEMPLUG_POLICY_AUTO_ONLINE = 1 << 1,
    MEMPLUG_POLICY_MEMMAP_ON_MEMORY = 1 << 2,
    MEMPLUG_POLICY_RATIO = 1 << 3,
    MEMPLUG_POLICY_NUMA_AWARE = 1 << 4,
    MEMPLUG_POLICY_MOVABLE_NODE = 1 << 5,
    MEMPLUG_POLICY_ALL = (1 << 6) - 1,
};

/* A pool begins with the defaults above. set takes the control lock; -EINVAL: a value or a field
 * that is none, and nothing has changed. get never waits. */
void memplug_policy_get(const struct memplug *pool, struct memplug_policy *policy);
int memplug_policy_set(struct memplug *pool, const struct memplug_policy *policy, unsigned fields);

/*
 * A memory group: blocks of one device. Static: a device of a known size (a DIMM); it goes to one
 * kind of zone as a whole. Dynamic: a device that grows and shrinks in units (virtio-mem).
 */
struct memplug_group {
    int node;
    bool dynamic;
    uint64_t nr_pages; /* static: of the device; dynamic: of a unit, a power of two, whole blocks */
};

struct memplug_group_info {
    struct memplug_group group;
    uint64_t nr_blocks;
    uint64_t nr_present_kernel_pages, nr_present_movable_pages; /* memmaps included */
};

/* Returns the group's number, from 1. -EINVAL node, size; -ENOSPC: 1,024 groups. Control lock. */
int memplug_group_register(struct memplug *pool, const struct memplug_group *group);
/* -EINVAL no such group; -EBUSY it has blocks. Control lock. */
int memplug_group_unregister(struct memplug *pool, int group);
/* -EINVAL no such group. Never waits. */
int memplug_group_info(const struct memplug *pool, int group, struct memplug_group_info *info);

#ifdef __cplusplus
}
#endif
#endif
