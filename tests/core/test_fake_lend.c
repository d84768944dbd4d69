/* SPDX-License-Identifier: MIT */
/* Pages of the fake machine's memmap window that show another page: the way there, the way back,
 * and every breach of the contract. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fake_setup.h"

#define PAGE 4096u

/* Two blocks attached, the lock held. The memmap is 8 pages: an alias, or provided. */
static struct setup open_setup(bool own)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct setup setup = setup_open(&geometry, 2);

    assert_int_equal(attach(&setup), 0);
    assert_int_equal(own ? alias(&setup) : provide(&setup), 0);
    assert_int_equal(setup.unit, PAGE);
    return setup;
}

static char *window(const struct setup *setup, uint64_t page)
{
    return setup->host->memmap + setup->memmap_offset + page * PAGE;
}

static void lend(struct setup *setup, uint64_t page, uint64_t nr)
{
    setup->host->ops->memmap_lend(setup->host->context, setup->memmap_offset + page * PAGE,
                                  nr * PAGE);
}

static void give_back(struct setup *setup, uint64_t page, uint64_t nr)
{
    setup->host->ops->memmap_return(setup->host->context, setup->memmap_offset + page * PAGE,
                                    nr * PAGE);
}

static int restore(struct setup *setup, uint64_t page, uint64_t nr)
{
    return setup->host->ops->memmap_restore(setup->host->context,
                                            setup->memmap_offset + page * PAGE, nr * PAGE);
}

/* A lent page shows the one before; its own frame is there, untouched, and comes back with what
 * was written to it meanwhile. */
static void test_an_alias(void **state)
{
    struct setup setup = open_setup(true);
    char *frames = setup.host->direct_map + setup.extent.address;

    (void)state;
    for (unsigned page = 0; page < 8; page++)
        memset(window(&setup, page), (int)page + 1, PAGE);
    lend(&setup, 3, 2);
    check(setup.machine);
    assert_int_equal(stat_of(&setup).nr_lent_pages, 2);
    assert_int_equal(stat_of(&setup).nr_lent_provided_pages, 0);
    assert_int_equal(window(&setup, 3)[7] + window(&setup, 4)[7], 3 + 3);
    assert_int_equal(frames[3 * PAGE], 4);
    memset(frames + 4 * PAGE, 99, PAGE);
    assert_int_equal(window(&setup, 4)[0], 3);
    window(&setup, 2)[0] = 77; /* the head's page is seen through them */
    assert_int_equal(window(&setup, 3)[0], 77);
    give_back(&setup, 3, 2);
    check(setup.machine);
    assert_int_equal(stat_of(&setup).nr_lent_pages, 0);
    assert_int_equal(window(&setup, 3)[0], 4);
    assert_int_equal(window(&setup, 4)[0], 99);
    unmap(&setup);
    detach(&setup);
    setup_close(&setup);
}

/* What was provided goes back to the machine, and comes back if it has it. */
static void test_a_provided_one(void **state)
{
    struct setup setup = open_setup(false);
    uint64_t nr_free = stat_of(&setup).nr_free_boot_pages;

    (void)state;
    memset(window(&setup, 0), 5, PAGE);
    lend(&setup, 1, 7);
    check(setup.machine);
    assert_int_equal(stat_of(&setup).nr_free_boot_pages, nr_free + 7);
    assert_int_equal(window(&setup, 7)[PAGE - 1], 5);
    fake_set_boot_budget(setup.machine, 6);
    assert_int_equal(restore(&setup, 1, 7), -ENOMEM);
    check(setup.machine);
    assert_int_equal(stat_of(&setup).nr_free_boot_pages, nr_free + 7);
    assert_int_equal(restore(&setup, 1, 6), 0); /* a part of it */
    fake_set_boot_budget(setup.machine, UINT64_MAX);
    check(setup.machine);
    assert_int_equal(stat_of(&setup).nr_lent_pages, 1);
    assert_int_equal(restore(&setup, 7, 1), 0);
    check(setup.machine);
    assert_int_equal(stat_of(&setup).nr_free_boot_pages, nr_free);
    assert_int_equal(window(&setup, 0)[0], 5);
    unmap(&setup);
    detach(&setup);
    setup_close(&setup);
}

/* --- breaches --------------------------------------------------------------------------------- */

static void lend_twice(struct setup *setup)
{
    lend(setup, 2, 2);
    lend(setup, 1, 2);
}

static void lend_behind_a_lent_one(struct setup *setup)
{
    lend(setup, 1, 1);
    lend(setup, 2, 1);
}

static void lend_beyond_the_end(struct setup *setup)
{
    lend(setup, 7, 2000);
}

static void lend_no_page(struct setup *setup)
{
    lend(setup, 1, 0);
}

static void lend_unlocked(struct setup *setup)
{
    setup->host->ops->unlock(setup->host->context);
    lend(setup, 1, 1);
}

static void return_what_is_not_lent(struct setup *setup)
{
    lend(setup, 1, 1);
    give_back(setup, 1, 2);
}

static void restore_an_alias(struct setup *setup)
{
    lend(setup, 1, 1);
    restore(setup, 1, 1);
}

static void unmap_what_is_lent(struct setup *setup)
{
    lend(setup, 1, 3);
    unmap(setup);
}

static const struct {
    void (*commit)(struct setup *setup);
    const char *text;
} breaches[] = {
    {lend_twice, "memmap_lend: 0x6000 is lent already"}, /* it begins at 0x4000 */
    {lend_behind_a_lent_one, "is lent itself"},
    {lend_beyond_the_end, "memmap_lend: nothing is mapped"},
    {lend_no_page, "is not whole pages"},
    {lend_unlocked, "memmap_lend: the caller does not hold the lock"},
    {return_what_is_not_lent, "memmap_return"},
    {restore_an_alias, "memmap_restore"},
    {unmap_what_is_lent, "memmap_unmap: 3 pages at 0x4000 are still lent"},
};

struct trap {
    jmp_buf back;
    char text[256];
};

static void spring(void *context, const char *text)
{
    struct trap *trap = context;

    snprintf(trap->text, sizeof(trap->text), "%s", text);
    longjmp(trap->back, 1);
}

static void test_breaches(void **state)
{
    static struct trap trap; /* not on the stack that longjmp leaves */
    volatile size_t i;

    (void)state;
    for (i = 0; i < sizeof(breaches) / sizeof(*breaches); i++) {
        struct setup setup = open_setup(true);
        struct fake_machine *volatile machine = setup.machine;

        fake_set_panic_hook(machine, spring, &trap);
        if (setjmp(trap.back) == 0) {
            breaches[i].commit(&setup);
            fail_msg("breach %u was let pass", (unsigned)i);
        }
        if (!strstr(trap.text, breaches[i].text))
            fail_msg("breach %u: \"%s\"", (unsigned)i, trap.text);
        fake_close(machine, NULL, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_alias),
        cmocka_unit_test(test_a_provided_one),
        cmocka_unit_test(test_breaches),
    };

    return cmocka_run_group_tests_name("fake lend", tests, NULL, NULL);
}
