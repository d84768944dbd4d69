/* SPDX-License-Identifier: MIT */
/*
 * A replace of blocks that are no neighbours, ended at each point where it can be: by a cancel at
 * each check of its limit, by each subscriber's refusal. Afterwards the blocks, their states and
 * zones, the free memory, the descriptors and the content are what they were; and in the end it
 * succeeds.
 */
#include "host_test.h"
#include "space_test.h"

#include <memplug/range.h>

#include <dirent.h>

#define MAPPED (24 * MIB)

static struct {
    struct machine machine;
    struct memplug_config config;
    struct memplug_attr attr;
    struct memplug_range_files files;
    unsigned char *memory;
    uint64_t nr_seen, strike_at; /* checks, or questions to the subscriber */
    uint32_t stop;
    bool veto;
} w;

static void note(void *context, const struct memplug_progress *progress)
{
    (void)context;
    (void)progress;
    if (!w.veto && ++w.nr_seen == w.strike_at)
        __atomic_store_n(&w.stop, 1, __ATOMIC_RELEASE);
}

static int ask(void *context, const struct memplug_notice *notice)
{
    (void)context;
    if (!w.veto ||
        (notice->event != MEMPLUG_GOING_ONLINE && notice->event != MEMPLUG_GOING_OFFLINE))
        return 0;
    return ++w.nr_seen == w.strike_at ? -EPERM : 0;
}

static const struct memplug_subscriber subscriber = {.name = "veto", .notify = ask};

static int begin(void **state)
{
    struct memplug_attr_config attr = {.pool_config = &w.config,
                                       .nr_files = MEMPLUG_RANGE_NR_FILES};
    void *memory;

    (void)state;
    assert_int_equal(machine_open(&w.machine, MEMPLUG_BACKING_MEMFD, 4, -1, NULL), 0);
    w.config.host = memplug_linux_host(w.machine.host);
    memplug_range_files(&w.files, w.machine.host, w.machine.pool, w.machine.space);
    attr.pool = w.machine.pool;
    attr.files = w.files.files;
    assert_int_equal(memplug_attr_init(&w.attr, &attr), 0);
    assert_int_equal(memplug_map(w.machine.space, MAPPED, NULL, &memory, NULL), 0);
    w.memory = memory;
    for (uint64_t i = 0; i < MAPPED; i += 8)
        memcpy(w.memory + i, &i, 8);
    /* One of those that go is offline already, and one is in another zone. */
    assert_int_equal(memplug_offline(w.machine.pool, w.machine.first + 2, 2, NULL, NULL), 0);
    assert_int_equal(memplug_online(w.machine.pool, w.machine.first + 3, 1, MEMPLUG_ONLINE_KERNEL,
                                    NULL, NULL), 0);
    assert_int_equal(memplug_subscribe(w.machine.pool, &subscriber), 0);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    assert_int_equal(memplug_unsubscribe(w.machine.pool, &subscriber), 0);
    assert_int_equal(memplug_unmap(w.machine.space, w.memory, MAPPED), 0);
    assert_int_equal(memplug_attr_fini(&w.attr), 0);
    return 0;
}

static unsigned nr_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned nr = 0;

    assert_non_null(directory);
    while (readdir(directory) != NULL)
        nr++;
    closedir(directory);
    return nr;
}

static void read_into(char *text, size_t size_bytes, const char *path)
{
    char part[2048];

    if (memplug_attr_get(&w.attr, path, part, sizeof(part)) < 0)
        snprintf(part, sizeof(part), "none\n");
    strncat(text, part, size_bytes - strlen(text) - 1);
}

/* All that must be the same. */
static void look(char *text, size_t size_bytes)
{
    char path[96];
    struct memplug_stat stat;

    text[0] = '\0';
    read_into(text, size_bytes, "memplug/ranges");
    for (unsigned block = 0; block < 16; block++) {
        snprintf(path, sizeof(path), "devices/system/memory/memory%u/state", block);
        read_into(text, size_bytes, path);
        snprintf(path, sizeof(path), "devices/system/memory/memory%u/valid_zones", block);
        read_into(text, size_bytes, path);
    }
    memplug_stat(w.machine.pool, &stat);
    snprintf(text + strlen(text), size_bytes - strlen(text), "%llu free, %llu managed, %u fds\n",
             (unsigned long long)stat.nr_free_pages, (unsigned long long)stat.nr_managed_pages,
             nr_descriptors());
    for (uint64_t i = 0; i < MAPPED; i += 8)
        if (memcmp(w.memory + i, &i, 8) != 0)
            fail_msg("lost at %llu", (unsigned long long)i);
    assert_int_equal(memplug_check(w.machine.pool, NULL), 0);
}

static int replace(void)
{
    struct memplug_limit limit = {.progress = note, .stop = &w.stop};
    struct memplug_reason reason;
    char text[96];
    int length = snprintf(text, sizeof(text), "%llu,%llu-%llu memfd:256M",
                          (unsigned long long)w.machine.first,
                          (unsigned long long)w.machine.first + 2,
                          (unsigned long long)w.machine.first + 3);
    int result = memplug_attr_set(&w.attr, "memplug/host/replace", text, (size_t)length, &limit,
                                  &reason);

    w.strike_at = 0;
    assert_true(result == length || result == reason.error);
    return result == length ? 0 : result;
}

/* The k-th of them ends it, for each k that there is. How many. */
static uint64_t strike_all(bool veto, uint64_t stop_at)
{
    char before[8192], after[8192];
    uint64_t k;

    look(before, sizeof(before));
    for (k = 1; k < stop_at; k++) {
        int error;

        w.veto = veto;
        w.nr_seen = 0;
        w.strike_at = k;
        w.stop = 0;
        error = replace();
        if (w.nr_seen < k)
            break;
        assert_int_equal(error, veto ? -EPERM : -EINTR);
        look(after, sizeof(after));
        assert_string_equal(before, after);
    }
    return k - 1;
}

static void it_ends_at_any_point(void **state)
{
    char before[8192], after[8192];
    uint64_t nr_vetoes, nr_cancels;

    (void)state;
    look(before, sizeof(before));
    nr_vetoes = strike_all(true, 5); /* two come online, and three go */
    nr_cancels = strike_all(false, UINT64_MAX);
    print_message("%llu refusals, %llu cancels\n", (unsigned long long)nr_vetoes,
                  (unsigned long long)nr_cancels);
    assert_int_equal(nr_vetoes, 4);
    assert_true(nr_cancels > 30);
    look(after, sizeof(after)); /* the last one has succeeded */
    assert_string_not_equal(before, after);
    assert_null(strstr(after, "first 1 "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_ends_at_any_point),
    };

    if (geteuid() != 0 && access("/dev/userfaultfd", R_OK | W_OK) != 0) {
        puts("SKIP: no full userfaultfd: blocks with mappings cannot go");
        return 77;
    }
    return cmocka_run_group_tests(tests, begin, finish);
}
