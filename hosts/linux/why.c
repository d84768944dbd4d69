/* SPDX-License-Identifier: MIT */
/* What a space says of a frame that is to go: may it, and if not, which mapping it is, since when,
 * and who holds it. */
#define _GNU_SOURCE
#include "holders.h"
#include "live.h"
#include "say.h"
#include "sys.h"

#include <errno.h>

#define NR_NAMED 3u            /* holders in a detail */
#define RUN_PAGES (1u << 20)   /* of a mapping that are looked at on either side */

const char mpl_why_held[] = "a page is held for I/O: direct I/O in flight, or a registered buffer";
const char mpl_why_held_huge[] = "a page of its block of huge pages is held for I/O";
const char mpl_why_waiter[] =
    "a thread waits there for a process-shared lock with priority inheritance";
const char mpl_why_blind[] =
    "whether threads sleep there on shared futexes cannot be seen: /proc/self/task is not readable";

static const char remedy_waiter[] = "let that thread have its lock";
static const char remedy_blind[] =
    "mount /proc, and make the process dumpable (prctl); if it has given up root, start it as the"
    " user that it becomes (memplug run --user)";

/* The frames that are proved free of pins at once. */
struct span {
    uint64_t first, nr;
};

static bool is_proved(const struct memplug_space *space)
{
    return space->pins_wanted == MEMPLUG_PINS_PROVED && !space->no_fence;
}

static struct span span_of(const struct memplug_space *space, uint64_t pfn)
{
    const uint64_t block_pages = space->host->block_bytes / space->page_bytes;
    struct span span = {.nr = MPL_PINS_PAGES};
    struct mpl_location from;
    const char *why;

    if (mpl_space_locate(space, pfn, &from, &why) == 0 && from.kind == MEMPLUG_BACKING_HUGETLB)
        span.nr = block_pages;
    span.first = pfn / span.nr * span.nr;
    return span;
}

/* --- may it go? ------------------------------------------------------------------------------- */

/* A registered buffer stays until somebody takes it back; a call that has a page just now ends by
 * itself, and is no reason to say no. */
static bool has_buffer(const struct memplug_space *space, const struct span *span)
{
    struct mpl_holders *holders = space->holders;
    const struct memplug_holder *holder;
    unsigned at = 0;

    if (holders->asked_nr == span->nr && holders->asked_first == span->first)
        return holders->asked_buffer;
    while ((holder = mpl_holders_next(space, span->first, span->nr, false, &at)) != NULL &&
           holder->kind != MEMPLUG_HOLDER_BUFFER)
        ;
    holders->asked_first = span->first;
    holders->asked_nr = span->nr;
    holders->asked_buffer = holder != NULL;
    return holder != NULL;
}

static int ask_holders(const struct memplug_space *space, uint64_t pfn, const char **why,
                       const char **remedy)
{
    struct span span = span_of(space, pfn);
    unsigned at = 0;
    int result = 0;

    mpl_lock_enter(&space->holders->lock);
    if (mpl_holders_next(space, pfn, space->unit_pages, true, &at)) {
        *why = mpl_why_waiter;
        *remedy = remedy_waiter;
        result = -EBUSY;
    } else if (space->holders->blind) {
        *why = mpl_why_blind;
        *remedy = remedy_blind;
        result = -EBUSY;
    } else if (is_proved(space) && has_buffer(space, &span)) {
        *why = span.nr > MPL_PINS_PAGES ? mpl_why_held_huge : mpl_why_held;
        *remedy = "unregister the buffer, or wait";
        result = -EBUSY;
    }
    mpl_lock_leave(&space->holders->lock);
    return result;
}

int mpl_live_ask(void *context, memplug_pfn_t pfn, uint64_t cookie, struct memplug_reason *reason)
{
    struct memplug_space *space = context;
    struct mpl_location from;
    const char *why = NULL, *remedy = NULL;
    int saved = errno;
    int result = mpl_live_lock(space, pfn.nr, cookie);

    if (result == 0) {
        mpl_lock_leave(&mpl_unit_at(space, cookie & UINT32_MAX)->lock);
        result = mpl_space_locate(space, pfn.nr, &from, &why) != 0 ? -EBUSY : 0;
    }
    if (result == 0)
        result = mpl_live_check(space, &from, &why, &remedy);
    if (result == 0)
        result = ask_holders(space, pfn.nr, &why, &remedy);
    errno = saved;
    if (result != 0 && reason) {
        reason->error = result;
        reason->why = why;
        reason->remedy = remedy;
    }
    return result;
}

void mpl_live_look(void *context)
{
    int saved = errno;

    mpl_holders_look(context);
    errno = saved;
}

/* --- which mapping ---------------------------------------------------------------------------- */

static uint32_t attr_at(const struct memplug_space *space, uint64_t page)
{
    return atomic_load_explicit(mpl_unit_attrs(space, 0) + page, memory_order_relaxed);
}

/* As in /proc/PID/maps: neighbours that are equal are one. "Mapped at 0x7f0000400000-0x7f0000800000
 * (4 MiB, "cache", 1 of 3 in its unit) for 12.345 s". */
static void say_mapping(struct mpl_say *say, const struct memplug_space *space, uint64_t unit,
                        uint64_t at, uint64_t since_ns)
{
    uint64_t page = at / space->page_bytes, first = page, end = page + 1;
    uint64_t limit = space->area.nr_usable * space->unit_pages, nr_pieces = 0;
    uint32_t attr = attr_at(space, page);
    struct mpl_piece piece = {0};

    while (first > 0 && page - first < RUN_PAGES && attr_at(space, first - 1) == attr)
        first--;
    while (end < limit && end - page < RUN_PAGES && attr_at(space, end) == attr)
        end++;
    while (mpl_piece_next(space, unit, 0, &piece))
        nr_pieces++;
    mpl_say(say, "Mapped at ");
    mpl_say_hex(say, (uintptr_t)space->window.base + first * space->page_bytes);
    mpl_say(say, "-");
    mpl_say_hex(say, (uintptr_t)space->window.base + end * space->page_bytes);
    mpl_say(say, " (");
    mpl_say_bytes(say, (end - first) * space->page_bytes);
    if (attr >> MPL_ATTR_NAME_SHIFT != 0) {
        mpl_say(say, ", \"");
        mpl_say(say, space->names[attr >> MPL_ATTR_NAME_SHIFT]);
        mpl_say(say, "\"");
    }
    if (nr_pieces > 1) {
        mpl_say(say, ", 1 of ");
        mpl_say_number(say, nr_pieces);
        mpl_say(say, " in its unit");
    }
    mpl_say(say, ") for ");
    mpl_say_seconds(say, mpl_now_ns() - since_ns);
}

/* Where the unit's mapping is that matters, from the window's start: the one that holder names. */
static uint64_t mapping_of(const struct memplug_space *space, uint64_t unit,
                           const struct memplug_holder *holder)
{
    uint64_t start = unit * space->unit_bytes;
    struct mpl_piece piece = {0};

    if (holder && mpl_in_window(space, holder->address) &&
        mpl_unit_of(space, holder->address) == unit)
        return holder->address - (uintptr_t)space->window.base;
    return mpl_piece_next(space, unit, 0, &piece) ? start + piece.first * space->page_bytes : start;
}

/* --- who holds it ----------------------------------------------------------------------------- */

static void say_place(struct mpl_say *say, const struct memplug_holder *holder)
{
    mpl_say(say, " (");
    mpl_say_hex(say, holder->address);
    mpl_say(say, ", ");
    mpl_say_bytes(say, holder->size_bytes);
    mpl_say(say, ")");
}

static void say_told(struct mpl_say *say, const struct memplug_holder *holder)
{
    if (holder->kind == MEMPLUG_HOLDER_BUFFER) {
        mpl_say(say, "buffer ");
        mpl_say_number(say, holder->index);
        mpl_say(say, " registered with the io_uring at descriptor ");
        mpl_say_number(say, (uint64_t)holder->fd);
    } else {
        mpl_say(say, "thread ");
        mpl_say_number(say, (uint64_t)holder->tid);
        mpl_say(say, " in a call on descriptor ");
        mpl_say_number(say, (uint64_t)holder->fd);
        mpl_say(say, " with O_DIRECT");
    }
    say_place(say, holder);
}

static void say_candidate(struct mpl_say *say, const struct memplug_holder *first, uint64_t nr)
{
    static const char *const words[MEMPLUG_NR_HOLDERS] = {
        [MEMPLUG_HOLDER_IO_URING] = "a request or a ring of the io_uring",
        [MEMPLUG_HOLDER_AIO] = "AIO",
        [MEMPLUG_HOLDER_DIRECT] = "direct I/O",
        [MEMPLUG_HOLDER_DEVICE] = "VFIO or RDMA",
        [MEMPLUG_HOLDER_PIPE] = "vmsplice to the pipe",
        [MEMPLUG_HOLDER_SOCKET] = "MSG_ZEROCOPY on the socket",
    };

    mpl_say(say, words[first->kind]);
    if (first->fd >= 0) {
        mpl_say(say, first->kind == MEMPLUG_HOLDER_DIRECT ? " on descriptor "
                                                          : " at descriptor ");
        mpl_say_number(say, (uint64_t)first->fd);
    }
    if (nr > 1) {
        mpl_say(say, " and ");
        mpl_say_number(say, nr - 1);
        mpl_say(say, " more");
    }
    mpl_say(say, ", ");
}

static void say_candidates(struct mpl_say *say, const struct mpl_holders *holders)
{
    mpl_say(say, ", nothing tells by whom. It may be ");
    for (unsigned kind = 0; kind < MEMPLUG_NR_HOLDERS; kind++)
        if (holders->nr_of[kind] != 0)
            say_candidate(say, &holders->first_of[kind], holders->nr_of[kind]);
    mpl_say(say, "another process, or the kernel in passing");
    if (holders->cut)
        mpl_say(say, "; there was no time to look at all");
}

static void say_holders(struct mpl_say *say, const struct memplug_space *space,
                        const struct span *span, uint64_t held_ns, const char **remedy)
{
    const struct memplug_holder *holder;
    unsigned at = 0, nr = 0;

    mpl_say(say, "; held");
    if (held_ns != 0) {
        mpl_say(say, " for at least ");
        mpl_say_seconds(say, mpl_now_ns() - held_ns);
    }
    while ((holder = mpl_holders_next(space, span->first, span->nr, false, &at)) != NULL) {
        if (nr++ == 0)
            *remedy = holder->kind == MEMPLUG_HOLDER_BUFFER
                          ? "unregister that buffer, or close its io_uring"
                          : "wait longer: it ends with that call";
        if (nr > NR_NAMED)
            continue;
        mpl_say(say, nr == 1 ? " by " : ", by ");
        say_told(say, holder);
    }
    if (nr > NR_NAMED) {
        mpl_say(say, ", and by ");
        mpl_say_number(say, nr - NR_NAMED);
        mpl_say(say, " more");
    }
    if (nr == 0)
        say_candidates(say, space->holders);
}

static void say_waiter(struct mpl_say *say, const struct memplug_holder *holder)
{
    mpl_say(say, "; thread ");
    mpl_say_number(say, (uint64_t)holder->tid);
    mpl_say(say, " waits at ");
    mpl_say_hex(say, holder->address);
}

/* What is in the way of all memory of this kind has a remedy of its own. */
static void say_kind(const struct memplug_space *space, uint64_t pfn,
                     struct memplug_reason *reason)
{
    struct mpl_location from;
    const char *why, *remedy;

    if (mpl_space_locate(space, pfn, &from, &why) == 0 &&
        mpl_live_check(space, &from, &why, &remedy) != 0 && why == reason->why)
        reason->remedy = remedy;
}

/* Of a unit's record. */
struct times {
    uint64_t since_ns, held_ns;
};

static void describe(const struct memplug_space *space, uint64_t pfn, uint64_t unit,
                     const struct times *times, struct memplug_reason *reason)
{
    bool waits = reason->why == mpl_why_waiter;
    bool held = reason->why == mpl_why_held || reason->why == mpl_why_held_huge ||
                (reason->error == -ETIMEDOUT && times->held_ns != 0);
    struct mpl_say say = {.text = reason->detail, .size = sizeof(reason->detail)};
    struct span span = span_of(space, pfn);
    const struct memplug_holder *holder = NULL;
    unsigned at = 0;

    if (waits)
        holder = mpl_holders_next(space, pfn, space->unit_pages, true, &at);
    else if (held)
        holder = mpl_holders_next(space, span.first, span.nr, false, &at);
    reason->since_ns = times->since_ns;
    say_mapping(&say, space, unit, mapping_of(space, unit, holder), times->since_ns);
    if (held)
        say_holders(&say, space, &span, times->held_ns, &reason->remedy);
    else if (holder)
        say_waiter(&say, holder);
    if (waits || reason->why == mpl_why_blind)
        reason->remedy = waits ? remedy_waiter : remedy_blind;
    say_kind(space, pfn, reason);
}

void mpl_live_describe(void *context, memplug_pfn_t pfn, uint64_t cookie,
                       struct memplug_reason *reason)
{
    struct memplug_space *space = context;
    uint64_t unit = cookie & UINT32_MAX;
    struct mpl_unit *record = mpl_unit_at(space, unit);
    int saved = errno;

    if (mpl_live_lock(space, pfn.nr, cookie) == 0) {
        struct times times = {record->since_ns, record->held_ns};

        mpl_lock_leave(&record->lock);
        mpl_lock_enter(&space->holders->lock);
        describe(space, pfn.nr, unit, &times, reason);
        mpl_lock_leave(&space->holders->lock);
    }
    errno = saved;
}
