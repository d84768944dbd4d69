/* SPDX-License-Identifier: MIT */
#include "owner.h"

#include "sched.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPARSE_BYTES 64
#define FREED_BYTE 0xdf /* what the head of a page holds when its owner has let go of it */

struct slot {
    uint32_t nr_pages; /* 0: empty */
    bool taken;        /* not empty, or about to be filled */
    bool held;
    bool huge;         /* of a pool of huge pages */
    uint64_t version;
    memplug_pfn_t pfn;
};

struct owner {
    struct owner_config config;
    struct memplug_mover mover;
    struct memplug *pool;
    unsigned mover_number;

    struct fake_mutex lock; /* of all that follows, and of the bytes behind the slots */
    struct slot *slots;
    struct owner_stat stat;
};

static void owner_lock(struct owner *owner)
{
    fake_mutex_lock(&owner->lock, NULL, NULL);
    fake_sched_point();
}

static void owner_unlock(struct owner *owner)
{
    fake_mutex_unlock(&owner->lock);
    fake_sched_point();
}

/* The slot if it is in use, with the lock held; null: it is not, or there is no such slot. */
static struct slot *used_slot(struct owner *owner, uint64_t number)
{
    if (number >= owner->config.nr_slots || !owner->slots[number].nr_pages)
        return NULL;
    return &owner->slots[number];
}

/* --- the pattern ------------------------------------------------------------------------------ */

/* For each run of bytes in a page that bears the pattern: true as long as all is well. */
static bool pattern(struct owner *owner, unsigned number, uint64_t page, char *bytes,
                    uint64_t size_bytes, bool write)
{
    uint64_t state = owner->config.seed ^ ((uint64_t)number << 40) ^
                     (owner->slots[number].version << 20) ^ page;
    uint64_t word = fake_random(&state) | 1;
    uint64_t i;

    for (i = 0; i < size_bytes; i += sizeof(word)) {
        word = word * 6364136223846793005ull + 1442695040888963407ull;
        if (write)
            memcpy(bytes + i, &word, sizeof(word));
        else if (memcmp(bytes + i, &word, sizeof(word)))
            return false;
    }
    return true;
}

/* Of very large ones a few pages will do: tests have many, and they are copied. */
static uint64_t stride_of(const struct owner *owner, uint64_t nr_pages)
{
    return owner->config.sparse && nr_pages > 512 ? nr_pages / 64 : 1;
}

static bool pattern_all(struct owner *owner, unsigned number, bool write)
{
    const struct slot *slot = &owner->slots[number];
    uint64_t page_bytes = owner->config.page_bytes;
    uint64_t stride = stride_of(owner, slot->nr_pages);
    char *bytes = memplug_page_address(owner->pool, slot->pfn);
    uint64_t page;

    for (page = 0; page < slot->nr_pages; page += stride, bytes += stride * page_bytes) {
        if (!owner->config.sparse) {
            if (!pattern(owner, number, page, bytes, page_bytes, write))
                return false;
        } else if (!pattern(owner, number, 2 * page, bytes, SPARSE_BYTES, write) ||
                   !pattern(owner, number, 2 * page + 1, bytes + page_bytes - SPARSE_BYTES,
                            SPARSE_BYTES, write)) {
            return false;
        }
    }
    return true;
}

static void copy_all(const struct owner *owner, memplug_pfn_t to, memplug_pfn_t from,
                     uint32_t nr_pages)
{
    char *target = memplug_page_address(owner->pool, to);
    const char *source = memplug_page_address(owner->pool, from);
    uint64_t page_bytes = owner->config.page_bytes;
    uint64_t end = nr_pages * page_bytes;
    uint64_t at;

    if (!owner->config.sparse) {
        memcpy(target, source, end);
        return;
    }
    for (at = 0; at < end; at += stride_of(owner, nr_pages) * page_bytes) {
        uint64_t tail = at + page_bytes - SPARSE_BYTES;

        memcpy(target + at, source + at, SPARSE_BYTES);
        memcpy(target + tail, source + tail, SPARSE_BYTES);
    }
}

/* --- the mover -------------------------------------------------------------------------------- */

/* May these pages move? With the lock held. */
static int may_move(struct owner *owner, memplug_pfn_t from, uint64_t cookie)
{
    const struct slot *slot = used_slot(owner, cookie);

    if (!slot || slot->pfn.nr != from.nr)
        return -ENOENT;
    return slot->held ? -EBUSY : 0;
}

static int move_one(struct owner *owner, const struct memplug_move *move)
{
    int error = may_move(owner, move->from, move->cookie);

    if (error) {
        *(error == -ENOENT ? &owner->stat.nr_gone : &owner->stat.nr_refused) += 1;
        return error;
    }
    if (owner->slots[move->cookie].nr_pages != move->nr_pages)
        return -EINVAL;
    copy_all(owner, move->to, move->from, move->nr_pages);
    fake_sched_point();
    owner->slots[move->cookie].pfn = move->to;
    owner->stat.nr_moved++;
    return 0;
}

/* The lock is dropped between entries, so that frees come in between. */
static void owner_move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    struct owner *owner = context;
    unsigned i;

    for (i = 0; i < nr_moves; i++) {
        owner_lock(owner);
        moves[i].result = move_one(owner, &moves[i]);
        owner_unlock(owner);
    }
}

static int owner_ask(void *context, memplug_pfn_t pfn, uint64_t cookie,
                     struct memplug_reason *reason)
{
    struct owner *owner = context;
    int error;

    owner_lock(owner);
    error = may_move(owner, pfn, cookie);
    owner_unlock(owner);
    if (error == -EBUSY && reason)
        reason->why = "the owner holds the page";
    return error;
}

/* The slot is empty afterwards, and its owner knows. */
static int owner_lost(void *context, memplug_pfn_t pfn, uint32_t nr_pages, uint64_t cookie)
{
    struct owner *owner = context;
    struct slot *slot;
    int error;

    owner_lock(owner);
    error = may_move(owner, pfn, cookie);
    if (!error && owner->slots[cookie].nr_pages != nr_pages)
        error = -EINVAL;
    if (!error) {
        slot = &owner->slots[cookie];
        slot->nr_pages = 0;
        slot->taken = false;
        owner->stat.nr_used_slots--;
        owner->stat.nr_used_pages -= nr_pages;
        owner->stat.nr_lost++;
    }
    owner_unlock(owner);
    return error;
}

/* --- open and close --------------------------------------------------------------------------- */

int owner_open(const struct owner_config *config, struct owner **opened)
{
    struct owner *owner = calloc(1, sizeof(*owner));

    if (!owner)
        return -ENOMEM;
    owner->config = *config;
    owner->slots = calloc(config->nr_slots + 1, sizeof(*owner->slots));
    if (!owner->slots) {
        free(owner);
        return -ENOMEM;
    }
    owner->mover = (struct memplug_mover){.name = config->name ? config->name : "owner",
                                          .batch_max = config->batch_max, .move = owner_move,
                                          .ask = owner_ask, .lost = owner_lost,
                                          .context = owner};
    fake_mutex_open(&owner->lock, "the owner's lock");
    *opened = owner;
    return 0;
}

void owner_close(struct owner *owner)
{
    if (owner->pool)
        owner_free_all(owner);
    fake_mutex_close(&owner->lock);
    free(owner->slots);
    free(owner);
}

const struct memplug_mover *owner_mover(const struct owner *owner)
{
    return &owner->mover;
}

void owner_bind(struct owner *owner, struct memplug *pool, unsigned mover)
{
    owner->pool = pool;
    owner->mover_number = mover;
}

int owner_register(struct owner *owner, struct memplug *pool)
{
    int number = memplug_register_mover(pool, &owner->mover);

    if (number < 0)
        return number;
    owner_bind(owner, pool, (unsigned)number);
    return 0;
}

/* --- one slot --------------------------------------------------------------------------------- */

static int slot_take(struct owner *owner, unsigned *number)
{
    int error = -ENOSPC;
    unsigned i;

    owner_lock(owner);
    for (i = 0; i < owner->config.nr_slots && error; i++) {
        if (owner->slots[i].taken)
            continue;
        owner->slots[i].taken = true;
        *number = i;
        error = 0;
    }
    owner_unlock(owner);
    return error;
}

/* The pages are ours from memplug_alloc() on, and a mover may come before we have written down
 * where they are: it finds an empty slot and says -ENOENT. */
static void slot_fill(struct owner *owner, unsigned number, int error, memplug_pfn_t pfn,
                      uint32_t nr_pages, bool huge)
{
    struct slot *slot = &owner->slots[number];

    fake_sched_point();
    owner_lock(owner);
    if (error) {
        slot->taken = false;
    } else {
        slot->pfn = pfn;
        slot->nr_pages = nr_pages;
        slot->huge = huge;
        slot->version++;
        pattern_all(owner, number, true);
        owner->stat.nr_used_slots++;
        owner->stat.nr_used_pages += nr_pages;
    }
    owner_unlock(owner);
}

int owner_alloc_request(struct owner *owner, const struct memplug_alloc *request,
                        const memplug_pfn_t *at, unsigned *number)
{
    struct memplug_alloc mine = *request;
    memplug_pfn_t pfn = {0};
    unsigned i;
    int error = slot_take(owner, &i);

    if (error)
        return error;
    mine.mover = (uint8_t)owner->mover_number;
    mine.cookie = i;
    if (at) {
        pfn = *at;
        error = memplug_alloc_exact(owner->pool, pfn, &mine);
    } else {
        error = memplug_alloc(owner->pool, &mine, &pfn);
    }
    slot_fill(owner, i, error, pfn, mine.nr_pages, false);
    if (!error && number)
        *number = i;
    return error;
}

int owner_alloc_huge(struct owner *owner, enum memplug_huge size, int node, bool reserved,
                     unsigned *number)
{
    struct memplug_alloc request = {.node = node, .mover = (uint8_t)owner->mover_number};
    memplug_pfn_t pfn = {0};
    unsigned i;
    int error = slot_take(owner, &i);

    if (error)
        return error;
    request.cookie = i;
    error = memplug_huge_alloc(owner->pool, size, &request, reserved, &pfn);
    slot_fill(owner, i, error, pfn, (uint32_t)memplug_huge_pages(owner->pool, size), true);
    if (!error && number)
        *number = i;
    return error;
}

int owner_alloc(struct owner *owner, uint32_t nr_pages, unsigned *slot)
{
    struct memplug_alloc request = {.nr_pages = nr_pages, .node = MEMPLUG_ANY_NODE};

    return owner_alloc_request(owner, &request, NULL, slot);
}

/* The slot is emptied under the lock, the pages are freed outside: a mover either switches before,
 * and then the target is freed, or finds the slot empty. */
int owner_free(struct owner *owner, unsigned number)
{
    struct slot *slot;
    struct slot old = {0};
    int error;

    owner_lock(owner);
    slot = used_slot(owner, number);
    if (slot) {
        old = *slot;
        memset(memplug_page_address(owner->pool, old.pfn), FREED_BYTE, SPARSE_BYTES);
        slot->nr_pages = 0;
        slot->held = false;
        owner->stat.nr_used_slots--;
        owner->stat.nr_used_pages -= old.nr_pages;
    }
    owner_unlock(owner);
    if (!slot)
        return -ENOENT;
    error = old.huge ? memplug_huge_free(owner->pool, old.pfn)
                     : memplug_free(owner->pool, old.pfn, old.nr_pages);
    owner_lock(owner);
    owner->slots[number].taken = false;
    owner_unlock(owner);
    return error;
}

int owner_write(struct owner *owner, unsigned number)
{
    struct slot *slot;

    owner_lock(owner);
    slot = used_slot(owner, number);
    if (slot) {
        slot->version++;
        pattern_all(owner, number, true);
    }
    owner_unlock(owner);
    return slot ? 0 : -ENOENT;
}

int owner_verify(struct owner *owner, unsigned number)
{
    int error = -ENOENT;

    owner_lock(owner);
    if (used_slot(owner, number))
        error = pattern_all(owner, number, false) ? 0 : -EUCLEAN;
    owner_unlock(owner);
    return error;
}

int owner_hold(struct owner *owner, unsigned number, bool held)
{
    struct slot *slot;

    owner_lock(owner);
    slot = used_slot(owner, number);
    if (slot)
        slot->held = held;
    owner_unlock(owner);
    return slot ? 0 : -ENOENT;
}

int owner_where(struct owner *owner, unsigned number, memplug_pfn_t *pfn, uint32_t *nr_pages)
{
    const struct slot *slot;

    owner_lock(owner);
    slot = used_slot(owner, number);
    if (slot) {
        *pfn = slot->pfn;
        if (nr_pages)
            *nr_pages = slot->nr_pages;
    }
    owner_unlock(owner);
    return slot ? 0 : -ENOENT;
}

/* --- all slots -------------------------------------------------------------------------------- */

int owner_verify_all(struct owner *owner, unsigned *bad_slot)
{
    unsigned i;

    for (i = 0; i < owner->config.nr_slots; i++) {
        if (owner_verify(owner, i) != -EUCLEAN)
            continue;
        if (bad_slot)
            *bad_slot = i;
        return -EUCLEAN;
    }
    return 0;
}

int owner_free_all(struct owner *owner)
{
    int first = 0;
    unsigned i;

    for (i = 0; i < owner->config.nr_slots; i++) {
        int error = owner_free(owner, i);

        if (error && error != -ENOENT && !first)
            first = error;
    }
    return first;
}

unsigned owner_fill(struct owner *owner)
{
    unsigned nr = 0;

    while (owner_alloc(owner, 1, NULL) == 0)
        nr++;
    return nr;
}

int owner_step(struct owner *owner, uint64_t *random, unsigned order_max)
{
    uint64_t choice = fake_random(random);
    unsigned slot = (unsigned)((choice >> 16) % owner->config.nr_slots);
    int error;

    if (choice % 8 < 3)
        return owner_alloc(owner, 1u << (choice >> 8) % (order_max + 1), NULL);
    if (choice % 8 < 5)
        error = owner_free(owner, slot);
    else if (choice % 8 < 6)
        error = owner_write(owner, slot);
    else
        error = owner_verify(owner, slot);
    return error == -ENOENT ? 0 : error;
}

void owner_stat(struct owner *owner, struct owner_stat *stat)
{
    owner_lock(owner);
    *stat = owner->stat;
    owner_unlock(owner);
}

void owner_dump(struct owner *owner, bool frames, memplug_write_t *write, void *context)
{
    char text[128];
    unsigned i;

    owner_lock(owner);
    for (i = 0; i < owner->config.nr_slots; i++) {
        const struct slot *slot = used_slot(owner, i);
        int length;

        if (!slot)
            continue;
        length = snprintf(text, sizeof(text), "slot %u: %" PRIu32 " pages, version %" PRIu64 "%s",
                          i, slot->nr_pages, slot->version, slot->held ? ", held" : "");
        if (frames)
            length += snprintf(text + length, sizeof(text) - (size_t)length,
                               ", pfn 0x%" PRIx64, slot->pfn.nr);
        write(context, text, (size_t)length);
        write(context, "\n", 1);
    }
    owner_unlock(owner);
}
