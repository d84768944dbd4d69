/* SPDX-License-Identifier: MIT */
/* Programs that lock their memory: mlockall() before and after, and at the limit of it. */
#define _GNU_SOURCE
#include "space_test.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static double seconds(void)
{
    return (double)mpl_now_ns() / 1e9;
}

static bool goes_offline(struct machine *machine, uint64_t block)
{
    int error = machine_offline(machine, block, 0);

    if (error != 0)
        machine_say(machine, "offline", error);
    return error == 0;
}

/* Does the mapping have this flag? -1: it is not mapped. */
static int has_flag(const void *address, const char *flag)
{
    char line[512];
    FILE *maps = fopen("/proc/self/smaps", "r");
    bool here = false;
    int has = -1;

    while (maps && has < 0 && fgets(line, sizeof(line), maps)) {
        unsigned long start, end;

        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = (uintptr_t)address >= start && (uintptr_t)address < end;
        if (here && strncmp(line, "VmFlags:", 8) == 0)
            has = strstr(line, flag) != NULL;
    }
    if (maps)
        fclose(maps);
    return has;
}

static int is_locked(const void *address)
{
    return has_flag(address, " lo");
}

static int open_movable(struct machine *machine)
{
    CHECK(machine_open(machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL) == 0);
    return memplug_space_movable(machine->space, &machine->reason) != 0 ? 77 : 0;
}

/* Give up the right to lock what one likes. */
static int without_right(uint64_t limit_bytes)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    struct rlimit limit = {limit_bytes, limit_bytes};

    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    data[0].permitted &= ~(1u << CAP_IPC_LOCK);
    CHECK(syscall(SYS_capset, &header, data) == 0);
    return 0;
}

/* --- MCL_FUTURE before all ------------------------------------------------------------------- */

static int locked_from_the_start(void *argument)
{
    struct machine machine;
    char *a;
    int result;

    (void)argument;
    CHECK(mlockall(MCL_FUTURE) == 0);
    result = open_movable(&machine);
    if (result != 0)
        return result;
    CHECK(blocks_of(machine.fd) == 2 * BLOCK); /* the direct map is filled: it is memory too */
    CHECK(memplug_map(machine.space, 3 * UNIT, NULL, (void **)&a, NULL) == 0);
    CHECK(is_locked(a) == 1);
    fill_words(a, 2 * UNIT + 64 * PAGE, 1);
    for (uint64_t i = 0; i < 4; i++) {
        CHECK(goes_offline(&machine, i % 2));
        CHECK(machine_online(&machine, i % 2) == 0);
        CHECK(is_locked(a) == 1 && is_locked(a + 2 * UNIT) == 1);
        CHECK(words_hold(a, 2 * UNIT + 64 * PAGE, 1));
        CHECK(all_zero(a + 2 * UNIT + 64 * PAGE, UNIT - 64 * PAGE));
    }
    CHECK(memplug_discard(machine.space, a, UNIT) == 0);
    CHECK(all_zero(a, UNIT));
    CHECK(memplug_unmap(machine.space, a, 3 * UNIT) == 0);
    CHECK(machine_close(&machine) == 0);
    return 0;
}

/* --- mlockall() of what is there ------------------------------------------------------------- */

static int locked_later(void *argument)
{
    const int *flags = argument;
    struct machine machine;
    int result = open_movable(&machine);
    char *a;

    if (result != 0)
        return result;
    CHECK(memplug_map(machine.space, 3 * UNIT, NULL, (void **)&a, NULL) == 0);
    CHECK(memplug_protect(machine.space, a + 64 * PAGE, 64 * PAGE, PROT_READ) == 0);
    fill_words(a + UNIT, 2 * UNIT, 1);
    CHECK(is_locked(a) == 0);
    CHECK(mlockall(*flags) == 0);
    CHECK(blocks_of(machine.fd) == 2 * BLOCK); /* the kernel has filled the direct map */
    CHECK(is_locked(a) == 1);
    for (uint64_t i = 0; i < 4; i++) {
        CHECK(goes_offline(&machine, i % 2));
        CHECK(machine_online(&machine, i % 2) == 0);
        CHECK(words_hold(a + UNIT, 2 * UNIT, 1));
        CHECK(is_locked(a) == 1 && is_locked(a + 64 * PAGE) == 1 && is_locked(a + UNIT) == 1);
    }
    CHECK(stat_of(&machine).nr_attributes_lost == 0);
    CHECK(munlockall() == 0);
    CHECK(machine_offline(&machine, 0, 0) == 0);
    CHECK(is_locked(a) == 0);
    CHECK(memplug_unmap(machine.space, a, 3 * UNIT) == 0);
    CHECK(machine_close(&machine) == 0);
    return 0;
}

/* --- RLIMIT_MEMLOCK -------------------------------------------------------------------------- */

/* What is locked is as much as may be: a move replaces locked memory by as much of it. */
static int at_the_limit(void *argument)
{
    struct machine machine;
    struct memplug_linux_stat stat;
    int result = open_movable(&machine);
    void *more;
    char *a;

    (void)argument;
    if (result != 0)
        return result;
    CHECK(memplug_map(machine.space, 3 * UNIT, NULL, (void **)&a, NULL) == 0);
    CHECK(memplug_protect(machine.space, a + 64 * PAGE, 64 * PAGE, PROT_READ) == 0);
    fill_words(a + UNIT, 2 * UNIT, 1);
    CHECK(memplug_lock(machine.space, a, 3 * UNIT, true) == 0);
    CHECK(memplug_advise(machine.space, a, UNIT, MADV_SEQUENTIAL) == 0);
    CHECK(mlockall(MCL_FUTURE) == 0);
    if (without_right((uint64_t)number_in("/proc/self/status", "VmLck:") * 1024) != 0)
        return 77;
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    double start = seconds();
    result = machine_offline(&machine, 0, 2);
    machine_say(&machine, "   at the limit", result);
    CHECK(seconds() - start < 20);
    CHECK(words_hold(a + UNIT, 2 * UNIT, 1));
    CHECK(is_locked(a) == 1 && is_locked(a + 64 * PAGE) == 1 && is_locked(a + UNIT) == 1);
    a[0] = 1; /* no fence is left */
    a[UNIT] ^= 1;
    CHECK(result == 0);
    CHECK(stat_of(&machine).nr_attributes_lost == 0);
    CHECK(memplug_map(machine.space, PAGE, NULL, &more, &machine.reason) == -EAGAIN);
    CHECK(strstr(machine.reason.why, "RLIMIT_MEMLOCK"));
    CHECK(memplug_unmap(machine.space, a, 3 * UNIT) == 0);
    memplug_linux_stat(machine.host, &stat);
    CHECK(stat.nr_stuck == 0);
    CHECK(machine_close(&machine) == 0);
    return 0;
}

/* What is not locked would be, by the move: that cannot be, and it is said. With proof it is the
 * proof's mapping that fails, without it is the new one. */
static int no_room_to_lock(void *argument)
{
    const struct memplug_space_config config = {
        .pins = *(enum memplug_pins *)argument,
        .node = MEMPLUG_ANY_NODE,
    };
    struct machine machine;
    char *a;

    CHECK(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, &config) == 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        return 77;
    CHECK(memplug_map(machine.space, UNIT, NULL, (void **)&a, NULL) == 0);
    fill_words(a, UNIT, 1);
    CHECK(memplug_advise(machine.space, a, UNIT, MADV_SEQUENTIAL) == 0);
    CHECK(mlockall(MCL_FUTURE) == 0);
    if (without_right((uint64_t)number_in("/proc/self/status", "VmLck:") * 1024) != 0)
        return 77;
    CHECK(machine_offline(&machine, 0, 2) == -EBUSY);
    CHECK(strstr(machine.reason.why, "RLIMIT_MEMLOCK"));
    CHECK(is_locked(a) == 0);
    /* No advice is left that was meant for what goes, and the program's is. */
    CHECK(has_flag(a, " rr") == 0 && has_flag(a, " sr") == 1);
    CHECK(munlockall() == 0);
    CHECK(machine_offline(&machine, 0, 2) == 0);
    CHECK(words_hold(a, UNIT, 1));
    return 0;
}

static void run(int (*check)(void *), void *argument)
{
    int result;

    /* Its shadow memory is terabytes; and it turns mlockall() into nothing. */
    if (strstr(SANITIZER, "address"))
        SKIP("mlockall() does nothing under the address sanitizer");
    result = in_child(check, argument);
    if (result == 77)
        SKIP("no full userfaultfd, or no right to lock");
    assert_int_equal(result, 0);
}

static void future(void **state)
{
    (void)state;
    run(locked_from_the_start, NULL);
}

static void current(void **state)
{
    (void)state;
    run(locked_later, &(int){MCL_CURRENT});
}

static void current_and_future(void **state)
{
    (void)state;
    run(locked_later, &(int){MCL_CURRENT | MCL_FUTURE});
}

static void limit(void **state)
{
    (void)state;
    run(at_the_limit, NULL);
}

static void no_room(void **state)
{
    (void)state;
    run(no_room_to_lock, &(enum memplug_pins){MEMPLUG_PINS_PROVED});
    run(no_room_to_lock, &(enum memplug_pins){MEMPLUG_PINS_TRUSTED});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(future),
        cmocka_unit_test(current),
        cmocka_unit_test(current_and_future),
        cmocka_unit_test(limit),
        cmocka_unit_test(no_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
