/* SPDX-License-Identifier: MIT */
/* memplug wait, cancel: operations that are going on, and what the pool is to become. */
#include "control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- operations ------------------------------------------------------------------------------- */

/* Numbers of those that have not ended, oldest first: how many; or the error, which was said. */
static int open_operations(struct memplug_client *client,
                           uint64_t numbers[MEMPLUG_SERVE_OPERATIONS])
{
    const struct memplug_client_request request = {.verb = MEMPLUG_SERVE_OPERATIONS_GET};
    char *text = NULL;
    int nr = 0, result = memplug_client_call(client, &request, &text);

    if (result < 0)
        control_say(NULL, result, text);
    for (char *line = result < 0 ? NULL : strtok(text, "\n"); line != NULL;
         line = strtok(NULL, "\n")) {
        char state[16];
        uint64_t number;

        if (sscanf(line, "%" SCNu64 " %15s", &number, state) == 2 && strcmp(state, "ended") != 0 &&
            nr < (int)MEMPLUG_SERVE_OPERATIONS)
            numbers[nr++] = number;
    }
    free(text);
    return result < 0 ? result : nr;
}

/* What is left of the time that was given; 0 is for good, and -ETIMEDOUT: nothing. */
static int time_left(const struct control_options *options, unsigned *left_ms)
{
    uint64_t now_ms = control_now_ms();

    *left_ms = 0;
    if (options->deadline_ms == 0)
        return 0;
    if (now_ms >= options->deadline_ms)
        return -ETIMEDOUT;
    *left_ms = (unsigned)(options->deadline_ms - now_ms);
    return 0;
}

static int by_number(const struct control_options *options, struct memplug_client *client,
                     enum memplug_serve_verb verb, uint64_t number)
{
    char digits[24];
    const struct memplug_client_request request = {
        .verb = verb,
        .data = digits,
        .length = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, number),
    };
    unsigned left_ms = 0;
    char *text = NULL;
    int result;

    if (verb == MEMPLUG_SERVE_WAIT) {
        result = time_left(options, &left_ms);
        return result != 0 ? result : control_follow(client, &request, left_ms);
    }
    result = memplug_client_call(client, &request, &text);
    if (result < 0)
        control_say(NULL, result, text);
    free(text);
    return result;
}

/* The number that was given, or all that have not ended: how many in nr_met. */
static int each(const struct control_options *options, struct memplug_client *client,
                enum memplug_serve_verb verb, int *nr_met)
{
    uint64_t numbers[MEMPLUG_SERVE_OPERATIONS];
    int nr_well = 0;

    *nr_met = 1;
    if (options->nr_arguments == 0)
        *nr_met = open_operations(client, numbers);
    else if (!control_read_number(options->arguments[0], &numbers[0])) {
        fprintf(stderr, "memplug: %s: not the number of an operation\n", options->arguments[0]);
        return CONTROL_USAGE;
    }
    for (int i = 0; i < *nr_met; i++)
        nr_well += by_number(options, client, verb, numbers[i]) >= 0;
    return nr_well == *nr_met ? CONTROL_ALL : nr_well > 0 ? CONTROL_PARTLY : CONTROL_NONE;
}

int control_cancel(const struct control_options *options, struct memplug_client *client)
{
    int nr, status = each(options, client, MEMPLUG_SERVE_CANCEL, &nr), result;
    char *text = NULL;

    if (status != CONTROL_ALL || options->nr_arguments > 0)
        return status;
    /* Then what did not come by the socket. */
    result = memplug_client_set(client, "memplug/cancel", "1", &text);
    if (result >= 0 || (result == -ESRCH && nr > 0))
        status = CONTROL_ALL;
    else {
        control_say(NULL, result, result == -ESRCH ? "nothing is running" : text);
        status = CONTROL_NONE;
    }
    free(text);
    return status;
}

/* --- what is to become ------------------------------------------------------------------------ */

struct wish {
    const char *blocks, *state; /* or */
    uint64_t free_bytes;
};

/* 1: it is so; 0: not yet; or an error, which was said. */
static int enough_is_free(struct memplug_client *client, uint64_t bytes)
{
    char *stat = control_get(client, "memplug/stat");
    uint64_t nr = control_number(stat, "nr_free_pages", 0);

    if (stat == NULL)
        return -EIO;
    free(stat);
    return nr >= (bytes + (uint64_t)sysconf(_SC_PAGESIZE) - 1) / (uint64_t)sysconf(_SC_PAGESIZE);
}

static int may_go(struct memplug_client *client, const struct control_block *block)
{
    char *reason = NULL, error[16];
    int result;

    if (strcmp(block->state, "offline") == 0)
        return 1;
    result = control_try(client, &reason, "memplug/blocks/%" PRIu64 "/reason", block->number);
    if (result == -ENOENT || result == -ENODEV)
        return 1; /* it has gone */
    if (result < 0) {
        control_say(NULL, result, NULL);
        return result;
    }
    control_word(reason, "error", error, sizeof(error));
    free(reason);
    return strcmp(error, "0") == 0;
}

static int are_so(struct memplug_client *client, const struct wish *wish)
{
    struct control_blocks blocks;
    int result = control_read_blocks(client, &blocks);
    bool gone = strcmp(wish->state, "gone") == 0;

    if (result != 0)
        return result;
    blocks.some = gone;
    result = control_choose(&blocks, wish->blocks, NULL, false, false);
    if (result != 0)
        result = result == CONTROL_USAGE ? -EINVAL : -ENODEV;
    else if (gone)
        result = blocks.nr_chosen == 0;
    else
        result = 1;
    for (size_t i = 0; i < blocks.nr && result == 1 && !gone; i++) {
        const struct control_block *block = &blocks.list[i];

        if (block->chosen)
            result = strcmp(wish->state, "can-go") == 0 ? may_go(client, block)
                                                        : strcmp(block->state, wish->state) == 0;
    }
    control_free_blocks(&blocks);
    return result;
}

/* Looks again after ten times as long as it took: whoever waits is no load. */
static int wait_for(const struct control_options *options, struct memplug_client *client,
                    const struct wish *wish)
{
    for (;;) {
        uint64_t start_ms = control_now_ms(), pause_ms;
        int result = wish->blocks != NULL ? are_so(client, wish)
                                          : enough_is_free(client, wish->free_bytes);
        unsigned left_ms;

        if (result != 0)
            return result == 1         ? CONTROL_ALL
                   : result == -EINVAL ? CONTROL_USAGE
                                       : CONTROL_NONE;
        pause_ms = 10 * (control_now_ms() - start_ms);
        pause_ms = pause_ms < 50 ? 50 : pause_ms < 2000 ? pause_ms : 2000;
        if (time_left(options, &left_ms) != 0) {
            fputs("memplug: it has not become so in time\n", stderr);
            return CONTROL_NONE;
        }
        if (left_ms != 0 && left_ms < pause_ms)
            pause_ms = left_ms;
        nanosleep(&(struct timespec){.tv_sec = (time_t)(pause_ms / 1000),
                                     .tv_nsec = (long)(pause_ms % 1000) * 1000000}, NULL);
    }
}

int control_wait(const struct control_options *options, struct memplug_client *client)
{
    static const char *const states[] = {"online", "offline", "gone", "can-go"};
    struct wish wish = {.blocks = NULL};
    int nr;

    if (options->nr_arguments < 2)
        return each(options, client, MEMPLUG_SERVE_WAIT, &nr);
    if (strcmp(options->arguments[0], "free") == 0 &&
        control_read_size(options->arguments[1], &wish.free_bytes))
        return wait_for(options, client, &wish);
    for (unsigned i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        if (strcmp(options->arguments[1], states[i]) == 0)
            wish = (struct wish){.blocks = options->arguments[0], .state = states[i]};
    if (wish.blocks != NULL)
        return wait_for(options, client, &wish);
    fputs("memplug: wait NUMBER, or BLOCKS online|offline|gone|can-go, or free SIZE\n", stderr);
    return CONTROL_USAGE;
}
