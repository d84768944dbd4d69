/* SPDX-License-Identifier: MIT */
/*
 * Random lives of a virtio-mem device beside a model of it that knows a byte a sub-block: what is
 * plugged in, what is logically offline, in which order it comes and goes. Owners in other
 * sub-blocks keep their content; nothing is left at the end.
 *
 * MEMPLUG_VIRTIO_SEEDS: how many; a seed that fails is printed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "virtio_world.h"

#define SUB_BLOCKS_MAX 64u

enum model_state { GONE, OFF, KERNEL, MOVABLE };

static struct {
    enum model_state state[NR_BLOCKS];
    bool plugged[NR_BLOCKS][SUB_BLOCKS_MAX];
    uint64_t threshold;
} model;

static uint64_t model_count(uint64_t block)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < device.sub_blocks; i++)
        count += model.plugged[block][i];
    return count;
}

static uint64_t model_total(void)
{
    uint64_t total = 0;

    for (uint64_t block = 0; block < NR_BLOCKS; block++)
        total += model_count(block);
    return total;
}

static uint64_t model_offline(void)
{
    uint64_t count = 0;

    for (uint64_t block = 0; block < NR_BLOCKS; block++)
        count += model.state[block] == OFF;
    return count;
}

/* One sub-block more: where? False: nowhere, or the threshold. */
static bool model_plug_one(void)
{
    static const enum model_state order[] = {KERNEL, MOVABLE, OFF};

    for (unsigned o = 0; o < 3; o++)
        for (uint64_t block = 0; block < NR_BLOCKS; block++)
            for (uint64_t i = 0; i < device.sub_blocks; i++)
                if (model.state[block] == order[o] && !model.plugged[block][i]) {
                    model.plugged[block][i] = true;
                    return true;
                }
    for (uint64_t block = 0; block < NR_BLOCKS; block++) {
        if (model.state[block] != GONE)
            continue;
        if (model_offline() + 1 > model.threshold)
            return false;
        model.state[block] = OFF;
        model.plugged[block][0] = true;
        return true;
    }
    return false;
}

/* Which blocks are partial counts at the start of each class, so take a block as far as it goes. */
static void model_unplug(uint64_t left)
{
    static const struct {
        enum model_state state;
        bool partial;
    } order[] = {{OFF, true}, {OFF, false}, {MOVABLE, true}, {KERNEL, true}, {MOVABLE, false},
                 {KERNEL, false}};

    for (unsigned o = 0; o < 6; o++)
        for (uint64_t block = NR_BLOCKS; block-- != 0 && left != 0;) {
            bool partial = model_count(block) != device.sub_blocks;

            if (model.state[block] != order[o].state || partial != order[o].partial)
                continue;
            for (uint64_t i = device.sub_blocks; i-- != 0 && left != 0;) {
                left -= model.plugged[block][i];
                model.plugged[block][i] = false;
            }
            if (model_count(block) == 0)
                model.state[block] = GONE;
        }
}

static void model_request(uint64_t wanted)
{
    while (model_total() < wanted && model_plug_one())
        continue;
    if (model_total() > wanted)
        model_unplug(model_total() - wanted);
}

static void compare(void)
{
    check_device();
    for (uint64_t block = 0; block < NR_BLOCKS; block++) {
        struct memplug_block_info info = {.state = MEMPLUG_BLOCK_ABSENT};
        enum model_state is = GONE;

        if (memplug_block_info(world.pool, device.first_block + block, &info) == 0)
            is = info.state == MEMPLUG_BLOCK_OFFLINE   ? OFF
                 : info.zone == MEMPLUG_ZONE_MOVABLE ? MOVABLE
                                                     : KERNEL;
        if (is != model.state[block])
            fail_msg("seed %llu: block %llu is %d, not %d", (unsigned long long)seed,
                     (unsigned long long)block, is, model.state[block]);
        for (uint64_t i = 0; i < device.sub_blocks; i++)
            if (model.plugged[block][i] != device.plugged[block * device.sub_blocks + i])
                fail_msg("seed %llu: sub-block %llu of block %llu", (unsigned long long)seed,
                         (unsigned long long)i, (unsigned long long)block);
    }
}

static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static void random_block(uint64_t *random)
{
    uint64_t block = next(random) % NR_BLOCKS;
    bool kernel = next(random) % 2 != 0;

    if (model.state[block] == OFF) {
        online(block, kernel ? MEMPLUG_ONLINE_KERNEL : MEMPLUG_ONLINE_MOVABLE);
        model.state[block] = kernel ? KERNEL : MOVABLE;
    } else if (model.state[block] != GONE) {
        must(memplug_offline(world.pool, device.first_block + block, 1, NULL, &reason));
        model.state[block] = OFF;
    }
}

static void random_owner(uint64_t *random)
{
    struct owner_stat stat;

    for (unsigned i = 0; i < 20; i++) {
        owner_stat(world.owner, &stat);
        if (stat.nr_used_pages > 300) /* so that there is room for all elsewhere */
            must(owner_free_all(world.owner));
        must(owner_step(world.owner, random, 2) == -EUCLEAN);
    }
}

static void test_random(void **state)
{
    unsigned nr_seeds = world_setting("MEMPLUG_VIRTIO_SEEDS", 30);

    (void)state;
    for (seed = 1; seed <= nr_seeds; seed++) {
        uint64_t random = seed * 0x9e3779b97f4a7c15u;

        memset(&model, 0, sizeof(model));
        model.threshold = 2 + seed % 7;
        open_device(FAKE_SMALL, model.threshold);
        for (unsigned step = 0; step < 60; step++) {
            uint64_t wanted = next(&random) % (NR_BLOCKS * device.sub_blocks + 1);

            switch (next(&random) % 4) {
            case 0:
                request(wanted);
                model_request(wanted);
                break;
            case 1:
                random_block(&random);
                break;
            case 2:
                must(virtio_mem_work(&driver, NULL, &reason));
                if (model_total() * unit() < device.requested_bytes &&
                    model_offline() + model.threshold / 2. <= model.threshold)
                    model_request(device.requested_bytes / unit());
                break;
            default:
                random_owner(&random);
            }
            compare();
        }
        close_device();
    }
    seed = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
