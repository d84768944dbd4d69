/* SPDX-License-Identifier: MIT */
/* memplug/host in the attribute tree: add, replace, latency. */
#include "host.h"

#include <memplug/range.h>

#include <errno.h>
#include <string.h>

/* --- text ------------------------------------------------------------------------------------- */

struct text {
    char *buffer;
    size_t size_bytes, length;
};

static void put(struct text *text, const char *words)
{
    for (; *words != '\0'; words++, text->length++)
        if (text->length + 1 < text->size_bytes)
            text->buffer[text->length] = *words;
}

static void put_number(struct text *text, uint64_t number, unsigned base)
{
    char digits[21];
    unsigned at = sizeof(digits) - 1;

    digits[at] = '\0';
    do {
        digits[--at] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number != 0);
    put(text, digits + at);
}

static void put_pair(struct text *text, const char *name, uint64_t number)
{
    put(text, name);
    put(text, " ");
    put_number(text, number, 10);
    put(text, "\n");
}

static int end(struct text *text)
{
    if (text->size_bytes > 0)
        text->buffer[text->length < text->size_bytes ? text->length : text->size_bytes - 1] = '\0';
    return (int)text->length;
}

/* --- add -------------------------------------------------------------------------------------- */

static int say(struct memplug_reason *reason, int error, const char *why, const char *remedy)
{
    reason->error = error;
    reason->why = why;
    reason->remedy = remedy;
    return error;
}

static bool begin(struct memplug_range_files *files)
{
    return !__atomic_exchange_n(&files->busy, true, __ATOMIC_ACQUIRE);
}

static void finish(struct memplug_range_files *files, int error, const struct memplug_add *add)
{
    if (error == 0) {
        __atomic_store_n(&files->last_bytes, add->size_bytes, __ATOMIC_RELAXED);
        __atomic_store_n(&files->last_address, add->address, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&files->busy, false, __ATOMIC_RELEASE);
}

static int show_last(void *context, char *buffer, size_t size_bytes)
{
    struct memplug_range_files *files = context;
    struct text text = {.buffer = buffer, .size_bytes = size_bytes};
    uint64_t address = __atomic_load_n(&files->last_address, __ATOMIC_RELAXED);
    uint64_t bytes = __atomic_load_n(&files->last_bytes, __ATOMIC_RELAXED);

    if (bytes != 0) {
        put(&text, "0x");
        put_number(&text, address, 16);
        put(&text, "-0x");
        put_number(&text, address + bytes - 1, 16);
        put(&text, " first ");
        put_number(&text, memplug_block_of(files->pool, address), 10);
        put(&text, " blocks ");
        put_number(&text, bytes / files->host->block_bytes, 10);
        put(&text, "\n");
    }
    return end(&text);
}

static int store_add(void *context, const char *words, size_t length,
                     const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct memplug_range_files *files = context;
    struct memplug_add add;
    int error;

    if (!begin(files))
        return say(reason, -EBUSY, "another range is just being plugged in", NULL);
    error = memplug_range_parse(words, length, &files->spec, reason);
    if (error == 0)
        error = memplug_range_plug(files->host, files->pool, &files->spec, &add, limit, reason);
    finish(files, error, &add);
    return error;
}

/* --- replace ---------------------------------------------------------------------------------- */

#define NR_RUNS 32u

struct old {
    struct memplug_blocks runs[NR_RUNS];
    unsigned nr_runs;
};

static bool number_at(const char **at, const char *stop, uint64_t *number)
{
    const char *start = *at;

    for (*number = 0; *at < stop && **at >= '0' && **at <= '9' && *number < MPL_NR_BLOCKS_MAX;
         ++*at)
        *number = *number * 10 + (uint64_t)(**at - '0');
    return *at > start && *number < MPL_NR_BLOCKS_MAX;
}

/* "8-11" at the head of the words. */
static bool run_at(const char **words, const char *stop, struct memplug_blocks *run)
{
    uint64_t last;

    if (!number_at(words, stop, &run->first))
        return false;
    last = run->first;
    if (*words < stop && **words == '-') {
        ++*words;
        if (!number_at(words, stop, &last) || last < run->first)
            return false;
    }
    run->nr_blocks = last - run->first + 1;
    return true;
}

/* "8-11,14 " at the head of the words, which become what is behind. */
static int read_old(const char **words, const char *stop, struct old *old,
                    struct memplug_reason *reason)
{
    bool more = true;

    for (old->nr_runs = 0; more; ++*words) {
        if (old->nr_runs == NR_RUNS)
            return say(reason, -E2BIG, "too many runs of blocks", "at most 32");
        if (!run_at(words, stop, &old->runs[old->nr_runs++]))
            return say(reason, -EINVAL, "no blocks to replace", "write 8-11 and then a range");
        more = *words < stop && **words == ',';
        if (!more && (*words == stop || **words != ' '))
            return say(reason, -EINVAL, "no range behind the blocks",
                       "write 8-11 and then a range");
    }
    return 0;
}

static int look_at_run(const struct memplug_range_files *files, const struct memplug_blocks *run,
                       struct memplug_reason *reason)
{
    uint64_t end_block = run->first + run->nr_blocks;

    for (uint64_t block = run->first; block < end_block; block++) {
        struct memplug_block_info info;

        reason->block = (int64_t)block;
        if (memplug_block_info(files->pool, block, &info) != 0)
            return say(reason, -ENODEV, "there is no such block", NULL);
        if (info.unit_first < run->first || info.unit_first + info.unit_nr_blocks > end_block)
            return say(reason, -EINVAL, "cuts through a range that can only be removed as one",
                       "replace all of its blocks");
        if (info.early)
            return say(reason, -EINVAL, "boot memory cannot go", NULL);
    }
    reason->block = -1;
    return 0;
}

/* May the old ones be removed as they are? Before anything is done, or the new one would come and
 * go in vain. */
static int look_at_old(const struct memplug_range_files *files, const struct old *old,
                       struct memplug_reason *reason)
{
    uint64_t next = 0;
    int error = 0;

    for (unsigned i = 0; i < old->nr_runs && error == 0; i++) {
        if (old->runs[i].first < next)
            return say(reason, -EINVAL, "the blocks are not in order", NULL);
        next = old->runs[i].first + old->runs[i].nr_blocks;
        error = look_at_run(files, &old->runs[i], reason);
    }
    return error;
}

static int exchange(struct memplug_range_files *files, const struct old *old,
                    struct memplug_add *add, const struct memplug_limit *limit,
                    struct memplug_reason *reason)
{
    uint64_t start_ns = mpl_limit_start(files->host);
    struct memplug_limit rest;
    int error = memplug_range_plug(files->host, files->pool, &files->spec, add, limit, reason);

    if (error != 0)
        return error;
    rest = mpl_limit_rest(files->host, limit, start_ns);
    error = memplug_remove_blocks(files->pool, old->runs, old->nr_runs, true, &rest, reason);
    if (error != 0 && memplug_offline_and_remove(files->pool, add->address, add->size_bytes, NULL,
                                                 NULL) != 0)
        reason->remedy = "the new range is still plugged in: take it out when that can be";
    return error;
}

static int store_replace(void *context, const char *words, size_t length,
                         const struct memplug_limit *limit, struct memplug_reason *reason)
{
    struct memplug_range_files *files = context;
    const char *stop = words + length;
    struct memplug_add add;
    struct old old;
    int error;

    if (!begin(files))
        return say(reason, -EBUSY, "another range is just being plugged in", NULL);
    error = read_old(&words, stop, &old, reason);
    if (error == 0)
        error = memplug_range_parse(words, (size_t)(stop - words), &files->spec, reason);
    if (error == 0)
        error = look_at_old(files, &old, reason);
    if (error == 0)
        error = exchange(files, &old, &add, limit, reason);
    finish(files, error, &add);
    return error;
}

/* --- latency ---------------------------------------------------------------------------------- */

static int show_latency(void *context, char *buffer, size_t size_bytes)
{
    struct memplug_range_files *files = context;
    struct text text = {.buffer = buffer, .size_bytes = size_bytes};
    struct memplug_space_stat stat;

    if (files->space == NULL)
        return end(&text);
    memplug_space_stat(files->space, &stat);
    put_pair(&text, "unit_bytes", stat.unit_bytes);
    put_pair(&text, "nr_units", stat.nr_units);
    put_pair(&text, "mapped_bytes", stat.mapped_bytes);
    put_pair(&text, "nr_moves", stat.nr_moves);
    put_pair(&text, "moved_bytes", stat.moved_bytes);
    put_pair(&text, "copied_bytes", stat.copied_bytes);
    put_pair(&text, "nr_refused_pins", stat.nr_refused_pins);
    put_pair(&text, "nr_refused_proof", stat.nr_refused_proof);
    put_pair(&text, "nr_refused_vmas", stat.nr_refused_vmas);
    put_pair(&text, "nr_refused_other", stat.nr_refused_other);
    put_pair(&text, "nr_attributes_lost", stat.nr_attributes_lost);
    put_pair(&text, "nr_forks_lazy", stat.nr_forks_lazy);
    put_pair(&text, "nr_forks_copied", stat.nr_forks_copied);
    put_pair(&text, "nr_first_writes", stat.nr_first_writes);
    put_pair(&text, "nr_settled_pages", stat.nr_settled_pages);
    put_pair(&text, "nr_children_ended", stat.nr_children_ended);
    put_pair(&text, "pause_p50_ns", memplug_pause_ns(&stat.pause, 500));
    put_pair(&text, "pause_p99_ns", memplug_pause_ns(&stat.pause, 990));
    put_pair(&text, "pause_p999_ns", memplug_pause_ns(&stat.pause, 999));
    put_pair(&text, "pause_max_ns", stat.pause.max_ns);
    if (stat.fork_copied_why != NULL) {
        put(&text, "fork_copied_why ");
        put(&text, stat.fork_copied_why);
        put(&text, "\n");
    }
    return end(&text);
}

void memplug_range_files(struct memplug_range_files *files, struct memplug_linux *host,
                         struct memplug *pool, const struct memplug_space *space)
{
    *files = (struct memplug_range_files){
        .files = {{.name = "add", .mode = 0644, .show = show_last, .store = store_add},
                  {.name = "latency", .mode = 0444, .show = show_latency},
                  {.name = "replace", .mode = 0644, .show = show_last, .store = store_replace}},
        .host = host,
        .pool = pool,
        .space = space,
    };
    for (unsigned i = 0; i < MEMPLUG_RANGE_NR_FILES; i++)
        files->files[i].context = files;
}
