/* SPDX-License-Identifier: MIT */
/* The machine as the core sees it: memplug/host.h. */
#include "bare.h"

#include "io.h"

#define SECTION_SHIFT 27
#define MAX_BLOCK_SHIFT 31
#define LARGE_MACHINE ((uint64_t)64 << 30) /* memory that ends below has the smallest blocks */
#define BUSY_SPINS 64u
#define RELAX_NS 50000u

static struct bare_lock control;
static const char *why;

static int refuse(int error, const char *text)
{
    why = text;
    return -error;
}

static int out_of(int error, const char *text)
{
    why = error ? text : NULL;
    return error;
}

/* --- may fail --------------------------------------------------------------------------------- */

static int host_lock(void *host, const struct memplug_limit *limit)
{
    (void)host;
    return bare_lock(&control, limit);
}

static int map_direct(uint64_t address, uint64_t size_bytes)
{
    return bare_map(bare_root, BARE_DIRECT + address, address, size_bytes, BARE_LARGE,
                    BARE_WRITE | BARE_NX);
}

static bool is_mapped(uint64_t address)
{
    uint64_t unit;
    volatile uint64_t *entry = bare_entry(bare_root, BARE_DIRECT + address, &unit);

    return entry && *entry;
}

/* The kernel stands in its boot memory, and has mapped it long ago: but for what lies between the
 * pieces, which is mapped now. A block that was removed comes back as a whole. */
static int attach_boot(const struct memplug_extent *extent)
{
    uint64_t first = 0, end;
    int error = 0;

    for (; first < extent->size_bytes && !error; first = end + BARE_LARGE) {
        while (first < extent->size_bytes && is_mapped(extent->address + first))
            first += BARE_LARGE;
        for (end = first; end < extent->size_bytes && !is_mapped(extent->address + end);)
            end += BARE_LARGE;
        if (end > first)
            error = map_direct(extent->address + first, end - first);
        if (error && first)
            bare_panic("boot memory at %lx cannot be mapped", extent->address + first);
    }
    return out_of(error, "there is no memory for page tables of the direct map");
}

/* A machine's memory has one address: that of its device. */
static int host_attach(void *host, const struct memplug_extent *extent)
{
    const struct bare_backing *backing = extent->backing;

    (void)host;
    if (!backing)
        return refuse(BARE_ENODEV, "no device has this memory");
    if (extent->address - extent->offset_bytes != backing->address)
        return refuse(BARE_ENODEV, "the device has its memory at another address");
    if (extent->offset_bytes + extent->size_bytes > backing->size_bytes)
        return refuse(BARE_ENXIO, "the device has less memory");
    if (backing == &bare_boot_backing)
        return attach_boot(extent);
    return out_of(map_direct(extent->address, extent->size_bytes),
                  "there is no memory for page tables of the direct map");
}

static int host_alias(void *host, uint64_t offset, uint64_t address, uint64_t size_bytes,
                      uint64_t unit_bytes)
{
    (void)host;
    return out_of(bare_map(bare_root, BARE_MEMMAP + offset, address, size_bytes, unit_bytes,
                           BARE_WRITE | BARE_NX),
                  "there is no memory for page tables of the memmap");
}

/* A large page, or if there is none, as many small ones. */
static int provide_unit(uint64_t virtual, uint64_t unit_bytes)
{
    unsigned order = unit_bytes == BARE_PAGE ? 0 : 9;
    uint64_t flags = BARE_WRITE | BARE_NX | BARE_OWNED, address, done;
    int error = bare_frames_get(order, &address);

    if (!error) {
        error = bare_map(bare_root, virtual, address, unit_bytes, unit_bytes, flags);
        if (error)
            bare_frames_put(address, order);
        return error;
    }
    for (done = 0; order && done < unit_bytes; done += BARE_PAGE) {
        error = provide_unit(virtual + done, BARE_PAGE);
        if (error)
            break;
    }
    if (error && done)
        bare_unmap(bare_root, virtual, done);
    return error;
}

static int host_provide(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    (void)host;
    for (uint64_t done = 0; done < size_bytes; done += unit_bytes) {
        int error = provide_unit(BARE_MEMMAP + offset + done, unit_bytes);

        if (!error)
            continue;
        if (done)
            bare_unmap(bare_root, BARE_MEMMAP + offset, done);
        return out_of(error, "there is no memory for a memmap");
    }
    return 0;
}

/* --- lent ------------------------------------------------------------------------------------- */

static volatile uint64_t *memmap_entry(uint64_t offset)
{
    uint64_t unit;
    volatile uint64_t *entry = bare_entry(bare_root, BARE_MEMMAP + offset, &unit);

    if (!entry || unit != BARE_PAGE)
        bare_panic("a memmap is lent that is not mapped in pages, at %lx", offset);
    return entry;
}

/* The page before is shown, and cannot be written there. What was the kernel's own goes back to it
 * when no CPU can see it any more: till then it hangs in a chain of its first words. */
static void host_lend(void *host, uint64_t offset, uint64_t size_bytes)
{
    uint64_t shown = *memmap_entry(offset - BARE_PAGE) & BARE_FRAME, chain = 0;

    (void)host;
    for (uint64_t done = 0; done < size_bytes; done += BARE_PAGE) {
        volatile uint64_t *entry = memmap_entry(offset + done);
        uint64_t was = *entry;

        *entry = shown | BARE_PRESENT | BARE_NX;
        if (!(was & BARE_OWNED))
            continue;
        *(uint64_t *)bare_direct(was & BARE_FRAME) = chain;
        chain = was & BARE_FRAME;
    }
    bare_flush_range(BARE_MEMMAP + offset, size_bytes);
    while (chain) {
        uint64_t next = *(uint64_t *)bare_direct(chain);

        bare_frames_put(chain, 0);
        chain = next;
    }
}

/* A memmap of its own stands in one piece: the frames follow that of the page before. */
static void host_return(void *host, uint64_t offset, uint64_t size_bytes)
{
    uint64_t own = (*memmap_entry(offset - BARE_PAGE) & BARE_FRAME) + BARE_PAGE;

    (void)host;
    for (uint64_t done = 0; done < size_bytes; done += BARE_PAGE)
        *memmap_entry(offset + done) = (own + done) | BARE_PRESENT | BARE_WRITE | BARE_NX;
    bare_flush_range(BARE_MEMMAP + offset, size_bytes);
}

/* All or none: the entries change when every frame is there, which wait in a chain. */
static int host_restore(void *host, uint64_t offset, uint64_t size_bytes)
{
    uint64_t chain = 0, address, next;
    int error = 0;

    (void)host;
    for (uint64_t done = 0; done < size_bytes && !error; done += BARE_PAGE) {
        error = bare_frames_get(0, &address);
        if (error)
            break;
        *(uint64_t *)bare_direct(address) = chain;
        chain = address;
    }
    for (uint64_t done = 0; chain; done += BARE_PAGE, chain = next) {
        next = *(uint64_t *)bare_direct(chain);
        if (error)
            bare_frames_put(chain, 0);
        else
            *memmap_entry(offset + done) = chain | BARE_PRESENT | BARE_WRITE | BARE_NX | BARE_OWNED;
    }
    if (!error)
        bare_flush_range(BARE_MEMMAP + offset, size_bytes);
    return out_of(error, "there is no memory for a memmap");
}

static unsigned order_of(uint64_t size_bytes)
{
    unsigned order = 0;

    while (((uint64_t)BARE_PAGE << order) < size_bytes)
        order++;
    return order;
}

static int host_memory_get(void *host, uint64_t size_bytes, void **memory)
{
    uint64_t address;
    int error = bare_frames_get(order_of(size_bytes), &address);

    (void)host;
    if (!error)
        *memory = memset(bare_direct(address), 0, size_bytes);
    return out_of(error, "there is no memory for bitmaps");
}

/* --- must not fail ---------------------------------------------------------------------------- */

static void host_unlock(void *host)
{
    (void)host;
    bare_unlock(&control);
}

static void host_detach(void *host, const struct memplug_extent *extent)
{
    (void)host;
    bare_unmap(bare_root, BARE_DIRECT + extent->address, extent->size_bytes);
}

static void host_unmap(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    (void)host;
    (void)unit_bytes;
    bare_unmap(bare_root, BARE_MEMMAP + offset, size_bytes);
}

static void host_memory_put(void *host, void *memory, uint64_t size_bytes)
{
    (void)host;
    bare_frames_put((uintptr_t)memory - BARE_DIRECT, order_of(size_bytes));
}

static uint64_t host_alignment(void *host, const void *backing)
{
    (void)host;
    (void)backing; /* page tables can point to any page */
    return BARE_PAGE;
}

static uint64_t host_now(void *host)
{
    (void)host;
    return bare_now();
}

static unsigned host_cpu(void *host)
{
    (void)host;
    return bare_cpu();
}

static void host_relax(void *host, unsigned nr_spins)
{
    (void)host;
    if (nr_spins < BUSY_SPINS)
        cpu_pause();
    else
        bare_sleep(RELAX_NS);
}

static const char *host_why(void *host)
{
    (void)host;
    return why;
}

/* --- what it is built of ---------------------------------------------------------------------- */

static uint8_t block_shift(uint64_t end)
{
    unsigned shift = MAX_BLOCK_SHIFT;

    if (end < LARGE_MACHINE)
        return SECTION_SHIFT;
    while (shift > SECTION_SHIFT && end % ((uint64_t)1 << shift))
        shift--;
    return (uint8_t)shift;
}

/* What the core refuses is refused by it. */
static uint8_t page_struct_bytes(void)
{
    size_t length;
    const char *value = bare_option("page_struct_bytes", &length);
    char text[8];
    uint64_t number;

    if (!value || length >= sizeof(text))
        return 64;
    bare_format(text, sizeof(text), "%.*s", (int)length, value);
    return bare_number(text, &number) && number <= UINT8_MAX ? (uint8_t)number : 64;
}

void bare_host_start(struct memplug_host *host)
{
    static const struct memplug_host_ops ops = {
        .lock = host_lock, .attach = host_attach, .memmap_alias = host_alias,
        .memmap_provide = host_provide, .memmap_restore = host_restore,
        .memory_get = host_memory_get, .unlock = host_unlock, .detach = host_detach,
        .memmap_unmap = host_unmap, .memmap_lend = host_lend, .memmap_return = host_return,
        .memory_put = host_memory_put, .alignment = host_alignment, .now_ns = host_now,
        .cpu = host_cpu, .relax = host_relax, .why = host_why};
    const struct bare_firmware *firmware = &bare_firmware;
    uint64_t end = firmware->ram[firmware->nr_ram - 1].end;
    uint8_t shift = block_shift(end);
    uint64_t limit = firmware->window.end > end ? firmware->window.end : end;
    uint64_t block = (uint64_t)1 << shift;

    *host = (struct memplug_host){
        .ops = &ops,
        .geometry = {.page_shift = 12, .pageblock_order = 9, .section_shift = SECTION_SHIFT,
                     .block_shift = shift, .large_shift = 21,
                     .page_struct_bytes = page_struct_bytes(),
                     .address_limit = (limit + block - 1) & ~(block - 1)},
        .direct_map = (char *)BARE_DIRECT,
        .memmap = (char *)BARE_MEMMAP,
        .nr_cpus = firmware->nr_cpus,
    };
}
