/* SPDX-License-Identifier: MIT */
/* memplug/online, offline, remove: many blocks in one write, which is one call of the pool. */
#include "tree.h"

#include <errno.h>

#define NR_RUNS 32u
#define NR_BLOCKS_MAX 4096u

struct order {
    struct memplug_blocks runs[NR_RUNS];
    unsigned nr_runs;
    struct mpl_attr_word rest; /* the word behind them; perhaps none */
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
        struct memplug_blocks *run = &order->runs[order->nr_runs];
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

/* --- online, offline, remove ------------------------------------------------------------------ */

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
    return memplug_online_blocks(call->attr->pool, order.runs, order.nr_runs, types[type],
                                 call->limit, call->reason);
}

int mpl_attr_store_offline(struct mpl_attr_call *call)
{
    struct order order = {.nr_runs = 0};
    int error = read_order(call, &order);

    if (error == 0 && !nothing_behind(&order))
        error = mpl_attr_refuse(call, -EINVAL, "something behind the blocks", NULL);
    if (error != 0)
        return error;
    return memplug_offline_blocks(call->attr->pool, order.runs, order.nr_runs, call->limit,
                                  call->reason);
}

int mpl_attr_store_remove(struct mpl_attr_call *call)
{
    struct order order = {.nr_runs = 0};
    int error = read_order(call, &order);
    bool offline = error == 0 && mpl_attr_is(order.rest, "offline");

    if (error == 0 && !offline && !nothing_behind(&order))
        error = mpl_attr_refuse(call, -EINVAL, "something behind the blocks",
                                "nothing, or offline: take them offline first");
    if (error != 0)
        return error;
    return memplug_remove_blocks(call->attr->pool, order.runs, order.nr_runs, offline, call->limit,
                                 call->reason);
}
