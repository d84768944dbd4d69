/* SPDX-License-Identifier: MIT */
/*
 * Frames of the kernel's own. Before the pool is there they come from boot memory, from the image's
 * end upwards; afterwards from the pool, but for page tables, which go on coming from that part of
 * boot memory which lies in several zones and which no pool manages (memplug/boot.h): so a page
 * table never keeps a block from going. What was taken before goes back to where it came from.
 */
#include "bare.h"

#define MAX_ORDER 12u

extern char bare_image_end[];

static struct {
    uint64_t start, next, end; /* of the piece of boot memory that the image is in */
    uint64_t managed; /* from here on frames are the pool's; 0: there is none yet */
    uint64_t free[MAX_ORDER];  /* chains of what came back, by order */
    struct memplug *pool;
    struct bare_memory_stat stat;
    struct bare_spin spin;
} memory;

void bare_memory_start(void)
{
    uint64_t image_end = (uintptr_t)bare_image_end;

    for (unsigned i = 0; i < bare_firmware.nr_ram; i++)
        if (bare_firmware.ram[i].start < image_end && bare_firmware.ram[i].end > image_end)
            memory.end = bare_firmware.ram[i].end;
    if (!memory.end)
        bare_panic("the image is not in memory");
    memory.end = memory.end < BARE_GIB ? memory.end : BARE_GIB; /* what the first tables map */
    memory.start = memory.next = image_end;
}

static void chain(uint64_t address, unsigned order)
{
    *(uint64_t *)bare_direct(address) = memory.free[order];
    memory.free[order] = address;
}

static int unchain(unsigned order, uint64_t *address)
{
    *address = memory.free[order];
    if (!*address)
        return -BARE_ENOMEM;
    memory.free[order] = *(uint64_t *)bare_direct(*address);
    return 0;
}

/* What alignment skips is kept for smaller ones. */
static int early_get(unsigned order, uint64_t *address)
{
    uint64_t size = (uint64_t)BARE_PAGE << order;
    uint64_t end = memory.managed && memory.managed < memory.end ? memory.managed : memory.end;
    uint64_t at = (memory.next + size - 1) & ~(size - 1);

    if (order >= MAX_ORDER)
        return -BARE_ENOMEM;
    if (!unchain(order, address))
        return 0;
    if (at + size > end)
        return -BARE_ENOMEM;
    while (memory.next < at) {
        unsigned fits = (unsigned)__builtin_ctzll(memory.next) - 12;

        chain(memory.next, fits);
        memory.next += (uint64_t)BARE_PAGE << fits;
    }
    memory.next = at + size;
    *address = at;
    return 0;
}

static int pool_get(unsigned order, uint64_t *address)
{
    struct memplug_alloc request = {.nr_pages = (uint32_t)1 << order, .node = MEMPLUG_ANY_NODE};
    memplug_pfn_t pfn;
    int error = memplug_alloc(memory.pool, &request, &pfn);

    if (error)
        return error;
    __atomic_fetch_add(&memory.stat.pool_pages, request.nr_pages, __ATOMIC_RELAXED);
    *address = pfn.nr * BARE_PAGE;
    return 0;
}

static int get(unsigned order, bool early, uint64_t *address)
{
    int error = -BARE_ENOMEM;

    bare_spin_lock(&memory.spin);
    if (early)
        error = early_get(order, address);
    else if (order < MAX_ORDER)
        error = unchain(order, address);
    if (!error)
        memory.stat.early_bytes += (uint64_t)BARE_PAGE << order;
    bare_spin_unlock(&memory.spin);
    if (error && memory.pool)
        error = pool_get(order, address);
    return error;
}

int bare_frames_get(unsigned order, uint64_t *address)
{
    return get(order, !memory.pool, address);
}

void bare_frames_put(uint64_t address, unsigned order)
{
    uint32_t nr_pages = (uint32_t)1 << order;

    if (address >= memory.start && address < memory.next) {
        bare_spin_lock(&memory.spin);
        chain(address, order);
        memory.stat.early_bytes -= (uint64_t)BARE_PAGE << order;
        bare_spin_unlock(&memory.spin);
        return;
    }
    if (memplug_free(memory.pool, (memplug_pfn_t){address / BARE_PAGE}, nr_pages))
        bare_panic("frames at %lx are not the kernel's any more", address);
    __atomic_fetch_sub(&memory.stat.pool_pages, nr_pages, __ATOMIC_RELAXED);
}

int bare_table_get(uint64_t *address)
{
    int error = get(0, true, address);

    if (error)
        return error;
    memset(bare_direct(*address), 0, BARE_PAGE);
    __atomic_fetch_add(&memory.stat.table_pages, 1, __ATOMIC_RELAXED);
    return 0;
}

void bare_table_put(uint64_t address)
{
    __atomic_fetch_sub(&memory.stat.table_pages, 1, __ATOMIC_RELAXED);
    bare_frames_put(address, 0);
}

/* What was taken beyond the first block is kept there: such a block does not go. */
static void keep(struct memplug *pool)
{
    uint64_t block = bare_block_bytes(), at = block;

    for (; at < memory.next; at += block) {
        uint64_t end = memory.next < at + block ? memory.next : at + block;
        struct memplug_alloc request = {.nr_pages = (uint32_t)((end - at) / BARE_PAGE),
                                        .node = MEMPLUG_ANY_NODE};

        if (memplug_alloc_exact(pool, (memplug_pfn_t){at / BARE_PAGE}, &request))
            bare_panic("frames of the kernel at %lx cannot be kept", at);
    }
    memory.managed = memory.next > block ? memory.next : block;
}

void bare_memory_use(struct memplug *pool)
{
    keep(pool);
    memory.pool = pool;
}

void bare_memory_stat(struct bare_memory_stat *stat)
{
    *stat = memory.stat;
}
