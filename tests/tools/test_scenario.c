/* SPDX-License-Identifier: MIT */
/* The language of scenarios: what a line means, and what is said of one that means nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../../tools/memplug/replay/scenario.h"

static int parse(const char *text, struct scenario *scenario, char error[256])
{
    error[0] = '\0';
    return scenario_parse("x.scn", text, strlen(text), scenario, error, 256);
}

static void parse_good(const char *text, struct scenario *scenario)
{
    char error[256];

    if (parse(text, scenario, error))
        fail_msg("%s", error);
}

static void test_lines(void **state)
{
    static const char text[] = "# a comment\n"
                               "\n"
                               "  boot mem=1G\r\n"
                               "\tadd d0 128M at=@0 # behind it too\n"
                               "sh echo '# not here' # nor here\n"
                               "note 1 # 2\n"
                               "offline @0 7";
    struct scenario scenario;

    (void)state;
    parse_good(text, &scenario);
    assert_int_equal(scenario.nr_steps, 5);
    assert_int_equal(scenario.steps[0].line, 3);
    assert_string_equal(scenario.steps[0].text, "boot mem=1G");
    assert_int_equal(scenario.steps[1].op, OP_ADD);
    assert_string_equal(scenario.steps[1].text, "add d0 128M at=@0");
    assert_string_equal(step_option(&scenario.steps[1], "at="), "@0");
    assert_null(step_option(&scenario.steps[1], "node="));
    assert_string_equal(scenario.steps[2].text, "sh echo '# not here' # nor here");
    assert_string_equal(scenario.steps[3].text, "note 1 # 2");
    assert_int_equal(scenario.steps[4].op, OP_ONLINE);
    assert_int_equal(scenario.steps[4].line, 7);
    assert_int_equal(scenario.steps[4].nr_words, 3);
    assert_string_equal(scenario.steps[4].words[0], "offline");
    scenario_free(&scenario);
}

/* A value is what stands behind the blanks, blanks within it included. */
static void test_rest(void **state)
{
    struct scenario scenario;

    (void)state;
    parse_good("boot\nstate @0   online  online\nwsig 4 10 $M/x a b\nsh  ls -l  /\n"
               "write /p\n", &scenario);
    assert_string_equal(step_rest(&scenario.steps[1], 2), "online  online");
    assert_string_equal(step_rest(&scenario.steps[2], 4), "a b");
    assert_string_equal(step_rest(&scenario.steps[3], 1), "ls -l  /");
    assert_string_equal(step_rest(&scenario.steps[4], 2), "");
    scenario_free(&scenario);
}

static void test_boot_options(void **state)
{
    struct boot_options options;
    struct scenario scenario;

    (void)state;
    parse_good("boot\n", &scenario);
    scenario_boot_options(&scenario.steps[0], &options);
    assert_int_equal(options.mem_bytes, (uint64_t)1 << 30);
    assert_int_equal(options.maxmem_bytes, (uint64_t)32 << 30);
    assert_int_equal(options.nr_slots, 16);
    assert_int_equal(options.nr_nodes, 1);
    assert_int_equal(options.nr_cpus, 1);
    assert_null(options.append);
    assert_null(options.memhp);
    assert_null(options.memmap_on_memory);
    scenario_free(&scenario);

    parse_good("boot memmap_on_memory=force mem=64G nodes=2 smp=4 append=a=b,c memhp=kernel\n",
               &scenario);
    scenario_boot_options(&scenario.steps[0], &options);
    assert_string_equal(options.mem, "64G");
    assert_int_equal(options.mem_bytes, (uint64_t)64 << 30);
    assert_int_equal(options.maxmem_bytes, (uint64_t)64 << 30);
    assert_int_equal(options.nr_nodes, 2);
    assert_int_equal(options.nr_cpus, 4);
    assert_string_equal(options.memmap_on_memory, "force");
    assert_string_equal(options.append, "a=b,c");
    assert_string_equal(options.memhp, "kernel");
    scenario_free(&scenario);
}

static void test_sizes_and_numbers(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0}, {"4096", 4096}, {"2k", 2048}, {"128M", 128 << 20},
                {"8G", (uint64_t)8 << 30}, {"1T", (uint64_t)1 << 40}};
    static const char *const bad[] = {"", "M", "-1", "1.5G", "1 G", "0x10", "12MM", "99999999T",
                                      "123456789012345678901234567890"};
    uint64_t bytes, number;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(parse_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(parse_size(bad[i], &bytes));
    assert_true(parse_number("18446744073709551615", UINT64_MAX, &number));
    assert_int_equal(number, UINT64_MAX);
    assert_false(parse_number("18446744073709551616", UINT64_MAX, &number));
    assert_true(parse_number("63", 63, &number));
    assert_false(parse_number("64", 63, &number));
    assert_false(parse_number("7", 6, &number));
}

static void test_blocks(void **state)
{
    bool in_window;
    uint64_t number;

    (void)state;
    assert_true(parse_block("@12", &in_window, &number));
    assert_true(in_window);
    assert_int_equal(number, 12);
    assert_true(parse_block("5", &in_window, &number));
    assert_false(in_window);
    assert_false(parse_block("@", &in_window, &number));
    assert_false(parse_block("@-1", &in_window, &number));
    assert_false(parse_block("@0x", &in_window, &number));
}

/* Each is wrong, in the line that is said. */
static void test_bad_input(void **state)
{
    static const struct {
        unsigned line;
        const char *text, *says;
    } rows[] = {
        {0, "", "no step"},
        {2, "# nothing\n# at all", "no step"},
        {1, "add d0 128M\n", "begins with 'boot'"},
        {2, "boot\nboot\n", "boots once"},
        {2, "boot\nfrobnicate @0\n", "no op 'frobnicate'"},
        {1, "boot mem=1G color=red\n", "no such option"},
        {1, "boot mem=1G mem=2G\n", "twice"},
        {1, "boot mem=1\n", "memory is"},
        {1, "boot mem=1T\n", "memory is"},
        {1, "boot mem=4G maxmem=1G\n", "less than mem"},
        {1, "boot nodes=0\n", "nodes are"},
        {1, "boot nodes=65\n", "nodes are"},
        {1, "boot smp=x\n", "processors are"},
        {3, "boot\n\nadd d0\n", "too few words"},
        {2, "boot\nadd d0 128M at=7\n", "at= wants"},
        {2, "boot\nadd d0 128M at=@x\n", "at= wants"},
        {2, "boot\nadd d0 100\n", "whole pages"},
        {2, "boot\nadd d0 128M node=64\n", "a node is"},
        {2, "boot\ndel d0 wait=soon\n", "wait= is"},
        {2, "boot\ndel d0 d1 d2\n", "too many words"},
        {2, "boot\nonline\n", "too few words"},
        {2, "boot\nonline @0 one\n", "a block is"},
        {2, "boot\nstate x online\n", "a block is"},
        {2, "boot\nkpf @0 12\n", "offset and a count"},
        {2, "boot\nkpf @0 a b\n", "offset and a count"},
        {2, "boot\nwsig soon 10 p v\n", "seconds first"},
        {2, "boot\nwsig 4 65 p v\n", "a signal is"},
        {2, "boot\nhog a anon much\n", "whole MiB"},
        {2, "boot\nvadd v 1G lots\n", "number of bytes"},
        {2, "boot\nvreq v lots\n", "number of bytes"},
        {2, "boot\ntrace sideways\n", "trace is"},
        {2, "boot\nsleep never\n", "wants seconds"},
        {2, "boot\nsleep -1\n", "wants seconds"},
        {2, "boot\nread\n", "too few words"},
    };
    char error[256], start[16];
    struct scenario scenario;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!parse(rows[i].text, &scenario, error))
            fail_msg("row %zu: taken: %s", i, rows[i].text);
        snprintf(start, sizeof(start), "x.scn:%u: ", rows[i].line);
        if (strncmp(error, start, strlen(start)) != 0 || !strstr(error, rows[i].says))
            fail_msg("row %zu: '%s' says '%s'", i, rows[i].text, error);
        assert_null(scenario.steps);
    }
    assert_int_equal(scenario_parse("x.scn", "boot\nsh a\0b\n", 12, &scenario, error, 256), -1);
    assert_int_equal(scenario_read("/nonexistent/x.scn", &scenario, error, 256), -1);
    assert_non_null(strstr(error, "No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_rest),
        cmocka_unit_test(test_boot_options),  cmocka_unit_test(test_sizes_and_numbers),
        cmocka_unit_test(test_blocks),        cmocka_unit_test(test_bad_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
