/* SPDX-License-Identifier: MIT */
/* A subscriber that refuses on demand, as Linux's memory-notifier-error-inject does. */
#include "console.h"

static int errors[2]; /* of GOING_ONLINE, GOING_OFFLINE; 0: none */

static int notify(void *context, const struct memplug_notice *notice)
{
    (void)context;
    if (notice->event == MEMPLUG_GOING_ONLINE)
        return errors[0];
    return notice->event == MEMPLUG_GOING_OFFLINE ? errors[1] : 0;
}

/* What it refuses with, a positive number; it subscribes when it is first told. */
static int inject(char **argument, struct memplug_reason *reason)
{
    static const struct memplug_subscriber subscriber = {.name = "notifier-error-inject",
                                                         .notify = notify};
    bool online = !strcmp(argument[0], "online");
    uint64_t number;
    int error;

    (void)reason;
    if (!bare_number(argument[1], &number) || number > 4095 ||
        (!online && strcmp(argument[0], "offline")))
        return -BARE_EINVAL;
    error = memplug_subscribe(bare_pool, &subscriber);
    if (error && error != -BARE_EEXIST)
        return error;
    errors[!online] = -(int)number;
    return 0;
}

const struct bare_word bare_inject_words[] = {{"inject", 2, inject}, {NULL, 0, NULL}};
