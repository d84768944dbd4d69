/* SPDX-License-Identifier: MIT */
/* Every breach of the contract in memplug/host.h stops the fake machine and is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_setup.h"

/* Two blocks attached, their memmap aliased, the lock held; the breach is tried on a copy of the
 * extent, which it may spoil. */
struct scene {
    struct setup setup;
    const struct memplug_host_ops *ops;
    void *host;
    struct memplug_extent extent;
    uint64_t offset, bytes, unit;
    void *memory; /* 1,000 bytes */
};

static struct scene scene_open(void)
{
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct scene scene;

    geometry.large_shift = 14;
    scene.setup = setup_open(&geometry, 2);
    assert_int_equal(attach(&scene.setup), 0);
    assert_int_equal(alias(&scene.setup), 0);
    scene.ops = scene.setup.host->ops;
    scene.host = scene.setup.host->context;
    scene.extent = scene.setup.extent;
    scene.offset = scene.setup.memmap_offset;
    scene.bytes = scene.setup.extent.memmap_bytes;
    scene.unit = scene.setup.unit;
    assert_int_equal(scene.unit, 16384);
    assert_int_equal(scene.ops->memory_get(scene.host, 1000, &scene.memory), 0);
    return scene;
}

/* --- attach and detach ------------------------------------------------------------------------ */

static void attach_twice(struct scene *s)
{
    s->ops->attach(s->host, &s->extent);
}

static void attach_over_the_end(struct scene *s)
{
    s->extent.address += s->setup.block;
    s->ops->attach(s->host, &s->extent);
}

static void attach_over_the_start(struct scene *s)
{
    s->extent.address -= s->setup.block;
    s->ops->attach(s->host, &s->extent);
}

static void attach_part_of_block(struct scene *s)
{
    s->extent.address += 4 * s->setup.block;
    s->extent.size_bytes -= 4096;
    s->ops->attach(s->host, &s->extent);
}

static void attach_beyond_limit(struct scene *s)
{
    s->extent.address = s->setup.host->geometry.address_limit - s->setup.block;
    s->ops->attach(s->host, &s->extent);
}

static void attach_stranger(struct scene *s)
{
    s->extent.address += 4 * s->setup.block;
    s->extent.backing = s;
    s->ops->attach(s->host, &s->extent);
}

static void attach_memmap_too_large(struct scene *s)
{
    s->extent.address += 4 * s->setup.block;
    s->extent.memmap_bytes = s->extent.size_bytes + 4096;
    s->ops->attach(s->host, &s->extent);
}

static void attach_unlocked(struct scene *s)
{
    s->ops->unlock(s->host);
    s->extent.address += 4 * s->setup.block;
    s->ops->attach(s->host, &s->extent);
}

static void detach_under_alias(struct scene *s)
{
    s->ops->detach(s->host, &s->extent);
}

static void detach_elsewhere(struct scene *s)
{
    s->extent.address += s->setup.block;
    s->ops->detach(s->host, &s->extent);
}

static void detach_part(struct scene *s)
{
    s->extent.size_bytes = s->setup.block;
    s->ops->detach(s->host, &s->extent);
}

static void detach_twice(struct scene *s)
{
    s->ops->memmap_unmap(s->host, s->offset, s->bytes, s->unit);
    s->ops->detach(s->host, &s->extent);
    s->ops->detach(s->host, &s->extent);
}

static void detach_unlocked(struct scene *s)
{
    s->ops->memmap_unmap(s->host, s->offset, s->bytes, s->unit);
    s->ops->unlock(s->host);
    s->ops->detach(s->host, &s->extent);
}

static void backing_closed_early(struct scene *s)
{
    fake_backing_close(s->setup.backing);
}

/* --- memmap ----------------------------------------------------------------------------------- */

static void alias_twice(struct scene *s)
{
    s->ops->memmap_alias(s->host, s->offset, s->extent.address, s->bytes, s->unit);
}

static void provide_over_alias(struct scene *s)
{
    s->ops->memmap_provide(s->host, s->offset + s->bytes - s->unit, s->unit, s->unit);
}

static void alias_unaligned_offset(struct scene *s)
{
    s->ops->memmap_alias(s->host, 4096, s->extent.address, s->unit, s->unit);
}

static void alias_unaligned_address(struct scene *s)
{
    s->ops->memmap_alias(s->host, 0, s->extent.address + 4096, s->unit, s->unit);
}

static void alias_odd_unit(struct scene *s)
{
    s->ops->memmap_alias(s->host, 0, s->extent.address, 8192, 8192);
}

static void alias_not_attached(struct scene *s)
{
    s->ops->memmap_alias(s->host, 0, s->extent.address + s->extent.size_bytes, s->unit, s->unit);
}

static void alias_of_data(struct scene *s)
{
    s->ops->memmap_alias(s->host, 0, s->extent.address + s->bytes, s->unit, s->unit);
}

static void alias_wraps(struct scene *s)
{
    s->ops->memmap_alias(s->host, 0, UINT64_MAX - 4095, 8192, 4096);
}

static void provide_beyond_window(struct scene *s)
{
    s->ops->memmap_provide(s->host, 1 << 20, s->unit, s->unit);
}

static void provide_nothing(struct scene *s)
{
    s->ops->memmap_provide(s->host, 0, 0, s->unit);
}

static void provide_unlocked(struct scene *s)
{
    s->ops->unlock(s->host);
    s->ops->memmap_provide(s->host, 0, s->unit, s->unit);
}

static void unmap_unmapped(struct scene *s)
{
    s->ops->memmap_unmap(s->host, 0, s->bytes, s->unit);
}

static void unmap_part(struct scene *s)
{
    s->ops->memmap_unmap(s->host, s->offset, s->bytes - s->unit, s->unit);
}

static void unmap_other_unit(struct scene *s)
{
    s->ops->memmap_unmap(s->host, s->offset, s->bytes, 4096);
}

static void unmap_twice(struct scene *s)
{
    s->ops->memmap_unmap(s->host, s->offset, s->bytes, s->unit);
    s->ops->memmap_unmap(s->host, s->offset, s->bytes, s->unit);
}

/* --- memory and lock -------------------------------------------------------------------------- */

static void put_other_size(struct scene *s)
{
    s->ops->memory_put(s->host, s->memory, 1001);
}

static void put_twice(struct scene *s)
{
    s->ops->memory_put(s->host, s->memory, 1000);
    s->ops->memory_put(s->host, s->memory, 1000);
}

static void put_inside(struct scene *s)
{
    s->ops->memory_put(s->host, (char *)s->memory + 64, 936);
}

static void put_overrun(struct scene *s)
{
    ((volatile char *)s->memory)[1000] = 0;
    s->ops->memory_put(s->host, s->memory, 1000);
}

static void get_nothing(struct scene *s)
{
    s->ops->memory_get(s->host, 0, &s->memory);
}

static void get_unlocked(struct scene *s)
{
    s->ops->unlock(s->host);
    s->ops->memory_get(s->host, 64, &s->memory);
}

static void unlock_twice(struct scene *s)
{
    s->ops->unlock(s->host);
    s->ops->unlock(s->host);
}

static void *take_lock(void *context)
{
    struct scene *s = context;

    return (void *)(intptr_t)s->ops->lock(s->host, NULL);
}

static void unlock_others(struct scene *s)
{
    pthread_t thread;

    s->ops->unlock(s->host);
    assert_int_equal(pthread_create(&thread, NULL, take_lock, s), 0);
    pthread_join(thread, NULL);
    s->ops->unlock(s->host);
}

static void alignment_of_stranger(struct scene *s)
{
    s->ops->alignment(s->host, s);
}

static const struct breach {
    const char *name;
    void (*commit)(struct scene *scene);
    const char *text;
} breaches[] = {
    {"attach twice", attach_twice, "attach: 0x100000 is attached already"},
    {"attach over the end", attach_over_the_end, "attach: 0x200000 is attached already"},
    {"attach over the start", attach_over_the_start, "attach: 0x0 is attached already"},
    {"attach part of a block", attach_part_of_block, "not whole blocks"},
    {"attach beyond the limit", attach_beyond_limit, "beyond the address limit"},
    {"attach a stranger's backing", attach_stranger, "not one of this machine's"},
    {"attach with too large a memmap", attach_memmap_too_large, "a memmap of"},
    {"attach without lock", attach_unlocked, "attach: the caller does not hold the lock"},
    {"detach under an alias", detach_under_alias, "still in the memmap at 0x4000"},
    {"detach elsewhere", detach_elsewhere, "no extent begins at 0x200000"},
    {"detach a part", detach_part, "not the extent that was attached"},
    {"detach twice", detach_twice, "no extent begins at 0x100000"},
    {"detach without lock", detach_unlocked, "detach: the caller does not hold the lock"},
    {"close an attached backing", backing_closed_early, "closed while it is attached"},
    {"alias twice", alias_twice, "memmap_alias: the memmap at 0x4000 is mapped already"},
    {"provide over an alias", provide_over_alias, "memmap_provide: the memmap at 0x8000"},
    {"alias at an unaligned offset", alias_unaligned_offset, "not whole units"},
    {"alias of an unaligned address", alias_unaligned_address, "not whole units"},
    {"alias in an odd unit", alias_odd_unit, "a unit of 0x2000 bytes"},
    {"alias of what is not attached", alias_not_attached, "not in an extent's memmap"},
    {"alias of data", alias_of_data, "not in an extent's memmap"},
    {"alias that wraps", alias_wraps, "not an address"},
    {"provide beyond the window", provide_beyond_window, "beyond the memmap window"},
    {"provide nothing", provide_nothing, "not whole units"},
    {"provide without lock", provide_unlocked, "memmap_provide: the caller does not hold"},
    {"unmap what is not mapped", unmap_unmapped, "nothing was mapped at 0x0"},
    {"unmap a part", unmap_part, "were mapped at 0x4000, not 0x4000 in 0x4000"},
    {"unmap in another unit", unmap_other_unit, "not 0x8000 in 0x1000"},
    {"unmap twice", unmap_twice, "nothing was mapped at 0x4000"},
    {"put another size", put_other_size, "got 1000 bytes, put 1001"},
    {"put twice", put_twice, "was not got, or was put already"},
    {"put from inside", put_inside, "was not got"},
    {"put after an overrun", put_overrun, "written past the end of 1000 bytes"},
    {"get nothing", get_nothing, "size 0"},
    {"get without lock", get_unlocked, "memory_get: the caller does not hold the lock"},
    {"unlock twice", unlock_twice, "unlock: the caller does not hold the lock"},
    {"unlock another's lock", unlock_others, "unlock: the caller does not hold the lock"},
    {"alignment of a stranger", alignment_of_stranger, "not one of this machine's"},
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
        struct scene scene = scene_open();
        struct fake_machine *volatile machine = scene.setup.machine;

        fake_set_panic_hook(machine, spring, &trap);
        if (setjmp(trap.back) == 0) {
            breaches[i].commit(&scene);
            fail_msg("%s: was let pass", breaches[i].name);
        }
        if (!strstr(trap.text, breaches[i].text))
            fail_msg("%s: \"%s\"", breaches[i].name, trap.text);
        fake_close(machine, NULL, 0);
    }
}

/* Units smaller than the backing's pages cannot be mapped. */
static void test_alias_below_alignment(void **state)
{
    static struct trap trap;
    struct memplug_geometry geometry = fake_geometry(FAKE_SMALL);
    struct setup setup;

    (void)state;
    setup = setup_open(&geometry, 2);
    setup.extent.backing = fake_backing_open(
        setup.machine, &(struct fake_backing_spec){.size_bytes = 2 << 20, .alignment = 2 << 20});
    assert_int_equal(attach(&setup), 0);
    fake_set_panic_hook(setup.machine, spring, &trap);
    if (setjmp(trap.back) == 0) {
        alias(&setup);
        fail_msg("was let pass");
    }
    assert_non_null(strstr(trap.text, "not aligned to its backing"));
    fake_close(setup.machine, NULL, 0);
}

/* Without a hook, and with one that returns, the process ends. */
static void ignore(void *context, const char *text)
{
    (void)context;
    (void)text;
}

static void test_abort(void **state)
{
    int with_hook;

    (void)state;
    for (with_hook = 0; with_hook < 2; with_hook++) {
        struct scene scene = scene_open();
        pid_t child = fork();
        int status;

        if (child == 0) {
            signal(SIGABRT, SIG_DFL);
            close(STDERR_FILENO);
            if (with_hook)
                fake_set_panic_hook(scene.setup.machine, ignore, NULL);
            scene.ops->memory_put(scene.host, scene.memory, 1);
            _exit(0);
        }
        assert_true(waitpid(child, &status, 0) == child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
        fake_close(scene.setup.machine, NULL, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_breaches),
        cmocka_unit_test(test_alias_below_alignment),
        cmocka_unit_test(test_abort),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
