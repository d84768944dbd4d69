/* SPDX-License-Identifier: MIT */
/*
 * memplug doctor: what works on this machine for whoever asks. The last word is a real one: a pool
 * is made, a mapping in it written, and its block pulled out from under it. What stands before it
 * are the reasons that are known for it to fail, or to be less than it could be.
 */
#include "control.h"

#include <memplug/space.h>

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/close_range.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK_BYTES ((uint64_t)128 << 20)
#define FINDING_BYTES 512

enum verdict { GOOD, POOR, BAD, ABSENT }; /* ABSENT: and that is no fault */

struct finding {
    enum verdict verdict;
    char found[FINDING_BYTES], remedy[FINDING_BYTES];
};

static void find(struct finding *finding, enum verdict verdict, const char *found,
                 const char *remedy)
{
    finding->verdict = verdict;
    snprintf(finding->found, sizeof(finding->found), "%.*s", FINDING_BYTES - 1, found);
    snprintf(finding->remedy, sizeof(finding->remedy), "%.*s", FINDING_BYTES - 1, remedy);
}

/* The first line of a file; false: it cannot be read. */
static bool read_line(const char *path, char *line, size_t size_bytes)
{
    FILE *file = fopen(path, "re");
    bool read = file != NULL && fgets(line, (int)size_bytes, file) != NULL;

    if (file != NULL)
        fclose(file);
    if (read)
        line[strcspn(line, "\n")] = '\0';
    return read;
}

static long read_number(const char *path)
{
    char line[64];

    return read_line(path, line, sizeof(line)) ? strtol(line, NULL, 10) : -1;
}

/* --- the kernel ------------------------------------------------------------------------------- */

static void check_kernel(struct finding *finding)
{
    struct utsname name;
    unsigned major = 0, minor = 0;

    uname(&name);
    sscanf(name.release, "%u.%u", &major, &minor);
    find(finding, major > 6 || (major == 6 && minor >= 1) ? GOOD : BAD, name.release,
         major > 6 || (major == 6 && minor >= 1)
             ? ""
             : "memory is fenced and proved free of pins from Linux 6.1 on");
}

static void check_userfaultfd(struct finding *finding)
{
    int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int error = errno;
    long unprivileged = read_number("/proc/sys/vm/unprivileged_userfaultfd");

    if (fd >= 0) {
        close(fd);
        find(finding, GOOD, "/dev/userfaultfd may be opened", "");
        return;
    }
    fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        find(finding, GOOD, "userfaultfd(2) may be called, for faults of the kernel too", "");
        return;
    }
    if (errno == ENOSYS)
        find(finding, BAD, "this kernel has no userfaultfd", "a kernel with CONFIG_USERFAULTFD");
    else if (error == ENOENT)
        find(finding, BAD, "no /dev/userfaultfd, and userfaultfd(2) is not permitted",
             "sysctl vm.unprivileged_userfaultfd=1, or CAP_SYS_PTRACE for the program");
    else
        find(finding, BAD,
             unprivileged == 0 ? "neither /dev/userfaultfd nor userfaultfd(2) is permitted"
                               : "/dev/userfaultfd is not permitted",
             "let the user's group read and write /dev/userfaultfd");
}

static void check_close_range(struct finding *finding)
{
    pid_t child = fork();
    int status = 1;

    if (child == 0)
        _exit(syscall(SYS_close_range, 1000000, ~0u, CLOSE_RANGE_UNSHARE) == 0 ? 0 : 1);
    if (child > 0)
        waitpid(child, &status, 0);
    if (status == 0)
        find(finding, GOOD, "close_range(2) gives a thread descriptors of its own", "");
    else
        find(finding, BAD, "close_range(2) is not permitted or not there",
             "Linux 5.9, or a seccomp profile that lets it through: without it a program cannot be"
             " controlled");
}

static void check_memfd(struct finding *finding)
{
    int fd = memfd_create("memplug doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char line[128] = "";

    if (fd < 0) {
        find(finding, BAD, strerror(errno), "memfd_create(2) is where memory comes from");
        return;
    }
    close(fd);
    read_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", line, sizeof(line));
    if (strstr(line, "[deny]") != NULL)
        find(finding, BAD, "memfds may not have huge pages (shmem_enabled is deny)",
             "echo never or advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled: the proof"
             " that no I/O holds a page makes one for a moment");
    else
        find(finding, GOOD, "memfd_create(2) works", "");
}

/* --- limits ----------------------------------------------------------------------------------- */

static void check_hugetlb(struct finding *finding)
{
    char text[FINDING_BYTES];
    long nr = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    long nr_free = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    long over = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages");

    snprintf(text, sizeof(text), "%ld of %ld huge pages of 2 MiB are free, %ld more on demand",
             nr_free, nr, over);
    if (nr < 0)
        find(finding, ABSENT, "no huge pages of 2 MiB", "ranges of hugetlb: cannot be had");
    else if (nr_free + over < 64)
        find(finding, ABSENT, text, "sysctl vm.nr_hugepages: 64 for each block of 128 MiB, if"
                                    " ranges of hugetlb: are wanted");
    else
        find(finding, GOOD, text, "");
}

static void check_address_space(struct finding *finding)
{
    struct rlimit limit = {0};
    char text[FINDING_BYTES];

    getrlimit(RLIMIT_AS, &limit);
    snprintf(text, sizeof(text), "RLIMIT_AS is %llu MiB", (unsigned long long)limit.rlim_cur >> 20);
    if (limit.rlim_cur == RLIM_INFINITY)
        find(finding, GOOD, "RLIMIT_AS is unlimited", "");
    else
        find(finding, limit.rlim_cur < 16 * BLOCK_BYTES ? BAD : POOR, text,
             "ulimit -v unlimited: the windows for memory that comes later count in full");
}

static void check_memlock(struct finding *finding)
{
    struct rlimit limit = {0};
    char text[FINDING_BYTES];

    getrlimit(RLIMIT_MEMLOCK, &limit);
    snprintf(text, sizeof(text), "RLIMIT_MEMLOCK is %llu KiB",
             (unsigned long long)limit.rlim_cur >> 10);
    if (geteuid() == 0 || limit.rlim_cur == RLIM_INFINITY)
        find(finding, GOOD, "mlock is not limited", "");
    else
        find(finding, ABSENT, text, "ulimit -l, for programs that lock their memory");
}

static void check_descriptors(struct finding *finding)
{
    struct rlimit limit = {0};
    char text[FINDING_BYTES];

    getrlimit(RLIMIT_NOFILE, &limit);
    snprintf(text, sizeof(text), "RLIMIT_NOFILE is %llu", (unsigned long long)limit.rlim_cur);
    find(finding, limit.rlim_cur < 256 ? POOR : GOOD, text,
         limit.rlim_cur < 256 ? "ulimit -n 1024: a block of hugetlb: takes one, a memfd one" : "");
}

static void check_maps(struct finding *finding)
{
    long nr = read_number("/proc/sys/vm/max_map_count");
    char text[FINDING_BYTES];

    if (nr < 0) {
        find(finding, POOR, "vm.max_map_count cannot be read", "mount -t proc proc /proc");
        return;
    }
    snprintf(text, sizeof(text), "vm.max_map_count is %ld: %ld GiB of scattered 2 MiB units", nr,
             nr / 512);
    find(finding, nr < 65530 ? POOR : GOOD, text,
         nr < 65530 ? "sysctl vm.max_map_count=65530, or more for more memory" : "");
}

static void check_overcommit(struct finding *finding)
{
    long mode = read_number("/proc/sys/vm/overcommit_memory");

    if (mode == 2)
        find(finding, POOR, "vm.overcommit_memory is 2: memory is counted when it is promised",
             "sysctl vm.overcommit_memory=0, or a larger vm.overcommit_ratio");
    else
        find(finding, GOOD, mode == 1 ? "vm.overcommit_memory is 1" : "vm.overcommit_memory is 0",
             "");
}

/* --- what else -------------------------------------------------------------------------------- */

static bool is_installed(const char *name)
{
    static const char *const places[] = {"/usr/lib/*/", "/usr/lib64/", "/usr/lib/",
                                         "/usr/local/lib/"};
    bool found = false;

    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]) && !found; i++) {
        char pattern[128];
        glob_t paths;

        snprintf(pattern, sizeof(pattern), "%s%s", places[i], name);
        found = glob(pattern, 0, NULL, &paths) == 0;
        globfree(&paths);
    }
    return found;
}

static void check_allocators(struct finding *finding)
{
    bool jemalloc = is_installed("libjemalloc.so.2"), mimalloc = is_installed("libmimalloc.so.2");

    if (jemalloc || mimalloc)
        find(finding, GOOD,
             jemalloc && mimalloc ? "libjemalloc2 and libmimalloc are installed"
             : jemalloc           ? "libjemalloc2 is installed"
                                  : "libmimalloc is installed",
             "");
    else
        find(finding, POOR, "neither libjemalloc2 nor libmimalloc is installed",
             "apt install libjemalloc2, for memplug run");
}

static void check_dax(struct finding *finding)
{
    char text[FINDING_BYTES];
    glob_t paths = {.gl_pathc = 0};

    bool may;

    glob("/dev/dax*.*", 0, NULL, &paths);
    may = paths.gl_pathc > 0 && access(paths.gl_pathv[0], R_OK | W_OK) == 0;
    snprintf(text, sizeof(text), "%zu devices, the first is %s", paths.gl_pathc,
             paths.gl_pathc > 0 ? paths.gl_pathv[0] : "none");
    if (paths.gl_pathc == 0)
        find(finding, ABSENT, "no device-dax", "");
    else
        find(finding, may ? GOOD : POOR, text, may ? "" : "it may not be opened by this user");
    globfree(&paths);
}

static void check_runtime(struct finding *finding)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char path[128];

    snprintf(path, sizeof(path), "/tmp/memplug-%u", (unsigned)geteuid());
    if (runtime != NULL && access(runtime, W_OK) == 0)
        find(finding, GOOD, "sockets are in $XDG_RUNTIME_DIR/memplug", "");
    else if (access(path, F_OK) != 0 || access(path, W_OK) == 0)
        find(finding, GOOD, "no $XDG_RUNTIME_DIR: sockets are in /tmp/memplug-UID", "");
    else
        find(finding, BAD, "/tmp/memplug-UID is somebody else's", "set XDG_RUNTIME_DIR");
}

/* --- the last word ---------------------------------------------------------------------------- */

struct trial {
    struct memplug_linux *host;
    struct memplug *pool;
    struct memplug_space *space;
    struct memplug_reason reason;
};

static int open_trial(struct trial *trial)
{
    struct memplug_linux_config window = {.window_bytes = 16 * BLOCK_BYTES,
                                          .block_bytes = BLOCK_BYTES};
    struct memplug_config config = {.nr_nodes = 1};
    void *metadata;
    int error = memplug_linux_open(&window, &trial->host, &trial->reason);

    if (error != 0)
        return error;
    config.host = memplug_linux_host(trial->host);
    error = memplug_linux_metadata(trial->host, memplug_metadata_bytes(&config), &metadata);
    if (error == 0)
        error = memplug_open(&config, metadata, memplug_metadata_bytes(&config), &trial->pool,
                             &trial->reason);
    if (error == 0)
        error = memplug_space_open(trial->host, trial->pool, NULL, &trial->space, &trial->reason);
    return error;
}

static int plug(struct trial *trial, uint64_t *first)
{
    struct memplug_backing_spec spec = {
        .kind = MEMPLUG_BACKING_MEMFD, .size_bytes = BLOCK_BYTES, .fd = -1};
    struct memplug_add range = {.address = MEMPLUG_ANY_ADDRESS, .size_bytes = BLOCK_BYTES};
    int error = memplug_linux_backing_open(trial->host, &spec, &range.backing, &trial->reason);

    if (error == 0)
        error = memplug_add(trial->pool, &range, NULL, &trial->reason);
    if (error == 0) {
        *first = memplug_block_of(trial->pool, range.address);
        error = memplug_online(trial->pool, *first, 1, MEMPLUG_ONLINE_MOVABLE, NULL,
                               &trial->reason);
    }
    return error;
}

/* A mapping of some pages moves from one block to another. */
static int move_something(struct trial *trial)
{
    uint64_t first, second;
    void *memory;
    int error = plug(trial, &first);

    if (error == 0)
        error = memplug_map(trial->space, (uint64_t)4 << 20, NULL, &memory, &trial->reason);
    if (error == 0) {
        memset(memory, 0x5a, (size_t)4 << 20);
        error = plug(trial, &second);
    }
    if (error == 0)
        error = memplug_offline(trial->pool, first, 1, NULL, &trial->reason);
    for (size_t i = 0; error == 0 && i < (size_t)4 << 20; i++)
        if (((unsigned char *)memory)[i] != 0x5a)
            error = -EIO;
    return error;
}

static void check_move(struct finding *finding)
{
    struct trial trial = {.host = NULL};
    char text[512];
    int error = open_trial(&trial);

    if (error == 0)
        error = memplug_space_movable(trial.space, &trial.reason);
    if (error == 0)
        error = move_something(&trial);
    memplug_reason_text(&trial.reason, text, sizeof(text));
    if (error == 0)
        find(finding, GOOD, "a block was pulled out from under memory in use, and nothing was lost",
             "");
    else
        find(finding, BAD, text, "see above");
}

static void check_forks(struct finding *finding)
{
    struct trial trial = {.host = NULL};
    char text[512];
    int error = open_trial(&trial);

    if (error == 0)
        error = memplug_space_fork_lazily(trial.space, NULL, &trial.reason);
    memplug_reason_text(&trial.reason, text, sizeof(text));
    if (error == 0)
        find(finding, GOOD, "a child can share memory until somebody writes", "");
    else
        find(finding, POOR, text, "forks will copy: allow a process to trace its children");
}

/* --- all of it -------------------------------------------------------------------------------- */

static const struct check {
    const char *name;
    void (*look)(struct finding *finding);
} checks[] = {
    {"kernel", check_kernel},
    {"userfaultfd", check_userfaultfd},
    {"memfd", check_memfd},
    {"close_range", check_close_range},
    {"hugetlb", check_hugetlb},
    {"device-dax", check_dax},
    {"address-space", check_address_space},
    {"mlock", check_memlock},
    {"descriptors", check_descriptors},
    {"mappings", check_maps},
    {"overcommit", check_overcommit},
    {"allocators", check_allocators},
    {"sockets", check_runtime},
    {"forks", check_forks}, /* the last two: they leave their pools to the end of the process */
    {"moving", check_move},
};

int control_doctor(const struct control_options *options, struct memplug_client *client)
{
    static const struct control_column columns[] = {{"CHECK", CONTROL_TEXT, true},
                                                    {"STATE", CONTROL_TEXT, true},
                                                    {"FOUND", CONTROL_TEXT, true},
                                                    {"REMEDY", CONTROL_TEXT, true}};
    static const char *const verdicts[] = {
        [GOOD] = "good", [POOR] = "poor", [BAD] = "bad", [ABSENT] = "absent"};
    struct control_table *table = control_table_new(options, "checks", columns, 4);
    struct finding finding = {.verdict = GOOD};

    (void)client;
    if (table == NULL)
        return CONTROL_USAGE;
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        checks[i].look(&finding);
        control_table_row(table);
        control_table_text(table, 0, checks[i].name);
        control_table_text(table, 1, verdicts[finding.verdict]);
        control_table_text(table, 2, finding.found);
        control_table_text(table, 3, finding.remedy);
    }
    control_table_end(table);
    return finding.verdict == GOOD ? CONTROL_ALL : CONTROL_NONE;
}
