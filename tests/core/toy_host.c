/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "door.h"
#include "toy_host.h"

struct memplug_geometry toy_geometry(void)
{
    return (struct memplug_geometry){
        .page_shift = 12,
        .pageblock_order = 6,
        .section_shift = 20,
        .block_shift = 20,
        .large_shift = 12,
        .page_struct_bytes = 64,
        .address_limit = (uint64_t)64 << 20,
    };
}

/* --- what is written down --------------------------------------------------------------------- */

static int note(struct toy_host *toy, struct toy_call call)
{
    assert_true(toy->nr_calls < TOY_CALLS_MAX);
    assert_true(toy->locked);
    toy->calls[toy->nr_calls++] = call;
    return toy->nr_calls == toy->fail_at ? -MPL_ENOMEM : 0;
}

static uint64_t altmap_alloc(const struct toy_host *toy, uint64_t address)
{
    return toy->pool->blocks[address >> toy->host.geometry.block_shift].altmap.alloc;
}

static int toy_attach(void *host, const struct memplug_extent *extent)
{
    struct toy_host *toy = host;
    int error = note(toy, (struct toy_call){
                              .operation = TOY_ATTACH,
                              .address = extent->address,
                              .size_bytes = extent->size_bytes,
                              .unit_bytes = extent->memmap_bytes,
                              .altmap_alloc = altmap_alloc(toy, extent->address),
                          });

    if (error == 0 && toy->inner != NULL)
        error = toy->inner->ops->attach(toy->inner->context, extent);
    return error;
}

static void toy_detach(void *host, const struct memplug_extent *extent)
{
    struct toy_host *toy = host;

    (void)note(toy, (struct toy_call){
                        .operation = TOY_DETACH,
                        .address = extent->address,
                        .size_bytes = extent->size_bytes,
                        .unit_bytes = extent->memmap_bytes,
                        .altmap_alloc = altmap_alloc(toy, extent->address),
                    });
    if (toy->inner != NULL)
        toy->inner->ops->detach(toy->inner->context, extent);
}

static int toy_alias(void *host, uint64_t offset, uint64_t address, uint64_t size_bytes,
                     uint64_t unit_bytes)
{
    struct toy_host *toy = host;
    int error = note(toy, (struct toy_call){TOY_ALIAS, offset, address, size_bytes, unit_bytes, 0});

    if (error == 0 && toy->inner != NULL)
        error = toy->inner->ops->memmap_alias(toy->inner->context, offset, address, size_bytes,
                                              unit_bytes);
    return error;
}

static int toy_provide(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    struct toy_host *toy = host;
    int error = note(toy, (struct toy_call){TOY_PROVIDE, offset, 0, size_bytes, unit_bytes, 0});

    if (error == 0 && toy->inner != NULL)
        error = toy->inner->ops->memmap_provide(toy->inner->context, offset, size_bytes,
                                                unit_bytes);
    return error;
}

static void toy_unmap(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    struct toy_host *toy = host;

    (void)note(toy, (struct toy_call){TOY_UNMAP, offset, 0, size_bytes, unit_bytes, 0});
    if (toy->inner != NULL)
        toy->inner->ops->memmap_unmap(toy->inner->context, offset, size_bytes, unit_bytes);
}

static int toy_memory_get(void *host, uint64_t size_bytes, void **memory)
{
    struct toy_host *toy = host;
    int error = note(toy, (struct toy_call){.operation = TOY_GET, .size_bytes = size_bytes});

    if (error == 0 && toy->inner != NULL)
        error = toy->inner->ops->memory_get(toy->inner->context, size_bytes, memory);
    else if (error == 0)
        *memory = calloc(1, size_bytes);
    if (error == 0)
        toy->memory_bytes += size_bytes;
    return error;
}

static void toy_memory_put(void *host, void *memory, uint64_t size_bytes)
{
    struct toy_host *toy = host;

    (void)note(toy, (struct toy_call){.operation = TOY_PUT, .size_bytes = size_bytes});
    assert_true(toy->memory_bytes >= size_bytes);
    toy->memory_bytes -= size_bytes;
    if (toy->inner != NULL)
        toy->inner->ops->memory_put(toy->inner->context, memory, size_bytes);
    else
        free(memory);
}

/* --- the rest of a host ----------------------------------------------------------------------- */

static int toy_lock(void *host, const struct memplug_limit *limit)
{
    struct toy_host *toy = host;

    if (toy->locked)
        return -MPL_EDEADLK;
    if (toy->inner != NULL) {
        int error = toy->inner->ops->lock(toy->inner->context, limit);

        if (error != 0)
            return error;
    }
    toy->locked = true;
    return 0;
}

static void toy_unlock(void *host)
{
    struct toy_host *toy = host;

    assert_true(toy->locked);
    toy->locked = false;
    if (toy->inner != NULL)
        toy->inner->ops->unlock(toy->inner->context);
}

static uint64_t toy_alignment(void *host, const void *backing)
{
    struct toy_host *toy = host;

    if (toy->inner != NULL)
        return toy->inner->ops->alignment(toy->inner->context, backing);
    return toy->alignment_bytes;
}

static uint64_t toy_now_ns(void *host)
{
    struct toy_host *toy = host;

    return toy->now_ns += toy->clock_step_ns;
}

static unsigned toy_cpu(void *host)
{
    (void)host;
    return 0;
}

static void toy_relax(void *host, unsigned nr_spins)
{
    (void)host;
    (void)nr_spins;
}

static const struct memplug_host_ops toy_ops = {
    .lock = toy_lock,
    .attach = toy_attach,
    .memmap_alias = toy_alias,
    .memmap_provide = toy_provide,
    .memory_get = toy_memory_get,
    .unlock = toy_unlock,
    .detach = toy_detach,
    .memmap_unmap = toy_unmap,
    .memory_put = toy_memory_put,
    .alignment = toy_alignment,
    .now_ns = toy_now_ns,
    .cpu = toy_cpu,
    .relax = toy_relax,
};

/* --- open and close --------------------------------------------------------------------------- */

static void open_windows(struct toy_host *toy, const struct memplug_geometry *geometry)
{
    const struct memplug_host *inner = toy->inner;

    if (inner != NULL) {
        toy->host.direct_map = inner->direct_map;
        toy->host.memmap = inner->memmap;
        return;
    }
    toy->window_bytes =
        (geometry->address_limit >> geometry->page_shift) * geometry->page_struct_bytes;
    toy->window = mmap(NULL, toy->window_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(toy->window != MAP_FAILED);
    toy->host.memmap = toy->window;
    /* Where the program has nothing: whoever uses it faults. */
    toy->host.direct_map = (char *)(uintptr_t)0x100000;
}

void toy_open(struct toy_host *toy, const struct memplug_geometry *geometry, unsigned nr_nodes,
              const struct memplug_host *inner)
{
    struct memplug_config config = {.host = &toy->host, .nr_nodes = nr_nodes};
    struct memplug_reason reason;
    uint64_t size_bytes;

    memset(toy, 0, sizeof(*toy));
    toy->inner = inner;
    toy->backing = toy;
    toy->host.ops = &toy_ops;
    toy->host.context = toy;
    toy->host.geometry = *geometry;
    toy->host.nr_cpus = 1;
    toy->alignment_bytes = (uint64_t)1 << geometry->page_shift;
    open_windows(toy, geometry);
    size_bytes = memplug_metadata_bytes(&config);
    assert_int_not_equal(size_bytes, 0);
    toy->metadata = aligned_alloc(MPL_CACHE_LINE, mpl_round_up(size_bytes, MPL_CACHE_LINE));
    assert_non_null(toy->metadata);
    memset(toy->metadata, 0, size_bytes);
    assert_int_equal(memplug_open(&config, toy->metadata, size_bytes, &toy->pool, &reason), 0);
}

void toy_abandon(struct toy_host *toy)
{
    if (toy->window != NULL)
        munmap(toy->window, toy->window_bytes);
    free(toy->metadata);
    toy->window = toy->metadata = NULL;
}

void toy_close(struct toy_host *toy)
{
    assert_int_equal(memplug_close(toy->pool, NULL), 0);
    assert_int_equal(toy->memory_bytes, 0);
    toy_abandon(toy);
}

void toy_empty(struct toy_host *toy)
{
    struct memplug *pool = toy->pool;
    uint64_t block_bytes = mpl_block_bytes(&pool->geometry);

    for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
        if (pool->blocks[id].state == MEMPLUG_BLOCK_ONLINE)
            assert_int_equal(memplug_offline(pool, id, 1, NULL, NULL), 0);
    for (uint64_t id = 0; id < pool->nr_blocks_max; id++)
        if (pool->blocks[id].state != MEMPLUG_BLOCK_ABSENT)
            assert_int_equal(memplug_remove(pool, id * block_bytes,
                                            pool->blocks[id].unit_nr_blocks * block_bytes, NULL,
                                            NULL),
                             0);
    toy_close(toy);
}

int toy_add(struct toy_host *toy, uint64_t first, uint64_t nr_blocks, enum memplug_memmap memmap,
            int node)
{
    struct memplug_add add = {
        .address = first << toy->host.geometry.block_shift,
        .size_bytes = nr_blocks << toy->host.geometry.block_shift,
        .memmap = memmap,
        .node = node,
        .backing = toy->backing,
    };

    return memplug_add(toy->pool, &add, NULL, NULL);
}

void toy_op_begin(struct toy_op *toy_op, struct toy_host *toy, const char *name)
{
    mpl_reason_reset(&toy_op->reason);
    toy_op->limit = (struct memplug_limit){.timeout_ns = UINT64_C(1000000000), .tries = 5};
    toy_op->op = (struct mpl_op){
        .pool = toy->pool,
        .name = name,
        .limit = &toy_op->limit,
        .deadline_ns = toy->now_ns + toy_op->limit.timeout_ns,
        .tries = toy_op->limit.tries,
        .reason = &toy_op->reason,
        .progress = {.operation = name, .step = "check"},
    };
}
