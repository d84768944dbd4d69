/* SPDX-License-Identifier: MIT */
#include "look.h"

uint64_t mpl_look_mask(const struct mpl_block *block, uint64_t word,
                       enum mpl_look what)
{
    const struct mpl_bits *bits = mpl_bits_at(block, word);
    uint64_t free = __atomic_load_n(&bits->free, __ATOMIC_ACQUIRE);
    uint64_t head = __atomic_load_n(&bits->head, __ATOMIC_ACQUIRE);

    switch (what) {
    case MPL_LOOK_USED:
        return ~free;
    case MPL_LOOK_HEAD:
        return head & ~free;
    case MPL_LOOK_BEGIN:
        return head | free;
    case MPL_LOOK_FREE:
        return free & ~head;
    case MPL_LOOK_HELD:
        return head & free;
    }
    return 0;
}

uint64_t mpl_look_for(const struct mpl_block *block, uint64_t index,
                      uint64_t end, enum mpl_look what)
{
    while (index < end) {
        uint64_t below = ((uint64_t)1 << (index % 64)) - 1;
        uint64_t mask = mpl_look_mask(block, index / 64, what) & ~below;

        if (mask != 0) {
            index = index / 64 * 64 + MPL_CTZ64(mask);
            return index < end ? index : end;
        }
        index = (index / 64 + 1) * 64;
    }
    return end;
}

uint64_t mpl_look_count(const struct mpl_block *block, uint64_t index,
                        uint64_t end, enum mpl_look what)
{
    uint64_t nr_frames = 0;

    while (index < end) {
        uint64_t next = (index / 64 + 1) * 64;
        uint64_t mask = mpl_look_mask(block, index / 64, what) >> (index % 64);

        if (next > end)
            mask &= ((uint64_t)1 << (end - index)) - 1;
        nr_frames += MPL_POPCOUNT64(mask);
        index = next;
    }
    return nr_frames;
}

uint64_t mpl_look_run(const struct memplug *pool, const struct mpl_block *block, uint64_t index)
{
    return mpl_look_for(block, index + 1, pool->layout.nr_pages, MPL_LOOK_BEGIN) - index;
}

uint64_t mpl_look_run_on(const struct memplug *pool, const struct mpl_block *next)
{
    if (mpl_block_state(next) != MEMPLUG_BLOCK_ONLINE || mpl_is_memmap(pool, next, 0))
        return 0;
    return mpl_look_for(next, 0, pool->layout.nr_pages, MPL_LOOK_BEGIN);
}

struct mpl_look_page mpl_look_page(const struct memplug *pool, memplug_pfn_t pfn)
{
    const struct mpl_page *page = mpl_page_at(pool, pfn);

    return (struct mpl_look_page){
        .state = mpl_page_state(page),
        .pins = mpl_page_pins(page),
        .nr_pages = __atomic_load_n(&page->nr_pages, __ATOMIC_RELAXED),
        .mover = __atomic_load_n(&page->mover, __ATOMIC_RELAXED),
        .align_order = __atomic_load_n(&page->align_order, __ATOMIC_RELAXED),
        .huge = __atomic_load_n(&page->huge, __ATOMIC_RELAXED),
        .huge_flags = __atomic_load_n(&page->huge_flags, __ATOMIC_RELAXED),
        .cookie = atomic_load_explicit(&page->cookie, memory_order_relaxed),
    };
}

const struct memplug_mover *mpl_look_mover(const struct memplug *pool, unsigned number)
{
    if (number == 0 || number >= atomic_load_explicit(&pool->nr_movers, memory_order_acquire))
        return NULL;
    return &pool->movers[number];
}
