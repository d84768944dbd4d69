/* SPDX-License-Identifier: MIT */
/* Movable mappings where the machine or the program makes it hard: nothing is lost, and it is said
 * why a block cannot go. */
#define _GNU_SOURCE
#include "space_test.h"

#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include "pin_helpers.h"

/* --- without rights ------------------------------------------------------------------------- */

static int become_nobody(void)
{
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0))
        return -1;
    return prctl(PR_SET_DUMPABLE, 1); /* else its own /proc files are root's */
}

static int nobody_works(void *argument)
{
    struct memplug_reason reason;
    struct machine machine;
    char *a;

    (void)argument;
    CHECK(become_nobody() == 0);
    CHECK(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL) == 0);
    if (memplug_space_movable(machine.space, &reason) == 0)
        return 77;
    CHECK(reason.error == -EBUSY && strncmp(reason.why, "no full userfaultfd", 19) == 0);
    CHECK(memplug_map(machine.space, 3 * MIB, NULL, (void **)&a, NULL) == 0);
    fill_words(a, 3 * MIB, 9);
    CHECK(memplug_why(machine.pool, machine.first, &reason) == -EBUSY);
    CHECK(strncmp(reason.why, "no full userfaultfd", 19) == 0 && reason.remedy);
    CHECK(machine_offline(&machine, 0, 2) == -EBUSY);
    CHECK(strncmp(machine.reason.why, "no full userfaultfd", 19) == 0);
    CHECK(strcmp(machine.reason.owner, "mapping") == 0);
    CHECK(words_hold(a, 3 * MIB, 9));
    CHECK(memplug_discard(machine.space, a, MIB) == 0);
    CHECK(all_zero(a, MIB));
    CHECK(memplug_unmap(machine.space, a, 3 * MIB) == 0);
    CHECK(machine_offline(&machine, 0, 2) == 0);
    CHECK(machine_close(&machine) == 0);
    return 0;
}

static void no_userfaultfd(void **state)
{
    int result = in_child(nobody_works, NULL);

    (void)state;
    if (result == 77)
        SKIP("everybody may have a full userfaultfd here");
    assert_int_equal(result, 0);
}

static int nobody_moves(void *argument)
{
    struct memplug_space_config config = {
        .uffd_device_fd = *(int *)argument,
        .node = MEMPLUG_ANY_NODE,
    };
    struct machine machine;
    char *a;

    CHECK(become_nobody() == 0);
    CHECK(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, &config) == 0);
    close(config.uffd_device_fd);
    CHECK(memplug_space_movable(machine.space, &machine.reason) == 0);
    CHECK(memplug_map(machine.space, 3 * MIB, NULL, (void **)&a, NULL) == 0);
    fill_words(a, 3 * MIB, 9);
    CHECK(machine_offline(&machine, 0, 0) == 0);
    CHECK(words_hold(a, 3 * MIB, 9));
    CHECK(stat_of(&machine).nr_moves == 2);
    CHECK(memplug_unmap(machine.space, a, 3 * MIB) == 0);
    CHECK(machine_close(&machine) == 0);
    return 0;
}

static void inherited_device(void **state)
{
    int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

    (void)state;
    if (fd < 0)
        SKIP("/dev/userfaultfd: %s", strerror(errno));
    assert_int_equal(in_child(nobody_moves, &fd), 0);
    close(fd);
}

/* --- at the limit of mappings ---------------------------------------------------------------- */

#define FILL_PAGES 140000u

/* Take mappings until the kernel has none left. */
static char *take_all_mappings(void)
{
    char *base = mmap(NULL, FILL_PAGES * PAGE, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    for (unsigned i = 1; base != MAP_FAILED && i < FILL_PAGES; i += 2)
        if (mprotect(base + i * PAGE, PAGE, PROT_READ) != 0)
            return base;
    return NULL;
}

static int at_the_limit(void *argument)
{
    struct machine machine;
    char *a, *pieces, *taken;

    (void)argument;
    signal(SIGSEGV, SIG_DFL); /* cmocka's handler is for its own process */
    CHECK(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL) == 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        return 77;
    CHECK(memplug_map(machine.space, 8 * UNIT, NULL, (void **)&a, NULL) == 0);
    CHECK(memplug_map(machine.space, UNIT, NULL, (void **)&pieces, NULL) == 0);
    fill_words(a, 9 * UNIT, 4);
    for (unsigned i = 0; i < 8; i += 2)
        CHECK(memplug_protect(machine.space, pieces + i * 16 * PAGE, 16 * PAGE, PROT_READ) == 0);
    taken = take_all_mappings();
    if (!taken)
        return 77;
    /* A move fails, and nothing is lost. */
    CHECK(machine_offline(&machine, 0, 2) == -ENOMEM || machine.reason.error == -EBUSY);
    CHECK(stat_of(&machine).nr_refused_vmas > 0);
    CHECK(words_hold(a, 9 * UNIT, 4));
    for (unsigned i = 0; i < 8; i++)
        a[i * UNIT] ^= 1; /* no fence is left over them */
    pieces[16 * PAGE] ^= 1;
    CHECK(munmap(taken, FILL_PAGES * PAGE) == 0);
    CHECK(machine_offline(&machine, 0, 2) == 0);
    for (unsigned i = 0; i < 8; i++)
        a[i * UNIT] ^= 1;
    pieces[16 * PAGE] ^= 1;
    CHECK(words_hold(a, 9 * UNIT, 4));
    return 0;
}

static int unmap_at_the_limit(void *argument)
{
    struct machine machine;
    char *a, *taken;

    (void)argument;
    signal(SIGSEGV, SIG_DFL); /* cmocka's handler is for its own process */
    CHECK(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL) == 0);
    CHECK(memplug_map(machine.space, 8 * UNIT, NULL, (void **)&a, NULL) == 0);
    fill_words(a, 8 * UNIT, 4);
    taken = take_all_mappings();
    if (!taken)
        return 77;
    CHECK(mprotect(a + 64 * PAGE, PAGE, PROT_READ) != 0 && errno == ENOMEM);
    /* The middle of a mapping goes all the same, and so does its memory. */
    for (unsigned i = 1; i < 8; i += 2)
        CHECK(memplug_unmap(machine.space, a + i * UNIT + 64 * PAGE, 8 * PAGE) == 0);
    CHECK(memplug_unmap(machine.space, a + 2 * UNIT, UNIT) == 0);
    CHECK(words_hold(a, UNIT + 64 * PAGE, 4));
    CHECK(stat_of(&machine).nr_units == 7);
    CHECK(munmap(taken, FILL_PAGES * PAGE) == 0);
    CHECK(memplug_check(machine.pool, NULL) == 0);
    return 0;
}

/* Targets that lie apart cost a mapping each: some units of a group get theirs, others do not. */
static int limit_within_a_group(void *argument)
{
    struct memplug_space_config config = {.unit_bytes = 4096, .node = MEMPLUG_ANY_NODE};
    struct machine machine;
    char *a, *apart, *taken;

    (void)argument;
    signal(SIGSEGV, SIG_DFL);
    CHECK(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, &config) == 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        return 77;
    CHECK(memplug_map(machine.space, 1024 * PAGE, NULL, (void **)&apart, NULL) == 0);
    CHECK(machine_offline(&machine, 0, 0) == 0);
    CHECK(machine_online(&machine, 0) == 0);
    for (unsigned i = 0; i < 1024; i += 2)
        CHECK(memplug_unmap(machine.space, apart + i * PAGE, PAGE) == 0);
    CHECK(memplug_map(machine.space, 512 * PAGE, NULL, (void **)&a, NULL) == 0);
    fill_words(a, 512 * PAGE, 4);
    taken = take_all_mappings();
    if (!taken)
        return 77;
    CHECK(mprotect(taken, 200 * PAGE, PROT_NONE) == 0); /* some 200 are free again */
    uint64_t before = stat_of(&machine).nr_moves;
    CHECK(machine_offline(&machine, 0, 2) == -ENOMEM || machine.reason.error == -EBUSY);
    uint64_t moved = stat_of(&machine).nr_moves - before;
    dprintf(1, "%lu of 512 moved\n", (unsigned long)moved);
    CHECK(moved > 0 && moved < 512);
    CHECK(words_hold(a, 512 * PAGE, 4));
    fill_words(a, 512 * PAGE, 5); /* no fence is left */
    CHECK(munmap(taken, FILL_PAGES * PAGE) == 0);
    CHECK(machine_offline(&machine, 0, 2) == 0);
    CHECK(words_hold(a, 512 * PAGE, 5));
    CHECK(memplug_check(machine.pool, NULL) == 0);
    return 0;
}

static void mapping_limit_group(void **state)
{
    int result = in_child(limit_within_a_group, NULL);

    (void)state;
    if (result == 77)
        SKIP("no userfaultfd, or the limit of mappings is too high to be reached");
    assert_int_equal(result, 0);
}

static void mapping_limit(void **state)
{
    int result = in_child(at_the_limit, NULL);

    (void)state;
    if (result == 77)
        SKIP("no userfaultfd, or the limit of mappings is too high to be reached");
    assert_int_equal(result, 0);
}

static void mapping_limit_unmap(void **state)
{
    int result = in_child(unmap_at_the_limit, NULL);

    (void)state;
    if (result == 77)
        SKIP("the limit of mappings is too high to be reached");
    assert_int_equal(result, 0);
}

/* --- what a move is refused for -------------------------------------------------------------- */

static void pinned_stays(void **state)
{
    struct machine machine;
    struct ring_pin pin;
    char *a;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    assert_int_equal(memplug_map(machine.space, 2 * UNIT, NULL, (void **)&a, NULL), 0);
    fill_words(a, 2 * UNIT, 6);
    if (ring_pin_take(&pin, a + UNIT + 5 * PAGE, PAGE) != 0)
        SKIP("no io_uring here");
    assert_int_equal(machine_offline(&machine, 0, 2), -EBUSY);
    assert_non_null(strstr(machine.reason.why, "held for I/O"));
    assert_int_equal(stat_of(&machine).nr_moves, 1); /* the other one went */
    assert_true(stat_of(&machine).nr_refused_pins >= 2);
    assert_true(words_hold(a, 2 * UNIT, 6));
    ring_pin_drop(&pin);
    for (unsigned i = 0; i < 20 && machine_offline(&machine, 0, 2) != 0; i++)
        usleep(50000);
    assert_int_equal(machine.reason.error, 0);
    assert_true(words_hold(a, 2 * UNIT, 6));
    assert_int_equal(memplug_unmap(machine.space, a, 2 * UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

static void plain_file_stays(void **state)
{
    int fd = file_in("/var/tmp", 2 * BLOCK);
    struct machine machine;
    char *a;

    (void)state;
    if (fd < 0 || machine_open(&machine, MEMPLUG_BACKING_FILE, 2, fd, NULL) != 0)
        SKIP("no file in /var/tmp");
    assert_int_equal(memplug_map(machine.space, UNIT, NULL, (void **)&a, NULL), 0);
    assert_true(all_zero(a, UNIT));
    fill_words(a, UNIT, 1);
    assert_int_equal(machine_offline(&machine, 0, 2), -EBUSY);
    assert_non_null(machine.reason.why);
    assert_int_equal(memplug_discard(machine.space, a, UNIT), 0);
    assert_true(all_zero(a, UNIT));
    assert_int_equal(memplug_unmap(machine.space, a, UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
    close(fd);
}

static void tmpfs_file_moves(void **state)
{
    int fd = file_in("/dev/shm", 2 * BLOCK);
    struct machine machine;
    char *a;

    (void)state;
    if (fd < 0 || machine_open(&machine, MEMPLUG_BACKING_FILE, 2, fd, NULL) != 0)
        SKIP("no file in /dev/shm");
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    assert_int_equal(memplug_map(machine.space, 2 * UNIT, NULL, (void **)&a, NULL), 0);
    fill_words(a, UNIT + 99 * PAGE, 1);
    assert_int_equal(machine_offline(&machine, 0, 0), 0);
    assert_true(words_hold(a, UNIT + 99 * PAGE, 1));
    assert_true(all_zero(a + UNIT + 99 * PAGE, 413 * PAGE));
    assert_int_equal(memplug_unmap(machine.space, a, 2 * UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
    close(fd);
}

static void *offline_from_here(void *argument)
{
    struct machine *machine = argument;

    return (void *)(intptr_t)machine_offline(machine, 0, 2);
}

static void stack_in_movable_memory(void **state)
{
    struct machine machine;
    pthread_attr_t attr;
    pthread_t thread;
    void *result;
    char *a;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    assert_int_equal(memplug_map(machine.space, UNIT, NULL, (void **)&a, NULL), 0);
    pthread_attr_init(&attr);
    assert_int_equal(pthread_attr_setstack(&attr, a, UNIT), 0);
    assert_int_equal(pthread_create(&thread, &attr, offline_from_here, &machine), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_int_equal((intptr_t)result, -EBUSY);
    assert_non_null(strstr(machine.reason.why, "stack"));
    assert_int_equal(memplug_unmap(machine.space, a, UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

static void descriptor_closed(void **state)
{
    struct machine machine;
    char *a, *b;
    int fd;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    assert_int_equal(memplug_map(machine.space, 2 * UNIT, NULL, (void **)&a, NULL), 0);
    fill_words(a, 2 * UNIT, 1);
    fd = machine.host->backings[0].fd;
    assert_int_equal(dup2(STDERR_FILENO, fd), fd);
    assert_int_equal(memplug_map(machine.space, UNIT, NULL, (void **)&b, &machine.reason),
                     -ENODEV);
    assert_non_null(strstr(machine.reason.why, "closed a descriptor"));
    assert_int_equal(machine_offline(&machine, 0, 2), -EBUSY);
    assert_true(words_hold(a, 2 * UNIT, 1));
    assert_int_equal(memplug_discard(machine.space, a, UNIT), 0);
    assert_true(all_zero(a, UNIT));
    assert_int_equal(memplug_unmap(machine.space, a, 2 * UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

/* --- huge pages ------------------------------------------------------------------------------ */

static void check_huge(struct machine *machine)
{
    char *a, *b;

    assert_int_equal(memplug_map(machine->space, 3 * UNIT, NULL, (void **)&a, NULL), 0);
    fill_words(a, 3 * UNIT, 3);
    assert_int_equal(memplug_map(machine->space, 8 * PAGE, NULL, (void **)&b, NULL), 0);
    assert_int_equal(memplug_protect(machine->space, a, PAGE, PROT_READ), -EINVAL);
    assert_int_equal(memplug_protect(machine->space, a, UNIT, PROT_READ), 0);
    fill_words(b, 8 * PAGE, 8);
    if (machine_offline(machine, 0, 2) != 0)
        machine_say(machine, "offline", machine->reason.error);
    assert_int_equal(machine->reason.error, 0);
    assert_int_equal(stat_of(machine).nr_moves, 4);
    assert_true(words_hold(a, 3 * UNIT, 3));
    assert_true(words_hold(b, 8 * PAGE, 8));
    assert_int_equal(memplug_discard(machine->space, a + UNIT, 16 * PAGE), 0);
    assert_true(all_zero(a + UNIT, 16 * PAGE));
    assert_int_equal(memplug_unmap(machine->space, b, 8 * PAGE), 0);
    /* Back: the block that was sealed has been renewed. */
    assert_int_equal(machine_online(machine, 0), 0);
    assert_int_equal(machine_offline(machine, 1, 2), 0);
    assert_true(words_hold(a, UNIT, 3));
    assert_int_equal(memplug_unmap(machine->space, a, 3 * UNIT), 0);
}

static void huge_with(enum memplug_pins pins)
{
    struct memplug_space_config config = {.pins = pins, .node = MEMPLUG_ANY_NODE};
    const char *why = hugepages_borrow(300);
    struct machine machine;

    if (!why && machine_open(&machine, MEMPLUG_BACKING_HUGETLB, 2, -1, &config) != 0)
        why = "no two blocks of huge pages";
    if (!why && memplug_space_movable(machine.space, &machine.reason) != 0)
        why = machine.reason.why;
    if (why) {
        hugepages_return();
        SKIP("%s", why);
    }
    check_huge(&machine);
    assert_int_equal(machine_close(&machine), 0);
    hugepages_return();
}

static void huge_sealed(void **state)
{
    (void)state;
    huge_with(MEMPLUG_PINS_PROVED);
}

static void huge_trusted(void **state)
{
    (void)state;
    huge_with(MEMPLUG_PINS_TRUSTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_userfaultfd),
        cmocka_unit_test(inherited_device),
        cmocka_unit_test(mapping_limit),
        cmocka_unit_test(mapping_limit_unmap),
        cmocka_unit_test(mapping_limit_group),
        cmocka_unit_test(pinned_stays),
        cmocka_unit_test(plain_file_stays),
        cmocka_unit_test(tmpfs_file_moves),
        cmocka_unit_test(stack_in_movable_memory),
        cmocka_unit_test(descriptor_closed),
        cmocka_unit_test(huge_sealed),
        cmocka_unit_test(huge_trusted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
