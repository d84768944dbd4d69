/* SPDX-License-Identifier: MIT */
/* Looking at the fake machine: statistics, the dump, and the walk that finds what is wrong. */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void fake_stat(const struct fake_machine *machine, struct fake_stat *stat)
{
    uint64_t i;

    *stat = (struct fake_stat){
        .nr_direct_tables = machine->direct_tables.nr_tables,
        .nr_memmap_tables = machine->memmap_tables.nr_tables,
        .nr_free_boot_pages = machine->nr_free_boot_pages,
        .nr_extents = machine->nr_extents,
        .nr_mappings = machine->nr_mappings,
        .nr_memories = machine->nr_memories,
    };
    for (i = 0; i < FAKE_NR_OPERATIONS; i++)
        stat->nr_calls[i] = atomic_load_explicit(&machine->nr_calls[i], memory_order_relaxed);
    for (i = 0; i < machine->nr_boot_pages; i++) {
        stat->nr_table_pages += machine->boot_kind[i] == FAKE_BOOT_TABLE;
        stat->nr_provided_pages += machine->boot_kind[i] == FAKE_BOOT_MEMMAP;
        stat->nr_memory_pages += machine->boot_kind[i] == FAKE_BOOT_MEMORY;
    }
    for (i = 0; i < machine->nr_extents; i++)
        stat->attached_bytes += machine->extents[i].is.size_bytes;
    for (i = 0; i < machine->nr_mappings; i++)
        *(machine->mappings[i].alias ? &stat->aliased_bytes : &stat->provided_bytes) +=
            machine->mappings[i].size_bytes;
    for (i = 0; i < machine->nr_mappings; i++) {
        stat->nr_lent_pages += fake_nr_lent(&machine->mappings[i]);
        if (!machine->mappings[i].alias)
            stat->nr_lent_provided_pages += fake_nr_lent(&machine->mappings[i]);
    }
    for (i = 0; i < machine->nr_memories; i++)
        stat->memory_bytes += machine->memories[i].size_bytes;
}

/* --- dump ------------------------------------------------------------------------------------- */

struct dump {
    memplug_write_t *write;
    void *context;
    const struct fake_tables *tables;
    uint64_t nr_leaves[FAKE_LEVELS_MAX], nr_tables[FAKE_LEVELS_MAX];
};

__attribute__((format(printf, 2, 3)))
static void put(const struct dump *dump, const char *format, ...)
{
    char text[256];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (length > (int)sizeof(text) - 1)
        length = (int)sizeof(text) - 1;
    dump->write(dump->context, text, (size_t)length);
}

static bool dump_table(void *context, unsigned level, uint64_t frame, unsigned nr_used)
{
    struct dump *dump = context;

    (void)frame, (void)nr_used;
    dump->nr_tables[level]++;
    return true;
}

static bool dump_leaf(void *context, uint64_t where, uint64_t unit_bytes, uint64_t frame)
{
    struct dump *dump = context;

    (void)where, (void)frame;
    dump->nr_leaves[(uint64_t)1 << dump->tables->shift[0] == unit_bytes ? 0 : 1]++;
    return true;
}

static void dump_tables(struct dump *dump, const struct fake_tables *tables)
{
    const struct fake_tables_visitor visitor = {dump_table, dump_leaf, dump};
    unsigned level;

    memset(dump->nr_leaves, 0, sizeof(dump->nr_leaves));
    memset(dump->nr_tables, 0, sizeof(dump->nr_tables));
    dump->tables = tables;
    fake_tables_walk(tables, &visitor);
    put(dump, "tables of the %s:", tables->name);
    for (level = tables->nr_levels; level-- > 0;)
        put(dump, " %" PRIu64, dump->nr_tables[level]);
    put(dump, ", leaves: pages %" PRIu64 " large %" PRIu64 "\n", dump->nr_leaves[0],
        dump->nr_leaves[1]);
}

static int compare_sizes(const void *left, const void *right)
{
    const uint64_t *a = left;
    const uint64_t *b = right;

    return (*a > *b) - (*a < *b);
}

/* By size: where they lie is the machine's choice. */
static void dump_memories(const struct dump *dump, const struct fake_machine *machine)
{
    uint64_t *sizes = calloc(machine->nr_memories + 1, sizeof(*sizes));
    size_t i;

    if (!sizes) {
        put(dump, "memory: no memory to list it\n");
        return;
    }
    for (i = 0; i < machine->nr_memories; i++)
        sizes[i] = machine->memories[i].size_bytes;
    qsort(sizes, machine->nr_memories, sizeof(*sizes), compare_sizes);
    for (i = 0; i < machine->nr_memories; i++)
        put(dump, "memory: %" PRIu64 " bytes\n", sizes[i]);
    free(sizes);
}

/* Runs of units that show another page. */
static void dump_lent(const struct dump *dump, const struct fake_mapping *mapping)
{
    uint64_t nr = mapping->size_bytes / mapping->unit_bytes;
    uint64_t i;

    if (fake_nr_lent(mapping))
        put(dump, " lent");
    for (i = 0; fake_nr_lent(mapping) && i < nr; i++) {
        uint64_t first = i;

        while (i < nr && fake_is_lent(mapping, i))
            i++;
        if (i > first)
            put(dump, " %" PRIu64 "-%" PRIu64, first, i - 1);
    }
    put(dump, "\n");
}

void fake_dump(const struct fake_machine *machine, memplug_write_t *write, void *context)
{
    struct dump dump = {.write = write, .context = context};
    struct fake_stat stat;
    size_t i;

    fake_stat(machine, &stat);
    for (i = 0; i < machine->nr_extents; i++) {
        const struct memplug_extent *extent = &machine->extents[i].is;

        put(&dump, "extent 0x%" PRIx64 " + 0x%" PRIx64 ": backing %u offset 0x%" PRIx64
            " memmap 0x%" PRIx64 " node %d\n", extent->address, extent->size_bytes,
            ((const struct fake_backing *)extent->backing)->number, extent->offset_bytes,
            extent->memmap_bytes, extent->node);
    }
    for (i = 0; i < machine->nr_mappings; i++) {
        const struct fake_mapping *mapping = &machine->mappings[i];

        put(&dump, "memmap 0x%" PRIx64 " + 0x%" PRIx64 " unit 0x%" PRIx64, mapping->offset,
            mapping->size_bytes, mapping->unit_bytes);
        if (mapping->alias)
            put(&dump, ": alias of 0x%" PRIx64, mapping->address);
        else
            put(&dump, ": provided");
        dump_lent(&dump, mapping);
    }
    dump_memories(&dump, machine);
    dump_tables(&dump, &machine->direct_tables);
    dump_tables(&dump, &machine->memmap_tables);
    put(&dump, "boot pages: tables %" PRIu64 " memmap %" PRIu64 " memory %" PRIu64 " free %" PRIu64
        "\n", stat.nr_table_pages, stat.nr_provided_pages, stat.nr_memory_pages,
        stat.nr_free_boot_pages);
    put(&dump, "lock: %s\n",
        fake_mutex_is_held(&((struct fake_machine *)machine)->lock) ? "held" : "free");
}

/* --- what this process has mapped ------------------------------------------------------------- */

struct piece {
    uint64_t start, end, array; /* of the array, at this place in this process */
};

struct pieces {
    struct piece *piece;
    size_t nr;
};

static char *read_maps(void)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t size = 1 << 16;
    size_t length = 0;
    char *text = malloc(size);
    ssize_t got = 1;

    while (fd >= 0 && text && got > 0) {
        if (size - length < 1 << 14) {
            char *larger = realloc(text, size *= 2);

            if (!larger) {
                free(text);
                text = NULL;
                break;
            }
            text = larger;
        }
        got = read(fd, text + length, size - length - 1);
        length += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    if (text)
        text[length] = '\0';
    return text;
}

static int find_pieces(const struct fake_machine *machine, struct pieces *pieces)
{
    char *text = read_maps();
    struct stat status;
    char *line = text;
    size_t room = 0;
    char *next;

    *pieces = (struct pieces){0};
    if (!text || fstat(machine->array_fd, &status)) {
        free(text);
        return -ENOMEM;
    }
    for (; *line; line = next) {
        struct piece piece;
        uint64_t inode;

        next = strchrnul(line, '\n');
        next += *next == '\n';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %" SCNu64, &piece.start,
                   &piece.end, &piece.array, &inode) != 4 || inode != status.st_ino)
            continue;
        if (pieces->nr == room) {
            struct piece *larger = realloc(pieces->piece, (room = room * 2 + 64) * sizeof(piece));

            if (!larger)
                break;
            pieces->piece = larger;
        }
        pieces->piece[pieces->nr++] = piece;
    }
    free(text);
    return 0;
}

/* --- check ------------------------------------------------------------------------------------ */

struct check {
    const struct fake_machine *machine;
    const struct fake_tables *tables;
    const struct pieces *pieces;
    size_t next_piece, next_mapping;
    const char *window;
    uint64_t leaf_bytes, nr_tables;
    char *text;
    size_t size_bytes;
};

__attribute__((format(printf, 2, 3)))
static bool wrong(struct check *check, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (check->size_bytes)
        vsnprintf(check->text, check->size_bytes, format, arguments);
    va_end(arguments);
    return false;
}

static bool check_table(void *context, unsigned level, uint64_t frame, unsigned nr_used)
{
    struct check *check = context;

    check->nr_tables++;
    if (frame >= check->machine->nr_boot_pages ||
        check->machine->boot_kind[frame] != FAKE_BOOT_TABLE)
        return wrong(check, "%s: boot page 0x%" PRIx64 " is used as a table and is none",
                     check->tables->name, frame);
    if (nr_used != check->machine->table_used[frame])
        return wrong(check, "%s: a table has %u entries, counted as %u", check->tables->name,
                     nr_used, check->machine->table_used[frame]);
    if (!nr_used && level < check->tables->nr_levels - 1)
        return wrong(check, "%s: an empty table is left at level %u", check->tables->name, level);
    return true;
}

/* Which frame should be mapped here, in which unit? UINT64_MAX: nothing. */
static uint64_t expected(struct check *check, uint64_t where, uint64_t *unit_bytes)
{
    const struct fake_machine *machine = check->machine;
    size_t i;

    if (check->tables == &machine->direct_tables) {
        for (i = 0; i < machine->nr_extents; i++) {
            const struct memplug_extent *extent = &machine->extents[i].is;

            if (where < extent->address || where - extent->address >= extent->size_bytes)
                continue;
            *unit_bytes = fake_direct_unit(machine, where, extent->address + extent->size_bytes);
            return fake_address_array(machine, where);
        }
        return UINT64_MAX;
    }
    for (i = check->next_mapping; i < machine->nr_mappings; i++) {
        const struct fake_mapping *mapping = &machine->mappings[i];

        check->next_mapping = i;
        if (where < mapping->offset)
            break;
        if (where - mapping->offset >= mapping->size_bytes)
            continue;
        *unit_bytes = mapping->unit_bytes;
        return fake_mapping_array(machine, mapping, (where - mapping->offset) / *unit_bytes);
    }
    return UINT64_MAX;
}

static bool check_process(struct check *check, uint64_t where, uint64_t unit_bytes, uint64_t array)
{
    uint64_t start = (uint64_t)(uintptr_t)check->window + where;
    uint64_t done = 0;

    while (done < unit_bytes) {
        const struct piece *piece = &check->pieces->piece[check->next_piece];

        if (check->next_piece == check->pieces->nr || piece->start > start + done)
            return wrong(check, "%s: 0x%" PRIx64 " is not mapped in this process",
                         check->tables->name, where + done);
        if (piece->end <= start + done) {
            check->next_piece++;
            continue;
        }
        if (piece->array + (start + done - piece->start) != array + done)
            return wrong(check, "%s: this process has another frame at 0x%" PRIx64,
                         check->tables->name, where + done);
        done = piece->end - start;
    }
    return true;
}

static bool check_leaf(void *context, uint64_t where, uint64_t unit_bytes, uint64_t frame)
{
    struct check *check = context;
    uint64_t unit_expected = 0;
    uint64_t array = expected(check, where, &unit_expected);

    if (array == UINT64_MAX)
        return wrong(check, "%s: a leaf at 0x%" PRIx64 ", where nothing is", check->tables->name,
                     where);
    if (unit_bytes != unit_expected)
        return wrong(check, "%s: the wrong unit at 0x%" PRIx64, check->tables->name, where);
    if (frame * check->machine->page_bytes != array)
        return wrong(check, "%s: the wrong frame at 0x%" PRIx64, check->tables->name, where);
    check->leaf_bytes += unit_bytes;
    return check_process(check, where, unit_bytes, array);
}

static uint64_t process_bytes(const struct pieces *pieces, const char *window, uint64_t size_bytes)
{
    uint64_t start = (uint64_t)(uintptr_t)window;
    uint64_t sum = 0;
    size_t i;

    for (i = 0; i < pieces->nr; i++)
        if (pieces->piece[i].start >= start && pieces->piece[i].start < start + size_bytes)
            sum += pieces->piece[i].end - pieces->piece[i].start;
    return sum;
}

static bool check_window(struct check *check, const struct fake_tables *tables, const char *window,
                         uint64_t window_bytes, uint64_t mapped_bytes)
{
    const struct fake_tables_visitor visitor = {check_table, check_leaf, check};

    check->tables = tables;
    check->window = window;
    check->leaf_bytes = check->nr_tables = 0;
    check->next_piece = check->next_mapping = 0;
    if (!fake_tables_walk(tables, &visitor))
        return false;
    if (check->nr_tables != tables->nr_tables)
        return wrong(check, "%s: %" PRIu64 " tables, counted as %" PRIu64, tables->name,
                     check->nr_tables, tables->nr_tables);
    if (check->leaf_bytes != mapped_bytes)
        return wrong(check, "%s: leaves for %" PRIu64 " bytes, %" PRIu64 " are mapped",
                     tables->name, check->leaf_bytes, mapped_bytes);
    if (process_bytes(check->pieces, window, window_bytes) != mapped_bytes)
        return wrong(check, "%s: this process has mapped %" PRIu64 " bytes in place of %" PRIu64,
                     tables->name, process_bytes(check->pieces, window, window_bytes),
                     mapped_bytes);
    return true;
}

static bool check_boot(struct check *check, const struct fake_stat *stat)
{
    const struct fake_machine *machine = check->machine;
    const struct fake_memory *overrun = fake_memory_overrun(machine);
    uint64_t nr_memory_pages = 0;
    size_t i;

    for (i = 0; i < machine->nr_memories; i++)
        nr_memory_pages += machine->memories[i].nr_pages;
    if (overrun)
        return wrong(check, "written past the end of %" PRIu64 " bytes of memory",
                     overrun->size_bytes);
    if (nr_memory_pages != stat->nr_memory_pages)
        return wrong(check, "%" PRIu64 " boot pages of memory, %" PRIu64 " in use",
                     stat->nr_memory_pages, nr_memory_pages);
    if (stat->nr_table_pages != stat->nr_direct_tables + stat->nr_memmap_tables)
        return wrong(check, "%" PRIu64 " boot pages are tables, counted as %" PRIu64,
                     stat->nr_table_pages, stat->nr_direct_tables + stat->nr_memmap_tables);
    if ((stat->nr_provided_pages + stat->nr_lent_provided_pages) * machine->page_bytes !=
        stat->provided_bytes)
        return wrong(check, "%" PRIu64 " boot pages are memmap", stat->nr_provided_pages);
    if (stat->nr_table_pages + stat->nr_provided_pages + stat->nr_memory_pages +
            stat->nr_free_boot_pages != machine->nr_boot_pages)
        return wrong(check, "boot pages are lost");
    return true;
}

int fake_check(struct fake_machine *machine, char *text, size_t size_bytes)
{
    struct pieces pieces;
    struct check check = {.machine = machine, .pieces = &pieces, .text = text,
                          .size_bytes = text ? size_bytes : 0};
    struct fake_stat stat;
    bool good;

    if (check.size_bytes)
        text[0] = '\0';
    if (find_pieces(machine, &pieces)) {
        wrong(&check, "the mappings of this process cannot be read");
        return -EUCLEAN;
    }
    fake_stat(machine, &stat);
    good = check_boot(&check, &stat) &&
           check_window(&check, &machine->direct_tables, machine->host.direct_map,
                        machine->host.geometry.address_limit, stat.attached_bytes) &&
           check_window(&check, &machine->memmap_tables, machine->host.memmap,
                        machine->memmap_bytes, stat.aliased_bytes + stat.provided_bytes);
    free(pieces.piece);
    return good ? 0 : -EUCLEAN;
}
