/* SPDX-License-Identifier: MIT */
/*
 * What the owner of a live page must do, so that the page's block can go: a mover copies pages
 * and switches whoever uses them, and a subscriber hears what happens to blocks.
 *
 * Life of a page that moves. The owner allocated it with its mover's number and a cookie. Offline
 * takes a target for it, marks both, and calls move(). From then on:
 *  - result 0: the content is in the target and every user of the page uses the target. The owner
 *    now owns the target; the core frees the source. The cookie goes along.
 *  - any other result: nothing has changed for any user; the core frees the target and may try
 *    again, until the operation's limit. -EBUSY: pinned or in use just now.
 *  - the owner may free a page at any time, also while it is being moved. memplug_free() of a
 *    source that is being moved is remembered and carried out by the core when move() returns;
 *    so is that of a target, once the owner uses it, before move() has returned.
 *    A mover that finds its page gone, or not yet there, answers -ENOENT: it is asked again if
 *    the page is still there.
 * The embedder's part of the struct page is the mover's to copy, if anything is kept there.
 * So the one thing a mover needs is a lock of its own between "I switch this page" and "I free
 * this page". move() may sleep, may allocate and free pages, and must not call add, online,
 * offline or remove (they answer -EDEADLK).
 */
#ifndef MEMPLUG_MOVER_H
#define MEMPLUG_MOVER_H

#include <memplug/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memplug_move {
    memplug_pfn_t from;
    memplug_pfn_t to;
    uint32_t nr_pages;
    int result;      /* written by move() */
    uint64_t cookie; /* the owner's name for the page */
    const char *why; /* may be written by move() with a result that is not 0: a static text */
};

struct memplug_mover {
    const char *name;   /* in reasons: "mapping", "page cache" */
    unsigned batch_max; /* at most this many moves in one call; 0: as many as the core likes */

    /* Move each entry, in any order, and write each result. */
    void (*move)(void *context, struct memplug_move *moves, unsigned nr_moves);

    /* May this page be moved just now? 0, or the error that move() would give; changes nothing.
     * May be null: then memplug_why() knows only what the core knows. */
    int (*ask)(void *context, memplug_pfn_t pfn, uint64_t cookie, struct memplug_reason *reason);

    /* Several pages are about to be asked about, or one to be described, all at this moment: look
     * at what they have in common. As ask(); may be null. */
    void (*look)(void *context);

    /* This page is the one that is named, and reason says what it is about: error, why, remedy. Say
     * more: write since_ns and detail, and remedy if there is a better one, nothing else. The page
     * may be gone by now. Called once for a failed operation or an answer of memplug_why(), without
     * a lock but the control lock; it may sleep, for a bounded time. May be null. */
    void (*describe)(void *context, memplug_pfn_t pfn, uint64_t cookie,
                     struct memplug_reason *reason);

    /* The content of these pages is gone (memplug_hard_offline()): the owner stops using them, and
     * after 0 has them no more. -ENOENT: it has no such page, for it is about to be freed, or not
     * yet written down; it is asked again if the page is still there. -EBUSY: not now; nothing has
     * changed. Other calls as move(). May be null: then such a page is refused while it is used. */
    int (*lost)(void *context, memplug_pfn_t pfn, uint32_t nr_pages, uint64_t cookie);

    void *context;
};

/* Linux's events with Linux's values (memory.h of the kernel's user-visible ABI). */
enum memplug_event {
    MEMPLUG_ONLINE = 0x01,
    MEMPLUG_GOING_OFFLINE = 0x02,
    MEMPLUG_OFFLINE = 0x04,
    MEMPLUG_GOING_ONLINE = 0x08,
    MEMPLUG_CANCEL_ONLINE = 0x10,
    MEMPLUG_CANCEL_OFFLINE = 0x20,
    MEMPLUG_PREPARE_ONLINE = 0x40,
    MEMPLUG_FINISH_OFFLINE = 0x80,
};

struct memplug_notice {
    enum memplug_event event;
    memplug_pfn_t start; /* the block's data: its own memmap is not part of it */
    uint64_t nr_pages;
    int node_normal; /* node that gains its first, or loses its last, kernel memory; else -1 */
    int node_any;    /* the same for any memory */
    memplug_pfn_t memmap_start; /* the memmap at the block's head; of PREPARE_ONLINE and */
    uint64_t nr_memmap_pages;   /* FINISH_OFFLINE only, else 0 */
};

/*
 * A subscriber. PREPARE_ONLINE, GOING_ONLINE and GOING_OFFLINE may be refused with a negative
 * errno; what other events return is ignored. If one subscriber refuses GOING, all get the CANCEL
 * event, also those that were not asked. PREPARE_ONLINE comes first and FINISH_OFFLINE last, also
 * after an online that failed behind PREPARE_ONLINE (linux semantics, 7); a PREPARE_ONLINE that is
 * refused has no end. Called in order of
 * priority, highest first, with the control lock held: it may sleep, allocate and free, and must
 * not call add, online, offline or remove.
 */
struct memplug_subscriber {
    const char *name;
    int priority;
    int (*notify)(void *context, const struct memplug_notice *notice);
    void *context;
};

/*
 * The online-page hook: what happens to the data frames of a block that goes online. The default
 * releases them all. A driver's hook gets them in aligned chunks of at most the largest size that
 * fits (never more than a pageblock) and calls, for each part of the chunk, memplug_release_pages()
 * or nothing: what is not released is *logically offline*, belongs to the driver, and is not
 * counted as managed. Called with the control lock held; may not sleep for long; cannot fail.
 */
struct memplug_online_hook {
    void (*online_pages)(void *context, memplug_pfn_t start, uint32_t nr_pages);
    void *context;
};

/* What has happened, as Linux's uevents: to a block, or to a node. */
enum memplug_action {
    MEMPLUG_ACTION_ADD,
    MEMPLUG_ACTION_ONLINE,
    MEMPLUG_ACTION_OFFLINE,
    MEMPLUG_ACTION_REMOVE,
};

struct memplug_uevent {
    enum memplug_action action;
    int64_t block; /* -1: a node came or went */
    int node;
};

struct memplug_listener {
    void (*hear)(void *context, const struct memplug_uevent *event);
    void *context;
};

#ifdef __cplusplus
}
#endif
#endif
