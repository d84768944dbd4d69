/* SPDX-License-Identifier: MIT */
/*
 * Tables of steps: a toy table writes down what is done and undone, and the record is compared
 * with the rule: row i is undone on the objects before j, last first, then the rows before i on
 * all objects, last first. Failure, deadline and stop strike at every row and every object.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "steps.h"
#include "toy_host.h"

#define NR_ROWS 4u
#define NR_OBJECTS 3u
#define FIRST 5u
#define NEVER 99u
#define TOY_ERROR (-MPL_ENOSPC)

struct event {
    bool undo;
    unsigned row;
    uint64_t object;
};

struct record {
    struct event events[64];
    unsigned nr_events;
};

/* What happened; take and undo get no context of their own. */
static struct {
    struct record record;
    unsigned fail_row;
    uint64_t fail_object;
    bool by_bits; /* the objects are named one by one */
    uint64_t only[1];
} toy_run;

static void put(struct record *record, bool undo, unsigned row, uint64_t object)
{
    assert_true(record->nr_events < 64);
    record->events[record->nr_events++] = (struct event){undo, row, object};
}

static int take(struct mpl_op *op, struct mpl_block *block, unsigned row)
{
    uint64_t object = mpl_block_id(op->pool, block);

    if (row == toy_run.fail_row && object == toy_run.fail_object)
        return mpl_fail(op, TOY_ERROR, "the toy failed", NULL);
    put(&toy_run.record, false, row, object);
    return 0;
}

static void undo(struct memplug *pool, struct mpl_block *block, unsigned row)
{
    put(&toy_run.record, true, row, mpl_block_id(pool, block));
}

#define ROW(n)                                                                                     \
    static int take_##n(struct mpl_op *op, struct mpl_block *block)                                \
    {                                                                                              \
        return take(op, block, n);                                                                 \
    }                                                                                              \
    static void undo_##n(struct memplug *pool, struct mpl_block *block)                            \
    {                                                                                              \
        undo(pool, block, n);                                                                      \
    }
ROW(0)
ROW(1)
ROW(2)
ROW(3)

static const struct mpl_step full_table[NR_ROWS] = {
    {"zero", take_0, undo_0, false, NULL},
    {"one", take_1, undo_1, false, NULL},
    {"two", take_2, undo_2, false, NULL},
    {"three", take_3, undo_3, false, NULL},
};

/* --- the rule --------------------------------------------------------------------------------- */

static uint64_t object_at(uint64_t stride, unsigned i)
{
    return FIRST + i * stride;
}

static void expect_rows_undone(struct record *record, const struct mpl_step *table,
                               unsigned nr_rows, uint64_t stride)
{
    for (unsigned row = nr_rows; row-- > 0;)
        for (unsigned i = NR_OBJECTS; table[row].undo != NULL && i-- > 0;)
            put(record, true, row, object_at(stride, i));
}

/* Row fail_row fails on object number fail_at, or the whole table runs. */
static struct record expect_run(const struct mpl_step *table, uint64_t stride, unsigned fail_row,
                                unsigned fail_at)
{
    struct record record = {.nr_events = 0};

    for (unsigned row = 0; row < NR_ROWS; row++)
        for (unsigned i = 0; i < NR_OBJECTS; i++) {
            if (row != fail_row || i != fail_at) {
                if (table[row].take != NULL)
                    put(&record, false, row, object_at(stride, i));
                continue;
            }
            while (table[row].undo != NULL && i-- > 0)
                put(&record, true, row, object_at(stride, i));
            expect_rows_undone(&record, table, row, stride);
            return record;
        }
    return record;
}

static void assert_records_equal(const struct record *expected)
{
    assert_int_equal(toy_run.record.nr_events, expected->nr_events);
    for (unsigned i = 0; i < expected->nr_events; i++) {
        assert_int_equal(toy_run.record.events[i].undo, expected->events[i].undo);
        assert_int_equal(toy_run.record.events[i].row, expected->events[i].row);
        assert_int_equal(toy_run.record.events[i].object, expected->events[i].object);
    }
}

/* Every stride-th block; or of all blocks those that a bit names, which are the same. */
static struct mpl_objects objects_of(uint64_t stride)
{
    struct mpl_objects objects = {FIRST, NR_OBJECTS * stride, stride, NULL};

    if (!toy_run.by_bits)
        return objects;
    toy_run.only[0] = UINT64_C(1) << (FIRST - 1) | UINT64_C(1) << (FIRST + NR_OBJECTS * stride);
    for (unsigned i = 0; i < NR_OBJECTS; i++)
        toy_run.only[0] |= UINT64_C(1) << object_at(stride, i);
    objects.stride = 1;
    objects.only = toy_run.only;
    return objects;
}

/* --- runs ------------------------------------------------------------------------------------- */

static int run(struct toy_op *toy_op, const struct mpl_step *table, uint64_t stride,
               unsigned fail_row, unsigned fail_at)
{
    struct mpl_objects objects = objects_of(stride);

    toy_run.record.nr_events = 0;
    toy_run.fail_row = fail_row;
    toy_run.fail_object = object_at(stride, fail_at);
    return mpl_steps_run(&toy_op->op, table, NR_ROWS, &objects);
}

/* A copy of the table in which some rows have nothing to do or to undo: a bit for each. */
static void thin_table(struct mpl_step table[NR_ROWS], unsigned no_take, unsigned no_undo)
{
    for (unsigned row = 0; row < NR_ROWS; row++) {
        table[row] = full_table[row];
        if ((no_take >> row & 1) != 0)
            table[row].take = NULL;
        if ((no_undo >> row & 1) != 0)
            table[row].undo = NULL;
    }
}

static void run_all_failures(struct toy_host *toy, const struct mpl_step *table, uint64_t stride)
{
    for (unsigned row = 0; row < NR_ROWS; row++)
        for (unsigned i = 0; table[row].take != NULL && i < NR_OBJECTS; i++) {
            struct record expected = expect_run(table, stride, row, i);
            struct toy_op toy_op;

            toy_op_begin(&toy_op, toy, "toy");
            assert_int_equal(run(&toy_op, table, stride, row, i), TOY_ERROR);
            assert_records_equal(&expected);
            assert_int_equal(toy_op.reason.error, TOY_ERROR);
            assert_string_equal(toy_op.reason.operation, "toy");
            assert_string_equal(toy_op.reason.step, table[row].name);
            assert_string_equal(toy_op.reason.why, "the toy failed");
        }
}

static void test_failure_at_every_row_and_object(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (uint64_t stride = 1; stride <= 4; stride++)
        for (unsigned no_take = 0; no_take < 1u << NR_ROWS; no_take++)
            for (unsigned no_undo = 0; no_undo < 1u << NR_ROWS; no_undo++) {
                struct mpl_step table[NR_ROWS];

                thin_table(table, no_take, no_undo);
                run_all_failures(&toy, table, stride);
            }
    toy_close(&toy);
}

static void test_success_does_each_row_on_all_objects_and_undoes_nothing(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (uint64_t stride = 1; stride <= 4; stride++) {
        struct record expected = expect_run(full_table, stride, NEVER, NEVER);
        struct toy_op toy_op;

        toy_op_begin(&toy_op, &toy, "toy");
        assert_int_equal(run(&toy_op, full_table, stride, NEVER, 0), 0);
        assert_records_equal(&expected);
        assert_int_equal(expected.nr_events, NR_ROWS * NR_OBJECTS);
        assert_int_equal(toy_op.reason.error, 0);
    }
    toy_close(&toy);
}

static void test_the_way_back_undoes_the_whole_table(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (uint64_t stride = 1; stride <= 4; stride++)
        for (unsigned nr_rows = 0; nr_rows <= NR_ROWS; nr_rows++) {
            struct mpl_objects objects = objects_of(stride);
            struct record expected = {.nr_events = 0};

            expect_rows_undone(&expected, full_table, nr_rows, stride);
            toy_run.record.nr_events = 0;
            mpl_steps_undo(toy.pool, full_table, nr_rows, &objects);
            assert_records_equal(&expected);
        }
    toy_close(&toy);
}

/* --- limits ----------------------------------------------------------------------------------- */

struct watcher {
    struct toy_host *toy;
    uint32_t stop;
    unsigned strike_at; /* the check in which it strikes, from 0 */
    bool by_clock;
    unsigned nr_checks;
    const struct mpl_step *table;
};

static void watch(void *context, const struct memplug_progress *progress)
{
    struct watcher *watcher = context;
    unsigned row = watcher->nr_checks / NR_OBJECTS;

    assert_string_equal(progress->operation, "toy");
    assert_string_equal(progress->step, watcher->table[row].name);
    assert_int_equal(progress->nr_done, 0);
    assert_int_equal(progress->nr_total, 0);
    /* It is told before the step, so what was done so far is all that came before it. */
    assert_int_equal(toy_run.record.nr_events, watcher->nr_checks);
    if (watcher->nr_checks++ != watcher->strike_at)
        return;
    if (watcher->by_clock)
        watcher->toy->now_ns += UINT64_C(1000000000);
    else
        watcher->stop = 1;
}

static int run_watched(struct toy_host *toy, struct watcher *watcher, struct toy_op *toy_op,
                       unsigned strike_at, bool by_clock)
{
    *watcher = (struct watcher){
        .toy = toy,
        .strike_at = strike_at,
        .by_clock = by_clock,
        .table = full_table,
    };
    toy_op_begin(toy_op, toy, "toy");
    toy_op->limit.progress = watch;
    toy_op->limit.context = watcher;
    toy_op->limit.stop = &watcher->stop;
    toy_op->op.timed = true;
    return run(toy_op, full_table, 1, NEVER, 0);
}

static void test_a_limit_strikes_at_every_check(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (unsigned k = 0; k < NR_ROWS * NR_OBJECTS; k++)
        for (unsigned by_clock = 0; by_clock < 2; by_clock++) {
            struct record expected =
                expect_run(full_table, 1, k / NR_OBJECTS, k % NR_OBJECTS);
            int error = by_clock != 0 ? -MPL_ETIMEDOUT : -MPL_EINTR;
            struct watcher watcher;
            struct toy_op toy_op;

            assert_int_equal(run_watched(&toy, &watcher, &toy_op, k, by_clock != 0), error);
            assert_records_equal(&expected);
            assert_int_equal(watcher.nr_checks, k + 1);
            assert_int_equal(toy_op.reason.error, error);
            assert_string_equal(toy_op.reason.step, full_table[k / NR_OBJECTS].name);
        }
    toy_close(&toy);
}

static void test_there_is_one_check_for_each_row_and_object(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct watcher watcher;
    struct toy_op toy_op;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    assert_int_equal(run_watched(&toy, &watcher, &toy_op, NEVER, false), 0);
    assert_int_equal(watcher.nr_checks, NR_ROWS * NR_OBJECTS);
    toy_close(&toy);
}

static void test_a_deadline_is_hit_when_the_time_is_reached(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_op toy_op;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    toy_op_begin(&toy_op, &toy, "toy");
    toy.now_ns = toy_op.op.deadline_ns - 1;
    assert_int_equal(mpl_op_check(&toy_op.op), 0);
    assert_int_equal(toy_op.reason.error, 0);
    toy.now_ns++;
    assert_int_equal(mpl_op_check(&toy_op.op), -MPL_ETIMEDOUT);
    toy_close(&toy);
}

/* Nobody's time is over before a step behind which nobody has waited, unless it was asked for. */
static void test_the_clock_is_looked_at_where_time_may_have_gone(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_op toy_op;
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    toy_op_begin(&toy_op, &toy, "toy");
    toy.now_ns = toy_op.op.deadline_ns;
    assert_int_equal(mpl_op_check_step(&toy_op.op), 0);
    toy_op.op.waited = true;
    assert_int_equal(mpl_op_check_step(&toy_op.op), -MPL_ETIMEDOUT);
    assert_false(toy_op.op.waited);
    assert_int_equal(mpl_op_check_step(&toy_op.op), 0);
    toy_op.op.timed = true;
    assert_int_equal(mpl_op_check_step(&toy_op.op), -MPL_ETIMEDOUT);
    assert_int_equal(mpl_op_check_step(&toy_op.op), -MPL_ETIMEDOUT);
    toy_close(&toy);
}

/* --- rows that commit ------------------------------------------------------------------------- */

struct commit_run {
    struct toy_op toy_op;
    struct mpl_step table[NR_ROWS];
    unsigned fail_row, fail_at;
};

static void run_commit(void *context)
{
    struct commit_run *commit = context;

    (void)run(&commit->toy_op, commit->table, 1, commit->fail_row, commit->fail_at);
}

static void commit_from(struct mpl_step table[NR_ROWS], unsigned first)
{
    thin_table(table, 0, 0);
    for (unsigned row = first; row < NR_ROWS; row++)
        table[row].commits = true;
}

/* Whatever strikes then comes too late; before, it rolls back as ever. */
static void test_no_limit_holds_once_rows_commit(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (unsigned first = 0; first < NR_ROWS; first++) {
        struct record expected;
        struct mpl_step table[NR_ROWS];
        struct toy_op toy_op;
        uint32_t stop = 1;

        commit_from(table, first);
        toy_op_begin(&toy_op, &toy, "toy");
        toy_op.limit.stop = &stop;
        expected = first == 0 ? expect_run(table, 1, NEVER, 0) : expect_run(table, 1, 0, 0);
        assert_int_equal(run(&toy_op, table, 1, NEVER, 0), first == 0 ? 0 : -MPL_EINTR);
        assert_records_equal(&expected);
    }
    toy_close(&toy);
}

static void test_failure_before_the_commit_rolls_back_and_in_it_traps(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (unsigned first = 1; first < NR_ROWS; first++)
        for (unsigned row = 0; row < NR_ROWS; row++) {
            struct commit_run commit = {.fail_row = row, .fail_at = 1};

            commit_from(commit.table, first);
            toy_op_begin(&commit.toy_op, &toy, "toy");
            assert_int_equal(toy_traps(run_commit, &commit), row >= first);
        }
    toy_close(&toy);
}

static void test_a_row_that_can_fail_behind_one_that_commits_traps(void **state)
{
    struct memplug_geometry g = toy_geometry();
    struct toy_host toy;

    (void)state;
    toy_open(&toy, &g, 1, NULL);
    for (unsigned row = 0; row < NR_ROWS; row++) {
        struct commit_run commit = {.fail_row = NEVER};

        thin_table(commit.table, 0, 0);
        commit.table[row].commits = true;
        toy_op_begin(&commit.toy_op, &toy, "toy");
        assert_int_equal(toy_traps(run_commit, &commit), row != NR_ROWS - 1);
    }
    toy_close(&toy);
}

static int by_bits(void **state)
{
    (void)state;
    toy_run.by_bits = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failure_at_every_row_and_object),
        cmocka_unit_test(test_success_does_each_row_on_all_objects_and_undoes_nothing),
        cmocka_unit_test(test_the_way_back_undoes_the_whole_table),
        cmocka_unit_test(test_a_limit_strikes_at_every_check),
        cmocka_unit_test(test_there_is_one_check_for_each_row_and_object),
        cmocka_unit_test(test_a_deadline_is_hit_when_the_time_is_reached),
        cmocka_unit_test(test_the_clock_is_looked_at_where_time_may_have_gone),
        cmocka_unit_test(test_no_limit_holds_once_rows_commit),
        cmocka_unit_test(test_failure_before_the_commit_rolls_back_and_in_it_traps),
        cmocka_unit_test(test_a_row_that_can_fail_behind_one_that_commits_traps),
    };

    int failed = cmocka_run_group_tests_name("steps", tests, NULL, NULL);

    return failed + cmocka_run_group_tests_name("steps of some blocks", tests, by_bits, NULL);
}
