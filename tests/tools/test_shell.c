/* SPDX-License-Identifier: MIT */
/* The shell's language and tools; what is not understood; malformed lines; random ones. The texts
 * are those of busybox 1.35. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "toy_machine.h"

static struct toy_machine machine;

static void expect(const char *line, int exit, enum shell_verdict verdict, const char *text)
{
    toy_expect(&machine, line, exit, verdict, text);
}

static void run(const char *line, struct shell_result *result)
{
    toy_run(&machine, line, result);
}

static void close_machine(void)
{
    assert_int_equal(toy_close(&machine), 0);
}

/* --- the language ----------------------------------------------------------------------------- */

static const struct {
    const char *line;
    int exit;
    const char *text;
} language[] = {
    {"echo $((1+2*3)) $((0x10)) $((010)) $((5/2)) $((1<<4)) $((7%4)) $(( -3 )) $((1?2:3))", 0,
     "7 16 8 2 16 3 -3 2\n"},
    {"i=3; echo $((i+1)) $(($i+1)) $((i++)) $i $((i-- + 1)) $i", 0, "4 4 3 4 5 3\n"},
    {"echo $((1 == 1 && 1)) $((!0)) $((~1)) $(((1+2)*3)) $((x=5, x+=2)) $x $((0 && (y=1)))$y", 0,
     "1 1 -2 9 7 7 0\n"},
    {"echo a; echo $((1/0)); echo after", 2, "a\nsh: divide by zero\n"},
    {"echo $((08))", 2, "sh: arithmetic syntax error\n"},
    {"x=; echo \"${x:-def}\" ${y-z} ${#x} ${x:=7} $x; p=/a/memory12; echo ${p##*/memory} ${p%/*}",
     0, "def z 0 7 7\n12 /a\n"},
    {"set -- a \"b c\" d; echo $# $2; for i in \"$@\"; do echo \"<$i>\"; done; shift; echo $*", 0,
     "3 b c\n<a>\n<b c>\n<d>\nb c d\n"},
    {"set --; for i in \"$@\"; do echo no; done; echo \"\" | wc -c", 0, "1\n"},
    {"for i in 1 2; do for j in 1 2; do break 2; done; done; echo $i $j", 0, "1 1\n"},
    {"until [ \"$i\" = aaa ]; do i=a$i; done; echo $i", 0, "aaa\n"},
    {"if false; then echo a; elif true; then echo b; else echo c; fi; ! true; echo $?", 0,
     "b\n1\n"},
    {"case memory48 in [0-9]*) echo n;; memory*|x) echo A;; *) echo B;; esac", 0, "A\n"},
    {"x=1; (x=2; exit 3); echo $x $?; { x=4; }; echo $x; echo a | x=5; echo $x", 0,
     "1 3\n4\n4\n"},
    {"exit 7; echo no", 7, ""},
    {"false || echo or; true && echo and; false && echo no; echo $?", 0, "or\nand\n1\n"},
    {"echo \"a\\\"b\\$c\" 's q' a\\ b `echo \\`echo nest\\`` \"$(echo \"in \\\"q\\\"\")\"", 0,
     "a\"b$c s q a b nest in \"q\"\n"},
    {"echo \"$(printf 'a\\n\\n')\"; x=$(false); echo $?", 0, "a\n1\n"},
    {"echo one # two\necho three; echo fo\\\nur", 0, "one\nthree\nfour\n"},
    {"exec 3>/tmp/h; echo hi >&3; echo ho >&3; exec 3>&-; cat /tmp/h; echo x >&3", 1,
     "hi\nho\nsh: 3: Bad file descriptor\n"},
    {"echo a >/tmp/h; echo b >>/tmp/h; while read l; do echo \"<$l>\"; done </tmp/h", 0,
     "<a>\n<b>\n"},
    {"printf 'a b c\\n' | { read x y; echo \"$y-$x\"; }; echo ' l ' | IFS= read l; echo [$l]", 0,
     "b c-a\n[]\n"},
    {"ls /nope >/tmp/e 2>&1; cat /tmp/e; cat /nope 2>/dev/null || echo missing", 0,
     "ls: /nope: No such file or directory\nmissing\n"},
    {"echo x >/nope/x; echo $?; cat </nope; echo $?; echo x >$M/block_size_bytes; echo $?", 0,
     "sh: can't create /nope/x: nonexistent directory\n1\nsh: can't open /nope: no such file\n1\n"
     "sh: can't create /sys/devices/system/memory/block_size_bytes: Permission denied\n1\n"},
    {"echo x >/dev/full; echo $?; printf x >/dev/full; echo $?; cat /proc/iomem >/dev/full; "
     "echo $?", 0, "sh: write error: No space left on device\n1\n1\n"
     "cat: write error: No space left on device\n1\n"},
    {"echo $M/memory[01]; echo $M/nope*; echo '*'; cd $M; echo memory4[67]/sta*; pwd", 0,
     TOY_MEMORY "/memory0 " TOY_MEMORY "/memory1\n" TOY_MEMORY "/nope*\n*\n"
     "memory46/state memory47/state\n" TOY_MEMORY "\n"},
    {"[ 3 -eq 03 ] && [ a != b ] && [ -z '' -a -n x ] && [ ! -e /nope ] && [ -d $M ] && echo yes",
     0, "yes\n"},
    {"[ 1 -lt x ]; echo $?; [ a = a; echo $?; [ ]; echo $?; [ a b c ]; echo $?", 0,
     "sh: x: bad number\n2\nsh: missing ]\n2\n1\nsh: b: unknown operand\n2\n"},
    {"printf '%08x %d %s|%5s|%-5s|%c|%%\\n' 255 0x10 abc ab ab xyz; printf '%s\\n' a b", 0,
     "000000ff 16 abc|   ab|ab   |x|%\na\nb\n"},
    {"printf '%d\\n' abc; echo $?; printf '%d|\\n'", 1,
     "sh: invalid number 'abc'\n0\n1\nsh: invalid number ''\n0|\n"},
    {"printf 'b\\na\\na\\n' | sort | uniq -c; printf '10\\n9\\n' | sort -n; "
     "printf '1 b\\n2 a\\n' | sort -k2; printf 'b\\na\\nb\\n' | sort -u", 0,
     "      2 a\n      1 b\n9\n10\n2 a\n1 b\na\nb\n"},
    {"seq 3 | tail -n +2; seq 1 2 6 | head -n 2; seq 5 | head -c 3; seq 4 | tail -2 | wc -l", 0,
     "2\n3\n1\n3\n1\n22\n"},
    {"echo a1 | grep '[0-9]\\+'; seq 12 | grep -c 1; seq 12 | grep -e 3 -e 7; seq 3 | grep -v 2; "
     "echo abcb | grep -o b; echo $?", 0, "a1\n4\n3\n7\n1\n3\nb\nb\n0\n"},
    {"echo a b  c | awk '{print $2}'; echo a:b | awk -F: '{print $2 \"-\" $1, NF}'; "
     "seq 5 | awk 'NR==3{print}'; seq 12 | awk '/^1/ {print NR}'", 0,
     "b\nb-a 2\n3\n1\n10\n11\n12\n"},
    {"echo abab | sed 's/b/X/g'; seq 5 | sed -n '2,3p'; seq 3 | sed '$d'; seq 9 | sed 2q; "
     "echo memory12 | sed 's/memory\\([0-9]*\\)/\\1!/'", 0, "aXaX\n2\n3\n1\n2\n1\n2\n12!\n"},
    {"echo a:b:c | cut -d: -f1,3; echo aXb | tr X Y; basename /a/b; dirname /a/b", 0,
     "a:c\naYb\nb\n/a\n"},
    {"mkdir /tmp/d; mkdir /tmp/d; rmdir /tmp/d /tmp/d; rm /tmp/d; rm -f /tmp/d; echo $?", 0,
     "mkdir: can't create directory '/tmp/d': File exists\n"
     "rmdir: '/tmp/d': No such file or directory\n"
     "rm: can't remove '/tmp/d': No such file or directory\n0\n"},
    {"mkdir -p /tmp/d; rm /tmp/d; rm -r /tmp/d; ls -d /tmp/*", 1,
     "rm: '/tmp/d' is a directory\nls: /tmp/*: No such file or directory\n"},
    {"dd if=/dev/zero of=/tmp/z bs=1M count=5; ls /tmp", 0,
     "dd: error writing '/tmp/z': No space left on device\n5+0 records in\n4+0 records out\nz\n"},
    {"sleep 1.5; sleep x; usleep 3", 0, "sleep: invalid number 'x'\n"},
    {"mount -t ext4 r /tmp; echo $?; mount -t ramfs r /nope; insmod /x.ko; echo $?", 0,
     "mount: mounting r on /tmp failed: No such device\n255\n"
     "mount: mounting r on /nope failed: No such file or directory\n"
     "insmod: can't insert '/x.ko': No such file or directory\n1\n"},
    {"chmem -b -e 999; echo $?; chmem -e 100M; chmem -d 0x1-0x2; chmem -e x; chmem -e -z no 128M",
     1, "1\nchmem: Size must be aligned to memory block size (128M)\n"
     "chmem: Start address and (end address + 1) must be aligned to memory block size (128M)\n"
     "chmem: Invalid parameter: x\nchmem: unknown memory zone: no\n"},
    {"chmem -b -d 7; echo $?; chmem -b -d 6-7; echo $?; chmem -e 256M; echo $?", 0,
     "chmem: Memory Block 7 (0x0000000038000000-0x000000003fffffff) disable failed: Invalid "
     "argument\n1\nchmem: Memory Block 7 (0x0000000038000000-0x000000003fffffff) disable failed: "
     "Invalid argument\n64\nchmem: Could only enable 128M of memory\n64\n"},
    /* malformed */
    {"echo a; if", 2, "sh: syntax error: unexpected end of file (expecting \"then\")\n"},
    {"echo )", 2, "sh: syntax error: unexpected \")\"\n"},
    {"echo \"abc", 2, "sh: syntax error: unterminated quoted string\n"},
    {"while true; do", 2, "sh: syntax error: unexpected end of file (expecting \"done\")\n"},
    {"echo one; ; echo two", 2, "sh: syntax error: unexpected \";\"\n"},
    {"echo a || ; echo b", 2, "sh: syntax error: unexpected \";\"\n"},
    {"do", 2, "sh: syntax error: unexpected \"do\"\n"},
    {"( echo a", 2, "sh: syntax error: unexpected end of file (expecting \")\")\n"},
    {"echo ${x", 2, "sh: syntax error: missing '}'\n"},
    {"echo $((1+)", 2, "sh: syntax error: missing '))'\n"},
    {"echo a > ", 2, "sh: syntax error: unexpected end of file\n"},
};

static void test_language(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(language) / sizeof(language[0]); i++) {
        toy_boot(&machine);
        expect(language[i].line, language[i].exit, SHELL_UNDERSTOOD, language[i].text);
        close_machine();
    }
}

static void test_sleep(void **state)
{
    (void)state;
    toy_boot(&machine);
    expect("sleep 2; (sleep 1) & wait; usleep 500000", 0, SHELL_UNDERSTOOD, "");
    assert_int_equal(machine.slept_ns, 3500000000u);
    close_machine();
}

/* A file that is open while its block goes. */
static void gone_file(void *context, uint64_t ns)
{
    (void)ns;
    toy_remove(context, TOY_MEMORY "/memory48");
}

static void test_held_open(void **state)
{
    (void)state;
    toy_boot(&machine);
    toy_add_block(&machine, 48, 0, "Movable");
    machine.host.sleep = gone_file;
    expect("exec 3<$M/memory48/state 4>$M/memory48/state; sleep 1; cat <&3; echo offline >&4; "
           "echo rc=$?; cat $M/memory48/state", 1, SHELL_UNDERSTOOD,
           "cat: read error: No such device\nsh: write error: No such device\nrc=1\n"
           "cat: can't open '/sys/devices/system/memory/memory48/state': No such file or "
           "directory\n");
    close_machine();
}

/* --- what is not understood ------------------------------------------------------------------- */

static const struct {
    const char *line, *culprit;
    bool changes;
} unknown[] = {
    {"echo offline > $M/memory7/state; frobnicate", "frobnicate", true},
    {"strings /sys", "strings", false},
    {"strings /sys > /dev/null", "strings", false},
    {"strings /sys > $M/memory7/state", "strings", true},
    {"x=ls; $x", "a command that is only known when it runs", true},
    {"sh -c 'echo; frobnicate'", "frobnicate", true},
    {"bash -c 'for ((i = 0; i < 3; i++)); do echo $i; done'", "bash's syntax", false},
    {"bash -c 'a=(1 2); echo ${a[0]}'", "bash's syntax", false},
    {"bash -c 'echo {1..3} {a,b}'", "bash's syntax", false},
    {"bash -c 'echo ${x^^}'", "${...} of a kind", false},
    {"timeout 5 frobnicate", "frobnicate", true},
    {"f() { frobnicate; }; echo", "frobnicate", true},
    {"eval 'strings /sys'", "strings", false},
    {"ls | xargs strings", "strings", false},
    {"cat -x /proc/iomem", "cat -x", false},
    {"echo $(echo `frobnicate`)", "frobnicate", true},
    {"echo ${x:-$(strings /)}", "strings", false},
    {"awk '{print > \"/tmp/x\"}' /proc/iomem", "awk script", false},
    {"awk 'BEGIN {system(\"ls\")}'", "awk script", false},
    {"sed ':a;ta' /proc/iomem", "sed script", false},
    {"sed -i ':a;ta' /proc/iomem", "sed script", true},
    {"dd if=/dev/zero of=/tmp/x seek=4", "dd seek=4", true},
    {"set -f; echo", "set", false},
    {"exec strings", "strings", false},
    {"lsmem -r", "lsmem -r", false},
};

static void test_unknown(void **state)
{
    struct shell_result result;

    (void)state;
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        toy_boot(&machine);
        run(unknown[i].line, &result);
        if (result.verdict != SHELL_UNKNOWN || strcmp(result.culprit, unknown[i].culprit) != 0 ||
            result.changes != unknown[i].changes || result.ran || result.length != 0)
            fail_msg("%s: verdict %d, culprit '%s', changes %d, ran %d", unknown[i].line,
                     result.verdict, result.culprit, result.changes, result.ran);
        assert_int_equal(machine.nr_writes, 0);
        shell_result_free(&result);
        close_machine();
    }
}

/* What comes out only while the line runs: part of it has been carried out. */
static void test_unknown_late(void **state)
{
    struct shell_result result;

    (void)state;
    toy_boot(&machine);
    run("echo before; insmod /mod/secret.ko; echo after", &result);
    assert_int_equal(result.verdict, SHELL_UNKNOWN);
    assert_true(result.ran && result.changes);
    assert_string_equal(result.text, "before\n");
    shell_result_free(&result);
    close_machine();
}

static void test_endless(void **state)
{
    static const char *const lines[] = {
        "while true; do :; done", "x=a; while true; do x=$x$x; done",
        "cat /dev/zero >/dev/null", "wc /dev/zero", "dd bs=1M if=/dev/zero of=/dev/null",
        "seq 1000000000", "while :; do sleep 1 & done",
        "while :; do echo x; done | head -1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct shell_result result;

        toy_boot(&machine);
        run(lines[i], &result);
        if (result.verdict != SHELL_ENDLESS)
            fail_msg("%s: verdict %d", lines[i], result.verdict);
        shell_result_free(&result);
        close_machine();
    }
}

/* A line that is marked as a real kernel's own counts only if some of it comes out. */
static void test_foreign(void **state)
{
    (void)state;
    toy_boot(&machine);
    expect("grep MemTotal /proc/meminfo", 0, SHELL_UNDERSTOOD,
           "MemTotal:        4016272 kB\n");
    expect("grep ^MemFree: /proc/meminfo", 0, SHELL_FOREIGN_TEXT, "MemFree:         3952532 kB\n");
    expect("wc -c /proc/meminfo", 0, SHELL_UNDERSTOOD, "165 /proc/meminfo\n");
    expect("set -- $(grep MemFree /proc/meminfo); [ $2 -gt 5 ] && echo \"$(($2 > 5)) enough\"", 0,
           SHELL_UNDERSTOOD, "1 enough\n");
    expect("set -- $(grep MemFree /proc/meminfo); echo $2", 0, SHELL_FOREIGN_TEXT, "3952532\n");
    expect("awk '/MemFree/ {print $2}' /proc/meminfo", 0, SHELL_FOREIGN_TEXT, "3952532\n");
    expect("free > /dev/null; date >/dev/null; echo", 0, SHELL_UNDERSTOOD, "\n");
    expect("head -1 /proc/slabinfo; echo 1 > /proc/slabinfo", 0, SHELL_FOREIGN_TEXT, "");
    close_machine();
}

/* --- random lines ----------------------------------------------------------------------------- */

static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

/* Pieces that mean something, so that a good part of the lines is almost right. */
static void random_line(uint64_t *random, char *line, size_t size_bytes)
{
    static const char *const pieces[] = {
        "echo", " ", " ", " ", ";", "; ", "\n", "|", "||", "&&", "&", "(", ")", "{ ", "; }",
        "$(", "`", "\"", "'", "\\", "$((", "))", "${", "}", "$x", "$@", "$?", "x=", "1", "a b",
        ">", "<", ">>", "2>&1", ">/dev/null", "/tmp/f", "$M/memory48/state", "*", "?", "[",
        "]", "if ", "then ", "fi", "for i in ", "while ", "do ", "; done", "case ", " in ", "esac",
        ";;", "cat", "grep -c ", "sort", "head -1", "offline", "test ", "-lt", "set -- ", "read x",
        "break", "exit ", "printf '%d' ", "\1", "#", "+", "-", "*", "%%", "/", "0x", "=", ":-",
        "f() ", "f ", "local x=1", "return ", "sh -c '", "eval ", "<<E\n", "E\n", "[[ ", " ]]",
        "timeout 1 ", "sleep 2", "xargs ", "find /tmp -name ", "awk '{s+=$1}END{print s}'",
        "set -e",
        "sed '$!{N;s/\\n/-/}'", "trap 'echo t' EXIT", "sort -t: -k1,2n", "expr 1 + ", "${x/a/b}",
        "${x:1:", "bc", "getopts a: o ", "tr -s ", "IFS=:", ". /tmp/f", "function g ", "grep -A1 ",
        "sed s/a/b/", "awk '{print $1}'", "lsmem", "chmem -e 128M", "rm -r ", "mkdir ", "dd bs=1",
    };
    size_t length = 0, nr_pieces = 1 + next(random) % 24;

    line[0] = '\0';
    for (size_t i = 0; i < nr_pieces; i++) {
        const char *piece = pieces[next(random) % (sizeof(pieces) / sizeof(pieces[0]))];

        length += (size_t)snprintf(line + length, size_bytes - length, "%s", piece);
    }
}

static void test_random(void **state)
{
    const char *setting = getenv("MEMPLUG_SHELL_LINES");
    unsigned nr_lines = setting != NULL ? (unsigned)strtoul(setting, NULL, 10) : 20000;
    uint64_t random = 88172645463325252u;
    unsigned nr_ran = 0;
    char line[1024];

    (void)state;
    toy_boot(&machine);
    toy_add_block(&machine, 48, 0, "");
    for (unsigned i = 0; i < nr_lines; i++) {
        struct shell_result result;

        random_line(&random, line, sizeof(line));
        run(line, &result);
        if (strchr(result.text, SHELL_FOREIGN_MARK) != NULL)
            fail_msg("a mark came out of: %s", line);
        nr_ran += result.ran;
        shell_result_free(&result);
    }
    assert_true(nr_ran > nr_lines / 50); /* else the lines are too wild to show anything */
    close_machine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_language),   cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_held_open),  cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_unknown_late), cmocka_unit_test(test_endless),
        cmocka_unit_test(test_foreign),    cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
