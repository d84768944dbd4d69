/* SPDX-License-Identifier: MIT */
/*
 * Start a program with its malloc in a pool: look whether that can work, by opening such a pool
 * here, write down what was asked for in the environment, and become the program.
 */
#include "run.h"

#include "../preload/preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define USAGE 2
#define NOT_POSSIBLE MPL_PRE_EXIT
#define LIBRARY "libmemplug-preload.so"

struct options {
    char lines[65536]; /* for the library: name=value, each with a newline */
    size_t length;
    const char *allocator, *user;
    bool limited, ranged;
};

static const char help[] =
    "usage: memplug run [options] [--] PROGRAM [ARGUMENT]...\n"
    "\n"
    "Start PROGRAM with its heap in a pool of pluggable memory.\n"
    "\n"
    "  -r, --range SPEC      memory of the pool, again for more; without it the pool grows by\n"
    "                        itself. memfd:SIZE, hugetlb:SIZE, file:PATH or dax:PATH, and behind\n"
    "                        commas size=, offset=, node=, zone=movable|kernel|auto|none,\n"
    "                        memmap=block|range|host|auto\n"
    "  -l, --limit SIZE      how far a pool grows by itself; default: the machine's memory\n"
    "  -a, --allocator NAME  jemalloc (default) or mimalloc, or the path of one\n"
    "  -p, --pins MODE       proved (default): memory moves only if no I/O holds it;\n"
    "                        trusted: there is no direct I/O into the heap\n"
    "  -f, --policy FILE     lines NAME=VALUE, such as auto_movable_ratio=400\n"
    "  -k, --fork MODE       lazy (default): a forked child gets its own memory when one of\n"
    "                        the two first writes it; copy: at once\n"
    "  -u, --user NAME       as this user, with the right to move memory; for root\n"
    "  -c, --children        programs that PROGRAM starts have pools of their own\n"
    "  -h, --help\n"
    "\n"
    "example: memplug run --range hugetlb:2G --limit 8G -- redis-server --port 7000\n"
    "memplug-run(1) says more.\n";

static int complain(const char *what, const char *about)
{
    fprintf(stderr, "memplug run: %s: %s\n", about, what);
    return USAGE;
}

/* --- options ---------------------------------------------------------------------------------- */

static int add_line(struct options *options, const char *name, struct mpl_text value)
{
    size_t room = sizeof(options->lines) - options->length;
    int length;

    if (memchr(value.start, '\n', value.length))
        return complain("it has a newline in it", name);
    length = snprintf(options->lines + options->length, room, "%s=%.*s\n", name,
                      (int)value.length, value.start);
    if (length < 0 || (size_t)length >= room)
        return complain("too many of them", name);
    options->length += (size_t)length;
    return 0;
}

/* The path of a file or device in full: the program may change its directory before its first
 * allocation. */
static int full_path(const char *text, char *line, size_t size_bytes)
{
    const char *colon = strchr(text, ':');
    char given[PATH_MAX], path[PATH_MAX];
    size_t length;

    snprintf(line, size_bytes, "%s", text);
    if (!colon || (strncmp(text, "file:", 5) != 0 && strncmp(text, "dax:", 4) != 0))
        return 0;
    length = strcspn(colon + 1, ",");
    snprintf(given, sizeof(given), "%.*s", (int)length, colon + 1);
    if (length > 0 && !realpath(given, path)) {
        fprintf(stderr, "memplug run: %s: %s\n", given, strerror(errno));
        return NOT_POSSIBLE;
    }
    if (length > 0)
        snprintf(line, size_bytes, "%.*s%s%s", (int)(colon + 1 - text), text, path,
                 colon + 1 + length);
    return 0;
}

static int add_range(struct options *options, const char *text)
{
    struct memplug_reason reason = MPL_NO_REASON;
    struct memplug_range_spec spec;
    char line[PATH_MAX + 512];
    int result = full_path(text, line, sizeof(line));

    if (result != 0)
        return result;
    if (memplug_range_parse(line, strlen(line), &spec, &reason) != 0)
        return complain(reason.why, text);
    options->ranged = true;
    return add_line(options, "range", mpl_text_of(line));
}

static int add_policies(struct options *options, const char *path)
{
    FILE *file = fopen(path, "re");
    char line[512];
    int result = 0;

    if (!file) {
        fprintf(stderr, "memplug run: %s: %s\n", path, strerror(errno));
        return NOT_POSSIBLE;
    }
    while (result == 0 && fgets(line, sizeof(line), file)) {
        struct mpl_text name, value;
        char *start = line + strspn(line, " \t");

        line[strcspn(line, "#\n")] = 0;
        for (size_t at = strlen(line); at > 0 && strchr(" \t\r", line[at - 1]); at--)
            line[at - 1] = 0;
        if (*start == 0)
            continue;
        result = mpl_text_pair(mpl_text_of(start), &name, &value) && name.length > 0
                     ? add_line(options, "policy", mpl_text_of(start))
                     : complain("a line is not NAME=VALUE", path);
    }
    fclose(file);
    return result;
}

static int take_option(struct options *options, int option, const char *value)
{
    uint64_t bytes;

    switch (option) {
    case 'r':
        return add_range(options, value);
    case 'l':
        options->limited = true;
        return mpl_text_size(mpl_text_of(value), &bytes) && bytes > 0
                   ? add_line(options, "limit", mpl_text_of(value))
                   : complain("no size, such as 8G", value);
    case 'p':
        return strcmp(value, "proved") == 0 || strcmp(value, "trusted") == 0
                   ? add_line(options, "pins", mpl_text_of(value))
                   : complain("pins are proved or trusted", value);
    case 'k':
        return strcmp(value, "copy") == 0 || strcmp(value, "lazy") == 0
                   ? add_line(options, "fork", mpl_text_of(value))
                   : complain("a fork is lazy or copy", value);
    case 'f':
        return add_policies(options, value);
    case 'u':
        options->user = value;
        return 0;
    case 'c':
        return add_line(options, "children", mpl_text_of("1"));
    default:
        options->allocator = value;
        return 0;
    }
}

/* Returns the index of the program; or less than 0, and *status. */
static int read_options(struct options *options, int argc, char **argv, int *status)
{
    static const struct option longs[] = {
        {"range", required_argument, NULL, 'r'},     {"limit", required_argument, NULL, 'l'},
        {"allocator", required_argument, NULL, 'a'}, {"pins", required_argument, NULL, 'p'},
        {"policy", required_argument, NULL, 'f'},    {"fork", required_argument, NULL, 'k'},
        {"children", no_argument, NULL, 'c'},        {"user", required_argument, NULL, 'u'},
        {"help", no_argument, NULL, 'h'},            {NULL, 0, NULL, 0},
    };
    int option;

    *status = USAGE;
    while ((option = getopt_long(argc, argv, "+r:l:a:p:f:k:cu:h", longs, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            *status = 0;
            return -1;
        }
        if (option == '?')
            return -1;
        *status = take_option(options, option, optarg);
        if (*status != 0)
            return -1;
    }
    *status = USAGE;
    if (options->limited && options->ranged)
        complain("it is of a pool that grows by itself, and there are ranges", "--limit");
    else if (optind == argc)
        fputs("memplug run: there is no program\n", stderr);
    else
        return optind;
    return -1;
}

/* --- libraries -------------------------------------------------------------------------------- */

/* Beside this tool, as it is built; else where it is installed. */
static int find_library(char *path)
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    char *slash;

    path[length > 0 ? length : 0] = 0;
    slash = strrchr(path, '/');
    if (slash) {
        snprintf(slash + 1, (size_t)(path + PATH_MAX - slash - 1), "%s", LIBRARY);
        if (access(path, R_OK) == 0)
            return 0;
    }
    snprintf(path, PATH_MAX, "%s/%s", MEMPLUG_LIBDIR, LIBRARY);
    if (access(path, R_OK) == 0)
        return 0;
    fprintf(stderr, "memplug run: %s is neither beside this tool nor in %s\n", LIBRARY,
            MEMPLUG_LIBDIR);
    return NOT_POSSIBLE;
}

/* Where the dynamic linker will look, but for its cache. */
static bool search(const char *name, char *path)
{
    union {
        Dl_serinfo info;
        char room[16384];
    } paths;
    void *self = dlopen(NULL, RTLD_LAZY);

    if (!self || dlinfo(self, RTLD_DI_SERINFOSIZE, &paths.info) != 0 ||
        paths.info.dls_size > sizeof(paths) || dlinfo(self, RTLD_DI_SERINFO, &paths.info) != 0)
        return false;
    for (unsigned i = 0; i < paths.info.dls_cnt; i++) {
        snprintf(path, PATH_MAX, "%s/%s", paths.info.dls_serpath[i].dls_name, name);
        if (access(path, R_OK) == 0)
            return true;
    }
    return false;
}

static int find_allocator(const char *allocator, char *path)
{
    static const struct {
        const char *name, *library, *package;
    } known[] = {
        {"jemalloc", "libjemalloc.so.2", "libjemalloc2"},
        {"mimalloc", "libmimalloc.so.2", "libmimalloc2.0"},
    };

    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(allocator, known[i].name) != 0)
            continue;
        if (search(known[i].library, path))
            return 0;
        fprintf(stderr, "memplug run: %s is not installed: apt-get install %s\n",
                known[i].library, known[i].package);
        return NOT_POSSIBLE;
    }
    if (!strstr(allocator, "/libjemalloc.so") && !strstr(allocator, "/libmimalloc.so"))
        return complain("an allocator is jemalloc, mimalloc, or a path of one of these", allocator);
    if (realpath(allocator, path))
        return 0;
    fprintf(stderr, "memplug run: %s: %s\n", allocator, strerror(errno));
    return NOT_POSSIBLE;
}

/* --- environment ------------------------------------------------------------------------------ */

/* before, then what was there. */
static int prepend(const char *name, const char *before, const char *separator)
{
    const char *old = getenv(name);
    char value[3 * PATH_MAX];
    int length = snprintf(value, sizeof(value), "%s%s%s", before, old ? separator : "",
                          old ? old : "");

    if (length < 0 || (size_t)length >= sizeof(value))
        return complain("too long", name);
    return setenv(name, value, 1) == 0 ? 0 : complain(strerror(errno), name);
}

/* jemalloc keeps addresses that it has no use for, and with them their places in the pool. */
static int set_environment(const struct options *options, const char *library,
                           const char *allocator)
{
    char preload[2 * PATH_MAX];
    int result;

    if (strpbrk(library, ": ") || strpbrk(allocator, ": "))
        return complain("a path with a blank or a colon cannot be preloaded", library);
    snprintf(preload, sizeof(preload), "%s:%s", library, allocator);
    result = prepend("LD_PRELOAD", preload, ":");
    if (result == 0 && strstr(allocator, "/libjemalloc.so"))
        result = prepend("MALLOC_CONF", "retain:false", ",");
    if (result == 0 && setenv(MPL_PRE_VARIABLE, options->lines, 1) != 0)
        result = complain(strerror(errno), MPL_PRE_VARIABLE);
    return result;
}

/* A pool like the program's, opened here and now; it goes with exec. */
static int try_pool(void)
{
    struct mpl_pre_config config;

    mpl_say_open();
    if (!mpl_pre_config_read(&config))
        return NOT_POSSIBLE;
    config.checked = false;
    return mpl_pre_open(&config, false) ? 0 : NOT_POSSIBLE;
}

/* --- run -------------------------------------------------------------------------------------- */

static int become_user(struct options *options)
{
    char number[24];
    int uffd_device, result = run_user(options->user, &uffd_device);

    if (result != 0 || uffd_device < 0)
        return result;
    snprintf(number, sizeof(number), "%d", uffd_device);
    return add_line(options, "uffd", mpl_text_of(number));
}

static int prepare(struct options *options, const char *program, char *path)
{
    static char library[PATH_MAX], allocator[PATH_MAX];
    char pid[24];
    int result = options->user ? become_user(options) : 0;

    if (result == 0)
        result = run_find(program, path);
    snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    if (result == 0)
        result = run_check(path);
    if (result == 0)
        result = find_library(library);
    if (result == 0)
        result = find_allocator(options->allocator, allocator);
    if (result == 0)
        result = add_line(options, "pid", mpl_text_of(pid));
    if (result == 0)
        result = set_environment(options, library, allocator);
    return result == 0 ? try_pool() : result;
}

int run_main(int argc, char **argv)
{
    static struct options options = {.allocator = "jemalloc"};
    static char path[PATH_MAX];
    int status;
    int first = read_options(&options, argc, argv, &status);

    if (first < 0)
        return status;
    status = prepare(&options, argv[first], path);
    if (status != 0)
        return status;
    execv(path, argv + first);
    fprintf(stderr, "memplug run: %s: %s\n", path, strerror(errno));
    return 126;
}
