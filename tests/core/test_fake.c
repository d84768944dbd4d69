/* SPDX-License-Identifier: MIT */
/* The fake host by itself, without the core: windows, tables, backings, memory, the checker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "fake_setup.h"

/* --- geometries ------------------------------------------------------------------------------- */

/* In and out again; whether the alias is one is seen through three ways to the same byte. */
static void round_trip(const struct memplug_geometry *geometry)
{
    struct setup setup = setup_open(geometry, 2);
    struct text before = dump(setup.machine);
    uint64_t last = setup.extent.memmap_bytes - 1;
    volatile char *direct = setup.host->direct_map + setup.extent.address;
    volatile char *memmap = setup.host->memmap + setup.memmap_offset;
    char byte;

    assert_int_equal(attach(&setup), 0);
    check(setup.machine);
    assert_int_equal(alias(&setup), 0);
    check(setup.machine);
    direct[0] = 1;
    memmap[last] = 2;
    assert_int_equal(memmap[0], 1);
    assert_int_equal(direct[last], 2);
    fake_backing_read(setup.backing, last, &byte, 1);
    assert_int_equal(byte, 2);
    unmap(&setup);
    check(setup.machine);
    assert_int_equal(direct[last], 2);
    assert_int_equal(provide(&setup), 0);
    check(setup.machine);
    memmap[0] = 3;
    assert_int_equal(direct[0], 1);
    unmap(&setup);
    detach(&setup);
    check(setup.machine);
    assert_string_equal(dump(setup.machine).bytes, before.bytes);
    setup_close(&setup);
}

static void test_geometries(void **state)
{
    static const uint8_t large[] = {0, 1, 4, 9, 11};
    static const struct {
        uint8_t page_struct_bytes, larger_block;
    } sizes[] = {{64, 0}, {128, 1}, {32, 2}, {56, 4}, {72, 4}};
    unsigned shape, size, i;

    (void)state;
    for (shape = FAKE_X86; shape <= FAKE_64K; shape++) {
        struct memplug_geometry geometry = fake_geometry(shape);

        round_trip(&geometry);
        for (i = 0; i < sizeof(large); i++) {
            for (size = 0; size < sizeof(sizes) / sizeof(*sizes); size++) {
                geometry = fake_geometry(shape == FAKE_X86 ? FAKE_SMALL : shape);
                geometry.large_shift = (uint8_t)(geometry.page_shift + large[i]);
                geometry.page_struct_bytes = sizes[size].page_struct_bytes;
                geometry.block_shift = (uint8_t)(geometry.block_shift + sizes[size].larger_block);
                geometry.address_limit = (uint64_t)3 << geometry.block_shift;
                round_trip(&geometry);
            }
        }
    }
}

static void test_refused_machines(void **state)
{
    struct fake_config config = {.geometry = fake_geometry(FAKE_SMALL)};
    struct fake_machine *machine;

    (void)state;
    config.geometry.page_shift = 13;
    assert_int_equal(fake_open(&config, &machine), -EINVAL);
    config.geometry = fake_geometry(FAKE_SMALL);
    config.geometry.page_struct_bytes = 60;
    assert_int_equal(fake_open(&config, &machine), -EINVAL);
    config.geometry = fake_geometry(FAKE_SMALL);
    config.geometry.address_limit += 4096;
    assert_int_equal(fake_open(&config, &machine), -EINVAL);
    config.geometry = fake_geometry(FAKE_SMALL);
    config.nr_cpus = 65;
    assert_int_equal(fake_open(&config, &machine), -EINVAL);
    config.nr_cpus = 64;
    config.boot_bytes = 4096; /* one table where two roots are needed */
    assert_int_equal(fake_open(&config, &machine), -ENOMEM);
}

/* By hand: 1 TiB of addresses is 4 levels of 512 entries, its memmap of 16 GiB is 3. */
static void test_table_counts(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_X86);
    struct setup setup = setup_open(&geometry, 1);
    struct fake_stat stat = stat_of(&setup);

    (void)state;
    assert_int_equal(stat.nr_direct_tables, 1);
    assert_int_equal(stat.nr_memmap_tables, 1);
    assert_int_equal(attach(&setup), 0);
    assert_int_equal(stat_of(&setup).nr_direct_tables, 3); /* 64 large leaves in one table */
    assert_int_equal(setup.unit, 2 << 20);
    assert_int_equal(alias(&setup), 0);
    assert_int_equal(stat_of(&setup).nr_memmap_tables, 2);
    assert_int_equal(stat_of(&setup).nr_table_pages, 5);
    assert_int_equal(stat_of(&setup).aliased_bytes, 2 << 20);
    unmap(&setup);
    setup.unit = 4096;
    assert_int_equal(provide(&setup), 0);
    stat = stat_of(&setup);
    assert_int_equal(stat.nr_memmap_tables, 3); /* one more for 512 leaves of a page */
    assert_int_equal(stat.nr_provided_pages, 512);
    unmap(&setup);
    detach(&setup);
    assert_int_equal(stat_of(&setup).nr_table_pages, 2);
    setup_close(&setup);
}

/* --- shortage --------------------------------------------------------------------------------- */

/* With 0, 1, 2, ... boot pages to spare: -ENOMEM without a trace, until it works. */
static unsigned starve(struct setup *setup, int (*operation)(struct setup *))
{
    struct text before = dump(setup->machine);
    unsigned budget = 0;

    for (;; budget++) {
        int error;

        fake_set_boot_budget(setup->machine, budget);
        error = operation(setup);
        check(setup->machine);
        if (!error)
            break;
        assert_int_equal(error, -ENOMEM);
        assert_string_equal(dump(setup->machine).bytes, before.bytes);
    }
    fake_set_boot_budget(setup->machine, UINT64_MAX);
    return budget;
}

static int get_memory(struct setup *setup)
{
    void *memory;
    int error = setup->host->ops->memory_get(setup->host->context, 9000, &memory);

    if (!error)
        setup->host->ops->memory_put(setup->host->context, memory, 9000);
    return error;
}

static void test_starve(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_X86);
    struct setup setup;

    (void)state;
    geometry.large_shift = 12;
    setup = setup_open(&geometry, 2);
    assert_int_equal(starve(&setup, attach), 130); /* 128 tables of pages, and two above them */
    assert_int_equal(starve(&setup, alias), 3); /* two, so that the second can be missing */
    unmap(&setup);
    assert_int_equal(starve(&setup, provide), 1027);
    unmap(&setup);
    detach(&setup);
    assert_int_equal(starve(&setup, get_memory), 3);
    setup_close(&setup);
}

/* --- backings --------------------------------------------------------------------------------- */

static void test_attach_errors(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct setup setup = setup_open(&geometry, 2);
    struct text before = dump(setup.machine);
    struct memplug_extent other = setup.extent;

    (void)state;
    fake_backing_set_busy(setup.backing, true);
    assert_int_equal(attach(&setup), -EBUSY);
    fake_backing_set_busy(setup.backing, false);
    fake_backing_set_unmappable(setup.backing, true);
    assert_int_equal(attach(&setup), -ENODEV);
    fake_backing_set_unmappable(setup.backing, false);
    setup.extent.offset_bytes = setup.block;
    assert_int_equal(attach(&setup), -ENXIO);
    setup.extent.offset_bytes = UINT64_MAX - 4095;
    assert_int_equal(attach(&setup), -ENXIO);
    setup.extent.offset_bytes = 0;
    assert_string_equal(dump(setup.machine).bytes, before.bytes);
    assert_int_equal(attach(&setup), 0);

    other.address += 4 * setup.block;
    other.size_bytes = setup.block;
    other.memmap_bytes = 0;
    other.offset_bytes = setup.block;
    assert_int_equal(setup.host->ops->attach(setup.host->context, &other), -EEXIST);
    other.offset_bytes = 0;
    other.backing = fake_backing_open(
        setup.machine, &(struct fake_backing_spec){.size_bytes = setup.block,
                                                   .same_as = setup.backing,
                                                   .same_offset = setup.block});
    assert_int_equal(setup.host->ops->attach(setup.host->context, &other), -EEXIST);
    check(setup.machine);
    detach(&setup);
    assert_int_equal(setup.host->ops->attach(setup.host->context, &other), 0);
    setup.host->ops->detach(setup.host->context, &other);
    setup_close(&setup);
}

static void test_alignment(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct setup setup = setup_open(&geometry, 2);
    struct memplug_extent extent = setup.extent;

    (void)state;
    assert_int_equal(setup.host->ops->alignment(setup.host->context, setup.backing), 4096);
    extent.backing = fake_backing_open(
        setup.machine,
        &(struct fake_backing_spec){.size_bytes = 8 << 20, .alignment = 2 << 20});
    assert_int_equal(setup.host->ops->alignment(setup.host->context, extent.backing), 2 << 20);
    extent.offset_bytes = 1 << 20;
    assert_int_equal(setup.host->ops->attach(setup.host->context, &extent), -ENODEV);
    extent.offset_bytes = 2 << 20;
    assert_int_equal(setup.host->ops->attach(setup.host->context, &extent), 0);
    setup.host->ops->detach(setup.host->context, &extent);
    setup_close(&setup);
}

/* Are all bytes of the first page the same? */
static bool is_uniform(const uint8_t *bytes, uint8_t byte)
{
    unsigned i;

    for (i = 0; i < 4096; i++)
        if (bytes[i] != byte)
            return false;
    return true;
}

static void test_content(void **state)
{
    static const enum fake_content contents[] = {FAKE_CONTENT_JUNK, FAKE_CONTENT_BYTE,
                                                 FAKE_CONTENT_ZERO, FAKE_CONTENT_KEEP};
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct setup setup = setup_open(&geometry, 1);
    uint8_t after[4096];
    unsigned i;

    (void)state;
    for (i = 0; i < 4; i++) {
        uint8_t *direct = (uint8_t *)setup.host->direct_map + setup.extent.address;

        setup.extent.backing = setup.backing = fake_backing_open(
            setup.machine, &(struct fake_backing_spec){.size_bytes = setup.block,
                                                       .content = contents[i], .byte = 0xa5});
        memset(after, 7, sizeof(after));
        fake_backing_write(setup.backing, 0, after, sizeof(after));
        assert_int_equal(attach(&setup), 0);
        assert_int_equal(is_uniform(direct, 0xa5), contents[i] == FAKE_CONTENT_BYTE);
        assert_int_equal(is_uniform(direct, 0), contents[i] == FAKE_CONTENT_ZERO);
        assert_int_equal(is_uniform(direct, 7), contents[i] == FAKE_CONTENT_KEEP);
        memset(direct, 9, 4096);
        detach(&setup);
        fake_backing_read(setup.backing, 0, after, sizeof(after));
        assert_true(is_uniform(after, contents[i] == FAKE_CONTENT_KEEP   ? 9
                                      : contents[i] == FAKE_CONTENT_ZERO ? 0
                                                                         : FAKE_POISON_BYTE));
    }
    assert_int_equal(provide(&setup), 0);
    assert_false(is_uniform((uint8_t *)setup.host->memmap + setup.memmap_offset, 0));
    unmap(&setup);
    setup_close(&setup);
}

static void test_memory(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct setup setup = setup_open(&geometry, 1);
    struct text before = dump(setup.machine);
    static const uint64_t sizes[] = {1, 63, 64, 4095, 4096, 4097, 100000};
    void *memory[7];
    unsigned i;

    (void)state;
    for (i = 0; i < 7; i++) {
        assert_int_equal(setup.host->ops->memory_get(setup.host->context, sizes[i], &memory[i]),
                         0);
        assert_true(fake_multiple((uintptr_t)memory[i], 64));
        memset(memory[i], 0xff, sizes[i]);
    }
    check(setup.machine);
    for (i = 0; i < 7; i++)
        setup.host->ops->memory_put(setup.host->context, memory[i * 3 % 7], sizes[i * 3 % 7]);
    assert_string_equal(dump(setup.machine).bytes, before.bytes);
    assert_int_equal(setup.host->ops->memory_get(setup.host->context, 1ull << 50, memory),
                     -ENOMEM);
    assert_int_equal(*(char *)fake_metadata(setup.machine, 100000), 0);
    setup_close(&setup);
}

/* --- the checker sees ------------------------------------------------------------------------- */

static void expect_finding(struct fake_machine *machine, const char *what)
{
    char text[256];

    assert_int_equal(fake_check(machine, text, sizeof(text)), -EUCLEAN);
    if (!strstr(text, what))
        fail_msg("found \"%s\", not \"%s\"", text, what);
}

static void test_findings(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct setup setup = setup_open(&geometry, 1);
    char *direct = setup.host->direct_map + setup.extent.address;
    uint64_t *leaves, kept;
    void *memory;

    (void)state;
    assert_int_equal(attach(&setup), 0);
    assert_int_equal(alias(&setup), 0);
    leaves = (uint64_t *)(void *)fake_boot_page(setup.machine, setup.machine->direct_tables.root);
    while (!(leaves[0] & FAKE_ENTRY_LEAF)) {
        unsigned i = 0;

        while (!leaves[i])
            i++;
        if (leaves[i] & FAKE_ENTRY_LEAF)
            break;
        leaves = (uint64_t *)(void *)fake_boot_page(setup.machine, leaves[i] >> FAKE_ENTRY_SHIFT);
    }
    kept = leaves[256]; /* block 1 begins here: 256 pages a block */
    leaves[256] += 1u << FAKE_ENTRY_SHIFT;
    expect_finding(setup.machine, "the wrong frame at 0x100000");
    leaves[256] = 0;
    expect_finding(setup.machine, "a table has");
    leaves[256] = kept;
    leaves[0] = kept;
    setup.machine->table_used[(uint64_t)((char *)leaves - setup.machine->boot) / 4096]++;
    expect_finding(setup.machine, "where nothing is");
    leaves[0] = 0;
    setup.machine->table_used[(uint64_t)((char *)leaves - setup.machine->boot) / 4096]--;
    check(setup.machine);

    mmap(direct + 8192, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    expect_finding(setup.machine, "not mapped in this process");
    mmap(direct + 8192, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
         setup.machine->array_fd, (off_t)setup.machine->extents[0].array);
    expect_finding(setup.machine, "another frame");
    mmap(direct + 8192, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
         setup.machine->array_fd, (off_t)setup.machine->extents[0].array + 8192);
    check(setup.machine);

    assert_int_equal(setup.host->ops->memory_get(setup.host->context, 100, &memory), 0);
    ((volatile char *)memory)[100] = 0;
    expect_finding(setup.machine, "written past the end of 100 bytes");
    /* Extent, alias, memory, table, lock. */
    assert_int_equal(fake_close(setup.machine, NULL, 0), 5);
}

static void test_leaks(void **state)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct setup setup = setup_open(&geometry, 1);
    char text[256];
    void *memory;

    (void)state;
    assert_int_equal(attach(&setup), 0);
    assert_int_equal(provide(&setup), 0);
    assert_int_equal(setup.host->ops->memory_get(setup.host->context, 100, &memory), 0);
    assert_true(fake_close(setup.machine, text, sizeof(text)) > 4);
    assert_non_null(strstr(text, "1 extents attached, 1 memmap mappings, 1 memories not put"));
    assert_non_null(strstr(text, "1 lock held"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_geometries),    cmocka_unit_test(test_refused_machines),
        cmocka_unit_test(test_table_counts),  cmocka_unit_test(test_starve),
        cmocka_unit_test(test_attach_errors), cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_content),       cmocka_unit_test(test_memory),
        cmocka_unit_test(test_findings),      cmocka_unit_test(test_leaks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
