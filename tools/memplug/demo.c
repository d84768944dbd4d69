/* SPDX-License-Identifier: MIT */
#include "demo.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES ((uint64_t)128 << 20)
#define MAX_TRIES 20u

/* A range of the demo: a memfd, and a descriptor of it that looks on from outside the pool. */
struct range {
    void *backing;
    uint64_t address, size_bytes;
    int watch;
};

static int say(const char *what, int error, const struct memplug_reason *reason)
{
    char text[512];

    if (reason != NULL && reason->error != 0) {
        memplug_reason_text(reason, text, sizeof(text));
        fprintf(stderr, "memplug: %s\n", text);
    } else {
        fprintf(stderr, "memplug: %s: %s\n", what, strerror(-error));
    }
    return error;
}

static void note(const struct demo *demo, const char *text)
{
    if (!demo->options.json)
        fprintf(stderr, "%s\n", text);
}

/* A block holds 126 MiB of data beside its memmap; two units are for the readers. */
static uint64_t range_bytes(const struct demo *demo)
{
    uint64_t nr_units = demo->data.size_bytes / DEMO_DATA_BYTES + 1 + 2;
    uint64_t per_block = BLOCK_BYTES / DEMO_UNIT_BYTES - 1;

    return (nr_units + per_block - 1) / per_block * BLOCK_BYTES;
}

static uint64_t held_bytes(const struct range *range)
{
    struct stat stat;

    return fstat(range->watch, &stat) == 0 ? (uint64_t)stat.st_blocks * 512 : 0;
}

static int plug(struct demo *demo, struct range *range, uint64_t size_bytes)
{
    struct memplug_backing_spec spec = {
        .kind = MEMPLUG_BACKING_MEMFD, .size_bytes = size_bytes, .fd = -1, .name = "memplug demo"};
    struct memplug_add add = {.address = MEMPLUG_ANY_ADDRESS, .size_bytes = size_bytes,
                              .memmap = MEMPLUG_MEMMAP_BLOCK};
    struct memplug_limit limit = {.progress = demo_draw, .context = demo};
    struct memplug_reason reason = {0};
    uint64_t begin_ns;
    int error = memplug_linux_backing_open(demo->host, &spec, &range->backing, &reason);

    if (error != 0)
        return say("memfd", error, &reason);
    range->watch = memplug_linux_backing_dup(demo->host, range->backing);
    add.backing = range->backing;
    begin_ns = demo_now_ns();
    error = memplug_add(demo->pool, &add, &limit, &reason);
    demo->result.add_us = (demo_now_ns() - begin_ns) / 1000;
    if (error != 0)
        return say("add", error, &reason);
    range->address = add.address;
    range->size_bytes = size_bytes;
    begin_ns = demo_now_ns();
    error = memplug_online(demo->pool, memplug_block_of(demo->pool, add.address),
                           size_bytes / BLOCK_BYTES, MEMPLUG_ONLINE_MOVABLE, &limit, &reason);
    demo->result.online_us = (demo_now_ns() - begin_ns) / 1000;
    return error != 0 ? say("online", error, &reason) : 0;
}

/* Plug the second range in, and see what that cost: the pool's records and the host's, and what the
 * host took from the machine for either. */
static int plug_second(struct demo *demo, struct range *range, uint64_t size_bytes)
{
    struct demo_machine before, after;
    struct memplug_linux_stat host_was, host_is;
    struct memplug_stat was, is;
    struct memplug_block_info block;
    int error;

    demo_measure(&before);
    memplug_stat(demo->pool, &was);
    memplug_linux_stat(demo->host, &host_was);
    error = plug(demo, range, size_bytes);
    if (error != 0)
        return error;
    memplug_stat(demo->pool, &is);
    memplug_linux_stat(demo->host, &host_is);
    demo_measure(&after);
    error = memplug_block_info(demo->pool, memplug_block_of(demo->pool, range->address), &block);
    if (error != 0)
        return say("block", error, NULL);
    demo->result.nr_blocks = size_bytes / BLOCK_BYTES;
    demo->result.preexisting_bytes =
        is.preexisting_bytes - was.preexisting_bytes + host_is.mapped_bytes -
        host_was.mapped_bytes + demo->result.nr_blocks * host_is.block_bytes;
    demo->result.kernel_bytes = after.page_table_bytes - before.page_table_bytes;
    if (after.slab_bytes > before.slab_bytes)
        demo->result.kernel_bytes += after.slab_bytes - before.slab_bytes;
    demo->result.memmap_frames_per_block = block.nr_memmap_pages;
    demo->result.present_pages = is.nr_present_pages - was.nr_present_pages;
    demo->result.managed_pages = is.nr_managed_pages - was.nr_managed_pages;
    return 0;
}

/* All blocks in one operation: then no unit moves into a block that goes as well. I/O in flight
 * may hold a unit longer than one operation waits, so it is tried again. */
static int take_offline(struct demo *demo, const struct range *range)
{
    struct memplug_limit limit = {.timeout_ns = UINT64_C(120000000000), .tries = 20,
                                  .progress = demo_draw, .context = demo};
    uint64_t first = memplug_block_of(demo->pool, range->address);
    struct memplug_reason reason = {0};
    int error = -EBUSY;

    while (error == -EBUSY && demo->result.nr_tries < MAX_TRIES) {
        demo->result.nr_tries++;
        error = memplug_offline(demo->pool, first, range->size_bytes / BLOCK_BYTES, &limit,
                                &reason);
    }
    return error != 0 ? say("offline", error, &reason) : 0;
}

static void count_moves(struct demo *demo, const struct memplug_space_stat *before,
                        uint64_t spent_ns)
{
    struct demo_result *result = &demo->result;
    struct memplug_space_stat after;

    memplug_space_stat(demo->space, &after);
    result->moved_bytes = after.moved_bytes - before->moved_bytes;
    result->pin_refusals = after.nr_refused_pins - before->nr_refused_pins;
    result->offline_us = spent_ns / 1000;
    result->migrate_gb_s = spent_ns != 0 ? (double)result->moved_bytes / (double)spent_ns : 0;
    result->pause_p50_us = memplug_pause_ns(&after.pause, 500) / 1000;
    result->pause_p99_us = memplug_pause_ns(&after.pause, 990) / 1000;
    result->pause_max_us = after.pause.max_ns / 1000;
}

static uint64_t used_bytes(const struct demo *demo, const struct range *range)
{
    uint64_t first = memplug_block_of(demo->pool, range->address), nr_pages = 0;

    for (uint64_t i = 0; i < range->size_bytes / BLOCK_BYTES; i++) {
        struct memplug_block_info info;

        if (memplug_block_info(demo->pool, first + i, &info) == 0)
            nr_pages += info.nr_managed_pages - info.nr_free_pages;
    }
    return nr_pages * 4096;
}

static int unplug(struct demo *demo, struct range *range)
{
    struct memplug_reason reason = {0};
    struct demo_machine machine;
    uint64_t begin_ns;
    int error;

    demo->result.held_bytes = held_bytes(range);
    demo_measure(&machine);
    demo->result.rss_before_bytes = machine.rss_shmem_bytes;
    begin_ns = demo_now_ns();
    error = memplug_remove(demo->pool, range->address, range->size_bytes, NULL, &reason);
    if (error != 0)
        return say("remove", error, &reason);
    memplug_linux_backing_close(demo->host, range->backing);
    demo->result.remove_us = (demo_now_ns() - begin_ns) / 1000;
    demo->result.returned_bytes = demo->result.held_bytes - held_bytes(range);
    demo_measure(&machine);
    demo->result.rss_after_bytes = machine.rss_shmem_bytes;
    range->backing = NULL;
    return 0;
}

static int pull_first(struct demo *demo, struct range *range)
{
    struct memplug_space_stat before;
    struct demo_machine machine;
    uint64_t begin_ns, rss_before, held_before = held_bytes(range);
    int error;

    demo_measure(&machine);
    rss_before = machine.rss_shmem_bytes;
    demo->result.used_bytes = used_bytes(demo, range);
    memplug_space_stat(demo->space, &before);
    begin_ns = demo_now_ns();
    error = take_offline(demo, range);
    demo_draw_end(demo);
    if (error != 0)
        return error;
    count_moves(demo, &before, demo_now_ns() - begin_ns);
    error = unplug(demo, range);
    demo->result.returned_bytes += held_before - demo->result.held_bytes;
    demo->result.held_bytes = held_before;
    demo->result.rss_before_bytes = rss_before;
    return error;
}

static int open_pool(struct demo *demo)
{
    uint64_t window_bytes = 2 * range_bytes(demo) + 4 * BLOCK_BYTES;
    struct memplug_linux_config host_config = {.block_bytes = BLOCK_BYTES,
                                               .window_bytes = window_bytes};
    struct memplug_space_config space_config = {
        .node = MEMPLUG_ANY_NODE,
        .uffd_device_fd = -1,
        .pins = demo->options.trust_pins ? MEMPLUG_PINS_TRUSTED : MEMPLUG_PINS_PROVED,
    };
    struct memplug_reason reason = {0};
    struct memplug_config config;
    uint64_t size_bytes;
    void *metadata;
    int error = memplug_linux_open(&host_config, &demo->host, &reason);

    if (error != 0)
        return say("host", error, &reason);
    config = (struct memplug_config){.host = memplug_linux_host(demo->host)};
    size_bytes = memplug_metadata_bytes(&config);
    error = memplug_linux_metadata(demo->host, size_bytes, &metadata);
    if (error == 0)
        error = memplug_open(&config, metadata, size_bytes, &demo->pool, &reason);
    if (error == 0)
        error = memplug_space_open(demo->host, demo->pool, &space_config, &demo->space, &reason);
    if (error == 0)
        error = memplug_space_movable(demo->space, &reason);
    return error != 0 ? say("pool", error, &reason) : 0;
}

static void close_pool(struct demo *demo, struct range *second)
{
    struct memplug_reason reason = {0};
    int error = 0;

    if (second->size_bytes != 0) {
        error = memplug_offline(demo->pool, memplug_block_of(demo->pool, second->address),
                                second->size_bytes / BLOCK_BYTES, NULL, &reason);
        if (error == 0)
            error = memplug_remove(demo->pool, second->address, second->size_bytes, NULL,
                                   &reason);
    }
    if (error == 0)
        error = memplug_space_close(demo->space, &reason);
    if (error == 0)
        error = memplug_close(demo->pool, &reason);
    if (error != 0)
        say("close", error, &reason);
    memplug_linux_close(demo->host);
}

static int run(struct demo *demo)
{
    struct range first = {.watch = -1}, second = {.watch = -1};
    uint64_t size_bytes;
    int error = demo_list(demo);

    if (error == 0)
        error = open_pool(demo);
    if (error != 0)
        return error;
    size_bytes = range_bytes(demo);
    note(demo, "loading files into movable memory");
    error = plug(demo, &first, size_bytes);
    if (error == 0)
        error = demo_load(demo);
    if (error == 0)
        error = demo_start(demo);
    if (error == 0) {
        usleep(demo->options.linger_ms * 1000);
        note(demo, "plugging a second range in, pulling the first one out");
        error = plug_second(demo, &second, size_bytes);
    }
    if (error == 0)
        error = pull_first(demo, &first);
    if (error == 0)
        usleep(demo->options.linger_ms * 1000);
    demo_stop(demo);
    demo_unload(demo);
    if (error != 0)
        return error; /* the process ends, and with it everything that is still plugged in */
    close_pool(demo, &second);
    demo->result.memcpy_gb_s = demo_memcpy_gb_s((uint64_t)1 << 30);
    close(first.watch);
    close(second.watch);
    return 0;
}

static int usage(FILE *to, int status)
{
    fputs("usage: memplug demo [--data DIR] [--size MIB] [--json] [--trust-pins] [--linger MS]\n\n"
          "Load the files of DIR (/usr/share) into a pool, at least MIB (512) mebibytes of them;\n"
          "while threads verify, write and read into that memory, plug a second range in, take\n"
          "every block of the first one offline and out, and report.\n\n"
          "  --json         print one JSON object\n"
          "  --trust-pins   move without proof that no I/O in flight holds a page: loses data if\n"
          "                 one does, as the O_DIRECT reader of this demo will show\n"
          "  --linger MS    how long the threads run before and after (500)\n\n"
          "Exit status: 0 everything holds, 1 something does not, 2 usage.\n\n"
          "Example: memplug demo --data /usr/lib --size 1024 --json\n",
          to);
    return status;
}

/* 0: run; else the exit status + 1. */
static int parse(struct demo_options *options, int argc, char **argv)
{
    static const struct option known[] = {
        {"data", required_argument, NULL, 'd'}, {"size", required_argument, NULL, 's'},
        {"json", no_argument, NULL, 'J'},       {"trust-pins", no_argument, NULL, 't'},
        {"linger", required_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'},
        {0},
    };
    char *end = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "hJ", known, NULL)) != -1) {
        if (option == 'd')
            options->directory = optarg;
        else if (option == 's')
            options->data_bytes = strtoull(optarg, &end, 10) << 20;
        else if (option == 'J')
            options->json = true;
        else if (option == 't')
            options->trust_pins = true;
        else if (option == 'l')
            options->linger_ms = (unsigned)strtoul(optarg, &end, 10);
        else
            return 1 + usage(option == 'h' ? stdout : stderr, option == 'h' ? 0 : 2);
        if (end != NULL && *end != '\0')
            return 1 + usage(stderr, 2);
    }
    if (optind != argc || options->data_bytes < (uint64_t)8 << 20 ||
        options->data_bytes > (uint64_t)16 << 30)
        return 1 + usage(stderr, 2);
    return 0;
}

int demo_main(int argc, char **argv)
{
    static struct demo demo; /* zeroed, and not on the stack: workers point into it */
    int status;

    demo.options = (struct demo_options){
        .directory = "/usr/share", .data_bytes = (uint64_t)512 << 20, .linger_ms = 500};
    status = parse(&demo.options, argc, argv);
    if (status != 0)
        return status - 1;
    if (run(&demo) != 0)
        return 1;
    if (demo_report(&demo) != 0)
        return 1;
    return demo_holds(&demo) ? 0 : 1;
}
