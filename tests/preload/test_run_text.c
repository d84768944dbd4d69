/* SPDX-License-Identifier: MIT */
/* Sizes and pieces of text that memplug run and the preload library read. */
#include "../../tools/preload/text.h"

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

static void text_is_cut(void **state)
{
    struct mpl_text text = mpl_text_of("a=b=c,,d"), part, name, value;

    (void)state;
    assert_true(mpl_text_cut(&text, ',', &part));
    assert_true(mpl_text_pair(part, &name, &value));
    assert_true(mpl_text_is(name, "a") && mpl_text_is(value, "b=c"));
    assert_true(mpl_text_cut(&text, ',', &part) && mpl_text_is(part, ""));
    assert_false(mpl_text_pair(part, &name, &value));
    assert_true(mpl_text_cut(&text, ',', &part) && mpl_text_is(part, "d"));
    assert_false(mpl_text_cut(&text, ',', &part));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(text_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
