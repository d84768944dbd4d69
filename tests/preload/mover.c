/* SPDX-License-Identifier: MIT */
/*
 * A library to be preloaded behind the others in tests: a thread of it replaces the memory of the
 * program it is in, block by block and round by round, until the program ends. Then it looks
 * whether the pool is sound and writes what it did to the file MOVER_REPORT, as name=value. When it
 * has copied five times what the pool had at most, it makes the file MOVER_DONE. MOVER_TIMES: so
 * often and not five times. MOVER_SECONDS: not before these have passed. MOVER_PAUSE_MS: between
 * two blocks. MOVER_OFF: it only looks. MOVER_SLOW_MS: each block that is to go offline takes so
 * much longer.
 */
#include <memplug/preload.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Null if the preload library is not there. */
#pragma weak memplug_preload_pool
#pragma weak memplug_preload_host
#pragma weak memplug_preload_space

static pthread_t thread;
static bool started;
static atomic_bool stop;
static pid_t owner;
static unsigned long nr_replaced, nr_refused, pause_ms = 5;
static unsigned long peak_kib, rss_kib_at_peak; /* of the pool; and of all, then */
static char last_refusal[512];

static void nap(unsigned long ms)
{
    const struct timespec time = {.tv_sec = (time_t)(ms / 1000),
                                  .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&time, NULL);
}

static void refused(const struct memplug_reason *reason)
{
    nr_refused++;
    memplug_reason_text(reason, last_refusal, sizeof(last_refusal));
}

/* As large as what is to go: a range of several blocks goes as one. */
static bool plug_new(struct memplug *pool, uint64_t size_bytes, uint64_t *address)
{
    struct memplug_backing_spec spec = {.kind = MEMPLUG_BACKING_MEMFD, .size_bytes = size_bytes};
    struct memplug_add range = {.address = MEMPLUG_ANY_ADDRESS, .size_bytes = size_bytes};
    struct memplug_reason reason;
    uint64_t block_bytes, first;
    struct memplug_block_info info;

    if (memplug_linux_backing_open(memplug_preload_host(), &spec, &range.backing, &reason) != 0) {
        refused(&reason);
        return false;
    }
    int result = memplug_add(pool, &range, NULL, &reason);
    memplug_linux_backing_close(memplug_preload_host(), range.backing);
    if (result != 0) {
        refused(&reason);
        return false;
    }
    first = memplug_block_of(pool, range.address);
    memplug_block_info(pool, first, &info);
    block_bytes = info.size_bytes;
    result = memplug_online(pool, first, size_bytes / block_bytes, MEMPLUG_ONLINE_MOVABLE, NULL,
                            &reason);
    *address = range.address;
    if (result == 0)
        return true;
    refused(&reason);
    memplug_remove(pool, range.address, size_bytes, NULL, NULL);
    return false;
}

static void replace(struct memplug *pool, const struct memplug_block_info *info)
{
    struct memplug_reason reason;
    uint64_t size_bytes = info->unit_nr_blocks * info->size_bytes, address;

    if (!plug_new(pool, size_bytes, &address))
        return;
    if (memplug_offline_and_remove(pool, info->unit_first * info->size_bytes, size_bytes, NULL,
                                   &reason) == 0) {
        nr_replaced++;
        return;
    }
    refused(&reason);
    memplug_offline_and_remove(pool, address, size_bytes, NULL, NULL); /* there are 64 backings */
}

/* Every block that was there when the round began and is in use. */
static void round_of(struct memplug *pool)
{
    static uint64_t serials[4096];
    uint64_t nr = memplug_nr_blocks_max(pool);
    struct memplug_block_info info;

    for (uint64_t block = 0; block < nr; block++)
        serials[block] = memplug_block_info(pool, block, &info) == 0 ? info.serial : 0;
    for (uint64_t block = 0; block < nr && !atomic_load(&stop); block++) {
        if (serials[block] == 0 || memplug_block_info(pool, block, &info) != 0 ||
            info.serial != serials[block] || info.state != MEMPLUG_BLOCK_ONLINE ||
            info.nr_free_pages == info.nr_managed_pages)
            continue;
        replace(pool, &info);
        nap(pause_ms);
    }
}

static unsigned long status_kib(const char *name)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    unsigned long kib = 0;

    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtoul(line + strlen(name) + 1, NULL, 10);
    if (file)
        fclose(file);
    return kib;
}

static unsigned long number_of(const char *name, unsigned long usual)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 10) : usual;
}

/* So often has the program's memory been replaced, and for so long, that a test may end. */
static void look_whether_done(void)
{
    static bool done;
    static struct timespec begun;
    const char *path = getenv("MOVER_DONE");
    unsigned long kib = status_kib("RssShmem");
    struct memplug_space_stat stat;
    struct timespec now;

    memplug_space_stat(memplug_preload_space(), &stat);
    clock_gettime(CLOCK_MONOTONIC, &now);
    begun = begun.tv_sec == 0 ? now : begun;
    if (kib > peak_kib) {
        peak_kib = kib;
        rss_kib_at_peak = status_kib("VmRSS");
    }
    if (!done && path && stat.copied_bytes >= number_of("MOVER_TIMES", 5) * 1024ull * peak_kib &&
        now.tv_sec - begun.tv_sec >= (time_t)number_of("MOVER_SECONDS", 0)) {
        FILE *file = fopen(path, "we");

        done = file != NULL && fclose(file) == 0;
    }
}

static void *work(void *argument)
{
    struct memplug *pool;

    while (!atomic_load(&stop) && !(pool = memplug_preload_pool()))
        nap(1);
    while (!atomic_load(&stop)) {
        round_of(pool);
        look_whether_done();
        nap(pause_ms);
    }
    return argument;
}

static int slow_down(void *context, const struct memplug_notice *notice)
{
    if (notice->event == MEMPLUG_GOING_OFFLINE)
        nap(*(const unsigned long *)context);
    return 0;
}

static void be_slow(unsigned long ms)
{
    static unsigned long slow_ms;
    static const struct memplug_subscriber subscriber = {
        .name = "slow", .notify = slow_down, .context = &slow_ms};

    slow_ms = ms;
    memplug_subscribe(memplug_preload_pool(), &subscriber);
}

__attribute__((constructor)) static void begin(void)
{
    sigset_t all, before;

    void *volatile first = malloc(1); /* now there is a pool */

    free(first);
    if (!memplug_preload_pool || !memplug_preload_pool())
        return;
    owner = getpid();
    pause_ms = number_of("MOVER_PAUSE_MS", pause_ms);
    if (number_of("MOVER_SLOW_MS", 0) != 0)
        be_slow(number_of("MOVER_SLOW_MS", 0));
    if (getenv("MOVER_OFF"))
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&thread, NULL, work, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("MOVER_REPORT");
    struct memplug_space_stat stat;
    struct memplug_reason reason = {.error = 0};
    FILE *file;

    if (!memplug_preload_pool || !memplug_preload_pool() || getpid() != owner)
        return;
    atomic_store(&stop, true);
    if (started)
        pthread_join(thread, NULL);
    int sound = memplug_check(memplug_preload_pool(), &reason);
    memplug_space_stat(memplug_preload_space(), &stat);
    file = path ? fopen(path, "we") : NULL;
    if (!file)
        return;
    fprintf(file, "sound=%d\nreplaced=%lu\nrefused=%lu\nmoved_bytes=%llu\ncopied_bytes=%llu\n",
            sound, nr_replaced, nr_refused, (unsigned long long)stat.moved_bytes,
            (unsigned long long)stat.copied_bytes);
    fprintf(file, "mapped_bytes=%llu\npool_kib=%lu\nrss_kib=%lu\n",
            (unsigned long long)stat.mapped_bytes, peak_kib, rss_kib_at_peak);
    fprintf(file, "pause_p50_us=%llu\npause_p99_us=%llu\npause_max_us=%llu\nrefusal=%s\n",
            (unsigned long long)memplug_pause_ns(&stat.pause, 500) / 1000,
            (unsigned long long)memplug_pause_ns(&stat.pause, 990) / 1000,
            (unsigned long long)stat.pause.max_ns / 1000, last_refusal);
    fclose(file);
}
