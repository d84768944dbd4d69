/* SPDX-License-Identifier: MIT */
/* Tools that make, remove and look at files, and what is left. */
#include "shell_private.h"

#include <errno.h>
#include <md5.h>
#include <stdlib.h>
#include <string.h>

static int call_path(struct shell *shell, int (*callback)(void *context, const char *path),
                     const char *name)
{
    if (callback == NULL)
        return -ENOSYS;
    return callback(shell->host->context, path_of(shell, name));
}

/* --- ls --------------------------------------------------------------------------------------- */

struct ls {
    struct shell *shell;
    struct options options;
    struct list names; /* of the directory that is being read */
    int status;
    bool printed;
};

static void take_name(void *to, const char *name)
{
    struct ls *ls = to;

    if (name[0] != '.' || ls->options.has['a'] || ls->options.has['A'])
        list_add(ls->shell, &ls->names, shell_copy(ls->shell, name, strlen(name)));
}

static void ls_complain(struct ls *ls, const char *name, int error)
{
    complain(ls->shell, "%s: %s", name, strerror(-error));
    ls->status = 1;
}

static void ls_name(struct ls *ls, const char *name, int kind)
{
    bool slash = (ls->options.has['p'] || ls->options.has['F']) && kind == SHELL_DIRECTORY;

    if (!ls->options.has['l']) /* else the text is a kernel's */
        print(ls->shell, "%s%s\n", name, slash ? "/" : "");
    ls->printed = true;
}

static bool is_link(struct shell *shell, const char *name)
{
    char text[8];

    return shell->host->link != NULL && shell->host->link(shell->host->context,
                                                          path_of(shell, name), text,
                                                          sizeof(text)) >= 0;
}

static void ls_directory(struct ls *ls, const char *name, bool headed, unsigned depth)
{
    struct shell *shell = ls->shell;
    struct list names;
    int error;

    ls->names = (struct list){.count = 0};
    error = host_list(shell, name, take_name, ls);
    if (error != 0) {
        ls_complain(ls, name, error);
        return;
    }
    if (headed && ls->printed)
        print(shell, "\n");
    if (headed)
        print(shell, "%s:\n", name);
    ls->printed = true;
    if (ls->options.has['a']) {
        list_add(shell, &ls->names, shell_copy(shell, ".", 1));
        list_add(shell, &ls->names, shell_copy(shell, "..", 2));
    }
    names = ls->names;
    list_sort(&names);
    for (size_t i = 0; i < names.count; i++)
        ls_name(ls, names.items[i], SHELL_FILE);
    if (!ls->options.has['R'] || depth > 32)
        return;
    for (size_t i = 0; i < names.count; i++) {
        const char *slash = name[strlen(name) - 1] == '/' ? "" : "/";
        const char *path = shell_format(shell, "%s%s%s", name, slash, names.items[i]);

        if (names.items[i][0] != '.' && !is_link(shell, path) &&
            host_kind(shell, path) == SHELL_DIRECTORY)
            ls_directory(ls, path, true, depth + 1);
    }
}

static int run_ls(struct shell *shell, int argc, char **argv)
{
    struct ls ls = {.shell = shell};
    struct list files = {.count = 0}, directories = {.count = 0};
    int nr_names = tool_options(shell, argc, argv, &ls.options);
    char *standard[] = {(char[]){"."}, NULL};
    bool headed = nr_names > 1 || ls.options.has['R'];

    if (ls.options.has['l'])
        shell->foreign = true;
    for (char **name = nr_names != 0 ? argv : standard; *name != NULL; name++) {
        int kind = host_kind(shell, *name);

        if (kind < 0)
            ls_complain(&ls, *name, kind);
        else if (kind == SHELL_ELSEWHERE)
            shell->foreign = true;
        else if (kind != SHELL_DIRECTORY || ls.options.has['d'])
            list_add(shell, &files, *name);
        else
            list_add(shell, &directories, *name);
    }
    list_sort(&files);
    list_sort(&directories);
    for (size_t i = 0; i < files.count; i++)
        ls_name(&ls, files.items[i], host_kind(shell, files.items[i]));
    for (size_t i = 0; i < directories.count; i++)
        ls_directory(&ls, directories.items[i], headed, 0);
    return ls.status;
}

/* --- make and remove -------------------------------------------------------------------------- */

static int remove_all(struct shell *shell, const char *name, bool recursive, unsigned depth)
{
    struct ls ls = {.shell = shell};
    int kind = host_kind(shell, name), error;

    if (kind < 0)
        return kind;
    if (kind != SHELL_DIRECTORY || is_link(shell, name))
        return call_path(shell, shell->host->unlink, name);
    if (!recursive || depth > 32)
        return -EISDIR;
    ls.options.has['a'] = true;
    error = host_list(shell, name, take_name, &ls);
    for (size_t i = 0; i < ls.names.count && error == 0; i++)
        error = remove_all(shell, shell_format(shell, "%s/%s", name, ls.names.items[i]), true,
                           depth + 1);
    return error != 0 ? error : call_path(shell, shell->host->rmdir, name);
}

static int run_rm(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_names = tool_options(shell, argc, argv, &options), status = 0;

    if (nr_names == 0 && !options.has['f'])
        shell_unknown(shell, "rm");
    for (int i = 0; i < nr_names; i++) {
        int error = remove_all(shell, argv[i], options.has['r'] || options.has['R'], 0);

        if (error == 0 || (error == -ENOENT && options.has['f']))
            continue;
        status = 1;
        if (error == -EISDIR)
            complain(shell, "'%s' is a directory", argv[i]);
        else
            complain(shell, "can't remove '%s': %s", argv[i], strerror(-error));
    }
    return status;
}

static int make_parents(struct shell *shell, const char *name)
{
    const char *end = name;
    int error = 0;

    while (error == 0 && *end != '\0') {
        const char *part;

        end += strspn(end, "/");
        end += strcspn(end, "/");
        part = shell_copy(shell, name, (size_t)(end - name));
        if (host_kind(shell, part) != SHELL_DIRECTORY)
            error = call_path(shell, shell->host->mkdir, part);
    }
    return error;
}

static int run_mkdir(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_names = tool_options(shell, argc, argv, &options), status = 0;

    if (nr_names == 0)
        shell_unknown(shell, "mkdir");
    for (int i = 0; i < nr_names; i++) {
        int error = options.has['p'] ? make_parents(shell, argv[i])
                                     : call_path(shell, shell->host->mkdir, argv[i]);

        if (error == 0)
            continue;
        complain(shell, "can't create directory '%s': %s", argv[i], strerror(-error));
        status = 1;
    }
    return status;
}

static int run_rmdir(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_names = tool_options(shell, argc, argv, &options), status = 0;

    if (nr_names == 0)
        shell_unknown(shell, "rmdir");
    for (int i = 0; i < nr_names; i++) {
        int error = call_path(shell, shell->host->rmdir, argv[i]);

        if (error == 0)
            continue;
        complain(shell, "'%s': %s", argv[i], strerror(-error));
        status = 1;
    }
    return status;
}

static int run_touch(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_names = tool_options(shell, argc, argv, &options), status = 0;

    if (nr_names == 0)
        shell_unknown(shell, "touch");
    for (int i = 0; i < nr_names; i++) {
        int error;
        struct file *file = file_open(shell, argv[i], SHELL_APPEND, &error);

        if (file != NULL) {
            file_put(shell, file);
            continue;
        }
        complain(shell, "%s: %s", argv[i], strerror(-error));
        status = 1;
    }
    return status;
}

/* --- copy ------------------------------------------------------------------------------------- */

static int run_tee(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_names = tool_options(shell, argc, argv, &options), status = 0;
    struct text text = {.length = 0};

    if (input_all(shell, "-", &text) != 0)
        return 1;
    print_bytes(shell, text.bytes, text.length);
    for (int i = 0; i < nr_names; i++) {
        int error;
        struct file *file = file_open(shell, argv[i],
                                      options.has['a'] ? SHELL_APPEND : SHELL_WRITE, &error);

        if (file != NULL && text.length != 0)
            error = file_write(shell, file, text.bytes, text.length);
        if (file != NULL)
            file_put(shell, file);
        if (file == NULL || error != 0) {
            complain(shell, "%s: %s", argv[i], file == NULL ? strerror(-error) : "I/O error");
            status = 1;
        }
    }
    return status;
}

static int run_cp(struct shell *shell, int argc, char **argv)
{
    struct options options;
    char *chunk = shell_alloc(shell, SHELL_CHUNK);
    struct file *from, *to;
    const char *target, *slash;
    int64_t count;
    int error;

    if (tool_options(shell, argc, argv, &options) != 2)
        shell_unknown(shell, "cp");
    target = argv[1];
    if (host_kind(shell, target) == SHELL_DIRECTORY) {
        slash = strrchr(argv[0], '/');
        target = shell_format(shell, "%s/%s", target, slash ? slash + 1 : argv[0]);
    }
    from = file_open(shell, argv[0], SHELL_READ, &error);
    if (from == NULL) {
        complain(shell, "can't stat '%s': %s", argv[0], strerror(-error));
        return 1;
    }
    to = file_open(shell, target, SHELL_WRITE, &error);
    if (to == NULL) {
        complain(shell, "can't create '%s': %s", target, strerror(-error));
        file_put(shell, from);
        return 1;
    }
    while ((count = file_read(shell, from, chunk, SHELL_CHUNK)) > 0 && error == 0)
        error = file_write(shell, to, chunk, (size_t)count);
    if (error != 0 || count < 0)
        complain(shell, "%s error: %s", error != 0 ? "write" : "read",
                 strerror(error != 0 ? -error : (int)-count));
    file_put(shell, from);
    file_put(shell, to);
    return error != 0 || count < 0;
}

/* --- dd --------------------------------------------------------------------------------------- */

struct dd {
    const char *from, *to;
    uint64_t block_bytes, count;
    bool silent;
};

static uint64_t dd_number(struct shell *shell, const char *text)
{
    static const char letters[] = "cwbkKMG";
    static const uint64_t units[] = {1, 2, 512, 1024, 1024, 1 << 20, 1 << 30};
    const char *letter;
    char *end;
    uint64_t number = strtoull(text, &end, 10);

    if (*end == '\0' && end != text)
        return number;
    letter = strchr(letters, *end);
    if (end == text || letter == NULL || end[1] != '\0')
        shell_unknown(shell, shell_format(shell, "dd with %s", text));
    return number * units[letter - letters];
}

static struct dd dd_parse(struct shell *shell, int argc, char **argv)
{
    struct dd dd = {.block_bytes = 512, .count = UINT64_MAX};

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "if=", 3) == 0)
            dd.from = argv[i] + 3;
        else if (strncmp(argv[i], "of=", 3) == 0)
            dd.to = argv[i] + 3;
        else if (strncmp(argv[i], "bs=", 3) == 0)
            dd.block_bytes = dd_number(shell, argv[i] + 3);
        else if (strncmp(argv[i], "count=", 6) == 0)
            dd.count = dd_number(shell, argv[i] + 6);
        else if (strcmp(argv[i], "status=none") == 0)
            dd.silent = true;
        else if (strcmp(argv[i], "conv=fsync") == 0)
            continue; /* nothing here is on its way to a disk */
        else
            shell_unknown(shell, shell_format(shell, "dd %s", argv[i]));
    }
    if (dd.block_bytes == 0 || dd.block_bytes > (32 << 20))
        shell_unknown(shell, "dd bs");
    return dd;
}

static int dd_copy(struct shell *shell, const struct dd *dd, struct file *from, struct file *to)
{
    char *block = shell_alloc(shell, dd->block_bytes);
    uint64_t in[2] = {0}, out[2] = {0};
    const char *text;
    int error = 0;

    for (uint64_t i = 0; i < dd->count && error == 0; i++) {
        int64_t count = file_read(shell, from, block, dd->block_bytes);
        bool part = count != (int64_t)dd->block_bytes;

        if (count == 0)
            break;
        if (count < 0) {
            error = (int)count;
            complain(shell, "%s: %s", dd->from, strerror(-error));
            break;
        }
        in[part]++;
        error = file_write(shell, to, block, (size_t)count);
        if (error == 0)
            out[part]++;
        else
            complain(shell, "error writing '%s': %s", dd->to != NULL ? dd->to : "standard output",
                     strerror(-error));
    }
    text = shell_format(shell, "%llu+%llu records in\n%llu+%llu records out\n",
                        (unsigned long long)in[0], (unsigned long long)in[1],
                        (unsigned long long)out[0], (unsigned long long)out[1]);
    if (!dd->silent)
        shell->untold = file_write(shell, shell->own.files[2], text, strlen(text));
    return error != 0;
}

static int run_dd(struct shell *shell, int argc, char **argv)
{
    struct dd dd = dd_parse(shell, argc, argv);
    struct file *from, *to = shell->own.files[1];
    int error, status;

    from = input_open(shell, dd.from != NULL ? dd.from : "-", &error);
    if (from == NULL) {
        complain(shell, "can't open '%s': %s", dd.from != NULL ? dd.from : "-", strerror(-error));
        return 1;
    }
    if (dd.to != NULL)
        to = file_open(shell, dd.to, SHELL_WRITE, &error);
    if (to == NULL) {
        complain(shell, "can't open '%s': %s", dd.to != NULL ? dd.to : "-", strerror(-error));
        file_put(shell, from);
        return 1;
    }
    if (dd.to == NULL)
        to->nr_references++;
    status = dd_copy(shell, &dd, from, to);
    file_put(shell, from);
    file_put(shell, to);
    return status;
}

/* --- digests, links, mounts, modules, time ---------------------------------------------------- */

static int run_md5sum(struct shell *shell, int argc, char **argv)
{
    struct options options;
    char *chunk = shell_alloc(shell, SHELL_CHUNK), digest[MD5_DIGEST_STRING_LENGTH];
    int nr_names = tool_options(shell, argc, argv, &options), status = 0;
    char *standard[] = {(char[]){"-"}, NULL};

    for (char **name = nr_names != 0 ? argv : standard; *name != NULL; name++) {
        MD5_CTX context;
        int error;
        struct file *file = input_open(shell, *name, &error);
        int64_t count = 0;

        if (file == NULL) {
            complain(shell, "can't open '%s': %s", *name, strerror(-error));
            status = 1;
            continue;
        }
        MD5Init(&context);
        while ((count = file_read(shell, file, chunk, SHELL_CHUNK)) > 0)
            MD5Update(&context, (const uint8_t *)chunk, (size_t)count);
        file_put(shell, file);
        if (count < 0) {
            complain(shell, "can't read '%s': %s", *name, strerror((int)-count));
            status = 1;
            continue;
        }
        print(shell, "%s  %s\n", MD5End(&context, digest), *name);
    }
    return status;
}

static int run_readlink(struct shell *shell, int argc, char **argv)
{
    struct options options;
    char text[1024];
    int64_t length;

    if (tool_options(shell, argc, argv, &options) != 1)
        shell_unknown(shell, "readlink");
    if (shell->host->link == NULL)
        return 1;
    length = shell->host->link(shell->host->context, path_of(shell, argv[0]), text, sizeof(text));
    if (length < 0)
        return 1;
    print_bytes(shell, text, (size_t)length);
    if (!options.has['n'])
        print(shell, "\n");
    return 0;
}

/* What stands in the brackets, and perhaps more, is the guest's own. */
static int list_mounts(struct shell *shell, const char *type)
{
    static const char *const mounts[][2] = {
        {"proc", "/proc"}, {"sysfs", "/sys"}, {"debugfs", "/sys/kernel/debug"},
        {"tracefs", "/sys/kernel/tracing"},
    };

    shell->foreign = true;
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++)
        if (type == NULL || strcmp(type, mounts[i][0]) == 0)
            print(shell, "%s on %s type %s (rw,relatime)\n", mounts[i][0], mounts[i][1],
                  mounts[i][0]);
    return 0;
}

static int run_mount(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int nr_operands = tool_options(shell, argc, argv, &options), error;

    if (nr_operands == 0)
        return list_mounts(shell, options.value['t']);
    if (nr_operands != 2 || !options.has['t'] || shell->host->mount == NULL ||
        (options.has['o'] && strcmp(options.value['o'], "rw") != 0))
        shell_unknown(shell, "mount");
    error = shell->host->mount(shell->host->context, options.value['t'], path_of(shell, argv[1]));
    if (error == -ENOSYS)
        shell_unknown(shell, shell_format(shell, "mount -t %s", options.value['t']));
    if (error == 0)
        return 0;
    complain(shell, "mounting %s on %s failed: %s", argv[0], argv[1], strerror(-error));
    return 255;
}

static int run_umount(struct shell *shell, int argc, char **argv)
{
    struct options options;
    int error;

    if (tool_options(shell, argc, argv, &options) != 1 || shell->host->unmount == NULL)
        shell_unknown(shell, "umount");
    error = shell->host->unmount(shell->host->context, path_of(shell, argv[0]));
    if (error != 0)
        complain(shell, "can't unmount %s: %s", argv[0], strerror(-error));
    return error != 0;
}

static int run_module(struct shell *shell, int argc, char **argv)
{
    bool load = strcmp(argv[0], "rmmod") != 0 && !(argc > 1 && strcmp(argv[1], "-r") == 0);
    const char *tool = argv[0];
    struct options options;
    int error;

    if (tool_options(shell, argc, argv, &options) == 0 || shell->host->module == NULL)
        shell_unknown(shell, tool);
    error = shell->host->module(shell->host->context, argv[0], load);
    if (error == -ENOSYS)
        shell_unknown(shell, shell_format(shell, "module %s", argv[0]));
    if (error == 0)
        return 0;
    if (strcmp(tool, "insmod") == 0)
        complain(shell, "can't insert '%s': %s", argv[0], strerror(-error));
    else if (strcmp(tool, "rmmod") == 0)
        complain(shell, "can't unload module '%s': %s", argv[0], strerror(-error));
    else
        complain(shell, "can't load module %s: %s", argv[0], strerror(-error));
    return 1;
}

static int run_sleep(struct shell *shell, int argc, char **argv)
{
    double unit = strcmp(argv[0], "usleep") == 0 ? 1e3 : 1e9, total = 0;

    for (int i = 1; i < argc; i++) {
        char *end;
        double value = strtod(argv[i], &end);

        if (end == argv[i] || *end != '\0' || !(value >= 0 && value < 1e9)) {
            complain(shell, "invalid number '%s'", argv[i]);
            return 1;
        }
        total += value * unit;
    }
    if (total < 1e18)
        shell_sleep(shell, (uint64_t)total);
    return 0;
}

static int run_nothing(struct shell *shell, int argc, char **argv)
{
    (void)shell;
    (void)argc;
    (void)argv;
    return 0;
}

const struct tool shell_file_tools[] = {
    {"ls", "1adARlnpFhi", 0, run_ls},
    {"rm", "rRf", TOOL_CHANGES, run_rm}, {"mkdir", "p", TOOL_CHANGES, run_mkdir},
    {"rmdir", "", TOOL_CHANGES, run_rmdir},
    {"touch", "", 0, run_touch},
    {"tee", "a", TOOL_CHANGES, run_tee},
    {"cp", "", TOOL_CHANGES, run_cp}, {"dd", NULL, TOOL_CHANGES, run_dd},
    {"md5sum", "", 0, run_md5sum},
    {"readlink", "n", 0, run_readlink},
    {"mount", "t:o:", TOOL_CHANGES, run_mount},
    {"umount", "", TOOL_CHANGES, run_umount},
    {"insmod", "", TOOL_CHANGES, run_module},
    {"modprobe", "qr", TOOL_CHANGES, run_module},
    {"rmmod", "", TOOL_CHANGES, run_module},
    {"sleep", "", 0, run_sleep}, {"usleep", "", 0, run_sleep},
    {"sync", "", 0, run_nothing},
    {"dmesg", NULL, TOOL_FOREIGN, run_nothing},
    {"free", NULL, TOOL_FOREIGN, run_nothing},
    {"uname", NULL, TOOL_FOREIGN, run_nothing},
    {"date", NULL, TOOL_FOREIGN, run_nothing},
    {"uptime", NULL, TOOL_FOREIGN, run_nothing},
    {"ps", NULL, TOOL_FOREIGN, run_nothing},
    {"top", NULL, TOOL_FOREIGN, run_nothing},
    {"lsmod", NULL, TOOL_FOREIGN, run_nothing},
    {"lscpu", NULL, TOOL_FOREIGN, run_nothing},
    {"nproc", NULL, TOOL_FOREIGN, run_nothing},
    {"hostname", NULL, TOOL_FOREIGN, run_nothing},
    {"numactl", NULL, TOOL_FOREIGN, run_nothing},
    {"numastat", NULL, TOOL_FOREIGN, run_nothing},
    {NULL, NULL, 0, NULL},
};
