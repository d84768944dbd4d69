/* SPDX-License-Identifier: MIT */
/* memplug why: could a block go, and if not, what holds it, since when, and what would help. */
#include "control.h"

#include <stdlib.h>
#include <string.h>

enum { W_BLOCK, W_GOES, W_ERROR, W_WHY, W_OWNER, W_FRAME, W_COUNT, W_SEEN, W_REMEDY, W_DETAIL,
       W_HELD, W_FREE, W_MOVABLE, W_UNMOVABLE, W_HUGE, W_KEPT, W_POISONED };
static const struct control_column columns[] = {
    [W_BLOCK] = {"BLOCK", CONTROL_COUNT, true},
    [W_GOES] = {"CAN_GO", CONTROL_FLAG, true},
    [W_ERROR] = {"ERROR", CONTROL_COUNT, false},
    [W_WHY] = {"WHY", CONTROL_TEXT, true},
    [W_OWNER] = {"OWNER", CONTROL_TEXT, true},
    [W_FRAME] = {"FRAME", CONTROL_TEXT, true},
    [W_COUNT] = {"PAGES", CONTROL_COUNT, true},
    [W_SEEN] = {"SECONDS_SEEN", CONTROL_COUNT, true},
    [W_REMEDY] = {"REMEDY", CONTROL_TEXT, true},
    [W_DETAIL] = {"DETAIL", CONTROL_TEXT, false},
    [W_HELD] = {"SECONDS_HELD", CONTROL_COUNT, false},
    [W_FREE] = {"FREE", CONTROL_COUNT, false},
    [W_MOVABLE] = {"MOVABLE", CONTROL_COUNT, false},
    [W_UNMOVABLE] = {"UNMOVABLE", CONTROL_COUNT, false},
    [W_HUGE] = {"HUGE", CONTROL_COUNT, false},
    [W_KEPT] = {"KEPT", CONTROL_COUNT, false},
    [W_POISONED] = {"POISONED", CONTROL_COUNT, false},
};

static void put_word(struct control_table *table, unsigned column, const char *reason,
                     const char *name)
{
    char word[512];

    control_word(reason, name, word, sizeof(word));
    if (word[0] != '\0')
        control_table_text(table, column, word);
}

static void put_number(struct control_table *table, unsigned column, const char *text,
                       const char *name)
{
    uint64_t number = control_number(text, name, UINT64_MAX);

    if (number != UINT64_MAX)
        control_table_count(table, column, number);
}

static void put_block(struct control_table *table, uint64_t number, const char *reason,
                      const char *frames, bool goes)
{
    char text[32];

    control_table_row(table);
    control_table_count(table, W_BLOCK, number);
    control_table_flag(table, W_GOES, goes);
    control_word(reason, "error", text, sizeof(text));
    control_table_text(table, W_ERROR, text);
    put_word(table, W_WHY, reason, "why");
    put_word(table, W_OWNER, reason, "owner");
    put_word(table, W_REMEDY, reason, "remedy");
    put_word(table, W_DETAIL, reason, "detail");
    put_number(table, W_HELD, reason, "held_for_s");
    put_number(table, W_COUNT, reason, "nr_pages");
    put_number(table, W_SEEN, reason, "seen_for_s");
    if (control_number(reason, "pfn", UINT64_MAX) != UINT64_MAX) {
        snprintf(text, sizeof(text), "0x%llx",
                 (unsigned long long)control_number(reason, "pfn", 0));
        control_table_text(table, W_FRAME, text);
    }
    put_number(table, W_FREE, frames, "free");
    put_number(table, W_MOVABLE, frames, "movable");
    put_number(table, W_UNMOVABLE, frames, "unmovable");
    put_number(table, W_HUGE, frames, "huge");
    put_number(table, W_KEPT, frames, "kept");
    put_number(table, W_POISONED, frames, "poisoned");
}

/* In words: a sentence, and of what the block is made. */
static void say_block(struct memplug_client *client, uint64_t number, const char *frames)
{
    static const char *const names[] = {"free", "movable", "unmovable", "huge", "kept", "poisoned"};
    char *why = control_get(client, "memplug/blocks/%llu/why", (unsigned long long)number);

    printf("block %llu: %s", (unsigned long long)number, why != NULL ? why : "?\n");
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint64_t nr = control_number(frames, names[i], 0);

        if (nr > 0)
            printf("    %llu frames %s\n", (unsigned long long)nr, names[i]);
    }
    free(why);
}

/* 1: it can go; 0: not; -1: it cannot be asked. */
static int ask(struct memplug_client *client, struct control_table *table,
               const struct control_block *block)
{
    unsigned long long number = block->number;
    char *reason = control_get(client, "memplug/blocks/%llu/reason", number);
    char *frames = reason != NULL ? control_get(client, "memplug/blocks/%llu/frames", number)
                                  : NULL;
    char error[16];
    int goes = -1;

    if (frames != NULL) {
        control_word(reason, "error", error, sizeof(error));
        goes = strcmp(error, "0") == 0;
        if (table != NULL)
            put_block(table, number, reason, frames, goes == 1);
        else
            say_block(client, number, frames);
    }
    free(reason);
    free(frames);
    return goes;
}

int control_why(const struct control_options *options, struct memplug_client *client)
{
    bool tabular = options->json || options->raw || options->output != NULL;
    struct control_table *table = NULL;
    struct control_blocks blocks;
    size_t nr_go = 0;
    int status;

    if (tabular) {
        table = control_table_new(options, "blocks", columns,
                                  sizeof(columns) / sizeof(columns[0]));
        if (table == NULL)
            return CONTROL_USAGE;
    }
    if (control_read_blocks(client, &blocks) != 0)
        return CONTROL_NONE;
    status = control_choose(&blocks, options->arguments[0], NULL, false, false);
    for (size_t i = 0; i < blocks.nr && status == 0; i++)
        if (blocks.list[i].chosen)
            nr_go += ask(client, table, &blocks.list[i]) == 1;
    if (status == 0) {
        if (table != NULL)
            control_table_end(table);
        status = nr_go == blocks.nr_chosen ? CONTROL_ALL
                 : nr_go > 0               ? CONTROL_PARTLY
                                           : CONTROL_NONE;
    }
    control_free_blocks(&blocks);
    return status;
}
