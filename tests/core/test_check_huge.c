/* SPDX-License-Identifier: MIT */
/* memplug_check() sees whatever is wrong with huge pages: one thing is broken at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/view/look.h"
#include "world.h"

#define A 2u
#define NR WORLD_RANGE_BLOCKS
#define PMD MEMPLUG_HUGE_PMD

struct broken {
    struct world world;
    struct memplug *pool;
    struct mpl_huge *huge;
    struct mpl_page *used, *pooled; /* in block A: the first of four, and the second */
};

static void open_broken(struct broken *w)
{
    world_open(&w->world, &(struct world_config){.shape = FAKE_SMALL, .seed = 1});
    assert_int_equal(world_add(&w->world, w->world.backing_a, A, MEMPLUG_MEMMAP_HOST, NULL, NULL),
                     0);
    w->pool = w->world.pool;
    w->huge = &w->pool->huge[PMD];
    assert_int_equal(memplug_online(w->pool, A, NR, MEMPLUG_ONLINE_MOVABLE, NULL, NULL), 0);
    assert_int_equal(memplug_huge_resize(w->pool, PMD, 6, MEMPLUG_ANY_NODE, NULL, NULL), 0);
    assert_int_equal(owner_alloc_huge(w->world.owner, PMD, 0, false, NULL), 0);
    assert_int_equal(memplug_huge_reserve(w->pool, PMD, 2), 0);
    w->used = mpl_page_at(w->pool, mpl_pfn(A * 256));
    w->pooled = mpl_page_at(w->pool, mpl_pfn(A * 256 + 64));
}

#define ROW(reason, damage)                                                                        \
    if (n-- == 0) {                                                                                \
        damage;                                                                                    \
        return reason;                                                                             \
    }

static const char *damage_pages(struct broken *w, unsigned n)
{
    const char *size = "a huge page has not its size or its alignment";
    const char *owned = "a free huge page has an owner";

    ROW("there is no such size of huge pages", w->used->huge = 3)
    ROW("a page of a pool is not huge", w->pooled->huge = 0)
    ROW("a page that is not huge is marked as if", w->used->huge = 0; w->used->huge_flags = 2)
    ROW(size, w->used->huge = MEMPLUG_HUGE_PUD + 1)
    ROW("a huge page is neither used nor free", w->pooled->state = MPL_PAGE_KEPT)
    ROW(owned, w->pooled->mover = 1)
    ROW(owned, w->pooled->cookie = 1)
    ROW(owned, w->pooled->state = MPL_PAGE_POOLED | 1u << 8)
    ROW("a huge page in a Movable zone has no mover", w->used->mover = 0)
    ROW("a huge page is still marked as a target", w->used->huge_flags = MPL_HUGE_FROM_POOL)
    return NULL;
}

static const char *damage_counters(struct broken *w, unsigned n)
{
    ROW("nr_pooled of the block is not what its pages say", w->pool->blocks[A].nr_pooled[PMD]--)
    ROW("nr_pooled of the block is not what its pages say",
        w->pool->blocks[A].nr_pooled[MEMPLUG_HUGE_PUD]++)
    ROW("the huge pages of a node are not counted right", w->huge->nodes[0].nr++)
    ROW("the huge pages of a node are not counted right", w->used->huge = 0)
    ROW("the free huge pages of a node are not counted right", w->huge->nodes[0].nr_free--)
    ROW("a node has more surplus than huge pages", w->huge->nodes[0].nr_surplus = 7)
    ROW("the huge pages are not the sum of the nodes'", w->huge->all.nr++)
    ROW("the huge pages are not the sum of the nodes'", w->huge->all.nr_free++)
    ROW("the huge pages are not the sum of the nodes'", w->huge->all.nr_surplus++)
    ROW("huge pages are withheld and nobody takes a block offline", w->huge->nr_withheld = 1)
    ROW("more huge pages are promised than are free", w->huge->nr_reserved = 6)
    return NULL;
}

static const char *damage_blocks(struct broken *w, unsigned n)
{
    ROW("a block has huge pages that cannot be", w->pool->blocks[A].withholds = true)
    return NULL;
}

static void run(const char *(*damage)(struct broken *broken, unsigned n))
{
    for (unsigned n = 0;; n++) {
        struct memplug_reason reason;
        struct broken broken;
        const char *why;
        int error;

        open_broken(&broken);
        world_check(&broken.world);
        why = damage(&broken, n);
        error = memplug_check(broken.pool, &reason);
        owner_bind(broken.world.owner, NULL, 0); /* the pool is past giving anything back */
        owner_close(broken.world.owner);
        (void)fake_close(broken.world.machine, NULL, 0);
        fault_close(broken.world.fault);
        if (!why)
            break;
        assert_int_equal(error, -MPL_EUCLEAN);
        assert_string_equal(reason.why, why);
    }
}

static void test_pages(void **state)
{
    (void)state;
    run(damage_pages);
}

static void test_counters(void **state)
{
    (void)state;
    run(damage_counters);
}

static void test_blocks(void **state)
{
    (void)state;
    run(damage_blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_blocks),
    };

    return cmocka_run_group_tests_name("check huge", tests, NULL, NULL);
}
