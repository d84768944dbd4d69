/* SPDX-License-Identifier: MIT */
/* Ranges in words, plugged into a running program and exchanged under it. */
#include "socket_test.h"

#include <memplug/range.h>

ONE_PROGRAM("2", "136", "2")

/* --- words ------------------------------------------------------------------------------------ */

static const struct {
    const char *text;
    struct memplug_range_spec spec;
} good[] = {
    {"memfd:4G", {.kind = MEMPLUG_BACKING_MEMFD, .size_bytes = 4 * GIB,
                  .online = MEMPLUG_ONLINE_MOVABLE}},
    {"memfd:0x8000000\n", {.kind = MEMPLUG_BACKING_MEMFD, .size_bytes = 128 * MIB,
                           .online = MEMPLUG_ONLINE_MOVABLE}},
    {"hugetlb:512MiB,node=3,zone=kernel,memmap=host",
     {.kind = MEMPLUG_BACKING_HUGETLB, .size_bytes = 512 * MIB, .node = 3,
      .online = MEMPLUG_ONLINE_KERNEL, .memmap = MEMPLUG_MEMMAP_HOST}},
    {"file:/a/b,offset=256M,size=1gB,zone=none,memmap=range",
     {.kind = MEMPLUG_BACKING_FILE, .size_bytes = GIB, .offset_bytes = 256 * MIB,
      .online = MEMPLUG_ONLINE_MOVABLE, .offline = true, .memmap = MEMPLUG_MEMMAP_RANGE,
      .path = "/a/b"}},
    {"dax:/dev/dax0.0,zone=auto,memmap=block",
     {.kind = MEMPLUG_BACKING_DAX, .online = MEMPLUG_ONLINE_DEFAULT,
      .memmap = MEMPLUG_MEMMAP_BLOCK, .path = "/dev/dax0.0"}},
};

static const char *const bad[] = {
    "",           "memfd",        "memfd:",          "memfd:0",          "memfd:x",
    "memfd:4P",   "memfd:4Gx",    "memfd:-1",        "memfd:1,size=4G",  "anon:4G",
    "file:",      "file:a",       "file:/a,size=0",  "file:/a,size=",    "file:/a,offset=x",
    "memfd:4G,,",   "memfd:4G,node",   "memfd:4G,node=64", "memfd:4G,node=1x",
    "memfd:4G,zone=", "memfd:4G,zone=high", "memfd:4G,memmap=no", "memfd:4G,colour=red",
    "memfd:99999999999999999999", "memfd:18446744073709551615K", " memfd:4G", "MEMFD:4G",
};

static void words_are_understood(void **state)
{
    struct memplug_range_spec spec;
    struct memplug_reason reason;

    (void)state;
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(memplug_range_parse(good[i].text, strlen(good[i].text), &spec, &reason),
                         0);
        assert_int_equal(spec.kind, good[i].spec.kind);
        assert_int_equal(spec.size_bytes, good[i].spec.size_bytes);
        assert_int_equal(spec.offset_bytes, good[i].spec.offset_bytes);
        assert_int_equal(spec.node, good[i].spec.node);
        assert_int_equal(spec.online, good[i].spec.online);
        assert_int_equal(spec.offline, good[i].spec.offline);
        assert_int_equal(spec.memmap, good[i].spec.memmap);
        assert_string_equal(spec.path, good[i].spec.path);
    }
}

static void other_words_are_not(void **state)
{
    struct memplug_range_spec spec;
    struct memplug_reason reason;

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t length = strlen(bad[i]);
        char *copy = malloc(length + (length == 0)); /* a sanitizer sees who reads on */

        memcpy(copy, bad[i], length);
        reason.why = NULL;
        if (memplug_range_parse(copy, length, &spec, &reason) != -EINVAL)
            fail_msg("\"%s\" is taken", bad[i]);
        assert_non_null(reason.why);
        free(copy);
    }
}

/* --- a program -------------------------------------------------------------------------------- */

/* From what a range says: "0x..-0x.. first N blocks N". */
static uint64_t added(uint64_t *nr_blocks)
{
    const char *text = get(&program, "memplug/host/add");
    const char *first = strstr(text, "first "), *blocks = strstr(text, "blocks ");

    assert_non_null(first);
    assert_non_null(blocks);
    *nr_blocks = strtoull(blocks + 7, NULL, 10);
    return strtoull(first + 6, NULL, 10);
}

static unsigned nr_ranges(void)
{
    unsigned nr = 0;

    for (const char *c = get(&program, "memplug/ranges"); *c != '\0'; c++)
        nr += *c == '\n';
    return nr;
}

static void remove_range(uint64_t first, uint64_t nr_blocks)
{
    char text[64];

    snprintf(text, sizeof(text), "%llu-%llu offline", (unsigned long long)first,
             (unsigned long long)(first + nr_blocks - 1));
    assert_int_equal(set(&program, "memplug/remove", text), strlen(text));
}

static void ranges_come_and_go(void **state)
{
    uint64_t first, nr_blocks;
    unsigned before;

    (void)state;
    assert_string_equal(get(&program, "memplug/host/add"), "");
    before = nr_ranges();
    assert_int_equal(set(&program, "memplug/host/add", "memfd:256M"), 10);
    first = added(&nr_blocks);
    assert_int_equal(nr_blocks, 2);
    assert_string_equal(get(&program, of_block(&program, first, "valid_zones")), "Movable\n");
    assert_int_equal(nr_ranges(), before + 1);
    remove_range(first, nr_blocks);
    assert_int_equal(set(&program, "memplug/host/add", "memfd:128M,zone=none"), 20);
    first = added(&nr_blocks);
    assert_string_equal(get(&program, of_block(&program, first, "state")), "offline\n");
    remove_range(first, 1);
    /* More often than there are backings: each is let go of with its range. */
    for (unsigned i = 0; i < 70; i++) {
        assert_int_equal(set(&program, "memplug/host/add", "memfd:128M,zone=none"), 20);
        remove_range(added(&nr_blocks), 1);
    }
    assert_int_equal(nr_ranges(), before);
}

static void a_file_is_a_range(void **state)
{
    char path[] = "/dev/shm/memplug-test-XXXXXX", words[128];
    int fd = mkstemp(path);
    uint64_t first, nr_blocks;
    struct stat status;

    (void)state;
    if (fd < 0 || ftruncate(fd, (off_t)(300 * MIB)) != 0)
        SKIP("no room in /dev/shm");
    snprintf(words, sizeof(words), "file:%s,offset=2M", path);
    assert_int_equal(set(&program, "memplug/host/add", words), strlen(words));
    first = added(&nr_blocks);
    assert_int_equal(nr_blocks, 2);
    assert_int_equal(set(&program, "memplug/host/add", words), -EEXIST);
    remove_range(first, nr_blocks);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_blocks, 0); /* given back */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(set(&program, "memplug/host/add", words), -ENOENT);
    close(fd);
}

static void what_cannot_be_added_changes_nothing(void **state)
{
    unsigned before = nr_ranges();

    (void)state;
    assert_int_equal(set(&program, "memplug/host/add", "memfd:100M"), -EINVAL);
    assert_int_equal(set(&program, "memplug/host/add", "memfd:1T"), -E2BIG);
    assert_int_equal(set(&program, "memplug/host/add", "memfd:128M,node=7"), -EINVAL);
    assert_int_equal(set(&program, "memplug/host/add", "file:/dev/null"), -ENODEV);
    assert_int_equal(set(&program, "memplug/host/add", "nonsense"), -EINVAL);
    assert_int_equal(nr_ranges(), before);
}

/* Where the program's memory is now: the blocks of the range that came last. */
static void replace(const char *old, const char *words, int expected)
{
    char text[128];

    snprintf(text, sizeof(text), "%s %s", old, words);
    if (expected == 0)
        expected = (int)strlen(text);
    assert_int_equal(set(&program, "memplug/host/replace", text), expected);
}

static const char *blocks_text(uint64_t first, uint64_t nr_blocks)
{
    static char text[64];

    snprintf(text, sizeof(text), "%llu-%llu", (unsigned long long)first,
             (unsigned long long)(first + nr_blocks - 1));
    return text;
}

static uint64_t latency(const char *name)
{
    const char *at = strstr(get(&program, "memplug/host/latency"), name);

    assert_non_null(at);
    return strtoull(at + strlen(name) + 1, NULL, 10);
}

/* Everything that the program has moves, five times, while it writes. */
static void memory_is_replaced_under_writers(void **state)
{
    uint64_t first = program.first, nr_blocks = 2, moved = latency("moved_bytes");
    int nr_rounds;

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        nr_rounds = program_say(&program, "rounds");
        replace(blocks_text(first, nr_blocks), "memfd:256M", 0);
        assert_int_equal(nr_ranges(), 1);
        first = added(&nr_blocks);
        for (unsigned tries = 0; tries < 200 && program_say(&program, "rounds") < nr_rounds + 3;
             tries++)
            sleep_ms(50);
        assert_true(program_say(&program, "rounds") >= nr_rounds + 3);
        assert_int_equal(program_say(&program, "check"), 0);
    }
    assert_true(latency("moved_bytes") - moved >= 5 * 136 * MIB);
    assert_true(latency("pause_max_ns") > 0);
    assert_true(latency("pause_p50_ns") <= latency("pause_max_ns"));
    program.first = first;
}

/* No room, a veto by time, a cancel: the old range is as it was and the new one is gone. */
static void a_replace_that_fails_goes_back(void **state)
{
    struct memplug_client_request request = {
        .verb = MEMPLUG_SERVE_SET, .timeout_ms = 300, .path = "memplug/host/replace"};
    struct memplug_client client = client_of(&program);
    char before[512], text[128];

    (void)state;
    snprintf(before, sizeof(before), "%.500s", get(&program, "memplug/ranges"));
    replace(blocks_text(program.first, 2), "memfd:128M", -ENOMEM);
    assert_string_equal(get(&program, "memplug/ranges"), before);
    replace(blocks_text(program.first, 3), "memfd:256M", -ENODEV);
    replace("x", "memfd:256M", -EINVAL);
    replace("1-", "memfd:256M", -EINVAL);
    replace(blocks_text(program.first, 2), "memfd:0", -EINVAL);
    program_say(&program, "slow 500");
    snprintf(text, sizeof(text), "%s memfd:256M", blocks_text(program.first, 2));
    request.data = text;
    request.length = strlen(text);
    assert_int_equal(memplug_client_call(&client, &request, NULL), -ETIMEDOUT);
    program_say(&program, "slow 0");
    memplug_client_close(&client);
    assert_string_equal(get(&program, "memplug/ranges"), before);
    for (unsigned i = 0; i < 2; i++)
        assert_string_equal(get(&program, of_block(&program, program.first + i, "state")),
                            "online\n");
    assert_int_equal(program_say(&program, "check"), 0);
}

int main(void)
{
    const struct CMUnitTest words[] = {
        cmocka_unit_test(words_are_understood),
        cmocka_unit_test(other_words_are_not),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_come_and_go),
        cmocka_unit_test(a_file_is_a_range),
        cmocka_unit_test(what_cannot_be_added_changes_nothing),
        cmocka_unit_test(memory_is_replaced_under_writers),
        cmocka_unit_test(a_replace_that_fails_goes_back),
    };
    int failed = cmocka_run_group_tests(words, NULL, NULL);

    if (failed != 0 || !can_move()) {
        puts("SKIP: no full userfaultfd: blocks with mappings cannot go");
        return failed != 0 ? failed : 77;
    }
    return cmocka_run_group_tests(tests, begin, finish);
}
