/* SPDX-License-Identifier: MIT */
/* Movable mappings: what a program sees of them, at rest and after a move. */
#define _GNU_SOURCE
#include "space_test.h"

#include "pause.h"

#include <setjmp.h>
#include <signal.h>

/* --- map, unmap, discard ---------------------------------------------------------------------- */

static void map_and_unmap(void **state)
{
    struct machine machine;
    struct memplug_stat before, after;
    uint64_t empty_bytes;
    char *a, *b, *c;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    memplug_stat(machine.pool, &before);
    empty_bytes = blocks_of(machine.fd);
    assert_int_equal(memplug_map(machine.space, 5 * MIB, NULL, (void **)&a, NULL), 0);
    assert_int_equal((uintptr_t)a % UNIT, 0);
    assert_true(memplug_space_has(machine.space, a));
    assert_false(memplug_space_has(machine.space, &machine));
    assert_true(all_zero(a, 5 * MIB));
    fill_words(a, 5 * MIB, 1);
    /* Small ones share a unit: the tail of the large one. */
    assert_int_equal(memplug_map(machine.space, 1, NULL, (void **)&b, NULL), 0);
    assert_int_equal(memplug_map(machine.space, 2 * PAGE, NULL, (void **)&c, NULL), 0);
    assert_ptr_equal(b, a + 5 * MIB);
    assert_ptr_equal(c, b + PAGE);
    assert_int_equal(stat_of(&machine).nr_units, 3);
    assert_int_equal(stat_of(&machine).mapped_bytes, 5 * MIB + 3 * PAGE);
    fill_words(c, 2 * PAGE, 3);
    /* The middle of a mapping goes. */
    assert_int_equal(memplug_unmap(machine.space, a + MIB, 2 * MIB), 0);
    assert_int_equal(memplug_unmap(machine.space, a + MIB, 2 * MIB), -EINVAL);
    assert_int_equal(memplug_unmap(machine.space, a, 5 * MIB), -EINVAL);
    assert_true(words_hold(a, MIB, 1));
    assert_int_equal(memplug_map(machine.space, MIB, NULL, (void **)&b, NULL), 0);
    assert_ptr_equal(b, a + MIB);
    assert_true(all_zero(b, MIB));
    assert_int_equal(memplug_unmap(machine.space, a, 2 * MIB), 0);
    assert_int_equal(memplug_unmap(machine.space, a + 3 * MIB, 2 * MIB + 3 * PAGE), 0);
    assert_int_equal(stat_of(&machine).nr_units, 0);
    assert_int_equal(stat_of(&machine).mapped_bytes, 0);
    /* All but what the pool wrote in its memmap. */
    assert_in_range(blocks_of(machine.fd), empty_bytes, empty_bytes + 64 * 1024);
    memplug_stat(machine.pool, &after);
    assert_int_equal(before.nr_free_pages, after.nr_free_pages);
    assert_int_equal(machine_close(&machine), 0);
}

static void refused(void **state)
{
    struct memplug_space_config odd = {.unit_bytes = 8192, .node = MEMPLUG_ANY_NODE};
    struct memplug_mapping bad = {.protection = 64};
    struct memplug_space *none = NULL;
    struct machine machine;
    char *a;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 1, -1, NULL), 0);
    assert_int_equal(memplug_space_open(machine.host, machine.pool, &odd, &none, &machine.reason),
                     -EINVAL);
    assert_non_null(machine.reason.why);
    assert_int_equal(memplug_map(machine.space, 0, NULL, (void **)&a, NULL), -EINVAL);
    assert_int_equal(memplug_map(machine.space, PAGE, &bad, (void **)&a, NULL), -EINVAL);
    /* One block holds 63 units; what a failed map took is given back. */
    assert_int_equal(memplug_map(machine.space, 64 * UNIT, NULL, (void **)&a, &machine.reason),
                     -ENOMEM);
    assert_string_equal(machine.reason.why, "the pool has no free frames of this size");
    assert_int_equal(stat_of(&machine).nr_units, 0);
    assert_int_equal(memplug_map(machine.space, 63 * UNIT, NULL, (void **)&a, NULL), 0);
    assert_int_equal(memplug_discard(machine.space, a + 1, PAGE), -EINVAL);
    assert_int_equal(memplug_discard(machine.space, a, 64 * UNIT), -EINVAL);
    assert_int_equal(memplug_discard(machine.space, &machine, PAGE), -EINVAL);
    assert_int_equal(memplug_advise(machine.space, a, PAGE, MADV_DOFORK), -EINVAL);
    assert_int_equal(memplug_space_close(machine.space, NULL), -EBUSY);
    assert_int_equal(memplug_unmap(machine.space, a, 63 * UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

static void options(void **state)
{
    const char *long_name = "a name of a mapping that is longer than the eighty characters that "
                            "the kernel would take from anybody";
    struct memplug_mapping opts = {.populate = true, .no_dump = true, .name = long_name};
    struct machine machine;
    uint64_t empty_bytes;
    char *a, *b;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 1, -1, NULL), 0);
    empty_bytes = blocks_of(machine.fd);
    assert_int_equal(memplug_map(machine.space, UNIT, &opts, (void **)&a, NULL), -EINVAL);
    opts.name = "short";
    assert_int_equal(memplug_map(machine.space, UNIT, &opts, (void **)&a, NULL), 0);
    assert_in_range(blocks_of(machine.fd), empty_bytes + UNIT, empty_bytes + UNIT + 64 * 1024);
    opts = (struct memplug_mapping){.no_access = true};
    assert_int_equal(memplug_map(machine.space, PAGE, &opts, (void **)&b, NULL), 0);
    assert_int_equal(memplug_protect(machine.space, b, PAGE, PROT_READ | PROT_WRITE), 0);
    *b = 1;
    assert_int_equal(memplug_unmap(machine.space, a, UNIT), 0);
    assert_int_equal(memplug_unmap(machine.space, b, PAGE), 0);
    assert_int_equal(machine_close(&machine), 0);
}

/* 1 TiB, and the smallest units: the tables are only addresses. */
static void large_window(void **state)
{
    struct memplug_space_config config = {.unit_bytes = 4096, .node = MEMPLUG_ANY_NODE};
    struct memplug_config pool = {0};
    struct machine machine = {0};
    struct memplug_linux_stat stat;
    uint64_t before_bytes;
    void *metadata, *a;

    (void)state;
    assert_int_equal(memplug_linux_open(NULL, &machine.host, NULL), 0);
    pool.host = memplug_linux_host(machine.host);
    assert_int_equal(memplug_linux_metadata(machine.host, memplug_metadata_bytes(&pool),
                                            &metadata), 0);
    assert_int_equal(memplug_open(&pool, metadata, memplug_metadata_bytes(&pool), &machine.pool,
                                  NULL), 0);
    memplug_linux_stat(machine.host, &stat);
    before_bytes = stat.mapped_bytes;
    for (unsigned i = 0; i < 2; i++) {
        if (memplug_space_open(machine.host, machine.pool, &config, &machine.space,
                               &machine.reason) != 0)
            SKIP("%s", machine.reason.why);
        assert_int_equal(memplug_map(machine.space, GIB, NULL, &a, NULL), -ENOMEM);
        assert_int_equal(memplug_space_close(machine.space, NULL), 0);
        config.unit_bytes = 0;
    }
    memplug_linux_stat(machine.host, &stat);
    assert_int_equal(stat.mapped_bytes, before_bytes);
    assert_int_equal(memplug_close(machine.pool, NULL), 0);
    memplug_linux_close(machine.host);
}

static void discards(void **state)
{
    struct machine machine;
    uint64_t full_bytes;
    char *a;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 1, -1, NULL), 0);
    assert_int_equal(memplug_map(machine.space, 2 * UNIT, NULL, (void **)&a, NULL), 0);
    fill_words(a, 2 * UNIT, 7);
    full_bytes = blocks_of(machine.fd);
    assert_int_equal(memplug_discard(machine.space, a + PAGE, PAGE), 0);
    assert_int_equal(blocks_of(machine.fd), full_bytes - PAGE);
    assert_true(words_hold(a, PAGE, 7));
    assert_true(all_zero(a + PAGE, PAGE));
    /* A whole unit keeps its frame, as a hole; it can be touched at once. */
    assert_int_equal(memplug_advise(machine.space, a + UNIT, UNIT, MADV_DONTNEED), 0);
    assert_int_equal(blocks_of(machine.fd), full_bytes - UNIT);
    assert_int_equal(stat_of(&machine).nr_units, 2);
    assert_true(all_zero(a + UNIT, PAGE));
    fill_words(a + UNIT, UNIT, 8);
    assert_true(words_hold(a + UNIT, UNIT, 8));
    assert_int_equal(memplug_unmap(machine.space, a, 2 * UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

/* --- attributes ------------------------------------------------------------------------------- */

/* What /proc/self/smaps says of the mapping of an address: its first line and its VmFlags. */
static void look_up(const void *address, char line[512], char flags[256])
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char text[512];
    bool here = false;

    line[0] = flags[0] = 0;
    while (file && fgets(text, sizeof(text), file)) {
        unsigned long start, end;

        if (sscanf(text, "%lx-%lx ", &start, &end) == 2 && strchr(text, '-') < strchr(text, ' ')) {
            here = (uintptr_t)address >= start && (uintptr_t)address < end;
            if (here)
                snprintf(line, 512, "%s", text);
        }
        if (here && strncmp(text, "VmFlags:", 8) == 0)
            snprintf(flags, 256, "%.255s", text + 8);
    }
    if (file)
        fclose(file);
}

static bool has_flag(const void *address, const char *flag)
{
    char line[512], flags[256];

    look_up(address, line, flags);
    return strstr(flags, flag) != NULL;
}

static bool has_text(const void *address, const char *text)
{
    char line[512], flags[256];

    look_up(address, line, flags);
    return strstr(line, text) != NULL;
}

static void check_attributes(char *a, bool named)
{
    assert_true(has_text(a, " rw-s "));
    assert_true(has_text(a + 4 * PAGE, " r--s "));
    assert_true(has_text(a + 8 * PAGE, " ---s "));
    for (unsigned page = 0; page < 512; page += 4)
        assert_true(has_flag(a + page * PAGE, " dc "));
    assert_false(has_flag(a, " dd "));
    assert_true(has_flag(a + 12 * PAGE, " dd "));
    assert_true(has_flag(a + 16 * PAGE, " lo "));
    assert_true(has_flag(a + 20 * PAGE, " hg "));
    assert_true(has_flag(a + 24 * PAGE, " nh "));
    assert_true(has_flag(a + 28 * PAGE, " sr "));
    if (named)
        assert_true(has_text(a + 32 * PAGE, "pages of a test"));
    for (unsigned page = 36; page < 512; page++)
        assert_true(has_text(a + 36 * PAGE, " rw-s "));
}

static void attributes(void **state)
{
    struct machine machine;
    struct memplug_space *space;
    bool named;
    char *a;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    space = machine.space;
    if (memplug_space_movable(space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    assert_int_equal(memplug_map(space, UNIT, NULL, (void **)&a, NULL), 0);
    fill_words(a, UNIT, 5);
    assert_int_equal(memplug_protect(space, a + 4 * PAGE, 4 * PAGE, PROT_READ), 0);
    assert_int_equal(memplug_protect(space, a + 8 * PAGE, 4 * PAGE, PROT_NONE), 0);
    assert_int_equal(memplug_advise(space, a + 12 * PAGE, 4 * PAGE, MADV_DONTDUMP), 0);
    assert_int_equal(memplug_lock(space, a + 16 * PAGE, 4 * PAGE, true), 0);
    assert_int_equal(memplug_advise(space, a + 20 * PAGE, 4 * PAGE, MADV_HUGEPAGE), 0);
    assert_int_equal(memplug_advise(space, a + 24 * PAGE, 4 * PAGE, MADV_NOHUGEPAGE), 0);
    assert_int_equal(memplug_advise(space, a + 28 * PAGE, 4 * PAGE, MADV_SEQUENTIAL), 0);
    named = memplug_name(space, a + 32 * PAGE, 4 * PAGE, "pages of a test") == 0;
    if (!named)
        print_message("this kernel names no shared memory\n");
    check_attributes(a, named);
    for (unsigned round = 0; round < 2; round++) {
        if (machine_offline(&machine, round, 0) != 0)
            machine_say(&machine, "offline", -1);
        assert_int_equal(machine.reason.error, 0);
        check_attributes(a, named);
        assert_int_equal(machine_online(&machine, round), 0);
    }
    assert_int_equal(stat_of(&machine).nr_moves, 2);
    assert_int_equal(stat_of(&machine).nr_attributes_lost, 0);
    /* And off again: the pieces become one mapping. */
    assert_int_equal(memplug_protect(space, a, UNIT, PROT_READ | PROT_WRITE), 0);
    assert_true(words_hold(a, UNIT, 5));
    assert_int_equal(memplug_advise(space, a, UNIT, MADV_NORMAL), 0);
    assert_int_equal(memplug_lock(space, a, UNIT, false), 0);
    assert_false(has_flag(a + 16 * PAGE, " lo "));
    assert_int_equal(memplug_unmap(space, a, UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

static sigjmp_buf caught;

static void on_fault(int signal)
{
    siglongjmp(caught, signal);
}

/* The signal that a store gives, or 0. */
static int store_faults(volatile char *address)
{
    struct sigaction catch = {.sa_handler = on_fault, .sa_flags = SA_NODEFER}, old;
    int signal;

    sigaction(SIGSEGV, &catch, &old);
    signal = sigsetjmp(caught, 1);
    if (signal == 0)
        *address = 1;
    sigaction(SIGSEGV, &old, NULL);
    return signal;
}

static void protection_holds(void **state)
{
    struct machine machine;
    char *a, *b;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    assert_int_equal(memplug_map(machine.space, 8 * PAGE, NULL, (void **)&a, NULL), 0);
    assert_int_equal(memplug_map(machine.space, 8 * PAGE, NULL, (void **)&b, NULL), 0);
    fill_words(a, 16 * PAGE, 2);
    assert_int_equal(memplug_protect(machine.space, a, 8 * PAGE, PROT_READ), 0);
    assert_int_equal(machine_offline(&machine, 0, 0), 0);
    assert_int_equal(store_faults(a), SIGSEGV);
    assert_true(words_hold(a, 16 * PAGE, 2));
    assert_int_equal(store_faults(b), 0);
    assert_int_equal(store_faults(b + 8 * PAGE), SIGSEGV); /* nothing is mapped there */
    assert_int_equal(machine_online(&machine, 0), 0);
    assert_int_equal(memplug_unmap(machine.space, a, 16 * PAGE), 0);
    assert_int_equal(machine_close(&machine), 0);
}

/* --- moves ------------------------------------------------------------------------------------ */

static void move_with_units(uint64_t unit_bytes)
{
    struct memplug_space_config config = {.unit_bytes = unit_bytes, .node = MEMPLUG_ANY_NODE};
    const uint64_t size_bytes = 5 * MIB;
    struct machine machine;
    uint64_t full_bytes;
    char *a;

    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, &config), 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    assert_int_equal(memplug_map(machine.space, size_bytes, NULL, (void **)&a, NULL), 0);
    fill_words(a, size_bytes, 11);
    full_bytes = blocks_of(machine.fd);
    for (unsigned round = 0; round < 4; round++) {
        int result = machine_offline(&machine, round % 2, 0);

        if (result != 0)
            machine_say(&machine, "offline", result);
        assert_int_equal(result, 0);
        assert_true(words_hold(a, size_bytes, 11));
        assert_int_equal(machine_online(&machine, round % 2), 0);
        /* The source is given back; the memmap of the other block has been touched. */
        assert_in_range(blocks_of(machine.fd), full_bytes - 4 * MIB, full_bytes + 4 * MIB);
    }
    assert_int_equal(stat_of(&machine).copied_bytes, 4 * size_bytes);
    assert_in_range(stat_of(&machine).nr_moves, 4, UINT64_MAX);
    assert_int_equal(memplug_unmap(machine.space, a, size_bytes), 0);
    assert_int_equal(machine_close(&machine), 0);
}

static void moves_2m(void **state)
{
    (void)state;
    move_with_units(UNIT);
}

static void moves_64k(void **state)
{
    (void)state;
    move_with_units(65536);
}

static void moves_4k(void **state)
{
    (void)state;
    move_with_units(4096);
}

static void sparse_with_units(uint64_t unit_bytes)
{
    struct memplug_space_config config = {.unit_bytes = unit_bytes, .node = MEMPLUG_ANY_NODE};
    struct machine machine;
    uint64_t before_bytes;
    char *a;

    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, &config), 0);
    if (memplug_space_movable(machine.space, &machine.reason) != 0)
        SKIP("%s", machine.reason.why);
    assert_int_equal(memplug_map(machine.space, 8 * UNIT, NULL, (void **)&a, NULL), 0);
    for (unsigned i = 0; i < 8; i += 2)
        fill_words(a + i * UNIT + 77 * PAGE, 3 * PAGE, i);
    assert_int_equal(machine_offline(&machine, 0, 0), 0);
    assert_int_equal(machine_online(&machine, 0), 0);
    before_bytes = blocks_of(machine.fd);
    for (unsigned round = 1; round < 4; round++) {
        assert_int_equal(machine_offline(&machine, round % 2, 0), 0);
        assert_int_equal(machine_online(&machine, round % 2), 0);
        assert_int_equal(blocks_of(machine.fd), before_bytes);
    }
    for (unsigned i = 0; i < 8; i++) {
        assert_true(all_zero(a + i * UNIT, 77 * PAGE));
        if (i % 2 == 0)
            assert_true(words_hold(a + i * UNIT + 77 * PAGE, 3 * PAGE, i));
        assert_true(all_zero(a + i * UNIT + 80 * PAGE, 432 * PAGE));
    }
    assert_int_equal(stat_of(&machine).copied_bytes, 4 * 4 * 3 * PAGE);
    assert_int_equal(memplug_unmap(machine.space, a, 8 * UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

static void sparse_stays_sparse(void **state)
{
    (void)state;
    sparse_with_units(UNIT);
    sparse_with_units(65536);
}

/* --- fork ------------------------------------------------------------------------------------- */

static int touch(void *address)
{
    signal(SIGSEGV, SIG_DFL);
    *(volatile char *)address = 1;
    return 0;
}

static void fork_is_loud(void **state)
{
    struct machine machine;
    char *a;

    (void)state;
    assert_int_equal(machine_open(&machine, MEMPLUG_BACKING_MEMFD, 2, -1, NULL), 0);
    assert_int_equal(memplug_map(machine.space, UNIT, NULL, (void **)&a, NULL), 0);
    fill_words(a, UNIT, 1);
    assert_int_equal(in_child(touch, a), 1000 + SIGSEGV);
    if (memplug_space_movable(machine.space, NULL) == 0) {
        assert_int_equal(machine_offline(&machine, 0, 0), 0);
        assert_int_equal(in_child(touch, a), 1000 + SIGSEGV);
        assert_int_equal(machine_online(&machine, 0), 0);
    }
    assert_true(words_hold(a, UNIT, 1));
    assert_int_equal(memplug_unmap(machine.space, a, UNIT), 0);
    assert_int_equal(machine_close(&machine), 0);
}

/* --- the histogram ---------------------------------------------------------------------------- */

static void pauses(void **state)
{
    struct mpl_pause pause = {0};
    struct memplug_pause copy;

    (void)state;
    mpl_pause_read(&pause, &copy);
    assert_int_equal(memplug_pause_ns(&copy, 500), 0);
    for (uint64_t ns = 1; ns <= 1000; ns++)
        mpl_pause_add(&pause, ns * 1000);
    mpl_pause_read(&pause, &copy);
    assert_int_equal(copy.nr, 1000);
    assert_int_equal(copy.max_ns, 1000000);
    assert_in_range(memplug_pause_ns(&copy, 500), 500000, 500000 * 9 / 8);
    assert_in_range(memplug_pause_ns(&copy, 990), 990000, 1000000);
    assert_int_equal(memplug_pause_ns(&copy, 1000), 1000000);
    mpl_pause_add(&pause, UINT64_MAX / 2);
    mpl_pause_read(&pause, &copy);
    assert_int_equal(memplug_pause_ns(&copy, 1000), UINT64_MAX / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_and_unmap),
        cmocka_unit_test(refused),
        cmocka_unit_test(options),
        cmocka_unit_test(large_window),
        cmocka_unit_test(discards),
        cmocka_unit_test(attributes),
        cmocka_unit_test(protection_holds),
        cmocka_unit_test(moves_2m),
        cmocka_unit_test(moves_64k),
        cmocka_unit_test(moves_4k),
        cmocka_unit_test(sparse_stays_sparse),
        cmocka_unit_test(fork_is_loud),
        cmocka_unit_test(pauses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
