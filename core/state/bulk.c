/* SPDX-License-Identifier: MIT */
/*
 * Many single pages, inside a slot once. What is done to a word of the bitmaps is done for all its
 * frames at once, by the same atomic steps that fast.h and percpu.c take for one; words are taken
 * from the zone, and given back, under one lock. While one frame is looked at, what the next ones
 * need is on its way.
 */
#include "bulk.h"

#include "words.h"

/* Words of which the caller has the frames, and nobody else. */
struct harvest {
    unsigned nr_words, nr_frames;
    struct mpl_held words[MPL_BULK_PAGES];
};

/* Often it is one. */
static inline unsigned nr_of(uint64_t mask)
{
    return (mask & (mask - 1)) == 0 ? mask != 0 : MPL_POPCOUNT64(mask);
}

/* --- allocate --------------------------------------------------------------------------------- */

/* The lowest nr bits. */
static uint64_t lowest(uint64_t mask, unsigned nr)
{
    uint64_t rest = mask;

    if (nr >= MPL_POPCOUNT64(mask))
        return mask;
    for (; nr != 0; nr--)
        rest &= rest - 1;
    return mask - rest;
}

/* So many of these frames, at most. */
static void reap(struct harvest *harvest, struct mpl_held *held, unsigned nr)
{
    struct mpl_held *word = &harvest->words[harvest->nr_words++];

    *word = *held;
    word->mask = lowest(held->mask, nr);
    held->mask -= word->mask;
    harvest->nr_frames += MPL_POPCOUNT64(word->mask);
}

/* As mpl_frames_hold(), of a word that has something. */
static inline void hold_word(struct memplug *pool, struct mpl_zone *zone, struct mpl_block *block,
                             bool describe, struct mpl_held *held)
{
    struct mpl_bits *bits = held->bits;
    uint64_t head = load(&bits->head), mask = load(&bits->free) & ~head, word = held->word;

    if (MPL_UNLIKELY(!uncount_plainly(pool, zone, block, word, nr_of(mask)))) {
        MPL_ASSERT(mpl_frames_hold(pool, block, describe, held) && held->word == word);
        return;
    }
    store(&bits->head, head | mask);
    if (describe)
        set_bits(&bits->described, mask);
    held->mask = mask;
}

/* Their struct pages will be written. */
static inline void fetch_pages(const struct memplug *pool, const struct mpl_held *held)
{
    for (uint64_t left = held->mask; left != 0; left &= left - 1)
        MPL_PREFETCH(mpl_page_at(pool, mpl_pfn(held->first + MPL_CTZ64(left))));
}

/* All words of a block from the lowest on, until there are nr frames. The zone's lock is held. */
static void reap_block(struct memplug *pool, struct harvest *harvest, struct mpl_zone *zone,
                       struct mpl_block *block, bool describe, unsigned nr)
{
    uint64_t id = mpl_block_id(pool, block), start = mpl_block_start(pool, block).nr;
    struct mpl_bits *bits = bits_at(block, 0);

    for (uint64_t i = 0; i * 64 < pool->layout.nr_words; i++) {
        uint64_t summary = load(words_at(block, pool->layout.summary) + i);

        for (; summary != 0; summary &= summary - 1) {
            struct mpl_held *held = &harvest->words[harvest->nr_words];
            uint64_t word = i * 64 + MPL_CTZ64(summary);

            if (harvest->nr_frames >= nr)
                return;
            held->block = (uint32_t)id;
            held->word = (uint32_t)word;
            held->first = start + word * MPL_WORD_PAGES;
            held->bits = &bits[word];
            hold_word(pool, zone, block, describe, held);
            if (describe)
                fetch_pages(pool, held);
            harvest->nr_words++;
            harvest->nr_frames += nr_of(held->mask);
        }
    }
}

static void reap_zone(struct memplug *pool, struct harvest *harvest, struct mpl_zone *zone,
                      bool describe, unsigned nr)
{
    struct mpl_block *block;

    mpl_spin_lock(pool, &zone->lock);
    while (harvest->nr_frames < nr &&
           (block = mpl_frames_next_block(pool, zone, 0)) != NULL) {
        if (MPL_UNLIKELY(mpl_frames_prepare(pool, zone, block)))
            continue; /* the lock was let go */
        reap_block(pool, harvest, zone, block, describe, nr);
    }
    mpl_spin_unlock(&zone->lock);
}

/* Past what is at hand. What is too much of the last word is at hand then, or goes back. False:
 * there was nothing. */
static bool reap_zones(struct memplug *pool, struct harvest *harvest, struct mpl_held *held,
                       const struct memplug_alloc *request, unsigned nr)
{
    unsigned before = harvest->nr_words;
    struct mpl_held *last, rest;
    struct mpl_zone *zone;

    for (unsigned i = 0; harvest->nr_frames < nr &&
                         (zone = mpl_policy_zone_at(pool, request, i)) != NULL; i++)
        reap_zone(pool, harvest, zone, request->mover != 0, nr);
    if (harvest->nr_frames > nr) {
        last = &harvest->words[harvest->nr_words - 1];
        rest = *last;
        last->mask = lowest(rest.mask, MPL_POPCOUNT64(rest.mask) - (harvest->nr_frames - nr));
        rest.mask -= last->mask;
        harvest->nr_frames = nr;
        if (held->mask == 0)
            *held = rest;
        else
            mpl_percpu_give_back(pool, &rest, 1, true);
    }
    return harvest->nr_words != before;
}

/* Of the node that is asked for first, as each alone would be. */
static void reap_all(struct memplug *pool, struct mpl_slot *slot, struct harvest *harvest,
                     const struct memplug_alloc *request, unsigned nr)
{
    enum mpl_held_kind kind = mpl_kind_of(request);
    struct mpl_held *held = &slot->held[kind];
    const struct mpl_queue *queue = &slot->queue[kind];

    while (harvest->nr_frames < nr) {
        bool is_empty = held->mask == 0 && queue->next == queue->end;

        if (!is_empty || nr - harvest->nr_frames <= MPL_NR_WAITING)
            mpl_percpu_have_word(pool, slot, request);
        if (mpl_held_fits(pool, held, request))
            reap(harvest, held, nr - harvest->nr_frames);
        else if (reap_zones(pool, harvest, held, request, nr))
            continue;
        else if (held->mask != 0 && !request->this_node) /* it is the best there is */
            reap(harvest, held, nr - harvest->nr_frames);
        else
            return;
    }
}

/* The numbers of its frames, which come behind nr_before others of the request, and their struct
 * pages. Returns how many. */
static inline unsigned write_word(struct memplug *pool, const struct mpl_held *word,
                                  const struct memplug_alloc *request, const uint64_t *cookies,
                                  uint64_t nr_before, memplug_pfn_t *pfns)
{
    uint32_t state = MPL_PAGE_USED + (request->pinned ? MPL_PAGE_PIN : 0);
    unsigned nr = 0;

    if (request->pinned && request->mover != 0)
        mpl_frames_mark(mpl_block_at(pool, word->block));
    for (uint64_t left = word->mask; left != 0; left &= left - 1, nr++) {
        pfns[nr] = mpl_pfn(word->first + MPL_CTZ64(left));
        if (request->mover != 0)
            mpl_page_write(mpl_page_at(pool, pfns[nr]), state, 1, request->mover, 0,
                           cookies != NULL ? cookies[nr] : request->cookie + nr_before + nr);
    }
    return nr;
}

/* The frames of a word become the caller's by one step, behind all of their pages. */
static void hand_out(const struct mpl_held *word, bool describe)
{
    struct mpl_bits *bits = word->bits;
    uint64_t mask = word->mask, described = __atomic_load_n(&bits->described, __ATOMIC_RELAXED);
    uint64_t wrong = (describe ? ~described : described) & mask;

    if (MPL_UNLIKELY(wrong != 0)) /* as their last owners left it */
        __atomic_fetch_xor(&bits->described, wrong, __ATOMIC_ACQ_REL);
    MPL_ASSERT((__atomic_load_n(&bits->head, __ATOMIC_RELAXED) &
                __atomic_load_n(&bits->free, __ATOMIC_RELAXED) & mask) == mask);
    if (mask == WORD_FULL)
        store(&bits->free, 0);
    else
        clear_bits(&bits->free, mask);
}

unsigned mpl_bulk_alloc(struct memplug *pool, struct mpl_slot *own,
                        const struct memplug_alloc *request, const uint64_t *cookies,
                        memplug_pfn_t *pfns, unsigned nr)
{
    struct mpl_slot *slot = mpl_slot_enter(pool, own);
    struct harvest harvest;
    unsigned nr_done = 0;

    harvest.nr_words = harvest.nr_frames = 0;
    reap_all(pool, slot, &harvest, request, nr);
    for (unsigned i = 0; i < harvest.nr_words; i++)
        nr_done += write_word(pool, &harvest.words[i], request,
                              cookies != NULL ? cookies + nr_done : NULL, nr_done,
                              pfns + nr_done);
    for (unsigned i = 0; i < harvest.nr_words; i++)
        hand_out(&harvest.words[i], request->mover != 0);
    mpl_slot_leave(slot, own);
    return nr_done;
}

/* --- free ------------------------------------------------------------------------------------- */

#define NR_AHEAD 8u

/* A free of several frames. */
struct batch {
    struct memplug *pool;
    struct mpl_slot *slot;
    const memplug_pfn_t *pfns;
    int *errors;
    unsigned nr, nr_freed, nr_runs, nr_words;
    uint64_t contested; /* a bit for each of pfns */
    struct mpl_held words[MPL_BULK_PAGES]; /* at first of each run; then those that were freed */
    uint8_t at[MPL_BULK_PAGES + 1];        /* where each run begins */
};

/* Where the word of a frame is, which is on its way from here on; null: its frames are to be looked
 * at one by one. */
static inline void locate(const struct memplug *pool, memplug_pfn_t pfn, struct mpl_held *held)
{
    uint64_t index;
    const struct mpl_block *block = find_block(pool, pfn, &index);

    held->bits = NULL;
    if (MPL_UNLIKELY(block == NULL || mpl_isolated(pool, block, index) || mpl_is_marked(block)))
        return;
    held->block = (uint32_t)mpl_block_of_pfn(&pool->geometry, pfn);
    held->word = (uint32_t)(index / MPL_WORD_PAGES);
    held->first = pfn.nr - index % MPL_WORD_PAGES;
    held->bits = mpl_bits_at(block, held->word);
    MPL_PREFETCH(&held->bits->free);
    MPL_PREFETCH(&held->bits->described);
}

static inline void find_runs(struct batch *batch)
{
    const memplug_pfn_t *pfns = batch->pfns;
    unsigned end = 0;

    for (batch->nr_runs = 0; end < batch->nr; batch->nr_runs++) {
        struct mpl_held *held = &batch->words[batch->nr_runs];
        uint64_t first = pfns[end].nr, mask = 0;

        batch->at[batch->nr_runs] = (uint8_t)end;
        locate(batch->pool, pfns[end], held);
        do
            mask |= bit_of(pfns[end++].nr);
        while (end < batch->nr && (pfns[end].nr ^ first) < MPL_WORD_PAGES &&
               (mask & bit_of(pfns[end].nr)) == 0);
        held->mask = mask;
    }
    batch->at[batch->nr_runs] = (uint8_t)end;
}

/* Those that are single pages in use for sure: see mpl_is_single_in(); a word's last frame has its
 * neighbour in the next word, and a block's last one has none. */
static inline uint64_t singles_in(const struct memplug *pool, const struct mpl_block *block,
                                  const struct mpl_held *held)
{
    const struct mpl_bits *bits = held->bits;
    uint64_t free = load(&bits->free), head = load(&bits->head), begins = (free | head) >> 1;
    uint64_t mask = held->mask;

    if (mask >> (MPL_WORD_PAGES - 1) != 0 &&
        (held->word + 1 == pool->layout.nr_words ||
         ((load(&bits[1].free) | load(&bits[1].head)) & 1) != 0))
        begins |= (uint64_t)1 << (MPL_WORD_PAGES - 1);
    if (MPL_UNLIKELY((uint64_t)held->word * MPL_WORD_PAGES < block->nr_memmap_pages))
        mask &= ~mask_of(held->word, 0, block->nr_memmap_pages);
    mask &= head & ~free & begins;
    return MPL_LIKELY(__atomic_load_n(&block->poisoned, __ATOMIC_ACQUIRE) == NULL) ? mask : 0;
}

static void answer(struct batch *batch, unsigned at, int error)
{
    batch->nr_freed += error == 0;
    if (batch->errors != NULL)
        batch->errors[at] = error;
}

/* Not all of a run is plain. took: what the caller has of the plain ones, but for a look at their
 * pages if the mark is new. The word becomes what he really has. */
static void sort_out(struct batch *batch, unsigned run, uint64_t plain, struct mpl_held *took)
{
    struct memplug *pool = batch->pool;
    uint64_t mask = took->mask;
    bool marked = mask != 0 && mpl_is_marked(mpl_block_at(pool, took->block));

    if (marked)
        took->mask = 0;
    for (unsigned i = batch->at[run]; i < batch->at[run + 1]; i++) {
        memplug_pfn_t pfn = batch->pfns[i];
        int error = 0;

        if ((mask & bit_of(pfn.nr)) != 0)
            error = marked ? mpl_held_look(pool, took, pfn) : 0;
        else if ((plain & bit_of(pfn.nr)) != 0) /* somebody else was faster */
            error = -MPL_EINVAL;
        else
            error = mpl_percpu_free_frame(pool, batch->slot, pfn, false);
        if (error == MPL_IN_OTHER_HANDS)
            batch->contested |= bit_of(i);
        else
            answer(batch, i, error);
    }
}

/* Its frames become the caller's by one step, or as many of them as may. */
static inline uint64_t free_run(struct batch *batch, unsigned run, struct mpl_held *took)
{
    uint64_t mask = took->mask, plain = 0, mine = 0;
    struct mpl_block *block = NULL;

    if (MPL_LIKELY(took->bits != NULL)) {
        block = &batch->pool->blocks[took->block];
        plain = singles_in(batch->pool, block, took);
    }
    /* Before the mark is looked at again: see mpl_frame_is_used(). */
    if (MPL_LIKELY(plain != 0))
        mine = plain & ~__atomic_fetch_or(&took->bits->free, plain, __ATOMIC_SEQ_CST);
    if (MPL_LIKELY(mine == mask && !mpl_is_marked(block))) {
        batch->nr_freed += (unsigned)(batch->at[run + 1] - batch->at[run]);
        return mine;
    }
    took->mask = mine;
    sort_out(batch, run, plain, took);
    return took->mask;
}

static inline void free_runs(struct batch *batch)
{
    unsigned nr_words = 0;

    for (unsigned run = 0; run < batch->nr_runs; run++) {
        uint64_t mine = free_run(batch, run, &batch->words[run]);

        if (MPL_UNLIKELY(run != nr_words)) {
            batch->words[nr_words] = batch->words[run];
            batch->words[nr_words].mask = mine;
        }
        nr_words += mine != 0;
    }
    batch->nr_words = nr_words;
}

/* What giving back a word changes besides its bits. */
static inline void fetch_counters(const struct memplug *pool, const struct mpl_held *held)
{
    const struct mpl_block *block = &pool->blocks[held->block];
    uint64_t pageblock = pageblock_of(pool, (uint64_t)held->word * MPL_WORD_PAGES);

    MPL_PREFETCH(&held->bits->free);
    MPL_PREFETCH(&block->nr_free);
    MPL_PREFETCH(counter_at(pool, block, pageblock));
    MPL_PREFETCH(words_at(block, pool->layout.summary) + held->word / 64);
}

/* Words of a zone, whose lock is held. Returns how many those were. */
static inline unsigned put_words(struct memplug *pool, struct mpl_zone *zone,
                                 struct mpl_held *words, unsigned nr)
{
    for (unsigned i = 0; i < NR_AHEAD && i < nr; i++)
        fetch_counters(pool, &words[i]);
    for (unsigned i = 0; i < nr; i++) {
        struct mpl_block *block = &pool->blocks[words[i].block];

        if (MPL_UNLIKELY(!mpl_frames_in_zone(block, zone)))
            return i;
        if (i + NR_AHEAD < nr)
            fetch_counters(pool, &words[i + NR_AHEAD]);
        if (MPL_LIKELY(count_plainly(pool, zone, block, words[i].word, nr_of(words[i].mask))))
            unhold_bits(&words[i]);
        else
            mpl_frames_unhold(pool, block, &words[i]);
    }
    return nr;
}

/* Few words are kept for those that follow; many go back at once. */
static void give_back(struct batch *batch)
{
    struct memplug *pool = batch->pool;
    struct mpl_held *words = batch->words;

    if (batch->nr_words <= MPL_NR_WAITING) {
        for (unsigned i = 0; i < batch->nr_words; i++)
            mpl_percpu_keep_freed(pool, batch->slot, &words[i]);
        return;
    }
    for (unsigned i = 0; i < batch->nr_words;) {
        struct mpl_zone *zone = mpl_zone_of(pool, mpl_block_at(pool, words[i].block));

        mpl_spin_lock(pool, &zone->lock);
        i += put_words(pool, zone, words + i, batch->nr_words - i);
        mpl_spin_unlock(&zone->lock);
    }
}

unsigned mpl_bulk_free(struct memplug *pool, struct mpl_slot *own, const memplug_pfn_t *pfns,
                       unsigned nr, int *errors)
{
    struct batch batch;

    batch.pool = pool;
    batch.pfns = pfns;
    batch.errors = errors;
    batch.nr = nr;
    batch.nr_freed = batch.nr_words = 0;
    batch.contested = 0;
    if (errors != NULL)
        MPL_FILL(errors, 0, nr * sizeof(*errors));
    batch.slot = mpl_slot_enter(pool, own);
    find_runs(&batch);
    free_runs(&batch);
    give_back(&batch);
    mpl_slot_leave(batch.slot, own);
    for (uint64_t left = batch.contested; left != 0; left &= left - 1) {
        unsigned i = MPL_CTZ64(left);

        answer(&batch, i, mpl_percpu_free_contested(pool, own, pfns[i]));
    }
    return batch.nr_freed;
}
