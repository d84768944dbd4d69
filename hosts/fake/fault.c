/* SPDX-License-Identifier: MIT */
#include "fault.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NR_WRAPPED_MAX 32
#define NR_POINTS_MAX 4096

struct wrapped_mover {
    struct fault *fault;
    const struct memplug_mover *inner;
    struct memplug_mover outer;
};

struct wrapped_subscriber {
    struct fault *fault;
    const struct memplug_subscriber *inner;
    struct memplug_subscriber outer;
};

struct point {
    _Atomic(const char *) who; /* of a mover or subscriber */
    _Atomic uint8_t kind;      /* plus one: 0 is not written yet */
};

struct fault {
    struct memplug_host host;
    struct memplug_host_ops ops; /* those that the inner host has */
    bool refuses_rows;
    const struct memplug_host *inner;

    _Atomic uint64_t strike_at; /* 0: never */
    _Atomic bool forever;
    _Atomic int error;
    _Atomic uint32_t selected_next;
    _Atomic uint32_t selected;

    _Atomic uint64_t nr_calls, nr_fired;
    _Atomic uint64_t nr_of_kind[FAULT_NR_KINDS];
    struct point points[NR_POINTS_MAX];
    _Atomic uint64_t clock_skip;

    struct wrapped_mover movers[NR_WRAPPED_MAX];
    struct wrapped_subscriber subscribers[NR_WRAPPED_MAX];
    unsigned nr_movers, nr_subscribers;
};

static const struct {
    const char *name;
    int natural;
} kinds[FAULT_NR_KINDS] = {
    [FAULT_LOCK] = {"lock", -ETIMEDOUT},
    [FAULT_ATTACH] = {"attach", -ENODEV},
    [FAULT_ALIAS] = {"memmap_alias", -ENOMEM},
    [FAULT_PROVIDE] = {"memmap_provide", -ENOMEM},
    [FAULT_MEMORY_GET] = {"memory_get", -ENOMEM},
    [FAULT_RESTORE] = {"memmap_restore", -ENOMEM},
    [FAULT_MOVE] = {"move", -EBUSY},
    [FAULT_GOING] = {"going", -EPERM},
    [FAULT_LOST] = {"lost", -EBUSY},
};

const char *fault_kind_name(enum fault_kind kind)
{
    return (unsigned)kind < FAULT_NR_KINDS ? kinds[kind].name : "?";
}

/* One point was met: 0, or the error that it shall give. */
static int meet(struct fault *fault, enum fault_kind kind, const char *who)
{
    uint64_t strike_at = atomic_load(&fault->strike_at);
    uint64_t number;
    int error;

    if (!(atomic_load(&fault->selected) & 1u << kind))
        return 0;
    number = atomic_fetch_add(&fault->nr_calls, 1) + 1;
    atomic_fetch_add(&fault->nr_of_kind[kind], 1);
    if (number <= NR_POINTS_MAX) {
        atomic_store(&fault->points[number - 1].who, who);
        atomic_store(&fault->points[number - 1].kind, (uint8_t)(kind + 1));
    }
    if (!strike_at || number < strike_at || (number > strike_at && !atomic_load(&fault->forever)))
        return 0;
    atomic_fetch_add(&fault->nr_fired, 1);
    error = atomic_load(&fault->error);
    return error ? error : kinds[kind].natural;
}

/* --- the host --------------------------------------------------------------------------------- */

static int fault_lock(void *host, const struct memplug_limit *limit)
{
    struct fault *fault = host;
    int error = meet(fault, FAULT_LOCK, NULL);

    return error ? error : fault->inner->ops->lock(fault->inner->context, limit);
}

static int fault_attach_row(void *host, const struct memplug_extent *first, uint64_t nr)
{
    struct fault *fault = host;
    int error = fault->refuses_rows ? -EOPNOTSUPP : meet(fault, FAULT_ATTACH, NULL);

    return error ? error : fault->inner->ops->attach_row(fault->inner->context, first, nr);
}

static int fault_attach(void *host, const struct memplug_extent *extent)
{
    struct fault *fault = host;
    int error = meet(fault, FAULT_ATTACH, NULL);

    return error ? error : fault->inner->ops->attach(fault->inner->context, extent);
}

static int fault_alias(void *host, uint64_t offset, uint64_t address, uint64_t size_bytes,
                       uint64_t unit_bytes)
{
    struct fault *fault = host;
    int error = meet(fault, FAULT_ALIAS, NULL);

    if (error)
        return error;
    return fault->inner->ops->memmap_alias(fault->inner->context, offset, address, size_bytes,
                                           unit_bytes);
}

static int fault_provide(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    struct fault *fault = host;
    int error = meet(fault, FAULT_PROVIDE, NULL);

    if (error)
        return error;
    return fault->inner->ops->memmap_provide(fault->inner->context, offset, size_bytes,
                                             unit_bytes);
}

static int fault_memory_get(void *host, uint64_t size_bytes, void **memory)
{
    struct fault *fault = host;
    int error = meet(fault, FAULT_MEMORY_GET, NULL);

    if (error)
        return error;
    return fault->inner->ops->memory_get(fault->inner->context, size_bytes, memory);
}

static int fault_restore(void *host, uint64_t offset, uint64_t size_bytes)
{
    struct fault *fault = host;
    int error = meet(fault, FAULT_RESTORE, NULL);

    if (error)
        return error;
    return fault->inner->ops->memmap_restore(fault->inner->context, offset, size_bytes);
}

static void fault_lend(void *host, uint64_t offset, uint64_t size_bytes)
{
    struct fault *fault = host;

    fault->inner->ops->memmap_lend(fault->inner->context, offset, size_bytes);
}

static void fault_return(void *host, uint64_t offset, uint64_t size_bytes)
{
    struct fault *fault = host;

    fault->inner->ops->memmap_return(fault->inner->context, offset, size_bytes);
}

static void fault_unlock(void *host)
{
    struct fault *fault = host;

    fault->inner->ops->unlock(fault->inner->context);
}

static void fault_detach(void *host, const struct memplug_extent *extent)
{
    struct fault *fault = host;

    fault->inner->ops->detach(fault->inner->context, extent);
}

static void fault_unmap(void *host, uint64_t offset, uint64_t size_bytes, uint64_t unit_bytes)
{
    struct fault *fault = host;

    fault->inner->ops->memmap_unmap(fault->inner->context, offset, size_bytes, unit_bytes);
}

static void fault_memory_put(void *host, void *memory, uint64_t size_bytes)
{
    struct fault *fault = host;

    fault->inner->ops->memory_put(fault->inner->context, memory, size_bytes);
}

static uint64_t fault_alignment(void *host, const void *backing)
{
    struct fault *fault = host;

    return fault->inner->ops->alignment(fault->inner->context, backing);
}

static uint64_t fault_now_ns(void *host)
{
    struct fault *fault = host;

    return fault->inner->ops->now_ns(fault->inner->context) + atomic_load(&fault->clock_skip);
}

static unsigned fault_cpu(void *host)
{
    struct fault *fault = host;

    return fault->inner->ops->cpu(fault->inner->context);
}

static void fault_relax(void *host, unsigned nr_spins)
{
    struct fault *fault = host;

    fault->inner->ops->relax(fault->inner->context, nr_spins);
}

static const struct memplug_host_ops fault_ops = {
    .lock = fault_lock,
    .attach = fault_attach,
    .attach_row = fault_attach_row,
    .memmap_alias = fault_alias,
    .memmap_provide = fault_provide,
    .memmap_restore = fault_restore,
    .memory_get = fault_memory_get,
    .unlock = fault_unlock,
    .detach = fault_detach,
    .memmap_unmap = fault_unmap,
    .memmap_lend = fault_lend,
    .memmap_return = fault_return,
    .memory_put = fault_memory_put,
    .alignment = fault_alignment,
    .now_ns = fault_now_ns,
    .cpu = fault_cpu,
    .relax = fault_relax,
};

void fault_refuse_rows(struct fault *fault)
{
    fault->refuses_rows = true;
}

void fault_clock_skip(struct fault *fault, uint64_t ns)
{
    atomic_fetch_add(&fault->clock_skip, ns);
}

int fault_open(const struct memplug_host *inner, struct fault **opened)
{
    struct fault *fault = calloc(1, sizeof(*fault));

    if (!fault)
        return -ENOMEM;
    fault->inner = inner;
    fault->host = *inner;
    fault->ops = fault_ops;
    if (!inner->ops->attach_row)
        fault->ops.attach_row = NULL;
    fault->host.ops = &fault->ops;
    fault->host.context = fault;
    fault_select(fault, 0);
    fault_arm(fault, 0, false, 0);
    *opened = fault;
    return 0;
}

void fault_close(struct fault *fault)
{
    free(fault);
}

const struct memplug_host *fault_host(const struct fault *fault)
{
    return &fault->host;
}

/* --- movers and subscribers ------------------------------------------------------------------- */

static void wrapped_move(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    struct wrapped_mover *wrapped = context;
    const struct memplug_mover *inner = wrapped->inner;
    unsigned first = 0; /* of those that were not passed on yet */
    unsigned i;

    for (i = 0; i < nr_moves; i++) {
        int error = meet(wrapped->fault, FAULT_MOVE, inner->name);

        if (!error)
            continue;
        if (first < i)
            inner->move(inner->context, moves + first, i - first);
        moves[i].result = error;
        first = i + 1;
    }
    if (first < nr_moves)
        inner->move(inner->context, moves + first, nr_moves - first);
}

static int wrapped_ask(void *context, memplug_pfn_t pfn, uint64_t cookie,
                       struct memplug_reason *reason)
{
    struct wrapped_mover *wrapped = context;

    return wrapped->inner->ask(wrapped->inner->context, pfn, cookie, reason);
}

static int wrapped_lost(void *context, memplug_pfn_t pfn, uint32_t nr_pages, uint64_t cookie)
{
    struct wrapped_mover *wrapped = context;
    int error = meet(wrapped->fault, FAULT_LOST, wrapped->inner->name);

    return error ? error
                 : wrapped->inner->lost(wrapped->inner->context, pfn, nr_pages, cookie);
}

static int wrapped_notify(void *context, const struct memplug_notice *notice)
{
    struct wrapped_subscriber *wrapped = context;

    if (notice->event == MEMPLUG_PREPARE_ONLINE || notice->event == MEMPLUG_GOING_ONLINE ||
        notice->event == MEMPLUG_GOING_OFFLINE) {
        int error = meet(wrapped->fault, FAULT_GOING, wrapped->inner->name);

        if (error)
            return error;
    }
    return wrapped->inner->notify(wrapped->inner->context, notice);
}

const struct memplug_mover *fault_mover(struct fault *fault, const struct memplug_mover *inner)
{
    struct wrapped_mover *wrapped;
    unsigned i;

    for (i = 0; i < fault->nr_movers; i++)
        if (fault->movers[i].inner == inner)
            return &fault->movers[i].outer;
    if (fault->nr_movers == NR_WRAPPED_MAX)
        return NULL;
    wrapped = &fault->movers[fault->nr_movers++];
    wrapped->fault = fault;
    wrapped->inner = inner;
    wrapped->outer = *inner;
    wrapped->outer.move = wrapped_move;
    wrapped->outer.ask = inner->ask ? wrapped_ask : NULL;
    wrapped->outer.lost = inner->lost ? wrapped_lost : NULL;
    wrapped->outer.context = wrapped;
    return &wrapped->outer;
}

const struct memplug_subscriber *fault_subscriber(struct fault *fault,
                                                  const struct memplug_subscriber *inner)
{
    struct wrapped_subscriber *wrapped;
    unsigned i;

    for (i = 0; i < fault->nr_subscribers; i++)
        if (fault->subscribers[i].inner == inner)
            return &fault->subscribers[i].outer;
    if (fault->nr_subscribers == NR_WRAPPED_MAX)
        return NULL;
    wrapped = &fault->subscribers[fault->nr_subscribers++];
    wrapped->fault = fault;
    wrapped->inner = inner;
    wrapped->outer = *inner;
    wrapped->outer.notify = wrapped_notify;
    wrapped->outer.context = wrapped;
    return &wrapped->outer;
}

/* --- arming and reading ----------------------------------------------------------------------- */

void fault_select(struct fault *fault, uint32_t selected)
{
    atomic_store(&fault->selected_next, selected ? selected : UINT32_MAX);
}

void fault_arm(struct fault *fault, uint64_t k, bool forever, int error)
{
    unsigned i;

    atomic_store(&fault->strike_at, 0);
    atomic_store(&fault->selected, atomic_load(&fault->selected_next));
    atomic_store(&fault->nr_calls, 0);
    atomic_store(&fault->nr_fired, 0);
    for (i = 0; i < FAULT_NR_KINDS; i++)
        atomic_store(&fault->nr_of_kind[i], 0);
    atomic_store(&fault->forever, forever);
    atomic_store(&fault->error, error);
    atomic_store(&fault->strike_at, k);
}

void fault_disarm(struct fault *fault)
{
    atomic_store(&fault->strike_at, 0);
    atomic_store(&fault->selected, 0);
}

uint64_t fault_calls(const struct fault *fault)
{
    return atomic_load(&fault->nr_calls);
}

uint64_t fault_calls_of(const struct fault *fault, enum fault_kind kind)
{
    return atomic_load(&fault->nr_of_kind[kind]);
}

uint64_t fault_fired(const struct fault *fault)
{
    return atomic_load(&fault->nr_fired);
}

void fault_point_name(const struct fault *fault, uint64_t k, char *text, size_t size_bytes)
{
    const char *who = NULL;
    uint8_t kind = 0;

    if (k >= 1 && k <= NR_POINTS_MAX && k <= fault_calls(fault)) {
        kind = atomic_load(&fault->points[k - 1].kind);
        who = atomic_load(&fault->points[k - 1].who);
    }
    snprintf(text, size_bytes, "%s%s%s", kind ? fault_kind_name(kind - 1) : "?", who ? " " : "",
             who ? who : "");
}

__attribute__((format(printf, 3, 4)))
static void put(memplug_write_t *write, void *context, const char *format, ...)
{
    char text[128];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (length >= (int)sizeof(text))
        length = (int)sizeof(text) - 1;
    write(context, text, (size_t)length);
}

void fault_report(const struct fault *fault, const char *title, memplug_write_t *write,
                  void *context)
{
    unsigned kind;

    put(write, context, "%s: %" PRIu64 " points", title, fault_calls(fault));
    for (kind = 0; kind < FAULT_NR_KINDS; kind++) {
        uint64_t nr = fault_calls_of(fault, kind);

        if (nr)
            put(write, context, ", %s %" PRIu64, fault_kind_name(kind), nr);
    }
    if (fault_fired(fault))
        put(write, context, "; %" PRIu64 " made to fail", fault_fired(fault));
    put(write, context, "\n");
}

/* --- limits ----------------------------------------------------------------------------------- */

static void limit_progress(void *context, const struct memplug_progress *progress)
{
    struct fault_limit *limit = context;

    limit->nr_checks++;
    limit->last = *progress;
    if (limit->kind == FAULT_LIMIT_COUNT || limit->nr_checks != limit->strike_at)
        return;
    snprintf(limit->step, sizeof(limit->step), "%s", progress->step ? progress->step : "");
    if (limit->kind == FAULT_LIMIT_STOP)
        __atomic_store_n(&limit->stop, 1, __ATOMIC_RELEASE);
    else /* twice: past a deadline that the host rounds up, or that began a little later */
        fault_clock_skip(limit->fault, 2 * limit->limit.timeout_ns);
}

void fault_limit_init(struct fault_limit *limit, enum fault_limit_kind kind, uint64_t k,
                      struct fault *fault)
{
    *limit = (struct fault_limit){.kind = kind, .fault = fault, .strike_at = k};
    limit->limit.timeout_ns = 30000000000ull;
    limit->limit.stop = &limit->stop;
    limit->limit.progress = limit_progress;
    limit->limit.context = limit;
}
