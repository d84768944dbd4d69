/* SPDX-License-Identifier: MIT */
/* Four threads that use the memory while it moves: one reads, one writes, and for two the kernel
 * writes into it. Each knows what must be there. */
#include "demo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

static bool goes_on(const struct demo_worker *worker)
{
    return !atomic_load_explicit(&worker->demo->stop, memory_order_relaxed);
}

static void *verify_files(void *argument)
{
    struct demo_worker *worker = argument;
    const struct demo *demo = worker->demo;

    for (unsigned i = 0; goes_on(worker); i = (i + 1) % demo->data.nr_files) {
        const struct demo_file *file = &demo->data.files[i];

        if (demo_hash_file(demo, file) != file->hash)
            worker->nr_bad++;
        worker->nr_rounds++;
    }
    return NULL;
}

/* A number in each unit, and beside it, out of the pool, what it must be. */
static void *count(void *argument)
{
    struct demo_worker *worker = argument;
    struct demo *demo = worker->demo;
    uint64_t before_ns = demo_now_ns();

    for (uint64_t i = 0; goes_on(worker); i++) {
        unsigned unit = (unsigned)(i * 7919 % demo->data.nr_units);
        volatile uint64_t *cell = (volatile uint64_t *)(void *)demo->data.units[unit];
        uint64_t is = *cell, now_ns;

        if (is != demo->counted[unit])
            worker->nr_lost += demo->counted[unit] > is ? demo->counted[unit] - is : 1;
        demo->counted[unit] = is + 1;
        *cell = is + 1;
        worker->nr_rounds++;
        now_ns = demo_now_ns();
        if (now_ns - before_ns > worker->stall_max_ns)
            worker->stall_max_ns = now_ns - before_ns;
        before_ns = now_ns;
    }
    return NULL;
}

/* Read the head of a file over a pattern, and compare it with a plain read into other memory. */
static bool read_once(struct demo_worker *worker, const struct demo_file *file, int flags,
                      char *to, char *plain)
{
    size_t size_bytes = file->size_bytes < DEMO_READ_BYTES ? file->size_bytes : DEMO_READ_BYTES;
    int plain_fd = open(file->path, O_RDONLY | O_CLOEXEC);
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | flags);
    ssize_t want = -1, got = -1;

    if (plain_fd >= 0 && fd >= 0) {
        want = pread(plain_fd, plain, size_bytes, 0);
        memset(to, 0xee, DEMO_READ_BYTES);
        got = pread(fd, to, flags != 0 ? DEMO_READ_BYTES : size_bytes, 0);
        if (got > want)
            got = want;
    }
    if (fd >= 0)
        close(fd);
    if (plain_fd >= 0)
        close(plain_fd);
    if (got < 0 || want < 0)
        return false;
    if (got != want || memcmp(to, plain, (size_t)got) != 0)
        worker->nr_bad++;
    worker->nr_rounds++;
    return true;
}

static void read_files(struct demo_worker *worker, int flags, char *to)
{
    struct demo *demo = worker->demo;
    char *plain = malloc(DEMO_READ_BYTES);
    uint64_t nr_failed = 0;

    for (unsigned i = 0; plain != NULL && goes_on(worker); i = (i + 1) % demo->data.nr_files) {
        if (read_once(worker, &demo->data.files[i], flags, to, plain))
            continue;
        if (++nr_failed > 1000 && worker->nr_rounds == 0) {
            worker->idle = "the filesystem does not read that way";
            break;
        }
    }
    free(plain);
}

static void *read_into(void *argument)
{
    struct demo_worker *worker = argument;

    read_files(worker, 0, worker->demo->read_area);
    return NULL;
}

static void *read_direct(void *argument)
{
    struct demo_worker *worker = argument;

    read_files(worker, O_DIRECT, worker->demo->read_area + DEMO_UNIT_BYTES);
    return NULL;
}

int demo_start(struct demo *demo)
{
    static void *(*const jobs[DEMO_NR_JOBS])(void *) = {
        [DEMO_VERIFY] = verify_files,
        [DEMO_COUNT] = count,
        [DEMO_PREAD] = read_into,
        [DEMO_DIRECT] = read_direct,
    };
    void *area;
    int error;

    demo->read_area_bytes = 2 * DEMO_UNIT_BYTES;
    error = memplug_map(demo->space, demo->read_area_bytes, NULL, &area, NULL);
    if (error != 0)
        return error;
    demo->read_area = area;
    for (unsigned i = 0; i < DEMO_NR_JOBS; i++) {
        demo->workers[i].demo = demo;
        error = pthread_create(&demo->workers[i].thread, NULL, jobs[i], &demo->workers[i]);
        if (error != 0)
            return -error;
        demo->workers[i].started = true;
    }
    return 0;
}

static void check_all(struct demo *demo)
{
    if (!demo->loaded)
        return;
    for (unsigned i = 0; i < demo->data.nr_files; i++)
        if (demo_hash_file(demo, &demo->data.files[i]) != demo->data.files[i].hash)
            demo->workers[DEMO_VERIFY].nr_bad++;
    for (unsigned i = 0; i < demo->data.nr_units; i++)
        if (*(uint64_t *)(void *)demo->data.units[i] != demo->counted[i])
            demo->workers[DEMO_COUNT].nr_lost++;
}

void demo_stop(struct demo *demo)
{
    struct demo_result *result = &demo->result;

    demo->stop = true;
    for (unsigned i = 0; i < DEMO_NR_JOBS; i++)
        if (demo->workers[i].started)
            pthread_join(demo->workers[i].thread, NULL);
    check_all(demo);
    for (unsigned i = 0; i < DEMO_NR_JOBS; i++) {
        result->lost_updates += demo->workers[i].nr_lost;
        result->bad_files += demo->workers[i].nr_bad;
    }
    result->nr_verified = demo->workers[DEMO_VERIFY].nr_rounds;
    result->nr_counted = demo->workers[DEMO_COUNT].nr_rounds;
    result->nr_read = demo->workers[DEMO_PREAD].nr_rounds;
    result->nr_direct = demo->workers[DEMO_DIRECT].nr_rounds;
    result->direct_idle = demo->workers[DEMO_DIRECT].idle;
    result->stall_max_us = demo->workers[DEMO_COUNT].stall_max_ns / 1000;
    if (demo->read_area != NULL)
        memplug_unmap(demo->space, demo->read_area, demo->read_area_bytes);
}
