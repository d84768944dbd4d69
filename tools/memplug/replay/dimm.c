/* SPDX-License-Identifier: MIT */
#include "dimm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PLUG_ALIGN ((uint64_t)2 << 20)

struct dimm {
    struct dimm *next; /* in the order of plugging */
    char *name;
    uint64_t address, size_bytes;
    unsigned node, slot;
    bool other; /* a device of another kind, that only takes room */
    bool bound; /* the kernel has its memory */
    struct dimm_memory memory;
    struct fake_backing *backing;
};

static struct dimm *find_dimm(const struct machine *machine, const char *name)
{
    struct dimm *dimm = machine->dimms;

    while (dimm && strcmp(dimm->name, name) != 0)
        dimm = dimm->next;
    return dimm;
}

/* --- the machine's part ----------------------------------------------------------------------- */

static const struct dimm *dimm_in(const struct machine *machine, uint64_t address,
                                  uint64_t size_bytes)
{
    for (const struct dimm *dimm = machine->dimms; dimm; dimm = dimm->next)
        if (address < dimm->address + dimm->size_bytes &&
            dimm->address < address + size_bytes)
            return dimm;
    return NULL;
}

static uint64_t find_room(const struct machine *machine, uint64_t size_bytes, uint64_t align)
{
    uint64_t address = (machine->layout.window + align - 1) & ~(align - 1);
    const struct dimm *taken;

    while ((taken = dimm_in(machine, address, size_bytes)))
        address = (taken->address + taken->size_bytes + align - 1) & ~(align - 1);
    return address + size_bytes <= machine->layout.window_end ? address : UINT64_MAX;
}

/* -1: all are taken. */
static int free_slot(const struct machine *machine)
{
    for (unsigned slot = 0; slot < machine->options.nr_slots; slot++) {
        const struct dimm *dimm = machine->dimms;

        while (dimm && (dimm->other || dimm->slot != slot))
            dimm = dimm->next;
        if (!dimm)
            return (int)slot;
    }
    return -1;
}

static uint64_t plugged_bytes(const struct machine *machine)
{
    uint64_t size_bytes = 0;

    for (const struct dimm *dimm = machine->dimms; dimm; dimm = dimm->next)
        size_bytes += dimm->size_bytes;
    return size_bytes;
}

static const char *refusal(const struct machine *machine, const char *name, uint64_t size_bytes,
                           uint64_t address, unsigned node)
{
    const struct layout *layout = &machine->layout;

    if (find_dimm(machine, name))
        return "there is a device of this name";
    if (node >= machine->options.nr_nodes)
        return "the machine has no such node";
    if (size_bytes >
        machine->options.maxmem_bytes - machine->options.mem_bytes - plugged_bytes(machine))
        return "this is more memory than the machine can have";
    if (address == UINT64_MAX || address < layout->window ||
        address + size_bytes > layout->window_end)
        return "there is no room for it in the window";
    return dimm_in(machine, address, size_bytes) ? "another device is there" : NULL;
}

static struct dimm *dimm_append(struct machine *machine, const struct dimm *from)
{
    struct dimm *dimm = must_alloc(1, sizeof(*dimm));
    struct dimm **link = &machine->dimms;

    *dimm = *from;
    dimm->name = must_copy(from->name, strlen(from->name));
    while (*link)
        link = &(*link)->next;
    *link = dimm;
    return dimm;
}

static void dimm_forget(struct machine *machine, struct dimm *dimm)
{
    struct dimm **link = &machine->dimms;

    while (*link != dimm)
        link = &(*link)->next;
    *link = dimm->next;
    free(dimm->memory.zones);
    free(dimm->name);
    free(dimm);
}

const char *dimm_reserve(struct machine *machine, const char *name, uint64_t size_bytes,
                         uint64_t align, unsigned node, uint64_t *address)
{
    struct dimm dimm = {.name = (char *)name, .size_bytes = size_bytes, .node = node,
                        .other = true};
    const char *refused;

    dimm.address = find_room(machine, size_bytes, align > PLUG_ALIGN ? align : PLUG_ALIGN);
    refused = refusal(machine, name, size_bytes, dimm.address, node);
    if (refused)
        return refused;
    *address = dimm.address;
    dimm_append(machine, &dimm);
    return NULL;
}

bool dimm_info(const struct machine *machine, size_t index, struct dimm_info *info)
{
    const struct dimm *dimm = machine->dimms;

    while (dimm && (dimm->other || index)) {
        index -= !dimm->other;
        dimm = dimm->next;
    }
    if (!dimm)
        return false;
    *info = (struct dimm_info){.name = dimm->name, .address = dimm->address,
                               .size_bytes = dimm->size_bytes, .node = dimm->node,
                               .slot = dimm->slot};
    return true;
}

/* --- the kernel's part: a driver of such devices ---------------------------------------------- */

static void release(struct dimm *dimm)
{
    free(dimm->memory.zones);
    if (dimm->backing)
        fake_backing_close(dimm->backing);
    dimm->memory.zones = NULL;
    dimm->backing = NULL;
    dimm->bound = false;
}

static uint64_t now_ns(void *machine)
{
    return machine_clock(machine);
}

static int bind(struct machine *machine, struct dimm *dimm)
{
    struct fake_backing_spec spec = {.size_bytes = dimm->size_bytes,
                                     .content = FAKE_CONTENT_JUNK};
    uint64_t block_bytes = machine_block_bytes(machine);
    int error;

    dimm->backing = fake_backing_open(machine->fake, &spec);
    dimm->memory = (struct dimm_memory){
        .pool = machine->pool, .address = dimm->address, .size_bytes = dimm->size_bytes,
        .block_bytes = block_bytes, .page_bytes = (uint64_t)1 << LAYOUT_PAGE_SHIFT,
        .node = (int)dimm->node, .backing = dimm->backing, .now_ns = now_ns, .context = machine};
    dimm->memory.zones = must_alloc(dimm->size_bytes / block_bytes + 1, sizeof(enum memplug_zone));
    error = dimm->backing ? dimm_memory_add(&dimm->memory, &machine->limit, NULL) : -ENOMEM;
    if (error) {
        release(dimm);
        return error;
    }
    dimm->bound = true;
    machine_firmware_add(machine, dimm->address, dimm->size_bytes);
    return 0;
}

struct dimm_plug dimm_plug(struct machine *machine, const char *name, uint64_t size_bytes,
                           int64_t at_block, unsigned node)
{
    struct dimm_plug plug = {.refused = NULL};
    struct dimm dimm = {.name = (char *)name, .size_bytes = size_bytes, .node = node};

    if (at_block == DIMM_ANYWHERE)
        dimm.address = find_room(machine, size_bytes, PLUG_ALIGN);
    else
        dimm.address = (machine->layout.base_block + (uint64_t)at_block)
                       << machine->layout.block_shift;
    plug.refused = refusal(machine, name, size_bytes, dimm.address, node);
    if (!plug.refused && free_slot(machine) < 0)
        plug.refused = "there is no free slot";
    if (plug.refused)
        return plug;
    dimm.slot = (unsigned)free_slot(machine);
    plug.address = dimm.address;
    plug.slot = dimm.slot;
    plug.error = bind(machine, dimm_append(machine, &dimm));
    return plug;
}

/* --- eject ------------------------------------------------------------------------------------ */

enum dimm_answer dimm_unplug(struct machine *machine, const char *name, uint64_t seconds,
                             struct dimm_refusal *refusal)
{
    struct dimm *dimm = find_dimm(machine, name);

    if (!dimm || dimm->other)
        return DIMM_NO_DEVICE;
    if (dimm->bound &&
        dimm_memory_eject(&dimm->memory, seconds * NS_PER_S, &machine->limit, refusal))
        return DIMM_REFUSED;
    if (dimm->bound)
        machine_firmware_remove(machine, dimm->address);
    release(dimm);
    dimm_forget(machine, dimm);
    return DIMM_DELETED;
}

void dimms_close(struct machine *machine)
{
    while (machine->dimms)
        dimm_forget(machine, machine->dimms);
}
