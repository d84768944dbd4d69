/* SPDX-License-Identifier: MIT */
/* Boot memory: what the machine has before anything is added to it. */
#include "machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define JUNK_BYTE 0x39  /* what that memory holds at first */
#define GUARD_BYTE 0xc3 /* from the end of memory_get()'s memory to the end of its page */

char *fake_boot_page(const struct fake_machine *machine, uint64_t frame)
{
    return machine->boot + frame * machine->page_bytes;
}

static bool boot_is_free(const struct fake_machine *machine, uint64_t frame, uint64_t nr_pages,
                         uint64_t *next)
{
    uint64_t i;

    for (i = 0; i < nr_pages; i++) {
        if (machine->boot_kind[frame + i] != FAKE_BOOT_FREE) {
            *next = frame + i + 1;
            return false;
        }
    }
    return true;
}

/* Lowest first, so that a machine that went back to a former state hands out the same again. */
int fake_boot_take(struct fake_machine *machine, uint64_t nr_pages, uint64_t align_pages,
                   enum fake_boot_kind kind, uint64_t *frame)
{
    uint64_t at = machine->boot_hint;

    if (nr_pages > machine->nr_free_boot_pages || nr_pages > machine->boot_budget)
        return -ENOMEM;
    for (;;) {
        uint64_t next;

        at = (at + align_pages - 1) & ~(align_pages - 1);
        if (at + nr_pages > machine->nr_boot_pages)
            return -ENOMEM;
        if (boot_is_free(machine, at, nr_pages, &next))
            break;
        at = next;
    }
    memset(machine->boot_kind + at, kind, nr_pages);
    machine->nr_free_boot_pages -= nr_pages;
    if (machine->boot_budget != UINT64_MAX)
        machine->boot_budget -= nr_pages;
    while (machine->boot_hint < machine->nr_boot_pages &&
           machine->boot_kind[machine->boot_hint] != FAKE_BOOT_FREE)
        machine->boot_hint++;
    *frame = at;
    return 0;
}

void fake_boot_give(struct fake_machine *machine, uint64_t frame, uint64_t nr_pages,
                    enum fake_boot_kind kind)
{
    uint64_t i, poison_bytes;

    for (i = 0; i < nr_pages; i++)
        if (machine->boot_kind[frame + i] != kind)
            fake_panic(machine, "boot page 0x%" PRIx64 " is not what is given back", frame + i);
    memset(machine->boot_kind + frame, FAKE_BOOT_FREE, nr_pages);
    poison_bytes = nr_pages * machine->page_bytes;
    if (kind == FAKE_BOOT_MEMMAP && machine->config.memmap_fill_bytes != 0 &&
        machine->config.memmap_fill_bytes < poison_bytes)
        poison_bytes = machine->config.memmap_fill_bytes;
    memset(fake_boot_page(machine, frame), FAKE_POISON_BYTE, poison_bytes);
    machine->nr_free_boot_pages += nr_pages;
    if (machine->boot_budget != UINT64_MAX)
        machine->boot_budget += nr_pages;
    if (frame < machine->boot_hint)
        machine->boot_hint = frame;
}

void fake_set_boot_budget(struct fake_machine *machine, uint64_t nr_pages)
{
    machine->boot_budget = nr_pages;
}

int fake_memory_get(void *host, uint64_t size_bytes, void **memory)
{
    struct fake_machine *machine = fake_enter(host, FAKE_MEMORY_GET, true);
    struct fake_memory *memories = machine->memories;
    struct fake_memory new = {.size_bytes = size_bytes};
    size_t at = 0;
    int error;

    if (!size_bytes)
        fake_panic(machine, "memory_get: size 0");
    if (size_bytes > machine->nr_boot_pages * machine->page_bytes)
        return -ENOMEM;
    memories = realloc(memories, (machine->nr_memories + 1) * sizeof(*memories));
    if (!memories)
        return -ENOMEM;
    machine->memories = memories;
    new.nr_pages = (size_bytes + machine->page_bytes - 1) / machine->page_bytes;
    error = fake_boot_take(machine, new.nr_pages, 1, FAKE_BOOT_MEMORY, &new.frame);
    if (error)
        return error;
    new.memory = fake_boot_page(machine, new.frame);
    memset(new.memory, JUNK_BYTE, size_bytes);
    memset((char *)new.memory + size_bytes, GUARD_BYTE,
           new.nr_pages * machine->page_bytes - size_bytes);
    while (at < machine->nr_memories && memories[at].frame < new.frame)
        at++;
    memmove(memories + at + 1, memories + at, (machine->nr_memories - at) * sizeof(*memories));
    memories[at] = new;
    machine->nr_memories++;
    *memory = new.memory;
    return 0;
}

static bool memory_is_overrun(const struct fake_machine *machine, const struct fake_memory *memory)
{
    const uint8_t *bytes = memory->memory;
    uint64_t i;

    for (i = memory->size_bytes; i < memory->nr_pages * machine->page_bytes; i++)
        if (bytes[i] != GUARD_BYTE)
            return true;
    return false;
}

const struct fake_memory *fake_memory_overrun(const struct fake_machine *machine)
{
    size_t i;

    for (i = 0; i < machine->nr_memories; i++)
        if (memory_is_overrun(machine, &machine->memories[i]))
            return &machine->memories[i];
    return NULL;
}

void fake_memory_put(void *host, void *memory, uint64_t size_bytes)
{
    struct fake_machine *machine = fake_enter(host, FAKE_MEMORY_PUT, true);
    struct fake_memory *memories = machine->memories;
    size_t at = 0;

    while (at < machine->nr_memories && memories[at].memory != memory)
        at++;
    if (at == machine->nr_memories)
        fake_panic(machine, "memory_put: this memory was not got, or was put already");
    if (memories[at].size_bytes != size_bytes)
        fake_panic(machine, "memory_put: got %" PRIu64 " bytes, put %" PRIu64,
                   memories[at].size_bytes, size_bytes);
    if (memory_is_overrun(machine, &memories[at]))
        fake_panic(machine, "memory_put: written past the end of %" PRIu64 " bytes", size_bytes);
    fake_boot_give(machine, memories[at].frame, memories[at].nr_pages, FAKE_BOOT_MEMORY);
    machine->nr_memories--;
    memmove(memories + at, memories + at + 1, (machine->nr_memories - at) * sizeof(*memories));
}
