/* SPDX-License-Identifier: MIT */
/* Memmaps of this process's memory with struct pages of 56 bytes: large units of the window are
 * shared by neighbours, and stay whole while these come and go. */
#define _GNU_SOURCE
#include "host_test.h"

#define ODD_MEMMAP (7 * MIB / 4) /* of one block, with 56 bytes a page: 2 MiB units are shared */

static int plug(struct memplug *pool, void *backing, uint64_t first, uint64_t nr_blocks,
                enum memplug_memmap memmap)
{
    struct memplug_add add = {
        .address = first * BLOCK,
        .size_bytes = nr_blocks * BLOCK,
        .memmap = memmap,
        .backing = backing,
        .offset_bytes = (first - 8) * BLOCK,
    };

    return memplug_add(pool, &add, NULL, NULL);
}

static char *odd_memmap(struct memplug_linux *host, uint64_t block)
{
    return memplug_linux_host(host)->memmap + block * ODD_MEMMAP;
}

static void check_odd_memmap(struct memplug_linux *host, uint64_t block)
{
    const char *bytes = odd_memmap(host, block);

    assert_int_equal(bytes[0], (char)block);
    assert_int_equal(memcmp(bytes, bytes + 1, ODD_MEMMAP - 1), 0); /* each is as the one before */
}

/* Blocks 8 to 15 fill seven units. Each goes and comes back, and nobody else's struct pages go
 * with it; then self-hosted ones stand in the same place. */
static void shared_memmap_units(void **state)
{
    struct memplug_linux_config config = {.window_bytes = 4 * GIB, .block_bytes = BLOCK,
                                          .page_struct_bytes = 56};
    struct memplug_linux *host;
    struct memplug_linux_stat stat;
    struct memplug *pool;
    void *metadata;

    (void)state;
    assert_int_equal(memplug_linux_open(&config, &host, NULL), 0);
    struct memplug_config pool_config = {.host = memplug_linux_host(host)};
    uint64_t size_bytes = memplug_metadata_bytes(&pool_config);
    assert_int_equal(memplug_linux_metadata(host, size_bytes, &metadata), 0);
    assert_int_equal(memplug_open(&pool_config, metadata, size_bytes, &pool, NULL), 0);
    void *backing = backing_open(host, MEMPLUG_BACKING_MEMFD, 8 * BLOCK, -1);
    long resident = number_in("/proc/self/status", "RssAnon:");

    assert_int_equal(plug(pool, backing, 8, 8, MEMPLUG_MEMMAP_HOST), 0);
    for (uint64_t id = 8; id < 16; id++) {
        memset(odd_memmap(host, id), (int)id, ODD_MEMMAP);
    }
    for (uint64_t gone = 8; gone < 16; gone++) {
        assert_int_equal(memplug_remove(pool, gone * BLOCK, BLOCK, NULL, NULL), 0);
        assert_int_equal(plug(pool, backing, gone, 1, MEMPLUG_MEMMAP_BLOCK), -EBUSY);
        for (uint64_t id = 8; id < 16; id++) {
            if (id != gone) {
                check_odd_memmap(host, id);
            }
        }
        assert_int_equal(plug(pool, backing, gone, 1, MEMPLUG_MEMMAP_HOST), 0);
        memset(odd_memmap(host, gone), (int)gone, ODD_MEMMAP);
    }
    assert_int_equal(memplug_check(pool, NULL), 0);
    assert_in_range(number_in("/proc/self/status", "RssAnon:") - resident, 13 * 1024, 16 * 1024);
    assert_int_equal(memplug_remove(pool, 8 * BLOCK, 8 * BLOCK, NULL, NULL), 0);
    assert_in_range(number_in("/proc/self/status", "RssAnon:") - resident + 1024, 0, 2048);
    assert_int_equal(plug(pool, backing, 8, 8, MEMPLUG_MEMMAP_BLOCK), 0);
    assert_int_equal(memplug_remove(pool, 8 * BLOCK, 8 * BLOCK, NULL, NULL), 0);
    memplug_linux_stat(host, &stat);
    assert_int_equal(stat.nr_stuck, 0);
    assert_int_equal(memplug_close(pool, NULL), 0);
    memplug_linux_close(host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memmap_units),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
