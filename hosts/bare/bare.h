/* SPDX-License-Identifier: MIT */
/*
 * A small x86-64 kernel whose memory is a pool: what its parts need of each other. One console, no
 * scheduler: CPU 0 runs the console and the drivers, the others a task each, or sleep.
 */
#ifndef BARE_H
#define BARE_H

#include <memplug/attr.h>
#include <memplug/boot.h>

#include <stdarg.h>

#define BARE_MAX_CPUS 8u
#define BARE_MAX_NODES 8u
#define BARE_MAX_RANGES 16u
#define BARE_PAGE 4096u
#define BARE_LARGE ((uint64_t)2 << 20)
#define BARE_GIB ((uint64_t)1 << 30)

/* Linux's error numbers: there is no errno.h. */
enum {
    BARE_ENOENT = 2,
    BARE_ESRCH = 3,
    BARE_EINTR = 4,
    BARE_EIO = 5,
    BARE_ENXIO = 6,
    BARE_EAGAIN = 11,
    BARE_ENOMEM = 12,
    BARE_EBUSY = 16,
    BARE_EEXIST = 17,
    BARE_ENODEV = 19,
    BARE_EINVAL = 22,
    BARE_ENOSPC = 28,
    BARE_EDEADLK = 35,
    BARE_ETIMEDOUT = 110,
};

/* --- text.c: the few functions that the archives and the compiler want, and text -------------- */

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
int bcmp(const void *a, const void *b, size_t size);
void *memchr(const void *from, int byte, size_t size);
size_t strlen(const char *text);
size_t strcspn(const char *text, const char *stop);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);

/* %s %c %d %u %x %lu %lx %ld and %.*s, no widths; always terminated; returns the full length. */
size_t bare_format(char *text, size_t size_bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
size_t bare_format_list(char *text, size_t size_bytes, const char *format, va_list *list);
/* Decimal, or hexadecimal behind 0x; false if there is more, or nothing. */
bool bare_number(const char *text, uint64_t *number);

/* --- serial.c --------------------------------------------------------------------------------- */

void bare_serial_start(void);
void bare_write(const char *text, size_t length);
void bare_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
int bare_read_byte(void); /* -1: there is none */
_Noreturn void bare_halt(void);  /* all CPUs; QEMU ends, if it has the device for it */
_Noreturn void bare_panic(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- firmware.c: what the boot protocol and the ACPI tables say ------------------------------- */

struct bare_range {
    uint64_t start, end;
    int node;
};

struct bare_firmware {
    char cmdline[1024];
    struct bare_range ram[BARE_MAX_RANGES]; /* whole pages, ascending, page 0 left out */
    unsigned nr_ram;
    struct bare_range window; /* where memory may be plugged in; empty if nowhere */
    unsigned nr_nodes;
    unsigned nr_cpus;
    uint8_t apic_ids[BARE_MAX_CPUS];
    uint16_t gpe, gpe_bytes; /* ports of ACPI's general-purpose events: status, then enable */
    uint16_t sci;            /* the pin of ACPI's interrupt */
};
extern struct bare_firmware bare_firmware;

void bare_firmware_read(uint64_t start_info);
/* What stands behind "name=" on the command line; null if it is not there. */
const char *bare_option(const char *name, size_t *length);

/* --- memory.c: frames of the kernel's own ----------------------------------------------------- */

/* From boot memory that no pool manages until the pool is there, from the pool afterwards. 2^order
 * frames, aligned to themselves; of any content: nobody needs a memmap that is zero. -ENOMEM. */
int bare_frames_get(unsigned order, uint64_t *address);
void bare_frames_put(uint64_t address, unsigned order);
/* One frame for a page table: of boot memory, so that it does not keep a block from going, unless
 * the machine is so large that this is used up. */
int bare_table_get(uint64_t *address);
void bare_table_put(uint64_t address);

void bare_memory_start(void);
/* The pool has booted: give it no frame that is used already, and take from it from now on. */
void bare_memory_use(struct memplug *pool);

struct bare_memory_stat {
    uint64_t early_bytes; /* of boot memory that no pool manages, used now */
    uint64_t table_pages; /* of these: page tables */
    uint64_t pool_pages;  /* taken from the pool */
};
void bare_memory_stat(struct bare_memory_stat *stat);

/* --- tables.c: page tables -------------------------------------------------------------------- */

#define BARE_DIRECT 0xffff888000000000u
#define BARE_DEVICES 0xffffc90000000000u
#define BARE_MEMMAP 0xffffea0000000000u
#define BARE_TASK 0x0000400000000000u /* where a task sees its own pages */

#define BARE_PRESENT 1u
#define BARE_WRITE 2u
#define BARE_UNCACHED 0x18u
#define BARE_IS_LARGE 0x80u
#define BARE_OWNED 0x200u  /* the frames were got for this entry, and go with it */
#define BARE_MOVING 0x400u /* not present: a mover has it, wait */
#define BARE_NX ((uint64_t)1 << 63)
#define BARE_FRAME 0x000ffffffffff000u

static inline void *bare_direct(uint64_t address)
{
    return (void *)(BARE_DIRECT + address);
}

extern uint64_t bare_root; /* of the kernel */

void bare_tables_start(void);
/* unit_bytes: a page or BARE_LARGE. -EEXIST, -ENOMEM: nothing is mapped. */
int bare_map(uint64_t root, uint64_t virtual, uint64_t address, uint64_t size_bytes,
             uint64_t unit_bytes, uint64_t flags);
/* Whatever is mapped there, in whatever unit; owned frames go back; every CPU has forgotten it. */
void bare_unmap(uint64_t root, uint64_t virtual, uint64_t size_bytes);
/* The entry that maps this, or would: of a page or a large page. Null: no table for it. */
volatile uint64_t *bare_entry(uint64_t root, uint64_t virtual, uint64_t *unit_bytes);
/* Map registers; null: no memory. They stay. */
volatile void *bare_map_device(uint64_t address, uint64_t size_bytes);
int bare_space_new(uint64_t *root); /* the kernel's half, and nothing of its own */
void bare_space_free(uint64_t root);

/* --- cpu.c, apic.c, clock.c ------------------------------------------------------------------- */

struct bare_task;

struct bare_cpu {
    unsigned index; /* first: where %gs points */
    uint32_t apic_id;
    bool online;
    uint64_t flushed;              /* the last shootdown that it has seen */
    struct bare_task *task;        /* what it runs, or null */
    uint64_t nr_interrupts, nr_faults;
};
extern struct bare_cpu bare_cpus[BARE_MAX_CPUS];
extern unsigned bare_nr_cpus; /* that are online */

enum { BARE_VECTOR_TIMER = 32, BARE_VECTOR_FLUSH, BARE_VECTOR_WAKE, BARE_VECTOR_SERIAL,
       BARE_VECTOR_DEVICE, BARE_VECTOR_ACPI, BARE_VECTOR_HALT, BARE_VECTOR_SPURIOUS = 63 };

unsigned bare_cpu(void);
void bare_cpu_start(unsigned index); /* of the CPU that runs: tables, interrupts, timer */
void bare_start_others(void (*run)(unsigned index));
void bare_apic_start(void); /* once, before any CPU starts */
void bare_apic_enable(void);
void bare_apic_end(void);
void bare_apic_send(uint32_t apic_id, unsigned vector);
void bare_apic_send_others(unsigned vector);
void bare_apic_wake(uint32_t apic_id, uint64_t code); /* INIT, SIPI, SIPI */
#define BARE_LEVEL 0x8000u
void bare_route(unsigned pin, unsigned vector); /* of the I/O APIC, to CPU 0; perhaps a level */

void bare_clock_start(void);
uint64_t bare_now(void);
/* From this time on *stop is 1: set by CPU 0's timer, for whoever sleeps there. Null: never. */
void bare_alarm(uint64_t at_ns, uint32_t *stop);
void bare_alarm_ring(void); /* if it is time */
/* Until an interrupt comes, but at most so long. */
void bare_sleep(uint64_t ns);
void bare_spin_ns(uint64_t ns);

/* Every CPU forgets what it remembers of page tables. Interrupts are on. */
void bare_flush(void);
/* Of these pages only. */
void bare_flush_range(uint64_t virtual, uint64_t size_bytes);
/* For the test of the test: no CPU but this one forgets anything. */
extern bool bare_flush_others;

/* --- lock.c ----------------------------------------------------------------------------------- */

struct bare_spin {
    uint32_t next, now;
};
void bare_spin_lock(struct bare_spin *spin);
void bare_spin_unlock(struct bare_spin *spin);

/* A lock whose waiters sleep. */
struct bare_lock {
    uint32_t holder; /* CPU and 1; 0: free */
    uint32_t nr_waiting;
};
int bare_lock(struct bare_lock *lock, const struct memplug_limit *limit);
void bare_unlock(struct bare_lock *lock);

/* --- host.c, pool.c --------------------------------------------------------------------------- */

/* What can be attached: memory at these addresses. */
struct bare_backing {
    uint64_t address, size_bytes;
};

extern struct memplug *bare_pool;
extern struct memplug_attr bare_attr;
extern const struct memplug_limit bare_limit;
extern struct bare_backing bare_boot_backing;

void bare_host_start(struct memplug_host *host);
void bare_pool_start(void);
uint64_t bare_block_bytes(void);
void bare_geometry(struct memplug_geometry *geometry);

/* --- console.c -------------------------------------------------------------------------------- */

/* Takes what has come in; true if there was a line. */
bool bare_console_poll(void);

#endif
