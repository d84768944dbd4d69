/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../core/steps.h"

#include <cmocka.h>

#define NR_STATES 7

static const char *const legal = /* from and to: NONE USED MOVING TARGET DYING KEPT POOLED */
    ".U.T.K."
    "N.M...P"
    "NU..D.P"
    "NU..D.P"
    "N.....P"
    "N......"
    "NU.T...";

static struct mpl_page page_in(enum mpl_page_state state, uint32_t nr_pins)
{
    struct mpl_page page;

    memset(&page, 0xa5, sizeof(page));
    atomic_store(&page.state, (uint32_t)state | nr_pins << 8);
    return page;
}

static void transitions(void **context)
{
    (void)context;
    for (int from = -1; from <= NR_STATES; from++)
        for (int to = -1; to <= NR_STATES; to++) {
            bool in = from >= 0 && to >= 0 && from < NR_STATES && to < NR_STATES;
            bool may = in && legal[from * NR_STATES + to] != '.';

            assert_int_equal(mpl_page_may_become((enum mpl_page_state)from,
                                                 (enum mpl_page_state)to), may);
        }
}

/* Every actual state against every legal request, with and without pins. */
static void change(void **context)
{
    (void)context;
    for (int is = 0; is < NR_STATES; is++)
        for (int i = 0; i < NR_STATES * NR_STATES * 2; i++) {
            enum mpl_page_state from = (enum mpl_page_state)(i / 2 / NR_STATES);
            enum mpl_page_state to = (enum mpl_page_state)(i / 2 % NR_STATES);
            uint32_t nr_pins = i % 2 != 0 ? 3 : 0;
            struct mpl_page page = page_in((enum mpl_page_state)is, nr_pins);
            bool done;

            if (!mpl_page_may_become(from, to))
                continue;
            done = mpl_page_change(&page, from, to);
            assert_int_equal(done, (int)from == is && nr_pins == 0);
            assert_int_equal(mpl_page_state(&page), done ? (int)to : is);
            assert_int_equal(mpl_page_pins(&page), nr_pins);
        }
}

/* A transition that is not in the table stops the program, in every build. */
static void illegal_traps(void **context)
{
    (void)context;
    for (int i = 0; i < NR_STATES * NR_STATES; i++) {
        int status;
        pid_t child;

        if (legal[i] != '.')
            continue;
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct mpl_page page = page_in((enum mpl_page_state)(i / NR_STATES), 0);
            struct rlimit none = {0, 0};

            signal(SIGILL, SIG_DFL);
            signal(SIGTRAP, SIG_DFL);
            setrlimit(RLIMIT_CORE, &none);
            mpl_page_change(&page, (enum mpl_page_state)(i / NR_STATES),
                            (enum mpl_page_state)(i % NR_STATES));
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
    }
}

static void free_pin_unpin(void **context)
{
    (void)context;
    for (int is = 0; is < NR_STATES; is++)
        for (uint32_t nr_pins = 0; nr_pins < 3; nr_pins++) {
            bool holds = is == MPL_PAGE_USED || is == MPL_PAGE_KEPT, later;
            bool moves = is == MPL_PAGE_MOVING || is == MPL_PAGE_TARGET;
            struct mpl_page page = page_in((enum mpl_page_state)is, nr_pins);

            assert_int_equal(mpl_page_free(&page, &later), is == MPL_PAGE_USED && nr_pins == 0);
            assert_int_equal(later, moves && nr_pins == 0);
            page = page_in((enum mpl_page_state)is, nr_pins);
            assert_int_equal(mpl_page_pin(&page),
                             holds ? 0 : moves ? -MPL_EAGAIN : -MPL_EINVAL);
            assert_int_equal(mpl_page_pins(&page), nr_pins + holds);
            page = page_in((enum mpl_page_state)is, nr_pins);
            assert_int_equal(mpl_page_unpin(&page), holds && nr_pins != 0 ? 0 : -MPL_EINVAL);
            assert_int_equal(mpl_page_state(&page), is);
        }
}

static void describe_and_keep(void **context)
{
    struct mpl_page page;
    uint32_t nr_pins;

    (void)context;
    memset(&page, 0xa5, sizeof(page));
    mpl_page_describe(&page, MPL_PAGE_USED, 8, 3, 77, false);
    assert_int_equal(page.nr_pages, 8);
    assert_int_equal(page.mover, 3);
    assert_int_equal(atomic_load(&page.cookie), 77);
    assert_int_equal(mpl_page_pins(&page), 0);
    assert_false(mpl_page_unkeep(&page, &nr_pins));
    mpl_page_keep(&page, 8, 1);
    assert_int_equal(mpl_page_pins(&page), 1);
    mpl_page_keep(&page, 4, UINT32_MAX >> 8);
    assert_int_equal(mpl_page_pin(&page), -MPL_EAGAIN);
    assert_true(mpl_page_unkeep(&page, &nr_pins));
    assert_int_equal(nr_pins, UINT32_MAX >> 8);
    assert_int_equal(mpl_page_state(&page), MPL_PAGE_NONE);
}

/* --- races ------------------------------------------------------------------------------------ */

#define NR_ROUNDS 5000

struct race {
    struct mpl_page page;
    atomic_uint round, nr_ready;
    atomic_bool freed[2], later[2], moved;
    atomic_uint nr_pinned_moving;
};

static void meet(struct race *race, unsigned round)
{
    if (atomic_fetch_add(&race->nr_ready, 1) == 3) {
        atomic_store(&race->nr_ready, 0);
        atomic_store(&race->round, round);
    }
    while (atomic_load(&race->round) != round)
        sched_yield();
}

struct racer {
    struct race *race;
    unsigned role;
};

/* Roles 0 and 1 free, 2 pins, 3 moves: whatever the order, the page ends once. */
static void act(struct race *race, unsigned role)
{
    bool later;

    if (role < 2) {
        atomic_store(&race->freed[role], mpl_page_free(&race->page, &later));
        atomic_store(&race->later[role], later);
    } else if (role == 2) {
        if (mpl_page_pin(&race->page) != 0)
            return;
        if (mpl_page_state(&race->page) != MPL_PAGE_USED)
            atomic_fetch_add(&race->nr_pinned_moving, 1);
        assert_int_equal(mpl_page_unpin(&race->page), 0);
    } else {
        bool moved = mpl_page_change(&race->page, MPL_PAGE_USED, MPL_PAGE_MOVING);

        atomic_store(&race->moved, moved);
        if (moved && !mpl_page_change(&race->page, MPL_PAGE_MOVING, MPL_PAGE_NONE))
            assert_true(mpl_page_change(&race->page, MPL_PAGE_DYING, MPL_PAGE_NONE));
    }
}

static void judge(struct race *race)
{
    unsigned nr_freed = 0, nr_later = 0;

    for (unsigned i = 0; i < 2; i++) {
        nr_freed += atomic_load(&race->freed[i]);
        nr_later += atomic_load(&race->later[i]);
    }
    if (atomic_load(&race->moved)) {
        assert_int_equal(nr_freed, 0);
        assert_true(nr_later <= 1);
    } else {
        assert_true(nr_freed <= 1); /* none: both met the pin */
        assert_int_equal(nr_later, 0);
    }
    assert_int_equal(mpl_page_state(&race->page),
                     nr_freed || atomic_load(&race->moved) ? MPL_PAGE_NONE : MPL_PAGE_USED);
    assert_int_equal(atomic_load(&race->nr_pinned_moving), 0);
    assert_int_equal(mpl_page_pins(&race->page), 0);
}

static void *run(void *argument)
{
    struct racer *racer = argument;
    struct race *race = racer->race;

    for (unsigned round = 0; round < NR_ROUNDS; round++) {
        if (racer->role == 3)
            mpl_page_describe(&race->page, MPL_PAGE_USED, 1, 1, round, false);
        meet(race, round * 2 + 1);
        act(race, racer->role);
        meet(race, round * 2 + 2);
        if (racer->role == 3)
            judge(race);
    }
    return NULL;
}

static void races(void **context)
{
    static struct race race;
    struct racer racers[4];
    pthread_t threads[4];

    (void)context;
    for (unsigned i = 0; i < 4; i++) {
        racers[i] = (struct racer){&race, i};
        assert_int_equal(pthread_create(&threads[i], NULL, run, &racers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transitions),       cmocka_unit_test(change),
        cmocka_unit_test(illegal_traps),     cmocka_unit_test(free_pin_unpin),
        cmocka_unit_test(describe_and_keep), cmocka_unit_test(races),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
