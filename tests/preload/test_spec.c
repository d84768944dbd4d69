/* SPDX-License-Identifier: MIT */
/* What stands behind memplug run --range. */
#include "../../tools/preload/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static void sizes_are_read(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t bytes;
    } rows[] = {
        {"0", true, 0},         {"4096", true, 4096},      {"1k", true, 1024},
        {"64K", true, 65536},   {"3M", true, 3 * MIB},     {"4G", true, 4 * GIB},
        {"4GiB", true, 4 * GIB}, {"4GB", true, 4 * GIB},   {"2T", true, 2048 * GIB},
        {"0x10", true, 16},     {"0x1fM", true, 31 * MIB},
        {"18446744073709551615", true, UINT64_MAX},
        {"", false, 0},         {"G", false, 0},           {"4X", false, 0},
        {"4GG", false, 0},      {"-1", false, 0},          {" 1", false, 0},
        {"1 ", false, 0},       {"18446744073709551616", false, 0},
        {"16777216T", false, 0}, {"0x", false, 0},         {"4Gi", false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t bytes = 0;

        if (mpl_text_size(mpl_text_of(rows[i].text), &bytes) != rows[i].good)
            fail_msg("%s", rows[i].text);
        if (rows[i].good)
            assert_true(bytes == rows[i].bytes);
    }
}

static void ranges_are_read(void **state)
{
    struct mpl_spec spec;
    const char *why;

    (void)state;
    assert_true(mpl_spec_parse(mpl_text_of("memfd:4G"), &spec, &why));
    assert_int_equal(spec.kind, MEMPLUG_BACKING_MEMFD);
    assert_true(spec.size_bytes == 4 * GIB && spec.node == 0 && spec.offset_bytes == 0);
    assert_int_equal(spec.online, MEMPLUG_ONLINE_MOVABLE);
    assert_int_equal(spec.memmap, MEMPLUG_MEMMAP_AUTO);
    assert_true(mpl_spec_parse(mpl_text_of("hugetlb:2G,node=3,zone=kernel,memmap=range"), &spec,
                               &why));
    assert_int_equal(spec.kind, MEMPLUG_BACKING_HUGETLB);
    assert_int_equal(spec.node, 3);
    assert_int_equal(spec.online, MEMPLUG_ONLINE_KERNEL);
    assert_int_equal(spec.memmap, MEMPLUG_MEMMAP_RANGE);
    assert_true(mpl_spec_parse(mpl_text_of("file:/a b:c,offset=2M,size=256M,zone=auto,memmap=host"),
                               &spec, &why));
    assert_int_equal(spec.kind, MEMPLUG_BACKING_FILE);
    assert_string_equal(spec.path, "/a b:c");
    assert_true(spec.offset_bytes == 2 * MIB && spec.size_bytes == 256 * MIB);
    assert_int_equal(spec.online, MEMPLUG_ONLINE_DEFAULT);
    assert_int_equal(spec.memmap, MEMPLUG_MEMMAP_HOST);
    assert_true(mpl_spec_parse(mpl_text_of("dax:/dev/dax0.0,memmap=block"), &spec, &why));
    assert_int_equal(spec.kind, MEMPLUG_BACKING_DAX);
    assert_true(spec.size_bytes == 0 && spec.memmap == MEMPLUG_MEMMAP_BLOCK);
}

static void what_is_no_range_is_refused(void **state)
{
    static const char *const rows[] = {
        "",           "memfd",        "memfd:",         "memfd:0",         "memfd:x",
        "memfd:1G,",  "ram:1G",       "memfd:1G,node",  "memfd:1G,node=",  "memfd:1G,node=64",
        "memfd:1G,node=-1", "memfd:1G,zone=dma", "memfd:1G,memmap=", "memfd:1G,size=1G",
        "file:",      "file:a,size=0", "file:a,offset=", "memfd:1G,offset=1M", "memfd:1G,x=1",
        ":1G",        "file:a,,node=1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct mpl_spec spec;
        const char *why = NULL;

        /* A comma at the very end adds nothing. */
        bool good = strcmp(rows[i], "memfd:1G,") == 0;

        if (mpl_spec_parse(mpl_text_of(rows[i]), &spec, &why) != good)
            fail_msg("%s", rows[i]);
        assert_non_null(why);
    }
}

static void a_path_that_is_too_long_is_refused(void **state)
{
    char text[MPL_SPEC_PATH_MAX + 16];
    struct mpl_spec spec;
    const char *why;

    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "file:", 5);
    text[5 + MPL_SPEC_PATH_MAX - 1] = 0;
    assert_true(mpl_spec_parse(mpl_text_of(text), &spec, &why));
    text[5 + MPL_SPEC_PATH_MAX - 1] = 'a';
    text[5 + MPL_SPEC_PATH_MAX] = 0;
    assert_false(mpl_spec_parse(mpl_text_of(text), &spec, &why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(ranges_are_read),
        cmocka_unit_test(what_is_no_range_is_refused),
        cmocka_unit_test(a_path_that_is_too_long_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
