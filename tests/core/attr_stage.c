/* SPDX-License-Identifier: MIT */
#include "attr_stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEXT_BYTES 16384u

void stage_open(struct attr_stage *stage, enum fake_shape shape, unsigned nr_nodes)
{
    struct memplug_config pool_config = {.nr_nodes = nr_nodes};

    memset(stage, 0, sizeof(*stage));
    world_open(&stage->world, &(struct world_config){
                                  .shape = shape,
                                  .nr_nodes = nr_nodes,
                                  .nr_cpus = 4,
                                  .seed = 1,
                              });
    pool_config.host = fault_host(stage->world.fault);
    assert_int_equal(memplug_attr_init(&stage->tree,
                                       &(struct memplug_attr_config){
                                           .pool = stage->world.pool,
                                           .pool_config = &pool_config,
                                       }),
                     0);
}

void stage_close(struct attr_stage *stage)
{
    assert_null(stage->tree.runs);
    assert_int_equal(memplug_attr_fini(&stage->tree), 0);
    world_close(&stage->world);
}

void stage_add(struct attr_stage *stage, struct fake_backing *backing, uint64_t offset_blocks,
               uint64_t first, uint64_t nr_blocks, int node)
{
    struct memplug_add add = {
        .address = first * stage->world.block_bytes,
        .size_bytes = nr_blocks * stage->world.block_bytes,
        .memmap = MEMPLUG_MEMMAP_BLOCK,
        .node = node,
        .backing = backing,
        .offset_bytes = offset_blocks * stage->world.block_bytes,
    };

    assert_int_equal(memplug_add(stage->world.pool, &add, NULL, NULL), 0);
}

void stage_remove(struct attr_stage *stage, uint64_t first, uint64_t nr_blocks)
{
    uint64_t block_bytes = stage->world.block_bytes;

    assert_int_equal(memplug_remove(stage->world.pool, first * block_bytes,
                                    nr_blocks * block_bytes, NULL, NULL),
                     0);
}

void stage_get(struct attr_stage *stage, const char *path, const char *expected)
{
    char text[TEXT_BYTES];
    int length;

    memset(text, 'x', sizeof(text));
    length = memplug_attr_get(&stage->tree, path, text, sizeof(text));
    if (length < 0)
        fail_msg("%s: %d, not \"%s\"", path, length, expected);
    assert_true((size_t)length < sizeof(text));
    assert_int_equal(text[length], '\0');
    if (strcmp(text, expected) != 0)
        fail_msg("%s: \"%s\", not \"%s\"", path, text, expected);
    assert_int_equal((size_t)length, strlen(expected));
}

/* From memory that ends where the text ends: a sanitizer sees who reads on. */
void stage_set_bytes(struct attr_stage *stage, const char *path, const char *text, size_t length,
                     int expected)
{
    struct memplug_reason reason;
    char *copy = malloc(length > 0 ? length : 1);
    int got;

    assert_non_null(copy);
    memcpy(copy, text, length);
    memset(&reason, 0xee, sizeof(reason));
    got = memplug_attr_set(&stage->tree, path, copy, length, NULL, &reason);
    free(copy);
    if (got != expected)
        fail_msg("%s <- \"%.*s\": %d, not %d", path, (int)length, text, got, expected);
    if (expected < 0)
        world_blames(&reason, -expected, "");
}

void stage_set(struct attr_stage *stage, const char *path, const char *text, int expected)
{
    stage_set_bytes(stage, path, text, strlen(text), expected);
}

int stage_opens(struct attr_stage *stage, const char *path, unsigned access)
{
    struct memplug_attr_handle handle;

    return memplug_attr_open(&stage->tree, path, access, &handle);
}

void stage_events(struct attr_stage *stage, const char *expected)
{
    char all[TEXT_BYTES], fresh[TEXT_BYTES] = "";

    assert_true(memplug_attr_get(&stage->tree, "memplug/events", all, sizeof(all)) >= 0);
    for (char *line = strtok(all, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *event;
        uint64_t number = strtoull(line, &event, 10);

        if (number < stage->nr_heard)
            continue;
        assert_int_equal(number, stage->nr_heard);
        stage->nr_heard++;
        if (fresh[0] != '\0')
            strcat(fresh, ", ");
        *strrchr(event, ' ') = '\0'; /* when */
        strcat(fresh, event + 1);
    }
    assert_string_equal(fresh, expected);
}

static void append_name(void *context, const struct memplug_attr_item *item)
{
    char *names = context;
    const char *mark = item->kind == MEMPLUG_ATTR_DIRECTORY ? "/"
                       : item->kind == MEMPLUG_ATTR_LINK    ? "@"
                                                            : "";

    assert_true(strlen(item->name) < MEMPLUG_ATTR_NAME_BYTES);
    assert_true(strlen(names) + strlen(item->name) + 3 < TEXT_BYTES);
    if (names[0] != '\0')
        strcat(names, " ");
    strcat(names, item->name);
    strcat(names, mark);
}

void stage_names(struct attr_stage *stage, const char *path, const char *expected)
{
    char names[TEXT_BYTES] = "";

    assert_int_equal(memplug_attr_list(&stage->tree, path, append_name, names), 0);
    assert_string_equal(names, expected);
}
