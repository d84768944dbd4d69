/* SPDX-License-Identifier: MIT */
/* The shell lines of the kernel's scenarios, and what real machines answered, on a toy machine. */
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

/* --- the scenarios' lines --------------------------------------------------------------------- */

static void four_offline(void)
{
    for (unsigned id = 48; id < 52; id++)
        toy_add_block(&machine, id, 0, "");
}

static void four_movable(void)
{
    for (unsigned id = 48; id < 52; id++)
        toy_add_block(&machine, id, 0, "Movable");
}

static void adjacent(void)
{
    toy_add(&machine, "/proc/iomem",
            "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n"
            "180000000-187ffffff : System RAM\n188000000-18fffffff : System RAM\n"
            "c80000000-147fffffff : PCI Bus 0000:00\n");
}

static void one_enabled(void)
{
    four_offline();
    toy_add_block(&machine, 48, 0, "Movable");
}

static void injector(void)
{
    static const char *const names[] = {"MEM_GOING_OFFLINE", "MEM_GOING_ONLINE"};
    char path[128];

    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "/sys/kernel/debug/notifier-error-inject/memory/actions/%s/"
                 "error", names[i]);
        toy_add(&machine, path, "0\n");
    }
}

static void node_one(void)
{
    toy_add(&machine, "/sys/devices/system/node/node1/meminfo",
            "Node 1 MemTotal:         129024 kB\n\1Node 1 MemFree:          129020 kB\n");
}

static void links(void)
{
    toy_add(&machine, TOY_MEMORY "/memory48/subsystem", "../../../../bus/memory")->link = true;
    toy_add(&machine, TOY_MEMORY "/uevent", "");
    toy_add(&machine, TOY_MEMORY "/memory48/uevent", "");
    toy_add(&machine, "/sys/devices/system/node/node0/hugepages", "");
}

#define BOOT_SPANS "0x0000000000000000-0x0000000007ffffff  online           None\n"               \
                   "0x0000000008000000-0x000000007fffffff  online          DMA32\n"               \
                   "0x0000000100000000-0x000000017fffffff  online         Normal\n"
#define IO "/sys/kernel/debug/notifier-error-inject/memory"
#define SELFTEST "cd /selftests/memory-hotplug; export PATH=/sbin:/bin; bash ./mem-on-off-test.sh"
#define NODES "/sys/devices/system/node/"

static const struct row {
    const char *scenario;
    void (*setup)(void);
    const char *line;
    int exit;
    enum shell_verdict verdict;
    const char *text;
} rows[] = {
    {"07", four_offline, "ls -la $M $M/memory48 $M/memory48/power $M/power", 1,
     SHELL_FOREIGN_TEXT, "ls: /sys/devices/system/memory/memory48/power: No such file or directory"
     "\nls: /sys/devices/system/memory/power: No such file or directory\n"
     TOY_MEMORY ":\n\n" TOY_MEMORY "/memory48:\n"},
    {"07", links, "cat $M/uevent $M/memory48/uevent; readlink $M/memory48/subsystem; "
     "ls /sys/devices/system/node/node0 | grep -v hugepages", 0, SHELL_UNDERSTOOD,
     "../../../../bus/memory\nmeminfo\n"},
    {"15", NULL, "mkdir /tmp/r; mount -t ramfs r /tmp/r; i=0; while [ $i -lt 200 ]; do "
     "mkdir /tmp/r/$i; i=$((i+1)); done; echo made", 0, SHELL_UNDERSTOOD, "made\n"},
    {"17", adjacent, "grep -n \"System RAM\" /proc/iomem", 0, SHELL_UNDERSTOOD,
     "2:00001000-0009fbff : System RAM\n3:180000000-187ffffff : System RAM\n"
     "4:188000000-18fffffff : System RAM\n"},
    {"17", NULL, "ls -d $M/memory50", 1, SHELL_UNDERSTOOD,
     "ls: /sys/devices/system/memory/memory50: No such file or directory\n"},
    {"17", adjacent, "ls -d $M/memory52 $M/memory53; grep -n \"System RAM\" /proc/iomem", 0,
     SHELL_UNDERSTOOD,
     "ls: /sys/devices/system/memory/memory52: No such file or directory\n"
     "ls: /sys/devices/system/memory/memory53: No such file or directory\n"
     "2:00001000-0009fbff : System RAM\n3:180000000-187ffffff : System RAM\n"
     "4:188000000-18fffffff : System RAM\n"},
    {"18", NULL, "dd if=/dev/zero of=/tmp/f bs=1M count=3 2>&1 | tail -1; md5sum /tmp/f", 0,
     SHELL_UNDERSTOOD, "3+0 records out\nd1dd210d6b1312cb342b56d02bd5e651  /tmp/f\n"},
    {"18", NULL, "echo abc > /tmp/f; md5sum /tmp/f; rm /tmp/f; ls /tmp", 0, SHELL_UNDERSTOOD,
     "0bee89b07a248e27c83fc3d5951213c1  /tmp/f\n"},
    {"21", NULL, "grep -i huge /proc/meminfo", 0, SHELL_UNDERSTOOD,
     "AnonHugePages:         0 kB\nHugePages_Total:      40\nHugepagesize:       2048 kB\n"},
    {"23", injector, "insmod /mod/notifier-error-inject.ko; insmod "
     "/mod/memory-notifier-error-inject.ko; ls -R /sys/kernel/debug/notifier-error-inject", 0,
     SHELL_UNDERSTOOD, "/sys/kernel/debug/notifier-error-inject:\nmemory\n\n" IO ":\nactions\n\n"
     IO "/actions:\nMEM_GOING_OFFLINE\nMEM_GOING_ONLINE\n\n" IO "/actions/MEM_GOING_OFFLINE:\n"
     "error\n\n" IO "/actions/MEM_GOING_ONLINE:\nerror\n"},
    {"23", injector, "echo -12 > " IO "/actions/MEM_GOING_ONLINE/error", 0, SHELL_UNDERSTOOD, ""},
    {"26", NULL, "cd /sys/kernel; echo 0 > tracing_on; grep mn: trace; grep -v '^#' trace | "
     "awk '{print $5}' | sort | uniq -c | sort -rn | head -30", 0, SHELL_UNDERSTOOD,
     "sh: cd: line 0: can't cd to /sys/kernel: No such file or directory\n"
     "sh: can't create tracing_on: nonexistent directory\n"
     "grep: trace: No such file or directory\ngrep: trace: No such file or directory\n"},
    {"27", NULL, "ls -d " NODES "node*; cat " NODES "node*/meminfo", 0, SHELL_UNDERSTOOD,
     NODES "node0\nNode 0 MemTotal:        4016272 kB\n"},
    {"27", node_one, "ls " NODES " " NODES "node1; cat " NODES "node1/meminfo", 0,
     SHELL_FOREIGN_TEXT, NODES ":\nnode0\nnode1\nonline\npossible\n\n" NODES "node1:\nmeminfo\n"
     "Node 1 MemTotal:         129024 kB\nNode 1 MemFree:          129020 kB\n"},
    {"27", NULL, "ls -d " NODES "node*; cat " NODES "possible " NODES "online", 0,
     SHELL_UNDERSTOOD, NODES "node0\n0-1\n0\n"},
    {"29", four_offline, "chmem -e 128M; echo \"exit=$?\"; lsmem -n -o RANGE,STATE,ZONES", 0,
     SHELL_UNDERSTOOD, "exit=0\n" BOOT_SPANS
     "0x0000000180000000-0x0000000187ffffff  online        Movable\n"
     "0x0000000188000000-0x000000019fffffff offline Normal/Movable\n\n"
     "Memory block size:       128M\nTotal online memory:     4.1G\n"
     "Total offline memory:    384M\n"},
    {"29", one_enabled, "chmem -b -e 49; echo \"exit=$?\"", 0, SHELL_UNDERSTOOD, "exit=0\n"},
    {"29", four_offline, "chmem -b -e 48-49; chmem -e -z Movable 256M; echo \"exit=$?\"; "
     "lsmem -n -o RANGE,STATE,ZONES,NODE,BLOCK", 0, SHELL_UNDERSTOOD, "exit=0\n"
     "0x0000000000000000-0x0000000007ffffff online    None    0     0\n"
     "0x0000000008000000-0x000000007fffffff online   DMA32    0  1-15\n"
     "0x0000000100000000-0x000000017fffffff online  Normal    0 32-47\n"
     "0x0000000180000000-0x000000019fffffff online Movable    0 48-51\n\n"
     "Memory block size:       128M\nTotal online memory:     4.5G\n"
     "Total offline memory:      0B\n"},
    {"29", four_movable, "chmem -d 512M; echo \"exit=$?\"; lsmem -n -o RANGE,STATE,ZONES", 0,
     SHELL_UNDERSTOOD, "exit=0\n" BOOT_SPANS
     "0x0000000180000000-0x000000019fffffff offline Normal/Movable\n\n"
     "Memory block size:       128M\nTotal online memory:       4G\n"
     "Total offline memory:    512M\n"},
    {"29", four_offline,
     "lsmem -J -o RANGE,SIZE,STATE,REMOVABLE,BLOCK,NODE,ZONES | tail -15 | head -40", 0,
     SHELL_UNDERSTOOD,
     "         \"removable\": true,\n         \"block\": \"32-47\",\n         \"node\": 0,\n"
     "         \"zones\": \"Normal\"\n      },{\n"
     "         \"range\": \"0x0000000180000000-0x000000019fffffff\",\n"
     "         \"size\": \"512M\",\n         \"state\": \"offline\",\n"
     "         \"removable\": false,\n         \"block\": \"48-51\",\n         \"node\": 0,\n"
     "         \"zones\": \"Normal/Movable\"\n      }\n   ]\n}\n"},
    {"29", four_offline, "lsmem --summary=only", 0, SHELL_UNDERSTOOD,
     "Memory block size:       128M\nTotal online memory:       4G\n"
     "Total offline memory:    512M\n"},
    {"29", four_offline, "chmem -v -e 0x180000000-0x187ffffff; echo \"exit=$?\"", 0,
     SHELL_UNDERSTOOD,
     "Memory Block 48 (0x0000000180000000-0x0000000187ffffff) enabled\nexit=0\n"},
    {"29", one_enabled, "chmem -v -d 0x180000000-0x187ffffff; echo \"exit=$?\"", 0,
     SHELL_UNDERSTOOD,
     "Memory Block 48 (0x0000000180000000-0x0000000187ffffff) disabled\nexit=0\n"},
    {"29", four_offline, "chmem -v -d 0x180000000-0x187ffffff; echo \"exit=$?\"", 0,
     SHELL_UNDERSTOOD,
     "Memory Block 48 (0x0000000180000000-0x0000000187ffffff) already disabled\nexit=0\n"},
    {"30", NULL, SELFTEST "; echo \"exit=$?\"", 0, SHELL_UNKNOWN, ""},
    {"30", NULL, SELFTEST " -r 15; echo \"exit=$?\"", 0, SHELL_UNKNOWN, ""},
    {"32", NULL, "dmesg | grep -i -n \"memmap_on_memory\\|memory_hotplug\\|invalid for "
     "parameter\"", 1, SHELL_FOREIGN_TEXT, ""},
    {"34", NULL, "i=0; while [ $i -lt 4 ]; do set -- $(grep MemFree /proc/meminfo); "
     "[ $2 -lt 40000 ] && break; dd if=/dev/zero of=/tmp/f$i bs=64k count=4 2>/dev/null; "
     "i=$((i+1)); done; free -k", 0, SHELL_FOREIGN_TEXT, ""},
    {"34", NULL, "ls -d $M/memory5[2-9] $M/memory[6-9]? | wc -l; ls /sys/firmware/memmap | wc -l",
     0, SHELL_UNDERSTOOD,
     "ls: /sys/devices/system/memory/memory5[2-9]: No such file or directory\n"
     "ls: /sys/devices/system/memory/memory[6-9]?: No such file or directory\n0\n2\n"},
    {"34", NULL, "touch /tmp/f1 /tmp/f2 /tmp/f3; rm /tmp/f1 /tmp/f2 /tmp/f3; ls /tmp | wc -l", 0,
     SHELL_UNDERSTOOD, "0\n"},
    {"36", NULL, "for i in 0 1 2 3 4 5 6 7; do printf \"memory$i zones=%s \" "
     "\"$(cat $M/memory$i/valid_zones)\"; echo offline > $M/memory$i/state; echo \"rc=$?\"; "
     "done 2>&1", 0, SHELL_UNDERSTOOD,
     "memory0 zones=none sh: write error: Invalid argument\nrc=1\n"
     "memory1 zones=DMA32 rc=0\nmemory2 zones=DMA32 rc=0\nmemory3 zones=DMA32 rc=0\n"
     "memory4 zones=DMA32 rc=0\nmemory5 zones=DMA32 rc=0\nmemory6 zones=DMA32 rc=0\n"
     "memory7 zones=DMA32 sh: write error: Invalid argument\nrc=1\n"},
    {"36", NULL, "dmesg | tail -20", 0, SHELL_FOREIGN_TEXT, ""},
    {"38", four_offline, "for b in 48 49; do for w in online_movable offline online offline; do "
     "(i=0; ok=0; while [ $i -lt 40 ]; do echo $w > $M/memory$b/state 2>/dev/null && "
     "ok=$((ok+1)); i=$((i+1)); done; echo \"$b $w ok=$ok of 40\") & done; done; "
     "(i=0; while [ $i -lt 60 ]; do cat $M/memory48/valid_zones $M/memory49/state "
     "$M/memory48/removable; i=$((i+1)); done) | sort | uniq -c; wait", 0, SHELL_UNDERSTOOD,
     /* one after the other: each finds its block as it wants it once */
     NULL},
    {"38", four_offline, "for b in 48 49; do echo offline > $M/memory$b/state; "
     "cat $M/memory$b/state; done 2>&1", 0, SHELL_UNDERSTOOD,
     "sh: write error: Invalid argument\noffline\nsh: write error: Invalid argument\noffline\n"},
    {"39", four_offline, "i=0; while [ $i -lt 30 ]; do echo online_movable > $M/memory48/state || "
     "echo fail; echo offline > $M/memory48/state || echo fail; i=$((i+1)); done; echo done", 0,
     SHELL_UNDERSTOOD, "done\n"},
    {"40", NULL, "printf \"0x%x\" $(( 48 * 134217728 + 0x800000 )) > $M/hard_offline_page; "
     "echo rc=$?; grep -i corrupt /proc/meminfo", 0, SHELL_UNDERSTOOD,
     "rc=0\nHardwareCorrupted:     4 kB\n"},
    {"40", NULL, "printf \"0x%x\" $(( 48 * 134217728 + 0x1000 )) > $M/hard_offline_page; "
     "echo rc=$?; grep -i corrupt /proc/meminfo", 0, SHELL_UNDERSTOOD,
     "rc=1\nHardwareCorrupted:     4 kB\n"},
    {"41", NULL, "dmesg | grep -i hugetlb; cat /proc/sys/vm/hugetlb_optimize_vmemmap", 1,
     SHELL_FOREIGN_TEXT,
     "cat: can't open '/proc/sys/vm/hugetlb_optimize_vmemmap': No such file or directory\n"},
    {"43", NULL, "cd /sys/firmware/memmap; for d in *; do echo $d $(cat $d/start $d/end $d/type); "
     "done", 0, SHELL_UNDERSTOOD, "0 0x0 0x9fbff System RAM\n1 0x9fc00 0xfffff Reserved\n"},
    {"43", NULL, "grep \"System RAM\" /proc/iomem; cd /sys/firmware/memmap; for d in *; do "
     "echo $d $(cat $d/start $d/end $d/type); done | tail -1", 0, SHELL_UNDERSTOOD,
     "00001000-0009fbff : System RAM\n00100000-7ffdffff : System RAM\n"
     "100000000-17fffffff : System RAM\n1 0x9fc00 0xfffff Reserved\n"},
    {"43", NULL, "dd if=/dev/zero of=/tmp/x bs=64k count=2 2>/dev/null; cat /proc/iomem | "
     "tail -1; sed -n 1,12p /proc/slabinfo", 0, SHELL_FOREIGN_TEXT,
     "100000000-17fffffff : System RAM\n"},
    {"45", NULL, "dd if=/dev/zero of=/tmp/b bs=64k count=5 2>&1 | tail -1; free -m", 0,
     SHELL_FOREIGN_TEXT, "5+0 records out\n"},
    {"45", NULL, "touch /tmp/b; rm /tmp/b; free -m", 0, SHELL_FOREIGN_TEXT, ""},
};
#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

static void test_scenarios(void **state)
{
    (void)state;
    for (size_t i = 0; i < NR_ROWS; i++) {
        struct shell_result result;

        toy_boot(&machine);
        if (rows[i].setup != NULL)
            rows[i].setup();
        if (rows[i].text != NULL) {
            expect(rows[i].line, rows[i].exit, rows[i].verdict, rows[i].text);
        } else {
            run(rows[i].line, &result);
            assert_int_equal(result.verdict, rows[i].verdict);
            assert_int_equal(result.exit, rows[i].exit);
            shell_result_free(&result);
        }
        close_machine();
    }
}

/* Concurrent writers become writers one after the other: the first of each word wins. */
static void test_background(void **state)
{
    (void)state;
    toy_boot(&machine);
    four_offline();
    expect("for w in online_movable offline online; do (i=0; ok=0; while [ $i -lt 5 ]; do "
           "echo $w > $M/memory48/state 2>/dev/null && ok=$((ok+1)); i=$((i+1)); done; "
           "echo \"$w ok=$ok of 5\") & done; wait; cat $M/memory48/valid_zones", 0,
           SHELL_UNDERSTOOD,
           "online_movable ok=1 of 5\noffline ok=1 of 5\nonline ok=1 of 5\nNormal\n");
    close_machine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_background),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
