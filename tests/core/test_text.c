/* SPDX-License-Identifier: MIT */
/* The text writer: numbers, quoting, what a small buffer cuts and what the callback sees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/view/text.h"

struct sink {
    char text[4096];
    size_t length;
    size_t longest;
    unsigned nr_calls;
};

static void sink_write(void *context, const char *text, size_t length)
{
    struct sink *sink = context;

    assert_true(length > 0);
    assert_true(sink->length + length < sizeof(sink->text));
    memcpy(sink->text + sink->length, text, length);
    sink->length += length;
    sink->text[sink->length] = '\0';
    sink->longest = length > sink->longest ? length : sink->longest;
    sink->nr_calls++;
}

static void write_all(struct mpl_text *text)
{
    mpl_text_string(text, "a");
    mpl_text_string(text, NULL);
    mpl_text_string(text, "");
    mpl_text_decimal(text, 0);
    mpl_text_string(text, " ");
    mpl_text_decimal(text, UINT64_MAX);
    mpl_text_string(text, " ");
    mpl_text_signed(text, INT64_MIN);
    mpl_text_string(text, " ");
    mpl_text_signed(text, -16);
    mpl_text_string(text, " ");
    mpl_text_signed(text, 7);
    mpl_text_string(text, " ");
    mpl_text_hex(text, 0);
    mpl_text_string(text, " ");
    mpl_text_hex(text, UINT64_MAX);
    mpl_text_field(text, "free", 12);
    mpl_text_hex_field(text, "start", 0x8000);
}

static const char expected[] = "a0 18446744073709551615 -9223372036854775808 -16 7 0x0 "
                               "0xffffffffffffffff free 12 start 0x8000";

static void numbers(void **state)
{
    struct mpl_text text;
    char buffer[200];

    (void)state;
    mpl_text_to_buffer(&text, buffer, sizeof(buffer));
    write_all(&text);
    assert_int_equal(mpl_text_end(&text), sizeof(expected) - 1);
    assert_string_equal(buffer, expected);
}

/* Every size from none to more than enough: a prefix, its 0, the full length, nothing behind. */
static void every_cut(void **state)
{
    size_t length = sizeof(expected) - 1;

    (void)state;
    for (size_t size = 0; size <= length + 3; size++) {
        size_t kept = size <= length ? size - (size > 0) : length;
        struct mpl_text text;
        char *buffer = malloc(size + 1);

        memset(buffer, '#', size + 1);
        mpl_text_to_buffer(&text, buffer, size);
        write_all(&text);
        assert_int_equal(mpl_text_end(&text), length);
        assert_memory_equal(buffer, expected, kept);
        if (size > 0)
            assert_int_equal(buffer[kept], '\0');
        assert_int_equal(buffer[size], '#');
        free(buffer);
    }
}

static void null_buffer(void **state)
{
    struct mpl_text text;

    (void)state;
    mpl_text_to_buffer(&text, NULL, 100);
    write_all(&text);
    assert_int_equal(mpl_text_end(&text), sizeof(expected) - 1);
}

static void callback_gets_everything_once(void **state)
{
    struct sink sink = {.length = 0};
    struct mpl_text text;
    char all[4096] = "";

    (void)state;
    mpl_text_to_callback(&text, sink_write, &sink);
    for (unsigned i = 0; i < 20; i++) {
        write_all(&text);
        strcat(all, expected);
    }
    assert_int_equal(mpl_text_end(&text), strlen(all));
    assert_string_equal(sink.text, all);
    assert_true(sink.longest <= MPL_TEXT_SMALL);
    assert_int_equal(sink.nr_calls, (strlen(all) + MPL_TEXT_SMALL - 1) / MPL_TEXT_SMALL);
}

static void callback_of_nothing(void **state)
{
    struct sink sink = {.length = 0};
    struct mpl_text text;

    (void)state;
    mpl_text_to_callback(&text, sink_write, &sink);
    assert_int_equal(mpl_text_end(&text), 0);
    assert_int_equal(sink.nr_calls, 0);
}

/* One string longer than the small buffer. */
static void callback_of_a_long_string(void **state)
{
    struct sink sink = {.length = 0};
    struct mpl_text text;
    char all[1001];

    (void)state;
    memset(all, 'x', sizeof(all) - 1);
    all[sizeof(all) - 1] = '\0';
    mpl_text_to_callback(&text, sink_write, &sink);
    mpl_text_string(&text, all);
    assert_int_equal(mpl_text_end(&text), sizeof(all) - 1);
    assert_string_equal(sink.text, all);
}

static void quoting(void **state)
{
    struct mpl_text text;
    char buffer[200];

    (void)state;
    mpl_text_to_buffer(&text, buffer, sizeof(buffer));
    mpl_text_quoted(&text, "page cache");
    mpl_text_quoted(&text, NULL);
    mpl_text_quoted(&text, "");
    mpl_text_quoted(&text, "a\"b\\c\nd\x7f\xc3\xa4");
    (void)mpl_text_end(&text);
    assert_string_equal(buffer, "\"page cache\"-\"\"\"a\\x22b\\x5cc\\x0ad\\x7f\xc3\xa4\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(null_buffer),
        cmocka_unit_test(callback_gets_everything_once),
        cmocka_unit_test(callback_of_nothing),
        cmocka_unit_test(callback_of_a_long_string),
        cmocka_unit_test(quoting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
