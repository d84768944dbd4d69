/* SPDX-License-Identifier: MIT */
/*
 * The owner of pages: that it sees lost and stale content, and that its pages live on while they
 * are moved, freed and written by fibres and by threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "fake/owner.h"
#include "fake_setup.h"

#define NR_BLOCKS 4u
#define NR_SLOTS 300u

struct scene {
    struct fake_machine *machine;
    struct memplug *pool;
    struct owner *owner;
    uint64_t block;
};

static void scene_open(struct scene *scene, uint64_t seed, bool sparse)
{
    struct fake_config config = {.geometry = fake_geometry(FAKE_SMALL), .nr_cpus = 4,
                                 .seed = seed, .clock_step_ns = 100};
    struct memplug_config pool = {0};
    struct memplug_add add = {.memmap = MEMPLUG_MEMMAP_BLOCK};
    uint64_t size_bytes;

    assert_int_equal(fake_open(&config, &scene->machine), 0);
    scene->block = 1 << 20;
    pool.host = fake_host(scene->machine);
    size_bytes = memplug_metadata_bytes(&pool);
    assert_int_equal(memplug_open(&pool, fake_metadata(scene->machine, size_bytes), size_bytes,
                                  &scene->pool, NULL), 0);
    add.address = scene->block;
    add.size_bytes = NR_BLOCKS * scene->block;
    add.backing = fake_backing_open(scene->machine,
                                    &(struct fake_backing_spec){.size_bytes = add.size_bytes});
    assert_int_equal(memplug_add(scene->pool, &add, NULL, NULL), 0);
    assert_int_equal(memplug_online(scene->pool, 1, NR_BLOCKS, MEMPLUG_ONLINE_MOVABLE, NULL, NULL),
                     0);
    assert_int_equal(owner_open(&(struct owner_config){.nr_slots = NR_SLOTS, .page_bytes = 4096,
                                                       .seed = seed, .sparse = sparse},
                                &scene->owner), 0);
    assert_int_equal(owner_register(scene->owner, scene->pool), 0);
}

static void check_all(struct scene *scene)
{
    struct memplug_reason reason;
    unsigned slot;

    if (memplug_check(scene->pool, &reason))
        fail_msg("%s", reason.why);
    check(scene->machine);
    if (owner_verify_all(scene->owner, &slot))
        fail_msg("slot %u has lost its content", slot);
}

static void scene_close(struct scene *scene)
{
    unsigned block;

    check_all(scene);
    owner_close(scene->owner);
    for (block = 1; block <= NR_BLOCKS; block++) {
        struct memplug_block_info info;

        assert_int_equal(memplug_block_info(scene->pool, block, &info), 0);
        if (info.state == MEMPLUG_BLOCK_ONLINE)
            assert_int_equal(memplug_offline(scene->pool, block, 1, NULL, NULL), 0);
    }
    assert_int_equal(memplug_remove(scene->pool, scene->block, NR_BLOCKS * scene->block, NULL,
                                    NULL), 0);
    assert_int_equal(memplug_close(scene->pool, NULL), 0);
    close_clean(scene->machine);
}

/* --- content ---------------------------------------------------------------------------------- */

static void test_sees_damage(void **state)
{
    static const uint32_t sizes[] = {1, 2, 16, 64, 128};
    unsigned i, sparse, slot;

    (void)state;
    for (sparse = 0; sparse < 2; sparse++) {
        struct scene scene;

        scene_open(&scene, 7, sparse);
        for (i = 0; i < 5; i++) {
            memplug_pfn_t pfn;
            uint32_t nr_pages;
            char *bytes;

            assert_int_equal(owner_alloc(scene.owner, sizes[i], &slot), 0);
            assert_int_equal(owner_where(scene.owner, slot, &pfn, &nr_pages), 0);
            assert_int_equal(nr_pages, sizes[i]);
            bytes = memplug_page_address(scene.pool, pfn);
            assert_int_equal(owner_verify(scene.owner, slot), 0);
            bytes[nr_pages * 4096 - 1] ^= 1;
            assert_int_equal(owner_verify(scene.owner, slot), -EUCLEAN);
            bytes[nr_pages * 4096 - 1] ^= 1;
            bytes[0] ^= 1;
            assert_int_equal(owner_verify_all(scene.owner, &slot), -EUCLEAN);
            assert_int_equal(owner_write(scene.owner, slot), 0);
            assert_int_equal(owner_verify_all(scene.owner, NULL), 0);
        }
        assert_int_equal(owner_free(scene.owner, slot), 0);
        assert_int_equal(owner_free(scene.owner, slot), -ENOENT);
        assert_int_equal(owner_write(scene.owner, NR_SLOTS), -ENOENT);
        assert_int_equal(owner_verify(scene.owner, slot), -ENOENT);
        scene_close(&scene);
    }
}

/* An old version of a page, or another page's content, is no good content. */
static void test_sees_mix_up(void **state)
{
    struct scene scene;
    memplug_pfn_t a, b;
    char old[4096];

    (void)state;
    scene_open(&scene, 7, false);
    assert_int_equal(owner_alloc(scene.owner, 1, NULL), 0);
    assert_int_equal(owner_alloc(scene.owner, 1, NULL), 0);
    assert_int_equal(owner_where(scene.owner, 0, &a, NULL), 0);
    assert_int_equal(owner_where(scene.owner, 1, &b, NULL), 0);
    memcpy(old, memplug_page_address(scene.pool, a), 4096);
    memcpy(memplug_page_address(scene.pool, a), memplug_page_address(scene.pool, b), 4096);
    assert_int_equal(owner_verify(scene.owner, 0), -EUCLEAN);
    assert_int_equal(owner_write(scene.owner, 0), 0);
    assert_int_equal(owner_verify(scene.owner, 0), 0);
    memcpy(memplug_page_address(scene.pool, a), old, 4096);
    assert_int_equal(owner_verify(scene.owner, 0), -EUCLEAN);
    owner_write(scene.owner, 0);
    scene_close(&scene);
}

/* --- the mover -------------------------------------------------------------------------------- */

static void test_move(void **state)
{
    struct memplug_move moves[3];
    struct memplug_mover mover;
    struct owner_stat stat;
    struct scene scene;
    unsigned i, slot;

    (void)state;
    scene_open(&scene, 3, false);
    mover = *owner_mover(scene.owner);
    for (i = 0; i < 3; i++) {
        assert_int_equal(owner_alloc(scene.owner, 2, &slot), 0);
        assert_int_equal(slot, i);
        moves[i] = (struct memplug_move){.nr_pages = 2, .cookie = i, .result = 99};
        assert_int_equal(owner_where(scene.owner, i, &moves[i].from, NULL), 0);
        moves[i].to.nr = moves[i].from.nr + 128; /* free, and put back below */
    }
    assert_int_equal(owner_hold(scene.owner, 1, true), 0);
    assert_int_equal(mover.ask(mover.context, moves[1].from, 1, NULL), -EBUSY);
    assert_int_equal(mover.ask(mover.context, moves[0].from, 1, NULL), -ENOENT);
    moves[2].cookie = 17;
    mover.move(mover.context, moves, 3);
    assert_int_equal(moves[0].result, 0);
    assert_int_equal(moves[1].result, -EBUSY);
    assert_int_equal(moves[2].result, -ENOENT);
    memset(memplug_page_address(scene.pool, moves[0].from), 0, 8192);
    assert_int_equal(owner_verify_all(scene.owner, NULL), 0);
    owner_stat(scene.owner, &stat);
    assert_int_equal(stat.nr_moved, 1);
    assert_int_equal(stat.nr_refused, 1);
    assert_int_equal(stat.nr_gone, 1);
    assert_int_equal(stat.nr_used_pages, 6);
    moves[0] = (struct memplug_move){.from = moves[0].to, .to = moves[0].from, .nr_pages = 2};
    mover.move(mover.context, moves, 1);
    assert_int_equal(moves[0].result, 0);
    assert_int_equal(owner_hold(scene.owner, 1, false), 0);
    scene_close(&scene);
}

static void test_offline_moves(void **state)
{
    struct owner_stat stat;
    struct scene scene;
    unsigned i;

    (void)state;
    scene_open(&scene, 3, false);
    for (i = 0; i < 6; i++)
        assert_int_equal(owner_alloc(scene.owner, 1u << i, NULL), 0);
    assert_int_equal(memplug_offline(scene.pool, 1, 1, NULL, NULL), 0);
    owner_stat(scene.owner, &stat);
    assert_int_equal(stat.nr_moved, 6);
    check_all(&scene);
    scene_close(&scene);
}

/* A move that did not copy would be seen. */
static void test_sees_lost_move(void **state)
{
    struct memplug_move move = {.nr_pages = 1};
    struct memplug_mover mover;
    struct scene scene;

    (void)state;
    scene_open(&scene, 3, false);
    mover = *owner_mover(scene.owner);
    assert_int_equal(owner_alloc(scene.owner, 1, NULL), 0);
    assert_int_equal(owner_where(scene.owner, 0, &move.from, NULL), 0);
    move.to.nr = move.from.nr + 1;
    mover.move(mover.context, &move, 1);
    assert_int_equal(move.result, 0);
    assert_int_equal(owner_verify(scene.owner, 0), 0);
    memset(memplug_page_address(scene.pool, move.to), 0, 4096);
    assert_int_equal(owner_verify(scene.owner, 0), -EUCLEAN);
    move = (struct memplug_move){.from = move.to, .to = move.from, .nr_pages = 1};
    mover.move(mover.context, &move, 1);
    assert_int_equal(owner_write(scene.owner, 0), 0);
    scene_close(&scene);
}

/* --- many at once ----------------------------------------------------------------------------- */

struct actor {
    struct scene *scene;
    uint64_t random;
    unsigned nr_steps;
    int error;
};

static void act(void *context)
{
    struct actor *actor = context;
    unsigned i;

    for (i = 0; i < actor->nr_steps && !actor->error; i++) {
        int error = owner_step(actor->scene->owner, &actor->random, 4);

        if (error != -ENOMEM && error != -ENOSPC)
            actor->error = error;
    }
}

static void plug(void *context)
{
    struct actor *actor = context;
    unsigned i;

    for (i = 0; i < actor->nr_steps && !actor->error; i++) {
        unsigned block = 1 + (unsigned)(fake_random(&actor->random) % NR_BLOCKS);
        int error = memplug_offline(actor->scene->pool, block, 1, NULL, NULL);

        if (error == 0)
            actor->error = memplug_online(actor->scene->pool, block, 1, MEMPLUG_ONLINE_MOVABLE,
                                          NULL, NULL);
        else if (error != -ENOMEM && error != -EBUSY && error != -ETIMEDOUT)
            actor->error = error;
    }
}

static void *act_thread(void *context)
{
    act(context);
    return NULL;
}

static uint64_t run_fibres(uint64_t seed, uint64_t *nr_moved)
{
    struct fake_fibre fibres[4];
    struct actor actors[4];
    struct fake_sched_report report;
    struct owner_stat stat;
    struct scene scene;
    unsigned i;
    int error;

    scene_open(&scene, seed, true);
    for (i = 0; i < 4; i++) {
        actors[i] = (struct actor){&scene, seed * 4 + i, i ? 200 : 12, 0};
        fibres[i] = (struct fake_fibre){i ? "owner" : "plug", i ? act : plug, &actors[i], i};
    }
    error = fake_sched_run(scene.machine, seed, fibres, 4, &report);
    if (error)
        fail_msg("seed %u: %s", (unsigned)seed, strerror(-error));
    for (i = 0; i < 4; i++)
        if (actors[i].error)
            fail_msg("seed %u, %u: %s", (unsigned)seed, i, strerror(-actors[i].error));
    owner_stat(scene.owner, &stat);
    *nr_moved += stat.nr_moved;
    scene_close(&scene);
    return report.trace;
}

static void test_fibres(void **state)
{
    uint64_t seed, nr_moved = 0;

    (void)state;
    if (!fake_sched_supported()) {
        print_message("SKIP test_fibres: the thread sanitizer cannot follow fibres\n");
        skip();
    }
    for (seed = 0; seed < 30; seed++)
        assert_int_equal(run_fibres(seed, &nr_moved), run_fibres(seed, &nr_moved));
    assert_true(nr_moved > 100);
}

static void test_threads(void **state)
{
    struct actor actors[3];
    pthread_t threads[3];
    struct scene scene;
    unsigned i;

    (void)state;
    scene_open(&scene, 11, true);
    for (i = 0; i < 3; i++)
        actors[i] = (struct actor){&scene, 100 + i, i ? 3000 : 60, 0};
    for (i = 1; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, act_thread, &actors[i]), 0);
    plug(&actors[0]);
    for (i = 1; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (i = 0; i < 3; i++)
        assert_int_equal(actors[i].error, 0);
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sees_damage),    cmocka_unit_test(test_sees_mix_up),
        cmocka_unit_test(test_move),           cmocka_unit_test(test_offline_moves),
        cmocka_unit_test(test_sees_lost_move), cmocka_unit_test(test_fibres),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
