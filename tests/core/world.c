/* SPDX-License-Identifier: MIT */
#include "world.h"

#include "buffer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NR_SLOTS 4096u
#define FILL_MAX 128u /* pages of a block; large blocks are as good with few */
#define NR_BLOCKS_MAX UINT64_C(4096) /* of a pool */

static int agree(void *context, const struct memplug_notice *notice)
{
    (void)context;
    (void)notice;
    return 0;
}

static struct fake_backing *open_backing(struct world *world, const struct world_config *config)
{
    struct fake_backing *backing = fake_backing_open(
        world->machine, &(struct fake_backing_spec){
                            .size_bytes = WORLD_RANGE_BLOCKS * world->block_bytes,
                            .content = config->content,
                            .byte = 0xa5,
                        });

    assert_non_null(backing);
    return backing;
}

static void open_pool(struct world *world, const struct world_config *config)
{
    struct memplug_config pool_config = {
        .host = fault_host(world->fault),
        .nr_nodes = config->nr_nodes,
        .hvo = config->hvo,
    };
    uint64_t size_bytes = memplug_metadata_bytes(&pool_config);
    void *metadata = fake_metadata(world->machine, size_bytes);

    assert_true(size_bytes != 0);
    assert_non_null(metadata);
    assert_int_equal(memplug_open(&pool_config, metadata, size_bytes, &world->pool, NULL), 0);
}

void world_open(struct world *world, const struct world_config *config)
{
    struct fake_config machine = {
        .geometry = fake_geometry(config->shape),
        .nr_cpus = config->nr_cpus != 0 ? config->nr_cpus : 2,
        .seed = config->seed,
        .clock_step_ns = 1000,
        .fill_bytes = 1, /* the memmaps */
    };
    int mover;

    memset(world, 0, sizeof(*world));
    if (config->page_struct_bytes != 0)
        machine.geometry.page_struct_bytes = config->page_struct_bytes;
    if (config->large_shift != 0)
        machine.geometry.large_shift = config->large_shift;
    if (config->pageblock_order != 0)
        machine.geometry.pageblock_order = config->pageblock_order;
    if (config->block_shift != 0) {
        uint64_t nr_blocks = machine.geometry.address_limit >> machine.geometry.block_shift;

        nr_blocks = config->nr_blocks != 0 ? config->nr_blocks : nr_blocks;
        machine.geometry.section_shift = machine.geometry.block_shift = config->block_shift;
        machine.geometry.address_limit = nr_blocks << config->block_shift;
    }
    if (machine.geometry.address_limit >> machine.geometry.block_shift > NR_BLOCKS_MAX)
        machine.geometry.address_limit = NR_BLOCKS_MAX << machine.geometry.block_shift;
    world->geometry = machine.geometry;
    world->lends = config->hvo != MEMPLUG_HVO_OFF;
    world->block_bytes = (uint64_t)1 << machine.geometry.block_shift;
    assert_int_equal(fake_open(&machine, &world->machine), 0);
    assert_int_equal(fault_open(fake_host(world->machine), &world->fault), 0);
    if (config->refuses_rows)
        fault_refuse_rows(world->fault);
    world->backing_a = open_backing(world, config);
    world->backing_b = open_backing(world, config);
    open_pool(world, config);
    assert_int_equal(owner_open(&(struct owner_config){.name = "owner",
                                                       .nr_slots = NR_SLOTS,
                                                       .page_bytes = (uint64_t)1
                                                                     << world->geometry.page_shift,
                                                       .seed = config->seed,
                                                       .batch_max = 5,
                                                       .sparse = true},
                                &world->owner),
                     0);
    mover = memplug_register_mover(world->pool,
                                   fault_mover(world->fault, owner_mover(world->owner)));
    assert_true(mover > 0);
    world->mover = (unsigned)mover;
    owner_bind(world->owner, world->pool, world->mover);
    world->subscriber = (struct memplug_subscriber){.name = "subscriber", .notify = agree};
    assert_int_equal(memplug_subscribe(world->pool,
                                       fault_subscriber(world->fault, &world->subscriber)),
                     0);
}

static void leave_block(struct world *world, uint64_t id)
{
    struct memplug_block_info info;

    if (memplug_block_info(world->pool, id, &info) != 0)
        return;
    if (info.state == MEMPLUG_BLOCK_ONLINE)
        assert_int_equal(memplug_offline(world->pool, id, 1, NULL, NULL), 0);
}

void world_close(struct world *world)
{
    char left[512];

    fault_disarm(world->fault);
    owner_close(world->owner);
    for (uint64_t id = 0; id < memplug_nr_blocks_max(world->pool); id++)
        leave_block(world, id);
    for (uint64_t id = 0; id < memplug_nr_blocks_max(world->pool); id++) {
        struct memplug_block_info info;

        if (memplug_block_info(world->pool, id, &info) == 0)
            assert_int_equal(memplug_remove(world->pool, info.address,
                                            info.unit_nr_blocks * info.size_bytes, NULL, NULL),
                             0);
    }
    assert_int_equal(memplug_close(world->pool, NULL), 0);
    fault_close(world->fault);
    fake_backing_close(world->backing_a);
    fake_backing_close(world->backing_b);
    if (fake_close(world->machine, left, sizeof(left)) != 0)
        fail_msg("left behind: %s", left);
}

int world_add(struct world *world, struct fake_backing *backing, uint64_t first,
              enum memplug_memmap memmap, const struct memplug_limit *limit,
              struct memplug_reason *reason)
{
    struct memplug_add add = {
        .address = first * world->block_bytes,
        .size_bytes = WORLD_RANGE_BLOCKS * world->block_bytes,
        .memmap = memmap,
        .backing = backing,
    };

    return memplug_add(world->pool, &add, limit, reason);
}

static void fill_block(struct world *world, uint64_t id, unsigned percent)
{
    static const uint32_t sizes[] = {1, 2, 1, 8, 1, 32};
    struct memplug_block_info info;
    uint64_t start, want, nr_used = 0;

    assert_int_equal(memplug_block_info(world->pool, id, &info), 0);
    start = info.address >> world->geometry.page_shift;
    want = info.nr_managed_pages * percent / 100;
    if (want > FILL_MAX)
        want = FILL_MAX;
    for (uint64_t at = start + info.nr_memmap_pages, i = 0; nr_used < want; i++) {
        uint32_t nr_pages = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];
        uint64_t aligned = (at + nr_pages - 1) / nr_pages * nr_pages;
        struct memplug_alloc request = {.nr_pages = nr_pages, .node = MEMPLUG_ANY_NODE};
        memplug_pfn_t pfn = {aligned};

        if (aligned + nr_pages > start + (info.size_bytes >> world->geometry.page_shift))
            return;
        if (owner_alloc_request(world->owner, &request, &pfn, NULL) == -ENOSPC)
            return;
        nr_used += nr_pages;
        at = aligned + nr_pages + i % 3;
    }
}

void world_fill(struct world *world, uint64_t first, uint64_t nr_blocks, unsigned percent)
{
    for (uint64_t id = first; id < first + nr_blocks; id++)
        fill_block(world, id, percent);
}

/* --- text ------------------------------------------------------------------------------------- */

/* Blank out what follows word, up to the next blank (or to the end of the line). */
static void cut(char *line, const char *word, bool to_end)
{
    char *at = strstr(line, word);

    if (at == NULL)
        return;
    at += strlen(word);
    if (to_end)
        *at = '\0';
    while (*at != '\0' && *at != ' ')
        *at++ = '*';
}

/* A huge page that has moved lends its memmap at its new place. False: nothing of it is left. */
static bool cut_lent(char *line)
{
    char *lent = strstr(line, " lent");

    if (lent != NULL)
        *lent = '\0';
    cut(line, " managed ", false);
    cut(line, " host_bytes ", false);
    return lent != line && strncmp(line, "boot pages", 10) != 0;
}

static void append_without_frames(struct buffer *to, char *text, bool lends)
{
    for (char *save, *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char copy[512];
        char *star = copy;

        if (line[0] == ' ' && line[1] >= '0' && line[1] <= '9')
            continue;
        snprintf(copy, sizeof(copy), "%s", line);
        if (strncmp(copy, "huge", 4) != 0) /* pools are as they were */
            cut(copy, " free ", false);
        cut(copy, " has_free", true);
        if (lends && !cut_lent(copy))
            continue;
        for (char *from = copy; *from != '\0'; from++)
            if (*from != '*' || from == copy || from[-1] != '*')
                *star++ = *from;
        buffer_append(to, copy, (size_t)(star - copy));
        buffer_append(to, "\n", 1);
    }
}

char *world_text(struct world *world, bool moved)
{
    struct buffer pool = {0}, host = {0}, all = {0};

    assert_int_equal(memplug_dump(world->pool, buffer_append, &pool), 0);
    fake_dump(world->machine, buffer_append, &host);
    if (moved)
        append_without_frames(&all, pool.text, world->lends);
    else
        buffer_append(&all, pool.text, pool.length);
    if (moved && world->lends)
        append_without_frames(&all, host.text, true);
    else
        buffer_append(&all, host.text, host.length);
    free(pool.text);
    free(host.text);
    owner_dump(world->owner, !moved, buffer_append, &all);
    return all.text;
}

void world_check(struct world *world)
{
    struct memplug_reason reason;
    char text[512];
    unsigned slot;

    if (memplug_check(world->pool, &reason) != 0) {
        memplug_reason_text(&reason, text, sizeof(text));
        fail_msg("%s", text);
    }
    if (fake_check(world->machine, text, sizeof(text)) != 0)
        fail_msg("%s", text);
    if (owner_verify_all(world->owner, &slot) != 0)
        fail_msg("the content of slot %u is lost", slot);
}

void world_same(struct world *world, char *before, bool moved)
{
    char *after = world_text(world, moved);

    if (strcmp(before, after) != 0) {
        (void)fprintf(stderr, "--- before\n%s--- after\n%s", before, after);
        fail_msg("the state is not what it was");
    }
    free(before);
    free(after);
    world_check(world);
}

void world_blames(const struct memplug_reason *reason, int error, const char *word)
{
    char text[512];

    memplug_reason_text(reason, text, sizeof(text));
    if (reason->error != -error || reason->operation == NULL || reason->step == NULL ||
        reason->why == NULL || strstr(text, word) == NULL)
        fail_msg("not error %d with \"%s\": %s", error, word, text);
}

unsigned world_setting(const char *name, unsigned otherwise)
{
    const char *value = getenv(name);

    return value != NULL ? (unsigned)strtoul(value, NULL, 10) : otherwise;
}
