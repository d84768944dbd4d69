/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "pool.h"
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define STRUCT_BYTES 64u
#define LARGE_BYTES (2ull << 20)

void bench_must(int error, const struct memplug_reason *reason)
{
    char text[512] = "memplug has failed";

    if (error != 0) {
        if (reason != NULL) {
            memplug_reason_text(reason, text, sizeof(text));
        }
        worker_die(text);
    }
}

static void *map(uint64_t size_bytes, int protection, int flags, int fd)
{
    void *memory = mmap(NULL, size_bytes, protection, flags, fd, 0);

    if (memory == MAP_FAILED) {
        worker_die("mmap has failed");
    }
    return memory;
}

/* --- the Linux host --------------------------------------------------------------------------- */

static struct memplug_linux *linux_host;
static bool owned;
static uint64_t block_bytes = BENCH_BLOCK_BYTES;

uint64_t bench_pool_block_bytes(void)
{
    return block_bytes;
}

static void refuse_moves(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    (void)context;
    for (unsigned i = 0; i < nr_moves; i++) {
        moves[i].result = -16;
    }
}

static const struct memplug_mover refusing = {.name = "the benchmark", .move = refuse_moves};

struct memplug *bench_pool_linux(uint64_t size_bytes, bool owner)
{
    uint64_t window_bytes = 64ull << 30;
    struct memplug_linux_config config = {0};
    struct memplug_config pool_config = {.nr_nodes = 1};
    struct memplug_reason reason;
    struct memplug *pool;
    uint64_t metadata_bytes;
    void *metadata;

    while (window_bytes < size_bytes * 2) {
        window_bytes *= 2;
    }
    while (window_bytes / block_bytes > 4096) {
        block_bytes *= 2;
    }
    config.window_bytes = window_bytes;
    config.block_bytes = block_bytes;
    bench_must(memplug_linux_open(&config, &linux_host, &reason), &reason);
    pool_config.host = memplug_linux_host(linux_host);
    metadata_bytes = memplug_metadata_bytes(&pool_config);
    bench_must(memplug_linux_metadata(linux_host, metadata_bytes, &metadata), NULL);
    bench_must(memplug_open(&pool_config, metadata, metadata_bytes, &pool, &reason), &reason);
    owned = owner;
    if (memplug_register_mover(pool, &refusing) != 1) {
        worker_die("no mover");
    }
    return pool;
}

struct memplug_linux *bench_pool_linux_host(void)
{
    return linux_host;
}

/* --- memory that is mapped and warm ----------------------------------------------------------- */

static char *warm_memory;

static int do_lock(void *host, const struct memplug_limit *limit)
{
    (void)host;
    (void)limit;
    return 0;
}

static int do_attach(void *host, const struct memplug_extent *extent)
{
    (void)host;
    (void)extent;
    return 0;
}

static int do_attach_row(void *host, const struct memplug_extent *first, uint64_t nr)
{
    (void)host;
    (void)first;
    (void)nr;
    return 0;
}

static int do_alias(void *host, uint64_t offset, uint64_t address, uint64_t size_bytes,
                    uint64_t unit_bytes)
{
    (void)host;
    (void)offset;
    (void)address;
    (void)size_bytes;
    (void)unit_bytes;
    return 0;
}

static int do_provide(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    (void)host;
    (void)offset;
    (void)size_bytes;
    (void)unit_bytes;
    return 0;
}

static int do_memory_get(void *host, uint64_t size_bytes, void **memory)
{
    (void)host;
    *memory = aligned_alloc(64, (size_bytes + 63) / 64 * 64);
    return *memory == NULL ? -12 : (memset(*memory, 0, size_bytes), 0);
}

static void do_unlock(void *host)
{
    (void)host;
}

static void do_detach(void *host, const struct memplug_extent *extent)
{
    (void)host;
    (void)extent;
}

static void do_unmap(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    (void)host;
    (void)offset;
    (void)size_bytes;
    (void)unit_bytes;
}

static void do_memory_put(void *host, void *memory, uint64_t size_bytes)
{
    (void)host;
    (void)size_bytes;
    free(memory);
}

static uint64_t do_alignment(void *host, const void *backing)
{
    (void)host;
    (void)backing;
    return PAGE_BYTES;
}

static uint64_t do_now_ns(void *host)
{
    (void)host;
    return worker_wall_ns();
}

static unsigned do_cpu(void *host)
{
    (void)host;
    return 0;
}

static void do_relax(void *host, unsigned nr_spins)
{
    (void)host;
    (void)nr_spins;
}

static const struct memplug_host_ops warm_ops = {
    .lock = do_lock,
    .attach = do_attach,
    .attach_row = do_attach_row,
    .memmap_alias = do_alias,
    .memmap_provide = do_provide,
    .memory_get = do_memory_get,
    .unlock = do_unlock,
    .detach = do_detach,
    .memmap_unmap = do_unmap,
    .memory_put = do_memory_put,
    .alignment = do_alignment,
    .now_ns = do_now_ns,
    .cpu = do_cpu,
    .relax = do_relax,
};

static struct memplug_host warm_host = {
    .ops = &warm_ops,
    .nr_cpus = 1,
    .geometry = {.page_shift = 12,
                 .pageblock_order = 9,
                 .section_shift = 27,
                 .block_shift = 27,
                 .large_shift = 21,
                 .page_struct_bytes = STRUCT_BYTES},
};

/* The head of block b, where its memmap is, appears a second time at b's place in the window. */
static void map_memmaps(uint64_t nr_blocks, int fd)
{
    uint64_t memmap_bytes = BENCH_BLOCK_BYTES / PAGE_BYTES * STRUCT_BYTES;
    char *window = map((nr_blocks + 2) * memmap_bytes + LARGE_BYTES, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

    window += -(uintptr_t)window & (LARGE_BYTES - 1);
    for (uint64_t block = 1; block <= nr_blocks; block++) {
        char *at = mmap(window + block * memmap_bytes, memmap_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd,
                        (off_t)((block - 1) * BENCH_BLOCK_BYTES));

        if (at == MAP_FAILED) {
            worker_die("the memmap cannot be mapped");
        }
        memset(at, 0, memmap_bytes);
        memset(warm_memory + block * BENCH_BLOCK_BYTES, 0, memmap_bytes);
    }
    warm_host.memmap = window;
}

struct memplug *bench_pool_warm(uint64_t nr_blocks, bool touch_data,
                                const struct memplug_mover *mover)
{
    struct memplug_config config = {.host = &warm_host, .nr_nodes = 1};
    int fd = memfd_create("warm", MFD_CLOEXEC);
    uint64_t size_bytes = nr_blocks * BENCH_BLOCK_BYTES, metadata_bytes;
    struct memplug_reason reason;
    struct memplug *pool;
    char *memory;

    if (fd < 0 || ftruncate(fd, (off_t)size_bytes) != 0) {
        worker_die("no memfd");
    }
    memory = map(size_bytes + BENCH_BLOCK_BYTES + LARGE_BYTES, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    warm_memory = memory + (-(uintptr_t)memory & (LARGE_BYTES - 1));
    if (mmap(warm_memory + BENCH_BLOCK_BYTES, size_bytes, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED | (touch_data ? MAP_POPULATE : 0), fd, 0) == MAP_FAILED) {
        worker_die("the memory cannot be mapped");
    }
    warm_host.direct_map = warm_memory;
    warm_host.geometry.address_limit = (nr_blocks + 1) * BENCH_BLOCK_BYTES;
    map_memmaps(nr_blocks, fd);
    metadata_bytes = memplug_metadata_bytes(&config);
    bench_must(memplug_open(&config, map(metadata_bytes, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1),
                            metadata_bytes, &pool, &reason), &reason);
    if (memplug_register_mover(pool, mover != NULL ? mover : &refusing) != 1) {
        worker_die("no mover");
    }
    owned = true;
    return pool;
}

char *bench_pool_warm_memory(void)
{
    return warm_memory;
}

/* --- a range ---------------------------------------------------------------------------------- */

static void *last_backing;
static bool of_huge_pages;

void bench_pool_huge(bool huge)
{
    of_huge_pages = huge;
}

void bench_pool_forget(void)
{
    if (last_backing != NULL) {
        memplug_linux_backing_close(linux_host, last_backing);
    }
    last_backing = NULL;
}

uint64_t bench_pool_plug(struct memplug *pool, enum memplug_memmap memmap, uint64_t size_bytes)
{
    struct memplug_backing_spec spec = {
        .kind = of_huge_pages ? MEMPLUG_BACKING_HUGETLB : MEMPLUG_BACKING_MEMFD,
        .size_bytes = size_bytes,
    };
    struct memplug_add range = {
        .address = linux_host != NULL ? MEMPLUG_ANY_ADDRESS : BENCH_BLOCK_BYTES,
        .size_bytes = size_bytes,
        .memmap = memmap,
    };
    struct memplug_reason reason;

    if (linux_host != NULL) {
        bench_must(memplug_linux_backing_open(linux_host, &spec, &range.backing, &reason), &reason);
        last_backing = range.backing;
    }
    bench_must(memplug_add(pool, &range, NULL, &reason), &reason);
    bench_must(memplug_online(pool, memplug_block_of(pool, range.address),
                              size_bytes / block_bytes,
                              owned ? MEMPLUG_ONLINE_MOVABLE : MEMPLUG_ONLINE_KERNEL, NULL,
                              &reason), &reason);
    return range.address;
}
