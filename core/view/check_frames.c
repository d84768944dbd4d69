/* SPDX-License-Identifier: MIT */
#include "../state/early.h"
#include "check.h"

#define NR_ROWS(rules) (sizeof(rules) / sizeof((rules)[0]))

static struct mpl_where at_frame(const char *step, const struct memplug *pool,
                                 const struct mpl_block *block, uint64_t index)
{
    return (struct mpl_where){step, (int64_t)mpl_block_id(pool, block), -1,
                              mpl_block_start(pool, block).nr + index};
}

static bool is(const struct mpl_block *block, uint64_t index,
               enum mpl_look what)
{
    return (mpl_look_mask(block, index / 64, what) >> (index % 64) & 1) != 0;
}

/* Does the block before this one end with something used that can go on into this one? */
static bool goes_on(const struct memplug *pool, const struct mpl_block *block)
{
    const struct mpl_block *before = block - 1;

    return mpl_block_id(pool, block) > 0 && mpl_block_state(before) == MEMPLUG_BLOCK_ONLINE &&
           !mpl_is_memmap(pool, before, pool->layout.nr_pages - 1) &&
           is(before, pool->layout.nr_pages - 1, MPL_LOOK_USED);
}

/* Frames that hold the memmap and are no heads, or are heads; and those described. */
struct memmap_count {
    uint64_t nr_free, nr_tails, nr_heads, nr_described;
};

static struct memmap_count count_memmap(const struct memplug *pool, const struct mpl_block *block)
{
    struct memmap_count count = {0};

    for (uint64_t word = 0; word * 64 < block->nr_memmap_pages; word++) {
        uint64_t memmap = mpl_memmap_mask(pool, block, word);
        uint64_t heads = mpl_look_mask(block, word, MPL_LOOK_HEAD);
        uint64_t used = mpl_look_mask(block, word, MPL_LOOK_USED);
        uint64_t described = mpl_look_described(block, word);

        count.nr_free += MPL_POPCOUNT64(memmap & ~used);
        count.nr_tails += MPL_POPCOUNT64(memmap & used & ~heads);
        count.nr_heads += MPL_POPCOUNT64(memmap & heads);
        count.nr_described += MPL_POPCOUNT64(memmap & heads & described);
    }
    return count;
}

/* The head of the block: its part of the memmap, and where the data begin. */
static int check_start(const struct memplug *pool, const struct mpl_block *block,
                       struct memplug_reason *reason)
{
    uint64_t nr_memmap = block->nr_memmap_pages;
    struct mpl_where where = at_frame("frames", pool, block, 0);
    struct mpl_where data = at_frame("frames", pool, block, nr_memmap);
    bool tail = nr_memmap < pool->layout.nr_pages && !is(block, nr_memmap, MPL_LOOK_BEGIN);
    struct memmap_count count = count_memmap(pool, block);
    bool lends = pool->layout.lent != 0;
    const struct mpl_rule memmap[] = {
        {count.nr_free != 0, "a frame of the memmap is free"},
        {nr_memmap > 0 && mpl_is_memmap(pool, block, 0) && !is(block, 0, MPL_LOOK_HEAD),
         "the memmap's frames have no head"},
        {!lends && nr_memmap > 0 && count.nr_heads != 1,
         "there is a head among the memmap's frames"},
        {lends && count.nr_tails != 0, "a frame of a memmap that can be lent is no head"},
        {count.nr_described != 0, "the memmap's frames are described"},
    };
    const struct mpl_rule start[] = {
        {tail && nr_memmap > 0 && mpl_is_memmap(pool, block, nr_memmap - 1),
         "the memmap's frames reach into the data"},
        {!mpl_is_memmap(pool, block, 0) && !is(block, 0, MPL_LOOK_BEGIN) &&
             !goes_on(pool, block),
         "the first frames of the block belong to nothing"},
    };
    int error = mpl_check_rules(reason, &where, memmap, NR_ROWS(memmap));

    return error != 0 ? error : mpl_check_rules(reason, &data, start, NR_ROWS(start));
}

/* --- struct pages ----------------------------------------------------------------------------- */

/* Pages of the allocation at index, over the blocks it reaches into. */
static uint64_t whole_run(const struct memplug *pool, const struct mpl_block *block,
                          uint64_t index)
{
    uint64_t nr_pages = mpl_look_run(pool, block, index);
    uint64_t nr_more = pool->layout.nr_pages;
    bool to_the_end = index + nr_pages == pool->layout.nr_pages;

    for (uint64_t id = mpl_block_id(pool, block) + 1;
         to_the_end && nr_more == pool->layout.nr_pages && id < pool->nr_blocks_max; id++) {
        nr_more = mpl_look_run_on(pool, mpl_block_at(pool, id));
        nr_pages += nr_more;
    }
    return nr_pages;
}

/* Through slots, which do not look at the pages. */
static bool may_be_held(const struct memplug *pool, uint64_t index, uint64_t nr_pages)
{
    uint64_t whole = mpl_pageblock_pages(&pool->geometry);

    return nr_pages == 1 || (nr_pages == whole && mpl_is_multiple(index, whole));
}

static int check_described(const struct memplug *pool, const struct mpl_block *block,
                           uint64_t index, struct memplug_reason *reason)
{
    struct mpl_where where = at_frame("frames", pool, block, index);
    struct mpl_look_page page = mpl_look_page(pool, mpl_pfn(where.pfn));
    bool used = page.state == MPL_PAGE_USED;
    bool kept = page.state == MPL_PAGE_KEPT;
    const struct mpl_rule rules[] = {
        {page.state == MPL_PAGE_NONE, "a described page is in no state"},
        {page.state == MPL_PAGE_MOVING || page.state == MPL_PAGE_TARGET,
         "a page is being moved and nobody moves it"},
        {page.state == MPL_PAGE_DYING, "a page was freed while it moved and is still there"},
        {!used && !kept && page.state != MPL_PAGE_POOLED, "the state of a page cannot be"},
        {page.nr_pages != whole_run(pool, block, index),
         "a struct page has another size than its allocation"},
        {used && !mpl_look_mover(pool, page.mover) && (page.huge == 0 || page.mover != 0),
         "a described page has no mover"},
        {!block->marked && may_be_held(pool, index, page.nr_pages) && (!used || page.pins != 0),
         "a page that a free must look at is in a block that is not marked"},
        {kept && page.mover != 0, "a page kept back by the online hook has a mover"},
        {kept && index % mpl_pageblock_pages(&pool->geometry) + page.nr_pages >
                     mpl_pageblock_pages(&pool->geometry),
         "a page kept back by the online hook is larger than its pageblock"},
    };

    int error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));

    return error != 0 ? error : mpl_check_huge_page(pool, block, index, reason);
}

/* Every head but the memmap's; *nr_kept: pages that were never released. */
static int check_heads(const struct memplug *pool, const struct mpl_block *block,
                       uint64_t *nr_kept, struct memplug_reason *reason)
{
    uint64_t nr_pages = pool->layout.nr_pages;
    uint64_t index = 0;
    int error = 0;

    *nr_kept = 0;
    for (; error == 0; index++) {
        struct mpl_where where;
        struct mpl_rule raw;

        index = mpl_look_for(block, index, nr_pages, MPL_LOOK_HEAD);
        if (index == nr_pages)
            return 0;
        if (mpl_is_memmap(pool, block, index))
            continue;
        where = at_frame("frames", pool, block, index);
        raw = (struct mpl_rule){!mpl_look_is_described(block, index),
                                "pages in a Movable zone are not described"};
        if (!raw.broken) {
            struct mpl_look_page page = mpl_look_page(pool, mpl_pfn(where.pfn));

            *nr_kept += page.state == MPL_PAGE_KEPT ? page.nr_pages : 0;
            error = check_described(pool, block, index, reason);
        } else if (block->zone == MEMPLUG_ZONE_MOVABLE && !mpl_poisoned(block, index)) {
            error = mpl_check_rules(reason, &where, &raw, 1);
        }
    }
    return error;
}

/* --- poison ----------------------------------------------------------------------------------- */

uint64_t mpl_check_nr_poisoned(const struct memplug *pool, const struct mpl_block *block)
{
    uint64_t nr_poisoned = 0;

    for (uint64_t i = mpl_poisoned_next(pool, block, 0); i < pool->layout.nr_pages;
         i = i + 1 < pool->layout.nr_pages ? mpl_poisoned_next(pool, block, i + 1) : i + 1)
        nr_poisoned++;
    return nr_poisoned;
}

static int check_poison(const struct memplug *pool, const struct mpl_block *block,
                        struct memplug_reason *reason)
{
    int error = 0;

    for (uint64_t word = 0; word < pool->layout.nr_words && error == 0; word++) {
        uint64_t bad = mpl_poisoned_mask(block, word);
        uint64_t wrong = bad & (~mpl_look_mask(block, word, MPL_LOOK_HEAD) |
                                mpl_look_described(block, word));
        struct mpl_where where = at_frame("frames", pool, block, word * 64);
        const struct mpl_rule rule = {wrong != 0, "a poisoned frame is free, or somebody's"};

        error = mpl_check_rules(reason, &where, &rule, 1);
    }
    return error;
}

/* --- bitmaps against counters ----------------------------------------------------------------- */

static int check_words(const struct memplug *pool, const struct mpl_block *block,
                       struct memplug_reason *reason)
{
    int error = 0;

    for (uint64_t word = 0; word < pool->layout.nr_words && error == 0; word++) {
        struct mpl_where where = at_frame("frames", pool, block, word * 64);
        uint64_t described = mpl_look_described(block, word);
        uint64_t heads = mpl_look_mask(block, word, MPL_LOOK_HEAD);
        uint64_t held = mpl_look_mask(block, word, MPL_LOOK_HELD);
        uint64_t free = mpl_look_mask(block, word, MPL_LOOK_FREE);
        bool bit = mpl_look_bit(block, pool->layout.summary, word);
        bool any = free != 0 && !mpl_isolated(pool, block, word * 64);
        const struct mpl_rule rules[] = {
            {(described & ~heads & ~held) != 0, "a frame is described that heads nothing"},
            {bit && !any, "a summary bit is set and its word has nothing to allocate"},
            {!bit && any, "a summary bit is missing"},
            {(mpl_early_holes(pool, block, word) & ~held) != 0,
             "a frame that is not there was released"},
        };

        error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
    }
    return error;
}

static uint16_t nr_isolations(const struct memplug *pool, const struct mpl_block *block,
                              uint64_t pageblock)
{
    const char *counters = mpl_bitmaps(block) + pool->layout.nr_isolations;

    return ((const uint16_t *)(const void *)counters)[pageblock];
}

/* What the pageblocks of a block add up to. */
struct pageblocks {
    uint64_t nr_open_free, nr_isolated, nr_whole;
};

static int check_pageblocks(const struct memplug *pool, const struct mpl_block *block,
                            struct pageblocks *sum, struct memplug_reason *reason)
{
    uint64_t nr_pages = mpl_pageblock_pages(&pool->geometry);
    int error = 0;

    *sum = (struct pageblocks){0, 0, 0};
    for (uint64_t i = 0; i < pool->layout.nr_pageblocks && error == 0; i++) {
        struct mpl_where where = at_frame("frames", pool, block, i * nr_pages);
        uint64_t nr_free = mpl_look_count(block, i * nr_pages, (i + 1) * nr_pages, MPL_LOOK_FREE);
        bool isolated = mpl_look_bit(block, pool->layout.isolated, i);
        bool whole = !isolated && nr_free == nr_pages;
        const struct mpl_rule rules[] = {
            {mpl_look_nr_free(pool, block, i) != nr_free,
             "nr_free of a pageblock is not what its frames say"},
            {isolated, "a pageblock is isolated and nobody takes its block offline"},
            {nr_isolations(pool, block, i) != 0, "an isolation is counted and there is none"},
            {mpl_look_bit(block, pool->layout.whole, i) != whole,
             "the bit of wholly free pageblocks is not what the frames say"},
        };

        sum->nr_open_free += isolated ? 0 : nr_free;
        sum->nr_isolated += isolated;
        sum->nr_whole += whole;
        error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
    }
    return error;
}

bool mpl_check_has_free(const struct memplug *pool, const struct mpl_block *block)
{
    for (uint64_t word = 0; word < (pool->layout.nr_words + 63) / 64; word++)
        if (mpl_look_word(block, pool->layout.summary, word) != 0)
            return true;
    return false;
}

/* Bits behind the last one that means something. */
static bool has_stray_bits(const struct mpl_block *block, uint64_t bitmap, uint64_t nr_bits)
{
    return nr_bits % 64 != 0 && mpl_look_word(block, bitmap, nr_bits / 64) >> (nr_bits % 64) != 0;
}

static int check_counters(const struct memplug *pool, const struct mpl_block *block,
                          uint64_t nr_kept, struct memplug_reason *reason)
{
    struct mpl_where where = at_frame("frames", pool, block, 0);
    const struct mpl_layout *layout = &pool->layout;
    struct pageblocks sum;
    int error = check_pageblocks(pool, block, &sum, reason);
    const struct mpl_rule rules[] = {
        {has_stray_bits(block, layout->summary, layout->nr_words) ||
             has_stray_bits(block, layout->isolated, layout->nr_pageblocks) ||
             has_stray_bits(block, layout->whole, layout->nr_pageblocks),
         "there are bits behind the end of the summary or of the isolated pageblocks"},
        {block->nr_isolated != sum.nr_isolated,
         "nr_isolated of the block is not what the bits say"},
        {block->nr_free != sum.nr_open_free,
         "nr_free of the block is not what its pageblocks say"},
        {block->nr_whole != sum.nr_whole, "nr_whole of the block is not what its pageblocks say"},
        {block->nr_managed != mpl_block_data_pages(pool, block) - block->nr_absent - nr_kept +
                                  mpl_lent_count(pool, block),
         "nr_managed of the block is not its data less what the online hook kept"},
    };

    if (error != 0)
        return error;
    where.pfn = MPL_NO_PFN;
    return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
}

/* A block in several zones: nothing of it was ever released. */
static int check_unmanaged(const struct memplug *pool, const struct mpl_block *block,
                           struct memplug_reason *reason)
{
    uint64_t nr_pages = pool->layout.nr_pages;
    struct mpl_where where = at_frame("frames", pool, block, 0);
    const struct mpl_rule rules[] = {
        {mpl_look_count(block, 0, nr_pages, MPL_LOOK_HELD) != nr_pages,
         "a frame of a block in several zones was released"},
        {(block->nr_free | block->nr_managed | block->nr_isolated) != 0,
         "a block in several zones counts frames"},
    };

    return mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
}

int mpl_check_frames(struct memplug *pool, const struct mpl_block *block,
                     struct memplug_reason *reason)
{
    struct mpl_zone *zone;
    uint64_t nr_kept = 0;
    int error;

    if (block->zone == MEMPLUG_NR_ZONES)
        return check_unmanaged(pool, block, reason);
    zone = mpl_zone_of(pool, block);
    mpl_spin_lock(pool, &zone->lock);
    error = check_start(pool, block, reason);
    if (error == 0)
        error = check_words(pool, block, reason);
    if (error == 0)
        error = check_poison(pool, block, reason);
    if (error == 0)
        error = check_heads(pool, block, &nr_kept, reason);
    if (error == 0)
        error = check_counters(pool, block, nr_kept, reason);
    mpl_spin_unlock(&zone->lock);
    return error;
}

/* --- slots ------------------------------------------------------------------------------------ */

static int check_held(const struct memplug *pool, const struct mpl_held *held,
                      struct memplug_reason *reason)
{
    struct mpl_where where = {"slots", held->block, -1, MPL_NO_PFN};
    bool online = held->block < pool->nr_blocks_max &&
                  mpl_block_state(mpl_block_at(pool, held->block)) == MEMPLUG_BLOCK_ONLINE &&
                  mpl_block_at(pool, held->block)->zone != MEMPLUG_NR_ZONES;
    const struct mpl_rule place[] = {
        {!online, "a slot holds frames of a block that is not online"},
        {held->word >= pool->layout.nr_words, "a slot holds frames behind the end of a block"},
    };
    struct mpl_rule rule = {false, "a slot holds a frame that is not held"};
    int error = mpl_check_rules(reason, &where, place, NR_ROWS(place));
    uint64_t missing;

    if (error != 0)
        return error;
    missing = held->mask &
              ~mpl_look_mask(mpl_block_at(pool, held->block), held->word, MPL_LOOK_HELD);
    if (missing == 0)
        return 0;
    where = at_frame("slots", pool, mpl_block_at(pool, held->block),
                     (uint64_t)held->word * 64 + MPL_CTZ64(missing));
    rule.broken = true;
    return mpl_check_rules(reason, &where, &rule, 1);
}

/* What slots hold of a word: of any slot, and of more than one. */
static void held_of_word(const struct memplug *pool, uint64_t block, uint64_t word,
                         uint64_t *once, uint64_t *twice)
{
    struct mpl_slot *slot;

    *once = *twice = 0;
    for (unsigned i = 0; (slot = mpl_slot_at(pool, i)) != NULL; i++) {
        mpl_slot_stop(pool, slot);
        for (unsigned kind = 0; kind < MPL_NR_HELD; kind++) {
            const struct mpl_held *held = &slot->held[kind];

            if (held->mask == 0 || held->block != block || held->word != word)
                continue;
            *twice |= *once & held->mask;
            *once |= held->mask;
        }
        mpl_slot_start(slot);
    }
}

static int check_held_words(const struct memplug *pool, const struct mpl_block *block,
                            struct memplug_reason *reason)
{
    int error = 0;

    for (uint64_t word = 0; word < pool->layout.nr_words && error == 0; word++) {
        uint64_t mask = mpl_look_mask(block, word, MPL_LOOK_HELD) &
                        ~mpl_early_holes(pool, block, word);
        uint64_t once, twice, wrong;

        if (mask == 0)
            continue;
        held_of_word(pool, mpl_block_id(pool, block), word, &once, &twice);
        wrong = twice != 0 ? twice : mask & ~once;
        if (wrong != 0) {
            struct mpl_where where = at_frame("slots", pool, block, word * 64 + MPL_CTZ64(wrong));
            const struct mpl_rule rules[] = {
                {twice != 0, "two slots hold the same frame"},
                {true, "a frame is held and no slot has it"},
            };

            error = mpl_check_rules(reason, &where, rules, NR_ROWS(rules));
        }
    }
    return error;
}

int mpl_check_slots(struct memplug *pool, struct memplug_reason *reason)
{
    struct mpl_slot *slot;
    int error = 0;

    for (unsigned i = 0; (slot = mpl_slot_at(pool, i)) != NULL; i++)
        for (unsigned kind = 0; kind < MPL_NR_HELD && error == 0; kind++) {
            struct mpl_held held;

            mpl_slot_stop(pool, slot);
            held = slot->held[kind];
            mpl_slot_start(slot);
            if (held.mask != 0)
                error = check_held(pool, &held, reason);
        }
    for (uint64_t id = 0; id < pool->nr_blocks_max && error == 0; id++)
        if (mpl_block_state(mpl_block_at(pool, id)) == MEMPLUG_BLOCK_ONLINE &&
            mpl_block_at(pool, id)->zone != MEMPLUG_NR_ZONES)
            error = check_held_words(pool, mpl_block_at(pool, id), reason);
    return error;
}
