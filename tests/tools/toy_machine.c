/* SPDX-License-Identifier: MIT */
#include "toy_machine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- files ------------------------------------------------------------------------------------ */

struct toy_file *toy_find(struct toy_machine *machine, const char *path)
{
    for (size_t i = 0; i < machine->nr_files; i++)
        if (!machine->files[i].gone && strcmp(machine->files[i].path, path) == 0)
            return &machine->files[i];
    return NULL;
}

static struct toy_file *new_file(struct toy_machine *machine, const char *path)
{
    struct toy_file *file = NULL;

    for (size_t i = 0; i < machine->nr_files && file == NULL; i++)
        if (machine->files[i].gone && machine->files[i].nr_open == 0)
            file = &machine->files[i];
    if (file == NULL && machine->nr_files < TOY_FILES)
        file = &machine->files[machine->nr_files++];
    if (file == NULL)
        return NULL;
    free(file->text);
    *file = (struct toy_file){.directory = false};
    snprintf(file->path, sizeof(file->path), "%s", path);
    return file;
}

static void set_text(struct toy_file *file, const char *text)
{
    free(file->text);
    file->text = strdup(text);
    file->length = strlen(text);
}

void toy_add_directory(struct toy_machine *machine, const char *path)
{
    char parent[128];

    for (size_t i = 1; i <= strlen(path); i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        snprintf(parent, sizeof(parent), "%.*s", (int)i, path);
        if (toy_find(machine, parent) == NULL)
            new_file(machine, parent)->directory = true;
    }
}

struct toy_file *toy_add(struct toy_machine *machine, const char *path, const char *text)
{
    struct toy_file *file = toy_find(machine, path);
    char parent[128];

    snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
    if (parent[0] != '\0')
        toy_add_directory(machine, parent);
    if (file == NULL)
        file = new_file(machine, path);
    set_text(file, text);
    return file;
}

void toy_remove(struct toy_machine *machine, const char *path)
{
    size_t length = strlen(path);

    for (size_t i = 0; i < machine->nr_files; i++) {
        struct toy_file *file = &machine->files[i];

        if (strncmp(file->path, path, length) == 0 &&
            (file->path[length] == '/' || file->path[length] == '\0'))
            file->gone = true;
    }
}

/* --- memory blocks ---------------------------------------------------------------------------- */

static struct toy_file *block_file(struct toy_machine *machine, unsigned id, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), TOY_MEMORY "/memory%u/%s", id, name);
    return toy_find(machine, path);
}

void toy_add_block(struct toy_machine *machine, unsigned id, unsigned node, const char *zone)
{
    static const char *const names[] = {"state", "valid_zones", "removable", "node"};
    const char *texts[] = {zone[0] != '\0' ? "online\n" : "offline\n",
                           zone[0] != '\0' ? zone : "Normal Movable", "1\n", ""};
    char path[128], text[64];

    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), TOY_MEMORY "/memory%u/%s", id, names[i]);
        if (i == 3)
            snprintf(path + strlen(path), sizeof(path) - strlen(path), "%u", node);
        snprintf(text, sizeof(text), i == 1 ? "%s\n" : "%s", texts[i]);
        toy_add(machine, path, text);
    }
}

/* As a kernel: one newline at the end is forgiven, any other text is not. */
static int write_state(struct toy_machine *machine, struct toy_file *file, const char *bytes,
                       size_t size_bytes)
{
    unsigned id = (unsigned)strtoul(file->path + strlen(TOY_MEMORY "/memory"), NULL, 10);
    bool online = strcmp(file->text, "online\n") == 0;
    char word[32], refusal[16];

    snprintf(word, sizeof(word), "%.*s", (int)size_bytes, bytes);
    word[strcspn(word, "\n")] = '\0';
    snprintf(refusal, sizeof(refusal), " %u ", id);
    if (file->gone)
        return -ENODEV;
    if (strcmp(word, "offline") == 0) {
        if (!online || strstr(machine->refuses, refusal) != NULL)
            return -EINVAL;
        set_text(file, "offline\n");
        set_text(block_file(machine, id, "valid_zones"), "Normal Movable\n");
        return 0;
    }
    if (online || (strcmp(word, "online") != 0 && strcmp(word, "online_kernel") != 0 &&
                   strcmp(word, "online_movable") != 0))
        return -EINVAL;
    set_text(file, "online\n");
    set_text(block_file(machine, id, "valid_zones"),
             strcmp(word, "online_movable") == 0 ? "Movable\n" : "Normal\n");
    return 0;
}

/* --- callbacks -------------------------------------------------------------------------------- */

static void check_path(struct toy_machine *machine, const char *path)
{
    size_t length = strlen(path);

    if (path[0] != '/' || strstr(path, "//") != NULL || strstr(path, "/./") != NULL ||
        strstr(path, "/../") != NULL || (length > 1 && path[length - 1] == '/') ||
        strcmp(path, "/dev/null") == 0)
        machine->nr_breaches++;
}

static int missing(struct toy_machine *machine, const char *path)
{
    char parent[128];

    for (size_t i = 1; path[i] != '\0'; i++) {
        const struct toy_file *file;

        if (path[i] != '/')
            continue;
        snprintf(parent, sizeof(parent), "%.*s", (int)i, path);
        file = toy_find(machine, parent);
        if (file != NULL && !file->directory)
            return -ENOTDIR;
    }
    return -ENOENT;
}

static bool has_parent(struct toy_machine *machine, const char *path)
{
    const struct toy_file *file;
    char parent[128];

    snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
    file = toy_find(machine, parent);
    return file != NULL && file->directory;
}

static bool is_elsewhere(const char *path)
{
    return strncmp(path, "/selftests/", 11) == 0;
}

static int open_file(struct toy_machine *machine, const char *path, enum shell_open how,
                     struct toy_file **file)
{
    *file = toy_find(machine, path);
    if (*file == NULL && (strcmp(path, "/proc/slabinfo") == 0 || is_elsewhere(path)))
        return -ENOSYS;
    if (*file == NULL && how != SHELL_READ && strncmp(path, "/tmp/", 5) == 0 &&
        missing(machine, path) == -ENOENT && has_parent(machine, path)) {
        *file = new_file(machine, path);
        if (*file != NULL)
            set_text(*file, "");
        return *file != NULL ? 0 : -ENOSPC;
    }
    if (*file == NULL)
        return missing(machine, path);
    if ((*file)->directory && how != SHELL_READ)
        return -EISDIR;
    if ((*file)->read_only && how != SHELL_READ)
        return -EACCES;
    return 0;
}

static int toy_open_path(void *context, const char *path, enum shell_open how)
{
    struct toy_machine *machine = context;
    struct toy_file *file;
    int error, handle = 0;

    check_path(machine, path);
    error = open_file(machine, path, how, &file);
    if (error != 0)
        return error;
    while (handle < TOY_HANDLES && machine->handles[handle].open)
        handle++;
    if (handle == TOY_HANDLES)
        return -EMFILE;
    if (how == SHELL_WRITE && strncmp(path, "/tmp/", 5) == 0) {
        machine->tmp_bytes -= file->length;
        set_text(file, "");
    }
    file->nr_open++;
    machine->handles[handle].open = true;
    machine->handles[handle].file = file;
    machine->handles[handle].append = how == SHELL_APPEND;
    return handle;
}

static struct toy_file *file_of(struct toy_machine *machine, int handle)
{
    if (handle < 0 || handle >= TOY_HANDLES || !machine->handles[handle].open) {
        machine->nr_breaches++;
        abort();
    }
    return machine->handles[handle].file;
}

static int64_t toy_read(void *context, int handle, uint64_t offset, void *to, size_t size_bytes)
{
    struct toy_file *file = file_of(context, handle);
    size_t count = offset < file->length ? file->length - (size_t)offset : 0;

    if (file->directory)
        return -EISDIR;
    if (file->gone && strncmp(file->path, "/sys/", 5) == 0)
        return -ENODEV;
    if (count > size_bytes)
        count = size_bytes;
    if (count != 0)
        memcpy(to, file->text + offset, count);
    return (int64_t)count;
}

static int64_t write_tmp(struct toy_machine *machine, struct toy_file *file, uint64_t offset,
                         const char *bytes, size_t size_bytes)
{
    size_t end = (size_t)offset + size_bytes, more = end > file->length ? end - file->length : 0;

    if (machine->tmp_bytes + more > TOY_TMP_BYTES)
        return -ENOSPC;
    if (more != 0) {
        file->text = realloc(file->text, end + 1);
        memset(file->text + file->length, 0, end + 1 - file->length);
        file->length = end;
        machine->tmp_bytes += more;
    }
    if (size_bytes != 0)
        memcpy(file->text + offset, bytes, size_bytes);
    return (int64_t)size_bytes;
}

static int64_t toy_write(void *context, int handle, uint64_t offset, const void *from,
                         size_t size_bytes)
{
    struct toy_machine *machine = context;
    struct toy_file *file = file_of(machine, handle);
    const char *name = strrchr(file->path, '/');
    int error = 0;

    machine->nr_writes++;
    if (strncmp(file->path, "/tmp/", 5) == 0)
        return write_tmp(machine, file, machine->handles[handle].append ? file->length : offset,
                         from, size_bytes);
    if (strcmp(name, "/waits") == 0) {
        if (machine->deadline_ns == 0)
            abort();
        machine->slept_ns = machine->deadline_ns;
        return -EINTR;
    }
    if (strcmp(name, "/state") == 0)
        error = write_state(machine, file, from, size_bytes);
    else if (strstr(name, "_offline_page") != NULL) /* the frame of a memmap cannot be poisoned */
        error = memcmp(from, "0x180001000", size_bytes < 11 ? size_bytes : 11) == 0 ? -EBUSY : 0;
    return error != 0 ? error : (int64_t)size_bytes;
}

static void toy_close_handle(void *context, int handle)
{
    struct toy_machine *machine = context;

    file_of(machine, handle)->nr_open--;
    machine->handles[handle].open = false;
}

static int toy_kind(void *context, const char *path)
{
    struct toy_machine *machine = context;
    const struct toy_file *file = toy_find(machine, path);

    check_path(machine, path);
    if (file == NULL && is_elsewhere(path))
        return SHELL_ELSEWHERE;
    if (file == NULL)
        return strcmp(path, "/") == 0 ? SHELL_DIRECTORY : missing(machine, path);
    return file->directory || file->link ? SHELL_DIRECTORY : SHELL_FILE;
}

static int toy_list(void *context, const char *path, void (*each)(void *to, const char *name),
                    void *to)
{
    struct toy_machine *machine = context;
    size_t length = strcmp(path, "/") == 0 ? 0 : strlen(path);
    int kind = toy_kind(context, path);

    if (kind != SHELL_DIRECTORY)
        return kind < 0 ? kind : -ENOTDIR;
    for (size_t i = 0; i < machine->nr_files; i++) {
        const char *at = machine->files[i].path;

        if (!machine->files[i].gone && strncmp(at, path, length) == 0 && at[length] == '/' &&
            at[length + 1] != '\0' && strchr(at + length + 1, '/') == NULL)
            each(to, at + length + 1);
    }
    return 0;
}

static int64_t toy_link(void *context, const char *path, char *to, size_t size_bytes)
{
    struct toy_file *file = toy_find(context, path);
    size_t count;

    if (file == NULL)
        return -ENOENT;
    if (!file->link)
        return -EINVAL;
    count = file->length < size_bytes ? file->length : size_bytes;
    memcpy(to, file->text, count);
    return (int64_t)count;
}

static int toy_mkdir(void *context, const char *path)
{
    struct toy_machine *machine = context;
    struct toy_file *file;

    check_path(machine, path);
    if (toy_find(machine, path) != NULL)
        return -EEXIST;
    if (strncmp(path, "/tmp/", 5) != 0)
        return missing(machine, path);
    file = new_file(machine, path);
    if (file == NULL)
        return -ENOSPC;
    file->directory = true;
    return 0;
}

static void count_name(void *to, const char *name)
{
    (void)name;
    ++*(unsigned *)to;
}

static int toy_rmdir(void *context, const char *path)
{
    struct toy_file *file = toy_find(context, path);
    unsigned count = 0;

    if (file == NULL)
        return missing(context, path);
    if (!file->directory)
        return -ENOTDIR;
    if (toy_list(context, path, count_name, &count) != 0 || count != 0)
        return -ENOTEMPTY;
    file->gone = true;
    return 0;
}

static int toy_unlink(void *context, const char *path)
{
    struct toy_machine *machine = context;
    struct toy_file *file = toy_find(machine, path);

    if (file == NULL)
        return missing(machine, path);
    if (strncmp(path, "/tmp/", 5) != 0)
        return -EPERM;
    machine->tmp_bytes -= file->length;
    file->gone = true;
    return 0;
}

static int toy_mount(void *context, const char *type, const char *path)
{
    if (strcmp(type, "ramfs") != 0)
        return -ENODEV;
    return toy_kind(context, path) == SHELL_DIRECTORY ? 0 : -ENOENT;
}

static int toy_module(void *context, const char *name, bool load)
{
    struct toy_machine *machine = context;

    if (strstr(name, "error-inject") == NULL)
        return strstr(name, "secret") != NULL ? -ENOSYS : -ENOENT;
    machine->nr_modules += load ? 1 : (unsigned)-1;
    return 0;
}

static void toy_sleep(void *context, uint64_t ns)
{
    ((struct toy_machine *)context)->slept_ns += ns;
}

static uint64_t toy_clock(void *context)
{
    return ((struct toy_machine *)context)->slept_ns;
}

static void toy_deadline(void *context, uint64_t at_ns)
{
    ((struct toy_machine *)context)->deadline_ns = at_ns;
}

/* --- the machine ------------------------------------------------------------------------------ */

void toy_open(struct toy_machine *machine)
{
    memset(machine, 0, sizeof(*machine));
    machine->host = (struct shell_host){
        .open = toy_open_path, .read = toy_read, .write = toy_write, .close = toy_close_handle,
        .kind = toy_kind, .list = toy_list, .link = toy_link, .mkdir = toy_mkdir,
        .rmdir = toy_rmdir, .unlink = toy_unlink, .mount = toy_mount, .module = toy_module,
        .sleep = toy_sleep, .clock = toy_clock, .deadline = toy_deadline, .context = machine,
    };
    toy_add_directory(machine, "/tmp");
    toy_add(machine, TOY_MEMORY "/block_size_bytes", "8000000\n")->read_only = true;
    toy_add(machine, TOY_MEMORY "/hard_offline_page", "");
    toy_add(machine, TOY_MEMORY "/soft_offline_page", "");
}

unsigned toy_close(struct toy_machine *machine)
{
    unsigned nr_wrong = machine->nr_breaches;

    for (int i = 0; i < TOY_HANDLES; i++)
        nr_wrong += machine->handles[i].open;
    for (size_t i = 0; i < machine->nr_files; i++)
        free(machine->files[i].text);
    return nr_wrong;
}

void toy_boot(struct toy_machine *machine)
{
    static const struct {
        const char *path, *text;
    } files[] = {
        {"/proc/iomem", "00001000-0009fbff : System RAM\n000a0000-000fffff : Reserved\n"
                        "00100000-7ffdffff : System RAM\n100000000-17fffffff : System RAM\n"},
        {"/proc/meminfo", "MemTotal:        4016272 kB\n\1MemFree:         3952532 kB\n"
                          "HardwareCorrupted:     4 kB\nAnonHugePages:         0 kB\n"
                          "HugePages_Total:      40\nHugepagesize:       2048 kB\n"},
        {"/sys/firmware/memmap/0/start", "0x0\n"},
        {"/sys/firmware/memmap/0/end", "0x9fbff\n"},
        {"/sys/firmware/memmap/0/type", "System RAM\n"},
        {"/sys/firmware/memmap/1/start", "0x9fc00\n"},
        {"/sys/firmware/memmap/1/end", "0xfffff\n"},
        {"/sys/firmware/memmap/1/type", "Reserved\n"},
        {"/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:        4016272 kB\n"},
        {"/sys/devices/system/node/online", "0\n"},
        {"/sys/devices/system/node/possible", "0-1\n"},
    };

    toy_open(machine);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        toy_add(machine, files[i].path, files[i].text);
    for (unsigned id = 0; id < 16; id++)
        toy_add_block(machine, id, 0, id == 0 ? "none" : "DMA32");
    for (unsigned id = 32; id < 48; id++)
        toy_add_block(machine, id, 0, "Normal");
    snprintf(machine->refuses, sizeof(machine->refuses), " 0 7 ");
}

void toy_run(struct toy_machine *machine, const char *line, struct shell_result *result)
{
    static const char *const variables[] = {"M=" TOY_MEMORY, NULL};

    assert_int_equal(shell_run(&machine->host, variables, line,
                               machine->parks ? &machine->parked : NULL, result), 0);
    assert_int_equal(result->text[result->length], '\0');
}

void toy_expect(struct toy_machine *machine, const char *line, int exit,
                enum shell_verdict verdict, const char *text)
{
    struct shell_result result;

    toy_run(machine, line, &result);
    if (result.verdict != verdict || result.exit != exit || strcmp(result.text, text) != 0)
        fail_msg("%s\n--- verdict %d, exit %d, culprit '%s'\n%s--- and not %d, %d\n%s", line,
                 result.verdict, result.exit, result.culprit, result.text, verdict, exit, text);
    shell_result_free(&result);
}
