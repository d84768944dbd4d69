/* SPDX-License-Identifier: MIT */
/*
 * The fake host: a machine in an array. Physical memory is one sparse file in memory; the direct
 * map and the memmap window are reservations into which its frames are really mapped, so that an
 * alias is an alias. The machine builds page tables of its own geometry in its own boot memory,
 * counts every table, and runs out of them when there is no boot memory left.
 *
 * A host operation that the core calls against the contract of memplug/host.h is not an error but
 * a panic: the machine says what was broken, and stops. See fake_set_panic_hook().
 *
 * Usable from ordinary threads, and from the fibres of sched.h, but not from both at once.
 */
#ifndef FAKE_H
#define FAKE_H

#include <memplug/memplug.h>

struct fake_machine;
struct fake_backing;

/* --- the machine ------------------------------------------------------------------------------ */

struct fake_config {
    struct memplug_geometry geometry; /* see fake_geometry() */
    unsigned nr_cpus;                 /* 0: 1; at most 64 */
    uint64_t boot_bytes;    /* for page tables, provided memmaps and memory_get(); 0: 64 MiB */
    uint64_t seed;          /* of junk, and of cpu() if random_cpu */
    uint64_t fill_bytes;    /* of each extent at most so many bytes from the head are filled with
                               junk and poison, its memmap at least; 0: all */
    uint64_t memmap_fill_bytes; /* the same of each provided memmap, unit by unit; 0: all */
    bool lends;             /* a host on top of this one makes memmaps of attached memory: an
                               alias may lie outside its extent's memmap */
    bool real_clock;        /* else a virtual one, the same in each run */
    uint64_t clock_step_ns; /* the virtual clock advances by this in each now_ns() */
    bool random_cpu;        /* cpu() answers a wrong CPU every now and then */
    unsigned switch_one_in; /* under the scheduler one host call in so many switches; 0: 3 */
};

enum fake_shape {
    FAKE_X86,   /* 4 KiB pages, 2 MiB pageblocks, 128 MiB blocks, 64-byte struct page */
    FAKE_SMALL, /* 4 KiB pages, 256 KiB pageblocks, 1 MiB blocks: quick to fill and to walk */
    FAKE_16K,   /* 16 KiB pages, 1 MiB pageblocks, 4 MiB blocks, large unit 2 MiB */
    FAKE_64K,   /* 64 KiB pages, 4 MiB pageblocks, 64 MiB blocks, one unit only */
    /* As Linux has them. A block's memmap with 64-byte struct pages, in large units: */
    FAKE_S390X,     /* 4 KiB pages, 256 MiB blocks: 4 of 1 MiB */
    FAKE_ARM64_16K, /* 16 KiB pages, 128 MiB blocks: a 64th of 32 MiB */
    FAKE_ARM64_64K, /* 64 KiB pages, 512 MiB blocks, which are pageblocks: a 1,024th of 512 MiB */
    FAKE_PPC64,     /* hash tables; 64 KiB pages, 256 MiB blocks: a 64th of 16 MiB */
};

/* A geometry to begin with; 64 blocks of addresses, ARM64_16K and PPC64 256, X86 1 TiB. Change
 * what you like. */
struct memplug_geometry fake_geometry(enum fake_shape shape);

/* -EINVAL: a machine that cannot be built; -ENOMEM. */
int fake_open(const struct fake_config *config, struct fake_machine **machine);

/* Ends the machine whatever state it is in. Returns how many things the pool had left behind
 * (extents, mappings, memory, tables, a held lock); text, which may be null, names them. */
unsigned fake_close(struct fake_machine *machine, char *text, size_t size_bytes);

/* For memplug_config.host. */
const struct memplug_host *fake_host(const struct fake_machine *machine);

/* Memory for memplug_open(): zeroed, page-aligned, its end against a page that faults where
 * 64-byte alignment allows it. Given back by fake_close(). Null: no memory. */
void *fake_metadata(struct fake_machine *machine, uint64_t size_bytes);

/* --- backings --------------------------------------------------------------------------------- */

/* What the bytes of a backing hold when they are attached. */
enum fake_content {
    FAKE_CONTENT_JUNK, /* random, new each time; poisoned when detached */
    FAKE_CONTENT_BYTE, /* one byte, for instance 0xA5; poisoned when detached */
    FAKE_CONTENT_ZERO, /* as a fresh memfd: zeroed at each attach, punched when detached */
    FAKE_CONTENT_KEEP, /* as a dax device: what was there, also the memmap of a former life */
};

#define FAKE_POISON_BYTE 0x5c

struct fake_backing_spec {
    uint64_t size_bytes; /* a multiple of the page */
    uint64_t alignment;  /* a power of two, at least a page; 0: the page */
    enum fake_content content;
    uint8_t byte;
    struct fake_backing *same_as; /* another name for this backing's bytes from same_offset on */
    uint64_t same_offset;
};

/* Null: no memory, or a spec that cannot be. Closed by fake_close() at the latest; close panics
 * while an extent of it is attached. */
struct fake_backing *fake_backing_open(struct fake_machine *machine,
                                       const struct fake_backing_spec *spec);
void fake_backing_close(struct fake_backing *backing);

/* From now on attach() answers -EBUSY, or -ENODEV. */
void fake_backing_set_busy(struct fake_backing *backing, bool busy);
void fake_backing_set_unmappable(struct fake_backing *backing, bool unmappable);

/* The backing's bytes past all mappings; panic if they are not there. */
void fake_backing_read(struct fake_backing *backing, uint64_t offset, void *to, size_t size_bytes);
void fake_backing_write(struct fake_backing *backing, uint64_t offset, const void *from,
                        size_t size_bytes);

/* --- time, CPUs, shortage --------------------------------------------------------------------- */

/* Which CPU the calling thread is; under the scheduler, the calling fibre. 0 at first. */
void fake_set_cpu(unsigned cpu);

/* The clock as now_ns() would read it, without a step. */
uint64_t fake_clock(const struct fake_machine *machine);
/* Virtual clock only. */
void fake_clock_advance(struct fake_machine *machine, uint64_t ns);

/* From now on at most so many more boot pages are handed out, for tables, memmaps and memory;
 * what comes back adds to it. UINT64_MAX: as many as there are. */
void fake_set_boot_budget(struct fake_machine *machine, uint64_t nr_pages);

/* --- look on ---------------------------------------------------------------------------------- */

enum fake_operation {
    FAKE_LOCK,
    FAKE_ATTACH,
    FAKE_ALIAS,
    FAKE_PROVIDE,
    FAKE_MEMORY_GET,
    FAKE_UNLOCK,
    FAKE_DETACH,
    FAKE_UNMAP,
    FAKE_MEMORY_PUT,
    FAKE_ALIGNMENT,
    FAKE_NOW,
    FAKE_CPU,
    FAKE_RELAX,
    FAKE_LEND,
    FAKE_RETURN,
    FAKE_RESTORE,
    FAKE_NR_OPERATIONS
};

struct fake_stat {
    uint64_t nr_calls[FAKE_NR_OPERATIONS]; /* since open */
    uint64_t nr_direct_tables, nr_memmap_tables; /* page tables, roots included */
    uint64_t nr_table_pages, nr_provided_pages, nr_memory_pages, nr_free_boot_pages;
    uint64_t attached_bytes, aliased_bytes, provided_bytes, memory_bytes;
    uint64_t nr_extents, nr_mappings, nr_memories;
    uint64_t nr_lent_pages, nr_lent_provided_pages; /* of the memmap: show another page */
};

void fake_stat(const struct fake_machine *machine, struct fake_stat *stat);

/* Walk the page tables; compare each leaf with what was attached, aliased or provided there, and
 * with what the process has really mapped there; find leftover tables, lost frames and writes past
 * the end of memory_get()'s memory. 0, or -EUCLEAN and the first finding. While no call runs. */
int fake_check(struct fake_machine *machine, char *text, size_t size_bytes);

/* Extents, mappings, memory, tables, boot memory, lock; equal states give equal texts. Addresses
 * that the machine chose itself are not part of the state. While no call runs. */
void fake_dump(const struct fake_machine *machine, memplug_write_t *write, void *context);

/* What a breach of contract calls in place of "print and abort"; may longjmp (the lock stays as
 * it is, nothing else was changed), and if it returns the machine aborts after all. */
void fake_set_panic_hook(struct fake_machine *machine,
                         void (*hook)(void *context, const char *text), void *context);

/* For hosts and tests that find a breach themselves. */
_Noreturn void fake_panic(struct fake_machine *machine, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
