/* SPDX-License-Identifier: MIT */
/* Backings: where added memory comes from, and what it holds when it comes. */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* New bytes at the end of the array. Large-aligned, so that frames of large units are too where
 * the offset in the backing allows it. */
static int array_grow(struct fake_machine *machine, const struct fake_backing *backing,
                      uint64_t *array)
{
    uint64_t align = machine->large_bytes;
    uint64_t at;

    if (align < backing->alignment)
        align = backing->alignment;
    at = (machine->array_bytes + align - 1) & ~(align - 1);
    if (at + backing->size_bytes < at || ftruncate(machine->array_fd,
                                                   (off_t)(at + backing->size_bytes)))
        return -ENOMEM;
    machine->array_bytes = at + backing->size_bytes;
    *array = at;
    return 0;
}

static bool spec_is_good(const struct fake_machine *machine, const struct fake_backing_spec *spec)
{
    uint64_t alignment = spec->alignment ? spec->alignment : machine->page_bytes;

    if (!spec->size_bytes || !fake_multiple(spec->size_bytes, machine->page_bytes) ||
        spec->size_bytes >= (uint64_t)1 << 60)
        return false;
    if (alignment < machine->page_bytes || (alignment & (alignment - 1)))
        return false;
    return !spec->same_as || (fake_multiple(spec->same_offset, alignment) &&
                              spec->same_offset < spec->same_as->size_bytes &&
                              spec->size_bytes <= spec->same_as->size_bytes - spec->same_offset);
}

struct fake_backing *fake_backing_open(struct fake_machine *machine,
                                       const struct fake_backing_spec *spec)
{
    struct fake_backing *backing;

    if (!spec_is_good(machine, spec))
        return NULL;
    backing = calloc(1, sizeof(*backing));
    if (!backing)
        return NULL;
    backing->machine = machine;
    backing->number = machine->nr_backings;
    backing->size_bytes = spec->size_bytes;
    backing->alignment = spec->alignment ? spec->alignment : machine->page_bytes;
    backing->content = spec->content;
    backing->byte = spec->byte;
    backing->owns_bytes = !spec->same_as;
    if (spec->same_as) {
        backing->array = spec->same_as->array + spec->same_offset;
    } else if (array_grow(machine, backing, &backing->array)) {
        free(backing);
        return NULL;
    }
    machine->nr_backings++;
    backing->next = machine->backings;
    machine->backings = backing;
    return backing;
}

static void array_punch(struct fake_machine *machine, uint64_t array, uint64_t size_bytes)
{
    if (fallocate(machine->array_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)array,
                  (off_t)size_bytes))
        fake_panic(machine, "the array cannot be punched: %s", strerror(errno));
}

void fake_backing_close(struct fake_backing *backing)
{
    struct fake_machine *machine = backing->machine;
    struct fake_backing **link = &machine->backings;
    size_t i;

    for (i = 0; i < machine->nr_extents; i++)
        if (machine->extents[i].is.backing == backing)
            fake_panic(machine, "backing %u is closed while it is attached at 0x%" PRIx64,
                       backing->number, machine->extents[i].is.address);
    while (*link && *link != backing)
        link = &(*link)->next;
    if (!*link)
        fake_panic(machine, "this backing is not open");
    *link = backing->next;
    if (backing->owns_bytes)
        array_punch(machine, backing->array, backing->size_bytes);
    free(backing);
}

void fake_backing_set_busy(struct fake_backing *backing, bool busy)
{
    backing->busy = busy;
}

void fake_backing_set_unmappable(struct fake_backing *backing, bool unmappable)
{
    backing->unmappable = unmappable;
}

static void check_span(const struct fake_backing *backing, uint64_t offset, size_t size_bytes)
{
    if (offset > backing->size_bytes || size_bytes > backing->size_bytes - offset)
        fake_panic(backing->machine, "backing %u has no bytes at 0x%" PRIx64, backing->number,
                   offset);
}

void fake_backing_read(struct fake_backing *backing, uint64_t offset, void *to, size_t size_bytes)
{
    check_span(backing, offset, size_bytes);
    if (pread(backing->machine->array_fd, to, size_bytes, (off_t)(backing->array + offset)) !=
        (ssize_t)size_bytes)
        fake_panic(backing->machine, "the array cannot be read: %s", strerror(errno));
}

void fake_backing_write(struct fake_backing *backing, uint64_t offset, const void *from,
                        size_t size_bytes)
{
    check_span(backing, offset, size_bytes);
    if (pwrite(backing->machine->array_fd, from, size_bytes, (off_t)(backing->array + offset)) !=
        (ssize_t)size_bytes)
        fake_panic(backing->machine, "the array cannot be written: %s", strerror(errno));
}

struct fake_backing *fake_backing_find(struct fake_machine *machine, const void *backing)
{
    struct fake_backing *at;

    for (at = machine->backings; at; at = at->next)
        if (at == backing)
            return at;
    fake_panic(machine, "backing %p is not one of this machine's", backing);
}

uint64_t fake_backing_alignment(void *host, const void *backing)
{
    struct fake_machine *machine = fake_enter(host, FAKE_ALIGNMENT, false);

    return backing ? fake_backing_find(machine, backing)->alignment : machine->page_bytes;
}

/* size_bytes is a multiple of 8. */
void fake_fill(struct fake_machine *machine, char *bytes, uint64_t size_bytes)
{
    uint64_t word = fake_random(&machine->random) | 1;
    uint64_t i;

    for (i = 0; i < size_bytes; i += sizeof(word)) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        memcpy(bytes + i, &word, sizeof(word));
    }
}

/* How many bytes of an extent are worth filling. */
static uint64_t fill_bytes(const struct fake_machine *machine, const struct memplug_extent *extent)
{
    uint64_t size_bytes = machine->config.fill_bytes;

    if (!size_bytes || size_bytes > extent->size_bytes)
        return extent->size_bytes;
    size_bytes = size_bytes > extent->memmap_bytes ? size_bytes : extent->memmap_bytes;
    return size_bytes & ~(uint64_t)7;
}

void fake_extent_fill(struct fake_machine *machine, const struct fake_extent *extent)
{
    const struct fake_backing *backing = extent->is.backing;
    char *bytes = machine->host.direct_map + extent->is.address;

    if (backing->content == FAKE_CONTENT_JUNK)
        fake_fill(machine, bytes, fill_bytes(machine, &extent->is));
    else if (backing->content == FAKE_CONTENT_BYTE)
        memset(bytes, backing->byte, fill_bytes(machine, &extent->is));
    else if (backing->content == FAKE_CONTENT_ZERO)
        array_punch(machine, extent->array, extent->is.size_bytes);
}

/* Behind the poison nothing of the extent is left in memory: tests add and remove terabytes. */
void fake_extent_poison(struct fake_machine *machine, const struct fake_extent *extent)
{
    const struct fake_backing *backing = extent->is.backing;

    if (backing->content == FAKE_CONTENT_KEEP)
        return;
    array_punch(machine, extent->array, extent->is.size_bytes);
    if (backing->content != FAKE_CONTENT_ZERO)
        memset(machine->host.direct_map + extent->is.address, FAKE_POISON_BYTE,
               fill_bytes(machine, &extent->is));
}
