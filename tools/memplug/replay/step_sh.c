/* SPDX-License-Identifier: MIT */
/* Shell lines: the machine as the shell sees it, and what its verdict means for a record. */
#include "steps.h"

#include "shell.h"
#include "vfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MODULE "memory-notifier-error-inject"

static int sh_open(void *context, const char *path, enum shell_open how)
{
    return vfs_open(context, path,
                    how == SHELL_READ ? VFS_READ : how == SHELL_WRITE ? VFS_WRITE : VFS_APPEND);
}

static int64_t sh_read(void *context, int handle, uint64_t offset, void *to, size_t size_bytes)
{
    return vfs_read(context, handle, offset, to, size_bytes);
}

static int64_t sh_write(void *context, int handle, uint64_t offset, const void *from,
                        size_t size_bytes)
{
    struct machine *machine = context;
    struct alarm alarm;

    if (!machine->deadline_ns)
        return vfs_write(machine, handle, offset, from, size_bytes, NULL, NULL);
    alarm_set(&alarm, machine, machine->deadline_ns);
    return vfs_write(machine, handle, offset, from, size_bytes, &alarm.limit, NULL);
}

static void sh_close(void *context, int handle)
{
    vfs_close(context, handle);
}

static int sh_kind(void *context, const char *path)
{
    int kind = vfs_kind(context, path);

    if (kind == VFS_ELSEWHERE)
        return SHELL_ELSEWHERE;
    return kind < 0 ? kind : kind == VFS_DIRECTORY ? SHELL_DIRECTORY : SHELL_FILE;
}

static int sh_list(void *context, const char *path, void (*each)(void *to, const char *name),
                   void *to)
{
    return vfs_list(context, path, each, to);
}

static int64_t sh_link(void *context, const char *path, char *to, size_t size_bytes)
{
    return vfs_link(context, path, to, size_bytes);
}

static int sh_mkdir(void *context, const char *path)
{
    return vfs_mkdir(context, path);
}

static int sh_rmdir(void *context, const char *path)
{
    return vfs_rmdir(context, path);
}

static int sh_unlink(void *context, const char *path)
{
    return vfs_unlink(context, path);
}

static int sh_mount(void *context, const char *type, const char *path)
{
    return vfs_mount(context, type, path);
}

static int sh_unmount(void *context, const char *path)
{
    return vfs_unmount(context, path);
}

/* The module's base, which is loaded first, does nothing by itself. */
static int sh_module(void *context, const char *name, bool load)
{
    const char *base = strrchr(name, '/');

    base = base ? base + 1 : name;
    if (strncmp(base, MODULE, strlen(MODULE)) != 0)
        return strncmp(base, "notifier-error-inject", strlen("notifier-error-inject")) == 0
                   ? 0
                   : -ENOSYS;
    return load ? machine_load_injector(context) : machine_unload_injector(context);
}

/* While jobs of former lines go on, it is they who let the clock run. */
void sh_pass(struct machine *machine, uint64_t ns)
{
    uint64_t end_ns = machine_clock(machine) + ns;

    if (!machine->runs_parked) {
        machine->runs_parked = true;
        shell_parked_run(&machine->parked, end_ns);
        machine->runs_parked = false;
    }
    if (machine_clock(machine) < end_ns)
        machine_sleep(machine, end_ns - machine_clock(machine));
}

static void sh_sleep(void *context, uint64_t ns)
{
    sh_pass(context, ns);
}

static void put_verdict(json_t *record, const struct shell_result *result)
{
    if (result->verdict == SHELL_FOREIGN_TEXT)
        json_put(record, "skipped", json_true());
    if (result->verdict == SHELL_UNKNOWN && !result->changes)
        json_put(record, "skipped", json_true());
    else if (result->verdict == SHELL_UNKNOWN)
        json_put(record, "cut", json_sprintf("'%s' is not understood", result->culprit));
    else if (result->verdict == SHELL_ENDLESS)
        json_put(record, "cut", json_string("the line runs for too long"));
}

static uint64_t sh_clock(void *context)
{
    return machine_clock(context);
}

static void sh_deadline(void *context, uint64_t at_ns)
{
    ((struct machine *)context)->deadline_ns = at_ns;
}

static int run_line(struct machine *machine, const char *line, json_t *record)
{
    const struct shell_host host = {.open = sh_open, .read = sh_read, .write = sh_write,
                                    .close = sh_close, .kind = sh_kind, .list = sh_list,
                                    .link = sh_link, .mkdir = sh_mkdir, .rmdir = sh_rmdir,
                                    .unlink = sh_unlink, .mount = sh_mount,
                                    .unmount = sh_unmount, .module = sh_module,
                                    .sleep = sh_sleep, .clock = sh_clock,
                                    .deadline = sh_deadline, .context = machine};
    struct shell_result result;
    struct buffer expanded = {0};
    int error;

    machine_expand(machine, line, &expanded);
    error = shell_run(&host, NULL, buffer_of(&expanded), &machine->parked, &result);
    buffer_free(&expanded);
    if (error)
        return error;
    put_verdict(record, &result);
    json_put(record, "exit", json_integer(result.exit));
    json_put(record, "out", json_text(result.text ? result.text : "", result.length));
    shell_result_free(&result);
    return 0;
}

int step_sh(struct machine *machine, const struct step *step, json_t *record)
{
    return run_line(machine, step_rest(step, 1), record);
}

int step_lsmem(struct machine *machine, const struct step *step, json_t *record)
{
    (void)step;
    return run_line(machine, "lsmem -a; echo \"exit=$?\"", record);
}
