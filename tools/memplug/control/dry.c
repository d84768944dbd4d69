/* SPDX-License-Identifier: MIT */
/* --dry-run of what takes blocks out: as far as can be known without doing it. */
#include "control.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What the tree says of it, which is printed. */
static bool may_go(struct memplug_client *client, const struct control_block *block)
{
    char *reason = control_get(client, "memplug/blocks/%" PRIu64 "/reason", block->number);
    char *why = control_get(client, "memplug/blocks/%" PRIu64 "/why", block->number);
    char error[16] = "?";

    if (reason != NULL && why != NULL) {
        control_word(reason, "error", error, sizeof(error));
        printf("block %" PRIu64 ": %s", block->number, why);
    }
    free(reason);
    free(why);
    return strcmp(error, "0") == 0;
}

static bool is_chosen(const struct control_blocks *blocks, uint64_t number)
{
    for (size_t i = 0; i < blocks->nr; i++)
        if (blocks->list[i].number == number)
            return blocks->list[i].chosen;
    return false;
}

/* Out of the pool only with all that it was added as one with. */
static bool is_whole(const struct control_blocks *blocks, const struct control_block *block)
{
    uint64_t end = block->unit_first + block->unit_nr_blocks;

    for (uint64_t number = block->unit_first; number < end; number++)
        if (!is_chosen(blocks, number)) {
            printf("block %" PRIu64 ": can only be removed with all of %" PRIu64 "-%" PRIu64 "\n",
                   block->number, block->unit_first, end - 1);
            return false;
        }
    return true;
}

static bool would_leave(struct memplug_client *client, const struct control_blocks *blocks,
                        const struct control_block *block, const struct control_leaving *how)
{
    if (how->remove && block->boot) {
        printf("block %" PRIu64 ": boot memory cannot go\n", block->number);
        return false;
    }
    if (how->remove && !is_whole(blocks, block))
        return false;
    if (control_is_online(block))
        return how->offline ? may_go(client, block)
                            : (printf("block %" PRIu64 ": is %s: not without --offline\n",
                                      block->number, block->state), false);
    printf("block %" PRIu64 ": would be removed\n", block->number);
    return true;
}

/* What is used must find room in blocks that stay. */
static bool has_room(const struct control_blocks *blocks, uint64_t nr_new_pages)
{
    uint64_t nr_used = 0, room = nr_new_pages;

    for (size_t i = 0; i < blocks->nr; i++) {
        const struct control_block *block = &blocks->list[i];

        if (control_is_online(block) && block->chosen)
            nr_used += block->nr_managed - block->nr_free;
        else if (control_is_online(block))
            room += block->nr_free;
    }
    printf("%" PRIu64 " pages would move\n", nr_used);
    if (room < nr_used)
        printf("there would be no room: %" PRIu64 " pages are free elsewhere\n", room);
    return room >= nr_used;
}

int control_would_leave(struct memplug_client *client, const struct control_blocks *blocks,
                        const struct control_leaving *how)
{
    size_t nr = 0;

    for (size_t i = 0; i < blocks->nr; i++)
        if (blocks->list[i].chosen)
            nr += would_leave(client, blocks, &blocks->list[i], how);
    if (how->best_effort && nr < blocks->nr_chosen)
        return nr > 0 ? CONTROL_PARTLY : CONTROL_NONE;
    if (nr < blocks->nr_chosen || (how->offline && !has_room(blocks, how->nr_new_pages)))
        return how->best_effort ? CONTROL_PARTLY : CONTROL_NONE;
    return CONTROL_ALL;
}
