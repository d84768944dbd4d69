/* SPDX-License-Identifier: MIT */
/*
 * Slots of the caller's own. Threads have no assertions of cmocka: they count what is wrong. If
 * an owner does not look at stop, or the other does not wait, the storm traps or counts.
 */
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mini_pool.h"

#include <cmocka.h>

#define BLOCK_PAGES 256u
#define NR_BLOCKS 6u

static const struct mini_shape shape = {6, 8, NR_BLOCKS, 2, 1, 64};

static struct memplug_alloc want(uint8_t mover)
{
    return (struct memplug_alloc){.nr_pages = 1, .node = MEMPLUG_ANY_NODE, .mover = mover};
}

static struct memplug_slot *open_slot(struct mini *mini)
{
    struct memplug_slot *slot = NULL;

    assert_int_equal(memplug_slot_open(&mini->pool, &slot), 0);
    assert_non_null(slot);
    return slot;
}

static uint64_t must_take(struct memplug_slot *slot, uint8_t mover)
{
    struct memplug_alloc request = want(mover);
    memplug_pfn_t pfn;

    assert_int_equal(memplug_slot_alloc(slot, &request, &pfn), 0);
    return pfn.nr;
}

static void close_empty(struct mini *mini, uint64_t nr_free)
{
    mini_check(mini);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), nr_free);
    mini_close(mini);
}

/* --- calls ------------------------------------------------------------------------------------ */

static void takes_and_gives(void **context)
{
    struct mini *mini = mini_open(&shape);
    uint8_t mover = mini_mover(mini);
    struct memplug_slot *slot = open_slot(mini);
    struct memplug_alloc request = want(0);
    uint64_t raw, owned;
    memplug_pfn_t pfn;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    raw = must_take(slot, 0);
    owned = must_take(slot, mover);
    assert_int_equal(raw, BLOCK_PAGES);
    assert_int_equal(owned, 2 * BLOCK_PAGES);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned + 1), 1), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned), 2), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(5 * BLOCK_PAGES), 1), -MPL_ENODEV);
    assert_int_equal(memplug_pin(&mini->pool, mpl_pfn(owned)), 0);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned), 1), -MPL_EBUSY);
    assert_int_equal(memplug_unpin(&mini->pool, mpl_pfn(owned)), 0);
    assert_int_equal(memplug_free(&mini->pool, mpl_pfn(owned), 1), 0); /* through the CPU's */
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned), 1), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(raw), 1), 0);
    assert_int_equal(memplug_free(&mini->pool, mpl_pfn(raw), 1), -MPL_EINVAL);
    request.mover = 9;
    assert_int_equal(memplug_slot_alloc(slot, &request, &pfn), -MPL_EINVAL);
    request = (struct memplug_alloc){.nr_pages = 1, .node = 7};
    assert_int_equal(memplug_slot_alloc(slot, &request, &pfn), -MPL_EINVAL);
    request = (struct memplug_alloc){.nr_pages = 1, .align_pages = 2};
    assert_int_equal(memplug_slot_alloc(slot, &request, &pfn), -MPL_EINVAL);
    request = (struct memplug_alloc){.nr_pages = 64};
    assert_int_equal(memplug_slot_alloc(slot, &request, &pfn), 0);
    assert_int_equal(memplug_slot_free(slot, pfn, 64), 0);
    memplug_slot_close(slot);
    mpl_percpu_drain(&mini->pool);
    close_empty(mini, 2 * BLOCK_PAGES);
}

/* What a slot has at hand is there for others when memory is short, and when it is closed. */
static void gives_back(void **context)
{
    struct mini *mini = mini_open(&shape);
    struct memplug_slot *a = open_slot(mini), *b = open_slot(mini);
    uint64_t taken[BLOCK_PAGES];

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    taken[0] = must_take(a, 0);
    for (unsigned i = 1; i < BLOCK_PAGES; i++)
        taken[i] = must_take(b, 0);
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        assert_int_equal(memplug_slot_free(i % 2 != 0 ? a : b, mpl_pfn(taken[i]), 1), 0);
    assert_true(mini_count(mini, MPL_FRAME_HELD) != 0);
    memplug_slot_close(a);
    memplug_slot_close(b);
    close_empty(mini, BLOCK_PAGES);
}

/* --- words that wait -------------------------------------------------------------------------- */

#define MANY_WORDS 20u

static uint64_t held(struct mini *mini)
{
    return mini_count(mini, MPL_FRAME_HELD);
}

static void isolate(struct mini *mini, uint64_t word, bool isolated)
{
    if (isolated)
        mpl_isolate_span(&mini->pool, mpl_block_at(&mini->pool, 1), word * 64, 64);
    else
        mpl_unisolate_span(&mini->pool, mpl_block_at(&mini->pool, 1), word * 64, 64);
}

static unsigned words_held(const struct memplug_slot *slot, unsigned kind)
{
    const struct mpl_slot *own = (const struct mpl_slot *)(const void *)slot;
    unsigned nr = own->held[kind].mask != 0;

    for (unsigned i = 0; i < MPL_NR_WAITING; i++)
        nr += own->held[MPL_NR_KINDS + kind * MPL_NR_WAITING + i].mask != 0;
    return nr;
}

/* What a slot holds of isolated pageblocks comes back when it is passed; all else stays its. */
static void passing_leaves_what_is_not_isolated(void **context)
{
    static const struct mini_shape wide = {6, 11, 2, 1, 1, 64};
    struct mini *mini = mini_open(&wide);
    struct memplug_slot *slot = open_slot(mini), *other = open_slot(mini);
    struct mpl_slot *own = (struct mpl_slot *)(void *)slot;
    uint64_t first = 2048;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    for (uint64_t i = 0; i < 2048; i++)
        assert_int_equal(must_take(other, 0), first + i);
    for (uint64_t i = 0; i < MPL_NR_WAITING; i++)
        assert_int_equal(memplug_slot_free(other, mpl_pfn(first + i * 64 + i), 1), 0);
    mpl_percpu_drain(&mini->pool);
    assert_int_equal(must_take(slot, 0), first); /* and 14 wait in words 1 to 14 */
    for (uint64_t i = 20; i < 30; i++)
        assert_int_equal(memplug_slot_free(slot, mpl_pfn(first + i * 64), 1), 0);
    mpl_percpu_pass(&mini->pool);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), 0);
    for (uint64_t i = 1; i < 30; i += 2)
        isolate(mini, i, true);
    mpl_percpu_pass(&mini->pool);
    assert_int_equal(words_held(slot, MPL_HELD_KERNEL), 7);
    assert_int_equal(words_held(slot, MPL_HELD_FREED), 5);
    assert_int_equal(own->queue[MPL_HELD_FREED].nr_frames + MPL_POPCOUNT64(own->held[MPL_HELD_FREED]
                     .mask), 5);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), 7 + 5);
    mini_check(mini);
    for (uint64_t i = 2; i < MPL_NR_WAITING; i += 2)
        assert_int_equal(must_take(slot, 0), first + i * 64 + i);
    assert_int_equal(words_held(slot, MPL_HELD_KERNEL), 0);
    for (uint64_t i = 1; i < 30; i += 2)
        isolate(mini, i, false);
    mpl_percpu_drain(&mini->pool);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), 7 + 10);
    memplug_slot_close(slot);
    memplug_slot_close(other);
    mini_check(mini);
    mini_close(mini);
}

/* Where one frame of each word is free, many words come at once; and go back at once. */
static void words_wait(void **context)
{
    static const struct mini_shape wide = {6, 11, 2, 1, 1, 64};
    struct mini *mini = mini_open(&wide);
    struct memplug_slot *slot = open_slot(mini);
    uint64_t all = 2048, first = 2048, nr_most = 0;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    for (uint64_t i = 0; i < all; i++)
        assert_int_equal(must_take(slot, 0), first + i);
    assert_int_equal(memplug_free(&mini->pool, mpl_pfn(first), 64), -MPL_EINVAL);
    for (uint64_t i = 0; i < MANY_WORDS; i++) {
        assert_int_equal(memplug_slot_free(slot, mpl_pfn(first + i * 64 + i), 1), 0);
        if (held(mini) > nr_most)
            nr_most = held(mini);
    }
    assert_int_equal(nr_most, MPL_NR_WAITING);
    assert_true(mini_count(mini, MPL_FRAME_FREE) >= MPL_NR_WAITING);
    mpl_percpu_drain(&mini->pool);
    assert_int_equal(mini_count(mini, MPL_FRAME_FREE), MANY_WORDS);
    mini_check(mini);
    assert_int_equal(must_take(slot, 0), first);
    assert_int_equal(held(mini), MPL_NR_WAITING - 1);
    for (uint64_t i = 1; i < MPL_NR_WAITING; i++)
        assert_int_equal(must_take(slot, 0), first + i * 64 + i);
    assert_int_equal(held(mini), 0);
    assert_int_equal(must_take(slot, 0), first + MPL_NR_WAITING * 65);
    memplug_slot_close(slot);
    assert_int_equal(held(mini), 0);
    close_empty(mini, MANY_WORDS - MPL_NR_WAITING - 1);
}

/* Words that hold much do not wait: a slot keeps about a word's worth of each kind. */
static void keeps_a_words_worth(void **context)
{
    static const struct mini_shape wide = {6, 11, 2, 1, 1, 64};
    struct mini *mini = mini_open(&wide);
    struct memplug_slot *slot = open_slot(mini);
    uint64_t first = 2048;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    assert_int_equal(must_take(slot, 0), first);
    assert_int_equal(held(mini), 63);
    for (uint64_t i = 1; i < 1024; i++)
        (void)must_take(slot, 0);
    for (uint64_t i = 0; i < 1024; i++) {
        assert_int_equal(memplug_slot_free(slot, mpl_pfn(first + i), 1), 0);
        assert_true(held(mini) < 2 * 64);
    }
    memplug_slot_close(slot);
    close_empty(mini, 2048);
}

/* In a word that the slot has at hand, too, only what is whole and used is freed. */
static void looks_at_the_word(void **context)
{
    struct mini *mini = mini_open(&shape);
    struct memplug *pool = &mini->pool;
    struct memplug_slot *slot = open_slot(mini), *other = open_slot(mini);
    struct memplug_alloc pair = {.nr_pages = 2, .node = MEMPLUG_ANY_NODE};
    uint8_t mover = mini_mover(mini);
    uint64_t raw, last, owned, bad[4] = {0};
    memplug_pfn_t two;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 10);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    assert_int_equal(memplug_alloc(pool, &pair, &two), 0);
    raw = must_take(slot, 0);
    last = must_take(slot, 0);
    assert_int_equal(two.nr, BLOCK_PAGES + 10);
    assert_int_equal(raw, BLOCK_PAGES + 12);
    assert_int_equal(memplug_slot_free(slot, two, 1), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(two.nr + 1), 1), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(BLOCK_PAGES), 1), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(last + 1), 1), -MPL_EINVAL);
    mpl_block_at(pool, 1)->poisoned = bad;
    bad[0] = UINT64_C(1) << (last % 64);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(last), 1), -MPL_EINVAL);
    bad[0] = 0;
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(last), 1), 0);
    mpl_block_at(pool, 1)->poisoned = NULL;
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(raw), 1), 0);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(raw), 1), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(other, mpl_pfn(raw), 1), -MPL_EINVAL);
    owned = must_take(slot, mover);
    (void)must_take(slot, mover);
    assert_int_equal(memplug_pin(pool, mpl_pfn(owned)), 0);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned), 1), -MPL_EBUSY);
    assert_int_equal(memplug_unpin(pool, mpl_pfn(owned)), 0);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned), 1), 0);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned + 1), 1), 0);
    assert_int_equal(memplug_free(pool, two, 2), 0);
    memplug_slot_close(slot);
    memplug_slot_close(other);
    mpl_percpu_drain(pool);
    close_empty(mini, 2 * BLOCK_PAGES - 10);
}

/* A frame of memmap looks like an allocation of a page, a pageblock of it like one of that. */
static void keeps_the_memmap(void **context)
{
    struct mini *mini = mini_open(&shape);
    struct memplug_slot *slot = open_slot(mini);
    uint64_t one;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 1);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_NORMAL, 64);
    assert_int_equal(memplug_free(&mini->pool, mpl_pfn(2 * BLOCK_PAGES), 64), -MPL_EINVAL);
    one = must_take(slot, 0);
    assert_int_equal(one, BLOCK_PAGES + 1);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(BLOCK_PAGES), 1), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(one), 1), 0);
    memplug_slot_close(slot);
    close_empty(mini, 2 * BLOCK_PAGES - 65);
}

/* A raw frame that is freed into a movable word is described when it is taken as a movable one. */
static void describes_what_was_raw(void **context)
{
    struct mini *mini = mini_open(&shape);
    struct memplug *pool = &mini->pool;
    struct memplug_slot *slot = open_slot(mini), *other = open_slot(mini);
    uint8_t mover = mini_mover(mini);
    uint64_t raw, owned;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    raw = must_take(other, 0);
    memplug_slot_close(other);
    owned = must_take(slot, mover);
    assert_int_equal(owned, raw + 1);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(raw), 1), 0);
    assert_int_equal(must_take(slot, mover), raw);
    assert_true(mpl_frame_described(pool, mpl_block_at(pool, 1), raw - BLOCK_PAGES));
    assert_int_equal(memplug_pin(pool, mpl_pfn(raw)), 0);
    assert_int_equal(memplug_unpin(pool, mpl_pfn(raw)), 0);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(raw), 1), 0);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned), 1), 0);
    memplug_slot_close(slot);
    close_empty(mini, BLOCK_PAGES);
}

/* What the core ends is free after that, unless it is somebody else's by now. */
static void ends_what_is_there(void **context)
{
    struct mini *mini = mini_open(&shape);
    struct memplug *pool = &mini->pool;
    uint8_t mover = mini_mover(mini);
    struct memplug_slot *slot = open_slot(mini);
    uint64_t raw, owned, ended, freed;

    (void)context;
    mini_online(mini, 1, 0, MEMPLUG_ZONE_NORMAL, 0);
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    raw = must_take(slot, 0);
    owned = must_take(slot, mover);
    ended = must_take(slot, mover);
    freed = must_take(slot, mover);
    mpl_percpu_free_ended(pool, mpl_pfn(raw));
    mpl_percpu_free_ended(pool, mpl_pfn(owned));
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(raw), 1), 0);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(owned), 1), 0);
    assert_true(mpl_page_change(mpl_page_at(pool, mpl_pfn(ended)), MPL_PAGE_USED, MPL_PAGE_NONE));
    mpl_percpu_free_ended(pool, mpl_pfn(ended));
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(ended), 1), -MPL_EINVAL);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(freed), 1), 0);
    assert_false(mpl_block_at(pool, 2)->marked);
    assert_true(mpl_page_change(mpl_page_at(pool, mpl_pfn(freed)), MPL_PAGE_USED, MPL_PAGE_NONE));
    mpl_percpu_free_ended(pool, mpl_pfn(freed));
    assert_true(mpl_block_at(pool, 2)->marked); /* so that others look at a page like this one */
    memplug_slot_close(slot);
    mpl_percpu_drain(pool);
    close_empty(mini, 2 * BLOCK_PAGES);
}

static void ends_a_word(void **context)
{
    struct mini *mini = mini_open(&shape);
    struct memplug *pool = &mini->pool;
    struct mpl_block *block = mpl_block_at(pool, 2);
    uint8_t mover = mini_mover(mini);
    struct memplug_slot *slot = open_slot(mini);
    uint64_t taken[5];

    (void)context;
    mini_online(mini, 2, 0, MEMPLUG_ZONE_MOVABLE, 0);
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(taken[i] = must_take(slot, mover), 2 * BLOCK_PAGES + i);
    assert_int_equal(memplug_slot_free(slot, mpl_pfn(taken[3]), 1), 0);
    mini_set_isolated(mini, 2, true);
    mpl_percpu_pass(pool);
    for (uint64_t i = 1; i < 3; i++)
        assert_true(mpl_page_change(mpl_page_at(pool, mpl_pfn(taken[i])), MPL_PAGE_USED,
                                    MPL_PAGE_NONE));
    mpl_percpu_free_word(pool, block, 0, 0x6);
    assert_false(block->marked);
    assert_int_equal(mpl_frame_get(pool, block, 0), MPL_FRAME_HEAD);
    for (uint64_t i = 1; i < 4; i++)
        assert_int_equal(mpl_frame_get(pool, block, i), MPL_FRAME_FREE);
    assert_int_equal(mpl_frames_free_near(pool, block, 0), 62);
    mini_check(mini);
    mini_set_isolated(mini, 2, false);
    for (uint64_t i = 0; i < 5; i += 4)
        assert_int_equal(memplug_slot_free(slot, mpl_pfn(taken[i]), 1), 0);
    memplug_slot_close(slot);
    mpl_percpu_drain(pool);
    close_empty(mini, BLOCK_PAGES);
}

static void as_many_as_there_are(void **context)
{
    struct mini *mini = mini_open(&shape);
    struct memplug_slot *slots[MEMPLUG_MAX_SLOTS], *more;

    (void)context;
    for (unsigned i = 0; i < MEMPLUG_MAX_SLOTS; i++)
        slots[i] = open_slot(mini);
    assert_int_equal(memplug_slot_open(&mini->pool, &more), -MPL_ENOSPC);
    memplug_slot_close(slots[7]);
    more = open_slot(mini);
    assert_ptr_equal(more, slots[7]);
    mini_close(mini);
}

/* --- threads ---------------------------------------------------------------------------------- */

#define NR_THREADS 3u
#define NR_ROUNDS (strcmp(SANITIZER, "none") == 0 ? 3000000u : 100000u)
#define NR_SHELF 64u

struct storm {
    struct mini *mini;
    uint8_t mover;
    _Atomic uint64_t shelf[NR_SHELF];            /* what goes to another thread: pfn, size */
    atomic_uint users[NR_BLOCKS * BLOCK_PAGES];  /* of each frame */
    atomic_uint nr_errors, nr_running;
};

struct thread {
    struct storm *storm;
    unsigned number;
};

static void expect(struct storm *storm, bool holds)
{
    if (!holds)
        atomic_fetch_add(&storm->nr_errors, 1);
}

#define WHOLE 64u
#define SHELVED(pfn, nr) ((pfn) << 8 | (nr))

static void get(struct storm *storm, uint64_t pfn, uint32_t nr)
{
    for (uint32_t i = 0; i < nr; i++)
        expect(storm, atomic_fetch_add(&storm->users[pfn + i], 1) == 0);
}

static void give(struct storm *storm, struct memplug_slot *slot, uint64_t shelved)
{
    uint64_t pfn = shelved >> 8;
    uint32_t nr = shelved & 255;

    for (uint32_t i = 0; i < nr; i++)
        expect(storm, atomic_fetch_sub(&storm->users[pfn + i], 1) == 1);
    expect(storm, memplug_slot_free(slot, mpl_pfn(pfn), nr) == 0);
}

/* Takes a frame, and puts it on a shelf from which another thread may take it to free it. */
static void *work(void *context)
{
    const struct thread *me = context;
    struct storm *storm = me->storm;
    struct memplug_slot *slot;
    uint64_t random = me->number + 1;

    mini_cpu = me->number;
    expect(storm, memplug_slot_open(&storm->mini->pool, &slot) == 0);
    for (unsigned i = 0, nr = NR_ROUNDS; i < nr; i++) {
        struct memplug_alloc request = want(i % 3 != 0 ? storm->mover : 0);
        memplug_pfn_t pfn;
        uint64_t old;

        random = random * 6364136223846793005u + 1;
        request.nr_pages = (random >> 33) % 64 == 0 ? WHOLE : 1;
        if (memplug_slot_alloc(slot, &request, &pfn) == 0) {
            get(storm, pfn.nr, request.nr_pages);
            old = SHELVED(pfn.nr, request.nr_pages);
        } else {
            old = 0;
        }
        old = atomic_exchange(&storm->shelf[random >> 40 & (NR_SHELF - 1)], old);
        if (old != 0)
            give(storm, slot, old);
    }
    memplug_slot_close(slot);
    atomic_fetch_sub(&storm->nr_running, 1);
    return NULL;
}

/* As offline does: isolate, drain, look whether a frame that is free and isolated is taken. */
static void *drain(void *context)
{
    struct storm *storm = context;
    struct memplug *pool = &storm->mini->pool;

    mini_cpu = 0;
    for (unsigned i = 0; atomic_load(&storm->nr_running) != 0; i++) {
        struct mpl_block *block = mpl_block_at(pool, 1 + i % (NR_BLOCKS - 1));
        struct mpl_zone *zone = mpl_zone_of(pool, block);
        uint64_t before;

        mini_set_isolated(storm->mini, mpl_block_id(pool, block), true);
        mpl_percpu_drain(pool);
        mpl_spin_lock(pool, &zone->lock);
        expect(storm, mpl_frames_count(pool, block, MPL_FRAME_HELD) == 0);
        before = mpl_frames_nr_free(pool, block);
        mpl_spin_unlock(&zone->lock);
        sched_yield();
        mpl_spin_lock(pool, &zone->lock);
        expect(storm, mpl_frames_nr_free(pool, block) >= before);
        mpl_spin_unlock(&zone->lock);
        mini_set_isolated(storm->mini, mpl_block_id(pool, block), false);
    }
    return NULL;
}

static void fence(void *context)
{
    (void)context;
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

static void run_storm(bool fenced)
{
    static struct storm storm;
    struct thread threads[NR_THREADS];
    pthread_t handles[NR_THREADS + 1];

    memset(&storm, 0, sizeof(storm));
    storm.mini = mini_open(&shape);
    storm.mover = mini_mover(storm.mini);
    if (fenced)
        storm.mini->ops.fence = fence;
    for (unsigned id = 1; id < NR_BLOCKS; id++)
        mini_online(storm.mini, id, 0, id < 3 ? MEMPLUG_ZONE_NORMAL : MEMPLUG_ZONE_MOVABLE, 0);
    atomic_store(&storm.nr_running, NR_THREADS);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        threads[i] = (struct thread){.storm = &storm, .number = i};
        assert_int_equal(pthread_create(&handles[i], NULL, work, &threads[i]), 0);
    }
    assert_int_equal(pthread_create(&handles[NR_THREADS], NULL, drain, &storm), 0);
    for (unsigned i = 0; i <= NR_THREADS; i++)
        pthread_join(handles[i], NULL);
    assert_int_equal(atomic_load(&storm.nr_errors), 0);
    for (unsigned i = 0; i < NR_SHELF; i++)
        if (storm.shelf[i] != 0)
            assert_int_equal(memplug_free(&storm.mini->pool, mpl_pfn(storm.shelf[i] >> 8),
                                          storm.shelf[i] & 255), 0);
    mpl_percpu_drain(&storm.mini->pool);
    close_empty(storm.mini, (NR_BLOCKS - 1) * BLOCK_PAGES);
}

static void storm_without_fence(void **context)
{
    (void)context;
    run_storm(false);
}

/* ThreadSanitizer knows nothing of the system call, and would see races where there are none. */
static void storm_with_fence(void **context)
{
    (void)context;
    if (strcmp(SANITIZER, "thread") == 0 ||
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
        print_message("SKIP storm_with_fence: the thread sanitizer, or no membarrier\n");
        skip();
    }
    run_storm(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_and_gives),      cmocka_unit_test(gives_back),
        cmocka_unit_test(ends_what_is_there),   cmocka_unit_test(ends_a_word),
        cmocka_unit_test(words_wait),
        cmocka_unit_test(passing_leaves_what_is_not_isolated),
        cmocka_unit_test(keeps_a_words_worth),  cmocka_unit_test(looks_at_the_word),
        cmocka_unit_test(keeps_the_memmap),     cmocka_unit_test(describes_what_was_raw),
        cmocka_unit_test(as_many_as_there_are), cmocka_unit_test(storm_without_fence),
        cmocka_unit_test(storm_with_fence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
