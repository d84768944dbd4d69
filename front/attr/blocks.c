/* SPDX-License-Identifier: MIT */
/*
 * memplug/online, offline, remove: many blocks in one write. A run of neighbours is one call of the
 * pool; several runs are made one by what stands here: everything is looked at first, and when one
 * fails, those before it go back to where they were.
 */
#include "tree.h"

#include <errno.h>

#define NR_RUNS 32u
#define NR_BLOCKS_MAX 4096u

struct run {
    uint64_t first, nr_blocks;
};

struct order {
    struct run runs[NR_RUNS];
    unsigned nr_runs;
    struct mpl_attr_word rest;          /* the word behind them; perhaps none */
    uint64_t movable[NR_BLOCKS_MAX / 64]; /* blocks that were in Movable before */
};

/* --- reading ---------------------------------------------------------------------------------- */

static bool take_number(struct mpl_attr_word *word, uint64_t *number)
{
    size_t length = 0;
    struct mpl_attr_word digits;

    while (length < word->length && word->text[length] >= '0' && word->text[length] <= '9')
        length++;
    digits = (struct mpl_attr_word){.text = word->text, .length = length};
    if (length == 0 || mpl_attr_number(digits, 10, NR_BLOCKS_MAX - 1, number) != 0)
        return false;
    word->text += length;
    word->length -= length;
    return true;
}

static bool take_char(struct mpl_attr_word *word, char c)
{
    if (word->length == 0 || word->text[0] != c)
        return false;
    word->text++;
    word->length--;
    return true;
}

/* "8-11,14 movable": in order, and none twice. */
static int read_order(struct mpl_attr_call *call, struct order *order)
{
    struct mpl_attr_word word = call->word;
    uint64_t next = 0;

    do {
        struct run *run = &order->runs[order->nr_runs];
        uint64_t last;

        if (order->nr_runs++ == NR_RUNS)
            return mpl_attr_refuse(call, -E2BIG, "too many runs of blocks", "at most 32");
        if (!take_number(&word, &run->first))
            return mpl_attr_refuse(call, -EINVAL, "not a list of blocks", "write 8-11,14");
        last = run->first;
        if (take_char(&word, '-') && !take_number(&word, &last))
            return mpl_attr_refuse(call, -EINVAL, "not a list of blocks", "write 8-11,14");
        if (last < run->first || (order->nr_runs > 1 && run->first < next))
            return mpl_attr_refuse(call, -EINVAL, "the blocks are not in order", NULL);
        run->nr_blocks = last - run->first + 1;
        next = last + 1;
    } while (take_char(&word, ','));
    if (word.length > 0 && !take_char(&word, ' ') && word.text[0] != '\n')
        return mpl_attr_refuse(call, -EINVAL, "not a list of blocks", "write 8-11,14");
    order->rest = word;
    return 0;
}

static bool nothing_behind(const struct order *order)
{
    return order->rest.length == 0 || mpl_attr_is(order->rest, "");
}

/* All are in this state, or the write is refused before anything is done. */
static int look_at_all(struct mpl_attr_call *call, struct order *order,
                       enum memplug_block_state state, const char *why)
{
    for (unsigned i = 0; i < order->nr_runs; i++)
        for (uint64_t n = 0; n < order->runs[i].nr_blocks; n++) {
            uint64_t block = order->runs[i].first + n;
            struct memplug_block_info info;

            call->reason->block = (int64_t)block;
            if (mpl_attr_block(call->attr, block, &info) != 0)
                return mpl_attr_refuse(call, -ENODEV, "there is no such block", NULL);
            if (info.state != state)
                return mpl_attr_refuse(call, -EINVAL, why, NULL);
            if (info.zone == MEMPLUG_ZONE_MOVABLE)
                order->movable[block / 64] |= (uint64_t)1 << block % 64;
        }
    call->reason->block = -1;
    return 0;
}

/* --- online and offline ----------------------------------------------------------------------- */

static void go_back(struct mpl_attr_call *call, const struct order *order, unsigned nr_runs,
                    bool online)
{
    bool all = true;

    for (unsigned i = nr_runs; i-- > 0;)
        for (uint64_t n = 0; n < order->runs[i].nr_blocks; n++) {
            uint64_t block = order->runs[i].first + n;
            bool movable = order->movable[block / 64] >> block % 64 & 1;

            enum memplug_online_type zone = movable ? MEMPLUG_ONLINE_MOVABLE
                                                    : MEMPLUG_ONLINE_KERNEL;

            all &= (online ? memplug_online(call->attr->pool, block, 1, zone, NULL, NULL)
                           : memplug_offline(call->attr->pool, block, 1, NULL, NULL)) == 0;
        }
    if (!all)
        call->reason->remedy = "not all blocks could be put back: look at their states";
}

int mpl_attr_store_online(struct mpl_attr_call *call)
{
    static const char *const words[] = {"", "kernel", "movable"};
    static const enum memplug_online_type types[] = {MEMPLUG_ONLINE_DEFAULT, MEMPLUG_ONLINE_KERNEL,
                                                     MEMPLUG_ONLINE_MOVABLE};
    struct order order = {.nr_runs = 0};
    int error = read_order(call, &order), type;

    if (error != 0)
        return error;
    type = mpl_attr_choice(order.rest, words, MPL_ATTR_COUNT(words));
    if (type < 0)
        return mpl_attr_refuse(call, type, "no such zone", "kernel, movable, or nothing");
    error = look_at_all(call, &order, MEMPLUG_BLOCK_OFFLINE, "the block is not offline");
    for (unsigned i = 0; i < order.nr_runs && error == 0; i++) {
        error = memplug_online(call->attr->pool, order.runs[i].first, order.runs[i].nr_blocks,
                               types[type], call->limit, call->reason);
        if (error != 0)
            go_back(call, &order, i, false);
    }
    return error;
}

int mpl_attr_store_offline(struct mpl_attr_call *call)
{
    struct order order = {.nr_runs = 0};
    int error = read_order(call, &order);

    if (error == 0 && !nothing_behind(&order))
        error = mpl_attr_refuse(call, -EINVAL, "something behind the blocks", NULL);
    if (error == 0)
        error = look_at_all(call, &order, MEMPLUG_BLOCK_ONLINE, "the block is not online");
    for (unsigned i = 0; i < order.nr_runs && error == 0; i++) {
        error = memplug_offline(call->attr->pool, order.runs[i].first, order.runs[i].nr_blocks,
                                call->limit, call->reason);
        if (error != 0)
            go_back(call, &order, i, true);
    }
    return error;
}

/* --- remove ----------------------------------------------------------------------------------- */

/* One run only: what was given back cannot be had again. */
int mpl_attr_store_remove(struct mpl_attr_call *call)
{
    uint8_t shift = call->attr->host.geometry.block_shift;
    struct order order = {.nr_runs = 0};
    int error = read_order(call, &order);
    bool offline = false;

    if (error == 0)
        offline = mpl_attr_is(order.rest, "offline");
    if (error == 0 && !offline && !nothing_behind(&order))
        error = mpl_attr_refuse(call, -EINVAL, "something behind the blocks",
                                "nothing, or offline: take them offline first");
    if (error == 0 && order.nr_runs > 1)
        error = mpl_attr_refuse(call, -EINVAL, "blocks that are not neighbours",
                                "remove one run of blocks after another");
    if (error != 0)
        return error;
    return (offline ? memplug_offline_and_remove : memplug_remove)(
        call->attr->pool, order.runs[0].first << shift, order.runs[0].nr_blocks << shift,
        call->limit, call->reason);
}
