/* SPDX-License-Identifier: MIT */
/* What owners do with their pages while they have them, and who moves them. */
#include "steps.h"

static int pin(struct mpl_page *page, uint64_t cookie)
{
    (void)cookie;
    return mpl_page_pin(page);
}

static int unpin(struct mpl_page *page, uint64_t cookie)
{
    (void)cookie;
    return mpl_page_unpin(page);
}

/* Does an allocation start there? One that is pinned seems held while somebody's free of it is
 * being refused. */
static bool is_head(enum mpl_frame frame, bool pinned)
{
    return frame == MPL_FRAME_HEAD || (pinned && frame == MPL_FRAME_HELD);
}

/* Inside a slot. Null if no page of a mover or driver starts there, or somebody has just freed it.
 * Whoever frees it from here on sees the mark, and looks at the page. */
static struct mpl_page *described_at(struct memplug *pool, memplug_pfn_t pfn, bool pinned,
                                     int *error)
{
    uint64_t index;
    struct mpl_block *block = mpl_frames_block(pool, pfn, &index);

    *error = block == NULL ? -MPL_ENODEV : -MPL_EINVAL;
    if (block == NULL || mpl_is_memmap(pool, block, index) ||
        !is_head(mpl_frame_get(pool, block, index), pinned) ||
        !mpl_frame_described(pool, block, index))
        return NULL;
    mpl_frames_mark(block);
    if (!pinned && !mpl_frame_is_used(block, index))
        return NULL;
    return mpl_page_at(pool, pfn);
}

static int with_page(struct memplug *pool, memplug_pfn_t pfn,
                     int (*act)(struct mpl_page *page, uint64_t cookie), uint64_t cookie)
{
    struct mpl_slot *slot = mpl_percpu_lock(pool);
    int error;
    struct mpl_page *page = described_at(pool, pfn, act == unpin, &error);

    if (page != NULL && (__atomic_load_n(&page->huge, __ATOMIC_RELAXED) == 0 || page->mover != 0))
        error = act(page, cookie); /* a huge page has a struct page without a mover too */
    mpl_percpu_unlock(slot);
    return error;
}

/* Pinned meanwhile, so that no move begins with the old cookie and ends with it. */
static int set_cookie(struct mpl_page *page, uint64_t cookie)
{
    int error = mpl_page_pin(page);

    if (error != 0)
        return error;
    if (mpl_page_state(page) == MPL_PAGE_USED)
        atomic_store_explicit(&page->cookie, cookie, memory_order_relaxed);
    else
        error = -MPL_EINVAL;
    mpl_page_unpin(page); /* if that fails, somebody else has dropped one pin too many */
    return error;
}

int memplug_pin(struct memplug *pool, memplug_pfn_t pfn)
{
    return with_page(pool, pfn, pin, 0);
}

int memplug_unpin(struct memplug *pool, memplug_pfn_t pfn)
{
    return with_page(pool, pfn, unpin, 0);
}

int memplug_set_cookie(struct memplug *pool, memplug_pfn_t pfn, uint64_t cookie)
{
    return with_page(pool, pfn, set_cookie, cookie);
}

void *memplug_page_address(const struct memplug *pool, memplug_pfn_t pfn)
{
    if (mpl_block_of_pfn(&pool->geometry, pfn) >= pool->nr_blocks_max)
        return NULL;
    return pool->host->direct_map + mpl_address_of_pfn(&pool->geometry, pfn);
}

void *memplug_page_private(const struct memplug *pool, memplug_pfn_t pfn)
{
    if (mpl_block_of_pfn(&pool->geometry, pfn) >= pool->nr_blocks_max)
        return NULL;
    return mpl_page_at(pool, pfn) + 1;
}

/* Readers believe movers below nr_movers. Writers need a lock that nobody sleeps with. */
int memplug_register_mover(struct memplug *pool, const struct memplug_mover *mover)
{
    struct mpl_spin *lock = &pool->slots[0].lock;
    unsigned number;

    if (mover->move == NULL)
        return -MPL_EINVAL;
    mpl_spin_lock(pool, lock);
    number = atomic_load_explicit(&pool->nr_movers, memory_order_relaxed);
    if (number < MPL_MAX_MOVERS) {
        pool->movers[number] = *mover;
        atomic_store_explicit(&pool->nr_movers, number + 1, memory_order_release);
    }
    mpl_spin_unlock(lock);
    return number < MPL_MAX_MOVERS ? (int)number : -MPL_ENOSPC;
}
