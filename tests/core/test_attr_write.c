/* SPDX-License-Identifier: MIT */
/* Writes that take a while: what they fail with, how they are watched and ended, many at once. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "attr_stage.h"

#define M "devices/system/memory/"
#define S M "memory2/state"

/* Block 2 is movable and half full, block 3 is movable and empty. */
static void open_filled(struct attr_stage *stage)
{
    stage_open(stage, FAKE_SMALL, 1);
    stage_add(stage, stage->world.backing_a, 0, 2, 1, 0);
    stage_add(stage, stage->world.backing_b, 0, 3, 1, 0);
    stage_set(stage, S, "online_movable", 14);
    world_fill(&stage->world, 2, 1, 50);
    stage_set(stage, M "memory3/state", "online_movable", 14);
    stage->nr_heard = stage->tree.nr_events;
}

static int set(struct attr_stage *stage, const char *path, const char *text,
               const struct memplug_limit *limit, struct memplug_reason *reason)
{
    return memplug_attr_set(&stage->tree, path, text, strlen(text), limit, reason);
}

/* --- errors pass through ---------------------------------------------------------------------- */

static void test_errors_of_operations_pass_through(void **state)
{
    struct memplug_limit hasty = {.timeout_ns = 1};
    struct attr_stage stage;
    struct memplug_reason reason;

    (void)state;
    open_filled(&stage);
    WORLD_REFUSES(&stage.world, &reason, ETIMEDOUT, "", set(&stage, S, "offline", &hasty, &reason),
                  true);
    fault_select(stage.world.fault, 1u << FAULT_GOING);
    fault_arm(stage.world.fault, 1, true, -EPERM);
    WORLD_REFUSES(&stage.world, &reason, EPERM, "refused",
                  set(&stage, S, "offline", NULL, &reason), true);
    fault_arm(stage.world.fault, 1, true, -ENOMEM);
    WORLD_REFUSES(&stage.world, &reason, ENOMEM, "refused",
                  set(&stage, M "memory2/online", "0", NULL, &reason), true);
    fault_disarm(stage.world.fault);
    stage_set(&stage, M "memory3/online", "0", 1);
    WORLD_REFUSES(&stage.world, &reason, ENOMEM, "", set(&stage, S, "offline", NULL, &reason),
                  true);
    stage_set(&stage, M "memory3/online", "1", 1);
    for (unsigned slot = 0; owner_hold(stage.world.owner, slot, true) == 0; slot++)
        ;
    WORLD_REFUSES(&stage.world, &reason, EBUSY, "owner", set(&stage, S, "offline", NULL, &reason),
                  true);
    stage_events(&stage, "offline memory3, online memory3");
    for (unsigned slot = 0; owner_hold(stage.world.owner, slot, false) == 0; slot++)
        ;
    stage_set(&stage, S, "offline", 7);
    stage_close(&stage);
}

static void test_a_refused_text_changes_nothing(void **state)
{
    struct attr_stage stage;
    struct memplug_reason reason;

    (void)state;
    open_filled(&stage);
    WORLD_REFUSES(&stage.world, &reason, EINVAL, "online_movable",
                  set(&stage, S, "Offline", NULL, &reason), false);
    assert_int_equal(reason.block, 2);
    WORLD_REFUSES(&stage.world, &reason, EINVAL, "boolean",
                  set(&stage, M "memory2/online", "2", NULL, &reason), false);
    WORLD_REFUSES(&stage.world, &reason, EINVAL, "address",
                  set(&stage, M "soft_offline_page", "garbage", NULL, &reason), false);
    WORLD_REFUSES(&stage.world, &reason, EACCES, "nobody",
                  set(&stage, M "block_size_bytes", "1", NULL, &reason), false);
    WORLD_REFUSES(&stage.world, &reason, ENOENT, "no such file",
                  set(&stage, M "probe", "1", NULL, &reason), false);
    /* Nobody has to ask why. */
    assert_int_equal(set(&stage, S, "Offline", NULL, NULL), -EINVAL);
    stage_close(&stage);
}

/* --- watched and ended ------------------------------------------------------------------------ */

/* A subscriber that looks at the tree, and writes to it, while an offline is going on. */
struct onlooker {
    struct attr_stage *stage;
    struct memplug_subscriber subscriber;
    struct memplug_attr_handle *cancel; /* or, if null, the file */
    bool cancels;
    char progress[256], state[64];
    int write, cancelled;
};

static int look(void *context, const struct memplug_notice *notice)
{
    struct onlooker *onlooker = context;
    struct memplug_attr *tree = &onlooker->stage->tree;

    if (notice->event != MEMPLUG_GOING_OFFLINE)
        return 0;
    memplug_attr_get(tree, "memplug/progress", onlooker->progress, sizeof(onlooker->progress));
    memplug_attr_get(tree, S, onlooker->state, sizeof(onlooker->state));
    onlooker->write = set(onlooker->stage, M "memory3/state", "offline", NULL, NULL);
    if (onlooker->cancel != NULL)
        memplug_attr_cancel(onlooker->cancel);
    else if (onlooker->cancels)
        onlooker->cancelled = set(onlooker->stage, "memplug/cancel", "1\n", NULL, NULL);
    return 0;
}

static void watch(struct onlooker *onlooker, struct attr_stage *stage)
{
    *onlooker = (struct onlooker){.stage = stage};
    onlooker->subscriber = (struct memplug_subscriber){
        .name = "onlooker",
        .notify = look,
        .context = onlooker,
    };
    assert_int_equal(memplug_subscribe(stage->world.pool, &onlooker->subscriber), 0);
}

static void test_a_write_is_seen_and_ended_by_files(void **state)
{
    struct attr_stage stage;
    struct onlooker onlooker;
    struct memplug_reason reason;
    struct memplug_attr_handle handle;

    (void)state;
    open_filled(&stage);
    watch(&onlooker, &stage);
    onlooker.cancels = true;
    assert_int_equal(memplug_attr_open(&stage.tree, S, MEMPLUG_ATTR_WRITE, &handle), 0);
    WORLD_REFUSES(&stage.world, &reason, EINTR, "",
                  memplug_attr_write(&handle, "offline", 7, NULL, &reason), true);
    assert_int_equal(onlooker.cancelled, 2);
    assert_int_equal(onlooker.write, -EDEADLK);
    assert_string_equal(onlooker.state, "going-offline\n");
    assert_int_equal(strncmp(onlooker.progress, "memory2/state offline ask 0 ", 28), 0);
    stage_get(&stage, S, "online\n");
    stage_events(&stage, "");
    /* That was for the write that was running: the handle is as good as before. */
    onlooker.cancels = false;
    assert_int_equal(memplug_attr_write(&handle, "offline", 7, NULL, &reason), 7);
    stage_get(&stage, "memplug/progress", "");
    assert_int_equal(memplug_unsubscribe(stage.world.pool, &onlooker.subscriber), 0);
    stage_close(&stage);
}

static void test_a_handle_is_cancelled_for_good(void **state)
{
    struct attr_stage stage;
    struct onlooker onlooker;
    struct memplug_reason reason;
    struct memplug_attr_handle handle;

    (void)state;
    open_filled(&stage);
    watch(&onlooker, &stage);
    assert_int_equal(memplug_attr_open(&stage.tree, S, MEMPLUG_ATTR_WRITE, &handle), 0);
    onlooker.cancel = &handle;
    for (unsigned i = 0; i < 2; i++)
        WORLD_REFUSES(&stage.world, &reason, EINTR, "",
                      memplug_attr_write(&handle, "offline", 7, NULL, &reason), true);
    onlooker.cancel = NULL;
    stage_set(&stage, S, "offline", 7);
    assert_int_equal(memplug_unsubscribe(stage.world.pool, &onlooker.subscriber), 0);
    stage_close(&stage);
}

struct counter {
    unsigned nr;
    char last[32];
};

static void count_progress(void *context, const struct memplug_progress *progress)
{
    struct counter *counter = context;

    counter->nr++;
    snprintf(counter->last, sizeof(counter->last), "%s", progress->operation);
}

/* A caller's limit is kept in full: its progress hears all, and its stop flag is the one. */
static void test_a_caller_s_limit_counts(void **state)
{
    uint32_t stop = 1;
    struct counter counter = {.nr = 0};
    struct memplug_limit limit = {.stop = &stop, .progress = count_progress, .context = &counter};
    struct attr_stage stage;
    struct onlooker onlooker;
    struct memplug_reason reason;

    (void)state;
    open_filled(&stage);
    WORLD_REFUSES(&stage.world, &reason, EINTR, "", set(&stage, S, "offline", &limit, &reason),
                  true);
    stop = 0;
    watch(&onlooker, &stage);
    onlooker.cancels = true;
    assert_int_equal(set(&stage, S, "offline", &limit, &reason), 7);
    assert_int_equal(onlooker.cancelled, -ESRCH);
    assert_true(counter.nr > 3);
    assert_string_equal(counter.last, "offline");
    assert_int_equal(memplug_unsubscribe(stage.world.pool, &onlooker.subscriber), 0);
    stage_close(&stage);
}

static void test_the_last_events_are_remembered(void **state)
{
    struct attr_stage stage;
    char text[MEMPLUG_ATTR_NR_EVENTS * 64];
    unsigned nr_lines = 0;

    (void)state;
    stage_open(&stage, FAKE_SMALL, 1);
    for (unsigned i = 0; i < 2 * MEMPLUG_ATTR_NR_EVENTS + 3; i++)
        stage_set(&stage, M "uevent", "change", 6);
    assert_true((size_t)memplug_attr_get(&stage.tree, "memplug/events", text, sizeof(text)) <
                sizeof(text));
    assert_int_equal(strncmp(text, "259 change memory ", 18), 0);
    assert_non_null(strstr(text, "\n260 change memory "));
    for (const char *c = text; *c != '\0'; c++)
        nr_lines += *c == '\n';
    assert_int_equal(nr_lines, MEMPLUG_ATTR_NR_EVENTS);
    assert_non_null(strstr(text, "\n514 change memory "));
    stage_close(&stage);
}

/* --- many at once ----------------------------------------------------------------------------- */

#define NR_WRITERS 4u
#define NR_ROUNDS 200u

struct writer {
    struct attr_stage *stage;
    pthread_barrier_t *barrier;
    unsigned number;
    unsigned nr_won;
    int results[NR_ROUNDS];
};

/* Everybody writes the same word at the same time; in between everybody reads. */
static void *run_writer(void *argument)
{
    struct writer *writer = argument;
    char text[4096];

    fake_set_cpu(writer->number);
    for (unsigned round = 0; round < NR_ROUNDS; round++) {
        const char *word = round % 2 == 0 ? "online_movable" : "offline";

        pthread_barrier_wait(writer->barrier);
        writer->results[round] = set(writer->stage, S, word, NULL, NULL);
        memplug_attr_get(&writer->stage->tree, S, text, sizeof(text));
        memplug_attr_get(&writer->stage->tree, "memplug/progress", text, sizeof(text));
        memplug_attr_get(&writer->stage->tree, "memplug/events", text, sizeof(text));
        pthread_barrier_wait(writer->barrier);
        memplug_attr_get(&writer->stage->tree, S, text, sizeof(text));
        if (strcmp(text, round % 2 == 0 ? "online\n" : "offline\n") != 0)
            writer->results[round] = -EUCLEAN;
    }
    return NULL;
}

/* All of them from beginning to end, on a stage that this opens. */
static void run_all(struct attr_stage *stage, struct writer writers[NR_WRITERS],
                    void *(*run)(void *))
{
    pthread_t threads[NR_WRITERS];
    pthread_barrier_t barrier;

    stage_open(stage, FAKE_SMALL, 1);
    stage_add(stage, stage->world.backing_a, 0, 2, 1, 0);
    stage->nr_heard = stage->tree.nr_events;
    must(pthread_barrier_init(&barrier, NULL, NR_WRITERS));
    for (unsigned i = 0; i < NR_WRITERS; i++) {
        writers[i] = (struct writer){.stage = stage, .barrier = &barrier, .number = i};
        must(pthread_create(&threads[i], NULL, run, &writers[i]));
    }
    for (unsigned i = 0; i < NR_WRITERS; i++)
        must(pthread_join(threads[i], NULL));
    pthread_barrier_destroy(&barrier);
}

/* Transcript 38: one wins, the others get -EINVAL, and the end is what the winner wrote. */
static void test_one_of_many_writers_wins(void **state)
{
    struct attr_stage stage;
    struct writer writers[NR_WRITERS];

    (void)state;
    run_all(&stage, writers, run_writer);
    for (unsigned round = 0; round < NR_ROUNDS; round++) {
        unsigned nr_won = 0;

        for (unsigned i = 0; i < NR_WRITERS; i++) {
            nr_won += writers[i].results[round] == (round % 2 == 0 ? 14 : 7);
            if (writers[i].results[round] < 0)
                assert_int_equal(writers[i].results[round], -EINVAL);
        }
        assert_int_equal(nr_won, 1);
    }
    assert_int_equal(stage.tree.nr_events - stage.nr_heard, NR_ROUNDS);
    world_check(&stage.world);
    stage_close(&stage);
}

/* The same through `online`, where everybody wins: the present value is a success. */
static void *run_online(void *argument)
{
    struct writer *writer = argument;

    fake_set_cpu(writer->number);
    for (unsigned round = 0; round < NR_ROUNDS; round++) {
        pthread_barrier_wait(writer->barrier);
        writer->results[round] = set(writer->stage, M "memory2/online",
                                     round % 2 == 0 ? "1" : "0", NULL, NULL);
    }
    return NULL;
}

static void test_all_of_many_agree_in_online(void **state)
{
    struct attr_stage stage;
    struct writer writers[NR_WRITERS];

    (void)state;
    run_all(&stage, writers, run_online);
    for (unsigned i = 0; i < NR_WRITERS; i++)
        for (unsigned round = 0; round < NR_ROUNDS; round++)
            assert_int_equal(writers[i].results[round], 1);
    assert_int_equal(stage.tree.nr_events - stage.nr_heard, NR_ROUNDS);
    stage_close(&stage);
}

/* The first waits in its notice until the second is on its way, and most likely stands at the
 * control lock. */
struct pair {
    struct attr_stage *stage;
    struct memplug_subscriber subscriber;
    pthread_t second;
    const char *text; /* the second's, into online */
    int result;
    char progress[256]; /* in the second's notice, when the first is done */
};

static void *come_second(void *argument)
{
    struct pair *pair = argument;

    pair->result = set(pair->stage, M "memory2/online", pair->text, NULL, NULL);
    return NULL;
}

/* Read the progress until there are two writes, or no more than one. */
static void await_writes(struct pair *pair, bool two)
{
    const char *second;

    do {
        memplug_attr_get(&pair->stage->tree, "memplug/progress", pair->progress,
                         sizeof(pair->progress));
        second = strchr(pair->progress, '\n');
    } while ((second != NULL && second[1] != '\0') != two);
}

static int meet(void *context, const struct memplug_notice *notice)
{
    struct pair *pair = context;

    if (notice->event == MEMPLUG_GOING_ONLINE) {
        assert_int_equal(pthread_create(&pair->second, NULL, come_second, pair), 0);
        await_writes(pair, true);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    } else if (notice->event == MEMPLUG_GOING_OFFLINE) {
        await_writes(pair, false);
    }
    return 0;
}

static void run_pair(struct pair *pair, struct attr_stage *stage, const char *text)
{
    *pair = (struct pair){.stage = stage, .text = text};
    pair->subscriber = (struct memplug_subscriber){
        .name = "pair",
        .notify = meet,
        .context = pair,
    };
    stage_open(stage, FAKE_SMALL, 1);
    stage_add(stage, stage->world.backing_a, 0, 2, 1, 0);
    assert_int_equal(memplug_subscribe(stage->world.pool, &pair->subscriber), 0);
    stage_set(stage, S, "online", 6);
    assert_int_equal(pthread_join(pair->second, NULL), 0);
    assert_int_equal(memplug_unsubscribe(stage->world.pool, &pair->subscriber), 0);
}

static void test_who_comes_second_finds_what_it_wanted(void **state)
{
    struct attr_stage stage;
    struct pair pair;

    (void)state;
    run_pair(&pair, &stage, "1\n");
    assert_int_equal(pair.result, 2);
    stage_events(&stage, "add memory2, online memory2");
    stage_close(&stage);
}

static void test_who_waits_is_seen_when_the_first_is_done(void **state)
{
    struct attr_stage stage;
    struct pair pair;

    (void)state;
    run_pair(&pair, &stage, "0");
    assert_int_equal(pair.result, 1);
    assert_int_equal(strncmp(pair.progress, "memory2/online offline ask ", 27), 0);
    stage_events(&stage, "add memory2, online memory2, offline memory2");
    stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_of_operations_pass_through),
        cmocka_unit_test(test_a_refused_text_changes_nothing),
        cmocka_unit_test(test_a_write_is_seen_and_ended_by_files),
        cmocka_unit_test(test_a_handle_is_cancelled_for_good),
        cmocka_unit_test(test_a_caller_s_limit_counts),
        cmocka_unit_test(test_the_last_events_are_remembered),
        cmocka_unit_test(test_one_of_many_writers_wins),
        cmocka_unit_test(test_all_of_many_agree_in_online),
        cmocka_unit_test(test_who_comes_second_finds_what_it_wanted),
        cmocka_unit_test(test_who_waits_is_seen_when_the_first_is_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
