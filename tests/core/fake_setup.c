/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "fake_setup.h"

void append(void *context, const char *bytes, size_t length)
{
    struct text *text = context;

    assert_true(text->length + length < sizeof(text->bytes));
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

struct text dump(const struct fake_machine *machine)
{
    struct text text = {.length = 0};

    fake_dump(machine, append, &text);
    return text;
}

struct fake_machine *open_shape(const struct memplug_geometry *geometry)
{
    struct fake_config config = {.geometry = *geometry, .nr_cpus = 4, .seed = 1,
                                 .fill_bytes = 1 << 20};
    struct fake_machine *machine;

    assert_int_equal(fake_open(&config, &machine), 0);
    return machine;
}

void close_clean(struct fake_machine *machine)
{
    char left[256];

    if (fake_close(machine, left, sizeof(left)))
        fail_msg("left behind: %s", left);
}

void check(struct fake_machine *machine)
{
    char text[256];

    if (fake_check(machine, text, sizeof(text)))
        fail_msg("%s", text);
}

struct setup setup_open(const struct memplug_geometry *geometry, uint64_t nr_blocks)
{
    struct setup setup = {.machine = open_shape(geometry)};
    uint64_t memmap_bytes;

    setup.host = fake_host(setup.machine);
    setup.block = (uint64_t)1 << geometry->block_shift;
    setup.backing = fake_backing_open(
        setup.machine, &(struct fake_backing_spec){.size_bytes = nr_blocks * setup.block});
    assert_non_null(setup.backing);
    memmap_bytes = nr_blocks * (setup.block >> geometry->page_shift) * geometry->page_struct_bytes;
    setup.unit = (uint64_t)1 << geometry->large_shift;
    setup.memmap_offset = (setup.block >> geometry->page_shift) * geometry->page_struct_bytes;
    if (!fake_multiple(memmap_bytes | setup.memmap_offset | setup.block, setup.unit))
        setup.unit = (uint64_t)1 << geometry->page_shift;
    setup.extent = (struct memplug_extent){.address = setup.block,
                                           .size_bytes = nr_blocks * setup.block,
                                           .backing = setup.backing,
                                           .memmap_bytes = memmap_bytes};
    assert_int_equal(setup.host->ops->lock(setup.host->context, NULL), 0);
    return setup;
}

void setup_close(struct setup *setup)
{
    setup->host->ops->unlock(setup->host->context);
    close_clean(setup->machine);
}

int attach(struct setup *setup)
{
    return setup->host->ops->attach(setup->host->context, &setup->extent);
}

int alias(struct setup *setup)
{
    return setup->host->ops->memmap_alias(setup->host->context, setup->memmap_offset,
                                          setup->extent.address, setup->extent.memmap_bytes,
                                          setup->unit);
}

int provide(struct setup *setup)
{
    return setup->host->ops->memmap_provide(setup->host->context, setup->memmap_offset,
                                            setup->extent.memmap_bytes, setup->unit);
}

void unmap(struct setup *setup)
{
    setup->host->ops->memmap_unmap(setup->host->context, setup->memmap_offset,
                                   setup->extent.memmap_bytes, setup->unit);
}

void detach(struct setup *setup)
{
    setup->host->ops->detach(setup->host->context, &setup->extent);
}

struct fake_stat stat_of(const struct setup *setup)
{
    struct fake_stat stat;

    fake_stat(setup->machine, &stat);
    return stat;
}
