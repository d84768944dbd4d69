/* SPDX-License-Identifier: MIT */
/*
 * The doors: check everything that can be checked, take the control lock, make one call. What is
 * allocated and freed has its doors in alloc.c, what looks on in view/.
 */
#include "door.h"
#include "state/early.h"
#include "steps.h"

/* --- add and remove --------------------------------------------------------------------------- */

static int check_absent(struct mpl_op *op, uint64_t first, uint64_t nr_blocks)
{
    for (uint64_t id = first; id < first + nr_blocks; id++)
        if (mpl_block_state(mpl_block_at(op->pool, id)) != MEMPLUG_BLOCK_ABSENT) {
            op->reason->block = (int64_t)id;
            return mpl_fail(op, -MPL_EEXIST, "the range overlaps one that is there",
                            "use other addresses, or remove that range");
        }
    return 0;
}

/* What the hint becomes: BLOCK if the policy and the predicates let it, else HOST; then the reason
 * says why. */
static int resolve_hint(struct mpl_op *op, struct memplug_add *add, uint64_t alignment)
{
    enum memplug_memmap_on_memory policy = mpl_policy_read(op->pool).memmap_on_memory;
    struct memplug_reason why_not;
    int error;

    if (policy == MEMPLUG_MEMMAP_ON_MEMORY_FORCE)
        add->pad_memmap = true;
    if (policy == MEMPLUG_MEMMAP_ON_MEMORY_NO)
        error = mpl_fail(op, -MPL_EINVAL, "by policy memmaps are the host's memory",
                         "set memmap_on_memory, or demand another placement");
    else
        error = mpl_memmap_hint_supported(op, add->pad_memmap, alignment);
    add->memmap = error == 0 ? MEMPLUG_MEMMAP_BLOCK : MEMPLUG_MEMMAP_HOST;
    if (error == 0)
        return 0;
    why_not = *op->reason;
    error = mpl_memmap_supported(op, 1, MEMPLUG_MEMMAP_HOST, false, alignment);
    if (error == 0) {
        *op->reason = why_not;
        op->reason->error = 0;
    }
    return error;
}

/* Resolve the placement of the memmap, and at which parts of the window it can be mapped. */
static int choose_memmap(struct mpl_op *op, struct memplug_add *add, uint64_t *alignment)
{
    const struct memplug_host *host = op->pool->host;
    uint64_t nr_blocks = add->size_bytes >> op->pool->geometry.block_shift;
    uint64_t unit_blocks = add->memmap == MEMPLUG_MEMMAP_RANGE ? nr_blocks : 1;
    int error;

    *alignment = host->ops->alignment(host->context, add->backing);
    if (!mpl_is_multiple(add->offset_bytes, *alignment)) {
        op->reason->unit_bytes = *alignment;
        return mpl_fail(op, -MPL_EINVAL,
                        "the offset in the backing is not one at which it can be mapped", NULL);
    }
    if (add->memmap == MEMPLUG_MEMMAP_AUTO)
        error = resolve_hint(op, add, *alignment);
    else
        error = mpl_memmap_supported(op, unit_blocks, add->memmap, add->pad_memmap, *alignment);
    if (add->memmap == MEMPLUG_MEMMAP_HOST)
        *alignment = mpl_page_bytes(&op->pool->geometry);
    if (error == 0)
        mpl_reason_reset(op->reason);
    return error;
}

/* A range's memmap begins anywhere in the window: what is mapped there must be whole parts. */
static int choose_address(struct mpl_op *op, struct memplug_add *add, uint64_t alignment)
{
    const struct memplug_geometry *geometry = &op->pool->geometry;
    uint64_t nr_blocks = add->size_bytes >> geometry->block_shift;
    bool own = add->memmap != MEMPLUG_MEMMAP_HOST;
    uint64_t first;

    if (add->address == MEMPLUG_ANY_ADDRESS) {
        first = mpl_range_find(op->pool, nr_blocks, alignment, own);
        op->reason->size_bytes = first == 0 ? add->size_bytes : 0;
        if (first == 0)
            return mpl_fail(op, -MPL_E2BIG, "the window has no free addresses of this size",
                            "remove a range, or open the host with a larger window");
        add->address = first << geometry->block_shift;
        return 0;
    }
    first = mpl_pfn_of_address(geometry, add->address).nr;
    if (mpl_is_multiple(mpl_memmap_bytes(geometry, first), alignment))
        return own ? mpl_memmap_check_window(op, add->address >> geometry->block_shift, nr_blocks)
                   : 0;
    op->reason->address = add->address;
    op->reason->unit_bytes = alignment;
    return mpl_fail(op, -MPL_EINVAL, "the memmap would not begin at a part that can be mapped",
                    "choose an address that is a multiple of more blocks");
}

/* A block of a group is on the group's node. */
static int choose_node(struct mpl_op *op, struct memplug_add *add)
{
    const struct mpl_group *group = mpl_group_at(op->pool, add->group);

    if (add->group == 0)
        return 0;
    if (group == NULL)
        return mpl_fail(op, -MPL_EINVAL, "there is no such memory group", "register it first");
    if (add->node != MEMPLUG_ANY_NODE && add->node != group->node) {
        op->reason->node = add->node;
        return mpl_fail(op, -MPL_EINVAL, "the memory group is on another node",
                        "name no node: the group's is taken");
    }
    add->node = group->node;
    return 0;
}

/* Each block alone, as Linux does: what fails stays offline, and the add is done all the same. The
 * first that failed is in the reason. */
static void online_added(struct mpl_op *op, uint64_t first, uint64_t nr_blocks)
{
    static const enum memplug_online_type types[] = {
        [MEMPLUG_AUTO_ONLINE] = MEMPLUG_ONLINE_DEFAULT,
        [MEMPLUG_AUTO_KERNEL] = MEMPLUG_ONLINE_KERNEL,
        [MEMPLUG_AUTO_MOVABLE] = MEMPLUG_ONLINE_MOVABLE,
    };
    enum memplug_auto_online policy = mpl_policy_read(op->pool).auto_online;
    struct memplug_reason refused;

    if (policy == MEMPLUG_AUTO_OFFLINE)
        return;
    mpl_reason_reset(&refused);
    op->type = types[policy];
    for (uint64_t id = first; id < first + nr_blocks; id++) {
        mpl_reason_reset(op->reason);
        op->first = id;
        if (mpl_online(op, id, 1, NULL) == 0 || refused.why != NULL)
            continue;
        refused = *op->reason;
        refused.block = (int64_t)id;
    }
    *op->reason = refused;
    op->reason->error = 0;
}

/* Where the memmap lies, and the range. A hint falls back where neighbours share the window. */
static int choose_place(struct mpl_op *op, struct memplug_add *add)
{
    bool is_hint = add->memmap == MEMPLUG_MEMMAP_AUTO;
    uint64_t alignment;
    int error = choose_memmap(op, add, &alignment);

    if (error == 0)
        error = choose_address(op, add, alignment);
    if (error == 0 || !is_hint || add->memmap != MEMPLUG_MEMMAP_BLOCK)
        return error;
    mpl_reason_reset(op->reason);
    add->memmap = MEMPLUG_MEMMAP_HOST;
    error = choose_memmap(op, add, &alignment);
    return error != 0 ? error : choose_address(op, add, alignment);
}

static int add_locked(struct mpl_op *op, struct memplug_add *add)
{
    unsigned block_shift = op->pool->geometry.block_shift;
    int error = choose_node(op, add);

    if (error == 0 && add->address != MEMPLUG_ANY_ADDRESS)
        error = check_absent(op, add->address >> block_shift, add->size_bytes >> block_shift);
    if (error == 0)
        error = choose_place(op, add);
    if (error != 0)
        return error;
    op->add = add;
    error = mpl_add(op);
    if (error == 0)
        online_added(op, add->address >> block_shift, add->size_bytes >> block_shift);
    return error;
}

int memplug_add(struct memplug *pool, struct memplug_add *request,
                const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct memplug_add add = *request;
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "add", limit, reason);
    error = mpl_range_check(&door.op, add.address, add.size_bytes);
    if (error == 0 && add.group == 0 && !mpl_node_valid(pool, add.node)) {
        door.op.reason->node = add.node;
        error = mpl_fail(&door.op, -MPL_EINVAL, "there is no such node", NULL);
    }
    if (error == 0 && (unsigned)add.memmap > MEMPLUG_MEMMAP_HOST)
        error = mpl_fail(&door.op, -MPL_EINVAL, "there is no such placement of a memmap", NULL);
    if (error == 0 && add.offset_bytes > UINT64_MAX - add.size_bytes)
        error = mpl_fail(&door.op, -MPL_EINVAL, "the backing's offset is too large", NULL);
    if (error == 0)
        error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    error = add_locked(&door.op, &add);
    add.pad_memmap = request->pad_memmap; /* what AUTO made of it is not the caller's wish */
    if (error == 0)
        *request = add;
    return mpl_door_unlock(&door.op, error);
}

int memplug_memmap_supported(const struct memplug *pool, uint64_t size_bytes,
                             enum memplug_memmap memmap, const void *backing,
                             struct memplug_reason *reason)
{
    const struct memplug_host *host = pool->host;
    uint64_t nr_blocks = size_bytes >> pool->geometry.block_shift;
    uint64_t alignment = host->ops->alignment(host->context, backing);
    struct memplug_add hint = {.memmap = memmap};
    struct mpl_door door;
    int error;

    mpl_door_open(&door, (struct memplug *)pool, "add", NULL, reason);
    error = mpl_range_check(&door.op, MEMPLUG_ANY_ADDRESS, size_bytes);
    if (error == 0 && (unsigned)memmap > MEMPLUG_MEMMAP_HOST)
        error = mpl_fail(&door.op, -MPL_EINVAL, "there is no such placement of a memmap", NULL);
    if (error != 0)
        return error;
    mpl_reason_reset(door.op.reason);
    if (memmap == MEMPLUG_MEMMAP_AUTO)
        return resolve_hint(&door.op, &hint, alignment);
    return mpl_memmap_supported(&door.op, memmap == MEMPLUG_MEMMAP_RANGE ? nr_blocks : 1, memmap,
                                false, alignment);
}

/* --- runs of blocks --------------------------------------------------------------------------- */

/* A bit per block of the pool: see mpl_objects. */
struct set {
    uint64_t nr, only[MPL_MAX_BLOCKS / 64];
};

static void mark(struct set *set, uint64_t id)
{
    set->only[id / 64] |= (uint64_t)1 << (id % 64);
    set->nr++;
}

/* From the first block of runs that are in order to the last. */
static uint64_t hull_of(const struct memplug_blocks *runs, unsigned nr_runs)
{
    return runs[nr_runs - 1].first + runs[nr_runs - 1].nr_blocks - runs[0].first;
}

/* There is such a block; from here on a failure is its. */
static int check_there(struct mpl_op *op, uint64_t id)
{
    op->reason->block = id <= INT64_MAX ? (int64_t)id : -1;
    if (id < op->pool->nr_blocks_max &&
        mpl_block_state(mpl_block_at(op->pool, id)) != MEMPLUG_BLOCK_ABSENT)
        return 0;
    return mpl_fail(op, -MPL_ENODEV, "there is no such block", NULL);
}

static int check_order(struct mpl_op *op, const struct memplug_blocks *runs, unsigned nr_runs)
{
    uint64_t next = 0;

    for (unsigned i = 0; i < nr_runs; i++) {
        if (runs[i].nr_blocks == 0)
            return mpl_fail(op, -MPL_EINVAL, "no block was named", NULL);
        if (runs[i].first < next)
            return mpl_fail(op, -MPL_EINVAL, "the blocks are not in order", NULL);
        next = runs[i].nr_blocks <= UINT64_MAX - runs[i].first
                   ? runs[i].first + runs[i].nr_blocks
                   : UINT64_MAX; /* where there is no block */
    }
    return nr_runs > 0 ? 0 : mpl_fail(op, -MPL_EINVAL, "no block was named", NULL);
}

/* --- remove ----------------------------------------------------------------------------------- */

/* Whole units, all with or all without a memmap of their own. */
static int check_units(struct mpl_op *op, uint64_t first, uint64_t nr_blocks)
{
    struct memplug *pool = op->pool;

    for (uint64_t i = 0; i < nr_blocks; i++) {
        const struct mpl_block *block;

        if (check_there(op, first + i) != 0)
            return -MPL_ENODEV;
        block = mpl_block_at(pool, first + i);
        if ((block->memmap != MEMPLUG_MEMMAP_HOST) !=
            (mpl_block_at(pool, first)->memmap != MEMPLUG_MEMMAP_HOST))
            return mpl_fail(op, -MPL_EINVAL,
                            "the range has blocks with and without a memmap of their own",
                            "remove them as they were added");
        if (block->unit_first < first ||
            block->unit_first + block->unit_nr_blocks > first + nr_blocks)
            return mpl_fail(op, -MPL_EINVAL, "the range was added as one with a larger one",
                            "remove all of it");
    }
    op->reason->block = -1;
    return 0;
}

static int check_offline(struct mpl_op *op, uint64_t first, uint64_t nr_blocks)
{
    for (uint64_t id = first; id < first + nr_blocks; id++)
        if (mpl_block_state(mpl_block_at(op->pool, id)) != MEMPLUG_BLOCK_OFFLINE) {
            const char *obstacle = mpl_early_obstacle(op->pool, mpl_block_at(op->pool, id));

            op->reason->block = (int64_t)id;
            if (obstacle != NULL)
                return mpl_fail(op, -MPL_EBUSY, obstacle, NULL);
            return mpl_fail(op, -MPL_EBUSY, "a block is online", "take it offline first");
        }
    return 0;
}

/* Of these blocks those that are not offline; op->first is the first of all. */
static void mark_online(struct mpl_op *op, const struct memplug_blocks *run, struct set *online)
{
    for (uint64_t id = run->first; id < run->first + run->nr_blocks; id++) {
        if (mpl_block_state(mpl_block_at(op->pool, id)) == MEMPLUG_BLOCK_OFFLINE)
            continue;
        if (online->nr == 0)
            op->first = id;
        mark(online, id);
    }
}

/* May these go: whole units, offline unless they are to become it first? */
static int check_removal(struct mpl_op *op, const struct memplug_blocks *runs, unsigned nr_runs,
                         struct set *online)
{
    int error = check_order(op, runs, nr_runs);

    if (error == 0 && runs[0].first == 0)
        error = mpl_fail(op, -MPL_EINVAL, "block 0 is no range's: address 0 is none", NULL);
    for (unsigned i = 0; i < nr_runs && error == 0; i++)
        error = check_units(op, runs[i].first, runs[i].nr_blocks);
    for (unsigned i = 0; i < nr_runs && error == 0; i++)
        if (online != NULL)
            mark_online(op, &runs[i], online);
        else
            error = check_offline(op, runs[i].first, runs[i].nr_blocks);
    return error;
}

/* What offline has committed cannot be taken back: removal does not fail. */
static int remove_blocks(struct mpl_op *op, const struct memplug_blocks *runs, unsigned nr_runs,
                         bool offline)
{
    struct set online = {.nr = 0};
    int error = mpl_door_lock(op);

    if (error != 0)
        return error;
    error = check_removal(op, runs, nr_runs, offline ? &online : NULL);
    if (error == 0)
        error = mpl_op_check_step(op);
    if (error == 0 && online.nr != 0)
        error = mpl_offline(op, runs[0].first, hull_of(runs, nr_runs), online.only);
    if (error == 0 && !op->drained)
        mpl_percpu_pass(op->pool); /* what went offline unused may have readers still */
    for (unsigned i = 0; i < nr_runs && error == 0; i++)
        mpl_remove(op->pool, runs[i].first, runs[i].nr_blocks);
    return mpl_door_unlock(op, error);
}

static int remove_range(struct memplug *pool, uint64_t address, uint64_t size_bytes, bool offline,
                        const struct memplug_limit *limit, struct memplug_reason *reason)
{
    const struct memplug_blocks run = {
        .first = address >> pool->geometry.block_shift,
        .nr_blocks = size_bytes >> pool->geometry.block_shift,
    };
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, offline ? "offline and remove" : "remove", limit, reason);
    error = mpl_range_check(&door.op, address, size_bytes);
    if (error == 0 && address == MEMPLUG_ANY_ADDRESS)
        error = mpl_fail(&door.op, -MPL_EINVAL, "no address was given", NULL);
    return error != 0 ? error : remove_blocks(&door.op, &run, 1, offline);
}

int memplug_remove(struct memplug *pool, uint64_t address, uint64_t size_bytes,
                   const struct memplug_limit *limit, struct memplug_reason *reason)
{
    return remove_range(pool, address, size_bytes, false, limit, reason);
}

int memplug_offline_and_remove(struct memplug *pool, uint64_t address, uint64_t size_bytes,
                               const struct memplug_limit *limit, struct memplug_reason *reason)
{
    return remove_range(pool, address, size_bytes, true, limit, reason);
}

int memplug_remove_blocks(struct memplug *pool, const struct memplug_blocks *runs,
                          unsigned nr_runs, bool offline, const struct memplug_limit *limit,
                          struct memplug_reason *reason)
{
    struct mpl_door door;

    mpl_door_open(&door, pool, offline ? "offline and remove" : "remove", limit, reason);
    return remove_blocks(&door.op, runs, nr_runs, offline);
}

/* --- online and offline ----------------------------------------------------------------------- */

/* They are all in this state: then they are in the set, and op->first is the first. */
static int enter(struct mpl_op *op, const struct memplug_blocks *runs, unsigned nr_runs,
                 enum memplug_block_state state, struct set *set)
{
    int error = check_order(op, runs, nr_runs);

    for (unsigned i = 0; i < nr_runs && error == 0; i++)
        for (uint64_t n = 0; n < runs[i].nr_blocks; n++) {
            uint64_t id = runs[i].first + n;

            if (check_there(op, id) != 0)
                return -MPL_ENODEV;
            if (mpl_block_state(mpl_block_at(op->pool, id)) != state)
                return mpl_fail(op, -MPL_EINVAL,
                                state == MEMPLUG_BLOCK_ONLINE ? "the block is not online"
                                                              : "the block is not offline", NULL);
            mark(set, id);
        }
    op->reason->block = -1;
    if (error == 0)
        op->first = runs[0].first;
    return error;
}

int memplug_online_blocks(struct memplug *pool, const struct memplug_blocks *runs,
                          unsigned nr_runs, enum memplug_online_type type,
                          const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct set set = {.nr = 0};
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "online", limit, reason);
    if ((unsigned)type > MEMPLUG_ONLINE_MOVABLE)
        return mpl_fail(&door.op, -MPL_EINVAL, "there is no such online type", NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    door.op.type = type;
    error = enter(&door.op, runs, nr_runs, MEMPLUG_BLOCK_OFFLINE, &set);
    if (error == 0)
        error = mpl_online(&door.op, runs[0].first, hull_of(runs, nr_runs), set.only);
    return mpl_door_unlock(&door.op, error);
}

int memplug_offline_blocks(struct memplug *pool, const struct memplug_blocks *runs,
                           unsigned nr_runs, const struct memplug_limit *limit,
                           struct memplug_reason *reason)
{
    struct set set = {.nr = 0};
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "offline", limit, reason);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    error = enter(&door.op, runs, nr_runs, MEMPLUG_BLOCK_ONLINE, &set);
    if (error == 0)
        error = mpl_offline(&door.op, runs[0].first, hull_of(runs, nr_runs), set.only);
    return mpl_door_unlock(&door.op, error);
}

int memplug_online(struct memplug *pool, uint64_t first, uint64_t nr_blocks,
                   enum memplug_online_type type, const struct memplug_limit *limit,
                   struct memplug_reason *reason)
{
    const struct memplug_blocks run = {.first = first, .nr_blocks = nr_blocks};

    return memplug_online_blocks(pool, &run, 1, type, limit, reason);
}

int memplug_offline(struct memplug *pool, uint64_t first, uint64_t nr_blocks,
                    const struct memplug_limit *limit, struct memplug_reason *reason)
{
    const struct memplug_blocks run = {.first = first, .nr_blocks = nr_blocks};

    return memplug_offline_blocks(pool, &run, 1, limit, reason);
}

/* --- subscribe -------------------------------------------------------------------------------- */

int memplug_subscribe(struct memplug *pool, const struct memplug_subscriber *subscriber)
{
    struct mpl_door door;
    unsigned at;
    int error;

    if (subscriber->notify == NULL)
        return -MPL_EINVAL;
    mpl_door_open(&door, pool, "subscribe", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    for (at = 0; at < pool->nr_subscribers; at++)
        if (pool->subscribers[at] == subscriber)
            return mpl_door_unlock(&door.op, -MPL_EEXIST);
    if (pool->nr_subscribers == MPL_MAX_SUBSCRIBERS)
        return mpl_door_unlock(&door.op, -MPL_ENOSPC);
    at = pool->nr_subscribers++;
    for (; at > 0 && pool->subscribers[at - 1]->priority < subscriber->priority; at--)
        pool->subscribers[at] = pool->subscribers[at - 1];
    pool->subscribers[at] = subscriber;
    return mpl_door_unlock(&door.op, 0);
}

int memplug_unsubscribe(struct memplug *pool, const struct memplug_subscriber *subscriber)
{
    struct mpl_door door;
    unsigned at = 0;
    int error;

    mpl_door_open(&door, pool, "unsubscribe", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    while (at < pool->nr_subscribers && pool->subscribers[at] != subscriber)
        at++;
    if (at == pool->nr_subscribers)
        return mpl_door_unlock(&door.op, -MPL_ENOENT);
    for (pool->nr_subscribers--; at < pool->nr_subscribers; at++)
        pool->subscribers[at] = pool->subscribers[at + 1];
    pool->subscribers[pool->nr_subscribers] = NULL;
    return mpl_door_unlock(&door.op, 0);
}

int memplug_set_online_hook(struct memplug *pool, const struct memplug_online_hook *hook)
{
    struct mpl_door door;
    int error;

    mpl_door_open(&door, pool, "hook", NULL, NULL);
    error = mpl_door_lock(&door.op);
    if (error != 0)
        return error;
    pool->hook = hook != NULL ? *hook : (struct memplug_online_hook){0};
    return mpl_door_unlock(&door.op, 0);
}
