/* SPDX-License-Identifier: MIT */
/* Single pages, many at once. A slot is left between batches, so that whoever stops it waits for
 * one of them at most. */
#include "state/bulk.h"
#include "steps.h"

static unsigned batch_of(uint32_t nr)
{
    return nr < MPL_BULK_PAGES ? nr : MPL_BULK_PAGES;
}

static int alloc_bulk(struct memplug *pool, struct mpl_slot *own,
                      const struct memplug_alloc *request, const uint64_t *cookies,
                      memplug_pfn_t *pfns, uint32_t nr)
{
    struct memplug_alloc part = *request;
    bool drained = false;
    uint32_t nr_done = 0;

    if (nr > INT32_MAX || request->nr_pages != 1 || !mpl_may_alloc_single(pool, request))
        return -MPL_EINVAL;
    while (nr_done < nr) {
        unsigned wanted = batch_of(nr - nr_done);
        unsigned got = mpl_bulk_alloc(pool, own, &part,
                                      cookies != NULL ? cookies + nr_done : NULL, pfns + nr_done,
                                      wanted);

        nr_done += got;
        part.cookie += got;
        if (got == wanted)
            continue;
        if (drained)
            break;
        mpl_percpu_drain(pool); /* what is free may be held by other slots */
        drained = true;
    }
    return (int)nr_done;
}

static uint32_t free_bulk(struct memplug *pool, struct mpl_slot *own, const memplug_pfn_t *pfns,
                          uint32_t nr, int *errors)
{
    uint32_t nr_freed = 0;

    for (unsigned batch; nr != 0; nr -= batch, pfns += batch) {
        batch = batch_of(nr);
        nr_freed += mpl_bulk_free(pool, own, pfns, batch, errors);
        if (errors != NULL)
            errors += batch;
    }
    return nr_freed;
}

int memplug_alloc_bulk(struct memplug *pool, const struct memplug_alloc *request,
                       const uint64_t *cookies, memplug_pfn_t *pfns, uint32_t nr)
{
    return alloc_bulk(pool, NULL, request, cookies, pfns, nr);
}

uint32_t memplug_free_bulk(struct memplug *pool, const memplug_pfn_t *pfns, uint32_t nr,
                           int *errors)
{
    return free_bulk(pool, NULL, pfns, nr, errors);
}

int memplug_slot_alloc_bulk(struct memplug_slot *slot, const struct memplug_alloc *request,
                            const uint64_t *cookies, memplug_pfn_t *pfns, uint32_t nr)
{
    struct mpl_slot *own = (struct mpl_slot *)(void *)slot;

    return alloc_bulk(own->pool, own, request, cookies, pfns, nr);
}

uint32_t memplug_slot_free_bulk(struct memplug_slot *slot, const memplug_pfn_t *pfns, uint32_t nr,
                                int *errors)
{
    struct mpl_slot *own = (struct mpl_slot *)(void *)slot;

    return free_bulk(own->pool, own, pfns, nr, errors);
}
