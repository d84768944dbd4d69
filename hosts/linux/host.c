/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "host.h"
#include "sys.h"

#include <errno.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <time.h>

#define DEFAULT_WINDOW_BYTES (1ull << 40)
#define SECTION_BYTES (128ull << 20)
/* The largest alignment that a device-dax can ask for, given where address space is plenty. */
#define DAX_ALIGN_BYTES (1ull << 30)
#define SPINS_BEFORE_YIELD 64u
#define SPINS_BEFORE_SLEEP 256u
#define SLEEP_NS 50000

int mpl_explain(struct memplug_reason *reason, int error, const char *operation, const char *why,
                const char *remedy)
{
    if (reason) {
        *reason = (struct memplug_reason){
            .error = error,
            .address = MEMPLUG_ANY_ADDRESS,
            .operation = operation,
            .step = operation,
            .why = why,
            .remedy = remedy,
            .block = -1,
            .node = -1,
            .pfn = {.nr = UINT64_MAX},
        };
    }
    return error;
}

/* --- operations ------------------------------------------------------------------------------- */

static int op_lock(void *context, const struct memplug_limit *limit)
{
    struct memplug_linux *host = context;

    return mpl_lock_take(&host->control, limit);
}

static void op_unlock(void *context)
{
    struct memplug_linux *host = context;

    mpl_lock_leave(&host->control);
}

static int op_attach(void *context, const struct memplug_extent *extent)
{
    return mpl_backing_attach(context, extent, 1);
}

static int op_attach_row(void *context, const struct memplug_extent *first, uint64_t nr)
{
    return mpl_backing_attach(context, first, nr);
}

static void op_detach(void *context, const struct memplug_extent *extent)
{
    mpl_backing_detach(context, extent);
}

/* As few mappings as there are files: neighbours in one file are mapped together. */
static int op_memmap_alias(void *context, uint64_t offset, uint64_t address, uint64_t size_bytes,
                           uint64_t unit_bytes)
{
    struct memplug_linux *host = context;
    uint64_t done = 0;

    (void)unit_bytes;
    host->why = NULL;
    while (done < size_bytes) {
        struct mpl_location first;
        struct mpl_location next;
        int result = mpl_backing_locate(host, address + done, &first);
        uint64_t run = result == 0 ? first.run_bytes : 0;

        while (result == 0 && done + run < size_bytes &&
               mpl_backing_locate(host, address + done + run, &next) == 0 &&
               next.fd == first.fd && next.file_offset == first.file_offset + run) {
            run += next.run_bytes;
        }
        run = run < size_bytes - done ? run : size_bytes - done;
        if (result == 0) {
            result = mpl_window_map(&host->memmap, offset + done, run, first.fd,
                                    first.file_offset);
        }
        if (result != 0) {
            if (done > 0) {
                mpl_window_unmap(&host->memmap, offset, done);
            }
            host->why = mpl_window_why(result);
            return result;
        }
        done += run;
    }
    return 0;
}

static int op_memmap_provide(void *context, uint64_t offset, uint64_t size_bytes,
                             uint64_t unit_bytes)
{
    struct memplug_linux *host = context;
    int result = mpl_window_map(&host->memmap, offset, size_bytes, -1, 0);

    (void)unit_bytes;
    host->why = mpl_window_why(result);
    return result;
}

static void op_memmap_unmap(void *context, uint64_t offset, uint64_t size_bytes,
                            uint64_t unit_bytes)
{
    struct memplug_linux *host = context;

    (void)unit_bytes;
    mpl_window_unmap(&host->memmap, offset, size_bytes);
}

static int op_memory_get(void *context, uint64_t size_bytes, void **memory)
{
    struct memplug_linux *host = context;

    host->why = NULL;
    return mpl_memory_get(host, size_bytes, memory);
}

static void op_memory_put(void *context, void *memory, uint64_t size_bytes)
{
    mpl_memory_put(context, memory, size_bytes);
}

static uint64_t op_alignment(void *context, const void *backing)
{
    struct memplug_linux *host = context;
    const struct mpl_backing *found = mpl_backing_check(host, backing);

    return found ? found->align_bytes : host->page_bytes;
}

static uint64_t op_now_ns(void *context)
{
    (void)context;
    return mpl_now_ns();
}

static void op_relax(void *context, unsigned nr_spins)
{
    const struct timespec pause = {.tv_nsec = SLEEP_NS};

    (void)context;
    if (nr_spins >= SPINS_BEFORE_SLEEP) {
        syscall(SYS_nanosleep, &pause, NULL); /* the library's is a point of cancellation */
        return;
    }
    if (nr_spins >= SPINS_BEFORE_YIELD) {
        sched_yield();
        return;
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static unsigned op_cpu(void *context)
{
    struct memplug_linux *host = context;
    int cpu = sched_getcpu(); /* reads the thread's rseq area, or the vDSO */

    return cpu < 0 || (unsigned)cpu >= host->host.nr_cpus ? 0 : (unsigned)cpu;
}

/* Interrupts the CPUs on which other threads of this process run, and no others. Once registered it
 * cannot fail but for lack of memory, which passes; or if it was forbidden since, and without the
 * barrier nothing would be safe. */
static void op_fence(void *context)
{
    static const char why[] = "memplug: membarrier(2) was forbidden after the pool was opened\n";
    struct memplug_linux *host = context;

    for (unsigned nr_spins = 0; !mpl_sys_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);) {
        if (errno != ENOMEM) {
            syscall(SYS_write, STDERR_FILENO, why, sizeof(why) - 1);
            __builtin_trap();
        }
        op_relax(host, nr_spins++);
    }
}

static const char *op_why(void *context)
{
    struct memplug_linux *host = context;

    return host->why;
}

static const struct memplug_host_ops ops = {
    .lock = op_lock,
    .attach = op_attach,
    .attach_row = op_attach_row,
    .memmap_alias = op_memmap_alias,
    .memmap_provide = op_memmap_provide,
    .memory_get = op_memory_get,
    .unlock = op_unlock,
    .detach = op_detach,
    .memmap_unmap = op_memmap_unmap,
    .memory_put = op_memory_put,
    .alignment = op_alignment,
    .now_ns = op_now_ns,
    .cpu = op_cpu,
    .relax = op_relax,
    .fence = op_fence,
    .why = op_why,
};

/* --- open ------------------------------------------------------------------------------------- */

/* The last number in "0-3,8-11". Not sysconf(), whose answer may come by way of malloc. */
static unsigned count_cpus(void)
{
    char text[256];
    unsigned last = 0;
    int fd = mpl_sys_open("/sys/devices/system/cpu/possible", O_RDONLY);
    long length = fd >= 0 ? mpl_sys_read(fd, text, sizeof(text)) : 0;

    if (fd >= 0) {
        mpl_sys_close(fd);
    }
    for (long i = 0; i < length; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            last = last * 10 + (unsigned)(text[i] - '0');
        } else if (text[i] == '-' || text[i] == ',') {
            last = 0;
        }
    }
    return last + 1;
}

static uint64_t power_of_two_shift(uint64_t bytes)
{
    return (uint64_t)__builtin_ctzll(bytes);
}

static void set_geometry(struct memplug_linux *host, const struct memplug_linux_config *config)
{
    struct memplug_geometry *geometry = &host->host.geometry;

    host->page_bytes = getauxval(AT_PAGESZ);
    geometry->page_shift = (uint8_t)power_of_two_shift(host->page_bytes);
    /* What a page table holds, as in the kernel: 2, 32 and 512 MiB for 4, 16 and 64 KiB. */
    geometry->pageblock_order = (uint8_t)(geometry->page_shift - 3);
    geometry->large_shift = geometry->page_shift + geometry->pageblock_order;
    geometry->section_shift = geometry->large_shift > 27 ? geometry->large_shift : 27;
    geometry->page_struct_bytes = config->page_struct_bytes ? config->page_struct_bytes : 64;
    host->large_bytes = 1ull << geometry->large_shift;
}

static bool set_blocks(struct memplug_linux *host, const struct memplug_linux_config *config,
                       uint64_t window_bytes)
{
    struct memplug_geometry *geometry = &host->host.geometry;
    uint64_t block_bytes = config->block_bytes;

    if (block_bytes == 0) {
        block_bytes = 1ull << geometry->section_shift;
        while (window_bytes / block_bytes > MPL_NR_BLOCKS_MAX) {
            block_bytes *= 2;
        }
    }
    if (window_bytes % block_bytes != 0 || window_bytes == 0) {
        return false;
    }
    host->block_bytes = block_bytes;
    host->nr_blocks = window_bytes / block_bytes;
    geometry->block_shift = (uint8_t)power_of_two_shift(block_bytes);
    geometry->address_limit = window_bytes;
    return true;
}

static int reserve(struct memplug_linux *host, uint64_t window_bytes)
{
    const struct memplug_geometry *geometry = &host->host.geometry;
    uint64_t memmap_bytes = (window_bytes >> geometry->page_shift) * geometry->page_struct_bytes;
    uint64_t align_bytes = window_bytes >= 64 * DAX_ALIGN_BYTES ? DAX_ALIGN_BYTES
                                                                : host->large_bytes;
    int result;

    memmap_bytes = (memmap_bytes + host->large_bytes - 1) & ~(host->large_bytes - 1);
    result = mpl_window_open(&host->direct, &host->spare, window_bytes, align_bytes);
    if (result == 0) {
        result = mpl_window_open(&host->memmap, &host->spare, memmap_bytes, host->large_bytes);
        if (result != 0) {
            mpl_window_close(&host->direct);
        }
    }
    return result;
}

/* Under RLIMIT_AS a window must leave the program as much again as it takes. */
static bool leaves_room(uint64_t window_bytes)
{
    struct rlimit limit;
    void *probe;

    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return true;
    }
    probe = mpl_sys_mmap(NULL, window_bytes, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (probe == MAP_FAILED) {
        return false;
    }
    mpl_sys_munmap(probe, window_bytes);
    return true;
}

static int reserve_largest(struct memplug_linux *host, const struct memplug_linux_config *config,
                           struct memplug_reason *reason)
{
    uint64_t window_bytes = DEFAULT_WINDOW_BYTES;
    uint64_t least_bytes = 2ull << host->host.geometry.section_shift;

    while (config->block_bytes && window_bytes / config->block_bytes > MPL_NR_BLOCKS_MAX) {
        window_bytes /= 2;
    }
    for (; window_bytes >= least_bytes && set_blocks(host, config, window_bytes);
         window_bytes /= 2) {
        if (reserve(host, window_bytes) != 0) {
            continue;
        }
        if (leaves_room(window_bytes)) {
            if (window_bytes < DEFAULT_WINDOW_BYTES && !config->block_bytes) {
                mpl_explain(reason, 0, "open", "RLIMIT_AS leaves no room for a window of 1 TiB",
                            "raise the limit on address space (ulimit -v)");
            }
            return 0;
        }
        mpl_window_close(&host->memmap);
        mpl_window_close(&host->direct);
    }
    return mpl_explain(reason, -ENOMEM, "open", "RLIMIT_AS leaves no room for a window",
                       "raise the limit on address space (ulimit -v)");
}

static int check_config(const struct memplug_linux *host, const struct memplug_linux_config *config,
                        struct memplug_reason *reason)
{
    uint64_t block_bytes = config->block_bytes;
    unsigned struct_bytes = host->host.geometry.page_struct_bytes;

    if (struct_bytes < 32 || struct_bytes > 128 || struct_bytes % 8 != 0) {
        return mpl_explain(reason, -EINVAL, "open", "a struct page has 32 to 128 bytes, by eights",
                           NULL);
    }
    if (block_bytes && ((block_bytes & (block_bytes - 1)) != 0 ||
                        block_bytes < 1ull << host->host.geometry.section_shift)) {
        return mpl_explain(reason, -EINVAL, "open",
                           "a block is a power of two and at least a section", NULL);
    }
    if (block_bytes && config->window_bytes / block_bytes > MPL_NR_BLOCKS_MAX) {
        return mpl_explain(reason, -E2BIG, "open", "more than 4,096 blocks",
                           "make blocks larger, or the window smaller");
    }
    return 0;
}

static int reserve_windows(struct memplug_linux *host, const struct memplug_linux_config *config,
                           struct memplug_reason *reason)
{
    if (config->window_bytes == 0) {
        return reserve_largest(host, config, reason);
    }
    if (!set_blocks(host, config, config->window_bytes)) {
        return mpl_explain(reason, -EINVAL, "open", "the window is not whole blocks", NULL);
    }
    if (reserve(host, config->window_bytes) != 0) {
        return mpl_explain(reason, -ENOMEM, "open",
                           "no such window fits into the address space or RLIMIT_AS",
                           "ask for a smaller one, or raise the limit (ulimit -v)");
    }
    return 0;
}

int memplug_linux_open(const struct memplug_linux_config *config, struct memplug_linux **opened,
                       struct memplug_reason *reason)
{
    static const struct memplug_linux_config defaults;
    uint64_t chunk_at = (sizeof(struct memplug_linux) +
                         MPL_NR_BLOCKS_MAX * sizeof(struct mpl_linux_block) + 63) & ~63ull;
    uint64_t own_bytes = chunk_at + MPL_CHUNK_BYTES;
    struct memplug_linux *host = mpl_sys_mmap(NULL, own_bytes, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int result;

    mpl_explain(reason, 0, "open", NULL, NULL);
    if (host == MAP_FAILED) {
        return mpl_explain(reason, -ENOMEM, "open", "no memory for the host itself", NULL);
    }
    config = config ? config : &defaults;
    host->own_bytes = own_bytes;
    host->blocks = (struct mpl_linux_block *)(host + 1);
    mpl_memory_begin(host, (char *)host + chunk_at);
    host->ops = ops;
    if (!mpl_sys_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)) {
        host->ops.fence = NULL; /* a kernel, or a filter of system calls, without it */
    }
    host->host.ops = &host->ops;
    host->host.context = host;
    host->host.nr_cpus = count_cpus();
    set_geometry(host, config);
    result = check_config(host, config, reason);
    if (result == 0 && mpl_spare_open(&host->spare, host->page_bytes) != 0) {
        result = mpl_explain(reason, -ENOMEM, "open", "no mappings left to hold back",
                             "raise vm.max_map_count");
    }
    if (result == 0) {
        result = reserve_windows(host, config, reason);
    }
    if (result != 0) {
        memplug_linux_close(host);
        return result;
    }
    atomic_store_explicit(&host->mapped_bytes, own_bytes, memory_order_relaxed);
    host->host.direct_map = host->direct.base;
    host->host.memmap = host->memmap.base;
    *opened = host;
    return 0;
}

/* --- the rest of its life --------------------------------------------------------------------- */

static void close_backings(struct memplug_linux *host)
{
    for (uint64_t i = 0; i < host->nr_blocks; i++) {
        struct mpl_linux_block *block = &host->blocks[i];

        if (block->state != 0 && block->backing->kind == MEMPLUG_BACKING_HUGETLB) {
            mpl_fd_close(block->fd, block->backing->dev, block->ino);
        }
    }
    for (unsigned i = 0; i < MPL_NR_BACKINGS; i++) {
        struct mpl_backing *backing = &host->backings[i];

        if (backing->in_use) {
            mpl_fd_close(backing->fd, backing->dev, backing->ino);
        }
    }
}

void memplug_linux_close(struct memplug_linux *host)
{
    close_backings(host);
    mpl_window_close(&host->memmap);
    mpl_window_close(&host->direct);
    mpl_memory_end(host);
    for (unsigned i = 0; i < MPL_NR_METADATA; i++) {
        if (host->metadata[i].start) {
            mpl_spare_munmap(&host->spare, host->metadata[i].start, host->metadata[i].size_bytes);
        }
    }
    if (host->spare.base) {
        mpl_spare_close(&host->spare);
    }
    mpl_sys_munmap(host, host->own_bytes);
}

const struct memplug_host *memplug_linux_host(const struct memplug_linux *host)
{
    return &host->host;
}

int memplug_linux_metadata(struct memplug_linux *host, uint64_t size_bytes, void **metadata)
{
    uint64_t mapped_bytes = (size_bytes + host->page_bytes - 1) & ~(host->page_bytes - 1);
    int result = -ENOSPC;

    if (mapped_bytes < size_bytes || size_bytes == 0) {
        return -EINVAL;
    }
    mpl_lock_enter(&host->tables);
    for (unsigned i = 0; i < MPL_NR_METADATA; i++) {
        struct mpl_metadata *entry = &host->metadata[i];

        if (!entry->start) {
            void *start = mpl_sys_mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

            result = start == MAP_FAILED ? -ENOMEM : 0;
            if (result == 0) {
                *entry = (struct mpl_metadata){.start = start, .size_bytes = mapped_bytes};
                *metadata = start;
            }
            break;
        }
    }
    mpl_lock_leave(&host->tables);
    return result;
}

void memplug_linux_stat(const struct memplug_linux *host, struct memplug_linux_stat *stat)
{
    *stat = (struct memplug_linux_stat){
        .window_bytes = host->direct.size_bytes,
        .memmap_bytes = host->memmap.size_bytes,
        .mapped_bytes = atomic_load_explicit(&host->mapped_bytes, memory_order_relaxed),
        .nr_spare_vmas = atomic_load_explicit(&host->spare.nr_vmas, memory_order_relaxed),
        .nr_stuck = atomic_load_explicit(&host->spare.nr_stuck, memory_order_relaxed),
    };
    for (uint64_t i = 0; i < host->nr_blocks; i++) {
        stat->nr_attached_blocks += host->blocks[i].state != 0;
    }
    stat->block_bytes = sizeof(struct mpl_linux_block);
    for (unsigned i = 0; i < MPL_NR_METADATA; i++) {
        stat->metadata_bytes += host->metadata[i].start ? host->metadata[i].size_bytes : 0;
    }
}
