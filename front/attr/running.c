/* SPDX-License-Identifier: MIT */
/*
 * What is going on: the writes that are running, and the last uevents. Both under the tree's lock,
 * which is held for moments and over no call, so that a listener and a progress may take it.
 */
#include "tree.h"

#include <errno.h>

/* A stop flag's values: 1 is the caller's, for good; this one ends with the write that it ended. */
#define STOPPED_BY_FILE 2u

static void lock(struct memplug_attr *attr)
{
    for (unsigned i = 0; __atomic_test_and_set(&attr->lock, __ATOMIC_ACQUIRE); i++)
        attr->host.ops->relax(attr->host.context, i);
}

static void unlock(struct memplug_attr *attr)
{
    __atomic_clear(&attr->lock, __ATOMIC_RELEASE);
}

/* --- writes ----------------------------------------------------------------------------------- */

static void note_progress(void *context, const struct memplug_progress *progress)
{
    struct memplug_attr_run *run = context;

    lock(run->attr);
    run->operation = progress->operation;
    run->step = progress->step;
    run->nr_done = progress->nr_done;
    run->nr_total = progress->nr_total;
    unlock(run->attr);
    if (run->outer != NULL && run->outer->progress != NULL)
        run->outer->progress(run->outer->context, progress);
}

void mpl_attr_run_begin(struct memplug_attr_run *run, struct memplug_attr_handle *handle,
                        const struct memplug_limit *limit)
{
    struct memplug_attr *attr = handle->attr;

    run->attr = attr;
    run->place = &handle->place;
    run->outer = limit;
    if (limit != NULL)
        run->limit = *limit;
    run->limit.progress = note_progress;
    run->limit.context = run;
    if (run->limit.stop == NULL)
        run->limit.stop = run->stop = &handle->stop;
    lock(attr);
    run->next = attr->runs;
    run->link = &attr->runs;
    if (run->next != NULL)
        run->next->link = &run->next;
    attr->runs = run;
    unlock(attr);
}

void mpl_attr_run_end(struct memplug_attr_run *run)
{
    uint32_t stopped = STOPPED_BY_FILE;

    lock(run->attr);
    *run->link = run->next;
    if (run->next != NULL)
        run->next->link = run->link;
    unlock(run->attr);
    if (run->stop != NULL)
        __atomic_compare_exchange_n(run->stop, &stopped, 0, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE);
}

unsigned mpl_attr_cancel_runs(struct memplug_attr *attr, const uint32_t *but)
{
    unsigned nr = 0;

    lock(attr);
    for (struct memplug_attr_run *run = attr->runs; run != NULL; run = run->next) {
        uint32_t running = 0;

        if (run->stop == NULL || run->stop == but)
            continue;
        __atomic_compare_exchange_n(run->stop, &running, STOPPED_BY_FILE, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE);
        nr++;
    }
    unlock(attr);
    return nr;
}

static void put_run(const struct memplug_attr_run *run, struct mpl_attr_text *text)
{
    if (run->place->block != MPL_ATTR_NONE) {
        mpl_attr_put(text, "memory");
        mpl_attr_put_number(text, run->place->block, 10, 0, ' ');
        mpl_attr_put(text, "/");
    } else if (run->place->node != MEMPLUG_ANY_NODE) {
        mpl_attr_put(text, "node");
        mpl_attr_put_number(text, (uint64_t)run->place->node, 10, 0, ' ');
        mpl_attr_put(text, "/");
    }
    mpl_attr_put(text, run->name);
    mpl_attr_put(text, " ");
    mpl_attr_put(text, run->operation != NULL ? run->operation : "-");
    mpl_attr_put(text, " ");
    mpl_attr_put(text, run->step != NULL ? run->step : "-");
    mpl_attr_put(text, " ");
    mpl_attr_put_number(text, run->nr_done, 10, 0, ' ');
    mpl_attr_put(text, " ");
    mpl_attr_put_number(text, run->nr_total, 10, 0, ' ');
    mpl_attr_put(text, "\n");
}

void mpl_attr_put_runs(struct memplug_attr *attr, struct mpl_attr_text *text)
{
    lock(attr);
    for (const struct memplug_attr_run *run = attr->runs; run != NULL; run = run->next)
        put_run(run, text);
    unlock(attr);
}

/* --- what stood in the way -------------------------------------------------------------------- */

/* Not seen for so long, it was away in between. */
#define SEEN_GAP_NS 60000000000u

static struct memplug_attr_seen key_of(const struct memplug_attr *attr,
                                       const struct memplug_reason *reason)
{
    struct memplug_block_info info = {.serial = 0};

    if (reason->block < 0 || reason->pfn.nr == UINT64_MAX ||
        memplug_block_info(attr->pool, (uint64_t)reason->block, &info) != 0)
        info.serial = 0;
    return (struct memplug_attr_seen){
        .serial = info.serial,
        .pfn = reason->pfn.nr,
        .cookie = reason->owner != NULL ? reason->owner_cookie : 0,
        .why = reason->why,
    };
}

static bool is_seen(const struct memplug_attr_seen *seen, const struct memplug_attr_seen *key,
                    uint64_t now_ns)
{
    return seen->serial == key->serial && seen->pfn == key->pfn && seen->cookie == key->cookie &&
           seen->why == key->why && now_ns - seen->last_ns < SEEN_GAP_NS;
}

/* Remembers it; a new one takes the place of what was not seen for longest. Since when. */
uint64_t mpl_attr_seen(struct memplug_attr *attr, const struct memplug_reason *reason)
{
    uint64_t now_ns = attr->host.ops->now_ns(attr->host.context);
    struct memplug_attr_seen key = key_of(attr, reason), *place = &attr->seen[0];

    if (key.serial == 0)
        return 0;
    lock(attr);
    for (unsigned i = 0; i < MEMPLUG_ATTR_NR_SEEN; i++) {
        struct memplug_attr_seen *seen = &attr->seen[i];

        if (is_seen(seen, &key, now_ns)) {
            place = seen;
            break;
        }
        if (seen->last_ns < place->last_ns)
            place = seen;
    }
    key.first_ns = is_seen(place, &key, now_ns) ? place->first_ns : now_ns;
    key.last_ns = now_ns;
    *place = key;
    unlock(attr);
    return key.first_ns;
}

/* --- uevents ---------------------------------------------------------------------------------- */

void mpl_attr_event(struct memplug_attr *attr, const char *action, int64_t block, int node)
{
    lock(attr);
    attr->events[attr->nr_events++ % MEMPLUG_ATTR_NR_EVENTS] = (struct memplug_attr_event){
        .action = action,
        .block = block,
        .node = node,
        .at_ns = attr->host.ops->now_ns(attr->host.context),
    };
    unlock(attr);
}

void mpl_attr_hear(void *context, const struct memplug_uevent *event)
{
    static const char *const actions[] = {
        [MEMPLUG_ACTION_ADD] = "add",
        [MEMPLUG_ACTION_ONLINE] = "online",
        [MEMPLUG_ACTION_OFFLINE] = "offline",
        [MEMPLUG_ACTION_REMOVE] = "remove",
    };

    mpl_attr_event(context, actions[event->action], event->block, event->node);
}

static void put_event(const struct memplug_attr_event *event, uint64_t number,
                      struct mpl_attr_text *text)
{
    mpl_attr_put_number(text, number, 10, 0, ' ');
    mpl_attr_put(text, " ");
    mpl_attr_put(text, event->action);
    if (event->block >= 0) {
        mpl_attr_put(text, " memory");
        mpl_attr_put_number(text, (uint64_t)event->block, 10, 0, ' ');
    } else if (event->node >= 0) {
        mpl_attr_put(text, " node");
        mpl_attr_put_number(text, (uint64_t)event->node, 10, 0, ' ');
    } else {
        mpl_attr_put(text, " memory");
    }
    mpl_attr_put(text, " ");
    mpl_attr_put_number(text, event->at_ns, 10, 0, ' ');
    mpl_attr_put(text, "\n");
}

void mpl_attr_put_events(struct memplug_attr *attr, struct mpl_attr_text *text)
{
    uint64_t number;

    lock(attr);
    number = attr->nr_events > MEMPLUG_ATTR_NR_EVENTS ? attr->nr_events - MEMPLUG_ATTR_NR_EVENTS
                                                      : 0;
    for (; number < attr->nr_events; number++)
        put_event(&attr->events[number % MEMPLUG_ATTR_NR_EVENTS], number, text);
    unlock(attr);
}

int mpl_attr_show_nothing(struct mpl_attr_call *call)
{
    (void)call;
    return 0;
}

int mpl_attr_store_uevent(struct mpl_attr_call *call)
{
    static const char *const actions[] = {"add",    "remove",  "change", "move",
                                          "online", "offline", "bind",   "unbind"};
    int action = mpl_attr_choice(call->word, actions, MPL_ATTR_COUNT(actions));

    if (action < 0)
        return mpl_attr_refuse(call, action, "not the name of a uevent",
                               "write add, remove, change, online or offline");
    mpl_attr_event(call->attr, actions[action],
                   call->place->block != MPL_ATTR_NONE ? (int64_t)call->place->block : -1,
                   call->place->node);
    return 0;
}
