/* SPDX-License-Identifier: MIT */
/*
 * Listeners hear what has happened to blocks and nodes, when it cannot fail any more. What their
 * doors are like, and their limits, is as with subscribers.
 */
#include "door.h"
#include "steps.h"

static void tell(const struct memplug *pool, const struct memplug_uevent *event)
{
    for (unsigned i = 0; i < pool->nr_listeners; i++)
        pool->listeners[i]->hear(pool->listeners[i]->context, event);
}

void mpl_watch_block(const struct memplug *pool, enum memplug_action action, uint64_t id, int node)
{
    const struct memplug_uevent event = {.action = action, .block = (int64_t)id, .node = node};

    tell(pool, &event);
}

void mpl_watch_blocks(const struct memplug *pool, enum memplug_action action, uint64_t first,
                      uint64_t nr_blocks)
{
    for (uint64_t id = first; id < first + nr_blocks; id++)
        mpl_watch_block(pool, action, id, mpl_block_at(pool, id)->node);
}

void mpl_watch_nodes(const struct memplug *pool, enum memplug_action action, uint64_t nodes)
{
    for (; nodes != 0; nodes &= nodes - 1) {
        const struct memplug_uevent event = {
            .action = action, .block = -1, .node = (int)MPL_CTZ64(nodes)};

        tell(pool, &event);
    }
}

static unsigned find(const struct memplug *pool, const struct memplug_listener *listener)
{
    unsigned at = 0;

    while (at < pool->nr_listeners && pool->listeners[at] != listener)
        at++;
    return at;
}

int memplug_listen(struct memplug *pool, const struct memplug_listener *listener)
{
    struct mpl_door door;
    int error;

    if (listener->hear == NULL)
        return -MPL_EINVAL;
    mpl_door_open(&door, pool, "listen", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    if (find(pool, listener) != pool->nr_listeners)
        error = -MPL_EEXIST;
    else if (pool->nr_listeners == MPL_MAX_LISTENERS)
        error = -MPL_ENOSPC;
    else
        pool->listeners[pool->nr_listeners++] = listener;
    return mpl_door_unlock(&door.op, error);
}

int memplug_unlisten(struct memplug *pool, const struct memplug_listener *listener)
{
    struct mpl_door door;
    unsigned at;
    int error;

    mpl_door_open(&door, pool, "unlisten", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    at = find(pool, listener);
    if (at == pool->nr_listeners)
        return mpl_door_unlock(&door.op, -MPL_ENOENT);
    for (pool->nr_listeners--; at < pool->nr_listeners; at++)
        pool->listeners[at] = pool->listeners[at + 1];
    pool->listeners[pool->nr_listeners] = NULL;
    return mpl_door_unlock(&door.op, 0);
}
