/* SPDX-License-Identifier: MIT */
/* Programs in shell lines, and texts taken apart: what busybox 1.35 answered, word for word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "toy_machine.h"

struct row {
    const char *line;
    int exit;
    const char *text;
};

static const struct row programs[] = {
    {"f() { echo \"f $1 $#\"; return 3; }; f a b; echo $?", 0, "f a 2\n3\n"},
    {"f() { local x=2; g; echo $x; }; g() { x=5; }; x=1; f; echo $x", 0, "5\n1\n"},
    {"f() { for i in 1 2 3; do [ $i = 2 ] && return 7; echo $i; done; }; f; echo $?", 0, "1\n7\n"},
    {"f() { g() { echo inner; }; g; }; f; g; f() ( x=9; echo $x ); x=1; f; echo $x", 0,
     "inner\ninner\n9\n1\n"},
    {"function g { echo \"$FUNCNAME$1\"; }; g 1; f() { echo \"$@\"; shift; echo $*; }; f 1 2 3"
     "; echo $#", 0,
     "g1\n1 2 3\n2 3\n0\n"},
    {"sh -c 'echo $0 $1' a b; x=1; sh -c 'echo [$x]'; export x; sh -c 'echo [$x]'; y=2 sh -c '"
     "echo $y'; echo [$y]", 0,
     "a b\n[]\n[1]\n2\n[]\n"},
    {"sh -c 'exit 4'; echo $?; sh -c 'if'; echo $?; (echo $((1/0))); echo $?", 0,
     "4\nsh: syntax error: unexpected end of file (expecting \"then\")\n2\nsh: divide by zero\n2"
     "\n"},
    {"echo 'echo hi $1; exit 3' > /tmp/s; sh /tmp/s arg; echo $?; echo 'a=7; return 2; a=8' > "
     "/tmp/s; . /tmp/s; echo $? $a", 0,
     "hi arg\n3\n2 7\n"},
    {"printf '#!/bin/sh\\necho \"$0 $1\"\\n' > /tmp/t; chmod +x /tmp/t; /tmp/t q; cd /tmp; ./t"
     " r", 0,
     "/tmp/t q\n./t r\n"},
    {"sh /nope; echo $?; ./nope; echo $?; . /nope; echo no", 2,
     "sh: can't open '/nope': No such file or directory\n2\nsh: ./nope: not found\n127\nsh: .: l"
     "ine 0: can't open '/nope': No such file or directory\n"},
    {"eval 'x=3; echo $x'; eval \"echo \\$x\"; eval; echo $?", 0, "3\n3\n0\n"},
    {"timeout 5 echo hi; echo $?; timeout 5 sh -c 'exit 3'; echo $?", 0, "hi\n0\n3\n"},
    {"timeout 1 sleep 3; echo $?; timeout 1 sh -c 'sleep 2; echo no'; echo $?", 0,
     "Terminated\n143\nTerminated\n143\n"},
    {"set -e; true; false || true; if false; then :; fi; ! true; echo here; false; echo no", 1,
     "here\n"},
    {"set -e; f() { false; echo in; }; f || echo caught; (false); echo no", 1, "in\n"},
    {"set -u; echo ${x-ok}; echo $x; echo no", 2, "ok\nsh: x: parameter not set\n"},
    {"set -o pipefail; false | true; echo $?; true | true; echo $?; set +o pipefail; false | t"
     "rue; echo $?", 0,
     "1\n0\n0\n"},
    {"set -euo pipefail; echo ok; false | cat; echo no", 1, "ok\n"},
    {"trap 'echo bye $?' EXIT; (trap 'echo sub' EXIT; echo in); echo hi; exit 3", 3,
     "in\nsub\nhi\nbye 3\n"},
    {"let x=3+4; echo $x; let x==8; echo $?", 0, "7\n1\n"},
    {"x=abcdef; echo ${x:1:2} ${x:3} ${x: -2} ${x/b/Z} ${x//[ace]/-}; x=/a/memory12; echo ${x/"
     "memory/block}", 0,
     "bc def ef aZcdef -b-d-f\n/a/block12\n"},
    {"[[ a == a && b == b ]] && echo 1; [[ abc == a* ]] && echo 2; [[ abc =~ ^a.c$ ]] && echo "
     "3; [[ -n \"\" || a != b* ]] && echo 4", 0,
     "1\n2\n3\n4\n"},
    {"while getopts ab:c o -a -b 3 -c x; do echo $o $OPTARG $OPTIND; done; echo $OPTIND; getop"
     "ts a o -z; echo $? $o", 0,
     "a 2\nb 3 4\nc 5\n5\nIllegal option -z\n0 ?\n"},
    {"f() { while getopts xy: o; do echo $o-$OPTARG; done; shift $((OPTIND-1)); echo rest $*; "
     "}; f -xy 7 r1 r2", 0,
     "x-\ny-7\nrest r1 r2\n"},
    {"printf 'a b\\nc\\n' | xargs echo x; printf 'a\\nb\\n' | xargs -n1 echo; printf 'a b\\nc"
     "\\n' | xargs -I{} echo '<{}>'", 0,
     "x a b c\na\nb\n<a b>\n<c>\n"},
    {"printf '' | xargs echo e; printf '' | xargs -r echo e; echo a | xargs sh -c 'exit 1'; ec"
     "ho $?", 0,
     "e\n123\n"},
    {"env X=1 sh -c 'echo $X'; command echo hi; busybox echo hi; (exec echo sub); exec echo la"
     "st; echo no", 0,
     "1\nhi\nhi\nsub\nlast\n"},
    {"mkdir -p /tmp/d/e; touch /tmp/d/a /tmp/d/b.txt /tmp/d/e/c.txt; find /tmp/d | sort; find "
     "/tmp/d -name '*.txt' | wc -l", 0,
     "/tmp/d\n/tmp/d/a\n/tmp/d/b.txt\n/tmp/d/e\n/tmp/d/e/c.txt\n2\n"},
    {"mkdir -p /tmp/d/e; touch /tmp/d/a; cd /tmp; find d -type d | sort; find d -mindepth 1 ! "
     "-name e -type f; find d -name a -exec echo '<' {} \\;", 0,
     "d\nd/e\nd/a\n< d/a\n"},
    {"mkdir /tmp/q; cd /tmp/q; find /tmp/nope; echo $?; touch a; find . -name a -o -name b; fi"
     "nd . -maxdepth 0", 0,
     "find: /tmp/nope: No such file or directory\n1\n./a\n.\n"},
    {"expr 1 + 2; expr 6 / 4; expr 6 \\* 4; expr abc : 'a\\(.\\)'; expr abc : 'ab'; expr 1 = 2"
     "; echo $?; expr \\( 1 + 2 \\) \\* 3", 0,
     "3\n1\n24\nb\n2\n0\n1\n9\n"},
    {"echo '1+2*3' | bc; echo 'a=5; a*2' | bc; echo 'a=10; if ( a%4 ) a/4+1 else a/4' | bc", 0,
     "7\n10\n3\n"},
    {"printf 'a\\nb\\nc\\n' | tac; echo abc | rev; printf 'a\\n\\nb\\n' | nl; printf 'a\\nb\\n"
     "' | paste -s -d,", 0,
     "c\nb\na\ncba\n     1\ta\n       \n     2\tb\na,b\n"},
    {"echo a:b | { IFS=: read x y; echo $y; }; x=a:b:c; IFS=:; set -- $x; echo $2 $#; IFS=,; e"
     "cho \"$*\"; y=1,,2; for i in $y; do echo [$i]; done", 0,
     "b\nb 3\na,b,c\n[1]\n[]\n[2]\n"},
    {"x=$(cat /nope 2>/dev/null || echo default); echo $x; i=0; while [ $i -lt 2 ]; do i=$((i+"
     "1)); echo $i; done", 0,
     "default\n1\n2\n"},
};

static const struct row texts[] = {
    {"printf 'b 2\\na 10\\nc 1\\n' | sort -k2 -n; printf 'b:2\\na:10\\n' | sort -t: -k2,2n; pr"
     "intf 'b\\nB\\na\\n' | sort -f", 0,
     "c 1\nb 2\na 10\nb:2\na:10\na\nB\nb\n"},
    {"printf 'a 2\\na 1\\n' | sort -k1,1 -s; printf '1 b\\n1 a\\n' | sort -k1,1n -k2,2r; print"
     "f '1.5\\n1.25\\n' | sort -n", 0,
     "a 2\na 1\n1 b\n1 a\n1.25\n1.5\n"},
    {"printf 'abc\\n' | cut -b2; printf 'nodelim\\na,b\\n' | cut -d, -f2 -s; printf 'a,b,c\\n'"
     " | cut -d, -f2-", 0,
     "b\nb\nb,c\n"},
    {"echo 'a  b' | tr -s ' '; echo abc | tr -c 'ab\\n' X; echo hello | tr '[:lower:]' '[:uppe"
     "r:]'; echo a1b2 | tr -cd '[:digit:]'", 0,
     "a b\nabX\nHELLO\n12"},
    {"seq -s, 3; seq -w 8 10; seq 3 -1 1; basename /a/b/; dirname /a/b/; basename /a/b.txt .tx"
     "t", 0,
     "1,2,3\n08\n09\n10\n3\n2\n1\nb\n/a\nb\n"},
    {"printf '1\\n2\\n3\\n4\\n5\\n6\\n7\\n' | grep -A1 -E '2|6'; printf '1\\n2\\n3\\n' | grep "
     "-B1 3; printf '1\\n2\\n3\\n4\\n5\\n' | grep -C1 -n 3", 0,
     "2\n3\n--\n6\n7\n2\n3\n2-2\n3:3\n4-4\n"},
    {"echo x > /tmp/g; grep -L y /tmp/g; grep -L x /tmp/g; printf 'a-b\\n' | grep -e -b; grep "
     "-r x /tmp/g", 0,
     "/tmp/g\na-b\nx\n"},
    {"echo hello | sed 's/l/L/2'; echo hello | sed -e 's/h/H/' -e 's/o/O/'; echo abc | sed 'y/"
     "abc/xyz/'; echo ABC | sed 's/b/x/I'", 0,
     "helLo\nHellO\nxyz\nAxC\n"},
    {"printf 'a\\nb\\n' | sed '/a/!d'; printf 'a\\nb\\n' | sed -n '/b/='; printf 'a\\nb\\n' | "
     "sed '1i\\top'; printf 'a\\nb\\n' | sed '1a end'", 0,
     "a\n2\ntop\na\nb\na\nend\nb\n"},
    {"printf 'a\\nb\\n' | sed 'N;s/\\n/ /'; printf 'x\\nq\\n' | sed '/x/{s/x/y/;s/y/z/}'; prin"
     "tf 'a\\n' | sed 's/a/x\\ny/'; printf '1\\n2\\n3\\n' | sed '2c two'", 0,
     "a b\nz\nq\nx\ny\n1\ntwo\n3\n"},
    {"echo a > /tmp/i; sed -i 's/a/b/' /tmp/i; cat /tmp/i; printf '1\\n2\\n3\\n4\\n' | sed -n "
     "'2,+1p'; printf '1\\n2\\n3\\n' | sed '2,$s/^/>/'", 0,
     "b\n2\n3\n1\n>2\n>3\n"},
    {"printf '%5.2f|%06d|%i\\n' 3.14159 42 5; : > /tmp/e; [ -s /tmp/e ] || echo empty; [ -t 0 "
     "]; echo $?", 0,
     " 3.14|000042|5\nempty\n1\n"},
};

static const struct row awks[] = {
    {"printf 'a 1\\nb 2\\nc 30\\n' | awk '{s+=$2} END{print s}'", 0, "33\n"},
    {"printf 'a 1\\nb 2\\nc 30\\n' | awk '{s+=$2} END{print s, NR, s/NR}'", 0, "33 3 11\n"},
    {"printf 'a 1\\nb 2\\n' | awk '{printf \"%s=%d\\n\", $1, $2}'", 0, "a=1\nb=2\n"},
    {"printf 'a 1\\nb 2\\nc 30\\n' | awk '$2>1{print $1}'", 0, "b\nc\n"},
    {"printf 'a 1\\nb 2\\nc 30\\n' | awk '$1==\"b\"{print $2; exit}'", 0, "2\n"},
    {"printf 'a 1\\nb 2\\nc 30\\n' | awk 'NR>1 && NR<3'", 0, "b 2\n"},
    {"printf 'a 1\\nb 2\\nc 30\\n' | awk 'END{print}'", 0, "c 30\n"},
    {"printf 'a:1\\nb:2\\n' | awk -F: '{print $2,$1}'", 0, "1 a\n2 b\n"},
    {"printf 'a:1\\nb:2\\n' | awk -F: -v OFS=- '{print $2,$1}'", 0, "1-a\n2-b\n"},
    {"printf 'a:1\\nb:2\\n' | awk -F: 'BEGIN{OFS=\"-\"}{$1=$1;print}'", 0, "a-1\nb-2\n"},
    {"printf 'a 1\\na 2\\nb 3\\n' | awk '{c[$1]+=$2} END{for(k in c) print k,c[k]}' | sort", 0,
     "a 3\nb 3\n"},
    {"printf 'a 1\\na 2\\nb 3\\n' | awk '!seen[$1]++'", 0, "a 1\nb 3\n"},
    {"awk 'BEGIN{for(i=0;i<3;i++) print i}'", 0, "0\n1\n2\n"},
    {"awk 'BEGIN{i=0; while(i<3){ if(i==1){i++;continue} print i; i++}}'", 0, "0\n2\n"},
    {"awk 'BEGIN{print length(\"abc\"), substr(\"hello\",2,3), index(\"hello\",\"l\"), toupper"
     "(\"ab\"), int(3.9)}'", 0,
     "3 ell 3 AB 3\n"},
    {"awk 'BEGIN{n=split(\"a,b,c\",x,\",\"); print n, x[1], x[3]}'", 0, "3 a c\n"},
    {"awk 'BEGIN{s=\"aXbX\"; gsub(/X/,\"-\",s); print s; sub(\"a\",\"<&>\",s); print s}'", 0,
     "a-b-\n<a>-b-\n"},
    {"printf 'hello world\\n' | awk '{gsub(\"o\",\"0\"); print}'", 0, "hell0 w0rld\n"},
    {"printf 'hello world\\n' | awk '{sub(/wor/,\"\"); print $2; print NF}'", 0, "ld\n2\n"},
    {"printf '1\\n2\\n3\\n4\\n' | awk '/2/,/3/'", 0, "2\n3\n"},
    {"printf '1\\n2\\n3\\n4\\n' | awk 'NR%2==0{next}{print}'", 0, "1\n3\n"},
    {"printf 'x 0x10\\n' | awk '{print $2+0}'", 0, "16\n"},
    {"awk 'BEGIN{printf \"%5d|%-5s|%05.1f|%x|%c|%%\\n\", 42, \"ab\", 3.14159, 255, \"xyz\"}'", 0,
     "   42|ab   |003.1|ff|x|%\n"},
    {"awk 'BEGIN{print 1==1.0, \"a\"<\"b\", \"10\"<\"9\", 10<9}'", 0, "1 1 1 0\n"},
    {"printf '10 9\\n' | awk '{print ($1<$2)}'", 0, "0\n"},
    {"printf '10 9\\n' | awk '{print ($1>$2)?\"x\":\"y\"}'", 0, "x\n"},
    {"awk 'BEGIN{print \"a\" \"b\" 1+2 \"c\"}'", 0, "ab3c\n"},
    {"awk 'BEGIN{print -1 \" \" -1}'", 0, "-1-1\n"},
    {"awk 'BEGIN{x=\"A\"; y=x++; print x,y}'", 0, "1 0\n"},
    {"awk 'BEGIN{if(!(\"k\" in a)) print \"no\"; a[\"k\"]=1; if(\"k\" in a) print \"yes\"; del"
     "ete a[\"k\"]; print length(a)}'", 0,
     "no\nyes\n0\n"},
    {"printf 'MemTotal: 100 kB\\nMemFree: 50 kB\\n' | awk '/MemTotal/{t=$2} /MemFree/{f=$2} EN"
     "D{print t-f}'", 0,
     "50\n"},
    {"printf 'MemTotal: 100 kB\\nMemFree: 50 kB\\n' | awk '/^MemTotal/ {print $2/1024 \" MB\"}"
     "'", 0,
     "0.0976562 MB\n"},
    {"printf 'a b c\\n' | awk '{$2=\"\";print}'", 0, "a  c\n"},
    {"printf 'a b c\\n' | awk '{print $NF, $(NF-1)}'", 0, "c b\n"},
    {"printf 'a b c\\n' | awk '{for(i=NF;i>0;i--) printf \"%s \", $i; print \"\"}'", 0, "c b a \n"},
    {"printf 'k=v\\n' | awk -F= '{print $2}'", 0, "v\n"},
    {"printf '  lead  x\\n' | awk '{print $1}'", 0, "lead\n"},
    {"printf 'a\\tb c\\n' | awk -F'\\t' '{print $2}'", 0, "b c\n"},
    {"printf 'a1b22c\\n' | awk -F'[0-9]+' '{print $1,$2,$3}'", 0, "a b c\n"},
    {"awk 'BEGIN { exit 3 }'; echo $?", 0, "3\n"},
    {"printf 'a b\\n' | awk '{print $1; print $2}' | tail -1", 0, "b\n"},
    {"printf '3\\n1\\n2\\n' | awk 'BEGIN{m=0} $1>m{m=$1} END{print \"max\", m}'", 0, "max 3\n"},
    {"printf 'a\\nb\\n' | awk '{print NR\": \"$0}'", 0, "1: a\n2: b\n"},
    {"awk 'BEGIN{print substr(\"hello\",0,2) \"|\" substr(\"hello\",4) \"|\" substr(\"hello\","
     "-1,3)}'", 0,
     "he|lo|hel\n"},
    {"awk 'BEGIN{print length()}' </dev/null", 0, "0\n"},
    {"printf 'abc\\n' | awk '{print length}'", 0, "3\n"},
    {"printf 'a b\\n' | awk '$2 ~ /b/ {print \"m\"} $1 !~ /b/ {print \"n\"}'", 0, "m\nn\n"},
    {"printf 'a b\\n' | awk '{a=$1;b=$2;print b a}'", 0, "ba\n"},
    {"awk \"BEGIN{print 134217728*48}\"", 0, "6442450944\n"},
    {"awk 'BEGIN{printf \"%d %s\\n\", 6442450944, 6442450944}'", 0, "-2147483648 6442450944\n"},
    {"awk 'BEGIN{printf \"0x%x\\n\", 48*134217728}'", 0, "0x80000000\n"},
    {"awk 'BEGIN{print 1e300*10, 3.0, 3.10, \"3.10\"+0}'", 0, "1e+301 3 3.1 3.1\n"},
    {"awk 'BEGIN{print 1;;print 2}'", 0, "1\n2\n"},
    {"awk 'BEGIN{a=\"x\"; b=a==\"x\"; print b}'", 0, "1\n"},
    {"awk 'BEGIN{print !0, !1, !\"\", !\"a\"}'", 0, "1 0 1 0\n"},
    {"awk 'BEGIN{print 5 \" items\" ; print (1,2)}'", 0, "5 items\n1 2\n"},
    {"echo 'a b c d' | awk '{ $3 = \"X\"; print; print NF }'", 0, "a b X d\n4\n"},
    {"echo 'a b' | awk '{ $5 = \"e\"; print; print NF }'", 0, "a b   e\n5\n"},
    {"echo \"5 apples\" | awk '{ if ($1 > 3) print \"many\"; else print \"few\" }'", 0, "many\n"},
    {"echo \"5 apples\" | awk '{ if ($1 > 30) { print \"many\" } else if ($1 > 4) { print \"so"
     "me\" } else print \"few\" }'", 0,
     "some\n"},
};

static void expect_rows(const struct row *rows, size_t nr_rows)
{
    static struct toy_machine machine;

    for (size_t i = 0; i < nr_rows; i++) {
        toy_boot(&machine);
        toy_expect(&machine, rows[i].line, rows[i].exit, SHELL_UNDERSTOOD, rows[i].text);
        assert_int_equal(toy_close(&machine), 0);
    }
}

#define ROWS(rows) expect_rows(rows, sizeof(rows) / sizeof((rows)[0]))

static void test_programs(void **state)
{
    (void)state;
    ROWS(programs);
}

static void test_texts(void **state)
{
    (void)state;
    ROWS(texts);
}

static void test_awk(void **state)
{
    (void)state;
    ROWS(awks);
}

/* --- scripts ---------------------------------------------------------------------------------- */

static const char script[] =
    "#!/bin/bash\n"
    "# which blocks can go, and do they?\n"
    "ratio=2\n"
    "list()\n"
    "{\n"
    "\tlocal wanted=${1:-.\\*}\n\n"
    "\tfor block in $M/memory4[0-9]; do\n"
    "\t\tif grep -q 1 $block/removable &&\n"
    "\t\t   grep -q $wanted $block/state; then\n"
    "\t\t\techo ${block##/*/memory}\n"
    "\t\tfi\n"
    "\tdone\n"
    "}\n"
    "while getopts r:h option; do\n"
    "\tcase $option in\n"
    "\tr)\tratio=$OPTARG ;;\n"
    "\th)\techo \"usage: $0\"; exit ;;\n"
    "\tesac\n"
    "done\n"
    "[[ $UID == 0 ]] || exit 4\n"
    "count=`list online | wc -l`\n"
    "echo -e \"\\t$((count * ratio / 10)) of $count\"\n"
    "for block in `list online`; do\n"
    "\techo offline &>/dev/null > $M/memory$block/state || echo \"$FUNCNAME no $block\"\n"
    "done\n"
    "cat <<-END\n"
    "\tnow $(list offline | wc -l) of $count\n"
    "\tEND\n"
    "cat <<< 'a line'\n"
    "exit $(list online | wc -l)\n";

/* It takes a script from a file, in bash's language where that differs. */
static void test_script(void **state)
{
    static struct toy_machine machine;

    (void)state;
    toy_boot(&machine);
    toy_add(&machine, "/tmp/script", script);
    snprintf(machine.refuses, sizeof(machine.refuses), " 0 7 44 ");
    toy_expect(&machine, "cd /tmp; bash ./script -r 5; echo exit=$?; cat $M/memory4[34]/state", 0,
               SHELL_UNDERSTOOD, "\t4 of 8\n no 44\n"
               "now 7 of 8\na line\nexit=1\noffline\nonline\n");
    toy_expect(&machine, "/tmp/script -h; sh /tmp/script -h", 2, SHELL_UNDERSTOOD,
               "usage: /tmp/script\nsh: syntax error: unexpected redirection\n");
    assert_int_equal(toy_close(&machine), 0);
}

/* A script that only the guest had: nothing is made up, and nothing that follows can be known. */
static void test_missing_script(void **state)
{
    static struct toy_machine machine;
    struct shell_result result;

    (void)state;
    toy_boot(&machine);
    toy_run(&machine, "cd /selftests/memory; bash ./test.sh -r 5; echo exit=$?", &result);
    assert_int_equal(result.verdict, SHELL_UNKNOWN);
    assert_string_equal(result.culprit, "./test.sh, which is not here,");
    assert_true(result.changes && result.ran);
    shell_result_free(&result);
    assert_int_equal(toy_close(&machine), 0);
}

/* What nobody but a real shell can know makes the text one of its own, and no more. */
static void test_own_texts(void **state)
{
    static struct toy_machine machine;

    (void)state;
    toy_boot(&machine);
    toy_expect(&machine, "[ $RANDOM -ge 0 ] && [ $((RANDOM % 100)) -lt 100 ] && echo yes", 0,
               SHELL_FOREIGN_TEXT, "yes\n");
    toy_expect(&machine, "set -x; echo a", 0, SHELL_FOREIGN_TEXT, "a\n");
    toy_expect(&machine, "[ -e /selftests/x ] && echo b", 0, SHELL_UNDERSTOOD, "b\n");
    toy_expect(&machine, "[ -d /selftests/x ] && echo d; echo {1..2}", 0, SHELL_FOREIGN_TEXT,
               "d\n{1..2}\n");
    toy_expect(&machine, "find $M/memory4 | sort | tail -1; find $M -name state | wc -l", 0,
               SHELL_UNDERSTOOD, TOY_MEMORY "/memory4/valid_zones\n32\n");
    toy_expect(&machine, "for f in $(find $M/memory4 -type f); do cat $f; done | wc -l", 0,
               SHELL_FOREIGN_TEXT, "3\n");
    toy_expect(&machine, "awk '/MemFree/ {f = $2} /Huge/ {print $2 > f}' /proc/meminfo 2>&1 | cat",
               0, SHELL_UNKNOWN, "");
    toy_expect(&machine, "awk '/MemFree/ {f = $2} END {print f > 5}' /proc/meminfo", 0,
               SHELL_UNKNOWN, "");
    toy_expect(&machine, "awk '/MemFree/ {f = $2} END {print (f > 5)}' /proc/meminfo", 0,
               SHELL_FOREIGN_TEXT, "1\n");
    toy_expect(&machine, "awk '/MemTotal/ {print $2} /MemFree/ {f = $2}' /proc/meminfo", 0,
               SHELL_UNDERSTOOD, "4016272\n");
    assert_int_equal(toy_close(&machine), 0);
}

/* --- time ------------------------------------------------------------------------------------- */

/* A write that waits ends with its time; who is killed says nothing, and what follows him does. */
static void test_timeout(void **state)
{
    static struct toy_machine machine;

    (void)state;
    toy_boot(&machine);
    toy_add(&machine, "/proc/waits", "");
    toy_expect(&machine, "timeout 5 sh -c 'echo a; echo offline > /proc/waits; echo b'; echo $?", 0,
               SHELL_UNDERSTOOD, "a\nTerminated\n143\n");
    assert_int_equal(machine.slept_ns, 5000000000u);
    assert_int_equal(machine.deadline_ns, 0);
    toy_expect(&machine, "timeout -s KILL 2 sleep 9; echo $?; sleep 1", 0, SHELL_UNDERSTOOD,
               "Killed\n137\n");
    assert_int_equal(machine.slept_ns, 8000000000u);
    toy_expect(&machine, "timeout 9 timeout 2 sh -c '(sleep 3; echo no)'; echo $?; "
               "timeout 2 timeout 9 sleep 3; echo $?", 0, SHELL_UNDERSTOOD,
               "Terminated\n143\nTerminated\n143\n");
    assert_int_equal(machine.slept_ns, 12000000000u);
    assert_int_equal(toy_close(&machine), 0);
}

/* --- background jobs -------------------------------------------------------------------------- */

static void test_jobs(void **state)
{
    static struct toy_machine machine;

    (void)state;
    toy_boot(&machine);
    toy_expect(&machine, "(sleep 2; echo b) & echo a; sleep 1; echo c; wait; echo d", 0,
               SHELL_UNDERSTOOD, "a\nc\nb\nd\n");
    assert_int_equal(machine.slept_ns, 2000000000u);
    toy_expect(&machine, "x=1; for i in 3 1 2; do (x=$i; sleep $i; echo $x) & done; "
               "sleep 2; echo two $x; wait; echo $x", 0, SHELL_UNDERSTOOD,
               "1\n2\ntwo 1\n3\n1\n");
    toy_expect(&machine, "(sleep 1; exit 3) & wait $!; echo $?; sleep 9 & kill $!; wait $!; "
               "echo $?; kill $!; wait 7; echo $?", 0, SHELL_UNDERSTOOD,
               "3\n143\nsh: can't kill pid 102: No such process\n127\n");
    toy_expect(&machine, "timeout 5 sh -c '(sleep 1; echo in) & sleep 9; echo no'; echo $?", 0,
               SHELL_UNDERSTOOD, "in\nTerminated\n143\n");
    toy_expect(&machine, "(echo a; sleep 1; echo b) & (sleep 1; echo c) | cat; echo d", 0,
               SHELL_UNDERSTOOD, "a\nb\nc\nd\n");
    assert_int_equal(toy_close(&machine), 0);
}

/* A job that sleeps longer than its line goes on later, and what it holds open stays open. */
static void test_parked_jobs(void **state)
{
    static struct toy_machine machine;

    (void)state;
    toy_boot(&machine);
    toy_add_block(&machine, 48, 0, "Movable");
    machine.parks = true;
    toy_expect(&machine, "(exec 3<$M/memory48/state; sleep 5; cat <&3; echo rc=$?) >/tmp/o 2>&1 & "
               "(sleep 3; echo three >/tmp/p) & sleep 1; echo gone", 0, SHELL_UNDERSTOOD, "gone\n");
    toy_expect(&machine, "cat /tmp/o; ls /tmp", 0, SHELL_UNDERSTOOD, "o\n");
    toy_expect(&machine, "exec 4<>$M/memory48/state; cat <&4; echo offline >&4; "
               "cat $M/memory48/state", 0, SHELL_UNDERSTOOD, "online\noffline\n");
    toy_remove(&machine, TOY_MEMORY "/memory48");
    shell_parked_run(&machine.parked, 4000000000u);
    toy_expect(&machine, "cat /tmp/o /tmp/p", 0, SHELL_UNDERSTOOD, "three\n");
    assert_non_null(machine.parked);
    shell_parked_run(&machine.parked, 5000000000u);
    assert_null(machine.parked);
    toy_expect(&machine, "cat /tmp/o", 0, SHELL_UNDERSTOOD,
               "cat: read error: No such device\nrc=1\n");
    toy_expect(&machine, "sleep 100 > /tmp/q &", 0, SHELL_UNDERSTOOD, "");
    shell_parked_end(&machine.parked);
    assert_int_equal(toy_close(&machine), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_programs),   cmocka_unit_test(test_texts),
        cmocka_unit_test(test_awk),        cmocka_unit_test(test_script),
        cmocka_unit_test(test_missing_script), cmocka_unit_test(test_own_texts),
        cmocka_unit_test(test_timeout),    cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_parked_jobs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
