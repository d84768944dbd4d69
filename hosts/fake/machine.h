/* SPDX-License-Identifier: MIT */
/* The inside of the fake machine, shared by the files of this folder and nobody else. */
#ifndef FAKE_MACHINE_H
#define FAKE_MACHINE_H

#include "fake.h"
#include "sched.h"
#include "tables.h"

#include <stdarg.h>
#include <stdatomic.h>

enum fake_boot_kind { FAKE_BOOT_FREE, FAKE_BOOT_TABLE, FAKE_BOOT_MEMMAP, FAKE_BOOT_MEMORY };

struct fake_backing {
    struct fake_machine *machine;
    struct fake_backing *next;
    unsigned number; /* in order of opening, for texts */
    uint64_t size_bytes, alignment;
    uint64_t array;  /* where its bytes are in the array */
    bool owns_bytes; /* not another name for somebody else's */
    bool busy, unmappable;
    enum fake_content content;
    uint8_t byte;
};

struct fake_extent {
    struct memplug_extent is;
    uint64_t array;
};

struct fake_mapping {
    uint64_t offset, size_bytes, unit_bytes;
    bool alias;
    uint64_t address; /* of an alias */
    uint64_t *frames; /* of a provided one: the frame of each unit */
    uint64_t *shown;  /* the frame that a lent unit shows; else FAKE_NOT_LENT; null: none was */
};

#define FAKE_NOT_LENT UINT64_MAX

struct fake_memory {
    void *memory;
    uint64_t size_bytes, frame, nr_pages;
};

struct fake_machine {
    struct memplug_host host;
    struct fake_config config;
    uint64_t page_bytes, large_bytes, block_bytes, memmap_bytes;
    uint64_t random;

    int array_fd; /* all physical memory; boot memory comes first */
    uint64_t array_bytes;
    char *boot;
    uint64_t nr_boot_pages, nr_free_boot_pages, boot_budget, boot_hint;
    uint8_t *boot_kind;     /* of each boot page: enum fake_boot_kind */
    uint16_t *table_used;   /* of each boot page that is a table: entries in use */
    struct fake_backing *backings;
    unsigned nr_backings;

    struct fake_reservation {
        void *start;
        size_t size_bytes;
    } direct_reservation, memmap_reservation, metadata;
    struct fake_tables direct_tables, memmap_tables;

    /* All sorted by address, changed with the lock held. */
    struct fake_extent *extents;
    struct fake_mapping *mappings;
    struct fake_memory *memories;
    size_t nr_extents, nr_mappings, nr_memories;

    struct fake_mutex lock;
    _Atomic uint64_t clock;
    _Atomic uint64_t nr_calls[FAKE_NR_OPERATIONS];
    _Atomic uint64_t cpu_random;

    void (*panic_hook)(void *context, const char *text);
    void *panic_context;
};

/* boot.c: boot pages. take: -ENOMEM. The pages are of any content. */
int fake_boot_take(struct fake_machine *machine, uint64_t nr_pages, uint64_t align_pages,
                   enum fake_boot_kind kind, uint64_t *frame);
void fake_boot_give(struct fake_machine *machine, uint64_t frame, uint64_t nr_pages,
                    enum fake_boot_kind kind);
char *fake_boot_page(const struct fake_machine *machine, uint64_t frame);
int fake_memory_get(void *host, uint64_t size_bytes, void **memory);
void fake_memory_put(void *host, void *memory, uint64_t size_bytes);
/* The first memory whose end was written past; null: none. */
const struct fake_memory *fake_memory_overrun(const struct fake_machine *machine);

/* backing.c */
uint64_t fake_backing_alignment(void *host, const void *backing);
struct fake_backing *fake_backing_find(struct fake_machine *machine, const void *backing);
void fake_fill(struct fake_machine *machine, char *bytes, uint64_t size_bytes);
/* At attach and at detach, through the direct map. */
void fake_extent_fill(struct fake_machine *machine, const struct fake_extent *extent);
void fake_extent_poison(struct fake_machine *machine, const struct fake_extent *extent);

/* windows.c: the host operations, and for the checker what should be where. */
int fake_attach(void *host, const struct memplug_extent *extent);
int fake_attach_row(void *host, const struct memplug_extent *first, uint64_t nr);
void fake_detach(void *host, const struct memplug_extent *extent);
int fake_memmap_alias(void *host, uint64_t offset, uint64_t address, uint64_t size_bytes,
                      uint64_t unit_bytes);
int fake_memmap_provide(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes);
void fake_memmap_unmap(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes);
/* lend.c */
void fake_memmap_lend(void *host, uint64_t offset, uint64_t size_bytes);
void fake_memmap_return(void *host, uint64_t offset, uint64_t size_bytes);
int fake_memmap_restore(void *host, uint64_t offset, uint64_t size_bytes);
bool fake_is_lent(const struct fake_mapping *mapping, uint64_t unit);
uint64_t fake_nr_lent(const struct fake_mapping *mapping);

/* A mapping of this process: -ENOMEM. */
int fake_process_map(struct fake_machine *machine, char *at, uint64_t size_bytes, uint64_t array);

/* The array's byte behind the nth unit of a mapping, or behind an attached address; UINT64_MAX
 * if nothing is attached there. */
uint64_t fake_mapping_array(const struct fake_machine *machine,
                            const struct fake_mapping *mapping, uint64_t unit);
uint64_t fake_address_array(const struct fake_machine *machine, uint64_t address);
/* The unit in which the direct map holds this address, of an extent that ends at end. */
uint64_t fake_direct_unit(const struct fake_machine *machine, uint64_t address, uint64_t end);

/* fake.c: every host operation begins with this; panics if the lock is needed and not held. */
struct fake_machine *fake_enter(void *host, enum fake_operation operation, bool locked);

/* sched.c */
unsigned fake_current_cpu(void);

static inline bool fake_multiple(uint64_t value, uint64_t of_power_of_two)
{
    return (value & (of_power_of_two - 1)) == 0;
}

/* Do [a, a + a_size) and [b, b + b_size) share a byte? Neither wraps. */
static inline bool fake_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

#endif
