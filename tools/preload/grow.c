/* SPDX-License-Identifier: MIT */
/*
 * A pool that grows by itself: one memfd as large as the limit, of which a block is plugged in when
 * there are not enough free frames, and unplugged when it is empty and another could be too. The
 * thread that maps or unmaps does this itself.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <time.h>

#define NR_TRIES 8u           /* others take what was plugged in for this one */
#define GIVE_WAY_NS 500000000ull
#define NR_WAITS 480u         /* four minutes */
#define SHRINK_NS 20000000ull
#define RETRY_NS 1000000000ull /* after a block could not be taken out */
#define SAY_NS 10000000000ull /* at most so often */
#define NR_BLOCKS_MAX 4096u

/* Which blocks are of the memfd, by the serial of their add; 0: none. Others that somebody plugs in
 * are for whoever did it to take out. Under the lock "growing". */
static uint64_t serials[NR_BLOCKS_MAX];
static uint64_t end_of_serials;
static uint64_t no_shrink_until_ns;

/* At least a block, and whole ones. */
int mpl_pre_grow_open(uint64_t limit_bytes, struct memplug_reason *reason)
{
    uint64_t block_bytes = mpl_preload.block_bytes;
    struct memplug_backing_spec spec = {.kind = MEMPLUG_BACKING_MEMFD};

    limit_bytes -= limit_bytes % block_bytes;
    mpl_preload.limit_bytes = limit_bytes > 0 ? limit_bytes : block_bytes;
    mpl_preload.grows = true;
    spec.size_bytes = mpl_preload.limit_bytes;
    return memplug_linux_backing_open(mpl_preload.host, &spec, &mpl_preload.backing, reason);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- grow ------------------------------------------------------------------------------------- */

static uint64_t free_bytes(void)
{
    struct memplug_stat stat;

    memplug_stat(mpl_preload.pool, &stat);
    return stat.nr_free_pages * mpl_preload.page_bytes;
}

static void say_gave_way(void)
{
    struct mpl_line line = {.length = 0};

    mpl_line_add(&line, "the program needs more memory: what was changing its memory is ended");
    mpl_say(&line);
}

/* What can be allocated now: not what is isolated because its block is to go. */
static uint64_t usable_bytes(void)
{
    uint64_t nr_pages = 0, nr = memplug_nr_blocks_max(mpl_preload.pool);
    struct memplug_block_info info;

    for (uint64_t block = 0; block < nr; block++)
        if (memplug_block_info(mpl_preload.pool, block, &info) == 0 &&
            info.state == MEMPLUG_BLOCK_ONLINE && info.nr_isolated_pageblocks == 0)
            nr_pages += info.nr_free_pages;
    return nr_pages * mpl_preload.page_bytes;
}

/* The control lock is held for as long as somebody takes blocks offline. That may be long, and the
 * program comes first: what is changed through the tree is ended after a moment, and changed back.
 * What the program itself does is waited for. */
static int add_in_turn(struct memplug_add *block, struct memplug_reason *reason)
{
    const struct memplug_limit moment = {.timeout_ns = GIVE_WAY_NS};
    int result = -ETIMEDOUT;

    for (unsigned i = 0; i < NR_WAITS && result == -ETIMEDOUT; i++) {
        result = memplug_add(mpl_preload.pool, block, &moment, reason);
        if (result == -ETIMEDOUT &&
            memplug_attr_set(&mpl_preload.attr, "memplug/cancel", "1", 1, NULL, NULL) > 0)
            say_gave_way();
    }
    return result;
}

static int add_block(uint64_t offset_bytes, struct memplug_reason *reason)
{
    struct memplug_add block = {
        .address = MEMPLUG_ANY_ADDRESS,
        .size_bytes = mpl_preload.block_bytes,
        .backing = mpl_preload.backing,
        .offset_bytes = offset_bytes,
    };
    struct memplug_block_info info;
    uint64_t number;
    int result;

    result = add_in_turn(&block, reason);
    if (result != 0)
        return result;
    number = memplug_block_of(mpl_preload.pool, block.address);
    if (number >= NR_BLOCKS_MAX || memplug_block_info(mpl_preload.pool, number, &info) != 0)
        return 0;
    serials[number] = info.serial;
    end_of_serials = number >= end_of_serials ? number + 1 : end_of_serials;
    if (info.state != MEMPLUG_BLOCK_OFFLINE)
        return 0; /* a policy has put it online */
    result = memplug_online(mpl_preload.pool, number, 1, MEMPLUG_ONLINE_MOVABLE, NULL, reason);
    if (result != 0)
        memplug_remove(mpl_preload.pool, block.address, block.size_bytes, NULL, NULL);
    return result;
}

/* The first block of the memfd that is not in the pool: -EEXIST says that it is. */
static int grow_once(struct memplug_reason *reason)
{
    int result = -EEXIST;

    for (uint64_t at = 0; at < mpl_preload.limit_bytes && result == -EEXIST;
         at += mpl_preload.block_bytes)
        result = add_block(at, reason);
    if (result != -EEXIST)
        return result;
    *reason = MPL_NO_REASON;
    reason->error = -ENOMEM;
    reason->why = "the pool has grown to its limit";
    reason->remedy = "raise the limit (memplug run --limit), or plug memory in";
    return -ENOMEM;
}

/* Until there are frames for a mapping of this size, should nobody else take them. */
static int grow(uint64_t size_bytes, struct memplug_reason *reason)
{
    int result = 0;

    mpl_pre_enter(&mpl_preload.growing);
    while (result == 0 && usable_bytes() < size_bytes)
        result = grow_once(reason);
    mpl_pre_leave(&mpl_preload.growing);
    return result;
}

/* --- map -------------------------------------------------------------------------------------- */

static void say_refused(uint64_t size_bytes, const struct memplug_reason *reason)
{
    struct mpl_line line = {.length = 0};
    bool say;

    atomic_fetch_add_explicit(&mpl_preload.nr_refused, 1, memory_order_relaxed);
    mpl_pre_enter(&mpl_preload.growing);
    say = mpl_preload.said_ns == 0 || now_ns() - mpl_preload.said_ns > SAY_NS;
    if (say)
        mpl_preload.said_ns = now_ns();
    mpl_pre_leave(&mpl_preload.growing);
    if (!say)
        return;
    mpl_line_add(&line, "the program gets ENOMEM for a mapping of ");
    mpl_line_add_number(&line, size_bytes);
    mpl_line_add(&line, " bytes");
    line.text[line.length] = 0;
    mpl_say_reason(line.text, reason);
}

int mpl_pre_map(struct memplug_space *space, uint64_t size_bytes,
                const struct memplug_mapping *opts, void **address)
{
    struct memplug_reason reason = MPL_NO_REASON;
    struct memplug_space_stat stat;
    uint64_t wanted_bytes;
    int result = -ENOMEM, grown = 0;

    memplug_space_stat(space, &stat);
    if (__builtin_add_overflow(size_bytes, stat.unit_bytes - 1, &wanted_bytes))
        return -ENOMEM;
    wanted_bytes -= wanted_bytes % stat.unit_bytes;
    /* A small mapping may share a unit: that is seen only by trying. */
    if (mpl_preload.grows && size_bytes > stat.unit_bytes && free_bytes() < wanted_bytes)
        grown = grow(wanted_bytes, &reason);
    for (unsigned i = 0; i < NR_TRIES && grown == 0; i++) {
        result = memplug_map(space, size_bytes, opts, address, &reason);
        if (result != -ENOMEM || !mpl_preload.grows)
            break;
        grown = grow(wanted_bytes, &reason); /* nothing, if there are enough by now */
    }
    if (grown != 0)
        result = -ENOMEM;
    if (result != 0)
        say_refused(size_bytes, &reason);
    return result;
}

/* --- shrink ----------------------------------------------------------------------------------- */

static bool is_empty(uint64_t number, struct memplug_block_info *info)
{
    return serials[number] != 0 && memplug_block_info(mpl_preload.pool, number, info) == 0 &&
           info->serial == serials[number] && info->state == MEMPLUG_BLOCK_ONLINE &&
           info->nr_free_pages == info->nr_managed_pages;
}

/* A block that cannot go now, because somebody is at work on others, can go later. */
static void take_out_empty(void)
{
    const struct memplug_limit limit = {.timeout_ns = SHRINK_NS, .tries = 1};
    struct memplug_block_info info;

    for (uint64_t number = end_of_serials;
         number-- > 0 && free_bytes() >= 2 * mpl_preload.block_bytes;) {
        if (!is_empty(number, &info))
            continue;
        if (memplug_offline_and_remove(mpl_preload.pool, info.address, info.size_bytes, &limit,
                                       NULL) != 0) {
            no_shrink_until_ns = now_ns() + RETRY_NS;
            return;
        }
        serials[number] = 0;
    }
}

void mpl_pre_shrink(void)
{
    int saved = errno;

    if (!mpl_preload.grows || free_bytes() < 2 * mpl_preload.block_bytes ||
        !mpl_pre_try(&mpl_preload.growing))
        return;
    if (now_ns() >= no_shrink_until_ns)
        take_out_empty();
    mpl_pre_leave(&mpl_preload.growing);
    errno = saved;
}
