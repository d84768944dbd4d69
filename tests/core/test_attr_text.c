/* SPDX-License-Identifier: MIT */
/* How texts are read and written: the kernel's words, booleans and numbers, row by row. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attr/text.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BYTES(string) {(string), sizeof(string) - 1}

struct bytes {
    const char *text;
    size_t length;
};

/* From memory that ends with the text: a sanitizer sees who reads on. */
static struct mpl_attr_word word_of(struct bytes bytes, char **copy)
{
    *copy = malloc(bytes.length > 0 ? bytes.length : 1);
    assert_non_null(*copy);
    memcpy(*copy, bytes.text, bytes.length);
    return mpl_attr_word(*copy, bytes.length);
}

static void test_a_word_is_exact_but_for_one_newline(void **state)
{
    static const struct {
        struct bytes bytes;
        bool is;
    } rows[] = {
        {BYTES("online"), true},
        {BYTES("online\n"), true},
        {BYTES("online\0"), true},
        {BYTES("online\0offline"), true},
        {BYTES("online\n\0x"), true},
        {BYTES("online\0\n\n"), true},
        {BYTES("online\n\n"), false},
        {BYTES("\nonline"), false},
        {BYTES(" online"), false},
        {BYTES("online "), false},
        {BYTES("online \n"), false},
        {BYTES("online\t"), false},
        {BYTES("Online"), false},
        {BYTES("ONLINE"), false},
        {BYTES("onlin"), false},
        {BYTES("online_"), false},
        {BYTES("online_kernel"), false},
        {BYTES("online\r\n"), false},
        {BYTES("\0online"), false},
        {BYTES("\n"), false},
        {BYTES(""), false},
        {BYTES("1"), false},
    };

    (void)state;
    for (unsigned i = 0; i < COUNT(rows); i++) {
        char *copy;

        if (mpl_attr_is(word_of(rows[i].bytes, &copy), "online") != rows[i].is)
            fail_msg("row %u: \"%s\"", i, rows[i].bytes.text);
        free(copy);
    }
}

static void test_a_boolean_is_its_first_letters(void **state)
{
    static const struct {
        const char *text;
        int value; /* or -EINVAL */
    } rows[] = {
        {"y", 1},       {"Y", 1},       {"1", 1},     {"n", 0},        {"N", 0},
        {"0", 0},       {"on", 1},      {"oN", 1},    {"On", 1},       {"ON", 1},
        {"of", 0},      {"off", 0},     {"OFF", 0},   {"oF", 0},       {"t", 1},
        {"True", 1},    {"f", 0},       {"FALSE", 0}, {"yes\n", 1},    {"1\n\n", 1},
        {"10", 1},      {"01", 0},      {"only", 1},  {"offline", 0},  {"2", -EINVAL},
        {"x", -EINVAL}, {"o", -EINVAL}, {"O\n", -EINVAL}, {"-1", -EINVAL}, {" 1", -EINVAL},
        {"", -EINVAL},  {"\n1", -EINVAL}, {"a", -EINVAL}, {"oo", -EINVAL},
    };

    (void)state;
    for (unsigned i = 0; i < COUNT(rows); i++) {
        bool value = false;
        int error = mpl_attr_bool(mpl_attr_word(rows[i].text, strlen(rows[i].text)), &value);

        if ((error != 0 ? error : value) != rows[i].value)
            fail_msg("\"%s\": %d, %d", rows[i].text, error, value);
    }
}

static const struct {
    const char *text;
    unsigned base;
    uint64_t max;
    int error;
    uint64_t value;
} numbers[] = {
    {"0", 10, UINT64_MAX, 0, 0},
    {"10", 10, UINT64_MAX, 0, 10},
    {"10\n", 10, UINT64_MAX, 0, 10},
    {"+10", 10, UINT64_MAX, 0, 10},
    {"010", 10, UINT64_MAX, 0, 10},
    {"10", 0, UINT64_MAX, 0, 10},
    {"010", 0, UINT64_MAX, 0, 8},
    {"0x10", 0, UINT64_MAX, 0, 16},
    {"0XaF\n", 0, UINT64_MAX, 0, 0xaf},
    {"+0x10", 0, UINT64_MAX, 0, 16},
    {"18446744073709551615", 10, UINT64_MAX, 0, UINT64_MAX},
    {"0xffffffffffffffff", 0, UINT64_MAX, 0, UINT64_MAX},
    {"4294967295", 0, UINT32_MAX, 0, UINT32_MAX},
    {"4294967296", 0, UINT32_MAX, -ERANGE, 0},
    {"18446744073709551616", 10, UINT64_MAX, -ERANGE, 0},
    {"18446744073709551616x", 10, UINT64_MAX, -ERANGE, 0},
    {"99999999999999999999999", 10, UINT64_MAX, -ERANGE, 0},
    {"0x10000000000000000", 0, UINT64_MAX, -ERANGE, 0},
    {"", 10, UINT64_MAX, -EINVAL, 0},
    {"\n", 10, UINT64_MAX, -EINVAL, 0},
    {"+", 10, UINT64_MAX, -EINVAL, 0},
    {"+-1", 10, UINT64_MAX, -EINVAL, 0},
    {"++1", 10, UINT64_MAX, -EINVAL, 0},
    {"-1", 10, UINT64_MAX, -EINVAL, 0},
    {"-0", 0, UINT64_MAX, -EINVAL, 0},
    {"abc", 10, UINT64_MAX, -EINVAL, 0},
    {"abc", 0, UINT64_MAX, -EINVAL, 0},
    {"0x", 0, UINT64_MAX, -EINVAL, 0},
    {"0xg", 0, UINT64_MAX, -EINVAL, 0},
    {"08", 0, UINT64_MAX, -EINVAL, 0},
    {"0x10", 10, UINT64_MAX, -EINVAL, 0},
    {" 1", 10, UINT64_MAX, -EINVAL, 0},
    {"1 ", 10, UINT64_MAX, -EINVAL, 0},
    {"1\n\n", 10, UINT64_MAX, -EINVAL, 0},
    {"1.5", 10, UINT64_MAX, -EINVAL, 0},
    {"10k", 10, UINT64_MAX, -EINVAL, 0},
    {"garbage", 0, UINT64_MAX, -EINVAL, 0},
};

static void test_a_number_is_as_the_kernel_reads_it(void **state)
{

    (void)state;
    for (unsigned i = 0; i < COUNT(numbers); i++) {
        uint64_t value = 0;
        char *copy;
        struct mpl_attr_word word =
            word_of((struct bytes){numbers[i].text, strlen(numbers[i].text)}, &copy);
        int error = mpl_attr_number(word, numbers[i].base, numbers[i].max, &value);

        free(copy);
        if (error != numbers[i].error || value != numbers[i].value)
            fail_msg("\"%s\" base %u: %d, %llu", numbers[i].text, numbers[i].base, error,
                     (unsigned long long)value);
    }
}

/* Any size of buffer: the full length, what fits, a terminator, and not a byte behind. */
static void test_a_text_is_cut_and_counted(void **state)
{
    static const char full[] = "phys 0000002a ffffffffffffffff 18446744073709551615\nn 7\n";

    (void)state;
    for (size_t size = 0; size <= sizeof(full) + 1; size++) {
        char *buffer = malloc(size > 0 ? size : 1);
        struct mpl_attr_text text = {.buffer = size > 0 ? buffer : NULL, .size_bytes = size};
        size_t kept = size > sizeof(full) ? sizeof(full) - 1 : size > 0 ? size - 1 : 0;

        assert_non_null(buffer);
        mpl_attr_put(&text, "phys ");
        mpl_attr_put_number(&text, 42, 16, 8, '0');
        mpl_attr_put(&text, " ");
        mpl_attr_put_number(&text, UINT64_MAX, 16, 0, ' ');
        mpl_attr_put(&text, " ");
        mpl_attr_put_number(&text, UINT64_MAX, 10, 3, ' ');
        mpl_attr_put(&text, "\n");
        mpl_attr_put_pair(&text, "n", 7);
        assert_int_equal(mpl_attr_end(&text), sizeof(full) - 1);
        if (size > 0) {
            assert_memory_equal(buffer, full, kept);
            assert_int_equal(buffer[kept], '\0');
        }
        free(buffer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_word_is_exact_but_for_one_newline),
        cmocka_unit_test(test_a_boolean_is_its_first_letters),
        cmocka_unit_test(test_a_number_is_as_the_kernel_reads_it),
        cmocka_unit_test(test_a_text_is_cut_and_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
