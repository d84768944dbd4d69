/* SPDX-License-Identifier: MIT */
/* How far a pool grows unless told otherwise: what control groups of both versions leave. */
#include "../../tools/preload/preload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char root[] = "/tmp/memplug-test-XXXXXX";

static void put(const char *path, const char *text)
{
    char whole[256], *at;
    FILE *file;

    snprintf(whole, sizeof(whole), "%s/%s", root, path);
    for (at = whole + strlen(root) + 1; (at = strchr(at, '/')) != NULL; *at++ = '/') {
        *at = '\0';
        mkdir(whole, 0700);
    }
    file = fopen(whole, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static uint64_t left(const char *groups)
{
    char path[64];

    put("groups", groups);
    snprintf(path, sizeof(path), "%s/groups", root);
    return mpl_pre_group_bytes(path, root);
}

static void groups_are_limits(void **state)
{
    static const struct {
        const char *groups;
        uint64_t bytes;
    } rows[] = {
        {"0::/a/b\n", 1000},         /* its own */
        {"0::/a/c\n", 5000},         /* that of the one that it is in */
        {"0::/a\n", 5000},
        {"0::/d:e\n", 7},            /* any name */
        {"0::/max\n", 1u << 20},     /* the root's */
        {"0::/not/here\n", 1u << 20},
        {"0::/\n", 1u << 20},
        {"4:cpu,memory:/x\n", 300},  /* version 1 */
        {"4:memory:/elsewhere/x\n", 900}, /* as a container sees it */
        {"9:name=systemd:/\n4:memory:/x\n1:cpu:/a/b\n0::/a/b\n", 300},
        {"4:memory:/y\n0::/a/b\n", 900},
        {"1:cpu:/x\n", UINT64_MAX},
        {"4:memory_recursiveprot:/x\n", UINT64_MAX},
        {"", UINT64_MAX},
        {"nonsense\n:\n::\n", 1u << 20},
    };

    (void)state;
    put("memory.max", "1048576\n");
    put("a/memory.max", "5000\n");
    put("a/b/memory.max", "1000\n");
    put("a/c/memory.max", "max\n");
    put("d:e/memory.max", "7\n");
    put("max/memory.max", "max\n");
    put("memory/memory.limit_in_bytes", "900\n");
    put("memory/x/memory.limit_in_bytes", "300\n");
    put("memory/y/memory.limit_in_bytes", "9223372036854771712\n");
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (left(rows[i].groups) != rows[i].bytes)
            fail_msg("%s: %llu", rows[i].groups, (unsigned long long)left(rows[i].groups));
    assert_true(mpl_pre_group_bytes("/nowhere", root) == UINT64_MAX);
}

static void it_is_not_more_than_there_is(void **state)
{
    uint64_t group = mpl_pre_group_bytes("/proc/self/cgroup", "/sys/fs/cgroup");

    (void)state;
    assert_true(mpl_pre_memory_bytes() <= group && mpl_pre_memory_bytes() >= 1u << 20);
}

static int begin(void **state)
{
    (void)state;
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int finish(void **state)
{
    char command[64];

    (void)state;
    snprintf(command, sizeof(command), "rm -r %s", root);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_are_limits),
        cmocka_unit_test(it_is_not_more_than_there_is),
    };

    return cmocka_run_group_tests(tests, begin, finish);
}
