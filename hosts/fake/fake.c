/* SPDX-License-Identifier: MIT */
/* The fake machine: opening and closing it, its lock, clock and CPUs. */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull

struct memplug_geometry fake_geometry(enum fake_shape shape)
{
    /* Shifts of the page, section, block and large unit, the pageblock's order; blocks. */
    static const struct {
        uint8_t page, section, block, large, pageblock_order;
        uint16_t nr_blocks;
    } shapes[] = {
        [FAKE_X86] = {12, 27, 27, 21, 9, 8192},
        [FAKE_SMALL] = {12, 20, 20, 12, 6, 64},
        [FAKE_16K] = {14, 22, 22, 21, 6, 64},
        [FAKE_64K] = {16, 26, 26, 16, 6, 64},
        [FAKE_S390X] = {12, 28, 28, 20, 8, 64},
        [FAKE_ARM64_16K] = {14, 27, 27, 25, 11, 256},
        [FAKE_ARM64_64K] = {16, 29, 29, 29, 13, 64},
        [FAKE_PPC64] = {16, 24, 28, 24, 8, 256},
    };

    return (struct memplug_geometry){
        .page_shift = shapes[shape].page,
        .pageblock_order = shapes[shape].pageblock_order,
        .section_shift = shapes[shape].section,
        .block_shift = shapes[shape].block,
        .large_shift = shapes[shape].large,
        .page_struct_bytes = 64,
        .address_limit = (uint64_t)shapes[shape].nr_blocks << shapes[shape].block,
    };
}

/* --- panic ------------------------------------------------------------------------------------ */

void fake_set_panic_hook(struct fake_machine *machine,
                         void (*hook)(void *context, const char *text), void *context)
{
    machine->panic_hook = hook;
    machine->panic_context = context;
}

_Noreturn void fake_panic(struct fake_machine *machine, const char *format, ...)
{
    char text[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (machine->panic_hook)
        machine->panic_hook(machine->panic_context, text);
    fprintf(stderr, "fake machine: %s\n", text);
    abort();
}

/* --- host operations -------------------------------------------------------------------------- */

static const char *const operation_names[FAKE_NR_OPERATIONS] = {
    "lock",   "attach",       "memmap_alias", "memmap_provide", "memory_get", "unlock", "detach",
    "memmap_unmap", "memory_put", "alignment", "now_ns", "cpu", "relax", "memmap_lend",
    "memmap_return", "memmap_restore",
};

struct fake_machine *fake_enter(void *host, enum fake_operation operation, bool locked)
{
    struct fake_machine *machine = host;

    atomic_fetch_add_explicit(&machine->nr_calls[operation], 1, memory_order_relaxed);
    if (locked && !fake_mutex_is_mine(&machine->lock))
        fake_panic(machine, "%s: the caller does not hold the lock", operation_names[operation]);
    if (operation != FAKE_RELAX)
        fake_sched_point();
    return machine;
}

static int fake_lock(void *host, const struct memplug_limit *limit)
{
    struct fake_machine *machine = fake_enter(host, FAKE_LOCK, false);
    const struct memplug_limit no_limit = {0};

    return fake_mutex_lock(&machine->lock, machine, limit ? limit : &no_limit);
}

static void fake_unlock(void *host)
{
    struct fake_machine *machine = fake_enter(host, FAKE_UNLOCK, true);

    if (fake_mutex_unlock(&machine->lock))
        fake_panic(machine, "unlock: the caller does not hold the lock");
    fake_sched_point();
}

uint64_t fake_clock(const struct fake_machine *machine)
{
    struct timespec now;

    if (!machine->config.real_clock)
        return atomic_load(&machine->clock);
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void fake_clock_advance(struct fake_machine *machine, uint64_t ns)
{
    atomic_fetch_add(&machine->clock, ns);
}

static uint64_t fake_now_ns(void *host)
{
    struct fake_machine *machine = fake_enter(host, FAKE_NOW, false);

    if (machine->config.real_clock)
        return fake_clock(machine);
    return atomic_fetch_add(&machine->clock, machine->config.clock_step_ns) +
           machine->config.clock_step_ns;
}

static unsigned fake_cpu(void *host)
{
    struct fake_machine *machine = fake_enter(host, FAKE_CPU, false);
    unsigned cpu = fake_current_cpu() % machine->host.nr_cpus;

    if (machine->config.random_cpu) {
        uint64_t state = atomic_fetch_add(&machine->cpu_random, 1);
        uint64_t random = fake_random(&state);

        if (random % 8 == 0)
            return (unsigned)((random >> 8) % machine->host.nr_cpus);
    }
    return cpu;
}

static void fake_relax(void *host, unsigned nr_spins)
{
    (void)nr_spins;
    fake_enter(host, FAKE_RELAX, false);
    fake_sched_yield();
}

static const struct memplug_host_ops fake_ops = {
    .lock = fake_lock,
    .attach = fake_attach,
    .attach_row = fake_attach_row,
    .memmap_alias = fake_memmap_alias,
    .memmap_provide = fake_memmap_provide,
    .memmap_restore = fake_memmap_restore,
    .memory_get = fake_memory_get,
    .unlock = fake_unlock,
    .detach = fake_detach,
    .memmap_unmap = fake_memmap_unmap,
    .memmap_lend = fake_memmap_lend,
    .memmap_return = fake_memmap_return,
    .memory_put = fake_memory_put,
    .alignment = fake_backing_alignment,
    .now_ns = fake_now_ns,
    .cpu = fake_cpu,
    .relax = fake_relax,
};

/* --- open ------------------------------------------------------------------------------------- */

static bool geometry_is_good(const struct memplug_geometry *geometry)
{
    if (geometry->page_shift != 12 && geometry->page_shift != 14 && geometry->page_shift != 16)
        return false;
    if (geometry->large_shift < geometry->page_shift || geometry->large_shift > 40 ||
        geometry->block_shift < geometry->page_shift || geometry->block_shift > 46)
        return false;
    if (geometry->page_struct_bytes < 32 || geometry->page_struct_bytes > 128 ||
        geometry->page_struct_bytes % 8)
        return false;
    return geometry->address_limit && geometry->address_limit <= (uint64_t)1 << 46 &&
           fake_multiple(geometry->address_limit, (uint64_t)1 << geometry->block_shift);
}

/* Address space that faults, aligned to 2 MiB at least so that huge pages are thinkable. */
static int reserve(struct fake_reservation *reservation, uint64_t size_bytes, uint64_t align,
                   char **start)
{
    void *mapped;

    align = align < (uint64_t)2 << 20 ? (uint64_t)2 << 20 : align;
    align = align > (uint64_t)1 << 30 ? (uint64_t)1 << 30 : align;
    reservation->size_bytes = size_bytes + align;
    mapped = mmap(NULL, reservation->size_bytes, PROT_NONE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return -ENOMEM;
    reservation->start = mapped;
    *start = (char *)mapped + (-(uintptr_t)mapped & (align - 1));
    return 0;
}

static void unreserve(struct fake_reservation *reservation)
{
    if (reservation->start)
        munmap(reservation->start, reservation->size_bytes);
    reservation->start = NULL;
}

static int open_boot(struct fake_machine *machine)
{
    uint64_t size_bytes = machine->config.boot_bytes ? machine->config.boot_bytes : 64ull << 20;

    machine->nr_boot_pages = size_bytes / machine->page_bytes;
    machine->nr_free_boot_pages = machine->nr_boot_pages;
    machine->boot_budget = UINT64_MAX;
    machine->array_bytes = machine->nr_boot_pages * machine->page_bytes;
    machine->boot_kind = calloc(machine->nr_boot_pages + 1, sizeof(*machine->boot_kind));
    machine->table_used = calloc(machine->nr_boot_pages + 1, sizeof(*machine->table_used));
    machine->array_fd = memfd_create("fake-machine", MFD_CLOEXEC);
    if (!machine->boot_kind || !machine->table_used || machine->array_fd < 0 ||
        !machine->nr_boot_pages || ftruncate(machine->array_fd, (off_t)machine->array_bytes))
        return -ENOMEM;
    machine->boot = mmap(NULL, machine->array_bytes, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_NORESERVE, machine->array_fd, 0);
    if (machine->boot == MAP_FAILED) {
        machine->boot = NULL;
        return -ENOMEM;
    }
    return 0;
}

static int open_windows(struct fake_machine *machine)
{
    const struct memplug_geometry *geometry = &machine->host.geometry;
    uint64_t align = machine->large_bytes;
    int error;

    machine->memmap_bytes = (geometry->address_limit >> geometry->page_shift) *
                            geometry->page_struct_bytes;
    machine->memmap_bytes = (machine->memmap_bytes + align - 1) & ~(align - 1);
    error = reserve(&machine->direct_reservation, geometry->address_limit, align,
                    &machine->host.direct_map);
    if (!error)
        error = reserve(&machine->memmap_reservation, machine->memmap_bytes, align,
                        &machine->host.memmap);
    if (!error)
        error = fake_tables_open(&machine->direct_tables, machine, "direct map",
                                 geometry->address_limit);
    if (!error)
        error = fake_tables_open(&machine->memmap_tables, machine, "memmap",
                                 machine->memmap_bytes);
    return error;
}

static void machine_free(struct fake_machine *machine)
{
    while (machine->backings) {
        struct fake_backing *backing = machine->backings;

        machine->backings = backing->next;
        free(backing);
    }
    while (machine->nr_mappings) {
        free(machine->mappings[--machine->nr_mappings].frames);
        free(machine->mappings[machine->nr_mappings].shown);
    }
    free(machine->extents);
    free(machine->mappings);
    free(machine->memories);
    free(machine->boot_kind);
    free(machine->table_used);
    unreserve(&machine->direct_reservation);
    unreserve(&machine->memmap_reservation);
    unreserve(&machine->metadata);
    if (machine->boot)
        munmap(machine->boot, machine->nr_boot_pages * machine->page_bytes);
    if (machine->array_fd >= 0)
        close(machine->array_fd);
    fake_mutex_close(&machine->lock);
    free(machine);
}

int fake_open(const struct fake_config *config, struct fake_machine **opened)
{
    struct fake_machine *machine;
    int error;

    if (!geometry_is_good(&config->geometry) || config->nr_cpus > 64)
        return -EINVAL;
    machine = calloc(1, sizeof(*machine));
    if (!machine)
        return -ENOMEM;
    machine->config = *config;
    machine->array_fd = -1;
    machine->random = config->seed;
    atomic_init(&machine->cpu_random, config->seed);
    if (!machine->config.switch_one_in)
        machine->config.switch_one_in = 3;
    machine->host = (struct memplug_host){.ops = &fake_ops, .context = machine,
                                          .geometry = config->geometry,
                                          .nr_cpus = config->nr_cpus ? config->nr_cpus : 1};
    machine->page_bytes = (uint64_t)1 << config->geometry.page_shift;
    machine->large_bytes = (uint64_t)1 << config->geometry.large_shift;
    machine->block_bytes = (uint64_t)1 << config->geometry.block_shift;
    fake_mutex_open(&machine->lock, "the control lock");
    error = open_boot(machine);
    if (!error)
        error = open_windows(machine);
    if (error) {
        machine_free(machine);
        return error;
    }
    *opened = machine;
    return 0;
}

const struct memplug_host *fake_host(const struct fake_machine *machine)
{
    return &machine->host;
}

void *fake_metadata(struct fake_machine *machine, uint64_t size_bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t whole = (size_bytes + page - 1) & ~(page - 1);
    char *start;

    unreserve(&machine->metadata);
    machine->metadata.size_bytes = whole + page;
    start = mmap(NULL, whole + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                 0);
    if (start == MAP_FAILED)
        return NULL;
    machine->metadata.start = start;
    if (mprotect(start, whole, PROT_READ | PROT_WRITE))
        return NULL;
    return start + ((whole - size_bytes) & ~(uint64_t)63);
}

/* --- close ------------------------------------------------------------------------------------ */

struct leaks {
    char *text;
    size_t size_bytes, length;
    unsigned nr;
};

static void leak(struct leaks *leaks, uint64_t nr, const char *what)
{
    int length;

    if (!nr)
        return;
    leaks->nr += nr > UINT32_MAX / 8 ? UINT32_MAX / 8 : (unsigned)nr;
    if (!leaks->text || leaks->length >= leaks->size_bytes)
        return;
    length = snprintf(leaks->text + leaks->length, leaks->size_bytes - leaks->length,
                      "%s%" PRIu64 " %s", leaks->length ? ", " : "", nr, what);
    leaks->length += length > 0 ? (size_t)length : 0;
}

unsigned fake_close(struct fake_machine *machine, char *text, size_t size_bytes)
{
    struct leaks leaks = {.text = size_bytes ? text : NULL, .size_bytes = size_bytes};

    if (leaks.text)
        leaks.text[0] = '\0';
    leak(&leaks, machine->nr_extents, "extents attached");
    leak(&leaks, machine->nr_mappings, "memmap mappings");
    leak(&leaks, machine->nr_memories, "memories not put");
    leak(&leaks, machine->direct_tables.nr_tables - 1, "tables of the direct map");
    leak(&leaks, machine->memmap_tables.nr_tables - 1, "tables of the memmap");
    leak(&leaks, fake_mutex_is_held(&machine->lock), "lock held");
    if (!leaks.nr) {
        fake_tables_close(&machine->direct_tables);
        fake_tables_close(&machine->memmap_tables);
        leak(&leaks, machine->nr_boot_pages - machine->nr_free_boot_pages, "boot pages lost");
    }
    machine_free(machine);
    return leaks.nr;
}
