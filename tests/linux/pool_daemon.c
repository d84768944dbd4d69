/* SPDX-License-Identifier: MIT */
/*
 * A program on pluggable memory, served on a socket: a pool of memfd blocks, movable mappings with
 * counters in every page, and threads that write them without pause.
 *
 *     pool_daemon DIRECTORY NR_BLOCKS MIB NR_WRITERS
 *
 * Says "ready PATH", then takes commands from standard input, a line each, and answers each with a
 * line: "fence" and "lower" stop the writers as a move does, all of them; "slow MS" makes every
 * later offline that much longer; "close" closes all descriptors that a daemon would; "fork" leaves
 * a child behind and says its pid; "uid N" gives up root; "again" stops the server and starts it
 * anew, and says in how many milliseconds; "check" says how many counters are wrong;
 * "end" stops the server and says the same. Each counter is written by one thread, which knows what
 * it wrote last: a write that was lost is seen.
 */
#include <memplug/range.h>
#include <memplug/serve.h>

#include <linux/close_range.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "fence.h"
#include "space_test.h"

#define NR_WRITERS_MAX 4

struct writer {
    pthread_t thread;
    uint64_t first, step, nr_pages;
    char *memory;
    uint64_t *wrote; /* what each page should hold; not in movable memory */
    _Atomic uint64_t nr_rounds, nr_lost;
};

static struct daemon {
    struct machine machine;
    struct memplug_config config;
    struct memplug_attr attr;
    struct memplug_range_files files;
    struct memplug_attr_file all_files[MEMPLUG_RANGE_NR_FILES + 2];
    struct memplug_server *server;
    struct mpl_fence fence;
    const char *directory;
    char *memory;
    uint64_t size_bytes;
    struct writer writers[NR_WRITERS_MAX];
    unsigned nr_writers;
    _Atomic bool stop;
    _Atomic unsigned slow_ms;
    int kept_in, kept_out;
} d;

static void *write_on(void *argument)
{
    struct writer *writer = argument;

    while (!atomic_load(&d.stop)) {
        for (uint64_t page = writer->first; page < writer->nr_pages; page += writer->step) {
            volatile uint64_t *word = (volatile uint64_t *)(void *)(writer->memory + page * PAGE);

            if (*word != writer->wrote[page])
                atomic_fetch_add(&writer->nr_lost, 1);
            *word = ++writer->wrote[page];
        }
        atomic_fetch_add(&writer->nr_rounds, 1);
    }
    return NULL;
}

static uint64_t nr_lost(void)
{
    uint64_t nr = 0;

    for (unsigned i = 0; i < d.nr_writers; i++)
        nr += atomic_load(&d.writers[i].nr_lost);
    return nr;
}

static uint64_t nr_rounds(void)
{
    uint64_t nr = 0;

    for (unsigned i = 0; i < d.nr_writers; i++)
        nr += atomic_load(&d.writers[i].nr_rounds);
    return nr;
}

static int slow_down(void *context, const struct memplug_notice *notice)
{
    unsigned ms = atomic_load(&d.slow_ms);
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    (void)context;
    if (notice->event == MEMPLUG_GOING_OFFLINE && ms > 0)
        nanosleep(&pause, NULL);
    return 0;
}

/* memplug/host/late: reading it takes four seconds. */
static int show_late(void *context, char *text, size_t size_bytes)
{
    struct timespec pause = {.tv_sec = 4};

    (void)context;
    nanosleep(&pause, NULL);
    return snprintf(text, size_bytes, "late\n");
}

/* memplug/host/reads: how often it was read. */
static int show_reads(void *context, char *text, size_t size_bytes)
{
    static _Atomic unsigned nr;

    (void)context;
    return snprintf(text, size_bytes, "%u\n", atomic_fetch_add(&nr, 1) + 1);
}

static int start_writers(unsigned nr)
{
    uint64_t nr_pages = d.size_bytes / PAGE;

    d.nr_writers = nr;
    for (unsigned i = 0; i < nr; i++) {
        d.writers[i] = (struct writer){.first = i, .step = nr, .nr_pages = nr_pages,
                                       .memory = d.memory,
                                       .wrote = calloc(nr_pages, sizeof(uint64_t))};
        if (pthread_create(&d.writers[i].thread, NULL, write_on, &d.writers[i]) != 0)
            return 1;
    }
    return 0;
}

static int start(const char *directory, uint64_t nr_blocks, uint64_t mib, unsigned nr_writers)
{
    static const struct memplug_subscriber subscriber = {.name = "slow", .notify = slow_down};
    struct memplug_serve_config serve = {.attr = &d.attr, .directory = directory};
    struct memplug_attr_config attr = {
        .pool_config = &d.config, .files = d.all_files, .nr_files = MEMPLUG_RANGE_NR_FILES + 2};
    void *memory;

    d.directory = directory;
    if (machine_open(&d.machine, MEMPLUG_BACKING_MEMFD, nr_blocks, -1, NULL) != 0)
        return 1;
    d.config.host = memplug_linux_host(d.machine.host);
    attr.pool = d.machine.pool;
    memplug_range_files(&d.files, d.machine.host, d.machine.pool, d.machine.space);
    memcpy(d.all_files, d.files.files, sizeof(d.files.files));
    d.all_files[MEMPLUG_RANGE_NR_FILES] = (struct memplug_attr_file){
        .name = "late", .mode = 0444, .show = show_late};
    d.all_files[MEMPLUG_RANGE_NR_FILES + 1] = (struct memplug_attr_file){
        .name = "reads", .mode = 0444, .show = show_reads};
    d.size_bytes = mib * MIB;
    if (memplug_subscribe(d.machine.pool, &subscriber) != 0 ||
        memplug_map(d.machine.space, d.size_bytes, NULL, &memory, &d.machine.reason) != 0 ||
        memplug_attr_init(&d.attr, &attr) != 0)
        return machine_say(&d.machine, "start", 1);
    d.memory = memory;
    memset(memory, 0, d.size_bytes);
    if (memplug_serve_start(&serve, &d.server, &d.machine.reason) != 0)
        return machine_say(&d.machine, "serve", 1);
    return start_writers(nr_writers);
}

static int end(void)
{
    memplug_serve_stop(d.server);
    atomic_store(&d.stop, true);
    for (unsigned i = 0; i < d.nr_writers; i++)
        pthread_join(d.writers[i].thread, NULL);
    if (d.fence.fd > 0)
        mpl_fence_close(&d.fence);
    if (memplug_attr_fini(&d.attr) != 0 ||
        memplug_unmap(d.machine.space, d.memory, d.size_bytes) != 0 ||
        memplug_check(d.machine.pool, &d.machine.reason) != 0)
        return machine_say(&d.machine, "end", 1);
    dprintf(d.kept_out, "%llu\n", (unsigned long long)nr_lost());
    return nr_lost() == 0 ? 0 : 1;
}

static int fence_all(bool raise)
{
    int error = 0;

    if (raise)
        error = mpl_fence_open(&d.fence);
    if (raise && error == 0)
        error = mpl_fence_raise(&d.fence, d.memory, d.size_bytes);
    if (!raise) {
        mpl_fence_lower(&d.fence, d.memory, d.size_bytes);
        mpl_fence_close(&d.fence);
    }
    return error;
}

static int leave_child(void)
{
    pid_t child = fork();

    if (child == 0) {
        memplug_serve_stop(d.server);
        close_range(0, ~0u, 0); /* or whoever reads what the test says would wait for this one */
        alarm(60);
        for (;;)
            pause();
    }
    return child;
}

/* All but the two that the commands come and go by. */
static int close_others(void)
{
    return (int)syscall(SYS_close_range, d.kept_out + 1, ~0u, 0);
}

/* Stops the server, whatever it is doing, and starts it anew. How many milliseconds that took. */
static int serve_again(void)
{
    struct memplug_serve_config serve = {.attr = &d.attr, .directory = d.directory};
    struct timespec begin, after;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    memplug_serve_stop(d.server);
    clock_gettime(CLOCK_MONOTONIC, &after);
    if (memplug_serve_start(&serve, &d.server, &d.machine.reason) != 0)
        return machine_say(&d.machine, "again", -1);
    return (int)((after.tv_sec - begin.tv_sec) * 1000 + (after.tv_nsec - begin.tv_nsec) / 1000000);
}

static int command(const char *line)
{
    if (strncmp(line, "slow ", 5) == 0)
        atomic_store(&d.slow_ms, (unsigned)atoi(line + 5));
    else if (strcmp(line, "fence") == 0 || strcmp(line, "lower") == 0)
        return fence_all(line[0] == 'f');
    else if (strcmp(line, "close") == 0)
        return close_others();
    else if (strcmp(line, "fork") == 0)
        return leave_child();
    else if (strncmp(line, "uid ", 4) == 0)
        return setuid((uid_t)atoi(line + 4));
    else if (strcmp(line, "check") == 0)
        return (int)nr_lost();
    else if (strcmp(line, "again") == 0)
        return serve_again();
    else if (strcmp(line, "rounds") == 0)
        return (int)nr_rounds();
    return 0;
}

int main(int argc, char **argv)
{
    char line[128], path[256];
    FILE *commands;

    if (argc != 5)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    d.kept_in = 0;
    d.kept_out = 1;
    commands = fdopen(d.kept_in, "r");
    if (start(argv[1], strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0),
              (unsigned)atoi(argv[4])) != 0)
        return 1;
    memplug_serve_path(d.server, path, sizeof(path));
    dprintf(d.kept_out, "ready %s\n", path);
    while (fgets(line, sizeof(line), commands) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "end") == 0)
            return end();
        dprintf(d.kept_out, "%d\n", command(line));
    }
    return 1;
}
