/* SPDX-License-Identifier: MIT */
/* What a mover does for many units at once, and leaves to another CPU: nothing is forgotten. */
#define _GNU_SOURCE
#include "space_test.h"

#include "../../hosts/linux/live.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#define NR_PARTS 48u

/* --- calls ------------------------------------------------------------------------------------ */

struct file {
    char *at;
    int fd;
};

static struct file full_file(uint64_t size_bytes)
{
    struct file file = {.fd = memfd_create("aside", MFD_CLOEXEC)};

    assert_true(file.fd >= 0);
    assert_int_equal(ftruncate(file.fd, (off_t)size_bytes), 0);
    file.at = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
    assert_true(file.at != MAP_FAILED);
    memset(file.at, 1, size_bytes);
    return file;
}

static void end_file(struct file *file, uint64_t size_bytes)
{
    assert_int_equal(munmap(file->at, size_bytes), 0);
    close(file->fd);
}

static struct mpl_aside_call *post(struct mpl_aside *aside, const struct file *file,
                                   uint64_t offset)
{
    struct mpl_aside_hole hole = {.fd = file->fd, .offset = offset, .size_bytes = MIB};
    struct stat status;

    assert_int_equal(fstat(file->fd, &status), 0);
    hole.dev = status.st_dev;
    hole.ino = status.st_ino;
    return mpl_aside_post(aside, &hole);
}

/* Give a file back part by part, and what is another file by now; kill: the helper, in between. */
static void give_back(struct mpl_aside *aside, bool kill_it)
{
    struct file file = full_file(NR_PARTS * MIB);
    struct file other = full_file(MIB);
    struct mpl_aside_hole hole = {.fd = other.fd, .size_bytes = MIB};
    struct mpl_aside_call *calls[NR_PARTS], *wrong;

    for (unsigned i = 0; i < NR_PARTS; i++) {
        calls[i] = post(aside, &file, i * MIB);
        assert_non_null(calls[i]);
        if (kill_it && i == NR_PARTS / 2)
            assert_int_equal(kill(aside->pid, SIGKILL), 0);
    }
    wrong = mpl_aside_post(aside, &hole);
    assert_non_null(wrong);
    assert_int_equal(mpl_aside_wait(aside, wrong), -ENODEV);
    assert_int_equal(blocks_of(other.fd), MIB);
    end_file(&other, MIB);
    for (unsigned i = 0; i < NR_PARTS; i++)
        assert_int_equal(mpl_aside_wait(aside, calls[i]), 0);
    assert_int_equal(blocks_of(file.fd), 0);
    assert_true(all_zero(file.at, NR_PARTS * MIB));
    end_file(&file, NR_PARTS * MIB);
}

static void with_a_helper(void **state)
{
    static struct mpl_aside aside;

    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        mpl_aside_start(&aside);
        if (!aside.running)
            SKIP("one CPU only");
        give_back(&aside, false);
        mpl_aside_stop(&aside);
        assert_false(aside.running);
    }
}

static void without_one(void **state)
{
    static struct mpl_aside aside;

    (void)state;
    give_back(&aside, false);
    mpl_aside_stop(&aside);
}

static void stay_on(cpu_set_t *before)
{
    cpu_set_t one;

    assert_int_equal(sched_getaffinity(0, sizeof(*before), before), 0);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
}

static void none_on_one_cpu(void **state)
{
    static struct mpl_aside aside;
    cpu_set_t before;

    (void)state;
    stay_on(&before);
    mpl_aside_start(&aside);
    assert_false(aside.running);
    mpl_aside_stop(&aside);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

static void as_many_as_can_be(void **state)
{
    static struct mpl_aside aside;
    struct file file = full_file(MIB);
    struct mpl_aside_call *calls[MPL_ASIDE_CALLS];

    (void)state;
    for (unsigned i = 0; i < MPL_ASIDE_CALLS; i++)
        assert_non_null(calls[i] = post(&aside, &file, 0));
    assert_null(post(&aside, &file, 0));
    assert_int_equal(mpl_aside_wait(&aside, calls[7]), 0);
    assert_ptr_equal(post(&aside, &file, 0), calls[7]);
    for (unsigned i = 0; i < MPL_ASIDE_CALLS; i++)
        assert_int_equal(mpl_aside_wait(&aside, calls[i]), 0);
    end_file(&file, MIB);
}

/* It dies between two calls, and (in nearly every round) in the middle of one. */
static void helper_killed(void **state)
{
    static struct mpl_aside aside;

    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        mpl_aside_start(&aside);
        if (!aside.running)
            SKIP("one CPU only");
        give_back(&aside, true);
        mpl_aside_stop(&aside);
        assert_false(aside.running);
    }
}

/* --- moves ------------------------------------------------------------------------------------ */

#define NR_UNITS 8u

static void open_full(struct machine *machine, char **memory)
{
    assert_int_equal(machine_open(machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    if (memplug_space_movable(machine->space, &machine->reason) != 0)
        SKIP("%s", machine->reason.why);
    assert_int_equal(memplug_map(machine->space, NR_UNITS * UNIT, NULL, (void **)memory, NULL), 0);
    fill_words(*memory, NR_UNITS * UNIT, 3);
}

static void close_full(struct machine *machine, char *memory)
{
    for (unsigned i = 0; i < MPL_ASIDE_CALLS; i++) /* every call was waited for */
        assert_int_equal(machine->space->live->aside.calls[i].state, 0);
    assert_int_equal(memplug_unmap(machine->space, memory, NR_UNITS * UNIT), 0);
    assert_int_equal(machine_close(machine), 0);
}

/* How much of the program's mappings is mapped by huge pages, by /proc/self/smaps. */
static uint64_t huge_bytes(const char *memory)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    uint64_t kib, sum = 0;
    bool here = false;
    char text[512];

    assert_non_null(file);
    while (fgets(text, sizeof(text), file)) {
        unsigned long start, end;

        if (sscanf(text, "%lx-%lx ", &start, &end) == 2)
            here = start < (uintptr_t)memory + NR_UNITS * UNIT && end > (uintptr_t)memory;
        if (here && sscanf(text, "ShmemPmdMapped: %lu", &kib) == 1)
            sum += kib << 10;
    }
    fclose(file);
    return sum;
}

static void full_units_become_huge(void **state)
{
    struct machine machine;
    uint64_t before;
    char *a;

    (void)state;
    open_full(&machine, &a);
    if (machine.space->pins.collapse != 0)
        SKIP("no huge pages to be had");
    assert_int_equal(memplug_discard(machine.space, a + UNIT + 5 * PAGE, PAGE), 0);
    before = blocks_of(machine.fd);
    assert_int_equal(huge_bytes(a), 0);
    assert_int_equal(machine_offline(&machine, 0, 2), 0);
    assert_int_equal(huge_bytes(a), (NR_UNITS - 1) * UNIT);
    assert_in_range(blocks_of(machine.fd), before - 4 * MIB, before + 4 * MIB);
    assert_true(words_hold(a, UNIT, 3));
    assert_true(all_zero(a + UNIT + 5 * PAGE, PAGE));
    assert_int_equal(machine_online(&machine, 0), 0);
    close_full(&machine, a);
}

static void on_one_cpu(void **state)
{
    struct machine machine;
    cpu_set_t before;
    char *a;

    (void)state;
    stay_on(&before);
    open_full(&machine, &a);
    assert_int_equal(machine_offline(&machine, 0, 2), 0);
    assert_int_equal(machine_online(&machine, 0), 0);
    assert_int_equal(machine_offline(&machine, 1, 2), 0);
    assert_true(words_hold(a, NR_UNITS * UNIT, 3));
    assert_in_range(blocks_of(machine.fd), NR_UNITS * UNIT, NR_UNITS * UNIT + 8 * MIB);
    assert_int_equal(machine_online(&machine, 1), 0);
    close_full(&machine, a);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

static memplug_pfn_t take_target(struct machine *machine)
{
    struct memplug_alloc request = {
        .nr_pages = UNIT / PAGE,
        .node = MEMPLUG_ANY_NODE,
        .mover = machine->space->mover,
        .pinned = true,
    };
    memplug_pfn_t pfn;

    assert_int_equal(memplug_alloc(machine->pool, &request, &pfn), 0);
    return pfn;
}

/* Units that their owners have freed by the time that it is their turn: what was made for them
 * beforehand goes back. */
static void freed_before_their_turn(void **state)
{
    struct memplug_move moves[NR_UNITS] = {0};
    struct machine machine;
    uint64_t before;
    char *a;

    (void)state;
    open_full(&machine, &a);
    for (unsigned i = 0; i < NR_UNITS; i++) {
        struct mpl_unit *record = mpl_unit_at(machine.space, i);

        moves[i] = (struct memplug_move){
            .from = {record->pfn},
            .to = take_target(&machine),
            .nr_pages = UNIT / PAGE,
            .cookie = mpl_unit_cookie(record, i) + (UINT64_C(1) << 32),
        };
        assert_true(record->pfn != 0);
    }
    before = blocks_of(machine.fd); /* with the memmap of the targets */
    mpl_live_move(machine.space, moves, NR_UNITS);
    assert_int_equal(blocks_of(machine.fd), before);
    assert_true(words_hold(a, NR_UNITS * UNIT, 3));
    for (unsigned i = 0; i < NR_UNITS; i++) {
        assert_int_equal(moves[i].result, -ENOENT);
        assert_int_equal(memplug_unpin(machine.pool, moves[i].to), 0);
        assert_int_equal(memplug_free(machine.pool, moves[i].to, UNIT / PAGE), 0);
    }
    close_full(&machine, a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_a_helper),
        cmocka_unit_test(without_one),
        cmocka_unit_test(none_on_one_cpu),
        cmocka_unit_test(as_many_as_can_be),
        cmocka_unit_test(helper_killed),
        cmocka_unit_test(full_units_become_huge),
        cmocka_unit_test(on_one_cpu),
        cmocka_unit_test(freed_before_their_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
