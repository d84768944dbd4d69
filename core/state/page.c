/* SPDX-License-Identifier: MIT */
/*
 * The life of a struct page. State and pins share one word, so that whoever changes one has seen
 * the other: a page that is being moved has no pin, and a page that is freed has none either.
 */
#include "state.h"

#define STATE_BITS MPL_PAGE_STATE_BITS
#define STATE_MASK ((1u << STATE_BITS) - 1)
#define PIN MPL_PAGE_PIN
#define PINS_MAX (UINT32_MAX >> STATE_BITS)

#define TO(state) (1u << (state))
static const uint8_t legal[] = {
    [MPL_PAGE_NONE] = TO(MPL_PAGE_USED) | TO(MPL_PAGE_TARGET) | TO(MPL_PAGE_KEPT),
    [MPL_PAGE_USED] = TO(MPL_PAGE_NONE) | TO(MPL_PAGE_MOVING) | TO(MPL_PAGE_POOLED),
    [MPL_PAGE_MOVING] = TO(MPL_PAGE_NONE) | TO(MPL_PAGE_USED) | TO(MPL_PAGE_DYING) |
                        TO(MPL_PAGE_POOLED),
    [MPL_PAGE_TARGET] = TO(MPL_PAGE_NONE) | TO(MPL_PAGE_USED) | TO(MPL_PAGE_DYING) |
                        TO(MPL_PAGE_POOLED),
    [MPL_PAGE_DYING] = TO(MPL_PAGE_NONE) | TO(MPL_PAGE_POOLED),
    [MPL_PAGE_KEPT] = TO(MPL_PAGE_NONE),
    [MPL_PAGE_POOLED] = TO(MPL_PAGE_NONE) | TO(MPL_PAGE_USED) | TO(MPL_PAGE_TARGET),
};
#define NR_STATES (sizeof(legal) / sizeof(legal[0]))

static enum mpl_page_state state_of(uint32_t word)
{
    return (enum mpl_page_state)(word & STATE_MASK);
}

static uint32_t load(const struct mpl_page *page)
{
    return atomic_load_explicit(&page->state, memory_order_acquire);
}

/* On failure *word is what the page has instead. */
static bool replace(struct mpl_page *page, uint32_t *word, uint32_t with)
{
    MPL_ASSERT(state_of(*word) == state_of(with) ||
               mpl_page_may_become(state_of(*word), state_of(with)));
    return atomic_compare_exchange_weak_explicit(&page->state, word, with, memory_order_acq_rel,
                                                 memory_order_acquire);
}

enum mpl_page_state mpl_page_state(const struct mpl_page *page)
{
    return state_of(load(page));
}

uint32_t mpl_page_pins(const struct mpl_page *page)
{
    return load(page) >> STATE_BITS;
}

bool mpl_page_may_become(enum mpl_page_state from, enum mpl_page_state to)
{
    return (unsigned)from < NR_STATES && (unsigned)to < NR_STATES &&
           (legal[from] & TO(to)) != 0;
}

void mpl_page_describe(struct mpl_page *page, enum mpl_page_state state, uint32_t nr_pages,
                       uint8_t mover, uint64_t cookie, bool pinned)
{
    MPL_ASSERT(state == MPL_PAGE_USED || state == MPL_PAGE_TARGET);
    mpl_page_write(page, (uint32_t)state + (pinned ? PIN : 0), nr_pages, mover, 0, cookie);
}

void mpl_page_keep(struct mpl_page *page, uint32_t nr_pages, uint32_t nr_pins)
{
    MPL_ASSERT(nr_pins <= PINS_MAX);
    mpl_page_write(page, MPL_PAGE_KEPT | nr_pins * PIN, nr_pages, 0, 0, 0);
}

bool mpl_page_unkeep(struct mpl_page *page, uint32_t *nr_pins)
{
    uint32_t word = load(page);

    do {
        if (state_of(word) != MPL_PAGE_KEPT)
            return false;
    } while (!replace(page, &word, MPL_PAGE_NONE));
    *nr_pins = word >> STATE_BITS;
    return true;
}

bool mpl_page_change(struct mpl_page *page, enum mpl_page_state from, enum mpl_page_state to)
{
    uint32_t word = load(page);

    MPL_ASSERT(mpl_page_may_become(from, to));
    do {
        if (word != (uint32_t)from) /* another state, or pins */
            return false;
    } while (!replace(page, &word, (uint32_t)to));
    return true;
}

/* The owner gives it up, and it becomes what `as` says, or DYING. */
static bool give_up(struct mpl_page *page, enum mpl_page_state as, bool *later)
{
    uint32_t word = load(page);
    enum mpl_page_state to;

    *later = false;
    do {
        switch (state_of(word)) {
        case MPL_PAGE_USED:
            to = as;
            break;
        case MPL_PAGE_MOVING:
        case MPL_PAGE_TARGET:
            to = MPL_PAGE_DYING;
            break;
        default:
            return false;
        }
        if (word >= PIN)
            return false;
    } while (!replace(page, &word, (uint32_t)to));
    *later = to == MPL_PAGE_DYING;
    return !*later;
}

bool mpl_page_free(struct mpl_page *page, bool *later)
{
    return give_up(page, MPL_PAGE_NONE, later);
}

static int answer(const struct mpl_page *page, bool done)
{
    if (done)
        return 0;
    return mpl_page_state(page) == MPL_PAGE_USED ? -MPL_EBUSY : -MPL_EINVAL;
}

int mpl_page_end(struct mpl_page *page, bool *later)
{
    return answer(page, mpl_page_free(page, later) || *later);
}

/* Whoever looks at a page that is POOLED does not look at its owner: so that is cleared behind. */
static void disown(struct mpl_page *page)
{
    MPL_PUT(page->mover, 0);
    mpl_huge_flag(page, 0, MPL_HUGE_FROM_POOL);
    atomic_store_explicit(&page->cookie, 0, memory_order_relaxed);
}

int mpl_page_end_huge(struct mpl_page *page, bool *later)
{
    bool done = give_up(page, MPL_PAGE_POOLED, later);

    if (done)
        disown(page);
    return answer(page, done || *later);
}

bool mpl_page_pool(struct mpl_page *page, enum mpl_page_state from)
{
    if (!mpl_page_change(page, from, MPL_PAGE_POOLED))
        return false;
    disown(page);
    return true;
}

void mpl_page_unpool(struct mpl_page *page, enum mpl_page_state to, uint8_t mover,
                     uint64_t cookie, bool pinned)
{
    MPL_ASSERT(mpl_page_state(page) == MPL_PAGE_POOLED);
    MPL_ASSERT(mpl_page_may_become(MPL_PAGE_POOLED, to));
    MPL_PUT(page->mover, mover);
    mpl_huge_flag(page, to == MPL_PAGE_TARGET ? MPL_HUGE_FROM_POOL : 0, MPL_HUGE_STUCK);
    atomic_store_explicit(&page->cookie, cookie, memory_order_relaxed);
    atomic_store_explicit(&page->state, (uint32_t)to + (pinned ? PIN : 0), memory_order_release);
}

int mpl_page_pin(struct mpl_page *page)
{
    uint32_t word = load(page);

    do {
        if (state_of(word) == MPL_PAGE_MOVING || state_of(word) == MPL_PAGE_TARGET)
            return -MPL_EAGAIN;
        if (state_of(word) != MPL_PAGE_USED && state_of(word) != MPL_PAGE_KEPT)
            return -MPL_EINVAL;
        if (word >> STATE_BITS == PINS_MAX)
            return -MPL_EAGAIN;
    } while (!replace(page, &word, word + PIN));
    return 0;
}

int mpl_page_unpin(struct mpl_page *page)
{
    uint32_t word = load(page);

    do {
        if ((state_of(word) != MPL_PAGE_USED && state_of(word) != MPL_PAGE_KEPT) || word < PIN)
            return -MPL_EINVAL;
    } while (!replace(page, &word, word - PIN));
    return 0;
}
