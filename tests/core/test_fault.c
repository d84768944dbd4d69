/* SPDX-License-Identifier: MIT */
/* The fault host by itself: what it counts, what it lets fail, and that nothing fails unasked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fake/fault.h"
#include "fake_setup.h"

/* A machine behind faults, two blocks of backing, the lock free. */
struct scene {
    struct fake_machine *machine;
    struct fault *fault;
    const struct memplug_host *host;
    struct memplug_extent extent;
};

static void scene_open(struct scene *scene)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);

    scene->machine = open_shape(&geometry);
    assert_int_equal(fault_open(fake_host(scene->machine), &scene->fault), 0);
    scene->host = fault_host(scene->fault);
    scene->extent = (struct memplug_extent){
        .address = 1 << 20,
        .size_bytes = 1 << 20,
        .memmap_bytes = 16384,
        .backing = fake_backing_open(scene->machine,
                                     &(struct fake_backing_spec){.size_bytes = 2 << 20}),
    };
}

static void scene_close(struct scene *scene)
{
    fault_close(scene->fault);
    close_clean(scene->machine);
}

/* One call of each kind that may fail, all undone; the first error is returned. */
static int play(struct scene *scene)
{
    const struct memplug_host_ops *ops = scene->host->ops;
    void *host = scene->host->context;
    void *memory = NULL;
    unsigned done = 0;
    int error = ops->lock(host, NULL);

    if (error)
        return error;
    error = ops->memory_get(host, 64, &memory);
    if (!error && ++done)
        error = ops->attach(host, &scene->extent);
    if (!error && ++done)
        error = ops->memmap_alias(host, 16384, scene->extent.address, 8192, 4096);
    if (!error && ++done)
        error = ops->memmap_provide(host, 0, 16384, 4096);
    if (!error)
        ops->memmap_unmap(host, 0, 16384, 4096);
    if (done > 2)
        ops->memmap_unmap(host, 16384, 8192, 4096);
    if (done > 1)
        ops->detach(host, &scene->extent);
    if (done > 0)
        ops->memory_put(host, memory, 64);
    ops->unlock(host);
    return error;
}

static void test_each_point(void **state)
{
    static const struct {
        const char *name;
        int natural;
    } points[] = {
        {"lock", -ETIMEDOUT}, {"memory_get", -ENOMEM},     {"attach", -ENODEV},
        {"memmap_alias", -ENOMEM}, {"memmap_provide", -ENOMEM},
    };
    struct scene scene;
    struct text before;
    unsigned k;

    (void)state;
    scene_open(&scene);
    before = dump(scene.machine);
    for (k = 1;; k++) {
        char name[32];
        int error;

        fault_arm(scene.fault, k, false, 0);
        error = play(&scene);
        check(scene.machine);
        assert_string_equal(dump(scene.machine).bytes, before.bytes);
        if (!fault_fired(scene.fault))
            break;
        assert_true(k <= 5);
        assert_int_equal(fault_fired(scene.fault), 1);
        assert_int_equal(fault_calls(scene.fault), k);
        assert_int_equal(error, points[k - 1].natural);
        fault_point_name(scene.fault, k, name, sizeof(name));
        assert_string_equal(name, points[k - 1].name);
        fault_point_name(scene.fault, k + 1, name, sizeof(name));
        assert_string_equal(name, "?");
    }
    assert_int_equal(k, 6);
    assert_int_equal(fault_calls(scene.fault), 5);
    scene_close(&scene);
}

static void test_forever_select_disarm(void **state)
{
    struct scene scene;
    unsigned i;

    (void)state;
    scene_open(&scene);
    fault_arm(scene.fault, 2, true, -EIO);
    assert_int_equal(play(&scene), -EIO);
    for (i = 0; i < 3; i++)
        assert_int_equal(play(&scene), -EIO); /* the lock already */
    assert_int_equal(fault_fired(scene.fault), 4);
    fault_disarm(scene.fault);
    assert_int_equal(play(&scene), 0);
    assert_int_equal(fault_calls(scene.fault), 5); /* lock, get, three more locks */

    fault_select(scene.fault, 1u << FAULT_ATTACH | 1u << FAULT_ALIAS);
    fault_arm(scene.fault, 2, false, -EPERM);
    assert_int_equal(play(&scene), -EPERM);
    assert_int_equal(fault_calls_of(scene.fault, FAULT_ATTACH), 1);
    assert_int_equal(fault_calls_of(scene.fault, FAULT_ALIAS), 1);
    assert_int_equal(fault_calls_of(scene.fault, FAULT_LOCK), 0);
    fault_select(scene.fault, 0);
    fault_arm(scene.fault, 0, true, 0);
    assert_int_equal(play(&scene), 0);
    assert_int_equal(fault_fired(scene.fault), 0);
    assert_int_equal(fault_calls(scene.fault), 5);
    scene_close(&scene);
}

/* The facts of the inner host, and its answers to what must not fail. */
static void test_same_host(void **state)
{
    const struct memplug_host *inner;
    struct scene scene;
    uint64_t before;

    (void)state;
    scene_open(&scene);
    inner = fake_host(scene.machine);
    assert_memory_equal(&scene.host->geometry, &inner->geometry, sizeof(inner->geometry));
    assert_ptr_equal(scene.host->direct_map, inner->direct_map);
    assert_ptr_equal(scene.host->memmap, inner->memmap);
    assert_int_equal(scene.host->nr_cpus, inner->nr_cpus);
    assert_int_equal(scene.host->ops->alignment(scene.host->context, scene.extent.backing), 4096);
    fake_set_cpu(2);
    assert_int_equal(scene.host->ops->cpu(scene.host->context), 2);
    fake_set_cpu(0);
    scene.host->ops->relax(scene.host->context, 0);
    before = scene.host->ops->now_ns(scene.host->context);
    fault_clock_skip(scene.fault, 1000);
    assert_int_equal(scene.host->ops->now_ns(scene.host->context), before + 1000);
    assert_int_equal(fault_calls(scene.fault), 0);
    scene_close(&scene);
}

/* --- movers and subscribers ------------------------------------------------------------------- */

struct listener {
    unsigned nr_calls, nr_moves;
    uint64_t cookies; /* a bit for each that was moved */
};

static void take_moves(void *context, struct memplug_move *moves, unsigned nr_moves)
{
    struct listener *listener = context;
    unsigned i;

    assert_true(nr_moves > 0);
    listener->nr_calls++;
    listener->nr_moves += nr_moves;
    for (i = 0; i < nr_moves; i++) {
        listener->cookies |= 1u << moves[i].cookie;
        moves[i].result = 0;
    }
}

static int answer(void *context, memplug_pfn_t pfn, uint64_t cookie, struct memplug_reason *reason)
{
    (void)context;
    (void)pfn;
    (void)reason;
    return -(int)cookie;
}

static void test_mover(void **state)
{
    struct listener listener;
    struct memplug_mover inner = {.name = "mine", .batch_max = 7, .move = take_moves,
                                  .context = &listener};
    struct memplug_move moves[5];
    const struct memplug_mover *outer;
    struct scene scene;
    char name[32];
    unsigned k, i, forever;

    (void)state;
    scene_open(&scene);
    assert_null(fault_mover(scene.fault, &inner)->ask);
    inner.ask = answer;
    outer = fault_mover(scene.fault, &(struct memplug_mover){.name = "other", .ask = answer,
                                                             .move = take_moves,
                                                             .context = &listener});
    assert_int_equal(outer->ask(outer->context, (memplug_pfn_t){1}, 16, NULL), -16);
    outer = fault_mover(scene.fault, &inner);
    assert_ptr_equal(outer, fault_mover(scene.fault, &inner));
    assert_string_equal(outer->name, "mine");
    assert_int_equal(outer->batch_max, 7);
    for (forever = 0; forever < 2; forever++) {
        for (k = 0; k <= 6; k++) {
            uint64_t expected = 31;

            for (i = 0; i < 5; i++)
                moves[i] = (struct memplug_move){.cookie = i, .result = 99};
            listener = (struct listener){0};
            fault_arm(scene.fault, k, forever, 0);
            outer->move(outer->context, moves, 5);
            for (i = 0; i < 5; i++) {
                bool failed = k && (i + 1 == k || (forever && i + 1 > k));

                assert_int_equal(moves[i].result, failed ? -EBUSY : 0);
                expected &= ~((uint64_t)failed << i);
            }
            assert_int_equal(listener.cookies, expected);
            assert_int_equal(fault_calls_of(scene.fault, FAULT_MOVE), 5);
        }
    }
    fault_point_name(scene.fault, 5, name, sizeof(name));
    assert_string_equal(name, "move mine");
    scene_close(&scene);
}

static int count_notice(void *context, const struct memplug_notice *notice)
{
    (void)notice;
    *(unsigned *)context += 1;
    return 0;
}

static void test_subscriber(void **state)
{
    unsigned nr = 0;
    const struct memplug_subscriber inner = {.name = "cache", .priority = 3,
                                             .notify = count_notice, .context = &nr};
    static const enum memplug_event events[] = {MEMPLUG_GOING_ONLINE, MEMPLUG_ONLINE,
                                                MEMPLUG_GOING_OFFLINE, MEMPLUG_OFFLINE,
                                                MEMPLUG_CANCEL_ONLINE, MEMPLUG_CANCEL_OFFLINE};
    const struct memplug_subscriber *outer;
    struct scene scene;
    unsigned i;

    (void)state;
    scene_open(&scene);
    outer = fault_subscriber(scene.fault, &inner);
    assert_ptr_equal(outer, fault_subscriber(scene.fault, &inner));
    assert_int_equal(outer->priority, 3);
    fault_arm(scene.fault, 2, false, 0);
    for (i = 0; i < 6; i++)
        assert_int_equal(outer->notify(outer->context,
                                       &(struct memplug_notice){.event = events[i]}),
                         i == 2 ? -EPERM : 0);
    assert_int_equal(nr, 5);
    assert_int_equal(fault_calls_of(scene.fault, FAULT_GOING), 2);
    scene_close(&scene);
}

static void test_report(void **state)
{
    struct text text = {.length = 0};
    struct scene scene;

    (void)state;
    scene_open(&scene);
    fault_arm(scene.fault, 3, false, 0);
    play(&scene);
    fault_report(scene.fault, "play", append, &text);
    assert_string_equal(text.bytes,
                        "play: 3 points, lock 1, attach 1, memory_get 1; 1 made to fail\n");
    scene_close(&scene);
}

/* --- limits ----------------------------------------------------------------------------------- */

/* As an operation does it: report, then look. */
static int look(const struct memplug_host *host, const struct memplug_limit *limit, uint64_t start)
{
    const struct memplug_progress progress = {.operation = "offline", .step = "migrate"};

    limit->progress(limit->context, &progress);
    if (limit->stop && *limit->stop)
        return -EINTR;
    return host->ops->now_ns(host->context) - start > limit->timeout_ns ? -ETIMEDOUT : 0;
}

static void test_limits(void **state)
{
    static const struct {
        enum fault_limit_kind kind;
        int error;
    } kinds[] = {{FAULT_LIMIT_COUNT, 0},
                 {FAULT_LIMIT_STOP, -EINTR},
                 {FAULT_LIMIT_DEADLINE, -ETIMEDOUT}};
    struct fault_limit limit;
    struct scene scene;
    unsigned i, check_nr;

    (void)state;
    scene_open(&scene);
    for (i = 0; i < 3; i++) {
        uint64_t start = scene.host->ops->now_ns(scene.host->context);

        fault_limit_init(&limit, kinds[i].kind, 3, scene.fault);
        limit.limit.timeout_ns = 1000000;
        for (check_nr = 1; check_nr <= 5; check_nr++)
            assert_int_equal(look(scene.host, &limit.limit, start),
                             check_nr >= 3 ? kinds[i].error : 0);
        assert_int_equal(limit.nr_checks, 5);
        assert_string_equal(limit.step, kinds[i].error ? "migrate" : "");
        assert_string_equal(limit.last.operation, "offline");
    }
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_point), cmocka_unit_test(test_forever_select_disarm),
        cmocka_unit_test(test_same_host),  cmocka_unit_test(test_mover),
        cmocka_unit_test(test_subscriber), cmocka_unit_test(test_report),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
