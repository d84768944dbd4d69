/* SPDX-License-Identifier: MIT */
#include "store.h"

#include "buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STAMP_BYTES 64 /* of the head and the tail of each page */

struct unit {
    memplug_pfn_t pfn;
    uint32_t nr_pages; /* 0: free, next_free is the next one */
    uint32_t next_free;
    enum store_kind kind;
    bool lost;
    uint64_t stamp;
};

#define NO_UNIT UINT32_MAX

struct store {
    struct memplug *pool;
    struct memplug_mover mover;
    unsigned mover_number;
    uint64_t page_bytes, stamp, nr_moved;
    struct unit *units; /* a cookie is an index here */
    uint32_t nr_units, room, free;
};

/* --- the mover -------------------------------------------------------------------------------- */

static struct unit *unit_at(struct store *store, uint64_t cookie, memplug_pfn_t pfn)
{
    struct unit *unit = cookie < store->nr_units ? &store->units[cookie] : NULL;

    return unit && unit->nr_pages && unit->pfn.nr == pfn.nr ? unit : NULL;
}

static void store_move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    struct store *store = context;

    for (unsigned i = 0; i < nr_moves; i++) {
        struct memplug_move *move = &moves[i];
        struct unit *unit = unit_at(store, move->cookie, move->from);

        move->result = unit ? 0 : -ENOENT;
        if (!unit)
            continue;
        memcpy(memplug_page_address(store->pool, move->to),
               memplug_page_address(store->pool, move->from), move->nr_pages * store->page_bytes);
        unit->pfn = move->to;
        store->nr_moved++;
    }
}

static int store_lose(void *context, memplug_pfn_t pfn, uint32_t nr_pages, uint64_t cookie)
{
    struct store *store = context;
    struct unit *unit = unit_at(store, cookie, pfn);

    (void)nr_pages;
    if (!unit)
        return -ENOENT;
    unit->lost = true;
    return 0;
}

int store_open(struct memplug *pool, uint64_t page_bytes, struct store **opened)
{
    struct store *store = must_alloc(1, sizeof(*store));
    int number;

    store->pool = pool;
    store->page_bytes = page_bytes;
    store->free = NO_UNIT;
    store->mover = (struct memplug_mover){
        .name = "process", .move = store_move, .lost = store_lose, .context = store};
    number = memplug_register_mover(pool, &store->mover);
    if (number < 0) {
        free(store);
        return number;
    }
    store->mover_number = (unsigned)number;
    *opened = store;
    return 0;
}

/* --- one allocation --------------------------------------------------------------------------- */

static uint32_t unit_new(struct store *store)
{
    uint32_t index = store->free;

    if (index != NO_UNIT) {
        store->free = store->units[index].next_free;
        return index;
    }
    if (store->nr_units == store->room) {
        store->room = store->room ? 2 * store->room : 1024;
        store->units = must_grow(store->units, store->room, sizeof(*store->units));
    }
    return store->nr_units++;
}

static void unit_forget(struct store *store, uint32_t index)
{
    store->units[index] = (struct unit){.next_free = store->free};
    store->free = index;
}

static int unit_give_back(struct store *store, const struct unit *unit)
{
    if (unit->lost)
        return 0;
    if (unit->kind == STORE_PINNED && memplug_unpin(store->pool, unit->pfn))
        return -EINVAL;
    if (unit->kind == STORE_HUGE)
        return memplug_huge_free(store->pool, unit->pfn);
    return memplug_free(store->pool, unit->pfn, unit->nr_pages);
}

static int unit_take(struct store *store, const struct store_want *want, uint32_t index,
                     memplug_pfn_t *pfn)
{
    struct memplug_alloc request = {.nr_pages = want->nr_pages,
                                    .node = want->node,
                                    .mover = (uint8_t)store->mover_number,
                                    .pinned = want->kind == STORE_PINNED,
                                    .cookie = index};

    if (want->kind == STORE_HUGE)
        return memplug_huge_alloc(store->pool, MEMPLUG_HUGE_PMD, &request, want->reserved, pfn);
    if (want->kind == STORE_KERNEL)
        request.mover = 0;
    return memplug_alloc(store->pool, &request, pfn);
}

static void holding_add(struct holding *holding, uint32_t index)
{
    if (holding->nr_units == holding->room) {
        holding->room = holding->room ? 2 * holding->room : 64;
        holding->units = must_grow(holding->units, holding->room, sizeof(*holding->units));
    }
    holding->units[holding->nr_units++] = index;
}

int store_grow(struct store *store, struct holding *holding, const struct store_want *want)
{
    uint32_t index = unit_new(store);
    struct unit *unit = &store->units[index];
    int error;

    *unit = (struct unit){.kind = want->kind};
    error = unit_take(store, want, index, &unit->pfn);
    if (error) {
        unit_forget(store, index);
        return error;
    }
    unit->nr_pages = want->nr_pages;
    memset(memplug_page_address(store->pool, unit->pfn), 0, unit->nr_pages * store->page_bytes);
    holding_add(holding, index);
    return 0;
}

int store_take_exact(struct store *store, struct holding *holding, memplug_pfn_t pfn,
                     uint32_t nr_pages)
{
    const struct memplug_alloc request = {.nr_pages = nr_pages, .node = MEMPLUG_ANY_NODE};
    uint32_t index = unit_new(store);
    int error = memplug_alloc_exact(store->pool, pfn, &request);

    store->units[index] = (struct unit){.pfn = pfn, .nr_pages = nr_pages, .kind = STORE_KERNEL};
    if (error)
        unit_forget(store, index);
    else
        holding_add(holding, index);
    return error;
}

void store_shrink(struct store *store, struct holding *holding, size_t nr_units)
{
    while (holding->nr_units > nr_units) {
        uint32_t index = holding->units[--holding->nr_units];

        if (unit_give_back(store, &store->units[index]))
            abort(); /* the pool has lost a page that this program owns */
        unit_forget(store, index);
    }
    if (!nr_units) {
        free(holding->units);
        *holding = (struct holding){0};
    }
}

void store_close(struct store *store)
{
    free(store->units);
    free(store);
}

/* --- what is in it ---------------------------------------------------------------------------- */

static const struct unit *unit_of(const struct store *store, const struct holding *holding,
                                  size_t unit)
{
    return &store->units[holding->units[unit]];
}

char *store_bytes(struct store *store, const struct holding *holding, size_t unit)
{
    const struct unit *at = unit_of(store, holding, unit);

    return at->lost ? NULL : memplug_page_address(store->pool, at->pfn);
}

memplug_pfn_t store_pfn(const struct store *store, const struct holding *holding, size_t unit)
{
    return unit_of(store, holding, unit)->pfn;
}

uint32_t store_nr_pages(const struct store *store, const struct holding *holding, size_t unit)
{
    return unit_of(store, holding, unit)->nr_pages;
}

bool store_lost(const struct store *store, const struct holding *holding, size_t unit)
{
    return unit_of(store, holding, unit)->lost;
}

static bool stamp_words(char *bytes, uint64_t seed, bool write)
{
    bool good = true;

    for (size_t i = 0; i < STAMP_BYTES; i += sizeof(seed)) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        if (write)
            memcpy(bytes + i, &seed, sizeof(seed));
        else
            good &= memcmp(bytes + i, &seed, sizeof(seed)) == 0;
    }
    return good;
}

static bool stamp_all(struct store *store, const struct unit *unit, bool write)
{
    char *bytes = memplug_page_address(store->pool, unit->pfn);
    bool good = true;

    for (uint32_t i = 0; i < unit->nr_pages; i++, bytes += store->page_bytes) {
        good &= stamp_words(bytes, unit->stamp ^ 2 * i, write);
        good &= stamp_words(bytes + store->page_bytes - STAMP_BYTES, unit->stamp ^ (2 * i + 1),
                            write);
    }
    return good;
}

void store_stamp(struct store *store, const struct holding *holding, size_t unit)
{
    struct unit *at = &store->units[holding->units[unit]];

    store->stamp += 0x9e3779b97f4a7c15u;
    at->stamp = store->stamp;
    stamp_all(store, at, true);
}

bool store_verify(struct store *store, const struct holding *holding, size_t unit)
{
    const struct unit *at = unit_of(store, holding, unit);

    return at->lost || stamp_all(store, at, false);
}

uint64_t store_nr_moved(const struct store *store)
{
    return store->nr_moved;
}
