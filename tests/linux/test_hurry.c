/* SPDX-License-Identifier: MIT */
/* A mover goes first while a fence is up, if it may; afterwards its thread is what it was. */
#define _GNU_SOURCE
#include "host_test.h"

#include "../../hosts/linux/hurry.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* struct sched_attr as it was first; some C libraries have it beside the kernel's. */
struct schedule {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

static struct schedule now(void)
{
    struct schedule schedule;

    assert_int_equal(syscall(SYS_sched_getattr, 0, &schedule, sizeof(schedule), 0), 0);
    return schedule;
}

static void set(struct schedule schedule)
{
    schedule.size = sizeof(schedule);
    assert_int_equal(syscall(SYS_sched_setattr, 0, &schedule, 0), 0);
}

/* Is this thread allowed to? Others have nothing to see here. */
static void be_privileged(void)
{
    struct schedule before = now();
    struct sched_param first = {.sched_priority = 1};

    if (sched_setscheduler(0, SCHED_FIFO, &first) != 0)
        skip();
    set(before);
}

static void assert_same(const struct schedule *before)
{
    struct schedule after = now();

    assert_memory_equal(&after, before, sizeof(after));
}

static void test_real_time_and_back(void **state)
{
    static const struct schedule kinds[] = {
        {.policy = SCHED_OTHER},
        {.policy = SCHED_OTHER, .nice = 7},
        {.policy = SCHED_OTHER, .nice = -20},
        {.policy = SCHED_BATCH, .nice = 3},
        {.policy = SCHED_IDLE},
        {.policy = SCHED_OTHER, .flags = 1 /* reset on fork */},
        {.policy = SCHED_OTHER, .runtime_ns = 9000000 /* a slice of its own, since Linux 6.12 */},
    };
    struct schedule first = now();

    (void)state;
    be_privileged();
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct schedule before;
        struct mpl_hurry hurry;

        set(kinds[i]);
        before = now();
        mpl_hurry(&hurry);
        assert_int_equal(now().policy, SCHED_FIFO);
        assert_int_equal(now().flags, kinds[i].flags);
        mpl_calm(&hurry);
        assert_same(&before);
        mpl_calm(&hurry); /* twice does no harm */
        assert_same(&before);
    }
    set(first);
}

/* A signal would end the program: what passed under fences adds up. */
static void test_a_limit_of_real_time_is_not_used_up(void **state)
{
    struct rlimit whole, limit;
    struct schedule before = now();
    struct mpl_hurry hurry;

    (void)state;
    be_privileged();
    assert_int_equal(getrlimit(RLIMIT_RTTIME, &whole), 0);
    limit = (struct rlimit){.rlim_cur = 200000, .rlim_max = whole.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_RTTIME, &limit), 0);
    mpl_hurry(&hurry);
    assert_int_equal(now().policy, before.policy);
    assert_int_equal(now().nice, -19);
    mpl_calm(&hurry);
    assert_same(&before);
    assert_int_equal(setrlimit(RLIMIT_RTTIME, &whole), 0);
}

static void test_a_policy_of_its_own_stays(void **state)
{
    static const struct schedule kinds[] = {
        {.policy = SCHED_RR, .priority = 2},
        {.policy = SCHED_FIFO, .priority = 3},
    };
    struct schedule first = now();

    (void)state;
    be_privileged();
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct schedule before;
        struct mpl_hurry hurry;

        set(kinds[i]);
        before = now();
        mpl_hurry(&hurry);
        assert_same(&before);
        mpl_calm(&hurry);
        assert_same(&before);
    }
    set(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_time_and_back),
        cmocka_unit_test(test_a_limit_of_real_time_is_not_used_up),
        cmocka_unit_test(test_a_policy_of_its_own_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
