/* SPDX-License-Identifier: MIT */
/*
 * Page tables of four levels. The kernel's half has its second level from the start, so that the
 * first never changes and every task's space shares it by a copy. What an entry maps says what has
 * to go back: no second record.
 */
#include "bare.h"

#include "io.h"

#define ENTRIES 512u
#define LEVELS 4u
#define KERNEL_ENTRY (BARE_PRESENT | BARE_WRITE)

extern char bare_image[], bare_image_data[], bare_image_end[];

uint64_t bare_root;
static uint64_t devices = BARE_DEVICES;

static volatile uint64_t *table_at(uint64_t entry)
{
    return bare_direct(entry & BARE_FRAME);
}

/* Level 4 is the root's. */
static unsigned index_of(uint64_t virtual, unsigned level)
{
    return virtual >> (12 + 9 * (level - 1)) & (ENTRIES - 1);
}

/* The entry at this level, or the large one above it. */
static volatile uint64_t *walk(uint64_t root, uint64_t virtual, unsigned *level, bool make)
{
    volatile uint64_t *table = table_at(root);

    for (unsigned at = LEVELS; at > *level; at--) {
        volatile uint64_t *entry = &table[index_of(virtual, at)];
        uint64_t fresh;

        if (*entry & BARE_IS_LARGE) {
            *level = at;
            return entry;
        }
        if (!*entry) {
            if (!make || bare_table_get(&fresh))
                return NULL;
            *entry = fresh | KERNEL_ENTRY;
        }
        table = table_at(*entry);
    }
    return &table[index_of(virtual, *level)];
}

volatile uint64_t *bare_entry(uint64_t root, uint64_t virtual, uint64_t *unit_bytes)
{
    unsigned level = 1;
    volatile uint64_t *entry = walk(root, virtual, &level, false);

    *unit_bytes = (uint64_t)BARE_PAGE << (9 * (level - 1));
    return entry;
}

int bare_map(uint64_t root, uint64_t virtual, uint64_t address, uint64_t size_bytes,
             uint64_t unit_bytes, uint64_t flags)
{
    unsigned wanted = unit_bytes == BARE_PAGE ? 1 : 2;
    uint64_t kind = BARE_PRESENT | flags | (wanted == 2 ? BARE_IS_LARGE : 0);

    for (uint64_t done = 0; done < size_bytes; done += unit_bytes) {
        unsigned level = wanted;
        volatile uint64_t *entry = walk(root, virtual + done, &level, true);

        if (entry && !*entry) {
            *entry = (address + done) | kind;
            continue;
        }
        if (done)
            bare_unmap(root, virtual, done);
        return entry ? -BARE_EEXIST : -BARE_ENOMEM;
    }
    return 0;
}

/* --- the way back ----------------------------------------------------------------------------- */

static bool is_empty(const volatile uint64_t *table)
{
    for (unsigned i = 0; i < ENTRIES; i++)
        if (table[i])
            return false;
    return true;
}

/* The table below this level that maps the address, if it is empty, leaves the tree. */
static void prune(uint64_t root, uint64_t virtual, unsigned level, uint64_t *gone)
{
    unsigned above = level + 1;
    volatile uint64_t *entry = walk(root, virtual, &above, false);
    uint64_t table;

    if (!entry || above != level + 1 || !(*entry & BARE_PRESENT) || (*entry & BARE_IS_LARGE) ||
        !is_empty(table_at(*entry)))
        return;
    table = *entry & BARE_FRAME;
    *entry = 0;
    *(uint64_t *)bare_direct(table) = *gone; /* reads as an entry that is not present */
    *gone = table;
}

/* A table is used again only when no CPU can be walking it. */
static void prune_all(uint64_t root, uint64_t virtual, uint64_t size_bytes)
{
    uint64_t end = virtual + size_bytes, gone = 0;

    for (unsigned level = 1; level <= 2; level++) {
        uint64_t span = (uint64_t)BARE_PAGE << (9 * level);

        for (uint64_t at = virtual & ~(span - 1); at < end; at += span)
            prune(root, at, level, &gone);
    }
    if (gone)
        bare_flush();
    while (gone) {
        uint64_t next = *(uint64_t *)bare_direct(gone);

        bare_table_put(gone);
        gone = next;
    }
}

/* Mark what goes, make everybody forget it, and only then give it back. */
void bare_unmap(uint64_t root, uint64_t virtual, uint64_t size_bytes)
{
    uint64_t unit = 0;

    for (uint64_t done = 0; done < size_bytes; done += unit) {
        volatile uint64_t *entry = bare_entry(root, virtual + done, &unit);

        if (entry)
            *entry &= ~(uint64_t)BARE_PRESENT;
    }
    bare_flush_range(virtual, size_bytes);
    for (uint64_t done = 0; done < size_bytes; done += unit) {
        volatile uint64_t *entry = bare_entry(root, virtual + done, &unit);
        uint64_t was = entry ? *entry : 0;

        if (entry)
            *entry = 0;
        if (was & BARE_OWNED)
            bare_frames_put(was & BARE_FRAME, unit == BARE_PAGE ? 0 : 9);
    }
    prune_all(root, virtual, size_bytes);
}

/* --- the kernel's half ------------------------------------------------------------------------ */

static void must(int error, const char *what)
{
    if (error)
        bare_panic("%s: error %d", what, -error);
}

/* The direct map of the machine's memory, in large pages: also of what lies between. */
static void map_ram(void)
{
    uint64_t done = 0;

    for (unsigned i = 0; i < bare_firmware.nr_ram; i++) {
        uint64_t start = bare_firmware.ram[i].start & ~(BARE_LARGE - 1);
        uint64_t end = (bare_firmware.ram[i].end + BARE_LARGE - 1) & ~(BARE_LARGE - 1);

        start = start < done ? done : start;
        if (start >= end)
            continue;
        must(bare_map(bare_root, BARE_DIRECT + start, start, end - start, BARE_LARGE,
                      BARE_WRITE | BARE_NX), "the direct map");
        done = end;
    }
}

/* Where it was linked, in pages; the page at 0 stays away. */
static void map_image(void)
{
    uint64_t text = (uintptr_t)bare_image, data = (uintptr_t)bare_image_data;
    uint64_t end = (uintptr_t)bare_image_end;

    must(bare_map(bare_root, BARE_PAGE, BARE_PAGE, text - BARE_PAGE, BARE_PAGE, BARE_WRITE),
         "low memory");
    must(bare_map(bare_root, text, text, data - text, BARE_PAGE, 0), "the image's text");
    must(bare_map(bare_root, data, data, end - data, BARE_PAGE, BARE_WRITE | BARE_NX),
         "the image's data");
}

void bare_tables_start(void)
{
    static const uint64_t windows[] = {0, BARE_DIRECT, BARE_DEVICES, BARE_MEMMAP};
    unsigned level;

    must(bare_table_get(&bare_root), "page tables");
    for (unsigned i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
        level = 3;
        if (!walk(bare_root, windows[i], &level, true))
            bare_panic("no memory for page tables");
    }
    map_ram();
    map_image();
    write_cr3(bare_root);
}

volatile void *bare_map_device(uint64_t address, uint64_t size_bytes)
{
    uint64_t first = address & ~(uint64_t)(BARE_PAGE - 1);
    uint64_t size = (address + size_bytes - first + BARE_PAGE - 1) & ~(uint64_t)(BARE_PAGE - 1);
    uint64_t at = devices;

    if (bare_map(bare_root, at, first, size, BARE_PAGE, BARE_WRITE | BARE_UNCACHED | BARE_NX))
        return NULL;
    devices += size + BARE_PAGE;
    return (volatile void *)(at + (address - first));
}

/* --- a task's space --------------------------------------------------------------------------- */

int bare_space_new(uint64_t *root)
{
    int error = bare_table_get(root);

    for (unsigned i = 0; !error && i < ENTRIES; i++)
        table_at(*root)[i] = table_at(bare_root)[i];
    return error;
}

/* Whose own part is unmapped: what is left is its second level. */
void bare_space_free(uint64_t root)
{
    uint64_t own = table_at(root)[index_of(BARE_TASK, LEVELS)];

    if (own)
        bare_table_put(own & BARE_FRAME);
    bare_table_put(root);
}
