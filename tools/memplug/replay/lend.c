/* SPDX-License-Identifier: MIT */
#include "lend.h"

#include "buffer.h"

#include <errno.h>
#include <stdlib.h>

#define RELAX_NS 20000000u /* of the virtual clock: a pass over pages that do not move */

/* A unit of a provided piece of the memmap window: one row of frames, or, where there was none of
 * that length, a frame for each page. */
struct lent_unit {
    struct memplug_pfn row;
    struct memplug_pfn *pages; /* null: it is a row */
};

struct lent {
    struct lent *next;
    uint64_t offset, size_bytes, unit_bytes;
    struct lent_unit *units;
};

struct lend {
    struct memplug_host host;
    struct memplug_host_ops ops;
    struct fake_machine *machine;
    const struct memplug_host *inner;
    struct memplug *pool;
    struct lent *lent;
    uint64_t page_bytes, nr_pages;
};

/* --- handed on -------------------------------------------------------------------------------- */

static int lend_lock(void *host, const struct memplug_limit *limit)
{
    const struct lend *lend = host;

    return lend->inner->ops->lock(lend->inner->context, limit);
}

static void lend_unlock(void *host)
{
    const struct lend *lend = host;

    lend->inner->ops->unlock(lend->inner->context);
}

static int lend_attach(void *host, const struct memplug_extent *extent)
{
    const struct lend *lend = host;

    return lend->inner->ops->attach(lend->inner->context, extent);
}

static void lend_detach(void *host, const struct memplug_extent *extent)
{
    const struct lend *lend = host;

    lend->inner->ops->detach(lend->inner->context, extent);
}

static int lend_alias(void *host, uint64_t offset, uint64_t address, uint64_t size_bytes,
                      uint64_t unit_bytes)
{
    const struct lend *lend = host;

    return lend->inner->ops->memmap_alias(lend->inner->context, offset, address, size_bytes,
                                          unit_bytes);
}

static int lend_memory_get(void *host, uint64_t size_bytes, void **memory)
{
    const struct lend *lend = host;

    return lend->inner->ops->memory_get(lend->inner->context, size_bytes, memory);
}

static void lend_memory_put(void *host, void *memory, uint64_t size_bytes)
{
    const struct lend *lend = host;

    lend->inner->ops->memory_put(lend->inner->context, memory, size_bytes);
}

static uint64_t lend_alignment(void *host, const void *backing)
{
    const struct lend *lend = host;

    return lend->inner->ops->alignment(lend->inner->context, backing);
}

static uint64_t lend_now_ns(void *host)
{
    const struct lend *lend = host;

    return lend->inner->ops->now_ns(lend->inner->context);
}

static unsigned lend_cpu(void *host)
{
    const struct lend *lend = host;

    return lend->inner->ops->cpu(lend->inner->context);
}

static void lend_relax(void *host, unsigned nr_spins)
{
    const struct lend *lend = host;

    lend->inner->ops->relax(lend->inner->context, nr_spins);
    fake_clock_advance(lend->machine, RELAX_NS);
}

/* --- provided --------------------------------------------------------------------------------- */

static uint64_t nr_units(const struct lent *lent)
{
    return lent->size_bytes / lent->unit_bytes;
}

/* Frames in a row are shown in the window, and shown no more. */
static int row_get(struct lend *lend, uint64_t offset, uint64_t size_bytes,
                   struct memplug_pfn *row)
{
    struct memplug_alloc request = {.nr_pages = (uint32_t)(size_bytes / lend->page_bytes),
                                    .node = MEMPLUG_ANY_NODE};
    int error = memplug_alloc(lend->pool, &request, row);

    if (error)
        return error;
    error = lend_alias(lend, offset, row->nr * lend->page_bytes, size_bytes, size_bytes);
    if (!error) {
        lend->nr_pages += request.nr_pages;
        return 0;
    }
    if (memplug_free(lend->pool, *row, request.nr_pages))
        fake_panic(lend->machine, "a frame that was just taken cannot be given back");
    return error;
}

static void row_put(struct lend *lend, uint64_t offset, uint64_t size_bytes,
                    struct memplug_pfn row)
{
    uint32_t nr_pages = (uint32_t)(size_bytes / lend->page_bytes);

    lend->inner->ops->memmap_unmap(lend->inner->context, offset, size_bytes, size_bytes);
    if (memplug_free(lend->pool, row, nr_pages))
        fake_panic(lend->machine, "a frame of a memmap was not the machine's any more");
    lend->nr_pages -= nr_pages;
}

static void pages_put(struct lend *lend, uint64_t offset, struct lent_unit *unit, uint64_t nr)
{
    while (nr--)
        row_put(lend, offset + nr * lend->page_bytes, lend->page_bytes, unit->pages[nr]);
    free(unit->pages);
    unit->pages = NULL;
}

static void unit_put(struct lend *lend, const struct lent *lent, uint64_t index)
{
    uint64_t offset = lent->offset + index * lent->unit_bytes;
    struct lent_unit *unit = &lent->units[index];

    if (unit->pages)
        pages_put(lend, offset, unit, lent->unit_bytes / lend->page_bytes);
    else
        row_put(lend, offset, lent->unit_bytes, unit->row);
}

/* As a kernel without room for a large page: small ones do. */
static int unit_get(struct lend *lend, const struct lent *lent, uint64_t index)
{
    uint64_t offset = lent->offset + index * lent->unit_bytes;
    uint64_t nr = lent->unit_bytes / lend->page_bytes;
    struct lent_unit *unit = &lent->units[index];
    int error = row_get(lend, offset, lent->unit_bytes, &unit->row);

    if (!error || nr == 1)
        return error;
    unit->pages = must_alloc(nr, sizeof(*unit->pages));
    for (uint64_t i = 0; i < nr; i++) {
        error = row_get(lend, offset + i * lend->page_bytes, lend->page_bytes, &unit->pages[i]);
        if (error) {
            pages_put(lend, offset, unit, i);
            return error;
        }
    }
    return 0;
}

static int lend_provide(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    struct lend *lend = host;
    struct lent *lent;

    if (!lend->pool)
        return lend->inner->ops->memmap_provide(lend->inner->context, offset, size_bytes,
                                                unit_bytes);
    lent = must_alloc(1, sizeof(*lent));
    *lent = (struct lent){.offset = offset, .size_bytes = size_bytes, .unit_bytes = unit_bytes};
    lent->units = must_alloc(nr_units(lent), sizeof(*lent->units));
    for (uint64_t i = 0; i < nr_units(lent); i++) {
        int error = unit_get(lend, lent, i);

        if (!error)
            continue;
        while (i)
            unit_put(lend, lent, --i);
        free(lent->units);
        free(lent);
        return error;
    }
    lent->next = lend->lent;
    lend->lent = lent;
    return 0;
}

static void lend_unmap(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    struct lend *lend = host;
    struct lent **link = &lend->lent, *lent;

    while (*link && (*link)->offset != offset)
        link = &(*link)->next;
    lent = *link;
    if (!lent) {
        lend->inner->ops->memmap_unmap(lend->inner->context, offset, size_bytes, unit_bytes);
        return;
    }
    if (lent->size_bytes != size_bytes || lent->unit_bytes != unit_bytes)
        fake_panic(lend->machine, "memmap_unmap: not what was provided there");
    for (uint64_t i = nr_units(lent); i;)
        unit_put(lend, lent, --i);
    *link = lent->next;
    free(lent->units);
    free(lent);
}

/* --- open and close --------------------------------------------------------------------------- */

struct lend *lend_open(struct fake_machine *machine)
{
    struct lend *lend = must_alloc(1, sizeof(*lend));

    lend->machine = machine;
    lend->inner = fake_host(machine);
    lend->page_bytes = (uint64_t)1 << lend->inner->geometry.page_shift;
    lend->ops = (struct memplug_host_ops){
        .lock = lend_lock,
        .attach = lend_attach,
        .memmap_alias = lend_alias,
        .memmap_provide = lend_provide,
        .memory_get = lend_memory_get,
        .unlock = lend_unlock,
        .detach = lend_detach,
        .memmap_unmap = lend_unmap,
        .memory_put = lend_memory_put,
        .alignment = lend_alignment,
        .now_ns = lend_now_ns,
        .cpu = lend_cpu,
        .relax = lend_relax,
    };
    lend->host = *lend->inner;
    lend->host.ops = &lend->ops;
    lend->host.context = lend;
    return lend;
}

void lend_close(struct lend *lend)
{
    while (lend->lent) {
        struct lent *next = lend->lent->next;

        for (uint64_t i = 0; i < nr_units(lend->lent); i++)
            free(lend->lent->units[i].pages);
        free(lend->lent->units);
        free(lend->lent);
        lend->lent = next;
    }
    free(lend);
}

const struct memplug_host *lend_host(const struct lend *lend)
{
    return &lend->host;
}

void lend_from(struct lend *lend, struct memplug *pool)
{
    lend->pool = pool;
}

uint64_t lend_nr_pages(const struct lend *lend)
{
    return lend->nr_pages;
}
