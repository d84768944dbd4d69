/* SPDX-License-Identifier: MIT */
/* memplug/blocks/N: could it go, what holds it and since when; of what kinds its frames are. */
#include "tree.h"

#include <errno.h>

static void put_reason_text(struct mpl_attr_text *text, const struct memplug_reason *reason)
{
    size_t room = text->size_bytes > text->length ? text->size_bytes - text->length : 0;

    text->length += memplug_reason_text(reason, room > 0 ? text->buffer + text->length : NULL,
                                        room);
}

static uint64_t seconds_since(const struct mpl_attr_call *call, uint64_t since_ns)
{
    const struct memplug_host *host = &call->attr->host;

    return (host->ops->now_ns(host->context) - since_ns) / 1000000000u;
}

int mpl_attr_show_why(struct mpl_attr_call *call)
{
    struct memplug_reason reason;
    uint64_t since_ns;

    if (memplug_why(call->attr->pool, call->place->block, &reason) == -ENODEV)
        return -ENODEV;
    put_reason_text(call->text, &reason);
    since_ns = reason.error != 0 ? mpl_attr_seen(call->attr, &reason) : 0;
    if (since_ns != 0 && seconds_since(call, since_ns) > 0) {
        mpl_attr_put(call->text, " It has been so for at least ");
        mpl_attr_put_number(call->text, seconds_since(call, since_ns), 10, 0, ' ');
        mpl_attr_put(call->text, " s.");
    }
    mpl_attr_put(call->text, "\n");
    return 0;
}

static void put_words(struct mpl_attr_text *text, const char *name, const char *words)
{
    if (words == NULL)
        return;
    mpl_attr_put(text, name);
    mpl_attr_put(text, " ");
    mpl_attr_put(text, words);
    mpl_attr_put(text, "\n");
}

/* The same for programs: a name and a value a line, those only that there are. */
int mpl_attr_show_reason(struct mpl_attr_call *call)
{
    struct memplug_reason reason;
    uint64_t since_ns;

    if (memplug_why(call->attr->pool, call->place->block, &reason) == -ENODEV)
        return -ENODEV;
    mpl_attr_put(call->text, reason.error < 0 ? "error -" : "error ");
    mpl_attr_put_number(call->text, (uint64_t)(reason.error < 0 ? -(int64_t)reason.error : 0), 10,
                        0, ' ');
    mpl_attr_put(call->text, "\n");
    put_words(call->text, "operation", reason.operation);
    put_words(call->text, "step", reason.step);
    put_words(call->text, "why", reason.why);
    put_words(call->text, "remedy", reason.remedy);
    put_words(call->text, "owner", reason.owner);
    put_words(call->text, "detail", reason.detail[0] != '\0' ? reason.detail : NULL);
    mpl_attr_put_pair(call->text, "nr_pages", reason.nr_pages);
    if (reason.pfn.nr != UINT64_MAX)
        mpl_attr_put_pair(call->text, "pfn", reason.pfn.nr);
    if (reason.owner != NULL)
        mpl_attr_put_pair(call->text, "owner_cookie", reason.owner_cookie);
    if (reason.error != 0 && reason.since_ns != 0)
        mpl_attr_put_pair(call->text, "held_for_s", seconds_since(call, reason.since_ns));
    since_ns = reason.error != 0 ? mpl_attr_seen(call->attr, &reason) : 0;
    if (since_ns != 0)
        mpl_attr_put_pair(call->text, "seen_for_s", seconds_since(call, since_ns));
    return 0;
}

int mpl_attr_show_frames(struct mpl_attr_call *call)
{
    static const char *const names[] = {
        [MEMPLUG_FRAME_ABSENT] = "absent", [MEMPLUG_FRAME_MEMMAP] = "memmap",
        [MEMPLUG_FRAME_FREE] = "free",     [MEMPLUG_FRAME_USED] = "unmovable",
        [MEMPLUG_FRAME_MOVABLE] = "movable", [MEMPLUG_FRAME_KEPT] = "kept",
        [MEMPLUG_FRAME_HUGE] = "huge",     [MEMPLUG_FRAME_POISONED] = "poisoned",
    };
    uint64_t counts[MPL_ATTR_COUNT(names)] = {0};
    struct memplug_block_info info;
    unsigned shift = call->attr->host.geometry.page_shift;
    int error = mpl_attr_info(call, &info);

    if (error != 0)
        return error;
    for (uint64_t i = 0; i < info.size_bytes >> shift; i++) {
        memplug_pfn_t pfn = {(info.address >> shift) + i};

        counts[memplug_frame_kind(call->attr->pool, pfn)]++;
    }
    for (unsigned i = 0; i < MPL_ATTR_COUNT(names); i++)
        mpl_attr_put_pair(call->text, names[i], counts[i]);
    return 0;
}
